//! The master agent: one daemon a session on the user's workstation. It drives the pool with real I/O: the sites' connections, the job
//! store, the files that go and come, the control socket, and the terminal of the grid shell. Must not know the person's terminal.
//!
//! One task (`master`) owns all state and takes every input from one queue; the others carry bytes.

mod control;
mod dags;
mod eventlog;
mod history;
mod inputs;
mod jobad;
mod journal;
pub mod judge;
mod kept;
mod listing;
mod mail;
mod master;
mod outputs;
mod partials;
mod policy;
pub mod screen;
pub mod session;
mod site;
mod terminal;
mod timing;
mod words;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

pub use session::SessionFile;

/// Log file size at which it is put aside, once: two files of it at the most.
const LOG_BYTES: u64 = 16 << 20;

/// Runs the master of the session in `dir` until the session ends, SIGTERM (the session stays recoverable) or a failure. Writes
/// [`session::READY`] to `ready` once its socket listens, or why it could not start.
pub fn run(dir: &Path, ready: OwnedFd) -> ExitCode {
    let mut ready = File::from(ready);
    if let Err(error) = log_to(&dir.join("master.log")) {
        let _ = writeln!(ready, "cannot write {}: {error}", dir.join("master.log").display());
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(ready, "cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(master::run(dir, ready));
    // Threads that wait for a terminal or a disk must not keep the process.
    runtime.shutdown_background();
    ended
}

fn log_to(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    let file = File::options().append(true).create(true).mode(0o600).open(path)?;
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(file)).finish();
    // Fails only if there is one already: in tests.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}
