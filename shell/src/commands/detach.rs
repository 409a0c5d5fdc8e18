//! `detach`, from the session itself or from anywhere else.

use clap::Parser;
use vo_wire::control::{self, Detached};

use super::Asking;
use crate::attach;
use crate::error::{ExitCode, Result, printable};

/// Leaves the session running and gives the terminal back
///
/// Whatever terminal is attached to the session is detached from it. `vo-login -r NAME` comes back, as it was.
#[derive(Parser, Debug)]
pub(crate) struct Detach {
    #[command(flatten)]
    asking: Asking,
}

pub(super) fn run(arguments: Detach) -> Result<ExitCode> {
    let session = arguments.asking.session()?;
    let Detached { place } = session.connect()?.ask(&control::Detach { from: attach::place() })?;
    match place {
        Some(place) => eprintln!("Detached {} from session {}.", printable(&place), session.name),
        None => eprintln!("No terminal is attached to session {}.", session.name),
    }
    Ok(ExitCode::Success)
}
