//! Input files, fetched from the event agent by content hash, once for all jobs of the node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use vo_wire::link::{BlobAck, BlobChunk, NeedBlob};

use super::jobs::reason;

/// SHA-256 of a file's content.
pub(super) type Hash = [u8; 32];

/// Files asked for at once: each may have a window of pieces under way.
const AT_ONCE: usize = 4;

/// A file on its way.
struct Incoming {
    file: File,
    digest: Context,
    received: u64,
}

/// The files that are here, and those that should come.
pub(super) struct Blobs {
    directory: PathBuf,
    /// Files kept beyond the jobs that need them take at most this much.
    room: u64,
    held: HashMap<Hash, u64>,
    held_bytes: u64,
    /// Oldest first.
    order: VecDeque<Hash>,
    /// How many jobs wait for it or copy it now.
    users: HashMap<Hash, usize>,
    asked: HashMap<Hash, Option<Incoming>>,
    wanted: VecDeque<Hash>,
}

/// What became of a piece.
pub(super) enum Progress {
    /// More is to come; the agent is told.
    More(BlobAck),
    /// The file is here; the agent is told.
    Complete(BlobAck),
    /// It can't be had now, and why.
    Failed(String),
    /// Nobody asked.
    Stray,
}

impl Blobs {
    pub(super) fn new(directory: PathBuf, room: u64) -> Blobs {
        Blobs {
            directory,
            room,
            held: HashMap::new(),
            held_bytes: 0,
            order: VecDeque::new(),
            users: HashMap::new(),
            asked: HashMap::new(),
            wanted: VecDeque::new(),
        }
    }

    /// Where the file is or will be.
    pub(super) fn path(&self, hash: &Hash) -> PathBuf {
        self.directory.join(hex(hash))
    }

    /// A job needs these files; says which are not here. Each call is followed by one of [`Blobs::release`].
    pub(super) fn need(&mut self, hashes: &HashSet<Hash>) -> HashSet<Hash> {
        let mut missing = HashSet::new();
        for hash in hashes {
            *self.users.entry(*hash).or_default() += 1;
            if !self.held.contains_key(hash) {
                missing.insert(*hash);
                if !self.asked.contains_key(hash) && !self.wanted.contains(hash) {
                    self.wanted.push_back(*hash);
                }
            }
        }
        missing
    }

    /// A job doesn't need these files any more; the oldest that nobody needs make room.
    pub(super) fn release(&mut self, hashes: &HashSet<Hash>) {
        for hash in hashes {
            if let Some(users) = self.users.get_mut(hash) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(hash);
                }
            }
        }
        let mut at = 0;
        while self.held_bytes > self.room
            && let Some(&hash) = self.order.get(at)
        {
            if self.users.contains_key(&hash) {
                at += 1;
                continue;
            }
            self.order.remove(at);
            self.held_bytes -= self.held.remove(&hash).unwrap_or(0);
            let _ = fs::remove_file(self.path(&hash));
        }
    }

    /// Files to ask for now.
    pub(super) fn ask(&mut self) -> Vec<NeedBlob> {
        let mut asks = Vec::new();
        while self.asked.len() < AT_ONCE
            && let Some(hash) = self.wanted.pop_front()
        {
            if self.users.contains_key(&hash) {
                self.asked.insert(hash, None);
                asks.push(NeedBlob { hash });
            }
        }
        asks
    }

    /// The connection is gone: what was under way is asked for again.
    pub(super) fn lost(&mut self) {
        self.wanted.extend(self.asked.drain().map(|(hash, _)| hash));
    }

    /// The agent can't give it.
    pub(super) fn refused(&mut self, hash: &Hash) {
        self.asked.remove(hash);
    }

    /// Takes in a piece.
    pub(super) fn receive(&mut self, chunk: &BlobChunk) -> Progress {
        let part = self.directory.join(format!("{}.part", hex(&chunk.hash)));
        let Some(slot) = self.asked.get_mut(&chunk.hash) else {
            return Progress::Stray;
        };
        match append(slot, &part, chunk) {
            Ok(received) => {
                let ack = BlobAck { hash: chunk.hash, received };
                if received < chunk.size {
                    return Progress::More(ack);
                }
                match self.keep(chunk, &part) {
                    Ok(()) => Progress::Complete(ack),
                    Err(why) => Progress::Failed(why),
                }
            }
            Err(why) => {
                self.asked.remove(&chunk.hash);
                let _ = fs::remove_file(part);
                Progress::Failed(why)
            }
        }
    }

    fn keep(&mut self, chunk: &BlobChunk, part: &Path) -> Result<(), String> {
        let name = hex(&chunk.hash);
        let digest = self.asked.remove(&chunk.hash).flatten().map(|incoming| incoming.digest.finish());
        if digest.is_none_or(|digest| digest.as_ref() != chunk.hash) {
            let _ = fs::remove_file(part);
            return Err(format!("input file {name} arrived damaged"));
        }
        fs::rename(part, self.path(&chunk.hash))
            .map_err(|e| format!("cannot keep input file {name}: {}", reason(&e)))?;
        self.held.insert(chunk.hash, chunk.size);
        self.held_bytes = self.held_bytes.saturating_add(chunk.size);
        self.order.push_back(chunk.hash);
        Ok(())
    }
}

/// Writes a piece behind those before; says how much there is now.
fn append(slot: &mut Option<Incoming>, part: &Path, chunk: &BlobChunk) -> Result<u64, String> {
    let failed = |e: io::Error| format!("cannot write {}: {}", part.display(), reason(&e));
    let incoming = match slot {
        Some(incoming) => incoming,
        None => slot.insert(Incoming {
            file: File::create(part).map_err(failed)?,
            digest: Context::new(&SHA256),
            received: 0,
        }),
    };
    let received = incoming.received.saturating_add(chunk.data.len() as u64);
    if chunk.offset != incoming.received || received > chunk.size || (chunk.data.is_empty() && chunk.size > 0) {
        return Err(format!("the pieces of input file {} don't fit together", hex(&chunk.hash)));
    }
    incoming.file.write_all(&chunk.data).map_err(failed)?;
    incoming.digest.update(&chunk.data);
    incoming.received = received;
    Ok(received)
}

/// A hash as it is written in file names.
pub(super) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
