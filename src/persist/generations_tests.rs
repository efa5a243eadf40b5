//! What is kept, for how long, and that a crash on the way leaves everything that the manifest names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::crash_tests::options;
use super::examine::{Report, check};
use super::storage::SimStorage;
use super::*;

/// Logs a block, makes a snapshot, and so replaces a generation.
fn turn(store: &Store, seq: u64, retention: Retention) -> Result<(), PersistError> {
    store.journal().append(0, 0, seq, 0, &[b"SET", b"k", &[b'v'; 100]]);
    store.log().sync_now()?;
    let cut = store.cut_now()?;
    let finished = store.snapshot_writer(&cut)?.finish()?;
    store.commit(cut, finished, retention).map(drop)
}

fn numbers(report: &Report) -> Vec<Option<u64>> {
    assert_eq!(report.faults, vec![]);
    report.generations.iter().map(|generation| generation.snapshot).collect()
}

#[test]
fn generations_are_kept_by_count_age_and_bytes() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&now);
    let options = StoreOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(1, true) };
    let storage = SimStorage::new();
    let (store, _) = Store::open(Arc::new(storage.clone()), options).unwrap();
    let kept = |retention: Retention| {
        let seq = now.fetch_add(1000, Ordering::Relaxed);
        turn(&store, seq, retention).unwrap();
        numbers(&check(&storage))
    };
    let three = Retention { count: 3, ..Retention::default() };
    assert_eq!(kept(three), [None, Some(1)], "the first began from nothing");
    assert_eq!(kept(three), [None, Some(1), Some(2)]);
    assert_eq!(kept(three), [None, Some(1), Some(2), Some(3)]);
    assert_eq!(kept(three), [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(store.kept().0, 3);
    // Snapshot 2 was replaced two seconds ago, snapshot 3 one second.
    assert_eq!(kept(Retention { age_ms: 1500, ..three }), [Some(3), Some(4), Some(5)]);
    let bytes = store.kept().1;
    assert_eq!(kept(Retention { bytes: bytes + bytes / 4, ..three }), [Some(4), Some(5), Some(6)]);
    store.pin(Some(5));
    assert_eq!(kept(Retention::default()), [Some(5), Some(6), Some(7)]);
    store.pin(None);
    assert_eq!(kept(Retention::default()), [Some(8)]);
    assert_eq!(store.kept(), (0, 0));
}

/// Each generation reaches to the end of the log, because the log goes on through all of them, restarts included.
#[test]
fn the_log_goes_on_through_all_generations() {
    let storage = SimStorage::new();
    let keep = Retention { count: 9, ..Retention::default() };
    for run in 1..4 {
        let (store, _) = Store::open(Arc::new(storage.clone()), options(run, true)).unwrap();
        turn(&store, run * 10, keep).unwrap();
        // A cut that came to nothing begins a segment that no manifest lists.
        store.abandon(store.cut_now().unwrap());
        turn(&store, run * 10 + 1, keep).unwrap();
        store.journal().append(0, 0, run * 10 + 2, 0, &[b"SET", b"k", b"v"]);
        store.log().sync_now().unwrap();
    }
    let report = check(&storage);
    assert_eq!(numbers(&report).len(), 7);
    let reach: Vec<u64> = report.generations.iter().map(|generation| generation.to_block).collect();
    assert_eq!(reach, [report.last_block; 7]);
    assert!(storage.names().iter().all(|name| !name.contains("torn")));
    // A log that was off in between begins anew.
    let (store, _) = Store::open(Arc::new(storage.clone()), options(9, true)).unwrap();
    store.turn_log_off().unwrap();
    store.keep_log();
    turn(&store, 50, keep).unwrap();
    store.journal().append(0, 0, 51, 0, &[b"SET", b"k", b"v"]);
    store.log().sync_now().unwrap();
    let report = check(&storage);
    let (older, newest) = report.generations.split_at(7);
    assert_eq!(report.faults, vec![]);
    assert!(older.iter().all(|generation| generation.to_block < newest[0].to_block));
}

#[test]
fn a_crash_or_an_error_at_every_operation_leaves_all_that_the_manifest_names() {
    let script = |storage: &SimStorage, run: u64| -> Option<Store> {
        let (store, _) = Store::open(Arc::new(storage.clone()), options(run, true)).ok()?;
        for seq in 0..6 {
            let _ = turn(&store, seq, Retention { count: 2, ..Retention::default() });
        }
        Some(store)
    };
    let healthy = SimStorage::new();
    script(&healthy, 1);
    let length = healthy.operations();
    for at in 0..length {
        for seed in 0..4 {
            let storage = SimStorage::new();
            match seed {
                3 => storage.fail_at(at, super::storage::sim::Fault::Io),
                _ => storage.crash_at(at),
            }
            script(&storage, 1);
            let image = storage.recover_image(seed);
            // A second crash, in the start.
            image.crash_at((at + seed) % 30);
            script(&image, 2);
            let image = image.recover_image(seed);
            let Some(store) = script(&image, 3) else { panic!("crash at {at}, seed {seed}") };
            drop(store);
            let report = check(&image);
            assert_eq!(report.faults, vec![], "crash at {at}, seed {seed}");
            assert_eq!(report.generations.len(), 3, "crash at {at}, seed {seed}");
        }
    }
}

/// What somebody has linked is a backup, and is not written over.
#[test]
fn only_pruned_segments_without_another_name_are_written_over() {
    use super::block::read_segment_header;
    use super::storage::{RealStorage, Storage};
    for linked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(dir.path()).unwrap());
        let (store, recovery) = Store::open(Arc::clone(&storage), options(1, true)).unwrap();
        drop(recovery);
        let keep = Retention { count: 1, ..Retention::default() };
        turn(&store, 1, keep).unwrap();
        let first = dir.path().join("log-0000000000000001.ik");
        let before = std::fs::read(&first).unwrap();
        if linked {
            std::fs::hard_link(&first, dir.path().join("backup")).unwrap();
        }
        let recycled = || {
            let names = storage.list().unwrap().into_iter().filter(|name| format::segment_number(name).is_some());
            let headers = names.map(|name| read_segment_header(&storage.read(&name).unwrap()).unwrap());
            headers.filter(|header| header.recycled).count()
        };
        assert_eq!((recycled(), first.exists()), (0, true), "what is kept is not written over");
        turn(&store, 2, keep).unwrap();
        assert_eq!((recycled(), first.exists()), (usize::from(!linked), false));
        if linked {
            assert_eq!(std::fs::read(dir.path().join("backup")).unwrap(), before);
        }
    }
}

/// A backup while snapshots come and go, on a disk that fails at every operation: a whole store, or none.
#[test]
fn a_backup_is_whole_or_no_store_at_every_crash_and_error() {
    use super::crash_tests::load;
    use super::storage::sim::Fault;
    let back_up = |storage: &SimStorage, to: &SimStorage| -> Result<u64, PersistError> {
        let (store, _) = Store::open(Arc::new(storage.clone()), options(1, true))?;
        turn(&store, 1, Retention::default())?;
        let cut = store.cut_now()?;
        let finished = store.snapshot_writer(&cut)?.finish()?;
        let snapshot = store.commit(cut, finished, Retention::default())?.number;
        store.pin(Some(snapshot));
        let to: Arc<dyn super::storage::Storage> = Arc::new(to.clone());
        store.share_snapshot(snapshot, &*to)?;
        for seq in 2..5 {
            turn(&store, seq, Retention::default())?;
        }
        store.journal().append(0, 0, 9, 0, &[b"SET", b"k", b"9"]);
        let cut = store.cut_now()?;
        let block = cut.block();
        let sealed = store.seal_backup(snapshot, &cut, &to);
        store.abandon(cut);
        store.pin(None);
        turn(&store, 10, Retention::default())?;
        sealed.map(|()| block)
    };
    let (healthy, target) = (SimStorage::new(), SimStorage::new());
    let block = back_up(&healthy, &target).unwrap();
    assert!(check(&target).faults.is_empty());
    for (fault, length) in [(None, target.operations()), (Some(Fault::Io), target.operations())] {
        let mut finished = 0;
        for at in 0..=length {
            let (storage, to) = (SimStorage::new(), SimStorage::new());
            match fault {
                None => to.crash_at(at),
                Some(fault) => to.fail_at(at, fault),
            }
            let done = back_up(&storage, &to);
            finished += u64::from(done.is_ok());
            assert_eq!(check(&storage).faults, vec![], "the store itself is untouched");
            for seed in 0..4 {
                let image = to.recover_image(seed);
                if image.get("MANIFEST").is_none() {
                    assert!(done.is_err(), "{fault:?} at {at}");
                    continue;
                }
                let (_, recovery) = Store::open(Arc::new(image), options(7, true)).unwrap();
                assert_eq!(recovery.summary().last_block, block, "{fault:?} at {at}");
                assert_eq!(load(&recovery).unwrap().get(&u64::from(b'k')), Some(&9));
            }
        }
        assert!(finished > 0);
    }
}
