//! Programs on the workstation and the master, over the session's Unix socket. Kinds `0x04..`.
//!
//! The client opens with [`Hello`], the master answers [`Welcome`]. Then one request at a time; what is listed comes in pages, what
//! is followed comes as it happens, and each request ends with [`Done`] or [`Failed`]. Closing the connection ends a request. Times
//! are milliseconds since 1970, by the workstation's clock.

use minicbor::{Decode, Encode};
use vo_core::ids::{JobId, StarterKey};
use vo_core::job::Usage;
use vo_core::pool::{Edit, GroupRecord};

use crate::frame::kinds;
use crate::link::ProxyInfo;

/// A client's first word.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
}

/// The master's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
    /// The session's name.
    #[n(1)]
    pub session: String,
    /// The master's process.
    #[n(2)]
    pub pid: u32,
    /// When the session began.
    #[n(3)]
    pub started_ms: u64,
}

/// The request is done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Done {}

/// Why a request failed; the program's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Fault {
    /// The request makes no sense here: unknown job, unknown site.
    #[n(0)]
    Usage,
    /// A submission was refused.
    #[n(1)]
    Refused,
    /// The master could not do it: a full disk.
    #[n(2)]
    System,
    /// `exit` with unfinished jobs, without force.
    #[n(3)]
    Unfinished,
    /// The session is ending.
    #[n(4)]
    Ending,
    /// A site refuses the login.
    #[n(5)]
    Login,
    /// A site can't be reached or used.
    #[n(6)]
    Unreachable,
}

/// The request failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failed {
    /// What kind of failure.
    #[n(0)]
    pub fault: Fault,
    /// In one line.
    #[n(1)]
    pub message: String,
    /// What the user may do.
    #[n(2)]
    pub hint: Option<String>,
}

/// Follow the session's start: [`SiteEvent`]s and [`Question`]s (answered with [`Answer`]) until every gateway has settled and, for
/// each site that is up, the wanted starters have called back or `patience_ms` has passed; then [`Done`]. Closing the connection
/// before cancels the questions, not the session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FollowStart {
    /// How long to wait for starters once all gateways have settled; 0 doesn't wait.
    #[n(0)]
    pub patience_ms: u64,
    /// May questions be asked? If not, what needs an answer fails.
    #[n(1)]
    pub interactive: bool,
}

/// What happened at a site, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SiteEvent {
    /// Its gateway is being connected to.
    #[n(0)]
    Spawning {
        /// The site's name.
        #[n(0)]
        site: String,
        /// Its gateway, as the user wrote it.
        #[n(1)]
        gateway: String,
    },
    /// The agent is being uploaded.
    #[n(1)]
    Uploading {
        /// The site's name.
        #[n(0)]
        site: String,
        /// Bytes sent.
        #[n(1)]
        sent: u64,
        /// Bytes in all.
        #[n(2)]
        total: u64,
    },
    /// Its event agent is at work.
    #[n(2)]
    Up {
        /// The site's name.
        #[n(0)]
        site: String,
        /// The batch system found.
        #[n(1)]
        batch: String,
    },
    /// It can't be used, or not for now.
    #[n(3)]
    Failed {
        /// The site's name.
        #[n(0)]
        site: String,
        /// Why.
        #[n(1)]
        message: String,
        /// What the user may do.
        #[n(2)]
        hint: Option<String>,
        /// Was a login refused?
        #[n(3)]
        authentication: bool,
    },
    /// Starters that called back, of those wanted, over all sites.
    #[n(4)]
    Participants {
        /// Called back.
        #[n(0)]
        joined: u32,
        /// Wanted.
        #[n(1)]
        wanted: u32,
    },
    /// Words of a site: a banner, a rejected submission.
    #[n(5)]
    Note {
        /// The site's name.
        #[n(0)]
        site: String,
        /// One line or more.
        #[n(1)]
        message: String,
        /// What the user may do.
        #[n(2)]
        hint: Option<String>,
    },
}

impl SiteEvent {
    /// The site that it is about.
    pub fn site(&self) -> Option<&str> {
        match self {
            SiteEvent::Spawning { site, .. }
            | SiteEvent::Uploading { site, .. }
            | SiteEvent::Up { site, .. }
            | SiteEvent::Failed { site, .. }
            | SiteEvent::Note { site, .. } => Some(site),
            SiteEvent::Participants { .. } => None,
        }
    }
}

/// A question to the person at the terminal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    /// Told back in the answer.
    #[n(0)]
    pub id: u64,
    /// The site that it is about.
    #[n(1)]
    pub site: String,
    /// Shown first, if not empty: an instruction, a host key's fingerprint.
    #[n(2)]
    pub title: String,
    /// The prompt.
    #[n(3)]
    pub text: String,
    /// May the answer be seen as it is typed?
    #[n(4)]
    pub echo: bool,
    /// Is `yes` or `no` expected?
    #[n(5)]
    pub confirm: bool,
}

/// The answer to a [`Question`]; none if the person gave none.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// Which question.
    #[n(0)]
    pub id: u64,
    /// What was typed: may be a secret, so it is never printed.
    #[n(1)]
    pub text: Option<String>,
}

/// Connect to a site now, and ask what needs an answer: [`Question`]s (answered with [`Answer`]) and the site's [`SiteEvent`]s, then
/// [`Done`] once its agent is at work, or [`Failed`]. Closing the connection before cancels the questions; the site is tried on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Login {
    /// The site's name.
    #[n(0)]
    pub site: String,
    /// May questions be asked? If not, what needs an answer fails.
    #[n(1)]
    pub interactive: bool,
}

/// From an askpass program that the system's `ssh` started: ask this. Answered by [`Answer`], with id 0.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Askpass {
    /// The site.
    #[n(0)]
    pub site: String,
    /// What `ssh` asks.
    #[n(1)]
    pub prompt: String,
    /// `SSH_ASKPASS_PROMPT`: `confirm`, `none` or nothing.
    #[n(2)]
    pub kind: String,
}

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
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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

/// List the pool: [`StarterRows`], then [`Done`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ListPool {
    /// Only those starters of whose ads this ClassAd expression holds.
    #[n(0)]
    pub constraint: Option<String>,
    /// What of their ads is wanted, as [`AdRows`] instead of [`StarterRows`].
    #[n(1)]
    pub columns: Option<Columns>,
}

/// A starter's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StarterState {
    /// Connected, with nothing to run.
    #[n(0)]
    Idle,
    /// Connected, running jobs.
    #[n(1)]
    Busy,
    /// Near the end of its walltime: takes no new jobs.
    #[n(2)]
    Draining,
    /// Not connected to its agent; its lease runs.
    #[n(3)]
    Silent,
    /// Its site is not connected to the master.
    #[n(4)]
    Unreachable,
    /// Its node gets no work; see [`ExcludedNode`].
    #[n(5)]
    Excluded,
}

/// A starter and its slots, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterRow {
    /// Its key.
    #[n(0)]
    pub key: StarterKey,
    /// Its site.
    #[n(1)]
    pub site: String,
    /// The node.
    #[n(2)]
    pub host: String,
    /// Its proxy's number at the site.
    #[n(3)]
    pub proxy: u64,
    /// Its state.
    #[n(4)]
    pub state: StarterState,
    /// In this state for.
    #[n(5)]
    pub age_ms: u64,
    /// CPUs.
    #[n(6)]
    pub cpus: u32,
    /// CPUs that jobs occupy.
    #[n(7)]
    pub busy_cpus: u32,
    /// Memory.
    #[n(8)]
    pub memory_mb: u64,
    /// Running jobs.
    #[n(9)]
    pub running: u32,
    /// Jobs waiting at the starter.
    #[n(10)]
    pub queued: u32,
    /// Jobs that it completed.
    #[n(11)]
    pub completed: u64,
    /// TimeToLive.
    #[n(12)]
    pub time_left_ms: Option<u64>,
    /// Architecture.
    #[n(13)]
    pub arch: String,
    /// Operating system.
    #[n(14)]
    pub system: String,
    /// GPUs.
    #[n(15)]
    pub gpus: u32,
}

impl StarterRow {
    /// `slot7@n1`
    pub fn name(&self) -> String {
        format!("slot{}@{}", self.proxy, self.host)
    }

    /// State and activity, in condor_status's words.
    pub fn words(&self) -> (&'static str, &'static str) {
        match (self.state, self.running) {
            (StarterState::Idle, _) => ("Unclaimed", "Idle"),
            (StarterState::Busy, _) => ("Claimed", "Busy"),
            (StarterState::Draining, 0) => ("Drained", "Idle"),
            (StarterState::Draining, _) => ("Drained", "Retiring"),
            (StarterState::Excluded, 0) => ("Excluded", "Idle"),
            (StarterState::Excluded, _) => ("Excluded", "Retiring"),
            (StarterState::Silent, _) => ("Unknown", "Silent"),
            (StarterState::Unreachable, _) => ("Unknown", "Cut off"),
        }
    }
}

/// A page of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<StarterRow>,
}

/// List sites: [`SiteRows`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListSites {}

/// A site's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SiteState {
    /// Being connected to.
    #[n(0)]
    Connecting,
    /// Connected.
    #[n(1)]
    Up,
    /// Nobody answers; tried again.
    #[n(2)]
    Lost,
    /// Failed for good, or until the user acts.
    #[n(3)]
    Failed,
    /// A person must log in.
    #[n(4)]
    NeedsLogin,
    /// Removing its proxies.
    #[n(5)]
    Ending,
    /// Ended: nothing of ours is left there.
    #[n(6)]
    Ended,
    /// The gateway turns us away; tried again, but seldom.
    #[n(7)]
    Blocked,
}

/// A site, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SiteRow {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its gateway.
    #[n(1)]
    pub gateway: String,
    /// Its state.
    #[n(2)]
    pub state: SiteState,
    /// In this state since.
    #[n(3)]
    pub since_ms: u64,
    /// The batch system, once known.
    #[n(4)]
    pub batch: Option<String>,
    /// Proxies wanted now.
    #[n(5)]
    pub target: u32,
    /// Proxies queued (wanted, submitting or pending).
    #[n(6)]
    pub queued: u32,
    /// Proxies running.
    #[n(7)]
    pub running: u32,
    /// Starters connected.
    #[n(8)]
    pub starters: u32,
    /// CPUs in the pool.
    #[n(9)]
    pub cpus: u32,
    /// CPUs that jobs occupy.
    #[n(10)]
    pub busy_cpus: u32,
    /// Jobs completed here.
    #[n(11)]
    pub completed: u64,
    /// What is wrong, if anything.
    #[n(12)]
    pub problem: Option<String>,
    /// What the user may do.
    #[n(13)]
    pub hint: Option<String>,
    /// Batch-system commands run by the agent: submit, status, accounting, cancel.
    #[n(14)]
    pub calls: [u64; 4],
    /// The gateway's host name by its own word.
    #[n(15)]
    pub host: Option<String>,
    /// Its nodes that get no work.
    #[cbor(n(16), default)]
    pub excluded: Vec<ExcludedNode>,
    /// When it is tried again, if it can't be used now.
    #[n(17)]
    pub next_try_ms: Option<u64>,
}

/// A node on which too many jobs failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExcludedNode {
    /// Its name.
    #[n(0)]
    pub host: String,
    /// Since when.
    #[n(1)]
    pub since_ms: u64,
    /// Until when.
    #[n(2)]
    pub until_ms: u64,
    /// The evidence.
    #[n(3)]
    pub why: String,
}

/// A page of sites.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SiteRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<SiteRow>,
}

/// List proxies: [`ProxyRows`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListProxies {
    /// Ended ones too?
    #[n(0)]
    pub all: bool,
}

/// A proxy, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyRow {
    /// Its site.
    #[n(0)]
    pub site: String,
    /// The rest; `age_ms` is as of now.
    #[n(1)]
    pub info: ProxyInfo,
}

/// A page of proxies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<ProxyRow>,
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
}

/// How many jobs were changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Altered {
    /// Those that the change concerned: the unfinished ones; to hold, those not held; to release, those held.
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

/// What a [`Why`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Subject {
    /// `12.3`.
    #[n(0)]
    Job,
    /// `12`.
    #[n(1)]
    Cluster,
    /// `SITE/NUMBER`, a number that only one site has, or the batch system's id.
    #[n(2)]
    Proxy,
    /// Its name.
    #[n(3)]
    Site,
}

/// Why is it as it is? Answered by [`Because`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Why {
    /// What `name` names; none if the master is to find out.
    #[n(0)]
    pub subject: Option<Subject>,
    /// As the user wrote it.
    #[n(1)]
    pub name: String,
}

/// A step of a chain of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WhyStep {
    /// When it was seen or concluded; none for what holds now, or has no record of its time.
    #[n(0)]
    pub at_ms: Option<u64>,
    /// By whom.
    #[n(1)]
    pub by: String,
    /// What.
    #[n(2)]
    pub text: String,
}

/// The answer to [`Why`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Because {
    /// What it is about.
    #[n(0)]
    pub subject: Subject,
    /// Its whole name: `12.3`, `tundra/7`.
    #[n(1)]
    pub name: String,
    /// Its state, in words.
    #[n(2)]
    pub state: String,
    /// How it came to that, oldest first.
    #[n(3)]
    pub steps: Vec<WhyStep>,
    /// What is waited for next.
    #[n(4)]
    pub next: Vec<String>,
    /// What the answer lacks: evidence that is gone, a site that can't be asked.
    #[n(5)]
    pub notes: Vec<String>,
}

/// End the session: [`SiteEvent::Note`]s meanwhile, then [`Done`], or [`Failed`] with [`Fault::Unfinished`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EndSession {
    /// Even with unfinished jobs?
    #[n(0)]
    pub force: bool,
}

/// Attach a terminal to the grid shell, starting it if there is none. From then on [`TtyData`] goes both ways, until [`TtyClosed`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attach {
    /// Size.
    #[n(0)]
    pub rows: u16,
    /// Size.
    #[n(1)]
    pub cols: u16,
    /// The environment for a new shell (`TERM`, `SHELL`, …), as `NAME=value`.
    #[cbor(n(2))]
    pub environment: Vec<EnvEntry>,
    /// Its directory.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub directory: Vec<u8>,
    /// The terminal that attaches.
    #[n(4)]
    pub from: Option<Place>,
}

/// A person's terminal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// In words: `pts/3`, `pts/4 (SSH from 192.0.2.7)`.
    #[n(0)]
    pub name: String,
    /// Its device number.
    #[n(1)]
    pub device: u64,
}

/// Detach whoever is attached: [`Detached`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Detach {
    /// Whose wish it is.
    #[n(0)]
    pub from: Option<Place>,
}

/// What was detached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Detached {
    /// In words; none if nothing was attached.
    #[n(0)]
    pub place: Option<String>,
}

/// What is known of the session: [`SessionDetail`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShowSession {}

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionDetail {
    /// All of its jobs, by state.
    #[n(0)]
    pub jobs: Counts,
    /// Whoever is attached.
    #[n(1)]
    pub attached: Option<Place>,
    /// Attached since, if anyone is.
    #[n(2)]
    pub attached_ms: Option<u64>,
    /// Device number of the grid shell's own terminal, if it runs.
    #[n(3)]
    pub terminal: Option<u64>,
}

/// `NAME=value`, as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct EnvEntry(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// Bytes of the terminal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TtyData {
    /// The bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// The terminal has another size.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TtyResize {
    /// Size.
    #[n(0)]
    pub rows: u16,
    /// Size.
    #[n(1)]
    pub cols: u16,
}

/// The terminal is no longer attached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TtyClosed {
    /// The shell's exit code, if it ended; none if another terminal took over or it was detached.
    #[n(0)]
    pub code: Option<i32>,
    /// In words: a fragment, such as `attached from pts/4`.
    #[n(1)]
    pub why: String,
}

kinds! {
    0x0401 => Hello, 0x0402 => Welcome, 0x0403 => Done, 0x0404 => Failed, 0x0405 => FollowStart, 0x0406 => SiteEvent,
    0x0407 => Question, 0x0408 => Answer, 0x0409 => Askpass, 0x040a => Submit, 0x040b => Submitted, 0x040c => ListJobs,
    0x040d => JobRows, 0x040e => ListClusters, 0x040f => ClusterRows, 0x0410 => ListPool, 0x0411 => StarterRows,
    0x0412 => ListSites, 0x0413 => SiteRows, 0x0414 => ListProxies, 0x0415 => ProxyRows, 0x0416 => Alter, 0x0417 => Altered,
    0x0418 => Watch, 0x0419 => Progress, 0x041a => ShowJob, 0x041b => JobDetail, 0x041c => EndSession, 0x041d => Attach,
    0x041e => TtyData, 0x041f => TtyResize, 0x0420 => TtyClosed, 0x0421 => Login, 0x0422 => Detach, 0x0423 => Detached,
    0x0424 => ShowSession, 0x0425 => SessionDetail, 0x0426 => Why, 0x0427 => Because,
    0x0428 => AdRows, 0x0429 => Retry, 0x042a => Retried,
    0x0430 => SubmitPiece,
}
