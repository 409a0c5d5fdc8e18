//! A short run of `tests/endure`, each kind of fault among them in the long run.

use vo_tests::endure::{Plan, endure};

#[test]
fn three_hundred_jobs_outlive_fourteen_faults() {
    let tally = endure(&Plan { rounds: 14, jobs: 300, ..Plan::default() });
    let hits: u32 = tally.faults.values().sum();
    assert!(hits >= 7, "most faults hit something:\n{tally}");
    println!("{tally}");
}
