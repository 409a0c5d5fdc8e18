//! Several login nodes behind one name, with one home: whoever was called last acts, and nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails may panic")]

mod agent_harness;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use vo_wire::link::{AgentHello, Configure, ProxyState, SetTarget, Shutdown, ShutdownDone, StarterUp};

use agent_harness::{Bridge, PATIENCE, SESSION, authority, configure, none_left};

/// Two login nodes on a wire between them: each a network and a host name of its own, files and processes in common.
struct Nodes([String; 2]);

fn ip(words: &str) -> Result<(), String> {
    let output = std::process::Command::new("ip").args(words.split(' ')).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {words}: {said}")) }
}

impl Nodes {
    /// None, and a line for `tests/run`, where this can't be had.
    fn new(test: &str) -> Option<Nodes> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let nodes = Nodes(["a", "b"].map(|node| format!("vo{}{node}{number}", std::process::id())));
        let [a, b] = &nodes.0;
        let make = || {
            ip(&format!("netns add {a}"))?;
            ip(&format!("netns add {b}"))?;
            ip(&format!("-n {a} link add wire type veth peer name wire netns {b}"))?;
            for (node, address) in [(a, "10.99.0.1/24"), (b, "10.99.0.2/24")] {
                ip(&format!("-n {node} address add {address} dev wire"))?;
                ip(&format!("-n {node} link set wire up"))?;
                ip(&format!("-n {node} link set lo up"))?;
            }
            Ok::<(), String>(())
        };
        match make() {
            Ok(()) => Some(nodes),
            Err(why) => {
                eprintln!("skipped: {test}: {why}");
                if let Some(file) = std::env::var_os("VO_TEST_SKIPS") {
                    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
                    writeln!(file, "{test}: two login nodes need root and network namespaces ({why})").unwrap();
                }
                None
            }
        }
    }

    /// The program, on a node.
    fn agent(&self, node: usize) -> Command {
        let name = &self.0[node];
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, "unshare", "--uts", "/bin/sh", "-c"]);
        command.args([&format!("hostname {name} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_vo-agent")]);
        command
    }

    fn open(&self, node: usize, root: &Path) -> Bridge {
        Bridge::by(self.agent(node), root)
    }

    /// `vo-agent revive` there: did it start an agent?
    async fn revive(&self, node: usize, root: &Path) -> bool {
        let output = self.agent(node).args(["revive", "--dir"]).arg(root).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        !output.stdout.is_empty()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &self.0 {
            let _ = ip(&format!("netns del {node}"));
        }
    }
}

fn hasty(authority: &str) -> Configure {
    let mut configure = configure(authority);
    configure.limits.lease_ms = 30_000;
    configure.limits.status_ms = 500;
    configure.limits.queued_base = 4;
    configure
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

async fn ended(pid: u32) {
    let end = Instant::now() + PATIENCE;
    // A zombie has ended: its parent may be one that doesn't look.
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < end, "process {pid} goes on");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Names of the batch jobs that run.
async fn running(root: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vo-agent"));
    command.args(["fork", "status", "--dir"]).arg(root.join(SESSION).join("fork"));
    let listing = String::from_utf8(command.output().await.unwrap().stdout).unwrap();
    let rows = listing.lines().map(|row| row.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&"running")).map(|row| row[1].to_owned()).collect()
}

async fn shut_down(mut bridge: Bridge, root: &Path) {
    bridge.say(&Shutdown { patience_ms: 30_000 }).await;
    assert_eq!(bridge.next::<ShutdownDone>().await.left, Vec::<String>::new());
    none_left(root).await;
    assert!(!root.exists());
}

#[tokio::test]
async fn an_agent_that_wakes_up_finds_another_in_charge_and_ends() {
    let Some(nodes) = Nodes::new("an_agent_that_wakes_up_finds_another_in_charge_and_ends") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let authority = authority();
    let mut old = nodes.open(0, &root);
    old.say(&hasty(&authority)).await;
    let first: AgentHello = old.next().await;
    assert_eq!((first.epoch, &first.host), (1, &nodes.0[0]));
    old.say(&SetTarget { proxies: 1 }).await;
    let up: StarterUp = old.next().await;
    old.until(ProxyState::Run).await;
    let jobs = running(&root).await;
    assert_eq!(jobs.len(), 1);

    // Its node hangs; the next call comes to the other one.
    signal(first.pid, Signal::SIGSTOP);
    let mut new = nodes.open(1, &root);
    new.say(&hasty(&authority)).await;
    let second: AgentHello = new.next().await;
    assert_eq!((second.epoch, &second.host), (2, &nodes.0[1]));
    new.say(&SetTarget { proxies: 1 }).await;
    let again: StarterUp = new.next().await;
    assert_eq!(again.key, up.key, "the starter finds the new one");

    // It goes on, with orders in its queue: it must do nothing but end.
    old.say(&SetTarget { proxies: 3 }).await;
    old.say(&Shutdown { patience_ms: 30_000 }).await;
    signal(first.pid, Signal::SIGCONT);
    ended(first.pid).await;
    assert_eq!(running(&root).await, jobs, "batch jobs stay as they are");

    // A call to the first node takes it back there; nobody needs to be stopped for that.
    let mut third = nodes.open(0, &root);
    third.say(&hasty(&authority)).await;
    let hello: AgentHello = third.next().await;
    assert_eq!((hello.epoch, &hello.host), (3, &nodes.0[0]));
    third.say(&SetTarget { proxies: 1 }).await;
    ended(second.pid).await;
    assert_eq!(third.next::<StarterUp>().await.key, up.key);
    assert_eq!(running(&root).await, jobs);

    // Killed, it is replaced from anywhere.
    signal(hello.pid, Signal::SIGKILL);
    let mut last = nodes.open(1, &root);
    last.say(&hasty(&authority)).await;
    assert_eq!(last.next::<AgentHello>().await.epoch, 4);
    assert_eq!(last.next::<StarterUp>().await.key, up.key);
    shut_down(last, &root).await;
}

#[tokio::test]
async fn what_an_agent_submits_while_it_is_taken_over_from_is_adopted_or_cancelled() {
    let Some(nodes) = Nodes::new("what_an_agent_submits_while_it_is_taken_over_from_is_adopted_or_cancelled") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let authority = authority();
    let mut old: Option<AgentHello> = None;
    let mut bridges = Vec::new();
    for round in 0..6usize {
        let mut bridge = nodes.open(round % 2, &root);
        bridge.say(&hasty(&authority)).await;
        let hello: AgentHello = bridge.next().await;
        assert_eq!(hello.epoch, round as u64 + 1);
        let target = u32::try_from(round).unwrap() + 1;
        bridge.say(&SetTarget { proxies: target }).await;
        if let Some(old) = old.take() {
            // Half of them while the new one looks the submission up, half when it may have tried again.
            if round % 2 == 0 {
                bridge.until(ProxyState::Run).await;
            }
            if round != 2 {
                signal(old.pid, Signal::SIGCONT);
            } else {
                signal(old.pid, Signal::SIGKILL);
            }
            ended(old.pid).await;
        }
        // One batch job for each proxy, and no other.
        let end = Instant::now() + PATIENCE * 2;
        while running(&root).await.len() != target as usize || proxies(&mut bridge).await != target {
            assert!(Instant::now() < end, "{:?} for {target} proxies", running(&root).await);
            sleep(Duration::from_millis(100)).await;
        }
        let mut names: Vec<String> = running(&root).await;
        names.sort_by_key(|name| name.rsplit('-').nth(1).map(str::to_owned));
        names.dedup_by_key(|name| name.rsplit('-').nth(1).map(str::to_owned));
        assert_eq!(names.len(), target as usize, "one batch job a proxy: {names:?}");
        if round < 5 {
            // It is stopped as it submits the next one: its files are there, the command is about to run, or runs.
            let launch = root.join(SESSION).join("proxies").join((highest(&root) + 1).to_string()).join("launch");
            bridge.say(&SetTarget { proxies: target + 1 }).await;
            let end = Instant::now() + PATIENCE;
            while !launch.exists() {
                assert!(Instant::now() < end, "no {}", launch.display());
                tokio::task::yield_now().await;
            }
            signal(hello.pid, Signal::SIGSTOP);
            old = Some(hello);
        }
        bridges.push(bridge);
    }
    shut_down(bridges.pop().unwrap(), &root).await;
}

/// Proxies that run, as the last reports said.
async fn proxies(bridge: &mut Bridge) -> u32 {
    bridge.say(&vo_wire::link::Ping { nonce: 7 }).await;
    loop {
        let frame = bridge.frame().await;
        bridge.seen(&frame);
        if frame.kind == <vo_wire::link::Pong as vo_wire::frame::Message>::KIND {
            return u32::try_from(bridge.reports.values().filter(|info| info.state == ProxyState::Run).count())
                .unwrap();
        }
    }
}

/// The last proxy that has files.
fn highest(root: &Path) -> u64 {
    let entries = std::fs::read_dir(root.join(SESSION).join("proxies")).unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).max().unwrap_or(0)
}

#[tokio::test]
async fn an_agent_is_brought_back_on_its_own_node_only() {
    let Some(nodes) = Nodes::new("an_agent_is_brought_back_on_its_own_node_only") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let authority = authority();
    let mut bridge = nodes.open(1, &root);
    bridge.say(&hasty(&authority)).await;
    let hello: AgentHello = bridge.next().await;
    for node in [0, 1] {
        assert!(!nodes.revive(node, &root).await, "a live one is left alone from anywhere");
    }
    bridge.say(&vo_wire::link::Ping { nonce: 1 }).await;
    bridge.next::<vo_wire::link::Pong>().await;
    signal(hello.pid, Signal::SIGKILL);
    ended(hello.pid).await;
    assert!(!nodes.revive(0, &root).await, "another node can't know that it is dead");
    assert!(nodes.revive(1, &root).await);
    assert!(!nodes.revive(1, &root).await);
    // A master that comes to the first node takes it there, and from then on that is its own.
    let mut bridge = nodes.open(0, &root);
    bridge.say(&hasty(&authority)).await;
    assert_eq!(bridge.next::<AgentHello>().await.epoch, 3);
    assert!(!nodes.revive(1, &root).await);
    shut_down(bridge, &root).await;
}

#[tokio::test]
async fn an_agent_that_hangs_is_replaced_on_its_own_node_too() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("vo");
    let authority = authority();
    let mut old = Bridge::open(&root);
    old.say(&hasty(&authority)).await;
    let first: AgentHello = old.next().await;
    signal(first.pid, Signal::SIGSTOP);
    let mut new = Bridge::open(&root);
    new.say(&hasty(&authority)).await;
    assert_eq!(new.next::<AgentHello>().await.epoch, 2);
    signal(first.pid, Signal::SIGCONT);
    ended(first.pid).await;
    assert!(tokio::time::timeout(PATIENCE, old.child.wait()).await.unwrap().unwrap().success());
    shut_down(new, &root).await;
}
