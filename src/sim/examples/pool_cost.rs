//! What the pool costs: a million jobs through a hundred starters, in nanoseconds a job.
//!
//! `cargo run --release -p vo-sim --example pool_cost [JOBS [STARTERS [CLUSTERS]]]`

use std::time::{Duration, Instant};

use vo_core::job::{AttemptResult, Outcome, Program, Usage};
use vo_core::pool::{Action, Event, GroupRecord, Offer, Pool, Record, Select, Shared, Snapshot};
use vo_core::{ProxyId, SiteId, StarterKey, Time};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>());
    let mut number = |default| words.next().unwrap_or(Ok(default));
    let (jobs, starters, clusters) = (number(1_000_000)?, number(100)?, number(1)?.max(1));
    let jobs = jobs / clusters * clusters;
    println!("{jobs} jobs in {clusters} clusters, {starters} starters of 16 CPUs");

    let mut bench = Bench { jobs, pool: Pool::new(), log: Vec::new() };
    bench.measure("submit", |pool, _| {
        for _ in 0..clusters {
            pool.submit(Time(1), "cost".into(), vec![group(jobs / clusters)]);
        }
    });
    let began = Instant::now();
    let state = minicbor::to_vec(bench.pool.snapshot())?;
    report("snapshot", began.elapsed(), jobs, &format!("{} bytes a job", state.len() as f64 / f64::from(jobs)));
    let began = Instant::now();
    let restored = Pool::new().restore(minicbor::decode::<Snapshot>(&state)?);
    report("restore", began.elapsed(), jobs, "");
    assert_eq!(restored.counts(&Select::default()), bench.pool.counts(&Select::default()));

    let mut out = Vec::new();
    bench.measure("starters join", |pool, _| {
        for key in (1..=u64::from(starters)).map(StarterKey) {
            let (offer, time_left) = (offer(key), None);
            pool.handle(Time(2), Event::StarterJoined { key, offer, time_left });
            let (queued, running, finished) = (Vec::new(), Vec::new(), Vec::new());
            pool.handle(Time(2), Event::InventoryTold { key, number: 1, queued, running, finished });
        }
    });
    let drain = |pool: &mut Pool, out: &mut Vec<_>| {
        while let Some(action) = pool.poll_action(u64::MAX) {
            if let Action::Assign { key, attempts, .. } = action {
                out.extend(attempts.into_iter().map(|each| (key, each.id)));
            }
        }
    };
    drain(&mut bench.pool, &mut out);
    let mut now = 3;
    bench.measure("dispatch, start, complete", |pool, log| {
        while !out.is_empty() {
            // A report of each starter brings what it had.
            for (key, id) in std::mem::take(&mut out) {
                pool.handle(Time(now), Event::AttemptsStarted { key, ids: vec![id] });
                let usage = Usage { wall_ms: 10, ..Usage::default() };
                let result = AttemptResult { id, outcome: Outcome::Exited(0), usage, outputs: Vec::new(), kept: None };
                pool.handle(Time(now), Event::AttemptEnded { key, result });
            }
            log.extend(pool.take_records());
            drain(pool, &mut out);
            now += 1;
        }
    });
    let counts = bench.pool.counts(&Select::default());
    assert_eq!(counts.completed, jobs, "{counts:?}");

    let began = Instant::now();
    let mut folded = Pool::new();
    bench.log.iter().for_each(|record| folded.apply(record));
    report("fold of all records", began.elapsed(), jobs, "");
    assert_eq!(folded.counts(&Select::default()), counts);
    let began = Instant::now();
    let seen = bench.pool.views(&Select::default(), None).count();
    report("list", began.elapsed(), jobs, "");
    assert_eq!(seen, jobs as usize);
    bench.pool.submit(Time(now), "cost".into(), vec![group(jobs)]);
    bench.measure("remove", |pool, _| {
        pool.handle(Time(now), Event::RemovalAsked { select: Select::default() });
    });
    Ok(())
}

struct Bench {
    jobs: u32,
    pool: Pool,
    log: Vec<Record>,
}

impl Bench {
    fn measure(&mut self, what: &str, work: impl FnOnce(&mut Pool, &mut Vec<Record>)) {
        let (began, first) = (Instant::now(), self.log.len());
        work(&mut self.pool, &mut self.log);
        self.log.extend(self.pool.take_records());
        let took = began.elapsed();
        let bytes: usize =
            self.log[first..].iter().map(|record| minicbor::to_vec(record).map_or(0, |bytes| bytes.len())).sum();
        report(what, took, self.jobs, &format!("journal {:.1} bytes a job", bytes as f64 / f64::from(self.jobs)));
    }
}

fn report(what: &str, took: Duration, jobs: u32, more: &str) {
    let each = took.as_nanos() as f64 / f64::from(jobs);
    println!("{what:<26} {each:>9.1} ns a job {:>10.1} ms  {more}", took.as_secs_f64() * 1e3);
}

fn group(count: u32) -> GroupRecord {
    let program = Program { cpus: 1, ..Program::default() };
    GroupRecord { count, program, ..GroupRecord::default() }
}

fn offer(key: StarterKey) -> Offer {
    Offer {
        site: SiteId(1),
        proxy: ProxyId(key.0),
        host: format!("node{}", key.0),
        cpus: 16,
        memory_mb: 64 << 10,
        gpus: 0,
        shared: Shared::Everything,
        drain: Duration::from_secs(60),
        arch: "x86_64".into(),
        system: "Linux".into(),
        attributes: Vec::new(),
        resources: Vec::new(),
    }
}
