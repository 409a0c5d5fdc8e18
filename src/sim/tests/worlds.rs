//! Whole sessions in virtual time, under faults.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that fails may panic")]

use std::collections::BTreeMap;

/// Seeds that once failed, one a line.
const SEEDS: &str = include_str!("../../../tests/seeds/sim");

fn check(seeds: impl Iterator<Item = u64>) {
    let (mut failed, mut faults, mut completed, mut starts) = (Vec::new(), BTreeMap::new(), 0, 0);
    for seed in seeds {
        match vo_sim::run(seed, None) {
            Ok(summary) => {
                completed += summary.completed;
                starts += summary.starts;
                for (kind, count) in summary.faults {
                    *faults.entry(kind).or_insert(0) += count;
                }
            }
            Err(failure) => failed.push(failure.to_string()),
        }
    }
    assert!(failed.is_empty(), "{}\nreplay: cargo run --release -p vo-sim -- --seed N --log", failed.join("\n"));
    assert!(completed > 0 && starts > completed, "{completed} jobs in {starts} starts: nothing was tried twice");
    assert!(!faults.is_empty(), "no faults came");
}

#[test]
fn two_hundred_worlds() {
    check(0..200);
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
