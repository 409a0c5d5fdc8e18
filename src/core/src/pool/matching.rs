//! Which idle job goes to which starter.

use core::ops::Bound::{Excluded, Unbounded};

use super::*;

impl Starter {
    /// May it be given anything now?
    pub(super) fn takes_work(&self, now: Time) -> bool {
        self.connected
            && self.known
            && !self.closing
            && !self.excluded
            && self.deadline.is_none_or(|deadline| now + self.offer.drain < deadline)
    }

    /// CPUs of what it may hold at once.
    pub(super) fn ceiling(&self, backlog: bool) -> u32 {
        let rounds = match self.mean_ms {
            _ if !backlog => 0,
            None => 1,
            Some(mean) => {
                let rounds = (BACKLOG.as_millis() as u64).div_ceil(mean.max(1));
                u32::try_from(rounds).unwrap_or(BACKLOG_ROUNDS).clamp(1, BACKLOG_ROUNDS)
            }
        };
        self.offer.cpus.saturating_mul(1 + rounds)
    }

    /// CPUs' worth of what can't have started.
    fn backlog(&self) -> u32 {
        self.load.saturating_sub(self.offer.cpus).min(self.queued)
    }

    /// How long its backlog would keep it busy.
    fn backlog_ms(&self) -> u64 {
        let mean = self.mean_ms.unwrap_or(1000);
        u64::from(self.backlog()).saturating_mul(mean) / u64::from(self.offer.cpus.max(1))
    }

    /// CPUs that a job of the program leaves to nobody else; none if it is too large.
    pub(super) fn load_of(&self, program: &Program) -> Option<u32> {
        let (cpus, memory) = (u128::from(self.offer.cpus), u128::from(self.offer.memory_mb));
        // A node of unknown memory is held for large enough.
        let needed = program.memory_mb.filter(|_| memory > 0).map_or(0, u128::from);
        let by_memory = (needed * cpus).div_ceil(memory.max(1));
        let load = by_memory.max(u128::from(program.cpus));
        u32::try_from(load).ok().filter(|load| *load <= self.offer.cpus)
    }

    /// The load of a job of a program that can run here.
    pub(super) fn suits(&self, number: u64, program: &Program) -> Option<u32> {
        let sees = self.offer.shared != Shared::Nothing && !self.unshared.contains(&number);
        self.load_of(program).filter(|_| program.transfer != Transfer::No || sees)
    }
}

impl Pool {
    /// Gives idle jobs to starters with room: to all such starters if jobs became idle, else to those to which something happened.
    pub(super) fn fill(&mut self, now: Time) {
        let touched = core::mem::take(&mut self.touched);
        let wanting = core::mem::take(&mut self.wanting);
        // Slots first, backlogs after: a short queue spreads over all sites.
        for backlog in [false, true] {
            if wanting {
                let mut last = None;
                while !self.open.is_empty()
                    && let Some(key) = self.hungry.range((last.map_or(Unbounded, Excluded), Unbounded)).next().copied()
                {
                    last = Some(key);
                    self.fill_up(now, key, backlog);
                }
            } else {
                touched.iter().for_each(|key| self.fill_up(now, *key, backlog));
            }
        }
        self.recall(now, &touched);
        for key in &touched {
            if let Some(starter) = self.starters.get_mut(key) {
                starter.mark(now);
            }
        }
    }

    fn fill_up(&mut self, now: Time, key: StarterKey, backlog: bool) {
        while !self.open.is_empty() && self.fill_batch(now, key, backlog) {}
    }

    /// Gives a starter one message's worth; might there be more?
    fn fill_batch(&mut self, now: Time, key: StarterKey, backlog: bool) -> bool {
        let Some(starter) = self.starters.get(&key).filter(|s| s.takes_work(now)) else {
            self.hungry.remove(&key);
            return false;
        };
        let ceiling = starter.ceiling(backlog);
        let mut load = starter.load;
        let mut chosen: Vec<(AttemptId, u64, Arc<Program>)> = Vec::new();
        let mut full = load >= ceiling;
        let mut cluster_after = Unbounded;
        while !full
            && let Some(number) = self.open.range((cluster_after, Unbounded)).next().copied()
            && let Some(cluster) = self.clusters.get_mut(&number)
        {
            cluster_after = Excluded(number);
            let mut group_after = Unbounded;
            while !full
                && let Some(place) = cluster.open.range((group_after, Unbounded)).next().copied()
                && let Some(group) = cluster.groups.get_mut(place as usize)
            {
                group_after = Excluded(place);
                let Some(each) = starter.suits(group.program, &group.body) else {
                    continue;
                };
                loop {
                    let Some(proc) = group.next_idle(&cluster.jobs) else {
                        cluster.open.remove(&place);
                        break;
                    };
                    // What comes later must not overtake a job that waits for more room.
                    full = chosen.len() >= ASSIGN_BATCH || each > ceiling.saturating_sub(load);
                    if full {
                        break;
                    }
                    group.take(proc);
                    load += each;
                    let attempt = cluster.jobs[proc as usize].attempt + 1;
                    let job = JobId { cluster: number, proc };
                    chosen.push((AttemptId { job, attempt }, group.program, group.body.clone()));
                }
            }
            if cluster.open.is_empty() {
                self.open.remove(&number);
            }
        }
        let more = chosen.len() >= ASSIGN_BATCH;
        if full && backlog && !more {
            self.hungry.remove(&key);
        }
        if !chosen.is_empty() {
            self.assign(now, key, chosen);
        }
        more
    }

    fn assign(&mut self, now: Time, key: StarterKey, chosen: Vec<(AttemptId, u64, Arc<Program>)>) {
        self.write(Record::Dispatched { key, ids: chosen.iter().map(|(id, ..)| *id).collect(), at: Some(now) });
        self.backlogged.insert(key);
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        starter.mark(now);
        // One message for programs that may run in place there, one for the others.
        let host = starter.offer.shared;
        let (apart, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(_, program, body)| {
            host == Shared::Nothing || body.transfer == Transfer::Yes || starter.unshared.contains(program)
        });
        for (id, ..) in &apart {
            if let Some(held) = starter.held.get_mut(id) {
                held.apart = true;
            }
        }
        let mut messages = Vec::new();
        for (attempts, shared) in [(together, host), (apart, Shared::Nothing)] {
            if !attempts.is_empty() {
                let mut define = Vec::new();
                for (_, program, body) in &attempts {
                    if starter.defined.insert(*program) {
                        define.push((*program, body.clone()));
                    }
                }
                messages.push(Action::Assign { key, inventory: starter.inventory, define, attempts, shared });
            }
        }
        messages.into_iter().for_each(|message| self.act(message));
    }

    /// For starters with free CPUs that nothing idle suits: takes from the longest backlogs.
    fn recall(&mut self, now: Time, touched: &BTreeSet<StarterKey>) {
        let starters = &self.starters;
        let free = |key: &StarterKey| {
            let starter = starters.get(key).filter(|s| s.takes_work(now))?;
            Some((starter, starter.offer.cpus.checked_sub(starter.load).filter(|free| *free > 0)?))
        };
        let mut idle = touched.iter().filter_map(free).peekable();
        if idle.peek().is_none() {
            return;
        }
        self.backlogged.retain(|key| starters.get(key).is_some_and(|s| s.backlog() > 0));
        let victims = self.backlogged.iter().filter_map(|key| Some((*key, starters.get(key)?)));
        // A backlog that is gone within the round trip is not worth recalling.
        let mut victims: Vec<(u64, StarterKey, &Starter)> = victims
            .filter(|(_, s)| s.connected && s.known && s.recalled.is_none_or(|at| at + RECALL_AGAIN <= now))
            .map(|(key, s)| (s.backlog_ms(), key, s))
            .filter(|(work, ..)| *work > BACKLOG.as_millis() as u64)
            .collect();
        victims.sort_unstable_by_key(|(work, key, _)| (*work, *key));
        let mut recalls = Vec::new();
        for (starter, free) in idle {
            let Some((_, key, victim)) = victims.last() else { break };
            let last = victim.held.iter().rev().find(|(_, held)| held.phase == Phase::Queued);
            let suits = |group: &Group| starter.suits(group.program, &group.body).is_some();
            if last.is_some_and(|(id, _)| self.is_current(*id, *key) && self.group(id.job).is_some_and(suits)) {
                recalls.push((*key, free.min(victim.backlog())));
                victims.pop();
            }
        }
        recalls.into_iter().for_each(|(key, count)| self.recall_from(now, key, count));
    }

    /// Takes all that can't have started from a starter whose node may be at fault: it would be failed before others have shown how
    /// they do. It gets little until its jobs do better.
    pub(super) fn recall_all(&mut self, now: Time, key: StarterKey) {
        let Some(starter) = self.starters.get_mut(&key) else { return };
        starter.mean_ms = None;
        if starter.connected && starter.known && starter.queued > 0 {
            let count = starter.queued;
            self.recall_from(now, key, count);
        }
    }

    fn recall_from(&mut self, now: Time, key: StarterKey, count: u32) {
        if let Some(victim) = self.starters.get_mut(&key) {
            let lost = victim.recalled.is_some_and(|at| at + RECALL_LOST <= now);
            victim.recalls = if lost { 1 } else { victim.recalls + 1 };
            victim.recalled = Some(now);
            let inventory = victim.inventory;
            self.act(Action::Recall { key, inventory, count });
        }
    }
}

impl Group {
    /// The next idle job. The cursor passes over jobs that were removed before they started.
    pub(super) fn next_idle(&mut self, jobs: &[Job]) -> Option<u32> {
        if let Some(proc) = self.again.first() {
            return Some(*proc);
        }
        while self.fresh < self.count {
            let proc = self.first + self.fresh;
            if jobs.get(proc as usize).is_some_and(|job| job.state == JobState::Idle) {
                return Some(proc);
            }
            self.fresh += 1;
        }
        None
    }

    /// A job leaves the queue; those of the fresh part leave it in order.
    pub(super) fn take(&mut self, proc: u32) {
        if !self.again.remove(&proc) {
            self.fresh = self.fresh.max(proc - self.first + 1);
        }
    }
}
