//! Ends of sessions: asked for, forced, by signals, by closed terminals.

use std::fs;

use vo_tests::{Home, seconds, wait_until};

const SLOW: &str = "executable = /bin/sleep\narguments = 1000\nqueue 3\n";

/// The master of the session called `name`.
fn master(home: &Home, name: &str) -> i32 {
    let listing = home.vo(["-l", "--json"]).ok().json();
    let session = listing.as_array().unwrap().iter().find(|session| session["session"] == name).unwrap().clone();
    i32::try_from(session["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn exit_asks_when_jobs_are_unfinished() {
    let home = Home::new();
    home.write("slow.sub", SLOW);
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.prompt();
    terminal.run("submit slow.sub");
    terminal.type_line("exit");
    terminal.expect("3 ");
    terminal.expect("unfinished");
    terminal.expect("(y/N) ");
    terminal.type_line("n");
    terminal.prompt();
    assert_eq!(terminal.run("q --json | jq length").trim(), "3", "the answer was no");
    terminal.type_line("exit");
    terminal.expect("(y/N) ");
    terminal.type_line("y");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn a_script_that_does_not_wait_takes_its_session_with_it() {
    let home = Home::new();
    home.write("slow.sub", SLOW);
    home.vo(["-s", "t", "-c", "submit slow.sub"]).ok();
    home.assert_nothing_left();
}

#[test]
fn a_session_can_be_ended_from_elsewhere() {
    let home = Home::new();
    home.write("slow.sub", SLOW);
    home.vo(["-s", "t", "--keep", "-c", "submit slow.sub"]).ok();
    let refused = home.vo(["-s", "t", "-c", "vo exit"]);
    assert_eq!(refused.code, 9, "jobs are unfinished");
    home.vo(["-s", "t", "-c", "exit 3; echo unreached"]).code(3);
    home.vo(["-s", "t", "-c", "q --json | jq -e 'length == 3'"]).ok();
    home.vo(["-s", "t", "-c", "exit --force"]).ok();
    home.assert_nothing_left();
}

#[test]
fn a_second_session_of_the_same_name_is_refused() {
    let home = Home::new();
    home.write("a.conf", "");
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    let mut second = home.terminal(["-s", "t"]);
    assert_eq!(second.exit_code(), 9, "{}", second.shown());
    assert!(second.shown().contains("vo-login -r t"), "it says how to come back: {}", second.shown());
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn two_at_once_start_one_session() {
    let home = Home::new();
    let runs = std::thread::scope(|scope| {
        let start = || scope.spawn(|| home.vo(["-s", "t", "--keep", "-c", "true"]));
        [start(), start(), start()].map(|run| run.join().unwrap())
    });
    // Whoever comes too late to start it either uses it or is told that it runs already.
    assert!(runs.iter().any(|run| run.code == 0) && runs.iter().all(|run| [0, 9].contains(&run.code)), "{runs:?}");
    // It looks like one whose master was killed, while it starts.
    assert!(runs.iter().all(|run| !run.stderr.contains("did not end")), "{runs:?}");
    let masters = home.processes().iter().filter(|(_, command)| command.contains(" master")).count();
    assert_eq!(masters, 1, "{:#?}", home.processes());
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn a_terminated_master_leaves_nothing_or_a_session_to_come_back_to() {
    use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
    for signal in [SIGTERM, SIGHUP] {
        let home = Home::new();
        home.write("slow.sub", SLOW);
        home.vo(["-s", "t", "--keep", "-c", "submit slow.sub"]).ok();
        let pid = master(&home, "t");
        kill(pid, signal);
        wait_until("the master's end", seconds(30), || {
            (!home.processes().iter().any(|(p, _)| *p == pid)).then_some(())
        });
        if home.session_dir("t").join("session.toml").exists() {
            let mut terminal = home.terminal(["-r", "t"]);
            terminal.prompt();
            assert_eq!(terminal.run("q --json | jq length").trim(), "3", "after {signal}");
            terminal.type_line("exit --force");
            assert_eq!(terminal.exit_code(), 0);
        }
        home.assert_nothing_left();
    }
}

#[test]
fn a_closed_terminal_leaves_the_session_running() {
    let home = Home::new();
    home.write("slow.sub", SLOW);
    let mut terminal = home.terminal(["-s", "t"]);
    terminal.prompt();
    terminal.run("submit slow.sub");
    drop(terminal);
    assert_eq!(home.vo(["-s", "t", "-c", "q --json"]).ok().json().as_array().map(Vec::len), Some(3));
    home.end("t");
    home.assert_nothing_left();
}

#[test]
fn end_of_input_at_the_prompt_is_exit() {
    let home = Home::new();
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.prompt();
    terminal.send(b"\x04");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn interrupt_at_the_question_of_exit_means_no() {
    let home = Home::new();
    home.write("slow.sub", SLOW);
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.prompt();
    terminal.run("submit slow.sub");
    terminal.type_line("exit");
    terminal.expect("(y/N) ");
    terminal.send(b"\x03");
    terminal.prompt();
    terminal.type_line("exit --force");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn the_state_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let dir = home.session_dir("t");
    assert_eq!(mode(&dir), 0o700);
    for private in ["control.sock", "ca.pem"] {
        assert_eq!(mode(&dir.join(private)), 0o600, "{private}");
    }
    home.end("t");
    home.assert_nothing_left();
}
