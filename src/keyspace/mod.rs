//! The keyspace: databases × shards, every key behind the lock of its shard.
//!
//! ```text
//! Keyspace ─ Shard × 1024 (mutex, padded) ─ Arc<Directory> per database ─ Segment × n ─ record × ~40
//!                                                                             └ value: inline, or a pointer
//! ```
//!
//! All of it is copy-on-write, so a snapshot is a clone: see [`frozen`].
//!
//! Invariants:
//! - Lock order: the gate, then shards in ascending order. Only a thread that has closed the gate may lock shards in
//!   any order.
//! - A shard is chosen by the top ten bits of the keyed hash, the same for all databases.
//! - Nothing here writes the log or a reply, or knows a command.

pub mod access;
pub mod busy;
pub mod counts;
pub mod frozen;
pub mod gate;
pub mod graveyard;
pub mod held;
pub mod libraries;
pub mod relocate;
pub mod shard;
pub mod unloaded;
pub mod waiters;
pub mod watch;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::base::lock::{Mutex, MutexGuard, Rank};

pub use crate::value::directory::{Census, Directory, Place, Spine};
pub use crate::value::entry::{EntryRef, NewValue, ValueRef};
pub use busy::Busy;
pub use counts::Counts;
pub use frozen::Frozen;
pub use gate::{Closed, Closing, Gate, Staying};
pub use graveyard::{Buried, Grave, Graveyard};
pub use held::Held;
pub use libraries::{Function, Libraries, Library};
pub use relocate::Relocation;
pub use shard::Shard;
use shard::Shared;

use crate::base::hash::HashSeed;
use crate::base::prefetch::prefetch_line;

/// The number of shards; a power of two, and part of the persisted format.
pub const SHARDS: usize = 1024;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// A lock with its shard on its own cache lines, and the bound that the expiry sweep reads without the lock.
#[repr(C, align(128))]
struct Slot {
    /// No key here expires before this time, in Unix milliseconds; `u64::MAX` if none expires.
    earliest_expiry: AtomicU64,
    /// The directory used last, and its [`Spine`], as seen under the lock. These are addresses to prefetch: possibly
    /// stale, never followed.
    hint_directory: AtomicUsize,
    hint_spine: AtomicUsize,
    hint_segments: AtomicUsize,
    shard: Mutex<Shard>,
}

/// A read finds everything that it needs of its shard on the first cache line, a write on both.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Slot>() == 128);

/// All keys of all databases.
pub struct Keyspace {
    seed: HashSeed,
    shared: triomphe::Arc<Shared>,
    databases: u32,
    slots: Box<[Slot]>,
    /// Whether changed keys are noted, for those who have cached them. Read under the lock of the key's shard.
    observed: AtomicBool,
    /// The libraries of functions.
    libraries: Mutex<Arc<Libraries>>,
    /// What can be undone of flushes.
    graveyard: Mutex<Graveyard>,
    /// The shards that are still to be loaded.
    unloaded: unloaded::Unloaded,
    /// Work that waits for a shard to be free.
    later: Mutex<Vec<busy::Later>>,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("databases", &self.databases).finish_non_exhaustive()
    }
}

/// A key with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The bytes of the key.
    pub bytes: &'a [u8],
    /// Their keyed hash.
    pub hash: u64,
}

impl Key<'_> {
    /// The shard that the key lives in.
    #[inline]
    pub fn shard(&self) -> u16 {
        shard_of(self.hash)
    }
}

thread_local! {
    /// How long this thread has waited for the gate and for shards, in nanoseconds, since that was last taken.
    static WAITED_NS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a wait of this thread for a lock.
pub(crate) fn waiting<T>(wait: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = wait();
    WAITED_NS.set(WAITED_NS.get() + begun.elapsed().as_nanos() as u64);
    result
}

/// How long this thread has waited for the gate and for shards, in nanoseconds, since this was last asked.
#[inline]
pub fn take_waited_ns() -> u64 {
    WAITED_NS.take()
}

/// Tries again for about a microsecond: most holders of a lock are gone by then.
pub(crate) fn spin<T>(attempt: impl Fn() -> Option<T>) -> Option<T> {
    const ATTEMPTS: usize = 20;
    const PAUSES: usize = 8;
    (0..ATTEMPTS).find_map(|_| {
        (0..PAUSES).for_each(|_| std::hint::spin_loop());
        attempt()
    })
}

/// The shard of a hash.
#[inline]
pub fn shard_of(hash: u64) -> u16 {
    (hash >> (u64::BITS - SHARD_BITS)) as u16
}

impl Keyspace {
    /// An empty keyspace of this many databases, placed by `seed`.
    pub fn new(databases: u32, seed: HashSeed) -> Self {
        let shared = triomphe::Arc::new(Shared { seed, counts: Counts::new() });
        let slot = |shard| Slot {
            earliest_expiry: AtomicU64::new(u64::MAX),
            hint_directory: AtomicUsize::new(0),
            hint_spine: AtomicUsize::new(0),
            hint_segments: AtomicUsize::new(1),
            shard: Mutex::indexed(Rank::Shard, shard as u32, Shard::new(shared.clone())),
        };
        let slots = (0..SHARDS).map(slot).collect();
        let (observed, libraries, later) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let (unloaded, graveyard) = (unloaded::Unloaded::default(), Mutex::default());
        Keyspace { seed, shared, databases, slots, observed, libraries, graveyard, unloaded, later }
    }

    /// Leaves only so many of its databases, the others of which are empty.
    pub fn limit_databases(&mut self, databases: u32) {
        self.databases = databases;
    }

    /// The number of databases.
    pub fn databases(&self) -> u32 {
        self.databases
    }

    /// Sets whether changed keys are noted. It holds for every change of a key that comes behind a later lock of its
    /// shard by the caller.
    pub fn observe(&self, on: bool) {
        self.observed.store(on, Ordering::Relaxed);
    }

    /// Whether changed keys are noted.
    #[inline]
    pub fn is_observed(&self) -> bool {
        self.observed.load(Ordering::Relaxed)
    }

    /// The hash seed that places keys.
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// A key with its hash.
    #[inline]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, hash: self.seed.hash(bytes) }
    }

    /// Locks one shard. A caller that already holds another one must be alone behind the gate.
    #[inline]
    pub fn lock(&self, shard: u16) -> MutexGuard<'_, Shard> {
        if self.lacks(shard) {
            self.wait_until_loaded(shard);
        }
        self.slots[usize::from(shard)].shard.lock()
    }

    /// The same, unless the shard is locked, or not loaded yet.
    #[inline]
    pub fn try_lock(&self, shard: u16) -> Option<MutexGuard<'_, Shard>> {
        if self.lacks(shard) {
            return None;
        }
        self.slots[usize::from(shard)].shard.try_lock()
    }

    /// Locks one shard, unless it stays locked for longer than `patience`, or is not loaded yet.
    #[inline]
    pub fn lock_for(&self, shard: u16, patience: Duration) -> Option<MutexGuard<'_, Shard>> {
        match self.try_lock(shard) {
            None => self.wait_for(shard, patience),
            locked => locked,
        }
    }

    #[cold]
    fn wait_for(&self, shard: u16, patience: Duration) -> Option<MutexGuard<'_, Shard>> {
        if self.lacks(shard) {
            self.want(shard);
            return None;
        }
        waiting(|| match patience.is_zero() {
            true => spin(|| self.try_lock(shard)),
            false => self.slots[usize::from(shard)].shard.try_lock_for(patience),
        })
    }

    /// Whether the shard is loaded and currently not locked; or damaged, so that waiting for it is over.
    pub fn is_free(&self, shard: u16) -> bool {
        match self.lacks(shard) {
            true => self.damage_of(shard).is_some(),
            false => !self.slots[usize::from(shard)].shard.is_locked(),
        }
    }

    /// First wave of prefetching: the shard itself.
    #[inline]
    pub fn prefetch_shard(&self, hash: u64) {
        prefetch_line(std::ptr::from_ref(&self.slots[usize::from(shard_of(hash))]).cast());
    }

    /// Second wave: the directory, and its pointer to the key's segment, without the lock.
    #[inline]
    pub fn prefetch_directory(&self, hash: u64) {
        let slot = &self.slots[usize::from(shard_of(hash))];
        let directory = slot.hint_directory.load(Ordering::Relaxed);
        prefetch_line(std::ptr::without_provenance(directory));
        let (address, len) = (slot.hint_spine.load(Ordering::Relaxed), slot.hint_segments.load(Ordering::Relaxed));
        Spine { address, len }.prefetch(hash);
    }

    /// Third wave: the segment where the key would be.
    #[inline]
    pub fn prefetch_segment(&self, db: u32, hash: u64) {
        let slot = &self.slots[usize::from(shard_of(hash))];
        let Some(shard) = slot.shard.try_lock() else { return };
        if let Some(directory) = shard.directory(db) {
            directory.prefetch_segment(hash);
            let spine = directory.spine();
            if slot.hint_spine.load(Ordering::Relaxed) != spine.address
                || slot.hint_segments.load(Ordering::Relaxed) != spine.len
            {
                slot.hint_directory.store(std::ptr::from_ref(directory).addr(), Ordering::Relaxed);
                slot.hint_spine.store(spine.address, Ordering::Relaxed);
                slot.hint_segments.store(spine.len, Ordering::Relaxed);
            }
        }
    }

    /// Fourth wave: the record of the key. The segment should have arrived by now.
    #[inline]
    pub fn prefetch_record(&self, db: u32, hash: u64) {
        let Some(shard) = self.try_lock(shard_of(hash)) else { return };
        if let Some(directory) = shard.directory(db) {
            directory.prefetch_record(hash);
        }
    }

    /// Fifth wave: the segment where a member of the large collection at a key would be. False if the key does not
    /// hold one that is a map.
    pub fn prefetch_member_segment(&self, db: u32, key: Key<'_>, member: u64) -> bool {
        let Some(shard) = self.try_lock(key.shard()) else { return false };
        let entry = shard.directory(db).and_then(|directory| directory.get(key.hash, key.bytes));
        let map = entry.and_then(|entry| entry.value().map());
        map.map(|map| map.prefetch_segment(member)).is_some()
    }

    /// Sixth wave: the record of the member.
    pub fn prefetch_member_record(&self, db: u32, key: Key<'_>, member: u64) {
        let Some(shard) = self.try_lock(key.shard()) else { return };
        let entry = shard.directory(db).and_then(|directory| directory.get(key.hash, key.bytes));
        if let Some(map) = entry.and_then(|entry| entry.value().map()) {
            map.prefetch_record(member);
        }
    }

    /// Lowers the bound of the shard for a key that expires at `expiry`. The caller holds the shard's lock.
    #[inline]
    pub fn note_expiry(&self, shard: u16, expiry: u64) {
        let bound = &self.slots[usize::from(shard)].earliest_expiry;
        if expiry < bound.load(Ordering::Relaxed) {
            bound.store(expiry, Ordering::Relaxed);
        }
    }

    /// No key of the shard expires before this time, in Unix milliseconds; read without the lock.
    #[inline]
    pub fn earliest_expiry(&self, shard: u16) -> u64 {
        self.slots[usize::from(shard)].earliest_expiry.load(Ordering::Relaxed)
    }

    /// Recomputes the bound from the content of the shard.
    pub fn renew_earliest_expiry(&self, shard: u16, locked: &Shard) {
        let bound = locked.earliest_expiry().unwrap_or(u64::MAX);
        self.slots[usize::from(shard)].earliest_expiry.store(bound, Ordering::Relaxed);
    }

    /// Freezes a consistent view of everything. The caller has closed the gate, and knows that no shard is damaged.
    pub fn freeze(&self, _alone: &gate::Closed<'_>) -> Frozen {
        assert_eq!(self.damaged_shards(), 0, "a view would lack a damaged shard");
        let shards = self.slots.iter().map(|slot| slot.shard.lock().freeze()).collect();
        Frozen::new(shards, self.libraries(), self.graveyard().graves().to_vec())
    }

    /// The libraries of functions.
    pub fn libraries(&self) -> Arc<Libraries> {
        Arc::clone(&self.libraries.lock())
    }

    /// Replaces the libraries of functions. Returns those before. A command does that by
    /// `Db::set_libraries`.
    pub fn replace_libraries(&self, libraries: Arc<Libraries>) -> Arc<Libraries> {
        std::mem::replace(&mut *self.libraries.lock(), libraries)
    }

    /// Changes the libraries of functions: while they are loaded.
    pub fn change_libraries(&self, change: impl FnOnce(&mut Libraries)) {
        change(Arc::make_mut(&mut self.libraries.lock()));
    }

    /// The numbers of keys, by database, read without a lock.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// The bytes that the directories hold, without values behind pointers. It is an estimate for reports and skips
    /// shards that a command currently holds.
    pub fn memory(&self) -> usize {
        let shards = self.slots.iter().filter_map(|slot| slot.shard.try_lock());
        shards.map(|shard| shard.databases().map(|(_, d)| d.memory()).sum::<usize>()).sum()
    }
}
