//! `wait`: until jobs have ended.

mod log;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vo_wire::control::{Counts, Done, Pick, Progress, Watch};
use vo_wire::frame::Message;

use super::{Asking, dag, pick};
use crate::client::read;
use crate::error::{Error, ExitCode, Result};
use crate::table::span;

/// Waits until jobs have ended; tells by its exit code whether all succeeded
///
/// Jobs that are held don't end by themselves, and are not waited for. The exit code is 0 if all jobs completed with exit code 0,
/// 7 if some failed, are held or were removed, 10 if the time given by --timeout has passed. On a terminal, progress is shown.
///
/// With a job event log, of this session or any other or of HTCondor, it waits for the jobs that the log tells of until each has
/// completed or was removed; the exit code is 0 then, and 1 otherwise.
#[derive(Parser, Debug)]
pub(crate) struct Wait {
    #[command(flatten)]
    asking: Asking,
    /// Wait no longer than this, such as 2h30m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// The same in seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "timeout")]
    wait: Option<u64>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Of a log: wait until so many jobs have ended
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    num: Option<u64>,
    /// Of a log: print the events
    #[arg(long)]
    echo: bool,
    /// Of a log: print a line for each event
    #[arg(long, conflicts_with = "echo")]
    status: bool,
    /// Of a log: go on when all jobs have ended
    #[arg(long, conflicts_with = "num")]
    allevents: bool,
    /// Job event log, then clusters (12) or jobs (12.3) [default: all]
    #[arg(value_name = "LOG|JOB")]
    words: Vec<OsString>,
}

fn duration(text: &str) -> Result<Duration, String> {
    vo_lang::parse_duration(text).map_err(|e| format!("expected {e}"))
}

pub(super) fn run(arguments: Wait) -> Result<ExitCode> {
    let Wait { asking, timeout, wait, quiet, num, echo, status, allevents, words } = arguments;
    let started = Instant::now();
    let timeout = timeout.or(wait.map(Duration::from_secs));
    let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
    let job = |word: &OsString| pick(&word.to_string_lossy());
    let (file, words) = match words.split_first() {
        Some((first, rest)) if job(first).is_err() => (Some(first), rest),
        _ => (None, &words[..]),
    };
    let wrong = |word: &OsString, why: String| Error::usage(format!("{} is no job", word.display())).hint(why);
    let picks = words.iter().map(|word| job(word).map_err(|why| wrong(word, why))).collect::<Result<Vec<Pick>>>()?;
    if let Some(file) = file {
        let asked = log::Asked { picks, count: num, deadline, echo, status, all_events: allevents, quiet };
        return log::run(file.as_ref(), &asked);
    }
    if num.is_some() || echo || status || allevents {
        let error = Error::usage("--num, --echo, --status and --allevents are for job event logs");
        return Err(error.hint("name one: `wait FILE.log --num 2`; a log whose name is a number is ./12"));
    }
    let mut master = asking.connect()?;
    let mut picks = picks;
    if picks.is_empty() {
        // They submit jobs as long as they run.
        dag::wait_for_all(&mut master, deadline)?;
    } else {
        let dags = dag::among(&mut master, &mut picks)?;
        let ended = dag::wait_for(&mut master, dags, deadline)?;
        if picks.is_empty() || !matches!(ended, ExitCode::Success) {
            return Ok(ended);
        }
    }
    let bar = (!quiet && std::io::stderr().is_terminal()).then(bar);
    master.send(&Watch { picks })?;
    let mut counts = Counts::default();
    loop {
        let Some(frame) = master.frame_before(deadline)? else {
            drop(bar);
            let left = format!(
                "{} job(s) have not ended after {}",
                counts.idle + counts.running,
                vo_lang::format_duration(started.elapsed())
            );
            return Err(Error::new(ExitCode::TimedOut, left));
        };
        if frame.kind == Done::KIND {
            break;
        }
        if frame.kind == Progress::KIND {
            let progress: Progress = read(&frame)?;
            counts = progress.counts;
            if let Some(bar) = &bar {
                show(bar, &progress);
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if !quiet {
        // The reader of standard error may be gone; the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{}", summary(&counts, started.elapsed()));
    }
    Ok(verdict(&counts))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn show(bar: &ProgressBar, Progress { counts, rate_milli }: &Progress) {
    bar.set_length(u64::from(counts.total()));
    bar.set_message(state(counts, *rate_milli));
    bar.set_position(u64::from(counts.completed + counts.removed));
}

/// `34 running, 12.3/s, 1m20s left`.
fn state(counts: &Counts, rate_milli: u64) -> String {
    let mut text = format!("{} running", counts.running);
    for (number, what) in [(counts.failed, "failed"), (counts.held, "held")] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    if let Some(left) = (u64::from(counts.idle + counts.running) * 1_000_000).checked_div(rate_milli) {
        text += &format!(", {}.{}/s, {} left", rate_milli / 1000, rate_milli / 100 % 10, span(left));
    }
    text
}

fn summary(counts: &Counts, took: Duration) -> String {
    let succeeded = counts.completed.saturating_sub(counts.failed);
    let mut text = format!("{succeeded} of {} job(s) succeeded", counts.total());
    for (number, what) in [(counts.failed, "failed"), (counts.held, "held"), (counts.removed, "removed")] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text += &match took.as_secs() {
        0..10 => format!(" (waited {:.1}s)", took.as_secs_f32()),
        seconds => format!(" (waited {})", span(seconds.saturating_mul(1000))),
    };
    if counts.held > 0 {
        text += "; `q -hold` says why they are held";
    }
    text
}

fn verdict(counts: &Counts) -> ExitCode {
    if counts.failed + counts.held + counts.removed == 0 { ExitCode::Success } else { ExitCode::JobsFailed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts = Counts { idle: 10, running: 2, held: 0, completed: 88, removed: 0, failed: 0, later: 0 };

    #[test]
    fn progress_shows_rate_and_time_left() {
        assert_eq!(state(&COUNTS, 0), "2 running");
        assert_eq!(state(&COUNTS, 150), "2 running, 0.1/s, 1m20s left");
        assert_eq!(
            state(&Counts { failed: 3, held: 1, ..COUNTS }, 12_345),
            "2 running, 3 failed, 1 held, 12.3/s, 0s left"
        );
    }

    #[test]
    fn the_verdict_is_success_only_if_all_succeeded() {
        let done = Counts { idle: 0, running: 0, completed: 100, ..COUNTS };
        assert_eq!(verdict(&done), ExitCode::Success);
        assert_eq!(verdict(&Counts { failed: 1, ..done }), ExitCode::JobsFailed);
        assert_eq!(verdict(&Counts { held: 1, ..done }), ExitCode::JobsFailed);
        assert_eq!(verdict(&Counts { removed: 1, ..done }), ExitCode::JobsFailed);
        let text = summary(&Counts { failed: 1, held: 2, ..done }, Duration::from_secs(61));
        assert_eq!(
            text,
            "99 of 102 job(s) succeeded, 1 failed, 2 held (waited 1m1s); `q -hold` says why they are held"
        );
    }
}
