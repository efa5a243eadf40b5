//! Tests of the directory and, through it, of segments and entries.

use std::cell::Cell;

type Forge = fn(&[u8]) -> u64;

thread_local! {
    static FORGE: Cell<Option<Forge>> = const { Cell::new(None) };
}

/// The hash of a key in a test that chooses hashes, so that it can make them collide.
pub(super) fn forged_hash(key: &[u8]) -> Option<u64> {
    FORGE.get().map(|forge| forge(key))
}

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::value::entry::{ACCESS_MAX, EXPIRY_MAX, INLINE_KEY_MAX, INLINE_VALUE_MAX, Kind, SharedBytes};

const SEED: HashSeed = HashSeed(*b"seed of the test");

/// Chooses the hashes of this test's keys: the last eight bytes of a key are its hash.
struct Forged;

impl Forged {
    fn by_last_bytes() -> Forged {
        FORGE.set(Some(|key| {
            let from = key.len().saturating_sub(8);
            key[from..].iter().fold(0, |hash, &byte| hash << 8 | u64::from(byte))
        }));
        Forged
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        FORGE.set(None);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Int(i64),
    Str(Vec<u8>),
    Raw(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    value: Value,
    expiry: Option<u64>,
    access: u32,
}

type Model = BTreeMap<Vec<u8>, Row>;

fn row(entry: EntryRef<'_>) -> Row {
    let value = match entry.value() {
        ValueRef::Int(number) => Value::Int(number),
        ValueRef::Str(bytes) => Value::Str(bytes.to_vec()),
        ValueRef::Raw(bytes) => Value::Raw(bytes.to_vec()),
        other => panic!("{other:?}"),
    };
    Row { value, expiry: entry.expiry(), access: entry.access() }
}

fn contents(directory: &Directory) -> Model {
    let rows: Model = directory.iter().map(|entry| (entry.key().to_vec(), row(entry))).collect();
    assert_eq!(rows.len(), directory.len(), "no key comes twice");
    rows
}

fn hash(key: &[u8]) -> u64 {
    forged_hash(key).unwrap_or_else(|| SEED.hash(key))
}

fn put(directory: &mut Directory, key: &[u8], value: &[u8]) -> Option<Displaced> {
    directory.set(hash(key), key, NewValue::Bytes(value), None, 0)
}

/// Random choices of a test, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        super::draw::below(&mut self.0, end)
    }

    fn key(&mut self, keys: usize) -> Vec<u8> {
        let number = self.below(keys);
        let mut key = match number % 40 {
            0 => vec![b'k'; INLINE_KEY_MAX - 8],
            1 => vec![b'k'; INLINE_KEY_MAX - 7],
            2 => vec![b'k'; 5000],
            _ => Vec::new(),
        };
        match number {
            3 => {}
            _ => key.extend((number as u64).to_be_bytes()),
        }
        key
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(12) {
            0 => 0,
            1 => INLINE_VALUE_MAX,
            2 => INLINE_VALUE_MAX + 1,
            3 => self.below(3000),
            4..6 => self.below(INLINE_VALUE_MAX),
            _ => 32,
        };
        vec![self.below(256) as u8; length]
    }

    fn expiry(&mut self) -> Option<u64> {
        (self.below(3) == 0).then(|| self.below(1000) as u64)
    }
}

/// One random operation on the directory and on the model. Both must give the same answer.
fn step(directory: &mut Directory, model: &mut Model, dice: &mut Dice, keys: usize, deletes: usize) {
    let key = dice.key(keys);
    let hash = hash(&key);
    if dice.below(100) < deletes {
        let gone = directory.remove(hash, &key);
        let expected = model.remove(&key);
        assert_eq!(gone.is_some(), expected.is_some());
        if let (Some(gone), Some(expected)) = (gone, expected) {
            check_displaced(&gone, &expected);
        }
        return;
    }
    match dice.below(20) {
        0..2 => {
            let expiry = dice.expiry();
            let found = directory.set_expiry(hash, &key, expiry);
            assert_eq!(found, model.contains_key(&key));
            model.entry(key).and_modify(|row| row.expiry = expiry);
        }
        2..4 => {
            let access = dice.below(1 << 24) as u32;
            // Exclusive here unless a frozen view shares the segment, in which case nothing may change.
            let before = directory.get(hash, &key).map(|entry| entry.access());
            if let Some(place) = directory.find(hash, &key) {
                directory.set_access_at(place, access);
            }
            if let Some(entry) = directory.get(hash, &key) {
                let now = entry.access();
                assert!(now == access || Some(now) == before);
                model.entry(key).and_modify(|row| row.access = now);
            }
        }
        4..6 => {
            let tail = dice.bytes();
            let raw = directory.raw_mut(hash, &key);
            assert_eq!(raw.is_some(), model.contains_key(&key));
            if let Some(raw) = raw {
                raw.extend(&tail);
            }
            model.entry(key).and_modify(|row| {
                let mut bytes = match &row.value {
                    Value::Int(number) => number.to_string().into_bytes(),
                    Value::Str(bytes) | Value::Raw(bytes) => bytes.clone(),
                };
                bytes.extend(&tail);
                row.value = Value::Raw(bytes);
            });
        }
        choice => {
            let (bytes, access) = (dice.bytes(), dice.below(1 << 24) as u32);
            let keep = choice == 6;
            let old = model.get(&key).cloned();
            let expiry = if keep { old.as_ref().and_then(|row| row.expiry) } else { dice.expiry() };
            let numbers = [0, -1, i64::MIN, i64::MAX, dice.below(1000) as i64];
            let number = numbers[dice.below(5)];
            let (new, value) = match choice {
                7..10 => (NewValue::Int(number), Value::Int(number)),
                10 => (NewValue::Raw(bytes.clone()), Value::Raw(bytes.clone())),
                11 => (NewValue::Shared(SharedBytes::new(&bytes)), Value::Str(bytes.clone())),
                12 => (NewValue::Heap(Heap::Str(SharedBytes::new(&bytes))), Value::Str(bytes.clone())),
                _ => (NewValue::Bytes(&bytes), Value::Str(bytes.clone())),
            };
            let displaced = if keep {
                directory.set_value(hash, &key, new, access)
            } else {
                directory.set(hash, &key, new, expiry, access)
            };
            assert_eq!(displaced.is_some(), old.is_some());
            if let (Some(displaced), Some(old)) = (displaced, old) {
                check_displaced(&displaced, &old);
            }
            model.insert(key, Row { value, expiry, access });
        }
    }
}

fn check_displaced(displaced: &Displaced, row: &Row) {
    assert_eq!(displaced.expiry, row.expiry);
    match (&displaced.heap, &row.value) {
        (Some(Heap::Str(bytes)), Value::Str(expected)) => assert_eq!(**bytes, **expected),
        (Some(Heap::Raw(bytes)), Value::Raw(expected)) => assert_eq!(**bytes, *expected),
        (None, Value::Int(_)) => {}
        (None, Value::Str(bytes)) => assert!(bytes.len() <= INLINE_VALUE_MAX),
        (heap, value) => panic!("{heap:?} is no payload of {value:?}"),
    }
}

/// Random operations, with frozen views taken and compared at random.
fn run(seed: u64, steps: usize, keys: usize, check_every: usize) {
    let mut dice = Dice(seed);
    let (mut directory, mut model) = (Directory::new(SEED), Model::new());
    let mut frozen: Vec<(Directory, Model)> = Vec::new();
    for number in 0..steps {
        let deletes = if number / 2000 % 2 == 0 { 10 } else { 70 };
        step(&mut directory, &mut model, &mut dice, keys, deletes);
        assert_eq!(directory.len(), model.len());
        if number % check_every == 0 {
            directory.check_invariants();
            assert_eq!(contents(&directory), model);
            let volatile = model.values().filter(|row| row.expiry.is_some()).count();
            assert_eq!(directory.volatile_len(), volatile);
        }
        if dice.below(150) == 0 {
            frozen.push((directory.clone(), model.clone()));
        }
        if frozen.len() > dice.below(6) + 1 {
            let at = dice.below(frozen.len());
            let (view, expected) = frozen.swap_remove(at);
            view.check_invariants();
            assert_eq!(contents(&view), expected, "a frozen view never changes");
        }
    }
    for (key, expected) in &model {
        assert_eq!(directory.get(hash(key), key).map(row).as_ref(), Some(expected));
    }
    let keys: Vec<_> = model.into_keys().collect();
    for key in keys {
        assert!(directory.remove(hash(&key), &key).is_some());
    }
    directory.check_invariants();
    assert_eq!((directory.len(), directory.live_bytes(), directory.volatile_len()), (0, 0, 0));
    for (view, expected) in frozen {
        assert_eq!(contents(&view), expected);
    }
}

#[test]
fn random_operations_agree_with_a_map_and_frozen_views_never_change() {
    for seed in 0..8 {
        run(seed, 600, 60, 1);
    }
    run(100, 12_000, 2000, 400);
}

#[test]
fn the_same_with_hashes_that_collide_in_every_bit() {
    FORGE.set(Some(|key| key.last().map_or(0, |&byte| u64::from(byte & 3) << 40)));
    let _reset = Forged;
    run(7, 2000, 300, 50);
}

#[test]
fn values_and_keys_of_every_length_come_back() {
    let mut directory = Directory::new(SEED);
    let lengths = [0, 1, 7, 8, 9, 127, 128, 129, 199, 200, 201, 255, 256, 65_536];
    for key_len in lengths {
        for value_len in lengths {
            let key = vec![b'a'; key_len];
            let value = vec![b'v'; value_len];
            let _ = put(&mut directory, &key, &value);
            directory.check_invariants();
            let entry = directory.get(hash(&key), &key).expect("just stored");
            assert_eq!(entry.key(), key);
            let ValueRef::Str(bytes) = entry.value() else { panic!("{entry:?} is a string") };
            assert_eq!(*bytes, *value);
            assert_eq!(bytes.share().is_some(), value_len > INLINE_VALUE_MAX);
            assert!(entry.memory() > key_len + value_len);
        }
    }
    assert_eq!(directory.len(), lengths.len());
}

#[test]
fn the_extremes_of_integers_expiry_and_access_come_back() {
    let mut directory = Directory::new(SEED);
    for number in [i64::MIN, -1, 0, 1, i64::MAX] {
        let (expiry, access) = (Some(EXPIRY_MAX), ACCESS_MAX);
        let _ = directory.set(hash(b"n"), b"n", NewValue::Int(number), expiry, access);
        let entry = directory.get(hash(b"n"), b"n").expect("just stored");
        assert_eq!(row(entry), Row { value: Value::Int(number), expiry, access });
    }
    let _ = directory.set(hash(b"n"), b"n", NewValue::Int(1), Some(u64::MAX), u32::MAX);
    let entry = directory.get(hash(b"n"), b"n").expect("just stored");
    assert_eq!((entry.expiry(), entry.access()), (Some(EXPIRY_MAX), ACCESS_MAX), "clamped");
    assert_eq!(directory.get(hash(b"m"), b"m").map(row), None);
}

#[test]
fn an_eight_byte_key_is_not_taken_for_the_pointer_of_a_long_one() {
    FORGE.set(Some(|_| 0));
    let _reset = Forged;
    let mut directory = Directory::new(SEED);
    let long = vec![b'x'; 300];
    let _ = put(&mut directory, &long, b"long");
    let pointer = directory.get(0, &long).expect("just stored").key().as_ptr();
    for guess in [pointer as usize, pointer as usize - 16] {
        assert!(directory.get(0, &guess.to_ne_bytes()).is_none());
    }
    directory.check_invariants();
}

#[test]
fn payloads_are_counted_exactly() {
    let payload = SharedBytes::new(&[7; 500]);
    let key = |number: u32| format!("a key {number}").into_bytes();
    let mut directory = Directory::new(SEED);
    for number in 0..500 {
        let new = NewValue::Shared(payload.clone());
        let _ = directory.set(hash(&key(number)), &key(number), new, None, 0);
    }
    // Splits have moved them meanwhile.
    assert_eq!(payload.strong_count(), 501);
    let frozen = directory.clone();
    assert_eq!(payload.strong_count(), 501, "a clone shares segments, not payloads");
    for number in 0..500 {
        let name = key(number);
        let displaced = match number % 3 {
            0 => directory.remove(hash(&name), &name),
            1 => put(&mut directory, &name, b"short"),
            _ => directory.set(hash(&name), &name, NewValue::Raw(vec![1]), None, 0),
        };
        let displaced = displaced.expect("the key was there");
        assert!(matches!(displaced.heap, Some(Heap::Str(ref bytes)) if **bytes == [7; 500]));
    }
    directory.check_invariants();
    assert_eq!(payload.strong_count(), 501, "only the frozen view has them now");
    let reply = match frozen.get(hash(&key(3)), &key(3)).map(|entry| entry.value()) {
        Some(ValueRef::Str(bytes)) => bytes.share().expect("it is a sealed payload"),
        other => panic!("{other:?} is not the string"),
    };
    drop(frozen);
    assert_eq!(payload.strong_count(), 2, "the reply's and our own");
    assert_eq!(*reply, [7; 500]);
}

#[test]
fn a_growable_string_is_copied_when_a_frozen_view_shares_it_and_only_then() {
    let mut directory = Directory::new(SEED);
    let _ = directory.set(hash(b"n"), b"n", NewValue::Int(-12), Some(9), 3);
    directory.raw_mut(hash(b"n"), b"n").expect("a string").push(b'3');
    let pointer = |directory: &Directory| match directory.get(hash(b"n"), b"n").unwrap().value() {
        ValueRef::Raw(bytes) => bytes.as_ptr(),
        other => panic!("{other:?} is growable"),
    };
    directory.raw_mut(hash(b"n"), b"n").unwrap().reserve(100);
    let before = pointer(&directory);
    directory.raw_mut(hash(b"n"), b"n").unwrap().push(b'4');
    assert_eq!(pointer(&directory), before, "grown in place");
    let frozen = directory.clone();
    directory.raw_mut(hash(b"n"), b"n").unwrap().push(b'5');
    let expected = |text: &[u8]| Row { value: Value::Raw(text.to_vec()), expiry: Some(9), access: 3 };
    assert_eq!(directory.get(hash(b"n"), b"n").map(row), Some(expected(b"-12345")));
    assert_eq!(frozen.get(hash(b"n"), b"n").map(row), Some(expected(b"-1234")));
    assert_eq!(directory.get(hash(b"n"), b"n").unwrap().kind(), Kind::Raw);
    assert!(directory.raw_mut(hash(b"none"), b"none").is_none());
}

#[test]
fn a_value_moves_to_another_key_without_a_copy() {
    let mut directory = Directory::new(SEED);
    let payload = SharedBytes::new(&[1; 1000]);
    let _ = directory.set(hash(b"a"), b"a", NewValue::Shared(payload.clone()), None, 0);
    let value = directory.get(hash(b"a"), b"a").unwrap().to_new_value();
    let value = match value {
        NewValue::Heap(heap) => NewValue::Heap(heap),
        other => panic!("{other:?} is not the payload"),
    };
    let _ = directory.set(hash(b"b"), b"b", value, None, 0);
    let _ = directory.remove(hash(b"a"), b"a");
    assert_eq!(payload.strong_count(), 2);
    let ValueRef::Str(bytes) = directory.get(hash(b"b"), b"b").unwrap().value() else { panic!() };
    assert_eq!(bytes.as_ptr(), payload.as_ptr());
}

#[test]
fn a_crowd_in_one_segment_is_split_apart_in_the_end() {
    // All keys share their 8 low bits, so that usual splitting would leave them all in one segment.
    let _reset = Forged::by_last_bytes();
    let key = |number: u64| (number << 8 | 5 | (number & 0xff) << 40).to_be_bytes();
    let mut directory = Directory::new(SEED);
    let mut frozen = None;
    for number in 0..50_000 {
        let _ = put(&mut directory, &key(number), b"a value of some length");
        if number == 20_000 {
            frozen = Some(directory.clone());
        }
    }
    directory.check_invariants();
    let largest = directory.segments.iter().map(Segment::capacity).max();
    assert!(largest < Some(2 * CROWDED_BYTES), "{largest:?}");
    assert!(directory.segments.len() < CROWDED_SPLITS_MAX * 50_000 / 20);
    assert_eq!(frozen.map(|view| contents(&view).len()), Some(20_001));
    for number in 0..50_000 {
        let entry = directory.get(hash(&key(number)), &key(number));
        assert!(entry.is_some());
        assert!(directory.remove(hash(&key(number)), &key(number)).is_some());
    }
    directory.check_invariants();
    assert_eq!(directory.segments.len(), 1);
}

#[test]
fn a_crowd_that_nothing_can_split_goes_wide_and_back() {
    FORGE.set(Some(|_| 0x77 << 40 | 9));
    let _reset = Forged;
    let mut directory = Directory::new(SEED);
    let key = |number: u32| number.to_be_bytes();
    for number in 0..4000 {
        let _ = put(&mut directory, &key(number), b"thirty-two bytes of value, or so");
        if number % 500 == 0 {
            directory.check_invariants();
        }
    }
    directory.check_invariants();
    assert!(directory.segments.iter().any(|segment| segment.capacity() > 100_000));
    assert!(directory.segments.len() <= CROWDED_SPLITS_MAX * 120, "the splitting is bounded");
    let frozen = directory.clone();
    for number in 0..4000 {
        let _ = put(&mut directory, &key(number), &number.to_le_bytes());
        if number >= 100 {
            assert!(directory.remove(hash(&[]), &key(number)).is_some());
        }
    }
    directory.check_invariants();
    frozen.check_invariants();
    assert_eq!(contents(&frozen).len(), 4000);
    assert_eq!(contents(&directory).len(), 100);
    assert!(directory.memory() < 60_000, "memory comes back: {}", directory.memory());
}

#[test]
fn scan_returns_every_key_that_stays_whatever_splits_and_merges_happen() {
    let mut sizes = BTreeSet::new();
    for seed in 0..30 {
        let mut dice = Dice(seed);
        let mut directory = Directory::new(SEED);
        let name = |kind: &str, number: usize| format!("{kind}:{number}").into_bytes();
        let staying: BTreeSet<_> = (0..300).map(|number| name("stays", number)).collect();
        for key in &staying {
            let _ = put(&mut directory, key, b"");
        }
        let (mut swarm, mut seen) = (0, BTreeSet::new());
        let mut position = Some(0);
        while let Some(at) = position {
            assert!(at < 1 << POSITION_BITS);
            position = directory.scan(at, 10, &mut |entry| {
                seen.insert(entry.key().to_vec());
            });
            assert!(position.is_none_or(|next| next > at), "a scan goes forward");
            // The others come and go in their thousands.
            let target = if dice.below(2) == 0 { 0 } else { dice.below(6000) };
            while swarm < target {
                let _ = put(&mut directory, &name("comes", swarm), b"and goes");
                swarm += 1;
            }
            while swarm > target {
                swarm -= 1;
                let key = name("comes", swarm);
                assert!(directory.remove(hash(&key), &key).is_some());
            }
            sizes.insert(directory.segments.len());
        }
        assert!(seen.is_superset(&staying), "seed {seed}");
        assert!(sizes.len() > 3, "the directory did grow and shrink: {sizes:?}");
    }
}

#[test]
fn a_scan_of_a_resting_directory_returns_each_key_once() {
    let mut directory = Directory::new(SEED);
    for number in 0..5000_u32 {
        let _ = put(&mut directory, &number.to_be_bytes(), b"");
    }
    let (mut seen, mut position, mut calls) = (Vec::new(), Some(0), 0);
    while let Some(at) = position {
        position = directory.scan(at, 100, &mut |entry| seen.push(entry.key().to_vec()));
        calls += 1;
    }
    assert_eq!(seen.len(), 5000);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 5000);
    assert!((30..=50).contains(&calls), "a budget of 100 is about 100 keys: {calls} calls");
    assert_eq!(Directory::new(SEED).scan(0, 10, &mut |_| panic!("nothing there")), None);
    assert_eq!(directory.scan(u64::MAX, 10, &mut |_| panic!("behind the end")), None);
}

#[test]
fn the_directory_grows_by_splits_and_shrinks_by_merges() {
    let mut directory = Directory::new(SEED);
    let key = |number: u32| number.to_be_bytes();
    for number in 0..20_000 {
        let before = directory.segments.len();
        let _ = put(&mut directory, &key(number), b"");
        assert!(directory.segments.len() <= before + 1);
    }
    assert_eq!(directory.segments.len(), 500);
    for number in 0..19_900 {
        assert!(directory.remove(hash(&key(number)), &key(number)).is_some());
    }
    directory.check_invariants();
    assert!(directory.segments.len() <= 10, "{}", directory.segments.len());
    // Larger values make smaller segments.
    for number in 0..1000 {
        let _ = put(&mut directory, &key(number), &[1; INLINE_VALUE_MAX]);
    }
    directory.check_invariants();
    assert!(directory.segments.len() >= directory.live_bytes() / SPLIT_BYTES);
}

#[test]
fn loading_into_a_directory_of_the_right_size_splits_nothing() {
    let mut directory = Directory::with_capacity(SEED, 10_000, 10_000 * 70);
    let segments = directory.segments.len();
    for number in 0..10_000_u32 {
        let _ = put(&mut directory, &number.to_be_bytes(), &[0; 56]);
    }
    assert_eq!(directory.segments.len(), segments);
    directory.check_invariants();
}

#[test]
fn an_update_in_place_leaves_no_garbage_and_allocates_nothing() {
    let mut directory = Directory::new(SEED);
    for number in 0..30_u32 {
        let _ = put(&mut directory, &number.to_be_bytes(), &[1; 32]);
    }
    let (place, memory) = (directory.get(hash(&[0; 4]), &[0; 4]).unwrap().key().as_ptr(), directory.memory());
    for round in 0..100 {
        let _ = put(&mut directory, &[0; 4], &[round; 32]);
        assert_eq!(directory.live_bytes(), 30 * (6 + 4 + 32));
    }
    let _ = directory.set(hash(&[0; 4]), &[0; 4], NewValue::Int(5), None, 0);
    let _ = put(&mut directory, &[0; 4], &[1; 8]);
    assert_eq!(directory.live_bytes(), 30 * (6 + 4 + 32) - 24);
    assert_eq!(directory.get(hash(&[0; 4]), &[0; 4]).unwrap().key().as_ptr(), place);
    assert_eq!(directory.memory(), memory);
}

#[test]
fn expired_keys_are_found_and_bounds_rise_after_a_look() {
    let mut directory = Directory::new(SEED);
    let key = |number: u64| number.to_be_bytes();
    for number in 0..3000 {
        let expiry = (number % 3 != 0).then_some(1000 + number);
        let _ = directory.set(hash(&key(number)), &key(number), NewValue::Int(1), expiry, 0);
    }
    assert_eq!(directory.volatile_len(), 2000);
    assert_eq!(directory.earliest_expiry(), Some(1001));
    let mut found = Vec::new();
    directory.collect_expired(1000, 100, &mut found);
    assert_eq!(found, []);
    directory.collect_expired(1500, 100, &mut found);
    assert_eq!(found.len(), 100, "no more than the limit");
    loop {
        for expired in &found {
            assert_eq!(expired.hash, hash(&expired.key));
            let gone = directory.remove(expired.hash, &expired.key).expect("it was there");
            assert!(gone.expiry.is_some_and(|at| at <= 1500));
        }
        directory.check_invariants();
        found.clear();
        directory.collect_expired(1500, 100, &mut found);
        if found.is_empty() {
            break;
        }
    }
    assert!(directory.iter().all(|entry| entry.expiry().is_none_or(|at| at > 1500)));
    assert_eq!(directory.earliest_expiry(), Some(1502), "the bounds are exact after the looks");
    for number in 0..3000 {
        directory.set_expiry(hash(&key(number)), &key(number), None);
    }
    directory.check_invariants();
    assert_eq!((directory.volatile_len(), directory.earliest_expiry()), (0, None));
}

#[test]
fn random_reaches_every_key_about_equally() {
    let mut directory = Directory::new(SEED);
    assert!(directory.random(1).is_none());
    for number in 0..500_u32 {
        let _ = put(&mut directory, &number.to_be_bytes(), b"");
    }
    let mut counts: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for number in 0..100_000 {
        let entry = directory.random(number).expect("there are keys");
        *counts.entry(entry.key().to_vec()).or_default() += 1;
    }
    assert_eq!(counts.len(), 500);
    let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert!(*least > 130 && *most < 280, "200 each on average: {least} to {most}");
    let mut sparse = Directory::with_capacity(SEED, 1_000_000, 0);
    let _ = put(&mut sparse, b"lonely", b"");
    assert_eq!(sparse.random(3).map(|entry| entry.key()), Some(&b"lonely"[..]));
}

#[test]
fn frozen_views_are_read_while_another_thread_writes() {
    let mut directory = Directory::new(SEED);
    let key = |number: u64| number.to_be_bytes();
    for number in 0..2000 {
        let _ = put(&mut directory, &key(number), &vec![1; (number % 300) as usize]);
    }
    std::thread::scope(|threads| {
        for round in 0..8 {
            let (view, expected) = (directory.clone(), contents(&directory));
            threads.spawn(move || assert_eq!(contents(&view), expected));
            for number in (0..2000).filter(|number| number % 8 != round) {
                let value = vec![round as u8; (number * 7 % 300) as usize];
                let _ = put(&mut directory, &key(number), &value);
            }
        }
    });
    directory.check_invariants();
}

#[test]
fn an_expiry_beyond_what_a_record_holds_is_cut_in_the_bounds_too() {
    let mut directory = Directory::new(SEED);
    let hash = SEED.hash(b"k");
    let _ = directory.set(hash, b"k", NewValue::Int(1), Some(u64::MAX - 1), 0);
    directory.check_invariants();
    assert!(directory.set_expiry(hash, b"k", Some(u64::MAX)));
    directory.check_invariants();
    assert_eq!(directory.earliest_expiry(), Some(EXPIRY_MAX));
}

#[test]
fn bounds_stay_below_every_expiry_through_splits_and_merges() {
    let mut directory = Directory::new(SEED);
    let key = |number: usize| number.to_be_bytes();
    let mut dice = Dice(11);
    let numbers = (0..1500).chain((0..1500).rev());
    for (step, number) in numbers.enumerate() {
        let segments = directory.segments.len();
        if step < 1500 {
            let expiry = Some(dice.below(1_000_000) as u64);
            let _ = directory.set(hash(&key(number)), &key(number), NewValue::Int(0), expiry, 0);
        } else {
            let _ = directory.remove(hash(&key(number)), &key(number));
        }
        if directory.segments.len() != segments {
            directory.check_invariants();
        }
    }
    assert_eq!(directory.segments.len(), 1);
}

#[test]
fn a_directory_is_split_in_two_by_a_bit_and_shares_nothing_with_its_clones() {
    const BIT: u64 = 1 << 60;
    for expiring in [0, 1, 10] {
        let mut directory = Directory::new(SEED);
        let mut keys: Vec<Vec<u8>> = (0..3000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        keys.push(vec![b'k'; INLINE_KEY_MAX + 1]);
        for (number, key) in keys.iter().enumerate() {
            let expiry = (number % 10 < expiring).then_some(number as u64 + 5);
            let value = if number % 7 == 0 { NewValue::Bytes(&[b'v'; 300]) } else { NewValue::Int(number as i64) };
            let _ = directory.set(hash(key), key, value, expiry, 3);
        }
        let all = |directory: &Directory| directory.iter().map(|e| (e.key().to_vec(), row(e))).collect::<Model>();
        let (frozen, before) = (directory.clone(), all(&directory));

        let high = directory.split_off(BIT);
        directory.check_invariants();
        high.check_invariants();
        frozen.check_invariants();
        assert!(high.iter().all(|entry| hash(entry.key()) & BIT != 0));
        assert!(directory.iter().all(|entry| hash(entry.key()) & BIT == 0));
        assert!(high.len() > 1000 && directory.len() > 1000);
        assert_eq!(high.volatile_len() + directory.volatile_len(), frozen.volatile_len());
        assert_eq!(all(&frozen), before);
        let mut both = all(&directory);
        both.extend(all(&high));
        assert_eq!(both, before);
    }
}
