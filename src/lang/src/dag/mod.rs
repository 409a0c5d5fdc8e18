//! DAG files, in DAGMan's form (HTCondor manual, "DAGMan Workflows").
//!
//! [`parse()`] reads DAG files, with all that they include and splice, into one [`Dag`]: nodes by number, the edges between them, and
//! what each node is to do. Submit descriptions in files are only named; they are read when their node is submitted.
//!
//! Many parents with many children in one command become edges to and from a [`Kind::Join`] node, so that a command costs no more
//! than its length.
//!
//! Known differences from DAGMan (checked against condor_dag_checker 25.14):
//! - Numbers are whole words: `RETRY A 3x` is an error; DAGMan reads 3.
//! - Names of nodes and splices have no quotation marks: rescue files could not name them.
//! - A command that the last line of a file continues (`\`) is read; DAGMan passes over it.
//! - A node of a splice may be named in full, `PARENT X CHILD S+A`, wherever a node may.
//! - `SUBMIT-DESCRIPTION` serves the splices below it too.
//! - Cycles, whatever DAGMAN_STARTUP_CYCLE_DETECT says, are errors before anything runs.

mod graph;
mod lex;
mod parse;
mod rescue;
#[cfg(test)]
mod tests;

pub use graph::Graph;
pub use parse::{Context, Input, parse};
pub use rescue::{Progress, SAVE_POINT_DIRECTORY, last_rescue, rescue_name, write_rescue, write_save_point};

use crate::Diagnostic;
use graph::Names;

/// Most nodes in one DAG.
pub const MAX_NODES: usize = 5_000_000;
/// Most edges in one DAG, those named twice counted twice.
pub const MAX_EDGES: usize = 20_000_000;
/// Longest text, in bytes, of a DAG with all that it includes and splices, each time counted.
pub const MAX_TEXT: usize = 1 << 30;
/// Deepest nesting of splices and included files.
pub const MAX_DEPTH: usize = 64;

/// A workflow: nodes, edges, and what is to be done.
#[derive(Clone, Default)]
pub struct Dag {
    names: Names,
    nodes: Vec<Node>,
    graph: Graph,
    descriptions: Vec<Description>,
    directories: Names,
    scripts: Vec<Script>,
    categories: Vec<Category>,
    vars: Vec<Vars>,
    /// Each a link to an earlier one of the same node, and a place in `vars`.
    var_links: Vec<(Option<u32>, u32)>,
    save_points: Vec<String>,
    /// Splices, as often as they are used.
    pub splices: u32,
    /// `CONFIG`: the path of a configuration file.
    pub config: Option<String>,
    /// `DOT`.
    pub dot: Option<Dot>,
    /// `NODE_STATUS_FILE`.
    pub status_file: Option<StatusFile>,
    /// `JOBSTATE_LOG`: a path.
    pub jobstate_log: Option<String>,
    /// `ENV`, in order.
    pub env: Vec<Env>,
    /// `SET_JOB_ATTR`: `NAME = EXPRESSION`, as written.
    pub attributes: Vec<String>,
    /// What the author should know.
    pub warnings: Vec<Diagnostic>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Jobs of a submit description.
    Job,
    /// A DAG of its own: `SUBDAG EXTERNAL`.
    Subdag,
    /// Runs last, whatever became of the others.
    Final,
    /// Runs first; the others wait until it has what they need.
    Provisioner,
    /// Runs beside the others, which don't wait for it.
    Service,
    /// Stands between the parents and the children of one command; has nothing to do.
    Join,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// `NOOP`: its jobs count as done without being submitted.
    pub noop: bool,
    /// `DONE`: it has been run.
    pub done: bool,
    /// Higher is submitted earlier, and its jobs have that priority; 0 unless set.
    pub priority: i32,
    /// How often it is tried again.
    pub retries: u32,
    /// `UNLESS-EXIT`: the exit code after which it is not.
    pub unless_exit: Option<i32>,
    /// `ABORT-DAG-ON`.
    pub abort_on: Option<AbortOn>,
    /// `PRE_SKIP`: the exit code of its PRE script that makes it succeed without jobs, 0 to 255.
    pub pre_skip: Option<i32>,
    /// `TOLERANCE`.
    pub tolerance: Option<Tolerance>,
    description: u32,
    directory: u32,
    scripts: [Option<u32>; 3],
    category: Option<u32>,
    vars: Option<u32>,
    save_point: Option<u32>,
}

/// What a node submits. Paths count from its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Description {
    /// A submit description in a file.
    File(String),
    /// A submit description within the DAG file.
    Inline(Vec<u8>),
    /// A DAG file.
    Dag(String),
}

/// `ABORT-DAG-ON NODE EXIT [RETURN CODE]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortOn {
    /// The node's exit code that ends the DAG.
    pub exit: i32,
    /// The DAG's exit code then; the node's if none.
    pub code: Option<u8>,
}

/// `TOLERANCE NODE VALUE[%] [FAIL-FAST|WAIT]`: how many of a node's jobs may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Jobs, or percent of them.
    pub value: u32,
    /// Is it percent?
    pub percent: bool,
    /// Whether the other jobs are removed when more have failed; as configured if none.
    pub fail_fast: Option<bool>,
}

/// When a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptKind {
    /// Before the node's jobs are submitted.
    Pre,
    /// After they ended.
    Post,
    /// When one is held.
    Hold,
}

/// `SCRIPT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Program and arguments, parted by blanks; `$JOB` and such are filled in.
    pub command: String,
    /// `DEFER`: the exit code after which it is run again, and after how many seconds.
    pub defer: Option<(i32, u32)>,
    /// `DEBUG`: the file that what it writes is appended to, whether standard output and standard error are.
    pub debug: Option<(String, bool, bool)>,
}

/// A `CATEGORY`, and its `MAXJOBS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// Its name; those of a splice begin with the splice's, unless it is global (`+name`).
    pub name: String,
    /// How many of its nodes may be submitted at a time.
    pub limit: Option<u32>,
}

/// A `VARS` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vars {
    /// Before the submit description (which may then use and replace them) or after it; as configured if none.
    pub append: Option<bool>,
    /// Names and values; `MY.NAME` is a job attribute.
    pub pairs: Vec<(String, String)>,
}

/// `DOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dot {
    /// Path of the drawing.
    pub path: String,
    /// Drawn anew whenever something changes.
    pub update: bool,
    /// One file, or one a drawing.
    pub overwrite: bool,
    /// Path of a file with lines for its head.
    pub header: Option<String>,
}

/// `NODE_STATUS_FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusFile {
    /// Its path.
    pub path: String,
    /// Seconds at least between two versions; 60 unless set.
    pub interval_s: u32,
    /// Written when nothing changed, too.
    pub always: bool,
}

/// `ENV`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Env {
    /// Names of variables that the submitter's environment gives.
    Get(Vec<String>),
    /// `NAME=value;…`, as the `environment` of a submit description.
    Set(String),
}

impl Dag {
    /// The nodes, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Numbers of the nodes that the author wrote: all but joins.
    pub fn written(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..).zip(&self.nodes).filter(|(_, node)| node.kind != Kind::Join)
    }

    /// The edges.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A node's name.
    pub fn name(&self, node: u32) -> &str {
        self.names.get(node)
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.names.find(name)
    }

    fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(node as usize)
    }

    /// What it submits; a join nothing.
    pub fn description(&self, node: u32) -> Option<&Description> {
        self.descriptions.get(self.node(node)?.description as usize)
    }

    /// The directory it is submitted from, relative to the DAG's; empty for the DAG's own.
    pub fn directory(&self, node: u32) -> &str {
        self.node(node).map_or("", |node| self.directories.get(node.directory))
    }

    /// Its script of that kind.
    pub fn script(&self, node: u32, kind: ScriptKind) -> Option<&Script> {
        let number = self.node(node)?.scripts.get(kind as usize).copied().flatten()?;
        self.scripts.get(number as usize)
    }

    /// Its category, by its place in [`Dag::categories`].
    pub fn category(&self, node: u32) -> Option<u32> {
        self.node(node)?.category
    }

    /// The categories.
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// Its variables, in the order in which they were first named, each with the value that was given last and where it goes.
    pub fn vars(&self, node: u32) -> Vec<(&str, &str, Option<bool>)> {
        let mut link = self.node(node).and_then(|node| node.vars);
        let mut sets = Vec::new();
        while let Some((before, set)) = link.and_then(|link| self.var_links.get(link as usize)) {
            sets.extend(self.vars.get(*set as usize));
            link = *before;
        }
        let mut vars: Vec<(&str, &str, Option<bool>)> = Vec::new();
        for set in sets.into_iter().rev() {
            for (name, value) in &set.pairs {
                match vars.iter_mut().find(|(known, ..)| known.eq_ignore_ascii_case(name)) {
                    Some(var) => var.1 = value,
                    None => vars.push((name, value, set.append)),
                }
            }
        }
        vars
    }

    /// The file that progress is written to when it first starts.
    pub fn save_point(&self, node: u32) -> Option<&str> {
        let number = self.node(node)?.save_point?;
        self.save_points.get(number as usize).map(String::as_str)
    }
}
