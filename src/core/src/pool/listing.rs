//! What can be asked of the pool.

use core::ops::RangeInclusive;

use super::*;

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Idle or matched.
    pub idle: u32,
    /// Running or transferring.
    pub running: u32,
    /// Held.
    pub held: u32,
    /// Completed.
    pub completed: u32,
    /// Removed.
    pub removed: u32,
    /// Of the completed, those with another exit code than that of success, or a signal.
    pub failed: u32,
    /// Of the idle, those that wait for their time.
    pub later: u32,
}

impl Counts {
    fn of(&mut self, job: &Job) -> &mut u32 {
        match job.state {
            JobState::Idle | JobState::Matched => &mut self.idle,
            JobState::Running | JobState::Transferring => &mut self.running,
            JobState::Held => &mut self.held,
            JobState::Completed => &mut self.completed,
            JobState::Removed => &mut self.removed,
        }
    }

    pub(super) fn add(&mut self, job: &Job) {
        *self.of(job) += 1;
        self.failed += u32::from(job.is_failed());
    }

    pub(super) fn remove(&mut self, job: &Job) {
        *self.of(job) -= 1;
        self.failed -= u32::from(job.is_failed());
    }

    /// Those that are not completed or removed.
    pub fn unfinished(&self) -> u32 {
        self.idle + self.running + self.held
    }

    /// Adds others to these.
    pub fn merge(&mut self, other: &Counts) {
        self.idle += other.idle;
        self.running += other.running;
        self.held += other.held;
        self.completed += other.completed;
        self.removed += other.removed;
        self.failed += other.failed;
        self.later += other.later;
    }
}

/// Some of the jobs: those of the named clusters and the named jobs; nothing named means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Whole clusters.
    pub clusters: BTreeSet<u32>,
    /// Single jobs.
    pub jobs: BTreeSet<JobId>,
}

impl Select {
    fn is_all(&self) -> bool {
        self.clusters.is_empty() && self.jobs.is_empty()
    }

    /// Is the whole cluster meant?
    pub fn covers(&self, cluster: u32) -> bool {
        self.is_all() || self.clusters.contains(&cluster)
    }

    /// All clusters that are touched lie in this: one that is named is not looked for among all.
    fn span(&self) -> RangeInclusive<u32> {
        if self.is_all() {
            return 0..=u32::MAX;
        }
        let (clusters, jobs) = (&self.clusters, &self.jobs);
        let first = clusters.first().copied().into_iter().chain(jobs.first().map(|job| job.cluster)).min();
        let last = clusters.last().copied().into_iter().chain(jobs.last().map(|job| job.cluster)).max();
        first.unwrap_or(0)..=last.unwrap_or(u32::MAX)
    }

    fn touches(&self, cluster: u32) -> bool {
        self.covers(cluster) || self.within(cluster, 0).next().is_some()
    }

    /// The single jobs of a cluster, from a process on.
    fn within(&self, cluster: u32, from: u32) -> impl Iterator<Item = JobId> + '_ {
        let job = |proc| JobId { cluster, proc };
        self.jobs.range(job(from)..=job(u32::MAX)).copied()
    }
}

/// A job, as it is now.
#[derive(Clone, Debug)]
pub struct JobView<'a> {
    /// Which.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// Is the starter that has it silent?
    pub silent: bool,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// Attempts so far.
    pub attempts: u32,
    /// Submitted.
    pub submitted: Time,
    /// When it ended, was held or removed, or, if it runs, started.
    pub at: Time,
    /// What the attempt that counts used.
    pub usage: Usage,
    /// Where it runs or ran last.
    pub site: Option<SiteId>,
    /// The node, while an attempt is out.
    pub host: Option<&'a str>,
    /// The proxy that it is there by.
    pub proxy: Option<ProxyId>,
    /// Why it is held, or how a site failed it last.
    pub reason: Option<&'a str>,
    /// What it runs, but for its row.
    pub program: &'a Arc<Program>,
    /// Its row.
    pub row: Row,
    /// Its event log.
    pub log: Option<&'a Template>,
    /// What the matcher goes by, and its own attributes.
    pub terms: &'a Arc<Terms>,
    /// Its group within the cluster: the jobs of one have program and terms in common.
    pub group: usize,
    /// Its cluster's name.
    pub batch: &'a str,
    /// How many jobs its cluster has.
    pub of: u32,
    /// Did it complete without success?
    pub failed: bool,
    /// Why it is held, in HTCondor's numbers: code and subcode.
    pub code: (u16, i32),
    /// What was before its last attempt.
    pub past: Past,
    /// The job that it is once more.
    pub retry_of: Option<JobId>,
    /// The job that it was submitted as once more.
    pub retried_as: Option<JobId>,
    /// What tells when it may start, if not at any time, and the time that the pool goes by.
    pub timing: Option<(&'a Arc<dyn Timing>, Time)>,
    /// Is it idle, and waits for that?
    pub later: bool,
    /// Has it ended, and is in the queue still if its `LeaveJobInQueue` says so?
    pub stays: bool,
}

impl JobView<'_> {
    /// When it starts, or was to start, if not at any time.
    pub fn starts_at(&self) -> Option<Time> {
        let (timing, now) = self.timing?;
        // What is idle waits for the next time that isn't over.
        let now = if self.state == JobState::Idle { now } else { Time::default() };
        Some(timing.when(self, now).ok().filter(|when| *when != When::ANY)?.starts)
    }

    /// Attempts that are known to have run, the one that runs or counts among them.
    pub fn starts(&self) -> u32 {
        // One that is done without being run had none.
        let completed = self.state == JobState::Completed && self.attempts > 0;
        let last = completed || matches!(self.state, JobState::Running | JobState::Transferring);
        self.past.starts + u32::from(last)
    }

    /// How often it ended by itself.
    pub fn completions(&self) -> u32 {
        self.past.completions + u32::from(self.end.is_some())
    }

    /// How long its attempts ran that have ended.
    pub fn wall_ms(&self) -> u64 {
        self.past.wall_ms + if self.end.is_some() { self.usage.wall_ms } else { 0 }
    }
}

/// A cluster, as it is now.
#[derive(Clone, Debug)]
pub struct ClusterView<'a> {
    /// Its number.
    pub cluster: u32,
    /// Its name.
    pub name: &'a str,
    /// Submitted.
    pub submitted: Time,
    /// Its jobs.
    pub counts: Counts,
}

/// A starter, as it is now.
#[derive(Clone, Debug)]
pub struct StarterView<'a> {
    /// Its key.
    pub key: StarterKey,
    /// What it offers.
    pub offer: &'a Offer,
    /// Does it answer?
    pub connected: bool,
    /// When it last connected, fell silent, gave work back unasked, or became busy or idle.
    pub since: Time,
    /// The end of its walltime.
    pub deadline: Option<Time>,
    /// CPUs of what runs.
    pub busy_cpus: u32,
    /// What runs.
    pub running: u32,
    /// What waits there.
    pub queued: u32,
    /// Does its node get no work for a while? See [`Pool::excluded_nodes`].
    pub excluded: bool,
    /// What it completed.
    pub completed: u64,
}

impl Pool {
    /// A job.
    pub fn view(&self, id: JobId) -> Option<JobView<'_>> {
        let cluster = self.clusters.get(&id.cluster)?;
        let job = cluster.jobs.get(id.proc as usize)?;
        let place = cluster.group_of(id.proc)?;
        let group = &cluster.groups[place];
        let starter = self.live.get(&id).and_then(|(_, key)| self.starters.get(key));
        let ran = matches!(job.state, JobState::Completed | JobState::Transferring);
        Some(JobView {
            id,
            state: job.state,
            silent: starter.is_some_and(|s| !s.connected),
            end: job.end,
            attempts: job.attempt,
            submitted: cluster.submitted,
            at: job.at,
            usage: Usage {
                wall_ms: job.wall_ms.into(),
                cpu_ms: job.cpu_ms.into(),
                peak_kib: job.peak_kib.into(),
                system_ms: job.system_ms.into(),
                disk_kib: job.disk_kib.into(),
                sent_bytes: 0,
                received_bytes: 0,
            },
            site: starter.map(|s| s.offer.site).or((ran && job.site != timing::NOWHERE).then_some(SiteId(job.site))),
            host: starter.map(|s| s.offer.host.as_str()),
            proxy: starter.map(|s| s.offer.proxy),
            reason: cluster.reason(id.proc),
            program: &group.body,
            row: group.members.row(id.proc),
            log: group.log.as_ref(),
            terms: &group.terms,
            group: place,
            batch: &cluster.name,
            of: cluster.jobs.len() as u32,
            failed: job.is_failed(),
            code: (job.code, job.subcode),
            past: cluster.pasts.get(&id.proc).copied().unwrap_or_default(),
            retry_of: group.origin.as_ref().and_then(|origin| {
                let proc = *origin.procs.as_slice().get(group.members.index(id.proc)? as usize)?;
                Some(JobId { cluster: origin.cluster, proc })
            }),
            retried_as: self.retried_as(id),
            timing: group.timing.as_ref().map(|timing| (timing, self.now)),
            later: cluster.later.has(id.proc),
            stays: self.stays(id),
        })
    }

    /// Jobs in order of id, from `from` on (the first of all for none).
    pub fn views<'a>(&'a self, select: &'a Select, from: Option<JobId>) -> impl Iterator<Item = JobView<'a>> {
        self.ids(select, from).filter_map(|id| self.view(id))
    }

    /// Those of them that have ended, and might be in the queue still.
    pub fn staying<'a>(&'a self, select: &'a Select) -> impl Iterator<Item = JobView<'a>> {
        let clusters = self.clusters.range(select.span()).filter(|(number, _)| select.touches(**number));
        let clusters = clusters.filter(|(_, cluster)| cluster.groups.iter().any(|group| group.stays));
        let numbers: Vec<u32> = clusters.map(|(number, _)| *number).collect();
        let ids = numbers.into_iter().flat_map(move |number| {
            let first = JobId { cluster: number, proc: 0 };
            self.ids(select, Some(first)).take_while(move |id| id.cluster == number)
        });
        ids.filter(|id| self.stays(*id)).filter_map(|id| self.view(id))
    }

    /// Their numbers alone.
    pub fn ids<'a>(&'a self, select: &'a Select, from: Option<JobId>) -> impl Iterator<Item = JobId> + 'a {
        let from = from.unwrap_or(JobId { cluster: 0, proc: 0 });
        let span = select.span();
        let clusters = self.clusters.range(from.cluster.max(*span.start())..);
        let clusters = clusters.take_while(move |(number, _)| *number <= span.end());
        let clusters = clusters.filter(|(number, _)| select.touches(**number));
        clusters.flat_map(move |(number, cluster)| {
            let first = if *number == from.cluster { from.proc } else { 0 };
            let count = cluster.jobs.len() as u32;
            let all = if select.covers(*number) { first..count } else { 0..0 };
            let all = all.map(|proc| JobId { cluster: *number, proc });
            let some = select.within(*number, first).filter(move |id| id.proc < count && !select.covers(*number));
            all.chain(some)
        })
    }

    /// A job's group within its cluster; see [`JobView::group`].
    pub fn place_of(&self, id: JobId) -> Option<usize> {
        self.clusters.get(&id.cluster)?.group_of(id.proc)
    }

    /// Clusters of which some job is selected; a cluster selected in part counts only that part.
    pub fn clusters<'a>(&'a self, select: &'a Select) -> impl Iterator<Item = ClusterView<'a>> {
        let some = self.clusters.range(select.span()).filter(|(number, _)| select.touches(**number));
        some.map(move |(number, c)| {
            let counts = if select.covers(*number) {
                c.counts
            } else {
                let jobs = select.within(*number, 0);
                let mut counts = Counts::default();
                jobs.filter_map(|id| c.jobs.get(id.proc as usize)).for_each(|job| counts.add(job));
                counts
            };
            ClusterView { cluster: *number, name: &c.name, submitted: c.submitted, counts }
        })
    }

    /// Does nothing of a cluster wait or run any more?
    pub fn is_at_rest(&self, cluster: u32) -> bool {
        self.clusters.get(&cluster).is_none_or(|cluster| cluster.counts.idle + cluster.counts.running == 0)
    }

    /// How many jobs a cluster has.
    pub fn jobs_of(&self, cluster: u32) -> u32 {
        self.clusters.get(&cluster).map_or(0, |cluster| cluster.jobs.len() as u32)
    }

    /// Clusters that were submitted with a tag.
    pub fn tags(&self) -> impl Iterator<Item = (u32, &str)> {
        self.clusters.iter().filter_map(|(number, cluster)| Some((*number, cluster.groups.first()?.tag.as_deref()?)))
    }

    /// What a cluster was submitted with: its tag, and the name of its batch, if the user gave one.
    pub fn submitted_with(&self, cluster: u32) -> (Option<&str>, Option<&str>) {
        let cluster = self.clusters.get(&cluster);
        let first = cluster.and_then(|cluster| cluster.groups.first());
        let name = first.and_then(|group| group.log_terms.batch_name.as_ref()).and(cluster);
        (first.and_then(|group| group.tag.as_deref()), name.map(|cluster| cluster.name.as_str()))
    }

    /// How many jobs of each state are selected.
    pub fn counts(&self, select: &Select) -> Counts {
        let mut sum = Counts::default();
        self.clusters(select).for_each(|cluster| sum.merge(&cluster.counts));
        sum
    }

    /// Does every named cluster and job exist? Else the first that doesn't, as printed.
    pub fn missing(&self, select: &Select) -> Option<String> {
        let cluster = select.clusters.iter().find(|number| !self.clusters.contains_key(number));
        cluster
            .map(ToString::to_string)
            .or_else(|| select.jobs.iter().find(|job| self.job(**job).is_none()).map(ToString::to_string))
    }

    pub(super) fn unfinished(&self, select: &Select) -> Vec<JobId> {
        let ids = self.ids(select, None);
        ids.filter(|id| self.job(*id).is_some_and(|job| !job.is_over())).collect()
    }

    /// The starters, by key.
    pub fn starters(&self) -> impl Iterator<Item = StarterView<'_>> {
        self.starters.iter().map(|(key, s)| Self::starter_view(*key, s))
    }

    /// A starter.
    pub fn starter(&self, key: StarterKey) -> Option<StarterView<'_>> {
        self.starters.get(&key).map(|s| Self::starter_view(key, s))
    }

    fn starter_view(key: StarterKey, s: &Starter) -> StarterView<'_> {
        let running = s.held.values().filter(|h| h.phase == Phase::Running);
        let (mut busy_cpus, mut count) = (0, 0);
        running.for_each(|held| {
            busy_cpus += held.cpus;
            count += 1;
        });
        StarterView {
            key,
            offer: &s.offer,
            connected: s.connected,
            since: s.since,
            deadline: s.deadline,
            busy_cpus,
            running: count,
            queued: s.queued,
            excluded: s.excluded,
            completed: s.completed,
        }
    }

    /// Jobs that completed at a site.
    pub fn completed_at(&self, site: SiteId) -> u64 {
        self.done_by_site.get(&site.0).copied().unwrap_or(0)
    }
}
