//! A disk in memory that loses, tears and reorders what was not synced: for tests and simulation.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Disk;

/// A directory of files in memory, with the two views that a real one has: what programs see, and what a power cut
/// would leave. Clones are handles to the same disk, so a test keeps one while a log owns another.
///
/// Every operation that changes something is a *step*; steps count from 0. All choices come from a seed.
#[derive(Debug, Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// An open file of a [`MemDisk`].
#[derive(Debug)]
pub struct MemFile(usize);

/// What a crash does to writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it reaches the disk: the process was killed, the machine was not.
    None,
    /// None of it does.
    All,
    /// The oldest of it does, torn at an arbitrary byte.
    Tail,
    /// An arbitrary part does, in pieces of this many bytes (at least 1). A lost piece keeps its old bytes; beyond the
    /// old end it reads as zeros or as garbage.
    Scattered(usize),
}

#[derive(Debug, Default)]
struct State {
    files: Vec<MemInode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    steps: u64,
    crash_at: Option<u64>,
    /// Bytes that still fit.
    room: Option<usize>,
    fail_at: Option<u64>,
    syncs: u64,
}

#[derive(Debug, Default)]
struct MemInode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// What separates the two, oldest first.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Truncate(length) => bytes.resize(*length, 0),
        }
    }
}

/// A small generator of choices (splitmix64): reproducible, of no other quality.
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// The choices of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % (bound.max(1) as u64)) as usize
    }
}

impl MemInode {
    /// What the disk holds after a crash.
    fn survivor(&self, loss: Loss, choices: &mut Choices) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match loss {
            Loss::All => {}
            Loss::None => self.changes.iter().for_each(|change| change.apply(&mut bytes)),
            Loss::Tail => {
                let kept = choices.below(self.changes.len() + 1);
                self.changes[..kept].iter().for_each(|change| change.apply(&mut bytes));
                if let Some(Change::Write(offset, data)) = self.changes.get(kept) {
                    let part = data[..choices.below(data.len() + 1)].to_vec();
                    Change::Write(*offset, part).apply(&mut bytes);
                }
            }
            Loss::Scattered(piece) => {
                for change in &self.changes {
                    match change {
                        Change::Truncate(_) if choices.below(2) == 0 => {}
                        Change::Truncate(_) => change.apply(&mut bytes),
                        Change::Write(offset, data) => {
                            scatter(&mut bytes, *offset, data, piece.max(1), choices);
                        }
                    }
                }
            }
        }
        bytes
    }
}

/// Applies an arbitrary part of a write.
fn scatter(bytes: &mut Vec<u8>, offset: usize, data: &[u8], piece: usize, choices: &mut Choices) {
    // The new length is one more thing that may have arrived whole, in part or not at all.
    let old = bytes.len();
    let written = if choices.below(2) == 0 { data.len() } else { choices.below(data.len() + 1) };
    let reached = old.max(offset + written);
    bytes.resize(reached, 0);
    for (i, piece_data) in data.chunks(piece).enumerate() {
        let start = offset + i * piece;
        let garbage = choices.below(2) == 0;
        let kept = choices.below(2) == 0;
        for (at, &byte) in (start..).zip(piece_data) {
            let Some(slot) = bytes.get_mut(at) else { break };
            if kept {
                *slot = byte;
            } else if at >= old && garbage {
                *slot = choices.below(256) as u8;
            }
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("the disk failed")
}

impl State {
    /// Begins a step that changes something; `true` if it has to fail.
    fn begin(&mut self) -> io::Result<bool> {
        self.alive()?;
        let fails = self.fail_at == Some(self.steps);
        self.steps += 1;
        Ok(fails)
    }

    /// Begins a step that has no effect when it fails.
    fn step(&mut self) -> io::Result<()> {
        if self.begin()? { Err(failed()) } else { Ok(()) }
    }

    fn alive(&self) -> io::Result<()> {
        match self.crash_at {
            Some(at) if self.steps >= at => Err(io::Error::other("the machine has crashed")),
            _ => Ok(()),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_to(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn change(&mut self, file: usize, change: Change) {
        let file = &mut self.files[file];
        change.apply(&mut file.seen);
        file.changes.push(change);
    }
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// How many file and directory syncs succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Lets step number `step` and everything after it fail without effect, until [`crash`](Self::crash).
    pub fn crash_at(&self, step: u64) {
        self.state().crash_at = Some(step);
    }

    /// Ends a [`crash_at`](Self::crash_at) as if only the process had been killed: all that was written is still seen,
    /// and nothing more is durable.
    pub fn restart(&self) {
        self.state().crash_at = None;
    }

    /// Cuts the power and starts again, with what `loss` leaves.
    pub fn crash(&self, loss: Loss, choices: &mut Choices) {
        let mut state = self.state();
        let state = &mut *state;
        state.crash_at = None;
        for file in &mut state.files {
            file.durable = file.survivor(loss, choices);
            file.seen.clone_from(&file.durable);
            file.changes.clear();
        }
        let mut changes = std::mem::take(&mut state.name_changes);
        match loss {
            Loss::None => {}
            Loss::All => changes.clear(),
            Loss::Tail => changes.truncate(choices.below(changes.len() + 1)),
            Loss::Scattered(_) => changes.retain(|_| choices.below(2) == 0),
        }
        changes.iter().for_each(|change| change.apply(&mut state.durable_names));
        state.names = state.durable_names.clone();
    }

    /// Bytes by which all files together may still grow before a write fails with `StorageFull`, having written what
    /// fits; `None` for no limit. Removed files give no room back.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.state().room = bytes;
    }

    /// Lets step number `step` fail, and only that one. A write writes an arbitrary part. A sync of a file behaves as
    /// on Linux: an arbitrary part reaches the disk, and the rest stays visible until a crash but no later sync writes
    /// it. Everything else has no effect.
    pub fn fail_at(&self, step: u64) {
        self.state().fail_at = Some(step);
    }

    /// What a program sees in a file.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = *state.names.get(name)?;
        Some(state.files[file].seen.clone())
    }

    /// Sets the content of a file, durably: to prepare or damage it.
    pub fn set_content(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        let file = state.files.len();
        state.files.push(MemInode { seen: bytes.to_vec(), durable: bytes.to_vec(), changes: Vec::new() });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// A copy of what a program sees, all of it durable.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        let state = self.state();
        for (name, &file) in &state.names {
            copy.set_content(name, &state.files[file].seen);
        }
        drop(state);
        copy
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.alive()?;
        let file = state.find(name)?;
        Ok(state.files[file].seen.clone())
    }

    fn length(&mut self, name: &str) -> io::Result<u64> {
        self.read(name).map(|bytes| bytes.len() as u64)
    }

    fn create(&mut self, name: &str) -> io::Result<MemFile> {
        let mut state = self.state();
        state.step()?;
        if let Ok(file) = state.find(name) {
            state.change(file, Change::Truncate(0));
            return Ok(MemFile(file));
        }
        let file = state.files.len();
        state.files.push(MemInode::default());
        state.rename_to(NameChange::Set(name.to_owned(), file));
        Ok(MemFile(file))
    }

    fn open(&mut self, name: &str) -> io::Result<MemFile> {
        let state = self.state();
        state.alive()?;
        state.find(name).map(MemFile)
    }

    fn write(&mut self, file: &mut MemFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fails = state.begin()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if fails {
            let part = Choices::new(state.steps).below(bytes.len() + 1);
            state.change(file.0, Change::Write(offset, bytes[..part].to_vec()));
            return Err(failed());
        }
        let held = state.files[file.0].seen.len();
        let growth = (offset + bytes.len()).saturating_sub(held);
        let short = state.room.map_or(0, |room| growth.saturating_sub(room));
        if let Some(room) = &mut state.room {
            *room = room.saturating_sub(growth);
        }
        state.change(file.0, Change::Write(offset, bytes[..bytes.len() - short].to_vec()));
        if short > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, file: &mut MemFile, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let held = state.files[file.0].seen.len();
        if let Some(room) = &mut state.room {
            *room += held.saturating_sub(length);
        }
        state.change(file.0, Change::Truncate(length));
        Ok(())
    }

    fn sync(&mut self, file: &mut MemFile) -> io::Result<()> {
        let mut state = self.state();
        if state.begin()? {
            let mut choices = Choices::new(state.steps);
            let file = &mut state.files[file.0];
            file.durable = file.survivor(Loss::Scattered(1), &mut choices);
            file.changes.clear();
            return Err(failed());
        }
        state.syncs += 1;
        let file = &mut state.files[file.0];
        // Pages that a failed sync gave up are clean: only what was changed since is written.
        for change in std::mem::take(&mut file.changes) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let file = state.find(from)?;
        state.rename_to(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.find(name)?;
        state.rename_to(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.syncs += 1;
        let state = &mut *state;
        for change in std::mem::take(&mut state.name_changes) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }
}
