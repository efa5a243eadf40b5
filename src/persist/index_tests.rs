//! An index says what reading its segment says, or it is not used.

use std::sync::Arc;

use super::block::find_blocks;
use super::crash_tests::{Model, options};
use super::crypt::tests::{encrypt, encrypt_no_more};
use super::format::{BARRIER_SHARD, index_name, index_number, segment_name};
use super::storage::SimStorage;
use super::testing::barrier;
use super::{PersistError, Record, Recovery, Store, position};
use crate::base::random::Random;

/// Runs a test on a store in the clear, and on one that is encrypted.
fn both(test: impl Fn(bool)) {
    encrypt_no_more();
    test(false);
    encrypt("1", true);
    test(true);
}

/// A store of several segments, all but the last of which have an index.
fn indexed() -> SimStorage {
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    model.store.log().set_segment_bytes(2000);
    for round in 0..24 {
        model.append(round % 4 + 1);
        model.sync().unwrap();
        model.store.log().tend();
    }
    storage.process_image()
}

/// Opens a copy of it, with or without indexes.
fn open(storage: &SimStorage, indexes: bool) -> Result<Recovery, PersistError> {
    let options = super::StoreOptions { indexes, ..options(2, true) };
    Store::open(Arc::new(storage.process_image()), options).map(|(_, recovery)| recovery)
}

/// What is known of one record: its place among the barriers, its number, and the effect, as text.
type Known = (usize, u64, u64, String);

fn known(segment: usize, passed: u64, record: &Record<'_>) -> Known {
    (segment, passed, record.seq, format!("{:?} in {}", record.effect, record.db))
}

/// The records of a shard, in order.
fn of_shard(recovery: &Recovery, shard: u16) -> Result<Vec<Known>, PersistError> {
    let (mut all, mut records) = (Vec::new(), recovery.records());
    for segment in 0..recovery.segment_count() {
        for (offset, passed) in recovery.places(segment, shard)? {
            all.push(known(segment, passed, &records.at(position(segment, offset))?));
        }
    }
    Ok(all)
}

fn shards() -> impl Iterator<Item = u16> {
    (0..4).chain([BARRIER_SHARD])
}

fn indexes(storage: &SimStorage) -> Vec<u64> {
    storage.names().iter().filter_map(|name| index_number(name)).collect()
}

#[test]
fn an_index_says_what_reading_says() {
    both(|_| {
        let storage = indexed();
        let (with, without) = (open(&storage, true).unwrap(), open(&storage, false).unwrap());
        assert!(with.unread_segments() > 3 && without.unread_segments() == 0);
        let summary = super::RecoverySummary { unread: 0, ..with.summary().clone() };
        assert_eq!(summary, *without.summary());
        for shard in shards() {
            let records = of_shard(&without, shard).unwrap();
            assert!(!records.is_empty());
            assert_eq!(of_shard(&with, shard).unwrap(), records);
            for segment in 0..with.segment_count() {
                assert_eq!(with.count_in(segment, shard).unwrap(), without.count_in(segment, shard).unwrap());
                assert_eq!(with.databases_in(segment).unwrap(), without.databases_in(segment).unwrap());
            }
        }
        with.read_the_rest().unwrap();
    });
}

#[test]
fn every_flip_and_cut_of_an_index_is_noticed_and_the_segment_is_read() {
    both(|is_encrypted| {
        let storage = indexed();
        let whole = open(&storage, false).unwrap();
        let expected: Vec<_> = shards().map(|shard| of_shard(&whole, shard).unwrap()).collect();
        let name = index_name(indexes(&storage)[1]);
        let good = storage.get(&name).unwrap();
        for at in (0..good.len()).step_by(if is_encrypted { 5 } else { 1 }) {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            for bad in [&flipped, &good[..at]] {
                storage.put(&name, bad);
                let recovery = open(&storage, true).unwrap();
                let found: Vec<_> = shards().map(|shard| of_shard(&recovery, shard).unwrap()).collect();
                assert_eq!(found, expected, "{at}");
            }
        }
        // That of another segment, or of another store.
        storage.put(&name, &storage.get(&index_name(indexes(&storage)[2])).unwrap());
        assert_eq!(of_shard(&open(&storage, true).unwrap(), 1).unwrap(), expected[1]);
    });
}

/// Damage in the last block of a segment with an index used to refuse the start.
#[test]
fn damage_in_the_last_block_of_a_segment_refuses_no_start() {
    both(|_| {
        let storage = indexed();
        let whole = open(&storage, false).unwrap();
        let expected: Vec<_> = shards().map(|shard| of_shard(&whole, shard).unwrap()).collect();
        let name = segment_name(indexes(&storage)[1]);
        let good = storage.get(&name).unwrap();
        let blocks: Vec<_> = find_blocks(&good, 0, 1, 1).collect();
        let (at, last) = blocks[blocks.len() - 1];
        let mut bad = good.clone();
        bad[at + last.len - 1] ^= 1;
        storage.put(&name, &bad);
        let recovery = open(&storage, true).unwrap();
        let found: Vec<_> = shards().map(|shard| of_shard(&recovery, shard)).collect();
        assert!(found.iter().any(Result::is_err) && found.iter().any(Result::is_ok));
        for (found, expected) in found.into_iter().zip(expected) {
            match found {
                Ok(found) => assert_eq!(found, expected),
                Err(error) => assert!(error.to_string().contains(&format!("block {}", last.header.number)), "{error}"),
            }
        }
        // What is cut concerns more than a block.
        storage.put(&name, &good[..at + last.len - 1]);
        assert!(open(&storage, true).is_err());
    });
}

/// Records of several workers stand in a block one worker behind the other. An index says in which order they are to be
/// applied, which is that of the windows of the log.
#[test]
fn the_order_is_that_in_which_a_start_applies_the_whole_log() {
    both(|_| {
        for seed in 0..20 {
            let (storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
            let (store, _) = Store::open(Arc::new(storage.clone()), options(1, true)).unwrap();
            let mut seqs = [0; 4];
            for round in 0..30 {
                for _ in 0..random.below(60) {
                    let (worker, shard) = (random.below(2) as usize, random.below(4) as usize);
                    if round % 3 == 0 && random.below(20) == 0 {
                        store.journal().appender(worker).barrier(&barrier(0, b"FLUSHDB"));
                        continue;
                    }
                    seqs[shard] += 1;
                    store.journal().append(worker, shard as u16, seqs[shard], 0, &[b"SET", b"k", b"v"]);
                }
                store.log().flush().unwrap();
            }
            drop(store);
            let recovery = open(&storage, true).unwrap();
            let (mut expected, mut passed) = (vec![Vec::new(); 5], 0);
            let mut windows = recovery.windows().of_bytes(500);
            while let Some(window) = windows.next_window().unwrap() {
                for epoch in &window.epochs {
                    if let Some(barrier) = &epoch.barrier {
                        passed += 1;
                        expected[4].push(known(0, passed, barrier));
                    }
                    for (shard, records) in &epoch.shards {
                        expected[usize::from(*shard)].extend(records.iter().map(|record| known(0, passed, record)));
                    }
                }
            }
            let found: Vec<_> = shards().map(|shard| of_shard(&recovery, shard).unwrap()).collect();
            assert_eq!(found, expected, "seed {seed}");
            let is_in_order = |all: &Vec<Known>| all.is_sorted_by_key(|(_, _, seq, _)| *seq);
            assert!(found[..4].iter().all(is_in_order) && passed > 0, "seed {seed}");
        }
    });
}

/// The damage of a record concerns its shard, and names the place. No wrong byte is ever given.
#[test]
fn every_flip_of_an_unread_segment_is_noticed_by_whom_it_concerns() {
    both(|is_encrypted| {
        let storage = indexed();
        let whole = open(&storage, false).unwrap();
        let expected: Vec<_> = shards().map(|shard| of_shard(&whole, shard).unwrap()).collect();
        let name = segment_name(indexes(&storage)[1]);
        let good = storage.get(&name).unwrap();
        let (mut refused, mut concerned, mut unconcerned) = (0, 0, 0);
        for at in (0..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            storage.put(&name, &bad);
            let recovery = match open(&storage, true) {
                Ok(recovery) => recovery,
                // Its header.
                Err(error) => {
                    assert!(error.to_string().contains(&name), "{error}");
                    refused += 1;
                    continue;
                }
            };
            let mut errors = 0;
            for (shard, expected) in shards().zip(&expected) {
                match of_shard(&recovery, shard) {
                    Ok(found) => assert_eq!(found, *expected, "{at}"),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains(&name) && error.contains("is corrupt at offset"), "{error}");
                        errors += 1;
                    }
                }
            }
            assert!(errors <= 1 || is_encrypted, "a record is of one shard, and a block of several");
            (concerned, unconcerned) = (concerned + errors, unconcerned + u32::from(errors == 0));
        }
        assert!(
            refused > 20 && concerned > 100 && (unconcerned > 20 || is_encrypted),
            "{refused}, {concerned}, {unconcerned}"
        );
    });
}

#[test]
fn an_index_goes_with_its_segment_and_is_made_anew_if_it_is_missing() {
    both(|_| {
        let storage = indexed();
        let before = indexes(&storage);
        storage.forget(&index_name(before[1]));
        storage.put(&index_name(before[2]), b"rubbish");
        let (store, recovery) = Store::open(Arc::new(storage.clone()), options(2, true)).unwrap();
        assert_eq!(recovery.unread_segments(), before.len() - 2);
        store.index_the_rest(&recovery);
        store.log().tend();
        drop((store, recovery));
        // Those two, and the last segment of the run before.
        assert_eq!(open(&storage, true).unwrap().unread_segments(), before.len() + 1);
        let mut model = Model::open(&storage, 3, 0, 100, true).unwrap();
        model.snapshot().unwrap();
        model.snapshot().unwrap();
        assert!(indexes(&storage).is_empty());
    });
}
