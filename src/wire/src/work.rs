//! Master and starter, relayed by the event agent, which reads only the route. Kinds `0x03..`.
//!
//! Whenever the way to the master opens, the starter says what it holds ([`Inventory`]) and sends again every result that was not
//! acknowledged. So nothing between the two needs to be reliable: a lost assignment shows as an attempt missing from the inventory,
//! a late one by the inventory that it names, a lost result is repeated, a repeated one is known by its attempt id.

use core::time::Duration;

use minicbor::{Decode, Encode};
use vo_core::ids::AttemptId;
use vo_core::items::Row;
use vo_core::job::{AttemptResult, Kept, OutputKind, Program, Usage};
use vo_core::template::Template;

use crate::frame::kinds;

/// Largest piece of a file in one frame.
pub const CHUNK: usize = 256 << 10;

/// Bytes of one file under way unacknowledged.
pub const WINDOW: u64 = 1 << 20;

/// A program that attempts will name, by its number; sent to a starter before its first use there, and again after each
/// [`Inventory`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DefineProgram {
    /// The number, unique in the session.
    #[n(0)]
    pub program: u64,
    /// What to run.
    #[n(1)]
    pub body: Program,
    /// CPUs of the node that a job of it leaves to nobody else, since what it needs besides is bound to them; 0 is what it asks for.
    #[cbor(n(2), default)]
    pub load: u32,
    /// The ads of its jobs in the old syntax, an attribute a line, for jobs to read. Cells stand within strings.
    #[cbor(n(3), default)]
    pub ad: Template,
    /// More lines of them, where cells are parts of expressions.
    #[cbor(n(4), default)]
    pub own: Template,
}

/// What the starter's slots are in the words of their ad, for jobs to read; sent before the programs that it is told of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlotAd {
    /// The ad in the old syntax, an attribute a line.
    #[n(0)]
    pub text: String,
}

/// Tries to run, in the order in which they should start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Assign {
    /// The tries.
    #[n(0)]
    pub attempts: Vec<Assignment>,
    /// The number of the last [`Inventory`] that the master had when it gave them. A starter ignores an assignment that was overtaken
    /// by a newer inventory: the master misses the tries there, and has given them elsewhere.
    #[n(1)]
    pub inventory: u64,
}

/// One try to run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Assignment {
    /// Which.
    #[n(0)]
    pub id: AttemptId,
    /// What to run.
    #[n(1)]
    pub program: u64,
    /// The files to bring, if the try runs in a scratch directory; none if it runs in the job's own directory.
    #[n(2)]
    pub files: Option<Vec<FileRef>>,
    /// For a node that shares the marker's file system: the inode number of the job's directory, if it is on that file system.
    /// A starter that doesn't find it there answers [`vo_core::job::Outcome::NeedsFiles`].
    #[n(3)]
    pub directory: Option<u64>,
    /// What the program takes from the job's row.
    #[cbor(n(4), default)]
    pub row: Row,
    /// When its program may start; none is at once.
    #[n(5)]
    pub wait: Option<Wait>,
}

/// When a program may start, in milliseconds from the moment when that is sent: no two clocks are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wait {
    /// It starts after so long.
    #[n(0)]
    pub start_ms: u64,
    /// It doesn't start after so long: [`vo_core::job::Outcome::Missed`].
    #[n(1)]
    pub most_ms: u64,
}

impl Wait {
    /// The same, counted from so long before.
    pub fn since(self, before: Duration) -> Wait {
        let before = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        Wait { start_ms: self.start_ms.saturating_add(before), most_ms: self.most_ms.saturating_add(before) }
    }

    /// The same, so long after; none if that is too late.
    pub fn after(self, passed: Duration) -> Option<Wait> {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let most_ms = self.most_ms.checked_sub(passed)?;
        Some(Wait { start_ms: self.start_ms.saturating_sub(passed), most_ms })
    }
}

/// What a file is to a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FileRole {
    /// The program itself.
    #[n(0)]
    Executable,
    /// Standard input.
    #[n(1)]
    Stdin,
    /// A file of the scratch directory, by its name there: relative, without `..`.
    #[n(2)]
    Input(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A file that an earlier try left, over any input of that name; standard output and error are written on.
    #[n(3)]
    Kept(#[n(0)] OutputKind),
}

/// A file that travels to the node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FileRef {
    /// What it is to the job.
    #[n(0)]
    pub role: FileRole,
    /// SHA-256 of its content.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Bytes.
    #[n(2)]
    pub size: u64,
    /// Permission bits.
    #[n(3)]
    pub mode: u32,
}

/// What happened since the last report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// Tries that started.
    #[n(0)]
    pub started: Vec<AttemptId>,
    /// Tries that ended. Each is repeated, after a lost connection, until it is acknowledged.
    #[n(1)]
    pub results: Vec<AttemptResult>,
    /// Queued tries given back, as asked with [`Recall`] or because the starter ends.
    #[n(2)]
    pub returned: Vec<AttemptId>,
    /// Input files that came, or are on their way. Told once: lost with the connection, it is not repeated.
    #[cbor(n(3), default)]
    pub moved: Vec<Moved>,
}

/// Input files of a try, on their way to its scratch directory. In milliseconds before this was sent: no two clocks are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Moved {
    /// Which.
    #[n(0)]
    pub id: AttemptId,
    /// They began to come; none if that was told before.
    #[n(1)]
    pub began_ms: Option<u64>,
    /// All were there.
    #[n(2)]
    pub came_ms: Option<u64>,
}

/// These results are durable and their outputs are at home: the starter forgets them and removes their files.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Acknowledge {
    /// Which.
    #[n(0)]
    pub ids: Vec<AttemptId>,
}

/// Give back up to this many tries that have not started, the last first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recall {
    /// How many.
    #[n(0)]
    pub count: u32,
    /// As in [`Assign`].
    #[n(1)]
    pub inventory: u64,
}

/// Kill these tries, whole trees: SIGTERM, or the program alone by another signal, then SIGKILL. Queued ones are dropped. Each is answered by a result or by `returned`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kill {
    /// Which.
    #[n(0)]
    pub ids: Vec<AttemptId>,
    /// Between the two signals.
    #[n(1)]
    pub grace_ms: u64,
    /// The first of them; 0 is what their program has for it.
    #[cbor(n(2), default)]
    pub signal: u8,
}

/// All that a starter holds, said whenever the way to the master opens; results follow in [`Report`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Inventory {
    /// Not started.
    #[n(0)]
    pub queued: Vec<AttemptId>,
    /// Running.
    #[n(1)]
    pub running: Vec<AttemptId>,
    /// Ended, not acknowledged.
    #[n(2)]
    pub finished: Vec<AttemptId>,
    /// Counts the starter's inventories, from 1.
    #[n(3)]
    pub number: u64,
}

/// Send a piece of an output.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchOutput {
    /// Whose.
    #[n(0)]
    pub id: AttemptId,
    /// Which.
    #[n(1)]
    pub kind: OutputKind,
    /// From here.
    #[n(2)]
    pub offset: u64,
    /// Bytes; the starter sends them in pieces of at most [`CHUNK`], the master asks for at most [`WINDOW`] at once.
    #[n(3)]
    pub length: u64,
    /// Of which [`Kept`]; 0 is the result's.
    #[cbor(n(4), default)]
    pub kept: u32,
}

/// A piece of an output.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutputChunk {
    /// Whose.
    #[n(0)]
    pub id: AttemptId,
    /// Which.
    #[n(1)]
    pub kind: OutputKind,
    /// From here.
    #[n(2)]
    pub offset: u64,
    /// The bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub data: Vec<u8>,
    /// As asked.
    #[cbor(n(4), default)]
    pub kept: u32,
}

/// The output can't be read any more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutputLost {
    /// Whose.
    #[n(0)]
    pub id: AttemptId,
    /// Which.
    #[n(1)]
    pub kind: OutputKind,
    /// Why.
    #[n(2)]
    pub why: String,
    /// As asked.
    #[cbor(n(3), default)]
    pub kept: u32,
}

/// A try's program has checkpointed itself, and runs on. Told again whenever the way to the master opens, until it is answered by
/// [`CheckpointKept`]; the next one is told only then. A result whose attempt was cut off has what was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checkpointed {
    /// Which try.
    #[n(0)]
    pub id: AttemptId,
    /// Its files.
    #[n(1)]
    pub kept: Kept,
}

/// What a running try has printed, as it comes; answered by [`Seen`], after which the next piece may come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Printed {
    /// Which try.
    #[n(0)]
    pub id: AttemptId,
    /// Standard output or error.
    #[n(1)]
    pub kind: OutputKind,
    /// From here.
    #[n(2)]
    pub offset: u64,
    /// At most [`PRINTED`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// Bytes of one [`Printed`].
pub const PRINTED: usize = 64 << 10;

/// What was [`Printed`] stands in its file at home.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// As told.
    #[n(0)]
    pub id: AttemptId,
    /// As told.
    #[n(1)]
    pub kind: OutputKind,
    /// How much is there; the next piece begins here.
    #[n(2)]
    pub size: u64,
}

/// A checkpoint is durable with the master: the next try begins with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CheckpointKept {
    /// Whose.
    #[n(0)]
    pub id: AttemptId,
    /// Which.
    #[n(1)]
    pub number: u32,
}

/// End as soon as nothing runs, and take nothing new: the node is excluded.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// Why.
    #[n(0)]
    pub why: String,
}

/// What running tries have used so far, of those of which that has changed by enough, and of all after an [`Inventory`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Measured {
    /// Which, and what.
    #[n(0)]
    pub used: Vec<(AttemptId, Usage)>,
}

kinds! {
    0x0301 => DefineProgram, 0x0302 => Assign, 0x0303 => Report, 0x0304 => Acknowledge, 0x0305 => Recall, 0x0306 => Kill,
    0x0307 => Inventory, 0x0308 => FetchOutput, 0x0309 => OutputChunk, 0x030a => OutputLost, 0x030b => Drain,
    0x030c => Measured, 0x030d => Checkpointed, 0x030e => CheckpointKept, 0x030f => Printed,
    0x0310 => Seen, 0x0311 => SlotAd,
}

/// Does a frame of this kind pass between master and starter, so that the event agent only relays it?
pub fn is_relayed(kind: u16) -> bool {
    kind >> 8 == 0x03
}
