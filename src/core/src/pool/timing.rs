//! Jobs that may start at a time of their own: until then the matcher doesn't see them, and when it is over they are held. So it is with those
//! that are done without being run.
//!
//! When that is follows from what was submitted and what has become of the job, so that no record tells it. Where the jobs of a group that
//! nothing has become of yet have one time, they wait as one.

use super::*;

/// When a job may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// From then on it may take a slot.
    pub opens: Time,
    /// When its program starts.
    pub starts: Time,
    /// The last moment for that.
    pub closes: Time,
}

impl When {
    /// At any time.
    pub const ANY: When = When { opens: Time(0), starts: Time(0), closes: Time(u64::MAX) };
}

/// What becomes of an idle job that is never to start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instead {
    /// It is held.
    Held(Hold),
    /// It has done, without being run.
    Done(End),
}

/// Tells when jobs may start.
pub trait Timing: core::fmt::Debug + Send + Sync {
    /// What decides on that.
    fn asks(&self, job: &JobView<'_>) -> Asks;

    /// When an idle job may start, the next time that isn't over now if there are several; or what becomes of it instead. The same whenever it
    /// is asked, but for that.
    fn when(&self, job: &JobView<'_>, now: Time) -> Result<When, Instead>;
}

/// Where jobs end that are not run.
pub(super) const NOWHERE: u16 = u16::MAX;

/// HTCondor's number and words for a job that is too late.
const MISSED: u16 = 20;

pub(super) fn missed() -> Hold {
    Hold { why: "Job missed deferred execution time".to_owned(), code: MISSED, subcode: 0 }
}

/// Who waits for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    /// The jobs of a group that nothing has become of.
    Group(u32, usize),
    Job(JobId),
}

/// The times that jobs wait for. What is here of a job that has gone on is passed over.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// Who may take a slot when.
    opening: BTreeSet<(Time, Waiter)>,
    /// Who may, and until when.
    closing: BTreeSet<(Time, Waiter)>,
    /// Whose program starts when, of those that have a slot.
    starting: BTreeSet<(Time, AttemptId, StarterKey)>,
}

impl Times {
    pub(super) fn deadline(&self) -> Option<Time> {
        let opening = self.opening.first().map(|(at, _)| *at);
        let closing = self.closing.first().map(|(at, _)| *at + Duration::from_millis(1));
        let starting = self.starting.first().map(|(at, ..)| *at);
        [opening, closing, starting].into_iter().flatten().min()
    }

    fn due(&mut self, now: Time) -> Option<Waiter> {
        let is_due =
            |first: Option<&(Time, Waiter)>, due: fn(Time, Time) -> bool| first.is_some_and(|(at, _)| due(*at, now));
        if is_due(self.opening.first(), |at, now| at <= now) {
            return self.opening.pop_first().map(|(_, waiter)| waiter);
        }
        if is_due(self.closing.first(), |at, now| at < now) {
            return self.closing.pop_first().map(|(_, waiter)| waiter);
        }
        None
    }
}

/// Some of the jobs of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(Vec<u64>);

impl Marks {
    /// Those in it.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.0.len() as u32 * 64).filter(|proc| self.has(*proc))
    }

    pub(super) fn has(&self, proc: u32) -> bool {
        self.0.get(proc as usize / 64).is_some_and(|word| word >> (proc % 64) & 1 == 1)
    }

    /// Does that change anything?
    pub(super) fn set(&mut self, proc: u32, waits: bool) -> bool {
        if self.has(proc) == waits {
            return false;
        }
        let place = proc as usize / 64;
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        self.0[place] ^= 1 << (proc % 64);
        true
    }
}

impl Job {
    /// Has nothing become of it yet?
    fn is_untouched(&self) -> bool {
        self.attempt == 0 && self.at == Time::default()
    }
}

impl Pool {
    /// When a job may start; none if at any time.
    pub(super) fn when(&self, id: JobId, now: Time) -> Option<Result<When, Instead>> {
        let timing = self.group(id)?.timing.as_ref()?;
        Some(timing.when(&self.view(id)?, now))
    }

    /// An attempt has its slot: the event log hears of it when its program starts.
    pub(super) fn note_start(&mut self, now: Time, id: AttemptId, key: StarterKey) {
        let timed = self.group(id.job).is_some_and(|group| group.timing.is_some());
        match timed.then(|| self.view(id.job)?.starts_at()).flatten().filter(|at| *at > now) {
            Some(at) => drop(self.times.starting.insert((at, id, key))),
            None => self.note_executing(now, id, key),
        }
    }

    /// Tells of the programs whose time to start has come.
    pub(super) fn note_starts(&mut self, now: Time) {
        while self.times.starting.first().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, id, key)) = self.times.starting.pop_first()
        {
            self.note_executing(now, id, key);
        }
    }

    /// An attempt has ended, whose program may have started before our clock says so.
    pub(super) fn note_early(&mut self, now: Time, id: AttemptId, key: StarterKey) {
        if let Some(at) = self.view(id.job).filter(|_| !self.times.starting.is_empty()).and_then(|job| job.starts_at())
            && self.times.starting.remove(&(at, id, key))
        {
            self.note_executing(now, id, key);
        }
    }

    fn note_executing(&mut self, now: Time, id: AttemptId, key: StarterKey) {
        let running = self.is_current(id, key) && self.job(id.job).is_some_and(|job| job.state == JobState::Running);
        let Some(starter) = self.starters.get(&key).filter(|_| running) else { return };
        let (proxy, host) = (starter.offer.proxy, starter.offer.host.clone());
        let note = self.note(now, id.job, || Note::Executing { proxy, host });
        note.into_iter().for_each(|note| self.act(note));
    }

    /// Does an idle job wait for its time?
    pub(super) fn is_later(&self, id: JobId) -> bool {
        self.clusters.get(&id.cluster).is_some_and(|cluster| cluster.later.has(id.proc))
    }

    pub(super) fn set_later(&mut self, id: JobId, waits: bool) {
        if let Some(cluster) = self.clusters.get_mut(&id.cluster)
            && cluster.later.set(id.proc, waits)
        {
            let later = &mut cluster.counts.later;
            *later = if waits { *later + 1 } else { *later - 1 };
        }
    }

    pub(super) fn is_timed(&self, number: u32, index: usize) -> bool {
        let group = self.clusters.get(&number).and_then(|cluster| cluster.groups.get(index));
        group.is_some_and(|group| group.timing.is_some())
    }

    /// An idle job waits for its time; when that is over, or there is none, for its hold.
    pub(super) fn defer(&mut self, id: JobId, now: Time) {
        let Some(when) = self.when(id, now) else { return };
        if let Some(cluster) = self.clusters.get_mut(&id.cluster)
            && let Some(index) = cluster.group_of(id.proc)
        {
            cluster.groups[index].again.remove(&id.proc);
        }
        self.set_later(id, true);
        self.times.opening.insert((when.map_or(Time::default(), |when| when.opens), Waiter::Job(id)));
    }

    /// The idle jobs of a group wait for their times.
    pub(super) fn defer_group(&mut self, number: u32, index: usize) {
        let Some(cluster) = self.clusters.get_mut(&number) else { return };
        let idle: Vec<u32> =
            cluster.jobs_of(index).filter(|(_, job)| job.state == JobState::Idle).map(|(proc, _)| proc).collect();
        let job = |proc: u32| JobId { cluster: number, proc };
        let asks = |id: JobId| Some(self.group(id)?.timing.as_ref()?.asks(&self.view(id)?));
        let common = idle.first().and_then(|proc| asks(job(*proc))).is_some_and(|asks| asks != Asks::Itself);
        let alike = |proc: &u32| common && self.job(job(*proc)).is_some_and(Job::is_untouched);
        let (alike, single): (Vec<u32>, Vec<u32>) = idle.into_iter().partition(alike);
        if let Some(Ok(when)) = alike.first().and_then(|proc| self.when(job(*proc), Time::default())) {
            self.times.opening.insert((when.opens, Waiter::Group(number, index)));
        } else if !alike.is_empty() {
            self.times.opening.insert((Time::default(), Waiter::Group(number, index)));
        }
        self.mark_later(number, index, &alike);
        for proc in single {
            if !self.dying.contains_key(&job(proc)) {
                self.defer(job(proc), Time::default());
            }
        }
    }

    /// Idle jobs of a group are not to be matched yet.
    fn mark_later(&mut self, number: u32, index: usize, procs: &[u32]) {
        let Some(cluster) = self.clusters.get_mut(&number) else { return };
        for proc in procs {
            cluster.counts.later += u32::from(cluster.later.set(*proc, true));
            if let Some(group) = cluster.groups.get_mut(index).filter(|group| !group.again.is_empty()) {
                group.again.remove(proc);
            }
        }
    }

    /// The time of these jobs of a group has come.
    fn open_all(&mut self, ids: &[JobId]) {
        let Some(first) = ids.first() else { return };
        let Some(cluster) = self.clusters.get_mut(&first.cluster) else { return };
        let Some(index) = cluster.group_of(first.proc) else { return };
        let mut any = false;
        for JobId { proc, .. } in ids {
            if cluster.later.set(*proc, false) {
                cluster.counts.later -= 1;
                any = true;
                let group = &mut cluster.groups[index];
                if group.members.index(*proc).is_none_or(|at| at < group.fresh) {
                    group.again.insert(*proc);
                }
            }
        }
        if any {
            self.open(first.cluster, index);
        }
    }

    /// Those whose time has come are matched, and those whose time is over are held.
    pub(super) fn keep_times(&mut self, now: Time) {
        let mut never: BTreeMap<Instead, Vec<JobId>> = BTreeMap::new();
        while let Some(waiter) = self.times.due(now) {
            let ids: Vec<JobId> = match waiter {
                Waiter::Job(id) => vec![id],
                Waiter::Group(number, index) => {
                    let jobs = self.clusters.get(&number).into_iter().flat_map(|cluster| cluster.jobs_of(index));
                    jobs.filter(|(_, job)| job.is_untouched())
                        .map(|(proc, _)| JobId { cluster: number, proc })
                        .collect()
                }
            };
            let waits = |id: &JobId| {
                let idle = self.job(*id).is_some_and(|job| job.state == JobState::Idle);
                idle && !self.dying.contains_key(id)
            };
            let ids: Vec<JobId> = ids.into_iter().filter(waits).collect();
            // The jobs of a waiter are alike.
            match ids.first().and_then(|id| self.when(*id, now)) {
                None => {}
                Some(Err(instead)) => never.entry(instead).or_default().extend(ids),
                Some(Ok(when)) if when.closes < now => never.entry(Instead::Held(missed())).or_default().extend(ids),
                Some(Ok(when)) if when.opens > now => match waiter {
                    Waiter::Job(id) => self.defer(id, now),
                    Waiter::Group(number, index) => {
                        let procs: Vec<u32> = ids.into_iter().map(|id| id.proc).collect();
                        self.mark_later(number, index, &procs);
                        self.times.opening.insert((when.opens, waiter));
                    }
                },
                Some(Ok(when)) => {
                    if when.closes != When::ANY.closes {
                        self.times.closing.insert((when.closes, waiter));
                    }
                    self.open_all(&ids);
                }
            }
        }
        for (instead, jobs) in never {
            match instead {
                Instead::Held(hold) => {
                    let decision = Decision::Hold(hold);
                    self.take_away(&jobs, change::holding, |ranges| Record::Judged { at: now, ranges, decision });
                }
                Instead::Done(end) => {
                    let ended = |job: &JobId| {
                        let id = AttemptId { job: *job, attempt: 0 };
                        Ended { id, site: NOWHERE, end, usage: Usage::default(), then: None }
                    };
                    for jobs in jobs.chunks(ASSIGN_BATCH) {
                        self.write(Record::Ended { at: now, ends: jobs.iter().map(ended).collect() });
                    }
                }
            }
        }
    }
}
