//! A master's part for one event agent, and login nodes for it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use vo_agent::launch::{self, AgentAddress, SiteDir};
use vo_core::ids::{ProxyId, StarterKey};
use vo_net::frames::{FrameSource, send};
use vo_net::tls::{self, Identity, SessionCa};
use vo_wire::frame::{Frame, Message};
use vo_wire::link::{
    AgentRefused, BlobAck, BlobChunk, Configure, Limits, Marker, ProxyInfo, ProxyReport, ProxyShape, ProxyState,
};
use vo_wire::node::{Shares, StarterFacts, StarterHello};

pub const SESSION: &str = "test-00112233445566aa";

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn configure(authority: &str) -> Configure {
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
        marker: Marker { path: b"/nonexistent".to_vec(), content: String::new(), host: String::new() },
    }
}

pub struct Bridge {
    pub child: Child,
    pub stdin: ChildStdin,
    pub frames: FrameSource<ChildStdout>,
    /// What the reports seen so far say.
    pub reports: BTreeMap<ProxyId, ProxyInfo>,
}

impl Bridge {
    pub fn open(root: &Path) -> Bridge {
        Bridge::by(Command::new(env!("CARGO_BIN_EXE_vo-agent")), root)
    }

    /// By a command that ends in the program's name, such as one that goes to another node first.
    pub fn by(mut command: Command, root: &Path) -> Bridge {
        command.args(["connect", "--session", SESSION, "--dir"]).arg(root);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let frames = FrameSource::new(child.stdout.take().unwrap());
        Bridge { child, stdin, frames, reports: BTreeMap::new() }
    }

    pub async fn say<M: Message>(&mut self, message: &M) {
        send(&mut self.stdin, 0, message).await.unwrap();
    }

    pub async fn frame(&mut self) -> Frame {
        let frame = tokio::time::timeout(PATIENCE, self.frames.next()).await.expect("a frame in time");
        frame.unwrap().expect("the stream goes on")
    }

    /// The next message of a kind; others are skipped, refusals are not.
    pub async fn next<M: Message>(&mut self) -> M {
        loop {
            let frame = self.frame().await;
            assert!(
                frame.kind != AgentRefused::KIND || M::KIND == AgentRefused::KIND,
                "{:?}",
                frame.read::<AgentRefused>()
            );
            self.seen(&frame);
            if frame.kind == M::KIND {
                return frame.read().unwrap();
            }
        }
    }

    pub fn seen(&mut self, frame: &Frame) {
        if frame.kind == ProxyReport::KIND {
            let report: ProxyReport = frame.read().unwrap();
            self.reports.extend(report.proxies.into_iter().map(|info| (info.id, info)));
        }
    }

    pub async fn until(&mut self, state: ProxyState) -> ProxyInfo {
        loop {
            let report: ProxyReport = self.next().await;
            if let Some(info) = report.proxies.into_iter().find(|info| info.state == state) {
                return info;
            }
        }
    }
}

/// Processes whose command line names the directory.
pub fn processes(root: &Path) -> Vec<(i32, String)> {
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

pub async fn none_left(root: &Path) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !processes(root).is_empty() {
        assert!(tokio::time::Instant::now() < end, "left: {:?}", processes(root));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn authority() -> String {
    SessionCa::create("00112233445566aa").unwrap().site_intermediate("here").unwrap().to_pem()
}

/// Where the agent says that it is.
pub fn address(root: &Path) -> AgentAddress {
    launch::read(&SiteDir(root.join(SESSION)).address()).unwrap()
}

/// What a starter says first.
pub fn hello(proxy: ProxyId, key: u64) -> StarterHello {
    let facts = StarterFacts {
        proxy,
        node_index: 0,
        batch_id: String::new(),
        restarts: 0,
        host: "node".to_owned(),
        cpus: 1,
        memory_mb: 1,
        gpus: 0,
        scratch_bytes: 1,
        time_left_ms: None,
        shares: Shares::Nothing,
        arch: String::new(),
        system: String::new(),
        pid: 1,
        gpu: None,
        apptainer: false,
        podman: false,
        curl: false,
        pelican: false,
    };
    StarterHello { protocol: vo_wire::PROTOCOL, key: StarterKey(key), epoch: 0, facts }
}

/// A starter that the test plays.
pub struct Starter {
    pub frames: FrameSource<tokio::io::ReadHalf<tokio_rustls::client::TlsStream<TcpStream>>>,
    pub write: tokio::io::WriteHalf<tokio_rustls::client::TlsStream<TcpStream>>,
    pub key: StarterKey,
}

impl Starter {
    /// Calls the agent with an identity, as a starter of `proxy`.
    pub async fn call(root: &Path, identity: &Identity, proxy: ProxyId, key: u64) -> std::io::Result<Starter> {
        let hello = hello(proxy, key);
        let stream = TcpStream::connect(address(root).addresses.first().unwrap()).await?;
        Starter::over(stream, identity, hello).await
    }

    /// Over a stream, with whatever it says first.
    pub async fn over(mut stream: TcpStream, identity: &Identity, hello: StarterHello) -> std::io::Result<Starter> {
        stream.write_all(&identity.knock()).await?;
        let config = tls::client_config(identity).unwrap();
        let stream = tls::connect_agent(&config, identity.domain(), stream).await.map_err(std::io::Error::other)?;
        let (read, mut write) = tokio::io::split(stream);
        let key = hello.key;
        send(&mut write, key.0, &hello).await?;
        Ok(Starter { frames: FrameSource::new(read), write, key })
    }

    pub async fn say<M: Message>(&mut self, message: &M) {
        send(&mut self.write, self.key.0, message).await.unwrap();
    }

    pub async fn next<M: Message>(&mut self) -> M {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.frames.next()).await.expect("a frame in time").unwrap();
            let frame = frame.expect("the stream goes on");
            if frame.kind == M::KIND {
                assert_eq!(frame.route, self.key.0);
                return frame.read().unwrap();
            }
        }
    }

    /// Receives a file as starters do.
    pub async fn receive(&mut self, hash: [u8; 32]) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            let chunk: BlobChunk = self.next().await;
            assert_eq!((chunk.hash, chunk.offset), (hash, content.len() as u64));
            content.extend_from_slice(&chunk.data);
            self.say(&BlobAck { hash, received: content.len() as u64 }).await;
            if content.len() as u64 == chunk.size {
                return content;
            }
        }
    }
}
