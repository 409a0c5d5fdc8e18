//! The jobs on one node: which try starts when, what is told to the master and repeated until it is acknowledged, and when the starter ends.
//!
//! The machine holds every try from its assignment to the acknowledgement of its result. What a program and an assignment contain
//! beyond their demand is the driver's business and only passed through (`P`, `B`).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::take;
use core::time::Duration;

use crate::ids::AttemptId;
use crate::job::{AttemptResult, Outcome, OutputKind, Usage};
use crate::time::Time;

/// While jobs run, reports go at most this often: fast jobs share a message, and nobody waits longer than a round trip takes anyway.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(8);

/// A report of as many results goes at once.
pub const REPORT_RESULTS: usize = 64;

/// Largest sum of [`weight`]s in one report of several results; keeps a frame far below its limit.
pub const REPORT_BYTES: usize = 512 << 10;

/// No job starts while as many results wait to be acknowledged: some seconds' worth of the shortest jobs.
pub const MAX_UNACKNOWLEDGED: usize = 4096;

/// No job starts while results of this [`weight`] wait to be acknowledged.
pub const MAX_UNACKNOWLEDGED_BYTES: usize = 32 << 20;

/// Tries queued beyond this are given back; a master sends a small backlog.
pub const MAX_QUEUED: usize = 65_536;

/// Definitions kept; the oldest goes first. Queued tries hold their own.
pub const MAX_PROGRAMS: usize = 4096;

/// Acknowledged tries remembered, so that a late copy of their assignment starts nothing.
pub const REMEMBERED: usize = 16_384;

/// Jobs are ended this long before the walltime is over.
pub const WALLTIME_MARGIN: Duration = Duration::from_secs(10);

/// Between the two signals when the starter ends by itself or is asked to; batch systems kill as soon as 5 s after their warning.
pub const END_GRACE: Duration = Duration::from_secs(2);

/// How long an ending starter waits for its last acknowledgements.
pub const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long an ending starter lets its driver write results to the site's files.
pub const SPOOL_PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to write them there, for a starter that has lost its agent and holds results.
pub const SPOOL_AGAIN: Duration = Duration::from_secs(60);

/// Longest that such a starter holds them, where the walltime doesn't end before: a day of an allocation is worth more than most results.
pub const HOLD: Duration = Duration::from_secs(86_400);

/// A batch system that ends a proxy may send SIGTERM to the jobs as well as to the starter. A job that SIGTERM ended is therefore
/// reported only after this, when the starter was not asked to end meanwhile.
pub const TERM_DOUBT: Duration = Duration::from_secs(1);

const SIGTERM: u8 = 15;

/// When the starter ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Without work for this long.
    pub idle: Duration,
    /// Without an answer of the agent for this long.
    pub lease: Duration,
    /// No job starts when less than this is left of the walltime.
    pub drain: Duration,
}

/// What the node gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// CPUs that jobs may occupy at once.
    pub cpus: u32,
    /// Memory that they may occupy; 0 is unknown, and then not counted.
    pub memory_mb: u64,
    /// GPUs that they may use, each by one at a time.
    pub gpus: u32,
    /// When the walltime is over; none is never.
    pub ends: Option<Time>,
}

/// What a job of a program occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// CPUs, from 1 (0 counts as 1).
    pub cpus: u32,
    /// Memory; none is a share of the node's by the CPUs.
    pub memory_mb: Option<u64>,
    /// GPUs of its own.
    pub gpus: u32,
}

/// A try to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task<B> {
    /// Which.
    pub id: AttemptId,
    /// The number of its program.
    pub program: u64,
    /// The rest of the assignment.
    pub body: B,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event<P, B> {
    /// The agent took the starter in.
    AgentConnected {
        /// Is the way to the master open?
        master: bool,
        /// When it was called.
        asked: Time,
    },
    /// The agent answered.
    AgentHeard {
        /// When it was asked. Its words alone don't tell that it hears us, and the lease is about that: it counts us as ended so long
        /// after it heard us last.
        asked: Time,
    },
    /// The connection to the agent ended.
    AgentLost,
    /// The way to the master opened or closed.
    MasterLinkChanged {
        /// Is it open?
        up: bool,
    },
    /// The master defined a program.
    ProgramDefined {
        /// Its number.
        program: u64,
        /// What its jobs occupy.
        demand: Demand,
        /// The rest.
        body: P,
    },
    /// The master gave tries.
    Assigned {
        /// The last inventory that it had. Tries given on an older one are ignored: the newer one doesn't name them, so the master
        /// has given them elsewhere.
        inventory: u64,
        /// Which.
        tasks: Vec<Task<B>>,
    },
    /// Results are safe with the master.
    Acknowledged(Vec<AttemptId>),
    /// The master wants queued tries back.
    Recalled {
        /// The last inventory that it had; ignored if it is not ours, as what it was about is over.
        inventory: u64,
        /// How many, at most.
        count: usize,
    },
    /// The master wants tries killed.
    KillAsked {
        /// Which.
        ids: Vec<AttemptId>,
        /// Between the two signals.
        grace: Duration,
    },
    /// The agent, the batch system or a person wants the starter to end.
    EndAsked {
        /// Who and why.
        why: String,
    },
    /// The master wants the starter to end as soon as nothing runs.
    DrainAsked {
        /// Why.
        why: String,
    },
    /// The driver has done with [`Action::Spool`].
    Spooled {
        /// What is durable at the site now.
        kept: Vec<AttemptId>,
        /// Is there nobody left for whom to keep anything?
        over: bool,
    },
    /// A try's program runs.
    JobStarted {
        /// Which.
        id: AttemptId,
    },
    /// A try ended, or could not start; its outputs are ready to be fetched.
    JobEnded(AttemptResult),
    /// The deadline came.
    TimePassed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P, B> {
    /// Run this, then say [`Event::JobStarted`] and [`Event::JobEnded`].
    Start {
        /// The try.
        task: Task<B>,
        /// Its program.
        program: P,
    },
    /// Send SIGTERM to the try's whole tree.
    Terminate(AttemptId),
    /// Send SIGKILL to the try's whole tree.
    Kill(AttemptId),
    /// Tell the master all that is held.
    SendInventory {
        /// Which inventory this is, from 1.
        number: u64,
        /// Not started.
        queued: Vec<AttemptId>,
        /// Running.
        running: Vec<AttemptId>,
        /// Ended, not acknowledged.
        finished: Vec<AttemptId>,
    },
    /// Tell the master what happened.
    SendReport {
        /// Tries that started.
        started: Vec<AttemptId>,
        /// Tries that ended.
        results: Vec<AttemptResult>,
        /// Tries given back.
        returned: Vec<AttemptId>,
    },
    /// Write these results, with their outputs, to the site's files, where the agent finds them; then say [`Event::Spooled`].
    Spool(Vec<AttemptId>),
    /// Remove what these tries left on the node.
    Forget(Vec<AttemptId>),
    /// Say so, and end. Nothing comes after.
    Leave {
        /// Why.
        why: String,
    },
}

#[derive(Debug)]
struct Queued<P, B> {
    task: Task<B>,
    program: P,
    demand: Demand,
}

#[derive(Debug)]
struct Running {
    cpus: u32,
    memory_mb: u64,
    /// Which of the node's.
    gpus: Vec<u32>,
    doom: Option<Doom>,
}

/// A running try that is being killed.
#[derive(Debug)]
struct Doom {
    verdict: Outcome,
    /// When SIGKILL follows; none when it was sent.
    kill_at: Option<Time>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The walltime nears, or the master said so and why: nothing new.
    Draining(Option<String>),
    /// Jobs are being killed, last words said.
    Ending {
        why: String,
        until: Time,
        spool: Spool,
        /// Until when results that could not be spooled are held.
        hold: Option<Time>,
    },
    Left,
}

/// Is what could not be told being written to the site's files?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spool {
    NotYet,
    Running,
    Failed,
}

/// The machine. See the module's text.
#[derive(Debug)]
pub struct Starter<P, B> {
    limits: Limits,
    offer: Offer,
    phase: Phase,
    programs: BTreeMap<u64, (Demand, P)>,
    program_order: VecDeque<u64>,
    queue: VecDeque<Queued<P, B>>,
    running: BTreeMap<AttemptId, Running>,
    cpus_used: u32,
    memory_used: u64,
    /// The node's, from 0.
    gpus_free: BTreeSet<u32>,
    /// Ended by SIGTERM, not ours; see [`TERM_DOUBT`].
    doubtful: Vec<(Time, AttemptResult)>,
    finished: BTreeMap<AttemptId, AttemptResult>,
    finished_bytes: usize,
    acknowledged: BTreeSet<AttemptId>,
    acknowledged_order: VecDeque<AttemptId>,
    linked: bool,
    /// Inventories told.
    inventories: u64,
    heard: Time,
    /// When there was last something to do.
    worked: Time,
    reported: Option<Time>,
    started: Vec<AttemptId>,
    unsent: VecDeque<AttemptId>,
    returned: Vec<AttemptId>,
    actions: VecDeque<Action<P, B>>,
}

impl<P: Clone, B> Starter<P, B> {
    /// A starter that begins at `now`, without work.
    pub fn new(now: Time, limits: Limits, offer: Offer) -> Self {
        Starter {
            limits,
            offer,
            phase: Phase::Open,
            programs: BTreeMap::new(),
            program_order: VecDeque::new(),
            queue: VecDeque::new(),
            running: BTreeMap::new(),
            cpus_used: 0,
            memory_used: 0,
            gpus_free: (0..offer.gpus).collect(),
            doubtful: Vec::new(),
            finished: BTreeMap::new(),
            finished_bytes: 0,
            acknowledged: BTreeSet::new(),
            acknowledged_order: VecDeque::new(),
            linked: false,
            inventories: 0,
            heard: now,
            worked: now,
            reported: None,
            started: Vec::new(),
            unsent: VecDeque::new(),
            returned: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, event: Event<P, B>) {
        if self.phase == Phase::Left {
            return;
        }
        if !self.is_empty() {
            self.worked = now;
        }
        match event {
            Event::AgentConnected { master, asked } => {
                self.heard = self.heard.max(asked);
                self.link(false);
                self.link(master);
            }
            Event::AgentHeard { asked } => self.heard = self.heard.max(asked),
            Event::AgentLost => self.link(false),
            Event::MasterLinkChanged { up } => self.link(up),
            Event::ProgramDefined { program, demand, body } => self.define(program, demand, body),
            Event::Assigned { inventory, tasks } => {
                if inventory == self.inventories {
                    tasks.into_iter().for_each(|task| self.assign(task));
                }
            }
            Event::Acknowledged(ids) => self.acknowledge(ids),
            Event::Recalled { inventory, count } => {
                if inventory == self.inventories {
                    let keep = self.queue.len().saturating_sub(count);
                    let back = self.queue.drain(keep..).map(|q| q.task.id);
                    self.returned.extend(back);
                }
            }
            Event::KillAsked { ids, grace } => self.kill(now, &ids, grace),
            Event::DrainAsked { why } => {
                if self.phase == Phase::Open {
                    self.drain(Some(why));
                }
            }
            Event::EndAsked { why } => self.end(now, &why, END_GRACE, now + END_GRACE + END_PATIENCE),
            Event::Spooled { kept, over } => self.spooled(now, &kept, over),
            Event::JobStarted { id } => {
                if self.linked && self.running.contains_key(&id) {
                    self.started.push(id);
                }
            }
            Event::JobEnded(result) => self.ended(now, result),
            Event::TimePassed => {}
        }
        self.advance(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<P, B>> {
        self.actions.pop_front()
    }

    /// When [`Event::TimePassed`] is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Time> {
        let report = (self.linked && self.has_news()).then(|| self.report_due());
        let kills = self.running.values().filter_map(|r| r.doom.as_ref()?.kill_at);
        let doubts = self.doubtful.iter().map(|(until, _)| *until);
        let phase = match &self.phase {
            Phase::Open => [
                Some(self.heard + self.limits.lease),
                self.is_empty().then(|| self.worked + self.limits.idle),
                self.offer.ends.map(|ends| ends - self.limits.drain),
                self.offer.ends.map(|ends| ends - WALLTIME_MARGIN),
            ],
            Phase::Draining(_) => {
                [Some(self.heard + self.limits.lease), self.offer.ends.map(|ends| ends - WALLTIME_MARGIN), None, None]
            }
            Phase::Ending { until, .. } => [Some(*until), None, None, None],
            Phase::Left => return None,
        };
        kills.chain(doubts).chain(report).chain(phase.into_iter().flatten()).min()
    }

    /// Is this try being killed, so that it will not count?
    pub fn is_doomed(&self, id: AttemptId) -> bool {
        self.running.get(&id).is_some_and(|job| job.doom.is_some())
    }

    /// CPUs that running jobs occupy.
    pub fn cpus_used(&self) -> u32 {
        self.cpus_used
    }

    /// The result of a try that is not acknowledged yet.
    pub fn result(&self, id: AttemptId) -> Option<&AttemptResult> {
        self.finished.get(&id)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.doubtful.is_empty() && self.finished.is_empty()
    }

    fn link(&mut self, up: bool) {
        if !up {
            self.linked = false;
            return;
        }
        // What was under way may be lost. The inventory tells what was started and given back; only results need repeating.
        self.linked = true;
        self.started.clear();
        self.returned.clear();
        self.unsent = self.finished.keys().copied().collect();
        self.reported = None;
        self.inventories += 1;
        let doubtful = self.doubtful.iter().map(|(_, result)| result.id);
        self.actions.push_back(Action::SendInventory {
            number: self.inventories,
            queued: self.queue.iter().map(|q| q.task.id).collect(),
            running: self.running.keys().copied().chain(doubtful).collect(),
            finished: self.finished.keys().copied().collect(),
        });
    }

    fn define(&mut self, program: u64, demand: Demand, body: P) {
        let demand = Demand { cpus: demand.cpus.max(1), ..demand };
        if self.programs.insert(program, (demand, body)).is_none() {
            self.program_order.push_back(program);
        }
        if self.program_order.len() > MAX_PROGRAMS
            && let Some(oldest) = self.program_order.pop_front()
        {
            self.programs.remove(&oldest);
        }
    }

    fn is_known(&self, id: AttemptId) -> bool {
        self.running.contains_key(&id)
            || self.finished.contains_key(&id)
            || self.acknowledged.contains(&id)
            || self.doubtful.iter().any(|(_, result)| result.id == id)
            || self.queue.iter().any(|q| q.task.id == id)
    }

    fn assign(&mut self, task: Task<B>) {
        if self.is_known(task.id) {
            return;
        }
        if self.phase != Phase::Open || self.queue.len() >= MAX_QUEUED {
            self.returned.push(task.id);
            return;
        }
        let Some((demand, program)) = self.programs.get(&task.program) else {
            let why = format!("program {} was not defined to the starter", task.program);
            return self.fail(task.id, why);
        };
        let demand = *demand;
        if demand.cpus > self.offer.cpus {
            let why = format!("needs {} CPUs, the node offers {}", demand.cpus, self.offer.cpus);
            return self.fail(task.id, why);
        }
        if let Some(memory) = demand.memory_mb
            && self.offer.memory_mb != 0
            && memory > self.offer.memory_mb
        {
            let why = format!("needs {memory} MB of memory, the node offers {}", self.offer.memory_mb);
            return self.fail(task.id, why);
        }
        if demand.gpus > self.offer.gpus {
            let why = format!("needs {} GPUs, the node offers {}", demand.gpus, self.offer.gpus);
            return self.fail(task.id, why);
        }
        let program = program.clone();
        self.queue.push_back(Queued { task, program, demand });
    }

    fn fail(&mut self, id: AttemptId, why: String) {
        self.finish(AttemptResult {
            id,
            outcome: Outcome::SiteFailed(why),
            usage: Usage::default(),
            outputs: Vec::new(),
            kept: None,
        });
    }

    fn finish(&mut self, result: AttemptResult) {
        self.finished_bytes += weight(&result);
        self.unsent.push_back(result.id);
        self.finished.insert(result.id, result);
    }

    fn acknowledge(&mut self, ids: Vec<AttemptId>) {
        let mut forget = ids;
        forget.retain(|id| {
            let Some(result) = self.finished.remove(id) else {
                return false;
            };
            self.finished_bytes = self.finished_bytes.saturating_sub(weight(&result));
            if self.acknowledged.insert(*id) {
                self.acknowledged_order.push_back(*id);
            }
            if self.acknowledged_order.len() > REMEMBERED
                && let Some(oldest) = self.acknowledged_order.pop_front()
            {
                self.acknowledged.remove(&oldest);
            }
            true
        });
        if !forget.is_empty() {
            self.actions.push_back(Action::Forget(forget));
        }
    }

    fn kill(&mut self, now: Time, ids: &[AttemptId], grace: Duration) {
        for id in ids {
            if self.running.contains_key(id) {
                self.doom(now, *id, Outcome::Killed, grace);
            } else if self.finished.contains_key(id) {
                self.unsent.push_back(*id);
            } else if !self.doubtful.iter().any(|(_, result)| result.id == *id) {
                self.queue.retain(|q| q.task.id != *id);
                self.returned.push(*id);
            }
        }
    }

    /// The first verdict stays; a shorter grace counts.
    fn doom(&mut self, now: Time, id: AttemptId, verdict: Outcome, grace: Duration) {
        let Some(job) = self.running.get_mut(&id) else {
            return;
        };
        let kill_at = now + grace;
        match &mut job.doom {
            Some(doom) => doom.kill_at = doom.kill_at.map(|at| at.min(kill_at)),
            None => {
                job.doom = Some(Doom { verdict, kill_at: Some(kill_at) });
                if !grace.is_zero() {
                    self.actions.push_back(Action::Terminate(id));
                }
            }
        }
    }

    fn ended(&mut self, now: Time, mut result: AttemptResult) {
        let Some(job) = self.running.remove(&result.id) else {
            return;
        };
        self.cpus_used -= job.cpus;
        self.memory_used -= job.memory_mb;
        self.gpus_free.extend(job.gpus);
        if let Some(doom) = job.doom {
            result.outcome = doom.verdict;
            result.outputs.clear();
        } else if result.outcome == Outcome::Signaled(SIGTERM) {
            self.doubtful.push((now + TERM_DOUBT, result));
            return;
        }
        self.finish(result);
    }

    /// Gives back what is queued, kills what runs, and leaves when all is told, at the latest at `until`.
    fn end(&mut self, now: Time, why: &str, grace: Duration, until: Time) {
        match &mut self.phase {
            Phase::Ending { until: earlier, spool, hold, .. } => {
                *earlier = until.min(*earlier);
                if hold.take().is_some() && *spool == Spool::Failed {
                    *spool = Spool::NotYet;
                }
            }
            phase => {
                *phase = Phase::Ending { why: why.into(), until, spool: Spool::NotYet, hold: None };
            }
        }
        self.give_back();
        let ids: Vec<_> = self.running.keys().copied().collect();
        for id in ids {
            self.doom(now, id, Outcome::Evicted(why.into()), grace);
        }
        for (_, mut result) in take(&mut self.doubtful) {
            result.outcome = Outcome::Evicted(why.into());
            result.outputs.clear();
            self.finish(result);
        }
    }

    fn give_back(&mut self) {
        self.returned.extend(self.queue.drain(..).map(|q| q.task.id));
    }

    fn advance(&mut self, now: Time) {
        while let Some(at) = self.doubtful.iter().position(|(until, _)| *until <= now) {
            let (_, result) = self.doubtful.remove(at);
            self.finish(result);
        }
        self.advance_phase(now);
        for (id, job) in &mut self.running {
            if let Some(doom) = &mut job.doom
                && doom.kill_at.is_some_and(|at| at <= now)
            {
                doom.kill_at = None;
                self.actions.push_back(Action::Kill(*id));
            }
        }
        self.start_jobs();
        self.report(now);
        self.spool(now);
        if let Some(why) = self.farewell(now) {
            self.flush();
            self.actions.push_back(Action::Leave { why });
            self.phase = Phase::Left;
        }
    }

    /// What an ending starter could not tell goes to the site's files.
    fn spool(&mut self, now: Time) {
        let idle = self.running.is_empty() && self.doubtful.is_empty();
        let Phase::Ending { until, spool, hold, .. } = &mut self.phase else {
            return;
        };
        let due = match spool {
            Spool::NotYet => now >= *until || (idle && !self.linked),
            Spool::Running => false,
            Spool::Failed => now >= *until && hold.is_some_and(|hold| now < hold),
        };
        if due && !self.finished.is_empty() {
            *spool = Spool::Running;
            *until = hold.unwrap_or(now + SPOOL_PATIENCE);
            self.actions.push_back(Action::Spool(self.finished.keys().copied().collect()));
        }
    }

    fn spooled(&mut self, now: Time, kept: &[AttemptId], over: bool) {
        let Phase::Ending { until, spool, hold, .. } = &mut self.phase else {
            return;
        };
        *spool = Spool::Failed;
        *hold = hold.filter(|_| !over);
        *until = hold.map_or(now, |hold| hold.min(now + SPOOL_AGAIN));
        for id in kept {
            self.finished.remove(id);
        }
    }

    fn advance_phase(&mut self, now: Time) {
        if matches!(self.phase, Phase::Ending { .. }) {
            return;
        }
        if now >= self.heard + self.limits.lease {
            let why = format!("no answer of the site's agent for {}", human(self.limits.lease));
            self.end(now, &why, Duration::ZERO, now + END_PATIENCE);
            if let Phase::Ending { hold, .. } = &mut self.phase {
                let walltime = self.offer.ends.map(|ends| ends - WALLTIME_MARGIN);
                *hold = Some(walltime.map_or(now + HOLD, |ends| ends.min(now + HOLD)));
            }
            return;
        }
        let Some(ends) = self.offer.ends else {
            return;
        };
        if now >= ends - WALLTIME_MARGIN {
            let last_words = ends - (WALLTIME_MARGIN - END_GRACE - END_PATIENCE);
            self.end(now, "walltime of the proxy ended", END_GRACE, last_words);
        } else if self.phase == Phase::Open && now >= ends - self.limits.drain {
            self.drain(None);
        }
    }

    fn drain(&mut self, why: Option<String>) {
        self.phase = Phase::Draining(why);
        self.give_back();
    }

    fn start_jobs(&mut self) {
        while self.phase == Phase::Open
            && self.finished.len() < MAX_UNACKNOWLEDGED
            && self.finished_bytes < MAX_UNACKNOWLEDGED_BYTES
            && let Some(head) = self.queue.front()
        {
            // Tries start in the order given: a wide one is not overtaken for ever by narrow ones.
            let cpus = head.demand.cpus;
            let memory_mb = self.memory_of(head.demand);
            if cpus > self.offer.cpus - self.cpus_used || memory_mb > self.offer.memory_mb - self.memory_used {
                return;
            }
            let gpus: Vec<u32> = self.gpus_free.iter().take(head.demand.gpus as usize).copied().collect();
            if gpus.len() < head.demand.gpus as usize {
                return;
            }
            let Some(Queued { task, program, .. }) = self.queue.pop_front() else {
                return;
            };
            self.cpus_used += cpus;
            self.memory_used += memory_mb;
            self.gpus_free.retain(|gpu| !gpus.contains(gpu));
            let doom = None;
            self.running.insert(task.id, Running { cpus, memory_mb, gpus, doom });
            self.actions.push_back(Action::Start { task, program });
        }
    }

    /// The node's GPUs that a running try has to itself, counted from 0.
    pub fn gpus_of(&self, id: AttemptId) -> &[u32] {
        self.running.get(&id).map_or(&[], |job| &job.gpus)
    }

    fn memory_of(&self, demand: Demand) -> u64 {
        let share = u128::from(self.offer.memory_mb) * u128::from(demand.cpus) / u128::from(self.offer.cpus.max(1));
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        demand.memory_mb.unwrap_or(share).min(self.offer.memory_mb)
    }

    fn has_news(&self) -> bool {
        !(self.started.is_empty() && self.returned.is_empty() && self.unsent.is_empty())
    }

    fn report_due(&self) -> Time {
        self.reported.map_or(Time(0), |at| at + REPORT_INTERVAL)
    }

    fn report(&mut self, now: Time) {
        let busy = !(self.running.is_empty() && self.queue.is_empty());
        if self.has_news() && !(busy && now < self.report_due() && self.unsent.len() < REPORT_RESULTS) {
            self.reported = Some(now);
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.linked {
            // Told by the inventory and the repeated results when the way opens.
            self.started.clear();
            self.returned.clear();
            self.unsent.clear();
        }
        while self.has_news() {
            let mut results = Vec::new();
            let mut bytes = 0;
            while results.len() < REPORT_RESULTS
                && let Some(id) = self.unsent.front()
            {
                if let Some(result) = self.finished.get(id) {
                    bytes += weight(result);
                    if bytes > REPORT_BYTES && !results.is_empty() {
                        break;
                    }
                    results.push(result.clone());
                }
                self.unsent.pop_front();
            }
            let (started, returned) = (take(&mut self.started), take(&mut self.returned));
            if !(results.is_empty() && started.is_empty() && returned.is_empty()) {
                self.actions.push_back(Action::SendReport { started, results, returned });
            }
        }
    }

    fn farewell(&self, now: Time) -> Option<String> {
        match &self.phase {
            Phase::Open => (self.is_empty() && now >= self.worked + self.limits.idle)
                .then(|| format!("idle for {}", human(self.limits.idle))),
            Phase::Draining(Some(why)) => self.is_empty().then(|| why.clone()),
            Phase::Draining(None) => self.is_empty().then(|| {
                let left = self.offer.ends.map_or(Duration::ZERO, |ends| ends.since(now));
                format!("nothing runs and the walltime ends in {}", human(left))
            }),
            Phase::Ending { why, until, spool, .. } => {
                let told = self.is_empty() && *spool != Spool::Running;
                (told || now >= *until).then(|| why.clone())
            }
            Phase::Left => None,
        }
    }
}

/// About how many bytes a result takes in a message and in memory.
pub fn weight(result: &AttemptResult) -> usize {
    let text = match &result.outcome {
        Outcome::Unrunnable(text)
        | Outcome::SiteFailed(text)
        | Outcome::Evicted(text)
        | Outcome::OutOfMemory(text)
        | Outcome::OutputFailed(text) => text.len(),
        _ => 0,
    };
    let outputs = result.outputs.iter().map(|output| {
        let name = match &output.kind {
            OutputKind::File(name) => name.len(),
            OutputKind::Stdout | OutputKind::Stderr => 0,
        };
        64 + name + output.inline.as_ref().map_or(0, Vec::len)
    });
    64 + text + outputs.sum::<usize>()
}

fn human(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{}.{:03}s", seconds, span.subsec_millis()).replace(".000s", "s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, _) => format!("{h}h"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}

#[cfg(test)]
mod tests;
