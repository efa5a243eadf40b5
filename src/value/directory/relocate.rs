//! Moving segments, and the sealed bytes of their records, out of sparse slabs, a few at a time.
//!
//! The allocator's slabs become sparse as segments grow out of one size class into the next. What still lives in such
//! a slab keeps all of it; once moved elsewhere, the slab can be given back.
//!
//! A walk looks at all segments in turn, and before each at what its records point to: strings and small collections,
//! which move together, and the segments inside large collections:
//!
//! ```text
//! Position { segment, map, part, inner }
//!            │        │    │     └ a segment of that part
//!            │        │    └ a part of the next map
//!            │        └ how many of the maps in its records are done; MAPS_DONE if only the segment itself is left
//!            └ a segment of the directory
//! ```
//!
//! Invariants:
//! - What anyone shares (segment, part, collection) stays where it is.
//! - Nothing but addresses changes: no content, no count, no order.
//! - Whatever has changed since a position was given, to go on from there is safe: at worst the walk passes over
//!   something until the next one.
//! - Where no record points to anything, a segment that is not sparse is not touched beyond its header.
//! - A walk gets on with any budget that is not spent, and exceeds none by more than what one segment points to.

use super::Directory;
use crate::value::segment::Segment;

/// All maps of a segment are done.
const MAPS_DONE: usize = usize::MAX;
/// So many records are looked at for the price of one look at a segment.
const RECORDS_PER_LOOK: usize = 8;
/// So many segments ahead, a header is fetched where it will be read.
const AHEAD: usize = 8;

/// Where a walk goes on; the default is where it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    segment: usize,
    map: usize,
    part: usize,
    inner: usize,
}

impl Position {
    /// The beginning of a segment.
    pub(in crate::value) fn at(segment: usize) -> Position {
        Position { segment, ..Position::default() }
    }

    /// The segment of the directory.
    pub(in crate::value) fn segment(&self) -> usize {
        self.segment
    }
}

/// How much a walk may do before it pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many segments may be looked at. Maps, their parts and the records of a segment count as well.
    pub looks: usize,
    /// How many segments, or strings of theirs, may be moved.
    pub moves: usize,
}

impl Budget {
    /// Whether the walk must pause.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.looks == 0 || self.moves == 0
    }

    /// Takes so many looks off.
    #[inline]
    pub fn look(&mut self, times: usize) {
        self.looks = self.looks.saturating_sub(times);
    }
}

impl Directory {
    /// Moves segments that are unshared and sparse, and those inside the large collections held here, from a position
    /// on, until the budget is spent; gives the position to go on from, or `None` at the end.
    ///
    /// `is_sparse` says of an address whether what is allocated there should be moved.
    pub fn relocate(&mut self, from: Position, budget: &mut Budget, is_sparse: fn(usize) -> bool) -> Option<Position> {
        let mut at = from;
        while at.segment < self.segments.len() {
            if budget.is_spent() {
                return Some(at);
            }
            if let Some(ahead) = self.segments.get(at.segment + AHEAD) {
                ahead.prefetch_count();
            }
            let segment = &mut self.segments[at.segment];
            if segment.spills() > 0 {
                at = relocate_maps(segment, at, budget, is_sparse);
                if budget.is_spent() {
                    return Some(at);
                }
                budget.moves = budget.moves.saturating_sub(segment.relocate_strings(is_sparse));
            }
            if is_sparse(segment.address()) && segment.relocate() {
                budget.moves = budget.moves.saturating_sub(1);
            }
            budget.look(1);
            at = Position::at(at.segment + 1);
        }
        None
    }

    /// Where the segments are.
    #[cfg(test)]
    pub(in crate::value) fn addresses(&self) -> Vec<usize> {
        self.segments.iter().map(Segment::address).collect()
    }

    /// How many of them are empty.
    #[cfg(test)]
    pub(in crate::value) fn empty_segments(&self) -> usize {
        self.segments.iter().filter(|segment| segment.len() == 0).count()
    }
}

/// Does the same inside the maps that the records of a segment hold. Gives the position to go on from, in this segment.
fn relocate_maps(segment: &mut Segment, from: Position, budget: &mut Budget, is_sparse: fn(usize) -> bool) -> Position {
    let done = Position { map: MAPS_DONE, part: 0, inner: 0, ..from };
    // What is in a shared segment is shared.
    if from.map == MAPS_DONE || !segment.is_unique() {
        return done;
    }
    let (mut at, mut met) = (from, 0);
    for slot in 0..segment.len() {
        if !segment.entry(slot).kind().has_map() {
            continue;
        }
        met += 1;
        if met <= at.map {
            continue;
        }
        if budget.is_spent() {
            return at;
        }
        if let Some(map) = segment.map_unshared(slot)
            && let Some((part, inner)) = map.relocate((at.part, at.inner), budget, is_sparse)
        {
            return Position { part, inner, ..at };
        }
        budget.look(1);
        at = Position { map: met, part: 0, inner: 0, ..at };
    }
    budget.look(segment.len() / RECORDS_PER_LOOK);
    done
}

#[cfg(test)]
#[path = "relocate_tests.rs"]
pub(crate) mod tests;
