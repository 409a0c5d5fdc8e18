//! Holds, releases and edits.

use super::*;

fn some(procs: &[u32]) -> Select {
    Select { jobs: procs.iter().map(|proc| JobId { cluster: 1, proc: *proc }).collect(), ..Select::default() }
}

impl Bench {
    fn hold(&mut self, procs: &[u32]) -> Vec<Action> {
        self.tell(Event::HoldAsked { select: some(procs), why: "wait".into() })
    }

    fn release(&mut self, procs: &[u32]) -> Vec<Action> {
        self.tell(Event::ReleaseAsked { select: some(procs) })
    }

    fn edit(&mut self, procs: &[u32], edit: Edit) -> Vec<Action> {
        self.tell(Event::EditAsked { select: some(procs), edit })
    }
}

#[test]
fn a_held_job_waits_until_it_is_released() {
    let mut bench = Bench::with_jobs(vec![group(4, program(1))]);
    assert_eq!(told(&bench.hold(&[0, 2])), "");
    assert_eq!(told(&bench.join(4)), "7: run 1.1#1 1.3#1");
    assert_eq!([0, 1, 2, 3].map(|proc| bench.state(proc)), {
        use JobState::{Held, Matched};
        [Held, Matched, Held, Matched]
    });
    bench.refold();
    bench.join(4);
    bench.inventory(KEY, &[attempt(1, 1), attempt(3, 1)], &[], &[]);
    assert_eq!(told(&bench.release(&[0, 1, 2])), "7: run 1.0#1 1.2#1");
    assert_eq!(bench.pool.counts(&Select::default()).held, 0);
}

#[test]
fn what_runs_is_killed_when_it_is_held_and_runs_again_when_it_is_released() {
    let mut bench = Bench::with_jobs(vec![group(2, program(1))]);
    bench.join(1);
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    assert_eq!(told(&bench.hold(&[0])), "7: kill 1.0#1");
    // The slot is its starter's until that says that it is gone.
    assert_eq!(told(&bench.end(KEY, attempt(0, 1), Outcome::Killed)), "7: forget 1.0#1");
    assert_eq!(bench.state(0), JobState::Held);
    let reason = bench.pool.view(attempt(0, 1).job).unwrap().reason.map(str::to_owned);
    assert_eq!(reason.as_deref(), Some("wait"));
    bench.release(&[0]);
    bench.end(KEY, attempt(1, 1), Outcome::Exited(0));
    assert_eq!((bench.state(0), bench.pool.view(attempt(0, 1).job).unwrap().attempts), (JobState::Matched, 2));
    bench.refold();
}

#[test]
fn a_result_that_was_under_way_counts_though_its_job_was_held() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.join(1);
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1)] });
    bench.hold(&[0]);
    bench.end(KEY, attempt(0, 1), Outcome::Exited(0));
    assert_eq!(bench.state(0), JobState::Completed);
    bench.refold();
}

#[test]
fn edits_of_some_jobs_leave_the_others_as_they_were() {
    let mut bench = Bench::with_jobs(vec![group(6, program(1)), group(1, program(1))]);
    bench.edit(&[4], Edit { priority: Some(1), ..Edit::default() });
    bench.edit(&[1, 2], Edit { cpus: Some(2), ..Edit::default() });
    // Once more, of a part of those.
    bench.edit(&[2], Edit { priority: Some(5), ..Edit::default() });
    assert_eq!(told(&bench.join(2)), "7: run 1.2#1; 7: run 1.4#1 1.0#1");
    let cpus = |proc| bench.pool.view(attempt(proc, 1).job).unwrap().program.cpus;
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(cpus), [1, 2, 2, 1, 1, 1, 1]);
    bench.refold();
    // All of a group: it is the same one, changed.
    let groups = bench.pool.clusters[&1].groups.len();
    bench.edit(&[6], Edit { memory_mb: Some(7), ..Edit::default() });
    assert_eq!(bench.pool.clusters[&1].groups.len(), groups);
    assert_eq!(bench.pool.view(attempt(6, 1).job).unwrap().program.memory_mb, Some(7));
    // What changes nothing makes nothing.
    bench.edit(&[0], Edit { cpus: Some(1), ..Edit::default() });
    assert_eq!(bench.pool.clusters[&1].groups.len(), groups);
    bench.refold();
}

#[test]
fn the_history_of_a_job_tells_its_changes() {
    let mut bench = Bench::with_jobs(vec![group(1, program(1))]);
    bench.hold(&[0]);
    bench.edit(&[0], Edit { priority: Some(-3), requirements: Some("Cpus > 4".into()), ..Edit::default() });
    bench.release(&[0]);
    let mut trail = Trail::new(attempt(0, 1).job, Vec::new(), &Pool::new());
    bench.log.iter().for_each(|record| trail.see(record));
    let told: Vec<String> = trail.steps().0.iter().map(|step| format!("{}: {}", step.by, step.text)).collect();
    assert_eq!(
        told[1..],
        [
            "you: held: wait",
            "you: edited: priority = -3, requirements = Cpus > 4",
            "you: released; the job is idle again"
        ]
    );
}

#[test]
fn attempts_are_killed_as_their_programs_ask() {
    let killing = Killing { signal: 10, remove: 12, hold: 15, vacate_s: Some(60), remove_s: Some(100_000) };
    let other = Killing { remove: 9, ..Killing::default() };
    let with = |killing| group(1, Program { killing, ..program(1) });
    let mut bench = Bench::with_jobs(vec![with(killing), with(other), with(killing), with(other)]);
    bench.join(4);
    let kills = |actions: Vec<Action>| {
        let kill = |action| match action {
            Action::Kill { ids, grace, signal, .. } => Some((ids[0].job.proc, grace.as_secs(), signal)),
            _ => None,
        };
        actions.into_iter().filter_map(kill).collect::<Vec<_>>()
    };
    assert_eq!(kills(bench.hold(&[0, 1])), [(1, 5, 0), (0, 600, 15)]);
    assert_eq!(kills(bench.tell(Event::RemovalAsked { select: some(&[2, 3]) })), [(3, 5, 9), (2, 600, 12)]);
}

#[test]
fn what_stays_in_the_queue_after_its_end_can_be_taken_out() {
    let leaves = |value: &str| {
        let terms = Terms { attributes: vec![("leavejobinqueue".into(), value.into())], ..Terms::default() };
        GroupRecord { terms, ..group(2, program(1)) }
    };
    let mut bench = Bench::with_jobs(vec![leaves("JobStatus == 4"), leaves("False"), group(1, program(1))]);
    bench.join(8);
    for proc in 0..5 {
        bench.end(KEY, attempt(proc, 1), Outcome::Exited(0));
    }
    let staying =
        |bench: &Bench, select: &Select| -> Vec<u32> { bench.pool.staying(select).map(|view| view.id.proc).collect() };
    assert_eq!(staying(&bench, &Select::default()), [0, 1]);
    let one = Select { jobs: [attempt(1, 1).job].into(), ..Select::default() };
    assert_eq!(staying(&bench, &one), [1]);
    let jobs = (0..5).filter(|proc| *proc != 1).map(|proc| attempt(proc, 1).job).collect();
    bench.tell(Event::DismissalAsked { jobs });
    assert!(matches!(bench.log.last(), Some(Record::Dismissed { ranges, .. }) if *ranges == [(1, 0, 0)]));
    assert_eq!(staying(&bench, &Select::default()), [1]);
    bench.refold();
    assert_eq!(staying(&bench, &Select::default()), [1]);
    let restored = Pool::new().restore(bench.pool.snapshot());
    assert_eq!(restored.staying(&Select::default()).map(|view| view.id.proc).collect::<Vec<_>>(), [1]);
}
