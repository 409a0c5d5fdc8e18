//! A person at a terminal: a session on this machine, its prompt, programs that use the terminal, leaving and coming back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vo-login");
const PROMPT: &str = "(grid)% ";
const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory of its own.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        Home { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let home = self.path().to_owned();
        vec![
            ("HOME", home.clone()),
            ("XDG_STATE_HOME", home.join("state")),
            ("PATH", std::env::var_os("PATH").unwrap_or_default().into()),
            ("SHELL", "/bin/bash".into()),
            ("TERM", "xterm".into()),
        ]
    }

    /// Runs `vo-login` without a terminal.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.env_clear().envs(self.environment()).current_dir(self.path()).args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn terminal(&self, arguments: &[&str]) -> Terminal {
        let pair =
            native_pty_system().openpty(PtySize { rows: 24, cols: 100, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new(PROGRAM);
        command.env_clear();
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.cwd(self.path());
        command.args(arguments);
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let input = pair.master.take_writer().unwrap();
        Terminal { child, input, output, seen: String::new(), _master: pair.master }
    }

    fn master(&self) -> Option<i32> {
        let listed = self.run(&["-l", "--json"]);
        let sessions: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        sessions.get(0)?.get("pid")?.as_i64()?.try_into().ok()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test that failed leaves its session; nothing here may panic again.
        if std::thread::panicking() && self.master().is_some() {
            let mut terminal = self.terminal(&["-r"]);
            terminal.line("exit --force");
            terminal.ended();
        }
    }
}

struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    input: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    seen: String,
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    fn keys(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    fn line(&mut self, text: &str) {
        self.keys(&format!("{text}\r"));
    }

    /// What the terminal shows up to and with `text`.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(e @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("{e} while waiting for {text:?} in {:?}", self.seen)
                }
            }
        }
    }

    /// Runs a line that comes back to the prompt; what it showed.
    fn run(&mut self, text: &str) -> String {
        self.line(text);
        // The line is echoed as it is typed, then the cursor leaves it.
        self.expect("\u{1b}[?2004l");
        self.expect(PROMPT)
    }

    /// The exit code, once the program has ended.
    fn end(&mut self) -> u32 {
        self.ended().unwrap_or_else(|| panic!("still there: {:?}", self.seen))
    }

    fn ended(&mut self) -> Option<u32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().ok()? {
                return Some(status.exit_code());
            }
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(20)) {
                self.seen += &String::from_utf8_lossy(&bytes);
            }
        }
        None
    }

    /// Leaves by `exit`, with nothing unfinished.
    fn exit(mut self) {
        self.line("exit");
        assert_eq!(self.end(), 0, "{:?}", self.seen);
    }
}

#[test]
fn lines_run_in_the_users_own_shell() {
    let home = Home::new();
    let mut terminal = home.terminal(&[]);
    let start = terminal.expect(PROMPT);
    let order = [
        "Spawning on ",
        "Setting up VO participants .",
        " Done",
        "Welcome to your grid environment.",
        "type \"detach\"",
    ];
    let places: Vec<Option<usize>> = order.iter().map(|text| start.find(text)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{start}");
    // Directory, variables, aliases and the last status stay from line to line.
    terminal.run("mkdir d && cd d && X=5 && alias say='echo said'; false");
    let shown = terminal.run("echo \"$? $X ${PWD##*/}\"; say it");
    assert!(shown.contains("1 5 d\r\n") && shown.contains("said it\r\n"), "{shown}");
    let shown = terminal.run("printf 'b\\na\\n' | sort > f; cat f");
    assert!(shown.contains("a\r\nb\r\n"), "{shown}");
    terminal.line("read answer");
    terminal.expect("\u{1b}[?2004l");
    terminal.line("typed");
    terminal.expect(PROMPT);
    assert!(terminal.run("echo \"<$answer>\"").contains("<typed>"));
    // A line that is not whole goes on.
    terminal.line("for i in 1 2; do");
    let shown = terminal.run("echo n$i; done");
    assert!(shown.contains("n1\r\nn2\r\n"), "{shown}");
    terminal.exit();
}

#[test]
fn keys_reach_the_program_in_the_foreground() {
    let home = Home::new();
    let mut terminal = home.terminal(&[]);
    terminal.expect(PROMPT);
    terminal.line("sh -c 'echo up; exec sleep 1000'");
    terminal.expect("up\r\n");
    terminal.keys("\u{3}");
    terminal.expect(PROMPT);
    assert!(terminal.run("echo \"<$?>\"").contains("<130>"));
    terminal.line("sh -c 'echo up; exec sleep 1000'");
    terminal.expect("up\r\n");
    terminal.keys("\u{1a}");
    terminal.expect("Stopped");
    terminal.expect(PROMPT);
    assert!(terminal.run("jobs").contains("sleep 1000"));
    terminal.line("fg");
    terminal.expect("sleep 1000'\r\n");
    terminal.keys("\u{3}");
    terminal.expect(PROMPT);
    assert!(!terminal.run("jobs").contains("sleep"));
    // Programs that use the whole screen.
    std::fs::write(home.path().join("text"), "one line\n").unwrap();
    terminal.line("less text");
    terminal.expect("one line");
    terminal.keys("q");
    terminal.expect(PROMPT);
    terminal.line("vim -u NONE new");
    terminal.expect("[New File]");
    terminal.keys("ihello\u{1b}");
    terminal.expect("hello");
    terminal.keys("\u{1a}");
    terminal.expect("Stopped");
    terminal.expect(PROMPT);
    terminal.line("fg");
    terminal.expect("hello");
    terminal.keys(":wq\r");
    terminal.expect(PROMPT);
    assert!(terminal.run("cat new").contains("hello\r\n"));
    terminal.exit();
}

#[test]
fn a_session_is_left_and_joined_again_until_it_is_ended() {
    let home = Home::new();
    let mut terminal = home.terminal(&[]);
    terminal.expect(PROMPT);
    std::fs::write(home.path().join("long.sub"), "executable = /bin/sleep\narguments = 1000\nqueue 3\n").unwrap();
    assert!(terminal.run("MARK=7; submit long.sub").contains("3 job(s) submitted to cluster 1.\r\n"));
    // Another client neither starts a second session of the name nor disturbs this one.
    let mut second = home.terminal(&[]);
    second.expect("session default already runs");
    assert_eq!(second.end(), 9);
    let listed = home.run(&["-c", "q --json"]);
    let jobs: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(jobs.len(), 3);
    terminal.line("detach");
    assert_eq!(terminal.end(), 0);
    let mut terminal = home.terminal(&["-r"]);
    terminal.expect(PROMPT);
    assert!(terminal.run("echo \"<$MARK>\"").contains("<7>"));
    // rm means the job where there is no such file.
    assert!(terminal.run("touch 1.1; rm 1.1 && ls 1.1").contains("cannot access"));
    assert!(terminal.run("rm 1.1").contains("1 job(s) removed."));
    for refusal in ["n\r", "\u{3}"] {
        terminal.line("exit");
        terminal.expect("(y/N)");
        terminal.keys(refusal);
        terminal.expect(PROMPT);
    }
    terminal.keys("\u{4}");
    terminal.expect("(y/N)");
    terminal.keys("y\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(home.master(), None);
    assert_eq!(home.run(&["-s", "default", "-l"]).status.code(), Some(2));
}

#[test]
fn a_killed_master_is_brought_back() {
    let home = Home::new();
    let mut terminal = home.terminal(&[]);
    terminal.expect(PROMPT);
    std::fs::write(home.path().join("long.sub"), "executable = /bin/sleep\narguments = 1000\nqueue 3\n").unwrap();
    terminal.run("submit long.sub");
    let pid = nix::unistd::Pid::from_raw(home.master().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(terminal.end(), 8);
    let refused = home.run(&["-c", "q"]);
    assert_eq!(refused.status.code(), Some(9));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`vo-login -r default` brings it back"));
    let mut terminal = home.terminal(&["-r"]);
    terminal.expect(PROMPT);
    assert!(terminal.run("q").contains("Total for query: 3 jobs"));
    terminal.line("exit --force");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn scripts_end_with_the_code_of_what_failed_first() {
    let home = Home::new();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("echo.sub", "executable = /bin/echo\narguments = hello $(Process)\noutput = out.$(Process)\nqueue 5\n");
    write("false.sub", "executable = /bin/false\nqueue 2\n");
    write("bad.sub", "executable = /bin/true\narguments = \"a b\nqueue\n");
    write("bad.conf", "[[site]]\ngateway = \"x\"\nfoo = 1\n");
    write("script.vo", "submit $1\nwait -q\necho done $# >&2\nhistory --json\n");
    let check = |arguments: &[&str], code: i32, stdout: &str, stderr: &str| {
        let ran = home.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {out}{err}");
        assert!(out.starts_with(stdout) && err.contains(stderr), "{arguments:?}: {out:?} {err:?}");
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "{out:?} {err:?}");
    };
    check(&["script.vo", "echo.sub", "x"], 0, "5 job(s) submitted to cluster 1.\n[\n {\"job\":\"1.0\",", "done 2");
    for proc in 0..5 {
        let written = std::fs::read_to_string(home.path().join(format!("out.{proc}"))).unwrap();
        assert_eq!(written, format!("hello {proc}\n"));
    }
    check(&["-c", "submit false.sub; wait; echo never"], 7, "2 job(s) submitted to cluster 1.\n", "2 failed");
    check(&["-c", "submit bad.sub; echo never"], 6, "", "bad.sub:2:13: error: ");
    check(&["-c", "exit 42"], 42, "", "");
    check(&["-H", "bad.conf", "-c", "q"], 3, "", "bad.conf:3:1: error: unknown key `foo`");
    check(&["-H", "absent.conf", "-c", "q"], 3, "", "cannot read absent.conf");
    check(&["-s", "a/b", "-c", "q"], 2, "", "can't be a session's name");
    check(&["absent.vo"], 2, "", "cannot read absent.vo");
    assert_eq!(home.master(), None);
    // Kept, it is there for the next one, and is left running by it.
    check(&["--keep", "-c", "submit echo.sub; wait -q"], 0, "5 job(s)", "");
    check(&["-c", "q -all --json"], 0, "[\n {\"job\":\"1.0\"", "");
    let mut terminal = home.terminal(&["-r"]);
    terminal.expect(PROMPT);
    terminal.exit();
}

#[test]
fn an_interrupted_script_ends_its_session() {
    let home = Home::new();
    std::fs::write(home.path().join("long.sub"), "executable = /bin/sleep\narguments = 1000\nqueue 3\n").unwrap();
    let mut terminal = home.terminal(&["-c", "submit long.sub; echo up; wait; echo never"]);
    terminal.expect("up\r\n");
    terminal.keys("\u{3}");
    assert_eq!(terminal.end(), 130, "{:?}", terminal.seen);
    assert_eq!(home.master(), None);
}
