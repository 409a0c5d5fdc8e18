//! One run of a DAG: which node may start, what it does next, when the whole ends. Runs in the master.
//!
//! ```text
//! NotReady ─▶ Pre ─▶ Ready ─▶ Submitting ─▶ Submitted ─▶ Post ─▶ Done
//!                └──────────── tried again ◀────────────┴──────▶ Failed      Futile: an ancestor failed
//! ```
//!
//! The driver gives the [`Plan`] that it read from the DAG file, hands in events, stores the records in order, and does the actions
//! once the records behind them are durable. After a crash it folds the stored records into a new run of the same plan with
//! [`Run::apply`], and then calls [`Run::resume`], which asks again for what was under way, the end among it.
//!
//! # Why a node's jobs are submitted once a try
//!
//! [`Record::Submitting`] is durable before [`Action::Submit`] leaves. The submission carries the node and the try as its token, and
//! the pool records it with the jobs. A driver that is asked again, after a crash, looks for the token first: it is there if and only
//! if the jobs are.
//!
//! What the node's jobs do is told as a whole ([`Jobs`]), never as a difference, so that telling it again changes nothing. Scripts
//! have no such memory: one that was running when the master died is run again, as with DAGMan.

mod event;
mod record;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::Time;

pub use event::{Action, Event, Jobs};
pub use record::{Record, Snapshot};

/// Marks a weak edge in a plan's edges: the child waits for its parent's end, however it ends.
pub const WEAK: u32 = 1 << 31;

/// The exit code of a node whose jobs could not be submitted.
pub const SUBMIT_FAILED: i32 = -1001;
/// The exit code of a node whose jobs were removed.
pub const JOB_REMOVED: i32 = -1002;
/// What a POST script is told of jobs that never ran, because the PRE script failed.
pub const JOB_SKIPPED: i32 = -1004;
/// The exit code of a DAG that was removed.
pub const REMOVED: i32 = 2;

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Has something to do, in its turn.
    #[default]
    Regular,
    /// Stands between the parents and the children of one command.
    Join,
    /// Runs last.
    Final,
    /// Runs first; the others wait until its jobs run.
    Provisioner,
    /// Runs beside the others.
    Service,
}

/// When a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Script {
    /// Before the node's jobs are submitted.
    Pre,
    /// After they ended.
    Post,
    /// When some are held.
    Hold,
}

/// How many of a node's jobs may fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Jobs, or percent of them.
    pub value: u32,
    /// Is it percent?
    pub percent: bool,
    /// Are the others removed when more have failed?
    pub fail_fast: bool,
}

/// A node of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanNode {
    /// What it is.
    pub kind: Kind,
    /// Its jobs count as done without being submitted.
    pub noop: bool,
    /// It was done before.
    pub done: bool,
    /// Higher starts earlier.
    pub priority: i32,
    /// How often it is tried again.
    pub retries: u32,
    /// The exit code after which it is not.
    pub unless_exit: Option<i32>,
    /// The exit code that ends the DAG, and the DAG's exit code then; the node's if none.
    pub abort_on: Option<(i32, Option<u8>)>,
    /// The exit code of its PRE script that makes it succeed.
    pub pre_skip: Option<i32>,
    /// How many of its jobs may fail.
    pub tolerance: Tolerance,
    /// Which scripts it has, by [`Script`]; each with the exit code after which it is run again, and after how long.
    pub scripts: [Option<Option<(i32, Duration)>>; 3],
    /// The place of its category in [`Plan::categories`].
    pub category: Option<u32>,
    /// Progress is written when it first starts.
    pub save_point: bool,
}

/// How much at a time; none is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nodes with jobs in the queue.
    pub jobs: Option<u32>,
    /// Idle jobs: no node is submitted while there are so many.
    pub idle: Option<u32>,
    /// PRE scripts that run.
    pub pre: Option<u32>,
    /// POST scripts that run.
    pub post: Option<u32>,
    /// HOLD scripts that run.
    pub hold: Option<u32>,
}

/// What a run is to do. The same for its whole life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The nodes.
    pub nodes: Vec<PlanNode>,
    /// Where each node's children begin in `children`, and the end of the last one's.
    pub starts: Vec<u32>,
    /// Children; [`WEAK`] marks edges. There is no cycle.
    pub children: Vec<u32>,
    /// How many nodes of each category may have jobs in the queue.
    pub categories: Vec<Option<u32>>,
    /// How much at a time.
    pub limits: Limits,
    /// A POST script runs even when the PRE script failed.
    pub always_post: bool,
    /// What became ready last is submitted first.
    pub depth_first: bool,
    /// So is what is tried again.
    pub retry_first: bool,
}

impl Plan {
    fn children(&self, node: u32) -> &[u32] {
        let at = |i: usize| self.starts.get(i).map_or(0, |start| *start as usize);
        self.children.get(at(node as usize)..at(node as usize + 1)).unwrap_or_default()
    }
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// Parents of it are not done.
    #[default]
    #[n(0)]
    NotReady,
    /// To be submitted when limits allow.
    #[n(1)]
    Ready,
    /// Its PRE script runs, or waits to.
    #[n(2)]
    Pre,
    /// Its jobs are being submitted.
    #[n(3)]
    Submitting,
    /// Its jobs are in the queue.
    #[n(4)]
    Submitted,
    /// Its POST script runs, or waits to.
    #[n(5)]
    Post,
    /// It succeeded.
    #[n(6)]
    Done,
    /// It failed.
    #[n(7)]
    Failed,
    /// It will never start: an ancestor failed.
    #[n(8)]
    Futile,
}

const STATES: usize = 9;

/// Why no new work is begun any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stop {
    /// A node's exit code ends the DAG, with this one.
    #[n(0)]
    Aborted(#[n(0)] i32),
    /// The user removed it.
    #[n(1)]
    Removed,
    /// It was halted, and nothing is under way.
    #[n(2)]
    Halted,
}

/// The fixed state of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Node {
    #[n(0)]
    state: State,
    /// It has begun in this run.
    #[n(1)]
    begun: bool,
    /// Its PRE script's exit code in this try.
    #[n(2)]
    pre: i32,
    /// Parents that are not done.
    #[n(3)]
    waits: u32,
    #[n(4)]
    retries: u32,
    #[n(5)]
    code: i32,
    /// What its jobs are called, or were.
    #[n(6)]
    cluster: u32,
    /// Among those that are ready, or have a script to run: lower comes first.
    #[n(7)]
    order: i64,
}

/// Nodes by state, joins apart; see [`Run::counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    by_state: [u32; STATES],
}

impl Counts {
    /// Nodes in that state.
    pub fn of(&self, state: State) -> u32 {
        self.by_state.get(state as usize).copied().unwrap_or(0)
    }

    /// Nodes in all.
    pub fn total(&self) -> u32 {
        self.by_state.iter().sum()
    }
}

/// A node's place among those that are ready: by priority, then in order.
type Key = (core::cmp::Reverse<i32>, i64, u32);

/// One script kind's waiting nodes, and how many run.
#[derive(Clone, Debug, Default)]
struct Scripts {
    waiting: VecDeque<u32>,
    running: BTreeSet<u32>,
    /// To be run again, by when.
    deferred: BTreeSet<(Time, u32)>,
}

#[derive(Clone, Debug, Default)]
struct Category {
    ready: BTreeSet<Key>,
    submitted: u32,
    limit: Option<u32>,
}

impl Category {
    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.submitted < limit)
    }
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Run {
    plan: Plan,
    nodes: Vec<Node>,
    counts: Counts,
    /// Nodes that are ready, by category; the last one is for those without.
    categories: Vec<Category>,
    /// The first of each category that has room.
    heads: BTreeSet<(Key, u32)>,
    order: i64,
    scripts: [Scripts; 3],
    /// What is known of the jobs of nodes that are submitted.
    jobs: BTreeMap<u32, Jobs>,
    idle: u64,
    /// Regular nodes that are neither waiting for parents nor over.
    busy: u32,
    /// Nodes with jobs in the queue, or on the way there; services apart.
    submitted: u32,
    failed: u32,
    provisioner: Option<u32>,
    provisioned: bool,
    last: Option<u32>,
    last_begun: bool,
    /// The DAG was removed while its last node ran.
    last_cut: bool,
    paused: bool,
    halted: bool,
    stop: Option<Stop>,
    ended: Option<i32>,
    /// Save points and removals to ask for.
    saves: Vec<u32>,
    removals: BTreeSet<u32>,
    /// Removals were asked for since the stop.
    swept: bool,
    /// Not folding records: actions are made.
    live: bool,
    records: VecDeque<Record>,
    recorded: u64,
    actions: VecDeque<(u64, Action)>,
    deadline: Option<Time>,
}

impl Run {
    /// A run of `plan` that has not begun.
    pub fn new(plan: Plan) -> Run {
        let mut run = Run::empty(plan);
        run.bootstrap();
        run
    }

    fn empty(plan: Plan) -> Run {
        let count = plan.nodes.len();
        let mut waits = vec![0_u32; count];
        for child in &plan.children {
            if let Some(waits) = waits.get_mut((child & !WEAK) as usize) {
                *waits += 1;
            }
        }
        let nodes = waits.into_iter().map(|waits| Node { waits, ..Node::default() }).collect();
        let limits = plan.categories.iter().copied().chain([None]);
        let categories = limits.map(|limit| Category { limit, ..Category::default() }).collect();
        let single = |kind| (0..).zip(&plan.nodes).find(|(_, node)| node.kind == kind).map(|(number, _)| number);
        let (provisioner, last) = (single(Kind::Provisioner), single(Kind::Final));
        let mut counts = Counts::default();
        let written = plan.nodes.iter().filter(|node| node.kind != Kind::Join).count();
        counts.by_state[State::NotReady as usize] = u32::try_from(written).unwrap_or(u32::MAX);
        Run {
            plan,
            nodes,
            counts,
            categories,
            heads: BTreeSet::new(),
            order: 0,
            scripts: Default::default(),
            jobs: BTreeMap::new(),
            idle: 0,
            busy: 0,
            submitted: 0,
            failed: 0,
            provisioner,
            provisioned: provisioner.is_none(),
            last,
            last_begun: false,
            last_cut: false,
            paused: false,
            halted: false,
            stop: None,
            ended: None,
            saves: Vec::new(),
            removals: BTreeSet::new(),
            swept: false,
            live: false,
            records: VecDeque::new(),
            recorded: 0,
            actions: VecDeque::new(),
            deadline: None,
        }
    }

    /// What was done before is done; what waits for nothing starts.
    fn bootstrap(&mut self) {
        let done: Vec<u32> = self.numbers().filter(|n| self.plan_of(*n).is_some_and(|node| node.done)).collect();
        for node in &done {
            self.enter(*node, State::Done);
        }
        for node in done {
            for child in self.release(node, false) {
                self.open(child);
            }
        }
        for node in self.numbers() {
            match self.plan_of(node).map(|plan| plan.kind) {
                Some(Kind::Service | Kind::Provisioner) => self.start(node, false),
                Some(Kind::Regular | Kind::Join) if self.provisioned => self.open(node),
                _ => {}
            }
        }
    }

    fn numbers(&self) -> core::ops::Range<u32> {
        0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    fn plan_of(&self, node: u32) -> Option<&PlanNode> {
        self.plan.nodes.get(node as usize)
    }

    fn kind(&self, node: u32) -> Kind {
        self.plan_of(node).map_or(Kind::Regular, |plan| plan.kind)
    }

    /// Takes in what happened, and does what follows.
    pub fn handle(&mut self, now: Time, event: Event) {
        if self.ended.is_some() || !self.live {
            return;
        }
        self.decide(now, event);
        self.pump(now);
    }

    /// Begins to act: at the start, and once the records of an earlier life are folded in.
    pub fn resume(&mut self, now: Time) {
        if self.live {
            return;
        }
        self.live = true;
        if let Some(code) = self.ended {
            return self.act(Action::Finish { code, rescue: self.is_unfinished() });
        }
        // Where a node has gone on, its save point was written in an earlier life.
        let mut saves = core::mem::take(&mut self.saves);
        saves.retain(|node| {
            self.retries(*node) == 0 && matches!(self.state(*node), State::Pre | State::Ready | State::Submitting)
        });
        self.saves = saves;
        for node in self.numbers() {
            if self.state(node) == State::Submitting {
                self.act(Action::Submit { node, try_number: self.retries(node) });
            }
        }
        self.pump(now);
    }

    /// Records to store, in order.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// The next action, and how many records of this life must be durable before it is done.
    pub fn poll_action(&mut self) -> Option<(u64, Action)> {
        self.actions.pop_front()
    }

    /// When [`Event::TimePassed`] is due, unless something happens before.
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where a node stands.
    pub fn state(&self, node: u32) -> State {
        self.nodes.get(node as usize).map_or(State::NotReady, |node| node.state)
    }

    /// How often it was tried again.
    pub fn retries(&self, node: u32) -> u32 {
        self.nodes.get(node as usize).map_or(0, |node| node.retries)
    }

    /// The exit code of what ended last: a script, or the first job that failed (a signal as its negative).
    pub fn code(&self, node: u32) -> i32 {
        self.nodes.get(node as usize).map_or(0, |node| node.code)
    }

    /// The exit code of its PRE script in this try.
    pub fn pre_code(&self, node: u32) -> i32 {
        self.nodes.get(node as usize).map_or(0, |node| node.pre)
    }

    /// What its jobs are called, when it has been submitted.
    pub fn cluster(&self, node: u32) -> Option<u32> {
        self.nodes.get(node as usize).map(|node| node.cluster).filter(|cluster| *cluster > 0)
    }

    /// Was it submitted when the DAG last told of it, and is it still?
    pub fn submitted(&self) -> impl Iterator<Item = (u32, u32)> {
        self.jobs.keys().filter_map(|node| Some((*node, self.cluster(*node)?)))
    }

    /// What its jobs do, while it is submitted.
    pub fn jobs(&self, node: u32) -> Option<&Jobs> {
        self.jobs.get(&node)
    }

    /// Nodes by state, joins apart.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Scripts of that kind that run.
    pub fn running(&self, script: Script) -> u32 {
        u32::try_from(self.scripts_of(script).running.len()).unwrap_or(u32::MAX)
    }

    /// The DAG's exit code, when it has ended.
    pub fn ended(&self) -> Option<i32> {
        self.ended
    }

    /// Why it begins nothing new, if so.
    pub fn stopped(&self) -> Option<Stop> {
        self.stop
    }

    /// The user holds it: nothing new is begun.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// It is halted: nothing new is begun, and it ends when nothing is under way.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// What DAGMan calls the status of a DAG: 0 all well, 2 a node failed, 3 aborted, 4 removed, 6 halted.
    pub fn status(&self) -> u8 {
        match self.stop {
            Some(Stop::Aborted(0)) => 0,
            Some(Stop::Aborted(_)) => 3,
            Some(Stop::Removed) => 4,
            Some(Stop::Halted) => 6,
            None if self.failed > 0 => 2,
            None if self.halted => 6,
            None => 0,
        }
    }

    fn scripts_of(&self, script: Script) -> &Scripts {
        let [pre, post, hold] = &self.scripts;
        match script {
            Script::Pre => pre,
            Script::Post => post,
            Script::Hold => hold,
        }
    }

    fn scripts_mut(&mut self, script: Script) -> &mut Scripts {
        let [pre, post, hold] = &mut self.scripts;
        match script {
            Script::Pre => pre,
            Script::Post => post,
            Script::Hold => hold,
        }
    }

    fn script_plan(&self, node: u32, script: Script) -> Option<&Option<(i32, Duration)>> {
        self.plan_of(node)?.scripts.get(script as usize)?.as_ref()
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back((self.recorded, action));
    }

    fn record(&mut self, record: Record) {
        self.apply(&record);
        self.records.push_back(record);
        self.recorded += 1;
    }

    // ---- what follows from an event ----

    fn decide(&mut self, now: Time, event: Event) {
        match event {
            Event::ScriptEnded { node, script, code } => self.script_ended(now, node, script, code),
            Event::Submitted { node, cluster, jobs } if self.state(node) == State::Submitting => {
                self.record(Record::Submitted { node, cluster, jobs });
            }
            Event::SubmitFailed { node } if self.state(node) == State::Submitting => {
                self.record(Record::JobsEnded { node, code: SUBMIT_FAILED });
            }
            Event::Jobs { node, jobs } if self.state(node) == State::Submitted => self.jobs_told(node, jobs),
            Event::PauseAsked(on) if self.paused != on => self.record(Record::Paused(on)),
            Event::HaltAsked(on) if self.halted != on && self.stop.is_none() => self.record(Record::Halted(on)),
            Event::RemovalAsked if self.stop != Some(Stop::Removed) || (self.last_begun && !self.last_cut) => {
                self.swept = false;
                self.record(Record::Stopped(Stop::Removed));
            }
            // What comes twice, or late, says nothing new.
            _ => {}
        }
    }

    fn script_ended(&mut self, now: Time, node: u32, script: Script, code: i32) {
        if !self.scripts_mut(script).running.remove(&node) {
            return;
        }
        let again = self.script_plan(node, script).copied().flatten().filter(|(status, _)| *status == code);
        if let Some((_, pause)) = again
            && self.stop.is_none()
        {
            self.scripts_mut(script).deferred.insert((now + pause, node));
            return;
        }
        match (script, self.state(node)) {
            (Script::Pre, State::Pre) => self.record(Record::PreEnded { node, code }),
            (Script::Post, State::Post) => self.record(Record::PostEnded { node, code }),
            _ => {}
        }
    }

    fn jobs_told(&mut self, node: u32, jobs: Jobs) {
        let before = self.jobs.insert(node, jobs).unwrap_or_default();
        self.idle = self.idle.saturating_sub(u64::from(before.idle)) + u64::from(jobs.idle);
        if jobs.held > before.held && self.script_plan(node, Script::Hold).is_some() {
            self.scripts_mut(Script::Hold).waiting.push_back(node);
        }
        let failures = jobs.failed.saturating_add(jobs.removed);
        let tolerance = self.plan_of(node).map(|plan| plan.tolerance).unwrap_or_default();
        let tolerated = match tolerance.percent {
            true => u64::from(jobs.total) * u64::from(tolerance.value) / 100,
            false => u64::from(tolerance.value),
        };
        let failed = u64::from(failures) > tolerated;
        if Some(node) == self.provisioner && !self.provisioned && jobs.running + jobs.ended > jobs.removed {
            self.record(Record::Provisioned);
        }
        if jobs.ended >= jobs.total {
            let code = if failed { jobs.code } else { 0 };
            // A job that was removed, or can't be told of, has no exit code of its own; it failed all the same.
            let code = if failed && code == 0 { JOB_REMOVED } else { code };
            self.record(Record::JobsEnded { node, code });
        } else if failed && tolerance.fail_fast {
            self.removals.insert(node);
        }
    }

    /// Does what can be done now.
    fn pump(&mut self, now: Time) {
        if self.stop.is_some() && !self.swept {
            self.swept = true;
            let cut: Vec<u32> = self.jobs.keys().copied().filter(|node| self.is_cut_short(*node)).collect();
            self.removals.extend(cut);
            for script in [Script::Pre, Script::Post, Script::Hold] {
                let mut running = self.scripts_of(script).running.clone();
                running.retain(|node| self.is_cut_short(*node));
                for node in running {
                    self.act(Action::KillScript { node, script });
                }
            }
        }
        if !self.paused {
            loop {
                for node in core::mem::take(&mut self.saves) {
                    self.act(Action::WriteSavePoint { node });
                }
                self.run_scripts(now);
                self.submit_ready();
                // What has nothing to submit may have made others ready, or ended the rest.
                if !self.begin_last() && self.saves.is_empty() && !self.can_run_script() {
                    break;
                }
            }
            self.end();
        }
        for node in core::mem::take(&mut self.removals) {
            if self.state(node) == State::Submitted {
                self.act(Action::Remove { node });
            }
        }
        let due = |script| self.scripts_of(script).deferred.first().map(|(at, _)| *at);
        self.deadline = [Script::Pre, Script::Post, Script::Hold].into_iter().filter_map(due).min();
    }

    fn script_limit(&self, script: Script) -> Option<u32> {
        match script {
            Script::Pre => self.plan.limits.pre,
            Script::Post => self.plan.limits.post,
            Script::Hold => self.plan.limits.hold,
        }
    }

    /// The next node whose script may run, by its place among those that wait.
    fn next_script(&self, script: Script) -> Option<usize> {
        let scripts = self.scripts_of(script);
        if self.script_limit(script).is_some_and(|limit| scripts.running.len() >= limit as usize) {
            return None;
        }
        if self.halted && script == Script::Pre {
            return scripts.waiting.iter().position(|node| Some(*node) == self.last);
        }
        (!scripts.waiting.is_empty()).then_some(0)
    }

    fn can_run_script(&self) -> bool {
        [Script::Pre, Script::Post, Script::Hold].into_iter().any(|script| self.next_script(script).is_some())
    }

    fn run_scripts(&mut self, now: Time) {
        for script in [Script::Pre, Script::Post, Script::Hold] {
            let scripts = self.scripts_mut(script);
            while let Some((at, node)) = scripts.deferred.first().copied().filter(|(at, _)| *at <= now) {
                scripts.deferred.remove(&(at, node));
                scripts.waiting.push_back(node);
            }
            while let Some(next) = self.next_script(script) {
                let scripts = self.scripts_mut(script);
                if let Some(node) = scripts.waiting.remove(next)
                    && scripts.running.insert(node)
                {
                    self.act(Action::RunScript { node, script });
                }
            }
        }
    }

    fn submit_ready(&mut self) {
        while let Some((key, category)) = self.heads.first().copied() {
            let (.., node) = key;
            let counted = self.counts_as_submitted(node);
            let limits = self.plan.limits;
            let full = limits.jobs.is_some_and(|most| counted && self.submitted >= most)
                || limits.idle.is_some_and(|most| self.idle >= u64::from(most))
                || (self.halted && Some(node) != self.last);
            if full {
                break;
            }
            debug_assert!(self.categories.get(category as usize).is_some_and(Category::has_room));
            if self.plan_of(node).is_none_or(|plan| plan.noop) {
                self.record(Record::JobsEnded { node, code: 0 });
                continue;
            }
            self.record(Record::Submitting { node });
            self.act(Action::Submit { node, try_number: self.retries(node) });
        }
    }

    /// When nothing but the last node is left, it begins.
    fn begin_last(&mut self) -> bool {
        if self.halted && self.stop.is_none() && self.busy > 0 && self.is_quiet() {
            self.record(Record::Stopped(Stop::Halted));
        }
        let due = self.busy == 0 && self.last.is_some() && !self.last_begun && self.may_end();
        if due {
            self.record(Record::LastBegun);
        }
        due
    }

    /// Nothing is in the queue, no script runs, and no POST script waits to.
    fn is_quiet(&self) -> bool {
        let post = self.scripts_of(Script::Post);
        self.submitted == 0
            && self.scripts.iter().all(|scripts| scripts.running.is_empty())
            && post.waiting.is_empty()
            && post.deferred.is_empty()
    }

    /// Not while the provisioner has yet to say that the others may begin.
    fn may_end(&self) -> bool {
        self.stop.is_some() || self.provisioned || self.provisioner.is_none_or(|node| self.state(node) >= State::Done)
    }

    fn end(&mut self) {
        let last_over = match self.last {
            Some(last) => matches!(self.state(last), State::Done | State::Failed),
            None => true,
        };
        if self.busy > 0 || !last_over || !self.may_end() || self.ended.is_some() {
            return;
        }
        // Services and the provisioner have served.
        self.removals.extend(self.jobs.keys().copied());
        let last = self.last.map(|last| self.state(last));
        let code = match (self.stop, last) {
            (Some(Stop::Removed), _) => REMOVED,
            (_, Some(State::Done)) => 0,
            (_, Some(_)) => 1,
            (Some(Stop::Aborted(code)), None) => code,
            (Some(Stop::Halted), None) => 1,
            (None, None) => i32::from(!self.all_done()),
        };
        self.record(Record::Ended(code));
        self.act(Action::Finish { code, rescue: self.is_unfinished() });
    }

    fn all_done(&self) -> bool {
        self.numbers().all(|node| self.state(node) == State::Done || self.kind(node) != Kind::Regular)
    }

    /// Some of it is left to do, and not because a node said that it need not be done.
    fn is_unfinished(&self) -> bool {
        !self.all_done() && self.stop != Some(Stop::Aborted(0))
    }
}
