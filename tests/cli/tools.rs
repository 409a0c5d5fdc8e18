//! HTCondor's smaller tools, and those that there are none of.

use vo_tests::{Home, Run, seconds, wait_until};

fn session(slots: &str) -> Home {
    let home = Home::new();
    home.vo(["-s", "t", "-n", slots, "--keep", "-c", "true"]).ok();
    home
}

fn ask(home: &Home, line: &str) -> Run {
    home.vo(["-s", "t", "-c", line])
}

fn running(home: &Home, job: &str) {
    wait_until("the job runs", seconds(30), || {
        (ask(home, &format!("q {job} -af JobStatus")).ok().stdout == "2\n").then_some(())
    });
}

fn end(home: &Home) {
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_job_that_is_vacated_runs_again() {
    let home = session("1:2");
    home.script(
        "job.sh",
        "#!/bin/sh\ntrap 'echo told >> $1; exit 3' TERM\necho ran >> $1\nuntil test -e go; do /bin/sleep 0.05; done\n",
    );
    home.write("t.sub", "executable = job.sh\narguments = ran.$(Process)\nlog = log\nqueue 2\n");
    home.write("never.sub", "executable = job.sh\nrequirements = Nowhere\nqueue\n");
    ask(&home, "submit t.sub never.sub").ok();
    ["1.0", "1.1"].iter().for_each(|job| running(&home, job));
    wait_until("both have begun", seconds(30), || {
        (home.work("ran.0").exists() && home.work("ran.1").exists()).then_some(())
    });
    let check = |line: &str, code, out: &str, err: &str| {
        let run = ask(&home, line).code(code);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), (out, err), "{line}");
    };
    check("condor_vacate_job 1.0 9.0", 0, "Job 1.0 vacated\n", "Job 9.0 not found\n");
    check("condor_vacate_job 2.0", 1, "", "Job 2.0 not running to be vacated\n");
    check("condor_vacate_job 2", 1, "", "Couldn't find/vacate all jobs in cluster 2\n");
    let again = |file: &str, lines: &str| {
        wait_until("it runs again", seconds(60), || (home.read(file) == lines).then_some(()));
    };
    again("ran.0", "ran\ntold\nran\n");
    check(
        "condor_vacate_job -fast -const 'ProcId == 1'",
        0,
        "All jobs matching constraint (ProcId == 1) have been fast-vacated\n",
        "",
    );
    again("ran.1", "ran\nran\n");
    home.write("go", "");
    ask(&home, "wait 1 --timeout 60s").ok();
    let history = ask(&home, "history 1 -forwards -af NumJobStarts ExitCode").ok().stdout;
    assert_eq!(history, "2 0\n2 0\n");
    assert_eq!(home.read("log").matches("(0) CPU times\n").count(), 2, "{}", home.read("log"));
    assert!(ask(&home, "why 1.0").ok().stdout.contains("vacated: by the user"));
    ask(&home, "condor_rm -name elsewhere 2").code(2).says(["there is no elsewhere here"]);
    check("condor_rm -name t -pool localhost 2", 0, "All jobs in cluster 2 have been marked for removal\n", "");
    assert_eq!(ask(&home, "condor_status -pool $(uname -n) -af Cpus").ok().stdout, "2\n");
    end(&home);
}

#[test]
fn what_a_job_writes_is_shown_while_it_runs() {
    let home = session("1:1");
    home.script(
        "job.sh",
        "#!/bin/sh\necho one\necho two >&2\nuntil test -e go; do /bin/sleep 0.05; done\necho three\n",
    );
    home.write("t.sub", "executable = job.sh\noutput = out\nerror = err\nqueue\n");
    home.write("never.sub", "executable = job.sh\noutput = never\nrequirements = Nowhere\nqueue\nqueue\n");
    ask(&home, "submit t.sub never.sub").ok();
    assert_eq!(ask(&home, "condor_tail -auto-retry 1.0").ok().stdout, "one\n");
    wait_until("it has written both", seconds(30), || {
        home.work("err").exists().then(|| home.read("err") == "two\n")?.then_some(())
    });
    assert_eq!(ask(&home, "condor_tail -stderr 1.0").ok().stdout, "one\ntwo\n");
    assert_eq!(ask(&home, "condor_tail -stderr -no-stdout -maxbytes 2 1.0").ok().stdout, "o\n");
    ask(&home, "condor_tail 2.0").code(1).says(["job 2.0, which is idle", "stream_output"]);
    ask(&home, "condor_tail 9.0").code(2);
    ask(&home, "condor_tail 1.0 other").code(2).says(["other of job 1.0"]);
    let follows = ask(
        &home,
        "(until test -s seen; do /bin/sleep 0.05; done; touch go) & condor_tail -f -maxbytes 2 1.0 | tee seen",
    );
    assert_eq!(follows.ok().stdout, "e\nthree\n");
    end(&home);
}

#[test]
fn what_there_is_none_of_is_refused_by_name() {
    let home = session("1:1");
    home.write("t.sub", "executable = /bin/true\nqueue\n");
    ask(&home, "submit t.sub; wait 1 --timeout 60s").ok();
    assert!(ask(&home, "condor_q -help").ok().stdout.contains("--nobatch"));
    assert!(ask(&home, "condor_submit_dag -version").ok().stdout.starts_with("vo-login "));
    ask(&home, "condor_transfer_data 1").ok().says(["Nothing is to be fetched"]);
    ask(&home, "condor_transfer_data 9").code(2);
    for (line, hint) in [
        ("condor_suspend 1", "`hold` stops them"),
        ("condor_continue 1", "`release` lets held ones run"),
        ("condor_ssh_to_job 1.0", "condor_tail JOB"),
        ("condor_userprio -all", "accounting groups"),
        ("condor_evicted_files get 1.0", "`why JOB`"),
        ("vo condor_drain n1", "vo-htcondor(7)"),
    ] {
        let name = line.split(' ').find(|word| word.starts_with("condor_")).unwrap();
        ask(&home, line).code(1).says([&format!("there is no {name} here"), hint]);
    }
    end(&home);
}
