//! Lines and columns of `q` and `history`.

use std::io::Write;

use jiff::tz::TimeZone;
use vo_core::JobId;
use vo_wire::control::{AdRows, Columns, Counts, JobRow, JobState, ListJobs};

use super::Batch;
use crate::client::Master;
use crate::error::{Error, ExitCode, Result, printable};
use crate::table::{Side, Table, clock, count, date_and_time, short_date, written};

/// What all rows of a listing share.
pub(super) struct Head<'a> {
    pub(super) session: &'a str,
    pub(super) owner: &'a str,
    pub(super) now: u64,
    pub(super) zone: TimeZone,
    /// CPU time is shown.
    pub(super) cpu: bool,
    /// Characters of a line.
    pub(super) wide: Option<usize>,
}

impl Head<'_> {
    pub(super) const IDLE: &'static str = " ID      OWNER          UNIVERSE  CPUS MEMORY STARTS LAST_HOST";
    pub(super) const RUNNING: &'static str = " ID      OWNER            SUBMITTED     RUN_TIME HOST(S)";
    pub(super) const HELD: &'static str = " ID      OWNER          HELD_SINCE  CODE/SUB HOLD_REASON";
    pub(super) const FINISHED: &'static str = " ID          OWNER            SUBMITTED   RUN_TIME   ST   COMPLETED CMD";

    pub(super) fn begin(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "\n\n-- Session: {} @ {}", self.session, date_and_time(self.now, &self.zone))
    }

    /// A line, cut where that is asked for.
    pub(super) fn say(&self, line: &str, out: &mut impl Write) -> Result<()> {
        let cut = self.wide.and_then(|wide| line.char_indices().nth(wide)).map_or(line.len(), |(cut, _)| cut);
        writeln!(out, "{}", line.get(..cut).unwrap_or_default()).map_err(written)
    }

    /// Those of the job view.
    pub(super) fn titles(&self, dag: bool) -> String {
        let (owner, time) =
            (if dag { "OWNER/NODENAME   " } else { "OWNER         " }, if self.cpu { "CPU" } else { "RUN" });
        format!(" ID      {owner}   SUBMITTED     {time}_TIME ST PRI SIZE CMD")
    }

    pub(super) fn date(&self, ms: u64) -> String {
        short_date(ms, &self.zone)
    }

    /// The batch view of condor_q.
    pub(super) fn clusters(&self, rows: &[Batch]) -> Table {
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
            let (completed, total) = row.nodes.unwrap_or((completed, row.counts.total()));
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
    pub(super) fn who(&self, id: JobId) -> String {
        format!("{:>4}.{:<3} {:<14}", id.cluster, id.proc, self.owner)
    }

    /// A line of condor_q -nobatch.
    pub(super) fn job(&self, row: &JobRow) -> String {
        self.job_of(&self.who(row.id), row)
    }

    /// A line of condor_q -nobatch -dag: a job of a node has the node's name for its owner.
    pub(super) fn relative(&self, row: &JobRow, node: Option<&(u32, String)>, depth: usize) -> String {
        let text = match node {
            Some((_, node)) => format!("{}|-{}", " ".repeat(depth), printable(node)),
            None => self.owner.to_owned(),
        };
        let text: String = text.chars().take(17).collect();
        self.job_of(&format!("{:>4}.{:<3} {text:<17}", row.id.cluster, row.id.proc), row)
    }

    pub(super) fn job_of(&self, who: &str, row: &JobRow) -> String {
        let time = if self.cpu { row.usage.cpu_ms } else { self.wall(row) };
        let (date, time) = (self.date(row.submitted_ms), clock(time));
        let (state, priority, size) = (letter(row.state), row.priority, row.usage.peak_kib as f64 / 1024.0);
        format!("{who} {date:<11} {time:>12} {state:<2} {priority:<3} {size:>4.1} {}", named(&row.command))
    }

    /// A line of condor_q -run, with the site.
    pub(super) fn running(&self, row: &JobRow) -> String {
        let (who, date, time) = (self.who(row.id), self.date(row.submitted_ms), clock(self.wall(row)));
        let (host, site) = (row.host.as_deref().unwrap_or_default(), row.site.as_deref().unwrap_or_default());
        format!("{who} {date:<11} {time:>12} {} ({})", printable(host), printable(site))
    }

    /// Those of condor_q -idle.
    pub(super) fn idle(&self, master: &mut Master, jobs: ListJobs, out: &mut impl Write) -> Result<()> {
        let exprs = [
            "JobUniverse == 7 ? \"Scheduler\" : JobUniverse == 12 ? \"Local\" : \"Vanilla\"",
            "RequestCpus",
            "RequestMemory",
            "NumJobStarts",
            "LastRemoteHost",
        ];
        let columns = Columns { exprs: exprs.map(str::to_owned).to_vec(), ..Columns::default() };
        self.say(Self::IDLE, out)?;
        master.pages(&ListJobs { columns: Some(columns), ..jobs }, |page: AdRows| {
            page.rows.iter().try_for_each(|row| {
                let (Some(id), [universe, cpus, memory, starts, host]) = (row.job, row.cells.as_slice()) else {
                    return Err(Error::new(ExitCode::Internal, "the master said something unintelligible"));
                };
                let memory = if memory == "undefined" { "" } else { memory };
                let host = printable(host);
                self.say(&format!("{} {universe:<9} {cpus:>4} {memory:>6} {starts:>6} {host}", self.who(id)), out)
            })
        })
    }

    /// Those of condor_q -hold.
    pub(super) fn held(
        &self,
        master: &mut Master,
        jobs: ListJobs,
        found: &mut Counts,
        out: &mut impl Write,
    ) -> Result<()> {
        let exprs = ["EnteredCurrentStatus", "HoldReasonCode ?: 0", "HoldReasonSubCode ?: 0", "HoldReason ?: \"\""];
        let columns = Columns { exprs: exprs.map(str::to_owned).to_vec(), ..Columns::default() };
        self.say(Self::HELD, out)?;
        master.pages(&ListJobs { columns: Some(columns), ..jobs }, |page: AdRows| {
            page.rows.iter().try_for_each(|row| {
                let (Some(id), [since, code, sub, why]) = (row.job, row.cells.as_slice()) else {
                    return Err(Error::new(ExitCode::Internal, "the master said something unintelligible"));
                };
                found.held += 1;
                let since = self.date(since.parse::<u64>().unwrap_or(0).saturating_mul(1000));
                let code = format!("{code:>4}/{sub}");
                let why = printable(why).replace('\n', " ");
                self.say(&format!("{} {since:<11} {code:<8} {why}", self.who(id)), out)
            })
        })
    }

    /// A line of condor_history.
    pub(super) fn was(&self, row: &JobRow) -> String {
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

    pub(super) fn finished(&self, rows: &[JobRow]) -> Table {
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
    pub(super) fn wall(&self, row: &JobRow) -> u64 {
        match (row.state, row.started_ms) {
            (JobState::Running | JobState::Unknown, Some(started)) => self.now.saturating_sub(started),
            _ => row.usage.wall_ms,
        }
    }
}

/// `0`, `3`, `SIGKILL`, or nothing for a job that didn't end by itself.
pub(in crate::commands) fn end(row: &JobRow) -> String {
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
pub(in crate::commands) fn memory(kib: u64) -> String {
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

pub(in crate::commands) fn state_name(state: JobState) -> &'static str {
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
pub(super) fn short(command: &str) -> String {
    const WIDTH: usize = 60;
    let text = named(command);
    match text.char_indices().nth(WIDTH) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}
