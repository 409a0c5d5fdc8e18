//! Scratch directories: the starter's own, and in it one for each job that brings its files.
//!
//! ```text
//! vo-SESSION-PROXY.NODE-RANDOM/   0700, removed by the guardian
//!   tmp/                          TMPDIR of the jobs that run in their own directories
//!   ads/12.3-1                    the ad of one of these
//!   blobs/HASH                    input files
//!   jobs/12.3-1/                  one try, until it is acknowledged
//!     work/                       its scratch directory: working directory, TMPDIR
//!     stdout, stderr              beside it, so that no file of the job meets them
//!     kept-1/                     its first checkpoint, until it is with the master
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use ring::digest::{Context, SHA256};
use vo_core::ids::AttemptId;
use vo_core::job::{Checkpoint, Comes, DIRECTORY, Kept, Outcome, Output, OutputKind, Program, is_url};
use vo_wire::work::{FileRef, FileRole};

use super::jobs::{path, reason};
use crate::spool;

/// Bytes of contents within one result; what is larger is fetched.
const INLINE_TOTAL: usize = 256 << 10;

/// Bytes kept of each of standard output and error where the attempt came to nothing: the end of a traceback or a log, and a report of
/// several still fits a frame.
const PARTIAL: u64 = 64 << 10;

/// A job's files come back one by one, and their list travels in one message: bytes that it may take.
const MAX_LIST: usize = 1 << 20;

/// The starter's own directory.
#[derive(Debug, Clone)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// Makes it, which must not be there yet, and checks that files can be written in it.
    pub(super) fn make(&self) -> io::Result<()> {
        let base = self.0.parent().unwrap_or(&self.0);
        if fs::metadata(base)?.mode() & 0o1002 == 0o002 {
            // Another user could put a directory of theirs in the place of ours, and so programs in the place of the jobs'.
            let text = "everyone may write there, and it has no sticky bit";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        for directory in [self.0.clone(), self.tmp(), self.ads(), self.blobs(), self.jobs()] {
            fs::DirBuilder::new().mode(0o700).create(directory)?;
        }
        let probe = self.0.join("probe");
        fs::write(&probe, [0; 4096])?;
        fs::remove_file(probe)
    }

    /// For the temporary files of jobs that have no scratch directory.
    pub(super) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// The ads of jobs that have no scratch directory.
    pub(super) fn ads(&self) -> PathBuf {
        self.0.join("ads")
    }

    /// The ad of its slots.
    pub(super) fn slot_ad(&self) -> PathBuf {
        self.0.join("machine.ad")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    /// What attempts here have written so far, for a starter that can't tell any more.
    pub(super) fn partials(&self) -> Vec<(AttemptId, Vec<Output>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.jobs()).into_iter().flatten().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(spool::attempt) else {
                continue;
            };
            let file = |name: &str| Some(entry.path().join(name));
            let outputs = endings(&captures(file("stdout"), file("stderr")));
            if !outputs.is_empty() {
                found.push((id, outputs));
            }
        }
        found
    }

    /// A try's own.
    pub(super) fn job(&self, id: AttemptId) -> PathBuf {
        self.jobs().join(spool::name(id))
    }
}

/// Removes a directory and all in it, also where a job took away its own permissions. One that isn't there is no error.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Tells a file that a job wrote from one that it only got.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Stamp {
        Stamp { inode: meta.ino(), size: meta.size(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// A try's directory, with its files in place.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    pub(super) executable: PathBuf,
    /// Where standard input is read; a file that other jobs read too.
    pub(super) stdin: Option<PathBuf>,
    pub(super) stdout: Option<PathBuf>,
    pub(super) stderr: Option<PathBuf>,
    given: HashMap<OsString, Stamp>,
    /// Names of inputs that the job's own process fetched: none of them is an output.
    fetched: HashSet<OsString>,
    /// Does it write on where standard output and error end?
    pub(super) append: bool,
}

/// What a try left.
#[derive(Debug)]
pub(super) struct Collected {
    /// Why the result is none, if a promised file is missing or there are too many.
    pub(super) fault: Option<Outcome>,
    pub(super) outputs: Vec<Output>,
    pub(super) paths: BTreeMap<OutputKind, PathBuf>,
    /// Files that the node sends itself, and their URLs.
    pub(super) sent: Vec<(PathBuf, OsString)>,
}

/// What a try leaves to the next one of its job.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) kept: Kept,
    pub(super) paths: BTreeMap<OutputKind, PathBuf>,
    /// The directory of its copies.
    pub(super) aside: Option<PathBuf>,
}

/// Does the list of these take more than one message may?
fn is_long(paths: &BTreeMap<OutputKind, PathBuf>) -> bool {
    let listed = |kind: &OutputKind| match kind {
        OutputKind::File(name) => 64 + name.len(),
        OutputKind::Stdout | OutputKind::Stderr => 64,
    };
    paths.keys().map(listed).sum::<usize>() > MAX_LIST
}

impl Place {
    /// The job's working directory.
    pub(super) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Makes a try's directory `directory` with copies of its files, since jobs may write to them. `blob` says where a content is.
    pub(super) fn make(
        directory: PathBuf,
        program: &Program,
        id: AttemptId,
        files: &[FileRef],
        blob: impl Fn(&FileRef) -> PathBuf,
    ) -> Result<Place, Outcome> {
        let named = path(&program.executable.expand(id.job)).to_owned();
        let comes = |kind| program.comes(&kind) != Comes::Never;
        let mut place = Place {
            executable: directory.join("work").join(&named),
            stdin: None,
            stdout: program.output.as_ref().filter(|_| comes(OutputKind::Stdout)).map(|_| directory.join("stdout")),
            stderr: program.error.as_ref().filter(|_| comes(OutputKind::Stderr)).map(|_| directory.join("stderr")),
            given: HashMap::new(),
            fetched: urls(program, id).into_iter().map(|(_, name)| name).collect(),
            append: false,
            directory,
        };
        // What an earlier try wrote is an output as if this one had.
        let mut kept = HashSet::new();
        if program.output == program.error && place.stdout.is_some() && place.stderr.is_some() {
            place.stderr.clone_from(&place.stdout);
        }
        let work = place.work();
        if program.input_there {
            place.stdin = program.input.as_ref().map(|input| work.join(path(&input.expand(id.job))));
        }
        let failed =
            |what: &Path, e: &io::Error| Outcome::SiteFailed(format!("cannot make {}: {}", what.display(), reason(e)));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&work).map_err(|e| failed(&work, &e))?;
        for file in files {
            let (target, mode) = match &file.role {
                FileRole::Stdin => {
                    place.stdin = Some(blob(file));
                    continue;
                }
                FileRole::Executable => {
                    let name =
                        named.file_name().ok_or_else(|| Outcome::Unrunnable("the executable has no name".into()))?;
                    place.executable = work.join(name);
                    (place.executable.clone(), 0o755)
                }
                FileRole::Input(name) => (work.join(within(path(name))?), file.mode & 0o777 | 0o600),
                FileRole::Kept(OutputKind::File(name)) => {
                    let name = within(path(name))?;
                    kept.extend(name.iter().next().map(OsString::from));
                    (work.join(name), file.mode & 0o777 | 0o600)
                }
                FileRole::Kept(stream) => {
                    let target = if *stream == OutputKind::Stdout { &place.stdout } else { &place.stderr };
                    let Some(target) = target.clone() else { continue };
                    place.append = true;
                    (target, 0o644)
                }
            };
            let copied = target
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::copy(blob(file), &target).map(drop))
                .and_then(|()| fs::set_permissions(&target, fs::Permissions::from_mode(mode)));
            copied.map_err(|e| failed(&target, &e))?;
        }
        place.fetched.retain(|name| !kept.contains(name));
        for entry in fs::read_dir(&work).map_err(|e| failed(&work, &e))?.flatten() {
            if let Ok(meta) = entry.metadata()
                && !kept.contains(&entry.file_name())
            {
                place.given.insert(entry.file_name(), Stamp::of(&meta));
            }
        }
        Ok(place)
    }

    /// Where standard output and error are; one, if they go to one file.
    pub(super) fn captures(&self) -> Captures {
        captures(self.stdout.clone(), self.stderr.clone())
    }

    /// Looks through what the job left. `ended` tells how, for messages. Reads all of it: not for the event loop.
    pub(super) fn collect(
        &self,
        program: &Program,
        id: AttemptId,
        ended: &str,
        limits: (u64, u32),
        well: bool,
    ) -> Collected {
        let mut left = Collected { fault: None, outputs: Vec::new(), paths: BTreeMap::new(), sent: Vec::new() };
        left.paths = self.captures();
        if let Ok(why) = fs::read_to_string(unfetched(&self.work())) {
            left.fault = Some(Outcome::SiteFailed(why.split_whitespace().collect::<Vec<_>>().join(" ")));
            return left;
        }
        cut_all(&left.paths, limits.0);
        match &program.transfer_output {
            _ if program.only_success && !well => {}
            None => self.changed(&mut left.paths),
            Some(names) => {
                for name in names {
                    let name = name.expand(id.job);
                    if let Err(why) = self.named(path(&name), &mut left.paths) {
                        let text = format!("transfer_output_files: {}: {why} ({ended})", path(&name).display());
                        left.fault.get_or_insert(Outcome::OutputFailed(text));
                    }
                }
            }
        }
        left.paths.retain(|kind, path| {
            let url = program.url(id.job, kind);
            left.sent.extend(
                url.iter().filter(|_| !path.is_dir()).map(|url| (path.clone(), OsString::from_vec(url.clone()))),
            );
            url.is_none()
        });
        if is_long(&left.paths) {
            let text = format!(
                "the job left {} files, too many to bring back one by one: let it pack them, or name some in \
                 transfer_output_files ({ended})",
                left.paths.len()
            );
            left.fault = Some(Outcome::OutputFailed(text));
            left.paths.retain(|kind, _| !matches!(kind, OutputKind::File(_)));
        }
        let mut room = INLINE_TOTAL;
        for (kind, path) in &left.paths {
            match describe(kind, path, room.min(limits.1 as usize)) {
                Ok(output) => {
                    room -= output.inline.as_ref().map_or(0, Vec::len);
                    left.outputs.push(output);
                }
                Err(e) => {
                    let text = format!("cannot read {}: {} ({ended})", path.display(), reason(&e));
                    left.fault.get_or_insert(Outcome::SiteFailed(text));
                }
            }
        }
        left
    }

    /// A checkpoint of the job, or, if it was interrupted otherwise, what that leaves to its next try; none if that gets nothing. Copied, if
    /// the program goes on. Reads all of it, as [`Place::collect`] does.
    pub(super) fn keep(
        &self,
        program: &Program,
        id: AttemptId,
        number: u32,
        checkpoint: Option<&Checkpoint>,
        goes_on: bool,
        inline: u32,
    ) -> Result<Option<Set>, Outcome> {
        let mut paths = BTreeMap::new();
        let named = checkpoint.and_then(|checkpoint| checkpoint.files.as_deref());
        if checkpoint.is_none() && (!program.keep_evicted || program.checkpoint.is_some()) {
            return Ok(None);
        }
        if checkpoint.is_some() || program.append {
            paths = self.captures();
        }
        let files = named.or(program.transfer_output.as_deref());
        match files {
            None => self.changed(&mut paths),
            Some(names) => {
                for name in names {
                    let name = name.expand(id.job);
                    // An output may not be there yet.
                    if let Err(why) = self.named(path(&name), &mut paths)
                        && named.is_some()
                    {
                        let text = format!("transfer_checkpoint_files: {}: {why}", path(&name).display());
                        return Err(Outcome::Unrunnable(text));
                    }
                }
            }
        }
        paths.retain(|_, path| !path.is_dir());
        if is_long(&paths) {
            let text = format!("the job's checkpoint has {} files, too many: let it pack them", paths.len());
            return Err(Outcome::Unrunnable(text));
        }
        let failed = |path: &Path, e: &io::Error| {
            Outcome::SiteFailed(format!("cannot keep {} for the next try: {}", path.display(), reason(e)))
        };
        let aside = goes_on.then(|| self.directory.join(format!("kept-{number}")));
        if let Some(aside) = &aside {
            fs::DirBuilder::new().mode(0o700).create(aside).map_err(|e| failed(aside, &e))?;
            for (name, path) in paths.values_mut().enumerate() {
                let copy = aside.join(name.to_string());
                fs::copy(&path, &copy).map_err(|e| failed(path, &e))?;
                *path = copy;
            }
        }
        let mut room = INLINE_TOTAL;
        let mut outputs = Vec::new();
        for (kind, path) in &paths {
            let output = describe(kind, path, room.min(inline as usize)).map_err(|e| failed(path, &e))?;
            room -= output.inline.as_ref().map_or(0, Vec::len);
            outputs.push(output);
        }
        Ok(Some(Set { kept: Kept { number, outputs }, paths, aside }))
    }

    /// Regular files at the top of the scratch directory that are new or were written to; hidden ones only if they are named.
    fn changed(&self, paths: &mut BTreeMap<OutputKind, PathBuf>) {
        for entry in fs::read_dir(self.work()).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let written = |meta: &fs::Metadata| self.given.get(&name) != Some(&Stamp::of(meta));
            let hidden = name.as_bytes().starts_with(b".") || self.fetched.contains(&name);
            let left = entry.metadata().is_ok_and(|meta| meta.is_file() && written(&meta)) || self.links_within(&path);
            if !hidden && left && path != self.executable {
                paths.insert(OutputKind::File(name.into_vec()), path);
            }
        }
    }

    /// Is it a link to a file of the scratch directory? It counts as that file; links to what lies elsewhere stay behind.
    fn links_within(&self, path: &Path) -> bool {
        let work = || fs::canonicalize(self.work());
        let inside = |target: PathBuf| target.is_file() && work().is_ok_and(|work| target.starts_with(work));
        path.is_symlink() && fs::canonicalize(path).is_ok_and(inside)
    }

    /// A file that was asked for; of a directory, all files in it, and those directories that have nothing in them.
    fn named(&self, name: &Path, paths: &mut BTreeMap<OutputKind, PathBuf>) -> Result<(), String> {
        let name = within(name).map_err(|_| "not within the scratch directory".to_owned())?;
        let path = self.work().join(&name);
        let meta = fs::metadata(&path).map_err(|e| reason(&e))?;
        if meta.is_file() {
            paths.insert(OutputKind::File(name.into_os_string().into_vec()), path);
        } else if meta.is_dir() {
            let mut entries = fs::read_dir(&path).map_err(|e| reason(&e))?.flatten().peekable();
            if entries.peek().is_none() {
                paths.insert(OutputKind::File(name.clone().into_os_string().into_vec()), path.clone());
            }
            for entry in entries {
                let kind = entry.file_type().map_err(|e| reason(&e))?;
                // Only the job's own links to directories could lead in circles; what they show is elsewhere anyway.
                if kind.is_file() || kind.is_dir() || self.links_within(&entry.path()) {
                    self.named(&name.join(entry.file_name()), paths)?;
                }
            }
        } else {
            return Err("neither a file nor a directory".to_owned());
        }
        Ok(())
    }
}

/// The inputs that the node fetches itself: their URLs, and the names that they get.
pub(super) fn urls(program: &Program, id: AttemptId) -> Vec<(OsString, OsString)> {
    let urls = program.transfer_input.iter().map(|input| input.expand(id.job)).filter(|name| is_url(name));
    let named = urls.map(|url| {
        let bare = url.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
        let name = bare.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
        (OsString::from_vec(url), OsString::from_vec(name))
    });
    named.collect()
}

/// Where it is told that an input of the job with this working directory could not be fetched.
pub(super) fn unfetched(work: &Path) -> PathBuf {
    work.with_file_name("unfetched")
}

/// Where it is told that an output of the job with this working directory could not be sent.
pub(super) fn unsent(work: &Path) -> PathBuf {
    work.with_file_name("unsent")
}

/// `name`, if it stays within the directory that it is relative to; without superfluous parts.
fn within(name: &Path) -> Result<PathBuf, Outcome> {
    let mut clean = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Outcome::Unrunnable(format!("{} is not within the scratch directory", name.display())));
            }
        }
    }
    if clean.as_os_str().as_bytes().is_empty() {
        return Err(Outcome::Unrunnable("a file without a name".to_owned()));
    }
    Ok(clean)
}

/// Files of standard output and error.
pub(super) type Captures = BTreeMap<OutputKind, PathBuf>;

/// One file for both is one of standard output.
pub(super) fn captures(stdout: Option<PathBuf>, stderr: Option<PathBuf>) -> Captures {
    let stderr = stderr.filter(|stderr| stdout.as_ref() != Some(stderr));
    let kinds = [(OutputKind::Stdout, stdout), (OutputKind::Stderr, stderr)];
    kinds.into_iter().filter_map(|(kind, path)| Some((kind, path?))).collect()
}

/// See [`ending`].
pub(super) fn endings(captures: &Captures) -> Vec<Output> {
    captures.iter().filter_map(|(kind, path)| ending(kind, path)).collect()
}

/// Gives back the disk space of captured output beyond `limit`, while the job goes on writing.
pub(super) fn trim(captures: &Captures, limit: u64) {
    for path in captures.values() {
        // Where the file system can't punch holes, the output is cut at the job's end all the same.
        let _ = punch(path, limit);
    }
}

/// Cuts what is longer than `limit`.
pub(super) fn cut_all(captures: &Captures, limit: u64) {
    for path in captures.values() {
        let _ = cut(path, limit);
    }
}

fn punch(capture: &Path, limit: u64) -> io::Result<()> {
    let size = size(capture)?;
    let (Ok(from), Ok(length)) = (i64::try_from(limit), i64::try_from(size.saturating_sub(limit))) else {
        return Ok(());
    };
    if length > 0 {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(OpenOptions::new().write(true).open(capture)?, flags, from, length)?;
    }
    Ok(())
}

/// A device or a pipe has none.
fn size(capture: &Path) -> io::Result<u64> {
    let meta = fs::metadata(capture)?;
    Ok(if meta.is_file() { meta.len() } else { 0 })
}

/// Cuts what is longer than `limit`, and says so at its end.
fn cut(capture: &Path, limit: u64) -> io::Result<()> {
    let size = size(capture)?;
    if size > limit {
        let mut file = OpenOptions::new().append(true).open(capture)?;
        file.set_len(limit)?;
        writeln!(file, "\n[vo-login: cut here, {limit} of {size} bytes are kept]")?;
    }
    Ok(())
}

/// Opens a file that a job left. It may have put a pipe there, which would never open.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn describe(kind: &OutputKind, path: &Path, inline: usize) -> io::Result<Output> {
    if path.is_dir() {
        // One that has nothing in it.
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&SHA256, b"").as_ref());
        return Ok(Output { kind: kind.clone(), size: 0, hash, mode: DIRECTORY | 0o755, inline: Some(Vec::new()) });
    }
    let mut file = open_regular(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    let mut digest = Context::new(&SHA256);
    let mut kept = Some(Vec::new());
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let piece = match file.read(&mut buffer)? {
            0 => break,
            length => buffer.get(..length).unwrap_or_default(),
        };
        digest.update(piece);
        size += piece.len() as u64;
        kept = kept.filter(|kept| kept.len() + piece.len() <= inline);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(piece);
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.finish().as_ref());
    Ok(Output { kind: kind.clone(), size, hash, mode, inline: kept })
}

/// The end of what an attempt wrote that does not count, to come within its result; none if it wrote nothing to a file.
pub(super) fn ending(kind: &OutputKind, path: &Path) -> Option<Output> {
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok().filter(|meta| meta.is_file() && meta.len() > 0)?;
    let from = meta.len().saturating_sub(PARTIAL);
    let mut data = Vec::new();
    if from > 0 {
        data = format!("[vo-login: the last {PARTIAL} of {} bytes]\n", meta.len()).into_bytes();
    }
    let mut piece = vec![0; usize::try_from(meta.len() - from).ok()?];
    let read = file.read_at(&mut piece, from).ok()?;
    data.extend(piece.get(..read)?);
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&SHA256, &data).as_ref());
    Some(Output { kind: kind.clone(), size: data.len() as u64, hash, mode: 0o600, inline: Some(data) })
}

/// What was written to a file from `offset` on, at most so much.
pub(super) fn next(path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(most);
    let mut data = vec![0; left.min(most)];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

/// A piece of a file, exactly as long as asked.
pub(super) fn piece(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; length];
    open_regular(path)?.read_exact_at(&mut data, offset)?;
    Ok(data)
}
