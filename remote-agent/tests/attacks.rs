//! The event agent as an attacker on its gateway or network meets it. Each test names what is tried; what must hold is that it is
//! refused, costs little, and disturbs nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails may panic")]

mod agent_harness;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use vo_agent::launch::{self, Launch, SiteDir};
use vo_core::ids::{ProxyId, StarterKey};
use vo_net::frames::{FrameSource, send};
use vo_net::tls::{Identity, SessionCa, SiteAuthority};
use vo_wire::frame::Message;
use vo_wire::link::{
    AgentHello, NeedBlob, Ping, Pong, ProxyState, RemoveProxies, SetTarget, Shutdown, ShutdownDone, StarterUp,
};
use vo_wire::node::{End, StarterHello, Welcome};
use vo_wire::work::Report;

use agent_harness::{Bridge, PATIENCE, SESSION, Starter, address, configure, hello, none_left, processes};

/// An agent at work with one proxy, whose own starter is up; and what an attacker may have got hold of.
struct Site {
    _temp: tempfile::TempDir,
    root: PathBuf,
    session: SessionCa,
    authority: SiteAuthority,
    bridge: Bridge,
    agent: u32,
    proxy: ProxyId,
    identity: Identity,
}

impl Site {
    async fn new() -> Site {
        let temp = tempfile::tempdir().unwrap();
        Site::at(temp.path().join("vo"), temp).await
    }

    async fn at(root: PathBuf, temp: tempfile::TempDir) -> Site {
        let session = SessionCa::create("00112233445566aa").unwrap();
        let authority = session.site_intermediate("here").unwrap();
        let mut bridge = Bridge::open(&root);
        bridge.say(&configure(&authority.to_pem())).await;
        let agent = bridge.next::<AgentHello>().await.pid;
        bridge.say(&SetTarget { proxies: 1 }).await;
        let proxy = bridge.until(ProxyState::Run).await.id;
        let launch: Launch = launch::read(&SiteDir(root.join(SESSION)).launch(proxy)).unwrap();
        let identity = Identity::from_pem(&launch.identity).unwrap();
        Site { _temp: temp, root, session, authority, bridge, agent, proxy, identity }
    }

    fn port(&self) -> SocketAddr {
        address(&self.root).addresses.first().unwrap().parse().unwrap()
    }

    /// A starter that is taken in: the proof that the agent is well. Like a real one it calls again when a call comes to nothing.
    async fn well(&mut self, key: u64) -> Starter {
        let calling = async {
            loop {
                let call = Starter::call(&self.root, &self.identity, self.proxy, key);
                if let Ok(Ok(starter)) = tokio::time::timeout(Duration::from_secs(5), call).await {
                    break starter;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let mut starter = tokio::time::timeout(PATIENCE, calling).await.expect("it is taken in");
        starter.next::<Welcome>().await;
        while self.bridge.next::<StarterUp>().await.key != starter.key {}
        starter
    }

    /// Ends it; all that is left by then was the attacker's.
    async fn end(mut self) {
        self.bridge.say(&Shutdown { patience_ms: 30_000 }).await;
        assert_eq!(self.bridge.next::<ShutdownDone>().await.left, Vec::<String>::new());
        none_left(&self.root).await;
        assert!(!self.root.exists());
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.agent)).unwrap().count()
    }

    /// CPU time of the agent.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.agent)).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

/// Waits for the other side to close; what it said until then.
async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it is closed in time");
    said
}

#[tokio::test]
async fn ten_thousand_half_open_connections_keep_no_starter_out() {
    const FLOOD: usize = 10_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // The far end closes what it gives up, but ours stay.
    let flood = FLOOD.min(usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(1000));
    let mut site = Site::new().await;
    let (port, identity) = (site.port(), site.identity.clone());
    let before = site.status("VmHWM:");
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..flood {
        // Most from the host where real starters are, the others from elsewhere.
        let host = if number % 4 == 0 { 2 + u8::try_from(number / 4 % 100).unwrap() } else { 1 };
        let knock = identity.knock();
        calls.spawn(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
            let mut stream = socket.connect(port).await?;
            match number % 3 {
                // Some say nothing, some a part, some nonsense.
                0 => {}
                1 => stream.write_all(&knock[..20]).await?,
                _ => stream.write_all(&[0x16; 200]).await?,
            }
            io::Result::Ok(stream)
        });
    }
    let mut open = Vec::new();
    while open.len() < flood / 4 {
        open.extend(calls.join_next().await.expect("more than a quarter").unwrap());
    }
    // In the middle of it a starter calls, from the flood's own address.
    let began = tokio::time::Instant::now();
    let first = site.well(77).await;
    let waited = began.elapsed();
    while let Some(call) = calls.join_next().await {
        // The agent closes what it gives up, maybe before it has said its words; ours stay open.
        open.extend(call.unwrap());
    }
    assert!(open.len() > flood / 2, "{} of {flood}", open.len());
    let second = site.well(78).await;
    let descriptors = site.descriptors();
    assert!(descriptors < 256 + 64, "{descriptors} descriptors");
    let peak = site.status("VmHWM:");
    assert!(peak < before + 8 * 1024, "from {before} to {peak} KiB");
    // A second in all, where every fourth is the kernel's for the connections themselves; debug builds take twice as long.
    assert!(site.cpu() < Duration::from_secs(8), "{:?}", site.cpu());
    println!(
        "{flood} half-open: {descriptors} descriptors, {before} to {peak} KiB, {:?} of CPU; a starter waited {waited:?}",
        site.cpu()
    );
    drop((open, first, second));
    site.end().await;
}

#[tokio::test]
async fn who_does_not_knock_costs_no_handshake() {
    let mut site = Site::new().await;
    let mut stream = TcpStream::connect(site.port()).await.unwrap();
    // The first bytes of a TLS hello, long enough for a knock.
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    stream.write_all(&[0; 600]).await.unwrap();
    assert_eq!(closed(stream).await, b"", "not a byte of TLS, no alert, no certificate");
    // Another site of the same session has another one, another session too.
    let others = [
        site.session.site_intermediate("there").unwrap(),
        SessionCa::create("00112233445566aa").unwrap().site_intermediate("here").unwrap(),
    ];
    for other in others {
        let mut stream = TcpStream::connect(site.port()).await.unwrap();
        stream.write_all(&other.issue_starter(site.proxy.0).unwrap().knock()).await.unwrap();
        stream.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        assert_eq!(closed(stream).await, b"");
    }
    let starter = site.well(77).await;
    drop(starter);
    site.end().await;
}

fn parts(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>, CertificateDer<'static>) {
    let text = identity.to_pem();
    let blocks = pem::parse_many(&text).unwrap();
    let mut certs: Vec<CertificateDer<'static>> =
        blocks.iter().filter(|b| b.tag() == "CERTIFICATE").map(|b| b.contents().to_vec().into()).collect();
    let key = blocks.iter().find(|b| b.tag() == "PRIVATE KEY").unwrap().contents().to_vec().into();
    let root = certs.pop().unwrap();
    (certs, key, root)
}

/// A client with this site's knock and root, so that nothing but the agent refuses it.
async fn call(site: &Site, shown: Option<&Identity>) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let (_, _, root) = parts(&site.identity);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (certs, key, _) = parts(identity);
            builder.with_client_auth_cert(certs, key.into()).unwrap()
        }
    };
    let mut stream = TcpStream::connect(site.port()).await?;
    stream.write_all(&site.identity.knock()).await?;
    let name = ServerName::try_from(site.identity.domain().agent()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Whether the agent takes in who shows this.
async fn taken_in(site: &Site, shown: Option<&Identity>, first: &StarterHello) -> bool {
    let Ok(stream) = call(site, shown).await else {
        return false;
    };
    let (read, mut write) = tokio::io::split(stream);
    if send(&mut write, first.key.0, first).await.is_err() {
        return false;
    }
    let mut frames = FrameSource::new(read);
    let answer = tokio::time::timeout(PATIENCE, frames.next()).await.expect("an answer, or the end");
    matches!(answer, Ok(Some(frame)) if frame.kind == Welcome::KIND)
}

/// A ClientHello of TLS 1.2 (RFC 5246, 7.4.1.2), with suites and extensions that a server of that version would take.
fn hello_of_tls12() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session; ECDHE with ECDSA and RSA, AES-128-GCM; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // Groups: X25519; point formats; signatures: Ed25519 and ECDSA with SHA-256.
    hello.extend([0, 24, 0, 10, 0, 4, 0, 2, 0, 29, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 8, 7, 4, 3]);
    let mut record = vec![0x16, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[tokio::test]
async fn only_a_proxys_own_key_is_taken_in() {
    let mut site = Site::new().await;
    let proxy = site.proxy;
    let session = SessionCa::create("00112233445566aa").unwrap();
    let other_session = session.site_intermediate("here").unwrap().issue_starter(proxy.0).unwrap();
    let other_site = site.session.site_intermediate("there").unwrap().issue_starter(proxy.0).unwrap();
    let other_proxy = site.authority.issue_starter(proxy.0 + 1).unwrap();
    let an_agent = site.authority.issue_agent().unwrap();
    assert!(!taken_in(&site, None, &hello(proxy, 1)).await, "no certificate");
    assert!(!taken_in(&site, Some(&other_session), &hello(proxy, 1)).await, "another session's");
    assert!(!taken_in(&site, Some(&other_site), &hello(proxy, 1)).await, "another site's");
    assert!(!taken_in(&site, Some(&other_proxy), &hello(proxy, 1)).await, "another proxy's");
    assert!(!taken_in(&site, Some(&an_agent), &hello(proxy, 1)).await, "an agent's");
    assert!(!taken_in(&site, Some(&other_proxy), &hello(ProxyId(proxy.0 + 1), 1)).await, "a proxy that is not there");
    let identity = site.identity.clone();
    let newer = StarterHello { epoch: 99, ..hello(proxy, 1) };
    assert!(!taken_in(&site, Some(&identity), &newer).await, "it has seen a newer agent");
    let newer = StarterHello { protocol: vo_wire::PROTOCOL + (1 << 16), ..hello(proxy, 1) };
    assert!(!taken_in(&site, Some(&identity), &newer).await, "another protocol");
    let mut stream = TcpStream::connect(site.port()).await.unwrap();
    stream.write_all(&identity.knock()).await.unwrap();
    stream.write_all(&hello_of_tls12()).await.unwrap();
    let answer = closed(stream).await;
    assert_eq!((answer.first(), answer.get(5..7)), (Some(&0x15), Some(&[2, 70][..])), "fatal alert: protocol version");
    assert!(taken_in(&site, Some(&identity), &hello(proxy, 1)).await, "and its own is");
    let stream = call(&site, Some(&identity)).await.unwrap();
    let connection = stream.get_ref().1;
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(!connection.is_early_data_accepted());
    drop(stream);
    drop(site.well(77).await);
    site.end().await;
}

#[tokio::test]
async fn a_key_is_worth_nothing_once_its_proxy_has_ended() {
    let mut site = Site::new().await;
    let (proxy, identity) = (site.proxy, site.identity.clone());
    site.bridge.say(&RemoveProxies { proxies: vec![proxy] }).await;
    loop {
        let ended = site.bridge.until(ProxyState::Exit).await;
        if ended.id == proxy {
            break;
        }
    }
    let mut thief = Starter::call(&site.root, &identity, proxy, 77).await.unwrap();
    assert!(thief.next::<End>().await.why.contains("ended"));
    // It gets no file and passes no frame on, and is not kept.
    thief.say(&NeedBlob { hash: [7; 32] }).await;
    thief.say(&Report::default()).await;
    while let Ok(Some(frame)) = tokio::time::timeout(PATIENCE, thief.frames.next()).await.expect("it is closed in time")
    {
        assert_eq!(frame.kind, End::KIND);
    }
    site.bridge.say(&Ping { nonce: 5 }).await;
    loop {
        let frame = site.bridge.frame().await;
        assert!(![NeedBlob::KIND, Report::KIND].contains(&frame.kind), "the master was disturbed");
        if frame.kind == StarterUp::KIND {
            assert_ne!(frame.read::<StarterUp>().unwrap().key, StarterKey(77));
        }
        if frame.kind == Pong::KIND {
            break;
        }
    }
    site.end().await;
}

#[tokio::test]
async fn replayed_bytes_are_nothing() {
    let mut site = Site::new().await;
    // Everything that a starter says, as the network sees it.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (here, there) = (relay.local_addr().unwrap(), site.port());
    let recording = tokio::spawn(async move {
        let (mut starter, _) = relay.accept().await.unwrap();
        let mut agent = TcpStream::connect(there).await.unwrap();
        let (mut from, mut to) = starter.split();
        let (mut back, mut forth) = agent.split();
        let mut said = Vec::new();
        let forward = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                said.extend_from_slice(&buffer[..n]);
                forth.write_all(&buffer[..n]).await.unwrap();
            }
            let _ = forth.shutdown().await;
        };
        let _ = tokio::join!(forward, tokio::io::copy(&mut back, &mut to));
        said
    });
    let stream = TcpStream::connect(here).await.unwrap();
    let mut starter = Starter::over(stream, &site.identity, hello(site.proxy, 77)).await.unwrap();
    starter.next::<Welcome>().await;
    while site.bridge.next::<StarterUp>().await.key != StarterKey(77) {}
    starter.say(&Report::default()).await;
    let mut write = starter.write;
    write.shutdown().await.unwrap();
    drop((write, starter.frames));
    let said = tokio::time::timeout(PATIENCE, recording).await.unwrap().unwrap();
    assert!(said.len() > 500, "{} bytes", said.len());

    for _ in 0..3 {
        let mut stream = TcpStream::connect(there).await.unwrap();
        stream.write_all(&said).await.unwrap();
        closed(stream).await;
    }
    site.bridge.say(&Ping { nonce: 6 }).await;
    let mut reports = 0;
    loop {
        let frame = site.bridge.frame().await;
        reports += usize::from(frame.kind == Report::KIND);
        assert_ne!(frame.kind, StarterUp::KIND, "a replay was taken in");
        if frame.kind == Pong::KIND {
            break;
        }
    }
    assert_eq!(reports, 1, "the first one's own");
    site.end().await;
}

#[tokio::test]
async fn giant_garbage_and_greedy_frames_end_their_own_connection_only() {
    let mut site = Site::new().await;
    let mut witness = site.well(76).await;
    let giant = [0xff; 64].to_vec();
    let none = [0; 64].to_vec();
    let mut garbage = Vec::new();
    vo_wire::frame::Frame { kind: NeedBlob::KIND, route: 77, body: vec![0xff; 100] }.write(&mut garbage);
    let mut many = Vec::new();
    for number in 0..100u8 {
        vo_wire::frame::write_message(77, &NeedBlob { hash: [number; 32] }, &mut many);
    }
    let mut cut = Vec::new();
    vo_wire::frame::write_message(77, &Report::default(), &mut cut);
    cut.truncate(cut.len() - 1);
    for (what, bytes, close) in [
        ("giant", giant, false),
        ("too short", none, false),
        ("garbage", garbage, false),
        ("many files", many, false),
        ("cut short", cut, true),
    ] {
        let mut starter = site.well(77).await;
        starter.write.write_all(&bytes).await.unwrap();
        starter.write.flush().await.unwrap();
        if close {
            starter.write.shutdown().await.unwrap();
        }
        let told = |_| panic!("{what}");
        while let Ok(Some(_)) = tokio::time::timeout(PATIENCE, starter.frames.next()).await.unwrap_or_else(told) {}
        witness.say(&Ping { nonce: 9 }).await;
        assert_eq!(witness.next::<Pong>().await.nonce, 9, "after {what}");
    }

    // One that asks and asks, and never listens: its answers are not kept.
    let before = site.status("VmHWM:");
    let mut deaf = site.well(77).await;
    let mut asks = Vec::new();
    (0..10_000).for_each(|nonce| vo_wire::frame::write_message(77, &Ping { nonce }, &mut asks));
    let asking = async { while deaf.write.write_all(&asks).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, asking).await.expect("it is closed in time");
    let peak = site.status("VmHWM:");
    assert!(peak < before + 16 * 1024, "from {before} to {peak} KiB");
    drop((deaf, witness));
    site.end().await;
}

#[tokio::test]
async fn a_starter_can_not_take_anothers_place() {
    let mut site = Site::new().await;
    site.bridge.say(&SetTarget { proxies: 2 }).await;
    let second = loop {
        let info = site.bridge.until(ProxyState::Run).await;
        if info.id != site.proxy {
            break info.id;
        }
    };
    let mut victim = site.well(77).await;
    let launch: Launch = launch::read(&SiteDir(site.root.join(SESSION)).launch(second)).unwrap();
    let other = Identity::from_pem(&launch.identity).unwrap();
    let mut thief = Starter::call(&site.root, &other, second, 77).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, thief.frames.next()).await.unwrap();
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    victim.say(&Ping { nonce: 3 }).await;
    assert_eq!(victim.next::<Pong>().await.nonce, 3);
    drop((victim, thief));
    site.end().await;
}

fn tree(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            tree(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[tokio::test]
async fn silent_streams_on_the_socket_keep_no_master_out() {
    let mut site = Site::new().await;
    let socket = SiteDir(site.root.join(SESSION)).socket();
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.push(tokio::net::UnixStream::connect(&socket).await.unwrap());
    }
    // Those that were too many are closed, so there is no room for a bridge until others have gone.
    let mut kept = Vec::new();
    for mut stream in open {
        let mut first = [0];
        if stream.read_exact(&mut first).await.is_ok() {
            kept.push(stream);
        }
    }
    assert!((1..=64).contains(&kept.len()), "{} kept", kept.len());
    assert!(site.descriptors() < 128, "{} descriptors", site.descriptors());
    drop(kept);
    drop(site.well(77).await);
    site.end().await;
}

#[tokio::test]
async fn others_read_nothing_and_secrets_are_in_their_files_only() {
    let temp = tempfile::tempdir().unwrap();
    let open = temp.path().join("vo");
    fs::create_dir_all(open.join(SESSION)).unwrap();
    for dir in [open.clone(), open.join(SESSION)] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // Directories that were left open to others are closed.
    let site = Site::at(open, temp).await;
    let mut paths = Vec::new();
    tree(&site.root, &mut paths);
    assert!(paths.iter().any(|path| path.ends_with("launch")), "{paths:?}");
    for path in &paths {
        let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
        let link = fs::symlink_metadata(path).unwrap().is_symlink();
        assert!(link || mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
    }
    let secret = |bytes: &[u8]| bytes.windows(11).any(|window| window == b"PRIVATE KEY");
    for path in paths.iter().filter(|path| path.is_file()) {
        let known = path.file_name().is_some_and(|name| name == "launch" || name == "revival");
        assert_eq!(secret(&fs::read(path).unwrap()), known, "{}", path.display());
    }
    let ours = processes(&site.root);
    assert!(ours.len() >= 3, "{ours:?}");
    for (pid, line) in ours {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!secret(line.as_bytes()) && !secret(&environment), "{line}");
    }
    site.end().await;
}
