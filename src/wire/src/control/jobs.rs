//! Jobs: submitted, listed, changed, followed.

use super::*;
use vo_core::ids::JobId;
use vo_core::job::Usage;
use vo_core::pool::{Edit, GroupRecord};

/// A piece of a [`Submit`] that is too long for one frame; those of one connection are put together in order. Only the last is answered,
/// as the whole is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SubmitPiece {
    /// The bytes of the encoded message.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Is it the last?
    #[n(1)]
    pub last: bool,
}

/// Submit a cluster. Answered by [`Submitted`] once it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Submit {
    /// Its groups; processes are numbered through them.
    #[n(0)]
    pub groups: Vec<GroupRecord>,
    /// What listings call it: `batch_name`, else the submit file's or the executable's name.
    #[n(1)]
    pub name: String,
}

/// The cluster is durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Submitted {
    /// Its number.
    #[n(0)]
    pub cluster: u32,
    /// Its jobs.
    #[n(1)]
    pub jobs: u32,
    /// Why no mail can be sent, if its jobs ask for that.
    #[n(2)]
    pub unmailed: Option<String>,
    /// How many seconds a starter goes on without its agent, if its jobs ask for more.
    #[n(3)]
    pub lease_s: Option<u64>,
}

/// Some of the jobs: none named means all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Pick {
    /// A cluster.
    #[n(0)]
    Cluster(#[n(0)] u32),
    /// A job.
    #[n(1)]
    Job(#[n(0)] JobId),
    /// Jobs of a cluster, from the first to the last; those of them that there are.
    #[n(2)]
    Jobs(#[n(0)] JobId, #[n(1)] u32),
    /// Clusters, from the first to the last; those of them that there are.
    #[n(3)]
    Clusters(#[n(0)] u32, #[n(1)] u32),
    /// Clusters of that name.
    #[n(4)]
    Name(#[n(0)] String),
}

/// A job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum JobState {
    /// Waits for a slot.
    #[n(0)]
    Idle,
    /// Given to a starter, not started.
    #[n(1)]
    Matched,
    /// Runs.
    #[n(2)]
    Running,
    /// Its starter is silent.
    #[n(3)]
    Unknown,
    /// Its outputs are coming home.
    #[n(4)]
    Transferring,
    /// Can't run as it is; see its reason.
    #[n(5)]
    Held,
    /// Ended by itself.
    #[n(6)]
    Completed,
    /// Removed by the user.
    #[n(7)]
    Removed,
}

/// List jobs: [`JobRows`] in order of id, then [`Done`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ListJobs {
    /// Which; empty is all.
    #[n(0)]
    pub picks: Vec<Pick>,
    /// Only these states; empty is all.
    #[n(1)]
    pub states: Vec<JobState>,
    /// At most so many, the last ones first (`history -limit`); none is all, in order of id.
    #[n(2)]
    pub last: Option<u32>,
    /// Only those of which this ClassAd expression holds.
    #[n(3)]
    pub constraint: Option<String>,
    /// What of their ads is wanted, as [`AdRows`] instead of [`JobRows`].
    #[n(4)]
    pub columns: Option<Columns>,
    /// Also those that have ended and stay in the queue: whose `LeaveJobInQueue` is true.
    #[cbor(n(5), default)]
    pub stays: bool,
    /// At most so many, in the order that `last` gives.
    #[n(6)]
    pub first: Option<u32>,
    /// With `last`: the first ones first (`history -forwards`).
    #[cbor(n(7), default)]
    pub forwards: bool,
    /// Ends before the first of which this ClassAd expression holds (`history -since`).
    #[n(8)]
    pub since: Option<String>,
    /// Ends when so many were looked at (`history -scanlimit`).
    #[n(9)]
    pub scan: Option<u32>,
}

/// What of ads is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Columns {
    /// ClassAd expressions, evaluated for each ad; none at all means its attributes, as they are.
    #[n(0)]
    pub exprs: Vec<String>,
    /// Do strings stand in quotes?
    #[n(1)]
    pub quoted: bool,
    /// Are attributes shown as they are, not what they evaluate to?
    #[n(2)]
    pub raw: bool,
}

/// An ad, or what was asked of it, as text: whole ads in the old syntax, in the order of their attributes' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AdRow {
    /// Names of the attributes, where all of them are wanted.
    #[n(0)]
    pub names: Vec<String>,
    /// Their values, or those of the expressions.
    #[n(1)]
    pub cells: Vec<String>,
    /// Which job, if it is one's.
    #[n(2)]
    pub job: Option<JobId>,
}

/// A page of ads.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<AdRow>,
}

/// A job, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobRow {
    /// Which.
    #[n(0)]
    pub id: JobId,
    /// Its state.
    #[n(1)]
    pub state: JobState,
    /// Tries so far.
    #[n(2)]
    pub attempts: u32,
    /// Submitted.
    #[n(3)]
    pub submitted_ms: u64,
    /// The last try's start, as far as known.
    #[n(4)]
    pub started_ms: Option<u64>,
    /// Its end.
    #[n(5)]
    pub ended_ms: Option<u64>,
    /// Exit code.
    #[n(6)]
    pub exit_code: Option<u8>,
    /// Signal that ended it.
    #[n(7)]
    pub signal: Option<u8>,
    /// What the last try used.
    #[n(8)]
    pub usage: Usage,
    /// The site where it runs or ran last.
    #[n(9)]
    pub site: Option<String>,
    /// The node, while it runs.
    #[n(10)]
    pub host: Option<String>,
    /// Why it is held, or what its last failure at a site was.
    #[n(11)]
    pub reason: Option<String>,
    /// Program and arguments, for people: decoded lossily.
    #[n(12)]
    pub command: String,
    /// Its priority.
    #[cbor(n(13), default)]
    pub priority: i32,
    /// In its state since.
    #[cbor(n(14), default)]
    pub entered_ms: u64,
    /// When it may start, while it is idle and waits for that.
    #[n(15)]
    pub starts_ms: Option<u64>,
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<JobRow>,
}

/// List clusters: [`ClusterRows`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListClusters {
    /// Which; empty is all.
    #[n(0)]
    pub picks: Vec<Pick>,
    /// Only those of their jobs of which this ClassAd expression holds are counted.
    #[n(1)]
    pub constraint: Option<String>,
}

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    /// Idle or matched.
    #[n(0)]
    pub idle: u32,
    /// Running, unknown or transferring.
    #[n(1)]
    pub running: u32,
    /// Held.
    #[n(2)]
    pub held: u32,
    /// Completed, whatever the exit code.
    #[n(3)]
    pub completed: u32,
    /// Removed.
    #[n(4)]
    pub removed: u32,
    /// Of the completed, those that failed: exit code not 0, or a signal.
    #[n(5)]
    pub failed: u32,
    /// Of the idle, those that wait for the time when they may start.
    #[cbor(n(6), default)]
    pub later: u32,
}

impl Counts {
    /// All jobs.
    pub fn total(&self) -> u32 {
        self.unfinished() + self.completed + self.removed
    }

    /// Those that are not completed or removed.
    pub fn unfinished(&self) -> u32 {
        self.idle + self.running + self.held
    }
}

/// A cluster, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterRow {
    /// Its number.
    #[n(0)]
    pub cluster: u32,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Submitted.
    #[n(2)]
    pub submitted_ms: u64,
    /// Its jobs.
    #[n(3)]
    pub counts: Counts,
    /// With a constraint, the first and the last process of those.
    #[n(4)]
    pub span: Option<(u32, u32)>,
    /// What it is shown as a part of, if it is: a batch that the user named, or a DAG.
    #[n(5)]
    pub batch: Option<String>,
    /// Of those that have ended, how many stay in the queue: completed, and removed.
    #[cbor(n(6), default)]
    pub stays: (u32, u32),
}

/// A page of clusters.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<ClusterRow>,
}

/// Change jobs. Answered by [`Altered`] once that is durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Alter {
    /// Which; empty is all.
    #[n(0)]
    pub picks: Vec<Pick>,
    /// How.
    #[n(1)]
    pub alteration: Alteration,
    /// Only count them.
    #[n(2)]
    pub only_count: bool,
    /// Only those of which this ClassAd expression holds.
    #[n(3)]
    pub constraint: Option<String>,
    /// Jobs that aren't there are passed over.
    #[cbor(n(4), default)]
    pub lenient: bool,
}

/// What is done to jobs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Alteration {
    /// They are removed.
    #[n(0)]
    Remove,
    /// They are held, for this reason.
    #[n(1)]
    Hold(#[n(0)] String),
    /// Those that are held may run again.
    #[n(2)]
    Release,
    /// They ask for something else.
    #[n(3)]
    Edit(#[n(0)] Edit),
    /// Those that run are killed, and wait again.
    #[n(4)]
    Vacate {
        /// Without time to end in order.
        #[n(0)]
        fast: bool,
    },
}

/// How many jobs were changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Altered {
    /// Those that the change concerned: the unfinished ones; to hold, those not held; to release, those held; to vacate, those that run.
    #[n(0)]
    pub jobs: u32,
}

/// Submit jobs that failed once more. Answered by [`Retried`] once that is durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Retry {
    /// Which; empty is all.
    #[n(0)]
    pub picks: Vec<Pick>,
    /// Only those of which this ClassAd expression holds.
    #[n(1)]
    pub constraint: Option<String>,
    /// Those that the user removed, too.
    #[n(2)]
    pub removed: bool,
    /// Only count them.
    #[n(3)]
    pub only_count: bool,
}

/// What was submitted once more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Retried {
    /// For each cluster with such jobs.
    #[n(0)]
    pub rows: Vec<RetriedRow>,
}

/// A cluster of which jobs were submitted once more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RetriedRow {
    /// Its number.
    #[n(0)]
    pub from: u32,
    /// How many jobs it has.
    #[n(1)]
    pub of: u32,
    /// How many of them were.
    #[n(2)]
    pub jobs: u32,
    /// The cluster that they are now, unless they were only counted.
    #[n(3)]
    pub cluster: Option<u32>,
}

/// Follow jobs: [`Progress`] now and at changes (at most ten times a second), then [`Done`] once none is idle or running.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Watch {
    /// Which; empty is all that are there now.
    #[n(0)]
    pub picks: Vec<Pick>,
}

/// How far followed jobs are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// By state.
    #[n(0)]
    pub counts: Counts,
    /// Completed a second, over the last minute, in thousandths.
    #[n(1)]
    pub rate_milli: u64,
}

/// What is known of a job: [`JobDetail`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShowJob {
    /// Which.
    #[n(0)]
    pub job: JobId,
}

/// All that is known of a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobDetail {
    /// As in listings.
    #[n(0)]
    pub row: JobRow,
    /// Its directory.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub initialdir: Vec<u8>,
    /// Absolute path of its standard output, if it goes to a file.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub output: Option<Vec<u8>>,
    /// Of its standard error.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub error: Option<Vec<u8>>,
    /// Of its event log.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub log: Option<Vec<u8>>,
    /// What happened to it, in order, as far as this master saw it.
    #[n(5)]
    pub events: Vec<JobEventRow>,
    /// What attempts wrote that came to nothing.
    #[cbor(n(6), default)]
    pub partials: Vec<PartialRow>,
}

/// The end of what an attempt wrote that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartialRow {
    /// Which attempt.
    #[n(0)]
    pub attempt: u32,
    /// Standard error? Else standard output.
    #[n(1)]
    pub error: bool,
    /// Where it is kept.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// Its size.
    #[n(3)]
    pub bytes: u64,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobEventRow {
    /// When.
    #[n(0)]
    pub at_ms: u64,
    /// What.
    #[n(1)]
    pub text: String,
}
