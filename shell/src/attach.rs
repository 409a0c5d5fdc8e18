//! The person's terminal, joined to the grid shell's.

use std::env;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use nix::unistd::{read as read_fd, ttyname};
use vo_lang::conf::parse_detach_keys;
use vo_master::screen::Modes;
use vo_master::session::SessionFile;
use vo_wire::control::{Attach, EnvEntry, Place, TtyClosed, TtyData, TtyResize};
use vo_wire::frame::Message;

use crate::client::{Master, read};
use crate::error::{Error, ExitCode, Result, printable};
use crate::keys::{Keys, Typed};
use crate::sessions::Session;
use crate::signals::Signals;
use crate::terminal::{self, Settings};

/// Why an attachment ended.
enum End {
    /// The grid shell's terminal was closed, or is another's now.
    Closed(TtyClosed),
    /// The keys for it were typed.
    Keys,
    /// The master has gone.
    Gone(Error),
    /// Our own terminal has gone.
    Hangup,
    Signal(Signal),
}

/// The terminal that we run at, if there is one.
pub(crate) fn place() -> Option<Place> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    // Lines of the grid shell read from `/dev/tty`, which is any terminal.
    let named = |fd: BorrowedFd<'_>| {
        let name = ttyname(fd).ok().filter(|name| name != Path::new("/dev/tty"))?;
        Some((name, fstat(fd).ok()?.st_rdev))
    };
    let (name, device) = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().find_map(named)?;
    let name = name.strip_prefix("/dev").unwrap_or(&name).display().to_string();
    let far = env::var("SSH_CONNECTION").ok().and_then(|text| text.split(' ').next().map(str::to_owned));
    let name = match far.filter(|host| !host.is_empty()) {
        Some(host) => format!("{name} (SSH from {host})"),
        None => name,
    };
    Some(Place { name, device })
}

/// What a request to attach from this terminal says.
fn request() -> Attach {
    let (rows, cols) = terminal::size(io::stdin().as_fd());
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut bytes = name.into_vec();
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        EnvEntry(bytes)
    };
    let here = env::current_dir().unwrap_or_else(|_| "/".into());
    Attach {
        rows,
        cols,
        environment: env::vars_os().map(entry).collect(),
        directory: here.into_os_string().into_vec(),
        from: place(),
    }
}

/// The keys that detach, if this terminal's environment says.
pub(crate) fn own_keys() -> Result<Option<Vec<u8>>> {
    const VARIABLE: &str = "VO_DETACH_KEYS";
    let Some(text) = env::var_os(VARIABLE) else { return Ok(None) };
    let text = text.to_string_lossy();
    let wrong = |expected| Error::usage(format!("{VARIABLE} is {text:?}; expected {expected}"));
    parse_detach_keys(&text).map(Some).map_err(wrong)
}

/// The keys that detach: this terminal's own, else those of the session's configuration.
fn detach_keys(session: &Session) -> Result<Vec<u8>> {
    if let Some(keys) = own_keys()? {
        return Ok(keys);
    }
    let conf = SessionFile::read(&session.dir).ok().and_then(|file| file.read_conf().ok());
    Ok(conf.unwrap_or_default().session.detach_keys)
}

/// Attaches this terminal to the session's grid shell until one of them ends; the process's exit code.
pub(crate) fn run(session: &Session, mut master: Master, signals: &Signals) -> Result<i32> {
    let mut keys = Keys::new(detach_keys(session)?);
    let stdin = io::stdin();
    let mut modes = Modes::default();
    let end = {
        let _raw = Settings::raw(stdin.as_fd()).map_err(|e| Error::system("cannot use this terminal", e))?;
        let end = join(&mut master, signals, &mut keys, &mut modes).unwrap_or_else(End::Gone);
        // Whatever the programs there switched on, and however this ended. A terminal that is gone needs none of it.
        let mut screen = io::stdout().lock();
        let _ = screen.write_all(&modes.undo()).and_then(|()| screen.flush());
        end
    };
    let name = &session.name;
    let detached = |why: &str| {
        let why = if why.is_empty() { String::new() } else { format!(": {}", printable(why)) };
        eprintln!("\nDetached{why}. Session {name} runs on; `vo-login -r {name}` comes back to it.");
    };
    match end {
        End::Closed(TtyClosed { code: Some(code), why }) => {
            if SessionFile::path(&session.dir).exists()
                && matches!(session.state(), Ok(crate::sessions::State::Running(_)))
            {
                eprintln!(
                    "The grid shell ended ({}); session {name} runs on. `vo-login -r {name}` comes back to it.",
                    printable(&why)
                );
            }
            Ok(code)
        }
        End::Closed(TtyClosed { code: None, why }) => {
            detached(&why);
            Ok(ExitCode::Success.number())
        }
        End::Keys => {
            detached("");
            Ok(ExitCode::Success.number())
        }
        // A master that ended the session may be gone before it could say so.
        End::Gone(_) if !SessionFile::path(&session.dir).exists() => Ok(ExitCode::Success.number()),
        End::Gone(error) => {
            eprintln!();
            Err(error)
        }
        End::Hangup => Ok(128 + Signal::SIGHUP as i32),
        End::Signal(signal) => {
            detached("");
            Ok(128 + signal as i32)
        }
    }
}

fn join(master: &mut Master, signals: &Signals, keys: &mut Keys, modes: &mut Modes) -> Result<End> {
    let stdin = io::stdin();
    let mut screen = io::stdout().lock();
    let lost = |e: Errno| Error::system("cannot wait for the terminal", e);
    master.send(&request())?;
    loop {
        while let Some(frame) = master.buffered()? {
            if frame.kind == TtyData::KIND {
                let TtyData { data } = read(&frame)?;
                modes.follow(&data);
                if screen.write_all(&data).and_then(|()| screen.flush()).is_err() {
                    return Ok(End::Hangup);
                }
            }
            if frame.kind == TtyClosed::KIND {
                return Ok(End::Closed(read(&frame)?));
            }
        }
        while let Some(signal) = signals.next() {
            if signal == Signal::SIGCHLD {
                continue;
            }
            if signal != Signal::SIGWINCH {
                return Ok(End::Signal(signal));
            }
            let (rows, cols) = terminal::size(stdin.as_fd());
            master.send(&TtyResize { rows, cols })?;
        }
        let mut ready = [
            PollFd::new(master.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        ];
        let left = keys.deadline().map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut ready, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(lost(e)),
        }
        let [from_master, _, typed] = ready.map(|fd| fd.any().unwrap_or(false));
        let mut data = keys.overdue(Instant::now());
        let mut detach = false;
        if typed {
            let mut bytes = [0; 16 << 10];
            match read_fd(stdin.as_fd(), &mut bytes) {
                Ok(0) | Err(Errno::EIO) => return Ok(End::Hangup),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return Err(lost(e)),
                Ok(count) => {
                    let Typed { keys: typed, detach: asked } =
                        keys.typed(bytes.get(..count).unwrap_or_default(), Instant::now());
                    data.extend(typed);
                    detach = asked;
                }
            }
        }
        if !data.is_empty() {
            master.send(&TtyData { data })?;
        }
        if detach {
            return Ok(End::Keys);
        }
        if from_master {
            master.fill()?;
        }
    }
}
