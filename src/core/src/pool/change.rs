//! What the user changes of jobs that were submitted: holds, releases, edits.

use super::*;

/// What is changed of jobs; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Edit {
    /// Their priority.
    #[n(0)]
    pub priority: Option<i32>,
    /// Their requirements; an empty text takes them away.
    #[n(1)]
    pub requirements: Option<String>,
    /// Their rank; an empty text takes it away.
    #[n(2)]
    pub rank: Option<String>,
    /// Their accounting group; an empty text takes them out of theirs.
    #[n(3)]
    pub accounting_group: Option<String>,
    /// CPUs, from 1.
    #[n(4)]
    pub cpus: Option<u32>,
    /// Memory.
    #[n(5)]
    pub memory_mb: Option<u64>,
    /// GPUs.
    #[n(6)]
    pub gpus: Option<u32>,
    /// Resources of the site's own.
    #[cbor(n(7), default)]
    pub resources: Vec<(String, u32)>,
    /// Is this what the jobs' own expressions say? If not, they are not asked any more for what is changed.
    #[cbor(n(8), default)]
    pub anew: bool,
    /// Scratch space, in KiB: the jobs' attribute `RequestDisk`, to which their requirements may refer.
    #[n(9)]
    pub disk_kib: Option<u64>,
}

impl Edit {
    fn of_program(&self, program: &Program) -> Program {
        Program {
            cpus: self.cpus.map_or(program.cpus, |cpus| cpus.max(1)),
            memory_mb: self.memory_mb.or(program.memory_mb),
            gpus: self.gpus.unwrap_or(program.gpus),
            resources: self.of_resources(&program.resources),
            ..program.clone()
        }
    }

    fn of_resources(&self, resources: &[(String, u32)]) -> Vec<(String, u32)> {
        let mut all = resources.to_vec();
        for (name, count) in &self.resources {
            match all.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                Some((_, amount)) => *amount = *count,
                None => all.push((name.clone(), *count)),
            }
        }
        all
    }

    /// Does it change the request of this attribute?
    fn asks(&self, attribute: &str) -> bool {
        let is = |name: &str| attribute.strip_prefix("Request").is_some_and(|known| known.eq_ignore_ascii_case(name));
        is("Cpus") && self.cpus.is_some()
            || is("Memory") && self.memory_mb.is_some()
            || is("GPUs") && self.gpus.is_some()
            || is("Disk") && self.disk_kib.is_some()
            || self.resources.iter().any(|(name, _)| is(name))
    }

    fn of_terms(&self, terms: &Terms) -> Terms {
        let text = |new: &Option<String>, old: &Option<String>| match new {
            Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            None => old.clone(),
        };
        let mut attributes = terms.attributes.clone();
        if let Some(disk) = self.disk_kib {
            attributes.retain(|(name, _)| !name.eq_ignore_ascii_case("RequestDisk"));
            attributes.push(("RequestDisk".into(), disk.to_string()));
        }
        Terms {
            attributes,
            priority: self.priority.unwrap_or(terms.priority),
            requirements: text(&self.requirements, &terms.requirements),
            rank: text(&self.rank, &terms.rank),
            accounting_group: text(&self.accounting_group, &terms.accounting_group),
            requests: terms.requests.iter().filter(|(name, _)| self.anew || !self.asks(name)).cloned().collect(),
            ..terms.clone()
        }
    }
}

impl core::fmt::Display for Edit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let text = |name: &str, text: &Option<String>| Some(format!("{name} = {}", text.as_ref()?));
        let number = |name: &str, number: Option<i128>| Some(format!("{name} = {}", number?));
        let all = [
            number("priority", self.priority.map(Into::into)),
            text("requirements", &self.requirements),
            text("rank", &self.rank),
            text("accounting_group", &self.accounting_group),
            number("request_cpus", self.cpus.map(Into::into)),
            number("request_memory", self.memory_mb.map(Into::into)),
            number("request_disk", self.disk_kib.map(Into::into)),
            number("request_gpus", self.gpus.map(Into::into)),
        ];
        let resources = self.resources.iter().map(|(name, count)| Some(format!("request_{name} = {count}")));
        f.write_str(&all.into_iter().chain(resources).flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Runs of neighbouring jobs: cluster, first, last.
pub(super) fn ranges(jobs: &[JobId]) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for job in jobs {
        match ranges.last_mut() {
            Some((cluster, _, last)) if *cluster == job.cluster && last.checked_add(1) == Some(job.proc) => {
                *last = job.proc;
            }
            _ => ranges.push((job.cluster, job.proc, job.proc)),
        }
    }
    ranges
}

/// The jobs in such runs.
pub(super) fn jobs_in(ranges: &[(u32, u32, u32)]) -> impl Iterator<Item = JobId> + '_ {
    ranges.iter().flat_map(|(cluster, first, last)| (*first..=*last).map(|proc| JobId { cluster: *cluster, proc }))
}

/// Is the job in one of them?
pub(super) fn within(ranges: &[(u32, u32, u32)], job: JobId) -> bool {
    ranges.iter().any(|(cluster, first, last)| *cluster == job.cluster && (*first..=*last).contains(&job.proc))
}

/// How attempts are killed whose jobs are removed.
pub(super) fn removing(killing: &Killing) -> (u8, Option<u32>) {
    (killing.remove, killing.remove_s)
}

/// How attempts are killed whose jobs are held.
pub(super) fn holding(killing: &Killing) -> (u8, Option<u32>) {
    (killing.hold, killing.remove_s)
}

impl Pool {
    fn selected(&self, select: &Select, wanted: impl Fn(JobState) -> bool) -> Vec<JobId> {
        let unfinished = self.unfinished(select).into_iter();
        unfinished.filter(|id| self.job(*id).is_some_and(|job| wanted(job.state))).collect()
    }

    /// How many of the selected jobs a change concerns.
    pub fn concerned(&self, select: &Select, change: Change) -> u32 {
        self.selected(select, |state| change.concerns(state)).len() as u32
    }

    pub(super) fn remove(&mut self, now: Time, select: &Select) {
        let jobs = self.selected(select, |state| Change::Remove.concerns(state));
        self.take_away(&jobs, removing, |ranges| Record::Removed { at: now, ranges });
    }

    /// Takes jobs that have ended out of the queue.
    pub(super) fn dismiss(&mut self, now: Time, jobs: &[JobId]) {
        let jobs: Vec<JobId> = jobs.iter().copied().filter(|id| self.stays(*id)).collect();
        if !jobs.is_empty() {
            self.write(Record::Dismissed { at: now, ranges: ranges(&jobs) });
        }
    }

    /// Has a job ended, and might be in the queue still?
    pub(super) fn stays(&self, id: JobId) -> bool {
        let Some(cluster) = self.clusters.get(&id.cluster) else { return false };
        let ended = cluster.jobs.get(id.proc as usize).is_some_and(Job::is_over);
        let group = cluster.group_of(id.proc).and_then(|index| cluster.groups.get(index));
        ended && group.is_some_and(|group| group.stays) && !cluster.dismissed.has(id.proc)
    }

    pub(super) fn hold_asked(&mut self, now: Time, select: &Select, why: &str) {
        let jobs = self.selected(select, |state| Change::Hold.concerns(state));
        self.take_away(&jobs, holding, |ranges| Record::HeldByUser { at: now, ranges, why: why.to_owned() });
    }

    pub(super) fn vacate_asked(&mut self, select: &Select, fast: bool) {
        let jobs = self.selected(select, |state| Change::Vacate.concerns(state));
        self.vacate(&jobs, "by the user", fast);
    }

    /// Writes that jobs are not to run any more, and kills what runs.
    pub(super) fn take_away(
        &mut self,
        jobs: &[JobId],
        how: fn(&Killing) -> (u8, Option<u32>),
        record: impl FnOnce(Vec<(u32, u32, u32)>) -> Record,
    ) {
        if jobs.is_empty() {
            return;
        }
        let kills = self.kills(jobs, how);
        self.remember(self.now, jobs);
        self.write(record(ranges(jobs)));
        for ((key, grace, signal), ids) in kills {
            self.kill(key, ids, grace, signal);
        }
        self.ask_anew(self.now, jobs);
    }

    /// Attempts of jobs came to nothing: what those ask for that wait again may be something else now.
    pub(super) fn ask_anew(&mut self, now: Time, jobs: &[JobId]) {
        let mut edits: Vec<(Edit, Vec<JobId>)> = Vec::new();
        for id in jobs {
            let waits = self.job(*id).is_some_and(|job| matches!(job.state, JobState::Idle | JobState::Held));
            let Some(group) = self.group(*id).filter(|group| waits && !group.terms.requests.is_empty()) else {
                continue;
            };
            let Some(edit) = self.view(*id).map(|view| self.judge.0.anew(&view)) else { continue };
            if edit.of_program(&group.body) == *group.body && edit.disk_kib.is_none() {
                continue;
            }
            match edits.last_mut() {
                Some((last, ids)) if *last == edit => ids.push(*id),
                _ => edits.push((edit, vec![*id])),
            }
        }
        for (edit, ids) in edits {
            self.write(Record::Edited { at: now, ranges: ranges(&ids), edit: Edit { anew: true, ..edit } });
        }
    }

    pub(super) fn release(&mut self, now: Time, select: &Select) {
        let jobs = self.selected(select, |state| Change::Release.concerns(state));
        if !jobs.is_empty() {
            self.write(Record::Released { at: now, ranges: ranges(&jobs) });
        }
    }

    pub(super) fn edit(&mut self, now: Time, select: &Select, edit: Edit) {
        let jobs = self.unfinished(select);
        if !jobs.is_empty() {
            self.write(Record::Edited { at: now, ranges: ranges(&jobs), edit });
        }
    }

    pub(super) fn apply_held(&mut self, at: Time, id: JobId, hold: &Hold) {
        if self.job(id).is_none_or(|job| job.is_over() || job.state == JobState::Held) {
            return;
        }
        // What its starter still holds of it occupies the starter until it says that it is gone.
        self.give_up(at, id, None);
        if let Some(out) = self.end_live(id) {
            self.set_dying(id, out);
        }
        self.unqueue(id);
        self.change(id, |job| {
            job.state = JobState::Held;
            job.at = at;
            (job.code, job.subcode) = (hold.code, hold.subcode);
        });
        if let Some(past) = self.past(id) {
            past.holds += 1;
        }
        self.reason(id, &hold.why);
    }

    pub(super) fn apply_released(&mut self, at: Time, id: JobId) {
        if self.job(id).is_none_or(|job| job.state != JobState::Held) {
            return;
        }
        self.change(id, |job| {
            job.state = JobState::Idle;
            job.site_failures = 0;
            job.at = at;
            (job.code, job.subcode) = (0, 0);
        });
        if let Some(cluster) = self.clusters.get_mut(&id.cluster) {
            cluster.reasons.remove(&id.proc);
        }
        self.enqueue(id);
    }

    pub(super) fn apply_edited(&mut self, ranges: &[(u32, u32, u32)], edit: &Edit) {
        let mut touched: BTreeMap<(u32, usize), Vec<u32>> = BTreeMap::new();
        for id in jobs_in(ranges) {
            if self.job(id).is_some_and(|job| !job.is_over())
                && let Some(index) = self.clusters.get(&id.cluster).and_then(|cluster| cluster.group_of(id.proc))
            {
                touched.entry((id.cluster, index)).or_default().push(id.proc);
            }
        }
        for ((number, index), procs) in touched {
            let Some(cluster) = self.clusters.get(&number) else { continue };
            let Some(group) = cluster.groups.get(index) else { continue };
            let (body, terms) = (edit.of_program(&group.body), edit.of_terms(&group.terms));
            if body == *group.body && terms == *group.terms {
                continue;
            }
            let open = cluster.jobs_of(index).filter(|(_, job)| !job.is_over()).count();
            let live: Vec<JobId> = procs.iter().map(|proc| JobId { cluster: number, proc: *proc }).collect();
            let live: Vec<JobId> = live.into_iter().filter(|id| self.live.contains_key(id)).collect();
            live.iter().for_each(|id| self.load(*id, false));
            let to = if open == procs.len() {
                self.regroup(number, index, body, terms)
            } else {
                self.part(number, index, &procs, body, terms)
            };
            live.iter().for_each(|id| self.load(*id, true));
            // Of one whose jobs wait for their time, those may be matched whose time has come.
            let matched = |index: usize| {
                let mut jobs = self.clusters.get(&number).into_iter().flat_map(|cluster| cluster.jobs_of(index));
                !self.is_timed(number, index)
                    || jobs.any(|(proc, job)| {
                        job.state == JobState::Idle && !self.is_later(JobId { cluster: number, proc })
                    })
            };
            if let Some(index) = to.filter(|index| matched(*index)) {
                self.open(number, index);
            }
        }
    }

    /// The group as it is changed to be.
    fn changed(&mut self, group: &Group, body: Program, terms: Terms) -> Group {
        let same = body == *group.body;
        self.last_program += u64::from(!same);
        Group {
            program: if same { group.program } else { self.last_program },
            class: self.classes.of(&*self.judge.0, &body, &terms),
            account: self.queue.account(terms.accounting_group.as_deref()),
            policy: self.judge.0.policy(&terms, &body),
            timing: self.judge.0.timing(&terms, &body),
            body: if same { Arc::clone(&group.body) } else { Arc::new(body) },
            terms: Arc::new(terms),
            ..group.clone()
        }
    }

    /// Changes a group for all of its jobs.
    fn regroup(&mut self, number: u32, index: usize, body: Program, terms: Terms) -> Option<usize> {
        let group = self.clusters.get(&number)?.groups.get(index)?.clone();
        self.queue.remove(group.account, group.class, group.place(number, index));
        let changed = self.changed(&group, body, terms);
        *self.clusters.get_mut(&number)?.groups.get_mut(index)? = changed;
        self.watch(number, index);
        Some(index)
    }

    /// Takes some jobs of a group into one of their own.
    fn part(&mut self, number: u32, index: usize, procs: &[u32], body: Program, terms: Terms) -> Option<usize> {
        let group = self.clusters.get(&number)?.groups.get(index)?.clone();
        // Nothing of it is new; what waits of it is told one by one.
        let group = Group { fresh: group.members.count(), again: BTreeSet::new(), ..group };
        let mut changed = self.changed(&group, body, terms);
        let cluster = self.clusters.get_mut(&number)?;
        let to = cluster.groups.len();
        for proc in procs {
            cluster.groups.get_mut(index)?.again.remove(proc);
            cluster.moved.insert(*proc, to as u32);
            let waits = !self.dying.contains_key(&JobId { cluster: number, proc: *proc });
            if waits && cluster.jobs.get(*proc as usize)?.state == JobState::Idle {
                changed.again.insert(*proc);
            }
        }
        cluster.groups.push(changed);
        self.watch(number, to);
        if self.is_timed(number, to) {
            self.defer_group(number, to);
        }
        Some(to)
    }
}

/// What the user may do to jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Remove them.
    Remove,
    /// Hold them.
    Hold,
    /// Release them.
    Release,
    /// Change what they ask for.
    Edit,
    /// Take them off their slots.
    Vacate,
}

impl Change {
    /// Does it concern a job in this state? A job whose outputs are coming has ended.
    fn concerns(self, state: JobState) -> bool {
        match self {
            Change::Remove | Change::Edit => true,
            Change::Hold => !matches!(state, JobState::Held | JobState::Transferring),
            Change::Release => state == JobState::Held,
            Change::Vacate => state == JobState::Running,
        }
    }
}
