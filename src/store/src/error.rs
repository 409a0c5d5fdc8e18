use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store could not be opened, or a commit or snapshot not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}", file.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On which file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds what no crash of ours could have left there. Nothing was changed.
    #[error("{} is damaged at byte {offset}: {why}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A file of the store is gone, or there is no store and [`Options::create`](crate::Options::create) is off.
    #[error("{} is missing", file.display())]
    Missing {
        /// The file or directory.
        file: PathBuf,
    },
    /// The file has a format that this program does not know, most likely that of a newer one.
    #[error("{} has format version {found}; this program reads version 1", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u8,
    },
    /// Another process has the directory open.
    #[error("{} is in use by {holder}", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
        /// `process PID on HOST`, as the holder wrote it.
        holder: String,
    },
    /// The caller's replay refused the snapshot or a record.
    #[error("cannot replay {} at byte {offset}", file.display())]
    Replay {
        /// The file.
        file: PathBuf,
        /// Where the snapshot's or record's body starts in it.
        offset: u64,
        /// What the caller said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A record longer than [`MAX_RECORD`](crate::MAX_RECORD) was appended.
    #[error("a record of {bytes} bytes is longer than the log takes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The log cannot tell any more what is durable. The caller's state is ahead of the disk: drop it and reopen.
    #[error("{} takes no more until it is reopened", file.display())]
    Poisoned {
        /// The log file.
        file: PathBuf,
        /// What went wrong first.
        source: Arc<StoreError>,
    },
}

impl StoreError {
    /// What a person may do about a store that can't be opened.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let nothing = "nothing was changed";
        match self {
            Self::Damaged { file, .. } => {
                Some(format!("{nothing}; bring {} back from a copy: what is damaged is not guessed at", file.display()))
            }
            Self::Missing { file } => Some(format!("{nothing}; bring {} back from a copy", file.display())),
            Self::Replay { .. } | Self::Version { .. } => {
                Some(format!("{nothing}; it may be the work of a newer version: use that one"))
            }
            Self::Io { file, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("{nothing}; it must be readable and writable for you: see `ls -ld {}`", file.display()))
            }
            Self::Busy { .. } => Some("end that process, or use another directory".into()),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anyone's repair: the disk or quota is full, or another
    /// process has the store. After a failed commit or snapshot with a transient error the log stays good.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Busy { .. } => true,
            _ => false,
        }
    }
}
