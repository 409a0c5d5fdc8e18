//! Errors as a person sees them, and the exit codes that follow.

use std::fmt;

/// What the process ends with. The table in `vo-login --help` and vo-login(1) is made from [`ExitCode::TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// All went well.
    Success = 0,
    /// A request failed for a reason that has no code of its own.
    Failure = 1,
    /// The command line, or an operand such as a job id, makes no sense.
    Usage = 2,
    /// vo.conf is missing, unreadable or wrong.
    Configuration = 3,
    /// No site could be used, and at each of them a login was refused.
    Authentication = 4,
    /// No site could be used.
    Unreachable = 5,
    /// A submission was refused; nothing was submitted.
    Refused = 6,
    /// Jobs that were waited for failed, are held, or were removed.
    JobsFailed = 7,
    /// The session doesn't run, or doesn't exist.
    NoSession = 8,
    /// The session runs already, or has unfinished jobs.
    Busy = 9,
    /// What was waited for didn't happen in time.
    TimedOut = 10,
    /// Our own bug.
    Internal = 70,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl ExitCode {
    /// Codes and their meanings, for help texts.
    pub(crate) const TABLE: &'static [(ExitCode, &'static str)] = &[
        (ExitCode::Success, "success"),
        (ExitCode::Failure, "the request failed (the message says why)"),
        (ExitCode::Usage, "usage: wrong option or operand, unknown job or site"),
        (ExitCode::Configuration, "vo.conf is missing, unreadable or wrong"),
        (ExitCode::Authentication, "no site could be used: logins were refused, or host keys not trusted"),
        (ExitCode::Unreachable, "no site could be reached or used"),
        (ExitCode::Refused, "a submission was refused; nothing was submitted"),
        (ExitCode::JobsFailed, "some jobs failed, are held, or were removed"),
        (ExitCode::NoSession, "no such session, or it does not run"),
        (ExitCode::Busy, "the session runs already (another start may have come first), or has unfinished jobs"),
        (ExitCode::TimedOut, "a time limit given by the user passed"),
        (ExitCode::Internal, "internal error: please report it"),
        (ExitCode::Interrupted, "interrupted (Ctrl-C); other signals end with 128 + number"),
    ];

    /// The number.
    pub(crate) fn number(self) -> i32 {
        i32::from(self as u8)
    }

    /// [`ExitCode::TABLE`] as text, a line each.
    pub(crate) fn table() -> String {
        let line = |(code, meaning): &(ExitCode, &str)| format!("  {:>3}  {meaning}\n", code.number());
        Self::TABLE.iter().map(line).collect()
    }
}

/// Why a command failed: one line, what lies behind it, what the user may do, and the code to exit with.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) code: ExitCode,
    message: String,
    cause: Vec<String>,
    hint: Option<String>,
}

impl Error {
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), cause: Vec::new(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// An operation of the system's that failed.
    pub(crate) fn system(message: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::new(ExitCode::Failure, message).because(cause)
    }

    /// In one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause.push(cause.to_string());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", printable(&without_number(&self.message)))?;
        for cause in &self.cause {
            write!(f, "\ncaused by: {}", printable(&without_number(cause)))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", printable(hint))?;
        }
        Ok(())
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The system's words without the number that std puts behind them.
fn without_number(text: &str) -> String {
    match text.rsplit_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => words.to_owned(),
        _ => text.to_owned(),
    }
}

/// `text` without control characters, which a site's or a file's words may hold; they could drive the terminal. Line feeds stay.
pub(crate) fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.replace('\t', " ").chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_cause_and_hint_without_terminal_escapes() {
        let error = Error::usage("no \x1b[2Jsite x").because("a\tb").hint("try y");
        assert_eq!(error.to_string(), "error: no \u{fffd}[2Jsite x\ncaused by: a b\nhint: try y");
    }

    #[test]
    fn the_systems_words_come_without_its_number() {
        let error = Error::system("cannot read x", std::io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "error: cannot read x\ncaused by: No such file or directory");
        assert_eq!(Error::usage("(os error 2").to_string(), "error: (os error 2");
    }

    #[test]
    fn the_table_is_in_order_and_complete_to_the_last_code() {
        let numbers: Vec<i32> = ExitCode::TABLE.iter().map(|(code, _)| code.number()).collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.last(), Some(&130));
    }
}
