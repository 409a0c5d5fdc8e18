//! The whole state, written down at once.

use super::*;

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
            stays: apply::stays(&part.terms),
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
