//! Tables of what happens and what is done, and a random world with a checker that knows nothing of the machine's state.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec;
use core::fmt::Write;

use super::*;
use crate::ids::JobId;

type Machine = Starter<(), ()>;

const SECOND: Duration = Duration::from_secs(1);

fn id(proc: u32) -> AttemptId {
    AttemptId { job: JobId { cluster: 1, proc }, attempt: 1 }
}

fn result(proc: u32, outcome: Outcome) -> AttemptResult {
    AttemptResult { id: id(proc), outcome, usage: Usage::default(), outputs: Vec::new(), kept: None }
}

fn limits() -> Limits {
    Limits { idle: SECOND * 600, lease: SECOND * 1200, drain: SECOND * 60 }
}

/// A connected starter of two CPUs and 1000 MB. Program N needs N CPUs; program 0 also 800 MB.
fn machine(limits: Limits, ends: Option<Time>) -> Machine {
    let mut machine = Starter::new(Time(0), limits, Offer { cpus: 2, memory_mb: 1000, gpus: 1, ends });
    machine.handle(Time(0), Event::AgentConnected { master: true, asked: Time(0) });
    for cpus in 0..4 {
        let memory_mb = (cpus == 0).then_some(800);
        let demand = Demand { cpus, memory_mb, gpus: 0 };
        machine.handle(Time(0), Event::ProgramDefined { program: u64::from(cpus), demand, body: () });
    }
    machine
}

/// Given by a master that had the first inventory.
fn assign(program: u64, procs: impl IntoIterator<Item = u32>) -> Event<(), ()> {
    assign_on(1, program, procs)
}

fn assign_on(inventory: u64, program: u64, procs: impl IntoIterator<Item = u32>) -> Event<(), ()> {
    let task = |proc| Task { id: id(proc), program, body: () };
    Event::Assigned { inventory, tasks: procs.into_iter().map(task).collect() }
}

fn ended(proc: u32) -> Event<(), ()> {
    Event::JobEnded(result(proc, Outcome::Exited(0)))
}

fn spooled(procs: impl IntoIterator<Item = u32>, over: bool) -> Event<(), ()> {
    Event::Spooled { kept: procs.into_iter().map(id).collect(), over }
}

fn say(action: Action<(), ()>) -> String {
    let procs = |ids: &[AttemptId]| {
        let mut text = String::new();
        for id in ids {
            let _ = write!(text, " {}", id.job.proc);
        }
        text
    };
    match action {
        Action::Start { task, .. } => format!("start {}", task.id.job.proc),
        Action::Terminate(id) => format!("terminate {}", id.job.proc),
        Action::Kill(id) => format!("kill {}", id.job.proc),
        Action::SendInventory { queued, running, finished, .. } => {
            format!("inventory{} |{} |{}", procs(&queued), procs(&running), procs(&finished))
        }
        Action::SendReport { started, results, returned } => {
            let mut text = format!("report{} |", procs(&started));
            for result in &results {
                let _ = write!(text, " {} {:?}", result.id.job.proc, result.outcome);
            }
            text + " |" + &procs(&returned)
        }
        Action::Spool(ids) => format!("spool{}", procs(&ids)),
        Action::Forget(ids) => format!("forget{}", procs(&ids)),
        Action::Leave { why } => format!("leave: {why}"),
    }
}

/// Feeds events at their milliseconds and compares what is done after each.
fn check(machine: &mut Machine, steps: Vec<(u64, Event<(), ()>, &[&str])>) {
    while machine.poll_action().is_some() {}
    for (number, (now, event, expected)) in steps.into_iter().enumerate() {
        let text = format!("step {number} at {now}: {event:?}");
        machine.handle(Time(now), event);
        let done: Vec<String> = core::iter::from_fn(|| machine.poll_action()).map(say).collect();
        assert_eq!(done, expected, "{text}");
    }
}

#[test]
fn jobs_start_in_order_as_room_allows() {
    check(
        &mut machine(limits(), None),
        vec![
            (1, assign(1, [1]), &["start 1"]),
            (2, assign(2, [2]), &[]),
            (2, assign(1, [3]), &[]),
            (3, ended(1), &["start 2", "report | 1 Exited(0) |"]),
            (20, ended(2), &["start 3", "report | 2 Exited(0) |"]),
            (40, ended(3), &["report | 3 Exited(0) |"]),
            (50, assign(0, [4, 5]), &["start 4"]),
            (60, ended(4), &["start 5", "report | 4 Exited(0) |"]),
            (80, assign(3, [6]), &["report | 6 SiteFailed(\"needs 3 CPUs, the node offers 2\") |"]),
            (99, assign(9, [7]), &["report | 7 SiteFailed(\"program 9 was not defined to the starter\") |"]),
        ],
    );
}

#[test]
fn an_attempt_runs_once() {
    check(
        &mut machine(limits(), None),
        vec![
            (10, assign(2, [1, 1, 2]), &["start 1"]),
            (20, assign(2, [1, 2]), &[]),
            (30, ended(1), &["start 2", "report | 1 Exited(0) |"]),
            (40, assign(2, [1]), &[]),
            (50, Event::Acknowledged(vec![id(1)]), &["forget 1"]),
            (50, Event::Acknowledged(vec![id(1)]), &[]),
            (60, assign(2, [1]), &[]),
            (70, ended(1), &[]),
            (70, ended(2), &["report | 2 Exited(0) |"]),
        ],
    );
}

#[test]
fn reports_are_batched_while_busy() {
    let mut machine = machine(limits(), None);
    check(
        &mut machine,
        vec![
            (100, assign(1, 0..10), &["start 0", "start 1"]),
            (100, Event::JobStarted { id: id(0) }, &["report 0 | |"]),
            (100, Event::JobStarted { id: id(1) }, &[]),
            (103, ended(0), &["start 2"]),
            (104, ended(1), &["start 3"]),
        ],
    );
    assert_eq!(machine.deadline(), Some(Time(108)));
    let mut idle = vec![(108, Event::TimePassed, &["report 1 | 0 Exited(0) 1 Exited(0) |"][..])];
    idle.push((109, Event::Recalled { inventory: 1, count: 6 }, &[]));
    idle.push((110, ended(2), &[]));
    idle.push((111, ended(3), &["report | 2 Exited(0) 3 Exited(0) | 4 5 6 7 8 9"]));
    check(&mut machine, idle);
}

#[test]
fn many_results_do_not_wait() {
    let mut machine = machine(limits(), None);
    machine.handle(Time(0), assign(1, 0..200));
    machine.handle(Time(100), Event::JobStarted { id: id(0) });
    while machine.poll_action().is_some() {}
    for proc in 0..64 {
        machine.handle(Time(101), ended(proc));
    }
    let reports = core::iter::from_fn(|| machine.poll_action()).filter_map(|action| match action {
        Action::SendReport { results, .. } => Some(results.len()),
        _ => None,
    });
    assert_eq!(reports.collect::<Vec<_>>(), [64]);
}

#[test]
fn results_wait_for_the_way_and_are_repeated() {
    check(
        &mut machine(limits(), None),
        vec![
            (10, assign(1, [1, 2, 3, 4]), &["start 1", "start 2"]),
            (20, Event::MasterLinkChanged { up: false }, &[]),
            (30, Event::JobStarted { id: id(1) }, &[]),
            (40, ended(1), &["start 3"]),
            (50, Event::MasterLinkChanged { up: true }, &["inventory 4 | 2 3 | 1", "report | 1 Exited(0) |"]),
            (60, Event::AgentLost, &[]),
            (70, Event::AgentConnected { master: false, asked: Time(70) }, &[]),
            (80, Event::MasterLinkChanged { up: true }, &["inventory 4 | 2 3 | 1", "report | 1 Exited(0) |"]),
            (90, Event::Acknowledged(vec![id(1)]), &["forget 1"]),
            (99, Event::AgentConnected { master: true, asked: Time(99) }, &["inventory 4 | 2 3 |"]),
        ],
    );
}

#[test]
fn a_gpu_is_one_jobs_at_a_time() {
    let mut machine = machine(limits(), None);
    for (program, gpus) in [(7, 1), (8, 2)] {
        let demand = Demand { cpus: 1, memory_mb: Some(1), gpus };
        machine.handle(Time(0), Event::ProgramDefined { program, demand, body: () });
    }
    check(
        &mut machine,
        vec![
            (10, assign(7, [1, 2]), &["start 1"]),
            (10, assign(1, [3]), &[]),
            (20, Event::JobStarted { id: id(1) }, &["report 1 | |"]),
        ],
    );
    assert_eq!((machine.gpus_of(id(1)), machine.gpus_of(id(2))), (&[0][..], &[][..]));
    // The second waits though there are CPUs, and has the same GPU then.
    machine.handle(Time(30), ended(1));
    assert_eq!((machine.gpus_of(id(1)), machine.gpus_of(id(2)), machine.gpus_of(id(3))), (&[][..], &[0][..], &[][..]));
    machine.handle(Time(40), assign(8, [4]));
    let says = |action: Action<(), ()>| say(action);
    let told: Vec<String> = core::iter::from_fn(|| machine.poll_action()).map(says).collect();
    assert!(told.iter().any(|word| word.contains("needs 2 GPUs, the node offers 1")), "{told:?}");
}

#[test]
fn what_an_inventory_overtook_is_ignored() {
    let recall = |inventory| Event::Recalled { inventory, count: 1 };
    let mut starter = machine(limits(), None);
    check(
        &mut starter,
        vec![
            (10, assign(1, [1, 2, 3]), &["start 1", "start 2"]),
            (20, Event::MasterLinkChanged { up: true }, &["inventory 3 | 1 2 |"]),
            // Given before the master had the second one: it has them elsewhere by now.
            (30, assign(1, [4]), &[]),
            (30, recall(1), &[]),
            (30, assign_on(3, 1, [4]), &[]),
            (40, assign_on(2, 1, [5]), &[]),
            (50, ended(1), &["start 3", "report | 1 Exited(0) |"]),
            (60, recall(2), &["report | | 5"]),
        ],
    );
    starter.handle(Time(70), Event::AgentConnected { master: true, asked: Time(70) });
    let told = core::iter::from_fn(|| starter.poll_action()).find_map(|action| match action {
        Action::SendInventory { number, queued, .. } => Some((number, queued)),
        _ => None,
    });
    assert_eq!(told, Some((3, Vec::new())));
}

#[test]
fn kills_are_answered() {
    let kill = |procs: &[u32], grace| Event::KillAsked { ids: procs.iter().map(|p| id(*p)).collect(), grace };
    check(
        &mut machine(limits(), None),
        vec![
            (10, assign(1, [1, 2, 3]), &["start 1", "start 2"]),
            (20, kill(&[1, 3, 9], SECOND), &["terminate 1", "report | | 3 9"]),
            (30, kill(&[2], Duration::ZERO), &["kill 2"]),
            (40, kill(&[1], SECOND * 9), &[]),
            (1019, Event::TimePassed, &[]),
            (1020, Event::TimePassed, &["kill 1"]),
            (1030, kill(&[1], Duration::ZERO), &[]),
            (1040, ended(1), &["report | 1 Killed |"]),
            (1050, kill(&[1], SECOND), &["report | 1 Killed |"]),
            (1060, ended(2), &["report | 2 Killed |"]),
        ],
    );
}

#[test]
fn a_job_ended_by_sigterm_waits_for_the_starters_own() {
    let signaled = || Event::JobEnded(result(1, Outcome::Signaled(SIGTERM)));
    check(
        &mut machine(limits(), None),
        vec![
            (10, assign(1, [1]), &["start 1"]),
            (100, signaled(), &[]),
            (200, Event::AgentConnected { master: true, asked: Time(200) }, &["inventory | 1 |"]),
            (1099, Event::TimePassed, &[]),
            (1100, Event::TimePassed, &["report | 1 Signaled(15) |"]),
        ],
    );
    check(
        &mut machine(limits(), None),
        vec![
            (10, assign(1, [1]), &["start 1"]),
            (100, signaled(), &[]),
            (200, Event::EndAsked { why: "TERM".into() }, &["report | 1 Evicted(\"TERM\") |"]),
            (300, Event::Acknowledged(vec![id(1)]), &["forget 1", "leave: TERM"]),
            (400, assign(1, [2]), &[]),
        ],
    );
}

#[test]
fn ends_by_itself() {
    // Idle: counted from the last acknowledgement.
    let idle = Limits { idle: SECOND * 10, ..limits() };
    let mut starter = machine(idle, None);
    assert_eq!(starter.deadline(), Some(Time(10_000)));
    check(
        &mut starter,
        vec![
            (9_000, assign(1, [1]), &["start 1"]),
            (30_000, ended(1), &["report | 1 Exited(0) |"]),
            (50_000, Event::TimePassed, &[]),
            (60_000, Event::Acknowledged(vec![id(1)]), &["forget 1"]),
            (69_999, Event::TimePassed, &[]),
            (70_000, Event::TimePassed, &["leave: idle for 10s"]),
        ],
    );
    assert_eq!(starter.deadline(), None);

    // The lease: counted from the last question that the agent answered, connected or not, and whatever else it says.
    let lease = Limits { lease: SECOND * 20, ..limits() };
    check(
        &mut machine(lease, None),
        vec![
            (9_000, assign(1, [1]), &["start 1"]),
            (15_700, Event::AgentHeard { asked: Time(15_000) }, &[]),
            (15_800, Event::AgentHeard { asked: Time(14_000) }, &[]),
            (16_000, Event::MasterLinkChanged { up: false }, &[]),
            (17_000, Event::AgentLost, &[]),
            (34_999, Event::TimePassed, &[]),
            (35_000, Event::TimePassed, &["kill 1"]),
            (35_500, ended(1), &["spool 1"]),
            (36_000, spooled([1], false), &["leave: no answer of the site's agent for 20s"]),
        ],
    );

    // The walltime: 100 s, and a minute before nothing starts.
    let mut starter = machine(limits(), Some(Time(100_000)));
    check(
        &mut starter,
        vec![
            (10_000, assign(2, [1, 2]), &["start 1"]),
            (39_999, Event::TimePassed, &[]),
            (40_000, Event::TimePassed, &["report | | 2"]),
            (50_000, assign(1, [3]), &["report | | 3"]),
            (89_999, Event::TimePassed, &[]),
            (90_000, Event::TimePassed, &["terminate 1"]),
            (92_000, Event::TimePassed, &["kill 1"]),
            (92_100, ended(1), &["report | 1 Evicted(\"walltime of the proxy ended\") |"]),
        ],
    );
    // Nobody acknowledges: it goes to the site's files, if they take it in time.
    assert_eq!(starter.deadline(), Some(Time(94_000)));
    check(&mut starter, vec![(94_000, Event::TimePassed, &["spool 1"])]);
    assert_eq!(starter.deadline(), Some(Time(99_000)));
    check(&mut starter, vec![(99_000, Event::TimePassed, &["leave: walltime of the proxy ended"])]);

    // Draining, it waits for nothing but acknowledgements.
    check(
        &mut machine(limits(), Some(Time(100_000))),
        vec![
            (10_000, assign(1, [1]), &["start 1"]),
            (50_000, ended(1), &["report | 1 Exited(0) |"]),
            (
                60_000,
                Event::Acknowledged(vec![id(1)]),
                &["forget 1", "leave: nothing runs and the walltime ends in 40s"],
            ),
        ],
    );
}

#[test]
fn results_outlive_a_lost_agent() {
    let lease = Limits { lease: SECOND * 20, ..limits() };
    let lost = || -> Vec<(u64, Event<(), ()>, &[&str])> {
        vec![
            (1000, assign(1, [1, 2]), &["start 1", "start 2"]),
            (2000, Event::AgentLost, &[]),
            (9000, ended(1), &[]),
            (9000, ended(2), &[]),
            (20_000, Event::TimePassed, &["spool 1 2"]),
        ]
    };
    let why = "leave: no answer of the site's agent for 20s";
    let mut starter = machine(lease, None);
    check(&mut starter, lost());
    check(&mut starter, vec![(21_000, spooled([1, 2], false), &[why])]);

    // With a full disk it holds them, tries again, and gives them to the agent if that is back first.
    let mut starter = machine(lease, None);
    check(&mut starter, lost());
    check(
        &mut starter,
        vec![
            (21_000, spooled([2], false), &[]),
            (80_999, Event::TimePassed, &[]),
            (81_000, Event::TimePassed, &["spool 1"]),
            (82_000, spooled([], false), &[]),
            (
                90_000,
                Event::AgentConnected { master: true, asked: Time(90_000) },
                &["inventory | | 1", "report | 1 Exited(0) |"],
            ),
            (91_000, Event::Acknowledged(vec![id(1)]), &["forget 1", why]),
        ],
    );

    // But not longer than its walltime lasts, nor for a session that is over, nor when it is asked to end.
    let mut starter = machine(lease, Some(Time(120_000)));
    check(&mut starter, lost());
    check(
        &mut starter,
        vec![
            (21_000, spooled([], false), &[]),
            (81_000, Event::TimePassed, &["spool 1 2"]),
            (82_000, spooled([], false), &[]),
            (110_000, Event::TimePassed, &[why]),
        ],
    );
    let mut starter = machine(lease, None);
    check(&mut starter, lost());
    check(&mut starter, vec![(21_000, spooled([], true), &[why])]);
    let mut starter = machine(lease, None);
    check(&mut starter, lost());
    check(
        &mut starter,
        vec![
            (21_000, spooled([], false), &[]),
            (30_000, Event::EndAsked { why: "TERM".into() }, &["spool 1 2"]),
            (31_000, spooled([], false), &[why]),
        ],
    );
}

#[test]
fn a_drained_starter_leaves_when_nothing_runs() {
    let drain = |why: &str| Event::DrainAsked { why: why.into() };
    check(
        &mut machine(limits(), None),
        vec![
            (1000, assign(2, [1, 2]), &["start 1"]),
            (2000, drain("a bad node"), &["report | | 2"]),
            (3000, assign(1, [3]), &["report | | 3"]),
            (9000, ended(1), &["report | 1 Exited(0) |"]),
            (9100, Event::Acknowledged(vec![id(1)]), &["forget 1", "leave: a bad node"]),
        ],
    );
    check(&mut machine(limits(), None), vec![(1000, drain("a bad node"), &["leave: a bad node"])]);
}

#[test]
fn unacknowledged_results_are_bounded() {
    let mut machine = machine(limits(), None);
    let many = u32::try_from(MAX_UNACKNOWLEDGED).unwrap() + 10;
    machine.handle(Time(1), assign(1, 0..many));
    let mut running = Vec::new();
    loop {
        running.extend(core::iter::from_fn(|| machine.poll_action()).filter_map(|action| match action {
            Action::Start { task, .. } => Some(task.id.job.proc),
            _ => None,
        }));
        let Some(proc) = running.pop() else { break };
        machine.handle(Time(2), ended(proc));
    }
    assert_eq!(machine.queue.len(), 9, "one was running when the last that fits ended");
    machine.handle(Time(3), Event::Acknowledged(vec![id(0), id(1), id(2)]));
    assert!(core::iter::from_fn(|| machine.poll_action()).any(|action| matches!(action, Action::Start { .. })));

    let big = |proc| AttemptResult {
        outputs: vec![crate::job::Output {
            kind: OutputKind::Stdout,
            size: 0,
            hash: [0; 32],
            mode: 0,
            inline: Some(vec![0; REPORT_BYTES / 2]),
        }],
        ..result(proc, Outcome::Exited(0))
    };
    let mut starter = self::machine(limits(), None);
    starter.handle(Time(1), assign(1, 0..1000));
    let mut ran = 0;
    while let Some(action) = starter.poll_action() {
        match action {
            Action::Start { task, .. } => {
                ran += 1;
                starter.handle(Time(2), Event::JobEnded(big(task.id.job.proc)));
            }
            Action::SendReport { results, .. } => assert!(results.iter().map(weight).sum::<usize>() <= REPORT_BYTES),
            _ => {}
        }
    }
    assert!((MAX_UNACKNOWLEDGED_BYTES / REPORT_BYTES * 2..1000).contains(&ran), "{ran}");
}

/// A small generator of random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, from: &BTreeSet<T>) -> Option<T> {
        let at = self.below(from.len().max(1) as u64);
        from.iter().nth(usize::try_from(at).ok()?).copied()
    }
}

/// What an observer of events and actions holds for true.
#[derive(Default)]
struct Checker {
    demand: BTreeMap<AttemptId, u32>,
    ever_started: BTreeSet<AttemptId>,
    running: BTreeSet<AttemptId>,
    doomed: BTreeSet<AttemptId>,
    /// Ended, and not acknowledged.
    owed: BTreeSet<AttemptId>,
    /// Of these, told since the way to the master last opened.
    told: BTreeSet<AttemptId>,
    given_back: BTreeSet<AttemptId>,
    linked: bool,
    inventories: u64,
    left: bool,
}

impl Checker {
    fn see(&mut self, action: Action<(), ()>) {
        assert!(!self.left, "nothing comes after leaving");
        match action {
            Action::Start { task, .. } => {
                assert!(self.ever_started.insert(task.id), "{} started twice", task.id);
                self.running.insert(task.id);
                let used: u32 = self.running.iter().map(|id| self.demand[id]).sum();
                assert!(used <= 2, "{used} CPUs in use");
            }
            Action::Terminate(id) | Action::Kill(id) => {
                assert!(self.running.contains(&id) && self.doomed.contains(&id));
            }
            Action::SendInventory { number, queued, running, finished } => {
                assert!(self.linked);
                assert_eq!(number, self.inventories + 1);
                self.inventories = number;
                let running: BTreeSet<_> = running.into_iter().collect();
                assert!(running.is_superset(&self.running));
                let finished: BTreeSet<_> = finished.into_iter().chain(running).collect();
                assert!(self.owed.is_subset(&finished), "an ended try is not in the inventory");
                assert!(queued.iter().all(|id| !self.ever_started.contains(id)));
                self.told.clear();
            }
            Action::SendReport { started, results, returned } => {
                assert!(self.linked && results.len() <= REPORT_RESULTS);
                assert!(started.iter().all(|id| self.ever_started.contains(id)));
                for result in results {
                    assert!(self.owed.contains(&result.id) || !self.ever_started.contains(&result.id));
                    self.owed.insert(result.id);
                    self.told.insert(result.id);
                    if self.doomed.contains(&result.id) && self.ever_started.contains(&result.id) {
                        assert!(matches!(result.outcome, Outcome::Killed | Outcome::Evicted(_)));
                    }
                }
                self.given_back.extend(returned);
            }
            Action::Forget(ids) => assert!(ids.iter().all(|id| !self.owed.contains(id) && !self.running.contains(id))),
            Action::Spool(ids) => {
                let ids: BTreeSet<_> = ids.into_iter().collect();
                assert!(self.owed.is_subset(&ids), "an ended try is not written down");
            }
            Action::Leave { .. } => self.left = true,
        }
    }
}

/// One life under random events; faults stop, and then everything must come to an end.
fn live(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut machine = machine(limits(), None);
    // Where memory is not counted, only the CPUs are bounds.
    machine.offer.memory_mb *= seed % 2;
    let mut checker = Checker { linked: true, ..Checker::default() };
    let mut now = 0;
    let mut next = 0;
    while let Some(action) = machine.poll_action() {
        checker.see(action);
    }
    for round in 0..400 {
        now += random.below(20);
        let quiet = round >= 300;
        let choice = if quiet { [3, 3, 4, 9][usize::try_from(random.below(4)).unwrap()] } else { random.below(11) };
        let event = match choice {
            0..=2 => {
                // New tries, and sometimes old ones again, which change nothing.
                let mut tasks = Vec::new();
                for _ in 0..random.below(6) {
                    let again = next > 0 && random.below(4) == 0;
                    let proc =
                        if again { u32::try_from(random.below(next)).unwrap() } else { u32::try_from(next).unwrap() };
                    let program = random.below(5);
                    if !again {
                        next += 1;
                        checker.demand.insert(id(proc), u32::try_from(program.max(1)).unwrap());
                    }
                    let cpus = checker.demand[&id(proc)];
                    checker.given_back.remove(&id(proc));
                    tasks.push(Task { id: id(proc), program: u64::from(cpus), body: () });
                }
                if !checker.linked {
                    continue;
                }
                Event::Assigned { inventory: checker.inventories, tasks }
            }
            3 | 10 => match random.pick(&checker.running) {
                Some(id) => {
                    checker.running.remove(&id);
                    checker.owed.insert(id);
                    let outcome = if random.below(5) == 0 { Outcome::Signaled(15) } else { Outcome::Exited(0) };
                    Event::JobEnded(AttemptResult {
                        id,
                        outcome,
                        usage: Usage::default(),
                        outputs: Vec::new(),
                        kept: None,
                    })
                }
                None => Event::TimePassed,
            },
            4 if checker.linked => match random.pick(&checker.told) {
                Some(id) => {
                    checker.told.remove(&id);
                    checker.owed.remove(&id);
                    Event::Acknowledged(vec![id])
                }
                None => Event::TimePassed,
            },
            5 if checker.linked => {
                Event::Recalled { inventory: checker.inventories, count: usize::try_from(random.below(3)).unwrap() }
            }
            6 if checker.linked => {
                let ids: Vec<_> = random.pick(&checker.running).into_iter().collect();
                checker.doomed.extend(ids.iter().copied());
                Event::KillAsked { ids, grace: Duration::from_millis(random.below(100)) }
            }
            7 => {
                checker.linked = random.below(3) > 0;
                Event::AgentConnected { master: checker.linked, asked: Time(now) }
            }
            8 => {
                checker.linked = !checker.linked;
                Event::MasterLinkChanged { up: checker.linked }
            }
            _ => Event::TimePassed,
        };
        machine.handle(Time(now), event);
        while let Some(action) = machine.poll_action() {
            checker.see(action);
        }
        if let Some(deadline) = machine.deadline() {
            assert!(deadline.0 <= now + 1_200_000);
        }
        if round == 300 && !checker.linked {
            checker.linked = true;
            machine.handle(Time(now), Event::MasterLinkChanged { up: true });
            while let Some(action) = machine.poll_action() {
                checker.see(action);
            }
        }
    }
    // The world is kind now: jobs end, results are acknowledged, time passes.
    for _ in 0..10_000 {
        let event = if let Some(id) = checker.running.pop_first() {
            checker.owed.insert(id);
            Event::JobEnded(AttemptResult {
                id,
                outcome: Outcome::Exited(0),
                usage: Usage::default(),
                outputs: Vec::new(),
                kept: None,
            })
        } else if let Some(id) = checker.told.pop_first() {
            checker.owed.remove(&id);
            Event::Acknowledged(vec![id])
        } else if let Some(deadline) = machine.deadline() {
            now = now.max(deadline.0);
            Event::TimePassed
        } else {
            break;
        };
        machine.handle(Time(now), event);
        while let Some(action) = machine.poll_action() {
            checker.see(action);
        }
    }
    assert!(checker.left && checker.owed.is_empty() && checker.running.is_empty(), "seed {seed}");
}

#[test]
fn a_random_world() {
    for seed in 1..=300 {
        live(seed);
    }
}

#[test]
fn spans_read_well() {
    for (ms, text) in
        [(300, "0.300s"), (7_000, "7s"), (60_000, "1m"), (90_000, "1m30s"), (7_200_000, "2h"), (9_000_000, "2h30m")]
    {
        assert_eq!(human(Duration::from_millis(ms)).to_string(), text);
    }
}
