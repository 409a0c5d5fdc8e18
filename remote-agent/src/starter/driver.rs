//! The starter proper: the world around [`vo_core::starter::Starter`].

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use vo_core::Time;
use vo_core::ids::{AttemptId, StarterKey};
use vo_core::job::{AttemptResult, Outcome, Usage};
use vo_core::starter::{Action, Demand, Event, Limits, Offer, Starter, Task};
use vo_net::tls::Identity;
use vo_wire::frame::{Frame, Message, WireError};
use vo_wire::link::{Ping, Pong};
use vo_wire::node::{End, Leaving, MasterLink, StarterFacts, Welcome};
use vo_wire::work::{Acknowledge, Assign, Assignment, DefineProgram, Inventory, Kill, Recall, Report};

use super::jobs::{Node, Prepared};
use super::link::{Caller, Connection, Refused};
use super::{ENDING_SIGNALS, Settings, facts, random, scratch, tree};

type Happened = Event<Rc<Prepared>, Assignment>;

/// How long the last words may take to reach the agent.
const FAREWELL: Duration = Duration::from_secs(2);

/// A job whose program runs.
struct Running {
    pid: i32,
    since: Instant,
}

struct Driver {
    key: StarterKey,
    began: Instant,
    machine: Starter<Rc<Prepared>, Assignment>,
    node: Node,
    running: HashMap<AttemptId, Running>,
    pids: HashMap<i32, AttemptId>,
    happened: Vec<Happened>,
    left: Option<String>,
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
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
    let began = Instant::now();
    let usable =
        scratch::make(&settings.scratch).map_err(|e| format!("cannot write in {}: {e}", settings.scratch.display()));
    let facts = facts::collect(&settings);
    let limits = settings.launch.limits.clone();
    let lease = Duration::from_millis(limits.lease_ms).max(Duration::from_secs(1));
    let key = StarterKey(random()?);
    let caller = Rc::new(Caller {
        key,
        identity: Identity::from_pem(&settings.launch.identity).map_err(io::Error::other)?,
        epoch: Default::default(),
        silence: (lease / 6).clamp(Duration::from_millis(500), Duration::from_secs(30)),
    });
    let settings = Rc::new(settings);
    let call = |facts: StarterFacts| -> Call {
        let (caller, settings) = (Rc::clone(&caller), Rc::clone(&settings));
        Box::pin(async move {
            let facts = || StarterFacts {
                scratch_bytes: facts::free_bytes(&settings.scratch),
                time_left_ms: settings
                    .time_left
                    .map(|left| millis(left.saturating_sub(began.elapsed()))),
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
        ends: settings.time_left.map(|left| Time(0) + left),
    };
    let limits = Limits {
        idle: Duration::from_millis(limits.idle_ms),
        lease,
        drain: Duration::from_millis(limits.drain_ms),
    };
    let mut driver = Driver {
        key,
        began,
        machine: Starter::new(Time(0), limits, offer),
        node,
        running: HashMap::new(),
        pids: HashMap::new(),
        happened: Vec::new(),
        left: None,
    };
    let mut link = Link::Calling(call(facts.clone()));
    let mut children = signal(SignalKind::child())?;
    let mut ending = endings()?;
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
                    driver.happened.push(Event::AgentConnected { master: welcome.master });
                }
                Word::Frame(frame) => {
                    if let Err(e) = driver.hear(frame, &mut link) {
                        tracing::warn!("the connection to the agent ended: {e}");
                        driver.happened.push(Event::AgentLost);
                        link = Link::Calling(call(facts.clone()));
                    }
                }
                Word::Lost(e) => {
                    tracing::warn!("the connection to the agent ended: {e}");
                    driver.happened.push(Event::AgentLost);
                    link = Link::Calling(call(facts.clone()));
                }
                Word::Refused(why) => {
                    driver.happened.push(Event::EndAsked { why });
                    link = Link::Calling(Box::pin(std::future::pending()));
                }
            },
            _ = children.recv() => driver.reap(),
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

fn millis(span: Duration) -> u64 {
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
        Time(millis(self.began.elapsed()))
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
                return;
            }
        }
    }

    fn act(&mut self, action: Action<Rc<Prepared>, Assignment>, link: &mut Link) {
        let route = self.key.0;
        match action {
            Action::Start { task, program } => self.start(&task.body, &program),
            Action::Terminate(id) => self.signal_tree(id, Signal::SIGTERM),
            Action::Kill(id) => self.signal_tree(id, Signal::SIGKILL),
            Action::SendInventory {
                queued,
                running,
                finished,
            } => {
                link.put(
                    route,
                    &Inventory {
                        queued,
                        running,
                        finished,
                    },
                );
            }
            Action::SendReport {
                started,
                results,
                returned,
            } => {
                link.put(
                    route,
                    &Report {
                        started,
                        results,
                        returned,
                    },
                );
            }
            Action::Forget(_) => {}
            Action::Leave { why } => self.left = Some(why),
        }
    }

    /// Takes in a frame, and those that came with it.
    fn hear(&mut self, frame: Frame, link: &mut Link) -> io::Result<()> {
        self.happened.push(Event::AgentHeard);
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
                let DefineProgram { program, body } = frame.read()?;
                let demand = Demand {
                    cpus: body.cpus,
                    memory_mb: body.memory_mb,
                };
                Event::ProgramDefined {
                    program,
                    demand,
                    body: Rc::new(Prepared::new(body)),
                }
            }
            Assign::KIND => {
                let tasks = frame.read::<Assign>()?.attempts.into_iter();
                Event::Assigned(
                    tasks
                        .map(|body| Task {
                            id: body.id,
                            program: body.program,
                            body,
                        })
                        .collect(),
                )
            }
            Acknowledge::KIND => Event::Acknowledged(frame.read::<Acknowledge>()?.ids),
            Recall::KIND => {
                let count = usize::try_from(frame.read::<Recall>()?.count).unwrap_or(usize::MAX);
                Event::Recalled { count }
            }
            Kill::KIND => {
                let Kill { ids, grace_ms } = frame.read()?;
                Event::KillAsked {
                    ids,
                    grace: Duration::from_millis(grace_ms),
                }
            }
            MasterLink::KIND => Event::MasterLinkChanged {
                up: frame.read::<MasterLink>()?.up,
            },
            End::KIND => Event::EndAsked {
                why: frame.read::<End>()?.why,
            },
            Ping::KIND => {
                let Ping { nonce } = frame.read()?;
                link.put(0, &Pong { nonce });
                return Ok(());
            }
            // Agents outlive starters' versions: what we don't know is no fault.
            _ => return Ok(()),
        };
        self.happened.push(event);
        Ok(())
    }

    fn start(&mut self, assignment: &Assignment, program: &Prepared) {
        let id = assignment.id;
        match self.node.start_in_place(program, id, assignment.directory) {
            Ok(pid) => {
                self.running.insert(
                    id,
                    Running {
                        pid,
                        since: Instant::now(),
                    },
                );
                self.pids.insert(pid, id);
                self.happened.push(Event::JobStarted { id });
            }
            Err(outcome) => {
                let result = AttemptResult {
                    id,
                    outcome,
                    usage: Usage::default(),
                    outputs: Vec::new(),
                };
                self.happened.push(Event::JobEnded(result));
            }
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
        let Some(job) = self.running.remove(&id) else {
            return;
        };
        let code = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        let outcome = match (ended.status.code(), ended.status.signal()) {
            (Some(number), _) => Outcome::Exited(code(number)),
            (None, number) => Outcome::Signaled(code(number.unwrap_or(0))),
        };
        let usage = Usage {
            wall_ms: millis(job.since.elapsed()),
            cpu_ms: millis(ended.cpu),
            peak_kib: ended.peak_kib,
        };
        self.happened.push(Event::JobEnded(AttemptResult {
            id,
            outcome,
            usage,
            outputs: Vec::new(),
        }));
    }

    /// Kills what jobs left behind outside of their groups: it has become our child.
    fn kill_strays(&mut self) {
        for pid in tree::own_children() {
            if self.pids.contains_key(&pid) {
                continue;
            }
            let leftover = match tree::attempt_of(pid) {
                Some(id) => !self.running.contains_key(&id),
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

    /// Signals a job's group, and what descends from the job outside of it.
    fn signal_tree(&mut self, id: AttemptId, signal: Signal) {
        let Some(Running { pid: leader, .. }) = self.running.get(&id) else {
            return;
        };
        let own = |pid: &i32| !self.pids.contains_key(pid) && tree::attempt_of(*pid) == Some(id);
        let strays: Vec<i32> = tree::own_children().into_iter().filter(own).collect();
        let below = strays.iter().chain([leader]).flat_map(|pid| tree::descendants(*pid));
        let mut others: Vec<i32> = strays.iter().copied().chain(below).collect();
        others.retain(|pid| getpgid(Some(Pid::from_raw(*pid))).is_ok_and(|group| group.as_raw() != *leader));
        tree::signal(-leader, signal);
        for pid in others {
            tree::signal(pid, signal);
        }
    }
}
