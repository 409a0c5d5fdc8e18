//! The world: what happens when, which faults come, and what must hold.

mod agent;
mod batch;
mod check;
mod faults;
mod lines;
mod master;
mod nodes;
mod spool;
mod users;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use vo_core::ids::AttemptId;
use vo_core::job::{AttemptResult, Kept, Outcome, Output, OutputKind, Program, Usage};
use vo_core::lease::{Claim, Seen, Step};
use vo_core::pool::{self, Action, Decision, End, Event, GroupRecord, JobState, Offer, Record, Select, Shared, Terms};
use vo_core::proxy::{self, Link, Proxies, Row, RowStatus, State, SubmitAnswer};
use vo_core::starter::{Demand, Limits, Offer as NodeOffer, Starter, Task};
use vo_core::{JobId, ProxyId, SiteId, StarterKey, Time};
use vo_store::memdisk::{Loss, MemDisk};

use crate::clock::{Clock, Lane};
use crate::master::Master;
use crate::shared::{Directory, Raced};
use crate::site::{
    Agent, Batch, BatchJob, BatchState, Line, Missed, Node, Site, Stage, StarterAction, StarterEvent, Stream, Table,
    ToStarter, Work,
};
use check::{ANSWER, Checker};
use users::Wishes;

const LEASE: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(300);
const DRAIN: Duration = Duration::from_secs(60);
const STATUS: Duration = Duration::from_secs(60);
const WALLTIME: Duration = Duration::from_secs(3600);

/// Faults come until then; in some worlds for days.
const FAULTS: Duration = Duration::from_secs(2 * 3600);
const LONG_FAULTS: Duration = Duration::from_secs(4 * 86_400);

/// All must be done so long after the last fault.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

/// What a world may do; more is a storm that feeds itself.
const STEPS: u64 = 20_000_000;

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
    pub completed: u64,
    /// Attempts that were started.
    pub starts: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Agents that were started.
    pub agents: u64,
    /// Batch jobs that were accepted.
    pub batch_jobs: u64,
    /// Things that happened.
    pub steps: u64,
    /// Virtual time that passed.
    pub took: Duration,
}

impl Summary {
    /// Adds what another world went through.
    pub fn add(&mut self, other: &Summary) {
        self.completed += other.completed;
        self.starts += other.starts;
        self.agents += other.agents;
        self.batch_jobs += other.batch_jobs;
        self.steps += other.steps;
        self.took += other.took;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
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

pub(crate) use users::empty_pool;

type Checked = Result<(), String>;

#[derive(Clone, Debug)]
enum FromStarter {
    Inventory(u64, Vec<AttemptId>, Vec<AttemptId>, Vec<AttemptId>),
    Report(Vec<AttemptId>, Vec<AttemptResult>, Vec<AttemptId>),
    Leaving(String),
}

#[derive(Clone, Debug)]
enum ToMaster {
    Hello(u64),
    Proxies(Vec<(ProxyId, bool, String)>),
    Up(StarterKey, Offer, Option<Duration>),
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
    Welcome(bool, u64),
    Master(bool),
    End(String),
    Relay(ToStarter),
}

/// What happens to an agent. While it is stopped, all of it waits.
#[derive(Clone, Debug)]
enum OfAgent {
    /// The next step on the way to its lease.
    Claim,
    /// It opens its table.
    Open,
    /// Its table is open: it begins to work.
    Begin(u64),
    KeepLease,
    WriteAddress,
    Sync,
    /// It listens for its master.
    Listen,
    /// It tells what was put aside, by one starter or all.
    Present(Option<StarterKey>),
    /// It looks for what was put aside late.
    Look,
    /// The master has these, which were put aside.
    Forget(StarterKey, Vec<AttemptId>),
    Tick,
    /// It was its turn when it last asked its lease: now it does it.
    Do(proxy::Action),
    /// The files of a proxy are there: its submit command comes next.
    Submit(ProxyId, u32, String),
    /// It asked its lease once more, and runs the command.
    RunSubmit(ProxyId, u32, String),
    Heard(proxy::Event),
    Listed(Vec<Row>),
    FromMaster(u64, ToAgent),
    StreamLost(u64),
    Called(StarterKey, u64),
    FromStarter(StarterKey, u64, FromStarter),
    LineLost(StarterKey, u64),
    Quit,
}

#[derive(Clone, Debug)]
enum What {
    Submit,
    Remove,
    Change,
    Fault,
    Calm,
    Ending,
    Look,
    MasterStarts,
    Commit(u64),
    MasterTick(u64),
    Collected(u64, u64),
    Dial(u64, usize),
    Reached(u64, usize, u64, u32),
    NoHello(usize, u64),
    ReachableAgain(usize),
    ToMaster(usize, u64, ToMaster),
    StreamLostAtMaster(usize, u64),
    Agent(usize, u64, OfAgent),
    GoesOn(usize, u64),
    Call(usize, StarterKey),
    CallFailed(usize, StarterKey, u64),
    Beat(usize, StarterKey, u64),
    AtStarter(usize, StarterKey, u64, AtStarter),
    LineLostAtStarter(usize, StarterKey, u64),
    StarterTick(usize, StarterKey),
    Started(usize, StarterKey, AttemptId),
    Ended(usize, StarterKey, AttemptId, u64, Outcome),
    Spooled(usize, StarterKey, Vec<AttemptId>),
    TreeDead(usize, StarterKey),
    Accept(usize, ProxyId, String, Option<String>),
    Launch(usize, String),
    Cancel(usize, String),
    Terminate(usize, String, u32),
    ScriptEnded(usize, String, u32),
    NodesLost(usize, String, u32),
    BatchWell(usize),
    HomeWell(usize),
}

struct World<'a> {
    log: Option<&'a mut dyn FnMut(&str)>,
    clock: Clock<What>,
    disk: MemDisk,
    master: Option<Master>,
    masters: u64,
    sites: Vec<Site>,
    links: u64,
    /// Links that were cut: what is under way arrives until then, and nothing is sent any more.
    cut: BTreeMap<u64, Time>,
    /// Lines on which the agent hears nothing.
    deaf: BTreeSet<u64>,
    /// What waits for agents that are stopped.
    postponed: BTreeMap<(usize, u64), Vec<OfAgent>>,
    next_key: u64,
    runs: u64,
    /// Faults go on for days.
    long: bool,
    /// Many jobs.
    large: bool,
    calm: bool,
    ending: bool,
    /// Submissions still to come.
    submissions: u64,
    done: BTreeSet<usize>,
    kinds: Vec<&'static str>,
    wishes: Wishes,
    /// A site that no fault touches.
    quiet: Option<usize>,
    checker: Checker,
    summary: Summary,
    wrong: Option<String>,
}

impl<'a> World<'a> {
    fn new(seed: u64, log: Option<&'a mut dyn FnMut(&str)>) -> Self {
        let mut clock = Clock::new(seed);
        let large = clock.one_in(60);
        let long = !large && clock.one_in(12);
        let kinds = faults::kinds(&mut clock);
        let sites: Vec<Site> = (0..clock.between(1, 4)).map(|_| batch::site(&mut clock, large)).collect();
        let quiet = (sites.len() > 1 && clock.one_in(2)).then(|| clock.between(0, sites.len() as u64) as usize);
        World {
            log,
            clock,
            disk: MemDisk::new(),
            master: None,
            masters: 0,
            sites,
            links: 0,
            cut: BTreeMap::new(),
            deaf: BTreeSet::new(),
            postponed: BTreeMap::new(),
            next_key: 0,
            runs: 0,
            long,
            large,
            calm: false,
            ending: false,
            submissions: 0,
            done: BTreeSet::new(),
            kinds,
            wishes: Wishes::new(seed),
            quiet,
            checker: Checker::default(),
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
        let faults = if self.long { LONG_FAULTS } else { FAULTS };
        let span = u64::try_from(faults.as_millis()).unwrap_or(u64::MAX);
        self.clock.after(0, 1, What::MasterStarts);
        self.submissions = self.clock.between(1, 6);
        for _ in 0..self.submissions {
            self.clock.after(0, span / 2, What::Submit);
        }
        for _ in 0..self.clock.between(0, 4) {
            self.clock.after(0, span / 4 * 3, What::Remove);
        }
        for at in self.wishes.changes(span / 4 * 3) {
            self.clock.at(begin + at, What::Change);
        }
        self.clock.after(1000, 100_000, What::Fault);
        self.clock.after(60_000, 60_001, What::Look);
        self.clock.at(begin + faults, What::Calm);
        while self.done.len() < self.sites.len() {
            let what = self.clock.advance().ok_or("nothing more happens")?;
            self.summary.steps += 1;
            if self.log.is_some() {
                self.say(format_args!("{what:?}"));
            }
            if self.clock.now > begin + faults + PATIENCE || self.summary.steps > STEPS {
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
            let agents: Vec<String> = site
                .agents
                .iter()
                .map(|(life, agent)| {
                    let views = agent.work.iter().flat_map(|work| work.machine.views());
                    let views: Vec<String> = views.map(|v| format!("{} {} {}", v.id, v.state, v.why)).collect();
                    format!("agent {life} of epoch {} with {views:?}", agent.epoch)
                })
                .collect();
            let alive = site.starters.values().filter(|node| node.alive).count();
            let jobs = site.batch.jobs.values().filter(|j| j.state != BatchState::Ended).count();
            let _ = write!(out, "; site {index}: {agents:?}, {alive} starters alive, {jobs} batch jobs");
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
        self.links
    }

    /// Does something that was sent earlier still arrive over a link?
    fn carries(&self, link: u64) -> bool {
        self.cut.get(&link).is_none_or(|until| self.clock.now <= *until)
    }

    fn is_whole(&self, link: u64) -> bool {
        !self.cut.contains_key(&link)
    }

    /// Nothing more goes into a link; what is in it may still come out, for a while.
    fn sever(&mut self, link: u64) {
        let rest = if self.clock.one_in(2) { self.clock.span(0, 5000) } else { Duration::ZERO };
        let until = self.clock.now + rest;
        self.cut.entry(link).or_insert(until);
    }

    fn happen(&mut self, what: What) -> Checked {
        match what {
            What::Submit => self.submit(),
            What::Remove => self.remove(),
            What::Change => self.change(),
            What::Fault => self.fault()?,
            What::Calm => self.calm(),
            What::Ending => self.end(),
            What::Look => self.look(),
            What::MasterStarts => self.start_master()?,
            What::Commit(life) => self.commit(life)?,
            What::MasterTick(life) => self.master_tick(life),
            What::Collected(life, number) => self.collected(life, number),
            What::Dial(life, site) => self.dial(life, site),
            What::Reached(life, site, agent, tries) => self.reached(life, site, agent, tries),
            What::NoHello(site, link) => self.no_hello(site, link),
            What::ReachableAgain(site) => self.sites[site].reachable = true,
            What::ToMaster(site, link, message) => self.at_master(site, link, message),
            What::StreamLostAtMaster(site, link) => self.stream_lost_at_master(site, link),
            What::Agent(site, life, what) => match self.sites[site].agents.get(&life) {
                Some(agent) if agent.stopped => self.postponed.entry((site, life)).or_default().push(what),
                Some(_) => self.of_agent(site, life, what)?,
                None => {}
            },
            What::GoesOn(site, life) => self.goes_on(site, life)?,
            What::Call(site, key) => self.call(site, key),
            What::CallFailed(site, key, link) => self.call_failed(site, key, link),
            What::Beat(site, key, link) => self.beat(site, key, link),
            What::AtStarter(site, key, link, message) => self.starter_hears(site, key, link, message),
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
            What::Spooled(site, key, ids) => self.spooled(site, key, &ids),
            What::TreeDead(site, key) => self.tree_dead(site, key),
            What::Accept(site, proxy, name, id) => self.accept(site, proxy, name, id),
            What::Launch(site, id) => self.launch(site, &id),
            What::Cancel(site, id) => self.cancel(site, &id),
            What::Terminate(site, id, restarts) => self.batch_kill(site, &id, restarts),
            What::ScriptEnded(site, id, restarts) => self.script_ended(site, &id, restarts),
            What::NodesLost(site, id, restarts) => self.nodes_lost(site, &id, restarts),
            What::BatchWell(site) => {
                self.sites[site].batch.hangs = false;
                self.sites[site].batch.lies = false;
            }
            What::HomeWell(site) => self.sites[site].hangs = false,
        }
        Ok(())
    }

    /// Does this come to pass? Never once the faults have stopped, and never at a site that no fault touches.
    fn mishap(&mut self, site: usize, one_in: u64) -> bool {
        !self.calm && self.quiet != Some(site) && self.clock.one_in(one_in)
    }

    fn submit(&mut self) {
        let Some(master) = &mut self.master else {
            return self.clock.after(1000, 60_000, What::Submit);
        };
        self.submissions -= 1;
        let widest = self.sites.iter().map(|site| site.shape.1).max().unwrap_or(1);
        let most = if self.large { 1500 } else { 40 };
        let groups: Vec<GroupRecord> = (0..self.clock.between(1, 4))
            .map(|_| GroupRecord {
                count: self.clock.between(1, most) as u32,
                program: Program { cpus: if self.clock.one_in(4) { widest.min(2) } else { 1 }, ..Program::default() },
                terms: Terms { priority: self.clock.between(0, 3) as i32, ..self.wishes.terms(self.large) },
                held: self.wishes.on_hold(),
                ..GroupRecord::default()
            })
            .collect();
        let jobs = groups.iter().map(|g| g.count).sum();
        let now = master.time(self.clock.now);
        let cluster = master.pool.submit(now, "simulated".into(), groups);
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
        let jobs: Vec<JobId> = master.pool.views(&select, None).map(|view| view.id).collect();
        self.checker.to_remove.extend(&jobs);
        let now = master.time(self.clock.now);
        master.pool.handle(now, Event::RemovalAsked { select });
        master.removals.push((master.pool.sequence(), jobs));
        self.turn();
    }

    /// When all jobs are over, the session ends.
    fn end(&mut self) {
        self.release_all();
        let over = self.master.as_ref().is_some_and(|master| {
            let all = Select::default();
            let counts = master.pool.counts(&all);
            let stay = master.pool.views(&all, None).filter(|job| self.wishes.may_stay(job));
            self.checker.stay = stay.map(|job| job.id).collect();
            self.submissions == 0
                && counts.unfinished() as usize == self.checker.stay.len()
                && master.submitted.is_empty()
        });
        if !over {
            return self.clock.after(10_000, 20_000, What::Ending);
        }
        self.ending = true;
        for site in 0..self.sites.len() {
            self.say_to_agent(site, ToAgent::Shutdown);
        }
    }
}
