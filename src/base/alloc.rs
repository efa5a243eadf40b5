//! The counting allocator: small blocks come from slabs, others from the system's allocator, and the bytes really
//! handed out are counted.
//!
//! Invariants: the sum over all slots is the number of live bytes. One slot alone may be negative, because a block
//! may be freed by another thread than its maker. A thread that owns its slot updates it with a plain load and store:
//! no contention and no locked instruction. Threads beyond the last own slot share one, with an atomic addition.
//! Slots are never given back: threads rarely end here, and giving back would need a destructor inside the allocator.
//!
//! Must never allocate, panic or block.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicIsize, AtomicUsize, Ordering::Relaxed};

use super::slab;

/// `#[global_allocator] static ALLOCATOR: Counting = Counting;`
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

const SLOTS: usize = 256;
const SHARED: usize = 0;
const NONE: usize = usize::MAX;

/// Two cache lines apart, because neighbouring lines are fetched in pairs.
#[repr(align(128))]
struct Slot(AtomicIsize);

static COUNTS: [Slot; SLOTS] = [const { Slot(AtomicIsize::new(0)) }; SLOTS];
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(SHARED + 1);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static PEAK_SECONDS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor fails, even at thread end.
    static OWN_SLOT: Cell<usize> = const { Cell::new(NONE) };
}

/// Bytes that are allocated now, each block with its overhead.
pub fn used_memory() -> usize {
    // Only claimed slots are read: under `maxmemory`, every command that needs memory asks for this.
    let claimed = NEXT_SLOT.load(Relaxed).min(SLOTS);
    let sum = COUNTS[..claimed].iter().fold(0_isize, |sum, slot| sum.wrapping_add(slot.0.load(Relaxed)));
    // While other threads move bytes between slots, the sum may be off for a moment, and even negative.
    usize::try_from(sum).unwrap_or(0)
}

/// The bytes that this thread has allocated less those that it has freed, whoever allocated them: to measure by two
/// readings what the thread has freed between them. Of a thread without a slot of its own, others count, too.
pub fn thread_bytes() -> isize {
    count(0);
    COUNTS[OWN_SLOT.with(Cell::get) & (SLOTS - 1)].0.load(Relaxed)
}

/// Samples [`used_memory`], remembers the highest sample, and returns this one.
pub fn sample_peak() -> usize {
    let used = used_memory();
    if PEAK.fetch_max(used, Relaxed) < used {
        PEAK_SECONDS.store(super::clock::now_ms() / 1000, Relaxed);
    }
    used
}

/// When the highest sample was taken, Unix seconds; 0 before the first.
pub fn peak_time() -> i64 {
    PEAK_SECONDS.load(Relaxed)
}

/// The highest sample since the start or the last [`reset_peak`].
pub fn peak_memory() -> usize {
    PEAK.load(Relaxed)
}

/// Forgets the peak (CONFIG RESETSTAT).
pub fn reset_peak() {
    PEAK.store(used_memory(), Relaxed);
    PEAK_SECONDS.store(super::clock::now_ms() / 1000, Relaxed);
}

/// What a block of `size` bytes really takes: the size of its class, or, for larger blocks in glibc, 8 bytes of
/// header and steps of 16 bytes.
#[inline]
pub const fn block_size(size: usize) -> usize {
    if size <= slab::BLOCK_MAX { slab::block_bytes(size) } else { size.saturating_add(8 + 15) & !15 }
}

/// How much of that is usable.
#[inline]
pub const fn usable_size(size: usize) -> usize {
    if size <= slab::BLOCK_MAX { slab::block_bytes(size) } else { block_size(size) - 8 }
}

/// The size to request: one whose class has the alignment, or one with room to align the block.
#[inline]
const fn padded(size: usize, align: usize) -> usize {
    if align <= 16 { size } else { size.saturating_add(align - 1) & !(align - 1) }
}

/// Whether a block of this layout comes from a slab, and the size to request.
#[inline]
const fn small(layout: &Layout) -> Option<usize> {
    let size = padded(layout.size(), layout.align());
    if size <= slab::BLOCK_MAX { Some(size) } else { None }
}

/// What a block of this layout counts for.
#[inline]
const fn layout_size(layout: &Layout) -> usize {
    block_size(padded(layout.size(), layout.align()))
}

/// Gives unused memory back to the system: part of what was not needed since the last call, or everything possible.
pub fn purge(everything: bool) {
    slab::purge(everything);
    #[cfg(target_env = "gnu")]
    if everything {
        // SAFETY: it affects no memory in use.
        unsafe { libc::malloc_trim(0) };
    }
}

#[inline]
fn count(delta: isize) {
    let slot = OWN_SLOT.with(Cell::get);
    let slot = if slot == NONE { claim_slot() } else { slot };
    let counter = &COUNTS[slot & (SLOTS - 1)].0;
    if slot == SHARED {
        counter.fetch_add(delta, Relaxed);
    } else {
        // Only this thread writes this slot, so nothing is lost between the load and the store.
        counter.store(counter.load(Relaxed).wrapping_add(delta), Relaxed);
    }
}

#[cold]
fn claim_slot() -> usize {
    let claimed = NEXT_SLOT.fetch_add(1, Relaxed);
    let slot = if claimed < SLOTS { claimed } else { SHARED };
    OWN_SLOT.with(|own| own.set(slot));
    slot
}

// SAFETY: small blocks come from slabs and go back to them, and all others to `System`. The layout decides, and it is
// the same at both ends. Counting touches only atomics and a constant thread-local, so it neither allocates nor
// unwinds.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = match small(&layout) {
            Some(size) => slab::allocate(size),
            // SAFETY: the caller's promises for `alloc` are those that `System` asks for.
            None => unsafe { System.alloc(layout) },
        };
        if !block.is_null() {
            count(layout_size(&layout) as isize);
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if small(&layout).is_some() {
            // SAFETY: as for `alloc`.
            let block = unsafe { self.alloc(layout) };
            if !block.is_null() {
                // SAFETY: the block has that size.
                unsafe { block.write_bytes(0, layout.size()) };
            }
            return block;
        }
        // SAFETY: as for `alloc`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            count(layout_size(&layout) as isize);
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout_size(&layout) as isize));
        // SAFETY: `block` came from this allocator with the same layout, which tells where it came from.
        unsafe {
            match small(&layout) {
                Some(size) => slab::free(block, size),
                None => System.dealloc(block, layout),
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the alignment was one before, and `new_size` is the caller's promise.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let (before, after) = (layout_size(&layout), layout_size(&new));
        match (small(&layout), small(&new)) {
            (Some(_), Some(_)) if before == after => return block,
            (None, None) => {
                // SAFETY: `block` came from `System` with this layout.
                let moved = unsafe { System.realloc(block, layout, new_size) };
                if !moved.is_null() {
                    count(after as isize - before as isize);
                }
                return moved;
            }
            _ => {}
        }
        // SAFETY: as for `alloc`; both blocks are at least as long as the copied bytes; the old one is not used
        // again.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These tests call the allocator directly, so they hold whether or not it is the global one. They measure only
    /// their own thread's slot, because other tests run at the same time.
    fn own_count() -> isize {
        thread_bytes()
    }

    #[test]
    fn block_sizes() {
        for (size, block) in
            [(0, 16), (1, 16), (24, 32), (130, 144), (1000, 1008), (8192, 8192), (8193, 8704), (131_073, 131_088)]
        {
            assert_eq!(block_size(size), block, "{size}");
        }
        assert_eq!((usable_size(1000), usable_size(200_000)), (1008, 200_008));
        assert_eq!(block_size(usize::MAX) % 16, 0);
    }

    #[test]
    fn counts_return_to_where_they_were() {
        std::thread::spawn(|| {
            let before = own_count();
            let layout = Layout::from_size_align(100, 8).expect("a valid layout");
            // SAFETY: the layout is not empty; each block is freed once, with its current layout.
            unsafe {
                let block = Counting.alloc_zeroed(layout);
                assert_eq!(own_count() - before, 112);
                block.write_bytes(7, 100);
                // Within a class, to another one, to the system's and within it, and back.
                let mut layout = layout;
                let mut block = block;
                for (size, counted) in
                    [(112, 112), (1000, 1008), (20_000, 20_480), (200_000, 200_016), (300_000, 300_016), (104, 112)]
                {
                    block = Counting.realloc(block, layout, size);
                    layout = Layout::from_size_align(size, 8).expect("a valid layout");
                    assert_eq!(own_count() - before, counted);
                    assert!(std::slice::from_raw_parts(block, 100).iter().all(|&byte| byte == 7));
                }
                Counting.dealloc(block, layout);
                for (size, align, counted) in
                    [(64, 128, 128), (100, 4096, 4096), (5000, 4096, 8192), (10_000, 64, 10_240)]
                {
                    let aligned = Layout::from_size_align(size, align).expect("a valid layout");
                    let block = Counting.alloc(aligned);
                    assert_eq!(block.addr() % align, 0);
                    assert_eq!(own_count() - before, counted);
                    Counting.dealloc(block, aligned);
                }
            }
            assert_eq!(own_count(), before);
        })
        .join()
        .expect("the thread's assertions hold");
    }

    #[test]
    fn threads_beyond_the_last_slot_share() {
        let workers: Vec<_> = (0..SLOTS + 8)
            .map(|_| {
                std::thread::spawn(|| {
                    count(64);
                    count(-64);
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("counting cannot panic");
        }
        assert!(NEXT_SLOT.load(Relaxed) > SLOTS);
        sample_peak();
        assert!(peak_memory() <= isize::MAX as usize);
    }
}
