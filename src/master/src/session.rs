//! What a session is on disk before its master runs: its directory, its `session.toml`, the address of its socket.
//!
//! The client writes `session.toml` and starts the master; the master removes it as the last act of a clean end. So a directory
//! with the file and without a listening socket is a session to recover, and one without the file is a name to use.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vo_lang::Diagnostic;
use vo_lang::conf::{Conf, MAX_COUNT, Overrides, Proxies, SiteConf, parse_proxies};

/// What the master writes to its readiness pipe once its socket listens. Anything else there is why it could not start: the
/// message in the first line, a hint in the second, if it has one.
pub const READY: &[u8] = b"ready\n";

/// Names of batch systems in `vo.conf`.
const BATCHES: &[&str] = &["slurm", "sge", "fork"];

/// The gateway's name of a site that is this machine: no SSH, and the batch system `fork`.
pub const LOCAL: &str = "local";

/// `session.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionFile {
    /// The session's name, as the user gave it; see [`valid_name`].
    pub name: String,
    /// 16 random hexadecimal digits.
    pub id: String,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// The running `vo-login` program, which is an agent when its name (argv\[0\]) is `vo-agent`: what a local site runs.
    pub program: PathBuf,
    /// Agent programs for gateways, the most portable first. The last is `program`.
    pub agents: Vec<PathBuf>,
    /// Read in place of `~/.ssh/config`, from `VO_SSH_CONFIG`.
    pub ssh_config: Option<PathBuf>,
    /// The configuration as its author wrote it: none is a session on this machine alone.
    pub conf: Option<ConfText>,
    /// `-n`, as `4:16`.
    pub proxies: Option<String>,
    /// `-W`.
    pub walltime_s: Option<u64>,
    /// `-G`.
    #[serde(default)]
    pub system_ssh: bool,
}

/// A `vo.conf`, kept whole, so that an edit or a lost file doesn't change a session that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfText {
    /// Its file, for messages.
    pub file: String,
    /// What stood in it.
    pub text: String,
}

impl SessionFile {
    /// Sites and settings, with the command line's words in them. A session on this machine alone has one site, `local`, with the
    /// batch system `fork`.
    ///
    /// # Errors
    /// All that is wrong with the configuration.
    pub fn read_conf(&self) -> Result<Conf, Vec<Diagnostic>> {
        let mut conf = match &self.conf {
            Some(ConfText { file, text }) => Conf::parse(file, text.as_bytes(), BATCHES)?,
            None => Conf { sites: vec![local_site()], ..Conf::default() },
        };
        conf.apply(&Overrides {
            proxies: self.proxies.as_deref().and_then(|text| parse_proxies(text).ok()),
            walltime: self.walltime_s.map(Duration::from_secs),
            system_ssh: self.system_ssh,
        });
        Ok(conf)
    }

    /// Is this machine the session's only site, reached without SSH?
    pub fn is_local(&self) -> bool {
        self.conf.is_none()
    }

    /// Where it stands in a session's directory.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("session.toml")
    }

    /// Reads the session of `dir`.
    ///
    /// # Errors
    /// Those of reading; [`io::ErrorKind::InvalidData`] for a file that isn't ours.
    pub fn read(dir: &Path) -> io::Result<SessionFile> {
        let text = fs::read_to_string(Self::path(dir))?;
        toml::from_str(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let aside = dir.join("session.toml.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, Self::path(dir))?;
        File::open(dir)?.sync_all()
    }
}

/// This machine: one proxy with all of its CPUs.
fn local_site() -> SiteConf {
    let cpus =
        thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(MAX_COUNT).min(MAX_COUNT));
    SiteConf { batch: Some("fork".into()), proxies: Some(Proxies { count: 1, cpus }), ..SiteConf::new("local", LOCAL) }
}

/// Is it a session's name? It becomes a file name here and at sites, and a part of batch jobs' names.
pub fn valid_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=40).contains(&name.len())
        && name.bytes().all(plain)
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

/// Makes the directory if it isn't there, with mode 0700, its parents too.
///
/// # Errors
/// Those of making it, and [`io::ErrorKind::PermissionDenied`] if it is another user's, a symbolic link, or open to others:
/// whoever could write there would run the session.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    let uid = nix::unistd::geteuid().as_raw();
    let problem = if !found.is_dir() {
        "is a symbolic link".to_owned()
    } else if found.uid() != uid {
        format!("belongs to user {}, not to user {uid}", found.uid())
    } else if found.mode() & 0o077 != 0 {
        format!("has mode {:04o}, but must be 0700", found.mode() & 0o7777)
    } else {
        return Ok(());
    };
    let message = format!("{} {problem}", dir.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// A path to the control socket that is short whatever the directory's name, since a socket's address holds 107 bytes. It stays good
/// while this value lives.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _dir: OwnedFd,
}

impl SocketPath {
    /// For the session in `dir`, which must exist.
    ///
    /// # Errors
    /// Those of opening `dir`.
    pub fn new(dir: &Path) -> io::Result<SocketPath> {
        let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
        let fd = OwnedFd::from(handle);
        let path = PathBuf::from(format!("/proc/self/fd/{}/control.sock", fd.as_raw_fd()));
        Ok(SocketPath { path, _dir: fd })
    }

    /// To bind or connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn names() {
        for good in ["default", "a", "run-7_b.2", &"x".repeat(40)] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "é", &"x".repeat(41)] {
            assert!(!valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_long_directory_name_still_has_a_socket() {
        let top = scratch("socket");
        let dir = top.join("d".repeat(120)).join("e".repeat(120));
        private_dir(&dir).unwrap();
        let address = SocketPath::new(&dir).unwrap();
        let listener = UnixListener::bind(address.path()).unwrap();
        UnixStream::connect(SocketPath::new(&dir).unwrap().path()).unwrap();
        listener.accept().unwrap();
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_or_that_is_a_link_is_refused() {
        let top = scratch("private");
        let dir = top.join("s");
        private_dir(&dir).unwrap();
        private_dir(&dir).unwrap();
        symlink(&dir, top.join("link")).unwrap();
        let denied = |path: &Path| private_dir(path).unwrap_err().kind() == io::ErrorKind::PermissionDenied;
        assert!(denied(&top.join("link")));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(denied(&dir));
        fs::remove_dir_all(top).unwrap();
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("vo-session-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
