//! A master: the production pool on the production log, on a disk that loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};

use vo_core::job::AttemptResult;
use vo_core::pool::{Pool, Record, Snapshot};
use vo_core::{JobId, StarterKey, Time};
use vo_store::memdisk::MemDisk;
use vo_store::{Log, Options, Replay, StoreError};

use crate::world::empty_pool;

/// A master that runs.
pub(crate) struct Master {
    pub(crate) life: u64,
    pub(crate) pool: Pool,
    log: Log<MemDisk>,
    /// Records of earlier lives.
    base: u64,
    pub(crate) committing: bool,
    pub(crate) tick: Option<Time>,
    /// Submissions not yet acknowledged: the record, the cluster and its jobs.
    pub(crate) submitted: Vec<(u64, u32, u32)>,
    /// Removals not yet durable.
    pub(crate) removals: Vec<(u64, Vec<JobId>)>,
    /// Outputs under way: whose, and over which stream.
    pub(crate) collecting: BTreeMap<u64, (StarterKey, AttemptResult, Option<u64>)>,
    pub(crate) collections: u64,
    /// Are proxies wanted?
    pub(crate) wanting: bool,
    /// The workstation's clock is ahead by this: it may be set at any time, and is read when the master starts.
    pub(crate) ahead: u64,
    /// The highest epoch of an agent met, by site.
    pub(crate) epochs: BTreeMap<usize, u64>,
    /// Streams on which an agent said who it is, and those on which it told its proxies.
    pub(crate) heard: BTreeSet<u64>,
    pub(crate) reported: BTreeSet<u64>,
    /// Proxies that each site was last told to have.
    pub(crate) targets: BTreeMap<usize, u32>,
}

impl Master {
    pub(crate) fn start(life: u64, ahead: u64, disk: &MemDisk) -> Result<Master, StoreError> {
        let mut pool = empty_pool();
        let opened = Log::open_on(disk.clone(), Options::default(), |replay| {
            match replay {
                Replay::Snapshot(bytes, _) => pool = empty_pool().restore(minicbor::decode::<Snapshot>(bytes)?),
                Replay::Record(bytes) => pool.apply(&minicbor::decode::<Record>(bytes)?),
            }
            Ok::<(), minicbor::decode::Error>(())
        })?;
        Ok(Master {
            life,
            pool,
            base: opened.log.appended(),
            log: opened.log,
            committing: false,
            tick: None,
            submitted: Vec::new(),
            removals: Vec::new(),
            collecting: BTreeMap::new(),
            collections: 0,
            wanting: false,
            ahead,
            epochs: BTreeMap::new(),
            heard: BTreeSet::new(),
            reported: BTreeSet::new(),
            targets: BTreeMap::new(),
        })
    }

    /// The time as the master knows it.
    pub(crate) fn time(&self, now: Time) -> Time {
        Time(now.0 + self.ahead)
    }

    /// Records that survived so far.
    pub(crate) fn kept(&self) -> usize {
        usize::try_from(self.base).unwrap_or(usize::MAX)
    }

    /// Appends the pool's records; which, and are there any to commit?
    pub(crate) fn append(&mut self) -> (Vec<Record>, bool) {
        let records = self.pool.take_records();
        for record in &records {
            self.log.append(&minicbor::to_vec(record).unwrap_or_default());
        }
        (records, self.log.appended() > self.log.durable())
    }

    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        self.log.commit().map(drop)
    }

    /// Replaces the log; all records must have been appended.
    pub(crate) fn snapshot(&mut self) -> Result<(), StoreError> {
        let state = minicbor::to_vec(self.pool.snapshot()).unwrap_or_default();
        self.log.snapshot(&state)
    }

    /// Durable records of this life.
    pub(crate) fn durable(&self) -> u64 {
        self.log.durable().saturating_sub(self.base)
    }
}
