use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{self, Bad, GROUP_HEADER, LOG_HEADER, MAX_RECORD, SNAPSHOT_HEADER};
use crate::{Disk, RealDisk, StoreError};

/// What the buffer of appended records may keep allocated between commits, in bytes; one large commit should not cost
/// its memory for ever.
const KEPT_BUFFER: usize = 1 << 20;

/// How to open a [`Log`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Make the store if there is none; else that is [`StoreError::Missing`].
    pub create: bool,
    /// Keep logs that a snapshot has replaced, up to so many bytes, the newest ones: [`read_past`](crate::read_past) reads them.
    pub keep: u64,
}

impl Default for Options {
    /// Makes the store if there is none, and keeps nothing.
    fn default() -> Self {
        Self { create: true, keep: 0 }
    }
}

/// What an opening log hands back, in order: at most one snapshot, then the records after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay<'a> {
    /// The state given to [`Log::snapshot`], and how many records it stands for: the next one's number follows.
    Snapshot(&'a [u8], u64),
    /// A record given to [`Log::append`].
    Record(&'a [u8]),
}

/// An unfinished last commit, found and removed while opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The log file.
    pub file: PathBuf,
    /// Its new length: where the removed bytes began.
    pub offset: u64,
    /// How many bytes were removed.
    pub bytes: u64,
    /// What was wrong with them.
    pub why: &'static str,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, why } = self;
        write!(f, "cut {bytes} bytes off {} at byte {offset}: {why}", file.display())
    }
}

/// A log that has been replayed.
#[derive(Debug)]
pub struct Opened<D: Disk = RealDisk> {
    /// Ready for more records.
    pub log: Log<D>,
    /// What had to be removed; worth a line in the daemon's log. It was never reported durable, unless it rotted later.
    pub cut: Option<Cut>,
}

/// An append log in a directory of its own; see the [crate's documentation](crate) for promises and layout.
///
/// Records are numbered from 1 without gaps. Dropping a log commits nothing.
///
/// # When the disk fails
///
/// - A *write* that fails (`ENOSPC`, `EDQUOT`, `EIO`) is undone: the file is cut back to its durable length and the
///   records stay buffered, so [`commit`](Log::commit) can be called again, also after more appends. The caller bounds
///   how many records it lets wait ([`appended`](Log::appended) − [`durable`](Log::durable)).
/// - A *sync* that fails, or that cut, poisons the log: the kernel may have dropped the data and would report success
///   for it next time. Every later call returns [`StoreError::Poisoned`]. Reopening writes the last commit anew before
///   it trusts it.
/// - A *snapshot* that fails before its rename leaves the log as it was. From the rename on, a failure poisons, since
///   either generation may be the one that a crash leaves.
#[derive(Debug)]
pub struct Log<D: Disk = RealDisk> {
    disk: D,
    file: D::File,
    generation: u64,
    /// Durable length of `file`.
    length: u64,
    /// See [`Options::keep`].
    keep: u64,
    appended: u64,
    durable: u64,
    /// The group in the making: room for its header, then the records after `durable`.
    group: Vec<u8>,
    poison: Option<Arc<StoreError>>,
}

impl Log {
    /// Locks a directory and replays its store; `replay` gets the snapshot, if there is one, and each record after it.
    ///
    /// Whatever was replayed is durable when this returns. An error of `replay` ends the opening as
    /// [`StoreError::Replay`]. Until the whole store has proved good, nothing in it is changed. It needs memory for the
    /// larger of the two files.
    pub fn open<E: Into<Box<dyn Error + Send + Sync>>>(
        dir: &Path,
        options: Options,
        replay: impl FnMut(Replay<'_>) -> Result<(), E>,
    ) -> Result<Opened, StoreError> {
        Self::open_on(RealDisk::open(dir, options.create)?, options, replay)
    }
}

impl<D: Disk> Log<D> {
    /// [`open`](Log::open) on any disk.
    pub fn open_on<E: Into<Box<dyn Error + Send + Sync>>>(
        mut disk: D,
        options: Options,
        mut replay: impl FnMut(Replay<'_>) -> Result<(), E>,
    ) -> Result<Opened<D>, StoreError> {
        // A killed predecessor may have left names that the system shows and the disk does not have yet.
        disk.sync_dir().map_err(io_error(&disk, "sync", ""))?;
        let shelf = Shelf::new(disk.list().map_err(io_error(&disk, "list", ""))?);
        let Some(generation) = shelf.current(&mut disk)? else {
            if !options.create {
                return Err(StoreError::Missing { file: disk.path(&log_name(0)) });
            }
            let file = write_aside(&mut disk, &log_name(0), &[&format::log_header(0, 0)])?;
            reveal(&mut disk, &log_name(0))?;
            return Ok(Opened { log: Self::new(disk, file, 0, LOG_HEADER as u64, 0, options.keep), cut: None });
        };
        let mut call = |file: &str, offset: usize, event: Replay<'_>, disk: &D| {
            let error = |e: E| StoreError::Replay { file: disk.path(file), offset: offset as u64, source: e.into() };
            replay(event).map_err(error)
        };

        let mut covered = 0;
        if generation > 0 {
            let name = snapshot_name(generation);
            let bytes = disk.read(&name).map_err(io_error(&disk, "read", &name))?;
            let (sequence, state) = format::read_snapshot(&bytes, generation).map_err(bad(&disk, &name, 0))?;
            call(&name, SNAPSHOT_HEADER, Replay::Snapshot(state, sequence), &disk)?;
            covered = sequence;
        }

        let name = log_name(generation);
        let bytes = disk.read(&name).map_err(io_error(&disk, "read", &name))?;
        let damaged = |offset: usize, why| bad(&disk, &name, offset)(Bad::Damaged(0, why));
        let base = format::read_log_header(&bytes, generation).map_err(bad(&disk, &name, 0))?;
        if base != covered {
            return Err(damaged(16, "its records do not follow on the snapshot"));
        }
        let (mut sequence, mut end, mut last, mut torn) = (base, LOG_HEADER, LOG_HEADER, None);
        while end < bytes.len() {
            let rest = &bytes[end..];
            let records = match format::read_group(rest, generation, sequence + 1) {
                Ok(records) => records,
                Err(why) if format::has_later_group(rest, generation, sequence + 1) => return Err(damaged(end, why)),
                Err(why) => {
                    torn = Some(why);
                    break;
                }
            };
            let mut at = records.start;
            while at < records.end {
                let overrun = || damaged(end + at, "a record does not end inside its commit");
                let body = format::read_record(rest, at, &records).ok_or_else(overrun)?;
                call(&name, end + body.start, Replay::Record(&rest[body.clone()]), &disk)?;
                sequence += 1;
                at = body.end;
            }
            last = end;
            end += records.end;
        }

        let mut file = disk.open(&name).map_err(io_error(&disk, "open", &name))?;
        let cut =
            torn.map(|why| Cut { file: disk.path(&name), offset: end as u64, bytes: (bytes.len() - end) as u64, why });
        if cut.is_some() {
            disk.truncate(&mut file, end as u64).map_err(io_error(&disk, "truncate", &name))?;
        }
        // The last commit may be in the system's cache only: never synced, or synced in vain, which leaves pages that
        // no later sync would write. Writing the same bytes anew makes them count, and tearing that changes nothing.
        disk.write(&mut file, last as u64, &bytes[last..end]).map_err(io_error(&disk, "write", &name))?;
        disk.sync(&mut file).map_err(io_error(&disk, "sync", &name))?;
        for name in shelf.leftovers(generation) {
            retire(&mut disk, &name, generation, options.keep).map_err(io_error(&disk, "remove", &name))?;
        }
        Ok(Opened { log: Self::new(disk, file, generation, end as u64, sequence, options.keep), cut })
    }

    fn new(disk: D, file: D::File, generation: u64, length: u64, durable: u64, keep: u64) -> Self {
        let group = vec![0; GROUP_HEADER];
        Self { disk, file, generation, length, keep, appended: durable, durable, group, poison: None }
    }

    /// Buffers a record and returns its sequence number. It is durable once [`commit`](Log::commit) has returned that
    /// number or a higher one.
    ///
    /// A record longer than [`MAX_RECORD`] poisons the log with [`StoreError::TooLong`]: the caller's state then holds
    /// what the disk never will, so the next commit must not succeed.
    pub fn append(&mut self, record: &[u8]) -> u64 {
        if record.len() > MAX_RECORD {
            self.poison.get_or_insert_with(|| Arc::new(StoreError::TooLong { bytes: record.len() }));
        } else if self.poison.is_none() {
            format::push_record(&mut self.group, record);
        }
        self.appended += 1;
        self.appended
    }

    /// Makes all appended records durable, with one write and one sync, and returns the number of the last one.
    ///
    /// With nothing to do it touches no disk. The type's documentation says what holds after an error.
    pub fn commit(&mut self) -> Result<u64, StoreError> {
        self.check()?;
        if self.appended == self.durable {
            return Ok(self.durable);
        }
        format::seal_group(&mut self.group, self.generation, self.durable + 1);
        let name = log_name(self.generation);
        if let Err(source) = self.disk.write(&mut self.file, self.length, &self.group) {
            let error = io_error(&self.disk, "write", &name)(source);
            if error.is_transient() {
                make_room(&mut self.disk);
            }
            return match self.disk.truncate(&mut self.file, self.length) {
                Ok(()) => Err(error),
                Err(source) => Err(self.poison(io_error(&self.disk, "truncate", &name)(source))),
            };
        }
        if let Err(source) = self.disk.sync(&mut self.file) {
            return Err(self.poison(io_error(&self.disk, "sync", &name)(source)));
        }
        self.length += self.group.len() as u64;
        self.settle();
        Ok(self.durable)
    }

    /// Number of the last record appended, 0 before the first.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Number of the last record known durable, 0 before the first.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Bytes committed since the snapshot: what the next opening has to replay. The caller decides when it is time
    /// for a [`snapshot`](Log::snapshot).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.length - LOG_HEADER as u64
    }

    /// Replaces the log by a snapshot. `state` must be the fold of every record appended so far, committed or not; all
    /// of them are durable when this returns.
    ///
    /// A crash at any point leaves the old generation or the new one. The type's documentation says what holds after
    /// an error.
    pub fn snapshot(&mut self, state: &[u8]) -> Result<(), StoreError> {
        if self.keep > 0 {
            // Else records that share their commit with the snapshot would be in no log. On a full disk that is how it is.
            let _ = self.commit();
        }
        self.check()?;
        let next = self.generation + 1;
        let (log, snapshot) = (log_name(next), snapshot_name(next));
        // The snapshot's name is what turns the page, so it comes last, after its log is there to stay.
        let disk = &mut self.disk;
        let header = format::snapshot_header(next, self.appended, state);
        let prepared = write_aside(disk, &snapshot, &[&header, state])
            .and_then(|_| write_aside(disk, &log, &[&format::log_header(next, self.appended)]))
            .and_then(|file| reveal(disk, &log).map(|()| file));
        let file = match prepared {
            Ok(file) => file,
            Err(error) => {
                // A full disk needs the room back; what cannot be removed now is overwritten or removed later.
                let _ = disk.remove(&aside(&snapshot));
                let _ = disk.remove(&aside(&log));
                if error.is_transient() {
                    make_room(disk);
                }
                return Err(error);
            }
        };
        if let Err(error) = reveal(disk, &snapshot) {
            return Err(self.poison(error));
        }
        self.file = file;
        self.length = LOG_HEADER as u64;
        let old = std::mem::replace(&mut self.generation, next);
        self.settle();
        // No state is read from them again, and the next opening retires what is left.
        let _ = retire(&mut self.disk, &log_name(old), next, self.keep);
        if old > 0 {
            let _ = self.disk.remove(&snapshot_name(old));
        }
        Ok(())
    }

    /// All appended records are durable.
    fn settle(&mut self) {
        self.durable = self.appended;
        self.group.truncate(GROUP_HEADER);
        self.group.shrink_to(KEPT_BUFFER);
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.poison {
            None => Ok(()),
            Some(source) => Err(self.poisoned(source)),
        }
    }

    fn poison(&mut self, error: StoreError) -> StoreError {
        let source = Arc::new(error);
        let error = self.poisoned(&source);
        self.poison = Some(source);
        error
    }

    fn poisoned(&self, source: &Arc<StoreError>) -> StoreError {
        StoreError::Poisoned { file: self.disk.path(&log_name(self.generation)), source: Arc::clone(source) }
    }
}

/// Removes a file that is not of the current generation, or keeps it as evidence if it is a log: within the bound also if we then crash.
fn retire<D: Disk>(disk: &mut D, name: &str, current: u64, keep: u64) -> io::Result<()> {
    let old =
        name.strip_prefix("log-").and_then(|number| number.parse::<u64>().ok()).filter(|number| *number < current);
    let Some(old) = old.filter(|_| keep > 0) else {
        return disk.remove(name);
    };
    let mut pasts: Vec<u64> = disk.list()?.iter().filter_map(|name| name.strip_prefix("past-")?.parse().ok()).collect();
    pasts.sort_unstable();
    let fits = keep.checked_sub(disk.length(name)?);
    // The newest that fit.
    let mut room = fits;
    for past in pasts.into_iter().rev().map(past_name) {
        room = room.and_then(|room| room.checked_sub(disk.length(&past).ok()?));
        if room.is_none() {
            disk.remove(&past)?;
        }
    }
    if fits.is_none() { disk.remove(name) } else { disk.rename(name, &past_name(old)) }
}

/// A full disk needs the room: what is only evidence goes.
fn make_room<D: Disk>(disk: &mut D) {
    for name in disk.list().unwrap_or_default().iter().filter(|name| name.starts_with("past-")) {
        let _ = disk.remove(name);
    }
}

pub(crate) fn log_name(generation: u64) -> String {
    format!("log-{generation}")
}

/// What a log is called once a snapshot has replaced it, if it is kept.
pub(crate) fn past_name(generation: u64) -> String {
    format!("past-{generation}")
}

fn snapshot_name(generation: u64) -> String {
    format!("snapshot-{generation}")
}

/// What a file is called until it is whole.
fn aside(name: &str) -> String {
    format!("{name}.new")
}

/// The files of a store by kind.
struct Shelf {
    logs: BTreeSet<u64>,
    snapshots: BTreeSet<u64>,
    asides: Vec<String>,
}

impl Shelf {
    fn new(names: Vec<String>) -> Self {
        let number = |name: &str, kind: &str| {
            let number = name.strip_prefix(kind)?.parse::<u64>().ok()?;
            (number < format::MAX_NUMBER && name == format!("{kind}{number}")).then_some(number)
        };
        let mut shelf = Self { logs: BTreeSet::new(), snapshots: BTreeSet::new(), asides: Vec::new() };
        for name in names {
            let whole = name.strip_suffix(".new");
            let stem = whole.unwrap_or(&name);
            let (log, snapshot) = (number(stem, "log-"), number(stem, "snapshot-"));
            if whole.is_some() && log.or(snapshot).is_some() {
                shelf.asides.push(name);
            } else {
                shelf.logs.extend(log);
                shelf.snapshots.extend(snapshot);
            }
        }
        shelf
    }

    /// The generation to open, or `None` if there is no store yet.
    fn current<D: Disk>(&self, disk: &mut D) -> Result<Option<u64>, StoreError> {
        let Some(newest) = self.logs.last().max(self.snapshots.last()).copied() else {
            return Ok(None);
        };
        let current = self.snapshots.last().copied().unwrap_or(0);
        if !self.logs.contains(&current) {
            // Without any snapshot it is more likely that the newest log lost its own than that log-0 is gone.
            let name = if current == 0 && newest > 0 { snapshot_name(newest) } else { log_name(current) };
            return Err(StoreError::Missing { file: disk.path(&name) });
        }
        if newest > current {
            // A snapshot that was not finished leaves the next log, still empty.
            let name = log_name(newest);
            let bytes = disk.read(&name).map_err(io_error(disk, "read", &name))?;
            format::read_log_header(&bytes, newest).map_err(bad(disk, &name, 0))?;
            if newest > current + 1 || bytes.len() > LOG_HEADER {
                return Err(StoreError::Missing { file: disk.path(&snapshot_name(newest)) });
            }
        }
        Ok(Some(current))
    }

    /// What a crash left beside a generation.
    fn leftovers(self, current: u64) -> impl Iterator<Item = String> {
        let logs = self.logs.into_iter().filter(move |&n| n != current).map(log_name);
        let snapshots = self.snapshots.into_iter().filter(move |&n| n != current).map(snapshot_name);
        self.asides.into_iter().chain(logs).chain(snapshots)
    }
}

/// Writes and syncs a file under its name aside.
fn write_aside<D: Disk>(disk: &mut D, name: &str, parts: &[&[u8]]) -> Result<D::File, StoreError> {
    let name = aside(name);
    let mut file = disk.create(&name).map_err(io_error(disk, "create", &name))?;
    let mut offset = 0;
    for part in parts {
        disk.write(&mut file, offset, part).map_err(io_error(disk, "write", &name))?;
        offset += part.len() as u64;
    }
    disk.sync(&mut file).map_err(io_error(disk, "sync", &name))?;
    Ok(file)
}

/// Gives a file its name, durably.
fn reveal<D: Disk>(disk: &mut D, name: &str) -> Result<(), StoreError> {
    disk.rename(&aside(name), name).map_err(io_error(disk, "rename", &aside(name)))?;
    disk.sync_dir().map_err(io_error(disk, "sync", ""))
}

fn io_error<D: Disk>(disk: &D, action: &'static str, name: &str) -> impl FnOnce(io::Error) -> StoreError + use<D> {
    let file = disk.path(name);
    move |source| StoreError::Io { action, file, source }
}

/// What [`mod@format`] found, at an offset of the file.
fn bad<D: Disk>(disk: &D, name: &str, start: usize) -> impl FnOnce(Bad) -> StoreError + use<D> {
    let file = disk.path(name);
    move |bad| match bad {
        Bad::Version(found) => StoreError::Version { file, found },
        Bad::Damaged(at, why) => StoreError::Damaged { file, offset: (start + at) as u64, why },
    }
}
