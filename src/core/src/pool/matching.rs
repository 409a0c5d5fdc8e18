//! Which idle job goes to which starter.

use core::cmp::Reverse;
use core::ops::Bound::{Excluded, Unbounded};

use super::queue::Place;
use super::*;

/// Of one class, no further than a place; none means everything.
type Only = Option<(u32, Option<Place>)>;

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

    /// CPUs that go with a share of something else.
    fn share(&self, needed: u64, of: u64) -> u128 {
        (u128::from(needed) * u128::from(self.offer.cpus)).div_ceil(of.max(1).into())
    }

    /// CPUs that a job of the program leaves to nobody else; none if it is too large. What needs more than its share of the memory, the
    /// GPUs or a resource of the site's own takes the CPUs that go with them.
    pub(super) fn load_of(&self, program: &Program) -> Option<u32> {
        // A node of unknown memory is held for large enough.
        let memory = program.memory_mb.filter(|_| self.offer.memory_mb > 0).unwrap_or(0);
        let by_memory = self.share(memory, self.offer.memory_mb);
        let by_gpus = self.share(program.gpus.into(), self.offer.gpus.into());
        if program.gpus > self.offer.gpus {
            return None;
        }
        let load = by_memory.max(by_gpus).max(self.load_at_node(program)?.into());
        u32::try_from(load).ok().filter(|load| *load <= self.offer.cpus)
    }

    /// The same without memory and GPUs, which starters count themselves.
    fn load_at_node(&self, program: &Program) -> Option<u32> {
        let has = |name: &str| {
            let mut known = self.offer.resources.iter();
            known.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(0, |(_, count)| *count)
        };
        let mut load = program.cpus;
        for (needed, there) in program.resources.iter().map(|(name, needed)| (*needed, has(name))) {
            if needed > there {
                return None;
            }
            load = load.max(u32::try_from(self.share(needed.into(), there.into())).ok()?);
        }
        Some(load)
    }

    /// The load of a job of a program that can run here, as far as its terms allow.
    pub(super) fn suits(&self, number: u64, program: &Program) -> Option<u32> {
        let sees = self.offer.shared != Shared::Nothing && !self.unshared.contains(&number);
        self.load_of(program).filter(|_| program.transfer != Transfer::No || sees)
    }

    pub(super) fn time_left(&self, now: Time) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(now))
    }
}

impl Pool {
    /// Gives idle jobs to starters with room: to all such starters if jobs became idle, else to those to which something happened.
    pub(super) fn fill(&mut self, now: Time) {
        self.keep_times(now);
        let touched = core::mem::take(&mut self.touched);
        let wanting = core::mem::take(&mut self.wanting);
        // Slots first, backlogs after: a short queue spreads over all sites.
        for backlog in [false, true] {
            if (wanting || touched.len() > 1) && self.classes.any_rank() {
                self.fill_by_rank(now, backlog);
            } else if wanting {
                let mut last = None;
                while !self.queue.is_empty()
                    && let Some(key) = self.hungry.range((last.map_or(Unbounded, Excluded), Unbounded)).next().copied()
                {
                    last = Some(key);
                    self.fill_up(now, key, backlog, None);
                }
            } else {
                for key in &touched {
                    self.fill_up(now, *key, backlog, None);
                }
            }
        }
        self.recall(now, &touched);
        if wanting && self.queue.has_priorities() {
            self.recall_lower(now);
        }
        for key in &touched {
            if let Some(starter) = self.starters.get_mut(key) {
                starter.mark(now);
            }
        }
        // What suits nothing now may do so later with nothing happening.
        let varies = |(class, _)| self.classes.get(class).is_some_and(queue::Class::varies);
        if self.look_again.is_none_or(|at| at <= now) {
            let again = !self.hungry.is_empty() && self.queue.heads().any(varies);
            self.look_again = again.then(|| now + LOOK_AGAIN);
        }
    }

    /// Looks again at what waits, if that is due.
    pub(super) fn look_again(&mut self, now: Time) {
        self.wanting |= self.look_again.is_some_and(|at| at <= now);
    }

    /// Where several starters have room, jobs go first to those that they prefer: class by class, as far as the order of the queue goes.
    fn fill_by_rank(&mut self, now: Time, backlog: bool) {
        let mut stuck: BTreeSet<u32> = BTreeSet::new();
        loop {
            let mut heads = self.queue.heads().filter(|(class, _)| !stuck.contains(class));
            let Some((class, head)) = heads.next() else { return };
            // Places of several accounts have no order among them.
            let until = if self.queue.is_shared() { Some(head) } else { heads.next().map(|(_, place)| place) };
            drop(heads);
            let Some(judged) = self.classes.get_mut(class) else { return };
            let hungry = self.hungry.iter().filter_map(|key| Some((*key, self.starters.get(key)?)));
            let mut ranked: Vec<(f64, StarterKey)> =
                hungry.filter_map(|(key, starter)| Some((judged.judge(starter, now)?, key))).collect();
            ranked.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
            let mut given = false;
            for (_, key) in ranked {
                if !self.queue.of_class(class).any(|place| until.is_none_or(|until| place <= until)) {
                    break;
                }
                given |= self.fill_up(now, key, backlog, Some((class, until)));
            }
            if !given {
                stuck.insert(class);
            }
        }
    }

    /// Gives a starter what it has room for; was there anything?
    fn fill_up(&mut self, now: Time, key: StarterKey, backlog: bool, only: Only) -> bool {
        let mut any = false;
        while !self.queue.is_empty() {
            let (given, more) = self.fill_batch(now, key, backlog, only);
            any |= given > 0;
            if !more {
                break;
            }
        }
        any
    }

    /// The group whose turn it is at a starter, and the load of a job of it there.
    fn next_group(&mut self, now: Time, key: StarterKey, only: Only) -> Option<(u32, Place, u32)> {
        let Pool { queue, classes, clusters, starters, limits, .. } = self;
        let starter = starters.get(&key)?;
        let allowed = |(class, place): &(u32, Place)| match only {
            Some((wanted, until)) => *class == wanted && until.is_none_or(|until| *place <= until),
            None => true,
        };
        for (class, head) in queue.heads().filter(allowed) {
            let Some(judged) = classes.get_mut(class) else { continue };
            if !limits.has_room(&judged.limits) || judged.judge(starter, now).is_none() {
                continue;
            }
            // Only a group that was found not to share its directory stands aside for the next of its class.
            let group = |place: &Place| clusters.get(&place.1)?.groups.get(place.2 as usize);
            let load =
                |place: Place| group(&place).and_then(|g| Some((class, place, starter.suits(g.program, &g.body)?)));
            let found = match judged.stays && !starter.unshared.is_empty() {
                true => queue.of_class(class).find_map(load),
                false => load(head),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Gives a starter one message's worth: how many jobs, and whether there might be more.
    fn fill_batch(&mut self, now: Time, key: StarterKey, backlog: bool, only: Only) -> (usize, bool) {
        let Some(starter) = self.starters.get(&key).filter(|s| s.takes_work(now)) else {
            self.hungry.remove(&key);
            return (0, false);
        };
        let ceiling = starter.ceiling(backlog);
        let mut load = starter.load;
        let mut chosen: Vec<Assigned> = Vec::new();
        let mut full = load >= ceiling;
        // With several accounts, whose turn it is changes with every job.
        let shared = self.queue.is_shared();
        let mut drawn: Vec<(usize, u32)> = Vec::new();
        let mut counted: Vec<Arc<[Share]>> = Vec::new();
        while !full && let Some((class, place, each)) = self.next_group(now, key, only) {
            let (_, number, index) = place;
            let Some(cluster) = self.clusters.get_mut(&number) else { break };
            let Some(group) = cluster.groups.get_mut(index as usize) else { break };
            let account = group.account;
            let limits = self.classes.get(class).map(|class| class.limits.clone()).unwrap_or_default();
            while self.limits.has_room(&limits) {
                let Some(proc) = group.next_idle(&cluster.jobs, &cluster.moved, &cluster.later) else {
                    self.queue.remove(account, class, place);
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
                let (id, row) = (AttemptId { job, attempt }, group.members.row(proc));
                chosen.push(Assigned { id, program: group.program, body: group.body.clone(), row, when: None });
                if !limits.is_empty() {
                    self.limits.count(&limits, true);
                    counted.push(limits.clone());
                }
                if shared {
                    drawn.push((account, group.body.cpus));
                    self.queue.load(account, group.body.cpus, true);
                    break;
                }
            }
        }
        // From here on the assignment itself counts.
        drawn.into_iter().for_each(|(account, cpus)| self.queue.load(account, cpus, false));
        for limits in counted {
            self.limits.count(&limits, false);
        }
        let more = chosen.len() >= ASSIGN_BATCH;
        if full && backlog && !more {
            self.hungry.remove(&key);
        }
        let count = chosen.len();
        if count > 0 {
            self.assign(now, key, chosen);
        }
        (count, more)
    }

    fn assign(&mut self, now: Time, key: StarterKey, mut chosen: Vec<Assigned>) {
        for each in &mut chosen {
            each.when = self.when(each.id.job, now).and_then(Result::ok).filter(|when| *when != When::ANY);
        }
        self.write(Record::Dispatched { key, ids: chosen.iter().map(|each| each.id).collect(), at: Some(now) });
        self.backlogged.insert(key);
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        starter.mark(now);
        // One message for programs that may run in place there, one for the others.
        let host = starter.offer.shared;
        let (apart, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|each| {
            host == Shared::Nothing || each.body.transfer == Transfer::Yes || starter.unshared.contains(&each.program)
        });
        for each in &apart {
            if let Some(held) = starter.held.get_mut(&each.id) {
                held.apart = true;
            }
        }
        let mut messages = Vec::new();
        for (attempts, shared) in [(together, host), (apart, Shared::Nothing)] {
            if !attempts.is_empty() {
                let mut define = Vec::new();
                for each in &attempts {
                    if starter.defined.insert(each.program) {
                        let load = starter.load_at_node(&each.body).unwrap_or(each.body.cpus);
                        define.push((each.program, each.body.clone(), load));
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
        // Round and round, as far as the next of them that are worth a recall.
        let (mut victims, mut done): (Vec<(u64, StarterKey, &Starter)>, Vec<StarterKey>) = (Vec::new(), Vec::new());
        let next = StarterKey(self.recall_next);
        let (before, after) = (self.backlogged.range(..next), self.backlogged.range(next..));
        for key in after.chain(before) {
            let Some(starter) = starters.get(key).filter(|s| s.backlog() > 0) else {
                done.push(*key);
                continue;
            };
            // A backlog that is gone within the round trip is not worth recalling.
            let work = starter.backlog_ms();
            let due = starter.recalled.is_none_or(|at| at + RECALL_AGAIN <= now);
            if starter.connected && starter.known && due && work > BACKLOG.as_millis() as u64 {
                victims.push((work, *key, starter));
            }
            if victims.len() == RECALL_CHOICE {
                self.recall_next = key.0 + 1;
                break;
            }
        }
        for key in done {
            self.backlogged.remove(&key);
        }
        victims.sort_unstable_by_key(|(work, key, _)| (*work, *key));
        let mut recalls = Vec::new();
        for (starter, free) in idle {
            let Some((_, key, victim)) = victims.last() else { break };
            let last = victim.held.iter().rev().find(|(_, held)| held.phase == Phase::Queued);
            let suits = |group: &Group| {
                let class = self.classes.get(group.class);
                class.is_some_and(|class| class.rank(starter, now).is_some())
                    && starter.suits(group.program, &group.body).is_some()
            };
            if last.is_some_and(|(id, _)| self.is_current(*id, *key) && self.group(id.job).is_some_and(suits)) {
                recalls.push((*key, free.min(victim.backlog())));
                victims.pop();
            }
        }
        recalls.into_iter().for_each(|(key, count)| self.recall_from(now, key, count));
    }

    /// What waits at starters must not run before idle jobs of a higher priority: it is asked back.
    fn recall_lower(&mut self, now: Time) {
        // Priorities say something within an account only: between two, it is shares that decide.
        let head = |(class, (Reverse(priority), number, index)): (u32, Place)| {
            let group = self.clusters.get(&number)?.groups.get(index as usize)?;
            Some((self.classes.get(class)?, priority, group))
        };
        let heads: Vec<(&queue::Class, i32, &Group)> = self.queue.heads().filter_map(head).collect();
        let mut recalls = Vec::new();
        for (key, starter) in self.backlogged.iter().filter_map(|key| Some((*key, self.starters.get(key)?))) {
            if !starter.takes_work(now) || starter.recalled.is_some_and(|at| now < at + RECALL_AGAIN) {
                continue;
            }
            let mut tops: BTreeMap<usize, i32> = BTreeMap::new();
            for (class, priority, group) in &heads {
                if self.limits.has_room(&class.limits)
                    && class.rank(starter, now).is_some()
                    && starter.suits(group.program, &group.body).is_some()
                {
                    let top = tops.entry(group.account).or_insert(*priority);
                    *top = (*top).max(*priority);
                }
            }
            if tops.is_empty() {
                continue;
            }
            let queued =
                starter.held.iter().filter(|(id, held)| held.phase == Phase::Queued && self.is_current(**id, key));
            let is_lower = |id: &AttemptId| {
                let group = self.group(id.job);
                group.is_some_and(|group| tops.get(&group.account).is_some_and(|top| group.terms.priority < *top))
            };
            let lower = queued.filter(|(id, _)| is_lower(id)).count() as u32;
            if lower > 0 {
                // Those given last come back first, so all that stand behind the first of them.
                recalls.push((key, starter.queued));
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
    /// Where it stands in its account.
    pub(super) fn place(&self, cluster: u32, index: usize) -> Place {
        (Reverse(self.terms.priority), cluster, index as u32)
    }

    /// The next idle job. The cursor passes over jobs that were removed before they started, or whose time has not come.
    pub(super) fn next_idle(&mut self, jobs: &[Job], moved: &BTreeMap<u32, u32>, later: &timing::Marks) -> Option<u32> {
        if let Some(proc) = self.again.first() {
            return Some(*proc);
        }
        while self.fresh < self.members.count() {
            let proc = self.members.proc(self.fresh);
            let idle = jobs.get(proc as usize).is_some_and(|job| job.state == JobState::Idle);
            if idle && !moved.contains_key(&proc) && !later.has(proc) {
                return Some(proc);
            }
            self.fresh += 1;
        }
        None
    }

    /// A job leaves the queue; those of the fresh part leave it in order.
    pub(super) fn take(&mut self, proc: u32) {
        if !self.again.remove(&proc)
            && let Some(index) = self.members.index(proc)
        {
            self.fresh = self.fresh.max(index + 1);
        }
    }
}
