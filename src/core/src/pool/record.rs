//! What the pool remembers through a crash: its records, and the fold over them.

use super::*;

/// What a starter offers, as the matcher sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Offer {
    /// Its site.
    #[n(0)]
    pub site: SiteId,
    /// Its proxy there.
    #[n(1)]
    pub proxy: ProxyId,
    /// The node.
    #[n(2)]
    pub host: String,
    /// CPUs.
    #[n(3)]
    pub cpus: u32,
    /// Memory.
    #[n(4)]
    pub memory_mb: u64,
    /// GPUs.
    #[n(5)]
    pub gpus: u32,
    /// Files that it shares with the workstation.
    #[n(6)]
    pub shared: Shared,
    /// Takes no job when less than this is left of its walltime.
    #[cbor(n(7), with = "millis")]
    pub drain: Duration,
    /// Architecture.
    #[n(8)]
    pub arch: String,
    /// Operating system.
    #[n(9)]
    pub system: String,
    /// More attributes of its slots, with the text of their values: its site's, as the user set them.
    #[cbor(n(10), default)]
    pub attributes: Vec<(String, String)>,
    /// What it has of its site's own resources, as the user set them.
    #[cbor(n(11), default)]
    pub resources: Vec<(String, u32)>,
}

/// Which files a node shares with the workstation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Shared {
    /// None: files travel.
    #[default]
    #[n(0)]
    Nothing,
    /// Those of the marker's file system: the driver names the directory, files travel where that is elsewhere.
    #[n(1)]
    MarkerFs,
    /// All.
    #[n(2)]
    Everything,
}

/// A `queue` statement, as submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct GroupRecord {
    /// Jobs.
    #[n(0)]
    pub count: u32,
    /// What they run.
    #[n(1)]
    pub program: Program,
    /// Job event log.
    #[n(2)]
    pub log: Option<Template>,
    /// What the matcher goes by.
    #[cbor(n(3), default)]
    pub terms: Terms,
    /// What their templates take from each job's row, a row for each job in order.
    #[n(4)]
    pub table: Option<Table>,
    /// Their processes, where several groups share the processes of a statement among them: all of these in one row.
    #[n(5)]
    pub procs: Option<Procs>,
    /// What their submitter knows them by, in the first group: a submission with a tag that was there is answered by the jobs that have it.
    #[n(6)]
    pub tag: Option<String>,
    /// Are they submitted on hold?
    #[cbor(n(7), default)]
    pub held: bool,
    /// What their event log is to hold.
    #[cbor(n(8), default)]
    pub log_terms: LogTerms,
    /// Whose jobs they are, submitted once more.
    #[n(9)]
    pub origin: Option<Origin>,
}

/// What a job event log is to hold, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LogTerms {
    /// In XML, whatever the session's logs are written in.
    #[n(0)]
    pub xml: bool,
    /// The batch name that the user gave.
    #[n(1)]
    pub batch_name: Option<Template>,
    /// The DAG's node that they are of.
    #[n(2)]
    pub dag_node: Option<Template>,
    /// What the submission notes for programs.
    #[n(3)]
    pub notes: Option<Template>,
    /// What it notes for people.
    #[n(4)]
    pub user_notes: Option<Template>,
}

impl GroupRecord {
    /// Do the groups number their jobs once each and without gaps, and is there a row for each job where there are rows?
    pub fn are_whole(groups: &[GroupRecord]) -> bool {
        let (mut next, mut listed) = (0u64, Vec::new());
        let close = |next: &mut u64, listed: &mut Vec<u32>| {
            listed.sort_unstable();
            let whole = (*next..).zip(&*listed).all(|(expected, proc)| expected == u64::from(*proc));
            *next += listed.len() as u64;
            listed.clear();
            whole
        };
        let each = |group: &GroupRecord| {
            let listed_whole = match &group.procs {
                Some(procs) => {
                    listed.extend_from_slice(procs.as_slice());
                    procs.as_slice().len() == group.count as usize
                }
                None => {
                    let whole = close(&mut next, &mut listed);
                    next += u64::from(group.count);
                    whole
                }
            };
            listed_whole && group.table.as_ref().is_none_or(|table| table.rows() == group.count)
        };
        groups.iter().all(each) && close(&mut next, &mut listed)
    }
}

/// A job's end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// The attempt whose result counts.
    #[n(0)]
    pub id: AttemptId,
    /// Where it ran.
    #[n(1)]
    pub site: u16,
    /// How it ended.
    #[n(2)]
    pub end: End,
    /// What it used.
    #[n(3)]
    pub usage: Usage,
    /// What its policy makes of that; none if the job has done.
    #[n(4)]
    pub then: Option<Decision>,
}

/// What the pool stores. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A cluster was submitted.
    #[n(0)]
    Submitted {
        /// Its number.
        #[n(0)]
        cluster: u32,
        /// When.
        #[n(1)]
        at: Time,
        /// Its name.
        #[n(2)]
        name: String,
        /// Its groups.
        #[n(3)]
        groups: Vec<GroupRecord>,
    },
    /// A starter called in for the first time.
    #[n(1)]
    StarterJoined {
        /// Which.
        #[n(0)]
        key: StarterKey,
        /// What it offers.
        #[n(1)]
        offer: Offer,
        /// When. Here and below, journals of earlier versions have none.
        #[n(2)]
        at: Option<Time>,
    },
    /// It ended, with all it held.
    #[n(2)]
    StarterGone {
        /// Which.
        #[n(0)]
        key: StarterKey,
        /// When that was concluded.
        #[n(1)]
        at: Option<Time>,
        /// The evidence.
        #[n(2)]
        why: Option<String>,
    },
    /// Attempts go to a starter.
    #[n(3)]
    Dispatched {
        /// Where to.
        #[n(0)]
        key: StarterKey,
        /// Which.
        #[n(1)]
        ids: Vec<AttemptId>,
        /// When.
        #[n(2)]
        at: Option<Time>,
    },
    /// Attempts came back unstarted.
    #[n(4)]
    Returned {
        /// From where.
        #[n(0)]
        key: StarterKey,
        /// Which.
        #[n(1)]
        ids: Vec<AttemptId>,
        /// When.
        #[n(2)]
        at: Option<Time>,
        /// Why.
        #[n(3)]
        why: Option<Return>,
    },
    /// Jobs completed.
    #[n(5)]
    Ended {
        /// When.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        ends: Vec<Ended>,
    },
    /// A site failed a job; it is idle again.
    #[n(6)]
    SiteFailed {
        /// When.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        id: AttemptId,
        /// Why.
        #[n(2)]
        why: String,
        /// When it was known to run, if it did.
        #[n(3)]
        ran: Option<Time>,
        /// The starter that it ran at, if that had fallen silent.
        #[n(4)]
        lost: Option<StarterKey>,
    },
    /// A job can't run as it is.
    #[n(7)]
    Held {
        /// When.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        job: JobId,
        /// Why.
        #[n(2)]
        why: String,
        /// The same in HTCondor's numbers; 0 if nothing tells.
        #[cbor(n(3), default)]
        code: u16,
    },
    /// The user removed jobs.
    #[n(8)]
    Removed {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
    },
    /// An attempt that was given up has a result: it is the job's attempt again, and no other.
    #[n(9)]
    Claimed {
        /// Who has the result.
        #[n(0)]
        key: StarterKey,
        /// The attempt.
        #[n(1)]
        id: AttemptId,
        /// When.
        #[n(2)]
        at: Option<Time>,
    },
    /// A node gets no work for a while.
    #[n(10)]
    NodeExcluded {
        /// Whose node.
        #[n(0)]
        site: SiteId,
        /// Its name.
        #[n(1)]
        host: String,
        /// Since when.
        #[n(2)]
        since: Time,
        /// Until when.
        #[n(3)]
        until: Time,
        /// The evidence.
        #[n(4)]
        why: String,
        /// How often in a row, so that it is tried again later each time.
        #[n(5)]
        times: u8,
    },
    /// Starters fell silent. Evidence only: a pool that is read back has none that answers.
    #[n(11)]
    Silent {
        /// Which.
        #[n(0)]
        keys: Vec<StarterKey>,
        /// When.
        #[n(1)]
        at: Time,
        /// What became of the connection.
        #[n(2)]
        why: String,
        /// Did the site's agent tell? If not, it is our own way to the site that is lost.
        #[n(3)]
        told: bool,
    },
    /// A silent starter answers again. Evidence only.
    #[n(12)]
    Answers {
        /// Which.
        #[n(0)]
        key: StarterKey,
        /// When.
        #[n(1)]
        at: Time,
    },
    /// The user held jobs.
    #[n(13)]
    HeldByUser {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended and held jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
        /// Why.
        #[n(2)]
        why: String,
    },
    /// The user released held jobs.
    #[n(14)]
    Released {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Jobs among them that are not held are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
    },
    /// The user changed what jobs ask for.
    #[n(15)]
    Edited {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
        /// How.
        #[n(2)]
        edit: Edit,
    },
    /// The policies of jobs decided about them.
    #[n(16)]
    Judged {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process. Ended jobs among them are not touched.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
        /// What.
        #[n(2)]
        decision: Decision,
    },
    /// Attempts run whose jobs' policies may ask since when.
    #[n(17)]
    Started {
        /// When that was told.
        #[n(0)]
        at: Time,
        /// Which.
        #[n(1)]
        ids: Vec<AttemptId>,
    },
    /// The user took jobs that have ended out of the queue.
    #[n(18)]
    Dismissed {
        /// When.
        #[n(0)]
        at: Time,
        /// Cluster, first and last process.
        #[n(1)]
        ranges: Vec<(u32, u32, u32)>,
    },
    /// What attempts had used that come to nothing.
    #[n(19)]
    Measured {
        /// When.
        #[n(0)]
        at: Time,
        /// Of which jobs, and what.
        #[n(1)]
        used: Vec<(JobId, Usage)>,
    },
}

/// Why attempts came back unstarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Return {
    /// Another starter was idle.
    #[n(0)]
    Recalled,
    /// Its starter is about to end.
    #[n(1)]
    Closing,
    /// Its starter's inventory doesn't have it: the message was lost.
    #[n(2)]
    Lost,
    /// Its starter ended.
    #[n(3)]
    Gone,
    /// The node doesn't see its directory: it goes again, with its files.
    #[n(4)]
    NeedsFiles,
    /// It could not be sent any more: its starter was being asked what it holds.
    #[n(5)]
    Unsent,
    /// Many failed in a row at its node.
    #[n(6)]
    Excluded,
}

/// Durations as milliseconds.
mod millis {
    use core::time::Duration;
    use minicbor::decode::Decoder;
    use minicbor::encode::{Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        span: &Duration,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))?.ok()
    }

    pub(super) fn decode<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<Duration, minicbor::decode::Error> {
        d.u64().map(Duration::from_millis)
    }
}

impl Record {
    /// When it was made, if it tells.
    pub fn at(&self) -> Option<Time> {
        match self {
            Record::Submitted { at, .. }
            | Record::Ended { at, .. }
            | Record::SiteFailed { at, .. }
            | Record::Held { at, .. }
            | Record::Removed { at, .. }
            | Record::HeldByUser { at, .. }
            | Record::Released { at, .. }
            | Record::Edited { at, .. }
            | Record::NodeExcluded { since: at, .. }
            | Record::Silent { at, .. }
            | Record::Judged { at, .. }
            | Record::Started { at, .. }
            | Record::Dismissed { at, .. }
            | Record::Measured { at, .. }
            | Record::Answers { at, .. } => Some(*at),
            Record::StarterJoined { at, .. }
            | Record::StarterGone { at, .. }
            | Record::Dispatched { at, .. }
            | Record::Returned { at, .. }
            | Record::Claimed { at, .. } => *at,
        }
    }
}

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

    fn apply_submitted(&mut self, cluster: u32, at: Time, name: &str, groups: &[GroupRecord]) {
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
    fn give(&mut self, key: StarterKey, id: AttemptId, phase: Phase) {
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
    fn occupy(&mut self, key: StarterKey, id: AttemptId, phase: Phase) {
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

/// The pool at one moment, to begin a journal with.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Snapshot {
    #[n(0)]
    last_cluster: u32,
    #[n(1)]
    last_program: u64,
    #[n(2)]
    clusters: Vec<ClusterSnapshot>,
    #[n(3)]
    starters: Vec<(StarterKey, Offer, u64)>,
    #[n(4)]
    live: Vec<(AttemptId, StarterKey)>,
    /// Excluded nodes, as records.
    #[cbor(n(5), default)]
    nodes: Vec<Record>,
    /// Attempts that were killed and may still run.
    #[cbor(n(6), default)]
    dying: Vec<(AttemptId, StarterKey)>,
}

#[derive(Clone, Debug, Encode, Decode)]
struct ClusterSnapshot {
    #[n(0)]
    cluster: u32,
    #[n(1)]
    name: String,
    #[n(2)]
    submitted: Time,
    #[n(3)]
    groups: Vec<GroupRecord>,
    #[n(4)]
    jobs: Vec<Job>,
    #[n(5)]
    reasons: Vec<(u32, String)>,
    /// The program numbers of its groups, in order: starters know programs by them.
    #[n(6)]
    programs: Vec<u64>,
    /// Groups that edits made, in order.
    #[cbor(n(7), default)]
    parts: Vec<PartSnapshot>,
    /// Jobs in those, with the place of the group.
    #[cbor(n(8), default)]
    moved: Vec<(u32, u32)>,
    /// What was before the last attempts of some jobs.
    #[cbor(n(9), default)]
    pasts: Vec<(u32, Past)>,
    /// First and last jobs that were taken out of the queue after their end.
    #[cbor(n(10), default)]
    dismissed: Vec<(u32, u32)>,
}

/// May such jobs stay in the queue when they have ended?
fn stays(terms: &Terms) -> bool {
    let named = |name: &str| name.eq_ignore_ascii_case("LeaveJobInQueue");
    let says = |(name, value): &(String, String)| named(name) && !value.eq_ignore_ascii_case("false");
    terms.attributes.iter().any(says) || terms.own.iter().any(|(name, _)| named(name))
}

#[derive(Clone, Debug, Encode, Decode)]
struct PartSnapshot {
    #[n(0)]
    statement: u32,
    #[n(1)]
    number: u64,
    #[n(2)]
    program: Program,
    #[n(3)]
    terms: Terms,
}

impl Pool {
    /// All that [`Pool::apply`] made, to be restored with [`Pool::restore`]. Records not yet taken are in it: take and store them first.
    pub fn snapshot(&self) -> Snapshot {
        let clusters = self.clusters.iter().map(|(number, c)| ClusterSnapshot {
            cluster: *number,
            name: c.name.clone(),
            submitted: c.submitted,
            groups: c
                .groups
                .iter()
                .take(c.statements)
                .map(|g| GroupRecord {
                    count: g.members.count(),
                    program: (*g.body).clone(),
                    log: g.log.clone(),
                    terms: (*g.terms).clone(),
                    table: g.members.table().cloned(),
                    procs: g.members.procs().cloned(),
                    tag: g.tag.clone(),
                    held: false,
                    log_terms: (*g.log_terms).clone(),
                    origin: g.origin.clone(),
                })
                .collect(),
            jobs: c.jobs.clone(),
            reasons: c.reasons.iter().map(|(proc, why)| (*proc, why.clone())).collect(),
            programs: c.groups.iter().take(c.statements).map(|g| g.program).collect(),
            parts: c
                .groups
                .iter()
                .skip(c.statements)
                .map(|g| PartSnapshot {
                    statement: g.statement,
                    number: g.program,
                    program: (*g.body).clone(),
                    terms: (*g.terms).clone(),
                })
                .collect(),
            moved: c.moved.iter().map(|(proc, group)| (*proc, *group)).collect(),
            pasts: c.pasts.iter().map(|(proc, past)| (*proc, *past)).collect(),
            dismissed: {
                let jobs: Vec<JobId> = c.dismissed.iter().map(|proc| JobId { cluster: *number, proc }).collect();
                change::ranges(&jobs).into_iter().map(|(_, first, last)| (first, last)).collect()
            },
        });
        Snapshot {
            last_cluster: self.last_cluster,
            last_program: self.last_program,
            clusters: clusters.collect(),
            starters: self.starters.iter().map(|(key, s)| (*key, s.offer.clone(), s.completed)).collect(),
            live: self
                .live
                .iter()
                .map(|(job, (attempt, key))| (AttemptId { job: *job, attempt: *attempt }, *key))
                .collect(),
            nodes: self.nodes.records(),
            dying: self
                .dying
                .iter()
                .map(|(job, (attempt, key))| (AttemptId { job: *job, attempt: *attempt }, *key))
                .collect(),
        }
    }

    fn restore_part(&mut self, cluster: u32, part: PartSnapshot) -> Option<Group> {
        let statement = self.clusters.get(&cluster)?.groups.get(part.statement as usize)?.clone();
        Some(Group {
            program: part.number,
            class: self.classes.of(&*self.judge.0, &part.program, &part.terms),
            account: self.queue.account(part.terms.accounting_group.as_deref()),
            policy: self.judge.0.policy(&part.terms, &part.program),
            timing: self.judge.0.timing(&part.terms, &part.program),
            stays: stays(&part.terms),
            body: Arc::new(part.program),
            terms: Arc::new(part.terms),
            fresh: statement.members.count(),
            ..statement
        })
    }

    /// The pool of a snapshot, in place of this empty one.
    #[must_use]
    pub fn restore(mut self, snapshot: Snapshot) -> Pool {
        let pool = &mut self;
        snapshot.nodes.iter().for_each(|record| pool.apply(record));
        for (key, offer, completed) in snapshot.starters {
            pool.apply(&Record::StarterJoined { key, offer, at: None });
            if let Some(starter) = pool.starters.get_mut(&key) {
                starter.completed = completed;
            }
        }
        for c in snapshot.clusters {
            pool.apply_submitted(c.cluster, c.submitted, &c.name, &c.groups);
            let mut done = Vec::new();
            let (mut shut, mut parted) = (Vec::new(), Vec::new());
            let parts: Vec<Group> = c.parts.into_iter().filter_map(|part| pool.restore_part(c.cluster, part)).collect();
            if let Some(cluster) = pool.clusters.get_mut(&c.cluster) {
                for (group, program) in cluster.groups.iter_mut().zip(c.programs) {
                    group.program = program;
                }
                for (slot, job) in cluster.jobs.iter_mut().zip(c.jobs) {
                    *slot = job;
                }
                cluster.groups.extend(parts);
                cluster.moved = c.moved.into_iter().collect();
                cluster.counts = Counts::default();
                cluster.later = timing::Marks::default();
                for job in &cluster.jobs {
                    cluster.counts.add(job);
                    if job.state == JobState::Completed && job.site != timing::NOWHERE {
                        done.push(job.site);
                    }
                }
                let (moved, jobs) = (&cluster.moved, &cluster.jobs);
                let state = |proc: &u32| jobs.get(*proc as usize);
                let idle = |proc: &u32| state(proc).is_some_and(|job| job.state == JobState::Idle);
                for (index, group) in cluster.groups.iter_mut().enumerate() {
                    if index >= cluster.statements {
                        let here = moved.iter().filter(|(_, to)| **to as usize == index).map(|(proc, _)| *proc);
                        group.again = here.filter(idle).collect();
                        parted.push(index);
                        continue;
                    }
                    // The cursor stands behind the last job that ever left the queue.
                    let left = group.members.iter().rposition(|proc| state(&proc).is_some_and(|job| job.attempt > 0));
                    group.fresh = left.map_or(0, |last| last as u32 + 1);
                    let before = group.members.iter().take(group.fresh as usize);
                    group.again = before.filter(|proc| idle(proc) && !moved.contains_key(proc)).collect();
                    if group.next_idle(jobs, moved, &timing::Marks::default()).is_none() {
                        shut.push((group.account, group.class, group.place(c.cluster, index)));
                    }
                }
                cluster.reasons = c.reasons.into_iter().collect();
                cluster.pasts = c.pasts.into_iter().collect();
                for (first, last) in c.dismissed {
                    for proc in first..=last {
                        cluster.dismissed.set(proc, true);
                    }
                }
            }
            for index in parted {
                pool.open(c.cluster, index);
                pool.watch(c.cluster, index);
            }
            let groups = pool.clusters.get(&c.cluster).map_or(0, |cluster| cluster.groups.len());
            (0..groups)
                .filter(|index| pool.is_timed(c.cluster, *index))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|index| pool.defer_group(c.cluster, index));
            shut.into_iter().for_each(|(account, class, place)| pool.queue.remove(account, class, place));
            for site in done {
                *pool.done_by_site.entry(site).or_default() += 1;
            }
        }
        for (id, key) in snapshot.live {
            // What had started, or ended, is known again when its starter tells.
            pool.give(key, id, Phase::Queued);
        }
        for (id, key) in snapshot.dying {
            pool.occupy(key, id, Phase::Queued);
            pool.unqueue(id.job);
            pool.set_dying(id.job, (id.attempt, key));
        }
        pool.last_cluster = snapshot.last_cluster;
        pool.last_program = snapshot.last_program;
        self
    }
}
