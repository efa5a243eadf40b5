//! The real directory. The one file of this layer that may hold `unsafe`: it maps files.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate, flock};

use super::{DirLock, FileBytes, Storage, StorageFile};
use crate::persist::format::LOCK;

/// Cached pages are given up in multiples of this, in bytes. It is a power of two, and no cached folio of a file
/// crosses such a boundary.
const UNCACHED_AT_ONCE: u64 = 4 << 20;

/// A directory of the file system.
pub struct RealStorage {
    dir: PathBuf,
}

impl RealStorage {
    /// Opens the directory and creates it, with its parents, when it is missing.
    ///
    /// A created directory is made durable by syncing its parent.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        let mut missing = Vec::new();
        let mut at = dir.as_path();
        while !at.exists() {
            missing.push(at);
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        std::fs::create_dir_all(&dir)?;
        for created in missing {
            if let Some(parent) = created.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir })
    }
}

impl Storage for RealStorage {
    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    fn lock(&self) -> io::Result<DirLock> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path(LOCK))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(DirLock(Box::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new().create_new(true).write(true).open(self.path(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut file = OpenOptions::new().write(true).open(self.path(name))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn read(&self, name: &str) -> io::Result<FileBytes> {
        let file = File::open(self.path(name))?;
        if file.metadata()?.len() == 0 {
            return Ok(FileBytes::Shared(Arc::from([])));
        }
        // SAFETY: a mapping is undefined only if the file changes or shrinks under it.
        // 1. The directory's lock keeps every other Ironkeep away for as long as we run.
        // 2. We ourselves never write to a file that is mapped: a log segment is mapped only by a
        //    recovery, beside which a new one is written; a torn one is cut only after its map was
        //    dropped, and none is recycled while a recovery lives (`Store::remove_replaced`); snapshots
        //    and manifests are never changed after their rename.
        // 3. Removing a mapped file leaves its pages in place.
        let map = unsafe { Mmap::map(&file)? };
        Ok(FileBytes::Mapped(Arc::new(map)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A name that is not UTF-8 is not ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path(name).try_exists()
    }
}

struct RealFile {
    file: File,
    /// Up to which offset the disk keeps room for it, in bytes; 0 for no further than its length.
    reserved: AtomicU64,
    /// Up to which offset the system was told not to cache it, in bytes.
    uncached: AtomicU64,
}

impl RealFile {
    fn new(file: File) -> RealFile {
        RealFile { file, reserved: AtomicU64::new(0), uncached: AtomicU64::new(0) }
    }
}

impl StorageFile for RealFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Cutting the file also gives up the reserved room.
        self.reserved.store(0, Ordering::Relaxed);
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64) {
        let before = self.reserved.load(Ordering::Relaxed);
        // Not every file system supports this.
        if before < len && fallocate(&self.file, FallocateFlags::KEEP_SIZE, before, len - before).is_ok() {
            self.reserved.store(len, Ordering::Relaxed);
        }
    }

    fn uncache(&self, end: u64) {
        let end = end & !(UNCACHED_AT_ONCE - 1);
        let before = self.uncached.fetch_max(end, Ordering::Relaxed);
        if let Some(len) = end.checked_sub(before).and_then(NonZeroU64::new) {
            // This is advice. Nothing depends on it.
            let _ = fadvise(&self.file, before, Some(len), Advice::DontNeed);
        }
    }
}

impl Drop for RealFile {
    fn drop(&mut self) {
        if *self.reserved.get_mut() > 0 {
            // Nobody writes any more. Truncating the file to its own length frees the reserved room behind it. If
            // that fails, removing the file frees the room.
            let _ = self.file.metadata().and_then(|metadata| self.file.set_len(metadata.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path().join("a/b")).unwrap();
        let lock = storage.lock().unwrap();
        let Err(refused) = storage.lock() else { panic!("locked twice") };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        storage.lock().unwrap();
    }

    #[test]
    fn files_are_created_once_appended_cut_listed_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let file = storage.create("one").unwrap();
        assert!(storage.create("one").is_err());
        file.append(b"hello ").unwrap();
        file.append(b"world").unwrap();
        file.sync_data().unwrap();
        assert_eq!(&*storage.read("one").unwrap(), b"hello world");
        storage.open("one").unwrap().set_len(5).unwrap();
        storage.open("one").unwrap().append(b"!").unwrap();
        assert_eq!(&*storage.read("one").unwrap(), b"hello!");
        storage.rename("one", "two").unwrap();
        storage.sync_dir().unwrap();
        assert_eq!(storage.list().unwrap(), ["two"]);
        assert!(!storage.exists("one").unwrap());
        storage.remove("two").unwrap();
        assert!(storage.read("two").is_err());
        storage.create("empty").unwrap();
        assert_eq!(storage.read("empty").unwrap().len(), 0);
    }

    #[test]
    fn what_need_not_stay_in_memory_is_there_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let file = storage.create("one").unwrap();
        let bytes: Vec<u8> = (0..3 * UNCACHED_AT_ONCE).map(|at| (at % 251) as u8).collect();
        file.write_at(0, &bytes).unwrap();
        // This works before the bytes are durable, too.
        file.uncache(UNCACHED_AT_ONCE);
        file.sync_data().unwrap();
        for end in [2 * UNCACHED_AT_ONCE + 5, 7, u64::MAX] {
            file.uncache(end);
            assert!(*storage.read("one").unwrap() == bytes[..], "up to {end}");
        }
        file.write_at(10, b"again").unwrap();
        assert_eq!(storage.read("one").unwrap()[10..15], *b"again");
    }

    #[test]
    fn reserved_room_is_no_length_and_goes_with_the_file() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let blocks_of = |name| std::fs::metadata(dir.path().join(name)).unwrap().blocks();
        let file = storage.create("one").unwrap();
        file.append(b"hello").unwrap();
        file.sync_data().unwrap();
        let before = blocks_of("one");
        file.reserve(4 << 20);
        let reserved = blocks_of("one");
        file.append(b" world").unwrap();
        file.sync_data().unwrap();
        assert_eq!(&*storage.read("one").unwrap(), b"hello world");
        drop(file);
        // The rest applies only to a file system that can reserve.
        if reserved > before {
            assert!(reserved >= (4 << 20) / 512);
            assert!(blocks_of("one") <= before.max(8), "{} blocks", blocks_of("one"));
        }
        assert_eq!(&*storage.read("one").unwrap(), b"hello world");
    }
}
