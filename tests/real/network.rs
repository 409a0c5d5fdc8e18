//! The way to a site that goes: refused, turned away, in need of a person, cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use vo_tests::testbed::{self, GRID, MESA, Site, TUNDRA, root, testbed};
use vo_tests::{Home, seconds, wait_until};

use crate::faults::batch_jobs_ever;
use crate::ssh::{home_with, known};
use crate::{Undo, conf, leave, log_in, nothing_left};

/// What an answer from a master that waits for nothing takes, on a busy machine.
const AT_ONCE: Duration = seconds(10);

/// What `sites` says of a site.
fn site(home: &Home, session: &str, name: &str) -> Value {
    let run = home.vo(["-s", session, "-c", "sites --json"]).ok();
    assert!(run.time < AT_ONCE, "the prompt waits: {:?}", run.time);
    let found = run.json().as_array().unwrap().iter().find(|site| site["site"] == name).cloned();
    found.unwrap_or_else(|| panic!("no site {name}: {}", run.stdout))
}

fn until(home: &Home, session: &str, name: &str, state: &str, limit: Duration) -> Value {
    wait_until(&format!("{name} is {state}"), limit, || {
        let row = site(home, session, name);
        (row["state"] == state).then_some(row)
    })
}

/// Ends the user's SSH connections on a gateway, as a reaper or a restart of sshd may.
fn end_connections(gateway: &str, user: &str) {
    root(gateway, &format!("pkill -KILL -u {user} -x sshd"));
}

/// Sites at which [`submit`] keeps a note of each execution.
const NOTED: [Site; 3] = [TUNDRA, MESA, GRID];

/// The jobs that ran at a site, one that ran twice there twice.
fn ran(site: &Site) -> Vec<usize> {
    site.sh("cat ran 2>/dev/null || true").lines().map(|line| line.parse().unwrap()).collect()
}

/// `count` jobs that take `time` seconds, each with an output of its own and a note at its site that it began.
fn submit(home: &Home, session: &str, count: usize, time: &str) {
    for site in &NOTED {
        site.sh("rm -f ran");
    }
    home.script("slow.sh", &format!("#!/bin/sh\necho $1 >> \"$HOME/ran\"\nsleep {time}\necho done $1\n"));
    home.write(
        "t.sub",
        format!("executable = slow.sh\narguments = $(Process)\noutput = out.$(Process)\nqueue {count}\n"),
    );
    home.vo(["-s", session, "-c", "submit t.sub"]).ok();
}

/// All succeeded, each counted once and with its whole output.
fn all_done(home: &Home, session: &str, count: usize) {
    let history = home.vo(["-s", session, "-c", "history --json"]).ok().json();
    let jobs: BTreeSet<_> =
        history.as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap().to_owned()).collect();
    assert_eq!((jobs.len(), history.as_array().unwrap().len()), (count, count));
    assert!(history.as_array().unwrap().iter().all(|job| job["exit_code"] == 0), "{history:#}");
    for process in 0..count {
        assert_eq!(home.read(format!("out.{process}")), format!("done {process}\n"));
    }
}

/// The same, and none was begun twice.
fn each_once(home: &Home, session: &str, count: usize) {
    all_done(home, session, count);
    let mut begun: Vec<_> = NOTED.iter().flat_map(ran).collect();
    begun.sort_unstable();
    assert_eq!(begun, Vec::from_iter(0..count));
}

#[test]
fn a_login_that_needs_a_person_keeps_nobody_waiting() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key", "mesa", "grid"]);
    let mut terminal = home.terminal(["-n", "1:4", "-H", "vo.conf", "-s", "t"]);
    log_in(&mut terminal);
    terminal.within(seconds(120)).expect("Welcome to your grid environment.");
    terminal.prompt();
    let pool = || home.vo(["-s", "t", "-c", "status --json"]).ok().json().as_array().map_or(0, Vec::len);
    wait_until("all starters", seconds(60), || (pool() == 3).then_some(()));
    submit(&home, "t", 90, "1");

    // mesa's key is unlocked already; grid wants its codes anew.
    end_connections("mesa-gw", MESA.user);
    end_connections("grid-gw", GRID.user);
    let row = until(&home, "t", "grid", "needs-login", seconds(60));
    assert!(row["problem"].as_str().unwrap().contains("needs an answer"), "{row}");
    assert!(row["hint"].as_str().unwrap().contains("`login grid`"), "{row}");
    assert!(row["next_try_ms"].as_u64() > row["since_ms"].as_u64(), "{row}");
    until(&home, "t", "mesa", "up", seconds(60));

    // Nobody to ask: a refusal, at once.
    home.vo(["-s", "t", "-c", "login grid"]).code(4).says([
        "grid refuses the login of carol",
        "needs an answer",
        "hint: ",
    ]);
    home.vo(["-s", "t", "-c", "login grit"]).code(2).says(["did you mean `grid`?"]);

    // A question that nobody answers stops nothing else.
    let mut other = home.terminal(["-s", "t", "-c", "login grid"]);
    other.expect("Password: ");
    let done = || site(&home, "t", "tundra-key")["completed"].as_u64().unwrap();
    let before = done();
    wait_until("jobs elsewhere", seconds(60), || (done() > before + 4).then_some(()));
    assert!(terminal.run("sites").contains("needs-login"));
    other.send(b"\x03");
    assert_eq!(other.exit_code(), 130, "{}", other.shown());
    assert_eq!(site(&home, "t", "grid")["state"], "needs-login");

    // At the prompt, in the foreground.
    terminal.type_line("login");
    terminal.expect("Password: ");
    terminal.type_line(testbed::PASSWORD);
    terminal.expect("One-time password");
    terminal.expect(": ");
    terminal.type_line(&testbed::one_time_code());
    terminal.within(seconds(60)).expect("grid: up");
    terminal.prompt();
    assert!(!terminal.shown().contains(testbed::PASSWORD), "{}", terminal.shown());
    assert_eq!(terminal.run("login").trim(), "No site needs a login.");
    home.vo(["-s", "t", "-c", "wait --timeout 100s"]).ok().says(["90 of 90 job(s) succeeded"]);
    each_once(&home, "t", 90);
    leave(&home, terminal, &[&TUNDRA, &MESA, &GRID]);
}

#[test]
fn a_gateway_that_turns_us_away_is_told_from_one_that_is_down() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
    let startups = |limit: &str| {
        let line =
            format!("sed -i 's/^MaxStartups .*/MaxStartups {limit}/' /etc/ssh/sshd_config && pkill -HUP -o -x sshd");
        root("tundra-gw", &line);
    };
    let before = root("tundra-gw", "sed -n 's/^MaxStartups //p' /etc/ssh/sshd_config").trim().to_owned();
    startups("1:100:1");
    let restore = Undo(|| startups(&before));
    // Someone who is about to log in takes the only place.
    let guest = wait_until("sshd is back", seconds(20), || {
        let mut guest = TcpStream::connect("10.77.1.2:2222").ok()?;
        let mut banner = [0; 4];
        guest.read_exact(&mut banner).ok()?;
        (&banner == b"SSH-").then_some(guest)
    });
    end_connections("tundra-gw", TUNDRA.user);
    let row = until(&home, "t", "tundra-key", "blocked", seconds(60));
    let ahead = Duration::from_millis(row["next_try_ms"].as_u64().unwrap() - row["since_ms"].as_u64().unwrap());
    assert!(ahead >= seconds(25), "a blocked gateway is left alone for a while: {ahead:?}");
    assert!(home.vo(["-s", "t", "-c", "sites"]).ok().stdout.contains("next try in "), "{row}");
    home.vo(["-s", "t", "-c", "login tundra-key"]).code(5).says(["closed the connection before the login"]);
    drop((restore, guest));
    wait_until("a login when there is room again", seconds(60), || {
        (home.vo(["-s", "t", "-c", "login tundra-key"]).code == 0).then_some(())
    });
    assert_eq!(site(&home, "t", "tundra-key")["state"], "up");

    // Nothing listens: it is tried again soon, and back by itself.
    root("tundra-gw", "pkill -KILL -f 'sshd.*[l]istener'");
    let start = Undo(|| {
        root("tundra-gw", "pgrep -f 'sshd.*[l]istener' || /usr/sbin/sshd -E /var/log/sshd.log");
    });
    end_connections("tundra-gw", TUNDRA.user);
    let row = wait_until("a try that is refused", seconds(60), || {
        let row = site(&home, "t", "tundra-key");
        row["problem"].as_str().is_some_and(|why| why.contains("refuses connections")).then_some(row)
    });
    assert_eq!(row["state"], "lost", "{row}");
    drop(start);
    until(&home, "t", "tundra-key", "up", seconds(120));
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_site_that_is_down_at_the_start_joins_when_it_is_back() {
    let home = home_with("Host *\n\tConnectTimeout 2", &known());
    conf(&home, &["tundra-key", "mesa-key"]);
    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"])
        .ok()
        .says(["tundra-key", "no answer from"]);
    let row = site(&home, "t", "tundra-key");
    assert_eq!(row["state"], "lost", "{row}");
    let since = row["since_ms"].as_u64().unwrap();
    let mut tries = BTreeSet::new();
    wait_until("three tries", seconds(60), || {
        tries.extend(site(&home, "t", "tundra-key")["next_try_ms"].as_u64());
        (tries.len() > 2).then_some(())
    });
    assert_eq!(site(&home, "t", "tundra-key")["since_ms"], since, "one outage, however often it is tried");
    drop(heal);
    until(&home, "t", "tundra-key", "up", seconds(60));
    home.end("t");
    nothing_left(&home, &[&TUNDRA, &MESA]);
}

/// Heartbeats of a second, and connections that are found dead soon.
fn impatient(on_missed: &str) -> Home {
    let home = home_with(HASTY, &known());
    home.write(
        "vo.conf",
        format!(
            "[session]\nheartbeat = \"1s\"\nmissed_heartbeats = 5\non_missed = \"{on_missed}\"\nidle = \"30s\"\n\
             [[site]]\ngateway = \"tundra-key\"\n[[site]]\ngateway = \"mesa-key\"\n"
        ),
    );
    home
}

#[test]
fn a_silent_sites_proxies_are_asked_for_elsewhere_and_its_jobs_stay() {
    let home = impatient("reallocate");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
    let starters = || ["tundra-key", "mesa-key"].map(|name| site(&home, "t", name)["starters"].as_u64().unwrap());
    wait_until("both starters", seconds(60), || (starters() == [1, 1]).then_some(()));
    submit(&home, "t", 40, "2");
    wait_until("jobs at both", seconds(60), || {
        ["tundra-key", "mesa-key"].iter().all(|name| site(&home, "t", name)["busy_cpus"] == 2).then_some(())
    });
    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    let row = wait_until("the other site's share grows", seconds(60), || {
        let row = site(&home, "t", "mesa-key");
        (row["proxies_wanted"] == 2).then_some(row)
    });
    assert_eq!(row["state"], "up", "{row}");
    let lost = site(&home, "t", "tundra-key");
    assert!(lost["problem"].as_str().unwrap().contains("its share of proxies is asked for elsewhere"), "{lost}");
    wait_until("a second proxy there", seconds(60), || (starters()[1] == 2).then_some(()));
    drop(heal);
    until(&home, "t", "tundra-key", "up", seconds(60));
    wait_until("its own share", seconds(30), || (site(&home, "t", "mesa-key")["proxies_wanted"] == 1).then_some(()));
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    each_once(&home, "t", 40);
    home.end("t");
    nothing_left(&home, &[&TUNDRA, &MESA]);
}

#[test]
fn an_agent_that_hangs_is_replaced() {
    let home = impatient("shutdown");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
    submit(&home, "t", 30, "1");
    wait_until("results", seconds(60), || {
        (site(&home, "t", "tundra-key")["completed"].as_u64() > Some(1)).then_some(())
    });
    let hung = agents("tundra-gw");
    assert_eq!(hung.len(), 1);
    root("tundra-gw", &format!("kill -STOP {}", hung[0]));
    let wake = Undo(|| {
        root("tundra-gw", &format!("kill -CONT {}", hung[0]));
    });
    until(&home, "t", "tundra-key", "lost", seconds(60));
    until(&home, "t", "tundra-key", "up", seconds(100));
    // The old one wakes up, finds another in charge, and goes.
    drop(wake);
    wait_until("one agent", seconds(60), || {
        (agents("tundra-gw").len() == 1 && agents("tundra-gw") != hung).then_some(())
    });
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    each_once(&home, "t", 30);
    home.end("t");
    nothing_left(&home, &[&TUNDRA, &MESA]);
}

/// How connections that are dead are found soon, and silent gateways given up soon.
const HASTY: &str = "Host *\n\tConnectTimeout 2\n\tServerAliveInterval 1\n\tServerAliveCountMax 3";

/// The event agents on a host of tundra's.
fn agents(host: &str) -> Vec<String> {
    root(host, "pgrep -u alice -f 'vo-agent event'").split_whitespace().map(str::to_owned).collect()
}

/// Proxies of the session, by number: state, batch id and evidence.
fn proxies(home: &Home, session: &str) -> BTreeMap<u64, (String, String, String)> {
    let listing = home.vo(["-s", session, "-c", "proxies --all --json"]).ok().json();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let row =
        |row: &Value| (row["proxy"].as_u64().unwrap(), (text(row, "state"), text(row, "batch_id"), text(row, "why")));
    listing.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn another_login_node_takes_over_and_gives_back() {
    // One name that leads to either, as those of large sites do.
    let key = testbed::state().join("keys/alice-plain");
    let leads_to = |home: &Home, address: &str| {
        let path = home.path().join("ssh_config");
        let config = std::fs::read_to_string(&path).unwrap();
        let rest = config.split_once("# pool ends").unwrap().1;
        let name =
            format!("Host pool\n\tHostName {address}\n\tPort 2222\n\tUser alice\n\tIdentityFile {}\n", key.display());
        std::fs::write(&path, format!("{name}# pool ends{rest}")).unwrap();
    };
    let home = home_with(&format!("# pool ends\n{HASTY}"), &known());
    leads_to(&home, "10.77.1.2");
    let earlier = batch_jobs_ever();
    conf(&home, &["pool"]);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:2", "-c", "true"]).ok();
    let host = || site(&home, "t", "pool")["host"].as_str().unwrap_or_default().to_owned();
    assert_eq!(host(), "tundra-gw");
    wait_until("both starters", seconds(60), || (site(&home, "t", "pool")["starters"] == 2).then_some(()));
    submit(&home, "t", 80, "1");
    let done = || site(&home, "t", "pool")["completed"].as_u64().unwrap();
    wait_until("results", seconds(60), || (done() > 3).then_some(()));

    // The first node hangs and is cut off; the name leads to the second one now.
    let hung = agents("tundra-gw");
    assert_eq!(hung.len(), 1);
    root("tundra-gw", &format!("kill -STOP {}", hung[0]));
    testbed(&["cut", "tundra-gw"]);
    let wake = Undo(|| {
        testbed(&["heal", "tundra-gw"]);
        root("tundra-gw", &format!("kill -CONT {}", hung[0]));
    });
    leads_to(&home, "10.77.11.2");
    wait_until("the second node", seconds(60), || (host() == "tundra-gw2").then_some(()));
    let before = done();
    wait_until("results by way of it", seconds(60), || (done() > before + 3).then_some(()));
    assert_eq!(agents("tundra-gw2").len(), 1);
    drop(wake);
    wait_until("the end of the first agent", seconds(30), || agents("tundra-gw").is_empty().then_some(()));

    // And back: the second node is started anew, with all that ran there gone.
    leads_to(&home, "10.77.1.2");
    testbed(&["reboot", "tundra-gw2"]);
    wait_until("the first node again", seconds(90), || (host() == "tundra-gw").then_some(()));
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    each_once(&home, "t", 80);
    let names: Vec<_> = batch_jobs_ever().into_iter().filter(|(id, _)| !earlier.contains_key(id)).collect();
    assert_eq!(names.len(), 2, "two proxies were wanted, and each was submitted once: {names:?}");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_gateway_that_reboots_comes_back_by_itself() {
    let home = home_with(HASTY, &known());
    conf(&home, &["tundra-key"]);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "2:2", "-c", "true"]).ok();
    wait_until("both starters", seconds(60), || (site(&home, "t", "tundra-key")["starters"] == 2).then_some(()));
    submit(&home, "t", 60, "1");
    let done = || site(&home, "t", "tundra-key")["completed"].as_u64().unwrap();
    wait_until("results", seconds(60), || (done() > 3).then_some(()));
    testbed(&["reboot", "tundra-gw"]);
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    each_once(&home, "t", 60);
    assert_eq!(site(&home, "t", "tundra-key")["state"], "up");
    home.end("t");
    testbed(&["up", "tundra"]);
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn queued_proxies_that_start_and_end_while_no_agent_runs() {
    let home = home_with(HASTY, &known());
    conf(&home, &["tundra-key"]);
    let earlier = batch_jobs_ever();
    // Two have the nodes, two wait.
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "4:4", "-c", "true"]).ok();
    let states = |wanted: [&str; 4]| {
        let rows = proxies(&home, "t");
        let seen: Vec<&str> = (1..=4).filter_map(|id| Some(rows.get(&id)?.0.as_str())).collect();
        (seen == wanted).then_some(rows.clone())
    };
    let rows = wait_until("two that run and two that wait", seconds(90), || states(["RUN", "RUN", "PEND", "PEND"]));
    submit(&home, "t", 60, "1");

    // Killed while they wait: they wait on, under the next agent.
    root("tundra-gw", "pkill -KILL -u alice -f 'vo-agent event'");
    wait_until("the next agent", seconds(60), || {
        (agents("tundra-gw").len() == 1 && site(&home, "t", "tundra-key")["state"] == "up").then_some(())
    });
    let again = states(["RUN", "RUN", "PEND", "PEND"]).expect("as before");
    assert!((1..=4).all(|id| again[&id].1 == rows[&id].1), "the same batch jobs: {again:?}");

    // Killed, and cut off so that none follows: meanwhile the two that ran end, and the two that waited start; one of these ends, too.
    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    root("tundra-gw", "pkill -KILL -u alice -f 'vo-agent event'");
    TUNDRA.sh(&format!("scancel {} {}", rows[&1].1, rows[&2].1));
    let running = |id: u64| {
        TUNDRA.sh(&format!("squeue -h -t R -o %A -j {} 2>/dev/null || true", rows[&id].1)).trim() == rows[&id].1
    };
    wait_until("those that waited", seconds(60), || (running(3) && running(4)).then_some(()));
    let starter = |id: u64| {
        TUNDRA
            .processes()
            .iter()
            .any(|line| line.contains("vo-agent starter") && line.ends_with(&format!("--proxy {id}")))
    };
    wait_until("their starters", seconds(30), || (starter(3) && starter(4)).then_some(()));
    TUNDRA.sh(&format!("scancel {}", rows[&4].1));
    wait_until("its end", seconds(30), || (!starter(4)).then_some(()));
    drop(heal);
    let after = wait_until("evidence for each", seconds(100), || states(["EXIT", "EXIT", "RUN", "EXIT"]));
    assert_eq!(after[&3].1, rows[&3].1);
    assert!(after[&3].2.contains("starters are connected"), "{after:?}");
    assert!(after[&4].2.contains("tags are gone") || after[&4].2.contains("its script ended"), "{after:?}");

    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    all_done(&home, "t", 60);
    let all: Vec<_> = batch_jobs_ever().into_iter().filter(|(id, _)| !earlier.contains_key(id)).collect();
    let names: BTreeSet<_> = all.iter().map(|(_, name)| name).collect();
    assert_eq!(names.len(), all.len(), "no proxy was submitted twice: {all:?}");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn what_slurm_requeues_after_its_last_word_is_a_stray() {
    let home = home_with(HASTY, &known());
    home.write("vo.conf", "[[site]]\ngateway = \"tundra-key\"\ndirectives = [\"--requeue\"]\n");
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
    submit(&home, "t", 20, "1");
    let done = || site(&home, "t", "tundra-key")["completed"].as_u64().unwrap();
    wait_until("results", seconds(60), || (done() > 1).then_some(()));
    let id = proxies(&home, "t")[&1].1.clone();
    // Told to end, its script says its last word, which counts, and another proxy takes its place.
    root("tundra-mgr", &format!("scontrol requeue {id}"));
    let restarts = || TUNDRA.sh(&format!("scontrol show job {id} | grep -o 'Restarts=[0-9]*'")).trim().to_owned();
    wait_until("Slurm puts it back", seconds(60), || (restarts() == "Restarts=1").then_some(()));
    // Were it started before its last word is read, it would go on as the same proxy.
    wait_until("its last word", seconds(60), || (proxies(&home, "t")[&1].0 == "EXIT").then_some(()));
    // It would wait for a minute or two, as Slurm has it, unless someone says otherwise.
    root("tundra-mgr", &format!("scontrol update jobid={id} starttime=now"));
    home.vo(["-s", "t", "-c", "wait --timeout 115s"]).ok();
    all_done(&home, "t", 20);
    let rows = proxies(&home, "t");
    assert_eq!(rows[&1].0, "EXIT", "{rows:?}");
    assert!(rows.get(&2).is_some_and(|(state, batch_id, _)| state == "RUN" && *batch_id != id), "{rows:?}");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_proxy_whose_node_is_lost_goes_on_where_slurm_puts_it_back() {
    let home = home_with(HASTY, &known());
    home.write(
        "vo.conf",
        "[session]\nlease = \"20s\"\n[[site]]\ngateway = \"tundra-key\"\ndirectives = [\"--requeue\"]\n",
    );
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
    submit(&home, "t", 30, "1");
    let done = || site(&home, "t", "tundra-key")["completed"].as_u64().unwrap();
    wait_until("results", seconds(60), || (done() > 3).then_some(()));
    let id = proxies(&home, "t")[&1].1.clone();
    let slurm = |what: &str| TUNDRA.sh(&format!("squeue -h -j {id} -o {what}")).trim().to_owned();
    let node = slurm("%N");
    // All at once, as when it loses its power: nobody there can say a last word.
    root(&node, "pkill -KILL -x slurmd; pkill -KILL -x slurmstepd; pkill -KILL -u alice");
    let _back = Undo(|| {
        root(&node, "/usr/sbin/slurmd");
        root("tundra-mgr", &format!("scontrol update nodename={node} state=resume"));
    });
    root("tundra-mgr", &format!("scontrol update nodename={node} state=down reason=lost"));
    wait_until("Slurm puts it back", seconds(60), || {
        let restarts = TUNDRA.sh(&format!("scontrol show job {id} | grep -o 'Restarts=[0-9]*'"));
        (restarts.trim() == "Restarts=1").then_some(())
    });
    // It would wait for a minute or two, as Slurm has it, unless someone says otherwise.
    root("tundra-mgr", &format!("scontrol update jobid={id} starttime=now"));
    // A node that can't be reached may still work, for all that anyone knows: what it had is tried again when its lease is over.
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    all_done(&home, "t", 30);
    let rows = proxies(&home, "t");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[&1].0.as_str(), &rows[&1].1), ("RUN", &id), "{rows:?}");
    assert_ne!(slurm("%N"), node);
    let history = home.vo(["-s", "t", "-c", "history --json"]).ok().json();
    let again = history.as_array().unwrap().iter().filter(|job| job["attempts"].as_u64() > Some(1)).count();
    assert!((1..=10).contains(&again), "what ran there, or was about to, ran again: {history:#}");
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_link_that_is_cut_for_a_minute_disturbs_nobody_and_loses_nothing() {
    let home = home_with(HASTY, &known());
    conf(&home, &["tundra-key", "mesa-key"]);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:4", "-c", "true"]).ok();
    let both = || ["tundra-key", "mesa-key"].map(|name| site(&home, "t", name));
    wait_until("both starters", seconds(60), || both().iter().all(|row| row["starters"] == 1).then_some(()));
    submit(&home, "t", 150, "2");
    wait_until("jobs at both", seconds(60), || both().iter().all(|row| row["busy_cpus"] == 4).then_some(()));

    // Four run there by now, and four wait there for these to end.
    let begun = ran(&TUNDRA).len();
    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    let begin = Instant::now();
    let lost = until(&home, "t", "tundra-key", "lost", seconds(30));
    let [_, mesa] = both();
    // What runs there ends, and its backlog follows.
    wait_until("jobs that run out of sight", seconds(30), || (ran(&TUNDRA).len() >= begun + 4).then_some(()));
    let unknown = || home.vo(["-s", "t", "-c", "q --json"]).ok();
    assert!(unknown().stdout.contains("unknown"), "jobs there are of unknown state: {}", unknown().stdout);

    // The master dies, too, and is brought back without that site.
    let pid = home.vo(["--list", "--json"]).ok().json()[0]["pid"].as_u64().unwrap();
    home.sh(&format!("kill -KILL {pid}")).ok();
    let mut terminal = home.terminal(["-r", "t"]);
    terminal.within(seconds(60)).prompt();
    let [tundra, _] = both();
    assert!(tundra["state"] == "lost" && tundra["next_try_ms"].is_u64(), "{tundra}");
    let more = || both()[1]["completed"].as_u64() > mesa["completed"].as_u64().map(|before| before + 8);
    wait_until("jobs elsewhere", seconds(60), || more().then_some(()));
    let mut now = begin.elapsed();
    while now < seconds(60) {
        let command = terminal.run("sites");
        assert!(command.contains("lost"), "{command}");
        assert!(begin.elapsed() - now < AT_ONCE, "the prompt waits");
        now = begin.elapsed();
    }
    assert!(lost["since_ms"].is_u64());
    drop(heal);
    until(&home, "t", "tundra-key", "up", seconds(90));
    home.vo(["-s", "t", "-c", "wait --timeout 115s"]).ok();
    each_once(&home, "t", 150);
    leave(&home, terminal, &[&TUNDRA, &MESA]);
}
