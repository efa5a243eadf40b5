//! The log's file: the sink of the journal that makes blocks durable.
//!
//! - Lock order: `syncing`, the journal's cutter, `writer`. No thread waits for a sync while it holds the cutter or
//!   the writer.
//! - Where nothing was written before, zeros are written ahead of the blocks, so that the system finds memory and
//!   room for many pages at once. In a recycled segment, zeros follow the last block up to the end of its page. They
//!   are a mark for recovery, and every page is written from its beginning, so that none must be read first.
//! - A failed write or fsync poisons the log: that file is never written or synced again, and nothing is published as
//!   written or synced until a new snapshot and segment heal the log.
//! - A log that is switched on takes blocks from the cut of its first snapshot on. It counts once that snapshot is
//!   committed ([`Log::is_active`]). Until then nothing is published as written or synced, and no reply waits for it.

mod room;
mod rotate;
mod segment_file;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::base::histogram::Histogram;
use crate::base::latency::{Event, LatencyMonitor};
use crate::base::lock::{Mutex, Rank};

use super::block::{BlockHeader, finish_block, seal_block};
use super::crypt::{Keyring, TAG};
use super::error::PersistError;
use super::format::segment_name;
use super::fsync::Signal;
use super::journal::{Block, Journal, Sink};
use super::storage::{Storage, StorageFile, is_full};
use super::wire::SegmentWire;

use room::{KeptRoom, Lack};
pub(crate) use rotate::LogCut;
use segment_file::{SegmentFile, SegmentMaker};

/// How much of a segment's end stays in the system's file cache, in bytes: the part that a start after a crash reads
/// most often. Older parts leave the cache, because a log is not read while the server runs.
const CACHED: u64 = 64 << 20;

/// How much memory is kept for the next block to be encrypted, in bytes.
const SEALING_KEPT: usize = 1 << 20;

/// When the log is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FsyncPolicy {
    /// Before a reply.
    Always = 0,
    /// Once a second.
    EverySec = 1,
    /// When the log rotates or closes.
    No = 2,
}

/// What the log needs to know about its store.
pub(crate) struct LogSetup {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) hash_seed: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) policy: FsyncPolicy,
    /// The last block that recovery found, its CRC, and the number of the next segment.
    pub(crate) last_block: u64,
    pub(crate) last_crc: u32,
    pub(crate) next_segment: u64,
    /// Bytes of log that recovery read.
    pub(crate) bytes: u64,
    /// The data keys, if the store is encrypted.
    pub(crate) keys: Option<Arc<Keyring>>,
    /// The length at which a segment ends, in bytes; 0 for any.
    pub(crate) segment_bytes: u64,
    /// The shards of the store, if segments get an index.
    pub(crate) indexed_shards: Option<u32>,
}

/// A segment that is not written any more.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) wire: SegmentWire,
    /// Its last block,
    pub(crate) last_block: u64,
    /// and where that ends.
    pub(crate) bytes: u64,
}

/// The log.
pub struct Log {
    journal: Arc<Journal>,
    /// Whether it takes blocks;
    wanted: AtomicBool,
    /// and whether they count.
    active: AtomicBool,
    writer: Mutex<Writer>,
    /// Held during an fsync, so that no fsync can follow a failed one.
    syncing: Mutex<()>,
    poison: Mutex<Option<Poison>>,
    poisoned: AtomicBool,
    /// How often the log has failed.
    failures: AtomicU64,
    /// Whether the disk is full, and the log lives on the room that it has kept.
    lack: Lack,
    written: AtomicU64,
    synced: AtomicU64,
    bytes: AtomicU64,
    policy: AtomicU8,
    subscribers: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
    /// Notes what takes long, once it is given.
    latency: OnceLock<Arc<LatencyMonitor>>,
    /// Distributions of what it does.
    pub figures: LogFigures,
    /// How long every write waits first, in microseconds, for tests.
    sleep_us: AtomicU64,
    /// The length at which a segment ends, in bytes; 0 for any.
    segment_bytes: AtomicU64,
    /// The shards of the store, if segments get an index.
    indexed_shards: Option<u32>,
    /// Held by who tends segments: which was the last, and its length.
    tended: Mutex<Option<(u64, u64)>>,
    pub(crate) signal: Signal,
    /// Wakes who makes the next segment ahead of need.
    pub(crate) tending: Signal,
}

/// Distributions of what a log does.
#[derive(Debug, Default)]
pub struct LogFigures {
    /// How long syncs took, in microseconds.
    pub fsync_us: Histogram,
    /// How large blocks were, in bytes.
    pub block_bytes: Histogram,
}

#[derive(Clone)]
struct Poison {
    segment: u64,
    cause: String,
}

struct Writer {
    maker: SegmentMaker,
    current: Option<SegmentFile>,
    /// The segment after the current one, made ahead of need.
    spare: Option<SegmentFile>,
    /// The sealed segment before the current one. Once nothing needs it, a new one can overwrite it.
    retired: Option<SegmentFile>,
    /// Sealed segments that are not known to be durable, oldest first.
    sealed: Vec<Sealed>,
    /// The segments that were begun since the last commit, or shortly before it, oldest first.
    begun: Vec<SegmentWire>,
    /// Segments that are not written any more and were not tended since, oldest first.
    frozen: Vec<Frozen>,
    /// The number of the first segment behind the last snapshot that this run has committed; 0 for none.
    committed_from: u64,
    /// The segments that a write or a sync has failed on. None is overwritten: what the system holds of them may not be
    /// on the disk.
    untrusted: Vec<u64>,
    /// Room that is kept for the time when the disk is full.
    room: Option<KeptRoom>,
    /// Whether a log continues from the next cut.
    keep: bool,
    /// Whether a cut is in progress, which has its own next segment.
    is_cut: bool,
    next_segment: u64,
    /// The segment that continues after the next block; 0 for none.
    seal_for: u64,
    /// The last block in the file.
    last_written: u64,
    prev_crc: u32,
    /// The block that is being encrypted.
    sealing: Vec<u8>,
}

/// A sealed segment that is still to be synced.
#[derive(Clone)]
struct Sealed {
    number: u64,
    file: Arc<dyn StorageFile>,
    len: u64,
    last_block: u64,
}

impl Sealed {
    fn of(segment: &SegmentFile, last_block: u64) -> Self {
        Sealed { number: segment.number, file: Arc::clone(&segment.file), len: segment.len, last_block }
    }
}

impl Log {
    pub(crate) fn new(setup: LogSetup) -> Self {
        Self {
            journal: setup.journal,
            wanted: AtomicBool::new(false),
            active: AtomicBool::new(false),
            writer: Mutex::new(
                Rank::LogWriter,
                Writer {
                    maker: SegmentMaker {
                        storage: setup.storage,
                        hash_seed: setup.hash_seed,
                        generation: setup.generation,
                        keys: setup.keys,
                    },
                    current: None,
                    spare: None,
                    retired: None,
                    sealed: Vec::new(),
                    begun: Vec::new(),
                    frozen: Vec::new(),
                    committed_from: 0,
                    untrusted: Vec::new(),
                    room: None,
                    keep: false,
                    is_cut: false,
                    next_segment: setup.next_segment,
                    seal_for: 0,
                    last_written: setup.last_block,
                    prev_crc: setup.last_crc,
                    sealing: Vec::new(),
                },
            ),
            syncing: Mutex::new(Rank::Syncing, ()),
            poison: Mutex::new(Rank::Poison, None),
            poisoned: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            lack: Lack::default(),
            written: AtomicU64::new(setup.last_block),
            synced: AtomicU64::new(setup.last_block),
            bytes: AtomicU64::new(setup.bytes),
            policy: AtomicU8::new(setup.policy as u8),
            subscribers: Mutex::default(),
            latency: OnceLock::new(),
            figures: LogFigures::default(),
            sleep_us: AtomicU64::new(0),
            segment_bytes: AtomicU64::new(setup.segment_bytes),
            indexed_shards: setup.indexed_shards,
            tended: Mutex::new(Rank::Tending, None),
            signal: Signal::default(),
            tending: Signal::default(),
        }
    }

    /// Whether a log is kept that counts. One that was switched on counts from the commit of its first snapshot on.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// The journal that it takes blocks from.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The highest block handed to the operating system.
    #[inline]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The highest block that is durable.
    #[inline]
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether the log failed, without a lock.
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// The number of the log's current failure, from 1; `None` if it works. If the number is the same at two times,
    /// the log took nothing in between.
    pub fn failure(&self) -> Option<u64> {
        let _poison = self.poison.lock();
        self.is_poisoned().then(|| self.failures.load(Ordering::Relaxed))
    }

    /// Why the log takes no more writes, if it has failed.
    pub fn poisoned(&self) -> Option<String> {
        self.poison.lock().as_ref().map(|poison| poison.cause.clone())
    }

    /// The fsync policy.
    pub fn policy(&self) -> FsyncPolicy {
        match self.policy.load(Ordering::Relaxed) {
            0 => FsyncPolicy::Always,
            1 => FsyncPolicy::EverySec,
            _ => FsyncPolicy::No,
        }
    }

    /// Changes the fsync policy at once. Those who wait under the old policy check again, because under another one
    /// their progress may never come.
    pub fn set_policy(&self, policy: FsyncPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
        self.kick();
        self.notify();
    }

    /// Asks the fsync thread to flush and, under `Always`, to sync.
    #[inline]
    pub fn kick(&self) {
        self.signal.kick();
    }

    /// Sets the length at which a segment ends, in bytes; 0 for any.
    pub fn set_segment_bytes(&self, bytes: u64) {
        self.segment_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Registers a function to be called, on any thread, after `synced` has advanced or the log was poisoned or
    /// healed. It must be quick and must not call flush, sync or cut.
    pub fn on_progress(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.subscribers.lock().push(Arc::from(subscriber));
    }

    /// Has this monitor note the writes and fsyncs that take long. Only the first call counts.
    pub fn watch_latency(&self, monitor: Arc<LatencyMonitor>) {
        let _ = self.latency.set(monitor);
    }

    /// Has every write wait for so long first: what a slow disk does to others can be tested.
    pub fn sleep_before_writes(&self, time: Duration) {
        self.sleep_us.store(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Runs something that may delay replies, as an event of the monitor if there is one.
    fn timed<T>(&self, event: Option<Event>, run: impl FnOnce() -> T) -> T {
        let Some((monitor, event)) = self.latency.get().zip(event) else { return run() };
        let started = monitor.start();
        let result = run();
        monitor.end(event, started);
        result
    }

    /// Bytes in the log since the last committed snapshot.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Flushes the journal. Returns the highest block that the file received.
    ///
    /// # Errors
    /// The log has failed: the appended records are not in it.
    pub fn flush(&self) -> Result<u64, PersistError> {
        self.journal.flush();
        if self.is_poisoned() {
            self.notify();
            return Err(self.poison_error());
        }
        Ok(self.written())
    }

    /// Whether the disk is full. What the log has kept is then for changes that free something.
    #[inline]
    pub fn lacks_room(&self) -> bool {
        self.lack.is_there()
    }

    /// Keeps this much room on the disk, in bytes, for the time when it is full; less on a small disk. Called now and
    /// then: this is what notices that there is room again.
    pub fn keep_room(&self, bytes: u64) {
        let (storage, before) = {
            let mut writer = self.writer.lock();
            let is_wanted = bytes > 0 && writer.current.is_some();
            if is_wanted && writer.room.as_ref().is_some_and(|room| room.is_whole(bytes)) {
                return;
            }
            let storage = Arc::clone(&writer.maker.storage);
            (is_wanted.then_some(storage), writer.room.take_if(|_| !is_wanted || !self.lacks_room()))
        };
        drop(before);
        let Some(storage) = storage else { return self.lack.end() };
        // A disk that cannot be asked will say it when it is written to.
        let Ok(space) = storage.space() else { return };
        let half = KeptRoom::half_of(bytes, space);
        // With no more than what is kept, the next write would find no room again.
        if self.lacks_room() && space.free < half.saturating_mul(4) {
            return;
        }
        match KeptRoom::keep(&*storage, bytes, half) {
            Ok(room) => {
                let before = self.writer.lock().room.replace(room);
                drop(before);
                self.lack.end();
            }
            Err(error) if is_full(&error) => self.lack.begin(),
            // A file system that cannot do that.
            Err(_) => self.lack.end(),
        }
    }

    /// How much room is kept for a snapshot, in bytes. An earlier one that failed has left it.
    pub fn room_for_snapshot(&self) -> u64 {
        let (storage, half) = {
            let writer = self.writer.lock();
            match &writer.room {
                Some(room) if room.for_snapshot.is_some() => return room.half,
                Some(room) => (Arc::clone(&writer.maker.storage), room.half),
                None => return 0,
            }
        };
        let Ok(again) = storage.keep_room(half) else { return 0 };
        if let Some(room) = &mut self.writer.lock().room {
            room.for_snapshot = Some(again);
        }
        half
    }

    /// Gives that room up for the snapshot that is to begin.
    pub fn give_room_to_snapshot(&self) {
        let room = self.writer.lock().room.as_mut().and_then(|room| room.for_snapshot.take());
        drop(room);
    }

    /// Writes a block to the current segment. The block that fills the segment ends it.
    fn write_block(&self, writer: &mut Writer, block: &mut Block<'_>) -> Result<(), PersistError> {
        let rotates = self.is_full_with(writer, block.framed().len() as u64);
        if rotates {
            writer.seal_for = writer.spare.as_ref().map_or(0, |spare| spare.number);
        }
        let number = block.number;
        let written = self.write_into_segment(writer, block);
        if rotates {
            writer.seal_for = 0;
        }
        written?;
        if rotates {
            self.rotate(writer, number);
        }
        Ok(())
    }

    fn write_into_segment(&self, writer: &mut Writer, block: &mut Block<'_>) -> Result<(), PersistError> {
        match self.sleep_us.load(Ordering::Relaxed) {
            0 => {}
            us => std::thread::sleep(Duration::from_micros(us)),
        }
        let (number, time_ms) = (block.number, block.time_ms);
        let segment = writer.current.as_mut().expect("checked by the caller");
        let bytes = match &segment.cipher {
            // Other sinks get the block as it is.
            Some(_) => {
                writer.sealing.clear();
                writer.sealing.extend_from_slice(block.framed());
                &mut writer.sealing
            }
            None => block.framed(),
        };
        let len = (bytes.len() + segment.cipher.as_ref().map_or(0, |_| TAG)) as u64;
        let policy = self.policy();
        // An fsync takes longer for bytes that fill reserved room than for bytes in written blocks.
        if policy != FsyncPolicy::Always {
            segment.reserve(len);
        }
        let header = BlockHeader {
            number,
            generation: writer.maker.generation,
            time_ms,
            durable: self.synced(),
            next_segment: writer.seal_for,
            prev_crc: writer.prev_crc,
        };
        let crc = match &segment.cipher {
            Some(cipher) => seal_block(bytes, &header, cipher),
            None => finish_block(bytes, &header),
        };
        let start = segment.len;
        let mut result = self.timed(Some(Event::AofWrite), || segment.write(bytes, policy));
        if result.as_ref().is_err_and(is_full)
            && let Some(given) = writer.room.as_mut().and_then(KeptRoom::give_to_log)
        {
            self.lack.begin();
            result = segment.write_again(start, bytes, given);
        }
        if let Err(source) = result {
            let number = segment.number;
            let path = writer.maker.storage.path(&segment_name(number));
            let error = PersistError::io("write", path)(source);
            writer.untrusted.push(number);
            self.set_poison(number, error.to_string());
            return Err(error);
        }
        if writer.sealing.capacity() > SEALING_KEPT {
            writer.sealing = Vec::new();
        }
        writer.prev_crc = crc;
        writer.last_written = number;
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.figures.block_bytes.record(len);
        // While a snapshot is healing or completing the log, nothing may look acknowledged.
        if !self.is_poisoned() && !segment.detached {
            self.written.fetch_max(number, Ordering::Release);
        }
        Ok(())
    }

    /// Flushes, and makes everything written so far durable.
    pub fn sync_now(&self) -> Result<u64, PersistError> {
        self.flush()?;
        self.sync()
    }

    /// Makes everything written so far durable. Returns the highest durable block.
    pub(crate) fn sync(&self) -> Result<u64, PersistError> {
        self.sync_files(true)
    }

    /// Makes all sealed segments durable. Returns the highest durable block.
    pub(crate) fn sync_sealed(&self) -> Result<u64, PersistError> {
        self.sync_files(false)
    }

    fn sync_files(&self, current_too: bool) -> Result<u64, PersistError> {
        let before = self.synced();
        let result = self.sync_in_order(current_too);
        if result.is_err() || self.synced() > before {
            self.notify();
        }
        result.map(|()| self.synced())
    }

    /// Syncs one segment after another, so that everything before a published durable block is durable, too.
    fn sync_in_order(&self, current_too: bool) -> Result<(), PersistError> {
        let _syncing = self.syncing.lock();
        loop {
            let writer = self.writer.lock();
            if self.is_poisoned() {
                return Err(self.poison_error());
            }
            let sealed = writer.sealed.first().cloned();
            let wanted = |current: &&SegmentFile| current_too && sealed.is_none() && !current.detached;
            let current = writer.current.as_ref().filter(wanted);
            let Some(to_sync) = sealed.or(current.map(|current| Sealed::of(current, writer.last_written))) else {
                return Ok(());
            };
            let is_current = current.is_some();
            let path = writer.maker.storage.path(&segment_name(to_sync.number));
            drop(writer);
            if to_sync.last_block > self.synced() {
                // Under the other policies no reply waits for it.
                let event = (self.policy() == FsyncPolicy::Always).then_some(Event::AofFsyncAlways);
                let begun = Instant::now();
                let synced = self.timed(event, || to_sync.file.sync_data());
                self.figures.fsync_us.record(begun.elapsed().as_micros() as u64);
                synced.map_err(|source| self.sync_failed(&to_sync, path, source))?;
                self.synced.fetch_max(to_sync.last_block, Ordering::Release);
            }
            to_sync.file.uncache(to_sync.len.saturating_sub(CACHED));
            if is_current {
                return Ok(());
            }
            self.writer.lock().sealed.retain(|sealed| sealed.number != to_sync.number);
            self.tending.kick();
        }
    }

    fn sync_failed(&self, failed: &Sealed, path: std::path::PathBuf, source: std::io::Error) -> PersistError {
        let error = PersistError::io("sync", path)(source);
        self.set_poison(failed.number, error.to_string());
        let mut writer = self.writer.lock();
        writer.untrusted.push(failed.number);
        writer.retired.take_if(|retired| retired.number == failed.number);
        drop(writer);
        error
    }

    fn notify(&self) {
        let subscribers = self.subscribers.lock().clone();
        for subscriber in subscribers {
            subscriber();
        }
    }

    fn set_poison(&self, segment: u64, cause: String) {
        crate::base::logging::warning(format_args!("The log has failed, writes are refused: {cause}"));
        let mut poison = self.poison.lock();
        // A segment that has failed is never used again, even if an older one fails later.
        let segment = poison.as_ref().map_or(segment, |before| before.segment.max(segment));
        *poison = Some(Poison { segment, cause });
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn failed(&self, segment: u64) -> bool {
        self.is_poisoned() && self.poison.lock().as_ref().is_some_and(|p| p.segment >= segment)
    }

    fn poison_error(&self) -> PersistError {
        PersistError::Poisoned { cause: self.poisoned().unwrap_or_default() }
    }
}

impl Sink for Log {
    fn wants(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn accept(&self, block: &mut Block<'_>) {
        let mut writer = self.writer.lock();
        let works = writer.current.as_ref().is_some_and(|segment| !self.failed(segment.number));
        if works {
            // An error poisons the log. The effects are in memory, so the snapshot that heals the log will hold them.
            let _ = self.write_block(&mut writer, block);
        }
    }
}
