//! One request to the master over the session's socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vo_master::session::SocketPath;
use vo_wire::control::{Done, Failed, Fault, Hello, Welcome};
use vo_wire::frame::{FrameReader, Message, write_message};
use vo_wire::{Frame, PROTOCOL};

use crate::error::{Error, ExitCode, Result};

/// A connection to a session's master. It carries one request at a time.
pub(crate) struct Master {
    stream: UnixStream,
    reader: FrameReader,
    /// What the master said of itself.
    pub(crate) welcome: Welcome,
}

/// How long a master may be silent before a person is told that it is waited for.
const SILENT: Duration = Duration::from_secs(5);

/// How long a killed process may take to close its files.
const CLOSING: Duration = Duration::from_secs(2);

/// Does the socket have no listener any more, or soon?
fn closes(path: &Path) -> bool {
    let until = Instant::now() + CLOSING;
    while UnixStream::connect(path).is_ok() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

impl Master {
    /// Connects to the master of the session in `dir`; none if no master listens there. With a limit, no answer may take longer.
    pub(crate) fn connect(dir: &Path, limit: Option<Duration>) -> Result<Option<Master>> {
        let path = match SocketPath::new(dir) {
            Ok(path) => path,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::system(format!("cannot open {}", dir.display()), e)),
        };
        let stream = match UnixStream::connect(path.path()) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(e) => {
                return Err(Error::system(format!("cannot reach the session in {}", dir.display()), e));
            }
        };
        stream.set_read_timeout(limit).map_err(gone)?;
        let mut master = Master {
            stream,
            reader: FrameReader::new(),
            welcome: Welcome { protocol: 0, session: String::new(), pid: 0, started_ms: 0 },
        };
        let called = Instant::now();
        let greeting = master.send(&Hello { protocol: PROTOCOL }).and_then(|()| {
            if limit.is_none() {
                if let Some(frame) = master.frame_before(Some(called + SILENT))? {
                    return Ok(frame);
                }
                let name = dir.file_name().unwrap_or_default().display();
                eprintln!(
                    "Session {name} doesn't answer yet. Its master may be stopped, or wait for a disk; Ctrl-C gives it up."
                );
            }
            master.frame()
        });
        let frame = match greeting {
            Ok(frame) => frame,
            // A master that was just killed may have taken the call before the system closed its socket.
            Err(_) if limit.is_none_or(|limit| called.elapsed() < limit) && closes(path.path()) => return Ok(None),
            Err(error) => return Err(error),
        };
        master.welcome = read(&frame)?;
        if !vo_wire::compatible(PROTOCOL, master.welcome.protocol) {
            let message = format!(
                "session {} is run by another version of vo-login (protocol {:#x}, ours is {PROTOCOL:#x})",
                master.welcome.session, master.welcome.protocol
            );
            return Err(
                Error::new(ExitCode::Failure, message).hint("use the version that started it, or end it with that")
            );
        }
        Ok(Some(master))
    }

    /// Sends a message.
    pub(crate) fn send<M: Message>(&mut self, message: &M) -> Result<()> {
        let mut bytes = Vec::new();
        write_message(0, message, &mut bytes);
        self.stream.write_all(&bytes).map_err(gone)
    }

    /// The next frame, waiting for it. A [`Failed`] becomes an error.
    pub(crate) fn frame(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    /// The next frame, waiting for it no longer than until `deadline`; none if that passed.
    pub(crate) fn frame_before(&mut self, deadline: Option<Instant>) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, or the last millisecond would be spent spinning.
                let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
                let ready = poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], left);
                if Instant::now() >= deadline && ready != Ok(1) {
                    return Ok(None);
                }
                if ready != Ok(1) {
                    continue;
                }
            }
            self.fill()?;
        }
    }

    /// The next frame among the bytes read so far. A [`Failed`] becomes an error.
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>> {
        match self.reader.next_frame().map_err(garbled)? {
            Some(frame) if frame.kind == Failed::KIND => Err(refusal(read(&frame)?)),
            other => Ok(other),
        }
    }

    /// Reads what is there, waiting for at least a byte.
    pub(crate) fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 64 << 10];
        let count = loop {
            match self.stream.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(gone)?,
            }
        };
        if count == 0 {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        self.reader.buffer().extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
    }

    /// Sends a request that one message answers.
    pub(crate) fn ask<Q: Message, A: Message>(&mut self, request: &Q) -> Result<A> {
        let mut answer = None;
        self.pages(request, |a: A| {
            answer = Some(a);
            Ok(())
        })?;
        answer.ok_or_else(|| garbled("no answer"))
    }

    /// Sends a request and gives each message of its answer to `each`, until the master is done.
    pub(crate) fn pages<Q: Message, A: Message>(
        &mut self,
        request: &Q,
        mut each: impl FnMut(A) -> Result<()>,
    ) -> Result<()> {
        self.send(request)?;
        loop {
            let frame = self.frame()?;
            if frame.kind == Done::KIND {
                return Ok(());
            }
            if frame.kind == A::KIND {
                each(read(&frame)?)?;
            }
        }
    }
}

impl AsFd for Master {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The message in `frame`.
pub(crate) fn read<M: Message>(frame: &Frame) -> Result<M> {
    frame.read().map_err(garbled)
}

fn gone(e: io::Error) -> Error {
    Error::new(ExitCode::NoSession, "the session has ended, or its master was killed")
        .because(e)
        .hint("`vo-login -l` lists sessions; `vo-login -r NAME` brings one back")
}

fn garbled(e: impl std::fmt::Display) -> Error {
    Error::new(ExitCode::Internal, "the master said something unintelligible").because(e)
}

fn refusal(failed: Failed) -> Error {
    let code = match failed.fault {
        Fault::Usage => ExitCode::Usage,
        Fault::Refused => ExitCode::Refused,
        Fault::System => ExitCode::Failure,
        Fault::Unfinished => ExitCode::Busy,
        Fault::Ending => ExitCode::NoSession,
        Fault::Login => ExitCode::Authentication,
        Fault::Unreachable => ExitCode::Unreachable,
    };
    let error = Error::new(code, failed.message);
    match failed.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
