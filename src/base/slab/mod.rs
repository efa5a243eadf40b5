//! Small blocks of memory from slabs. A slab is 64 KB of blocks of one size, or 1 MB for blocks of more than 8 KB.
//! Any thread frees any block without a lock, and empty slabs go back to the system.
//!
//! ```text
//!   region, 4 MB, aligned          ┌───────────────────┬────────┬────────┬─ … ─┬─────────┐
//!                                  │ notes on its slabs│ slab 1 │ slab 2 │     │ slab 63 │    or 3 of 1 MB
//!                                  └───────────────────┴────────┴────────┴─ … ─┴─────────┘
//!   heap, one for each thread      224 classes of size: the slab that blocks are taken from, and others with room
//! ```
//!
//! The address and size of a block tell its slab, and where the notes on that slab are. A slab belongs to one heap.
//! The thread of that heap takes and frees blocks without any atomic operation. Another thread puts a block on the
//! slab's second list with one compare-and-swap; the first to do so puts the slab on the heap's list of pending
//! slabs. A million blocks freed by another thread thus cost their owner one visit per slab, never one per block.
//!
//! The heap of a thread that has ended goes to the next new thread. Until then, other threads take slabs from it.
//!
//! A small slab is *sparse* while its few live blocks would fit into other slabs of its class. Blocks are taken from
//! sparse slabs last. Code that can move its blocks asks [`is_sparse`] and frees memory by moving them.
//!
//! Invariants:
//! - `used` counts the blocks that are not on the slab's own list. A block that another thread has freed counts as
//!   used until the owner has visited the slab, so a slab is never given away while another thread may still touch
//!   its notes.
//! - `remote` is empty exactly while the slab is neither on a list of pending slabs nor about to be put on one.
//! - Every field of a slab except `owner`, `place`, `remote` and `next_pending` is touched by its owner alone: the
//!   thread of its heap, the thread that has locked the heap of an ended thread, or the pool.
//!
//! Must never allocate on its own, and must never panic.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{self, null_mut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize};

mod notes;
mod pool;
#[cfg(test)]
mod tests;

use notes::{CURRENT, FILLINGS, FULL, NO_SLAB, SPARSE, Slab, Slabs, WITH_ROOM};
use pool::Pool;
pub use pool::{PoolFigures, figures, purge};

/// The largest block that comes from a slab, in bytes.
pub const BLOCK_MAX: usize = 128 * 1024;

const SMALL_SLAB_BYTES: usize = 64 * 1024;
const LARGE_SLAB_BYTES: usize = 1 << 20;
/// Sizes rise by 16 bytes up to 512, and from there by a 32nd of the last power of two, up to 8 KB in small slabs;
const SMALL_CLASSES: usize = 160;
const SMALL_BLOCK_MAX: usize = 8192;
/// and in large ones by a sixteenth.
const CLASSES: usize = SMALL_CLASSES + 64;
/// How many pending slabs are visited at once.
const LOOKED_AT_MAX: usize = 64;
/// The same when there is time.
const LOOKED_AT_IN_TIME_MAX: usize = 256;
/// After how many slabs the search for sparse slabs pauses, at the end of a class.
const SEARCHED_MAX: usize = 512;
/// One of this many slabs of a class may be free in total before some count as sparse.
const EMPTY_PART: usize = 32;

/// The class of a size of at most [`BLOCK_MAX`] bytes.
#[inline]
const fn class_of(bytes: usize) -> usize {
    let last = bytes.saturating_sub(1);
    if last < 512 {
        return last / 16;
    }
    let power = last.ilog2() as usize;
    if last < SMALL_BLOCK_MAX {
        return (power - 9) * 32 + (last >> (power - 5));
    }
    SMALL_CLASSES + (power - 13) * 16 + (last >> (power - 4)) - 16
}

/// The size of the blocks of a class, in bytes.
const fn class_bytes(class: usize) -> usize {
    if class < 32 {
        return (class + 1) * 16;
    }
    if class < SMALL_CLASSES {
        return (class % 32 + 33) << (class / 32 + 3);
    }
    (class % 16 + 17) << ((class - SMALL_CLASSES) / 16 + 9)
}

/// The size of the slabs that hold blocks of this size, in bytes.
#[inline]
const fn slab_bytes(block_bytes: usize) -> usize {
    if block_bytes <= SMALL_BLOCK_MAX { SMALL_SLAB_BYTES } else { LARGE_SLAB_BYTES }
}

/// The size of the block that a request for this many bytes gets; at most [`BLOCK_MAX`].
#[inline]
pub const fn block_bytes(bytes: usize) -> usize {
    class_bytes(class_of(bytes))
}

/// A heap's slabs of one size.
struct Class {
    /// The slab that blocks are taken from, or [`NO_SLAB`].
    current: Cell<*const Slab>,
    with_room: Slabs,
    sparse: Slabs,
    /// How many slabs there are, in any list.
    slabs: Cell<usize>,
}

/// The slabs that one thread takes blocks from.
#[repr(align(128))]
struct Heap {
    /// Pending slabs: other threads have freed blocks in them since the last visit.
    pending: AtomicPtr<Slab>,
    state: AtomicU8,
    /// The heap that was made before this one.
    next: Cell<*const Heap>,
    /// Slabs taken from `pending` that are still to be visited.
    to_look_at: Cell<*const Slab>,
    /// The class where the search for sparse slabs continues.
    search_at: Cell<usize>,
    classes: [Class; CLASSES],
}

/// Who owns a heap: a thread; nobody; or, for a moment, a thread that takes slabs from a heap without an owner.
const OWNED: u8 = 0;
const LEFT: u8 = 1;
const LOCKED: u8 = 2;

/// The heap made last.
static HEAPS: AtomicPtr<Heap> = AtomicPtr::new(null_mut());
/// How many heaps have no owner, so that a thread in need of memory does not search all heaps in vain.
static LEFT_HEAPS: AtomicUsize = AtomicUsize::new(0);
/// How many slabs are sparse, and how many ever became sparse.
static SPARSE_NOW: AtomicUsize = AtomicUsize::new(0);
static SPARSE_EVER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor fails, even at thread end.
    static HEAP: Cell<*const Heap> = const { Cell::new(ptr::null()) };
    static AT_END: AtEnd = const { AtEnd };
}

/// Leaves the thread's heap to others when the thread ends.
struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        // SAFETY: heaps are never freed.
        if let Some(heap) = unsafe { HEAP.replace(ptr::null()).as_ref() } {
            heap.leave();
        }
    }
}

fn all_heaps() -> impl Iterator<Item = &'static Heap> {
    let mut at: *const Heap = HEAPS.load(Acquire);
    std::iter::from_fn(move || {
        // SAFETY: heaps are never freed, and `next` is not written once the heap is in the list.
        let heap = unsafe { at.as_ref() }?;
        at = heap.next.get();
        Some(heap)
    })
}

impl Heap {
    /// A heap that a thread has left, or a new one; null if the system has no memory.
    fn find() -> *const Heap {
        if LEFT_HEAPS.load(Relaxed) > 0
            && let Some(heap) = all_heaps().find(|heap| heap.enter(OWNED))
        {
            LEFT_HEAPS.fetch_sub(1, Relaxed);
            return heap;
        }
        // SAFETY: the size is not zero.
        let heap = unsafe { System.alloc(Layout::new::<Heap>()) }.cast::<Heap>();
        if heap.is_null() {
            return heap;
        }
        let class = || Class {
            current: Cell::new(&NO_SLAB.0),
            with_room: Slabs::new(),
            sparse: Slabs::new(),
            slabs: Cell::new(0),
        };
        let new = Heap {
            pending: AtomicPtr::new(null_mut()),
            state: AtomicU8::new(OWNED),
            next: Cell::new(HEAPS.load(Acquire)),
            to_look_at: Cell::new(ptr::null()),
            search_at: Cell::new(0),
            classes: std::array::from_fn(|_| class()),
        };
        // SAFETY: the memory is new and as large as a heap, and private until it is in the list.
        unsafe {
            heap.write(new);
            while let Err(now) = HEAPS.compare_exchange((*heap).next.get().cast_mut(), heap, AcqRel, Acquire) {
                (*heap).next.set(now);
            }
        }
        heap
    }

    /// Takes the heap if a thread has left it.
    fn enter(&self, as_state: u8) -> bool {
        self.state.compare_exchange(LEFT, as_state, Acquire, Relaxed).is_ok()
    }

    /// Leaves the heap to others.
    fn leave(&self) {
        for class in &self.classes {
            // SAFETY: the notes on slabs are never freed.
            let current = unsafe { &*class.current.replace(&NO_SLAB.0) };
            if !ptr::eq(current, &NO_SLAB.0) {
                self.lay_aside(class, current);
            }
        }
        self.state.store(LEFT, Release);
        LEFT_HEAPS.fetch_add(1, Relaxed);
    }

    /// Puts a slab that was the current one into the list where it belongs now.
    fn lay_aside(&self, class: &Class, slab: &Slab) {
        slab.place.store(FULL, Relaxed);
        if slab.used.get() < slab.capacity.get() {
            self.has_room(class, slab);
        }
    }

    /// Notes that a slab that was full, or laid aside, has room.
    fn has_room(&self, class: &Class, slab: &Slab) {
        slab.place.store(WITH_ROOM, Relaxed);
        class.with_room.push(slab);
        if slab.used.get() == 0 {
            self.give_away(class, slab);
        }
    }

    /// Takes a slab out of its list.
    fn unlist(&self, class: &Class, slab: &Slab) {
        if slab.is_sparse() {
            SPARSE_NOW.fetch_sub(1, Relaxed);
            class.sparse.remove(slab);
        } else {
            class.with_room.remove(slab);
        }
    }

    /// Gives an empty slab of a list to the pool.
    #[cold]
    fn give_away(&self, class: &Class, slab: &Slab) {
        self.unlist(class, slab);
        class.slabs.set(class.slabs.get() - 1);
        Pool::of(slab_bytes(slab.block_bytes.get() as usize)).put(slab);
    }

    /// Notes that a block was freed whose slab is not the current one.
    #[inline]
    fn freed(&self, slab: &Slab) {
        let class = &self.classes[slab.class.get() as usize % CLASSES];
        if slab.place.load(Relaxed) == FULL {
            self.has_room(class, slab);
        } else if slab.used.get() == 0 {
            self.give_away(class, slab);
        }
    }

    /// Makes a slab pending with its owner: another thread has freed the first block in it.
    fn look_at(&self, slab: &Slab) {
        let slab = ptr::from_ref(slab).cast_mut();
        let mut first = self.pending.load(Relaxed);
        loop {
            // SAFETY: the notes on slabs are never freed.
            unsafe { (*slab).next_pending.store(first, Relaxed) };
            match self.pending.compare_exchange_weak(first, slab, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Takes back the blocks that other threads have freed, in at most this many slabs. Returns whether that was all.
    fn collect(&self, most: usize) -> bool {
        for _ in 0..most {
            if self.to_look_at.get().is_null() {
                if self.pending.load(Relaxed).is_null() {
                    return true;
                }
                self.to_look_at.set(self.pending.swap(null_mut(), AcqRel));
            }
            // SAFETY: the notes on slabs are never freed.
            let Some(slab) = (unsafe { self.to_look_at.get().as_ref() }) else { return true };
            self.to_look_at.set(slab.next_pending.load(Relaxed));
            let owner = slab.owner.load(Acquire);
            if ptr::eq(owner, self) {
                self.collect_from(slab);
            } else {
                // Another heap has taken it since, and it is that one's to look at.
                // SAFETY: heaps are never freed.
                unsafe { (*owner).look_at(slab) };
            }
        }
        false
    }

    fn collect_from(&self, slab: &Slab) {
        slab.take_back();
        if slab.place.load(Relaxed) != CURRENT {
            self.freed(slab);
        }
    }

    /// Takes a block of a class whose current slab has none.
    #[cold]
    #[inline(never)]
    fn take_elsewhere(&self, class_at: usize) -> *mut u8 {
        let class = &self.classes[class_at];
        self.collect(LOOKED_AT_MAX);
        // SAFETY: the notes on slabs are never freed; this thread owns the heap.
        let current = unsafe { &*class.current.get() };
        // SAFETY: as above.
        let block = unsafe { current.take() };
        if !block.is_null() {
            return block;
        }
        let next = class.with_room.pop().or_else(|| {
            let sparse = class.sparse.pop()?;
            SPARSE_NOW.fetch_sub(1, Relaxed);
            Some(sparse)
        });
        let Some(next) = next.or_else(|| self.take_left(class_at)).or_else(|| self.take_new(class_at)) else {
            return null_mut();
        };
        class.current.set(next);
        next.place.store(CURRENT, Relaxed);
        if !ptr::eq(current, &NO_SLAB.0) {
            self.lay_aside(class, current);
        }
        // SAFETY: this thread owns the heap; and the slab has room.
        unsafe { next.take() }
    }

    /// Takes a slab with room from a heap that a thread has left.
    fn take_left<'a>(&self, class_at: usize) -> Option<&'a Slab> {
        if LEFT_HEAPS.load(Relaxed) == 0 {
            return None;
        }
        for heap in all_heaps() {
            if !heap.enter(LOCKED) {
                continue;
            }
            heap.collect(LOOKED_AT_MAX);
            let left = &heap.classes[class_at];
            let found = left.with_room.first.get();
            let found = if found.is_null() { left.sparse.first.get() } else { found };
            // SAFETY: the notes on slabs are never freed.
            let found = unsafe { found.as_ref() };
            if let Some(slab) = found {
                heap.unlist(left, slab);
                left.slabs.set(left.slabs.get() - 1);
                slab.owner.store(ptr::from_ref(self).cast_mut(), Release);
                let own = &self.classes[class_at].slabs;
                own.set(own.get() + 1);
            }
            heap.state.store(LEFT, Release);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Takes an empty slab.
    fn take_new<'a>(&self, class_at: usize) -> Option<&'a Slab> {
        let bytes = class_bytes(class_at);
        let slab = Pool::of(slab_bytes(bytes)).take()?;
        slab.give_to(self, class_at, slab_bytes(bytes), bytes);
        let own = &self.classes[class_at].slabs;
        own.set(own.get() + 1);
        Some(slab)
    }

    /// Gives away the current slabs that are empty.
    fn give_up_empty(&self) {
        for class in &self.classes {
            // SAFETY: the notes on slabs are never freed.
            let current = unsafe { &*class.current.get() };
            if current.used.get() == 0 && !ptr::eq(current, &NO_SLAB.0) {
                class.current.set(&NO_SLAB.0);
                self.lay_aside(class, current);
            }
        }
    }

    /// Decides which slabs are sparse, for some classes at a time.
    fn find_sparse(&self) {
        let mut searched = 0;
        for _ in 0..SMALL_CLASSES {
            let class = &self.classes[self.search_at.get()];
            self.search_at.set((self.search_at.get() + 1) % SMALL_CLASSES);
            class.find_sparse();
            searched += class.with_room.len.get() + class.sparse.len.get();
            if searched > SEARCHED_MAX {
                break;
            }
        }
    }
}

impl Class {
    /// Decides which slabs are sparse: the least filled ones, as many as would be empty if all free blocks of the
    /// class were in few slabs.
    fn find_sparse(&self) {
        if self.with_room.len.get() < 2 {
            return;
        }
        let (mut free, mut capacity, mut fillings) = (0, 1_usize, [0; FILLINGS]);
        for slab in self.with_room.iter().chain(self.sparse.iter()) {
            capacity = slab.capacity.get() as usize;
            free += capacity - slab.used.get() as usize;
            fillings[slab.filling()] += 1;
        }
        let empty = (free / capacity).saturating_sub(1 + self.slabs.get() / EMPTY_PART);
        if empty <= self.sparse.len.get() {
            return;
        }
        // All slabs below the filling `limit`, and as many of those at it as are needed.
        let (mut limit, mut wanted) = (0, empty);
        while fillings[limit] < wanted {
            wanted -= fillings[limit];
            limit += 1;
        }
        let mut at = self.with_room.first.replace(ptr::null());
        self.with_room.len.set(0);
        // SAFETY: the notes on slabs are never freed.
        while let Some(slab) = unsafe { at.as_ref() } {
            at = slab.next.get();
            let filling = slab.filling();
            if filling < limit || filling == limit && wanted > 0 {
                wanted -= usize::from(filling == limit);
                slab.place.store(SPARSE, Relaxed);
                self.sparse.push(slab);
                SPARSE_NOW.fetch_add(1, Relaxed);
                SPARSE_EVER.fetch_add(1, Relaxed);
            } else {
                self.with_room.push(slab);
            }
        }
    }
}

/// Allocates a block of at least this many bytes, at most [`BLOCK_MAX`]; null if the system has no memory. It is
/// aligned to the largest power of two that divides [`block_bytes`], and to 16 at least.
#[inline]
pub fn allocate(bytes: usize) -> *mut u8 {
    let class = class_of(bytes);
    // SAFETY: heaps and the notes on slabs are never freed, and the heap is this thread's.
    unsafe {
        let Some(heap) = HEAP.get().as_ref() else { return allocate_first(class) };
        let block = (*heap.classes[class].current.get()).take();
        if block.is_null() { heap.take_elsewhere(class) } else { block }
    }
}

/// Allocates the first block of a thread, or one that it needs after it has left its heap.
#[cold]
#[inline(never)]
fn allocate_first(class: usize) -> *mut u8 {
    let heap = Heap::find();
    // SAFETY: heaps are never freed.
    let Some(found) = (unsafe { heap.as_ref() }) else { return null_mut() };
    if AT_END.try_with(|_| ()).is_ok() {
        HEAP.set(heap);
        found.take_elsewhere(class)
    } else {
        let block = found.take_elsewhere(class);
        found.leave();
        block
    }
}

/// Frees a block of this many bytes.
///
/// # Safety
/// It came from [`allocate`] for this size, and nothing uses it any more.
#[inline]
pub unsafe fn free(block: *mut u8, bytes: usize) {
    // SAFETY: as the caller promises.
    let slab = unsafe { Slab::of(block, slab_bytes(bytes)) };
    let heap = HEAP.get();
    // A slab in use has an owner, so a thread without a heap is not the owner.
    if !ptr::eq(slab.owner.load(Relaxed), heap) {
        // SAFETY: as the caller promises.
        return unsafe { slab.free_remotely(block) };
    }
    // SAFETY: the block has room for four bytes, and nobody else uses it.
    unsafe { block.cast::<u32>().write(slab.free.get()) };
    slab.free.set(slab.place_of(block));
    slab.used.set(slab.used.get() - 1);
    if slab.place.load(Relaxed) != CURRENT {
        // SAFETY: heaps are never freed, and this is the thread's own.
        unsafe { (*heap).freed(slab) };
    }
}

/// Whether a block lives in a slab that would be empty soon if it and a few others moved. False for a block that is
/// not from a small slab.
#[inline]
pub fn is_sparse(address: usize) -> bool {
    // SAFETY: a region of ours begins with the notes on its slabs, which are never freed and zeroed while unused.
    pool::is_in_small_slab(address)
        && unsafe { Slab::of(ptr::with_exposed_provenance_mut(address), SMALL_SLAB_BYTES) }.is_sparse()
}

/// How many slabs are sparse now, and how many ever became sparse.
pub fn sparse_slabs() -> (usize, usize) {
    (SPARSE_NOW.load(Relaxed), SPARSE_EVER.load(Relaxed))
}

/// Takes back the blocks that other threads have freed in this thread's heap and in heaps without an owner, gives up
/// empty slabs, and finds sparse ones. A thread that allocates much calls this now and then. Returns whether it is
/// done; otherwise call it again soon.
pub fn tidy() -> bool {
    let mut is_done = true;
    let tidy = |heap: &Heap| {
        let all = heap.collect(LOOKED_AT_IN_TIME_MAX);
        if all {
            heap.give_up_empty();
            heap.find_sparse();
        }
        all
    };
    // SAFETY: heaps are never freed, and this is the thread's own.
    if let Some(heap) = unsafe { HEAP.get().as_ref() } {
        is_done &= tidy(heap);
    }
    if LEFT_HEAPS.load(Relaxed) > 0 {
        for heap in all_heaps().filter(|heap| heap.enter(LOCKED)) {
            is_done &= tidy(heap);
            heap.state.store(LEFT, Release);
        }
    }
    is_done
}
