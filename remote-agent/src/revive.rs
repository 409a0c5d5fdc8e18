//! `vo-agent revive`: starts the event agents of this login node that were killed, or went with a reboot, without waiting for a master. Meant for
//! cron or a systemd timer, on any login node, or all of them: it does nothing where nothing is to be done.
//!
//! An agent is brought back on the node that its lease names and nowhere else, so this never takes a session from an agent of another
//! node. Should a master make one elsewhere at the same moment, leases decide ([`vo_core::lease`]), and the master calls again.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::connect::{Place, answering, is_session, one_start, root, start};
use crate::launch::{self, Revival, SiteDir};
use crate::lease::{self, Node};
use crate::{options, usage};

/// An agent could not be started.
pub const EXIT_FAILED: u8 = 1;

/// Runs it: `[--dir ROOT]`. Says which agents it started, on standard output, and which it could not, on standard error.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    let root = match options(&mut args, ["--dir"]) {
        Ok(_) if args.next().is_some() => return usage("too many arguments"),
        Ok([dir]) => root(dir),
        Err(why) => return usage(&why),
    };
    let root = match root {
        Ok(root) => root,
        Err(why) => return usage(&why),
    };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let mut code = ExitCode::SUCCESS;
    for session in sessions(&root) {
        match revive(&root, &session) {
            Ok(true) => println!("{session}: started its agent"),
            Ok(false) => {}
            Err(why) => {
                eprintln!("vo-agent: {session}: {why}");
                code = ExitCode::from(EXIT_FAILED);
            }
        }
    }
    code
}

/// Directories of sessions that were configured once. No directory at all is no session.
fn sessions(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> =
        names.filter(|name| is_session(name) && SiteDir(root.join(name)).revival().exists()).collect();
    found.sort();
    found
}

/// Starts a session's agent if it was here and is no more.
fn revive(root: &Path, session: &str) -> Result<bool, String> {
    let text = |e: io::Error| e.to_string();
    let here = Node::here().map_err(text)?;
    let place = Place { root: root.to_owned(), session: session.to_owned(), above: 0, revive: true };
    let of_this_host = || {
        let holder = lease::holder(&place.dir()).map_err(text)?;
        Ok::<_, String>(holder.filter(|(_, node)| node.host == here.host))
    };
    if of_this_host()?.is_none() {
        return Ok(false);
    }
    place.enter()?;
    let _lock = one_start(&here).map_err(text)?;
    // Looked at again: it may have been started, or taken elsewhere, while we waited.
    let Some((_, node)) = of_this_host()? else {
        return Ok(false);
    };
    if node == here && answering().is_some() {
        return Ok(false);
    }
    let revival: Revival = launch::read(&SiteDir(place.dir()).revival()).map_err(text)?;
    start(&place, &PathBuf::from(revival.program))?;
    Ok(true)
}
