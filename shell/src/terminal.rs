//! The person's terminal: questions, raw mode, size.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use vo_wire::control::Question;

use crate::error::printable;
use crate::signals::Signals;

/// Longest answer; passwords and codes are shorter.
const LONGEST_ANSWER: usize = 4096;

/// The settings of a terminal, put back when dropped.
pub(crate) struct Settings<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Settings<'a> {
    /// Changes the terminal's settings.
    pub(crate) fn change(terminal: BorrowedFd<'a>, change: impl FnOnce(&mut Termios)) -> io::Result<Settings<'a>> {
        let before = tcgetattr(terminal)?;
        let mut settings = before.clone();
        change(&mut settings);
        tcsetattr(terminal, SetArg::TCSADRAIN, &settings)?;
        Ok(Settings { terminal, before })
    }

    /// Every byte as it is typed, nothing done by the terminal itself.
    pub(crate) fn raw(terminal: BorrowedFd<'a>) -> io::Result<Settings<'a>> {
        Self::change(terminal, cfmakeraw)
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Rows and columns; 24 by 80 if the terminal doesn't say.
pub(crate) fn size(terminal: BorrowedFd<'_>) -> (u16, u16) {
    use std::os::fd::AsRawFd;
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize to the pointer, which is valid for it.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_row > 0 && size.ws_col > 0 { (size.ws_row, size.ws_col) } else { (24, 80) }
}

/// The terminal to ask on, if a person sits at it.
pub(crate) fn person() -> Option<File> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An answer.
    Text(String),
    /// End of input: no answer.
    Nothing,
    /// A signal instead of an answer.
    Signal(Signal),
}

/// Asks on `terminal`. It has its settings back before this returns, whatever happens.
pub(crate) fn ask(terminal: &File, signals: &Signals, question: &Question) -> io::Result<Reply> {
    let mut out = terminal;
    if !question.title.is_empty() {
        writeln!(out, "{}", printable(&question.title))?;
    }
    let mut prompt = printable(&question.text);
    loop {
        let text = format!("{prompt}{}", if prompt.ends_with([' ', '\n']) { "" } else { " " });
        let reply = line(terminal, signals, &text, question.echo)?;
        match &reply {
            Reply::Text(text) if question.confirm => match text.trim().to_ascii_lowercase().as_str() {
                "yes" | "y" => return Ok(Reply::Text("yes".into())),
                "no" | "n" => return Ok(Reply::Text("no".into())),
                _ => prompt = "Please type yes or no: ".into(),
            },
            _ => return Ok(reply),
        }
    }
}

/// Prompts for a line and reads it; an unseen one ends with a line feed on the screen nevertheless. Nothing that is typed once the
/// prompt is there shows.
fn line(terminal: &File, signals: &Signals, prompt: &str, echo: bool) -> io::Result<Reply> {
    let _settings = Settings::change(terminal.as_fd(), |settings| {
        settings.local_flags.insert(LocalFlags::ICANON | LocalFlags::ISIG);
        settings.local_flags.set(LocalFlags::ECHO, echo);
        settings.local_flags.set(LocalFlags::ECHONL, !echo);
    })?;
    let mut out = terminal;
    write!(out, "{prompt}")?;
    let mut text = Vec::new();
    loop {
        if let Some(signal) = signals.stop() {
            writeln!(out)?;
            return Ok(Reply::Signal(signal));
        }
        let mut ready =
            [PollFd::new(terminal.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        if !ready.first().is_some_and(|fd| fd.any().unwrap_or(false)) {
            continue;
        }
        let mut bytes = [0; 1024];
        let count = match nix::unistd::read(terminal, &mut bytes) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        text.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if count == 0 && text.is_empty() {
            return Ok(Reply::Nothing);
        }
        if count == 0 || text.last() == Some(&b'\n') {
            let end = text.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(text.len());
            return Ok(Reply::Text(String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned()));
        }
        if text.len() > LONGEST_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}
