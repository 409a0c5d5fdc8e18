//! Grid commands without a terminal: a script file, `-c`, standard input.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::commands;
use crate::error::{Error, Result};
use crate::sessions::Session;
use crate::signals::Signals;

/// What to run.
pub(crate) enum Source {
    /// A file, and its arguments.
    File(PathBuf, Vec<OsString>),
    /// The text after `-c`, and its arguments.
    Text(OsString, Vec<OsString>),
    /// Standard input.
    Input,
}

/// How it ended.
pub(crate) enum End {
    /// The exit code of the script: of its first failing command, or of its last.
    Code(i32),
    /// We were told to stop.
    Signal(Signal),
}

/// The functions and the PATH that make a shell a grid shell.
const PRELUDE: &str = include_str!("prelude.sh");

/// A text for shells, with the names of all grid commands where it says so.
pub(crate) fn with_commands(text: &str) -> String {
    let names: Vec<&str> = commands::ALL.iter().flat_map(|command| command.names.iter().copied()).collect();
    text.replace("GRID_COMMANDS", &names.join(" "))
}

/// Writes the prelude into the session; its path.
pub(crate) fn prelude(session: &Session) -> Result<PathBuf> {
    let path = session.dir.join("shell/prelude.sh");
    let text = with_commands(PRELUDE);
    if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(path);
    }
    let aside = session.dir.join(format!("shell/.prelude.{}", std::process::id()));
    fs::write(&aside, text)
        .and_then(|()| fs::rename(&aside, &path))
        .map_err(|e| Error::system(format!("cannot write {}", path.display()), e))?;
    Ok(path)
}

/// The first of these programs that is on PATH.
pub(crate) fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    names.iter().flat_map(|name| env::split_paths(&path).map(move |dir| dir.join(name))).find(|file| is_program(file))
}

/// Is it a file that may be executed?
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Runs a script by `bash -e`, or `sh -e` where there is no bash.
pub(crate) fn run(session: &Session, source: Source, signals: &Signals) -> Result<End> {
    let prelude = prelude(session)?;
    let shell = on_path(&["bash", "sh"])
        .ok_or_else(|| Error::system("cannot run a script", "there is neither bash nor sh on PATH"))?;
    let mut command = Command::new(&shell);
    command.env("VO_SESSION", &session.name).env("VO_SESSION_DIR", &session.dir).env("VO_BIN", session.bin()).arg("-e");
    if shell.ends_with("bash") {
        command.env("BASH_ENV", &prelude);
        match source {
            Source::File(path, arguments) => command.arg("--").arg(found(&path)?).args(arguments),
            Source::Text(text, arguments) => command.arg("-c").arg(text).arg("vo-login").args(arguments),
            Source::Input => command.arg("-s"),
        };
    } else {
        // Other shells read no file first; so the prelude and the script are both read by a line of ours.
        const START: &str = r#"vo__script=$1; shift; . "$VO_PRELUDE"; unset VO_PRELUDE; "#;
        command.env("VO_PRELUDE", &prelude).arg("-c");
        match source {
            Source::File(path, arguments) => {
                let path = found(&path)?;
                command.arg(format!("{START}. \"$vo__script\"")).arg(&path).arg(&path).args(arguments)
            }
            Source::Text(text, arguments) => {
                command.arg(format!("{START}eval \"$vo__script\"")).arg("vo-login").arg(text).args(arguments)
            }
            Source::Input => command.arg(format!("{START}. /dev/stdin")).arg("vo-login").arg(""),
        };
    }
    let mut child = command.spawn().map_err(|e| Error::system(format!("cannot run {}", shell.display()), e))?;
    attend(&mut child, signals).map_err(|e| Error::system("cannot wait for the script", e))
}

/// The absolute path of a script: a name without a slash would be looked for on PATH.
fn found(path: &Path) -> Result<PathBuf> {
    let unreadable = |e: io::Error| Error::usage(format!("cannot read {}", path.display())).because(e);
    match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(file) if file.is_dir() => Err(unreadable(io::ErrorKind::IsADirectory.into())),
        Ok(_) => std::path::absolute(path).map_err(unreadable),
        Err(e) => Err(unreadable(e)),
    }
}

/// Waits for the script, or for a signal to us; then the script has it, too.
fn attend(child: &mut Child, signals: &Signals) -> io::Result<End> {
    /// What a script has for its own traps, before it is ended.
    const GRACE: Duration = Duration::from_secs(2);
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let send = |signal| match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(io::Error::from(e)),
    };
    let mut told: Option<(Signal, Instant)> = None;
    loop {
        // SIGCHLD comes after this or wakes the poll below.
        if let Some(status) = child.try_wait()? {
            // One that both had may have ended the script before we looked.
            let signal = told.map(|(signal, _)| signal).or_else(|| signals.stop());
            return Ok(signal.map_or(End::Code(code(status)), End::Signal));
        }
        if let Some(signal) = signals.stop() {
            // Ctrl-C at a terminal reaches the script by itself; a second word ends it for sure.
            send(if told.is_some() { Signal::SIGKILL } else { signal })?;
            told = Some((signal, Instant::now() + GRACE));
        }
        let left = told.map(|(_, until)| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            send(Signal::SIGTERM)?;
        }
        let left = left.filter(|left| !left.is_zero());
        let left = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_signal_that_came_with_the_scripts_end_counts() {
        let signals = Signals::catch(&[Signal::SIGINT]).unwrap();
        let ended = || {
            let mut child = Command::new("/bin/sh").args(["-c", "exit 4"]).spawn().unwrap();
            child.wait().unwrap();
            child
        };
        assert!(matches!(attend(&mut ended(), &signals).unwrap(), End::Code(4)));
        nix::sys::signal::raise(Signal::SIGINT).unwrap();
        assert!(matches!(attend(&mut ended(), &signals).unwrap(), End::Signal(Signal::SIGINT)));
        assert!(matches!(attend(&mut ended(), &signals).unwrap(), End::Code(4)));
    }
}
