//! Input files by content hash: asked for from the master once, served to every starter that needs them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ring::digest;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use vo_core::ids::StarterKey;
use vo_wire::link::{BlobAck, BlobChunk, BlobMissing, NeedBlob};
use vo_wire::work::{CHUNK, WINDOW};

use crate::connect::explain;

use super::agent::Agent;

type Hash = [u8; 32];

/// A file that the master sends, or will be asked for.
#[derive(Default)]
struct Incoming {
    waiting: Vec<StarterKey>,
    part: Option<Part>,
    /// It came with another content once already.
    garbled: bool,
}

struct Part {
    file: File,
    path: PathBuf,
    received: u64,
    digest: digest::Context,
}

/// A file on its way to a starter.
#[derive(Default)]
struct Outgoing {
    acknowledged: Cell<u64>,
    closed: Cell<bool>,
    moved: Notify,
}

/// All files on their way.
#[derive(Default)]
pub(super) struct Blobs {
    incoming: RefCell<BTreeMap<Hash, Incoming>>,
    outgoing: RefCell<BTreeMap<(StarterKey, Hash), Rc<Outgoing>>>,
}

fn name(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ask(agent: &Agent, hash: Hash) {
    if let Some(master) = &*agent.master.borrow() {
        master.out.say(0, &NeedBlob { hash });
    }
}

impl Blobs {
    /// A starter needs a file.
    pub(super) fn need(&self, agent: &Rc<Agent>, key: StarterKey, hash: Hash) {
        if let Some(incoming) = self.incoming.borrow_mut().get_mut(&hash) {
            if !incoming.waiting.contains(&key) {
                incoming.waiting.push(key);
            }
            return;
        }
        self.serve(agent, key, hash);
    }

    /// Files that a starter waits for.
    pub(super) fn waited_for(&self, key: StarterKey) -> usize {
        let outgoing = self.outgoing.borrow().range((key, [0; 32])..=(key, [0xff; 32])).count();
        outgoing + self.incoming.borrow().values().filter(|incoming| incoming.waiting.contains(&key)).count()
    }

    /// The master's stream is new: what was on its way is lost.
    pub(super) fn ask_again(&self, agent: &Agent) {
        for (&hash, incoming) in &mut *self.incoming.borrow_mut() {
            incoming.part = None;
            ask(agent, hash);
        }
    }

    /// A starter's connection ended.
    pub(super) fn starter_gone(&self, key: StarterKey) {
        self.outgoing.borrow_mut().retain(|(to, _), outgoing| {
            if *to == key {
                outgoing.closed.set(true);
                outgoing.moved.notify_one();
            }
            *to != key
        });
        for incoming in self.incoming.borrow_mut().values_mut() {
            incoming.waiting.retain(|waiting| *waiting != key);
        }
    }

    /// A starter has received so much.
    pub(super) fn acknowledged(&self, key: StarterKey, ack: &BlobAck) {
        if let Some(outgoing) = self.outgoing.borrow().get(&(key, ack.hash)) {
            outgoing.acknowledged.set(ack.received.max(outgoing.acknowledged.get()));
            outgoing.moved.notify_one();
        }
    }

    /// Sends the file if it is here; else it is asked for.
    fn serve(&self, agent: &Rc<Agent>, key: StarterKey, hash: Hash) {
        if self.outgoing.borrow().contains_key(&(key, hash)) {
            return;
        }
        let outgoing = Rc::new(Outgoing::default());
        self.outgoing.borrow_mut().insert((key, hash), Rc::clone(&outgoing));
        let agent = Rc::clone(agent);
        tokio::task::spawn_local(async move {
            let result = match File::open(agent.dir.blobs().join(name(&hash))).await {
                Ok(file) => send(&agent, key, hash, file, &outgoing).await.map(|()| true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            };
            if outgoing.closed.get() {
                return;
            }
            let blobs = &agent.blobs;
            blobs.outgoing.borrow_mut().remove(&(key, hash));
            match result {
                Ok(true) => {}
                Ok(false) => {
                    let mut all = blobs.incoming.borrow_mut();
                    let incoming = all.entry(hash).or_insert_with(|| {
                        ask(&agent, hash);
                        Incoming::default()
                    });
                    if !incoming.waiting.contains(&key) {
                        incoming.waiting.push(key);
                    }
                }
                Err(e) => tell_missing(&agent, &[key], &BlobMissing { hash, why: explain(&e) }),
            }
        });
    }

    /// The master sends a piece.
    pub(super) async fn take_chunk(&self, agent: &Rc<Agent>, chunk: BlobChunk) {
        let hash = chunk.hash;
        let part = match self.incoming.borrow_mut().get_mut(&hash) {
            Some(incoming) => incoming.part.take(),
            // Nobody waits for it any more, or it came twice.
            None => return,
        };
        match write(agent, part, &chunk).await {
            Ok(part) if part.received < chunk.size => {
                let received = part.received;
                if let Some(incoming) = self.incoming.borrow_mut().get_mut(&hash) {
                    incoming.part = Some(part);
                }
                if let Some(master) = &*agent.master.borrow() {
                    master.out.say(0, &BlobAck { hash, received });
                }
            }
            Ok(part) => {
                if let Some(master) = &*agent.master.borrow() {
                    master.out.say(0, &BlobAck { hash, received: part.received });
                }
                self.complete(agent, hash, part).await;
            }
            Err(e) => {
                self.take_missing(agent, &BlobMissing { hash, why: format!("the site can't keep it: {}", explain(&e)) })
            }
        }
    }

    async fn complete(&self, agent: &Rc<Agent>, hash: Hash, part: Part) {
        let Part { mut file, path, digest, .. } = part;
        let right = digest.finish().as_ref() == hash;
        let result = async {
            file.flush().await?;
            drop(file);
            if right {
                tokio::fs::rename(&path, agent.dir.blobs().join(name(&hash))).await
            } else {
                tokio::fs::remove_file(&path).await
            }
        };
        if let Err(e) = result.await {
            return self
                .take_missing(agent, &BlobMissing { hash, why: format!("the site can't keep it: {}", explain(&e)) });
        }
        if right {
            let incoming = self.incoming.borrow_mut().remove(&hash);
            for key in incoming.into_iter().flat_map(|incoming| incoming.waiting) {
                self.serve(agent, key, hash);
            }
            return;
        }
        let again = self
            .incoming
            .borrow_mut()
            .get_mut(&hash)
            .is_some_and(|incoming| !std::mem::replace(&mut incoming.garbled, true));
        if again {
            ask(agent, hash);
        } else {
            let why = "it changed on its way, or on the workstation".to_owned();
            self.take_missing(agent, &BlobMissing { hash, why });
        }
    }

    /// The file can't be had.
    pub(super) fn take_missing(&self, agent: &Agent, missing: &BlobMissing) {
        let incoming = self.incoming.borrow_mut().remove(&missing.hash);
        if let Some(incoming) = incoming {
            tell_missing(agent, &incoming.waiting, missing);
        }
    }
}

fn tell_missing(agent: &Agent, keys: &[StarterKey], missing: &BlobMissing) {
    tracing::warn!("file {}: {}", name(&missing.hash), missing.why);
    for key in keys {
        if let Some(line) = agent.starters.borrow().get(key) {
            line.out.say(key.0, missing);
        }
    }
}

async fn write(agent: &Agent, part: Option<Part>, chunk: &BlobChunk) -> io::Result<Part> {
    let mut part = match part {
        Some(part) => part,
        None => {
            let path = agent.dir.blobs().join(format!("{}.part", name(&chunk.hash)));
            Part { file: File::create(&path).await?, path, received: 0, digest: digest::Context::new(&digest::SHA256) }
        }
    };
    let received = part.received.saturating_add(chunk.data.len() as u64);
    // An empty piece moves nothing on: only an empty file has one.
    if chunk.offset != part.received || received > chunk.size || (chunk.data.is_empty() && chunk.size > 0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its pieces do not fit"));
    }
    part.file.write_all(&chunk.data).await?;
    part.digest.update(&chunk.data);
    part.received = received;
    Ok(part)
}

async fn send(agent: &Agent, key: StarterKey, hash: Hash, mut file: File, outgoing: &Outgoing) -> io::Result<()> {
    let size = file.metadata().await?.len();
    let mut offset = 0;
    loop {
        while offset >= outgoing.acknowledged.get().saturating_add(WINDOW) && !outgoing.closed.get() {
            outgoing.moved.notified().await;
        }
        let out = agent.starters.borrow().get(&key).map(|line| line.out.clone());
        let Some(out) = out.filter(|_| !outgoing.closed.get()) else {
            return Ok(());
        };
        let wanted = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        let mut data = vec![0; wanted];
        file.read_exact(&mut data).await?;
        let chunk = BlobChunk { hash, offset, size, data };
        offset += wanted as u64;
        let mut bytes = Vec::with_capacity(wanted + 128);
        vo_wire::frame::write_message(key.0, &chunk, &mut bytes);
        if out.pass(bytes).await.is_err() || offset >= size {
            return Ok(());
        }
    }
}
