//! Detaching, coming back, taking over: what a person's terminals show meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_tests::{Home, Terminal, binary, seconds, wait_until};

/// Ctrl-^ d.
const DETACH: &[u8] = b"\x1ed";

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// A session called `name` at a terminal.
fn start(home: &Home, name: &str) -> Terminal {
    let mut terminal = home.terminal(["-s", name]);
    terminal.prompt();
    terminal
}

/// The terminal is a person's own again: nothing of the session is left on in it.
fn assert_left(terminal: &mut Terminal, says: &str) {
    assert_eq!(terminal.exit_code(), 0, "{}", terminal.shown());
    assert!(terminal.shown().contains(says), "lacks {says:?}: {}", terminal.shown());
    assert!(terminal.is_in_order(), "{:?}", terminal.picture());
    assert!(terminal.is_cooked());
}

/// What `-l --json` says of a session.
fn listed(home: &Home, name: &str) -> serde_json::Value {
    let all = home.vo(["-l", "--json"]).ok().json();
    all.as_array().unwrap().iter().find(|session| session["session"] == name).cloned().unwrap_or_default()
}

fn leave(home: &Home, mut terminal: Terminal) {
    terminal.type_line("exit --force");
    assert_eq!(terminal.exit_code(), 0, "{}", terminal.shown());
    home.assert_nothing_left();
}

fn have(home: &Home, program: &str) -> bool {
    let there = home.sh(&format!("command -v {program}")).code == 0;
    if !there {
        vo_tests::skip(&format!("no {program} on this machine"));
    }
    there
}

#[test]
fn vim_stays_open_and_its_screen_comes_back_at_any_size() {
    let home = Home::new();
    if !have(&home, "vim") {
        return;
    }
    home.write("poem.txt", (1..=100).map(|n| format!("{n} roses é漢 {}\n", "red ".repeat(n % 9))).collect::<String>());
    let mut terminal = start(&home, "t");
    terminal.run("echo before vim");
    terminal.type_line("vim -u NONE -c 'set nocp nu hls mouse=a bg=dark' -c 'syntax on' -c /roses poem.txt");
    let before = terminal.wait_picture("vim", |p| p.alternate && p.text.contains("48 48 roses"));
    terminal.send(b"20G8l");
    let before = terminal.wait_picture("the cursor's place", |p| p.cursor.0 == 19 && p.cursor != before.cursor);
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached. Session t runs on; `vo-login -r t` comes back to it.");
    assert!(terminal.picture().text.contains("echo before vim"), "what was below vim: {}", terminal.picture().text);

    // The same size: from the model alone. vim was told nothing.
    let mut terminal = home.terminal(["-r", "t"]);
    let back = terminal.wait_picture("vim's screen", |p| p.alternate && p.cursor == before.cursor);
    assert_eq!(back, before);
    terminal.send(b"oan inserted line\x1b");
    terminal.wait_picture("vim reads keys", |p| p.text.contains("an inserted line"));
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");

    // Another size: vim draws for it, and what it draws is what an eye at the new terminal sees.
    let mut terminal = home.terminal_sized((20, 60), ["-r"]);
    let small = terminal.wait_picture("vim in a small window", |p| p.alternate && p.text.contains("an inserted line"));
    assert!(small.text.lines().count() <= 20, "{}", small.text);
    terminal.send(b":set lines? columns?\r");
    terminal.wait_picture("vim's idea of the size", |p| p.text.contains("lines=20") && p.text.contains("columns=60"));
    terminal.send(b"\r:q!\r");
    terminal.wait_picture("the prompt below vim", |p| !p.alternate && p.text.ends_with("(grid)%"));
    assert!(terminal.picture().text.contains("before vim"), "{}", terminal.picture().text);
    leave(&home, terminal);
}

#[test]
fn less_and_a_half_typed_line_come_back() {
    let home = Home::new();
    home.write("long.txt", (1..=500).map(|n| format!("line {n}\n")).collect::<String>());
    let mut terminal = start(&home, "t");
    terminal.type_line("less long.txt");
    terminal.wait_picture("less", |p| p.text.contains("line 49"));
    terminal.send(b"10j");
    let before = terminal.wait_picture("less further down", |p| p.text.contains("line 59\n"));
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");
    let mut terminal = home.terminal(["-r"]);
    let back = terminal.wait_picture("less again", |p| p.text.contains("line 59\n"));
    assert_eq!(back, before);
    terminal.send(b"q");
    terminal.wait_picture("the prompt", |p| !p.alternate && p.text.ends_with("(grid)%"));

    terminal.send(b"echo half of a li");
    let before = terminal.wait_picture("the line", |p| p.text.ends_with("half of a li"));
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");
    let mut terminal = home.terminal(["-r"]);
    let back = terminal.wait_picture("the line again", |p| p.text.ends_with("half of a li"));
    assert_eq!(back, before);
    // Typed on, in a window too narrow for it: the line editor knows where it is.
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");
    let mut terminal = home.terminal_sized((50, 30), ["-r"]);
    terminal.wait_picture("the line in a narrow window", |p| p.text.replace('\n', "").contains("half of a li"));
    terminal.send(b"ne, and more\r");
    terminal.wait_picture("the line is whole", |p| p.text.contains("\nhalf of a line, and more\n"));
    leave(&home, terminal);
}

#[test]
fn what_was_missed_is_above_the_screen() {
    let home = Home::new();
    home.write("go", "");
    let mut terminal = start(&home, "t");
    terminal.type_line("while [ -e go ]; do sleep 0.1; done; seq -f 'missed %g' 300; touch done");
    terminal.wait_picture("the command runs", |p| p.text.ends_with("touch done") && p.cursor.1 == 0);
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");
    fs::remove_file(home.work("go")).unwrap();
    wait_until("the command's end", seconds(20), || home.work("done").exists().then_some(()));
    let terminal = home.terminal_sized((20, 80), ["-r"]);
    terminal.wait_picture("the prompt", |p| p.text.ends_with("(grid)%"));
    let all = terminal.scroll();
    let places: Vec<Option<usize>> = (1..=300).map(|n| all.find(&format!("missed {n}\n"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{all}");
    assert_eq!(all.matches("missed 150\n").count(), 1);
    leave(&home, terminal);
}

#[test]
fn a_client_that_dies_leaves_everything_running() {
    for signal in [Signal::SIGKILL, Signal::SIGHUP, Signal::SIGTERM] {
        let home = Home::new();
        let mut terminal = start(&home, "t");
        terminal.run("X=kept");
        terminal.type_line("printf '\\033[?1049h\\033[?25l\\033[?1002h\\033[31min an own screen'; sleep 1001; printf '\\033[?1049l\\033[?25h\\033[?1002l\\033[m'");
        terminal.wait_picture("the other screen", |p| p.alternate && p.text.contains("in an own screen"));
        send(terminal.pid(), signal);
        let code = terminal.exit_code();
        if signal != Signal::SIGKILL {
            assert_eq!(code, 128 + signal as i32, "{}", terminal.shown());
            assert!(terminal.is_in_order() && terminal.is_cooked(), "after {signal}: {:?}", terminal.picture());
        }
        wait_until("the master sees it", seconds(10), || listed(&home, "t")["attached"].is_null().then_some(()));
        let mut terminal = home.terminal(["-r", "t"]);
        terminal.wait_picture("the other screen again", |p| p.alternate && p.text.contains("in an own screen"));
        terminal.send(b"\x03");
        terminal.wait_picture("the prompt", |p| p.text.ends_with("(grid)%"));
        terminal.send(b"printf '\\033[?1049l\\033[?25h\\033[?1002l\\033[m'\r");
        terminal.wait_picture("the first screen", |p| !p.alternate);
        terminal.send(b"clear; echo X is $X\r");
        terminal.wait_picture("the same shell", |p| p.text.contains("X is kept"));
        leave(&home, terminal);
    }
}

#[test]
fn a_master_that_dies_leaves_the_terminal_in_order_and_says_so_when_it_is_back() {
    let home = Home::new();
    home.write("slow.sub", "executable = /bin/sleep\narguments = 1000\nqueue 3\n");
    let mut terminal = start(&home, "t");
    terminal.run("submit slow.sub");
    terminal.type_line("printf '\\033[?1049h\\033[?25l\\033[?2004h\\033[31mred'; sleep 1001");
    terminal.wait_picture("the other screen", |p| p.alternate && p.text.contains("red"));
    let master = i32::try_from(listed(&home, "t")["pid"].as_i64().unwrap()).unwrap();
    send(master, Signal::SIGKILL);
    assert_eq!(terminal.exit_code(), 8, "{}", terminal.shown());
    assert!(terminal.is_in_order() && terminal.is_cooked(), "{:?}", terminal.picture());
    assert!(terminal.shown().contains("vo-login -r"), "{}", terminal.shown());
    assert_eq!(listed(&home, "t")["state"], "stale");

    let mut terminal = home.terminal(["-r"]);
    terminal.prompt();
    let text = terminal.picture().text;
    for word in ["Session t's master was killed.", "3 unfinished, 3 in all", "The grid shell is a new one"] {
        assert!(text.contains(word), "lacks {word:?}: {text}");
    }
    leave(&home, terminal);
}

#[test]
fn a_second_terminal_takes_over_and_both_say_so() {
    let home = Home::new();
    let mut first = start(&home, "t");
    first.run("echo some output");
    let mut second = home.terminal_sized((30, 100), ["-r"]);
    let notice = second.wait_picture("the notice", |p| p.text.contains("Attached here instead of at pts/"));
    assert!(notice.text.ends_with("(grid)%"), "the notice hides no prompt: {}", notice.text);
    assert_left(&mut first, "Detached: attached from pts/");
    assert!(first.shown().contains("Session t runs on; `vo-login -r t` comes back to it."), "{}", first.shown());
    let after = second.wait_picture("the notice goes, and the prompt is there", |p| {
        !p.text.contains("Attached here") && p.text.ends_with("(grid)%")
    });
    assert!(after.text.contains("some output"), "{}", after.text);
    second.prompt();
    assert_eq!(second.run("echo fine; stty size").trim(), "fine\n30 100");
    leave(&home, second);
}

#[test]
fn the_window_is_followed() {
    let home = Home::new();
    let mut terminal = start(&home, "t");
    assert_eq!(terminal.run("stty size").trim(), "50 200");
    terminal.type_line("sh -c 'trap \"stty size\" WINCH; echo ready; while :; do sleep 0.05; done'");
    terminal.wait_picture("the loop", |p| p.text.ends_with("\nready"));
    terminal.resize(33, 77);
    terminal.expect("33 77");
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");
    let mut terminal = home.terminal_sized((21, 66), ["-r"]);
    terminal.expect("21 66");
    terminal.send(b"\x03");
    terminal.prompt();
    leave(&home, terminal);
}

#[test]
fn detach_is_a_command_here_and_elsewhere() {
    let mut home = Home::new();
    let mut terminal = start(&home, "t");
    terminal.type_line("detach");
    assert_left(&mut terminal, "Detached. Session t runs on");
    home.vo(["-s", "t", "-c", "detach"]).ok().says(["No terminal is attached to session t."]);

    let mut terminal = home.terminal(["-r"]);
    terminal.prompt();
    home.vo(["-s", "t", "-c", "detach"]).ok().says(["Detached pts/", " from session t."]);
    assert_left(&mut terminal, "Detached. Session t runs on");

    // Keys of one's own; the usual ones are the program's then.
    home.set("VO_DETACH_KEYS", "ctrl-t x");
    let mut terminal = home.terminal(["-r"]);
    terminal.prompt();
    terminal.type_line("cat -v");
    terminal.wait_picture("cat runs", |p| p.text.ends_with("cat -v") && p.cursor.1 == 0);
    terminal.send(DETACH);
    terminal.send(b"\r");
    terminal.expect("^^d");
    terminal.send(b"\x14y\r");
    terminal.expect("^Ty");
    terminal.send(b"\x14x");
    assert_left(&mut terminal, "Detached.");
    home.set("VO_DETACH_KEYS", "x");
    for words in [&["-r"][..], &["-s", "new"]] {
        let mut refused = home.terminal(words);
        assert_eq!(refused.exit_code(), 2, "{}", refused.shown());
        assert!(refused.shown().contains("ctrl-^ d"), "it says what is expected: {}", refused.shown());
    }
    assert!(listed(&home, "new").is_null(), "nothing was started");
    home.set("VO_DETACH_KEYS", "none");
    let mut terminal = home.terminal(["-r"]);
    terminal.wait_picture("cat's output", |p| p.text.ends_with("^Ty"));
    terminal.send(b"\x1ed\x14x\r");
    terminal.expect("^^d^Tx");
    terminal.send(b"\x03");
    terminal.prompt();
    leave(&home, terminal);
}

#[test]
fn the_configuration_names_the_keys_and_the_line_editor_keeps_its_own() {
    let home = Home::new();
    home.write("a.conf", "[session]\ndetach_keys = \"ctrl-x ctrl-x\"\n[[site]]\ngateway = \"local\"\n");
    let mut terminal = home.terminal(["-H", "a.conf", "--no-wait"]);
    terminal.prompt();
    // Ctrl-X Ctrl-U, undo, begins with the same key.
    terminal.send(b"echo kept\x15\x18\x15");
    terminal.expect("echo kept");
    terminal.send(b"\r");
    assert!(terminal.prompt().contains("kept"));
    terminal.send(b"\x18\x18");
    assert_left(&mut terminal, "Detached.");
    let mut terminal = home.terminal(["-r"]);
    terminal.prompt();
    leave(&home, terminal);
}

#[test]
fn sessions_are_apart_and_listed() {
    let home = Home::new();
    home.write("one.sub", "executable = /bin/true\nqueue 2\n");
    home.write("slow.sub", "executable = /bin/sleep\narguments = 1000\nqueue 3\n");
    let mut one = start(&home, "one");
    one.run("submit one.sub; wait");
    let mut two = start(&home, "two");
    two.run("submit slow.sub; X=two");
    assert_eq!(one.run("echo \"<$X>\"").trim(), "<>");
    assert_eq!(one.run("q --json | jq length").trim(), "0");
    one.send(DETACH);
    assert_left(&mut one, "`vo-login -r one`");

    let all = home.vo(["-l"]).ok().stdout;
    let head: Vec<&str> = all.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["SESSION", "STATE", "PID", "AGE", "JOBS", "ATTACHED", "SITES"]);
    let row = |name: &str| {
        let line = all.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((row("one")[4].as_str(), row("one")[5].as_str()), ("0/2", "-"));
    assert_eq!(row("two")[4], "3/3");
    assert!(row("two")[5].starts_with("pts/") && row("two")[6] == "local", "{all}");
    let (one, other) = (listed(&home, "one"), listed(&home, "two"));
    assert_eq!((&one["jobs"], &one["unfinished"]), (&2.into(), &0.into()));
    assert!(one["attached"].is_null());
    assert!(other["attached"]["terminal"].as_str().unwrap().starts_with("pts/"));
    assert!(other["attached"]["since_ms"].as_u64().unwrap() >= other["created_ms"].as_u64().unwrap());

    // Which one is meant?
    let mut asked = home.terminal(["-r"]);
    assert_eq!(asked.exit_code(), 2);
    for word in ["there are several sessions", "vo-login -r NAME", "one ", "two "] {
        assert!(asked.shown().contains(word), "lacks {word:?}: {}", asked.shown());
    }
    home.end("one");
    two.send(DETACH);
    assert_left(&mut two, "Detached.");
    let mut two = home.terminal(["-r"]);
    two.prompt();
    assert_eq!(two.run("echo \"<$X>\"").trim(), "<two>");
    leave(&home, two);
}

#[test]
fn a_master_that_does_not_answer_hides_no_other_session() {
    let home = Home::new();
    for name in ["hung", "well"] {
        home.vo(["-s", name, "--keep", "-c", "true"]).ok();
    }
    let hung = i32::try_from(listed(&home, "hung")["pid"].as_i64().unwrap()).unwrap();
    send(hung, Signal::SIGSTOP);
    assert_eq!(listed(&home, "hung")["state"], "unknown");
    assert_eq!(listed(&home, "well")["state"], "running");
    send(hung, Signal::SIGCONT);
    assert_eq!(listed(&home, "hung")["state"], "running");
    home.end("hung");
    home.end("well");
    home.assert_nothing_left();
}

/// A stopped master, or one whose disk hangs, keeps nobody who has had enough of waiting.
#[test]
fn who_waits_for_a_master_that_does_not_answer_is_told_and_may_leave() {
    let home = Home::new();
    home.vo(["-s", "hung", "--keep", "-c", "true"]).ok();
    let hung = i32::try_from(listed(&home, "hung")["pid"].as_i64().unwrap()).unwrap();
    send(hung, Signal::SIGSTOP);
    for arguments in [["-s", "hung"].as_slice(), &["-s", "hung", "-c", "q"], &["-r", "hung"]] {
        let mut terminal = home.terminal(arguments);
        terminal.expect("Session hung doesn't answer yet.");
        terminal.send(b"\x03");
        assert_ne!(terminal.exit_code(), 0, "{arguments:?}: {}", terminal.shown());
    }
    let mut command = home.command(binary("vo-login"));
    let mut client = command.args(["-s", "hung", "-c", "q"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 1];
    client.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    send(i32::try_from(client.id()).unwrap(), Signal::SIGTERM);
    wait_until("its end", seconds(10), || client.try_wait().unwrap());
    send(hung, Signal::SIGCONT);
    home.end("hung");
    home.assert_nothing_left();
}

#[test]
fn a_session_is_not_shown_in_itself() {
    let home = Home::new();
    let mut outer = start(&home, "outer");
    for line in ["vo-login -r outer", "env -u VO_SESSION -u VO_SESSION_DIR vo-login -r outer", "vo-login -r"] {
        let said = outer.run(line);
        assert!(said.contains("this terminal is itself shown in session outer"), "{line}: {said}");
    }
    // Another one within it is fine; the first in that is not.
    outer.type_line("vo-login -s inner");
    outer.expect("Welcome");
    outer.prompt();
    let said = outer.run("vo-login -r outer");
    assert!(said.contains("this terminal is itself shown in session outer"), "{said}");
    outer.type_line("exit --force");
    outer.prompt();
    leave(&home, outer);
}

/// Whoever attaches while output floods sees all that comes after, once, and the master has time for others meanwhile.
#[test]
fn attaching_in_a_flood_loses_and_repeats_nothing() {
    let home = Home::new();
    let mut terminal = start(&home, "t");
    // 20 MB, a number a line, over many switches between terminals.
    terminal.type_line("seq 100000 2500000; echo all of it");
    terminal.expect("100000");
    let mut slowest = Duration::ZERO;
    let mut round = 0;
    loop {
        let size = [(24, 80), (50, 200), (10, 30)][round % 3];
        let next = home.terminal_sized(size, ["-r", "t"]);
        next.wait_picture("numbers", |p| p.text.contains("000") || p.text.contains("all of it"));
        let asked = Instant::now();
        home.vo(["-s", "t", "-c", "q --json"]).ok();
        slowest = slowest.max(asked.elapsed());
        // After the flood a notice lies over a line for a while.
        let picture = next.wait_picture("no notice", |p| !p.text.contains("Attached here"));
        // All that it saw is consecutive; the last line may still be coming.
        let text = next.scroll();
        let text = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let numbers: Vec<u64> =
            text.lines().filter_map(|line| line.trim().parse().ok()).filter(|n| *n >= 100_000).collect();
        let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!(gap, None, "round {round}, of {:?} to {:?}", numbers.first(), numbers.last());
        terminal = next;
        round += 1;
        if picture.text.contains("all of it\n") && picture.text.ends_with("(grid)%") || round == 30 {
            break;
        }
    }
    assert!(round > 3, "the flood was over too soon to see anything");
    terminal
        .within(seconds(120))
        .wait_picture("the end", |p| p.text.contains("all of it\n") && p.text.ends_with("(grid)%"));
    assert!(slowest < seconds(10), "the master had no time for {slowest:?}");
    leave(&home, terminal);
}

#[test]
fn a_client_that_stops_reading_stops_nothing() {
    let home = Home::new();
    let mut terminal = start(&home, "t");
    terminal.type_line("while [ ! -e go ]; do sleep 0.1; done; seq 1000000; touch done");
    terminal.wait_picture("the command runs", |p| p.text.ends_with("touch done") && p.cursor.1 == 0);
    send(terminal.pid(), Signal::SIGSTOP);
    home.write("go", "");
    wait_until("the command's end, with nobody reading", seconds(60), || home.work("done").exists().then_some(()));
    let master = listed(&home, "t")["pid"].as_i64().unwrap();
    let status = fs::read_to_string(format!("/proc/{master}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    let kib: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < 100 << 10, "what nobody read is kept: {peak}");
    send(terminal.pid(), Signal::SIGCONT);
    let picture = terminal
        .wait_picture("the screen as it is now", |p| p.text.ends_with("(grid)%") && p.text.contains("\n1000000\n"));
    assert!(picture.text.contains("\n999999\n1000000\n"), "{}", picture.text);
    terminal.type_line("clear; echo fine");
    terminal.wait_picture("a command", |p| p.text.starts_with("fine\n"));
    leave(&home, terminal);
}

/// A client's first words: length, kind, route, and an array of one number, the protocol. Whoever is let in is answered.
const HELLO: &[u8] = b"\0\0\0\x10\x04\x01\0\0\0\0\0\0\0\0\x81\x1a\0\x01\0\0";

#[test]
fn only_the_same_user_is_let_in() {
    let home = Home::new();
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        vo_tests::skip("needs root, to become another user");
        return;
    }
    if !have(&home, "/usr/bin/python3") || !have(&home, "setpriv") {
        return;
    }
    home.vo(["-s", "t", "--keep", "-c", "true"]).ok();
    let socket = home.session_dir("t").join("control.sock");
    let hello: String = HELLO.iter().map(|byte| format!("{byte:02x}")).collect();
    let stranger = || {
        let program = "import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.sendall(bytes.fromhex(sys.argv[2]))
    print('answered', len(s.recv(100)))
except OSError as e:
    print(type(e).__name__)
";
        let nobody = "timeout 20 setpriv --reuid=65534 --regid=65534 --clear-groups --";
        home.sh(&format!("{nobody} /usr/bin/python3 -c \"{program}\" {} {hello}", socket.display()))
            .ok()
            .stdout
            .trim()
            .to_owned()
    };
    assert_eq!(stranger(), "PermissionError", "the modes of the directory and of the socket");
    // With these out of the way, the master itself refuses.
    let set_modes = |mode| {
        let doors = socket.ancestors().take_while(|path| path.starts_with(home.path()));
        doors.for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap());
    };
    set_modes(0o777);
    let said = stranger();
    assert!(["answered 0", "ConnectionResetError", "BrokenPipeError"].contains(&said.as_str()), "{said}");
    // The same words from the same user are answered.
    let mut own = UnixStream::connect(&socket).unwrap();
    own.write_all(HELLO).unwrap();
    assert!(own.read(&mut [0; 100]).unwrap() > 0);
    set_modes(0o700);
    home.end("t");
    home.assert_nothing_left();
}

/// Another emulator than the one that the master's model is made of.
#[test]
fn tmux_sees_the_same_screen() {
    let home = Home::new();
    if !have(&home, "tmux") {
        return;
    }
    let text = "\\033[?1049h\\033[2J\\033[3;8r\\033[2;5H\\033(0lqqk\\033(B \\033[1;31mé漢\\033[m\\033[10;12Hend\\033[?25l\\033[?1h\\033[?1000h";
    let mut terminal = home.terminal_sized((12, 40), ["-s", "t"]);
    terminal.prompt();
    terminal.run("seq 20");
    terminal.type_line(&format!("printf '{text}'; sleep 1001"));
    let before = terminal.wait_picture("the drawing", |p| p.alternate && p.text.contains("end"));
    // The tests' own terminal knows no line drawing.
    let drawn = before.text.replace("lqqk", "┌──┐");
    terminal.send(DETACH);
    assert_left(&mut terminal, "Detached.");

    let tmux = format!("tmux -u -S {}", home.work("tmux").display());
    home.sh(&format!("{tmux} -f /dev/null new-session -d -x 40 -y 12 'vo-login -r t' \\; set -g status off \\; resize-window -x 40 -y 12"))
        .ok();
    let shown = |what: &str, text: &dyn Fn(&str) -> bool| {
        wait_until(what, seconds(20), || {
            let shown = home.sh(&format!("{tmux} capture-pane -p")).ok().stdout;
            Some(shown.trim_end().to_owned()).filter(|shown| text(shown))
        })
    };
    assert_eq!(shown("the drawing in tmux", &|shown| shown.contains("end")), drawn);
    let flags = "#{alternate_on} #{cursor_flag} #{keypad_cursor_flag} #{mouse_standard_flag} #{scroll_region_upper} #{scroll_region_lower}";
    assert_eq!(home.sh(&format!("{tmux} display -p '{flags}'")).ok().stdout.trim(), "1 0 1 1 2 7");
    home.sh(&format!("{tmux} send-keys C-c && {tmux} send-keys -l \"printf '\\033[r\\033[?1049l\\033[?25h\\033[?1l\\033[?1000l'\" && {tmux} send-keys Enter")).ok();
    shown("the prompt", &|shown| shown.trim_end().ends_with("(grid)%") && shown.contains("20\n"));
    let all = home.sh(&format!("{tmux} capture-pane -p -S -")).ok().stdout;
    let numbers: Vec<&str> = all.lines().filter(|line| line.parse::<u8>().is_ok()).collect();
    assert!(numbers.starts_with(&["1", "2", "3"]), "what was above the screen is above tmux's: {all}");
    // tmux's end is the end of a terminal.
    home.sh(&format!("{tmux} kill-server")).ok();
    wait_until("the master sees it", seconds(10), || listed(&home, "t")["attached"].is_null().then_some(()));
    let mut terminal = home.terminal(["-r"]);
    terminal.prompt();
    leave(&home, terminal);
}

/// An SSH server on loopback that lets this user in with a key, and the client's words to reach it.
struct Server {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    words: Vec<String>,
}

impl Server {
    fn start(home: &Home) -> Server {
        let dir = home.path().join("ssh");
        fs::create_dir(&dir).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        for key in ["host", "id"] {
            home.sh(&format!("ssh-keygen -q -t ed25519 -N '' -f {}", file(key))).ok();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n",
            file("host"),
            file("id.pub")
        );
        fs::write(dir.join("config"), config).unwrap();
        let public = fs::read_to_string(dir.join("host.pub")).unwrap();
        fs::write(dir.join("known"), format!("[127.0.0.1]:{} {public}", address.port())).unwrap();
        // Root's sshd wants its empty directory, which the package's service makes.
        let _ = fs::create_dir("/run/sshd");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, config, log) = (Arc::clone(&stop), file("config"), file("log"));
        let thread = std::thread::spawn(move || {
            let mut children = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let input = OwnedFd::from(stream.unwrap());
                let output = input.try_clone().unwrap();
                let mut sshd = Command::new(SSHD);
                sshd.args(["-i", "-f", &config, "-E", &log]).stdin(input).stdout(output).stderr(Stdio::null());
                children.push(sshd.spawn().unwrap());
            }
            for mut child in children {
                let _ = child.wait();
            }
        });
        let port = address.port().to_string();
        let (key, known) = (file("id"), format!("UserKnownHostsFile={}", file("known")));
        let words =
            ["-F", "none", "-t", "-p", &port, "-i", &key, "-o", &known, "-o", "IdentitiesOnly=yes", "127.0.0.1"];
        Server { stop, address, thread: Some(thread), words: words.map(str::to_owned).to_vec() }
    }

    /// `ssh -t 127.0.0.1 vo-login -r`, in the home's environment.
    fn terminal(&self, home: &Home) -> Terminal {
        let program = binary("vo-login").display().to_string();
        let remote = format!(
            "cd {home} && env HOME={home} XDG_STATE_HOME={home}/state {program} -r",
            home = home.path().display()
        );
        home.terminal_of("ssh".as_ref(), self.words.iter().cloned().chain([remote]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

const SSHD: &str = "/usr/sbin/sshd";

#[test]
fn one_comes_back_over_ssh_and_a_hang_up_leaves_it_running() {
    let home = Home::new();
    if !nix::unistd::geteuid().is_root() {
        vo_tests::skip("sshd gives terminals to others only as root");
        return;
    }
    if !have(&home, SSHD) || !have(&home, "ssh") {
        return;
    }
    let server = Server::start(&home);
    let mut terminal = start(&home, "t");
    terminal.run("X=kept; echo at home");
    let mut far = server.terminal(&home);
    far.wait_picture("the screen at the other end", |p| p.text.contains("at home") && p.text.ends_with("(grid)%"));
    assert_left(&mut terminal, "(SSH from 127.0.0.1). Session t runs on");
    far.prompt();
    assert_eq!(far.run("echo $X").trim(), "kept");
    let place = listed(&home, "t")["attached"]["terminal"].as_str().unwrap().to_owned();
    assert!(place.starts_with("pts/") && place.ends_with(" (SSH from 127.0.0.1)"), "{place}");
    far.type_line("less +G /etc/services /etc/protocols");
    let before = far.wait_picture("less", |p| p.text.contains("(END)"));
    // The connection goes, without a word.
    send(far.pid(), Signal::SIGKILL);
    far.exit_code();
    wait_until("the master sees it", seconds(20), || listed(&home, "t")["attached"].is_null().then_some(()));
    let far = server.terminal(&home);
    let back = far.wait_picture("less again", |p| p.text == before.text);
    assert_eq!(back, before);
    drop(far);
    wait_until("the master sees it again", seconds(20), || listed(&home, "t")["attached"].is_null().then_some(()));
    let mut terminal = home.terminal(["-r"]);
    terminal.wait_picture("less at home", |p| p.text == before.text);
    terminal.send(b"q");
    terminal.prompt();
    leave(&home, terminal);
}
