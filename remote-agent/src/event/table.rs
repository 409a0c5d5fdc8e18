//! `jobinfo_table`: the durable records of an agent, written by a thread of its own because a home may be slow.

use std::convert::Infallible;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use minicbor::{Decode, Encode};
use tokio::sync::mpsc as notices;
use vo_core::proxy::Record;
use vo_store::{Log, Options, Replay, StoreError};

/// Then the log is replaced by a snapshot: some thousand proxies' lives.
const SNAPSHOT_BYTES: u64 = 1 << 20;

/// Wait before the next try on a full disk.
const RETRY: Duration = Duration::from_secs(5);

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Entry {
    /// Milliseconds between 1970 and the zero of all times in the table.
    #[n(0)]
    Base(#[n(0)] u64),
    /// An agent of this epoch began.
    #[n(1)]
    Epoch(#[n(0)] u64),
    /// A step of a proxy.
    #[n(2)]
    Proxy(#[n(0)] Record),
}

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
    pub(super) epoch: u64,
    pub(super) records: Vec<Record>,
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _: Result<(), minicbor::encode::Error<Infallible>> = minicbor::encode(entry, &mut bytes);
    bytes
}

/// Opens the table and notes a new epoch in it, durably. `now` is the time of day in milliseconds.
///
/// # Errors
/// What the store gave.
pub(super) fn open(dir: &Path, now: u64) -> Result<(Table, Found, notices::UnboundedReceiver<Notice>), StoreError> {
    let mut found = Found::default();
    let mut take = |entry| match entry {
        Entry::Base(base) => found.base = Some(base),
        Entry::Epoch(epoch) => found.epoch = epoch,
        Entry::Proxy(record) => found.records.push(record),
    };
    let opened = Log::open(dir, Options::default(), |replay| -> Result<(), minicbor::decode::Error> {
        match replay {
            Replay::Record(bytes) => take(minicbor::decode(bytes)?),
            Replay::Snapshot(bytes) => minicbor::decode::<Vec<Entry>>(bytes)?.into_iter().for_each(&mut take),
        }
        Ok(())
    })?;
    if let Some(cut) = opened.cut {
        tracing::warn!("{cut}");
    }
    let mut log = opened.log;
    found.epoch = found.epoch.saturating_add(1);
    if found.base.is_none() {
        found.base = Some(now);
        log.append(&encode(&Entry::Base(now)));
    }
    log.append(&encode(&Entry::Epoch(found.epoch)));
    log.commit()?;
    let (orders, receiver) = mpsc::channel();
    let (sender, said) = notices::unbounded_channel();
    let thread = thread::Builder::new().name("table".to_owned()).spawn(move || write(&mut log, &receiver, &sender));
    let thread =
        thread.map_err(|source| StoreError::Io { action: "start a thread for", file: dir.to_owned(), source })?;
    Ok((Table { orders, thread }, found, said))
}

impl Table {
    /// These follow on all before.
    pub(super) fn append(&self, records: Vec<Record>) {
        let bytes = records.into_iter().map(|record| encode(&Entry::Proxy(record))).collect();
        // A thread that ended has said why.
        let _ = self.orders.send(Order::Append(bytes));
    }

    /// The fold of all records appended so far.
    pub(super) fn snapshot(&self, base: u64, epoch: u64, records: Vec<Record>) {
        let mut entries = vec![Entry::Base(base), Entry::Epoch(epoch)];
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
