//! Moves segments, and the sealed bytes of their records, out of sparse slabs, a few at a time.
//!
//! The allocator's slabs become sparse as segments grow from one size class into the next. The blocks left in such a
//! slab keep all of it in use. Once they are moved, the slab can be given back.
//!
//! A walk visits all segments in turn. Before each segment it visits what the records point to: strings and small
//! collections, which move together, and the segments inside large collections:
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
//! - Anything shared (segment, part, collection) stays where it is.
//! - Nothing but addresses changes: no content, no count, no order.
//! - Continuing from a position is safe, whatever has changed since. At worst the walk skips something until the next
//!   walk.
//! - If no record points to anything, only the header of a segment that is not sparse is touched.
//! - A walk makes progress with any budget that is not spent, and exceeds it at most by what one segment points to.

use super::Directory;
use crate::value::segment::Segment;

/// All maps of a segment are done.
const MAPS_DONE: usize = usize::MAX;
/// This many records count as one look at a segment.
const RECORDS_PER_LOOK: usize = 8;
/// Headers are prefetched this many segments ahead.
const AHEAD: usize = 8;

/// The position where a walk continues. The default is the beginning.
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

/// How much work a walk may do before it pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many segments may be visited. Maps, their parts and the records of a segment count, too.
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

    /// Spends this many looks.
    #[inline]
    pub fn look(&mut self, times: usize) {
        self.looks = self.looks.saturating_sub(times);
    }
}

impl Directory {
    /// Moves unshared, sparse segments, here and inside large collections, from a position on until the budget is
    /// spent. Returns the position where the next step continues, or `None` at the end.
    ///
    /// `is_sparse` says whether the block at an address should be moved.
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

/// Does the same inside the maps that the records of a segment hold. Returns the position where the next step
/// continues, in this segment.
fn relocate_maps(segment: &mut Segment, from: Position, budget: &mut Budget, is_sparse: fn(usize) -> bool) -> Position {
    let done = Position { map: MAPS_DONE, part: 0, inner: 0, ..from };
    // The content of a shared segment is shared.
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
