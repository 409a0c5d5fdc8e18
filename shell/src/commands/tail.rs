//! `condor_tail`: the end of what a job writes, while it writes it; `condor_transfer_data`, for which nothing is left to do.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use vo_core::JobId;
use vo_wire::control::{Done, JobDetail, JobRows, ListJobs, Pick, ShowJob, Watch};
use vo_wire::frame::Message;

use super::ads::Constraint;
use super::jobs::{own, state_name};
use super::{Asking, Place};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};
use crate::table::written;

/// Files that are followed are looked at this often.
const PACE: Duration = Duration::from_millis(500);

/// Shows the end of what a job has written to its standard output
///
/// It is read where it comes home: of a job that runs where its directory is not shared, that takes `stream_output = true` in its description.
#[derive(Parser, Debug)]
pub(crate) struct Tail {
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    place: Place,
    /// Bytes of each file at the most
    #[arg(long, value_name = "N", default_value_t = 1024)]
    maxbytes: u64,
    /// Go on until the job has ended or is held
    #[arg(short, long)]
    follow: bool,
    /// Standard error, too
    #[arg(long)]
    stderr: bool,
    /// Not standard output
    #[arg(long, requires = "stderr", alias = "no_stdout")]
    no_stdout: bool,
    /// Wait until there is something to show
    #[arg(long, alias = "auto_retry")]
    auto_retry: bool,
    /// The job, such as 12.3
    job: JobId,
    /// Taken for HTCondor's sake: other files of a job are not to be had while it runs
    #[arg(value_name = "FILE", hide = true)]
    files: Vec<String>,
}

/// A file of a job, and how far it was shown.
struct Shown {
    path: PathBuf,
    at: Option<u64>,
}

impl Shown {
    /// Writes what is new of it, or at first its end; whether it is there.
    fn show(&mut self, most: u64) -> Result<bool> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(false) };
        let failed = |e| Error::system(format!("cannot read {}", self.path.display()), e);
        let length = file.metadata().map_err(failed)?.len();
        let from = self.at.filter(|at| *at <= length).unwrap_or_else(|| length.saturating_sub(most));
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        let mut out = io::stdout().lock();
        let count = io::copy(&mut file.take(length - from), &mut out).map_err(written)?;
        out.flush().map_err(written)?;
        self.at = Some(from + count);
        Ok(true)
    }
}

pub(super) fn run(arguments: Tail) -> Result<ExitCode> {
    let Tail { asking, place, maxbytes, follow, stderr, no_stdout, auto_retry, job, files } = arguments;
    if let Some(file) = files.first() {
        let error = Error::usage(format!("{file} of job {job} can't be shown before its job has ended"));
        return Err(error.hint("only standard output and error can: see `condor_tail --help`"));
    }
    let session = asking.session()?;
    let mut master = session.connect()?;
    place.check(&master.welcome.session)?;
    let detail: JobDetail = master.ask(&ShowJob { job })?;
    let wanted = [(!no_stdout, &detail.output, "output"), (stderr, &detail.error, "error")];
    let mut shown = Vec::new();
    for (_, path, what) in wanted.into_iter().filter(|(wanted, ..)| *wanted) {
        let path = path.as_deref().ok_or_else(|| {
            let hint = format!("`{what} = FILE` in the submit description keeps it");
            Error::usage(format!("job {job} keeps no {what}")).hint(hint)
        })?;
        shown.push(Shown { path: PathBuf::from(OsStr::from_bytes(path)), at: None });
    }
    if follow || auto_retry {
        followed(session.connect()?, job, &mut shown, maxbytes, follow)?;
    }
    let mut there = false;
    for file in &mut shown {
        there |= file.show(maxbytes)?;
    }
    if there {
        return Ok(ExitCode::Success);
    }
    let state = state_name(detail.row.state);
    let error = Error::new(ExitCode::Failure, format!("job {job}, which is {state}, has written nothing that is here"));
    Err(error.hint("`stream_output = true` in its description brings what it writes while it runs"))
}

/// Shows files as they grow, until the job has ended, or until there is one.
fn followed(mut watch: Master, job: JobId, shown: &mut [Shown], most: u64, all: bool) -> Result<()> {
    watch.send(&Watch { picks: vec![Pick::Job(job)] })?;
    loop {
        let mut there = false;
        for file in &mut *shown {
            there |= file.show(most)?;
        }
        if there && !all {
            return Ok(());
        }
        let next = Instant::now() + PACE;
        while let Some(frame) = watch.frame_before(Some(next))? {
            if frame.kind == Done::KIND {
                return Ok(());
            }
        }
    }
}

/// Says that outputs are where they belong: nothing waits to be fetched
#[derive(Parser, Debug)]
pub(crate) struct TransferData {
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    place: Place,
    /// All jobs
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    constraint: Constraint,
    /// Clusters (12, 12-15), jobs (12.3, 12.3-9) or your own name, which means all
    #[arg(value_name = "JOB", value_parser = own, required_unless_present_any = ["all", "constraint"])]
    picks: Vec<Option<Pick>>,
}

pub(super) fn transfer(arguments: TransferData) -> Result<ExitCode> {
    let TransferData { asking, place, constraint, picks, .. } = arguments;
    let mut master = asking.connect()?;
    place.check(&master.welcome.session)?;
    let jobs =
        ListJobs { picks: picks.into_iter().flatten().collect(), constraint: constraint.text(), ..ListJobs::default() };
    // One that isn't there is an error.
    master.pages(&jobs, |_: JobRows| Ok(()))?;
    eprintln!("Nothing is to be fetched: what jobs wrote is in its place when they have ended.");
    Ok(ExitCode::Success)
}
