//! What a run remembers through a crash: its records, and the fold over them.

use core::cmp::Reverse;

use super::*;

/// What a run stores. Everything else follows from these and the plan. Fields are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A PRE script ended.
    #[n(0)]
    PreEnded {
        /// Whose.
        #[n(0)]
        node: u32,
        /// Its exit code.
        #[n(1)]
        code: i32,
    },
    /// A node's jobs are about to be submitted.
    #[n(1)]
    Submitting {
        /// Which node.
        #[n(0)]
        node: u32,
    },
    /// They are in the queue.
    #[n(2)]
    Submitted {
        /// Which node.
        #[n(0)]
        node: u32,
        /// What they are called.
        #[n(1)]
        cluster: u32,
        /// How many.
        #[n(2)]
        jobs: u32,
    },
    /// They are over, could not be submitted, or there are none to submit.
    #[n(3)]
    JobsEnded {
        /// Which node.
        #[n(0)]
        node: u32,
        /// 0, or how the first failed.
        #[n(1)]
        code: i32,
    },
    /// A POST script ended.
    #[n(4)]
    PostEnded {
        /// Whose.
        #[n(0)]
        node: u32,
        /// Its exit code.
        #[n(1)]
        code: i32,
    },
    /// The provisioner has what the others need.
    #[n(5)]
    Provisioned,
    /// The user holds the DAG, or lets it go on.
    #[n(6)]
    Paused(#[n(0)] bool),
    /// It is halted, or no longer.
    #[n(7)]
    Halted(#[n(0)] bool),
    /// It begins nothing new any more.
    #[n(8)]
    Stopped(#[n(0)] Stop),
    /// Its last node begins.
    #[n(9)]
    LastBegun,
    /// It ended, with this exit code.
    #[n(10)]
    Ended(#[n(0)] i32),
}

impl Run {
    /// Folds a record in: all that recovery needs.
    pub fn apply(&mut self, record: &Record) {
        match *record {
            Record::PreEnded { node, code } => self.apply_pre_ended(node, code),
            Record::Submitting { node } => {
                self.leave_ready(node);
                self.enter(node, State::Submitting);
                self.occupy(node);
            }
            Record::Submitted { node, cluster, jobs } => {
                self.enter(node, State::Submitted);
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.cluster = cluster;
                }
                self.jobs.insert(node, Jobs { total: jobs, idle: jobs, ..Jobs::default() });
                self.idle += u64::from(jobs);
                if self.is_cut_short(node) {
                    self.removals.insert(node);
                }
            }
            Record::JobsEnded { node, code } => self.apply_jobs_ended(node, code),
            Record::PostEnded { node, code } => {
                self.unscript(node, Script::Post);
                self.conclude(node, code);
            }
            Record::Provisioned => self.provide(),
            Record::Paused(on) => self.paused = on,
            Record::Halted(on) => self.halted = on,
            Record::Stopped(stop) => self.apply_stopped(stop),
            Record::LastBegun => {
                self.last_begun = true;
                if let Some(last) = self.last {
                    self.start(last, false);
                }
            }
            Record::Ended(code) => self.ended = Some(code),
        }
    }

    fn apply_pre_ended(&mut self, node: u32, code: i32) {
        self.unscript(node, Script::Pre);
        let Some(plan) = self.plan_of(node) else { return };
        let (skip, post) = (plan.pre_skip == Some(code) && code != 0, self.script_plan(node, Script::Post).is_some());
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.pre, node.code) = (code, code);
        }
        if self.is_cut_short(node) {
            // It was killed: it has not begun.
            self.enter(node, State::NotReady);
        } else if code == 0 {
            self.queue(node, false);
        } else if skip {
            self.abort_if_asked(node);
            self.succeed(node);
        } else if self.plan.always_post && post {
            self.begin_post(node);
        } else {
            self.conclude(node, code);
        }
    }

    fn apply_jobs_ended(&mut self, node: u32, code: i32) {
        match self.state(node) {
            State::Submitted | State::Submitting => self.vacate(node),
            _ => self.leave_ready(node),
        }
        if let Some(jobs) = self.jobs.remove(&node) {
            self.idle = self.idle.saturating_sub(u64::from(jobs.idle));
        }
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.code = code;
        }
        if self.script_plan(node, Script::Post).is_some() && !self.is_cut_short(node) {
            self.begin_post(node);
        } else {
            self.conclude(node, code);
        }
    }

    /// Is what it does stopped with the rest? Not the last node, unless the DAG is removed while that runs.
    pub(super) fn is_cut_short(&self, node: u32) -> bool {
        self.stop.is_some() && (Some(node) != self.last || self.last_cut)
    }

    /// A stop takes back what has not begun, and gives up what scripts were about: whether one runs or waits, records don't tell.
    fn apply_stopped(&mut self, stop: Stop) {
        self.last_cut = self.last_begun && stop == Stop::Removed;
        self.paused &= stop != Stop::Removed;
        self.stop = Some(stop);
        for scripts in &mut self.scripts {
            scripts.waiting.clear();
            scripts.deferred.clear();
        }
        for node in self.numbers() {
            match self.state(node) {
                _ if !self.is_cut_short(node) => {
                    if self.state(node) == State::Pre {
                        self.scripts_mut(Script::Pre).waiting.push_back(node);
                    } else if self.state(node) == State::Post {
                        self.scripts_mut(Script::Post).waiting.push_back(node);
                    }
                }
                State::Ready | State::Pre => {
                    self.leave_ready(node);
                    if Some(node) == self.last { self.fail(node) } else { self.enter(node, State::NotReady) }
                }
                State::Post => self.fail(node),
                _ => {}
            }
        }
    }

    fn begin_post(&mut self, node: u32) {
        self.enter(node, State::Post);
        self.stamp(node, false);
        self.scripts_mut(Script::Post).waiting.push_back(node);
    }

    fn unscript(&mut self, node: u32, script: Script) {
        let scripts = self.scripts_mut(script);
        scripts.running.remove(&node);
        if !scripts.waiting.is_empty() {
            scripts.waiting.retain(|waiting| *waiting != node);
        }
    }

    pub(super) fn enter(&mut self, node: u32, state: State) {
        let kind = self.kind(node);
        let Some(slot) = self.nodes.get_mut(node as usize) else { return };
        let before = core::mem::replace(&mut slot.state, state);
        let busy = |state| !matches!(state, State::NotReady | State::Done | State::Failed | State::Futile);
        if kind == Kind::Regular {
            self.busy = self.busy + u32::from(busy(state)) - u32::from(busy(before));
        }
        if kind != Kind::Join {
            if let Some(count) = self.counts.by_state.get_mut(before as usize) {
                *count -= 1;
            }
            if let Some(count) = self.counts.by_state.get_mut(state as usize) {
                *count += 1;
            }
        }
    }

    /// A node whose parents are done starts.
    pub(super) fn open(&mut self, node: u32) {
        let mut joins = vec![node];
        while let Some(node) = joins.pop() {
            let Some(slot) = self.nodes.get(node as usize) else { continue };
            if slot.waits > 0 || slot.state != State::NotReady || self.stop.is_some() || !self.provisioned {
                continue;
            }
            if self.kind(node) == Kind::Join {
                self.enter(node, State::Done);
                joins.extend(self.release(node, false));
            } else {
                self.start(node, false);
            }
        }
    }

    /// One parent less for each child; those that have none left are given. After a failure, only for those that wait weakly.
    pub(super) fn release(&mut self, node: u32, only_weak: bool) -> Vec<u32> {
        let Run { plan, nodes, .. } = self;
        let mut free = Vec::new();
        for edge in plan.children(node) {
            if only_weak && edge & WEAK == 0 {
                continue;
            }
            if let Some(child) = nodes.get_mut((edge & !WEAK) as usize) {
                child.waits = child.waits.saturating_sub(1);
                if child.waits == 0 {
                    free.push(edge & !WEAK);
                }
            }
        }
        free
    }

    pub(super) fn start(&mut self, node: u32, again: bool) {
        let save = self.plan_of(node).is_some_and(|plan| plan.save_point);
        if let Some(slot) = self.nodes.get_mut(node as usize) {
            slot.pre = 0;
            if !core::mem::replace(&mut slot.begun, true) && save {
                self.saves.push(node);
            }
        }
        if self.script_plan(node, Script::Pre).is_some() {
            self.enter(node, State::Pre);
            self.stamp(node, false);
            self.scripts_mut(Script::Pre).waiting.push_back(node);
        } else {
            self.queue(node, again);
        }
    }

    fn category_of(&self, node: u32) -> u32 {
        let none = self.categories.len().saturating_sub(1);
        let none = u32::try_from(none).unwrap_or(u32::MAX);
        self.plan_of(node).and_then(|plan| plan.category).filter(|category| *category < none).unwrap_or(none)
    }

    /// Changes a category, and keeps `heads` true.
    fn change(&mut self, number: u32, change: impl FnOnce(&mut Category)) {
        let Run { categories, heads, .. } = self;
        let Some(category) = categories.get_mut(number as usize) else { return };
        let head = |category: &Category| category.ready.first().copied().filter(|_| category.has_room());
        let before = head(category);
        change(category);
        let after = head(category);
        if before != after {
            before.map(|key| heads.remove(&(key, number)));
            after.map(|key| heads.insert((key, number)));
        }
    }

    fn stamp(&mut self, node: u32, first: bool) {
        self.order += 1;
        let order = if first { -self.order } else { self.order };
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.order = order;
        }
    }

    /// Its place among those that are ready; what serves the others comes before them.
    fn key(&self, node: u32) -> Key {
        let priority = self.plan_of(node).map_or(0, |plan| match plan.kind {
            Kind::Service | Kind::Provisioner => i32::MAX,
            _ => plan.priority,
        });
        (Reverse(priority), self.nodes.get(node as usize).map_or(0, |node| node.order), node)
    }

    /// The node waits for its turn to be submitted.
    fn queue(&mut self, node: u32, again: bool) {
        self.enter(node, State::Ready);
        self.stamp(node, self.plan.depth_first || (again && self.plan.retry_first));
        self.wait_for_turn(node);
    }

    fn wait_for_turn(&mut self, node: u32) {
        let key = self.key(node);
        self.change(self.category_of(node), |category| _ = category.ready.insert(key));
    }

    fn leave_ready(&mut self, node: u32) {
        if self.state(node) == State::Ready {
            let key = self.key(node);
            self.change(self.category_of(node), |category| _ = category.ready.remove(&key));
        }
    }

    /// Whether the limit of nodes counts it.
    pub(super) fn counts_as_submitted(&self, node: u32) -> bool {
        matches!(self.kind(node), Kind::Regular | Kind::Final)
    }

    fn occupy(&mut self, node: u32) {
        self.submitted += u32::from(self.counts_as_submitted(node));
        self.change(self.category_of(node), |category| category.submitted += 1);
    }

    fn vacate(&mut self, node: u32) {
        self.submitted = self.submitted.saturating_sub(u32::from(self.counts_as_submitted(node)));
        self.change(self.category_of(node), |category| category.submitted = category.submitted.saturating_sub(1));
    }

    /// The last part of a node's try ended with `code`: it succeeds, is tried again, or fails.
    fn conclude(&mut self, node: u32, code: i32) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.code = code;
        }
        let aborts = self.abort_if_asked(node);
        if code == 0 {
            return self.succeed(node);
        }
        let Some(plan) = self.plan_of(node) else { return };
        let (most, unless) = (plan.retries, plan.unless_exit);
        let stopped = self.stop.is_some() || (self.last_begun && Some(node) != self.last);
        let Some(slot) = self.nodes.get_mut(node as usize) else { return };
        if !aborts && !stopped && slot.retries < most && unless != Some(code) {
            slot.retries += 1;
            self.start(node, true);
        } else {
            self.fail(node);
        }
    }

    fn abort_if_asked(&mut self, node: u32) -> bool {
        let code = self.code(node);
        let asked = self.plan_of(node).and_then(|plan| plan.abort_on).filter(|(exit, _)| *exit == code);
        if let Some((_, own)) = asked
            && self.stop.is_none()
        {
            self.apply_stopped(Stop::Aborted(own.map_or(code, i32::from)));
        }
        asked.is_some()
    }

    pub(super) fn succeed(&mut self, node: u32) {
        self.enter(node, State::Done);
        if Some(node) == self.provisioner {
            self.provide();
        }
        for child in self.release(node, false) {
            self.open(child);
        }
    }

    fn provide(&mut self) {
        if core::mem::replace(&mut self.provisioned, true) {
            return;
        }
        for node in self.numbers() {
            if matches!(self.kind(node), Kind::Regular | Kind::Join) {
                self.open(node);
            }
        }
    }

    fn fail(&mut self, node: u32) {
        self.enter(node, State::Failed);
        if !matches!(self.kind(node), Kind::Service) {
            self.failed += 1;
        }
        // Those that wait for its success never start, nor does anything below them.
        let strong = |run: &Run, node| -> Vec<u32> {
            run.plan.children(node).iter().filter(|edge| *edge & WEAK == 0).copied().collect()
        };
        let mut doomed = strong(self, node);
        while let Some(node) = doomed.pop() {
            if self.state(node) == State::NotReady {
                self.enter(node, State::Futile);
                doomed.extend(self.plan.children(node).iter().map(|edge| edge & !WEAK));
            }
        }
        for child in self.release(node, true) {
            self.open(child);
        }
    }
}

/// A run at one moment, to begin a journal with.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Snapshot {
    #[n(0)]
    nodes: Vec<Node>,
    #[n(1)]
    order: i64,
    /// Jobs of nodes that are submitted.
    #[n(2)]
    jobs: Vec<(u32, u32)>,
    #[n(3)]
    provisioned: bool,
    #[n(4)]
    last_begun: bool,
    #[n(5)]
    last_cut: bool,
    #[n(6)]
    paused: bool,
    #[n(7)]
    halted: bool,
    #[n(8)]
    stop: Option<Stop>,
    #[n(9)]
    ended: Option<i32>,
}

impl Run {
    /// All that [`Run::apply`] made, to be restored with [`Run::restore`]. Records not yet taken are in it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            nodes: self.nodes.clone(),
            order: self.order,
            jobs: self.jobs.iter().map(|(node, jobs)| (*node, jobs.total)).collect(),
            provisioned: self.provisioned,
            last_begun: self.last_begun,
            last_cut: self.last_cut,
            paused: self.paused,
            halted: self.halted,
            stop: self.stop,
            ended: self.ended,
        }
    }

    /// The run of a snapshot of a run of the same plan.
    pub fn restore(plan: Plan, snapshot: Snapshot) -> Run {
        let mut run = Run::empty(plan);
        run.order = snapshot.order;
        run.provisioned = snapshot.provisioned;
        run.last_begun = snapshot.last_begun;
        run.last_cut = snapshot.last_cut;
        run.paused = snapshot.paused;
        run.halted = snapshot.halted;
        run.stop = snapshot.stop;
        run.ended = snapshot.ended;
        let mut scripted: BTreeSet<(i64, u32, Script)> = BTreeSet::new();
        for (number, node) in (0..).zip(snapshot.nodes) {
            let state = node.state;
            if let Some(slot) = run.nodes.get_mut(number as usize) {
                *slot = Node { state: State::NotReady, ..node };
            }
            run.enter(number, state);
            match state {
                State::Ready => run.wait_for_turn(number),
                State::Pre => _ = scripted.insert((node.order, number, Script::Pre)),
                State::Post => _ = scripted.insert((node.order, number, Script::Post)),
                State::Submitting | State::Submitted => run.occupy(number),
                State::Failed if run.kind(number) != Kind::Service => run.failed += 1,
                _ => {}
            }
        }
        for (_, node, script) in scripted {
            run.scripts_mut(script).waiting.push_back(node);
        }
        for (node, total) in snapshot.jobs {
            run.jobs.insert(node, Jobs { total, idle: total, ..Jobs::default() });
            run.idle += u64::from(total);
        }
        run
    }
}
