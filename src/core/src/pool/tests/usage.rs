//! What running jobs use.

use super::terms::Words;
use super::*;

const USED: Usage =
    Usage { wall_ms: 0, cpu_ms: 900, peak_kib: 2000, system_ms: 100, sent_bytes: 0, disk_kib: 50, received_bytes: 0 };

/// Two jobs that run, with event logs.
fn bench() -> Bench {
    let mut bench =
        Bench::with_jobs(vec![GroupRecord { log: Some(Template::constant("log")), ..group(2, program(1)) }]);
    bench.join(2);
    bench.tell(Event::AttemptsStarted { key: KEY, ids: vec![attempt(0, 1), attempt(1, 1)] });
    bench
}

fn measure(bench: &mut Bench, key: StarterKey, id: AttemptId, usage: Usage) -> Vec<u64> {
    let told = bench.tell(Event::AttemptsMeasured { key, used: vec![(id, usage)] });
    let grown = |action: Action| match action {
        Action::Note { note: Note::Grown { peak_kib }, .. } => Some(peak_kib),
        _ => None,
    };
    told.into_iter().filter_map(grown).collect()
}

fn used(bench: &Bench, proc: u32) -> Usage {
    bench.pool.view(attempt(proc, 1).job).unwrap().usage
}

#[test]
fn a_starter_tells_what_its_jobs_use() {
    let mut bench = bench();
    let records = bench.log.len();
    assert_eq!(measure(&mut bench, KEY, attempt(0, 1), USED), [2000]);
    assert_eq!(used(&bench, 0), USED);
    assert_eq!(used(&bench, 1), Usage::default());
    // Sizes are the largest; the log hears of growth.
    let smaller = Usage { cpu_ms: 1000, peak_kib: 10, ..USED };
    assert_eq!(measure(&mut bench, KEY, attempt(0, 1), smaller), []);
    assert_eq!(used(&bench, 0), Usage { cpu_ms: 1000, ..USED });
    assert_eq!(bench.log.len(), records, "no record tells it");
    // What it doesn't have is none of its business.
    for (key, id) in [(StarterKey(99), attempt(1, 1)), (KEY, attempt(1, 2)), (KEY, attempt(7, 1))] {
        assert_eq!(measure(&mut bench, key, id, USED), []);
    }
    assert_eq!(used(&bench, 1), Usage::default());
    bench.refold();
}

#[test]
fn what_a_job_used_that_came_to_nothing_is_known_after_a_crash() {
    let mut bench = bench();
    measure(&mut bench, KEY, attempt(0, 1), USED);
    measure(&mut bench, KEY, attempt(1, 1), USED);
    let select = Select { jobs: [attempt(0, 1).job].into(), ..Select::default() };
    bench.tell(Event::HoldAsked { select, why: "so".into() });
    // Its last words have more to say.
    let usage = Usage { wall_ms: 70, cpu_ms: 950, peak_kib: 3000, ..USED };
    let result = AttemptResult { usage, ..result(attempt(1, 1), Outcome::Evicted("walltime".into())) };
    bench.tell(Event::AttemptEnded { key: KEY, result });
    assert_eq!((bench.state(0), used(&bench, 0)), (JobState::Held, USED));
    let more = Usage { wall_ms: 0, ..usage };
    assert_eq!(used(&bench, 1), more);
    bench.tell(Event::StarterGone { key: KEY, why: "gone".into() });
    bench.refold();
    assert_eq!((used(&bench, 0), used(&bench, 1)), (USED, more));
}

#[test]
fn what_came_to_nothing_may_ask_for_more_the_next_time() {
    let mut bench = Bench { pool: Pool::with_judge(Arc::new(Words::default())), ..Bench::default() };
    let requests = vec![("RequestMemory".to_owned(), "starts".to_owned())];
    let terms = Terms { requests: requests.clone(), ..Terms::default() };
    bench.pool.submit(bench.now, "test".into(), vec![GroupRecord { terms, ..group(3, program(1)) }]);
    bench.join(3);
    let memory = |bench: &Bench, proc| bench.pool.view(attempt(proc, 1).job).unwrap().program.memory_mb;
    bench.tell(Event::AttemptsStarted { key: KEY, ids: (0..3).map(|proc| attempt(proc, 1)).collect() });
    bench.end(KEY, attempt(0, 1), Outcome::Evicted("walltime".into()));
    let select = |proc| Select { jobs: [attempt(proc, 1).job].into(), ..Select::default() };
    bench.tell(Event::HoldAsked { select: select(1), why: "so".into() });
    assert_eq!([0, 1, 2].map(|proc| memory(&bench, proc)), [Some(100), Some(100), None]);
    bench.refold();
    assert_eq!([0, 1, 2].map(|proc| memory(&bench, proc)), [Some(100), Some(100), None]);
    // The user's word is the last.
    let edit = Edit { memory_mb: Some(7), ..Edit::default() };
    bench.tell(Event::EditAsked { select: select(1), edit });
    let terms = bench.pool.view(attempt(1, 1).job).unwrap().terms.clone();
    assert_eq!((memory(&bench, 1), terms.requests.len()), (Some(7), 0));
    assert_eq!(bench.pool.view(attempt(0, 1).job).unwrap().terms.requests, requests);
}
