//! What becomes of starters and of what they were given.

use super::*;

/// What is to be killed where, with what grace and signal.
pub(super) type Kills = BTreeMap<(StarterKey, Duration, u8), Vec<AttemptId>>;

impl Pool {
    pub(super) fn joined(&mut self, now: Time, key: StarterKey, offer: Offer, time_left: Option<Duration>) {
        match self.starters.get(&key) {
            None => self.write(Record::StarterJoined { key, offer: offer.clone(), at: Some(now) }),
            Some(starter) if !starter.connected => self.write(Record::Answers { key, at: now }),
            Some(_) => {}
        }
        if let Some(starter) = self.starters.get_mut(&key) {
            starter.excluded = self.nodes.is_excluded(offer.site, &offer.host);
            starter.kind = self.classes.kind(&offer);
            starter.offer = offer;
            starter.connected = true;
            starter.known = false;
            // Never one that was before, even if the starter was taken for gone meanwhile.
            self.links += 1;
            starter.link = self.links;
            starter.since = now;
            starter.deadline = time_left.map(|left| now + left);
            starter.held.values_mut().for_each(|held| held.collecting = false);
        }
    }

    pub(super) fn inventory(
        &mut self,
        now: Time,
        key: StarterKey,
        queued: &[AttemptId],
        running: &[AttemptId],
        finished: &[AttemptId],
    ) {
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        let (proxy, host) = (starter.offer.proxy, starter.offer.host.clone());
        let silent = !core::mem::take(&mut starter.silence).is_empty();
        starter.known = true;
        starter.closing = false;
        starter.recalled = None;
        starter.recalls = 0;
        starter.defined.clear();
        let told: BTreeSet<&AttemptId> = queued.iter().chain(running).chain(finished).collect();
        let lost: Vec<AttemptId> = starter.held.keys().filter(|id| !told.contains(id)).copied().collect();
        // The message that gave it never arrived, or its acknowledgement did: the starter has nothing of it.
        self.take_back(now, key, &lost, Return::Lost);
        let strays = queued.iter().filter(|id| !self.is_current(**id, key)).copied().collect();
        self.kill(key, strays, KILL_GRACE, 0);
        for id in if silent { self.running_at(key) } else { Vec::new() } {
            let note = self.note(now, id.job, || Note::Reconnected { proxy, host: host.clone() });
            note.into_iter().for_each(|note| self.act(note));
        }
        self.started(now, key, running);
        if let Some(starter) = self.starters.get_mut(&key) {
            for id in finished {
                starter.advance(*id, Phase::Finished);
            }
        }
        self.touch(key);
    }

    pub(super) fn silent(&mut self, now: Time, mut keys: Vec<StarterKey>, why: String, told: bool) {
        keys.retain(|key| {
            let starter = self.starters.get_mut(key).filter(|starter| starter.connected);
            starter.map(|starter| starter.fall_silent(now, &why)).is_some()
        });
        if keys.is_empty() {
            return;
        }
        self.write(Record::Silent { keys: keys.clone(), at: now, why: why.clone(), told });
        for key in keys {
            let Some(starter) = self.starters.get(&key) else { continue };
            let (proxy, host) = (starter.offer.proxy, starter.offer.host.clone());
            for id in self.running_at(key) {
                let (host, why) = (host.clone(), why.clone());
                let note = self.note(now, id.job, || Note::Disconnected { proxy, host, why });
                note.into_iter().for_each(|note| self.act(note));
            }
        }
    }

    /// What is known to run at a starter.
    fn running_at(&self, key: StarterKey) -> Vec<AttemptId> {
        let held = self.starters.get(&key).into_iter().flat_map(|starter| &starter.held);
        let running = held.filter(|(id, held)| held.phase == Phase::Running && self.is_current(**id, key));
        running.map(|(id, _)| *id).collect()
    }

    /// Nobody has answered in this life yet.
    pub(super) fn recovered(&mut self, now: Time) {
        const WHY: &str = "the master was started again";
        self.starters.values_mut().for_each(|starter| starter.fall_silent(now, WHY));
        let keys: Vec<StarterKey> = self.starters.keys().copied().collect();
        if !keys.is_empty() {
            self.write(Record::Silent { keys, at: now, why: WHY.to_string(), told: false });
        }
    }

    pub(super) fn gone(&mut self, now: Time, key: StarterKey, why: &str) {
        let Some(starter) = self.starters.get(&key) else { return };
        let live = starter.held.iter().filter(|(id, _)| self.is_current(**id, key));
        // Outputs that are not at home went with the starter.
        let (queued, failed): (Vec<_>, Vec<_>) = live.partition(|(_, held)| held.phase == Phase::Queued);
        let queued: Vec<AttemptId> = queued.into_iter().map(|(id, _)| *id).collect();
        let failed: Vec<AttemptId> = failed.into_iter().map(|(id, _)| *id).collect();
        self.take_back(now, key, &queued, Return::Gone);
        for id in failed {
            self.site_failed(now, id, why);
        }
        self.write(Record::StarterGone { key, at: Some(now), why: Some(why.to_string()) });
    }

    /// Attempts run; those that must not are killed.
    pub(super) fn started(&mut self, now: Time, key: StarterKey, ids: &[AttemptId]) {
        let Some(starter) = self.starters.get(&key) else { return };
        let site = starter.offer.site.0;
        let (mut strays, mut timed) = (Vec::new(), Vec::new());
        for id in ids {
            if !self.is_current(*id, key) {
                strays.push(*id);
            } else if self.starters.get_mut(&key).is_some_and(|starter| starter.advance(*id, Phase::Running)) {
                self.change(id.job, |job| {
                    job.state = JobState::Running;
                    job.site = site;
                    if !job.started {
                        job.at = now;
                    }
                });
                if self.asks_since_when(id.job) {
                    timed.push(*id);
                }
                self.note_start(now, *id, key);
            }
        }
        if !timed.is_empty() {
            self.write(Record::Started { at: now, ids: timed });
        }
        self.kill(key, strays, KILL_GRACE, 0);
    }

    /// Tells of input files.
    pub(super) fn inputs_moved(&mut self, key: StarterKey, moved: &[(AttemptId, Option<Time>, Option<Time>)]) {
        for (id, began, came) in moved {
            for (at, files) in [(began, Files::InputsBegan), (came, Files::InputsCame)] {
                if let Some(at) = at {
                    self.note_moved(*at, *id, key, files);
                }
            }
        }
    }

    fn note_moved(&mut self, at: Time, id: AttemptId, key: StarterKey, files: Files) {
        let Some(starter) = self.starters.get(&key).filter(|_| self.is_current(id, key)) else { return };
        let host = starter.offer.host.clone();
        let note = self.note(at, id.job, || Note::Moved { files, host });
        note.into_iter().for_each(|note| self.act(note));
    }

    pub(super) fn returned(&mut self, now: Time, key: StarterKey, ids: &[AttemptId]) {
        let live = ids.iter().any(|id| self.is_current(*id, key));
        let mut why = Return::Recalled;
        if let Some(starter) = self.starters.get_mut(&key) {
            if starter.excluded {
                why = Return::Excluded;
            }
            if !starter.known {
                why = Return::Unsent;
            }
            // What was killed before it began comes back, too: that answers no recall.
            if live {
                starter.recalled = None;
            }
            if live && starter.recalls > 0 {
                starter.recalls -= 1;
            } else if live {
                starter.closing = true;
                starter.since = now;
                why = Return::Closing;
            }
        }
        self.take_back(now, key, ids, why);
        self.touch(key);
    }

    /// A starter has nothing of these any more.
    fn take_back(&mut self, now: Time, key: StarterKey, ids: &[AttemptId], why: Return) {
        let live: Vec<AttemptId> = ids.iter().filter(|id| self.is_current(**id, key)).copied().collect();
        for id in ids {
            self.forget(key, *id);
        }
        self.remember(now, &live.iter().map(|id| id.job).collect::<Vec<_>>());
        if !live.is_empty() {
            self.write(Record::Returned { key, ids: live, at: Some(now), why: Some(why) });
        }
    }

    pub(super) fn ended(&mut self, now: Time, key: StarterKey, result: AttemptResult) {
        let id = result.id;
        if result.outcome.is_final() {
            self.note_early(now, id, key);
        }
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        if starter.advance(id, Phase::Finished) {
            let speaks = self.judge(now, key, &result);
            let Some(starter) = self.starters.get_mut(&key) else { return };
            // A node that fails jobs at once must not look like one whose jobs are short: it would get ever more of them.
            if result.outcome.is_final() && !speaks {
                let ran = u128::from(result.usage.wall_ms);
                let mean = starter.mean_ms.map_or(ran, |mean| (u128::from(mean) * 7 + ran) / 8);
                starter.mean_ms = u64::try_from(mean).ok();
            }
        }
        if self.is_current(id, key) && result.kept.is_some() && result.outcome.is_cut_off() {
            // The next attempt doesn't begin before it can have this.
            let held = self.starters.get_mut(&key).and_then(|starter| starter.held.get_mut(&id));
            if held.is_some_and(|held| !core::mem::replace(&mut held.collecting, true)) {
                self.act(Action::KeepPartial { key, result });
            }
        } else if self.is_current(id, key) || (result.outcome.is_final() && self.claim(now, key, id)) {
            self.conclude(now, key, result);
        } else {
            self.settle(key, result);
        }
        self.touch(key);
    }

    /// An attempt that was given up has a result, and no later one has: it counts, and the later one is killed.
    fn claim(&mut self, now: Time, key: StarterKey, id: AttemptId) -> bool {
        let site = self.starters.get(&key).map(|starter| starter.offer.site);
        // The attempt that counts is another starter's, so this one never had it.
        let anothers = self.live.get(&id.job).is_some_and(|(attempt, _)| *attempt == id.attempt);
        let open = self.job(id.job).is_some_and(|job| {
            (1..=job.attempt).contains(&id.attempt)
                && !anothers
                && !self.is_settled(id)
                && site.is_some_and(|site| job.given_to(site))
                && matches!(job.state, JobState::Idle | JobState::Matched | JobState::Running | JobState::Held)
        });
        if open {
            let other = self.live.get(&id.job).copied();
            self.write(Record::Claimed { key, id, at: Some(now) });
            self.supersede(id.job, other);
        }
        open
    }

    /// Kills an attempt whose job another one has ended.
    fn supersede(&mut self, job: JobId, other: Option<(u32, StarterKey)>) {
        if let Some((attempt, key)) = other {
            self.kill(key, vec![AttemptId { job, attempt }], Duration::ZERO, 0);
        }
    }

    fn conclude(&mut self, now: Time, key: StarterKey, result: AttemptResult) {
        let id = result.id;
        if !result.outcome.is_final() && result.usage != Usage::default() {
            self.measured(now, key, &[(id, result.usage)]);
        }
        match &result.outcome {
            Outcome::Killed if self.vacate_done(now, id) => {}
            Outcome::Exited(_) | Outcome::Signaled(_) if result.outputs.is_empty() => {
                return self.stored(now, key, &result);
            }
            Outcome::Exited(_) | Outcome::Signaled(_) => return self.collect(now, key, result),
            Outcome::Unrunnable(why) => self.hold(now, id.job, why.clone(), policy::UNRUNNABLE),
            Outcome::OutputFailed(why) => self.hold(now, id.job, why.clone(), policy::OUTPUT_FAILED),
            Outcome::SiteFailed(why) | Outcome::Evicted(why) => self.site_failed(now, id, why),
            Outcome::OutOfMemory(why) => self.out_of_memory(now, id.job, why),
            Outcome::Killed => self.site_failed(now, id, "killed at the node"),
            Outcome::NeedsFiles => self.needs_files(now, key, id),
            Outcome::Missed => {
                let Hold { why, code, .. } = timing::missed();
                self.hold(now, id.job, why, code);
            }
        }
        self.settle(key, result);
    }

    /// A result that counts for nothing is acknowledged, once what its attempt wrote is kept.
    fn settle(&mut self, key: StarterKey, result: AttemptResult) {
        let id = result.id;
        let ours = self.job(id.job).is_some_and(|job| (1..=job.attempt).contains(&id.attempt));
        if ours && result.outcome.is_cut_off() && !(result.outputs.is_empty() && result.kept.is_none()) {
            self.act(Action::KeepPartial { key, result });
        } else {
            self.acknowledge(key, id);
        }
    }

    /// What an attempt left is kept, or is nothing to keep.
    pub(super) fn partial_kept(&mut self, now: Time, key: StarterKey, result: AttemptResult) {
        if self.is_current(result.id, key) {
            self.conclude(now, key, AttemptResult { outputs: Vec::new(), kept: None, ..result });
        } else {
            self.acknowledge(key, result.id);
        }
    }

    fn collect(&mut self, now: Time, key: StarterKey, result: AttemptResult) {
        let id = result.id;
        let Some(group) = self.group(id.job) else {
            return;
        };
        let program = group.body.filled(&group.members.row(id.job.proc));
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        // The starter may repeat itself while its outputs come.
        match starter.held.get_mut(&id) {
            Some(held) if !held.collecting => held.collecting = true,
            _ => return,
        }
        let site = starter.offer.site.0;
        self.change(id.job, |job| {
            job.state = JobState::Transferring;
            job.site = site;
        });
        self.note_moved(now, id, key, Files::OutputsBegan);
        self.act(Action::Collect { key, result, program });
    }

    fn needs_files(&mut self, now: Time, key: StarterKey, id: AttemptId) {
        let Some(program) = self.group(id.job).map(|group| group.program) else {
            return;
        };
        let Some(starter) = self.starters.get_mut(&key) else {
            return;
        };
        if starter.held.get(&id).is_some_and(|held| held.apart) {
            return self.site_failed(now, id, "its node asked for files that it was given");
        }
        starter.unshared.insert(program);
        self.take_back(now, key, &[id], Return::NeedsFiles);
    }

    /// A result is at home, with its outputs. It counts even if its attempt was given up while they came.
    pub(super) fn stored(&mut self, now: Time, key: StarterKey, result: &AttemptResult) {
        let id = result.id;
        let end = match result.outcome {
            Outcome::Exited(code) => End::Exited(code),
            Outcome::Signaled(signal) => End::Signaled(signal),
            _ => return,
        };
        if let Some(job) = self.job(id.job)
            && !job.is_over()
            && (1..=job.attempt).contains(&id.attempt)
            && !self.is_settled(id)
        {
            let site = self.starters.get(&key).map_or(job.site, |s| s.offer.site.0);
            let sent_bytes = result.outputs.iter().map(|output| output.size).fold(0, u64::saturating_add);
            let usage = Usage { sent_bytes, ..result.usage };
            if !result.outputs.is_empty() {
                self.note_moved(now, id, key, Files::OutputsCame);
            }
            let other = self.live.get(&id.job).copied().filter(|live| *live != (id.attempt, key));
            let mut ended = Ended { id, site, end, usage, then: None };
            ended.then = self.judge_end(now, &ended);
            // Ends of one moment share a record.
            match self.records.last_mut() {
                Some(Record::Ended { at, ends }) if *at == now && ends.len() < ASSIGN_BATCH => {
                    ends.push(ended.clone());
                    self.apply_ended(now, &ended);
                    self.note_end(now, &ended).into_iter().for_each(|note| self.act(note));
                    self.note_over(now, [id.job].into_iter()).into_iter().for_each(|note| self.act(note));
                }
                _ => self.write(Record::Ended { at: now, ends: vec![ended] }),
            }
            self.ask_anew(now, &[id.job]);
            self.supersede(id.job, other);
        }
        self.acknowledge(key, id);
    }

    pub(super) fn outputs_failed(&mut self, now: Time, key: StarterKey, id: AttemptId, why: String, code: Option<u16>) {
        if self.is_current(id, key) {
            match code {
                Some(code) => self.hold(now, id.job, why, code),
                None => self.site_failed(now, id, &why),
            }
        }
        self.acknowledge(key, id);
    }

    pub(super) fn assignment_failed(&mut self, now: Time, key: StarterKey, id: AttemptId, why: String, code: u16) {
        if self.is_current(id, key) {
            self.hold(now, id.job, why, code);
        }
        self.forget(key, id);
    }

    pub(super) fn acknowledge(&mut self, key: StarterKey, id: AttemptId) {
        self.forget(key, id);
        self.act(Action::Acknowledge { key, ids: vec![id] });
    }

    fn site_failed(&mut self, now: Time, id: AttemptId, why: &str) {
        let failures = self.job(id.job).map_or(0, |job| job.site_failures);
        if failures.saturating_add(1) >= SITE_FAILURES {
            let why = format!("{SITE_FAILURES} sites or nodes failed it; the last: {why}");
            return self.hold(now, id.job, why, policy::SITES_FAILED);
        }
        self.remember(now, &[id.job]);
        let ran = self.job(id.job).filter(|job| job.state == JobState::Running).map(|job| job.at);
        let key = self.live.get(&id.job).map(|(_, key)| *key).filter(|_| ran.is_some());
        let lost = key.filter(|key| self.starters.get(key).is_some_and(|starter| !starter.connected));
        self.write(Record::SiteFailed { at: now, id, why: why.to_string(), ran, lost });
        self.ask_anew(now, &[id.job]);
    }

    fn hold(&mut self, now: Time, job: JobId, why: String, code: u16) {
        self.remember(now, &[job]);
        self.write(Record::Held { at: now, job, why, code });
        self.ask_anew(now, &[job]);
    }

    pub(super) fn kill(&mut self, key: StarterKey, ids: Vec<AttemptId>, grace: Duration, signal: u8) {
        if !ids.is_empty() {
            self.act(Action::Kill { key, ids, grace, signal });
        }
    }

    /// The attempts of jobs that are out, by who has them and how they are to be killed.
    pub(super) fn kills(&self, jobs: &[JobId], how: fn(&Killing) -> (u8, Option<u32>)) -> Kills {
        let mut kills = Kills::new();
        for job in jobs {
            if let Some((attempt, key)) = self.live.get(job)
                && let Some(group) = self.group(*job)
            {
                let (signal, grace) = how(&group.body.killing);
                let grace = grace.map_or(KILL_GRACE, |s| Duration::from_secs(s.into()).min(MOST_GRACE));
                kills.entry((*key, grace, signal)).or_default().push(AttemptId { job: *job, attempt: *attempt });
            }
        }
        kills
    }

    pub(super) fn forget(&mut self, key: StarterKey, id: AttemptId) {
        if self.starters.get_mut(&key).is_some_and(|starter| starter.forget(id)) {
            self.touch(key);
        }
        if self.dying.get(&id.job) == Some(&(id.attempt, key)) {
            self.bury(id.job);
        }
    }

    /// What a job's killed attempt kept waiting may go on.
    pub(super) fn bury(&mut self, job: JobId) {
        if self.end_dying(job) && self.job(job).is_some_and(|job| job.state == JobState::Idle) {
            self.enqueue(job);
        }
    }

    /// A starter may have room.
    pub(super) fn touch(&mut self, key: StarterKey) {
        self.hungry.insert(key);
        self.touched.insert(key);
    }
}
