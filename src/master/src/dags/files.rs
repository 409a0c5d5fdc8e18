//! What a DAG writes beside its file, in DAGMan's formats: node status, job state log, drawing, metrics, rescue files, and a log.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Zoned, tz::TimeZone};
use vo_core::dag::{Run, Script, State};
use vo_lang::dag::{Dag, Kind, Progress};

/// Size at which the log of a DAG is put aside, once.
const LOG_BYTES: u64 = 16 << 20;

pub(super) fn zoned(ms: u64) -> Zoned {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.to_zoned(TimeZone::system())
}

/// `Wed Nov 25 18:07:21 2026`.
fn ctime(ms: u64) -> String {
    zoned(ms).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// What became of a node, for rescue files.
fn progress(run: &Run, node: u32) -> Progress {
    let state = run.state(node);
    Progress { done: state == State::Done, failed: state == State::Failed, retried: run.retries(node) }
}

fn created(ms: u64) -> String {
    let utc = zoned(ms).with_time_zone(TimeZone::UTC);
    utc.strftime("%-m/%-d/%Y %H:%M:%S UTC").to_string()
}

/// Writes `text` aside and renames it into place, so that nobody reads half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    fs::write(&aside, text)?;
    fs::rename(&aside, path)
}

/// Writes the next rescue file of the DAG file at `path`; its path. The last possible number is used again.
pub(crate) fn rescue(
    dag: &Dag,
    run: &Run,
    path: &Path,
    multi: bool,
    most: u32,
    keep: bool,
    ms: u64,
) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = path.parent().unwrap_or(Path::new("."));
    let names: Vec<String> =
        fs::read_dir(beside)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let last = vo_lang::dag::last_rescue(&name, multi, names.iter().map(String::as_str)).unwrap_or(0);
    let path = beside.join(vo_lang::dag::rescue_name(&name, multi, (last + 1).min(most)));
    let text = vo_lang::dag::write_rescue(dag, &name, &created(ms), !keep, &|node| progress(run, node));
    replace(&path, &text)?;
    Ok(path)
}

/// Writes a save point; one that is there goes to `.old`. A name without a directory belongs into `save_files` beside the DAG file.
pub(crate) fn save_point(dag: &Dag, run: &Run, node: u32, path: &Path, ms: u64) -> io::Result<()> {
    let name = dag.save_point(node).unwrap_or_default();
    let beside = path.parent().unwrap_or(Path::new("."));
    let path = if name.contains('/') {
        beside.join(name)
    } else {
        let dir = beside.join(vo_lang::dag::SAVE_POINT_DIRECTORY);
        fs::create_dir_all(&dir)?;
        dir.join(name)
    };
    if path.exists() {
        let mut old = path.clone().into_os_string();
        old.push(".old");
        fs::rename(&path, old)?;
    }
    replace(&path, &vo_lang::dag::write_save_point(dag, node, &created(ms), &|node| progress(run, node)))
}

/// A string as ClassAds write it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// DAGMan's number and name of a state.
fn status(state: State) -> (u8, &'static str) {
    match state {
        State::NotReady => (0, "STATUS_NOT_READY"),
        State::Ready | State::Submitting => (1, "STATUS_READY"),
        State::Pre => (2, "STATUS_PRERUN"),
        State::Submitted => (3, "STATUS_SUBMITTED"),
        State::Post => (4, "STATUS_POSTRUN"),
        State::Done => (5, "STATUS_DONE"),
        State::Failed => (6, "STATUS_ERROR"),
        State::Futile => (7, "STATUS_FUTILE"),
    }
}

/// `NODE_STATUS_FILE`.
pub(crate) fn node_status(dag: &Dag, run: &Run, files: &[String], interval_s: u32, ms: u64) -> String {
    let (counts, seconds) = (run.counts(), ms / 1000);
    let over = run.ended();
    let (number, name, note) = match (over, run.status()) {
        (Some(0), _) => (5, "STATUS_DONE", "success"),
        (Some(_), 3) => (6, "STATUS_ERROR", "aborted"),
        (Some(_), 4) => (6, "STATUS_ERROR", "removed"),
        (Some(_), _) => (6, "STATUS_ERROR", "failed"),
        (None, 4) => (3, "STATUS_SUBMITTED", "removed"),
        (None, 3) => (3, "STATUS_SUBMITTED", "aborted"),
        (None, _) if run.is_paused() => (3, "STATUS_SUBMITTED", "held"),
        (None, _) => (3, "STATUS_SUBMITTED", ""),
    };
    let all = |of: fn(&vo_core::dag::Jobs) -> u32| {
        run.submitted().filter_map(|(node, _)| run.jobs(node)).map(of).sum::<u32>()
    };
    let mut out = String::from("[\n  Type = \"DagStatus\";\n  DagFiles = {\n");
    let list: Vec<String> = files.iter().map(|file| format!("    {}", quoted(file))).collect();
    // Writing to a String can't fail.
    let _ = write!(
        out,
        "{}\n  }};\n  Timestamp = {seconds}; /* {} */\n  DagStatus = {number}; /* {} */\n  NodesTotal = {};\n  NodesDone = {};\n  \
         NodesPre = {};\n  NodesQueued = {};\n  NodesPost = {};\n  NodesReady = {};\n  NodesUnready = {};\n  NodesFutile = {};\n  \
         NodesFailed = {};\n  JobProcsHeld = {};\n  JobProcsIdle = {}; /* includes held */\n]\n",
        list.join(",\n"),
        quoted(&ctime(ms)),
        quoted(&format!("{name} ({note})")),
        counts.total(),
        counts.of(State::Done),
        counts.of(State::Pre),
        counts.of(State::Submitted) + counts.of(State::Submitting),
        counts.of(State::Post),
        counts.of(State::Ready),
        counts.of(State::NotReady),
        counts.of(State::Futile),
        counts.of(State::Failed),
        all(|jobs| jobs.held),
        all(|jobs| jobs.idle),
    );
    for (node, _) in dag.written() {
        let (number, name) = status(run.state(node));
        let jobs = run.jobs(node);
        let detail = match run.state(node) {
            State::Submitted if jobs.is_some_and(|jobs| jobs.idle > 0) => "idle".to_owned(),
            State::Submitted => "not_idle".to_owned(),
            State::Failed => format!("failed with status {}", run.code(node)),
            State::Futile => "Had an ancestor node fail".to_owned(),
            State::Done if run.plan().nodes.get(node as usize).is_some_and(|plan| plan.done) => {
                "User defined as DONE".to_owned()
            }
            _ => String::new(),
        };
        let _ = write!(
            out,
            "[\n  Type = \"NodeStatus\";\n  Node = {};\n  NodeStatus = {number}; /* {} */\n  StatusDetails = {};\n  RetryCount = {};\n  \
             JobProcsQueued = {};\n  JobProcsHeld = {};\n]\n",
            quoted(dag.name(node)),
            quoted(name),
            quoted(&detail),
            run.retries(node),
            jobs.map_or(0, |jobs| jobs.total - jobs.ended),
            jobs.map_or(0, |jobs| jobs.held),
        );
    }
    let next = over.is_none().then_some(ms + u64::from(interval_s) * 1000);
    let _ = write!(
        out,
        "[\n  Type = \"StatusEnd\";\n  EndTime = {seconds}; /* {} */\n  NextUpdate = {}; /* {} */\n]\n",
        quoted(&ctime(ms)),
        next.map_or(0, |next| next / 1000),
        quoted(&next.map_or_else(|| "none".to_owned(), ctime)),
    );
    out
}

/// Writes a node status file.
pub(crate) fn write_status(path: &Path, text: &str) -> io::Result<()> {
    replace(path, text)
}

/// `DOT`.
pub(crate) fn drawing(dag: &Dag, run: &Run, header: &str, ms: u64) -> String {
    let mut out = format!("digraph DAG {{\n    label=\"DAGMan Job status at {}\";\n\n{header}", ctime(ms));
    let name = |node: u32| dag.name(node).replace('"', "\\\"");
    for (node, _) in dag.written() {
        let (shape, letter, style) = match run.state(node) {
            State::Pre => ("ellipse", "Pre", " style=dotted"),
            State::Submitted => ("ellipse", "R", " peripheries=2"),
            State::Post => ("ellipse", "Post", " style=dotted"),
            State::Done => ("ellipse", "Done", " style=bold"),
            State::Failed => ("box", "E", ""),
            _ => ("ellipse", "I", ""),
        };
        let _ = writeln!(out, "    \"{0}\" [shape={shape} label=\"{0} ({letter})\"{style}];", name(node));
    }
    out.push('\n');
    // A join stands for arrows from each of its parents to each of its children: drawn as a point, they stay few.
    let join = |node: u32| dag.nodes().get(node as usize).is_some_and(|node| node.kind == Kind::Join);
    for node in (0..).take(dag.nodes().len()) {
        if join(node) {
            let _ = writeln!(out, "    \"{}\" [shape=point];", name(node));
        }
        for (child, _) in dag.graph().children(node) {
            let _ = writeln!(out, "    \"{}\" -> \"{}\";", name(node), name(child));
        }
    }
    out.push_str("}\n");
    out
}

/// Writes a drawing; without `overwrite`, under the first free number.
pub(crate) fn write_drawing(path: &Path, overwrite: bool, text: &str) -> io::Result<()> {
    if overwrite {
        return replace(path, text);
    }
    let numbered = (0..100_000).map(|number| PathBuf::from(format!("{}.{number}", path.display())));
    match numbered.into_iter().find(|path| !path.exists()) {
        Some(path) => replace(&path, text),
        None => Err(io::Error::other("every number is taken")),
    }
}

/// `x.dag.metrics`.
pub(crate) fn metrics(dag: &Dag, run: &Run, number: u32, begun_ms: u64, ended_ms: u64) -> String {
    let nodes: Vec<_> = dag.written().collect();
    let count = |kinds: &[Kind], state: Option<State>| {
        let of = |(number, node): &&(u32, &vo_lang::dag::Node)| {
            kinds.contains(&node.kind) && state.is_none_or(|state| run.state(*number) == state)
        };
        nodes.iter().filter(of).count()
    };
    let plain = [Kind::Job, Kind::Final, Kind::Provisioner];
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let value = serde_json::json!({
        "client": "vo-login",
        "version": env!("CARGO_PKG_VERSION"),
        "type": "metrics",
        "metrics_version": 2,
        "start_time": seconds(begun_ms),
        "end_time": seconds(ended_ms),
        "duration": seconds(ended_ms.saturating_sub(begun_ms)),
        "exitcode": run.ended().unwrap_or(0),
        "dagman_id": number.to_string(),
        "nodes": count(&plain, None),
        "nodes_failed": count(&plain, Some(State::Failed)),
        "nodes_succeeded": count(&plain, Some(State::Done)),
        "dag_nodes": count(&[Kind::Subdag], None),
        "dag_nodes_failed": count(&[Kind::Subdag], Some(State::Failed)),
        "dag_nodes_succeeded": count(&[Kind::Subdag], Some(State::Done)),
        "service_nodes": count(&[Kind::Service], None),
        "total_nodes": nodes.len(),
        "graph_num_edges": dag.graph().edges(),
        "graph_num_vertices": dag.nodes().len(),
        "DagStatus": run.status(),
    });
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

/// The log of a DAG, `x.dag.dagman.out`: what a person wants to know. A log that can't be written holds nobody up.
pub(crate) struct Out {
    path: PathBuf,
    file: Option<File>,
}

impl Out {
    pub(crate) fn open(path: PathBuf) -> Out {
        if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES) {
            let mut old = path.clone().into_os_string();
            old.push(".old");
            let _ = fs::rename(&path, old);
        }
        let file = OpenOptions::new().append(true).create(true).open(&path).ok();
        Out { path, file }
    }

    pub(crate) fn say(&mut self, ms: u64, text: &str) {
        let time = zoned(ms).strftime("%m/%d/%y %H:%M:%S").to_string();
        let lines: String = text.lines().map(|line| format!("{time} {line}\n")).collect();
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(lines.as_bytes())
        {
            tracing::warn!(path = %self.path.display(), %error, "the log of a DAG can't be written");
            self.file = None;
        }
    }
}

/// The name of a script's event.
pub(crate) fn script_event(script: Script, code: Option<i32>) -> Option<&'static str> {
    Some(match (script, code) {
        (Script::Hold, _) => return None,
        (Script::Pre, None) => "PRE_SCRIPT_STARTED",
        (Script::Pre, Some(0)) => "PRE_SCRIPT_SUCCESS",
        (Script::Pre, Some(_)) => "PRE_SCRIPT_FAILURE",
        (Script::Post, None) => "POST_SCRIPT_STARTED",
        (Script::Post, Some(0)) => "POST_SCRIPT_SUCCESS",
        (Script::Post, Some(_)) => "POST_SCRIPT_FAILURE",
    })
}
