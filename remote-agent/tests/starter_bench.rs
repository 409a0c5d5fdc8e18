//! What a job costs beside the bare spawn of its program. By hand:
//! `cargo test --release -p vo-agent --test starter_bench -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod starter_harness;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::waitpid;
use starter_harness::*;
use vo_core::job::Outcome;
use vo_wire::node::{End, Leaving};
use vo_wire::work::Report;

const JOBS: u32 = 10_000;
/// What a master keeps at a starter beyond its slots.
const BACKLOG: u32 = 64;

/// CPU time of the children that were waited for.
fn spent() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let span = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    span(usage.user_time()) + span(usage.system_time())
}

fn own() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let span = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    span(usage.user_time()) + span(usage.system_time())
}

/// Two in flight, as bare as it gets: (wall, CPU of spawner and children).
fn bare() -> (Duration, Duration) {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (wall, cpu) = (Instant::now(), spent() + own());
    let mut flying = 0;
    for _ in 0..JOBS {
        let stdio = || Stdio::from(null.try_clone().unwrap());
        let mut command = Command::new("/bin/true");
        drop(command.env_clear().process_group(0).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap());
        flying += 1;
        if flying == 2 {
            waitpid(None, None).unwrap();
            flying -= 1;
        }
    }
    waitpid(None, None).unwrap();
    (wall.elapsed(), spent() + own() - cpu)
}

/// The same jobs through the starter: (wall, CPU of guardian, starter and jobs).
async fn through_the_starter() -> (Duration, Duration) {
    let agent = Agent::new(|_| {}).await;
    let before = spent();
    let process = agent.start(&[("VO_NODE_CPUS", "2")]);
    let mut peer = agent.accept().await;
    peer.inventory().await;
    peer.define(1, plain(&agent.work(), "/bin/true")).await;
    let wall = Instant::now();
    let (mut given, mut done) = (0, 0);
    while done < JOBS {
        let more = (JOBS - given).min(2 + BACKLOG - (given - done));
        if more > 0 {
            peer.assign(1, &(given..given + more).map(id).collect::<Vec<_>>()).await;
            given += more;
        }
        let report: Report = peer.expect().await;
        assert!(report.results.iter().all(|result| result.outcome == Outcome::Exited(0)));
        done += report.results.len() as u32;
        let ids: Vec<_> = report.results.iter().map(|result| result.id).collect();
        if !ids.is_empty() {
            peer.acknowledge(&ids).await;
        }
    }
    let wall = wall.elapsed();
    for (who, pid) in [("guardian", process.pid()), ("starter", process.starter())] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        println!("{who}: {}, {}", line("VmHWM"), line("VmRSS"));
    }
    peer.send(&End { why: "over".into() }).await;
    peer.expect::<Leaving>().await;
    assert!(process.end().await.success());
    (wall, spent() - before)
}

#[tokio::test]
#[ignore = "a benchmark"]
async fn cost_of_a_job() {
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (bare_wall, bare_cpu) = bare();
        let (wall, cpu) = through_the_starter().await;
        let ratio = cpu.as_secs_f64() / bare_cpu.as_secs_f64();
        println!(
            "bare {:.2} s, {:.2} CPU-s; starter {:.2} s, {:.2} CPU-s; ratios {:.3} wall, {ratio:.3} CPU",
            bare_wall.as_secs_f64(),
            bare_cpu.as_secs_f64(),
            wall.as_secs_f64(),
            cpu.as_secs_f64(),
            wall.as_secs_f64() / bare_wall.as_secs_f64(),
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median CPU ratio {:.3}", ratios[2]);
}
