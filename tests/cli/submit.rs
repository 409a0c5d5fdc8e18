//! Submit descriptions: what is refused, with which words, and that nothing of it is submitted.

use vo_tests::Home;

/// A session called `t` that stays, for several commands.
fn session() -> Home {
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    home
}

fn end(home: &Home) {
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn bad_descriptions_are_refused_whole() {
    let home = session();
    let refused = |text: &str, words: &[&str]| {
        home.write("bad.sub", text);
        home.vo(["-s", "t", "-c", "submit bad.sub"]).code(6).says(words.iter().copied());
    };
    refused("executable = /bin/true\narguments = \"a b\nqueue\n", &["bad.sub:2:13", "expected"]);
    refused("executable = /bin/true\nqueue x\n", &["bad.sub:2:7"]);
    refused("executable /bin/true\nqueue\n", &["bad.sub:1:"]);
    refused("queue\n", &["bad.sub:", "expected `executable = PATH`"]);
    refused("executable = /bin/true\n", &["bad.sub", "queue"]);
    refused("executable = /bin/true\nrequest_cpus = many\nqueue\n", &["bad.sub:2:16", "many"]);
    refused("executable = absent\nqueue\n", &["absent", "No such file"]);
    home.write("plain", "#!/bin/sh\n");
    refused("executable = plain\nqueue\n", &["plain is not executable", "chmod +x"]);
    refused("executable = /bin/cat\ninput = absent\nqueue\n", &["absent"]);
    refused("executable = /bin/true\noutput = absent/out\nqueue\n", &["absent/out"]);
    // The second statement is bad: the first one's jobs are not submitted either.
    refused("executable = /bin/true\nqueue 5\nexecutable = absent\nqueue\n", &["absent"]);
    home.vo(["-s", "t", "-c", "submit absent.sub"]).code(6).says(["absent.sub"]);

    let all = home.vo(["-s", "t", "-c", "q --all --json"]).ok();
    assert_eq!(all.json(), serde_json::json!([]), "nothing was submitted");
    end(&home);
}

#[test]
fn an_unknown_key_is_named_in_a_warning() {
    let home = session();
    home.write("a.sub", "executable = /bin/true\noutptu = x\nqueue\n");
    let run = home.vo(["-s", "t", "-c", "submit a.sub; wait"]).ok().says(["a.sub:2:1: warning", "outptu", "output"]);
    assert_eq!(run.stdout, "1 job(s) submitted to cluster 1.\n");
    end(&home);
}

#[test]
fn a_description_may_come_by_standard_input() {
    let home = session();
    let run = home.sh("printf 'executable = /bin/true\\nqueue 3\\n' | vo-login -s t -c 'submit -'").ok();
    assert_eq!(run.stdout, "3 job(s) submitted to cluster 1.\n");
    home.vo(["-s", "t", "-c", "wait"]).ok().says(["3 of 3 job(s) succeeded"]);
    end(&home);
}

#[test]
fn a_session_that_is_not_there_is_named() {
    let home = Home::new();
    let run = home.sh("vo-login -s nowhere --help >/dev/null && VO_SESSION=nowhere vo-login -l");
    assert_eq!((run.code, run.stdout.contains("nowhere")), (0, false), "{run:?}");
}
