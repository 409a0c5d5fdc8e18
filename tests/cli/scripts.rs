//! Without a terminal: scripts, `-c`, standard input, and what they exit with.

use vo_tests::{Home, Run};

const SUB: &str = "executable = /bin/echo\narguments = job $(Process)\noutput = out.$(Process)\nqueue 10\n";

/// All three ways to run `script` in a session of its own do the same.
fn each_way(script: &str, check: impl Fn(&Home, Run)) {
    let ways: [fn(&Home, &str) -> Run; 3] = [
        |home, script| home.vo(["-c", script]),
        |home, script| {
            home.write("script.vo", script);
            home.vo(["script.vo"])
        },
        |home, script| home.vo_with_input([] as [&str; 0], script.as_bytes()),
    ];
    for way in ways {
        let home = Home::new();
        home.write("t.sub", SUB);
        let run = way(&home, script);
        check(&home, run);
        home.assert_nothing_left();
    }
}

#[test]
fn a_script_starts_a_session_runs_and_ends_it() {
    each_way("submit t.sub\nwait\ncat out.3\nq --json\n", |home, run| {
        let run = run.ok();
        assert_eq!(run.stdout, "10 job(s) submitted to cluster 1.\njob 3\n[]\n");
        assert!(!run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'), "no colour: {run:?}");
        assert!(!run.stderr.contains("(grid)%"), "no prompt: {run:?}");
        assert_eq!(home.read("out.9"), "job 9\n");
    });
}

#[test]
fn the_first_failing_command_gives_the_exit_code() {
    each_way("submit absent.sub\nq 77\n", |_, run| {
        run.code(6).says(["absent.sub"]);
    });
    each_way("true\nfalse\n", |_, run| {
        run.code(1);
    });
    each_way("(exit 42)\n", |_, run| {
        run.code(42);
    });
    each_way("no-such-command-anywhere\n", |_, run| {
        run.code(127);
    });
    each_way("rm no-such-file\n", |_, run| {
        let said = run.code(1).stderr.clone();
        assert!(!said.contains("pop_var_context"), "{said}");
    });
}

#[test]
fn what_was_done_is_done_though_nobody_can_be_told() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/true\nqueue 2\n");
    let script = "submit t.sub t.sub > /dev/full; wait; hold --all > /dev/full; q --totals | head -c 0; \
                  condor_rm 1 > /dev/full || echo $?; wait 2> /dev/full; q 7 2> /dev/full";
    let run = home.vo(["-c", script]).code(2);
    let run = run.says([
        "2 job(s) submitted to cluster 1.",
        "2 job(s) submitted to cluster 2.",
        "4 of 4 job(s) succeeded",
        "0 job(s) held.",
    ]);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    home.assert_nothing_left();
}

#[test]
fn jobs_that_fail_give_their_own_code() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/false\nqueue 3\n");
    home.vo(["-c", "submit t.sub; wait"]).code(7).says(["0 of 3 job(s) succeeded, 3 failed"]);
    home.assert_nothing_left();
}

#[test]
fn a_script_that_is_missing_starts_nothing() {
    let home = Home::new();
    home.vo(["absent.vo"]).code(2).says(["absent.vo"]);
    home.assert_nothing_left();
}

#[test]
fn pipes_redirections_and_variables_are_the_shells() {
    each_way("X='a b'; echo \"$X\" | tr a-z A-Z\ncd /\npwd\nhelp > /dev/null && echo yes\n", |_, run| {
        assert_eq!(run.ok().stdout, "A B\n/\nyes\n");
    });
}

#[test]
fn listings_are_tables_for_people_and_json_for_programs() {
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    for listing in ["q", "history", "status", "sites", "proxies", "status --sites"] {
        let run = home.vo(["-s", "t", "-c", &format!("{listing} --json")]).ok();
        assert!(run.json().is_array(), "{listing}: {}", run.stdout);
        assert!(run.stderr.is_empty(), "{listing}: {}", run.stderr);
        home.vo(["-s", "t", "-c", listing]).ok();
    }
    for (ours, theirs) in [("q", "condor_q"), ("history", "condor_history"), ("status --total", "condor_status -total")]
    {
        let same = |line: &str| home.vo(["-s", "t", "-c", line]).ok().stdout;
        assert_eq!(same(ours).lines().nth(1), same(theirs).lines().nth(1), "{theirs} is a name for {ours}");
    }
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_running_session_is_used_and_left_running() {
    let home = Home::new();
    home.write("t.sub", SUB);
    home.vo(["-s", "t", "--keep", "-c", "submit t.sub"]).ok();
    home.vo(["-s", "t", "-c", "wait"]).ok().says(["10 of 10 job(s) succeeded"]);
    assert_eq!(home.vo(["-s", "t", "-c", "history --json"]).ok().json().as_array().map(Vec::len), Some(10));
    home.end("t");
    home.assert_nothing_left();
}
