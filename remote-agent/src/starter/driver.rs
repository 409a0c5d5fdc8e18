//! The starter proper: the world around [`vo_core::starter::Starter`].

mod running;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use vo_core::Time;
use vo_core::ids::{AttemptId, StarterKey};
use vo_core::job::{AttemptResult, Comes, Outcome, Output, OutputKind, Usage};
use vo_core::starter::{Action, Demand, Event, Limits, Offer, Starter, Task};
use vo_net::tls::Identity;
use vo_wire::frame::{Frame, Message, WireError};
use vo_wire::link::{BlobChunk, BlobMissing, Ping, Pong};
use vo_wire::node::{End, Leaving, MasterLink, StarterFacts, Welcome};
use vo_wire::work::{
    Acknowledge, Assign, Assignment, CHUNK, CheckpointKept, Checkpointed, DefineProgram, Drain, FetchOutput, FileRef,
    FileRole, Inventory, Kill, Measured, OutputChunk, OutputLost, PRINTED, Printed, Recall, Report, Seen, SlotAd,
    WINDOW, Wait,
};

use crate::launch::{self, AgentAddress, SiteDir};
use crate::spool::{self, Who};

use super::blobs::{Blobs, Hash, Progress};
use super::jobs::{Given, Node, Prepared, reason};
use super::link::{Caller, Connection, Refused};
use super::memory::Killings;
use super::moving::Moves;
use super::scratch::{self, Place, Scratch, Set};
use super::usage::{self, Meter};
use super::{ENDING_SIGNALS, Settings, facts, random, tree};
use running::drop_sets;

type Happened = Event<Arc<Prepared>, Assignment>;

/// How long the last words may take to reach the agent.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often a starter whose agent has no master looks whether there is a newer agent.
const LOOK: Duration = Duration::from_secs(10);

/// Bytes of what cut-off attempts wrote that are held for the master; what comes when there is more is dropped.
const PARTIALS: usize = 16 << 20;

/// With less scratch space than this, a job that failed could not write: the node is at fault, and the job runs elsewhere.
const FULL: u64 = 64 << 10;

/// How a program ends that SIGKILL ended, or a shell whose last command it ended.
const KILLED: [Outcome; 2] = [Outcome::Signaled(9), Outcome::Exited(137)];

/// How often the captured output of running jobs is measured.
const MEASURE: Duration = Duration::from_secs(1);

/// A try, from its start to its end.
enum Job {
    /// Input files are on the way.
    Fetching { assignment: Assignment, program: Arc<Prepared>, missing: HashSet<Hash> },
    /// Its scratch directory is being made.
    Placing { program: Arc<Prepared>, hashes: HashSet<Hash>, bytes: u64, wait: Option<Wait>, killed: bool },
    /// Its program runs, in its own directory or in `place`.
    Running {
        program: Arc<Prepared>,
        place: Option<Place>,
        pid: i32,
        past: Past,
        /// The signal with which it is to be killed first; 0 is that of its program.
        signal: u8,
        meter: Box<Meter>,
    },
    /// It has checkpointed itself, which is copied; then its program runs again.
    Checkpointing { program: Arc<Prepared>, past: Past },
    /// Its outputs are being read.
    Collecting,
    /// And some are being sent to where it wants them.
    Sending { pid: i32, place: Place, left: Box<Left> },
}

/// What a try leaves when it ends.
struct Left {
    result: AttemptResult,
    paths: BTreeMap<OutputKind, PathBuf>,
    /// The ends of what it wrote, if it doesn't count.
    partial: Vec<Output>,
    set: Option<Set>,
}

/// What there was of a try before its program ran this time.
#[derive(Clone, Copy)]
struct Past {
    since: Instant,
    used: Usage,
    checkpoints: u32,
    /// The job's own directory's inode, if it runs there.
    directory: Option<u64>,
}

impl Past {
    fn new(directory: Option<u64>, received_bytes: u64) -> Past {
        let used = Usage { received_bytes, ..Usage::default() };
        Past { since: Instant::now(), used, checkpoints: 0, directory }
    }

    /// What was used, with what its program uses this time.
    fn with(self, now: Usage) -> Usage {
        Usage {
            cpu_ms: self.used.cpu_ms + now.cpu_ms,
            system_ms: self.used.system_ms + now.system_ms,
            peak_kib: self.used.peak_kib.max(now.peak_kib),
            disk_kib: self.used.disk_kib.max(now.disk_kib),
            received_bytes: self.used.received_bytes,
            ..now
        }
    }

    /// Once its program has ended.
    fn and(self, ended: &tree::Ended, meter: &Meter) -> Past {
        let used = self.with(Usage {
            wall_ms: millis(self.since.elapsed()),
            cpu_ms: millis(ended.user + ended.system),
            peak_kib: ended.peak_kib,
            system_ms: millis(ended.system),
            ..Usage::default()
        });
        Past { used: meter.whole(used), ..self }
    }
}

/// Work away from the event loop that is done.
enum Done {
    Placed(AttemptId, Result<Place, Outcome>),
    Collected(Box<Left>),
    /// The same, but for files that are to be sent to URLs.
    Sent(Arc<Prepared>, Place, Box<Left>, Vec<(PathBuf, OsString)>),
    Checkpointed(AttemptId, Place, Result<Option<Set>, Outcome>),
    /// What of the results is durable at the site; and is the session over?
    Spooled(Vec<AttemptId>, bool),
    /// What running jobs use.
    Measured(Vec<(AttemptId, Usage)>),
}

struct Driver {
    key: StarterKey,
    who: Who,
    site: SiteDir,
    began: Instant,
    machine: Starter<Arc<Prepared>, Assignment>,
    node: Node,
    scratch: Scratch,
    blobs: Blobs,
    /// Of captured output, and of contents within a result.
    limits: (u64, u32),
    jobs: HashMap<AttemptId, Job>,
    /// Which job's program a process is.
    pids: HashMap<i32, AttemptId>,
    /// The outputs of tries in scratch directories, until they are acknowledged.
    kept: HashMap<AttemptId, BTreeMap<OutputKind, PathBuf>>,
    /// The ends of what cut-off attempts wrote, until they are acknowledged.
    partials: HashMap<AttemptId, Vec<Output>>,
    /// What tries leave to their jobs' next ones, until it is with the master: what is told, and the newest.
    sets: HashMap<AttemptId, Vec<Set>>,
    /// How much of what running tries print is at home, and whether a piece is on its way.
    printed: BTreeMap<(AttemptId, OutputKind), (u64, bool)>,
    moves: Moves,
    killings: Killings,
    done: mpsc::UnboundedSender<Done>,
    happened: Vec<Happened>,
    left: Option<String>,
    /// Has the agent that we are connected to a master?
    master: bool,
    /// Are jobs being measured?
    measuring: bool,
}

type Call = Pin<Box<dyn Future<Output = Result<(Connection, Welcome), Refused>>>>;

enum Link {
    Calling(Call),
    Up(Connection),
}

enum Word {
    Welcome(Welcome),
    Frame(Frame),
    Lost(io::Error),
    Refused(String),
}

/// The starter's life, from the check of the node to its last word. `guarded` tells whether the guardian is there.
pub(super) async fn run(settings: Settings, guarded: &dyn Fn() -> bool) -> io::Result<ExitCode> {
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).try_init();
    let began = Instant::now();
    let scratch = &settings.scratch;
    let usable = scratch.make().map_err(|e| format!("cannot write in {}: {e}", scratch.0.display()));
    let facts = facts::collect(&settings);
    let limits = settings.launch.limits.clone();
    let lease = Duration::from_millis(limits.lease_ms).max(Duration::from_secs(1));
    let key = StarterKey(random()?);
    let caller = Rc::new(Caller {
        key,
        identity: Identity::from_pem(&settings.launch.identity).map_err(io::Error::other)?,
        epoch: Cell::new(0),
        last: Cell::new(None),
        silence: (lease / 6).clamp(Duration::from_millis(500), Duration::from_secs(30)),
    });
    let settings = Rc::new(settings);
    let call = |facts: StarterFacts| -> Call {
        let (caller, settings) = (Rc::clone(&caller), Rc::clone(&settings));
        Box::pin(async move {
            let facts = || StarterFacts {
                scratch_bytes: facts::free_bytes(&settings.scratch.0),
                time_left_ms: settings.time_left.map(|left| millis(left.saturating_sub(began.elapsed()))),
                ..facts.clone()
            };
            caller.call(&settings.site.address(), facts).await
        })
    };
    let unusable = |why: String, link: Call| async move {
        // The agent hears why, if it can be reached; the proxy's output says it in any case.
        if let Ok(Ok((mut connection, _))) = timeout(lease.min(Duration::from_secs(60)), link).await {
            connection.put(0, &Leaving { why: why.clone() });
            let _ = timeout(FAREWELL, connection.finish()).await;
        }
        Err(io::Error::other(why))
    };
    let node = match usable {
        Ok(()) => Node::new(facts.shares, &settings.launch.marker, &settings.scratch)?,
        Err(why) => return unusable(why, call(StarterFacts { cpus: 0, ..facts })).await,
    };
    let offer = Offer {
        cpus: facts.cpus,
        memory_mb: facts.memory_mb,
        gpus: facts.gpus,
        ends: settings.time_left.map(|left| Time(0) + left),
    };
    let captures = (limits.capture_bytes, limits.inline_bytes);
    let limits =
        Limits { idle: Duration::from_millis(limits.idle_ms), lease, drain: Duration::from_millis(limits.drain_ms) };
    let (done, mut finished) = mpsc::unbounded_channel();
    let who = Who { key, facts: facts.clone() };
    who.sign(&settings.scratch.0)?;
    let mut driver = Driver {
        key,
        who,
        site: settings.site.clone(),
        began,
        machine: Starter::new(Time(0), limits, offer),
        node,
        blobs: Blobs::new(settings.scratch.blobs(), facts.scratch_bytes / 4),
        scratch: settings.scratch.clone(),
        limits: captures,
        jobs: HashMap::new(),
        pids: HashMap::new(),
        kept: HashMap::new(),
        partials: HashMap::new(),
        sets: HashMap::new(),
        printed: BTreeMap::new(),
        moves: Moves::default(),
        killings: Killings::default(),
        done,
        happened: Vec::new(),
        left: None,
        master: false,
        measuring: false,
    };
    let mut link = Link::Calling(call(facts.clone()));
    let mut children = signal(SignalKind::child())?;
    let mut ending = endings()?;
    let mut measure = interval(MEASURE);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        driver.step(&mut link);
        if let Some(why) = driver.left.take() {
            tracing::info!("leaving: {why}");
            if let Link::Up(mut connection) = link {
                connection.put(0, &Leaving { why });
                let _ = timeout(FAREWELL, connection.finish()).await;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let deadline = driver.machine.deadline().map(|at| began + Duration::from_millis(at.0));
        tokio::select! {
            word = link.next() => match word {
                Word::Welcome(welcome) => {
                    driver.master = welcome.master;
                    let asked = match &link {
                        Link::Up(connection) => driver.at(connection.opened),
                        Link::Calling(_) => driver.now(),
                    };
                    driver.happened.push(Event::AgentConnected { master: welcome.master, asked });
                }
                Word::Frame(frame) => {
                    if let Err(e) = driver.hear(frame, &mut link) {
                        driver.lost(&e);
                        link = Link::Calling(call(facts.clone()));
                    }
                }
                Word::Lost(e) => {
                    driver.lost(&e);
                    link = Link::Calling(call(facts.clone()));
                }
                Word::Refused(why) => {
                    driver.happened.push(Event::EndAsked { why });
                    link = Link::Calling(Box::pin(std::future::pending()));
                }
            },
            _ = children.recv() => driver.reap(),
            Some(done) = finished.recv() => driver.done(done, &mut link),
            _ = measure.tick(), if !(driver.pids.is_empty() && driver.moves.is_empty()) => {
                driver.killings.look();
                driver.tell_moved(&mut link);
                driver.measure();
                driver.tell_all_printed(&mut link);
            }
            _ = look.tick(), if matches!(link, Link::Up(_)) && !driver.master => {
                // An agent that hangs with its node, or can't reach its files, may not know that there is another.
                let newer = launch::read::<AgentAddress>(&settings.site.address());
                if newer.is_ok_and(|agent| agent.epoch > caller.epoch.get()) {
                    driver.lost(&io::Error::other("there is a newer agent"));
                    link = Link::Calling(call(facts.clone()));
                }
            }
            Some(number) = ending.recv() => {
                let why = if guarded() {
                    format!("the batch system or a person ended the proxy ({number})")
                } else {
                    "the starter's guardian was killed".to_owned()
                };
                driver.happened.push(Event::EndAsked { why });
            }
            () = sleep_until(deadline.unwrap_or(began)), if deadline.is_some() => driver.happened.push(Event::TimePassed),
        }
    }
}

/// The names of ending signals, as they come.
fn endings() -> io::Result<mpsc::UnboundedReceiver<&'static str>> {
    let (tell, told) = mpsc::unbounded_channel();
    for number in ENDING_SIGNALS {
        let mut stream = signal(SignalKind::from_raw(number as i32))?;
        let tell = tell.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && tell.send(number.as_str()).is_ok() {} });
    }
    Ok(told)
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Link {
    /// Waits for the next word. Cancel-safe.
    async fn next(&mut self) -> Word {
        match self {
            Link::Calling(call) => match call.await {
                Ok((connection, welcome)) => {
                    *self = Link::Up(connection);
                    Word::Welcome(welcome)
                }
                Err(Refused(why)) => Word::Refused(why),
            },
            Link::Up(connection) => connection.next().await.map_or_else(Word::Lost, Word::Frame),
        }
    }

    fn put<M: Message>(&mut self, route: u64, message: &M) {
        // What is said while there is no connection is not lost: the inventory says it when there is one.
        if let Link::Up(connection) = self {
            connection.put(route, message);
        }
    }
}

impl Driver {
    fn now(&self) -> Time {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> Time {
        Time(millis(moment.saturating_duration_since(self.began)))
    }

    /// Tells the machine what happened and does what it wants, until neither has more.
    fn step(&mut self, link: &mut Link) {
        loop {
            for event in std::mem::take(&mut self.happened) {
                self.machine.handle(self.now(), event);
            }
            while let Some(action) = self.machine.poll_action() {
                self.act(action, link);
            }
            if self.happened.is_empty() {
                break;
            }
        }
        if let Link::Up(connection) = link {
            for ask in self.blobs.ask() {
                connection.put(0, &ask);
            }
        }
    }

    /// The connection is gone.
    fn lost(&mut self, e: &io::Error) {
        tracing::warn!("the connection to the agent ended: {e}");
        self.blobs.lost();
        self.happened.push(Event::AgentLost);
    }

    fn act(&mut self, action: Action<Arc<Prepared>, Assignment>, link: &mut Link) {
        let route = self.key.0;
        match action {
            Action::Start { task, program } => self.start(task.body, program),
            Action::Terminate(id) => self.terminate(id),
            Action::Kill(id) => self.signal_tree(id, Signal::SIGKILL),
            Action::SendInventory { number, queued, running, finished } => {
                self.tell_moved(link);
                link.put(route, &Inventory { queued, running, finished, number });
                let used: Vec<_> = self.meters().filter_map(|(id, meter)| Some((id, meter.last()?))).collect();
                if !used.is_empty() {
                    link.put(route, &Measured { used });
                }
                self.printed.values_mut().for_each(|(_, on_its_way)| *on_its_way = false);
                for set in self.sets.values_mut() {
                    drop_sets(set, |at, all, _| at + 1 < all);
                }
                let running = self.sets.keys().filter(|id| self.machine.result(**id).is_none());
                running.for_each(|id| self.tell_checkpoint(*id, link));
            }
            Action::SendReport { started, results, returned } => {
                let alone = |id: &AttemptId| self.partials.contains_key(id) || self.sets.contains_key(id);
                let (cut_off, whole): (Vec<_>, Vec<_>) = results.into_iter().partition(|result| alone(&result.id));
                let moved = self.moves.news(Instant::now());
                link.put(route, &Report { started, results: whole, returned, moved });
                // Each with its own frame, which all of them together might not fit.
                for result in cut_off {
                    link.put(route, &Report { results: vec![self.with_partial(result)], ..Report::default() });
                }
            }
            Action::Spool(ids) => self.spool(&ids),
            Action::Forget(ids) => self.forget(ids),
            Action::Leave { why } => self.left = Some(why),
        }
    }

    /// Takes in a frame, and those that came with it.
    fn hear(&mut self, frame: Frame, link: &mut Link) -> io::Result<()> {
        let mut next = Some(frame);
        while let Some(frame) = next {
            self.hear_one(&frame, link).map_err(io::Error::other)?;
            next = match link {
                Link::Up(connection) => connection.buffered()?,
                Link::Calling(_) => None,
            };
        }
        Ok(())
    }

    fn hear_one(&mut self, frame: &Frame, link: &mut Link) -> Result<(), WireError> {
        let event = match frame.kind {
            DefineProgram::KIND => {
                let DefineProgram { program, body, load, ad, own } = frame.read()?;
                let demand = Demand { cpus: body.cpus.max(load), memory_mb: body.memory_mb, gpus: body.gpus };
                Event::ProgramDefined { program, demand, body: Arc::new(Prepared::new(body, ad, own)) }
            }
            Assign::KIND => {
                let Assign { attempts, inventory } = frame.read()?;
                let since = self.began.elapsed();
                let task = |body: Assignment| {
                    // From here on counted from our own beginning.
                    let wait = body.wait.map(|wait| wait.since(since));
                    Task { id: body.id, program: body.program, body: Assignment { wait, ..body } }
                };
                Event::Assigned { inventory, tasks: attempts.into_iter().map(task).collect() }
            }
            SlotAd::KIND => {
                self.node.describe(self.scratch.slot_ad(), frame.read::<SlotAd>()?.text);
                return Ok(());
            }
            Acknowledge::KIND => Event::Acknowledged(frame.read::<Acknowledge>()?.ids),
            Recall::KIND => {
                let Recall { count, inventory } = frame.read()?;
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                Event::Recalled { inventory, count }
            }
            Kill::KIND => {
                let Kill { ids, grace_ms, signal: asked } = frame.read()?;
                for id in &ids {
                    if let Some(Job::Running { signal, .. }) = self.jobs.get_mut(id) {
                        *signal = asked;
                    }
                }
                Event::KillAsked { ids, grace: Duration::from_millis(grace_ms) }
            }
            MasterLink::KIND => {
                self.master = frame.read::<MasterLink>()?.up;
                Event::MasterLinkChanged { up: self.master }
            }
            Drain::KIND => Event::DrainAsked { why: frame.read::<Drain>()?.why },
            End::KIND => Event::EndAsked { why: frame.read::<End>()?.why },
            Ping::KIND => {
                let Ping { nonce } = frame.read()?;
                link.put(0, &Pong { nonce });
                return Ok(());
            }
            Pong::KIND => {
                let nonce = frame.read::<Pong>()?.nonce;
                let asked = match link {
                    Link::Up(connection) => connection.answered(nonce),
                    Link::Calling(_) => None,
                };
                match asked {
                    Some(asked) => Event::AgentHeard { asked: self.at(asked) },
                    None => return Ok(()),
                }
            }
            FetchOutput::KIND => {
                self.send_output(&frame.read()?, link);
                return Ok(());
            }
            Seen::KIND => {
                let Seen { id, kind, size } = frame.read()?;
                if let Some(printed) = self.printed.get_mut(&(id, kind.clone())) {
                    *printed = (size, false);
                    // The rest waits until there is more of it, or for the next second.
                    self.tell_printed(id, &kind, PRINTED, link);
                }
                return Ok(());
            }
            CheckpointKept::KIND => {
                let CheckpointKept { id, number } = frame.read()?;
                if let Some(sets) = self.sets.get_mut(&id) {
                    drop_sets(sets, |_, _, set| set.kept.number <= number);
                }
                self.tell_checkpoint(id, link);
                return Ok(());
            }
            BlobChunk::KIND => {
                self.receive(&frame.read()?, link);
                return Ok(());
            }
            BlobMissing::KIND => {
                let BlobMissing { hash, why } = frame.read()?;
                self.blobs.refused(&hash);
                self.fetch_failed(&hash, &why);
                return Ok(());
            }
            // Agents outlive starters' versions: what we don't know is no fault.
            _ => return Ok(()),
        };
        self.happened.push(event);
        Ok(())
    }

    fn start(&mut self, assignment: Assignment, program: Arc<Prepared>) {
        let id = assignment.id;
        let program = program.filled(&assignment.row);
        let Some(files) = &assignment.files else {
            let given = self.given(id, assignment.wait);
            let past = Past::new(assignment.directory, 0);
            let started = given.and_then(|given| self.node.start_in_place(&program, given, past.directory, false));
            return self.started(id, program, None, past, started);
        };
        self.moves.began(id, Instant::now());
        let missing = self.blobs.need(&hashes(files));
        if missing.is_empty() {
            return self.place(assignment, program);
        }
        self.jobs.insert(id, Job::Fetching { assignment, program, missing });
    }

    /// What an attempt is given, or that it is too late for it.
    fn given(&self, id: AttemptId, wait: Option<Wait>) -> Result<Given<'_>, Outcome> {
        let delay = match wait.map(|wait| wait.after(self.began.elapsed())) {
            None => Duration::ZERO,
            Some(Some(wait)) => Duration::from_millis(wait.start_ms),
            Some(None) => return Err(Outcome::Missed),
        };
        Ok(Given { id, delay, gpus: self.machine.gpus_of(id) })
    }

    fn started(
        &mut self,
        id: AttemptId,
        program: Arc<Prepared>,
        place: Option<Place>,
        past: Past,
        started: Result<i32, Outcome>,
    ) {
        match started {
            Ok(pid) => {
                if self.pids.is_empty() {
                    self.killings.begin();
                }
                let meter = Box::new(Meter::new(past.since));
                self.jobs.insert(id, Job::Running { program, place, pid, past, signal: 0, meter });
                self.pids.insert(pid, id);
                if past.checkpoints == 0 {
                    self.happened.push(Event::JobStarted { id });
                }
            }
            Err(outcome) => self.not_started(id, outcome),
        }
    }

    fn not_started(&mut self, id: AttemptId, outcome: Outcome) {
        self.moves.failed(id);
        let result = AttemptResult { id, outcome, usage: Usage::default(), outputs: Vec::new(), kept: None };
        self.happened.push(Event::JobEnded(result));
    }

    /// Takes in a piece of an input file.
    fn receive(&mut self, chunk: &BlobChunk, link: &mut Link) {
        match self.blobs.receive(chunk) {
            Progress::More(ack) => link.put(0, &ack),
            Progress::Complete(ack) => {
                link.put(0, &ack);
                for job in self.jobs.values_mut() {
                    if let Job::Fetching { missing, .. } = job {
                        missing.remove(&chunk.hash);
                    }
                }
                let complete = |job: &Job| matches!(job, Job::Fetching { missing, .. } if missing.is_empty());
                for (id, job) in self.take_jobs(complete) {
                    if let Job::Fetching { assignment, program, .. } = job {
                        debug_assert_eq!(assignment.id, id);
                        self.place(assignment, program);
                    }
                }
            }
            Progress::Failed(why) => self.fetch_failed(&chunk.hash, &why),
            Progress::Stray => {}
        }
    }

    fn fetch_failed(&mut self, hash: &Hash, why: &str) {
        for (id, job) in self.take_jobs(|job| matches!(job, Job::Fetching { missing, .. } if missing.contains(hash))) {
            if let Job::Fetching { assignment, .. } = job {
                self.blobs.release(&hashes(assignment.files.as_deref().unwrap_or_default()));
                self.not_started(id, Outcome::SiteFailed(why.to_owned()));
            }
        }
    }

    fn take_jobs(&mut self, which: impl Fn(&Job) -> bool) -> Vec<(AttemptId, Job)> {
        self.jobs.extract_if(|_, job| which(job)).collect()
    }

    /// Makes a job's scratch directory, from files that are here.
    fn place(&mut self, assignment: Assignment, program: Arc<Prepared>) {
        let (id, files, wait) = (assignment.id, assignment.files.unwrap_or_default(), assignment.wait);
        let paths: HashMap<Hash, PathBuf> = files.iter().map(|file| (file.hash, self.blobs.path(&file.hash))).collect();
        let (directory, done, prepared) = (self.scratch.job(id), self.done.clone(), Arc::clone(&program));
        // What an earlier try left is no input of the user's.
        let inputs = files.iter().filter(|file| !matches!(file.role, FileRole::Kept(_)));
        let bytes = inputs.map(|file| file.size).fold(0, u64::saturating_add);
        self.jobs.insert(id, Job::Placing { program, hashes: hashes(&files), bytes, wait, killed: false });
        tokio::task::spawn_blocking(move || {
            let blob = |file: &FileRef| paths.get(&file.hash).cloned().unwrap_or_default();
            let placed = Place::make(directory, &prepared.program, id, &files, blob);
            // If nobody listens any more, the starter ends.
            let _ = done.send(Done::Placed(id, placed));
        });
    }

    fn done(&mut self, done: Done, link: &mut Link) {
        match done {
            Done::Placed(id, placed) => {
                let Some(Job::Placing { program, hashes, bytes, wait, killed }) = self.jobs.remove(&id) else {
                    return;
                };
                self.kept.insert(id, BTreeMap::new());
                match placed {
                    _ if killed => self.not_started(id, Outcome::Killed),
                    Ok(place) => {
                        self.moves.came(id, Instant::now());
                        let given = self.given(id, wait);
                        let started = given.and_then(|given| self.node.start_in_scratch(&program, given, &place));
                        self.started(id, program, Some(place), Past::new(None, bytes), started);
                    }
                    Err(outcome) => self.not_started(id, outcome),
                }
                // Standard input is opened by now.
                self.blobs.release(&hashes);
            }
            Done::Measured(used) => {
                self.measuring = false;
                for (id, used) in used {
                    if let Some(Job::Running { meter, past, .. }) = self.jobs.get_mut(&id) {
                        meter.read(past.with(used));
                    }
                }
                self.tell_usage(link);
            }
            Done::Spooled(kept, over) => self.happened.push(Event::Spooled { kept, over }),
            Done::Checkpointed(id, place, set) => self.checkpointed(id, place, set, link),
            Done::Collected(left) => self.collected(*left),
            Done::Sent(program, place, left, files) => self.send(&program, place, left, &files),
        }
    }

    fn collected(&mut self, left: Left) {
        let Left { result, paths, partial, set } = left;
        self.jobs.remove(&result.id);
        if let Some(set) = set {
            self.sets.entry(result.id).or_default().push(set);
        }
        self.keep_partial(result.id, partial);
        self.kept.insert(result.id, paths);
        self.happened.push(Event::JobEnded(result));
    }

    /// Sends outputs of a job to their URLs, unless it is being killed.
    fn send(&mut self, program: &Prepared, place: Place, left: Box<Left>, files: &[(PathBuf, OsString)]) {
        let id = left.result.id;
        if self.machine.is_doomed(id) {
            return self.sent(place, *left, false);
        }
        let given = Given { id, delay: Duration::ZERO, gpus: self.machine.gpus_of(id) };
        match self.node.send(program, given, &place, files) {
            Ok(pid) => {
                self.jobs.insert(id, Job::Sending { pid, place, left });
                self.pids.insert(pid, id);
            }
            Err(e) => {
                let why = format!("its outputs can not be sent: {}", reason(&e));
                let _ = std::fs::write(scratch::unsent(&place.work()), why);
                self.sent(place, *left, false);
            }
        }
    }

    /// Outputs of a job were sent to their URLs, all of them or not.
    fn sent(&mut self, place: Place, mut left: Left, all: bool) {
        if !all {
            let why = std::fs::read_to_string(scratch::unsent(&place.work())).ok();
            left.result.outcome = match why {
                Some(why) => Outcome::OutputFailed(why.split_whitespace().collect::<Vec<_>>().join(" ")),
                None => Outcome::SiteFailed("it was interrupted as it sent its outputs".to_owned()),
            };
            left.result.outputs.clear();
            left.partial = scratch::endings(&place.captures());
        }
        self.collected(left);
    }

    /// Puts results aside at the site.
    fn spool(&self, ids: &[AttemptId]) {
        let results = ids.iter().filter_map(|id| {
            let result = self.with_partial(self.machine.result(*id)?.clone());
            let paths = match &result.kept {
                Some(_) => self.sets.get(id).and_then(|sets| sets.last()).map(|set| &set.paths),
                None => self.kept.get(id),
            };
            let paths = paths.cloned().unwrap_or_default();
            Some((result, paths))
        });
        let results: Vec<_> = results.collect();
        let (site, who, done) = (self.site.clone(), self.who.clone(), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let all = results.len();
            // The session's end removes its directory: then there is nobody who wants them.
            let over = std::fs::metadata(&site.0).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            let kept = if over { Ok(Vec::new()) } else { spool::put_aside(&site, &who, results) };
            match &kept {
                Ok(kept) => {
                    tracing::info!("{} of {all} results are put aside in {}", kept.len(), site.spool().display())
                }
                Err(e) => tracing::warn!("results can't be put aside in {}: {e}", site.spool().display()),
            }
            let _ = done.send(Done::Spooled(kept.unwrap_or_default(), over));
        });
    }

    /// These results are safe: what they left here goes.
    fn forget(&mut self, ids: Vec<AttemptId>) {
        for id in &ids {
            self.partials.remove(id);
            self.sets.remove(id);
        }
        let kept = ids.into_iter().filter(|id| self.kept.remove(id).is_some());
        let directories: Vec<PathBuf> = kept.map(|id| self.scratch.job(id)).collect();
        if !directories.is_empty() {
            tokio::task::spawn_blocking(move || {
                for directory in directories {
                    if let Err(e) = scratch::remove_tree(&directory) {
                        tracing::warn!("cannot remove {}: {e}", directory.display());
                    }
                }
            });
        }
    }

    /// Answers with the pieces asked for.
    fn send_output(&mut self, asked: &FetchOutput, link: &mut Link) {
        let (route, id) = (self.key.0, asked.id);
        let number = asked.kept;
        let lost = |why: String| OutputLost { id, kind: asked.kind.clone(), why, kept: number };
        let paths = match number {
            0 => self.kept.get(&id),
            _ => {
                let mut sets = self.sets.get(&id).into_iter().flatten();
                sets.find(|set| set.kept.number == number).map(|set| &set.paths)
            }
        };
        let Some(path) = paths.and_then(|paths| paths.get(&asked.kind)) else {
            return link.put(route, &lost("the starter doesn't hold it".into()));
        };
        let end = asked.offset.saturating_add(asked.length.min(WINDOW));
        let mut offset = asked.offset;
        while offset < end {
            let length = usize::try_from(end - offset).map_or(CHUNK, |left| left.min(CHUNK));
            match scratch::piece(path, offset, length) {
                Ok(data) => link.put(route, &OutputChunk { id, kind: asked.kind.clone(), offset, data, kept: number }),
                Err(e) => return link.put(route, &lost(reason(&e))),
            }
            offset += length as u64;
        }
    }

    /// A result whose attempt was cut off, with what it wrote.
    fn with_partial(&self, result: AttemptResult) -> AttemptResult {
        if !result.outcome.is_cut_off() {
            return result;
        }
        let outputs = self.partials.get(&result.id).cloned().unwrap_or_else(|| result.outputs.clone());
        let kept = self.sets.get(&result.id).and_then(|sets| sets.last()).map(|set| set.kept.clone());
        AttemptResult { outputs, kept, ..result }
    }

    fn keep_partial(&mut self, id: AttemptId, outputs: Vec<Output>) {
        let bytes = |outputs: &[Output]| outputs.iter().filter_map(|o| o.inline.as_ref()).map(Vec::len).sum::<usize>();
        let held: usize = self.partials.values().map(|outputs| bytes(outputs)).sum();
        if !outputs.is_empty() && held + bytes(&outputs) <= PARTIALS {
            self.partials.insert(id, outputs);
        }
    }

    fn reap(&mut self) {
        let mut any = false;
        while let Some(pid) = tree::peek_ended() {
            any = true;
            let id = self.pids.remove(&pid);
            if id.is_some() {
                // As long as its leader is not reaped, the group's number is nobody else's.
                tree::signal(-pid, Signal::SIGKILL);
            }
            if let (Ok(Some(ended)), Some(id)) = (tree::reap(pid), id) {
                self.ended(id, &ended);
            }
        }
        if any {
            self.kill_strays();
        }
    }

    fn ended(&mut self, id: AttemptId, ended: &tree::Ended) {
        let (program, place, past, meter) = match self.jobs.remove(&id) {
            Some(Job::Running { program, place, past, meter, .. }) => (program, place, past, meter),
            Some(Job::Sending { place, left, .. }) => return self.sent(place, *left, ended.status.success()),
            _ => return,
        };
        let past = past.and(ended, &meter);
        let code = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        let (outcome, how) = match (ended.status.code(), ended.status.signal()) {
            (Some(number), _) => (Outcome::Exited(code(number)), format!("it exited with {number}")),
            (None, number) => {
                let number = number.unwrap_or(0);
                (Outcome::Signaled(code(number)), format!("signal {number} ended it"))
            }
        };
        let is_checkpoint = program.program.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.end.is(&outcome));
        // The signal may turn out to be the batch system's, and the attempt to be cut off.
        let doomed = self.machine.is_doomed(id);
        if is_checkpoint && !doomed {
            return self.checkpoint(id, program, place, Past { checkpoints: past.checkpoints + 1, ..past });
        }
        let fails = outcome != Outcome::Exited(program.program.success);
        let killed = !doomed && fails && KILLED.contains(&outcome) && self.killings.are_new();
        let outcome = if killed { self.out_of_memory(past.used.peak_kib) } else { outcome };
        let cut_off = doomed || killed || outcome == Outcome::Signaled(Signal::SIGTERM as u8);
        let mut result = AttemptResult { id, outcome, usage: past.used, outputs: Vec::new(), kept: None };
        let Some(place) = place else {
            self.node.forget(id);
            let captures = program.captures_in_place(id);
            scratch::cut_all(&captures, self.limits.0);
            if cut_off {
                self.keep_partial(id, scratch::endings(&captures));
            }
            return self.happened.push(Event::JobEnded(result));
        };
        self.jobs.insert(id, Job::Collecting);
        let (done, limits, scratch) = (self.done.clone(), self.limits, self.scratch.0.clone());
        tokio::task::spawn_blocking(move || {
            let prepared = program;
            let program = &prepared.program;
            let set = if cut_off {
                let checkpoint = program.checkpoint.as_ref().filter(|_| is_checkpoint);
                place.keep(program, id, past.checkpoints + 1, checkpoint, false, limits.1)
            } else {
                Ok(None)
            };
            let set = set.unwrap_or_else(|why| {
                tracing::warn!(%id, ?why, "nothing of it is kept for the next try");
                None
            });
            if doomed || killed {
                let partial = scratch::endings(&place.captures());
                let _ = done.send(Done::Collected(Box::new(Left { result, paths: BTreeMap::new(), partial, set })));
                return;
            }
            let well = result.outcome == Outcome::Exited(program.success);
            result.usage.disk_kib = result.usage.disk_kib.max(usage::kib_below(&place.work()));
            let mut left = place.collect(program, id, &how, limits, well);
            if !well && facts::free_bytes(&scratch) < FULL {
                let text = format!("the node's scratch space is full, {} ({how})", scratch.display());
                left.fault.get_or_insert(Outcome::SiteFailed(text));
            }
            let partial =
                if cut_off || left.fault.is_some() { scratch::endings(&place.captures()) } else { Vec::new() };
            let whole = left.fault.is_none();
            result.outcome = left.fault.unwrap_or(result.outcome);
            result.outputs = left.outputs;
            let ended = Box::new(Left { result, paths: left.paths, partial, set });
            let _ = done.send(match whole && !left.sent.is_empty() {
                true => Done::Sent(prepared, place, ended, left.sent),
                false => Done::Collected(ended),
            });
        });
    }

    /// The outcome of a job that the kernel killed for want of memory.
    fn out_of_memory(&self, peak_kib: u64) -> Outcome {
        let used = peak_kib >> 10;
        Outcome::OutOfMemory(match self.killings.limit_mb() {
            Some(limit) => format!(
                "Job has gone over cgroup memory limit of {limit} megabytes. Last measured usage: {used} megabytes."
            ),
            None => format!(
                "The node's memory was full, and the kernel killed the job. Last measured usage: {used} megabytes."
            ),
        })
    }

    /// Kills what jobs left behind outside of their groups: it has become our child.
    fn kill_strays(&mut self) {
        for pid in tree::own_children() {
            if self.pids.contains_key(&pid) {
                continue;
            }
            let leftover = match tree::attempt_of(pid) {
                Some(id) => !matches!(self.jobs.get(&id), Some(Job::Running { .. } | Job::Sending { .. })),
                None => self.pids.is_empty(),
            };
            if leftover {
                for pid in tree::descendants(pid) {
                    tree::signal(pid, Signal::SIGKILL);
                }
                tree::signal(pid, Signal::SIGKILL);
            }
        }
    }

    /// Asks a job to end: all of its processes by SIGTERM, or its program alone by the signal that it wants.
    fn terminate(&mut self, id: AttemptId) {
        if let Some(Job::Running { program, pid, signal, .. }) = self.jobs.get(&id) {
            let wanted = if *signal == 0 { program.program.killing.signal } else { *signal };
            if let Ok(signal) = Signal::try_from(i32::from(wanted))
                && signal != Signal::SIGTERM
            {
                return tree::signal(*pid, signal);
            }
        }
        self.signal_tree(id, Signal::SIGTERM);
    }

    /// Signals a job's group, and what descends from the job outside of it.
    fn signal_tree(&mut self, id: AttemptId, signal: Signal) {
        let leader = match self.jobs.get_mut(&id) {
            Some(Job::Running { pid, .. } | Job::Sending { pid, .. }) => *pid,
            Some(Job::Placing { killed, .. }) => return *killed = true,
            Some(Job::Fetching { assignment, .. }) => {
                let hashes = hashes(assignment.files.as_deref().unwrap_or_default());
                self.jobs.remove(&id);
                self.blobs.release(&hashes);
                return self.not_started(id, Outcome::Killed);
            }
            Some(Job::Checkpointing { .. } | Job::Collecting) | None => return,
        };
        let own = |pid: &i32| !self.pids.contains_key(pid) && tree::attempt_of(*pid) == Some(id);
        let strays: Vec<i32> = tree::own_children().into_iter().filter(own).collect();
        let below = strays.iter().chain([&leader]).flat_map(|pid| tree::descendants(*pid));
        let mut others: Vec<i32> = strays.iter().copied().chain(below).collect();
        others.retain(|pid| getpgid(Some(Pid::from_raw(*pid))).is_ok_and(|group| group.as_raw() != leader));
        tree::signal(-leader, signal);
        for pid in others {
            tree::signal(pid, signal);
        }
    }
}

fn hashes(files: &[FileRef]) -> HashSet<Hash> {
    files.iter().map(|file| file.hash).collect()
}
