//! The buffers of the journal, and the right to append to one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::lock::{Mutex, MutexGuard, Rank};
use crate::base::per_worker::PerWorker;
use crate::base::prefetch::prefetch_line;
use crate::persist::format::BLOCK_HEADER;
use crate::persist::record::put_epoch;

/// Records of this size or more, in bytes, are not copied into the buffer but become it.
pub(in crate::persist) const MOVED_MIN: usize = 1 << 20;

/// No epoch has been marked in a buffer yet.
const NO_EPOCH: u64 = u64::MAX;

/// On its own cache lines, because other cores take the neighbours' locks.
#[repr(align(128))]
pub(super) struct Padded(pub(super) Mutex<Buffer>);

impl Padded {
    pub(super) fn new(worker: usize) -> Self {
        let empty = Buffer { bytes: Vec::new(), epoch: NO_EPOCH };
        Padded(Mutex::indexed(Rank::JournalBuffer, worker as u32, empty))
    }
}

/// All buffers, and the state that appending needs.
pub(super) struct Buffers {
    pub(super) all: PerWorker<Padded>,
    /// The last block number issued, shifted left once; bit 0: something was appended since.
    pub(super) position: AtomicU64,
    /// Barriers since the process began.
    epoch: AtomicU64,
    /// Whether any sink wants what is appended.
    pub(super) wants: AtomicBool,
}

impl Buffers {
    pub(super) fn new(workers: usize, last_block: u64) -> Self {
        Buffers {
            all: PerWorker::new(workers, Padded::new),
            position: AtomicU64::new(last_block << 1),
            epoch: AtomicU64::new(0),
            wants: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn wants(&self) -> bool {
        self.wants.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn appender(&self, worker: usize) -> Appender<'_> {
        Appender { buffers: self, buffer: self.all[worker].0.lock() }
    }
}

pub(super) struct Buffer {
    /// Room for the header of a block, then records; or nothing at all. It can thus become the block.
    pub(super) bytes: Vec<u8>,
    /// The epoch that the last mark in `bytes` gives.
    epoch: u64,
}

impl Buffer {
    /// Exchanges the appended bytes for an empty buffer.
    pub(super) fn take(&mut self, empty: &mut Vec<u8>) {
        std::mem::swap(&mut self.bytes, empty);
        self.epoch = NO_EPOCH;
    }
}

/// A worker's open buffer. See [`Journal::appender`](super::Journal::appender).
pub struct Appender<'a> {
    buffers: &'a Buffers,
    buffer: MutexGuard<'a, Buffer>,
}

impl Appender<'_> {
    /// Appends records that [`RecordWriter`](crate::persist::verbs::RecordWriter) has encoded, and leaves
    /// `records` empty. The caller holds the locks of their shards.
    #[inline]
    pub fn encoded(&mut self, records: &mut Vec<u8>) {
        if self.buffers.wants() {
            self.enter(self.buffers.epoch.load(Ordering::Acquire));
            let bytes = &mut self.buffer.bytes;
            if records.len() < MOVED_MIN || records.len() < bytes.len() {
                bytes.extend_from_slice(records);
                // The next record goes behind this one.
                let end = bytes.as_ptr().wrapping_add(bytes.len());
                for line in 1..3 {
                    prefetch_line(end.wrapping_add(line * 64));
                }
            } else {
                // Moving the larger part within its memory takes less time than getting cleared memory from the
                // system.
                records.splice(..0, bytes.drain(..));
                std::mem::swap(records, bytes);
            }
        }
        records.clear();
    }

    /// Appends an effect on several shards, or on all, that a [`BarrierWriter`](crate::persist::verbs::BarrierWriter)
    /// has encoded. The caller has stopped all other workers, or holds the locks of the shards that the effect reads
    /// and changes, so that later changes of these shards are appended behind the new epoch.
    pub fn barrier(&mut self, encoded: &[u8]) {
        if self.buffers.wants() {
            let epoch = self.buffers.epoch.fetch_add(1, Ordering::AcqRel) + 1;
            self.enter(epoch);
            self.buffer.bytes.extend_from_slice(encoded);
        }
    }

    /// How much the buffer holds, for [`Appender::truncate`].
    pub fn mark(&self) -> usize {
        self.buffer.bytes.len()
    }

    /// Removes what this appender has appended since the mark.
    pub fn truncate(&mut self, mark: usize) {
        self.buffer.bytes.truncate(mark);
        // The mark of the epoch may be removed, too. Another one is harmless.
        self.buffer.epoch = NO_EPOCH;
    }

    #[inline]
    fn enter(&mut self, epoch: u64) {
        let position = &self.buffers.position;
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
