//! Master and event agent, over the SSH stream. Kinds `0x01..`.
//!
//! The master opens with [`Configure`]; the agent answers [`AgentHello`], then one [`ProxyReport`] with every proxy it knows and one
//! [`StarterUp`] for each starter connected to it. From then on each side says what changes. What is said is state, not news: a
//! message repeated after a lost connection does no harm.

use minicbor::{Decode, Encode};
use vo_core::ids::{ProxyId, StarterKey};

use crate::frame::kinds;
use crate::node::StarterFacts;

/// What the master tells a site's agent about its work; sent at every connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Configure {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
    /// The session's name, as the user gave it.
    #[n(1)]
    pub session: String,
    /// The session's random id, 16 hexadecimal digits.
    #[n(2)]
    pub session_id: String,
    /// The site's name.
    #[n(3)]
    pub site: String,
    /// Which start of the master this is, from 1: an older master's stream is closed when a newer one's opens.
    #[n(4)]
    pub master_epoch: u64,
    /// The site's certificate authority (key, chain and root as PEM): secret.
    #[n(5)]
    pub authority: String,
    /// What proxies to ask for.
    #[n(6)]
    pub proxies: ProxyShape,
    /// Limits and times.
    #[n(7)]
    pub limits: Limits,
    /// A file on the workstation and its content: a node that reads the same there shares the file system.
    #[n(8)]
    pub marker: Marker,
}

/// What a site's proxies are like.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyShape {
    /// The batch system's name (`slurm`, `sge`, `fork`), or none to detect it.
    #[n(0)]
    pub batch: Option<String>,
    /// Nodes of a proxy, from 1.
    #[n(1)]
    pub nodes: u32,
    /// CPUs on each node, from 1.
    #[n(2)]
    pub cpus: u32,
    /// Memory on each node.
    #[n(3)]
    pub memory_mb: Option<u32>,
    /// Walltime asked for, in seconds.
    #[n(4)]
    pub walltime_s: u64,
    /// Queue or partition.
    #[n(5)]
    pub queue: Option<String>,
    /// Account or project.
    #[n(6)]
    pub account: Option<String>,
    /// Lines passed on to the batch script.
    #[n(7)]
    pub directives: Vec<String>,
    /// Grid Engine: the parallel environment.
    #[n(8)]
    pub parallel_environment: Option<String>,
    /// Where on a node jobs get their scratch directories; none is the batch system's, else `/tmp`.
    #[n(9)]
    pub scratch: Option<String>,
}

/// Limits and times of a site.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Limits {
    /// Proxies queued at once: at most `queued_fraction` (thousandths) of those running, plus `queued_base`.
    #[n(0)]
    pub queued_permille: u32,
    /// See `queued_permille`.
    #[n(1)]
    pub queued_base: u32,
    /// A starter without work ends after this.
    #[n(2)]
    pub idle_ms: u64,
    /// A starter that can't reach its agent for this long ends, and kills what it runs; an agent that doesn't hear from a starter
    /// for this long holds it for gone.
    #[n(3)]
    pub lease_ms: u64,
    /// A starter takes no new job when less than this is left of its walltime, and ends its jobs at the end of it.
    #[n(4)]
    pub drain_ms: u64,
    /// TCP ports for call-backs, first and last; none is any.
    #[n(5)]
    pub ports: Option<(u16, u16)>,
    /// Least time between two status calls.
    #[n(6)]
    pub status_ms: u64,
    /// Largest bytes kept of one job's standard output or error.
    #[n(7)]
    pub capture_bytes: u64,
    /// Bytes of an output that travel within the result.
    #[n(8)]
    pub inline_bytes: u32,
    /// The agent expects a word from its master at least this often; see `on_missed`.
    #[n(9)]
    pub heartbeat_ms: u64,
    /// How many may be missed.
    #[n(10)]
    pub missed_heartbeats: u32,
    /// Then remove the proxies and end (`true`), or go on (`false`).
    #[n(11)]
    pub shutdown_on_missed: bool,
}

/// Tells whether two hosts share files. A node of the same boot and mount namespace is the workstation itself; a node that reads the
/// marker has its file system; a directory on that file system with the same inode number there is the same directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Marker {
    /// Absolute path on the workstation.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// What stands in it.
    #[n(1)]
    pub content: String,
    /// The workstation's boot id and the number of its mount namespace (`/proc/sys/kernel/random/boot_id`, `/proc/self/ns/mnt`).
    #[n(2)]
    pub host: String,
}

/// The agent's answer to [`Configure`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentHello {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
    /// Which start of the agent this is, from 1: the fencing number.
    #[n(1)]
    pub epoch: u64,
    /// The gateway's own host name.
    #[n(2)]
    pub host: String,
    /// The agent's process.
    #[n(3)]
    pub pid: u32,
    /// The batch system found, and its version as it says it.
    #[n(4)]
    pub batch: String,
    /// See `batch`.
    #[n(5)]
    pub batch_version: String,
    /// Where it listens for starters.
    #[n(6)]
    pub port: u16,
    /// The agent's version.
    #[n(7)]
    pub version: String,
}

/// The agent can't work at this site, and ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentRefused {
    /// Why, in one line.
    #[n(0)]
    pub message: String,
    /// What the user may do.
    #[n(1)]
    pub hint: Option<String>,
}

/// How many proxies the master wants at the site. Fewer ends none that runs; it only stops their replacement.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetTarget {
    /// Proxies queued or running.
    #[n(0)]
    pub proxies: u32,
}

/// A proxy's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum ProxyState {
    /// Wanted; not yet submitted.
    #[n(0)]
    Wanted,
    /// The submit command was started; its answer is not known.
    #[n(1)]
    Submitting,
    /// Queued.
    #[n(2)]
    Pend,
    /// Running.
    #[n(3)]
    Run,
    /// Ended.
    #[n(4)]
    Exit,
    /// No source of evidence answers.
    #[n(5)]
    Unknown,
}

impl ProxyState {
    /// As listings show it.
    pub fn name(self) -> &'static str {
        match self {
            ProxyState::Wanted => "WANTED",
            ProxyState::Submitting => "SUBMITTING",
            ProxyState::Pend => "PEND",
            ProxyState::Run => "RUN",
            ProxyState::Exit => "EXIT",
            ProxyState::Unknown => "UNKNOWN",
        }
    }
}

/// What the agent knows of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyInfo {
    /// Its number.
    #[n(0)]
    pub id: ProxyId,
    /// Its state.
    #[n(1)]
    pub state: ProxyState,
    /// The batch system's id, once known.
    #[n(2)]
    pub batch_id: Option<String>,
    /// How long it has been in this state, when this was said.
    #[n(3)]
    pub age_ms: u64,
    /// Starters connected now.
    #[n(4)]
    pub starters: u32,
    /// Starters there should be.
    #[n(5)]
    pub nodes: u32,
    /// The evidence for the state, or what is waited for; the batch system's own words are kept.
    #[n(6)]
    pub why: String,
}

/// Proxies that changed (all of them, after [`AgentHello`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyReport {
    /// In order of id.
    #[n(0)]
    pub proxies: Vec<ProxyInfo>,
}

/// Something the user should know: a rejected submission, a full disk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SiteNote {
    /// Is it over? Then `message` is what was wrong.
    #[n(0)]
    pub resolved: bool,
    /// In one line; a batch system's words are kept.
    #[n(1)]
    pub message: String,
    /// What the user may do.
    #[n(2)]
    pub hint: Option<String>,
    /// Does it keep new proxies from being submitted until the user acts?
    #[n(3)]
    pub blocks: bool,
    /// Is it worth a line, and nothing is wrong now?
    #[n(4)]
    #[cbor(default)]
    pub passing: bool,
}

/// A starter is connected.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterUp {
    /// Which.
    #[n(0)]
    pub key: StarterKey,
    /// What it offers.
    #[n(1)]
    pub facts: StarterFacts,
}

/// A starter's connection ended. `gone` tells whether it is known to have ended, so that its jobs can be tried elsewhere; if not,
/// it may come back until its lease ends, when this is said again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterDown {
    /// Which.
    #[n(0)]
    pub key: StarterKey,
    /// Is there evidence that it ended?
    #[n(1)]
    pub gone: bool,
    /// The evidence.
    #[n(2)]
    pub why: String,
}

/// The agent lacks a file that starters ask for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NeedBlob {
    /// SHA-256 of its content.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// A piece of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobChunk {
    /// SHA-256 of the whole.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Where the piece begins.
    #[n(1)]
    pub offset: u64,
    /// Bytes of the whole.
    #[n(2)]
    pub size: u64,
    /// The piece; at most [`crate::work::CHUNK`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// The file can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobMissing {
    /// SHA-256 of its content.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Why.
    #[n(1)]
    pub why: String,
}

/// The next pieces may come: at most [`crate::work::WINDOW`] bytes are under way unacknowledged, each way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobAck {
    /// SHA-256 of the whole.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Bytes received so far.
    #[n(1)]
    pub received: u64,
}

/// End these proxies, whatever they run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RemoveProxies {
    /// Which.
    #[n(0)]
    pub proxies: Vec<ProxyId>,
}

/// End the session here: remove every proxy, wait for the batch system to agree, remove our files, end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shutdown {
    /// Give up waiting for the batch system after this.
    #[n(0)]
    pub patience_ms: u64,
}

/// The last word of an agent that was shut down, after its files are gone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShutdownDone {
    /// What could not be removed, and how to remove it; empty if nothing is left.
    #[n(0)]
    pub left: Vec<String>,
}

/// A heartbeat, either way; answered by [`Pong`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// Told back.
    #[n(0)]
    pub nonce: u64,
}

/// The answer to [`Ping`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// As asked.
    #[n(0)]
    pub nonce: u64,
}

/// What the agent has done and used, on request and now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AgentStats {
    /// Batch-system commands run since the agent's start: submit, status, accounting, cancel.
    #[n(0)]
    pub calls: [u64; 4],
    /// CPU time of the agent itself, in milliseconds.
    #[n(1)]
    pub cpu_ms: u64,
    /// Its resident memory, in KiB.
    #[n(2)]
    pub rss_kib: u64,
    /// Since the last answered status call, in milliseconds.
    #[n(3)]
    pub status_age_ms: Option<u64>,
}

/// Tell the evidence for a proxy's state, or the site's. Answered by [`Because`]; agents that don't know the question are silent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Why {
    /// Told back.
    #[n(0)]
    pub nonce: u64,
    /// The proxy; none for the site itself.
    #[n(1)]
    pub proxy: Option<ProxyId>,
}

/// A step of a chain of evidence. The clocks of two hosts are never compared, so its time is an age.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WhyStep {
    /// How long ago, when this was said; none if no record tells.
    #[n(0)]
    pub age_ms: Option<u64>,
    /// What was seen or concluded; the batch system's words are kept.
    #[n(1)]
    pub text: String,
}

/// The answer to [`Why`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Because {
    /// As asked.
    #[n(0)]
    pub nonce: u64,
    /// The agent's records, oldest first, as far as it has them; the last [`WHY_STEPS`].
    #[n(1)]
    pub steps: Vec<WhyStep>,
    /// What holds now.
    #[n(2)]
    pub now: Vec<WhyStep>,
    /// What is waited for next.
    #[n(3)]
    pub next: Vec<String>,
    /// What is missing among the records.
    #[n(4)]
    pub gaps: Vec<String>,
}

/// Most steps of a [`Because`]; each is cut to [`WHY_BYTES`].
pub const WHY_STEPS: usize = 200;

/// See [`WHY_STEPS`].
pub const WHY_BYTES: usize = 2000;

kinds! {
    0x0101 => Configure, 0x0102 => AgentHello, 0x0103 => AgentRefused, 0x0104 => SetTarget, 0x0105 => ProxyReport,
    0x0106 => SiteNote, 0x0107 => StarterUp, 0x0108 => StarterDown, 0x0109 => NeedBlob, 0x010a => BlobChunk,
    0x010b => BlobMissing, 0x010c => BlobAck, 0x010d => RemoveProxies, 0x010e => Shutdown, 0x010f => ShutdownDone,
    0x0110 => Ping, 0x0111 => Pong, 0x0112 => AgentStats, 0x0113 => Why, 0x0114 => Because,
}
