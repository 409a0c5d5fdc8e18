//! `vo-sim --seed N [--log]` replays a world; `vo-sim --seeds A..B [--jobs N] [--first]` runs many, and prints what failed and how to see
//! it again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vo_sim::{Failure, Summary};

const USAGE: &str = "usage: vo-sim --seed N [--log] | --seeds A..B [--jobs N] [--first]

  --log     a line for each thing that happens
  --jobs N  so many worlds at once; as many as there are processors, if not given
  --first   ends at the first world that fails";

/// How often a terminal is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Words {
    seeds: Range<u64>,
    log: bool,
    jobs: Option<usize>,
    first: bool,
}

impl Words {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Words> {
        let mut read = Words::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => {
                    let seed: u64 = words.next()?.parse().ok()?;
                    read.seeds = seed..seed.checked_add(1)?;
                }
                "--seeds" => {
                    let range = words.next()?;
                    let (first, last) = range.split_once("..")?;
                    read.seeds = first.parse().ok()?..last.parse().ok()?;
                }
                "--jobs" => read.jobs = Some(words.next()?.parse().ok().filter(|jobs| *jobs > 0)?),
                "--log" => read.log = true,
                "--first" => read.first = true,
                _ => return None,
            }
        }
        (!read.seeds.is_empty()).then_some(read)
    }
}

fn main() -> ExitCode {
    let Some(words) = Words::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if words.log {
        let mut print = |line: &str| println!("{line}");
        for seed in words.seeds {
            match vo_sim::run(seed, Some(&mut print)) {
                Ok(summary) => println!("{summary:?}"),
                Err(failure) => return report(&[failure]),
            }
        }
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let jobs = words.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (next, stop) = (AtomicU64::new(words.seeds.start), AtomicBool::new(false));
    let all = Mutex::new((Summary::default(), Vec::new(), 0u64));
    let terminal = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let mut shown = begun;
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= words.seeds.end {
                        break;
                    }
                    let result = vo_sim::run(seed, None);
                    let Ok(mut all) = all.lock() else { return };
                    all.2 += 1;
                    match result {
                        Ok(summary) => all.0.add(&summary),
                        Err(failure) => {
                            stop.fetch_or(words.first, Ordering::Relaxed);
                            println!("{failure}");
                            all.1.push(failure);
                        }
                    }
                    if terminal && shown.elapsed() >= PROGRESS {
                        shown = Instant::now();
                        let total = words.seeds.end - words.seeds.start;
                        eprint!("\r{} of {total} worlds, {} failed ", all.2, all.1.len());
                        let _ = std::io::stderr().flush();
                    }
                }
            });
        }
    });
    if terminal {
        eprint!("\r\x1b[K");
    }
    let Ok((summary, mut failures, worlds)) = all.into_inner() else {
        return ExitCode::from(101);
    };
    println!("{worlds} worlds in {:.1} s", begun.elapsed().as_secs_f64());
    let days = summary.took.as_secs() / 86_400;
    println!(
        "  {} jobs completed, {} attempts started; {days} days of virtual time",
        summary.completed, summary.starts
    );
    println!("  {} agents, {} batch jobs, {} steps", summary.agents, summary.batch_jobs, summary.steps);
    let faults: BTreeMap<_, _> = summary.faults;
    println!("  {} faults: {}", faults.values().sum::<u64>(), list(&faults));
    failures.sort_by_key(|failure| failure.seed);
    report(&failures)
}

fn list(faults: &BTreeMap<&str, u64>) -> String {
    let each: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    each.join(", ")
}

fn report(failures: &[Failure]) -> ExitCode {
    for failure in failures {
        println!("failed: {failure}\n  replay: cargo run --release -p vo-sim -- --seed {} --log", failure.seed);
    }
    println!("{} failed", failures.len());
    ExitCode::from(u8::from(!failures.is_empty()))
}
