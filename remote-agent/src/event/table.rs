//! `jobinfo_table/EPOCH`: the durable records of an agent, written by a thread of its own because a home may be slow.
//!
//! An agent begins with a copy of its predecessor's, which may still run, and write to the old one: nobody reads that any more.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc as notices;
use vo_core::ids::ProxyId;
use vo_core::proxy::{Entry, Record, first_record};
use vo_store::{Log, Options, RealDisk, Replay, StoreError};

/// Then the log is replaced by a snapshot: some thousand proxies' lives.
const SNAPSHOT_BYTES: u64 = 1 << 20;

/// What snapshots replaced is kept up to this much, for `why`: some ten thousand proxies' lives.
const EVIDENCE_BYTES: u64 = 4 << 20;

/// How often a predecessor's table is copied before it counts as damaged, and the wait before the next try.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(200);

/// Wait before the next try on a full disk.
const RETRY: Duration = Duration::from_secs(5);

/// What the thread has to say.
#[derive(Debug)]
pub(super) enum Notice {
    /// So many records of this life are durable; is it time for a snapshot?
    Durable(u64, bool),
    /// The disk is full for now.
    Full(String),
    /// It is of no use any more.
    Failed(StoreError),
}

enum Order {
    Append(Vec<Vec<u8>>),
    Snapshot(Vec<u8>),
}

/// The open table.
#[derive(Debug)]
pub(super) struct Table {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

/// What a table held.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) base: Option<u64>,
    pub(super) records: Vec<Record>,
    /// What was cut from its torn end, if anything.
    pub(super) cut: Option<String>,
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _: Result<(), minicbor::encode::Error<Infallible>> = minicbor::encode(entry, &mut bytes);
    bytes
}

/// The epochs that left a table, whole or not.
fn epochs(dir: &Path) -> io::Result<Vec<(u64, std::ffi::OsString)>> {
    let mut found = Vec::new();
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                let epoch = name.to_str().and_then(|name| name.strip_suffix(".new").unwrap_or(name).parse().ok());
                found.extend(epoch.map(|epoch| (epoch, name)));
            }
        }
    }
    Ok(found)
}

/// The highest epoch that left a table, or 0.
pub(super) fn highest(dir: &Path) -> io::Result<u64> {
    Ok(epochs(dir)?.into_iter().map(|(epoch, _)| epoch).max().unwrap_or(0))
}

/// Copies the table of the epoch before `epoch`, if there is one.
fn inherit(dir: &Path, epoch: u64) -> io::Result<()> {
    let (own, aside) = (dir.join(epoch.to_string()), dir.join(format!("{epoch}.new")));
    for old in [&own, &aside] {
        super::files::remove_tree(old)?;
    }
    // Made first: a file server's client that remembers what the directory held before can't do so after its own change.
    fs::create_dir_all(&aside)?;
    let before = epochs(dir)?.into_iter().filter(|(of, name)| *of < epoch && !name.to_string_lossy().contains('.'));
    let Some((_, before)) = before.max() else {
        return fs::remove_dir(&aside);
    };
    vo_store::copy(&mut RealDisk::of_another(&dir.join(before)), &mut RealDisk::of_another(&aside))?;
    fs::rename(&aside, &own)?;
    fs::File::open(dir)?.sync_all()
}

/// Opens the table of an agent that holds the lease of `epoch`. `now` is the time of day in milliseconds.
///
/// # Errors
/// What the store gave.
pub(super) fn open(
    dir: &Path,
    epoch: u64,
    now: u64,
) -> Result<(Table, Found, notices::UnboundedReceiver<Notice>), StoreError> {
    let failed = |action| {
        let file = dir.to_owned();
        move |source| StoreError::Io { action, file, source }
    };
    let mut tries = 0;
    let (log, found) = loop {
        tries += 1;
        let opened =
            inherit(dir, epoch).map_err(failed("copy")).and_then(|()| read(&dir.join(epoch.to_string()), epoch, now));
        match opened {
            // An older agent that doesn't know yet may be replacing its files while they are copied.
            Err(e) if tries < TRIES && highest(dir).is_ok_and(|highest| highest > 0) => {
                tracing::warn!("the table, try {tries}: {e}");
                thread::sleep(AGAIN);
            }
            other => break other?,
        }
    };
    // Nobody needs them now; what can't be removed goes with the session.
    for (_, name) in epochs(dir).into_iter().flatten().filter(|(of, _)| *of < epoch) {
        let _ = fs::remove_dir_all(dir.join(name));
    }
    let (orders, receiver) = mpsc::channel();
    let (sender, said) = notices::unbounded_channel();
    let mut log = log;
    let thread = thread::Builder::new().name("table".to_owned()).spawn(move || write(&mut log, &receiver, &sender));
    let thread = thread.map_err(failed("start a thread for"))?;
    Ok((Table { orders, thread }, found, said))
}

fn read(dir: &Path, epoch: u64, now: u64) -> Result<(Log, Found), StoreError> {
    let mut found = Found::default();
    let mut take = |entry| match entry {
        Entry::Base(base) => found.base = Some(base),
        Entry::Proxy(record) => found.records.push(record),
    };
    let disk = RealDisk::open_own(dir)?;
    let opened = Log::open_on(
        disk,
        Options { keep: EVIDENCE_BYTES, ..Options::default() },
        |replay| -> Result<(), minicbor::decode::Error> {
            match replay {
                Replay::Record(bytes) => take(minicbor::decode(bytes)?),
                Replay::Snapshot(bytes, _) => minicbor::decode::<Vec<Entry>>(bytes)?.into_iter().for_each(&mut take),
            }
            Ok(())
        },
    )?;
    if let Some(cut) = opened.cut {
        tracing::warn!("{cut}");
        found.cut = Some(cut.to_string());
    }
    let mut log = opened.log;
    if found.base.is_none() {
        let first = first_record(epoch, now);
        found.base = Some(now);
        found.records.push(first.clone());
        log.append(&encode(&Entry::Base(now)));
        log.append(&encode(&Entry::Proxy(first)));
        log.commit()?;
    }
    Ok((log, found))
}

/// The records of a proxy, oldest first, as far as the table of `epoch` has them, and what is missing.
pub(super) fn records_of(dir: &Path, epoch: u64, proxy: ProxyId) -> (Vec<Record>, Vec<String>) {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    let past = vo_store::read_past(&dir.join(epoch.to_string()), |_, bytes| {
        if let Ok(Entry::Proxy(record)) = minicbor::decode(bytes)
            && record.proxy() == Some(proxy)
        {
            records.push(record);
        }
    });
    match past {
        Ok(past) => {
            if past.first.is_some_and(|first| first > 1) && !records.iter().any(|r| matches!(r, Record::Wanted(..))) {
                gaps.push("the agent's first records of it are no longer kept".to_owned());
            }
            gaps.extend(past.gaps.iter().map(ToString::to_string));
        }
        Err(e) => gaps.push(e.to_string()),
    }
    (records, gaps)
}

impl Table {
    /// These follow on all before.
    pub(super) fn append(&self, records: Vec<Record>) {
        let bytes = records.into_iter().map(|record| encode(&Entry::Proxy(record))).collect();
        // A thread that ended has said why.
        let _ = self.orders.send(Order::Append(bytes));
    }

    /// The fold of all records appended so far.
    pub(super) fn snapshot(&self, base: u64, records: Vec<Record>) {
        let mut entries = vec![Entry::Base(base)];
        entries.extend(records.into_iter().map(Entry::Proxy));
        let mut bytes = Vec::new();
        let _: Result<(), minicbor::encode::Error<Infallible>> = minicbor::encode(&entries, &mut bytes);
        let _ = self.orders.send(Order::Snapshot(bytes));
    }

    /// Closes it; what was appended is durable then, if the disk lets it.
    pub(super) fn close(self) {
        drop(self.orders);
        let _ = self.thread.join();
    }
}

fn write(log: &mut Log, orders: &mpsc::Receiver<Order>, notices: &notices::UnboundedSender<Notice>) {
    let before = log.durable();
    while let Ok(first) = orders.recv() {
        let mut snapshot = None;
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Append(records) => {
                    // A snapshot is the state before these.
                    snapshot = None;
                    for record in records {
                        log.append(&record);
                    }
                }
                Order::Snapshot(state) => snapshot = Some(state),
            }
        }
        let result = loop {
            match log.commit() {
                Err(e) if e.is_transient() => {
                    if notices.send(Notice::Full(e.to_string())).is_err() {
                        return;
                    }
                    thread::sleep(RETRY);
                }
                other => break other,
            }
        };
        let result = result.and_then(|durable| {
            if let Some(state) = snapshot {
                match log.snapshot(&state) {
                    Err(e) if !e.is_transient() => return Err(e),
                    _ => {}
                }
            }
            Ok(durable)
        });
        let (notice, failed) = match result {
            Ok(durable) => (Notice::Durable(durable - before, log.size() > SNAPSHOT_BYTES), false),
            Err(e) => (Notice::Failed(e), true),
        };
        if notices.send(notice).is_err() || failed {
            return;
        }
    }
}
