//! Starters, sites and proxies, listed.

use super::*;
use crate::link::ProxyInfo;
use vo_core::ids::StarterKey;

/// List the pool: [`StarterRows`], then [`Done`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ListPool {
    /// Only those starters of whose ads this ClassAd expression holds.
    #[n(0)]
    pub constraint: Option<String>,
    /// What of their ads is wanted, as [`AdRows`] instead of [`StarterRows`].
    #[n(1)]
    pub columns: Option<Columns>,
}

/// A starter's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StarterState {
    /// Connected, with nothing to run.
    #[n(0)]
    Idle,
    /// Connected, running jobs.
    #[n(1)]
    Busy,
    /// Near the end of its walltime: takes no new jobs.
    #[n(2)]
    Draining,
    /// Not connected to its agent; its lease runs.
    #[n(3)]
    Silent,
    /// Its site is not connected to the master.
    #[n(4)]
    Unreachable,
    /// Its node gets no work; see [`ExcludedNode`].
    #[n(5)]
    Excluded,
}

/// A starter and its slots, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterRow {
    /// Its key.
    #[n(0)]
    pub key: StarterKey,
    /// Its site.
    #[n(1)]
    pub site: String,
    /// The node.
    #[n(2)]
    pub host: String,
    /// Its proxy's number at the site.
    #[n(3)]
    pub proxy: u64,
    /// Its state.
    #[n(4)]
    pub state: StarterState,
    /// In this state for.
    #[n(5)]
    pub age_ms: u64,
    /// CPUs.
    #[n(6)]
    pub cpus: u32,
    /// CPUs that jobs occupy.
    #[n(7)]
    pub busy_cpus: u32,
    /// Memory.
    #[n(8)]
    pub memory_mb: u64,
    /// Running jobs.
    #[n(9)]
    pub running: u32,
    /// Jobs waiting at the starter.
    #[n(10)]
    pub queued: u32,
    /// Jobs that it completed.
    #[n(11)]
    pub completed: u64,
    /// TimeToLive.
    #[n(12)]
    pub time_left_ms: Option<u64>,
    /// Architecture.
    #[n(13)]
    pub arch: String,
    /// Operating system.
    #[n(14)]
    pub system: String,
    /// GPUs.
    #[n(15)]
    pub gpus: u32,
}

impl StarterRow {
    /// `slot7@n1`
    pub fn name(&self) -> String {
        format!("slot{}@{}", self.proxy, self.host)
    }

    /// State and activity, in condor_status's words.
    pub fn words(&self) -> (&'static str, &'static str) {
        match (self.state, self.running) {
            (StarterState::Idle, _) => ("Unclaimed", "Idle"),
            (StarterState::Busy, _) => ("Claimed", "Busy"),
            (StarterState::Draining, 0) => ("Drained", "Idle"),
            (StarterState::Draining, _) => ("Drained", "Retiring"),
            (StarterState::Excluded, 0) => ("Excluded", "Idle"),
            (StarterState::Excluded, _) => ("Excluded", "Retiring"),
            (StarterState::Silent, _) => ("Unknown", "Silent"),
            (StarterState::Unreachable, _) => ("Unknown", "Cut off"),
        }
    }
}

/// A page of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StarterRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<StarterRow>,
}

/// List sites: [`SiteRows`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListSites {}

/// A site's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SiteState {
    /// Being connected to.
    #[n(0)]
    Connecting,
    /// Connected.
    #[n(1)]
    Up,
    /// Nobody answers; tried again.
    #[n(2)]
    Lost,
    /// Failed for good, or until the user acts.
    #[n(3)]
    Failed,
    /// A person must log in.
    #[n(4)]
    NeedsLogin,
    /// Removing its proxies.
    #[n(5)]
    Ending,
    /// Ended: nothing of ours is left there.
    #[n(6)]
    Ended,
    /// The gateway turns us away; tried again, but seldom.
    #[n(7)]
    Blocked,
}

/// A site, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SiteRow {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its gateway.
    #[n(1)]
    pub gateway: String,
    /// Its state.
    #[n(2)]
    pub state: SiteState,
    /// In this state since.
    #[n(3)]
    pub since_ms: u64,
    /// The batch system, once known.
    #[n(4)]
    pub batch: Option<String>,
    /// Proxies wanted now.
    #[n(5)]
    pub target: u32,
    /// Proxies queued (wanted, submitting or pending).
    #[n(6)]
    pub queued: u32,
    /// Proxies running.
    #[n(7)]
    pub running: u32,
    /// Starters connected.
    #[n(8)]
    pub starters: u32,
    /// CPUs in the pool.
    #[n(9)]
    pub cpus: u32,
    /// CPUs that jobs occupy.
    #[n(10)]
    pub busy_cpus: u32,
    /// Jobs completed here.
    #[n(11)]
    pub completed: u64,
    /// What is wrong, if anything.
    #[n(12)]
    pub problem: Option<String>,
    /// What the user may do.
    #[n(13)]
    pub hint: Option<String>,
    /// Batch-system commands run by the agent: submit, status, accounting, cancel.
    #[n(14)]
    pub calls: [u64; 4],
    /// The gateway's host name by its own word.
    #[n(15)]
    pub host: Option<String>,
    /// Its nodes that get no work.
    #[cbor(n(16), default)]
    pub excluded: Vec<ExcludedNode>,
    /// When it is tried again, if it can't be used now.
    #[n(17)]
    pub next_try_ms: Option<u64>,
}

/// A node on which too many jobs failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExcludedNode {
    /// Its name.
    #[n(0)]
    pub host: String,
    /// Since when.
    #[n(1)]
    pub since_ms: u64,
    /// Until when.
    #[n(2)]
    pub until_ms: u64,
    /// The evidence.
    #[n(3)]
    pub why: String,
}

/// A page of sites.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SiteRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<SiteRow>,
}

/// List proxies: [`ProxyRows`], then [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListProxies {
    /// Ended ones too?
    #[n(0)]
    pub all: bool,
}

/// A proxy, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyRow {
    /// Its site.
    #[n(0)]
    pub site: String,
    /// The rest; `age_ms` is as of now.
    #[n(1)]
    pub info: ProxyInfo,
}

/// A page of proxies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<ProxyRow>,
}
