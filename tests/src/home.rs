//! A home directory of its own for each test, and what runs in it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Terminal, binary, project, seconds, testbed, wait_until};

/// Lines and columns of a terminal.
const WINDOW: (u16, u16) = (50, 200);
/// How long one non-interactive command may take.
const RUN_LIMIT: Duration = seconds(120);

/// A temporary home with its own state and configuration directories. When it is dropped, no process of the test may be left.
pub struct Home {
    dir: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
    /// Where commands run.
    start: PathBuf,
    on_testbed: bool,
    /// The numbers of the account that commands run as, if it isn't the test's own.
    account: Option<u32>,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A home without any configuration; its `work` directory is where commands run, unless the test says otherwise.
    pub fn new() -> Home {
        Home::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Home {
        let dir = tempfile::Builder::new().prefix("vo-").tempdir_in(parent).expect("a temporary directory");
        let path = |name: &str| OsString::from(dir.path().join(name));
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("HOME".into(), dir.path().into()),
            ("XDG_STATE_HOME".into(), path("state")),
            ("XDG_CONFIG_HOME".into(), path("config")),
            ("SHELL".into(), "/bin/bash".into()),
            ("TERM".into(), "xterm".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("USER".into(), "tester".into()),
        ];
        let inherited = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut search = OsString::from(binary("vo-login").parent().expect("a binary is in a directory"));
        search.push(":");
        search.push(inherited);
        environment.push(("PATH".into(), search));
        fs::create_dir(dir.path().join("work")).expect("a directory of our own");
        let start = dir.path().join("work");
        Home { dir, environment, start, on_testbed: false, account: None }
    }

    /// A home on the file system that the workstation and tundra's hosts share, of the account that tundra's user has; its SSH
    /// configuration knows tundra as `tundra-key`. Commands run as that account.
    pub fn shared_with_tundra() -> Home {
        const ALICE: u32 = 5001;
        testbed::need_up();
        let mut home = Home::within(&testbed::state().join("shared"));
        (home.on_testbed, home.account) = (true, Some(ALICE));
        // As a user's own: ssh reads no key that others may.
        for name in ["ssh_config", "known_hosts", "keys/alice-plain"] {
            let text = fs::read_to_string(testbed::state().join(name)).expect("the testbed's files");
            let path = home.path().join(Path::new(name).file_name().expect("a file"));
            let here = |name: &str| home.path().join(name).display().to_string();
            let of = |name: &str| testbed::state().join(name).display().to_string();
            let text = text
                .replace(&of("keys/alice-plain"), &here("alice-plain"))
                .replace(&of("known_hosts"), &here("known_hosts"));
            fs::write(&path, text).expect("a file of our own");
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode of our own file");
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let alice = format!("alice:x:{ALICE}:{ALICE}::{}:/bin/bash\n", home.path().display());
        fs::write(home.path().join("passwd"), passwd + &alice).expect("a file of our own");
        home.set("VO_SSH_CONFIG", home.path().join("ssh_config"));
        home.hand_over();
        home
    }

    /// Gives all files of this home to the account that its commands run as.
    pub fn hand_over(&self) {
        let Some(account) = self.account else { return };
        for path in walk(self.path()).into_iter().chain([self.path().to_owned()]) {
            std::os::unix::fs::lchown(&path, Some(account), Some(account)).expect("only root takes this path");
        }
    }

    /// A home whose SSH configuration knows the testbed's sites, and nothing of this machine's. Panics if the testbed is down.
    pub fn on_testbed() -> Home {
        testbed::need_up();
        let mut home = Home::new();
        home.on_testbed = true;
        home.set("VO_SSH_CONFIG", testbed::ssh_config());
        home
    }

    /// Sets an environment variable for everything that starts from now on.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.as_ref().into()));
    }

    /// Lets cargo find its toolchain and caches, and the shell start in the project.
    pub fn set_cargo(&mut self) {
        let theirs = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        for (name, place) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let value = std::env::var_os(name).map_or_else(|| theirs.join(place), PathBuf::from);
            self.set(name, value);
        }
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            self.set("CARGO_TARGET_DIR", target);
        }
        let own = self.path().to_owned();
        self.set("TMPDIR", own);
        self.start = project();
    }

    /// The home itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the directory where commands run.
    pub fn work(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join("work").join(name)
    }

    /// Writes a file there.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work(name);
        fs::write(&path, content).expect("the work directory can be written");
        path
    }

    /// Writes an executable script there.
    pub fn script(&self, name: impl AsRef<Path>, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the mode of our own file");
        path
    }

    /// Reads a file there.
    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.work(name);
        String::from_utf8_lossy(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).into_owned()
    }

    /// The directory of the session called `name`.
    pub fn session_dir(&self, name: &str) -> PathBuf {
        self.path().join("state/vo-login").join(name)
    }

    /// A command in this home's environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.account {
            None => Command::new(program),
            Some(account) => {
                // In a mount namespace of its own: ssh wants to find the account in /etc/passwd.
                let mut command = Command::new("unshare");
                let own =
                    "mount --bind ~/passwd /etc/passwd && exec setpriv --reuid=$0 --regid=$0 --clear-groups -- \"$@\"";
                command.args(["--mount", "sh", "-c", own]).arg(account.to_string()).arg(program);
                command
            }
        };
        command.env_clear().envs(self.environment.iter().map(|(n, v)| (n, v))).current_dir(&self.start);
        command
    }

    /// Runs `vo-login` without a terminal or input.
    pub fn vo<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        let mut command = self.command(binary("vo-login"));
        command.args(arguments);
        Run::of(command, b"")
    }

    /// Runs `vo-login` without a terminal, with `input` on its standard input.
    pub fn vo_with_input<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Run {
        let mut command = self.command(binary("vo-login"));
        command.args(arguments);
        Run::of(command, input)
    }

    /// Ends the session called `name`, whatever it runs, as a person does who comes back to it.
    pub fn end(&self, name: &str) {
        let mut terminal = self.terminal(["-r", name]);
        terminal.prompt();
        terminal.type_line("exit --force");
        assert_eq!(terminal.within(seconds(90)).exit_code(), 0, "{}", terminal.shown());
    }

    /// Runs a line of shell.
    pub fn sh(&self, line: &str) -> Run {
        let mut command = self.command("/bin/bash");
        command.args(["-c", line]);
        Run::of(command, b"")
    }

    /// Starts `vo-login` at a terminal.
    pub fn terminal<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Terminal {
        self.terminal_of(binary("vo-login").as_os_str(), arguments)
    }

    /// Starts `vo-login` at a terminal of this many lines and columns.
    pub fn terminal_sized<S: AsRef<OsStr>>(
        &self,
        size: (u16, u16),
        arguments: impl IntoIterator<Item = S>,
    ) -> Terminal {
        Terminal::start(self.builder(binary("vo-login").as_os_str(), arguments), size)
    }

    /// Starts any program at a terminal.
    pub fn terminal_of<S: AsRef<OsStr>>(&self, program: &OsStr, arguments: impl IntoIterator<Item = S>) -> Terminal {
        Terminal::start(self.builder(program, arguments), WINDOW)
    }

    fn builder<S: AsRef<OsStr>>(
        &self,
        program: &OsStr,
        arguments: impl IntoIterator<Item = S>,
    ) -> portable_pty::CommandBuilder {
        let mut command = portable_pty::CommandBuilder::new(program);
        command.env_clear();
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command.cwd(&self.start);
        for argument in arguments {
            command.arg(argument);
        }
        command
    }

    /// Processes that run in this home: its path is in their environment, command line or working directory.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let needle = self.path().as_os_str().as_bytes();
        let mentions = |text: &[u8]| text.windows(needle.len()).any(|window| window == needle);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc is there").filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let command = read("cmdline");
            let directory = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let zombie = read("stat").rsplit(|&b| b == b')').next().is_some_and(|rest| rest.starts_with(b" Z"));
            if !zombie
                && (mentions(&command) || mentions(&read("environ")) || mentions(directory.as_os_str().as_bytes()))
            {
                found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
            }
        }
        found
    }

    /// Waits until no process of this home is left.
    pub fn wait_for_no_process(&self) {
        let deadline = Instant::now() + seconds(10);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.processes();
        assert!(left.is_empty(), "processes are left: {left:#?}");
    }

    /// The test's last word on sessions on this machine: no process is left, and no file but the log and the shell's history.
    pub fn assert_nothing_left(&self) {
        self.wait_for_no_process();
        let mut left = walk(&self.path().join(".vo-login"));
        for session in fs::read_dir(self.path().join("state/vo-login")).into_iter().flatten().filter_map(Result::ok) {
            let stays = ["master.log", "shell", "start.lock"].map(|name| session.path().join(name));
            left.extend(
                walk(&session.path()).into_iter().filter(|path| !stays.iter().any(|kept| path.starts_with(kept))),
            );
        }
        assert!(left.is_empty(), "files are left: {left:#?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let mut left_at_sites: Vec<String> = Vec::new();
        if !failed {
            let deadline = Instant::now() + seconds(10);
            while !self.processes().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        } else {
            for name in fs::read_dir(self.path().join("state/vo-login")).into_iter().flatten().filter_map(Result::ok) {
                let read = |file: &str| fs::read_to_string(name.path().join(file)).unwrap_or_default();
                eprintln!("--- the log of {}\n{}", name.path().display(), read("master.log"));
                let file = read("session.toml");
                let id = file.lines().find_map(|line| line.strip_prefix("id = \"")?.strip_suffix('"'));
                left_at_sites.extend(id.filter(|_| self.on_testbed).map(str::to_owned));
            }
        }
        let left = self.processes();
        for (pid, _) in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for id in left_at_sites {
            testbed::sweep(&id);
        }
        assert!(failed || left.is_empty(), "processes were left: {left:#?}");
    }
}

/// Every file below `path`.
fn walk(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().filter_map(Result::ok) {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

/// What a finished command said.
#[derive(Debug)]
pub struct Run {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit code; 128 + number if a signal ended it.
    pub code: i32,
    /// How long it took.
    pub time: Duration,
}

impl Run {
    /// Runs a command with `input` on its standard input, to its end.
    pub fn of(mut command: Command, input: &[u8]) -> Run {
        let shown = format!("{command:?}");
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = input.to_owned();
        let feed = std::thread::spawn(move || {
            // A command may end without reading all of it.
            let _ = stdin.take().map(|mut stdin| stdin.write_all(&input));
        });
        let collect = |stream: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut stream) = stream {
                    stream.read_to_end(&mut bytes).expect("a pipe can be read");
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let out = collect(stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
        let err = collect(stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
        let deadline = start + RUN_LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("not within {RUN_LIMIT:?}: {shown}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let time = start.elapsed();
        // A daemon that kept these pipes open would be a fault of its own: the caller of a script waits for their end.
        wait_until(&format!("end of the output of {shown}"), seconds(10), || {
            (out.is_finished() && err.is_finished()).then_some(())
        });
        let _ = feed.join();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Run { stdout: out.join().expect("read"), stderr: err.join().expect("read"), code, time }
    }

    /// Panics unless the exit code was `code`.
    pub fn code(self, code: i32) -> Run {
        assert_eq!(self.code, code, "the exit code; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Panics unless it succeeded.
    pub fn ok(self) -> Run {
        self.code(0)
    }

    /// Panics unless standard error holds each of `texts`.
    pub fn says<'a>(self, texts: impl IntoIterator<Item = &'a str>) -> Run {
        for text in texts {
            assert!(self.stderr.contains(text), "stderr lacks {text:?}:\n{}\nstdout:\n{}", self.stderr, self.stdout);
        }
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}:\n{}\n{}", self.stdout, self.stderr))
    }
}
