//! The lease files of a session's directory, `lease.EPOCH`: what [`vo_core::lease`] decides, done. They lie in a home that several login
//! nodes may share, so nothing here trusts a lock, a clock, or a file that seems not to be there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vo_core::lease::{Claim, Seen, Step};

/// A login node: its name, and which of its starts. Several may have one name, and after a start nothing runs of what ran before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) boot: String,
}

impl Node {
    /// This one.
    pub(crate) fn here() -> io::Result<Node> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Node { host: nix::unistd::gethostname()?.to_string_lossy().into_owned(), boot })
    }
}

/// A lease of our own.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) epoch: u64,
    path: PathBuf,
    content: String,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Held,
    /// Another agent has taken over.
    Lost,
}

fn epochs(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_prefix("lease.")?.parse::<u64>().ok()));
    }
    Ok(found)
}

/// The newest lease's epoch, and where its agent is, if there is one and it says so.
pub(crate) fn holder(dir: &Path) -> io::Result<Option<(u64, Node)>> {
    let Some(newest) = epochs(dir)?.into_iter().max() else {
        return Ok(None);
    };
    match fs::read_to_string(dir.join(format!("lease.{newest}"))) {
        Ok(text) => {
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            Ok(field("host ").zip(field("boot ")).map(|(host, boot)| (newest, Node { host, boot })))
        }
        // Removed meanwhile: whoever did it will show.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Lease {
    /// Takes the session's directory `dir` over; the epoch will be above `floor`. None if another agent did so meanwhile. `unique` is a
    /// random number.
    ///
    /// # Errors
    /// What the file system gave. A lease that was made by then stays, and is taken over from.
    pub(crate) fn claim(dir: &Path, floor: u64, unique: u64) -> io::Result<Option<Lease>> {
        let Node { host, boot } = Node::here()?;
        let content = format!("host {host}\nboot {boot}\nprocess {}\nunique {unique:016x}\n", std::process::id());
        let path = |epoch: u64| dir.join(format!("lease.{epoch}"));
        // Made whole under a name of its own, it gets the epoch's as a second one: that happens once, on any file server.
        let aside = dir.join(format!("lease-{unique:016x}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        let (mut claim, mut step) = Claim::new(floor);
        let epoch = loop {
            let seen = match step {
                Step::List => Seen::Listed(epochs(dir)?),
                Step::Make(epoch) => match fs::hard_link(&aside, path(epoch)) {
                    Ok(()) => Seen::Made(true),
                    // A server's answer that got lost is told by the second name.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                        Seen::Made(fs::metadata(&aside)?.nlink() == 2 && fs::read_to_string(path(epoch))? == content)
                    }
                    Err(e) => return Err(e),
                },
                Step::Remove(ref lower) => {
                    for &epoch in lower {
                        match fs::remove_file(path(epoch)) {
                            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                            _ => {}
                        }
                    }
                    Seen::Removed
                }
                Step::Held(epoch) => break Some(epoch),
                Step::Overtaken(_) => break None,
            };
            step = claim.next(seen);
        };
        fs::remove_file(&aside)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(epoch.map(|epoch| Lease { epoch, path: path(epoch), content }))
    }

    /// Asks the file server. A file that is opened is looked up there each time, whatever was remembered of it.
    ///
    /// # Errors
    /// No answer: then nothing is known, and nothing may be done.
    pub(crate) fn standing(&self) -> io::Result<Standing> {
        match fs::read_to_string(&self.path) {
            Ok(content) if content == self.content => Ok(Standing::Held),
            Ok(_) => Ok(Standing::Lost),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Standing::Lost),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_one_holds_and_the_older_one_knows() -> io::Result<()> {
        let home = tempfile::tempdir()?;
        assert_eq!(holder(home.path())?, None);
        let first = Lease::claim(home.path(), 0, 1)?.ok_or(io::ErrorKind::Other)?;
        assert_eq!((first.epoch, first.standing()?), (1, Standing::Held));
        assert_eq!(holder(home.path())?, Some((1, Node::here()?)));
        let second = Lease::claim(home.path(), 7, 2)?.ok_or(io::ErrorKind::Other)?;
        assert_eq!((second.epoch, second.standing()?), (8, Standing::Held));
        assert_eq!(first.standing()?, Standing::Lost);
        // One who listed something stale may make the first one's again.
        fs::write(&first.path, "host x\n")?;
        assert_eq!(first.standing()?, Standing::Lost);
        assert_eq!(fs::read_dir(home.path())?.count(), 2, "nothing else stays");
        Ok(())
    }

    #[test]
    fn of_many_at_once_the_newest_holds() -> io::Result<()> {
        let home = tempfile::tempdir()?;
        let claims: Vec<Option<Lease>> = std::thread::scope(|scope| {
            let dir = home.path();
            let threads: Vec<_> = (0..8).map(|unique| scope.spawn(move || Lease::claim(dir, 0, unique))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| io::ErrorKind::Other)?)
                .collect::<io::Result<_>>()
        })?;
        let held = claims.iter().flatten().filter(|lease| lease.standing().is_ok_and(|s| s == Standing::Held));
        assert_eq!(held.map(|lease| lease.epoch).collect::<Vec<_>>(), epochs(home.path())?);
        assert_eq!(epochs(home.path())?.len(), 1);
        Ok(())
    }
}
