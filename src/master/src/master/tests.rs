//! The master's task, driven by hand: what it waits for, and what it does when nothing but time passes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use vo_core::job::{Outcome, Usage};
use vo_wire::FrameReader;

use super::*;

/// A master of a local session that nobody else drives.
struct Bench {
    master: Master,
    inputs: mpsc::Receiver<Input>,
    dir: PathBuf,
    /// What the master spawns has a place to be, and never runs.
    _guard: tokio::runtime::EnterGuard<'static>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Bench {
    fn new(name: &str) -> Bench {
        Bench::with_conf(name, None)
    }

    /// Of two sites, `0` and `1`, whose streams to the agents are the test's.
    fn with_two_sites(name: &str) -> (Bench, [mpsc::UnboundedReceiver<Vec<u8>>; 2]) {
        let conf = session::ConfText { file: "vo.conf".into(), text: "gw0.example.org\ngw1.example.org\n".into() };
        let mut bench = Bench::with_conf(name, Some(conf));
        let streams = [0, 1].map(|site: usize| {
            let (link, said) = mpsc::unbounded_channel();
            bench.master.sites[site].link = Some(link);
            said
        });
        (bench, streams)
    }

    fn hear<M: Message>(&mut self, site: u16, route: u64, message: &M) {
        let told = site::Told::Frame(Frame::new(route, message), room());
        self.master.take(Input::Site(SiteId(site), told));
    }

    /// Turns until something has happened.
    fn until(&mut self, happened: impl Fn(&mut Master) -> bool) {
        self.master.turn();
        while !happened(&mut self.master) {
            let told = self.inputs.blocking_recv().unwrap();
            self.master.take(told);
            self.master.turn();
        }
    }

    fn with_conf(name: &str, conf: Option<session::ConfText>) -> Bench {
        let dir = std::env::temp_dir().join(format!("vo-master-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        session::private_dir(&dir).unwrap();
        let session = SessionFile {
            name: name.into(),
            id: "00000000000000aa".into(),
            created_ms: 1,
            program: "vo-login".into(),
            agents: Vec::new(),
            ssh_config: None,
            conf,
            proxies: None,
            walltime_s: None,
            system_ssh: false,
        };
        session.write(&dir).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let guard = Box::leak(Box::new(runtime)).enter();
        let (sender, inputs) = mpsc::channel(QUEUE);
        let (terminal, _) = mpsc::channel(1);
        let mut master = Master::start(&dir, sender, terminal).unwrap();
        // Its sites stay as the test puts them.
        master.started = true;
        Bench { master, inputs, dir, _guard: guard }
    }

    fn client(&mut self) -> mpsc::UnboundedReceiver<control::Piece> {
        let (outbox, sent) = Outbox::new();
        self.master.take(Input::Client(control::Told::Opened(1, outbox)));
        let protocol = vo_wire::PROTOCOL;
        self.ask(&ctl::Hello { protocol });
        sent
    }

    fn ask<M: Message>(&mut self, message: &M) {
        let frame = Frame::new(0, message);
        self.master.take(Input::Client(control::Told::Frame(1, frame)));
    }

    fn submit(&mut self, count: u32) {
        let program = Program { cpus: 1, ..Program::default() };
        let group = GroupRecord { count, program, ..Default::default() };
        let name = "test".into();
        let groups = vec![group];
        self.ask(&ctl::Submit { groups, name });
    }

    /// Everything stored is durable, and the master knows.
    fn settle(&mut self) {
        self.master.turn();
        while self.master.durable < self.master.pool.sequence() {
            let told = self.inputs.blocking_recv().unwrap();
            self.master.take(told);
            self.master.turn();
        }
    }
}

fn frames<T: Bytes>(sent: &mut mpsc::UnboundedReceiver<T>) -> Vec<Frame> {
    let mut reader = FrameReader::new();
    while let Ok(piece) = sent.try_recv() {
        reader.buffer().extend(piece.bytes());
    }
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

fn kinds<T: Bytes>(sent: &mut mpsc::UnboundedReceiver<T>) -> Vec<u16> {
    frames(sent).iter().map(|frame| frame.kind).collect()
}

/// What clients and sites are sent.
trait Bytes {
    fn bytes(self) -> Vec<u8>;
}

impl Bytes for Vec<u8> {
    fn bytes(self) -> Vec<u8> {
        self
    }
}

impl Bytes for control::Piece {
    fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn facts(host: &str) -> vo_wire::node::StarterFacts {
    vo_wire::node::StarterFacts {
        proxy: ProxyId(1),
        node_index: 0,
        batch_id: "1".into(),
        restarts: 0,
        host: host.into(),
        cpus: 1,
        memory_mb: 0,
        gpus: 0,
        scratch_bytes: 0,
        time_left_ms: None,
        shares: Shares::Nothing,
        arch: "x86_64".into(),
        system: "Linux".into(),
        pid: 1,
        gpu: None,
        apptainer: false,
        podman: false,
        curl: false,
        pelican: false,
    }
}

#[test]
fn a_site_gets_the_files_of_its_own_jobs_only() {
    let (mut bench, [mut said, mut other]) = Bench::with_two_sites("files");
    let key = StarterKey(7);
    let up = link::StarterUp { key, facts: facts("node") };
    bench.hear(0, 0, &up);
    bench.hear(0, key.0, &work::Inventory { number: 1, ..Default::default() });
    std::fs::write(bench.dir.join("input"), "secret of site 0").unwrap();
    let dir = bench.dir.to_str().unwrap().to_owned();
    let program = Program {
        executable: Template::constant("input"),
        initialdir: Template::constant(dir),
        transfer_executable: true,
        cpus: 1,
        ..Program::default()
    };
    let mut client = bench.client();
    bench.ask(&ctl::Submit { groups: vec![GroupRecord { count: 1, program, ..Default::default() }], name: "n".into() });
    bench.until(|master| !master.sites[0].promised.is_empty());
    let assign = frames(&mut said).into_iter().find(|frame| frame.kind == work::Assign::KIND).unwrap();
    let assign: work::Assign = assign.read().unwrap();
    let hash = assign.attempts[0].files.as_ref().unwrap()[0].hash;

    // The other site knows the hash, from wherever, and asks; nothing is read for it.
    bench.hear(1, 0, &link::NeedBlob { hash });
    let answer: link::BlobMissing = frames(&mut other).pop().unwrap().read().unwrap();
    assert!(answer.why.contains("no job that was sent to this site"), "{}", answer.why);
    bench.hear(0, 0, &link::NeedBlob { hash });
    bench.until(|master| master.sites[0].sending.is_empty());
    let piece: link::BlobChunk = frames(&mut said).pop().unwrap().read().unwrap();
    assert_eq!(piece.data, b"secret of site 0");

    // Another content in its place was promised to nobody.
    std::fs::write(bench.dir.join("input"), "quite another secret").unwrap();
    bench.hear(0, 0, &link::NeedBlob { hash });
    bench.until(|master| master.sites[0].sending.is_empty());
    let answer: link::BlobMissing = frames(&mut said).pop().unwrap().read().unwrap();
    assert!(answer.why.contains("has changed"), "{}", answer.why);
    drop(kinds(&mut client));
}

#[test]
fn without_a_local_site_nothing_can_run_on_the_workstation() {
    let (mut bench, _said) = Bench::with_two_sites("workstation");
    let mut client = bench.client();
    let attributes = vec![("JobUniverse".to_owned(), "12".to_owned())];
    let terms = vo_core::pool::Terms { attributes, ..Default::default() };
    let group = GroupRecord { count: 1, terms, ..Default::default() };
    bench.ask(&ctl::Submit { groups: vec![group], name: "n".into() });
    let refused = frames(&mut client).into_iter().find(|frame| frame.kind == ctl::Failed::KIND).unwrap();
    let refused: ctl::Failed = refused.read().unwrap();
    assert!(refused.message.contains("no site of this session"), "{}", refused.message);
    assert_eq!(bench.master.pool.sequence(), 0);
}

#[test]
fn disks_are_rounded_down_to_few_kinds() {
    let rounded = [0, 1, 15, 16, 17, 31, 1000, 123_456_789, u64::MAX].map(sites::rounded);
    assert_eq!(rounded, [0, 1, 15, 16, 16, 30, 960, 117_440_512, 0xf << 60]);
}

#[test]
fn a_site_has_no_say_about_another() {
    let (mut bench, [_said, _other]) = Bench::with_two_sites("apart");
    let key = StarterKey(7);
    bench.hear(0, 0, &link::StarterUp { key, facts: facts("node0") });
    // Site 1 can't take a starter of site 0, nor end or silence it, nor speak for it.
    bench.hear(1, 0, &link::StarterUp { key, facts: facts("node1") });
    bench.hear(1, 0, &link::StarterDown { key, gone: true, why: "no".into() });
    bench.hear(1, key.0, &work::Inventory { number: 9, ..Default::default() });
    assert_eq!(bench.master.pool.proxy_of(key), Some((SiteId(0), ProxyId(1))));
    let rows = bench.master.starter_rows();
    assert_eq!((rows.len(), rows[0].host.as_str(), rows[0].state), (1, "node0", ctl::StarterState::Idle));
    // Nor can a proxy of the same site.
    let stolen = vo_wire::node::StarterFacts { proxy: ProxyId(2), ..facts("node2") };
    bench.hear(0, 0, &link::StarterUp { key, facts: stolen });
    assert_eq!(bench.master.pool.proxy_of(key), Some((SiteId(0), ProxyId(1))));
}

#[test]
fn what_a_site_claims_is_bounded_and_plain() {
    let (mut bench, [_said, _other]) = Bench::with_two_sites("claims");
    let hostile = "node\x1b]0;x\x07\nhint: do it";
    for key in 1..=3 {
        let greedy = vo_wire::node::StarterFacts { cpus: u32::MAX, time_left_ms: Some(u64::MAX), ..facts(hostile) };
        bench.hear(0, 0, &link::StarterUp { key: StarterKey(key), facts: greedy });
    }
    let note = link::SiteNote {
        resolved: false,
        message: hostile.into(),
        hint: Some(hostile.into()),
        blocks: false,
        passing: false,
    };
    bench.hear(0, 0, &note);
    let sites = bench.master.site_rows();
    assert_eq!(sites[0].cpus, 3 * MOST_CPUS);
    assert_eq!(sites[0].problem.as_deref(), Some("node ]0;x  hint: do it"));
    assert!(bench.master.starter_rows().iter().all(|row| !row.host.contains(char::is_control)));
    for first in (0..=MOST_PROXIES as u64).step_by(1000) {
        let info = |id| ProxyInfo {
            id: ProxyId(id),
            state: ProxyState::Pend,
            batch_id: None,
            age_ms: u64::MAX,
            starters: u32::MAX,
            nodes: u32::MAX,
            why: String::new(),
        };
        bench.hear(0, 0, &link::ProxyReport { proxies: (first..first + 1000).map(info).collect() });
    }
    assert_eq!(bench.master.sites[0].proxies.len(), MOST_PROXIES);
    for key in 0..=MOST_STARTERS as u64 {
        bench.hear(0, 0, &link::StarterUp { key: StarterKey(key), facts: facts("n") });
    }
    assert_eq!(bench.master.pool.starter_count(), MOST_STARTERS);
    bench.hear(1, 0, &link::StarterUp { key: StarterKey(u64::MAX), facts: facts("n") });
    assert_eq!(bench.master.pool.starter_count(), MOST_STARTERS + 1, "the other site's come in");
    bench.master.turn();
}

#[test]
fn what_is_answered_is_durable() {
    let mut bench = Bench::new("answers");
    let mut sent = bench.client();
    bench.submit(3);
    bench.master.turn();
    assert_eq!(kinds(&mut sent), [ctl::Welcome::KIND]);
    bench.settle();
    assert_eq!(kinds(&mut sent), [ctl::Submitted::KIND, ctl::Done::KIND]);
    let picks = vec![ctl::Pick::Cluster(1)];
    bench.ask(&ctl::Alter {
        picks,
        alteration: ctl::Alteration::Remove,
        only_count: false,
        constraint: None,
        lenient: false,
    });
    bench.master.turn();
    assert_eq!(kinds(&mut sent), [0_u16; 0]);
    bench.settle();
    assert_eq!(kinds(&mut sent), [ctl::Altered::KIND, ctl::Done::KIND]);
}

#[test]
fn a_starter_that_rested_gets_work_when_only_time_has_passed() {
    const CPUS: u32 = 8;
    let key = StarterKey(7);
    let mut bench = Bench::new("rests");
    let mut client = bench.client();
    let (link, mut said) = mpsc::unbounded_channel();
    bench.master.sites[0].link = Some(link);
    let offer = Offer {
        site: SiteId(0),
        proxy: ProxyId(1),
        host: "node".into(),
        cpus: CPUS,
        memory_mb: 0,
        gpus: 0,
        shared: Shared::Everything,
        drain: Duration::ZERO,
        arch: String::new(),
        system: String::new(),
        attributes: Vec::new(),
        resources: Vec::new(),
    };
    let now = bench.master.now();
    let joined = Event::StarterJoined { key, offer, time_left: None };
    bench.master.pool.handle(now, joined);
    let inventory = work::Inventory { number: 3, ..Default::default() };
    let frame = Frame::new(key.0, &inventory);
    bench.master.take(Input::Site(SiteId(0), site::Told::Frame(frame, room())));
    bench.submit(CPUS);
    bench.settle();
    assert_eq!(kinds(&mut client).last(), Some(&ctl::Done::KIND));
    let mut reader = FrameReader::new();
    while let Ok(bytes) = said.try_recv() {
        reader.buffer().extend(bytes);
    }
    let frames: Vec<Frame> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    let assign: work::Assign = frames.last().unwrap().read().unwrap();
    assert_eq!((assign.inventory, assign.attempts.len()), (3, CPUS as usize));

    // The node fails them all, and is given nothing for a while.
    let failed = assign.attempts.iter().map(|attempt| AttemptResult {
        id: attempt.id,
        outcome: Outcome::SiteFailed("no space left on device".into()),
        usage: Usage::default(),
        outputs: Vec::new(),
        kept: None,
    });
    let report = work::Report { results: failed.collect(), ..Default::default() };
    let frame = Frame::new(key.0, &report);
    bench.master.take(Input::Site(SiteId(0), site::Told::Frame(frame, room())));
    bench.settle();
    assert!(!kinds(&mut said).contains(&work::Assign::KIND));
    let until = bench.master.pool.deadline().unwrap();
    bench.master.begun -= until.since(bench.master.now());
    assert!(bench.master.deadline() <= Instant::now());
    bench.settle();
    assert!(kinds(&mut said).contains(&work::Assign::KIND));
}

/// The answers among what a client was sent: those to `why`, and refusals.
fn answers(sent: &mut mpsc::UnboundedReceiver<control::Piece>) -> (Vec<ctl::Because>, Vec<ctl::Failed>) {
    let frames = frames(sent);
    (frames.iter().flat_map(Frame::read).collect(), frames.iter().flat_map(Frame::read).collect())
}

fn ask_why(bench: &mut Bench, name: &str) {
    bench.ask(&ctl::Why { subject: None, name: name.into() });
    bench.master.turn();
}

/// A site with a proxy whose batch job is called as a cluster is.
fn with_proxy(name: &str) -> (Bench, mpsc::UnboundedReceiver<control::Piece>) {
    let mut bench = Bench::new(name);
    let mut client = bench.client();
    bench.submit(2);
    bench.settle();
    let info = ProxyInfo {
        id: ProxyId(7),
        state: ProxyState::Pend,
        batch_id: Some("1".into()),
        age_ms: 5000,
        starters: 0,
        nodes: 1,
        why: "PENDING (Priority)".into(),
    };
    bench.master.frame(SiteId(0), &Frame::new(0, &link::ProxyReport { proxies: vec![info] }), room()).unwrap();
    kinds(&mut client);
    (bench, client)
}

#[test]
fn a_name_with_two_meanings_is_told_and_not_guessed() {
    let (mut bench, mut client) = with_proxy("ambiguous");
    ask_why(&mut bench, "1");
    let (because, failed) = answers(&mut client);
    assert_eq!(because, []);
    assert_eq!(failed[0].message, "1 may mean cluster 1, or proxy 7 of site local");
    assert_eq!(failed[0].hint.as_deref(), Some("ask `why cluster 1` or `why local/7`"));
    bench.ask(&ctl::Why { subject: Some(ctl::Subject::Cluster), name: "1".into() });
    assert_eq!(answers(&mut client).0[0].state, "2 idle");
}

#[test]
fn a_site_that_is_away_is_spoken_for_by_its_last_words() {
    let (mut bench, mut client) = with_proxy("away");
    ask_why(&mut bench, "local/7");
    let (because, _) = answers(&mut client);
    let because = &because[0];
    assert!(because.state.starts_with("PEND for 5."), "{because:?}");
    assert_eq!(because.steps[0].text, "PENDING (Priority)");
    assert!(because.notes[0].contains("could not be asked"), "{because:?}");
    assert!(because.next[0].starts_with("site local: being connected to for "), "{because:?}");
}

#[test]
fn an_agent_is_asked_and_its_ages_are_ours() {
    let (mut bench, mut client) = with_proxy("asked");
    let (link, mut said) = mpsc::unbounded_channel();
    bench.master.sites[0].link = Some(link);
    bench.master.sites[0].hello = Some(link::AgentHello {
        protocol: vo_wire::PROTOCOL,
        epoch: 1,
        host: "gateway".into(),
        pid: 1,
        batch: "slurm".into(),
        batch_version: String::new(),
        port: 1,
        version: String::new(),
    });
    let mut asked = || frames(&mut said).iter().flat_map(Frame::read::<link::Why>).last();
    ask_why(&mut bench, "local/7");
    let question = asked().unwrap();
    assert_eq!(question.proxy, Some(ProxyId(7)));
    let step = |age_ms, text: &str| link::WhyStep { age_ms, text: text.into() };
    let mut answer = link::Because {
        nonce: question.nonce + 1,
        steps: vec![step(Some(9000), "wanted"), step(None, "undated"), step(Some(4000), "queued")],
        now: vec![step(None, "holds")],
        next: vec!["the next status call in 3s".into()],
        gaps: Vec::new(),
    };
    bench.master.frame(SiteId(0), &Frame::new(0, &answer), room()).unwrap();
    assert_eq!(answers(&mut client).0, [], "it was not asked that");
    answer.nonce = question.nonce;
    let now = bench.master.now().0;
    bench.master.frame(SiteId(0), &Frame::new(0, &answer), room()).unwrap();
    let because = answers(&mut client).0.remove(0);
    let texts: Vec<_> = because.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts, ["wanted", "undated", "queued", "holds"]);
    assert!((now - 9000..now - 8000).contains(&because.steps[0].at_ms.unwrap()), "{because:?}");
    assert_eq!(because.next, ["the next status call in 3s"]);
    bench.master.frame(SiteId(0), &Frame::new(0, &answer), room()).unwrap();
    assert_eq!(answers(&mut client).0, [], "once");

    ask_why(&mut bench, "local/7");
    assert!(asked().is_some());
    bench.master.sites[0].link = None;
    bench.master.turn();
    let because = answers(&mut client).0.remove(0);
    assert!(because.notes[0].contains("it doesn't answer"), "a stream that closes is no answer: {because:?}");
}

fn room() -> OwnedSemaphorePermit {
    Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
}

#[test]
fn what_is_completed_a_second_is_of_the_time_in_which_there_was_work() {
    let mut rate = Rate::default();
    let begin = Instant::now();
    let mut note = |second: u64, completed: u64, busy: bool| {
        rate.note(begin + Duration::from_secs(second), completed, busy);
        rate.milli()
    };
    for second in 0..90 {
        assert_eq!(note(second, 7, false), 0);
    }
    assert_eq!(note(90, 7, true), 0);
    assert_eq!(note(91, 27, true), 10_000);
    assert_eq!((92..=150).map(|second| note(second, 27 + 20 * (second - 91), true)).last(), Some(20_000));
}
