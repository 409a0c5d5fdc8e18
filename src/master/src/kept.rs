//! What attempts leave to the next ones of their jobs: checkpoints, and the outputs of those that were interrupted. One set of files a job, in
//! the session's directory until the job leaves the queue:
//!
//! ```text
//! kept/12.3/1.4/              the fourth set of attempt 1, whole
//!   files/NAME                by their names in the scratch directory
//!   stdout, stderr            if they are written on
//! kept/12.3/2.1.17.new/       one that comes, by the number of its collection
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vo_core::ids::{AttemptId, JobId};
use vo_core::job::OutputKind;

use crate::outputs::Failure;

/// Which set of a job: the attempt, and the set's number. The highest is the newest.
pub(crate) type Which = (u32, u32);

/// The sets of a session. Used from blocking tasks, several at once.
#[derive(Debug)]
pub(crate) struct Sets {
    dir: PathBuf,
    newest: Mutex<BTreeMap<JobId, Which>>,
}

impl Sets {
    /// Those that an earlier master has kept; what it had not whole is removed.
    pub(crate) fn open(session_dir: &Path) -> Sets {
        let sets = Sets { dir: session_dir.join("kept"), newest: Mutex::default() };
        for entry in fs::read_dir(&sets.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(job) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let found = names(&entry.path()).into_iter().filter_map(|name| which(&name)).max();
            match found {
                Some(newest) => {
                    sets.lock().insert(job, newest);
                    // Nothing comes yet.
                    sets.tidy(job, newest, true);
                }
                None => sets.remove(job),
            }
        }
        sets
    }

    /// Is this one, or a newer one, here?
    pub(crate) fn has(&self, job: JobId, which: Which) -> bool {
        self.lock().get(&job).is_some_and(|newest| *newest >= which)
    }

    /// The directory of a job's newest.
    pub(crate) fn newest(&self, job: JobId) -> Option<PathBuf> {
        let which = *self.lock().get(&job)?;
        Some(self.path(job, which))
    }

    /// Jobs that have one.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.lock().keys().copied().collect()
    }

    /// A directory for one that comes. Blocks.
    pub(crate) fn begin(&self, id: AttemptId, number: u32, collection: u64) -> Result<PathBuf, Failure> {
        let dir = self.job(id.job).join(format!("{}.{number}.{collection}.new", id.attempt));
        let made = fs::create_dir_all(dir.join("files"));
        made.map(|()| dir.clone()).map_err(|e| Failure::ours(&dir, &e))
    }

    /// It came whole: it counts, and those before it go. Blocks.
    pub(crate) fn finish(&self, id: AttemptId, number: u32, come: &Path) -> Result<(), Failure> {
        let (job, which) = (id.job, (id.attempt, number));
        let path = self.path(job, which);
        let failed = |e: io::Error| Failure::ours(&path, &e);
        if !self.has(job, which) {
            let dir = File::open(come).map_err(failed)?;
            nix::unistd::syncfs(&dir).map_err(|e| failed(e.into()))?;
            fs::rename(come, &path).map_err(failed)?;
            File::open(self.job(job)).and_then(|dir| dir.sync_all()).map_err(failed)?;
            self.lock().insert(job, which);
        }
        self.tidy(job, which, false);
        Ok(())
    }

    /// It came only in part. Blocks.
    pub(crate) fn abandon(&self, come: &Path) {
        let _ = fs::remove_dir_all(come);
    }

    /// The job has left the queue. Blocks.
    pub(crate) fn remove(&self, job: JobId) {
        self.lock().remove(&job);
        if let Err(error) = fs::remove_dir_all(self.job(job)) {
            tracing::warn!(%job, %error, "what was kept for its next attempt can't be removed");
        }
    }

    /// Removes all that is older than `newest`, and what of that came twice; or whatever is `torn`.
    fn tidy(&self, job: JobId, newest: Which, torn: bool) {
        for name in names(&self.job(job)) {
            let (known, new) = match name.strip_suffix(".new").and_then(|name| name.rsplit_once('.')) {
                Some((known, _)) => (which(known), true),
                None => (which(&name), false),
            };
            if known.is_none_or(|known| known < newest || (new && (torn || known == newest))) {
                let _ = fs::remove_dir_all(self.job(job).join(name));
            }
        }
    }

    fn job(&self, job: JobId) -> PathBuf {
        self.dir.join(job.to_string())
    }

    fn path(&self, job: JobId, (attempt, number): Which) -> PathBuf {
        self.job(job).join(format!("{attempt}.{number}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Which>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn which(name: &str) -> Option<Which> {
    let (attempt, number) = name.split_once('.')?;
    Some((attempt.parse().ok()?, number.parse().ok()?))
}

/// Where a file of a set is, in the set's directory. The node names it: it stays below that, whatever it says.
pub(crate) fn place(set: &Path, kind: &OutputKind) -> Result<PathBuf, Failure> {
    match kind {
        OutputKind::Stdout => Ok(set.join("stdout")),
        OutputKind::Stderr => Ok(set.join("stderr")),
        OutputKind::File(name) => {
            let name = Path::new(OsStr::from_bytes(name));
            let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
            let plain = plain && !name.as_os_str().is_empty();
            let named = plain.then(|| set.join("files").join(name));
            named.ok_or_else(|| Failure::site("the node keeps a file that is not in the job's directory"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(attempt: u32) -> AttemptId {
        AttemptId { job: JobId { cluster: 12, proc: 3 }, attempt }
    }

    #[test]
    fn the_newest_whole_set_counts() {
        let dir = std::env::temp_dir().join(format!("vo-kept-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let sets = Sets::open(&dir);
        let keep = |sets: &Sets, attempt, number, text: &str| {
            let come = sets.begin(id(attempt), number, 7).unwrap();
            fs::write(come.join("files/state"), text).unwrap();
            sets.finish(id(attempt), number, &come).unwrap();
        };
        let state = |sets: &Sets| fs::read_to_string(sets.newest(id(1).job).unwrap().join("files/state")).unwrap();
        assert!(sets.newest(id(1).job).is_none());
        keep(&sets, 1, 1, "one");
        keep(&sets, 1, 2, "two");
        // One that comes late, and one that doesn't come whole, replace nothing.
        keep(&sets, 1, 1, "late");
        let torn = sets.begin(id(2), 1, 8).unwrap();
        fs::write(torn.join("files/state"), "torn").unwrap();
        assert_eq!(
            (state(&sets).as_str(), sets.has(id(1).job, (1, 2)), sets.has(id(1).job, (2, 1))),
            ("two", true, false)
        );
        let sets = Sets::open(&dir);
        assert_eq!((state(&sets).as_str(), sets.jobs()), ("two", vec![id(1).job]));
        let left = |sets: &Sets| names(&sets.job(id(1).job));
        assert_eq!(left(&sets), ["1.2"], "after a crash, what was torn is gone");
        keep(&sets, 10, 1, "later");
        assert_eq!((state(&sets).as_str(), left(&sets)), ("later", vec!["10.1".to_owned()]));
        sets.remove(id(1).job);
        assert!(!sets.dir.join("12.3").exists() && sets.jobs().is_empty());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_set_holds_only_its_own_files() {
        let set = Path::new("/kept/1.0/1.1");
        let file = |name: &str| place(set, &OutputKind::File(name.into()));
        assert_eq!(file("a/b").unwrap(), set.join("files/a/b"));
        for name in ["", "..", "../x", "a/../../x", "/etc/passwd", "."] {
            assert!(file(name).is_err(), "{name}");
        }
        assert_eq!(place(set, &OutputKind::Stderr).unwrap(), set.join("stderr"));
    }
}
