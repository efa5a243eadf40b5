//! A segment: some forty records packed into one counted, copy-on-write allocation.
//!
//! ```text
//!   ┌─────────────┬───────────────┬───────────────────┬──────────┬─────────┬──────────┬──────┐
//!   │ header 28 B │ tags, u8 each │ offsets, u16 each │ record 0 │ (hole)  │ record 1 │ room │
//!   └─────────────┴───────────────┴───────────────────┴──────────┴─────────┴──────────┴──────┘
//!   0            28          28 + slots            arena start                      used   capacity
//! ```
//!
//! A slot is one tag (8 bits of the key's hash) and one offset (from the start of the allocation). The first `len`
//! slots are in use, in no order. Records are only appended. A record that moves, shrinks or is removed leaves a
//! hole; `garbage` counts all holes. Nothing walks the arena: records are found through the slots. Offsets are u32 in
//! a segment of more than 64 KiB, which only many colliding hashes can produce.
//!
//! Invariants:
//!
//! - Live records and garbage fill the arena: their lengths sum to `used - arena start`.
//! - `spills` is the number of counted pointers in the live records; each owns one reference.
//! - A change of anything except the reference count needs `&mut Segment` *and* a count of one, seen since. A shared
//!   segment is copied first, with one more reference to each payload.
//!
//! It knows nothing about hashes beyond the tag that it receives, and never reads a clock.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use triomphe::Arc;

use super::entry::{
    Body, EXPIRY_LEN, EntryRef, FLAG_EXPIRY, FLAG_KEY_SPILLED, FLAG_VALUE_SPILLED, HEAD_LEN, Heap, HeapMut,
    INLINE_KEY_MAX, INLINE_VALUE_MAX, Kind, POINTER_LEN, SharedBytes, ValueRef, clone_pointers, drop_pointers,
    record_len, write_access, write_expiry, write_head_and_value,
};
use super::{Hash, Map, Set, Zset};
use crate::base::alloc::usable_size;
use crate::base::prefetch::prefetch_line;

/// Counts and sizes; sizes are in bytes from the start of the allocation.
#[repr(C)]
struct Header {
    refs: AtomicU32,
    capacity: u32,
    used: u32,
    garbage: u32,
    len: u32,
    slots: u32,
    spills: u32,
}

const HEADER_LEN: usize = size_of::<Header>();
const ALIGN: usize = 8;
/// The largest segment whose offsets are u16.
const NARROW_MAX: usize = 65_528;
/// What a slot costs in a segment of usual size.
pub(super) const SLOT_LEN: usize = 3;
/// More owners than this can only be a leak. The count must not wrap around into a use after free.
const REFS_MAX: u32 = u32::MAX / 2;

/// Every empty segment points here. The static itself owns one reference, so that the count never falls to zero, nor
/// to the one that would allow a change.
static EMPTY: Header = Header {
    refs: AtomicU32::new(1),
    capacity: HEADER_LEN as u32,
    used: HEADER_LEN as u32,
    garbage: 0,
    len: 0,
    slots: 0,
    spills: 0,
};

/// A counted pointer to a packed set of records. A clone shares it.
pub(super) struct Segment {
    header: NonNull<Header>,
}

// SAFETY: the count is atomic; everything else changes only through `&mut Segment` while the count
// is one; the payloads (`SharedBytes`, `Arc<Vec<u8>>`) are themselves `Send + Sync`.
unsafe impl Send for Segment {}
// SAFETY: as above: through `&Segment` there is only reading, and counting.
unsafe impl Sync for Segment {}

impl Clone for Segment {
    #[inline]
    fn clone(&self) -> Segment {
        // Relaxed: a new owner comes from an existing one, which orders it already.
        let before = self.header().refs.fetch_add(1, Ordering::Relaxed);
        if before > REFS_MAX {
            std::process::abort();
        }
        Segment { header: self.header }
    }
}

impl Drop for Segment {
    #[inline]
    fn drop(&mut self) {
        // Release: what this owner read happens before another frees it.
        if self.header().refs.fetch_sub(1, Ordering::Release) == 1 {
            // Acquire: everything that the other owners did happens before this frees it.
            fence(Ordering::Acquire);
            // SAFETY: the count is zero, so no one else can reach the allocation.
            unsafe { self.free() }
        }
    }
}

/// The sizes of an allocation to be made.
#[derive(Clone, Copy)]
struct Shape {
    slots: usize,
    capacity: usize,
}

impl Shape {
    /// Room for `slots` slots and `bytes` of records, and for `slack` more bytes if they fit a narrow segment.
    /// Rounded up to what the allocator hands out anyway.
    fn new(slots: usize, bytes: usize, slack: usize) -> Shape {
        let slots = slots.next_multiple_of(8);
        let narrow = HEADER_LEN + slots * 3 + bytes;
        if narrow <= NARROW_MAX {
            let capacity = round_capacity(narrow + slack).min(NARROW_MAX);
            return Shape { slots, capacity };
        }
        let wide = HEADER_LEN + slots * 5 + bytes + slack;
        Shape { slots, capacity: round_capacity(wide) }
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.capacity, ALIGN).expect("a capacity is a u32")
    }
}

#[inline]
fn round_capacity(bytes: usize) -> usize {
    // Steps of a sixteenth: the fewer sizes segments have, the fewer slabs are partly empty.
    usable_size(bytes.next_multiple_of((bytes.next_power_of_two() / 32).max(16)))
}

/// Lengths in a segment are u32. It would take some forty million colliding keys to exceed that.
#[inline]
fn narrow_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a segment is smaller than 4 GiB")
}

impl Segment {
    /// A segment without records; costs no allocation.
    #[inline]
    pub(super) fn empty() -> Segment {
        EMPTY.refs.fetch_add(1, Ordering::Relaxed);
        Segment { header: NonNull::from(&EMPTY) }
    }

    /// A new allocation of this shape, without records.
    fn allocate(shape: Shape) -> Segment {
        let layout = shape.layout();
        // SAFETY: the size is not zero, as it holds at least the header.
        let memory = unsafe { alloc(layout) };
        let Some(header) = NonNull::new(memory.cast::<Header>()) else { handle_alloc_error(layout) };
        let width = if shape.capacity > NARROW_MAX { 5 } else { 3 };
        let first = Header {
            refs: AtomicU32::new(1),
            capacity: narrow_u32(shape.capacity),
            used: narrow_u32(HEADER_LEN + shape.slots * width),
            garbage: 0,
            len: 0,
            slots: narrow_u32(shape.slots),
            spills: 0,
        };
        // SAFETY: the memory is new, aligned to 8 and at least a header long. The slots are zeroed
        // because a tag scan loads sixteen bytes at a time, beyond those in use.
        unsafe {
            header.write(first);
            memory.add(HEADER_LEN).write_bytes(0, shape.slots * width);
        }
        Segment { header }
    }

    /// Frees the allocation and the references in its records.
    ///
    /// # Safety
    /// Nothing else has the segment, and it is not used again.
    #[cold]
    #[inline(never)]
    unsafe fn free(&mut self) {
        if self.header().spills > 0 {
            for slot in 0..self.len() {
                // SAFETY: the record is live and goes with the allocation; each is visited once.
                unsafe { drop_pointers(self.entry_at(slot)) };
            }
        }
        // SAFETY: as the caller promises.
        unsafe { self.free_memory() }
    }

    /// Frees the allocation alone. The references of its records have moved elsewhere.
    ///
    /// # Safety
    /// As for `free`. The static empty segment never gets here, because it holds a count of its own.
    unsafe fn free_memory(&mut self) {
        let shape = Shape { slots: 0, capacity: self.capacity() };
        // SAFETY: the capacity is the one that the memory was allocated with.
        unsafe { dealloc(self.header.as_ptr().cast(), shape.layout()) }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the header is initialised, and alive while this reference to it is counted.
        unsafe { self.header.as_ref() }
    }

    /// The header, mutable. Call it only after `is_unique`.
    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        debug_assert!(self.is_unique(), "a shared segment must not change");
        // SAFETY: `&mut self` is the only owner, so nobody reads the header meanwhile; the static
        // one is never unique.
        unsafe { self.header.as_mut() }
    }

    #[inline]
    fn memory(&self) -> *mut u8 {
        self.header.as_ptr().cast()
    }

    /// How many records there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.header().len as usize
    }

    /// The bytes of the allocation.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.header().capacity as usize
    }

    /// The bytes of the live records, payloads not counted.
    #[inline]
    pub(super) fn live_bytes(&self) -> usize {
        let header = self.header();
        (header.used - header.garbage) as usize - self.arena_start()
    }

    /// Where the allocation is.
    #[inline]
    pub(super) fn address(&self) -> usize {
        self.header.as_ptr().addr()
    }

    /// How many counted pointers the records hold.
    #[inline]
    pub(super) fn spills(&self) -> usize {
        self.header().spills as usize
    }

    /// Whether the segment is not shared, so that it may be changed in place.
    #[inline]
    pub(super) fn is_unique(&self) -> bool {
        // Acquire: pairs with the Release of an owner that has dropped it.
        self.header().refs.load(Ordering::Acquire) == 1
    }

    #[inline]
    fn is_wide(&self) -> bool {
        self.capacity() > NARROW_MAX
    }

    #[inline]
    fn slots(&self) -> usize {
        self.header().slots as usize
    }

    #[inline]
    fn arena_start(&self) -> usize {
        let width = if self.is_wide() { 5 } else { 3 };
        HEADER_LEN + self.slots() * width
    }

    #[inline]
    fn tags(&self) -> *mut u8 {
        // SAFETY: every allocation is at least a header long (the tags of EMPTY are its end).
        unsafe { self.memory().add(HEADER_LEN) }
    }

    #[inline]
    fn tag(&self, slot: usize) -> u8 {
        debug_assert!(slot < self.slots());
        // SAFETY: the slot is one of this segment's (private callers: checked by them).
        unsafe { self.tags().add(slot).read() }
    }

    /// The offset of a slot's record, from the start of the allocation.
    #[inline]
    fn offset(&self, slot: usize) -> usize {
        debug_assert!(slot < self.slots());
        // SAFETY: the slot is one of this segment's, and the offsets follow the tags.
        unsafe {
            let offsets = self.tags().add(self.slots());
            if self.is_wide() {
                offsets.cast::<u32>().add(slot).read_unaligned() as usize
            } else {
                offsets.cast::<u16>().add(slot).read_unaligned() as usize
            }
        }
    }

    #[inline]
    fn set_slot(&mut self, slot: usize, tag: u8, offset: usize) {
        debug_assert!(slot < self.slots() && offset < self.capacity());
        // SAFETY: the slot is one of this unique segment's; an offset is below the capacity, which
        // fits the width that it chose.
        unsafe {
            self.tags().add(slot).write(tag);
            let offsets = self.tags().add(self.slots());
            if self.is_wide() {
                offsets.cast::<u32>().add(slot).write_unaligned(offset as u32);
            } else {
                offsets.cast::<u16>().add(slot).write_unaligned(offset as u16);
            }
        }
    }

    /// # Safety
    /// `slot < self.len()`.
    #[inline]
    unsafe fn entry_at(&self, slot: usize) -> EntryRef<'_> {
        debug_assert!(slot < self.len());
        // SAFETY: a slot in use has the offset of a whole record.
        unsafe { EntryRef::new(self.memory().add(self.offset(slot))) }
    }

    /// The record of a slot.
    #[inline]
    pub(super) fn entry(&self, slot: usize) -> EntryRef<'_> {
        assert!(slot < self.len(), "the slot is in use");
        // SAFETY: just checked.
        unsafe { self.entry_at(slot) }
    }

    /// All records.
    #[inline]
    pub(super) fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        (0..self.len()).map(|slot| self.entry(slot))
    }

    /// A bit for each of the slots from `from` (a multiple of 16) on that has this tag.
    #[inline]
    fn matches(&self, from: usize, tag: u8) -> u32 {
        debug_assert!(from < self.len());
        // SAFETY: `from` is below `len`, so below `slots`, a multiple of 8; at least 8 tags follow,
        // and behind the last tag come at least 2 × 8 bytes of offsets: sixteen bytes can be read.
        let found = unsafe { match_tags(self.tags().add(from), tag) };
        let left = self.len() - from;
        if left < 16 { found & ((1 << left) - 1) } else { found }
    }

    /// The slot of a key.
    #[inline]
    pub(super) fn find(&self, tag: u8, key: &[u8]) -> Option<usize> {
        let mut from = 0;
        while from < self.len() {
            let mut found = self.matches(from, tag);
            while found != 0 {
                let slot = from + found.trailing_zeros() as usize;
                // SAFETY: `matches` gives slots in use only.
                if unsafe { self.entry_at(slot) }.key_is(key) {
                    return Some(slot);
                }
                found &= found - 1;
            }
            from += 16;
        }
        None
    }

    /// Prefetches the reference count.
    #[inline]
    pub(super) fn prefetch_count(&self) {
        prefetch_line(self.memory());
    }

    /// Prefetches the header and the slots.
    #[inline]
    pub(super) fn prefetch(&self) {
        for line in 0..3 {
            prefetch_line(self.memory().wrapping_add(line * 64));
        }
    }

    /// Prefetches the records that a look-up of this tag will read, or the place where a new one would be written.
    #[inline]
    pub(super) fn prefetch_record(&self, tag: u8) {
        let fetch = |offset: usize| {
            let record = self.memory().wrapping_add(offset);
            prefetch_line(record);
            prefetch_line(record.wrapping_add(64));
            // Where records are usually longer than a cache line, this one probably reaches into a third.
            if self.live_bytes() > self.len() * 64 {
                prefetch_line(record.wrapping_add(96));
            }
        };
        let (mut from, mut any) = (0, false);
        while from < self.len() {
            let mut found = self.matches(from, tag);
            while found != 0 {
                fetch(self.offset(from + found.trailing_zeros() as usize));
                (found, any) = (found & (found - 1), true);
            }
            from += 16;
        }
        if !any {
            fetch(self.header().used as usize);
        }
    }

    /// Copies a shared segment, so that it can be changed.
    #[inline]
    pub(super) fn make_unique(&mut self) {
        if !self.is_unique() {
            self.copy();
        }
    }

    #[cold]
    #[inline(never)]
    fn copy(&mut self) {
        if self.is_wide() || self.slots() == 0 {
            return self.rebuild(0, 0);
        }
        let used = self.header().used as usize;
        let mut copy = Segment::allocate(Shape { slots: self.slots(), capacity: round_capacity(used) });
        // SAFETY: both allocations hold `used` bytes (a narrow capacity is at least its rounded
        // `used`, and so is narrow itself), and are not the same one.
        unsafe {
            let from = self.memory().add(HEADER_LEN);
            from.copy_to_nonoverlapping(copy.memory().add(HEADER_LEN), used - HEADER_LEN);
        }
        let Header { used, garbage, len, spills, .. } = *self.header();
        let header = copy.header_mut();
        (header.used, header.garbage, header.len, header.spills) = (used, garbage, len, spills);
        self.clone_pointers();
        *self = copy;
    }

    /// Takes one more reference for each pointer in the records, on behalf of a copy.
    fn clone_pointers(&self) {
        if self.header().spills > 0 {
            for entry in self.entries() {
                // SAFETY: the record is alive in this segment.
                unsafe { clone_pointers(entry) };
            }
        }
    }

    /// Moves to another allocation of the same size, unless the segment is shared. Returns whether it has moved.
    pub(super) fn relocate(&mut self) -> bool {
        if !self.is_unique() {
            return false;
        }
        let new = Segment::allocate(Shape { slots: 0, capacity: self.capacity() });
        // SAFETY: both allocations have this capacity, which is at least `used`, and are distinct. The copied count
        // is one, which is right for the new one.
        unsafe { self.memory().copy_to_nonoverlapping(new.memory(), self.header().used as usize) };
        let mut old = ManuallyDrop::new(std::mem::replace(self, new));
        // SAFETY: this was the only owner, and the references of the records have moved along.
        unsafe { old.free_memory() };
        true
    }

    /// Makes the segment unique, with room for this many more slots and bytes.
    #[inline]
    fn reserve(&mut self, slots: usize, bytes: usize) {
        let fits = self.len() + slots <= self.slots() && self.header().used as usize + bytes <= self.capacity();
        if !fits || !self.is_unique() {
            self.rebuild(slots, bytes);
        }
    }

    /// Moves to a new allocation without holes, with room for this many more slots and bytes.
    /// Slots keep their numbers.
    #[cold]
    #[inline(never)]
    fn rebuild(&mut self, slots: usize, bytes: usize) {
        let live = self.live_bytes() + bytes;
        // Growth by about a tenth, including what the allocator rounds up: more costs memory, less costs moves.
        let (slack, spare) = if bytes == 0 { (0, 0) } else { ((live / 16).max(48), self.len() / 8) };
        let mut new = Segment::allocate(Shape::new(self.len() + slots + spare, live, slack));
        if self.header().garbage == 0 {
            new.append_arena(self);
        } else {
            for slot in 0..self.len() {
                new.append_record(self.tag(slot), self.entry(slot));
            }
        }
        self.hand_over();
        *self = new;
    }

    /// Takes all records of another segment at once; that segment has no holes. Their references are not counted yet:
    /// `hand_over` follows.
    fn append_arena(&mut self, from: &Segment) {
        let (start, used) = (from.arena_start(), from.header().used as usize);
        let to = self.header().used as usize;
        assert!(to + (used - start) <= self.capacity() && from.len() <= self.slots());
        // SAFETY: the source is the arena of `from`; the target has room, as just checked.
        unsafe {
            let target = self.memory().add(to);
            from.memory().add(start).copy_to_nonoverlapping(target, used - start);
        }
        if self.is_wide() || from.is_wide() {
            for slot in 0..from.len() {
                self.set_slot(slot, from.tag(slot), from.offset(slot) - start + to);
            }
        } else {
            // SAFETY: both have at least `from.len()` slots (asserted above), with u16 offsets;
            // an offset in the new place is below its capacity, so it fits too.
            unsafe {
                from.tags().copy_to_nonoverlapping(self.tags(), from.len());
                let old = from.tags().add(from.slots()).cast::<u16>();
                let new = self.tags().add(self.slots()).cast::<u16>();
                let shift = (to as u16).wrapping_sub(start as u16);
                for slot in 0..from.len() {
                    let offset = old.add(slot).read_unaligned();
                    new.add(slot).write_unaligned(offset.wrapping_add(shift));
                }
            }
        }
        let Header { len, spills, .. } = *from.header();
        let header = self.header_mut();
        (header.len, header.spills) = (len, spills);
        header.used += (used - start) as u32;
    }

    /// Copies one record in. Its references are not counted yet: `hand_over` follows.
    fn append_record(&mut self, tag: u8, entry: EntryRef<'_>) {
        let (slot, at, length) = (self.len(), self.header().used as usize, entry.len());
        assert!(slot < self.slots() && at + length <= self.capacity());
        // SAFETY: the source is a whole record of another segment; the target has room.
        unsafe { entry.record().copy_to_nonoverlapping(self.memory().add(at), length) };
        self.set_slot(slot, tag, at);
        let header = self.header_mut();
        header.len += 1;
        header.used += length as u32;
        header.spills += entry.spills();
    }

    /// Ends a move of all records to new segments. If this was the only owner, its references have moved along and
    /// only its memory is freed. Otherwise the copies take references of their own.
    fn hand_over(&mut self) {
        let mut old = ManuallyDrop::new(std::mem::replace(self, Segment::empty()));
        if old.is_unique() {
            // SAFETY: this is the only owner, and the copies own the records' references now.
            unsafe { old.free_memory() }
        } else {
            old.clone_pointers();
            drop(ManuallyDrop::into_inner(old));
        }
    }

    /// Adds a record of a key that the segment does not hold.
    #[inline]
    pub(super) fn insert(&mut self, tag: u8, key: &[u8], body: &Body<'_>, expiry: Option<u64>, access: u32) {
        let key_len = if key.len() > INLINE_KEY_MAX { POINTER_LEN } else { key.len() };
        let length = record_len(key_len, body.len(), expiry);
        self.reserve(1, length);
        let (slot, at) = (self.len(), self.header().used as usize);
        let mut flags = body.flags();
        // SAFETY: `reserve` made the segment unique, with room for `length` bytes at `at`.
        unsafe {
            let target = self.memory().add(at + HEAD_LEN);
            if key.len() > INLINE_KEY_MAX {
                flags |= FLAG_KEY_SPILLED;
                target.cast::<*const ()>().write_unaligned(SharedBytes::new(key).into_raw());
            } else {
                target.copy_from_nonoverlapping(key.as_ptr(), key.len());
            }
            write_head_and_value(self.memory().add(at), flags, key_len, body, expiry, access);
        }
        self.set_slot(slot, tag, at);
        // SAFETY: the record was just written.
        let spills = unsafe { EntryRef::new(self.memory().add(at)) }.spills();
        let header = self.header_mut();
        header.len += 1;
        header.used += length as u32;
        header.spills += spills;
    }

    /// Replaces value, expiry and access of a slot's record. Returns the old payload, if any.
    #[inline]
    pub(super) fn replace(&mut self, slot: usize, body: &Body<'_>, expiry: Option<u64>, access: u32) -> Option<Heap> {
        let entry = self.entry(slot);
        let (key_len, old_len) = (entry.key_len(), entry.len());
        let flags = body.flags() | entry.flags() & FLAG_KEY_SPILLED;
        let new_len = record_len(key_len, body.len(), expiry);
        if new_len > old_len {
            return self.replace_elsewhere(slot, body, expiry, access);
        }
        self.make_unique();
        let payload = self.take_payload(slot);
        // SAFETY: the segment is unique, and the record is long enough for the new one.
        unsafe {
            let record = self.memory().add(self.offset(slot));
            write_head_and_value(record, flags, key_len, body, expiry, access);
        }
        // The header and the slot are not written where they need no change: a store would delay the tag scan of the
        // next look-up.
        if body.is_spilled() {
            self.header_mut().spills += 1;
        }
        if new_len < old_len {
            self.header_mut().garbage += (old_len - new_len) as u32;
            self.compact_if_wasteful();
        }
        payload
    }

    /// Replaces a record by a longer one, at the end of the arena.
    #[inline(never)]
    fn replace_elsewhere(&mut self, slot: usize, body: &Body<'_>, expiry: Option<u64>, access: u32) -> Option<Heap> {
        let entry = self.entry(slot);
        let (key_len, old_len) = (entry.key_len(), entry.len());
        let flags = body.flags() | entry.flags() & FLAG_KEY_SPILLED;
        let new_len = record_len(key_len, body.len(), expiry);
        self.reserve(0, new_len);
        let payload = self.take_payload(slot);
        let (old_at, at, tag) = (self.offset(slot), self.header().used as usize, self.tag(slot));
        // SAFETY: the segment is unique, with room for `new_len` bytes at its end, which do not
        // overlap the old record. The key (or the pointer to it, with its reference) moves along.
        unsafe {
            let key = self.memory().add(old_at + HEAD_LEN);
            key.copy_to_nonoverlapping(self.memory().add(at + HEAD_LEN), key_len);
            let record = self.memory().add(at);
            write_head_and_value(record, flags, key_len, body, expiry, access);
        }
        self.set_slot(slot, tag, at);
        let header = self.header_mut();
        header.spills += u32::from(body.is_spilled());
        header.used += new_len as u32;
        header.garbage += old_len as u32;
        self.compact_if_wasteful();
        payload
    }

    /// Takes the payload out of a slot's record. The record must get a new value or be removed at once.
    #[inline]
    fn take_payload(&mut self, slot: usize) -> Option<Heap> {
        let entry = self.entry(slot);
        let raw = entry.value_pointer()?;
        // SAFETY: the pointer owns a reference to a payload of the record's kind; the caller overwrites the record or
        // drops its slot, so that the reference is not taken twice.
        let payload = unsafe { Heap::from_raw(entry.kind(), raw) };
        self.header_mut().spills -= 1;
        Some(payload)
    }

    /// Removes a slot's record. Returns its payload, if any. The last slot takes its number.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Heap> {
        self.make_unique();
        let payload = self.take_payload(slot);
        let entry = self.entry(slot);
        let (length, at) = (entry.len(), self.offset(slot));
        if let Some(raw) = entry.key_pointer() {
            // SAFETY: the record owns this reference and is removed right after.
            drop(unsafe { SharedBytes::from_raw(raw) });
            self.header_mut().spills -= 1;
        }
        let last = self.len() - 1;
        let (tag, offset) = (self.tag(last), self.offset(last));
        self.set_slot(slot, tag, offset);
        let header = self.header_mut();
        header.len -= 1;
        if at + length == header.used as usize {
            header.used -= length as u32;
        } else {
            header.garbage += length as u32;
        }
        if header.len == 0 {
            *self = Segment::empty();
        } else {
            self.compact_if_wasteful();
        }
        payload
    }

    /// Gives memory back after a removal when a quarter of the allocation is unused.
    #[inline]
    fn compact_if_wasteful(&mut self) {
        let header = self.header();
        let waste = (header.garbage + header.capacity - header.used) as usize;
        if header.garbage > 0 && waste > 96 && waste * 4 > self.capacity() {
            self.rebuild(0, 0);
        }
    }

    /// Gives back what holes take, if that makes the allocation smaller and no frozen view shares it. Eviction wants
    /// each removal to count at once.
    pub(super) fn compact(&mut self) {
        if self.header().garbage > 0 && self.is_unique() {
            let shape = Shape::new(self.len(), self.live_bytes(), 0);
            if shape.capacity < self.capacity() {
                self.rebuild(0, 0);
            }
        }
    }

    /// Sets or clears a record's expiry.
    pub(super) fn set_expiry(&mut self, slot: usize, expiry: Option<u64>) {
        let had = self.entry(slot).expiry().is_some();
        match (had, expiry) {
            (false, None) => return,
            (false, Some(_)) => self.lengthen(slot),
            (true, _) => self.make_unique(),
        }
        let entry = self.entry(slot);
        let flags = entry.flags() & !FLAG_EXPIRY;
        let at = HEAD_LEN + entry.key_len() + entry.value_len();
        let record = entry.record().cast_mut();
        // SAFETY: the segment is unique, and the record has room for the expiry: it had one, or
        // was just lengthened by it.
        unsafe {
            record.write(flags | if expiry.is_some() { FLAG_EXPIRY } else { 0 });
            if let Some(expiry) = expiry {
                write_expiry(record.add(at), expiry);
            }
        }
        if had && expiry.is_none() {
            self.header_mut().garbage += EXPIRY_LEN as u32;
        }
        self.compact_if_wasteful();
    }

    /// Moves a record without expiry to the end of the arena, with room for one behind it.
    fn lengthen(&mut self, slot: usize) {
        let old_len = self.entry(slot).len();
        self.reserve(0, old_len + EXPIRY_LEN);
        let (old_at, tag) = (self.offset(slot), self.tag(slot));
        let mut at = self.header().used as usize;
        let in_place = old_at + old_len == at;
        if in_place {
            at = old_at;
        } else {
            // SAFETY: the segment is unique; the room at its end was just reserved.
            unsafe {
                let record = self.memory().add(old_at);
                record.copy_to_nonoverlapping(self.memory().add(at), old_len);
            }
        }
        self.set_slot(slot, tag, at);
        let header = self.header_mut();
        header.used = narrow_u32(at + old_len + EXPIRY_LEN);
        header.garbage += if in_place { 0 } else { old_len as u32 };
    }

    /// Records an access unless the segment is shared, because that is not worth a copy.
    #[inline]
    pub(super) fn set_access(&mut self, slot: usize, access: u32) {
        if self.is_unique() {
            let record = self.entry(slot).record().cast_mut();
            // SAFETY: the segment is unique, and the access field is in every record's head.
            unsafe { write_access(record, access) };
        }
    }

    /// The growable string or large collection of a slot. It is copied first if it is shared (of a large collection,
    /// only the root). `None` for other kinds.
    pub(super) fn heap_mut(&mut self, slot: usize) -> Option<HeapMut<'_>> {
        let kind = self.entry(slot).kind();
        if kind != Kind::Raw && (kind as u8) < Kind::List as u8 {
            return None;
        }
        self.make_unique();
        let entry = self.entry(slot);
        let at = HEAD_LEN + entry.key_len();
        // SAFETY: records of these kinds hold the pointer of an `Arc` of the type named, in room that this
        // unique segment may write.
        unsafe {
            let place = entry.record().cast_mut().add(at).cast::<*const ()>();
            Some(match kind {
                Kind::Raw => HeapMut::Raw(make_payload_unique(place)),
                Kind::List => HeapMut::List(make_payload_unique(place)),
                Kind::Set => HeapMut::Set(make_payload_unique(place)),
                Kind::Hash => HeapMut::Hash(make_payload_unique(place)),
                Kind::Zset => HeapMut::Zset(make_payload_unique(place)),
                Kind::Stream => HeapMut::Stream(make_payload_unique(place)),
                _ => return None,
            })
        }
    }

    /// The map of the large collection of a slot, for optional changes; `None` if it has none, or if the collection
    /// or the segment is shared.
    pub(super) fn map_unshared(&mut self, slot: usize) -> Option<&mut Map> {
        if !self.is_unique() {
            return None;
        }
        let entry = self.entry(slot);
        let raw = entry.value_pointer()?;
        // SAFETY: records of these kinds hold the pointer of an `Arc` of the type named, and own its reference; the
        // segment is unique and borrowed for as long as the result, so that nobody gets at the record meanwhile.
        unsafe {
            match entry.kind() {
                Kind::Set => payload_unshared(raw).map(Set::map_mut),
                Kind::Hash => payload_unshared(raw).map(Hash::map_mut),
                Kind::Zset => payload_unshared(raw).map(Zset::map_mut),
                _ => None,
            }
        }
    }

    /// Moves sealed bytes outside the records that are sparse and unshared. Returns how many. A shared segment stays
    /// as it is.
    pub(super) fn relocate_strings(&mut self, is_sparse: fn(usize) -> bool) -> usize {
        let mut moved = 0;
        for slot in 0..if self.is_unique() { self.len() } else { 0 } {
            let pointers: smallvec::SmallVec<[(usize, *const ()); 2]> = self.entry(slot).string_pointers().collect();
            for (place, raw) in pointers.into_iter().filter(|(_, raw)| is_sparse(raw.addr())) {
                // SAFETY: the record, of a unique segment, has this pointer there, and owns its reference.
                unsafe {
                    let old = ManuallyDrop::new(SharedBytes::from_raw(raw));
                    if old.strong_count() == 1 {
                        let new = SharedBytes::new(&old).into_raw();
                        self.memory().add(self.offset(slot) + place).cast::<*const ()>().write_unaligned(new);
                        drop(ManuallyDrop::into_inner(old));
                        moved += 1;
                    }
                }
            }
        }
        moved
    }

    /// Keeps the records for which `goes_high` is false, and returns the others in a segment of their own.
    pub(super) fn split(&mut self, goes_high: impl Fn(&[u8]) -> bool) -> Segment {
        let mut sides: smallvec::SmallVec<[bool; 128]> = smallvec::SmallVec::new();
        let (mut counts, mut bytes) = ([0; 2], [0; 2]);
        for entry in self.entries() {
            let high = goes_high(entry.key());
            counts[usize::from(high)] += 1;
            bytes[usize::from(high)] += entry.len();
            sides.push(high);
        }
        if counts[1] == 0 {
            return Segment::empty();
        }
        if counts[0] == 0 {
            return std::mem::replace(self, Segment::empty());
        }
        let mut low = Segment::allocate(Shape::new(counts[0], bytes[0], 0));
        let mut high = Segment::allocate(Shape::new(counts[1], bytes[1], 0));
        for (slot, &goes_high) in sides.iter().enumerate() {
            let side = if goes_high { &mut high } else { &mut low };
            side.append_record(self.tag(slot), self.entry(slot));
        }
        self.hand_over();
        *self = low;
        high
    }

    /// Takes in all records of another segment.
    pub(super) fn merge(&mut self, mut other: Segment) {
        if other.len() == 0 {
            return;
        }
        if self.len() == 0 {
            *self = other;
            return;
        }
        let bytes = self.live_bytes() + other.live_bytes();
        let mut both = Segment::allocate(Shape::new(self.len() + other.len(), bytes, 0));
        for segment in [&*self, &other] {
            for slot in 0..segment.len() {
                both.append_record(segment.tag(slot), segment.entry(slot));
            }
        }
        self.hand_over();
        other.hand_over();
        *self = both;
    }

    /// The earliest expiry of all records, and of the elements of the collections in them.
    pub(super) fn earliest_expiry(&self) -> Option<u64> {
        self.entries().flat_map(|entry| entry.expiry().into_iter().chain(entry.value_expiry())).min()
    }

    /// Checks all invariants in this file's header.
    ///
    /// # Panics
    /// If one is broken.
    pub(super) fn check_invariants(&self, tag_of: impl Fn(&[u8]) -> u8) {
        let header = self.header();
        assert!(header.refs.load(Ordering::Acquire) >= 1, "somebody owns the segment");
        assert!(header.len <= header.slots && header.slots.is_multiple_of(8), "the slots hold the records");
        assert!(header.used <= header.capacity, "the arena ends inside the allocation");
        let (mut live, mut spills) = (0, 0);
        let mut places = Vec::with_capacity(self.len());
        for slot in 0..self.len() {
            let at = self.offset(slot);
            assert!(at >= self.arena_start() && at + HEAD_LEN <= header.used as usize);
            let entry = self.entry(slot);
            assert!(at + entry.len() <= header.used as usize, "a record ends inside the arena");
            assert_eq!(self.tag(slot), tag_of(entry.key()), "a tag is its key's");
            let spilled = entry.flags() & FLAG_VALUE_SPILLED != 0;
            match entry.value() {
                ValueRef::Int(_) => assert!(!spilled && entry.value_len() == 8),
                ValueRef::Str(bytes) | ValueRef::Packed(_, bytes) => {
                    assert_eq!(spilled, bytes.len() > INLINE_VALUE_MAX);
                    assert!(bytes.share().is_none_or(|bytes| bytes.strong_count() >= 2));
                }
                _ => assert!(spilled),
            }
            assert_eq!(entry.key_pointer().is_some(), entry.key().len() > INLINE_KEY_MAX);
            live += entry.len();
            spills += entry.spills();
            places.push((at, at + entry.len()));
        }
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "records do not overlap");
        assert_eq!(live, self.live_bytes(), "what is not live is garbage");
        assert_eq!(spills, header.spills, "every pointer is counted");
    }
}

/// The payload behind the pointer at `place`, made unique.
///
/// # Safety
/// `place` holds the pointer of an `Arc<T>` and owns its reference; it may be written, and both outlive `'a`.
unsafe fn make_payload_unique<'a, T: Clone>(place: *mut *const ()) -> &'a mut T {
    // SAFETY: the reference is looked at, and given back by the write below; should the copy panic, the place
    // still holds what it held, for `ManuallyDrop` drops nothing.
    unsafe {
        let mut payload = ManuallyDrop::new(Arc::<T>::from_raw(place.read_unaligned().cast()));
        let unique: *mut T = Arc::make_mut(&mut payload);
        place.write_unaligned(Arc::into_raw(ManuallyDrop::into_inner(payload)).cast());
        &mut *unique
    }
}

/// The payload behind a pointer, if it is not shared.
///
/// # Safety
/// `raw` is the pointer of an `Arc<T>`, whose owner keeps the reference and lets nobody else use it during `'a`.
unsafe fn payload_unshared<'a, T>(raw: *const ()) -> Option<&'a mut T> {
    // SAFETY: the reference is only looked at: `ManuallyDrop` never gives it back. The payload lives on the heap for as
    // long as the reference, which is `'a`.
    unsafe {
        let mut payload = ManuallyDrop::new(Arc::<T>::from_raw(raw.cast()));
        let unique: *mut T = Arc::get_mut(&mut payload)?;
        Some(&mut *unique)
    }
}

/// A bit for each of sixteen tags that equals `tag`.
///
/// # Safety
/// Sixteen bytes can be read at `tags`.
#[inline]
unsafe fn match_tags(tags: *const u8, tag: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86_64; the load is unaligned and inside what the caller vouches for.
    unsafe {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        let group = _mm_loadu_si128(tags.cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8(tag as i8))) as u32
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as the caller promises.
    unsafe {
        match_tags_portable(&tags.cast::<[u8; 16]>().read(), tag)
    }
}

/// The same without SIMD.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn match_tags_portable(tags: &[u8; 16], tag: u8) -> u32 {
    tags.iter().enumerate().fold(0, |bits, (at, &each)| bits | u32::from(each == tag) << at)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Form, NewValue};
    use super::*;

    #[test]
    fn the_tag_scan_without_simd_finds_the_same() {
        let mut tags = [0; 16];
        for round in 0..1000_u32 {
            for (at, tag) in tags.iter_mut().enumerate() {
                *tag = (round.wrapping_mul(2_654_435_761) >> at) as u8 & 3 | 0x80;
            }
            for tag in 0x80..0x84 {
                // SAFETY: the array is sixteen bytes.
                let found = unsafe { match_tags(tags.as_ptr(), tag) };
                assert_eq!(found, match_tags_portable(&tags, tag));
            }
        }
    }

    #[test]
    fn capacities_fit_what_the_allocator_hands_out() {
        for bytes in 0..3000 {
            let Shape { slots, capacity } = Shape::new(bytes / 50, bytes, 0);
            assert!(capacity >= HEADER_LEN + slots * 3 + bytes && capacity == usable_size(capacity));
        }
        let narrow = NARROW_MAX - HEADER_LEN - 24;
        assert_eq!(Shape::new(8, narrow, 9999).capacity, NARROW_MAX);
        assert!(Shape::new(8, narrow + 1, 0).capacity > NARROW_MAX);
    }

    #[test]
    fn a_long_key_is_freed_with_the_last_record_of_it() {
        let mut segment = Segment::empty();
        let number = Body { kind: Kind::Int, form: Form::Int(5) };
        segment.insert(1, &[b'k'; 500], &number, None, 0);
        let raw = segment.entry(0).key_pointer().expect("the key is long");
        // SAFETY: the record, which is alive, owns a reference to its key.
        let key = match unsafe { Heap::clone_raw(Kind::Str, raw) } {
            Heap::Str(key) => key,
            other => panic!("{other:?} is no key"),
        };
        let frozen = segment.clone();
        assert_eq!(key.strong_count(), 2);
        assert!(segment.replace(0, &number, Some(9), 0).is_none());
        assert_eq!(key.strong_count(), 3, "the copy has a reference of its own");
        assert!(segment.remove(0).is_none());
        assert_eq!(key.strong_count(), 2);
        drop(frozen);
        assert_eq!(key.strong_count(), 1);
    }

    #[test]
    fn a_segment_that_moves_keeps_its_records_and_their_references() {
        let (key, long) = ([b'k'; 500], SharedBytes::new(&[7; 500]));
        let mut segment = Segment::empty();
        assert!(!segment.relocate(), "the empty segment stays");
        for number in 0..20_u8 {
            let value = [number; 30];
            segment.insert(number, &[number], &Body { kind: Kind::Str, form: Form::Inline(&value) }, Some(9), 5);
        }
        NewValue::Shared(long.clone()).with_body(|body| segment.insert(b'k', &key, &body, None, 0));
        assert!(segment.remove(3).is_none());
        assert!(segment.header().garbage > 0, "a hole moves along");
        let look = |segment: &Segment| segment.entries().map(|entry| format!("{entry:?}")).collect::<Vec<_>>();
        let (before, address, capacity) = (look(&segment), segment.address(), segment.capacity());

        let frozen = segment.clone();
        assert!(!segment.relocate() && segment.address() == address, "a shared segment stays");
        drop(frozen);
        assert!(segment.relocate() && segment.address() != address);
        assert_eq!((look(&segment), segment.capacity(), long.strong_count()), (before, capacity, 2));
        assert!(segment.is_unique() && segment.find(b'k', &key).is_some());
        // It can be changed as before, and frees everything with it.
        segment.insert(b'c', b"c", &Body { kind: Kind::Int, form: Form::Int(1) }, None, 0);
        segment.check_invariants(|key| key[0]);
        assert_eq!((segment.len(), segment.spills()), (21, 2));
        drop(segment);
        assert_eq!(long.strong_count(), 1);
    }

    #[test]
    fn the_empty_segment_is_never_unique_and_never_freed() {
        for _ in 0..100 {
            let segment = Segment::empty();
            assert!(!segment.is_unique() && !segment.clone().is_unique());
        }
        assert!(EMPTY.refs.load(Ordering::Relaxed) >= 1);
    }
}
