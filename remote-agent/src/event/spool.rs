//! Stands in for starters that had to end before the master took their results: it sees a starter without CPUs that holds what was put
//! aside, fetches and acknowledges as ever, and nothing is lost or counted twice for the same reasons as ever.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use vo_core::ids::{AttemptId, ProxyId, StarterKey};
use vo_core::proxy::{Link, Proxies};
use vo_wire::frame::{Frame, Message, WireError, write_message};
use vo_wire::link::{StarterDown, StarterUp};
use vo_wire::node::StarterFacts;
use vo_wire::work::{
    Acknowledge, Assign, CHUNK, FetchOutput, Inventory, Kill, OutputChunk, OutputLost, Report, WINDOW,
};

use crate::connect::explain;
use crate::spool::Spool;

use super::agent::Agent;

/// Between two looks for what came late.
const LOOK: Duration = Duration::from_secs(60);

/// The starters that we stand in for.
#[derive(Default)]
pub(super) struct Spools(RefCell<BTreeMap<StarterKey, Told>>);

/// What was told of one.
struct Told {
    spool: Spool,
    /// Over which stream.
    stream: u64,
    ids: BTreeSet<AttemptId>,
}

impl Spools {
    /// One that was cut off for longer than its lease puts its results aside when it finds its way again, and nobody tells us.
    pub(super) async fn watch(agent: Rc<Agent>) {
        loop {
            tokio::time::sleep(LOOK).await;
            Self::present(&agent, None);
        }
    }

    /// Presents what was put aside, of one starter or all, to the master.
    pub(super) fn present(agent: &Rc<Agent>, only: Option<StarterKey>) {
        // The master was just told that it is gone, and with it what was told before.
        only.map(|key| agent.spools.0.borrow_mut().remove(&key));
        let agent = Rc::clone(agent);
        tokio::task::spawn_local(async move {
            let dir = agent.dir.clone();
            let found = tokio::task::spawn_blocking(move || match only {
                // Most starters leave nothing.
                Some(key) => Ok(Spool::of(&dir, key).into_iter().map(|spool| (key, spool)).collect()),
                None => Spool::all(&dir),
            });
            match found.await {
                Ok(Ok(found)) => {
                    for (key, spool) in found {
                        if let Err(e) = present_one(&agent, key, spool).await {
                            tracing::warn!(%key, "what it put aside: {}", explain(&e));
                        }
                    }
                }
                Ok(Err(e)) => tracing::warn!("spool: {}", explain(&e)),
                Err(e) => tracing::warn!("spool: {e}"),
            }
        });
    }

    /// A frame for a starter that is not connected.
    pub(super) async fn take(agent: &Rc<Agent>, key: StarterKey, frame: &Frame) -> Result<(), WireError> {
        let Some(spool) = agent.spools.0.borrow().get(&key).map(|told| told.spool.clone()) else {
            return Ok(());
        };
        match frame.kind {
            FetchOutput::KIND => send(agent, key, spool, frame.read()?).await,
            Acknowledge::KIND => forget(agent, key, spool, frame.read::<Acknowledge>()?.ids).await,
            // What is here has ended; of what is not here, nothing is.
            Kill::KIND => returned(agent, key, spool, frame.read::<Kill>()?.ids).await,
            Assign::KIND => {
                let ids = frame.read::<Assign>()?.attempts.into_iter().map(|assignment| assignment.id).collect();
                returned(agent, key, spool, ids).await;
            }
            _ => {}
        }
        Ok(())
    }
}

async fn say<M: Message>(agent: &Agent, route: u64, message: &M) {
    let out = agent.master.borrow().as_ref().map(|master| master.out.clone());
    if let Some(out) = out {
        let mut bytes = Vec::new();
        write_message(route, message, &mut bytes);
        // A stream that closes meanwhile is followed by one to which all is said again.
        let _ = out.pass(bytes).await;
    }
}

async fn present_one(agent: &Rc<Agent>, key: StarterKey, spool: Spool) -> io::Result<()> {
    // One of which nothing proves that it has ended may still run jobs, and be told for gone later.
    let open =
        |machine: &Proxies| machine.starters().any(|(_, other, link)| other == key && !matches!(link, Link::Gone(_)));
    if agent.machine.borrow().as_ref().is_some_and(open)
        || agent.starters.borrow().contains_key(&key)
        || agent.master.borrow().is_none()
    {
        return Ok(());
    }
    let (stream, read) = (agent.serial.get(), spool.clone());
    let (facts, ids) = blocking(move || Ok((read.facts()?, read.ids()?))).await?;
    if ids.is_empty() {
        // Nothing came of it.
        forget(agent, key, spool, ids).await;
        return Ok(());
    }
    let told = Told { spool: spool.clone(), stream, ids: ids.iter().copied().collect() };
    let before = agent.spools.0.borrow_mut().insert(key, told);
    if before.is_some_and(|told| told.stream == stream && ids.iter().all(|id| told.ids.contains(id))) {
        return Ok(());
    }
    tracing::info!(%key, results = ids.len(), "presenting what a starter put aside");
    // It is no part of its proxy any more, and has room for nothing.
    let facts = StarterFacts { proxy: ProxyId(0), cpus: 0, gpus: 0, time_left_ms: None, ..facts };
    say(agent, 0, &StarterUp { key, facts }).await;
    let inventory = Inventory { finished: ids.clone(), number: 1, ..Inventory::default() };
    say(agent, key.0, &inventory).await;
    for id in ids {
        let read = spool.clone();
        match blocking(move || read.result(id)).await {
            Ok(result) => say(agent, key.0, &Report { results: vec![result], ..Report::default() }).await,
            // Acknowledged meanwhile, or damaged: then it is run again.
            Err(e) => {
                tracing::warn!(%id, "put aside: {}", explain(&e));
                say(agent, key.0, &Report { returned: vec![id], ..Report::default() }).await;
            }
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn send(agent: &Agent, key: StarterKey, spool: Spool, asked: FetchOutput) {
    let FetchOutput { id, kind, offset, length, kept } = asked;
    let end = offset.saturating_add(length.min(WINDOW));
    let mut at = offset;
    while at < end {
        let length = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        let (read, of) = (spool.clone(), kind.clone());
        match blocking(move || read.piece(id, &of, at, length)).await {
            Ok(data) => say(agent, key.0, &OutputChunk { id, kind: kind.clone(), offset: at, data, kept }).await,
            Err(e) => return say(agent, key.0, &OutputLost { id, kind, why: explain(&e), kept }).await,
        }
        at += length as u64;
    }
}

async fn forget(agent: &Rc<Agent>, key: StarterKey, spool: Spool, ids: Vec<AttemptId>) {
    // What could not be removed is presented once more at the next look, and acknowledged again.
    if agent.may_act().await.is_err() {
        agent.spools.0.borrow_mut().remove(&key);
        return;
    }
    match blocking(move || spool.forget(&ids)).await {
        Ok(false) => {}
        Ok(true) => {
            if agent.spools.0.borrow_mut().remove(&key).is_none() {
                return;
            }
            let why = "it ended, and what it put aside is delivered".to_owned();
            say(agent, 0, &StarterDown { key, gone: true, why }).await;
        }
        Err(e) => {
            agent.spools.0.borrow_mut().remove(&key);
            tracing::warn!(%key, "spool: {}", explain(&e));
        }
    }
}

async fn returned(agent: &Agent, key: StarterKey, spool: Spool, mut ids: Vec<AttemptId>) {
    let here = blocking(move || spool.ids()).await.unwrap_or_default();
    ids.retain(|id| !here.contains(id));
    if !ids.is_empty() {
        say(agent, key.0, &Report { returned: ids, ..Report::default() }).await;
    }
}
