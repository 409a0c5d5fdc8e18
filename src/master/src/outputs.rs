//! Files that come back: written aside in the directory where they belong, checked, made durable, renamed. A result counts only
//! after all of its files are there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use ring::digest;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use vo_core::ids::AttemptId;
use vo_core::job::{AttemptResult, DIRECTORY, Kept, Output, OutputKind, Program};
use vo_core::template::Template;
use vo_wire::work::{OutputChunk, Printed, WINDOW};

use crate::kept::{self, Sets};

/// Outputs larger than this are begun only if the disk has room for them.
const ROOMY: u64 = 1 << 20;

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
    pub(crate) fn ours(path: &Path, error: &io::Error) -> Self {
        let later = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            || matches!(error.raw_os_error(), Some(libc::EIO | libc::EMFILE | libc::ENFILE));
        Failure { why: format!("{}: {error}", path.display()), ours: true, later }
    }

    pub(crate) fn site(why: impl Into<String>) -> Self {
        Failure { why: why.into(), ours: false, later: false }
    }
}

/// Where an output of a job belongs.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) path: PathBuf,
    /// The user named it. If not, the node did, and may not choose just any file of the job's directory.
    named: bool,
}

/// Where an output of a job belongs, if it has one that it may bring.
pub(crate) fn destination(program: &Program, id: AttemptId, kind: &OutputKind) -> Result<Destination, Failure> {
    let dir = PathBuf::from(OsStr::from_bytes(&program.initialdir.expand(id.job)));
    let within = |template: &Template| dir.join(OsStr::from_bytes(&template.expand(id.job)));
    let (path, named) = match kind {
        OutputKind::Stdout => (program.output.as_ref().map(within), true),
        OutputKind::Stderr => (program.error.as_ref().map(within), true),
        OutputKind::File(name) => {
            // The node names these: they stay below the job's directory, whatever it says.
            let name = Path::new(OsStr::from_bytes(name));
            let plain = name.components().all(|c| matches!(c, Component::Normal(_)));
            let clean = |name: &Template| -> PathBuf {
                let name = name.expand(id.job);
                let parts = Path::new(OsStr::from_bytes(&name)).components();
                parts.filter(|part| *part != Component::CurDir).collect()
            };
            // Where it goes at home: as HTCondor has it, without the directories of the name that was asked for.
            let at_home = match &program.transfer_output {
                Some(names) => names.iter().map(clean).find_map(|asked| {
                    let below = name.strip_prefix(&asked).ok().filter(|_| !asked.as_os_str().is_empty())?;
                    let top = if program.keep_paths { asked.as_path() } else { Path::new(asked.file_name()?) };
                    Some(if below.as_os_str().is_empty() { top.to_owned() } else { top.join(below) })
                }),
                // What a job leaves at the top of its directory, as a shell's `*` shows it.
                None => (name.components().count() == 1 && !name.as_os_str().as_bytes().starts_with(b"."))
                    .then(|| name.to_owned()),
            };
            let remapped = program.transfer_remaps.iter().find_map(|(from, to)| {
                let below = name.strip_prefix(clean(from)).ok()?;
                let to = PathBuf::from(OsStr::from_bytes(&to.expand(id.job)));
                Some(if below.as_os_str().is_empty() { to } else { to.join(below) })
            });
            let named = program.transfer_output.is_some() || remapped.is_some();
            let path = at_home.filter(|_| plain && !name.as_os_str().is_empty()).map(|path| remapped.unwrap_or(path));
            (path.map(|path| dir.join(path)), named)
        }
    };
    if program.url(id.job, kind).is_some() {
        return Err(Failure::site("the node sent home what it was to send to a URL"));
    }
    let path = path.filter(|path| *path != dir);
    let path = path.ok_or_else(|| Failure::site("the node sent a file that nobody asked for"))?;
    let own =
        !named && [Some(&program.executable), program.input.as_ref()].into_iter().flatten().any(|t| within(t) == path);
    if own {
        return Err(refusal(
            &path,
            "the job's own program or input would be replaced: name it in transfer_output_files",
        ));
    }
    Ok(Destination { path, named })
}

/// The user's to mend.
fn refusal(path: &Path, why: &str) -> Failure {
    Failure { why: format!("{}: {why}", path.display()), ours: true, later: false }
}

/// Links followed at the most, as the kernel does (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// The file that a destination leads to. A link is followed, so that it is still one afterwards; but not one that the user didn't name,
/// and none of another user's, who could plant it where both may write.
fn follow(destination: Destination) -> Result<PathBuf, Failure> {
    let Destination { mut path, named } = destination;
    let uid = nix::unistd::geteuid().as_raw();
    for _ in 0..MOST_LINKS {
        let Some(found) = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_symlink) else {
            return Ok(path);
        };
        if !named {
            return Err(refusal(&path, "is a symbolic link: to write through it, name it in transfer_output_files"));
        }
        if found.uid() != uid && found.uid() != 0 {
            return Err(refusal(&path, &format!("is a symbolic link of user {}", found.uid())));
        }
        let to = fs::read_link(&path).map_err(|e| Failure::ours(&path, &e))?;
        path = path.parent().unwrap_or(Path::new("/")).join(to);
    }
    Err(refusal(&path, "too many symbolic links"))
}

/// Writes what a running job has printed to its file, which begins anew with the first of it; says how much is there. The file is no output yet: that
/// takes its place at the end. Blocks.
pub(crate) fn show(program: &Program, printed: &Printed) -> Result<u64, Failure> {
    let path = follow(destination(program, printed.id, &printed.kind)?)?;
    let failed = |e: io::Error| Failure::ours(&path, &e);
    if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
        return Err(refusal(&path, "is no file"));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(printed.offset == 0).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&path).map_err(failed)?;
    let there = file.metadata().map_err(failed)?.len();
    if there < printed.offset {
        return Ok(there);
    }
    file.write_all_at(&printed.data, printed.offset).map_err(failed)?;
    let size = printed.offset + printed.data.len() as u64;
    file.set_len(size).map_err(failed)?;
    Ok(size)
}

/// An output being written aside.
struct Aside {
    /// Open until it is written, and until it is synced if there are few.
    file: Option<File>,
    path: PathBuf,
    target: PathBuf,
    hash: digest::Context,
    written: u64,
    /// It is a directory, made at the end.
    directory: bool,
}

impl Aside {
    fn create(whole: &Whole, place: usize, output: &Output) -> Result<Aside, Failure> {
        let id = whole.result.id;
        let destination = match &whole.set {
            Some(Set { dir: Some(dir), .. }) => Destination { path: kept::place(dir, &output.kind)?, named: true },
            _ => destination(&whole.program, id, &output.kind)?,
        };
        let named = destination.named;
        let target = follow(destination)?;
        let Some(parent) = target.parent() else {
            return Err(refusal(&target, "is no file"));
        };
        if named && matches!(output.kind, OutputKind::File(_)) {
            fs::create_dir_all(parent).map_err(|e| Failure::ours(parent, &e))?;
        }
        let (hash, written) = (digest::Context::new(&digest::SHA256), 0);
        if output.mode & !0o777 == DIRECTORY && named && whole.set.is_none() {
            return Ok(Aside { file: None, path: target.clone(), target, hash, written, directory: true });
        }
        if output.size > ROOMY
            && let Ok(room) = nix::sys::statvfs::statvfs(parent)
        {
            let free = room.blocks_available().saturating_mul(room.fragment_size());
            if free < output.size {
                let why = format!("{}: {} bytes are to come, there is room for {free}", target.display(), output.size);
                return Err(Failure { why, ours: true, later: true });
            }
        }
        // A device (`/dev/null`) is written to as it is; a pipe would hold us up until someone reads it.
        let found = fs::symlink_metadata(&target).ok().map(|found| found.file_type());
        let device = found.is_some_and(|found| found.is_char_device());
        if found.is_some_and(|found| !(found.is_file() || found.is_dir() || (device && named))) {
            return Err(refusal(&target, "is neither a file nor a device like /dev/null"));
        }
        // Named after the session, too: others may write in the same directory. The target's own name could make it too long.
        let path =
            if device { target.clone() } else { parent.join(format!(".vo-partial-{}-{id}.{place}", whole.session)) };
        let mut options = OpenOptions::new();
        // The user's umask holds, as for any program of theirs: what the node says is only what the file was there.
        // What is for the next attempt must be readable in any case.
        let least = if whole.set.is_some() { 0o600 } else { 0 };
        options.write(true).mode(output.mode & 0o777 | least).custom_flags(libc::O_NOFOLLOW);
        if !device {
            // What stands there is a leftover of a try that was cut off.
            let _ = fs::remove_file(&path);
            options.create_new(true);
        }
        let file = options.open(&path).map_err(|e| Failure::ours(&target, &e))?;
        Ok(Aside { file: Some(file), path, target, hash, written, directory: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes).map_err(|e| Failure::ours(&self.path, &e))?;
        }
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
        if self.directory {
            return fs::create_dir_all(&self.target).map_err(|e| Failure::ours(&self.target, &e));
        }
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
    /// If these are not its outputs, but what it leaves to the next attempt.
    pub(crate) set: Option<Set>,
}

/// Which set it is of those that the attempt leaves.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) number: u32,
    /// Does the attempt go on?
    pub(crate) checkpoint: bool,
    /// Where it is written.
    dir: Option<PathBuf>,
}

impl Whole {
    /// The same for a set of its files.
    pub(crate) fn of_set(
        session: std::sync::Arc<str>,
        mut result: AttemptResult,
        set: Kept,
        checkpoint: bool,
    ) -> Whole {
        result.outputs = set.outputs;
        let set = Set { number: set.number, checkpoint, dir: None };
        Whole { session, result, program: std::sync::Arc::default(), set: Some(set) }
    }

    pub(crate) fn is_checkpoint(&self) -> bool {
        self.set.as_ref().is_some_and(|set| set.checkpoint)
    }
}

/// Writes the outputs of several results, made durable together; for each result, how it went. Blocks.
pub(crate) fn store_whole(results: &[Whole]) -> Vec<Result<(), Failure>> {
    let few = results.iter().map(|whole| whole.result.outputs.len()).sum::<usize>() <= SYNC_SINGLY;
    let written: Vec<Result<Vec<Aside>, Failure>> = results.iter().map(|whole| write_whole(whole, few)).collect();
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

/// Files stay open if there are `few`: more could be more than a process may have.
fn write_whole(whole: &Whole, few: bool) -> Result<Vec<Aside>, Failure> {
    let mut files = Vec::new();
    for (place, output) in whole.result.outputs.iter().enumerate() {
        let written = (|| {
            let mut aside = Aside::create(whole, place, output)?;
            let written = aside.write(output.inline.as_deref().unwrap_or_default()).and_then(|()| aside.check(output));
            aside.file = aside.file.filter(|_| few);
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
    if files.iter().all(|aside| aside.file.is_some()) && files.len() <= SYNC_SINGLY {
        for aside in files.iter().filter(|aside| aside.path != aside.target) {
            let synced = aside.file.as_ref().map_or(Ok(()), File::sync_data);
            synced.map_err(|e| Failure::ours(&aside.path, &e))?;
        }
        return Ok(());
    }
    let (mut dirs, mut devices) = (BTreeSet::new(), BTreeSet::new());
    for aside in files.iter().filter(|aside| aside.path != aside.target) {
        let Some(dir) = aside.path.parent().filter(|dir| dirs.insert(*dir)) else {
            continue;
        };
        let open = File::open(dir).map_err(|e| Failure::ours(dir, &e))?;
        if devices.insert(open.metadata().map_or(0, |found| found.dev())) {
            nix::unistd::syncfs(&open).map_err(|e| Failure::ours(dir, &e.into()))?;
        }
    }
    Ok(())
}

/// A piece that the starter sent, or why it can't; with it comes its part of the site's room, which is free again once the piece is written.
pub(crate) type Piece = (Result<OutputChunk, String>, OwnedSemaphorePermit);

/// Brings a set of files, as [`collect`] does outputs, and puts it in the place of the one before it.
pub(crate) async fn collect_set(
    sets: std::sync::Arc<Sets>,
    mut whole: Whole,
    collection: u64,
    fetch: impl Fn(&OutputKind, u64, u64),
    pieces: mpsc::UnboundedReceiver<Piece>,
) -> Result<(), Failure> {
    let id = whole.result.id;
    let Some(set) = &mut whole.set else { return Ok(()) };
    let (number, begun) = (set.number, sets.clone());
    let begun = blocking(move || begun.begin(id, number, collection)).await?;
    set.dir = Some(begun.clone());
    let come = collect(whole, fetch, pieces).await;
    blocking(move || {
        let ended = come.and_then(|()| sets.finish(id, number, &begun));
        if ended.is_err() {
            sets.abandon(&begun);
        }
        ended
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::site("writing was interrupted")))
}

/// Brings the outputs of one result that are too large to come within it. `fetch` asks for bytes from an offset, `pieces` brings them
/// in order; when `pieces` ends, the starter was lost.
pub(crate) async fn collect(
    whole: Whole,
    fetch: impl Fn(&OutputKind, u64, u64),
    mut pieces: mpsc::UnboundedReceiver<Piece>,
) -> Result<(), Failure> {
    let mut files = Vec::new();
    let few = whole.result.outputs.len() <= SYNC_SINGLY;
    for (place, output) in whole.result.outputs.iter().enumerate() {
        match bring(&whole, output, place, &fetch, &mut pieces).await {
            Ok(aside) => files.push(Aside { file: aside.file.filter(|_| few), ..aside }),
            Err(failure) => {
                discard(files);
                return Err(failure);
            }
        }
    }
    blocking(move || {
        if let Err(failure) = sync(&files.iter().collect::<Vec<_>>()) {
            discard(files);
            return Err(failure);
        }
        files.into_iter().try_for_each(Aside::finish)
    })
    .await
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
                let (piece, _room) = pieces.recv().await.ok_or_else(|| Failure::site("the starter was lost"))?;
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
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use vo_core::ids::JobId;
    use vo_core::job::{Outcome, Usage};

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
        let result = AttemptResult { id, outcome: Outcome::Exited(0), usage: Usage::default(), outputs, kept: None };
        Whole { session: "s".into(), result, program: Arc::new(program), set: None }
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
                    let chunk = OutputChunk { id: ID, kind: kind.clone(), offset, data, kept: 0 };
                    let sender = if lost && offset > 0 { send.borrow_mut().take() } else { send.borrow().clone() };
                    let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
                    sender.map(|s| s.send((Ok(chunk), room)).is_ok());
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

    fn store(dir: &Path, change: impl FnOnce(&mut Program), outputs: Vec<Output>) -> Result<(), Failure> {
        let mut whole = whole(dir, 0, outputs);
        let mut program = (*whole.program).clone();
        change(&mut program);
        whole.program = Arc::new(program);
        store_whole(&[whole]).pop().unwrap()
    }

    fn file(name: &str) -> Output {
        output(OutputKind::File(name.as_bytes().to_vec()), b"hostile", true)
    }

    fn names_of(names: &[&str]) -> Option<Vec<Template>> {
        Some(names.iter().map(|name| Template::constant(*name)).collect())
    }

    #[test]
    fn a_node_writes_what_was_asked_for_and_nothing_else() {
        let top = scratch("named");
        let dir = top.join("job");
        fs::create_dir_all(dir.join("results")).unwrap();
        fs::write(top.join("victim"), "mine").unwrap();
        fs::write(dir.join("run.sh"), "mine").unwrap();
        std::os::unix::fs::symlink(top.join("victim"), dir.join("link")).unwrap();
        std::os::unix::fs::symlink(&top, dir.join("up")).unwrap();
        nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let victim = top.join("victim").to_str().unwrap().to_owned();
        let program = |program: &mut Program| {
            program.executable = Template::constant("run.sh");
            program.input = Some(Template::constant("in.txt"));
        };
        let bad = [
            "../victim",
            "up/victim",
            "results/x",
            "",
            ".",
            "..",
            ".bashrc",
            "link",
            "pipe",
            "run.sh",
            "in.txt",
            &victim,
        ];
        for name in bad {
            store(&dir, program, vec![file(name)]).expect_err(name);
        }
        store(&dir, program, vec![file("new")]).unwrap();
        // With names given, those and what is below them.
        let named = |program: &mut Program| program.transfer_output = names_of(&["results/", "./one", ".hidden"]);
        for name in ["new", "results.txt", "../victim", "results/../../victim", "run.sh", "link", ""] {
            store(&dir, named, vec![file(name)]).expect_err(name);
        }
        for name in ["results/x", "one", ".hidden"] {
            store(&dir, named, vec![file(name)]).unwrap();
        }
        // Nobody asked for its standard output, and a name that is a directory's is none of a file.
        store(&dir, |p| p.output = None, vec![output(OutputKind::Stdout, b"x", true)]).unwrap_err();
        store(&dir, |p| p.output = Some(Template::constant("")), vec![output(OutputKind::Stdout, b"x", true)])
            .unwrap_err();
        assert_eq!(fs::read(top.join("victim")).unwrap(), b"mine");
        assert_eq!(fs::read(dir.join("run.sh")).unwrap(), b"mine");
        let left = [".hidden", "link", "new", "one", "pipe", "results", "run.sh", "up"];
        assert_eq!(names(&dir), left);
        assert_eq!(names(&top), ["job", "victim"]);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn links_pipes_and_devices_where_an_output_belongs() {
        let dir = scratch("links");
        fs::write(dir.join("real"), "old").unwrap();
        std::os::unix::fs::symlink("real", dir.join("out")).unwrap();
        let stdout = || vec![output(OutputKind::Stdout, b"new", true)];
        // The user's own link is still one afterwards.
        store(&dir, |_| (), stdout()).unwrap();
        assert_eq!(fs::read(dir.join("real")).unwrap(), b"new");
        assert!(fs::symlink_metadata(dir.join("out")).unwrap().is_symlink());
        // Another user's is not followed.
        if nix::unistd::geteuid().is_root() {
            let (user, group) = (nix::unistd::Uid::from_raw(12345), nix::unistd::Gid::from_raw(12345));
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            nix::unistd::fchownat(nix::fcntl::AT_FDCWD, &dir.join("out"), Some(user), Some(group), flags).unwrap();
            let failure = store(&dir, |_| (), stdout()).unwrap_err();
            assert!(failure.ours && failure.why.ends_with("is a symbolic link of user 12345"), "{failure:?}");
        }
        fs::remove_file(dir.join("out")).unwrap();
        std::os::unix::fs::symlink("out", dir.join("out")).unwrap();
        assert!(store(&dir, |_| (), stdout()).unwrap_err().why.contains("too many symbolic links"));
        fs::remove_file(dir.join("out")).unwrap();
        // A pipe would hold us up; /dev/null does not.
        nix::unistd::mkfifo(&dir.join("out"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(store(&dir, |_| (), stdout()).unwrap_err().ours);
        store(&dir, |program| program.output = Some(Template::constant("/dev/null")), stdout()).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_a_node_says_of_sizes_and_modes_is_not_believed() {
        let dir = scratch("sizes");
        let lies = |size: u64| vec![Output { size, ..output(OutputKind::Stdout, b"abc", true) }];
        for size in [0, 2, 4, 1 << 19] {
            assert!(!store(&dir, |_| (), lies(size)).unwrap_err().ours, "{size}");
        }
        // More than the disk holds is not begun; it waits at the site.
        let failure = store(&dir, |_| (), lies(u64::MAX)).unwrap_err();
        assert!(failure.later && failure.why.contains("there is room for"), "{failure:?}");
        assert_eq!(names(&dir), [""; 0]);
        let set = Output { mode: 0o106_777, ..output(OutputKind::Stdout, b"abc", true) };
        store(&dir, |_| (), vec![set]).unwrap();
        let mode = fs::metadata(dir.join("out")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7022, 0, "{mode:o}: no set-user-id bit, and the umask holds");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn many_outputs_are_not_open_at_once() {
        let dir = scratch("many");
        let outputs: Vec<Output> = (0..100).map(|n| file(&format!("f{n}"))).collect();
        let written = write_whole(&whole(&dir, 0, outputs.clone()), false).unwrap();
        assert!(written.iter().all(|aside| aside.file.is_none()));
        discard(written);
        store(&dir, |_| (), outputs).unwrap();
        assert_eq!(names(&dir).len(), 100);
        fs::remove_dir_all(dir).unwrap();
    }
}
