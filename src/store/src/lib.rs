//! Durable records: an append log with checksums, group commit and snapshots.
//!
//! The master keeps its job queue here and an event agent its `jobinfo_table`. What the records mean is the caller's
//! affair: this crate must not know scheduling, and starts no thread. Its calls block on the disk, so an event loop
//! makes them from a thread of their own.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! use vo_store::{Log, Options, Replay};
//!
//! let mut state = Vec::new();
//! let mut log = Log::open(dir.path(), Options::default(), |replay| {
//!     match replay {
//!         Replay::Snapshot(bytes, _) => state = bytes.to_vec(),
//!         Replay::Record(bytes) => state.extend_from_slice(bytes),
//!     }
//!     Ok::<(), std::convert::Infallible>(())
//! })?
//! .log;
//! let sequence = log.append(b"a record");
//! state.extend_from_slice(b"a record");
//! assert!(log.commit()? >= sequence); // from here on no crash loses it
//! if log.size() > 1 << 20 {
//!     log.snapshot(&state)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! After a crash of the process or of the machine at any point, reopening replays the appended records in order, up to
//! some commit at or after the last one that returned `Ok`: nothing durable is lost, a commit is kept whole or not at
//! all, and no record comes back changed. This holds if the disk may lose, tear and reorder everything that was not
//! synced, names included.
//!
//! Damage that no crash explains (a bad checksum with later records behind it, a bad header, a missing file, a gap in
//! the sequence) is refused with the file and offset, never repaired by guessing. One thing no log can tell apart: a
//! last commit that rotted after its sync looks like one that was torn. It is cut, and [`Cut`] says so.
//!
//! # Files
//!
//! A store is one directory: `log-N`, and for N > 0 `snapshot-N`, the state before the first record of `log-N`. `lock`
//! says who has it open. `past-N` is a log that a snapshot has replaced; no state depends on it. Numbers are little-endian, checksums CRC-32 (IEEE).
//!
//! ```text
//! log-N         0  7  "VOLOG1\n"
//!               7  1  format version, 1
//!               8  8  generation, N
//!              16  8  base: sequence number of the last record before this log
//!              24  4  checksum of bytes 0..24
//!              28     groups, one for each commit
//!
//! group         0  8  sequence number of its first record
//!               8  8  length of its records in bytes
//!              16  4  checksum of its records
//!              20  4  checksum of the generation (8 bytes) and of bytes 0..20
//!              24     records: length (4 bytes, at most 64 MiB) and body
//!
//! snapshot-N    0  7  "VOSNAP\n"
//!               7  1  format version, 1
//!               8  8  generation, N
//!              16  8  sequence number of the last record that it covers
//!              24  8  length of the state in bytes
//!              32  4  checksum of the state
//!              36  4  checksum of bytes 0..36
//!              40     state
//! ```
//!
//! The checksum stands over the group, not the record, because a disk may keep the end of a torn write and lose its
//! middle. A good record behind a bad one therefore proves nothing, but a later group does: it was written only after
//! the sync of all before it had succeeded, so what is bad before it was once good.

mod copy;
mod disk;
mod error;
mod format;
mod lock;
mod log;
pub mod memdisk;
mod past;

pub use copy::copy;
pub use disk::{Disk, RealDisk, write_atomic};
pub use error::StoreError;
pub use format::MAX_RECORD;
pub use lock::Lock;
pub use log::{Cut, Log, Opened, Options, Replay};
pub use past::{Past, read_past};
