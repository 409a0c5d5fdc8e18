//! An event agent played by a test, and the real starter that calls it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use vo_agent::launch::{AgentAddress, Launch, SiteDir};
use vo_core::Template;
use vo_core::ids::{AttemptId, JobId, ProxyId};
use vo_core::items::Row;
use vo_core::job::{AttemptResult, Outcome, Output, Program};
use vo_net::frames::FrameSource;
use vo_net::tls::{self, Identity, SessionCa};
use vo_wire::PROTOCOL;
use vo_wire::frame::{Frame, Message, write_message};
use vo_wire::link::{BlobAck, BlobChunk, BlobMissing, Limits, Marker, NeedBlob, Ping, Pong};
use vo_wire::node::{StarterHello, Welcome};
use vo_wire::work::{
    Acknowledge, Assign, Assignment, CHUNK, DefineProgram, FetchOutput, FileRef, FileRole, Inventory, OutputChunk,
    Report, WINDOW,
};

/// For whatever is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Waits, but not for ever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Looks until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The name of the machine and mount namespace that tests run on.
pub fn this_host() -> String {
    use std::os::unix::fs::MetadataExt;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    format!("{} {}", boot.trim(), std::fs::metadata("/proc/self/ns/mnt").unwrap().ino())
}

pub struct Agent {
    pub root: PathBuf,
    pub launch: Launch,
    identity: Identity,
    listener: TcpListener,
    pub epoch: u64,
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

impl Agent {
    pub async fn new(adjust: impl FnOnce(&mut Launch)) -> Agent {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("vo-starter-test-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for directory in ["site/tags", "site/proxies/7", "scratch", "work"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let authority = SessionCa::create("5e55").unwrap().site_intermediate("tundra").unwrap();
        let mut launch = Launch {
            session_id: "5e55".into(),
            site: "tundra".into(),
            proxy: ProxyId(7),
            identity: authority.issue_starter(7).unwrap().to_pem(),
            limits: Limits {
                queued_permille: 0,
                queued_base: 1,
                idle_ms: 60_000,
                lease_ms: 60_000,
                drain_ms: 0,
                ports: None,
                status_ms: 60_000,
                capture_bytes: 1 << 30,
                inline_bytes: 1024,
                heartbeat_ms: 60_000,
                missed_heartbeats: 3,
                shutdown_on_missed: true,
            },
            marker: Marker { path: Vec::new(), content: String::new(), host: this_host() },
            cpus: 2,
            memory_mb: None,
            walltime_s: 0,
            scratch: Some(root.join("scratch").to_str().unwrap().into()),
        };
        adjust(&mut launch);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = authority.issue_agent().unwrap();
        let agent = Agent { root, launch, identity, listener, epoch: 1 };
        std::fs::write(agent.site().launch(ProxyId(7)), minicbor::to_vec(&agent.launch).unwrap()).unwrap();
        agent.write_address();
        agent
    }

    pub fn site(&self) -> SiteDir {
        SiteDir(self.root.join("site"))
    }

    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub fn tag(&self) -> PathBuf {
        self.site().tag(ProxyId(7), 0)
    }

    fn write_address(&self) {
        let address = self.listener.local_addr().unwrap().to_string();
        let file = AgentAddress { epoch: self.epoch, addresses: vec!["127.0.0.1:1".into(), address] };
        let aside = self.root.join("agent.addr.new");
        std::fs::write(&aside, minicbor::to_vec(&file).unwrap()).unwrap();
        std::fs::rename(aside, self.site().address()).unwrap();
    }

    /// The agent ends, and comes back elsewhere.
    pub async fn restart(&mut self) {
        self.listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.epoch += 1;
        self.write_address();
    }

    /// Starts the real starter, as a proxy script does.
    pub fn start(&self, variables: &[(&str, &str)]) -> Process {
        self.start_by(Command::new(env!("CARGO_BIN_EXE_vo-agent")), variables)
    }

    /// By a command that becomes the program.
    pub fn start_by(&self, mut command: Command, variables: &[(&str, &str)]) -> Process {
        command.arg("starter").arg("--dir").arg(self.site().0).args(["--proxy", "7"]);
        command.env("SLURM_SECRET", "not for jobs").env("VO_BATCH_ID", "4711").env("VO_BATCH_RESTARTS", "garbage");
        command.envs(variables.iter().copied()).stdin(Stdio::null()).process_group(0);
        Process { child: command.spawn().unwrap() }
    }

    /// Takes the starter in.
    pub async fn accept(&self) -> Peer {
        self.accept_with(true).await
    }

    pub async fn accept_with(&self, master: bool) -> Peer {
        self.answer(&Welcome { protocol: PROTOCOL, epoch: self.epoch, master }).await
    }

    /// Takes its call, and says something.
    pub async fn answer<M: Message>(&self, answer: &M) -> Peer {
        soon("the starter's call", async {
            let config = tls::server_config(&self.identity).unwrap();
            let (mut tcp, _) = self.listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let mut knock = [0; tls::KNOCK];
            tcp.read_exact(&mut knock).await.unwrap();
            assert!(self.identity.is_knock(&knock));
            let stream = tls::accept_starter(&config, tcp).await.unwrap();
            tls::expect_starter(stream.get_ref().1.peer_certificates(), self.identity.domain(), 7).unwrap();
            let (read, write) = tokio::io::split(stream);
            let mut source = FrameSource::new(Box::new(read) as Box<dyn AsyncRead + Unpin>);
            let hello: StarterHello = source.next().await.unwrap().unwrap().read().unwrap();
            let mut peer = Peer {
                source,
                sink: Box::new(write),
                hello,
                told: 0,
                waiting: Vec::new(),
                running: Vec::new(),
                blobs: Files::new(),
                served: Vec::new(),
            };
            peer.send(answer).await;
            peer
        })
        .await
    }
}

/// The starter's guardian.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The starter proper.
    pub fn starter(&self) -> i32 {
        children(self.pid())[0]
    }

    pub async fn end(mut self) -> ExitStatus {
        let mut ended = None;
        until("the guardian ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        ended.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Is it there, and no zombie?
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X'])
}

pub fn children(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A starter, connected.
pub struct Peer {
    source: FrameSource<Box<dyn AsyncRead + Unpin>>,
    sink: Box<dyn AsyncWrite + Unpin>,
    pub hello: StarterHello,
    /// The last inventory's number; 0 before it came.
    told: u64,
    waiting: Vec<AttemptResult>,
    /// Tries known to have started.
    running: Vec<AttemptId>,
    /// Files given when asked for.
    pub blobs: Files,
    /// Those that were.
    pub served: Vec<[u8; 32]>,
}

impl Peer {
    pub async fn send<M: Message>(&mut self, message: &M) {
        let route = if vo_wire::work::is_relayed(M::KIND) { self.hello.key.0 } else { 0 };
        let mut bytes = Vec::new();
        write_message(route, message, &mut bytes);
        self.sink.write_all(&bytes).await.unwrap();
        self.sink.flush().await.unwrap();
    }

    /// The next frame that is no heartbeat and no part of the files that the agent gives; none at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        soon("a frame", async {
            loop {
                let frame = self.source.next().await.ok().flatten()?;
                match frame.kind {
                    Ping::KIND => {
                        let Ping { nonce } = frame.read().unwrap();
                        self.send(&Pong { nonce }).await;
                    }
                    NeedBlob::KIND => self.serve(frame.read::<NeedBlob>().unwrap().hash).await,
                    BlobAck::KIND => {}
                    kind => {
                        if kind == Inventory::KIND {
                            self.told = frame.read::<Inventory>().unwrap().number;
                        }
                        assert_eq!(frame.route, if vo_wire::work::is_relayed(kind) { self.hello.key.0 } else { 0 });
                        return Some(frame);
                    }
                }
            }
        })
        .await
    }

    async fn serve(&mut self, hash: [u8; 32]) {
        self.served.push(hash);
        let Some(content) = self.blobs.get(&hash).cloned() else {
            return self.send(&BlobMissing { hash, why: "nobody has it".into() }).await;
        };
        let size = content.len() as u64;
        let mut offset = 0;
        for piece in content.chunks(CHUNK).chain(content.is_empty().then_some(&[][..])) {
            self.send(&BlobChunk { hash, offset, size, data: piece.to_vec() }).await;
            offset += piece.len() as u64;
        }
    }

    /// Holds a file ready, and says how an assignment names it.
    pub fn file(&mut self, role: FileRole, content: &[u8]) -> FileRef {
        let hash: [u8; 32] = sha256(content);
        self.blobs.insert(hash, content.to_vec());
        FileRef { role, hash, size: content.len() as u64, mode: 0o644 }
    }

    /// All of an output, fetched in windows.
    pub async fn fetch(&mut self, id: AttemptId, output: &Output) -> Vec<u8> {
        if let Some(content) = &output.inline {
            return content.clone();
        }
        let mut content = Vec::new();
        while (content.len() as u64) < output.size {
            let left = output.size - content.len() as u64;
            let length = left.min(WINDOW);
            self.send(&FetchOutput { id, kind: output.kind.clone(), offset: content.len() as u64, length, kept: 0 })
                .await;
            let end = content.len() as u64 + length;
            while (content.len() as u64) < end {
                let chunk: OutputChunk = self.expect().await;
                assert_eq!((chunk.id, &chunk.kind, chunk.offset), (id, &output.kind, content.len() as u64));
                assert!(chunk.data.len() <= CHUNK && !chunk.data.is_empty());
                content.extend(chunk.data);
            }
        }
        content
    }

    /// The next message of this kind; others are dropped, but results are kept for [`Peer::result`].
    pub async fn expect<M: Message>(&mut self) -> M {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed before {:#06x}", M::KIND));
            if frame.kind == M::KIND {
                return frame.read().unwrap();
            }
            if frame.kind == Report::KIND {
                self.note(frame.read().unwrap());
            }
        }
    }

    pub async fn inventory(&mut self) -> Inventory {
        self.expect().await
    }

    pub async fn define(&mut self, program: u64, body: Program) {
        self.send(&DefineProgram { program, body, load: 0, ad: Template::default(), own: Template::default() }).await;
    }

    pub async fn assign(&mut self, program: u64, ids: &[AttemptId]) {
        let attempts = ids
            .iter()
            .map(|id| Assignment { id: *id, program, files: None, directory: None, row: Row::default(), wait: None })
            .collect();
        self.give(attempts).await;
    }

    /// Gives attempts, as a master that has the last inventory.
    pub async fn give(&mut self, attempts: Vec<Assignment>) {
        if self.told == 0 {
            self.inventory().await;
        }
        let inventory = self.told;
        self.send(&Assign { attempts, inventory }).await;
    }

    pub async fn assign_files(&mut self, program: u64, id: AttemptId, files: Vec<FileRef>) {
        let attempts =
            vec![Assignment { id, program, files: Some(files), directory: None, row: Row::default(), wait: None }];
        self.give(attempts).await;
    }

    fn note(&mut self, report: Report) {
        self.waiting.extend(report.results);
        self.running.extend(report.started);
    }

    /// Waits for the result of this try; does not acknowledge it.
    pub async fn result(&mut self, id: AttemptId) -> AttemptResult {
        loop {
            if let Some(at) = self.waiting.iter().position(|result| result.id == id) {
                return self.waiting.remove(at);
            }
            let report: Report = self.expect().await;
            self.note(report);
        }
    }

    /// Waits until it runs.
    pub async fn started(&mut self, id: AttemptId) {
        while !self.running.contains(&id) {
            let report: Report = self.expect().await;
            self.note(report);
        }
    }

    /// Waits for the result of this try, acknowledges it, and says how it ended.
    pub async fn outcome(&mut self, id: AttemptId) -> Outcome {
        let result = self.result(id).await;
        self.acknowledge(&[id]).await;
        result.outcome
    }

    pub async fn acknowledge(&mut self, ids: &[AttemptId]) {
        self.send(&Acknowledge { ids: ids.to_vec() }).await;
    }
}

pub fn sha256(content: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, content).as_ref().try_into().unwrap()
}

/// First try of job 1.`proc`.
pub fn id(proc: u32) -> AttemptId {
    AttemptId { job: JobId { cluster: 1, proc }, attempt: 1 }
}

pub fn constant(text: impl AsRef<[u8]>) -> Template {
    Template::constant(text.as_ref())
}

/// `sh -c SCRIPT` in `directory`.
pub fn shell(directory: &Path, script: &str) -> Program {
    Program { arguments: vec![constant("-c"), constant(script)], ..plain(directory, "/bin/sh") }
}

pub fn plain(directory: &Path, executable: &str) -> Program {
    use std::os::unix::ffi::OsStrExt;
    Program {
        executable: constant(executable),
        initialdir: constant(directory.as_os_str().as_bytes()),
        cpus: 1,
        ..Program::default()
    }
}

/// A number in a file that a job writes.
pub async fn number_in(path: &Path) -> i32 {
    let mut number = None;
    until("a job writes its number", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        number = text.ends_with('\n').then(|| text.trim().parse().ok()).flatten();
        number.is_some()
    })
    .await;
    number.unwrap()
}

pub type Files = BTreeMap<[u8; 32], Vec<u8>>;
