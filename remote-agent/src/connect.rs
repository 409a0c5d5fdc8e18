//! `vo-agent connect`: a stream between the master, on standard input and output, and the session's event agent on this login node.
//! One is started if none answers here; it takes over from one that runs elsewhere, or that hangs. Secrets come by the stream only.
//!
//! Until the stream is up, an error is one line on standard error and an exit code: 2 for the command line, [`EXIT_DIRECTORY`],
//! [`EXIT_AGENT`]. After that the code is 0 when the stream ended, however it did.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::lease::{self, Node};
use crate::{options, usage};

/// The session's directory can't be made or written, such as in a full home.
pub const EXIT_DIRECTORY: u8 = 3;

/// The event agent could not be started, or runs where we can't reach it.
pub const EXIT_AGENT: u8 = 4;

/// An event agent that isn't ready by then never will be: all it does until then is to lock a file and to make a socket.
const READY: Duration = Duration::from_secs(30);

/// An agent of this node that doesn't show by then that it runs is one that hangs.
const ANSWER: Duration = Duration::from_secs(20);

/// What an agent says first on its socket, to the bridge alone.
pub(crate) const AWAKE: u8 = b'!';

/// Where a session lives at a site.
pub(crate) struct Place {
    /// What holds all sessions: `~/.vo-login`.
    pub(crate) root: PathBuf,
    /// `NAME-ID`.
    pub(crate) session: String,
    /// The highest epoch that the master has met: an agent of a lower one is an old one.
    pub(crate) above: u64,
    /// An event agent begins without a master.
    pub(crate) revive: bool,
}

impl Place {
    /// Reads `--session NAME-ID [--dir ROOT] [--above EPOCH] [--revive yes]`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn from_args(args: impl Iterator<Item = OsString>) -> Result<Place, String> {
        let mut args = args.peekable();
        let [session, dir, above, revive] = options(&mut args, ["--session", "--dir", "--above", "--revive"])?;
        if args.next().is_some() {
            return Err("too many arguments".to_owned());
        }
        let session = session.and_then(|name| name.into_string().ok()).unwrap_or_default();
        if !is_session(&session) {
            return Err("--session needs a name".to_owned());
        }
        let above = match above {
            None => 0,
            Some(above) => above.to_str().and_then(|n| n.parse().ok()).ok_or("--above needs a number")?,
        };
        Ok(Place { root: root(dir)?, session, above, revive: revive.is_some() })
    }

    /// The session's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join(&self.session)
    }

    /// Makes the directory, 0700, and goes there: a socket's path has room for 107 bytes only, so it is used by its bare name.
    pub(crate) fn enter(&self) -> Result<(), String> {
        let dir = self.dir();
        let make = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            // Whoever may write in what holds it could put another in its place.
            for dir in [&self.root, &dir] {
                let meta = std::fs::metadata(dir)?;
                if meta.uid() != nix::unistd::geteuid().as_raw() {
                    let text = format!("{} belongs to someone else", dir.display());
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
                }
                if meta.mode() & 0o077 != 0 {
                    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700))?;
                }
            }
            std::env::set_current_dir(&dir)
        };
        make().map_err(|e| format!("cannot use {}: {}", dir.display(), explain(&e)))
    }
}

/// Could it be a session's directory, `NAME-ID`?
pub(crate) fn is_session(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(plain)
}

/// What holds all sessions: as given, or `~/.vo-login`.
pub(crate) fn root(dir: Option<OsString>) -> Result<PathBuf, String> {
    match dir {
        Some(dir) => std::path::absolute(dir).map_err(|e| e.to_string()),
        None => match std::env::var_os("HOME") {
            Some(home) if Path::new(&home).is_absolute() => Ok(Path::new(&home).join(".vo-login")),
            _ => Err("HOME is not set; use --dir".to_owned()),
        },
    }
}

/// An error of a file system, with what to do about those that people meet.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => "the disk quota is used up: remove files there".to_owned(),
        io::ErrorKind::StorageFull => "no space is left: remove files there".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        _ => error.to_string(),
    }
}

/// Runs it.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let place = match Place::from_args(args) {
        Ok(place) => place,
        Err(why) => return usage(&why),
    };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(why) = place.enter() {
        return fail(EXIT_DIRECTORY, &why);
    }
    match reach(&place) {
        Ok(stream) => bridge(stream),
        Err((code, why)) => fail(code, &why),
    }
}

fn fail(code: u8, why: &str) -> ExitCode {
    eprintln!("vo-agent: {why}");
    ExitCode::from(code)
}

/// The running agent's stream, or a new agent's.
fn reach(place: &Place) -> Result<UnixStream, (u8, String)> {
    let directory = |e: io::Error| (EXIT_DIRECTORY, format!("cannot use {}: {}", place.dir().display(), explain(&e)));
    let here = Node::here().map_err(directory)?;
    let _lock = one_start(&here).map_err(directory)?;
    let ours = lease::holder(Path::new(".")).map_err(directory)?;
    if ours.is_some_and(|(epoch, node)| epoch >= place.above && node == here)
        && let Some(stream) = answering()
    {
        return Ok(stream);
    }
    let program = program().map_err(|e| (EXIT_AGENT, e.to_string()))?;
    let started =
        start(place, &program).and_then(|()| answering().ok_or("the agent was started but does not answer".to_owned()));
    started.map_err(|why| (EXIT_AGENT, why))
}

/// One at a time on this node, or two would each start an agent. Where there are no locks the newer one is left.
pub(crate) fn one_start(here: &Node) -> io::Result<Option<File>> {
    let name = format!("start.{}", here.host.replace('/', "_"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(name)?;
    match file.lock() {
        Ok(()) => Ok(Some(file)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The stream of an agent of this node that runs, and does not only exist.
pub(crate) fn answering() -> Option<UnixStream> {
    let stream = UnixStream::connect("agent.sock").ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let mut first = [0];
    (&stream).read_exact(&mut first).ok()?;
    stream.set_read_timeout(None).ok()?;
    (first == [AWAKE]).then_some(stream)
}

/// Starts an event agent in a session of its own, and waits until it says `ready` on its standard output.
pub(crate) fn start(place: &Place, program: &Path) -> Result<(), String> {
    let text = |e: io::Error| format!("cannot start the agent: {}", explain(&e));
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open("agent.log").map_err(text)?;
    let mut command = Command::new(program);
    command.arg0("vo-agent").args(["event", "--session", &place.session, "--dir"]).arg(&place.root);
    command.args(["--above", &place.above.to_string()]);
    if place.revive {
        command.args(["--revive", "yes"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    // SAFETY: setsid is async-signal-safe, and the closure touches nothing else.
    unsafe {
        command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
    }
    let mut child = command.spawn().map_err(text)?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut poll = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(READY).unwrap_or(PollTimeout::MAX);
        loop {
            match nix::poll::poll(&mut poll, limit) {
                Err(Errno::EINTR) => continue,
                Ok(1..) => break,
                Ok(_) => {
                    return Err(format!("the agent (process {}) is not ready after {READY:?}", child.id()));
                }
                Err(e) => return Err(e.to_string()),
            }
        }
        // It writes one line, then closes.
        stdout.take(4096).read_to_string(&mut said).map_err(text)?;
    }
    match said.trim() {
        "ready" => Ok(()),
        "" => Err(format!("the agent ended at once; {} may say why", place.dir().join("agent.log").display())),
        why => Err(why.to_owned()),
    }
}

/// This program. Asked by the name that it was started under: one binary may have several.
pub(crate) fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Copies both ways until the agent closes.
fn bridge(stream: UnixStream) -> ExitCode {
    let Ok(mut to_agent) = stream.try_clone() else {
        return fail(EXIT_AGENT, "no file descriptor is left");
    };
    std::thread::spawn(move || {
        // However it ends, the agent sees the end, and closes its half.
        let _ = io::copy(&mut io::stdin().lock(), &mut to_agent);
        let _ = to_agent.shutdown(std::net::Shutdown::Write);
    });
    let mut from_agent = stream;
    let mut stdout = File::from(match io::stdout().as_fd().try_clone_to_owned() {
        Ok(fd) => fd,
        Err(e) => return fail(EXIT_AGENT, &e.to_string()),
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from_agent.read(&mut buffer) {
        if buffer.get(..n).is_none_or(|bytes| stdout.write_all(bytes).is_err()) {
            break;
        }
    }
    ExitCode::SUCCESS
}
