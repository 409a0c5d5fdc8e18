//! Jobs that failed, submitted once more.

use super::*;
use crate::items::{CellPart, parts};
use crate::template::Piece;

/// Whose jobs those of a group are, submitted once more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// Their cluster.
    #[n(0)]
    pub cluster: u32,
    /// Their processes, in the order of the group's jobs.
    #[n(1)]
    pub procs: Procs,
}

impl Origin {
    /// The job that a process of a cluster with these groups is once more.
    pub(super) fn before(groups: &[GroupRecord], proc: u32) -> Option<JobId> {
        // A cluster of retried jobs numbers them in the order of its groups.
        let mut first = 0;
        for group in groups {
            if proc - first < group.count {
                let origin = group.origin.as_ref()?;
                let proc = *origin.procs.as_slice().get((proc - first) as usize)?;
                return Some(JobId { cluster: origin.cluster, proc });
            }
            first += group.count;
        }
        None
    }

    /// The process, of a cluster with these groups, that is a job once more.
    pub(super) fn after(groups: &[GroupRecord], job: JobId) -> Option<u32> {
        let mut first = 0;
        for group in groups {
            let origin = group.origin.as_ref()?;
            let place = origin.procs.as_slice().binary_search(&job.proc).ok().filter(|_| origin.cluster == job.cluster);
            if let Some(place) = place {
                return Some(first + place as u32);
            }
            first += group.count;
        }
        None
    }
}

/// What became of a job that is to be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It failed: this is the job that did, which is a later one where it was retried before.
    Failed(JobId),
    /// It didn't, or isn't known to have.
    No,
}

impl Pool {
    /// May this job be retried? `removed` asks for those that the user removed, too.
    pub fn retriable(&self, job: JobId, removed: bool) -> Retry {
        let mut last = job;
        // Later clusters have higher numbers: the chain ends.
        while let Some(next) = self.retried.get(&last) {
            last = *next;
        }
        match self.job(last) {
            Some(job) if job.is_failed() => Retry::Failed(last),
            Some(Job { state: JobState::Removed, code, .. }) if removed || *code == policy::JOB_POLICY => {
                Retry::Failed(last)
            }
            _ => Retry::No,
        }
    }

    /// The job that a job was submitted as once more.
    pub fn retried_as(&self, job: JobId) -> Option<JobId> {
        self.retried.get(&job).copied()
    }

    /// The groups that run these jobs of one cluster once more, as they were described: `$(Cluster)` and `$(Process)` in their descriptions stand for
    /// their old numbers, so that they write the outputs that they would have written.
    pub fn once_more(&self, cluster: u32, procs: &BTreeSet<u32>) -> Vec<GroupRecord> {
        let Some(found) = self.clusters.get(&cluster) else { return Vec::new() };
        let mut by_group: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for proc in procs {
            if let Some(place) = found.group_of(*proc) {
                by_group.entry(place).or_default().push(*proc);
            }
        }
        let groups = by_group.into_iter().filter_map(|(place, procs)| {
            let group = found.groups.get(place)?;
            group.once_more(cluster, procs)
        });
        groups.collect()
    }

    pub(super) fn note_retries(&mut self, cluster: u32) {
        let Some(found) = self.clusters.get(&cluster) else { return };
        for group in found.groups.iter().take(found.statements) {
            let Some(origin) = &group.origin else { continue };
            for (old, new) in origin.procs.as_slice().iter().zip(group.members.iter()) {
                let old = JobId { cluster: origin.cluster, proc: *old };
                // A journal that says otherwise is damaged; the chain must end all the same.
                if old.cluster < cluster {
                    self.retried.insert(old, JobId { cluster, proc: new });
                }
            }
        }
    }
}

impl Group {
    fn once_more(&self, cluster: u32, procs: Vec<u32>) -> Option<GroupRecord> {
        let mut program = (*self.body).clone();
        let (mut log, mut terms) = (self.log.clone(), (*self.terms).clone());
        // The DAG that submitted them knows nothing of these.
        let mut log_terms = LogTerms { dag_node: None, ..(*self.log_terms).clone() };
        // Which numbers of processes the templates ask for, counted from which.
        let mut counted: Vec<u32> = Vec::new();
        let width = self.members.table().map_or(0, Table::width);
        let mut mend = |template: &mut Template| {
            for piece in &mut template.0 {
                let from = match piece {
                    Piece::Cluster => {
                        *piece = Piece::Text(cluster.to_string().into_bytes());
                        continue;
                    }
                    Piece::Process => 0,
                    Piece::ProcessFrom(from) => *from,
                    _ => continue,
                };
                let place = counted.iter().position(|known| *known == from).unwrap_or_else(|| {
                    counted.push(from);
                    counted.len() - 1
                });
                *piece = Piece::Column(width.saturating_add(u16::try_from(place).unwrap_or(u16::MAX)));
            }
        };
        program.each_template(&mut mend);
        let LogTerms { batch_name, notes, user_notes, mail, .. } = &mut log_terms;
        let to = mail.as_mut().and_then(|mail| mail.to.as_mut());
        [batch_name, notes, user_notes].into_iter().flatten().chain(to).for_each(&mut mend);
        log.iter_mut().chain(terms.own.iter_mut().map(|(_, value)| value)).for_each(&mut mend);
        let columns = width.checked_add(u16::try_from(counted.len()).ok()?)?;
        let mut text = Vec::new();
        for proc in &procs {
            let row = self.members.row(*proc);
            for column in 0..width {
                for part in parts(row.cell(column)) {
                    match part {
                        CellPart::Cluster => text.extend(cluster.to_string().into_bytes()),
                        CellPart::WordEnd => text.extend([crate::items::ESCAPE, b'w']),
                        CellPart::Text([crate::items::ESCAPE]) => text.extend([crate::items::ESCAPE, b'e']),
                        CellPart::Text(bytes) => text.extend_from_slice(bytes),
                    }
                }
                text.push(0);
            }
            for from in &counted {
                text.extend(proc.saturating_sub(*from).to_string().into_bytes());
                text.push(0);
            }
        }
        Some(GroupRecord {
            count: procs.len() as u32,
            program,
            log,
            terms,
            table: if columns > 0 { Some(Table::new(columns, text)?) } else { None },
            procs: None,
            tag: None,
            held: false,
            log_terms,
            origin: Some(Origin { cluster, procs: Procs::new(procs)? }),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.as_bytes().to_vec())
    }

    /// A cluster of 5: two groups that share their processes, with items, one of which names the cluster.
    fn pool() -> Pool {
        let group = |procs: &[u32], items: &str| GroupRecord {
            count: procs.len() as u32,
            program: Program {
                executable: Template::constant("/bin/sim"),
                arguments: vec![Template(vec![Piece::Words(1)]), Template(vec![Piece::ProcessFrom(1)])],
                output: Some(Template(vec![text("out."), Piece::Cluster, text("."), Piece::Process])),
                input: Some(Template(vec![Piece::Column(0), text(".in")])),
                cpus: 1,
                ..Program::default()
            },
            log: Some(Template(vec![Piece::Cluster, text(".log")])),
            table: Table::new(2, items.as_bytes().to_vec()),
            procs: Procs::new(procs.to_vec()),
            ..GroupRecord::default()
        };
        let mut pool = Pool::new();
        let first = group(&[0, 2, 4], "a\0x\u{1}wy\u{1}w\0b\0\u{1}c\u{1}w\0c\0\u{1}e\u{1}w\0");
        pool.submit(Time(1), "sim".into(), vec![first, group(&[1, 3], "d\0\0e\0z\u{1}w\0")]);
        pool
    }

    fn end(pool: &mut Pool, cluster: u32, proc: u32, end: End) {
        let id = AttemptId { job: JobId { cluster, proc }, attempt: 1 };
        let ended = Ended { id, site: 0, end, usage: Usage::default(), then: None };
        pool.apply(&Record::Ended { at: Time(2), ends: vec![ended] });
    }

    fn words(pool: &Pool, job: JobId) -> Vec<Vec<u8>> {
        let view = pool.view(job).unwrap();
        let program = view.program.filled(&view.row);
        let all = program.arguments.iter().chain(&program.output).chain(&program.input);
        all.chain(&view.log.map(|log| log.fill(&view.row))).map(|template| template.expand(job)).collect()
    }

    #[test]
    fn what_failed_is_described_as_it_was() {
        let mut pool = pool();
        let job = |cluster, proc| JobId { cluster, proc };
        end(&mut pool, 1, 0, End::Exited(0));
        [1, 2, 4].into_iter().for_each(|proc| end(&mut pool, 1, proc, End::Exited(1)));
        let failed: BTreeSet<u32> = (0..5).filter(|proc| pool.retriable(job(1, *proc), false) != Retry::No).collect();
        assert_eq!(failed, [1, 2, 4].into());
        let groups = pool.once_more(1, &failed);
        assert!(GroupRecord::are_whole(&groups));
        assert_eq!(pool.submit(Time(3), "sim".into(), groups), 2);
        for (new, old) in [(0, 2), (1, 4), (2, 1)] {
            assert_eq!(words(&pool, job(2, new)), words(&pool, job(1, old)));
            assert_eq!(pool.view(job(2, new)).unwrap().retry_of, Some(job(1, old)));
            assert_eq!(pool.retried_as(job(1, old)), Some(job(2, new)));
        }
        assert_eq!(words(&pool, job(2, 0))[2], b"out.1.2");
        let groups = pool.once_more(1, &failed);
        assert_eq!(
            (0..4).map(|proc| Origin::before(&groups, proc)).collect::<Vec<_>>(),
            [Some(job(1, 2)), Some(job(1, 4)), Some(job(1, 1)), None]
        );
        assert_eq!(
            (0..5).map(|proc| Origin::after(&groups, job(1, proc))).collect::<Vec<_>>(),
            [None, Some(2), Some(0), None, Some(1)]
        );

        // Once more of it is what failed of the second try, and nothing that runs or succeeded.
        assert_eq!(pool.retriable(job(1, 2), false), Retry::No);
        end(&mut pool, 2, 0, End::Signaled(9));
        end(&mut pool, 2, 1, End::Exited(0));
        let restored = Pool::new().restore(pool.snapshot());
        for pool in [&pool, &restored] {
            assert_eq!(pool.retriable(job(1, 2), false), Retry::Failed(job(2, 0)));
            assert_eq!(pool.retriable(job(1, 4), false), Retry::No);
        }
        let groups = restored.once_more(2, &[0].into());
        pool.submit(Time(4), "sim".into(), groups);
        assert_eq!(words(&pool, job(3, 0)), words(&pool, job(1, 2)), "outputs stay those of the first");
    }

    #[test]
    fn removed_jobs_are_retried_when_they_are_asked_for() {
        let mut pool = pool();
        pool.apply(&Record::Removed { at: Time(2), ranges: vec![(1, 3, 3)] });
        let job = JobId { cluster: 1, proc: 3 };
        assert_eq!(pool.retriable(job, false), Retry::No);
        assert_eq!(pool.retriable(job, true), Retry::Failed(job));
        assert_eq!(pool.retriable(JobId { cluster: 9, proc: 0 }, true), Retry::No);

        // One that a policy removed failed; one that the user removed didn't, though a policy had held it.
        let hold = Decision::Hold(Hold { why: "too much".into(), code: policy::JOB_POLICY, subcode: 0 });
        pool.apply(&Record::Judged { at: Time(3), ranges: vec![(1, 0, 0)], decision: hold });
        pool.apply(&Record::Removed { at: Time(4), ranges: vec![(1, 0, 0)] });
        let decision = Decision::Remove("too long".into());
        pool.apply(&Record::Judged { at: Time(4), ranges: vec![(1, 1, 1)], decision });
        assert_eq!(pool.retriable(JobId { cluster: 1, proc: 0 }, false), Retry::No);
        let removed = JobId { cluster: 1, proc: 1 };
        assert_eq!(pool.retriable(removed, false), Retry::Failed(removed));
    }
}
