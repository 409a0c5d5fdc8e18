//! `why`: the chain of evidence, from the records that made the state.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vo_tests::{Home, seconds, wait_until};

/// The answer of `why NAME` of session `t`.
fn why(home: &Home, name: &str) -> Value {
    home.vo(["-s", "t", "-c", &format!("why --json {name}")]).ok().json()[0].clone()
}

/// The steps of an answer, without those that have no time: who, and what.
fn steps(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = answer["evidence"].as_array().unwrap().iter().filter(|step| !step["at_ms"].is_null());
    steps.map(|step| (text(&step["by"]), text(&step["text"]))).collect()
}

/// Each of these (who, how the text begins, what it holds) stands in the answer, in this order.
fn assert_order(answer: &Value, expected: &[(&str, &str, &str)]) {
    let steps = steps(answer);
    let mut rest = steps.iter();
    for (by, begins, holds) in expected {
        let found = rest.any(|(who, text)| who.starts_with(by) && text.starts_with(begins) && text.contains(holds));
        assert!(found, "{by}: {begins}…{holds} is not there, or not in this order:\n{answer:#}");
    }
    let times: Vec<u64> =
        answer["evidence"].as_array().unwrap().iter().filter_map(|step| step["at_ms"].as_u64()).collect();
    assert!(times.is_sorted(), "{answer:#}");
}

fn next(answer: &Value) -> String {
    answer["waits_for"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The starter itself: its parent, the guardian, is called the same.
fn starter(home: &Home) -> Option<i32> {
    let starters: Vec<i32> =
        home.processes().iter().filter(|(_, line)| line.contains("/vo-agent starter")).map(|(pid, _)| *pid).collect();
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<i32>().ok()
    };
    starters.iter().copied().find(|pid| parent(*pid).is_some_and(|parent| starters.contains(&parent)))
}

#[test]
fn the_attempts_of_a_job_are_told_across_a_snapshot_and_a_killed_master() {
    let home = Home::new();
    home.script("job.sh", "#!/bin/sh\necho $$ >> begun\nwhile [ ! -e go ]; do sleep 0.1; done\n");
    home.write("t.sub", "executable = job.sh\nqueue\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub"]).ok();
    let begun = || std::fs::read_to_string(home.work("begun")).unwrap_or_default().lines().count();
    wait_until("the first attempt", seconds(60), || (begun() == 1).then_some(()));
    let running = why(&home, "1.0");
    assert_order(&running, &[("you", "submitted cluster 1", ""), ("master", "attempt 1 sent to ", "local/1")]);
    assert_order(&running, &[("starter on ", "attempt 1 runs", "")]);
    assert!(running["state"].as_str().unwrap().starts_with("running on "), "{running:#}");
    assert!(next(&running).starts_with("its end"), "{running:#}");

    kill(Pid::from_raw(starter(&home).expect("a starter runs")), Signal::SIGKILL).unwrap();
    wait_until("the second attempt", seconds(60), || (begun() == 2).then_some(()));
    home.write("go", "");
    home.vo(["-s", "t", "-c", "wait --timeout 60s 1"]).ok();
    let story = [
        ("you", "submitted cluster 1", ""),
        ("master", "attempt 1 sent to ", "local/1"),
        ("starter on ", "attempt 1 runs", ""),
        ("agent of local", "the starter is silent", ""),
        ("agent of local", "the starter on ", " has ended: "),
        ("master", "attempt 1 was failed by its site", "idle again"),
        ("master", "attempt 2 sent to ", "local/"),
        ("starter on ", "attempt 2 ended with exit code 0", ""),
        ("master", "completed at local", ""),
    ];
    let told = why(&home, "1.0");
    assert_order(&told, &story);
    assert_eq!((&told["state"], next(&told)), (&"completed with exit code 0".into(), String::new()));
    assert_eq!(told["notes"], serde_json::json!([]));

    // Jobs too large to run anywhere, whose descriptions fill the journal until a snapshot replaces it.
    let long = "x".repeat(1_000_000);
    let group = |n| format!("arguments = {n}{long}\nqueue\n");
    home.write("large.sub", format!("executable = job.sh\nrequest_cpus = 10000\n{}{}{}", group(1), group(2), group(3)));
    let kept = home.session_dir("t").join("store/past-0");
    home.vo(["-s", "t", "-c", "for i in $(seq 23); do submit large.sub; done"]).ok();
    wait_until("a snapshot", seconds(60), || kept.exists().then_some(()));
    assert_eq!(steps(&why(&home, "1.0")), steps(&told), "the same after a snapshot");

    let sessions = home.vo(["-l", "--json"]).ok().json();
    let master = i32::try_from(sessions[0]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(master), Signal::SIGKILL).unwrap();
    wait_until("its end", seconds(10), || (!std::fs::exists(format!("/proc/{master}")).unwrap()).then_some(()));
    home.terminal(["-r", "t"]).within(seconds(60)).prompt();
    assert_eq!(steps(&why(&home, "1.0")), steps(&told), "the same from a master that was started again");
    // Without the replaced log there is less evidence, and the answer says so.
    std::fs::remove_file(kept).unwrap();
    let rest = why(&home, "1.0");
    assert!(rest["notes"][0].as_str().unwrap().contains("no longer kept"), "{rest:#}");
    assert_eq!(rest["state"], "completed with exit code 0");
    assert_order(&rest, &[("you", "submitted", "")]);
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn an_idle_job_tells_what_it_waits_for() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/sleep\narguments = 1000\nqueue 9\n");
    home.write("large.sub", "executable = /bin/true\nrequest_cpus = 1000\nqueue\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub; submit large.sub"]).ok();
    let idle = wait_until("a full starter", seconds(60), || {
        Some(why(&home, "1.8")).filter(|answer| next(answer).contains("full, with 1 CPU(s)"))
    });
    assert_eq!(idle["state"], "idle");
    assert!(next(&idle).contains("idle job(s) are before it"), "{idle:#}");
    assert!(next(&idle).contains("site local: 1 of 1 wanted proxies run"), "{idle:#}");
    let large = why(&home, "2.0");
    assert!(next(&large).contains("1 of 1 starter(s): too small: it needs 1000 CPU(s)"), "{large:#}");
    let cluster = why(&home, "1");
    assert_eq!((&cluster["kind"], &cluster["state"]), (&"cluster".into(), &"8 idle, 1 running".into()), "{cluster:#}");
    assert!(next(&cluster).contains("idle job(s), the first 1."), "{cluster:#}");
    home.vo(["-s", "t", "-c", "rm 1.8"]).ok();
    let removed = why(&home, "1.8");
    assert_order(&removed, &[("you", "removed", "")]);
    assert_eq!(removed["state"], "removed");
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn names_of_all_kinds_are_understood_and_others_refused() {
    let home = Home::new();
    home.write("t.sub", "executable = missing.sh\nqueue 2\n");
    home.script("missing.sh", "#!/bin/sh\nexit 3\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub; wait"]).code(7);
    let batch_id = home.vo(["-s", "t", "-c", "proxies --json --all"]).ok().json()[0]["batch_id"].clone();
    let batch_id = batch_id.as_str().unwrap();
    for (name, kind, whole) in [
        ("1.1", "job", "1.1"),
        ("job 1.1", "job", "1.1"),
        ("1", "cluster", "1"),
        ("cluster 1", "cluster", "1"),
        ("local", "site", "local"),
        ("site local", "site", "local"),
        ("local/1", "proxy", "local/1"),
        ("proxy 1", "proxy", "local/1"),
        ("proxy local/1", "proxy", "local/1"),
        (batch_id, "proxy", "local/1"),
    ] {
        let answer = why(&home, name);
        assert_eq!((&answer["kind"], &answer["name"]), (&kind.into(), &whole.into()), "{name}");
        assert_ne!(answer["state"], "", "{name}");
    }
    for bad in ["7", "1.9", "nowhere", "local/9", "proxy local", "cluster 1.1", "machine 1", "''", "1 2 3"] {
        home.vo(["-s", "t", "-c", &format!("why {bad}")]).code(2);
    }
    home.vo(["-s", "t", "-c", "why nowhere"])
        .code(2)
        .says(["there is no job, cluster, proxy or site nowhere", "hint: "]);
    // As a program, in a pipe; and as text.
    let text = home.vo(["-s", "t", "-c", "sh -c 'why 1.1 | cat'; help why"]).ok().stdout;
    assert!(text.starts_with("job 1.1: completed with exit code 3\n  2"), "{text}");
    assert!(text.contains("attempt 1 ended with exit code 3 after 0."), "{text}");
    assert!(text.contains("Tells the evidence for a state"), "{text}");
    let mut terminal = home.terminal(["-r", "t"]);
    terminal.prompt();
    terminal.send(b"why loc\t");
    terminal.expect("why local");
    terminal.send(b"\x15exit --force\r");
    assert_eq!(terminal.within(seconds(60)).exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn a_site_tells_its_events_and_a_proxy_its_records() {
    let home = Home::new();
    home.write("t.sub", "executable = /bin/true\nqueue\n");
    home.vo(["-s", "t", "-n", "1:1", "--keep", "-c", "submit t.sub; wait"]).ok();
    let site = why(&home, "local");
    assert!(site["state"].as_str().unwrap().starts_with("up for "), "{site:#}");
    assert_order(
        &site,
        &[
            ("master", "connecting to ", ""),
            ("agent", "the agent answers: process ", "batch system fork"),
            ("master", "1 of 1 proxies are wanted", ""),
        ],
    );
    assert!(next(&site).contains("1 proxy is wanted: "), "{site:#}");
    let now = |answer: &Value| {
        let steps = answer["evidence"].as_array().unwrap().iter().filter(|step| step["at_ms"].is_null());
        steps.map(|step| step["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
    };
    assert!(now(&site).contains("1 starter(s) are connected"), "the agent itself answers: {site:#}");
    assert!(next(&site).contains("no submission: 1 proxies are queued or running, and 1 are wanted"), "{site:#}");
    assert_eq!(site["notes"], serde_json::json!([]));

    let proxy = why(&home, "local/1");
    assert!(proxy["state"].as_str().unwrap().starts_with("RUN for "), "{proxy:#}");
    let story = [
        ("agent of local", "the master wants one more", ""),
        ("agent of local", "submission 1 begins", ""),
        ("agent of local", "queued as batch job ", ""),
        ("agent of local", "starter ", "on node 0 calls for the first time"),
        ("agent of local", "RUN: starters are connected", ""),
    ];
    assert_order(&proxy, &story);
    assert!(now(&proxy).contains("the starter on node 0 is connected"), "{proxy:#}");
    assert!(next(&proxy).contains("the end of its starters"), "{proxy:#}");
    assert!(next(&proxy).contains("the next status call, in "), "{proxy:#}");
    home.end("t");
    home.assert_nothing_left();
}
