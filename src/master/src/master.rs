//! The master's one task: owns the pool and all that is known of sites and clients, takes inputs from one queue, stores records, and
//! carries out actions once the records behind them are durable.

mod clients;
mod dag;
mod results;
mod sites;
#[cfg(test)]
mod tests;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use vo_core::ids::{AttemptId, JobId, ProxyId, SiteId, StarterKey};
use vo_core::job::{AttemptResult, Comes, Outcome, OutputKind, Program, Usage};
use vo_core::pool::{
    Action, Assigned, Definition, Event, GroupRecord, JobState, Note, Offer, Pool, Select, Shared, When,
};
use vo_core::{Template, Time};
use vo_lang::conf::{Conf, OnMissed, SiteConf};
use vo_net::ssh::KeyRing;
use vo_net::tls::SessionCa;
use vo_wire::Frame;
use vo_wire::control::{self as ctl, Fault, SiteEvent, SiteState};
use vo_wire::frame::{Message, write_message};
use vo_wire::link::{self, Limits, Marker, ProxyInfo, ProxyShape, ProxyState};
use vo_wire::node::Shares;
use vo_wire::work::{self, Assignment};

use crate::control::{self, Outbox};
use crate::dags::{self, Dags};
use crate::eventlog::{self, Entry, EventLogs};
use crate::history::History;
use crate::inputs::{Blob, Files, Hash};
use crate::jobad::{self, Facts};
use crate::journal::{self, Journal, Reached, chain};
use crate::judge;
use crate::judge::ClassAds;
use crate::kept::Sets;
use crate::listing::Listing;
use crate::mail::{self, Mails, News};
use crate::outputs::{self, Failure, Whole};
use crate::partials;
use crate::session::{self, SessionFile};
use crate::site::{self, Problem, Route, Trouble, Way};
use crate::terminal::Terminal;

/// Inputs that wait for the master's task; more wait where they come from.
const QUEUE: usize = 1024;
/// Inputs taken before records are stored and actions carried out.
const BURST: usize = 256;
/// Large results collected at once.
const COLLECTING: usize = 16;
/// A result that can't be written for now (a full disk) is tried again after this.
const RETRY_OUTPUTS: Duration = Duration::from_secs(5);
/// Progress of watched jobs is told at most this often.
const WATCH_PACE: Duration = Duration::from_millis(100);
/// Housekeeping: targets, rates.
const TICK: Duration = Duration::from_secs(1);
/// A session that nobody follows connects its sites by itself after this.
const UNATTENDED: Duration = Duration::from_secs(10);
/// Event logs are waited for so long before a submission is answered.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
/// Sites have this long to remove their proxies at the end.
const ENDING_PATIENCE: Duration = Duration::from_secs(120);
/// A silent agent is asked for a sign of life after this, or after a heartbeat if that is shorter.
const SILENCE: Duration = Duration::from_secs(300);
/// After so many times that, its stream is given up.
const SILENCES: u32 = 3;
/// The last mails have this long to go.
const LAST_MAILS: Duration = Duration::from_secs(10);
/// Clients have this long to read their last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The start waits this long for a batch system's answer to the first submission.
const SUBMISSION_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of outputs that travel within a result.
const INLINE_BYTES: u32 = 4096;
/// Bytes kept of a job's standard output or error, unless `max_output` says otherwise: far more than people read, and a runaway job
/// doesn't fill a home.
const MAX_OUTPUT: u64 = 1 << 30;
/// No cluster is taken in when less is free where the store is: the ends of jobs that run need it.
const DISK_RESERVE: u64 = 8 << 20;
/// Attempts of one message.
const ASSIGN_PIECE: usize = 128;
/// Rate of completion is taken over this.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// TimeToLive below which a starter takes no new job.
const DRAIN: Duration = Duration::from_secs(60);
/// A site is asked for its batch status at most this often.
const STATUS_PACE: Duration = Duration::from_secs(60);
/// Files on their way to a site at once: each is open.
const SENDING: usize = 16;
/// CPUs of a node, at most.
const MOST_CPUS: u32 = 4096;
/// Starters of a site, at most: each takes about a kilobyte.
const MOST_STARTERS: usize = 20_000;
/// Proxies that a site may tell of, those that ended among them.
const MOST_PROXIES: usize = 100_000;
/// Site events kept for clients that follow late.
const KEPT_EVENTS: usize = 256;

enum Input {
    Site(SiteId, site::Told),
    /// An answer for a client waits for nothing any more.
    Answer(u64, Vec<u8>),
    Client(control::Told),
    Dag(dags::Told),
    Journal(journal::Told),
    /// The grid shell ended.
    ShellEnded(i32),
    /// Attempts with their files, ready to go; and those whose files can't be read.
    Prepared {
        key: StarterKey,
        inventory: u64,
        ready: Vec<Assignment>,
        failed: Vec<(AttemptId, Unsent)>,
    },
    /// Outputs that came within their results.
    Stored(Vec<(StarterKey, Whole, Result<(), Failure>)>),
    /// What an attempt wrote that came to nothing is kept, or can't be.
    PartialKept {
        key: StarterKey,
        result: AttemptResult,
    },
    /// What a running job printed stands in its file, or how much of it.
    Shown {
        key: StarterKey,
        id: AttemptId,
        kind: OutputKind,
        shown: Result<u64, Failure>,
    },
    /// Outputs of one result that were fetched.
    Collected {
        key: StarterKey,
        /// Which collection, as [`Collection::number`].
        number: u64,
        whole: Whole,
        ended: Result<(), Failure>,
    },
    /// What was to be saved or sent for mails is done, or can't be.
    Mailed(mail::Done),
    /// The journal was read for a question.
    Evidence(Box<why::Evidence>),
    /// A file that a site asked for was opened, and a piece of it read.
    BlobRead {
        site: SiteId,
        hash: Hash,
        read: Result<(Arc<Blob>, Vec<u8>), String>,
    },
}

struct Site {
    conf: SiteConf,
    state: SiteState,
    since: Time,
    /// The stream to the agent, while there is one.
    link: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// The way to its task; closing it ends that.
    orders: Option<mpsc::UnboundedSender<site::Order>>,
    /// Orders given to the task.
    ordered: u64,
    /// When the task tries again.
    next_try: Option<Time>,
    /// When the agent was last heard, and asked for a sign of life since.
    heard: Instant,
    asked: Instant,
    hello: Option<link::AgentHello>,
    /// Has the first, whole report of this connection come?
    reported: bool,
    wanted: u32,
    target: Option<u32>,
    limits: Limits,
    cpus: u32,
    proxies: BTreeMap<ProxyId, (ProxyInfo, Time)>,
    /// Those that run, says the batch system, though all of their starters left or were given up.
    left: BTreeSet<ProxyId>,
    problem: Option<(String, Option<String>)>,
    stats: link::AgentStats,
    sending: HashMap<Hash, Sending>,
    /// Contents of the files of jobs that were sent there.
    promised: HashSet<Hash>,
    /// Files that wait to be sent.
    wanted_files: BTreeSet<Hash>,
    /// An agent was at work there, in this life or an earlier one: something of ours may be there.
    reached: bool,
    history: History,
}

/// A file on its way to a site.
struct Sending {
    blob: Option<Arc<Blob>>,
    sent: u64,
    received: u64,
    /// A piece is being read.
    reading: bool,
}

/// Outputs of one result on their way.
struct Collection {
    number: u64,
    /// The number of the set of files that it is, instead of a result's outputs; else 0.
    set: u32,
    checkpoint: bool,
    pieces: mpsc::UnboundedSender<outputs::Piece>,
}

/// What waits while something that a job printed is being written.
#[derive(Default)]
struct Showing {
    kinds: BTreeSet<OutputKind>,
    results: Vec<(StarterKey, Whole)>,
}

/// An answer that waits until what it tells of is durable.
struct Promised {
    /// The last record of that.
    record: u64,
    client: u64,
    bytes: Vec<u8>,
    /// Is it to be in the event logs, too?
    logged: bool,
}

enum Request {
    Listing(Box<Listing>),
    Watching {
        select: Select,
        told: Option<(Instant, ctl::Counts)>,
    },
    WatchingDag {
        dag: u32,
        told: Option<(Instant, vo_wire::dag::DagRow)>,
    },
    Following {
        patience: Duration,
        interactive: bool,
        settled: Option<Time>,
        told: Option<(u32, u32)>,
    },
    /// Waits for a site that was ordered to connect, by this order.
    LoggingIn {
        site: SiteId,
        interactive: bool,
        order: u64,
    },
    /// A question by its number.
    Why(u64),
    Ending,
}

struct Client {
    outbox: Outbox,
    greeted: bool,
    request: Option<Request>,
    /// What came so far of a submission in pieces.
    pieces: Vec<u8>,
    /// Bytes are on their way to it.
    busy: bool,
}

impl Client {
    fn send<M: Message>(&mut self, message: &M) {
        let mut bytes = Vec::new();
        write_message(0, message, &mut bytes);
        self.busy = true;
        self.outbox.send(bytes);
    }

    fn done(&mut self) {
        self.request = None;
        self.send(&ctl::Done {});
    }

    fn failed(&mut self, fault: Fault, message: impl Into<String>, hint: Option<String>) {
        self.request = None;
        self.send(&ctl::Failed { fault, message: message.into(), hint });
    }
}

/// A question to a person, and where its answer goes.
struct Asked {
    question: ctl::Question,
    answer: oneshot::Sender<Option<String>>,
    /// The client that was asked.
    client: Option<u64>,
}

/// How many jobs had been completed, second by second, of the last [`RATE_WINDOW`] or of as long as there is something to do.
#[derive(Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn is_due(&self, now: Instant) -> bool {
        self.0.back().is_none_or(|(at, _)| now.duration_since(*at) >= TICK)
    }

    /// Takes in how many are completed, and whether others run or wait: a time when none did says nothing of those that do now.
    fn note(&mut self, now: Instant, completed: u64, busy: bool) {
        if !busy {
            self.0.clear();
        }
        self.0.push_back((now, completed));
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.0.pop_front();
        }
    }

    /// Completed a second, in thousandths.
    fn milli(&self) -> u64 {
        match (self.0.front(), self.0.back()) {
            (Some((first, before)), Some((last, after))) if last > first => {
                let span = u64::try_from(last.duration_since(*first).as_millis()).unwrap_or(u64::MAX).max(1);
                (after - before).saturating_mul(1_000_000) / span
            }
            _ => 0,
        }
    }
}

pub(crate) struct Master {
    dir: PathBuf,
    session: SessionFile,
    /// What ads tell besides the pool's state.
    facts: Arc<Facts>,
    session_id: Arc<str>,
    inputs: mpsc::Sender<Input>,
    pool: Pool,
    dags: Dags,
    /// Clusters that were submitted for a node of a DAG, by its tag.
    tags: BTreeMap<String, u32>,
    journal: Journal,
    blocked: Option<String>,
    durable: u64,
    sites: Vec<Site>,
    routes: Vec<Option<Route>>,
    started: bool,
    clients: BTreeMap<u64, Client>,
    /// In the order of their records.
    answers: VecDeque<Promised>,
    questions: BTreeMap<u64, Asked>,
    last_question: u64,
    events: VecDeque<SiteEvent>,
    terminal: Option<Terminal>,
    shell_ended: mpsc::Sender<i32>,
    files: Arc<Files>,
    partials: partials::Keeper,
    /// What attempts leave to the next ones.
    sets: Arc<Sets>,
    /// Jobs that are over, whose sets go once this record is durable.
    outlived: Option<(u64, Vec<JobId>)>,
    event_logs: EventLogs,
    mails: Mails,
    /// Results whose outputs came with them, to be written by the next group.
    whole: Vec<(StarterKey, Whole)>,
    storing: bool,
    large: VecDeque<(StarterKey, Whole)>,
    collecting: BTreeMap<AttemptId, (StarterKey, Collection)>,
    last_collection: u64,
    /// Results that can't be written now, and why.
    retry: Vec<(StarterKey, Whole, String)>,
    retry_at: Option<Instant>,
    /// Jobs of which something printed is being written, and results of theirs that wait for the end of that.
    showing: BTreeMap<JobId, Showing>,
    marker_device: u64,
    rate: Rate,
    busy_at: Instant,
    whys: why::Whys,
    ending: Option<Ending>,
    finished: Option<ExitCode>,
    begun: Instant,
    begun_ms: u64,
    on_missed: OnMissed,
    lease: Duration,
}

struct Ending {
    waiting: BTreeSet<SiteId>,
    left: Vec<String>,
    until: Instant,
    /// The last mails are waited for until then.
    told: Option<Instant>,
}

/// Runs the master in `dir`.
pub(crate) async fn run(dir: &Path, mut ready: File) -> ExitCode {
    let (input_sender, mut inputs) = mpsc::channel(QUEUE);
    let (shell_ended, mut shells_end) = mpsc::channel(1);
    let (control_sender, mut control_told) = mpsc::channel(QUEUE);
    let started = Master::start(dir, input_sender, shell_ended);
    let listening = started.and_then(|master| {
        let listener = control::listen(dir).map_err(|e| format!("cannot listen in {}: {e}", dir.display()))?;
        Ok((master, listener))
    });
    let (mut master, listener) = match listening {
        Ok(listening) => listening,
        Err(message) => {
            tracing::error!(message, "cannot start");
            let _ = writeln!(ready, "{message}");
            return ExitCode::FAILURE;
        }
    };
    let (Ok(mut term), Ok(mut hang_up)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        let _ = writeln!(ready, "cannot listen to signals");
        return ExitCode::FAILURE;
    };
    tokio::spawn(control::serve(listener, control_sender));
    if ready.write_all(session::READY).is_err() {
        tracing::info!("whoever started us has gone");
    }
    drop(ready);
    let mut burst = Vec::with_capacity(BURST);
    loop {
        let deadline = master.deadline();
        tokio::select! {
            biased;
            _ = term.recv() => break,
            _ = hang_up.recv() => break,
            Some(told) = control_told.recv() => master.take(Input::Client(told)),
            Some(code) = shells_end.recv() => master.take(Input::ShellEnded(code)),
            _ = inputs.recv_many(&mut burst, BURST) => burst.drain(..).for_each(|input| master.take(input)),
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        master.turn();
        if let Some(code) = master.finished {
            // Clients read that it is over and go; the grid shell among them, which says so on its terminal first.
            let last_words = async {
                while !master.clients.is_empty() {
                    tokio::select! {
                        Some(told) = control_told.recv() => master.take(Input::Client(told)),
                        Some(code) = shells_end.recv() => master.take(Input::ShellEnded(code)),
                        else => return,
                    }
                }
            };
            let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
            return code;
        }
    }
    // Everything acknowledged is durable already; agents and starters carry on.
    tracing::info!("asked to end; the session can be recovered");
    ExitCode::SUCCESS
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What tells a host and its view of files from all others; see [`Marker`].
fn host_identity() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mount = std::fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    format!("{} {}", boot.trim(), mount.display())
}

fn random_hex<const BYTES: usize>() -> Result<String, String> {
    let mut bytes = [0; BYTES];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| "no random numbers from the system")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Master {
    fn start(dir: &Path, inputs: mpsc::Sender<Input>, shell_ended: mpsc::Sender<i32>) -> Result<Master, String> {
        let failed = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what} in {}: {e}", dir.display());
        session::private_dir(dir).map_err(|e| e.to_string())?;
        let session = SessionFile::read(dir).map_err(|e| failed("read session.toml", &e))?;
        let conf =
            session.read_conf().map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let facts = Arc::new(Facts::new(&session.name, conf.sites.iter().map(|site| site.name.clone()).collect()));
        let told = inputs.clone();
        // The thread may wait: the queue is ours alone to drain.
        let tell = move |t| drop(told.blocking_send(Input::Journal(t)));
        let (logged, mailed) = (eventlog::marked(dir), mail::marked(dir));
        // Whoever started us takes the second line for the hint.
        let judge = Arc::new(ClassAds::new(facts.clone()));
        let reached = Reached { logged, mailed };
        let opened = Journal::open(&dir.join("store"), reached, judge, tell).map_err(|e| match e.hint() {
            Some(hint) => format!("{}\n{hint}", chain(&e)),
            None => chain(&e),
        })?;
        let journal::Opened { journal, mut pool, cut, unlogged } = opened;
        let mut events = VecDeque::new();
        if let Some(cut) = cut {
            tracing::warn!(cut, "the store's end was torn; what was never acknowledged is gone");
            let hint = "a commit was not finished when the last master died; nothing that was acknowledged is lost";
            events.push_back(SiteEvent::Note { site: "job store".into(), message: cut, hint: Some(hint.into()) });
        }
        let ca = Self::authority(dir, &session.id)?;
        let epoch = Self::next_epoch(dir)?;
        let marker_path = dir.join("marker");
        let content = match std::fs::read_to_string(&marker_path) {
            Ok(content) => content,
            Err(_) => {
                let content = random_hex::<16>()?;
                vo_store::write_atomic(&marker_path, content.as_bytes(), 0o600)
                    .map_err(|e| failed("write the marker", &e))?;
                content
            }
        };
        let marker_path = std::fs::canonicalize(&marker_path).unwrap_or(marker_path);
        let marker_device = std::fs::metadata(&marker_path).map_or(0, |found| found.dev());
        let path = marker_path.into_os_string().into_vec();
        let marker = Marker { path, content, host: host_identity() };
        let now = Time(unix_ms());
        pool.handle(now, Event::Recovered);
        let mut sites = Vec::new();
        let mut routes = Vec::new();
        pool.set_weights(conf.session.shares.clone());
        pool.set_limits(conf.session.limits.clone());
        pool.set_policy_interval(conf.session.policy_interval);
        let makings = sites::Makings {
            session: &session,
            conf: &conf,
            dir,
            ca: &ca,
            epoch,
            marker: &marker,
            now,
            person: &Arc::new(Semaphore::new(1)),
            keys: &KeyRing::default(),
            reached: &sites::reached(dir),
        };
        for site in &conf.sites {
            let (site, route) = sites::prepare(&makings, site)?;
            sites.push(site);
            routes.push(Some(route));
        }
        let told = inputs.clone();
        let kept = move |key, result| drop(told.blocking_send(Input::PartialKept { key, result }));
        let partials = partials::Keeper::start(dir, kept).map_err(|e| failed("start a thread", &e))?;
        let mut mails = Mails::open(dir, conf.session.mail.as_deref(), now);
        let unlogged: Vec<_> = unlogged.into_iter().filter_map(|(n, note)| Some((n, Entry::of(note)?))).collect();
        for (_, entry) in unlogged.iter().filter(|(number, _)| *number > mailed) {
            tell_by_mail(&mut mails, &pool, &facts, now, entry);
        }
        let missed = unlogged.into_iter().filter(|(number, _)| *number > logged).map(|(_, entry)| entry).collect();
        let event_logs =
            EventLogs::start(dir, conf.session.log_format, missed).map_err(|e| failed("start a thread", &e))?;
        let told = inputs.clone();
        // Threads may wait where tasks must not: a task has others to let run.
        let tell = move |t| match told.try_send(Input::Dag(t)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(input)) if tokio::runtime::Handle::try_current().is_err() => {
                drop(told.blocking_send(input))
            }
            Err(mpsc::error::TrySendError::Full(input)) => {
                let told = told.clone();
                tokio::spawn(async move { drop(told.send(input).await) });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        };
        let tags = pool.tags().map(|(cluster, tag)| (tag.to_owned(), cluster)).collect();
        let dags = Dags::open(dir, &session.name, &session.program, now, &mut pool, Arc::new(tell))?;
        tracing::info!(session = session.name, id = session.id, epoch, "master started");
        Ok(Master {
            dir: dir.to_owned(),
            session_id: session.id.as_str().into(),
            facts,
            session,
            inputs,
            pool,
            dags,
            tags,
            journal,
            blocked: None,
            durable: 0,
            sites,
            routes,
            started: false,
            clients: BTreeMap::new(),
            answers: VecDeque::new(),
            questions: BTreeMap::new(),
            last_question: 0,
            events,
            terminal: None,
            shell_ended,
            files: Arc::new(Files::default()),
            partials,
            sets: Arc::new(Sets::open(dir)),
            outlived: None,
            event_logs,
            mails,
            whole: Vec::new(),
            storing: false,
            large: VecDeque::new(),
            collecting: BTreeMap::new(),
            last_collection: 0,
            retry: Vec::new(),
            retry_at: None,
            showing: BTreeMap::new(),
            marker_device,
            rate: Rate::default(),
            busy_at: Instant::now(),
            whys: why::Whys::default(),
            ending: None,
            finished: None,
            begun: Instant::now(),
            begun_ms: now.0,
            on_missed: conf.session.on_missed,
            lease: conf.session.lease,
        })
    }

    /// The session's certificate authority, made at its first start.
    fn authority(dir: &Path, session_id: &str) -> Result<SessionCa, String> {
        let path = dir.join("ca.pem");
        match std::fs::read_to_string(&path) {
            Ok(text) => SessionCa::from_pem(&text).map_err(|e| format!("{}: {}", path.display(), chain(&e))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let ca = SessionCa::create(session_id).map_err(|e| chain(&e))?;
                vo_store::write_atomic(&path, ca.to_pem().as_bytes(), 0o600)
                    .map_err(|e| format!("{}: {e}", path.display()))?;
                Ok(ca)
            }
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    /// Which start of the master this is.
    fn next_epoch(dir: &Path) -> Result<u64, String> {
        let path = dir.join("epoch");
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let last = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u64>().map_err(|e| failed(&e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(failed(&e)),
        };
        vo_store::write_atomic(&path, (last + 1).to_string().as_bytes(), 0o600).map_err(|e| failed(&e))?;
        Ok(last + 1)
    }

    /// Milliseconds since 1970 that never go back while we live, whatever is done to the clock.
    fn now(&self) -> Time {
        Time(self.begun_ms) + self.begun.elapsed()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Site(site, told) => self.site_told(site, told),
            Input::Client(told) => self.client_told(told),
            Input::Dag(told) => self.dag_told(told),
            Input::Journal(told) => self.journal_told(told),
            Input::ShellEnded(code) => {
                if let Some(mut terminal) = self.terminal.take() {
                    terminal.close(Some(code), "the grid shell ended");
                }
            }
            Input::Prepared { key, inventory, ready, failed } => self.prepared(key, inventory, ready, failed),
            Input::Stored(ended) => {
                self.storing = false;
                for (key, whole, ended) in ended {
                    self.collected(key, whole, ended);
                }
            }
            Input::Collected { key, number, whole, ended } => {
                let id = whole.result.id;
                let current = self.collecting.get(&id).is_some_and(|(_, collection)| collection.number == number);
                if current {
                    self.collecting.remove(&id);
                }
                // One that was given up with its link says nothing: the starter has the result still, and tells it again.
                if current || ended.is_ok() {
                    self.collected(key, whole, ended);
                }
            }
            Input::Answer(client, bytes) => self.deliver(client, bytes),
            Input::Shown { key, id, kind, shown } => self.shown(key, id, kind, shown),
            Input::PartialKept { key, result } => self.partial_kept(key, result),
            Input::Mailed(done) => self.mailed(done),
            Input::Evidence(evidence) => self.evidence(*evidence),
            Input::BlobRead { site, hash, read } => self.blob_read(site, hash, read),
        }
    }

    fn journal_told(&mut self, told: journal::Told) {
        match told {
            journal::Told::Durable { number, log_bytes } => {
                self.blocked = None;
                self.durable = self.journal.durable(number, log_bytes);
            }
            journal::Told::Blocked(why) => {
                tracing::warn!(why, "the store can't be written");
                self.blocked = Some(why);
            }
            journal::Told::Failed(why) => {
                tracing::error!(why, "the store failed; the session stops here and can be recovered");
                self.finished = Some(ExitCode::FAILURE);
            }
        }
    }

    /// After each burst of inputs: records to the store, actions into the world, news to clients.
    fn turn(&mut self) {
        let now = self.now();
        if self.pool.deadline().is_some_and(|at| at <= now) {
            self.pool.handle(now, Event::TimePassed);
        }
        let wishes = self.dags.turn(now, &self.pool);
        for (row, told) in wishes.told {
            if let Some((news, text)) = mail::of_dag(&row, told, &self.facts) {
                self.mails.take(now, news, || text);
            }
        }
        for cluster in wishes.remove {
            let select = Select { clusters: [cluster].into(), ..Select::default() };
            self.pool.handle(now, Event::RemovalAsked { select });
        }
        let dags = &mut self.dags;
        self.journal.store(&mut self.pool, |record| dags.see(record));
        // What DAGs do stands in their logs behind what it follows from.
        while let Some(records) = self.dags.line_waits_for().filter(|records| *records <= self.durable) {
            self.carry_out_all(records);
            self.dags.records_told(records);
        }
        self.carry_out_all(self.durable);
        self.event_logs.mark(self.journal.number(self.durable));
        if let Some(work) =
            self.mails.turn(now, self.journal.number(self.durable), (&self.session.name, &self.facts.host))
        {
            let inputs = self.inputs.clone();
            tokio::spawn(work.run(async move |done| drop(inputs.send(Input::Mailed(done)).await)));
        }
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.record <= self.durable) {
            if !answer.logged {
                self.deliver(answer.client, answer.bytes);
                continue;
            }
            let (written, inputs) = (self.event_logs.written(), self.inputs.clone());
            tokio::spawn(async move {
                // A file system that hangs is not waited for.
                let _ = tokio::time::timeout(LOG_PATIENCE, written).await;
                let _ = inputs.send(Input::Answer(answer.client, answer.bytes)).await;
            });
        }
        self.read_journal();
        self.store_outputs();
        self.tick();
        self.tell_clients();
        self.tell_watchers_of_dags();
    }

    /// Answers a client when what the pool has taken in so far is durable.
    fn answer_once_durable<M: Message>(&mut self, client: u64, message: &M) {
        self.promise(client, message, false);
    }

    /// The same, and when the event logs tell of it: scripts look there at once.
    fn answer_once_logged<M: Message>(&mut self, client: u64, message: &M) {
        self.promise(client, message, true);
    }

    fn promise<M: Message>(&mut self, client: u64, message: &M, logged: bool) {
        let mut bytes = Vec::new();
        write_message(0, message, &mut bytes);
        self.answers.push_back(Promised { record: self.pool.sequence(), client, bytes, logged });
    }

    fn deliver(&mut self, client: u64, bytes: Vec<u8>) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.outbox.send(bytes);
            client.done();
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let watched = self.clients.values().any(|c| {
            matches!(
                c.request,
                Some(
                    Request::Watching { .. }
                        | Request::WatchingDag { .. }
                        | Request::Following { .. }
                        | Request::Ending
                )
            )
        });
        let mut deadline = now + if watched { WATCH_PACE } else { TICK };
        if let Some(at) = self.retry_at {
            deadline = deadline.min(at);
        }
        if let Some(at) = [self.pool.deadline(), self.dags.deadline()].into_iter().flatten().min() {
            deadline = deadline.min(self.begun + at.since(Time(self.begun_ms)));
        }
        deadline
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if !self.started && now.duration_since(self.begun) > UNATTENDED {
            self.connect_sites(false);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for (key, whole, _) in std::mem::take(&mut self.retry) {
                self.collect(key, whole);
            }
        }
        if self.rate.is_due(now) {
            let completed = (0..self.sites.len()).map(|i| self.pool.completed_at(SiteId(i as u16))).sum();
            self.rate.note(now, completed, self.pool.demand_cpus() > 0);
            self.ask_silent();
            self.set_targets();
            self.outlive();
        }
        self.agents_overdue();
        self.check_ending();
    }

    // ---- the pool's actions ----

    /// Sends to a starter by way of its site's agent. If there is no way now, the starter will be asked what it holds when there is.
    fn to_starter<M: Message>(&self, key: StarterKey, message: &M) {
        if let Some((site, _)) = self.pool.proxy_of(key)
            && let Some(link) = self.sites.get(usize::from(site.0)).and_then(|site| site.link.as_ref())
        {
            let mut bytes = Vec::new();
            write_message(key.0, message, &mut bytes);
            let _ = link.send(bytes);
        }
    }

    /// What follows from so many records.
    fn carry_out_all(&mut self, records: u64) {
        while let Some(action) = self.pool.poll_action(records) {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Assign { key, inventory, define, attempts, shared } => {
                self.assign(key, inventory, define, attempts, shared)
            }
            Action::Recall { key, inventory, count } => self.to_starter(key, &work::Recall { count, inventory }),
            Action::Kill { key, ids, grace, signal } => {
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                self.to_starter(key, &work::Kill { ids, grace_ms, signal });
            }
            Action::Drain { key, why } => self.to_starter(key, &work::Drain { why }),
            Action::Acknowledge { key, ids } => self.to_starter(key, &work::Acknowledge { ids }),
            Action::Collect { key, result, program } => {
                self.collect(key, Whole { session: self.session_id.clone(), result, program, set: None })
            }
            Action::KeepPartial { key, result } => self.partials.keep(key, result),
            note @ Action::Note { .. } => {
                if let Some(mut entry) = Entry::of(note) {
                    let now = self.now();
                    tell_by_mail(&mut self.mails, &self.pool, &self.facts, now, &entry);
                    self.dags.note(&entry);
                    if entry.log.is_some() {
                        entry.information = self.information(&entry);
                        self.event_logs.write(entry);
                    }
                }
            }
        }
    }

    /// What a log is to tell of its jobs' ads with an event, as they are now.
    fn information(&self, entry: &Entry) -> eventlog::Information {
        if entry.terms.information.is_empty() {
            return eventlog::Information::new();
        }
        let now = i64::try_from(self.now().0 / 1000).unwrap_or(i64::MAX);
        let mut named = jobad::Named::new(&entry.terms.information, now);
        let mut of = |proc| {
            let view = self.pool.view(JobId { proc, ..entry.job })?;
            Some((proc, named.values(&view, &self.facts)))
        };
        match &entry.note {
            Note::Submitted { jobs } => jobs.iter().filter_map(of).collect(),
            _ => of(entry.job.proc).into_iter().collect(),
        }
    }

    fn mailed(&mut self, done: mail::Done) {
        let now = self.now();
        if let Some(message) = self.mails.done(now, done) {
            tracing::warn!(message, "a mail was not sent");
            let hint = "it is tried again; `mail` in vo.conf names the program that sends mails";
            self.announce(SiteEvent::Note { site: "mail".into(), message, hint: Some(hint.into()) });
        }
    }

    /// Fills in what programs ask of the machine that runs them. A job for which it has no answer is held.
    fn on_machine(
        &mut self,
        key: StarterKey,
        inventory: u64,
        mut define: Vec<Definition>,
        attempts: Vec<Assigned>,
    ) -> (Vec<Definition>, Vec<Assigned>) {
        if !attempts.iter().any(|each| each.body.asks_machine()) {
            return (define, attempts);
        }
        let Some(slot) = self.pool.offer(key).map(|(offer, left)| judge::slot_ad(offer, left)) else {
            return (define, attempts);
        };
        let (mut ready, mut failed) = (Vec::new(), Vec::new());
        for mut each in attempts {
            let terms = self.pool.view(each.id.job).map(|view| view.terms);
            let job = terms.map(|terms| jobad::asked(terms, &each.body));
            match each.body.on_machine(&mut |asked| judge::fill_in(asked, job.as_ref(), &slot)) {
                Ok(body) => {
                    if let Some((_, defined, _)) = define.iter_mut().find(|(program, ..)| *program == each.program) {
                        *defined = body.clone();
                    }
                    each.body = body;
                    ready.push(each);
                }
                Err(why) => failed.push((each.id, Unsent { why, too_large: false })),
            }
        }
        if !failed.is_empty() {
            let (inputs, ready) = (self.inputs.clone(), Vec::new());
            tokio::spawn(async move { inputs.send(Input::Prepared { key, inventory, ready, failed }).await });
        }
        (define, ready)
    }

    fn assign(
        &mut self,
        key: StarterKey,
        inventory: u64,
        define: Vec<Definition>,
        attempts: Vec<Assigned>,
        shared: Shared,
    ) {
        let (define, attempts) = self.on_machine(key, inventory, define, attempts);
        let now = self.now();
        let slot = (!define.is_empty()).then(|| self.pool.offer(key)).flatten();
        if let Some(text) = slot.map(|(offer, _)| judge::slot_text(offer)) {
            self.to_starter(key, &work::SlotAd { text });
        }
        for (program, body, load) in define {
            let first = attempts.iter().find(|each| each.program == program);
            let view = first.and_then(|each| self.pool.view(each.id.job));
            let (ad, own) = view.map(|view| jobad::told(&view, &body, &self.facts)).unwrap_or_default();
            self.to_starter(key, &work::DefineProgram { program, body: (*body).clone(), load, ad, own });
        }
        if shared == Shared::Everything {
            let plain = |each: &Assigned| Assignment {
                id: each.id,
                program: each.program,
                files: None,
                directory: None,
                row: each.row.clone(),
                wait: each.when.map(|when| wait(when, now)),
            };
            for piece in attempts.chunks(ASSIGN_PIECE) {
                self.to_starter(key, &work::Assign { attempts: piece.iter().map(plain).collect(), inventory });
            }
            return;
        }
        let (files, device, inputs) = (self.files.clone(), self.marker_device, self.inputs.clone());
        let sets = self.sets.clone();
        let began = Instant::now();
        tokio::task::spawn_blocking(move || {
            let (mut ready, mut failed) = (Vec::new(), Vec::new());
            for Assigned { id, program, body, row, when } in attempts {
                let body = body.filled(&row);
                let directory = (shared == Shared::MarkerFs).then(|| marker_inode(&body, id.job, device)).flatten();
                let brought = directory.is_none().then(|| brought(&files, &sets, &body, id.job)).transpose();
                match brought {
                    Ok(Some(files)) if let Some(why) = too_large(&body, &files) => {
                        failed.push((id, Unsent { why, too_large: true }));
                    }
                    Ok(files) => {
                        let wait = when.map(|when| wait(when, now));
                        ready.push(Assignment { id, program, files, directory, row, wait });
                    }
                    Err(why) => failed.push((id, Unsent { why, too_large: false })),
                }
            }
            for each in &mut ready {
                // Reading the files took its time; what is too late is so at the node.
                let late = work::Wait { start_ms: 0, most_ms: 0 };
                each.wait = each.wait.map(|wait| wait.after(began.elapsed()).unwrap_or(late));
            }
            let _ = inputs.blocking_send(Input::Prepared { key, inventory, ready, failed });
        });
    }

    fn prepared(&mut self, key: StarterKey, inventory: u64, ready: Vec<Assignment>, failed: Vec<(AttemptId, Unsent)>) {
        let now = self.now();
        for (id, Unsent { why, too_large }) in failed {
            self.pool.handle(now, Event::AssignmentFailed { key, id, why, too_large });
        }
        // Removed meanwhile, or the starter said meanwhile that it doesn't have them.
        let (ready, stale): (Vec<_>, Vec<_>) = ready.into_iter().partition(|a| self.pool.is_live(a.id, key));
        if !stale.is_empty() {
            let ids = stale.into_iter().map(|a| a.id).collect();
            self.pool.handle(now, Event::AttemptsReturned { key, ids });
        }
        if let Some((site, _)) = self.pool.proxy_of(key)
            && let Some(site) = self.sites.get_mut(usize::from(site.0))
        {
            let files = ready.iter().flat_map(|attempt| attempt.files.iter().flatten());
            site.promised.extend(files.map(|file| file.hash));
        }
        for piece in ready.chunks(ASSIGN_PIECE) {
            self.to_starter(key, &work::Assign { attempts: piece.to_vec(), inventory });
        }
    }
}

/// Takes in what there is to tell by mail of an entry.
fn tell_by_mail(mails: &mut Mails, pool: &Pool, facts: &Facts, now: Time, entry: &Entry) {
    let Some(view) = entry.terms.mail.as_ref().and_then(|_| pool.view(entry.job)) else { return };
    if let Some(news) = News::of(entry, &view, pool.is_at_rest(entry.job.cluster), facts) {
        mails.take(now, news, || mail::text(entry, &view, facts));
    }
}

/// Why an attempt can't be sent.
struct Unsent {
    why: String,
    too_large: bool,
}

/// That a job's files are larger than it allows, if they are.
fn too_large(program: &Program, files: &[work::FileRef]) -> Option<String> {
    let size = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let most = program.most_in.filter(|most| size > *most)?;
    Some(format!("its input has {size} bytes, and max_transfer_input_mb allows {most}"))
}

/// The files that a job brings to a node: its inputs, and what its last attempt left.
fn brought(files: &Files, sets: &Sets, program: &Program, job: JobId) -> Result<Vec<work::FileRef>, String> {
    let inputs = files.of(program, job)?;
    loop {
        let Some(set) = sets.newest(job) else { return Ok(inputs) };
        let mut all = inputs.clone();
        match files.kept(program, job, &set, &mut all) {
            Ok(()) => return Ok(all),
            // A newer one came meanwhile.
            Err(_) if sets.newest(job).as_ref() != Some(&set) => {}
            Err(why) => return Err(why),
        }
    }
}

/// How long the node waits with a program.
fn wait(when: When, now: Time) -> work::Wait {
    let ms = |at: Time| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
    work::Wait { start_ms: ms(when.starts), most_ms: ms(when.closes) }
}

/// The inode number of a job's directory, if it is on the marker's file system with all of the job's standard files: one that is
/// elsewhere (`output = /tmp/x`) would be the node's own there, and be lost, or be another's.
fn marker_inode(program: &Program, job: JobId, device: u64) -> Option<u64> {
    let dir = program.initialdir.expand(job);
    let dir = Path::new(OsStr::from_bytes(&dir));
    let found = std::fs::metadata(dir).ok().filter(|found| found.dev() == device)?;
    let shared = |name: &Template| {
        let name = name.expand(job);
        let path = dir.join(OsStr::from_bytes(&name));
        let found = std::fs::metadata(&path).or_else(|_| std::fs::metadata(path.parent().unwrap_or(dir)));
        path == Path::new("/dev/null") || found.is_ok_and(|found| found.dev() == device)
    };
    [&program.input, &program.output, &program.error].into_iter().flatten().all(shared).then(|| found.ino())
}
