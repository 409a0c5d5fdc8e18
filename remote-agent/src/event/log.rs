//! `agent.log`: bounded, since it lies in somebody's home.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Then the log becomes `agent.log.old`, and what was called so is gone.
const MAX_BYTES: u64 = 4 << 20;

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Log> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Log { path: path.to_owned(), file, bytes })
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > MAX_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("log.old"))?;
            *self = Log::open(&self.path)?;
            // Panics go where the log goes.
            nix::unistd::dup2_stderr(&self.file)?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends all that is traced to the file.
///
/// # Errors
/// When it can't be opened.
pub(super) fn start(path: &Path) -> io::Result<()> {
    let log = Mutex::new(Log::open(path)?);
    let lines = tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(log).finish();
    // Fails if there is one already: then that one serves.
    let _ = tracing::subscriber::set_global_default(lines);
    Ok(())
}
