//! Drives the DAGs of a session: `vo_core::dag` with real scripts, submissions and files.
//!
//! Each DAG has a directory `dags/N` in the session's: `bundle`, all that it was submitted with, from which its plan is worked out
//! anew whenever the master starts; `log`, the records of its run; and in their place, once it has ended, `ended`, its row. The number N is
//! taken from those of clusters: to listings and to who holds, releases and removes jobs, the DAG is a job `N.0`, as DAGMan is.
//!
//! A node's jobs are submitted by a `submit` that is kept for the DAG, in the node's directory and the DAG's environment: reading
//! descriptions and what they name takes time and may fail in many ways, none of which is the master's affair. The submission carries
//! the node and the try as its tag, by which the master knows one that came before.

mod files;
pub(crate) mod job;
mod log;
mod node;
mod states;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vo_core::Time;
use vo_core::dag::{self as core, Action, Event, Jobs, Record, Run, Script, State};
use vo_core::ids::JobId;
use vo_core::pool::{self, End, Pool, Select};
use vo_lang::dag::{self as lang, Dag, Description, Kind, ScriptKind};
use vo_lang::eventlog::{self, Body, Resources, Spent};
use vo_store::{Log, Options, Replay};
use vo_wire::dag::{Bundle, DagNode, DagRow, Order};

pub(crate) use job::{Job, concerns};

use crate::eventlog::Entry;
use crate::jobad::Facts;
use files::Out;
use log::Logs;
use node::Submitter;
use states::JobStates;

/// Nodes that are being submitted at a time, each by a process.
const SUBMITTING: usize = 4;
/// How long such a process is kept without work.
const KEPT: Duration = Duration::from_secs(10);
/// DAGs that have ended are listed up to this many.
const ENDED: usize = 1000;
/// What is drawn and told of a DAG that changes is written at most this often.
const WRITE_PACE: Duration = Duration::from_secs(1);
/// Halt files are looked for, and jobs counted that say nothing of themselves, this often.
const TICK: Duration = Duration::from_secs(1);
/// Clusters that are counted at every tick, at most.
const COUNTED: usize = 10_000;
/// Characters kept of what went wrong.
const PROBLEM: usize = 400;

/// What tasks and threads tell.
pub(crate) enum Told {
    /// Records of a DAG are durable, or can't be.
    Durable(u32, Result<u64, String>),
    /// A bundle was read, for a client.
    Loaded { client: u64, bundle: PathBuf, loaded: Result<Box<Loaded>, String> },
    /// A script ended; its `serial` tells it from others of its node.
    ScriptEnded { dag: u32, node: u32, script: Script, serial: u64, code: i32 },
    /// A node was submitted as this cluster of so many jobs (a DAG as this DAG), or can't be.
    Submitted { dag: u32, node: u32, by: Option<Box<Submitter>>, result: Result<(u32, u32), String> },
}

/// A bundle, understood.
pub(crate) struct Loaded {
    bundle: Bundle,
    dag: Dag,
    run: Run,
}

impl Loaded {
    /// Is its end to be told by mail?
    pub(crate) fn asks_for_mail(&self) -> bool {
        self.bundle.options.mail.is_some()
    }
}

struct RunningScript {
    serial: u64,
    kill: Option<tokio::sync::oneshot::Sender<()>>,
}

struct Active {
    bundle: Bundle,
    dag: Dag,
    run: Run,
    /// Records of the log before this life, and how many of this life are durable.
    base: u64,
    durable: u64,
    actions: VecDeque<(u64, Action)>,
    row: DagRow,
    /// Where its paths count from, and its first file.
    directory: PathBuf,
    path: PathBuf,
    scripts: BTreeMap<(u32, Script), RunningScript>,
    /// How the first job of a node failed, once it is known.
    codes: BTreeMap<u32, i32>,
    out: Out,
    /// Has it changed since it was last drawn, and told of? When that was.
    undrawn: bool,
    untold: bool,
    halt_file: bool,
    drawn: Option<Instant>,
    told: Option<Instant>,
    multi: bool,
    submitted_jobs: BTreeMap<u32, u32>,
}

/// The DAGs of a session.
pub(crate) struct Dags {
    dir: PathBuf,
    session: PathBuf,
    session_name: String,
    program: PathBuf,
    tell: Arc<dyn Fn(Told) + Send + Sync>,
    logs: Logs,
    active: BTreeMap<u32, Active>,
    /// The job state logs of those that have one, until all is told.
    states: BTreeMap<u32, JobStates>,
    /// Records that the pool had made at the last turn.
    seen: u64,
    ended: BTreeMap<u32, DagRow>,
    last: u32,
    /// Whose jobs a cluster's are.
    clusters: BTreeMap<u32, (u32, u32)>,
    changed: BTreeSet<u32>,
    /// DAGs to go on with.
    stirred: BTreeSet<u32>,
    submits: VecDeque<(u32, u32, u32)>,
    submitting: usize,
    /// What submits nodes of which DAG, and since when it has had nothing to do.
    idle: VecDeque<(u32, Instant, Submitter)>,
    serial: u64,
    ticked: Instant,
}

/// What the master is to do for the DAGs.
#[derive(Default)]
pub(crate) struct Wishes {
    /// Remove what is left of these clusters.
    pub(crate) remove: Vec<u32>,
    /// Tell by mail that these have ended.
    pub(crate) told: Vec<(DagRow, pool::Told)>,
}

/// Reads a bundle and plans its run.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn load(path: &Path) -> Result<Loaded, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = fs::read(path).map_err(|e| failed(&e))?;
    let mut bundle: Bundle = minicbor::decode(&bytes).map_err(|e| failed(&e))?;
    let read = |name: &str| {
        let file = bundle.read.iter().find(|file| file.name == name);
        file.map(|file| file.text.clone()).ok_or_else(|| "it was not submitted with the DAG".to_owned())
    };
    let input = |file: &'_ vo_wire::dag::File| (file.name.clone(), file.text.clone(), file.directory.clone());
    let (files, rescue): (Vec<_>, Option<_>) =
        (bundle.files.iter().map(input).collect(), bundle.rescue.as_ref().map(input));
    let inputs: Vec<lang::Input<'_>> =
        files.iter().map(|(name, text, directory)| lang::Input { name, text, directory }).collect();
    let rescue = rescue.as_ref().map(|(name, text, directory)| lang::Input { name, text, directory });
    let context = lang::Context { read: &read, any_names: bundle.options.any_names };
    let dag = lang::parse(&inputs, rescue.as_ref(), &context)
        .map_err(|found| found.first().map(ToString::to_string).unwrap_or_default())?;
    let run = Run::new(node::plan(&dag, &bundle.options));
    // They may be large, and are on disk.
    bundle.files.iter_mut().chain(&mut bundle.read).chain(&mut bundle.rescue).for_each(|file| file.text = Vec::new());
    Ok(Loaded { bundle, dag, run })
}

impl Dags {
    /// Reads back the DAGs of the session in `session`. What they need done is told by the first [`Dags::turn`].
    pub(crate) fn open(
        session: &Path,
        session_name: &str,
        program: &Path,
        now: Time,
        pool: &mut Pool,
        tell: Arc<dyn Fn(Told) + Send + Sync>,
    ) -> Result<Dags, String> {
        let dir = session.join("dags");
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", dir.display());
        crate::session::private_dir(&dir).map_err(|e| failed(&e))?;
        let durable = tell.clone();
        let logs = Logs::start(move |dag, number| durable(Told::Durable(dag, number))).map_err(|e| failed(&e))?;
        // Bundles of clients that died before they were taken.
        for entry in fs::read_dir(session).into_iter().flatten().flatten() {
            if entry.file_name().as_bytes().starts_with(b"dag-") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let mut dags = Dags {
            session: session.to_owned(),
            session_name: session_name.to_owned(),
            program: program.to_owned(),
            tell,
            logs,
            active: BTreeMap::new(),
            states: BTreeMap::new(),
            seen: 0,
            ended: BTreeMap::new(),
            last: 0,
            clusters: BTreeMap::new(),
            changed: BTreeSet::new(),
            stirred: BTreeSet::new(),
            submits: VecDeque::new(),
            submitting: 0,
            idle: VecDeque::new(),
            serial: 0,
            ticked: Instant::now(),
            dir: dir.clone(),
        };
        let entries = fs::read_dir(&dags.dir).map_err(|e| failed(&e))?;
        let mut numbers: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        dags.last = numbers.last().copied().unwrap_or(0);
        pool.pass_over(dags.last);
        for number in numbers {
            let dir = dags.dir.join(number.to_string());
            if let Ok(row) = fs::read(dir.join("ended"))
                && let Ok(row) = minicbor::decode::<DagRow>(&row)
            {
                dags.ended.insert(number, row);
                let _ = fs::remove_file(dir.join("bundle"));
                let _ = fs::remove_dir_all(dir.join("log"));
            } else if dir.join("bundle").exists() {
                let opened = load(&dir.join("bundle")).and_then(|loaded| dags.begin(number, loaded, now));
                if let Err(why) = opened {
                    tracing::error!(dag = number, why, "a DAG can't be brought back");
                }
            }
        }
        for number in dags.active.keys().copied().collect::<Vec<_>>() {
            dags.resume(number, now, pool);
        }
        Ok(dags)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// Folds a DAG's records in.
    fn begin(&mut self, number: u32, loaded: Loaded, now: Time) -> Result<(), String> {
        let Loaded { bundle, dag, mut run } = loaded;
        let dir = self.path(number).join("log");
        let opened = Log::open(&dir, Options::default(), |replay| {
            if let Replay::Record(bytes) = replay {
                run.apply(&minicbor::decode::<Record>(bytes)?);
            }
            Ok::<(), minicbor::decode::Error>(())
        });
        let log = opened.map_err(|e| crate::journal::chain(&e))?.log;
        let base = log.appended();
        self.logs.open(number, log);
        let directory = PathBuf::from(OsStr::from_bytes(&bundle.directory));
        let first = bundle.files.first().map(|file| file.name.clone()).unwrap_or_default();
        let path = directory.join(&first);
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let out = beside(".dagman.out");
        let mut out = Out::open(match &bundle.options.out_dir {
            Some(dir) => directory.join(dir).join(out.file_name().unwrap_or_default()),
            None => out,
        });
        let written = dag.written().count();
        if base == 0 {
            out.say(now.0, &format!("DAG {number}, {written} nodes, begins in session {}", self.session_name));
            job::note(
                &path,
                number,
                now.0,
                Body::Submitted {
                    host: job::HOST.to_owned(),
                    batch_name: None,
                    dag_node: None,
                    notes: None,
                    user_notes: None,
                },
            );
            let has = Resources { cpus: 1, ..Resources::default() };
            job::note(&path, number, now.0, Body::Executing { host: job::HOST.to_owned(), slot: String::new(), has });
        } else {
            out.say(
                now.0,
                &format!("DAG {number} goes on in session {}: {base} records were read back", self.session_name),
            );
        }
        let mut row = DagRow {
            dag: number,
            file: first,
            directory: bundle.directory.clone(),
            submitted_ms: bundle.submitted_ms,
            tag: bundle.tag.clone(),
            batch_name: bundle.options.batch_name.clone(),
            attributes: dag.attributes.iter().chain(&bundle.options.append).cloned().collect(),
            ..DagRow::default()
        };
        row.count(run.counts());
        if let Some((parent, node, _)) = bundle.tag.as_deref().and_then(node::read_tag) {
            let name = self.active.get(&parent).map(|parent| parent.dag.name(node).to_owned());
            row.parent = Some((parent, name.unwrap_or_default()));
        }
        let multi = bundle.files.len() > 1;
        let active = Active {
            bundle,
            dag,
            run,
            base,
            durable: 0,
            actions: VecDeque::new(),
            row,
            directory,
            path,
            scripts: BTreeMap::new(),
            codes: BTreeMap::new(),
            out,
            undrawn: true,
            untold: true,
            halt_file: false,
            drawn: None,
            told: None,
            multi,
            submitted_jobs: BTreeMap::new(),
        };
        self.open_states(now, number, &active);
        self.active.insert(number, active);
        self.last = self.last.max(number);
        Ok(())
    }

    /// Lets a DAG act; what its jobs did meanwhile is told.
    fn resume(&mut self, number: u32, now: Time, pool: &Pool) {
        let Some(active) = self.active.get_mut(&number) else { return };
        active.run.resume(now);
        let open: Vec<(u32, u32)> = active.run.submitted().collect();
        for (node, cluster) in open {
            self.note_cluster(number, node, cluster);
            self.tell_jobs(now, pool, number, node);
        }
        self.stirred.insert(number);
    }

    fn note_cluster(&mut self, dag: u32, node: u32, cluster: u32) {
        if self.active.get(&dag).is_some_and(|active| !active.is_subdag(node)) {
            self.clusters.insert(cluster, (dag, node));
        }
    }

    /// Takes a bundle in that was read; its number and nodes, or that of the DAG that has its tag already.
    pub(crate) fn submit(
        &mut self,
        path: &Path,
        loaded: Loaded,
        now: Time,
        pool: &mut Pool,
    ) -> Result<(u32, u32), String> {
        let nodes = u32::try_from(loaded.dag.written().count()).unwrap_or(u32::MAX);
        if let Some(tag) = &loaded.bundle.tag {
            let rows = self.active.values().map(|active| &active.row).chain(self.ended.values());
            if let Some(number) = rows.into_iter().find(|row| row.tag.as_ref() == Some(tag)).map(|row| row.dag) {
                let _ = fs::remove_file(path);
                return Ok((number, nodes));
            }
        }
        let first = loaded.bundle.files.first().map(|file| file.name.clone()).unwrap_or_default();
        let whole = PathBuf::from(OsStr::from_bytes(&loaded.bundle.directory)).join(&first);
        if let Some((number, _)) = self.active.iter().find(|(_, active)| active.path == whole) {
            return Err(format!("{first} runs already, as DAG {number}"));
        }
        self.last = self.last.max(pool.last_cluster()) + 1;
        pool.pass_over(self.last);
        let (number, dir) = (self.last, self.path(self.last));
        let failed = |e: io::Error| format!("{}: {e}", dir.display());
        crate::session::private_dir(&dir).map_err(|e| failed(io::Error::other(e.to_string())))?;
        fs::rename(path, dir.join("bundle")).map_err(failed)?;
        for dir in [&dir, &self.dir] {
            fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        self.begin(number, loaded, now)?;
        self.resume(number, now, pool);
        Ok((number, nodes))
    }

    /// Carries out what a user asks.
    pub(crate) fn order(&mut self, now: Time, dag: u32, order: Order) {
        let event = match order {
            Order::Remove => Event::RemovalAsked,
            Order::Hold | Order::Release => Event::PauseAsked(order == Order::Hold),
            Order::Halt | Order::Resume => Event::HaltAsked(order == Order::Halt),
        };
        if let Some(active) = self.active.get_mut(&dag) {
            active.out.say(now.0, &format!("asked: {order:?}"));
            let paused = active.run.is_paused();
            active.run.handle(now, event);
            active.changed();
            let reason = job::BY_USER.to_owned();
            match (paused, active.run.is_paused()) {
                (false, true) => job::note(&active.path, dag, now.0, Body::Held { reason, code: 1, subcode: 0 }),
                (true, false) if order == Order::Release => {
                    job::note(&active.path, dag, now.0, Body::Released { reason })
                }
                _ => {}
            }
            self.stirred.insert(dag);
        }
    }

    /// All DAGs, in order.
    pub(crate) fn rows(&self) -> Vec<DagRow> {
        let mut rows: Vec<DagRow> = self.ended.values().cloned().chain(self.active.values().map(Active::row)).collect();
        rows.sort_by_key(|row| row.dag);
        rows
    }

    /// One DAG.
    pub(crate) fn row(&self, dag: u32) -> Option<DagRow> {
        self.active.get(&dag).map(Active::row).or_else(|| self.ended.get(&dag).cloned())
    }

    /// Those that a selection means, as jobs are named.
    pub(crate) fn chosen(&self, select: &Select) -> Vec<DagRow> {
        let all = *select == Select::default();
        let job = |dag| select.jobs.contains(&JobId { cluster: dag, proc: 0 });
        let mut rows = self.rows();
        rows.retain(|row| all || select.clusters.contains(&row.dag) || job(row.dag));
        rows
    }

    /// The job that a DAG is to listings.
    pub(crate) fn job(&self, row: &DagRow, facts: &Facts) -> Job {
        Job::new(row, self.batch_of(row.dag), facts)
    }

    /// What listings call the batch of a submission with this tag: the DAG around all others, as condor_q has it.
    pub(crate) fn batch(&self, tag: &str) -> Option<String> {
        self.batch_of(node::read_tag(tag)?.0)
    }

    fn batch_of(&self, number: u32) -> Option<String> {
        let mut row = self.row(number)?;
        while let Some(parent) = row.parent.as_ref().and_then(|(parent, _)| self.row(*parent)) {
            row = parent;
        }
        Some(row.batch())
    }

    /// Its nodes, while it runs.
    pub(crate) fn nodes(&self, dag: u32) -> Vec<DagNode> {
        self.active.get(&dag).map(Active::nodes).unwrap_or_default()
    }

    /// Have all ended? A session with DAGs is not done when its jobs are.
    pub(crate) fn unfinished(&self) -> usize {
        self.active.len()
    }

    /// Takes in what tasks tell, but [`Told::Loaded`].
    pub(crate) fn told(&mut self, now: Time, told: Told) {
        match told {
            Told::Durable(dag, Ok(number)) => {
                if let Some(active) = self.active.get_mut(&dag) {
                    active.durable = number.saturating_sub(active.base);
                    self.stirred.insert(dag);
                }
            }
            Told::Durable(dag, Err(why)) => {
                tracing::warn!(dag, why, "the log of a DAG can't be written");
                if let Some(active) = self.active.get_mut(&dag) {
                    active.problem(now, &why);
                }
            }
            Told::ScriptEnded { dag, node, script, serial, code } => {
                self.script_ended(now, dag, node, script, serial, code)
            }
            Told::Submitted { dag, node, by, result } => {
                self.idle.extend(by.map(|by| (dag, Instant::now(), *by)));
                self.submitted(now, dag, node, result);
            }
            Told::Loaded { .. } => {}
        }
    }

    fn script_ended(&mut self, now: Time, dag: u32, node: u32, script: Script, serial: u64, code: i32) {
        let Some(active) = self.active.get_mut(&dag) else { return };
        if active.scripts.get(&(node, script)).is_none_or(|running| running.serial != serial) {
            return;
        }
        active.scripts.remove(&(node, script));
        if code != 0 {
            let name = active.dag.name(node);
            active.out.say(now.0, &format!("{script:?} script of node {name} ended with {code}"));
        }
        let of = active.job_of(node, script);
        if script == Script::Post {
            self.tell_state(now, dag, node, ("POST_SCRIPT_TERMINATED", &of), None);
        }
        if let Some(event) = files::script_event(script, Some(code)) {
            self.tell_state(now, dag, node, (event, &of), None);
        }
        let Some(active) = self.active.get_mut(&dag) else { return };
        active.run.handle(now, Event::ScriptEnded { node, script, code });
        self.stirred.insert(dag);
    }

    fn submitted(&mut self, now: Time, dag: u32, node: u32, result: Result<(u32, u32), String>) {
        self.submitting = self.submitting.saturating_sub(1);
        if result.is_err() {
            self.tell_state(now, dag, node, ("SUBMIT_FAILURE", "-"), None);
        }
        let Some(active) = self.active.get_mut(&dag) else { return };
        let name = active.dag.name(node).to_owned();
        match result {
            Ok((cluster, jobs)) => {
                active.out.say(now.0, &format!("node {name} is submitted as {cluster}, {jobs} job(s)"));
                active.codes.remove(&node);
                active.submitted_jobs.insert(node, jobs);
                active.run.handle(now, Event::Submitted { node, cluster, jobs });
                if active.is_subdag(node) {
                    let job = format!("{cluster}.0");
                    self.tell_state(now, dag, node, ("SUBMIT", &job), None);
                    self.tell_state(now, dag, node, ("EXECUTE", &job), None);
                    // It may have ended before its submission was told.
                    if let Some(row) = self.ended.get(&cluster) {
                        self.jobs_are(now, dag, node, ended_dag(row));
                    }
                }
                self.note_cluster(dag, node, cluster);
                self.changed.insert(cluster);
            }
            Err(why) => {
                active.out.say(now.0, &format!("node {name} can't be submitted: {why}"));
                // Warnings may come before what refused it.
                let first = why.lines().find(|line| line.contains("error: ")).or(why.lines().next());
                active.problem(now, &format!("node {name}: {}", first.unwrap_or_default()));
                active.run.handle(now, Event::SubmitFailed { node });
            }
        }
        self.stirred.insert(dag);
    }

    /// Sees a record of the pool: which clusters something happened to.
    pub(crate) fn see(&mut self, record: &pool::Record) {
        if let pool::Record::Submitted { cluster, groups, .. } = record {
            let tag = groups.first().and_then(|group| node::read_tag(group.tag.as_deref()?));
            if let Some((dag, node, tried)) = tag
                && let Some(active) = self.active.get(&dag)
                && let Some(states) = self.states.get_mut(&dag)
            {
                let of = states.begun(node, tried, None, active.dag.name(node), || active.job_tag(node));
                states.submitted(*cluster, of);
            }
        }
        if self.clusters.is_empty() {
            return;
        }
        let mut note = |cluster: u32| {
            if self.clusters.contains_key(&cluster) {
                self.changed.insert(cluster);
            }
        };
        match record {
            pool::Record::Ended { ends, .. } => ends.iter().for_each(|end| note(end.id.job.cluster)),
            pool::Record::Held { job, .. } => note(job.cluster),
            pool::Record::Removed { ranges, .. }
            | pool::Record::HeldByUser { ranges, .. }
            | pool::Record::Released { ranges, .. }
            | pool::Record::Judged { ranges, .. } => ranges.iter().for_each(|(cluster, ..)| note(*cluster)),
            _ => {}
        }
    }

    /// Goes on with what has changed. Called after every burst of inputs.
    pub(crate) fn turn(&mut self, now: Time, pool: &Pool) -> Wishes {
        let mut wishes = Wishes::default();
        self.seen = pool.sequence();
        let instant = Instant::now();
        if instant.duration_since(self.ticked) >= TICK {
            self.ticked = instant;
            self.tick(now);
        }
        for cluster in std::mem::take(&mut self.changed) {
            if let Some((dag, node)) = self.clusters.get(&cluster).copied() {
                self.tell_jobs(now, pool, dag, node);
            }
        }
        // A DAG may end within this, and stir the one that it is a node of.
        while let Some(dag) = self.stirred.pop_first() {
            self.advance(now, dag, pool, &mut wishes);
        }
        while self.submitting < SUBMITTING
            && let Some((dag, node, try_number)) = self.submits.pop_front()
        {
            self.submit_node(dag, node, try_number);
        }
        wishes
    }

    fn submit_node(&mut self, dag: u32, node: u32, try_number: u32) {
        let Some(active) = self.active.get(&dag) else { return };
        self.submitting += 1;
        let tell = self.tell.clone();
        let tell = move |by, result| tell(Told::Submitted { dag, node, by, result });
        let session = node::Home { dir: &self.session, name: &self.session_name, program: &self.program };
        if active.is_subdag(node) {
            let process = active.subdag(dag, node, try_number, session);
            tokio::spawn(async move { tell(None, node::submit_dag(process).await) });
            return;
        }
        let own = self.idle.iter().position(|(of, ..)| *of == dag);
        if own.is_none() && self.idle.len() + self.submitting > SUBMITTING {
            // One of another DAG makes room.
            self.idle.pop_front();
        }
        let mut kept = own.and_then(|own| self.idle.remove(own)).map(|(.., submitter)| submitter);
        let (process, submission) = (active.submitter(session), active.submission(dag, node, try_number));
        tokio::spawn(async move {
            let (by, result) = loop {
                let fresh = kept.is_none();
                let submitter = match kept.take().map_or_else(|| Submitter::start(&process), Ok) {
                    Ok(submitter) => submitter,
                    Err(why) => break (None, Err(why)),
                };
                let (by, result) = submitter.submit(&submission).await;
                // One that was killed while it had nothing to do takes no node with it.
                if by.is_some() || fresh {
                    break (by, result);
                }
            };
            tell(by.map(Box::new), result);
        });
    }

    /// When something is due by itself.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.active.values().filter_map(|active| active.run.deadline()).min()
    }

    fn tick(&mut self, now: Time) {
        self.idle.retain(|(_, since, _)| since.elapsed() < KEPT);
        if self.clusters.len() <= COUNTED {
            self.changed.extend(self.clusters.keys());
        }
        for (number, active) in &mut self.active {
            let mut halt = active.path.as_os_str().to_owned();
            halt.push(".halt");
            let halted = Path::new(&halt).exists();
            // A user's word stands until the file comes or goes.
            if std::mem::replace(&mut active.halt_file, halted) != halted {
                active.run.handle(now, Event::HaltAsked(halted));
                self.stirred.insert(*number);
            }
            if active.run.deadline().is_some_and(|at| at <= now) {
                active.run.handle(now, Event::TimePassed);
                self.stirred.insert(*number);
            }
            active.write(now, false);
        }
    }

    /// Tells a DAG what a node's jobs do.
    fn tell_jobs(&mut self, now: Time, pool: &Pool, dag: u32, node: u32) {
        let Some(active) = self.active.get_mut(&dag) else { return };
        let Some(cluster) = active.run.cluster(node).filter(|_| active.run.state(node) == State::Submitted) else {
            return;
        };
        let jobs = if active.is_subdag(node) {
            match self.ended.get(&cluster) {
                Some(row) => ended_dag(row),
                None => Jobs { total: 1, running: 1, ..Jobs::default() },
            }
        } else {
            jobs_of(pool, cluster, active.codes.entry(node).or_insert(0))
        };
        self.jobs_are(now, dag, node, jobs);
    }

    /// Takes in what a node's jobs do.
    fn jobs_are(&mut self, now: Time, dag: u32, node: u32, jobs: Jobs) {
        let Some(active) = self.active.get_mut(&dag) else { return };
        let Some(cluster) = active.run.cluster(node) else { return };
        if active.run.jobs(node) == Some(&jobs) && jobs.ended < jobs.total {
            return;
        }
        active.changed();
        let over = jobs.ended >= jobs.total;
        let code = if jobs.failed + jobs.removed > 0 { jobs.code } else { 0 };
        if over {
            if active.is_subdag(node) {
                self.tell_state(now, dag, node, ("JOB_TERMINATED", &format!("{cluster}.0")), None);
            }
            let event = if code == 0 { "JOB_SUCCESS" } else { "JOB_FAILURE" };
            self.tell_state(now, dag, node, (event, &code.to_string()), Some(cluster));
        }
        let Some(active) = self.active.get_mut(&dag) else { return };
        active.run.handle(now, Event::Jobs { node, jobs });
        if over {
            let jobs = format!("the jobs of node {}", active.dag.name(node));
            match code {
                0 => active.out.say(now.0, &format!("{jobs} ended")),
                // Why they were removed, such as for a node that aborts the DAG, says more.
                core::JOB_REMOVED if active.row.problem.is_some() => {
                    active.out.say(now.0, &format!("{jobs} were removed"))
                }
                core::JOB_REMOVED => active.problem(now, &format!("{jobs} were removed")),
                code => active.problem(now, &format!("{jobs} ended: {code}")),
            }
            self.clusters.remove(&cluster);
        }
        self.stirred.insert(dag);
    }

    /// Stores a DAG's records and does its actions.
    fn advance(&mut self, now: Time, number: u32, pool: &Pool, wishes: &mut Wishes) {
        let Some(active) = self.active.get_mut(&number) else { return };
        let mut records = Vec::new();
        while let Some(record) = active.run.poll_record() {
            let mut bytes = Vec::new();
            // Writing to a vector can't fail.
            let _: Result<(), minicbor::encode::Error<::core::convert::Infallible>> =
                minicbor::encode(record, &mut bytes);
            records.push(bytes);
        }
        if !records.is_empty() {
            active.changed();
            self.logs.store(number, records);
        }
        while let Some(action) = active.run.poll_action() {
            active.actions.push_back(action);
        }
        while let Some(active) = self.active.get_mut(&number)
            && active.actions.front().is_some_and(|(behind, _)| *behind <= active.durable)
            && let Some((_, action)) = active.actions.pop_front()
        {
            self.act(now, number, action, pool, wishes);
        }
    }

    fn act(&mut self, now: Time, number: u32, action: Action, pool: &Pool, wishes: &mut Wishes) {
        let Some(active) = self.active.get_mut(&number) else { return };
        match action {
            Action::RunScript { node, script } => {
                self.serial += 1;
                let serial = self.serial;
                let tell = self.tell.clone();
                let (kill, killed) = tokio::sync::oneshot::channel();
                active.scripts.insert((node, script), RunningScript { serial, kill: Some(kill) });
                let ended = active.ended(node, pool, &self.ended);
                node::run_script(active.script(number, node, script, &ended), killed, move |code| {
                    tell(Told::ScriptEnded { dag: number, node, script, serial, code });
                });
                let of = active.job_of(node, script);
                if let Some(event) = files::script_event(script, None) {
                    self.tell_state(now, number, node, (event, &of), None);
                }
            }
            Action::KillScript { node, script } => {
                if let Some(kill) = active.scripts.get_mut(&(node, script)).and_then(|running| running.kill.take()) {
                    let _ = kill.send(());
                }
            }
            Action::Submit { node, try_number } => self.submits.push_back((number, node, try_number)),
            Action::Remove { node } => {
                let Some(cluster) = active.run.cluster(node) else { return };
                if active.is_subdag(node) {
                    self.order(now, cluster, Order::Remove);
                } else {
                    wishes.remove.push(cluster);
                }
            }
            Action::WriteSavePoint { node } => {
                if let Err(error) = files::save_point(&active.dag, &active.run, node, &active.path, now.0) {
                    active.problem(now, &format!("a save point can't be written: {error}"));
                }
            }
            Action::Finish { code, rescue } => self.finish(now, number, code, rescue, wishes),
        }
    }

    fn finish(&mut self, now: Time, number: u32, code: i32, rescue: bool, wishes: &mut Wishes) {
        let Some(mut active) = self.active.remove(&number) else { return };
        for running in active.scripts.values_mut() {
            running.kill.take().map(|kill| kill.send(()));
        }
        if rescue {
            let options = &active.bundle.options;
            let (most, keep) = (options.max_rescue.unwrap_or(100), options.keep_retries);
            match files::rescue(&active.dag, &active.run, &active.path, active.multi, most, keep, now.0) {
                Ok(path) => active.row.rescue = Some(path.display().to_string()),
                Err(error) => active.problem(now, &format!("no rescue file can be written: {error}")),
            }
        }
        active.write(now, true);
        let mut beside = active.path.as_os_str().to_owned();
        beside.push(".metrics");
        let metrics = files::metrics(&active.dag, &active.run, number, active.bundle.submitted_ms, now.0);
        if let Err(error) = fs::write(&beside, metrics) {
            active.problem(now, &format!("{}: {error}", Path::new(&beside).display()));
        }
        let row = DagRow { code: Some(code), ended_ms: Some(now.0), ..active.row() };
        if let Some(states) = self.states.get_mut(&number) {
            states.internal(self.seen, now.0, &format!("DAGMAN_FINISHED {code}"));
            states.close();
        }
        active.out.say(now.0, &format!("DAG {number} EXITING WITH STATUS {code}"));
        job::note(
            &active.path,
            number,
            now.0,
            match row.status {
                job::REMOVED => Body::Aborted { reason: job::BY_USER.to_owned() },
                _ => Body::Terminated { end: eventlog::End::Exited(i64::from(code)), spent: Spent::default() },
            },
        );
        let dir = self.path(number);
        let mut bytes = Vec::new();
        let _: Result<(), minicbor::encode::Error<::core::convert::Infallible>> = minicbor::encode(&row, &mut bytes);
        self.logs.close(number);
        if let Err(error) = vo_store::write_atomic(&dir.join("ended"), &bytes, 0o600) {
            // It ends again when the master next starts.
            tracing::warn!(dag = number, %error, "the end of a DAG can't be written");
        } else {
            let _ = fs::remove_file(dir.join("bundle"));
            let _ = fs::remove_dir_all(dir.join("log"));
        }
        wishes.told.extend(active.bundle.options.mail.map(|told| (row.clone(), told)));
        let mut lock = active.path.as_os_str().to_owned();
        lock.push(".lock");
        let _ = fs::remove_file(lock);
        self.ended.insert(number, row);
        while self.ended.len() > ENDED {
            if let Some((old, _)) = self.ended.pop_first() {
                let _ = fs::remove_dir_all(self.path(old));
            }
        }
        self.clusters.retain(|_, (dag, _)| *dag != number);
        // The DAG that it is a node of goes on.
        if let Some((parent, node, _)) = active.bundle.tag.as_deref().and_then(node::read_tag)
            && self.active.get(&parent).is_some_and(|outer| outer.run.cluster(node) == Some(number))
        {
            let jobs = Jobs { total: 1, ended: 1, failed: u32::from(code != 0), code, ..Jobs::default() };
            self.jobs_are(now, parent, node, jobs);
        }
    }
}

/// How the jobs of a node ended, in order of their numbers, so far: exit codes, negative signals, none for what was removed.
type Ends = Vec<Option<i32>>;

/// What a node's DAG is to it, when it has ended.
fn ended_dag(row: &DagRow) -> Jobs {
    let code = row.code.unwrap_or(1);
    Jobs { total: 1, ended: 1, failed: u32::from(code != 0), code, ..Jobs::default() }
}

/// What the jobs of a cluster do; `code` is how the first failed, once one did.
fn jobs_of(pool: &Pool, cluster: u32, code: &mut i32) -> Jobs {
    let select = Select { clusters: [cluster].into(), ..Select::default() };
    let counts = pool.counts(&select);
    if *code == 0 && counts.failed + counts.removed > 0 {
        let failed = |view: &pool::JobView<'_>| match view.end {
            Some(_) if !view.failed => None,
            // Of a job that succeeds otherwise; 0 would say that it did.
            Some(End::Exited(0)) => Some((view.at, 1)),
            Some(End::Exited(code)) => Some((view.at, i32::from(code))),
            Some(End::Signaled(signal)) => Some((view.at, -i32::from(signal))),
            None => (view.state == pool::JobState::Removed).then_some((view.at, core::JOB_REMOVED)),
        };
        let first = pool.views(&select, None).filter_map(|view| failed(&view)).min_by_key(|(at, _)| *at);
        *code = first.map_or(core::JOB_REMOVED, |(_, code)| code);
    }
    let total = counts.idle + counts.running + counts.held + counts.completed + counts.removed;
    Jobs {
        total,
        idle: counts.idle + counts.held,
        running: counts.running,
        held: counts.held,
        ended: counts.completed + counts.removed,
        failed: counts.failed,
        removed: counts.removed,
        code: *code,
    }
}

impl Active {
    /// How a node's jobs ended.
    fn ended(&self, node: u32, pool: &Pool, dags: &BTreeMap<u32, DagRow>) -> Ends {
        let Some(cluster) = self.run.cluster(node) else { return Ends::new() };
        if self.is_subdag(node) {
            return dags.get(&cluster).map(|row| row.code).into_iter().collect();
        }
        let select = Select { clusters: [cluster].into(), ..Select::default() };
        let end = |view: pool::JobView<'_>| match (view.end, view.state) {
            (Some(End::Exited(code)), _) => Some(Some(i32::from(code))),
            (Some(End::Signaled(signal)), _) => Some(Some(-i32::from(signal))),
            (None, pool::JobState::Removed) => Some(None),
            (None, _) => None,
        };
        pool.views(&select, None).filter_map(end).collect()
    }

    /// What a script of a node is told of in job state logs: the first of its jobs, once there are some.
    fn job_of(&self, node: u32, script: Script) -> String {
        let cluster = self.run.cluster(node).filter(|_| script == Script::Post);
        cluster.map_or_else(|| "-".to_owned(), |cluster| format!("{cluster}.0"))
    }

    /// What job state logs call its jobs.
    fn job_tag(&self, node: u32) -> String {
        match self.dag.description(node) {
            Some(Description::File(file)) => {
                // It need not be there yet.
                let read = fs::read(self.directory.join(self.dag.directory(node)).join(file));
                states::tag(&read.unwrap_or_default())
            }
            Some(Description::Inline(text)) => states::tag(text),
            Some(Description::Dag(_)) | None => "-".to_owned(),
        }
    }

    fn is_subdag(&self, node: u32) -> bool {
        self.dag.nodes().get(node as usize).is_some_and(|node| node.kind == Kind::Subdag)
    }

    fn changed(&mut self) {
        (self.undrawn, self.untold) = (true, true);
    }

    fn problem(&mut self, now: Time, why: &str) {
        self.out.say(now.0, why);
        let line = why.replace(|c: char| c.is_control(), " ");
        self.row.problem = Some(line.chars().take(PROBLEM).collect());
    }

    fn row(&self) -> DagRow {
        let mut row = self.row.clone();
        row.count(self.run.counts());
        row.status = self.run.status();
        row.paused = self.run.is_paused();
        row.halted = self.run.is_halted();
        row
    }

    fn nodes(&self) -> Vec<DagNode> {
        // Numbers among the nodes that are told of, and parents through joins.
        let count = self.dag.nodes().len();
        let mut place = vec![u32::MAX; count];
        for (place_of, (node, _)) in (0..).zip(self.dag.written()) {
            if let Some(slot) = place.get_mut(node as usize) {
                *slot = place_of;
            }
        }
        let mut parents: Vec<Vec<u32>> = vec![Vec::new(); count];
        for node in (0..).take(count) {
            for (child, _) in self.dag.graph().children(node) {
                if let Some(list) = parents.get_mut(child as usize) {
                    list.push(node);
                }
            }
        }
        let is_join = |node: u32| self.dag.nodes().get(node as usize).is_some_and(|node| node.kind == Kind::Join);
        let each = |(number, node): (u32, &lang::Node)| {
            let direct = parents.get(number as usize).map(Vec::as_slice).unwrap_or_default();
            let through = direct.iter().flat_map(|parent| match is_join(*parent) {
                true => parents.get(*parent as usize).cloned().unwrap_or_default(),
                false => vec![*parent],
            });
            let parents =
                through.filter_map(|parent| place.get(parent as usize).copied()).filter(|place| *place != u32::MAX);
            DagNode {
                name: self.dag.name(number).to_owned(),
                state: self.run.state(number),
                retries: (self.run.retries(number), node.retries),
                code: self.run.code(number),
                cluster: self.run.cluster(number),
                subdag: node.kind == Kind::Subdag,
                jobs: self.run.jobs(number).map(|jobs| (jobs.idle, jobs.running, jobs.held, jobs.ended)),
                parents: parents.collect(),
            }
        };
        self.dag.written().map(each).collect()
    }

    /// Writes what the DAG asks to be told in, if it is time.
    fn write(&mut self, now: Time, last: bool) {
        let instant = Instant::now();
        let due = |at: Option<Instant>, pace: Duration| last || at.is_none_or(|at| instant.duration_since(at) >= pace);
        if let Some(status) = self.dag.status_file.clone()
            && (self.untold || status.always || last)
            && due(self.told, Duration::from_secs(status.interval_s.into()))
        {
            (self.told, self.untold) = (Some(instant), false);
            let names: Vec<String> = self.bundle.files.iter().map(|file| file.name.clone()).collect();
            let text = files::node_status(&self.dag, &self.run, &names, status.interval_s, now.0);
            if let Err(error) = files::write_status(&self.directory.join(&status.path), &text) {
                self.problem(now, &format!("{}: {error}", status.path));
            }
        }
        if let Some(dot) = self.dag.dot.clone()
            && (self.drawn.is_none() || (self.undrawn && dot.update) || last)
            && due(self.drawn, WRITE_PACE)
        {
            (self.drawn, self.undrawn) = (Some(instant), false);
            let header = dot.header.as_ref().and_then(|path| fs::read_to_string(self.directory.join(path)).ok());
            let text = files::drawing(&self.dag, &self.run, &header.unwrap_or_default(), now.0);
            if let Err(error) = files::write_drawing(&self.directory.join(&dot.path), dot.overwrite, &text) {
                self.problem(now, &format!("{}: {error}", dot.path));
            }
        }
    }
}
