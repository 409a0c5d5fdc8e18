//! The session's Unix socket: one task a client, which checks who it is and carries frames.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use vo_net::frames::FrameSource;
use vo_wire::Frame;

use crate::session::SocketPath;
use crate::terminal::Credit;

/// Clients at once: a script that forgets to close must not take our file descriptors.
const MOST_CLIENTS: usize = 256;

/// What a client's task tells.
pub(crate) enum Told {
    Opened(u64, Outbox),
    Frame(u64, Frame),
    /// All that was sent has been written: the next page may come.
    Drained(u64),
    Closed(u64),
}

/// Bytes for a client.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// Dropped when they have been written, or never will be; without it, the master is told.
    pub(crate) credit: Option<Credit>,
}

/// The way to a client. What is sent is bounded by who sends: listings go page by page, a terminal's output by credit.
#[derive(Clone, Debug)]
pub(crate) struct Outbox(mpsc::UnboundedSender<Piece>);

impl Outbox {
    /// A way, and its other end.
    pub(crate) fn new() -> (Outbox, mpsc::UnboundedReceiver<Piece>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Outbox(sender), receiver)
    }

    /// Sends bytes; to a client that has gone, nothing.
    pub(crate) fn send(&self, bytes: Vec<u8>) {
        let _ = self.0.send(Piece { bytes, credit: None });
    }

    /// Sends a terminal's output. False if the client has gone.
    pub(crate) fn show(&self, bytes: Vec<u8>, credit: Credit) -> bool {
        self.0.send(Piece { bytes, credit: Some(credit) }).is_ok()
    }
}

/// Listens in the session's directory.
pub(crate) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let address = SocketPath::new(dir)?;
    // We hold the store's lock, so a socket that stands here is a dead master's.
    match std::fs::remove_file(address.path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(address.path())?;
    std::fs::set_permissions(dir.join("control.sock"), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts clients until the master ends.
pub(crate) async fn serve(listener: UnixListener, tell: mpsc::Sender<Told>) {
    let uid = nix::unistd::geteuid().as_raw();
    let clients = Arc::new(AtomicUsize::new(0));
    let mut id = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors left: wait for a client to go.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == uid) || clients.load(Ordering::Relaxed) >= MOST_CLIENTS {
            continue;
        }
        id += 1;
        let (tell, clients) = (tell.clone(), clients.clone());
        clients.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // A client that breaks the protocol is one that has gone.
            let _ = converse(id, stream, &tell).await;
            let _ = tell.send(Told::Closed(id)).await;
            clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn converse(id: u64, stream: UnixStream, tell: &mpsc::Sender<Told>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let (outbox, mut outgoing) = Outbox::new();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    tell.send(Told::Opened(id, outbox)).await.map_err(gone)?;
    let reading = async {
        let mut source = FrameSource::new(read);
        while let Some(frame) = source.next().await? {
            tell.send(Told::Frame(id, frame)).await.map_err(gone)?;
        }
        Ok(())
    };
    let writing = async {
        let mut untold = false;
        while let Some(Piece { bytes, credit }) = outgoing.recv().await {
            write.write_all(&bytes).await?;
            untold |= credit.is_none();
            if untold && outgoing.is_empty() {
                tell.send(Told::Drained(id)).await.map_err(gone)?;
                untold = false;
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}
