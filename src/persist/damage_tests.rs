//! Damage to the files of a store: flips, cuts, holes. What was synced is refused, and what was not leaves a prefix.

use std::sync::Arc;

use proptest::prelude::*;

use super::block::find_blocks;
use super::crash_tests::options;
use super::format::{BLOCK_HEADER, SEGMENT_HEADER};
use super::storage::SimStorage;
use super::store_tests::{
    LOG, MANIFEST, SNAPSHOT, describe, open, refusal, sample, sample_lines, without_zeros, write_sample,
};
use super::*;

/// A power cut that wrote the blocks of the unsynced tail in any order made the start refuse, where a hole did not
/// cover a disk's sector.
#[test]
fn any_hole_in_the_unsynced_tail_is_cut_and_below_the_durable_mark_it_is_corruption() {
    let pristine = SimStorage::new();
    let (store, _) = open(&pristine, 1).unwrap();
    for seq in 0..40u64 {
        let value = vec![b'v'; [3, 90, 700, 5000][seq as usize % 4]];
        store.journal().append(0, 0, seq, 0, &[b"SET", b"k", &value]);
        store.log().flush().unwrap();
        if seq == 9 {
            store.log().sync_now().unwrap();
        }
    }
    let name = "log-0000000000000001.ik";
    let log = pristine.get(name).unwrap();
    let blocks: Vec<_> = find_blocks(&log, 0, 1, 1).map(|(at, block)| (at, block.len)).collect();
    assert_eq!(blocks.len(), 40);
    let opened = |damaged: &[u8]| {
        let image = pristine.process_image();
        image.put(name, damaged);
        open(&image, 2).map(|(_, recovery)| describe(&recovery).unwrap().len())
    };
    for (number, &(at, len)) in blocks.iter().enumerate().take(39) {
        // The whole write, its end, and its beginning up to the end of a sector, if it reaches that far.
        let sector = (at / 512 + 1) * 512;
        let holes = [Some(at..at + len), Some(at + len / 2..at + len), (sector < at + len).then_some(at..sector)];
        for hole in holes.into_iter().flatten() {
            let mut damaged = log.clone();
            damaged[hole.clone()].fill(0);
            match opened(&damaged) {
                Ok(lines) => assert!(number >= 10 && lines == 2 * number, "{number} {hole:?}: {lines}"),
                Err(error) => assert!(number < 10, "{number} {hole:?}: {error}"),
            }
        }
        // What no power cut does.
        let mut damaged = log.clone();
        damaged[at + len - 2] ^= 1;
        assert!(opened(&damaged).is_err(), "{number}");
    }
}

#[test]
fn every_flip_of_every_byte_is_refused_or_leaves_a_prefix() {
    let pristine = sample();
    let whole = describe(&open(&pristine.process_image(), 2).unwrap().1).unwrap();
    for name in [MANIFEST, SNAPSHOT, LOG] {
        let good = pristine.get(name).unwrap();
        let mut prefixes = 0;
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let storage = pristine.process_image();
                let mut bad = good.clone();
                bad[at] ^= flip;
                storage.put(name, &bad);
                let lines = open(&storage, 2).and_then(|(_, recovery)| describe(&recovery));
                let Ok(lines) = lines else { continue };
                assert!(name == LOG && lines.len() < whole.len(), "{name} byte {at} passed");
                assert!(whole.starts_with(&lines), "{name} byte {at}: {lines:?}");
                prefixes += 1;
            }
        }
        // Only the last, unsynced block may pass for a torn tail.
        assert_eq!(prefixes > 0, name == LOG);
    }
}

#[test]
fn whatever_becomes_of_zeros_ahead_nothing_is_lost() {
    let pristine = SimStorage::new();
    drop(write_sample(Arc::new(pristine.clone()), true));
    let whole = describe(&open(&pristine.process_image(), 2).unwrap().1).unwrap();
    let log = pristine.get(LOG).unwrap();
    let end = without_zeros(&log).len();
    assert!(end < log.len(), "there are none");
    for at in end..log.len() {
        let (mut flipped, cut) = (log.clone(), log[..at].to_vec());
        flipped[at] ^= 0x80;
        for (damaged, is_damage) in [(flipped, true), (cut, false)] {
            let storage = pristine.process_image();
            storage.put(LOG, &damaged);
            let (_, recovery) = open(&storage, 2).unwrap();
            assert_eq!(recovery.summary().torn.is_some(), is_damage, "at {at}");
            assert_eq!(describe(&recovery).unwrap(), whole, "at {at}");
        }
    }
}

#[test]
fn every_truncation_is_refused_or_leaves_a_prefix() {
    let pristine = sample();
    let whole = describe(&open(&pristine.process_image(), 2).unwrap().1).unwrap();
    for name in [MANIFEST, SNAPSHOT, LOG] {
        let good = pristine.get(name).unwrap();
        for len in 0..good.len() {
            let storage = pristine.process_image();
            storage.put(name, &good[..len]);
            let lines = open(&storage, 2).and_then(|(_, recovery)| describe(&recovery));
            let Ok(lines) = lines else { continue };
            assert!(name == LOG && len >= SEGMENT_HEADER, "{name} cut to {len} passed");
            assert!(whole.starts_with(&lines) && lines.len() < whole.len(), "{name} cut to {len}");
        }
    }
}

#[test]
fn a_torn_tail_is_kept_aside_and_reported_once() {
    let storage = sample();
    let log = storage.get(LOG).unwrap();
    storage.put(LOG, &log[..log.len() - 1]);
    let (store, recovery) = open(&storage, 2).unwrap();
    let torn = recovery.summary().torn.clone().unwrap();
    assert_eq!((torn.block, torn.forced), (4, false));
    let aside = format!("log-0000000000000002.torn-{}", torn.offset);
    assert_eq!(storage.get(&aside).unwrap(), log[torn.offset as usize..log.len() - 1]);
    store.journal().append(0, 1, 1, 0, &[b"SET", b"after", b"tear"]);
    store.log().flush().unwrap();
    drop(store);
    let (_, recovery) = open(&storage, 3).unwrap();
    assert_eq!(recovery.summary().torn, None);
    let lines = describe(&recovery).unwrap();
    assert_eq!(lines.last().unwrap(), "1#1/0 SET after tear");
}

#[test]
fn corruption_is_refused_with_its_place_and_cut_only_when_told_to() {
    let storage = sample();
    let mut log = storage.get(LOG).unwrap();
    log[SEGMENT_HEADER + BLOCK_HEADER + 5] ^= 1;
    storage.put(LOG, &log);
    let Err(error) = open(&storage, 2) else { panic!("opened") };
    let text = error.to_string();
    let place = format!("{LOG} is corrupt at offset 64: block 3: the block's checksum does not match");
    assert!(text.contains(&place), "{text}");
    assert!(text.contains("block 4 follows intact"), "{text}");
    assert_eq!(storage.get(LOG).unwrap(), log, "a refusal changes nothing");

    let told = StoreOptions { cut_at_corruption: true, ..options(2, true) };
    let (_, recovery) = Store::open(Arc::new(storage.clone()), told).unwrap();
    assert!(recovery.summary().torn.as_ref().unwrap().forced);
    assert_eq!(describe(&recovery).unwrap(), sample_lines()[..3]);
    open(&storage, 3).unwrap();
}

#[test]
fn damage_below_the_durable_mark_is_corruption_even_at_the_end_of_the_file() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, 1).unwrap();
    for seq in 0..3 {
        store.journal().append(0, 0, seq, 0, &[b"SET", b"k", b"v"]);
        store.log().sync_now().unwrap();
    }
    drop(store);
    let name = "log-0000000000000001.ik";
    let log = storage.get(name).unwrap();
    let starts: Vec<usize> = memchr::memmem::find_iter(&log, b"IKB1").collect();
    // Block 3 says that 2 was synced. A hole in place of 2 is not a torn tail, whatever it looks like.
    let mut holed = log.clone();
    holed[starts[1]..starts[2]].fill(0);
    storage.put(name, &holed);
    let error = refusal(&storage);
    assert!(error.to_string().contains("blocks up to 2 were synced"), "{error}");
}

proptest! {
    #[test]
    fn any_damage_to_a_log_leaves_a_prefix_or_a_refusal(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1usize..600), 1..4),
        told: bool,
    ) {
        let storage = SimStorage::new();
        let (store, _) = open(&storage, 1).unwrap();
        for seq in 0..12u64 {
            store.journal().append(0, 0, seq, 0, &[b"SET", b"k", &[b'v'; 200]]);
            store.log().flush().unwrap();
            if seq == 5 {
                store.log().sync_now().unwrap();
            }
        }
        drop(store);
        let name = "log-0000000000000001.ik";
        let mut log = storage.get(name).unwrap();
        for (at, byte, len) in damage {
            let at = at.index(log.len());
            let end = (at + len).min(log.len());
            log[at..end].fill(byte);
        }
        storage.put(name, &log);
        let options = StoreOptions { cut_at_corruption: told, ..options(2, true) };
        if let Ok((store, recovery)) = Store::open(Arc::new(storage.clone()), options) {
            drop(store);
            let (mut windows, mut seqs) = (recovery.windows(), Vec::new());
            while let Some(window) = windows.next_window().unwrap() {
                let shards = window.epochs.iter().flat_map(|epoch| &epoch.shards);
                seqs.extend(shards.flat_map(|(_, records)| records).map(|record| record.seq));
            }
            prop_assert!(seqs.iter().copied().eq(0..seqs.len() as u64));
            prop_assert!(open(&storage, 3).is_ok());
        }
    }
}
