//! What records change.

use super::*;

impl Pool {
    /// Folds a record in. A record that doesn't fit the state changes nothing: it was made twice.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Submitted { cluster, at, name, groups } => self.apply_submitted(*cluster, *at, name, groups),
            Record::StarterJoined { key, offer, .. } => {
                let excluded = self.nodes.is_excluded(offer.site, &offer.host);
                let kind = self.classes.kind(offer);
                self.starters.entry(*key).or_insert_with(|| Starter { excluded, kind, ..Starter::new(offer.clone()) });
            }
            Record::StarterGone { key, .. } => {
                self.starters.remove(key);
                let with = |(job, (_, at)): (&JobId, &(u32, StarterKey))| (at == key).then_some(*job);
                let dead: Vec<JobId> = self.dying.iter().filter_map(with).collect();
                dead.into_iter().for_each(|job| self.bury(job));
            }
            Record::Dispatched { key, ids, .. } => {
                for id in ids {
                    self.apply_dispatched(*key, *id);
                }
            }
            Record::Returned { key, ids, .. } => {
                for id in ids {
                    self.forget(*key, *id);
                    self.requeue(*id);
                }
            }
            Record::Ended { at, ends } => {
                for ended in ends {
                    self.apply_ended(*at, ended);
                }
            }
            Record::SiteFailed { at, id, why, ran, .. } => {
                let held_by = self.live.get(&id.job).filter(|(attempt, _)| *attempt == id.attempt);
                if let Some((_, key)) = held_by.copied() {
                    self.give_up(*at, id.job, *ran);
                    self.forget(key, *id);
                    self.requeue(*id);
                    self.change(id.job, |job| {
                        job.site_failures = job.site_failures.saturating_add(1);
                        job.at = *at;
                    });
                    self.reason(id.job, why);
                }
            }
            Record::Held { at, job, why, code } => {
                if let Some((attempt, key)) = self.end_live(*job) {
                    self.forget(key, AttemptId { job: *job, attempt });
                    self.apply_held(*at, *job, &Hold { why: why.clone(), code: *code, subcode: 0 });
                }
            }
            Record::Claimed { key, id, .. } => self.apply_claimed(*key, *id),
            Record::NodeExcluded { site, host, since, until, why, times } => {
                let exclusion = nodes::Exclusion { since: *since, until: *until, why: why.clone() };
                self.nodes.exclude(*site, host, *times, exclusion);
                self.mark_excluded(*site, host, true);
            }
            Record::Silent { .. } | Record::Answers { .. } => {}
            Record::Removed { at, ranges } => {
                change::jobs_in(ranges).for_each(|id| self.apply_removed(*at, id));
            }
            Record::HeldByUser { at, ranges, why } => {
                let hold = Hold { why: why.clone(), code: policy::USER_REQUEST, subcode: 0 };
                change::jobs_in(ranges).for_each(|id| self.apply_held(*at, id, &hold));
            }
            Record::Released { at, ranges } => {
                change::jobs_in(ranges).for_each(|id| self.apply_released(*at, id));
            }
            Record::Edited { ranges, edit, .. } => self.apply_edited(ranges, edit),
            Record::Judged { at, ranges, decision } => {
                change::jobs_in(ranges).for_each(|id| self.apply_judged(*at, id, decision));
            }
            Record::Dismissed { ranges, .. } => {
                for id in change::jobs_in(ranges) {
                    if let Some(cluster) = self.clusters.get_mut(&id.cluster) {
                        cluster.dismissed.set(id.proc, true);
                    }
                }
            }
            Record::Measured { used, .. } => used.iter().for_each(|(id, usage)| self.apply_measured(*id, usage)),
            Record::Started { at, ids } => ids.iter().for_each(|id| self.apply_started(*at, *id)),
        }
    }

    pub(super) fn apply_submitted(&mut self, cluster: u32, at: Time, name: &str, groups: &[GroupRecord]) {
        if self.clusters.contains_key(&cluster) {
            return;
        }
        let mut first = 0u32;
        let mut built = Vec::with_capacity(groups.len());
        for group in groups {
            let members = Members::new(first, group.count, group.procs.clone(), group.table.clone());
            let count = members.count().min(u32::MAX - first);
            self.last_program += 1;
            let mut body = group.program.clone();
            body.cpus = body.cpus.max(1);
            built.push(Group {
                members,
                statement: built.len() as u32,
                program: self.last_program,
                class: self.classes.of(&*self.judge.0, &body, &group.terms),
                account: self.queue.account(group.terms.accounting_group.as_deref()),
                body: Arc::new(body),
                log: group.log.clone(),
                tag: group.tag.clone(),
                log_terms: Arc::new(group.log_terms.clone()),
                origin: group.origin.clone(),
                terms: Arc::new(group.terms.clone()),
                policy: self.judge.0.policy(&group.terms, &group.program),
                timing: self.judge.0.timing(&group.terms, &group.program),
                stays: stays(&group.terms),
                fresh: 0,
                again: BTreeSet::new(),
            });
            first += count;
        }
        let mut jobs = vec![Job::default(); first as usize];
        for (group, _) in built.iter().zip(groups).filter(|(_, record)| record.held) {
            for proc in group.members.iter() {
                let held = Job { state: JobState::Held, code: policy::SUBMITTED_ON_HOLD, at, ..Job::default() };
                jobs.get_mut(proc as usize).into_iter().for_each(|job| *job = held);
            }
        }
        let mut counts = Counts::default();
        jobs.iter().for_each(|job| counts.add(job));
        let mut places = Vec::new();
        if built.iter().any(|group| group.members.procs().is_some()) {
            places = vec![u32::MAX; first as usize];
            for (place, group) in (0..).zip(&built) {
                for proc in group.members.iter() {
                    places.get_mut(proc as usize).into_iter().for_each(|of| *of = place);
                }
            }
        }
        let built = Cluster {
            name: name.to_string(),
            submitted: at,
            statements: built.len(),
            groups: built,
            moved: BTreeMap::new(),
            places,
            jobs,
            counts,
            later: timing::Marks::default(),
            dismissed: timing::Marks::default(),
            reasons: BTreeMap::new(),
            pasts: BTreeMap::new(),
        };
        self.clusters.insert(cluster, built);
        (0..groups.len()).for_each(|index| self.watch(cluster, index));
        self.last_cluster = self.last_cluster.max(cluster);
        self.note_retries(cluster);
        for index in (0..groups.len()).filter(|index| groups.get(*index).is_some_and(|group| group.count > 0)) {
            if self.is_timed(cluster, index) {
                self.defer_group(cluster, index);
            } else {
                self.open(cluster, index);
            }
        }
    }

    fn apply_dispatched(&mut self, key: StarterKey, id: AttemptId) {
        let Some(cluster) = self.clusters.get_mut(&id.job.cluster) else {
            return;
        };
        let Some(index) = cluster.group_of(id.job.proc) else {
            return;
        };
        if cluster.jobs[id.job.proc as usize].attempt >= id.attempt {
            return;
        }
        // When the record is read back, nobody has taken the job from its queue before.
        cluster.groups[index].take(id.job.proc);
        self.end_dying(id.job);
        self.give(key, id, Phase::Queued);
    }

    /// The attempt is the job's, at this starter.
    pub(super) fn give(&mut self, key: StarterKey, id: AttemptId, phase: Phase) {
        if self.group(id.job).is_none() {
            return;
        }
        let site = self.starters.get(&key).map_or(0, |starter| Job::bit(starter.offer.site));
        self.change(id.job, |job| {
            job.state = JobState::Matched;
            job.attempt = job.attempt.max(id.attempt);
            job.sites |= site;
        });
        self.set_later(id.job, false);
        self.set_live(id, key);
        self.occupy(key, id, phase);
    }

    /// The starter has the attempt.
    pub(super) fn occupy(&mut self, key: StarterKey, id: AttemptId, phase: Phase) {
        let Some(body) = self.group(id.job).map(|group| group.body.clone()) else {
            return;
        };
        if let Some(starter) = self.starters.get_mut(&key) {
            let held = Held {
                phase,
                cpus: body.cpus,
                load: starter.load_of(&body).unwrap_or(starter.offer.cpus),
                apart: false,
                collecting: false,
            };
            starter.hold(id, held);
        }
    }

    fn apply_claimed(&mut self, key: StarterKey, id: AttemptId) {
        let open = self.job(id.job).is_some_and(|job| !job.is_over());
        if open && !self.is_settled(id) && self.starters.contains_key(&key) {
            self.unqueue(id.job);
            if self.dying.get(&id.job) == Some(&(id.attempt, key)) {
                self.end_dying(id.job);
            }
            if let Some(out) = self.end_live(id.job) {
                self.set_dying(id.job, out);
            }
            self.change(id.job, |job| {
                job.started = false;
                (job.code, job.subcode) = (0, 0);
            });
            self.give(key, id, Phase::Finished);
        }
    }

    /// A job whose attempt `id` came to nothing is idle again.
    pub(super) fn requeue(&mut self, id: AttemptId) {
        if self.live.get(&id.job).is_none_or(|(attempt, _)| *attempt != id.attempt) {
            return;
        }
        self.end_live(id.job);
        self.change(id.job, |job| {
            job.state = JobState::Idle;
            job.started = false;
        });
        self.enqueue(id.job);
    }

    /// A job is idle again.
    pub(super) fn enqueue(&mut self, id: JobId) {
        if self.dying.contains_key(&id) {
            return;
        }
        if self.group(id).is_some_and(|group| group.timing.is_some()) {
            self.defer(id, Time::default());
            return;
        }
        if let Some(cluster) = self.clusters.get_mut(&id.cluster)
            && let Some(index) = cluster.group_of(id.proc)
        {
            let group = &mut cluster.groups[index];
            // The cursor has yet to come to one that was held before it ever left.
            if group.members.index(id.proc).is_none_or(|at| at < group.fresh) {
                group.again.insert(id.proc);
            }
            self.open(id.cluster, index);
        }
    }

    pub(super) fn apply_ended(&mut self, at: Time, ended: &Ended) {
        let job = ended.id.job;
        if self.job(job).is_none_or(Job::is_over) || self.is_settled(ended.id) {
            return;
        }
        let success = self.group(job).map_or(0, |group| group.body.success);
        if let Some((attempt, key)) = self.end_live(job) {
            if attempt != ended.id.attempt {
                self.set_dying(job, (attempt, key));
            } else if let Some(starter) = self.starters.get_mut(&key) {
                starter.forget(ended.id);
                starter.completed += 1;
            }
        }
        self.unqueue(job);
        self.measured.remove(&job);
        let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (state, hold) = match &ended.then {
            Some(Decision::Hold(hold)) => (JobState::Held, Some(hold)),
            Some(Decision::Again(_)) => (JobState::Idle, None),
            _ => (JobState::Completed, None),
        };
        let done = state == JobState::Completed;
        self.change(job, |j| {
            j.state = state;
            j.end = done.then_some(ended.end);
            j.contrary = done && (ended.end == End::Exited(success)) != (ended.end == End::Exited(0));
            j.started = false;
            (j.code, j.subcode) = hold.map_or((0, 0), |hold| (hold.code, hold.subcode));
            j.attempt = j.attempt.max(ended.id.attempt);
            j.site = ended.site;
            j.wall_ms = short(ended.usage.wall_ms);
            j.spend(&Usage { peak_kib: 0, ..ended.usage });
            j.peak_kib = short(ended.usage.peak_kib);
            j.at = at;
        });
        if done {
            if ended.site != timing::NOWHERE {
                *self.done_by_site.entry(ended.site).or_default() += 1;
            }
            return;
        }
        if let Some(past) = self.past(job) {
            past.starts += 1;
            past.completions += 1;
            past.wall_ms += ended.usage.wall_ms;
            past.end = Some(ended.end);
            past.settled = past.settled.max(ended.id.attempt);
            past.holds += u32::from(hold.is_some());
        }
        match hold {
            Some(hold) => self.reason(job, &hold.why),
            None => self.enqueue(job),
        }
    }

    pub(super) fn apply_removed(&mut self, at: Time, id: JobId) {
        if self.job(id).is_none_or(Job::is_over) {
            return;
        }
        // What its starter still holds of it occupies the starter until it says that it is gone.
        self.give_up(at, id, None);
        let limited = self.group(id).is_some_and(|group| !group.terms.limits.is_empty());
        if let Some(out) = self.end_live(id).filter(|_| limited) {
            self.set_dying(id, out);
        }
        self.unqueue(id);
        self.change(id, |job| {
            job.state = JobState::Removed;
            job.at = at;
            (job.code, job.subcode) = (0, 0);
        });
    }

    pub(super) fn unqueue(&mut self, id: JobId) {
        if let Some(cluster) = self.clusters.get_mut(&id.cluster)
            && let Some(group) = cluster.group_of(id.proc)
        {
            cluster.groups[group].again.remove(&id.proc);
        }
        self.set_later(id, false);
    }

    pub(super) fn reason(&mut self, id: JobId, why: &str) {
        if let Some(cluster) = self.clusters.get_mut(&id.cluster) {
            cluster.reasons.insert(id.proc, why.to_string());
        }
    }
}

/// May such jobs stay in the queue when they have ended?
pub(super) fn stays(terms: &Terms) -> bool {
    let named = |name: &str| name.eq_ignore_ascii_case("LeaveJobInQueue");
    let says = |(name, value): &(String, String)| named(name) && !value.eq_ignore_ascii_case("false");
    terms.attributes.iter().any(says) || terms.own.iter().any(|(name, _)| named(name))
}
