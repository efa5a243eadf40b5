//! The large form of hashes and sets, and of sorted sets by member: a map of byte strings to values.
//!
//! It is made of [`Directory`]s, the same packed copy-on-write segments that hold keys. A small map is one directory.
//! From `PARTED_LEN` members on it becomes `PARTS` directories, chosen by the top bits of the hash. A clone and the
//! first change after it then copy little: a few hundred counted pointers, and those of one part. Parts are added one
//! by one, by linear hashing as in a directory, because parting a map at once would take most of a millisecond.
//!
//! Invariants:
//! - There are 1 to `PARTS` parts, and their number never falls. Every member is in the part of its hash.
//! - `len` is the sum over the parts.

use triomphe::Arc;

use super::directory::{Budget, Directory, Displaced, POSITION_BITS, Position};
use super::entry::{EntryRef, NewValue};
use crate::base::hash::HashSeed;

/// How many parts a map of many members has; a power of two.
const PARTS: usize = 128;
const PART_BITS: u32 = PARTS.trailing_zeros();
/// The top bits of a hash choose its part.
const PART_SHIFT: u32 = u64::BITS - PART_BITS;
/// From this many members on, a map is parted,
const PARTED_LEN: usize = 2048;
/// until its parts have this many each, or all parts exist.
const PART_LEN: usize = 32;

/// See the module. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Map {
    parts: Vec<Arc<Directory>>,
    len: usize,
    seed: HashSeed,
}

impl Map {
    /// An empty map, laid out by `seed`.
    pub fn new(seed: HashSeed) -> Map {
        Map::with_capacity(seed, 0)
    }

    /// An empty map with the form for this many members.
    pub fn with_capacity(seed: HashSeed, len: usize) -> Map {
        // As many parts as a map that has grown to this size. Otherwise the first insert would part everything
        // loaded, and a scan that began earlier would continue in other parts.
        let parts = if len > PARTED_LEN { (len - 1) / PART_LEN + 1 } else { 1 }.min(PARTS);
        let part = |_| Arc::new(Directory::with_capacity(seed, len / parts, 0));
        Map { parts: (0..parts).map(part).collect(), len: 0, seed }
    }

    /// How many members there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many members have an expiry.
    pub fn volatile_len(&self) -> usize {
        self.parts.iter().map(|part| part.volatile_len()).sum()
    }

    /// A lower bound of the members' expiries, Unix ms; `None` if none expires.
    pub fn earliest_expiry(&self) -> Option<u64> {
        self.parts.iter().filter_map(|part| part.earliest_expiry()).min()
    }

    /// An estimate of the bytes that it takes, without reading its segments.
    pub fn bytes(&self) -> usize {
        const PER_MEMBER_BYTES: usize = 6;
        let live: usize = self.parts.iter().map(|part| part.live_bytes()).sum();
        live + self.len * PER_MEMBER_BYTES + self.parts.len() * size_of::<Directory>()
    }

    /// The bytes that its segments take, read one by one; payloads outside them are not counted.
    pub fn memory(&self) -> usize {
        self.parts.iter().map(|part| part.memory()).sum()
    }

    #[inline]
    fn part(&self, hash: u64) -> usize {
        let (at, parts) = ((hash >> PART_SHIFT) as usize, self.parts.len());
        if parts == PARTS {
            return at;
        }
        let mask = parts.next_power_of_two() - 1;
        if at & mask < parts { at & mask } else { at & (mask >> 1) }
    }

    /// The entry of a member.
    #[inline]
    pub fn get(&self, member: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.seed.hash(member);
        self.parts[self.part(hash)].get(hash, member)
    }

    /// Whether there is such a member.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        self.get(member).is_some()
    }

    /// Prefetches the segment of a member's hash. Call it some time before `prefetch_record`.
    #[inline]
    pub fn prefetch_segment(&self, hash: u64) {
        self.parts[self.part(hash)].prefetch_segment(hash);
    }

    /// Prefetches the record of a member's hash. Call it some time before the look-up.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) {
        self.parts[self.part(hash)].prefetch_record(hash);
    }

    /// Stores a member with its value and expiry (Unix ms). Returns what it displaced.
    #[inline]
    pub fn set(&mut self, member: &[u8], value: NewValue<'_>, expiry: Option<u64>) -> Option<Displaced> {
        if self.parts.len() < PARTS && self.len >= PARTED_LEN.max(self.parts.len() * PART_LEN) {
            self.part_up();
        }
        let hash = self.seed.hash(member);
        let part = self.part(hash);
        let displaced = Arc::make_mut(&mut self.parts[part]).set(hash, member, value, expiry, 0);
        self.len += usize::from(displaced.is_none());
        displaced
    }

    /// Stores a member unless it exists. Returns whether it is new.
    #[inline]
    pub fn insert(&mut self, member: &[u8], value: NewValue<'_>) -> bool {
        if self.contains(member) {
            return false;
        }
        let _ = self.set(member, value, None);
        true
    }

    /// Sets or clears a member's expiry; false if there is no such member.
    pub fn set_expiry(&mut self, member: &[u8], expiry: Option<u64>) -> bool {
        let hash = self.seed.hash(member);
        let part = self.part(hash);
        Arc::make_mut(&mut self.parts[part]).set_expiry(hash, member, expiry)
    }

    /// Removes a member. Returns what it held, or `None` if it did not exist.
    pub fn remove(&mut self, member: &[u8]) -> Option<Displaced> {
        let hash = self.seed.hash(member);
        let part = self.part(hash);
        self.parts[part].find(hash, member)?;
        let removed = Arc::make_mut(&mut self.parts[part]).remove(hash, member)?;
        self.len -= 1;
        Some(removed)
    }

    /// How many members have expired at `now` (Unix ms).
    pub fn expired_len(&self, now: u64) -> usize {
        self.parts.iter().map(|part| part.expired_len(now)).sum()
    }

    /// All members, in no order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// A nearly uniform random member. `random` is the source of all choices.
    pub fn random(&self, random: u64) -> Option<EntryRef<'_>> {
        if self.is_empty() {
            return None;
        }
        // A part is chosen in proportion to its members.
        let mut at = ((u128::from(random) * self.len as u128) >> 64) as usize;
        let part = self.parts.iter().find(|part| {
            let here = at < part.len();
            at = at.wrapping_sub(if here { 0 } else { part.len() });
            here
        });
        part?.random(random.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ random.rotate_left(32))
    }

    /// Visits about `budget` members from a position on. Returns the next position, or `None` at the end. Positions
    /// begin at 0 and are below 2^[`Map::POSITION_BITS`].
    ///
    /// Every member that exists from the first call to the last is visited at least once, even if the map is parted
    /// in between.
    pub fn scan(&self, position: u64, budget: usize, visit: &mut dyn FnMut(EntryRef<'_>)) -> Option<u64> {
        let (mut part, mut within) = ((position >> POSITION_BITS) as usize, position & ((1 << POSITION_BITS) - 1));
        if part >= self.parts.len() {
            // The map had more parts when the scan began: start again.
            (part, within) = (0, 0);
        }
        let mut visited = 0;
        while let Some(directory) = self.parts.get(part) {
            let mut count = 0;
            // A part added since the scan began comes after all others, so that some members are visited again.
            let next = directory.scan(within, budget - visited, &mut |entry| {
                count += 1;
                visit(entry);
            });
            visited += count;
            (part, within) = match next {
                Some(next) => (part, next),
                None => (part + 1, 0),
            };
            if visited >= budget && part < self.parts.len() {
                return Some((part as u64) << POSITION_BITS | within);
            }
        }
        None
    }

    /// The same with a cursor as clients see it: 0 at the beginning and at the end.
    pub fn scan_cursor(&self, cursor: u64, budget: usize, visit: &mut dyn FnMut(EntryRef<'_>)) -> u64 {
        // A position is zero only at the beginning, so it can serve as the cursor.
        self.scan(cursor & ((1 << Map::POSITION_BITS) - 1), budget, visit).unwrap_or(0)
    }

    /// The number of bits of a scan's position.
    pub const POSITION_BITS: u32 = POSITION_BITS + PART_BITS;

    /// Adds up to `limit` members that have expired at `now` (Unix ms) to `out`; the caller removes them.
    pub fn collect_expired(&self, now: u64, limit: usize, out: &mut Vec<super::directory::ExpiredKey>) {
        for part in &self.parts {
            let left = limit.saturating_sub(out.len());
            part.collect_expired(now, left, out);
        }
    }

    /// Moves sparse segments, from a part and a segment in it on: see [`Directory::relocate`]. Returns the part and
    /// the segment where the next step continues, or `None` at the end. A part that a clone shares stays where it is.
    pub(super) fn relocate(
        &mut self,
        from: (usize, usize),
        budget: &mut Budget,
        is_sparse: fn(usize) -> bool,
    ) -> Option<(usize, usize)> {
        let (mut part, mut segment) = from;
        while let Some(directory) = self.parts.get_mut(part) {
            if budget.is_spent() {
                return Some((part, segment));
            }
            if let Some(directory) = Arc::get_mut(directory)
                && let Some(next) = directory.relocate(Position::at(segment), budget, is_sparse)
            {
                return Some((part, next.segment()));
            }
            // Counted afterwards, so that even the smallest budget makes progress.
            budget.look(1);
            (part, segment) = (part + 1, 0);
        }
        None
    }

    /// Where its segments are.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<usize> {
        self.parts.iter().flat_map(|part| part.addresses()).collect()
    }

    /// How many of them are empty.
    #[cfg(test)]
    pub(super) fn empty_segments(&self) -> usize {
        self.parts.iter().map(|part| part.empty_segments()).sum()
    }

    /// Adds one part and moves its members to it.
    #[cold]
    fn part_up(&mut self) {
        let new = self.parts.len();
        let bit = 1 << new.ilog2();
        self.parts.reserve_exact(PARTS - new);
        let part = Arc::make_mut(&mut self.parts[new - bit]).split_off((bit as u64) << PART_SHIFT);
        self.parts.push(Arc::new(part));
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        assert!((1..=PARTS).contains(&self.parts.len()));
        assert_eq!(self.len, self.parts.iter().map(|part| part.len()).sum::<usize>());
        for (at, part) in self.parts.iter().enumerate() {
            part.check_invariants();
            assert!(part.iter().all(|entry| self.part(self.seed.hash(entry.key())) == at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::value::ValueRef;

    const SEED: HashSeed = HashSeed(*b"seed of the test");

    fn int(entry: EntryRef<'_>) -> i64 {
        match entry.value() {
            ValueRef::Int(number) => number,
            other => panic!("{other:?}"),
        }
    }

    fn fill(map: &mut Map, members: i64) {
        for number in 0..members {
            assert!(map.insert(format!("m{number}").as_bytes(), NewValue::Int(number)));
        }
    }

    #[test]
    fn a_map_is_parted_as_it_grows_and_keeps_everything() {
        let mut map = Map::new(SEED);
        fill(&mut map, PARTED_LEN as i64);
        assert_eq!(map.parts.len(), 1);
        for number in PARTED_LEN as i64..10_000 {
            let parts = map.parts.len();
            assert!(map.insert(format!("m{number}").as_bytes(), NewValue::Int(number)));
            assert!(map.parts.len() <= parts + 1, "an insert moves no more than one part");
            if number % 500 == 0 {
                map.check_invariants();
            }
        }
        map.check_invariants();
        assert_eq!((map.len(), map.parts.len()), (10_000, PARTS));
        assert!((0..10_000).all(|number| int(map.get(format!("m{number}").as_bytes()).unwrap()) == number));
        let frozen = map.clone();
        for number in 0..10_000 {
            assert!(map.remove(format!("m{number}").as_bytes()).is_some());
        }
        assert!(map.is_empty() && map.random(7).is_none());
        assert_eq!(frozen.iter().count(), 10_000);
    }

    #[test]
    fn a_scan_sees_all_that_stays_although_the_map_is_parted_meanwhile() {
        let mut map = Map::new(SEED);
        fill(&mut map, 1900);
        let (mut seen, mut position, mut calls) = (BTreeSet::new(), Some(0), 0);
        while let Some(at) = position {
            position = map.scan(at, 50, &mut |entry| {
                seen.insert(int(entry));
            });
            calls += 1;
            for number in 0..100 {
                map.insert(format!("new{calls}.{number}").as_bytes(), NewValue::Int(-1));
            }
        }
        assert!((0..1900).all(|number| seen.contains(&number)));
        assert!(calls > 30 && map.parts.len() == PARTS, "{calls}");
    }

    #[test]
    fn a_loaded_map_has_the_parts_of_one_that_has_grown() {
        // Just above `PARTED_LEN`, a grown map is still adding parts, one with each insert.
        for len in [1, 100, 2048, 2200, 3000, 3001, 4095, 4096, 5000] {
            let mut grown = Map::new(SEED);
            fill(&mut grown, len);
            let mut loaded = Map::with_capacity(SEED, len as usize);
            let parts = loaded.parts.len();
            fill(&mut loaded, len);
            loaded.check_invariants();
            assert_eq!((parts, loaded.parts.len()), (grown.parts.len(), parts), "{len}");
        }
    }

    #[test]
    fn a_scan_of_more_parts_than_there_are_begins_again() {
        let mut map = Map::new(SEED);
        fill(&mut map, 3);
        let mut seen = 0;
        assert_eq!(map.scan(5 << POSITION_BITS | 7, 10, &mut |_| seen += 1), None);
        assert_eq!(seen, 3);
    }

    #[test]
    fn every_member_has_its_chance() {
        let mut map = Map::new(SEED);
        fill(&mut map, 6000);
        let mut seen = BTreeSet::new();
        let mut random = crate::base::random::Random::from_seed(7);
        for _ in 0..60_000 {
            seen.insert(int(map.random(random.next_u64()).unwrap()));
        }
        assert!(seen.len() > 5900, "{}", seen.len());
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_map_does(edits in prop::collection::vec((0u16..300, any::<Option<i64>>()), 1..400)) {
            let (mut map, mut model) = (Map::new(SEED), BTreeMap::new());
            for (key, value) in edits {
                let member = key.to_le_bytes();
                match value {
                    Some(number) => {
                        let displaced = map.set(&member, NewValue::Int(number), None);
                        prop_assert_eq!(displaced.is_some(), model.insert(member, number).is_some());
                    }
                    None => prop_assert_eq!(map.remove(&member).is_some(), model.remove(&member).is_some()),
                }
                prop_assert_eq!(map.len(), model.len());
            }
            map.check_invariants();
            let all: BTreeMap<_, _> = map.iter().map(|e| (<[u8; 2]>::try_from(e.key()).unwrap(), int(e))).collect();
            prop_assert_eq!(all, model);
        }
    }
}
