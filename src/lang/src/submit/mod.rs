//! Submit descriptions, in HTCondor's form (condor_submit(1)).
//!
//! [`parse`] reads a description into one [`Group`] of jobs for each `queue` statement. What would
//! change a job's results and isn't supported is an error; what is merely not acted on is a warning.
//!
//! Known differences from condor_submit (checked against 24.12 and 25.14):
//! - A description without `queue`, or one whose counts are all 0, is an error; condor_submit submits one job.
//! - Macros that refer to each other in a ring are an error; condor_submit never ends.
//! - `request_disk`, as an expression, has the value for good that it has at submission.
//! - `==` for `=`, a boolean that is neither true nor false, an unknown `when_to_transfer_output`, and
//!   typographic quotes at the start of a value are errors; condor_submit passes over them or takes them
//!   literally.
//! - A byte-order mark is passed over.

mod ad;
mod commands;
mod described;
mod functions;
mod lines;
mod machine;
mod macros;
mod parser;
mod queue;
mod report;
mod scene;
mod template;
#[cfg(test)]
mod tests;
mod words;

pub use described::{Facts, quoted, scheme};
pub use machine::fill_in;
pub use queue::Kind;
pub use vo_core::Template;

use vo_core::items::Members;

use crate::Diagnostic;
use crate::diagnostic::Source;
use report::Report;

/// Most jobs in one cluster.
pub const MAX_JOBS: u32 = 10_000_000;
/// Longest description, in bytes.
pub const MAX_TEXT: usize = 64 << 20;
/// Most groups of jobs: each has a job ad of its own in memory.
const MAX_GROUPS: usize = 100_000;

/// A description, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// One for each `queue` statement, or several that share its processes, in order; processes are numbered on through the cluster.
    pub groups: Vec<Group>,
    /// Items of all `queue` statements that have any.
    pub items: u32,
    /// What the author should know, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

impl Description {
    /// Number of jobs; at most [`MAX_JOBS`].
    pub fn jobs(&self) -> u32 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.count()))
    }
}

/// Jobs that differ in their numbers and their items alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Which processes of the cluster they are, at least one, with their items as far as the ad refers to them.
    pub members: Members,
    /// What each of them is; its templates name the columns of the members' table.
    pub ad: JobAd,
}

impl Group {
    /// Number of jobs, at least 1.
    pub fn count(&self) -> u32 {
        self.members.count()
    }
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
    /// Were the arguments written in the old syntax?
    pub old_arguments: bool,
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
    /// GPUs, when asked for.
    pub request_gpus: Option<u32>,
    /// Those of these requests that are expressions, as they are written, by attribute.
    pub request_texts: Vec<(&'static str, String)>,
    /// Further resources by name (`request_NAME`), with the text of the expressions that say how much.
    pub resources: Vec<(String, String)>,
    /// How much that is at submission, of those that have a number then.
    pub counted: Vec<(String, u32)>,
    /// Requests that are to be asked again after each attempt, by attribute: expressions that refer to other attributes, and, as
    /// `RetryRequestMemory` and `RetryRequestDisk`, lists of what a job asks for in turn that took more than it asked for.
    pub requests: Vec<(String, String)>,
    /// Which machines suit, a ClassAd expression, without what the rest of the ad demands; see [`JobAd::demands`].
    pub requirements: Option<String>,
    /// Which of them suit better, a ClassAd expression.
    pub rank: Option<String>,
    /// Jobs of the cluster that may be out at once, if not all.
    pub at_once: Option<u32>,
    /// Jobs of a higher one go first.
    pub priority: i32,
    /// Whose share of the pool the job takes.
    pub accounting_group: Option<String>,
    /// Who of that group.
    pub accounting_user: Option<String>,
    /// Image of a container to run in: of a registry (`docker://…`), a `.sif` file or a directory.
    pub container_image: Option<Template>,
    /// The same as `docker_image` names it, if that does.
    pub docker_image: Option<Template>,
    /// Attributes that the ad lacks, as they are set to `undefined`.
    pub without: Vec<&'static str>,
    /// Whether files travel with the job.
    pub transfer: ShouldTransfer,
    /// When outputs come back.
    pub when_to_transfer: WhenToTransfer,
    /// Whether the program itself travels.
    pub transfer_executable: bool,
    /// Files and directories to bring; a trailing `/` means a directory's contents.
    pub transfer_input: Vec<Template>,
    /// Files and directories to fetch at the end; none means all that the job made, an empty list nothing.
    pub transfer_output: Option<Vec<Template>>,
    /// Files and directories that make a checkpoint of the job's own; none means its outputs.
    pub transfer_checkpoint: Option<Vec<Template>>,
    /// Where outputs go that don't go where their names say: name in the job's directory, and name at home.
    pub transfer_remaps: Vec<(Template, Template)>,
    /// The URL below which outputs go, but for standard output and error; if it is set, no remap counts.
    pub destination: Option<Template>,
    /// Name of the batch in listings.
    pub batch_name: Option<Template>,
    /// What the other commands make of HTCondor's job ad: attributes and their values.
    pub settings: Vec<(&'static str, Setting)>,
    /// The user's own attributes (`+Name` or `MY.Name`), with the text of their ClassAd expressions.
    pub attributes: Vec<(String, Template)>,
}

/// The value of an attribute that a command sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A string.
    Text(Template),
    /// A path, seen from the job's directory.
    Path(Template),
    /// A ClassAd expression.
    Expression(String),
}

/// When outputs come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenToTransfer {
    /// When the program has ended by itself.
    OnExit,
    /// Also when it was interrupted.
    OnExitOrEvict,
    /// When it has ended well.
    OnSuccess,
}

impl JobAd {
    /// Which machines suit: the requirements, and what is asked for of [resources](JobAd::resources). A ClassAd expression.
    pub fn demands(&self) -> Option<String> {
        let mut clauses: Vec<String> = self.requirements.iter().map(|text| format!("({text})")).collect();
        clauses.extend(self.resources.iter().filter_map(|(name, amount)| {
            described::demand(name, amount).map(|demand| match demand {
                described::Demand::AtLeast => format!("(TARGET.{name} >= Request{name})"),
                described::Demand::Like => format!("regexp(Request{name}, TARGET.{name})"),
            })
        }));
        let picky = self.settings.iter().any(|(name, _)| *name == "RequireGPUs");
        if picky && self.request_gpus.is_some_and(|gpus| gpus > 0) {
            clauses.push(described::GPUS_LIKE_THAT.to_owned());
        }
        match clauses.as_slice() {
            [] => None,
            [_] if self.requirements.is_some() => self.requirements.clone(),
            _ => Some(clauses.join(" && ")),
        }
    }

    /// Hands out every template, to change.
    fn each_template(&mut self, change: &mut dyn FnMut(&mut Template)) {
        change(&mut self.executable);
        self.arguments.iter_mut().for_each(&mut *change);
        self.environment.iter_mut().for_each(|(_, value)| change(value));
        let options = [&mut self.initialdir, &mut self.input, &mut self.output, &mut self.error, &mut self.log];
        options
            .into_iter()
            .chain([&mut self.batch_name, &mut self.container_image, &mut self.docker_image, &mut self.destination])
            .flatten()
            .for_each(&mut *change);
        self.transfer_remaps.iter_mut().for_each(|(from, to)| {
            change(from);
            change(to);
        });
        for (_, setting) in &mut self.settings {
            if let Setting::Text(text) | Setting::Path(text) = setting {
                change(text);
            }
        }
        self.transfer_input.iter_mut().for_each(&mut *change);
        [&mut self.transfer_output, &mut self.transfer_checkpoint]
            .into_iter()
            .flat_map(|files| files.iter_mut().flatten())
            .for_each(&mut *change);
        self.attributes.iter_mut().for_each(|(_, value)| change(value));
    }
}

/// Where a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Universe {
    /// On any slot of the pool.
    Vanilla,
    /// On the submitting machine, as soon as it may.
    Local,
    /// On the submitting machine, at once.
    Scheduler,
    /// On any slot of the pool, in a container.
    Container,
    /// The same, as it was called before.
    Docker,
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

/// `*` in `pattern` stands for any bytes, and letters for either case. Linear in practice: only the last `*` is ever tried again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut retry) = (0, 0, None);
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(other) if other.eq_ignore_ascii_case(byte) => {
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

/// What a description may ask of the world around it. Nothing else of it opens a file or runs a command.
pub trait World {
    /// A variable of the submitter's environment, for `$ENV(NAME)`.
    fn variable(&self, name: &str) -> Option<Vec<u8>>;

    /// A file's content, for `include` and `queue … from`; `-` is standard input. Relative names count from where the description is
    /// submitted.
    ///
    /// # Errors
    /// Why it can't be read, in one line.
    fn file(&self, name: &[u8]) -> Result<Vec<u8>, String>;

    /// What a command writes to standard output, for `include command` and `queue … from COMMAND |`.
    ///
    /// # Errors
    /// Why it failed, in one line.
    fn output(&self, command: &[u8]) -> Result<Vec<u8>, String>;

    /// Writes a file that isn't there, for `include command into FILE`.
    ///
    /// # Errors
    /// Why it can't be written, in one line.
    fn keep(&self, file: &[u8], text: &[u8]) -> Result<(), String>;

    /// The names that a pattern matches, in order, for `queue … matching`.
    ///
    /// # Errors
    /// Why it can't be told, in one line.
    fn matching(&self, pattern: &[u8], kind: Kind) -> Result<Vec<Vec<u8>>, String>;

    /// A random number, for `$RANDOM_INTEGER` and `$RANDOM_CHOICE`.
    fn random(&self) -> u64;
}

/// What a description may depend on besides its text.
pub struct Context<'a> {
    /// The world around it.
    pub world: &'a dyn World,
    /// Commands and macros given beside the description (`submit NAME=VALUE FILE`); they win over it.
    pub overrides: &'a [(String, Vec<u8>)],
    /// Macros that are there without a definition (`SUBMIT_TIME`, `YEAR`, `ARCH`, …); the description wins over them.
    pub predefined: &'a [(String, Vec<u8>)],
    /// The directory where it is submitted, absolute: relative paths of `executable` and `initialdir` count from it.
    pub here: &'a [u8],
    /// Is nothing to be submitted, only shown? Then commands that are not supported are no errors.
    pub only_show: bool,
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
        let d = Source::new(file_name, b"".as_slice()).at(0, crate::Severity::Error, "description is too long");
        return Err(vec![d.expected(format!("at most {MAX_TEXT} bytes"))]);
    }
    let report = Report::new(Source::new(file_name, text));
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        let d = report.make_error(0, "this is UTF-16 text").expected("UTF-8");
        report.add(0, d.hint(format!("iconv -f UTF-16 -t UTF-8 {file_name} makes it readable")));
        return Err(report.finish().1);
    }
    let (groups, items) = parser::run(file_name, text, &overrides, context, &report);
    let (refused, findings) = report.finish();
    if refused { Err(findings) } else { Ok(Description { groups, items, warnings: findings }) }
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
