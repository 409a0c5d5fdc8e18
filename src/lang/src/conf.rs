//! `vo.conf`: the session and its sites.
//!
//! The plain form has one gateway a line, as `host`, `user@host` or `user@host:port`, and `#` comments.
//! The full form is TOML with a `[session]` table and a `[[site]]` table for each site; see vo.conf(5).

mod read;
#[cfg(test)]
mod tests;
mod words;

use crate::Diagnostic;
use crate::eventlog::Form;
use std::collections::BTreeMap;
use std::time::Duration;

pub use words::{parse_detach_keys, parse_ports, parse_proxies};

/// Longest vo.conf, in bytes.
pub const MAX_TEXT: usize = 4 << 20;
/// Most job proxies at one site, most processors of a proxy's node, most nodes of a proxy.
pub const MAX_COUNT: u32 = 100_000;
/// Longest host, user, queue name or the like, in bytes.
const MAX_WORD: usize = 255;

/// A vo.conf, understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conf {
    /// What holds for the whole session.
    pub session: SessionConf,
    /// The sites in their order; names are unique. None at all means a session on this machine alone.
    pub sites: Vec<SiteConf>,
    /// What the author should know.
    pub warnings: Vec<Diagnostic>,
}

/// What holds for the whole session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConf {
    /// How often event agents send the master a sign of life; 2 h unless set.
    pub heartbeat: Duration,
    /// Heartbeats missed before `on_missed` holds, at least 1; 3 unless set.
    pub missed_heartbeats: u32,
    /// What an event agent does when its master stays silent.
    pub on_missed: OnMissed,
    /// How long a starter waits without a job before it ends itself; 20 min unless set.
    pub idle: Duration,
    /// How long a starter goes on without its event agent; 30 min unless set.
    pub lease: Duration,
    /// Ports on which event agents listen for starters, where a site doesn't say; any unless set.
    pub listen_ports: Option<Ports>,
    /// Most bytes kept of each output file of a job; no limit unless set.
    pub max_output: Option<u64>,
    /// Keys that detach a terminal; see [`parse_detach_keys`].
    pub detach_keys: Vec<u8>,
    /// Weights of accounting groups, at least 1; 1 unless set.
    pub shares: BTreeMap<String, u32>,
    /// Concurrency limits by name, in lower case; what isn't named has none.
    pub limits: BTreeMap<String, u32>,
    /// Between two looks at jobs whose policies say what becomes of them; 60 s unless set.
    pub policy_interval: Duration,
    /// How job event logs are written that say nothing else; text unless set.
    pub log_format: Form,
    /// What sends mails, for the shell; empty if none are to be sent. Unless set, the system's `sendmail`.
    pub mail: Option<String>,
}

/// Unused by line editors, and harmless where it comes through: `ctrl-^ d`.
const DETACH_KEYS: &[u8] = b"\x1ed";
/// Most keys that detach.
const MAX_KEYS: usize = 4;

impl Default for SessionConf {
    fn default() -> Self {
        SessionConf {
            heartbeat: Duration::from_secs(2 * 3_600),
            missed_heartbeats: 3,
            on_missed: OnMissed::Shutdown,
            idle: Duration::from_secs(20 * 60),
            lease: Duration::from_secs(30 * 60),
            listen_ports: None,
            max_output: None,
            detach_keys: DETACH_KEYS.to_vec(),
            shares: BTreeMap::new(),
            limits: BTreeMap::new(),
            policy_interval: Duration::from_secs(60),
            log_format: Form::Text,
            mail: None,
        }
    }
}

/// What becomes of a site's proxies when the master stays silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissed {
    /// The agent removes its proxies and ends.
    Shutdown,
    /// The agent keeps its proxies.
    Keep,
    /// The master moves the proxies to other sites.
    Reallocate,
}

/// One site: a gateway and what to ask of it. `None` leaves the choice to whoever acts on it.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteConf {
    /// Name in listings; letters, digits, `.`, `_` and `-`. Unless set, the gateway's first label, or the
    /// whole of it when sites would share that.
    pub name: String,
    /// Host name or alias for SSH, or an address without brackets. Never begins with a dash.
    pub gateway: String,
    /// User there, instead of what `~/.ssh/config` says.
    pub user: Option<String>,
    /// SSH port, instead of what `~/.ssh/config` says.
    pub port: Option<u16>,
    /// Batch system; detected unless set.
    pub batch: Option<String>,
    /// Job proxies wanted.
    pub proxies: Option<Proxies>,
    /// Nodes of each proxy; 1 unless set.
    pub nodes: u32,
    /// Walltime of each proxy.
    pub walltime: Option<Duration>,
    /// Queue or partition.
    pub queue: Option<String>,
    /// Account or project to charge.
    pub account: Option<String>,
    /// Lines for the batch script as they are, each an option of the batch system's submit command.
    pub directives: Vec<String>,
    /// Memory to ask for on each node, in bytes.
    pub memory: Option<u64>,
    /// Most proxies that wait in the site's queue at a time.
    pub max_queued: Option<u32>,
    /// Grid Engine's parallel environment.
    pub parallel_environment: Option<String>,
    /// Directory on the nodes for the jobs' files; absolute, or with a variable of the node such as `$TMPDIR`.
    pub scratch: Option<String>,
    /// Ports on which the event agent listens for starters.
    pub listen_ports: Option<Ports>,
    /// Use the system's `ssh` program (`-G`).
    pub system_ssh: bool,
    /// Most core hours to use. Not acted on yet; a warning says so.
    pub max_core_hours: Option<f64>,
    /// Attributes of its slots' machine ads, with the ClassAd text of their values.
    pub attributes: Vec<(String, String)>,
    /// What each of its nodes has of resources of its own (`request_NAME`), each from 1 to [`MAX_COUNT`].
    pub resources: Vec<(String, u32)>,
}

impl SiteConf {
    /// A site with nothing but its name and gateway set.
    pub fn new(name: impl Into<String>, gateway: impl Into<String>) -> Self {
        SiteConf {
            name: name.into(),
            gateway: gateway.into(),
            user: None,
            port: None,
            batch: None,
            proxies: None,
            nodes: 1,
            walltime: None,
            queue: None,
            account: None,
            directives: Vec::new(),
            memory: None,
            max_queued: None,
            parallel_environment: None,
            scratch: None,
            listen_ports: None,
            system_ssh: false,
            max_core_hours: None,
            attributes: Vec::new(),
            resources: Vec::new(),
        }
    }
}

/// `4:16`: 4 job proxies of 16 processors (on each of their nodes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxies {
    /// Number of proxies, from 1 to [`MAX_COUNT`].
    pub count: u32,
    /// Processors of each, from 1 to [`MAX_COUNT`].
    pub cpus: u32,
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Lowest port, at least 1.
    pub first: u16,
    /// Highest port, at least `first`.
    pub last: u16,
}

/// What the command line says for every site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `-n`
    pub proxies: Option<Proxies>,
    /// `-W`
    pub walltime: Option<Duration>,
    /// `-G`
    pub system_ssh: bool,
}

impl Conf {
    /// Puts what the command line says in place of what the sites say.
    pub fn apply(&mut self, overrides: &Overrides) {
        for site in &mut self.sites {
            site.proxies = overrides.proxies.or(site.proxies);
            site.walltime = overrides.walltime.or(site.walltime);
            site.system_ssh |= overrides.system_ssh;
        }
    }
}

/// Printed for `-n` in listings and messages: `4:16`.
impl std::fmt::Display for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.count, self.cpus)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
