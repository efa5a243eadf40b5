//! Every access to a file of the data directory goes through [`Storage`].
//!
//! It has two implementations: [`RealStorage`] (one directory) and [`SimStorage`] (a simulated disk for tests, which
//! can lose, tear, reorder and fail). A name is a plain file name inside the one directory. Durability is the
//! caller's job: nothing here syncs unless it is asked to.

mod real;
pub mod sim;

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::Mmap;

pub use real::RealStorage;
pub use sim::SimStorage;

/// A directory that holds one store.
pub trait Storage: Send + Sync {
    /// The path of a file, for messages. An empty name gives the path of the directory.
    fn path(&self, name: &str) -> PathBuf;
    /// Takes the exclusive lock of the directory; `WouldBlock` when another process holds it.
    fn lock(&self) -> io::Result<DirLock>;
    /// Creates a file, which must not exist yet.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Opens an existing file, to append to it or to sync it.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Reads the whole content, mapped where possible.
    fn read(&self, name: &str) -> io::Result<FileBytes>;
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
    /// Asks the file system for room up to this length, in bytes. A write that needs more room than that may wait
    /// while the file system syncs. The file does not grow; closing it gives back what it did not use. This is a
    /// hint: where there is no room, a write will fail.
    fn reserve(&self, _len: u64) {}
    /// Tells the system that the bytes before this offset are durable and will not be read soon, so that it need not
    /// cache them.
    fn uncache(&self, _end: u64) {}
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
