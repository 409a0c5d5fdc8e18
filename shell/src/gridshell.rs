//! The grid shell: reads lines with editing, history and completion, and has them run by the user's own shell, in which grid commands
//! are programs and functions. `exit` is its own.

mod complete;
mod coshell;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use vo_wire::control::Question;

use crate::error::{Error, ExitCode, Result};
use crate::script::prelude;
use crate::sessions::{Session, State};
use crate::signals::Signals;
use crate::start;
use crate::terminal::{self, Reply};
use complete::Lines;
use coshell::{Coshell, Ran};

/// Lines of history that are kept.
const HISTORY: usize = 10_000;

/// What a line means to the grid shell.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Exit {
        force: bool,
    },
    /// A misuse of it.
    Wrong(&'static str),
    /// The user's shell knows.
    Run(&'a str),
}

fn meaning(line: &str) -> Line<'_> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["exit" | "logout"] => Line::Exit { force: false },
        ["exit" | "logout", "--force" | "-f" | "-force"] => Line::Exit { force: true },
        ["exit" | "logout", ..] if !line.contains([';', '|', '&', '<', '>']) => Line::Wrong("usage: exit [--force]"),
        _ => Line::Run(line),
    }
}

/// Runs in the terminal that the master made; the exit code of its process.
pub(crate) fn run() -> Result<i32> {
    let (Ok(name), Some(dir)) = (env::var("VO_SESSION"), env::var_os("VO_SESSION_DIR")) else {
        return Err(Error::usage("the grid shell runs in a session only").hint("`vo-login` starts one"));
    };
    let session = Session { name, dir: PathBuf::from(dir) };
    if !io::stdin().is_terminal() {
        return Err(Error::usage("the grid shell needs a terminal"));
    }
    let failed = |e: &dyn std::fmt::Display| Error::system("cannot read lines from the terminal", e);
    // SIGINT, so that a Ctrl-C meant for a program doesn't end us between two of them; SIGTSTP, since nobody could continue us.
    let signals = Signals::catch(&[Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTSTP]).map_err(|e| failed(&e))?;
    let prelude = prelude(&session)?;
    let mut shell = Coshell::start(&session, &prelude, &signals)?;
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(|e| failed(&e))?
        .history_ignore_space(true)
        .auto_add_history(true)
        .build();
    let mut editor: Editor<Lines, DefaultHistory> = Editor::with_config(config).map_err(|e| failed(&e))?;
    editor.set_helper(Some(Lines::new(session.clone(), shell.syntax())));

    let history = session.dir.join("shell/history");
    // There is none at first.
    let _ = editor.load_history(&history);
    let prompt = format!("{}(grid)% ", host());
    loop {
        fresh_line();
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => "exit".into(),
            // What was typed or pasted can't be shown, let alone edited.
            Err(ReadlineError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {
                eprintln!("\nThe line is not UTF-8.");
                continue;
            }
            Err(e) => return Err(failed(&e)),
        };
        // History is a convenience; a full disk is not its business.
        let _ = editor.append_history(&history);
        match meaning(&line) {
            Line::Run(line) if line.trim().is_empty() => {}
            // A shell ends by `exec`, by `set -e` and a failure, or killed: none of them means the session, which may hold weeks of work.
            Line::Run(line) => {
                if shell.has_ended() {
                    eprintln!("Your shell had ended; this line runs in a new one.");
                    shell = Coshell::start(&session, &prelude, &signals)?;
                }
                if !matches!(shell.run(line, &signals)?, Ran::Back) {
                    eprintln!(
                        "Your shell has ended; the next line runs in a new one. `exit` by itself ends the session."
                    );
                    shell = Coshell::start(&session, &prelude, &signals)?;
                }
            }
            Line::Exit { force } => {
                if leave(&session, force, &signals)? {
                    return Ok(ExitCode::Success.number());
                }
            }
            Line::Wrong(usage) => eprintln!("{usage}"),
        }
        while signals.next().is_some() {}
    }
}

/// Output that ends without a line feed stays to be seen: the line editor would draw the prompt over it. As many blanks as the window
/// has columns go on to the next line from anywhere but a line's beginning.
fn fresh_line() {
    let mut out = io::stdout();
    if env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return;
    }
    let (_, columns) = terminal::size(out.as_fd());
    // The prompt will fail as this does, and say so.
    let _ = write!(out, "{:1$}\r", "", usize::from(columns)).and_then(|()| out.flush());
}

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Ends the session, after asking if jobs are unfinished. False if it goes on.
fn leave(session: &Session, mut force: bool, signals: &Signals) -> Result<bool> {
    loop {
        let master = match session.state() {
            Ok(State::Running(master)) => master,
            // Nothing to end: the master was killed. What it did is kept.
            Ok(State::Stale | State::Absent) => return Ok(true),
            Err(error) => {
                eprintln!("{error}");
                return Ok(false);
            }
        };
        match start::ask_end(master, force) {
            Ok(_) => return Ok(true),
            Err(error) if error.code == ExitCode::Busy && !force => {
                let question = Question {
                    id: 0,
                    site: String::new(),
                    title: error.message().to_owned(),
                    text: "End the session nevertheless? (y/N)".into(),
                    echo: true,
                    confirm: false,
                };
                let Some(person) = terminal::person() else {
                    return Ok(false);
                };
                match terminal::ask(&person, signals, &question) {
                    Ok(Reply::Text(text)) if matches!(text.trim(), "y" | "Y" | "yes") => force = true,
                    _ => return Ok(false),
                }
            }
            Err(error) => {
                eprintln!("{error}");
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_is_ours_only_when_alone() {
        let check = |line: &str, expected: Line<'_>| assert_eq!(meaning(line), expected, "{line:?}");
        check("exit", Line::Exit { force: false });
        check(" logout ", Line::Exit { force: false });
        check("exit --force", Line::Exit { force: true });
        check("exit 3", Line::Wrong("usage: exit [--force]"));
        for line in ["", "exits", "(exit 3)", "exit || true", "exit; ls", "echo exit", "detach"] {
            check(line, Line::Run(line));
        }
    }
}
