//! Sorted sets: a listpack while members are few and short, else a map and a tree.
//!
//! ```text
//!   small   member | score | member | score | …      one listpack, by score and then by member
//!   large   see `large`
//! ```
//!
//! Invariants:
//! - Members are ordered by score and, among equal scores, byte by byte. No score is NaN.
//! - In the small form, integral scores are stored as integers, so -0 becomes 0 there, as in Redis since 7.2.
//! - The forms change as in Redis 7.2, from the small to the large and never back. A set made at once by a STORE
//!   command takes the form that fits it.

mod large;
mod run;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::ops::Range;

pub use large::Zset;

use super::Limits;
use super::collection::{Collection, Finished, Stored};
use super::entry::{Heap, HeapMut, Kind, Packing, ValueRef};
use super::listpack::{self, Item, Listpack, ListpackBuf, Pos};
use crate::base::format;
use crate::base::random::Random;

/// A boundary between the members of a sorted set, or one of its ends. A range goes from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edge<'a> {
    /// Before everything.
    Start,
    /// Behind everything.
    End,
    /// Before the members with this score.
    BeforeScore(f64),
    /// Behind the members with this score.
    AfterScore(f64),
    /// Before this member, in a set where all scores are equal.
    BeforeMember(&'a [u8]),
    /// Behind this member, in a set where all scores are equal.
    AfterMember(&'a [u8]),
}

impl Edge<'_> {
    /// Whether a member is below the edge.
    #[inline]
    pub fn has_below(&self, score: f64, member: &[u8]) -> bool {
        match *self {
            Edge::Start => false,
            Edge::End => true,
            Edge::BeforeScore(edge) => score < edge,
            Edge::AfterScore(edge) => score <= edge,
            Edge::BeforeMember(edge) => member < edge,
            Edge::AfterMember(edge) => member <= edge,
        }
    }
}

/// The options of ZADD: when and how a member is added or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Only new members.
    pub only_new: bool,
    /// Only existing members.
    pub only_old: bool,
    /// Existing members only to a higher score.
    pub only_up: bool,
    /// Existing members only to a lower score.
    pub only_down: bool,
    /// The score is added to the existing one.
    pub increment: bool,
}

/// The result of adding a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Added {
    /// It is new.
    New(f64),
    /// It has another score now.
    Changed(f64),
    /// It keeps its score.
    Same(f64),
    /// The rule forbids it.
    Refused,
    /// The sum would not be a number. Nothing was changed.
    NotANumber,
}

impl Rule {
    /// Applies the rule to a member with the score `old`.
    fn apply(self, old: Option<f64>, given: f64) -> Added {
        let Some(old) = old else {
            return if self.only_old { Added::Refused } else { Added::New(given) };
        };
        if self.only_new {
            return Added::Refused;
        }
        let new = if self.increment { old + given } else { given };
        if new.is_nan() {
            return Added::NotANumber;
        }
        if (self.only_up && new <= old) || (self.only_down && new >= old) {
            return Added::Refused;
        }
        if new == old { Added::Same(new) } else { Added::Changed(new) }
    }
}

/// Calls `with` with a score as an element of the small form.
fn with_score<R>(score: f64, with: impl FnOnce(Item<'_>) -> R) -> R {
    const HALF: f64 = (i64::MAX / 2) as f64;
    let integer = score as i64;
    if (-HALF..=HALF).contains(&score) && integer as f64 == score {
        return with(Item::Int(integer));
    }
    let mut text = Vec::with_capacity(32);
    format::write_double(&mut text, score);
    with(Item::Str(&text))
}

#[inline]
fn score_of(item: Item<'_>) -> f64 {
    item.to_f64().unwrap_or(0.0)
}

/// Compares a member of the small form with a score and a member.
#[inline]
fn compare(item: (Item<'_>, Item<'_>), score: f64, member: &[u8]) -> Ordering {
    score_of(item.1).partial_cmp(&score).unwrap_or(Ordering::Equal).then_with(|| item.0.cmp_text(member))
}

/// Whether bytes from outside are a small sorted set.
pub(super) fn is_sound(bytes: &[u8]) -> bool {
    let Some(pack) = Listpack::parse(bytes).filter(|pack| !pack.is_empty() && pack.len().is_multiple_of(2)) else {
        return false;
    };
    let mut members: Vec<Vec<u8>> = Vec::with_capacity(pack.len() / 2);
    let mut before = f64::NEG_INFINITY;
    for (member, score) in pack.pairs() {
        let Some(score) = score.to_f64().filter(|score| *score >= before) else { return false };
        let member = member.to_vec();
        if score == before && members.last().is_some_and(|last| *last >= member) {
            return false;
        }
        before = score;
        members.push(member);
    }
    members.sort_unstable();
    members.windows(2).all(|pair| pair[0] != pair[1])
}

/// A sorted set, for reading.
#[derive(Clone, Copy, Debug)]
pub enum ZsetRef<'a> {
    /// Few members.
    Packed(Listpack<'a>),
    /// Many.
    Large(&'a Zset),
}

impl<'a> ZsetRef<'a> {
    /// How many members there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            ZsetRef::Packed(pack) => pack.len() / 2,
            ZsetRef::Large(zset) => zset.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            ZsetRef::Packed(pack) => {
                let at = pack.find(member, pack.first()?, 1)?;
                Some(score_of(pack.get_at(pack.next(at)?)))
            }
            ZsetRef::Large(zset) => zset.score(member),
        }
    }

    /// The rank of a member, and its score.
    #[inline]
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            ZsetRef::Packed(pack) => {
                let mut pairs = pack.pairs().enumerate();
                pairs.find(|(_, (item, _))| item.is(member)).map(|(rank, (_, score))| (rank, score_of(score)))
            }
            ZsetRef::Large(zset) => {
                let score = zset.score(member)?;
                Some((zset.rank(member, score)?, score))
            }
        }
    }

    /// How many members are below an edge.
    pub fn count_below(&self, edge: Edge<'_>) -> usize {
        match (self, edge) {
            (_, Edge::Start) => 0,
            (_, Edge::End) => self.len(),
            (ZsetRef::Large(zset), edge) => zset.count_below(edge),
            (ZsetRef::Packed(pack), edge) => {
                let mut digits = itoa::Buffer::new();
                let above =
                    |pair: (Item<'_>, Item<'_>)| !edge.has_below(score_of(pair.1), pair.0.as_bytes(&mut digits));
                pack.pairs().position(above).unwrap_or(self.len())
            }
        }
    }

    /// The ranks of the members between two edges.
    pub fn between(&self, from: Edge<'_>, to: Edge<'_>) -> Range<usize> {
        let start = self.count_below(from);
        start..self.count_below(to).max(start)
    }

    /// All members with their scores, in order.
    pub fn iter(&self) -> Members<'a> {
        self.range(0..self.len(), false)
    }

    /// The members in a range of ranks with their scores, from the lowest, or from the highest if `backward`.
    #[inline]
    pub fn range(&self, range: Range<usize>, backward: bool) -> Members<'a> {
        match *self {
            ZsetRef::Packed(pack) => {
                let first = if backward { range.end as i64 * 2 - 1 } else { range.start as i64 * 2 };
                let next = if range.is_empty() { None } else { pack.seek(first) };
                Members::Packed { pack, next, left: range.len(), backward }
            }
            ZsetRef::Large(zset) => Members::Large(zset, zset.ordered_range(range, backward)),
        }
    }

    /// A member at random, with its score.
    pub fn random(&self, random: &mut Random) -> Option<(Item<'a>, f64)> {
        match self {
            ZsetRef::Packed(_) => {
                let at = random.index(self.len());
                self.range(at..(at + 1).min(self.len()), false).next()
            }
            ZsetRef::Large(zset) => {
                let entry = zset.random(random)?;
                Some((Item::Str(entry.key()), large::score_of(&entry)))
            }
        }
    }

    /// Visits about `budget` members from a cursor on. Returns the next cursor, 0 at the end. A small set is visited
    /// as a whole, with its scores as they are stored.
    pub fn scan(&self, cursor: u64, budget: usize, visit: &mut dyn FnMut(&[u8], Scanned<'_>)) -> u64 {
        match self {
            ZsetRef::Packed(pack) => {
                for (member, score) in pack.pairs() {
                    visit(member.as_bytes(&mut itoa::Buffer::new()), Scanned::Stored(score));
                }
                0
            }
            ZsetRef::Large(zset) => zset.scan(cursor, budget, &mut |entry| {
                visit(entry.key(), Scanned::Number(large::score_of(&entry)));
            }),
        }
    }
}

/// A score that a scan has visited.
#[derive(Clone, Copy, Debug)]
pub enum Scanned<'a> {
    /// As the small form stores it.
    Stored(Item<'a>),
    /// A score of the large form.
    Number(f64),
}

/// Members with their scores.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // it lives on the stack for one reply; a box would cost an allocation
pub enum Members<'a> {
    /// Of a listpack.
    Packed {
        /// The listpack.
        pack: Listpack<'a>,
        /// The next member, or its score if `backward`.
        next: Option<Pos>,
        /// How many are left.
        left: usize,
        /// Whether to iterate from the highest.
        backward: bool,
    },
    /// Of a large one.
    Large(&'a Zset, large::Ordered<'a>),
}

impl<'a> Iterator for Members<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Members::Packed { pack, next, left, backward } => {
                let first = (*next).filter(|_| *left > 0)?;
                *left -= 1;
                let second = if *backward { pack.prev(first) } else { pack.next(first) }?;
                *next = if *backward { pack.prev(second) } else { pack.next(second) };
                let (member, score) = if *backward { (second, first) } else { (first, second) };
                Some((pack.get_at(member), score_of(pack.get_at(score))))
            }
            Members::Large(zset, ordered) => {
                let (member, score) = ordered.next()?;
                Some((Item::Str(member), zset.exact(member, score)))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Members::Packed { left, .. } => (*left, Some(*left)),
            Members::Large(_, ordered) => ordered.size_hint(),
        }
    }
}

/// A sorted set, for editing.
#[derive(Debug)]
pub struct ZsetMut<'a> {
    form: Form<'a>,
    limits: Limits,
}

#[derive(Debug)]
enum Form<'a> {
    Packed(ListpackBuf),
    Fresh(Zset),
    Large(&'a mut Zset),
}

impl ZsetMut<'_> {
    /// An empty sorted set that belongs to no key.
    pub fn new(limits: &Limits) -> ZsetMut<'static> {
        ZsetMut { form: Form::Packed(ListpackBuf::new()), limits: *limits }
    }

    /// The sorted set as it is now.
    #[inline]
    pub fn view(&self) -> ZsetRef<'_> {
        match &self.form {
            Form::Packed(pack) => ZsetRef::Packed(pack.as_listpack()),
            Form::Fresh(zset) => ZsetRef::Large(zset),
            Form::Large(zset) => ZsetRef::Large(zset),
        }
    }

    /// Announces up to this many members, of which `first` is the first, and takes the form for them.
    pub fn expect(&mut self, members: usize, first: &[u8]) {
        let too_long = self.view().is_empty() && first.len() > self.limits.zset_max_listpack_value;
        if matches!(self.form, Form::Packed(_)) && (too_long || members > self.limits.zset_max_listpack_entries) {
            self.enlarge(members);
        }
    }

    /// Adds a member or changes its score, as far as the rule allows. The score is not NaN.
    pub fn add(&mut self, member: &[u8], score: f64, rule: Rule) -> Added {
        let pack = match &mut self.form {
            Form::Fresh(zset) => return add_to_large(zset, member, score, rule),
            Form::Large(zset) => return add_to_large(zset, member, score, rule),
            Form::Packed(pack) => pack,
        };
        let list = pack.as_listpack();
        let found = list.first().and_then(|first| list.find(member, first, 1));
        let old = found.and_then(|at| list.next(at)).map(|at| score_of(list.get_at(at)));
        let added = rule.apply(old, score);
        match added {
            Added::New(score) => {
                let fits = self.view().len() < self.limits.zset_max_listpack_entries
                    && member.len() <= self.limits.zset_max_listpack_value;
                if fits && self.has_room_for(member) {
                    self.insert_packed(member, score);
                } else {
                    self.enlarge(0);
                    return self.add(member, score, Rule::default());
                }
            }
            Added::Changed(score) => {
                if let Some(at) = found {
                    pack.remove(at, 2);
                }
                self.insert_packed(member, score);
            }
            Added::Same(_) | Added::Refused | Added::NotANumber => {}
        }
        added
    }

    fn has_room_for(&self, member: &[u8]) -> bool {
        const SCORE_MAX: usize = 40;
        let Form::Packed(pack) = &self.form else { return true };
        pack.encoded_len() + listpack::item_size(member) + SCORE_MAX <= listpack::BYTES_MAX
    }

    /// Inserts a new member at its place.
    fn insert_packed(&mut self, member: &[u8], score: f64) {
        let Form::Packed(pack) = &mut self.form else { return };
        let list = pack.as_listpack();
        let mut items = list.iter();
        let mut at = None;
        // Most members belong behind the last, which is therefore compared first.
        let last = list.pairs().next_back();
        if last.is_some_and(|last| compare(last, score, member) == Ordering::Greater) {
            loop {
                at = items.front_pos();
                let (Some(item), Some(its_score)) = (items.next(), items.next()) else { break };
                if compare((item, its_score), score, member) == Ordering::Greater {
                    break;
                }
            }
        }
        with_score(score, |score| match at {
            Some(at) => {
                let at = pack.insert_before(at, member);
                pack.insert_after(at, score);
            }
            None => {
                pack.push_back(member);
                pack.push_back(score);
            }
        });
    }

    /// Removes a member. Returns whether it existed.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.form {
            Form::Packed(pack) => {
                let list = pack.as_listpack();
                let Some(found) = list.first().and_then(|first| list.find(member, first, 1)) else { return false };
                pack.remove(found, 2);
                true
            }
            Form::Fresh(zset) => zset.remove(member),
            Form::Large(zset) => zset.remove(member),
        }
    }

    /// Removes the members in a range of ranks.
    pub fn remove_range(&mut self, range: Range<usize>) {
        match &mut self.form {
            Form::Packed(pack) => {
                if let Some(at) = pack.as_listpack().seek(range.start as i64 * 2) {
                    pack.remove(at, range.len() * 2);
                }
            }
            Form::Fresh(zset) => zset.remove_range(range),
            Form::Large(zset) => zset.remove_range(range),
        }
    }

    /// Turns the small form into a large one with room for this many members, or for the present ones if they are
    /// more.
    #[cold]
    fn enlarge(&mut self, members: usize) {
        let mut large = Zset::with_capacity(&self.limits, members.max(self.view().len()));
        for (member, score) in self.view().iter() {
            large.insert(member.as_bytes(&mut itoa::Buffer::new()), score);
        }
        self.form = Form::Fresh(large);
    }
}

fn add_to_large(zset: &mut Zset, member: &[u8], score: f64, rule: Rule) -> Added {
    let old = zset.score(member);
    let added = rule.apply(old, score);
    match (added, old) {
        (Added::New(new), _) => zset.insert(member, new),
        (Added::Changed(new), Some(old)) => zset.update(member, old, new),
        _ => {}
    }
    added
}

/// Makes a sorted set of unsorted members in the form that fits them. Each member occurs once, and no score is NaN.
pub fn collect<M: AsRef<[u8]>>(mut members: Vec<(f64, M)>, limits: &Limits) -> Finished {
    if members.is_empty() {
        return Finished::Empty;
    }
    let zero_free = |score: f64| if score == 0.0 { 0.0 } else { score };
    members.sort_unstable_by(|one, two| {
        let by_score = zero_free(one.0).total_cmp(&zero_free(two.0));
        by_score.then_with(|| one.1.as_ref().cmp(two.1.as_ref()))
    });
    let is_short = |(_, member): &(f64, M)| member.as_ref().len() <= limits.zset_max_listpack_value;
    if members.len() <= limits.zset_max_listpack_entries && members.iter().all(is_short) {
        let mut pack = ListpackBuf::new();
        for (score, member) in &members {
            pack.push_back(member.as_ref());
            with_score(*score, |score| pack.push_back(score));
        }
        if pack.encoded_len() <= listpack::BYTES_MAX {
            return Finished::Packed(Packing::Zset, pack.into_vec());
        }
    }
    let items = members.iter().map(|(score, member)| (*score, member.as_ref()));
    match Zset::from_sorted(limits, members.len(), items) {
        Some(zset) => Finished::Large(Heap::Zset(triomphe::Arc::new(zset))),
        None => unreachable!("members were sorted, and each is there once"),
    }
}

/// The type of sorted sets.
#[derive(Debug)]
pub struct AnyZset;

impl Collection for AnyZset {
    type Ref<'a> = ZsetRef<'a>;
    type Mut<'a> = ZsetMut<'a>;

    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::ZsetPacked | Kind::Zset)
    }

    #[inline]
    fn view(value: ValueRef<'_>) -> Option<ZsetRef<'_>> {
        Some(match value {
            ValueRef::Packed(Packing::Zset, bytes) => ZsetRef::Packed(Listpack::trusted(bytes.as_slice())),
            ValueRef::Zset(zset) => ZsetRef::Large(zset),
            _ => return None,
        })
    }

    #[inline]
    fn edit<'a>(stored: Stored<'a>, limits: &Limits) -> Option<ZsetMut<'a>> {
        let form = match stored {
            Stored::Missing(mut room) => {
                room.clear();
                room.extend_from_slice(Listpack::EMPTY.as_bytes());
                Form::Packed(ListpackBuf::from_vec(room))
            }
            Stored::Packed(Packing::Zset, bytes) => Form::Packed(ListpackBuf::from_vec(bytes)),
            Stored::Large(HeapMut::Zset(zset)) => Form::Large(zset),
            _ => return None,
        };
        Some(ZsetMut { form, limits: *limits })
    }

    #[inline]
    fn finish(edited: ZsetMut<'_>) -> Finished {
        if edited.view().is_empty() {
            return Finished::Empty;
        }
        match edited.form {
            Form::Packed(pack) => Finished::Packed(Packing::Zset, pack.into_vec()),
            Form::Fresh(zset) => Finished::Large(Heap::Zset(triomphe::Arc::new(zset))),
            Form::Large(_) => Finished::InPlace,
        }
    }
}
