//! The append path of the log.
//!
//! ```text
//! worker 0: buffer ─┐
//! worker 1: buffer ─┼─ take (all buffer locks: a consistent cut) ─ one block ─ one write ─ fsync
//! worker 2: buffer ─┘
//! ```
//!
//! - What one [`Appender`] appends while it lives is inside one block: it holds the buffer's lock.
//! - Lock order: `writer`, then all buffers in order, then `syncing`. A caller may hold shard locks
//!   and its own buffer; whoever flushes, syncs or cuts holds neither.
//! - [`Log::position`] is exact without locks: it is set under a buffer lock and replaced under all.
//! - A failed write or fsync poisons the log: nothing is written to, or synced from, that file ever
//!   again, and nothing is published as written or synced, until a new snapshot and segment heal it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::block::{BlockHeader, SegmentHeader, finish_block, segment_header};
use super::error::PersistError;
use super::format::{BLOCK_HEADER, SEGMENT_ATTACHED, SEGMENT_DETACHED, segment_name};
use super::fsync::Signal;
use super::record::{put_barrier, put_epoch, put_record};
use super::storage::{Storage, StorageFile};
use super::wire::SegmentWire;

/// A buffer larger than this is given back after its flush.
const OVERSIZED: usize = 4 << 20;

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
    storage: Arc<dyn Storage>,
    hash_seed: [u8; 16],
    generation: u64,
    current: Option<Segment>,
    /// The segment after the current one, made ahead of need.
    spare: Option<Segment>,
    next_segment: u64,
    /// The last block number given out, and the last one in the file.
    taken: u64,
    last_written: u64,
    prev_crc: u32,
    swapped: Vec<Vec<u8>>,
    block: Vec<u8>,
}

struct Segment {
    number: u64,
    file: Arc<dyn StorageFile>,
    /// Not named by the manifest yet, and without it nothing.
    detached: bool,
}

/// Where a cut fell.
pub(crate) struct LogCut {
    /// The last block whose effects are in the frozen view.
    pub(crate) block: u64,
    /// The segment that goes on from it; none when no log is kept.
    pub(crate) segment: Option<SegmentWire>,
    pub(crate) detached: bool,
    /// Log bytes before it.
    bytes: u64,
}

impl Log {
    pub(crate) fn new(setup: LogSetup) -> Self {
        let buffer = || Padded(Mutex::new(Buffer { bytes: Vec::new(), epoch: NO_EPOCH }));
        let workers = setup.workers.max(1);
        Self {
            buffers: (0..workers).map(|_| buffer()).collect(),
            position: AtomicU64::new(setup.last_block << 1),
            epoch: AtomicU64::new(0),
            active: AtomicBool::new(false),
            writer: Mutex::new(Writer {
                storage: setup.storage,
                hash_seed: setup.hash_seed,
                generation: setup.generation,
                current: None,
                spare: None,
                next_segment: setup.next_segment,
                taken: setup.last_block,
                last_written: setup.last_block,
                prev_crc: setup.last_crc,
                swapped: vec![Vec::new(); workers],
                block: Vec::new(),
            }),
            syncing: Mutex::new(()),
            poison: Mutex::new(None),
            poisoned: AtomicBool::new(false),
            written: AtomicU64::new(setup.last_block),
            synced: AtomicU64::new(setup.last_block),
            bytes: AtomicU64::new(setup.bytes),
            policy: AtomicU8::new(setup.policy as u8),
            subscribers: Mutex::new(Vec::new()),
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

    /// Appends one record; see [`Appender::record`].
    #[inline]
    pub fn append(&self, worker: usize, shard: u16, seq: u64, db: u32, args: &[&[u8]]) {
        self.appender(worker).record(shard, seq, db, args);
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

    /// Changes the fsync policy, at once.
    pub fn set_policy(&self, policy: FsyncPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
        self.kick();
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
        self.buffers.iter().map(|buffer| buffer.0.lock().bytes.len()).sum()
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
        let segment = writer.current.as_ref().expect("checked by the caller");
        let header = BlockHeader {
            number,
            generation: writer.generation,
            time_ms: (self.clock)(),
            durable: self.synced(),
            next_segment,
            prev_crc: writer.prev_crc,
        };
        let crc = finish_block(&mut writer.block, &header);
        let written = segment.file.append(&writer.block);
        let len = writer.block.len() as u64;
        if writer.block.capacity() > OVERSIZED {
            writer.block = Vec::new();
        }
        if let Err(source) = written {
            let path = writer.storage.path(&segment_name(segment.number));
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
        let writer = self.writer.lock();
        if self.is_poisoned() {
            return Err(self.poison_error());
        }
        let Some(segment) = &writer.current else { return Ok(self.synced()) };
        let (file, number) = (Arc::clone(&segment.file), segment.number);
        let target = writer.last_written;
        let path = writer.storage.path(&segment_name(number));
        drop(writer);
        let before = self.synced();
        let result = self.sync_file(&*file, number, target, path);
        if result.is_err() || self.synced() > before {
            self.notify();
        }
        result.map(|()| self.synced())
    }

    fn sync_file(
        &self,
        file: &dyn StorageFile,
        segment: u64,
        target: u64,
        path: std::path::PathBuf,
    ) -> Result<(), PersistError> {
        let _syncing = self.syncing.lock();
        if target <= self.synced() {
            return Ok(());
        }
        if self.is_poisoned() {
            return Err(self.poison_error());
        }
        match file.sync_data() {
            Ok(()) => {
                self.synced.fetch_max(target, Ordering::Release);
                Ok(())
            }
            Err(source) => {
                let error = PersistError::io("sync", path)(source);
                self.set_poison(segment, error.to_string());
                Err(error)
            }
        }
    }

    fn notify(&self) {
        let subscribers = self.subscribers.lock().clone();
        for subscriber in subscribers {
            subscriber();
        }
    }

    fn set_poison(&self, segment: u64, cause: String) {
        *self.poison.lock() = Some(Poison { segment, cause });
        self.poisoned.store(true, Ordering::Release);
    }

    fn failed(&self, segment: u64) -> bool {
        self.is_poisoned() && self.poison.lock().as_ref().is_some_and(|p| p.segment >= segment)
    }

    fn poison_error(&self) -> PersistError {
        PersistError::Poisoned { cause: self.poisoned().unwrap_or_default() }
    }
}

/// Rotation, switching on and off: the store's side of the log.
impl Log {
    /// Starts logging into a new segment, which the manifest then names.
    pub(crate) fn start(&self) -> Result<SegmentWire, PersistError> {
        let mut writer = self.writer.lock();
        let segment = writer.create_segment(SEGMENT_ATTACHED)?;
        let wire = writer.describe(&segment);
        writer.current = Some(segment);
        self.active.store(true, Ordering::Relaxed);
        Ok(wire)
    }

    /// Creates the next segment ahead of need. Failure is no harm: the cut tries again.
    pub(crate) fn prepare_spare(&self) {
        let mut writer = self.writer.lock();
        if writer.current.is_some() && writer.spare.is_none() && !self.is_poisoned() {
            writer.spare = writer.create_segment(SEGMENT_ATTACHED).ok();
        }
    }

    /// Flushes and syncs without a gate, so that the cut itself has little to sync.
    pub(crate) fn settle(&self) {
        // A failure poisons the log, and the cut will see that.
        let _ = self.sync_now();
    }

    /// Ends the current segment at the instant at which `freeze` calls its argument.
    ///
    /// `keep` says whether a log goes on from there.
    pub(crate) fn cut<T>(
        &self,
        keep: bool,
        freeze: impl FnOnce(&mut dyn FnMut()) -> T,
    ) -> Result<(T, LogCut), PersistError> {
        let mut guard = self.writer.lock();
        let writer = &mut *guard;
        let rotate = keep && !self.is_poisoned() && writer.current.as_ref().is_some_and(|segment| !segment.detached);
        // Slow I/O before the caller stops the world.
        let next = match (keep, rotate) {
            (false, _) => None,
            (true, true) => Some(match writer.spare.take() {
                Some(spare) => spare,
                None => writer.create_segment(SEGMENT_ATTACHED)?,
            }),
            (true, false) => Some(writer.create_segment(SEGMENT_DETACHED)?),
        };
        let mut taken = None;
        let value = freeze(&mut || {
            if taken.is_none() {
                taken = Some(self.take(writer, Some(keep)));
            }
        });
        let block = taken.expect("freeze must take the buffers while the world stands still");
        let sealed = match &next {
            Some(next) if rotate => self.seal(writer, block, next.number).is_ok(),
            _ => true,
        };
        let result = self.go_on(writer, next, block, sealed);
        drop(guard);
        self.notify();
        result.map(|cut| (value, cut))
    }

    /// Writes the last block of the current segment and makes it durable before any block of the
    /// next one can be written: so a hole between two segments is never the work of a crash.
    fn seal(&self, writer: &mut Writer, block: u64, next: u64) -> Result<(), PersistError> {
        self.write_block(writer, block, next)?;
        let segment = writer.current.as_ref().expect("rotation has a current segment");
        let path = writer.storage.path(&segment_name(segment.number));
        self.sync_file(&*segment.file, segment.number, block, path)
    }

    fn go_on(
        &self,
        writer: &mut Writer,
        next: Option<Segment>,
        block: u64,
        sealed: bool,
    ) -> Result<LogCut, PersistError> {
        writer.discard();
        let next = match next {
            // The old segment just failed: what follows must not hang on to it. The spare stays
            // where it is, for the seal may have reached the disk and then asks for it.
            Some(_) if !sealed => Some(writer.create_segment(SEGMENT_DETACHED)?),
            next => next,
        };
        let detached = next.as_ref().is_some_and(|segment| segment.detached);
        if detached {
            writer.spare = None;
            writer.prev_crc = 0;
            writer.last_written = block;
        }
        let segment = next.as_ref().map(|segment| SegmentWire { first_block: block + 1, ..writer.describe(segment) });
        if next.is_some() {
            writer.current = next;
        }
        Ok(LogCut { block, segment, detached, bytes: self.bytes() })
    }

    /// The snapshot of a cut is the store now: everything up to the cut is durable, and a log that
    /// failed before it is healed.
    pub(crate) fn committed(&self, cut: &LogCut) {
        let mut writer = self.writer.lock();
        if let Some(segment) = &cut.segment {
            let mut poison = self.poison.lock();
            if poison.as_ref().is_some_and(|poison| poison.segment < segment.number) {
                *poison = None;
                self.poisoned.store(false, Ordering::Release);
            }
            drop(poison);
            if let Some(current) = &mut writer.current
                && current.number == segment.number
            {
                current.detached = false;
            }
        }
        if !self.is_poisoned() {
            self.synced.fetch_max(cut.block, Ordering::Release);
            self.written.fetch_max(writer.last_written.max(cut.block), Ordering::Release);
        }
        self.bytes.fetch_sub(cut.bytes.min(self.bytes()), Ordering::Relaxed);
        drop(writer);
        self.kick();
        self.notify();
    }

    /// The snapshot of a cut came to nothing. An attached segment simply goes on; a detached one
    /// counts for nothing, and its name is returned so that it can be removed.
    pub(crate) fn discarded(&self, cut: &LogCut) -> Option<String> {
        let segment = cut.segment.as_ref().filter(|_| cut.detached)?;
        let mut writer = self.writer.lock();
        if writer.current.as_ref().is_some_and(|current| current.number == segment.number) {
            writer.current = None;
            writer.spare = None;
            if !self.is_poisoned() {
                self.take(&mut writer, Some(false));
                writer.discard();
                self.publish_all(&writer);
            }
        }
        drop(writer);
        Some(segment_name(segment.number))
    }

    /// Stops logging: what is there is made durable, and what comes is dropped.
    pub(crate) fn turn_off(&self) -> Result<(), PersistError> {
        let result = if self.is_active() { self.sync_now().map(|_| ()) } else { Ok(()) };
        let mut writer = self.writer.lock();
        self.take(&mut writer, Some(false));
        writer.discard();
        writer.current = None;
        writer.spare = None;
        *self.poison.lock() = None;
        self.poisoned.store(false, Ordering::Release);
        self.publish_all(&writer);
        drop(writer);
        self.notify();
        result
    }

    /// Nobody needs to wait for a log that is not kept.
    fn publish_all(&self, writer: &Writer) {
        self.written.fetch_max(writer.taken, Ordering::Release);
        self.synced.fetch_max(writer.taken, Ordering::Release);
    }

    /// Whether the current segment counts for nothing until a commit.
    pub(crate) fn is_detached(&self) -> bool {
        self.writer.lock().current.as_ref().is_none_or(|segment| segment.detached)
    }

    /// The number that the next segment will bear.
    pub(crate) fn next_segment(&self) -> u64 {
        self.writer.lock().next_segment
    }
}

impl Writer {
    /// Creates a segment with its header, durably, entry and content.
    fn create_segment(&mut self, kind: u32) -> Result<Segment, PersistError> {
        let number = self.next_segment;
        let name = segment_name(number);
        let path = self.storage.path(&name);
        // A number is used once, whatever becomes of the file.
        self.next_segment += 1;
        let file: Arc<dyn StorageFile> =
            Arc::from(self.storage.create(&name).map_err(PersistError::io("create", &path))?);
        let header = SegmentHeader { kind, number, generation: self.generation, hash_seed: self.hash_seed };
        file.append(&segment_header(&header)).map_err(PersistError::io("write", &path))?;
        file.sync_data().map_err(PersistError::io("sync", &path))?;
        self.storage.sync_dir().map_err(PersistError::io("sync", self.storage.path("")))?;
        Ok(Segment { number, file, detached: kind == SEGMENT_DETACHED })
    }

    fn describe(&self, segment: &Segment) -> SegmentWire {
        SegmentWire {
            number: segment.number,
            generation: self.generation,
            first_block: self.taken + 1,
            prev_crc: self.prev_crc,
        }
    }

    /// Puts what was taken behind a block header.
    fn gather(&mut self) {
        self.block.clear();
        self.block.resize(BLOCK_HEADER, 0);
        for swapped in &self.swapped {
            self.block.extend_from_slice(swapped);
        }
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
    /// Appends one effect on one key, `args[1]`. The caller holds the shard's lock.
    #[inline]
    pub fn record(&mut self, shard: u16, seq: u64, db: u32, args: &[&[u8]]) {
        if self.log.is_active() {
            self.enter(self.log.epoch.load(Ordering::Acquire));
            put_record(&mut self.buffer.bytes, shard, seq, db, args);
        }
    }

    /// Appends records that were encoded with [`put_record`](super::record::put_record).
    #[inline]
    pub fn encoded(&mut self, records: &[u8]) {
        if self.log.is_active() {
            self.enter(self.log.epoch.load(Ordering::Acquire));
            self.buffer.bytes.extend_from_slice(records);
        }
    }

    /// Appends an effect on the whole keyspace. The caller has stopped all other workers.
    pub fn barrier(&mut self, db: u32, args: &[&[u8]]) {
        if self.log.is_active() {
            let epoch = self.log.epoch.fetch_add(1, Ordering::AcqRel) + 1;
            self.enter(epoch);
            put_barrier(&mut self.buffer.bytes, db, args);
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
        if self.buffer.epoch != epoch {
            self.buffer.epoch = epoch;
            put_epoch(&mut self.buffer.bytes, epoch);
        }
    }
}
