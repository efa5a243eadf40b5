//! Sets: an intset while all members are integers and few, a listpack while they are few and short, else a map.
//!
//! The forms change as in Redis 7.2, from the smaller to the larger and never back. An intset becomes a listpack when
//! a member that is not an integer is added, and a map when it has too many members. A listpack becomes a map.

use super::codec::Spill;
use super::collection::{Collection, Finished, Stored};
use super::entry::{EntryRef, Heap, HeapMut, Kind, NewValue, Packing, ValueRef};
use super::intset::{Intset, IntsetBuf};
use super::listpack::{self, Item, Listpack, ListpackBuf};
use super::{Limits, Map};
use crate::base::format;
use crate::base::random::Random;
use crate::base::varint::{put_varint, take_string, take_varint};

/// The large form of a set. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Set {
    members: Map,
}

impl Set {
    fn with_capacity(limits: &Limits, len: usize) -> Set {
        Set { members: Map::with_capacity(limits.seed, len) }
    }

    /// Its members.
    pub(super) fn map(&self) -> &Map {
        &self.members
    }

    /// The same, mutable, to move its segments.
    pub(super) fn map_mut(&mut self) -> &mut Map {
        &mut self.members
    }

    fn add(&mut self, member: &[u8]) -> bool {
        self.members.insert(member, NewValue::Bytes(b""))
    }

    /// An estimate of its bytes, without a walk, for the decision to free it on another thread.
    pub fn bytes(&self) -> usize {
        self.members.bytes()
    }

    /// Appends its elements in the form that `persist::format` draws.
    pub fn encode(&self, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        put_varint(out, self.members.len() as u64);
        for entry in self.members.iter() {
            put_varint(out, entry.key().len() as u64);
            out.extend_from_slice(entry.key());
            spill(out);
        }
    }

    /// Reads what [`Set::encode`] wrote; `None` if the bytes are not that.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Option<Set> {
        let mut rest = bytes;
        let count = usize::try_from(take_varint(&mut rest)?).ok()?;
        // A member takes at least one byte, so the claim is bounded before anything is allocated for it.
        if count == 0 || count > rest.len() {
            return None;
        }
        let mut set = Set::with_capacity(limits, count);
        for _ in 0..count {
            if !set.add(take_string(&mut rest)?) {
                return None;
            }
        }
        rest.is_empty().then_some(set)
    }
}

/// Whether bytes from outside are a set of this packing.
pub(super) fn is_sound(packing: Packing, bytes: &[u8]) -> bool {
    if packing == Packing::SetInts {
        return Intset::parse(bytes).is_some_and(|ints| !ints.is_empty());
    }
    let Some(members) = Listpack::parse(bytes).filter(|members| !members.is_empty()) else { return false };
    let mut all: Vec<Vec<u8>> = members.iter().map(Item::to_vec).collect();
    all.sort_unstable();
    all.windows(2).all(|pair| pair[0] != pair[1])
}

/// A set, for reading.
#[derive(Clone, Copy, Debug)]
pub enum SetRef<'a> {
    /// Integers.
    Ints(Intset<'a>),
    /// Few members.
    Packed(Listpack<'a>),
    /// Many.
    Large(&'a Set),
}

impl<'a> SetRef<'a> {
    /// How many members there are.
    pub fn len(&self) -> usize {
        match self {
            SetRef::Ints(ints) => ints.len(),
            SetRef::Packed(members) => members.len(),
            SetRef::Large(set) => set.members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a member is there.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match self {
            SetRef::Ints(ints) => format::parse_i64(member).is_some_and(|number| ints.contains(number)),
            SetRef::Packed(members) => members.first().is_some_and(|first| members.find(member, first, 0).is_some()),
            SetRef::Large(set) => set.members.contains(member),
        }
    }

    /// Whether a member of another set is there.
    pub fn has(&self, member: Item<'_>) -> bool {
        match (self, member) {
            (SetRef::Ints(ints), Item::Int(number)) => ints.contains(number),
            (_, member) => self.contains(member.as_bytes(&mut itoa::Buffer::new())),
        }
    }

    /// All members, in arbitrary order.
    pub fn iter(&self) -> Members<'a> {
        match self {
            SetRef::Ints(ints) => Members::Ints { ints: *ints, next: 0 },
            SetRef::Packed(members) => Members::Packed(members.iter()),
            SetRef::Large(set) => Members::Large(Box::new(set.members.iter())),
        }
    }

    /// A member at random.
    pub fn random(&self, random: &mut Random) -> Option<Item<'a>> {
        match self {
            SetRef::Ints(ints) => ints.get(random.index(ints.len())).map(Item::Int),
            SetRef::Packed(members) => members.get(random.index(members.len()) as i64),
            SetRef::Large(set) => set.members.random(random.next_u64()).map(|entry| Item::Str(entry.key())),
        }
    }

    /// Visits about `budget` members from a cursor on. Returns the next cursor, 0 at the end. A small set is visited
    /// as a whole.
    pub fn scan(&self, cursor: u64, budget: usize, visit: &mut dyn FnMut(&[u8])) -> u64 {
        match self {
            SetRef::Large(set) => set.members.scan_cursor(cursor, budget, &mut |entry| visit(entry.key())),
            _ => {
                self.iter().for_each(|member| visit(member.as_bytes(&mut itoa::Buffer::new())));
                0
            }
        }
    }
}

/// The members of a set.
pub enum Members<'a> {
    /// Of an intset.
    Ints {
        /// The intset.
        ints: Intset<'a>,
        /// The index of the next member.
        next: usize,
    },
    /// Of a listpack.
    Packed(listpack::Iter<'a>),
    /// Of a map.
    Large(Box<dyn Iterator<Item = EntryRef<'a>> + 'a>),
}

impl<'a> Iterator for Members<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Members::Ints { ints, next } => {
                *next += 1;
                ints.get(*next - 1).map(Item::Int)
            }
            Members::Packed(items) => items.next(),
            Members::Large(entries) => entries.next().map(|entry| Item::Str(entry.key())),
        }
    }
}

/// A set, for editing.
#[derive(Debug)]
pub struct SetMut<'a> {
    form: Form<'a>,
    limits: Limits,
}

#[derive(Debug)]
enum Form<'a> {
    /// No member yet, and room for them.
    Empty(Vec<u8>),
    Ints(IntsetBuf),
    Packed(ListpackBuf),
    Fresh(Set),
    Large(&'a mut Set),
}

impl SetMut<'_> {
    /// An empty set that belongs to no key.
    pub fn new(limits: &Limits) -> SetMut<'static> {
        SetMut { form: Form::Empty(Vec::new()), limits: *limits }
    }

    /// The set as it is now.
    pub fn view(&self) -> SetRef<'_> {
        match &self.form {
            Form::Empty(_) => SetRef::Ints(Intset::EMPTY),
            Form::Ints(ints) => SetRef::Ints(ints.as_intset()),
            Form::Packed(members) => SetRef::Packed(members.as_listpack()),
            Form::Fresh(set) => SetRef::Large(set),
            Form::Large(set) => SetRef::Large(set),
        }
    }

    /// Announces up to this many members, of which `first` is the first, and takes the form for them.
    pub fn expect(&mut self, members: usize, first: &[u8]) {
        let limits = self.limits;
        match &mut self.form {
            Form::Empty(_) => self.begin(members, first),
            Form::Ints(_) if members > limits.set_max_intset_entries => self.enlarge(members),
            Form::Packed(_) if members > limits.set_max_listpack_entries => self.enlarge(members),
            _ => {}
        }
    }

    fn begin(&mut self, members: usize, first: &[u8]) {
        let Form::Empty(room) = &mut self.form else { return };
        let mut room = std::mem::take(room);
        room.clear();
        self.form = if members <= self.limits.set_max_intset_entries && format::parse_i64(first).is_some() {
            room.extend_from_slice(Intset::EMPTY.as_bytes());
            Form::Ints(IntsetBuf::from_vec(room))
        } else if members <= self.limits.set_max_listpack_entries {
            room.extend_from_slice(Listpack::EMPTY.as_bytes());
            Form::Packed(ListpackBuf::from_vec(room))
        } else {
            Form::Fresh(Set::with_capacity(&self.limits, members))
        };
    }

    /// Adds a member. Returns whether it is new.
    pub fn add(&mut self, member: &[u8]) -> bool {
        if let Form::Empty(_) = self.form {
            self.begin(1, member);
        }
        match &mut self.form {
            Form::Ints(ints) => match format::parse_i64(member) {
                Some(number) => {
                    let added = ints.insert(number);
                    if added && ints.len() > self.limits.set_max_intset_entries {
                        self.enlarge(0);
                    }
                    added
                }
                None => {
                    self.leave_integers(member);
                    self.add(member)
                }
            },
            Form::Packed(members) => {
                let list = members.as_listpack();
                if list.first().is_some_and(|first| list.find(member, first, 0).is_some()) {
                    return false;
                }
                let fits = list.len() < self.limits.set_max_listpack_entries
                    && member.len() <= self.limits.set_max_listpack_value
                    && list.encoded_len() + listpack::item_size(member) <= listpack::BYTES_MAX;
                if !fits {
                    self.enlarge(0);
                    return self.add(member);
                }
                members.push_back(member);
                true
            }
            Form::Fresh(set) => set.add(member),
            Form::Large(set) => set.add(member),
            Form::Empty(_) => unreachable!("a form was begun above"),
        }
    }

    /// Removes a member; returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.form {
            Form::Empty(_) => false,
            Form::Ints(ints) => format::parse_i64(member).is_some_and(|number| ints.remove(number)),
            Form::Packed(members) => {
                let list = members.as_listpack();
                let Some(found) = list.first().and_then(|first| list.find(member, first, 0)) else { return false };
                members.remove(found, 1);
                true
            }
            Form::Fresh(set) => set.members.remove(member).is_some(),
            Form::Large(set) => set.members.remove(member).is_some(),
        }
    }

    /// Turns integers into a listpack if that can hold them and the new member, otherwise into a map.
    fn leave_integers(&mut self, coming: &[u8]) {
        let Form::Ints(ints) = &self.form else { return };
        let ints = ints.as_intset();
        let longest = [ints.min(), ints.max()].into_iter().flatten().map(|i| Item::Int(i).text_len()).max();
        let fits = ints.len() < self.limits.set_max_listpack_entries
            && coming.len().max(longest.unwrap_or(0)) <= self.limits.set_max_listpack_value;
        if !fits {
            return self.enlarge(0);
        }
        let mut members = ListpackBuf::new();
        members.extend(ints.iter());
        self.form = Form::Packed(members);
    }

    /// Turns a small form into a map with room for this many members, or for the present ones if they are more.
    fn enlarge(&mut self, members: usize) {
        let mut large = Set::with_capacity(&self.limits, members.max(self.view().len()));
        for member in self.view().iter() {
            large.add(member.as_bytes(&mut itoa::Buffer::new()));
        }
        self.form = Form::Fresh(large);
    }
}

/// The type of sets.
#[derive(Debug)]
pub struct AnySet;

impl Collection for AnySet {
    type Ref<'a> = SetRef<'a>;
    type Mut<'a> = SetMut<'a>;

    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::SetInts | Kind::SetPacked | Kind::Set)
    }

    #[inline]
    fn view(value: ValueRef<'_>) -> Option<SetRef<'_>> {
        Some(match value {
            ValueRef::Packed(Packing::SetInts, bytes) => SetRef::Ints(Intset::trusted(bytes.as_slice())),
            ValueRef::Packed(Packing::Set, bytes) => SetRef::Packed(Listpack::trusted(bytes.as_slice())),
            ValueRef::Set(set) => SetRef::Large(set),
            _ => return None,
        })
    }

    fn edit<'a>(stored: Stored<'a>, limits: &Limits) -> Option<SetMut<'a>> {
        let form = match stored {
            Stored::Missing(room) => Form::Empty(room),
            Stored::Packed(Packing::SetInts, bytes) => Form::Ints(IntsetBuf::from_vec(bytes)),
            Stored::Packed(Packing::Set, bytes) => Form::Packed(ListpackBuf::from_vec(bytes)),
            Stored::Large(HeapMut::Set(set)) => Form::Large(set),
            _ => return None,
        };
        Some(SetMut { form, limits: *limits })
    }

    fn finish(edited: SetMut<'_>) -> Finished {
        if edited.view().is_empty() {
            return Finished::Empty;
        }
        match edited.form {
            Form::Empty(_) => Finished::Empty,
            Form::Ints(ints) => Finished::Packed(Packing::SetInts, ints.into_vec()),
            Form::Packed(members) => Finished::Packed(Packing::Set, members.into_vec()),
            Form::Fresh(set) => Finished::Large(Heap::Set(triomphe::Arc::new(set))),
            Form::Large(_) => Finished::InPlace,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::base::hash::HashSeed;

    fn limits() -> Limits {
        Limits {
            set_max_intset_entries: 5,
            set_max_listpack_entries: 8,
            set_max_listpack_value: 6,
            ..Limits::defaults(HashSeed([3; 16]))
        }
    }

    fn text(member: Item<'_>) -> Vec<u8> {
        member.to_vec()
    }

    /// Stores the result of an edit and opens it again.
    fn through_store(set: SetMut<'_>) -> SetMut<'static> {
        let limits = set.limits;
        let stored = match AnySet::finish(set) {
            Finished::Empty => Stored::Missing(Vec::new()),
            Finished::Packed(packing, bytes) => {
                assert!(is_sound(packing, &bytes));
                Stored::Packed(packing, bytes)
            }
            Finished::Large(Heap::Set(set)) => {
                let mut bytes = Vec::new();
                set.encode(&mut bytes, &mut |_| ());
                let form = Form::Fresh(Set::decode(&bytes, &limits).expect("what was encoded"));
                return SetMut { form, limits };
            }
            other => panic!("{other:?}"),
        };
        AnySet::edit(stored, &limits).expect("a set")
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (-20i64..20).prop_map(|number| number.to_string().into_bytes()),
            any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            prop::collection::vec(prop::sample::select(&b"ab0-"[..]), 0..8),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_set_does(edits in prop::collection::vec((member(), 0u8..8), 1..60)) {
            let (mut set, mut model) = (SetMut::new(&limits()), BTreeSet::new());
            for (member, what) in edits {
                match what {
                    0..=4 => prop_assert_eq!(set.add(&member), model.insert(member)),
                    5..=6 => prop_assert_eq!(set.remove(&member), model.remove(&member)),
                    _ => set = through_store(set),
                }
                prop_assert_eq!(set.view().len(), model.len());
            }
            prop_assert_eq!(set.view().iter().map(text).collect::<BTreeSet<_>>(), model.clone());
            prop_assert!(model.iter().all(|member| set.view().contains(member) && set.view().has(Item::Str(member))));
            let mut random = Random::from_seed(1);
            match set.view().random(&mut random) {
                Some(member) => prop_assert!(model.contains(&text(member))),
                None => prop_assert!(model.is_empty()),
            }
        }

        #[test]
        fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(set) = Set::decode(&bytes, &limits()) {
                prop_assert!(!set.members.is_empty());
                set.members.check_invariants();
            }
            is_sound(Packing::Set, &bytes);
            is_sound(Packing::SetInts, &bytes);
        }
    }

    #[test]
    fn forms_change_as_in_redis() {
        let form = |members: &[&str], expected: usize| {
            let mut set = SetMut::new(&limits());
            set.expect(expected, members[0].as_bytes());
            for member in members {
                set.add(member.as_bytes());
            }
            match set.form {
                Form::Ints(_) => "intset",
                Form::Packed(_) => "listpack",
                _ => "hashtable",
            }
        };
        assert_eq!(form(&["1", "2", "3", "4", "5"], 5), "intset");
        assert_eq!(form(&["1", "2", "3", "4", "5", "6"], 1), "hashtable");
        assert_eq!(form(&["1", "a"], 2), "listpack");
        assert_eq!(form(&["1", "a", "seven77"], 3), "hashtable");
        assert_eq!(form(&["1234567", "a"], 2), "hashtable");
        assert_eq!(form(&["a", "b", "c", "d", "e", "f", "g", "h"], 8), "listpack");
        assert_eq!(form(&["a", "b", "c", "d", "e", "f", "g", "h", "i"], 8), "hashtable");
        assert_eq!(form(&["1"], 6), "listpack");
        assert_eq!(form(&["1"], 9), "hashtable");
    }
}
