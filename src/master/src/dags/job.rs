//! A DAG as the job that DAGMan is to HTCondor: job `N.0` of listings, and `x.dag.dagman.log`, its event log.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use vo_core::dag::State;
use vo_core::ids::JobId;
use vo_core::job::Usage;
use vo_core::pool::Change;
use vo_lang::classad::{Ad, Expr};
use vo_lang::eventlog::{Body, Event, Form};
use vo_wire::control::{JobRow, JobState};
use vo_wire::dag::DagRow;

use super::files;
use crate::jobad::Facts;

/// Where it runs: the master has no address that others reach.
pub(super) const HOST: &str = "<127.0.0.1:0>";
/// Why it was held, released or removed.
pub(super) const BY_USER: &str = "by the user";
/// The status of a DAG that the user removed; see [`DagRow::status`].
pub(crate) const REMOVED: u8 = 4;

/// A DAG's job.
pub(crate) struct Job {
    pub(crate) row: JobRow,
    pub(crate) ad: Ad,
}

fn state(dag: &DagRow) -> JobState {
    match (dag.code, dag.status) {
        (Some(_), REMOVED) => JobState::Removed,
        (Some(_), _) => JobState::Completed,
        (None, _) if dag.paused => JobState::Held,
        (None, _) => JobState::Running,
    }
}

/// Does a change concern it?
pub(crate) fn concerns(dag: &DagRow, change: Change) -> bool {
    match change {
        Change::Remove => dag.code.is_none() && dag.status != REMOVED,
        Change::Hold => state(dag) == JobState::Running,
        Change::Release => state(dag) == JobState::Held,
        Change::Edit | Change::Vacate => false,
    }
}

impl Job {
    pub(crate) fn new(dag: &DagRow, batch: Option<String>, facts: &Facts) -> Job {
        let state = state(dag);
        let id = JobId { cluster: dag.dag, proc: 0 };
        let reason = (state == JobState::Held).then(|| BY_USER.to_owned());
        let over = |is: bool| dag.ended_ms.filter(|_| is);
        let row = JobRow {
            id,
            state,
            attempts: 1,
            submitted_ms: dag.submitted_ms,
            started_ms: Some(dag.submitted_ms),
            ended_ms: dag.ended_ms,
            exit_code: dag.code.filter(|_| state == JobState::Completed).and_then(|code| u8::try_from(code).ok()),
            signal: None,
            usage: Usage { wall_ms: dag.ended_ms.unwrap_or(0).saturating_sub(dag.submitted_ms), ..Usage::default() },
            site: None,
            host: Some(facts.host.clone()).filter(|_| dag.code.is_none()),
            reason: reason.clone(),
            command: format!("condor_dagman {}", dag.file),
            priority: 0,
            entered_ms: dag.ended_ms.unwrap_or(dag.submitted_ms),
            starts_ms: None,
        };
        let mut ad = Ad::new();
        let directory = String::from_utf8_lossy(&dag.directory).into_owned();
        let texts = [
            ("MyType", Some("Job".to_owned())),
            ("Owner", Some(facts.owner.clone())),
            ("User", Some(format!("{}@{}", facts.owner, facts.host))),
            ("Cmd", Some("condor_dagman".to_owned())),
            ("Arguments", Some(dag.file.clone())),
            ("Iwd", Some(directory)),
            ("JobBatchName", batch),
            ("UserLog", Some(format!("{}.dagman.log", dag.file))),
            ("DAGNodeName", dag.parent.as_ref().map(|(_, node)| node.clone())),
            ("HoldReason", reason),
        ];
        texts.into_iter().for_each(|(name, text)| text.into_iter().for_each(|text| ad.insert(name, text)));
        let status = match state {
            JobState::Held => 5,
            JobState::Removed => 3,
            JobState::Completed => 4,
            _ => 2,
        };
        let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        let nodes = |states: &[State]| states.iter().map(|state| i64::from(dag.of(*state))).sum::<i64>();
        let numbers = [
            ("ClusterId", Some(i64::from(dag.dag))),
            ("ProcId", Some(0)),
            ("JobUniverse", Some(7)),
            ("JobStatus", Some(status)),
            ("JobPrio", Some(0)),
            ("RequestCpus", Some(1)),
            ("TotalSubmitProcs", Some(1)),
            ("NumJobStarts", Some(1)),
            ("QDate", Some(seconds(dag.submitted_ms))),
            ("JobStartDate", Some(seconds(dag.submitted_ms))),
            ("EnteredCurrentStatus", Some(seconds(dag.ended_ms.unwrap_or(dag.submitted_ms)))),
            ("CompletionDate", over(state == JobState::Completed).map(seconds)),
            ("ExitCode", dag.code.filter(|_| state == JobState::Completed).map(i64::from)),
            ("HoldReasonCode", (state == JobState::Held).then_some(1)),
            ("DAGManJobId", dag.parent.as_ref().map(|(parent, _)| i64::from(*parent))),
            ("DAG_Status", Some(i64::from(dag.status))),
            ("DAG_InRecovery", Some(0)),
            ("DAG_NodesTotal", Some(i64::from(dag.total()))),
            ("DAG_NodesDone", Some(nodes(&[State::Done]))),
            ("DAG_NodesFailed", Some(nodes(&[State::Failed]))),
            ("DAG_NodesFutile", Some(nodes(&[State::Futile]))),
            ("DAG_NodesPrerun", Some(nodes(&[State::Pre]))),
            ("DAG_NodesPostrun", Some(nodes(&[State::Post]))),
            ("DAG_NodesQueued", Some(nodes(&[State::Submitting, State::Submitted]))),
            ("DAG_NodesReady", Some(nodes(&[State::Ready]))),
            ("DAG_NodesUnready", Some(nodes(&[State::NotReady]))),
        ];
        numbers.into_iter().for_each(|(name, number)| number.into_iter().for_each(|number| ad.insert(name, number)));
        if state == JobState::Completed {
            ad.insert("ExitBySignal", false);
        }
        for line in &dag.attributes {
            if let Some((name, value)) = assignment(line) {
                ad.insert(name, value);
            }
        }
        if let Ok(others) = Expr::parse_old(format!("DAGManJobId =?= {}", dag.dag)) {
            ad.insert("OtherJobRemoveRequirements", others);
        }
        Job { row, ad }
    }
}

/// An attribute of a DAG's ad, `NAME = EXPRESSION`, `+NAME = …` or `MY.NAME = …`.
fn assignment(line: &str) -> Option<(&str, Expr)> {
    let (name, text) = line.split_once('=')?;
    let name = name.trim();
    let name = match name.get(..3) {
        Some(my) if my.eq_ignore_ascii_case("my.") => name.get(3..)?,
        _ => name.strip_prefix('+').unwrap_or(name),
    };
    let value = Expr::parse_old(text.trim()).ok()?;
    (!name.is_empty()).then_some((name, value))
}

/// Writes an event into the log of the DAG in `path`. One that can't be written holds nobody up; of those that come once, one that is there
/// is not written again, as the DAG may begin or end once more after a crash.
pub(super) fn note(path: &Path, dag: u32, ms: u64, body: Body) {
    let mut log = path.as_os_str().to_owned();
    log.push(".dagman.log");
    let once = !matches!(body, Body::Held { .. } | Body::Released { .. });
    let head = format!("{:03} ({dag:03}.000.000)", body.number());
    if once && fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line.starts_with(&head))) {
        return;
    }
    let time = files::zoned(ms).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string();
    let text = Event { cluster: dag, proc: Some(0), time, body }.write(Form::Text);
    let written =
        OpenOptions::new().append(true).create(true).open(&log).and_then(|mut log| log.write_all(text.as_bytes()));
    if let Err(error) = written {
        tracing::warn!(path = %Path::new(&log).display(), %error, "the event log of a DAG can't be written");
    }
}
