//! `condor_submit_dag` and `dag`: workflows.

mod submission;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vo_core::JobId;
use vo_core::dag::State;
use vo_lang::dag::{self as lang, Context, Input};
use vo_wire::control::{Done, Pick};
use vo_wire::dag::{DagNode, DagNodes, DagRow, DagRows, ListDags, Order, OrderDag, ShowDag, WatchDag};
use vo_wire::frame::Message;

pub(super) use submission::{SubmitDag, is_dag, submit};

use super::Asking;
use crate::client::{Master, read};
use crate::error::{Error, ExitCode, Result};
use crate::table::{JsonList, Side, Table, now_ms, span, stdout};

/// Nodes of a DAG shown at once, unless `--nodes` asks for all.
const SHOWN: usize = 200;

/// Shows DAGs: all, or the nodes of one
///
/// `dag` lists them, `dag DAG` shows one as a tree with a bar. `dag wait DAG` waits until it has ended; the exit code is 0 if it
/// succeeded, 7 if not. `dag rm DAG` removes it with its jobs and writes a rescue file; `dag hold` begins nothing new until `dag release`;
/// `dag halt` begins nothing new and ends it when what runs has ended, unless `dag resume` comes before. `dag check FILE…` says what is
/// wrong with DAG files. A DAG is named by its number or its file.
#[derive(Parser, Debug)]
pub(crate) struct Dag {
    #[command(flatten)]
    asking: Asking,
    /// A JSON array
    #[arg(long)]
    json: bool,
    /// All nodes of a large DAG
    #[arg(long)]
    nodes: bool,
    /// Wait no longer than this, such as 2h30m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// A DAG; or wait, rm, hold, release, halt, resume or check, and what it is for
    #[arg(value_name = "DAG")]
    words: Vec<OsString>,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    vo_lang::parse_duration(text).map_err(|e| format!("expected {e}"))
}

pub(super) fn run(arguments: Dag) -> Result<ExitCode> {
    let (action, rest) = match arguments.words.split_first() {
        None => return list(&arguments),
        Some((first, rest)) => (first.to_string_lossy().into_owned(), rest),
    };
    let order = match action.as_str() {
        "check" => return check(rest, arguments.json),
        "wait" => return wait(&arguments, rest),
        "rm" | "remove" => Order::Remove,
        "hold" => Order::Hold,
        "release" => Order::Release,
        "halt" => Order::Halt,
        "resume" => Order::Resume,
        _ => return show(&arguments, &arguments.words),
    };
    let mut master = arguments.asking.connect()?;
    for dag in chosen(&mut master, rest)? {
        master.send(&OrderDag { dag: dag.dag, order })?;
        until_done(&mut master, |_| Ok(()))?;
        let what = match order {
            Order::Remove => "is being removed",
            Order::Hold => "is held",
            Order::Release => "goes on",
            Order::Halt => "is halted",
            Order::Resume => "goes on",
        };
        println!("DAG {} {what}.", dag.dag);
    }
    Ok(ExitCode::Success)
}

fn until_done(master: &mut Master, mut each: impl FnMut(&vo_wire::Frame) -> Result<()>) -> Result<()> {
    loop {
        let frame = master.frame()?;
        if frame.kind == Done::KIND {
            return Ok(());
        }
        each(&frame)?;
    }
}

pub(super) fn rows(master: &mut Master) -> Result<Vec<DagRow>> {
    let mut rows = Vec::new();
    master.send(&ListDags {})?;
    until_done(master, |frame| {
        rows.extend(read::<DagRows>(frame)?.rows);
        Ok(())
    })?;
    Ok(rows)
}

/// The DAGs that words name: numbers, or files (of several runs the last).
fn chosen(master: &mut Master, words: &[OsString]) -> Result<Vec<DagRow>> {
    let rows = rows(master)?;
    if words.is_empty() {
        return Err(Error::usage("no DAG is named").hint("`dag` lists them"));
    }
    let here = std::env::current_dir().unwrap_or_default();
    let each = |word: &OsString| {
        let text = word.to_string_lossy();
        let number = text.strip_prefix("dag").unwrap_or(&text).parse::<u32>().ok();
        let path = here.join(word);
        let file = |row: &&DagRow| {
            let whole = Path::new(OsStr::from_bytes(&row.directory)).join(&row.file);
            whole == path || row.file == text
        };
        let found = rows.iter().rev().find(|row| Some(row.dag) == number).or_else(|| rows.iter().rev().find(file));
        found
            .cloned()
            .ok_or_else(|| Error::usage(format!("there is no DAG {text} in this session")).hint("`dag` lists them"))
    };
    words.iter().map(each).collect()
}

#[derive(Serialize)]
struct DagJson<'a> {
    dag: u32,
    file: &'a str,
    directory: String,
    state: &'static str,
    exit_code: Option<i32>,
    submitted_ms: u64,
    ended_ms: Option<u64>,
    nodes: u32,
    done: u32,
    queued: u32,
    ready: u32,
    pre: u32,
    post: u32,
    unready: u32,
    failed: u32,
    futile: u32,
    rescue: Option<&'a str>,
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_list: Option<Vec<NodeJson<'a>>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    node: &'a str,
    state: &'static str,
    exit_code: Option<i32>,
    retry: u32,
    max_retries: u32,
    cluster: Option<u32>,
    dag: Option<u32>,
    parents: Vec<&'a str>,
}

fn state(row: &DagRow) -> &'static str {
    match (row.code, row.status) {
        (Some(0), _) => "done",
        (Some(_), 4) => "removed",
        (Some(_), 3) => "aborted",
        (Some(_), 6) => "halted",
        (Some(_), _) => "failed",
        (None, _) if row.paused => "held",
        (None, _) if row.halted => "halting",
        (None, 4) => "removing",
        (None, 3) => "aborting",
        (None, _) => "running",
    }
}

fn node_state(state: State) -> &'static str {
    match state {
        State::NotReady => "unready",
        State::Ready => "ready",
        State::Pre => "pre",
        State::Submitting | State::Submitted => "queued",
        State::Post => "post",
        State::Done => "done",
        State::Failed => "failed",
        State::Futile => "futile",
    }
}

fn dag_json<'a>(row: &'a DagRow, nodes: Option<&'a [DagNode]>) -> DagJson<'a> {
    let node = |node: &'a DagNode| NodeJson {
        node: &node.name,
        state: node_state(node.state),
        exit_code: matches!(node.state, State::Done | State::Failed).then_some(node.code),
        retry: node.retries.0,
        max_retries: node.retries.1,
        cluster: node.cluster.filter(|_| !node.subdag),
        dag: node.cluster.filter(|_| node.subdag),
        parents: node.parents.iter().filter_map(|p| Some(nodes?.get(*p as usize)?.name.as_str())).collect(),
    };
    DagJson {
        dag: row.dag,
        file: &row.file,
        directory: String::from_utf8_lossy(&row.directory).into_owned(),
        state: state(row),
        exit_code: row.code,
        submitted_ms: row.submitted_ms,
        ended_ms: row.ended_ms,
        nodes: row.total(),
        done: row.of(State::Done),
        queued: row.of(State::Submitted) + row.of(State::Submitting),
        ready: row.of(State::Ready),
        pre: row.of(State::Pre),
        post: row.of(State::Post),
        unready: row.of(State::NotReady),
        failed: row.of(State::Failed),
        futile: row.of(State::Futile),
        rescue: row.rescue.as_deref(),
        problem: row.problem.as_deref(),
        node_list: nodes.map(|nodes| nodes.iter().map(node).collect()),
    }
}

fn list(arguments: &Dag) -> Result<ExitCode> {
    let mut master = arguments.asking.connect()?;
    let rows = rows(&mut master)?;
    if arguments.json {
        return super::json_list(rows.iter().map(|row| dag_json(row, None)));
    }
    let mut table = Table::new(&[
        ("DAG", Side::Right),
        ("STATE", Side::Left),
        ("DONE", Side::Right),
        ("QUEUED", Side::Right),
        ("FAILED", Side::Right),
        ("NODES", Side::Right),
        ("AGE", Side::Right),
        ("FILE", Side::Left),
    ]);
    for row in &rows {
        let age = row.ended_ms.unwrap_or_else(now_ms).saturating_sub(row.submitted_ms);
        table.row(vec![
            row.dag.to_string(),
            state(row).to_owned(),
            row.of(State::Done).to_string(),
            (row.of(State::Submitted) + row.of(State::Submitting)).to_string(),
            row.of(State::Failed).to_string(),
            row.total().to_string(),
            span(age),
            row.file.clone(),
        ]);
    }
    table.write(&mut stdout()).map_err(|e| Error::system("cannot write to standard output", e))?;
    Ok(ExitCode::Success)
}

fn show(arguments: &Dag, words: &[OsString]) -> Result<ExitCode> {
    let mut master = arguments.asking.connect()?;
    let mut json = arguments.json.then(|| JsonList::new(stdout()));
    for row in chosen(&mut master, words)? {
        master.send(&ShowDag { dag: row.dag })?;
        let (mut rows, mut nodes) = (Vec::new(), Vec::new());
        until_done(&mut master, |frame| {
            if frame.kind == DagNodes::KIND {
                nodes.extend(read::<DagNodes>(frame)?.nodes);
            } else {
                rows.extend(read::<DagRows>(frame)?.rows);
            }
            Ok(())
        })?;
        let row = rows.pop().unwrap_or(row);
        match &mut json {
            Some(list) => list.push(&dag_json(&row, Some(&nodes)))?,
            None => {
                let shown = if arguments.nodes { usize::MAX } else { SHOWN };
                let text = summary(&row) + &tree(&nodes, shown);
                stdout().write_all(text.as_bytes()).map_err(|e| Error::system("cannot write to standard output", e))?;
            }
        }
    }
    json.map_or(Ok(()), JsonList::end)?;
    Ok(ExitCode::Success)
}

/// A DAG in a few lines: what it is, a bar, what went wrong.
fn summary(row: &DagRow) -> String {
    const WIDTH: u64 = 40;
    let (done, total) = (row.of(State::Done), row.total());
    let filled = (u64::from(done) * WIDTH).checked_div(u64::from(total)).unwrap_or(0) as usize;
    let mut text = format!("DAG {} {}: {}", row.dag, row.file, state(row));
    if let Some(code) = row.code {
        text += &format!(", exit code {code}");
    }
    text +=
        &format!("\n[{}{}] {done} of {total} node(s) done", "=".repeat(filled), " ".repeat(WIDTH as usize - filled));
    let of = |states: &[State]| states.iter().map(|state| row.of(*state)).sum::<u32>();
    let parts = [
        (of(&[State::Submitted, State::Submitting]), "queued"),
        (of(&[State::Pre, State::Post]), "in scripts"),
        (of(&[State::Ready]), "ready"),
        (of(&[State::NotReady]), "waiting"),
        (of(&[State::Failed]), "failed"),
        (of(&[State::Futile]), "never to start"),
    ];
    for (number, what) in parts.into_iter().filter(|(number, _)| *number > 0) {
        text += &format!(", {number} {what}");
    }
    text.push('\n');
    for (what, value) in [("rescue file", &row.rescue), ("last problem", &row.problem)] {
        if let Some(value) = value {
            text += &format!("{what}: {value}\n");
        }
    }
    text
}

/// The nodes as a tree: each under the first of its parents, the others named beside it. Of a large one, what matters most.
fn tree(nodes: &[DagNode], most: usize) -> String {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut roots = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        match node.parents.first().and_then(|parent| children.get_mut(*parent as usize)) {
            Some(list) => list.push(number),
            None => roots.push(number),
        }
    }
    let mut text = String::new();
    let mut shown = 0;
    let mut open: Vec<(usize, usize)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
    while let Some((number, depth)) = open.pop() {
        let Some(node) = nodes.get(number) else { continue };
        if shown == most {
            text += &format!("… {} more node(s): --nodes shows all\n", nodes.len() - shown);
            break;
        }
        shown += 1;
        text += &format!("{}{}  {}", "  ".repeat(depth), node.name, node_state(node.state));
        match (node.cluster, node.subdag) {
            (Some(dag), true) => text += &format!(" dag {dag}"),
            (Some(cluster), false) => text += &format!(" {cluster}"),
            (None, _) => {}
        }
        if let Some((idle, running, held, ended)) = node.jobs {
            let jobs = [(idle - held, "idle"), (running, "running"), (held, "held"), (ended, "ended")];
            let jobs: Vec<String> =
                jobs.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            text += &format!(" ({})", jobs.join(", "));
        }
        if node.state == State::Failed {
            text += &format!(" exit code {}", node.code);
        }
        if node.retries.0 > 0 {
            text += &format!(", retry {} of {}", node.retries.0, node.retries.1);
        }
        let others: Vec<&str> =
            node.parents.iter().skip(1).filter_map(|p| Some(nodes.get(*p as usize)?.name.as_str())).take(5).collect();
        if !others.is_empty() {
            let more = node.parents.len().saturating_sub(1 + others.len());
            text += &format!(
                "  [also after {}{}]",
                others.join(", "),
                if more > 0 { format!(" and {more} more") } else { String::new() }
            );
        }
        text.push('\n');
        open.extend(children.get(number).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
    }
    text
}

/// Waits until no DAG runs any more.
pub(super) fn wait_for_all(master: &mut Master, deadline: Option<Instant>) -> Result<()> {
    for row in rows(master)?.into_iter().filter(|row| row.code.is_none()) {
        master.send(&WatchDag { dag: row.dag })?;
        loop {
            match master.frame_before(deadline)? {
                Some(frame) if frame.kind == Done::KIND => break,
                Some(_) => {}
                None => {
                    return Err(Error::new(ExitCode::TimedOut, format!("DAG {} has not ended", row.dag)));
                }
            }
        }
    }
    Ok(())
}

fn wait(arguments: &Dag, words: &[OsString]) -> Result<ExitCode> {
    let mut master = arguments.asking.connect()?;
    let deadline = arguments.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let rows = chosen(&mut master, words)?;
    wait_for(&mut master, rows, deadline)
}

/// The DAGs among jobs, which have their numbers; they are taken out.
pub(super) fn among(master: &mut Master, picks: &mut Vec<Pick>) -> Result<Vec<DagRow>> {
    let mut rows = rows(master)?;
    let is =
        |pick: &Pick, dag: u32| matches!(pick, Pick::Cluster(n) | Pick::Job(JobId { cluster: n, .. }) if *n == dag);
    rows.retain(|row| picks.iter().any(|pick| is(pick, row.dag)));
    picks.retain(|pick| !rows.iter().any(|row| is(pick, row.dag)));
    Ok(rows)
}

/// Waits until DAGs have ended; whether all succeeded.
pub(super) fn wait_for(master: &mut Master, rows: Vec<DagRow>, deadline: Option<Instant>) -> Result<ExitCode> {
    let mut verdict = ExitCode::Success;
    for row in rows {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        let mut last = row;
        master.send(&WatchDag { dag: last.dag })?;
        loop {
            let Some(frame) = master.frame_before(deadline)? else {
                let message = format!(
                    "DAG {} has not ended: {} of {} node(s) are done",
                    last.dag,
                    last.of(State::Done),
                    last.total()
                );
                return Err(Error::new(ExitCode::TimedOut, message));
            };
            if frame.kind == Done::KIND {
                break;
            }
            if let Some(row) = read::<DagRows>(&frame)?.rows.pop() {
                last = row;
            }
            if let Some(bar) = &bar {
                bar.set_length(u64::from(last.total()));
                bar.set_position(u64::from(last.of(State::Done)));
                bar.set_message(format!("{} queued, {} failed", last.of(State::Submitted), last.of(State::Failed)));
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        // The reader of standard error may be gone; the exit code still tells.
        let _ = std::io::stderr().write_all(summary(&last).as_bytes());
        if last.code != Some(0) {
            verdict = ExitCode::JobsFailed;
        }
    }
    Ok(verdict)
}

/// What `dag check --json` says of a file.
#[derive(Serialize)]
struct CheckJson {
    file: String,
    valid: bool,
    nodes: usize,
    joins: usize,
    edges: usize,
    splices: u32,
    findings: Vec<FindingJson>,
}

#[derive(Serialize)]
struct FindingJson {
    severity: &'static str,
    file: String,
    line: u32,
    column: u32,
    message: String,
}

fn text(path: &str) -> std::result::Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| e.to_string())
}

fn check(words: &[OsString], json: bool) -> Result<ExitCode> {
    if words.is_empty() {
        return Err(Error::usage("no DAG file is named"));
    }
    let mut list = json.then(|| JsonList::new(stdout()));
    let mut verdict = ExitCode::Success;
    for file in words {
        let shown = file.to_string_lossy().into_owned();
        let text =
            fs::read(file).map_err(|e| Error::new(ExitCode::Refused, format!("cannot read {shown}")).because(e))?;
        let context = Context { read: &self::text, any_names: false };
        let parsed = lang::parse(&[Input { name: &shown, text: &text, directory: "" }], None, &context);
        let (dag, findings) = match parsed {
            Ok(dag) => {
                let findings = dag.warnings.clone();
                (Some(dag), findings)
            }
            Err(findings) => (None, findings),
        };
        if dag.is_none() {
            verdict = ExitCode::Refused;
        }
        let joins = dag.as_ref().map_or(0, |dag| dag.nodes().len() - dag.written().count());
        let (nodes, edges) = dag.as_ref().map_or((0, 0), |dag| (dag.written().count(), dag.graph().edges()));
        match &mut list {
            Some(list) => {
                let finding = |d: &vo_lang::Diagnostic| FindingJson {
                    severity: if d.severity == vo_lang::Severity::Error { "error" } else { "warning" },
                    file: d.file.clone(),
                    line: d.line,
                    column: d.column,
                    message: d.message.clone(),
                };
                let splices = dag.as_ref().map_or(0, |dag| dag.splices);
                let findings = findings.iter().map(finding).collect();
                list.push(&CheckJson { file: shown, valid: dag.is_some(), nodes, joins, edges, splices, findings })?;
            }
            None => {
                findings.iter().for_each(|finding| eprintln!("{finding}"));
                if dag.is_some() {
                    println!("{shown}: {nodes} node(s), {edges} edge(s), nothing is wrong with it.");
                }
            }
        }
    }
    list.map_or(Ok(()), JsonList::end)?;
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: State, parents: &[u32]) -> DagNode {
        let (name, parents) = (name.to_owned(), parents.to_vec());
        DagNode { name, state, retries: (0, 0), code: 0, cluster: None, subdag: false, jobs: None, parents }
    }

    #[test]
    fn a_tree_names_every_node_once() {
        let mut nodes = vec![
            node("A", State::Done, &[]),
            node("B", State::Submitted, &[0]),
            node("C", State::Failed, &[0]),
            node("D", State::Futile, &[1, 2]),
            node("E", State::Ready, &[]),
        ];
        nodes[1].cluster = Some(7);
        nodes[1].jobs = Some((2, 1, 1, 0));
        nodes[2].code = 3;
        nodes[2].retries = (1, 1);
        assert_eq!(
            tree(&nodes, 10),
            "A  done\n  B  queued 7 (1 idle, 1 running, 1 held)\n    D  futile  [also after C]\n  C  failed exit code 3, retry 1 of 1\nE  ready\n"
        );
        assert_eq!(
            tree(&nodes, 2),
            "A  done\n  B  queued 7 (1 idle, 1 running, 1 held)\n… 3 more node(s): --nodes shows all\n"
        );
    }

    #[test]
    fn a_dag_is_told_in_a_few_lines() {
        let mut row =
            DagRow { dag: 3, file: "x.dag".to_owned(), nodes: vec![1, 0, 0, 0, 2, 0, 1, 0, 0], ..DagRow::default() };
        assert_eq!(
            summary(&row),
            "DAG 3 x.dag: running\n[==========                              ] 1 of 4 node(s) done, 2 queued, 1 waiting\n"
        );
        row = DagRow {
            code: Some(1),
            rescue: Some("x.dag.rescue001".to_owned()),
            nodes: vec![0, 0, 0, 0, 0, 0, 1, 1, 1],
            ..row
        };
        assert_eq!(
            summary(&row),
            "DAG 3 x.dag: failed, exit code 1\n[=============                           ] 1 of 3 node(s) done, 1 failed, 1 never to start\nrescue file: x.dag.rescue001\n"
        );
    }

    #[test]
    fn dag_files_are_known_by_their_names() {
        for (name, expected) in
            [("x.dag", true), ("a/b.DAG", true), ("x.sub", false), ("dag", false), ("x.dag.rescue001", false)]
        {
            assert_eq!(is_dag(OsStr::new(name)), expected, "{name}");
        }
    }
}
