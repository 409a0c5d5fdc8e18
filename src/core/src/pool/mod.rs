//! The pool of a session: its jobs, the starters that called back, and who runs what. Runs in the master.
//!
//! The driver hands in events with the time, stores [`Pool::take_records`] in order, and carries out each action of
//! [`Pool::poll_action`] once the record whose number comes with it is durable. After a crash it folds the stored records into a new
//! pool with [`Pool::apply`]; starters that are still there then tell their inventories, and nothing else needs to be known.
//!
//! Jobs of one `queue` statement are equal to the matcher, so a cluster is one record, a cursor over its jobs that never started, and
//! 32 bytes a job. Starters are filled cluster by cluster, in order of submission; each gets what its CPUs hold and a backlog that
//! hides the round trip.

mod listing;
mod record;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::Time;
use crate::ids::{AttemptId, JobId, ProxyId, SiteId, StarterKey};
use crate::job::{AttemptResult, Outcome, Program, Transfer, Usage};
use crate::template::Template;

pub use listing::{ClusterView, Counts, JobView, Select, StarterView};
pub use record::{Ended, GroupRecord, Offer, Record, Shared, Snapshot};

/// How much work a starter's backlog holds beyond what runs: enough to hide two round trips over a wide-area network and the group
/// commits between.
const BACKLOG: Duration = Duration::from_millis(250);

/// Largest backlog, in rounds of the starter's CPUs: bounds what comes back from a starter that is lost.
const BACKLOG_ROUNDS: u32 = 64;

/// Site failures of one job after which it is held: a job that kills its node must not go round for ever.
const SITE_FAILURES: u8 = 20;

/// Between SIGTERM and SIGKILL of a removed job.
const KILL_GRACE: Duration = Duration::from_secs(5);

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
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
}

const _: () = assert!(size_of::<Job>() <= 40, "a job's fixed state has grown");

/// The jobs of one `queue` statement.
#[derive(Clone, Debug)]
struct Group {
    first: u32,
    count: u32,
    program: u64,
    body: Arc<Program>,
    log: Option<Template>,
    /// Jobs from here on never left the queue.
    fresh: u32,
    /// Jobs before `fresh` that are idle again.
    again: BTreeSet<u32>,
}

#[derive(Clone, Debug)]
struct Cluster {
    name: String,
    submitted: Time,
    groups: Vec<Group>,
    jobs: Vec<Job>,
    counts: Counts,
    reasons: BTreeMap<u32, String>,
}

impl Cluster {
    fn group_of(&self, proc: u32) -> Option<usize> {
        let after = self.groups.partition_point(|g| g.first <= proc);
        after.checked_sub(1).filter(|_| (proc as usize) < self.jobs.len())
    }
}

/// What a starter was given and has not been forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    phase: Phase,
    cpus: u32,
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
    /// It answers: its agent has it, and we have the agent.
    connected: bool,
    /// We know what it holds: its inventory came since it connected.
    known: bool,
    since: Time,
    deadline: Option<Time>,
    held: BTreeMap<AttemptId, Held>,
    used_cpus: u32,
    defined: BTreeSet<u64>,
    /// Programs whose directory it was found not to share.
    unshared: BTreeSet<u64>,
    mean_ms: Option<u64>,
    completed: u64,
    recalling: bool,
}

impl Starter {
    fn backlog(&self) -> u32 {
        let rounds = match self.mean_ms {
            None => 1,
            Some(mean) => {
                let rounds = (BACKLOG.as_millis() as u64).div_ceil(mean.max(1));
                u32::try_from(rounds).unwrap_or(BACKLOG_ROUNDS).clamp(1, BACKLOG_ROUNDS)
            }
        };
        self.offer.cpus.saturating_mul(rounds)
    }

    fn count(&self, phase: Phase) -> u32 {
        self.held.values().filter(|h| h.phase == phase).count() as u32
    }
}

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
    },
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
    },
    /// An attempt could not be sent: its input files can't be read.
    AssignmentFailed {
        /// Where to.
        key: StarterKey,
        /// Which.
        id: AttemptId,
        /// Why.
        why: String,
    },
    /// The user removes jobs.
    RemovalAsked {
        /// Which.
        select: Select,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send attempts to a starter.
    Assign {
        /// Where to.
        key: StarterKey,
        /// Programs that it doesn't know yet.
        define: Vec<(u64, Arc<Program>)>,
        /// The attempts, each with its program.
        attempts: Vec<(AttemptId, u64, Arc<Program>)>,
        /// Whether they may run in the job's own directory.
        shared: Shared,
    },
    /// Ask for attempts back.
    Recall {
        /// From where.
        key: StarterKey,
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
    },
    /// Tell a starter to forget results.
    Acknowledge {
        /// Which starter.
        key: StarterKey,
        /// Which results.
        ids: Vec<AttemptId>,
    },
    /// Bring a result's outputs home, then tell [`Event::OutputsStored`] or [`Event::OutputsFailed`].
    Collect {
        /// From where.
        key: StarterKey,
        /// The result.
        result: AttemptResult,
        /// Its program.
        program: Arc<Program>,
    },
    /// A job with an event log has an entry for it.
    Note {
        /// The job.
        job: JobId,
        /// Its log.
        log: Template,
        /// Its directory.
        initialdir: Template,
        /// When.
        at: Time,
        /// What.
        note: Note,
    },
}

/// An entry of a job event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The cluster was submitted; told once, for its jobs from the first to the last of the group.
    Submitted {
        /// How many jobs, from the named one on.
        count: u32,
    },
    /// An attempt runs.
    Executing {
        /// The node.
        host: String,
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
    /// It can't run as it is.
    Held {
        /// Why.
        why: String,
    },
    /// The user removed it.
    Removed,
}

/// The pool; see the module.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    clusters: BTreeMap<u32, Cluster>,
    last_cluster: u32,
    last_program: u64,
    /// Clusters with idle jobs.
    open: BTreeSet<u32>,
    starters: BTreeMap<StarterKey, Starter>,
    /// Connected starters that may have room.
    hungry: BTreeSet<StarterKey>,
    /// Who has a job's attempt.
    live: BTreeMap<JobId, (u32, StarterKey)>,
    /// Jobs completed, by site.
    done_by_site: BTreeMap<u16, u64>,
    records: Vec<Record>,
    sequence: u64,
    actions: VecDeque<(u64, Action)>,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a submission in; the cluster's number. It is acknowledged to the user once the record is durable.
    pub fn submit(&mut self, now: Time, name: String, groups: Vec<GroupRecord>) -> u32 {
        let cluster = self.last_cluster + 1;
        self.write(Record::Submitted {
            cluster,
            at: now,
            name,
            groups,
        });
        let notes: Vec<_> = self.clusters.get(&cluster).map_or_else(Vec::new, |c| {
            let noted = c
                .groups
                .iter()
                .filter_map(|g| Some((g.first, g.count, g.log.clone()?, g.body.initialdir.clone())));
            noted.collect()
        });
        for (proc, count, log, initialdir) in notes {
            let note = Note::Submitted { count };
            self.act(Action::Note {
                job: JobId { cluster, proc },
                log,
                initialdir,
                at: now,
                note,
            });
        }
        self.fill_all(now);
        cluster
    }

    /// Takes an event in.
    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::StarterJoined { key, offer, time_left } => self.joined(now, key, offer, time_left),
            Event::InventoryTold {
                key,
                queued,
                running,
                finished,
            } => {
                self.inventory(now, key, &queued, &running, &finished);
            }
            Event::StarterSilent { key } => self.silent(now, key),
            Event::SiteLost { site } => {
                let there = self
                    .starters
                    .iter()
                    .filter(|(_, s)| s.offer.site == site && s.connected);
                for key in there.map(|(key, _)| *key).collect::<Vec<_>>() {
                    self.silent(now, key);
                }
            }
            Event::StarterGone { key, why } => self.gone(now, key, &why),
            Event::AttemptsStarted { key, ids } => {
                for id in ids {
                    self.started(now, key, id);
                }
            }
            Event::AttemptsReturned { key, ids } => self.returned(now, key, &ids),
            Event::AttemptEnded { key, result } => self.ended(now, key, result),
            Event::OutputsStored { key, result } => self.stored(now, key, &result),
            Event::OutputsFailed { key, id, why, ours } => self.outputs_failed(now, key, id, why, ours),
            Event::AssignmentFailed { key, id, why } => {
                self.forget(key, id);
                if self.is_live(id, key) {
                    self.hold(now, id.job, why);
                }
                self.fill(now, key);
            }
            Event::RemovalAsked { select } => self.remove(now, &select),
        }
    }

    /// Records to store, in order; the last one's number is [`Pool::sequence`].
    pub fn take_records(&mut self) -> Vec<Record> {
        core::mem::take(&mut self.records)
    }

    /// How many records were made so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next thing to do, if the records behind it are durable.
    pub fn poll_action(&mut self, durable: u64) -> Option<Action> {
        if self.actions.front()?.0 > durable {
            return None;
        }
        self.actions.pop_front().map(|(_, action)| action)
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back((self.sequence, action));
    }

    fn write(&mut self, record: Record) {
        self.apply(&record);
        self.sequence += 1;
        self.records.push(record);
    }

    // ---- starters ----

    fn joined(&mut self, now: Time, key: StarterKey, offer: Offer, time_left: Option<Duration>) {
        if !self.starters.contains_key(&key) {
            self.write(Record::StarterJoined {
                key,
                offer: offer.clone(),
            });
        }
        if let Some(starter) = self.starters.get_mut(&key) {
            starter.offer = offer;
            starter.connected = true;
            starter.known = false;
            starter.since = now;
            starter.deadline = time_left.map(|left| now + left);
            starter.defined.clear();
            starter.recalling = false;
        }
    }

    fn inventory(
        &mut self,
        now: Time,
        key: StarterKey,
        queued: &[AttemptId],
        running: &[AttemptId],
        finished: &[AttemptId],
    ) {
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        starter.known = true;
        starter.defined.clear();
        starter.recalling = false;
        let told: BTreeSet<AttemptId> = queued.iter().chain(running).chain(finished).copied().collect();
        let lost: Vec<AttemptId> = starter.held.keys().filter(|id| !told.contains(id)).copied().collect();
        // The message that gave it never arrived, or its acknowledgement did: the starter has nothing of it.
        self.returned(now, key, &lost);
        let mut strays = Vec::new();
        for id in queued.iter().chain(running) {
            match self.starters.get(&key).and_then(|s| s.held.get(id)) {
                Some(_) if self.is_live(*id, key) => {}
                _ => strays.push(*id),
            }
        }
        for id in running {
            self.started(now, key, *id);
        }
        if !strays.is_empty() {
            self.act(Action::Kill {
                key,
                ids: strays,
                grace: KILL_GRACE,
            });
        }
        self.hungry.insert(key);
        self.fill(now, key);
    }

    fn silent(&mut self, now: Time, key: StarterKey) {
        if let Some(starter) = self.starters.get_mut(&key)
            && starter.connected
        {
            starter.connected = false;
            starter.known = false;
            starter.since = now;
            self.hungry.remove(&key);
        }
    }

    fn gone(&mut self, now: Time, key: StarterKey, why: &str) {
        let Some(starter) = self.starters.get(&key) else { return };
        let ids: Vec<(AttemptId, Phase)> = starter.held.iter().map(|(id, h)| (*id, h.phase)).collect();
        let (mut queued, mut failed) = (Vec::new(), Vec::new());
        for (id, phase) in ids {
            if self.is_live(id, key) {
                // Outputs that are not at home went with the starter.
                if phase == Phase::Queued {
                    queued.push(id)
                } else {
                    failed.push(id)
                }
            }
        }
        if !queued.is_empty() {
            self.write(Record::Returned { key, ids: queued });
        }
        for id in failed {
            self.site_failed(now, id, why);
        }
        self.write(Record::StarterGone { key });
        self.fill_all(now);
    }

    // ---- attempts ----

    /// Is this the attempt that counts, at this starter?
    fn is_live(&self, id: AttemptId, key: StarterKey) -> bool {
        self.live.get(&id.job) == Some(&(id.attempt, key))
    }

    fn job(&self, id: JobId) -> Option<&Job> {
        self.clusters.get(&id.cluster)?.jobs.get(id.proc as usize)
    }

    fn program(&self, id: JobId) -> Option<(u64, Arc<Program>)> {
        let cluster = self.clusters.get(&id.cluster)?;
        let group = &cluster.groups[cluster.group_of(id.proc)?];
        Some((group.program, group.body.clone()))
    }

    fn started(&mut self, now: Time, key: StarterKey, id: AttemptId) {
        if !self.is_live(id, key) {
            return;
        }
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        if let Some(held) = starter.held.get_mut(&id)
            && held.phase == Phase::Queued
        {
            held.phase = Phase::Running;
            let (site, host) = (starter.offer.site.0, starter.offer.host.clone());
            self.change(id.job, |job| {
                job.state = JobState::Running;
                job.site = site;
                job.at = now;
            });
            self.note(now, id.job, || Note::Executing { host });
        }
    }

    fn returned(&mut self, now: Time, key: StarterKey, ids: &[AttemptId]) {
        if let Some(starter) = self.starters.get_mut(&key) {
            starter.recalling = false;
        }
        let live: Vec<AttemptId> = ids.iter().filter(|id| self.is_live(**id, key)).copied().collect();
        for id in ids {
            self.forget(key, *id);
        }
        if !live.is_empty() {
            self.write(Record::Returned { key, ids: live });
            self.fill_all(now);
        } else {
            self.fill(now, key);
        }
    }

    fn ended(&mut self, now: Time, key: StarterKey, result: AttemptResult) {
        let id = result.id;
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        if let Some(held) = starter.held.get_mut(&id)
            && held.phase != Phase::Finished
        {
            held.phase = Phase::Finished;
            starter.used_cpus = starter.used_cpus.saturating_sub(held.cpus);
            if result.outcome.is_final() {
                let ran = result.usage.wall_ms;
                starter.mean_ms = Some(starter.mean_ms.map_or(ran, |mean| (mean * 7 + ran) / 8));
            }
        }
        if self.is_live(id, key) || (result.outcome.is_final() && self.claim(id, key)) {
            if let Some(program) = self.program(id.job) {
                self.conclude(now, key, result, program);
            }
        } else {
            self.acknowledge(key, id);
        }
        self.hungry.insert(key);
        self.fill(now, key);
    }

    /// An attempt that was given up has a result, and no later one has: it counts, and the later one is killed.
    fn claim(&mut self, id: AttemptId, key: StarterKey) -> bool {
        let open = self.job(id.job).is_some_and(|job| {
            id.attempt <= job.attempt && matches!(job.state, JobState::Idle | JobState::Matched | JobState::Running)
        });
        if open && let Some((attempt, other)) = self.live.insert(id.job, (id.attempt, key)) {
            self.act(Action::Kill {
                key: other,
                ids: vec![AttemptId { job: id.job, attempt }],
                grace: Duration::ZERO,
            });
        }
        open
    }

    fn conclude(&mut self, now: Time, key: StarterKey, result: AttemptResult, program: (u64, Arc<Program>)) {
        let id = result.id;
        match &result.outcome {
            Outcome::Exited(_) | Outcome::Signaled(_) if result.outputs.is_empty() => self.stored(now, key, &result),
            Outcome::Exited(_) | Outcome::Signaled(_) => {
                // Already being collected: the starter repeats itself after a lost connection.
                if self.job(id.job).is_some_and(|job| job.state == JobState::Transferring) {
                    return;
                }
                let site = self.starters.get(&key).map_or(0, |s| s.offer.site.0);
                self.change(id.job, |job| {
                    job.state = JobState::Transferring;
                    job.site = site;
                });
                self.act(Action::Collect {
                    key,
                    result,
                    program: program.1,
                });
            }
            Outcome::Unrunnable(why) => {
                self.hold(now, id.job, why.clone());
                self.acknowledge(key, id);
            }
            Outcome::SiteFailed(why) => {
                self.site_failed(now, id, why);
                self.acknowledge(key, id);
            }
            Outcome::Killed => {
                self.site_failed(now, id, "killed at the node");
                self.acknowledge(key, id);
            }
            Outcome::NeedsFiles => {
                if let Some(starter) = self.starters.get_mut(&key) {
                    starter.unshared.insert(program.0);
                }
                self.write(Record::Returned { key, ids: vec![id] });
                self.acknowledge(key, id);
            }
        }
    }

    fn stored(&mut self, now: Time, key: StarterKey, result: &AttemptResult) {
        let id = result.id;
        let end = match result.outcome {
            Outcome::Exited(code) => End::Exited(code),
            Outcome::Signaled(signal) => End::Signaled(signal),
            _ => return,
        };
        if self.is_live(id, key) || self.claim(id, key) {
            let site = self.starters.get(&key).map_or(0, |s| s.offer.site.0);
            let usage = result.usage;
            // Ends of one moment share a record.
            let ended = Ended { id, site, end, usage };
            match self.records.last_mut() {
                Some(Record::Ended { at, ends }) if *at == now && ends.len() < ASSIGN_BATCH => {
                    ends.push(ended.clone());
                    self.apply(&Record::Ended {
                        at: now,
                        ends: vec![ended],
                    });
                }
                _ => self.write(Record::Ended {
                    at: now,
                    ends: vec![ended],
                }),
            }
            if let Some(starter) = self.starters.get_mut(&key) {
                starter.completed += 1;
            }
            self.note(now, id.job, || Note::Terminated { end, usage });
        }
        self.acknowledge(key, id);
        self.fill(now, key);
    }

    fn outputs_failed(&mut self, now: Time, key: StarterKey, id: AttemptId, why: String, ours: bool) {
        if self.is_live(id, key) {
            if ours {
                self.hold(now, id.job, why);
            } else {
                self.site_failed(now, id, &why);
            }
        }
        self.acknowledge(key, id);
        self.fill_all(now);
    }

    fn acknowledge(&mut self, key: StarterKey, id: AttemptId) {
        self.forget(key, id);
        match self.actions.back_mut() {
            Some((sequence, Action::Acknowledge { key: k, ids })) if *sequence == self.sequence && *k == key => {
                ids.push(id)
            }
            _ => self.act(Action::Acknowledge { key, ids: vec![id] }),
        }
    }

    fn site_failed(&mut self, now: Time, id: AttemptId, why: &str) {
        if self
            .job(id.job)
            .is_some_and(|job| job.site_failures + 1 >= SITE_FAILURES)
        {
            self.hold(
                now,
                id.job,
                format!("{SITE_FAILURES} sites or nodes failed it; the last: {why}"),
            );
            return;
        }
        self.write(Record::SiteFailed {
            at: now,
            id,
            why: why.to_string(),
        });
        self.note(now, id.job, || Note::Evicted { why: why.to_string() });
        self.fill_all(now);
    }

    fn hold(&mut self, now: Time, job: JobId, why: String) {
        self.note(now, job, || Note::Held { why: why.clone() });
        self.write(Record::Held { at: now, job, why });
    }

    fn remove(&mut self, now: Time, select: &Select) {
        let jobs = self.unfinished(select);
        if jobs.is_empty() {
            return;
        }
        let mut kills: BTreeMap<StarterKey, Vec<AttemptId>> = BTreeMap::new();
        for job in &jobs {
            if let Some((attempt, key)) = self.live.get(job) {
                kills.entry(*key).or_default().push(AttemptId {
                    job: *job,
                    attempt: *attempt,
                });
            }
        }
        self.write(Record::Removed {
            at: now,
            ranges: ranges(&jobs),
        });
        for (key, ids) in kills {
            self.act(Action::Kill {
                key,
                ids,
                grace: KILL_GRACE,
            });
        }
        for job in jobs {
            self.note(now, job, || Note::Removed);
        }
    }

    fn note(&mut self, now: Time, job: JobId, note: impl FnOnce() -> Note) {
        let Some(cluster) = self.clusters.get(&job.cluster) else {
            return;
        };
        let Some(group) = cluster.group_of(job.proc).map(|g| &cluster.groups[g]) else {
            return;
        };
        if let Some(log) = group.log.clone() {
            let initialdir = group.body.initialdir.clone();
            self.act(Action::Note {
                job,
                log,
                initialdir,
                at: now,
                note: note(),
            });
        }
    }

    fn forget(&mut self, key: StarterKey, id: AttemptId) {
        if let Some(starter) = self.starters.get_mut(&key)
            && let Some(held) = starter.held.remove(&id)
        {
            if held.phase != Phase::Finished {
                starter.used_cpus = starter.used_cpus.saturating_sub(held.cpus);
            }
            self.hungry.insert(key);
        }
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

    // ---- matching ----

    fn fill_all(&mut self, now: Time) {
        if self.open.is_empty() {
            return;
        }
        // Slots first, backlogs after: a short queue spreads over all sites.
        let hungry: Vec<StarterKey> = self.hungry.iter().copied().collect();
        for rounds in [false, true] {
            for key in &hungry {
                self.fill_up(now, *key, rounds);
            }
        }
    }

    fn fill(&mut self, now: Time, key: StarterKey) {
        self.fill_up(now, key, true);
        if self.open.is_empty() {
            self.recall_for(now, key);
        }
    }

    fn fill_up(&mut self, now: Time, key: StarterKey, backlog: bool) {
        let Some(starter) = self.starters.get(&key) else {
            self.hungry.remove(&key);
            return;
        };
        if !starter.connected || !starter.known || starter.deadline.is_some_and(|d| d <= now + starter.offer.drain) {
            return;
        }
        let ceiling = starter.offer.cpus + if backlog { starter.backlog() } else { 0 };
        let mut used = starter.used_cpus;
        let mut chosen: Vec<(AttemptId, u64, Arc<Program>)> = Vec::new();
        let open: Vec<u32> = self.open.iter().copied().collect();
        'clusters: for cluster_id in open {
            let Some(cluster) = self.clusters.get_mut(&cluster_id) else {
                continue;
            };
            for group in &mut cluster.groups {
                let body = group.body.clone();
                if body.cpus > starter.offer.cpus
                    || body.memory_mb.unwrap_or(0) > starter.offer.memory_mb
                    || (body.transfer == Transfer::No && starter.offer.shared == Shared::Nothing)
                {
                    continue;
                }
                while used + body.cpus <= ceiling {
                    if chosen.len() >= ASSIGN_BATCH {
                        break 'clusters;
                    }
                    let Some(proc) = group.take_idle(&cluster.jobs) else {
                        break;
                    };
                    let id = JobId {
                        cluster: cluster_id,
                        proc,
                    };
                    let attempt = cluster.jobs[proc as usize].attempt + 1;
                    used += body.cpus;
                    chosen.push((AttemptId { job: id, attempt }, group.program, body.clone()));
                }
                if used >= ceiling {
                    break 'clusters;
                }
            }
            if cluster.groups.iter().all(|g| !g.has_idle()) {
                self.open.remove(&cluster_id);
            }
        }
        if chosen.is_empty() {
            return;
        }
        self.write(Record::Dispatched {
            key,
            ids: chosen.iter().map(|(id, ..)| *id).collect(),
        });
        // One message for programs that may run in place there, one for those that were found not to.
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        let host = starter.offer.shared;
        let (apart, together): (Vec<_>, Vec<_>) = chosen
            .into_iter()
            .partition(|(_, program, body)| body.transfer == Transfer::Yes || starter.unshared.contains(program));
        let mut messages = Vec::new();
        for (attempts, shared) in [(together, host), (apart, Shared::Nothing)] {
            if !attempts.is_empty() {
                let mut define = Vec::new();
                for (_, program, body) in &attempts {
                    if starter.defined.insert(*program) {
                        define.push((*program, body.clone()));
                    }
                }
                messages.push(Action::Assign {
                    key,
                    define,
                    attempts,
                    shared,
                });
            }
        }
        for message in messages {
            self.act(message);
        }
    }

    /// A starter has nothing to do and nothing is idle: take from the longest backlog.
    fn recall_for(&mut self, now: Time, key: StarterKey) {
        let Some(starter) = self.starters.get(&key) else { return };
        let free = starter.offer.cpus.saturating_sub(starter.used_cpus);
        if free == 0
            || !starter.connected
            || !starter.known
            || starter.deadline.is_some_and(|d| d <= now + starter.offer.drain)
        {
            return;
        }
        let longest = self
            .starters
            .iter()
            .filter(|(other, s)| **other != key && s.connected && s.known && !s.recalling)
            .map(|(other, s)| (s.count(Phase::Queued) as u64 * s.mean_ms.unwrap_or(1000), *other))
            .max();
        // A backlog that is gone within the round trip is not worth recalling.
        if let Some((work_ms, other)) = longest
            && work_ms > BACKLOG.as_millis() as u64
            && let Some(victim) = self.starters.get_mut(&other)
        {
            victim.recalling = true;
            self.act(Action::Recall {
                key: other,
                count: free,
            });
        }
    }

    /// CPUs that unfinished, unheld jobs would occupy at once.
    pub fn demand_cpus(&self) -> u64 {
        let unfinished = self.clusters.values().filter(|c| c.counts.idle + c.counts.running > 0);
        unfinished
            .map(|c| {
                let cpus = c.groups.iter().map(|g| g.body.cpus).max().unwrap_or(1);
                u64::from(c.counts.idle + c.counts.running) * u64::from(cpus)
            })
            .sum()
    }

    /// The proxy of a starter.
    pub fn proxy_of(&self, key: StarterKey) -> Option<(SiteId, ProxyId)> {
        self.starters.get(&key).map(|s| (s.offer.site, s.offer.proxy))
    }

    /// The starters of a proxy, or of a site.
    pub fn starters_of(&self, site: SiteId, proxy: Option<ProxyId>) -> Vec<StarterKey> {
        let of = self
            .starters
            .iter()
            .filter(|(_, s)| s.offer.site == site && proxy.is_none_or(|p| p == s.offer.proxy));
        of.map(|(key, _)| *key).collect()
    }
}

impl Group {
    fn has_idle(&self) -> bool {
        !self.again.is_empty() || self.fresh < self.count
    }

    /// The next idle job. The cursor passes over jobs that were removed before they started.
    fn take_idle(&mut self, jobs: &[Job]) -> Option<u32> {
        if let Some(proc) = self.again.pop_first() {
            return Some(proc);
        }
        while self.fresh < self.count {
            let proc = self.first + self.fresh;
            self.fresh += 1;
            if jobs.get(proc as usize).is_some_and(|job| job.state == JobState::Idle) {
                return Some(proc);
            }
        }
        None
    }
}

/// Runs of neighbouring jobs: cluster, first, last.
fn ranges(jobs: &[JobId]) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for job in jobs {
        match ranges.last_mut() {
            Some((cluster, _, last)) if *cluster == job.cluster && last.checked_add(1) == Some(job.proc) => {
                *last = job.proc
            }
            _ => ranges.push((job.cluster, job.proc, job.proc)),
        }
    }
    ranges
}
