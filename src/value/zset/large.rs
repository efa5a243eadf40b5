//! The large form of a sorted set: a map from members to scores, and a tree of the same members in order.
//!
//! ```text
//!   map                       tree of runs, by score and then member
//!   "a" → 3.0                        ╱        ╲
//!   "b" → 1.5        (1.5 b)(3 a)(3 c) …    … (1e9 z)
//! ```
//!
//! Invariants:
//! - Both hold the same members with the same scores, except that -0 is stored as 0 in the tree, where the two are
//!   equal.
//! - No score is NaN.

use crate::value::codec::Spill;
use std::ops::Range;

use super::Edge;
use super::run::{Key, Run};
use crate::base::random::Random;
use crate::base::varint::{put_varint, take_bytes, take_string, take_varint};
use crate::value::entry::{EntryRef, NewValue, ValueRef};
use crate::value::tree::{Cursor, Leaf, Tree, Where};
use crate::value::{Limits, Map};

/// Up to this many neighbours are removed one by one. More are cut out of the tree together.
const ONE_BY_ONE_MAX: usize = 4;

/// See the module. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Zset {
    members: Map,
    order: Tree<Run>,
    /// Whether a score of -0 may be among them. Only the map distinguishes it from 0.
    negative_zeros: bool,
}

/// Whether the key of a run is not above an item.
#[inline]
fn not_above(key: &Key, score: f64, member: &[u8]) -> bool {
    key.score < score || (key.score == score && key.member.as_slice() <= member)
}

/// The score that a map's entry holds.
#[inline]
pub(super) fn score_of(entry: &EntryRef<'_>) -> f64 {
    match entry.value() {
        ValueRef::Int(bits) => f64::from_bits(bits as u64),
        _ => unreachable!("a score is the only thing that is stored there"),
    }
}

impl Zset {
    /// Its members with their scores.
    pub(in crate::value) fn map(&self) -> &Map {
        &self.members
    }

    /// The same, mutable, to move its segments.
    pub(in crate::value) fn map_mut(&mut self) -> &mut Map {
        &mut self.members
    }

    /// An empty sorted set with room for this many members.
    pub(super) fn with_capacity(limits: &Limits, len: usize) -> Zset {
        Zset { members: Map::with_capacity(limits.seed, len), order: Tree::new(), negative_zeros: false }
    }

    /// Makes a sorted set of sorted items. `None` if they are not sorted, or if a score is not a number.
    pub(super) fn from_sorted<'i>(
        limits: &Limits,
        len: usize,
        items: impl Iterator<Item = (f64, &'i [u8])>,
    ) -> Option<Zset> {
        let mut zset = Zset::with_capacity(limits, len);
        let mut runs: Vec<Run> = Vec::new();
        let mut before: Option<(f64, &[u8])> = None;
        for (score, member) in items {
            let in_order = before.is_none_or(|before| before < (score, member));
            if score.is_nan() || !in_order || !zset.members.insert(member, NewValue::Int(score.to_bits() as i64)) {
                return None;
            }
            before = Some((score, member));
            let score = zset.ordered(score);
            match runs.last_mut().filter(|run| run.has_room_for(score, member)) {
                Some(run) => {
                    run.insert(score, member);
                }
                None => runs.push(Run::of_one(score, member)),
            }
        }
        zset.order = Tree::from_leaves(runs);
        Some(zset)
    }

    /// How many members there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// An estimate of its bytes, without a walk, for the decision to free it on another thread.
    pub fn bytes(&self) -> usize {
        self.members.bytes() + self.order.bytes()
    }

    /// Appends its elements in the form that `persist::format` draws.
    pub fn encode(&self, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        put_varint(out, self.len() as u64);
        for (member, score) in self.range(0..self.len(), false) {
            out.extend_from_slice(&score.to_le_bytes());
            put_varint(out, member.len() as u64);
            out.extend_from_slice(member);
            spill(out);
        }
    }

    /// Reads what [`Zset::encode`] wrote; `None` if the bytes are not that.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Option<Zset> {
        const ITEM_MIN: usize = 9;
        let mut rest = bytes;
        let count = usize::try_from(take_varint(&mut rest)?).ok()?;
        // The claim is bounded before anything is allocated for it.
        if count == 0 || count > rest.len() / ITEM_MIN {
            return None;
        }
        let mut item = || {
            let score = f64::from_le_bytes(take_bytes(&mut rest, 8)?.try_into().ok()?);
            Some((score, take_string(&mut rest)?))
        };
        let zset = Zset::from_sorted(limits, count, (0..count).map_while(|_| item()))?;
        (zset.len() == count && rest.is_empty()).then_some(zset)
    }

    /// The score as the tree stores it.
    fn ordered(&mut self, score: f64) -> f64 {
        if score == 0.0 {
            self.negative_zeros |= score.is_sign_negative();
            return 0.0;
        }
        score
    }

    /// The score of a member.
    #[inline]
    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.members.get(member).map(|entry| score_of(&entry))
    }

    /// Adds a member that does not exist yet.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) {
        let _ = self.members.set(member, NewValue::Int(score.to_bits() as i64), None);
        let score = self.ordered(score);
        self.put_in_order(member, score);
    }

    fn put_in_order(&mut self, member: &[u8], score: f64) {
        let placed = self.order.edit_by(|key| not_above(key, score, member), |run, _| ((), run.insert(score, member)));
        if placed.is_none() {
            self.order.add_leaf(Run::of_one(score, member), true);
        }
    }

    /// Changes the score of an existing member.
    pub(super) fn update(&mut self, member: &[u8], old: f64, new: f64) {
        let _ = self.members.set(member, NewValue::Int(new.to_bits() as i64), None);
        let new = self.ordered(new);
        let edit = |run: &mut Run, _| {
            if let (Ok(index), offset) = run.find(old, member) {
                run.remove(index, offset);
            }
            // Most changes are small, so the member stays in the same run.
            let last = Leaf::len(run).checked_sub(1);
            let stays = last.is_some_and(|last| run.score(0) < new && new < run.score(last));
            if stays { (true, run.insert(new, member)) } else { (false, Where::Middle) }
        };
        if self.order.edit_by(|key| not_above(key, old, member), edit) != Some(true) {
            self.put_in_order(member, new);
        }
    }

    /// Removes a member. Returns whether it existed.
    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        let Some(score) = self.score(member) else { return false };
        let _ = self.members.remove(member);
        self.order.edit_by(
            |key| not_above(key, score, member),
            |run, _| {
                if let (Ok(index), offset) = run.find(score, member) {
                    run.remove(index, offset);
                }
                ((), Where::Middle)
            },
        );
        true
    }

    /// Removes the members in a range of ranks.
    pub(super) fn remove_range(&mut self, range: Range<usize>) {
        for (member, _) in Ordered::new(&self.order, range.clone(), false) {
            let _ = self.members.remove(member);
        }
        if range.len() > ONE_BY_ONE_MAX {
            return self.order.remove_range(range);
        }
        for _ in range.clone() {
            self.order.edit_at(range.start, |run, at| {
                run.remove(at, run.offset(at));
                ((), Where::Middle)
            });
        }
    }

    /// The rank of a member that has this score.
    #[inline]
    pub(super) fn rank(&self, member: &[u8], score: f64) -> Option<usize> {
        let (run, first) = self.order.locate_by(|key| not_above(key, score, member))?;
        Some(first + run.find(score, member).0.ok()?)
    }

    /// How many members are below an edge.
    pub(super) fn count_below(&self, edge: Edge<'_>) -> usize {
        let place = self.order.locate_by(|key| edge.has_below(key.score, &key.member));
        place.map_or(0, |(run, first)| first + run.count_below(edge))
    }

    /// The members in a range of ranks with their scores, from the lowest, or from the highest if `backward`.
    pub(super) fn range(&self, range: Range<usize>, backward: bool) -> impl Iterator<Item = (&[u8], f64)> {
        Ordered::new(&self.order, range, backward).map(|(member, score)| (member, self.exact(member, score)))
    }

    /// The score of a member, given the one that the tree stores.
    #[inline]
    pub(super) fn exact(&self, member: &[u8], score: f64) -> f64 {
        if score == 0.0 && self.negative_zeros { self.score(member).unwrap_or(score) } else { score }
    }

    pub(super) fn ordered_range(&self, range: Range<usize>, backward: bool) -> Ordered<'_> {
        Ordered::new(&self.order, range, backward)
    }

    /// A member at random.
    pub(super) fn random(&self, random: &mut Random) -> Option<EntryRef<'_>> {
        self.members.random(random.next_u64())
    }

    /// See [`Map::scan_cursor`].
    pub(super) fn scan(&self, cursor: u64, budget: usize, visit: &mut dyn FnMut(EntryRef<'_>)) -> u64 {
        self.members.scan_cursor(cursor, budget, visit)
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        self.members.check_invariants();
        self.order.check_invariants();
        assert_eq!(self.members.len(), self.order.len());
        self.order.leaves().for_each(Run::check_invariants);
        let items: Vec<(&[u8], f64)> = self.ordered_range(0..self.len(), false).collect();
        assert!(items.windows(2).all(|pair| (pair[0].1, pair[0].0) < (pair[1].1, pair[1].0)));
        assert!(items.iter().all(|(member, score)| self.score(member) == Some(*score)));
    }
}

/// The members in a range of ranks, ascending or descending, with the scores that the tree stores.
#[derive(Clone, Debug)]
pub struct Ordered<'a> {
    cursor: Option<Cursor<'a, Run>>,
    /// The next item, or the one after it if `backward`, and the offset of its member in the run.
    index: usize,
    offset: usize,
    left: usize,
    backward: bool,
}

impl<'a> Ordered<'a> {
    fn new(order: &'a Tree<Run>, range: Range<usize>, backward: bool) -> Ordered<'a> {
        let at = if backward { range.end } else { range.start };
        let cursor = order.cursor(at).filter(|_| !range.is_empty());
        let (index, offset) = cursor.as_ref().map_or((0, 0), |cursor| {
            let index = at - cursor.rank();
            (index, cursor.leaf().offset(index))
        });
        Ordered { cursor, index, offset, left: range.len(), backward }
    }
}

impl<'a> Iterator for Ordered<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let cursor = self.cursor.as_mut()?;
        if self.backward {
            if self.index == 0 {
                if !cursor.backward() {
                    return None;
                }
                (self.index, self.offset) = (Leaf::len(cursor.leaf()), cursor.leaf().members_len());
            }
            let run = cursor.leaf();
            self.index -= 1;
            self.offset -= run.member_len(self.index);
            return Some((run.member_at(self.index, self.offset), run.score(self.index)));
        }
        if self.index == Leaf::len(cursor.leaf()) {
            if !cursor.forward() {
                return None;
            }
            (self.index, self.offset) = (0, 0);
        }
        let run = cursor.leaf();
        let item = (run.member_at(self.index, self.offset), run.score(self.index));
        self.index += 1;
        self.offset += item.0.len();
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
