//! The real starter against an agent played by the test: what it runs, what it tells, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod starter_harness;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use starter_harness::*;
use vo_agent::launch;
use vo_core::Template;
use vo_core::items::Row;
use vo_core::job::{AttemptResult, Outcome, Output, OutputKind, Program};
use vo_core::template::Piece;
use vo_wire::node::{End, Leaving, MasterLink, Shares};
use vo_wire::work::{Assign, Assignment, FetchOutput, FileRole, Inventory, Kill, OutputLost, Recall, Report, Wait};

#[tokio::test]
async fn jobs_run_in_their_own_directory() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[("VO_NODE_CPUS", "3"), ("VO_TIME_LEFT_S", "3600"), ("VO_NODE_INDEX", "x")]);
    let mut peer = agent.accept().await;
    let facts = peer.hello.facts.clone();
    assert_eq!((facts.cpus, facts.shares, facts.batch_id.as_str(), facts.restarts), (3, Shares::Everything, "4711", 0));
    assert!((3_590_000..=3_600_000).contains(&facts.time_left_ms.unwrap()), "{facts:?}");
    assert!(facts.memory_mb > 0 && facts.scratch_bytes > 0 && facts.pid as i32 == process.starter());
    assert!(peer.inventory().await.queued.is_empty());

    let work = agent.work();
    let script =
        "cat; pwd; echo $VO_JOB $VO_ATTEMPT $GREETING $OMP_NUM_THREADS [$SLURM_SECRET]; echo \"$1\" >&2; exit 3";
    let mut program = shell(&work, script);
    program.arguments.extend([constant("sh"), constant(b"\xff arg")]);
    program.environment.push((constant("GREETING"), Template(vec![Piece::Text(b"hi-".to_vec()), Piece::Process])));
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
    assert_eq!(String::from_utf8(out).unwrap(), format!("input\n{}\n1.5 1 hi-5 2 []\n", work.display()));
    assert_eq!(fs::read(work.join("err")).unwrap(), b"\xff arg\n");
    peer.acknowledge(&[id(5)]).await;

    peer.send(&End { why: "over".into() }).await;
    assert_eq!(peer.expect::<Leaving>().await.why, "over");
    assert!(process.end().await.success());
    assert!(!agent.tag().exists());
    assert_eq!(fs::read_dir(agent.root.join("scratch")).unwrap().count(), 0);
}

#[tokio::test]
async fn whatever_was_there_before_it_shows_that_it_runs() {
    // The agent's tag, none, and what an earlier life of the proxy left: its exit file, no tag.
    for (tagged, exited) in [(true, false), (false, false), (false, true)] {
        let agent = Agent::new(|_| {}).await;
        if tagged {
            fs::write(agent.tag(), "the agent's").unwrap();
        }
        let exit_file = agent.site().exit_file(vo_core::ProxyId(7));
        if exited {
            fs::write(&exit_file, "0").unwrap();
        }
        let process = agent.start(&[]);
        let peer = agent.accept().await;
        let expected = if tagged { "the agent's" } else { "" };
        assert_eq!(fs::read_to_string(agent.tag()).unwrap(), expected);
        if !tagged {
            assert_eq!(fs::metadata(agent.tag()).unwrap().mode() & 0o777, 0o600);
        }
        assert!(!exit_file.exists());
        end(&agent, peer, process).await;
    }
}

#[tokio::test]
async fn a_starter_that_cannot_show_itself_does_not_run() {
    let agent = Agent::new(|_| {}).await;
    fs::remove_dir(agent.site().0.join("tags")).unwrap();
    let process = agent.start(&[]);
    assert_eq!(process.end().await.code(), Some(2));
    assert_eq!(fs::read_dir(agent.root.join("scratch")).unwrap().count(), 0);
}

/// Ends the starter, which must leave nothing behind.
async fn end(agent: &Agent, mut peer: Peer, process: Process) {
    peer.send(&End { why: "over".into() }).await;
    assert_eq!(peer.expect::<Leaving>().await.why, "over");
    assert!(process.end().await.success());
    nothing_left(agent);
}

fn nothing_left(agent: &Agent) {
    assert!(!agent.tag().exists());
    assert_eq!(fs::read_dir(agent.root.join("scratch")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_program_waits_for_its_time() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let give = |number: u32, program: u64, wait: (u64, u64)| {
        let wait = Some(Wait { start_ms: wait.0, most_ms: wait.1 });
        Assignment { id: id(number), program, files: None, directory: None, row: Row::default(), wait }
    };
    let uptime = || {
        let text = fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    peer.define(1, shell(&agent.work(), "read -r up rest </proc/uptime; echo $up >\"started.$1\"; exit 3")).await;
    let whole = Program { cpus: peer.hello.facts.cpus, ..shell(&agent.work(), "exit 0") };
    peer.define(2, whole).await;
    peer.define(3, plain(&agent.work(), "missing")).await;
    let given = uptime();
    peer.give(vec![give(1, 1, (1200, 9000))]).await;
    assert_eq!(peer.outcome(id(1)).await, Outcome::Exited(3));
    let started: f64 = fs::read_to_string(agent.work().join("started.")).unwrap().trim().parse().unwrap();
    assert!(started >= given + 1.2, "{started} {given}");
    // One that is behind another for too long is not started at all.
    peer.give(vec![give(2, 2, (500, 9000)), give(3, 2, (0, 100))]).await;
    assert_eq!(peer.outcome(id(2)).await, Outcome::Exited(0));
    assert_eq!(peer.outcome(id(3)).await, Outcome::Missed);
    // One that can't be started is known at once, and one that waits can be killed.
    peer.give(vec![give(4, 3, (3_600_000, 3_600_000))]).await;
    let missing = format!("cannot execute {}/missing: No such file or directory", agent.work().display());
    assert_eq!(peer.outcome(id(4)).await, Outcome::Unrunnable(missing));
    peer.give(vec![give(5, 2, (3_600_000, 3_600_000))]).await;
    peer.started(id(5)).await;
    peer.send(&Kill { ids: vec![id(5)], grace_ms: 5000, signal: 0 }).await;
    assert_eq!(peer.outcome(id(5)).await, Outcome::Killed);
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let work = agent.work();
    let script = |name: &str, content: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(work.join(name), content).unwrap();
        fs::set_permissions(work.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    script("plain", "echo hello\n", 0o644);
    script("headless", "echo hello\n", 0o755);
    script("odd", "#!/no/such/interpreter\n", 0o755);
    script("good", "#!/bin/sh\nexit 7\n", 0o755);
    let with = |name: &str, change: &dyn Fn(&mut Program)| {
        let mut program = plain(&work, name);
        change(&mut program);
        program
    };
    let w = work.display();
    let cases = [
        (with("good", &|_| {}), Ok(7)),
        (with("./good", &|_| {}), Ok(7)),
        (with("missing", &|_| {}), Err(format!("cannot execute {w}/missing: No such file or directory"))),
        (with("true", &|_| {}), Err(format!("cannot execute {w}/true: No such file or directory"))),
        (with("plain", &|_| {}), Err(format!("cannot execute {w}/plain: Permission denied"))),
        (with("headless", &|_| {}), Err(format!("cannot execute {w}/headless: Exec format error"))),
        (with("odd", &|_| {}), Err(format!("cannot execute {w}/odd: its interpreter: No such file or directory"))),
        (
            with("good", &|p| p.output = Some(constant("no/such/out"))),
            Err(format!("cannot open {w}/no/such/out: No such file or directory")),
        ),
        (
            with("good", &|p| p.input = Some(constant("missing"))),
            Err(format!("cannot open {w}/missing: No such file or directory")),
        ),
        (
            with("good", &|p| p.initialdir = constant("/no/such/place")),
            Err("cannot enter /no/such/place: No such file or directory".to_owned()),
        ),
        (
            with("good", &|p| p.arguments.push(constant("a\0b"))),
            Err(format!("cannot execute {w}/good: nul byte found in provided data")),
        ),
    ];
    for (number, (program, expected)) in (0..).zip(cases) {
        peer.define(u64::from(number), program).await;
        peer.assign(u64::from(number), &[id(number)]).await;
        let expected = expected.map_or_else(Outcome::Unrunnable, Outcome::Exited);
        assert_eq!(peer.outcome(id(number)).await, expected, "case {number}");
    }
    peer.assign(99, &[id(99)]).await;
    let unknown = Outcome::SiteFailed("program 99 was not defined to the starter".into());
    assert_eq!(peer.outcome(id(99)).await, unknown);
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn a_directory_that_is_not_the_jobs_needs_files() {
    let agent = Agent::new(|launch| {
        launch.marker.host = "another 1".into();
        let marker = std::path::PathBuf::from(launch.scratch.clone().unwrap()).with_file_name("marker");
        fs::write(&marker, "it is me").unwrap();
        launch.marker.path = marker.into_os_string().into_encoded_bytes();
        launch.marker.content = "it is me".into();
    })
    .await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    assert_eq!(peer.hello.facts.shares, Shares::MarkerFs);
    let inode = fs::metadata(agent.work()).unwrap().ino();
    peer.define(1, plain(&agent.work(), "/bin/true")).await;
    peer.define(2, plain(&agent.work(), "elsewhere")).await;
    let cases = [
        (1, Some(inode), Outcome::Exited(0)),
        (1, Some(inode + 1), Outcome::NeedsFiles),
        (1, None, Outcome::NeedsFiles),
        (2, Some(inode), Outcome::NeedsFiles),
    ];
    for (number, (program, directory, expected)) in (0..).zip(cases) {
        let assignment =
            Assignment { id: id(number), program, files: None, directory, row: Row::default(), wait: None };
        peer.give(vec![assignment]).await;
        assert_eq!(peer.outcome(id(number)).await, expected, "case {number}");
    }
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn files_travel() {
    let agent = Agent::new(|launch| launch.limits.capture_bytes = 3_000_000).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let script = b"#!/bin/sh
cat
echo $PWD $_CONDOR_SCRATCH_DIR $TMPDIR
pwd >&2
echo more >>data
mkdir sub/new && echo x >sub/new/inner
head -c 3000000 /dev/zero >big
ln -s big link
chmod 000 sub
exit $1";
    let big_input: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let files = vec![
        peer.file(FileRole::Executable, script),
        peer.file(FileRole::Stdin, b"from stdin\n"),
        peer.file(FileRole::Input(b"data".to_vec()), b"some\n"),
        peer.file(FileRole::Input(b"untouched".to_vec()), &big_input),
        peer.file(FileRole::Input(b"sub/deep\xff".to_vec()), b""),
    ];
    let mut program = plain(Path::new("/home/nobody/here"), "bin/tool.sh");
    program.arguments.push(constant("4"));
    (program.input, program.output, program.error) = (Some(constant("i")), Some(constant("o")), Some(constant("e")));
    program.transfer_executable = true;
    peer.define(1, program.clone()).await;
    // Two at once: each file comes once.
    peer.assign_files(1, id(1), files.clone()).await;
    peer.assign_files(1, id(2), files.clone()).await;
    for id in [id(1), id(2)] {
        let result = peer.result(id).await;
        assert_eq!(result.outcome, Outcome::Exited(4));
        let mut found = Vec::new();
        for output in &result.outputs {
            let content = peer.fetch(id, output).await;
            assert_eq!((sha256(&content), content.len() as u64), (output.hash, output.size));
            found.push((output.kind.clone(), content));
        }
        let [
            (OutputKind::Stdout, out),
            (OutputKind::Stderr, err),
            (OutputKind::File(big), zeros),
            (OutputKind::File(data), more),
            (OutputKind::File(link), linked),
        ] = &found[..]
        else {
            let told: Vec<_> = found.iter().map(|(kind, content)| (kind, content.len())).collect();
            panic!("{told:?}");
        };
        let place = String::from_utf8(err.clone()).unwrap();
        let place = place.trim();
        assert_eq!(String::from_utf8_lossy(out), format!("from stdin\n{place} {place} {place}\n"));
        assert_eq!(
            (&big[..], zeros.len(), &data[..], &more[..]),
            (&b"big"[..], 3_000_000, &b"data"[..], &b"some\nmore\n"[..])
        );
        assert!(link == b"link" && linked == zeros, "it counts as what it leads to");
        assert!(fs::exists(place).unwrap());
        peer.acknowledge(&[id]).await;
        until("the scratch directory goes", || !fs::exists(place).unwrap()).await;
    }
    let mut served = peer.served.clone();
    served.sort_unstable();
    served.dedup();
    assert_eq!((served.len(), peer.served.len()), (5, 5));

    // Outputs by name; one is missing. What is not held is said to be lost.
    program.transfer_output = Some(vec![constant("data"), constant("nowhere")]);
    peer.define(2, program.clone()).await;
    peer.assign_files(2, id(3), files.clone()).await;
    let result = peer.result(id(3)).await;
    let why = "transfer_output_files: nowhere: No such file or directory (it exited with 4)";
    assert_eq!(result.outcome, Outcome::OutputFailed(why.into()));
    let told: Vec<_> = result.outputs.iter().map(|output| (&output.kind, output.inline.is_some())).collect();
    assert_eq!(
        told,
        [(&OutputKind::Stdout, true), (&OutputKind::Stderr, true)],
        "what it said, for the user to see why"
    );
    let gone = FetchOutput { id: id(3), kind: OutputKind::File(b"nowhere".to_vec()), offset: 0, length: 1, kept: 0 };
    peer.send(&gone).await;
    assert_eq!(peer.expect::<OutputLost>().await.kind, gone.kind);

    // A file that the agent lacks, one that comes damaged, one that would land elsewhere.
    let mut lacking = files.clone();
    lacking[2].hash = [7; 32];
    peer.assign_files(1, id(4), lacking.clone()).await;
    assert_eq!(peer.outcome(id(4)).await, Outcome::SiteFailed("nobody has it".into()));
    peer.blobs.insert([7; 32], b"something else".to_vec());
    peer.assign_files(1, id(5), lacking).await;
    let Outcome::SiteFailed(why) = peer.outcome(id(5)).await else { panic!() };
    assert!(why.contains("damaged"), "{why}");
    for (number, name) in (6..).zip(["../up", "/tmp/absolute", "a/../../b", ""]) {
        let astray = vec![files[0].clone(), peer.file(FileRole::Input(name.into()), b"")];
        peer.assign_files(1, id(number), astray).await;
        assert!(matches!(peer.outcome(id(number)).await, Outcome::Unrunnable(_)), "{name}");
    }

    // More files than a message can list.
    let script = "long=$(printf %0200d 0); for i in $(seq 4000); do : >$i.$long; done";
    peer.define(4, shell(Path::new("/"), script)).await;
    peer.assign_files(4, id(21), Vec::new()).await;
    let result = peer.result(id(21)).await;
    assert!(
        matches!(&result.outcome, Outcome::OutputFailed(why) if why.starts_with("the job left 4000 files")),
        "{:?}",
        result.outcome
    );
    assert!(result.outputs.is_empty());

    // More than is kept of standard output, in one line.
    let mut talker = shell(Path::new("/"), "head -c 100000000 /dev/zero; echo end >&2");
    talker.output = Some(constant("o"));
    talker.error = Some(constant("o"));
    peer.define(3, talker).await;
    peer.assign_files(3, id(20), Vec::new()).await;
    let result = peer.result(id(20)).await;
    let mark = "\n[vo-login: cut here, 3000000 of 100000004 bytes are kept]\n";
    assert_eq!(result.outputs.len(), 1);
    let content = peer.fetch(id(20), &result.outputs[0]).await;
    assert!(content.ends_with(mark.as_bytes()) && content.len() == 3_000_000 + mark.len());
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn a_job_is_killed_while_its_outputs_are_sent() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    // Takes what comes, and never answers.
    let store = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut program = shell(Path::new("/"), "echo sent >sent; echo said");
    program.output = Some(constant("out"));
    program.destination = Some(constant(format!("http://{}", store.local_addr().unwrap())));
    peer.define(1, program).await;
    peer.assign_files(1, id(1), Vec::new()).await;
    let (_silent, _) = store.accept().await.unwrap();
    peer.started(id(1)).await;
    peer.send(&Kill { ids: vec![id(1)], grace_ms: 5000, signal: 0 }).await;
    let result = peer.result(id(1)).await;
    assert_eq!(result.outcome, Outcome::Killed);
    assert_eq!(result.outputs[0].inline.as_deref(), Some(&b"said\n"[..]), "the end of what it said is told");
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn a_long_line_in_place() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let mut program = shell(&agent.work(), "head -c 100000000 /dev/zero");
    program.output = Some(constant("out"));
    peer.define(1, program).await;
    peer.assign(1, &[id(1)]).await;
    assert_eq!(peer.outcome(id(1)).await, Outcome::Exited(0));
    assert_eq!(fs::metadata(agent.work().join("out")).unwrap().len(), 100_000_000);
    end(&agent, peer, process).await;
}

/// Starts a job that leaves its group, and starts a second such process that lost its parent: their process ids.
async fn spreads(agent: &Agent, peer: &mut Peer, proc: u32, then: &str) -> Vec<i32> {
    let script = format!(
        "trap '' TERM
        setsid sh -c 'trap \"\" TERM; echo $$ >a.{proc}; while :; do sleep 1000; done' &
        (setsid sh -c 'trap \"\" TERM; echo $$ >b.{proc}; while :; do sleep 1000; done' &)
        sleep 1000 & echo $! >c.{proc}
        echo $$ >d.{proc}
        while ! [ -s a.{proc} -a -s b.{proc} ]; do sleep 0.01; done
        {then}"
    );
    peer.define(u64::from(proc), shell(&agent.work(), &script)).await;
    peer.assign(u64::from(proc), &[id(proc)]).await;
    let mut pids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        pids.push(number_in(&agent.work().join(format!("{name}.{proc}"))).await);
    }
    pids
}

async fn all_dead(pids: &[i32]) {
    until("all are dead", || !pids.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn trees_die_whole() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[("VO_NODE_CPUS", "3")]);
    let mut peer = agent.accept().await;
    let forever = "while :; do sleep 1000; done";
    let other = spreads(&agent, &mut peer, 1, forever).await;
    let killed = spreads(&agent, &mut peer, 2, forever).await;
    assert!(killed.iter().chain(&other).all(|pid| is_alive(*pid)));
    peer.send(&Kill { ids: vec![id(2)], grace_ms: 100, signal: 0 }).await;
    assert_eq!(peer.outcome(id(2)).await, Outcome::Killed);
    all_dead(&killed).await;
    // A job that ends by itself leaves nothing either.
    let ended = spreads(&agent, &mut peer, 3, "exit 0").await;
    assert_eq!(peer.outcome(id(3)).await, Outcome::Exited(0));
    all_dead(&ended).await;
    assert!(other.iter().all(|pid| is_alive(*pid)));
    // Stopped is not ended.
    peer.define(4, shell(&agent.work(), "echo $$ >stopped; kill -STOP $$; exit 6")).await;
    peer.assign(4, &[id(4)]).await;
    let stopped = number_in(&agent.work().join("stopped")).await;
    let state = || fs::read_to_string(format!("/proc/{stopped}/stat")).unwrap().contains(") T ");
    until("it stops", state).await;
    kill(stopped, Signal::SIGCONT);
    assert_eq!(peer.outcome(id(4)).await, Outcome::Exited(6));
    peer.define(5, shell(&agent.work(), "kill -SEGV $$")).await;
    peer.assign(5, &[id(5)]).await;
    assert_eq!(peer.outcome(id(5)).await, Outcome::Signaled(11));
    end(&agent, peer, process).await;
    all_dead(&other).await;
}

#[tokio::test]
async fn a_starter_killed_leaves_nothing() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let pids = spreads(&agent, &mut peer, 1, "while :; do sleep 1000; done").await;
    kill(process.starter(), Signal::SIGKILL);
    assert_eq!(process.end().await.code(), Some(128 + 9));
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    nothing_left(&agent);
}

#[tokio::test]
async fn a_guardian_killed_leaves_nothing() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let pids = spreads(&agent, &mut peer, 1, "while :; do sleep 1000; done").await;
    kill(process.pid(), Signal::SIGKILL);
    let failed = Outcome::Evicted("the starter's guardian was killed".into());
    assert_eq!(peer.outcome(id(1)).await, failed);
    until("the tag goes", || !agent.tag().exists()).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    nothing_left(&agent);
}

#[tokio::test]
async fn the_batch_system_ends_the_proxy() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[("VO_NODE_CPUS", "1")]);
    let mut peer = agent.accept().await;
    peer.define(1, shell(&agent.work(), "echo $$ >pid; sleep 1000")).await;
    peer.assign(1, &[id(1), id(2)]).await;
    let job = number_in(&agent.work().join("pid")).await;
    // Slurm signals the job's processes, ours among them.
    kill(job, Signal::SIGTERM);
    kill(process.pid(), Signal::SIGTERM);
    let result = peer.result(id(1)).await;
    assert!(matches!(&result.outcome, Outcome::Evicted(why) if why.contains("SIGTERM")), "{result:?}");
    peer.acknowledge(&[id(1)]).await;
    assert!(peer.expect::<Leaving>().await.why.contains("SIGTERM"));
    assert!(process.end().await.success());
    nothing_left(&agent);
}

#[tokio::test]
async fn results_are_repeated_until_acknowledged() {
    let mut agent = Agent::new(|_| {}).await;
    let process = agent.start(&[("VO_NODE_CPUS", "1")]);
    let mut peer = agent.accept_with(false).await;
    let key = peer.hello.key;
    peer.send(&MasterLink { up: true }).await;
    let nothing = Inventory { number: 1, ..Inventory::default() };
    assert_eq!(peer.inventory().await, nothing);
    peer.define(1, shell(&agent.work(), "exit 9")).await;
    peer.define(2, shell(&agent.work(), "while ! [ -e go ]; do sleep 0.01; done")).await;
    peer.assign(1, &[id(1)]).await;
    peer.assign(2, &[id(2), id(3), id(4), id(5)]).await;
    assert_eq!(peer.result(id(1)).await.outcome, Outcome::Exited(9));
    peer.started(id(2)).await;
    // Back come the last ones.
    peer.send(&Recall { count: 2, inventory: 1 }).await;
    assert_eq!(peer.expect::<Report>().await.returned, [id(4), id(5)]);
    // The agent restarts elsewhere; an old one that still answers is not listened to.
    agent.epoch += 5;
    agent.restart().await;
    drop(peer);
    let mut peer = agent.accept().await;
    assert_eq!(peer.hello.key, key);
    let held = Inventory { queued: vec![id(3)], running: vec![id(2)], finished: vec![id(1)], number: 2 };
    assert_eq!(peer.inventory().await, held);
    assert_eq!(peer.result(id(1)).await.outcome, Outcome::Exited(9));
    // What the master gave before it had this inventory comes too late: it is given elsewhere.
    let late = Assignment { id: id(6), program: 1, files: None, directory: None, row: Row::default(), wait: None };
    peer.send(&Assign { attempts: vec![late], inventory: 1 }).await;
    // What is known is not run again; what is acknowledged is not told again.
    peer.acknowledge(&[id(1)]).await;
    peer.assign(1, &[id(1), id(3)]).await;
    let epoch = agent.epoch;
    agent.epoch = 2;
    drop(peer);
    drop(agent.accept().await);
    agent.epoch = epoch;
    let mut peer = agent.accept().await;
    assert_eq!(peer.hello.epoch, epoch);
    let held = Inventory { queued: vec![id(3)], running: vec![id(2)], finished: vec![], number: 3 };
    assert_eq!(peer.inventory().await, held);
    fs::write(agent.work().join("go"), "").unwrap();
    assert_eq!(peer.outcome(id(2)).await, Outcome::Exited(0));
    assert_eq!(peer.outcome(id(3)).await, Outcome::Exited(0));
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn without_its_agent_a_starter_ends() {
    let agent = Agent::new(|launch| launch.limits.lease_ms = 4000).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    let pids = spreads(&agent, &mut peer, 1, "while :; do sleep 1000; done").await;
    drop(peer);
    fs::remove_file(agent.site().address()).unwrap();
    assert!(process.end().await.success());
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    nothing_left(&agent);
}

#[tokio::test]
async fn an_idle_starter_leaves() {
    let agent = Agent::new(|launch| launch.limits.idle_ms = 2000).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    peer.define(1, shell(&agent.work(), "sleep 0.6")).await;
    peer.assign(1, &[id(1)]).await;
    let result = peer.result(id(1)).await;
    assert!(result.usage.wall_ms >= 600);
    peer.acknowledge(&[id(1)]).await;
    assert_eq!(peer.expect::<Leaving>().await.why, "idle for 2s");
    assert!(peer.next().await.is_none());
    assert!(process.end().await.success());
    nothing_left(&agent);
}

#[tokio::test]
async fn the_walltime_ends() {
    let agent = Agent::new(|launch| launch.limits.drain_ms = 12_000).await;
    let process = agent.start(&[("VO_TIME_LEFT_S", "15"), ("VO_NODE_CPUS", "1")]);
    let mut peer = agent.accept().await;
    peer.define(1, shell(&agent.work(), "sleep 1000")).await;
    peer.assign(1, &[id(1), id(2)]).await;
    peer.started(id(1)).await;
    assert_eq!(peer.expect::<Report>().await.returned, [id(2)]);
    peer.assign(1, &[id(3)]).await;
    assert_eq!(peer.expect::<Report>().await.returned, [id(3)]);
    assert_eq!(peer.outcome(id(1)).await, Outcome::Evicted("walltime of the proxy ended".into()));
    assert_eq!(peer.expect::<Leaving>().await.why, "walltime of the proxy ended");
    assert!(process.end().await.success());
    nothing_left(&agent);
}

#[tokio::test]
async fn an_unusable_node_says_so() {
    let agent = Agent::new(|launch| launch.scratch = Some("/proc/nowhere".into())).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    assert_eq!(peer.hello.facts.cpus, 0);
    let why = peer.expect::<Leaving>().await.why;
    assert!(why.starts_with("cannot write in /proc/nowhere/vo-5e55-7.0-"), "{why}");
    assert_eq!(process.end().await.code(), Some(2));
    assert!(!agent.tag().exists());
}

#[tokio::test]
async fn an_agent_that_does_not_take_it_in_ends_it() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.answer(&End { why: "its proxy counts as ended".into() }).await;
    assert!(process.end().await.success());
    assert!(peer.next().await.is_none());
    nothing_left(&agent);
}

#[tokio::test]
async fn scratch_space_that_others_could_exchange_is_not_used() {
    let temp = tempfile::tempdir().unwrap();
    let shared = temp.path().join("shared");
    fs::create_dir(&shared).unwrap();
    for (mode, usable) in [(0o777, false), (0o1777, true)] {
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
        let scratch = shared.to_str().unwrap().to_owned();
        let agent = Agent::new(|launch| launch.scratch = Some(scratch)).await;
        let process = agent.start(&[]);
        let mut peer = agent.accept().await;
        assert_eq!(peer.hello.facts.cpus > 0, usable, "{mode:o}");
        if usable {
            end(&agent, peer, process).await;
        } else {
            let why = peer.expect::<Leaving>().await.why;
            assert!(why.contains("everyone may write there, and it has no sticky bit"), "{why}");
            assert_eq!(process.end().await.code(), Some(2));
        }
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    }
}

/// Writes some to standard output and more than is kept to standard error, then a mark, and waits.
const TALKS: &str = "echo hello; head -c 100000 /dev/zero | tr '\\0' x >&2; echo end >&2; touch written; sleep 1000";

fn talks(agent: &Agent) -> Program {
    let mut program = shell(&agent.work(), TALKS);
    program.output = Some(constant("out"));
    program.error = Some(constant("err"));
    program
}

/// Has job 1.2, in a scratch directory?
fn wrote_in_scratch(agent: &Agent) -> bool {
    let starters = fs::read_dir(agent.root.join("scratch")).unwrap();
    starters.into_iter().flatten().any(|starter| starter.path().join("jobs/1.2-1/work/written").exists())
}

/// What [`TALKS`] wrote, as far as it is kept.
fn check_talk(outputs: &[Output]) {
    let [out, err] = outputs else { panic!("{outputs:?}") };
    assert_eq!((&out.kind, out.inline.as_deref()), (&OutputKind::Stdout, Some(&b"hello\n"[..])));
    let text = String::from_utf8(err.inline.clone().unwrap()).unwrap();
    assert!(
        text.starts_with("[vo-login: the last 65536 of 100004 bytes]\nxxx") && text.ends_with("xxxend\n"),
        "{text}"
    );
    assert_eq!((sha256(text.as_bytes()), text.len() as u64), (err.hash, err.size));
}

#[tokio::test]
async fn what_a_killed_job_wrote_is_told() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[("VO_NODE_CPUS", "2")]);
    let mut peer = agent.accept().await;
    peer.define(1, talks(&agent)).await;
    peer.assign(1, &[id(1)]).await;
    until("the job in its own directory has written", || agent.work().join("written").exists()).await;
    peer.assign_files(1, id(2), Vec::new()).await;
    until("the job in a scratch directory has written", || wrote_in_scratch(&agent)).await;
    for _again in 0..2 {
        peer.send(&Kill { ids: vec![id(1), id(2)], grace_ms: 100, signal: 0 }).await;
        for id in [id(1), id(2)] {
            let result = peer.result(id).await;
            assert_eq!(result.outcome, Outcome::Killed);
            check_talk(&result.outputs);
        }
    }
    // The user's file is as the job left it.
    assert_eq!(fs::read(agent.work().join("err")).unwrap().len(), 100_004);
    peer.acknowledge(&[id(1), id(2)]).await;
    end(&agent, peer, process).await;
}

#[tokio::test]
async fn what_a_job_wrote_before_the_batch_system_ended_it_is_told() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[("VO_NODE_CPUS", "2")]);
    let mut peer = agent.accept().await;
    let mut program = talks(&agent);
    program.arguments[1] = constant(format!("echo $$ >{}/pid.$VO_JOB; {TALKS}", agent.work().display()));
    peer.define(1, program).await;
    peer.assign(1, &[id(1)]).await;
    peer.assign_files(1, id(2), Vec::new()).await;
    until("the job in its own directory has written", || agent.work().join("written").exists()).await;
    until("the job in a scratch directory has written", || wrote_in_scratch(&agent)).await;
    for job in ["1.1", "1.2"] {
        // The shell first, or it would tell that its child was ended.
        let shell = number_in(&agent.work().join(format!("pid.{job}"))).await;
        kill(shell, Signal::SIGTERM);
    }
    kill(process.pid(), Signal::SIGTERM);
    for id in [id(1), id(2)] {
        let result = peer.result(id).await;
        assert!(matches!(result.outcome, Outcome::Evicted(_)), "{result:?}");
        check_talk(&result.outputs);
    }
    peer.acknowledge(&[id(1), id(2)]).await;
    assert!(process.end().await.success());
    nothing_left(&agent);
}

/// The results in a starter's spool.
fn spooled(agent: &Agent, key: vo_core::StarterKey) -> Vec<AttemptResult> {
    let dir = agent.site().spool().join(key.to_string()).join("results");
    let mut found: Vec<AttemptResult> =
        fs::read_dir(dir).unwrap().map(|entry| launch::read(&entry.unwrap().path()).unwrap()).collect();
    found.sort_by_key(|result| result.id);
    found
}

#[tokio::test]
async fn what_jobs_of_a_killed_starter_wrote_is_put_aside() {
    let agent = Agent::new(|_| {}).await;
    let process = agent.start(&[]);
    let mut peer = agent.accept().await;
    peer.define(1, talks(&agent)).await;
    peer.assign_files(1, id(2), Vec::new()).await;
    until("the job has written", || wrote_in_scratch(&agent)).await;
    kill(process.starter(), Signal::SIGKILL);
    assert_eq!(process.end().await.code(), Some(128 + 9));
    nothing_left(&agent);
    let results = spooled(&agent, peer.hello.key);
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].outcome, Outcome::SiteFailed("its starter was killed (SIGKILL)".into()));
    check_talk(&results[0].outputs);
}

#[tokio::test]
async fn results_that_nobody_takes_are_put_aside() {
    let agent = Agent::new(|launch| launch.limits.lease_ms = 3000).await;
    let process = agent.start(&[("VO_NODE_CPUS", "3")]);
    let mut peer = agent.accept().await;
    let mut program = shell(&agent.work(), "echo ok; head -c 300000 /dev/zero >big; [ $VO_JOB != 1.2 ] || sleep 1000");
    program.output = Some(constant("out"));
    peer.define(1, program).await;
    peer.assign_files(1, id(1), Vec::new()).await;
    assert_eq!(peer.result(id(1)).await.outcome, Outcome::Exited(0));
    peer.assign_files(1, id(2), Vec::new()).await;
    peer.started(id(2)).await;
    // The agent goes away and does not come back; nobody listens where it was.
    let key = peer.hello.key;
    fs::remove_file(agent.site().address()).unwrap();
    drop(peer);
    assert!(process.end().await.success());
    nothing_left(&agent);
    let results = spooled(&agent, key);
    let [whole, cut_off] = &results[..] else { panic!("{results:?}") };
    assert_eq!((whole.id, &whole.outcome), (id(1), &Outcome::Exited(0)));
    let big = whole.outputs.iter().find(|output| output.inline.is_none()).unwrap();
    let hash: String = big.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = agent.site().spool().join(key.to_string()).join("outputs").join(hash);
    assert_eq!(sha256(&fs::read(path).unwrap()), big.hash);
    assert_eq!(cut_off.outcome, Outcome::Evicted("no answer of the site's agent for 3s".into()));
    assert_eq!(cut_off.outputs[0].inline.as_deref(), Some(&b"ok\n"[..]));
}

#[tokio::test]
async fn a_job_that_fails_on_a_full_disk_is_failed_by_its_node() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a small file system needs root to be mounted");
        return;
    }
    let agent = Agent::new(|_| {}).await;
    let mut small = std::process::Command::new("unshare");
    small.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=2m none \"$0\" && exec \"$@\""]);
    small.arg(agent.root.join("scratch")).arg(env!("CARGO_BIN_EXE_vo-agent"));
    let process = agent.start_by(small, &[("VO_NODE_CPUS", "1")]);
    let mut peer = agent.accept().await;
    let mut program = shell(&agent.work(), "echo begun; head -c 10000000 /dev/zero >big");
    program.output = Some(constant("out"));
    program.error = Some(constant("err"));
    peer.define(1, program).await;
    peer.assign_files(1, id(1), Vec::new()).await;
    let result = peer.result(id(1)).await;
    let Outcome::SiteFailed(why) = &result.outcome else { panic!("{result:?}") };
    assert!(why.starts_with("the node's scratch space is full, ") && why.ends_with("(it exited with 1)"), "{why}");
    assert_eq!(result.outputs[0].inline.as_deref(), Some(&b"begun\n"[..]), "what it said before is kept");
    peer.acknowledge(&[id(1)]).await;
    end(&agent, peer, process).await;
}
