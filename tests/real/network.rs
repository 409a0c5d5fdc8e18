//! The way to a site that goes: refused, turned away, in need of a person, cut.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use vo_tests::testbed::{self, GRID, MESA, TUNDRA, root, testbed};
use vo_tests::{Home, seconds, wait_until};

use crate::ssh::{home_with, known};
use crate::{Undo, conf, leave, log_in, nothing_left};

/// What an answer from a master that waits for nothing takes, on a busy machine.
const AT_ONCE: Duration = seconds(3);

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

/// `count` jobs that take `time` seconds, each with an output of its own.
fn submit(home: &Home, session: &str, count: usize, time: &str) {
    home.script("slow.sh", &format!("#!/bin/sh\nsleep {time}\necho done $1\n"));
    home.write(
        "t.sub",
        format!("executable = slow.sh\narguments = $(Process)\noutput = out.$(Process)\nqueue {count}\n"),
    );
    home.vo(["-s", session, "-c", "submit t.sub"]).ok();
}

/// All succeeded, each at its first attempt, with its whole output.
fn each_once(home: &Home, session: &str, count: usize) {
    let history = home.vo(["-s", session, "-c", "history --json"]).ok().json();
    let jobs = history.as_array().unwrap();
    assert_eq!(jobs.len(), count);
    for job in jobs {
        let seen = (&job["state"], job["exit_code"].as_u64(), job["attempts"].as_u64());
        assert_eq!(seen, (&"completed".into(), Some(0), Some(1)), "{job}");
    }
    for process in 0..count {
        assert_eq!(home.read(format!("out.{process}")), format!("done {process}\n"));
    }
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
    let home = home_with("Host *\n\tConnectTimeout 2\n\tServerAliveInterval 1\n\tServerAliveCountMax 3", &known());
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
    let agents = || {
        root("tundra-gw", "pgrep -u alice -f 'vo-agent event'")
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let hung = agents();
    assert_eq!(hung.len(), 1);
    root("tundra-gw", &format!("kill -STOP {}", hung[0]));
    let wake = Undo(|| {
        root("tundra-gw", &format!("kill -CONT {}", hung[0]));
    });
    until(&home, "t", "tundra-key", "lost", seconds(60));
    until(&home, "t", "tundra-key", "up", seconds(100));
    // The old one wakes up, finds another in charge, and goes.
    drop(wake);
    wait_until("one agent", seconds(60), || (agents().len() == 1 && agents() != hung).then_some(()));
    home.vo(["-s", "t", "-c", "wait --timeout 110s"]).ok();
    each_once(&home, "t", 30);
    home.end("t");
    nothing_left(&home, &[&TUNDRA, &MESA]);
}
