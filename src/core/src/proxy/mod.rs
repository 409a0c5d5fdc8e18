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

mod due;
mod event;
mod evidence;
mod record;
mod submit;
mod why;

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::ids::{ProxyId, StarterKey};
use crate::time::Time;

use due::Wake;
pub use event::{Action, Event, Exit, Link, Note, Row, RowStatus, SubmitAnswer, Topic, View};
pub use record::{Entry, Record, State};
pub use why::Step;

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
    /// After so long without a master nothing is submitted: a new starter would have nobody to give it work.
    pub absence: Duration,
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
    /// When its batch job was last seen to have been started anew, in this life of ours.
    renewed: Time,
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
            renewed: Time(0),
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

/// The first record of a table that the agent of this epoch begins at this time of day. A later agent finds none if the session had
/// ended at the site, or its table was lost: then its proxies get other numbers than those before, by the time. What the batch system
/// had hidden of those may run after all, and leaves its files by their numbers.
pub fn first_record(epoch: u64, now: u64) -> Record {
    Record::Used(ProxyId(if epoch > 1 { 1000 + now / 100 % 10_000_000 } else { 1 }), false)
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
    /// What the last failed status call said, and when.
    status_said: Option<(Time, String)>,
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
    /// When a master's stream opened; while there is none, when the last one closed.
    master: Option<Time>,
    away: Option<Time>,
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
                absence: Duration::from_secs(1200),
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
            status_said: None,
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
            away: None,
            changed: BTreeSet::new(),
            records: VecDeque::new(),
            recorded: 0,
            actions: VecDeque::new(),
            deadline: None,
        }
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
        self.proxies
            .iter()
            .flat_map(|(&id, proxy)| proxy.starters.iter().map(move |(&key, starter)| (id, key, &starter.link)))
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
                self.status_said = Some((now, why.clone()));
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
            Event::StarterConnected { proxy, node, key, batch_id, restarts } => {
                self.on_starter(now, proxy, node, key, &batch_id, restarts);
            }
            Event::StarterLost { proxy, key, left, heard, why } => {
                self.on_starter_lost(now, proxy, key, left, heard, &why);
            }
            Event::TagsListed { tags, exits } => self.on_tags(now, &tags, &exits),
            Event::TagsFailed => self.tags_running = false,
            Event::CancelAnswered(refusal) => self.on_cancel_answered(now, refusal),
            Event::MasterLink(up) => {
                self.master = up.then_some(now);
                self.away = (!up).then_some(now);
            }
            Event::MasterMissed(why) => {
                self.target = Some(0);
                // Without a starter there is no work to lose. One that ever had any may only seem to wait: a batch system that was
                // killed and started again lists what runs as pending.
                let waiting = self.proxies.iter().filter(|(_, p)| p.is_live() && p.starters.is_empty());
                let waiting: Vec<_> = waiting
                    .filter(|(_, p)| !matches!(p.state, State::Run | State::Unknown))
                    .map(|(&id, _)| id)
                    .collect();
                for id in waiting {
                    self.remove(now, id, &why);
                }
            }
            Event::DeadlinePassed => {}
        }
        self.settle(now);
    }

    fn live(&self) -> Vec<ProxyId> {
        self.proxies.iter().filter(|(_, p)| p.is_live()).map(|(&id, _)| id).collect()
    }

    fn on_recovered(&mut self, now: Time) {
        for proxy in self.proxies.values_mut().filter(|p| p.is_live()) {
            proxy.touched = now;
            if proxy.state == State::Submitting {
                proxy.lookup = Some(Lookup { since: now, absent: None });
                "the agent ended during the submission; its name is looked up".clone_into(&mut proxy.why);
            }
            if proxy.state == State::Unknown {
                proxy.absence = Some(Absence { first: now, last: now, asked: false });
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
        let note = Note { topic, resolved: false, message, proxy };
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
            Some(proxy) if proxy.is_live() && !proxy.removing => {
                self.record(Record::Removing(id, Some(now), Some(why.to_owned())));
            }
            _ => return,
        }
        if let Some(proxy) = self.proxies.get_mut(&id).filter(|p| p.is_live()) {
            proxy.cancel = Cancel { next: now, accepted: None };
            why.clone_into(&mut proxy.why);
            self.changed.insert(id);
        }
    }

    fn end(&mut self, now: Time, id: ProxyId, why: String) {
        let Some(proxy) = self.proxies.get(&id).filter(|p| p.is_live()) else {
            return;
        };
        let silent: Vec<_> =
            proxy.starters.iter().filter(|(_, s)| !matches!(s.link, Link::Gone(_))).map(|(&key, _)| key).collect();
        let barren = proxy.is_submitted() && !proxy.removing && proxy.starters.is_empty();
        let submitted = proxy.attempt > 0;
        self.record(Record::Ended(id, why.clone(), now));
        for key in silent {
            self.starter_gone(now, id, key, format!("its proxy ended: {why}"));
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

    fn starter_gone(&mut self, now: Time, id: ProxyId, key: StarterKey, why: String) {
        self.record(Record::StarterGone(id, key, why.clone(), Some(now)));
        self.act(Action::StarterDown { key, gone: true, why });
    }
}
