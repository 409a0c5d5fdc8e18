//! Waits for the jobs of a job event log, without a master.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vo_lang::eventlog::{Head, Reader};
use vo_wire::control::Pick;

use crate::error::{Error, ExitCode, Result};
use crate::table::{stdout, written};

/// How long a log may not be there, or tell of no job that is waited for: submissions are written to it a little after they are made.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at a log. It may be on a file system of the network, so nothing tells when it grows.
const PACE: Duration = Duration::from_millis(200);
/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// What to wait for, and what to show meanwhile.
pub(super) struct Asked {
    pub(super) picks: Vec<Pick>,
    /// Of how many jobs; all unless set.
    pub(super) count: Option<u64>,
    pub(super) deadline: Option<Instant>,
    pub(super) echo: bool,
    pub(super) status: bool,
    /// Go on after the last end.
    pub(super) all_events: bool,
    pub(super) quiet: bool,
}

/// Waits.
pub(super) fn run(path: &Path, asked: &Asked) -> Result<ExitCode> {
    let cannot = |e: io::Error| Error::new(ExitCode::Failure, format!("cannot read {}", path.display())).because(e);
    let started = Instant::now();
    let mut follower = Follower { path, file: None, reader: Reader::default() };
    let mut jobs = Jobs { picks: &asked.picks, ended: BTreeMap::new(), ends: 0 };
    let mut out = stdout();
    // When the log was begun.
    let mut begun = started;
    loop {
        let more = match follower.more() {
            Ok(more) => more,
            Err(e) if e.kind() == io::ErrorKind::NotFound && started.elapsed() < GRACE => More::Nothing,
            Err(e) => return Err(cannot(e).hint("`wait` takes jobs such as 12 or 12.3, or a job event log")),
        };
        if more == More::Anew {
            jobs.ended.clear();
            jobs.ends = 0;
            begun = Instant::now();
        }
        while let Some(event) = follower.reader.next_event() {
            let (head, text) = match event {
                Ok(event) => event,
                Err(fault) => {
                    let _ = writeln!(io::stderr(), "warning: {}: {fault}", path.display());
                    continue;
                }
            };
            if !jobs.take(&head) {
                continue;
            }
            if asked.echo {
                out.write_all(text.trim_ascii_end()).and_then(|()| writeln!(out)).map_err(written)?;
            } else if asked.status
                && let Some(word) = word(head.number)
            {
                let (cluster, proc) = (head.cluster.unwrap_or(-1), head.proc.unwrap_or(-1));
                writeln!(out, "{cluster}.{proc}.0 {word}").map_err(written)?;
            }
        }
        out.flush().map_err(written)?;
        if more != More::Some {
            if !asked.all_events && jobs.are_done(asked.count) {
                if !asked.quiet {
                    match asked.count {
                        None => writeln!(out, "All jobs done."),
                        Some(count) => writeln!(out, "Specified number of jobs ({count}) done."),
                    }
                    .and_then(|()| out.flush())
                    .map_err(written)?;
                }
                return Ok(ExitCode::Success);
            }
            if jobs.ended.is_empty() && begun.elapsed() >= GRACE {
                let what = if asked.picks.is_empty() { "no job" } else { "none of these jobs" };
                let error = Error::new(ExitCode::Failure, format!("{} tells of {what}", path.display()));
                return Err(error.hint("a job is in the log that `log = FILE` names in its description"));
            }
            let now = Instant::now();
            if asked.deadline.is_some_and(|deadline| deadline <= now) {
                let left = jobs.ended.values().filter(|ended| !**ended).count();
                let passed = vo_lang::format_duration(started.elapsed());
                return Err(Error::new(ExitCode::Failure, format!("{left} job(s) have not ended after {passed}")));
            }
            thread::sleep(asked.deadline.map_or(PACE, |deadline| PACE.min(deadline.saturating_duration_since(now))));
        }
    }
}

/// What an event is called.
fn word(number: u16) -> Option<&'static str> {
    Some(match number {
        0 => "submitted",
        1 => "executing",
        4 => "evicted",
        5 => "completed",
        9 => "aborted",
        12 => "held",
        13 => "released",
        22 => "disconnected",
        23 => "reconnected",
        24 => "not reconnected",
        _ => return None,
    })
}

/// What a look at a log brought.
#[derive(PartialEq, Eq)]
enum More {
    Nothing,
    Some,
    /// The log was begun anew, or replaced by another.
    Anew,
}

struct Follower<'a> {
    path: &'a Path,
    /// With how much was read.
    file: Option<(File, u64)>,
    reader: Reader,
}

impl Follower<'_> {
    fn more(&mut self) -> io::Result<More> {
        let (file, read) = match &mut self.file {
            Some(opened) => opened,
            None => self.file.insert((File::open(self.path)?, 0)),
        };
        let found = file.metadata()?;
        let same = |other: &Metadata| (other.dev(), other.ino()) == (found.dev(), found.ino());
        let mut bytes = Vec::new();
        if found.len() > *read {
            file.seek(SeekFrom::Start(*read))?;
            file.take(PIECE).read_to_end(&mut bytes)?;
        } else if found.len() < *read || std::fs::metadata(self.path).is_ok_and(|other| !same(&other)) {
            self.file = None;
            self.reader = Reader::default();
            return Ok(More::Anew);
        }
        *read += bytes.len() as u64;
        self.reader.feed(&bytes);
        Ok(if bytes.is_empty() { More::Nothing } else { More::Some })
    }
}

/// The jobs that a log tells of.
struct Jobs<'a> {
    picks: &'a [Pick],
    /// By cluster and process: whether it has ended. Process -1 stands for a cluster that has not made all of its jobs.
    ended: BTreeMap<(i64, i64), bool>,
    ends: u64,
}

impl Jobs<'_> {
    /// Takes an event in; is it of a job that is waited for?
    fn take(&mut self, head: &Head) -> bool {
        let Some(cluster) = head.cluster else { return false };
        let job = (cluster, head.proc.unwrap_or(-1));
        if !self.picks.is_empty() && !self.picks.iter().any(|pick| picked(pick, job)) {
            return false;
        }
        match head.number {
            5 | 9 | 36 => {
                if self.ended.insert(job, true) != Some(true) {
                    self.ends += u64::from(job.1 >= 0);
                }
            }
            number => {
                let ended = self.ended.entry(job).or_default();
                // Another session's jobs may have the same numbers.
                *ended &= number > 1;
            }
        }
        true
    }

    fn are_done(&self, count: Option<u64>) -> bool {
        match count {
            Some(count) => self.ends >= count,
            None => !self.ended.is_empty() && self.ended.values().all(|ended| *ended),
        }
    }
}

fn picked(pick: &Pick, (cluster, proc): (i64, i64)) -> bool {
    let is = |number: u32, id: i64| i64::from(number) == id;
    match pick {
        Pick::Cluster(wanted) => is(*wanted, cluster),
        Pick::Clusters(first, last) => (i64::from(*first)..=i64::from(*last)).contains(&cluster),
        Pick::Job(job) => is(job.cluster, cluster) && is(job.proc, proc),
        Pick::Jobs(first, last) => {
            is(first.cluster, cluster) && (i64::from(first.proc)..=i64::from(*last)).contains(&proc)
        }
        Pick::Name(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::pick;

    /// The numbers of events, with their jobs, and whether all that is picked has ended then; how many ends that were.
    fn check(picks: &[&str], events: &[(u16, i64, i64)], done: bool, ends: u64) {
        let picks: Vec<Pick> = picks.iter().map(|word| pick(word).unwrap_or_else(|e| panic!("{e}"))).collect();
        let mut jobs = Jobs { picks: &picks, ended: BTreeMap::new(), ends: 0 };
        for (number, cluster, proc) in events {
            jobs.take(&Head { number: *number, cluster: Some(*cluster), proc: Some(*proc), ..Head::default() });
        }
        assert_eq!((jobs.are_done(None), jobs.ends), (done, ends), "{picks:?} {events:?}");
        assert_eq!(jobs.are_done(Some(1)), ends >= 1);
    }

    #[test]
    fn jobs_have_ended_when_each_that_is_picked_has() {
        let log = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0), (5, 1, 0), (12, 1, 1), (9, 2, 0)];
        check(&[], &log, false, 2);
        check(&["1"], &log, false, 1);
        check(&["1.0"], &log, true, 1);
        check(&["2"], &log, true, 1);
        check(&["1.0-1"], &log, false, 1);
        check(&["2-9"], &log, true, 1);
        check(&["1.0", "2"], &log, true, 2);
        check(&["7"], &log, false, 0);
        check(&[], &[], false, 0);
        check(&[], &[(5, 1, 0), (5, 1, 0), (6, 1, 0)], true, 1);
        check(&[], &[(0, 1, 0), (5, 1, 0), (0, 1, 0)], false, 1);
    }

    #[test]
    fn a_cluster_that_makes_its_jobs_late_has_not_ended_before_it_is_removed() {
        let log = [(35, 1, -1), (0, 1, 0), (5, 1, 0)];
        check(&["1"], &log, false, 1);
        check(&["1"], &[&log[..], &[(36, 1, -1)]].concat(), true, 1);
    }
}
