//! Rescue files: what a DAG had done when it ended, in DAGMan's form.

use super::{Dag, Kind, Node};
use std::fmt::Write as _;

/// Where save points without a directory of their own go, beside the DAG file.
pub const SAVE_POINT_DIRECTORY: &str = "save_files";

/// What became of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// It succeeded.
    pub done: bool,
    /// It failed, and is not tried again.
    pub failed: bool,
    /// How often it was tried again.
    pub retried: u32,
}

/// The name of a rescue file of the DAG file `dag`, the first of several if `multi`.
pub fn rescue_name(dag: &str, multi: bool, number: u32) -> String {
    format!("{dag}{}.rescue{number:03}", if multi { "_multi" } else { "" })
}

/// The highest number of a rescue file of `dag` among `names`, the files of its directory; 999 at most, as DAGMan's.
pub fn last_rescue<'a>(dag: &str, multi: bool, names: impl IntoIterator<Item = &'a str>) -> Option<u32> {
    let of = |name: &str| {
        let digits = name.strip_prefix(dag)?.strip_prefix(if multi { "_multi.rescue" } else { ".rescue" })?;
        let plain = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|number| plain && *number > 0)
    };
    names.into_iter().filter_map(of).max()
}

/// A rescue file of the DAG read from `file`. `created` is the time in words of the caller's, `11/25/2026 17:30:00 UTC`. Without
/// `reset_retries`, a node has as many retries left as it had.
pub fn write_rescue(dag: &Dag, file: &str, created: &str, reset_retries: bool, of: &dyn Fn(u32) -> Progress) -> String {
    let head = format!("# Rescue DAG file, created after running\n#   the {} DAG file\n", one_line(file));
    write(dag, head, created, reset_retries, of)
}

/// A save point, written as `node` first starts.
pub fn write_save_point(dag: &Dag, node: u32, created: &str, of: &dyn Fn(u32) -> Progress) -> String {
    write(dag, format!("# Save file written at Start Node {}\n", dag.name(node)), created, true, of)
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn write(dag: &Dag, mut out: String, created: &str, reset_retries: bool, of: &dyn Fn(u32) -> Progress) -> String {
    let written = || dag.written().map(|(number, node)| (number, node, of(number)));
    let count = |want: &dyn Fn(&Progress) -> bool| written().filter(|(.., progress)| want(progress)).count();
    let failed: String =
        written().filter(|(.., p)| p.failed).map(|(number, ..)| format!("{},", dag.name(number))).collect();
    // Writing to a String can't fail.
    let _ = writeln!(out, "# Created {created}\n# Rescue DAG version: 2.1.0\n#");
    let _ = writeln!(out, "# Total number of Nodes: {}", dag.written().count());
    let _ = writeln!(out, "# Nodes premarked DONE: {}", count(&|p| p.done));
    let _ = writeln!(out, "# Nodes that failed: {}\n#   {failed}<ENDLIST>\n", count(&|p| p.failed));
    for (number, node, progress) in written() {
        let name = dag.name(number);
        let regular = matches!(node.kind, Kind::Job | Kind::Subdag);
        if regular && progress.done {
            let _ = writeln!(out, "DONE {name}");
        } else if regular && progress.failed && only_weak(dag, number) {
            let _ = writeln!(out, "# Failed node with only weak child dependencies:\nDONE {name}");
        }
        if !reset_retries && node.retries > 0 {
            write_retries(&mut out, name, node, progress.retried.min(node.retries));
        }
    }
    out
}

/// All that waits for it only waits for its end.
fn only_weak(dag: &Dag, node: u32) -> bool {
    let mut children = dag.graph().children(node).peekable();
    children.peek().is_some() && children.all(|(_, weak)| weak)
}

fn write_retries(out: &mut String, name: &str, node: &Node, done: u32) {
    let left = node.retries - done;
    let _ = writeln!(out, "# {done} of {} retries already performed; {left} remaining", node.retries);
    let unless = node.unless_exit.map(|code| format!(" UNLESS-EXIT {code}")).unwrap_or_default();
    let _ = writeln!(out, "RETRY {name} {left}{unless}");
}
