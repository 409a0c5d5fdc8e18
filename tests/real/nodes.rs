//! Nodes that eat jobs, and starters that fall silent.

use vo_tests::testbed::{TUNDRA, root};
use vo_tests::{Home, seconds, wait_until};

use crate::{Undo, conf, nothing_left};

fn starters(home: &Home, count: usize) {
    wait_until("starters", seconds(90), || {
        let pool = home.vo(["-s", "t", "-c", "status --json"]).ok().json();
        (pool.as_array()?.len() == count).then_some(())
    });
}

#[test]
fn a_node_that_eats_jobs_is_excluded_and_given_back() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    home.script("job.sh", "#!/bin/sh\ncase $(uname -n) in *n1) exit 1;; esac\nsleep 3\n");
    home.write("t.sub", "executable = job.sh\nqueue 200\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:3", "-c", "true"]).ok();
    starters(&home, 2);
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok();
    let node = wait_until("the exclusion", seconds(60), || {
        let sites = home.vo(["-s", "t", "-c", "sites --json"]).ok().json();
        let node = sites[0]["excluded_nodes"][0].clone();
        node["why"].as_str()?.contains("did better elsewhere").then_some(node)
    });
    assert!(node["host"].as_str().unwrap().ends_with("n1"), "{node:#}");
    let status = home.vo(["-s", "t", "-c", "status"]).ok().stdout;
    assert!(status.contains("gets no work for another"), "{status}");
    // Its proxy ends, and what it had queued runs elsewhere.
    wait_until("the end of its proxy", seconds(60), || {
        let proxies = home.vo(["-s", "t", "-c", "proxies --all --json"]).ok().json();
        proxies.as_array()?.iter().any(|proxy| proxy["state"] == "EXIT").then_some(())
    });
    let history = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    let failed = history.as_array().unwrap().iter().filter(|job| job["exit_code"] == 1).count();
    assert!((8..=24).contains(&failed), "{failed} of 200 were eaten");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_starter_that_falls_silent_counts_once_when_it_wakes() {
    let home = Home::on_testbed();
    home.write("vo.conf", "[session]\nlease = \"15s\"\n[[site]]\ngateway = \"tundra-key\"\n");
    home.script("job.sh", "#!/bin/sh\necho attempt $VO_ATTEMPT\nsleep 4\n");
    home.write("t.sub", "executable = job.sh\noutput = out.$(Process)\nqueue 12\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:3", "-c", "true"]).ok();
    starters(&home, 2);
    home.vo(["-s", "t", "-c", "submit t.sub"]).ok();
    wait_until("jobs that run", seconds(60), || {
        root("tundra-n1", "pgrep -u alice -f 'sleep 4'").lines().next().map(drop)
    });
    let stopped =
        root("tundra-n1", "pgrep -u alice -f 'vo-agent starter'").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!stopped.is_empty());
    let _undo = Undo({
        let stopped = stopped.clone();
        move || drop(root("tundra-n1", &format!("kill -CONT {stopped}")))
    });
    root("tundra-n1", &format!("kill -STOP {stopped}"));
    wait_until("jobs of unknown state", seconds(60), || {
        let jobs = home.vo(["-s", "t", "-c", "q --json"]).ok().json();
        jobs.as_array()?.iter().any(|job| job["state"] == "unknown").then_some(())
    });
    let waited = home.vo(["-s", "t", "-c", "wait --timeout 100s"]);
    root("tundra-n1", &format!("kill -CONT {stopped}"));
    waited.ok().says(["12 of 12 job(s) succeeded"]);
    let before = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    assert!(before.as_array().unwrap().iter().any(|job| job["attempts"].as_u64() > Some(1)), "{before:#}");
    // What wakes has results of attempts that were given up: they change nothing.
    wait_until("the end of what woke", seconds(60), || {
        root("tundra-n1", &format!("ls -d $(printf '/proc/%s ' {stopped}) 2>/dev/null")).is_empty().then_some(())
    });
    assert_eq!(home.vo(["-s", "t", "-c", "history --json"]).ok().json(), before);
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}
