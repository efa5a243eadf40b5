//! The store: one directory, one manifest, one log, one snapshot, tied together.
//!
//! A snapshot has these steps: cut (the log continues in a new segment from an exact instant), write, finish (durable
//! under its name), commit (the manifest names it: the only step that changes what would be recovered), and then
//! removal of what it replaces. A crash between any two operations recovers the old state or the new one, whole. Only
//! one cut is in progress at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::lock::{Mutex, Rank};
use crate::base::logging::warning;

use super::crypt::{Encryption, FileKind, Keyring};
use super::error::PersistError;
use super::examine::scrub::{self, Scrubbed};
use super::format::{
    MANIFEST, SEGMENT_HEADER, index_number, segment_name, segment_number, snapshot_name, snapshot_number,
};
use super::fsync::LogThread;
use super::generations::{self, Needed, Retention};
use super::importing;
use super::journal::{Journal, Sink};
use super::log::{Frozen, FsyncPolicy, Log, LogCut, LogSetup};
use super::manifest;
use super::recover::{Reading, Recovery, Segment, recover, recover_by};
use super::restore::copy::{Means, Part, Parts, bring, prepare};
use super::settling::{prune_keys, remove_strays, set_aside, settle_log};
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
    /// Files or directories that hold the data of another program. A directory without a store in which there is one is
    /// refused.
    pub foreign: Vec<String>,
    /// The content of a fresh directory comes from elsewhere: nothing counts before the first snapshot is committed and
    /// [`Store::end_import`] is called, and an import that did not come so far begins again. No log is kept meanwhile.
    pub import: bool,
    /// The master keys, if the store is encrypted or is to be.
    pub encryption: Option<Encryption>,
    /// The length at which a segment of the log ends, in bytes; 0 for any.
    pub segment_bytes: u64,
    /// Leave segments unread that have an index, and make indexes of those that have none: see [`Recovery::places`].
    pub indexes: bool,
    /// Run the threads of the log. Without them (in tests), [`Log::sync_now`] and `Log::tend` do their work.
    pub threads: bool,
}

/// A data directory in use by this process.
pub struct Store {
    storage: Arc<dyn Storage>,
    journal: Arc<Journal>,
    log: Arc<Log>,
    manifest: Mutex<ManifestWire>,
    keys: Option<Arc<Keyring>>,
    /// Whether a file that takes part is in the clear and should be encrypted, or the reverse.
    needs_rewrite: AtomicBool,
    next_snapshot: AtomicU64,
    busy: Arc<AtomicBool>,
    generation: u64,
    base_bytes: AtomicU64,
    kept_count: AtomicU64,
    kept_bytes: AtomicU64,
    /// From the generation of this snapshot on, all are kept; 0 for none.
    pinned: AtomicU64,
    /// Shared with every live recovery.
    reading: Arc<()>,
    // Fields are dropped in this order: the threads end before another process may take the directory.
    _threads: Vec<LogThread>,
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
    /// The number in it.
    pub number: u64,
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
        let keys = Keyring::open(&storage, manifest.hash_seed, fresh, options.encryption.as_ref())?.map(Arc::new);
        let reading = Arc::new(());
        let how = Reading { cut_at_corruption: options.cut_at_corruption, uses_indexes: options.indexes };
        let mut recovery = recover_by(&storage, &manifest, how, keys.as_deref(), Arc::clone(&reading))?;
        recovery.unlock(keys.as_deref())?;
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
        keys.as_ref().filter(|keys| keys.writes()).map_or(Ok(()), |keys| keys.save())?;

        let highest = |of: fn(&str) -> Option<u64>| files.iter().filter_map(|name| of(name)).max();
        let after_disk = highest(segment_number).map_or(1, |number| number.saturating_add(1));
        let found = &recovery.summary;
        let snapshot_time = recovery.snapshot.as_ref().map_or(0, |snapshot| snapshot.header().time_ms);
        let last_time = found.last_time_ms.max(snapshot_time);
        let journal = Journal::new(options.workers, found.last_block, last_time, Arc::clone(&options.clock));
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
            keys: keys.clone(),
            segment_bytes: options.segment_bytes,
            indexed_shards: options.indexes.then_some(manifest.shards),
        }));
        journal.attach(Arc::clone(&log) as Arc<dyn Sink>);
        manifest.current.segments = segments_in_use(&recovery);
        if options.appendonly && !options.import {
            manifest.current.segments.push(log.start()?);
        }
        manifest.sequence += 1;
        manifest.durable_block = recovery.summary.last_block;
        manifest.next_segment = log.next_segment();
        manifest.clean = false;
        if !(fresh && options.import) {
            manifest::replace(&*storage, &manifest)?;
        }
        remove_strays(&*storage, &manifest, &files);
        let (some, none) = recovery.is_encrypted();
        let writes = keys.as_ref().is_some_and(|keys| keys.writes());
        prune_keys(&*storage, keys.as_deref());
        log.prepare_spare(None);

        let threads = if options.threads { start_threads(&*storage, &log)? } else { Vec::new() };
        let in_manifest = manifest.current.snapshot.as_ref().map(|snapshot| snapshot.number);
        let next_snapshot = highest(snapshot_number).max(in_manifest).map_or(1, |n| n.saturating_add(1));
        let store = Self {
            base_bytes: AtomicU64::new(recovery.summary.snapshot_bytes),
            storage,
            journal,
            log,
            manifest: Mutex::new(Rank::Manifest, manifest),
            keys,
            needs_rewrite: AtomicBool::new(if writes { none } else { some }),
            next_snapshot: AtomicU64::new(next_snapshot),
            busy: Arc::new(AtomicBool::new(false)),
            kept_count: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
            pinned: AtomicU64::new(0),
            generation: options.generation,
            reading,
            _threads: threads,
            _lock: lock,
        };
        store.count_kept(&store.manifest.lock());
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
        // The snapshot and the log after it are the first files under a new master key.
        if let Some(keys) = &self.keys
            && let Err(error) = keys.refresh()
        {
            warning(format_args!("The master keys cannot be read again, the known ones are used: {error}"));
        }
        self.log.settle();
        match self.log.cut(wait, freeze) {
            Ok((value, log)) => {
                let snapshot = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
                let busy = Arc::clone(&self.busy);
                Ok((value, Cut { log, snapshot, time_ms: self.journal.time_ms(), busy }))
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
        let cipher = |keys: &Arc<Keyring>| keys.seal(FileKind::Snapshot, cut.snapshot, self.generation);
        SnapshotWriter::create(Arc::clone(&self.storage), cut.snapshot, &header, self.keys.as_ref().and_then(cipher))
    }

    /// Makes the snapshot of a cut the store, and removes what it replaces and `retention` does not keep.
    ///
    /// On failure, the old snapshot and the whole log stay valid, and nothing is removed.
    pub fn commit(
        &self,
        cut: Cut,
        finished: FinishedSnapshot,
        retention: Retention,
    ) -> Result<CommitSummary, PersistError> {
        assert_eq!(cut.snapshot, finished.number, "the snapshot of another cut");
        let mut manifest = self.manifest.lock();
        let pinned = Some(self.pinned.load(Ordering::Relaxed)).filter(|&pinned| pinned > 0);
        let rotated = self.log.rotated_before(&cut.log);
        let kept = generations::after_commit(&*self.storage, &manifest, &rotated, retention, pinned, cut.time_ms);
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
            kept,
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
        self.count_kept(&manifest);
        prune_keys(&*self.storage, self.keys.as_deref());
        self.needs_rewrite.store(false, Ordering::Relaxed);
        drop(manifest);
        Ok(CommitSummary {
            snapshot: snapshot_name(finished.number),
            number: finished.number,
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
        self.log.prepare_spare(None);
    }

    /// Has indexes made of those segments of a recovery that have none, once it is loaded.
    pub fn index_the_rest(&self, recovery: &Recovery) {
        let followers = recovery.segments.iter().skip(1).map(|next| next.wire.first_block);
        let ends = followers.chain([recovery.summary.last_block + 1]);
        let segments = recovery
            .segments
            .iter()
            .zip(ends)
            .filter(|(segment, _)| segment.index.is_none() && segment.end > SEGMENT_HEADER);
        let frozen = |(segment, end): (&Segment, u64)| Frozen {
            wire: segment.wire.clone(),
            last_block: end - 1,
            bytes: segment.end as u64,
        };
        self.log.tend_earlier(segments.map(frozen).collect());
    }

    /// Whether new files are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.writes())
    }

    /// Whether a file that takes part is in the clear and should be encrypted, or the reverse. A snapshot mends that.
    pub fn needs_rewrite(&self) -> bool {
        self.needs_rewrite.load(Ordering::Relaxed)
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

    /// Gives up the import into a fresh directory, which is then as it was.
    ///
    /// # Errors
    /// The disk refused. The next import clears the directory.
    pub fn abandon_import(&self) -> Result<(), PersistError> {
        importing::remove_unfinished(&*self.storage)
    }

    /// Says that an import is done, after its snapshot was committed.
    ///
    /// # Errors
    /// The disk refused. The next opening says it.
    pub fn end_import(&self) -> Result<(), PersistError> {
        importing::end(&*self.storage)
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
        let mut recovery = recover(&self.storage, &manifest, false, reading)?;
        recovery.unlock(self.keys.as_deref())?;
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

    /// Reads the files that are not written any more and compares them with their checksums. `begun` is told how many
    /// bytes those are. `pace` is told how much was read, may sleep, and ends the pass if it returns false. Nothing is
    /// locked meanwhile.
    pub fn scrub(&self, begun: impl FnOnce(u64), pace: impl FnMut(u64) -> bool) -> Scrubbed {
        let manifest = self.manifest.lock().clone();
        let running = self.log.running_segment();
        begun(scrub::extent(&*self.storage, &manifest, running));
        let mut scrubbed = scrub::pass(&*self.storage, &manifest, running, pace);
        // A commit may have replaced what was just read.
        let needed = Needed::by(&self.manifest.lock());
        scrubbed.faults.retain(|fault| {
            let name = fault.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            snapshot_number(name).is_none_or(|number| needed.snapshot(number))
                && segment_number(name).is_none_or(|number| needed.segment(number))
        });
        scrubbed
    }

    /// Makes a backup in an empty directory: from a pinned snapshot up to a cut, which the caller then abandons. The
    /// files are shared, where the file system can do that, and checked.
    ///
    /// # Errors
    /// A file cannot be read or written, or the log behind the snapshot has a gap.
    pub fn seal_backup(&self, snapshot: u64, cut: &Cut, to: &Arc<dyn Storage>) -> Result<(), PersistError> {
        let parts = self.parts_since(snapshot, cut)?;
        self.log.sync_sealed()?;
        let prepared = prepare(&*self.storage, Arc::clone(to), parts, Means::Link)?;
        prepared.check()?;
        prepared.finish()
    }

    /// Makes a backup of a snapshot alone, which was just made and stays pinned.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn copy_snapshot_alone(&self, snapshot: u64, to: &Arc<dyn Storage>) -> Result<(), PersistError> {
        let parts = {
            let manifest = self.manifest.lock();
            let wire = manifest.current.snapshot.clone().filter(|wire| wire.number == snapshot);
            let Some(wire) = wire else { return Err(PersistError::Busy) };
            Parts {
                hash_seed: manifest.hash_seed,
                shards: manifest.shards,
                sequence: manifest.sequence + 1,
                next_segment: self.log.next_segment(),
                last_block: wire.cut_block,
                snapshot: Some(wire),
                segments: Vec::new(),
                sealed: 0,
            }
        };
        let prepared = prepare(&*self.storage, Arc::clone(to), parts, Means::Link)?;
        prepared.check()?;
        prepared.finish()
    }

    /// The snapshot and the segments between it and a cut.
    fn parts_since(&self, snapshot: u64, cut: &Cut) -> Result<Parts, PersistError> {
        let manifest = self.manifest.lock();
        let gap = || PersistError::Refused {
            file: self.storage.path(super::format::MANIFEST),
            why: format!("the log does not reach from {} to this moment", snapshot_name(snapshot)),
        };
        let number = |generation: &&GenerationWire| generation.snapshot.as_ref().map(|wire| wire.number);
        let all = || manifest.kept.iter().chain([&manifest.current]);
        let first = all().find(|generation| number(generation) == Some(snapshot)).ok_or_else(gap)?;
        let since = all().filter(|generation| number(generation) >= Some(snapshot));
        let mut segments: Vec<SegmentWire> = since.flat_map(|generation| &generation.segments).cloned().collect();
        let next = cut.log.segment.as_ref().filter(|_| !cut.log.detached).ok_or_else(gap)?;
        let end = next.number;
        segments.extend(self.log.rotated_before(&cut.log));
        segments.retain(|segment| segment.number < end);
        segments.sort_by_key(|segment| segment.number);
        segments.dedup_by_key(|segment| segment.number);
        let wire = first.snapshot.clone();
        Ok(Parts {
            hash_seed: manifest.hash_seed,
            shards: manifest.shards,
            sequence: manifest.sequence + 1,
            next_segment: self.log.next_segment(),
            snapshot: wire,
            segments: segments.into_iter().map(|wire| Part { wire, end: None }).collect(),
            last_block: cut.log.block,
            sealed: end,
        })
    }

    /// Shares a snapshot with another directory, where it stays when it is no longer needed here.
    ///
    /// # Errors
    /// It can neither be linked nor copied.
    pub fn share_snapshot(&self, snapshot: u64, to: &dyn Storage) -> Result<(), PersistError> {
        bring(&*self.storage, to, &snapshot_name(snapshot), Means::Link)?;
        to.sync_dir().map_err(PersistError::io("sync", to.path("")))
    }

    /// From the generation of this snapshot on, keeps all of them, whatever the retention says, until told otherwise.
    pub fn pin(&self, snapshot: Option<u64>) {
        self.pinned.store(snapshot.unwrap_or(0), Ordering::Relaxed);
    }

    /// How many replaced generations are kept, and how many bytes they take.
    pub fn kept(&self) -> (u64, u64) {
        (self.kept_count.load(Ordering::Relaxed), self.kept_bytes.load(Ordering::Relaxed))
    }

    fn count_kept(&self, manifest: &ManifestWire) {
        let bytes = manifest.kept.iter().map(|generation| generations::bytes_of(&*self.storage, generation)).sum();
        self.kept_count.store(manifest.kept.len() as u64, Ordering::Relaxed);
        self.kept_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Removes the snapshots and segments that the manifest does not need any more. Returns what could not be removed,
    /// and the segment that is left, to be recycled before the caller releases the manifest's lock.
    fn remove_replaced(&self, manifest: &ManifestWire) -> (Vec<String>, Option<u64>) {
        let Ok(files) = self.storage.list() else { return Default::default() };
        let needed = Needed::by(manifest);
        let is_old = |number| !needed.segment(number) && number < manifest.next_segment;
        let superfluous = |name: &String| {
            segment_number(name).is_some_and(is_old)
                || index_number(name).is_some_and(|number| number < needed.running_from())
                || snapshot_number(name).is_some_and(|number| !needed.snapshot(number))
                || name.strip_suffix(".tmp").is_some_and(|name| snapshot_number(name).is_some())
        };
        let mut names: Vec<String> = files.into_iter().filter(superfluous).collect();
        // No recovery can begin under this lock. A live one may have mapped the file to be overwritten.
        let recyclable = Arc::strong_count(&self.reading) == 1;
        let newest = names.iter().filter_map(|name| segment_number(name)).max();
        let left = newest.filter(|&number| recyclable && self.log.may_recycle(number));
        let left_name = left.map(segment_name);
        names.retain(|name| Some(name) != left_name.as_ref() && self.storage.remove(name).is_err());
        (names, left)
    }
}

impl Drop for Store {
    /// The journal and the log hold references to each other.
    fn drop(&mut self) {
        self.journal.detach_all();
    }
}

fn start_threads(storage: &dyn Storage, log: &Arc<Log>) -> Result<Vec<LogThread>, PersistError> {
    let started = [LogThread::sync, LogThread::tend].into_iter().map(|start| start(Arc::clone(log)));
    started.map(|thread| thread.map_err(PersistError::io("start a thread of the log for", storage.path("")))).collect()
}

fn take_lock(storage: &dyn Storage) -> Result<DirLock, PersistError> {
    storage.lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => PersistError::Locked { dir: storage.path("") },
        _ => PersistError::io("lock", storage.path(""))(error),
    })
}

/// Reads the manifest, or writes the first one of a fresh directory. That of an import is written when it is done.
fn read_or_create(storage: &dyn Storage, options: &StoreOptions) -> Result<(ManifestWire, bool), PersistError> {
    importing::settle(storage, options.import)?;
    if let Some(manifest) = manifest::read(storage)? {
        if manifest.shards != options.shards {
            return Err(PersistError::Refused {
                file: storage.path(MANIFEST),
                why: format!("laid out in {} shards, not {}", manifest.shards, options.shards),
            });
        }
        // An import was committed, and ended before it could say so.
        importing::end(storage)?;
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
    if options.import {
        importing::begin(storage)?;
        return Ok((manifest, true));
    }
    for name in &options.foreign {
        let file = storage.path(name);
        if storage.exists(name).map_err(PersistError::io("look for", &file))? {
            let why = "it holds the data of another server: move it away to start empty, or import it \
                       (`import-foreign-files yes`, `ironkeep import`)";
            return Err(PersistError::Refused { file, why: why.to_owned() });
        }
    }
    manifest::replace(storage, &manifest)?;
    Ok((manifest, true))
}

/// The segments that the next recovery must read: those with blocks.
fn segments_in_use(recovery: &Recovery) -> Vec<SegmentWire> {
    let with_blocks = recovery.segments.iter().filter(|segment| segment.end > SEGMENT_HEADER);
    with_blocks.map(|segment| segment.wire.clone()).collect()
}
