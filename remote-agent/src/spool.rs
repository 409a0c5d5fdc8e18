//! Results that a starter could not tell when it had to end, in files of the session's directory at the site. The agent stands in for
//! the starter (`event/spool.rs`) until the master has acknowledged them.
//!
//! ```text
//! spool/KEY/                  0700; KEY is the starter's
//!   facts                     what the starter was
//!   outputs/HASH              files too large to come within a result
//!   results/12.3-1            a result, there once all of its files are
//! spool/KEY.done/             on its way out
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use vo_core::ids::{AttemptId, StarterKey};
use vo_core::job::{AttemptResult, Output, OutputKind};
use vo_wire::node::StarterFacts;

use crate::launch::{self, SiteDir};

/// Bytes of output files that one starter puts aside: it has seconds to do so, and the home has its quota.
const SPOOL_BYTES: u64 = 1 << 30;

/// Longest file of one result.
const RESULT_BYTES: u64 = 4 << 20;

/// Ends the name of a directory that is being removed.
const DONE: &str = "done";

/// What one starter left.
#[derive(Debug, Clone)]
pub(crate) struct Spool(PathBuf);

/// `12.3-1`, as scratch directories are named too.
pub(crate) fn name(id: AttemptId) -> String {
    format!("{}-{}", id.job, id.attempt)
}

/// The attempt of such a name.
pub(crate) fn attempt(name: &str) -> Option<AttemptId> {
    let (job, attempt) = name.split_once('-')?;
    Some(AttemptId { job: job.parse().ok()?, attempt: attempt.parse().ok()? })
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Writes a file whole, durable, or not at all.
fn write(path: &Path, mut content: impl Read) -> io::Result<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{name}.new"));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let bytes = io::copy(&mut content, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
        Ok(bytes)
    })();
    if written.is_err() {
        let _ = fs::remove_file(aside);
    }
    written
}

fn encoded<T: Encode<()>>(value: &T) -> io::Result<Vec<u8>> {
    minicbor::to_vec(value).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))
}

/// Who a starter is: in its scratch directory, for its guardian.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct Who {
    #[n(0)]
    pub(crate) key: StarterKey,
    #[n(1)]
    pub(crate) facts: StarterFacts,
}

impl Who {
    /// Writes it down in a scratch directory.
    pub(crate) fn sign(&self, scratch: &Path) -> io::Result<()> {
        fs::write(scratch.join("who"), encoded(self)?)
    }

    /// Reads it there.
    pub(crate) fn of(scratch: &Path) -> io::Result<Who> {
        launch::read(&scratch.join("who"))
    }
}

/// Writes results where the agent finds them, the smallest first; says which are durable there. `paths` are those of outputs that are
/// not within their results.
pub(crate) fn put_aside(
    site: &SiteDir,
    who: &Who,
    mut results: Vec<(AttemptResult, BTreeMap<OutputKind, PathBuf>)>,
) -> io::Result<Vec<AttemptId>> {
    let spool = Spool(site.spool().join(who.key.to_string()));
    for directory in [site.spool(), spool.0.clone(), spool.0.join("outputs"), spool.0.join("results")] {
        make(&directory)?;
    }
    write(&spool.0.join("facts"), &*encoded(&who.facts)?)?;
    let size = |result: &AttemptResult| all(result).map(|output| output.size).sum::<u64>();
    results.sort_by_key(|(result, _)| size(result));
    let (mut kept, mut room) = (Vec::new(), SPOOL_BYTES);
    let mut failed = None;
    for (result, paths) in results {
        match spool.keep(&result, &paths, room) {
            Ok(bytes) => {
                room -= bytes.min(room);
                kept.push(result.id);
            }
            Err(e) => drop(failed.get_or_insert(e)),
        }
    }
    match failed {
        Some(e) if kept.is_empty() => Err(e),
        _ => Ok(kept),
    }
}

/// What comes with a result.
fn all(result: &AttemptResult) -> impl Iterator<Item = &Output> + Clone {
    result.outputs.iter().chain(result.kept.iter().flat_map(|kept| &kept.outputs))
}

impl Spool {
    fn keep(&self, result: &AttemptResult, paths: &BTreeMap<OutputKind, PathBuf>, room: u64) -> io::Result<u64> {
        let apart = all(result).filter(|output| output.inline.is_none());
        if apart.clone().map(|output| output.size).sum::<u64>() > room {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "its outputs are too large to be put aside"));
        }
        let mut bytes = 0;
        for output in apart {
            let path = paths.get(&output.kind).ok_or(io::ErrorKind::NotFound)?;
            bytes += write(&self.output(&output.hash), File::open(path)?)?;
        }
        write(&self.result_path(result.id), &*encoded(result)?)?;
        Ok(bytes)
    }

    fn output(&self, hash: &[u8; 32]) -> PathBuf {
        self.0.join("outputs").join(hex(hash))
    }

    fn result_path(&self, id: AttemptId) -> PathBuf {
        self.0.join("results").join(name(id))
    }

    /// What starters left at the site.
    pub(crate) fn all(site: &SiteDir) -> io::Result<BTreeMap<StarterKey, Spool>> {
        let mut found = BTreeMap::new();
        match fs::read_dir(site.spool()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    // An agent that was killed may have left one that it was removing.
                    let aside = entry.path();
                    if aside.extension().is_some_and(|extension| extension == DONE) {
                        let _ = Spool(aside.with_extension("")).remove_from(&aside);
                        continue;
                    }
                    let key = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
                    found.extend(key.map(|key| (StarterKey(key), Spool(entry.path()))));
                }
            }
        }
        Ok(found)
    }

    /// What one starter left, if anything.
    pub(crate) fn of(site: &SiteDir, key: StarterKey) -> Option<Spool> {
        Some(site.spool().join(key.to_string())).filter(|path| path.is_dir()).map(Spool)
    }

    /// What the starter was.
    pub(crate) fn facts(&self) -> io::Result<StarterFacts> {
        launch::read(&self.0.join("facts"))
    }

    /// Which results are here.
    pub(crate) fn ids(&self) -> io::Result<Vec<AttemptId>> {
        let mut ids = Vec::new();
        match fs::read_dir(self.0.join("results")) {
            // It came no further than that.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(entries) => {
                for entry in entries {
                    ids.extend(entry?.file_name().to_str().and_then(attempt));
                }
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// One of them.
    pub(crate) fn result(&self, id: AttemptId) -> io::Result<AttemptResult> {
        let path = self.result_path(id);
        if fs::metadata(&path)?.len() > RESULT_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
        }
        launch::read(&path)
    }

    /// A piece of an output that is not within its result, exactly as long as asked.
    pub(crate) fn piece(&self, id: AttemptId, kind: &OutputKind, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let result = self.result(id)?;
        let output = all(&result).find(|output| output.kind == *kind && output.inline.is_none());
        let output = output.ok_or(io::ErrorKind::NotFound)?;
        let mut data = vec![0; length];
        File::open(self.output(&output.hash))?.read_exact_at(&mut data, offset)?;
        Ok(data)
    }

    /// The master has these; with the last result all goes. Is nothing left?
    pub(crate) fn forget(&self, ids: &[AttemptId]) -> io::Result<bool> {
        for id in ids {
            match fs::remove_file(self.result_path(*id)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if !self.ids()?.is_empty() {
            return Ok(false);
        }
        // A starter that counts as ended may still be writing: out of its reach, either it is seen or it fails.
        let aside = self.0.with_extension(DONE);
        fs::rename(&self.0, &aside)?;
        self.remove_from(&aside)
    }

    /// Removes what was moved aside, unless there is a result after all.
    fn remove_from(&self, aside: &Path) -> io::Result<bool> {
        let empty = Spool(aside.to_owned()).ids().is_ok_and(|ids| ids.is_empty());
        if empty {
            fs::remove_dir_all(aside)?;
        } else {
            fs::rename(aside, &self.0)?;
        }
        Ok(empty)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use vo_core::ids::{JobId, ProxyId};
    use vo_core::job::{Outcome, Usage};
    use vo_wire::node::Shares;

    use super::*;

    fn who(key: u64) -> Who {
        let facts = StarterFacts {
            proxy: ProxyId(1),
            node_index: 0,
            batch_id: String::new(),
            restarts: 0,
            host: "n1".into(),
            cpus: 2,
            memory_mb: 0,
            gpus: 0,
            scratch_bytes: 0,
            time_left_ms: None,
            shares: Shares::Nothing,
            arch: String::new(),
            system: String::new(),
            pid: 1,
            gpu: None,
            apptainer: false,
            podman: false,
            curl: false,
            pelican: false,
        };
        Who { key: StarterKey(key), facts }
    }

    fn result(proc: u32, outputs: Vec<Output>) -> AttemptResult {
        let id = AttemptId { job: JobId { cluster: 12, proc }, attempt: 1 };
        AttemptResult { id, outcome: Outcome::Exited(0), usage: Usage::default(), outputs, kept: None }
    }

    fn output(kind: OutputKind, size: u64) -> Output {
        Output { kind, size, hash: [u8::try_from(size % 256).unwrap(); 32], mode: 0o644, inline: None }
    }

    #[test]
    fn results_are_put_aside_and_read_again() {
        let home = tempfile::tempdir().unwrap();
        let site = SiteDir(home.path().to_owned());
        assert!(Spool::all(&site).unwrap().is_empty());
        let file = home.path().join("big");
        fs::write(&file, vec![7; 100_000]).unwrap();
        let paths = BTreeMap::from([(OutputKind::Stdout, file)]);
        let big = result(3, vec![output(OutputKind::Stdout, 100_000)]);
        let (small, lost) = (result(4, Vec::new()), result(5, vec![output(OutputKind::Stderr, 1)]));
        let huge = result(6, vec![output(OutputKind::Stdout, SPOOL_BYTES)]);
        let all = [&huge, &big, &small, &lost].map(|result| (result.clone(), paths.clone())).to_vec();
        let kept = put_aside(&site, &who(255), all).unwrap();
        assert_eq!(kept, [small.id, big.id], "what can't be read or is too large is not kept");

        let spools = Spool::all(&site).unwrap();
        let spool = &spools[&StarterKey(255)];
        assert_eq!(spool.facts().unwrap().host, "n1");
        assert_eq!(spool.ids().unwrap(), [big.id, small.id]);
        assert_eq!(spool.result(big.id).unwrap(), big);
        assert_eq!(spool.piece(big.id, &OutputKind::Stdout, 99_990, 10).unwrap(), [7; 10]);
        assert!(spool.piece(big.id, &OutputKind::Stdout, 99_991, 10).is_err());
        // A second time adds.
        put_aside(&site, &who(255), vec![(result(7, Vec::new()), BTreeMap::new())]).unwrap();
        assert!(!spool.forget(&[big.id, small.id]).unwrap());
        assert!(spool.forget(&[result(7, Vec::new()).id, big.id]).unwrap());
        assert!(Spool::all(&site).unwrap().is_empty());
    }
}
