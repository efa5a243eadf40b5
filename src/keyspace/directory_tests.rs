//! Tests of the directory and, through it, of segments and entries.

use std::cell::Cell;

thread_local! {
    static FORGE: Cell<Option<fn(&[u8]) -> u64>> = const { Cell::new(None) };
}

/// The hash of a key in a test that chooses hashes, so that it can make them collide.
pub(super) fn forged_hash(key: &[u8]) -> Option<u64> {
    FORGE.get().map(|forge| forge(key))
}

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::keyspace::entry::{INLINE_KEY_MAX, INLINE_VALUE_MAX, Kind, SharedBytes};

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
        super::below(&mut self.0, end)
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

/// One random operation, on the directory and on the model; both must answer alike.
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
            // Exclusive here unless a frozen view shares the segment: then nothing may change.
            let before = directory.get(hash, &key).map(|entry| entry.access());
            directory.touch(hash, &key, access);
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
