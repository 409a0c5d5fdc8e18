//! What the policies of jobs make of them: when they end, and from time to time.

use super::*;

/// Between two looks at jobs whose policies say what becomes of them, unless the driver says otherwise.
const INTERVAL: Duration = Duration::from_secs(60);

/// HTCondor's numbers for why a job is held.
pub(super) const USER_REQUEST: u16 = 1;
pub(super) const JOB_POLICY: u16 = 3;
pub(super) const UNRUNNABLE: u16 = 6;
pub(super) const OUTPUT_FAILED: u16 = 12;
pub(super) const INPUT_FAILED: u16 = 13;
pub(super) const SUBMITTED_ON_HOLD: u16 = 15;
pub(super) const SITES_FAILED: u16 = 21;
pub(super) const INPUT_TOO_LARGE: u16 = 32;
pub(super) const OUTPUT_TOO_LARGE: u16 = 33;
const OUT_OF_RESOURCES: u16 = 34;
/// Of the last, memory.
const OF_MEMORY: i32 = 102;

/// Why a job is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Hold {
    /// In words.
    #[n(0)]
    pub why: String,
    /// In HTCondor's numbers.
    #[n(1)]
    pub code: u16,
    /// What its policy adds to that.
    #[n(2)]
    pub subcode: i32,
}

impl Hold {
    /// Did the user want it, by a word or a policy?
    pub fn is_meant(&self) -> bool {
        [USER_REQUEST, JOB_POLICY, SUBMITTED_ON_HOLD].contains(&self.code)
    }
}

/// What a policy makes of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Decision {
    /// It is held.
    #[n(0)]
    Hold(#[n(0)] Hold),
    /// It is held no more; why.
    #[n(1)]
    Release(#[n(0)] String),
    /// It is removed; why.
    #[n(2)]
    Remove(#[n(0)] String),
    /// Its attempt is given up, and it waits again; why.
    #[n(3)]
    Vacate(#[n(0)] String),
    /// It has ended, and runs again; why.
    #[n(4)]
    Again(#[n(0)] String),
}

/// What a policy goes by, of jobs in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asks {
    /// Their state alone: one answer is true of them all.
    State,
    /// What has become of them: one answer is true of all that fared alike.
    Fate,
    /// Themselves: each is asked about.
    Itself,
}

/// Decides what becomes of jobs.
pub trait Policy: core::fmt::Debug + Send + Sync {
    /// What becomes of a job that has ended by itself, which its view says though it is not recorded; none if it has done.
    fn ended(&self, job: &JobView<'_>, now: Time) -> Option<Decision>;

    /// Does anything but their end change such jobs?
    fn is_periodic(&self) -> bool;

    /// What decides about jobs in the state of this one; none if nothing becomes of any.
    fn asks(&self, job: &JobView<'_>, now: Time) -> Option<Asks>;

    /// What becomes of a job now.
    fn now(&self, job: &JobView<'_>, now: Time) -> Option<Decision>;
}

/// When jobs are looked at.
#[derive(Clone, Debug)]
pub(super) struct Policing {
    interval: Duration,
    /// Groups with policies to ask.
    groups: BTreeSet<(u32, usize)>,
    due: Option<Time>,
    /// Attempts that are killed so that their jobs wait again, and why.
    vacating: BTreeMap<AttemptId, String>,
}

impl Default for Policing {
    fn default() -> Self {
        Policing { interval: INTERVAL, groups: BTreeSet::new(), due: None, vacating: BTreeMap::new() }
    }
}

impl Policing {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.due.filter(|_| !self.groups.is_empty())
    }
}

impl Pool {
    /// How often jobs are looked at whose policies say what becomes of them.
    pub fn set_policy_interval(&mut self, interval: Duration) {
        self.policing.interval = interval.max(Duration::from_millis(1));
    }

    /// A group may have a policy to ask.
    pub(super) fn watch(&mut self, number: u32, index: usize) {
        let group = self.clusters.get(&number).and_then(|cluster| cluster.groups.get(index));
        if group.is_some_and(|group| group.policy.as_ref().is_some_and(|policy| policy.is_periodic())) {
            self.policing.groups.insert((number, index));
        }
    }

    /// What its policy makes of a job's end.
    pub(super) fn judge_end(&self, now: Time, ended: &Ended) -> Option<Decision> {
        let policy = self.group(ended.id.job)?.policy.as_ref()?;
        let view = self.view(ended.id.job)?;
        let (state, end) = (JobState::Running, Some(ended.end));
        policy.ended(&JobView { state, end, usage: ended.usage, site: Some(SiteId(ended.site)), ..view }, now)
    }

    /// Must it be known since when a job's attempt runs, even after a crash?
    pub(super) fn asks_since_when(&self, id: JobId) -> bool {
        let asks = |group: &Group| {
            !group.terms.requests.is_empty() || group.policy.as_ref().is_some_and(|policy| policy.is_periodic())
        };
        self.job(id).is_some_and(|job| !job.started) && self.group(id).is_some_and(asks)
    }

    /// Did a result of this attempt count already, or of a later one, after which the job went on?
    pub(super) fn is_settled(&self, id: AttemptId) -> bool {
        let past = self.clusters.get(&id.job.cluster).and_then(|cluster| cluster.pasts.get(&id.job.proc));
        past.is_some_and(|past| past.settled > 0 && id.attempt <= past.settled)
    }

    pub(super) fn past(&mut self, id: JobId) -> Option<&mut Past> {
        Some(self.clusters.get_mut(&id.cluster)?.pasts.entry(id.proc).or_default())
    }

    /// The attempt that is out comes to nothing, having run since then, if at all.
    pub(super) fn give_up(&mut self, at: Time, id: JobId, ran: Option<Time>) {
        let recorded = self.job(id).filter(|job| job.started).map(|job| job.at);
        if let Some(since) = recorded.or(ran)
            && let Some(past) = self.past(id)
        {
            past.starts += 1;
            past.wall_ms += u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        }
        self.change(id, |job| job.started = false);
    }

    pub(super) fn apply_started(&mut self, at: Time, id: AttemptId) {
        if self.live.get(&id.job).is_some_and(|(attempt, _)| *attempt == id.attempt) {
            self.change(id.job, |job| {
                job.started = true;
                job.at = at;
            });
        }
    }

    pub(super) fn apply_judged(&mut self, at: Time, id: JobId, decision: &Decision) {
        match decision {
            Decision::Hold(hold) => self.apply_held(at, id, hold),
            Decision::Release(_) => self.apply_released(at, id),
            Decision::Remove(why) if self.job(id).is_some_and(|job| !job.is_over()) => {
                self.apply_removed(at, id);
                self.change(id, |job| job.code = JOB_POLICY);
                self.reason(id, why);
            }
            Decision::Remove(_) | Decision::Again(_) => {}
            Decision::Vacate(_) => {
                if let Some((attempt, key)) = self.live.get(&id).copied() {
                    let attempt = AttemptId { job: id, attempt };
                    self.give_up(at, id, None);
                    self.forget(key, attempt);
                    self.requeue(attempt);
                    self.change(id, |job| job.at = at);
                }
            }
        }
    }

    /// An attempt was killed: was that for its job to wait again?
    pub(super) fn vacate_done(&mut self, now: Time, id: AttemptId) -> bool {
        let Some(why) = self.policing.vacating.remove(&id) else { return false };
        let ranges = change::ranges(&[id.job]);
        self.remember(now, &[id.job]);
        self.write(Record::Judged { at: now, ranges, decision: Decision::Vacate(why) });
        self.ask_anew(now, &[id.job]);
        true
    }

    /// The kernel killed a job's attempt for want of memory: it is held, unless its policy has it ask for more and wait again.
    pub(super) fn out_of_memory(&mut self, now: Time, id: JobId, why: &str) {
        let running = |view| JobView { state: JobState::Running, ..view };
        let policy = self.group(id).and_then(|group| group.policy.as_ref());
        let decision = policy.and_then(|policy| policy.now(&self.view(id).map(running)?, now));
        let why = why.to_string();
        let decision = match decision {
            Some(Decision::Vacate(_)) => Decision::Vacate(why),
            _ => Decision::Hold(Hold { why, code: OUT_OF_RESOURCES, subcode: OF_MEMORY }),
        };
        self.remember(now, &[id]);
        self.write(Record::Judged { at: now, ranges: change::ranges(&[id]), decision });
        self.ask_anew(now, &[id]);
    }

    /// Asks the policies of all jobs, if it is time to.
    pub(super) fn police(&mut self, now: Time) {
        if self.policing.groups.is_empty() {
            return self.policing.due = None;
        }
        let due = *self.policing.due.get_or_insert(now + self.policing.interval);
        if now < due {
            return;
        }
        self.policing.due = Some(now + self.policing.interval);
        let live = &self.live;
        self.policing.vacating.retain(|id, _| live.get(&id.job).is_some_and(|(attempt, _)| *attempt == id.attempt));
        for (number, index) in self.policing.groups.clone() {
            let open = self.clusters.get(&number).is_some_and(|cluster| cluster.counts.unfinished() > 0);
            if !open {
                self.policing.groups.remove(&(number, index));
                continue;
            }
            let mut decisions: BTreeMap<Decision, Vec<JobId>> = BTreeMap::new();
            for (id, decision) in self.judge_group(now, number, index) {
                decisions.entry(decision).or_default().push(id);
            }
            decisions.into_iter().for_each(|(decision, jobs)| self.carry_out(now, decision, jobs));
        }
    }

    /// What the policy of a group makes of its jobs now. What is true of many is asked once.
    fn judge_group(&self, now: Time, number: u32, index: usize) -> Vec<(JobId, Decision)> {
        let cluster = self.clusters.get(&number);
        let group = cluster.and_then(|cluster| cluster.groups.get(index));
        let (Some(cluster), Some(group)) = (cluster, group) else { return Vec::new() };
        let Some(policy) = &group.policy else { return Vec::new() };
        let mut asked: BTreeMap<JobState, Option<Asks>> = BTreeMap::new();
        let mut answers: BTreeMap<Fate, Option<Decision>> = BTreeMap::new();
        let mut last: Option<(Fate, Option<Decision>)> = None;
        let mut found = Vec::new();
        // A job whose outputs are coming has ended.
        let open = |job: &Job| !job.is_over() && job.state != JobState::Transferring;
        for (proc, job) in cluster.jobs_of(index).filter(|(_, job)| open(job)) {
            let id = JobId { cluster: number, proc };
            let view = || self.view(id);
            let asks = *asked.entry(job.state).or_insert_with(|| view().and_then(|view| policy.asks(&view, now)));
            let decision = match asks {
                None => continue,
                Some(Asks::Itself) => view().and_then(|view| policy.now(&view, now)),
                Some(asks) => {
                    let fate = fate(asks, job, cluster.pasts.get(&proc));
                    match &last {
                        Some((before, same)) if *before == fate => same.clone(),
                        _ => {
                            let ask = || view().and_then(|view| policy.now(&view, now));
                            let decision = answers.entry(fate).or_insert_with(ask).clone();
                            last = Some((fate, decision.clone()));
                            decision
                        }
                    }
                }
            };
            found.extend(decision.map(|decision| (id, decision)));
        }
        found
    }

    fn carry_out(&mut self, now: Time, decision: Decision, mut jobs: Vec<JobId>) {
        let Decision::Vacate(why) = decision else {
            let how = if matches!(decision, Decision::Remove(_)) { change::removing } else { change::holding };
            return self.take_away(&jobs, how, |ranges| Record::Judged { at: now, ranges, decision });
        };
        jobs.retain(|job| self.job(*job).is_some_and(|job| job.state == JobState::Running));
        self.vacate(&jobs, &why, false);
    }

    /// Kills running jobs, which wait again when they are known to be dead.
    pub(super) fn vacate(&mut self, jobs: &[JobId], why: &str, fast: bool) {
        let live = &self.live;
        self.policing.vacating.retain(|id, _| live.get(&id.job).is_some_and(|(attempt, _)| *attempt == id.attempt));
        // What comes to nothing is counted, if it is known to have run.
        let mut begun: BTreeMap<Time, Vec<AttemptId>> = BTreeMap::new();
        for id in jobs {
            if let (Some(job), Some((attempt, _))) = (self.job(*id).filter(|job| !job.started), self.live.get(id)) {
                begun.entry(job.at).or_default().push(AttemptId { job: *id, attempt: *attempt });
            }
        }
        begun.into_iter().for_each(|(at, ids)| self.write(Record::Started { at, ids }));
        for ((key, grace, signal), ids) in self.kills(jobs, |killing| (killing.signal, killing.vacate_s)) {
            self.policing.vacating.extend(ids.iter().map(|id| (*id, why.to_owned())));
            let (grace, signal) = if fast { (Duration::ZERO, 0) } else { (grace, signal) };
            self.kill(key, ids, grace, signal);
        }
    }
}

/// What has become of a job: jobs with the same are judged alike.
type Fate = (JobState, Option<(Time, [u32; 6], (u16, i32), Past)>);

fn fate(asks: Asks, job: &Job, past: Option<&Past>) -> Fate {
    let fared = || {
        let numbers = [job.attempt, job.wall_ms, job.cpu_ms, job.peak_kib, job.system_ms, job.disk_kib];
        (job.at, numbers, (job.code, job.subcode), past.copied().unwrap_or_default())
    };
    (job.state, (asks == Asks::Fate).then(fared))
}
