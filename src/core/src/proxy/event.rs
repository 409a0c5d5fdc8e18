//! What happens to the proxies of a site, and what they ask for.

use super::*;

/// A batch job of ours, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub token: String,
    /// Its id.
    pub batch_id: String,
    /// Its state.
    pub status: RowStatus,
    /// How often it was started again under the same id.
    pub restarts: u32,
}

/// State of a [`Row`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowStatus {
    /// Waits, with the batch system's reason.
    Pending(String),
    /// Has its nodes.
    Running,
    /// On its way out.
    Ending,
    /// Over, with the batch system's words.
    Ended(String),
    /// Words that we don't know; they move nothing.
    Unclear(String),
}

/// What came of a submit command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitAnswer {
    /// Queued under this id.
    Accepted(String),
    /// Will never do, in the batch system's words. Nothing was queued.
    Refused(String),
    /// Will do later: a limit is reached. Nothing was queued.
    Limited(String),
    /// No clear answer: it may have been queued.
    Unclear(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All records of earlier lives are applied.
    Recovered,
    /// The master said, maybe again, what it wants.
    Configured(Config),
    /// The master wants this many proxies queued or running.
    TargetSet(u32),
    /// These are to end, whatever they run.
    RemovalAsked(Vec<ProxyId>),
    /// All are to end, and none is to follow.
    ShutdownAsked,
    /// A submit command ended.
    SubmitAnswered {
        /// Whose.
        proxy: ProxyId,
        /// Which try.
        attempt: u32,
        /// How.
        answer: SubmitAnswer,
    },
    /// All batch jobs of this session and site that the batch system knows.
    StatusListed(Vec<Row>),
    /// A status call came to nothing.
    StatusFailed(String),
    /// What accounting knows.
    AccountingListed(Vec<Row>),
    /// An accounting call came to nothing; `never` if there is none at this site.
    AccountingFailed {
        /// It makes no sense to ask again.
        never: bool,
    },
    /// A starter called, for the first time or again.
    StarterConnected {
        /// Its proxy.
        proxy: ProxyId,
        /// Its node, from 0.
        node: u32,
        /// Itself.
        key: StarterKey,
        /// The batch system's id, as the node sees it.
        batch_id: String,
        /// Restarts of the batch job, as the node sees them.
        restarts: u32,
    },
    /// A starter's connection ended.
    StarterLost {
        /// Its proxy.
        proxy: ProxyId,
        /// Which.
        key: StarterKey,
        /// Its last word, if it said that it leaves.
        left: Option<String>,
        /// When it was last heard.
        heard: Time,
        /// What became of the connection.
        why: String,
    },
    /// The job tags that are there, and what the exit files say.
    TagsListed {
        /// Proxy and node.
        tags: BTreeSet<(ProxyId, u32)>,
        /// Proxies whose script has ended.
        exits: BTreeMap<ProxyId, Exit>,
    },
    /// The tags could not be read.
    TagsFailed,
    /// A cancel command ended; what was refused, in the batch system's words.
    CancelAnswered(Option<String>),
    /// A master's stream opened and was told everything, or closed.
    MasterLink(bool),
    /// The master was silent for so long that it is not expected back: none is wanted until it is, and those that hold no work go.
    /// Why, in words.
    MasterMissed(String),
    /// The time of [`Proxies::deadline`] came.
    DeadlinePassed,
}

/// What a proxy's script leaves when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, as it wrote it.
    pub code: String,
    /// How often its batch job had been restarted then: it may be restarted again, and run.
    pub restarts: u32,
}

/// What to do. Each leaves when the record of the number that comes with it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the tags of a proxy (again: its batch job was started anew).
    MakeTags(ProxyId),
    /// Make the tags and the starters' file, then run the submit command.
    SubmitProxy {
        /// Whose.
        proxy: ProxyId,
        /// Which try, for the answer.
        attempt: u32,
        /// The batch job's name.
        token: String,
    },
    /// Ask for all batch jobs.
    QueryStatus,
    /// Ask accounting.
    QueryAccounting,
    /// Read the tags and exit files.
    ReadTags,
    /// Cancel these batch jobs.
    CancelProxies(Vec<String>),
    /// Take the starter in.
    Welcome(StarterKey),
    /// The starter is to end.
    EndStarter(StarterKey, String),
    /// Tell the master that a starter is silent, or gone for good.
    StarterDown {
        /// Which.
        key: StarterKey,
        /// Gone for good.
        gone: bool,
        /// The evidence.
        why: String,
    },
    /// Tell the master about these proxies.
    ReportProxies(BTreeSet<ProxyId>),
    /// Tell the master.
    ReportNote(Note),
    /// A proxy ended: its tags and secrets can go.
    CleanProxy(ProxyId),
    /// A proxy is forgotten: its directory can go.
    RemoveFiles(ProxyId),
    /// Nothing of ours is left in the batch system, and it agrees.
    ShutdownComplete,
}

/// What a [`Note`] is about; at most one of each is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A submission that will never do.
    Refused,
    /// A limit of the site.
    Limited,
    /// Proxies end without a call from a starter.
    Barren,
}

/// Something for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub topic: Topic,
    /// Is it over?
    pub resolved: bool,
    /// In one line; the batch system's words are kept.
    pub message: String,
    /// The proxy whose output may say more.
    pub proxy: Option<ProxyId>,
}

impl Note {
    /// Does it keep proxies from being submitted until someone acts?
    pub fn blocks(&self) -> bool {
        self.topic == Topic::Refused
    }
}

/// What is known of a proxy, for a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Its number.
    pub id: ProxyId,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// The batch system's id, once known.
    pub batch_id: Option<&'a str>,
    /// Starters connected.
    pub connected: u32,
    /// The evidence for the state.
    pub why: &'a str,
}

/// How a starter stands with us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up,
    /// Not connected since then; what became of the connection.
    Silent(Time, String),
    /// Known to have ended, and why.
    Gone(String),
}
