//! What jobs do, and what is known of them afterwards.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use vo_tests::{Home, seconds, wait_until};

/// Submits `description` in a session of its own, waits, and gives back the exit code of `wait` and the history as JSON.
fn history(home: &Home, description: impl AsRef<[u8]>) -> (i32, serde_json::Value) {
    home.write("t.sub", description);
    let run = home.vo(["-s", "t", "--keep", "-c", "submit t.sub; wait"]);
    assert!([0, 7].contains(&run.code), "{run:?}");
    let history = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    home.end("t");
    home.assert_nothing_left();
    (run.code, history)
}

#[test]
fn outputs_are_where_the_user_named_them() {
    let home = Home::new();
    fs::create_dir(home.work("run")).unwrap();
    home.write("run/in.txt", "from a file\n");
    let (code, history) = history(
        &home,
        "executable = /bin/sh
arguments = \"-c 'read line; echo $line $X $(Cluster).$(Process); echo oops >&2; pwd > where.$(Process)'\"
environment = \"X=value\"
input = in.txt
output = out.$(Process)
error = err.$(Process)
log = run.log
initialdir = run
queue 20
",
    );
    assert_eq!(code, 0, "{history:#}");
    for process in 0..20 {
        assert_eq!(home.read(format!("run/out.{process}")), format!("from a file value 1.{process}\n"));
        assert_eq!(home.read(format!("run/err.{process}")), "oops\n");
        assert_eq!(home.read(format!("run/where.{process}")).trim(), home.work("run").to_str().unwrap());
    }
    assert_eq!(history.as_array().map(Vec::len), Some(20));
    assert_eq!(home.read("run/run.log").matches("Job terminated").count(), 20, "the event log, as HTCondor writes it");
}

#[test]
fn exit_codes_signals_and_usage_are_recorded() {
    let home = Home::new();
    let script = home
        .script("job", "#!/bin/bash\ncase $1 in 0) exit 0;; 1) exit 3;; 2) kill -KILL $$;; 3) kill -SEGV $$;; esac\n");
    let (code, history) =
        history(&home, format!("executable = {}\narguments = $(Process)\nqueue 4\n", script.display()));
    assert_eq!(code, 7, "some jobs failed");
    let ends: Vec<_> =
        history.as_array().unwrap().iter().map(|job| (job["exit_code"].as_u64(), job["signal"].as_u64())).collect();
    assert_eq!(ends, [(Some(0), None), (Some(3), None), (None, Some(9)), (None, Some(11))]);
    for job in history.as_array().unwrap() {
        assert_eq!(job["state"], "completed");
        assert_eq!(job["attempts"], 1, "a failure of the job is not tried again");
        assert_eq!(job["site"], "local");
        assert!(job["peak_kib"].as_u64().unwrap() > 100, "{job}");
        assert!(
            job["started_ms"].as_u64() >= job["submitted_ms"].as_u64()
                && job["ended_ms"].as_u64() >= job["started_ms"].as_u64()
        );
    }
}

#[test]
fn cpu_time_and_memory_are_measured() {
    let home = Home::new();
    home.write("burn.py", "import time\nblock = bytearray(64 << 20)\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n");
    let (code, history) =
        history(&home, "executable = /usr/bin/env\narguments = python3 burn.py\ngetenv = PATH\nqueue\n");
    assert_eq!(code, 0, "{history:#}");
    let job = &history[0];
    assert!((400..5_000).contains(&job["cpu_ms"].as_u64().unwrap()), "{job}");
    assert!((64 << 10..1 << 20).contains(&job["peak_kib"].as_u64().unwrap()), "{job}");
}

#[test]
fn a_hundred_megabytes_on_one_line_come_whole() {
    const LENGTH: u64 = 100_000_000;
    let home = Home::new();
    let (code, _) = history(
        &home,
        format!(
            "executable = /bin/sh\narguments = \"-c 'head -c {LENGTH} /dev/zero | tr ''\\0'' x'\"\noutput = big\nqueue\n"
        ),
    );
    assert_eq!(code, 0);
    let bytes = fs::read(home.work("big")).unwrap();
    assert_eq!(bytes.len() as u64, LENGTH);
    assert!(bytes.iter().all(|&byte| byte == b'x'));
}

#[test]
fn bytes_that_are_no_text_pass_through() {
    let home = Home::new();
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    home.script(name(b"pr\xf6gram"), "#!/bin/sh\nprintf %s \"$1\"\n");
    let (code, history) = history(
        &home,
        b"executable = pr\xf6gram\narguments = \"'\xff\xfe \xe9'\"\noutput = out.\xfc$(Process)\nqueue 2\n",
    );
    assert_eq!(code, 0, "{history:#}");
    for output in [&b"out.\xfc0"[..], b"out.\xfc1"] {
        assert_eq!(fs::read(home.work(OsStr::from_bytes(output))).unwrap(), b"\xff\xfe \xe9");
    }
}

#[test]
fn a_program_that_vanishes_after_submission_holds_its_jobs_and_says_why() {
    let home = Home::new();
    home.script("job", "#!/bin/sh\n");
    home.write("slow.sub", "executable = /bin/sh\narguments = \"-c 'until test -e go; do sleep 0.05; done; mv job2 job'\"\ninitialdir = .\nqueue\n");
    // One slot at a time: the second cluster starts when the first has removed its program.
    home.write("job2", "no program");
    home.write("t.sub", "executable = job\nqueue 2\n");
    let run =
        home.vo(["-s", "t", "--keep", "-n", "1:1", "-c", "submit slow.sub; submit t.sub; touch go; wait"]).code(7);
    assert!(run.stderr.contains("held") || run.stderr.contains("failed"), "{run:?}");
    let jobs = home.vo(["-s", "t", "-c", "q --all --json 2"]).ok().json();
    for job in jobs.as_array().unwrap() {
        assert!(["held", "completed"].contains(&job["state"].as_str().unwrap()), "{job}");
        assert_ne!(job["exit_code"], 0, "{job}");
        assert!(job["reason"].as_str().unwrap_or_default().contains("job"), "the reason names the program: {job}");
    }
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn removed_jobs_end_with_all_their_processes() {
    let home = Home::new();
    home.script("tree", "#!/bin/bash\n(setsid sleep 1000 & sleep 1000) & sleep 1000\n");
    home.write("t.sub", "executable = tree\nqueue 2\n");
    home.vo(["-s", "t", "--keep", "-c", "submit t.sub"]).ok();
    let sleeping = || home.processes().iter().filter(|(_, command)| command.starts_with("sleep 1000")).count();
    wait_until("the first job's processes", seconds(20), || (sleeping() >= 3).then_some(()));
    home.vo(["-s", "t", "-c", "rm 1"]).ok();
    wait_until("their end", seconds(20), || (sleeping() == 0).then_some(()));
    home.vo(["-s", "t", "-c", "wait"]).code(7).says(["2 removed"]);
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn jobs_are_held_released_and_edited_and_a_person_is_asked_when_they_are_many() {
    let home = Home::new();
    home.write("slow.sub", "executable = /bin/sleep\narguments = 1000\nbatch_name = slow\nqueue 200\n");
    home.write("next.sub", "executable = /bin/echo\narguments = $(Process)\noutput = out.$(Process)\nqueue 3\n");
    let mut terminal = home.terminal(["-s", "t", "-n", "1:2"]);
    terminal.expect("Welcome");
    terminal.prompt();
    terminal.run("submit slow.sub; submit next.sub");
    let count = |state: &str| {
        let rows = home.vo(["-s", "t", "-c", "q --json"]).ok().json();
        rows.as_array().unwrap().iter().filter(|row| row["state"] == state).count()
    };
    wait_until("two that run", seconds(30), || (count("running") == 2).then_some(()));

    // A later cluster goes first when it is edited to, as soon as there is room.
    assert!(terminal.run("edit 2 priority=5 request_memory=1M").contains("3 job(s) edited."));
    assert!(terminal.run("hold --reason 'no more' 1.0-1").contains("2 job(s) held."));
    home.vo(["-s", "t", "-c", "wait --timeout 30s 2"]).ok();
    assert_eq!(home.read("out.2"), "2\n");
    assert!(terminal.run("why 1.0").contains("held: no more"));
    assert!(terminal.run("why 2.0").contains("edited: priority = 5, request_memory = 1"));
    assert!(terminal.run("release 1.0-400").contains("2 job(s) released."));

    // Many: a question.
    terminal.type_line("hold --batch-name slow");
    terminal.expect("Hold 200 jobs? [y/N] ");
    terminal.type_line("n");
    terminal.expect("Nothing is held.");
    terminal.prompt();
    assert_eq!(count("held"), 0);
    terminal.type_line("vo rm --all");
    terminal.expect("Remove 200 jobs? [y/N] ");
    terminal.type_line("y");
    terminal.expect("200 job(s) removed.");
    terminal.prompt();
    home.vo(["-s", "t", "-c", "hold 7"]).code(2).says(["there is no job 7 in this session"]);
    home.vo(["-s", "t", "-c", "edit 1 'requirements=Cpus >'"]).code(2).says(["no ClassAd expression"]);
    home.vo(["-s", "t", "-c", "edit 1"]).code(2).says(["nothing is to be changed", "hint: "]);
    home.vo(["-s", "t", "-c", "release --batch-name quick"]).code(2).says(["no batch is called \"quick\""]);
    terminal.type_line("exit --force");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn requirements_and_rank_are_met_and_why_names_the_clause_that_is_not() {
    let home = Home::new();
    let description = |requirements: &str, name: &str| {
        let text = "executable = /bin/echo\narguments = $(Process)\noutput = NAME.$(Process)\nrank = Memory\n";
        format!("{}requirements = {requirements}\nqueue 2\n", text.replace("NAME", name))
    };
    home.write("meets.sub", description("Site == \"local\" && TARGET.TimeToLive > 60 && OpSys == \"LINUX\"", "meets"));
    home.write("lacks.sub", description("Cpus >= 1 && TARGET.Project == \"X\"", "lacks"));
    home.vo(["-s", "t", "--keep", "-n", "1:2", "-c", "submit lacks.sub; submit meets.sub; wait --timeout 30s 2"]).ok();
    assert_eq!(home.read("meets.1"), "1\n");
    let why = home.vo(["-s", "t", "-c", "why 1.0"]).ok();
    assert!(why.stdout.contains("refused by its requirements: TARGET.Project == \"X\" (undefined there)"), "{why:?}");
    home.vo(["-s", "t", "-c", "edit 1 'requirements=Cpus >= 1'; wait --timeout 30s"]).ok();
    assert_eq!(home.read("lacks.0"), "0\n");
    // Scratch space counts, too.
    home.write("big.sub", "executable = /bin/true\nrequest_disk = 1000000T\nqueue\nrequest_disk = 1M\nqueue\n");
    home.vo(["-s", "t", "-c", "submit big.sub; wait --timeout 30s 3.1"]).ok();
    let why = home.vo(["-s", "t", "-c", "why 3.0"]).ok().stdout;
    assert!(why.contains("refused by its requirements: TARGET.Disk >= 1073741824000000"), "{why}");
    home.vo(["-s", "t", "-c", "condor_rm 3.0"]).ok();
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn resources_of_a_site_are_counted() {
    let home = Home::new();
    home.write("vo.conf", "[[site]]\ngateway = \"local\"\nproxies = \"1:4\"\nresources = { Fpgas = 2 }\n");
    // Each job takes one of two places, and fails when it finds none.
    let script = "#!/bin/sh\nmkdir ../place.a 2>/dev/null && mine=a || { mkdir ../place.b && mine=b || exit 1; }\n\
                  echo $mine > took.$1; until ls took.* | wc -l | grep -qE '[2-9]|..'; do sleep 0.02; done\nrmdir ../place.$mine\n";
    home.script("take", script);
    home.write("take.sub", "executable = take\narguments = $(Process)\nrequest_fpgas = NumJobStarts + 1\nqueue 9\n");
    home.write("more.sub", "executable = take\narguments = x\nrequest_FPGAs = 3\nqueue\n");
    let conf = ["-H", "vo.conf", "-s", "t"];
    let vo = |line: &str| home.vo(conf.into_iter().chain(["-c", line])).ok().stdout;
    home.vo(conf.into_iter().chain(["--keep", "-c", "submit take.sub; submit more.sub; wait --timeout 60s 1"])).ok();
    assert_eq!(vo("history -af ExitCode | sort | uniq -c").trim(), "9 0");
    assert_eq!(vo("status -af Fpgas"), "2\n");
    assert!(vo("status -long").contains("\nFpgas = 2\n"));
    let why = vo("why 2.0");
    assert!(why.contains("refused by its requirements: (TARGET.FPGAs >= RequestFPGAs)"), "{why}");
    assert_eq!(vo("condor_qedit 2.0 RequestFpgas 1"), "Set attribute \"RequestFpgas\" for 1 matching jobs.\n");
    vo("wait --timeout 60s 2");
    assert_eq!(vo("q --all 2 -af RequestFpgas ExitCode"), "1 0\n");
    home.end("t");
    home.assert_nothing_left();
}
