//! The event agent as a master sees it: through `vo-agent connect`, with this machine's cores as the batch system.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails may panic"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use vo_net::frames::{FrameSource, send};
use vo_net::tls::SessionCa;
use vo_wire::frame::{Frame, Message};
use vo_wire::link::{
    AgentHello, AgentRefused, Configure, Limits, Marker, ProxyReport, ProxyShape, ProxyState, SetTarget, Shutdown,
    ShutdownDone, StarterUp,
};

const SESSION: &str = "test-00112233445566aa";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn configure(authority: &str) -> Configure {
    Configure {
        protocol: vo_wire::PROTOCOL,
        session: "test".to_owned(),
        session_id: "00112233445566aa".to_owned(),
        site: "here".to_owned(),
        master_epoch: 1,
        authority: authority.to_owned(),
        proxies: ProxyShape {
            batch: Some("fork".to_owned()),
            nodes: 1,
            cpus: 1,
            memory_mb: None,
            walltime_s: 600,
            queue: None,
            account: None,
            directives: Vec::new(),
            parallel_environment: None,
            scratch: None,
        },
        limits: Limits {
            queued_permille: 150,
            queued_base: 2,
            idle_ms: 600_000,
            lease_ms: 60_000,
            drain_ms: 1000,
            ports: None,
            status_ms: 60_000,
            capture_bytes: 1 << 20,
            inline_bytes: 4096,
            heartbeat_ms: 7_200_000,
            missed_heartbeats: 3,
            shutdown_on_missed: true,
        },
        marker: Marker {
            path: b"/nonexistent".to_vec(),
            content: String::new(),
            host: String::new(),
        },
    }
}

struct Bridge {
    child: Child,
    stdin: ChildStdin,
    frames: FrameSource<ChildStdout>,
}

impl Bridge {
    fn open(root: &Path) -> Bridge {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vo-agent"));
        command.args(["connect", "--session", SESSION, "--dir"]).arg(root);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let frames = FrameSource::new(child.stdout.take().unwrap());
        Bridge { child, stdin, frames }
    }

    async fn say<M: Message>(&mut self, message: &M) {
        send(&mut self.stdin, 0, message).await.unwrap();
    }

    async fn frame(&mut self) -> Frame {
        let frame = tokio::time::timeout(PATIENCE, self.frames.next())
            .await
            .expect("a frame in time");
        frame.unwrap().expect("the stream goes on")
    }

    /// The next message of a kind; others are skipped, refusals are not.
    async fn next<M: Message>(&mut self) -> M {
        loop {
            let frame = self.frame().await;
            assert!(
                frame.kind != AgentRefused::KIND || M::KIND == AgentRefused::KIND,
                "{:?}",
                frame.read::<AgentRefused>()
            );
            if frame.kind == M::KIND {
                return frame.read().unwrap();
            }
        }
    }

    async fn until(&mut self, state: ProxyState) -> vo_wire::link::ProxyInfo {
        loop {
            let report: ProxyReport = self.next().await;
            eprintln!("{report:?}");
            if let Some(info) = report.proxies.into_iter().find(|info| info.state == state) {
                return info;
            }
        }
    }
}

/// Processes whose command line names the directory.
fn processes(root: &Path) -> Vec<(i32, String)> {
    let name = root.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) {
            found.push((pid, line));
        }
    }
    found
}

async fn none_left(root: &Path) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !processes(root).is_empty() {
        assert!(tokio::time::Instant::now() < end, "left: {:?}", processes(root));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn authority() -> String {
    SessionCa::create("00112233445566aa")
        .unwrap()
        .site_intermediate("here")
        .unwrap()
        .to_pem()
}

#[tokio::test]
async fn a_proxy_runs_survives_its_agent_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let root: PathBuf = temp.path().join("vo");
    let authority = authority();

    let mut bridge = Bridge::open(&root);
    bridge.say(&configure(&authority)).await;
    let hello: AgentHello = bridge.next().await;
    assert_eq!((hello.epoch, hello.batch.as_str()), (1, "fork"));
    bridge.say(&SetTarget { proxies: 1 }).await;
    let queued = bridge.until(ProxyState::Pend).await;
    let up: StarterUp = bridge.next().await;
    assert_eq!(up.facts.proxy, queued.id);
    assert_eq!(Some(up.facts.batch_id), queued.batch_id);
    let ran = bridge.until(ProxyState::Run).await;
    assert_eq!((ran.id, ran.starters), (queued.id, 1));

    // The agent dies; the proxy does not notice.
    kill(Pid::from_raw(hello.pid.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(
        tokio::time::timeout(PATIENCE, bridge.child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let mut bridge = Bridge::open(&root);
    bridge.say(&configure(&authority)).await;
    let hello: AgentHello = bridge.next().await;
    assert_eq!(hello.epoch, 2);
    bridge.say(&SetTarget { proxies: 1 }).await;
    let again: StarterUp = bridge.next().await;
    assert_eq!((again.key, again.facts.proxy), (up.key, queued.id));

    bridge.say(&Shutdown { patience_ms: 30_000 }).await;
    let done: ShutdownDone = bridge.next().await;
    assert_eq!(done.left, Vec::<String>::new());
    assert!(
        tokio::time::timeout(PATIENCE, bridge.child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    none_left(&root).await;
    assert!(!root.exists());
}
