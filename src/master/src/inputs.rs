//! Files that go to the nodes: found and hashed on the workstation, sent to a site by content hash when its agent asks.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use ring::digest;
use vo_core::ids::JobId;
use vo_core::job::{OutputKind, Program};
use vo_wire::work::{FileRef, FileRole};

/// A content's SHA-256.
pub(crate) type Hash = [u8; 32];

/// Files of one directory given as input at the most: a mistaken `/` must not hang the session.
const MOST_FILES: usize = 10_000;

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(found: &Metadata) -> Self {
        let modified = (found.mtime(), found.mtime_nsec());
        Identity { device: found.dev(), inode: found.ino(), size: found.len(), modified }
    }
}

/// Hashes known so far. Used from blocking tasks, several at once.
#[derive(Default)]
pub(crate) struct Files {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    hashes: HashMap<PathBuf, (Identity, Hash)>,
    paths: HashMap<Hash, (PathBuf, Identity)>,
}

impl Files {
    /// The files that a job of `program` brings to a node that shares nothing. Blocks.
    ///
    /// # Errors
    /// One line that names the file.
    pub(crate) fn of(&self, program: &Program, job: JobId) -> Result<Vec<FileRef>, String> {
        let dir = PathBuf::from(OsStr::from_bytes(&program.initialdir.expand(job)));
        let mut files = Vec::new();
        let path = |bytes: Vec<u8>| dir.join(PathBuf::from(std::ffi::OsString::from_vec(bytes)));
        if program.transfer_executable {
            self.add(&path(program.executable.expand(job)), FileRole::Executable, &mut files)?;
        }
        if let Some(input) = program.input.as_ref().filter(|_| !program.input_there) {
            self.add(&path(input.expand(job)), FileRole::Stdin, &mut files)?;
        }
        for input in &program.transfer_input {
            let name = input.expand(job);
            // The node fetches by itself what has a URL.
            if name.is_empty() || vo_core::job::is_url(&name) {
                continue;
            }
            let found = path(name.clone());
            let whole = !name.ends_with(b"/");
            // With its directories, where it has plain ones.
            let kept = Path::new(OsStr::from_bytes(&name));
            let kept = kept.components().all(|part| matches!(part, Component::Normal(_))).then_some(kept);
            let kept = kept.filter(|_| program.keep_paths);
            if found.is_dir() {
                // `dir` brings the directory, `dir/` what is in it.
                let top = if whole { kept.or(found.file_name().map(Path::new)) } else { Some(Path::new("")) };
                let top = top.ok_or_else(|| format!("{}: has no name to give it on the node", found.display()))?;
                self.add_tree(&found, top, &mut files)?;
            } else {
                let name = kept.map(Path::as_os_str).or(found.file_name());
                let name = name.ok_or_else(|| format!("{}: has no file name", found.display()))?;
                self.add(&found, FileRole::Input(name.as_bytes().to_vec()), &mut files)?;
            }
        }
        Ok(files)
    }

    /// What an earlier attempt left, in the set's directory, over the other files: but never over the job's own program. Blocks.
    ///
    /// # Errors
    /// One line that names the file.
    pub(crate) fn kept(
        &self,
        program: &Program,
        job: JobId,
        set: &Path,
        files: &mut Vec<FileRef>,
    ) -> Result<(), String> {
        let mut found = Vec::new();
        self.add_tree(&set.join("files"), Path::new(""), &mut found)?;
        let own = program.executable.expand(job);
        let own = Path::new(OsStr::from_bytes(&own)).file_name().filter(|_| program.transfer_executable);
        for file in found {
            if let FileRole::Input(name) = file.role
                && own.is_none_or(|own| own.as_bytes() != name)
            {
                files.push(FileRef { role: FileRole::Kept(OutputKind::File(name)), ..file });
            }
        }
        for (name, kind) in [("stdout", OutputKind::Stdout), ("stderr", OutputKind::Stderr)] {
            let path = set.join(name);
            if path.exists() {
                self.add(&path, FileRole::Kept(kind), files)?;
            }
        }
        Ok(())
    }

    fn add_tree(&self, dir: &Path, name: &Path, files: &mut Vec<FileRef>) -> Result<(), String> {
        let failed = |e: io::Error| format!("{}: {e}", dir.display());
        let mut entries: Vec<_> = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<_>>).map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            if files.len() >= MOST_FILES {
                return Err(format!("{}: more than {MOST_FILES} files; pack them", dir.display()));
            }
            if path.is_dir() {
                self.add_tree(&path, &name, files)?;
            } else {
                self.add(&path, FileRole::Input(name.into_os_string().into_vec()), files)?;
            }
        }
        Ok(())
    }

    fn add(&self, path: &Path, role: FileRole, files: &mut Vec<FileRef>) -> Result<(), String> {
        let (hash, found) = self.hash(path).map_err(|e| format!("{}: {e}", path.display()))?;
        files.push(FileRef { role, hash, size: found.len(), mode: found.mode() & 0o777 });
        Ok(())
    }

    fn hash(&self, path: &Path) -> io::Result<(Hash, Metadata)> {
        let found = fs::metadata(path)?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        let identity = Identity::of(&found);
        if let Some((known, hash)) = self.lock().hashes.get(path)
            && *known == identity
        {
            return Ok((*hash, found));
        }
        let mut file = File::open(path)?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => context.update(&buffer[..n]),
            }
        }
        if Identity::of(&file.metadata()?) != identity {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "changes while it is read"));
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        let mut known = self.lock();
        known.hashes.insert(path.to_owned(), (identity, hash));
        known.paths.insert(hash, (path.to_owned(), identity));
        Ok((hash, found))
    }

    /// Opens the file with this content. Blocks.
    ///
    /// # Errors
    /// One line that names the file: no file had it, or it has changed. What stands there now was never meant for the site.
    pub(crate) fn open(&self, hash: &Hash) -> Result<Blob, String> {
        let known = self.lock().paths.get(hash).cloned();
        let (path, identity) = known.ok_or("no file with this content is known any more")?;
        let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let blob = Blob { file, path, size: identity.size, identity };
        blob.check()?;
        Ok(blob)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An open file on its way to a site.
#[derive(Debug)]
pub(crate) struct Blob {
    file: File,
    path: PathBuf,
    identity: Identity,
    pub(crate) size: u64,
}

impl Blob {
    /// Bytes from `offset`, at most `most`; fewer only at the end. Blocks.
    ///
    /// # Errors
    /// One line that names the file.
    pub(crate) fn read(&self, offset: u64, most: usize) -> Result<Vec<u8>, String> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(most);
        let mut bytes = vec![0; most.min(left)];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| format!("{}: {e}", self.path.display()))?;
        // It may have been written to meanwhile.
        self.check().map(|()| bytes)
    }

    fn check(&self) -> Result<(), String> {
        let found = self.file.metadata().map_err(|e| format!("{}: {e}", self.path.display()))?;
        let same = Identity::of(&found) == self.identity;
        same.then_some(()).ok_or_else(|| format!("{}: has changed since the job was sent", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vo_core::template::{Piece, Template};

    #[test]
    fn a_jobs_files_are_found_named_and_hashed() {
        let dir = std::env::temp_dir().join(format!("vo-inputs-{}", std::process::id()));
        fs::create_dir_all(dir.join("data/sub")).unwrap();
        for (name, content) in [("run.sh", "#!"), ("in.3", "three"), ("data/a", "a"), ("data/sub/b", "b")] {
            fs::write(dir.join(name), content).unwrap();
        }
        let numbered = Template(vec![Piece::Text(b"in.".to_vec()), Piece::Process]);
        let mut program = Program {
            executable: Template::constant("run.sh"),
            initialdir: Template::constant(dir.as_os_str().as_bytes()),
            input: Some(numbered),
            transfer_input: vec![Template::constant("data"), Template::constant("data/")],
            transfer_executable: true,
            ..Program::default()
        };
        let files = Files::default();
        let job = JobId { cluster: 1, proc: 3 };
        let found = files.of(&program, job).unwrap();
        let roles: Vec<_> = found.iter().map(|f| f.role.clone()).collect();
        let input = |name: &str| FileRole::Input(name.into());
        let expected =
            [FileRole::Executable, FileRole::Stdin, input("data/a"), input("data/sub/b"), input("a"), input("sub/b")];
        assert_eq!(roles, expected);
        assert_eq!(found[2].hash, found[4].hash);
        assert_eq!(files.open(&found[1].hash).unwrap().read(1, 99).unwrap(), b"hree");
        // A file that changes has another hash; one that is missing is named.
        let half = files.open(&found[1].hash).unwrap();
        fs::write(dir.join("in.3"), "other").unwrap();
        // What it holds now was never promised to anyone: neither whole nor the rest.
        assert!(files.open(&found[1].hash).unwrap_err().ends_with("in.3: has changed since the job was sent"));
        assert!(half.read(0, 99).unwrap_err().contains("has changed"));
        assert_ne!(files.of(&program, job).unwrap()[1].hash, found[1].hash);
        program.transfer_input.push(Template::constant("nowhere"));
        assert!(files.of(&program, job).unwrap_err().contains("nowhere"));
        fs::remove_dir_all(dir).unwrap();
    }
}
