//! Lists: a listpack while they are small, else a tree of listpacks by position.
//!
//! The form changes as in Redis 7.2: a list becomes large when `list-max-listpack-size` is passed, and small
//! again when it has shrunk to half of that.

use std::ops::Range;

use super::Limits;
use super::collection::{Collection, Finished, Stored};
use super::entry::{Heap, HeapMut, Kind, Packing, ValueRef};
use super::listpack::{self, Item, Listpack, ListpackBuf};
use super::tree::{Cursor, Leaf, Tree, Where};
use crate::base::varint::{put_varint, take_string};

/// The bytes of a leaf, in all but the case of one element that is longer: what an allocation of 8 KiB holds.
const LEAF_BYTES_MAX: usize = 8192 - 16;
/// No listpack of a small list becomes larger than this where the directive counts elements.
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
        // A leaf that is left full grows no more.
        match at {
            Where::Front => upper.shrink_to_fit(),
            Where::Back => self.0.shrink_to_fit(),
            Where::Middle => {}
        }
        Chunk(upper)
    }

    fn append(&mut self, next: &Self) {
        self.0.append(next.0.as_listpack());
    }

    fn remove_range(&mut self, range: Range<usize>) {
        if let Some(place) = self.0.as_listpack().seek(range.start as i64) {
            self.0.remove(place, range.len());
        }
    }
}

/// The large form of a list. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct List {
    chunks: Tree<Chunk>,
}

impl List {
    fn of(elements: Listpack<'_>) -> List {
        let mut list = List::default();
        list.extend(elements.iter());
        list
    }

    fn extend<'a>(&mut self, elements: impl Iterator<Item = Item<'a>>) {
        elements.for_each(|element| self.push(element, End::Right));
    }

    fn len(&self) -> usize {
        self.chunks.len()
    }

    fn push(&mut self, element: Item<'_>, end: End) {
        let (index, place) = match end {
            End::Left => (0, Where::Front),
            End::Right => (self.len(), Where::Back),
        };
        let pushed = self.chunks.edit_at(index, |chunk, _| {
            match end {
                End::Left => chunk.0.push_front(element),
                End::Right => chunk.0.push_back(element),
            }
            ((), place)
        });
        if pushed.is_none() {
            let mut first = Chunk::default();
            first.0.push_back(element);
            self.chunks.add_leaf(first, true);
        }
    }

    /// The bytes that it takes: without a walk.
    pub fn bytes(&self) -> usize {
        self.chunks.bytes()
    }

    /// Appends its elements in the form that `persist::format` draws.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for chunk in self.chunks.leaves() {
            put_varint(out, chunk.0.encoded_len() as u64);
            out.extend_from_slice(chunk.0.as_bytes());
        }
    }

    /// Reads what [`List::encode`] wrote; `None` if the bytes are not that.
    pub fn decode(bytes: &[u8], _limits: &Limits) -> Option<List> {
        let (mut rest, mut chunks) = (bytes, Vec::new());
        while !rest.is_empty() {
            let elements = Listpack::parse(take_string(&mut rest)?).filter(|elements| !elements.is_empty())?;
            let chunk = Chunk(ListpackBuf::from(elements));
            if chunk.is_overfull() {
                // Written by a version with larger leaves.
                chunks.extend(List::of(elements).chunks.leaves().cloned());
            } else {
                chunks.push(chunk);
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

/// Whether bytes from outside are a small list.
pub(super) fn is_sound(bytes: &[u8]) -> bool {
    Listpack::parse(bytes).is_some_and(|elements| !elements.is_empty())
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

    /// The index that a client means, from the end if negative; `None` if there is no such element.
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
            // What stands behind the place is not to be seen: it ends where the next element begins.
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
}

#[derive(Debug)]
enum Form<'a> {
    Packed(ListpackBuf),
    Fresh(List),
    Large(&'a mut List),
}

impl ListMut<'_> {
    /// An empty list that stands at no key.
    pub fn new(limits: &Limits) -> ListMut<'static> {
        ListMut { form: Form::Packed(ListpackBuf::new()), limits: *limits }
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

    /// So many elements of so many bytes are about to come: takes the form for them.
    pub fn expect(&mut self, elements: usize, bytes: usize) {
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

    /// Removes the element at an end, having shown it.
    pub fn pop<R>(&mut self, end: End, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let index = match end {
            End::Left => 0,
            End::Right => self.view().len().checked_sub(1)?,
        };
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
            Some(list) => list.chunks.edit_at(index, |chunk, _| (take(&mut chunk.0), Where::Middle)).flatten(),
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

    /// Puts another element in the place of the one at an index.
    pub fn set(&mut self, index: usize, element: &[u8]) {
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
        match self.large() {
            Some(list) => list.chunks.remove_range(range),
            None => self.packed(|elements| {
                if let Some(place) = elements.as_listpack().seek(range.start as i64) {
                    elements.remove(place, range.len());
                }
            }),
        }
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

/// Whether a small list may have so many bytes and elements.
fn fits(limits: &Limits, bytes: usize, elements: usize) -> bool {
    match limits.list_max_listpack_size {
        size @ ..0 => bytes <= 4096 << (-size - 1).clamp(0, 4),
        count => bytes <= SAFE_BYTES_MAX && elements <= count.max(1) as usize,
    }
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
        Some(ListMut { form, limits: *limits })
    }

    #[inline]
    fn finish(edited: ListMut<'_>) -> Finished {
        if edited.view().is_empty() {
            return Finished::Empty;
        }
        let limits = &edited.limits;
        let shrunk = |list: &List| {
            let (bytes, elements) = (2 * list.bytes(), 2 * list.len());
            fits(limits, bytes, elements).then(|| {
                let mut packed = ListpackBuf::new();
                list.chunks.leaves().for_each(|chunk| packed.append(chunk.0.as_listpack()));
                Finished::Packed(Packing::List, packed.into_vec())
            })
        };
        match edited.form {
            Form::Packed(elements) => {
                if fits(limits, elements.encoded_len(), elements.len()) {
                    Finished::Packed(Packing::List, elements.into_vec())
                } else {
                    Finished::Large(Heap::List(triomphe::Arc::new(List::of(elements.as_listpack()))))
                }
            }
            Form::Fresh(list) => Finished::Large(Heap::List(triomphe::Arc::new(list))),
            Form::Large(list) => shrunk(list).unwrap_or(Finished::InPlace),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::hash::HashSeed;

    fn limits() -> Limits {
        Limits { list_max_listpack_size: 4, ..Limits::defaults(HashSeed([3; 16])) }
    }

    /// Stores what an edit has come to, and takes it up again.
    fn through_store(list: ListMut<'_>) -> ListMut<'static> {
        let limits = list.limits;
        let stored = match AnyList::finish(list) {
            Finished::Empty => Stored::Missing(Vec::new()),
            Finished::Packed(packing, bytes) => {
                assert!(is_sound(&bytes));
                Stored::Packed(packing, bytes)
            }
            Finished::Large(Heap::List(list)) => {
                list.check_invariants();
                let mut bytes = Vec::new();
                list.encode(&mut bytes);
                return ListMut { form: Form::Fresh(List::decode(&bytes, &limits).expect("what was encoded")), limits };
            }
            other => panic!("{other:?}"),
        };
        AnyList::edit(stored, &limits).expect("a list")
    }

    #[derive(Clone, Debug)]
    enum Edit {
        Push(Vec<u8>, bool),
        Pop(bool),
        Insert(usize, Vec<u8>),
        Set(usize, Vec<u8>),
        Remove(usize, usize),
        Store,
    }

    fn end(left: bool) -> End {
        if left { End::Left } else { End::Right }
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => any::<i16>().prop_map(|number| number.to_string().into_bytes()),
            4 => prop::collection::vec(any::<u8>(), 0..10),
            1 => (2000usize..12_000).prop_map(|len| vec![b'x'; len]),
        ]
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            6 => (element(), any::<bool>()).prop_map(|(e, left)| Edit::Push(e, left)),
            2 => any::<bool>().prop_map(Edit::Pop),
            2 => (any::<usize>(), element()).prop_map(|(at, e)| Edit::Insert(at, e)),
            2 => (any::<usize>(), element()).prop_map(|(at, e)| Edit::Set(at, e)),
            1 => (any::<usize>(), 0usize..8).prop_map(|(at, len)| Edit::Remove(at, len)),
            1 => Just(Edit::Store),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_vector_does(edits in prop::collection::vec(edit(), 1..120)) {
            let (mut list, mut model) = (ListMut::new(&limits()), Vec::<Vec<u8>>::new());
            let mut frozen = Vec::new();
            for edit in edits {
                match edit {
                    Edit::Push(element, left) => {
                        list.expect(1, element.len());
                        list.push(&element, end(left));
                        model.insert(if left { 0 } else { model.len() }, element);
                    }
                    Edit::Pop(left) => {
                        let popped = list.pop(end(left), |item| item.to_vec());
                        let expected = match left {
                            true if !model.is_empty() => Some(model.remove(0)),
                            _ => model.pop(),
                        };
                        prop_assert_eq!(popped, expected);
                    }
                    Edit::Insert(at, element) => {
                        let at = at % (model.len() + 1);
                        list.insert(at, &element);
                        model.insert(at, element);
                    }
                    Edit::Set(at, element) if !model.is_empty() => {
                        let at = at % model.len();
                        list.set(at, &element);
                        model[at] = element;
                    }
                    Edit::Set(..) => {}
                    Edit::Remove(at, len) => {
                        let from = at % (model.len() + 1);
                        let to = (from + len).min(model.len());
                        list.remove_range(from..to);
                        model.drain(from..to);
                    }
                    Edit::Store => {
                        list = through_store(list);
                        if let Form::Fresh(large) = &list.form {
                            frozen.push((large.clone(), model.clone()));
                        }
                    }
                }
                prop_assert_eq!(list.view().len(), model.len());
            }
            let all = |list: ListRef<'_>| list.iter().map(Item::to_vec).collect::<Vec<_>>();
            prop_assert_eq!(all(list.view()), model.clone());
            for at in 0..model.len() {
                prop_assert_eq!(list.view().get(at).map(Item::to_vec), Some(model[at].clone()));
                let left: Vec<Vec<u8>> = list.view().iter_from(at, End::Left).map(Item::to_vec).collect();
                prop_assert_eq!(left, model[..=at].iter().rev().cloned().collect::<Vec<_>>());
                let right: Vec<Vec<u8>> = list.view().iter_from(at, End::Right).map(Item::to_vec).collect();
                prop_assert_eq!(&right, &model[at..]);
            }
            for (large, model) in frozen {
                prop_assert_eq!(all(ListRef::Large(&large)), model);
            }
        }

        #[test]
        fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(list) = List::decode(&bytes, &limits()) {
                list.check_invariants();
            }
            is_sound(&bytes);
        }
    }

    #[test]
    fn a_large_list_takes_little_more_than_its_elements() {
        let mut list = List::default();
        for number in 0..200_000 {
            list.push(Item::Str(format!("element:{number:012}").as_bytes()), End::Right);
        }
        list.check_invariants();
        // A head byte, 20 bytes, a back length.
        let bytes = list.bytes() as f64 / (200_000.0 * 22.0);
        assert!(bytes < 1.02, "{bytes}");
    }
}
