//! Random DAGs in a random world, with crashes at any instant. What must come of each node follows from the plan and from what its
//! scripts and jobs will do, which is fixed beforehand; a checker works that out by itself and watches every action.
//! `VO_DAG_SEEDS=100000 cargo test -p vo-core dag::` tries more of them; VO_DAG_TRACE is how much of a failed one is shown.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a part of a node's try does, whenever it is run: 0 two times in three.
fn fate(seed: u64, node: u32, try_number: u32, part: u64) -> i32 {
    let mut random = Random(seed ^ (u64::from(node) << 32) ^ (u64::from(try_number) << 20) ^ (part << 50));
    random.next();
    match random.below(6) {
        0..4 => 0,
        4 => 1,
        _ => 2 + random.below(3) as i32,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Story {
    /// Nobody interferes, no node aborts: the end is known.
    Plain,
    /// Aborts, holds, halts, removals.
    Troubled,
}

fn plan(random: &mut Random, story: Story) -> Plan {
    let count = 1 + random.below(14) as u32;
    let mut nodes = Vec::new();
    let mut edges: BTreeMap<(u32, u32), bool> = BTreeMap::new();
    let categories: Vec<Option<u32>> =
        (0..random.below(3)).map(|_| random.chance(70).then(|| 1 + random.below(2) as u32)).collect();
    for number in 0..count {
        let mut node = PlanNode {
            kind: if random.chance(10) { Kind::Join } else { Kind::Regular },
            noop: random.chance(10),
            done: random.chance(8),
            priority: random.below(3) as i32 - 1,
            retries: if random.chance(30) { random.below(3) as u32 } else { 0 },
            unless_exit: random.chance(20).then(|| 1 + random.below(2) as i32),
            pre_skip: random.chance(30).then_some(1),
            category: random.chance(60).then(|| random.below(3) as u32).filter(|c| (*c as usize) < categories.len()),
            save_point: random.chance(10),
            ..PlanNode::default()
        };
        for script in [0, 1, 2] {
            if random.chance(25) {
                node.scripts[script] = Some(None);
            }
        }
        if story == Story::Troubled && random.chance(10) {
            node.abort_on = Some((1, random.chance(50).then(|| random.below(3) as u8)));
        }
        if random.chance(20) {
            node.tolerance = Tolerance { value: random.below(120) as u32, percent: true, fail_fast: random.chance(50) };
        }
        if node.kind == Kind::Join {
            node = PlanNode { kind: Kind::Join, noop: true, ..PlanNode::default() };
        }
        nodes.push(node);
        for parent in 0..number {
            if random.chance(25) {
                edges.insert((parent, number), random.chance(20));
            }
        }
    }
    // A join is entered weakly or not, and left strongly.
    edges.retain(|(parent, _), weak| !*weak || nodes[*parent as usize].kind != Kind::Join);
    for (kind, percent) in [(Kind::Final, 30), (Kind::Service, 20), (Kind::Provisioner, 20)] {
        if random.chance(percent) {
            nodes.push(PlanNode {
                kind,
                scripts: [random.chance(30).then_some(None), random.chance(30).then_some(None), None],
                ..PlanNode::default()
            });
        }
    }
    let (mut starts, mut children) = (Vec::new(), Vec::new());
    for number in 0..nodes.len() as u32 {
        starts.push(children.len() as u32);
        let mine = edges.range((number, 0)..(number + 1, 0));
        children.extend(mine.map(|((_, child), weak)| child | if *weak { WEAK } else { 0 }));
    }
    starts.push(children.len() as u32);
    let mut limit = |percent| random.chance(percent).then(|| 1 + random.below(3) as u32);
    let limits =
        Limits { jobs: limit(50), idle: limit(30).map(|n| 2 * n), pre: limit(50), post: limit(50), hold: limit(50) };
    Plan {
        nodes,
        starts,
        children,
        categories,
        limits,
        always_post: random.chance(30),
        depth_first: random.chance(30),
        retry_first: random.chance(30),
    }
}

/// The jobs of one submission.
#[derive(Clone, Debug)]
struct Cluster {
    node: u32,
    /// 0 idle, 1 running, 2 held, 3 ended well, 4 failed, 5 removed.
    jobs: Vec<u8>,
    /// How each will end.
    codes: Vec<i32>,
    code: i32,
}

impl Cluster {
    fn told(&self) -> Jobs {
        let count = |states: &[u8]| self.jobs.iter().filter(|job| states.contains(job)).count() as u32;
        Jobs {
            total: self.jobs.len() as u32,
            idle: count(&[0, 2]),
            running: count(&[1]),
            held: count(&[2]),
            ended: count(&[3, 4, 5]),
            failed: count(&[4]),
            removed: count(&[5]),
            code: self.code,
        }
    }

    fn is_over(&self) -> bool {
        self.jobs.iter().all(|job| *job >= 3)
    }
}

struct World {
    seed: u64,
    random: Random,
    plan: Plan,
    run: Run,
    /// Records, and how many of them are durable.
    log: Vec<Record>,
    durable: usize,
    /// Records that the present run was begun with.
    base: usize,
    /// A snapshot and how many records it covers.
    snapshot: Option<(Vec<u8>, usize)>,
    actions: VecDeque<(usize, Action)>,
    now: u64,
    /// The pool: survives every crash.
    clusters: Vec<Cluster>,
    tokens: BTreeMap<(u32, u32), u32>,
    scripts: BTreeSet<(u32, Script)>,
    /// Nodes whose last part ended.
    over: BTreeSet<u32>,
    ended: Option<(i32, bool)>,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, story: Story) -> World {
        let mut random = Random(seed);
        let plan = plan(&mut random, story);
        World {
            seed,
            random,
            run: Run::new(plan.clone()),
            plan,
            log: Vec::new(),
            durable: 0,
            base: 0,
            snapshot: None,
            actions: VecDeque::new(),
            now: 0,
            clusters: Vec::new(),
            tokens: BTreeMap::new(),
            scripts: BTreeSet::new(),
            over: BTreeSet::new(),
            ended: None,
            trace: Vec::new(),
        }
    }

    fn fail(&self, why: &str) -> ! {
        let take = option_env!("VO_DAG_TRACE").and_then(|n| n.parse().ok()).unwrap_or(60);
        let tail = self.trace.iter().rev().take(take).rev().cloned().collect::<Vec<_>>().join("\n");
        panic!("seed {}: {why}\n{:#?}\n{tail}", self.seed, self.plan);
    }

    fn check(&self, good: bool, why: &str) {
        if !good {
            self.fail(why);
        }
    }

    fn drain(&mut self) {
        while let Some(record) = self.run.poll_record() {
            self.trace.push(format!("record {record:?}"));
            self.log.push(record);
        }
        while let Some((behind, action)) = self.run.poll_action() {
            self.actions.push_back((self.base + behind as usize, action));
        }
    }

    fn tell(&mut self, event: Event) {
        self.trace.push(format!("event {event:?}"));
        self.run.handle(Time(self.now), event);
        self.drain();
    }

    fn resume(&mut self) {
        self.run.resume(Time(self.now));
        self.drain();
        let open: Vec<(u32, u32)> = self.run.submitted().collect();
        for (node, cluster) in open {
            let jobs = self.clusters[cluster as usize - 1].told();
            self.tell(Event::Jobs { node, jobs });
        }
    }

    /// The master dies: what isn't durable is lost, and scripts die with it.
    fn crash(&mut self) {
        self.trace.push(format!("crash: {} of {} records are durable", self.durable, self.log.len()));
        self.log.truncate(self.durable);
        let (mut run, covered) = match &self.snapshot {
            Some((bytes, covered)) => (Run::restore(self.plan.clone(), minicbor::decode(bytes).unwrap()), *covered),
            None => (Run::new(self.plan.clone()), 0),
        };
        for record in &self.log[covered..] {
            run.apply(record);
        }
        self.run = run;
        self.base = self.log.len();
        self.actions.clear();
        self.scripts.clear();
        self.resume();
    }

    fn parents_are_over(&self, node: u32) {
        for parent in 0..self.plan.nodes.len() as u32 {
            for edge in self.plan.children(parent).iter().filter(|edge| **edge & !WEAK == node) {
                if self.plan.nodes[parent as usize].kind == Kind::Join {
                    // Its parents are asked instead, and weak ways into it make none of them weaker than it is.
                    let strong = self.run.state(parent) == State::Done;
                    self.check(strong, &format!("node {node} began before join {parent} was passed"));
                    continue;
                }
                let state = self.run.state(parent);
                let good = state == State::Done || (edge & WEAK != 0 && state == State::Failed);
                let over = self.over.contains(&parent)
                    || self.plan.nodes[parent as usize].done
                    || self.plan.nodes[parent as usize].noop;
                self.check(
                    good && over,
                    &format!(
                        "node {node} began before its parent {parent} was over: {state:?}, {over}, {:?}",
                        self.run.nodes
                    ),
                );
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.trace.push(format!("action {action:?}"));
        match action {
            Action::RunScript { node, script } => {
                if script == Script::Pre {
                    self.parents_are_over(node);
                }
                let new = self.scripts.insert((node, script));
                self.check(new, "a script runs twice at a time");
                let running = self.scripts.iter().filter(|(_, kind)| *kind == script).count() as u32;
                let limits = self.plan.limits;
                let most = [limits.pre, limits.post, limits.hold][script as usize];
                self.check(most.is_none_or(|most| running <= most), "too many scripts run");
            }
            Action::KillScript { node, script } => {
                if self.scripts.remove(&(node, script)) {
                    self.tell(Event::ScriptEnded { node, script, code: -9 });
                }
            }
            Action::Submit { node, try_number } => {
                let cluster = match self.tokens.get(&(node, try_number)) {
                    Some(cluster) => *cluster,
                    None => self.submit(node, try_number),
                };
                // The master may die right here.
                if self.random.chance(5) {
                    return self.crash();
                }
                let jobs = self.clusters[cluster as usize - 1].jobs.len() as u32;
                if jobs == 0 {
                    self.note_over(node, try_number, SUBMIT_FAILED);
                    self.tell(Event::SubmitFailed { node });
                } else {
                    self.tell(Event::Submitted { node, cluster, jobs });
                    // Some of it may have happened in an earlier life.
                    self.report(cluster);
                }
            }
            Action::Remove { node } => {
                let open: Vec<u32> =
                    self.run.submitted().filter(|(of, _)| *of == node).map(|(_, cluster)| cluster).collect();
                for cluster in open {
                    let it = &mut self.clusters[cluster as usize - 1];
                    for job in it.jobs.iter_mut().filter(|job| **job < 3) {
                        *job = 5;
                        if it.code == 0 {
                            it.code = JOB_REMOVED;
                        }
                    }
                    self.report(cluster);
                }
            }
            Action::WriteSavePoint { node } => {
                self.check(self.plan.nodes[node as usize].save_point, "a save point nobody asked for")
            }
            Action::Finish { code, rescue } => {
                self.check(self.ended.is_none_or(|ended| ended == (code, rescue)), "ended twice, and otherwise");
                self.ended = Some((code, rescue));
            }
        }
    }

    fn submit(&mut self, node: u32, try_number: u32) -> u32 {
        let plan = self.plan.nodes[node as usize].clone();
        self.check(!plan.noop && plan.kind != Kind::Join, "nothing to submit");
        self.parents_are_over(node);
        self.check(try_number <= plan.retries, "too many tries");
        let open = |want: &dyn Fn(&PlanNode) -> bool| {
            let clusters = self.clusters.iter().filter(|c| !c.is_over());
            clusters.filter(|c| want(&self.plan.nodes[c.node as usize])).count() as u32
        };
        let counted = |plan: &PlanNode| matches!(plan.kind, Kind::Regular | Kind::Final);
        if counted(&plan) {
            self.check(self.plan.limits.jobs.is_none_or(|most| open(&counted) < most), "too many nodes are submitted");
        }
        if let Some(limit) = plan.category.and_then(|c| self.plan.categories[c as usize]) {
            self.check(
                open(&|other| other.category == plan.category) < limit,
                "too many nodes of a category are submitted",
            );
        }
        let codes = (0..fate(self.seed, node, try_number, 7).min(3) + 1)
            .map(|job| fate(self.seed, node, try_number, 10 + job as u64));
        let codes: Vec<i32> = if fate(self.seed, node, try_number, 8) == 4 { Vec::new() } else { codes.collect() };
        self.clusters.push(Cluster { node, jobs: codes.iter().map(|_| 0).collect(), codes, code: 0 });
        let cluster = self.clusters.len() as u32;
        self.tokens.insert((node, try_number), cluster);
        cluster
    }

    /// Tells what a cluster's jobs do.
    fn report(&mut self, cluster: u32) {
        let it = self.clusters[cluster as usize - 1].clone();
        if it.is_over() && !it.jobs.is_empty() {
            let try_number = self.tokens.iter().find(|(_, c)| **c == cluster).map(|((_, t), _)| *t).unwrap();
            self.note_over(it.node, try_number, it.code);
        }
        self.tell(Event::Jobs { node: it.node, jobs: it.told() });
    }

    /// Jobs ended: with no POST script the node's try is over, too.
    fn note_over(&mut self, node: u32, _try_number: u32, _code: i32) {
        if self.plan.nodes[node as usize].scripts[Script::Post as usize].is_none() {
            self.over.insert(node);
        }
    }

    fn step(&mut self) {
        self.now += 1;
        match self.random.below(10) {
            0..3 => {
                self.durable = self.log.len().min(self.durable + 1 + self.random.below(4) as usize);
                while self.actions.front().is_some_and(|(behind, _)| *behind <= self.durable) {
                    if let Some((_, action)) = self.actions.pop_front() {
                        self.act(action);
                    }
                }
            }
            3..6 => {
                let scripts: Vec<_> = self.scripts.iter().copied().collect();
                if !scripts.is_empty() {
                    let (node, script) = scripts[self.random.below(scripts.len() as u64) as usize];
                    self.scripts.remove(&(node, script));
                    let code = fate(self.seed, node, self.run.retries(node), script as u64);
                    let skips = self.plan.nodes[node as usize].pre_skip == Some(code);
                    let posts = self.plan.nodes[node as usize].scripts[Script::Post as usize].is_some()
                        && self.plan.always_post;
                    if script == Script::Post || (script == Script::Pre && code != 0 && (skips || !posts)) {
                        self.over.insert(node);
                    }
                    self.tell(Event::ScriptEnded { node, script, code });
                }
            }
            _ => {
                let open: Vec<u32> =
                    (1..=self.clusters.len() as u32).filter(|c| !self.clusters[*c as usize - 1].is_over()).collect();
                if !open.is_empty() {
                    let cluster = open[self.random.below(open.len() as u64) as usize];
                    let (job, hold) = (self.random.next() as usize, self.random.chance(20));
                    let it = &mut self.clusters[cluster as usize - 1];
                    let job = job % it.jobs.len();
                    it.jobs[job] = match it.jobs[job] {
                        0 if hold => 2,
                        0 | 2 => 1,
                        1 if it.codes[job] == 0 => 3,
                        1 => 4,
                        other => other,
                    };
                    if it.jobs[job] == 4 && it.code == 0 {
                        it.code = it.codes[job];
                    }
                    // Jobs whose submission was not told yet are told of with it.
                    self.report(cluster);
                }
            }
        }
        if self.run.deadline().is_some_and(|at| at.0 <= self.now) {
            self.tell(Event::TimePassed);
        }
    }

    /// To the end; crashes only in the first part, or it might never come.
    fn live(&mut self, story: Story) {
        self.resume();
        for step in 0..20_000 {
            if step < 400 && self.random.chance(3) {
                self.crash();
            }
            if self.random.chance(2) && self.durable == self.log.len() {
                let mut bytes = Vec::new();
                minicbor::encode(self.run.snapshot(), &mut bytes).unwrap();
                self.snapshot = Some((bytes, self.log.len()));
            }
            if story == Story::Troubled && step < 300 {
                match self.random.below(400) {
                    0 => self.tell(Event::RemovalAsked),
                    1..4 => self.tell(Event::HaltAsked(true)),
                    4..8 => self.tell(Event::HaltAsked(false)),
                    8..12 => self.tell(Event::PauseAsked(true)),
                    12..20 => self.tell(Event::PauseAsked(false)),
                    _ => {}
                }
            } else if story == Story::Troubled && step == 400 {
                self.tell(Event::PauseAsked(false));
                self.tell(Event::HaltAsked(false));
            }
            self.step();
            if self.ended.is_some() && self.durable == self.log.len() && self.actions.is_empty() {
                return;
            }
        }
        self.fail("it never ends");
    }
}

/// What must come of each node when nobody interferes, worked out from the plan alone.
fn oracle(seed: u64, plan: &Plan) -> (Vec<State>, BTreeMap<u32, u32>) {
    let mut states = Vec::new();
    let mut submissions = BTreeMap::new();
    let mut alone = |number: u32| -> State {
        let node = &plan.nodes[number as usize];
        let has = |script: Script| node.scripts[script as usize].is_some();
        for try_number in 0..=node.retries {
            let part = |part| fate(seed, number, try_number, part);
            let pre = if has(Script::Pre) { part(Script::Pre as u64) } else { 0 };
            let code = if pre != 0 {
                if node.pre_skip == Some(pre) {
                    return State::Done;
                }
                if plan.always_post && has(Script::Post) { part(Script::Post as u64) } else { pre }
            } else {
                let jobs = if node.noop {
                    0
                } else {
                    *submissions.entry(number).or_insert(0) += 1;
                    let count = part(7).min(3) + 1;
                    let bad = (0..count).filter(|job| part(10 + *job as u64) != 0).count() as u32;
                    let t = node.tolerance;
                    let allowed = if t.percent { count as u32 * t.value / 100 } else { t.value };
                    // Which of several fails first is chance; so is how many run, where one failure removes the others.
                    if part(8) == 4 {
                        SUBMIT_FAILED
                    } else if bad > allowed {
                        99
                    } else {
                        0
                    }
                };
                if has(Script::Post) { part(Script::Post as u64) } else { jobs }
            };
            if code == 0 {
                return State::Done;
            }
            if code != 99 && node.unless_exit == Some(code) {
                return State::Failed;
            }
        }
        State::Failed
    };
    let provisioned = (0..).zip(&plan.nodes).find(|(_, node)| node.kind == Kind::Provisioner).map(|(number, _)| number);
    // A provisioner serves from when it runs, or when a script says that all is well without.
    let provided = provisioned.is_none_or(|number| {
        let pre = plan.nodes[number as usize].scripts[0].is_none() || fate(seed, number, 0, 0) == 0;
        (pre && fate(seed, number, 0, 8) != 4) || alone(number) == State::Done
    });
    for (number, node) in (0..).zip(&plan.nodes) {
        let mut state = State::Done;
        for parent in 0..number {
            for edge in plan.children(parent).iter().filter(|edge| **edge & !WEAK == number) {
                match states[parent as usize] {
                    State::Done => {}
                    State::Failed if edge & WEAK != 0 => {}
                    _ => state = State::Futile,
                }
            }
        }
        if node.done {
            state = State::Done;
        } else if !provided && matches!(node.kind, Kind::Regular | Kind::Join) {
            state = State::NotReady;
        } else if state == State::Done && node.kind != Kind::Join {
            state = alone(number);
        }
        states.push(state);
    }
    (states, submissions)
}

#[test]
fn undisturbed_runs_end_as_they_must() {
    let seeds = option_env!("VO_DAG_SEEDS").and_then(|n| n.parse().ok()).unwrap_or(3000);
    for seed in 0..seeds {
        let mut world = World::new(seed, Story::Plain);
        world.live(Story::Plain);
        let (states, submissions) = oracle(seed, &world.plan);
        let regular = |number: &usize| matches!(world.plan.nodes[*number].kind, Kind::Regular | Kind::Final);
        // Where a code is chance (several jobs fail, each its own way), UNLESS-EXIT is, too.
        let chancy = world.plan.nodes.iter().any(|node| node.unless_exit.is_some());
        for number in (0..states.len()).filter(regular) {
            let (is, must) = (world.run.state(number as u32), states[number]);
            if !chancy {
                world.check(is == must, &format!("node {number} is {is:?}, not {must:?}"));
                let tries = world.tokens.keys().filter(|(node, _)| *node == number as u32).count() as u32;
                let must = submissions.get(&(number as u32)).copied().unwrap_or(0);
                world.check(tries == must, &format!("node {number} was submitted {tries} times, not {must}"));
            }
        }
        let last = (0..states.len()).find(|number| world.plan.nodes[*number].kind == Kind::Final);
        let all =
            (0..states.len()).filter(regular).all(|n| world.run.state(n as u32) == State::Done || Some(n) == last);
        let code = match last {
            Some(last) => i32::from(world.run.state(last as u32) != State::Done),
            None => i32::from(!all),
        };
        world.check(world.ended == Some((code, !all)), &format!("ended as {:?}, not {code}, {}", world.ended, !all));
    }
}

#[test]
fn troubled_runs_end() {
    let seeds = option_env!("VO_DAG_SEEDS").and_then(|n| n.parse().ok()).unwrap_or(3000);
    for seed in 0..seeds {
        let mut world = World::new(seed, Story::Troubled);
        world.live(Story::Troubled);
        let last = (0..).zip(&world.plan.nodes).find(|(_, node)| node.kind == Kind::Final).map(|(number, _)| number);
        if let Some(last) = last {
            let state = world.run.state(last);
            world.check(matches!(state, State::Done | State::Failed), "the last node did not run");
        }
        let open = world
            .clusters
            .iter()
            .filter(|c| !c.is_over() && world.plan.nodes[c.node as usize].kind == Kind::Regular)
            .count();
        world.check(open == 0, "jobs are left behind");
        let counts = world.run.counts();
        let written = world.plan.nodes.iter().filter(|node| node.kind != Kind::Join).count() as u32;
        world.check(counts.total() == written, "nodes are counted wrong");
    }
}

fn lone(nodes: Vec<PlanNode>, edges: &[(u32, u32)]) -> Run {
    let (mut starts, mut children) = (Vec::new(), Vec::new());
    for number in 0..nodes.len() as u32 {
        starts.push(children.len() as u32);
        children.extend(edges.iter().filter(|(parent, _)| *parent == number).map(|(_, child)| *child));
    }
    starts.push(children.len() as u32);
    let mut run = Run::new(Plan { nodes, starts, children, ..Plan::default() });
    run.resume(Time(0));
    run
}

fn actions(run: &mut Run) -> Vec<Action> {
    core::iter::from_fn(|| run.poll_action()).map(|(_, action)| action).collect()
}

#[test]
fn a_script_that_defers_is_run_again_later() {
    let pre = Some(Some((4, Duration::from_secs(60))));
    let mut run = lone(vec![PlanNode { scripts: [pre, None, None], ..PlanNode::default() }], &[]);
    assert_eq!(actions(&mut run), [Action::RunScript { node: 0, script: Script::Pre }]);
    run.handle(Time(1000), Event::ScriptEnded { node: 0, script: Script::Pre, code: 4 });
    assert_eq!((actions(&mut run), run.deadline()), (Vec::new(), Some(Time(61_000))));
    run.handle(Time(60_999), Event::TimePassed);
    assert_eq!(actions(&mut run), []);
    run.handle(Time(61_000), Event::TimePassed);
    assert_eq!(actions(&mut run), [Action::RunScript { node: 0, script: Script::Pre }]);
    run.handle(Time(61_001), Event::ScriptEnded { node: 0, script: Script::Pre, code: 0 });
    assert_eq!((actions(&mut run), run.deadline()), (vec![Action::Submit { node: 0, try_number: 0 }], None));
}

#[test]
fn an_abort_removes_the_rest_and_gives_its_code() {
    let aborts = PlanNode { abort_on: Some((3, Some(7))), retries: 2, ..PlanNode::default() };
    let mut run = lone(vec![aborts, PlanNode::default(), PlanNode::default()], &[(1, 2)]);
    let submit = |node| Action::Submit { node, try_number: 0 };
    assert_eq!(actions(&mut run), [submit(0), submit(1)]);
    for node in [0, 1] {
        run.handle(Time(1), Event::Submitted { node, cluster: node + 1, jobs: 1 });
    }
    let failed = Jobs { total: 1, ended: 1, failed: 1, code: 3, ..Jobs::default() };
    run.handle(Time(2), Event::Jobs { node: 0, jobs: failed });
    assert_eq!(actions(&mut run), [Action::Remove { node: 1 }]);
    run.handle(
        Time(3),
        Event::Jobs { node: 1, jobs: Jobs { total: 1, ended: 1, removed: 1, code: JOB_REMOVED, ..Jobs::default() } },
    );
    assert_eq!(actions(&mut run), [Action::Finish { code: 7, rescue: true }]);
    assert_eq!((run.state(0), run.state(1), run.state(2)), (State::Failed, State::Failed, State::Futile));
}

#[test]
fn a_halted_run_ends_when_nothing_is_under_way() {
    let mut run = lone(vec![PlanNode::default(), PlanNode::default()], &[(0, 1)]);
    run.handle(Time(1), Event::Submitted { node: 0, cluster: 1, jobs: 1 });
    run.handle(Time(1), Event::HaltAsked(true));
    actions(&mut run);
    run.handle(Time(2), Event::Jobs { node: 0, jobs: Jobs { total: 1, ended: 1, ..Jobs::default() } });
    assert_eq!(actions(&mut run), [Action::Finish { code: 1, rescue: true }]);
    assert_eq!((run.state(0), run.state(1)), (State::Done, State::NotReady));
}

#[test]
fn failures_within_the_tolerance_are_none() {
    let node = |value, percent, fail_fast| PlanNode {
        tolerance: Tolerance { value, percent, fail_fast },
        ..PlanNode::default()
    };
    let told = |failed, ended| Jobs { total: 10, running: 10 - ended, ended, failed, code: 5, ..Jobs::default() };
    let check = |node: PlanNode, jobs: Jobs, expected: &[Action], state| {
        let mut run = lone(vec![node], &[]);
        run.handle(Time(1), Event::Submitted { node: 0, cluster: 1, jobs: 10 });
        actions(&mut run);
        run.handle(Time(1), Event::Jobs { node: 0, jobs });
        assert_eq!(actions(&mut run), expected);
        assert_eq!(run.state(0), state);
    };
    let good = [Action::Finish { code: 0, rescue: false }];
    let bad = [Action::Finish { code: 1, rescue: true }];
    check(node(2, false, true), told(2, 10), &good, State::Done);
    check(node(2, false, true), told(3, 10), &bad, State::Failed);
    check(node(20, true, true), told(2, 10), &good, State::Done);
    check(node(19, true, true), told(2, 10), &bad, State::Failed);
    check(node(0, false, true), told(1, 3), &[Action::Remove { node: 0 }], State::Submitted);
    check(node(0, false, false), told(1, 3), &[], State::Submitted);
}
