//! The notes on a slab: which of its blocks are free, who owns it, and which list it is in.

use std::cell::Cell;
use std::ptr::{self, null_mut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64};

use super::Heap;

/// The size of a region in bytes. A region has room for several slabs; the first holds the notes on the others.
pub(super) const REGION_BYTES: usize = 4 << 20;
/// Ends a list of blocks, which are identified by their offset in the slab.
const NO_BLOCK: u32 = u32::MAX;
/// How many levels of filling are distinguished.
pub(super) const FILLINGS: usize = 16;
/// Where a slab is: it is the current one; it is full; it is in one of the two lists of its class; or it is in the
/// pool.
pub(super) const CURRENT: u8 = 0;
pub(super) const FULL: u8 = 1;
pub(super) const WITH_ROOM: u8 = 2;
pub(super) const SPARSE: u8 = 3;
pub(super) const IN_POOL: u8 = 4;

/// The notes on one slab. Other threads write the second half.
#[repr(C, align(128))]
pub(super) struct Slab {
    pub(super) owner: AtomicPtr<Heap>,
    pub(super) begin: Cell<*mut u8>,
    /// Free blocks, the last freed first.
    pub(super) free: Cell<u32>,
    /// More free blocks, freed by other threads.
    more_free: Cell<u32>,
    /// How many of the blocks were ever taken. Those behind them were never touched.
    begun: Cell<u32>,
    pub(super) used: Cell<u32>,
    pub(super) capacity: Cell<u32>,
    pub(super) block_bytes: Cell<u32>,
    pub(super) class: Cell<u8>,
    pub(super) place: AtomicU8,
    pub(super) next: Cell<*const Slab>,
    previous: Cell<*const Slab>,
    /// What other threads have freed: the last block, and their number in the upper half.
    remote: AtomicRemote,
    pub(super) next_pending: AtomicPtr<Slab>,
}

/// On a cache line of its own.
#[repr(align(64))]
struct AtomicRemote(AtomicU64);

/// No block freed by another thread.
const NO_REMOTE: u64 = NO_BLOCK as u64;

/// Stands for the slab of a class without one: it has neither a free block nor an untouched one.
pub(super) struct NoSlab(pub(super) Slab);

// SAFETY: nothing in it is ever written, because it has no block to take or to free.
unsafe impl Sync for NoSlab {}

pub(super) static NO_SLAB: NoSlab = NoSlab(Slab::new());

impl Slab {
    pub(super) const fn new() -> Slab {
        Slab {
            owner: AtomicPtr::new(null_mut()),
            begin: Cell::new(null_mut()),
            free: Cell::new(NO_BLOCK),
            more_free: Cell::new(NO_BLOCK),
            begun: Cell::new(0),
            used: Cell::new(0),
            capacity: Cell::new(0),
            block_bytes: Cell::new(0),
            class: Cell::new(0),
            place: AtomicU8::new(CURRENT),
            next: Cell::new(ptr::null()),
            previous: Cell::new(ptr::null()),
            remote: AtomicRemote(AtomicU64::new(NO_REMOTE)),
            next_pending: AtomicPtr::new(null_mut()),
        }
    }

    /// The notes on the slab of a block.
    ///
    /// # Safety
    /// The block is in a region of slabs of `slab_bytes`.
    #[inline]
    pub(super) unsafe fn of<'a>(block: *mut u8, slab_bytes: usize) -> &'a Slab {
        let index = block.addr() % REGION_BYTES / slab_bytes;
        let notes = block.map_addr(|address| address & !(REGION_BYTES - 1)).cast::<Slab>();
        // SAFETY: a region begins with the notes on its slabs, which are never freed.
        unsafe { &*notes.add(index) }
    }

    /// Takes a free block, if there is one.
    ///
    /// # Safety
    /// The caller is the owner.
    #[inline]
    pub(super) unsafe fn take(&self) -> *mut u8 {
        let mut free = self.free.get();
        if free == NO_BLOCK && self.more_free.get() != NO_BLOCK {
            free = self.more_free.replace(NO_BLOCK);
        }
        let block;
        if free != NO_BLOCK {
            // SAFETY: a free block begins with the offset of the next one.
            unsafe {
                block = self.begin.get().add(free as usize);
                self.free.set(block.cast::<u32>().read());
            }
        } else {
            let begun = self.begun.get();
            if begun == self.capacity.get() {
                return null_mut();
            }
            self.begun.set(begun + 1);
            // SAFETY: `capacity` blocks fit into the slab.
            block = unsafe { self.begin.get().add(begun as usize * self.block_bytes.get() as usize) };
        }
        self.used.set(self.used.get() + 1);
        block
    }

    /// The offset of a block in the slab.
    #[inline]
    pub(super) fn place_of(&self, block: *mut u8) -> u32 {
        (block.addr() - self.begin.get().addr()) as u32
    }

    /// Leaves a block to the owner, which is another thread.
    ///
    /// # Safety
    /// The block is of this slab, and nothing uses it any more.
    pub(super) unsafe fn free_remotely(&self, block: *mut u8) {
        let remote = &self.remote.0;
        let mut before = remote.load(Relaxed);
        loop {
            // SAFETY: the block has room for four bytes, and is ours until the exchange has succeeded.
            unsafe { block.cast::<u32>().write(before as u32) };
            let count = (before >> 32) + 1;
            let after = count << 32 | u64::from(self.place_of(block));
            // Release: every write to the block happens before the owner hands it out again.
            match remote.compare_exchange_weak(before, after, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => before = now,
            }
        }
        if before == NO_REMOTE {
            // The slab stays as it is until the owner has visited it, because this block counts as used. SAFETY:
            // heaps are never freed.
            unsafe { (*self.owner.load(Acquire)).look_at(self) };
        }
    }

    /// Makes it a slab without any block ever taken.
    fn forget_blocks(&self) {
        self.free.set(NO_BLOCK);
        self.more_free.set(NO_BLOCK);
        self.begun.set(0);
    }

    /// Takes the blocks that other threads have freed into its own free blocks, and notes the visit.
    pub(super) fn take_back(&self) {
        let remote = self.remote.0.swap(NO_REMOTE, AcqRel);
        let (count, first) = ((remote >> 32) as u32, remote as u32);
        self.used.set(self.used.get() - count);
        if self.used.get() == 0 {
            return self.forget_blocks();
        }
        let more_free = self.more_free.replace(first);
        if more_free == NO_BLOCK {
            return;
        }
        // The earlier blocks go behind it, so its end must be found.
        let mut last = first;
        for _ in 1..count {
            // SAFETY: each of the blocks begins with the offset of the next.
            last = unsafe { self.begin.get().add(last as usize).cast::<u32>().read() };
        }
        // SAFETY: the last of them is a free block of this slab.
        unsafe { self.begin.get().add(last as usize).cast::<u32>().write(more_free) };
    }

    /// Makes it a slab of blocks of this class and size, owned by this heap.
    pub(super) fn give_to(&self, heap: &Heap, class: usize, slab_bytes: usize, block_bytes: usize) {
        self.forget_blocks();
        self.used.set(0);
        self.capacity.set((slab_bytes / block_bytes) as u32);
        self.block_bytes.set(block_bytes as u32);
        self.class.set(class as u8);
        self.owner.store(ptr::from_ref(heap).cast_mut(), Release);
    }

    /// Its filling, as one of [`FILLINGS`] levels.
    pub(super) fn filling(&self) -> usize {
        self.used.get() as usize * FILLINGS / (self.capacity.get() as usize + 1)
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.place.load(Relaxed) == SPARSE
    }
}

/// Slabs chained by `next` and `previous`.
pub(super) struct Slabs {
    pub(super) first: Cell<*const Slab>,
    pub(super) len: Cell<usize>,
}

impl Slabs {
    pub(super) const fn new() -> Slabs {
        Slabs { first: Cell::new(ptr::null()), len: Cell::new(0) }
    }

    pub(super) fn push(&self, slab: &Slab) {
        let first = self.first.replace(slab);
        slab.next.set(first);
        slab.previous.set(ptr::null());
        // SAFETY: the notes on slabs are never freed.
        if let Some(first) = unsafe { first.as_ref() } {
            first.previous.set(slab);
        }
        self.len.set(self.len.get() + 1);
    }

    pub(super) fn remove(&self, slab: &Slab) {
        let (previous, next) = (slab.previous.get(), slab.next.get());
        // SAFETY: the notes on slabs are never freed.
        unsafe {
            match previous.as_ref() {
                Some(previous) => previous.next.set(next),
                None => self.first.set(next),
            }
            if let Some(next) = next.as_ref() {
                next.previous.set(previous);
            }
        }
        self.len.set(self.len.get() - 1);
    }

    pub(super) fn pop<'a>(&self) -> Option<&'a Slab> {
        // SAFETY: the notes on slabs are never freed.
        let slab = unsafe { self.first.get().as_ref() }?;
        self.remove(slab);
        Some(slab)
    }

    pub(super) fn iter<'a>(&self) -> impl Iterator<Item = &'a Slab> {
        let mut at = self.first.get();
        std::iter::from_fn(move || {
            // SAFETY: the notes on slabs are never freed.
            let slab = unsafe { at.as_ref() }?;
            at = slab.next.get();
            Some(slab)
        })
    }
}
