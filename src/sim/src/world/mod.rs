//! The world: what happens when, which faults come, and what must hold.

mod agent;
mod batch;
mod master;
mod nodes;

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
    Inventory(u64, Vec<AttemptId>, Vec<AttemptId>, Vec<AttemptId>),
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
                a.machine.views().map(|v| format!("{} {} {}", v.id, v.state, v.why)).collect()
            });
            let alive = site.starters.values().filter(|node| node.alive).count();
            let jobs = site.batch.jobs.values().filter(|j| j.state != BatchState::Ended).count();
            let _ = write!(out, "; site {index}: {proxies:?}, {alive} starters alive, {jobs} batch jobs");
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
            What::AtAgent(site, key, link, message) => self.agent_hears(site, key, link, message),
            What::AtStarter(site, key, link, message) => self.starter_hears(site, key, link, message),
            What::LineLostAtAgent(site, key, link) => self.line_lost_at_agent(site, key, link, None),
            What::LineLostAtStarter(site, key, link) => self.line_lost_at_starter(site, key, link),
            What::StarterTick(site, key) => {
                let now = self.clock.now;
                if let Some(node) = self.sites[site].starters.get_mut(&key).filter(|node| node.tick == Some(now)) {
                    node.tick = None;
                    self.tell_starter(site, key, StarterEvent::TimePassed);
                }
            }
            What::Started(site, key, id) => {
                if self.sites[site].starters.get(&key).is_some_and(|node| node.running.contains_key(&id)) {
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

    fn submit(&mut self) {
        let Some(master) = &mut self.master else {
            return self.clock.after(1000, 60_000, What::Submit);
        };
        let widest = self.sites.iter().map(|site| site.shape.1).max().unwrap_or(1);
        let groups: Vec<GroupRecord> = (0..self.clock.between(1, 4))
            .map(|_| GroupRecord {
                count: self.clock.between(1, 40) as u32,
                program: Program { cpus: if self.clock.one_in(4) { widest.min(2) } else { 1 }, ..Program::default() },
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
        let all: Vec<JobId> = master.pool.views(&Select::default(), None).map(|view| view.id).collect();
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

    fn fault(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        self.clock.after(1000, 240_000, What::Fault);
        let Some(kind) = self.clock.pick(&self.kinds) else {
            return Ok(());
        };
        let site = self.clock.between(0, self.sites.len() as u64) as usize;
        let keys: Vec<StarterKey> =
            self.sites[site].starters.iter().filter(|(_, node)| node.alive).map(|(key, _)| *key).collect();
        let key = self.clock.pick(&keys);
        let running =
            self.sites[site].batch.jobs.iter().filter(|(_, job)| job.state == BatchState::Running && !job.cancelled);
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

    fn check_end(&mut self) -> Checked {
        let master = self.master.as_ref().ok_or("no master at the end")?;
        for (cluster, jobs) in &self.acknowledged {
            for proc in 0..*jobs {
                let job = JobId { cluster: *cluster, proc };
                let view = master.pool.view(job).ok_or_else(|| format!("{job} was acknowledged and lost"))?;
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
