//! What jobs do, and what is known of them afterwards.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use vo_tests::Home;

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
    vo_tests::wait_until("the first job's processes", vo_tests::seconds(20), || (sleeping() >= 3).then_some(()));
    home.vo(["-s", "t", "-c", "rm 1"]).ok();
    vo_tests::wait_until("their end", vo_tests::seconds(20), || (sleeping() == 0).then_some(()));
    home.vo(["-s", "t", "-c", "wait"]).code(7).says(["2 removed"]);
    home.end("t");
    home.assert_nothing_left();
}
