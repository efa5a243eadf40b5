//! The append path of the log.
//!
//! ```text
//! worker 0: buffer ─┐
//! worker 1: buffer ─┼─ take (all buffer locks: a consistent cut) ─ one block ─ one write ─ fsync
//! worker 2: buffer ─┘
//! ```
//!
//! - What one [`Appender`] appends while it lives is inside one block: it holds the buffer's lock.
//! - Lock order: `syncing`, `writer`, then all buffers in order. A caller may hold shard locks and its own buffer;
//!   whoever flushes, syncs or cuts holds neither. Nobody waits for a sync with the writer in hand.
//! - [`Log::position`] is exact without locks: it is set under a buffer lock and replaced under all.
//! - Where nothing was written before, zeros go ahead of the blocks, so that the system finds memory and room for many
//!   pages at once. In a recycled segment, zeros stand behind the last block up to the end of its page: a mark for
//!   recovery, and no page is written but from its beginning, so that none of them must be read first.
//! - A failed write or fsync poisons the log: nothing is written to, or synced from, that file ever
//!   again, and nothing is published as written or synced, until a new snapshot and segment heal it.

mod rotate;
mod segment_file;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::base::lock::{Mutex, MutexGuard, Rank};

use super::block::{BlockHeader, finish_block};
use super::error::PersistError;
use super::format::{BLOCK_HEADER, segment_name};
use super::fsync::Signal;
use super::record::put_epoch;
use super::storage::{Storage, StorageFile};
use crate::base::prefetch::prefetch_line;

pub(crate) use rotate::LogCut;
use segment_file::{SegmentFile, SegmentMaker};

/// A buffer larger than this is given back after its flush.
const OVERSIZED: usize = 4 << 20;
/// Records of this size are not copied into the buffer but become it, in bytes.
const MOVED_MIN: usize = 1 << 20;

/// How much of a segment's end stays in the system's memory, in bytes: what a start after a crash reads most often. The
/// memory of what is older serves what comes next; a log is not read while the server runs.
const CACHED: u64 = 64 << 20;

/// No epoch has been marked in a buffer yet.
const NO_EPOCH: u64 = u64::MAX;

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

/// What the log needs to know of its store.
pub(crate) struct LogSetup {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) workers: usize,
    pub(crate) hash_seed: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) policy: FsyncPolicy,
    pub(crate) clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The last block that recovery found, its CRC, and the number of the next segment.
    pub(crate) last_block: u64,
    pub(crate) last_crc: u32,
    pub(crate) next_segment: u64,
    /// Bytes of log that recovery read.
    pub(crate) bytes: u64,
}

/// The log.
pub struct Log {
    buffers: Box<[Padded]>,
    /// The last block number given out, shifted left once; bit 0: something was appended since.
    position: AtomicU64,
    /// Barriers since the process began.
    epoch: AtomicU64,
    active: AtomicBool,
    writer: Mutex<Writer>,
    /// Held during an fsync, so that none can follow a failed one.
    syncing: Mutex<()>,
    poison: Mutex<Option<Poison>>,
    poisoned: AtomicBool,
    /// How often the log has failed.
    failures: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    bytes: AtomicU64,
    policy: AtomicU8,
    subscribers: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
    pub(crate) signal: Signal,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Its own cache lines: neighbours' locks are taken by other cores.
#[repr(align(128))]
struct Padded(Mutex<Buffer>);

struct Buffer {
    /// Room for the header of a block, then records; or nothing at all. So it can become the block.
    bytes: Vec<u8>,
    /// The epoch that the last mark in `bytes` gives.
    epoch: u64,
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
    /// The segment before the current one, sealed: once nothing needs it, another can be written over it.
    retired: Option<SegmentFile>,
    /// Those before the current one that are not known to be durable, oldest first.
    sealed: Vec<Sealed>,
    /// Whether a log goes on from the next cut.
    keep: bool,
    next_segment: u64,
    /// The last block number given out, and the last one in the file.
    taken: u64,
    last_written: u64,
    prev_crc: u32,
    swapped: Vec<Vec<u8>>,
    block: Vec<u8>,
}

/// What is to be synced of a segment that has its last block.
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
        let buffer = |worker| {
            let empty = Buffer { bytes: Vec::new(), epoch: NO_EPOCH };
            Padded(Mutex::indexed(Rank::JournalBuffer, worker as u32, empty))
        };
        let workers = setup.workers.max(1);
        Self {
            buffers: (0..workers).map(buffer).collect(),
            position: AtomicU64::new(setup.last_block << 1),
            epoch: AtomicU64::new(0),
            active: AtomicBool::new(false),
            writer: Mutex::new(
                Rank::LogWriter,
                Writer {
                    maker: SegmentMaker {
                        storage: setup.storage,
                        hash_seed: setup.hash_seed,
                        generation: setup.generation,
                    },
                    current: None,
                    spare: None,
                    retired: None,
                    sealed: Vec::new(),
                    keep: false,
                    next_segment: setup.next_segment,
                    taken: setup.last_block,
                    last_written: setup.last_block,
                    prev_crc: setup.last_crc,
                    swapped: vec![Vec::new(); workers],
                    block: Vec::new(),
                },
            ),
            syncing: Mutex::new(Rank::Syncing, ()),
            poison: Mutex::new(Rank::Poison, None),
            poisoned: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            written: AtomicU64::new(setup.last_block),
            synced: AtomicU64::new(setup.last_block),
            bytes: AtomicU64::new(setup.bytes),
            policy: AtomicU8::new(setup.policy as u8),
            subscribers: Mutex::default(),
            signal: Signal::default(),
            clock: setup.clock,
        }
    }

    /// Opens the worker's buffer: what is appended through it is inside one block.
    ///
    /// The caller must not flush, sync or cut while it holds the appender.
    #[inline]
    pub fn appender(&self, worker: usize) -> Appender<'_> {
        Appender { log: self, buffer: self.buffers[worker].0.lock() }
    }

    /// Whether a log is kept at all.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The number of the block that covers everything appended so far.
    #[inline]
    pub fn position(&self) -> u64 {
        let position = self.position.load(Ordering::Acquire);
        (position >> 1) + (position & 1)
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

    /// Which failure the log suffers from, counted from 1; `None` if it works. Whoever finds the same one
    /// twice knows that the log took nothing in between.
    pub fn failure(&self) -> Option<u64> {
        let _poison = self.poison.lock();
        self.is_poisoned().then(|| self.failures.load(Ordering::Relaxed))
    }

    /// Why the log takes no more writes, if so.
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

    /// Changes the fsync policy, at once. Who waits by the old one looks again: under another, there may
    /// never be the progress that they wait for.
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

    /// Has a function called, on whichever thread, after `synced` advanced or the log was poisoned
    /// or healed. It must be quick and must not call back into flush, sync or cut.
    pub fn on_progress(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.subscribers.lock().push(Arc::from(subscriber));
    }

    /// Bytes in the log since the last committed snapshot.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes appended and not yet flushed.
    pub fn pending_bytes(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.0.lock().bytes.len().saturating_sub(BLOCK_HEADER)).sum()
    }

    /// Writes everything appended so far as one block; returns the highest block written.
    ///
    /// Writes nothing when nothing was appended.
    pub fn flush(&self) -> Result<u64, PersistError> {
        if self.position.load(Ordering::Acquire) & 1 == 0 && !self.is_poisoned() {
            // Nothing new; but a block taken by another thread may still be on its way.
            let taken = self.position.load(Ordering::Acquire) >> 1;
            if self.written() >= taken {
                return Ok(self.written());
            }
        }
        let mut writer = self.writer.lock();
        let result = self.flush_locked(&mut writer);
        drop(writer);
        if result.is_err() {
            self.notify();
        }
        result
    }

    fn flush_locked(&self, writer: &mut Writer) -> Result<u64, PersistError> {
        let dirty = self.position.load(Ordering::Acquire) & 1 == 1;
        let failing = writer.current.as_ref().is_none_or(|segment| self.failed(segment.number));
        if dirty {
            let number = self.take(writer, None);
            if failing {
                // Its effects are in memory; the snapshot that heals the log will hold them.
                writer.discard();
            } else {
                self.write_block(writer, number, 0)?;
            }
        }
        if self.is_poisoned() {
            return Err(self.poison_error());
        }
        Ok(self.written())
    }

    /// Swaps out all buffers at one instant and gives the block its number.
    ///
    /// `active`, if given, takes effect at the same instant.
    fn take(&self, writer: &mut Writer, active: Option<bool>) -> u64 {
        let mut buffers: Vec<MutexGuard<'_, Buffer>> = self.buffers.iter().map(|buffer| buffer.0.lock()).collect();
        for (buffer, swapped) in buffers.iter_mut().zip(&mut writer.swapped) {
            debug_assert!(swapped.is_empty(), "the last take was written or discarded");
            std::mem::swap(&mut buffer.bytes, swapped);
            buffer.epoch = NO_EPOCH;
        }
        if self.active.load(Ordering::Relaxed) {
            writer.taken += 1;
            self.position.store(writer.taken << 1, Ordering::Release);
        }
        if let Some(active) = active {
            self.active.store(active, Ordering::Relaxed);
        }
        writer.taken
    }

    /// Writes what was taken as one block to the current segment.
    fn write_block(&self, writer: &mut Writer, number: u64, next_segment: u64) -> Result<(), PersistError> {
        writer.gather();
        let len = writer.block.len() as u64;
        let segment = writer.current.as_mut().expect("checked by the caller");
        let policy = self.policy();
        // An fsync of what fills reserved room takes longer than of what has found its place.
        if policy != FsyncPolicy::Always {
            segment.reserve(len);
        }
        let header = BlockHeader {
            number,
            generation: writer.maker.generation,
            time_ms: (self.clock)(),
            durable: self.synced(),
            next_segment,
            prev_crc: writer.prev_crc,
        };
        let crc = finish_block(&mut writer.block, &header);
        let written = segment.write(&mut writer.block, policy);
        if writer.block.capacity() > OVERSIZED {
            writer.block = Vec::new();
        }
        if let Err(source) = written {
            let path = writer.maker.storage.path(&segment_name(segment.number));
            let error = PersistError::io("write", path)(source);
            self.set_poison(segment.number, error.to_string());
            return Err(error);
        }
        writer.prev_crc = crc;
        writer.last_written = number;
        self.bytes.fetch_add(len, Ordering::Relaxed);
        // While a snapshot is healing the log, nothing may look acknowledged.
        if !self.is_poisoned() {
            self.written.fetch_max(number, Ordering::Release);
        }
        Ok(())
    }

    /// Flushes, and makes everything written so far durable.
    pub fn sync_now(&self) -> Result<u64, PersistError> {
        self.flush()?;
        self.sync()
    }

    /// Makes everything written so far durable; returns the highest durable block.
    pub(crate) fn sync(&self) -> Result<u64, PersistError> {
        self.sync_files(true)
    }

    /// Makes those segments durable that have their last block; returns the highest durable block.
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

    /// Syncs one segment after the other: what is published as durable has nothing before it that is not.
    fn sync_in_order(&self, current_too: bool) -> Result<(), PersistError> {
        let _syncing = self.syncing.lock();
        loop {
            let writer = self.writer.lock();
            if self.is_poisoned() {
                return Err(self.poison_error());
            }
            let sealed = writer.sealed.first().cloned();
            let current = writer.current.as_ref().filter(|_| current_too && sealed.is_none());
            let Some(to_sync) = sealed.or(current.map(|current| Sealed::of(current, writer.last_written))) else {
                return Ok(());
            };
            let is_current = current.is_some();
            let path = writer.maker.storage.path(&segment_name(to_sync.number));
            drop(writer);
            if to_sync.last_block > self.synced() {
                to_sync.file.sync_data().map_err(|source| self.sync_failed(&to_sync, path, source))?;
                self.synced.fetch_max(to_sync.last_block, Ordering::Release);
            }
            to_sync.file.uncache(to_sync.len.saturating_sub(CACHED));
            if is_current {
                return Ok(());
            }
            self.writer.lock().sealed.retain(|sealed| sealed.number != to_sync.number);
        }
    }

    fn sync_failed(&self, failed: &Sealed, path: std::path::PathBuf, source: std::io::Error) -> PersistError {
        let error = PersistError::io("sync", path)(source);
        self.set_poison(failed.number, error.to_string());
        // No segment is written over it.
        self.writer.lock().retired.take_if(|retired| retired.number == failed.number);
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
        // What has failed once is never used again, though an older segment fails after it.
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

impl Writer {
    /// Puts what was taken into one block, behind room for its header. What one worker alone has appended is not
    /// copied.
    fn gather(&mut self) {
        let Writer { block, swapped, .. } = self;
        block.clear();
        for swapped in swapped.iter_mut().filter(|swapped| !swapped.is_empty()) {
            if block.is_empty() {
                std::mem::swap(block, swapped);
            } else {
                block.extend_from_slice(&swapped[BLOCK_HEADER..]);
            }
        }
        block.resize(block.len().max(BLOCK_HEADER), 0);
        self.discard();
    }

    fn discard(&mut self) {
        for swapped in &mut self.swapped {
            swapped.clear();
            if swapped.capacity() > OVERSIZED {
                *swapped = Vec::new();
            }
        }
    }
}

/// A worker's open buffer. See [`Log::appender`].
pub struct Appender<'a> {
    log: &'a Log,
    buffer: MutexGuard<'a, Buffer>,
}

impl Appender<'_> {
    /// Appends records that [`RecordWriter`](super::verbs::RecordWriter) has encoded, and leaves `records` empty. The
    /// caller holds the locks of their shards.
    #[inline]
    pub fn encoded(&mut self, records: &mut Vec<u8>) {
        if self.log.is_active() {
            self.enter(self.log.epoch.load(Ordering::Acquire));
            let bytes = &mut self.buffer.bytes;
            if records.len() < MOVED_MIN || records.len() < bytes.len() {
                bytes.extend_from_slice(records);
                // The next record goes behind this one.
                let end = bytes.as_ptr().wrapping_add(bytes.len());
                for line in 1..3 {
                    prefetch_line(end.wrapping_add(line * 64));
                }
            } else {
                // To move the larger part within its memory takes less time than to have the system clear new memory.
                records.splice(..0, bytes.drain(..));
                std::mem::swap(records, bytes);
            }
        }
        records.clear();
    }

    /// Appends an effect on several shards, or on all, that [`BarrierWriter`](super::verbs::BarrierWriter) has encoded.
    /// The caller has stopped all other workers, or holds the
    /// locks of the shards that the effect reads and changes: then whoever comes to these shards after it appends
    /// behind the new epoch.
    pub fn barrier(&mut self, encoded: &[u8]) {
        if self.log.is_active() {
            let epoch = self.log.epoch.fetch_add(1, Ordering::AcqRel) + 1;
            self.enter(epoch);
            self.buffer.bytes.extend_from_slice(encoded);
        }
    }

    /// How much the buffer holds, for [`Appender::truncate`].
    pub fn mark(&self) -> usize {
        self.buffer.bytes.len()
    }

    /// Takes back what this appender appended since the mark.
    pub fn truncate(&mut self, mark: usize) {
        self.buffer.bytes.truncate(mark);
        // The mark of the epoch may have gone too; another one does no harm.
        self.buffer.epoch = NO_EPOCH;
    }

    #[inline]
    fn enter(&mut self, epoch: u64) {
        let position = &self.log.position;
        if position.load(Ordering::Relaxed) & 1 == 0 {
            position.fetch_or(1, Ordering::AcqRel);
        }
        if self.buffer.bytes.is_empty() {
            self.buffer.bytes.resize(BLOCK_HEADER, 0);
        }
        if self.buffer.epoch != epoch {
            self.buffer.epoch = epoch;
            put_epoch(&mut self.buffer.bytes, epoch);
        }
    }
}
