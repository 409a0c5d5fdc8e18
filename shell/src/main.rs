//! `vo-login`: what a person touches. The client of a session, the grid shell that runs in it, and the grid commands, all in one
//! program that goes by the name under which it is called. Must not know how a site works.

/// As the standard library's, but standard error that can't be written to is no reason to panic.
macro_rules! eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

/// Tells what was done; see [`table::announce`].
macro_rules! println {
    ($($words:tt)*) => {
        $crate::table::announce(format_args!($($words)*))
    };
}

mod askpass;
mod attach;
mod cli;
mod client;
mod commands;
mod error;
mod gridshell;
mod keys;
mod script;
mod sessions;
mod signals;
mod start;
mod table;
mod terminal;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;

use error::{Error, ExitCode};

fn main() -> process::ExitCode {
    // What had changed the terminal puts it in order on the way here.
    std::panic::catch_unwind(run).unwrap_or(process::ExitCode::from(ExitCode::Internal as u8))
}

/// Does what the name says that the program was called by.
fn run() -> process::ExitCode {
    let words: Vec<OsString> = env::args_os().collect();
    let called = words.first();
    let name =
        called.map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if name == "vo-agent" {
        return vo_agent::main(words.into_iter());
    }
    let result = if askpass::called(called) {
        askpass::run(words.into_iter().nth(1)).map(ExitCode::number)
    } else if name == "vo" || commands::find(&name).is_some() || name.starts_with("condor_") {
        commands::run(&name, words.into_iter().skip(1).collect()).map(ExitCode::number)
    } else {
        let known: Vec<Option<&str>> = words.iter().skip(1).map(|word| word.to_str()).collect();
        // The first three are not for people, so not in the help.
        match (known.as_slice(), words.get(3)) {
            ([Some("master"), Some("--dir"), _], Some(dir)) => return master(Path::new(dir)),
            ([Some("shell")], _) => gridshell::run(),
            ([Some("completions"), Some(shell)], _) => completions(shell).map(|()| ExitCode::Success.number()),
            _ => cli::run(words.into_iter()),
        }
    };
    let code = result.unwrap_or_else(|error: Error| {
        eprintln!("{error}");
        error.code.number()
    });
    process::ExitCode::from(u8::try_from(code).unwrap_or(ExitCode::Internal as u8))
}

/// Becomes the master of the session in `dir`. Standard output is the pipe that waits for its readiness.
fn master(dir: &Path) -> process::ExitCode {
    let ready = || -> io::Result<OwnedFd> {
        let ready = nix::unistd::dup(io::stdout())?;
        nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        // Fails for the leader of a process group: a person who tries this by hand has a terminal to lose.
        nix::unistd::setsid()?;
        Ok(ready)
    };
    match ready() {
        Ok(ready) => vo_master::run(dir, ready),
        Err(e) => {
            eprintln!("cannot detach from the terminal: {e}");
            process::ExitCode::FAILURE
        }
    }
}

/// Writes a completion script for `shell` to standard output.
fn completions(shell: &str) -> error::Result<()> {
    let shell: clap_complete::Shell = shell.parse().map_err(Error::usage)?;
    clap_complete::generate(shell, &mut cli::definition(), "vo-login", &mut io::stdout());
    Ok(())
}
