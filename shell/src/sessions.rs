//! Where sessions are on this machine, and whether they run.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use vo_master::session::{SessionFile, private_dir, valid_name};

use crate::client::Master;
use crate::commands;
use crate::error::{Error, ExitCode, Result};

/// The name of a session that was given none.
pub(crate) const DEFAULT: &str = "default";

/// A session's place; nothing says that it exists.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

/// What is known of a session without asking it.
pub(crate) enum State {
    /// Its master listens.
    Running(Master),
    /// Its master is dead, and it did not end.
    Stale,
    /// There is none of this name.
    Absent,
}

impl Session {
    /// The session called `name`.
    pub(crate) fn named(name: &str) -> Result<Session> {
        if !valid_name(name) {
            let error = Error::usage(format!("{name:?} can't be a session's name"));
            return Err(error.hint("a name has up to 40 letters, digits, and - _ . and begins with a letter or digit"));
        }
        let dir = top()?.join(name);
        Ok(Session { name: name.to_owned(), dir })
    }

    /// The session that a grid command talks to: `-s`, else the one that it runs in, else the default.
    pub(crate) fn chosen(given: Option<&str>) -> Result<Session> {
        match (given, env::var("VO_SESSION"), env::var_os("VO_SESSION_DIR")) {
            (Some(name), ..) => Self::named(name),
            (None, Ok(name), Some(dir)) => Ok(Session { name, dir: dir.into() }),
            (None, Ok(name), None) => Self::named(&name),
            (None, Err(_), _) => Self::named(DEFAULT),
        }
    }

    pub(crate) fn state(&self) -> Result<State> {
        self.state_within(None)
    }

    fn state_within(&self, limit: Option<Duration>) -> Result<State> {
        if let Some(master) = Master::connect(&self.dir, limit)? {
            return Ok(State::Running(master));
        }
        Ok(if SessionFile::path(&self.dir).exists() { State::Stale } else { State::Absent })
    }

    /// As [`Session::state`], once any other client is done that starts the session or brings it back: until then it looks as if its
    /// master had been killed.
    pub(crate) fn settled(&self) -> Result<State> {
        match self.state()? {
            State::Stale => {
                let _others = self.lock()?;
                self.state()
            }
            state => Ok(state),
        }
    }

    /// Connects to the session's master.
    pub(crate) fn connect(&self) -> Result<Master> {
        match self.state()? {
            State::Running(master) => Ok(master),
            State::Stale => Err(Error::new(
                ExitCode::NoSession,
                format!("session {} doesn't run: its master was killed", self.name),
            )
            .hint(format!("`vo-login -r {}` brings it back", self.name))),
            State::Absent => Err(Error::new(ExitCode::NoSession, format!("there is no session {}", self.name))
                .hint("`vo-login` starts one; `vo-login -l` lists those that are there")),
        }
    }

    /// Makes the directory and holds the right to start a master in it, so that two clients don't start two. Waits for another
    /// client that is about to.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        let denied = |e| Error::system(format!("cannot use the session directory {}", self.dir.display()), e);
        private_dir(&top()?).map_err(denied)?;
        private_dir(&self.dir).map_err(denied)?;
        let path = self.dir.join("start.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path);
        Flock::lock(file.map_err(denied)?, FlockArg::LockExclusive).map_err(|(_, e)| denied(e.into()))
    }

    /// Where grid commands are programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.join("shell/bin")
    }

    /// Puts the grid commands into [`Session::bin`], as links to `program`.
    pub(crate) fn install_commands(&self, program: &Path) -> Result<()> {
        let bin = self.bin();
        let failed = |e| Error::system(format!("cannot write to {}", bin.display()), e);
        private_dir(&self.dir.join("shell")).and_then(|()| private_dir(&bin)).map_err(failed)?;
        for name in commands::programs() {
            let link = bin.join(name);
            if fs::read_link(&link).is_ok_and(|to| to == program) {
                continue;
            }
            let aside = bin.join(format!(".{name}"));
            let _ = fs::remove_file(&aside);
            symlink(program, &aside).and_then(|()| fs::rename(&aside, &link)).map_err(failed)?;
        }
        Ok(())
    }
}

/// The directory of all sessions.
fn top() -> Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    match state {
        Some(state) => Ok(state.join("vo-login")),
        None => Err(Error::new(ExitCode::Failure, "neither HOME nor XDG_STATE_HOME is set")
            .hint("set HOME to your home directory")),
    }
}

/// All sessions that run or could be brought back, by name. Of one whose master doesn't answer, or in words of another version, the state
/// is an error.
pub(crate) fn all() -> Result<Vec<(Session, Result<State>)>> {
    /// Others are to be listed, too.
    const LIMIT: Duration = Duration::from_secs(5);
    let top = top()?;
    let entries = match fs::read_dir(&top) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::system(format!("cannot read {}", top.display()), e)),
    };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    let sessions = names.iter().filter_map(|name| Session::named(name).ok());
    let sessions = sessions.map(|session| (session.state_within(Some(LIMIT)), session));
    Ok(sessions
        .filter(|(state, session)| match state {
            Ok(State::Running(_) | State::Stale) => true,
            Ok(State::Absent) => false,
            Err(_) => SessionFile::path(&session.dir).exists(),
        })
        .map(|(state, session)| (session, state))
        .collect())
}
