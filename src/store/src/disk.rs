use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Lock, StoreError};

/// One directory of files, as far as a [`Log`](crate::Log) needs it: the seam at which a simulator puts its disk.
///
/// Nothing is durable before the sync of its file returns, and no name before [`sync_dir`](Disk::sync_dir) does. Until
/// then a crash may keep or lose any part of it, in any order.
pub trait Disk {
    /// An open file; it stays the same file when its name changes.
    type File: std::fmt::Debug;

    /// The path of a file, for messages.
    fn path(&self, name: &str) -> PathBuf;
    /// The names of all files.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// The whole content of a file.
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;
    /// A file's length in bytes.
    fn length(&mut self, name: &str) -> io::Result<u64>;
    /// Makes an empty file, or empties the one of that name.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for writing.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;
    /// Writes all bytes at an offset. On an error some of them may have been written.
    fn write(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends a file to a length in bytes.
    fn truncate(&mut self, file: &mut Self::File, length: u64) -> io::Result<()>;
    /// Makes a file's content and length durable. After an error it is unknown which part is.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Gives a file another name, replacing the file that has it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names of all files durable.
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// A directory of the operating system, locked against every other process, or one that no other writes.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    _lock: Option<Lock>,
}

impl RealDisk {
    /// Locks a directory. If it is absent, either makes it and its parents, all durable and closed to other users,
    /// or fails with [`StoreError::Missing`].
    pub fn open(dir: &Path, create: bool) -> Result<Self, StoreError> {
        if create {
            make_dir(dir).map_err(|source| StoreError::Io { action: "make", file: dir.to_owned(), source })?;
        } else if !dir.is_dir() {
            return Err(StoreError::Missing { file: dir.to_owned() });
        }
        Ok(Self { dir: dir.to_owned(), _lock: Some(Lock::acquire(dir)?) })
    }

    /// A directory that only this process writes, as the caller knows; it is made if it is absent. Some file servers have no locks.
    pub fn open_own(dir: &Path) -> Result<Self, StoreError> {
        make_dir(dir).map_err(|source| StoreError::Io { action: "make", file: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), _lock: None })
    }

    /// A directory that another process writes, to read it as it is; if it is absent, nothing is found in it.
    pub fn of_another(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), _lock: None }
    }
}

impl Disk for RealDisk {
    type File = File;

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn length(&mut self, name: &str) -> io::Result<u64> {
        fs::metadata(self.path(name)).map(|found| found.len())
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.path(name);
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path(name))
    }

    fn write(&mut self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, file: &mut File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        sync_dir(&self.dir)
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // The file system has no such operation: its names are as durable as they get.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// The directory that holds a path.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Makes a directory and its parents, with mode 0700, and their names durable.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if parent(dir) != dir {
        make_dir(parent(dir))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        result => result?,
    }
    sync_dir(parent(dir))
}

/// Replaces a file whole or not at all, whenever the process or machine may crash.
///
/// The bytes go to a hidden file beside `path`, which is synced and then renamed; the file has exactly the permission
/// bits of `mode`, whatever the umask. When this returns `Ok`, the new content is durable. Several threads and
/// processes may write one path at once: one of them wins.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file"));
    };
    let dir = parent(path);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}-{count}", std::process::id()));
    let aside = dir.join(aside);

    let create = || OpenOptions::new().write(true).create_new(true).mode(mode & 0o600).open(&aside);
    let mut file = match create() {
        // An earlier process of our number died here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&aside).and_then(|()| create()),
        result => result,
    }?;
    let result = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&aside, path));
    if let Err(error) = result {
        // The first error is the one to report.
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    sync_dir(dir)
}
