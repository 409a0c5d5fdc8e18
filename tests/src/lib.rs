//! What the tests of the whole share: a home of its own for each test, terminals to type at, the testbed's sites, and waiting
//! for a condition with a time limit.
//!
//! These tests see the release binaries (`VO_BIN_DIR`) as a person does: by their arguments, terminals, files and exit codes.
//! They must not link to what they test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

pub mod endure;
mod examples;
mod home;
mod terminal;
pub mod testbed;
mod tour;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use examples::{examples, run_example};
pub use home::{Home, Run};
pub use terminal::{Picture, Terminal};
pub use tour::take_tour;

/// Polls `condition` until it gives something. Panics with `what` when `limit` has passed.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `n` seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Leaves the running test out, visibly: its name and `why` go to the summary of `tests/run`. The test returns after this.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("skipped: {name}: {why}");
    if let Some(file) = std::env::var_os("VO_TEST_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(file).expect("VO_TEST_SKIPS can be written");
        writeln!(file, "{name}: {why}").expect("VO_TEST_SKIPS can be written");
    }
}

/// One of our binaries: in `VO_BIN_DIR`, else in the release directory beside the one that this test was built in.
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("VO_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("this test has a path");
        let target = test.ancestors().nth(3).expect("a test is built below target/debug/deps");
        target.join("release")
    });
    let path = dir.join(name);
    assert!(path.exists(), "{} is not there: cargo build --release", path.display());
    path
}

/// The top of the project.
pub fn project() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests is in the project").to_owned()
}
