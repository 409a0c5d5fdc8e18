//! `exit`, as a program: for scripts and other terminals. The grid shell has its own, which asks.

use clap::Parser;

use super::Asking;
use crate::error::{ExitCode, Result};
use crate::start;

/// Ends the session: removes its jobs, its proxies at every site, and its files there
#[derive(Parser, Debug)]
pub(crate) struct Exit {
    #[command(flatten)]
    asking: Asking,
    /// Even when jobs are unfinished; they are removed
    #[arg(long, short)]
    force: bool,
}

pub(super) fn run(arguments: Exit) -> Result<ExitCode> {
    start::finish(arguments.asking.connect()?, arguments.force)?;
    Ok(ExitCode::Success)
}
