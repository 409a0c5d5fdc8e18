//! `q` and `history`: jobs, as condor_q and condor_history show them.

mod lines;

use std::collections::{HashMap, HashSet};
use std::io::Write;

use clap::{Args, Parser};
use jiff::tz::TimeZone;
use serde::Serialize;
use vo_core::JobId;
use vo_core::dag::State;
use vo_wire::control::{
    AdRows, ClusterRow, ClusterRows, Columns, Counts, JobRow, JobRows, JobState, ListClusters, ListJobs, Pick,
    SessionDetail, ShowSession, Subject,
};
use vo_wire::dag::DagRow;

use lines::Head;
pub(super) use lines::{end, memory, state_name};

use super::ads::{Format, Shown, expression};
use super::{Asking, Place, dag, pick, why};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};
use crate::table::{JsonList, now_ms, stdout, written};

/// Lists jobs that are not yet completed, a line for each cluster
#[derive(Parser, Debug)]
pub(crate) struct Queue {
    #[command(flatten)]
    asking: Asking,
    /// A line for each job, as --hold, --run and --idle have anyway
    #[arg(long, conflicts_with = "totals")]
    pub(super) nobatch: bool,
    /// A line for each cluster: the default
    #[arg(long, conflicts_with_all = ["nobatch", "hold", "run", "idle", "totals"])]
    batch: bool,
    /// A line for each job, those of a DAG's nodes below it
    #[arg(long, conflicts_with_all = ["batch", "hold", "idle", "totals"])]
    dag: bool,
    /// Held jobs and why they are held
    #[arg(long, visible_alias = "held", conflicts_with = "run")]
    hold: bool,
    /// Running jobs and where they run
    #[arg(long)]
    run: bool,
    /// Idle jobs, what they ask for and how often they were started
    #[arg(long, conflicts_with_all = ["hold", "run"])]
    idle: bool,
    /// CPU time instead of the time that a job has run
    #[arg(long)]
    cputime: bool,
    /// The first N jobs only; of the batch view, the first N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// What `why` tells of the jobs, or of all that are not finished
    #[arg(long, visible_alias = "better-analyze", num_args = 0..=1, require_equals = true, value_name = "HOW",
          default_missing_value = "", conflicts_with_all = ["nobatch", "batch", "dag", "hold", "run", "idle", "totals", "all", "limit"])]
    analyze: Option<String>,
    /// Totals only
    #[arg(long, visible_alias = "total", conflicts_with_all = ["hold", "run", "idle"])]
    totals: bool,
    /// Completed and removed jobs too
    #[arg(long, visible_alias = "allusers")]
    all: bool,
    /// A JSON array, one object for each job
    #[arg(long, conflicts_with = "autoformat")]
    pub(super) json: bool,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    lines: Lines,
    /// Those of this user: all, or none
    #[arg(long, value_name = "USER")]
    submitter: Option<String>,
    /// Taken for HTCondor's sake: there is one queue
    #[arg(long, hide = true)]
    global: bool,
    /// Taken for HTCondor's sake: times are those of the last attempt anyway
    #[arg(long, hide = true)]
    currentrun: bool,
    /// Clusters (12, 12-15), jobs (12.3, 12.3-9) or your own name, which means all [default: all]
    #[arg(value_name = "JOB", value_parser = whose)]
    pub(super) picks: Vec<Whose>,
}

/// Of listings in lines.
#[derive(Args, Debug)]
pub(crate) struct Lines {
    /// Lines are not cut, which they are not anyway; `-wide:N` cuts them
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    wide: Option<usize>,
    #[command(flatten)]
    place: Place,
}

/// Lists completed and removed jobs, the last one first
#[derive(Parser, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    asking: Asking,
    /// The last N only; with --forwards the first; 0 is all
    #[arg(long, visible_alias = "match", value_name = "N")]
    pub(super) limit: Option<u32>,
    /// Those that ended after this job, or after the last of which this ClassAd expression holds
    #[arg(long, value_name = "JOB|EXPRESSION", value_parser = since, conflicts_with = "forwards")]
    since: Option<String>,
    /// Those that were completed after this time, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    completedsince: Option<u64>,
    /// Look at N jobs at the most, whether a constraint holds of them or not; 0 is all
    #[arg(long, value_name = "N")]
    scanlimit: Option<u32>,
    /// The one that ended first comes first
    #[arg(long, conflicts_with = "backwards")]
    forwards: bool,
    /// The one that ended last comes first: the default
    #[arg(long)]
    backwards: bool,
    /// A JSON array, one object for each job, in order of number unless the order of time is asked for
    #[arg(long, conflicts_with = "autoformat")]
    json: bool,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    lines: Lines,
    /// Clusters (12, 12-15), jobs (12.3, 12.3-9) or your own name, which means all [default: all]
    #[arg(value_name = "JOB", value_parser = whose)]
    picks: Vec<Whose>,
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

/// Whose jobs are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Jobs(Pick),
    Own,
    /// Another user, who has none here.
    Other(String),
}

fn whose(word: &str) -> std::result::Result<Whose, String> {
    match own(word) {
        Ok(None) => Ok(Whose::Own),
        Ok(Some(pick)) => Ok(Whose::Jobs(pick)),
        Err(_) if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => Ok(Whose::Other(word.to_owned())),
        Err(error) => Err(error),
    }
}

/// The jobs that are meant, and whether they are none, as all are another user's. By our own name of the command that is an error.
fn meant(whose: Vec<Whose>, htcondor: bool) -> Result<(Vec<Pick>, bool)> {
    let (mut picks, mut own, mut others) = (Vec::new(), whose.is_empty(), false);
    for one in whose {
        match one {
            Whose::Jobs(pick) => picks.push(pick),
            Whose::Own => own = true,
            Whose::Other(_) if htcondor => others = true,
            Whose::Other(name) => {
                let why = pick(&name).err().unwrap_or_default();
                return Err(Error::usage(format!("{name:?} is no job: {why}")));
            }
        }
    }
    let none = others && !own && picks.is_empty();
    Ok((if own { Vec::new() } else { picks }, none))
}

/// What ends a history: a job, as an expression, or an expression.
fn since(text: &str) -> std::result::Result<String, String> {
    match pick(text) {
        Ok(Pick::Job(JobId { cluster, proc })) => Ok(format!("ClusterId == {cluster} && ProcId == {proc}")),
        Ok(Pick::Cluster(cluster)) => Ok(format!("ClusterId == {cluster}")),
        _ => expression(text),
    }
}

/// All conditions in one.
fn all_of(conditions: impl IntoIterator<Item = String>) -> Option<String> {
    let all: Vec<String> = conditions.into_iter().map(|text| format!("({text})")).collect();
    (!all.is_empty()).then(|| all.join(" && "))
}

pub(super) fn queue(arguments: Queue) -> Result<ExitCode> {
    let Queue { asking, nobatch, dag, hold, run, idle, totals, all, json, shown, limit, .. } = arguments;
    let format = shown.format(json)?;
    let (picks, mut none) = meant(arguments.picks, shown.htcondor)?;
    none |= arguments.submitter.is_some_and(|user| user.split('@').next() != Some(&owner()));
    // HTCondor's -dag alone is the batch view.
    let nobatch = nobatch || dag && !run && !shown.htcondor;
    let mut master = asking.connect()?;
    arguments.lines.place.check(&master.welcome.session)?;
    let constraint = all_of(shown.constraint.text().into_iter().chain(none.then(|| "false".to_owned())));
    if let Some(how) = arguments.analyze {
        if how.split(',').any(|how| how == "reverse") {
            let error = Error::usage("-analyze:reverse: machines are not analyzed");
            return Err(error.hint("`why JOB` tells which slots fail which clause"));
        }
        let subjects = subjects(&mut master, picks, constraint)?;
        return why::all(&mut master, &subjects, json);
    }
    let states = match (hold, run, all) {
        (true, ..) => vec![JobState::Held],
        (_, true, _) => RUNNING.to_vec(),
        _ if idle => vec![JobState::Idle, JobState::Matched],
        // HTCondor's -all asks for all users' jobs.
        (.., true) if !shown.htcondor => Vec::new(),
        _ => UNFINISHED.to_vec(),
    };
    let columns = format.as_ref().map(Format::columns);
    let whole = picks.is_empty() && constraint.is_none() && limit.is_none();
    let jobs = ListJobs {
        picks: picks.clone(),
        states: states.clone(),
        constraint,
        columns,
        stays: states == UNFINISHED,
        first: limit,
        ..ListJobs::default()
    };
    if let Some(format) = format {
        return format.show(&mut master, &jobs);
    }
    if json {
        return json_rows(&mut master, &jobs);
    }
    let head = Head {
        session: &master.welcome.session.clone(),
        owner: &owner(),
        now: now_ms(),
        zone: TimeZone::system(),
        cpu: arguments.cputime,
        wide: arguments.lines.wide.filter(|wide| *wide > 0),
    };
    let mut out = stdout();
    head.begin(&mut out).map_err(written)?;
    let mut found = Counts::default();
    if hold {
        head.held(&mut master, jobs, &mut found, &mut out)?;
    } else if idle {
        head.idle(&mut master, jobs, &mut out)?;
    } else if dag && (nobatch || run) {
        let family = family(&mut master, &jobs)?;
        let mut rows = Vec::new();
        master.pages(&jobs, |page: JobRows| {
            rows.extend(page.rows);
            Ok(())
        })?;
        head.say(&head.titles(true), &mut out)?;
        for (place, depth) in generations(&rows, &family) {
            let Some(row) = rows.get(place) else { continue };
            add(&mut found, row.state);
            head.say(&head.relative(row, family.get(&row.id), depth), &mut out)?;
        }
    } else if nobatch || run {
        head.say(&if run { Head::RUNNING.to_owned() } else { head.titles(false) }, &mut out)?;
        master.pages(&jobs, |page: JobRows| {
            page.rows.iter().try_for_each(|row| {
                add(&mut found, row.state);
                found.later += u32::from(row.starts_ms.is_some());
                head.say(&if run { head.running(row) } else { head.job(row) }, &mut out)
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
            let mut batches = batches(&clusters, &picks);
            if jobs.constraint.is_none() {
                with_dags(&mut batches, &dag::rows(&mut master)?, &picks);
            }
            batches.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
            head.clusters(&batches).write(&mut out).and_then(|()| writeln!(out)).map_err(written)?;
        }
        found = total(&clusters);
        if !states.is_empty() {
            let stays = |pick: fn(&ClusterRow) -> u32| clusters.iter().map(pick).sum();
            (found.completed, found.removed, found.failed) = (stays(|c| c.stays.0), stays(|c| c.stays.1), 0);
        }
    }
    if (run && !dag) || idle {
        return out.flush().map_err(written).map(|()| ExitCode::Success);
    }
    let every = if whole && !hold && !(nobatch && states.is_empty()) {
        found
    } else {
        let all = master.ask::<_, SessionDetail>(&ShowSession {})?.jobs;
        if states.is_empty() { all } else { Counts { completed: 0, removed: 0, failed: 0, ..all } }
    };
    if nobatch || hold || run {
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

/// What `-analyze` is about: the jobs that are meant, or each cluster that has unfinished ones.
fn subjects(master: &mut Master, picks: Vec<Pick>, constraint: Option<String>) -> Result<Vec<(Subject, String)>> {
    let mut subjects = Vec::new();
    if constraint.is_some() || picks.iter().any(|pick| matches!(pick, Pick::Jobs(..))) {
        let jobs = ListJobs { picks, states: UNFINISHED.to_vec(), constraint, ..ListJobs::default() };
        master.pages(&jobs, |page: JobRows| {
            subjects.extend(page.rows.iter().map(|row| (Subject::Job, row.id.to_string())));
            Ok(())
        })?;
        return Ok(subjects);
    }
    let (jobs, clusters): (Vec<_>, Vec<_>) = picks.into_iter().partition(|pick| matches!(pick, Pick::Job(_)));
    for pick in &jobs {
        if let Pick::Job(job) = pick {
            subjects.push((Subject::Job, job.to_string()));
        }
    }
    if jobs.is_empty() || !clusters.is_empty() {
        let named = !clusters.is_empty();
        master.pages(&ListClusters { picks: clusters, constraint }, |page: ClusterRows| {
            let some = page.rows.iter().filter(|row| named || row.counts.unfinished() > 0);
            subjects.extend(some.map(|row| (Subject::Cluster, row.cluster.to_string())));
            Ok(())
        })?;
    }
    Ok(subjects)
}

/// Of the jobs that DAGs submitted: the DAG and the node.
fn family(master: &mut Master, jobs: &ListJobs) -> Result<HashMap<JobId, (u32, String)>> {
    let columns = Columns { exprs: ["DAGManJobId", "DAGNodeName"].map(str::to_owned).to_vec(), ..Columns::default() };
    let mut family = HashMap::new();
    master.pages(&ListJobs { columns: Some(columns), ..jobs.clone() }, |page: AdRows| {
        family.extend(page.rows.into_iter().filter_map(|row| {
            let [dag, node] = row.cells.try_into().ok()?;
            Some((row.job?, (dag.parse().ok()?, node)))
        }));
        Ok(())
    })?;
    Ok(family)
}

/// The places of rows, each DAG before what it submitted, and how many DAGs stand above each.
fn generations(rows: &[JobRow], family: &HashMap<JobId, (u32, String)>) -> Vec<(usize, usize)> {
    let listed: HashSet<u32> = rows.iter().map(|row| row.id.cluster).collect();
    let mut below: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut open = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        match family.get(&row.id).filter(|(dag, _)| listed.contains(dag)) {
            Some((dag, _)) => below.entry(*dag).or_default().push(place),
            None => open.push((place, 0)),
        }
    }
    open.reverse();
    let mut all = Vec::with_capacity(rows.len());
    while let Some((place, depth)) = open.pop() {
        all.push((place, depth));
        let children = rows.get(place).and_then(|row| below.remove(&row.id.cluster)).unwrap_or_default();
        open.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
    }
    all
}

pub(super) fn history(arguments: History) -> Result<ExitCode> {
    let History { asking, limit, json, shown, forwards, since, .. } = arguments;
    let format = shown.format(json)?;
    let (picks, none) = meant(arguments.picks, shown.htcondor)?;
    let some = |number: &u32| *number > 0;
    let (limit, scan) = (limit.filter(some), arguments.scanlimit.filter(some));
    let timeless = json && format.is_none() && !forwards && !arguments.backwards && since.is_none() && scan.is_none();
    let completed = arguments.completedsince.map(|time| format!("CompletionDate > {time}"));
    let conditions = shown.constraint.text().into_iter().chain(completed).chain(none.then(|| "false".to_owned()));
    let request = ListJobs {
        picks,
        states: FINISHED.to_vec(),
        last: if timeless { limit } else { limit.or(Some(u32::MAX)) },
        constraint: all_of(conditions),
        columns: format.as_ref().map(Format::columns),
        forwards,
        since,
        scan,
        ..ListJobs::default()
    };
    let mut master = asking.connect()?;
    arguments.lines.place.check(&master.welcome.session)?;
    if let Some(format) = format {
        return format.show(&mut master, &request);
    }
    if json {
        return json_rows(&mut master, &request);
    }
    let wide = arguments.lines.wide.filter(|wide| *wide > 0);
    let head = Head { session: "", owner: &owner(), now: now_ms(), zone: TimeZone::system(), cpu: false, wide };
    let mut out = stdout();
    if shown.htcondor {
        head.say(Head::FINISHED, &mut out)?;
        master
            .pages(&request, |page: JobRows| page.rows.iter().try_for_each(|row| head.say(&head.was(row), &mut out)))?;
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
    /// Nodes of the DAGs that it is of, done and in all.
    nodes: Option<(u32, u32)>,
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
            nodes: None,
        });
    }
    batches
}

/// Batches of DAGs that have not ended tell of nodes, also where none has jobs now.
fn with_dags(batches: &mut Vec<Batch>, dags: &[DagRow], picks: &[Pick]) {
    for row in dags.iter().filter(|row| row.code.is_none()) {
        let mut top = row;
        while let Some(parent) = top.parent.as_ref().and_then(|(parent, _)| dags.iter().find(|row| row.dag == *parent))
        {
            top = parent;
        }
        let job = JobId { cluster: top.dag, proc: 0 };
        let picked = |pick: &Pick| match pick {
            Pick::Cluster(cluster) => *cluster == job.cluster,
            Pick::Clusters(first, last) => (*first..=*last).contains(&job.cluster),
            Pick::Job(picked) => *picked == job,
            Pick::Jobs(..) | Pick::Name(_) => false,
        };
        let name = top.batch();
        let place = batches.iter().position(|batch| batch.name == name).or_else(|| {
            (picks.is_empty() || picks.iter().any(picked)).then(|| {
                let place = batches.partition_point(|batch| batch.span.0 < job);
                let (counts, ids) = (Counts::default(), job.to_string());
                let submitted_ms = top.submitted_ms;
                batches.insert(place, Batch { name, submitted_ms, counts, ids, span: (job, job), nodes: None });
                place
            })
        });
        if let Some(batch) = place.and_then(|place| batches.get_mut(place)) {
            let (done, total) = batch.nodes.unwrap_or_default();
            batch.nodes = Some((done + row.of(State::Done), total + row.total()));
        }
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
    use super::lines::short;
    use super::*;
    use vo_core::job::Usage;

    const HEAD: Head<'_> =
        Head { session: "default", owner: "ann", now: 1_795_295_600_000, zone: TimeZone::UTC, cpu: false, wide: None };

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
    fn jobs_of_a_dag_stand_below_it() {
        let job = |cluster| JobRow { id: JobId { cluster, proc: 0 }, ..row(0, JobState::Idle) };
        let rows: Vec<JobRow> = [1, 2, 3, 4, 5, 6].map(job).into();
        let node = |cluster, dag, node: &str| (JobId { cluster, proc: 0 }, (dag, node.to_owned()));
        let family: HashMap<JobId, (u32, String)> =
            [node(2, 1, "A"), node(3, 1, "SUB"), node(4, 1, "ANodeWithALongName"), node(5, 3, "S1")].into();
        let head = Head { owner: "alice", ..HEAD };
        let lines = |rows: &[JobRow]| -> String {
            let places = generations(rows, &family);
            let line = |(place, depth): &(usize, usize)| {
                let row = &rows[*place];
                head.relative(row, family.get(&row.id), *depth).chars().take(38).collect::<String>() + "\n"
            };
            places.iter().map(line).collect()
        };
        // As condor_q 25.14 has them.
        assert_eq!(head.titles(true), " ID      OWNER/NODENAME      SUBMITTED     RUN_TIME ST PRI SIZE CMD");
        assert_eq!(
            lines(&rows),
            "   1.0   alice             11/21 21:13
   2.0    |-A              11/21 21:13
   3.0    |-SUB            11/21 21:13
   5.0     |-S1            11/21 21:13
   4.0    |-ANodeWithALong 11/21 21:13
   6.0   alice             11/21 21:13
"
        );
        assert_eq!(
            lines(&rows[4..]),
            "   5.0   |-S1              11/21 21:13\n   6.0   alice             11/21 21:13\n"
        );
    }

    #[test]
    fn users_and_jobs_are_told_apart() {
        let (own, job) = (Whose::Own, Whose::Jobs(Pick::Cluster(12)));
        assert_eq!(whose(&owner()), Ok(Whose::Own));
        assert_eq!(whose("bob"), Ok(Whose::Other("bob".into())));
        assert!(whose("12.").is_err());
        let bob = || Whose::Other("bob".into());
        assert_eq!(meant(vec![], true).unwrap(), (vec![], false));
        assert_eq!(meant(vec![bob()], true).unwrap(), (vec![], true));
        assert_eq!(meant(vec![bob(), job.clone()], true).unwrap(), (vec![Pick::Cluster(12)], false));
        assert_eq!(meant(vec![own, job, bob()], true).unwrap(), (vec![], false));
        assert!(meant(vec![bob()], false).unwrap_err().to_string().contains("\"bob\" is no job"));
    }

    #[test]
    fn a_history_ends_at_a_job_or_an_expression() {
        assert_eq!(since("5.3").unwrap(), "ClusterId == 5 && ProcId == 3");
        assert_eq!(since("5").unwrap(), "ClusterId == 5");
        assert_eq!(since("JobStatus == 3").unwrap(), "JobStatus == 3");
        assert!(since("foo(").is_err());
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
