//! The stream of effects: workers append, consistent cuts make numbered blocks, and sinks receive them.
//!
//! ```text
//! worker 0: buffer ─┐                                                      ┌─ the log's file
//! worker 1: buffer ─┼─ take (all buffer locks: a consistent cut) ─ block n ─┼─ another sink
//! worker 2: buffer ─┘                                                      └─ …
//! ```
//!
//! Invariants:
//! - Everything that one [`Appender`] appends is inside one block, because it holds the buffer's lock.
//! - Every sink receives every block that is cut while it wants blocks: once, in order, with dense numbers. Block
//!   numbers belong to the journal and continue whichever sinks there are.
//! - If no sink wants blocks, nothing is encoded and no number is issued: [`Journal::wants`] is one load.
//! - A failing sink does not keep blocks from the others.
//! - [`Journal::position`] is exact without locks: it is set under a buffer lock and replaced under all.
//! - The time of a block is not before that of the previous block.
//!
//! A caller may hold shard locks and its own buffer. A thread that flushes or cuts holds neither.

mod buffers;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::lock::{Mutex, MutexGuard, Rank};
use crate::persist::format::BLOCK_HEADER;

pub use buffers::Appender;
#[cfg(test)]
pub(super) use buffers::MOVED_MIN;
use buffers::{Buffer, Buffers, Padded};

/// A buffer larger than this, in bytes, is freed after its flush.
const OVERSIZED: usize = 4 << 20;

/// A receiver of blocks: the log's file, and anything else that follows the stream.
pub trait Sink: Send + Sync {
    /// Whether it wants what is appended from now on. This is asked only at the instant of a cut: a sink changes its
    /// answer within [`Cutting::take`].
    fn wants(&self) -> bool;

    /// Takes the next block. All replies wait for this call, so it must not wait for a sync of the disk or for the
    /// network.
    fn accept(&self, block: &mut Block<'_>);
}

/// One block on its way to the sinks.
pub struct Block<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// When it was cut, Unix ms.
    pub time_ms: u64,
    framed: &'a mut Vec<u8>,
}

impl Block<'_> {
    /// Its items; see [`Items`](super::record::Items).
    pub fn items(&self) -> &[u8] {
        &self.framed[BLOCK_HEADER..]
    }

    /// [`BLOCK_HEADER`] bytes of room, then the items, so that a sink can frame them in place. Bytes that it appends
    /// are removed when it has returned.
    pub(crate) fn framed(&mut self) -> &mut Vec<u8> {
        self.framed
    }
}

/// The stream; see the module.
pub struct Journal {
    buffers: Buffers,
    /// The last block that every sink has received.
    delivered: AtomicU64,
    cutter: Mutex<Cutter>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

struct Cutter {
    /// The last block number issued.
    taken: u64,
    last_time_ms: u64,
    swapped: Vec<Vec<u8>>,
    block: Vec<u8>,
    sinks: Vec<Member>,
}

struct Member {
    sink: Arc<dyn Sink>,
    /// Whether it receives the block that was taken last.
    takes: bool,
}

/// The right to cut blocks and to change which sinks want them. While it lives, no reply that waits for a block
/// leaves.
pub struct Cutting<'a> {
    journal: &'a Journal,
    cutter: MutexGuard<'a, Cutter>,
}

impl Journal {
    /// A journal without sinks that continues after a block of this number and time.
    pub(crate) fn new(
        workers: usize,
        last_block: u64,
        last_time_ms: u64,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let workers = workers.max(1);
        let (swapped, block) = (vec![Vec::new(); workers], Vec::new());
        let cutter = Cutter { taken: last_block, last_time_ms, swapped, block, sinks: Vec::new() };
        Self {
            buffers: Buffers::new(workers, last_block),
            delivered: AtomicU64::new(last_block),
            cutter: Mutex::new(Rank::JournalCut, cutter),
            clock,
        }
    }

    /// Opens the worker's buffer. Everything appended through it is inside one block.
    ///
    /// The caller must not flush, sync or cut while it holds the appender.
    #[inline]
    pub fn appender(&self, worker: usize) -> Appender<'_> {
        self.buffers.appender(worker)
    }

    /// Adds the buffer of one worker more, unless there can be no more. One thread adds at a time.
    pub fn add_worker(&self) {
        // Behind the cutter's lock: every cut takes all the buffers that there are.
        let mut cutter = self.cutter.lock();
        if self.buffers.all.add(Padded::new(self.buffers.all.len())).is_ok() {
            cutter.swapped.push(Vec::new());
        }
    }

    /// Whether any sink wants what is appended.
    #[inline]
    pub fn wants(&self) -> bool {
        self.buffers.wants()
    }

    /// The number of the block that covers everything appended so far.
    #[inline]
    pub fn position(&self) -> u64 {
        let position = self.buffers.position.load(Ordering::Acquire);
        (position >> 1) + (position & 1)
    }

    /// The time, in Unix ms: not before that of any block, and no later block has one before it.
    pub fn time_ms(&self) -> u64 {
        let mut cutter = self.cutter.lock();
        cutter.last_time_ms = (self.clock)().max(cutter.last_time_ms);
        cutter.last_time_ms
    }

    /// Bytes appended and not yet flushed.
    pub fn pending_bytes(&self) -> usize {
        self.buffers.all.iter().map(|buffer| buffer.0.lock().bytes.len().saturating_sub(BLOCK_HEADER)).sum()
    }

    /// Gives the sinks everything appended so far as one block, or nothing if nothing was appended.
    #[inline]
    pub fn flush(&self) {
        let position = self.buffers.position.load(Ordering::Acquire);
        // Nothing is new, but a block taken by another thread may still be in delivery.
        if position & 1 == 1 || self.delivered.load(Ordering::Acquire) < position >> 1 {
            self.flush_what_there_is();
        }
    }

    fn flush_what_there_is(&self) {
        self.cutting().flush();
    }

    /// Begins a cut; see [`Cutting`].
    pub fn cutting(&self) -> Cutting<'_> {
        Cutting { journal: self, cutter: self.cutter.lock() }
    }

    /// From the next block on, gives every block to this sink, too. The caller has stopped all workers, so that
    /// nothing of a running command is missed.
    pub fn attach(&self, sink: Arc<dyn Sink>) {
        let mut cutting = self.cutting();
        cutting.flush();
        cutting.cutter.sinks.push(Member { sink, takes: false });
        cutting.note_wants();
    }

    /// Gives this sink what was appended so far, and nothing after that.
    pub fn detach(&self, sink: &Arc<dyn Sink>) {
        let mut cutting = self.cutting();
        cutting.flush();
        cutting.cutter.sinks.retain(|member| !Arc::ptr_eq(&member.sink, sink));
        cutting.note_wants();
    }

    /// Detaches all sinks.
    pub(crate) fn detach_all(&self) {
        let mut cutting = self.cutting();
        cutting.cutter.sinks.clear();
        cutting.note_wants();
    }
}

impl Cutting<'_> {
    fn flush(&mut self) {
        if self.journal.buffers.position.load(Ordering::Acquire) & 1 == 1 {
            self.take(|| ());
            self.deliver();
        }
    }

    /// Swaps out all buffers at one instant and numbers the block. Returns the number, or the last one if no sink
    /// wants the block. What `at_that_instant` changes applies to everything appended afterwards.
    ///
    /// [`Cutting::deliver`] must follow before the next take.
    pub fn take(&mut self, at_that_instant: impl FnOnce()) -> u64 {
        let Cutter { taken, swapped, sinks, .. } = &mut *self.cutter;
        let mut buffers: Vec<MutexGuard<'_, Buffer>> =
            self.journal.buffers.all.iter().map(|buffer| buffer.0.lock()).collect();
        for (buffer, swapped) in buffers.iter_mut().zip(swapped) {
            debug_assert!(swapped.is_empty(), "what was taken last was delivered");
            buffer.take(swapped);
        }
        sinks.iter_mut().for_each(|member| member.takes = member.sink.wants());
        if sinks.iter().any(|member| member.takes) {
            *taken += 1;
            self.journal.buffers.position.store(*taken << 1, Ordering::Release);
        }
        at_that_instant();
        self.note_wants();
        drop(buffers);
        self.cutter.taken
    }

    /// Delivers the taken block to the sinks.
    pub fn deliver(&mut self) {
        let Cutter { taken, last_time_ms, swapped, block, sinks } = &mut *self.cutter;
        if sinks.iter().any(|member| member.takes) {
            gather(block, swapped);
            *last_time_ms = (self.journal.clock)().max(*last_time_ms);
            let len = block.len();
            for member in sinks.iter_mut().filter(|member| member.takes) {
                member.takes = false;
                member.sink.accept(&mut Block { number: *taken, time_ms: *last_time_ms, framed: block });
                block.truncate(len);
            }
            if block.capacity() > OVERSIZED {
                *block = Vec::new();
            }
        }
        swapped.iter_mut().for_each(clear);
        self.journal.delivered.store(*taken, Ordering::Release);
    }

    fn note_wants(&self) {
        let wants = self.cutter.sinks.iter().any(|member| member.sink.wants());
        self.journal.buffers.wants.store(wants, Ordering::Relaxed);
    }
}

/// Joins the taken buffers into one block, behind room for its header. The bytes of a single worker are not copied.
fn gather(block: &mut Vec<u8>, swapped: &mut [Vec<u8>]) {
    block.clear();
    for swapped in swapped.iter_mut().filter(|swapped| !swapped.is_empty()) {
        if block.is_empty() {
            std::mem::swap(block, swapped);
        } else {
            block.extend_from_slice(&swapped[BLOCK_HEADER..]);
        }
    }
    block.resize(block.len().max(BLOCK_HEADER), 0);
}

fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > OVERSIZED {
        *buffer = Vec::new();
    }
}
