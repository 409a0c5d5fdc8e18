//! Events as text.

use std::borrow::Cow;

use super::{End, Form};
use crate::classad::Value;

/// An event to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The cluster of its job.
    pub cluster: u32,
    /// The process; none of events of the whole cluster.
    pub proc: Option<u32>,
    /// When, as `2026-11-25 20:14:37.247`. The text form shows whole seconds.
    pub time: String,
    /// What.
    pub body: Body,
}

/// What happened. Words are written as one line each, whatever they hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// 000: it was submitted.
    Submitted {
        /// From which host: an address between angle brackets.
        host: String,
        /// The batch name that the user gave.
        batch_name: Option<String>,
        /// The DAG's node that it is of.
        dag_node: Option<String>,
        /// What the submission notes for programs.
        notes: Option<String>,
        /// What it notes for people.
        user_notes: Option<String>,
    },
    /// 001: it runs.
    Executing {
        /// Where: an address between angle brackets.
        host: String,
        /// The slot.
        slot: String,
        /// What it occupies there.
        has: Resources,
    },
    /// 006: how large it is.
    ImageSize {
        /// Largest resident set.
        resident_kib: u64,
    },
    /// 004: a site failed it, or the user or its policy wants it to run again.
    Evicted {
        /// Why.
        reason: String,
        /// How it ended, if it did so by itself.
        end: Option<End>,
        /// What it used.
        spent: Spent,
    },
    /// 005: it ended by itself.
    Terminated {
        /// How.
        end: End,
        /// What it used.
        spent: Spent,
    },
    /// 009: it was removed.
    Aborted {
        /// Why.
        reason: String,
    },
    /// 012: it was held.
    Held {
        /// Why.
        reason: String,
        /// The same in HTCondor's numbers.
        code: u32,
        /// More of that.
        subcode: i64,
    },
    /// 013: it was released.
    Released {
        /// Why.
        reason: String,
    },
    /// 028: what its ad says when another event is written.
    Information {
        /// That event.
        of: Box<Body>,
        /// Attributes of its ad.
        attributes: Vec<(String, Value)>,
    },
    /// 035: a cluster was submitted whose jobs are not all to be there at once.
    ClusterSubmitted {
        /// From which host: an address between angle brackets.
        host: String,
    },
    /// 036: all of its jobs are over.
    ClusterRemoved {
        /// How many there were.
        jobs: u32,
        /// Of how many items.
        items: u32,
    },
    /// 040: its files move.
    Moved {
        /// Which, and how far they have come.
        files: Files,
        /// Where they go to, an address between angle brackets: told as input files begin to move.
        host: String,
    },
    /// 022: where it runs can't be reached.
    Disconnected {
        /// Why.
        reason: String,
        /// The slot.
        slot: String,
        /// The host, an address between angle brackets.
        host: String,
    },
    /// 023: it can be reached again.
    Reconnected {
        /// The slot.
        slot: String,
        /// The host, an address between angle brackets.
        host: String,
    },
    /// 024: it won't be reached any more.
    ReconnectFailed {
        /// Why.
        reason: String,
        /// The slot.
        slot: String,
    },
}

/// Which files move, and how far they have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Input files begin to move.
    InputsBegan,
    /// They are at the node.
    InputsCame,
    /// Output files begin to move.
    OutputsBegan,
    /// They are at home.
    OutputsCame,
}

impl Files {
    /// HTCondor's number and words for it. The numbers between are those of a queue.
    fn told(self) -> (u64, &'static str) {
        match self {
            Files::InputsBegan => (2, "Started transferring input files"),
            Files::InputsCame => (3, "Finished transferring input files"),
            Files::OutputsBegan => (5, "Started transferring output files"),
            Files::OutputsCame => (6, "Finished transferring output files"),
        }
    }
}

/// What a job occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPUs.
    pub cpus: u32,
    /// Memory, if it is asked for.
    pub memory_mb: Option<u64>,
    /// GPUs.
    pub gpus: u32,
    /// Disk space, if it is asked for.
    pub disk_kib: Option<u64>,
}

/// CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of its own, in seconds.
    pub user: u64,
    /// Of the kernel, in seconds.
    pub system: u64,
}

/// What a run used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// CPU time.
    pub usage: Usage,
    /// Of files that came back.
    pub sent_bytes: u64,
    /// Of files that were brought to it.
    pub received_bytes: u64,
    /// What it asked for.
    pub asked: Resources,
    /// Used of that; none if nothing is known.
    pub used: Option<Used>,
}

/// Used of what it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// CPUs, on the average.
    pub cpus: f64,
    /// Memory, at most.
    pub memory_mb: u64,
    /// Disk space, at most, if that is known.
    pub disk_kib: Option<u64>,
    /// How long it ran.
    pub seconds: u64,
}

/// A value of an event's ad.
enum Field {
    Int(i64),
    Real(f64),
    Text(String),
    Bool(bool),
    Ad(Vec<(&'static str, Field)>),
    /// Anything else, as an expression.
    Expression(String),
}

impl Field {
    fn expression(&self) -> String {
        match self {
            Field::Int(number) => number.to_string(),
            Field::Real(number) => Value::Real(*number).to_string(),
            Field::Text(text) => Value::String(text.as_bytes().into()).old_syntax().to_string(),
            Field::Bool(truth) => truth.to_string(),
            Field::Ad(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, field)| format!("{name} = {}", field.expression())).collect();
                format!("[ {} ]", fields.join("; "))
            }
            Field::Expression(text) => text.clone(),
        }
    }
}

impl From<&Value> for Field {
    fn from(value: &Value) -> Self {
        match value {
            Value::Integer(number) => Field::Int(*number),
            Value::Real(number) if number.is_finite() => Field::Real(*number),
            Value::Boolean(truth) => Field::Bool(*truth),
            Value::String(text) => Field::Text(line(&String::from_utf8_lossy(text))),
            other => Field::Expression(line(&other.to_string())),
        }
    }
}

/// Attributes that say which event it is.
const HEAD: [&str; 6] = ["MyType", "EventTypeNumber", "EventTime", "Cluster", "Proc", "Subproc"];

type Fields = Vec<(Cow<'static, str>, Field)>;

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Field::Text(line(text))
    }
}

impl From<&String> for Field {
    fn from(text: &String) -> Self {
        Field::Text(line(text))
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Field::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// One line without control characters: a line of dots would end an event.
fn line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// `Usr 0 01:01:01, Sys 0 00:00:00`.
fn times(usage: Usage) -> String {
    let span = |s: u64| format!("{} {:02}:{:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    format!("Usr {}, Sys {}", span(usage.user), span(usage.system))
}

/// As many digits as say something.
fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Event {
    /// The event's text, up to the end of its last line.
    pub fn write(&self, form: Form) -> String {
        match form {
            Form::Text => {
                let seconds = self.time.get(..19).unwrap_or(&self.time);
                let Event { cluster, body, .. } = self;
                let proc = self.proc.map_or(-1, i64::from);
                let text = match body {
                    Body::Information { .. } => self.information(),
                    body => body.text(),
                };
                format!("{:03} ({cluster:03}.{proc:03}.000) {seconds} {text}{}", body.number(), form.last_line())
            }
            Form::Json => {
                let mut out = String::new();
                json(&mut out, &self.fields(), 1);
                out + "\n"
            }
            Form::Xml => {
                let mut out = String::new();
                xml(&mut out, &self.fields(), 1);
                out + "\n"
            }
        }
    }

    fn fields(&self) -> Fields {
        let mut fields: Fields = vec![
            ("MyType".into(), self.body.my_type().into()),
            ("EventTypeNumber".into(), u64::from(self.body.number()).into()),
            ("EventTime".into(), Field::from(&self.time.replacen(' ', "T", 1))),
            ("Cluster".into(), u64::from(self.cluster).into()),
        ];
        fields.extend(self.proc.map(|proc| ("Proc".into(), u64::from(proc).into())));
        fields.push(("Subproc".into(), Field::Int(0)));
        self.body.fields(&mut fields);
        fields
    }

    /// The attributes, one a line by their names.
    fn information(&self) -> String {
        let mut fields = self.fields();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        let lines = fields.iter().map(|(name, field)| format!("{name} = {}\n", field.expression()));
        ["Job ad information event triggered.\n".to_owned()].into_iter().chain(lines).collect()
    }
}

impl Body {
    /// HTCondor's number of the event.
    pub fn number(&self) -> u16 {
        match self {
            Body::Submitted { .. } => 0,
            Body::Executing { .. } => 1,
            Body::Evicted { .. } => 4,
            Body::Terminated { .. } => 5,
            Body::ImageSize { .. } => 6,
            Body::Aborted { .. } => 9,
            Body::Held { .. } => 12,
            Body::Released { .. } => 13,
            Body::Disconnected { .. } => 22,
            Body::Reconnected { .. } => 23,
            Body::ReconnectFailed { .. } => 24,
            Body::Information { .. } => 28,
            Body::ClusterSubmitted { .. } => 35,
            Body::ClusterRemoved { .. } => 36,
            Body::Moved { .. } => 40,
        }
    }

    fn my_type(&self) -> &'static str {
        match self {
            Body::Submitted { .. } => "SubmitEvent",
            Body::Executing { .. } => "ExecuteEvent",
            Body::Evicted { .. } => "JobEvictedEvent",
            Body::Terminated { .. } => "JobTerminatedEvent",
            Body::ImageSize { .. } => "JobImageSizeEvent",
            Body::Aborted { .. } => "JobAbortedEvent",
            Body::Held { .. } => "JobHeldEvent",
            Body::Released { .. } => "JobReleaseEvent",
            Body::Disconnected { .. } => "JobDisconnectedEvent",
            Body::Reconnected { .. } => "JobReconnectedEvent",
            Body::ReconnectFailed { .. } => "JobReconnectFailedEvent",
            Body::Information { of, .. } => of.my_type(),
            Body::ClusterSubmitted { .. } => "ClusterSubmitEvent",
            Body::ClusterRemoved { .. } => "ClusterRemoveEvent",
            Body::Moved { .. } => "FileTransferEvent",
        }
    }

    /// The name that an event of the job's ad knows it by: `ULOG_JOB_TERMINATED`.
    pub fn trigger(&self) -> &'static str {
        match self {
            Body::Submitted { .. } => "ULOG_SUBMIT",
            Body::Executing { .. } => "ULOG_EXECUTE",
            Body::Evicted { .. } => "ULOG_JOB_EVICTED",
            Body::Terminated { .. } => "ULOG_JOB_TERMINATED",
            Body::ImageSize { .. } => "ULOG_IMAGE_SIZE",
            Body::Aborted { .. } => "ULOG_JOB_ABORTED",
            Body::Held { .. } => "ULOG_JOB_HELD",
            Body::Released { .. } => "ULOG_JOB_RELEASED",
            Body::Disconnected { .. } => "ULOG_JOB_DISCONNECTED",
            Body::Reconnected { .. } => "ULOG_JOB_RECONNECTED",
            Body::ReconnectFailed { .. } => "ULOG_JOB_RECONNECT_FAILED",
            Body::Information { .. } => "ULOG_JOB_AD_INFORMATION",
            Body::ClusterSubmitted { .. } => "ULOG_CLUSTER_SUBMIT",
            Body::ClusterRemoved { .. } => "ULOG_CLUSTER_REMOVE",
            Body::Moved { .. } => "ULOG_FILE_TRANSFER",
        }
    }

    fn text(&self) -> String {
        match self {
            Body::Submitted { host, notes, user_notes, .. } => {
                let mut text = format!("Job submitted from host: {}\n", line(host));
                let structured: Vec<String> = self
                    .structured()
                    .iter()
                    .map(|(name, value)| format!("{name} = {}", Value::String(value.as_bytes().into())))
                    .collect();
                if !structured.is_empty() {
                    text += &format!("    [ {} ]\n", structured.join("; "));
                } else if let Some(notes) = notes {
                    text += &format!("    {}\n", line(notes));
                }
                if let Some(notes) = user_notes {
                    text += &format!("    {}\n", line(notes));
                }
                text
            }
            Body::Executing { host, slot, has } => {
                let mut text = format!("Job executing on host: {}\n\tSlotName: {}\n", line(host), line(slot));
                for (name, value) in has.fields() {
                    text += &format!("\t{name} = {value}\n");
                }
                text
            }
            Body::ImageSize { resident_kib } => format!(
                "Image size of job updated: {resident_kib}\n\t{}  -  MemoryUsage of job (MB)\n\t{resident_kib}  -  ResidentSetSize of job (KB)\n",
                resident_kib.div_ceil(1024)
            ),
            Body::Evicted { reason, end, spent } => {
                let (how, requeued) = match end {
                    None => ("(0) CPU times", String::new()),
                    Some(end) => ("(0) Job terminated and was requeued", ended(*end)),
                };
                format!(
                    "Job was evicted.\n\t{how}\n{}{}{requeued}\tReason: {}\n{}",
                    spent.times("Run"),
                    spent.bytes("Run"),
                    line(reason),
                    spent.table()
                )
            }
            Body::Terminated { end, spent } => format!(
                "Job terminated.\n{}{}{}{}{}{}",
                ended(*end),
                spent.times("Run"),
                spent.times("Total"),
                spent.bytes("Run"),
                spent.bytes("Total"),
                spent.table()
            ),
            Body::Aborted { reason } => format!("Job was aborted.\n\t{}\n", line(reason)),
            Body::Held { reason, code, subcode } => {
                format!("Job was held.\n\t{}\n\tCode {code} Subcode {subcode}\n", line(reason))
            }
            Body::Released { reason } => format!("Job was released.\n\t{}\n", line(reason)),
            Body::Disconnected { reason, slot, host } => format!(
                "Job disconnected, attempting to reconnect\n    {}\n    Trying to reconnect to {} {}\n",
                line(reason),
                line(slot),
                line(host)
            ),
            // Written by the event that holds it.
            Body::Information { .. } => String::new(),
            Body::ClusterSubmitted { host } => format!("Cluster submitted from host: {}\n", line(host)),
            Body::ClusterRemoved { jobs, items } => {
                format!("Cluster removed\n\tMaterialized {jobs} jobs from {items} items.\tComplete\n")
            }
            Body::Moved { files, host } => {
                let mut text = format!("{}\n", files.told().1);
                if *files == Files::InputsBegan {
                    text += &format!("\tTransferring to host: {}\n", line(host));
                }
                text
            }
            Body::Reconnected { slot, host } => {
                let host = line(host);
                format!("Job reconnected to {}\n    startd address: {host}\n    starter address: {host}\n", line(slot))
            }
            Body::ReconnectFailed { reason, slot } => format!(
                "Job reconnection failed\n    {}\n    Can not reconnect to {}, rescheduling job\n",
                line(reason),
                line(slot)
            ),
        }
    }

    /// Of a submission's notes, those with names.
    fn structured(&self) -> Vec<(&'static str, String)> {
        let Body::Submitted { batch_name, dag_node, .. } = self else { return Vec::new() };
        let all = [("DAGNodeName", dag_node), ("JobBatchName", batch_name)];
        all.into_iter().filter_map(|(name, value)| Some((name, line(value.as_ref()?)))).collect()
    }

    fn fields(&self, fields: &mut Fields) {
        let mut add = |name: &'static str, field: Field| fields.push((name.into(), field));
        match self {
            Body::Information { of, attributes } => {
                add("TriggerEventTypeNumber", u64::from(of.number()).into());
                add("TriggerEventTypeName", of.trigger().into());
                of.fields(fields);
                let own = |(name, _): &&(String, Value)| !HEAD.iter().any(|head| head.eq_ignore_ascii_case(name));
                let attributes: Vec<_> = attributes.iter().filter(own).collect();
                // Where both have an attribute, the job's ad has the last word.
                fields.retain(|(name, _)| !attributes.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
                fields.extend(attributes.iter().map(|(name, value)| (name.clone().into(), value.into())));
            }
            Body::ClusterSubmitted { host } => add("SubmitHost", host.into()),
            Body::ClusterRemoved { jobs, items } => {
                add("NextProcId", u64::from(*jobs).into());
                add("NextRow", u64::from(*items).into());
                add("Completion", Field::Int(1));
            }
            Body::Submitted { host, notes, user_notes, .. } => {
                add("SubmitHost", host.into());
                for (name, notes) in [("LogNotes", notes), ("UserNotes", user_notes)] {
                    notes.iter().for_each(|notes| add(name, notes.into()));
                }
                let structured = self.structured();
                if !structured.is_empty() {
                    let texts = structured.into_iter().map(|(name, value)| (name, Field::Text(value)));
                    add("StructuredNotes", Field::Ad(texts.collect()));
                }
            }
            Body::Executing { host, slot, has } => {
                add("ExecuteHost", host.into());
                add("SlotName", slot.into());
                let has = has.fields().into_iter().map(|(name, value)| (name, value.into()));
                add("ExecuteProps", Field::Ad(has.collect()));
            }
            Body::ImageSize { resident_kib } => {
                add("Size", (*resident_kib).into());
                add("MemoryUsage", resident_kib.div_ceil(1024).into());
                add("ResidentSetSize", (*resident_kib).into());
            }
            Body::Evicted { reason, end, spent } => {
                add("Checkpointed", Field::Bool(false));
                add("TerminatedAndRequeued", Field::Bool(end.is_some()));
                match end {
                    Some(end) => end.fields(&mut add),
                    None => add("TerminatedNormally", Field::Bool(false)),
                }
                add("Reason", reason.into());
                spent.fields(false, &mut add);
            }
            Body::Terminated { end, spent } => {
                end.fields(&mut add);
                spent.fields(true, &mut add);
            }
            Body::Aborted { reason } | Body::Released { reason } => add("Reason", reason.into()),
            Body::Held { reason, code, subcode } => {
                add("HoldReason", reason.into());
                add("HoldReasonCode", u64::from(*code).into());
                add("HoldReasonSubCode", Field::Int(*subcode));
            }
            Body::Moved { files, host } => {
                add("Type", files.told().0.into());
                if *files == Files::InputsBegan {
                    add("Host", host.into());
                }
            }
            Body::Disconnected { reason, slot, host } => {
                add("DisconnectReason", reason.into());
                add("EventDescription", "Job disconnected, attempting to reconnect".into());
                add("StartdName", slot.into());
                add("StartdAddr", host.into());
            }
            Body::Reconnected { slot, host } => {
                add("EventDescription", "Job reconnected".into());
                add("StartdName", slot.into());
                add("StartdAddr", host.into());
                add("StarterAddr", host.into());
            }
            Body::ReconnectFailed { reason, slot } => {
                add("Reason", reason.into());
                add("EventDescription", "Job reconnect impossible: rescheduling job".into());
                add("StartdName", slot.into());
            }
        }
    }
}

impl End {
    fn fields(self, add: &mut impl FnMut(&'static str, Field)) {
        match self {
            End::Exited(code) => {
                add("TerminatedNormally", Field::Bool(true));
                add("ReturnValue", Field::Int(code));
            }
            End::Signaled(signal) => {
                add("TerminatedNormally", Field::Bool(false));
                add("TerminatedBySignal", Field::Int(signal));
            }
        }
    }
}

fn ended(end: End) -> String {
    match end {
        End::Exited(code) => format!("\t(1) Normal termination (return value {code})\n"),
        End::Signaled(signal) => format!("\t(0) Abnormal termination (signal {signal})\n\t(0) No core file\n"),
    }
}

impl Resources {
    fn fields(self) -> Vec<(&'static str, u64)> {
        let memory = self.memory_mb.map(|memory| ("Memory", memory));
        [("Cpus", u64::from(self.cpus)), ("GPUs", u64::from(self.gpus))].into_iter().chain(memory).collect()
    }
}

impl Spent {
    fn times(&self, which: &str) -> String {
        let (remote, local) = (times(self.usage), times(Usage::default()));
        format!("\t\t{remote}  -  {which} Remote Usage\n\t\t{local}  -  {which} Local Usage\n")
    }

    fn bytes(&self, which: &str) -> String {
        let (sent, received) = (self.sent_bytes, self.received_bytes);
        format!("\t{sent}  -  {which} Bytes Sent By Job\n\t{received}  -  {which} Bytes Received By Job\n")
    }

    fn table(&self) -> String {
        let Some(used) = self.used else { return String::new() };
        let Resources { cpus, memory_mb, gpus, disk_kib } = self.asked;
        let shown = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let mut rows = vec![("Partitionable Resources", ["Usage".into(), "Request".into(), "Allocated".into()])];
        let mut row = |name, used: String, asked: Option<u64>, has: Option<u64>| {
            rows.push((name, [used, shown(asked), shown(has)]));
        };
        row("Cpus", short(used.cpus), Some(cpus.into()), Some(cpus.into()));
        if used.disk_kib.is_some() {
            row("Disk (KB)", shown(used.disk_kib), disk_kib, disk_kib);
        }
        if gpus > 0 {
            row("GPUs", String::new(), Some(gpus.into()), Some(gpus.into()));
        }
        row("Memory (MB)", used.memory_mb.to_string(), memory_mb, memory_mb);
        row("TimeExecute (s)", used.seconds.to_string(), None, None);
        // What is under a heading is read by its place.
        let wide = |column: usize, least: usize| rows.iter().map(|(_, row)| row[column].len()).fold(least, usize::max);
        let [a, b, c] = [wide(0, 8), wide(1, 8), wide(2, 9)];
        let lines = rows.iter().enumerate().map(|(place, (name, [used, asked, has]))| {
            let name = if place == 0 { format!("{name} ") } else { format!("   {name:<21}") };
            format!("\t{name}: {used:>a$} {asked:>b$} {has:>c$} \n")
        });
        lines.collect()
    }

    fn fields(&self, total: bool, add: &mut impl FnMut(&'static str, Field)) {
        let local = || times(Usage::default()).as_str().into();
        #[allow(clippy::cast_precision_loss, reason = "HTCondor's are floating, too")]
        let (sent, received) = (self.sent_bytes as f64, self.received_bytes as f64);
        add("RunRemoteUsage", times(self.usage).as_str().into());
        add("RunLocalUsage", local());
        add("SentBytes", Field::Real(sent));
        add("ReceivedBytes", Field::Real(received));
        if total {
            add("TotalRemoteUsage", times(self.usage).as_str().into());
            add("TotalLocalUsage", local());
            add("TotalSentBytes", Field::Real(sent));
            add("TotalReceivedBytes", Field::Real(received));
        }
        let Some(used) = self.used.filter(|_| total) else { return };
        let asked = self.asked;
        add("CpusUsage", short(used.cpus).parse().map_or(Field::Int(0), Field::Real));
        add("MemoryUsage", used.memory_mb.into());
        add("TimeExecuteUsage", used.seconds.into());
        if let Some(disk) = used.disk_kib {
            add("DiskUsage", disk.into());
        }
        for (name, request, value) in [
            ("Cpus", "RequestCpus", Some(u64::from(asked.cpus))),
            ("GPUs", "RequestGPUs", Some(u64::from(asked.gpus)).filter(|gpus| *gpus > 0)),
            ("Memory", "RequestMemory", asked.memory_mb),
            ("Disk", "RequestDisk", asked.disk_kib.filter(|_| used.disk_kib.is_some())),
        ] {
            let Some(value) = value else { continue };
            add(name, value.into());
            add(request, value.into());
        }
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn json<N: AsRef<str>>(out: &mut String, fields: &[(N, Field)], depth: usize) {
    out.push_str("{\n");
    for (place, (name, field)) in fields.iter().enumerate() {
        if place > 0 {
            out.push_str(",\n");
        }
        *out += &"  ".repeat(depth);
        *out += &format!("\"{}\": ", name.as_ref());
        match field {
            Field::Int(number) => *out += &number.to_string(),
            Field::Real(number) => *out += &format!("{number:?}"),
            Field::Bool(truth) => *out += &truth.to_string(),
            Field::Ad(fields) => json(out, fields, depth + 1),
            Field::Text(text) => quoted(out, text),
            Field::Expression(text) => quoted(out, &format!("/Expr({text})/")),
        }
    }
    out.push('\n');
    *out += &"  ".repeat(depth - 1);
    out.push('}');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn xml<N: AsRef<str>>(out: &mut String, fields: &[(N, Field)], depth: usize) {
    out.push_str("<c>\n");
    for (name, field) in fields {
        *out += &"    ".repeat(depth);
        *out += &format!("<a n=\"{}\">", name.as_ref());
        match field {
            Field::Int(number) => *out += &format!("<i>{number}</i>"),
            Field::Real(number) => *out += &format!("<r>{}</r>", Value::Real(*number)),
            Field::Bool(truth) => *out += if *truth { "<b v=\"t\"/>" } else { "<b v=\"f\"/>" },
            Field::Ad(fields) => xml(out, fields, depth + 1),
            Field::Text(text) => {
                // HTCondor reads strings in XML with the escapes of expressions.
                *out += &format!("<s>{}</s>", escaped(text).replace('\\', "\\\\"));
            }
            Field::Expression(text) => *out += &format!("<e>{}</e>", escaped(text)),
        }
        out.push_str("</a>\n");
    }
    *out += &"    ".repeat(depth - 1);
    out.push_str("</c>");
}
