//! What can go wrong between Ironkeep and its disk, in words for the operator.
//!
//! A torn tail is an outcome (see `recover`), not an error. Every variant names the file it is about.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::storage::is_full;

/// A failure of the environment: the disk, the directory, the files in it.
#[derive(Debug)]
pub enum PersistError {
    /// The operating system refused an operation.
    Io {
        /// What was attempted, as a verb: `write`, `sync`, `rename` …
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// Bytes that this store wrote have changed or are missing.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The file was written by a version that this one cannot read.
    Version {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// Another process uses the directory.
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory holds something that a start must not ignore or overwrite in silence.
    Refused {
        /// The file that stands in the way, or is missing.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The log failed earlier. It accepts nothing more until a new snapshot heals it.
    Poisoned {
        /// The failure that poisoned it.
        cause: String,
    },
    /// A cut is already in progress.
    Busy,
}

impl PersistError {
    /// Wraps an I/O error with the operation and the path; made for `map_err`.
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { op, path, source }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// A `Corrupt` at an offset.
    pub(crate) fn corrupt(file: impl AsRef<Path>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.as_ref().to_path_buf(), offset, what: what.into() }
    }
}

impl fmt::Display for PersistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { op, path, source } => write!(f, "cannot {op} {}: {source}", path.display()),
            Self::Corrupt { file, offset, what } => {
                write!(f, "{} is corrupt at offset {offset}: {what}", file.display())
            }
            Self::Version { file, found, supported } => {
                write!(f, "{} has format version {found}; this program reads up to version {supported}", file.display())
            }
            Self::Locked { dir } => {
                write!(f, "the data directory {} is in use by another process", dir.display())
            }
            Self::Refused { file, why } => write!(f, "refusing to go on: {}: {why}", file.display()),
            Self::Poisoned { cause } => write!(f, "the log takes no more writes since: {cause}"),
            Self::Busy => write!(f, "a snapshot is already in progress"),
        }
    }
}

impl std::error::Error for PersistError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
