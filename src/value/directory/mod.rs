//! The map of keys to values, one for each shard and database, and the map of the members of large collections:
//! linear hashing over copy-on-write segments.
//!
//! With `n` segments and `2^L <= n < 2^(L+1)`, a key lives in segment `hash mod 2^(L+1)` if it exists, otherwise in
//! `hash mod 2^L`. Growing adds segment `n`, which takes its keys from segment `n - 2^L`. Shrinking is the reverse.
//! One insert therefore moves the records of one segment, never all.
//!
//! ```text
//!   hash: │ 10 bits: shard │ 6 bits │ 8 bits: tag │ 2 bits │ 38 bits: segment, lowest first │
//! ```
//!
//! SCAN walks the segments by their index *with the bits reversed*. A segment at level L holds one interval of
//! reversed hashes, and a split cuts the interval in two. Whatever splits and merges happen between two calls,
//! everything before the cursor has been visited.
//!
//! Invariants:
//!
//! - Every hash that a caller passes is the seed's hash of the key.
//! - `len`, `volatile`, `elementwise`, `templated` and `live` are the sums over the segments.
//! - `bounds[i]` is at or before every expiry in segment `i`, including those of elements of collections. `earliest`
//!   is at or before every bound. No bounds are kept while nothing can expire.
//! - A clone shares all segments. A later change copies only the segment that it touches.
//! - `blessed` names the keys that are protected from eviction: see `blessed.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

pub use census::Census;
#[cfg(test)]
pub(crate) use relocate::tests as relocate_tests;
pub use relocate::{Budget, Position};

use super::entry::{EXPIRY_MAX, EntryRef, Heap, HeapMut, Kind, NewValue, ValueRef};
use super::segment::Segment;
use crate::base::hash::HashSeed;
use crate::base::prefetch::prefetch_line;

mod blessed;
mod census;
mod draw;
mod relocate;
mod unite;

/// SCAN positions are below `2^POSITION_BITS`.
pub const POSITION_BITS: u32 = 38;

/// A segment is split when the mean passes this many records,
const SPLIT_ENTRIES: usize = 40;
/// or this many bytes of records;
const SPLIT_BYTES: usize = 2200;
/// and the last one is merged back when the means fall to these.
const MERGE_ENTRIES: usize = 16;
const MERGE_BYTES: usize = 900;
/// A segment larger than this makes the directory split further, whatever the mean.
const CROWDED_BYTES: usize = 60_000;
/// Merging never makes a segment larger than this.
const MERGED_BYTES_MAX: usize = CROWDED_BYTES / 2;
/// How far colliding hashes may push the splitting: to this many times the usual number of segments.
const CROWDED_SPLITS_MAX: usize = 64;
/// The bound of a segment in which nothing expires.
const NEVER: u64 = u64::MAX;

/// The content of a record that was replaced or removed.
#[derive(Debug)]
#[must_use = "a large payload should be freed off the worker's thread"]
pub struct Displaced {
    /// When the key would have expired, in unix milliseconds.
    pub expiry: Option<u64>,
    /// The payload, if the value was outside the record.
    pub heap: Option<Heap>,
}

/// A key that has expired, or that holds expired elements.
#[derive(Debug, PartialEq, Eq)]
pub struct ExpiredKey {
    /// Its hash.
    pub hash: u64,
    /// Its bytes.
    pub key: Box<[u8]>,
    /// Whether the key itself has expired. If not, elements of its collection may have.
    pub whole: bool,
}

/// When a key expires, and a lower bound for the expiries of its elements.
#[derive(Clone, Copy, Default)]
struct Expiries {
    own: Option<u64>,
    elements: Option<u64>,
}

impl Expiries {
    #[inline]
    fn of(entry: EntryRef<'_>) -> Expiries {
        Expiries { own: entry.expiry(), elements: entry.value_expiry() }
    }

    /// The earlier of the two.
    #[inline]
    fn earliest(self) -> Option<u64> {
        self.own.into_iter().chain(self.elements).min()
    }
}

#[inline]
fn is_templated(entry: EntryRef<'_>) -> bool {
    entry.kind() == Kind::HashTemplated
}

/// The place of an entry, valid until the next change of its directory.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    segment: usize,
    slot: usize,
}

/// What may be known of a directory without its lock: addresses to prefetch, never to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spine {
    /// The address of the first segment's pointer.
    pub address: usize,
    /// The number of segments.
    pub len: usize,
}

impl Spine {
    /// Prefetches the pointer to the segment of a hash.
    #[inline]
    pub fn prefetch(self, hash: u64) {
        let at = index_of(hash, mask_of(self.len), self.len);
        prefetch_line(std::ptr::without_provenance(self.address + at * size_of::<Segment>()));
    }
}

/// What to do with the expiry of a key that is replaced.
#[derive(Clone, Copy)]
enum NewExpiry {
    Keep,
    Set(Option<u64>),
}

/// The keys of one database in one shard. A clone is a frozen view.
pub struct Directory {
    segments: Vec<Segment>,
    /// All ones, as many as the level of the segments already split.
    mask: usize,
    len: usize,
    volatile: usize,
    /// How many keys hold elements with an expiry.
    elementwise: usize,
    /// How many keys are hashes that use a template.
    templated: usize,
    live: usize,
    /// Parallel to `segments`, or empty while nothing can expire. Atomic only so that a read may tighten them.
    bounds: Vec<AtomicU64>,
    earliest: AtomicU64,
    seed: HashSeed,
    /// The names of the keys that are protected from eviction; `None` if there are none.
    blessed: Option<triomphe::Arc<Directory>>,
}

impl Clone for Directory {
    fn clone(&self) -> Directory {
        const AHEAD: usize = 8;
        let mut segments = Vec::with_capacity(self.segments.len());
        for (at, segment) in self.segments.iter().enumerate() {
            // Every count is a cache miss, so several are in flight.
            if let Some(ahead) = self.segments.get(at + AHEAD) {
                ahead.prefetch_count();
            }
            segments.push(segment.clone());
        }
        let copy = |bound: &AtomicU64| AtomicU64::new(bound.load(Ordering::Relaxed));
        Directory {
            segments,
            mask: self.mask,
            len: self.len,
            volatile: self.volatile,
            elementwise: self.elementwise,
            templated: self.templated,
            live: self.live,
            bounds: self.bounds.iter().map(copy).collect(),
            earliest: copy(&self.earliest),
            seed: self.seed,
            blessed: self.blessed.clone(),
        }
    }
}

impl Directory {
    /// An empty directory. `seed` makes all hashes that it will receive.
    pub fn new(seed: HashSeed) -> Directory {
        Directory::with_capacity(seed, 0, 0)
    }

    /// An empty directory with the right number of segments for this many entries of this many bytes in total (see
    /// `live_bytes`; 0 if unknown), so that loading them splits nothing.
    pub fn with_capacity(seed: HashSeed, entries: usize, live_bytes: usize) -> Directory {
        let count = entries.div_ceil(SPLIT_ENTRIES).max(live_bytes.div_ceil(SPLIT_BYTES)).max(1);
        Directory {
            segments: (0..count).map(|_| Segment::empty()).collect(),
            mask: mask_of(count),
            len: 0,
            volatile: 0,
            elementwise: 0,
            templated: 0,
            live: 0,
            bounds: Vec::new(),
            earliest: AtomicU64::new(NEVER),
            seed,
            blessed: None,
        }
    }

    /// How many keys there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many keys have an expiry.
    #[inline]
    pub fn volatile_len(&self) -> usize {
        self.volatile
    }

    /// How many keys hold elements with their own expiry.
    #[inline]
    pub fn elementwise_len(&self) -> usize {
        self.elementwise
    }

    /// The bytes of all records, payloads outside them not counted.
    #[inline]
    pub fn live_bytes(&self) -> usize {
        self.live
    }

    /// The bytes of the tables that lead to segments.
    pub fn table_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>() + self.bounds.capacity() * size_of::<AtomicU64>()
    }

    /// The bytes allocated for segments and tables, payloads not counted. Reads every segment.
    pub fn memory(&self) -> usize {
        let segments = self.segments.iter().filter(|segment| segment.len() > 0);
        let index = self.blessed().map_or(0, Directory::memory);
        size_of::<Directory>() + self.table_bytes() + segments.map(Segment::capacity).sum::<usize>() + index
    }

    /// The entry of a key.
    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_>> {
        let segment = &self.segments[self.index(hash)];
        let slot = segment.find(tag_of(hash), key)?;
        Some(segment.entry(slot))
    }

    /// The place of the entry of a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let segment = self.index(hash);
        Some(Place { segment, slot: self.segments[segment].find(tag_of(hash), key)? })
    }

    /// The entry at a place from [`Directory::find`]. The directory must be unchanged since.
    #[inline]
    pub fn entry_at(&self, place: Place) -> EntryRef<'_> {
        self.segments[place.segment].entry(place.slot)
    }

    /// Sets the access field of the entry at a place, unless a frozen view shares its segment.
    #[inline]
    pub fn set_access_at(&mut self, place: Place, access: u32) {
        self.segments[place.segment].set_access(place.slot, access);
    }

    /// What may be known of it without a lock.
    #[inline]
    pub fn spine(&self) -> Spine {
        Spine { address: self.segments.as_ptr().addr(), len: self.segments.len() }
    }

    /// Stores a key: value, expiry and access. Replaces any previous content.
    #[inline]
    pub fn set(
        &mut self,
        hash: u64,
        key: &[u8],
        value: NewValue<'_>,
        expiry: Option<u64>,
        access: u32,
    ) -> Option<Displaced> {
        self.write(hash, key, value, NewExpiry::Set(expiry), access)
    }

    /// Stores a key's value and keeps its expiry.
    #[inline]
    pub fn set_value(&mut self, hash: u64, key: &[u8], value: NewValue<'_>, access: u32) -> Option<Displaced> {
        self.write(hash, key, value, NewExpiry::Keep, access)
    }

    #[inline]
    fn write(&mut self, hash: u64, key: &[u8], value: NewValue<'_>, new: NewExpiry, access: u32) -> Option<Displaced> {
        let (at, tag) = (self.index(hash), tag_of(hash));
        let segment = &mut self.segments[at];
        let before = segment.live_bytes();
        let found = segment.find(tag, key);
        let old = found.map_or(Expiries::default(), |slot| Expiries::of(segment.entry(slot)));
        self.templated -= found.map_or(0, |slot| usize::from(is_templated(segment.entry(slot))));
        self.templated += usize::from(value.is_templated());
        let expiry = match new {
            NewExpiry::Keep => old.own,
            NewExpiry::Set(expiry) => expiry.map(storable),
        };
        let renewed = Expiries { own: expiry, elements: value.expiry() };
        let heap = value.with_body(|body| match found {
            Some(slot) => segment.replace(slot, &body, expiry, access),
            None => {
                segment.insert(tag, key, &body, expiry, access);
                None
            }
        });
        self.live = self.live - before + segment.live_bytes();
        if found.is_none() {
            debug_assert_eq!(hash, self.hash_of(key), "a hash is the seed's hash of the key");
            self.len += 1;
        }
        self.note_expiry(at, old, renewed);
        if self.blessed.is_some() {
            self.renew_blessed(hash, key, expiry);
        }
        self.grow(at);
        found.map(|_| Displaced { expiry: old.own, heap })
    }

    /// Removes a key.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Displaced> {
        let at = self.index(hash);
        let segment = &mut self.segments[at];
        let slot = segment.find(tag_of(hash), key)?;
        let old = Expiries::of(segment.entry(slot));
        self.templated -= usize::from(is_templated(segment.entry(slot)));
        let before = segment.live_bytes();
        let heap = segment.remove(slot);
        self.live = self.live - before + segment.live_bytes();
        self.len -= 1;
        self.note_expiry(at, old, Expiries::default());
        if self.blessed.is_some() {
            self.forget_blessed(hash, key);
        }
        self.shrink();
        Some(Displaced { expiry: old.own, heap })
    }

    /// Gives back what removed records have left unused in the segment of a hash, unless a frozen view shares it.
    pub fn compact(&mut self, hash: u64) {
        let at = self.index(hash);
        self.segments[at].compact();
    }

    /// Removes every key whose hash has this bit, which must not be one that chooses a segment, and returns those
    /// keys in a directory of their own.
    pub fn split_off(&mut self, bit: u64) -> Directory {
        debug_assert!(self.blessed.is_none(), "only members of collections are parted");
        let mut high = Directory { segments: Vec::with_capacity(self.segments.len()), ..Directory::new(self.seed) };
        high.mask = self.mask;
        for at in 0..self.segments.len() {
            let mut segment = std::mem::replace(&mut self.segments[at], Segment::empty());
            let other = segment.split(|key| self.hash_of(key) & bit != 0);
            self.segments[at] = segment;
            high.segments.push(other);
        }
        let any_expires = self.volatile + self.elementwise > 0;
        for directory in [&mut *self, &mut high] {
            directory.add_up(any_expires);
            directory.shrink_to_fit();
        }
        high
    }

    /// Sets or clears a key's expiry; false if there is no such key.
    pub fn set_expiry(&mut self, hash: u64, key: &[u8], expiry: Option<u64>) -> bool {
        let at = self.index(hash);
        let segment = &mut self.segments[at];
        let Some(slot) = segment.find(tag_of(hash), key) else { return false };
        let old = Expiries::of(segment.entry(slot));
        let before = segment.live_bytes();
        let expiry = expiry.map(storable);
        segment.set_expiry(slot, expiry);
        self.live = self.live - before + segment.live_bytes();
        self.note_expiry(at, old, Expiries { own: expiry, ..old });
        if self.blessed.is_some() {
            self.renew_blessed(hash, key, expiry);
        }
        self.grow(at);
        true
    }

    /// A key's string, to be changed in place. It becomes growable if it is not yet, and is copied first if a frozen
    /// view shares it. `None` if there is no such key, or it is not a string.
    pub fn raw_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Vec<u8>> {
        let entry = self.get(hash, key)?;
        let raw = match entry.value() {
            ValueRef::Int(number) => Some(itoa::Buffer::new().format(number).into()),
            ValueRef::Str(bytes) => Some(bytes.to_vec()),
            ValueRef::Raw(_) => None,
            _ => return None,
        };
        if let Some(raw) = raw {
            let access = entry.access();
            // The old payload is dropped here, because this path has just copied all of it anyway.
            let _ = self.set_value(hash, key, NewValue::Raw(raw), access);
        }
        match self.heap_mut(hash, key)? {
            HeapMut::Raw(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A growable string or large collection, to be changed in place. A frozen view keeps what it shares. `None` if
    /// there is no such key, or its value is of another kind.
    pub fn heap_mut(&mut self, hash: u64, key: &[u8]) -> Option<HeapMut<'_>> {
        let at = self.index(hash);
        let slot = self.segments[at].find(tag_of(hash), key)?;
        self.segments[at].heap_mut(slot)
    }

    /// Records when the elements of a collection expire after [`Directory::heap_mut`] has changed it. `before` is
    /// what [`EntryRef::value_expiry`] returned before the change.
    #[inline]
    pub fn note_elements(&mut self, place: Place, before: Option<u64>) {
        let entry = self.segments[place.segment].entry(place.slot);
        let now = Expiries::of(entry);
        self.note_expiry(place.segment, Expiries { elements: before, ..now }, now);
    }

    /// Prefetches the segment of a hash. Call it some time before `prefetch_record`.
    #[inline]
    pub fn prefetch_segment(&self, hash: u64) {
        self.segments[self.index(hash)].prefetch();
    }

    /// Prefetches the record of a hash. Call it some time before the look-up.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) {
        self.segments[self.index(hash)].prefetch_record(tag_of(hash));
    }

    /// A lower bound of the keys' expiries; `None` if none expires.
    #[inline]
    pub fn earliest_expiry(&self) -> Option<u64> {
        Some(self.earliest.load(Ordering::Relaxed)).filter(|&at| at != NEVER)
    }

    /// Adds to `out` up to `limit` keys that have expired at `now`, or whose elements may have. The caller removes
    /// them.
    ///
    /// Segments in which nothing can have expired are skipped. An examined segment gets an exact bound, so that the
    /// pass after the removal makes later ones cheap.
    pub fn collect_expired(&self, now: u64, limit: usize, out: &mut Vec<ExpiredKey>) {
        let end = out.len().saturating_add(limit);
        if self.earliest.load(Ordering::Relaxed) > now || limit == 0 {
            return;
        }
        let mut earliest = NEVER;
        for (segment, bound) in self.segments.iter().zip(&self.bounds) {
            if bound.load(Ordering::Relaxed) <= now && out.len() < end {
                let mut exact = NEVER;
                for entry in segment.entries() {
                    let expiries = Expiries::of(entry);
                    let Some(expiry) = expiries.earliest() else { continue };
                    exact = exact.min(expiry);
                    if expiry <= now && out.len() < end {
                        let key = entry.key();
                        let whole = expiries.own.is_some_and(|own| own <= now);
                        out.push(ExpiredKey { hash: self.hash_of(key), key: key.into(), whole });
                    }
                }
                bound.store(exact, Ordering::Relaxed);
            }
            earliest = earliest.min(bound.load(Ordering::Relaxed));
        }
        self.earliest.store(earliest, Ordering::Relaxed);
    }

    /// How many keys have expired at `now`. Segments in which nothing can have expired are skipped.
    pub fn expired_len(&self, now: u64) -> usize {
        if self.earliest.load(Ordering::Relaxed) > now {
            return 0;
        }
        let due = self.segments.iter().zip(&self.bounds).filter(|(_, bound)| bound.load(Ordering::Relaxed) <= now);
        let entries = due.flat_map(|(segment, _)| segment.entries());
        entries.filter(|entry| entry.expiry().is_some_and(|at| at <= now)).count()
    }

    /// Visits about `budget` entries from a position on, whole segments at a time. Returns the next position, or
    /// `None` at the end. Positions begin at 0.
    ///
    /// Every key that exists from the first call to the last is visited at least once.
    pub fn scan(&self, position: u64, budget: usize, visit: &mut dyn FnMut(EntryRef<'_>)) -> Option<u64> {
        let end = 1 << POSITION_BITS;
        let (mut position, mut visited) = (position, 0);
        // Empty segments count a little, so that a sparse directory cannot hold one call for long.
        let mut steps = budget.saturating_mul(10).max(1);
        while position < end && steps > 0 && (visited < budget || visited == 0) {
            let at = self.index(reversed(position));
            let segment = &self.segments[at];
            segment.entries().for_each(&mut *visit);
            visited += segment.len();
            steps -= 1;
            let width = POSITION_BITS - self.level(at);
            position = (reversed(at as u64) & !((1 << width) - 1)) + (1 << width);
        }
        (position < end).then_some(position)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.segments.iter().flat_map(Segment::entries)
    }

    /// The segment of a hash.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        index_of(hash, self.mask, self.segments.len())
    }

    /// How many hash bits choose this segment.
    #[inline]
    fn level(&self, at: usize) -> u32 {
        let level = self.mask.count_ones();
        if level > 0 && (at | (self.mask + 1) >> 1) >= self.segments.len() { level - 1 } else { level }
    }

    #[inline]
    fn hash_of(&self, key: &[u8]) -> u64 {
        #[cfg(test)]
        if let Some(forged) = tests::forged_hash(key) {
            return forged;
        }
        self.seed.hash(key)
    }

    /// Updates the count of keys with an expiry, and the bounds.
    #[inline]
    fn note_expiry(&mut self, at: usize, old: Expiries, new: Expiries) {
        let (before, after) = (old.earliest(), new.earliest());
        if before.is_none() && after.is_none() {
            return;
        }
        self.volatile = self.volatile - usize::from(old.own.is_some()) + usize::from(new.own.is_some());
        let elementwise = self.elementwise + usize::from(new.elements.is_some());
        self.elementwise = elementwise.saturating_sub(usize::from(old.elements.is_some()));
        if self.volatile + self.elementwise == 0 {
            self.bounds = Vec::new();
            self.earliest = AtomicU64::new(NEVER);
        } else if let Some(expiry) = after {
            if self.bounds.is_empty() {
                self.bounds = (0..self.segments.len()).map(|_| AtomicU64::new(NEVER)).collect();
            }
            let lower = |bound: &mut AtomicU64| *bound.get_mut() = expiry.min(*bound.get_mut());
            lower(&mut self.bounds[at]);
            lower(&mut self.earliest);
        }
    }

    /// Splits a segment or two after an insert into segment `at`, if needed.
    #[inline]
    fn grow(&mut self, at: usize) {
        let count = self.segments.len();
        if self.len > count * SPLIT_ENTRIES || self.live > count * SPLIT_BYTES {
            self.split();
        }
        if self.segments[at].capacity() > CROWDED_BYTES {
            self.spread_crowd(at);
        }
    }

    /// Continues splitting, a little with each insert, until it is the crowded segment's turn.
    #[cold]
    fn spread_crowd(&mut self, at: usize) {
        let usual = (self.len / SPLIT_ENTRIES).max(self.live / SPLIT_BYTES) + 1;
        for _ in 0..4 {
            let crowded = self.segments[at].live_bytes() > CROWDED_BYTES;
            if crowded && self.segments.len() < usual * CROWDED_SPLITS_MAX {
                self.split();
            }
        }
    }

    /// Adds one segment and moves its records to it.
    #[cold]
    #[inline(never)]
    fn split(&mut self) {
        let new = self.segments.len();
        let bit = 1usize << new.ilog2();
        let from = new - bit;
        let mut low = std::mem::replace(&mut self.segments[from], Segment::empty());
        let high = low.split(|key| self.hash_of(key) as usize & bit != 0);
        if new == self.segments.capacity() {
            self.segments.reserve_exact(new / 8 + 1);
        }
        self.segments[from] = low;
        self.segments.push(high);
        self.mask = mask_of(new + 1);
        if !self.bounds.is_empty() {
            if new == self.bounds.capacity() {
                self.bounds.reserve_exact(new / 8 + 1);
            }
            self.bounds[from] = exact_bound(&self.segments[from]);
            self.bounds.push(exact_bound(&self.segments[new]));
        }
    }

    /// Merges the last segment back after a removal, if the means are low.
    #[inline]
    fn shrink(&mut self) {
        let count = self.segments.len();
        if self.len == 0 && count > 1 {
            *self = Directory::new(self.seed);
            return;
        }
        let sparse = self.len < count * MERGE_ENTRIES && self.live < count * MERGE_BYTES;
        if count > 1 && sparse {
            self.merge();
        }
    }

    /// Merges segments until they are properly filled.
    fn shrink_to_fit(&mut self) {
        let mut before = usize::MAX;
        while self.segments.len() < before {
            before = self.segments.len();
            self.shrink();
        }
    }

    /// Recomputes the counts, and the bounds if anything may expire.
    fn add_up(&mut self, any_expires: bool) {
        self.len = self.segments.iter().map(Segment::len).sum();
        self.live = self.segments.iter().map(Segment::live_bytes).sum();
        debug_assert_eq!(self.templated, 0, "members of collections are no hashes");
        (self.volatile, self.elementwise, self.bounds, self.earliest) = (0, 0, Vec::new(), AtomicU64::new(NEVER));
        if !any_expires {
            return;
        }
        for at in 0..self.segments.len() {
            for slot in 0..self.segments[at].len() {
                let expiries = Expiries::of(self.segments[at].entry(slot));
                self.note_expiry(at, Expiries::default(), expiries);
            }
        }
    }

    /// Removes the last segment: the reverse of `split`.
    #[cold]
    #[inline(never)]
    fn merge(&mut self) {
        let last = self.segments.len() - 1;
        let into = last - (1 << last.ilog2());
        let bytes = self.segments[last].live_bytes() + self.segments[into].live_bytes();
        if bytes > MERGED_BYTES_MAX && self.segments[last].len() > 0 {
            return;
        }
        let Some(high) = self.segments.pop() else { return };
        self.segments[into].merge(high);
        self.mask = mask_of(last);
        if let Some(mut bound) = self.bounds.pop() {
            let lower = self.bounds[into].get_mut();
            *lower = (*lower).min(*bound.get_mut());
        }
        if self.segments.capacity() > 2 * last + 8 {
            self.segments.shrink_to(last + last / 8);
            self.bounds.shrink_to(last + last / 8);
        }
    }

    /// Checks all invariants, of every segment and of the whole.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        assert_eq!(self.mask, mask_of(self.segments.len()));
        let (mut len, mut live, mut volatile, mut elementwise, mut templated) = (0, 0, 0, 0, 0);
        let never = self.volatile + self.elementwise == 0;
        assert_eq!(self.bounds.is_empty(), never, "bounds are kept while needed");
        assert!(self.bounds.is_empty() || self.bounds.len() == self.segments.len());
        for (at, segment) in self.segments.iter().enumerate() {
            segment.check_invariants(|key| tag_of(self.hash_of(key)));
            let mut keys = std::collections::HashSet::new();
            for entry in segment.entries() {
                let hash = self.hash_of(entry.key());
                assert_eq!(self.index(hash), at, "a key is in the segment of its hash");
                let low_bits = (1 << self.level(at)) - 1;
                assert_eq!(hash as usize & low_bits, at & low_bits, "the level counts its bits");
                assert!(keys.insert(entry.key()), "a key is stored once");
                let expiries = Expiries::of(entry);
                templated += usize::from(is_templated(entry));
                volatile += usize::from(expiries.own.is_some());
                elementwise += usize::from(expiries.elements.is_some());
                if let Some(expiry) = expiries.earliest() {
                    assert!(self.bounds[at].load(Ordering::Relaxed) <= expiry);
                }
            }
            if let Some(bound) = self.bounds.get(at) {
                assert!(self.earliest.load(Ordering::Relaxed) <= bound.load(Ordering::Relaxed));
            }
            len += segment.len();
            live += segment.live_bytes();
        }
        let sums = (self.len, self.live, self.volatile, self.elementwise, self.templated);
        assert_eq!((len, live, volatile, elementwise, templated), sums, "the sums agree");
        self.check_blessed();
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Directory")
            .field("segments", &self.segments.len())
            .field("len", &self.len)
            .field("volatile", &self.volatile)
            .field("live", &self.live)
            .field("blessed", &self.blessed().map_or(0, Directory::len))
            .finish_non_exhaustive()
    }
}

/// Clamps an expiry to the latest that a record can hold, for the bounds as well.
#[inline]
fn storable(expiry: u64) -> u64 {
    expiry.min(EXPIRY_MAX)
}

/// The mask that chooses among this many segments.
#[inline]
fn mask_of(segments: usize) -> usize {
    segments.next_power_of_two() - 1
}

/// The segment of a hash among this many.
#[inline]
fn index_of(hash: u64, mask: usize, segments: usize) -> usize {
    let at = hash as usize & mask;
    if at < segments { at } else { at & (mask >> 1) }
}

/// The tag: the bits of a hash that a slot stores.
#[inline]
fn tag_of(hash: u64) -> u8 {
    (hash >> 40) as u8
}

/// Turns a hash's low bits into a SCAN position, and back.
#[inline]
fn reversed(bits: u64) -> u64 {
    bits.reverse_bits() >> (u64::BITS - POSITION_BITS)
}

fn exact_bound(segment: &Segment) -> AtomicU64 {
    AtomicU64::new(segment.earliest_expiry().unwrap_or(NEVER))
}

#[cfg(test)]
mod tests;
