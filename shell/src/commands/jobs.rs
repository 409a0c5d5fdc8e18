//! `q` and `history`: jobs, as condor_q and condor_history show them.

use std::io::Write;

use clap::Parser;
use jiff::tz::TimeZone;
use serde::Serialize;
use vo_core::JobId;
use vo_wire::control::{ClusterRow, ClusterRows, Counts, JobRow, JobRows, JobState, ListClusters, ListJobs, Pick};

use super::{Asking, pick};
use crate::error::{ExitCode, Result};
use crate::table::{JsonList, Side, Table, clock, count, now_ms, short_date, stdout, written};

/// Lists jobs that are not yet completed, a line for each cluster
#[derive(Parser, Debug)]
pub(crate) struct Queue {
    #[command(flatten)]
    asking: Asking,
    /// A line for each job
    #[arg(long)]
    pub(super) nobatch: bool,
    /// Held jobs and why they are held
    #[arg(long, conflicts_with = "run")]
    hold: bool,
    /// Running jobs and where they run
    #[arg(long)]
    run: bool,
    /// Completed and removed jobs too
    #[arg(long)]
    all: bool,
    /// A JSON array, one object for each job
    #[arg(long)]
    pub(super) json: bool,
    /// Clusters (12) or jobs (12.3) [default: all]
    #[arg(value_name = "JOB", value_parser = pick)]
    pub(super) picks: Vec<Pick>,
}

/// Lists completed and removed jobs
#[derive(Parser, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    asking: Asking,
    /// The last N only
    #[arg(long, visible_alias = "match", value_name = "N")]
    pub(super) limit: Option<u32>,
    /// A JSON array, one object for each job
    #[arg(long)]
    json: bool,
    /// Clusters (12) or jobs (12.3) [default: all]
    #[arg(value_name = "JOB", value_parser = pick)]
    picks: Vec<Pick>,
}

/// States of jobs that are not finished.
const UNFINISHED: [JobState; 6] =
    [JobState::Idle, JobState::Matched, JobState::Running, JobState::Unknown, JobState::Transferring, JobState::Held];
const RUNNING: [JobState; 3] = [JobState::Running, JobState::Unknown, JobState::Transferring];
const FINISHED: [JobState; 2] = [JobState::Completed, JobState::Removed];

pub(super) fn queue(arguments: Queue) -> Result<ExitCode> {
    let Queue { asking, nobatch, hold, run, all, json, picks } = arguments;
    let mut master = asking.connect()?;
    let states = match (hold, run, all) {
        (true, ..) => vec![JobState::Held],
        (_, true, _) => RUNNING.to_vec(),
        (.., true) => Vec::new(),
        _ => UNFINISHED.to_vec(),
    };
    let jobs = ListJobs { picks: picks.clone(), states, last: None };
    if json {
        let mut list = JsonList::new(stdout());
        master.pages(&jobs, |page: JobRows| page.rows.iter().try_for_each(|row| list.push(&JobJson::new(row))))?;
        return list.end().map(|()| ExitCode::Success);
    }
    let mut clusters = Vec::new();
    let listed = ListClusters { picks: picks.clone() };
    master.pages(&listed, |page: ClusterRows| {
        clusters.extend(page.rows);
        Ok(())
    })?;
    let mut rows = Vec::new();
    let by_job = nobatch || hold || run;
    if by_job {
        master.pages(&jobs, |page: JobRows| {
            rows.extend(page.rows);
            Ok(())
        })?;
    } else if !all {
        clusters.retain(|cluster| cluster.counts.unfinished() > 0);
    }
    let head = Head { session: &master.welcome.session, owner: &owner(), now: now_ms(), zone: TimeZone::system() };
    let table = match (by_job, hold) {
        (true, true) => head.held(&rows),
        (true, false) => head.jobs(&rows),
        (false, _) => head.clusters(&clusters, &picks),
    };
    head.write(&table, &total(&clusters), &mut stdout()).map_err(written)?;
    Ok(ExitCode::Success)
}

pub(super) fn history(arguments: History) -> Result<ExitCode> {
    let History { asking, limit, json, picks } = arguments;
    let request = ListJobs { picks, states: FINISHED.to_vec(), last: limit };
    let mut master = asking.connect()?;
    if json {
        let mut list = JsonList::new(stdout());
        master.pages(&request, |page: JobRows| page.rows.iter().try_for_each(|row| list.push(&JobJson::new(row))))?;
        return list.end().map(|()| ExitCode::Success);
    }
    let mut rows = Vec::new();
    master.pages(&request, |page: JobRows| {
        rows.extend(page.rows);
        Ok(())
    })?;
    let head = Head { session: "", owner: &owner(), now: now_ms(), zone: TimeZone::system() };
    let mut out = stdout();
    head.finished(&rows).write(&mut out).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

fn owner() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name)
}

fn total(clusters: &[ClusterRow]) -> Counts {
    clusters.iter().fold(Counts::default(), |sum, ClusterRow { counts, .. }| Counts {
        idle: sum.idle + counts.idle,
        running: sum.running + counts.running,
        held: sum.held + counts.held,
        completed: sum.completed + counts.completed,
        removed: sum.removed + counts.removed,
        failed: sum.failed + counts.failed,
    })
}

/// The jobs that a cluster's row counts: all of it, or those of it that were named.
fn ids(row: &ClusterRow, picks: &[Pick]) -> String {
    let first = JobId { cluster: row.cluster, proc: 0 };
    let of = |job: JobId| Some(job).filter(|job| job.cluster == row.cluster);
    let mut named: Vec<JobId> = picks
        .iter()
        .flat_map(|pick| match pick {
            Pick::Job(job) => [of(*job), None],
            Pick::Jobs(first, last) => [of(*first), of(JobId { proc: *last, ..*first })],
            Pick::Cluster(_) | Pick::Clusters(..) | Pick::Name(_) => [None, None],
        })
        .flatten()
        .collect();
    named.sort_unstable();
    let covers = |pick: &Pick| match pick {
        Pick::Cluster(cluster) => *cluster == row.cluster,
        Pick::Clusters(first, last) => (*first..=*last).contains(&row.cluster),
        Pick::Name(name) => *name == row.name,
        Pick::Job(_) | Pick::Jobs(..) => false,
    };
    let whole = named.is_empty() || picks.iter().any(covers);
    match (whole, named.first(), named.last(), row.counts.total()) {
        (false, Some(low), Some(high), _) if low != high => format!("{low} ... {high}"),
        (false, Some(only), ..) => only.to_string(),
        (.., total @ 2..) => format!("{first}-{}", total - 1),
        _ => first.to_string(),
    }
}

/// What all rows of a listing share.
struct Head<'a> {
    session: &'a str,
    owner: &'a str,
    now: u64,
    zone: TimeZone,
}

impl Head<'_> {
    fn write(&self, table: &Table, total: &Counts, out: &mut impl Write) -> std::io::Result<()> {
        let date = short_date(self.now, &self.zone);
        writeln!(out, "-- Session: {} @ {date}", self.session)?;
        table.write(out)?;
        let Counts { idle, running, held, completed, removed, failed } = *total;
        writeln!(
            out,
            "\nTotal: {} jobs; {completed} completed ({failed} failed), {removed} removed, {idle} idle, {running} running, {held} held",
            total.total()
        )?;
        out.flush()
    }

    fn date(&self, ms: u64) -> String {
        short_date(ms, &self.zone)
    }

    /// The batch view of condor_q.
    fn clusters(&self, rows: &[ClusterRow], picks: &[Pick]) -> Table {
        use Side::{Left, Right};
        let mut table = Table::new(&[
            ("OWNER", Left),
            ("BATCH_NAME", Left),
            ("SUBMITTED", Right),
            ("DONE", Right),
            ("RUN", Right),
            ("IDLE", Right),
            ("HOLD", Right),
            ("TOTAL", Right),
            ("JOB_IDS", Left),
        ]);
        for row in rows {
            let Counts { idle, running, held, completed, .. } = row.counts;
            let total = row.counts.total();
            table.row(vec![
                self.owner.into(),
                row.name.clone(),
                self.date(row.submitted_ms),
                count(completed),
                count(running),
                count(idle),
                count(held),
                total.to_string(),
                ids(row, picks),
            ]);
        }
        table
    }

    fn jobs(&self, rows: &[JobRow]) -> Table {
        use Side::{Left, Right};
        let mut table = Table::new(&[
            ("ID", Right),
            ("OWNER", Left),
            ("SUBMITTED", Right),
            ("RUN_TIME", Right),
            ("ST", Left),
            ("SITE", Left),
            ("HOST", Left),
            ("CMD", Left),
        ]);
        for row in rows {
            table.row(vec![
                row.id.to_string(),
                self.owner.into(),
                self.date(row.submitted_ms),
                clock(self.wall(row)),
                letter(row.state).into(),
                row.site.clone().unwrap_or_default(),
                row.host.clone().unwrap_or_default(),
                short(&row.command),
            ]);
        }
        table
    }

    fn held(&self, rows: &[JobRow]) -> Table {
        let mut table = Table::new(&[
            ("ID", Side::Right),
            ("OWNER", Side::Left),
            ("SUBMITTED", Side::Right),
            ("HOLD_REASON", Side::Left),
        ]);
        for row in rows {
            let why = row.reason.clone().unwrap_or_default();
            table.row(vec![row.id.to_string(), self.owner.into(), self.date(row.submitted_ms), why]);
        }
        table
    }

    fn finished(&self, rows: &[JobRow]) -> Table {
        use Side::{Left, Right};
        let mut table = Table::new(&[
            ("ID", Right),
            ("OWNER", Left),
            ("SUBMITTED", Right),
            ("RUN_TIME", Right),
            ("ST", Left),
            ("COMPLETED", Right),
            ("EXIT", Right),
            ("MEM", Right),
            ("SITE", Left),
            ("CMD", Left),
        ]);
        for row in rows {
            table.row(vec![
                row.id.to_string(),
                self.owner.into(),
                self.date(row.submitted_ms),
                clock(self.wall(row)),
                letter(row.state).into(),
                row.ended_ms.map(|ms| self.date(ms)).unwrap_or_default(),
                end(row),
                memory(row.usage.peak_kib),
                row.site.clone().unwrap_or_default(),
                short(&row.command),
            ]);
        }
        table
    }

    /// How long the last try ran, or has run.
    fn wall(&self, row: &JobRow) -> u64 {
        match (row.state, row.started_ms) {
            (JobState::Running | JobState::Unknown, Some(started)) => self.now.saturating_sub(started),
            _ => row.usage.wall_ms,
        }
    }
}

/// `0`, `3`, `SIGKILL`, or nothing for a job that didn't end by itself.
pub(super) fn end(row: &JobRow) -> String {
    match (row.exit_code, row.signal) {
        (_, Some(number)) => signal_name(number),
        (Some(code), None) => code.to_string(),
        (None, None) => String::new(),
    }
}

fn signal_name(number: u8) -> String {
    match nix::sys::signal::Signal::try_from(i32::from(number)) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("SIG{number}"),
    }
}

/// `12K`, `340M`, `1.5G`.
pub(super) fn memory(kib: u64) -> String {
    match kib {
        0 => String::new(),
        1..1024 => format!("{kib}K"),
        1024..1_048_576 => format!("{}M", kib.div_ceil(1024)),
        _ => format!("{:.1}G", kib as f64 / 1_048_576.0),
    }
}

/// The letters of condor_q, and M, U and > for what is between.
fn letter(state: JobState) -> &'static str {
    match state {
        JobState::Idle => "I",
        JobState::Matched => "M",
        JobState::Running => "R",
        JobState::Unknown => "U",
        JobState::Transferring => ">",
        JobState::Held => "H",
        JobState::Completed => "C",
        JobState::Removed => "X",
    }
}

pub(super) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Idle => "idle",
        JobState::Matched => "matched",
        JobState::Running => "running",
        JobState::Unknown => "unknown",
        JobState::Transferring => "transferring",
        JobState::Held => "held",
        JobState::Completed => "completed",
        JobState::Removed => "removed",
    }
}

/// A command without its directory, cut where a line would be too long.
fn short(command: &str) -> String {
    const WIDTH: usize = 60;
    let (program, rest) = command.split_once(' ').map_or((command, ""), |(program, rest)| (program, rest));
    let name = program.rsplit('/').next().unwrap_or(program);
    let text = if rest.is_empty() { name.to_owned() } else { format!("{name} {rest}") };
    match text.char_indices().nth(WIDTH) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

/// A job in `--json` listings. Keys are stable; what is not known is null.
#[derive(Serialize)]
pub(super) struct JobJson<'a> {
    job: String,
    cluster: u32,
    proc: u32,
    state: &'static str,
    attempts: u32,
    submitted_ms: u64,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    exit_code: Option<u8>,
    signal: Option<u8>,
    wall_ms: u64,
    cpu_ms: u64,
    peak_kib: u64,
    site: Option<&'a str>,
    host: Option<&'a str>,
    reason: Option<&'a str>,
    command: &'a str,
}

impl<'a> JobJson<'a> {
    pub(super) fn new(row: &'a JobRow) -> Self {
        JobJson {
            job: row.id.to_string(),
            cluster: row.id.cluster,
            proc: row.id.proc,
            state: state_name(row.state),
            attempts: row.attempts,
            submitted_ms: row.submitted_ms,
            started_ms: row.started_ms,
            ended_ms: row.ended_ms,
            exit_code: row.exit_code,
            signal: row.signal,
            wall_ms: row.usage.wall_ms,
            cpu_ms: row.usage.cpu_ms,
            peak_kib: row.usage.peak_kib,
            site: row.site.as_deref(),
            host: row.host.as_deref(),
            reason: row.reason.as_deref(),
            command: &row.command,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use vo_core::job::Usage;

    const HEAD: Head<'_> = Head { session: "default", owner: "ann", now: 1_795_295_600_000, zone: TimeZone::UTC };

    fn row(proc: u32, state: JobState) -> JobRow {
        JobRow {
            id: JobId { cluster: 12, proc },
            state,
            attempts: 1,
            submitted_ms: 1_795_295_589_000,
            started_ms: Some(1_795_295_590_000),
            ended_ms: None,
            exit_code: None,
            signal: None,
            usage: Usage { wall_ms: 61_000, cpu_ms: 5, peak_kib: 3 << 10 },
            site: Some("tundra".into()),
            host: Some("n1".into()),
            reason: None,
            command: "/home/ann/bin/sim --seed 7".into(),
        }
    }

    fn check(table: &Table, total: &Counts, expected: &str) {
        let mut out = Vec::new();
        HEAD.write(table, total, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_batch_view_names_the_jobs_that_it_counts() {
        let job = |proc| Pick::Job(JobId { cluster: 12, proc });
        let check = |total: u32, picks: &[Pick], expected: &str| {
            let counts = Counts { idle: total, ..Counts::default() };
            let row = ClusterRow { cluster: 12, name: String::new(), submitted_ms: 0, counts };
            assert_eq!(ids(&row, picks), expected, "{picks:?}");
        };
        check(1, &[], "12.0");
        check(5, &[], "12.0-4");
        check(5, &[Pick::Cluster(12), job(3)], "12.0-4");
        check(1, &[job(3)], "12.3");
        check(2, &[job(7), job(3), Pick::Cluster(9)], "12.3 ... 12.7");
    }

    #[test]
    fn the_batch_view() {
        let counts = Counts { idle: 4, running: 2, held: 0, completed: 994, removed: 0, failed: 1 };
        let cluster = |cluster, name: &str, counts| ClusterRow {
            cluster,
            name: name.into(),
            submitted_ms: 1_795_295_589_000,
            counts,
        };
        let rows = [cluster(12, "sim", counts), cluster(13, "one", Counts { held: 1, ..Counts::default() })];
        check(
            &HEAD.clusters(&rows, &[]),
            &total(&rows),
            "-- Session: default @ 11/21 21:13
OWNER BATCH_NAME   SUBMITTED DONE RUN IDLE HOLD TOTAL JOB_IDS
ann   sim        11/21 21:13  994   2    4    _  1000 12.0-999
ann   one        11/21 21:13    _   _    _    1     1 13.0

Total: 1001 jobs; 994 completed (1 failed), 0 removed, 4 idle, 2 running, 1 held
",
        );
    }

    #[test]
    fn the_job_view() {
        let rows = [row(3, JobState::Running), JobRow { site: None, host: None, ..row(14, JobState::Idle) }];
        check(
            &HEAD.jobs(&rows),
            &Counts { idle: 1, running: 1, ..Counts::default() },
            "-- Session: default @ 11/21 21:13
   ID OWNER   SUBMITTED   RUN_TIME ST SITE   HOST CMD
 12.3 ann   11/21 21:13 0+00:00:10 R  tundra n1   sim --seed 7
12.14 ann   11/21 21:13 0+00:01:01 I              sim --seed 7

Total: 2 jobs; 0 completed (0 failed), 0 removed, 1 idle, 1 running, 0 held
",
        );
    }

    #[test]
    fn history_shows_how_jobs_ended() {
        let killed = JobRow { ended_ms: Some(1_795_295_651_000), signal: Some(9), ..row(0, JobState::Completed) };
        let done = JobRow { exit_code: Some(3), signal: None, ..killed.clone() };
        let mut out = Vec::new();
        HEAD.finished(&[killed, done, row(2, JobState::Removed)]).write(&mut out).unwrap();
        let expected = "  ID OWNER   SUBMITTED   RUN_TIME ST   COMPLETED    EXIT MEM SITE   CMD
12.0 ann   11/21 21:13 0+00:01:01 C  11/21 21:14 SIGKILL  3M tundra sim --seed 7
12.0 ann   11/21 21:13 0+00:01:01 C  11/21 21:14       3  3M tundra sim --seed 7
12.2 ann   11/21 21:13 0+00:01:01 X                       3M tundra sim --seed 7
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_keys_are_stable() {
        let object = serde_json::to_value(JobJson::new(&row(3, JobState::Running))).unwrap();
        let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
        let expected = "attempts cluster command cpu_ms ended_ms exit_code host job peak_kib proc reason signal site started_ms state \
                        submitted_ms wall_ms";
        let mut sorted: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        sorted.sort_unstable();
        assert_eq!(sorted, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn long_commands_are_cut_between_characters() {
        let text = short(&format!("/usr/bin/echo {}", "é".repeat(100)));
        assert_eq!(text.chars().count(), 61);
        assert!(text.starts_with("echo é") && text.ends_with('…'));
    }
}
