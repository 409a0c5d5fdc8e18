//! Whole sessions in virtual time, under faults.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that fails may panic")]

use vo_sim::Summary;

/// Seeds that once failed, one a line.
const SEEDS: &str = include_str!("../../../tests/seeds/sim");

fn check(seeds: impl Iterator<Item = u64>) -> Summary {
    let (mut failed, mut all) = (Vec::new(), Summary::default());
    for seed in seeds {
        match vo_sim::run(seed, None) {
            Ok(summary) => all.add(&summary),
            Err(failure) => failed.push(failure.to_string()),
        }
    }
    assert!(failed.is_empty(), "{}\nreplay: cargo run --release -p vo-sim -- --seed N --log", failed.join("\n"));
    assert!(all.completed > 0 && all.starts > all.completed, "{all:?}: nothing was tried twice");
    all
}

#[test]
fn three_hundred_worlds() {
    let all = check(0..300);
    assert!(all.faults.len() >= 18, "every kind of fault comes: {all:?}");
}

#[test]
fn worlds_that_once_failed() {
    let lines = SEEDS.lines().filter(|line| !line.starts_with('#'));
    check(lines.map(|line| {
        line.split_whitespace().next().and_then(|seed| seed.parse().ok()).expect("a seed begins each line")
    }));
}

#[test]
fn a_seed_decides_everything() {
    let log = |seed| {
        let mut lines = Vec::new();
        let mut keep = |line: &str| lines.push(line.to_owned());
        let summary = vo_sim::run(seed, Some(&mut keep)).unwrap_or_else(|failure| panic!("{failure}"));
        (lines, summary)
    };
    assert!(log(1) == log(1));
    assert!(log(1) != log(2));
}
