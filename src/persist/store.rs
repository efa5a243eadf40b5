//! The store: one directory, one manifest, one log, one snapshot, tied together.
//!
//! A snapshot has these steps: cut (the log continues in a new segment from an exact instant), write, finish (durable
//! under its name), commit (the manifest names it: the only step that changes what would be recovered), and then
//! removal of what it replaces. A crash between any two operations recovers the old state or the new one, whole. Only
//! one cut is in progress at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::lock::{Mutex, Rank};

use super::block::{is_end_mark, read_segment_header};
use super::error::PersistError;
use super::format::{
    MANIFEST_TMP, SEGMENT_DETACHED, SEGMENT_HEADER, segment_name, segment_number, snapshot_name, snapshot_number,
    torn_name,
};
use super::fsync::FsyncThread;
use super::journal::{Journal, Sink};
use super::log::{FsyncPolicy, Log, LogCut, LogSetup};
use super::manifest;
use super::recover::{Recovery, Torn, recover};
use super::snapshot::{FinishedSnapshot, SnapshotWriter, temporary_name};
use super::storage::{DirLock, Storage};
use super::wire::{GenerationWire, ManifestWire, SegmentWire, SnapshotHeaderWire, SnapshotWire};

/// How to open a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// Worker buffers of the log.
    pub workers: usize,
    /// Shards of the keyspace. A directory with another number is refused.
    pub shards: u32,
    /// The hash seed of a fresh directory: random, chosen by the caller.
    pub hash_seed: [u8; 16],
    /// A random number for this run of the process. No client may learn it.
    pub generation: u64,
    /// Whether a log is kept.
    pub appendonly: bool,
    /// When the log is made durable.
    pub policy: FsyncPolicy,
    /// Unix time in ms.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Cut the log where it is corrupt instead of refusing to start.
    pub cut_at_corruption: bool,
    /// Refuse to start on a torn tail instead of cutting it off: `aof-load-truncated no`.
    pub refuse_torn: bool,
    /// Run the fsync thread. Without it (in tests), [`Log::sync_now`] does its work.
    pub fsync_thread: bool,
}

/// A data directory in use by this process.
pub struct Store {
    storage: Arc<dyn Storage>,
    journal: Arc<Journal>,
    log: Arc<Log>,
    manifest: Mutex<ManifestWire>,
    next_snapshot: AtomicU64,
    busy: Arc<AtomicBool>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    generation: u64,
    base_bytes: AtomicU64,
    /// Shared with every live recovery.
    reading: Arc<()>,
    // Fields are dropped in this order: the thread ends before another process may take the directory.
    _thread: Option<FsyncThread>,
    _lock: DirLock,
}

/// A cut in progress. The caller holds the frozen view that belongs to it.
pub struct Cut {
    log: LogCut,
    snapshot: u64,
    time_ms: u64,
    busy: Arc<AtomicBool>,
}

impl Cut {
    /// The last block whose effects the frozen view holds.
    pub fn block(&self) -> u64 {
        self.log.block
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.busy.store(false, Ordering::Release);
    }
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitSummary {
    /// The snapshot's file name.
    pub snapshot: String,
    /// Its length.
    pub bytes: u64,
    /// Keys in it.
    pub entries: u64,
    /// The last block in it.
    pub cut_block: u64,
    /// Files that could not be removed; the next commit tries again.
    pub not_removed: Vec<String>,
}

/// Sizes, for INFO and for automatic compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of log since the last committed snapshot.
    pub log_bytes: u64,
    /// Bytes of the snapshot.
    pub base_bytes: u64,
    /// The last block handed to the operating system.
    pub last_block: u64,
    /// Bytes appended and not yet flushed.
    pub pending_bytes: usize,
}

impl Store {
    /// Opens a directory and recovers its content.
    ///
    /// The log is ready for appends when this returns; the caller then loads the recovery.
    pub fn open(storage: Arc<dyn Storage>, options: StoreOptions) -> Result<(Self, Recovery), PersistError> {
        let lock = take_lock(&*storage)?;
        let (mut manifest, fresh) = read_or_create(&*storage, &options)?;
        let reading = Arc::new(());
        let mut recovery = recover(&storage, &manifest, options.cut_at_corruption, Arc::clone(&reading))?;
        recovery.summary.fresh = fresh;
        // Includes files that are set aside, so that no number is used twice.
        let files = storage.list().map_err(PersistError::io("list", storage.path("")))?;
        if let Some(torn) = recovery.summary.torn.clone() {
            if options.refuse_torn {
                let what = format!(
                    "{}, {} bytes of an incomplete block; with `aof-load-truncated yes` they are cut off and kept aside",
                    torn.what, torn.bytes
                );
                return Err(PersistError::corrupt(&torn.file, torn.offset, &what));
            }
            set_aside(&*storage, &mut recovery, &torn)?;
        }
        settle_log(&*storage, &recovery)?;

        let highest = |of: fn(&str) -> Option<u64>| files.iter().filter_map(|name| of(name)).max();
        let after_disk = highest(segment_number).map_or(1, |number| number.saturating_add(1));
        let found = &recovery.summary;
        let journal = Journal::new(options.workers, found.last_block, found.last_time_ms, Arc::clone(&options.clock));
        let journal = Arc::new(journal);
        let log = Arc::new(Log::new(LogSetup {
            storage: Arc::clone(&storage),
            journal: Arc::clone(&journal),
            hash_seed: manifest.hash_seed,
            generation: options.generation,
            policy: options.policy,
            last_block: recovery.summary.last_block,
            last_crc: recovery.last_crc,
            next_segment: manifest.next_segment.max(after_disk),
            bytes: recovery.summary.log_bytes,
        }));
        journal.attach(Arc::clone(&log) as Arc<dyn Sink>);
        manifest.current.segments = segments_in_use(&recovery);
        if options.appendonly {
            manifest.current.segments.push(log.start()?);
        }
        manifest.sequence += 1;
        manifest.durable_block = recovery.summary.last_block;
        manifest.next_segment = log.next_segment();
        manifest.clean = false;
        manifest::replace(&*storage, &manifest)?;
        remove_strays(&*storage, &manifest, &files);
        log.prepare_spare(false);

        let thread = match options.fsync_thread {
            true => Some(
                FsyncThread::start(Arc::clone(&log))
                    .map_err(PersistError::io("start the fsync thread for", storage.path("")))?,
            ),
            false => None,
        };
        let in_manifest = manifest.current.snapshot.as_ref().map(|snapshot| snapshot.number);
        let next_snapshot = highest(snapshot_number).max(in_manifest).map_or(1, |n| n.saturating_add(1));
        let store = Self {
            base_bytes: AtomicU64::new(recovery.summary.snapshot_bytes),
            storage,
            journal,
            log,
            manifest: Mutex::new(Rank::Manifest, manifest),
            next_snapshot: AtomicU64::new(next_snapshot),
            busy: Arc::new(AtomicBool::new(false)),
            clock: options.clock,
            generation: options.generation,
            reading,
            _thread: thread,
            _lock: lock,
        };
        Ok((store, recovery))
    }

    /// The data directory.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The stream of effects.
    #[inline]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The highest block whose effects a reply may show: asked of those sinks that the policy names. That is the log's
    /// file, if it counts: what is synced under `Always`, else what is written. Without any, every block.
    #[inline]
    pub fn horizon(&self) -> u64 {
        match self.log.policy() {
            _ if !self.log.is_active() => u64::MAX,
            FsyncPolicy::Always => self.log.synced(),
            FsyncPolicy::EverySec | FsyncPolicy::No => self.log.written(),
        }
    }

    /// The log: the stream's file.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Cuts the log at the instant at which `freeze` calls its argument, and returns what it returns.
    ///
    /// `wait` waits until no worker executes anything slow. Then `freeze` stops all workers, freezes the keyspace,
    /// calls its argument once, and lets the workers continue. It is called with the log's writer held, for which
    /// every reply waits. If the workers do not stop at once, it returns `None` and changes nothing, and both are
    /// called again. No worker may hold an appender at the cut.
    pub fn cut<T>(
        &self,
        wait: impl Fn(),
        freeze: impl FnMut(&mut dyn FnMut()) -> Option<T>,
    ) -> Result<(T, Cut), PersistError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(PersistError::Busy);
        }
        self.log.settle();
        match self.log.cut(wait, freeze) {
            Ok((value, log)) => {
                let snapshot = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
                let busy = Arc::clone(&self.busy);
                Ok((value, Cut { log, snapshot, time_ms: (self.clock)(), busy }))
            }
            Err(error) => {
                self.busy.store(false, Ordering::Release);
                Err(error)
            }
        }
    }

    /// A cut without workers to stop.
    #[cfg(test)]
    pub(crate) fn cut_now(&self) -> Result<Cut, PersistError> {
        let freeze = |take: &mut dyn FnMut()| {
            take();
            Some(())
        };
        self.cut(|| (), freeze).map(|((), cut)| cut)
    }

    /// Starts the snapshot file of a cut.
    pub fn snapshot_writer(&self, cut: &Cut) -> Result<SnapshotWriter, PersistError> {
        let manifest = self.manifest.lock();
        let header = SnapshotHeaderWire {
            hash_seed: manifest.hash_seed,
            shards: manifest.shards,
            cut_block: cut.log.block,
            generation: self.generation,
            time_ms: cut.time_ms,
            log_since: cut.log.segment.as_ref().map(|segment| segment.number),
        };
        drop(manifest);
        SnapshotWriter::create(Arc::clone(&self.storage), cut.snapshot, &header)
    }

    /// Makes the snapshot of a cut the store, and removes what it replaces.
    ///
    /// On failure, the old snapshot and the whole log stay valid, and nothing is removed.
    pub fn commit(&self, cut: Cut, finished: FinishedSnapshot) -> Result<CommitSummary, PersistError> {
        assert_eq!(cut.snapshot, finished.number, "the snapshot of another cut");
        let mut manifest = self.manifest.lock();
        manifest.sequence += 1;
        let next = ManifestWire {
            durable_block: cut.log.block,
            next_segment: self.log.next_segment(),
            clean: false,
            current: GenerationWire {
                snapshot: Some(SnapshotWire {
                    number: finished.number,
                    length: finished.length,
                    crc: finished.crc,
                    cut_block: cut.log.block,
                    entries: finished.entries,
                }),
                segments: cut.log.segment.iter().cloned().collect(),
            },
            ..manifest.clone()
        };
        if let Err(error) = manifest::replace(&*self.storage, &next) {
            // The new manifest may nevertheless be on the disk, so every file that either manifest names is kept.
            self.log.discarded(&cut.log);
            return Err(error);
        }
        *manifest = next;
        self.base_bytes.store(finished.length, Ordering::Relaxed);
        self.log.committed(&cut.log);
        let (not_removed, recyclable) = self.remove_replaced(&manifest);
        self.log.prepare_spare(recyclable);
        drop(manifest);
        Ok(CommitSummary {
            snapshot: snapshot_name(finished.number),
            bytes: finished.length,
            entries: finished.entries,
            cut_block: cut.log.block,
            not_removed,
        })
    }

    /// Abandons a cut: its files are removed, and the old snapshot and the whole log stay valid.
    pub fn abandon(&self, cut: Cut) {
        let mut names = vec![temporary_name(cut.snapshot), snapshot_name(cut.snapshot)];
        names.extend(self.log.discarded(&cut.log));
        for name in names {
            // The next commit or start removes what is left.
            let _ = self.storage.remove(&name);
        }
        self.log.prepare_spare(false);
    }

    /// Makes the next cut begin a log, if none is kept. It counts once that cut is committed.
    pub fn keep_log(&self) {
        self.log.keep();
    }

    /// Switches the log off: its content is made durable, and nothing more is logged.
    ///
    /// # Errors
    /// It could not be made durable. It is off nevertheless.
    pub fn turn_log_off(&self) -> Result<(), PersistError> {
        self.log.turn_off()
    }

    /// Sizes, for INFO and for automatic compaction.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            log_bytes: self.log.bytes(),
            base_bytes: self.base_bytes.load(Ordering::Relaxed),
            last_block: self.log.written(),
            pending_bytes: self.journal.pending_bytes(),
        }
    }

    /// Reads the disk again like [`Store::open`], and changes nothing. The caller has stopped all workers and flushed
    /// the log, and keeps it that way until the recovery is loaded and dropped.
    ///
    /// # Errors
    /// The files are damaged, or there are none. The latter would not be an error at a start.
    pub fn read_again(&self) -> Result<Recovery, PersistError> {
        let (manifest, reading) = {
            let manifest = self.manifest.lock();
            (manifest.clone(), Arc::clone(&self.reading))
        };
        let recovery = recover(&self.storage, &manifest, false, reading)?;
        if let Some(torn) = &recovery.summary.torn {
            return Err(PersistError::corrupt(&torn.file, torn.offset, &torn.what));
        }
        if recovery.snapshot.is_none() && recovery.segments.is_empty() {
            let why = "it names neither a snapshot nor a log".to_owned();
            return Err(PersistError::Refused { file: self.storage.path(super::format::MANIFEST), why });
        }
        Ok(recovery)
    }

    /// Makes everything durable and marks the shutdown as clean. The caller has stopped all workers.
    pub fn close(&self) -> Result<(), PersistError> {
        if self.log.is_active() {
            self.log.sync_now()?;
        }
        let mut manifest = self.manifest.lock();
        manifest.sequence += 1;
        let next = ManifestWire {
            durable_block: manifest.durable_block.max(self.durable_on_disk()),
            next_segment: self.log.next_segment(),
            clean: true,
            ..manifest.clone()
        };
        manifest::replace(&*self.storage, &next)?;
        *manifest = next;
        Ok(())
    }

    /// The highest durable block that a recovery would find, without a log that does not count yet.
    fn durable_on_disk(&self) -> u64 {
        if self.log.is_active() && !self.log.is_detached() { self.log.synced() } else { 0 }
    }

    /// Removes the snapshots and segments that a commit made superfluous. Returns what could not be removed, and
    /// whether the log's retired segment is left, to be recycled before the caller releases the manifest's lock.
    fn remove_replaced(&self, manifest: &ManifestWire) -> (Vec<String>, bool) {
        let Ok(files) = self.storage.list() else { return Default::default() };
        let snapshot = manifest.current.snapshot.as_ref().map(|snapshot| snapshot.number);
        let first = match manifest.current.segments.first() {
            Some(segment) => segment.number,
            None => manifest.next_segment,
        };
        let superfluous = |name: &String| {
            segment_number(name).is_some_and(|number| number < first)
                || snapshot_number(name).is_some_and(|number| Some(number) != snapshot)
                || name.strip_suffix(".tmp").is_some_and(|name| snapshot_number(name).is_some())
        };
        let mut names: Vec<String> = files.into_iter().filter(superfluous).collect();
        // No recovery can begin under this lock. A live one may have mapped the file to be overwritten.
        let recyclable = Arc::strong_count(&self.reading) == 1;
        let retired = self.log.retired().filter(|retired| recyclable && names.contains(retired));
        names.retain(|name| Some(name) != retired.as_ref() && self.storage.remove(name).is_err());
        (names, retired.is_some())
    }
}

impl Drop for Store {
    /// The journal and the log hold references to each other.
    fn drop(&mut self) {
        self.journal.detach_all();
    }
}

fn take_lock(storage: &dyn Storage) -> Result<DirLock, PersistError> {
    storage.lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => PersistError::Locked { dir: storage.path("") },
        _ => PersistError::io("lock", storage.path(""))(error),
    })
}

/// Reads the manifest, or writes the first one of a fresh directory.
fn read_or_create(storage: &dyn Storage, options: &StoreOptions) -> Result<(ManifestWire, bool), PersistError> {
    if let Some(manifest) = manifest::read(storage)? {
        if manifest.shards != options.shards {
            return Err(PersistError::Refused {
                file: storage.path(super::format::MANIFEST),
                why: format!("laid out in {} shards, not {}", manifest.shards, options.shards),
            });
        }
        return Ok((manifest, false));
    }
    let manifest = ManifestWire {
        sequence: 1,
        hash_seed: options.hash_seed,
        shards: options.shards,
        durable_block: 0,
        next_segment: 1,
        clean: false,
        current: GenerationWire::default(),
        kept: Vec::new(),
    };
    manifest::replace(storage, &manifest)?;
    Ok((manifest, true))
}

/// Keeps the bytes of a torn tail in a separate file and cuts the segment there. Later segments are set aside first:
/// whenever the power fails, those that still have their names are found behind a tear.
fn set_aside(storage: &dyn Storage, recovery: &mut Recovery, torn: &Torn) -> Result<(), PersistError> {
    for &number in &torn.followers {
        let path = storage.path(&segment_name(number));
        storage.rename(&segment_name(number), &torn_name(number, 0)).map_err(PersistError::io("set aside", path))?;
    }
    if !torn.followers.is_empty() {
        storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    }
    let name = segment_name(torn.segment);
    let path = storage.path(&name);
    let aside = torn_name(torn.segment, torn.offset);
    let bytes = storage.read(&name).map_err(PersistError::io("read", &path))?;
    let rest = &bytes[torn.offset as usize..];
    if !rest.is_empty() {
        let to = storage.path(&aside);
        if storage.exists(&aside).map_err(PersistError::io("look for", &to))? {
            storage.remove(&aside).map_err(PersistError::io("remove", &to))?;
        }
        let file = storage.create(&aside).map_err(PersistError::io("create", &to))?;
        file.append(rest).map_err(PersistError::io("write", &to))?;
        file.sync_data().map_err(PersistError::io("sync", &to))?;
        storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    }
    // The maps must be gone before the file shrinks under them.
    drop(bytes);
    let segment = recovery.segments.iter_mut().find(|s| s.wire.number == torn.segment);
    let segment = segment.expect("the torn segment takes part");
    segment.bytes = super::storage::FileBytes::Shared(Arc::from([]));
    let file = storage.open(&name).map_err(PersistError::io("open", &path))?;
    file.set_len(torn.offset).map_err(PersistError::io("cut", &path))?;
    file.sync_data().map_err(PersistError::io("sync", &path))?;
    segment.bytes = storage.read(&name).map_err(PersistError::io("read", &path))?;
    segment.end = segment.end.min(segment.bytes.len());
    Ok(())
}

/// Makes the recovered log durable before anything can be written after it: the last process may have died with its
/// last blocks only in the page cache, including those of sealed segments.
fn settle_log(storage: &dyn Storage, recovery: &Recovery) -> Result<(), PersistError> {
    for segment in &recovery.segments {
        let name = segment_name(segment.wire.number);
        let path = storage.path(&name);
        let file = storage.open(&name).map_err(PersistError::io("open", &path))?;
        file.sync_data().map_err(PersistError::io("sync", &path))?;
    }
    Ok(())
}

/// The segments that the next recovery must read: those with blocks.
fn segments_in_use(recovery: &Recovery) -> Vec<SegmentWire> {
    let with_blocks = recovery.segments.iter().filter(|segment| segment.end > SEGMENT_HEADER);
    with_blocks.map(|segment| segment.wire.clone()).collect()
}

/// Removes what a crash left behind, which the manifest does not name. Failures do not matter.
fn remove_strays(storage: &dyn Storage, manifest: &ManifestWire, files: &[String]) {
    let current = &manifest.current;
    let first = current.segments.first().map_or(u64::MAX, |segment| segment.number);
    for name in files {
        let temporary =
            name == MANIFEST_TMP || name.strip_suffix(".tmp").is_some_and(|name| snapshot_number(name).is_some());
        let old_snapshot =
            snapshot_number(name).is_some_and(|number| current.snapshot.as_ref().is_none_or(|s| s.number != number));
        let stray_segment =
            segment_number(name).filter(|number| current.segments.iter().all(|segment| segment.number != *number));
        let aside = stray_segment.filter(|&number| number > first && has_blocks(storage, name));
        let _ = match (temporary || old_snapshot, stray_segment, aside) {
            (_, _, Some(number)) => storage.rename(name, &torn_name(number, 0)),
            (true, _, _) | (_, Some(_), _) => storage.remove(name),
            _ => Ok(()),
        };
    }
}

/// Whether an unnamed segment holds anything that ever counted.
fn has_blocks(storage: &dyn Storage, name: &str) -> bool {
    let Ok(bytes) = storage.read(name) else { return true };
    let header = read_segment_header(&bytes);
    let empty = match header {
        Ok(header) if header.recycled => is_end_mark(&bytes, SEGMENT_HEADER),
        _ => bytes.len() <= SEGMENT_HEADER,
    };
    !empty && !header.is_ok_and(|header| header.kind == SEGMENT_DETACHED)
}
