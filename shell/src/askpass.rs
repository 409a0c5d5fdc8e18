//! What the system's `ssh`, started by the master without a terminal, runs to ask for a secret: passes the question on to whoever
//! follows the session's start.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use vo_wire::control::{Answer, Askpass};

use crate::client::Master;
use crate::error::{Error, ExitCode, Result};

/// Were we started in this role? `ssh` gives no word for it, but the master gave it our name and the site.
pub(crate) fn called(program: Option<&OsString>) -> bool {
    program.is_some() && env::var_os("SSH_ASKPASS").as_ref() == program && env::var_os("VO_SITE").is_some()
}

/// Asks, and prints the answer. The exit code says whether there is one.
pub(crate) fn run(prompt: Option<OsString>) -> Result<ExitCode> {
    let dir = env::var_os("VO_SESSION_DIR").unwrap_or_default();
    let site = env::var("VO_SITE").unwrap_or_default();
    let Some(mut master) = Master::connect(Path::new(&dir), None)? else {
        return Err(Error::new(ExitCode::NoSession, "the session has ended"));
    };
    let prompt = prompt.map(|prompt| prompt.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = env::var("SSH_ASKPASS_PROMPT").unwrap_or_default();
    let Answer { text, .. } = master.ask(&Askpass { site, prompt, kind })?;
    let Some(text) = text else { return Ok(ExitCode::Failure) };
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::system("cannot answer ssh", e))?;
    Ok(ExitCode::Success)
}
