//! A site: its login nodes with event agents around the production machine, their home, a batch system, and nodes with production
//! starters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use vo_core::ids::AttemptId;
use vo_core::job::{AttemptResult, Program};
use vo_core::lease::{Claim, Step};
use vo_core::proxy::{self, Entry, Proxies, Row};
use vo_core::starter::{self, Starter};
use vo_core::{ProxyId, StarterKey, Time};
use vo_store::memdisk::MemDisk;
use vo_store::{Log, Options, Replay, StoreError};

use crate::clock::Lane;
use crate::shared::Directory;

/// What the master says to a starter.
#[derive(Clone, Debug)]
pub(crate) enum ToStarter {
    Define(u64, Arc<Program>),
    Assign(u64, Vec<(AttemptId, u64)>),
    Acknowledge(Vec<AttemptId>),
    Recall(u64, u32),
    Kill(Vec<AttemptId>, std::time::Duration),
    Drain(String),
}

pub(crate) type StarterEvent = starter::Event<Arc<Program>, ()>;
pub(crate) type StarterAction = starter::Action<Arc<Program>, ()>;

/// An event agent: a process on a login node.
pub(crate) struct Agent {
    /// Which login node it runs on.
    pub(crate) node: usize,
    /// SIGSTOP: what happens to it waits until it goes on.
    pub(crate) stopped: bool,
    pub(crate) stage: Stage,
    /// Of its lease; 0 before it has one.
    pub(crate) epoch: u64,
    /// When it began to work.
    pub(crate) began: Time,
    /// It knows that another one has taken over.
    pub(crate) fenced: bool,
    /// Set up by its first master.
    pub(crate) work: Option<Work>,
    /// Starters connected to it.
    pub(crate) lines: BTreeMap<StarterKey, Line>,
    /// The master's stream.
    pub(crate) master: Option<u64>,
    /// When the master was last heard, and what was done about its silence.
    pub(crate) heard: Time,
    pub(crate) missed: Missed,
    /// The session ends here.
    pub(crate) closing: bool,
    /// Starters that it stands in for, and which results of theirs it told over this stream.
    pub(crate) stands_for: BTreeMap<StarterKey, BTreeSet<AttemptId>>,
}

/// What an agent did about missed heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Missed {
    #[default]
    None,
    /// It closed the stream.
    Called,
    /// It gave up what is queued.
    Withdrawn,
}

/// How far it has come.
pub(crate) enum Stage {
    Claiming(Claim, Step),
    /// It waits for its first master.
    Ready,
    /// It opens its table, for the master of a stream; how often it has tried.
    Opening(u32),
    Working,
}

/// The machine, and its records.
pub(crate) struct Work {
    pub(crate) machine: Proxies,
    pub(crate) table: Table,
    pub(crate) syncing: bool,
    pub(crate) waiting: VecDeque<(u64, proxy::Action)>,
    /// Whose submission is under way.
    pub(crate) submitting: Option<ProxyId>,
    pub(crate) tick: Option<Time>,
    /// Its clock is ahead by this.
    pub(crate) ahead: u64,
}

/// The table of an agent: the production log, as the production agent keeps it.
pub(crate) struct Table {
    log: Log<MemDisk>,
    pub(crate) base: u64,
    before: u64,
}

impl Table {
    /// Opens it; its records.
    pub(crate) fn open(disk: MemDisk, now: u64, epoch: u64) -> Result<(Table, Vec<proxy::Record>), StoreError> {
        let (mut base, mut records) = (None, Vec::new());
        let mut take = |entry| match entry {
            Entry::Base(at) => base = Some(at),
            Entry::Proxy(record) => records.push(record),
        };
        let opened = Log::open_on(disk, Options::default(), |replay| -> Result<(), minicbor::decode::Error> {
            match replay {
                Replay::Record(bytes) => take(minicbor::decode(bytes)?),
                Replay::Snapshot(bytes, _) => minicbor::decode::<Vec<Entry>>(bytes)?.into_iter().for_each(&mut take),
            }
            Ok(())
        })?;
        let mut log = opened.log;
        if base.is_none() {
            let first = proxy::first_record(epoch, now);
            records.push(first.clone());
            for entry in [Entry::Base(now), Entry::Proxy(first)] {
                log.append(&minicbor::to_vec(entry).unwrap_or_default());
            }
            log.commit()?;
        }
        let before = log.durable();
        Ok((Table { log, base: base.unwrap_or(now), before }, records))
    }

    pub(crate) fn append(&mut self, record: proxy::Record) {
        self.log.append(&minicbor::to_vec(Entry::Proxy(record)).unwrap_or_default());
    }

    /// Is there anything to commit?
    pub(crate) fn is_dirty(&self) -> bool {
        self.log.appended() > self.log.durable()
    }

    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        self.log.commit().map(drop)
    }

    pub(crate) fn snapshot(&mut self, records: Vec<proxy::Record>) -> Result<(), StoreError> {
        let mut entries = vec![Entry::Base(self.base)];
        entries.extend(records.into_iter().map(Entry::Proxy));
        self.log.snapshot(&minicbor::to_vec(entries).unwrap_or_default())
    }

    /// Durable records of this life.
    pub(crate) fn durable(&self) -> u64 {
        self.log.durable() - self.before
    }
}

pub(crate) struct Line {
    pub(crate) link: u64,
    pub(crate) welcomed: bool,
    pub(crate) to_starter: Lane,
    pub(crate) to_agent: Lane,
    /// When the starter was last heard.
    pub(crate) heard: Time,
    pub(crate) left: Option<String>,
}

/// The master's stream.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) link: u64,
    pub(crate) agent: u64,
    pub(crate) opened: Time,
    pub(crate) to_agent: Lane,
    pub(crate) to_master: Lane,
}

pub(crate) struct Site {
    /// Login nodes.
    pub(crate) gateways: usize,
    /// A master met an agent here, and remembers it.
    pub(crate) met: bool,
    pub(crate) agents: BTreeMap<u64, Agent>,
    pub(crate) lives: u64,
    // The home.
    pub(crate) leases: Directory<u64>,
    pub(crate) tables: Directory<MemDisk>,
    /// What `agent.addr` says: an epoch, and whose.
    pub(crate) address: Option<(u64, u64)>,
    /// Who made `agent.sock`.
    pub(crate) socket: Option<u64>,
    /// Whose each tag is: a starter's, or the agent's word that one may come.
    pub(crate) tags: BTreeMap<(ProxyId, u32), Option<StarterKey>>,
    /// Tags that a crash of the file server would lose.
    pub(crate) unsynced: BTreeSet<(ProxyId, u32)>,
    pub(crate) exits: BTreeMap<ProxyId, proxy::Exit>,
    /// What starters put aside, and since when.
    pub(crate) spool: BTreeMap<StarterKey, BTreeMap<AttemptId, (AttemptResult, Time)>>,
    /// It does not answer.
    pub(crate) hangs: bool,
    pub(crate) batch: Batch,
    pub(crate) starters: BTreeMap<StarterKey, Node>,
    /// Nodes of a proxy, and CPUs of a node.
    pub(crate) shape: (u32, u32),
    /// Proxies wanted.
    pub(crate) proxies: u32,
    /// Least and most milliseconds between the master and it.
    pub(crate) latency: (u64, u64),
    pub(crate) stream: Option<Stream>,
    /// When the master last heard its agent.
    pub(crate) told: Time,
    /// A call under way: over which life of the master, and to which agent.
    pub(crate) call: Option<(u64, u64)>,
    pub(crate) reachable: bool,
}

/// A batch system.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) jobs: BTreeMap<String, BatchJob>,
    pub(crate) next: u64,
    /// It answers nothing.
    pub(crate) hangs: bool,
    /// It lies more often than not.
    pub(crate) lies: bool,
    /// Batch jobs that a user may have there.
    pub(crate) limit: usize,
    /// Seconds for which an ended batch job stays listed.
    pub(crate) keeps: u64,
    pub(crate) accounting: bool,
    /// Every name that was ever accepted.
    pub(crate) names: BTreeSet<String>,
    /// Submissions under way: one that timed out may still be accepted.
    pub(crate) late: u64,
    /// Listings of some time ago.
    pub(crate) old: VecDeque<Vec<Row>>,
}

pub(crate) struct BatchJob {
    pub(crate) name: String,
    pub(crate) proxy: ProxyId,
    pub(crate) state: BatchState,
    pub(crate) restarts: u32,
    /// It is not listed before.
    pub(crate) shows: Time,
    /// When it ended, after which it stays listed for a while.
    pub(crate) ended: Option<Time>,
    pub(crate) cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchState {
    Pending,
    Running,
    Ended,
}

/// A starter on its node.
pub(crate) struct Node {
    pub(crate) machine: Starter<Arc<Program>, ()>,
    pub(crate) proxy: ProxyId,
    pub(crate) batch_id: String,
    pub(crate) restarts: u32,
    pub(crate) index: u32,
    pub(crate) cpus: u32,
    pub(crate) ends: Time,
    pub(crate) alive: bool,
    /// Nothing reaches it before.
    pub(crate) cut_off: Time,
    /// The batch system says that it ended, while it runs.
    pub(crate) zombie: bool,
    pub(crate) tick: Option<Time>,
    /// Its connection, and the agent that it leads to, as it sees it.
    pub(crate) link: Option<(u64, u64)>,
    /// The agent has taken it in, over this connection.
    pub(crate) welcomed: bool,
    /// The highest epoch that it met.
    pub(crate) epoch: u64,
    /// Has its agent a master?
    pub(crate) master: bool,
    /// When the agent was called, and last heard.
    pub(crate) called: Time,
    pub(crate) heard: Time,
    /// Nothing has run there since.
    pub(crate) idle: Time,
    /// Ends that were not acknowledged, and since when.
    pub(crate) results: BTreeMap<AttemptId, Time>,
    /// What runs there, with a number that tells two runs apart.
    pub(crate) running: BTreeMap<AttemptId, (u64, u32)>,
    /// Results whose files it has written, the last time that it put some aside.
    pub(crate) aside: BTreeSet<AttemptId>,
}

impl Node {
    pub(crate) fn cpus_used(&self) -> u32 {
        self.running.values().map(|(_, cpus)| cpus).sum()
    }
}

impl Site {
    /// Does an agent of a login node take calls, and show it?
    pub(crate) fn answers(&self, agent: u64, node: usize) -> bool {
        let ready = |agent: &Agent| !matches!(agent.stage, Stage::Claiming(..)) && !agent.stopped && agent.node == node;
        self.agents.get(&agent).is_some_and(ready)
    }
}
