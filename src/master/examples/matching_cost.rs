//! What matching by expressions costs: jobs in 100 groups of requirements and ranks of their own, run to their ends by slots of 20 kinds.
//!
//! `cargo run --release -p vo-master --example matching_cost [JOBS [SLOTS [GROUPS [KINDS]]]]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use vo_core::job::{AttemptResult, Outcome, Program, Usage};
use vo_core::pool::{Action, Event, GroupRecord, Offer, Pool, Select, Shared, Terms};
use vo_core::{ProxyId, SiteId, StarterKey, Time};
use vo_master::judge::ClassAds;

/// Requirements: what a slot is, and what passes with time.
const REQUIREMENTS: [(&str, &str); 3] = [
    ("kind of slot", "(TARGET.Arch == \"X86_64\") && (TARGET.Memory >= 1024 * {n}) && (TARGET.Kind >= {n} % {k})"),
    ("TimeToLive too", "(TARGET.Memory >= 1024 * {n}) && (TARGET.Kind >= {n} % {k}) && (TARGET.TimeToLive > 60 * {n})"),
    ("with a rank", "(TARGET.Memory >= 1024 * {n}) && (TARGET.Kind >= {n} % {k})"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>());
    let mut number = |default| words.next().unwrap_or(Ok(default));
    let (jobs, slots, groups, kinds) = (number(1_000_000)?, number(10_000)?, number(100)?.max(1), number(20)?.max(1));
    let jobs = jobs / groups * groups;
    println!("{jobs} jobs in {groups} groups, {slots} slots of {kinds} kinds");
    for (what, requirements) in REQUIREMENTS {
        let mut pool = Pool::with_judge(Arc::new(ClassAds::default()));
        let began = Instant::now();
        for n in 0..groups {
            let text = requirements.replace("{n}", &n.to_string()).replace("{k}", &kinds.to_string());
            let rank = what.contains("rank").then(|| format!("TARGET.Kind * {n} % 7"));
            let terms = Terms { requirements: Some(text), rank, ..Terms::default() };
            let program = Program { cpus: 1, ..Program::default() };
            let group = GroupRecord { count: jobs / groups, program, terms, ..GroupRecord::default() };
            pool.submit(Time(1), "cost".into(), vec![group]);
        }
        for key in (1..=u64::from(slots)).map(StarterKey) {
            let (offer, time_left) = (offer(key, kinds, groups), Some(Duration::from_secs(86_400)));
            pool.handle(Time(2), Event::StarterJoined { key, offer, time_left });
            let (queued, running, finished) = (Vec::new(), Vec::new(), Vec::new());
            pool.handle(Time(2), Event::InventoryTold { key, number: 1, queued, running, finished });
        }
        let mut out = Vec::new();
        let joined = began.elapsed();
        drain(&mut pool, &mut out);
        let placed = began.elapsed();
        println!(
            "{what}: {:.2} s for the jobs and the slots, {:.2} s for the first matching",
            joined.as_secs_f64(),
            (placed - joined).as_secs_f64()
        );
        let mut now = 3;
        while !out.is_empty() {
            // A starter at a time ends what it runs, and is given more.
            let mut ended: Vec<_> = std::mem::take(&mut out);
            ended.sort_unstable();
            for of_one in ended.chunk_by(|(a, _), (b, _)| a == b) {
                for &(key, id) in of_one {
                    pool.handle(Time(now), Event::AttemptsStarted { key, ids: vec![id] });
                    let usage = Usage { wall_ms: 1000, ..Usage::default() };
                    let result =
                        AttemptResult { id, outcome: Outcome::Exited(0), usage, outputs: Vec::new(), kept: None };
                    pool.handle(Time(now), Event::AttemptEnded { key, result });
                }
                drain(&mut pool, &mut out);
            }
            now += 1;
        }
        let counts = pool.counts(&Select::default());
        let each = (began.elapsed() - placed).as_nanos() as f64 / f64::from(counts.completed);
        println!(
            "{what}: {} of {jobs} done, {:.2} s, {each:.0} ns a job; {} MiB at the peak",
            counts.completed,
            began.elapsed().as_secs_f64(),
            peak_mib()?
        );
    }
    Ok(())
}

/// Does the matching, and takes what was given out.
fn drain(pool: &mut Pool, out: &mut Vec<(StarterKey, vo_core::ids::AttemptId)>) {
    pool.take_records();
    while let Some(action) = pool.poll_action(u64::MAX) {
        if let Action::Assign { key, attempts, .. } = action {
            out.extend(attempts.into_iter().map(|each| (key, each.id)));
        }
    }
}

fn offer(key: StarterKey, kinds: u32, groups: u32) -> Offer {
    let kind = key.0 % u64::from(kinds);
    Offer {
        site: SiteId(1),
        proxy: ProxyId(key.0),
        host: format!("node{}", key.0),
        cpus: 1,
        memory_mb: 1024 * u64::from(groups) + kind,
        gpus: 0,
        shared: Shared::Nothing,
        drain: Duration::from_secs(60),
        arch: "x86_64".into(),
        system: "Debian GNU/Linux 12 (bookworm)".into(),
        attributes: vec![("Kind".into(), kind.to_string())],
        resources: Vec::new(),
    }
}

fn peak_mib() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.unwrap_or_default() >> 10)
}
