//! Jobs that wait for a time of their own: `deferral_*` and `cron_*`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vo_tests::{Home, seconds, wait_until};

/// A session `t` with two slots of the workstation.
fn session() -> Home {
    let home = Home::new();
    home.write("vo.conf", "[[site]]\ngateway = \"local\"\nproxies = \"1:2\"\n");
    home.script("at.sh", "#!/bin/sh\ndate +%s >>at\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-c", "true"]).ok();
    home
}

fn said(home: &Home, command: &str) -> String {
    home.vo(["-s", "t", "-c", command]).ok().stdout
}

fn submit(home: &Home, commands: &str) {
    home.write("t.sub", format!("executable = at.sh\nlog = log\n{commands}\nqueue\n"));
    said(home, "submit t.sub");
}

fn job(home: &Home, cluster: u32) -> Value {
    home.vo(["-s", "t", "-c", &format!("q --all --json {cluster}")]).ok().json()[0].clone()
}

fn once(home: &Home, cluster: u32, state: &str) -> Value {
    wait_until(state, seconds(90), || Some(job(home, cluster)).filter(|job| job["state"] == state))
}

/// What `-af` prints of a job.
fn attribute(home: &Home, cluster: u32, name: &str) -> String {
    said(home, &format!("q --all {cluster} -af {name}")).trim().to_owned()
}

/// The seconds in which the jobs started.
fn starts(home: &Home) -> Vec<u64> {
    home.read("at").lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_deferred_job_starts_at_its_time_even_if_the_master_was_killed_meanwhile() {
    let home = session();
    submit(&home, "deferral_time = QDate + 12\ndeferral_window = 30\ndeferral_prep_time = 2");
    let waits = job(&home, 1);
    let due = attribute(&home, 1, "QDate").parse::<u64>().unwrap() + 12;
    assert_eq!(attribute(&home, 1, "DeferralTime"), due.to_string());
    assert_eq!((&waits["state"], waits["starts_ms"].as_u64()), (&"idle".into(), Some(due * 1000)), "{waits}");
    let listed = said(&home, "q");
    assert!(listed.contains("1 idle (1 wait for their time), 0 running"), "{listed}");
    let why = said(&home, "why 1.0");
    assert!(why.contains("its start, in ") && why.contains("it takes a slot up to 2.0s before"), "{why}");
    let master = home.vo(["-l", "--json"]).ok().json()[0]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(master.try_into().unwrap()), Signal::SIGKILL).unwrap();
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    assert_eq!(job(&home, 1)["starts_ms"], due * 1000);
    let done = once(&home, 1, "completed");
    let log = wait_until("its end in the event log", seconds(30), || {
        Some(home.read("log")).filter(|log| log.contains("\n005 ("))
    });
    assert_eq!(log.matches("\n001 (").count(), 1, "{log}");
    assert!(starts(&home)[0] >= due, "{:?} {due}", starts(&home));
    assert_eq!((done["attempts"].as_u64(), done.get("starts_ms")), (Some(1), None));
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_job_whose_time_is_over_is_held_with_htcondors_words() {
    let home = session();
    submit(&home, "deferral_time = QDate - 5\ndeferral_window = 1");
    let held = once(&home, 1, "held");
    assert_eq!(held["reason"], "Job missed deferred execution time");
    assert_eq!(attribute(&home, 1, "HoldReasonCode"), "20");
    said(&home, "release 1");
    let why = wait_until("the second hold", seconds(30), || {
        Some(said(&home, "why 1.0")).filter(|why| why.matches("held: Job missed").count() >= 2)
    });
    assert!(why.contains("released; the job is idle again"), "{why}");
    // A window that is still open will do.
    submit(&home, "deferral_time = QDate - 5\ndeferral_window = 3600");
    once(&home, 2, "completed");
    let log = home.read("log");
    assert!(log.contains("Job was held.\n\tJob missed deferred execution time\n\tCode 20 Subcode 0\n"), "{log}");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_schedule_starts_a_job_at_whole_minutes_and_again_at_the_next() {
    let home = session();
    submit(&home, "cron_minute = *\ncron_window = 50\ncron_prep_time = 0\non_exit_remove = false");
    let first: u64 = attribute(&home, 1, "DeferralTime").parse().unwrap();
    assert_eq!(first % 60, 0);
    let next = wait_until("the second start is waited for", seconds(90), || {
        let job = job(&home, 1);
        (job["state"] == "idle" && job["attempts"] == 1).then(|| job["starts_ms"].as_u64()).flatten()
    });
    assert_eq!(next, (first + 60) * 1000);
    assert!((first..first + 50).contains(&starts(&home)[0]), "{:?} {first}", starts(&home));
    said(&home, "rm 1");
    // What can't be a schedule is refused.
    home.write("t.sub", "executable = at.sh\ncron_hour = 7-5\nqueue\n");
    let refused = home.vo(["-s", "t", "-c", "submit t.sub"]).code(6).stderr;
    assert!(refused.contains("`cron_hour` is no part of a schedule: the range 7-5 ends before it begins"), "{refused}");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_noop_job_is_done_at_once_and_never_run() {
    let home = session();
    submit(&home, "noop_job = true\nnoop_job_exit_code = 3\ndeferral_time = QDate + 3600\nqueue 2");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).code(7).says(["3 failed"]);
    let done = job(&home, 1);
    assert_eq!((&done["state"], &done["exit_code"]), (&"completed".into(), &3.into()), "{done}");
    assert_eq!((&done["attempts"], &done["site"]), (&0.into(), &Value::Null), "{done}");
    assert_eq!(attribute(&home, 1, "NumJobStarts"), "0\n0\n0");
    let why = said(&home, "why 1.1");
    assert!(why.contains("completed without being run: `noop_job` is true"), "{why}");
    let log = wait_until("the ends in the event log", seconds(30), || {
        Some(home.read("log")).filter(|log| log.matches("\n005 (").count() == 3)
    });
    assert_eq!(log.matches("(1) Normal termination (return value 3)").count(), 3, "{log}");
    assert!(!log.contains("\n001 ("), "{log}");
    submit(&home, "noop_job = ProcId == 1\nnoop_job_exit_signal = 9\nqueue");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 2"]).code(7);
    let jobs = home.vo(["-s", "t", "-c", "q --all --json 2"]).ok().json();
    assert_eq!((&jobs[0]["exit_code"], &jobs[1]["signal"]), (&0.into(), &9.into()), "{jobs}");
    assert_eq!(starts(&home).len(), 1);
    home.end("t");
    home.assert_nothing_left();
}
