//! Every parser of bytes from outside, as a function of bytes that must neither panic nor take memory or time out of proportion:
//! what cargo-fuzz runs ([`TARGETS`], by their names) and what the tests replay the corpus with.
//!
//! A function here may assert more than that nothing panics: what is read and written again is the same.

#![allow(clippy::expect_used, clippy::panic, reason = "a panic is how a target fails")]

use std::path::Path;
use std::time::Duration;

use vo_batch::{Detected, Kind, RawOutput, System};
use vo_core::ids::{JobId, ProxyId, SiteId, StarterKey};
use vo_core::pool::{self, GroupRecord, Offer, Pool, Shared, Snapshot};
use vo_core::proxy::{self, Proxies};
use vo_core::time::Time;
use vo_lang::classad::{Ad, Context, Expr, Value};
use vo_lang::conf::{Conf, Overrides};
use vo_lang::submit;
use vo_net::ssh::known_hosts::{KnownHosts, lookup_name};
use vo_net::ssh::{Target, TargetQuery};
use vo_net::tls::{Identity, SessionCa, SiteAuthority};
use vo_store::memdisk::MemDisk;
use vo_store::{Log, Options};
use vo_wire::frame::{Frame, FrameReader, Message};
use vo_wire::{control, link, node, work};

/// A target: its name, and its function.
pub type Entry = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Entry; 13] = [
    ("frames", frames),
    ("batch", batch),
    ("submit", submit),
    ("classad", classad),
    ("dag", dag),
    ("eventlog", eventlog),
    ("conf", conf),
    ("journal", journal),
    ("pool", pool),
    ("proxies", proxies),
    ("known_hosts", known_hosts),
    ("ssh_config", ssh_config),
    ("launch", launch),
];

/// A stream of frames, each read as the message of its kind.
pub fn frames(data: &[u8]) {
    let mut reader = FrameReader::new();
    // A stream comes in pieces.
    for piece in data.chunks(1 + data.first().map_or(0, |first| usize::from(*first))) {
        reader.buffer().extend_from_slice(piece);
        while let Ok(Some(frame)) = reader.next_frame() {
            message(&frame);
        }
    }
}

fn message(frame: &Frame) {
    macro_rules! any_of {
        ($($module:ident: $($name:ident)*;)*) => {
            match frame.kind {
                $($($module::$name::KIND => again::<$module::$name>(frame),)*)*
                _ => {}
            }
        };
    }
    any_of! {
        link: Configure AgentHello AgentRefused SetTarget ProxyReport SiteNote StarterUp StarterDown NeedBlob BlobChunk BlobMissing
            BlobAck RemoveProxies Shutdown ShutdownDone Ping Pong AgentStats Why Because;
        node: StarterHello Welcome MasterLink Leaving End;
        work: DefineProgram Assign Report Acknowledge Recall Kill Inventory FetchOutput OutputChunk OutputLost Checkpointed CheckpointKept Printed Seen
            SlotAd;
        control: Hello Welcome Done Failed FollowStart SiteEvent Question Answer Askpass Submit Submitted ListJobs JobRows AdRows Retry Retried
            ListClusters ClusterRows ListPool StarterRows ListSites SiteRows ListProxies ProxyRows Alter Altered Watch Progress
            ShowJob JobDetail EndSession Attach TtyData TtyResize TtyClosed Login Detach Detached ShowSession SessionDetail Why Because;
    }
}

/// What was read is written so that the same is read.
fn again<M: Message>(frame: &Frame) {
    if let Ok(message) = frame.read::<M>() {
        let written = Frame::new(frame.route, &message);
        let read: M = written.read().expect("what we write can be read");
        assert_eq!(Frame::new(frame.route, &read), written);
    }
}

/// Bytes in fields, each behind its length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let ([what, high, low], rest) = self.0.split_first_chunk::<3>()?;
        let (field, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes([*high, *low]))));
        self.0 = rest;
        Some((*what, field))
    }
}

/// Outputs of a batch system's commands, for each batch system: the first byte chooses, the second is the exit code; standard output
/// and error are parted by a NUL.
pub fn batch(data: &[u8]) {
    let Some(([which, code], text)) = data.split_first_chunk::<2>() else {
        return;
    };
    let kind = [Kind::Slurm, Kind::GridEngine, Kind::Fork][usize::from(which % 3)];
    let system = System::new(kind, "/home/u/.vo-login/bin/0/vo-agent", "/home/u/.vo-login/x/fork");
    let mut halves = text.splitn(2, |byte| *byte == 0);
    let (stdout, stderr) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let out = RawOutput { code: (*code < 250).then_some(i32::from(*code)), stdout, stderr, timed_out: *code == 250 };
    let prefix = "vo-00112233445566aa-abcd-";
    match which / 3 % 5 {
        0 => drop(system.parse_submit(&out)),
        1 => {
            if let Ok(rows) = system.parse_status(prefix, &out) {
                let ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
                assert!(rows.iter().all(|row| row.name.starts_with(prefix)), "only batch jobs of ours are listed");
                let _ = (system.cancel(&ids), system.cancel_by_hand(&ids));
            }
        }
        2 => drop(system.parse_accounting(prefix, &out)),
        3 => drop(system.parse_cancel(&out)),
        _ => drop(Detected::parse(&out).map(|found| found.choose())),
    }
    let _ = system.hint(&String::from_utf8_lossy(stderr));
}

/// Files and commands give their own names, patterns match themselves.
struct Echo;

impl submit::World for Echo {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        (name == "HOME").then(|| b"/home/u".to_vec())
    }

    fn file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        Ok(name.iter().map(|b| if *b == b' ' { b'\n' } else { *b }).collect())
    }

    fn output(&self, command: &[u8]) -> Result<Vec<u8>, String> {
        self.file(command)
    }

    fn keep(&self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn matching(&self, pattern: &[u8], _: submit::Kind) -> Result<Vec<Vec<u8>>, String> {
        Ok(vec![pattern.to_vec()])
    }

    fn random(&self) -> u64 {
        3
    }
}

/// A submit description; the first jobs' words are worked out.
pub fn submit(data: &[u8]) {
    let context = submit::Context { world: &Echo, overrides: &[], predefined: &[], here: b"/here", only_show: true };
    let (owner, arch, opsys, domain) = ("u", "X86_64", "LINUX", "d");
    let facts =
        submit::Facts { cluster: 1, submitted: 0, owner, arch, opsys, domain, here: b"/here", environment: &[] };
    match submit::parse("f.sub", data, &context) {
        Ok(description) => {
            assert!(description.jobs() <= submit::MAX_JOBS);
            for group in &description.groups {
                for proc in group.members.iter().take(3) {
                    let row = group.members.row(proc);
                    assert_eq!(row.is_empty(), group.members.table().is_none());
                    assert!(group.classad(proc, &facts).contains("Cmd"));
                    for word in submit::Template::fill_list(&group.ad.arguments, &row) {
                        word.expand(JobId { cluster: 1, proc });
                    }
                }
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            faults.iter().for_each(|fault| drop(fault.to_string()));
        }
    }
}

/// Expressions and ads of both syntaxes: what is read is evaluated, and its value is the same when it is written and read again.
pub fn classad(data: &[u8]) {
    let mut texts = data.splitn(3, |byte| *byte == 0);
    let (text, my, target) = (texts.next().unwrap_or_default(), texts.next(), texts.next());
    let my = my.map(|my| Ad::parse(my).unwrap_or_default());
    let target = target.map(|target| Ad::parse_old(target).unwrap_or_default());
    for read in [Expr::parse(text), Expr::parse_old(text)] {
        match read {
            Ok(expr) => {
                let context = Context { fuel: 100_000, ..Context::new(my.as_ref(), target.as_ref(), 1_800_000_000) };
                let value = context.evaluate(&expr);
                let _ = (
                    context.holds(&expr),
                    expr.old_syntax().to_string(),
                    expr.clauses(),
                    value.old_syntax().to_string(),
                );
                let _ = my.as_ref().map(|my| expr.references_in(my));
                let _ = Expr::parse(expr.to_string());
                // Lists and ads may hold expressions, and those HTCondor writes so that they can't always be read; nor years before 1000.
                if !matches!(value, Value::List(_) | Value::Ad(_) | Value::AbsoluteTime(_)) {
                    let written = value.to_string();
                    assert_eq!(Expr::parse(&written).expect("a value can be read").to_string(), written);
                }
            }
            Err(fault) => drop(fault.diagnostic("f", text, 0).to_string()),
        }
    }
}

/// A DAG file that includes and splices itself under any other name.
pub fn dag(data: &[u8]) {
    use vo_lang::dag;
    let reads = std::cell::Cell::new(0);
    let read = |_: &str| {
        reads.set(reads.get() + 1);
        if reads.get() <= 16 { Ok(data.to_vec()) } else { Err("gone".to_owned()) }
    };
    let context = dag::Context { read: &read, any_names: false };
    match dag::parse(&[dag::Input { name: "x.dag", text: data, directory: "" }], None, &context) {
        Ok(dag) => {
            for (node, _) in dag.written().take(100) {
                assert_eq!(dag.find(dag.name(node)), Some(node));
                dag.vars(node);
            }
            let progress = |_| dag::Progress { done: true, failed: false, retried: 0 };
            let rescue = dag::write_rescue(&dag, "x.dag", "now", true, &progress);
            let rescue = dag::Input { name: "x.dag.rescue001", text: rescue.as_bytes(), directory: "" };
            reads.set(0);
            let again = dag::parse(&[dag::Input { name: "x.dag", text: data, directory: "" }], Some(&rescue), &context);
            assert!(again.is_ok(), "a rescue file is read back");
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            faults.iter().for_each(|fault| drop(fault.to_string()));
        }
    }
}

/// A job event log, which says the same whole and in pieces; an event that is written is read, whatever its words are.
pub fn eventlog(data: &[u8]) {
    use vo_lang::eventlog::{Body, Event, Form, Reader};
    let read = |piece: usize| {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        for piece in data.chunks(piece) {
            reader.feed(piece);
            while let Some(event) = reader.next_event() {
                seen.push(event.map(|(head, text)| (head, text.to_vec())).map_err(|fault| fault.to_string()));
            }
        }
        seen
    };
    assert_eq!(read(data.len().max(1)), read(1 + data.first().map_or(0, |first| usize::from(*first % 16))));
    let reason = String::from_utf8_lossy(data).into_owned();
    let body = Body::Held { reason: reason.clone(), code: 1, subcode: -1 };
    let held = Event { cluster: 7, proc: Some(3), time: "2026-11-25 20:14:37.247".to_owned(), body };
    let body = Body::Submitted {
        host: "<h>".to_owned(),
        batch_name: Some(reason.clone()),
        dag_node: Some(reason.clone()),
        notes: Some(reason.clone()),
        user_notes: Some(reason),
    };
    let events = [Event { body, ..held.clone() }, held];
    let mut reader = Reader::default();
    for (_, form) in Form::NAMES {
        events.iter().for_each(|event| reader.feed(event.write(form).as_bytes()));
    }
    for event in events.iter().cycle().take(events.len() * Form::NAMES.len()) {
        let (head, _) = reader.next_event().expect("what is written is whole").expect("what is written can be read");
        assert_eq!((head.number, head.cluster, head.proc), (event.body.number(), Some(7), Some(3)));
    }
    assert!(reader.is_between() && reader.next_event().is_none());
}

/// A `vo.conf` of either form.
pub fn conf(data: &[u8]) {
    match Conf::parse("vo.conf", data, &["slurm", "sge", "fork"]) {
        Ok(mut conf) => conf.apply(&Overrides { proxies: None, walltime: None, system_ssh: false }),
        Err(faults) => {
            assert!(!faults.is_empty());
            faults.iter().for_each(|fault| drop(fault.to_string()));
        }
    }
}

/// The files of a store: the log is the first field, a snapshot the second.
pub fn journal(data: &[u8]) {
    let disk = MemDisk::new();
    for ((_, field), name) in Fields(data).zip(["log-1", "snapshot-1", "log-2", "snapshot-2"]) {
        disk.set_content(name, field);
    }
    let mut records = 0;
    let opened = Log::open_on(disk.clone(), Options::default(), |_| {
        records += 1;
        Ok::<(), &str>(())
    });
    if let Ok(opened) = opened {
        // What was taken in is taken in again, and all of it.
        drop(opened);
        let mut again = 0;
        let reopened = Log::open_on(disk, Options::default(), |_| {
            again += 1;
            Ok::<(), &str>(())
        });
        assert!(reopened.is_ok_and(|opened| opened.cut.is_none()) && records == again);
    }
}

fn time(clock: &mut u64, what: u8) -> Time {
    *clock += u64::from(what >> 4) * 10_000;
    Time(*clock)
}

/// Records of the pool's journal in any order, and what sites say.
pub fn pool(data: &[u8]) {
    let mut pool = Pool::new();
    let mut clock = 1_700_000_000_000;
    let mut jobs = 0;
    for (what, field) in Fields(data).take(400) {
        let now = time(&mut clock, what);
        let site = SiteId(u16::from(what >> 7));
        let frame = |kind| Frame { kind, route: 0, body: field.get(1..).unwrap_or_default().to_vec() };
        let key = StarterKey(field.first().map_or(0, |byte| u64::from(byte % 4)));
        match what & 0xf {
            0 => {
                if let Ok(record) = minicbor::decode::<pool::Record>(field)
                    && few(&record, &mut jobs)
                {
                    pool.apply(&record);
                }
            }
            1 => {
                let group = GroupRecord { count: 1 + u32::from(what >> 4), ..GroupRecord::default() };
                pool.submit(now, "n".to_owned(), vec![group]);
            }
            2 => {
                if let Ok(link::StarterUp { facts, .. }) = frame(link::StarterUp::KIND).read() {
                    let shared = [Shared::Nothing, Shared::MarkerFs, Shared::Everything][usize::from(what >> 4) % 3];
                    let offer = Offer {
                        site,
                        proxy: facts.proxy,
                        host: facts.host,
                        cpus: facts.cpus.min(4096),
                        memory_mb: facts.memory_mb,
                        gpus: facts.gpus,
                        shared,
                        drain: Duration::from_secs(60),
                        arch: facts.arch,
                        system: facts.system,
                        attributes: Vec::new(),
                        resources: Vec::new(),
                    };
                    let time_left = facts.time_left_ms.map(Duration::from_millis);
                    pool.handle(now, pool::Event::StarterJoined { key, offer, time_left });
                }
            }
            3 => {
                if let Ok(work::Inventory { queued, running, finished, number }) = frame(work::Inventory::KIND).read() {
                    pool.handle(now, pool::Event::InventoryTold { key, number, queued, running, finished });
                }
            }
            4 => {
                if let Ok(report) = frame(work::Report::KIND).read::<work::Report>() {
                    pool.handle(now, pool::Event::AttemptsStarted { key, ids: report.started });
                    for result in report.results {
                        pool.handle(now, pool::Event::AttemptEnded { key, result });
                    }
                    pool.handle(now, pool::Event::AttemptsReturned { key, ids: report.returned });
                }
            }
            5 => pool.handle(now, pool::Event::StarterSilent { key, why: String::from_utf8_lossy(field).into_owned() }),
            6 => pool.handle(now, pool::Event::StarterGone { key, why: String::new() }),
            7 => pool.handle(now, pool::Event::SiteLost { site, why: String::new() }),
            8 => pool.handle(now, pool::Event::TimePassed),
            9 => pool.handle(now, pool::Event::Recovered),
            10 => {
                // A snapshot is as good as the pool that it was taken of.
                pool.take_records();
                let bytes = minicbor::to_vec(pool.snapshot()).expect("a snapshot can be written");
                let snapshot: Snapshot = minicbor::decode(&bytes).expect("a snapshot can be read");
                pool = Pool::new().restore(snapshot);
            }
            11 => {
                if let Ok(snapshot) = minicbor::decode::<Snapshot>(field) {
                    // Others may have made more jobs than memory holds.
                    if field.len() < 2000 {
                        drop(minicbor::to_vec(&snapshot));
                    }
                }
            }
            _ => {
                pool.take_records();
                let durable = pool.sequence();
                while let Some(action) = pool.poll_action(durable) {
                    match action {
                        pool::Action::Collect { key, result, .. } => {
                            pool.handle(now, pool::Event::OutputsStored { key, result })
                        }
                        _ => drop(action),
                    }
                }
                let _ = (pool.deadline(), pool.demand_cpus());
                for proc in 0..4 {
                    let _ = pool.view(JobId { cluster: 1, proc });
                }
                let _ = pool.starters().count();
            }
        }
    }
}

/// Is it of a size that a journal of ours has? Its checksums hold, so nobody else writes there; only memory must be spared.
fn few(record: &pool::Record, jobs: &mut u64) -> bool {
    match record {
        pool::Record::Submitted { groups, .. } => {
            *jobs += groups.iter().map(|group| u64::from(group.count)).sum::<u64>();
            *jobs < 10_000
        }
        pool::Record::Removed { ranges, .. } => {
            ranges.iter().all(|(_, first, last)| last.saturating_sub(*first) < 10_000)
        }
        _ => true,
    }
}

/// Records of an agent's table in any order, and what batch systems, starters and masters say.
pub fn proxies(data: &[u8]) {
    let mut machine = Proxies::new("vo-0-", 1);
    let mut clock = 0;
    let system = System::new(Kind::Slurm, "agent", "dir");
    for (what, field) in Fields(data).take(400) {
        let now = time(&mut clock, what);
        let out = RawOutput { code: Some(0), stdout: field, stderr: b"", timed_out: false };
        let rows = || {
            let rows = system.parse_status("vo-0-", &out).ok()?;
            let row = |row: vo_batch::Row| proxy::Row {
                token: row.name,
                batch_id: row.id.0,
                status: if row.status.is_ended() {
                    proxy::RowStatus::Ended(row.status.to_string())
                } else {
                    proxy::RowStatus::Running
                },
                restarts: row.restarts,
            };
            Some(rows.into_iter().map(row).collect::<Vec<_>>())
        };
        let id = ProxyId(field.first().map_or(0, |byte| u64::from(byte % 8)));
        let text = String::from_utf8_lossy(field).into_owned();
        let event = match what & 0xf {
            0 => {
                if let Ok(record) = minicbor::decode::<proxy::Record>(field) {
                    machine.apply(&record);
                }
                continue;
            }
            1 => proxy::Event::Recovered,
            2 => proxy::Event::Configured(proxy::Config {
                nodes: 1 + u32::from(what >> 4),
                queued_permille: 150,
                queued_base: 4,
                status: Duration::from_secs(60),
                lease: Duration::from_secs(300),
                absence: Duration::from_secs(600),
            }),
            3 => proxy::Event::TargetSet(u32::from(what >> 4)),
            4 => proxy::Event::RemovalAsked(vec![id]),
            5 => proxy::Event::ShutdownAsked,
            6 => {
                let answer = match what >> 4 & 3 {
                    0 => proxy::SubmitAnswer::Accepted(text),
                    1 => proxy::SubmitAnswer::Refused(text),
                    2 => proxy::SubmitAnswer::Limited(text),
                    _ => proxy::SubmitAnswer::Unclear(text),
                };
                proxy::Event::SubmitAnswered { proxy: id, attempt: 1, answer }
            }
            7 => match rows() {
                Some(rows) => proxy::Event::StatusListed(rows),
                None => proxy::Event::StatusFailed(text),
            },
            8 => match rows() {
                Some(rows) => proxy::Event::AccountingListed(rows),
                None => proxy::Event::AccountingFailed { never: what >> 7 == 1 },
            },
            9 => {
                let hello = Frame { kind: node::StarterHello::KIND, route: 0, body: field.to_vec() };
                let Ok(node::StarterHello { key, facts, .. }) = hello.read() else {
                    continue;
                };
                proxy::Event::StarterConnected {
                    proxy: ProxyId(facts.proxy.0 % 8),
                    node: facts.node_index,
                    key,
                    batch_id: facts.batch_id,
                    restarts: facts.restarts,
                }
            }
            10 => proxy::Event::StarterLost {
                proxy: id,
                key: StarterKey(u64::from(what >> 4)),
                left: (what >> 7 == 1).then(|| text.clone()),
                heard: now,
                why: text,
            },
            11 => {
                let tags =
                    field.chunks_exact(2).map(|pair| (ProxyId(u64::from(pair[0] % 8)), u32::from(pair[1]))).collect();
                let exits = if what >> 7 == 1 {
                    [(id, proxy::Exit { code: text, restarts: u32::from(what >> 4) })].into()
                } else {
                    Default::default()
                };
                proxy::Event::TagsListed { tags, exits }
            }
            12 => proxy::Event::CancelAnswered((what >> 7 == 1).then_some(text)),
            13 => proxy::Event::MasterLink(what >> 7 == 1),
            14 => proxy::Event::DeadlinePassed,
            _ => {
                // A snapshot folds into the same state.
                while machine.poll_record().is_some() {}
                let mut folded = Proxies::new("vo-0-", 1);
                machine.snapshot().iter().for_each(|record| folded.apply(record));
                continue;
            }
        };
        machine.handle(now, event);
        while machine.poll_record().is_some() {}
        while machine.poll_action().is_some() {}
        let _ = machine.deadline();
        let _ = (machine.views().count(), machine.remains());
    }
}

/// A `known_hosts` file, asked about some names.
pub fn known_hosts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut known = KnownHosts::default();
    known.add(Path::new("known_hosts"), &text);
    for (host, port) in [("gw.example.org", 22), ("10.0.0.1", 2222), ("::1", 22)] {
        let (name, portless) = (lookup_name(host, port), Some(host));
        let _ = known.check(&name, portless, data.get(..32).unwrap_or_default());
        let _ = known.check_authority(&name, portless, b"blob", b"authority");
        let _ = (known.key_types(&name, portless).len(), known.has_authority(&name, None));
    }
}

/// What `ssh -G` prints.
pub fn ssh_config(data: &[u8]) {
    let mut query = TargetQuery::new("gw");
    query.program = None;
    if let Ok(target) = Target::read(&query, &String::from_utf8_lossy(data)) {
        let _ = target.needs_system().map(str::len);
    }
}

/// Files that an agent leaves for starters, and certificates.
pub fn launch(data: &[u8]) {
    if let Ok(launch) = minicbor::decode::<vo_agent::launch::Launch>(data) {
        let written = minicbor::to_vec(&launch).expect("what was read can be written");
        assert_eq!(minicbor::decode::<vo_agent::launch::Launch>(&written).ok(), Some(launch));
    }
    let _ = minicbor::decode::<vo_agent::launch::AgentAddress>(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(identity) = Identity::from_pem(&text) {
        let _ = (vo_net::tls::server_config(&identity).is_ok(), vo_net::tls::client_config(&identity).is_ok());
        assert!(identity.is_knock(&identity.knock()));
    }
    let _ = (SiteAuthority::from_pem(&text).is_ok(), SessionCa::from_pem(&text).is_ok());
}

/// Inputs of the right form to begin with, for each target: captured outputs of batch systems, and messages of every kind that matters.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/batch");
    match name {
        "frames" => vec![messages().concat()],
        "batch" => {
            let mut found = Vec::new();
            for (which, prefix) in [(0, "slurm"), (1, "sge")] {
                let systems = std::fs::read_dir(&fixtures).into_iter().flatten().flatten();
                for system in systems.filter(|dir| dir.file_name().to_string_lossy().starts_with(prefix)) {
                    for file in std::fs::read_dir(system.path()).into_iter().flatten().flatten() {
                        let captured = std::fs::read(file.path()).unwrap_or_default();
                        if captured.len() < 4096
                            && file.path().extension().is_some_and(|ext| ext == "out" || ext == "err")
                        {
                            let parser = found.len() as u8 % 5;
                            found.push([&[which + 3 * parser, parser % 2][..], &captured].concat());
                        }
                    }
                }
            }
            found.push(b"\x05\x0041.7\tvo-00112233445566aa-abcd-1-1\trunning\t-\nend\n".to_vec());
            found
        }
        "submit" => texts(&[
            "executable = run.sh\narguments = \"$(Process) '$(x)' $INT(y,%03d)\"\nx = a b\ny = 3 * $(Process)\ninput = in.$(Process)\n\
             output = out/$(Cluster).$(Process)\nlog = l\ntransfer_output_files = r, s/\nrequest_memory = 2 GB\nqueue 10\n",
            "executable=/bin/sh\nenvironment = \"A=1 B='x y'\"\nif defined HOME\n  request_cpus = 2\nelse\n  request_cpus = 1\nendif\n\
             queue name, n from (\na, 1\nb, 2\n)\nqueue 2 f in (x y z)\n",
            "requirements = (Arch == \"X86_64\") && Memory > 1024 || regexp(\"a+\", Name)\nexecutable=e\n+Custom = 1.5e3\nqueue\n",
        ]),
        "classad" => texts(&[
            "TARGET.Memory >= RequestMemory && (Arch == \"X86_64\" || regexp(\"^a(b|c)*$\", TARGET.Machine, \"i\"))\0[RequestMemory = 1024; a = {1, [b = c]}]\0Memory = 2048\nArch = \"X86_64\"\n",
            "[a = {1, 2.5, \"x\\n\"}; b = a[0] ?: 'odd name'; c = splitTime(absTime(\"2026-05-31T12:00:00Z\")).Year].b",
            "evalInEachContext(x > MY.y, {[x = 1], [x = 2]})[1] =?= true ? strcat(\"a\", join(\",\", split(\"b c\"))) : eval(\"1 + \" + x)\0[y = 1]",
            "replaceAll(\"b\", \"abc\", \"<\\\\0>\") == formatTime(0, \"%Y-%m-%d\") || -5 % 3 << 2 isnt ~0x",
        ]),
        "dag" => texts(&[
            "JOB A a.sub DIR d NOOP\nJOB B {\nqueue\n} DONE\nPARENT A \\\n CHILD B\nRETRY A 3 UNLESS-EXIT 2\nVARS ALL_NODES x=\"1\" +y='2'\n",
            "SPLICE S in.dag DIR d\nSPLICE T in.dag\nCONNECT S T\nPIN_IN S+A 1\nSUBDAG EXTERNAL D d.dag\nFINAL F f\nCATEGORY D c\nMAXJOBS c 2\n",
            "INCLUDE more\nSUBMIT-DESCRIPTION d @=e\nx=1\n@e\nJOB A d\nSCRIPT DEFER 1 2 DEBUG f ALL POST A p $JOB\nABORT-DAG-ON A 1 RETURN 2\n",
        ]),
        "eventlog" => {
            let logs = std::fs::read_dir(fixtures.join("../eventlog")).into_iter().flatten().flatten();
            let logs =
                logs.filter_map(|log| std::fs::read(log.path()).ok()).map(|log| log[..log.len().min(4096)].to_vec());
            logs.chain([b"000 (1.0.0) 10/23 10:56:54 x\n...\n<?xml?><c><a n=\"Cluster\"><i>1</i></a></c>{\"a\": [1, \"\\\"}\"]}".to_vec()]).collect()
        }
        "conf" => texts(&[
            "# sites\ntg-login.example.org\nuser@gw2.example.org:2222 # a comment\n",
            "[session]\nheartbeat = \"2h\"\non_missed = \"keep\"\n\n[[site]]\ngateway = \"g\"\nuser = \"u\"\nbatch = \"slurm\"\nproxies = \"4:16\"\n\
             walltime = \"10h\"\ndirectives = [\"--constraint=ib\"]\nlisten_ports = \"5000-5100\"\n",
        ]),
        "journal" => {
            let disk = MemDisk::new();
            if let Ok(opened) = Log::open_on(disk.clone(), Options::default(), |_| Ok::<(), &str>(())) {
                let mut log = opened.log;
                for record in ["zero", "one"] {
                    log.append(record.as_bytes());
                }
                let _ = (log.commit(), log.snapshot(b"state"));
                log.append(b"two");
                let _ = log.commit();
            }
            let files = ["log-1", "snapshot-1"].map(|name| disk.content(name).unwrap_or_default());
            vec![field(0, &files[0]), [field(0, &files[0]), field(0, &files[1])].concat()]
        }
        "pool" => {
            let up = body(&link::StarterUp { key: StarterKey(1), facts: facts() });
            let told = body(&work::Inventory { number: 1, ..Default::default() });
            let ids = |attempt| vec![vo_core::ids::AttemptId { job: JobId { cluster: 1, proc: 0 }, attempt }];
            let result = |attempt| vo_core::job::AttemptResult {
                id: ids(attempt)[0],
                outcome: vo_core::job::Outcome::Exited(0),
                usage: Default::default(),
                outputs: Vec::new(),
                kept: None,
            };
            let moved = |n| vec![work::Moved { id: ids(n)[0], began_ms: Some(70), came_ms: None }];
            let report = |n| {
                body(&work::Report { started: ids(n), results: vec![result(n)], returned: ids(n), moved: moved(n) })
            };
            let with = |key: u8, body: &[u8]| [&[key][..], body].concat();
            let steps = [
                field(0x31, b""),
                field(0x22, &with(1, &up)),
                field(0x03, &with(1, &told)),
                field(0x0f, b""),
                field(0x04, &with(1, &report(1))),
                field(0x0a, b""),
                field(0x06, &with(1, b"")),
                field(0x0f, b""),
                field(0xa2, &with(2, &up)),
                field(0x83, &with(2, &told)),
                field(0x84, &with(2, &report(2))),
                field(0x09, b""),
                field(0x0f, b""),
            ];
            vec![steps.concat()]
        }
        "proxies" => {
            let hello =
                body(&node::StarterHello { protocol: vo_wire::PROTOCOL, key: StarterKey(5), epoch: 1, facts: facts() });
            let listing = std::fs::read(fixtures.join("slurm-22.05/squeue-states.out")).unwrap_or_default();
            let mut steps = vec![field(1, b""), field(2, b""), field(0x43, b"")];
            steps.extend([
                field(0x06, b"\x01"),
                field(9, &hello),
                field(0x17, &listing),
                field(0x1b, b"\x01\0"),
                field(0xe, b""),
            ]);
            steps.extend([
                field(0x0f, b""),
                field(0x5a, b"x"),
                field(0x94, b"\x01"),
                field(5, b""),
                field(0x1e, b""),
                field(0xc, b""),
            ]);
            vec![steps.concat()]
        }
        "known_hosts" => texts(&[
            "gw.example.org,10.0.0.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000 c\n\
             @revoked *.example.org ssh-rsa AAAAB3NzaC1yc2E=\n@cert-authority !x,g?.example.* ssh-ed25519 AAAA\n[gw]:2222 ssh-rsa AAAA\n",
            "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAAB3NzaC1yc2E=\n",
        ]),
        "ssh_config" => texts(&[
            "user u\nhostname %h.example.org\nport 22\nidentityfile ~/.ssh/%r@%h\nidentityfile ${HOME}/k\nproxyjump none\n\
             userknownhostsfile ~/.ssh/known_hosts %d/x\nserveraliveinterval 15\nstricthostkeychecking ask\nciphers aes256-ctr,aes128-ctr\n\
             connecttimeout none\ncontrolpath /tmp/%C\ngssapiauthentication yes\nproxycommand nc %h %p\n",
        ]),
        "launch" => {
            let authority =
                SessionCa::create("s").and_then(|ca| ca.site_intermediate("t")).expect("an authority can be made");
            let identity = authority.issue_starter(1).expect("a certificate can be made").to_pem();
            let address = vo_agent::launch::AgentAddress { epoch: 3, addresses: vec!["10.0.0.1:5000".to_owned()] };
            vec![
                identity.into_bytes(),
                authority.to_pem().into_bytes(),
                minicbor::to_vec(address).expect("an address can be written"),
            ]
        }
        _ => Vec::new(),
    }
}

fn field(what: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[what, length[0], length[1]][..], bytes].concat()
}

fn body<M: Message>(message: &M) -> Vec<u8> {
    Frame::new(0, message).body
}

fn facts() -> node::StarterFacts {
    node::StarterFacts {
        proxy: ProxyId(1),
        node_index: 0,
        batch_id: "17".to_owned(),
        restarts: 0,
        host: "n1".to_owned(),
        cpus: 4,
        memory_mb: 8000,
        gpus: 0,
        scratch_bytes: 1 << 30,
        time_left_ms: Some(600_000),
        shares: node::Shares::Nothing,
        arch: "x86_64".to_owned(),
        system: "Linux".to_owned(),
        pid: 4711,
        gpu: Some(node::Gpu { name: "A100".to_owned(), memory_mb: 40_960, capability: 80, cuda: 122 }),
        apptainer: true,
        podman: false,
        curl: true,
        pelican: false,
    }
}

fn messages() -> Vec<Vec<u8>> {
    fn framed<M: Message>(message: &M) -> Vec<u8> {
        let mut bytes = Vec::new();
        vo_wire::frame::write_message(7, message, &mut bytes);
        bytes
    }
    vec![
        framed(&node::StarterHello { protocol: vo_wire::PROTOCOL, key: StarterKey(5), epoch: 1, facts: facts() }),
        framed(&link::StarterUp { key: StarterKey(5), facts: facts() }),
        framed(&link::NeedBlob { hash: [7; 32] }),
        framed(&link::BlobChunk { hash: [7; 32], offset: 0, size: 3, data: b"abc".to_vec() }),
        framed(&link::SiteNote { resolved: false, message: "m".to_owned(), hint: None, blocks: true, passing: false }),
        framed(&link::ShutdownDone { left: vec!["x".to_owned()] }),
        framed(&work::Inventory { number: 1, ..Default::default() }),
        framed(&work::DefineProgram {
            program: 1,
            body: Default::default(),
            load: 0,
            ad: Default::default(),
            own: Default::default(),
        }),
        framed(&control::Submit { name: "n".to_owned(), groups: Vec::new() }),
        framed(&link::Ping { nonce: 1 }),
    ]
}

/// An input made from others, as a fuzzer would: bits flipped, bytes set, pieces cut, doubled, and exchanged. `random` is moved on.
pub fn mutate(seeds: &[Vec<u8>], random: &mut u64) -> Vec<u8> {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut next = |below: usize| {
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % (below.max(1) as u64)).unwrap_or(0)
    };
    let mut bytes = seeds.get(next(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=next(6) {
        let at = next(bytes.len());
        let length = next(bytes.len() - at.min(bytes.len())).min(64);
        match (next(7), bytes.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << next(8),
            (1, Some(byte)) => *byte = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"', b'$'][next(8)],
            (2, Some(byte)) => *byte = next(256) as u8,
            (3, _) => drop(bytes.drain(at..at + length)),
            (4, _) => {
                let piece = bytes[at..at + length].to_vec();
                let to = next(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            (5, _) => {
                let other = seeds.get(next(seeds.len())).cloned().unwrap_or_default();
                let from = next(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
            _ => bytes.truncate(at + length),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    /// The seeds, every input that once failed, and mutations of both: `VO_FUZZ_RUNS` of each target, 1000 unless set, from the number
    /// `VO_FUZZ_SEED` on. A failure prints the input.
    #[test]
    fn nothing_from_outside_panics() {
        let number =
            |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
        let runs = number("VO_FUZZ_RUNS", 1000);
        for (name, target) in TARGETS {
            if std::env::var("VO_FUZZ_TARGET").is_ok_and(|only| only != name) {
                continue;
            }
            let mut inputs = seeds(name);
            assert!(!inputs.is_empty(), "{name} has seeds");
            for entry in std::fs::read_dir(here("corpus").join(name)).into_iter().flatten() {
                let path = entry.expect("the corpus can be listed").path();
                inputs.push(std::fs::read(path).expect("it can be read"));
            }
            let (mut random, mut bytes, began) = (number("VO_FUZZ_SEED", 1), 0, std::time::Instant::now());
            for run in 0..runs {
                let input = match inputs.get(usize::try_from(run).unwrap_or(usize::MAX)) {
                    Some(seed) => seed.clone(),
                    None => mutate(&inputs, &mut random),
                };
                bytes += input.len();
                let ended = std::panic::catch_unwind(|| target(&input));
                assert!(ended.is_ok(), "{name} fails on {}", input.escape_ascii());
            }
            println!("{name}: {runs} inputs, {bytes} bytes, {:?}", began.elapsed());
        }
    }

    /// The driver has a program for each target, and nothing else.
    #[test]
    fn each_target_can_be_run() {
        let programs = std::fs::read_dir(here("driver/src")).expect("the driver is there");
        let mut programs: Vec<String> = programs
            .map(|entry| {
                entry.expect("it can be listed").file_name().to_string_lossy().trim_end_matches(".rs").to_owned()
            })
            .collect();
        programs.sort();
        let mut names = TARGETS.map(|(name, _)| name.to_owned());
        names.sort();
        assert_eq!(programs, names);
    }
}
