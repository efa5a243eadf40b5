//! Lists: a listpack while they are small, else a tree of listpacks by position.
//!
//! The form changes as in Redis 7.2. A list becomes large when the elements about to be added would exceed
//! `list-max-listpack-size`. It becomes small again when a removal or a replacement has left half of that.
//!
//! Invariants:
//! - Additions are announced by [`ListMut::expect`]. The form after unannounced ones is decided at the end.
//! - No leaf holds more than 16 KiB, except for a single longer element. No leaf keeps much more memory than it uses.

use super::codec::Spill;
use std::ops::Range;

use super::Limits;
use super::collection::{Collection, Finished, Stored};
use super::entry::{Heap, HeapMut, Kind, NewValue, Packing, ValueRef};
use super::listpack::{self, Item, Listpack, ListpackBuf};
use super::tree::{Cursor, Leaf, Tree, Where};
use crate::base::varint::{put_varint, take_string};

/// The most bytes of a leaf, except when a single element is longer: what an allocation of 16 KiB holds.
const LEAF_BYTES_MAX: usize = 16384 - 16;
/// From this many leaves on, a new leaf gets all its room at once.
const LEAVES_OF_A_LONG_LIST: usize = 16;
/// The most bytes of a small list's listpack where the directive counts elements.
const SAFE_BYTES_MAX: usize = 8192;

/// A leaf of a large list.
#[derive(Clone, Debug, Default)]
struct Chunk(ListpackBuf);

impl Leaf for Chunk {
    type Key = ();

    fn first_key(&self) {}

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.encoded_len()
    }

    fn is_overfull(&self) -> bool {
        self.0.encoded_len() > LEAF_BYTES_MAX && self.0.len() > 1
    }

    fn is_sparse(&self) -> bool {
        self.0.encoded_len() < LEAF_BYTES_MAX / 4
    }

    fn fits_with(&self, next: &Self) -> bool {
        self.0.encoded_len() + next.0.encoded_len() < LEAF_BYTES_MAX * 3 / 4
    }

    fn split(&mut self, at: Where) -> Self {
        let len = self.0.len();
        let index = match at {
            Where::Front => 1,
            Where::Back => len - 1,
            Where::Middle => len / 2,
        };
        let place = self.0.as_listpack().seek(index as i64).expect("a leaf that is split has elements on both sides");
        let mut upper = self.0.split_off(place);
        // A leaf that is left full does not grow any more. One that is cut in two has room for twice its content.
        match at {
            Where::Front => upper.shrink_to_fit(),
            Where::Back | Where::Middle => self.0.shrink_to_fit(),
        }
        Chunk(upper)
    }

    fn append(&mut self, next: &Self) {
        self.0.append(next.0.as_listpack());
    }

    fn remove_range(&mut self, range: Range<usize>) {
        if let Some(place) = self.0.as_listpack().seek(range.start as i64) {
            self.0.remove(place, range.len());
            self.0.trim();
        }
    }
}

impl Chunk {
    /// Adds an element of `size` bytes at an end, if there is room.
    #[inline]
    fn push(&mut self, element: Item<'_>, size: usize, end: End) -> bool {
        match end {
            End::Left if self.0.make_room_front(size, LEAF_BYTES_MAX) => self.0.push_front(element),
            End::Right if self.0.make_room_back(size, LEAF_BYTES_MAX) => self.0.push_back(element),
            _ => return false,
        }
        true
    }
}

/// Removes elements equal to a given one within a range: at most this many, from the side where the search begins.
fn remove_equal(elements: &mut ListpackBuf, range: Range<usize>, element: Item<'_>, most: usize, from: End) -> usize {
    let among = elements.as_listpack().iter().take(range.end).skip(range.start);
    let passed_over = match from {
        End::Left => 0,
        End::Right => among.filter(|other| *other == element).count().saturating_sub(most),
    };
    let (mut at, mut met) = (0, 0);
    elements.retain(1, |other| {
        let equal = range.contains(&at) && other == element;
        at += 1;
        met += usize::from(equal);
        !equal || met <= passed_over || met - passed_over > most
    })
}

/// The large form of a list. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct List {
    chunks: Tree<Chunk>,
}

impl List {
    fn of(elements: Listpack<'_>) -> List {
        let mut list = List::default();
        let whole = Chunk(ListpackBuf::from(elements));
        if whole.is_overfull() {
            elements.iter().for_each(|element| list.push(element, End::Right));
        } else {
            list.chunks.add_leaf(whole, true);
        }
        list
    }

    fn len(&self) -> usize {
        self.chunks.len()
    }

    fn push(&mut self, element: Item<'_>, end: End) {
        let (index, place) = match end {
            End::Left => (0, Where::Front),
            End::Right => (self.len(), Where::Back),
        };
        let size = listpack::item_size(element);
        let pushed = self.chunks.edit_at(index, |chunk, _| {
            let has_room = chunk.push(element, size, end);
            if !has_room {
                chunk.0.settle();
            }
            (has_room, place)
        });
        if pushed != Some(true) {
            // A full leaf stays as it is. If it grew and was split, it would be copied twice and leave holes. In a
            // long list a leaf gets all its room from the start, for the same reason.
            let is_long = self.bytes() >= LEAVES_OF_A_LONG_LIST * LEAF_BYTES_MAX;
            let mut next = Chunk(ListpackBuf::with_capacity(if is_long { LEAF_BYTES_MAX } else { 0 }));
            if !next.push(element, size, end) {
                next.0.push_back(element);
            }
            self.chunks.add_leaf(next, end == End::Right);
        }
    }

    /// The bytes that it takes, without a walk.
    pub fn bytes(&self) -> usize {
        self.chunks.bytes()
    }

    /// How many chunks it has, and the bytes of their elements. Walks over the chunks.
    pub fn chunks(&self) -> (usize, usize) {
        self.chunks.leaves().fold((0, 0), |(chunks, bytes), chunk| (chunks + 1, bytes + chunk.0.as_bytes().len()))
    }

    /// Appends its elements in the form that `persist::format` draws.
    pub fn encode(&self, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        for chunk in self.chunks.leaves() {
            put_varint(out, chunk.0.encoded_len() as u64);
            out.extend_from_slice(chunk.0.as_bytes());
            spill(out);
        }
    }

    /// Reads what [`List::encode`] wrote; `None` if the bytes are not that.
    pub fn decode(bytes: &[u8], _limits: &Limits) -> Option<List> {
        let (mut rest, mut chunks) = (bytes, Vec::<Chunk>::new());
        while !rest.is_empty() {
            let elements = Listpack::parse(take_string(&mut rest)?).filter(|elements| !elements.is_empty())?;
            let chunk = Chunk(ListpackBuf::from(elements));
            if chunk.is_overfull() {
                // Written by a version with larger leaves.
                chunks.extend(List::of(elements).chunks.leaves().cloned());
                continue;
            }
            // Many tiny leaves would take many times the bytes that they were read from.
            match chunks.last_mut().filter(|last| chunk.is_sparse() && last.fits_with(&chunk)) {
                Some(last) => last.append(&chunk),
                None => chunks.push(chunk),
            }
        }
        let chunks = Tree::from_leaves(chunks);
        (!chunks.is_empty()).then_some(List { chunks })
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        self.chunks.check_invariants();
        self.chunks.leaves().for_each(|chunk| chunk.0.check_invariants());
    }
}

/// Decodes a small list from bytes of any origin. It becomes large if it exceeds the limits.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn decode_packed<'a>(bytes: &'a [u8], limits: &Limits) -> Result<NewValue<'a>, &'static str> {
    let list = Listpack::parse(bytes).ok_or("a list's listpack is malformed")?;
    if list.is_empty() {
        return Err("a list has no elements");
    }
    if fits(limits, bytes.len(), list.len()) {
        Ok(NewValue::Packed(Packing::List, bytes))
    } else {
        Ok(NewValue::Heap(Heap::List(triomphe::Arc::new(List::of(list)))))
    }
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// A list, for reading.
#[derive(Clone, Copy, Debug)]
pub enum ListRef<'a> {
    /// Few elements.
    Packed(Listpack<'a>),
    /// Many.
    Large(&'a List),
}

impl<'a> ListRef<'a> {
    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            ListRef::Packed(elements) => elements.len(),
            ListRef::Large(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves a client's index, which counts from the end if negative; `None` if there is no such element.
    pub fn index(&self, index: i64) -> Option<usize> {
        let len = self.len() as i64;
        let index = if index < 0 { index.checked_add(len)? } else { index };
        (0..len).contains(&index).then_some(index as usize)
    }

    /// The element at an index.
    pub fn get(&self, index: usize) -> Option<Item<'a>> {
        match self {
            ListRef::Packed(elements) => elements.get(index as i64),
            ListRef::Large(list) => {
                let (chunk, at) = list.chunks.locate(index)?;
                chunk.0.as_listpack().get(at as i64)
            }
        }
    }

    /// The elements from an index on, to the right or to the left.
    pub fn iter_from(&self, index: usize, towards: End) -> Elements<'a> {
        let (cursor, elements, at) = match self {
            ListRef::Packed(elements) => (None, *elements, index),
            ListRef::Large(list) => {
                let Some(cursor) = list.chunks.cursor(index) else { return Elements::none(towards) };
                (Some(cursor.clone()), cursor.leaf().0.as_listpack(), index - cursor.rank())
            }
        };
        let inside = match towards {
            End::Right => elements.seek(at as i64).map(|place| elements.iter_from(place)),
            // The elements behind the place must not be seen: the range ends where the next element begins.
            End::Left => elements.seek(at as i64).map(|place| elements.iter_to(place)),
        };
        Elements { cursor, inside, towards }
    }

    /// All elements, from the left.
    pub fn iter(&self) -> Elements<'a> {
        self.iter_from(0, End::Right)
    }
}

/// Elements of a list in one direction.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    cursor: Option<Cursor<'a, Chunk>>,
    inside: Option<listpack::Iter<'a>>,
    towards: End,
}

impl Elements<'_> {
    fn none(towards: End) -> Self {
        Elements { cursor: None, inside: None, towards }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let inside = self.inside.as_mut()?;
            let next = match self.towards {
                End::Right => inside.next(),
                End::Left => inside.next_back(),
            };
            if next.is_some() {
                return next;
            }
            let cursor = self.cursor.as_mut()?;
            let moved = match self.towards {
                End::Right => cursor.forward(),
                End::Left => cursor.backward(),
            };
            self.inside = moved.then(|| cursor.leaf().0.as_listpack().iter());
        }
    }
}

/// A list, for editing.
#[derive(Debug)]
pub struct ListMut<'a> {
    form: Form<'a>,
    limits: Limits,
    /// Whether the form was chosen for all additions in advance: see [`ListMut::expect`].
    announced: bool,
    /// Whether something was removed or replaced, so that a large list may have become small.
    reduced: bool,
}

#[derive(Debug)]
enum Form<'a> {
    Packed(ListpackBuf),
    Fresh(List),
    Large(&'a mut List),
}

impl<'a> ListMut<'a> {
    fn of(form: Form<'a>, limits: &Limits) -> ListMut<'a> {
        ListMut { form, limits: *limits, announced: false, reduced: false }
    }
}

impl ListMut<'_> {
    /// An empty list that belongs to no key.
    pub fn new(limits: &Limits) -> ListMut<'static> {
        ListMut::of(Form::Packed(ListpackBuf::new()), limits)
    }

    /// The list as it is now.
    #[inline]
    pub fn view(&self) -> ListRef<'_> {
        match &self.form {
            Form::Packed(elements) => ListRef::Packed(elements.as_listpack()),
            Form::Fresh(list) => ListRef::Large(list),
            Form::Large(list) => ListRef::Large(list),
        }
    }

    /// Announces this many elements with this many bytes of text, and takes the form for them.
    pub fn expect(&mut self, elements: usize, bytes: usize) {
        // As in Redis, the heads and back lengths of the elements are not counted here and may exceed the limit.
        self.announced = true;
        if let Form::Packed(packed) = &self.form
            && !fits(&self.limits, packed.encoded_len() + bytes, packed.len() + elements)
        {
            self.form = Form::Fresh(List::of(packed.as_listpack()));
        }
    }

    /// Adds an element at an end.
    #[inline]
    pub fn push(&mut self, element: &[u8], end: End) {
        match (&mut self.form, end) {
            (Form::Packed(elements), End::Left) => elements.push_front(element),
            (Form::Packed(elements), End::Right) => elements.push_back(element),
            (Form::Fresh(list), end) => list.push(element.into(), end),
            (Form::Large(list), end) => list.push(element.into(), end),
        }
    }

    /// Removes the element at an end after passing it to `show`.
    pub fn pop<R>(&mut self, end: End, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let index = match end {
            End::Left => 0,
            End::Right => self.view().len().checked_sub(1)?,
        };
        self.reduced = true;
        let take = |elements: &mut ListpackBuf| {
            let list = elements.as_listpack();
            let place = match end {
                End::Left => list.first()?,
                End::Right => list.last()?,
            };
            let shown = show(list.get_at(place));
            elements.remove(place, 1);
            Some(shown)
        };
        match self.large() {
            Some(list) => {
                let taken = list.chunks.edit_at(index, |chunk, _| {
                    let taken = take(&mut chunk.0);
                    chunk.0.trim();
                    (taken, Where::Middle)
                });
                taken.flatten()
            }
            None => match &mut self.form {
                Form::Packed(elements) => take(elements),
                _ => None,
            },
        }
    }

    /// Inserts an element before the one at an index, or at the end.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        if index >= self.view().len() {
            return self.push(element, End::Right);
        }
        let put = |elements: &mut ListpackBuf, at: usize| {
            if let Some(place) = elements.as_listpack().seek(at as i64) {
                elements.insert_before(place, element);
            }
        };
        match self.large() {
            Some(list) => drop(list.chunks.edit_at(index, |chunk, at| (put(&mut chunk.0, at), Where::Middle))),
            None => self.packed(|elements| put(elements, index)),
        }
    }

    /// Replaces the element at an index.
    pub fn set(&mut self, index: usize, element: &[u8]) {
        self.reduced = true;
        let put = |elements: &mut ListpackBuf, at: usize| {
            if let Some(place) = elements.as_listpack().seek(at as i64) {
                elements.replace(place, element);
            }
        };
        match self.large() {
            Some(list) => drop(list.chunks.edit_at(index, |chunk, at| (put(&mut chunk.0, at), Where::Middle))),
            None => self.packed(|elements| put(elements, index)),
        }
    }

    /// Removes the elements in a range of indexes.
    pub fn remove_range(&mut self, range: Range<usize>) {
        self.reduced = true;
        match self.large() {
            Some(list) => list.chunks.remove_range(range),
            None => self.packed(|elements| {
                if let Some(place) = elements.as_listpack().seek(range.start as i64) {
                    elements.remove(place, range.len());
                }
            }),
        }
    }

    /// Removes at most this many elements equal to a given one, from the left or from the right. Returns how many
    /// were removed. It works leaf by leaf: leaves without such an element stay as they are, and shared.
    pub fn remove_equal(&mut self, element: &[u8], most: usize, from: End) -> usize {
        self.reduced = true;
        let element = Item::canonical(element);
        let Some(list) = self.large() else {
            let Form::Packed(packed) = &mut self.form else { return 0 };
            return remove_equal(packed, 0..packed.len(), element, most, from);
        };
        let (mut removed, mut rest) = (0, 0..list.len());
        while !rest.is_empty() && removed < most {
            let index = if from == End::Left { rest.start } else { rest.end - 1 };
            let Some((chunk, at)) = list.chunks.locate(index) else { break };
            // The elements of this leaf that are still to be examined.
            let here = match from {
                End::Left => at..chunk.len(),
                End::Right => 0..at + 1,
            };
            let (passed, mut gone) = (here.len(), 0);
            if chunk.0.as_listpack().iter().take(here.end).skip(here.start).any(|other| other == element) {
                let edited = list.chunks.edit_at(index, |chunk, _| {
                    let gone = remove_equal(&mut chunk.0, here, element, most - removed, from);
                    chunk.0.trim();
                    (gone, Where::Middle)
                });
                gone = edited.unwrap_or(0);
            }
            removed += gone;
            match from {
                End::Left => rest = rest.start + passed - gone..rest.end - gone,
                End::Right => rest.end -= passed,
            }
        }
        removed
    }

    fn large(&mut self) -> Option<&mut List> {
        match &mut self.form {
            Form::Packed(_) => None,
            Form::Fresh(list) => Some(list),
            Form::Large(list) => Some(list),
        }
    }

    fn packed(&mut self, edit: impl FnOnce(&mut ListpackBuf)) {
        if let Form::Packed(elements) = &mut self.form {
            edit(elements);
        }
    }
}

/// The most bytes and the most elements of a small list.
fn bounds(limits: &Limits) -> (usize, usize) {
    match limits.list_max_listpack_size {
        size @ ..0 => (4096 << (-1 - size).clamp(0, 4), usize::MAX),
        count => (SAFE_BYTES_MAX, count.max(1) as usize),
    }
}

/// Whether a small list may have this many bytes and elements.
fn fits(limits: &Limits, bytes: usize, elements: usize) -> bool {
    let (bytes_max, elements_max) = bounds(limits);
    bytes <= bytes_max && elements <= elements_max
}

/// The small form of a large list, if it takes at most half of what a small list may.
fn shrunk(list: &List, limits: &Limits) -> Option<ListpackBuf> {
    let (bytes_max, elements_max) = bounds(limits);
    // Most lists are far too large. This test reads no leaf.
    if list.len() > elements_max / 2 || list.bytes() > bytes_max + LEAF_BYTES_MAX {
        return None;
    }
    let header = Listpack::EMPTY.encoded_len();
    let bytes = list.chunks.leaves().map(|chunk| chunk.bytes() - header).sum::<usize>() + header;
    if bytes > bytes_max / 2 {
        return None;
    }
    let mut packed = ListpackBuf::with_capacity(bytes);
    list.chunks.leaves().for_each(|chunk| packed.append(chunk.0.as_listpack()));
    Some(packed)
}

/// The type of lists.
#[derive(Debug)]
pub struct AnyList;

impl Collection for AnyList {
    type Ref<'a> = ListRef<'a>;
    type Mut<'a> = ListMut<'a>;

    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::ListPacked | Kind::List)
    }

    #[inline]
    fn view(value: ValueRef<'_>) -> Option<ListRef<'_>> {
        match value {
            ValueRef::Packed(Packing::List, bytes) => Some(ListRef::Packed(Listpack::trusted(bytes.as_slice()))),
            ValueRef::List(list) => Some(ListRef::Large(list)),
            _ => None,
        }
    }

    #[inline]
    fn edit<'a>(stored: Stored<'a>, limits: &Limits) -> Option<ListMut<'a>> {
        let form = match stored {
            Stored::Missing(mut room) => {
                room.extend_from_slice(Listpack::EMPTY.as_bytes());
                Form::Packed(ListpackBuf::from_vec(room))
            }
            Stored::Packed(Packing::List, bytes) => Form::Packed(ListpackBuf::from_vec(bytes)),
            Stored::Large(HeapMut::List(list)) => Form::Large(list),
            _ => return None,
        };
        Some(ListMut::of(form, limits))
    }

    #[inline]
    fn finish(edited: ListMut<'_>) -> Finished {
        if edited.view().is_empty() {
            return Finished::Empty;
        }
        let limits = &edited.limits;
        let smaller = |list: &List| edited.reduced.then(|| shrunk(list, limits)).flatten();
        let large = |list| Finished::Large(Heap::List(triomphe::Arc::new(list)));
        let packed = match edited.form {
            Form::Packed(elements) => {
                if !edited.announced && !fits(limits, elements.encoded_len(), elements.len()) {
                    return large(List::of(elements.as_listpack()));
                }
                elements
            }
            Form::Fresh(list) => match smaller(&list) {
                None => return large(list),
                Some(packed) => packed,
            },
            Form::Large(list) => match smaller(list) {
                None => return Finished::InPlace,
                Some(packed) => packed,
            },
        };
        Finished::Packed(Packing::List, packed.into_vec())
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
