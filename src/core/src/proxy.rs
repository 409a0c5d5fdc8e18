//! The job proxies of one site: how many there are, what is known of each, what to ask and what to do next. Runs in the event agent.
//!
//! ```text
//! Wanted ─▶ Submitting ─▶ Pend ⇄ Run ─▶ Exit        Unknown stands beside Pend and Run
//! ```
//!
//! Only evidence moves a proxy: a row of the batch system's listing or of its accounting, a starter's connection, the job tags, the
//! exit file. A call that fails says nothing about any proxy.
//!
//! # Why a proxy is submitted once
//!
//! Every submission has a token of its own, `PREFIX` + `PROXY-TRY`, the name of the batch job, and its intent is durable before the
//! command runs. A submission without a clear answer is looked up by its token, and is tried again only when two good listings, begun
//! after the answer and the wait between two status calls apart, don't show it. The next try has a new token: should the first one
//! come to light after all, it is told from the second one and cancelled; with the same token the two would be one.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::ids::{ProxyId, StarterKey};
use crate::time::Time;

/// After so many proxies in succession that ended without a call from a starter, submissions are spaced out.
pub const BARREN_LIMIT: u32 = 3;

/// Longest pause between submissions at a site where they come to nothing.
pub const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// Longest wait between two status calls while the session ends here: a person waits for it.
pub const CLOSING_POLL: Duration = Duration::from_secs(2);

/// Where every starter is connected, the batch system is asked this many times more rarely.
const RARE: u32 = 10;

/// An ended proxy is known for this long after a master was told; and no more than [`MAX_ENDED`] of them.
const KEEP_ENDED: Duration = Duration::from_secs(600);

/// See [`KEEP_ENDED`]: bounds memory when nobody listens.
const MAX_ENDED: usize = 1000;

/// What the master asks of the site's proxies, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Nodes of a proxy, from 1.
    pub nodes: u32,
    /// Proxies queued at once: at most these thousandths of those that run, plus `queued_base`.
    pub queued_permille: u32,
    /// See `queued_permille`.
    pub queued_base: u32,
    /// Least time between two status calls.
    pub status: Duration,
    /// A starter that is silent for this long has ended by itself.
    pub lease: Duration,
}

/// A proxy's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// Not submitted.
    #[n(0)]
    Wanted,
    /// Meant to be submitted; the answer is not known.
    #[n(1)]
    Submitting,
    /// Queued.
    #[n(2)]
    Pend,
    /// Running.
    #[n(3)]
    Run,
    /// Ended.
    #[n(4)]
    Exit,
    /// The batch system doesn't list it, and nothing else tells.
    #[n(5)]
    Unknown,
}

/// A durable step. Records fold into the state with [`Proxies::apply`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// Ids below this one are used up; was anything ever submitted?
    #[n(0)]
    Used(#[n(0)] ProxyId, #[n(1)] bool),
    /// A proxy is to be submitted.
    #[n(1)]
    Wanted(#[n(0)] ProxyId, #[n(1)] Time),
    /// The submit command of this try may run from now on.
    #[n(2)]
    SubmitIntended(#[n(0)] ProxyId, #[n(1)] u32, #[n(2)] Time),
    /// The last try was never accepted, and why we know.
    #[n(3)]
    NotSubmitted(#[n(0)] ProxyId, #[n(1)] String, #[n(2)] Time),
    /// Queued under this id.
    #[n(4)]
    Submitted(#[n(0)] ProxyId, #[n(1)] String, #[n(2)] Time),
    /// Pend, Run or Unknown, the restarts counted by the batch system, and why.
    #[n(5)]
    Moved(
        #[n(0)] ProxyId,
        #[n(1)] State,
        #[n(2)] u32,
        #[n(3)] String,
        #[n(4)] Time,
    ),
    /// It is to end, whatever it runs.
    #[n(6)]
    Removing(#[n(0)] ProxyId),
    /// A starter on this node called.
    #[n(7)]
    StarterSeen(#[n(0)] ProxyId, #[n(1)] u32, #[n(2)] StarterKey),
    /// It is known to have ended, and why.
    #[n(8)]
    StarterGone(#[n(0)] ProxyId, #[n(1)] StarterKey, #[n(2)] String),
    /// Ended, and why.
    #[n(9)]
    Ended(#[n(0)] ProxyId, #[n(1)] String, #[n(2)] Time),
    /// No longer of interest.
    #[n(10)]
    Forgotten(#[n(0)] ProxyId),
}

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
    /// The job tags that are there, and the exit files with their codes.
    TagsListed {
        /// Proxy and node.
        tags: BTreeSet<(ProxyId, u32)>,
        /// Proxies whose script has ended.
        exits: BTreeMap<ProxyId, String>,
    },
    /// The tags could not be read.
    TagsFailed,
    /// A cancel command ended; what was refused, in the batch system's words.
    CancelAnswered(Option<String>),
    /// A master's stream opened and was told everything, or closed.
    MasterLink(bool),
    /// The time of [`Proxies::deadline`] came.
    DeadlinePassed,
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

#[derive(Clone, Debug)]
struct Starter {
    node: u32,
    link: Link,
}

/// A submission without a clear answer.
#[derive(Clone, Copy, Debug)]
struct Lookup {
    since: Time,
    /// When the first good listing without it began.
    absent: Option<Time>,
}

/// A batch job that listings don't show.
#[derive(Clone, Copy, Debug)]
struct Absence {
    /// When the first and the last listing without it began.
    first: Time,
    last: Time,
    /// Accounting was asked since.
    asked: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cancel {
    /// When to say it (again).
    next: Time,
    /// When the batch system took it.
    accepted: Option<Time>,
}

#[derive(Clone, Debug)]
struct Proxy {
    state: State,
    since: Time,
    attempt: u32,
    batch_id: Option<String>,
    /// When the batch id became known.
    queued: Time,
    restarts: u32,
    removing: bool,
    why: String,
    starters: BTreeMap<StarterKey, Starter>,
    lookup: Option<Lookup>,
    absence: Option<Absence>,
    /// The batch system says that it ended, while a starter is still connected.
    ended: Option<String>,
    cancel: Cancel,
    /// When a starter or the state last changed.
    touched: Time,
}

impl Proxy {
    fn new(now: Time) -> Self {
        Proxy {
            state: State::Wanted,
            since: now,
            attempt: 0,
            batch_id: None,
            queued: now,
            restarts: 0,
            removing: false,
            why: "wanted".to_owned(),
            starters: BTreeMap::new(),
            lookup: None,
            absence: None,
            ended: None,
            cancel: Cancel::default(),
            touched: now,
        }
    }

    fn is_live(&self) -> bool {
        self.state != State::Exit
    }

    fn connected(&self) -> usize {
        self.starters.values().filter(|s| s.link == Link::Up).count()
    }

    fn is_submitted(&self) -> bool {
        self.is_live() && self.batch_id.is_some()
    }

    fn enter(&mut self, state: State, why: &str, at: Time) {
        if self.state != state {
            self.since = at;
        }
        self.state = state;
        self.touched = at;
        why.clone_into(&mut self.why);
    }
}

/// The machine.
#[derive(Debug)]
pub struct Proxies {
    prefix: String,
    random: u64,
    config: Config,
    configured: bool,
    target: Option<u32>,
    closing: Option<Time>,
    closed: bool,
    proxies: BTreeMap<ProxyId, Proxy>,
    next_id: u64,
    ever_submitted: bool,
    /// Batch jobs with our prefix that no proxy owns, and when to cancel them (again).
    orphans: BTreeMap<String, Time>,
    submitting: bool,
    /// After an unclear answer: until the batch system gives a good listing.
    paused: bool,
    next_submit: Time,
    limited: u32,
    barren: u32,
    status_began: Option<Time>,
    status_running: bool,
    status_failures: u32,
    jitter: Duration,
    /// When the last good listing began, and whether it was free of batch jobs of ours.
    clean: Option<(Time, bool)>,
    accounting_began: Option<Time>,
    accounting_running: bool,
    accounting_never: bool,
    cancelling: Vec<String>,
    cancel_began: Time,
    cancel_refusal: Option<String>,
    tags_read: Time,
    tags_running: bool,
    notes: BTreeMap<Topic, Note>,
    master: Option<Time>,
    changed: BTreeSet<ProxyId>,
    records: VecDeque<Record>,
    recorded: u64,
    actions: VecDeque<(u64, Action)>,
    deadline: Option<Time>,
}

impl Proxies {
    /// A machine without proxies. Batch jobs are named `prefix` and what this machine adds. Every batch job that it is told of must be of
    /// its session and site, for those that it doesn't know are cancelled: an agent that lost its records has another prefix than the one
    /// before. `seed` is any random number: it spreads the status calls of many agents.
    pub fn new(prefix: &str, seed: u64) -> Self {
        Proxies {
            prefix: prefix.to_owned(),
            random: seed,
            config: Config {
                nodes: 1,
                queued_permille: 0,
                queued_base: 0,
                status: Duration::from_secs(60),
                lease: Duration::from_secs(600),
            },
            configured: false,
            target: None,
            closing: None,
            closed: false,
            proxies: BTreeMap::new(),
            next_id: 1,
            ever_submitted: false,
            orphans: BTreeMap::new(),
            submitting: false,
            paused: false,
            next_submit: Time(0),
            limited: 0,
            barren: 0,
            status_began: None,
            status_running: false,
            status_failures: 0,
            jitter: Duration::ZERO,
            clean: None,
            accounting_began: None,
            accounting_running: false,
            accounting_never: false,
            cancelling: Vec::new(),
            cancel_began: Time(0),
            cancel_refusal: None,
            tags_read: Time(0),
            tags_running: false,
            notes: BTreeMap::new(),
            master: None,
            changed: BTreeSet::new(),
            records: VecDeque::new(),
            recorded: 0,
            actions: VecDeque::new(),
            deadline: None,
        }
    }

    /// Folds a record of an earlier life, in order; [`Event::Recovered`] follows the last one.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Used(next, ever) => {
                self.next_id = self.next_id.max(next.0);
                self.ever_submitted |= ever;
            }
            Record::Wanted(id, at) => {
                self.next_id = self.next_id.max(id.0.saturating_add(1));
                self.proxies.insert(*id, Proxy::new(*at));
            }
            Record::Forgotten(id) => {
                self.proxies.remove(id);
            }
            Record::SubmitIntended(id, ..)
            | Record::NotSubmitted(id, ..)
            | Record::Submitted(id, ..)
            | Record::Moved(id, ..)
            | Record::Removing(id)
            | Record::StarterSeen(id, ..)
            | Record::StarterGone(id, ..)
            | Record::Ended(id, ..) => {
                self.ever_submitted |= matches!(record, Record::SubmitIntended(..));
                if let Some(proxy) = self.proxies.get_mut(id) {
                    fold(proxy, record);
                }
            }
        }
    }

    /// Records that fold into the present state: what a snapshot holds.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut out = alloc::vec![Record::Used(ProxyId(self.next_id), self.ever_submitted)];
        for (&id, proxy) in &self.proxies {
            out.push(Record::Wanted(id, proxy.since));
            if proxy.attempt > 0 {
                out.push(Record::SubmitIntended(id, proxy.attempt, proxy.since));
            }
            if let Some(batch_id) = &proxy.batch_id {
                out.push(Record::Submitted(id, batch_id.clone(), proxy.queued));
            }
            for (&key, starter) in &proxy.starters {
                out.push(Record::StarterSeen(id, starter.node, key));
                if let Link::Gone(why) = &starter.link {
                    out.push(Record::StarterGone(id, key, why.clone()));
                }
            }
            if proxy.removing {
                out.push(Record::Removing(id));
            }
            match proxy.state {
                State::Wanted if proxy.attempt > 0 => {
                    out.push(Record::NotSubmitted(id, proxy.why.clone(), proxy.since));
                }
                State::Wanted | State::Submitting => {}
                State::Pend | State::Run | State::Unknown => {
                    out.push(Record::Moved(
                        id,
                        proxy.state,
                        proxy.restarts,
                        proxy.why.clone(),
                        proxy.since,
                    ));
                }
                State::Exit => out.push(Record::Ended(id, proxy.why.clone(), proxy.since)),
            }
        }
        out
    }

    /// The next record to make durable. Records are numbered from 1 as they come.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// The next action, and the number of the record that must be durable before it is done.
    pub fn poll_action(&mut self) -> Option<(u64, Action)> {
        self.actions.pop_front()
    }

    /// When [`Event::DeadlinePassed`] is due, unless something happens before.
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Every proxy known, in order.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.proxies.keys().filter_map(|&id| self.view(id))
    }

    /// One proxy.
    pub fn view(&self, id: ProxyId) -> Option<View<'_>> {
        let proxy = self.proxies.get(&id)?;
        Some(View {
            id,
            state: proxy.state,
            since: proxy.since,
            batch_id: proxy.batch_id.as_deref(),
            connected: u32::try_from(proxy.connected()).unwrap_or(u32::MAX),
            why: &proxy.why,
        })
    }

    /// Every starter known, with its proxy.
    pub fn starters(&self) -> impl Iterator<Item = (ProxyId, StarterKey, &Link)> {
        self.proxies.iter().flat_map(|(&id, proxy)| {
            proxy
                .starters
                .iter()
                .map(move |(&key, starter)| (id, key, &starter.link))
        })
    }

    /// What the user should know now.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.values()
    }

    /// Batch jobs that may still be there, and submissions whose fate is not known: what an impatient shutdown leaves.
    pub fn remains(&self) -> (Vec<String>, Vec<String>) {
        let mut ids: BTreeSet<&String> = self.orphans.keys().collect();
        let mut tokens = Vec::new();
        for (&id, proxy) in self.proxies.iter().filter(|(_, p)| p.is_live()) {
            match &proxy.batch_id {
                Some(batch_id) => {
                    ids.insert(batch_id);
                }
                None if proxy.state == State::Submitting => tokens.push(self.token(id, proxy.attempt)),
                None => {}
            }
        }
        (ids.into_iter().cloned().collect(), tokens)
    }

    /// What the last refused cancel said, if any did.
    pub fn cancel_refusal(&self) -> Option<&str> {
        self.cancel_refusal.as_deref()
    }

    fn token(&self, id: ProxyId, attempt: u32) -> String {
        format!("{}{id}-{attempt}", self.prefix)
    }

    fn parse_token(&self, token: &str) -> Option<(ProxyId, u32)> {
        let (id, attempt) = token.strip_prefix(&self.prefix)?.split_once('-')?;
        let pair = (ProxyId(id.parse().ok()?), attempt.parse().ok()?);
        (self.token(pair.0, pair.1) == token).then_some(pair)
    }

    fn record(&mut self, record: Record) {
        self.apply(&record);
        if let Record::Wanted(id, _)
        | Record::SubmitIntended(id, ..)
        | Record::NotSubmitted(id, ..)
        | Record::Submitted(id, ..)
        | Record::Moved(id, ..)
        | Record::Ended(id, ..) = record
        {
            self.changed.insert(id);
        }
        self.recorded += 1;
        self.records.push_back(record);
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back((self.recorded, action));
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Recovered => self.on_recovered(now),
            Event::Configured(config) => {
                self.config = config;
                self.configured = true;
                self.unblock(now);
            }
            Event::TargetSet(target) => {
                self.target = Some(target);
                self.unblock(now);
            }
            Event::RemovalAsked(ids) => {
                for id in ids {
                    self.remove(now, id, "removed, as asked");
                }
            }
            Event::ShutdownAsked => {
                self.closing.get_or_insert(now);
                for id in self.live() {
                    self.remove(now, id, "the session ends");
                }
            }
            Event::SubmitAnswered { proxy, attempt, answer } => self.on_submit_answered(now, proxy, attempt, answer),
            Event::StatusListed(rows) => self.on_status(now, rows),
            Event::StatusFailed(why) => {
                self.status_running = false;
                self.status_failures = self.status_failures.saturating_add(1);
                self.draw_jitter();
                for (&id, proxy) in self.proxies.iter_mut().filter(|(_, p)| p.state == State::Unknown) {
                    proxy.why = format!("not listed; then no answer: {why}");
                    self.changed.insert(id);
                }
            }
            Event::AccountingListed(rows) => self.on_accounting(now, &rows),
            Event::AccountingFailed { never } => {
                self.accounting_running = false;
                self.accounting_never |= never;
                self.accounting_was_asked();
            }
            Event::StarterConnected {
                proxy,
                node,
                key,
                batch_id,
                restarts,
            } => {
                self.on_starter(now, proxy, node, key, &batch_id, restarts);
            }
            Event::StarterLost {
                proxy,
                key,
                left,
                heard,
                why,
            } => self.on_starter_lost(now, proxy, key, left, heard, &why),
            Event::TagsListed { tags, exits } => self.on_tags(now, &tags, &exits),
            Event::TagsFailed => self.tags_running = false,
            Event::CancelAnswered(refusal) => self.on_cancel_answered(now, refusal),
            Event::MasterLink(up) => self.master = up.then_some(now),
            Event::DeadlinePassed => {}
        }
        self.settle(now);
    }

    fn live(&self) -> Vec<ProxyId> {
        self.proxies
            .iter()
            .filter(|(_, p)| p.is_live())
            .map(|(&id, _)| id)
            .collect()
    }

    fn on_recovered(&mut self, now: Time) {
        for proxy in self.proxies.values_mut().filter(|p| p.is_live()) {
            proxy.touched = now;
            if proxy.state == State::Submitting {
                proxy.lookup = Some(Lookup {
                    since: now,
                    absent: None,
                });
                "the agent ended during the submission; its name is looked up".clone_into(&mut proxy.why);
            }
            if proxy.state == State::Unknown {
                proxy.absence = Some(Absence {
                    first: now,
                    last: now,
                    asked: false,
                });
            }
            for starter in proxy.starters.values_mut() {
                if !matches!(starter.link, Link::Gone(_)) {
                    starter.link = Link::Silent(now, "the agent was started again".to_owned());
                }
            }
        }
    }

    fn unblock(&mut self, now: Time) {
        self.next_submit = now;
        self.resolve(Topic::Refused);
    }

    fn note(&mut self, topic: Topic, message: String, proxy: Option<ProxyId>) {
        let note = Note {
            topic,
            resolved: false,
            message,
            proxy,
        };
        if self.notes.insert(topic, note.clone()).as_ref() != Some(&note) {
            self.act(Action::ReportNote(note));
        }
    }

    fn resolve(&mut self, topic: Topic) {
        if let Some(note) = self.notes.remove(&topic) {
            self.act(Action::ReportNote(Note { resolved: true, ..note }));
        }
    }

    fn remove(&mut self, now: Time, id: ProxyId, why: &str) {
        match self.proxies.get(&id) {
            Some(proxy) if proxy.state == State::Wanted => self.end(now, id, why.to_owned()),
            Some(proxy) if proxy.is_live() && !proxy.removing => self.record(Record::Removing(id)),
            _ => return,
        }
        if let Some(proxy) = self.proxies.get_mut(&id).filter(|p| p.is_live()) {
            proxy.cancel = Cancel {
                next: now,
                accepted: None,
            };
            why.clone_into(&mut proxy.why);
            self.changed.insert(id);
        }
    }

    fn on_submit_answered(&mut self, now: Time, id: ProxyId, attempt: u32, answer: SubmitAnswer) {
        self.submitting = false;
        let current = self
            .proxies
            .get(&id)
            .is_some_and(|p| p.is_live() && p.attempt == attempt);
        let known = self.proxies.get(&id).and_then(|p| p.batch_id.clone());
        match answer {
            SubmitAnswer::Accepted(batch_id) => {
                self.limited = 0;
                self.resolve(Topic::Limited);
                if known.as_ref() == Some(&batch_id) {
                } else if current && known.is_none() {
                    self.queued(now, id, batch_id);
                } else {
                    self.orphans.insert(batch_id, now);
                }
            }
            _ if !current || known.is_some() => {}
            SubmitAnswer::Refused(message) => {
                self.note(Topic::Refused, message.clone(), None);
                self.end(now, id, format!("refused: {message}"));
            }
            SubmitAnswer::Limited(message) => {
                self.limited = self.limited.saturating_add(1);
                self.next_submit = now + self.pause(self.limited);
                self.not_submitted(now, id, message.clone());
                self.note(Topic::Limited, message, None);
            }
            SubmitAnswer::Unclear(message) => {
                self.paused = true;
                if let Some(proxy) = self.proxies.get_mut(&id) {
                    proxy.why = format!("no clear answer ({message}); its name is looked up");
                    proxy.lookup = Some(Lookup {
                        since: now,
                        absent: None,
                    });
                    self.changed.insert(id);
                }
            }
        }
    }

    /// Pause after so many failures in succession: the status interval, doubled each time.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = 1 << failures.saturating_sub(1).min(16);
        self.config.status.saturating_mul(doubled).min(MAX_PAUSE)
    }

    fn queued(&mut self, now: Time, id: ProxyId, batch_id: String) {
        self.record(Record::Submitted(id, batch_id, now));
    }

    fn not_submitted(&mut self, now: Time, id: ProxyId, why: String) {
        if self.proxies.get(&id).is_some_and(|p| p.removing) {
            self.end(now, id, why);
        } else {
            self.record(Record::NotSubmitted(id, why, now));
        }
    }

    fn end(&mut self, now: Time, id: ProxyId, why: String) {
        let Some(proxy) = self.proxies.get(&id).filter(|p| p.is_live()) else {
            return;
        };
        let silent: Vec<_> = proxy
            .starters
            .iter()
            .filter(|(_, s)| !matches!(s.link, Link::Gone(_)))
            .map(|(&key, _)| key)
            .collect();
        let barren = proxy.is_submitted() && !proxy.removing && proxy.starters.is_empty();
        let submitted = proxy.attempt > 0;
        self.record(Record::Ended(id, why.clone(), now));
        for key in silent {
            self.starter_gone(id, key, format!("its proxy ended: {why}"));
        }
        if barren {
            self.barren = self.barren.saturating_add(1);
            if self.barren >= BARREN_LIMIT {
                self.next_submit = self.next_submit.max(now + self.pause(self.barren - BARREN_LIMIT + 1));
                let message = format!(
                    "{} proxies in succession ended before a starter called back; the last one: {why}",
                    self.barren
                );
                self.note(Topic::Barren, message, Some(id));
            }
        } else if self.limited > 0 && submitted {
            // There is room again below the limit that we met.
            self.next_submit = now;
        }
        if submitted {
            self.act(Action::CleanProxy(id));
        }
    }

    fn starter_gone(&mut self, id: ProxyId, key: StarterKey, why: String) {
        self.record(Record::StarterGone(id, key, why.clone()));
        self.act(Action::StarterDown { key, gone: true, why });
    }

    fn moved(&mut self, now: Time, id: ProxyId, state: State, restarts: u32, why: &str) {
        let Some(proxy) = self.proxies.get_mut(&id) else {
            return;
        };
        if proxy.state != state || proxy.restarts != restarts {
            self.record(Record::Moved(id, state, restarts, why.to_owned(), now));
        } else if proxy.why != why {
            why.clone_into(&mut proxy.why);
            self.changed.insert(id);
        }
    }

    fn draw_jitter(&mut self) {
        // SplitMix64 (Steele, Lea, Flood 2014): a tenth of the interval needs no better one.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.jitter = self.config.status / 10 * u32::try_from((mixed >> 32) % 100).unwrap_or(0) / 100;
    }

    fn on_status(&mut self, now: Time, rows: Vec<Row>) {
        let began = self.status_began.unwrap_or(now);
        self.status_running = false;
        self.status_failures = 0;
        self.paused = false;
        self.draw_jitter();
        self.clean = Some((began, rows.iter().all(|row| matches!(row.status, RowStatus::Ended(_)))));
        // Those cancelled before and not listed any more are gone.
        self.orphans.retain(|id, _| rows.iter().any(|row| row.batch_id == *id));

        let mut listed = BTreeSet::new();
        for row in rows {
            let over = matches!(row.status, RowStatus::Ended(_));
            let Some((id, attempt)) = self.parse_token(&row.token) else {
                if !over {
                    self.orphans.entry(row.batch_id).or_insert(now);
                }
                continue;
            };
            let owner = match self.proxies.get(&id) {
                Some(proxy) if proxy.is_live() => match &proxy.batch_id {
                    Some(batch_id) => *batch_id == row.batch_id,
                    None => {
                        let ours = proxy.attempt == attempt;
                        if ours {
                            self.queued(now, id, row.batch_id.clone());
                        }
                        ours
                    }
                },
                // The batch system may take a while to see what the exit file told us.
                Some(proxy) => proxy.since + self.config.status > began || matches!(row.status, RowStatus::Ending),
                None => false,
            };
            if over {
                self.orphans.remove(&row.batch_id);
            }
            if owner {
                listed.insert(id);
                self.judge(now, id, row);
            } else if !over {
                self.orphans.entry(row.batch_id).or_insert(now);
            }
        }
        for id in self.live() {
            if !listed.contains(&id) {
                self.not_listed(now, id, began);
            }
        }
    }

    /// A row of a listing says what it says about a proxy.
    fn judge(&mut self, now: Time, id: ProxyId, row: Row) {
        let Some(proxy) = self.proxies.get_mut(&id).filter(|p| p.is_live()) else {
            return;
        };
        proxy.absence = None;
        let connected = proxy.connected() > 0;
        let restarted = row.restarts > proxy.restarts;
        let restarts = row.restarts.max(proxy.restarts);
        match row.status {
            RowStatus::Pending(_) | RowStatus::Running if connected && !restarted => {}
            RowStatus::Pending(reason) => {
                self.moved(now, id, State::Pend, restarts, &reason);
            }
            RowStatus::Running => {
                self.moved(
                    now,
                    id,
                    State::Run,
                    restarts,
                    "the batch system says that it runs; no starter is connected",
                );
            }
            RowStatus::Ended(why) if connected => proxy.ended = Some(why),
            RowStatus::Ended(why) => self.end(now, id, why),
            RowStatus::Ending | RowStatus::Unclear(_) if connected => {}
            RowStatus::Ending => {
                let (state, restarts) = (proxy.state, proxy.restarts);
                self.moved(now, id, state, restarts, "the batch system is ending it");
            }
            RowStatus::Unclear(raw) => {
                let (state, restarts) = (proxy.state, proxy.restarts);
                self.moved(now, id, state, restarts, &raw);
            }
        }
        if restarted {
            self.act(Action::MakeTags(id));
        }
    }

    /// A good listing that began at `began` doesn't show a live proxy.
    fn not_listed(&mut self, now: Time, id: ProxyId, began: Time) {
        let gap = if self.closing.is_some() {
            self.config.status.min(CLOSING_POLL * 5)
        } else {
            self.config.status
        };
        let Some(proxy) = self.proxies.get_mut(&id) else {
            return;
        };
        if let Some(lookup) = &mut proxy.lookup {
            match lookup.absent {
                _ if lookup.since > began => {}
                None => lookup.absent = Some(began),
                Some(first) if began >= first + gap => {
                    self.not_submitted(now, id, "two listings don't show it: it was never accepted".to_owned());
                }
                Some(_) => {}
            }
            return;
        }
        // A submission may have come after the listing; and a connected starter is stronger evidence than a missing row.
        if proxy.batch_id.is_none() || proxy.queued >= began || proxy.connected() > 0 {
            return;
        }
        if proxy.removing && proxy.cancel.accepted.is_some_and(|at| at <= began) {
            self.end(
                now,
                id,
                "cancelled; the batch system doesn't list it any more".to_owned(),
            );
            return;
        }
        match &mut proxy.absence {
            Some(absence) => absence.last = began,
            None => {
                proxy.absence = Some(Absence {
                    first: began,
                    last: began,
                    asked: false,
                });
                let restarts = proxy.restarts;
                self.moved(now, id, State::Unknown, restarts, "the batch system doesn't list it");
            }
        }
    }

    fn accounting_was_asked(&mut self) {
        let began = self.accounting_began.unwrap_or_default();
        for absence in self.proxies.values_mut().filter_map(|p| p.absence.as_mut()) {
            absence.asked |= absence.first <= began;
        }
    }

    fn on_accounting(&mut self, now: Time, rows: &[Row]) {
        self.accounting_running = false;
        self.accounting_was_asked();
        for row in rows {
            let Some((id, _)) = self.parse_token(&row.token) else {
                continue;
            };
            let Some(proxy) = self.proxies.get(&id) else {
                continue;
            };
            if proxy.absence.is_some()
                && proxy.batch_id.as_ref() == Some(&row.batch_id)
                && row.restarts >= proxy.restarts
                && let RowStatus::Ended(why) = &row.status
            {
                self.end(now, id, format!("accounting: {why}"));
            }
        }
    }

    fn on_starter(&mut self, now: Time, id: ProxyId, node: u32, key: StarterKey, batch_id: &str, restarts: u32) {
        let refusal = match self.proxies.get(&id) {
            None => Some("its proxy is not known"),
            Some(proxy) if !proxy.is_live() => Some("its proxy counts as ended"),
            Some(proxy) if proxy.removing => Some("its proxy is to end"),
            Some(proxy) if proxy.state == State::Wanted && proxy.attempt == 0 => Some("its proxy was never submitted"),
            Some(proxy) if restarts < proxy.restarts => Some("its batch job was started again"),
            Some(proxy)
                if matches!(
                    proxy.starters.get(&key),
                    Some(Starter {
                        link: Link::Gone(_),
                        ..
                    })
                ) =>
            {
                Some("it counts as ended")
            }
            // Only then can there be two batch jobs of this proxy.
            Some(proxy) if proxy.attempt > 1 && proxy.batch_id.as_deref().is_some_and(|known| known != batch_id) => {
                Some("another batch job is its proxy")
            }
            Some(_) => None,
        };
        if let Some(why) = refusal {
            self.act(Action::EndStarter(key, why.to_owned()));
            return;
        }
        if self.proxies.get(&id).is_some_and(|p| p.batch_id.is_none()) && !batch_id.is_empty() {
            self.queued(now, id, batch_id.to_owned());
        }
        if self.proxies.get(&id).is_some_and(|p| !p.starters.contains_key(&key)) {
            self.record(Record::StarterSeen(id, node, key));
        }
        if let Some(proxy) = self.proxies.get_mut(&id) {
            if let Some(starter) = proxy.starters.get_mut(&key) {
                starter.link = Link::Up;
            }
            proxy.absence = None;
            proxy.touched = now;
        }
        self.barren = 0;
        self.resolve(Topic::Barren);
        self.changed.insert(id);
        let restarted = self.proxies.get(&id).is_some_and(|proxy| restarts > proxy.restarts);
        self.moved(now, id, State::Run, restarts, "starters are connected");
        if restarted {
            self.act(Action::MakeTags(id));
        }
        self.act(Action::Welcome(key));
    }

    fn on_starter_lost(
        &mut self,
        now: Time,
        id: ProxyId,
        key: StarterKey,
        left: Option<String>,
        heard: Time,
        why: &str,
    ) {
        let Some(proxy) = self.proxies.get_mut(&id) else {
            return;
        };
        let Some(starter) = proxy.starters.get_mut(&key).filter(|s| s.link == Link::Up) else {
            return;
        };
        starter.link = Link::Silent(heard, why.to_owned());
        proxy.touched = now;
        self.changed.insert(id);
        let rest = proxy.connected();
        let ended = proxy.ended.take().filter(|_| rest == 0);
        if rest == 0 {
            proxy.why = format!(
                "no starter is connected; the last one: {}",
                left.as_deref().unwrap_or(why)
            );
        }
        match left {
            Some(left) => self.starter_gone(id, key, format!("it left: {left}")),
            None => self.act(Action::StarterDown {
                key,
                gone: false,
                why: why.to_owned(),
            }),
        }
        if let Some(why) = ended {
            self.end(now, id, why);
        }
    }

    fn on_tags(&mut self, now: Time, tags: &BTreeSet<(ProxyId, u32)>, exits: &BTreeMap<ProxyId, String>) {
        self.tags_running = false;
        for id in self.live() {
            let Some(proxy) = self.proxies.get(&id).filter(|p| p.batch_id.is_some()) else {
                continue;
            };
            // Its tags were made before it was submitted. So this reading began after that, unless it was queued while we read.
            if proxy.queued >= self.tags_read {
                continue;
            }
            if let Some(code) = exits.get(&id) {
                self.end(now, id, format!("its script ended with exit code {code}"));
                continue;
            }
            if proxy.connected() == 0 && tags.range((id, 0)..=(id, u32::MAX)).next().is_none() {
                self.end(now, id, "its job tags are gone".to_owned());
                continue;
            }
            let gone: Vec<_> = proxy
                .starters
                .iter()
                .filter(|(_, s)| matches!(s.link, Link::Silent(..)) && !tags.contains(&(id, s.node)))
                .map(|(&key, _)| key)
                .collect();
            for key in gone {
                self.starter_gone(id, key, "its job tag is gone".to_owned());
            }
        }
    }

    fn on_cancel_answered(&mut self, now: Time, refusal: Option<String>) {
        let ids = core::mem::take(&mut self.cancelling);
        let again = now
            + if self.closing.is_some() {
                CLOSING_POLL * 5
            } else {
                self.config.status
            };
        for proxy in self
            .proxies
            .values_mut()
            .filter(|p| p.batch_id.as_ref().is_some_and(|id| ids.contains(id)))
        {
            proxy.cancel.next = again;
            if refusal.is_none() {
                proxy.cancel.accepted = Some(self.cancel_began);
            }
        }
        for id in &ids {
            if let Some(next) = self.orphans.get_mut(id) {
                *next = again;
            }
        }
        self.cancel_refusal = refusal;
    }

    /// Does what is due, and sets the deadline for what is not.
    fn settle(&mut self, now: Time) {
        let mut wake = Wake { now, next: None };
        self.expire(&mut wake);
        self.keep_target(&mut wake);
        self.cancel_due(&mut wake);
        self.ask_status(&mut wake);
        self.ask_accounting(&mut wake);
        self.read_tags(&mut wake);
        self.forget(&mut wake);
        self.finish(now);
        self.deadline = wake.next;
        if !self.changed.is_empty() {
            let changed = core::mem::take(&mut self.changed);
            self.act(Action::ReportProxies(changed));
        }
    }

    /// Silence that has lasted long enough.
    fn expire(&mut self, wake: &mut Wake) {
        let grace = self.config.lease.max(self.config.status * 2);
        let mut gone = Vec::new();
        let mut lost = Vec::new();
        for (&id, proxy) in self.proxies.iter().filter(|(_, p)| p.is_live()) {
            for (&key, starter) in &proxy.starters {
                if let Link::Silent(since, _) = starter.link
                    && wake.due(since + self.config.lease)
                {
                    gone.push((id, key));
                }
            }
            if let Some(absence) = proxy.absence
                && absence.last > absence.first
                && (absence.asked || self.accounting_never)
                && proxy.connected() == 0
                && wake.due(absence.first + grace)
            {
                lost.push(id);
            }
        }
        for (id, key) in gone {
            self.starter_gone(id, key, "its lease is over".to_owned());
        }
        for id in lost {
            let why = "lost: no listing shows it, accounting tells no end, its tags are there, no exit file, no starter calls";
            self.end(wake.now, id, why.to_owned());
        }
    }

    fn keep_target(&mut self, wake: &mut Wake) {
        let Some(target) = self.target.filter(|_| self.configured && self.closing.is_none()) else {
            return;
        };
        let counted: Vec<_> = self
            .proxies
            .iter()
            .filter(|(_, p)| p.is_live() && !p.removing)
            .map(|(&id, p)| (id, p.state))
            .collect();
        let target = target as usize;
        let surplus = counted.len().saturating_sub(target);
        let unsubmitted = counted
            .iter()
            .rev()
            .filter(|(_, state)| *state == State::Wanted)
            .take(surplus);
        for &(id, _) in unsubmitted {
            self.end(wake.now, id, "no longer wanted".to_owned());
        }
        let blocked = self.notes.values().any(Note::blocks);
        if blocked {
            return;
        }
        for _ in counted.len()..target {
            self.record(Record::Wanted(ProxyId(self.next_id), wake.now));
        }
        if self.submitting || self.paused {
            return;
        }
        let (mut running, mut queued, mut first) = (0usize, 0usize, None);
        for (&id, proxy) in self.proxies.iter().filter(|(_, p)| p.is_live()) {
            match proxy.state {
                State::Run => running += 1,
                State::Wanted => first = first.or(Some((id, proxy.attempt))),
                _ => queued += 1,
            }
        }
        let room =
            running.saturating_mul(self.config.queued_permille as usize) / 1000 + self.config.queued_base as usize;
        let Some((proxy, attempt)) = first.filter(|_| queued < room) else {
            return;
        };
        if wake.due(self.next_submit) {
            let attempt = attempt.saturating_add(1);
            self.submitting = true;
            self.record(Record::SubmitIntended(proxy, attempt, wake.now));
            let token = self.token(proxy, attempt);
            self.act(Action::SubmitProxy { proxy, attempt, token });
        }
    }

    fn cancel_due(&mut self, wake: &mut Wake) {
        if !self.cancelling.is_empty() {
            return;
        }
        let removing = self.proxies.values().filter(|p| p.is_live() && p.removing);
        let ids: BTreeSet<String> = removing
            .filter_map(|p| p.batch_id.clone().map(|id| (id, p.cancel.next)))
            .chain(self.orphans.iter().map(|(id, &next)| (id.clone(), next)))
            .filter_map(|(id, next)| wake.due(next).then_some(id))
            .collect();
        if !ids.is_empty() {
            self.cancelling = ids.into_iter().collect();
            self.cancel_began = wake.now;
            self.act(Action::CancelProxies(self.cancelling.clone()));
        }
    }

    /// When the batch system should be asked next, if at all.
    fn status_due(&self) -> Option<Time> {
        let status = self.config.status;
        let last = self.status_began;
        if let Some(closing) = self.closing {
            // Twice as long after each, so that a batch system that agrees at once keeps nobody waiting.
            let pace = |last: Time| last.since(closing).clamp(CLOSING_POLL / 8, CLOSING_POLL);
            return Some(last.map_or(closing, |last| (last + pace(last)).max(closing)));
        }
        let mut need: Option<(Time, bool)> = None;
        for proxy in self.proxies.values().filter(|p| p.is_live()) {
            let all = proxy.connected() >= self.config.nodes as usize;
            let (since, rare) = match proxy.state {
                _ if proxy.lookup.is_some() => (Time(0), false),
                State::Pend | State::Unknown => (proxy.since + status, false),
                State::Run if proxy.removing || !all => (proxy.touched + status, false),
                State::Run => (proxy.touched + status * RARE, true),
                _ => continue,
            };
            let (earliest, rarely) = need.unwrap_or((since, rare));
            need = Some((earliest.min(since), rarely && rare));
        }
        if self.paused || !self.orphans.is_empty() {
            need = Some((Time(0), false));
        }
        let (since, rare) = need?;
        let failures = 1 << self.status_failures.min(3);
        let interval = status * if rare { RARE } else { failures } + self.jitter;
        Some(last.map_or(since, |last| since.max(last + interval)))
    }

    fn ask_status(&mut self, wake: &mut Wake) {
        if self.status_running || self.closed || !self.configured || (self.closing.is_some() && !self.ever_submitted) {
            return;
        }
        if self.status_due().is_some_and(|at| wake.due(at)) {
            self.status_running = true;
            self.status_began = Some(wake.now);
            self.act(Action::QueryStatus);
        }
    }

    fn ask_accounting(&mut self, wake: &mut Wake) {
        if self.accounting_running || self.accounting_never || self.closing.is_some() || !self.configured {
            return;
        }
        let wanted = self.proxies.values().any(|p| p.is_live() && p.absence.is_some());
        let next = self.accounting_began.map_or(Time(0), |last| last + self.config.status);
        if wanted && wake.due(next) {
            self.accounting_running = true;
            self.accounting_began = Some(wake.now);
            self.act(Action::QueryAccounting);
        }
    }

    /// Tags and exit files are read while starters are missing: often at first, when a proxy has just started or ended.
    fn read_tags(&mut self, wake: &mut Wake) {
        if self.tags_running || self.closed {
            return;
        }
        let silent = |p: &&Proxy| p.is_submitted() && p.connected() < self.config.nodes as usize;
        let Some(touched) = self.proxies.values().filter(silent).map(|p| p.touched).max() else {
            return;
        };
        let period = match wake.now.since(touched).as_secs() {
            0..30 => Duration::from_secs(1),
            30..600 => Duration::from_secs(10),
            _ => Duration::from_secs(60),
        };
        if wake.due(self.tags_read + period) {
            self.tags_running = true;
            self.tags_read = wake.now;
            self.act(Action::ReadTags);
        }
    }

    fn forget(&mut self, wake: &mut Wake) {
        let ended: Vec<_> = self
            .proxies
            .iter()
            .filter(|(_, p)| !p.is_live())
            .map(|(&id, p)| (id, p.since))
            .collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        for (place, (id, since)) in ended.into_iter().enumerate() {
            if place < surplus || self.master.is_some_and(|told| wake.due(since.max(told) + KEEP_ENDED)) {
                self.record(Record::Forgotten(id));
                self.act(Action::RemoveFiles(id));
            }
        }
    }

    fn finish(&mut self, now: Time) {
        let Some(closing) = self.closing.filter(|_| !self.closed) else {
            return;
        };
        let last = self
            .proxies
            .values()
            .filter(|p| p.attempt > 0)
            .map(|p| p.since)
            .fold(closing, Time::max)
            .min(now);
        let agreed = !self.ever_submitted || self.clean.is_some_and(|(began, clean)| clean && began >= last);
        let idle = !self.submitting && self.cancelling.is_empty() && self.orphans.is_empty();
        if agreed && idle && self.live().is_empty() {
            self.closed = true;
            self.act(Action::ShutdownComplete);
        }
    }
}

/// Folds a record into its proxy.
fn fold(proxy: &mut Proxy, record: &Record) {
    match record {
        Record::SubmitIntended(_, attempt, at) => {
            proxy.attempt = *attempt;
            proxy.enter(State::Submitting, "being submitted", *at);
        }
        Record::NotSubmitted(_, why, at) => {
            proxy.lookup = None;
            proxy.enter(State::Wanted, why, *at);
        }
        Record::Submitted(_, batch_id, at) => {
            proxy.batch_id = Some(batch_id.clone());
            proxy.queued = *at;
            proxy.lookup = None;
            proxy.enter(State::Pend, "queued", *at);
        }
        Record::Moved(_, state, restarts, why, at) => {
            proxy.restarts = *restarts;
            proxy.enter(*state, why, *at);
        }
        Record::Removing(_) => proxy.removing = true,
        Record::StarterSeen(_, node, key) => {
            let link = Link::Silent(proxy.since, String::new());
            proxy.starters.insert(*key, Starter { node: *node, link });
        }
        Record::StarterGone(_, key, why) => {
            if let Some(starter) = proxy.starters.get_mut(key) {
                starter.link = Link::Gone(why.clone());
            }
        }
        Record::Ended(_, why, at) => {
            proxy.lookup = None;
            proxy.absence = None;
            proxy.enter(State::Exit, why, *at);
        }
        Record::Used(..) | Record::Wanted(..) | Record::Forgotten(_) => {}
    }
}

/// Collects the next deadline.
struct Wake {
    now: Time,
    next: Option<Time>,
}

impl Wake {
    /// Has the time come? If not, it is one to wake up at.
    fn due(&mut self, at: Time) -> bool {
        if at <= self.now {
            return true;
        }
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        false
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            State::Wanted => "WANTED",
            State::Submitting => "SUBMITTING",
            State::Pend => "PEND",
            State::Run => "RUN",
            State::Exit => "EXIT",
            State::Unknown => "UNKNOWN",
        })
    }
}
