//! The counting allocator: the system's allocator, and a count of what it really hands out.
//!
//! Invariants: the sum over all slots is the number of live bytes (a block may be freed by another
//! thread than its maker, so one slot alone may be negative). A thread that owns its slot updates it
//! with a plain load and store: no contention and no locked instruction. Threads beyond the last own
//! slot share one, with an atomic addition. Slots are never given back: thread ends are rare here, and
//! giving back would need a destructor inside the allocator.
//!
//! What has very many blocks is given back a few at a time: see [`Blocks`].
//!
//! Must never allocate, panic or block.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
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
    /// Whether this thread keeps the blocks that it frees, and those kept: see [`take_apart`].
    static KEEPING: Cell<bool> = const { Cell::new(false) };
    static KEPT: Cell<Kept> = const { Cell::new(Kept::NONE) };
}

/// A chain of so many blocks that nobody uses any more.
#[derive(Clone, Copy, Debug)]
struct Kept {
    first: *mut KeptBlock,
    count: usize,
}

impl Kept {
    const NONE: Kept = Kept { first: ptr::null_mut(), count: 0 };
}

impl Default for Kept {
    fn default() -> Kept {
        Kept::NONE
    }
}

/// What stands at the beginning of a kept block, aligned or not: the next one, and its layout in little room, for small
/// blocks are many.
struct KeptBlock {
    next: *mut KeptBlock,
    size: u32,
    align: u32,
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

/// Whether the slab that holds the block at an address is sparse, so that the block should be moved out of it.
pub fn is_sparse(_address: usize) -> bool {
    false
}

/// Whether any slab is sparse.
pub fn any_sparse() -> bool {
    false
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

/// Drops a value, but keeps the many small blocks of memory that this frees, for a thread that is better placed to give
/// them back. They are counted as free at once.
pub fn take_apart<T>(value: T) -> Blocks {
    /// Ends the keeping, after a panic too.
    struct Keeping;
    impl Drop for Keeping {
        fn drop(&mut self) {
            KEEPING.set(false);
            drop(Blocks(KEPT.take()));
        }
    }
    let _keeping = Keeping;
    KEEPING.set(true);
    drop(value);
    Blocks(KEPT.take())
}

/// Blocks of memory that nobody uses any more. They should go back to the system's allocator a few at a time: glibc
/// sorts what was freed when it is next asked for memory, up to 10,000 blocks for one request, so that a worker would
/// stand still for .4 ms, and for that again with the next request.
#[derive(Debug)]
pub struct Blocks(Kept);

// SAFETY: nobody else knows of the blocks, and any thread may free what another has allocated.
unsafe impl Send for Blocks {}

impl Blocks {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives back so many, or all that there are. Returns how many.
    pub fn give_back(&mut self, most: usize) -> usize {
        let Kept { first, count } = &mut self.0;
        let giving = most.min(*count);
        for _ in 0..giving {
            // SAFETY: `keep` has written this into a block that nobody else uses, with the layout that it came with,
            // so a valid one; there are `count` of them.
            unsafe {
                let KeptBlock { next, size, align } = first.read_unaligned();
                let layout = Layout::from_size_align_unchecked(size as usize, align as usize);
                System.dealloc(first.cast(), layout);
                *first = next;
            }
        }
        *count -= giving;
        giving
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.give_back(usize::MAX);
    }
}

/// Larger blocks are not kept: whoever gives them back may wait for the system to unmap them, in bytes.
const KEPT_MAX: usize = 128 * 1024;

/// Whether a block of this layout is kept: it has room for what stands in a kept one, and is not large.
fn can_keep(layout: Layout) -> bool {
    (size_of::<KeptBlock>()..KEPT_MAX).contains(&layout.size()) && layout.align() < KEPT_MAX
}

/// Keeps a block that was freed.
///
/// # Safety
/// The block came from `System` with this layout, which [`can_keep`] accepts, and nobody uses it any more.
#[cold]
unsafe fn keep(block: *mut u8, layout: Layout) {
    let Kept { first, count } = KEPT.get();
    let block = block.cast::<KeptBlock>();
    // SAFETY: the block is large enough, and ours.
    unsafe {
        block.write_unaligned(KeptBlock { next: first, size: layout.size() as u32, align: layout.align() as u32 })
    };
    KEPT.set(Kept { first: block, count: count + 1 });
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
        unsafe {
            if KEEPING.get() && can_keep(layout) {
                return keep(block, layout);
            }
            System.dealloc(block, layout)
        }
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

    /// A block that goes back by its drop.
    struct Block(*mut u8, Layout);

    impl Block {
        fn new(size: usize, align: usize) -> Block {
            let layout = Layout::from_size_align(size, align).expect("a valid layout");
            // SAFETY: the layout is not empty.
            Block(unsafe { Counting.alloc_zeroed(layout) }, layout)
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: the block is freed once, with its layout.
            unsafe { Counting.dealloc(self.0, self.1) }
        }
    }

    #[test]
    fn what_is_taken_apart_counts_as_free() {
        std::thread::spawn(|| {
            let before = own_count();
            let sizes = [1, 16, 24, 100, 1000, 5000, 200_000];
            let blocks: Vec<Block> = (0..1000).map(|at| Block::new(sizes[at % sizes.len()], 1 << (at % 8))).collect();
            assert!(own_count() > before);
            struct Seen(Vec<Block>);
            impl Drop for Seen {
                fn drop(&mut self) {
                    assert_eq!(KEPT.get().count, 0);
                    let (sizes_kept, before) = (self.0.iter().filter(|b| can_keep(b.1)).count(), own_count());
                    self.0.clear();
                    assert!(own_count() < before, "what is kept counts as free");
                    assert_eq!(KEPT.get().count, sizes_kept);
                }
            }
            let mut blocks = take_apart(Seen(blocks));
            let many = blocks.len();
            assert_eq!((blocks.give_back(10), blocks.len()), (10, many - 10));
            drop(blocks);
            assert_eq!((own_count(), KEPT.get().count, KEEPING.get()), (before, 0, false));
        })
        .join()
        .expect("the thread's assertions hold");
    }

    #[test]
    fn a_panic_keeps_nothing() {
        std::thread::spawn(|| {
            struct Panics(Block);
            impl Drop for Panics {
                fn drop(&mut self) {
                    panic!("as it may be, with a block of {} bytes", self.0.1.size());
                }
            }
            let before = own_count();
            let panicking = Panics(Block::new(100, 8));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_apart(panicking))).expect_err("a panic");
            assert_eq!((own_count(), KEPT.get().count, KEEPING.get()), (before, 0, false));
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
