//! The job event logs that submit descriptions name.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::oneshot;
use vo_core::Time;
use vo_core::ids::{JobId, ProxyId};
use vo_core::items::Row;
use vo_core::pool::{self, Action, Files, Hold, LogTerms, Note};
use vo_core::template::Template;
use vo_lang::classad::Value;
use vo_lang::eventlog::{self, Body, End, Event, Form, Resources, Spent, Usage, Used};

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

/// Attributes of jobs' ads, by process.
pub(crate) type Information = BTreeMap<u32, Vec<(String, Value)>>;

/// An entry to write.
pub(crate) struct Entry {
    pub(crate) job: JobId,
    pub(crate) log: Option<Template>,
    pub(crate) terms: Arc<LogTerms>,
    pub(crate) initialdir: Template,
    pub(crate) asks: pool::Resources,
    pub(crate) at: Time,
    pub(crate) note: Note,
    /// What is told of the jobs' ads with the event. What a crash kept from a log has none: the ads were others then.
    pub(crate) information: Information,
}

impl Entry {
    /// The entry that the pool asks for.
    pub(crate) fn of(action: Action) -> Option<Entry> {
        match action {
            Action::Note { job, log, terms, initialdir, asks, at, note } => {
                Some(Entry { job, log, terms, initialdir, asks, at, note, information: BTreeMap::new() })
            }
            _ => None,
        }
    }

    /// The events that it is told by, as HTCondor calls them, each with its job; that of a cluster is none of a job's.
    pub(crate) fn events(&self) -> Vec<(String, &'static str)> {
        let JobId { cluster, proc } = self.job;
        let name = |body: &Body| body.trigger().trim_start_matches("ULOG_");
        match &self.note {
            Note::Submitted { jobs } => {
                jobs.iter().map(|proc| (JobId { cluster, proc }.to_string(), "SUBMIT")).collect()
            }
            note @ (Note::ClusterSubmitted | Note::ClusterOver { .. }) => {
                let body = body(note, Resources::default());
                body.iter().map(|body| (format!("{cluster}.-1"), name(body))).collect()
            }
            note => {
                let body = body(note, Resources::default());
                body.iter().map(|body| (JobId { cluster, proc }.to_string(), name(body))).collect()
            }
        }
    }
}

/// The last entries are waited for so long when the session ends.
const LAST: Duration = Duration::from_secs(5);

enum Work {
    Entry(Entry),
    /// The entries of all records up to this number of the store came before.
    Mark(u64),
    /// Somebody waits for the entries that came before.
    Tell(oneshot::Sender<()>),
}

/// The thread that writes the logs.
pub(crate) struct EventLogs {
    work: Sender<Work>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    /// Entries came since the last mark.
    unmarked: bool,
}

/// Up to which record of the store in `dir`'s session all entries are written: 0 if nothing tells.
pub(crate) fn marked(dir: &Path) -> u64 {
    let read = std::fs::read_to_string(dir.join(MARK)).ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

impl EventLogs {
    /// Starts it for the session in `dir`, whose logs are in `form` unless their terms say XML. `missed` are entries of records behind the mark: those that are not in their logs are written
    /// first. A log that can't be written is named once in our own log, and holds nobody up.
    pub(crate) fn start(dir: &Path, form: Form, missed: Vec<Entry>) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let mut writer = Writer {
            mark_file: dir.join(MARK),
            form,
            zone: TimeZone::system(),
            failed: BTreeSet::new(),
            unsynced: BTreeMap::new(),
            mark: None,
        };
        thread::Builder::new().name("event-logs".into()).spawn(move || {
            writer.catch_up(&missed);
            writer.run(&inbox);
            drop(alive);
        })?;
        Ok(EventLogs { work, ended, unmarked: false })
    }

    /// Takes an entry.
    pub(crate) fn write(&mut self, entry: Entry) {
        self.unmarked = true;
        // The thread ends only with us.
        let _ = self.work.send(Work::Entry(entry));
    }

    /// Comes when all entries taken so far are written, or can't be.
    pub(crate) fn written(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let _ = self.work.send(Work::Tell(tell));
        told
    }

    /// Writes what is left; nothing is written after. A file system that hangs is not waited for.
    pub(crate) fn end(&mut self) {
        self.work = mpsc::channel().0;
        let _ = self.ended.recv_timeout(LAST);
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
    form: Form,
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
            let mut waiting = Vec::new();
            for work in first.into_iter().chain(inbox.try_iter().take(GROUP)) {
                match work {
                    Work::Entry(entry) => self.render(&entry, &mut |path, _, event| {
                        texts.entry(path).or_default().push_str(&event);
                    }),
                    Work::Mark(number) => self.mark = Some(number),
                    Work::Tell(tell) => waiting.push(tell),
                }
            }
            for (path, text) in texts {
                self.append(&path, &text);
            }
            for tell in waiting {
                // A client that has gone doesn't wait.
                let _ = tell.send(());
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
        let mut texts: BTreeMap<PathBuf, (Form, Vec<String>)> = BTreeMap::new();
        for entry in missed {
            self.render(entry, &mut |path, form, event| texts.entry(path).or_insert((form, Vec::new())).1.push(event));
        }
        for (path, (form, events)) in texts {
            let length: usize = events.iter().map(String::len).sum();
            match tail(&path, form, (length as u64).saturating_mul(4).saturating_add(1 << 16).min(TAIL_BYTES)) {
                Ok(tail) => {
                    let there: HashSet<&str> = tail.split_inclusive(&end(form)).collect();
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
fn tail(path: &Path, form: Form, most: u64) -> io::Result<String> {
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
    let end = end(form);
    let whole = bytes.windows(end.len()).rposition(|seen| seen == end.as_bytes()).map_or(0, |at| at + end.len());
    // What others may have written there is theirs.
    let torn = &bytes[whole..];
    let ours = match form {
        Form::Text => torn.iter().take(3).all(u8::is_ascii_digit),
        Form::Json => torn.iter().zip(b"{\n  \"").all(|(seen, ours)| seen == ours),
        Form::Xml => torn.iter().zip(b"<c>\n").all(|(seen, ours)| seen == ours),
    };
    if !torn.is_empty() && ours {
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

impl Writer {
    /// Hands out the entry's events, each with the path of its log and the form that it is in.
    fn render(&self, entry: &Entry, take: &mut dyn FnMut(PathBuf, Form, String)) {
        let Entry { job, log: Some(log), terms, initialdir, asks, at, note, information } = entry else { return };
        let form = if terms.xml { Form::Xml } else { self.form };
        let stamp = Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
        let time = stamp.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
        let mut event = |proc: Option<u32>, path: PathBuf, body: Body| {
            let event = Event { cluster: job.cluster, proc, time: time.clone(), body };
            take(path.clone(), form, event.write(form));
            if let Some(attributes) = proc.and_then(|proc| information.get(&proc)) {
                let body = Body::Information { of: Box::new(event.body.clone()), attributes: attributes.clone() };
                take(path, form, Event { body, ..event }.write(form));
            }
        };
        if let Note::Submitted { jobs } = note {
            for proc in jobs.iter() {
                let (job, row) = (JobId { cluster: job.cluster, proc }, jobs.row(proc));
                let path = path(&log.fill(&row), &initialdir.fill(&row), job);
                event(Some(proc), path, submitted(terms, job, &row));
            }
            return;
        }
        let pool::Resources { cpus, memory_mb, gpus } = *asks;
        let has = Resources { cpus, memory_mb, gpus, disk_kib: terms.disk_kib };
        let path = path(log, initialdir, *job);
        let proc = (!matches!(note, Note::ClusterSubmitted | Note::ClusterOver { .. })).then_some(job.proc);
        if let Note::Terminated { usage, .. } = note
            && usage.peak_kib > 0
        {
            event(proc, path.clone(), Body::ImageSize { resident_kib: usage.peak_kib });
        }
        body(note, has).into_iter().for_each(|body| event(proc, path.clone(), body));
    }
}

/// The host that jobs are submitted from.
const HERE: &str = "<127.0.0.1:0>";

/// The bytes that end an event, and are in no other place of one.
fn end(form: Form) -> String {
    format!("\n{}", form.last_line())
}

fn submitted(terms: &LogTerms, job: JobId, row: &Row) -> Body {
    let text = |template: &Option<Template>| {
        let text = template.as_ref().map(|template| template.fill(row).expand(job));
        text.map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    Body::Submitted {
        host: HERE.into(),
        batch_name: text(&terms.batch_name),
        dag_node: text(&terms.dag_node),
        notes: text(&terms.notes),
        user_notes: text(&terms.user_notes),
    }
}

/// The event of a note of one job.
fn body(note: &Note, has: Resources) -> Option<Body> {
    let address = |host: &str| format!("<{host}>");
    let slot = |proxy: &ProxyId, host: &str| format!("slot{}@{host}", proxy.0);
    Some(match note {
        Note::Submitted { .. } => return None,
        Note::ClusterSubmitted => Body::ClusterSubmitted { host: HERE.into() },
        Note::ClusterOver { jobs, items } => Body::ClusterRemoved { jobs: *jobs, items: *items },
        Note::Executing { proxy, host } => Body::Executing { host: address(host), slot: slot(proxy, host), has },
        Note::Moved { files, host } => Body::Moved { files: moved(*files), host: address(host) },
        Note::Disconnected { proxy, host, why } => {
            Body::Disconnected { reason: why.clone(), slot: slot(proxy, host), host: address(host) }
        }
        Note::Reconnected { proxy, host } => Body::Reconnected { slot: slot(proxy, host), host: address(host) },
        Note::ReconnectFailed { proxy, host, why } => {
            Body::ReconnectFailed { reason: why.clone(), slot: slot(proxy, host) }
        }
        Note::Evicted { why } => {
            Body::Evicted { reason: why.clone(), end: None, spent: Spent { asked: has, ..Spent::default() } }
        }
        Note::Grown { peak_kib } => Body::ImageSize { resident_kib: *peak_kib },
        Note::Terminated { end, usage } => Body::Terminated { end: ended(*end), spent: spent(usage, has) },
        Note::Requeued { end, usage, why } => {
            Body::Evicted { reason: why.clone(), end: Some(ended(*end)), spent: spent(usage, has) }
        }
        Note::Held { hold: Hold { why, code, subcode } } => {
            Body::Held { reason: why.clone(), code: (*code).into(), subcode: (*subcode).into() }
        }
        Note::Removed { why } => Body::Aborted { reason: why.as_deref().unwrap_or("via rm").into() },
        Note::Released { why } => Body::Released { reason: why.as_deref().unwrap_or("via release").into() },
    })
}

fn ended(end: pool::End) -> End {
    match end {
        pool::End::Exited(code) => End::Exited(code.into()),
        pool::End::Signaled(signal) => End::Signaled(signal.into()),
    }
}

fn moved(files: Files) -> eventlog::Files {
    match files {
        Files::InputsBegan => eventlog::Files::InputsBegan,
        Files::InputsCame => eventlog::Files::InputsCame,
        Files::OutputsBegan => eventlog::Files::OutputsBegan,
        Files::OutputsCame => eventlog::Files::OutputsCame,
    }
}

#[allow(clippy::cast_precision_loss, reason = "an average")]
fn spent(used: &vo_core::job::Usage, asked: Resources) -> Spent {
    let system = used.system_ms.min(used.cpu_ms);
    let usage = Usage { user: (used.cpu_ms - system) / 1000, system: system / 1000 };
    let cpus = used.cpu_ms as f64 / used.wall_ms.max(1) as f64;
    let disk_kib = Some(used.disk_kib).filter(|kib| *kib > 0);
    let table = Used { cpus, memory_mb: used.peak_kib.div_ceil(1024), disk_kib, seconds: used.wall_ms / 1000 };
    let (sent_bytes, received_bytes) = (used.sent_bytes, used.received_bytes);
    Spent { usage, sent_bytes, received_bytes, asked, used: Some(table) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use vo_core::items::Members;

    fn writer(form: Form) -> Writer {
        Writer {
            mark_file: PathBuf::new(),
            form,
            zone: TimeZone::UTC,
            failed: BTreeSet::new(),
            unsynced: BTreeMap::new(),
            mark: None,
        }
    }

    fn entry(proc: u32, log: Template, dir: &Path, note: Note) -> Entry {
        Entry {
            job: JobId { cluster: 7, proc },
            log: Some(log),
            terms: Arc::default(),
            initialdir: Template::constant(dir.as_os_str().as_bytes()),
            asks: pool::Resources { cpus: 1, memory_mb: Some(4), gpus: 0 },
            at: Time(1_700_000_000_000 + u64::from(proc) * 1000),
            note,
            information: BTreeMap::new(),
        }
    }

    #[test]
    fn notes_become_htcondors_events() {
        let texts = |entry: &Entry| {
            let mut texts = String::new();
            writer(Form::Text).render(entry, &mut |path, _, event| {
                assert_eq!(path, Path::new("/d/job.log"));
                texts.push_str(&event);
            });
            texts
        };
        let used = vo_core::job::Usage { cpu_ms: 3_661_000, peak_kib: 2048, ..Default::default() };
        let ended = Note::Terminated { end: pool::End::Exited(3), usage: used };
        let mut entry = entry(2, Template::constant("job.log"), Path::new("/d"), ended);
        let text = texts(&entry);
        let (size, end) = text.split_once("...\n").unwrap();
        assert!(size.starts_with("006 (007.002.000) 2023-11-14 22:13:22 Image size of job updated: 2048\n\t2  -  "));
        assert!(end.starts_with(
            "005 (007.002.000) 2023-11-14 22:13:22 Job terminated.\n\t(1) Normal termination (return value 3)\n"
        ));
        assert!(end.contains("\t\tUsr 0 01:01:01, Sys 0 00:00:00  -  Run Remote Usage\n"));
        assert!(end.ends_with("\n...\n"));
        entry.note = Note::Held { hold: Hold { why: "a\n...\nb".into(), ..Hold::default() } };
        assert_eq!(texts(&entry).lines().filter(|l| *l == "...").count(), 1);
        let host = "node>\n...\n005 (007.002.000) 2023-11-14 22:13:20 Job terminated.".to_owned();
        entry.note = Note::Executing { proxy: ProxyId(4), host };
        assert_eq!(texts(&entry).matches("\n...\n").count(), 1, "a host's name makes no event of its own");
        assert!(texts(&entry).contains("\tSlotName: slot4@node> ... 005"));
        entry.note = Note::Submitted { jobs: Members::new(2, 2, None, None) };
        assert!(texts(&entry).contains("000 (007.003.000)"));
        entry.terms = Arc::new(LogTerms { batch_name: Some(Template::constant("a b")), ..LogTerms::default() });
        assert!(texts(&entry).contains("\n    [ JobBatchName = \"a b\" ]\n...\n"));
        entry.note = Note::Removed { why: None };
        entry.information = [(2, vec![("JobPrio".to_owned(), Value::Integer(3))])].into();
        let text = texts(&entry);
        let (own, more) = text.split_once("...\n").unwrap();
        assert!(own.starts_with("009 (007.002.000)"), "{own}");
        assert!(
            more.starts_with("028 (007.002.000) 2023-11-14 22:13:22 Job ad information event triggered.\n"),
            "{more}"
        );
        assert!(more.contains("\nJobPrio = 3\n") && more.contains("\nTriggerEventTypeNumber = 9\n...\n"), "{more}");
        entry.note = Note::Submitted { jobs: Members::new(2, 2, None, None) };
        entry.information = BTreeMap::new();
        entry.terms = Arc::new(LogTerms { xml: true, ..LogTerms::default() });
        assert!(texts(&entry).contains("</c>\n<c>\n    <a n=\"MyType\"><s>SubmitEvent</s></a>\n"));
    }

    #[test]
    fn what_a_crash_kept_from_a_log_is_written_once() {
        Form::NAMES.into_iter().for_each(|(name, form)| crashes(name, form));
    }

    fn crashes(name: &str, form: Form) {
        let dir = std::env::temp_dir().join(format!("vo-eventlog-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let entry = |proc, note| entry(proc, Template::constant("log"), &dir, note);
        let entries = || {
            // Its line looks like the end of an event.
            let held = |proc| {
                let hold = Hold { why: "no such file...".into(), code: 13, subcode: 0 };
                entry(proc, Note::Held { hold })
            };
            vec![
                entry(0, Note::Submitted { jobs: Members::new(0, 3, None, None) }),
                held(0),
                entry(1, Note::Removed { why: None }),
                held(2),
            ]
        };
        let finish = |mut logs: EventLogs, number: u64| {
            // All is written and marked when it has ended.
            logs.end();
            assert_eq!(marked(&dir), number);
        };
        let mut logs = EventLogs::start(&dir, form, Vec::new()).unwrap();
        entries().into_iter().for_each(|entry| logs.write(entry));
        logs.mark(4);
        finish(logs, 4);
        let whole = std::fs::read(dir.join("log")).unwrap();
        // A crash after any byte, then all of it again.
        for kept in (0..whole.len()).step_by(whole.len() / 100 + 1).chain(whole.len() - 3..=whole.len()) {
            std::fs::write(dir.join("log"), &whole[..kept]).unwrap();
            std::fs::remove_file(dir.join(MARK)).unwrap();
            let mut logs = EventLogs::start(&dir, form, entries()).unwrap();
            logs.write(entry(7, Note::Removed { why: None }));
            logs.mark(5);
            finish(logs, 5);
            let seen = std::fs::read(dir.join("log")).unwrap();
            let (seen, later) = seen.split_at(whole.len());
            assert!(seen == whole, "{name}, {kept} bytes were kept: {}", String::from_utf8_lossy(seen));
            let mut reader = eventlog::Reader::default();
            reader.feed(later);
            let (head, _) = reader.next_event().unwrap().unwrap();
            assert_eq!((head.number, head.cluster, head.proc), (9, Some(7), Some(7)));
            assert!(reader.is_between());
        }
        std::fs::write(dir.join("log"), "somebody's own line").unwrap();
        assert_eq!(tail(&dir.join("log"), form, 1000).unwrap(), "somebody's own line");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
