//! Why a job is as it is: its past, from the records that made its state, and what it waits for, from the state itself.

use super::*;
use crate::time::span;

/// Steps that are told of one job, the last ones: one that comes and goes for days must not fill memory.
const STEPS: usize = 500;

/// Jobs in the summary of a cluster that share a reason are counted; so many different reasons, or groups, are told.
const REASONS: usize = 10;

/// What is to be known of a site, to speak of it. A [`SiteId`] is its place in a list of these.
#[derive(Clone, Debug, Default)]
pub struct SiteFacts {
    /// Its name.
    pub name: String,
    /// Do we have its agent?
    pub linked: bool,
    /// How long a silent starter there may come back.
    pub lease: Duration,
}

/// A step of a chain of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it was seen or concluded; none if the record doesn't tell.
    pub at: Option<Time>,
    /// By whom.
    pub by: String,
    /// What.
    pub text: String,
}

fn name(sites: &[SiteFacts], site: SiteId) -> &str {
    sites.get(usize::from(site.0)).map_or("a site that is gone", |site| site.name.as_str())
}

#[derive(Clone, Debug)]
struct Place {
    site: SiteId,
    proxy: ProxyId,
    host: String,
}

impl Place {
    fn of(offer: &Offer) -> Self {
        Place { site: offer.site, proxy: offer.proxy, host: offer.host.clone() }
    }

    fn text(&self, sites: &[SiteFacts]) -> String {
        format!("{} (proxy {}/{})", self.host, name(sites, self.site), self.proxy)
    }
}

/// The records of a job, folded into steps.
#[derive(Clone, Debug)]
pub struct Trail {
    job: JobId,
    sites: Vec<SiteFacts>,
    /// Starters that may still be given work.
    places: BTreeMap<StarterKey, Place>,
    /// The attempt that is out.
    out: Option<(u32, StarterKey)>,
    /// The starter of the last step, which concluded that its attempt was lost: the record of that follows.
    lost: Option<StarterKey>,
    steps: VecDeque<Step>,
    dropped: u64,
}

impl Trail {
    /// Of a job, in a journal whose beginning may be lost: `pool` is what it led to.
    pub fn new(job: JobId, sites: Vec<SiteFacts>, pool: &Pool) -> Self {
        let places = pool.starters.iter().map(|(key, starter)| (*key, Place::of(&starter.offer)));
        Trail { job, sites, places: places.collect(), out: None, lost: None, steps: VecDeque::new(), dropped: 0 }
    }

    /// The steps, and how many more there were before the first of them.
    pub fn steps(self) -> (Vec<Step>, u64) {
        (self.steps.into(), self.dropped)
    }

    fn step(&mut self, at: Option<Time>, by: impl Into<String>, text: impl Into<String>) {
        self.lost = None;
        if self.steps.len() >= STEPS {
            self.steps.pop_front();
            self.dropped += 1;
        }
        self.steps.push_back(Step { at, by: by.into(), text: text.into() });
    }

    fn place(&self, key: StarterKey) -> String {
        self.places.get(&key).map_or_else(|| format!("starter {key}"), |place| place.text(&self.sites))
    }

    fn agent(&self, key: StarterKey) -> String {
        self.places
            .get(&key)
            .map_or_else(|| "agent".to_owned(), |place| format!("agent of {}", name(&self.sites, place.site)))
    }

    fn starter(&self, key: Option<StarterKey>) -> String {
        let host = key.and_then(|key| self.places.get(&key)).map(|place| place.host.as_str());
        host.map_or_else(|| "starter".to_owned(), |host| format!("starter on {host}"))
    }

    /// The attempt of a list that is this job's.
    fn ours(&self, ids: &[AttemptId]) -> Option<u32> {
        ids.iter().find(|id| id.job == self.job).map(|id| id.attempt)
    }

    /// Takes the next record in.
    pub fn see(&mut self, record: &Record) {
        match record {
            Record::Submitted { cluster, at, name, groups } if *cluster == self.job.cluster => {
                let jobs: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
                self.step(Some(*at), "you", format!("submitted cluster {cluster} ({name}) of {jobs} job(s)"));
                if let Some(old) = Origin::before(groups, self.job.proc) {
                    self.step(Some(*at), "you", format!("retried job {old} as this one"));
                }
            }
            Record::Submitted { cluster, at, groups, .. } => {
                if let Some(proc) = Origin::after(groups, self.job) {
                    let new = JobId { cluster: *cluster, proc };
                    self.step(Some(*at), "you", format!("retried it as job {new}"));
                }
            }
            Record::StarterJoined { key, offer, .. } => {
                self.places.insert(*key, Place::of(offer));
            }
            Record::StarterGone { key, at, why } => {
                let why = why.as_deref().unwrap_or("the record doesn't tell why");
                if self.lost.take_if(|lost| lost == key).is_some() {
                    let seen = format!("the starter on {} has ended: {why}", self.place(*key));
                    let step = Step { at: *at, by: self.agent(*key), text: seen };
                    self.steps.insert(self.steps.len().saturating_sub(1), step);
                }
                self.places.remove(key);
            }
            Record::Dispatched { key, ids, at } => {
                if let Some(attempt) = self.ours(ids) {
                    self.out = Some((attempt, *key));
                    self.step(*at, "master", format!("attempt {attempt} sent to {}", self.place(*key)));
                }
            }
            Record::Returned { key, ids, at, why } => {
                if let Some(attempt) = self.ours(ids) {
                    let why = match why {
                        Some(Return::Recalled) => "asked back for an idle starter or a higher priority",
                        Some(Return::Excluded) => "taken back: many jobs failed in a row at its node",
                        Some(Return::Closing) => "given back by its starter, which is about to end",
                        Some(Return::Lost) => "never arrived: its starter's inventory doesn't have it",
                        Some(Return::Gone) => "had not started there",
                        Some(Return::NeedsFiles) => {
                            "given back: the node doesn't see the job's directory, so it goes again, with its files"
                        }
                        Some(Return::Unsent) => "kept back: its starter was being asked what it holds",
                        None => "came back unstarted",
                    };
                    self.out = None;
                    self.step(*at, "master", format!("attempt {attempt} {why}; the job is idle again"));
                    self.lost = Some(*key);
                }
            }
            Record::Silent { keys, at, why, told } => {
                if let Some((_, key)) = self.out.filter(|(_, key)| keys.contains(key)) {
                    let by = if *told { self.agent(key) } else { "master".to_owned() };
                    self.step(Some(*at), by, format!("the starter is silent: {why}"));
                }
            }
            Record::Answers { key, at } => {
                if self.out.is_some_and(|(_, with)| with == *key) {
                    self.step(Some(*at), self.agent(*key), "the starter answers again");
                }
            }
            Record::SiteFailed { at, id, why, ran, .. } if id.job == self.job => {
                let key = self.out.take().map(|(_, key)| key);
                if let Some(ran) = ran {
                    let step =
                        Step { at: Some(*ran), by: self.starter(key), text: format!("attempt {} runs", id.attempt) };
                    let earlier = self.steps.iter().rposition(|step| step.at.is_none_or(|at| at <= *ran));
                    self.steps.insert(earlier.map_or(0, |last| last + 1), step);
                }
                let text = format!("attempt {} was failed by its site ({why}); the job is idle again", id.attempt);
                self.step(Some(*at), "master", text);
                self.lost = key;
            }
            Record::Held { at, job, why, .. } if *job == self.job => {
                self.out = None;
                self.step(Some(*at), "master", format!("held: {why}"));
            }
            Record::Claimed { key, id, at } if id.job == self.job => {
                let late = format!("attempt {}, which counted as lost, has ended at {}", id.attempt, self.place(*key));
                let other =
                    self.out.map_or_else(String::new, |(other, _)| format!("; attempt {other} is given up for it"));
                self.out = Some((id.attempt, *key));
                self.step(*at, self.starter(Some(*key)), format!("{late}{other}"));
            }
            Record::Ended { at, ends } => {
                if let Some(ended) = ends.iter().find(|ended| ended.id.job == self.job) {
                    if ended.site == timing::NOWHERE {
                        return self.step(Some(*at), "master", "completed without being run: `noop_job` is true");
                    }
                    let how = match ended.end {
                        End::Exited(code) => format!("with exit code {code}"),
                        End::Signaled(signal) => format!("by signal {signal}"),
                    };
                    let ran = span(Duration::from_millis(ended.usage.wall_ms));
                    let key = self.out.take().map(|(_, key)| key);
                    let site = name(&self.sites, SiteId(ended.site)).to_owned();
                    let text = format!("attempt {} ended {how} after {ran}", ended.id.attempt);
                    self.step(Some(*at), self.starter(key), text);
                    let text = match &ended.then {
                        Some(Decision::Hold(hold)) => format!("held: {}", hold.why),
                        Some(Decision::Again(why)) => format!("{why}; the job is idle again"),
                        _ => format!("completed at {site}: its outputs are here, its result is durable"),
                    };
                    self.step(Some(*at), if ended.then.is_some() { "policy" } else { "master" }, text);
                }
            }
            Record::Removed { at, ranges } => {
                if change::within(ranges, self.job) {
                    self.out = None;
                    self.step(Some(*at), "you", "removed");
                }
            }
            Record::HeldByUser { at, ranges, why } if change::within(ranges, self.job) => {
                self.out = None;
                self.step(Some(*at), "you", format!("held: {why}"));
            }
            Record::Released { at, ranges } if change::within(ranges, self.job) => {
                self.step(Some(*at), "you", "released; the job is idle again");
            }
            Record::Edited { at, ranges, edit } if change::within(ranges, self.job) => {
                let (who, what) = if edit.anew { ("policy", "asks anew") } else { ("you", "edited") };
                self.step(Some(*at), who, format!("{what}: {edit}"));
            }
            Record::Judged { at, ranges, decision } if change::within(ranges, self.job) => {
                let text = match decision {
                    Decision::Hold(hold) => format!("held: {}", hold.why),
                    Decision::Release(why) => format!("released: {why}; the job is idle again"),
                    Decision::Remove(why) => format!("removed: {why}"),
                    Decision::Vacate(why) | Decision::Again(why) => format!("vacated: {why}; the job is idle again"),
                };
                self.out = None;
                self.step(Some(*at), "policy", text);
            }
            Record::Dismissed { at, ranges } if change::within(ranges, self.job) => {
                self.step(Some(*at), "you", "removed from the queue, where it stayed after its end");
            }
            Record::Started { at, ids } => {
                if let Some(attempt) = self.ours(ids) {
                    let key = self.out.map(|(_, key)| key);
                    self.step(Some(*at), self.starter(key), format!("attempt {attempt} runs"));
                }
            }
            Record::Judged { .. }
            | Record::SiteFailed { .. }
            | Record::Held { .. }
            | Record::Claimed { .. }
            | Record::HeldByUser { .. }
            | Record::Released { .. }
            | Record::Edited { .. }
            | Record::Dismissed { .. }
            | Record::Measured { .. }
            | Record::NodeExcluded { .. } => {}
        }
    }
}

/// The present of a job, or of a cluster's jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The state, in words.
    pub state: String,
    /// What is seen now and is in no record.
    pub steps: Vec<Step>,
    /// What is waited for.
    pub next: Vec<String>,
    /// Does a job wait for a starter, so that the sites have more to say?
    pub idle: bool,
}

/// What keeps a starter from taking a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hurdle {
    Small,
    Unshared,
    Unwanted(String),
    Silent,
    Asked,
    Ending,
    Excluded,
    Full,
    None,
}

impl Starter {
    fn hurdle(&self, now: Time, group: &Group, class: Option<&queue::Class>) -> Hurdle {
        if let Some(terms) = class.and_then(|class| class.terms.as_ref())
            && let Some(clause) = terms.refusal(&self.offer, self.time_left(now))
        {
            return Hurdle::Unwanted(clause);
        }
        let Some(load) = self.load_of(&group.body) else {
            return Hurdle::Small;
        };
        if self.suits(group.program, &group.body).is_none() {
            return Hurdle::Unshared;
        }
        match () {
            () if !self.connected => Hurdle::Silent,
            () if !self.known => Hurdle::Asked,
            () if self.excluded => Hurdle::Excluded,
            () if !self.takes_work(now) => Hurdle::Ending,
            () if self.load.saturating_add(load) > self.ceiling(true) => Hurdle::Full,
            () => Hurdle::None,
        }
    }
}

impl Pool {
    /// A job's present.
    pub fn explain(&self, now: Time, id: JobId, sites: &[SiteFacts]) -> Option<Present> {
        let cluster = self.clusters.get(&id.cluster)?;
        let job = cluster.jobs.get(id.proc as usize)?;
        let group = cluster.groups.get(cluster.group_of(id.proc)?)?;
        let reason = cluster.reason(id.proc).unwrap_or_default();
        let mut present = Present::default();
        if let Some((attempt, key)) = self.live.get(&id)
            && let Some(starter) = self.starters.get(key)
        {
            self.explain_live(now, (id, *attempt), job, starter, sites, &mut present);
            return Some(present);
        }
        present.state = match job.state {
            JobState::Idle => {
                let tried = if job.attempt > 0 { format!(", after {} attempt(s)", job.attempt) } else { String::new() };
                if let Some((attempt, starter)) =
                    self.dying.get(&id).and_then(|(attempt, key)| Some((attempt, self.starters.get(key)?)))
                {
                    let place = Place::of(&starter.offer).text(sites);
                    present.next.push(format!(
                        "the end of attempt {attempt}, which was killed on {place} when the job was held"
                    ));
                    present.state = format!("idle{tried}");
                    return Some(present);
                }
                if self.is_later(id)
                    && let Some(Ok(when)) = self.when(id, now)
                {
                    present.next.push(self.its_time(now, when));
                    present.state = format!("idle{tried}");
                    return Some(present);
                }
                present.idle = true;
                let limits = self.classes.get(group.class).map(|class| class.limits.clone()).unwrap_or_default();
                present.next = self.hurdles(now, group);
                let amount = |n: u64| match n % 1000 {
                    0 => format!("{}", n / 1000),
                    rest => format!("{}.{rest:03}", n / 1000),
                };
                let full = self.limits.exhausted(&limits).map(|(name, share, used, most)| {
                    let takes =
                        if share == 1000 { String::new() } else { format!(", and it takes {}", amount(share.into())) };
                    format!("its concurrency limit {name}: {} of {} in use{takes}", amount(used), amount(most))
                });
                present.next.splice(0..0, full);
                let before = self.before(id, cluster);
                if before > 0 {
                    present.next.push(format!("{before} idle job(s) are before it"));
                }
                if let Some(Ok(when)) = self.when(id, now).filter(|when| *when != Ok(When::ANY)) {
                    let left = span(when.closes.since(now));
                    present
                        .next
                        .push(format!("it must start within {left}: else it is held, or waits for its next time"));
                }
                format!("idle{tried}")
            }
            JobState::Held => {
                present.next.push("nothing: once what is wrong is mended, `release` lets it run".into());
                format!("held: {reason}")
            }
            JobState::Completed => match job.end {
                Some(End::Exited(code)) => format!("completed with exit code {code}"),
                Some(End::Signaled(signal)) => format!("completed: ended by signal {signal}"),
                None => "completed".into(),
            },
            JobState::Removed if job.code == policy::JOB_POLICY => format!("removed: {reason}"),
            JobState::Removed => "removed".into(),
            // A starter has it; see above.
            JobState::Matched | JobState::Running | JobState::Transferring => "given to a starter that is gone".into(),
        };
        Some(present)
    }

    fn explain_live(
        &self,
        now: Time,
        (id, attempt): (JobId, u32),
        job: &Job,
        starter: &Starter,
        sites: &[SiteFacts],
        present: &mut Present,
    ) {
        let place = Place::of(&starter.offer).text(sites);
        let by = format!("starter on {}", starter.offer.host);
        let held = starter.held.get(&AttemptId { job: id, attempt });
        let finished = held.is_some_and(|held| held.phase == Phase::Finished);
        let runs = matches!(job.state, JobState::Running | JobState::Transferring);
        if runs {
            present.steps.push(Step { at: Some(job.at), by: by.clone(), text: format!("attempt {attempt} runs") });
        }
        if !starter.connected {
            present.state = format!("unknown: the starter that has attempt {attempt}, on {place}, is silent");
            present.next = self.silence(now, starter, sites);
            return;
        }
        if job.state == JobState::Transferring || finished {
            let text = format!("attempt {attempt} has ended");
            present.steps.push(Step { at: None, by, text });
            present.state = format!("attempt {attempt} has ended on {place}; its outputs are coming");
            present.next.push("its outputs, then a durable record of its result".into());
            return;
        }
        let left = starter.deadline.map(|deadline| format!(" (walltime there ends in {})", span(deadline.since(now))));
        let left = left.unwrap_or_default();
        if runs {
            let ran = span(now.since(job.at));
            present.state = format!("running on {place} for {ran}, attempt {attempt}");
            // On its slot already, it may wait for its time.
            match self.when(id, Time::default()) {
                Some(Ok(when)) if when.starts > now => present.next.push(self.its_time(now, when)),
                _ => present.next.push(format!("its end{left}")),
            }
        } else if starter.known {
            let running = starter.held.values().filter(|held| held.phase == Phase::Running).count();
            present.state = format!("matched: attempt {attempt} is at {place}, not started");
            present.next.push(format!(
                "its start there: {running} job(s) run on {} CPU(s), {} wait, this one among them{left}",
                starter.offer.cpus, starter.queued
            ));
        } else {
            present.state = format!("matched: attempt {attempt} is meant for {place}");
            present.next.push("that starter's word on what it holds: it has just connected".into());
        }
    }

    /// What a job waits for whose time has not come.
    fn its_time(&self, now: Time, when: When) -> String {
        let early = when.starts.since(when.opens);
        let early =
            if early.is_zero() { String::new() } else { format!("; it takes a slot up to {} before", span(early)) };
        format!("its start, in {}{early}", span(when.starts.since(now)))
    }

    /// What ends the silence of a starter.
    fn silence(&self, now: Time, starter: &Starter, sites: &[SiteFacts]) -> Vec<String> {
        let since = span(now.since(starter.since));
        let mut next = vec![format!("its starter, silent for {since}: {}", starter.silence)];
        match sites.get(usize::from(starter.offer.site.0)) {
            Some(site) if !site.linked => {
                let text = "the way to site {}: without it nothing can be concluded, and what runs there goes on";
                next.push(text.replace("{}", &site.name));
            }
            Some(site) => {
                let left = span((starter.since + site.lease).since(now));
                next.push(format!(
                    "evidence of its end (job tag, batch system, exit file), or the end of its lease in {left}; then the next attempt"
                ));
            }
            None => {}
        }
        next
    }

    /// Idle jobs that are matched earlier, as far as starters suit them.
    fn before(&self, id: JobId, cluster: &Cluster) -> u64 {
        let idle = |number: u32, jobs: &mut dyn Iterator<Item = (u32, &Job)>| {
            let waits = |(proc, job): &(u32, &Job)| {
                job.state == JobState::Idle && !self.is_later(JobId { cluster: number, proc: *proc })
            };
            jobs.filter(waits).count() as u64
        };
        let Some((index, group)) = cluster.group_of(id.proc).and_then(|at| Some((at, cluster.groups.get(at)?))) else {
            return 0;
        };
        let own = group.place(id.cluster, index);
        let earlier = self.queue.all().filter(|place| *place < own);
        let earlier = earlier.filter_map(|(_, number, index)| {
            Some(idle(number, &mut self.clusters.get(&number)?.jobs_of(index as usize)))
        });
        let among = idle(id.cluster, &mut cluster.jobs_of(index).take_while(|(proc, _)| *proc < id.proc));
        earlier.sum::<u64>() + among
    }

    /// Why no starter has taken a job of a group.
    fn hurdles(&self, now: Time, group: &Group) -> Vec<String> {
        let mut found: BTreeMap<Hurdle, (u32, u64)> = BTreeMap::new();
        let class = self.classes.get(group.class);
        for starter in self.starters.values() {
            let (count, cpus) = found.entry(starter.hurdle(now, group, class)).or_default();
            *count += 1;
            *cpus += u64::from(starter.offer.cpus);
        }
        if found.is_empty() {
            return vec!["a starter: none has called".into()];
        }
        let memory = group.body.memory_mb.map(|memory| format!("{memory} MB"));
        let gpus = (group.body.gpus > 0).then(|| format!("{} GPU(s)", group.body.gpus));
        let own = group.body.resources.iter().map(|(name, count)| format!("{count} {name}"));
        let cpus = format!("{} CPU(s)", group.body.cpus);
        let needs = [cpus].into_iter().chain(memory).chain(gpus).chain(own).collect::<Vec<_>>().join(" and ");
        let all = self.starters.len();
        let line = |(hurdle, (count, cpus)): (Hurdle, (u32, u64))| {
            let why = match hurdle {
                Hurdle::Small => {
                    let largest =
                        self.starters.values().map(|s| (s.offer.cpus, s.offer.memory_mb)).max().unwrap_or_default();
                    format!("too small: it needs {needs}, the largest has {} CPU(s) and {} MB", largest.0, largest.1)
                }
                Hurdle::Unwanted(clause) => format!("refused by its requirements: {clause}"),
                Hurdle::Unshared => "can't see its directory, and it may not transfer its files".into(),
                Hurdle::Silent => "silent".into(),
                Hurdle::Asked => "being asked what they hold".into(),
                Hurdle::Ending => "near their end".into(),
                Hurdle::Excluded => "on excluded nodes; `sites` says why".into(),
                Hurdle::Full => format!("full, with {cpus} CPU(s)"),
                Hurdle::None => "free: it is matched at once".into(),
            };
            format!("{count} of {all} starter(s): {why}")
        };
        core::iter::once("a free slot".to_owned()).chain(found.into_iter().map(line)).collect()
    }

    /// What keeps the jobs of a cluster back.
    pub fn explain_cluster(&self, now: Time, number: u32, sites: &[SiteFacts]) -> Option<Present> {
        let cluster = self.clusters.get(&number)?;
        let counts = cluster.counts;
        let mut present = Present::default();
        let named = [
            (counts.idle, "idle"),
            (counts.running, "running"),
            (counts.held, "held"),
            (counts.completed, "completed"),
            (counts.removed, "removed"),
        ];
        let named = named.into_iter().filter(|(count, _)| *count > 0);
        present.state = named.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
        if counts.failed > 0 {
            present.state += &format!(" ({} of the completed failed)", counts.failed);
        }
        let mut reasons: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
        for (proc, why) in &cluster.reasons {
            let what = match cluster.jobs.get(*proc as usize).map(|job| job.state) {
                Some(JobState::Held) => "held",
                Some(JobState::Completed | JobState::Removed) | None => continue,
                Some(_) => "tried again",
            };
            reasons.entry((what, why)).or_insert((0, *proc)).0 += 1;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (count, _))| core::cmp::Reverse(*count));
        let others = reasons.len().saturating_sub(REASONS);
        for ((what, why), (count, proc)) in reasons.into_iter().take(REASONS) {
            let text = format!("{count} job(s) {what}, such as {number}.{proc}: {why}");
            present.steps.push(Step { at: None, by: "master".into(), text });
        }
        if others > 0 {
            let text = format!("{others} more reasons; `q --hold` lists the held ones");
            present.steps.push(Step { at: None, by: "master".into(), text });
        }
        let mut silent: BTreeMap<StarterKey, (u32, u32)> = BTreeMap::new();
        let jobs = JobId { cluster: number, proc: 0 }..=JobId { cluster: number, proc: u32::MAX };
        for (id, (_, key)) in self.live.range(jobs) {
            if self.starters.get(key).is_some_and(|starter| !starter.connected) {
                silent.entry(*key).or_insert((0, id.proc)).0 += 1;
            }
        }
        for (key, (count, proc)) in silent.into_iter().take(REASONS) {
            if let Some(starter) = self.starters.get(&key) {
                let place = Place::of(&starter.offer).text(sites);
                let text = format!("{count} job(s), such as {number}.{proc}, are at the silent starter on {place}");
                present.steps.push(Step { at: Some(starter.since), by: "master".into(), text });
            }
        }
        let mut groups = 0;
        for (index, group) in cluster.groups.iter().enumerate() {
            let idle = cluster.jobs_of(index).filter(|(_, job)| job.state == JobState::Idle);
            let (later, ready): (Vec<u32>, Vec<u32>) =
                idle.map(|(proc, _)| proc).partition(|proc| cluster.later.has(*proc));
            if let Some(first) = later.first().map(|proc| JobId { cluster: number, proc: *proc })
                && let Some(Ok(when)) = self.when(first, now)
            {
                let (count, time) = (later.len(), self.its_time(now, when));
                present.next.push(format!("{count} idle job(s), the first {first}, wait for {time}"));
            }
            let Some(first) = ready.first().copied() else {
                continue;
            };
            let idle = ready.len();
            present.idle = true;
            groups += 1;
            if groups > REASONS {
                present.next.push("idle jobs of further `queue` statements".into());
                break;
            }
            let first = JobId { cluster: number, proc: first };
            let mut lines = self.hurdles(now, group);
            let before = self.before(first, cluster);
            if before > 0 {
                lines.push(format!("{before} idle job(s) are before the first of them"));
            }
            if let Some(first_line) = lines.first_mut() {
                *first_line = format!("{idle} idle job(s), the first {first}, wait for {first_line}");
            }
            present.next.extend(lines);
        }
        if present.next.is_empty() && counts.running > 0 {
            present.next.push(format!("the end of {} job(s)", counts.running));
        }
        Some(present)
    }
}
