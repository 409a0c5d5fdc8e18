//! The pool of a session: its jobs, the starters that called back, and who runs what. Runs in the master.
//!
//! The driver hands in events with the time, stores [`Pool::take_records`] in order, and carries out the actions that
//! [`Pool::poll_action`] gives once the records behind them are durable. After a crash it folds the stored records into a new pool
//! with [`Pool::apply`]; starters that are still there then tell their inventories, and nothing else needs to be known.
//!
//! Jobs of one `queue` statement are equal to the matcher, so a cluster is one record, a cursor over its jobs that never started, and
//! 48 bytes a job. Starters are filled cluster by cluster, in order of submission; each gets what its CPUs hold and a backlog that
//! hides the round trip. Matching happens once for all events between two calls of [`Pool::take_records`].

mod apply;
mod attempts;
mod change;
mod event;
mod listing;
mod matching;
mod nodes;
mod policy;
mod queue;
mod record;
mod retry;
mod snapshot;
#[cfg(test)]
mod tests;
mod timing;
mod usage;
mod why;

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::Time;
use crate::ids::{AttemptId, JobId, ProxyId, SiteId, StarterKey};
use crate::items::{Members, Procs, Row, Table};
use crate::job::{AttemptResult, Killing, Outcome, Program, Transfer, Usage};
use crate::template::Template;

pub use change::{Change, Edit};
pub use event::{Action, Assigned, Definition, Event, Files, Note, Resources};
pub use listing::{ClusterView, Counts, JobView, Select, StarterView};
pub use nodes::NodeView;
pub use policy::{Asks, Decision, Hold, Policy};
pub use queue::{Judge, Match, Terms, Verdict, at_once};
pub use record::{Ended, GroupRecord, LogTerms, Mail, Offer, Record, Return, Shared, Told};
pub use retry::{Origin, Retry};
pub use snapshot::Snapshot;
pub use timing::{Instead, Timing, When};
pub use why::{Present, SiteFacts, Step, Trail};

/// A concurrency limit that jobs are counted against, with how much each takes, in thousandths.
pub type Share = (String, u32);

/// How much work a starter's backlog holds beyond what runs: enough to hide two round trips over a wide-area network and the group
/// commits between.
const BACKLOG: Duration = Duration::from_millis(250);

/// Largest backlog, in rounds of the starter's CPUs: bounds what comes back from a starter that is lost.
const BACKLOG_ROUNDS: u32 = 64;

/// Site failures of one job after which it is held: a job that kills its node must not go round for ever.
const SITE_FAILURES: u8 = 20;

/// Between SIGTERM and SIGKILL of a removed job, unless it asks for more.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// The most that it may ask for: its slot is of no use meanwhile.
const MOST_GRACE: Duration = Duration::from_secs(600);

/// A recall that brought nothing may be repeated after this: the backlog was gone when it arrived.
const RECALL_AGAIN: Duration = Duration::from_secs(2);

/// Of how many backlogs the longest is recalled: of all of them, unless there are very many.
const RECALL_CHOICE: usize = 256;

/// An answer to recalls that takes longer won't come: nothing was left to give back.
const RECALL_LOST: Duration = Duration::from_secs(60);

/// How often jobs are looked at again whose requirements depend on the time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Tries of one assignment message; bounds its size.
const ASSIGN_BATCH: usize = 512;

/// A job's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum JobState {
    /// Waits for a slot.
    #[default]
    #[n(0)]
    Idle,
    /// Given to a starter, not known to have started.
    #[n(1)]
    Matched,
    /// Runs.
    #[n(2)]
    Running,
    /// Ended; its outputs are coming home.
    #[n(3)]
    Transferring,
    /// Can't run as it is.
    #[n(4)]
    Held,
    /// Ended by itself.
    #[n(5)]
    Completed,
    /// Removed by the user.
    #[n(6)]
    Removed,
}

/// How a completed job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum End {
    /// With an exit code.
    #[n(0)]
    Exited(#[n(0)] u8),
    /// By a signal.
    #[n(1)]
    Signaled(#[n(0)] u8),
}

/// The fixed state of one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Job {
    #[n(0)]
    state: JobState,
    #[n(1)]
    end: Option<End>,
    #[n(2)]
    site_failures: u8,
    /// The last attempt's number; 0 before the first.
    #[n(3)]
    attempt: u32,
    /// Where it ran last.
    #[n(4)]
    site: u16,
    #[n(5)]
    wall_ms: u32,
    #[n(6)]
    cpu_ms: u32,
    #[n(7)]
    peak_kib: u32,
    /// When it ended, was held or removed, or started to run.
    #[n(8)]
    at: Time,
    /// The sites that were ever given it; see [`Job::given_to`]. A result from another is a lie.
    #[cbor(n(9), default)]
    sites: u16,
    /// Why it is held, in HTCondor's numbers; 0 if it isn't, or nothing tells.
    #[cbor(n(10), default)]
    code: u16,
    #[cbor(n(11), default)]
    subcode: i32,
    /// A record tells that the attempt that is out runs, since `at`.
    #[cbor(n(12), default)]
    started: bool,
    /// It succeeded with another exit code than 0, or failed with 0.
    #[cbor(n(13), default)]
    contrary: bool,
    #[cbor(n(14), default)]
    system_ms: u32,
    #[cbor(n(15), default)]
    disk_kib: u32,
}

/// What became of a job before its last attempt. Few jobs have any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Past {
    /// Attempts that are known to have run.
    #[n(0)]
    pub starts: u32,
    /// Those of them that ended by themselves, and the job went on.
    #[n(1)]
    pub completions: u32,
    /// How long they all ran.
    #[n(2)]
    pub wall_ms: u64,
    /// How often the job was held.
    #[n(3)]
    pub holds: u32,
    /// How the last ended that did so by itself.
    #[n(4)]
    pub end: Option<End>,
    /// Its number: a result of this attempt or an earlier one has counted already.
    #[n(5)]
    pub settled: u32,
}

impl Job {
    /// The site's bit. Beyond 16 sites, some share one.
    fn bit(site: SiteId) -> u16 {
        1 << (site.0 % 16)
    }

    fn given_to(&self, site: SiteId) -> bool {
        self.sites & Job::bit(site) != 0
    }

    fn is_over(&self) -> bool {
        matches!(self.state, JobState::Completed | JobState::Removed)
    }

    /// Did it complete without success?
    fn is_failed(&self) -> bool {
        self.state == JobState::Completed && (self.end != Some(End::Exited(0))) != self.contrary
    }
}

const _: () = assert!(size_of::<Job>() <= 48, "a job's fixed state has grown");

/// The jobs of one `queue` statement.
#[derive(Clone, Debug)]
struct Group {
    members: Members,
    /// The place of its `queue` statement; of a part, of the one that its jobs are from.
    statement: u32,
    program: u64,
    body: Arc<Program>,
    log: Option<Template>,
    log_terms: Arc<LogTerms>,
    tag: Option<String>,
    origin: Option<Origin>,
    terms: Arc<Terms>,
    policy: Option<Arc<dyn Policy>>,
    timing: Option<Arc<dyn Timing>>,
    /// May they stay in the queue when they have ended?
    stays: bool,
    /// Its class and account; see [`queue`].
    class: u32,
    account: usize,
    /// Jobs from here on, counted within the group, never left the queue.
    fresh: u32,
    /// Jobs before `fresh` that are idle again.
    again: BTreeSet<u32>,
}

impl Group {
    /// What a job of it occupies.
    fn asks(&self) -> Resources {
        Resources { cpus: self.body.cpus, memory_mb: self.body.memory_mb, gpus: self.body.gpus }
    }
}

#[derive(Clone, Debug)]
struct Cluster {
    name: String,
    submitted: Time,
    /// Those of its `queue` statements, in order, then what edits made of parts of them.
    groups: Vec<Group>,
    statements: usize,
    /// Jobs in groups that edits made.
    moved: BTreeMap<u32, u32>,
    /// The place of each job's group, if groups share a row of processes.
    places: Vec<u32>,
    jobs: Vec<Job>,
    counts: Counts,
    /// Idle jobs that wait for their time.
    later: timing::Marks,
    /// Jobs that ended, and are not to be listed with those of the queue any more.
    dismissed: timing::Marks,
    reasons: BTreeMap<u32, String>,
    pasts: BTreeMap<u32, Past>,
}

impl Cluster {
    fn group_of(&self, proc: u32) -> Option<usize> {
        if let Some(group) = self.moved.get(&proc) {
            return Some(*group as usize);
        }
        if !self.places.is_empty() {
            return self
                .places
                .get(proc as usize)
                .map(|place| *place as usize)
                .filter(|place| *place < self.groups.len());
        }
        let after = self.groups.get(..self.statements)?.partition_point(|g| g.members.first() <= proc);
        after.checked_sub(1).filter(|_| (proc as usize) < self.jobs.len())
    }

    /// Why a job is held, or how it was failed last.
    fn reason(&self, proc: u32) -> Option<&str> {
        let submitted = || self.jobs.get(proc as usize).is_some_and(|job| job.code == policy::SUBMITTED_ON_HOLD);
        self.reasons
            .get(&proc)
            .map(String::as_str)
            .or_else(|| submitted().then_some("submitted on hold at user's request"))
    }

    /// The jobs of a group.
    fn jobs_of(&self, index: usize) -> impl Iterator<Item = (u32, &Job)> {
        let members = self.groups.get(index).into_iter().flat_map(|group| group.members.iter());
        let own = members.filter(move |proc| self.moved.is_empty() || self.group_of(*proc) == Some(index));
        own.filter_map(|proc| Some((proc, self.jobs.get(proc as usize)?)))
    }
}

/// What a starter was given and has not been forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    phase: Phase,
    cpus: u32,
    /// CPUs that nothing else can use meanwhile: more than `cpus` where memory is what it needs.
    load: u32,
    /// Its files were sent along.
    apart: bool,
    /// Its outputs were asked for since the starter joined.
    collecting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Queued,
    Running,
    /// Its result is here; not acknowledged.
    Finished,
}

#[derive(Clone, Debug)]
struct Starter {
    offer: Offer,
    /// Which kind of starters it is of, to the matcher.
    kind: u32,
    /// It answers: its agent has it, and we have the agent.
    connected: bool,
    /// What became of its connection, while it doesn't answer.
    silence: String,
    /// We know what it holds: its inventory came since it connected.
    known: bool,
    /// The number of its last inventory.
    inventory: u64,
    /// It gave work back unasked: it is about to end.
    closing: bool,
    /// Changes whenever it connects: what was meant for it before must not reach it after.
    link: u64,
    /// It holds work that has not finished.
    busy: bool,
    /// When it last connected, fell silent, or became busy or idle.
    since: Time,
    deadline: Option<Time>,
    held: BTreeMap<AttemptId, Held>,
    /// Loads of what is held and not finished.
    load: u32,
    /// How many are held and not known to have started.
    queued: u32,
    defined: BTreeSet<u64>,
    /// Programs whose directory it was found not to share.
    unshared: BTreeSet<u64>,
    mean_ms: Option<u64>,
    completed: u64,
    recalled: Option<Time>,
    /// Recalls that may still bring something: over a slow link the next one goes before the last one is answered.
    recalls: u32,
    /// Its node gets no work; see [`nodes`].
    excluded: bool,
}

impl Starter {
    fn new(offer: Offer) -> Self {
        Starter {
            offer,
            kind: 0,
            connected: false,
            silence: String::new(),
            known: false,
            inventory: 0,
            closing: false,
            link: 0,
            busy: false,
            since: Time::default(),
            deadline: None,
            held: BTreeMap::new(),
            load: 0,
            queued: 0,
            defined: BTreeSet::new(),
            unshared: BTreeSet::new(),
            mean_ms: None,
            completed: 0,
            recalled: None,
            recalls: 0,
            excluded: false,
        }
    }

    fn hold(&mut self, id: AttemptId, held: Held) {
        self.forget(id);
        self.count(held, true);
        self.held.insert(id, held);
    }

    fn forget(&mut self, id: AttemptId) -> bool {
        let held = self.held.remove(&id);
        held.inspect(|held| self.count(*held, false)).is_some()
    }

    /// Brings what it holds to a later phase; was it in an earlier one?
    fn advance(&mut self, id: AttemptId, phase: Phase) -> bool {
        match self.held.get(&id) {
            Some(&held) if (held.phase as u8) < phase as u8 => {
                self.hold(id, Held { phase, ..held });
                true
            }
            _ => false,
        }
    }

    fn fall_silent(&mut self, now: Time, why: &str) {
        self.connected = false;
        self.known = false;
        self.since = now;
        why.clone_into(&mut self.silence);
    }

    /// Notes whether it is busy.
    fn mark(&mut self, now: Time) {
        let busy = self.load > 0;
        if self.busy != busy {
            self.busy = busy;
            self.since = now;
        }
    }

    fn count(&mut self, held: Held, comes: bool) {
        let queued = u32::from(held.phase == Phase::Queued);
        let load = if held.phase == Phase::Finished { 0 } else { held.load };
        if comes {
            self.queued += queued;
            self.load += load;
        } else {
            self.queued -= queued;
            self.load -= load;
        }
    }
}

/// The pool; see the module.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    clusters: BTreeMap<u32, Cluster>,
    last_cluster: u32,
    last_program: u64,
    /// Groups that may have idle jobs.
    queue: queue::Queue,
    classes: queue::Classes,
    limits: queue::Limits,
    judge: queue::Bench,
    starters: BTreeMap<StarterKey, Starter>,
    /// Starters that may have room.
    hungry: BTreeSet<StarterKey>,
    /// Starters to which something happened since the last matching.
    touched: BTreeSet<StarterKey>,
    /// Jobs became idle since the last matching.
    wanting: bool,
    /// When to look at them again though nothing happens.
    look_again: Option<Time>,
    /// Starters that may have a backlog.
    backlogged: BTreeSet<StarterKey>,
    /// The first of them that was not looked at last time.
    recall_next: u64,
    /// How attempts ended on each node, and which nodes get no work.
    nodes: nodes::Nodes,
    /// When jobs are looked at whose policies say what becomes of them.
    policing: policy::Policing,
    /// What jobs wait for that may not start at any time.
    times: timing::Times,
    /// Who has a job's attempt.
    live: BTreeMap<JobId, (u32, StarterKey)>,
    /// Attempts that were killed as their jobs were held, or as another attempt had a result, and may still run: no other is started
    /// before their end is known.
    dying: BTreeMap<JobId, (u32, StarterKey)>,
    /// Running jobs of whose usage more is known than recorded.
    measured: BTreeSet<JobId>,
    /// Jobs that were submitted once more, and as which.
    retried: BTreeMap<JobId, JobId>,
    /// Jobs completed, by site.
    done_by_site: BTreeMap<u16, u64>,
    /// The last link of a starter.
    links: u64,
    records: Vec<Record>,
    sequence: u64,
    actions: VecDeque<Pending>,
    /// The latest time handed in.
    now: Time,
}

/// An action that waits for its records.
#[derive(Clone, Debug)]
struct Pending {
    sequence: u64,
    /// The starter's link that it is meant for.
    link: u64,
    action: Action,
}

impl Pool {
    /// An empty pool, in which no expressions are understood.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool with a judge of expressions.
    pub fn with_judge(judge: Arc<dyn Judge>) -> Self {
        Pool { judge: queue::Bench(judge), ..Self::default() }
    }

    /// Accounting groups' weights: each gets CPUs in proportion to its own, while others want them. One that isn't named has 1.
    pub fn set_weights(&mut self, weights: BTreeMap<String, u32>) {
        self.queue.set_weights(weights);
    }

    /// Concurrency limits, by name in lower case: so many jobs that name one may be out at once.
    pub fn set_limits(&mut self, limits: BTreeMap<String, u32>) {
        self.limits.set(limits.into_iter());
    }

    /// The number of the last cluster, or the last one passed over.
    pub fn last_cluster(&self) -> u32 {
        self.last_cluster
    }

    /// Clusters have higher numbers from now on: this one is taken by something else, which its owner says again after a crash.
    pub fn pass_over(&mut self, cluster: u32) {
        self.last_cluster = self.last_cluster.max(cluster);
    }

    /// Takes a submission in; the cluster's number. It is acknowledged to the user once its record, number [`Pool::sequence`] right
    /// after this, is durable. The groups hold fewer than 2^32 jobs together; what is beyond is cut off.
    pub fn submit(&mut self, now: Time, name: String, mut groups: Vec<GroupRecord>) -> u32 {
        self.now = self.now.max(now);
        let cluster = self.last_cluster + 1;
        groups.iter_mut().for_each(|group| queue::own_limits(&mut group.terms.limits, cluster));
        self.write(Record::Submitted { cluster, at: now, name, groups });
        self.police(now);
        cluster
    }

    /// Takes an event in.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        self.wake(now);
        self.note_starts(now);
        self.look_again(now);
        self.police(now);
        match event {
            Event::StarterJoined { key, offer, time_left } => self.joined(now, key, offer, time_left),
            Event::InventoryTold { key, number, queued, running, finished } => {
                if let Some(starter) = self.starters.get_mut(&key) {
                    starter.inventory = number;
                }
                self.inventory(now, key, &queued, &running, &finished);
            }
            Event::StarterSilent { key, why } => self.silent(now, vec![key], why, true),
            Event::SiteLost { site, why } => self.silent(now, self.starters_of(site, None), why, false),
            Event::Recovered => self.recovered(now),
            Event::StarterGone { key, why } => self.gone(now, key, &why),
            Event::AttemptsStarted { key, ids } => self.started(now, key, &ids),
            Event::AttemptsReturned { key, ids } => self.returned(now, key, &ids),
            Event::InputsMoved { key, moved } => self.inputs_moved(key, &moved),
            Event::AttemptsMeasured { key, used } => self.measured(now, key, &used),
            Event::AttemptEnded { key, result } => self.ended(now, key, result),
            Event::OutputsStored { key, result } => self.stored(now, key, &result),
            Event::OutputsFailed { key, id, why, ours, too_large } => {
                let code = if too_large { policy::OUTPUT_TOO_LARGE } else { policy::OUTPUT_FAILED };
                self.outputs_failed(now, key, id, why, (ours || too_large).then_some(code));
            }
            Event::PartialKept { key, result } => self.partial_kept(now, key, result),
            Event::AssignmentFailed { key, id, why, too_large } => {
                let code = if too_large { policy::INPUT_TOO_LARGE } else { policy::INPUT_FAILED };
                self.assignment_failed(now, key, id, why, code);
            }
            Event::RemovalAsked { select } => self.remove(now, &select),
            Event::DismissalAsked { jobs } => self.dismiss(now, &jobs),
            Event::HoldAsked { select, why } => self.hold_asked(now, &select, &why),
            Event::VacateAsked { select, fast } => self.vacate_asked(&select, fast),
            Event::ReleaseAsked { select } => self.release(now, &select),
            Event::EditAsked { select, edit } => self.edit(now, &select, edit),
            Event::TimePassed => {}
        }
    }

    /// Matches idle jobs to starters, then gives the records to store, in order; the last one's number is [`Pool::sequence`] from then
    /// on.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.fill(self.now);
        core::mem::take(&mut self.records)
    }

    /// How many records this pool made so far; what [`Pool::apply`] and [`Pool::restore`] took in is not counted.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next thing to do, if the records behind it are durable. What was meant for a starter that was silent since is dropped: its
    /// inventory settles it.
    pub fn poll_action(&mut self, durable: u64) -> Option<Action> {
        while self.actions.front()?.sequence <= durable {
            let pending = self.actions.pop_front()?;
            let reaches = |key| {
                let starter = self.starters.get(&key);
                starter.is_some_and(|s| s.connected && s.link == pending.link)
            };
            if pending.action.starter().is_none_or(reaches) {
                return Some(pending.action);
            }
        }
        None
    }

    /// When [`Event::TimePassed`] is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Time> {
        let times = [self.nodes.deadline(), self.policing.deadline(), self.times.deadline(), self.look_again];
        times.into_iter().flatten().min()
    }

    fn act(&mut self, action: Action) {
        let link = action.starter().and_then(|key| self.starters.get(&key)).map_or(0, |s| s.link);
        let sequence = self.sequence;
        // Acknowledgements of one moment share a message.
        if let Action::Acknowledge { key, ids } = &action
            && let Some(last) = self.actions.back_mut()
            && (last.sequence, last.link) == (sequence, link)
            && let Action::Acknowledge { key: before, ids: all } = &mut last.action
            && before == key
        {
            all.extend(ids);
            return;
        }
        self.actions.push_back(Pending { sequence, link, action });
    }

    fn write(&mut self, record: Record) {
        self.apply(&record);
        self.sequence += 1;
        self.notes(&record).into_iter().for_each(|note| self.act(note));
        self.records.push(record);
    }

    /// May this attempt still be sent to this starter? Not if it was removed, given up, or the starter is being asked what it holds.
    pub fn is_live(&self, id: AttemptId, key: StarterKey) -> bool {
        self.is_current(id, key) && self.starters.get(&key).is_some_and(|starter| starter.known)
    }

    /// May this starter's attempt leave anything to the job's next one? The job must not be over, nor the site one that was never given it.
    pub fn may_leave(&self, id: AttemptId, key: StarterKey) -> bool {
        let site = self.starters.get(&key).map(|starter| starter.offer.site);
        self.job(id.job)
            .zip(site)
            .is_some_and(|(job, site)| !job.is_over() && (1..=job.attempt).contains(&id.attempt) && job.given_to(site))
    }

    /// Is a job over, or not known at all?
    pub fn is_over(&self, id: JobId) -> bool {
        self.job(id).is_none_or(Job::is_over)
    }

    /// Is this the attempt that counts, at this starter?
    fn is_current(&self, id: AttemptId, key: StarterKey) -> bool {
        self.live.get(&id.job) == Some(&(id.attempt, key))
    }

    /// The attempt is out.
    fn set_live(&mut self, id: AttemptId, key: StarterKey) {
        let was = self.is_out(id.job);
        if self.live.insert(id.job, (id.attempt, key)).is_none() {
            self.load(id.job, true);
        }
        self.limit(id.job, was);
    }

    /// None of the job's is out any more; which was.
    fn end_live(&mut self, job: JobId) -> Option<(u32, StarterKey)> {
        let out = self.is_out(job);
        let was = self.live.remove(&job);
        if was.is_some() {
            self.load(job, false);
        }
        self.limit(job, out);
        was
    }

    /// An attempt of the job's was killed, and may still run. If there was one already, this one has ended, and waits with its result.
    fn set_dying(&mut self, job: JobId, out: (u32, StarterKey)) {
        let was = self.is_out(job);
        self.dying.entry(job).or_insert(out);
        self.limit(job, was);
    }

    /// It runs no more; was there one?
    fn end_dying(&mut self, job: JobId) -> bool {
        let out = self.is_out(job);
        let was = self.dying.remove(&job).is_some();
        self.limit(job, out);
        was
    }

    /// Does an attempt of the job's run, or might it?
    fn is_out(&self, job: JobId) -> bool {
        self.live.contains_key(&job) || self.dying.contains_key(&job)
    }

    /// Counts the job against its limits, if it is out since, or not any more.
    fn limit(&mut self, job: JobId, was: bool) {
        let is = self.is_out(job);
        if was != is
            && let Some(class) = self.group(job).map(|group| group.class)
            && let Some(asked) = self.classes.get(class).map(|class| class.limits.clone())
        {
            self.wanting |= self.limits.count(&asked, is);
        }
    }

    fn load(&mut self, job: JobId, goes: bool) {
        if let Some((account, cpus)) = self.group(job).map(|group| (group.account, group.body.cpus)) {
            self.queue.load(account, cpus, goes);
        }
    }

    /// A group of a cluster may have idle jobs.
    fn open(&mut self, number: u32, index: usize) {
        let group = self.clusters.get(&number).and_then(|cluster| cluster.groups.get(index));
        if let Some((account, class, place)) = group.map(|g| (g.account, g.class, g.place(number, index))) {
            self.queue.add(account, class, place);
            self.wanting = true;
        }
    }

    fn job(&self, id: JobId) -> Option<&Job> {
        self.clusters.get(&id.cluster)?.jobs.get(id.proc as usize)
    }

    fn group(&self, id: JobId) -> Option<&Group> {
        let cluster = self.clusters.get(&id.cluster)?;
        Some(&cluster.groups[cluster.group_of(id.proc)?])
    }

    /// Changes a job's state and keeps the counts true.
    fn change(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let Some(cluster) = self.clusters.get_mut(&id.cluster) else {
            return;
        };
        let Some(job) = cluster.jobs.get_mut(id.proc as usize) else {
            return;
        };
        cluster.counts.remove(job);
        change(job);
        cluster.counts.add(job);
    }

    /// What the event logs have to say of a record that was applied just now. All that they say but what runs where and what moves
    /// ([`Note::Executing`], [`Note::Moved`], [`Note::Disconnected`], [`Note::Reconnected`]) follows from records, so that what a crash kept from being
    /// written is found again.
    pub fn notes(&self, record: &Record) -> Vec<Action> {
        let mut notes = Vec::new();
        match record {
            Record::Submitted { cluster, at, .. } => {
                notes.extend(self.note_cluster(*at, *cluster, |_, _| Note::ClusterSubmitted));
                let groups = self.clusters.get(cluster).into_iter().flat_map(|c| &c.groups);
                notes.extend(groups.filter(|g| g.members.count() > 0).filter_map(|g| {
                    let (job, log) = (JobId { cluster: *cluster, proc: g.members.first() }, g.log.clone());
                    if log.is_none() && g.log_terms.dag_node.is_none() {
                        return None;
                    }
                    let (initialdir, note) = (g.body.initialdir.clone(), Note::Submitted { jobs: g.members.clone() });
                    Some(Action::Note {
                        job,
                        log,
                        terms: g.log_terms.clone(),
                        initialdir,
                        asks: g.asks(),
                        at: *at,
                        note,
                    })
                }));
            }
            Record::Ended { at, ends } => {
                notes.extend(ends.iter().filter_map(|ended| self.note_end(*at, ended)));
                notes.extend(self.note_over(*at, ends.iter().map(|ended| ended.id.job)));
            }
            Record::SiteFailed { at, id, why, lost, .. } => {
                let lost = lost.and_then(|key| self.starters.get(&key)).map(|starter| &starter.offer);
                notes.extend(self.note(*at, id.job, || match (lost, why.clone()) {
                    (Some(offer), why) => Note::ReconnectFailed { proxy: offer.proxy, host: offer.host.clone(), why },
                    (None, why) => Note::Evicted { why },
                }));
            }
            Record::Held { at, job, why, code } => {
                let hold = || Hold { why: why.clone(), code: *code, subcode: 0 };
                notes.extend(self.note(*at, *job, || Note::Held { hold: hold() }));
            }
            Record::Judged { at, ranges, decision } => {
                let (state, note) = match decision {
                    Decision::Hold(hold) => (JobState::Held, Note::Held { hold: hold.clone() }),
                    Decision::Release(why) => (JobState::Idle, Note::Released { why: Some(why.clone()) }),
                    Decision::Remove(why) => (JobState::Removed, Note::Removed { why: Some(why.clone()) }),
                    Decision::Vacate(why) | Decision::Again(why) => {
                        (JobState::Idle, Note::Evicted { why: why.clone() })
                    }
                };
                let changed = || self.changed_then(ranges, state, *at);
                notes.extend(changed().filter_map(|id| self.note(*at, id, || note.clone())));
                notes.extend(self.note_over(*at, changed()));
            }
            Record::Removed { at, ranges } => {
                let changed = || self.changed_then(ranges, JobState::Removed, *at);
                notes.extend(changed().filter_map(|id| self.note(*at, id, || Note::Removed { why: None })));
                notes.extend(self.note_over(*at, changed()));
            }
            Record::HeldByUser { at, ranges, why } => {
                let changed = self.changed_then(ranges, JobState::Held, *at);
                let hold = || Hold { why: why.clone(), code: policy::USER_REQUEST, subcode: 0 };
                notes.extend(changed.filter_map(|id| self.note(*at, id, || Note::Held { hold: hold() })));
            }
            Record::Released { at, ranges } => {
                let changed = self.changed_then(ranges, JobState::Idle, *at);
                notes.extend(changed.filter_map(|id| self.note(*at, id, || Note::Released { why: None })));
            }
            _ => {}
        }
        notes
    }

    /// Jobs of these ranges that came to a state at that time.
    fn changed_then(&self, ranges: &[(u32, u32, u32)], state: JobState, at: Time) -> impl Iterator<Item = JobId> {
        change::jobs_in(ranges).filter(move |id| self.job(*id).is_some_and(|job| job.state == state && job.at == at))
    }

    fn note_end(&self, at: Time, ended: &Ended) -> Option<Action> {
        self.note(at, ended.id.job, || match &ended.then {
            Some(Decision::Hold(hold)) => Note::Held { hold: hold.clone() },
            Some(Decision::Again(why)) => Note::Requeued { end: ended.end, usage: ended.usage, why: why.clone() },
            _ => Note::Terminated { end: ended.end, usage: ended.usage },
        })
    }

    /// Of these jobs that changed, the clusters that are over by that.
    fn note_over(&self, at: Time, changed: impl Iterator<Item = JobId>) -> Vec<Action> {
        let clusters: BTreeSet<u32> = changed.map(|job| job.cluster).collect();
        let over = |number: &u32| {
            let counts = self.clusters.get(number).map(|cluster| cluster.counts);
            counts.is_some_and(|counts| counts.idle + counts.running + counts.held == 0)
        };
        let over = clusters.into_iter().filter(over);
        over.filter_map(|number| self.note_cluster(at, number, |jobs, items| Note::ClusterOver { jobs, items }))
            .collect()
    }

    /// A note of a cluster that is late, in the log of its first job; made from how many jobs and items it has.
    fn note_cluster(&self, at: Time, number: u32, note: fn(u32, u32) -> Note) -> Option<Action> {
        let cluster = self.clusters.get(&number)?;
        let first = JobId { cluster: number, proc: 0 };
        let items = self.group(first)?.log_terms.late?;
        self.note(at, first, || note(u32::try_from(cluster.jobs.len()).unwrap_or(u32::MAX), items))
    }

    fn note(&self, at: Time, job: JobId, note: impl FnOnce() -> Note) -> Option<Action> {
        let group = self.group(job)?;
        let row = group.members.row(job.proc);
        let terms = &group.log_terms;
        if group.log.is_none() && terms.mail.is_none() && terms.dag_node.is_none() {
            return None;
        }
        let log = group.log.as_ref().map(|log| log.fill(&row));
        let (terms, asks) = (group.log_terms.clone(), group.asks());
        Some(Action::Note { job, log, terms, initialdir: group.body.initialdir.fill(&row), asks, at, note: note() })
    }

    /// CPUs that unfinished, unheld jobs would occupy at once, but for those whose time has not come.
    pub fn demand_cpus(&self) -> u64 {
        // Those of clusters that are limited alike are limited together.
        let mut jobs: BTreeMap<(&[Share], u32), u64> = BTreeMap::new();
        for c in self.clusters.values().filter(|c| c.counts.idle - c.counts.later + c.counts.running > 0) {
            let cpus = c.groups.iter().map(|g| g.body.cpus).max().unwrap_or(1);
            let mut limits = c.groups.iter().map(|g| g.terms.limits.as_slice());
            let first = limits.next().unwrap_or_default();
            let limited = if limits.all(|each| each == first) { first } else { &[] };
            *jobs.entry((limited, cpus)).or_default() += u64::from(c.counts.idle - c.counts.later + c.counts.running);
        }
        jobs.into_iter().fold(0, |sum, ((limits, cpus), jobs)| {
            sum.saturating_add(jobs.min(self.limits.most(limits)).saturating_mul(u64::from(cpus)))
        })
    }

    /// Starters known, of all sites.
    pub fn starter_count(&self) -> usize {
        self.starters.len()
    }

    /// The proxy of a starter.
    pub fn proxy_of(&self, key: StarterKey) -> Option<(SiteId, ProxyId)> {
        self.starters.get(&key).map(|s| (s.offer.site, s.offer.proxy))
    }

    /// What a starter offers, and for how long.
    pub fn offer(&self, key: StarterKey) -> Option<(&Offer, Option<Duration>)> {
        self.starters.get(&key).map(|s| (&s.offer, s.time_left(self.now)))
    }

    /// The starters of a proxy, or of a site.
    pub fn starters_of(&self, site: SiteId, proxy: Option<ProxyId>) -> Vec<StarterKey> {
        let of = self.starters.iter().filter(|(_, s)| s.offer.site == site && proxy.is_none_or(|p| p == s.offer.proxy));
        of.map(|(key, _)| *key).collect()
    }
}
