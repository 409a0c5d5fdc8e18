//! The real starter against an agent played by the test: what it runs, what it tells, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod starter_harness;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use starter_harness::*;
use vo_core::Template;
use vo_core::job::{Outcome, Program};
use vo_core::template::Piece;
use vo_wire::node::{End, Leaving, MasterLink, Shares};
use vo_wire::work::{Kill, Recall, Report};

#[tokio::test]
async fn jobs_run_in_their_own_directory() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[
        ("VO_NODE_CPUS", "3"),
        ("VO_TIME_LEFT_S", "3600"),
        ("VO_NODE_INDEX", "x"),
    ]);
    let mut peer = agent.accept().await;
    let facts = peer.hello.facts.clone();
    assert_eq!(
        (facts.cpus, facts.shares, facts.batch_id.as_str(), facts.restarts),
        (3, Shares::Everything, "4711", 0)
    );
    assert!(
        (3_590_000..=3_600_000).contains(&facts.time_left_ms.unwrap()),
        "{facts:?}"
    );
    assert!(facts.memory_mb > 0 && facts.scratch_bytes > 0 && facts.pid as i32 == process.starter());
    assert!(peer.inventory().await.queued.is_empty());

    let work = agent.work();
    let script =
        "cat; pwd; echo $VO_JOB $VO_ATTEMPT $GREETING $OMP_NUM_THREADS [$SLURM_SECRET]; echo \"$1\" >&2; exit 3";
    let mut program = shell(&work, script);
    program.arguments.extend([constant("sh"), constant(b"\xff arg")]);
    program.environment.push((
        constant("GREETING"),
        Template(vec![Piece::Text(b"hi-".to_vec()), Piece::Process]),
    ));
    program.input = Some(constant("in"));
    program.output = Some(Template(vec![Piece::Text(b"out.\xfe".to_vec()), Piece::Process]));
    program.error = Some(constant("err"));
    program.cpus = 2;
    fs::write(work.join("in"), "input\n").unwrap();
    peer.define(1, program).await;
    peer.assign(1, &[id(5)]).await;
    let result = peer.result(id(5)).await;
    assert_eq!(result.outcome, Outcome::Exited(3));
    assert!(result.outputs.is_empty() && result.usage.peak_kib > 0);
    let out = fs::read(work.join(Path::new(std::ffi::OsStr::from_bytes(b"out.\xfe5")))).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("input\n{}\n1.5 1 hi-5 2 []\n", work.display())
    );
    assert_eq!(fs::read(work.join("err")).unwrap(), b"\xff arg\n");
    peer.acknowledge(&[id(5)]).await;

    peer.send(&End { why: "over".into() }).await;
    assert_eq!(peer.expect::<Leaving>().await.why, "over");
    assert!(process.end().await.success());
    assert!(!agent.tag().exists());
    assert_eq!(fs::read_dir(agent.root.join("scratch")).unwrap().count(), 0);
}
