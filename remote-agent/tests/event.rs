//! The event agent as a master sees it: through `vo-agent connect`, with this machine's cores as the batch system.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails may panic")]

mod agent_harness;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vo_agent::launch::{self, AgentAddress, Launch, SiteDir};
use vo_core::ids::ProxyId;
use vo_net::frames::send;
use vo_net::tls::{Identity, SiteAuthority};
use vo_wire::frame::Message;
use vo_wire::link::{
    AgentHello, AgentRefused, BlobAck, BlobChunk, BlobMissing, Configure, NeedBlob, Ping, Pong, ProxyState, SetTarget,
    Shutdown, ShutdownDone, StarterDown, StarterUp,
};
use vo_wire::node::{Leaving, MasterLink, Welcome};
use vo_wire::work::{Recall, Report};

use agent_harness::{Bridge, PATIENCE, SESSION, Starter, authority, configure, none_left, processes};

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
    assert!(tokio::time::timeout(PATIENCE, bridge.child.wait()).await.unwrap().unwrap().success());
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
    assert!(tokio::time::timeout(PATIENCE, bridge.child.wait()).await.unwrap().unwrap().success());
    none_left(&root).await;
    assert!(!root.exists());
}

/// Plays the master's part for one file.
async fn provide(bridge: &mut Bridge, hash: [u8; 32], content: &[u8]) {
    let asked: NeedBlob = bridge.next().await;
    assert_eq!(asked.hash, hash);
    let size = content.len() as u64;
    let mut offset = 0;
    for data in content.chunks(vo_wire::work::CHUNK) {
        bridge.say(&BlobChunk { hash, offset, size, data: data.to_vec() }).await;
        offset += data.len() as u64;
        let ack: BlobAck = bridge.next().await;
        assert_eq!((ack.hash, ack.received), (hash, offset));
    }
}

#[tokio::test]
async fn relays_and_serves_files_to_starters_of_its_own_only() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let authority = authority();
    let mut bridge = Bridge::open(&root);
    bridge.say(&configure(&authority)).await;
    bridge.say(&SetTarget { proxies: 1 }).await;
    let proxy = bridge.until(ProxyState::Run).await.id;
    let launch: Launch = launch::read(&SiteDir(root.join(SESSION)).launch(proxy)).unwrap();
    let identity = Identity::from_pem(&launch.identity).unwrap();

    let mut starter = Starter::call(&root, &identity, proxy, 77).await.unwrap();
    assert!(starter.next::<Welcome>().await.master);
    while bridge.next::<StarterUp>().await.key != starter.key {}

    // Frames pass unread, both ways; the route is the starter's whatever it says.
    let recall = Recall { count: 3, inventory: 1 };
    send(&mut bridge.stdin, starter.key.0, &recall).await.unwrap();
    assert_eq!(starter.next::<Recall>().await, recall);
    send(&mut starter.write, 1, &Report::default()).await.unwrap();
    let report = loop {
        let frame = bridge.frame().await;
        if frame.kind == Report::KIND {
            break frame;
        }
    };
    assert_eq!(report.route, starter.key.0);

    // A file is asked for once, and comes right although it came wrong at first.
    let content: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let hash: [u8; 32] = ring::digest::digest(&ring::digest::SHA256, &content).as_ref().try_into().unwrap();
    starter.say(&NeedBlob { hash }).await;
    starter.say(&NeedBlob { hash }).await;
    provide(&mut bridge, hash, &content[1..]).await;
    provide(&mut bridge, hash, &content).await;
    assert!(starter.receive(hash).await == content);
    starter.say(&NeedBlob { hash }).await;
    assert!(starter.receive(hash).await == content);
    let missing = [7; 32];
    starter.say(&NeedBlob { hash: missing }).await;
    assert_eq!(bridge.next::<NeedBlob>().await.hash, missing);
    bridge.say(&BlobMissing { hash: missing, why: "it was removed".to_owned() }).await;
    assert_eq!(starter.next::<BlobMissing>().await.why, "it was removed");

    // Another proxy's starter, another session's, and one that has seen a newer agent get no welcome.
    let foreign = SiteAuthority::from_pem(&self::authority()).unwrap().issue_starter(proxy.0).unwrap();
    for (identity, proxy) in [(&identity, ProxyId(proxy.0 + 1)), (&foreign, proxy)] {
        let refused = async { Starter::call(&root, identity, proxy, 78).await?.frames.next().await };
        let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
        assert!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    }

    // The master goes and another comes: the starter is told. It leaves: the master is told, and that it is gone.
    let mut second = Bridge::open(&root);
    second.say(&configure(&authority)).await;
    assert!(!starter.next::<MasterLink>().await.up);
    assert!(starter.next::<MasterLink>().await.up);
    assert!(tokio::time::timeout(PATIENCE, bridge.child.wait()).await.unwrap().unwrap().success());
    starter.say(&Leaving { why: "idle".to_owned() }).await;
    let key = starter.key;
    drop(starter);
    let down = loop {
        let down: StarterDown = second.next().await;
        if down.key == key {
            break down;
        }
    };
    assert!(down.gone, "{down:?}");
    second.say(&Shutdown { patience_ms: 30_000 }).await;
    assert_eq!(second.next::<ShutdownDone>().await.left, Vec::<String>::new());
    none_left(&root).await;
    assert!(!root.exists());
}

#[tokio::test]
async fn a_starter_that_falls_silent_is_told_before_its_lease_ends_and_comes_back() {
    const LEASE: Duration = Duration::from_secs(8);
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let mut bridge = Bridge::open(&root);
    let mut configure = configure(&authority());
    configure.limits.lease_ms = u64::try_from(LEASE.as_millis()).unwrap();
    bridge.say(&configure).await;
    bridge.say(&SetTarget { proxies: 1 }).await;
    let proxy = bridge.until(ProxyState::Run).await.id;
    let launch: Launch = launch::read(&SiteDir(root.join(SESSION)).launch(proxy)).unwrap();
    let identity = Identity::from_pem(&launch.identity).unwrap();

    // It answers once, then no more, and its connection stays open.
    let mut starter = Starter::call(&root, &identity, proxy, 77).await.unwrap();
    starter.next::<Welcome>().await;
    while bridge.next::<StarterUp>().await.key != starter.key {}
    starter.next::<Ping>().await;
    let heard = tokio::time::Instant::now();
    starter.say(&Pong { nonce: 0 }).await;
    starter.next::<Ping>().await;
    let mut down: StarterDown = bridge.next().await;
    while down.key != starter.key {
        down = bridge.next().await;
    }
    assert!(!down.gone && down.why.starts_with("silent for"), "{down:?}");
    assert!(heard.elapsed() < LEASE, "told after {:?}", heard.elapsed());
    // It wakes before its lease ends, finds its connection closed, and calls again: it is the same starter.
    let mut again = Starter::call(&root, &identity, proxy, 77).await.unwrap();
    assert!(again.next::<Welcome>().await.master);
    while bridge.next::<StarterUp>().await.key != again.key {}
    drop(starter);
    bridge.say(&Shutdown { patience_ms: 30_000 }).await;
    drop(again);
    assert_eq!(bridge.next::<ShutdownDone>().await.left, Vec::<String>::new());
    none_left(&root).await;
}

/// Heartbeats of half a second, two of which may be missed; starters that rest for `idle`.
fn impatient(authority: &str, on_missed: bool, idle: Duration) -> Configure {
    let mut configure = configure(authority);
    configure.limits.heartbeat_ms = 500;
    configure.limits.missed_heartbeats = 2;
    configure.limits.shutdown_on_missed = on_missed;
    configure.limits.idle_ms = u64::try_from(idle.as_millis()).unwrap();
    configure
}

/// What the agent has logged.
fn logged(root: &Path, text: &str) -> bool {
    fs::read_to_string(root.join(SESSION).join("agent.log")).is_ok_and(|log| log.contains(text))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn missed_heartbeats_end_nothing_that_works_and_leave_nothing_in_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let root: PathBuf = temp.path().join("vo");
    let authority = authority();
    let mut bridge = Bridge::open(&root);
    bridge.say(&impatient(&authority, true, Duration::from_secs(600))).await;
    let hello: AgentHello = bridge.next().await;
    bridge.say(&SetTarget { proxies: 1 }).await;
    let up: StarterUp = bridge.next().await;
    // A master that says nothing, on a stream that is open: it is asked to call again.
    until("the stream is closed", || logged(&root, "its stream is closed")).await;
    assert!(tokio::time::timeout(PATIENCE, bridge.child.wait()).await.unwrap().unwrap().success());
    until("nothing more is wanted", || logged(&root, "what is queued is given up")).await;

    // It comes back late, and is patient now: the same agent, and the same starter.
    let mut bridge = Bridge::open(&root);
    let restless = impatient(&authority, true, Duration::from_secs(1));
    let mut patient = restless.clone();
    patient.limits.heartbeat_ms = 7_200_000;
    bridge.say(&patient).await;
    assert_eq!(bridge.next::<AgentHello>().await.pid, hello.pid);
    assert_eq!(bridge.next::<StarterUp>().await.key, up.key);
    // Starters of now rest for a second only; that of before is asked to go.
    bridge.say(&vo_wire::link::RemoveProxies { proxies: vec![up.facts.proxy] }).await;
    bridge.say(&SetTarget { proxies: 1 }).await;
    assert_ne!(bridge.next::<StarterUp>().await.key, up.key);
    bridge.say(&restless).await;
    drop(bridge);
    // Nobody comes: what has nothing to do ends by itself, and with the last of it the session here.
    until("all is gone", || !root.exists()).await;
    none_left(&root).await;
}

#[tokio::test]
async fn an_agent_that_is_to_keep_its_proxies_keeps_them() {
    let temp = tempfile::tempdir().unwrap();
    let root: PathBuf = temp.path().join("vo");
    let authority = authority();
    let mut bridge = Bridge::open(&root);
    bridge.say(&impatient(&authority, false, Duration::from_secs(600))).await;
    bridge.say(&SetTarget { proxies: 1 }).await;
    let up: StarterUp = bridge.next().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    bridge.say(&Ping { nonce: 1 }).await;
    bridge.next::<Pong>().await;
    drop(bridge);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut bridge = Bridge::open(&root);
    bridge.say(&configure(&authority)).await;
    assert_eq!(bridge.next::<StarterUp>().await.key, up.key);
    bridge.say(&Shutdown { patience_ms: 30_000 }).await;
    assert_eq!(bridge.next::<ShutdownDone>().await.left, Vec::<String>::new());
    none_left(&root).await;
}

/// `vo-agent revive`: what it said.
async fn revive(root: &Path) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_vo-agent"));
    let output = command.args(["revive", "--dir"]).arg(root).output().await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_killed_agent_is_brought_back_without_a_master() {
    let temp = tempfile::tempdir().unwrap();
    let root: PathBuf = temp.path().join("vo");
    assert_eq!(revive(&root).await, "", "no session is nothing to do");
    let authority = authority();
    let mut bridge = Bridge::open(&root);
    bridge.say(&configure(&authority)).await;
    let hello: AgentHello = bridge.next().await;
    bridge.say(&SetTarget { proxies: 1 }).await;
    let up: StarterUp = bridge.next().await;
    assert_eq!(revive(&root).await, "", "one that lives is left alone");

    let dir = SiteDir(root.join(SESSION));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.revival()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds the site's authority");
    kill(Pid::from_raw(hello.pid.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(tokio::time::timeout(PATIENCE, bridge.child.wait()).await.unwrap().unwrap().success());
    assert_eq!(revive(&root).await, format!("{SESSION}: started its agent\n"));
    assert_eq!(revive(&root).await, "");
    // It is at work before any master comes: its starters find it.
    let address = || launch::read::<AgentAddress>(&dir.address()).map(|address| address.epoch);
    until("its address", || address().is_ok_and(|epoch| epoch == 2)).await;

    let mut bridge = Bridge::open(&root);
    bridge.say(&configure(&authority)).await;
    let again: AgentHello = bridge.next().await;
    assert_eq!(again.epoch, 2, "the master finds the one that was brought back");
    assert_ne!(again.pid, hello.pid);
    assert_eq!(bridge.next::<StarterUp>().await.key, up.key);
    bridge.say(&Shutdown { patience_ms: 30_000 }).await;
    assert_eq!(bridge.next::<ShutdownDone>().await.left, Vec::<String>::new());
    none_left(&root).await;
    assert_eq!(revive(&root).await, "");
    assert!(!root.exists());
}

#[tokio::test]
async fn two_bridges_start_one_agent_and_an_older_master_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    // Programs that another session may use.
    fs::create_dir_all(root.join("bin/0123")).unwrap();
    fs::create_dir_all(root.join("other-1")).unwrap();
    let authority = authority();
    let (mut one, mut two) = (Bridge::open(&root), Bridge::open(&root));
    one.say(&Configure { master_epoch: 2, ..configure(&authority) }).await;
    let hello: AgentHello = one.next().await;
    two.say(&configure(&authority)).await;
    assert_eq!(two.next::<AgentRefused>().await.message, "a newer master is connected");
    assert!(tokio::time::timeout(PATIENCE, two.child.wait()).await.unwrap().unwrap().success());
    assert_eq!(processes(&root).iter().filter(|(_, line)| line.contains(" event ")).count(), 1);
    // Told to end by the system, it leaves everything for the next one.
    kill(Pid::from_raw(hello.pid.cast_signed()), Signal::SIGTERM).unwrap();
    tokio::time::timeout(PATIENCE, one.child.wait()).await.unwrap().unwrap();
    let mut three = Bridge::open(&root);
    three.say(&Configure { master_epoch: 2, ..configure(&authority) }).await;
    assert_eq!(three.next::<AgentHello>().await.epoch, 2);
    three.say(&Shutdown { patience_ms: 30_000 }).await;
    three.next::<ShutdownDone>().await;
    none_left(&root).await;
    assert!(root.join("bin/0123").exists() && !root.join(SESSION).exists());
}

#[tokio::test]
async fn what_cannot_work_says_why() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let mut bridge = Bridge::open(&root);
    let mut wrong = configure(&authority());
    wrong.proxies.batch = Some("cron".to_owned());
    bridge.say(&wrong).await;
    assert_eq!(bridge.next::<AgentRefused>().await.message, "no batch system is called \"cron\": slurm, sge or fork");
    none_left(&root).await;
    assert!(!root.exists());

    let connect = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_vo-agent")).arg("connect").args(arguments).output().unwrap()
    };
    let output = connect(&["--session", SESSION, "--dir", "/proc/none"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(3), 1), "{said}");
    assert!(said.starts_with("vo-agent: cannot use /proc/none/test-00112233445566aa: "), "{said}");
    assert_eq!(connect(&["--session", "../x"]).status.code(), Some(2));
}

/// The batch system of one machine.
struct Fork {
    dir: tempfile::TempDir,
}

impl Fork {
    fn run(&self, arguments: &[&str], stdin: &str) -> String {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vo-agent"));
        let (verb, rest) = arguments.split_first().unwrap();
        command.args(["fork", verb, "--dir"]).arg(self.dir.path().join("notes")).args(rest);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn submit(&self, name: &str, script: &str) -> String {
        let output = self.dir.path().join(name);
        self.run(&["submit", "--name", name, "--output", output.to_str().unwrap()], script).trim().to_owned()
    }

    /// Waits for what a script wrote.
    fn wait(&self, name: &str, text: &str) -> String {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
            if said.contains(text) {
                return said;
            }
            assert!(std::time::Instant::now() < end, "{said:?} lacks {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn fork_runs_lists_and_cancels() {
    let fork = Fork { dir: tempfile::tempdir().unwrap() };
    assert_eq!(fork.run(&["status"], ""), "end\n");
    let start = r#"$$.$(sed 's/.*) //' "/proc/$$/stat" | cut -d ' ' -f 20)"#;
    let short = fork.submit("short", &format!("echo id {start}; read x || echo no input\n"));
    assert_eq!(fork.wait("short", "no input"), format!("id {short}\nno input\n"));
    let stubborn = fork
        .submit("stubborn", "trap '' TERM\n(trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done) &\nwait\n");
    let other = fork.submit("other", "echo up; sleep 600\n");
    fork.wait("stubborn", "up");
    fork.wait("other", "up");
    let rows = |listing: &str| {
        let mut rows: Vec<String> = listing.lines().map(str::to_owned).collect();
        assert_eq!(rows.pop().as_deref(), Some("end"));
        rows.sort_by_key(|row| row.split('\t').nth(1).map(str::to_owned));
        rows
    };
    // The shell ends after its last word.
    let end = std::time::Instant::now() + PATIENCE;
    let expected = [("other", &other, "running"), ("short", &short, "done"), ("stubborn", &stubborn, "running")];
    let expected = expected.map(|(name, id, state)| format!("{id}\t{name}\t{state}\t-"));
    while rows(&fork.run(&["status"], "")) != expected {
        assert!(std::time::Instant::now() < end, "{}", fork.run(&["status"], ""));
    }
    let began = std::time::Instant::now();
    fork.run(&["cancel", &stubborn, &short, "1.1", "nonsense"], "");
    assert!(began.elapsed() >= Duration::from_secs(5), "it was killed without being asked");
    fork.wait("stubborn", "asked");
    let after = rows(&fork.run(&["status"], ""));
    assert!(after[2].ends_with("done\t-") && after[0].ends_with("running\t-"), "{after:?}");
    fork.run(&["cancel", &other], "");
    assert!(!fork.run(&["status"], "").contains("running"));
}
