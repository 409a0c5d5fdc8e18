//! What attempts wrote that came to nothing: `partial/12.3-1.out` and `.err` in the session's directory, until the session ends. Bounded
//! in bytes and files; the oldest go first.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::SystemTime;

use vo_core::ids::{AttemptId, StarterKey};
use vo_core::job::{AttemptResult, OutputKind};

/// All of them together.
const TOTAL_BYTES: u64 = 256 << 20;

/// And not more files than a directory is listed of with ease.
const TOTAL_FILES: usize = 20_000;

/// The end of one output of one attempt.
const FILE_BYTES: usize = 256 << 10;

/// The directory, with what is in it.
#[derive(Debug)]
struct Partials {
    dir: PathBuf,
    /// Names and sizes, the oldest first.
    files: VecDeque<(String, u64)>,
    bytes: u64,
}

/// The thread that writes them.
pub(crate) struct Keeper(Sender<(StarterKey, AttemptResult)>);

impl Keeper {
    /// Starts it; `kept` is called after each result, also when it could not be kept: a full disk must not keep the starter waiting for what
    /// counts for nothing.
    pub(crate) fn start(
        session_dir: &Path,
        kept: impl Fn(StarterKey, AttemptResult) + Send + 'static,
    ) -> io::Result<Keeper> {
        let mut partials = Partials::open(session_dir);
        let (sender, inbox) = mpsc::channel::<(StarterKey, AttemptResult)>();
        thread::Builder::new().name("partials".into()).spawn(move || {
            while let Ok((key, result)) = inbox.recv() {
                if let Err(error) = partials.keep(&result) {
                    tracing::warn!(attempt = %result.id, %error, "what it wrote can't be kept");
                }
                kept(key, result);
            }
        })?;
        Ok(Keeper(sender))
    }

    /// Takes a result.
    pub(crate) fn keep(&self, key: StarterKey, result: AttemptResult) {
        // The thread ends only with us.
        let _ = self.0.send((key, result));
    }
}

/// Where one output of an attempt is kept.
pub(crate) fn path(session_dir: &Path, id: AttemptId, error: bool) -> PathBuf {
    session_dir.join("partial").join(name(id, error))
}

fn name(id: AttemptId, error: bool) -> String {
    format!("{}-{}.{}", id.job, id.attempt, if error { "err" } else { "out" })
}

impl Partials {
    /// What an earlier master kept is still there.
    fn open(session_dir: &Path) -> Partials {
        let dir = session_dir.join("partial");
        let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) {
                found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, meta.len()));
            }
        }
        found.sort();
        let bytes = found.iter().map(|(.., size)| size).sum();
        Partials { dir, files: found.into_iter().map(|(_, name, size)| (name, size)).collect(), bytes }
    }

    /// Keeps what came within a result.
    fn keep(&mut self, result: &AttemptResult) -> io::Result<()> {
        crate::session::private_dir(&self.dir).map_err(|e| io::Error::other(e.to_string()))?;
        for output in &result.outputs {
            let error = match output.kind {
                OutputKind::Stdout => false,
                OutputKind::Stderr => true,
                OutputKind::File(_) => continue,
            };
            let content = output.inline.as_deref().unwrap_or_default();
            // A starter sends less; whoever it was, more is not kept.
            let content = content.get(..FILE_BYTES).unwrap_or(content);
            if content.is_empty() {
                continue;
            }
            let name = name(result.id, error);
            if let Some(at) = self.files.iter().position(|(known, _)| *known == name) {
                // It was told twice.
                let size = self.files.remove(at).map_or(0, |(_, size)| size);
                self.bytes -= size;
            }
            self.make_room(content.len() as u64);
            // Not synced: of ten thousand jobs that are removed at once, what they wrote is not worth ten thousand waits for the disk.
            fs::write(self.dir.join(&name), content)?;
            self.bytes += content.len() as u64;
            self.files.push_back((name, content.len() as u64));
        }
        Ok(())
    }

    fn make_room(&mut self, coming: u64) {
        while (self.bytes + coming > TOTAL_BYTES || self.files.len() >= TOTAL_FILES)
            && let Some((name, size)) = self.files.pop_front()
        {
            self.bytes -= size;
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use vo_core::ids::JobId;
    use vo_core::job::{Outcome, Output, Usage};

    use super::*;

    fn result(proc: u32, content: &[u8]) -> AttemptResult {
        let id = AttemptId { job: JobId { cluster: 1, proc }, attempt: 2 };
        let output = |kind| Output {
            kind,
            size: content.len() as u64,
            hash: [0; 32],
            mode: 0o644,
            inline: Some(content.to_vec()),
        };
        let outputs = [OutputKind::Stdout, OutputKind::Stderr, OutputKind::File(b"../x".to_vec())].map(output).to_vec();
        AttemptResult { id, outcome: Outcome::Killed, usage: Usage::default(), outputs, kept: None }
    }

    #[test]
    fn the_oldest_make_room() {
        let dir = std::env::temp_dir().join(format!("vo-partials-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut partials = Partials::open(&dir);
        partials.keep(&result(0, b"first")).unwrap();
        partials.keep(&result(0, b"again")).unwrap();
        assert_eq!((partials.files.len(), partials.bytes), (2, 10));
        let id = result(0, b"").id;
        assert_eq!(fs::read(path(&dir, id, false)).unwrap(), b"again");
        assert_eq!(fs::read(path(&dir, id, true)).unwrap(), b"again");
        // As if there were others: the second of the next two needs five bytes more than there are.
        partials.bytes = TOTAL_BYTES - 2 * FILE_BYTES as u64 + 5;
        partials.keep(&result(1, &[0; 1 << 20])).unwrap();
        assert!(!path(&dir, id, false).exists() && path(&dir, id, true).exists());
        fs::remove_file(path(&dir, id, true)).unwrap();
        assert_eq!(Partials::open(&dir).bytes, 2 * FILE_BYTES as u64);
        fs::remove_dir_all(&dir).unwrap();
    }
}
