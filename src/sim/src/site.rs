//! A site: its event agent around the production machine, a batch system, and nodes with production starters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use vo_core::ids::AttemptId;
use vo_core::job::Program;
use vo_core::proxy::{self, Proxies};
use vo_core::starter::{self, Starter};
use vo_core::{ProxyId, StarterKey, Time};

use crate::clock::Lane;

/// What the master says to a starter.
#[derive(Clone, Debug)]
pub(crate) enum ToStarter {
    Define(u64, Arc<Program>),
    Assign(u64, Vec<(AttemptId, u64)>),
    Acknowledge(Vec<AttemptId>),
    Recall(u64, u32),
    Drain(String),
    Kill(Vec<AttemptId>, std::time::Duration),
}

pub(crate) type StarterEvent = starter::Event<Arc<Program>, ()>;
pub(crate) type StarterAction = starter::Action<Arc<Program>, ()>;

/// An event agent that runs.
pub(crate) struct Agent {
    pub(crate) life: u64,
    pub(crate) machine: Proxies,
    /// Records that a crash would lose.
    pub(crate) unsynced: Vec<proxy::Record>,
    pub(crate) durable: u64,
    pub(crate) syncing: bool,
    pub(crate) waiting: VecDeque<(u64, proxy::Action)>,
    pub(crate) tick: Option<Time>,
    /// Starters connected to it: their connection, and whether they were taken in.
    pub(crate) lines: BTreeMap<StarterKey, Line>,
    /// The master's stream.
    pub(crate) master: Option<u64>,
}

pub(crate) struct Line {
    pub(crate) link: u64,
    pub(crate) welcomed: bool,
    pub(crate) to_starter: Lane,
    pub(crate) to_agent: Lane,
}

pub(crate) struct Site {
    pub(crate) agent: Option<Agent>,
    pub(crate) lives: u64,
    /// The agent's table, on disk.
    pub(crate) table: Vec<proxy::Record>,
    pub(crate) tags: BTreeSet<(ProxyId, u32)>,
    pub(crate) exits: BTreeMap<ProxyId, String>,
    pub(crate) batch: Batch,
    pub(crate) starters: BTreeMap<StarterKey, Node>,
    /// Nodes of a proxy, and CPUs of a node.
    pub(crate) shape: (u32, u32),
    /// The master's stream: its number, and both lanes.
    pub(crate) stream: Option<(u64, Lane, Lane)>,
    pub(crate) reachable: bool,
}

/// A batch system.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) jobs: BTreeMap<String, BatchJob>,
    pub(crate) next: u64,
    /// It answers nothing.
    pub(crate) hangs: bool,
    /// Every name that was ever accepted.
    pub(crate) names: BTreeSet<String>,
    /// Commands under way: a submission that timed out may still be accepted.
    pub(crate) late: u64,
    /// The ids that commands under way will answer, by name.
    pub(crate) promised: BTreeMap<String, String>,
}

pub(crate) struct BatchJob {
    pub(crate) name: String,
    pub(crate) proxy: ProxyId,
    pub(crate) state: BatchState,
    pub(crate) restarts: u32,
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
    pub(crate) tick: Option<Time>,
    /// Its connection to the agent, as it sees it.
    pub(crate) link: Option<u64>,
    /// What runs there, with a number that tells two runs apart.
    pub(crate) running: BTreeMap<AttemptId, (u64, u32)>,
}

impl Node {
    pub(crate) fn cpus_used(&self) -> u32 {
        self.running.values().map(|(_, cpus)| cpus).sum()
    }
}
