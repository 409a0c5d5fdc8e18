//! What the agent is: the machine, the table, the connections, and what is done for each action.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use minicbor::Encode;
use nix::sys::resource::{UsageWho, getrusage};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;
use tokio_rustls::rustls::ServerConfig;
use vo_batch::{BatchId, Detected, Kind, ProxyRequest, Row, Status, StatusError, SubmitReply, System};
use vo_core::ids::{ProxyId, StarterKey};
use vo_core::proxy::{self, Action, Config, Event, Link, Note, Proxies, RowStatus, State, SubmitAnswer, Topic};
use vo_core::time::Time;
use vo_net::tls::{self, SiteAuthority};
use vo_wire::link::{
    AgentHello, AgentRefused, AgentStats, Configure, ProxyInfo, ProxyReport, ProxyState, Shutdown, ShutdownDone,
    SiteNote, StarterDown, StarterUp,
};
use vo_wire::node::{End, MasterLink, Welcome};

use crate::connect::{Place, explain, program};
use crate::launch::{AgentAddress, Launch, SiteDir};

use super::blobs::Blobs;
use super::command::{Environment, Output, run_argv};
use super::outbox::Outbox;
use super::starters::{self, Line};
use super::table::{self, Notice, Table};

/// For status, accounting and cancel commands.
const COMMAND: Duration = Duration::from_secs(60);

/// For submit commands: sbatch itself tries again for 120 s where the controller has too many jobs.
const SUBMIT: Duration = Duration::from_secs(150);

/// For the versions of batch systems.
const PROBE: Duration = Duration::from_secs(30);

/// Wait between two reports of what the agent used.
const STATS: Duration = Duration::from_secs(60);

/// Bytes of a batch job's output that a note quotes.
const TAIL: usize = 1000;

/// How long the starters may take to leave after the batch system has agreed that nothing runs.
const LEAVING: Duration = Duration::from_secs(5);

/// What the master told, and what follows from it.
pub(super) struct Setup {
    pub(super) configure: Configure,
    pub(super) authority: SiteAuthority,
    pub(super) system: System,
    version: String,
    environment: Rc<Environment>,
    prefix: String,
}

/// What holds for the life of the agent once a master has configured it.
pub(super) struct Life {
    pub(super) epoch: u64,
    /// Time of day of the machine's zero, and the machine's time when the clock began.
    base: u64,
    began: (Time, Instant),
    port: u16,
}

/// The master's stream.
pub(super) struct Master {
    pub(super) out: Outbox,
    pub(super) epoch: u64,
    pub(super) serial: u64,
    /// Asks the stream's task to end, and hears that it did.
    pub(super) close: Rc<Notify>,
    pub(super) done: Rc<Notify>,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Submit,
    Status,
    Accounting,
    Cancel,
}

/// The agent. One thread; no borrow is held while it waits.
pub(super) struct Agent {
    root: PathBuf,
    pub(super) dir: SiteDir,
    program: String,
    user: String,
    lease: RefCell<File>,
    pub(super) setup: RefCell<Option<Rc<Setup>>>,
    pub(super) life: OnceCell<Life>,
    pub(super) configuring: tokio::sync::Mutex<()>,
    machine: RefCell<Option<Proxies>>,
    table: RefCell<Option<Table>>,
    durable: Cell<u64>,
    held: RefCell<VecDeque<(u64, Action)>>,
    pub(super) tls: RefCell<Option<Arc<ServerConfig>>>,
    pub(super) master: RefCell<Option<Master>>,
    pub(super) starters: RefCell<BTreeMap<StarterKey, Line>>,
    pub(super) blobs: Blobs,
    pub(super) heard: Cell<Instant>,
    pub(super) serial: Cell<u64>,
    calls: Cell<[u64; 4]>,
    said_calls: Cell<[u64; 4]>,
    status_answered: Cell<Option<Instant>>,
    disk_full: Cell<bool>,
    closing: Cell<bool>,
    wake: Notify,
    closed: Notify,
    starter_left: Notify,
    end: Notify,
}

/// Why the agent can't work here.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    fn new(message: impl ToString) -> Refusal {
        Refusal {
            message: message.to_string(),
            hint: None,
        }
    }

    pub(super) fn frame(&self) -> AgentRefused {
        AgentRefused {
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The batch jobs of this session and site, and no others, have names that begin so.
fn prefix(configure: &Configure) -> String {
    let id: String = configure
        .session_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(16)
        .collect();
    let site = ring::digest::digest(&ring::digest::SHA256, configure.site.as_bytes());
    let site: String = site.as_ref().iter().take(2).map(|byte| format!("{byte:02x}")).collect();
    format!("vo-{id}-{site}-")
}

/// Writes a file of ours, 0600, whole or not at all.
fn write_file<T: Encode<()>>(path: &Path, content: &T) -> io::Result<()> {
    let bytes = minicbor::to_vec(content).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(&bytes)?;
    fs::rename(&aside, path)
}

impl Agent {
    /// An agent that waits for its first master.
    pub(super) fn new(place: &Place, lease: File) -> io::Result<Agent> {
        let dir = place.dir();
        let mut program = program()?;
        if program.file_name().is_none_or(|name| name != "vo-agent") {
            // Under its own name it would be something else.
            let link = dir.join("vo-agent");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&program, &link)?;
            program = link;
        }
        let text = |path: PathBuf| {
            path.into_os_string()
                .into_string()
                .map_err(|path| io::Error::other(format!("{} is not UTF-8", path.display())))
        };
        let program = text(program)?;
        text(dir.clone())?;
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid)
            .ok()
            .flatten()
            .map_or_else(|| uid.to_string(), |user| user.name);
        Ok(Agent {
            root: place.root.clone(),
            dir: SiteDir(dir),
            program,
            user,
            lease: RefCell::new(lease),
            setup: RefCell::default(),
            life: OnceCell::new(),
            configuring: tokio::sync::Mutex::default(),
            machine: RefCell::default(),
            table: RefCell::default(),
            durable: Cell::default(),
            held: RefCell::default(),
            tls: RefCell::default(),
            master: RefCell::default(),
            starters: RefCell::default(),
            blobs: Blobs::default(),
            heard: Cell::new(Instant::now()),
            serial: Cell::default(),
            calls: Cell::default(),
            said_calls: Cell::default(),
            status_answered: Cell::default(),
            disk_full: Cell::default(),
            closing: Cell::default(),
            wake: Notify::new(),
            closed: Notify::new(),
            starter_left: Notify::new(),
            end: Notify::new(),
        })
    }

    /// Waits until the agent is to end.
    pub(super) async fn ended(&self) {
        self.end.notified().await;
    }

    /// Lets the agent end.
    pub(super) fn quit(&self) {
        self.end.notify_one();
    }

    pub(super) fn close_table(&self) {
        if let Some(table) = self.table.take() {
            table.close();
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.life.get().map_or(0, |life| life.epoch)
    }

    pub(super) fn now(&self) -> Time {
        self.at(Instant::now())
    }

    /// The machine's time of a moment.
    pub(super) fn at(&self, moment: Instant) -> Time {
        self.life.get().map_or(Time(0), |life| {
            let (time, instant) = life.began;
            time + moment.saturating_duration_since(instant)
        })
    }

    pub(super) fn lease_time(&self) -> Duration {
        self.setup.borrow().as_ref().map_or(Duration::from_secs(600), |s| {
            Duration::from_millis(s.configure.limits.lease_ms)
        })
    }

    // ---- configuration

    /// Takes in what a master says at its connection. The first one sets everything up.
    pub(super) async fn configure(self: &Rc<Self>, configure: Configure) -> Result<(), Refusal> {
        let _one = self.configuring.lock().await;
        if self.is_closing() {
            return Err(Refusal::new("the session is ending here"));
        }
        let authority = SiteAuthority::from_pem(&configure.authority).map_err(Refusal::new)?;
        let identity = authority.issue_agent().map_err(Refusal::new)?;
        *self.tls.borrow_mut() = Some(tls::server_config(&identity).map_err(Refusal::new)?);
        let old = self.setup.borrow().clone();
        let setup = match old {
            Some(old) if old.configure.proxies.batch == configure.proxies.batch => Setup {
                system: old.system.clone(),
                version: old.version.clone(),
                environment: Rc::clone(&old.environment),
                prefix: old.prefix.clone(),
                configure,
                authority,
            },
            Some(_)
                if self
                    .machine
                    .borrow()
                    .as_ref()
                    .is_some_and(|m| m.views().any(|view| view.state != State::Exit)) =>
            {
                return Err(Refusal::new(
                    "the batch system can't be changed while proxies of the old one are there",
                ));
            }
            _ => {
                let (system, version, environment) = self.detect(configure.proxies.batch.as_deref()).await?;
                Setup {
                    system,
                    version,
                    environment: Rc::new(environment),
                    prefix: prefix(&configure),
                    configure,
                    authority,
                }
            }
        };
        let limits = setup.configure.limits.clone();
        let nodes = if setup.system.kind() == Kind::Fork {
            1
        } else {
            setup.configure.proxies.nodes.max(1)
        };
        let setup = Rc::new(setup);
        *self.setup.borrow_mut() = Some(Rc::clone(&setup));
        if self.life.get().is_none() {
            self.begin(&setup).await?;
        }
        self.heard.set(Instant::now());
        self.tell(Event::Configured(Config {
            nodes,
            queued_permille: limits.queued_permille,
            queued_base: limits.queued_base,
            status: Duration::from_millis(limits.status_ms),
            lease: Duration::from_millis(limits.lease_ms),
        }));
        self.wake.notify_one();
        Ok(())
    }

    async fn detect(&self, wanted: Option<&str>) -> Result<(System, String, Environment), Refusal> {
        let system = |kind| System::new(kind, &self.program, &self.dir.0.join("fork").to_string_lossy());
        let wanted = wanted.map(str::parse::<Kind>).transpose().map_err(Refusal::new)?;
        if wanted == Some(Kind::Fork) {
            return Ok((
                system(Kind::Fork),
                env!("CARGO_PKG_VERSION").to_owned(),
                Environment::own(),
            ));
        }
        let environment = Environment::login().await;
        let probe = ["/bin/sh", "-c", vo_batch::PROBE].map(str::to_owned);
        let output = run_argv(&probe, &environment, b"", PROBE).await;
        let found =
            Detected::parse(&output.raw()).map_err(|e| Refusal::new(format!("cannot find the batch system: {e}")))?;
        let kind = match wanted {
            Some(kind) => kind,
            None => found.choose().map_err(|e| Refusal {
                message: e.to_string(),
                hint: Some(
                    "if a login shell finds it, set `batch`; to use this machine's own cores, set `batch = \"fork\"`"
                        .to_owned(),
                ),
            })?,
        };
        let version = found
            .systems
            .into_iter()
            .find(|found| found.kind == kind)
            .map(|found| found.version);
        let version = version.ok_or_else(|| Refusal {
            message: format!("the commands of {kind} are not on the PATH of a login shell"),
            hint: Some("set `batch` to what this gateway has, or leave it out".to_owned()),
        })?;
        if kind == Kind::GridEngine && !environment.has("SGE_ROOT") {
            tracing::warn!("SGE_ROOT is not set in a login shell");
        }
        Ok((system(kind), version, environment))
    }

    /// Opens the table, listens, and lets the machine recover.
    async fn begin(self: &Rc<Self>, setup: &Setup) -> Result<(), Refusal> {
        let failed = |what: &str, e: &io::Error| Refusal::new(format!("cannot {what}: {}", explain(e)));
        for name in ["tags", "proxies", "blobs"] {
            fs::create_dir_all(self.dir.0.join(name)).map_err(|e| failed(&format!("make {name}/"), &e))?;
        }
        let path = self.dir.table();
        let (table, found, notices) = tokio::task::spawn_blocking(move || table::open(&path, unix_ms()))
            .await
            .map_err(Refusal::new)?
            .map_err(|e| {
                let source = std::error::Error::source(&e).and_then(|e| e.downcast_ref::<io::Error>());
                Refusal::new(source.map_or_else(|| e.to_string(), |source| format!("{e}: {}", explain(source))))
            })?;
        let base = found.base.unwrap_or_default();
        // A table that is begun anew must not take the batch jobs of a lost one for its own.
        let prefix = format!("{}{:06x}-", setup.prefix, base & 0xff_ffff);
        let mut machine = Proxies::new(&prefix, random().map_err(|e| failed("start", &e))?);
        for record in &found.records {
            machine.apply(record);
        }
        // A clock that was set back must not make times of the table lie ahead.
        let latest = machine.views().map(|view| view.since.0).max().unwrap_or(0);
        let now = Time(unix_ms().saturating_sub(base).max(latest));
        let old: Option<AgentAddress> = crate::launch::read(&self.dir.address()).ok();
        let old_port = old
            .as_ref()
            .and_then(|old| old.addresses.first()?.rsplit(':').next()?.parse().ok());
        let listener = starters::bind(setup.configure.limits.ports, old_port).await;
        let listener = listener.map_err(|e| failed("listen for starters", &e))?;
        let port = listener
            .local_addr()
            .map_err(|e| failed("listen for starters", &e))?
            .port();
        let address = AgentAddress {
            epoch: found.epoch,
            addresses: starters::addresses(port, setup.system.kind() == Kind::Fork),
        };
        write_file(&self.dir.address(), &address).map_err(|e| failed("write agent.addr", &e))?;
        self.write_lease(found.epoch)
            .map_err(|e| failed("write the lease", &e))?;

        let life = Life {
            epoch: found.epoch,
            base,
            began: (now, Instant::now()),
            port,
        };
        tracing::info!(
            epoch = life.epoch,
            port,
            batch = setup.system.kind().name(),
            version = setup.version,
            "begins"
        );
        // Set once: `configuring` is held.
        let _ = self.life.set(life);
        *self.machine.borrow_mut() = Some(machine);
        *self.table.borrow_mut() = Some(table);
        self.tell(Event::Recovered);
        tokio::task::spawn_local(starters::listen(Rc::clone(self), listener));
        tokio::task::spawn_local(Rc::clone(self).take_notices(notices));
        tokio::task::spawn_local(Rc::clone(self).keep_time());
        tokio::task::spawn_local(Rc::clone(self).say_stats());
        Ok(())
    }

    fn write_lease(&self, epoch: u64) -> io::Result<()> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let text = format!(
            "process {} on {}, boot {}, epoch {epoch}\n",
            std::process::id(),
            host(),
            boot.trim()
        );
        let mut file = self.lease.borrow_mut();
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }

    // ---- the machine and its records

    /// Tells the machine, and does what it says as far as it is durable.
    pub(super) fn tell(self: &Rc<Self>, event: Event) {
        let now = self.now();
        tracing::debug!(?event);
        let records = {
            let mut machine = self.machine.borrow_mut();
            let Some(machine) = machine.as_mut() else {
                return;
            };
            machine.handle(now, event);
            let mut held = self.held.borrow_mut();
            held.extend(std::iter::from_fn(|| machine.poll_action()));
            std::iter::from_fn(|| machine.poll_record()).collect::<Vec<_>>()
        };
        if !records.is_empty() {
            for record in &records {
                tracing::info!(?record);
            }
            if let Some(table) = self.table.borrow().as_ref() {
                table.append(records);
            }
        }
        self.release();
        self.wake.notify_one();
    }

    fn release(self: &Rc<Self>) {
        loop {
            let action = {
                let mut held = self.held.borrow_mut();
                match held.front() {
                    Some((after, _)) if *after <= self.durable.get() => held.pop_front(),
                    _ => None,
                }
            };
            let Some((_, action)) = action else {
                return;
            };
            tracing::debug!(?action);
            self.perform(action);
        }
    }

    async fn take_notices(self: Rc<Self>, mut notices: tokio::sync::mpsc::UnboundedReceiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Durable(records, large) => {
                    self.durable.set(records);
                    if self.disk_full.take() {
                        self.note("the session's directory could not be written", None, true, false);
                    }
                    if large
                        && let (Some(life), Some(machine), Some(table)) =
                            (self.life.get(), &*self.machine.borrow(), &*self.table.borrow())
                    {
                        table.snapshot(life.base, life.epoch, machine.snapshot());
                    }
                    self.release();
                }
                Notice::Full(why) => {
                    if !self.disk_full.replace(true) {
                        tracing::error!("{why}");
                        self.note(
                            &why,
                            Some("remove files at the site; nothing is submitted until then"),
                            false,
                            true,
                        );
                    }
                }
                Notice::Failed(e) => {
                    tracing::error!("{e}");
                    if let Some(master) = &*self.master.borrow() {
                        master.out.say(0, &Refusal::new(&e).frame());
                    }
                    self.quit();
                    return;
                }
            }
        }
    }

    fn note(&self, message: &str, hint: Option<&str>, resolved: bool, blocks: bool) {
        if let Some(master) = &*self.master.borrow() {
            master.out.say(
                0,
                &SiteNote {
                    resolved,
                    message: message.to_owned(),
                    hint: hint.map(str::to_owned),
                    blocks,
                },
            );
        }
    }

    /// Wakes the machine at its deadlines, and looks after the master's heartbeat.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let deadline = self.machine.borrow().as_ref().and_then(Proxies::deadline);
            let wait = deadline.map(|at| at.since(self.now()));
            let patience = self.heartbeat_patience();
            let silence = patience.map(|patience| patience.saturating_sub(self.heard.get().elapsed()));
            let never = Duration::from_secs(1 << 30);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(never)), if wait.is_some() => self.tell(Event::DeadlinePassed),
                () = tokio::time::sleep(silence.unwrap_or(never)), if silence.is_some() => {
                    if patience.is_some_and(|patience| self.heard.get().elapsed() >= patience) {
                        tracing::warn!("no word from the master for {patience:?}: the session ends here");
                        tokio::task::spawn_local(Rc::clone(&self).shut_down(Shutdown { patience_ms: ms(COMMAND * 10) }));
                    }
                }
            }
        }
    }

    /// How long the master may be silent before the proxies are removed; none is for ever.
    fn heartbeat_patience(&self) -> Option<Duration> {
        let setup = self.setup.borrow();
        let limits = &setup.as_ref()?.configure.limits;
        let enough = limits.shutdown_on_missed && limits.heartbeat_ms > 0 && !self.is_closing();
        enough.then(|| {
            Duration::from_millis(
                limits
                    .heartbeat_ms
                    .saturating_mul(limits.missed_heartbeats.max(1).into()),
            )
        })
    }

    // ---- actions

    fn perform(self: &Rc<Self>, action: Action) {
        let Some(setup) = self.setup.borrow().clone() else {
            return;
        };
        let agent = Rc::clone(self);
        match action {
            Action::SubmitProxy { proxy, attempt, token } => {
                tokio::task::spawn_local(async move {
                    let answer = agent.submit(&setup, proxy, &token).await;
                    tracing::info!(%proxy, attempt, ?answer, "submitted");
                    agent.tell(Event::SubmitAnswered { proxy, attempt, answer });
                });
            }
            Action::QueryStatus => {
                tokio::task::spawn_local(async move {
                    let argv = setup.system.status_all(&agent.user);
                    let output = agent.call(Call::Status, &setup, &argv, b"", COMMAND).await;
                    let event = match setup.system.parse_status(&setup.prefix, &output.raw()) {
                        Ok(rows) => {
                            agent.status_answered.set(Some(Instant::now()));
                            Event::StatusListed(rows.into_iter().map(row).collect())
                        }
                        Err(e) => {
                            tracing::warn!("status: {e}");
                            Event::StatusFailed(e.to_string())
                        }
                    };
                    agent.tell(event);
                });
            }
            Action::QueryAccounting => {
                tokio::task::spawn_local(async move {
                    let event = agent.accounting(&setup).await;
                    agent.tell(event);
                });
            }
            Action::CancelProxies(ids) => {
                tokio::task::spawn_local(async move {
                    let ids: Vec<BatchId> = ids.into_iter().map(BatchId).collect();
                    let mut refusal = None;
                    for argv in setup.system.cancel(&ids) {
                        let output = agent.call(Call::Cancel, &setup, &argv, b"", COMMAND).await;
                        if let vo_batch::CancelReply::Refused { message, .. } = setup.system.parse_cancel(&output.raw())
                        {
                            tracing::warn!("cancel: {message}");
                            refusal = Some(message);
                        }
                    }
                    agent.tell(Event::CancelAnswered(refusal));
                });
            }
            Action::ReadTags => {
                let dir = self.dir.clone();
                tokio::task::spawn_local(async move {
                    let submitted: Vec<ProxyId> = match &*agent.machine.borrow() {
                        Some(machine) => machine
                            .views()
                            .filter(|v| v.state != State::Exit && v.batch_id.is_some())
                            .map(|v| v.id)
                            .collect(),
                        None => Vec::new(),
                    };
                    let read = tokio::task::spawn_blocking(move || read_tags(&dir, &submitted)).await;
                    let event = match read {
                        Ok(Ok((tags, exits))) => Event::TagsListed { tags, exits },
                        Ok(Err(e)) => {
                            tracing::warn!("tags: {e}");
                            Event::TagsFailed
                        }
                        Err(_) => Event::TagsFailed,
                    };
                    agent.tell(event);
                });
            }
            Action::MakeTags(proxy) => {
                let nodes = self.nodes();
                self.on_disk(move |dir| make_tags(dir, proxy, nodes));
            }
            Action::CleanProxy(proxy) => self.on_disk(move |dir| clean(dir, proxy)),
            Action::RemoveFiles(proxy) => self.on_disk(move |dir| remove_tree(&dir.proxy(proxy))),
            Action::Welcome(key) => self.welcome(key),
            Action::EndStarter(key, why) => {
                if let Some(line) = self.starters.borrow().get(&key) {
                    line.out.say(key.0, &End { why });
                }
            }
            Action::StarterDown { key, gone, why } => {
                if let Some(master) = &*self.master.borrow() {
                    master.out.say(0, &StarterDown { key, gone, why });
                }
            }
            Action::ReportProxies(ids) => self.report(|id| ids.contains(&id)),
            Action::ReportNote(note) => {
                tokio::task::spawn_local(async move {
                    let frame = agent.site_note(&note).await;
                    tracing::warn!(?frame);
                    if let Some(master) = &*agent.master.borrow() {
                        master.out.say(0, &frame);
                    }
                });
            }
            Action::ShutdownComplete => self.closed.notify_one(),
        }
    }

    /// Changes files; what fails is only logged, since nothing depends on it.
    fn on_disk(&self, work: impl FnOnce(&SiteDir) -> io::Result<()> + Send + 'static) {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = work(&dir) {
                tracing::warn!("files: {e}");
            }
        });
    }

    async fn call(&self, call: Call, setup: &Setup, argv: &[String], stdin: &[u8], limit: Duration) -> Output {
        let mut calls = self.calls.get();
        if let Some(count) = calls.get_mut(call as usize) {
            *count += 1;
        }
        self.calls.set(calls);
        tracing::info!(?call, "{}", argv.first().map_or("", String::as_str));
        run_argv(argv, &setup.environment, stdin, limit).await
    }

    fn nodes(&self) -> u32 {
        let setup = self.setup.borrow();
        setup.as_ref().map_or(1, |s| {
            if s.system.kind() == Kind::Fork {
                1
            } else {
                s.configure.proxies.nodes.max(1)
            }
        })
    }

    async fn submit(&self, setup: &Setup, proxy: ProxyId, token: &str) -> SubmitAnswer {
        let shape = &setup.configure.proxies;
        let launch = setup.authority.issue_starter(proxy.0).map(|identity| Launch {
            session_id: setup.configure.session_id.clone(),
            site: setup.configure.site.clone(),
            proxy,
            identity: identity.to_pem(),
            limits: setup.configure.limits.clone(),
            marker: setup.configure.marker.clone(),
            cpus: shape.cpus,
            memory_mb: shape.memory_mb,
            walltime_s: shape.walltime_s,
            scratch: shape.scratch.clone(),
        });
        let launch = match launch {
            Ok(launch) => launch,
            Err(e) => return SubmitAnswer::Refused(e.to_string()),
        };
        let (dir, nodes) = (self.dir.clone(), self.nodes());
        let prepared = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(dir.proxy(proxy))?;
            write_file(&dir.launch(proxy), &launch)?;
            make_tags(&dir, proxy, nodes)
        });
        match prepared.await {
            Ok(Ok(())) => {}
            // A disk may have room again.
            Ok(Err(e)) => return SubmitAnswer::Limited(format!("cannot write the proxy's files: {}", explain(&e))),
            Err(e) => return SubmitAnswer::Limited(e.to_string()),
        }
        let workdir = self.dir.proxy(proxy).to_string_lossy().into_owned();
        let session = self.dir.0.to_string_lossy();
        let starter = [
            &self.program,
            "starter",
            "--dir",
            &session,
            "--proxy",
            &proxy.to_string(),
        ]
        .map(str::to_owned);
        let submission = setup.system.render(&ProxyRequest {
            name: token,
            nodes,
            cpus: shape.cpus.max(1),
            walltime: Duration::from_secs(shape.walltime_s),
            memory_mb: shape.memory_mb,
            queue: shape.queue.as_deref(),
            account: shape.account.as_deref(),
            directives: &shape.directives,
            workdir: &workdir,
            output: &format!("{workdir}/output"),
            starter: &starter,
            exit_file: &self.dir.exit_file(proxy).to_string_lossy(),
        });
        let output = self
            .call(
                Call::Submit,
                setup,
                &submission.argv,
                submission.script.as_bytes(),
                SUBMIT,
            )
            .await;
        match setup.system.parse_submit(&output.raw()) {
            SubmitReply::Accepted(id) => SubmitAnswer::Accepted(id.0),
            SubmitReply::Rejected { message, class } => {
                let message = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
                match class {
                    vo_batch::Class::Permanent => SubmitAnswer::Refused(message),
                    vo_batch::Class::Limit => SubmitAnswer::Limited(message),
                    vo_batch::Class::Transient => SubmitAnswer::Unclear(message),
                }
            }
        }
    }

    async fn accounting(&self, setup: &Setup) -> Event {
        let since = {
            let machine = self.machine.borrow();
            let oldest = machine
                .iter()
                .flat_map(Proxies::views)
                .filter(|v| v.state != State::Exit)
                .map(|v| v.id)
                .min();
            let submitted = oldest.and_then(|id| fs::metadata(self.dir.proxy(id)).ok()?.created().ok()?.elapsed().ok());
            // A day more, for clocks that differ: the gateway's and the accounting host's.
            submitted.unwrap_or_default() + Duration::from_secs(86_400)
        };
        let Some(argv) = setup.system.accounting(&self.user, &setup.prefix, since) else {
            return Event::AccountingFailed { never: true };
        };
        let output = self.call(Call::Accounting, setup, &argv, b"", COMMAND).await;
        match setup.system.parse_accounting(&setup.prefix, &output.raw()) {
            Ok(rows) => Event::AccountingListed(rows.into_iter().map(row).collect()),
            Err(e) => {
                tracing::warn!("accounting: {e}");
                Event::AccountingFailed {
                    never: matches!(e, StatusError::Disabled),
                }
            }
        }
    }

    async fn site_note(&self, note: &Note) -> SiteNote {
        let hint = self
            .setup
            .borrow()
            .as_ref()
            .and_then(|setup| setup.system.hint(&note.message))
            .map(str::to_owned);
        let mut message = note.message.clone();
        if let Some(proxy) = note.proxy.filter(|_| !note.resolved) {
            let path = self.dir.proxy(proxy).join("output");
            let tail = tokio::task::spawn_blocking(move || tail(&path))
                .await
                .ok()
                .and_then(Result::ok);
            match tail.as_deref().map(str::trim) {
                Some(text) if !text.is_empty() => message += &format!("; its output ends: {text}"),
                _ => message += "; it has no output",
            }
        }
        let own = match note.topic {
            Topic::Refused => Some("mend the site's settings, then ask for proxies again"),
            Topic::Limited => None,
            Topic::Barren => Some("can the nodes reach this gateway, and see its home directory?"),
        };
        SiteNote {
            resolved: note.resolved,
            message,
            hint: hint.or(own.map(str::to_owned)),
            blocks: note.blocks(),
        }
    }

    // ---- the master

    /// All that a new stream needs to know, and then what changes.
    pub(super) fn greet(self: &Rc<Self>, out: &Outbox) {
        let (Some(setup), Some(life)) = (self.setup.borrow().clone(), self.life.get()) else {
            return;
        };
        out.say(
            0,
            &AgentHello {
                protocol: vo_wire::PROTOCOL,
                epoch: life.epoch,
                host: host(),
                pid: std::process::id(),
                batch: setup.system.kind().name().to_owned(),
                batch_version: setup.version.clone(),
                port: life.port,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        );
        self.report(|_| true);
        for (&key, line) in self.starters.borrow().iter().filter(|(_, line)| line.welcomed) {
            out.say(
                0,
                &StarterUp {
                    key,
                    facts: line.facts.clone(),
                },
            );
        }
        if let Some(machine) = &*self.machine.borrow() {
            for (_, key, link) in machine.starters() {
                let (gone, why) = match link {
                    Link::Up => continue,
                    Link::Silent(_, why) => (false, why),
                    Link::Gone(why) => (true, why),
                };
                out.say(
                    0,
                    &StarterDown {
                        key,
                        gone,
                        why: why.clone(),
                    },
                );
            }
            let (agent, out) = (Rc::clone(self), out.clone());
            let notes: Vec<Note> = machine.notes().cloned().collect();
            tokio::task::spawn_local(async move {
                for note in notes {
                    out.say(0, &agent.site_note(&note).await);
                }
            });
        }
        out.say(0, &self.stats());
    }

    /// Tells the starters, and the machine, whether the master's stream is open.
    pub(super) fn master_link(self: &Rc<Self>, up: bool) {
        for (key, line) in self.starters.borrow().iter().filter(|(_, line)| line.welcomed) {
            line.out.say(key.0, &MasterLink { up });
        }
        if up {
            self.blobs.ask_again(self);
        }
        self.tell(Event::MasterLink(up));
    }

    fn report(&self, which: impl Fn(ProxyId) -> bool) {
        let (machine, master) = (self.machine.borrow(), self.master.borrow());
        let (Some(machine), Some(master)) = (&*machine, &*master) else {
            return;
        };
        let now = self.now();
        let nodes = self.nodes();
        let info = |view: proxy::View<'_>| ProxyInfo {
            id: view.id,
            state: match view.state {
                State::Wanted => ProxyState::Wanted,
                State::Submitting => ProxyState::Submitting,
                State::Pend => ProxyState::Pend,
                State::Run => ProxyState::Run,
                State::Exit => ProxyState::Exit,
                State::Unknown => ProxyState::Unknown,
            },
            batch_id: view.batch_id.map(str::to_owned),
            age_ms: ms(now.since(view.since)),
            starters: view.connected,
            nodes,
            why: view.why.to_owned(),
        };
        let proxies = machine.views().filter(|view| which(view.id)).map(info).collect();
        master.out.say(0, &ProxyReport { proxies });
    }

    pub(super) fn stats(&self) -> AgentStats {
        self.said_calls.set(self.calls.get());
        let cpu_ms = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
            let part = |time: nix::sys::time::TimeVal| {
                u64::try_from(time.tv_sec() * 1000 + time.tv_usec() / 1000).unwrap_or(0)
            };
            part(usage.user_time()) + part(usage.system_time())
        });
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rss = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        });
        AgentStats {
            calls: self.calls.get(),
            cpu_ms,
            rss_kib: rss.unwrap_or(0),
            status_age_ms: self.status_answered.get().map(|at| ms(at.elapsed())),
        }
    }

    async fn say_stats(self: Rc<Self>) {
        loop {
            tokio::time::sleep(STATS).await;
            if self.calls.get() != self.said_calls.get()
                && let Some(master) = &*self.master.borrow()
            {
                master.out.say(0, &self.stats());
            }
        }
    }

    // ---- starters

    fn welcome(&self, key: StarterKey) {
        let mut starters = self.starters.borrow_mut();
        let Some(line) = starters.get_mut(&key) else {
            return;
        };
        let master = self.master.borrow();
        line.welcomed = true;
        line.out.say(
            key.0,
            &Welcome {
                protocol: vo_wire::PROTOCOL,
                epoch: self.epoch(),
                master: master.is_some(),
            },
        );
        if let Some(master) = &*master {
            master.out.say(
                0,
                &StarterUp {
                    key,
                    facts: line.facts.clone(),
                },
            );
        }
    }

    pub(super) fn line_closed(&self) {
        self.starter_left.notify_one();
    }

    // ---- the end

    /// Removes every proxy and all our files, tells the master what is left, and lets the agent end.
    pub(super) async fn shut_down(self: Rc<Self>, order: Shutdown) {
        if self.closing.replace(true) {
            return;
        }
        let patience = Duration::from_millis(order.patience_ms);
        for (key, line) in &*self.starters.borrow() {
            line.out.say(
                key.0,
                &End {
                    why: "the session ends".to_owned(),
                },
            );
        }
        self.tell(Event::ShutdownAsked);
        let agreed = tokio::time::timeout(patience, self.closed.notified()).await.is_ok();
        let gone = async {
            while !self.starters.borrow().is_empty() {
                self.starter_left.notified().await;
            }
        };
        let quiet = tokio::time::timeout(LEAVING, gone).await.is_ok();
        let mut left = Vec::new();
        if !agreed && let (Some(machine), Some(setup)) = (&*self.machine.borrow(), &*self.setup.borrow()) {
            let (ids, tokens) = machine.remains();
            if !ids.is_empty() {
                let ids: Vec<BatchId> = ids.into_iter().map(BatchId).collect();
                let said = machine
                    .cancel_refusal()
                    .map(|why| format!(" ({why})"))
                    .unwrap_or_default();
                left.push(format!(
                    "batch jobs that did not end{said}: {}",
                    setup.system.cancel_by_hand(&ids)
                ));
            }
            left.extend(
                tokens
                    .into_iter()
                    .map(|token| format!("a batch job named {token}, if it was accepted")),
            );
        }
        if !quiet {
            left.push(format!(
                "{} starters that did not close their connections",
                self.starters.borrow().len()
            ));
        }
        self.close_table();
        let (root, dir) = (self.root.clone(), self.dir.0.clone());
        let removed = tokio::task::spawn_blocking(move || remove_session(&root, &dir)).await;
        if let Ok(Err(e)) = removed {
            left.push(format!("files in {}: {}", self.dir.0.display(), explain(&e)));
        }
        tracing::info!(?left, "shut down");
        if let Some(master) = self.master.take() {
            master.out.say(0, &ShutdownDone { left });
            // With its last near end gone, the stream is written to its end and closed.
            drop(master.out);
            if tokio::time::timeout(LEAVING, master.done.notified()).await.is_err() {
                tracing::warn!("the master does not take our last word");
            }
        }
        self.quit();
    }

    /// Ends an agent that never came to work, and leaves no trace unless there are proxies of an earlier one.
    pub(super) fn give_up(&self) {
        let proxies = fs::read_dir(self.dir.0.join("proxies")).is_ok_and(|mut entries| entries.next().is_some());
        if !proxies && let Err(e) = remove_session(&self.root, &self.dir.0) {
            tracing::warn!("files: {e}");
        }
        self.quit();
    }
}

fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned())
}

fn row(row: Row) -> proxy::Row {
    proxy::Row {
        token: row.name,
        batch_id: row.id.0,
        status: match &row.status {
            Status::Pending { .. } | Status::Held { .. } => RowStatus::Pending(row.status.to_string()),
            Status::Running | Status::Suspended => RowStatus::Running,
            Status::Ending => RowStatus::Ending,
            Status::Unknown(_) => RowStatus::Unclear(row.status.to_string()),
            Status::Done { .. } | Status::Cancelled | Status::Preempted | Status::Failed { .. } => {
                RowStatus::Ended(row.status.to_string())
            }
        },
        restarts: row.restarts,
    }
}

fn make_tags(dir: &SiteDir, proxy: ProxyId, nodes: u32) -> io::Result<()> {
    for node in 0..nodes {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.tag(proxy, node))?;
    }
    Ok(())
}

type Tags = (BTreeSet<(ProxyId, u32)>, BTreeMap<ProxyId, String>);

fn read_tags(dir: &SiteDir, proxies: &[ProxyId]) -> io::Result<Tags> {
    let mut tags = BTreeSet::new();
    // A file server's clients remember for a while that a file was missing, but not what a directory lists.
    for entry in fs::read_dir(dir.0.join("tags"))? {
        let name = entry?.file_name();
        let tag = name.to_str().and_then(|name| name.split_once('.'));
        if let Some((proxy, node)) = tag.and_then(|(proxy, node)| Some((proxy.parse().ok()?, node.parse().ok()?))) {
            tags.insert((ProxyId(proxy), node));
        }
    }
    let mut exits = BTreeMap::new();
    for &proxy in proxies {
        match fs::read_to_string(dir.exit_file(proxy)) {
            Ok(code) => drop(exits.insert(proxy, code.trim().chars().take(20).collect())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok((tags, exits))
}

/// Removes the tags and the secrets of a proxy that ended.
fn clean(dir: &SiteDir, proxy: ProxyId) -> io::Result<()> {
    let begin = format!("{proxy}.");
    for entry in fs::read_dir(dir.0.join("tags"))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&begin)) {
            absent_is_fine(fs::remove_file(entry.path()))?;
        }
    }
    absent_is_fine(fs::remove_file(dir.launch(proxy)))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

fn tail(path: &Path) -> io::Result<String> {
    use std::io::{Read, SeekFrom};
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL as u64)))?;
    let mut bytes = Vec::new();
    file.take(TAIL as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes)
        .chars()
        .map(|c| {
            if c == '\n' {
                '|'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect())
}

/// Removes the session's files; with those of the last session, the programs too.
fn remove_session(root: &Path, dir: &Path) -> io::Result<()> {
    remove_tree(dir)?;
    for entry in fs::read_dir(root)? {
        if entry?.file_name() != "bin" {
            return Ok(());
        }
    }
    remove_tree(&root.join("bin"))?;
    // Another session may have begun meanwhile.
    match fs::remove_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => absent_is_fine(other),
    }
}
