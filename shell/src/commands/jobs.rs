//! `q` and `history`: jobs, as condor_q and condor_history show them.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use clap::Parser;
use jiff::tz::TimeZone;
use serde::Serialize;
use vo_core::JobId;
use vo_wire::control::{
    AdRows, ClusterRow, ClusterRows, Columns, Counts, JobRow, JobRows, JobState, ListClusters, ListJobs, Pick,
    SessionDetail, ShowSession,
};

use super::ads::{Format, Shown};
use super::{Asking, pick};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result, printable};
use crate::table::{JsonList, Side, Table, clock, count, date_and_time, now_ms, short_date, stdout, written};

/// Lists jobs that are not yet completed, a line for each cluster
#[derive(Parser, Debug)]
pub(crate) struct Queue {
    #[command(flatten)]
    asking: Asking,
    /// A line for each job
    #[arg(long, conflicts_with_all = ["hold", "run", "totals"])]
    pub(super) nobatch: bool,
    /// A line for each cluster: the default
    #[arg(long, conflicts_with_all = ["nobatch", "hold", "run", "totals"])]
    batch: bool,
    /// Held jobs and why they are held
    #[arg(long, visible_alias = "held", conflicts_with = "run")]
    hold: bool,
    /// Running jobs and where they run
    #[arg(long)]
    run: bool,
    /// Totals only
    #[arg(long, visible_alias = "total", conflicts_with_all = ["hold", "run"])]
    totals: bool,
    /// Completed and removed jobs too
    #[arg(long, visible_alias = "allusers")]
    all: bool,
    /// A JSON array, one object for each job
    #[arg(long, conflicts_with = "autoformat")]
    pub(super) json: bool,
    #[command(flatten)]
    shown: Shown,
    /// Clusters (12, 12-15), jobs (12.3, 12.3-9) or your own name, which means all [default: all]
    #[arg(value_name = "JOB", value_parser = own)]
    pub(super) picks: Vec<Option<Pick>>,
}

/// Lists completed and removed jobs, the last one first
#[derive(Parser, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    asking: Asking,
    /// The last N only
    #[arg(long, visible_alias = "match", value_name = "N")]
    pub(super) limit: Option<u32>,
    /// A JSON array, one object for each job, in order of number unless --limit is given
    #[arg(long, conflicts_with = "autoformat")]
    json: bool,
    #[command(flatten)]
    shown: Shown,
    /// Clusters (12, 12-15), jobs (12.3, 12.3-9) or your own name, which means all [default: all]
    #[arg(value_name = "JOB", value_parser = own)]
    picks: Vec<Option<Pick>>,
}

/// States of jobs that are not finished.
const UNFINISHED: [JobState; 6] =
    [JobState::Idle, JobState::Matched, JobState::Running, JobState::Unknown, JobState::Transferring, JobState::Held];
const RUNNING: [JobState; 3] = [JobState::Running, JobState::Unknown, JobState::Transferring];
const FINISHED: [JobState; 2] = [JobState::Completed, JobState::Removed];

/// Jobs, or the name of the user whose jobs are all there are.
pub(super) fn own(word: &str) -> std::result::Result<Option<Pick>, String> {
    if word == owner() { Ok(None) } else { pick(word).map(Some) }
}

pub(super) fn queue(arguments: Queue) -> Result<ExitCode> {
    let Queue { asking, nobatch, batch: _, hold, run, totals, all, json, shown, picks } = arguments;
    let format = shown.format(json)?;
    let mut master = asking.connect()?;
    let picks: Vec<Pick> = picks.into_iter().flatten().collect();
    let states = match (hold, run, all) {
        (true, ..) => vec![JobState::Held],
        (_, true, _) => RUNNING.to_vec(),
        // HTCondor's -all asks for all users' jobs.
        (.., true) if !shown.htcondor => Vec::new(),
        _ => UNFINISHED.to_vec(),
    };
    let columns = format.as_ref().map(Format::columns);
    let whole = picks.is_empty() && shown.constraint.is_empty();
    let jobs = ListJobs {
        picks: picks.clone(),
        states: states.clone(),
        last: None,
        constraint: shown.constraint.text(),
        columns,
        stays: states == UNFINISHED,
    };
    if let Some(format) = format {
        return format.show(&mut master, &jobs);
    }
    if json {
        return json_rows(&mut master, &jobs);
    }
    let head =
        Head { session: &master.welcome.session.clone(), owner: &owner(), now: now_ms(), zone: TimeZone::system() };
    let mut out = stdout();
    head.begin(&mut out).map_err(written)?;
    let mut found = Counts::default();
    if hold {
        head.held(&mut master, jobs, &mut found, &mut out)?;
    } else if nobatch || run {
        writeln!(out, "{}", if run { Head::RUNNING } else { Head::JOBS }).map_err(written)?;
        master.pages(&jobs, |page: JobRows| {
            page.rows.iter().try_for_each(|row| {
                add(&mut found, row.state);
                found.later += u32::from(row.starts_ms.is_some());
                writeln!(out, "{}", if run { head.running(row) } else { head.job(row) }).map_err(written)
            })
        })?;
    } else {
        let mut clusters = Vec::new();
        let listed = ListClusters { picks: picks.clone(), constraint: jobs.constraint.clone() };
        master.pages(&listed, |page: ClusterRows| {
            clusters.extend(page.rows);
            Ok(())
        })?;
        let unfinished: HashSet<String> =
            clusters.iter().filter(|c| c.counts.unfinished() > 0).filter_map(|c| c.batch.clone()).collect();
        let goes_on = |batch: &Option<String>| batch.as_ref().is_some_and(|batch| unfinished.contains(batch));
        // What is done of a batch that goes on is counted.
        let listed = |c: &ClusterRow| c.counts.unfinished() > 0 || c.stays != (0, 0) || goes_on(&c.batch);
        clusters.retain(|c| states.is_empty() || listed(c));
        if !totals {
            head.clusters(&batches(&clusters, &picks)).write(&mut out).and_then(|()| writeln!(out)).map_err(written)?;
        }
        found = total(&clusters);
        if !states.is_empty() {
            let stays = |pick: fn(&ClusterRow) -> u32| clusters.iter().map(pick).sum();
            (found.completed, found.removed, found.failed) = (stays(|c| c.stays.0), stays(|c| c.stays.1), 0);
        }
    }
    if run {
        return out.flush().map_err(written).map(|()| ExitCode::Success);
    }
    let every = if whole && !hold && !(nobatch && states.is_empty()) {
        found
    } else {
        let all = master.ask::<_, SessionDetail>(&ShowSession {})?.jobs;
        if states.is_empty() { all } else { Counts { completed: 0, removed: 0, failed: 0, ..all } }
    };
    if nobatch || hold {
        writeln!(out).map_err(written)?;
    }
    for (whose, counts) in [("query", found), ("all users", every)] {
        writeln!(out, "Total for {whose}: {}", in_words(&counts)).map_err(written)?;
    }
    writeln!(out).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

/// The counts of condor_q's last lines, with the jobs that failed, if any did.
fn in_words(counts: &Counts) -> String {
    let Counts { idle, running, held, completed, removed, failed, later } = *counts;
    let later = if later > 0 { format!(" ({later} wait for their time)") } else { String::new() };
    let failed = if failed > 0 { format!(" ({failed} failed)") } else { String::new() };
    let all = counts.total();
    format!(
        "{all} jobs; {completed} completed{failed}, {removed} removed, {idle} idle{later}, {running} running, {held} held, 0 suspended"
    )
}

fn json_rows(master: &mut Master, jobs: &ListJobs) -> Result<ExitCode> {
    let mut list = JsonList::new(stdout());
    master.pages(jobs, |page: JobRows| page.rows.iter().try_for_each(|row| list.push(&JobJson::new(row))))?;
    list.end().map(|()| ExitCode::Success)
}

pub(super) fn history(arguments: History) -> Result<ExitCode> {
    let History { asking, limit, json, shown, picks } = arguments;
    let format = shown.format(json)?;
    let picks = picks.into_iter().flatten().collect();
    let last = if json && format.is_none() { limit } else { limit.or(Some(u32::MAX)) };
    let columns = format.as_ref().map(Format::columns);
    let request =
        ListJobs { picks, states: FINISHED.to_vec(), last, constraint: shown.constraint.text(), columns, stays: false };
    let mut master = asking.connect()?;
    if let Some(format) = format {
        return format.show(&mut master, &request);
    }
    if json {
        return json_rows(&mut master, &request);
    }
    let head = Head { session: "", owner: &owner(), now: now_ms(), zone: TimeZone::system() };
    let mut out = stdout();
    if shown.htcondor {
        writeln!(out, "{}", Head::FINISHED).map_err(written)?;
        master.pages(&request, |page: JobRows| {
            page.rows.iter().try_for_each(|row| writeln!(out, "{}", head.was(row)).map_err(written))
        })?;
        return out.flush().map_err(written).map(|()| ExitCode::Success);
    }
    let mut rows = Vec::new();
    master.pages(&request, |page: JobRows| {
        rows.extend(page.rows);
        Ok(())
    })?;
    head.finished(&rows).write(&mut out).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

pub(super) fn owner() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name)
}

fn total(clusters: &[ClusterRow]) -> Counts {
    clusters.iter().fold(Counts::default(), |all, row| sum(&all, &row.counts))
}

fn sum(one: &Counts, other: &Counts) -> Counts {
    Counts {
        idle: one.idle + other.idle,
        running: one.running + other.running,
        held: one.held + other.held,
        completed: one.completed + other.completed,
        removed: one.removed + other.removed,
        failed: one.failed + other.failed,
        later: one.later + other.later,
    }
}

fn add(counts: &mut Counts, state: JobState) {
    *match state {
        JobState::Idle | JobState::Matched => &mut counts.idle,
        JobState::Running | JobState::Unknown | JobState::Transferring => &mut counts.running,
        JobState::Held => &mut counts.held,
        JobState::Completed => &mut counts.completed,
        JobState::Removed => &mut counts.removed,
    } += 1;
}

/// The jobs that a cluster's row counts: all of it, or those of it that were named.
fn ids(row: &ClusterRow, picks: &[Pick]) -> String {
    let first = JobId { cluster: row.cluster, proc: 0 };
    if let Some((low, high)) = row.span {
        let low = JobId { proc: low, ..first };
        return if low.proc == high { low.to_string() } else { format!("{low} ... {}", JobId { proc: high, ..first }) };
    }
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

/// A line of the batch view: a cluster, or those of one batch.
struct Batch {
    name: String,
    submitted_ms: u64,
    counts: Counts,
    ids: String,
    /// Its first and its last job.
    span: (JobId, JobId),
}

/// Clusters of one batch become one line, where the first of them stands.
fn batches(rows: &[ClusterRow], picks: &[Pick]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        let job = |proc| JobId { cluster: row.cluster, proc };
        let (first, last) = row.span.unwrap_or((0, row.counts.total().saturating_sub(1)));
        let place = row.batch.as_deref().and_then(|batch| known.get(batch)).copied();
        if let Some(batch) = place.and_then(|place| batches.get_mut(place)) {
            batch.counts = sum(&batch.counts, &row.counts);
            batch.span.1 = job(last);
            batch.ids = format!("{} ... {}", batch.span.0, batch.span.1);
            continue;
        }
        if let Some(batch) = &row.batch {
            known.insert(batch, batches.len());
        }
        batches.push(Batch {
            name: row.batch.as_ref().unwrap_or(&row.name).clone(),
            submitted_ms: row.submitted_ms,
            counts: row.counts,
            ids: ids(row, picks),
            span: (job(first), job(last)),
        });
    }
    batches
}

/// What all rows of a listing share.
struct Head<'a> {
    session: &'a str,
    owner: &'a str,
    now: u64,
    zone: TimeZone,
}

impl Head<'_> {
    const JOBS: &'static str = " ID      OWNER            SUBMITTED     RUN_TIME ST PRI SIZE CMD";
    const RUNNING: &'static str = " ID      OWNER            SUBMITTED     RUN_TIME HOST(S)";
    const HELD: &'static str = " ID      OWNER          HELD_SINCE  CODE/SUB HOLD_REASON";
    const FINISHED: &'static str = " ID          OWNER            SUBMITTED   RUN_TIME   ST   COMPLETED CMD";

    fn begin(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "\n\n-- Session: {} @ {}", self.session, date_and_time(self.now, &self.zone))
    }

    fn date(&self, ms: u64) -> String {
        short_date(ms, &self.zone)
    }

    /// The batch view of condor_q.
    fn clusters(&self, rows: &[Batch]) -> Table {
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
            let mut cells = vec![self.owner.into(), row.name.clone(), self.date(row.submitted_ms)];
            // As wide as condor_q's.
            cells.extend(
                [count(completed), count(running), count(idle), count(held), total.to_string()]
                    .map(|n| format!("{n:>6}")),
            );
            cells.push(row.ids.clone());
            table.row(cells);
        }
        table
    }

    /// What every line about a job begins with.
    fn who(&self, id: JobId) -> String {
        format!("{:>4}.{:<3} {:<14}", id.cluster, id.proc, self.owner)
    }

    /// A line of condor_q -nobatch.
    fn job(&self, row: &JobRow) -> String {
        let (who, date, time) = (self.who(row.id), self.date(row.submitted_ms), clock(self.wall(row)));
        let (state, priority, size) = (letter(row.state), row.priority, row.usage.peak_kib as f64 / 1024.0);
        format!("{who} {date:<11} {time:>12} {state:<2} {priority:<3} {size:>4.1} {}", named(&row.command))
    }

    /// A line of condor_q -run, with the site.
    fn running(&self, row: &JobRow) -> String {
        let (who, date, time) = (self.who(row.id), self.date(row.submitted_ms), clock(self.wall(row)));
        let (host, site) = (row.host.as_deref().unwrap_or_default(), row.site.as_deref().unwrap_or_default());
        format!("{who} {date:<11} {time:>12} {} ({})", printable(host), printable(site))
    }

    /// Those of condor_q -hold.
    fn held(&self, master: &mut Master, jobs: ListJobs, found: &mut Counts, out: &mut impl Write) -> Result<()> {
        let exprs = ["EnteredCurrentStatus", "HoldReasonCode ?: 0", "HoldReasonSubCode ?: 0", "HoldReason ?: \"\""];
        let columns = Columns { exprs: exprs.map(str::to_owned).to_vec(), ..Columns::default() };
        writeln!(out, "{}", Self::HELD).map_err(written)?;
        master.pages(&ListJobs { columns: Some(columns), ..jobs }, |page: AdRows| {
            page.rows.iter().try_for_each(|row| {
                let (Some(id), [since, code, sub, why]) = (row.job, row.cells.as_slice()) else {
                    return Err(Error::new(ExitCode::Internal, "the master said something unintelligible"));
                };
                found.held += 1;
                let since = self.date(since.parse::<u64>().unwrap_or(0).saturating_mul(1000));
                let code = format!("{code:>4}/{sub}");
                let why = printable(why).replace('\n', " ");
                writeln!(out, "{} {since:<11} {code:<8} {why}", self.who(id)).map_err(written)
            })
        })
    }

    /// A line of condor_history.
    fn was(&self, row: &JobRow) -> String {
        let completed = row.ended_ms.filter(|_| row.state == JobState::Completed).map(|ms| self.date(ms));
        format!(
            "{:<12} {:<14} {:>11} {:>12} {:<2} {:>11} {}",
            row.id.to_string(),
            self.owner,
            self.date(row.submitted_ms),
            clock(self.wall(row)),
            letter(row.state),
            completed.unwrap_or_default(),
            named(&row.command)
        )
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

/// A command without its directory.
fn named(command: &str) -> String {
    let (program, rest) = command.split_once(' ').map_or((command, ""), |(program, rest)| (program, rest));
    let name = program.rsplit('/').next().unwrap_or(program);
    if rest.is_empty() { name.to_owned() } else { format!("{name} {rest}") }
}

/// The same, cut where a line would be too long.
fn short(command: &str) -> String {
    const WIDTH: usize = 60;
    let text = named(command);
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
    /// While it waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_ms: Option<u64>,
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
            starts_ms: row.starts_ms,
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
            usage: Usage { wall_ms: 61_000, cpu_ms: 5, peak_kib: 3 << 10, ..Usage::default() },
            site: Some("tundra".into()),
            host: Some("n1".into()),
            reason: None,
            command: "/home/ann/bin/sim --seed 7".into(),
            priority: 0,
            entered_ms: 1_795_295_590_000,
            starts_ms: None,
        }
    }

    #[test]
    fn the_batch_view_names_the_jobs_that_it_counts() {
        let job = |proc| Pick::Job(JobId { cluster: 12, proc });
        let check = |total: u32, picks: &[Pick], expected: &str| {
            let counts = Counts { idle: total, ..Counts::default() };
            let row = ClusterRow {
                cluster: 12,
                name: String::new(),
                submitted_ms: 0,
                counts,
                span: None,
                batch: None,
                stays: (0, 0),
            };
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
        let counts = Counts { idle: 4, running: 2, held: 0, completed: 994, removed: 0, failed: 1, later: 3 };
        let cluster = |cluster, name: &str, counts, span| ClusterRow {
            cluster,
            name: name.into(),
            submitted_ms: 1_795_295_589_000,
            counts,
            span,
            batch: None,
            stays: (0, 0),
        };
        let rows = [
            cluster(12, "sim", counts, None),
            cluster(13, "one", Counts { held: 1, ..Counts::default() }, None),
            cluster(14, "some", Counts { idle: 2, ..Counts::default() }, Some((3, 9))),
        ];
        let dag = |row: ClusterRow| ClusterRow { batch: Some("x.dag+1".into()), ..row };
        let rows = rows.into_iter().chain([
            dag(cluster(15, "a.sub", Counts { completed: 2, ..Counts::default() }, None)),
            cluster(16, "two", Counts { idle: 1, ..Counts::default() }, None),
            dag(cluster(17, "b.sub", Counts { idle: 3, ..Counts::default() }, None)),
        ]);
        let rows: Vec<ClusterRow> = rows.collect();
        let mut out = Vec::new();
        HEAD.clusters(&batches(&rows, &[])).write(&mut out).unwrap();
        let expected = "OWNER BATCH_NAME   SUBMITTED   DONE    RUN   IDLE   HOLD  TOTAL JOB_IDS
ann   sim        11/21 21:13    994      2      4      _   1000 12.0-999
ann   one        11/21 21:13      _      _      _      1      1 13.0
ann   some       11/21 21:13      _      _      2      _      2 14.3 ... 14.9
ann   x.dag+1    11/21 21:13      2      _      3      _      5 15.0 ... 17.2
ann   two        11/21 21:13      _      _      1      _      1 16.0
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let expected = "1009 jobs; 996 completed (1 failed), 0 removed, 10 idle (3 wait for their time), 2 running, 1 held, 0 suspended";
        assert_eq!(in_words(&total(&rows)), expected);
    }

    /// Lines of condor_q 25.14, with our clock, owner and command.
    #[test]
    fn lines_stand_as_condor_q_has_them() {
        let usage = Usage { wall_ms: 11_000, cpu_ms: 0, peak_kib: 5 << 10, ..Usage::default() };
        let command = "/bin/sleep 60".to_owned();
        let row = JobRow { id: JobId { cluster: 1, proc: 4 }, usage, command, priority: 5, ..row(0, JobState::Idle) };
        let head = Head { owner: "alice", ..HEAD };
        assert_eq!(head.job(&row), "   1.4   alice          11/21 21:13   0+00:00:11 I  5    5.0 sleep 60");
        let runs = JobRow { state: JobState::Running, ..row.clone() };
        assert_eq!(head.running(&runs), "   1.4   alice          11/21 21:13   0+00:00:10 n1 (tundra)");
        let removed = JobRow { state: JobState::Removed, ..row };
        assert_eq!(head.was(&removed), "1.4          alice          11/21 21:13   0+00:00:11 X              sleep 60");
        let mut out = Vec::new();
        head.begin(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\n\n-- Session: default @ 11/21/26 21:13:20\n");
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
