//! `hold`, `release`, `edit`, `retry`, and what they share with `rm`.

use std::io::{self, IsTerminal, Write};

use clap::{Args, Parser};
use serde::Serialize;
use vo_core::pool;
use vo_lang::parse_bytes;
use vo_wire::control::{self, Alter, Alteration, Altered, Pick, Retried, RetriedRow};

use super::ads::Constraint;
use super::jobs::{own, owner};
use super::{Asking, Place, json_list, pick};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};

/// Above so many jobs, a person is asked first.
const MANY: u32 = 100;

/// Jobs that are to be changed.
#[derive(Args, Debug)]
pub(crate) struct Meant {
    #[command(flatten)]
    asking: Asking,
    /// All unfinished jobs
    #[arg(long, conflicts_with_all = ["picks", "batch_name"])]
    all: bool,
    #[command(flatten)]
    constraint: Constraint,
    /// Those of the clusters called so
    #[arg(long, value_name = "NAME")]
    batch_name: Vec<String>,
    /// Don't ask, however many they are
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
    /// Called by HTCondor's name, which fails where nothing is changed
    #[arg(long, hide = true)]
    htcondor: bool,
    /// Clusters (12, 12-15), jobs (12.3, 12.3-9) or your own name, which means all
    #[arg(value_name = "JOB", value_parser = own, required_unless_present_any = ["all", "batch_name", "constraint"])]
    picks: Vec<Option<Pick>>,
}

/// Holds jobs: they don't run until they are released; those that run are killed
#[derive(Parser, Debug)]
pub(crate) struct Hold {
    #[command(flatten)]
    meant: Meant,
    /// Why, for `q --hold` and `why` [default: by the user]
    #[arg(long, value_name = "WHY")]
    reason: Option<String>,
    /// Taken for HTCondor's sake
    #[arg(long, value_name = "N", hide = true)]
    subcode: Option<i32>,
}

/// Releases held jobs: they may run again
#[derive(Parser, Debug)]
pub(crate) struct Release {
    #[command(flatten)]
    meant: Meant,
    /// Taken for HTCondor's sake
    #[arg(long, value_name = "WHY", hide = true)]
    reason: Option<String>,
}

/// Takes running jobs off their slots: they are killed, and wait for another
///
/// They have the time that their descriptions give them to end in order.
#[derive(Parser, Debug)]
pub(crate) struct Vacate {
    #[command(flatten)]
    meant: Meant,
    /// Kill them at once
    #[arg(long)]
    fast: bool,
}

/// Changes what unfinished jobs ask for; those that run go on as they are
#[derive(Parser, Debug)]
pub(crate) struct Edit {
    #[command(flatten)]
    asking: Asking,
    /// All unfinished jobs
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    constraint: Constraint,
    /// Those of the clusters called so
    #[arg(long, value_name = "NAME")]
    batch_name: Vec<String>,
    /// Don't ask, however many they are
    #[arg(short, long)]
    yes: bool,
    /// Clusters (12, 12-15) or jobs (12.3, 12.3-9), then priority=N, requirements=EXPRESSION, rank=EXPRESSION, accounting_group=NAME,
    /// request_cpus=N, request_memory=SIZE, request_gpus=N or request_NAME=N
    #[arg(value_name = "JOB|NAME=VALUE", required = true)]
    words: Vec<String>,
}

/// Sets attributes of jobs' ads, as condor_qedit does: those that `edit` changes
#[derive(Parser, Debug)]
pub(crate) struct QEdit {
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    constraint: Constraint,
    /// Clusters (12), jobs (12.3) or your own name, then attributes and their values: JobPrio 5, or JobPrio=5
    #[arg(value_name = "JOB|NAME VALUE", required = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Sets jobs' priority, as condor_prio does
#[derive(Parser, Debug)]
pub(crate) struct Prio {
    #[command(flatten)]
    meant: Meant,
    /// The priority: jobs with a higher one run first
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    prio: i32,
}

/// Submits jobs that failed once more: those with a nonzero exit code, ended by a signal, or removed by a policy of theirs
///
/// They run in a cluster of their own, as they were described, with their inputs as these are now, and write the outputs that they would have written.
#[derive(Parser, Debug)]
pub(crate) struct Retry {
    #[command(flatten)]
    meant: Meant,
    /// Those that were removed, too
    #[arg(long)]
    removed: bool,
    /// A JSON array, one object for each cluster
    #[arg(long)]
    json: bool,
}

/// A cluster that was retried, as `--json` tells it.
#[derive(Serialize)]
struct RetriedJson {
    from: u32,
    of: u32,
    jobs: u32,
    cluster: Option<u32>,
}

pub(super) fn retry(arguments: Retry) -> Result<ExitCode> {
    let Retry { meant, removed, json } = arguments;
    let mut master = meant.asking.connect()?;
    let ask =
        |only_count| control::Retry { picks: meant.picks(), constraint: meant.constraint.text(), removed, only_count };
    if meant.asks() {
        let Retried { rows } = master.ask(&ask(true))?;
        let jobs = rows.iter().map(|row| row.jobs).sum();
        if jobs > MANY && !agreed("retry", jobs)? {
            println!("Nothing is retried.");
            return Ok(ExitCode::Failure);
        }
    }
    let Retried { rows } = master.ask(&ask(false))?;
    if json {
        return json_list(rows.into_iter().map(|RetriedRow { from, of, jobs, cluster }| RetriedJson {
            from,
            of,
            jobs,
            cluster,
        }));
    }
    for row in &rows {
        let RetriedRow { from, of, jobs, cluster } = *row;
        println!("{jobs} of {of} job(s) of cluster {from} submitted as cluster {}.", cluster.unwrap_or_default());
    }
    if rows.is_empty() {
        println!("Nothing is retried: no such job failed, or those that did were retried before.");
    }
    Ok(ExitCode::Success)
}

pub(super) fn hold(arguments: Hold) -> Result<ExitCode> {
    let Hold { meant, reason, subcode: _ } = arguments;
    let reason = reason.unwrap_or_else(|| if meant.htcondor { "via condor_hold" } else { "by the user" }.to_owned());
    alter(
        &meant,
        Alteration::Hold(reason),
        &Words { verb: "hold", done: "held", theirs: "held", already: "already held" },
    )
}

pub(super) fn release(arguments: Release) -> Result<ExitCode> {
    let already = "not held to be released";
    alter(
        &arguments.meant,
        Alteration::Release,
        &Words { verb: "release", done: "released", theirs: "released", already },
    )
}

pub(super) fn vacate(arguments: Vacate) -> Result<ExitCode> {
    let Vacate { meant, fast } = arguments;
    let words = match fast {
        false => Words { verb: "vacate", done: "vacated", theirs: "vacated", already: "not running to be vacated" },
        true => Words {
            verb: "fast-vacate",
            done: "fast-vacated",
            theirs: "fast-vacated",
            already: "not running to be fast-vacated",
        },
    };
    alter(&meant, Alteration::Vacate { fast }, &words)
}

pub(super) fn edit(arguments: Edit) -> Result<ExitCode> {
    let Edit { asking, all, constraint, batch_name, yes, words } = arguments;
    let (changes, jobs): (Vec<String>, Vec<String>) = words.into_iter().partition(|word| word.contains('='));
    let read = |word: &String| pick(word).map_err(|e| Error::usage(format!("{word:?} is no job: {e}")));
    let picks = jobs.iter().map(|word| read(word).map(Some)).collect::<Result<Vec<_>>>()?;
    if picks.is_empty() && !all && batch_name.is_empty() && constraint.is_empty() {
        return Err(Error::usage("no job is named").hint("`edit 12 priority=5` edits cluster 12; --all means all"));
    }
    if all && !(picks.is_empty() && batch_name.is_empty()) {
        return Err(Error::usage("--all and the names of jobs exclude each other"));
    }
    if changes.is_empty() {
        let hint = "`edit 12 priority=5 request_memory=4G` changes two things of cluster 12";
        return Err(Error::usage("nothing is to be changed").hint(hint));
    }
    let mut edit = pool::Edit::default();
    changes.iter().try_for_each(|change| set(&mut edit, change))?;
    alter(
        &Meant { asking, all, constraint, batch_name, yes, place: Place::default(), picks, htcondor: false },
        Alteration::Edit(edit),
        &Words { verb: "edit", done: "edited", theirs: "edited", already: "not edited" },
    )
}

pub(super) fn qedit(arguments: QEdit) -> Result<ExitCode> {
    let QEdit { asking, constraint, words } = arguments;
    let names = words.iter().take_while(|word| own(word).is_ok()).count();
    let (jobs, words) = words.split_at(names);
    let picks: Vec<_> = jobs.iter().filter_map(|word| own(word).ok()).collect();
    if picks.is_empty() && constraint.is_empty() {
        return Err(Error::usage("no job is named").hint("`condor_qedit 12 JobPrio 5` edits cluster 12"));
    }
    let mut changes = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, value),
            None => (word.as_str(), words.next().ok_or_else(|| Error::usage(format!("{word} has no value")))?.as_str()),
        };
        // A string of an ad is in double quotes.
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        changes.push((name.trim(), bare));
    }
    if changes.is_empty() {
        return Err(Error::usage("nothing is to be changed").hint("`condor_qedit 12 JobPrio 5` edits cluster 12"));
    }
    let mut edit = pool::Edit::default();
    changes.iter().try_for_each(|(name, value)| set(&mut edit, &format!("{name}={value}")))?;
    let jobs = change(&mut asking.connect()?, picks, constraint.text(), edit)?;
    if jobs == 0 {
        return Err(Error::new(ExitCode::Failure, "no such job is unfinished"));
    }
    changes.iter().for_each(|(name, _)| println!("Set attribute \"{name}\" for {jobs} matching jobs."));
    Ok(ExitCode::Success)
}

pub(super) fn prio(arguments: Prio) -> Result<ExitCode> {
    let Prio { meant, prio } = arguments;
    let edit = pool::Edit { priority: Some(prio), ..pool::Edit::default() };
    let jobs = change(&mut meant.asking.connect()?, meant.picks.clone(), meant.constraint.text(), edit)?;
    if jobs == 0 {
        return Err(Error::new(ExitCode::Failure, "no such job is unfinished"));
    }
    Ok(ExitCode::Success)
}

/// Edits jobs; how many.
fn change(master: &mut Master, picks: Vec<Option<Pick>>, constraint: Option<String>, edit: pool::Edit) -> Result<u32> {
    let picks = if picks.contains(&None) { Vec::new() } else { picks.into_iter().flatten().collect() };
    let alteration = Alteration::Edit(edit);
    let Altered { jobs } = master.ask(&Alter { picks, alteration, only_count: false, constraint, lenient: true })?;
    Ok(jobs)
}

/// Takes `NAME=VALUE` in.
fn set(edit: &mut pool::Edit, change: &str) -> Result<()> {
    const NAMES: [&str; 7] =
        ["priority", "requirements", "rank", "accounting_group", "request_cpus", "request_memory", "request_gpus"];
    let (name, value) = change.split_once('=').unwrap_or((change, ""));
    let (name, value) = (name.trim(), value.trim());
    let wrong = |expected: &str| Error::usage(format!("{name}={value}: expected {expected}"));
    match name.to_ascii_lowercase().as_str() {
        "priority" | "jobprio" => edit.priority = Some(value.parse().map_err(|_| wrong("a whole number"))?),
        "requirements" | "rank" => {
            if !value.is_empty() {
                super::ads::expression(value).map_err(|why| Error::usage(format!("{name}={value}: {why}")))?;
            }
            *(if name.eq_ignore_ascii_case("rank") { &mut edit.rank } else { &mut edit.requirements }) =
                Some(value.to_owned());
        }
        "accounting_group" | "acctgroup" => edit.accounting_group = Some(value.to_owned()),
        "request_cpus" | "requestcpus" => {
            let cpus = value.parse().ok().filter(|cpus| *cpus > 0);
            edit.cpus = Some(cpus.ok_or_else(|| wrong("a whole number from 1 on"))?);
        }
        "request_gpus" | "requestgpus" => edit.gpus = Some(value.parse().map_err(|_| wrong("a whole number"))?),
        "request_memory" | "requestmemory" => {
            let bytes = parse_bytes(value, 1 << 20).map_err(|expected| wrong(&expected.to_string()))?;
            edit.memory_mb = Some(bytes.div_ceil(1 << 20));
        }
        _ if let Some(resource) = resource(name) => {
            let count = value.parse().map_err(|_| wrong("a whole number"))?;
            edit.resources.push((resource.to_owned(), count));
        }
        _ => {
            let error = Error::usage(format!("{name:?} can't be edited"));
            return Err(error.hint(match vo_lang::nearest(name, NAMES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("what can be is {}", NAMES.join(", ")),
            }));
        }
    }
    Ok(())
}

/// The name of a resource of the site's own in `request_NAME` or `RequestNAME`.
fn resource(name: &str) -> Option<&str> {
    let start = name.get(.."request".len()).filter(|start| start.eq_ignore_ascii_case("request"))?;
    let name = name.get(start.len()..)?;
    let name = name.strip_prefix('_').unwrap_or(name);
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && vo_lang::nearest(name, ["cpus", "memory", "disk", "gpus"]).is_none()).then_some(name)
}

impl Meant {
    /// What is named; nothing, if all is meant.
    fn picks(&self) -> Vec<Pick> {
        if self.picks.iter().any(Option::is_none) {
            return Vec::new();
        }
        self.picks.iter().flatten().cloned().chain(self.batch_name.iter().cloned().map(Pick::Name)).collect()
    }

    /// Is there a person to ask?
    fn asks(&self) -> bool {
        !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}

/// How a change is called: `hold`, `held`, and as HTCondor calls it when it is done.
pub(super) struct Words {
    pub(super) verb: &'static str,
    pub(super) done: &'static str,
    pub(super) theirs: &'static str,
    /// What HTCondor says of a job that is there, and that the change doesn't concern.
    pub(super) already: &'static str,
}

/// Changes jobs. A person is asked when they are many.
pub(super) fn alter(meant: &Meant, alteration: Alteration, words: &Words) -> Result<ExitCode> {
    let mut master = meant.asking.connect()?;
    meant.place.check(&master.welcome.session)?;
    let (picks, Words { verb, done, .. }) = (meant.picks(), words);
    let ask = |only_count| Alter {
        picks: picks.clone(),
        alteration: alteration.clone(),
        only_count,
        constraint: meant.constraint.text(),
        lenient: meant.htcondor,
    };
    if meant.asks() {
        let Altered { jobs } = master.ask(&ask(true))?;
        if jobs > MANY && !agreed(verb, jobs)? {
            println!("Nothing is {done}.");
            return Ok(ExitCode::Failure);
        }
    }
    if meant.htcondor && meant.batch_name.is_empty() {
        return as_htcondor(&mut master, meant, &alteration, words);
    }
    let Altered { jobs } = master.ask(&ask(false))?;
    println!("{jobs} job(s) {done}.");
    Ok(if jobs == 0 && meant.htcondor { ExitCode::Failure } else { ExitCode::Success })
}

/// Changes jobs, and says so as HTCondor's tools do: jobs that are named one by one get a line each, all others one together.
fn as_htcondor(master: &mut Master, meant: &Meant, alteration: &Alteration, words: &Words) -> Result<ExitCode> {
    let Words { verb, theirs, already, .. } = words;
    let mut ask = |picks: Vec<Pick>, alteration: &Alteration, only_count, constraint| -> Result<u32> {
        let alteration = alteration.clone();
        let Altered { jobs } = master.ask(&Alter { picks, alteration, only_count, constraint, lenient: true })?;
        Ok(jobs)
    };
    let (single, others): (Vec<_>, Vec<_>) =
        meant.picks.iter().cloned().partition(|pick| matches!(pick, Some(Pick::Job(_))));
    let mut failed = false;
    let mut changed = 0;
    for pick in single.iter().flatten() {
        let Pick::Job(job) = pick else { continue };
        if ask(vec![pick.clone()], alteration, false, None)? > 0 {
            println!("Job {job} {theirs}");
            changed += 1;
        } else if ask(vec![pick.clone()], &Alteration::Remove, true, None)? > 0 {
            eprintln!("Job {job} {already}");
        } else {
            eprintln!("Job {job} not found");
        }
    }
    failed |= !single.is_empty() && changed == 0;
    let constraint = meant.constraint.text();
    if !others.is_empty() || single.is_empty() {
        let picks =
            if others.iter().any(Option::is_none) { Vec::new() } else { others.iter().flatten().cloned().collect() };
        let which = which(&others, constraint.as_deref());
        if ask(picks, alteration, false, constraint)? > 0 {
            println!("All jobs{which} have been {theirs}");
        } else if ask(Vec::new(), &Alteration::Remove, true, None)? == 0 {
            eprintln!("There are no jobs in the queue");
        } else {
            eprintln!("Couldn't find/{verb} all jobs{which}");
            failed = true;
        }
    }
    Ok(if failed { ExitCode::Failure } else { ExitCode::Success })
}

/// The end of a sentence: which jobs HTCondor's tools say that they changed.
fn which(picks: &[Option<Pick>], constraint: Option<&str>) -> String {
    let term = |pick: &Option<Pick>| match pick {
        None => format!("Owner == \"{}\"", owner()),
        Some(Pick::Cluster(cluster)) => format!("ClusterId == {cluster}"),
        Some(Pick::Clusters(first, last)) => format!("ClusterId >= {first} && ClusterId <= {last}"),
        Some(Pick::Job(first)) => format!("ClusterId == {} && ProcId == {}", first.cluster, first.proc),
        Some(Pick::Jobs(first, last)) => {
            format!("ClusterId == {} && ProcId >= {} && ProcId <= {last}", first.cluster, first.proc)
        }
        Some(Pick::Name(name)) => format!("JobBatchName == {name:?}"),
    };
    match (picks, constraint) {
        ([], None) => String::new(),
        ([], Some(constraint)) => format!(" matching constraint ({constraint})"),
        ([None], None) => format!(" of user \"{}\"", owner()),
        ([Some(Pick::Cluster(cluster))], None) => format!(" in cluster {cluster}"),
        (picks, constraint) => {
            let terms = picks.iter().map(term).collect::<Vec<_>>().join(" || ");
            match constraint {
                Some(constraint) => format!(" matching constraint (({constraint}) && ({terms}))"),
                None => format!(" matching constraint ({terms})"),
            }
        }
    }
}

fn agreed(verb: &str, jobs: u32) -> Result<bool> {
    let failed = |e| Error::system("cannot ask", e);
    let mut verb = verb.to_owned();
    if let Some(first) = verb.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    eprint!("{verb} {jobs} jobs? [y/N] ");
    io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_edited() {
        let check = |change: &str, expected: &str| {
            let mut edit = pool::Edit::default();
            let read = set(&mut edit, change).map_or_else(|e| e.to_string(), |()| edit.to_string());
            assert!(read.starts_with(expected), "{change}: {read}");
        };
        check("priority=-5", "priority = -5");
        check("Request_Cpus = 4", "request_cpus = 4");
        check("request_memory=2G", "request_memory = 2048");
        check("request_memory=1500", "request_memory = 1500");
        check("request_gpus=0", "request_gpus = 0");
        check("requirements=Cpus >= 4 && Site == \"a\"", "requirements = Cpus >= 4 && Site == \"a\"");
        check("Rank=", "rank = ");
        check("requirements=Cpus >", "error: requirements=Cpus >: no ClassAd expression: ");
        check("rank=(Memory", "error: rank=(Memory: no ClassAd expression: ");
        check("request_cpus=0", "error: request_cpus=0: expected a whole number from 1 on");
        check("priority=high", "error: priority=high: expected a whole number");
        check("prioritty=1", "error: \"prioritty\" can't be edited");
    }
}
