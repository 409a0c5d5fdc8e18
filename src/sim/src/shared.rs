//! A home that several login nodes share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vo_core::Time;
use vo_store::Disk;
use vo_store::memdisk::{Choices, MemDisk, MemFile};

/// A login node may list what a directory held so long ago, but no less than after its own last change there.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A directory whose files have numbers for names.
#[derive(Debug)]
pub(crate) struct Directory<V> {
    files: BTreeMap<u64, V>,
    /// The names after each change.
    past: Vec<(Time, BTreeSet<u64>)>,
    /// The last change that each login node made.
    own: BTreeMap<usize, usize>,
}

impl<V> Default for Directory<V> {
    fn default() -> Self {
        Directory { files: BTreeMap::new(), past: vec![(Time(0), BTreeSet::new())], own: BTreeMap::new() }
    }
}

impl<V> Directory<V> {
    /// What a login node lists; `fresh` if nothing is remembered there.
    pub(crate) fn list(&self, now: Time, node: usize, fresh: bool, choices: &mut Choices) -> BTreeSet<u64> {
        let last = self.past.len() - 1;
        let own = self.own.get(&node).copied().unwrap_or(0);
        // A state was still there at the time of the next change.
        let seen = |at: &usize| self.past.get(at + 1).is_none_or(|(until, _)| *until + REMEMBERED >= now);
        let first = (own..=last).find(seen).unwrap_or(last);
        let at = if fresh { last } else { first + choices.below(last - first + 1) };
        self.past[at].1.clone()
    }

    pub(crate) fn get(&self, name: u64) -> Option<&V> {
        self.files.get(&name)
    }

    /// Makes a file, unless its name is taken.
    pub(crate) fn make(&mut self, now: Time, node: usize, name: u64, file: V) -> bool {
        let free = !self.files.contains_key(&name);
        if free {
            self.files.insert(name, file);
        }
        self.changed(now, node);
        free
    }

    pub(crate) fn remove(&mut self, now: Time, node: usize, name: u64) {
        self.files.remove(&name);
        self.changed(now, node);
    }

    pub(crate) fn clear(&mut self, now: Time, node: usize) {
        self.files.clear();
        self.changed(now, node);
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.files.values()
    }

    /// A node that changes the directory lists it anew.
    pub(crate) fn changed(&mut self, now: Time, node: usize) {
        self.past.push((now, self.files.keys().copied().collect()));
        self.own.insert(node, self.past.len() - 1);
    }
}

/// The disk of a store while another process writes it: before each operation, `meanwhile` may let that happen. A file that grew may
/// be read in the midst of it.
pub(crate) struct Raced<'a> {
    pub(crate) disk: MemDisk,
    pub(crate) meanwhile: &'a mut dyn FnMut(),
    pub(crate) choices: &'a mut Choices,
}

impl Disk for Raced<'_> {
    type File = MemFile;

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        (self.meanwhile)();
        self.disk.list()
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let before = self.disk.read(name)?.len();
        (self.meanwhile)();
        let mut bytes = self.disk.read(name)?;
        if before < bytes.len() {
            bytes.truncate(before + self.choices.below(bytes.len() - before + 1));
        }
        Ok(bytes)
    }

    fn length(&mut self, name: &str) -> io::Result<u64> {
        self.disk.length(name)
    }

    fn create(&mut self, name: &str) -> io::Result<MemFile> {
        self.disk.create(name)
    }

    fn open(&mut self, name: &str) -> io::Result<MemFile> {
        self.disk.open(name)
    }

    fn write(&mut self, file: &mut MemFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(file, offset, bytes)
    }

    fn truncate(&mut self, file: &mut MemFile, length: u64) -> io::Result<()> {
        self.disk.truncate(file, length)
    }

    fn sync(&mut self, file: &mut MemFile) -> io::Result<()> {
        self.disk.sync(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}
