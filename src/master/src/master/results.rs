//! What comes home of attempts: outputs, what running ones print, and what they leave to the next ones of their jobs.

use super::*;

impl Master {
    // ---- what attempts leave to the next ones ----

    /// What a cut-off attempt printed is kept; what it leaves comes next, if the job will run again.
    pub(super) fn partial_kept(&mut self, key: StarterKey, mut result: AttemptResult) {
        let id = result.id;
        match result.kept.take() {
            Some(set) if self.pool.may_leave(id, key) && !self.sets.has(id.job, (id.attempt, set.number)) => {
                self.collect(key, Whole::of_set(self.session_id.clone(), result, set, false));
            }
            _ => {
                let now = self.now();
                self.pool.handle(now, Event::PartialKept { key, result });
            }
        }
    }

    /// An attempt that runs has checkpointed itself.
    pub(super) fn checkpointed(&mut self, key: StarterKey, work::Checkpointed { id, kept }: work::Checkpointed) {
        if !self.pool.is_live(id, key) || !self.pool.may_leave(id, key) {
            return;
        }
        if self.sets.has(id.job, (id.attempt, kept.number)) {
            return self.to_starter(key, &work::CheckpointKept { id, number: kept.number });
        }
        let result =
            AttemptResult { id, outcome: Outcome::Killed, usage: Usage::default(), outputs: Vec::new(), kept: None };
        self.collect(key, Whole::of_set(self.session_id.clone(), result, kept, true));
    }

    fn set_collected(&mut self, key: StarterKey, whole: Whole, ended: Result<(), Failure>) {
        let id = whole.result.id;
        if let Err(failure) = ended {
            // The one before it counts on. It would fail again.
            tracing::warn!(attempt = %id, why = failure.why, "what it leaves to its next attempt is not kept");
        }
        if let Some(set) = whole.set.filter(|set| set.checkpoint) {
            return self.to_starter(key, &work::CheckpointKept { id, number: set.number });
        }
        let now = self.now();
        self.pool.handle(now, Event::PartialKept { key, result: whole.result });
    }

    /// Removes what was kept for jobs that are over, once that is durable.
    pub(super) fn outlive(&mut self) {
        match &mut self.outlived {
            Some((record, jobs)) if *record <= self.durable => {
                let (sets, jobs) = (self.sets.clone(), std::mem::take(jobs));
                self.outlived = None;
                tokio::task::spawn_blocking(move || jobs.into_iter().for_each(|job| sets.remove(job)));
            }
            Some(_) => {}
            None => {
                let mut jobs = self.sets.jobs();
                jobs.retain(|job| self.pool.is_over(*job));
                self.outlived = (!jobs.is_empty()).then(|| (self.pool.sequence(), jobs));
            }
        }
    }

    // ---- what running jobs print ----

    pub(super) fn show(&mut self, key: StarterKey, printed: work::Printed) {
        let (id, kind) = (printed.id, printed.kind.clone());
        let view = self.pool.view(id.job).filter(|view| view.state == JobState::Running);
        let program = view.map(|view| view.program.filled(&view.row));
        let Some(program) = program.filter(|program| program.comes(&kind) == Comes::Live) else { return };
        let size = printed.data.len();
        if !self.pool.is_live(id, key) || size > work::PRINTED || size == 0 {
            return;
        }
        // One piece at a time.
        if self.showing.entry(id.job).or_default().kinds.insert(kind.clone()) {
            let inputs = self.inputs.clone();
            tokio::task::spawn_blocking(move || {
                let shown = outputs::show(&program, &printed);
                let _ = inputs.blocking_send(Input::Shown { key, id, kind, shown });
            });
        }
    }

    pub(super) fn shown(&mut self, key: StarterKey, id: AttemptId, kind: OutputKind, shown: Result<u64, Failure>) {
        match shown {
            Ok(size) => self.to_starter(key, &work::Seen { id, kind: kind.clone(), size }),
            // It comes when the job ends.
            Err(failure) => tracing::warn!(attempt = %id, why = failure.why, "what it prints can't be shown"),
        }
        let Some(showing) = self.showing.get_mut(&id.job) else { return };
        showing.kinds.remove(&kind);
        if showing.kinds.is_empty()
            && let Some(showing) = self.showing.remove(&id.job)
        {
            showing.results.into_iter().for_each(|(key, whole)| self.collect(key, whole));
        }
    }

    // ---- outputs ----

    pub(super) fn collect(&mut self, key: StarterKey, whole: Whole) {
        let id = whole.result.id;
        let size = whole.result.outputs.iter().map(|output| output.size).fold(0, u64::saturating_add);
        if let Some(most) = whole.program.most_out.filter(|most| whole.set.is_none() && size > *most) {
            let why = format!("its output has {size} bytes, and max_transfer_output_mb allows {most}");
            let now = self.now();
            return self.pool.handle(now, Event::OutputsFailed { key, id, why, ours: true, too_large: true });
        }
        if let Some(showing) = self.showing.get_mut(&id.job).filter(|_| whole.set.is_none()) {
            return showing.results.push((key, whole));
        }
        // Of an attempt one thing comes at a time: what it ended with goes before its checkpoints.
        self.large.retain(|(_, queued)| queued.result.id != id || !queued.is_checkpoint());
        let comes = self.collecting.get(&id).is_some_and(|(_, collection)| !collection.checkpoint);
        if whole.is_checkpoint() && (comes || self.large.iter().any(|(_, queued)| queued.result.id == id)) {
            return;
        }
        if whole.set.is_none() && whole.result.outputs.iter().all(|output| output.inline.is_some()) {
            self.whole.push((key, whole));
        } else {
            self.large.push_back((key, whole));
        }
    }

    /// Writes what came since the last group, and begins to fetch what is large.
    pub(super) fn store_outputs(&mut self) {
        if !self.storing && !self.whole.is_empty() {
            self.storing = true;
            let (keys, group): (Vec<_>, Vec<_>) = std::mem::take(&mut self.whole).into_iter().unzip();
            let inputs = self.inputs.clone();
            tokio::task::spawn_blocking(move || {
                let ended = outputs::store_whole(&group);
                let all = keys.into_iter().zip(group).zip(ended).map(|((key, whole), ended)| (key, whole, ended));
                let _ = inputs.blocking_send(Input::Stored(all.collect()));
            });
        }
        while self.collecting.len() < COLLECTING
            && let Some((key, whole)) = self.large.pop_front()
        {
            let id = whole.result.id;
            let link = self.pool.proxy_of(key).and_then(|(site, _)| self.sites.get(usize::from(site.0))?.link.clone());
            let (pieces, came) = mpsc::unbounded_channel();
            self.last_collection += 1;
            let number = self.last_collection;
            let set = whole.set.as_ref().map_or(0, |set| set.number);
            let checkpoint = whole.is_checkpoint();
            self.collecting.insert(id, (key, Collection { number, set, checkpoint, pieces }));
            let (inputs, sets) = (self.inputs.clone(), self.sets.clone());
            tokio::spawn(async move {
                let fetch = |kind: &_, offset, length| {
                    let mut bytes = Vec::new();
                    write_message(
                        key.0,
                        &work::FetchOutput { id, kind: Clone::clone(kind), offset, length, kept: set },
                        &mut bytes,
                    );
                    let _ = link.as_ref().map(|link| link.send(bytes));
                };
                let again = whole.clone();
                let ended = match whole.set {
                    None => Box::pin(outputs::collect(whole, fetch, came)).await,
                    Some(_) => Box::pin(outputs::collect_set(sets, whole, number, fetch, came)).await,
                };
                let _ = inputs.send(Input::Collected { key, number, whole: again, ended }).await;
            });
        }
    }

    pub(super) fn collected(&mut self, key: StarterKey, whole: Whole, ended: Result<(), Failure>) {
        let now = self.now();
        match ended {
            ended if whole.set.is_some() && ended.as_ref().err().is_none_or(|failure| !failure.later) => {
                self.set_collected(key, whole, ended);
            }
            Ok(()) => self.pool.handle(now, Event::OutputsStored { key, result: whole.result }),
            Err(failure) if failure.later => {
                tracing::warn!(attempt = %whole.result.id, why = failure.why, "outputs can't be written for now");
                self.retry.push((key, whole, failure.why));
                self.retry_at.get_or_insert(Instant::now() + RETRY_OUTPUTS);
            }
            Err(Failure { why, ours, .. }) => {
                self.pool.handle(now, Event::OutputsFailed { key, id: whole.result.id, why, ours, too_large: false });
            }
        }
    }
}
