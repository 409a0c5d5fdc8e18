//! Submit descriptions, in HTCondor's form (condor_submit(1)).
//!
//! [`parse`] reads a description into one [`Group`] of jobs for each `queue` statement. What would
//! change a job's results and isn't supported is an error; what is merely not acted on is a warning.
//!
//! Known differences from condor_submit (checked against 24.12 and 25.14):
//! - A description without `queue`, or one whose counts are all 0, is an error; condor_submit submits one job.
//! - Macros that refer to each other in a ring are an error; condor_submit never ends.
//! - `request_*` and other values take numbers, not ClassAd expressions.
//! - `==` for `=`, a boolean that is neither true nor false, an unknown `when_to_transfer_output`, and
//!   typographic quotes at the start of a value are errors; condor_submit passes over them or takes them
//!   literally.
//! - A byte-order mark is passed over.

mod ad;
mod commands;
mod lines;
mod macros;
mod report;
mod template;
#[cfg(test)]
mod tests;
mod words;

pub use template::Template;

use crate::diagnostic::{Source, show};
use crate::{Diagnostic, nearest};
use lines::{Spot, bytes, trim};
use macros::{Definition, Macros, is_name_byte};
use report::Report;
use template::Atom;

/// Most jobs in one cluster.
pub const MAX_JOBS: u32 = 10_000_000;
/// Longest description, in bytes.
pub const MAX_TEXT: usize = 64 << 20;
/// Most `queue` statements: each has a job ad of its own in memory.
const MAX_QUEUES: usize = 100_000;

/// A description, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// One for each `queue` statement, in order; processes are numbered on through the cluster.
    pub groups: Vec<Group>,
    /// What the author should know, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

impl Description {
    /// Number of jobs; at most [`MAX_JOBS`].
    pub fn jobs(&self) -> u32 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.count))
    }
}

/// Jobs that differ in their numbers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Number of jobs, at least 1.
    pub count: u32,
    /// What each of them is.
    pub ad: JobAd,
}

/// What a job is. Relative paths count from `initialdir`, that of `executable` from the directory where
/// the description was submitted, and a relative `initialdir` from there too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobAd {
    /// Where the job may run.
    pub universe: Universe,
    /// Path of the program.
    pub executable: Template,
    /// Arguments after the program's name.
    pub arguments: Vec<Template>,
    /// Variables set for the job, each name once, in order; they win over those of `getenv`.
    pub environment: Vec<(String, Template)>,
    /// Variables taken over from the submitter's environment.
    pub getenv: GetEnv,
    /// Working directory.
    pub initialdir: Option<Template>,
    /// File for standard input; none means `/dev/null`.
    pub input: Option<Template>,
    /// File for standard output; none means `/dev/null`.
    pub output: Option<Template>,
    /// File for standard error; none means `/dev/null`. May equal `output`.
    pub error: Option<Template>,
    /// Job event log.
    pub log: Option<Template>,
    /// Processors, at least 1.
    pub request_cpus: u32,
    /// Memory in MiB, when asked for.
    pub request_memory_mb: Option<u64>,
    /// Scratch space in KiB, when asked for.
    pub request_disk_kb: Option<u64>,
    /// Whether files travel with the job.
    pub transfer: ShouldTransfer,
    /// Whether the program itself travels.
    pub transfer_executable: bool,
    /// Files and directories to bring; a trailing `/` means a directory's contents.
    pub transfer_input: Vec<Template>,
    /// Files and directories to fetch at the end; none means all that the job made, an empty list nothing.
    pub transfer_output: Option<Vec<Template>>,
    /// Name of the batch in listings.
    pub batch_name: Option<Template>,
    /// The user's own attributes (`+Name` or `MY.Name`), with the text of their ClassAd expressions, unchecked.
    pub attributes: Vec<(String, Template)>,
}

/// Where a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Universe {
    /// On any slot of the pool.
    Vanilla,
    /// On the submitting machine.
    Local,
}

/// Whether files travel with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShouldTransfer {
    /// Always.
    Yes,
    /// Never: job and submitter share a file system.
    No,
    /// Unless the node shares a file system with the submitter.
    IfNeeded,
}

/// Which of the submitter's variables a job gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetEnv {
    /// None.
    None,
    /// All.
    All,
    /// Those that no `!PATTERN` matches and some other pattern does; with `!PATTERN`s alone, all the
    /// rest. `*` stands for any text.
    Matching(Vec<String>),
}

impl GetEnv {
    /// Whether the job gets the variable `name`.
    pub fn selects(&self, name: &[u8]) -> bool {
        match self {
            GetEnv::None => false,
            GetEnv::All => true,
            GetEnv::Matching(patterns) => {
                let (mut wanted, mut refused, mut any) = (false, false, false);
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        Some(pattern) => refused |= matches(pattern.as_bytes(), name),
                        None => {
                            any = true;
                            wanted |= matches(pattern.as_bytes(), name);
                        }
                    }
                }
                !refused && (wanted || !any)
            }
        }
    }
}

/// `*` in `pattern` stands for any bytes. Linear in practice: only the last `*` is ever tried again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut retry) = (0, 0, None);
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(other) if other == byte => {
                p += 1;
                n += 1;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (p, n) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

/// What a description may depend on besides its text.
pub struct Context<'a> {
    /// Looks up a variable of the submitter's environment, for `$ENV(NAME)`.
    pub env: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// Commands and macros given beside the description (`submit NAME=VALUE FILE`); they win over it.
    pub overrides: &'a [(String, Vec<u8>)],
}

/// Reads a description.
///
/// `file_name` serves for messages and `$(SUBMIT_FILE)`.
///
/// # Errors
/// All that is wrong with the text (and its warnings), in its order; nothing of it may be submitted then.
pub fn parse(file_name: &str, text: &[u8], context: &Context<'_>) -> Result<Description, Vec<Diagnostic>> {
    let overrides = overrides_text(context.overrides);
    if text.len() > MAX_TEXT || overrides.len() > MAX_TEXT {
        let d = Source::new(file_name, b"").at(0, crate::Severity::Error, "description is too long");
        return Err(vec![d.expected(format!("at most {MAX_TEXT} bytes"))]);
    }
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let report = Report::new(Source::new(file_name, text), Source::new("command line", &overrides), end + 1);
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        let d = report.make_error(0, "this is UTF-16 text").expected("UTF-8");
        report.add(0, d.hint(format!("iconv -f UTF-16 -t UTF-8 {file_name} makes it readable")));
        return Err(report.finish().1);
    }
    let mut parser = Parser {
        macros: Macros::new(context, file_name),
        report: &report,
        groups: Vec::new(),
        names: Vec::new(),
        jobs: 0,
        queues: 0,
        since_queue: None,
        end,
    };
    for line in lines::logical(&overrides, end + 1) {
        parser.statement(&line, true);
    }
    parser.since_queue = None;
    let bom = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let body = text.get(bom..).unwrap_or_default();
    let mut skip_to: Option<Vec<u8>> = None;
    for line in lines::logical(body, u32::try_from(bom).unwrap_or(0)) {
        match &skip_to {
            Some(mark) if line.iter().map(|(b, _)| b).eq(mark) => skip_to = None,
            Some(_) => {}
            None => skip_to = parser.statement(&line, false),
        }
    }
    parser.finish();
    let groups = parser.groups;
    let (refused, findings) = report.finish();
    if refused { Err(findings) } else { Ok(Description { groups, warnings: findings }) }
}

/// The overrides as lines of a description, for their diagnostics to show. An override is one line: a
/// newline would start another, and a `\` at the end would swallow one, but for a second `\` and a blank line.
fn overrides_text(overrides: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in overrides {
        text.extend(name.bytes().filter(|b| *b != b'\n'));
        text.extend_from_slice(b" = ");
        text.extend(value.iter().map(|b| if *b == b'\n' { b' ' } else { *b }));
        if value.trim_ascii_end().ends_with(b"\\") {
            text.extend_from_slice(b"\\\n");
        }
        text.push(b'\n');
    }
    text
}

struct Parser<'r, 'a> {
    macros: Macros<'a>,
    report: &'r Report<'r>,
    groups: Vec<Group>,
    /// Every name defined, with its first place.
    names: Vec<(String, u32)>,
    jobs: u32,
    queues: u32,
    /// Place of the first definition since the last `queue` statement.
    since_queue: Option<u32>,
    end: u32,
}

impl Parser<'_, '_> {
    /// Takes in one logical line. Returns the line that ends a block of lines to pass over.
    fn statement(&mut self, line: &[Spot], fixed: bool) -> Option<Vec<u8>> {
        let (_, at) = line.first().copied()?;
        if let Some((_, nul)) = line.iter().find(|(b, _)| *b == 0) {
            self.report.error(*nul, "a NUL byte can't be part of a description");
            return None;
        }
        let plus = usize::from(line.first().is_some_and(|(b, _)| *b == b'+'));
        let letters = line.iter().skip(plus).take_while(|(b, _)| is_name_byte(*b)).count();
        let (name, rest) = line.split_at(plus + letters);
        let written = String::from_utf8_lossy(&bytes(name)).into_owned();
        let name = written.to_ascii_lowercase();
        let rest = trim(rest);
        match rest {
            [(b'=', _), (b'=', equals), ..] if letters > 0 => {
                let d = self.report.make_error(*equals, "`==` compares; a command is set with `=`");
                self.report.add(*equals, d.expected(format!("`{} = value`", show(written.as_bytes()))));
                None
            }
            [(b'=', _), value @ ..] if letters > 0 && name != "queue" => {
                self.definition(&written, at, trim(value), fixed);
                None
            }
            [(b'@', _), (b'=', _), tag @ ..] if letters > 0 => {
                self.report.error(at, "values of several lines (`@=`) are not supported yet");
                Some([b"@".as_slice(), &bytes(trim(tag))].concat())
            }
            _ if name == "queue" => self.queue(at, rest),
            _ => {
                self.stray(&name, at, rest);
                None
            }
        }
    }

    fn definition(&mut self, written: &str, at: u32, value: &[Spot], fixed: bool) {
        // `+Name` is short for `MY.Name`, and `$(MY.Name)` names either.
        let my = written.get(..3).filter(|prefix| prefix.eq_ignore_ascii_case("my."));
        let attribute = written.strip_prefix('+').or_else(|| written.get(my?.len()..));
        let (name, written) = match attribute {
            Some(attribute) => (format!("my.{}", attribute.to_ascii_lowercase()), attribute.to_owned()),
            None => (written.to_ascii_lowercase(), written.to_owned()),
        };
        if !self.macros.table.contains_key(&name) {
            self.names.push((name.clone(), at));
        }
        self.since_queue.get_or_insert(at);
        let definition = Definition { value: value.to_vec(), written, name_at: at, epoch: self.queues, fixed };
        self.macros.define(&name, definition, self.report);
    }

    /// A line that is neither a definition nor a `queue` statement.
    fn stray(&self, name: &str, at: u32, rest: &[Spot]) {
        let report = self.report;
        match name {
            "if" | "elif" | "else" | "endif" | "include" | "use" | "warning" => {
                return report.error(at, format!("`{name}` is not supported yet"));
            }
            "error" if matches!(rest, [(b':', _), ..]) => {
                return report.error(at, "`error :` is not supported yet");
            }
            _ => {}
        }
        let expected = "`command = value` or `queue`";
        let d = match rest.first() {
            _ if name.is_empty() => report.make_error(at, "line doesn't begin with a command").expected(expected),
            Some((b':', colon)) => {
                let d = report.make_error(*colon, format!("`{name}` is followed by a colon")).expected("`=`");
                return report.add(*colon, d);
            }
            Some((_, place)) => {
                let d = report.make_error(*place, format!("`{}` is followed by something else", show(name.as_bytes())));
                let d = d.expected("`=`");
                let d = match nearest(name, ["queue"]) {
                    Some(_) => d.hint("did you mean `queue`?"),
                    None => d,
                };
                return report.add(*place, d);
            }
            None => {
                let d = report.make_error(at, format!("`{}` stands alone", show(name.as_bytes()))).expected(expected);
                match nearest(name, ["queue"]) {
                    Some(_) => d.hint("did you mean `queue`?"),
                    None => d,
                }
            }
        };
        report.add(at, d);
    }

    /// `queue [COUNT]`. Returns the mark that ends an inline list of items, which isn't supported yet.
    fn queue(&mut self, at: u32, rest: &[Spot]) -> Option<Vec<u8>> {
        self.since_queue = None;
        let place = rest.first().map_or(at, |(_, place)| *place);
        let lower = bytes(rest).to_ascii_lowercase();
        let words = lower.split(|b| b.is_ascii_whitespace() || matches!(b, b'(' | b','));
        if let Some(word) = words.into_iter().find(|w| matches!(*w, b"in" | b"from" | b"matching")) {
            let word = String::from_utf8_lossy(word).into_owned();
            self.report.error(place, format!("`queue … {word} …` is not supported yet"));
            self.build(at, 1);
            let open = lower.contains(&b'(') && !lower.contains(&b')');
            return open.then(|| b")".to_vec());
        }
        let count = self.count(place, rest);
        // Even a bad count leaves the job to be checked, so that all errors come at once.
        self.build(at, count.unwrap_or(1));
        None
    }

    fn count(&mut self, place: u32, rest: &[Spot]) -> Option<u32> {
        let report = self.report;
        if rest.first().is_some_and(|(b, _)| *b == b'=') {
            let d = report.make_error(place, "`queue` takes no `=`").expected("`queue` or `queue COUNT`");
            report.add(place, d);
            return None;
        }
        let expanded = self.macros.expand(rest, self.jobs, report).ok()?;
        let text: Option<Vec<u8>> = macros::trim(&expanded)
            .iter()
            .map(|(atom, _)| if let Atom::Byte(b) = atom { Some(*b) } else { None })
            .collect();
        let Some(text) = text else {
            report.error(place, "the number of jobs can't depend on `$(Cluster)` or `$(Process)`");
            return None;
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let bad = |message: String| report.make_error(place, message).expected("a number of jobs");
        let number = text.strip_prefix('+').unwrap_or(&text);
        if text.is_empty() {
            Some(1)
        } else if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() {
            let count = number.parse::<u32>().ok().filter(|n| *n <= MAX_JOBS);
            if count.is_none() {
                let d = report.make_error(place, format!("`queue {}` is too much", show(text.as_bytes())));
                report.add(place, d.expected(format!("at most {MAX_JOBS} jobs in one cluster")));
            }
            if count == Some(0) {
                report.warn(place, "`queue 0` submits no job");
            }
            count
        } else if text.starts_with('-') && text.get(1..).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            report.add(place, bad("the number of jobs is negative".to_owned()));
            None
        } else if text.contains('#') {
            let d = bad("text after the number of jobs".to_owned());
            report.add(place, d.hint("a comment needs a line of its own"));
            None
        } else if text.bytes().any(|b| b.is_ascii_digit()) {
            report.add(
                place,
                bad(format!("`{}` is no number (expressions are not supported yet)", show(text.as_bytes()))),
            );
            None
        } else {
            report.add(place, bad(format!("`{}` is no number", show(text.as_bytes()))));
            None
        }
    }

    /// Makes the job ad of what is in force at the `queue` statement `at`, for `count` jobs.
    fn build(&mut self, at: u32, count: u32) {
        self.queues = self.queues.saturating_add(1);
        let ad = ad::build(&self.macros, self.jobs, at, self.report);
        let Some(jobs) = self.jobs.checked_add(count).filter(|n| *n <= MAX_JOBS) else {
            return self.report.error(at, format!("more than {MAX_JOBS} jobs in one cluster"));
        };
        if self.groups.len() >= MAX_QUEUES {
            return self.report.error(at, format!("more than {MAX_QUEUES} `queue` statements"));
        }
        self.jobs = jobs;
        if let Some(ad) = ad
            && count > 0
        {
            self.groups.push(Group { count, ad });
        }
    }

    /// What can only be told at the end of the text.
    fn finish(&mut self) {
        let report = self.report;
        if self.queues == 0 {
            let d = report.make_error(self.end, "description submits nothing").expected("a `queue` statement");
            report.add(self.end, d.hint("`queue` alone submits one job, `queue 100` a hundred"));
            ad::build(&self.macros, 0, self.end, report);
        } else if self.jobs == 0 {
            report.error(self.end, "description submits no job: every `queue` statement counts 0");
        } else if let Some(at) = self.since_queue {
            report.warn(at, "commands after the last `queue` statement have no effect");
        }
        for (name, at) in &self.names {
            let used = self.macros.mentioned.contains(name) || commands::find(name).is_some();
            if used || name.starts_with("my.") || ad::is_resource(name) {
                continue;
            }
            let d = report
                .make_warning(*at, format!("`{}` is no command, and no value refers to it", show(name.as_bytes())));
            report.add(
                *at,
                match nearest(name, commands::names()) {
                    Some(near) => d.hint(format!("did you mean `{near}`?")),
                    None => d.hint("it has no effect; if it is meant to, look at vo-submit-file(5)"),
                },
            );
        }
    }
}
