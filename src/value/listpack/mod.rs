//! Listpack: a short sequence of strings and integers in one run of bytes, exactly as Redis lays it out.
//!
//! ```text
//! total bytes u32 | count u16 | element × count | 0xFF          all numbers little endian
//!
//! element = head | content | back length
//!
//! head      0iiiiiii                      the integer 0 to 127
//!           10llllll | bytes              a string of up to 63 bytes
//!           110iiiii iiiiiiii             a signed integer of 13 bits, high bits first
//!           1110llll llllllll | bytes     a string of up to 4095 bytes, high bits first
//!           0xF0 length u32 | bytes       a longer string
//!           0xF1 0xF2 0xF3 0xF4           a signed integer of 2, 3, 4 or 8 bytes follows
//!
//! back length = bytes of head and content, 7 bits a byte, high bits first; every byte but the first
//!               has its top bit set, so that it is read from its end backwards
//! ```
//!
//! Invariants:
//! - The bytes are those of Redis: DUMP emits them unchanged, and RESTORE accepts them once [`Listpack::parse`] has
//!   checked each. A count of 65535 means "unknown: count them". Such a list stays without a count.
//! - A string that is the canonical text of an `i64` is written as an integer, in the shortest form that fits. Bytes
//!   from outside may have longer forms, so readers compare by meaning, never by form.
//! - Reading allocates nothing and stays within the bytes, whatever they are.
//! - An edit moves the tail once. A [`Pos`] before the edited place stays valid; any other becomes stale.
//!
//! The limits of the collections are not known here: see [`item_size`] and [`BYTES_MAX`].

mod element;

pub use element::{Item, item_size};

use crate::base::format;
use element::{Encoded, Head, back_bytes, start_before};

/// The count that stands for "unknown".
const COUNT_UNKNOWN: u16 = u16::MAX;
const HEADER_LEN: usize = 6;
const END: u8 = 0xFF;
/// Header and end mark, no element.
const EMPTY: [u8; HEADER_LEN + 1] = [HEADER_LEN as u8 + 1, 0, 0, 0, 0, 0, END];

/// Redis does not let a listpack grow beyond this. Its owner turns it into another form first.
pub const BYTES_MAX: usize = 1 << 30;

/// Where an element begins. Valid for the bytes that it was taken from, until they change at or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(usize);

/// A read-only view of bytes that are known to be a listpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listpack<'a>(&'a [u8]);

impl<'a> Listpack<'a> {
    /// The listpack without elements.
    pub const EMPTY: Listpack<'static> = Listpack(&EMPTY);

    /// Checks every byte. `None` unless lengths, heads, back lengths, count and end mark all agree. An empty listpack
    /// is valid, and the meaning of the elements is not checked.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let total = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        if total != bytes.len() || total <= HEADER_LEN || bytes.last() != Some(&END) {
            return None;
        }
        let (mut at, mut count) = (HEADER_LEN, 0);
        while at < total - 1 {
            let len = Head::read(bytes, at)?.len();
            let (back, back_len) = back_bytes(len);
            if bytes.get(at + len..at + len + back_len) != Some(&back[..back_len]) {
                return None;
            }
            at += len + back_len;
            count += 1;
        }
        // The end mark is not part of an element.
        let list = Listpack(bytes);
        (at == total - 1 && list.known_len().is_none_or(|known| known == count)).then_some(list)
    }

    /// Takes bytes that this module made or has parsed, without checking them again. Other bytes show wrong or
    /// missing elements, or panic where a position is used.
    #[inline]
    pub fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(Listpack::parse(bytes).is_some(), "no listpack: {bytes:?}");
        Listpack(bytes)
    }

    /// The bytes themselves.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// How many bytes it takes.
    #[inline]
    pub fn encoded_len(self) -> usize {
        self.0.len()
    }

    /// The count in the header, unless that is "unknown".
    #[inline]
    fn known_len(self) -> Option<usize> {
        let count = self.0.get(4..HEADER_LEN).map_or(0, |count| u16::from_le_bytes([count[0], count[1]]));
        (count != COUNT_UNKNOWN).then_some(usize::from(count))
    }

    /// How many elements it has. Beyond 65534 they are counted one by one.
    #[inline]
    pub fn len(self) -> usize {
        self.known_len().unwrap_or_else(|| self.iter().count())
    }

    /// Whether it has no element.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.len() <= EMPTY.len()
    }

    /// Where the elements end.
    #[inline]
    fn end(self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// All elements, from either end.
    #[inline]
    pub fn iter(self) -> Iter<'a> {
        Iter { bytes: self.0, front: HEADER_LEN, back: self.end() }
    }

    /// The element at a position and those behind it.
    #[inline]
    pub fn iter_from(self, pos: Pos) -> Iter<'a> {
        Iter { bytes: self.0, front: pos.0, back: self.end() }
    }

    /// The elements up to the one at a position, inclusive; to be iterated from the back.
    #[inline]
    pub fn iter_to(self, pos: Pos) -> Iter<'a> {
        let mut all = self.iter();
        all.back = self.next(pos).map_or(all.back, |next| next.0);
        all
    }

    /// The elements in pairs, from either end: fields with values, members with scores.
    #[inline]
    pub fn pairs(self) -> Pairs<'a> {
        Pairs(self.iter())
    }

    /// The elements as they are encoded, for [`ListpackBuf::of_encoded`].
    pub fn encoded(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.iter();
        std::iter::from_fn(move || {
            let from = rest.front;
            rest.head()?;
            self.0.get(from..rest.front)
        })
    }

    /// Where the first element is.
    #[inline]
    pub fn first(self) -> Option<Pos> {
        (!self.is_empty()).then_some(Pos(HEADER_LEN))
    }

    /// Where the last element is.
    #[inline]
    pub fn last(self) -> Option<Pos> {
        start_before(self.0, self.end()).map(Pos)
    }

    /// Where the element behind this one is.
    #[inline]
    pub fn next(self, pos: Pos) -> Option<Pos> {
        let next = pos.0 + Head::read(self.0, pos.0)?.size();
        (next < self.end()).then_some(Pos(next))
    }

    /// Where the element before this one is.
    #[inline]
    pub fn prev(self, pos: Pos) -> Option<Pos> {
        start_before(self.0, pos.0).map(Pos)
    }

    /// Where the element of this index is; -1 is the last. Walks from the nearer end.
    pub fn seek(self, index: i64) -> Option<Pos> {
        let known = self.known_len().map(|len| len as i64);
        let from_front = match (known, index) {
            (Some(len), 0..) if index >= len => return None,
            (Some(len), ..0) if index < -len => return None,
            (Some(len), 0..) => index <= len / 2,
            (Some(len), ..0) => index + len < len / 2,
            (None, _) => index >= 0,
        };
        let mut iter = self.iter();
        if from_front {
            let skip = if index >= 0 { index } else { index + known? };
            iter.skip_front(usize::try_from(skip).ok()?)?;
            return iter.front_pos();
        }
        let skip = if index < 0 { -1 - index } else { known? - 1 - index };
        iter.skip_back(usize::try_from(skip).ok()?)?;
        start_before(self.0, iter.back).map(Pos)
    }

    /// The element at a position. Panics if the position is not one of this listpack.
    #[inline]
    pub fn get_at(self, pos: Pos) -> Item<'a> {
        Head::read(self.0, pos.0).expect("a position of this listpack").item(self.0, pos.0)
    }

    /// The element of an index; see [`Listpack::seek`].
    #[inline]
    pub fn get(self, index: i64) -> Option<Item<'a>> {
        let pos = self.seek(index)?;
        Some(Head::read(self.0, pos.0)?.item(self.0, pos.0))
    }

    /// The position of the first element with this text, among `from` and every `skip + 1`th element after it.
    pub fn find(self, needle: &[u8], from: Pos, skip: usize) -> Option<Pos> {
        let number = format::parse_i64(needle);
        let mut iter = self.iter_from(from);
        loop {
            let at = iter.front;
            let head = iter.head()?;
            let same = match head {
                Head::Int(own, _) => number == Some(own),
                Head::Str(_, len) => len == needle.len() && head.item(self.0, at) == Item::Str(needle),
            };
            if same {
                return Some(Pos(at));
            }
            iter.skip_front(skip)?;
        }
    }

    /// Panics if the bytes are not a listpack.
    pub fn check_invariants(self) {
        assert!(Listpack::parse(self.0).is_some(), "no listpack: {:?}", self.0);
        assert_eq!(self.iter().count(), self.len());
    }
}

impl<'a> IntoIterator for Listpack<'a> {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The elements of a [`Listpack`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    /// Where the next element from the front begins.
    front: usize,
    /// Where the next element from the back ends.
    back: usize,
}

impl Iter<'_> {
    /// Where the element that [`Iterator::next`] will give is.
    #[inline]
    pub fn front_pos(&self) -> Option<Pos> {
        (self.front < self.back).then_some(Pos(self.front))
    }

    /// Reads one head and steps over its element.
    #[inline]
    fn head(&mut self) -> Option<Head> {
        if self.front >= self.back {
            return None;
        }
        let head = Head::read(self.bytes, self.front)?;
        self.front += head.size();
        Some(head)
    }

    /// Skips elements. `None` if there are too few.
    #[inline]
    fn skip_front(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            self.head()?;
        }
        Some(())
    }

    /// As [`Iter::skip_front`], from the back.
    #[inline]
    fn skip_back(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            self.back = start_before(self.bytes, self.back).filter(|start| *start >= self.front)?;
        }
        Some(())
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        let at = self.front;
        self.head().map(|head| head.item(self.bytes, at))
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    #[inline]
    fn next_back(&mut self) -> Option<Item<'a>> {
        self.skip_back(1)?;
        Some(Head::read(self.bytes, self.back)?.item(self.bytes, self.back))
    }
}

/// The elements of a [`Listpack`] in pairs. An odd one at the end is left out.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(Iter<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Item<'a>, Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

impl DoubleEndedIterator for Pairs<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let second = self.0.next_back()?;
        Some((self.0.next_back()?, second))
    }
}

/// A listpack, for editing. There is room behind it, and on request before it, so that edits at either end move
/// nothing else.
#[derive(Clone, Debug)]
pub struct ListpackBuf {
    bytes: Vec<u8>,
    /// Where the listpack begins. It ends with the bytes.
    start: usize,
}

impl Default for ListpackBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for ListpackBuf {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl From<Listpack<'_>> for ListpackBuf {
    fn from(list: Listpack<'_>) -> Self {
        ListpackBuf { bytes: list.0.to_vec(), start: 0 }
    }
}

impl ListpackBuf {
    /// A listpack without elements.
    pub fn new() -> Self {
        ListpackBuf { bytes: EMPTY.to_vec(), start: 0 }
    }

    /// An empty listpack with room for this many bytes, header and end mark included.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut own = Vec::with_capacity(bytes.max(EMPTY.len()));
        own.extend_from_slice(&EMPTY);
        ListpackBuf { bytes: own, start: 0 }
    }

    /// A listpack of elements that [`Listpack::encoded`] gave, in `bytes` of memory or more.
    pub fn of_encoded<'i>(elements: impl IntoIterator<Item = &'i [u8]>, bytes: usize) -> Self {
        let mut list = ListpackBuf::with_capacity(bytes);
        list.bytes.pop();
        let mut count = 0;
        for element in elements {
            list.bytes.extend_from_slice(element);
            count += 1;
        }
        list.bytes.push(END);
        list.set_header(count, 0);
        list
    }

    /// Takes bytes as [`Listpack::trusted`] does.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        debug_assert!(Listpack::parse(&bytes).is_some(), "no listpack: {bytes:?}");
        ListpackBuf { bytes, start: 0 }
    }

    /// Gives back the memory reserved for future edits.
    pub fn shrink_to_fit(&mut self) {
        self.drop_front_room();
        self.bytes.shrink_to_fit();
    }

    fn drop_front_room(&mut self) {
        self.bytes.drain(..std::mem::take(&mut self.start));
    }

    /// Makes room for an element of `size` bytes at the end, within `most` bytes of memory in total. False if there
    /// is no room, or so little that every element would move the whole listpack again.
    #[inline]
    pub fn make_room_back(&mut self, size: usize, most: usize) -> bool {
        if self.bytes.capacity() - self.bytes.len() >= size {
            return self.encoded_len() + size <= most;
        }
        if self.bytes.len() + size > most {
            if !self.is_worth_moving(size, most) {
                return false;
            }
            self.drop_front_room();
        }
        let needed = self.bytes.len() + size;
        self.bytes.reserve_exact(self.next_capacity(needed, most).saturating_sub(self.bytes.len()));
        true
    }

    /// The same for an element at the start.
    #[inline]
    pub fn make_room_front(&mut self, size: usize, most: usize) -> bool {
        if self.start >= size {
            return self.encoded_len() + size <= most;
        }
        let len = self.encoded_len();
        let capacity = self.next_capacity(len + size, most);
        let grows = len + size <= most && capacity > self.bytes.capacity();
        if !grows && !self.is_worth_moving(size, most) {
            return false;
        }
        // Without new memory, some of the old room stays at the other end. Otherwise additions at both ends in turn
        // would move everything each time.
        let free = capacity - len;
        let start = if grows || self.is_empty() { free } else { (free / 2).max(size) };
        let mut moved = Vec::with_capacity(capacity);
        moved.resize(start, 0);
        moved.extend_from_slice(self.as_bytes());
        *self = ListpackBuf { bytes: moved, start };
        true
    }

    /// Twice its memory, but not beyond `most` if that is enough for `needed`.
    fn next_capacity(&self, needed: usize, most: usize) -> usize {
        (self.bytes.capacity() * 2).min(most).max(needed)
    }

    /// Whether moving everything makes room for more than a few elements.
    fn is_worth_moving(&self, size: usize, most: usize) -> bool {
        most.saturating_sub(self.encoded_len()) >= size.max(most / 4)
    }

    /// Gives back the memory reserved for future edits if it is more than an eighth, because no edit is expected.
    pub fn settle(&mut self) {
        if self.bytes.capacity() - self.encoded_len() > self.bytes.capacity() / 8 {
            self.shrink_to_fit();
        }
    }

    /// The memory that it has.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives memory back after removals, once only a quarter of it is in use.
    #[inline]
    pub fn trim(&mut self) {
        if self.bytes.capacity() / 4 > self.encoded_len() {
            self.shrink_to_fit();
        }
    }

    /// The bytes.
    pub fn into_vec(mut self) -> Vec<u8> {
        self.drop_front_room();
        self.bytes
    }

    /// A view to read.
    #[inline]
    pub fn as_listpack(&self) -> Listpack<'_> {
        Listpack(self.as_bytes())
    }

    /// The bytes themselves.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes it takes.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// How many elements it has: see [`Listpack::len`].
    #[inline]
    pub fn len(&self) -> usize {
        self.as_listpack().len()
    }

    /// Whether it has no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_listpack().is_empty()
    }

    /// Adds an element at the end.
    #[inline]
    pub fn push_back<'i>(&mut self, item: impl Into<Item<'i>>) {
        let encoded = Encoded::new(item.into());
        self.check_room(encoded.size());
        self.bytes.pop();
        encoded.append(&mut self.bytes);
        self.bytes.push(END);
        self.set_header(1, 0);
    }

    /// Adds an element at the start.
    pub fn push_front<'i>(&mut self, item: impl Into<Item<'i>>) {
        let encoded = Encoded::new(item.into());
        let size = encoded.size();
        if self.start >= size {
            self.check_room(size);
            self.move_start(self.start - size);
            let first = self.start + HEADER_LEN;
            encoded.write(&mut self.bytes[first..first + size]);
        } else {
            self.splice(HEADER_LEN, 0, &encoded);
        }
        self.set_header(1, 0);
    }

    /// Moves the beginning of the listpack and its header.
    fn move_start(&mut self, to: usize) {
        self.bytes.copy_within(self.start..self.start + HEADER_LEN, to);
        self.start = to;
    }

    /// Adds elements at the end, in their order.
    pub fn extend<'i, I: Into<Item<'i>>>(&mut self, items: impl IntoIterator<Item = I>) {
        for item in items {
            self.push_back(item);
        }
    }

    /// Adds the elements of another listpack at the end, unchanged.
    pub fn append(&mut self, other: Listpack<'_>) {
        let added = other.len();
        let elements = other.0.get(HEADER_LEN..other.end()).unwrap_or(&[]);
        self.check_room(elements.len());
        self.bytes.pop();
        self.bytes.reserve(elements.len() + 1);
        self.bytes.extend_from_slice(elements);
        self.bytes.push(END);
        self.set_header(added, 0);
    }

    /// Inserts an element before another. Returns its position.
    pub fn insert_before<'i>(&mut self, pos: Pos, item: impl Into<Item<'i>>) -> Pos {
        self.splice(pos.0, 0, &Encoded::new(item.into()));
        self.set_header(1, 0);
        pos
    }

    /// Inserts an element behind another. Returns its position.
    pub fn insert_after<'i>(&mut self, pos: Pos, item: impl Into<Item<'i>>) -> Pos {
        let behind = Pos(pos.0 + self.size_at(pos.0));
        self.insert_before(behind, item)
    }

    /// Replaces an element. The new one has the same position.
    pub fn replace<'i>(&mut self, pos: Pos, item: impl Into<Item<'i>>) {
        let old = self.size_at(pos.0);
        self.splice(pos.0, old, &Encoded::new(item.into()));
        self.set_header(0, 0);
    }

    /// Removes an element and those behind it, `how_many` in total or as many as there are. Returns the position of
    /// the next element, or `None` if there is none.
    pub fn remove(&mut self, pos: Pos, how_many: usize) -> Option<Pos> {
        let end = self.as_listpack().end();
        let (mut to, mut removed) = (pos.0, 0);
        while removed < how_many && to < end {
            to += self.size_at(to);
            removed += 1;
        }
        if pos.0 == HEADER_LEN {
            self.move_start(self.start + to - HEADER_LEN);
        } else {
            self.bytes.drain(self.start + pos.0..self.start + to);
        }
        self.set_header(0, removed);
        (pos.0 < self.as_listpack().end()).then_some(pos)
    }

    /// Removes the element at a position and all behind it, and returns them as a listpack.
    pub fn split_off(&mut self, pos: Pos) -> ListpackBuf {
        let end = self.as_listpack().end();
        let moved = self.as_listpack().iter_from(pos).count();
        let mut tail = ListpackBuf::with_capacity(EMPTY.len() + end - pos.0);
        tail.bytes.pop();
        tail.bytes.extend_from_slice(&self.as_bytes()[pos.0..]);
        tail.set_header(moved, 0);
        self.bytes.truncate(self.start + pos.0);
        self.bytes.push(END);
        self.set_header(0, moved);
        tail
    }

    /// Keeps the groups of `group` elements (1 for single elements, 2 for pairs) for whose first element `keep` is
    /// true. Works in one pass. Returns how many groups were removed.
    pub fn retain(&mut self, group: usize, mut keep: impl FnMut(Item<'_>) -> bool) -> usize {
        let (mut from, mut to, mut groups, mut removed) = (HEADER_LEN, HEADER_LEN, 0, 0);
        loop {
            let mut rest = self.as_listpack().iter_from(Pos(from));
            let Some(first) = rest.next() else { break };
            let kept = keep(first);
            let taken = 1 + rest.by_ref().take(group.saturating_sub(1)).count();
            let next = rest.front;
            if kept {
                self.bytes.copy_within(self.start + from..self.start + next, self.start + to);
                to += next - from;
            } else {
                groups += 1;
                removed += taken;
            }
            from = next;
        }
        self.bytes.truncate(self.start + to);
        self.bytes.push(END);
        self.set_header(0, removed);
        groups
    }

    /// Panics if the bytes are not a listpack.
    pub fn check_invariants(&self) {
        self.as_listpack().check_invariants();
    }

    /// The bytes of the whole element at a position.
    #[inline]
    fn size_at(&self, at: usize) -> usize {
        let head = Head::read(self.as_bytes(), at).expect("a position of this listpack");
        head.size()
    }

    /// The length field has 32 bits. Owners stay far below that ([`BYTES_MAX`]). Checked before a change.
    #[inline]
    fn check_room(&self, added: usize) {
        assert!(self.encoded_len() + added <= u32::MAX as usize, "a listpack beyond 4 GiB");
    }

    /// Writes an element over `old` bytes and moves the tail once.
    fn splice(&mut self, at: usize, old: usize, encoded: &Encoded<'_>) {
        let (new, len) = (encoded.size(), self.bytes.len());
        assert!(at >= HEADER_LEN && at + old < self.encoded_len(), "a position of this listpack");
        let at = self.start + at;
        if new > old {
            self.check_room(new - old);
            self.bytes.resize(len + new - old, 0);
            self.bytes.copy_within(at + old..len, at + new);
        } else if new < old {
            self.bytes.copy_within(at + old.., at + new);
            self.bytes.truncate(len - (old - new));
        }
        encoded.write(&mut self.bytes[at..at + new]);
    }

    /// Writes the length, and the count after a change. An unknown count stays unknown.
    #[inline]
    fn set_header(&mut self, added: usize, removed: usize) {
        let known = self.as_listpack().known_len();
        let count = known.map_or(usize::MAX, |count| count + added - removed);
        let count = u16::try_from(count).unwrap_or(COUNT_UNKNOWN);
        let total = self.encoded_len() as u32;
        let header = &mut self.bytes[self.start..self.start + HEADER_LEN];
        header[..4].copy_from_slice(&total.to_le_bytes());
        header[4..].copy_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
