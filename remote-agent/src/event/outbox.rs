//! Frames on their way to a peer, bounded in bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use vo_wire::frame::{Message, write_message};

/// What is written in one go.
const BURST: usize = 256 << 10;

/// The near end. Clones lead to the same peer.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<(Vec<u8>, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    capacity: usize,
    /// Bytes of our own messages that wait.
    said: Arc<AtomicUsize>,
}

/// The far end.
#[derive(Debug)]
pub(super) struct Drain {
    queue: mpsc::UnboundedReceiver<(Vec<u8>, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    said: Arc<AtomicUsize>,
}

/// The peer is gone.
#[derive(Debug)]
pub(super) struct Closed;

/// A queue for `capacity` bytes of passed frames.
pub(super) fn outbox(capacity: usize) -> (Outbox, Drain) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(capacity));
    let said = Arc::new(AtomicUsize::new(0));
    (
        Outbox { queue: sender, room: Arc::clone(&room), capacity, said: Arc::clone(&said) },
        Drain { queue: receiver, room, said },
    )
}

impl Outbox {
    /// A message of our own. It takes no room: these are small, and there are few of them for each thing that happens.
    pub(super) fn say<M: Message>(&self, route: u64, message: &M) {
        let mut bytes = Vec::new();
        write_message(route, message, &mut bytes);
        self.said.fetch_add(bytes.len(), Ordering::Relaxed);
        // To a peer that is gone nothing needs to be said.
        let _ = self.queue.send((bytes, None));
    }

    /// Bytes of our own messages that the peer has not taken: what a peer can have us say must be bounded by this.
    pub(super) fn said(&self) -> usize {
        self.said.load(Ordering::Relaxed)
    }

    /// Whole frames; waits for room.
    pub(super) async fn pass(&self, bytes: Vec<u8>) -> Result<(), Closed> {
        let size = u32::try_from(bytes.len().min(self.capacity)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(|_| Closed)?;
        self.queue.send((bytes, Some(permit))).map_err(|_| Closed)
    }
}

impl Drain {
    /// Writes until all near ends are dropped, then closes the stream.
    pub(super) async fn run(mut self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        while let Some((mut bytes, permit)) = self.queue.recv().await {
            let mut said = if permit.is_none() { bytes.len() } else { 0 };
            let mut permits = vec![permit];
            while bytes.len() < BURST
                && let Ok((more, permit)) = self.queue.try_recv()
            {
                bytes.extend_from_slice(&more);
                said += if permit.is_none() { more.len() } else { 0 };
                permits.push(permit);
            }
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            self.said.fetch_sub(said, Ordering::Relaxed);
        }
        stream.shutdown().await
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.room.close();
    }
}
