//! What is killed comes back, and nothing is lost or counted twice.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, seconds, wait_until};

/// The master of session `t`.
fn master(home: &Home) -> i32 {
    let sessions = home.vo(["-l", "--json"]).ok().json();
    i32::try_from(sessions[0]["pid"].as_i64().unwrap()).unwrap()
}

fn kill_nine(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
}

/// Brings session `t` back, and leaves it alone.
fn bring_back(home: &Home) {
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
}

fn completed(home: &Home) -> usize {
    home.vo(["-s", "t", "-c", "history --json"]).ok().json().as_array().map_or(0, Vec::len)
}

/// The jobs whose ends are in the event log, in order, once there are `count`; it is written behind the result.
fn ends(home: &Home, count: usize) -> Vec<usize> {
    wait_until("the ends in the event log", seconds(30), || {
        let events = home.read("events");
        let lines = events.lines().filter(|line| line.starts_with("005 (001."));
        let mut ended: Vec<usize> = lines.map(|line| line.split('.').nth(1).unwrap().parse().unwrap()).collect();
        ended.sort_unstable();
        (ended.len() >= count).then_some(ended)
    })
}

/// What this workload makes of other systems is in their own documents: results lost with the server, or jobs run again.
#[test]
fn a_master_killed_with_92_of_120_jobs_done_has_them_all_and_runs_none_again() {
    let home = Home::new();
    home.script("job.sh", "#!/bin/sh\necho \"$1 begun\" >> ledger\nsleep 0.5\necho \"$1 ended\" >> ledger\necho $1\n");
    home.write(
        "t.sub",
        "executable = job.sh\narguments = $(Process)\noutput = out.$(Process)\nlog = events\nqueue 120\n",
    );
    home.vo(["-s", "t", "-n", "1:4", "--keep", "-c", "submit t.sub"]).ok();
    let done = wait_until("92 results", seconds(120), || Some(completed(&home)).filter(|&done| done >= 92));
    let proxies = || {
        let proxies = home.vo(["-s", "t", "-c", "proxies --json"]).ok().json();
        proxies.as_array().unwrap().iter().map(|proxy| proxy["batch_id"].clone()).collect::<Vec<_>>()
    };
    let before = proxies();
    kill_nine(master(&home));
    bring_back(&home);
    let after = completed(&home);
    assert!(after >= done, "{done} were finished, now {after} are");
    home.vo(["-s", "t", "-c", "wait --timeout 60s"]).ok().says(["120 of 120 job(s) succeeded"]);
    assert_eq!(proxies(), before, "the same proxy works on");

    let ledger = home.read("ledger");
    let of = |what: &str| {
        let mut jobs: Vec<u32> =
            ledger.lines().filter_map(|line| line.strip_suffix(what)?.trim().parse().ok()).collect();
        jobs.sort_unstable();
        jobs
    };
    let each: Vec<u32> = (0..120).collect();
    assert_eq!(of("begun"), each, "each job began once: the running ones were not begun again");
    assert_eq!(of("ended"), each);
    for job in each {
        assert_eq!(home.read(format!("out.{job}")), format!("{job}\n"));
    }
    assert_eq!(ends(&home, 120), (0..120).collect::<Vec<_>>(), "the event log tells of each end once");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_master_killed_again_and_again_counts_each_job_once() {
    const JOBS: usize = 400;
    let home = Home::new();
    home.script("job.sh", "#!/bin/sh\nsleep 0.1\necho $1\n");
    home.write(
        "t.sub",
        format!("executable = job.sh\narguments = $(Process)\noutput = out.$(Process)\nlog = events\nqueue {JOBS}\n"),
    );
    home.vo(["-s", "t", "-n", "1:4", "--keep", "-c", "submit t.sub"]).ok();
    let mut done = 0;
    for round in 0..8 {
        done = wait_until("more results", seconds(60), || Some(completed(&home)).filter(|&now| now > done + 10));
        assert!(done < JOBS, "there is something left to kill in round {round}");
        // It is brought back while it dies.
        kill(Pid::from_raw(master(&home)), Signal::SIGKILL).unwrap();
        bring_back(&home);
        assert!(completed(&home) >= done, "nothing that was told is taken back");
    }
    home.vo(["-s", "t", "-c", "wait --timeout 100s"]).ok().says([&*format!("{JOBS} of {JOBS} job(s) succeeded")]);
    for job in 0..JOBS {
        assert_eq!(home.read(format!("out.{job}")), format!("{job}\n"));
    }
    assert_eq!(ends(&home, JOBS), (0..JOBS).collect::<Vec<_>>(), "the event log tells of each end once");
    home.end("t");
    home.assert_nothing_left();
}
