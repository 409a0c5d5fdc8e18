//! What the agent is: the machine with its table and clock, the master, the starters, and the end.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::Notify;
use vo_batch::BatchId;
use vo_core::ids::{ProxyId, StarterKey};
use vo_core::proxy::{self, Action, Event, Link, Note, Proxies, State};
use vo_core::time::Time;
use vo_wire::link::{
    AgentHello, AgentStats, ProxyInfo, ProxyReport, ProxyState, Shutdown, ShutdownDone, SiteNote, StarterDown,
    StarterUp,
};
use vo_wire::node::{End, MasterLink, Welcome};

use crate::connect::{Place, explain, program};
use crate::launch::{AgentAddress, SiteDir};
use crate::lease::{Lease, Standing};

use super::blobs::Blobs;
use super::files::remove_session;
use super::outbox::Outbox;
use super::setup::{Refusal, Setup};
use super::spool::Spools;
use super::starters::{Door, Line};
use super::table::{Notice, Table};

/// For status, accounting and cancel commands.
pub(super) const COMMAND: Duration = Duration::from_secs(60);

/// Batch commands are told to the master this long after the first that it doesn't know of: several share a word.
const STATS: Duration = Duration::from_secs(1);

/// How long the starters may take to leave after the batch system has agreed that nothing runs.
const LEAVING: Duration = Duration::from_secs(5);

/// What holds for the life of the agent once a master has configured it.
pub(super) struct Life {
    /// Time of day of the machine's zero, and the machine's time when the clock began.
    pub(super) base: u64,
    pub(super) began: (Time, Instant),
    pub(super) port: u16,
}

/// How the agent stands with a master that is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// It was heard of in time.
    None,
    /// Its stream was silent and is closed: it may call again by a better one.
    Called,
    /// Nothing is wanted any more; what runs, runs out.
    Withdrawn,
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

/// The agent. One thread; no borrow is held while it waits.
pub(super) struct Agent {
    pub(super) root: PathBuf,
    pub(super) dir: SiteDir,
    pub(super) program: String,
    pub(super) user: String,
    pub(super) lease: Arc<Lease>,
    /// Another agent has taken over.
    pub(super) fenced: Cell<bool>,
    /// Something tells of a newer agent.
    pub(super) doubt: Notify,
    /// What `agent.addr` is to hold.
    pub(super) address: RefCell<Option<AgentAddress>>,
    pub(super) setup: RefCell<Option<Rc<Setup>>>,
    pub(super) life: OnceCell<Life>,
    pub(super) configuring: tokio::sync::Mutex<()>,
    pub(super) machine: RefCell<Option<Proxies>>,
    pub(super) table: RefCell<Option<Table>>,
    pub(super) durable: Cell<u64>,
    pub(super) held: RefCell<VecDeque<(u64, Action)>>,
    /// What starters meet, once a master has configured it.
    pub(super) door: RefCell<Option<Rc<Door>>>,
    /// Connections so far that did not knock.
    pub(super) strangers: Cell<u64>,
    pub(super) master: RefCell<Option<Master>>,
    pub(super) starters: RefCell<BTreeMap<StarterKey, Line>>,
    pub(super) blobs: Blobs,
    pub(super) spools: Spools,
    pub(super) heard: Cell<Instant>,
    pub(super) missed: Cell<Missed>,
    pub(super) serial: Cell<u64>,
    pub(super) calls: Cell<[u64; 4]>,
    pub(super) called: Notify,
    pub(super) status_answered: Cell<Option<Instant>>,
    pub(super) disk_full: Cell<bool>,
    /// What was cut from the table's torn end: to be told once.
    pub(super) cut: RefCell<Option<String>>,
    pub(super) closing: Cell<bool>,
    pub(super) wake: Notify,
    pub(super) closed: Notify,
    pub(super) starter_left: Notify,
    pub(super) end: Notify,
}

pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Agent {
    /// An agent that waits for its first master.
    pub(super) fn new(place: &Place, lease: Lease) -> io::Result<Agent> {
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
        let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Ok(Agent {
            root: place.root.clone(),
            dir: SiteDir(dir),
            program,
            user,
            lease: Arc::new(lease),
            fenced: Cell::default(),
            doubt: Notify::new(),
            address: RefCell::default(),
            setup: RefCell::default(),
            life: OnceCell::new(),
            configuring: tokio::sync::Mutex::default(),
            machine: RefCell::default(),
            table: RefCell::default(),
            durable: Cell::default(),
            held: RefCell::default(),
            door: RefCell::default(),
            strangers: Cell::default(),
            master: RefCell::default(),
            starters: RefCell::default(),
            blobs: Blobs::default(),
            spools: Spools::default(),
            heard: Cell::new(Instant::now()),
            missed: Cell::new(Missed::None),
            serial: Cell::default(),
            calls: Cell::default(),
            called: Notify::new(),
            status_answered: Cell::default(),
            disk_full: Cell::default(),
            cut: RefCell::default(),
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
        self.lease.epoch
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
        self.setup
            .borrow()
            .as_ref()
            .map_or(Duration::from_secs(600), |s| Duration::from_millis(s.configure.limits.lease_ms))
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

    pub(super) async fn take_notices(self: Rc<Self>, mut notices: tokio::sync::mpsc::UnboundedReceiver<Notice>) {
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
                        table.snapshot(life.base, machine.snapshot());
                    }
                    self.release();
                }
                Notice::Full(why) => {
                    if !self.disk_full.replace(true) {
                        tracing::error!("{why}");
                        self.note(&why, Some("remove files at the site; nothing is submitted until then"), false, true);
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

    pub(super) fn note(&self, message: &str, hint: Option<&str>, resolved: bool, blocks: bool) {
        if let Some(master) = &*self.master.borrow() {
            master.out.say(
                0,
                &SiteNote {
                    resolved,
                    message: message.to_owned(),
                    hint: hint.map(str::to_owned),
                    blocks,
                    passing: false,
                },
            );
        }
    }

    /// Wakes the machine at its deadlines, and looks after the master's heartbeat.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            let deadline = self.machine.borrow().as_ref().and_then(Proxies::deadline);
            let wait = deadline.map(|at| at.since(self.now()));
            let silence = self.patience().map(|patience| patience.saturating_sub(self.heard.get().elapsed()));
            let never = Duration::from_secs(1 << 30);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(never)), if wait.is_some() => self.tell(Event::DeadlinePassed),
                () = tokio::time::sleep(silence.unwrap_or(never)), if silence.is_some() => self.heartbeat_missed(),
            }
            let live = |machine: &Proxies| machine.views().any(|view| view.state != State::Exit);
            if self.missed.get() == Missed::Withdrawn
                && !self.machine.borrow().as_ref().is_some_and(live)
                && !self.is_closing()
                && self.nothing_waits()
            {
                tracing::warn!("nothing runs here any more, and no master came: the session ends here");
                tokio::task::spawn_local(Rc::clone(&self).shut_down(Shutdown { patience_ms: ms(COMMAND * 10) }));
            }
        }
    }

    /// Has the master every result that was put aside here? What can't be told is no.
    fn nothing_waits(&self) -> bool {
        match fs::read_dir(self.dir.spool()) {
            Ok(mut entries) => entries.next().is_none(),
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    /// How long the master may be silent before the next step; none is for ever.
    fn patience(&self) -> Option<Duration> {
        let setup = self.setup.borrow();
        let limits = &setup.as_ref()?.configure.limits;
        let heartbeats = match self.missed.get() {
            _ if !limits.shutdown_on_missed || limits.heartbeat_ms == 0 || self.is_closing() => return None,
            Missed::None => limits.missed_heartbeats.max(1),
            Missed::Called => limits.missed_heartbeats.max(1) + 1,
            Missed::Withdrawn => return None,
        };
        Some(Duration::from_millis(limits.heartbeat_ms.saturating_mul(heartbeats.into())))
    }

    /// Missed heartbeats alone end nothing that works: a stream that is open may be at fault, so the master gets the chance of another
    /// one; then what waits in the queue is given up, and what runs goes on until its starters have nothing left to do or to tell.
    fn heartbeat_missed(self: &Rc<Self>) {
        let Some(patience) = self.patience().filter(|patience| self.heard.get().elapsed() >= *patience) else {
            return;
        };
        if self.missed.get() == Missed::None
            && let Some(master) = &*self.master.borrow()
        {
            tracing::warn!("no word from the master for {patience:?}: its stream is closed");
            self.missed.set(Missed::Called);
            return master.close.notify_one();
        }
        tracing::warn!("no word from the master for {patience:?}: what is queued is given up");
        self.missed.set(Missed::Withdrawn);
        self.tell(Event::MasterMissed(format!("no word from the master for {patience:?}")));
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
                epoch: self.epoch(),
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
            out.say(0, &StarterUp { key, facts: line.facts.clone() });
        }
        if let Some(machine) = &*self.machine.borrow() {
            for (_, key, link) in machine.starters() {
                let (gone, why) = match link {
                    Link::Up => continue,
                    Link::Silent(_, why) => (false, why),
                    Link::Gone(why) => (true, why),
                };
                out.say(0, &StarterDown { key, gone, why: why.clone() });
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
        Spools::present(self, None);
        if let Some(message) = self.cut.take() {
            let hint = "a commit was not finished when the last agent died; its proxies are found again".to_owned();
            out.say(0, &SiteNote { resolved: false, message, hint: Some(hint), blocks: false, passing: true });
        }
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

    pub(super) fn report(&self, which: impl Fn(ProxyId) -> bool) {
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
        let cpu_ms = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
            let part = |time: nix::sys::time::TimeVal| {
                u64::try_from(time.tv_sec() * 1000 + time.tv_usec() / 1000).unwrap_or(0)
            };
            part(usage.user_time()) + part(usage.system_time())
        });
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rss =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        AgentStats {
            calls: self.calls.get(),
            cpu_ms,
            rss_kib: rss.unwrap_or(0),
            status_age_ms: self.status_answered.get().map(|at| ms(at.elapsed())),
        }
    }

    pub(super) async fn say_stats(self: Rc<Self>) {
        loop {
            self.called.notified().await;
            tokio::time::sleep(STATS).await;
            if let Some(master) = &*self.master.borrow() {
                master.out.say(0, &self.stats());
            }
        }
    }

    // ---- starters

    pub(super) fn welcome(&self, key: StarterKey) {
        let mut starters = self.starters.borrow_mut();
        let Some(line) = starters.get_mut(&key) else {
            return;
        };
        let master = self.master.borrow();
        line.welcomed = true;
        line.out.say(key.0, &Welcome { protocol: vo_wire::PROTOCOL, epoch: self.epoch(), master: master.is_some() });
        if let Some(master) = &*master {
            master.out.say(0, &StarterUp { key, facts: line.facts.clone() });
        }
    }

    pub(super) fn line_closed(&self) {
        self.starter_left.notify_one();
    }

    // ---- the end

    /// Removes every proxy and all our files, tells the master what is left, and lets the agent end.
    pub(super) async fn shut_down(self: Rc<Self>, order: Shutdown) {
        if self.may_act().await.is_err() || self.closing.replace(true) {
            return;
        }
        let patience = Duration::from_millis(order.patience_ms);
        for (key, line) in &*self.starters.borrow() {
            line.out.say(key.0, &End { why: "the session ends".to_owned() });
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
                let said = machine.cancel_refusal().map(|why| format!(" ({why})")).unwrap_or_default();
                left.push(format!("batch jobs that did not end{said}: {}", setup.system.cancel_by_hand(&ids)));
            }
            left.extend(tokens.into_iter().map(|token| format!("a batch job named {token}, if it was accepted")));
        }
        if !quiet {
            left.push(format!("{} starters that did not close their connections", self.starters.borrow().len()));
        }
        let acts = self.may_act().await;
        if self.fenced.get() {
            return;
        }
        self.close_table();
        let (root, dir) = (self.root.clone(), self.dir.0.clone());
        let removed = match acts {
            Ok(()) => tokio::task::spawn_blocking(move || remove_session(&root, &dir).map_err(|e| explain(&e))).await,
            Err(why) => Ok(Err(why)),
        };
        if let Ok(Err(why)) = removed {
            left.push(format!("files in {}: {why}", self.dir.0.display()));
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
        let ours = self.lease.standing().is_ok_and(|standing| standing == Standing::Held);
        if !proxies
            && ours
            && let Err(e) = remove_session(&self.root, &self.dir.0)
        {
            tracing::warn!("files: {e}");
        }
        self.quit();
    }
}

pub(super) fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned())
}
