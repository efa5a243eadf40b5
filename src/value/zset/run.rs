//! A leaf in the tree of a large sorted set: consecutive members with their scores, packed.
//!
//! ```text
//!   0                     len × score_width      + len × length_width
//!   ┌─────────────────────┬──────────────────────┬───────────────────────────────────┐
//!   │ scores              │ lengths of members   │ members                           │
//!   │ each minus the base │ each in 1 to 4 bytes │ one behind the other              │
//!   └─────────────────────┴──────────────────────┴───────────────────────────────────┘
//! ```
//!
//! A score is stored as its ordinal, an unsigned number in the same order: for integers the integer itself, for other
//! doubles their bits. Neighbours have close scores, so the difference to the base takes a byte or two, and none
//! where all scores are equal.
//!
//! Invariants:
//! - Items are ordered by score and then by member. No score is NaN or -0.
//! - Widths are uniform within a run, and wide enough for its largest ordinal and its longest member.
//! - This layout lives in memory only; it is never persisted.

use std::cmp::Ordering;
use std::ops::Range;

use smallvec::SmallVec;

use super::Edge;
use crate::value::tree::{Leaf, Where};

/// A run of more than one item and more than this many bytes is split.
const BYTES_MAX: usize = if cfg!(test) { 96 } else { 1536 };
/// A run of fewer bytes is merged with a neighbour if both together stay below [`MERGED_MAX`].
const BYTES_SPARSE: usize = BYTES_MAX / 3;
const MERGED_MAX: usize = BYTES_MAX * 7 / 8;
/// Room is made in steps of this many bytes: little is wasted, and not every insert moves the run.
const ROOM_STEP: usize = 128;
/// A double beyond this may stand for several integers.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The first item of a run, which the nodes above compare with.
#[derive(Debug, PartialEq)]
pub(super) struct Key {
    pub(super) score: f64,
    pub(super) member: SmallVec<[u8; 24]>,
}

impl Clone for Key {
    fn clone(&self) -> Key {
        Key { score: self.score, member: self.member.clone() }
    }

    fn clone_from(&mut self, other: &Key) {
        self.score = other.score;
        if self.member != other.member {
            self.member.clear();
            self.member.extend_from_slice(&other.member);
        }
    }
}

/// How scores map to ordinals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Integers,
    Doubles,
}

impl Scale {
    fn of(score: f64) -> Scale {
        let is_integer = score.abs() <= INTEGER_MAX && score.trunc() == score;
        if is_integer { Scale::Integers } else { Scale::Doubles }
    }

    /// The scale that both scores fit.
    fn join(self, other: Scale) -> Scale {
        if self == other { self } else { Scale::Doubles }
    }

    #[inline]
    fn ordinal(self, score: f64) -> u64 {
        const SIGN: u64 = 1 << 63;
        match self {
            Scale::Integers => score as i64 as u64 ^ SIGN,
            Scale::Doubles if score.is_sign_negative() => !score.to_bits(),
            Scale::Doubles => score.to_bits() | SIGN,
        }
    }

    #[inline]
    fn score(self, ordinal: u64) -> f64 {
        const SIGN: u64 = 1 << 63;
        match self {
            Scale::Integers => (ordinal ^ SIGN) as i64 as f64,
            Scale::Doubles if ordinal & SIGN == 0 => f64::from_bits(!ordinal),
            Scale::Doubles => f64::from_bits(ordinal & !SIGN),
        }
    }
}

/// How many bytes hold this number; zero takes none.
fn width_of(number: u64) -> u8 {
    (u64::BITS - number.leading_zeros()).div_ceil(8) as u8
}

/// The largest number in this many bytes.
fn largest(width: u8) -> u64 {
    u64::MAX.checked_shr(u64::BITS - 8 * u32::from(width)).unwrap_or(0)
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Run {
    bytes: Vec<u8>,
    base: u64,
    len: u32,
    scale: Scale,
    score_width: u8,
    length_width: u8,
}

/// The layout of a run.
#[derive(Clone, Copy)]
struct Form {
    base: u64,
    scale: Scale,
    score_width: u8,
    length_width: u8,
}

impl Form {
    /// The form for items of this scale, with scores between these two and members of up to this many bytes.
    fn spanning(scale: Scale, first: f64, last: f64, longest: usize) -> Form {
        let base = scale.ordinal(first);
        let score_width = width_of(scale.ordinal(last) - base);
        Form { base, scale, score_width, length_width: width_of(longest as u64).max(1) }
    }
}

impl Run {
    /// A run of one item.
    pub(super) fn of_one(score: f64, member: &[u8]) -> Run {
        let mut run = Run::empty(Form::spanning(Scale::of(score), score, score, member.len()));
        run.push(score, member);
        run
    }

    fn empty(form: Form) -> Run {
        let Form { base, scale, score_width, length_width } = form;
        Run { bytes: Vec::new(), base, len: 0, scale, score_width, length_width }
    }

    fn count(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn lengths_at(&self) -> usize {
        self.count() * usize::from(self.score_width)
    }

    #[inline]
    fn members_at(&self) -> usize {
        self.count() * usize::from(self.score_width + self.length_width)
    }

    /// The number of `width` bytes at `at`.
    #[inline]
    fn number(&self, at: usize, width: u8) -> u64 {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(chunk) => u64::from_le_bytes(*chunk) & largest(width),
            None => {
                let mut chunk = [0; 8];
                let end = (at + usize::from(width)).min(self.bytes.len());
                chunk[..end - at].copy_from_slice(&self.bytes[at..end]);
                u64::from_le_bytes(chunk)
            }
        }
    }

    /// The score of an item.
    #[inline]
    pub(super) fn score(&self, index: usize) -> f64 {
        let width = self.score_width;
        self.scale.score(self.base.wrapping_add(self.number(index * usize::from(width), width)))
    }

    #[inline]
    pub(super) fn member_len(&self, index: usize) -> usize {
        let at = self.lengths_at();
        match self.length_width {
            1 => usize::from(self.bytes[at + index]),
            width => self.number(at + index * usize::from(width), width) as usize,
        }
    }

    /// Where the member of an item begins, among the members.
    #[inline]
    pub(super) fn offset(&self, index: usize) -> usize {
        let at = self.lengths_at();
        match self.length_width {
            1 => self.bytes[at..at + index].iter().map(|len| u32::from(*len)).sum::<u32>() as usize,
            _ => (0..index).map(|index| self.member_len(index)).sum(),
        }
    }

    /// The bytes of all members.
    pub(super) fn members_len(&self) -> usize {
        self.bytes.len() - self.members_at()
    }

    /// The member of an item whose offset is known.
    #[inline]
    pub(super) fn member_at(&self, index: usize, offset: usize) -> &[u8] {
        let start = self.members_at() + offset;
        &self.bytes[start..start + self.member_len(index)]
    }

    /// The items in a range, in order.
    fn items(&self, range: Range<usize>) -> impl Iterator<Item = (f64, &[u8])> + Clone {
        let mut offset = self.offset(range.start);
        range.map(move |index| {
            let member = self.member_at(index, offset);
            offset += member.len();
            (self.score(index), member)
        })
    }

    /// How many items are below an edge.
    pub(super) fn count_below(&self, edge: Edge<'_>) -> usize {
        if let Edge::BeforeMember(_) | Edge::AfterMember(_) = edge {
            return self
                .items(0..self.count())
                .position(|(_, member)| !edge.has_below(0.0, member))
                .unwrap_or(self.count());
        }
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if edge.has_below(self.score(middle), b"") { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The index of an item, or the one where it would be inserted, and the offset there.
    pub(super) fn find(&self, score: f64, member: &[u8]) -> (Result<usize, usize>, usize) {
        let mut index = self.count_below(Edge::BeforeScore(score));
        let mut offset = self.offset(index);
        while index < self.count() && self.score(index) == score {
            let here = self.member_at(index, offset);
            match here.cmp(member) {
                Ordering::Less => offset += here.len(),
                Ordering::Equal => return (Ok(index), offset),
                Ordering::Greater => break,
            }
            index += 1;
        }
        (Err(index), offset)
    }

    /// Adds a new item. Returns where.
    pub(super) fn insert(&mut self, score: f64, member: &[u8]) -> Where {
        self.widen(score, member.len());
        let (place, offset) = self.find(score, member);
        let (Ok(index) | Err(index)) = place;
        debug_assert!(place.is_err(), "an item is there once");
        self.put(index, offset, score, member);
        match index {
            0 => Where::Front,
            _ if index + 1 == self.count() => Where::Back,
            _ => Where::Middle,
        }
    }

    fn push(&mut self, score: f64, member: &[u8]) {
        self.put(self.count(), self.members_len(), score, member);
    }

    /// Inserts an item that fits the form before another, or at the end.
    fn put(&mut self, index: usize, offset: usize, score: f64, member: &[u8]) {
        let (score_width, length_width) = (usize::from(self.score_width), usize::from(self.length_width));
        let score_at = index * score_width;
        let length_at = self.lengths_at() + index * length_width;
        let member_at = self.members_at() + offset;
        let old = self.bytes.len();
        self.make_room(score_width + length_width + member.len());
        // From the back: the members behind the item, then the lengths, then the scores behind it.
        let at = member_at + score_width + length_width;
        self.bytes.copy_within(member_at..old, at + member.len());
        self.bytes[at..at + member.len()].copy_from_slice(member);
        self.bytes.copy_within(length_at..member_at, length_at + score_width + length_width);
        let at = length_at + score_width;
        self.bytes[at..at + length_width].copy_from_slice(&(member.len() as u64).to_le_bytes()[..length_width]);
        self.bytes.copy_within(score_at..length_at, score_at + score_width);
        let ordinal = self.scale.ordinal(score) - self.base;
        self.bytes[score_at..score_at + score_width].copy_from_slice(&ordinal.to_le_bytes()[..score_width]);
        self.len += 1;
    }

    fn make_room(&mut self, more: usize) {
        let len = self.bytes.len() + more;
        if len > self.bytes.capacity() {
            let room = if self.len == 0 { len } else { len.next_multiple_of(ROOM_STEP) };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.resize(len, 0);
    }

    /// Takes a form that fits a new item, too.
    fn widen(&mut self, score: f64, length: usize) {
        if let Some(form) = self.wider_form(score, length) {
            *self = self.with_form(form, 0..self.count());
        }
    }

    /// The form that fits a new item, too, if it is a different one.
    fn wider_form(&self, score: f64, length: usize) -> Option<Form> {
        let scale = self.scale.join(Scale::of(score));
        let length_width = self.length_width.max(width_of(length as u64));
        let fits = scale == self.scale && length_width == self.length_width && {
            let ordinal = scale.ordinal(score);
            ordinal >= self.base && ordinal - self.base <= largest(self.score_width)
        };
        if fits {
            return None;
        }
        let (first, last) = (self.score(0).min(score), self.score(self.count() - 1).max(score));
        let mut form = Form { length_width, ..Form::spanning(scale, first, last, 0) };
        if score == first {
            // Others may be inserted before it, so the base is as low as the width allows.
            form.base = scale.ordinal(last).saturating_sub(largest(form.score_width));
        }
        Some(form)
    }

    /// Whether it would not be overfull with one more item.
    pub(super) fn has_room_for(&self, score: f64, member: &[u8]) -> bool {
        let (score_width, length_width) = match self.wider_form(score, member.len()) {
            Some(form) => (form.score_width, form.length_width),
            None => (self.score_width, self.length_width),
        };
        let columns = (self.count() + 1) * usize::from(score_width + length_width);
        columns + self.members_len() + member.len() <= BYTES_MAX
    }

    /// The narrowest form for some of the items; at least one.
    fn tight_form(&self, range: Range<usize>) -> Form {
        let (first, last) = (self.score(range.start), self.score(range.end - 1));
        let (mut scale, mut longest) = (Scale::Integers, 0);
        for (score, member) in self.items(range) {
            scale = scale.join(Scale::of(score));
            longest = longest.max(member.len());
        }
        Form::spanning(scale, first, last, longest)
    }

    /// A copy of some items in another form that fits them.
    fn with_form(&self, form: Form, range: Range<usize>) -> Run {
        let mut run = Run::empty(form);
        run.fill(self.items(range));
        run
    }

    /// Appends items that fit the form.
    fn fill<'a>(&mut self, items: impl Iterator<Item = (f64, &'a [u8])> + Clone) {
        let old = self.with_room_for(items.clone());
        let Some((old_lengths, old_members, old_end)) = old else { return };
        let (score_width, length_width) = (usize::from(self.score_width), usize::from(self.length_width));
        let (lengths, members) = (self.lengths_at(), self.members_at());
        self.bytes.copy_within(old_members..old_end, members);
        self.bytes.copy_within(old_lengths..old_members, lengths);
        let mut score_at = old_lengths;
        let mut length_at = lengths + (old_members - old_lengths);
        let mut member_at = members + (old_end - old_members);
        for (score, member) in items {
            let ordinal = self.scale.ordinal(score) - self.base;
            self.bytes[score_at..score_at + score_width].copy_from_slice(&ordinal.to_le_bytes()[..score_width]);
            let length = (member.len() as u64).to_le_bytes();
            self.bytes[length_at..length_at + length_width].copy_from_slice(&length[..length_width]);
            self.bytes[member_at..member_at + member.len()].copy_from_slice(member);
            score_at += score_width;
            length_at += length_width;
            member_at += member.len();
        }
    }

    /// Makes room for items at the end and counts them. Returns where lengths, members and the whole ended before.
    fn with_room_for<'a>(&mut self, items: impl Iterator<Item = (f64, &'a [u8])>) -> Option<(usize, usize, usize)> {
        let before = (self.lengths_at(), self.members_at(), self.bytes.len());
        let (mut count, mut bytes) = (0, 0);
        for (_, member) in items {
            count += 1;
            bytes += member.len();
        }
        if count == 0 {
            return None;
        }
        let len = self.bytes.len() + bytes + count * usize::from(self.score_width + self.length_width);
        self.bytes.reserve_exact(len - self.bytes.len());
        self.bytes.resize(len, 0);
        self.len += count as u32;
        Some(before)
    }

    /// Removes an item whose offset is known.
    pub(super) fn remove(&mut self, index: usize, offset: usize) {
        self.cut(index..index + 1, offset..offset + self.member_len(index));
    }

    /// Removes items, and the bytes of their members.
    fn cut(&mut self, range: Range<usize>, members: Range<usize>) {
        let (score_width, length_width) = (usize::from(self.score_width), usize::from(self.length_width));
        let (lengths_at, members_at, end) = (self.lengths_at(), self.members_at(), self.bytes.len());
        let mut to = range.start * score_width;
        let parts = [
            range.end * score_width..lengths_at + range.start * length_width,
            lengths_at + range.end * length_width..members_at + members.start,
            members_at + members.end..end,
        ];
        for part in parts {
            let len = part.len();
            self.bytes.copy_within(part, to);
            to += len;
        }
        self.bytes.truncate(to);
        self.len -= range.len() as u32;
        if self.bytes.capacity() > 2 * to + ROOM_STEP {
            self.bytes.shrink_to(to + ROOM_STEP / 2);
        }
    }

    /// The form for the items of two consecutive runs.
    fn joint_form(&self, next: &Run) -> Form {
        let scale = self.scale.join(next.scale);
        let form = Form::spanning(scale, self.score(0), next.score(next.count() - 1), 0);
        Form { length_width: self.length_width.max(next.length_width), ..form }
    }

    /// Panics if an invariant is broken.
    pub(super) fn check_invariants(&self) {
        let items: Vec<(f64, &[u8])> = self.items(0..self.count()).collect();
        assert!(!items.is_empty());
        assert!(items.iter().all(|(score, _)| !score.is_nan() && score.to_bits() != (-0.0_f64).to_bits()));
        assert!(items.windows(2).all(|pair| pair[0].partial_cmp(&pair[1]) == Some(Ordering::Less)), "{items:?}");
        assert_eq!(self.offset(self.count()), self.members_len());
    }
}

impl Leaf for Run {
    type Key = Key;

    fn first_key(&self) -> Key {
        Key { score: self.score(0), member: SmallVec::from_slice(self.member_at(0, 0)) }
    }

    fn renew_key(&self, key: &mut Key) {
        key.score = self.score(0);
        let member = self.member_at(0, 0);
        if key.member.as_slice() != member {
            key.member.clear();
            key.member.extend_from_slice(member);
        }
    }

    fn len(&self) -> usize {
        self.count()
    }

    fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn is_overfull(&self) -> bool {
        self.bytes.len() > BYTES_MAX && self.len > 1
    }

    fn is_sparse(&self) -> bool {
        self.bytes.len() < BYTES_SPARSE
    }

    fn fits_with(&self, next: &Run) -> bool {
        let form = self.joint_form(next);
        let columns = (self.count() + next.count()) * usize::from(form.score_width + form.length_width);
        columns + self.members_len() + next.members_len() <= MERGED_MAX
    }

    fn split(&mut self, at: Where) -> Run {
        let last = self.count() - 1;
        let index = match at {
            Where::Front => 1,
            Where::Back => last,
            Where::Middle => {
                // Splits at half of the members' bytes, but leaves items on both sides.
                let (mut index, mut below) = (1, self.member_len(0));
                while index < last && below + self.member_len(index) <= self.members_len() / 2 {
                    below += self.member_len(index);
                    index += 1;
                }
                index
            }
        };
        let upper = self.with_form(self.tight_form(index..self.count()), index..self.count());
        *self = self.with_form(self.tight_form(0..index), 0..index);
        upper
    }

    fn append(&mut self, next: &Run) {
        *self = self.with_form(self.joint_form(next), 0..self.count());
        self.fill(next.items(0..next.count()));
    }

    fn remove_range(&mut self, range: Range<usize>) {
        let members = self.offset(range.start)..self.offset(range.end);
        self.cut(range, members);
    }
}
