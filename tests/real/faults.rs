//! Sites that fail us: no batch system, a refused queue, a full disk, a hung controller, killed starters.

use std::collections::{BTreeMap, BTreeSet};

use vo_tests::testbed::{BARE, GRID, TUNDRA, root, testbed};
use vo_tests::{Home, seconds, wait_until};

use crate::{Undo, conf, nothing_left};

#[test]
fn a_gateway_without_a_batch_system() {
    let home = Home::on_testbed();
    conf(&home, &["bare"]);
    home.vo(["-H", "vo.conf", "-c", "true"]).code(5).says(["bare", "no batch system", "hint: "]);
    nothing_left(&home, &[&BARE]);

    // The others go on.
    conf(&home, &["bare", "tundra-key"]);
    home.write("t.sub", "executable = /bin/true\ntransfer_executable = false\nqueue 4\n");
    home.vo(["-H", "vo.conf", "-n", "1:2", "-c", "submit t.sub; wait"])
        .ok()
        .says(["no batch system", "4 of 4 job(s) succeeded"]);
    nothing_left(&home, &[&BARE, &TUNDRA]);
}

#[test]
fn a_refused_queue_is_told_in_the_batch_systems_words() {
    for (gateway, site, words) in
        [("tundra-key", &TUNDRA, "invalid partition specified: debgu"), ("grid-key", &GRID, "debgu")]
    {
        let home = Home::on_testbed();
        home.write("vo.conf", format!("[[site]]\ngateway = \"{gateway}\"\nqueue = \"debgu\"\n"));
        home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:1", "-c", "true"]).ok();
        let problem = wait_until("the site's problem", seconds(30), || {
            let sites = home.vo(["-s", "t", "-c", "sites --json"]).ok().json();
            sites[0]["problem"].as_str().map(str::to_owned)
        });
        assert!(problem.contains(words), "{problem}");
        // A refusal is not hammered at.
        let proxies = home.vo(["-s", "t", "-c", "proxies --all --json"]).ok().json();
        assert!(proxies.as_array().unwrap().len() <= 3, "{proxies:#}");
        home.end("t");
        nothing_left(&home, &[site]);
    }
}

#[test]
fn a_full_home_is_named_and_a_freed_one_works() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    testbed(&["fill", "tundra"]);
    let unfill = Undo(|| {
        testbed(&["unfill", "tundra"]);
    });
    let run = home.vo(["-H", "vo.conf", "-n", "1:1", "-c", "true"]).code(5).says(["tundra-key: "]);
    assert!(run.stderr.to_lowercase().contains("no space"), "{run:?}");
    home.assert_nothing_left();
    drop(unfill);
    home.write("t.sub", "executable = /bin/true\ntransfer_executable = false\nqueue\n");
    home.vo(["-H", "vo.conf", "-n", "1:1", "-c", "submit t.sub; wait"]).ok();
    nothing_left(&home, &[&TUNDRA]);
}

/// With slurmctld stopped, sbatch exits 1 after 10 s, and the job is queued nevertheless.
#[test]
fn a_submission_that_reports_failure_is_not_repeated() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    let known = batch_jobs_ever();
    root("tundra-mgr", "pkill -STOP -x slurmctld");
    let resume = Undo(|| {
        root("tundra-mgr", "pkill -CONT -x slurmctld");
    });
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:2", "-c", "true"]);
    let submitting = || TUNDRA.processes().iter().any(|line| line.contains("sbatch"));
    wait_until("a submission", seconds(60), || submitting().then_some(()));
    wait_until("its end", seconds(60), || (!submitting()).then_some(()));
    drop(resume);
    home.write(
        "t.sub",
        "executable = /bin/hostname\ntransfer_executable = false\noutput = where.$(Process)\nqueue 20\n",
    );
    home.vo(["-s", "t", "-c", "submit t.sub; wait --timeout 90s"]).ok().says(["20 of 20 job(s) succeeded"]);
    wait_until("both proxies", seconds(90), || {
        let pool = home.vo(["-s", "t", "-c", "status --json"]).ok().json();
        (pool.as_array()?.len() == 2).then_some(())
    });

    let names: Vec<String> =
        batch_jobs_ever().into_iter().filter(|(id, _)| !known.contains_key(id)).map(|(_, name)| name).collect();
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(
        (names.len(), different.len()),
        (2, 2),
        "two proxies were wanted, and each was submitted once: {names:#?}"
    );
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

/// All of alice's batch jobs that Slurm remembers, ended ones too: ids and names.
pub(crate) fn batch_jobs_ever() -> BTreeMap<String, String> {
    let listing = TUNDRA.sh("squeue -h -t all -u alice -o '%A %j'");
    listing.lines().filter_map(|line| line.split_once(' ')).map(|(id, name)| (id.to_owned(), name.to_owned())).collect()
}

/// Kills processes of ours on the node that runs jobs; `which` picks them, from lines of pid, parent and command.
fn survives(which: impl Fn(&[(i32, i32, String)]) -> Vec<i32>) {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    home.script("slow.sh", "#!/bin/sh\nsleep 3\necho done $1\n");
    home.write("t.sub", "executable = slow.sh\narguments = $(Process)\noutput = out.$(Process)\nqueue 12\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:3", "-c", "submit t.sub"]).ok();
    let (node, victims) = wait_until("jobs that run", seconds(60), || {
        TUNDRA.nodes().find_map(|node| {
            let listing = root(&node, "ps -u alice -o pid=,ppid=,args=");
            let processes: Vec<_> = listing
                .lines()
                .filter_map(|line| {
                    let mut words = line.split_whitespace();
                    Some((
                        words.next()?.parse().ok()?,
                        words.next()?.parse().ok()?,
                        words.collect::<Vec<_>>().join(" "),
                    ))
                })
                .collect();
            let busy = processes.iter().any(|(_, _, command)| command.ends_with("sleep 3"));
            let victims = which(&processes);
            (busy && !victims.is_empty()).then_some((node, victims))
        })
    });
    for victim in victims {
        root(&node, &format!("kill -KILL {victim}"));
    }
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok().says(["12 of 12 job(s) succeeded"]);
    for process in 0..12 {
        assert_eq!(home.read(format!("out.{process}")), format!("done {process}\n"));
    }
    let history = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    let retried = history.as_array().unwrap().iter().filter(|job| job["attempts"].as_u64() > Some(1)).count();
    assert!((1..=12).contains(&retried), "some were retried: {history:#}");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

/// `vo-agent starter` below another: the starter below its guardian.
fn starters(processes: &[(i32, i32, String)]) -> Vec<i32> {
    let ours: Vec<_> = processes.iter().filter(|(_, _, command)| command.contains("vo-agent starter")).collect();
    ours.iter().filter(|(_, parent, _)| ours.iter().any(|(pid, _, _)| pid == parent)).map(|(pid, _, _)| *pid).collect()
}

#[test]
fn jobs_of_a_killed_starter_are_tried_again() {
    survives(starters);
}

#[test]
fn jobs_of_a_node_that_kills_everything_of_ours_are_tried_again() {
    survives(|processes| {
        processes
            .iter()
            .filter(|(_, _, command)| command.contains("vo-agent starter"))
            .map(|(pid, _, _)| *pid)
            .collect()
    });
}

#[test]
fn a_killed_event_agent_comes_back_and_loses_nothing() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    home.script("slow.sh", "#!/bin/sh\nsleep 1\necho done $1\n");
    home.write("t.sub", "executable = slow.sh\narguments = $(Process)\noutput = out.$(Process)\nqueue 40\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:2", "-c", "submit t.sub"]).ok();
    let done = || home.vo(["-s", "t", "-c", "history --json"]).ok().json().as_array().map_or(0, Vec::len);
    wait_until("the first results", seconds(60), || (done() > 3).then_some(()));
    root("tundra-gw", "pkill -KILL -u alice -f 'vo-agent event'");
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok().says(["40 of 40 job(s) succeeded"]);
    for process in 0..40 {
        assert_eq!(home.read(format!("out.{process}")), format!("done {process}\n"));
    }
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}
