//! May this agent still act? Another one, on another login node maybe, may have taken over at any time ([`vo_core::lease`]).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::launch::{self, AgentAddress};
use crate::lease::Standing;

use super::agent::Agent;
use super::files::write_file;

/// How often an agent asks without a reason: so long may one that was taken over from keep its connections.
const ASK: Duration = Duration::from_secs(5);

/// A file server that hasn't answered by then counts as one that doesn't.
const ANSWER: Duration = Duration::from_secs(30);

impl Agent {
    /// Asks the lease, right before something that only the agent in charge may do. If another one has taken over, this one begins to
    /// end: its batch jobs, starters and files are the other's.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn may_act(&self) -> Result<(), String> {
        if self.fenced.get() {
            return Err("another agent has taken over".to_owned());
        }
        let lease = Arc::clone(&self.lease);
        let asked = tokio::task::spawn_blocking(move || lease.standing());
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(Ok(Standing::Held))) => Ok(()),
            Ok(Ok(Ok(Standing::Lost))) => {
                if !self.fenced.replace(true) {
                    tracing::warn!(epoch = self.lease.epoch, "another agent has taken over: this one ends");
                }
                self.quit();
                Err("another agent has taken over".to_owned())
            }
            Ok(Ok(Err(e))) => Err(format!("the lease cannot be read: {e}")),
            Ok(Err(e)) => Err(format!("the lease cannot be read: {e}")),
            Err(_) => Err(format!("the lease cannot be read: no answer within {ANSWER:?}")),
        }
    }

    /// Asks now and then, and when something is heard of a newer agent.
    pub(super) async fn keep_lease(self: Rc<Self>) {
        let mut held = Instant::now();
        loop {
            let _ = tokio::time::timeout(ASK, self.doubt.notified()).await;
            match self.may_act().await {
                Ok(()) => {
                    held = Instant::now();
                    self.keep_address().await;
                }
                Err(why) => {
                    if self.fenced.get() {
                        return;
                    }
                    tracing::warn!("{why}");
                    // Nobody comes to us any more, and what the starters need may be another agent.
                    if held.elapsed() > self.lease_time() && self.master.borrow().is_none() {
                        tracing::warn!("this agent can't know whether it is still in charge: it ends");
                        self.quit();
                    }
                }
            }
        }
    }

    /// Where the starters find this agent. An older one may have written its own after us, while it did not know of us.
    pub(super) async fn keep_address(&self) {
        let Some(address) = self.address.borrow().clone() else {
            return;
        };
        let path = self.dir.address();
        let kept = tokio::task::spawn_blocking(move || match launch::read::<AgentAddress>(&path) {
            Ok(found) if found == address => Ok(()),
            _ => write_file(&path, &address),
        });
        if let Ok(Err(e)) = kept.await {
            tracing::warn!("agent.addr: {e}");
        }
    }
}
