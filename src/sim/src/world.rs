//! The world: what happens when, which faults come, and what must hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use vo_core::ids::AttemptId;
use vo_core::job::{AttemptResult, Outcome, Output, OutputKind, Program, Usage};
use vo_core::pool::{self, Action, End, Event, GroupRecord, JobState, Offer, Record, Select, Shared};
use vo_core::proxy::{self, Link, Proxies, Row, RowStatus, SubmitAnswer};
use vo_core::starter::{Demand, Limits, Offer as NodeOffer, Starter, Task};
use vo_core::{JobId, ProxyId, SiteId, StarterKey, Time};
use vo_store::memdisk::{Loss, MemDisk};

use crate::clock::{Clock, Lane};
use crate::master::Master;
use crate::site::{Agent, Batch, BatchJob, BatchState, Line, Node, Site, StarterAction, StarterEvent, ToStarter};

const LEASE: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(300);
const DRAIN: Duration = Duration::from_secs(60);
const STATUS: Duration = Duration::from_secs(60);
const WALLTIME: Duration = Duration::from_secs(3600);

/// Faults come until then.
const FAULTS: Duration = Duration::from_secs(2 * 3600);

/// All must be done by then.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

/// Something that must hold did not.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {what}")]
pub struct Failure {
    /// The world's seed.
    pub seed: u64,
    /// What was seen.
    pub what: String,
}

/// What a world went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Jobs that completed.
    pub completed: u32,
    /// Attempts that were started.
    pub starts: u32,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u32>,
    /// Things that happened.
    pub steps: u64,
    /// Virtual time that passed.
    pub took: Duration,
}

/// Runs the world of a seed to its end; `log`, if any, gets a line for each thing that happens.
///
/// # Errors
/// The first thing that must hold and does not.
pub fn run(seed: u64, log: Option<&mut dyn FnMut(&str)>) -> Result<Summary, Failure> {
    let mut world = World::new(seed, log);
    match world.play() {
        Ok(()) => Ok(world.summary),
        Err(what) => {
            world.say(format_args!("FAILED: {what}"));
            Err(Failure { seed, what })
        }
    }
}

type Checked = Result<(), String>;

#[derive(Clone, Debug)]
enum FromStarter {
    Inventory(Vec<AttemptId>, Vec<AttemptId>, Vec<AttemptId>),
    Report(Vec<AttemptId>, Vec<AttemptResult>, Vec<AttemptId>),
    Leaving(String),
}

#[derive(Clone, Debug)]
enum ToMaster {
    Up(StarterKey, Offer, Duration),
    Down(StarterKey, bool, String),
    Relay(StarterKey, FromStarter),
    Done,
}

#[derive(Clone, Debug)]
enum ToAgent {
    Configure,
    Target(u32),
    Relay(StarterKey, ToStarter),
    Shutdown,
}

#[derive(Clone, Debug)]
enum AtStarter {
    Welcome(bool),
    Master(bool),
    End(String),
    Relay(ToStarter),
}

#[derive(Clone, Debug)]
enum What {
    Submit,
    Remove,
    Fault,
    Calm,
    Ending,
    MasterStarts,
    Commit(u64),
    MasterTick(u64),
    Collected(u64, u64),
    Dial(u64, usize),
    ReachableAgain(usize),
    ToMaster(usize, u64, ToMaster),
    ToAgent(usize, u64, ToAgent),
    StreamLostAtMaster(usize, u64),
    StreamLostAtAgent(usize, u64, u64),
    Sync(usize, u64),
    AgentTick(usize, u64),
    Answer(usize, u64, proxy::Event),
    Call(usize, StarterKey),
    Beat(usize, StarterKey, u64),
    AtAgent(usize, StarterKey, u64, FromStarter),
    AtStarter(usize, StarterKey, u64, AtStarter),
    LineLostAtAgent(usize, StarterKey, u64),
    LineLostAtStarter(usize, StarterKey, u64),
    StarterTick(usize, StarterKey),
    Started(usize, StarterKey, AttemptId),
    Ended(usize, StarterKey, AttemptId, u64, Outcome),
    TreeDead(usize, StarterKey),
    Accept(usize, ProxyId, String),
    Launch(usize, String),
    Terminate(usize, String, u32),
    NodesLost(usize, String, u32),
    HangOver(usize),
}

struct World<'a> {
    log: Option<&'a mut dyn FnMut(&str)>,
    clock: Clock<What>,
    disk: MemDisk,
    master: Option<Master>,
    masters: u64,
    sites: Vec<Site>,
    links: u64,
    whole: BTreeSet<u64>,
    heard: BTreeMap<u64, Time>,
    next_key: u64,
    runs: u64,
    calm: bool,
    ending: bool,
    done: BTreeSet<usize>,
    kinds: Vec<&'static str>,
    // What the checker believes.
    journal: Vec<Record>,
    over: BTreeMap<JobId, usize>,
    acknowledged: BTreeMap<u32, u32>,
    removed: BTreeSet<JobId>,
    truth: BTreeMap<AttemptId, Outcome>,
    summary: Summary,
    wrong: Option<String>,
}

impl<'a> World<'a> {
    fn new(seed: u64, log: Option<&'a mut dyn FnMut(&str)>) -> Self {
        let mut clock = Clock::new(seed);
        let sites = (0..clock.between(1, 4)).map(|_| Site {
            agent: None,
            lives: 0,
            table: Vec::new(),
            tags: BTreeSet::new(),
            exits: BTreeMap::new(),
            batch: Batch::default(),
            starters: BTreeMap::new(),
            shape: (clock.between(1, 3) as u32, clock.between(1, 5) as u32),
            stream: None,
            reachable: true,
        });
        let sites = sites.collect();
        let all = [
            "master killed",
            "agent killed",
            "stream cut",
            "site unreachable",
            "line cut",
            "starter killed",
            "node down",
            "batch hangs",
            "requeued",
        ];
        let mut kinds: Vec<_> = all.into_iter().filter(|_| clock.one_in(2)).collect();
        if kinds.is_empty() && clock.one_in(2) {
            kinds = all.to_vec();
        }
        World {
            log,
            clock,
            disk: MemDisk::new(),
            master: None,
            masters: 0,
            sites,
            links: 0,
            whole: BTreeSet::new(),
            heard: BTreeMap::new(),
            next_key: 0,
            runs: 0,
            calm: false,
            ending: false,
            done: BTreeSet::new(),
            kinds,
            journal: Vec::new(),
            over: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            removed: BTreeSet::new(),
            truth: BTreeMap::new(),
            summary: Summary::default(),
            wrong: None,
        }
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        if let Some(log) = &mut self.log {
            log(&format!("{:>12} {what}", self.clock.now.0));
        }
    }

    fn play(&mut self) -> Checked {
        let begin = self.clock.now;
        self.clock.after(0, 1, What::MasterStarts);
        for _ in 0..self.clock.between(1, 6) {
            self.clock.after(0, 3_600_000, What::Submit);
        }
        for _ in 0..self.clock.between(0, 4) {
            self.clock.after(0, 5_400_000, What::Remove);
        }
        self.clock.after(1000, 100_000, What::Fault);
        self.clock.at(begin + FAULTS, What::Calm);
        while self.done.len() < self.sites.len() {
            let what = self.clock.advance().ok_or("nothing more happens")?;
            self.summary.steps += 1;
            self.say(format_args!("{what:?}"));
            if self.clock.now > begin + PATIENCE || self.summary.steps > 3_000_000 {
                return Err(format!("not done in time: {}", self.state()));
            }
            self.happen(what)?;
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
        }
        self.summary.took = self.clock.now.since(begin);
        self.check_end()
    }

    fn state(&self) -> String {
        let mut out = String::new();
        if let Some(master) = &self.master {
            let _ = write!(out, "{:?}", master.pool.counts(&Select::default()));
        }
        for (index, site) in self.sites.iter().enumerate() {
            let agent = site.agent.as_ref();
            let proxies: Vec<String> = agent.map_or_else(Vec::new, |a| {
                a.machine
                    .views()
                    .map(|v| format!("{} {} {}", v.id, v.state, v.why))
                    .collect()
            });
            let alive = site.starters.values().filter(|node| node.alive).count();
            let jobs = site
                .batch
                .jobs
                .values()
                .filter(|j| j.state != BatchState::Ended)
                .count();
            let _ = write!(
                out,
                "; site {index}: {proxies:?}, {alive} starters alive, {jobs} batch jobs"
            );
        }
        out
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    fn link(&mut self) -> u64 {
        self.links += 1;
        self.whole.insert(self.links);
        self.links
    }

    fn happen(&mut self, what: What) -> Checked {
        match what {
            What::Submit => self.submit(),
            What::Remove => self.remove(),
            What::Fault => self.fault()?,
            What::Calm => self.calm(),
            What::Ending => self.end(),
            What::MasterStarts => self.start_master()?,
            What::Commit(life) => self.commit(life)?,
            What::MasterTick(life) => self.master_tick(life),
            What::Collected(life, number) => self.collected(life, number),
            What::Dial(life, site) => self.dial(life, site),
            What::ReachableAgain(site) => self.sites[site].reachable = true,
            What::ToMaster(site, link, message) => self.at_master(site, link, message),
            What::ToAgent(site, link, message) => self.at_agent(site, link, message),
            What::StreamLostAtMaster(site, link) => self.stream_lost_at_master(site, link),
            What::StreamLostAtAgent(site, life, link) => self.stream_lost_at_agent(site, life, link),
            What::Sync(site, life) => self.sync(site, life),
            What::AgentTick(site, life) => {
                let now = self.clock.now;
                if let Some(agent) = self.agent(site, life).filter(|agent| agent.tick == Some(now)) {
                    agent.tick = None;
                    self.tell_proxies(site, proxy::Event::DeadlinePassed);
                }
            }
            What::Answer(site, life, event) => {
                if self.agent(site, life).is_some() {
                    self.tell_proxies(site, event);
                }
            }
            What::Call(site, key) => self.call(site, key),
            What::Beat(site, key, link) => self.beat(site, key, link),
            What::AtAgent(site, key, link, message) => self.from_starter(site, key, link, message),
            What::AtStarter(site, key, link, message) => self.to_starter(site, key, link, message),
            What::LineLostAtAgent(site, key, link) => self.line_lost_at_agent(site, key, link, None),
            What::LineLostAtStarter(site, key, link) => self.line_lost_at_starter(site, key, link),
            What::StarterTick(site, key) => {
                let now = self.clock.now;
                if let Some(node) = self.sites[site]
                    .starters
                    .get_mut(&key)
                    .filter(|node| node.tick == Some(now))
                {
                    node.tick = None;
                    self.tell_starter(site, key, StarterEvent::TimePassed);
                }
            }
            What::Started(site, key, id) => {
                if self.sites[site]
                    .starters
                    .get(&key)
                    .is_some_and(|node| node.running.contains_key(&id))
                {
                    self.tell_starter(site, key, StarterEvent::JobStarted { id });
                }
            }
            What::Ended(site, key, id, run, outcome) => self.process_ended(site, key, id, run, outcome),
            What::TreeDead(site, key) => self.tree_dead(site, key),
            What::Accept(site, proxy, name) => self.accept(site, proxy, name),
            What::Launch(site, id) => self.launch(site, &id),
            What::Terminate(site, id, restarts) => self.batch_kill(site, &id, restarts),
            What::NodesLost(site, id, restarts) => self.nodes_lost(site, &id, restarts),
            What::HangOver(site) => self.sites[site].batch.hangs = false,
        }
        Ok(())
    }

    // ---- users ----

    fn submit(&mut self) {
        let Some(master) = &mut self.master else {
            return self.clock.after(1000, 60_000, What::Submit);
        };
        let widest = self.sites.iter().map(|site| site.shape.1).max().unwrap_or(1);
        let groups: Vec<GroupRecord> = (0..self.clock.between(1, 4))
            .map(|_| GroupRecord {
                count: self.clock.between(1, 40) as u32,
                program: Program {
                    cpus: if self.clock.one_in(4) { widest.min(2) } else { 1 },
                    ..Program::default()
                },
                log: None,
            })
            .collect();
        let jobs = groups.iter().map(|g| g.count).sum();
        let cluster = master.pool.submit(self.clock.now, "simulated".into(), groups);
        master.submitted.push((master.pool.sequence(), cluster, jobs));
        self.turn();
    }

    fn remove(&mut self) {
        let Some(master) = &mut self.master else { return };
        let all: Vec<JobId> = master
            .pool
            .views(&Select::default(), None)
            .map(|view| view.id)
            .collect();
        let Some(job) = self.clock.pick(&all) else { return };
        let mut select = Select::default();
        if self.clock.one_in(5) {
            select.clusters.insert(job.cluster);
        } else {
            select.jobs.insert(job);
        }
        let jobs = master.pool.views(&select, None).map(|view| view.id).collect();
        master.pool.handle(self.clock.now, Event::RemovalAsked { select });
        master.removals.push((master.pool.sequence(), jobs));
        self.turn();
    }

    // ---- faults ----

    fn fault(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        self.clock.after(1000, 240_000, What::Fault);
        let Some(kind) = self.clock.pick(&self.kinds) else {
            return Ok(());
        };
        let site = self.clock.between(0, self.sites.len() as u64) as usize;
        let keys: Vec<StarterKey> = self.sites[site]
            .starters
            .iter()
            .filter(|(_, node)| node.alive)
            .map(|(key, _)| *key)
            .collect();
        let key = self.clock.pick(&keys);
        let running = self.sites[site]
            .batch
            .jobs
            .iter()
            .filter(|(_, job)| job.state == BatchState::Running && !job.cancelled);
        let running: Vec<String> = running.map(|(id, _)| id.clone()).collect();
        let batch_id = self.clock.pick(&running);
        *self.summary.faults.entry(kind).or_default() += 1;
        self.say(format_args!("FAULT {kind} at site {site}"));
        match kind {
            "master killed" => self.kill_master(),
            "agent killed" => self.kill_agent(site),
            "stream cut" => self.cut_stream(site),
            "site unreachable" => {
                self.sites[site].reachable = false;
                self.clock.after(1000, 1_500_000, What::ReachableAgain(site));
                self.cut_stream(site);
            }
            "line cut" => key.into_iter().for_each(|key| self.cut_line(site, key)),
            "starter killed" => key.into_iter().for_each(|key| self.kill_starter(site, key, true)),
            "node down" => {
                if let Some(key) = key {
                    let (id, restarts) = self.batch_job_of(site, key);
                    self.kill_starter(site, key, false);
                    self.clock.after(10_000, 300_000, What::NodesLost(site, id, restarts));
                }
            }
            "batch hangs" => {
                self.sites[site].batch.hangs = true;
                self.clock.after(1000, 600_000, What::HangOver(site));
            }
            _ => {
                if let Some(id) = batch_id {
                    self.requeue(site, &id);
                }
            }
        }
        Ok(())
    }

    fn calm(&mut self) {
        self.calm = true;
        for site in 0..self.sites.len() {
            self.sites[site].reachable = true;
            self.sites[site].batch.hangs = false;
        }
        self.clock.after(1000, 60_000, What::Ending);
    }

    /// When all jobs are over, the session ends.
    fn end(&mut self) {
        let over = self.master.as_ref().is_some_and(|master| {
            let counts = master.pool.counts(&Select::default());
            counts.unfinished() == counts.held && master.submitted.is_empty()
        });
        if !over {
            return self.clock.after(10_000, 20_000, What::Ending);
        }
        self.ending = true;
        for site in 0..self.sites.len() {
            self.say_to_agent(site, ToAgent::Shutdown);
        }
    }

    // ---- master ----

    fn start_master(&mut self) -> Checked {
        self.masters += 1;
        let master = Master::start(self.masters, &self.disk).map_err(|e| format!("the store does not open: {e}"))?;
        let kept = master.kept();
        if kept > self.journal.len() {
            return Err("the store holds more than was ever appended".into());
        }
        self.journal.truncate(kept);
        self.over.retain(|_, at| *at < kept);
        for (cluster, jobs) in &self.acknowledged {
            let found = master.pool.counts(&Select {
                clusters: [*cluster].into(),
                jobs: BTreeSet::new(),
            });
            let found = found.unfinished() + found.completed + found.removed;
            if found != *jobs {
                return Err(format!(
                    "cluster {cluster} was acknowledged with {jobs} jobs and has {found} after a crash"
                ));
            }
        }
        let life = master.life;
        self.master = Some(master);
        for site in 0..self.sites.len() {
            self.clock.after(10, 2000, What::Dial(life, site));
        }
        self.turn();
        Ok(())
    }

    fn kill_master(&mut self) {
        if self.master.take().is_none() {
            return;
        }
        let loss = self
            .clock
            .pick(&[Loss::None, Loss::All, Loss::Tail, Loss::Scattered(512)])
            .unwrap_or(Loss::All);
        self.disk.crash(loss, self.clock.choices());
        for site in 0..self.sites.len() {
            self.cut_stream(site);
        }
        self.clock.after(100, 900_000, What::MasterStarts);
    }

    /// What the production driver does after each burst of events.
    fn turn(&mut self) {
        let Some(master) = &mut self.master else { return };
        let life = master.life;
        let (records, uncommitted) = master.append();
        for record in records {
            match &record {
                Record::Ended { ends, .. } => {
                    for end in ends {
                        let twice = self.over.insert(end.id.job, self.journal.len()).is_some();
                        let expected = match end.end {
                            End::Exited(code) => Outcome::Exited(code),
                            End::Signaled(signal) => Outcome::Signaled(signal),
                        };
                        if twice || self.truth.get(&end.id) != Some(&expected) {
                            self.wrong = Some(format!("{} counts twice or never ended so", end.id));
                        }
                    }
                }
                Record::Dispatched { ids, .. } => {
                    if let Some(id) = ids.iter().find(|id| self.over.contains_key(&id.job)) {
                        self.wrong = Some(format!("{id} was dispatched after its job's success"));
                    }
                }
                _ => {}
            }
            self.journal.push(record);
        }
        if uncommitted && !master.committing {
            master.committing = true;
            self.clock.after(1, 30, What::Commit(life));
        }
        let mut actions = Vec::new();
        while let Some(action) = master.pool.poll_action(master.durable()) {
            actions.push(action);
        }
        let durable = master.durable();
        for (record, cluster, jobs) in std::mem::take(&mut master.submitted) {
            if record <= durable {
                self.acknowledged.insert(cluster, jobs);
            } else {
                master.submitted.push((record, cluster, jobs));
            }
        }
        for (record, jobs) in std::mem::take(&mut master.removals) {
            if record <= durable {
                self.removed.extend(jobs);
            } else {
                master.removals.push((record, jobs));
            }
        }
        if let Some(deadline) = master.pool.deadline()
            && master.tick.is_none_or(|tick| deadline < tick)
        {
            let deadline = deadline.max(self.clock.now);
            master.tick = Some(deadline);
            self.clock.at(deadline, What::MasterTick(life));
        }
        let target = u32::from(master.pool.demand_cpus() > 0 && !self.ending) * 3;
        let changed = std::mem::replace(&mut master.target, target) != target;
        actions.into_iter().for_each(|action| self.carry_out(action));
        for site in 0..self.sites.len() {
            if changed {
                self.say_to_agent(site, ToAgent::Target(target));
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Assign {
                key, define, attempts, ..
            } => {
                for (number, program) in define {
                    self.say_to_starter(key, ToStarter::Define(number, program));
                }
                let attempts = attempts.into_iter().map(|(id, program, _)| (id, program)).collect();
                self.say_to_starter(key, ToStarter::Assign(attempts));
            }
            Action::Recall { key, count } => self.say_to_starter(key, ToStarter::Recall(count)),
            Action::Kill { key, ids, grace } => self.say_to_starter(key, ToStarter::Kill(ids, grace)),
            Action::Acknowledge { key, ids } => self.say_to_starter(key, ToStarter::Acknowledge(ids)),
            Action::Collect { key, result, .. } => {
                let Some(master) = &mut self.master else { return };
                master.collections += 1;
                let number = master.collections;
                let site = master.pool.proxy_of(key).map(|(site, _)| usize::from(site.0));
                let link = site.and_then(|site| self.sites[site].stream).map(|(link, ..)| link);
                master.collecting.insert(number, (key, result, link));
                let life = master.life;
                self.clock.after(20, 2000, What::Collected(life, number));
            }
            Action::Note { .. } => {}
        }
    }

    fn collected(&mut self, life: u64, number: u64) {
        let now = self.clock.now;
        let Some(master) = self.master.as_mut().filter(|m| m.life == life) else {
            return;
        };
        let Some((key, result, link)) = master.collecting.remove(&number) else {
            return;
        };
        if link.is_some_and(|link| self.whole.contains(&link)) {
            master.pool.handle(now, Event::OutputsStored { key, result });
        } else if self.clock.one_in(2) {
            let why = "the way to the starter was lost".into();
            master.pool.handle(
                now,
                Event::OutputsFailed {
                    key,
                    id: result.id,
                    why,
                    ours: false,
                },
            );
        }
        self.turn();
    }

    fn commit(&mut self, life: u64) -> Checked {
        let snapshot = self.clock.one_in(200);
        let Some(master) = self.master.as_mut().filter(|m| m.life == life) else {
            return Ok(());
        };
        master.committing = false;
        master.commit().map_err(|e| format!("commit: {e}"))?;
        self.turn();
        if snapshot && let Some(master) = &mut self.master {
            master.snapshot().map_err(|e| format!("snapshot: {e}"))?;
            self.turn();
        }
        Ok(())
    }

    fn master_tick(&mut self, life: u64) {
        let now = self.clock.now;
        if let Some(master) = self.master.as_mut().filter(|m| m.life == life && m.tick == Some(now)) {
            master.tick = None;
            master.pool.handle(now, Event::TimePassed);
            self.turn();
        }
    }

    fn say_to_agent(&mut self, site: usize, message: ToAgent) {
        if let Some((link, lane, _)) = &mut self.sites[site].stream {
            let at = lane.arrival(&mut self.clock, 5, 150);
            self.clock.at(at, What::ToAgent(site, *link, message));
        }
    }

    fn say_to_starter(&mut self, key: StarterKey, message: ToStarter) {
        let site = self
            .master
            .as_ref()
            .and_then(|m| m.pool.proxy_of(key))
            .map(|(site, _)| usize::from(site.0));
        if let Some(site) = site {
            self.say_to_agent(site, ToAgent::Relay(key, message));
        }
    }

    fn dial(&mut self, life: u64, site: usize) {
        let Some(target) = self.master.as_ref().filter(|m| m.life == life).map(|m| m.target) else {
            return;
        };
        if self.sites[site].stream.is_some() || self.done.contains(&site) {
            return;
        }
        if !self.sites[site].reachable {
            return self.clock.after(1000, 30_000, What::Dial(life, site));
        }
        if self.sites[site].agent.is_none() {
            self.start_agent(site);
        }
        let link = self.link();
        self.sites[site].stream = Some((link, Lane::default(), Lane::default()));
        self.say_to_agent(site, ToAgent::Configure);
        self.say_to_agent(
            site,
            if self.ending {
                ToAgent::Shutdown
            } else {
                ToAgent::Target(target)
            },
        );
    }

    fn at_master(&mut self, site: usize, link: u64, message: ToMaster) {
        let now = self.clock.now;
        if !self.whole.contains(&link) || self.sites[site].stream.is_none_or(|(current, ..)| current != link) {
            return;
        }
        let Some(master) = &mut self.master else { return };
        let pool = &mut master.pool;
        match message {
            ToMaster::Up(key, offer, left) => {
                pool.handle(
                    now,
                    Event::StarterJoined {
                        key,
                        offer,
                        time_left: Some(left),
                    },
                );
            }
            ToMaster::Down(key, true, why) => pool.handle(now, Event::StarterGone { key, why }),
            ToMaster::Down(key, false, _) => pool.handle(now, Event::StarterSilent { key }),
            ToMaster::Relay(key, FromStarter::Inventory(queued, running, finished)) => {
                pool.handle(
                    now,
                    Event::InventoryTold {
                        key,
                        queued,
                        running,
                        finished,
                    },
                );
            }
            ToMaster::Relay(key, FromStarter::Report(started, results, returned)) => {
                if !started.is_empty() {
                    pool.handle(now, Event::AttemptsStarted { key, ids: started });
                }
                results
                    .into_iter()
                    .for_each(|result| pool.handle(now, Event::AttemptEnded { key, result }));
                if !returned.is_empty() {
                    pool.handle(now, Event::AttemptsReturned { key, ids: returned });
                }
            }
            ToMaster::Relay(_, FromStarter::Leaving(_)) => {}
            ToMaster::Done => {
                self.done.insert(site);
            }
        }
        self.turn();
    }

    fn cut_stream(&mut self, site: usize) {
        let Some((link, ..)) = self.sites[site].stream else {
            return;
        };
        self.whole.remove(&link);
        if self.master.is_none() {
            self.sites[site].stream = None;
        } else {
            self.clock.after(0, 20_000, What::StreamLostAtMaster(site, link));
        }
        if let Some(agent) = &self.sites[site].agent {
            let life = agent.life;
            self.clock.after(0, 20_000, What::StreamLostAtAgent(site, life, link));
        }
    }

    fn stream_lost_at_master(&mut self, site: usize, link: u64) {
        let now = self.clock.now;
        if self.sites[site].stream.is_none_or(|(current, ..)| current != link) {
            return;
        }
        self.sites[site].stream = None;
        let Some(master) = &mut self.master else { return };
        master.pool.handle(
            now,
            Event::SiteLost {
                site: SiteId(site as u16),
            },
        );
        let life = master.life;
        self.clock.after(500, 10_000, What::Dial(life, site));
        self.turn();
    }

    // ---- event agent ----

    fn agent(&mut self, site: usize, life: u64) -> Option<&mut Agent> {
        self.sites[site].agent.as_mut().filter(|agent| agent.life == life)
    }

    fn start_agent(&mut self, site: usize) {
        let random = self.clock.between(0, u64::MAX);
        let here = &mut self.sites[site];
        here.lives += 1;
        let mut machine = Proxies::new(&format!("vo-{site}-"), random);
        here.table.iter().for_each(|record| machine.apply(record));
        here.agent = Some(Agent {
            life: here.lives,
            machine,
            unsynced: Vec::new(),
            durable: 0,
            syncing: false,
            waiting: VecDeque::new(),
            tick: None,
            lines: BTreeMap::new(),
            master: None,
        });
        self.tell_proxies(site, proxy::Event::Recovered);
    }

    fn kill_agent(&mut self, site: usize) {
        let Some(agent) = self.sites[site].agent.take() else {
            return;
        };
        self.cut_stream(site);
        for (key, line) in agent.lines {
            self.whole.remove(&line.link);
            self.clock
                .after(0, 20_000, What::LineLostAtStarter(site, key, line.link));
        }
    }

    fn tell_proxies(&mut self, site: usize, event: proxy::Event) {
        let now = self.clock.now;
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        agent.machine.handle(now, event);
        agent
            .unsynced
            .extend(std::iter::from_fn(|| agent.machine.poll_record()));
        agent.waiting.extend(std::iter::from_fn(|| agent.machine.poll_action()));
        let life = agent.life;
        if !agent.unsynced.is_empty() && !agent.syncing {
            agent.syncing = true;
            self.clock.after(1, 30, What::Sync(site, life));
        }
        if let Some(deadline) = agent.machine.deadline()
            && agent.tick.is_none_or(|tick| deadline < tick)
        {
            let deadline = deadline.max(self.clock.now);
            agent.tick = Some(deadline);
            self.clock.at(deadline, What::AgentTick(site, life));
        }
        self.do_proxies(site);
    }

    fn sync(&mut self, site: usize, life: u64) {
        if let Some(agent) = self.agent(site, life) {
            agent.syncing = false;
            agent.durable += agent.unsynced.len() as u64;
            let records = std::mem::take(&mut agent.unsynced);
            self.sites[site].table.extend(records);
            self.do_proxies(site);
        }
    }

    fn do_proxies(&mut self, site: usize) {
        while let Some(agent) = &mut self.sites[site].agent
            && agent
                .waiting
                .front()
                .is_some_and(|(record, _)| *record <= agent.durable)
            && let Some((_, action)) = agent.waiting.pop_front()
        {
            let life = agent.life;
            self.do_proxy(site, life, action);
        }
    }

    fn do_proxy(&mut self, site: usize, life: u64, action: proxy::Action) {
        use proxy::{Action as Do, Event as Heard};
        let nodes = self.sites[site].shape.0;
        let hangs = self.sites[site].batch.hangs;
        let fails = !self.calm && self.clock.one_in(20);
        self.say(format_args!("site {site}: {action:?}"));
        match action {
            Do::MakeTags(proxy) => self.sites[site].tags.extend((0..nodes).map(|node| (proxy, node))),
            Do::SubmitProxy { proxy, attempt, token } => {
                self.sites[site].tags.extend((0..nodes).map(|node| (proxy, node)));
                self.run_submit(site, life, proxy, attempt, token);
            }
            Do::QueryStatus if hangs || fails => {
                self.clock.after(
                    1000,
                    30_000,
                    What::Answer(site, life, Heard::StatusFailed("timed out".into())),
                );
            }
            Do::QueryStatus => {
                let rows = self.rows(site, false);
                self.clock
                    .after(50, 3000, What::Answer(site, life, Heard::StatusListed(rows)));
            }
            Do::QueryAccounting if site == 0 => {
                self.clock
                    .after(1, 10, What::Answer(site, life, Heard::AccountingFailed { never: true }));
            }
            Do::QueryAccounting if hangs || fails => {
                self.clock.after(
                    1000,
                    30_000,
                    What::Answer(site, life, Heard::AccountingFailed { never: false }),
                );
            }
            Do::QueryAccounting => {
                let rows = self.rows(site, true);
                self.clock
                    .after(50, 3000, What::Answer(site, life, Heard::AccountingListed(rows)));
            }
            Do::ReadTags => {
                let (tags, exits) = (self.sites[site].tags.clone(), self.sites[site].exits.clone());
                self.clock
                    .after(1, 200, What::Answer(site, life, Heard::TagsListed { tags, exits }));
            }
            Do::CancelProxies(ids) => {
                let refusal = (hangs || fails).then(|| "timed out".to_owned());
                if refusal.is_none() {
                    ids.iter().for_each(|id| self.cancel(site, id));
                }
                self.clock
                    .after(50, 3000, What::Answer(site, life, Heard::CancelAnswered(refusal)));
            }
            Do::Welcome(key) => {
                let Some(agent) = &mut self.sites[site].agent else {
                    return;
                };
                let master = agent.master.is_some();
                if let Some(line) = agent.lines.get_mut(&key) {
                    line.welcomed = true;
                    self.say_on_line(site, key, AtStarter::Welcome(master));
                    self.say_up(site, key);
                }
            }
            Do::EndStarter(key, why) => self.say_on_line(site, key, AtStarter::End(why)),
            Do::StarterDown { key, gone, why } => self.say_to_master(site, ToMaster::Down(key, gone, why)),
            Do::CleanProxy(proxy) => {
                self.sites[site].tags.retain(|(of, _)| *of != proxy);
                self.sites[site].exits.remove(&proxy);
            }
            Do::ReportProxies(_) | Do::ReportNote(_) | Do::RemoveFiles(_) => {}
            Do::ShutdownComplete => self.shut_down(site),
        }
    }

    fn say_to_master(&mut self, site: usize, message: ToMaster) {
        let master = self.sites[site].agent.as_ref().and_then(|agent| agent.master);
        if let Some((link, _, lane)) = &mut self.sites[site].stream
            && master == Some(*link)
        {
            let at = lane.arrival(&mut self.clock, 5, 150);
            self.clock.at(at, What::ToMaster(site, *link, message));
        }
    }

    fn say_up(&mut self, site: usize, key: StarterKey) {
        let now = self.clock.now;
        if let Some(node) = self.sites[site].starters.get(&key) {
            let offer = Offer {
                site: SiteId(site as u16),
                proxy: node.proxy,
                host: format!("node{}", node.index),
                cpus: node.cpus,
                memory_mb: 0,
                gpus: 0,
                shared: Shared::Everything,
                drain: DRAIN,
                arch: "x86_64".into(),
                system: "Linux".into(),
            };
            let left = node.ends.since(now);
            self.say_to_master(site, ToMaster::Up(key, offer, left));
        }
    }

    fn say_on_line(&mut self, site: usize, key: StarterKey, message: AtStarter) {
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        if let Some(line) = agent.lines.get_mut(&key) {
            let at = line.to_starter.arrival(&mut self.clock, 0, 20);
            self.clock.at(at, What::AtStarter(site, key, line.link, message));
        }
    }

    fn at_agent(&mut self, site: usize, link: u64, message: ToAgent) {
        if !self.whole.contains(&link) || self.sites[site].agent.is_none() {
            return;
        }
        match message {
            ToAgent::Configure => {
                let nodes = self.sites[site].shape.0;
                if let Some(agent) = &mut self.sites[site].agent {
                    agent.master = Some(link);
                }
                let config = proxy::Config {
                    nodes,
                    queued_permille: 150,
                    queued_base: 2,
                    status: STATUS,
                    lease: LEASE,
                };
                self.tell_proxies(site, proxy::Event::Configured(config));
                self.greet(site);
            }
            ToAgent::Target(target) => self.tell_proxies(site, proxy::Event::TargetSet(target)),
            ToAgent::Relay(key, message) => {
                let agent = self.sites[site].agent.as_ref();
                if agent
                    .and_then(|agent| agent.lines.get(&key))
                    .is_some_and(|line| line.welcomed)
                {
                    self.say_on_line(site, key, AtStarter::Relay(message));
                }
            }
            ToAgent::Shutdown => {
                let keys = self.lines(site);
                for key in keys {
                    self.say_on_line(site, key, AtStarter::End("the session ends".into()));
                }
                self.tell_proxies(site, proxy::Event::ShutdownAsked);
            }
        }
    }

    fn lines(&self, site: usize) -> Vec<StarterKey> {
        let agent = self.sites[site].agent.as_ref();
        agent.map_or_else(Vec::new, |agent| {
            agent
                .lines
                .iter()
                .filter(|(_, l)| l.welcomed)
                .map(|(k, _)| *k)
                .collect()
        })
    }

    /// Tells a master that has just come what there is.
    fn greet(&mut self, site: usize) {
        let up = self.lines(site);
        up.iter().for_each(|key| self.say_up(site, *key));
        let Some(agent) = &self.sites[site].agent else { return };
        let down = agent.machine.starters().filter_map(|(_, key, link)| match link {
            Link::Up => None,
            Link::Silent(_, why) => Some(ToMaster::Down(key, false, why.clone())),
            Link::Gone(why) => Some(ToMaster::Down(key, true, why.clone())),
        });
        let down: Vec<ToMaster> = down.collect();
        down.into_iter().for_each(|message| self.say_to_master(site, message));
        up.into_iter()
            .for_each(|key| self.say_on_line(site, key, AtStarter::Master(true)));
        self.tell_proxies(site, proxy::Event::MasterLink(true));
    }

    fn stream_lost_at_agent(&mut self, site: usize, life: u64, link: u64) {
        let Some(agent) = self.agent(site, life).filter(|agent| agent.master == Some(link)) else {
            return;
        };
        agent.master = None;
        self.lines(site)
            .into_iter()
            .for_each(|key| self.say_on_line(site, key, AtStarter::Master(false)));
        self.tell_proxies(site, proxy::Event::MasterLink(false));
    }

    fn shut_down(&mut self, site: usize) {
        let left: Vec<_> = self.sites[site]
            .batch
            .jobs
            .iter()
            .filter(|(_, job)| job.state != BatchState::Ended)
            .collect();
        let left = format!("{:?}", left.iter().map(|(id, job)| (id, &job.name)).collect::<Vec<_>>());
        let late = self.sites[site].batch.late;
        self.require(left == "[]" && late == 0, || {
            format!("batch jobs left behind at site {site}: {left}")
        });
        self.say_to_master(site, ToMaster::Done);
    }

    // ---- the line between agent and starter ----

    fn call(&mut self, site: usize, key: StarterKey) {
        let Some(node) = self.sites[site]
            .starters
            .get(&key)
            .filter(|node| node.alive && node.link.is_none())
        else {
            return;
        };
        let (proxy, index, batch_id, restarts) = (node.proxy, node.index, node.batch_id.clone(), node.restarts);
        let before = match &self.sites[site].agent {
            Some(agent) => agent.lines.get(&key).map(|line| line.link),
            None => return self.clock.after(1000, 10_000, What::Call(site, key)),
        };
        if let Some(before) = before {
            self.line_lost_at_agent(site, key, before, None);
        }
        let link = self.link();
        self.heard.insert(link, self.clock.now);
        if let Some(node) = self.sites[site].starters.get_mut(&key) {
            node.link = Some(link);
        }
        if let Some(agent) = &mut self.sites[site].agent {
            let (to_starter, to_agent) = (Lane::default(), Lane::default());
            agent.lines.insert(
                key,
                Line {
                    link,
                    welcomed: false,
                    to_starter,
                    to_agent,
                },
            );
        }
        self.clock.after(10_000, 20_000, What::Beat(site, key, link));
        self.tell_proxies(
            site,
            proxy::Event::StarterConnected {
                proxy,
                node: index,
                key,
                batch_id,
                restarts,
            },
        );
    }

    fn beat(&mut self, site: usize, key: StarterKey, link: u64) {
        if self.whole.contains(&link) {
            self.heard.insert(link, self.clock.now);
            self.clock.after(10_000, 20_000, What::Beat(site, key, link));
            self.tell_starter(site, key, StarterEvent::AgentHeard);
        }
    }

    fn cut_line(&mut self, site: usize, key: StarterKey) {
        let Some(link) = self.sites[site].starters.get(&key).and_then(|node| node.link) else {
            return;
        };
        self.whole.remove(&link);
        self.clock.after(0, 60_000, What::LineLostAtAgent(site, key, link));
        self.clock.after(0, 60_000, What::LineLostAtStarter(site, key, link));
    }

    fn line_lost_at_agent(&mut self, site: usize, key: StarterKey, link: u64, left: Option<String>) {
        let proxy = self.sites[site]
            .starters
            .get(&key)
            .map_or(ProxyId(0), |node| node.proxy);
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        if agent.lines.get(&key).is_none_or(|line| line.link != link) {
            return;
        }
        agent.lines.remove(&key);
        let heard = self.heard.get(&link).copied().unwrap_or(self.clock.now);
        self.whole.remove(&link);
        let why = "connection lost".to_owned();
        self.tell_proxies(
            site,
            proxy::Event::StarterLost {
                proxy,
                key,
                left,
                heard,
                why,
            },
        );
    }

    fn line_lost_at_starter(&mut self, site: usize, key: StarterKey, link: u64) {
        let Some(node) = self.sites[site]
            .starters
            .get_mut(&key)
            .filter(|node| node.link == Some(link))
        else {
            return;
        };
        node.link = None;
        // Some stay away for longer than their lease.
        let long = !self.calm && self.clock.one_in(5);
        self.clock
            .after(500, if long { 1_200_000 } else { 10_000 }, What::Call(site, key));
        self.tell_starter(site, key, StarterEvent::AgentLost);
    }

    fn from_starter(&mut self, site: usize, key: StarterKey, link: u64, message: FromStarter) {
        let Some(agent) = &self.sites[site].agent else { return };
        if !self.whole.contains(&link) || agent.lines.get(&key).is_none_or(|line| line.link != link) {
            return;
        }
        self.heard.insert(link, self.clock.now);
        match message {
            FromStarter::Leaving(why) => self.line_lost_at_agent(site, key, link, Some(why)),
            message => self.say_to_master(site, ToMaster::Relay(key, message)),
        }
    }

    fn to_starter(&mut self, site: usize, key: StarterKey, link: u64, message: AtStarter) {
        let here = self.sites[site]
            .starters
            .get(&key)
            .is_some_and(|node| node.link == Some(link));
        if !here || !self.whole.contains(&link) {
            return;
        }
        let event = match message {
            AtStarter::Welcome(master) => StarterEvent::AgentConnected { master },
            AtStarter::Master(up) => StarterEvent::MasterLinkChanged { up },
            AtStarter::End(why) => StarterEvent::EndAsked { why },
            AtStarter::Relay(ToStarter::Define(program, body)) => {
                let demand = Demand {
                    cpus: body.cpus,
                    memory_mb: body.memory_mb,
                };
                StarterEvent::ProgramDefined { program, demand, body }
            }
            AtStarter::Relay(ToStarter::Assign(attempts)) => StarterEvent::Assigned(
                attempts
                    .into_iter()
                    .map(|(id, program)| Task { id, program, body: () })
                    .collect(),
            ),
            AtStarter::Relay(ToStarter::Acknowledge(ids)) => StarterEvent::Acknowledged(ids),
            AtStarter::Relay(ToStarter::Recall(count)) => StarterEvent::Recalled { count: count as usize },
            AtStarter::Relay(ToStarter::Kill(ids, grace)) => StarterEvent::KillAsked { ids, grace },
        };
        self.tell_starter(site, key, event);
    }

    // ---- starters and their jobs ----

    fn tell_starter(&mut self, site: usize, key: StarterKey, event: StarterEvent) {
        let now = self.clock.now;
        let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive) else {
            return;
        };
        node.machine.handle(now, event);
        while let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive)
            && let Some(action) = node.machine.poll_action()
        {
            self.do_starter(site, key, action);
        }
        if let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive)
            && let Some(deadline) = node.machine.deadline()
            && node.tick.is_none_or(|tick| deadline < tick)
        {
            let deadline = deadline.max(self.clock.now);
            node.tick = Some(deadline);
            self.clock.at(deadline, What::StarterTick(site, key));
        }
    }

    fn do_starter(&mut self, site: usize, key: StarterKey, action: StarterAction) {
        self.say(format_args!("starter {key}: {action:?}"));
        match action {
            StarterAction::Start { task, program } => self.start_process(site, key, task.id, &program),
            StarterAction::Terminate(id) => {
                if self.clock.one_in(2) {
                    self.signal(site, key, id, 15);
                }
            }
            StarterAction::Kill(id) => self.signal(site, key, id, 9),
            StarterAction::SendInventory {
                queued,
                running,
                finished,
            } => {
                self.say_to_line(site, key, FromStarter::Inventory(queued, running, finished));
            }
            StarterAction::SendReport {
                started,
                results,
                returned,
            } => {
                self.say_to_line(site, key, FromStarter::Report(started, results, returned));
            }
            StarterAction::Forget(_) => {}
            StarterAction::Leave { why } => {
                self.say_to_line(site, key, FromStarter::Leaving(why));
                self.kill_starter(site, key, true);
            }
        }
    }

    fn say_to_line(&mut self, site: usize, key: StarterKey, message: FromStarter) {
        let link = self.sites[site].starters.get(&key).and_then(|node| node.link);
        let Some(agent) = &mut self.sites[site].agent else {
            return;
        };
        if let Some(line) = agent.lines.get_mut(&key).filter(|line| Some(line.link) == link) {
            let at = line.to_agent.arrival(&mut self.clock, 0, 20);
            self.clock.at(at, What::AtAgent(site, key, line.link, message));
        }
    }

    fn start_process(&mut self, site: usize, key: StarterKey, id: AttemptId, program: &Program) {
        self.summary.starts += 1;
        for (index, other) in self.sites.iter().enumerate() {
            for (other_key, node) in &other.starters {
                if let Some(second) = node.running.keys().find(|running| running.job == id.job) {
                    self.wrong = Some(format!(
                        "{id} starts at {key} of site {site} while {second} runs at {other_key} of site {index}"
                    ));
                }
            }
        }
        self.runs += 1;
        let run = self.runs;
        let Some(node) = self.sites[site].starters.get_mut(&key) else {
            return;
        };
        node.running.insert(id, (run, program.cpus));
        let (used, cpus) = (node.cpus_used(), node.cpus);
        self.require(used <= cpus, || {
            format!("{key} runs jobs for {used} CPUs and has {cpus}")
        });
        let outcome = match self.clock.between(0, 100) {
            0 => Outcome::SiteFailed("no space left on device".into()),
            1 => Outcome::Signaled(11),
            2..6 => Outcome::Exited(1),
            _ => Outcome::Exited(0),
        };
        self.clock.after(1, 5, What::Started(site, key, id));
        let most = if self.clock.one_in(10) { 600_000 } else { 60_000 };
        self.clock.after(5, most, What::Ended(site, key, id, run, outcome));
    }

    fn signal(&mut self, site: usize, key: StarterKey, id: AttemptId, signal: u8) {
        let run = self.sites[site]
            .starters
            .get(&key)
            .and_then(|node| node.running.get(&id))
            .map(|(run, _)| *run);
        if let Some(run) = run {
            self.clock
                .after(0, 50, What::Ended(site, key, id, run, Outcome::Signaled(signal)));
        }
    }

    fn process_ended(&mut self, site: usize, key: StarterKey, id: AttemptId, run: u64, outcome: Outcome) {
        let Some(node) = self.sites[site].starters.get_mut(&key) else {
            return;
        };
        if node.running.get(&id).is_none_or(|(current, _)| *current != run) {
            return;
        }
        node.running.remove(&id);
        if outcome.is_final() {
            self.truth.insert(id, outcome.clone());
        }
        let mut outputs = Vec::new();
        if outcome.is_final() && self.clock.one_in(2) {
            outputs.push(Output {
                kind: OutputKind::Stdout,
                size: 1,
                hash: [0; 32],
                mode: 0o600,
                inline: None,
            });
        }
        let usage = Usage {
            wall_ms: self.clock.between(5, 60_000),
            cpu_ms: 1,
            peak_kib: 1,
        };
        self.tell_starter(
            site,
            key,
            StarterEvent::JobEnded(AttemptResult {
                id,
                outcome,
                usage,
                outputs,
            }),
        );
    }

    /// The starter's process ends. Its guardian, if the node still runs, kills what it left and then removes its tag.
    fn kill_starter(&mut self, site: usize, key: StarterKey, guardian: bool) {
        let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.alive) else {
            return;
        };
        node.alive = false;
        let link = node.link.take();
        if guardian {
            self.clock.after(10, 2000, What::TreeDead(site, key));
        } else {
            node.running.clear();
        }
        if let Some(link) = link {
            // Its last words may still be on the way.
            let (low, high) = if guardian { (20, 1000) } else { (10_000, 60_000) };
            self.clock.after(low, high, What::LineLostAtAgent(site, key, link));
        }
    }

    fn tree_dead(&mut self, site: usize, key: StarterKey) {
        let here = &mut self.sites[site];
        let Some(node) = here.starters.get_mut(&key) else {
            return;
        };
        node.running.clear();
        let (proxy, index, id, restarts) = (node.proxy, node.index, node.batch_id.clone(), node.restarts);
        let Some(job) = here
            .batch
            .jobs
            .get_mut(&id)
            .filter(|job| job.restarts == restarts && job.state == BatchState::Running)
        else {
            return;
        };
        here.tags.remove(&(proxy, index));
        let others = here
            .starters
            .values()
            .any(|n| n.alive && n.batch_id == id && n.restarts == restarts);
        if !others {
            here.exits.insert(proxy, "0".into());
            job.state = BatchState::Ended;
            job.ended = Some(self.clock.now);
        }
    }

    // ---- batch system ----

    fn run_submit(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32, token: String) {
        let answer = |answer| What::Answer(site, life, proxy::Event::SubmitAnswered { proxy, attempt, answer });
        let timed_out = || SubmitAnswer::Unclear("timed out".into());
        if self.sites[site].batch.hangs {
            self.clock.after(10_000, 10_001, answer(timed_out()));
            // It may find the request when it goes on.
            if self.clock.one_in(2) {
                self.sites[site].batch.late += 1;
                self.clock.after(10_000, 20_000, What::Accept(site, proxy, token));
            }
            return;
        }
        let accepts = |world: &mut Self, low, high| {
            world.sites[site].batch.late += 1;
            world.clock.after(low, high, What::Accept(site, proxy, token.clone()));
        };
        match self.clock.between(0, if self.calm { 1 } else { 10 }) {
            0..7 => {
                accepts(self, 50, 500);
                let id = format!(
                    "{}",
                    100 + self.sites[site].batch.names.len() as u64 + self.sites[site].batch.late
                );
                self.sites[site].batch.promised.insert(token.clone(), id.clone());
                self.clock.after(600, 2000, answer(SubmitAnswer::Accepted(id)));
            }
            7 => {
                accepts(self, 1000, 20_000);
                self.clock.after(10_000, 10_001, answer(timed_out()));
            }
            8 => self.clock.after(10_000, 10_001, answer(timed_out())),
            _ => self
                .clock
                .after(100, 200, answer(SubmitAnswer::Limited("too many jobs".into()))),
        }
    }

    fn accept(&mut self, site: usize, proxy: ProxyId, name: String) {
        if self.sites[site].batch.hangs {
            return self.clock.after(1000, 2000, What::Accept(site, proxy, name));
        }
        let batch = &mut self.sites[site].batch;
        batch.late -= 1;
        let fresh = batch.names.insert(name.clone());
        batch.next += 1;
        let id = batch
            .promised
            .remove(&name)
            .unwrap_or_else(|| format!("x{}", batch.next));
        let job = BatchJob {
            name: name.clone(),
            proxy,
            state: BatchState::Pending,
            restarts: 0,
            ended: None,
            cancelled: false,
        };
        batch.jobs.insert(id.clone(), job);
        self.require(fresh, || format!("{name} was submitted twice"));
        let long = self.clock.one_in(5);
        self.clock
            .after(500, if long { 1_200_000 } else { 60_000 }, What::Launch(site, id));
    }

    fn rows(&mut self, site: usize, accounting: bool) -> Vec<Row> {
        let now = self.clock.now;
        let keep = if site.is_multiple_of(2) {
            Duration::from_secs(300)
        } else {
            Duration::ZERO
        };
        let jobs = self.sites[site].batch.jobs.iter();
        let listed = jobs.filter(|(_, job)| accounting || job.ended.is_none_or(|at| now.since(at) < keep));
        let row = |(id, job): (&String, &BatchJob)| Row {
            token: job.name.clone(),
            batch_id: id.clone(),
            status: match job.state {
                BatchState::Pending => RowStatus::Pending("Priority".into()),
                BatchState::Running if job.cancelled => RowStatus::Ending,
                BatchState::Running => RowStatus::Running,
                BatchState::Ended => RowStatus::Ended("COMPLETED".into()),
            },
            restarts: job.restarts,
        };
        listed.map(row).collect()
    }

    fn launch(&mut self, site: usize, id: &str) {
        let (nodes, cpus) = self.sites[site].shape;
        let now = self.clock.now;
        let Some(job) = self.sites[site]
            .batch
            .jobs
            .get_mut(id)
            .filter(|job| job.state == BatchState::Pending)
        else {
            return;
        };
        job.state = BatchState::Running;
        let (proxy, restarts) = (job.proxy, job.restarts);
        let ends = now + WALLTIME;
        self.clock.at(ends, What::Terminate(site, id.to_owned(), restarts));
        for index in 0..nodes {
            self.next_key += 1;
            let key = StarterKey(self.next_key);
            let limits = Limits {
                idle: IDLE,
                lease: LEASE,
                drain: DRAIN,
            };
            let offer = NodeOffer {
                cpus,
                memory_mb: 0,
                ends: Some(ends),
            };
            let node = Node {
                machine: Starter::new(now, limits, offer),
                proxy,
                batch_id: id.to_owned(),
                restarts,
                index,
                cpus,
                ends,
                alive: true,
                tick: None,
                link: None,
                running: BTreeMap::new(),
            };
            self.sites[site].starters.insert(key, node);
            self.clock.after(10, 5000, What::Call(site, key));
            self.tell_starter(site, key, StarterEvent::TimePassed);
        }
    }

    fn of_batch_job(&self, site: usize, id: &str, restarts: u32) -> Vec<StarterKey> {
        let of = self.sites[site]
            .starters
            .iter()
            .filter(|(_, n)| n.batch_id == id && n.restarts == restarts);
        of.map(|(key, _)| *key).collect()
    }

    fn batch_job_of(&self, site: usize, key: StarterKey) -> (String, u32) {
        self.sites[site]
            .starters
            .get(&key)
            .map_or((String::new(), 0), |node| (node.batch_id.clone(), node.restarts))
    }

    fn cancel(&mut self, site: usize, id: &str) {
        let now = self.clock.now;
        let Some(job) = self.sites[site].batch.jobs.get_mut(id) else {
            return;
        };
        job.cancelled = true;
        let restarts = job.restarts;
        match job.state {
            BatchState::Pending => {
                job.state = BatchState::Ended;
                job.ended = Some(now);
            }
            BatchState::Running => {
                for key in self.of_batch_job(site, id, restarts) {
                    self.tell_starter(
                        site,
                        key,
                        StarterEvent::EndAsked {
                            why: "the batch system ends it".into(),
                        },
                    );
                }
                self.clock
                    .after(5000, 30_000, What::Terminate(site, id.to_owned(), restarts));
            }
            BatchState::Ended => {}
        }
    }

    /// SIGKILL to everything of a batch job, guardians too.
    fn batch_kill(&mut self, site: usize, id: &str, restarts: u32) {
        for key in self.of_batch_job(site, id, restarts) {
            self.kill_starter(site, key, false);
            if let Some(node) = self.sites[site].starters.get_mut(&key) {
                node.running.clear();
            }
        }
        let now = self.clock.now;
        if let Some(job) = self.sites[site].batch.jobs.get_mut(id)
            && job.restarts == restarts
            && job.state == BatchState::Running
        {
            job.state = BatchState::Ended;
            job.ended = Some(now);
        }
    }

    /// The batch system finds a node of the job down: the job ends, or is queued again.
    fn nodes_lost(&mut self, site: usize, id: &str, restarts: u32) {
        if self.clock.one_in(2) {
            self.batch_kill(site, id, restarts);
        } else if self.sites[site]
            .batch
            .jobs
            .get(id)
            .is_some_and(|job| job.restarts == restarts)
        {
            self.requeue(site, id);
        }
    }

    fn requeue(&mut self, site: usize, id: &str) {
        let Some(job) = self.sites[site]
            .batch
            .jobs
            .get(id)
            .filter(|job| job.state == BatchState::Running && !job.cancelled)
        else {
            return;
        };
        let restarts = job.restarts;
        self.batch_kill(site, id, restarts);
        if let Some(job) = self.sites[site].batch.jobs.get_mut(id) {
            job.state = BatchState::Pending;
            job.ended = None;
            job.restarts += 1;
        }
        self.clock.after(5000, 120_000, What::Launch(site, id.to_owned()));
    }

    // ---- the end ----

    fn check_end(&mut self) -> Checked {
        let master = self.master.as_ref().ok_or("no master at the end")?;
        for (cluster, jobs) in &self.acknowledged {
            for proc in 0..*jobs {
                let job = JobId {
                    cluster: *cluster,
                    proc,
                };
                let view = master
                    .pool
                    .view(job)
                    .ok_or_else(|| format!("{job} was acknowledged and lost"))?;
                let counted = self.over.contains_key(&job);
                let fine = match view.state {
                    JobState::Completed => counted,
                    JobState::Removed => !counted && self.removed.contains(&job),
                    JobState::Held => view.reason.is_some_and(|why| why.contains("sites or nodes failed it")),
                    _ => false,
                };
                if !fine || (self.removed.contains(&job) && view.state == JobState::Held) {
                    return Err(format!("{job} is {:?} at the end; counted: {counted}", view.state));
                }
                self.summary.completed += u32::from(counted);
            }
        }
        let mut folded = pool::Pool::new();
        self.journal.iter().for_each(|record| folded.apply(record));
        if folded.counts(&Select::default()) != master.pool.counts(&Select::default()) {
            return Err("the journal does not lead to the state".into());
        }
        for (index, site) in self.sites.iter().enumerate() {
            let running = site.starters.values().any(|node| !node.running.is_empty());
            let alive = site.starters.iter().find(|(_, node)| node.alive);
            if running || alive.is_some() {
                return Err(format!(
                    "left behind at site {index}: jobs {running}, starter {:?}",
                    alive.map(|(key, _)| key)
                ));
            }
        }
        Ok(())
    }
}
