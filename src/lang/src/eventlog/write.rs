//! Events as text.

use super::{End, Form};
use crate::classad::Value;

/// An event to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The cluster of its job.
    pub cluster: u32,
    /// The process.
    pub proc: u32,
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

/// What a job occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPUs.
    pub cpus: u32,
    /// Memory, if it is asked for.
    pub memory_mb: Option<u64>,
    /// GPUs.
    pub gpus: u32,
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
}

type Fields = Vec<(&'static str, Field)>;

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
                let Event { cluster, proc, body, .. } = self;
                format!(
                    "{:03} ({cluster:03}.{proc:03}.000) {seconds} {}{}",
                    body.number(),
                    body.text(),
                    form.last_line()
                )
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
        let mut fields = vec![
            ("MyType", self.body.my_type().into()),
            ("EventTypeNumber", u64::from(self.body.number()).into()),
            ("EventTime", Field::from(&self.time.replacen(' ', "T", 1))),
            ("Cluster", u64::from(self.cluster).into()),
            ("Proc", u64::from(self.proc).into()),
            ("Subproc", Field::Int(0)),
        ];
        self.body.fields(&mut fields);
        fields
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
        let mut add = |name, field: Field| fields.push((name, field));
        match self {
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
        format!("\t{}  -  {which} Bytes Sent By Job\n\t0  -  {which} Bytes Received By Job\n", self.sent_bytes)
    }

    fn table(&self) -> String {
        let Some(used) = self.used else { return String::new() };
        let Resources { cpus, memory_mb, gpus } = self.asked;
        let mut text = "\tPartitionable Resources :    Usage  Request Allocated \n".to_owned();
        let mut row = |name: &str, used: String, asked: Option<u64>| {
            let asked = asked.map(|n| n.to_string()).unwrap_or_default();
            text += &format!("\t   {name:<21}: {used:>8} {asked:>8} {asked:>9} \n");
        };
        row("Cpus", short(used.cpus), Some(cpus.into()));
        if gpus > 0 {
            row("GPUs", String::new(), Some(gpus.into()));
        }
        row("Memory (MB)", used.memory_mb.to_string(), memory_mb);
        row("TimeExecute (s)", used.seconds.to_string(), None);
        text
    }

    fn fields(&self, total: bool, add: &mut impl FnMut(&'static str, Field)) {
        let local = || times(Usage::default()).as_str().into();
        #[allow(clippy::cast_precision_loss, reason = "HTCondor's are floating, too")]
        let sent = self.sent_bytes as f64;
        add("RunRemoteUsage", times(self.usage).as_str().into());
        add("RunLocalUsage", local());
        add("SentBytes", Field::Real(sent));
        add("ReceivedBytes", Field::Real(0.0));
        if total {
            add("TotalRemoteUsage", times(self.usage).as_str().into());
            add("TotalLocalUsage", local());
            add("TotalSentBytes", Field::Real(sent));
            add("TotalReceivedBytes", Field::Real(0.0));
        }
        let Some(used) = self.used.filter(|_| total) else { return };
        let asked = self.asked;
        add("CpusUsage", short(used.cpus).parse().map_or(Field::Int(0), Field::Real));
        add("MemoryUsage", used.memory_mb.into());
        add("TimeExecuteUsage", used.seconds.into());
        for (name, request, value) in [
            ("Cpus", "RequestCpus", Some(u64::from(asked.cpus))),
            ("GPUs", "RequestGPUs", Some(u64::from(asked.gpus)).filter(|gpus| *gpus > 0)),
            ("Memory", "RequestMemory", asked.memory_mb),
        ] {
            let Some(value) = value else { continue };
            add(name, value.into());
            add(request, value.into());
        }
    }
}

fn json(out: &mut String, fields: &Fields, depth: usize) {
    out.push_str("{\n");
    for (place, (name, field)) in fields.iter().enumerate() {
        if place > 0 {
            out.push_str(",\n");
        }
        *out += &"  ".repeat(depth);
        *out += &format!("\"{name}\": ");
        match field {
            Field::Int(number) => *out += &number.to_string(),
            Field::Real(number) => *out += &format!("{number:?}"),
            Field::Bool(truth) => *out += &truth.to_string(),
            Field::Ad(fields) => json(out, fields, depth + 1),
            Field::Text(text) => {
                out.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
    }
    out.push('\n');
    *out += &"  ".repeat(depth - 1);
    out.push('}');
}

fn xml(out: &mut String, fields: &Fields, depth: usize) {
    out.push_str("<c>\n");
    for (name, field) in fields {
        *out += &"    ".repeat(depth);
        *out += &format!("<a n=\"{name}\">");
        match field {
            Field::Int(number) => *out += &format!("<i>{number}</i>"),
            Field::Real(number) => *out += &format!("<r>{}</r>", Value::Real(*number)),
            Field::Bool(truth) => *out += if *truth { "<b v=\"t\"/>" } else { "<b v=\"f\"/>" },
            Field::Ad(fields) => xml(out, fields, depth + 1),
            Field::Text(text) => {
                out.push_str("<s>");
                for c in text.chars() {
                    match c {
                        '&' => out.push_str("&amp;"),
                        '<' => out.push_str("&lt;"),
                        '>' => out.push_str("&gt;"),
                        // HTCondor reads strings in XML with the escapes of expressions.
                        '\\' => out.push_str("\\\\"),
                        c => out.push(c),
                    }
                }
                out.push_str("</s>");
            }
        }
        out.push_str("</a>\n");
    }
    *out += &"    ".repeat(depth - 1);
    out.push_str("</c>");
}
