//! `why` at real batch systems: their words, with times, by number and by the batch system's id.

use serde_json::Value;
use vo_tests::testbed::{TUNDRA, testbed};
use vo_tests::{Home, seconds, wait_until};

use crate::{Undo, nothing_left};

fn why(home: &Home, name: &str) -> Value {
    home.vo(["-s", "t", "-c", &format!("why --json {name}")]).ok().json()[0].clone()
}

fn lines(answer: &Value) -> String {
    let steps = answer["evidence"].as_array().unwrap().iter().map(|step| step["text"].as_str().unwrap());
    let next = answer["waits_for"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    steps.chain(next).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_refused_queue_is_why_nothing_is_submitted() {
    let home = Home::on_testbed();
    home.write("vo.conf", "[[site]]\ngateway = \"tundra-key\"\nqueue = \"debgu\"\n");
    home.write("t.sub", "executable = /bin/true\ntransfer_executable = false\nqueue\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:1", "-c", "submit t.sub"]).ok();
    let words = "invalid partition specified: debgu";
    let site = wait_until("the refusal", seconds(60), || {
        Some(why(&home, "tundra-key")).filter(|answer| lines(answer).contains("someone to act: nothing is submitted"))
    });
    assert!(lines(&site).contains(words), "{site:#}");
    assert!(lines(&site).contains("the agent answers: process "), "{site:#}");
    assert!(lines(&site).contains("batch system slurm"), "{site:#}");
    let proxy = lines(&why(&home, "tundra-key/1"));
    assert!(
        proxy.contains("submission 1 begins") && proxy.contains("EXIT: refused: ") && proxy.contains(words),
        "{proxy}"
    );
    // A job that waits says so, too.
    let job = lines(&why(&home, "1.0"));
    assert!(job.contains("a starter: none has called") && job.contains(words), "{job}");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_pending_proxy_tells_the_batch_systems_reason_also_when_its_site_is_cut_off() {
    let home = Home::on_testbed();
    home.write("vo.conf", "[[site]]\ngateway = \"tundra-key\"\ndirectives = [\"--begin=now+2hours\"]\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:1", "-c", "true"]).ok();
    let batch_id = wait_until("a batch job", seconds(60), || {
        let proxies = home.vo(["-s", "t", "-c", "proxies --json"]).ok().json();
        proxies[0]["batch_id"].as_str().map(str::to_owned)
    });
    // The first status call comes a minute after the submission.
    let reason = "BeginTime";
    let proxy = wait_until("the batch system's reason", seconds(150), || {
        Some(why(&home, &batch_id)).filter(|answer| lines(answer).contains(reason))
    });
    assert_eq!(proxy["name"], "tundra-key/1");
    let told = lines(&proxy);
    for part in [
        "the master wants one more",
        &format!("queued as batch job {batch_id}"),
        "its start: a starter's call",
        "the next status call, in ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let times: Vec<u64> =
        proxy["evidence"].as_array().unwrap().iter().filter_map(|step| step["at_ms"].as_u64()).collect();
    assert!(times.len() >= 3 && times.is_sorted(), "{proxy:#}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(times.iter().all(|at| now - at < 600_000), "by the workstation's clock: {proxy:#}");

    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    let away = why(&home, "tundra-key/1");
    assert!(away["notes"][0].as_str().unwrap().contains("could not be asked"), "{away:#}");
    assert!(lines(&away).contains(reason), "the last report: {away:#}");
    drop(heal);
    wait_until("the site", seconds(120), || {
        Some(why(&home, "tundra-key")).filter(|answer| answer["notes"] == serde_json::json!([]))
    });
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}
