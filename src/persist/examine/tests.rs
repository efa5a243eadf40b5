//! Whatever damage a start refuses, the check finds, and it calls nothing damage that a start accepts.

use std::sync::Arc;

use super::check;
use super::directory::{FileKind, Report};
use crate::persist::crash_tests::options;
use crate::persist::storage::{SimStorage, Storage};
use crate::persist::store_tests::{LOG, MANIFEST, SNAPSHOT, open, sample, write_sample};

fn checked(storage: &SimStorage) -> Report {
    check(storage)
}

#[test]
fn a_sound_store_is_told_file_by_file() {
    let storage = sample();
    let report = checked(&storage);
    assert_eq!((report.faults.clone(), report.tail.clone(), report.is_live), (vec![], None, false));
    let of = |kind| report.files.iter().filter(|file| file.kind == kind).collect::<Vec<_>>();
    assert_eq!(of(FileKind::Manifest)[0].name, MANIFEST);
    let (snapshot, segment) = (of(FileKind::Snapshot)[0], of(FileKind::Segment)[0]);
    assert_eq!((snapshot.name.as_str(), snapshot.verified, snapshot.blocks), (SNAPSHOT, 2, Some((2, 2))));
    assert_eq!((segment.name.as_str(), segment.verified, segment.blocks), (LOG, 2, Some((3, 4))));
    assert_eq!(of(FileKind::Unused).len(), 1, "the spare segment");
    assert_eq!((report.last_block, report.durable_block), (4, 2));
    let generation = &report.generations[0];
    assert_eq!((generation.from_block, generation.to_block, generation.entries), (2, 4, 3));
    assert!(generation.is_current && report.generations.len() == 1);
    assert_eq!(storage.names().len(), 5, "nothing was changed");
}

#[test]
fn a_check_beside_a_running_server_takes_no_lock_and_calls_its_last_block_no_damage() {
    let storage = SimStorage::new();
    let store = write_sample(Arc::new(storage.clone()), true);
    let report = checked(&storage);
    assert_eq!((report.is_live, report.faults, report.last_block), (true, vec![], 4));
    // Half of the next block.
    let log = storage.get(LOG).unwrap();
    store.journal().append(0, 0, 9, 0, &[b"SET", b"k", &[b'v'; 90]]);
    store.log().flush().unwrap();
    let mut torn = storage.get(LOG).unwrap();
    let changed = (0..log.len()).rfind(|&at| torn[at] != log[at]).unwrap();
    torn[changed - 20..=changed].fill(0);
    storage.put(LOG, &torn);
    let report = checked(&storage);
    assert_eq!((report.faults, report.tail.map(|tail| tail.block)), (vec![], Some(5)));
    assert!(storage.lock().is_err(), "the server's lock is untouched");
}

#[test]
fn an_empty_directory_is_no_store_and_no_damage() {
    let report = checked(&SimStorage::new());
    assert!(!report.is_damaged() && report.faults.len() == 1);
    assert!(report.faults[0].what.contains("no store"));
}

/// The judgement of a start: refused, or cut at a block.
fn judged(storage: &SimStorage) -> Result<Option<u64>, String> {
    match open(&storage.process_image(), 9) {
        Ok((_, recovery)) => {
            for shard in 0..4 {
                recovery.shard_chunk(shard).map_err(|error| error.to_string())?;
            }
            Ok(recovery.summary().torn.as_ref().map(|torn| torn.block))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn agrees(storage: &SimStorage, what: &str) {
    let report = checked(storage);
    let tail = report.tail.as_ref().map(|tail| tail.block);
    match judged(storage) {
        Ok(torn) => {
            assert!(!report.is_damaged(), "{what}: {:?}", report.faults);
            assert_eq!(tail, torn, "{what}");
        }
        Err(error) => assert!(report.is_damaged() || !report.faults.is_empty(), "{what}: {error}: {report:?}"),
    }
}

#[test]
fn check_and_start_agree_on_every_flip_and_cut() {
    let pristine = sample();
    for name in [MANIFEST, SNAPSHOT, LOG] {
        let good = pristine.get(name).unwrap();
        for at in 0..good.len() {
            let storage = pristine.process_image();
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            storage.put(name, &bad);
            // A start does not compare what lies between the chunks of a snapshot.
            if judged(&storage).is_err() || name != SNAPSHOT {
                agrees(&storage, &format!("{name} byte {at}"));
            }
            storage.put(name, &good[..at]);
            agrees(&storage, &format!("{name} cut to {at}"));
        }
    }
}

#[test]
fn check_and_start_agree_on_holes_in_a_log_of_many_blocks() {
    let pristine = SimStorage::new();
    let (store, _) = open(&pristine, 1).unwrap();
    for seq in 0..30u64 {
        let value = vec![b'v'; [3, 90, 700, 2000][seq as usize % 4]];
        store.journal().append(0, 0, seq, 0, &[b"SET", b"k", &value]);
        store.log().flush().unwrap();
        if seq == 9 {
            store.log().sync_now().unwrap();
        }
    }
    drop(store);
    let name = "log-0000000000000001.ik";
    let log = pristine.get(name).unwrap();
    let blocks: Vec<_> = crate::persist::block::find_blocks(&log, 0, 1, 1).map(|(at, block)| (at, block.len)).collect();
    for &(at, len) in &blocks {
        let sector = (at / 512 + 1) * 512;
        let holes = [Some(at..at + len), Some(at + len / 2..at + len), (sector < at + len).then_some(at..sector)];
        for hole in holes.into_iter().flatten() {
            let storage = pristine.process_image();
            let mut damaged = log.clone();
            damaged[hole.clone()].fill(0);
            storage.put(name, &damaged);
            agrees(&storage, &format!("{hole:?}"));
        }
        let storage = pristine.process_image();
        let mut damaged = log.clone();
        damaged[at + len - 2] ^= 1;
        storage.put(name, &damaged);
        agrees(&storage, &format!("flip in the block at {at}"));
    }
    for missing in [name, MANIFEST] {
        let storage = pristine.process_image();
        storage.forget(missing);
        assert!(checked(&storage).is_damaged(), "{missing} is missing");
    }
    let old = pristine.process_image();
    let manifest = old.get(MANIFEST).unwrap();
    drop(crate::persist::Store::open(Arc::new(old.clone()), options(5, true)).map(|(store, _)| {
        store.journal().append(0, 0, 99, 0, &[b"SET", b"k", b"v"]);
        store.log().sync_now().unwrap();
    }));
    old.put(MANIFEST, &manifest);
    assert!(checked(&old).is_damaged(), "an older manifest was put back");
    old.forget("LOCK");
    assert!(checked(&old).is_damaged(), "and the note of the newest is gone");
}
