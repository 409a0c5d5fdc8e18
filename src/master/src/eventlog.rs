//! Job event logs, in the text format of HTCondor's user logs: events 000 submitted, 001 executing, 004 evicted, 005 terminated,
//! 009 aborted, 012 held. Source: HTCondor manual, "Job event log codes".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use vo_core::Time;
use vo_core::ids::JobId;
use vo_core::job::Usage;
use vo_core::pool::{End, Note};
use vo_core::template::Template;

/// An entry to write.
pub(crate) struct Entry {
    pub(crate) job: JobId,
    pub(crate) log: Template,
    pub(crate) initialdir: Template,
    pub(crate) at: Time,
    pub(crate) note: Note,
}

/// The thread that writes the logs.
pub(crate) struct EventLogs(Sender<Entry>);

impl EventLogs {
    /// Starts it. A log that can't be written is named once in our own log, and holds nobody up.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, inbox) = mpsc::channel::<Entry>();
        let zone = TimeZone::system();
        thread::Builder::new().name("event-logs".into()).spawn(move || {
            let mut failed = std::collections::BTreeSet::new();
            while let Ok(first) = inbox.recv() {
                let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
                let burst = std::iter::once(first).chain(inbox.try_iter().take(10_000));
                burst.for_each(|entry| render(&entry, &zone, &mut texts));
                for (path, text) in texts {
                    let appended = OpenOptions::new().append(true).create(true).open(&path);
                    if let Err(error) = appended.and_then(|mut file| file.write_all(text.as_bytes()))
                        && failed.insert(path.clone())
                    {
                        tracing::warn!(log = %path.display(), %error, "a job event log can't be written");
                    }
                }
            }
        })?;
        Ok(EventLogs(sender))
    }

    /// Takes an entry.
    pub(crate) fn write(&self, entry: Entry) {
        // The thread ends only with us.
        let _ = self.0.send(entry);
    }
}

/// Where a job's log is.
pub(crate) fn path(log: &Template, initialdir: &Template, job: JobId) -> PathBuf {
    let dir = initialdir.expand(job);
    Path::new(OsStr::from_bytes(&dir)).join(OsStr::from_bytes(&log.expand(job)))
}

fn render(entry: &Entry, zone: &TimeZone, texts: &mut BTreeMap<PathBuf, String>) {
    let Entry { job, log, initialdir, at, note } = entry;
    let stamp = Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
    let stamp = stamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut event = |proc: u32, code: u32, body: &str| {
        let id = JobId { cluster: job.cluster, proc };
        let text = texts.entry(path(log, initialdir, id)).or_default();
        // Writing to a string can't fail.
        let _ = writeln!(text, "{code:03} ({:03}.{proc:03}.000) {stamp} {body}\n...", job.cluster);
    };
    match note {
        Note::Submitted { count } => {
            (job.proc..job.proc + count).for_each(|proc| event(proc, 0, "Job submitted from host: <127.0.0.1:0>"));
        }
        Note::Executing { host } => event(job.proc, 1, &format!("Job executing on host: <{host}>")),
        Note::Evicted { why } => {
            let body = format!("Job was evicted.\n\t(0) CPU times\n{}\n\t{}", usage(&Usage::default()), line(why));
            event(job.proc, 4, &body);
        }
        Note::Terminated { end, usage: used } => {
            let end = match end {
                End::Exited(code) => format!("(1) Normal termination (return value {code})"),
                End::Signaled(signal) => format!("(0) Abnormal termination (signal {signal})\n\t(0) No core file"),
            };
            let memory = used.peak_kib.div_ceil(1024);
            let body = format!(
                "Job terminated.\n\t{end}\n{}\n\tPartitionable Resources :    Usage\n\t   Memory (MB)          : {memory:>8}",
                usage(used)
            );
            event(job.proc, 5, &body);
        }
        Note::Held { why } => event(job.proc, 12, &format!("Job was held.\n\t{}\n\tCode 0 Subcode 0", line(why))),
        Note::Removed => event(job.proc, 9, "Job was aborted.\n\tvia rm"),
    }
}

/// One line, whatever a site said: a line of dots would end the event.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn usage(used: &Usage) -> String {
    let span = |ms: u64| {
        let s = Duration::from_millis(ms).as_secs();
        format!("{} {:02}:{:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)
    };
    let row = |ms: u64, what: &str| format!("\t\tUsr {}, Sys {}  -  {what}", span(ms), span(0));
    [
        row(used.cpu_ms, "Run Remote Usage"),
        row(0, "Run Local Usage"),
        row(used.cpu_ms, "Total Remote Usage"),
        row(0, "Total Local Usage"),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_htcondor_writes_them() {
        let mut texts = BTreeMap::new();
        let mut entry = Entry {
            job: JobId { cluster: 7, proc: 2 },
            log: Template::constant("job.log"),
            initialdir: Template::constant("/d"),
            at: Time(1_700_000_000_000),
            note: Note::Terminated {
                end: End::Exited(3),
                usage: Usage { wall_ms: 0, cpu_ms: 3_661_000, peak_kib: 2048 },
            },
        };
        render(&entry, &TimeZone::UTC, &mut texts);
        let text = texts.remove(Path::new("/d/job.log")).unwrap();
        assert!(text.starts_with(
            "005 (007.002.000) 2023-11-14 22:13:20 Job terminated.\n\t(1) Normal termination (return value 3)\n"
        ));
        assert!(text.contains("\t\tUsr 0 01:01:01, Sys 0 00:00:00  -  Run Remote Usage\n"));
        assert!(text.ends_with("\n...\n"));
        entry.note = Note::Held { why: "a\n...\nb".into() };
        render(&entry, &TimeZone::UTC, &mut texts);
        assert_eq!(texts[Path::new("/d/job.log")].lines().filter(|l| *l == "...").count(), 1);
        entry.note = Note::Submitted { count: 2 };
        texts.clear();
        render(&entry, &TimeZone::UTC, &mut texts);
        assert!(texts[Path::new("/d/job.log")].contains("000 (007.003.000)"));
    }
}
