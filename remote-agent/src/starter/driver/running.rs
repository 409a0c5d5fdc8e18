//! What is told of jobs while they run: what they use, what they print, and their checkpoints.

use super::*;

impl Driver {
    /// Keeps the captured output of running jobs within its limit, and measures those whose turn it is.
    pub(super) fn measure(&mut self) {
        let (now, mut due) = (Instant::now(), Vec::new());
        for (id, job) in &mut self.jobs {
            if let Job::Running { place, program, pid, meter, .. } = job {
                let captures = place.as_ref().map_or_else(|| program.captures_in_place(*id), Place::captures);
                scratch::trim(&captures, self.limits.0);
                if !self.measuring && meter.is_due(now) {
                    due.push((*id, *pid, place.as_ref().map(Place::work)));
                }
            }
        }
        if due.is_empty() {
            return;
        }
        self.measuring = true;
        let own = |pid: &i32| !self.pids.contains_key(pid);
        let strays: Vec<i32> = tree::own_children().into_iter().filter(own).collect();
        let done = self.done.clone();
        tokio::task::spawn_blocking(move || {
            let _ = done.send(Done::Measured(usage::of(due, &strays)));
        });
    }

    pub(super) fn meters(&self) -> impl Iterator<Item = (AttemptId, &Meter)> {
        self.jobs.iter().filter_map(|(id, job)| match job {
            Job::Running { meter, .. } => Some((*id, &**meter)),
            _ => None,
        })
    }

    /// Tells the master what running jobs use, as far as that is news.
    pub(super) fn tell_usage(&mut self, link: &mut Link) {
        if !self.master {
            return;
        }
        let running = self.jobs.iter_mut().filter_map(|(id, job)| match job {
            Job::Running { meter, .. } => Some((*id, meter.news(Instant::now())?)),
            _ => None,
        });
        let used: Vec<_> = running.collect();
        if !used.is_empty() {
            link.put(self.key.0, &Measured { used });
        }
    }

    /// Tells the master of input files that came, or have been coming for a while.
    pub(super) fn tell_moved(&mut self, link: &mut Link) {
        if !self.master {
            return;
        }
        let moved = self.moves.news(Instant::now());
        if !moved.is_empty() {
            link.put(self.key.0, &Report { moved, ..Report::default() });
        }
    }

    /// Copies a checkpoint, while nothing of the job runs.
    pub(super) fn checkpoint(&mut self, id: AttemptId, program: Arc<Prepared>, place: Option<Place>, past: Past) {
        let Some(place) = place else {
            // In its own directory, all is where it belongs.
            let given = self.given(id, None);
            let started = given.and_then(|given| self.node.start_in_place(&program, given, past.directory, true));
            return self.started(id, program, None, past, started);
        };
        let (done, inline, prepared) = (self.done.clone(), self.limits.1, Arc::clone(&program));
        self.jobs.insert(id, Job::Checkpointing { program, past });
        tokio::task::spawn_blocking(move || {
            let program = &prepared.program;
            let set = place.keep(program, id, past.checkpoints, program.checkpoint.as_ref(), true, inline);
            let _ = done.send(Done::Checkpointed(id, place, set));
        });
    }

    /// Starts the program again, where it was.
    pub(super) fn checkpointed(
        &mut self,
        id: AttemptId,
        mut place: Place,
        set: Result<Option<Set>, Outcome>,
        link: &mut Link,
    ) {
        let Some(Job::Checkpointing { program, past }) = self.jobs.remove(&id) else {
            return;
        };
        let failed = match set {
            Ok(set) => {
                let sets = self.sets.entry(id).or_default();
                sets.extend(set);
                // What is told may be on its way; the one after it is overtaken.
                drop_sets(sets, |at, all, _| at > 0 && at + 1 < all);
                if sets.len() == 1 {
                    self.tell_checkpoint(id, link);
                }
                None
            }
            Err(outcome) => Some(outcome),
        };
        if self.machine.is_doomed(id) || failed.is_some() {
            self.keep_partial(id, scratch::endings(&place.captures()));
            let outcome = failed.unwrap_or(Outcome::Killed);
            let result = AttemptResult { id, outcome, usage: past.used, outputs: Vec::new(), kept: None };
            return self.happened.push(Event::JobEnded(result));
        }
        place.append = true;
        let given = self.given(id, None);
        let started = given.and_then(|given| self.node.start_in_scratch(&program, given, &place));
        self.started(id, program, Some(place), past, started);
    }

    /// Tells the master what running tries have printed, of those that want that.
    pub(super) fn tell_all_printed(&mut self, link: &mut Link) {
        if !self.master {
            return;
        }
        let mut live = Vec::new();
        for (id, job) in &self.jobs {
            if let Job::Running { program, place: Some(place), .. } = job {
                let kinds = place.captures().into_keys();
                live.extend(kinds.filter(|kind| program.program.comes(kind) == Comes::Live).map(|kind| (*id, kind)));
            }
        }
        self.printed.retain(|(id, _), _| self.jobs.contains_key(id));
        for (id, kind) in live {
            self.tell_printed(id, &kind, 1, link);
        }
    }

    /// Tells what one has printed, if that is `least` bytes and none are on their way.
    pub(super) fn tell_printed(&mut self, id: AttemptId, kind: &OutputKind, least: usize, link: &mut Link) {
        let Some(Job::Running { place: Some(place), .. }) = self.jobs.get(&id) else { return };
        let Some(path) = place.captures().remove(kind) else { return };
        let (offset, on_its_way) = self.printed.entry((id, kind.clone())).or_default();
        let room = self.limits.0.saturating_sub(*offset);
        let most = usize::try_from(room).map_or(PRINTED, |room| room.min(PRINTED));
        if *on_its_way {
            return;
        }
        if let Ok(data) = scratch::next(&path, *offset, most)
            && data.len() >= least
        {
            *on_its_way = true;
            link.put(self.key.0, &Printed { id, kind: kind.clone(), offset: *offset, data });
        }
    }

    /// Tells the master of a try's checkpoint that it hasn't got.
    pub(super) fn tell_checkpoint(&self, id: AttemptId, link: &mut Link) {
        if let Some(set) = self.sets.get(&id).and_then(|sets| sets.first()) {
            link.put(self.key.0, &Checkpointed { id, kept: set.kept.clone() });
        }
    }
}

/// Drops some of a try's sets, chosen by their place and how many there are, and their copies.
pub(super) fn drop_sets(sets: &mut Vec<Set>, which: impl Fn(usize, usize, &Set) -> bool) {
    let all = sets.len();
    let mut at = 0;
    sets.retain(|set| {
        let drops = which(at, all, set);
        at += 1;
        if let Some(aside) = set.aside.as_ref().filter(|_| drops)
            && let Err(e) = scratch::remove_tree(aside)
        {
            tracing::warn!("cannot remove {}: {e}", aside.display());
        }
        !drops
    });
}
