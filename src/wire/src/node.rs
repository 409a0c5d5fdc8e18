//! Starter and event agent, over mutual TLS. Kinds `0x02..`. The starter opens with [`StarterHello`], the agent answers
//! [`Welcome`] or closes. Files are asked for with [`crate::link::NeedBlob`], answered with [`crate::link::BlobChunk`] (acknowledged
//! with [`crate::link::BlobAck`]) or [`crate::link::BlobMissing`]; [`crate::link::Ping`] and [`crate::link::Pong`] serve here too.

use minicbor::{Decode, Encode};
use vo_core::ids::{ProxyId, StarterKey};

use crate::frame::kinds;

/// Which files a node shares with the workstation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Shares {
    /// None that we know of.
    #[default]
    #[n(0)]
    Nothing,
    /// Those of the marker's file system; see [`crate::link::Marker`].
    #[n(1)]
    MarkerFs,
    /// All: it is the workstation.
    #[n(2)]
    Everything,
}

/// What a starter is and offers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterFacts {
    /// Its proxy.
    #[n(0)]
    pub proxy: ProxyId,
    /// Which node of the proxy, from 0.
    #[n(1)]
    pub node_index: u32,
    /// The batch system's id of the proxy, and how often it was requeued.
    #[n(2)]
    pub batch_id: String,
    /// See `batch_id`.
    #[n(3)]
    pub restarts: u32,
    /// The node's host name.
    #[n(4)]
    pub host: String,
    /// CPUs that it may use.
    #[n(5)]
    pub cpus: u32,
    /// Memory that it may use.
    #[n(6)]
    pub memory_mb: u64,
    /// GPUs that it sees.
    #[n(7)]
    pub gpus: u32,
    /// Free bytes where scratch directories are made.
    #[n(8)]
    pub scratch_bytes: u64,
    /// TimeToLive: what is left of the walltime, in milliseconds, when this is said; none is no limit.
    #[n(9)]
    pub time_left_ms: Option<u64>,
    /// Which files it shares with the workstation.
    #[n(10)]
    pub shares: Shares,
    /// Machine architecture, as `uname -m`.
    #[n(11)]
    pub arch: String,
    /// Operating system and its version.
    #[n(12)]
    pub system: String,
    /// The starter's process, for a person who looks for it.
    #[n(13)]
    pub pid: u32,
    /// What its GPUs are like, if that is known.
    #[n(14)]
    pub gpu: Option<Gpu>,
    /// It has apptainer or singularity.
    #[cbor(n(15), default)]
    pub apptainer: bool,
    /// It has podman.
    #[cbor(n(16), default)]
    pub podman: bool,
    /// It has curl.
    #[cbor(n(17), default)]
    pub curl: bool,
    /// It has pelican or stashcp.
    #[cbor(n(18), default)]
    pub pelican: bool,
}

/// A kind of GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Gpu {
    /// What its maker calls it.
    #[n(0)]
    pub name: String,
    /// Its own memory.
    #[n(1)]
    pub memory_mb: u64,
    /// Its compute capability, in tenths: 86 is 8.6. 0 is unknown.
    #[n(2)]
    pub capability: u32,
    /// The newest version of CUDA that its driver runs, in tenths. 0 is unknown.
    #[n(3)]
    pub cuda: u32,
}

/// A starter calls in, for the first time or again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterHello {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
    /// Its key.
    #[n(1)]
    pub key: StarterKey,
    /// Largest agent epoch that it has seen: an agent with a smaller one is fenced off.
    #[n(2)]
    pub epoch: u64,
    /// What it offers.
    #[n(3)]
    pub facts: StarterFacts,
}

/// The starter is taken in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// [`crate::PROTOCOL`].
    #[n(0)]
    pub protocol: u32,
    /// The agent's epoch.
    #[n(1)]
    pub epoch: u64,
    /// Is the master's stream open?
    #[n(2)]
    pub master: bool,
}

/// The master's stream opened or closed. When it opens, a starter says what it holds ([`crate::work::Inventory`]); frames sent to the
/// master while it was closed are lost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MasterLink {
    /// Is it open?
    #[n(0)]
    pub up: bool,
}

/// The starter ends by itself, after this frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leaving {
    /// Why: idle, walltime, asked.
    #[n(0)]
    pub why: String,
}

/// The starter is to kill what it runs and end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// Why.
    #[n(0)]
    pub why: String,
}

kinds! {
    0x0201 => StarterHello, 0x0202 => Welcome, 0x0203 => MasterLink, 0x0204 => Leaving, 0x0205 => End,
}
