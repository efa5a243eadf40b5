//! Random entries of a directory.

use std::sync::atomic::Ordering;

use super::super::entry::EntryRef;
use super::{Directory, NEVER};

impl Directory {
    /// A nearly uniform random entry. `random` is the source of all choices.
    pub fn random(&self, random: u64) -> Option<EntryRef<'_>> {
        const TRIES: usize = 128;
        if self.len == 0 {
            return None;
        }
        let mut state = random;
        let spread = 4 * self.len.div_ceil(self.segments.len()) + 16;
        for _ in 0..TRIES {
            let segment = &self.segments[below(&mut state, self.segments.len())];
            // Rejection gives every record the same chance, except in segments more than four times as full as the
            // mean.
            let slot = below(&mut state, spread);
            if segment.len() > spread {
                return Some(segment.entry(below(&mut state, segment.len())));
            }
            if slot < segment.len() {
                return Some(segment.entry(slot));
            }
        }
        let start = below(&mut state, self.segments.len());
        let round = self.segments[start..].iter().chain(&self.segments[..start]);
        let segment = round.into_iter().find(|segment| segment.len() > 0)?;
        Some(segment.entry(below(&mut state, segment.len())))
    }

    /// A random entry with an expiry: the first behind a random place. This is not uniform, but it finds one among
    /// many entries without expiry.
    pub fn random_volatile(&self, random: u64) -> Option<EntryRef<'_>> {
        if self.volatile == 0 {
            return None;
        }
        let mut state = random;
        let start = below(&mut state, self.segments.len());
        let round = (start..self.segments.len()).chain(0..start);
        let may_expire = |at: &usize| self.bounds[*at].load(Ordering::Relaxed) != NEVER;
        round.filter(may_expire).find_map(|at| {
            let segment = &self.segments[at];
            let first = below(&mut state, segment.len().max(1));
            let slots = (first..segment.len()).chain(0..first.min(segment.len()));
            slots.map(|slot| segment.entry(slot)).find(|entry| entry.expiry().is_some())
        })
    }

    /// A random key that may be evicted, of all keys or of those with an expiry. Where most are protected it is not a
    /// uniform one, but it finds one if there is any.
    pub fn random_evictable(&self, random: u64, volatile_only: bool) -> Option<EntryRef<'_>> {
        const TRIES: u32 = 8;
        let draw = |random: u64| if volatile_only { self.random_volatile(random) } else { self.random(random) };
        let Some(index) = &self.blessed else { return draw(random) };
        let (all, kept) = if volatile_only { (self.volatile, index.volatile) } else { (self.len, index.len) };
        if kept >= all {
            return None;
        }
        let may_go =
            |entry: &EntryRef<'_>| (!volatile_only || entry.expiry().is_some()) && !self.is_blessed_entry(*entry);
        let drawn = (0..TRIES).find_map(|shift| draw(random.rotate_left(shift * 8)).filter(may_go));
        drawn.or_else(|| {
            let start = below(&mut { random }, self.segments.len());
            let round = self.segments[start..].iter().chain(&self.segments[..start]);
            round.flat_map(|segment| segment.entries()).find(may_go)
        })
    }
}

/// A number below `end`, from a SplitMix64 stream.
#[inline]
pub(super) fn below(state: &mut u64, end: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    ((u128::from(mixed) * end as u128) >> 64) as usize
}
