//! What durability costs: a million records of 16 bytes in commits of a thousand, and opening them again.
//!
//! `cargo run --release -p vo-store --example cost [DIR]`; without DIR it measures the file system of the temporary
//! directory.

use std::error::Error;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use vo_store::{Log, Options};

const RECORDS: u32 = 1_000_000;
const COMMIT: u32 = 1_000;

fn cpu_seconds() -> Result<f64, nix::Error> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok([usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum())
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent)?;

    let mut log = Log::open(dir.path(), Options::default(), |_| Ok::<(), &str>(()))?.log;
    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    let (mut commits, mut worst) = (0, 0.0_f64);
    for i in 0..RECORDS {
        log.append(&u128::from(i).to_le_bytes());
        if (i + 1) % COMMIT == 0 {
            let start = Instant::now();
            log.commit()?;
            worst = worst.max(start.elapsed().as_secs_f64());
            commits += 1;
        }
    }
    println!(
        "write:    {:.3} CPU-s, {:.3} s, {commits} commits of one fdatasync, {} bytes, worst commit {:.1} ms",
        cpu_seconds()? - cpu,
        wall.elapsed().as_secs_f64(),
        log.size(),
        worst * 1e3
    );
    drop(log);

    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    let mut seen = 0;
    let mut log = Log::open(dir.path(), Options::default(), |_| {
        seen += 1;
        Ok::<(), &str>(())
    })?
    .log;
    println!("open:     {:.3} CPU-s, {:.3} s, {seen} records", cpu_seconds()? - cpu, wall.elapsed().as_secs_f64());

    let state = vec![1; 16 * RECORDS as usize];
    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    log.snapshot(&state)?;
    let (cpu, wall) = (cpu_seconds()? - cpu, wall.elapsed().as_secs_f64());
    println!("snapshot: {cpu:.3} CPU-s, {wall:.3} s, {} bytes", state.len());
    Ok(())
}
