//! Logins to gateways: host keys, keys, passphrases, passwords, jump hosts, and what goes wrong with them.

use std::fs;

use vo_tests::testbed::{self, GRID, MESA, TUNDRA, testbed};
use vo_tests::{Home, seconds, wait_until};

use crate::{Undo, conf, leave, nothing_left};

/// Exit codes of a session that no site joined.
const REFUSED_LOGIN: i32 = 4;
const UNREACHABLE: i32 = 5;

/// A home whose SSH configuration is the testbed's with `extra` before it, and whose known_hosts is `known`.
pub(crate) fn home_with(extra: &str, known: &str) -> Home {
    let mut home = Home::on_testbed();
    let known_hosts = home.path().join("known_hosts");
    fs::write(&known_hosts, known).unwrap();
    let theirs = fs::read_to_string(testbed::ssh_config()).unwrap();
    let config = home.path().join("ssh_config");
    let ours =
        format!("{extra}\nHost *\n\tUserKnownHostsFile {}\n\tStrictHostKeyChecking ask\n", known_hosts.display());
    fs::write(&config, ours + &theirs).unwrap();
    home.set("VO_SSH_CONFIG", &config);
    home
}

pub(crate) fn known() -> String {
    fs::read_to_string(testbed::state().join("known_hosts")).unwrap()
}

/// A session over `gateway` without a terminal must end with `code` and these words, and leave nothing.
fn fails(home: &Home, gateway: &str, code: i32, words: &[&str]) {
    conf(home, &[gateway]);
    home.vo(["-H", "vo.conf", "-n", "1:1", "-c", "true"]).code(code).says(words.iter().copied()).says(["hint: "]);
    home.assert_nothing_left();
}

/// A session over `gateway` without a terminal must do.
fn works(home: &Home, options: &[&str], gateway: &str) {
    conf(home, &[gateway]);
    home.write("t.sub", "executable = /bin/hostname\ntransfer_executable = false\noutput = where\nqueue\n");
    home.vo(options.iter().chain(&["-H", "vo.conf", "-n", "1:1", "-c", "submit t.sub; wait"])).ok();
    assert!(home.read("where").contains("-n"), "it ran on a node: {}", home.read("where"));
}

#[test]
fn an_unknown_host_key_is_asked_about() {
    let home = home_with("", "");
    conf(&home, &["tundra-key"]);
    let mut terminal = home.terminal(["-H", "vo.conf", "-n", "1:1"]);
    terminal.expect("SHA256:");
    terminal.expect("yes");
    terminal.type_line("yes");
    terminal.within(seconds(90)).expect("Welcome to your grid environment.");
    terminal.prompt();
    let learnt = fs::read_to_string(home.path().join("known_hosts")).unwrap();
    assert_eq!(learnt.lines().count(), 1, "the key was remembered: {learnt}");
    leave(&home, terminal, &[&TUNDRA]);

    works(&home, &[], "tundra-key");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn an_unknown_host_key_can_be_declined() {
    for answer in [&b"no\r"[..], b"\x03"] {
        let home = home_with("", "");
        conf(&home, &["tundra-key"]);
        let mut terminal = home.terminal(["-H", "vo.conf", "-n", "1:1"]);
        terminal.expect("SHA256:");
        terminal.expect("yes");
        terminal.send(answer);
        let code = terminal.exit_code();
        assert!(code != 0, "{}", terminal.shown());
        assert_eq!(fs::read_to_string(home.path().join("known_hosts")).unwrap(), "");
        nothing_left(&home, &[&TUNDRA]);
    }
}

#[test]
fn host_keys_that_must_not_be_trusted() {
    let home = home_with("", "");
    fails(&home, "tundra-key", REFUSED_LOGIN, &["the host key of tundra-key is not known", "SHA256:"]);

    // grid's keys under tundra's name.
    let swapped = known().replace("10.77.1.2", "10.77.9.9").replace("10.77.3.2", "10.77.1.2");
    let home = home_with("", &swapped);
    fails(
        &home,
        "tundra-key",
        REFUSED_LOGIN,
        &["the host key of tundra-key is not the one in", "known_hosts:", "ssh-keygen"],
    );
    // Nor is it asked about.
    conf(&home, &["tundra-key"]);
    let mut terminal = home.terminal(["-H", "vo.conf"]);
    assert_eq!(terminal.exit_code(), REFUSED_LOGIN, "{}", terminal.shown());
    assert_eq!(fs::read_to_string(home.path().join("known_hosts")).unwrap(), swapped);

    let revoked: String = known()
        .lines()
        .map(|line| match line.split_once(' ') {
            Some((_, key)) => format!("{line}\n@revoked * {key}\n"),
            None => String::new(),
        })
        .collect();
    fails(&home_with("", &revoked), "tundra-key", REFUSED_LOGIN, &["the host key of tundra-key is revoked in"]);
}

#[test]
fn hashed_known_hosts_are_understood() {
    let home = home_with("", &known());
    home.sh("ssh-keygen -q -H -f ~/known_hosts").ok();
    let hashed = fs::read_to_string(home.path().join("known_hosts")).unwrap();
    assert!(hashed.starts_with("|1|") && !hashed.contains("10.77."), "{hashed}");
    works(&home, &[], "tundra-key");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn passphrases_are_asked_for_and_not_shown() {
    let home = Home::on_testbed();
    conf(&home, &["mesa"]);
    let mut terminal = home.terminal(["-H", "vo.conf", "-n", "1:1"]);
    terminal.expect("Enter passphrase for key ");
    terminal.expect("/bob: ");
    terminal.type_line("a wrong one");
    terminal.expect("Bad passphrase, try again.");
    terminal.expect("/bob: ");
    terminal.type_line(testbed::PASSPHRASE);
    terminal.within(seconds(90)).prompt();
    let shown = terminal.shown();
    assert!(!shown.contains("a wrong one") && !shown.contains(testbed::PASSPHRASE), "{shown}");
    leave(&home, terminal, &[&MESA]);
}

#[test]
fn wrong_passphrases_end_with_a_refusal() {
    let home = Home::on_testbed();
    conf(&home, &["mesa"]);
    let mut terminal = home.terminal(["-H", "vo.conf", "-n", "1:1"]);
    for _ in 0..3 {
        terminal.expect("/bob: ");
        terminal.type_line("a wrong one");
    }
    assert_eq!(terminal.exit_code(), REFUSED_LOGIN, "{}", terminal.shown());
    assert!(terminal.shown().contains("passphrase"), "{}", terminal.shown());
    nothing_left(&home, &[&MESA]);

    fails(&Home::on_testbed(), "mesa", REFUSED_LOGIN, &["refuses the login of bob", "needs an answer"]);
}

#[test]
fn interrupt_at_a_question_ends_everything() {
    let home = Home::on_testbed();
    conf(&home, &["mesa"]);
    let mut terminal = home.terminal(["-H", "vo.conf"]);
    terminal.expect("/bob: ");
    terminal.send(b"\x03");
    assert_eq!(terminal.exit_code(), 130, "{}", terminal.shown());
    assert!(!terminal.shown().contains("participants"), "nobody is waited for:\n{}", terminal.shown());
    nothing_left(&home, &[&MESA]);

    for code in [false, true] {
        let home = Home::on_testbed();
        conf(&home, &["grid"]);
        let mut terminal = home.terminal(["-H", "vo.conf"]);
        terminal.expect("Password: ");
        if code {
            terminal.type_line(testbed::PASSWORD);
            terminal.expect("One-time password");
            terminal.expect(": ");
        }
        terminal.send(b"\x03");
        assert_eq!(terminal.exit_code(), 130, "{}", terminal.shown());
        nothing_left(&home, &[&GRID]);
    }
}

/// More proxies than the site has room for: some don't call back while the start waits for them.
#[test]
fn interrupt_while_participants_are_waited_for_ends_everything() {
    let home = Home::on_testbed();
    conf(&home, &["tundra-key"]);
    let mut terminal = home.terminal(["-H", "vo.conf", "-n", "9:4"]);
    terminal.expect("Setting up VO participants ");
    terminal.send(b"\x03");
    assert_eq!(terminal.within(seconds(60)).exit_code(), 130, "{}", terminal.shown());
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_password_and_a_one_time_code() {
    let home = Home::on_testbed();
    conf(&home, &["grid"]);
    let mut terminal = home.terminal(["-H", "vo.conf", "-n", "1:1"]);
    terminal.expect("Password: ");
    terminal.type_line(testbed::PASSWORD);
    terminal.expect("One-time password");
    terminal.expect(": ");
    terminal.type_line(&testbed::one_time_code());
    terminal.within(seconds(90)).prompt();
    assert!(!terminal.shown().contains(testbed::PASSWORD));
    leave(&home, terminal, &[&GRID]);
}

#[test]
fn the_systems_ssh_serves_as_well() {
    let home = Home::on_testbed();
    works(&home, &["-G"], "tundra-key");
    nothing_left(&home, &[&TUNDRA]);

    // It asks through us.
    conf(&home, &["mesa"]);
    let mut terminal = home.terminal(["-G", "-H", "vo.conf", "-n", "1:1"]);
    terminal.expect("passphrase");
    terminal.expect(": ");
    terminal.type_line(testbed::PASSPHRASE);
    terminal.within(seconds(90)).prompt();
    assert!(!terminal.shown().contains(testbed::PASSPHRASE));
    leave(&home, terminal, &[&MESA]);
}

/// With a ticket and `GSSAPIAuthentication yes`, nobody has to say -G; without a ticket, the way to one is told.
#[test]
fn kerberos_tickets_log_in() {
    let mut home = Home::on_testbed();
    home.set("KRB5_CONFIG", testbed::state().join("krb5.conf"));
    let cache = home.path().join("tickets");
    home.set("KRB5CCNAME", &cache);
    conf(&home, &["tundra-krb"]);
    fails(&home, "tundra-krb", REFUSED_LOGIN, &["tundra-krb refuses the login of alice", "gssapi-with-mic", "kinit"]);
    home.vo(["-G", "-H", "vo.conf", "-c", "true"]).code(REFUSED_LOGIN).says(["gssapi-with-mic", "kinit"]);

    home.sh(&format!("echo {} | kinit alice", testbed::KERBEROS_PASSWORD)).ok();
    works(&home, &[], "tundra-krb");
    nothing_left(&home, &[&TUNDRA]);
    let tickets = home.sh("klist").ok().stdout;
    assert!(tickets.contains("host/10.77.1.2@"), "a ticket for the gateway was used: {tickets}");

    // A ticket that has ended is none.
    home.sh(&format!(
        "kdestroy; echo {} | kinit -l 1s alice; until ! klist -s; do sleep 0.1; done",
        testbed::KERBEROS_PASSWORD
    ))
    .ok();
    fails(&home, "tundra-krb", REFUSED_LOGIN, &["tundra-krb refuses the login of alice", "kinit"]);
    // Nor does it keep anyone from a site that takes keys.
    works(&home, &[], "tundra-key");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_proxy_command_is_run() {
    let state = testbed::state();
    let home = home_with(
        &format!(
            "Host behind\n\tHostName 10.77.1.2\n\tPort 2222\n\tUser alice\n\tIdentityFile {}\n\tProxyCommand tee -a ~/proxied | ssh -F {} -W %h:%p mesa-key",
            state.join("keys/alice-plain").display(),
            state.join("ssh_config").display(),
        ),
        &known(),
    );
    works(&home, &[], "behind");
    let passed = fs::metadata(home.path().join("proxied")).unwrap().len();
    assert!(passed > 1_000_000, "the connection, with the agent's upload, went by it: {passed} bytes");
    nothing_left(&home, &[&TUNDRA, &MESA]);
    // One that fails is told in its own words.
    let home = home_with("Host behind\n\tProxyCommand sh -c 'echo the tunnel is closed >&2; exit 3'", &known());
    fails_somehow(&home, "behind", &["the tunnel is closed"]);
}

/// A session over `gateway` must say `words`, whatever its exit code.
fn fails_somehow(home: &Home, gateway: &str, words: &[&str]) {
    conf(home, &[gateway]);
    let run = home.vo(["-H", "vo.conf", "-n", "1:1", "-c", "true"]).says(words.iter().copied());
    assert!([REFUSED_LOGIN, UNREACHABLE].contains(&run.code), "{run:?}");
    home.assert_nothing_left();
}

/// The user's own connection is used, and outlives us; without one, we make one of our own and leave none where theirs would be.
#[test]
fn a_control_master_of_the_users_is_used_and_left_alone() {
    let home =
        home_with("Host *\n\tControlMaster auto\n\tControlPath /tmp/vo-test-cm-%C\n\tControlPersist 60", &known());
    let sockets = || home.sh("ls /tmp | grep -c ^vo-test-cm- || true").ok().stdout.trim().to_owned();
    works(&home, &[], "tundra-key");
    assert_eq!(sockets(), "0", "it left no master of its own there");

    let _closed = Undo(|| drop(home.sh("ssh -F ~/ssh_config -O exit tundra-key")));
    let ssh = |options: &str| home.sh(&format!("ssh -F ~/ssh_config {options} tundra-key"));
    ssh("-M -N -f").ok();
    assert_eq!(sockets(), "1");
    // With the master there, no login is needed: this key would be refused.
    let connections =
        || testbed::root("tundra-gw", "grep -c 'Accepted publickey for alice' /var/log/sshd.log").trim().to_owned();
    let before = connections();
    works(&home, &[], "tundra-key");
    assert_eq!(connections(), before, "no connection of our own");
    ssh("-O check").ok();

    // It ends while the session runs: the session makes a connection of its own.
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:1", "-c", "true"]).ok();
    ssh("-O exit").ok();
    home.write("t.sub", "executable = /bin/hostname\ntransfer_executable = false\noutput = again\nqueue\n");
    home.vo(["-s", "t", "-c", "submit t.sub; wait --timeout 110s"]).ok();
    assert!(home.read("again").starts_with("tundra-n"));
    wait_until("the site is up again", seconds(60), || {
        (home.vo(["-s", "t", "-c", "sites --json"]).ok().json()[0]["state"] == "up").then_some(())
    });
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}

#[test]
fn a_gateway_behind_another() {
    let home = Home::on_testbed();
    works(&home, &[], "tundra-jump");
    works(&home, &["-G"], "tundra-jump");
    nothing_left(&home, &[&TUNDRA, &MESA]);
}

#[test]
fn a_refused_key_says_whose_login_and_what_was_tried() {
    let keys = testbed::state().join("keys/dave");
    let home = home_with(
        &format!(
            "Host stranger\n\tHostName 10.77.1.2\n\tUser alice\n\tIdentityFile {}\n\tPreferredAuthentications publickey",
            keys.display()
        ),
        &known(),
    );
    fails(&home, "stranger", REFUSED_LOGIN, &["stranger refuses the login of alice", "publickey"]);
}

#[test]
fn gateways_that_are_not_there() {
    let home = home_with("Host closed\n\tHostName 10.77.1.2\n\tPort 9", &known());
    fails(&home, "no-such-host.invalid", UNREACHABLE, &["cannot find the host no-such-host.invalid"]);
    fails(&home, "closed", UNREACHABLE, &["closed port 9 refuses connections"]);
}

#[test]
fn a_gateway_that_is_cut_off_stops_no_other() {
    let home = home_with("Host *\n\tConnectTimeout 4", &known());
    conf(&home, &["tundra-key", "mesa-key"]);
    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    home.write(
        "t.sub",
        "executable = /bin/hostname\ntransfer_executable = false\noutput = where.$(Process)\nqueue 8\n",
    );
    let run = home.vo(["-H", "vo.conf", "-n", "1:2", "-c", "submit t.sub; wait"]).ok().says([
        "tundra-key",
        "no answer from",
        "hint: ",
    ]);
    assert!(run.stderr.contains("8 of 8 job(s) succeeded"), "{run:?}");
    assert!((0..8).all(|n| home.read(format!("where.{n}")).starts_with("mesa-n")));
    home.assert_nothing_left();
    drop(heal);
    nothing_left(&home, &[&TUNDRA, &MESA]);
}

#[test]
fn a_gateway_that_falls_silent_is_noticed() {
    let home = home_with("Host *\n\tServerAliveInterval 2\n\tServerAliveCountMax 2", &known());
    conf(&home, &["tundra-key"]);
    home.vo(["-H", "vo.conf", "-s", "t", "--keep", "-n", "1:2", "-c", "true"]).ok();
    testbed(&["cut", "tundra"]);
    let heal = Undo(|| {
        testbed(&["heal", "tundra"]);
    });
    let state = || home.vo(["-s", "t", "-c", "sites --json"]).ok().json()[0]["state"].clone();
    wait_until("the site is lost", seconds(60), || (state() == "lost").then_some(()));
    drop(heal);
    wait_until("the site is back", seconds(120), || (state() == "up").then_some(()));
    home.write("t.sub", "executable = /bin/hostname\ntransfer_executable = false\noutput = where\nqueue\n");
    home.vo(["-s", "t", "-c", "submit t.sub; wait"]).ok();
    home.end("t");
    nothing_left(&home, &[&TUNDRA]);
}
