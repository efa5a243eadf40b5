//! Tests of moving the segments of directories and of the collections in them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use triomphe::Arc;

use super::*;
use crate::base::hash::HashSeed;
use crate::base::varint::put_varint;
use crate::value::entry::{Heap, HeapMut, Kind, NewValue, SharedBytes};
use crate::value::{Hash, Limits, Map, Set, ValueRef, Zset};

const SEED: HashSeed = HashSeed(*b"seed of the test");
/// More than one segment here points to.
const STRINGS_MAX: usize = 200;
const AMPLE: Budget = Budget { looks: usize::MAX, moves: usize::MAX };

thread_local! {
    /// How often `everything` and `nothing` were asked.
    pub(crate) static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// Asks to move everything.
pub(crate) fn everything(_address: usize) -> bool {
    ASKED.set(ASKED.get() + 1);
    true
}

/// Asks to move nothing.
pub(crate) fn nothing(_address: usize) -> bool {
    ASKED.set(ASKED.get() + 1);
    false
}

/// Asks to move a random quarter of all allocations.
fn some(address: usize) -> bool {
    (address >> 4).is_multiple_of(4)
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn member(number: usize) -> Vec<u8> {
    format!("member {number}").into_bytes()
}

/// A large set, hash or sorted set of this many members.
fn large(kind: Kind, members: usize) -> Heap {
    let (limits, mut bytes) = (Limits::defaults(SEED), Vec::new());
    put_varint(&mut bytes, members as u64);
    for number in 0..members {
        match kind {
            Kind::Hash => bytes.push(0),
            Kind::Zset => bytes.extend((number as f64).to_le_bytes()),
            _ => {}
        }
        put_string(&mut bytes, &member(number));
        if kind == Kind::Hash {
            put_string(&mut bytes, &[b'v'; 200]);
        }
    }
    match kind {
        Kind::Hash => Heap::Hash(Arc::new(Hash::decode(&bytes, &limits).expect("a hash"))),
        Kind::Set => Heap::Set(Arc::new(Set::decode(&bytes, &limits).expect("a set"))),
        _ => Heap::Zset(Arc::new(Zset::decode(&bytes, &limits).expect("a sorted set"))),
    }
}

fn put(directory: &mut Directory, key: &[u8], value: NewValue<'_>) {
    let _ = directory.set(SEED.hash(key), key, value, None, 0);
}

fn key(number: usize) -> Vec<u8> {
    match number % 50 {
        7 => format!("{number:0300}").into_bytes(),
        _ => format!("key {number}").into_bytes(),
    }
}

/// Short and long keys and values, some of which expire; no collections.
fn plain(keys: usize) -> Directory {
    let mut directory = Directory::new(SEED);
    for number in 0..keys {
        let (name, value) = (key(number), vec![b'v'; number % 300]);
        let expiry = (number % 5 == 0).then_some(1000 + number as u64);
        let _ = directory.set(SEED.hash(&name), &name, NewValue::Bytes(&value), expiry, number as u32);
    }
    directory
}

/// Everything that can be seen of a directory, in its order.
fn seen(directory: &Directory) -> Vec<String> {
    let entry = |entry: crate::value::entry::EntryRef<'_>| {
        let members = entry.value().map().map(|map| map.iter().map(|member| format!("{member:?}")).collect::<Vec<_>>());
        match members {
            Some(members) => format!("{:?} {:?} {members:?}", entry.key(), entry.kind()),
            None => format!("{entry:?} {}", entry.access()),
        }
    };
    directory.iter().map(entry).collect()
}

fn map_of<'a>(directory: &'a Directory, key: &[u8]) -> &'a Map {
    directory.get(SEED.hash(key), key).and_then(|entry| entry.value().map()).expect("a large collection")
}

/// A whole pass in steps of this budget. Returns how many steps there were, and checks that each keeps to its budget.
fn pass(directory: &mut Directory, budget: Budget, is_sparse: fn(usize) -> bool) -> usize {
    let (mut at, mut steps) = (Position::default(), 0);
    loop {
        let (mut left, asked) = (budget, ASKED.get());
        let next = directory.relocate(at, &mut left, is_sparse);
        // The strings of one segment are not steps of their own.
        let most = budget.looks.saturating_add(if strings(directory).is_empty() { 0 } else { STRINGS_MAX });
        assert!(ASKED.get() - asked <= most && left.moves <= budget.moves);
        steps += 1;
        match next {
            Some(next) => {
                assert!(next != at && left.is_spent(), "a step gets on, and pauses only when it has to");
                at = next;
            }
            None => return steps,
        }
    }
}

/// How many of the addresses differ.
fn moved(before: &[usize], after: &[usize]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

#[test]
fn all_segments_move_and_nothing_else_changes() {
    let mut directory = plain(3000);
    let (before, addresses) = (seen(&directory), directory.addresses());
    let (spine, live, memory) = (directory.spine(), directory.live_bytes(), directory.memory());
    assert_eq!(pass(&mut directory, AMPLE, nothing), 1);
    assert_eq!(directory.addresses(), addresses);
    assert_eq!(pass(&mut directory, AMPLE, everything), 1);
    assert_eq!(moved(&addresses, &directory.addresses()), addresses.len());
    assert_eq!(seen(&directory), before);
    assert_eq!((directory.spine(), directory.live_bytes(), directory.memory()), (spine, live, memory));
    directory.check_invariants();
}

#[test]
fn payloads_are_counted_as_before() {
    let payload = SharedBytes::new(&[7; 500]);
    let mut directory = Directory::new(SEED);
    for number in 0..500 {
        put(&mut directory, &key(number), NewValue::Shared(payload.clone()));
    }
    pass(&mut directory, AMPLE, everything);
    assert_eq!(payload.strong_count(), 501);
    drop(directory);
    assert_eq!(payload.strong_count(), 1);
}

#[test]
fn what_is_shared_stays_where_it_is() {
    let mut directory = plain(2000);
    put(&mut directory, b"set", NewValue::Heap(large(Kind::Set, 5000)));
    let inside = map_of(&directory, b"set").addresses();
    let frozen = directory.clone();
    let addresses = directory.addresses();
    pass(&mut directory, AMPLE, everything);
    assert_eq!((directory.addresses(), frozen.addresses()), (addresses.clone(), addresses.clone()));
    assert_eq!(map_of(&directory, b"set").addresses(), inside);

    // A change unshares one segment, but not the collections in it.
    put(&mut directory, b"set2", NewValue::Int(5));
    put(&mut directory, b"set", NewValue::Heap(frozen.get(SEED.hash(b"set"), b"set").unwrap().heap().unwrap()));
    let changed = directory.addresses();
    pass(&mut directory, AMPLE, everything);
    assert_eq!(moved(&changed, &directory.addresses()), moved(&addresses, &changed));
    assert_eq!(map_of(&directory, b"set").addresses(), inside);
    assert_eq!(frozen.addresses(), addresses);

    // Once the other is gone, all of it moves.
    drop(frozen);
    let before = seen(&directory);
    pass(&mut directory, AMPLE, everything);
    assert_eq!(moved(&addresses, &directory.addresses()), addresses.len());
    assert_eq!(moved(&inside, &map_of(&directory, b"set").addresses()), inside.len());
    assert_eq!(seen(&directory), before);
}

#[test]
fn a_part_that_a_clone_of_a_map_shares_stays() {
    let mut directory = Directory::new(SEED);
    put(&mut directory, b"set", NewValue::Heap(large(Kind::Set, 10_000)));
    let inside = map_of(&directory, b"set").addresses();
    let clone = map_of(&directory, b"set").clone();
    pass(&mut directory, AMPLE, everything);
    assert_eq!(map_of(&directory, b"set").addresses(), inside);
    let Some(HeapMut::Set(set)) = directory.heap_mut(SEED.hash(b"set"), b"set") else { panic!("a set") };
    assert!(set.map_mut().insert(b"new", NewValue::Int(1)));
    let written = set.map().addresses();
    let own = moved(&inside, &written);
    pass(&mut directory, AMPLE, everything);
    assert_eq!((own, moved(&written, &map_of(&directory, b"set").addresses())), (1, 1));
    assert_eq!((clone.addresses(), clone.len()), (inside, 10_000));
}

#[test]
fn the_insides_of_all_large_collections_move() {
    for kind in [Kind::Set, Kind::Hash, Kind::Zset] {
        for members in [10, 1000, 5000] {
            let mut directory = plain(100);
            put(&mut directory, b"large", NewValue::Heap(large(kind, members)));
            let (before, inside) = (seen(&directory), map_of(&directory, b"large").addresses());
            pass(&mut directory, AMPLE, everything);
            let map = map_of(&directory, b"large");
            let filled = inside.len() - map.empty_segments();
            assert_eq!(moved(&inside, &map.addresses()), filled, "{kind:?} of {members}");
            assert_eq!(seen(&directory), before);
            directory.check_invariants();
            match directory.get(SEED.hash(b"large"), b"large").expect("it is there").value() {
                ValueRef::Hash(hash) => hash.check_invariants(),
                ValueRef::Zset(zset) => zset.check_invariants(),
                value => value.map().expect("a map").check_invariants(),
            }
        }
    }
}

#[test]
fn a_large_collection_takes_many_steps() {
    let mut directory = Directory::new(SEED);
    for number in 0..1000 {
        put(&mut directory, &member(number), NewValue::Bytes(&[b'v'; 50]));
    }
    for number in 0..5 {
        put(&mut directory, format!("set {number}").as_bytes(), NewValue::Heap(large(Kind::Set, 20_000)));
    }
    let segments = directory.addresses().len() + 5 * map_of(&directory, b"set 0").addresses().len();
    for (budget, steps_min) in [
        (Budget { looks: 100, moves: usize::MAX }, segments / 100),
        (Budget { looks: usize::MAX, moves: 10 }, segments / 10 / 2),
        (Budget { looks: 1, moves: 1 }, segments),
    ] {
        let (before, all) = (seen(&directory), directory.addresses());
        let inside: Vec<usize> =
            (0..5).flat_map(|n| map_of(&directory, format!("set {n}").as_bytes()).addresses()).collect();
        ASKED.set(0);
        let steps = pass(&mut directory, budget, everything);
        assert!(steps >= steps_min, "{steps} of {steps_min}");
        assert_eq!(ASKED.get(), segments, "each is looked at once");
        assert_eq!(moved(&all, &directory.addresses()), all.len());
        let after: Vec<usize> =
            (0..5).flat_map(|n| map_of(&directory, format!("set {n}").as_bytes()).addresses()).collect();
        let empty: usize = (0..5).map(|n| map_of(&directory, format!("set {n}").as_bytes()).empty_segments()).sum();
        assert_eq!(moved(&inside, &after), inside.len() - empty);
        assert_eq!(seen(&directory), before);
    }
}

#[test]
fn a_position_that_points_nowhere_any_more_does_no_harm() {
    let mut directory = plain(50);
    put(&mut directory, b"set", NewValue::Heap(large(Kind::Set, 10)));
    let before = seen(&directory);
    let choices = [0, 1, 2, 100, MAPS_DONE];
    for segment in choices {
        for map in choices {
            for (part, inner) in choices.into_iter().flat_map(|part| choices.map(|inner| (part, inner))) {
                let next = directory.relocate(Position { segment, map, part, inner }, &mut AMPLE.clone(), everything);
                assert_eq!(next, None);
            }
        }
    }
    assert_eq!(seen(&directory), before);
    assert_eq!(Directory::new(SEED).relocate(Position::default(), &mut AMPLE.clone(), everything), None);
}

/// The addresses of the strings outside the records.
fn strings(directory: &Directory) -> Vec<usize> {
    let pointers = |entry: crate::value::entry::EntryRef<'_>| entry.string_pointers().collect::<Vec<_>>();
    directory.iter().flat_map(pointers).map(|(_, raw)| raw.addr()).collect()
}

#[test]
fn strings_move_unless_somebody_else_has_them() {
    let mut directory = plain(500);
    let shared = SharedBytes::new(&[b's'; 150]);
    put(&mut directory, b"shared", NewValue::Shared(shared.clone()));
    put(&mut directory, b"set", NewValue::Heap(large(Kind::Set, 10)));
    let (before, at) = (seen(&directory), strings(&directory));
    assert!(at.len() > 200, "keys and values");
    pass(&mut directory, AMPLE, everything);
    let moved = strings(&directory);
    assert_eq!((seen(&directory), moved.len()), (before.clone(), at.len()));
    let stayed: Vec<_> = at.iter().zip(&moved).filter(|(before, after)| before == after).collect();
    assert_eq!(stayed.len(), 1, "the shared one");
    assert_eq!(shared.strong_count(), 2);
    // A view of the whole holds the strings, too.
    let view = directory.clone();
    pass(&mut directory, AMPLE, everything);
    assert_eq!((strings(&directory), strings(&view)), (moved.clone(), moved.clone()));
    drop(view);
    pass(&mut directory, AMPLE, some);
    let again = strings(&directory);
    assert!(moved.iter().zip(&again).all(|(before, after)| before == after || some(*before)));
    assert_ne!(moved, again);
    assert_eq!(seen(&directory), before);
    directory.check_invariants();
}

/// An operation on a directory and its model.
#[derive(Clone, Debug)]
enum Edit {
    Set(usize, usize),
    Remove(usize),
    Enlarge(usize, usize),
    Add(usize, usize),
    Take(usize, usize),
    Freeze,
    Thaw(usize),
    Relocate(Budget, bool),
}

fn edit() -> impl Strategy<Value = Edit> {
    let keys = 0..120_usize;
    prop_oneof![
        6 => (keys.clone(), 0..300_usize).prop_map(|(key, len)| Edit::Set(key, len)),
        2 => keys.clone().prop_map(Edit::Remove),
        1 => (keys.clone(), prop_oneof![Just(3_usize), Just(300), Just(2500)]).prop_map(|(k, n)| Edit::Enlarge(k, n)),
        4 => (keys.clone(), 0..4000_usize).prop_map(|(key, member)| Edit::Add(key, member)),
        4 => (keys, 0..4000_usize).prop_map(|(key, member)| Edit::Take(key, member)),
        1 => Just(Edit::Freeze),
        1 => any::<usize>().prop_map(Edit::Thaw),
        8 => (1..60_usize, 1..10_usize, any::<bool>())
            .prop_map(|(looks, moves, all)| Edit::Relocate(Budget { looks, moves }, all)),
    ]
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Held {
    Bytes(usize),
    Members(BTreeSet<Vec<u8>>),
}

type Model = BTreeMap<Vec<u8>, Held>;

fn contents(directory: &Directory) -> Model {
    let held = |value: ValueRef<'_>| match value {
        ValueRef::Str(bytes) => Held::Bytes(bytes.len()),
        value => Held::Members(value.map().expect("a set").iter().map(|member| member.key().to_vec()).collect()),
    };
    directory.iter().map(|entry| (entry.key().to_vec(), held(entry.value()))).collect()
}

fn apply(directory: &mut Directory, model: &mut Model, edit: &Edit) {
    let map = |directory: &'_ mut Directory, key: usize, change: &dyn Fn(&mut Map)| {
        if let Some(HeapMut::Set(set)) = directory.heap_mut(SEED.hash(&self::key(key)), &self::key(key)) {
            change(set.map_mut());
        }
    };
    match *edit {
        Edit::Set(number, len) => {
            put(directory, &key(number), NewValue::Bytes(&vec![b'v'; len]));
            model.insert(key(number), Held::Bytes(len));
        }
        Edit::Remove(number) => {
            let removed = directory.remove(SEED.hash(&key(number)), &key(number));
            assert_eq!(removed.is_some(), model.remove(&key(number)).is_some());
        }
        Edit::Enlarge(number, members) => {
            put(directory, &key(number), NewValue::Heap(large(Kind::Set, members)));
            model.insert(key(number), Held::Members((0..members).map(member).collect()));
        }
        Edit::Add(number, new) => {
            map(directory, number, &|map| _ = map.insert(&member(new), NewValue::Bytes(b"")));
            if let Some(Held::Members(members)) = model.get_mut(&key(number)) {
                members.insert(member(new));
            }
        }
        Edit::Take(number, old) => {
            map(directory, number, &|map| _ = map.remove(&member(old)));
            if let Some(Held::Members(members)) = model.get_mut(&key(number)) {
                members.remove(&member(old));
            }
        }
        Edit::Freeze | Edit::Thaw(_) | Edit::Relocate(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn moving_among_changes_and_clones_is_never_seen(edits in prop::collection::vec(edit(), 1..400)) {
        let (mut directory, mut model) = (Directory::new(SEED), Model::new());
        let mut frozen: Vec<(Directory, Model, Vec<usize>)> = Vec::new();
        let mut at = Position::default();
        for edit in &edits {
            match edit {
                Edit::Freeze => frozen.push((directory.clone(), model.clone(), directory.addresses())),
                Edit::Thaw(any) if !frozen.is_empty() => {
                    let (view, expected, addresses) = frozen.swap_remove(any % frozen.len());
                    view.check_invariants();
                    prop_assert_eq!(contents(&view), expected);
                    prop_assert_eq!(view.addresses(), addresses);
                }
                Edit::Relocate(budget, all) => {
                    let is_sparse = if *all { everything } else { some };
                    at = directory.relocate(at, &mut budget.clone(), is_sparse).unwrap_or_default();
                }
                edit => apply(&mut directory, &mut model, edit),
            }
        }
        directory.check_invariants();
        directory.iter().filter_map(|entry| entry.value().map()).for_each(Map::check_invariants);
        prop_assert_eq!(contents(&directory), model);
        for (view, expected, addresses) in frozen {
            view.check_invariants();
            prop_assert_eq!(contents(&view), expected);
            prop_assert_eq!(view.addresses(), addresses);
        }
    }
}
