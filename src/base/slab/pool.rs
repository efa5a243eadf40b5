//! The source of slabs, and the place where empty ones go.

use std::ptr::{self, null_mut};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::notes::{IN_POOL, REGION_BYTES, Slab, Slabs};
use super::{LARGE_SLAB_BYTES, SMALL_SLAB_BYTES};

/// More addresses than a system gives to a process unless it is asked to.
const ADDRESSES: usize = 1 << 48;
/// How many slabs are taken from a pool at once to be given back to the system.
const PURGED_AT_ONCE: usize = 32;

/// A bit for each possible region, set for those of small slabs.
static REGIONS: [AtomicU64; ADDRESSES / REGION_BYTES / 64] =
    [const { AtomicU64::new(0) }; ADDRESSES / REGION_BYTES / 64];

/// Whether an address is in a region of small slabs.
#[inline]
pub(super) fn is_in_small_slab(address: usize) -> bool {
    let region = address / REGION_BYTES;
    REGIONS.get(region / 64).is_some_and(|bits| bits.load(Relaxed) >> (region % 64) & 1 == 1)
}

/// Empty slabs of one size.
pub(super) struct Pool {
    slab_bytes: usize,
    pooled: Mutex<Pooled>,
}

struct Pooled {
    /// Those that still have memory.
    dirty: Slabs,
    /// Those that have none.
    clean: Slabs,
    /// The least that `dirty` has held since memory was last given back.
    least_dirty: usize,
    /// The region that provides unused slabs, and the next of them.
    region: *mut u8,
    next: usize,
    /// How many slabs regions have provided.
    slabs: usize,
}

// SAFETY: the notes on slabs of the pool are touched only under its lock.
unsafe impl Send for Pooled {}

static SMALL: Pool = Pool::new(SMALL_SLAB_BYTES);
static LARGE: Pool = Pool::new(LARGE_SLAB_BYTES);

impl Pool {
    const fn new(slab_bytes: usize) -> Pool {
        let (dirty, clean) = (Slabs::new(), Slabs::new());
        let next = REGION_BYTES / slab_bytes;
        Pool {
            slab_bytes,
            pooled: Mutex::new(Pooled { dirty, clean, least_dirty: 0, region: null_mut(), next, slabs: 0 }),
        }
    }

    /// The pool of slabs of this size.
    pub(super) fn of(slab_bytes: usize) -> &'static Pool {
        if slab_bytes == SMALL_SLAB_BYTES { &SMALL } else { &LARGE }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pooled> {
        self.pooled.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn put(&self, slab: &Slab) {
        slab.place.store(IN_POOL, Relaxed);
        self.lock().dirty.push(slab);
    }

    pub(super) fn take<'a>(&self) -> Option<&'a Slab> {
        let mut pooled = self.lock();
        if let Some(slab) = pooled.dirty.pop() {
            pooled.least_dirty = pooled.least_dirty.min(pooled.dirty.len.get());
            return Some(slab);
        }
        if let Some(slab) = pooled.clean.pop() {
            return Some(slab);
        }
        if pooled.next == REGION_BYTES / self.slab_bytes {
            pooled.region = map_region(self.slab_bytes == SMALL_SLAB_BYTES)?;
            pooled.next = 1;
        }
        let at = pooled.next;
        pooled.next += 1;
        pooled.slabs += 1;
        // SAFETY: the region begins with zeroed room for the notes on its slabs, which nothing else uses.
        unsafe {
            let slab = pooled.region.cast::<Slab>().add(at);
            slab.write(Slab::new());
            (*slab).begin.set(pooled.region.add(at * self.slab_bytes));
            Some(&*slab)
        }
    }
}

/// New memory for a region, without huge pages, which make copies of segments slower.
fn map_region(is_small: bool) -> Option<*mut u8> {
    // SAFETY: a new mapping, whose unneeded ends are unmapped before any other code knows of it.
    unsafe {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let mapped = mmap_anonymous(null_mut(), 2 * REGION_BYTES, ProtFlags::READ | ProtFlags::WRITE, flags);
        let mapped = mapped.ok()?.cast::<u8>();
        let before = mapped.align_offset(REGION_BYTES);
        let region = mapped.add(before);
        if before > 0 {
            let _ = munmap(mapped.cast(), before);
        }
        let behind = region.add(REGION_BYTES);
        let _ = munmap(behind.cast(), REGION_BYTES - before);
        let _ = madvise(region.cast(), REGION_BYTES, Advice::LinuxNoHugepage);
        if is_small {
            let at = region.expose_provenance() / REGION_BYTES;
            REGIONS.get(at / 64)?.fetch_or(1 << (at % 64), Relaxed);
        }
        Some(region)
    }
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// The bytes of a slab.
    pub slab_bytes: usize,
    /// Slabs that were ever used.
    pub slabs: usize,
    /// Empty slabs that still have memory,
    pub dirty: usize,
    /// and those that have none.
    pub clean: usize,
}

impl PoolFigures {
    /// The bytes of slabs in which something lives, or may live next.
    pub fn used_bytes(&self) -> usize {
        (self.slabs - self.dirty - self.clean) * self.slab_bytes
    }

    /// The bytes of slabs that have memory.
    pub fn mapped_bytes(&self) -> usize {
        (self.slabs - self.clean) * self.slab_bytes
    }
}

/// What the pools hold: that of small slabs and that of large ones.
pub fn figures() -> [PoolFigures; 2] {
    [&SMALL, &LARGE].map(|pool| {
        let pooled = pool.lock();
        let slab_bytes = pool.slab_bytes;
        PoolFigures { slab_bytes, slabs: pooled.slabs, dirty: pooled.dirty.len.get(), clean: pooled.clean.len.get() }
    })
}

/// Gives the memory of empty slabs back to the system: part of what was not needed since the last call, or
/// everything. Returns how many bytes.
pub fn purge(everything: bool) -> usize {
    SMALL.purge(everything) + LARGE.purge(everything)
}

impl Pool {
    fn purge(&self, everything: bool) -> usize {
        let mut pooled = self.lock();
        let dirty = pooled.dirty.len.get();
        let mut wanted = if everything { dirty } else { pooled.least_dirty.div_ceil(8) };
        let mut purged = 0;
        while wanted > 0 {
            let mut slabs = [ptr::null::<Slab>(); PURGED_AT_ONCE];
            let mut taken = 0;
            while taken < PURGED_AT_ONCE.min(wanted)
                && let Some(slab) = pooled.dirty.pop()
            {
                slabs[taken] = slab;
                taken += 1;
            }
            if taken == 0 {
                break;
            }
            drop(pooled);
            for slab in &slabs[..taken] {
                // SAFETY: the slab is out of the pool and empty.
                let _ = unsafe { madvise((**slab).begin.get().cast(), self.slab_bytes, Advice::LinuxDontNeed) };
            }
            pooled = self.lock();
            // SAFETY: the notes on slabs are never freed.
            slabs[..taken].iter().for_each(|slab| pooled.clean.push(unsafe { &**slab }));
            wanted -= taken;
            purged += taken * self.slab_bytes;
        }
        pooled.least_dirty = pooled.dirty.len.get();
        purged
    }
}
