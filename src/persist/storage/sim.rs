//! A simulated disk, **for tests**: it loses, tears, reorders and fails as asked, from a seed.
//!
//! Every file has two images: what a read returns (volatile) and what survives a power cut (durable). So does the
//! directory. Every call counts as one operation. A planned fault makes one operation fail. A planned crash makes one
//! operation and all later ones fail. [`SimStorage::recover_image`] then returns a disk as the power cut may leave
//! it: unsynced content is lost, cut to a prefix, or kept sector by sector; unsynced directory changes are kept or
//! lost one by one.
//!
//! A failed sync behaves as on Linux: dirty pages are dropped in silence, and a second sync "succeeds" without having
//! written them.
//!
//! Operations fail by their number, or by their kind and their number among those of that kind. The disk can be given
//! a size: what does not fit is stored as far as it fits, and then ENOSPC. To test the tests, the disk can also lie:
//! it then claims success for syncs that it does not do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirLock, FileBytes, Room, Space, Storage, StorageFile, StorageReader};

/// The unit of the system's file cache, in bytes.
const PAGE: usize = 4096;

/// How a planned operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO.
    Io,
    /// ENOSPC.
    NoSpace,
    /// A write that stores half of its bytes and then fails with ENOSPC.
    ShortWrite,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reads content, names or lengths, or takes the lock.
    Read,
    /// Makes a file.
    Create,
    /// Writes content.
    Write,
    /// Cuts or extends a file.
    Resize,
    /// Syncs a file.
    Sync,
    /// Renames a file.
    Rename,
    /// Removes a file.
    Remove,
    /// Syncs the directory.
    SyncDirectory,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 8] = [
        Kind::Read,
        Kind::Create,
        Kind::Write,
        Kind::Resize,
        Kind::Sync,
        Kind::Rename,
        Kind::Remove,
        Kind::SyncDirectory,
    ];
}

/// A simulated directory; clones share it.
#[derive(Clone, Default)]
pub struct SimStorage {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Directory changes since the last `sync_dir`, oldest first.
    pending: Vec<Change>,
    operations: u64,
    /// How many there were of each kind.
    by_kind: [u64; Kind::ALL.len()],
    /// The operations that fail.
    fault: Option<(std::ops::Range<u64>, Fault)>,
    /// The operations of one kind that fail.
    fault_of_kind: Option<(Kind, std::ops::Range<u64>, Fault)>,
    /// How many bytes all files may hold together.
    size: Option<u64>,
    /// How many bytes are kept under no name.
    kept: u64,
    /// Whether syncs only pretend.
    lies: bool,
    crash_at: Option<u64>,
    crashed: bool,
    locked: bool,
}

#[derive(Default, Clone)]
struct Content {
    volatile: Vec<u8>,
    durable: Vec<u8>,
    /// The pages that a failed sync did not write. Later syncs claim success and skip them, until they are changed.
    lost: BTreeSet<usize>,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String, usize),
}

impl SimStorage {
    /// The disk, for an operation. In a schedule of a test, other threads may go on here.
    fn disk(&self) -> parking_lot::MutexGuard<'_, Disk> {
        #[cfg(test)]
        crate::base::schedule::point();
        self.disk.lock()
    }

    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the operation with that number (the first is 0) fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.disk.lock().fault = Some((operation..operation + 1, fault));
    }

    /// Makes that operation and all after it fail, until [`SimStorage::repair`].
    pub fn fail_from(&self, operation: u64, fault: Fault) {
        self.disk.lock().fault = Some((operation..u64::MAX, fault));
    }

    /// Makes operations of one kind fail, by their numbers among those of this kind from now on, the first of which
    /// is 0.
    pub fn fail_kind(&self, kind: Kind, numbers: std::ops::Range<u64>, fault: Fault) {
        let mut disk = self.disk.lock();
        let so_far = disk.by_kind[kind as usize];
        let numbers = so_far + numbers.start..so_far.saturating_add(numbers.end);
        disk.fault_of_kind = Some((kind, numbers, fault));
    }

    /// Gives all files together a size in bytes, or ends that. What they hold already stays.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk.lock().size = bytes;
    }

    /// How many bytes all files hold together.
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// Makes syncs pretend: a planted bug that tests of durability must find.
    pub fn lie_about_syncs(&self) {
        self.disk.lock().lies = true;
    }

    /// Ends the planned faults: operations succeed again.
    pub fn repair(&self) {
        let mut disk = self.disk.lock();
        (disk.fault, disk.fault_of_kind, disk.size) = (None, None, None);
    }

    /// Cuts the power during the operation with that number.
    pub fn crash_at(&self, operation: u64) {
        self.disk.lock().crash_at = Some(operation);
    }

    /// The number of operations so far.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Whether the planned crash has happened.
    pub fn crashed(&self) -> bool {
        self.disk.lock().crashed
    }

    /// The disk as a power cut now may leave it. The seed chooses one of the many ways.
    pub fn recover_image(&self, seed: u64) -> SimStorage {
        let disk = self.disk.lock();
        let mut random = Random(seed ^ 0x9E37_79B9_7F4A_7C15);
        let names = disk.names_after_a_crash(&mut random);
        let files: Vec<Content> = disk.files.iter().map(|file| file.after_a_crash(&mut random)).collect();
        let fresh = Disk { files, names: names.clone(), durable_names: names, ..Disk::default() };
        SimStorage { disk: Arc::new(Mutex::new(fresh)) }
    }

    /// The disk as the death of the process alone leaves it: every completed write is there.
    pub fn process_image(&self) -> SimStorage {
        let disk = self.disk.lock();
        let fresh = Disk {
            files: disk.files.clone(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            pending: disk.pending.clone(),
            ..Disk::default()
        };
        SimStorage { disk: Arc::new(Mutex::new(fresh)) }
    }

    /// Replaces or creates a file's content, durably and without counting an operation. Tests plant damage with it.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.disk.lock();
        let content = Content { volatile: bytes.to_vec(), durable: bytes.to_vec(), lost: BTreeSet::new() };
        disk.files.push(content);
        let id = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), id);
        disk.durable_names.insert(name.to_owned(), id);
    }

    /// A file's volatile content, without counting an operation.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.get(name).map(|&id| disk.files[id].volatile.clone())
    }

    /// Removes a file, durably and without counting an operation.
    pub fn forget(&self, name: &str) {
        let mut disk = self.disk.lock();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }

    /// All names, without counting an operation.
    pub fn names(&self) -> Vec<String> {
        self.disk.lock().names.keys().cloned().collect()
    }
}

/// What an operation does: proceed, proceed and then report the crash, or fail.
enum Fate {
    Go,
    Crash,
    Fail(Fault),
}

impl Fate {
    /// The error of any operation other than a write.
    fn check(&self) -> io::Result<()> {
        match self {
            Self::Go => Ok(()),
            Self::Crash => Err(power_is_off()),
            Self::Fail(fault) => Err(fault_error(*fault)),
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated power cut")
}

fn fault_error(fault: Fault) -> io::Error {
    io::Error::from_raw_os_error(match fault {
        Fault::Io => libc::EIO,
        Fault::NoSpace | Fault::ShortWrite => libc::ENOSPC,
    })
}

impl Disk {
    fn used(&self) -> u64 {
        self.names.values().map(|&id| self.files[id].volatile.len() as u64).sum::<u64>() + self.kept
    }

    fn space(&self) -> Space {
        let total = self.size.unwrap_or(u64::MAX);
        Space { free: total.saturating_sub(self.used()), total }
    }

    /// How far a file may grow, in bytes.
    fn room(&self, id: usize) -> usize {
        let held = self.files[id].volatile.len();
        self.size.map_or(usize::MAX, |size| held.saturating_add(size.saturating_sub(self.used()) as usize))
    }

    fn next_fate(&mut self, kind: Kind) -> io::Result<Fate> {
        if self.crashed {
            return Err(power_is_off());
        }
        let now = self.operations;
        self.operations += 1;
        let of_kind = self.by_kind[kind as usize];
        self.by_kind[kind as usize] += 1;
        if self.crash_at == Some(now) {
            self.crashed = true;
            return Ok(Fate::Crash);
        }
        match &self.fault {
            Some((failing, fault)) if failing.contains(&now) => return Ok(Fate::Fail(*fault)),
            _ => {}
        }
        match &self.fault_of_kind {
            Some((failing, numbers, fault)) if *failing == kind && numbers.contains(&of_kind) => Ok(Fate::Fail(*fault)),
            _ => Ok(Fate::Go),
        }
    }

    fn id(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names_after_a_crash(&self, random: &mut Random) -> BTreeMap<String, usize> {
        let mut names = self.durable_names.clone();
        // Most journals keep a prefix of the changes. Some disks keep any subset.
        let prefix = random.below(2) == 0;
        let kept_of_prefix = random.below(self.pending.len() as u64 + 1) as usize;
        for (index, change) in self.pending.iter().enumerate() {
            let kept = if prefix { index < kept_of_prefix } else { random.below(2) == 0 };
            if !kept {
                continue;
            }
            match change {
                Change::Create(name, id) => {
                    names.insert(name.clone(), *id);
                }
                Change::Rename(from, to, id) => {
                    if names.get(from) == Some(id) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *id);
                }
                Change::Remove(name, id) => {
                    if names.get(name) == Some(id) {
                        names.remove(name);
                    }
                }
            }
        }
        names
    }
}

impl Content {
    /// A sync fails: the system drops what it could not write, and still shows it.
    fn lose(&mut self) {
        for (page, bytes) in self.volatile.chunks(PAGE).enumerate() {
            if self.durable.get(page * PAGE..page * PAGE + bytes.len()) != Some(bytes) {
                self.lost.insert(page);
            }
        }
    }

    /// A sync succeeds.
    fn sync(&mut self) {
        self.durable.truncate(self.volatile.len());
        for (page, bytes) in self.volatile.chunks(PAGE).enumerate().filter(|(page, _)| !self.lost.contains(page)) {
            let (start, end) = (page * PAGE, page * PAGE + bytes.len());
            self.durable.resize(self.durable.len().max(end), 0);
            self.durable[start..end].copy_from_slice(bytes);
        }
    }

    fn after_a_crash(&self, random: &mut Random) -> Content {
        let image = self.image_after_a_crash(random);
        Content { volatile: image.clone(), durable: image, lost: BTreeSet::new() }
    }

    fn image_after_a_crash(&self, random: &mut Random) -> Vec<u8> {
        let (old, new) = (&self.durable, &self.volatile);
        if new.len() < old.len() {
            // A truncation: all or nothing.
            return if random.below(2) == 0 { old.clone() } else { new.clone() };
        }
        let grown = (new.len() - old.len()) as u64;
        match random.below(5) {
            0 => old.clone(),
            1 => new.clone(),
            2 => {
                // A prefix of the changed bytes was written.
                let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
                let written = same + random.below((new.len() - same) as u64 + 1) as usize;
                let mut image = old.clone();
                image.resize(written.max(old.len()), 0);
                image[..written].copy_from_slice(&new[..written]);
                image
            }
            pages => {
                let page = if pages == 3 { 512 } else { PAGE };
                let mut len = new.len();
                if random.below(2) == 0 {
                    len = old.len() + random.below(grown + 1) as usize;
                }
                let mut image = old.clone();
                image.resize(len, 0);
                for start in (0..len).step_by(page) {
                    if random.below(2) == 0 {
                        let end = (start + page).min(len);
                        image[start..end].copy_from_slice(&new[start..end]);
                    }
                }
                image
            }
        }
    }
}

impl Storage for SimStorage {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }

    fn lock(&self) -> io::Result<DirLock> {
        let mut disk = self.disk();
        disk.next_fate(Kind::Read)?.check()?;
        if disk.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.locked = true;
        Ok(DirLock(Box::new(Unlock(self.clone()))))
    }

    fn is_locked(&self) -> bool {
        self.disk.lock().locked
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut disk = self.disk();
        let fate = disk.next_fate(Kind::Create)?;
        if let Fate::Fail(_) = fate {
            fate.check()?;
        }
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.push(Content::default());
        let id = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), id);
        disk.pending.push(Change::Create(name.to_owned(), id));
        fate.check()?;
        Ok(Box::new(SimFile { storage: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut disk = self.disk();
        disk.next_fate(Kind::Read)?.check()?;
        let id = disk.id(name)?;
        Ok(Box::new(SimFile { storage: self.clone(), id }))
    }

    fn reader(&self, name: &str) -> io::Result<Box<dyn StorageReader>> {
        let mut disk = self.disk();
        disk.next_fate(Kind::Read)?.check()?;
        let id = disk.id(name)?;
        Ok(Box::new(SimFile { storage: self.clone(), id }))
    }

    fn read(&self, name: &str) -> io::Result<FileBytes> {
        let mut disk = self.disk();
        disk.next_fate(Kind::Read)?.check()?;
        let id = disk.id(name)?;
        Ok(FileBytes::Shared(Arc::from(disk.files[id].volatile.as_slice())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.next_fate(Kind::Rename)?;
        if let Fate::Fail(_) = fate {
            fate.check()?;
        }
        let id = disk.id(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), id);
        disk.pending.push(Change::Rename(from.to_owned(), to.to_owned(), id));
        fate.check()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.next_fate(Kind::Remove)?;
        if let Fate::Fail(_) = fate {
            fate.check()?;
        }
        let id = disk.id(name)?;
        disk.names.remove(name);
        disk.pending.push(Change::Remove(name.to_owned(), id));
        fate.check()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.next_fate(Kind::Read)?.check()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next_fate(Kind::SyncDirectory)?.check()?;
        disk.durable_names = disk.names.clone();
        disk.pending.clear();
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let mut disk = self.disk();
        disk.next_fate(Kind::Read)?.check()?;
        Ok(disk.names.contains_key(name))
    }

    fn space(&self) -> io::Result<Space> {
        Ok(self.disk.lock().space())
    }

    /// Counts as no operation.
    fn keep_room(&self, bytes: u64) -> io::Result<Room> {
        let mut disk = self.disk.lock();
        if disk.crashed {
            return Err(power_is_off());
        }
        if disk.space().free < bytes {
            return Err(fault_error(Fault::NoSpace));
        }
        disk.kept += bytes;
        Ok(Room(Box::new(Kept(self.clone(), bytes))))
    }
}

struct Kept(SimStorage, u64);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.disk.lock().kept -= self.1;
    }
}

struct Unlock(SimStorage);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.disk.lock().locked = false;
    }
}

struct SimFile {
    storage: SimStorage,
    id: usize,
}

impl StorageFile for SimFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let fate = disk.next_fate(Kind::Write)?;
        let room = disk.room(self.id);
        let content = &mut disk.files[self.id];
        let first = content.volatile.len() / PAGE;
        content.lost.retain(|page| *page < first);
        let fits = bytes.len().min(room - content.volatile.len());
        match fate {
            Fate::Go | Fate::Crash => content.volatile.extend_from_slice(&bytes[..fits]),
            Fate::Fail(Fault::ShortWrite) => {
                content.volatile.extend_from_slice(&bytes[..fits / 2]);
            }
            Fate::Fail(_) => {}
        }
        fate.check()?;
        if fits < bytes.len() { Err(fault_error(Fault::NoSpace)) } else { Ok(()) }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let fate = disk.next_fate(Kind::Write)?;
        let room = disk.room(self.id);
        let content = &mut disk.files[self.id].volatile;
        let fits = bytes.len().min(room.saturating_sub(offset as usize));
        let whole = fits == bytes.len();
        let bytes = match fate {
            Fate::Go | Fate::Crash => &bytes[..fits],
            Fate::Fail(Fault::ShortWrite) => &bytes[..fits / 2],
            Fate::Fail(_) => &[],
        };
        // What stores nothing changes nothing.
        if bytes.is_empty() && !whole {
            fate.check()?;
            return Err(fault_error(Fault::NoSpace));
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        content.resize(content.len().max(end), 0);
        content[start..end].copy_from_slice(bytes);
        disk.files[self.id].lost.retain(|page| !(start / PAGE..end.div_ceil(PAGE)).contains(page));
        fate.check()?;
        if whole { Ok(()) } else { Err(fault_error(Fault::NoSpace)) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let fate = disk.next_fate(Kind::Sync)?;
        let lies = disk.lies;
        let content = &mut disk.files[self.id];
        if let Fate::Fail(_) = fate {
            content.lose();
        }
        fate.check()?;
        if !lies {
            content.sync();
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let fate = disk.next_fate(Kind::Resize)?;
        if let Fate::Fail(_) = fate {
            fate.check()?;
        }
        disk.files[self.id].volatile.resize(len as usize, 0);
        fate.check()
    }
}

impl StorageReader for SimFile {
    fn len(&self) -> io::Result<u64> {
        let disk = self.storage.disk();
        Ok(disk.files[self.id].volatile.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.storage.disk();
        disk.next_fate(Kind::Read)?.check()?;
        let content = &disk.files[self.id].volatile;
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// SplitMix64: small, seeded, and good enough to choose among disasters.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_data_survives_every_crash_and_unsynced_data_does_not_survive_all() {
        let storage = SimStorage::new();
        let file = storage.create("f").unwrap();
        file.append(&[1; 3000]).unwrap();
        file.sync_data().unwrap();
        storage.sync_dir().unwrap();
        file.append(&[2; 9000]).unwrap();
        let (mut lost, mut torn, mut holed, mut whole) = (false, false, false, false);
        for seed in 0..200 {
            let bytes = storage.recover_image(seed).get("f").unwrap();
            assert_eq!(bytes[..3000], [1; 3000]);
            lost |= bytes.len() == 3000;
            whole |= bytes.len() == 12000 && bytes[3000..].iter().all(|&b| b == 2);
            torn |= bytes.len() < 12000 && bytes.len() > 3000;
            let hole = bytes.iter().position(|&b| b == 0);
            holed |= hole.is_some_and(|at| bytes[at..].contains(&2));
        }
        assert!(lost && torn && holed && whole);
    }

    #[test]
    fn directory_entries_are_lost_and_kept_until_synced() {
        let storage = SimStorage::new();
        storage.create("a").unwrap();
        storage.sync_dir().unwrap();
        storage.rename("a", "b").unwrap();
        storage.create("c").unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            seen.insert(storage.recover_image(seed).names());
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
        storage.sync_dir().unwrap();
        for seed in 0..50 {
            assert_eq!(storage.recover_image(seed).names(), ["b", "c"]);
        }
    }

    #[test]
    fn a_failed_sync_drops_what_was_dirty_and_the_retry_lies() {
        let storage = SimStorage::new();
        let file = storage.create("f").unwrap();
        storage.sync_dir().unwrap();
        file.append(b"x").unwrap();
        storage.fail_at(3, Fault::Io);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert!((0..50).any(|seed| storage.recover_image(seed).get("f").unwrap().is_empty()));
    }

    #[test]
    fn operations_fail_by_kind() {
        let storage = SimStorage::new();
        let file = storage.create("f").unwrap();
        storage.fail_kind(Kind::Sync, 1..3, Fault::Io);
        let outcomes: Vec<bool> = (0..4)
            .map(|_| {
                file.append(b"x").unwrap();
                file.sync_data().is_ok()
            })
            .collect();
        assert_eq!(outcomes, [true, false, false, true]);
        assert_eq!(storage.list().unwrap(), ["f"]);
    }

    #[test]
    fn a_full_disk_stores_what_fits_and_has_room_again_for_what_is_removed() {
        let storage = SimStorage::new();
        let (one, two) = (storage.create("one").unwrap(), storage.create("two").unwrap());
        storage.limit(Some(10));
        one.append(&[1; 6]).unwrap();
        assert_eq!(two.append(&[2; 6]).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(storage.get("two").unwrap(), [2; 4]);
        one.write_at(2, &[3; 4]).unwrap();
        assert!(one.write_at(4, &[3; 4]).is_err());
        assert_eq!((storage.used(), storage.get("one").unwrap()), (10, vec![1, 1, 3, 3, 3, 3]));
        storage.remove("one").unwrap();
        two.append(&[2; 6]).unwrap();
        storage.limit(None);
        two.append(&[2; 60]).unwrap();
    }

    #[test]
    fn a_disk_that_lies_loses_what_it_claims_to_have_synced() {
        let storage = SimStorage::new();
        let file = storage.create("f").unwrap();
        storage.sync_dir().unwrap();
        storage.lie_about_syncs();
        file.append(b"x").unwrap();
        file.sync_data().unwrap();
        assert!((0..50).any(|seed| storage.recover_image(seed).get("f").unwrap().is_empty()));
    }

    #[test]
    fn after_the_crash_nothing_works() {
        let storage = SimStorage::new();
        storage.crash_at(1);
        storage.create("a").unwrap();
        assert!(storage.create("b").is_err());
        assert!(storage.list().is_err());
        assert!(storage.crashed());
    }
}
