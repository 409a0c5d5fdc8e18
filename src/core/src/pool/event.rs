//! What happens to the pool, and what it asks for.

use super::*;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A starter called in, for the first time or again.
    StarterJoined {
        /// Which.
        key: StarterKey,
        /// What it offers.
        offer: Offer,
        /// TimeToLive: what is left of its walltime.
        time_left: Option<Duration>,
    },
    /// It said what it holds.
    InventoryTold {
        /// Which.
        key: StarterKey,
        /// The inventory's number; goes back with what the starter is given, which refuses what doesn't know its last one.
        number: u64,
        /// Not started.
        queued: Vec<AttemptId>,
        /// Running.
        running: Vec<AttemptId>,
        /// Ended, not acknowledged; the results follow.
        finished: Vec<AttemptId>,
    },
    /// Its connection, or its site's, was lost: it may come back.
    StarterSilent {
        /// Which.
        key: StarterKey,
        /// What became of the connection.
        why: String,
    },
    /// There is evidence that it ended.
    StarterGone {
        /// Which.
        key: StarterKey,
        /// The evidence.
        why: String,
    },
    /// The link to a site was lost, with every starter there.
    SiteLost {
        /// Which.
        site: SiteId,
        /// What became of it.
        why: String,
    },
    /// The pool was read back: every starter is silent until it tells what it holds.
    Recovered,
    /// Attempts started.
    AttemptsStarted {
        /// Where.
        key: StarterKey,
        /// Which.
        ids: Vec<AttemptId>,
    },
    /// Queued attempts came back.
    AttemptsReturned {
        /// From where.
        key: StarterKey,
        /// Which.
        ids: Vec<AttemptId>,
    },
    /// Input files of attempts came to their nodes, or are on their way.
    InputsMoved {
        /// Where.
        key: StarterKey,
        /// Which, when they began to come, if that is new, and when all were there.
        moved: Vec<(AttemptId, Option<Time>, Option<Time>)>,
    },
    /// What running attempts have used so far.
    AttemptsMeasured {
        /// Where.
        key: StarterKey,
        /// Which, and what.
        used: Vec<(AttemptId, Usage)>,
    },
    /// An attempt ended.
    AttemptEnded {
        /// Where.
        key: StarterKey,
        /// How.
        result: AttemptResult,
    },
    /// The outputs asked for with [`Action::Collect`] are at home.
    OutputsStored {
        /// Whose.
        key: StarterKey,
        /// Which result.
        result: AttemptResult,
    },
    /// They can't be: the result counts for nothing.
    OutputsFailed {
        /// Whose.
        key: StarterKey,
        /// Which.
        id: AttemptId,
        /// Why.
        why: String,
        /// Is it the workstation's fault (no such directory, not permitted), so that another try would not help?
        ours: bool,
        /// Are they larger than the job allows?
        too_large: bool,
    },
    /// The driver has done with [`Action::KeepPartial`].
    PartialKept {
        /// Whose.
        key: StarterKey,
        /// Which result.
        result: AttemptResult,
    },
    /// An attempt could not be sent: its input files can't be read.
    AssignmentFailed {
        /// Where to.
        key: StarterKey,
        /// Which.
        id: AttemptId,
        /// Why.
        why: String,
        /// Are they larger than the job allows?
        too_large: bool,
    },
    /// The user removes jobs.
    RemovalAsked {
        /// Which.
        select: Select,
    },
    /// The user removes jobs that have ended and stay in the queue.
    DismissalAsked {
        /// Which.
        jobs: Vec<JobId>,
    },
    /// The user holds jobs.
    HoldAsked {
        /// Which.
        select: Select,
        /// Why.
        why: String,
    },
    /// The user releases held jobs.
    ReleaseAsked {
        /// Which.
        select: Select,
    },
    /// The user takes running jobs off their slots: they wait again.
    VacateAsked {
        /// Which.
        select: Select,
        /// Without time to end in order.
        fast: bool,
    },
    /// The user changes what unfinished jobs ask for. What runs goes on as it is.
    EditAsked {
        /// Which.
        select: Select,
        /// How.
        edit: Edit,
    },
    /// The time of [`Pool::deadline`] came.
    TimePassed,
}

/// A program's number, the program, and the CPUs that a job of it leaves to nobody else at a starter, which counts memory and GPUs itself.
pub type Definition = (u64, Arc<Program>, u32);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send attempts to a starter.
    Assign {
        /// Where to.
        key: StarterKey,
        /// The last inventory of it that the pool had.
        inventory: u64,
        /// Programs that it doesn't know yet.
        define: Vec<Definition>,
        /// The attempts.
        attempts: Vec<Assigned>,
        /// Whether they may run in the job's own directory.
        shared: Shared,
    },
    /// Ask for attempts back.
    Recall {
        /// From where.
        key: StarterKey,
        /// The last inventory of it that the pool had.
        inventory: u64,
        /// How many.
        count: u32,
    },
    /// Kill attempts.
    Kill {
        /// Where.
        key: StarterKey,
        /// Which.
        ids: Vec<AttemptId>,
        /// Between the two signals.
        grace: Duration,
        /// The first of them; 0 is what their program has for it.
        signal: u8,
    },
    /// Let a starter end as soon as nothing runs there: its node is excluded.
    Drain {
        /// Which.
        key: StarterKey,
        /// Why.
        why: String,
    },
    /// Tell a starter to forget results.
    Acknowledge {
        /// Which starter.
        key: StarterKey,
        /// Which results.
        ids: Vec<AttemptId>,
    },
    /// Bring a result's outputs home, then tell [`Event::OutputsStored`] or [`Event::OutputsFailed`]. Asked again when the starter was
    /// silent meanwhile and repeats its result; a driver that still has the pieces goes on from them.
    Collect {
        /// From where.
        key: StarterKey,
        /// The result.
        result: AttemptResult,
        /// The job's program, with its row in it.
        program: Arc<Program>,
    },
    /// Keep what an attempt wrote that came to nothing, and what the next one gets, then tell [`Event::PartialKept`]; asked again when the
    /// starter was silent meanwhile and repeats itself.
    KeepPartial {
        /// From where.
        key: StarterKey,
        /// The result.
        result: AttemptResult,
    },
    /// A job with an event log has an entry for it, or one that asks for mails has something to tell.
    Note {
        /// The job.
        job: JobId,
        /// Its log, if it has one.
        log: Option<Template>,
        /// What its log is to hold, and what is told by mail.
        terms: Arc<LogTerms>,
        /// Its directory.
        initialdir: Template,
        /// What it occupies.
        asks: Resources,
        /// When.
        at: Time,
        /// What.
        note: Note,
    },
}

/// An attempt to send to a starter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Which.
    pub id: AttemptId,
    /// The number of its program.
    pub program: u64,
    /// The program.
    pub body: Arc<Program>,
    /// What the program takes from the job.
    pub row: Row,
    /// When it may start; none is at once.
    pub when: Option<When>,
}

/// What a job occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPUs.
    pub cpus: u32,
    /// Memory, if it is asked for.
    pub memory_mb: Option<u64>,
    /// GPUs.
    pub gpus: u32,
}

/// An entry of a job event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The cluster was submitted; told once for all jobs of a group, whose rows the log's name may need.
    Submitted {
        /// Which; the named one is the first.
        jobs: Members,
    },
    /// A cluster was submitted that is [late](LogTerms::late).
    ClusterSubmitted,
    /// All of its jobs are over.
    ClusterOver {
        /// How many they are.
        jobs: u32,
        /// How many items they were made of.
        items: u32,
    },
    /// An attempt runs.
    Executing {
        /// The proxy.
        proxy: ProxyId,
        /// The node.
        host: String,
    },
    /// Its files begin to come to the node, or home, or have come.
    Moved {
        /// Which.
        files: Files,
        /// The node.
        host: String,
    },
    /// Its starter fell silent; it may well run on.
    Disconnected {
        /// The proxy.
        proxy: ProxyId,
        /// The node.
        host: String,
        /// What became of the connection.
        why: String,
    },
    /// Its starter answers again, and has it.
    Reconnected {
        /// The proxy.
        proxy: ProxyId,
        /// The node.
        host: String,
    },
    /// It doesn't: it will run again.
    ReconnectFailed {
        /// The proxy.
        proxy: ProxyId,
        /// The node.
        host: String,
        /// Why.
        why: String,
    },
    /// Its memory has grown.
    Grown {
        /// The largest resident set so far, in KiB.
        peak_kib: u64,
    },
    /// It ended by itself.
    Terminated {
        /// How.
        end: End,
        /// What it used.
        usage: Usage,
    },
    /// A site failed it; it will run again.
    Evicted {
        /// Why.
        why: String,
    },
    /// It ended by itself, and by its policy waits again.
    Requeued {
        /// How.
        end: End,
        /// What it used.
        usage: Usage,
        /// Why.
        why: String,
    },
    /// It can't run as it is, or is not to.
    Held {
        /// Why.
        hold: Hold,
    },
    /// It was removed.
    Removed {
        /// Why, if its policy did it, not the user.
        why: Option<String>,
    },
    /// It was released.
    Released {
        /// Why, if its policy did it, not the user.
        why: Option<String>,
    },
}

/// Which files move, and how far they have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Input files begin to come to the node.
    InputsBegan,
    /// They are there.
    InputsCame,
    /// Output files begin to come home.
    OutputsBegan,
    /// They are here.
    OutputsCame,
}

impl Action {
    /// The starter that it goes to.
    pub(super) fn starter(&self) -> Option<StarterKey> {
        match self {
            Action::Assign { key, .. }
            | Action::Recall { key, .. }
            | Action::Kill { key, .. }
            | Action::Drain { key, .. }
            | Action::Acknowledge { key, .. }
            | Action::Collect { key, .. } => Some(*key),
            // Done at home, whatever has become of the starter.
            Action::KeepPartial { .. } | Action::Note { .. } => None,
        }
    }
}
