//! The grid shell at a terminal.

use vo_tests::{Home, Terminal, seconds, wait_until};

/// Is the command called `name` in the foreground of its terminal, and not stopped?
fn foreground(home: &Home, name: &str) -> bool {
    home.processes().iter().filter(|(_, command)| command.trim() == name).any(|(pid, _)| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc(5): state, parent, process group, session, terminal, foreground process group.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').take(6).collect();
        matches!(fields[..], [state, _, group, _, _, foreground] if state != "T" && group == foreground)
    })
}

fn start(home: &Home) -> Terminal {
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.expect("Welcome to your grid environment.");
    terminal.prompt();
    terminal
}

fn leave(home: &Home, mut terminal: Terminal) {
    terminal.type_line("exit");
    assert_eq!(terminal.exit_code(), 0);
    home.assert_nothing_left();
}

#[test]
fn a_session_on_this_machine_reads_as_documented() {
    let home = Home::new();
    let mut terminal = home.terminal([] as [&str; 0]);
    terminal.expect("Spawning on ");
    let dots = terminal.expect("Done");
    assert!(dots.contains("Setting up VO participants ."), "{dots:?}");
    terminal.expect("Welcome to your grid environment.");
    terminal.expect("To shut down the environment, type \"exit\". To detach from it, type \"detach\".");
    terminal.prompt();
    let host = home.sh("hostname -s").ok().stdout;
    assert!(
        terminal.shown().trim_end_matches(' ').ends_with(&format!("{}(grid)%", host.trim())),
        "{}",
        terminal.shown()
    );

    home.write("t.sub", "executable = /bin/sleep\narguments = 0.2\nqueue 4\n");
    assert_eq!(terminal.run("submit t.sub").trim(), "4 job(s) submitted to cluster 1.");
    assert!(terminal.run("status").contains("Total"));
    terminal.run("wait");
    assert_eq!(terminal.run("q --json | jq length").trim(), "0");
    assert_eq!(terminal.run("history --json | jq length").trim(), "4");
    leave(&home, terminal);
}

#[test]
fn lines_run_in_the_users_own_shell() {
    let home = Home::new();
    let mut terminal = start(&home);
    assert_eq!(terminal.run("pwd").trim(), home.work("").to_str().unwrap().trim_end_matches('/'));
    terminal.run("cd /usr/share");
    assert_eq!(terminal.run("pwd").trim(), "/usr/share");
    terminal.run("cd -");
    terminal.run("X='two  words'");
    assert_eq!(terminal.run("echo \"$X\" | tr a-z A-Z").trim(), "TWO  WORDS");
    terminal.run("export Y=exported");
    assert_eq!(terminal.run("sh -c 'echo $Y'").trim(), "exported");
    terminal.run("f() { echo \"f $1\"; }");
    assert_eq!(terminal.run("f x").trim(), "f x");
    assert_eq!(terminal.run("false; echo $?").trim(), "1");
    terminal.run("false");
    assert_eq!(terminal.run("echo $?").trim(), "1");
    // A word that a grid command has too: rm of files is the file system's.
    home.write("gone", "");
    terminal.run("rm gone");
    assert!(!home.work("gone").exists());
    leave(&home, terminal);
}

#[test]
fn interrupts_and_job_control_work() {
    let home = Home::new();
    let mut terminal = start(&home);
    let sleeping = |name: &str| home.processes().iter().any(|(_, command)| command.trim() == name);
    terminal.type_line("sleep 1001");
    wait_until("sleep runs", seconds(10), || foreground(&home, "sleep 1001").then_some(()));
    terminal.send(b"\x03");
    terminal.prompt();
    assert!(!sleeping("sleep 1001"));

    terminal.type_line("sleep 1002");
    wait_until("sleep runs", seconds(10), || foreground(&home, "sleep 1002").then_some(()));
    terminal.send(b"\x1a");
    terminal.prompt();
    assert!(terminal.run("jobs").contains("sleep 1002"));
    terminal.type_line("fg");
    terminal.expect("sleep 1002");
    wait_until("sleep is back", seconds(10), || foreground(&home, "sleep 1002").then_some(()));
    terminal.send(b"\x03");
    terminal.prompt();
    wait_until("sleep has ended", seconds(10), || (!sleeping("sleep 1002")).then_some(()));

    // A grid command, too: what it waits for goes on.
    home.write("t.sub", "executable = /bin/sleep\narguments = 1003\nqueue\n");
    terminal.run("submit t.sub");
    terminal.type_line("wait");
    wait_until("the job runs", seconds(20), || sleeping("/bin/sleep 1003").then_some(()));
    terminal.expect("1 running");
    terminal.send(b"\x03");
    terminal.prompt();
    assert!(sleeping("/bin/sleep 1003"), "Ctrl-C ends the waiting, not the job");
    assert_eq!(terminal.run("q --json | jq length").trim(), "1");

    // At the prompt it only clears the line.
    terminal.send(b"echo nev");
    terminal.expect("echo nev");
    terminal.send(b"\x03");
    terminal.prompt();
    assert_eq!(terminal.run("echo again").trim().lines().last(), Some("again"));
    terminal.run("rm 1");
    leave(&home, terminal);
}

#[test]
fn full_screen_programs_have_the_terminal() {
    let home = Home::new();
    let mut terminal = start(&home);
    home.write("long.txt", (1..=500).map(|n| format!("line {n}\n")).collect::<String>());
    terminal.type_line("less long.txt");
    terminal.expect("line 40");
    terminal.send(b"G");
    terminal.expect("line 500");
    terminal.send(b"q");
    terminal.prompt();

    if home.sh("command -v vi").code == 0 {
        terminal.type_line("vi new.txt");
        terminal.expect("new.txt");
        terminal.send(b"ihello\x1b:wq\r");
        terminal.prompt();
        assert_eq!(home.read("new.txt"), "hello\n");
    } else {
        vo_tests::skip("no vi on this machine");
    }

    assert_eq!(terminal.run("stty size").trim(), "50 200");
    terminal.resize(40, 100);
    wait_until("the new size", seconds(10), || (terminal.run("stty size").trim() == "40 100").then_some(()));
    assert_eq!(terminal.run("echo fine").trim(), "fine", "the line editor has its terminal back");
    leave(&home, terminal);
}

#[test]
fn history_and_completion_help_typing() {
    let home = Home::new();
    let mut terminal = start(&home);
    terminal.run("echo remember-me");
    terminal.send(b"\x1b[A");
    terminal.expect("echo remember-me");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("remember-me"));
    home.write("very-long-name.sub", "executable = /bin/true\nqueue 2\n");
    terminal.send(b"subm\tvery\t");
    terminal.expect("submit very-long-name.sub");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("2 job(s) submitted to cluster 1."));
    terminal.run("wait");
    leave(&home, terminal);

    let mut terminal = start(&home);
    terminal.send(b"\x12remember");
    terminal.expect("echo remember-me");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("remember-me"), "history outlives the session");
    leave(&home, terminal);
}

#[test]
fn another_terminal_talks_to_the_same_session() {
    let home = Home::new();
    let mut terminal = home.terminal(["-s", "shared"]);
    terminal.prompt();
    home.write("t.sub", "executable = /bin/true\nqueue 7\n");
    terminal.run("submit t.sub");
    home.vo(["-s", "shared", "-c", "wait"]).ok().says(["7 of 7 job(s) succeeded"]);
    assert_eq!(home.sh("vo-login -s shared -c 'history --json' | jq length").ok().stdout, "7\n");
    assert_eq!(terminal.run("echo still here").trim(), "still here");
    leave(&home, terminal);
}
