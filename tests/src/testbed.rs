//! The sites of contrib/testbed.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use crate::{project, seconds};

/// A site of the testbed.
#[derive(Debug)]
pub struct Site {
    /// Its name, in the SSH configuration too; with `-key` behind it no question is asked.
    pub name: &'static str,
    /// The account there.
    pub user: &'static str,
    /// How its batch system is called in listings.
    pub batch: &'static str,
    hosts: &'static [&'static str],
}

/// Slurm, with a plain key and two gateways.
pub const TUNDRA: Site =
    Site { name: "tundra", user: "alice", batch: "slurm", hosts: &["gw", "gw2", "mgr", "n1", "n2"] };
/// Slurm, with a key that has a passphrase.
pub const MESA: Site = Site { name: "mesa", user: "bob", batch: "slurm", hosts: &["gw", "mgr", "n1", "n2"] };
/// Grid Engine, with a password and a one-time code.
pub const GRID: Site = Site { name: "grid", user: "carol", batch: "sge", hosts: &["gw", "mgr", "n1", "n2"] };
/// A gateway without a batch system.
pub const BARE: Site = Site { name: "bare", user: "dave", batch: "none", hosts: &["gw"] };

/// The passphrase of mesa's key.
pub const PASSPHRASE: &str = "mesa-passphrase";
/// The password at grid.
pub const PASSWORD: &str = "grid-password";

/// Alice's Kerberos password at tundra.
pub const KERBEROS_PASSWORD: &str = "tundra-password";

/// `contrib/testbed` with `arguments`; panics with its words if it fails.
pub fn testbed(arguments: &[&str]) -> String {
    let output =
        Command::new(project().join("contrib/testbed")).args(arguments).output().expect("contrib/testbed can be run");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "testbed {arguments:?}: {}\n{words}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Panics unless every site is ready.
pub fn need_up() {
    static UP: OnceLock<()> = OnceLock::new();
    UP.get_or_init(|| {
        testbed(&["status"]);
    });
}

/// Where the testbed keeps its files.
pub fn state() -> PathBuf {
    std::env::var_os("VO_TESTBED_STATE").map_or_else(|| "/var/tmp/vo-testbed".into(), PathBuf::from)
}

/// The SSH configuration that knows the sites.
pub fn ssh_config() -> PathBuf {
    state().join("ssh_config")
}

/// A one-time code for grid that works now.
pub fn one_time_code() -> String {
    testbed(&["otp"]).trim().to_owned()
}

/// Runs a line of shell as root inside a host; its exit code doesn't matter.
pub fn root(host: &str, line: &str) -> String {
    testbed(&["exec", host, "sh", "-c", &format!("{{ {line}; }} 2>&1 || true")])
}

impl Site {
    /// Its gateway in the testbed.
    pub fn gateway(&self) -> String {
        format!("{}-gw", self.name)
    }

    /// The name under which no question is asked.
    pub fn plain(&self) -> String {
        format!("{}-key", self.name)
    }

    /// All its hosts.
    pub fn hosts(&self) -> impl Iterator<Item = String> {
        self.hosts.iter().map(|host| format!("{}-{host}", self.name))
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = String> {
        self.hosts().filter(|host| host.rsplit('-').next().is_some_and(|role| role.starts_with('n')))
    }

    /// Runs a line of shell as the user, on the gateway.
    pub fn sh(&self, line: &str) -> String {
        testbed(&["exec", "-u", self.user, &self.gateway(), "sh", "-c", line])
    }

    /// The user's batch jobs that have not ended, a line each.
    pub fn batch_jobs(&self) -> Vec<String> {
        let listing = match self.batch {
            "slurm" => self.sh("squeue -h -u $(id -un) -o '%i %T %j'"),
            "sge" => self.sh("qstat -u $(id -un) | tail -n +3"),
            _ => String::new(),
        };
        listing.lines().map(str::to_owned).collect()
    }

    /// The user's processes on all hosts, but for logins.
    pub fn processes(&self) -> Vec<String> {
        let of = |host: String| {
            let listing = root(&host, &format!("ps -u {} -o pid=,ppid=,args= --width 200", self.user));
            listing
                .lines()
                .filter(|line| !line.contains("sshd: "))
                .map(|line| format!("{host}: {line}"))
                .collect::<Vec<_>>()
        };
        self.hosts().flat_map(of).collect()
    }

    /// Files below the user's `.vo-login`.
    pub fn files(&self) -> Vec<String> {
        self.sh("find .vo-login 2>/dev/null || true").lines().map(str::to_owned).collect()
    }

    /// Waits until nothing of ours is at the site: batch jobs, processes, files. A batch system takes some seconds to see that a
    /// job has ended.
    pub fn assert_nothing_left(&self) {
        let deadline = Instant::now() + seconds(30);
        loop {
            let left = [self.batch_jobs(), self.processes(), self.files()].concat();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "at {}: batch jobs, processes or files are left: {left:#?}", self.name);
        }
    }
}

/// Removes what a session left at the sites: after a failed test, so that the next one finds them as it should. `id` is the
/// session's, which is in the name of every batch job, directory and command line of it.
pub fn sweep(id: &str) {
    for site in [TUNDRA, MESA, GRID, BARE] {
        // An agent that lives would submit what is cancelled anew.
        let kill = || {
            for host in site.hosts() {
                root(&host, &format!("pgrep -u {} -f '[-]{id}' | xargs -r kill -KILL", site.user));
            }
        };
        kill();
        match site.batch {
            "slurm" => drop(site.sh(&format!("squeue -h -o '%i %j' | grep {id} | cut -d' ' -f1 | xargs -r scancel"))),
            "sge" => drop(site.sh(&format!("qdel 'vo-{id}*' >/dev/null 2>&1; true"))),
            _ => {}
        }
        kill();
        site.sh(&format!("rm -rf .vo-login/*-{id}; ls -d .vo-login/*-* >/dev/null 2>&1 || rm -rf .vo-login"));
    }
}
