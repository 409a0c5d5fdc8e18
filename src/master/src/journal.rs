//! The store's thread: takes records in order, writes them in groups, tells how far they are durable.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use vo_core::pool::{Action, Judge, Pool, Record, Snapshot};
use vo_store::{Log, Options, Replay, StoreError};

/// Least time between two commits: what arrives meanwhile shares the next one. The first record after a pause waits for nobody.
const PACE: Duration = Duration::from_millis(5);

/// Between two tries to write to a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// A log this much larger than the state it leads to is replaced by a snapshot; bounds the time to recover.
const LOG_BYTES: u64 = 64 << 20;

/// Logs that snapshots replaced are kept up to this much, for `why`: some ten million attempts.
const EVIDENCE_BYTES: u64 = 256 << 20;

enum Work {
    Records(Vec<Vec<u8>>),
    Snapshot(Vec<u8>),
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Records up to this number are durable; `log_bytes` is the log's size since its snapshot.
    Durable { number: u64, log_bytes: u64 },
    /// Writing fails, and is tried again: nothing moves meanwhile.
    Blocked(String),
    /// Writing failed for good.
    Failed(String),
}

/// A handle on the thread.
pub(crate) struct Journal {
    work: Sender<Work>,
    /// Records before this process's first.
    base: u64,
    snapshot_above: u64,
    /// The log has grown to that.
    grown: bool,
    snapshotting: bool,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot open the job store in {dir}")]
    Open {
        dir: String,
        #[source]
        source: StoreError,
    },
    #[error("the store's thread could not be started")]
    Thread(#[source] io::Error),
}

/// Up to which record what there is to tell of jobs was told; 0 where nothing ever was.
#[derive(Clone, Copy)]
pub(crate) struct Reached {
    /// In their logs.
    pub(crate) logged: u64,
    /// By mail.
    pub(crate) mailed: u64,
}

impl Reached {
    fn lacks(self, number: u64, note: &Action) -> bool {
        let Action::Note { log, terms, .. } = note else { return false };
        (log.is_some() && number > self.logged) || (terms.mail.is_some() && number > self.mailed)
    }

    fn is_behind(self, number: u64) -> bool {
        [self.logged, self.mailed].iter().any(|reached| (1..number).contains(reached))
    }
}

/// What an opened store gives.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    pub(crate) pool: Pool,
    /// What was cut from a torn end, if anything.
    pub(crate) cut: Option<String>,
    /// See [`Journal::open`].
    pub(crate) unlogged: Vec<(u64, Action)>,
}

impl JournalError {
    /// What a person may do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            JournalError::Open { source, .. } => source.hint(),
            JournalError::Thread(_) => None,
        }
    }
}

impl Journal {
    /// Opens the store in `dir`, folds what it holds into a pool with this judge, and starts the thread. What there is to tell of jobs and was not is
    /// collected, with the numbers of the records that it follows from.
    pub(crate) fn open(
        dir: &Path,
        reached: Reached,
        judge: Arc<dyn Judge>,
        tell: impl Fn(Told) + Send + 'static,
    ) -> Result<Opened, JournalError> {
        let empty = || Pool::with_judge(judge.clone());
        let (mut pool, mut number, mut unlogged) = (empty(), 0, Vec::new());
        let opened = Log::open(dir, Options { keep: EVIDENCE_BYTES, ..Options::default() }, |replay| {
            match replay {
                Replay::Snapshot(bytes, covers) => {
                    pool = empty().restore(minicbor::decode::<Snapshot>(bytes)?);
                    number = covers;
                    if reached.is_behind(covers) {
                        unlogged = before_snapshot(dir, covers, reached, empty());
                    }
                }
                Replay::Record(bytes) => {
                    let record = minicbor::decode::<Record>(bytes)?;
                    pool.apply(&record);
                    number += 1;
                    untold(&pool, &record, number, reached, &mut unlogged);
                }
            }
            Ok::<(), minicbor::decode::Error>(())
        });
        let opened = opened.map_err(|source| JournalError::Open { dir: dir.display().to_string(), source })?;
        let cut = opened.cut.map(|cut| cut.to_string());
        let base = opened.log.appended();
        let (work, inbox) = mpsc::channel();
        let thread = thread::Builder::new().name("journal".into());
        let store = dir.to_owned();
        thread.spawn(move || run(opened.log, &store, &inbox, &tell)).map_err(JournalError::Thread)?;
        let journal = Journal { work, base, snapshot_above: LOG_BYTES, grown: false, snapshotting: false };
        Ok(Opened { journal, pool, cut, unlogged })
    }

    /// Takes the pool's records, in order, and shows them to `see`; if the log has grown large, the state that they lead to replaces it.
    pub(crate) fn store(&mut self, pool: &mut Pool, mut see: impl FnMut(&Record)) {
        // The thread ends only after it told of a failure, which ends the master.
        let records = pool.take_records();
        records.iter().for_each(&mut see);
        if !records.is_empty() {
            let _ = self.work.send(Work::Records(records.iter().map(encode).collect()));
        }
        if self.grown && !self.snapshotting {
            let state = encode(&pool.snapshot());
            self.snapshot_above = LOG_BYTES.max(4 * state.len() as u64);
            self.snapshotting = true;
            let _ = self.work.send(Work::Snapshot(state));
        }
    }

    /// Takes [`Told::Durable`] in: how many records of this process are durable.
    pub(crate) fn durable(&mut self, number: u64, log_bytes: u64) -> u64 {
        self.grown = log_bytes >= self.snapshot_above;
        self.snapshotting &= self.grown;
        number.saturating_sub(self.base)
    }

    /// The store's number of a record of this process.
    pub(crate) fn number(&self, durable: u64) -> u64 {
        self.base + durable
    }
}

fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a vector can't fail, and our types' encoders have no failures of their own.
    let _: Result<(), minicbor::encode::Error<core::convert::Infallible>> = minicbor::encode(value, &mut bytes);
    bytes
}

/// What follows from a record just applied and was not told.
fn untold(pool: &Pool, record: &Record, number: u64, reached: Reached, into: &mut Vec<(u64, Action)>) {
    let notes = pool.notes(record).into_iter().filter(|note| reached.lacks(number, note));
    into.extend(notes.map(|note| (number, note)));
}

/// Where the last log that a snapshot replaced is kept, with the state before it: what follows from its records may not have been told yet
/// when it is replaced.
fn before(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push("-before");
    name.into()
}

/// What a snapshot may have replaced too soon, up to the record that it covers.
fn before_snapshot(store: &Path, covers: u64, reached: Reached, mut pool: Pool) -> Vec<(u64, Action)> {
    let (mut number, mut unlogged) = (0, Vec::new());
    let read = Log::open(&before(store), Options { create: false, ..Options::default() }, |replay| {
        match replay {
            Replay::Snapshot(bytes, covers) => {
                pool = std::mem::replace(&mut pool, Pool::new()).restore(minicbor::decode::<Snapshot>(bytes)?);
                number = covers;
            }
            Replay::Record(bytes) => {
                let record = minicbor::decode::<Record>(bytes)?;
                pool.apply(&record);
                number += 1;
                if number <= covers {
                    untold(&pool, &record, number, reached, &mut unlogged);
                }
            }
        }
        Ok::<(), minicbor::decode::Error>(())
    });
    if let Err(error) = read {
        tracing::warn!(error = %chain(&error), "what job event logs may lack from before the last snapshot can't be read");
    }
    unlogged
}

/// Keeps what a snapshot is about to replace, as [`before`] says. The log is the same file, so that it gets what is still to be committed.
fn keep(store: &Path) -> io::Result<()> {
    let before = before(store);
    forget(store)?;
    fs::DirBuilder::new().mode(0o700).create(&before)?;
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("log-")?.parse::<u64>().ok();
    let newest = fs::read_dir(store)?.filter_map(|entry| number(entry.ok()?)).max();
    for kind in ["log", "snapshot"] {
        let name = format!("{kind}-{}", newest.unwrap_or(0));
        if store.join(&name).exists() {
            fs::hard_link(store.join(&name), before.join(&name))?;
        }
    }
    let parent = store.parent().unwrap_or(store);
    [&*before, parent].into_iter().try_for_each(|dir| fs::File::open(dir)?.sync_all())
}

fn forget(store: &Path) -> io::Result<()> {
    match fs::remove_dir_all(before(store)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn run(mut log: Log, store: &Path, inbox: &Receiver<Work>, tell: &dyn Fn(Told)) {
    let mut last = Instant::now().checked_sub(PACE);
    while let Ok(first) = inbox.recv() {
        let mut next = Some(first);
        let due = last.map_or_else(Instant::now, |last| last + PACE);
        while let Some(work) = next.take() {
            match work {
                Work::Records(records) => {
                    for record in records {
                        log.append(&record);
                    }
                }
                Work::Snapshot(state) => {
                    if let Err(error) = keep(store) {
                        tracing::warn!(%error, "what a snapshot replaces can't be kept");
                    }
                    if let Err(error) = log.snapshot(&state) {
                        tracing::warn!(error = %chain(&error), "snapshot failed; the log goes on");
                    }
                }
            }
            next = inbox.recv_timeout(due.saturating_duration_since(Instant::now())).ok();
        }
        loop {
            match log.commit() {
                Ok(number) => {
                    tell(Told::Durable { number, log_bytes: log.size() });
                    break;
                }
                Err(error) if error.is_transient() => {
                    // A full disk needs the room.
                    let _ = forget(store);
                    tell(Told::Blocked(chain(&error)));
                    thread::sleep(RETRY);
                }
                Err(error) => return tell(Told::Failed(chain(&error))),
            }
        }
        last = Some(Instant::now());
    }
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use crate::judge::ClassAds;
    use vo_core::Time;
    use vo_core::job::Program;
    use vo_core::pool::{GroupRecord, Select};
    use vo_core::template::Template;

    use super::*;

    const NONE: Reached = Reached { logged: 0, mailed: 0 };

    fn submit(pool: &mut Pool) {
        let (program, log) = (Program::default(), Some(Template::constant("log")));
        let group = GroupRecord { count: 1, program, log, ..GroupRecord::default() };
        pool.submit(Time(1), "test".into(), vec![group]);
    }

    #[test]
    fn a_snapshot_holds_what_was_stored_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("vo-journal-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (tell, told) = mpsc::channel();
        let Opened { mut journal, mut pool, cut, .. } =
            Journal::open(&dir, NONE, Arc::new(ClassAds::default()), move |t| tell.send(t).unwrap()).unwrap();
        assert_eq!(cut, None);
        journal.snapshot_above = 1;
        submit(&mut pool);
        journal.store(&mut pool, |_| ());
        let Ok(Told::Durable { number, log_bytes }) = told.recv() else { panic!("not durable") };
        // The pool has gone on when it is told.
        submit(&mut pool);
        assert_eq!(journal.durable(number, log_bytes), 1);
        journal.store(&mut pool, |_| ());
        drop(journal);
        while told.recv().is_ok() {}
        let (mut restored, mut replayed) = (Pool::new(), 0);
        let opened = Log::open(&dir, Options { create: false, ..Options::default() }, |replay| {
            match replay {
                Replay::Snapshot(bytes, _) => restored = Pool::new().restore(minicbor::decode::<Snapshot>(bytes)?),
                Replay::Record(_) => replayed += 1,
            }
            Ok::<(), minicbor::decode::Error>(())
        });
        assert_eq!(opened.unwrap().log.appended(), 2);
        assert_eq!((restored.counts(&Select::default()).idle, replayed), (2, 0));
        // What the logs may lack is found, though its records are in no log any more.
        let unlogged = |logged: u64| -> Vec<u64> {
            let reached = Reached { logged, mailed: 0 };
            let (tell, told) = mpsc::channel();
            let tell = move |t| tell.send(t).unwrap();
            let Opened { journal, unlogged, .. } =
                Journal::open(&dir, reached, Arc::new(ClassAds::default()), tell).unwrap();
            drop(journal);
            while told.recv().is_ok() {}
            unlogged.into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(unlogged(1), [2]);
        assert!(unlogged(2).is_empty());
        fs::remove_dir_all(before(&dir)).unwrap();
        assert!(unlogged(1).is_empty(), "it is no reason not to start");
        fs::remove_dir_all(&dir).unwrap();
    }
}
