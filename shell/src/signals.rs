//! Signals as something to poll for. A handler writes the signal's number into a pipe: unlike blocked or ignored signals, handlers
//! are not inherited by the programs that we start.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{pipe2, read};

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(number: libc::c_int) {
    let byte = number.to_ne_bytes();
    let fd = PIPE.load(Ordering::Relaxed);
    // SAFETY: write is async-signal-safe, the buffer lives on this stack, errno is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(fd, byte.as_ptr().cast(), byte.len());
        *libc::__errno_location() = errno;
    }
}

/// The signals that were asked for, in the order in which they came. There is at most one in a process at a time.
pub(crate) struct Signals {
    reader: OwnedFd,
    _writer: OwnedFd,
    before: Vec<(Signal, SigAction)>,
}

impl Signals {
    /// Catches these signals until dropped.
    pub(crate) fn catch(signals: &[Signal]) -> io::Result<Signals> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        PIPE.store(writer.as_raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        let mut caught = Signals { reader, _writer: writer, before: Vec::new() };
        for &signal in signals {
            // SAFETY: the handler calls only async-signal-safe functions.
            let before = unsafe { sigaction(signal, &action) }?;
            caught.before.push((signal, before));
        }
        Ok(caught)
    }

    /// The next signal that came, if any.
    pub(crate) fn next(&self) -> Option<Signal> {
        let mut number = [0; 4];
        match read(&self.reader, &mut number) {
            Ok(4) => Signal::try_from(i32::from_ne_bytes(number)).ok(),
            _ => None,
        }
    }

    /// The next signal that asks us to stop, if any came: children and sizes are passed over.
    pub(crate) fn stop(&self) -> Option<Signal> {
        std::iter::from_fn(|| self.next())
            .find(|signal| !matches!(signal, Signal::SIGCHLD | Signal::SIGWINCH | Signal::SIGTSTP))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, action) in self.before.drain(..) {
            // SAFETY: the action was in force before.
            let _ = unsafe { sigaction(signal, &action) };
        }
    }
}
