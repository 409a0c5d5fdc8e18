//! Files that come back: written aside in the directory where they belong, checked, made durable, renamed. A result counts only
//! after all of its files are there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use ring::digest;
use tokio::sync::mpsc;
use vo_core::ids::AttemptId;
use vo_core::job::{AttemptResult, Output, OutputKind, Program};
use vo_wire::work::{OutputChunk, WINDOW};

/// Up to so many files of one group are synced one by one; more, and each file system is synced once.
const SYNC_SINGLY: usize = 8;

/// Why outputs are not at home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) why: String,
    /// The workstation's fault, which another try would meet again.
    pub(crate) ours: bool,
    /// It may pass: a full disk. The result waits at the site.
    pub(crate) later: bool,
}

impl Failure {
    fn ours(path: &Path, error: &io::Error) -> Self {
        let later = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            || matches!(error.raw_os_error(), Some(libc::EIO | libc::EMFILE | libc::ENFILE));
        Failure { why: format!("{}: {error}", path.display()), ours: true, later }
    }

    pub(crate) fn site(why: impl Into<String>) -> Self {
        Failure { why: why.into(), ours: false, later: false }
    }
}

/// Where an output of a job belongs.
pub(crate) fn destination(program: &Program, id: AttemptId, kind: &OutputKind) -> Result<PathBuf, Failure> {
    let dir = PathBuf::from(OsStr::from_bytes(&program.initialdir.expand(id.job)));
    let named = match kind {
        OutputKind::Stdout => program.output.as_ref().map(|t| t.expand(id.job)),
        OutputKind::Stderr => program.error.as_ref().map(|t| t.expand(id.job)),
        OutputKind::File(name) => {
            // The node names these: they stay below the job's directory, whatever it says.
            let path = Path::new(OsStr::from_bytes(name));
            let plain = path.components().all(|c| matches!(c, Component::Normal(_))) && !name.is_empty();
            plain.then(|| name.clone())
        }
    };
    let named = named.filter(|name| !name.is_empty());
    named
        .map(|name| dir.join(OsStr::from_bytes(&name)))
        .ok_or_else(|| Failure::site("the node sent a file that nobody asked for"))
}

/// An output being written aside.
struct Aside {
    file: File,
    path: PathBuf,
    target: PathBuf,
    hash: digest::Context,
    written: u64,
}

impl Aside {
    fn create(whole: &Whole, place: usize, output: &Output) -> Result<Aside, Failure> {
        let id = whole.result.id;
        let target = destination(&whole.program, id, &output.kind)?;
        // A link is followed, so that it is still one afterwards; a device (`/dev/null`) is written to as it is.
        let target = fs::canonicalize(&target).unwrap_or(target);
        let Some(parent) = target.parent() else {
            let why = format!("{}: is no file", target.display());
            return Err(Failure { why, ours: true, later: false });
        };
        let device = fs::metadata(&target).is_ok_and(|found| !found.is_file() && !found.is_dir());
        // Named after the session, too: others may write in the same directory. The target's own name could make it too long.
        let path =
            if device { target.clone() } else { parent.join(format!(".vo-partial-{}-{id}.{place}", whole.session)) };
        let mut options = OpenOptions::new();
        options.write(true).mode(output.mode & 0o777).custom_flags(libc::O_NOFOLLOW);
        if !device {
            // What stands there is a leftover of a try that was cut off.
            let _ = fs::remove_file(&path);
            options.create_new(true);
        }
        let file = options.open(&path).map_err(|e| Failure::ours(&path, &e))?;
        if !device {
            let _ = file.set_permissions(fs::Permissions::from_mode(output.mode & 0o777));
        }
        Ok(Aside { file, path, target, hash: digest::Context::new(&digest::SHA256), written: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|e| Failure::ours(&self.path, &e))?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn check(&self, output: &Output) -> Result<(), Failure> {
        if self.written == output.size && self.hash.clone().finish().as_ref() == output.hash {
            Ok(())
        } else {
            let what =
                format!("{} came with {} bytes of {}, or damaged", self.target.display(), self.written, output.size);
            Err(Failure::site(what))
        }
    }

    fn finish(self) -> Result<(), Failure> {
        if self.path != self.target {
            fs::rename(&self.path, &self.target).map_err(|e| Failure::ours(&self.target, &e))?;
        }
        Ok(())
    }
}

fn discard(files: Vec<Aside>) {
    for file in files.iter().filter(|file| file.path != file.target) {
        let _ = fs::remove_file(&file.path);
    }
}

/// A result with outputs, and what it needs to bring them home.
#[derive(Clone)]
pub(crate) struct Whole {
    /// The session's id.
    pub(crate) session: std::sync::Arc<str>,
    pub(crate) result: AttemptResult,
    pub(crate) program: std::sync::Arc<Program>,
}

/// Writes the outputs of several results, made durable together; for each result, how it went. Blocks.
pub(crate) fn store_whole(results: &[Whole]) -> Vec<Result<(), Failure>> {
    let written: Vec<Result<Vec<Aside>, Failure>> = results.iter().map(write_whole).collect();
    let files: Vec<&Aside> = written.iter().filter_map(|w| w.as_ref().ok()).flatten().collect();
    let synced = sync(&files);
    let ended = written.into_iter().map(|written| {
        let files = written?;
        if let Err(failure) = &synced {
            discard(files);
            return Err(failure.clone());
        }
        files.into_iter().try_for_each(Aside::finish)
    });
    ended.collect()
}

fn write_whole(whole: &Whole) -> Result<Vec<Aside>, Failure> {
    let mut files = Vec::new();
    for (place, output) in whole.result.outputs.iter().enumerate() {
        let written = (|| {
            let mut aside = Aside::create(whole, place, output)?;
            let written = aside.write(output.inline.as_deref().unwrap_or_default()).and_then(|()| aside.check(output));
            files.push(aside);
            written
        })();
        if let Err(failure) = written {
            discard(files);
            return Err(failure);
        }
    }
    Ok(files)
}

/// The data is safe before any name leads to it.
fn sync(files: &[&Aside]) -> Result<(), Failure> {
    if files.len() <= SYNC_SINGLY {
        for aside in files.iter().filter(|aside| aside.path != aside.target) {
            aside.file.sync_data().map_err(|e| Failure::ours(&aside.path, &e))?;
        }
        return Ok(());
    }
    let mut done = BTreeSet::new();
    for aside in files {
        let device = aside.file.metadata().map_or(0, |found| found.dev());
        if done.insert(device) {
            nix::unistd::syncfs(&aside.file).map_err(|e| Failure::ours(&aside.path, &e.into()))?;
        }
    }
    Ok(())
}

/// A piece that the starter sent, or why it can't.
pub(crate) type Piece = Result<OutputChunk, String>;

/// Brings the outputs of one result that are too large to come within it. `fetch` asks for bytes from an offset, `pieces` brings them
/// in order; when `pieces` ends, the starter was lost.
pub(crate) async fn collect(
    whole: Whole,
    fetch: impl Fn(&OutputKind, u64, u64),
    mut pieces: mpsc::UnboundedReceiver<Piece>,
) -> Result<(), Failure> {
    let mut files = Vec::new();
    for (place, output) in whole.result.outputs.iter().enumerate() {
        match bring(&whole, output, place, &fetch, &mut pieces).await {
            Ok(aside) => files.push(aside),
            Err(failure) => {
                discard(files);
                return Err(failure);
            }
        }
    }
    let stored = tokio::task::spawn_blocking(move || {
        if let Err(failure) = sync(&files.iter().collect::<Vec<_>>()) {
            discard(files);
            return Err(failure);
        }
        files.into_iter().try_for_each(Aside::finish)
    });
    stored.await.unwrap_or_else(|_| Err(Failure::site("writing was interrupted")))
}

async fn bring(
    whole: &Whole,
    output: &Output,
    place: usize,
    fetch: &impl Fn(&OutputKind, u64, u64),
    pieces: &mut mpsc::UnboundedReceiver<Piece>,
) -> Result<Aside, Failure> {
    let mut aside = Aside::create(whole, place, output)?;
    let fetched = async {
        if let Some(inline) = &output.inline {
            aside.write(inline)?;
        } else {
            let mut asked = 0;
            while aside.written < output.size {
                // Half a window is asked for whenever half a window has come.
                while asked < output.size && asked < aside.written + WINDOW {
                    let length = (WINDOW / 2).min(output.size - asked);
                    fetch(&output.kind, asked, length);
                    asked += length;
                }
                let piece = pieces.recv().await.ok_or_else(|| Failure::site("the starter was lost"))?;
                let piece = piece.map_err(Failure::site)?;
                if piece.kind != output.kind || piece.offset != aside.written || piece.data.is_empty() {
                    return Err(Failure::site(format!("{} came out of order", aside.target.display())));
                }
                aside.write(&piece.data)?;
            }
        }
        aside.check(output)
    };
    match fetched.await {
        Ok(()) => Ok(aside),
        Err(failure) => {
            discard(vec![aside]);
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vo_core::ids::JobId;
    use vo_core::job::{Outcome, Usage};
    use vo_core::template::Template;

    const ID: AttemptId = AttemptId { job: JobId { cluster: 1, proc: 0 }, attempt: 1 };

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("vo-outputs-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn output(kind: OutputKind, content: &[u8], inline: bool) -> Output {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, content).as_ref());
        let inline = inline.then(|| content.to_vec());
        Output { kind, size: content.len() as u64, hash, mode: 0o644, inline }
    }

    fn whole(dir: &Path, proc: u32, outputs: Vec<Output>) -> Whole {
        let id = AttemptId { job: JobId { cluster: 1, proc }, attempt: 1 };
        let program = Program {
            initialdir: Template::constant(dir.as_os_str().as_bytes()),
            output: Some(Template::constant("out")),
            error: Some(Template::constant("missing/err")),
            ..Program::default()
        };
        let result = AttemptResult { id, outcome: Outcome::Exited(0), usage: Usage::default(), outputs };
        Whole { session: "s".into(), result, program: Arc::new(program) }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn outputs_come_whole_or_not_at_all() {
        let dir = scratch("whole");
        let good = whole(&dir, 0, vec![output(OutputKind::Stdout, b"hello", true)]);
        let mut damaged = output(OutputKind::File(b"f".to_vec()), b"data", true);
        damaged.hash[0] ^= 1;
        let damaged = whole(&dir, 1, vec![damaged]);
        let nowhere =
            whole(&dir, 2, vec![output(OutputKind::Stdout, b"x", true), output(OutputKind::Stderr, b"y", true)]);
        let outside = whole(&dir, 3, vec![output(OutputKind::File(b"../f".to_vec()), b"x", true)]);
        let ended = store_whole(&[good, damaged, nowhere, outside]);
        assert_eq!(ended[0], Ok(()));
        assert!(!ended[1].as_ref().unwrap_err().ours, "{ended:?}");
        assert!(ended[2].as_ref().unwrap_err().ours, "{ended:?}");
        assert!(!ended[3].as_ref().unwrap_err().ours, "{ended:?}");
        assert_eq!(names(&dir), ["out"]);
        assert_eq!(fs::read(dir.join("out")).unwrap(), b"hello");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn large_outputs_come_in_pieces() {
        let dir = scratch("pieces");
        let content: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for lost in [false, true] {
            let whole = whole(&dir, 0, vec![output(OutputKind::File(b"big".to_vec()), &content, false)]);
            let (send, pieces) = mpsc::unbounded_channel();
            let send = std::cell::RefCell::new(Some(send));
            let ended = runtime.block_on(collect(
                whole,
                |kind, offset, length| {
                    let data = content[offset as usize..(offset + length) as usize].to_vec();
                    let chunk = OutputChunk { id: ID, kind: kind.clone(), offset, data };
                    let sender = if lost && offset > 0 { send.borrow_mut().take() } else { send.borrow().clone() };
                    sender.map(|s| s.send(Ok(chunk)));
                },
                pieces,
            ));
            if lost {
                assert!(!ended.unwrap_err().ours);
                assert_eq!(names(&dir), ["big"], "the file of the first round is untouched");
            } else {
                ended.unwrap();
                assert_eq!(fs::read(dir.join("big")).unwrap(), content);
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
