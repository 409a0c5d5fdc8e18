//! `log`: what happened to one job, and what it wrote.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Parser;
use jiff::tz::TimeZone;
use serde::Serialize;
use vo_core::JobId;
use vo_wire::control::{Done, JobDetail, JobEventRow, JobState, Pick, ShowJob, Watch};
use vo_wire::frame::Message;

use super::Asking;
use super::jobs::{JobJson, end, memory, state_name};
use crate::error::{Error, ExitCode, Result, printable};
use crate::table::{full_date, span, stdout, written};

/// Tells what happened to a job
#[derive(Parser, Debug)]
pub(crate) struct Log {
    #[command(flatten)]
    asking: Asking,
    /// Write the job's standard output instead
    #[arg(short, long, conflicts_with = "error")]
    output: bool,
    /// Write the job's standard error instead
    #[arg(short, long)]
    error: bool,
    /// Write what this attempt wrote before it was cut off: its output, or with -e its errors
    #[arg(long, value_name = "N", conflicts_with_all = ["json", "follow"])]
    attempt: Option<u32>,
    /// Go on until the job has ended or is held
    #[arg(short, long, conflicts_with_all = ["json", "output", "error"])]
    follow: bool,
    /// A JSON array with one object
    #[arg(long, conflicts_with_all = ["output", "error"])]
    json: bool,
    /// The job, such as 12.3
    job: JobId,
}

pub(super) fn run(arguments: Log) -> Result<ExitCode> {
    let session = arguments.asking.session()?;
    let show = ShowJob { job: arguments.job };
    let mut detail: JobDetail = session.connect()?.ask(&show)?;
    if let Some(attempt) = arguments.attempt {
        return copy_partial(attempt, arguments.error, &detail);
    }
    if arguments.output || arguments.error {
        let (path, what) = if arguments.output { (&detail.output, "output") } else { (&detail.error, "error") };
        return copy(path.as_deref(), what, &detail);
    }
    let mut out = stdout();
    if arguments.json {
        let text = serde_json::to_string(&[DetailJson::new(&detail)])
            .map_err(|e| Error::new(ExitCode::Internal, "cannot write JSON").because(e))?;
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(written)?;
        return Ok(ExitCode::Success);
    }
    let zone = TimeZone::system();
    write_detail(&detail, &zone, &mut out).and_then(|()| out.flush()).map_err(written)?;
    if arguments.follow {
        let mut watch = session.connect()?;
        watch.send(&Watch { picks: vec![Pick::Job(arguments.job)] })?;
        let mut shown = detail.events.len();
        loop {
            let ended = watch.frame()?.kind == Done::KIND;
            detail = session.connect()?.ask(&show)?;
            let news = detail.events.get(shown..).unwrap_or_default();
            write_events(news, &zone, &mut out).and_then(|()| out.flush()).map_err(written)?;
            shown = detail.events.len();
            if ended {
                break;
            }
        }
    }
    Ok(ExitCode::Success)
}

fn copy(path: Option<&[u8]>, what: &str, detail: &JobDetail) -> Result<ExitCode> {
    let Some(path) = path else {
        let error = Error::usage(format!("job {} keeps no {what}", detail.row.id));
        return Err(error.hint(format!("`{what} = FILE` in the submit description keeps it")));
    };
    let path = Path::new(OsStr::from_bytes(path));
    let mut file = File::open(path).map_err(|e| {
        let error = Error::system(format!("cannot open {}", path.display()), e);
        match detail.row.state {
            JobState::Completed => error,
            state => error.hint(format!("the job is {}; its {what} may not be there yet", state_name(state))),
        }
    })?;
    io::copy(&mut file, &mut io::stdout().lock()).map_err(written)?;
    Ok(ExitCode::Success)
}

fn copy_partial(attempt: u32, error: bool, detail: &JobDetail) -> Result<ExitCode> {
    let row = detail.partials.iter().find(|row| (row.attempt, row.error) == (attempt, error));
    let Some(row) = row else {
        let what = if error { "error" } else { "output" };
        let message = format!("nothing is kept of the standard {what} of attempt {attempt} of job {}", detail.row.id);
        let hint = if attempt == detail.row.attempts && detail.row.state == JobState::Completed {
            format!("that attempt counts: `log -{} {}` writes it", &what[..1], detail.row.id)
        } else {
            format!("`log {}` says what is kept", detail.row.id)
        };
        return Err(Error::usage(message).hint(hint));
    };
    let path = Path::new(OsStr::from_bytes(&row.path));
    let mut file = File::open(path).map_err(|e| Error::system(format!("cannot open {}", path.display()), e))?;
    io::copy(&mut file, &mut io::stdout().lock()).map_err(written)?;
    Ok(ExitCode::Success)
}

fn write_detail(detail: &JobDetail, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let row = &detail.row;
    writeln!(out, "{}  {}", row.id, printable(&row.command))?;
    let mut say = |name: &str, value: &str| {
        if value.is_empty() { Ok(()) } else { writeln!(out, "  {name:<10}{}", printable(value)) }
    };
    let attempts = if row.attempts > 1 { format!(" (attempt {})", row.attempts) } else { String::new() };
    say("state", &format!("{}{attempts}", state_name(row.state)))?;
    say("exit", &end(row))?;
    say("reason", row.reason.as_deref().unwrap_or_default())?;
    say("site", row.site.as_deref().unwrap_or_default())?;
    say("host", row.host.as_deref().unwrap_or_default())?;
    if matches!(row.state, JobState::Completed | JobState::Removed) {
        let used = format!(
            "{} wall, {}.{:03}s cpu",
            span(row.usage.wall_ms),
            row.usage.cpu_ms / 1000,
            row.usage.cpu_ms % 1000
        );
        say("used", &used)?;
        say("memory", &memory(row.usage.peak_kib))?;
    }
    say("directory", &String::from_utf8_lossy(&detail.initialdir))?;
    for (name, path) in [("output", &detail.output), ("error", &detail.error), ("log", &detail.log)] {
        say(name, &String::from_utf8_lossy(path.as_deref().unwrap_or_default()))?;
    }
    for row in &detail.partials {
        let what = if row.error { "error" } else { "output" };
        let path = String::from_utf8_lossy(&row.path);
        say("partial", &format!("attempt {}, {what}, {} bytes: {path}", row.attempt, row.bytes))?;
    }
    write_events(&detail.events, zone, out)
}

fn write_events(events: &[JobEventRow], zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    events.iter().try_for_each(|event| writeln!(out, "{} {}", full_date(event.at_ms, zone), printable(&event.text)))
}

/// A job in `log --json`: the keys of `q --json`, and these. Paths that are not UTF-8 are shown with U+FFFD.
#[derive(Serialize)]
struct DetailJson<'a> {
    #[serde(flatten)]
    job: JobJson<'a>,
    initialdir: String,
    output: Option<String>,
    error: Option<String>,
    log: Option<String>,
    events: Vec<EventJson<'a>>,
    partials: Vec<PartialJson>,
}

#[derive(Serialize)]
struct PartialJson {
    attempt: u32,
    kind: &'static str,
    bytes: u64,
    path: String,
}

#[derive(Serialize)]
struct EventJson<'a> {
    at_ms: u64,
    text: &'a str,
}

impl<'a> DetailJson<'a> {
    fn new(detail: &'a JobDetail) -> Self {
        let path = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        DetailJson {
            job: JobJson::new(&detail.row),
            initialdir: String::from_utf8_lossy(&detail.initialdir).into_owned(),
            output: path(&detail.output),
            error: path(&detail.error),
            log: path(&detail.log),
            events: detail.events.iter().map(|e| EventJson { at_ms: e.at_ms, text: &e.text }).collect(),
            partials: detail
                .partials
                .iter()
                .map(|row| PartialJson {
                    attempt: row.attempt,
                    kind: if row.error { "error" } else { "output" },
                    bytes: row.bytes,
                    path: String::from_utf8_lossy(&row.path).into_owned(),
                })
                .collect(),
        }
    }
}
