//! The mails that submit descriptions ask for: what there is to tell is gathered by cluster, and given to a program of the user's.
//!
//! What waits to be told is in a file of the session, which says as well up to which record of the store it was gathered: so nothing is lost by a
//! crash, nor gathered twice. A mail is taken out of the file before the program is started: one that was on its way when the master died is not
//! sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use vo_core::Time;
use vo_core::dag::State;
use vo_core::job::Usage;
use vo_core::pool::{End, JobView, Note, Told};
use vo_lang::classad::Context;
use vo_wire::dag::DagRow;

use crate::dags;
use crate::eventlog::Entry;
use crate::jobad::{self, Facts};
use crate::words;

/// In the session's directory.
pub(crate) const FILE: &str = "mails";
/// Clusters that come to rest at the same time are told together.
const SETTLE: u64 = 2;
/// The first trouble of a cluster is told so soon: more of the same follows at once, as a rule.
const SOON: u64 = 60;
/// What comes later is told so late.
const LATER: u64 = 3600;
/// Between two mails to one address, and before one that failed is tried again, which becomes twice as long each time up to [`LATER`].
const PACE: u64 = 300;
/// Between two writes of the file.
const SAVE_PACE: u64 = 1;
/// Jobs of a cluster that are told in full; as many again that failed.
const FULL: usize = 10;
/// Clusters with something to wait for, of one address, whose jobs are told in full.
const FULL_CLUSTERS: usize = 20;
/// Clusters told by name in one mail.
const NAMED: usize = 100;
/// Bytes of what is told of one job, and of one line: mail has no lines beyond 998.
const TEXT: usize = 8 << 10;
const LINE: usize = 900;
/// Steps of one attribute's expression.
const FUEL: u32 = 100_000;
/// The program is killed after this.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it has said is waited for so long when it has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Kept of what it says.
const SAID: u64 = 2 << 10;

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Succeeded,
    Failed,
    Held,
    Removed,
    /// It goes on.
    Waits,
}

/// What there is to tell of a job.
pub(crate) struct News {
    to: String,
    cluster: u32,
    batch: String,
    became: Became,
    /// Told before its cluster comes to rest.
    early: bool,
    /// Nothing of its cluster waits or runs.
    rests: bool,
    title: String,
}

/// What is told of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Letter {
    batch: String,
    succeeded: u64,
    failed: u64,
    held: u64,
    removed: u64,
    waits: u64,
    /// Of what became of the one job that it is of, if it is of one.
    title: String,
    /// Jobs in full: those in trouble, and others.
    troubles: Vec<String>,
    others: Vec<String>,
    /// How often it could not be sent.
    #[serde(default)]
    tries: u8,
    /// When it is to go, in seconds since 1970; none is when the cluster comes to rest.
    due: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Gathered {
    /// The last record of the store whose news are here or were told.
    mark: u64,
    /// By address and cluster.
    letters: BTreeMap<String, BTreeMap<u32, Letter>>,
    /// Clusters of which some trouble was told.
    warned: BTreeSet<u32>,
}

/// The mails of a session.
pub(crate) struct Mails {
    file: PathBuf,
    /// What sends them, or why nothing does.
    program: Result<String, String>,
    state: Gathered,
    changed: bool,
    /// The file is being written.
    saving: bool,
    /// A mail is on its way.
    sending: bool,
    saved: u64,
    /// When an address got its last mail.
    sent: BTreeMap<String, u64>,
    /// Nothing is told any more after these.
    last: bool,
}

/// Something to do: the file is written, then a mail sent.
pub(crate) struct Work {
    file: PathBuf,
    state: Vec<u8>,
    mail: Option<(String, Out)>,
}

/// A mail on its way.
#[derive(Debug)]
pub(crate) struct Out {
    to: String,
    letters: BTreeMap<u32, Letter>,
    text: String,
}

/// What of that is done, or why not; a mail that isn't sent comes back.
pub(crate) enum Done {
    Saved,
    Unsaved(String, Option<Out>),
    Sent,
    Unsent(String, Out),
}

/// Of which record the news were gathered last: 0 if nothing tells.
pub(crate) fn marked(dir: &Path) -> u64 {
    read(dir).mark
}

fn read(dir: &Path) -> Gathered {
    let read = std::fs::read(dir.join(FILE)).ok();
    read.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What sends mails: the user's word, or the system's `sendmail`; or why there is nothing.
fn program(wanted: Option<&str>) -> Result<String, String> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/lib"].map(PathBuf::from);
    let find = |name: &str| {
        let mut places = std::env::split_paths(&dirs).chain(more.clone()).map(|dir| dir.join(name));
        places.find(|place| nix::unistd::access(place, nix::unistd::AccessFlags::X_OK).is_ok() && place.is_file())
    };
    match wanted {
        Some("") => Err("vo.conf says `mail = \"none\"`".to_owned()),
        Some(command) => {
            let name = command.split_ascii_whitespace().next().unwrap_or_default();
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+".contains(&b));
            // What the shell has to read first is found out when it is run.
            match plain && find(name).is_none() {
                true => Err(format!("there is no program {name}, which vo.conf names for it")),
                false => Ok(command.to_owned()),
            }
        }
        None => match find("sendmail") {
            Some(path) => Ok(format!("'{}' -t", path.display())),
            None => Err("there is no program `sendmail` on this machine".to_owned()),
        },
    }
}

impl News {
    /// What an entry tells by mail, if anything.
    pub(crate) fn of(entry: &Entry, view: &JobView<'_>, rests: bool, facts: &Facts) -> Option<News> {
        let mail = entry.terms.mail.as_ref()?;
        let (became, title) = became(entry, view)?;
        let unlucky =
            matches!(became, Became::Failed) || matches!(&entry.note, Note::Held { hold } if !hold.is_meant());
        let told = match mail.told {
            Told::Everything => true,
            Told::Ends => matches!(entry.note, Note::Terminated { .. }),
            Told::Failures => unlucky,
        };
        let to = mail.to.as_ref().map(|to| to.fill(&view.row).expand(view.id));
        let to = to.map(|to| words::plain(&String::from_utf8_lossy(&to))).filter(|to| !to.is_empty());
        told.then(|| News {
            to: to.unwrap_or_else(|| facts.owner.clone()),
            cluster: view.id.cluster,
            batch: view.batch.to_owned(),
            became,
            early: mail.told != Told::Ends && unlucky,
            rests,
            title,
        })
    }
}

/// What became of a job, in a word and in words; none if it only goes on.
fn became(entry: &Entry, view: &JobView<'_>) -> Option<(Became, String)> {
    let id = entry.job;
    let ended = |end: &End| match end {
        End::Exited(code) => format!("job {id} ended with exit code {code}"),
        End::Signaled(signal) => {
            let name = nix::sys::signal::Signal::try_from(i32::from(*signal)).map_or("", |signal| signal.as_str());
            format!("job {id} was ended by signal {signal} {name}").trim_end().to_owned()
        }
    };
    let why = |why: &Option<String>| why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    Some(match &entry.note {
        Note::Terminated { end, .. } => {
            let failed = *end != End::Exited(view.program.success);
            (if failed { Became::Failed } else { Became::Succeeded }, ended(end))
        }
        Note::Requeued { end, why, .. } => (Became::Waits, format!("{}, and runs again: {why}", ended(end))),
        Note::Held { hold } => (Became::Held, format!("job {id} is held: {}", hold.why)),
        Note::Removed { why: reason } => (Became::Removed, format!("job {id} was removed{}", why(reason))),
        Note::Released { why: reason } => (Became::Waits, format!("job {id} was released{}", why(reason))),
        Note::Evicted { why } | Note::ReconnectFailed { why, .. } => {
            (Became::Waits, format!("job {id} was interrupted, and runs again: {why}"))
        }
        Note::ClusterSubmitted
        | Note::ClusterOver { .. }
        | Note::Moved { .. }
        | Note::Submitted { .. }
        | Note::Executing { .. }
        | Note::Disconnected { .. }
        | Note::Reconnected { .. }
        | Note::Grown { .. } => return None,
    })
}

/// What is told of a job in full.
pub(crate) fn text(entry: &Entry, view: &JobView<'_>, facts: &Facts) -> String {
    let program = view.program.filled(&view.row);
    let word = |template: &vo_core::Template| String::from_utf8_lossy(&template.expand(view.id)).into_owned();
    let command: Vec<String> = [&program.executable].into_iter().chain(&program.arguments).map(word).collect();
    let mut lines = vec![became(entry, view).map_or_else(String::new, |(_, title)| words::plain(&capital(&title)))];
    let mut line = |name: &str, value: String| lines.push(format!("    {name:<11}{}", words::plain(&value)));
    line("command", command.join(" "));
    line("directory", word(&program.initialdir));
    line("submitted", stamp(view.submitted));
    let used: Option<&Usage> = match &entry.note {
        Note::Terminated { usage, .. } | Note::Requeued { usage, .. } => Some(usage),
        _ => None,
    };
    if let Some(used) = used {
        line("started", stamp(Time(entry.at.0.saturating_sub(used.wall_ms))));
        line("ended", stamp(entry.at));
        line("run time", seconds(used.wall_ms));
        line("CPU time", seconds(used.cpu_ms));
        line("memory", format!("{} MiB at most", used.peak_kib.div_ceil(1024)));
    } else {
        line("at", stamp(entry.at));
    }
    if let Some(site) = view.site.and_then(|site| facts.sites.get(usize::from(site.0))) {
        line("site", site.clone());
    }
    let attributes = entry.terms.mail.as_ref().map(|mail| mail.attributes.as_slice()).unwrap_or_default();
    if !attributes.is_empty() {
        let ad = jobad::ad(view, facts);
        let now = i64::try_from(entry.at.0 / 1000).unwrap_or(0);
        let context = Context { fuel: FUEL, ..Context::new(Some(&ad), None, now) };
        for name in attributes {
            let value = ad.get(name.as_str()).map(|expr| context.evaluate(expr));
            let value = value.map_or_else(|| "undefined".to_owned(), |value| value.to_string());
            lines.push(format!("    {name} = {}", words::plain(&value)));
        }
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(cut(&line, LINE));
        text.push('\n');
    }
    text.truncate(cut(&text, TEXT).len());
    text
}

/// What there is to tell of a DAG that has ended, if anything, and its text.
pub(crate) fn of_dag(row: &DagRow, told: Told, facts: &Facts) -> Option<(News, String)> {
    let (id, code) = (row.dag, row.code.unwrap_or(0));
    let removed = row.status == dags::job::REMOVED;
    let (became, title) = match (removed, code) {
        (true, _) => (Became::Removed, format!("DAG {id} was removed")),
        (false, 0) => (Became::Succeeded, format!("DAG {id} has succeeded")),
        (false, code) => (Became::Failed, format!("DAG {id} ended with exit code {code}")),
    };
    let wanted = match told {
        Told::Everything => true,
        Told::Ends => !removed,
        Told::Failures => became == Became::Failed,
    };
    let mut text = format!("{}\n", capital(&title));
    let mut line = |name: &str, value: &str| {
        let line = format!("    {name:<11}{}", words::plain(value));
        text.push_str(cut(&line, LINE));
        text.push('\n');
    };
    line("file", &row.file);
    line("directory", &String::from_utf8_lossy(&row.directory));
    line("submitted", &stamp(Time(row.submitted_ms)));
    row.ended_ms.iter().for_each(|at| line("ended", &stamp(Time(*at))));
    let (done, failed) = (row.of(State::Done), row.of(State::Failed));
    line("nodes", &format!("{}, of which {done} are done and {failed} failed", row.total()));
    row.rescue.iter().for_each(|file| line("rescue", file));
    row.problem.iter().for_each(|why| line("problem", why));
    let (to, batch) = (facts.owner.clone(), row.file.clone());
    let news = News { to, cluster: id, batch, became, early: false, rests: true, title };
    wanted.then_some((news, text))
}

/// A time for people.
fn stamp(at: Time) -> String {
    let stamp = Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
    stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// As much of it as fits into so many bytes.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

fn seconds(ms: u64) -> String {
    let s = ms / 1000;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

impl Mails {
    /// Those of the session in `dir`, sent by what vo.conf says.
    pub(crate) fn open(dir: &Path, wanted: Option<&str>, now: Time) -> Mails {
        let mut state = read(dir);
        // A clock that was set back keeps nothing for ever.
        let latest = now.0 / 1000 + LATER;
        let letters = state.letters.values_mut().flat_map(BTreeMap::values_mut);
        letters.for_each(|letter| letter.due = letter.due.map(|due| due.min(latest)));
        Mails {
            file: dir.join(FILE),
            program: program(wanted),
            state,
            // What is gathered up to now is known from now on.
            changed: true,
            saving: false,
            sending: false,
            saved: 0,
            sent: BTreeMap::new(),
            last: false,
        }
    }

    /// Why no mail can be sent.
    pub(crate) fn unable(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Takes in what there is to tell; what is told in full is asked for only then.
    pub(crate) fn take(&mut self, now: Time, news: News, text: impl FnOnce() -> String) {
        if self.program.is_err() {
            return;
        }
        let now = now.0 / 1000;
        let News { to, cluster, batch, became, early, rests, title } = news;
        let letters = self.state.letters.entry(to).or_default();
        let full = letters.len() < FULL_CLUSTERS || letters.get(&cluster).is_some_and(|letter| letter.is_full());
        let letter = letters.entry(cluster).or_default();
        letter.batch = batch;
        match became {
            Became::Succeeded => letter.succeeded += 1,
            Became::Failed => letter.failed += 1,
            Became::Held => letter.held += 1,
            Became::Removed => letter.removed += 1,
            Became::Waits => letter.waits += 1,
        }
        letter.title = title;
        let trouble = matches!(became, Became::Failed | Became::Held);
        let texts = if trouble { &mut letter.troubles } else { &mut letter.others };
        if full && texts.len() < FULL {
            texts.push(text());
        }
        let wait = match (rests, early) {
            (true, _) => Some(SETTLE),
            (false, true) => Some(if self.state.warned.insert(cluster) { SOON } else { LATER }),
            (false, false) => None,
        };
        letter.due = letter.due.into_iter().chain(wait.map(|wait| now + wait)).min();
        if rests {
            self.state.warned.remove(&cluster);
        }
        self.changed = true;
    }

    /// What is to be done now, if anything. The news of all records up to this number of the store were taken in.
    pub(crate) fn turn(&mut self, now: Time, number: u64, name: (&str, &str)) -> Option<Work> {
        let now = now.0 / 1000;
        if self.saving {
            return None;
        }
        let out = self.due(now).filter(|_| !self.sending).map(|to| {
            let letters = self.state.letters.entry(to.clone()).or_default();
            let goes = |letter: &Letter| self.last || letter.due.is_some_and(|due| due <= now);
            let due = letters.extract_if(.., |_, letter| goes(letter)).collect();
            if letters.is_empty() {
                self.state.letters.remove(&to);
            }
            self.sent.retain(|_, at| *at + PACE > now);
            self.sent.insert(to.clone(), now);
            Out { text: written(&to, &due, name), to, letters: due }
        });
        if out.is_none() && (!self.changed || now.saturating_sub(self.saved) < SAVE_PACE) {
            return None;
        }
        (self.saving, self.changed, self.saved) = (true, false, now);
        self.sending |= out.is_some();
        self.state.mark = number;
        let state = serde_json::to_vec(&self.state).unwrap_or_default();
        let mail = out.and_then(|out| Some((self.program.clone().ok()?, out)));
        Some(Work { file: self.file.clone(), state, mail })
    }

    /// Who is to get a mail now.
    fn due(&self, now: u64) -> Option<String> {
        let paced = |to: &String| self.sent.get(to).is_some_and(|at| *at + PACE > now);
        let due = |letters: &BTreeMap<u32, Letter>| letters.values().any(|l| l.due.is_some_and(|due| due <= now));
        let mut all = self.state.letters.iter();
        all.find(|(to, letters)| self.last || (due(letters) && !paced(to))).map(|(to, _)| to.clone())
    }

    /// Takes in how it ended; what wasn't sent is told later, with what is new then. Tells what a person should know.
    pub(crate) fn done(&mut self, now: Time, done: Done) -> Option<String> {
        let (why, out) = match done {
            Done::Saved => {
                self.saving = false;
                return None;
            }
            Done::Sent => {
                self.sending = false;
                return None;
            }
            Done::Unsaved(why, out) => {
                (self.saving, self.changed) = (false, true);
                (why, out)
            }
            Done::Unsent(why, out) => (why, Some(out)),
        };
        let Some(Out { to, letters, .. }) = out else { return Some(why) };
        (self.sending, self.changed) = (false, true);
        let message = format!("a mail to {to} can't be sent: {why}");
        if self.last {
            return Some(message);
        }
        for (cluster, mut letter) in letters {
            letter.tries = letter.tries.saturating_add(1);
            let again = now.0 / 1000 + LATER.min(PACE << letter.tries.min(8).saturating_sub(1));
            let waiting = self.state.letters.entry(to.clone()).or_default().entry(cluster).or_default();
            waiting.merge(letter);
            waiting.due = Some(again);
        }
        Some(message)
    }

    /// The session ends: everything is told now. True when that is done.
    pub(crate) fn end(&mut self) -> bool {
        self.last = true;
        self.state.letters.is_empty() && !self.saving && !self.sending
    }
}

impl Letter {
    fn is_full(&self) -> bool {
        !self.troubles.is_empty() || !self.others.is_empty()
    }

    fn jobs(&self) -> u64 {
        self.succeeded + self.failed + self.held + self.removed + self.waits
    }

    fn merge(&mut self, other: Letter) {
        for (ours, theirs) in [
            (&mut self.succeeded, other.succeeded),
            (&mut self.failed, other.failed),
            (&mut self.held, other.held),
            (&mut self.removed, other.removed),
            (&mut self.waits, other.waits),
        ] {
            *ours += theirs;
        }
        let add = |ours: &mut Vec<String>, theirs: Vec<String>| {
            let newer = std::mem::replace(ours, theirs);
            ours.extend(newer);
            ours.truncate(FULL);
        };
        add(&mut self.troubles, other.troubles);
        add(&mut self.others, other.others);
        self.tries = self.tries.max(other.tries);
        if self.title.is_empty() {
            self.title = other.title;
        }
        if self.batch.is_empty() {
            self.batch = other.batch;
        }
    }

    /// `3 jobs: 2 succeeded, 1 failed`.
    fn counts(&self) -> String {
        let counts = [
            (self.failed, "failed"),
            (self.held, "held"),
            (self.succeeded, "succeeded"),
            (self.removed, "removed"),
            (self.waits, "to run again or released"),
        ];
        let some: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        some.join(", ")
    }
}

/// A mail with its headers, from this session on this host.
fn written(to: &str, letters: &BTreeMap<u32, Letter>, (session, host): (&str, &str)) -> String {
    let mut sum = Letter::default();
    letters.values().for_each(|letter| sum.merge(letter.clone()));
    let one = letters.first_key_value().filter(|_| letters.len() == 1);
    let subject = match one {
        Some((_, letter)) if letter.jobs() == 1 => letter.title.clone(),
        Some((cluster, letter)) => format!("cluster {cluster}: {}", letter.counts()),
        None => format!("{} clusters: {}", letters.len(), sum.counts()),
    };
    // What stands in headers is plain: other letters would have to be encoded.
    let subject: String = words::plain(&subject).chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let mut text = format!(
        "To: {}\nSubject: [vo-login {session}] {}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n",
        cut(to, LINE),
        cut(&subject, 200)
    );
    if sum.jobs() > 1 {
        for (cluster, letter) in letters.iter().take(NAMED) {
            let line = format!("Cluster {cluster} ({}): {}", words::plain(&letter.batch), letter.counts());
            text.push_str(cut(&line, LINE));
            text.push('\n');
        }
        if let Some(more) = letters.len().checked_sub(NAMED).filter(|more| *more > 0) {
            text.push_str(&format!("and {more} clusters more\n"));
        }
        text.push('\n');
    }
    let all = |texts: fn(&Letter) -> &Vec<String>| letters.values().flat_map(texts);
    let full: Vec<&String> = all(|l| &l.troubles).take(2 * FULL).chain(all(|l| &l.others).take(2 * FULL)).collect();
    for job in &full {
        text.push_str(job);
        text.push('\n');
    }
    let more = sum.jobs().saturating_sub(full.len() as u64);
    if more > 0 && !full.is_empty() {
        text.push_str(&format!("and {more} more; `history` and `q` tell of them all\n\n"));
    }
    text.push_str(&format!("-- \nsession {session} of vo-login on {host}\n"));
    text
}

impl Work {
    /// Does it, and tells how far it came.
    pub(crate) async fn run(self, tell: impl AsyncFn(Done)) {
        let Work { file, state, mail } = self;
        let saved = tokio::task::spawn_blocking(move || vo_store::write_atomic(&file, &state, 0o600));
        let saved = saved.await.map_err(|e| e.to_string()).and_then(|saved| saved.map_err(|e| e.to_string()));
        if let Err(why) = saved {
            let why = format!("what is to be told by mail can't be saved: {why}");
            return tell(Done::Unsaved(why, mail.map(|(_, out)| out))).await;
        }
        tell(Done::Saved).await;
        let Some((program, out)) = mail else { return };
        match send(&program, &out.text).await {
            Ok(()) => tell(Done::Sent).await,
            Err(why) => tell(Done::Unsent(words::plain(&why), out)).await,
        }
    }
}

/// Gives a mail to a program.
async fn send(program: &str, text: &str) -> Result<(), String> {
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = Command::from(command).spawn().map_err(|e| format!("cannot run {program}: {e}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(SAID);
            let _ = stderr.read_to_end(&mut said).await;
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        }
        said
    });
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that doesn't read says why.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    match tokio::time::timeout(PATIENCE, async { tokio::join!(write, child.wait()).1 }).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            // What it left running may keep its standard error open.
            let said = tokio::time::timeout(LAST_WORDS, said).await.ok().and_then(Result::ok).unwrap_or_default();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let said = if said.is_empty() { said } else { format!(": {said}") };
            Err(format!("`{program}` ended with {status}{said}"))
        }
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => {
            if let Some(group) = group {
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = child.wait().await;
            Err(format!("`{program}` took more than {} seconds", PATIENCE.as_secs()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const SESSION: (&str, &str) = ("t", "here");

    struct Bench {
        mails: Mails,
        now: u64,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.mails.file.parent().unwrap());
        }
    }

    impl Bench {
        fn new(name: &str) -> Bench {
            let dir = std::env::temp_dir().join(format!("vo-mail-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir(&dir).unwrap();
            Bench { mails: Mails::open(&dir, Some("cat >&2"), Time(1_000_000_000)), now: 1_000_000 }
        }

        fn tell(&mut self, cluster: u32, became: Became, early: bool, rests: bool) {
            let title = format!("job {cluster}.0 {became:?}");
            let (to, batch) = ("ann".to_owned(), "b".to_owned());
            let news = News { to, cluster, batch, became, early, rests, title: title.clone() };
            self.mails.take(Time(self.now * 1000), news, || format!("{title}\n"));
        }

        /// The subjects and seconds of the mails that go in the next so many seconds.
        fn sent(&mut self, seconds: u64) -> Vec<(u64, String)> {
            let from = self.now;
            let mut sent = Vec::new();
            while self.now < from + seconds {
                self.now += 1;
                if let Some(work) = self.mails.turn(Time(self.now * 1000), self.now, SESSION) {
                    assert_eq!(self.mails.done(Time(self.now * 1000), Done::Saved), None);
                    if let Some((_, out)) = work.mail {
                        let subject = out.text.lines().find_map(|line| line.strip_prefix("Subject: [vo-login t] "));
                        sent.push((self.now - from, subject.unwrap().to_owned()));
                        assert_eq!(self.mails.done(Time(self.now * 1000), Done::Sent), None);
                    }
                }
            }
            sent
        }
    }

    fn at(second: u64, subject: &str) -> (u64, String) {
        (second, subject.to_owned())
    }

    #[test]
    fn a_cluster_is_told_when_it_rests_and_its_first_trouble_soon() {
        let mut bench = Bench::new("rest");
        bench.tell(1, Became::Succeeded, false, false);
        assert_eq!(bench.sent(2 * LATER), []);
        bench.tell(1, Became::Failed, false, true);
        assert_eq!(bench.sent(2 * PACE), [at(SETTLE, "cluster 1: 1 failed, 1 succeeded")]);
        bench.tell(2, Became::Failed, true, false);
        bench.tell(2, Became::Held, true, false);
        assert_eq!(bench.sent(2 * PACE), [at(SOON, "cluster 2: 1 failed, 1 held")]);
        bench.tell(2, Became::Failed, true, false);
        bench.tell(2, Became::Failed, true, false);
        assert_eq!(bench.sent(2 * LATER), [at(LATER, "cluster 2: 2 failed")]);
        bench.tell(2, Became::Removed, false, true);
        assert_eq!(bench.sent(PACE), [at(SETTLE, "job 2.0 Removed")]);
        // It has been at rest, and goes on.
        bench.tell(2, Became::Failed, true, false);
        assert_eq!(bench.sent(2 * PACE), [at(SOON, "job 2.0 Failed")]);
    }

    #[test]
    fn many_clusters_flood_no_mailbox() {
        let mut bench = Bench::new("flood");
        let mut sent = Vec::new();
        for cluster in 1..=3600 {
            bench.tell(cluster, Became::Succeeded, false, true);
            sent.extend(bench.sent(1));
        }
        sent.extend(bench.sent(2 * PACE));
        assert_eq!(sent.len() as u64, 3600 / PACE + 1);
        assert_eq!(sent[1].1, format!("{PACE} clusters: {PACE} succeeded"));
        let told = |subject: &str| subject.split(' ').next().unwrap().parse::<u32>().unwrap_or(1);
        assert_eq!(sent[1..].iter().map(|(_, subject)| told(subject)).sum::<u32>() + 1, 3600);
        for cluster in 1..=5000 {
            bench.tell(cluster, Became::Failed, false, true);
        }
        bench.now += PACE;
        let work = bench.mails.turn(Time(bench.now * 1000), 1, SESSION).unwrap();
        let text = work.mail.unwrap().1.text;
        assert!(text.len() < 64 << 10 && text.contains("\nand 4900 clusters more\n"), "{} bytes", text.len());
        assert!(text.contains("\nand 4980 more; "), "{text}");
    }

    #[test]
    fn what_failed_is_told_again_with_what_is_new() {
        let mut bench = Bench::new("again");
        bench.tell(1, Became::Failed, false, true);
        bench.now += SETTLE;
        let work = bench.mails.turn(Time(bench.now * 1000), 1, SESSION).unwrap();
        assert!(bench.mails.turn(Time(bench.now * 1000), 2, SESSION).is_none(), "the file is being written");
        bench.mails.done(Time(bench.now * 1000), Done::Saved);
        // What is new meanwhile is saved, however long the program takes.
        bench.tell(2, Became::Succeeded, false, true);
        bench.now += SETTLE;
        assert!(bench.mails.turn(Time(bench.now * 1000), 3, SESSION).unwrap().mail.is_none(), "one mail at a time");
        bench.mails.done(Time(bench.now * 1000), Done::Saved);
        let (_, out) = work.mail.unwrap();
        let said = bench.mails.done(Time(bench.now * 1000), Done::Unsent("no relay".into(), out));
        assert_eq!(said.as_deref(), Some("a mail to ann can't be sent: no relay"));
        bench.tell(1, Became::Succeeded, false, false);
        let both = [at(PACE - SETTLE, "job 2.0 Succeeded"), at(2 * PACE - SETTLE, "cluster 1: 1 failed, 1 succeeded")];
        assert_eq!(bench.sent(2 * PACE), both);
        bench.tell(1, Became::Held, false, false);
        assert!(!bench.mails.end());
        assert_eq!(bench.sent(1), [at(1, "job 1.0 Held")]);
        assert!(bench.mails.end());
    }

    #[tokio::test]
    async fn what_waits_is_read_back_and_what_was_on_its_way_is_not() {
        let mut bench = Bench::new("back");
        let dir = bench.mails.file.parent().unwrap().to_owned();
        bench.tell(1, Became::Failed, false, false);
        bench.tell(2, Became::Failed, false, true);
        bench.now += SETTLE;
        let mut work = bench.mails.turn(Time(bench.now * 1000), 77, SESSION).unwrap();
        let (program, out) = work.mail.as_mut().unwrap();
        assert_eq!(program, "cat >&2");
        assert!(out.text.starts_with("To: ann\nSubject: [vo-login t] job 2.0 Failed\n"), "{}", out.text);
        *program = "read line; echo \"got $line\" >&2; exit 3".to_owned();
        let told = std::sync::Mutex::new(Vec::new());
        work.run(async |done| told.lock().unwrap().push(done)).await;
        let mut told = told.into_inner().unwrap();
        let Some(Done::Unsent(why, back)) = told.pop() else { panic!("it was sent") };
        assert!(matches!(told[..], [Done::Saved]));
        assert_eq!(why, "`read line; echo \"got $line\" >&2; exit 3` ended with exit status: 3: got To: ann");
        assert!(back.letters.contains_key(&2));
        assert_eq!(marked(&dir), 77);
        let again = Mails::open(&dir, None, Time(bench.now * 1000));
        assert_eq!(again.state.letters["ann"].keys().copied().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn headers_stay_headers() {
        let letter = Letter { succeeded: 1, title: "job 1.0 is held: é\n".into(), ..Letter::default() };
        let text = written("ann", &[(1, letter)].into(), SESSION);
        let (headers, _) = text.split_once("\n\n").unwrap();
        assert!(headers.is_ascii() && headers.lines().count() == 6, "{headers}");
    }
}
