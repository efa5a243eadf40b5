//! The counting allocator: the system's allocator, and a count of what it really hands out.
//!
//! Invariants: the sum over all slots is the number of live bytes (a block may be freed by another
//! thread than its maker, so one slot alone may be negative). A thread that owns its slot updates it
//! with a plain load and store: no contention and no locked instruction. Threads beyond the last own
//! slot share one, with an atomic addition. Slots are never given back: thread ends are rare here, and
//! giving back would need a destructor inside the allocator.
//!
//! Must never allocate, panic or block.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

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

thread_local! {
    // Constant and without destructor: reading it neither allocates nor fails, even at thread end.
    static OWN_SLOT: Cell<usize> = const { Cell::new(NONE) };
}

/// Bytes that are allocated now, each block with its overhead.
pub fn used_memory() -> usize {
    // Only slots that were claimed: this is asked before every command that needs memory, under `maxmemory`.
    let claimed = NEXT_SLOT.load(Relaxed).min(SLOTS);
    let sum = COUNTS[..claimed].iter().fold(0_isize, |sum, slot| sum.wrapping_add(slot.0.load(Relaxed)));
    // While other threads move bytes between slots the sum may be briefly off, even below zero.
    usize::try_from(sum).unwrap_or(0)
}

/// Takes a sample of [`used_memory`] and remembers the highest; gives the sample.
pub fn sample_peak() -> usize {
    let used = used_memory();
    PEAK.fetch_max(used, Relaxed);
    used
}

/// The highest sample since the start or the last [`reset_peak`].
pub fn peak_memory() -> usize {
    PEAK.load(Relaxed)
}

/// Forgets the peak (CONFIG RESETSTAT).
pub fn reset_peak() {
    PEAK.store(used_memory(), Relaxed);
}

/// What a block of `size` bytes takes in glibc: 8 bytes of header, 16-byte steps, at least 32.
pub const fn block_size(size: usize) -> usize {
    let rounded = size.saturating_add(8 + 15) & !15;
    if rounded < 32 { 32 } else { rounded }
}

const fn layout_size(layout: &Layout) -> usize {
    let padding = if layout.align() > 16 { layout.align() } else { 0 };
    block_size(layout.size().saturating_add(padding))
}

/// The most bytes that [`drop_in_steps`] frees at once.
const STEP: usize = 1 << 20;

/// Drops a buffer that may be very large, a piece at a time: while the system unmaps memory, every thread that needs
/// more of it waits, two milliseconds for 32 MB.
pub fn drop_in_steps(mut buffer: Vec<u8>) {
    buffer.clear();
    while buffer.capacity() > STEP {
        buffer.shrink_to(buffer.capacity() - STEP);
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

// SAFETY: every call is handed to `System` unchanged, and its answer is returned unchanged; counting
// touches only atomics and a constant thread-local, so it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises for `alloc` are those that `System` asks for.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            count(layout_size(&layout) as isize);
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
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
        // SAFETY: `block` came from `System` through this allocator with the same layout.
        unsafe { System.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `block` came from `System` with this layout; `new_size` is the caller's promise.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            let padding = if layout.align() > 16 { layout.align() } else { 0 };
            let after = block_size(new_size.saturating_add(padding)) as isize;
            count(after - layout_size(&layout) as isize);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These tests call the allocator directly: they hold whether or not it is the global one, and
    /// measure only their own thread's slot, because other tests run beside them.
    fn own_count() -> isize {
        count(0);
        COUNTS[OWN_SLOT.with(Cell::get)].0.load(Relaxed)
    }

    #[test]
    fn glibc_block_sizes() {
        for (size, block) in [(0, 32), (1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (1000, 1008)] {
            assert_eq!(block_size(size), block, "{size}");
        }
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
                let block = Counting.realloc(block, layout, 1000);
                assert_eq!(own_count() - before, 1008);
                let grown = Layout::from_size_align(1000, 8).expect("a valid layout");
                Counting.dealloc(block, grown);
                let aligned = Layout::from_size_align(64, 128).expect("a valid layout");
                let block = Counting.alloc(aligned);
                assert_eq!(own_count() - before, 208);
                Counting.dealloc(block, aligned);
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
