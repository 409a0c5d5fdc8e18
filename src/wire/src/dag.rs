//! DAGs: what programs on the workstation and the master say of them, and the bundle that the master keeps of each. Kinds `0x044.`,
//! in the conversation of [`crate::control`].

use minicbor::{Decode, Encode};
use vo_core::dag::{Counts, State};
use vo_core::pool::Told;

use crate::frame::kinds;

/// All that a DAG was submitted with: its run is worked out from it anew whenever the master starts, whatever has become of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Bundle {
    /// Absolute directory from which it was submitted: its paths count from there.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub directory: Vec<u8>,
    /// The DAG files: at least one, the first of which gives the names of rescue files and logs.
    #[n(1)]
    pub files: Vec<File>,
    /// What they include and splice, by path.
    #[n(2)]
    pub read: Vec<File>,
    /// A rescue file or save point.
    #[n(3)]
    pub rescue: Option<File>,
    /// The environment of its scripts and submissions.
    #[n(4)]
    pub environment: Vec<(Bytes, Bytes)>,
    /// How it is run.
    #[n(5)]
    pub options: Options,
    /// The node of another DAG that it is, as `DAG:NODE:TRY`.
    #[n(6)]
    pub tag: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    #[n(7)]
    pub submitted_ms: u64,
}

/// Bytes that need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Bytes(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// A text that a DAG is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct File {
    /// Its name, as given: relative to the DAG's directory, or absolute.
    #[n(0)]
    pub name: String,
    /// What it says.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub text: Vec<u8>,
    /// The directory that paths in it count from, relative to the DAG's.
    #[n(2)]
    pub directory: String,
}

/// How a DAG is run: `condor_submit_dag`'s options and DAGMan's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Options {
    /// Nodes with jobs in the queue.
    #[n(0)]
    pub max_jobs: Option<u32>,
    /// Idle jobs above which no node is submitted.
    #[n(1)]
    pub max_idle: Option<u32>,
    /// PRE scripts at a time.
    #[n(2)]
    pub max_pre: Option<u32>,
    /// POST scripts at a time.
    #[n(3)]
    pub max_post: Option<u32>,
    /// HOLD scripts at a time.
    #[n(4)]
    pub max_hold: Option<u32>,
    /// POST scripts run after PRE scripts that failed.
    #[n(5)]
    pub always_post: bool,
    /// What became ready last is submitted first.
    #[n(6)]
    pub depth_first: bool,
    /// So is what is tried again.
    #[n(7)]
    pub retry_first: bool,
    /// VARS without APPEND or PREPEND come after the submit description.
    #[n(8)]
    pub append_vars: bool,
    /// A rescue file gives nodes that failed what retries they had left.
    #[n(9)]
    pub keep_retries: bool,
    /// Highest number of a rescue file; 100 unless set.
    #[n(10)]
    pub max_rescue: Option<u32>,
    /// How many of a node's jobs may fail.
    #[n(11)]
    pub tolerance: u32,
    /// A node's other jobs go on when more have failed.
    #[n(12)]
    pub keep_jobs: bool,
    /// Node names may have a `+`.
    #[n(13)]
    pub any_names: bool,
    /// Added to every node's priority.
    #[n(14)]
    pub priority: i32,
    /// Name of the batch of its jobs.
    #[n(15)]
    pub batch_name: Option<String>,
    /// Lines for the ad of the DAG's own job.
    #[n(16)]
    pub append: Vec<String>,
    /// Words of the command line that DAGs within it are submitted with, too.
    #[n(17)]
    pub deep: Vec<String>,
    /// What is told of it by mail.
    #[n(18)]
    pub mail: Option<Told>,
    /// Its nodes' jobs may send mails.
    #[cbor(n(19), default)]
    pub mail_nodes: bool,
    /// Directory of its `.dagman.out`, relative to the DAG's; beside the DAG file if none.
    #[n(20)]
    pub out_dir: Option<String>,
}

/// Submit a DAG. Its [`Bundle`] is in a file of the session's directory, which the master takes away. Answered by [`DagSubmitted`] once
/// it is durable, or by the DAG that has its tag already.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SubmitDag {
    /// The file's name there.
    #[n(0)]
    pub bundle: String,
}

/// The DAG is durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DagSubmitted {
    /// Its number.
    #[n(0)]
    pub dag: u32,
    /// Its nodes.
    #[n(1)]
    pub nodes: u32,
    /// Why no mail can be sent, if it asks for that.
    #[n(2)]
    pub unmailed: Option<String>,
}

/// List DAGs: [`DagRows`], then [`crate::control::Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListDags {}

/// A DAG, for listings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DagRow {
    /// Its number.
    #[n(0)]
    pub dag: u32,
    /// Its file, as given.
    #[n(1)]
    pub file: String,
    /// Where it was submitted.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub directory: Vec<u8>,
    /// When.
    #[n(3)]
    pub submitted_ms: u64,
    /// When it ended.
    #[n(4)]
    pub ended_ms: Option<u64>,
    /// Its exit code then.
    #[n(5)]
    pub code: Option<i32>,
    /// Nodes by [`State`], in order.
    #[n(6)]
    pub nodes: Vec<u32>,
    /// What DAGMan calls its status; see [`vo_core::dag::Run::status`].
    #[n(7)]
    pub status: u8,
    /// The user holds it.
    #[n(8)]
    pub paused: bool,
    /// It is halted.
    #[n(9)]
    pub halted: bool,
    /// The rescue file that it wrote.
    #[n(10)]
    pub rescue: Option<String>,
    /// What went wrong last, in one line.
    #[n(11)]
    pub problem: Option<String>,
    /// The DAG and the node of it that this one is.
    #[n(12)]
    pub parent: Option<(u32, String)>,
    /// The tag that it was submitted with.
    #[n(13)]
    pub tag: Option<String>,
    /// Attributes of its ad that it was submitted with, `NAME = EXPRESSION`.
    #[cbor(n(14), default)]
    pub attributes: Vec<String>,
    /// The name that the user gave the batch of its jobs.
    #[n(15)]
    pub batch_name: Option<String>,
}

impl DagRow {
    /// What listings call the batch of its jobs, unless it is a node of another DAG.
    pub fn batch(&self) -> String {
        let file = self.file.rsplit('/').next().unwrap_or_default();
        self.batch_name.clone().unwrap_or_else(|| format!("{file}+{}", self.dag))
    }

    /// Nodes in that state.
    pub fn of(&self, state: State) -> u32 {
        self.nodes.get(state as usize).copied().unwrap_or(0)
    }

    /// Nodes in all.
    pub fn total(&self) -> u32 {
        self.nodes.iter().sum()
    }

    /// Takes the numbers of a run.
    pub fn count(&mut self, counts: Counts) {
        self.nodes = STATES.iter().map(|state| counts.of(*state)).collect();
    }
}

/// All states of a node, in order.
pub const STATES: [State; 9] = [
    State::NotReady,
    State::Ready,
    State::Pre,
    State::Submitting,
    State::Submitted,
    State::Post,
    State::Done,
    State::Failed,
    State::Futile,
];

/// A page of DAGs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DagRows {
    /// The rows.
    #[n(0)]
    pub rows: Vec<DagRow>,
}

/// Tell of a DAG: a [`DagRows`] of one row, [`DagNodes`] while it runs, then [`crate::control::Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShowDag {
    /// Its number.
    #[n(0)]
    pub dag: u32,
}

/// A node of a DAG.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DagNode {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Where it stands.
    #[n(1)]
    pub state: State,
    /// How often it was tried again, and may be.
    #[n(2)]
    pub retries: (u32, u32),
    /// The exit code of what ended last.
    #[n(3)]
    pub code: i32,
    /// Its cluster; of a DAG within the DAG, that one's number.
    #[n(4)]
    pub cluster: Option<u32>,
    /// Is it a DAG of its own?
    #[n(5)]
    pub subdag: bool,
    /// Its jobs: idle, running, held, ended.
    #[n(6)]
    pub jobs: Option<(u32, u32, u32, u32)>,
    /// Numbers of its parents, in the order in which nodes are told of; through joins.
    #[n(7)]
    pub parents: Vec<u32>,
}

/// A page of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DagNodes {
    /// The nodes.
    #[n(0)]
    pub nodes: Vec<DagNode>,
}

/// What to do with a DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Order {
    /// Remove its jobs, write a rescue file, end.
    #[n(0)]
    Remove,
    /// Begin nothing new.
    #[n(1)]
    Hold,
    /// Go on.
    #[n(2)]
    Release,
    /// Begin nothing new, and end when nothing is under way.
    #[n(3)]
    Halt,
    /// Don't, after all.
    #[n(4)]
    Resume,
}

/// Do it. Answered by [`crate::control::Done`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrderDag {
    /// Its number.
    #[n(0)]
    pub dag: u32,
    /// What.
    #[n(1)]
    pub order: Order,
}

/// Follow a DAG: [`DagRows`] of one row whenever it changes, then [`crate::control::Done`] when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WatchDag {
    /// Its number.
    #[n(0)]
    pub dag: u32,
}

/// What a master gives to a `submit` that it keeps for a DAG's nodes, over its standard input: the length in four bytes, high ones first,
/// then this. Answered in the same form, over its standard output, by [`NodeSubmitted`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SubmitNode {
    /// The node and the try, as `DAG:NODE:TRY`.
    #[n(0)]
    pub tag: String,
    /// Absolute directory of the node.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub directory: Vec<u8>,
    /// Its submit description, from there.
    #[n(2)]
    pub file: String,
    /// The description itself, if it is within the DAG.
    #[n(3)]
    pub text: Option<Bytes>,
    /// Commands before the description.
    #[n(4)]
    pub before: Vec<String>,
    /// Commands that win over it, as `NAME=VALUE`.
    #[n(5)]
    pub append: Vec<String>,
}

/// What became of a node's submission.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeSubmitted {
    /// The cluster and its jobs; none if it was refused.
    #[n(0)]
    pub cluster: Option<(u32, u32)>,
    /// Errors and warnings, as people read them.
    #[n(1)]
    pub said: String,
}

kinds! {
    0x0440 => SubmitDag, 0x0441 => DagSubmitted, 0x0442 => ListDags, 0x0443 => DagRows, 0x0444 => ShowDag, 0x0445 => DagNodes,
    0x0446 => OrderDag, 0x0447 => WatchDag,
}
