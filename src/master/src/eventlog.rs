//! Job event logs, in the text format of HTCondor's user logs: events 000 submitted, 001 executing, 004 evicted, 005 terminated,
//! 009 aborted, 012 held. Source: HTCondor manual, "Job event log codes".

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use vo_core::Time;
use vo_core::ids::JobId;
use vo_core::job::Usage;
use vo_core::pool::{Action, End, Hold, Note};
use vo_core::template::Template;

/// The last line of an event.
const END: &str = "...\n";
/// In the session's directory; see [`marked`].
pub(crate) const MARK: &str = "event-logs";
/// Files that are synced one by one; more are synced with their file systems.
const SINGLE_SYNCS: usize = 4;
/// Between two syncs. What was written since the last one is looked for again after a crash.
const SYNC_PACE: Duration = Duration::from_secs(1);
/// Entries of one group.
const GROUP: usize = 10_000;
/// How much of a log is read to find entries that a crash may have kept from it.
const TAIL_BYTES: u64 = 256 << 20;

/// An entry to write.
pub(crate) struct Entry {
    pub(crate) job: JobId,
    pub(crate) log: Template,
    pub(crate) initialdir: Template,
    pub(crate) at: Time,
    pub(crate) note: Note,
}

impl Entry {
    /// The entry that the pool asks for.
    pub(crate) fn of(action: Action) -> Option<Entry> {
        match action {
            Action::Note { job, log, initialdir, at, note } => Some(Entry { job, log, initialdir, at, note }),
            _ => None,
        }
    }
}

enum Work {
    Entry(Entry),
    /// The entries of all records up to this number of the store came before.
    Mark(u64),
}

/// The thread that writes the logs.
pub(crate) struct EventLogs {
    work: Sender<Work>,
    /// Entries came since the last mark.
    unmarked: bool,
}

/// Up to which record of the store in `dir`'s session all entries are written: 0 if nothing tells.
pub(crate) fn marked(dir: &Path) -> u64 {
    let read = std::fs::read_to_string(dir.join(MARK)).ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

impl EventLogs {
    /// Starts it for the session in `dir`. `missed` are entries of records behind the mark: those that are not in their logs are written
    /// first. A log that can't be written is named once in our own log, and holds nobody up.
    pub(crate) fn start(dir: &Path, missed: Vec<Entry>) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        let mut writer = Writer {
            mark_file: dir.join(MARK),
            zone: TimeZone::system(),
            failed: BTreeSet::new(),
            unsynced: BTreeMap::new(),
            mark: None,
        };
        thread::Builder::new().name("event-logs".into()).spawn(move || {
            writer.catch_up(&missed);
            writer.run(&inbox);
        })?;
        Ok(EventLogs { work, unmarked: false })
    }

    /// Takes an entry.
    pub(crate) fn write(&mut self, entry: Entry) {
        self.unmarked = true;
        // The thread ends only with us.
        let _ = self.work.send(Work::Entry(entry));
    }

    /// The entries of all records up to this number of the store were handed in.
    pub(crate) fn mark(&mut self, number: u64) {
        if std::mem::take(&mut self.unmarked) {
            let _ = self.work.send(Work::Mark(number));
        }
    }
}

struct Writer {
    mark_file: PathBuf,
    zone: TimeZone,
    failed: BTreeSet<PathBuf>,
    /// Files written since the last sync, by file system.
    unsynced: BTreeMap<u64, Vec<File>>,
    mark: Option<u64>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Work>) {
        let mut synced = Instant::now();
        loop {
            let first = if self.unsynced.is_empty() && self.mark.is_none() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(SYNC_PACE.saturating_sub(synced.elapsed()))
            };
            let over = matches!(first, Err(RecvTimeoutError::Disconnected));
            let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
            for work in first.into_iter().chain(inbox.try_iter().take(GROUP)) {
                match work {
                    Work::Entry(entry) => render(&entry, &self.zone, &mut |path, event| {
                        texts.entry(path).or_default().push_str(event);
                    }),
                    Work::Mark(number) => self.mark = Some(number),
                }
            }
            for (path, text) in texts {
                self.append(&path, &text);
            }
            if over || synced.elapsed() >= SYNC_PACE {
                self.sync();
                synced = Instant::now();
            }
            if over {
                return;
            }
        }
    }

    fn append(&mut self, path: &Path, text: &str) {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file));
        match written {
            Ok(file) => {
                let device = file.metadata().map_or(0, |found| found.dev());
                let files = self.unsynced.entry(device).or_default();
                if files.len() <= SINGLE_SYNCS {
                    files.push(file);
                }
            }
            Err(error) => self.complain(path, &error),
        }
    }

    fn complain(&mut self, path: &Path, error: &io::Error) {
        if self.failed.insert(path.to_owned()) {
            tracing::warn!(log = %path.display(), %error, "a job event log can't be written");
        }
    }

    /// What is on disk is not looked for again.
    fn sync(&mut self) {
        for files in std::mem::take(&mut self.unsynced).into_values() {
            let done = match &files[..] {
                [first, ..] if files.len() > SINGLE_SYNCS => nix::unistd::syncfs(first).map_err(io::Error::from),
                _ => files.iter().try_for_each(File::sync_data),
            };
            if let Err(error) = done {
                tracing::warn!(%error, "job event logs can't be synced");
            }
        }
        if let Some(number) = self.mark.take()
            && let Err(error) = vo_store::write_atomic(&self.mark_file, number.to_string().as_bytes(), 0o600)
        {
            tracing::warn!(%error, "the mark of the job event logs can't be written");
        }
    }

    /// Writes those entries that are not in their logs.
    fn catch_up(&mut self, missed: &[Entry]) {
        let mut texts: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
        for entry in missed {
            render(entry, &self.zone, &mut |path, event| texts.entry(path).or_default().push(event.to_owned()));
        }
        for (path, events) in texts {
            let length: usize = events.iter().map(String::len).sum();
            match tail(&path, (length as u64).saturating_mul(4).saturating_add(1 << 16).min(TAIL_BYTES)) {
                Ok(tail) => {
                    let there: HashSet<&str> = tail.split_inclusive(END).collect();
                    let lacking: String = events.into_iter().filter(|event| !there.contains(event.as_str())).collect();
                    if !lacking.is_empty() {
                        self.append(&path, &lacking);
                    }
                }
                Err(error) => self.complain(&path, &error),
            }
        }
    }
}

/// The end of a log, at most so many bytes, without what a crash left of an entry: that is cut off.
fn tail(path: &Path, most: u64) -> io::Result<String> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    io::Read::by_ref(&mut file).take(most).read_to_end(&mut bytes)?;
    let whole = bytes.windows(END.len()).rposition(|seen| seen == END.as_bytes()).map_or(0, |at| at + END.len());
    // What others may have written there is theirs.
    let torn = &bytes[whole..];
    if !torn.is_empty() && torn.iter().take(3).all(u8::is_ascii_digit) {
        file.set_len(from + whole as u64)?;
        bytes.truncate(whole);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a job's log is.
pub(crate) fn path(log: &Template, initialdir: &Template, job: JobId) -> PathBuf {
    let dir = initialdir.expand(job);
    Path::new(OsStr::from_bytes(&dir)).join(OsStr::from_bytes(&log.expand(job)))
}

/// Hands out the entry's events, each with the path of its log.
fn render(entry: &Entry, zone: &TimeZone, take: &mut dyn FnMut(PathBuf, &str)) {
    let Entry { job, log, initialdir, at, note } = entry;
    let stamp = Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
    let stamp = stamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut event = |proc: u32, code: u32, body: &str| {
        let id = JobId { cluster: job.cluster, proc };
        let event = format!("{code:03} ({:03}.{proc:03}.000) {stamp} {body}\n{END}", job.cluster);
        let path = match note {
            Note::Submitted { jobs } if jobs.table().is_some() => {
                let row = jobs.row(proc);
                path(&log.fill(&row), &initialdir.fill(&row), id)
            }
            _ => path(log, initialdir, id),
        };
        take(path, &event);
    };
    match note {
        Note::Submitted { jobs } => {
            jobs.iter().for_each(|proc| event(proc, 0, "Job submitted from host: <127.0.0.1:0>"));
        }
        Note::Executing { host } => event(job.proc, 1, &format!("Job executing on host: <{}>", line(host))),
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
        Note::Requeued { end, usage: used, why } => {
            let end = match end {
                End::Exited(code) => format!("(1) Normal termination (return value {code})"),
                End::Signaled(signal) => format!("(0) Abnormal termination (signal {signal})\n\t(0) No core file"),
            };
            let body = format!(
                "Job was evicted.\n\t(0) Job terminated and was requeued\n{}\n\t0  -  Run Bytes Sent By Job\n\t0  -  Run Bytes Received By Job\n\t{end}\n\t{}",
                usage(used),
                line(why)
            );
            event(job.proc, 4, &body);
        }
        Note::Held { hold: Hold { why, code, subcode } } => {
            event(job.proc, 12, &format!("Job was held.\n\t{}\n\tCode {code} Subcode {subcode}", line(why)));
        }
        Note::Removed { why } => {
            event(job.proc, 9, &format!("Job was aborted.\n\t{}", line(why.as_deref().unwrap_or("via rm"))));
        }
        Note::Released { why } => {
            event(job.proc, 13, &format!("Job was released.\n\t{}", line(why.as_deref().unwrap_or("via release"))));
        }
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

    use vo_core::items::Members;

    #[test]
    fn events_read_as_htcondor_writes_them() {
        let texts = |entry: &Entry| {
            let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
            render(entry, &TimeZone::UTC, &mut |path, event| texts.entry(path).or_default().push_str(event));
            texts
        };
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
        let text = texts(&entry).remove(Path::new("/d/job.log")).unwrap();
        assert!(text.starts_with(
            "005 (007.002.000) 2023-11-14 22:13:20 Job terminated.\n\t(1) Normal termination (return value 3)\n"
        ));
        assert!(text.contains("\t\tUsr 0 01:01:01, Sys 0 00:00:00  -  Run Remote Usage\n"));
        assert!(text.ends_with("\n...\n"));
        entry.note = Note::Held { hold: Hold { why: "a\n...\nb".into(), ..Hold::default() } };
        assert_eq!(texts(&entry)[Path::new("/d/job.log")].lines().filter(|l| *l == "...").count(), 1);
        entry.note =
            Note::Executing { host: "node>\n...\n005 (007.002.000) 2023-11-14 22:13:20 Job terminated.".into() };
        let executing = texts(&entry);
        assert_eq!(executing[Path::new("/d/job.log")].lines().count(), 2, "a host's name makes no event of its own");
        entry.note = Note::Submitted { jobs: Members::new(2, 2, None, None) };
        assert!(texts(&entry)[Path::new("/d/job.log")].contains("000 (007.003.000)"));
    }

    #[test]
    fn what_a_crash_kept_from_a_log_is_written_once() {
        let dir = std::env::temp_dir().join(format!("vo-eventlog-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let entry = |proc, note| Entry {
            job: JobId { cluster: 1, proc },
            log: Template::constant("log"),
            initialdir: Template::constant(dir.as_os_str().as_bytes()),
            at: Time(1_700_000_000_000 + u64::from(proc) * 1000),
            note,
        };
        let entries = || {
            let held = |proc| {
                let hold = Hold { why: "no such file".into(), code: 13, subcode: 0 };
                entry(proc, Note::Held { hold })
            };
            vec![
                entry(0, Note::Submitted { jobs: Members::new(0, 3, None, None) }),
                held(0),
                entry(1, Note::Removed { why: None }),
                held(2),
            ]
        };
        let finish = |logs: EventLogs, number: u64| {
            // Its thread ends with it, and marks what it wrote.
            drop(logs);
            let deadline = Instant::now() + Duration::from_secs(30);
            while marked(&dir) != number {
                assert!(Instant::now() < deadline, "not marked");
                thread::sleep(Duration::from_millis(5));
            }
        };
        let mut logs = EventLogs::start(&dir, Vec::new()).unwrap();
        entries().into_iter().for_each(|entry| logs.write(entry));
        logs.mark(4);
        finish(logs, 4);
        let whole = std::fs::read(dir.join("log")).unwrap();
        // A crash after any byte, then all of it again.
        for kept in (0..whole.len()).step_by(7).chain([whole.len()]) {
            std::fs::write(dir.join("log"), &whole[..kept]).unwrap();
            std::fs::remove_file(dir.join(MARK)).unwrap();
            let mut logs = EventLogs::start(&dir, entries()).unwrap();
            logs.write(entry(7, Note::Removed { why: None }));
            logs.mark(5);
            finish(logs, 5);
            let seen = std::fs::read(dir.join("log")).unwrap();
            let (seen, later) = seen.split_at(whole.len());
            assert!(seen == whole, "{kept} bytes were kept: {}", String::from_utf8_lossy(seen));
            assert!(later.starts_with(b"009 (001.007.000) "), "{}", String::from_utf8_lossy(later));
        }
        std::fs::write(dir.join("log"), "somebody's own line").unwrap();
        assert_eq!(tail(&dir.join("log"), 1000).unwrap(), "somebody's own line");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
