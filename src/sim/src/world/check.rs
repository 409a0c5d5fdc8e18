//! What must hold. The checker believes the journal, the processes that really ran and the batch systems, and folds what it needs by
//! itself.

use super::*;

/// How long a slot of a site without faults may be empty while a job waits.
const EMPTY_SLOT: Duration = Duration::from_secs(120);

/// How long a result may wait at a starter that is connected, at a site without faults.
const UNTAKEN: Duration = Duration::from_secs(600);

/// How long after SIGKILL a process may be seen.
const DEAD: Duration = Duration::from_secs(5);

/// How long an agent may take to find a batch job that is nobody's: twice its rarest question, and some that come to nothing.
const OWNED: Duration = Duration::from_secs(2400);

/// A listing's answer takes no longer.
pub(super) const ANSWER: Duration = Duration::from_secs(60);

/// What the records of the journal say of the jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// How many jobs each group of a cluster has, what CPUs they ask for, and whether they count against the limit.
    clusters: BTreeMap<u32, Vec<(u32, u32, bool)>>,
    /// CPUs of jobs that were edited.
    edited: BTreeMap<JobId, u32>,
    given: BTreeMap<JobId, (u32, StarterKey)>,
    /// Jobs of which an attempt was killed: they wait until it is known to be dead.
    killed: BTreeSet<JobId>,
    /// Attempts whose ends counted.
    counted: BTreeSet<AttemptId>,
    over: BTreeMap<JobId, AttemptId>,
    removed: BTreeSet<JobId>,
    held: BTreeSet<JobId>,
}

/// The jobs of ranges in a record.
fn jobs_in(ranges: &[(u32, u32, u32)]) -> impl Iterator<Item = JobId> {
    ranges.iter().flat_map(|(cluster, first, last)| (*first..=*last).map(|proc| JobId { cluster: *cluster, proc }))
}

impl Told {
    fn take(&mut self, job: JobId, attempt: u32) {
        if self.given.get(&job).is_some_and(|(given, _)| *given == attempt) {
            self.given.remove(&job);
        }
    }

    /// It is not to run, and what is out of it is killed.
    fn stop(&mut self, job: JobId) {
        if self.given.remove(&job).is_some() {
            self.killed.insert(job);
        }
    }

    fn hold(&mut self, job: JobId) {
        if !self.over.contains_key(&job) && !self.removed.contains(&job) {
            self.stop(job);
            self.held.insert(job);
        }
    }

    /// Does it count against the limit?
    pub(super) fn is_limited(&self, job: JobId) -> bool {
        let mut first = 0;
        self.clusters.get(&job.cluster).into_iter().flatten().any(|(count, _, limited)| {
            first += count;
            *limited && (first - count..first).contains(&job.proc)
        })
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Submitted { cluster, groups, .. } => {
                let mut first = 0;
                for group in groups {
                    let procs = (first..first + group.count).filter(|_| group.held);
                    self.held.extend(procs.map(|proc| JobId { cluster: *cluster, proc }));
                    first += group.count;
                }
                let each =
                    |group: &GroupRecord| (group.count, group.program.cpus.max(1), !group.terms.limits.is_empty());
                self.clusters.insert(*cluster, groups.iter().map(each).collect());
            }
            Record::Dispatched { key, ids, .. } => {
                for id in ids {
                    self.killed.remove(&id.job);
                }
                self.given.extend(ids.iter().map(|id| (id.job, (id.attempt, *key))));
            }
            // A result that was under way ends a hold.
            Record::Claimed { key, id, .. } => {
                if self.given.insert(id.job, (id.attempt, *key)).is_some_and(|out| out != (id.attempt, *key)) {
                    self.killed.insert(id.job);
                }
                self.held.remove(&id.job);
            }
            Record::Returned { ids, .. } => ids.iter().for_each(|id| self.take(id.job, id.attempt)),
            Record::SiteFailed { id, .. } => self.take(id.job, id.attempt),
            Record::Ended { ends, .. } => {
                for end in ends {
                    if self.given.remove(&end.id.job).is_some_and(|(attempt, _)| attempt != end.id.attempt) {
                        self.killed.insert(end.id.job);
                    }
                    self.held.remove(&end.id.job);
                    self.counted.insert(end.id);
                    match &end.then {
                        Some(Decision::Hold(_)) => drop(self.held.insert(end.id.job)),
                        Some(Decision::Again(_)) => {}
                        _ => drop(self.over.insert(end.id.job, end.id)),
                    }
                }
            }
            Record::Held { job, .. } => {
                self.given.remove(job);
                self.held.insert(*job);
            }
            Record::HeldByUser { ranges, .. } => jobs_in(ranges).for_each(|job| self.hold(job)),
            Record::Released { ranges, .. } => {
                for job in jobs_in(ranges) {
                    self.held.remove(&job);
                }
            }
            Record::Removed { ranges, .. } => {
                for job in jobs_in(ranges).filter(|job| !self.over.contains_key(job)).collect::<Vec<_>>() {
                    self.stop(job);
                    self.held.remove(&job);
                    self.removed.insert(job);
                }
            }
            Record::Measured { .. } => {}
            Record::Edited { ranges, edit, .. } => {
                self.edited.extend(edit.cpus.into_iter().flat_map(|cpus| jobs_in(ranges).map(move |job| (job, cpus))));
            }
            Record::Judged { ranges, decision, .. } => {
                for job in jobs_in(ranges) {
                    match decision {
                        Decision::Hold(_) => self.hold(job),
                        Decision::Release(_) => drop(self.held.remove(&job)),
                        Decision::Vacate(_) => drop(self.given.remove(&job)),
                        Decision::Remove(_) | Decision::Again(_) => {}
                    }
                }
            }
            Record::StarterJoined { .. }
            | Record::StarterGone { .. }
            | Record::NodeExcluded { .. }
            | Record::Silent { .. }
            | Record::Answers { .. }
            | Record::Dismissed { .. }
            | Record::Started { .. } => {}
        }
    }

    /// A job of one CPU that waits and is nowhere.
    fn waiting(&self) -> Option<JobId> {
        for (cluster, groups) in &self.clusters {
            let mut proc = 0;
            for (count, cpus, limited) in groups {
                for job in (proc..proc + count).map(|proc| JobId { cluster: *cluster, proc }) {
                    let elsewhere = self.given.contains_key(&job)
                        || self.over.contains_key(&job)
                        || self.killed.contains(&job)
                        || *limited;
                    if *self.edited.get(&job).unwrap_or(cpus) == 1
                        && !elsewhere
                        && !self.removed.contains(&job)
                        && !self.held.contains(&job)
                    {
                        return Some(job);
                    }
                }
                proc += count;
            }
        }
        None
    }
}

/// What is known of a submission.
#[derive(Debug)]
pub(super) struct Submission {
    attempt: u32,
    /// Did the answer leave open what became of it?
    unclear: bool,
    /// Good listings since the answer.
    listings: u32,
    /// It was in one of them.
    shown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    /// All records that were made, and how many of them are durable.
    pub(super) journal: Vec<Record>,
    settled: usize,
    told: Told,
    /// The same of all records, also those that are not durable.
    latest: Told,
    /// Since when jobs are held, or removed, for all that is durable.
    stopped: BTreeMap<JobId, Time>,
    /// Since when an agent at work could tell what a starter put aside.
    aside: BTreeMap<StarterKey, Time>,
    /// When what a starter was told to kill must be dead.
    kills: BTreeMap<(StarterKey, AttemptId), Time>,
    pub(super) acknowledged: BTreeMap<u32, u32>,
    pub(super) removed: BTreeSet<JobId>,
    /// Also those whose removal was durable and, for a crash, not acknowledged.
    pub(super) to_remove: BTreeSet<JobId>,
    /// Those that were held when the session's end began.
    pub(super) stay: BTreeSet<JobId>,
    /// How attempts really ended.
    pub(super) truth: BTreeMap<AttemptId, Outcome>,
    started: BTreeSet<AttemptId>,
    /// The last submission of each proxy, as an agent knows it.
    submissions: BTreeMap<(usize, u64, ProxyId), Submission>,
    /// Since when a slot of the quiet site is empty while jobs wait.
    empty: Option<Time>,
}

impl Checker {
    /// The master begins anew, with the first `kept` records.
    pub(super) fn master_begins(&mut self, kept: usize) -> Checked {
        if kept > self.journal.len() {
            return Err("the store holds more than was ever appended".into());
        }
        if kept < self.settled {
            return Err(format!("{} records were durable, and {kept} are left", self.settled));
        }
        self.journal.truncate(kept);
        self.settle(kept);
        self.latest = self.told.clone();
        Ok(())
    }

    /// So many records are durable.
    pub(super) fn settle(&mut self, durable: usize) {
        while self.settled < durable
            && let Some(record) = self.journal.get(self.settled)
        {
            self.told.apply(record);
            self.settled += 1;
            if matches!(record, Record::Released { .. }) {
                self.stopped.retain(|job, _| self.told.held.contains(job) || self.told.removed.contains(job));
            }
        }
    }

    pub(super) fn recorded(&mut self, record: Record) -> Checked {
        match &record {
            Record::Ended { ends, .. } => {
                for end in ends {
                    if self.latest.over.contains_key(&end.id.job) || self.latest.counted.contains(&end.id) {
                        return Err(format!("{} counts, and its job had ended before", end.id));
                    }
                    let expected = match end.end {
                        End::Exited(code) => Outcome::Exited(code),
                        End::Signaled(signal) => Outcome::Signaled(signal),
                    };
                    if self.truth.get(&end.id) != Some(&expected) {
                        return Err(format!("{} never ended so: {:?}", end.id, self.truth.get(&end.id)));
                    }
                }
            }
            Record::Dispatched { ids, .. } => {
                if let Some(id) = ids.iter().find(|id| self.latest.over.contains_key(&id.job)) {
                    return Err(format!("{id} was dispatched after its job's success"));
                }
                let stopped =
                    |id: &&AttemptId| self.latest.held.contains(&id.job) || self.latest.removed.contains(&id.job);
                if let Some(id) = ids.iter().find(stopped) {
                    return Err(format!("{id} was dispatched, and its job is held or removed"));
                }
            }
            _ => {}
        }
        self.latest.apply(&record);
        self.journal.push(record);
        Ok(())
    }

    /// A submit command runs.
    fn submits(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32) -> Checked {
        let Some(before) = self.submissions.get(&(site, life, proxy)).filter(|s| s.attempt < attempt) else {
            return Ok(());
        };
        if before.shown {
            return Err(format!("proxy {proxy} of site {site} is submitted again, though a listing showed it"));
        }
        if before.unclear && before.listings < 2 {
            return Err(format!("proxy {proxy} of site {site} is submitted again after {} listings", before.listings));
        }
        Ok(())
    }
}

impl World<'_> {
    /// An agent, or the one before it, meant to submit a proxy.
    pub(super) fn note_submission(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32, unclear: bool) {
        let submission = Submission { attempt, unclear, listings: 0, shown: false };
        self.checker.submissions.insert((site, life, proxy), submission);
    }

    /// An agent hears a good listing. What it had decided before stays decided.
    pub(super) fn note_listing(&mut self, site: usize, life: u64, rows: &[Row]) {
        let Some(work) = self.sites[site].agents.get(&life).and_then(|agent| agent.work.as_ref()) else {
            return;
        };
        let prefix = prefix(site, work.table.base);
        let decided = work.waiting.iter().filter_map(|(_, action)| match action {
            proxy::Action::SubmitProxy { proxy, .. } => Some(*proxy),
            _ => None,
        });
        let decided: BTreeSet<ProxyId> = decided.chain(work.submitting).collect();
        let all = (site, life, ProxyId(0))..=(site, life, ProxyId(u64::MAX));
        for ((.., proxy), submission) in self.checker.submissions.range_mut(all) {
            submission.listings += 1;
            let token = format!("{prefix}{proxy}-{}", submission.attempt);
            submission.shown |= !decided.contains(proxy) && rows.iter().any(|row| row.token == token);
        }
    }

    pub(super) fn check_submission(&mut self, site: usize, life: u64, proxy: ProxyId, attempt: u32) {
        if let Err(why) = self.checker.submits(site, life, proxy, attempt) {
            self.wrong.get_or_insert(why);
        }
    }

    /// A process begins.
    pub(super) fn check_start(&mut self, site: usize, key: StarterKey, id: AttemptId) {
        if !self.checker.started.insert(id) {
            self.wrong = Some(format!("{id} was started twice"));
        }
        if self.checker.kills.contains_key(&(key, id)) {
            self.wrong.get_or_insert(format!("{id} starts at {key}, which was told to kill it"));
        }
        // Where a node was cut off and its batch job has ended or begun anew, nobody can know that it still works.
        if self.sites[site].starters.get(&key).is_some_and(|node| node.zombie) {
            return;
        }
        let mut limited = 1;
        for (index, other) in self.sites.iter().enumerate() {
            for (other_key, node) in other.starters.iter().filter(|(_, node)| !node.running.is_empty() && !node.zombie)
            {
                limited += node.running.keys().filter(|id| self.checker.latest.is_limited(id.job)).count();
                if let Some(second) = node.running.keys().find(|running| running.job == id.job) {
                    self.wrong.get_or_insert(format!(
                        "{id} starts at {key} of site {site} while {second} runs at {other_key} of site {index}"
                    ));
                }
            }
        }
        if self.checker.latest.is_limited(id.job) && limited > users::LIMIT.1 as usize {
            self.wrong.get_or_insert(format!("{id} starts as one of {limited} at once, of {} at most", users::LIMIT.1));
        }
    }

    /// A starter is told to kill attempts.
    pub(super) fn note_kill(&mut self, key: StarterKey, ids: &[AttemptId], grace: Duration) {
        let until = self.clock.now + grace + DEAD;
        for id in ids {
            self.checker.kills.entry((key, *id)).or_insert(until);
        }
    }

    /// Does what was killed long ago still run, or a job that is held or removed where all is well?
    fn undead(&self) -> Option<String> {
        let now = self.clock.now;
        for (index, site) in self.sites.iter().enumerate() {
            let well = self.quiet == Some(index) || self.calm;
            let up = site.stream.is_some_and(|s| now.since(s.opened) > UNTAKEN && !self.cut.contains_key(&s.link));
            for (key, node) in &site.starters {
                let known = well
                    && up
                    && node.alive
                    && node.link.is_some_and(|(link, _)| self.is_whole(link))
                    && node.welcomed
                    && now.since(node.called) > UNTAKEN;
                for id in node.running.keys() {
                    if self.checker.kills.get(&(*key, *id)).is_some_and(|until| now > *until) {
                        return Some(format!("{id} runs on at {key} of site {index}, which was told to kill it"));
                    }
                    let stopped = self.checker.stopped.get(&id.job);
                    if known && let Some(since) = stopped.filter(|since| now.since(**since) > UNTAKEN) {
                        let since = now.since(*since);
                        return Some(format!("{id} runs at {key} of site {index}: its job was stopped {since:?} ago"));
                    }
                }
            }
        }
        None
    }

    /// Since when jobs are not to run.
    pub(super) fn note_stopped(&mut self) {
        let now = self.clock.now;
        let Checker { told, stopped, .. } = &mut self.checker;
        stopped.retain(|job, _| told.held.contains(job) || told.removed.contains(job));
        for job in told.held.iter().chain(&told.removed) {
            stopped.entry(*job).or_insert(now);
        }
    }

    /// Since when could be told what was put aside, where all is well?
    fn note_aside(&mut self) {
        let now = self.clock.now;
        let mut open = BTreeSet::new();
        for (index, site) in self.sites.iter().enumerate() {
            let stream = site.stream.filter(|s| self.is_whole(s.link) && (self.quiet == Some(index) || self.calm));
            let agent = stream.and_then(|stream| site.agents.get(&stream.agent));
            let Some(agent) = agent.filter(|agent| agent.master.is_some()) else { continue };
            for key in site.spool.keys().filter(|key| !agent.lines.contains_key(key)) {
                let mut known = agent.work.iter().flat_map(|work| work.machine.starters());
                if !known.any(|(_, other, link)| other == *key && !matches!(link, Link::Gone(_))) {
                    open.insert(*key);
                }
            }
        }
        self.checker.aside.retain(|key, _| open.contains(key));
        for key in open {
            self.checker.aside.entry(key).or_insert(now);
        }
    }

    fn untaken(&self) -> Option<String> {
        let long = |since: &Time| self.clock.now.since(*since) > UNTAKEN;
        let (key, since) = self.checker.aside.iter().find(|(_, since)| long(since))?;
        Some(format!("what {key} put aside waits for {:?}", self.clock.now.since(*since)))
    }

    /// An agent cancels a batch job. Missed heartbeats, lowered targets and newer agents are no reason to end what works.
    pub(super) fn check_cancel(&mut self, site: usize, life: u64, id: &str) {
        let here = &self.sites[site];
        let Some(agent) = here.agents.get(&life) else { return };
        let works = |(key, node): (&StarterKey, &Node)| {
            let line = agent.lines.get(key).is_some_and(|line| line.welcomed);
            line && node.batch_id == id && node.alive && !node.running.is_empty()
        };
        let works = here.starters.iter().any(works);
        self.require(!works || agent_closes(agent), || format!("batch job {id} of site {site} is cancelled and works"));
    }

    /// A starter removes what it holds of attempts.
    pub(super) fn check_forgotten(&mut self, key: StarterKey, ids: &[AttemptId]) {
        let told = &self.checker.told;
        let lost = ids
            .iter()
            .find(|id| self.checker.truth.contains_key(id) && told.given.get(&id.job) == Some(&(id.attempt, key)));
        if let Some(id) = lost {
            self.wrong.get_or_insert(format!("{id} was acknowledged, and its end is not durable"));
        }
    }

    /// An agent takes a proxy for ended.
    pub(super) fn check_ended(&mut self, site: usize, id: ProxyId, batch_id: &str, why: &str) {
        // A cancel was accepted of which nothing came, of what no listing shows yet: once one does, it is a stray, which has its own rule.
        // A listing may have begun a minute ago.
        let unseen = |job: &BatchJob| why.starts_with("cancelled;") && self.clock.now.since(job.shows) < ANSWER;
        let waits =
            |job: &BatchJob| job.state == BatchState::Pending && job.restarts == 0 && !job.cancelled && !unseen(job);
        let waits = self.sites[site].batch.jobs.get(batch_id).is_some_and(waits);
        // Rule: what nothing shows for long enough is lost.
        let lied = self.has("batch lies") || why.starts_with("lost:");
        self.require(!waits || lied, || format!("proxy {id} of site {site} counts as ended and is queued: {why}"));
    }

    /// Is a batch job left to itself that no proxy owns, though the batch system tells of it?
    fn stray(&self) -> Option<String> {
        let now = self.clock.now;
        let blind = ["batch lies", "batch hangs", "agent stopped", "home hangs"];
        if blind.iter().any(|kind| self.has(kind)) {
            return None;
        }
        let long = |since: Time| now.since(since) > OWNED;
        self.sites.iter().enumerate().find_map(|(index, site)| {
            let works = |agent: &&Agent| matches!(agent.stage, Stage::Working) && long(agent.began);
            let work = site.agents.values().find(works)?.work.as_ref()?;
            let owned: BTreeSet<&str> = work.machine.views().filter_map(|view| view.batch_id).collect();
            let jobs = site.batch.jobs.iter().filter(|(_, job)| job.state != BatchState::Ended && !job.cancelled);
            let (id, job) = jobs.into_iter().find(|(id, job)| long(job.shows) && !owned.contains(id.as_str()))?;
            Some(format!("batch job {id} of site {index}, {}, is nobody's and is left to itself", job.name))
        })
    }

    /// Where no fault is, is anything disturbed?
    pub(super) fn look(&mut self) {
        let now = self.clock.now;
        if self.ending {
            return;
        }
        self.clock.after(60_000, 60_001, What::Look);
        self.note_stopped();
        self.note_aside();
        if let Some(wrong) = self.stray().or_else(|| self.undead()).or_else(|| self.untaken()) {
            self.wrong.get_or_insert(wrong);
        }
        (0..self.sites.len()).for_each(|site| self.set_target(site));
        let long = |since: Time| now.since(since) > UNTAKEN;
        for (index, site) in self.sites.iter().enumerate() {
            if self.quiet != Some(index) && !self.calm {
                continue;
            }
            let up = site.stream.filter(|stream| long(stream.opened) && !self.cut.contains_key(&stream.link));
            let mut nodes = site
                .starters
                .iter()
                .filter(|(_, node)| node.alive && node.welcomed && long(node.called))
                // An agent may have given a connection up, and the starter see it only later.
                .filter(|(_, node)| node.link.is_some_and(|(link, _)| self.is_whole(link)));
            let held = nodes.find_map(|(key, node)| Some((key, node.results.iter().find(|(_, since)| long(**since))?)));
            if let (Some(_), Some((key, (id, since)))) = (up, held) {
                let why =
                    format!("starter {key} of site {index} waits with the end of {id} since {:?}", now.since(*since));
                self.wrong.get_or_insert(why);
            }
        }
        let Some(quiet) = self.quiet else { return };
        let Some(master) = &self.master else {
            return self.checker.empty = None;
        };
        let excluded = master.pool.excluded_nodes().any(|node| usize::from(node.site.0) == quiet);
        let here = &self.sites[quiet];
        let up = here.stream.is_some_and(|stream| master.heard.contains(&stream.link));
        let empty = here.starters.values().filter(|node| node.welcomed && node.alive && node.running.is_empty());
        let empty = empty.filter(|node| node.ends.since(now) > DRAIN * 3).map(|node| node.idle).min();
        let Some(idle) = empty.filter(|_| up && !excluded && self.checker.told.waiting().is_some()) else {
            return self.checker.empty = None;
        };
        let since = *self.checker.empty.get_or_insert(now);
        let idle = now.since(since.max(idle));
        let job = self.checker.told.waiting();
        self.require(idle < EMPTY_SLOT, || {
            format!("a slot of the quiet site {quiet} is empty for {idle:?}, and jobs wait, such as {job:?}")
        });
    }

    pub(super) fn check_end(&mut self) -> Checked {
        let master = self.master.as_ref().ok_or("no master at the end")?;
        for (cluster, jobs) in &self.checker.acknowledged {
            for proc in 0..*jobs {
                let job = JobId { cluster: *cluster, proc };
                let view = master.pool.view(job).ok_or_else(|| format!("{job} was acknowledged and lost"))?;
                let counted = self.checker.latest.over.contains_key(&job);
                let held = self.checker.latest.held.contains(&job);
                if held != (view.state == JobState::Held) {
                    return Err(format!("{job} is {:?} at the end; held, as the journal tells: {held}", view.state));
                }
                let removed = self.checker.removed.contains(&job);
                let fine = match view.state {
                    JobState::Completed => counted,
                    JobState::Removed => !counted && self.checker.to_remove.contains(&job),
                    JobState::Held => !removed && self.wishes.may_stay(&view),
                    // The session ended before a late result was home.
                    JobState::Transferring => !removed && self.checker.stay.contains(&job),
                    _ => false,
                };
                if !fine {
                    return Err(format!("{job} is {:?} at the end; counted: {counted}", view.state));
                }
                self.summary.completed += u64::from(counted);
            }
        }
        let mut folded = empty_pool();
        self.checker.journal.iter().for_each(|record| folded.apply(record));
        // No record tells that a result is coming.
        let counts = |pool: &pool::Pool| {
            let counts = pool.counts(&Select::default());
            pool::Counts { idle: counts.idle + counts.running, running: 0, ..counts }
        };
        if counts(&folded) != counts(&master.pool) {
            return Err("the journal does not lead to the state".into());
        }
        for (index, site) in self.sites.iter().enumerate() {
            let running = site.starters.values().any(|node| !node.running.is_empty());
            if let Some((key, _)) = site.starters.iter().find(|(_, node)| node.alive || running) {
                return Err(format!("left behind at site {index}: starter {key}; do jobs run? {running}"));
            }
            let files = site.tags.len()
                + site.exits.len()
                + site.spool.len()
                + site.tables.values().count()
                + site.leases.values().count();
            if files > 0 {
                return Err(format!("{files} files are left behind at site {index}"));
            }
        }
        Ok(())
    }
}

fn agent_closes(agent: &Agent) -> bool {
    agent.closing || agent.fenced
}

/// What the names of a session's batch jobs at a site begin with.
pub(super) fn prefix(site: usize, base: u64) -> String {
    format!("vo-{site}-{base}-")
}
