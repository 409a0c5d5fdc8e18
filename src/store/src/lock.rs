use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::StoreError;

/// The longest description of a holder that is read from a lock file: a process id and a host name.
const MAX_HOLDER: u64 = 512;

/// The exclusive right to a directory, held until dropped or until the process ends, however it ends.
///
/// An advisory lock (`flock(2)`) on the file `lock` in the directory. The file stays; only the lock in the kernel
/// counts, and the text in the file tells people who holds it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of an existing directory without waiting; [`StoreError::Busy`] names who has it.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let io = |action| {
            let file = path.clone();
            move |source| StoreError::Io { action, file, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
            Err(TryLockError::WouldBlock) => {
                let mut text = Vec::new();
                // Who it is only helps the message: an unreadable or half-written name is no other error.
                let _ = file.take(MAX_HOLDER).read_to_end(&mut text);
                let text = String::from_utf8_lossy(&text);
                let holder = match text.trim_end() {
                    "" => "another process".to_owned(),
                    holder => holder.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
                };
                return Err(StoreError::Busy { dir: dir.to_owned(), holder });
            }
        }
        let host = nix::unistd::gethostname().map_err(|errno| io("name the host in")(errno.into()))?;
        let holder = format!("process {} on {}\n", std::process::id(), host.to_string_lossy());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(io("write"))?;
        Ok(Self { _file: file })
    }
}
