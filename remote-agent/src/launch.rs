//! What an event agent leaves for the starters of a proxy, in files of the session's directory at the site.

use std::io;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use vo_core::ids::ProxyId;
use vo_wire::link::{Configure, Limits, Marker};

/// `proxies/N/launch`, 0600: everything that the starters of proxy N need. Holds the proxy's private key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Launch {
    /// The session's id.
    #[n(0)]
    pub session_id: String,
    /// The site's name.
    #[n(1)]
    pub site: String,
    /// The proxy.
    #[n(2)]
    pub proxy: ProxyId,
    /// The proxy's identity as PEM: chain, key and trust anchor.
    #[n(3)]
    pub identity: String,
    /// Limits and times.
    #[n(4)]
    pub limits: Limits,
    /// Tells whether the node shares files with the workstation.
    #[n(5)]
    pub marker: Marker,
    /// CPUs asked for on each node; the batch system's word, if it gives one, goes before.
    #[n(6)]
    pub cpus: u32,
    /// Memory asked for on each node.
    #[n(7)]
    pub memory_mb: Option<u32>,
    /// Walltime asked for, in seconds.
    #[n(8)]
    pub walltime_s: u64,
    /// Where scratch directories are made; none is `$VO_SCRATCH`, else `/tmp`.
    #[n(9)]
    pub scratch: Option<String>,
}

/// `agent.addr`, 0600, rewritten whenever an agent starts: where the starters find it now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentAddress {
    /// The agent's epoch.
    #[n(0)]
    pub epoch: u64,
    /// `ADDRESS:PORT`, in the order in which they should be tried.
    #[n(1)]
    pub addresses: Vec<String>,
}

/// `revival`, 0600, rewritten at each connection of a master: with it an agent can go on without one ([`crate::revive`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revival {
    /// What the master said last. Holds the site's authority, which signs for this session and site only.
    #[n(0)]
    pub configure: Configure,
    /// The agent's program.
    #[n(1)]
    pub program: String,
}

/// The files of a session's directory at a site.
#[derive(Clone, Debug)]
pub struct SiteDir(pub PathBuf);

impl SiteDir {
    /// `agent.addr`.
    pub fn address(&self) -> PathBuf {
        self.0.join("agent.addr")
    }

    /// `revival`.
    pub fn revival(&self) -> PathBuf {
        self.0.join("revival")
    }

    /// `agent.sock`: where bridges find the agent.
    pub fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// `jobinfo_table`.
    pub fn table(&self) -> PathBuf {
        self.0.join("jobinfo_table")
    }

    /// `proxies/N`.
    pub fn proxy(&self, proxy: ProxyId) -> PathBuf {
        self.0.join("proxies").join(proxy.to_string())
    }

    /// `proxies/N/launch`.
    pub fn launch(&self, proxy: ProxyId) -> PathBuf {
        self.proxy(proxy).join("launch")
    }

    /// `proxies/N/exit`: the proxy script's last word.
    pub fn exit_file(&self, proxy: ProxyId) -> PathBuf {
        self.proxy(proxy).join("exit")
    }

    /// `tags/N.NODE`: there from before the submission until nothing of the proxy runs on the node.
    pub fn tag(&self, proxy: ProxyId, node: u32) -> PathBuf {
        self.0.join("tags").join(format!("{proxy}.{node}"))
    }

    /// `spool`: results that starters could not tell; see `spool.rs`.
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// `blobs`: input files by content hash.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }
}

/// Reads a file that [`Launch`] or [`AgentAddress`] was written to.
///
/// # Errors
/// What reading gave, and `InvalidData` for other content.
pub fn read<T: for<'b> Decode<'b, ()>>(path: &Path) -> io::Result<T> {
    minicbor::decode(&std::fs::read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}
