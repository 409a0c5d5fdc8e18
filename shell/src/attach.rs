//! The person's terminal, joined to the grid shell's.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::read as read_fd;
use vo_master::session::SessionFile;
use vo_wire::control::{Attach, EnvEntry, TtyClosed, TtyData, TtyResize};
use vo_wire::frame::Message;

use crate::client::{Master, read};
use crate::error::{Error, ExitCode, Result, printable};
use crate::sessions::Session;
use crate::signals::Signals;
use crate::terminal::{self, Settings};

/// To what one attaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// To a grid shell that doesn't run yet.
    First,
    /// To one that may have something on its screen.
    Again,
}

/// Why an attachment ended.
enum End {
    /// The grid shell's terminal was closed, or is another's now.
    Closed(TtyClosed),
    /// The master has gone.
    Gone(Error),
    /// Our own terminal has gone.
    Hangup,
    Signal(Signal),
}

/// What a request to attach from this terminal says.
pub(crate) fn request() -> Attach {
    let (rows, cols) = terminal::size(io::stdin().as_fd());
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut bytes = name.into_vec();
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        EnvEntry(bytes)
    };
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    Attach {
        rows,
        cols,
        environment: std::env::vars_os().map(entry).collect(),
        directory: here.into_os_string().into_vec(),
    }
}

/// Attaches this terminal to the session's grid shell until one of them ends; the process's exit code.
pub(crate) fn run(session: &Session, mut master: Master, signals: &Signals, joined: Joined) -> Result<i32> {
    let stdin = io::stdin();
    let end = {
        let _raw = Settings::raw(stdin.as_fd()).map_err(|e| Error::system("cannot use this terminal", e))?;
        match join(&mut master, signals, joined, &session.prompt_mark()) {
            Ok(end) => end,
            Err(e) => End::Gone(e),
        }
    };
    let name = &session.name;
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
        End::Closed(TtyClosed { code: None, .. }) => {
            eprintln!("\nDetached. Session {name} runs on; `vo-login -r {name}` comes back to it.");
            Ok(ExitCode::Success.number())
        }
        // A master that ended the session may be gone before it could say so.
        End::Gone(_) if !SessionFile::path(&session.dir).exists() => Ok(ExitCode::Success.number()),
        End::Gone(error) => Err(error),
        End::Hangup => Ok(128 + Signal::SIGHUP as i32),
        End::Signal(signal) => Ok(128 + signal as i32),
    }
}

fn join(master: &mut Master, signals: &Signals, joined: Joined, prompt_mark: &Path) -> Result<End> {
    let stdin = io::stdin();
    let mut screen = io::stdout().lock();
    let lost = |e: Errno| Error::system("cannot wait for the terminal", e);
    let mut request = request();
    let (rows, cols) = (request.rows, request.cols);
    if joined == Joined::Again {
        // Programs that use the whole screen draw it anew when its size changes.
        request.cols = cols.saturating_sub(1).max(1);
    }
    master.send(&request)?;
    if joined == Joined::Again {
        master.send(&TtyResize { rows, cols })?;
        if prompt_mark.exists() {
            // The line editor needs a key for it.
            const CTRL_L: u8 = 0x0c;
            master.send(&TtyData { data: vec![CTRL_L] })?;
        }
    }
    loop {
        while let Some(frame) = master.buffered()? {
            if frame.kind == TtyData::KIND {
                let TtyData { data } = read(&frame)?;
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
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(lost(e)),
        }
        let [from_master, _, typed] = ready.map(|fd| fd.any().unwrap_or(false));
        if typed {
            let mut keys = vec![0; 16 << 10];
            match read_fd(stdin.as_fd(), &mut keys) {
                Ok(0) | Err(Errno::EIO) => return Ok(End::Hangup),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return Err(lost(e)),
                Ok(count) => {
                    keys.truncate(count);
                    master.send(&TtyData { data: keys })?;
                }
            }
        }
        if from_master {
            master.fill()?;
        }
    }
}
