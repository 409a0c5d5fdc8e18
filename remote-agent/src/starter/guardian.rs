//! The starter's parent. It sleeps until the starter ends, and then sees to it that nothing is left: only then the job tag goes.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use vo_core::job::{AttemptResult, Outcome, Usage};

use super::scratch::Scratch;
use super::{ENDING_SIGNALS, scratch, tree};
use crate::launch::SiteDir;
use crate::spool::{self, Who};

/// Says that something of ours runs here. The agent has said so before it submitted the proxy; but a batch system may start a proxy anew
/// after its tags are gone, maybe with the exit file of its earlier life there, and an agent may end before it has put that right.
pub(super) fn show(tag: &Path, exit_file: &Path) -> io::Result<()> {
    let mut open = OpenOptions::new();
    open.append(true).create(true).mode(0o600);
    open.open(tag).map_err(|e| io::Error::new(e.kind(), format!("cannot make {}: {e}", tag.display())))?;
    match std::fs::remove_file(exit_file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(e.kind(), format!("cannot remove {}: {e}", exit_file.display())))
        }
        _ => Ok(()),
    }
}

/// Becomes the process that orphans of its tree fall to.
pub(super) fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Starts the starter proper and waits for its end; when this returns, its whole tree is dead.
pub(super) fn watch(starter: &mut Command) -> io::Result<ExitStatus> {
    adopt_orphans()?;
    let mut signals = SigSet::empty();
    for signal in ENDING_SIGNALS.iter().chain(&[Signal::SIGCHLD]) {
        signals.add(*signal);
    }
    // The starter inherits the mask, and lifts it.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    let starter = starter.process_group(0).spawn()?.id().cast_signed();
    let status = loop {
        if signals.wait().is_ok_and(|signal| signal != Signal::SIGCHLD) {
            tree::signal(starter, Signal::SIGTERM);
        }
        if let Some(ended) = tree::reap(starter)? {
            break ended.status;
        }
    };
    tree::kill_descendants();
    Ok(status)
}

/// A starter that was killed can't tell what its jobs wrote: the guardian puts it aside, as far as it is in the scratch directory.
pub(super) fn hand_in(scratch: &Scratch, site: &SiteDir, how: &str) {
    let partials = scratch.partials();
    let Ok(who) = Who::of(&scratch.0) else { return };
    if partials.is_empty() {
        return;
    }
    let result = |(id, outputs)| {
        let outcome = Outcome::SiteFailed(format!("its starter was killed ({how})"));
        (AttemptResult { id, outcome, usage: Usage::default(), outputs, kept: None }, BTreeMap::new())
    };
    if let Err(e) = spool::put_aside(site, &who, partials.into_iter().map(result).collect()) {
        eprintln!("vo-agent starter: cannot put aside what jobs wrote: {e}");
    }
}

/// Removes the scratch directory, then the tag: the word that nothing of ours runs here any more.
pub(super) fn put_away(scratch: &Path, tag: &Path) {
    if let Err(e) = scratch::remove_tree(scratch) {
        eprintln!("vo-agent starter: cannot remove {}: {e}", scratch.display());
    }
    match std::fs::remove_file(tag) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            eprintln!("vo-agent starter: cannot remove {}: {e}", tag.display());
        }
        _ => {}
    }
}
