//! `help`.

use std::io::Write;

use clap::Parser;

use super::{ALL, find};
use crate::error::{Error, ExitCode, Result};
use crate::table::{stdout, written};

/// Tells what the grid commands do
#[derive(Parser, Debug)]
pub(crate) struct Help {
    /// The command to tell all about
    pub(super) command: Option<String>,
}

pub(super) fn run(arguments: Help) -> Result<ExitCode> {
    let text = match arguments.command.as_deref() {
        None => overview(),
        Some(name) => match find(name) {
            Some(command) => command.manual().render_long_help().to_string(),
            None => return Err(Error::usage(format!("there is no grid command {name:?}")).hint("`help` lists them")),
        },
    };
    let mut out = stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

/// The commands, a line each.
fn overview() -> String {
    let mut text = String::from("Grid commands:\n");
    for command in ALL {
        let about = command.manual().get_about().map(ToString::to_string).unwrap_or_default();
        let usage = format!("{} {}", command.name(), command.operands);
        text += &format!("  {usage:<18} {about}\n");
    }
    text += "\n`help COMMAND` tells all about one; each also answers to --help, and to HTCondor's name where it has one\n\
             (condor_submit, condor_status, condor_q, condor_wait, condor_rm, condor_history). `vo COMMAND` always means ours.\n\
             Any other line runs in your own shell.\n";
    text
}
