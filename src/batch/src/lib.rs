//! Batch systems: text in, text out.
//!
//! For each system the same few pure functions: render a proxy request as an argument list and a script, read the
//! submit reply, ask for the status of all proxies at once and read the answer, render a cancel and read its reply.
//! Running the argument lists, giving them time limits and retrying is the caller's.
//!
//! This crate never starts a process, and knows no clock, file, socket or thread.
//!
//! Two rules shape every reader. *No answer is not an answer*: a time-out, a failed call, an unexpected layout is an
//! error, never an empty listing; so every listing that we ask for carries a header or an end mark. *A submission may
//! succeed while it reports failure*: only [`Class::Permanent`] and [`Class::Limit`] say that nothing was queued.

mod detect;
mod fork;
mod grid_engine;
pub mod shell;
mod slurm;

use std::{fmt, str::FromStr, time::Duration};

pub use detect::{Detected, Found, NoBatchSystem, PROBE};

/// The batch systems that we can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Slurm 20.11 or later (`slurm`).
    Slurm,
    /// Grid Engine and its descendants (`sge`).
    GridEngine,
    /// This machine's own cores, no batch system at all (`fork`).
    Fork,
}

impl Kind {
    /// Every kind, in the order in which [`Detected::choose`] prefers them.
    pub const ALL: [Self; 3] = [Self::Slurm, Self::GridEngine, Self::Fork];

    /// The word for it in `vo.conf` and in listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::GridEngine => "sge",
            Self::Fork => "fork",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no batch system.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no batch system is called {0:?}: slurm, sge or fork")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == word).ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

/// The batch system of a site, with what its commands need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum System {
    /// `sbatch`, `squeue`, `sacct`, `scancel`.
    Slurm,
    /// `qsub`, `qstat`, `qacct`, `qdel`.
    GridEngine,
    /// The agent itself, as a batch system of one machine. It answers these calls; all exit 0 on success, and with
    /// another code and a message on stderr otherwise:
    ///
    /// - `AGENT fork submit --dir DIR --name NAME --output FILE`: the script comes on stdin. Notes NAME durably in DIR,
    ///   then runs the script by `/bin/sh` in a session of its own, detached, stdin from `/dev/null`, stdout and stderr
    ///   appended to FILE. Prints `ID\n`, where ID is `PID.STARTTIME`: the shell's process id and field 22 of its
    ///   `/proc/PID/stat`. The script computes the same id for itself.
    /// - `AGENT fork status --dir DIR`: a line `ID<TAB>NAME<TAB>STATE<TAB>EXIT\n` for each script, then `end\n`. STATE is
    ///   `running` while that process (same start time) lives, else `done`. EXIT is `-` while it runs or when unknown,
    ///   the exit code, or `s` and the number of the signal that ended it. A script that ended stays listed for five
    ///   minutes at least.
    /// - `AGENT fork cancel --dir DIR ID...`: sends SIGTERM to every process of those sessions, SIGKILL to what is left
    ///   five seconds later, and returns when nothing of them runs. An id that is unknown or ended is no error.
    Fork {
        /// Path of the agent's program.
        agent: String,
        /// Where the agent keeps its notes about scripts: an absolute directory, made by `submit` when missing.
        dir: String,
    },
}

/// What a job proxy wants from the batch system.
#[derive(Clone, Copy, Debug)]
pub struct ProxyRequest<'a> {
    /// Name of the batch job, the unique token of this submission: `[A-Za-z][A-Za-z0-9-]{0,59}`.
    pub name: &'a str,
    /// Nodes, at least 1. `fork` has one node and takes no notice.
    pub nodes: u32,
    /// CPUs on each node, at least 1.
    pub cpus: u32,
    /// Walltime limit; rounded up to what the batch system counts in (Slurm: minutes).
    pub walltime: Duration,
    /// Memory of each node in MiB. Without it the site's default applies.
    pub memory_mb: Option<u32>,
    /// Partition or queue; without it the site's default.
    pub queue: Option<&'a str>,
    /// Account (Slurm) or project (Grid Engine) to charge.
    pub account: Option<&'a str>,
    /// Options for the head of the script as they are, each on a `#SBATCH` or `#$` line. They override our defaults
    /// there (no requeue; Grid Engine: also the check with `-w e`, the notification and the parallel environment), not
    /// the options that follow from the fields above.
    pub directives: &'a [String],
    /// Absolute directory at the site, seen by gateway and nodes, in which the script starts.
    pub workdir: &'a str,
    /// Absolute path of the file that takes the script's and the starters' stdout and stderr.
    pub output: &'a str,
    /// Argument list of the starter, run once on each node; see [`System::render`] for what it finds there.
    pub starter: &'a [String],
    /// Absolute path into which the script writes `CODE\n` last, whole or not at all.
    pub exit_file: &'a str,
}

/// A command to run on the gateway, with the script that it reads from stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The submit command. No shell is involved.
    pub argv: Vec<String>,
    /// The batch script, for the command's stdin.
    pub script: String,
}

/// The batch system's own opaque id of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub String);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a command did, as the caller saw it.
#[derive(Clone, Copy, Debug)]
pub struct RawOutput<'a> {
    /// Exit code; `None` when a signal ended the command.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: &'a [u8],
    /// All of its stderr.
    pub stderr: &'a [u8],
    /// Whether the caller stopped waiting and killed it.
    pub timed_out: bool,
}

/// What came of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitReply {
    /// Queued under this id.
    Accepted(BatchId),
    /// Not queued, as far as the reply tells.
    Rejected {
        /// The batch system's own words; a time-out or an empty reply in ours.
        message: String,
        /// What to make of it.
        class: Class,
    },
}

/// What a failed call means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The batch system did not answer or had no time. A submission **may have been accepted**: look its name up before
    /// the next try.
    Transient,
    /// A limit of the user or site is reached; the same request will do later. Nothing was queued.
    Limit,
    /// This request will never do: a queue, account, resource or permission is wrong. Nothing was queued.
    Permanent,
}

/// State of a batch job, as one row says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waits for its turn.
    Pending {
        /// Why it waits, in the batch system's word.
        reason: Option<String>,
    },
    /// Waits for a person: it never starts by itself.
    Held {
        /// Why it is held, in the batch system's word.
        reason: Option<String>,
    },
    /// Has its nodes.
    Running,
    /// Has its nodes, but its processes are stopped.
    Suspended,
    /// On its way out; its nodes are not free yet.
    Ending,
    /// The script ended by itself.
    Done {
        /// Exit code, if known.
        exit: Option<i32>,
        /// Signal that ended it, if any.
        signal: Option<i32>,
    },
    /// Someone cancelled it.
    Cancelled,
    /// Had to go for another job. Neither the site's failure nor ours.
    Preempted,
    /// The batch system ended it, or the script failed in a way that the row does not tell.
    Failed {
        /// The batch system's words: `TIMEOUT`, `NODE_FAIL (NodeDown)`, `37 : qmaster enforced h_rt …`.
        why: String,
    },
    /// A word that we don't know. It changes the state of nothing.
    Unknown(String),
}

impl Status {
    /// Whether this state is final: the nodes are free (a requeued batch job aside).
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Cancelled | Self::Preempted | Self::Failed { .. })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending { reason: Some(reason) } => write!(f, "pending ({reason})"),
            Self::Pending { reason: None } => f.write_str("pending"),
            Self::Held { reason: Some(reason) } => write!(f, "held ({reason})"),
            Self::Held { reason: None } => f.write_str("held"),
            Self::Running => f.write_str("running"),
            Self::Suspended => f.write_str("suspended"),
            Self::Ending => f.write_str("ending"),
            Self::Done { signal: Some(signal), .. } => write!(f, "ended by signal {signal}"),
            Self::Done { exit: Some(code), .. } => write!(f, "ended with exit code {code}"),
            Self::Done { .. } => f.write_str("ended"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Preempted => f.write_str("preempted"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::Unknown(raw) => write!(f, "unknown state {raw:?}"),
        }
    }
}

/// One proxy in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: BatchId,
    /// Its whole name.
    pub name: String,
    /// Its state.
    pub status: Status,
    /// How often the batch system started it again under the same id. Grid Engine tells only 0 or 1.
    pub restarts: u32,
    /// The row as it came, for evidence.
    pub raw: String,
}

/// A listing that is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// The caller's patience ended first.
    #[error("the batch system did not answer in time")]
    TimedOut,
    /// The command failed, or complained about what makes its listing worthless.
    #[error("{}: {message}", .code.map_or_else(|| "killed by a signal".to_owned(), |code| format!("exit code {code}")))]
    Failed {
        /// Its exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// Its own words.
        message: String,
    },
    /// It succeeded, and what it printed is not what we asked for. Holds the offending line, or what is missing.
    #[error("unexpected listing: {0}")]
    Garbled(String),
    /// The site keeps no accounting that we could ask. It makes no sense to ask again soon.
    #[error("accounting is disabled at this site")]
    Disabled,
}

impl StatusError {
    /// Whether asking again later may do.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Disabled)
    }
}

/// What came of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelReply {
    /// Every id of the call has ended or will end. Only a later listing says when.
    Accepted,
    /// At least one id was refused.
    Refused {
        /// The batch system's own words.
        message: String,
        /// What to make of it.
        class: Class,
    },
}

impl System {
    /// The system of a kind; `agent` and `dir` are for [`System::Fork`].
    pub fn new(kind: Kind, agent: &str, dir: &str) -> Self {
        match kind {
            Kind::Slurm => Self::Slurm,
            Kind::GridEngine => Self::GridEngine,
            Kind::Fork => Self::Fork { agent: agent.to_owned(), dir: dir.to_owned() },
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Slurm => Kind::Slurm,
            Self::GridEngine => Kind::GridEngine,
            Self::Fork { .. } => Kind::Fork,
        }
    }

    /// The submit command and the proxy script.
    ///
    /// The script runs the starter once on each node, passes a TERM on to it, waits for all, and writes the exit file:
    /// the starter's code, or the highest of several, and the restarts. A starter finds in its environment:
    ///
    /// - `VO_BATCH_ID` and `VO_BATCH_RESTARTS`: the batch id, and how often the batch job has been restarted;
    /// - `VO_NODE_INDEX`: 0 on the node that runs the script, then 1, 2, …;
    /// - `VO_NODE_CPUS`: CPUs that the batch system gave on this node;
    /// - `VO_TIME_LEFT_S`: walltime left when the script started, in seconds;
    /// - `VO_SCRATCH`: a directory that can be written, local to the node as far as the site provides for that.
    ///
    /// Its stdin is empty, and it starts with INT and QUIT ignored, as any background process of a shell does. Grid Engine
    /// sends USR2 (before a kill) or USR1 to whole process groups and to each node: a starter should take them as a TERM,
    /// and by catching all four give its jobs the default actions back.
    pub fn render(&self, request: &ProxyRequest<'_>) -> Submission {
        match self {
            Self::Slurm => slurm::render(request),
            Self::GridEngine => grid_engine::render(request),
            Self::Fork { agent, dir } => fork::render(agent, dir, request),
        }
    }

    /// Reads the reply to [`System::render`]'s command.
    pub fn parse_submit(&self, out: &RawOutput<'_>) -> SubmitReply {
        match self {
            Self::Slurm => slurm::parse_submit(out),
            Self::GridEngine => grid_engine::parse_submit(out),
            Self::Fork { .. } => fork::parse_submit(out),
        }
    }

    /// One command that lists all batch jobs of `user`: never by a list of ids, one of which may be forgotten, and never
    /// by queue, which a site may change.
    pub fn status_all(&self, user: &str) -> Vec<String> {
        match self {
            Self::Slurm => slurm::status_all(user),
            Self::GridEngine => grid_engine::status_all(user),
            Self::Fork { agent, dir } => fork::call(agent, dir, "status"),
        }
    }

    /// Reads what [`System::status_all`] printed: the rows whose names start with `prefix`.
    ///
    /// # Errors
    /// Whatever is no well-formed answer of a command that succeeded. An empty listing is `Ok`; what the absence of a
    /// row means is for the caller to say.
    pub fn parse_status(&self, prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
        match self {
            Self::Slurm => slurm::parse_status(prefix, out),
            Self::GridEngine => grid_engine::parse_status(prefix, out),
            Self::Fork { .. } => fork::parse_status(prefix, out),
        }
    }

    /// One command that lists what accounting knows of `user`'s batch jobs, named `prefix…`, that were there in the
    /// last `since`. Accounting can be slow or down for hours: bound it, and do without. `fork` has none.
    pub fn accounting(&self, user: &str, prefix: &str, since: Duration) -> Option<Vec<String>> {
        match self {
            Self::Slurm => Some(slurm::accounting(user, since)),
            Self::GridEngine => Some(grid_engine::accounting(user, prefix, since)),
            Self::Fork { .. } => None,
        }
    }

    /// Reads what [`System::accounting`] printed, like [`System::parse_status`].
    ///
    /// # Errors
    /// As [`System::parse_status`]; [`StatusError::Disabled`] where there is no accounting to ask.
    pub fn parse_accounting(&self, prefix: &str, out: &RawOutput<'_>) -> Result<Vec<Row>, StatusError> {
        match self {
            Self::Slurm => slurm::parse_accounting(prefix, out),
            Self::GridEngine => grid_engine::parse_accounting(prefix, out),
            Self::Fork { .. } => Err(StatusError::Disabled),
        }
    }

    /// Commands that cancel the batch jobs, as few as argument lists allow; none for no ids.
    pub fn cancel(&self, ids: &[BatchId]) -> Vec<Vec<String>> {
        /// Keeps an argument list far below the 128 KiB that any kernel takes.
        const IDS_A_CALL: usize = 1000;
        let head = match self {
            Self::Slurm => vec!["scancel".to_owned()],
            Self::GridEngine => vec!["qdel".to_owned()],
            Self::Fork { agent, dir } => fork::call(agent, dir, "cancel"),
        };
        let with = |ids: &[BatchId]| head.iter().cloned().chain(ids.iter().map(|id| id.0.clone())).collect();
        ids.chunks(IDS_A_CALL).map(with).collect()
    }

    /// Reads the reply to one command of [`System::cancel`]. An id that has ended already counts as cancelled.
    pub fn parse_cancel(&self, out: &RawOutput<'_>) -> CancelReply {
        match self {
            Self::Slurm => slurm::parse_cancel(out),
            Self::GridEngine => grid_engine::parse_cancel(out),
            Self::Fork { .. } => fork::parse_cancel(out),
        }
    }

    /// The command line by which a person removes what we could not.
    pub fn cancel_by_hand(&self, ids: &[BatchId]) -> String {
        let head: &[&str] = match self {
            Self::Slurm => &["scancel"],
            Self::GridEngine => &["qdel", "-f"],
            Self::Fork { agent, dir } => &[agent, "fork", "cancel", "--dir", dir],
        };
        shell::join(head.iter().copied().chain(ids.iter().map(|id| id.0.as_str())))
    }

    /// One line about what to do about a rejected submission, where we know better than its message.
    pub fn hint(&self, message: &str) -> Option<&'static str> {
        let hints = match self {
            Self::Slurm => slurm::HINTS,
            Self::GridEngine => grid_engine::HINTS,
            Self::Fork { .. } => &[],
        };
        hints.iter().find(|(text, _)| message.contains(text)).map(|&(_, hint)| hint)
    }
}

impl RawOutput<'_> {
    fn stdout(&self) -> String {
        String::from_utf8_lossy(self.stdout).into_owned()
    }

    /// What the command had to say: stderr, and stdout if it used that; in our words when it said nothing.
    fn words(&self) -> String {
        let said = [self.stderr, self.stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        let said = said.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join("\n");
        match (self.timed_out, said.is_empty(), self.code) {
            (true, true, _) => "no answer in time".to_owned(),
            (true, false, _) => format!("no answer in time: {said}"),
            (false, false, _) => said,
            (false, true, Some(code)) => format!("exit code {code} without a message"),
            (false, true, None) => "killed by a signal".to_owned(),
        }
    }

    /// The listing of a command that succeeded, or why there is none. `worthless` are complaints on stderr that make
    /// an exit code of 0 a lie.
    fn listing(&self, worthless: &[&str]) -> Result<String, StatusError> {
        let stderr = String::from_utf8_lossy(self.stderr);
        if self.timed_out {
            Err(StatusError::TimedOut)
        } else if self.code != Some(0) || worthless.iter().any(|text| stderr.contains(text)) {
            Err(StatusError::Failed { code: self.code, message: self.words() })
        } else {
            Ok(self.stdout())
        }
    }

    /// The reply of a submit command whose id, if accepted, is `id`.
    fn submit_reply(&self, id: Option<&str>, classify: impl Fn(&Self, &str) -> Class) -> SubmitReply {
        match id {
            Some(id) if self.code == Some(0) && !self.timed_out => SubmitReply::Accepted(BatchId(id.to_owned())),
            // An id beside a failure, or a success without one: it may well be queued.
            Some(_) => SubmitReply::Rejected { message: self.words(), class: Class::Transient },
            None => {
                let message = self.words();
                let class = self.class(&message, classify);
                SubmitReply::Rejected { message, class }
            }
        }
    }

    /// The class of a failure; `classify` judges what a command said when it ended by itself with a failure.
    fn class(&self, message: &str, classify: impl Fn(&Self, &str) -> Class) -> Class {
        let silent = self.stdout.trim_ascii().is_empty() && self.stderr.trim_ascii().is_empty();
        if self.timed_out || silent || self.code.is_none_or(|code| code == 0) {
            Class::Transient
        } else {
            classify(self, message)
        }
    }
}

/// Whole seconds, rounded up, at least one.
fn seconds(walltime: Duration) -> u64 {
    walltime.as_secs().saturating_add(u64::from(walltime.subsec_nanos() > 0)).max(1)
}

/// Whether `text` contains one of `parts`.
fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

/// Whether this can be a batch job's number.
fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}
