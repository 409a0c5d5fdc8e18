//! Events from bytes.

use std::fmt;

/// Longest event, in bytes.
pub const MAX_EVENT: usize = 1 << 20;
/// Longest name or value of an event's attribute that is looked at, in bytes.
const MAX_WORD: usize = 64;

/// How a job ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an exit code.
    Exited(i64),
    /// By a signal.
    Signaled(i64),
}

/// What an event says of itself, in any form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// HTCondor's number of the event.
    pub number: u16,
    /// The cluster; none of a log's own events.
    pub cluster: Option<i64>,
    /// The process; none, or -1, of events of a whole cluster.
    pub proc: Option<i64>,
    /// When, as it is written, with a space between day and time.
    pub time: String,
    /// How the job ended, of its end (005).
    pub end: Option<End>,
}

/// What is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins, in bytes from the start of the log.
    pub offset: u64,
    what: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Fault {}

/// Takes a log as it grows, and gives its events. Each may be in any of the three forms.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Of them, what is behind.
    start: usize,
    /// The offset of the first byte in the log.
    base: u64,
    /// What was found so far of the event that begins at `start`.
    progress: Progress,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// No end is before this place, seen from the event's start.
    at: usize,
    /// Nor is what was looked for last.
    seen: usize,
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Reader {
    /// Takes what comes next.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.base += self.start as u64;
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether all that came was given: no event has begun and lacks its end.
    pub fn is_between(&mut self) -> bool {
        self.skip();
        self.start == self.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The next event with its text, as far as it has come.
    pub fn next_event(&mut self) -> Option<Result<(Head, &[u8]), Fault>> {
        self.skip();
        let rest = self.bytes.get(self.start..)?;
        let first = *rest.first()?;
        let offset = self.base + self.start as u64;
        let progress = &mut self.progress;
        let end = match first {
            b'{' => end_of_json(rest, progress),
            b'<' => end_of_xml(rest, progress),
            _ => end_of_text(rest, progress),
        };
        let fault = |what| Some(Err(Fault { offset, what }));
        let Some(length) = end else {
            if rest.len() < MAX_EVENT {
                return None;
            }
            // What follows may be read again from its next event on.
            self.start = self.bytes.len();
            self.progress = Progress::default();
            return fault("an event longer than 1 MiB");
        };
        self.progress = Progress::default();
        let (from, to) = (self.start, self.start + length);
        self.start = to;
        let text = self.bytes.get(from..to)?;
        let head = match first {
            b'{' => json(text),
            b'<' => xml(text),
            _ => self::text(text),
        };
        match head {
            Some(head) => Some(Ok((head, text))),
            None => fault("neither an event nor a part of one"),
        }
    }

    /// Goes behind space, and what is around the events in XML.
    fn skip(&mut self) {
        while let Some(rest) = self.bytes.get(self.start..).filter(|_| self.progress.at == 0) {
            let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.start += space;
            let rest = rest.get(space..).unwrap_or_default();
            let around = [&b"<?"[..], b"<!", b"<classads", b"</classads"].iter().any(|tag| rest.starts_with(tag));
            if !around {
                return;
            }
            match rest.iter().position(|byte| *byte == b'>') {
                Some(end) => {
                    self.start += end + 1;
                    self.progress = Progress::default();
                }
                None => return,
            }
        }
    }
}

/// Up to and with the line of three dots.
fn end_of_text(bytes: &[u8], progress: &mut Progress) -> Option<usize> {
    while let Some(end) = find(bytes, b'\n', progress) {
        let line = bytes.get(progress.at..end)?;
        progress.at = end + 1;
        if line.trim_ascii_end() == b"..." {
            return Some(progress.at);
        }
    }
    None
}

/// Where the byte is next.
fn find(bytes: &[u8], wanted: u8, progress: &mut Progress) -> Option<usize> {
    let from = progress.at.max(progress.seen);
    let found = bytes.get(from..)?.iter().position(|byte| *byte == wanted).map(|place| from + place);
    // What comes next is looked at, and only that.
    progress.seen = if found.is_some() { 0 } else { bytes.len() };
    found
}

fn end_of_json(bytes: &[u8], progress: &mut Progress) -> Option<usize> {
    for byte in bytes.get(progress.at..)? {
        progress.at += 1;
        match byte {
            _ if progress.escaped => progress.escaped = false,
            b'\\' if progress.quoted => progress.escaped = true,
            b'"' => progress.quoted = !progress.quoted,
            _ if progress.quoted => {}
            b'{' => progress.depth += 1,
            b'}' => {
                progress.depth = progress.depth.saturating_sub(1);
                if progress.depth == 0 {
                    return Some(progress.at);
                }
            }
            _ => {}
        }
    }
    None
}

fn end_of_xml(bytes: &[u8], progress: &mut Progress) -> Option<usize> {
    // Each tag ends with the first `>` behind its `<`.
    while let Some(end) = find(bytes, b'>', progress) {
        let piece = bytes.get(progress.at..=end)?;
        let tag = piece.iter().position(|byte| *byte == b'<').and_then(|from| piece.get(from..)).unwrap_or_default();
        progress.at = end + 1;
        if tag == b"<c>" {
            progress.depth += 1;
        } else if tag == b"</c>" {
            progress.depth = progress.depth.saturating_sub(1);
        }
        if progress.depth == 0 {
            return Some(progress.at);
        }
    }
    None
}

/// `005 (12.003.000) 2026-11-25 20:14:37 Job terminated.`, with times of other forms, too.
fn text(bytes: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(bytes);
    let (number, rest) = text.split_once(' ')?;
    let (ids, rest) = rest.trim_start().strip_prefix('(')?.split_once(')')?;
    let mut ids = ids.split('.').map(|id| id.parse::<i64>().ok());
    let (cluster, proc, sub) = (ids.next()??, ids.next()??, ids.next()?);
    if number.len() != 3 || sub.is_none() || ids.next().is_some() {
        return None;
    }
    let number: u16 = number.parse().ok()?;
    let line = rest.lines().next()?.trim_start();
    // A day and a time of day, or both in one word.
    let words = if line.split(' ').next()?.contains('T') { 1 } else { 2 };
    let time: Vec<&str> = line.split(' ').take(words).collect();
    if !time.iter().all(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        return None;
    }
    let end = if number == 5 { rest.lines().find_map(ended) } else { None };
    // What a log says of itself has the numbers of no job.
    let own = number == 8 && cluster <= 0;
    let of_a_job = |id: i64| Some(id).filter(|_| !own);
    Some(Head {
        number,
        cluster: of_a_job(cluster),
        proc: of_a_job(proc),
        time: time.join(" ").replacen('T', " ", 1),
        end,
    })
}

fn ended(line: &str) -> Option<End> {
    let line = line.trim();
    let number = |line: &str, before: &str| line.strip_prefix(before)?.strip_suffix(')')?.parse::<i64>().ok();
    number(line, "(1) Normal termination (return value ")
        .map(End::Exited)
        .or_else(|| number(line, "(0) Abnormal termination (signal ").map(End::Signaled))
}

/// What is looked at of an ad.
#[derive(Default)]
struct Found {
    number: Option<i64>,
    cluster: Option<i64>,
    proc: Option<i64>,
    time: String,
    code: Option<i64>,
    signal: Option<i64>,
}

impl Found {
    fn take(&mut self, name: &str, value: &str) {
        let number = || value.parse::<i64>().ok();
        match () {
            () if name.eq_ignore_ascii_case("EventTypeNumber") => self.number = number(),
            () if name.eq_ignore_ascii_case("Cluster") => self.cluster = number(),
            () if name.eq_ignore_ascii_case("Proc") => self.proc = number(),
            () if name.eq_ignore_ascii_case("EventTime") => value.clone_into(&mut self.time),
            () if name.eq_ignore_ascii_case("ReturnValue") => self.code = number(),
            () if name.eq_ignore_ascii_case("TerminatedBySignal") => self.signal = number(),
            () => {}
        }
    }

    fn head(self) -> Option<Head> {
        let number = u16::try_from(self.number?).ok()?;
        let end = self.code.map(End::Exited).or(self.signal.map(End::Signaled)).filter(|_| number == 5);
        let time = self.time.replacen('T', " ", 1);
        Some(Head { number, cluster: self.cluster, proc: self.proc, time, end })
    }
}

/// The scalars at the top of an object that [`end_of_json`] found whole.
fn json(bytes: &[u8]) -> Option<Head> {
    let mut found = Found::default();
    let (mut depth, mut at) = (0usize, 0);
    let mut name: Option<String> = None;
    // The last word, which is a name if a colon follows.
    let mut word: Option<String> = None;
    while let Some(byte) = bytes.get(at) {
        let rest = bytes.get(at..)?;
        let mut length = 1;
        match byte {
            b'"' => {
                length = 2 + string_length(rest.get(1..)?)?;
                word = Some(unescaped(rest.get(1..length - 1)?));
            }
            b':' => name = word.take(),
            b',' | b'{' | b'}' | b'[' | b']' => {
                if let (1, Some(name), Some(value)) = (depth, name.take(), word.take()) {
                    found.take(&name, &value);
                }
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.checked_sub(1)?,
                    _ => {}
                }
                word = None;
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => {
                let plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                length = rest.iter().take_while(plain).count();
                if length == 0 {
                    return None;
                }
                word = Some(unescaped(rest.get(..length)?));
            }
        }
        at += length;
    }
    found.head()
}

/// Of a string, up to its closing quotation mark.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    bytes.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// The start of a word. The names and values that matter hold no escapes.
fn unescaped(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_WORD).unwrap_or(bytes)).into_owned()
}

/// The scalars at the top of an ad that [`end_of_xml`] found whole.
fn xml(bytes: &[u8]) -> Option<Head> {
    let mut found = Found::default();
    let (mut depth, mut at) = (0usize, 0);
    let mut name: Option<String> = None;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let from = rest.iter().position(|byte| *byte == b'<')?;
        let value = rest.get(..from)?;
        let tag = rest.get(from..)?;
        let length = tag.iter().position(|byte| *byte == b'>')? + 1;
        let tag = tag.get(..length)?;
        match tag {
            b"<c>" => depth += 1,
            b"</c>" => depth = depth.checked_sub(1)?,
            b"</i>" | b"</s>" | b"</r>" | b"</n>" => {
                if let (1, Some(name)) = (depth, name.take()) {
                    found.take(&name, unescaped(value).trim());
                }
            }
            _ => {
                if let Some(rest) = tag.strip_prefix(b"<a n=\"").filter(|_| depth == 1) {
                    let end = rest.iter().position(|byte| *byte == b'"')?;
                    name = Some(unescaped(rest.get(..end)?));
                }
            }
        }
        at += from + length;
    }
    found.head().filter(|_| depth == 0)
}
