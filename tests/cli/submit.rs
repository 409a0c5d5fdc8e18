//! Submit descriptions: what is refused, with which words, and that nothing of it is submitted.

use vo_tests::{Home, seconds, wait_until};

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

#[test]
fn items_reach_the_jobs() {
    let home = session();
    home.sh("mkdir in").ok();
    home.write("in/a.txt", "alpha\n");
    home.write("in/b c.txt", "beta\n");
    home.write("items", "10 in/a.txt\n20 in/b c.txt\n");
    let show = "#!/bin/sh\necho \"$1 $NAME:$WORDS:$#:$(cat):$(ls | grep -c txt)\"\n";
    home.script("show.sh", show);
    // In their own directory, and in a scratch directory with their files.
    for (transfer, name, beside) in [("no", "here", 0), ("yes", "there", 1)] {
        let text = format!(
            "executable = show.sh\narguments = $(Process) $(file)\nenvironment = \"NAME='$Fn(file)' WORDS='$(Row) $(mem)'\"\n\
             input = $(file)\noutput = {name}.$(mem)\nlog = {name}.$(mem).log\nrequest_memory = $(mem)\n\
             transfer_input_files = $(file)\nshould_transfer_files = {transfer}\nqueue mem, file from items\n"
        );
        home.write("items.sub", text);
        home.vo(["-s", "t", "-c", "submit items.sub; wait"]).ok().says(["job(s) succeeded"]);
        assert_eq!(home.read(format!("{name}.10")), format!("0 a:0 10:2:alpha:{beside}\n"));
        assert_eq!(home.read(format!("{name}.20")), format!("1 b c:1 20:3:beta:{beside}\n"));
        for memory in ["10", "20"] {
            let log = || home.read(format!("{name}.{memory}.log"));
            let ended = || log().contains("Normal termination (return value 0)").then_some(());
            wait_until("the end in the event log", seconds(10), ended);
        }
    }
    let rows = home.vo(["-s", "t", "-c", "q --all --json"]).ok().json();
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let commands: Vec<&str> = rows.iter().filter_map(|row| row["command"].as_str()).collect();
    assert!(
        commands[0].ends_with("show.sh 0 in/a.txt") && commands[1].ends_with("show.sh 1 in/b c.txt"),
        "{commands:?}"
    );
    end(&home);
}

#[test]
fn items_come_from_lists_commands_and_patterns() {
    let home = session();
    for name in ["x.dat", "y.dat"] {
        home.write(name, name);
    }
    home.write("common.inc", "executable = /bin/echo\noutput = out.$(Process)\n");
    home.write(
        "all.sub",
        "include : common.inc\nif defined ENVIRONMENT\nerror : no\nendif\narguments = $(v) $(Step)$(Row)\n\
         queue 2 v in (p q)\nqueue v from printf '1 one\\n2 two\\n' |\nqueue v matching files *.dat\nqueue v from (\nlast\n)\n",
    );
    home.vo(["-s", "t", "-c", "submit all.sub; wait"]).ok().says(["9 of 9 job(s) succeeded"]);
    let said: Vec<String> = (0..9).map(|proc| home.read(format!("out.{proc}")).trim().to_owned()).collect();
    assert_eq!(said, ["p 00", "p 10", "q 01", "q 11", "1 one 00", "2 two 01", "x.dat 00", "y.dat 01", "last 00"]);
    end(&home);
}
