//! The real directory. The one file of this layer that may hold `unsafe`: it maps files.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock, ioctl_ficlone, statvfs};
use rustix::io::Errno;

use super::{DirLock, FileBytes, Room, Space, Storage, StorageFile, StorageReader};
use crate::persist::format::{LOCK, ROOM};

/// Cached pages are given up in multiples of this, in bytes. It is a power of two, and no cached folio of a file
/// crosses such a boundary.
const UNCACHED_AT_ONCE: u64 = 4 << 20;

/// Files up to this length are read, larger ones are mapped, in bytes.
const READ_WHOLE_MAX: u64 = 1 << 20;
/// How much is read at a time, in bytes.
const PIECE: usize = 1 << 20;

/// Reads a file from its beginning to its end. An error says where it happened.
fn read_through(file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; (file.metadata()?.len() as usize).clamp(1, PIECE)];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                take(&piece[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("at offset {at}: {error}"))),
        }
    }
}

/// Writes zeros, where a file system cannot reserve.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        file.write_all_at(&zeros[..PIECE.min((bytes - at) as usize)], at)?;
    }
    file.sync_data()
}

/// Maps a file.
fn mapped(file: &File) -> io::Result<FileBytes> {
    // SAFETY: a mapping is undefined only if the file changes or shrinks under it.
    // 1. The directory's lock keeps every other Ironkeep away for as long as we run.
    // 2. We ourselves never change a file that is mapped: a log segment is mapped only by a recovery, which
    //    writes nothing to it but its own bytes, and beside which a new one is written; a torn one is cut only
    //    after its map was dropped, and none is recycled while a recovery lives (`Store::remove_replaced`);
    //    snapshots and manifests are never changed after their rename.
    // 3. Removing a mapped file leaves its pages in place.
    let map = unsafe { Mmap::map(file)? };
    Ok(FileBytes::Mapped(Arc::new(map)))
}

/// The permissions of a new file: its owner alone reads and writes it.
const OWN: u32 = 0o600;

/// A directory of the file system.
pub struct RealStorage {
    dir: PathBuf,
    /// Whether large files are mapped.
    maps: bool,
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
        // What is in it is nobody else's.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        for created in missing {
            if let Some(parent) = created.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir, maps: true })
    }
}

impl RealStorage {
    /// A new directory, or one in which there is nothing.
    ///
    /// # Errors
    /// There is something in it, or it cannot be made.
    pub fn vacant(dir: impl AsRef<Path>) -> io::Result<Self> {
        match std::fs::read_dir(&dir).map(|mut entries| entries.next().is_some()) {
            Ok(true) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Self::open(dir),
        }
    }

    /// The directory as it is, for one who only reads. It must exist.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn existing(dir: impl AsRef<Path>) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        std::fs::read_dir(&dir)?;
        Ok(Self { dir, maps: true })
    }
}

impl Storage for RealStorage {
    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    fn lock(&self) -> io::Result<DirLock> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(OWN).open(self.path(LOCK))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(DirLock(Box::new(file)))
    }

    fn is_locked(&self) -> bool {
        let Ok(file) = std::fs::metadata(self.path(LOCK)) else { return false };
        let inode = format!(":{}", std::os::unix::fs::MetadataExt::ino(&file));
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        locks.lines().any(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            words.next() == Some("FLOCK") && words.any(|word| word.ends_with(&inode))
        })
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new().create_new(true).write(true).mode(OWN).open(self.path(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut file = OpenOptions::new().write(true).open(self.path(name))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn subdirectory(&self, name: &str) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(Self::open(self.path(name))?))
    }

    fn reader(&self, name: &str) -> io::Result<Box<dyn StorageReader>> {
        Ok(Box::new(RealReader(File::open(self.path(name))?)))
    }

    fn link(&self, from: &Path, name: &str) -> io::Result<bool> {
        match std::fs::hard_link(from, self.path(name)) {
            Ok(()) => Ok(true),
            Err(error) => match Errno::from_io_error(&error) {
                // Another file system, one without hard links, or one link too many.
                Some(Errno::XDEV | Errno::PERM | Errno::NOTSUP | Errno::MLINK) => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn reflink(&self, from: &Path, name: &str) -> io::Result<bool> {
        let (from, path) = (File::open(from)?, self.path(name));
        let to = OpenOptions::new().create_new(true).write(true).mode(OWN).open(&path)?;
        if ioctl_ficlone(&to, &from).is_ok() {
            return Ok(true);
        }
        std::fs::remove_file(&path).map(|()| false)
    }

    fn unmapped(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(Self { dir: self.dir.clone(), maps: false }))
    }

    fn read(&self, name: &str) -> io::Result<FileBytes> {
        let file = File::open(self.path(name))?;
        if !self.maps || file.metadata()?.len() <= READ_WHOLE_MAX {
            let mut bytes = Vec::new();
            read_through(&file, |piece| bytes.extend_from_slice(piece))?;
            return Ok(FileBytes::Shared(Arc::from(bytes)));
        }
        // In a map, a sector that cannot be read kills the process. Here it is an error.
        read_through(&file, |_| ())?;
        mapped(&file)
    }

    fn map(&self, name: &str) -> io::Result<FileBytes> {
        let file = File::open(self.path(name))?;
        if file.metadata()?.len() <= READ_WHOLE_MAX { self.read(name) } else { mapped(&file) }
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

    fn space(&self) -> io::Result<Space> {
        let disk = statvfs(&self.dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Space { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) })
    }

    fn keep_room(&self, bytes: u64) -> io::Result<Room> {
        // A file without a name: it is gone with this process, however that ends.
        let unnamed = OFlags::TMPFILE.bits() as i32;
        let file = OpenOptions::new().write(true).mode(OWN).custom_flags(unnamed).open(&self.dir);
        let file = file.or_else(|_| {
            // Not every file system makes such files.
            let path = self.path(ROOM);
            let named = OpenOptions::new().write(true).create(true).truncate(true).mode(OWN).open(&path)?;
            std::fs::remove_file(&path).map(|()| named)
        })?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&file, bytes)?,
            Err(error) => return Err(error.into()),
        }
        Ok(Room(Box::new(file)))
    }
}

struct RealReader(File);

impl StorageReader for RealReader {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = offset + filled as u64;
                    return Err(io::Error::new(error.kind(), format!("at offset {at}: {error}")));
                }
            }
        }
        Ok(filled)
    }

    fn uncache(&self, from: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            // This is advice. Nothing depends on it.
            let _ = fadvise(&self.0, from, Some(len), Advice::DontNeed);
        }
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

    fn links(&self) -> u64 {
        // If it cannot be told, there may be others.
        self.file.metadata().map_or(u64::MAX, |file| std::os::unix::fs::MetadataExt::nlink(&file))
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
        assert!(storage.is_locked());
        drop(lock);
        assert!(!storage.is_locked());
        storage.lock().unwrap();
    }

    #[test]
    fn a_link_is_the_same_file_and_a_reader_sees_it_change() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let other = RealStorage::open(dir.path().join("other")).unwrap();
        let file = storage.create("one").unwrap();
        file.write_at(0, b"hello").unwrap();
        assert!(other.link(&storage.path("one"), "two").unwrap());
        assert_eq!(file.links(), 2);
        assert!(other.link(&storage.path("one"), "two").is_err(), "the name is taken");
        assert!(other.reflink(&storage.path("missing"), "three").is_err());
        let cloned = other.reflink(&storage.path("one"), "three").unwrap();
        assert_eq!(other.exists("three").unwrap(), cloned);
        let reader = other.reader("two").unwrap();
        let mut bytes = [0; 8];
        assert_eq!((reader.read_at(1, &mut bytes).unwrap(), &bytes[..4]), (4, &b"ello"[..]));
        file.write_at(5, b" world").unwrap();
        assert_eq!((reader.len().unwrap(), reader.read_at(4, &mut bytes).unwrap()), (11, 7));
        reader.uncache(0, 11);
        assert_eq!(&bytes[..7], b"o world");
        assert_eq!(reader.read_at(99, &mut bytes).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_says_where() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let Err(error) = storage.read("log") else { panic!("a directory was read") };
        assert!(error.to_string().starts_with("at offset 0: "), "{error}");
    }

    #[test]
    fn short_files_are_read_and_long_ones_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let name = len.to_string();
            storage.create(&name).unwrap().append(&content).unwrap();
            let read = storage.read(&name).unwrap();
            assert_eq!(*read, content[..]);
            assert_eq!(matches!(read, FileBytes::Mapped(_)), len > PIECE);
        }
    }

    #[test]
    fn what_others_may_change_is_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let file = storage.create("one").unwrap();
        file.append(&vec![7; 3 * PIECE]).unwrap();
        let read = storage.unmapped().unwrap().read("one").unwrap();
        // A map would end the process here.
        file.set_len(0).unwrap();
        assert!(read.iter().all(|byte| *byte == 7) && read.len() == 3 * PIECE);
    }

    #[test]
    fn room_is_kept_under_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let space = storage.space().unwrap();
        assert!(space.free <= space.total && space.total > 0);
        let room = storage.keep_room(1 << 20).unwrap();
        assert!(storage.list().unwrap().is_empty());
        drop(room);
        let error = storage.keep_room(1 << 60).err().expect("no disk is that large");
        assert!(crate::persist::storage::is_full(&error) || error.kind() == io::ErrorKind::FileTooLarge, "{error}");
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
