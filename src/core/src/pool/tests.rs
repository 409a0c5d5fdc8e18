//! Tables of cases, and a random world around a pool with a checker of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::job::{Kept, Output, OutputKind};

const KEY: StarterKey = StarterKey(7);

fn program(cpus: u32) -> Program {
    Program { cpus, ..Program::default() }
}

fn group(count: u32, program: Program) -> GroupRecord {
    GroupRecord { count, program, ..GroupRecord::default() }
}

fn offer(cpus: u32) -> Offer {
    Offer {
        site: SiteId(3),
        proxy: ProxyId(1),
        host: "node1".into(),
        cpus,
        memory_mb: 0,
        gpus: 0,
        shared: Shared::Everything,
        drain: Duration::from_secs(60),
        arch: "x86_64".into(),
        system: "Linux".into(),
        attributes: Vec::new(),
        resources: Vec::new(),
    }
}

fn attempt(proc: u32, attempt: u32) -> AttemptId {
    AttemptId { job: JobId { cluster: 1, proc }, attempt }
}

fn result(id: AttemptId, outcome: Outcome) -> AttemptResult {
    let usage = Usage { wall_ms: 1000, ..Usage::default() };
    AttemptResult { id, outcome, usage, outputs: Vec::new(), kept: None }
}

fn with_output(mut result: AttemptResult) -> AttemptResult {
    result.outputs.push(Output { kind: OutputKind::Stdout, size: 1, hash: [0; 32], mode: 0o600, inline: None });
    result
}

/// A pool whose records are always durable.
#[derive(Clone, Default)]
struct Bench {
    pool: Pool,
    log: Vec<Record>,
    now: Time,
}

impl Bench {
    fn new() -> Self {
        Self::default()
    }

    fn with_jobs(groups: Vec<GroupRecord>) -> Self {
        let mut bench = Self::new();
        bench.pool.submit(bench.now, "test".into(), groups);
        bench
    }

    fn drain(&mut self) -> Vec<Action> {
        self.log.extend(self.pool.take_records());
        self.pool.recount();
        core::iter::from_fn(|| self.pool.poll_action(u64::MAX)).collect()
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.pool.handle(self.now, event);
        self.drain()
    }

    fn join_as(&mut self, key: StarterKey, offer: Offer) -> Vec<Action> {
        let time_left = None;
        self.tell(Event::StarterJoined { key, offer, time_left });
        self.inventory(key, &[], &[], &[])
    }

    fn join(&mut self, cpus: u32) -> Vec<Action> {
        self.join_as(KEY, offer(cpus))
    }

    fn inventory(
        &mut self,
        key: StarterKey,
        queued: &[AttemptId],
        running: &[AttemptId],
        finished: &[AttemptId],
    ) -> Vec<Action> {
        self.tell(Event::InventoryTold {
            key,
            number: 1,
            queued: queued.to_vec(),
            running: running.to_vec(),
            finished: finished.to_vec(),
        })
    }

    fn end(&mut self, key: StarterKey, id: AttemptId, outcome: Outcome) -> Vec<Action> {
        let result = result(id, outcome);
        self.tell(Event::AttemptEnded { key, result })
    }

    fn state(&self, proc: u32) -> JobState {
        self.pool.view(attempt(proc, 1).job).unwrap().state
    }

    fn refold(&mut self) {
        self.log.extend(self.pool.take_records());
        let empty = || Pool { judge: self.pool.judge.clone(), ..Pool::new() };
        let mut pool = empty();
        self.log.iter().for_each(|record| pool.apply(record));
        pool.recount();
        assert_eq!(durable(&pool), durable(&self.pool));
        let restored = empty().restore(pool.snapshot());
        restored.recount();
        assert_eq!(durable(&restored), durable(&pool));
        self.pool = pool;
    }
}

/// What goes to whom, in one line.
fn told(actions: &[Action]) -> String {
    let list = |ids: Vec<String>| ids.join(" ");
    let show = |action: &Action| match action {
        Action::Assign { key, attempts, shared, .. } => {
            let ids = attempts.iter().map(|each| each.id.to_string()).collect();
            let apart = if *shared == Shared::Nothing { " with files" } else { "" };
            Some(format!("{}: run {}{apart}", key.0, list(ids)))
        }
        Action::Recall { key, count, .. } => Some(format!("{}: give back {count}", key.0)),
        Action::Kill { key, ids, .. } => {
            let ids = ids.iter().map(ToString::to_string).collect();
            Some(format!("{}: kill {}", key.0, list(ids)))
        }
        Action::Acknowledge { key, ids } => {
            let ids = ids.iter().map(ToString::to_string).collect();
            Some(format!("{}: forget {}", key.0, list(ids)))
        }
        Action::Collect { key, result, .. } => Some(format!("{}: bring {}", key.0, result.id)),
        Action::Drain { key, .. } => Some(format!("{}: drain", key.0)),
        Action::KeepPartial { result, .. } => Some(format!("keep {}", result.id)),
        Action::Note { .. } => None,
    };
    actions.iter().filter_map(show).collect::<Vec<_>>().join("; ")
}

impl Pool {
    /// Everything that is kept twice agrees.
    pub(super) fn recount(&self) {
        for (number, cluster) in &self.clusters {
            let later = (0..cluster.jobs.len() as u32).filter(|proc| cluster.later.has(*proc));
            let mut counts = Counts { later: later.count() as u32, ..Counts::default() };
            cluster.jobs.iter().for_each(|job| counts.add(job));
            assert_eq!(counts, cluster.counts, "counts of cluster {number}");
            let mut queued = BTreeSet::new();
            for (index, group) in cluster.groups.iter().enumerate() {
                let fresh = group.members.iter().skip(group.fresh as usize);
                let fresh = fresh.filter(|proc| cluster.jobs[*proc as usize].state == JobState::Idle);
                let fresh = fresh.filter(|proc| !cluster.moved.contains_key(proc) && !cluster.later.has(*proc));
                let here: BTreeSet<u32> = group.again.iter().copied().chain(fresh).collect();
                let place = group.place(*number, index);
                assert!(here.is_empty() || self.queue.all().any(|p| p == place), "group {index} of {number} is open");
                queued.extend(here);
            }
            for (proc, job) in (0..).zip(&cluster.jobs) {
                let id = JobId { cluster: *number, proc };
                let idle = job.state == JobState::Idle;
                assert!(idle || !cluster.later.has(proc), "{id} waits for its time if idle");
                let waits = idle && !self.dying.contains_key(&id) && !cluster.later.has(proc);
                assert_eq!(waits, queued.contains(&proc), "{id} is queued if idle");
                let live = self.live.get(&id);
                let out = matches!(job.state, JobState::Matched | JobState::Running | JobState::Transferring);
                assert_eq!(out, live.is_some(), "{id} is out if {:?}", job.state);
                if let Some((number, key)) = live {
                    let held = AttemptId { job: id, attempt: *number };
                    assert!(self.starters[key].held.contains_key(&held), "{key} holds {held}");
                }
            }
        }
        let out: BTreeSet<JobId> = self.live.keys().chain(self.dying.keys()).copied().collect();
        self.limits.recount(out.iter().filter_map(|id| self.group(*id)).map(|group| group.terms.limits.as_slice()));
        self.queue.recount(self.live.keys().filter_map(|id| self.group(*id)).map(|g| (g.account, g.body.cpus)));
        for (key, starter) in &self.starters {
            let unfinished = starter.held.values().filter(|held| held.phase != Phase::Finished);
            assert_eq!(starter.load, unfinished.map(|held| held.load).sum::<u32>(), "load of {key}");
            let queued = starter.held.values().filter(|held| held.phase == Phase::Queued);
            assert_eq!(starter.queued as usize, queued.count(), "backlog of {key}");
        }
    }
}

/// What a crash must not change.
fn durable(pool: &Pool) -> impl PartialEq + core::fmt::Debug + use<> {
    let job = |job: &Job| {
        let mut job = *job;
        match job.state {
            JobState::Completed => {}
            JobState::Running | JobState::Transferring => job.state = JobState::Matched,
            _ => {}
        }
        if job.state == JobState::Matched {
            // Its starter tells it again.
            (job.cpu_ms, job.system_ms, job.peak_kib, job.disk_kib) = (0, 0, 0, 0);
        }
        if job.state != JobState::Completed {
            job.site = 0;
        }
        if matches!(job.state, JobState::Idle | JobState::Matched) && !job.started {
            job.at = Time::default();
        }
        job
    };
    let cluster = |(number, c): (&u32, &Cluster)| {
        let groups = c.groups.iter().map(|g| (g.members.clone(), g.program, g.body.clone(), g.terms.clone()));
        let groups = (groups.collect::<Vec<_>>(), c.statements, c.moved.clone());
        let jobs: Vec<Job> = c.jobs.iter().map(job).collect();
        (*number, c.name.clone(), c.submitted, groups, jobs, (c.reasons.clone(), c.pasts.clone()))
    };
    (
        pool.clusters.iter().map(cluster).collect::<Vec<_>>(),
        pool.live.clone(),
        pool.starters.iter().map(|(key, s)| (*key, s.completed)).collect::<Vec<_>>(),
        (pool.last_cluster, pool.last_program),
        pool.done_by_site.clone(),
    )
}

#[test]
fn a_job_goes_out_and_counts_once() {
    let mut bench = Bench::with_jobs(vec![group(2, program(1))]);
    assert_eq!(told(&bench.join(1)), "7: run 1.0#1; 7: run 1.1#1");
    let id = attempt(0, 1);
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![id] });
    assert_eq!(bench.state(0), JobState::Running);
    assert_eq!(told(&bench.end(KEY, id, Outcome::Exited(0))), "7: forget 1.0#1");
    assert_eq!(bench.state(0), JobState::Completed);
    assert_eq!(told(&bench.end(KEY, id, Outcome::Exited(9))), "7: forget 1.0#1");
    assert_eq!(bench.pool.view(id.job).unwrap().end, Some(End::Exited(0)));
    assert_eq!(bench.pool.completed_at(SiteId(3)), 1);
    bench.refold();
    assert_eq!(bench.pool.completed_at(SiteId(3)), 1);
    assert_eq!(bench.pool.starters().next().unwrap().completed, 1);
}

#[test]
fn a_result_waits_for_its_outputs() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    let result = with_output(result(attempt(0, 1), Outcome::Exited(0)));
    let again = Event::AttemptEnded { key: KEY, result: result.clone() };
    assert_eq!(told(&bench.tell(again.clone())), "7: bring 1.0#1");
    assert_eq!(told(&bench.tell(again.clone())), "", "they are on their way");
    // The starter was away: what was on its way may be lost.
    bench.tell(Event::StarterSilent { key: KEY, why: "cut".into() });
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
    assert_eq!(told(&bench.inventory(KEY, &[], &[], &[result.id])), "");
    assert_eq!(told(&bench.tell(again)), "7: bring 1.0#1");
    let stored = Event::OutputsStored { key: KEY, result };
    assert_eq!(told(&bench.tell(stored)), "7: forget 1.0#1");
    assert_eq!(bench.state(0), JobState::Completed);
}

#[test]
fn a_site_that_was_not_given_a_job_has_no_result_of_it() {
    let liar = StarterKey(9);
    let elsewhere = || Offer { site: SiteId(4), proxy: ProxyId(5), ..offer(0) };
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    bench.join_as(liar, elsewhere());
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    let lie = |attempt| Event::AttemptEnded { key: liar, result: with_output(result(attempt, Outcome::Exited(0))) };
    // Neither of the attempt that runs, nor of an old one, nor of one to come; not after a crash either.
    assert_eq!(told(&bench.tell(lie(attempt(0, 1)))), "9: forget 1.0#1");
    bench.tell(Event::StarterGone { key: KEY, why: "its node is down".into() });
    bench.join_as(StarterKey(8), offer(1));
    for _ in 0..2 {
        for number in 1..=3 {
            assert_eq!(told(&bench.tell(lie(attempt(0, number)))), format!("9: forget 1.0#{number}"));
        }
        assert_eq!(bench.state(0), JobState::Matched);
        bench.refold();
        bench.join_as(liar, elsewhere());
        bench.join_as(StarterKey(8), offer(1));
    }
}

#[test]
fn a_late_result_of_an_old_attempt_wins() {
    let other = StarterKey(8);
    let check = |redispatched: bool, outputs: bool| {
        let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
        bench.join(1);
        if redispatched {
            bench.join_as(other, offer(1));
        }
        bench.tell(Event::StarterSilent { key: KEY, why: "cut".into() });
        bench.tell(Event::StarterGone { key: KEY, why: "its node is down".into() });
        // It was not down.
        bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
        let id = attempt(0, 1);
        let mut late = result(id, Outcome::Exited(0));
        if outputs {
            late = with_output(late);
        }
        let actions = bench.tell(Event::AttemptEnded { key: KEY, result: late.clone() });
        let kill = if redispatched { "8: kill 1.0#2" } else { "" };
        assert!(told(&actions).contains(kill) && !told(&actions).contains("run"), "{}", told(&actions));
        // Nothing sends it out again while its outputs come, nor after a crash.
        assert_eq!(told(&bench.inventory(KEY, &[], &[], &[id])), "");
        bench.refold();
        if outputs {
            bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
            assert_eq!(told(&bench.inventory(KEY, &[], &[], &[id])), "");
            // The outputs are lost with the starter: it must not be stuck.
            bench.tell(Event::StarterGone { key: KEY, why: "now it is".into() });
            assert_eq!(bench.state(0), JobState::Idle);
        } else {
            assert_eq!(bench.state(0), JobState::Completed);
        }
    };
    for (redispatched, outputs) in [(false, false), (false, true), (true, false), (true, true)] {
        check(redispatched, outputs);
    }
}

#[test]
fn no_third_attempt_begins_while_one_that_a_late_result_superseded_may_run() {
    let (other, third) = (StarterKey(8), StarterKey(9));
    for crash in [false, true] {
        let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
        bench.join(1);
        bench.join_as(other, offer(1));
        bench.tell(Event::StarterGone { key: KEY, why: "its node is down".into() });
        bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
        let late = with_output(result(attempt(0, 1), Outcome::Exited(0)));
        bench.tell(Event::AttemptEnded { key: KEY, result: late });
        bench.tell(Event::StarterGone { key: KEY, why: "now it is".into() });
        if crash {
            bench.refold();
        }
        assert_eq!(told(&bench.join_as(third, offer(1))), "", "1.0#2 may still run");
        bench.tell(Event::StarterJoined { key: other, offer: offer(1), time_left: None });
        let actions = bench.end(other, attempt(0, 2), Outcome::Killed);
        assert!(told(&actions).contains("8: forget 1.0#2"), "{}", told(&actions));
        let actions = [actions, bench.inventory(other, &[], &[], &[])].concat();
        assert!(told(&actions).contains("run 1.0#3"), "{}", told(&actions));
    }
}

#[test]
fn the_next_attempt_waits_for_what_the_last_one_left() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    let kept = Some(Kept { number: 1, outputs: Vec::new() });
    let left = |id, outcome| AttemptResult { kept: kept.clone(), ..result(id, outcome) };
    let evicted = left(attempt(0, 1), Outcome::Evicted("preempted".into()));
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: KEY, result: evicted.clone() })), "keep 1.0#1");
    // It is being fetched: told again meanwhile, once is enough; after the way to the node was cut, it is asked for anew.
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: KEY, result: evicted.clone() })), "");
    bench.tell(Event::StarterSilent { key: KEY, why: "cut".into() });
    bench.tell(Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
    bench.inventory(KEY, &[], &[], &[attempt(0, 1)]);
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: KEY, result: evicted.clone() })), "keep 1.0#1");
    assert!(bench.pool.may_leave(attempt(0, 1), KEY) && !bench.pool.may_leave(attempt(0, 2), KEY));
    let actions = told(&bench.tell(Event::PartialKept { key: KEY, result: evicted }));
    assert_eq!(actions, "7: forget 1.0#1; 7: run 1.0#2");
    // Held and released, it waits as well; removed, it has no next one.
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 2)] });
    bench.tell(Event::HoldAsked { select: Select::default(), why: "as asked".into() });
    let killed = left(attempt(0, 2), Outcome::Killed);
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: KEY, result: killed.clone() })), "keep 1.0#2");
    assert_eq!(told(&bench.tell(Event::ReleaseAsked { select: Select::default() })), "");
    let actions = told(&bench.tell(Event::PartialKept { key: KEY, result: killed }));
    assert_eq!(actions, "7: forget 1.0#2; 7: run 1.0#3");
    bench.tell(Event::RemovalAsked { select: Select::default() });
    assert!(!bench.pool.may_leave(attempt(0, 3), KEY) && bench.pool.is_over(attempt(0, 3).job));
}

#[test]
fn what_a_killed_attempt_wrote_is_kept_before_it_is_forgotten() {
    let other = StarterKey(8);
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    let id = attempt(0, 1);
    let evicted = |id| with_output(result(id, Outcome::Evicted("preempted".into())));
    let actions = bench.tell(Event::AttemptEnded { key: KEY, result: evicted(id) });
    assert_eq!(told(&actions), "keep 1.0#1; 7: run 1.0#2");
    // It repeats itself meanwhile, which does no harm.
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: KEY, result: evicted(id) })), "keep 1.0#1");
    assert_eq!(
        told(&bench.tell(Event::PartialKept { key: KEY, result: result(id, Outcome::Killed) })),
        "7: forget 1.0#1"
    );
    // One that was given up, or removed, has something to show too; one that never was has not.
    bench.tell(Event::StarterGone { key: KEY, why: "down".into() });
    bench.tell(Event::RemovalAsked { select: Select::default() });
    bench.join_as(other, offer(1));
    let killed = with_output(result(attempt(0, 2), Outcome::Killed));
    assert_eq!(told(&bench.tell(Event::AttemptEnded { key: other, result: killed })), "keep 1.0#2");
    assert_eq!(
        told(&bench.tell(Event::AttemptEnded { key: other, result: evicted(attempt(0, 3)) })),
        "8: forget 1.0#3"
    );
}

#[test]
fn outputs_that_were_stored_count_after_their_starter_is_gone() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    let result = with_output(result(attempt(0, 1), Outcome::Exited(0)));
    bench.tell(Event::AttemptEnded { key: KEY, result: result.clone() });
    bench.tell(Event::StarterGone { key: KEY, why: "down".into() });
    assert_eq!(bench.state(0), JobState::Idle);
    bench.tell(Event::OutputsStored { key: KEY, result });
    assert_eq!(bench.state(0), JobState::Completed);
    assert_eq!(bench.pool.view(attempt(0, 1).job).unwrap().site, Some(SiteId(3)));
    bench.refold();
}

#[test]
fn an_assignment_that_waited_does_not_outlive_its_link() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    let join = Event::StarterJoined { key: KEY, offer: offer(1), time_left: None };
    let empty = Event::InventoryTold { key: KEY, number: 1, queued: vec![], running: vec![], finished: vec![] };
    bench.pool.handle(Time(1), join.clone());
    bench.pool.handle(Time(1), empty.clone());
    bench.log.extend(bench.pool.take_records());
    assert!(bench.pool.poll_action(0).is_none(), "not durable");
    // Before the record is durable, the starter goes and comes back.
    bench.pool.handle(Time(2), Event::StarterSilent { key: KEY, why: "cut".into() });
    bench.pool.handle(Time(3), join);
    bench.pool.handle(Time(3), empty);
    assert_eq!(told(&bench.drain()), "7: run 1.0#2");
}

#[test]
fn an_assignment_names_the_inventory_that_it_was_made_on() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.pool.handle(Time(1), Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
    let empty = |number| Event::InventoryTold { key: KEY, number, queued: vec![], running: vec![], finished: vec![] };
    bench.pool.handle(Time(1), empty(5));
    bench.log.extend(bench.pool.take_records());
    // A second inventory on the same link, without what still waits for its record.
    bench.pool.handle(Time(2), empty(6));
    let named = |action: &Action| match action {
        Action::Assign { inventory, attempts, .. } => Some((*inventory, attempts.iter().map(|each| each.id).collect())),
        _ => None,
    };
    let named: Vec<(u64, Vec<AttemptId>)> = bench.drain().iter().filter_map(named).collect();
    assert_eq!(named, [(5, vec![attempt(0, 1)]), (6, vec![attempt(0, 2)])]);
}

#[test]
fn actions_wait_for_their_records() {
    let mut bench =
        Bench::with_jobs(vec![GroupRecord { log: Some(Template::constant("log")), ..group(3, program(1)) }]);
    bench.join(1);
    bench.pool.handle(
        Time(5),
        Event::AttemptEnded { key: KEY, result: result(attempt(0, 1), Outcome::Unrunnable("no".into())) },
    );
    let before = bench.pool.sequence();
    bench.pool.take_records();
    let early: Vec<Action> = core::iter::from_fn(|| bench.pool.poll_action(before - 1)).collect();
    assert!(early.is_empty(), "left before the hold was durable: {early:?}");
}

#[test]
fn strays_are_killed() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    let (id, other) = (attempt(0, 1), attempt(0, 9));
    assert_eq!(told(&bench.inventory(KEY, &[other], &[id], &[])), "7: kill 1.0#9");
    bench.tell(Event::RemovalAsked { select: Select::default() });
    let ids = vec![id];
    assert_eq!(told(&bench.tell(Event::AttemptsStarted { key: KEY, ids })), "7: kill 1.0#1");
    assert_eq!(told(&bench.end(KEY, id, Outcome::Killed)), "7: forget 1.0#1");
    assert_eq!(bench.state(0), JobState::Removed);
}

#[test]
fn nothing_that_a_starter_says_panics_or_counts_what_never_ran() {
    let mut bench = Bench::with_jobs(vec![group(2, program(1))]);
    bench.join_as(KEY, Offer { memory_mb: 1, ..offer(u32::MAX) });
    let mut huge = result(attempt(0, 1), Outcome::Exited(0));
    huge.usage.wall_ms = u64::MAX;
    bench.tell(Event::AttemptEnded { key: KEY, result: huge.clone() });
    huge.id = attempt(1, 1);
    bench.tell(Event::AttemptEnded { key: KEY, result: huge });
    bench.pool.submit(
        Time(u64::MAX),
        "more".into(),
        vec![group(1, Program { memory_mb: Some(u64::MAX), ..program(u32::MAX) })],
    );
    bench.drain();
    for id in [(9, 9, 1), (1, 9, 1), (2, 0, 0), (2, 0, 5), (0, 0, 0), (u32::MAX, u32::MAX, u32::MAX)] {
        let id = AttemptId { job: JobId { cluster: id.0, proc: id.1 }, attempt: id.2 };
        bench.inventory(KEY, &[id], &[id], &[id]);
        bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![id] });
        bench.tell(Event::AttemptsReturned { key: KEY, ids: vec![id] });
        for outcome in [Outcome::Exited(0), Outcome::NeedsFiles, Outcome::SiteFailed(String::new()), Outcome::Killed] {
            bench.end(KEY, id, outcome);
        }
        bench.tell(Event::OutputsStored { key: KEY, result: result(id, Outcome::Exited(0)) });
        bench.tell(Event::OutputsFailed { key: StarterKey(1), id, why: String::new(), ours: true, too_large: false });
        bench.tell(Event::AssignmentFailed { key: KEY, id, why: String::new(), too_large: false });
        bench.tell(Event::StarterGone { key: StarterKey(1), why: String::new() });
    }
    assert_eq!(bench.pool.counts(&Select::default()).completed, 2);
}

#[test]
fn starters_learn_what_cpus_go_with_other_resources() {
    let check = |program: Program, offer: Offer, expected: u32| {
        let mut bench = Bench::with_jobs(vec![group(9, program)]);
        let actions = bench.join_as(KEY, offer);
        let loads = actions.iter().find_map(|action| match action {
            Action::Assign { define, .. } => define.first().map(|(.., load)| *load),
            _ => None,
        });
        assert_eq!(loads, Some(expected));
    };
    check(
        Program { resources: vec![("FPGAS".into(), 1)], ..program(1) },
        Offer { resources: vec![("Fpgas".into(), 2)], ..offer(4) },
        2,
    );
    // Memory and GPUs they count themselves.
    check(Program { gpus: 1, ..program(1) }, Offer { gpus: 1, ..offer(4) }, 1);
    check(Program { memory_mb: Some(1100), ..program(1) }, Offer { memory_mb: 4000, ..offer(4) }, 1);
}

#[test]
fn a_job_runs_only_where_it_fits() {
    let check = |program: Program, offer: Offer, expected: &str| {
        let mut bench = Bench::with_jobs(vec![group(9, program.clone())]);
        let actions = bench.join_as(KEY, offer.clone());
        let ran: Vec<_> = actions
            .iter()
            .filter_map(|a| match a {
                Action::Assign { attempts, shared, .. } => {
                    Some(format!("{}{}", attempts.len(), if *shared == Shared::Nothing { "f" } else { "" }))
                }
                _ => None,
            })
            .collect();
        assert_eq!(ran.join("+"), expected, "{program:?} {offer:?}");
    };
    let memory = |mb| Program { memory_mb: Some(mb), ..program(1) };
    let moves = |transfer| Program { transfer, ..program(1) };
    check(program(1), offer(2), "2+2");
    check(program(2), offer(2), "1+1");
    check(program(3), offer(2), "");
    check(program(0), offer(2), "2+2");
    check(program(1), offer(0), "");
    check(memory(8000), Offer { memory_mb: 4000, ..offer(4) }, "");
    check(memory(8000), Offer { memory_mb: 0, ..offer(4) }, "4+4");
    check(memory(4000), Offer { memory_mb: 4000, ..offer(4) }, "1+1");
    check(memory(1500), Offer { memory_mb: 4000, ..offer(4) }, "2+2");
    check(memory(u64::MAX), Offer { memory_mb: u64::MAX, ..offer(u32::MAX) }, "1");
    check(memory(1), Offer { memory_mb: 4000, ..offer(4) }, "4+4");
    let gpus = |gpus| Program { gpus, ..program(1) };
    check(gpus(1), Offer { gpus: 2, ..offer(4) }, "2+2");
    check(gpus(3), Offer { gpus: 2, ..offer(4) }, "");
    let fpgas = |count| Program { resources: vec![("fpgas".into(), count)], ..program(1) };
    let has = |name: &str, count| Offer { resources: vec![("x".into(), 1), (name.into(), count)], ..offer(4) };
    check(fpgas(1), has("Fpgas", 4), "4+4");
    check(fpgas(1), has("Fpgas", 2), "2+2");
    check(fpgas(2), has("Fpgas", 3), "1+1");
    check(fpgas(4), has("Fpgas", 3), "");
    check(fpgas(1), has("licenses", 3), "");
    check(moves(Transfer::Yes), offer(1), "1f+1f");
    check(moves(Transfer::No), offer(1), "1+1");
    check(moves(Transfer::No), Offer { shared: Shared::Nothing, ..offer(1) }, "");
    check(moves(Transfer::IfNeeded), Offer { shared: Shared::Nothing, ..offer(1) }, "1f+1f");
}

#[test]
fn a_node_that_does_not_share_is_believed_once() {
    let transfer = |transfer| Program { transfer, ..program(1) };
    let mut bench = Bench::with_jobs(vec![group(1, transfer(Transfer::IfNeeded))]);
    assert_eq!(told(&bench.join(1)), "7: run 1.0#1");
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::NeedsFiles)), "7: forget 1.0#1; 7: run 1.0#2 with files");
    bench.end(KEY, attempt(0, 2), Outcome::NeedsFiles);
    let view = bench.pool.view(attempt(0, 1).job).unwrap();
    assert_eq!(view.reason, Some("its node asked for files that it was given"));

    let mut bench = Bench::with_jobs(vec![group(1, transfer(Transfer::No))]);
    bench.join(1);
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::NeedsFiles)), "7: forget 1.0#1");
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(1))), "8: run 1.0#2");
}

#[test]
fn a_job_that_every_site_fails_is_held() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    for number in 1..=u32::from(SITE_FAILURES) {
        let key = StarterKey(u64::from(number));
        assert_eq!(told(&bench.join_as(key, offer(1))), format!("{number}: run 1.0#{number}"));
        bench.tell(Event::StarterGone { key, why: "burnt".into() });
        if number % 2 == 0 {
            continue; // what was queued there was not failed by it
        }
        assert_eq!(bench.state(0), JobState::Idle);
    }
    assert_eq!(bench.state(0), JobState::Idle, "it never started");
    for number in 101..=100 + u32::from(SITE_FAILURES) {
        let key = StarterKey(u64::from(number));
        bench.join_as(key, offer(1));
        let id = attempt(0, number - 80);
        bench.tell(Event::AttemptsStarted { key, ids: vec![id] });
        bench.tell(Event::StarterGone { key, why: "burnt".into() });
    }
    assert_eq!(bench.state(0), JobState::Held);
    assert_eq!(
        bench.pool.view(attempt(0, 1).job).unwrap().reason,
        Some("20 sites or nodes failed it; the last: burnt")
    );
    bench.refold();
}

/// Starters on nodes of their own, by key.
fn nodes(bench: &mut Bench, keys: core::ops::RangeInclusive<u64>) {
    for key in keys {
        bench.join_as(StarterKey(key), Offer { host: format!("node{key}"), ..offer(1) });
    }
}

impl Bench {
    /// Ends the first attempt that a starter holds.
    fn end_next(&mut self, key: u64, outcome: Outcome, wall_ms: u64) -> String {
        let key = StarterKey(key);
        let id = *self.pool.starters[&key].held.keys().next().unwrap();
        let usage = Usage { wall_ms, ..Usage::default() };
        let actions = self.tell(Event::AttemptEnded { key, result: AttemptResult { usage, ..result(id, outcome) } });
        told(&actions)
    }

    fn excluded(&self) -> String {
        let list: Vec<String> = self
            .pool
            .excluded_nodes()
            .map(|node| format!("{} for {:?}: {}", node.host, node.until.since(node.since), node.why))
            .collect();
        list.join("; ")
    }
}

fn full() -> Outcome {
    Outcome::SiteFailed("no space left on device".into())
}

#[test]
fn a_bad_node_that_is_the_only_one_rests() {
    let mut bench = Bench::with_jobs(vec![group(100, program(1))]);
    nodes(&mut bench, 1..=1);
    for n in 1..=8 {
        assert_eq!(bench.end_next(1, full(), 0).contains("run"), n < 8);
    }
    assert_eq!(bench.excluded(), "node1 for 60s: 8 jobs in a row failed there, the last: no space left on device");
    assert!(bench.pool.starters().next().unwrap().excluded);
    // Another proxy's starter there fares no better, nor does a new master think otherwise.
    assert_eq!(told(&bench.join_as(StarterKey(2), Offer { host: "node1".into(), ..offer(1) })), "");
    bench.refold();
    assert_eq!(told(&bench.join_as(StarterKey(2), Offer { host: "node1".into(), ..offer(1) })), "");
    bench.now = bench.pool.deadline().unwrap();
    assert_eq!(bench.now, Time(0) + Duration::from_secs(60));
    assert!(told(&bench.tell(Event::TimePassed)).contains("run"));
    assert_eq!(bench.pool.deadline(), None);
}

#[test]
fn a_node_that_is_no_better_is_excluded_for_longer() {
    let mut bench = Bench::with_jobs(vec![group(100, program(1))]);
    nodes(&mut bench, 1..=1);
    for _ in 1..=8 {
        bench.end_next(1, full(), 0);
    }
    for minutes in [2, 4, 8] {
        bench.now = bench.pool.deadline().unwrap();
        bench.tell(Event::TimePassed);
        bench.end_next(1, full(), 0);
        assert_eq!(bench.pool.deadline(), Some(bench.now + Duration::from_secs(60 * minutes)));
    }
    bench.now = bench.pool.deadline().unwrap();
    bench.tell(Event::TimePassed);
    bench.end_next(1, Outcome::Exited(0), 10);
    for _ in 1..=8 {
        assert_eq!(bench.excluded(), "");
        bench.end_next(1, full(), 0);
    }
    assert_eq!(bench.pool.deadline(), Some(bench.now + Duration::from_secs(60)));
}

#[test]
fn a_node_that_eats_jobs_is_excluded_and_given_back() {
    let check = |outcome: Outcome, why: &str| {
        let mut bench = Bench::with_jobs(vec![group(100, program(1))]);
        nodes(&mut bench, 1..=2);
        for _ in 0..8 {
            bench.end_next(2, Outcome::Exited(1), 60_000);
        }
        for n in 1..=8 {
            let actions = bench.end_next(1, outcome.clone(), 300);
            assert_eq!(actions.contains("1: drain"), n == 8, "{actions}");
        }
        assert_eq!(bench.excluded(), format!("node1 for 900s: 8 jobs in a row {why}"));
        // Its backlog is not failed there either, and goes to the other.
        let ids: Vec<AttemptId> = bench.pool.starters[&StarterKey(1)].held.keys().copied().collect();
        assert!(!told(&bench.tell(Event::AttemptsReturned { key: StarterKey(1), ids })).contains("1: run"));
        assert!(bench.end_next(2, Outcome::Exited(0), 60_000).contains("2: run"));
        bench.refold();
        assert!(bench.excluded().starts_with("node1 for 900s"));
    };
    check(Outcome::Exited(127), "failed there within 2 s, and 8 did better elsewhere");
    check(Outcome::Signaled(11), "failed there within 2 s, and 8 did better elsewhere");
    check(full(), "failed there, the last: no space left on device");
}

#[test]
fn jobs_that_run_elsewhere_speak_for_the_other_nodes() {
    let mut bench = Bench::with_jobs(vec![group(100, program(1))]);
    nodes(&mut bench, 1..=9);
    for key in 2..=9 {
        let id = *bench.pool.starters[&StarterKey(key)].held.keys().next().unwrap();
        bench.tell(Event::AttemptsStarted { key: StarterKey(key), ids: vec![id] });
    }
    bench.now = bench.now + Duration::from_secs(3);
    for n in 1..=8 {
        assert_eq!(bench.end_next(1, Outcome::Exited(1), 100).contains("drain"), n == 8);
    }
}

#[test]
fn a_suspect_node_waits_until_others_show_how_they_do() {
    let mut bench = Bench::with_jobs(vec![group(400, program(1))]);
    nodes(&mut bench, 1..=4);
    let fails = |bench: &mut Bench| bench.end_next(1, Outcome::Exited(1), 5);
    for n in 1..=8 {
        assert_eq!(fails(&mut bench).contains("run"), n < 8);
    }
    assert_eq!(bench.excluded(), "node1 for 4s: 8 jobs in a row failed there within 2 s; how others do will show");
    // That they run is told after it was fast.
    for key in 2..=4 {
        let id = *bench.pool.starters[&StarterKey(key)].held.keys().next().unwrap();
        bench.tell(Event::AttemptsStarted { key: StarterKey(key), ids: vec![id] });
    }
    bench.now = bench.pool.deadline().unwrap();
    let mut other = bench.clone();
    // The others still run: it is the node.
    bench.tell(Event::TimePassed);
    assert!(fails(&mut bench).contains("1: drain"));
    // The others failed as well: it is not.
    for key in 2..=4 {
        other.end_next(key, Outcome::Exited(1), 1500);
    }
    other.tell(Event::TimePassed);
    for _ in 0..100 {
        assert!(fails(&mut other).contains("1: run"));
    }
}

/// A node as its starter runs it: what it has queued starts where a slot is free.
#[derive(Default)]
struct Slots {
    queue: VecDeque<AttemptId>,
    running: Vec<(Time, AttemptId)>,
    closed: bool,
}

#[test]
fn a_node_that_eats_jobs_eats_few_of_a_short_queue() {
    const SLOTS: u32 = 3;
    const HALF_TRIP: Duration = Duration::from_millis(50);
    // How long its failures take, whether short jobs went well there before, and what it may eat of 200: 8 to be looked at, what it
    // runs before the answer is there, and the same once more when it is tried again.
    for (fails_ms, warm, most) in [(5, false, 24), (100, false, 24), (500, false, 24), (100, true, 40)] {
        let mut bench = Bench::new();
        let ms = Duration::from_millis;
        for key in 1..=2 {
            bench.join_as(StarterKey(key), Offer { host: format!("node{key}"), ..offer(SLOTS) });
        }
        let submit = |bench: &mut Bench, count| {
            bench.pool.submit(bench.now, "test".into(), vec![group(count, program(1))]);
            bench.drain()
        };
        let mut actions = if warm { submit(&mut bench, 100) } else { submit(&mut bench, 200) };
        let (mut bad, mut eaten) = (!warm, 0);
        let mut nodes = [Slots::default(), Slots::default()];
        for _ in 0..20_000 {
            // What was said half a round trip ago arrives.
            let arrived = core::mem::take(&mut actions);
            let mut said = Vec::new();
            for action in arrived {
                match action {
                    Action::Assign { key, attempts, .. } => {
                        let node = &mut nodes[key.0 as usize - 1];
                        assert!(!node.closed, "work for one that is told to end");
                        node.queue.extend(attempts.iter().map(|each| each.id));
                    }
                    Action::Recall { key, count, .. } => {
                        let queue = &mut nodes[key.0 as usize - 1].queue;
                        let ids = queue.drain(queue.len().saturating_sub(count as usize)..).collect();
                        said.push((bench.now, Event::AttemptsReturned { key, ids }));
                    }
                    Action::Drain { key, .. } => {
                        let node = &mut nodes[key.0 as usize - 1];
                        node.closed = true;
                        said.push((bench.now, Event::AttemptsReturned { key, ids: node.queue.drain(..).collect() }));
                    }
                    _ => {}
                }
            }
            // The nodes run on meanwhile.
            let until = bench.now + HALF_TRIP;
            for (key, node) in (1..).map(StarterKey).zip(&mut nodes) {
                let eats = bad && key == StarterKey(1);
                let takes = if eats {
                    fails_ms
                } else if bad {
                    3000
                } else {
                    5
                };
                let mut at = bench.now;
                loop {
                    while node.running.len() < SLOTS as usize
                        && let Some(id) = node.queue.pop_front()
                    {
                        node.running.push((at + ms(takes), id));
                        said.push((at, Event::AttemptsStarted { key, ids: vec![id] }));
                    }
                    let Some(first) = (0..node.running.len()).min_by_key(|n| node.running[*n].0) else { break };
                    if node.running[first].0 > until {
                        break;
                    }
                    let (end, id) = node.running.remove(first);
                    at = end;
                    let usage = Usage { wall_ms: takes, ..Usage::default() };
                    let outcome = Outcome::Exited(u8::from(eats));
                    eaten += u32::from(eats);
                    said.push((
                        end,
                        Event::AttemptEnded { key, result: AttemptResult { usage, ..result(id, outcome) } },
                    ));
                }
            }
            said.sort_by_key(|(at, _)| *at);
            bench.now = until;
            for (_, event) in said {
                actions.extend(bench.tell(event));
            }
            actions.extend(bench.tell(Event::TimePassed));
            let over = bench.pool.clusters.values().all(|cluster| cluster.jobs.iter().all(Job::is_over));
            if over && bad {
                break;
            } else if over {
                bad = true;
                actions.extend(submit(&mut bench, 200));
            }
        }
        assert!(bench.pool.clusters.values().all(|cluster| cluster.jobs.iter().all(Job::is_over)));
        assert!(bench.excluded().contains("did better elsewhere"), "{}", bench.excluded());
        assert!((8..=most).contains(&eaten), "{eaten} of 200 eaten, failures of {fails_ms} ms, warm: {warm}");
    }
}

#[test]
fn jobs_that_fail_everywhere_are_no_nodes_fault() {
    for (outcome, rests) in [(Outcome::Exited(1), false), (full(), true)] {
        let mut bench = Bench::with_jobs(vec![group(200, program(1)), group(200, program(1))]);
        nodes(&mut bench, 1..=4);
        for _ in 0..7 {
            for key in 1..=4 {
                let actions = bench.end_next(key, outcome.clone(), 300);
                assert!(!actions.contains("drain"), "{actions}");
            }
        }
        assert_eq!(bench.excluded(), "");
        let actions = bench.end_next(1, outcome, 300);
        assert!(!actions.contains("drain"), "{actions}");
        assert_eq!(bench.excluded().starts_with("node1 for 60s"), rests);
    }
    // Nor is a stretch of bad input among good ones, where work goes on.
    let mut bench = Bench::with_jobs(vec![group(300, program(1))]);
    nodes(&mut bench, 1..=2);
    for n in 0..100 {
        bench.end_next(2, Outcome::Exited(0), 10);
        bench.end_next(1, Outcome::Exited(u8::from(n % 7 != 0)), 10);
    }
    assert_eq!(bench.excluded(), "");
}

#[test]
fn the_end_of_a_proxy_is_no_nodes_fault() {
    let mut bench = Bench::with_jobs(vec![group(100, program(1))]);
    nodes(&mut bench, 1..=2);
    for _ in 0..10 {
        bench.end_next(1, Outcome::Evicted("preempted".into()), 0);
    }
    assert_eq!(bench.excluded(), "");
    assert_eq!(bench.pool.view(attempt(0, 1).job).unwrap().reason, Some("preempted"));
}

#[test]
fn a_wide_job_is_not_overtaken_for_ever() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1)), group(1, program(4)), group(50, program(1))]);
    assert_eq!(told(&bench.join(4)), "7: run 1.0#1; 7: run 1.1#1 1.2#1 1.3#1 1.4#1");
}

#[test]
fn an_idle_starter_gets_anothers_backlog() {
    let mut bench = Bench::with_jobs(vec![group(4, program(1))]);
    assert_eq!(told(&bench.join(2)), "7: run 1.0#1 1.1#1; 7: run 1.2#1 1.3#1");
    for proc in 0..2 {
        bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(proc, 1)] });
    }
    // A cluster that fits nowhere must not stand in the way.
    bench.pool.submit(bench.now, "wide".into(), vec![group(1, program(64))]);
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(2))), "7: give back 2");
    let ids = vec![attempt(2, 1), attempt(3, 1)];
    assert_eq!(told(&bench.tell(Event::AttemptsReturned { key: KEY, ids })), "8: run 1.2#2 1.3#2");
    // What can't run at the idle starter stays where it is.
    let mut bench = Bench::with_jobs(vec![group(4, program(2))]);
    bench.join(2);
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(1))), "");
}

#[test]
fn a_recall_that_found_nothing_is_repeated() {
    let mut bench = Bench::with_jobs(vec![group(4, program(1))]);
    bench.join(2);
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(1))), "7: give back 1");
    assert_eq!(told(&bench.inventory(StarterKey(8), &[], &[], &[])), "");
    bench.now = bench.now + RECALL_AGAIN;
    assert_eq!(told(&bench.inventory(StarterKey(8), &[], &[], &[])), "7: give back 1");
}

#[test]
fn over_a_slow_link_a_starter_may_answer_two_recalls() {
    let mut bench = Bench::with_jobs(vec![group(6, program(1))]);
    bench.join(3);
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(1))), "7: give back 1");
    bench.now = bench.now + RECALL_AGAIN;
    assert_eq!(told(&bench.inventory(StarterKey(8), &[], &[], &[])), "7: give back 1");
    let back = |proc| Event::AttemptsReturned { key: KEY, ids: vec![attempt(proc, 1)] };
    assert_eq!(told(&bench.tell(back(5))), "8: run 1.5#2");
    bench.tell(back(4));
    // It is not taken for one that is about to end.
    bench.pool.submit(bench.now, "more".into(), vec![group(9, program(1))]);
    assert!(told(&bench.drain()).contains("7: run 2."), "it gets work");
}

#[test]
fn what_was_killed_unstarted_and_comes_back_is_no_answer_to_a_recall() {
    let mut bench = Bench::with_jobs(vec![group(6, program(1))]);
    bench.join(3);
    assert_eq!(told(&bench.join_as(StarterKey(8), offer(1))), "7: give back 1");
    let select = Select { jobs: [attempt(4, 1).job].into(), ..Select::default() };
    assert_eq!(told(&bench.tell(Event::HoldAsked { select, why: String::new() })), "7: kill 1.4#1");
    let back = |proc| Event::AttemptsReturned { key: KEY, ids: vec![attempt(proc, 1)] };
    bench.tell(back(4));
    assert_eq!(told(&bench.tell(back(5))), "8: run 1.5#2");
    bench.pool.submit(bench.now, "more".into(), vec![group(9, program(1))]);
    assert!(told(&bench.drain()).contains("7: run 2."), "it gets work");
}

#[test]
fn a_starter_that_gives_back_unasked_is_left_alone() {
    let mut bench = Bench::with_jobs(vec![group(2, program(1))]);
    bench.join(1);
    let ids = vec![attempt(1, 1)];
    assert_eq!(told(&bench.tell(Event::AttemptsReturned { key: KEY, ids })), "");
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Exited(0))), "7: forget 1.0#1");
    assert_eq!(told(&bench.inventory(KEY, &[], &[], &[])), "7: run 1.1#2");
}

#[test]
fn a_starter_tells_since_when_it_is_busy_or_idle() {
    let mut bench = Bench::new();
    let since = |bench: &Bench| bench.pool.starters().next().unwrap().since;
    let seconds = |s| Time::default() + Duration::from_secs(s);
    bench.now = seconds(1);
    bench.join(1);
    assert_eq!(since(&bench), seconds(1));
    bench.now = seconds(5);
    bench.pool.submit(bench.now, "test".into(), vec![group(2, program(1))]);
    bench.drain();
    assert_eq!(since(&bench), seconds(5));
    bench.now = seconds(6);
    bench.end(KEY, attempt(0, 1), Outcome::Exited(0));
    assert_eq!(since(&bench), seconds(5), "its next job follows at once");
    bench.now = seconds(9);
    bench.end(KEY, attempt(1, 1), Outcome::Exited(0));
    assert_eq!(since(&bench), seconds(9));
    bench.now = seconds(12);
    bench.inventory(KEY, &[], &[], &[]);
    assert_eq!(since(&bench), seconds(9));
}

#[test]
fn walltime_near_its_end_gets_no_work() {
    let mut bench = Bench::with_jobs(vec![group(2, program(1))]);
    let join = |left| Event::StarterJoined { key: KEY, offer: offer(1), time_left: Some(Duration::from_secs(left)) };
    bench.tell(join(60));
    assert_eq!(told(&bench.inventory(KEY, &[], &[], &[])), "");
    bench.tell(join(61));
    assert_ne!(told(&bench.inventory(KEY, &[], &[], &[])), "");
}

#[test]
fn a_short_queue_spreads_over_free_slots() {
    let mut bench = Bench::new();
    for key in 1..=4 {
        bench.join_as(StarterKey(key), offer(2));
    }
    bench.pool.submit(bench.now, "test".into(), vec![group(6, program(1))]);
    assert_eq!(told(&bench.drain()), "1: run 1.0#1 1.1#1; 2: run 1.2#1 1.3#1; 3: run 1.4#1 1.5#1");
}

#[test]
fn a_large_starter_is_filled_at_once() {
    let mut bench = Bench::with_jobs(vec![group(5000, program(1))]);
    let actions = bench.join(1000);
    let sizes = actions.iter().filter_map(|action| match action {
        Action::Assign { attempts, .. } => Some(attempts.len()),
        _ => None,
    });
    let sizes: Vec<_> = sizes.collect();
    assert_eq!(sizes.iter().sum::<usize>(), 2000);
    assert!(sizes.iter().all(|size| *size <= ASSIGN_BATCH), "{sizes:?}");
}

#[test]
fn selections() {
    let mut bench = Bench::with_jobs(vec![group(3, program(1)), group(0, program(1)), group(2, program(1))]);
    bench.pool.submit(bench.now, "second".into(), vec![group(2, program(1))]);
    let job = |cluster, proc| JobId { cluster, proc };
    let check = |clusters: &[u32], jobs: &[JobId], from: Option<JobId>, expected: &str, missing: Option<&str>| {
        let select = Select { clusters: clusters.iter().copied().collect(), jobs: jobs.iter().copied().collect() };
        let shown: Vec<String> = bench.pool.views(&select, from).map(|view| view.id.to_string()).collect();
        assert_eq!(shown.join(" "), expected);
        assert_eq!(bench.pool.missing(&select).as_deref(), missing);
        if from.is_none() {
            assert_eq!(bench.pool.counts(&select).idle as usize, shown.len(), "{select:?}");
        }
    };
    check(&[], &[], None, "1.0 1.1 1.2 1.3 1.4 2.0 2.1", None);
    check(&[2], &[], None, "2.0 2.1", None);
    check(&[], &[job(1, 3), job(1, 9), job(2, 1)], None, "1.3 2.1", Some("1.9"));
    check(&[1], &[job(1, 3), job(2, 0)], Some(job(1, 2)), "1.2 1.3 1.4 2.0", None);
    check(&[3], &[job(4, 0)], None, "", Some("3"));
    check(&[], &[job(1, 1), job(1, 3)], Some(job(1, 2)), "1.3", None);
}

/// Jobs of one row of processes, told apart by a table: each group has some of them.
fn shared_out(procs: &[&[u32]], program: impl Fn(usize) -> Program) -> Vec<GroupRecord> {
    let each = |(place, procs): (usize, &&[u32])| {
        let cells: String = procs.iter().map(|proc| format!("p{proc}\0")).collect();
        let executable = Template(vec![crate::template::Piece::Column(0)]);
        GroupRecord {
            count: procs.len() as u32,
            program: Program { executable, ..program(place) },
            log: Some(Template(vec![crate::template::Piece::Column(0)])),
            table: Table::new(1, cells.into_bytes()),
            procs: Procs::new(procs.to_vec()),
            ..GroupRecord::default()
        }
    };
    procs.iter().enumerate().map(each).collect()
}

#[test]
fn groups_share_the_processes_of_a_statement() {
    let mut groups = vec![group(1, program(1))];
    groups.extend(shared_out(&[&[1, 4, 5], &[2, 3]], |place| program(place as u32 + 1)));
    groups.push(group(1, program(1)));
    assert!(GroupRecord::are_whole(&groups));
    let encoded = minicbor::to_vec(&groups).unwrap();
    assert_eq!(minicbor::decode::<Vec<GroupRecord>>(&encoded).unwrap(), groups);
    let mut bench = Bench::with_jobs(groups);
    let assigned = |actions: &[Action]| {
        let attempts = actions.iter().filter_map(|action| match action {
            Action::Assign { attempts, .. } => Some(attempts),
            _ => None,
        });
        let show = |each: &Assigned| {
            let text = each.body.filled(&each.row).executable.expand(each.id.job);
            format!("{}:{} {}", each.id.job.proc, each.body.cpus, String::from_utf8(text).unwrap())
        };
        attempts.flatten().map(show).collect::<Vec<_>>().join(",")
    };
    let actions = bench.join(2);
    assert_eq!(assigned(&actions), "0:1 ,1:1 p1,4:1 p4,5:1 p5");
    bench.refold();
    assert_eq!(bench.pool.view(JobId { cluster: 1, proc: 3 }).unwrap().program.cpus, 2);
    for proc in [0, 1, 4] {
        bench.end(KEY, attempt(proc, 1), Outcome::Exited(0));
    }
    bench.pool.recount();
    bench.refold();
    let select = Select { jobs: [JobId { cluster: 1, proc: 2 }].into(), ..Select::default() };
    bench.tell(Event::RemovalAsked { select });
    bench.refold();
    assert_eq!(
        bench.pool.counts(&Select::default()),
        Counts { idle: 3, completed: 3, removed: 1, ..Counts::default() }
    );
}

#[test]
fn groups_that_are_not_whole_are_known() {
    let check = |procs: &[&[u32]], expected: bool| {
        let mut groups = vec![group(1, program(1))];
        groups.extend(shared_out(procs, |_| program(1)));
        assert_eq!(GroupRecord::are_whole(&groups), expected, "{procs:?}");
        // Nothing of it is a crash, all the same.
        let mut pool = Pool::new();
        pool.submit(Time(1), "n".into(), groups);
        let (offer, time_left) = (offer(64), None);
        pool.handle(Time(1), Event::StarterJoined { key: KEY, offer, time_left });
        let (queued, running, finished) = (Vec::new(), Vec::new(), Vec::new());
        pool.handle(Time(1), Event::InventoryTold { key: KEY, number: 1, queued, running, finished });
        pool.take_records();
        Pool::new().restore(pool.snapshot()).take_records();
    };
    check(&[&[1, 3], &[2]], true);
    check(&[&[1, 3], &[3]], false);
    check(&[&[1, 4], &[2]], false);
    check(&[&[0, 1]], false);
    check(&[&[1, u32::MAX]], false);
    let mut short = shared_out(&[&[0, 1]], |_| program(1));
    short.iter_mut().for_each(|group| group.table = Table::new(1, b"a\0".to_vec()));
    assert!(!GroupRecord::are_whole(&short));
}

#[test]
fn removed_jobs_leave_the_queue() {
    let mut bench = Bench::with_jobs(vec![group(4, program(1))]);
    let jobs = [0, 1, 3].map(|proc| JobId { cluster: 1, proc });
    let select = Select { jobs: jobs.into(), ..Select::default() };
    bench.tell(Event::RemovalAsked { select });
    assert_eq!(told(&bench.join(4)), "7: run 1.2#1");
    assert!(bench.pool.queue.is_empty());
    bench.refold();
    assert_eq!(bench.pool.counts(&Select::default()), Counts { idle: 1, removed: 3, ..Counts::default() });
    assert!(Pool::new().restore(bench.pool.snapshot()).queue.is_empty());
}

#[test]
fn what_was_meant_for_a_starter_before_it_was_taken_for_gone_never_reaches_it() {
    let mut pool = Pool::new();
    let now = Time::default();
    pool.submit(now, "test".into(), vec![group(1, program(1))]);
    for number in [1, 2] {
        pool.handle(now, Event::StarterJoined { key: KEY, offer: offer(1), time_left: None });
        let (queued, running, finished) = (Vec::new(), Vec::new(), Vec::new());
        pool.handle(now, Event::InventoryTold { key: KEY, number, queued, running, finished });
        pool.take_records();
        if number == 1 {
            pool.handle(now, Event::StarterGone { key: KEY, why: "so it seemed".into() });
        }
    }
    let actions: Vec<Action> = core::iter::from_fn(|| pool.poll_action(u64::MAX)).collect();
    assert_eq!(told(&actions), "7: run 1.0#2");
    assert!(matches!(actions[0], Action::Assign { inventory: 2, .. }));
}

#[test]
fn records_folded_twice_change_nothing() {
    let mut bench = Bench::with_jobs(vec![group(3, program(1))]);
    bench.join(1);
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    bench.end(KEY, attempt(0, 1), Outcome::SiteFailed("full".into()));
    bench.end(KEY, attempt(1, 1), Outcome::Exited(1));
    bench.end(KEY, attempt(0, 2), Outcome::Unrunnable("no such program".into()));
    bench.tell(Event::RemovalAsked { select: Select { jobs: [attempt(2, 1).job].into(), ..Select::default() } });
    let mut pool = Pool::new();
    for record in &bench.log {
        pool.apply(record);
        let once = durable(&pool);
        pool.apply(record);
        pool.recount();
        assert!(durable(&pool) == once, "{record:?}");
    }
    assert!(durable(&pool) == durable(&bench.pool));
}

mod changes;
mod model;
mod notes;
mod policy;
mod terms;
mod timing;
mod usage;
mod why;
