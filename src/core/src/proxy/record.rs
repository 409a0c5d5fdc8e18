//! The durable steps of proxies, and the state that they fold into.

use super::*;

/// A proxy's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// Not submitted.
    #[n(0)]
    Wanted,
    /// Meant to be submitted; the answer is not known.
    #[n(1)]
    Submitting,
    /// Queued.
    #[n(2)]
    Pend,
    /// Running.
    #[n(3)]
    Run,
    /// Ended.
    #[n(4)]
    Exit,
    /// The batch system doesn't list it, and nothing else tells.
    #[n(5)]
    Unknown,
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            State::Wanted => "WANTED",
            State::Submitting => "SUBMITTING",
            State::Pend => "PEND",
            State::Run => "RUN",
            State::Exit => "EXIT",
            State::Unknown => "UNKNOWN",
        })
    }
}

/// A durable step. Records fold into the state with [`Proxies::apply`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// Ids below this one are used up; was anything ever submitted?
    #[n(0)]
    Used(#[n(0)] ProxyId, #[n(1)] bool),
    /// A proxy is to be submitted.
    #[n(1)]
    Wanted(#[n(0)] ProxyId, #[n(1)] Time),
    /// The submit command of this try may run from now on.
    #[n(2)]
    SubmitIntended(#[n(0)] ProxyId, #[n(1)] u32, #[n(2)] Time),
    /// The last try was never accepted, and why we know.
    #[n(3)]
    NotSubmitted(#[n(0)] ProxyId, #[n(1)] String, #[n(2)] Time),
    /// Queued under this id.
    #[n(4)]
    Submitted(#[n(0)] ProxyId, #[n(1)] String, #[n(2)] Time),
    /// Pend, Run or Unknown, the restarts counted by the batch system, and why.
    #[n(5)]
    Moved(#[n(0)] ProxyId, #[n(1)] State, #[n(2)] u32, #[n(3)] String, #[n(4)] Time),
    /// It is to end, whatever it runs, and why. Here and below, tables of earlier versions have no time.
    #[n(6)]
    Removing(#[n(0)] ProxyId, #[n(1)] Option<Time>, #[n(2)] Option<String>),
    /// A starter on this node called.
    #[n(7)]
    StarterSeen(#[n(0)] ProxyId, #[n(1)] u32, #[n(2)] StarterKey, #[n(3)] Option<Time>),
    /// It is known to have ended, and why.
    #[n(8)]
    StarterGone(#[n(0)] ProxyId, #[n(1)] StarterKey, #[n(2)] String, #[n(3)] Option<Time>),
    /// Ended, and why.
    #[n(9)]
    Ended(#[n(0)] ProxyId, #[n(1)] String, #[n(2)] Time),
    /// No longer of interest.
    #[n(10)]
    Forgotten(#[n(0)] ProxyId),
}

/// A line of the table in which an agent keeps its records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Entry {
    /// Milliseconds between 1970 and the zero of all times in the table.
    #[n(0)]
    Base(#[n(0)] u64),
    /// A step of a proxy.
    #[n(1)]
    Proxy(#[n(0)] Record),
}

impl Proxies {
    /// Folds a record of an earlier life, in order; [`Event::Recovered`] follows the last one.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Used(next, ever) => {
                self.next_id = self.next_id.max(next.0);
                self.ever_submitted |= ever;
            }
            Record::Wanted(id, at) => {
                self.next_id = self.next_id.max(id.0.saturating_add(1));
                self.proxies.insert(*id, Proxy::new(*at));
            }
            Record::Forgotten(id) => {
                self.proxies.remove(id);
            }
            Record::SubmitIntended(id, ..)
            | Record::NotSubmitted(id, ..)
            | Record::Submitted(id, ..)
            | Record::Moved(id, ..)
            | Record::Removing(id, ..)
            | Record::StarterSeen(id, ..)
            | Record::StarterGone(id, ..)
            | Record::Ended(id, ..) => {
                self.ever_submitted |= matches!(record, Record::SubmitIntended(..));
                if let Some(proxy) = self.proxies.get_mut(id) {
                    fold(proxy, record);
                }
            }
        }
    }

    /// Records that fold into the present state: what a snapshot holds.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut out = alloc::vec![Record::Used(ProxyId(self.next_id), self.ever_submitted)];
        for (&id, proxy) in &self.proxies {
            out.push(Record::Wanted(id, proxy.since));
            if proxy.attempt > 0 {
                out.push(Record::SubmitIntended(id, proxy.attempt, proxy.since));
            }
            if let Some(batch_id) = &proxy.batch_id {
                out.push(Record::Submitted(id, batch_id.clone(), proxy.queued));
            }
            for (&key, starter) in &proxy.starters {
                out.push(Record::StarterSeen(id, starter.node, key, None));
                if let Link::Gone(why) = &starter.link {
                    out.push(Record::StarterGone(id, key, why.clone(), None));
                }
            }
            if proxy.removing {
                out.push(Record::Removing(id, None, None));
            }
            match proxy.state {
                State::Wanted if proxy.attempt > 0 => {
                    out.push(Record::NotSubmitted(id, proxy.why.clone(), proxy.since));
                }
                State::Wanted | State::Submitting => {}
                State::Pend | State::Run | State::Unknown => {
                    out.push(Record::Moved(id, proxy.state, proxy.restarts, proxy.why.clone(), proxy.since));
                }
                State::Exit => out.push(Record::Ended(id, proxy.why.clone(), proxy.since)),
            }
        }
        out
    }
}

/// Folds a record into its proxy.
fn fold(proxy: &mut Proxy, record: &Record) {
    match record {
        Record::SubmitIntended(_, attempt, at) => {
            proxy.attempt = *attempt;
            proxy.enter(State::Submitting, "being submitted", *at);
        }
        Record::NotSubmitted(_, why, at) => {
            proxy.lookup = None;
            proxy.enter(State::Wanted, why, *at);
        }
        Record::Submitted(_, batch_id, at) => {
            proxy.batch_id = Some(batch_id.clone());
            proxy.queued = *at;
            proxy.lookup = None;
            proxy.enter(State::Pend, "queued", *at);
        }
        Record::Moved(_, state, restarts, why, at) => {
            proxy.restarts = *restarts;
            proxy.enter(*state, why, *at);
        }
        Record::Removing(..) => proxy.removing = true,
        Record::StarterSeen(_, node, key, _) => {
            let link = Link::Silent(proxy.since, String::new());
            proxy.starters.insert(*key, Starter { node: *node, link });
        }
        Record::StarterGone(_, key, why, _) => {
            if let Some(starter) = proxy.starters.get_mut(key) {
                starter.link = Link::Gone(why.clone());
            }
        }
        Record::Ended(_, why, at) => {
            proxy.lookup = None;
            proxy.absence = None;
            proxy.enter(State::Exit, why, *at);
        }
        Record::Used(..) | Record::Wanted(..) | Record::Forgotten(_) => {}
    }
}
