//! The user's own shell, which runs the lines.
//!
//! It is interactive, so that aliases and job control work, but reads its commands from a pipe of ours; the lines themselves run with
//! the terminal as their input. For each line it is given the terminal's foreground, as a program would be, then runs the line, then
//! reports the exit status and its directory on another pipe. The report is a command of its own: it runs even if Ctrl-C ended the line.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, pthread_sigmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, pipe2, read, tcsetpgrp};

use crate::error::{Error, Result};
use crate::script::{is_program, on_path};
use crate::sessions::Session;
use crate::signals::Signals;

/// Families of shells, by how they are told things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bash,
    Zsh,
    /// dash and other plain ones.
    Posix,
}

/// How to check the syntax of a line.
#[derive(Clone, Debug)]
pub(super) struct Syntax {
    pub(super) program: PathBuf,
}

/// What came of a line.
pub(super) enum Ran {
    /// The shell waits for the next one.
    Back,
    /// The shell has ended.
    Ended,
}

/// The descriptor on which the shell reports: one digit, since some shells know no others, and a high one, since users' scripts take
/// the low ones.
const REPORT: i32 = 9;

/// What every shell reads last before its first line.
const RC: &str = r#"
. "$VO_PRELUDE"; unset VO_PRELUDE
PS1= PS2= PS4='+ '
vo__report() { set -- "$?"; printf '%s\0%s\0' "$1" "$PWD" >&9; return "$1"; }
"#;
const BASH: &str = r#"if [ -r ~/.bashrc ]; then . ~/.bashrc; fi
unset HISTFILE PROMPT_COMMAND PS0; set +o history -o monitor
"#;
const ZSH: &str = r#"if [ -n "$VO_ZDOTDIR" ]; then ZDOTDIR=$VO_ZDOTDIR; else unset ZDOTDIR; fi; unset VO_ZDOTDIR
if [ -r "${ZDOTDIR:-$HOME}/.zshenv" ]; then . "${ZDOTDIR:-$HOME}/.zshenv"; fi
if [ -r "${ZDOTDIR:-$HOME}/.zshrc" ]; then . "${ZDOTDIR:-$HOME}/.zshrc"; fi
unset HISTFILE RPS1; precmd_functions=() preexec_functions=(); unfunction precmd preexec 2>/dev/null
setopt monitor no_prompt_sp no_prompt_cr interactive_comments
"#;
const POSIX: &str = r#"if [ -n "$VO_ENV" ] && [ -r "$VO_ENV" ]; then . "$VO_ENV"; fi
unset ENV VO_ENV; set -m
"#;

/// The shell. Dropped, it gets SIGHUP, and its jobs from it.
pub(super) struct Coshell {
    child: Child,
    group: Pid,
    input: File,
    report: OwnedFd,
    program: PathBuf,
}

impl Coshell {
    /// Starts the user's shell and waits until it has read its files.
    pub(super) fn start(session: &Session, prelude: &Path, signals: &Signals) -> Result<Coshell> {
        let (program, kind) = choose()?;
        let failed = |e: &dyn std::fmt::Display| Error::system(format!("cannot start {}", program.display()), e);
        let (input_end, input) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(&e))?;
        let (report, report_end) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(&e))?;
        let mut command = Command::new(&program);
        command.env("VO_BIN", session.bin()).env("VO_PRELUDE", prelude).stdin(Stdio::from(input_end)).process_group(0);
        let shell_dir = session.dir.join("shell");
        prepare(&mut command, kind, &shell_dir).map_err(|e| failed(&e))?;
        let end = report_end.as_raw_fd();
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe { command.pre_exec(move || in_child(end)) };
        let child = command.spawn().map_err(|e| failed(&e))?;
        drop(report_end);
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(|e| failed(&e))?);
        let mut shell = Coshell { child, group, input: input.into(), report, program: program.clone() };
        match shell.command("vo__report\n", signals)? {
            Ran::Back => Ok(shell),
            Ran::Ended => Err(failed(&"it ended before its first line").hint("does one of its startup files end it?")),
        }
    }

    pub(super) fn syntax(&self) -> Syntax {
        Syntax { program: self.program.clone() }
    }

    /// Runs a line, which is whole. Our directory becomes the shell's.
    pub(super) fn run(&mut self, line: &str, signals: &Signals) -> Result<Ran> {
        self.command(&format!("eval {} </dev/tty {REPORT}>&-\nvo__report\n", quote(line)), signals)
    }

    fn command(&mut self, text: &str, signals: &Signals) -> Result<Ran> {
        let failed = |e: &dyn std::fmt::Display| Error::system("cannot hand a line to your shell", e);
        foreground(self.group).map_err(|e| failed(&e))?;
        let ran = match self.input.write_all(text.as_bytes()) {
            Ok(()) => self.wait(signals).map_err(|e| failed(&e)),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Ran::Ended),
            Err(e) => Err(failed(&e)),
        };
        foreground(getpgrp()).map_err(|e| failed(&e))?;
        ran
    }

    /// Until the shell has reported, or ended.
    fn wait(&mut self, signals: &Signals) -> io::Result<Ran> {
        let mut words = Vec::new();
        loop {
            while signals.next().is_some() {}
            // Only its end or stop count here: the status of lines comes by the report.
            match waitpid(self.group, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => return Ok(Ran::Ended),
                // `suspend`: there is nobody to whom the terminal could go.
                Ok(WaitStatus::Stopped(..)) => kill(self.group, Signal::SIGCONT)?,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let mut ready =
                [PollFd::new(self.report.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            if !ready.first().is_some_and(|fd| fd.any().unwrap_or(false)) {
                continue;
            }
            let mut bytes = [0; 4096];
            match read(&self.report, &mut bytes) {
                Ok(0) => {
                    self.child.wait()?;
                    return Ok(Ran::Ended);
                }
                Ok(count) => words.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let mut parts = words.split(|byte| *byte == 0);
            if let (Some(_status), Some(dir), Some(_)) = (parts.next(), parts.next(), parts.next()) {
                use std::os::unix::ffi::OsStrExt;
                // Completion looks from here; a directory that is gone is no reason to stop.
                let _ = env::set_current_dir(std::ffi::OsStr::from_bytes(dir));
                return Ok(Ran::Back);
            }
        }
    }
}

impl Drop for Coshell {
    fn drop(&mut self) {
        let _ = killpg(self.group, Signal::SIGHUP);
        let _ = killpg(self.group, Signal::SIGCONT);
        let _ = self.child.try_wait();
    }
}

/// `SHELL`, if it is of a kind that we can drive; else the next best.
fn choose() -> Result<(PathBuf, Kind)> {
    let wanted = env::var_os("SHELL").map(PathBuf::from).filter(|path| is_program(path));
    if let Some(program) = &wanted
        && let Some(kind) = kind(program)
    {
        return Ok((program.clone(), kind));
    }
    let program = on_path(&["bash", "sh"])
        .ok_or_else(|| Error::system("cannot start a shell", "there is neither bash nor sh on PATH"))?;
    if let Some(wanted) = wanted {
        eprintln!("Lines run in {}, as the grid shell can't drive {}.", program.display(), wanted.display());
    }
    let kind = kind(&program).unwrap_or(Kind::Posix);
    Ok((program, kind))
}

fn kind(program: &Path) -> Option<Kind> {
    match program.file_name()?.to_str()? {
        "bash" => Some(Kind::Bash),
        "zsh" => Some(Kind::Zsh),
        "sh" | "dash" | "ash" => Some(Kind::Posix),
        _ => None,
    }
}

/// Writes the file that the shell reads first and says so in its arguments and environment.
fn prepare(command: &mut Command, kind: Kind, dir: &Path) -> io::Result<()> {
    match kind {
        Kind::Bash => {
            let rc = place(dir, "bashrc", BASH)?;
            command.arg("--noediting").arg("--rcfile").arg(rc).arg("-i");
        }
        Kind::Zsh => {
            let own = dir.join("zsh");
            fs::create_dir_all(&own)?;
            place(&own, ".zshrc", ZSH)?;
            command
                .env("VO_ZDOTDIR", env::var_os("ZDOTDIR").unwrap_or_default())
                .env("ZDOTDIR", own)
                .arg("+Z")
                .arg("-i");
        }
        Kind::Posix => {
            let rc = place(dir, "shrc", POSIX)?;
            command.env("VO_ENV", env::var_os("ENV").unwrap_or_default()).env("ENV", rc).arg("-i");
        }
    }
    Ok(())
}

fn place(dir: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = dir.join(name);
    let aside = dir.join(format!("{name}.{}", std::process::id()));
    fs::write(&aside, format!("{text}{RC}"))?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

/// In the child: the report pipe takes its place, and the child's group the terminal, before the shell looks for it.
fn in_child(report: i32) -> io::Result<()> {
    // SAFETY: async-signal-safe; the descriptor is the parent's copy, open until exec.
    if unsafe { libc::dup2(report, REPORT) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if report == REPORT {
        // dup2 onto itself leaves it to be closed at exec.
        // SAFETY: async-signal-safe, on a descriptor of our own.
        unsafe { libc::fcntl(REPORT, libc::F_SETFD, 0) };
    }
    foreground(Pid::this())
}

/// Gives the terminal to a process group. Done from the background, this would stop us (SIGTTOU); blocked, it does not.
fn foreground(group: Pid) -> io::Result<()> {
    let mut block = SigSet::empty();
    block.add(Signal::SIGTTOU);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&block), Some(&mut before))?;
    let result = tcsetpgrp(io::stderr(), group);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    match result {
        // The group has ended; whoever finds out acts on that.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// `text` as one word of any shell.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Syntax {
    /// Does the line stop in the middle of something: a quotation, a loop, a here-document?
    pub(super) fn is_incomplete(&self, line: &str) -> bool {
        let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            return true;
        }
        let checked =
            Command::new(&self.program).arg("-n").arg("-c").arg(line).env("LC_ALL", "C").stdin(Stdio::null()).output();
        let Ok(checked) = checked else { return false };
        let words = String::from_utf8_lossy(&checked.stderr);
        [
            "unexpected end of file",
            "unexpected EOF",
            "delimited by end-of-file",
            "end of file unexpected",
            "Unterminated quoted string",
            "unmatched ",
            "parse error near `\\n'",
        ]
        .iter()
        .any(|sign| words.contains(sign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_one_word_as_it_was() {
        for text in ["", "a b", "it's", "''", "a\nb", "$HOME `x` \\ \"", "é*"] {
            let shown = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output();
            assert_eq!(shown.ok().map(|out| out.stdout), Some(text.as_bytes().to_vec()), "{text:?}");
        }
    }

    #[test]
    fn unfinished_lines_are_told_from_wrong_ones() {
        let check = |program: &str, line: &str, expected: bool| {
            let syntax = Syntax { program: program.into() };
            assert_eq!(syntax.is_incomplete(line), expected, "{program}: {line:?}");
        };
        for shell in ["bash", "dash"] {
            for whole in ["", "ls", "ls)", "fi", "echo 'a\\'", "echo a\\\\", "for i in 1; do :; done", "# it's"] {
                check(shell, whole, false);
            }
            for part in [
                "echo 'a",
                "echo \"a",
                "echo a\\",
                "for i in 1; do",
                "if true; then",
                "{ ls",
                "(ls",
                "echo $(ls",
                "ls |",
            ] {
                check(shell, part, true);
            }
        }
        check("bash", "cat <<END\na", true);
        check("bash", "cat <<END\na\nEND", false);
    }
}
