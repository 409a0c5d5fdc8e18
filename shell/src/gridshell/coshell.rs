//! The user's own shell, which runs the lines.
//!
//! It is interactive, so that aliases and job control work, but reads its commands from a pipe of ours; the lines themselves run with
//! the terminal as their input. For each line it is given the terminal's foreground, as a program would be, then runs the line, then
//! reports the exit status and its directory on another pipe. The report is a command of its own: it runs even if Ctrl-C ended the line.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, pthread_sigmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, pipe2, read, tcsetpgrp};

use crate::error::{Error, Result};
use crate::script::{is_program, on_path, with_commands};
use crate::sessions::Session;
use crate::signals::Signals;
use crate::terminal::Settings;

/// Families of shells, by how they are told things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bash,
    Zsh,
    Fish,
    /// dash and other plain ones.
    Posix,
}

/// How to check the syntax of a line.
#[derive(Clone, Debug)]
pub(super) struct Syntax {
    program: PathBuf,
    kind: Kind,
}

/// What came of a line.
pub(super) enum Ran {
    /// The shell waits for the next one.
    Back,
    /// The shell has ended, or never read what we need it to know.
    Ended,
    /// It is another one now.
    Became(PathBuf, Kind),
}

/// The descriptor on which the shell reports: one digit, since some shells know no others, and a high one, since users' scripts take
/// the low ones.
const REPORT: i32 = 9;

/// What every shell but fish reads last before its first line. A limit of idle time is for prompts of the shell's own, and
/// what it has to say of jobs waits for a line: the prompt is not its own.
const RC: &str = r#"
. "$VO_PRELUDE"; unset VO_PRELUDE
PS1= PS2= PS4='+ '; unset TMOUT 2>/dev/null
vo__report() { set -- "$?"; printf '%s\0%s\0' "$1" "$PWD" >&9; return "$1"; }
"#;
const BASH: &str = r#"if [ -r ~/.bashrc ]; then . ~/.bashrc; fi
unset HISTFILE PROMPT_COMMAND PS0; trap - DEBUG; set +o history +o vi +o emacs +o notify -o monitor
"#;
const ZSH: &str = r#"if [ -n "$VO_ZDOTDIR" ]; then ZDOTDIR=$VO_ZDOTDIR; else unset ZDOTDIR; fi; unset VO_ZDOTDIR
if [ -r "${ZDOTDIR:-$HOME}/.zshenv" ]; then . "${ZDOTDIR:-$HOME}/.zshenv"; fi
if [ -r "${ZDOTDIR:-$HOME}/.zshrc" ]; then . "${ZDOTDIR:-$HOME}/.zshrc"; fi
unset HISTFILE RPS1; precmd_functions=() preexec_functions=(); unfunction precmd preexec 2>/dev/null
setopt monitor no_notify no_prompt_sp no_prompt_cr interactive_comments
"#;
const POSIX: &str = r#"if [ -n "$VO_ENV" ] && [ -r "$VO_ENV" ]; then . "$VO_ENV"; fi
unset ENV VO_ENV; set -m
"#;

/// fish reads its own files first, then this.
const FISH: &str = include_str!("coshell.fish");
const FISH_LINES: &str = include_str!("coshell-lines.fish");
/// The descriptor on which fish reads lines: on a standard input that is no terminal it would wait for the end of all.
const LINES: i32 = 8;
/// How often Ctrl-C may end a loop of fish's own commands: it ends what fish reads lines with, too, and the next one takes over.
const FISH_LOOPS: usize = 100;

/// The shell. Dropped, it gets SIGHUP, and its jobs from it.
pub(super) struct Coshell {
    child: Child,
    group: Pid,
    input: File,
    report: OwnedFd,
    syntax: Syntax,
}

impl Coshell {
    /// Starts the user's shell and waits until it has read its files.
    pub(super) fn start(session: &Session, prelude: &Path, signals: &Signals) -> Result<Coshell> {
        let (mut program, mut kind) = choose()?;
        // A startup file may `exec` another shell, as those write who can't change theirs otherwise: then that one is the user's.
        const MOST_SHELLS: usize = 4;
        for _ in 0..MOST_SHELLS {
            let failed = |e: &dyn std::fmt::Display| Error::system(format!("cannot start {}", program.display()), e);
            let mut shell = Self::spawn(&program, kind, session, prelude).map_err(|e| failed(&e))?;
            // The shell knows the word only if it has read what we gave it to read.
            let first = match kind {
                Kind::Fish => "true\0".to_owned(),
                Kind::Bash | Kind::Zsh | Kind::Posix => {
                    format!("command -v vo__report >/dev/null && vo__report || printf '\\0\\0' >&{REPORT}\n")
                }
            };
            match shell.command(&[&first], signals, true)? {
                Ran::Back => return Ok(shell),
                Ran::Became(other, its_kind) => (program, kind) = (other, its_kind),
                Ran::Ended => {
                    let error = failed(&"it ended before its first line");
                    return Err(error.hint("does one of its startup files end it, or stop at an error?"));
                }
            }
        }
        Err(Error::system("cannot start your shell", "its startup files start one shell after the other"))
    }

    fn spawn(program: &Path, kind: Kind, session: &Session, prelude: &Path) -> io::Result<Coshell> {
        let (input_end, input) = pipe2(OFlag::O_CLOEXEC)?;
        let (report, report_end) = pipe2(OFlag::O_CLOEXEC)?;
        let mut command = Command::new(program);
        command.env("VO_BIN", session.bin()).env("VO_PRELUDE", prelude).process_group(0);
        prepare(&mut command, kind, &session.dir.join("shell"))?;
        let (input_end, report_end) = (high(input_end)?, high(report_end)?);
        let (lines, end) = (input_end.as_raw_fd(), report_end.as_raw_fd());
        let lines_place = if kind == Kind::Fish { LINES } else { libc::STDIN_FILENO };
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe { command.pre_exec(move || in_child([(end, REPORT), (lines, lines_place)])) };
        let child = command.spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let syntax = Syntax { program: program.to_owned(), kind };
        Ok(Coshell { child, group, input: input.into(), report, syntax })
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn syntax(&self) -> Syntax {
        self.syntax.clone()
    }

    /// Runs a line, which is whole. Our directory becomes the shell's.
    pub(super) fn run(&mut self, line: &str, signals: &Signals) -> Result<Ran> {
        let eval = match self.syntax.kind {
            Kind::Zsh if is_pipe_of_commands(line) => format!("</dev/tty {}\n", line.trim()),
            _ => format!("eval {} </dev/tty {REPORT}>&-\n", quote(line)),
        };
        match self.syntax.kind {
            Kind::Fish => {
                // It leaves the terminal as its own line editor wants it.
                let stderr = io::stderr();
                let _settings = Settings::change(stderr.as_fd(), |_| ());
                self.command(&[&format!("{}\0", ours_in_fish(line))], signals, false)
            }
            Kind::Bash | Kind::Zsh | Kind::Posix => self.command(&[&eval, "vo__report\n"], signals, false),
        }
    }

    /// Hands the shell `texts`, each once it has taken the one before: with an error or Ctrl-C it forgets all that it has read.
    fn command(&mut self, texts: &[&str], signals: &Signals, first: bool) -> Result<Ran> {
        let failed = |e: &dyn std::fmt::Display| Error::system("cannot hand a line to your shell", e);
        foreground(self.group).map_err(|e| failed(&e))?;
        let mut ran = match texts.iter().try_for_each(|text| self.hand(text)) {
            Ok(()) => self.wait(signals, first).map_err(|e| failed(&e)),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Ran::Ended),
            Err(e) => Err(failed(&e)),
        };
        // zsh takes the terminal's foreground back after its report, right before it reads a line. A blank shows when it has begun to.
        if let (Kind::Zsh, Ok(Ran::Back)) = (self.syntax.kind, &ran)
            && self.hand(" ").and_then(|()| self.hand("")).is_err()
        {
            ran = Ok(Ran::Ended);
        }
        foreground(getpgrp()).map_err(|e| failed(&e))?;
        ran
    }

    /// Gives the shell `text`, once it has taken what it was given before.
    fn hand(&mut self, text: &str) -> io::Result<()> {
        /// A shell that waits for a line takes it in microseconds.
        const LOOK: Duration = Duration::from_micros(100);
        loop {
            let mut waiting: libc::c_int = 0;
            // SAFETY: FIONREAD writes an int to the pointer, which is valid for it.
            Errno::result(unsafe { libc::ioctl(self.input.as_raw_fd(), libc::FIONREAD, &raw mut waiting) })?;
            if waiting == 0 {
                return self.input.write_all(text.as_bytes());
            }
            if self.has_ended() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            thread::sleep(LOOK);
        }
    }

    /// Until the shell has reported, or ended, or is another one behind its `first` line.
    fn wait(&mut self, signals: &Signals, first: bool) -> io::Result<Ran> {
        /// How often to look what the shell has become: no event tells.
        const LOOK: u16 = 200; // ms
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
            match poll(&mut ready, if first { LOOK.into() } else { PollTimeout::NONE }) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            if first && let Some((program, kind)) = self.became() {
                return Ok(Ran::Became(program, kind));
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
            if let (Some(status), Some(dir), Some(_)) = (parts.next(), parts.next(), parts.next()) {
                if status.is_empty() {
                    return Ok(Ran::Ended);
                }
                use std::os::unix::ffi::OsStrExt;
                // Completion looks from here; a directory that is gone is no reason to stop.
                let _ = env::set_current_dir(std::ffi::OsStr::from_bytes(dir));
                return Ok(Ran::Back);
            }
        }
    }
}

impl Coshell {
    /// The shell that ours made way for, if it did and we can drive that one.
    fn became(&self) -> Option<(PathBuf, Kind)> {
        let program = fs::read_link(format!("/proc/{}/exe", self.group)).ok()?;
        let kind = kind(&program).filter(|kind| *kind != self.syntax.kind)?;
        // /bin/sh may be bash.
        let ours = fs::canonicalize(&self.syntax.program).ok()?;
        (program != ours).then_some((program, kind))
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

/// What kind a program is, by its name.
fn kind(program: &Path) -> Option<Kind> {
    match program.file_name()?.to_str()? {
        "bash" => Some(Kind::Bash),
        "zsh" => Some(Kind::Zsh),
        "fish" => Some(Kind::Fish),
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
        Kind::Fish => {
            // Not by `source`: then `exit` would end the file only.
            command.arg("-i").arg("-C").arg(with_commands(FISH));
            for _ in 0..FISH_LOOPS {
                command.arg("-c").arg(FISH_LINES);
            }
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

/// Moves a descriptor above those on which the shell finds its pipes.
fn high(fd: OwnedFd) -> nix::Result<OwnedFd> {
    let moved = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(REPORT + 1))?;
    // SAFETY: fcntl has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// In the child: the pipes take their places, and the child's group the terminal, before the shell looks for it.
fn in_child(pipes: [(i32, i32); 2]) -> io::Result<()> {
    for (pipe, place) in pipes {
        // SAFETY: async-signal-safe; the descriptor is the parent's copy, open until exec, and in nobody's place.
        if unsafe { libc::dup2(pipe, place) } < 0 {
            return Err(io::Error::last_os_error());
        }
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

/// Is this a pipe of simple commands, without doubt? zsh loses the terminal when a pipe inside of anything (`eval`, a loop, a function)
/// was stopped and comes back by `fg`; a pipe by itself is safe, and its first command alone needs to be told where input is.
fn is_pipe_of_commands(line: &str) -> bool {
    const WORDS: [&str; 20] = [
        "if",
        "for",
        "foreach",
        "while",
        "until",
        "case",
        "select",
        "repeat",
        "function",
        "time",
        "coproc",
        "do",
        "done",
        "then",
        "elif",
        "else",
        "fi",
        "esac",
        "end",
        "nocorrect",
    ];
    let first = line.split_whitespace().next().unwrap_or_default();
    line.contains('|')
        && !line.contains("||")
        && !line.contains([';', '&', '(', ')', '{', '}', '`', '\n', '<', '!', '[', '#'])
        && !first.starts_with('|')
        && !WORDS.contains(&first)
}

/// fish has a builtin `status`, which can't be a function. A line that begins with the word alone, or with an option behind it, means
/// the grid's.
fn ours_in_fish(line: &str) -> String {
    match line.trim_start().strip_prefix("status") {
        Some(rest) if rest.trim_start().is_empty() || rest.trim_start().starts_with(['-', '|', ';', '>', '&']) => {
            format!("command status{rest}")
        }
        _ => line.to_owned(),
    }
}

impl Syntax {
    /// Does the line stop in the middle of something: a quotation, a loop, a here-document?
    pub(super) fn is_incomplete(&self, line: &str) -> bool {
        let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            return true;
        }
        // zsh has nothing to say of these.
        if self.kind == Kind::Zsh && ["&&", "||"].iter().any(|end| line.trim_end().ends_with(end)) {
            return true;
        }
        let signs: &[&str] = match self.kind {
            // What the line lacks comes before the end of the line then, which zsh names.
            Kind::Zsh => &["unmatched ", "parse error near `\\n'", "parse error near `$("],
            Kind::Fish => &["Missing end to balance", "found end of the input", "Unexpected end of string"],
            Kind::Bash | Kind::Posix => &[
                "unexpected end of file",
                "unexpected EOF",
                "delimited by end-of-file",
                "end of file unexpected",
                "Unterminated quoted string",
            ],
        };
        match self.complaint(&format!("{line}\n")) {
            Some(words) if words.is_empty() => {
                // An open here-document takes in what could not stand there otherwise.
                line.contains("<<") && self.complaint(&format!("{line}\n)\n")).is_some_and(|words| words.is_empty())
            }
            Some(words) => signs.iter().any(|sign| words.contains(sign)),
            None => false,
        }
    }

    /// What the shell says of a text that it doesn't run.
    fn complaint(&self, text: &str) -> Option<String> {
        let mut check = Command::new(&self.program);
        match self.kind {
            Kind::Zsh => check.args(["-f", "-n", "-o", "interactive_comments", "-c"]),
            Kind::Fish => check.args(["--no-config", "--no-execute", "-c"]),
            Kind::Bash | Kind::Posix => check.args(["-n", "-c"]),
        };
        let checked = check.arg(text).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&checked.stderr).into_owned())
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
    fn pipes_of_commands_are_told_from_other_lines() {
        for line in ["q | less", " q --json | jq '.' | less ", "X=1 env | grep X > out", "\\ls | cat"] {
            assert!(is_pipe_of_commands(line), "{line:?}");
        }
        for line in [
            "",
            "q",
            "a || b",
            "a | b; c",
            "a | b &",
            "for i in 1 | cat",
            "{ a; } | b",
            "a | while read x\ndo",
            "cat < x | y",
        ] {
            assert!(!is_pipe_of_commands(line), "{line:?}");
        }
    }

    #[test]
    fn status_in_fish_is_the_grids_unless_it_asks_fish() {
        for line in ["status", " status  ", "status --json | jq .", "status|cat", "status; q", "status > x"] {
            assert_eq!(ours_in_fish(line), format!("command {}", line.trim_start()), "{line:?}");
        }
        for line in ["status is-login", "status current-command", "statusx", "echo status", ""] {
            assert_eq!(ours_in_fish(line), line);
        }
    }

    #[test]
    fn unfinished_lines_are_told_from_wrong_ones() {
        let check = |program: &str, line: &str, expected: bool| {
            // zsh and fish need not be there; tests/cli/shell.rs says so then.
            let Some(program) = on_path(&[program]) else { return };
            let Some(kind) = kind(&program) else { return };
            let syntax = Syntax { program, kind };
            assert_eq!(syntax.is_incomplete(line), expected, "{syntax:?}: {line:?}");
        };
        for shell in ["bash", "dash", "zsh"] {
            for whole in [
                "",
                "ls",
                "ls)",
                "fi",
                "ls; }",
                "echo 'a\\'",
                "echo a\\\\",
                "for i in 1; do :; done",
                "# it's",
                "echo 'a << b'",
                "cat <<END\na\nEND",
            ] {
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
                "ls &&",
                "case x in",
                "f() {",
                "cat <<END\na",
            ] {
                check(shell, part, true);
            }
        }
        for whole in ["", "ls", "end", "echo )", "echo a\\\\", "if true; ls; end", "# it's", "echo 'a << b'"] {
            check("fish", whole, false);
        }
        for part in ["echo 'a", "echo (ls", "if true", "begin; ls", "ls |", "function f", "while true; if x; end"] {
            check("fish", part, true);
        }
    }
}
