//! Which of several event agents of one session may act. Runs in an agent, before anything else that it does.
//!
//! A gateway's name may lead to several login nodes with one home, where locks and sockets of one node mean nothing to another, and an
//! agent that was stopped, or cut off with its node, may go on at any time, between any two of its steps. So agents are told apart by
//! *leases*: a file `lease.EPOCH` in the session's directory for each, whose content no other has. Three operations of the file system
//! are all that is used: make a file whole under a name that must be free, remove one, and read one.
//!
//! **An agent may act while its own lease is there**, which it asks right before each command or file that matters. A newer one takes
//! the next epoch, removes all lower leases, and only then begins. This module says which steps that takes; the driver takes them.
//!
//! # Why only one acts
//!
//! Let two agents hold the epochs m < n, and both have come to [`Step::Held`]. The last listing of m showed none higher, so it came
//! before n was made, and m was made before that. Then the last listing of n, which came after n was made, would have shown m, and n
//! would have removed it. So from the moment that n may act, m may not. A lease of number m that is made again later, by one that
//! listed something stale, has another content, and its maker yields to n.
//!
//! # What may still happen between asking and acting
//!
//! The older agent may be stopped after it was told that its lease is there, and run its command after the newer one began. It ran
//! with an intent that was durable before it asked, therefore before its lease was removed, therefore before the newer agent read the
//! table, which comes after [`Step::Held`]. So the newer one knows the token, looks it up, and either adopts the batch job or, when it
//! has tried again meanwhile under another token, finds the stray in a listing and cancels it ([`crate::proxy`]). An intent that became
//! durable later is never acted upon. A cancel that comes late names a batch job that was to end. The table itself is copied by each
//! agent to a place of its own, so that nothing written late reaches another's.
//!
//! # Who takes over
//!
//! A master's call decides: it wants an agent here, and an agent that it can't talk to is of no use, dead or alive. Time and clocks
//! play no part. When the lease names this host in this boot, the agent behind its socket is used if it answers; if not, or if the lease
//! names another host, or this one before it was started anew, the call starts an agent that takes over. The older one ends itself when
//! it next asks, which it does every few seconds; batch jobs and starters stay, and the starters find the new one.

use alloc::vec::Vec;

/// Another agent may be faster this many times; then something is wrong with the file system.
const TRIES: u32 = 16;

/// What came of the last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The epochs of all leases that are there.
    Listed(Vec<u64>),
    /// The lease was made (`true`), or its name was taken.
    Made(bool),
    /// The leases are gone, whoever removed them.
    Removed,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// List all leases.
    List,
    /// Make our lease of this epoch: whole, or not at all if the name is taken.
    Make(u64),
    /// Remove these leases.
    Remove(Vec<u64>),
    /// We hold the lease of this epoch, and may read the table.
    Held(u64),
    /// Another agent has taken over already, if it says which.
    Overtaken(Option<u64>),
}

/// The way to a lease.
#[derive(Clone, Debug)]
pub struct Claim {
    floor: u64,
    own: Option<u64>,
    asked: u64,
    newer: Option<u64>,
    tries: u32,
}

impl Claim {
    /// Begins with [`Step::List`]. The epoch will be higher than `floor`, the highest that left a trace elsewhere.
    pub fn new(floor: u64) -> (Claim, Step) {
        (Claim { floor, own: None, asked: 0, newer: None, tries: 0 }, Step::List)
    }

    /// What to do after the last step.
    pub fn next(&mut self, seen: Seen) -> Step {
        match seen {
            Seen::Listed(epochs) => self.listed(&epochs),
            Seen::Made(true) => {
                self.own = Some(self.asked);
                Step::List
            }
            Seen::Made(false) => {
                self.floor = self.floor.max(self.asked);
                self.tries += 1;
                if self.tries < TRIES { Step::List } else { Step::Overtaken(None) }
            }
            Seen::Removed => match self.newer {
                None => Step::List,
                newer => Step::Overtaken(newer),
            },
        }
    }

    fn listed(&mut self, epochs: &[u64]) -> Step {
        let highest = epochs.iter().copied().max().unwrap_or(0);
        let Some(own) = self.own else {
            self.asked = highest.max(self.floor).saturating_add(1);
            return Step::Make(self.asked);
        };
        if highest > own {
            self.newer = Some(highest);
            return Step::Remove(Vec::from([own]));
        }
        if !epochs.contains(&own) {
            return Step::Overtaken(None);
        }
        let lower: Vec<u64> = epochs.iter().copied().filter(|&epoch| epoch < own).collect();
        if lower.is_empty() { Step::Held(own) } else { Step::Remove(lower) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;

    #[test]
    fn the_next_epoch_is_taken_and_lower_ones_go() {
        let (mut claim, first) = Claim::new(0);
        assert_eq!(first, Step::List);
        assert_eq!(claim.next(Seen::Listed(vec![])), Step::Make(1));
        assert_eq!(claim.next(Seen::Made(true)), Step::List);
        assert_eq!(claim.next(Seen::Listed(vec![1])), Step::Held(1));

        let (mut claim, _) = Claim::new(4);
        assert_eq!(claim.next(Seen::Listed(vec![3, 2])), Step::Make(5), "above what left a trace");
        assert_eq!(claim.next(Seen::Made(false)), Step::List, "someone was faster");
        assert_eq!(claim.next(Seen::Listed(vec![3])), Step::Make(6), "also when the listing is stale");
        assert_eq!(claim.next(Seen::Made(true)), Step::List);
        assert_eq!(claim.next(Seen::Listed(vec![5, 3, 6])), Step::Remove(vec![5, 3]));
        assert_eq!(claim.next(Seen::Removed), Step::List, "one may have been made meanwhile");
        assert_eq!(claim.next(Seen::Listed(vec![6])), Step::Held(6));
    }

    #[test]
    fn who_sees_a_higher_one_yields() {
        let (mut claim, _) = Claim::new(0);
        claim.next(Seen::Listed(vec![2]));
        claim.next(Seen::Made(true));
        assert_eq!(claim.next(Seen::Listed(vec![3, 7])), Step::Remove(vec![3]));
        assert_eq!(claim.next(Seen::Removed), Step::Overtaken(Some(7)));

        let (mut claim, _) = Claim::new(0);
        claim.next(Seen::Listed(vec![]));
        claim.next(Seen::Made(true));
        assert_eq!(claim.next(Seen::Listed(vec![])), Step::Overtaken(None), "ours was removed");
        let (mut claim, _) = Claim::new(0);
        let last = (0..TRIES).map(|_| {
            claim.next(Seen::Listed(vec![]));
            claim.next(Seen::Made(false))
        });
        assert_eq!(last.last(), Some(Step::Overtaken(None)));
    }

    /// All leases: whose each is.
    type Leases = BTreeMap<u64, usize>;

    #[derive(Clone)]
    struct Agent {
        claim: Claim,
        step: Step,
        /// Epoch that it acts under, or believes so.
        held: Option<u64>,
    }

    impl Agent {
        fn go(&mut self, who: usize, leases: &mut Leases) {
            let seen = match &self.step {
                Step::List => Seen::Listed(leases.keys().copied().collect()),
                Step::Make(epoch) => {
                    let free = !leases.contains_key(epoch);
                    if free {
                        leases.insert(*epoch, who);
                    }
                    Seen::Made(free)
                }
                Step::Remove(epochs) => {
                    // One call of the file system at a time.
                    if let Some((first, rest)) = epochs.split_first() {
                        leases.remove(first);
                        if !rest.is_empty() {
                            self.step = Step::Remove(rest.to_vec());
                            return;
                        }
                    }
                    Seen::Removed
                }
                Step::Held(_) | Step::Overtaken(_) => return,
            };
            self.step = self.claim.next(seen);
            if let Step::Held(epoch) = self.step {
                self.held = Some(epoch);
            }
        }

        fn may_act(&self, who: usize, leases: &Leases) -> bool {
            self.held.is_some_and(|epoch| leases.get(&epoch) == Some(&who))
        }
    }

    /// Every order of the steps of the agents.
    fn explore(agents: &mut Vec<Agent>, leases: &Leases, seen: &mut u32) {
        let acting = agents.iter().enumerate().filter(|(who, agent)| agent.may_act(*who, leases)).count();
        assert!(acting <= 1, "{acting} act: {leases:?}");
        let mut over = true;
        for who in 0..agents.len() {
            if matches!(agents[who].step, Step::Held(_) | Step::Overtaken(_)) {
                continue;
            }
            over = false;
            let (before, mut after) = (agents[who].clone(), leases.clone());
            agents[who].go(who, &mut after);
            explore(agents, &after, seen);
            agents[who] = before;
        }
        if over {
            *seen += 1;
            assert_eq!(acting, 1, "somebody acts at last: {leases:?}");
        }
    }

    #[test]
    fn in_every_order_of_three_takers_one_acts_at_most_and_one_at_last() {
        let agent = || {
            let (claim, step) = Claim::new(0);
            Agent { claim, step, held: None }
        };
        let mut holder = agent();
        let mut leases = Leases::new();
        while holder.held.is_none() {
            holder.go(0, &mut leases);
        }
        let mut seen = 0;
        explore(&mut vec![holder.clone(), agent(), agent()], &leases, &mut seen);
        assert!(seen > 500, "{seen} orders");
        // With one more there are too many orders to try all.
        let mut state = 1u32;
        for _ in 0..20_000 {
            let (mut agents, mut leases) = (vec![holder.clone(), agent(), agent(), agent()], leases.clone());
            while agents.iter().any(|agent| !matches!(agent.step, Step::Held(_) | Step::Overtaken(_))) {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let who = (state >> 9) as usize % agents.len();
                agents[who].go(who, &mut leases);
                let acting = agents.iter().enumerate().filter(|(who, agent)| agent.may_act(*who, &leases)).count();
                assert!(acting <= 1, "{acting} act: {leases:?}");
            }
        }
    }
}
