//! Every access to a file of the data directory goes through [`Storage`].
//!
//! It has two implementations: [`RealStorage`] (one directory) and [`SimStorage`] (a simulated disk for tests, which
//! can lose, tear, reorder and fail). A name is a plain file name inside the one directory. Durability is the
//! caller's job: nothing here syncs unless it is asked to.

mod real;
pub mod sim;
mod unread;

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

pub use real::RealStorage;
pub use sim::SimStorage;
pub use unread::Unread;

/// A directory that holds one store.
pub trait Storage: Send + Sync {
    /// The path of a file, for messages. An empty name gives the path of the directory.
    fn path(&self, name: &str) -> PathBuf;
    /// Takes the exclusive lock of the directory; `WouldBlock` when another process holds it.
    fn lock(&self) -> io::Result<DirLock>;
    /// Whether somebody holds that lock now, as far as can be told without touching it.
    fn is_locked(&self) -> bool {
        false
    }
    /// Creates a file, which must not exist yet.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Opens an existing file, to append to it or to sync it.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// A directory of this name within the directory, made when it is missing.
    fn subdirectory(&self, _name: &str) -> io::Result<Arc<dyn Storage>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Opens an existing file to read it in pieces. It may change or go meanwhile.
    fn reader(&self, name: &str) -> io::Result<Box<dyn StorageReader>>;
    /// Gives a file of this file system another name, in this directory. The name must be free. Where that cannot be,
    /// `false` is returned, and the caller copies.
    fn link(&self, _from: &Path, _name: &str) -> io::Result<bool> {
        Ok(false)
    }
    /// Makes a file here that shares the blocks of another one until one of them changes. The name must be free. Where
    /// that cannot be, `false` is returned, and the caller copies.
    fn reflink(&self, _from: &Path, _name: &str) -> io::Result<bool> {
        Ok(false)
    }
    /// The same directory, for one who reads files that others may change meanwhile: none is mapped.
    fn unmapped(&self) -> Option<Arc<dyn Storage>> {
        None
    }
    /// Reads the whole content, mapped where possible.
    fn read(&self, name: &str) -> io::Result<FileBytes>;
    /// Maps a file where possible, and reads nothing of it: see [`Unread`].
    fn map(&self, name: &str) -> io::Result<FileBytes> {
        self.read(name)
    }
    /// Renames a file and replaces any file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all plain files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Whether a file of that name exists.
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// How much room there is on the disk.
    fn space(&self) -> io::Result<Space> {
        Ok(Space { free: u64::MAX, total: u64::MAX })
    }
    /// Keeps this much room on the disk, in bytes, under no name: nobody else can use it before it is dropped.
    fn keep_room(&self, _bytes: u64) -> io::Result<Room> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still use.
    pub free: u64,
    /// The size of the file system.
    pub total: u64,
}

/// Room on the disk that nobody uses; given back when dropped.
pub struct Room(#[allow(dead_code)] Box<dyn Any + Send + Sync>);

/// Whether an operation failed because the disk, or a quota of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An open file.
pub trait StorageFile: Send + Sync {
    /// Appends all the bytes, behind those that the file had when it was opened and those appended since.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Writes all the bytes at an offset, over existing bytes and beyond the end. Must not be mixed with appends.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file to a length.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Under how many names the file is known. Somebody may have made a hard link of it, as a backup.
    fn links(&self) -> u64 {
        1
    }
    /// Asks the file system for room up to this length, in bytes. A write that needs more room than that may wait
    /// while the file system syncs. The file does not grow; closing it gives back what it did not use. This is a
    /// hint: where there is no room, a write will fail.
    fn reserve(&self, _len: u64) {}
    /// Tells the system that the bytes before this offset are durable and will not be read soon, so that it need not
    /// cache them.
    fn uncache(&self, _end: u64) {}
}

/// A file that is read in pieces.
pub trait StorageReader: Send + Sync {
    /// Its length now, in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty now.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills the buffer with the bytes at an offset. Returns how many there were: fewer only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Tells the system that these bytes will not be read soon, so that it need not cache them.
    fn uncache(&self, _from: u64, _len: u64) {}
}

/// The exclusive lock of a directory; released when dropped.
pub struct DirLock(#[allow(dead_code)] Box<dyn Any + Send + Sync>);

/// The content of a file, cheap to clone.
#[derive(Clone)]
pub enum FileBytes {
    /// Mapped from the real file.
    Mapped(Arc<Mmap>),
    /// Held in memory.
    Shared(Arc<[u8]>),
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Shared(bytes) => bytes,
        }
    }
}
