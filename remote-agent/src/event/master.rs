//! The masters' streams, on the session's socket. The newest one counts.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use vo_core::ids::StarterKey;
use vo_core::proxy::Event;
use vo_net::frames::FrameSource;
use vo_wire::frame::{Frame, Message};
use vo_wire::link::{
    AgentStats, BlobChunk, BlobMissing, Configure, Ping, Pong, RemoveProxies, SetTarget, Shutdown, Why,
};
use vo_wire::work::is_relayed;

use crate::connect::AWAKE;

use super::agent::{Agent, Master};
use super::outbox::outbox;
use super::setup::Refusal;
use super::spool::Spools;

/// Bytes from starters that wait for the master.
const ROOM: usize = 4 << 20;

/// Streams that have not said their first word. Only programs of the user can open one; more are closed.
const STREAMS: usize = 64;

/// A bridge sends the first word at once.
const FIRST_WORD: Duration = Duration::from_secs(60);

/// An agent that no master has told what to do ends after this.
const UNUSED: Duration = Duration::from_secs(300);

/// A starter that takes nothing for this long is disconnected; it then tells anew what it has.
const STALLED: Duration = Duration::from_secs(30);

/// Takes in bridges, for the life of the agent.
pub(super) async fn listen(agent: Rc<Agent>, listener: UnixListener) {
    let began = Instant::now();
    let silent = Arc::new(Semaphore::new(STREAMS));
    loop {
        let unused = agent.life.get().is_none();
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match Arc::clone(&silent).try_acquire_owned() {
                    Ok(place) => drop(tokio::task::spawn_local(serve(Rc::clone(&agent), stream, place))),
                    Err(_) => tracing::warn!("agent.sock: too many silent streams"),
                },
                Err(e) => {
                    // Out of descriptors, most likely: others must close first.
                    tracing::warn!("agent.sock: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            () = tokio::time::sleep(UNUSED), if unused => {
                if agent.life.get().is_none() && began.elapsed() >= UNUSED {
                    tracing::warn!("no master came");
                    return agent.give_up();
                }
            }
        }
    }
}

async fn serve(agent: Rc<Agent>, stream: UnixStream, place: OwnedSemaphorePermit) {
    let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
    if !ours {
        return tracing::warn!("a stream of another user was refused");
    }
    if let Err(e) = converse(&agent, stream, place).await
        && !agent.fenced.get()
    {
        tracing::warn!("the master's stream: {e}");
    }
}

async fn converse(agent: &Rc<Agent>, stream: UnixStream, place: OwnedSemaphorePermit) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    // A sign of life for the bridge, which takes it off the stream.
    write.write_all(&[AWAKE]).await?;
    let mut frames = FrameSource::new(read);
    let first = tokio::time::timeout(FIRST_WORD, frames.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    drop(place);
    let Some(first) = first else {
        return Ok(());
    };
    let configure: Configure = first.read().map_err(invalid)?;
    // A newer agent is the one to talk to; without a word from us the master calls again.
    agent.may_act().await.map_err(io::Error::other)?;
    let epoch = configure.master_epoch;
    let (out, drain) = outbox(ROOM);
    let mut writer = tokio::task::spawn_local(drain.run(write));

    let newest = agent.master.borrow().as_ref().map_or(0, |master| master.epoch);
    let result = if !vo_wire::compatible(vo_wire::PROTOCOL, configure.protocol) {
        let versions =
            format!("the agent speaks protocol {}, the master {}", vo_wire::PROTOCOL >> 16, configure.protocol >> 16);
        Err(Refusal {
            message: versions,
            hint: Some("end the session's agent with the vo-login that started it".to_owned()),
        })
    } else if epoch < newest {
        Err(Refusal { message: "a newer master is connected".to_owned(), hint: None })
    } else {
        agent.configure(configure).await
    };
    if agent.fenced.get() {
        return Ok(());
    }
    if let Err(refusal) = result {
        tracing::error!("refused: {}", refusal.message);
        out.say(0, &refusal.frame());
        drop(out);
        writer.await.map_err(io::Error::other)??;
        if agent.life.get().is_none() {
            agent.give_up();
        }
        return Ok(());
    }

    let serial = agent.serial.get() + 1;
    agent.serial.set(serial);
    let (close, done) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let old = agent.master.replace(Some(Master {
        out: out.clone(),
        epoch,
        serial,
        close: Rc::clone(&close),
        done: Rc::clone(&done),
    }));
    if let Some(old) = old {
        old.close.notify_one();
        agent.master_link(false);
    }
    tracing::info!(epoch, "a master is connected");
    agent.greet(&out);
    drop(out);
    agent.master_link(true);

    let current = || agent.master.borrow().as_ref().is_some_and(|master| master.serial == serial);
    let result = loop {
        tokio::select! {
            frame = frames.next() => match frame {
                // What an older stream still brings is not what is wanted now.
                Ok(Some(_)) if !current() => {}
                Ok(Some(frame)) => {
                    agent.heard.set(Instant::now());
                    if let Err(e) = take(agent, frame).await {
                        break Err(e);
                    }
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            },
            () = close.notified() => break Ok(()),
            written = &mut writer => {
                done.notify_one();
                break written.map_err(io::Error::other).flatten();
            }
        }
    };
    // A bridge that takes nothing must not keep the stream by that.
    writer.abort();
    if current() {
        agent.master.take();
        tracing::info!("the master is gone");
        agent.master_link(false);
    }
    result
}

fn invalid(error: vo_wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn take(agent: &Rc<Agent>, frame: Frame) -> io::Result<()> {
    if is_relayed(frame.kind) {
        relay(agent, &frame).await;
        return Ok(());
    }
    let say_pong = |nonce| {
        if let Some(master) = &*agent.master.borrow() {
            master.out.say(0, &Pong { nonce });
        }
    };
    match frame.kind {
        SetTarget::KIND => agent.tell(Event::TargetSet(frame.read::<SetTarget>().map_err(invalid)?.proxies)),
        RemoveProxies::KIND => agent.tell(Event::RemovalAsked(frame.read::<RemoveProxies>().map_err(invalid)?.proxies)),
        Shutdown::KIND => {
            let order = frame.read().map_err(invalid)?;
            tokio::task::spawn_local(Rc::clone(agent).shut_down(order));
        }
        Ping::KIND => say_pong(frame.read::<Ping>().map_err(invalid)?.nonce),
        BlobChunk::KIND => agent.blobs.take_chunk(agent, frame.read().map_err(invalid)?).await,
        BlobMissing::KIND => agent.blobs.take_missing(agent, &frame.read().map_err(invalid)?),
        AgentStats::KIND => {
            if let Some(master) = &*agent.master.borrow() {
                master.out.say(0, &agent.stats());
            }
        }
        Why::KIND => {
            let question: Why = frame.read().map_err(invalid)?;
            tokio::task::spawn_local(Rc::clone(agent).explain(question));
        }
        Configure::KIND => {
            if let Err(refusal) = agent.configure(frame.read().map_err(invalid)?).await
                && let Some(master) = &*agent.master.borrow()
            {
                master.out.say(0, &refusal.frame());
            }
        }
        Pong::KIND => {}
        kind => tracing::debug!(kind, "skipped"),
    }
    Ok(())
}

/// Passes a frame on to its starter, unread; waits for room, so that the master waits too.
async fn relay(agent: &Rc<Agent>, frame: &Frame) {
    let key = StarterKey(frame.route);
    let Some((out, close)) =
        agent.starters.borrow().get(&key).filter(|l| l.welcomed).map(|l| (l.out.clone(), Rc::clone(&l.close)))
    else {
        // The master has been told that it is not connected, or is being told.
        if let Err(e) = Spools::take(agent, key, frame).await {
            tracing::warn!(%key, "{e}");
        }
        return;
    };
    let mut bytes = Vec::with_capacity(frame.body.len() + 16);
    frame.write(&mut bytes);
    if tokio::time::timeout(STALLED, out.pass(bytes)).await.is_err() {
        tracing::warn!(%key, "takes nothing");
        close.notify_one();
    }
}
