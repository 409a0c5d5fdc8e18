//! `vo-sim --seed N [--log]` or `vo-sim --seeds A..B`: runs worlds, and prints what failed and how to see it again.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (range, log) = match words[..] {
        ["--seed", seed] => (one(seed), false),
        ["--seed", seed, "--log"] => (one(seed), true),
        ["--seeds", range] => (some(range), false),
        _ => (None, false),
    };
    let Some(range) = range else {
        eprintln!("usage: vo-sim --seed N [--log] | --seeds A..B");
        return ExitCode::from(2);
    };
    let mut failed = 0;
    for seed in range {
        let mut print = |line: &str| println!("{line}");
        match vo_sim::run(seed, if log { Some(&mut print) } else { None }) {
            Ok(summary) if log => println!("{summary:?}"),
            Ok(_) => {}
            Err(failure) => {
                failed += 1;
                println!("{failure}\n  replay: cargo run --release -p vo-sim -- --seed {seed} --log");
            }
        }
    }
    println!("{failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn one(seed: &str) -> Option<std::ops::Range<u64>> {
    let seed: u64 = seed.parse().ok()?;
    Some(seed..seed.checked_add(1)?)
}

fn some(range: &str) -> Option<std::ops::Range<u64>> {
    let (first, last) = range.split_once("..")?;
    Some(first.parse().ok()?..last.parse().ok()?)
}
