//! What a job is and how a try to run it ended: shared by the master, the starters and the journal.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::ids::{AttemptId, JobId};
use crate::items::Row;
use crate::template::Template;

/// When files travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Transfer {
    /// Where the node doesn't see the job's directory.
    #[default]
    #[n(0)]
    IfNeeded,
    /// Always: the job runs in a scratch directory.
    #[n(1)]
    Yes,
    /// Never: the job runs in its own directory, and only on nodes that see it.
    #[n(2)]
    No,
}

/// What to run: one for each `queue` statement, the same for all of its jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Program {
    /// Path as the user gave it, relative to `initialdir`.
    #[n(0)]
    pub executable: Template,
    /// Arguments, without the program's name.
    #[n(1)]
    pub arguments: Vec<Template>,
    /// Variables set for the job, over those that the starter gives.
    #[n(2)]
    pub environment: Vec<(Template, Template)>,
    /// Absolute directory on the workstation in which relative names of the job are found.
    #[n(3)]
    pub initialdir: Template,
    /// Standard input; none is `/dev/null`.
    #[n(4)]
    pub input: Option<Template>,
    /// Where standard output goes; none is `/dev/null`.
    #[n(5)]
    pub output: Option<Template>,
    /// Where standard error goes; the same name as `output` means the same file.
    #[n(6)]
    pub error: Option<Template>,
    /// Files that travel with the job.
    #[n(7)]
    pub transfer_input: Vec<Template>,
    /// Files that come back; none means every new or changed file at the top of the scratch directory.
    #[n(8)]
    pub transfer_output: Option<Vec<Template>>,
    /// When files travel.
    #[n(9)]
    pub transfer: Transfer,
    /// Whether the executable travels too; if not, it is a path on the node.
    #[n(10)]
    pub transfer_executable: bool,
    /// CPUs that a job of this program occupies, from 1.
    #[n(11)]
    pub cpus: u32,
    /// Memory that it occupies; none is a share of the node's by its CPUs.
    #[n(12)]
    pub memory_mb: Option<u64>,
    /// GPUs that it occupies.
    #[cbor(n(13), default)]
    pub gpus: u32,
    /// Outputs that come back under other names: the name in the scratch directory, and where it goes, seen from `initialdir`.
    #[cbor(n(14), default)]
    pub transfer_remaps: Vec<(Template, Template)>,
    /// Do files keep the directories of their names, on their way to the node and back? If not, they lose them.
    #[cbor(n(15), default)]
    pub keep_paths: bool,
    /// Do outputs but standard output and error come back only when the program succeeds?
    #[cbor(n(16), default)]
    pub only_success: bool,
    /// The image of the container that it runs in: `docker://…`, or a path of the node.
    #[n(17)]
    pub container: Option<Template>,
    /// The exit code of success.
    #[cbor(n(18), default)]
    pub success: u8,
    /// How its tries are killed.
    #[cbor(n(19), default)]
    pub killing: Killing,
    /// What it occupies of the site's own resources.
    #[cbor(n(20), default)]
    pub resources: Vec<(String, u32)>,
    /// How it checkpoints itself, if it does.
    #[n(21)]
    pub checkpoint: Option<Checkpoint>,
    /// Does its next try get what an interrupted one leaves? One that checkpoints itself gets its checkpoints alone.
    #[cbor(n(22), default)]
    pub keep_evicted: bool,
    /// Does that go on with standard output and error, where the interrupted one ended?
    #[cbor(n(23), default)]
    pub append: bool,
    /// When standard output comes home from a scratch directory.
    #[cbor(n(24), default)]
    pub output_comes: Comes,
    /// When standard error does.
    #[cbor(n(25), default)]
    pub error_comes: Comes,
    /// Permissions that files get neither from it nor for what it prints, as umask(2) has them; 022 if nothing is said.
    #[n(26)]
    pub umask: Option<u16>,
    /// Largest core file, in bytes; none is the node's word.
    #[n(27)]
    pub core_bytes: Option<u64>,
    /// Most bytes that its files may have together on their way to a node.
    #[n(28)]
    pub most_in: Option<u64>,
    /// And on their way back.
    #[n(29)]
    pub most_out: Option<u64>,
    /// The URL below which the node itself sends its outputs, but for standard output and error; none of them comes home then.
    #[n(30)]
    pub destination: Option<Template>,
    /// Is its standard input a file of the node's, seen from its scratch directory?
    #[cbor(n(31), default)]
    pub input_there: bool,
}

/// When what a job prints comes home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Comes {
    /// When it ends.
    #[default]
    #[n(0)]
    AtEnd,
    /// While it runs, and whole when it ends.
    #[n(1)]
    Live,
    /// Not at all.
    #[n(2)]
    Never,
}

/// How a program checkpoints itself: it ends in a certain way, and is started again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint {
    /// How it ends then: an exit code, or a signal.
    #[n(0)]
    pub end: CheckpointEnd,
    /// The files that make a checkpoint; none means those that would come back if it had ended for good.
    #[n(1)]
    pub files: Option<Vec<Template>>,
}

/// See [`Checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CheckpointEnd {
    /// It exits with this code.
    #[n(0)]
    Exit(#[n(0)] u8),
    /// This signal ends it.
    #[n(1)]
    Signal(#[n(0)] u8),
}

impl CheckpointEnd {
    /// Did a program that ended so only end to be started again?
    pub fn is(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (CheckpointEnd::Exit(code), Outcome::Exited(ended)) => code == *ended,
            (CheckpointEnd::Signal(signal), Outcome::Signaled(ended)) => signal == *ended,
            _ => false,
        }
    }
}

/// How a try is killed. Signals are numbers; 0 is SIGTERM, which all of its processes get, while others go to the program alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Killing {
    /// What it gets first when it is to run again, or its node is lost to it.
    #[n(0)]
    pub signal: u8,
    /// When its job is removed.
    #[n(1)]
    pub remove: u8,
    /// When its job is held.
    #[n(2)]
    pub hold: u8,
    /// Seconds until SIGKILL when it is to run again.
    #[n(3)]
    pub vacate_s: Option<u32>,
    /// When its job is removed or held.
    #[n(4)]
    pub remove_s: Option<u32>,
}

/// The kinds of URLs from and to which curl brings files.
pub const BY_CURL: [&str; 4] = ["file", "ftp", "http", "https"];

/// And those for pelican or stashcp.
pub const BY_PELICAN: [&str; 3] = ["osdf", "pelican", "stash"];

/// Is this the name of something elsewhere: `scheme://…`?
pub fn is_url(name: &[u8]) -> bool {
    let scheme = name.iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count();
    scheme > 1 && name.get(scheme..).is_some_and(|rest| rest.starts_with(b"://"))
}

impl Program {
    /// The program of one job: with the cells of its row in their places. The same where there is no row.
    pub fn filled(self: &Arc<Self>, row: &Row) -> Arc<Program> {
        if row.is_empty() {
            return self.clone();
        }
        let all = |list: &[Template]| Template::fill_list(list, row);
        // A name that is empty for this job is no name.
        let optional = |template: &Option<Template>| {
            template.as_ref().map(|template| template.fill(row)).filter(|template| !template.0.is_empty())
        };
        Arc::new(Program {
            executable: self.executable.fill(row),
            arguments: all(&self.arguments),
            environment: self.environment.iter().map(|(name, value)| (name.fill(row), value.fill(row))).collect(),
            initialdir: self.initialdir.fill(row),
            input: optional(&self.input),
            output: optional(&self.output),
            error: optional(&self.error),
            transfer_input: all(&self.transfer_input),
            transfer_output: self.transfer_output.as_deref().map(all),
            transfer_remaps: self.transfer_remaps.iter().map(|(from, to)| (from.fill(row), to.fill(row))).collect(),
            container: optional(&self.container),
            destination: optional(&self.destination),
            resources: self.resources.clone(),
            checkpoint: self
                .checkpoint
                .as_ref()
                .map(|checkpoint| Checkpoint { files: checkpoint.files.as_deref().map(all), ..*checkpoint }),
            ..**self
        })
    }
}

impl Program {
    /// When an output comes home.
    pub fn comes(&self, kind: &OutputKind) -> Comes {
        match kind {
            OutputKind::Stdout => self.output_comes,
            OutputKind::Stderr => self.error_comes,
            OutputKind::File(_) => Comes::AtEnd,
        }
    }

    /// The URL to which the node itself sends an output, if that doesn't come home.
    pub fn url(&self, job: JobId, kind: &OutputKind) -> Option<Vec<u8>> {
        let stream = |name: &Option<Template>| name.as_ref().map(|name| name.expand(job));
        let below = |mut url: Vec<u8>, name: &[u8]| {
            if !name.is_empty() && url.last() != Some(&b'/') {
                url.push(b'/');
            }
            url.extend_from_slice(name);
            url
        };
        let url = match kind {
            OutputKind::Stdout => stream(&self.output),
            OutputKind::Stderr => stream(&self.error),
            // As HTCondor has it, a destination for all of them leaves nothing of their remaps.
            OutputKind::File(name) if self.destination.is_some() => {
                return stream(&self.destination).map(|url| below(url, name));
            }
            OutputKind::File(name) => self.transfer_remaps.iter().find_map(|(from, to)| {
                let from = from.expand(job);
                let from = from.strip_prefix(b"./").unwrap_or(&from);
                let from = from.strip_suffix(b"/").unwrap_or(from);
                let rest = name.strip_prefix(from)?;
                let inner = if rest.is_empty() { rest } else { rest.strip_prefix(b"/")? };
                Some(below(to.expand(job), inner))
            }),
        };
        url.filter(|url| is_url(url))
    }

    /// The same with what the machine that runs its jobs says of itself, where it asks for that.
    ///
    /// # Errors
    /// Those of `machine`.
    pub fn on_machine<E>(
        self: &Arc<Self>,
        machine: &mut impl FnMut(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Arc<Program>, E> {
        if !self.asks_machine() {
            return Ok(self.clone());
        }
        let mut program = Program::clone(self);
        for template in program.for_machines() {
            *template = template.fill_in(machine)?;
        }
        Ok(Arc::new(program))
    }

    /// Does it ask for anything of the machine that runs its jobs?
    pub fn asks_machine(&self) -> bool {
        let lists =
            self.arguments.iter().chain(&self.transfer_input).chain(self.environment.iter().map(|(_, value)| value));
        lists.chain([&self.executable]).chain(&self.input).chain(&self.container).any(Template::asks_machine)
    }

    /// What the machine may fill in.
    fn for_machines(&mut self) -> impl Iterator<Item = &mut Template> {
        let values = self.environment.iter_mut().map(|(_, value)| value);
        let lists = self.arguments.iter_mut().chain(&mut self.transfer_input).chain(values);
        lists.chain([&mut self.executable]).chain(&mut self.input).chain(&mut self.container)
    }

    /// Hands out every template, to change.
    pub fn each_template(&mut self, change: &mut dyn FnMut(&mut Template)) {
        self.arguments.iter_mut().chain(&mut self.transfer_input).for_each(&mut *change);
        let checkpoint = self.checkpoint.iter_mut().filter_map(|checkpoint| checkpoint.files.as_mut());
        self.transfer_output.iter_mut().chain(checkpoint).flatten().for_each(&mut *change);
        [&mut self.executable, &mut self.initialdir].into_iter().for_each(&mut *change);
        let options = [&mut self.input, &mut self.output, &mut self.error, &mut self.container, &mut self.destination];
        options.into_iter().flatten().for_each(&mut *change);
        let pairs = self.environment.iter_mut().chain(&mut self.transfer_remaps);
        pairs.for_each(|(name, value)| {
            change(name);
            change(value);
        });
    }
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The program ended with this code.
    #[n(0)]
    Exited(#[n(0)] u8),
    /// A signal ended it.
    #[n(1)]
    Signaled(#[n(0)] u8),
    /// It could not be started, and would not start anywhere: the user's to mend.
    #[n(2)]
    Unrunnable(#[n(0)] String),
    /// The site failed it: to be tried again without touching the user's count.
    #[n(3)]
    SiteFailed(#[n(0)] String),
    /// We killed it, as asked.
    #[n(4)]
    Killed,
    /// The node doesn't see the job's directory after all: to be sent again, with its files.
    #[n(5)]
    NeedsFiles,
    /// The proxy ended under it: preempted, out of walltime, removed. The site's doing, but not the node's fault.
    #[n(6)]
    Evicted(#[n(0)] String),
    /// Its time to start was over when it could have.
    #[n(7)]
    Missed,
    /// The kernel killed it, since it took more memory than it may have.
    #[n(8)]
    OutOfMemory(#[n(0)] String),
    /// It ended, but an output that it was to leave isn't there, or could not be sent to its URL: the user's to mend.
    #[n(9)]
    OutputFailed(#[n(0)] String),
}

impl Outcome {
    /// Did the program run to an end of its own?
    pub fn is_final(&self) -> bool {
        matches!(self, Outcome::Exited(_) | Outcome::Signaled(_))
    }

    /// Did it run, or might have, without coming to count? Then the end of what it wrote is kept for the user to see.
    pub fn is_cut_off(&self) -> bool {
        !self.is_final() && !matches!(self, Outcome::NeedsFiles | Outcome::Missed)
    }
}

/// Which of a job's outputs a file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum OutputKind {
    /// What the program wrote to standard output.
    #[n(0)]
    Stdout,
    /// What it wrote to standard error.
    #[n(1)]
    Stderr,
    /// A file of its scratch directory, by its name there.
    #[n(2)]
    File(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// The mode of an output that is a directory with nothing in it, but for its permissions.
pub const DIRECTORY: u32 = 0o040_000;

/// A file that a job left, to come back to the workstation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Output {
    /// Which one.
    #[n(0)]
    pub kind: OutputKind,
    /// Bytes.
    #[n(1)]
    pub size: u64,
    /// SHA-256.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Permission bits; and [`DIRECTORY`].
    #[n(3)]
    pub mode: u32,
    /// The content, if it is small.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub inline: Option<Vec<u8>>,
}

/// What a try used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Usage {
    /// From start to end, in milliseconds.
    #[n(0)]
    pub wall_ms: u64,
    /// User and system time of the whole tree that was waited for, in milliseconds.
    #[n(1)]
    pub cpu_ms: u64,
    /// Largest resident set in KiB: of the whole tree when it was measured, or of a process of it.
    #[n(2)]
    pub peak_kib: u64,
    /// System time of that, in milliseconds.
    #[cbor(n(3), default)]
    pub system_ms: u64,
    /// Of outputs that came home.
    #[cbor(n(4), default)]
    pub sent_bytes: u64,
    /// Largest space that its scratch directory took, in KiB, as far as it was measured.
    #[cbor(n(5), default)]
    pub disk_kib: u64,
    /// Of input files that were brought to it.
    #[cbor(n(6), default)]
    pub received_bytes: u64,
}

/// The end of a try, as a starter reports it until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AttemptResult {
    /// Which try.
    #[n(0)]
    pub id: AttemptId,
    /// How it ended.
    #[n(1)]
    pub outcome: Outcome,
    /// What it used.
    #[n(2)]
    pub usage: Usage,
    /// What comes back; empty where the job wrote in place. If the outcome [is cut off](Outcome::is_cut_off): the ends of standard output
    /// and error, within the result.
    #[n(3)]
    pub outputs: Vec<Output>,
    /// If the outcome is cut off: what the next try gets, unless it is with the master already.
    #[n(4)]
    pub kept: Option<Kept>,
}

/// Files that a try leaves to the next one of its job. Standard output and error among them are whole, and written on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// Counts what the try left, from 1: the highest of the last try that left anything counts.
    #[n(0)]
    pub number: u32,
    /// The files.
    #[n(1)]
    pub outputs: Vec<Output>,
}
