//! `login`: has sites connected now, and answers what they ask.

use std::fs::File;
use std::os::fd::AsFd;

use clap::Parser;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use vo_wire::control::{self as ctl, Answer, Done, Question, SiteEvent, SiteState};
use vo_wire::frame::Message;

use super::{Asking, pool};
use crate::client::{Master, read};
use crate::error::{Error, ExitCode, Result, printable};
use crate::signals::Signals;
use crate::terminal::{self, Reply};

/// Connects to sites now, and asks what their logins need
#[derive(Parser, Debug)]
pub(crate) struct Login {
    #[command(flatten)]
    asking: Asking,
    /// Sites to log in at [default: those that need a login]
    #[arg(value_name = "SITE")]
    names: Vec<String>,
}

pub(super) fn run(arguments: Login) -> Result<ExitCode> {
    let Login { asking, mut names } = arguments;
    let mut master = asking.connect()?;
    let rows = pool::site_rows(&mut master)?;
    pool::known(&names, &rows)?;
    if names.is_empty() {
        names.extend(rows.into_iter().filter(|row| row.state == SiteState::NeedsLogin).map(|row| row.name));
        if names.is_empty() {
            eprintln!("No site needs a login.");
        }
    }
    let signals = Signals::catch(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
        .map_err(|e| Error::system("cannot catch signals", e))?;
    let person = terminal::person();
    let mut worst = ExitCode::Success;
    for name in names {
        match log_in(&mut master, &name, person.as_ref(), &signals) {
            Ok(None) => eprintln!("{}: up", printable(&name)),
            Ok(Some(_)) => return Ok(ExitCode::Interrupted),
            // The next one has nothing to do with this one.
            Err(error) if matches!(error.code, ExitCode::Authentication | ExitCode::Unreachable) => {
                eprintln!("{error}");
                worst = error.code;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(worst)
}

/// Until the site is up; the signal, if one came.
fn log_in(master: &mut Master, site: &str, person: Option<&File>, signals: &Signals) -> Result<Option<Signal>> {
    master.send(&ctl::Login { site: site.to_owned(), interactive: person.is_some() })?;
    loop {
        while let Some(frame) = master.buffered()? {
            if frame.kind == Done::KIND {
                return Ok(None);
            }
            if frame.kind == SiteEvent::KIND
                && let SiteEvent::Note { site, message, hint } = read(&frame)?
            {
                eprintln!("{}", printable(&format!("{site}: {message}")));
                hint.into_iter().for_each(|hint| eprintln!("hint: {}", printable(&hint)));
            }
            if frame.kind == Question::KIND {
                let question: Question = read(&frame)?;
                let reply = match person {
                    Some(person) => terminal::ask(person, signals, &question)
                        .map_err(|e| Error::system("cannot ask on the terminal", e))?,
                    None => Reply::Nothing,
                };
                let text = match reply {
                    Reply::Text(text) => Some(text),
                    // The site keeps what it has: only this login is given up.
                    Reply::Signal(Signal::SIGINT) | Reply::Nothing => None,
                    Reply::Signal(signal) => return Ok(Some(signal)),
                };
                master.send(&Answer { id: question.id, text })?;
            }
        }
        if let Some(signal) = signals.stop() {
            return Ok(Some(signal));
        }
        let mut ready =
            [PollFd::new(master.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::system("cannot wait for the site", e)),
        }
        if ready.first().is_some_and(|fd| fd.any().unwrap_or(false)) {
            master.fill()?;
        }
    }
}
