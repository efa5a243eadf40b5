//! Tests of the append path alone, over the simulated disk.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::persist::block::read_block;
use crate::persist::crash_tests::options;
use crate::persist::format::SEGMENT_HEADER;
use crate::persist::journal::MOVED_MIN;
use crate::persist::record::{Items, Record};
use crate::persist::storage::SimStorage;
use crate::persist::storage::sim::{Fault, Kind};
use crate::persist::store::Store;
use crate::persist::testing::{barrier, record};
use crate::persist::{Recovery, StoreOptions};

fn open(storage: &SimStorage, options: StoreOptions) -> (Store, Recovery) {
    Store::open(Arc::new(storage.clone()), options).unwrap()
}

fn reopened(storage: &SimStorage) -> Recovery {
    open(&storage.process_image(), options(99, true)).1
}

fn set(log: &Log, worker: usize, seq: u64) {
    log.journal().append(worker, 1, seq, 0, &[b"SET", b"k", seq.to_string().as_bytes()]);
}

#[test]
fn position_names_the_block_that_will_cover_an_append() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    assert_eq!((log.journal().position(), log.written(), log.synced()), (0, 0, 0));
    set(log, 0, 1);
    set(log, 1, 2);
    assert_eq!((log.journal().position(), log.written()), (1, 0));
    assert_eq!(log.flush().unwrap(), 1);
    assert_eq!((log.journal().position(), log.written(), log.synced()), (1, 1, 0));
    assert_eq!(log.sync_now().unwrap(), 1);
    set(log, 1, 3);
    assert_eq!((log.journal().position(), log.written(), log.synced()), (2, 1, 1));
    assert_eq!(log.sync_now().unwrap(), 2);
    assert_eq!(log.journal().pending_bytes(), 0);
}

#[test]
fn an_empty_flush_writes_nothing_and_an_empty_sync_syncs_nothing() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    set(store.log(), 0, 1);
    store.log().sync_now().unwrap();
    let before = storage.operations();
    store.log().flush().unwrap();
    store.log().sync_now().unwrap();
    assert_eq!(storage.operations(), before);
}

#[test]
fn a_log_switched_off_takes_nothing_and_stands_still() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, false));
    set(store.log(), 0, 1);
    let mut appender = store.journal().appender(0);
    appender.barrier(&barrier(0, b"FLUSHALL"));
    drop(appender);
    assert_eq!((store.journal().position(), store.journal().pending_bytes()), (0, 0));
    assert_eq!(store.log().sync_now().unwrap(), 0);
    assert_eq!(storage.names(), ["LOCK", "MANIFEST"]);
}

#[test]
fn what_one_appender_appends_is_inside_one_block_whoever_flushes() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                log.flush().unwrap();
            }
        });
        for transaction in 0..500u64 {
            let mut appender = log.journal().appender((transaction % 2) as usize);
            for seq in 0..5 {
                appender.record(1, transaction * 5 + seq, 0, &[b"SET", b"k", b"v"]);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    log.flush().unwrap();
    let recovery = reopened(&storage);
    let mut seen = 0;
    let mut windows = recovery.windows().of_bytes(1);
    while let Some(window) = windows.next_window().unwrap() {
        assert_eq!(window.blocks, 1);
        for (_, records) in &window.epochs[0].shards {
            assert_eq!(records.len() % 5, 0, "a transaction was split");
            let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
            assert!(seqs.is_sorted());
            assert_eq!(seqs[0], seen);
            seen += records.len() as u64;
        }
    }
    assert_eq!(seen, 2500);
}

#[test]
fn a_barrier_parts_the_records_of_all_workers_within_one_block() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    set(log, 1, 1);
    set(log, 0, 2);
    log.journal().appender(1).barrier(&barrier(3, b"FLUSHALL"));
    set(log, 0, 3);
    log.journal().appender(0).barrier(&barrier(0, b"SWAPDB"));
    set(log, 1, 4);
    log.flush().unwrap();
    let recovery = reopened(&storage);
    let mut windows = recovery.windows();
    let window = windows.next_window().unwrap().unwrap();
    let shape: Vec<(Option<Vec<u8>>, Vec<u64>)> = window
        .epochs
        .iter()
        .map(|epoch| {
            let name = epoch.barrier.map(|record: Record| record.words().swap_remove(0));
            let records = epoch.shards.iter().flat_map(|(_, records)| records);
            (name, records.map(|record| record.seq).collect())
        })
        .collect();
    let (flush, swap) = (b"FLUSHALL".to_vec(), b"SWAPDB".to_vec());
    assert_eq!(shape, [(None, vec![1, 2]), (Some(flush), vec![3]), (Some(swap), vec![4])]);
    assert_eq!(window.epochs[1].barrier.unwrap().db, 3);
}

#[test]
fn records_of_any_size_and_worker_stand_in_their_order_in_one_block() {
    let sizes = [1, MOVED_MIN, 10, 3 * MOVED_MIN, 100];
    for workers in [&[0][..], &[1], &[0, 1], &[1, 0]] {
        let storage = SimStorage::new();
        let (store, _) = open(&storage, options(1, true));
        let log = store.log();
        let mut expected = Vec::new();
        for (seq, size) in (1..).zip(sizes.repeat(2)) {
            let worker = workers[seq as usize % workers.len()];
            let value = vec![b'a' + seq as u8; size];
            let mut records = record(worker as u16, seq, 0, &[b"SET", b"k", &value]);
            log.journal().appender(worker).encoded(&mut records);
            assert!(records.is_empty());
            expected.push((worker as u16, seq, value));
        }
        assert!(log.journal().pending_bytes() > 2 * sizes.iter().sum::<usize>());
        log.flush().unwrap();
        assert_eq!(log.journal().pending_bytes(), 0);
        let recovery = reopened(&storage);
        let mut found = Vec::new();
        let mut windows = recovery.windows();
        while let Some(window) = windows.next_window().unwrap() {
            assert_eq!(window.blocks, 1);
            for (shard, records) in &window.epochs[0].shards {
                let value = |record: &Record| record.words().swap_remove(2);
                found.extend(records.iter().map(|record| (*shard, record.seq, value(record))));
            }
        }
        expected.sort();
        found.sort();
        assert!(found == expected, "{workers:?}");
    }
}

#[test]
fn what_is_truncated_is_not_logged_and_what_follows_is() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    let mut appender = log.journal().appender(0);
    let mark = appender.mark();
    appender.record(1, 1, 0, &[b"SET", b"undone", b""]);
    appender.truncate(mark);
    appender.record(1, 2, 0, &[b"SET", b"done", b""]);
    drop(appender);
    // Another thread waits for a block that turns out to be empty. It must come nevertheless.
    let mut appender = log.journal().appender(1);
    appender.record(1, 3, 0, &[b"SET", b"undone", b""]);
    appender.truncate(0);
    drop(appender);
    let awaited = log.journal().position();
    assert_eq!(log.flush().unwrap(), awaited);
    let bytes = storage.get("log-0000000000000001.ik").unwrap();
    let block = read_block(&bytes, SEGMENT_HEADER, true).unwrap();
    let seqs: Vec<u64> = Items::new(block.payload).map(|item| item.unwrap().1.seq).collect();
    assert_eq!(seqs, [2]);
}

#[test]
fn an_error_poisons_until_a_commit_and_nothing_looks_acknowledged_before_it() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    set(log, 0, 1);
    log.flush().unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&called);
    log.on_progress(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    storage.fail_at(storage.operations(), Fault::Io);
    assert!(log.sync_now().is_err());
    assert_eq!(called.load(Ordering::Relaxed), 1);
    let cause = log.poisoned().unwrap();
    assert!(cause.contains("sync") && cause.contains("log-0000000000000001.ik"), "{cause}");

    set(log, 0, 2);
    let before = storage.operations();
    assert!(matches!(log.flush(), Err(PersistError::Poisoned { .. })));
    assert!(log.sync_now().is_err());
    assert_eq!(storage.operations(), before, "a failed file is never touched again");

    let cut = store.cut_now().unwrap();
    set(log, 0, 3);
    assert!(log.flush().is_err());
    assert!(log.sync_now().is_err());
    assert_eq!((log.written(), log.synced()), (1, 0), "nothing may look acknowledged yet");
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
    assert_eq!(log.poisoned(), None);
    // Blocks 2 (dropped) and 3 (the cut) are inside the snapshot; 4 came after it.
    assert_eq!((log.journal().position(), log.written()), (4, 4));
    assert_eq!(log.sync_now().unwrap(), 4);
}

/// A segment that was made ahead of need during a cut stayed the next one, with a lower number than that of the cut.
/// The commit took it for an old one and removed it, and a later seal named it: the next start was refused.
#[test]
fn a_spare_segment_that_a_cut_overtakes_is_dropped() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    let maker = log.writer.lock().maker.clone();
    let first = log.writer.lock().spare.take().expect("made at the start").number;
    let made = std::cell::Cell::new(log.make_spare(&maker));
    let arrives = || {
        if let Some(made) = made.take() {
            log.take_spare(&maker, made);
        }
    };
    let freeze = |take: &mut dyn FnMut()| {
        take();
        Some(())
    };
    let ((), cut) = store.cut(arrives, freeze).unwrap();
    let current = log.writer.lock().current.as_ref().map_or(0, |current| current.number);
    assert!(current > first + 1, "the cut has made one more");
    assert!(log.writer.lock().spare.is_none());
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
    log.set_segment_bytes(100);
    for seq in 1..9 {
        set(log, 0, seq);
        log.sync_now().unwrap();
        let cut = store.cut_now().unwrap();
        store.abandon(cut);
        log.tend();
    }
    assert_eq!(reopened(&storage).summary().last_block, log.written());
}

#[test]
fn the_fsync_thread_commits_groups_and_tells_its_subscribers() {
    let storage = SimStorage::new();
    let thread = StoreOptions { threads: true, policy: FsyncPolicy::Always, workers: 4, ..options(1, true) };
    let (store, _) = open(&storage, thread);
    let log = store.log();
    let (lock, wake) = (Arc::new(parking_lot::Mutex::new(())), Arc::new(parking_lot::Condvar::new()));
    let (signal_lock, signal) = (Arc::clone(&lock), Arc::clone(&wake));
    log.on_progress(Box::new(move || {
        drop(signal_lock.lock());
        signal.notify_all();
    }));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (lock, wake) = (&lock, &wake);
            scope.spawn(move || {
                for seq in 0..200 {
                    log.journal().append(worker, worker as u16 % 4, seq, 0, &[b"SET", b"k", b"v"]);
                    let position = log.journal().position();
                    log.kick();
                    let mut guard = lock.lock();
                    while log.synced() < position {
                        wake.wait(&mut guard);
                    }
                }
            });
        }
    });
    assert!(log.synced() <= 800);
    let image = storage.recover_image(1);
    let (_, recovery) = open(&image, StoreOptions { workers: 4, ..options(2, true) });
    let mut windows = recovery.windows();
    let window = windows.next_window().unwrap().unwrap();
    let counts = window.epochs[0].shards.iter().map(|(_, records)| records.len());
    assert_eq!(counts.sum::<usize>(), 800);
    log.set_policy(FsyncPolicy::EverySec);
    assert_eq!(log.policy(), FsyncPolicy::EverySec);
}

/// When a log was switched on, records after its cut looked written and synced before the snapshot was committed, on
/// which they depend. WAITAOF said so, and `kill -9` lost everything.
#[test]
fn a_log_that_is_switched_on_counts_from_the_commit_on() {
    for commits in [true, false] {
        let storage = SimStorage::new();
        let (store, _) = open(&storage, options(1, true));
        let log = store.log();
        set(log, 0, 1);
        log.sync_now().unwrap();
        store.turn_log_off().unwrap();
        let off = log.journal().position();
        set(log, 0, 2);
        assert_eq!((log.is_active(), log.journal().wants(), log.journal().position()), (false, false, off));
        store.keep_log();
        let cut = store.cut_now().unwrap();
        for seq in 3..6 {
            set(log, 0, seq);
            log.sync_now().unwrap();
        }
        assert!(!log.is_active() && log.journal().wants());
        assert!((log.written(), log.synced()) == (off, off) && log.journal().position() == off + 3);
        assert_eq!(store.horizon(), u64::MAX, "nobody waits for it");
        assert_eq!(reopened(&storage).summary().blocks, off, "as it was when the log was switched off");
        if commits {
            let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
            store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
            assert!(log.is_active());
            assert_eq!((log.written(), log.synced()), (off + 3, off));
            assert_eq!(store.horizon(), off + 3);
            log.set_policy(FsyncPolicy::Always);
            assert_eq!(store.horizon(), off);
            assert_eq!(log.sync_now().unwrap(), off + 3);
            assert_eq!(reopened(&storage).summary().blocks, 3);
        } else {
            store.abandon(cut);
            assert!(!log.is_active() && !log.journal().wants());
            set(log, 0, 9);
            assert_eq!(log.journal().pending_bytes(), 0);
        }
    }
}

/// A snapshot asked whether a log is kept and then waited for the disk. A log that was switched off meanwhile was
/// kept nevertheless.
#[test]
fn a_log_that_is_switched_off_while_a_snapshot_begins_stays_off() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    set(store.log(), 0, 1);
    let mut attempts = 0;
    let freeze = |take: &mut dyn FnMut()| {
        attempts += 1;
        if attempts == 1 {
            return None;
        }
        take();
        Some(())
    };
    let is_off = AtomicBool::new(false);
    // Between the choice of the next segment and the cut.
    let wait = || {
        if !is_off.swap(true, Ordering::Relaxed) {
            store.turn_log_off().unwrap();
        }
    };
    let ((), cut) = store.cut(wait, freeze).unwrap();
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
    assert!(!store.log().is_active() && !store.journal().wants());
    set(store.log(), 0, 2);
    store.log().flush().unwrap();
    assert_eq!(reopened(&storage).summary().blocks, 0);
}

/// A disk whose syncs, and whose creations of files, can be held back.
#[derive(Clone, Default)]
struct HeldBack {
    disk: SimStorage,
    valve: Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>,
    creations: Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>,
    /// How many syncs have begun.
    syncs: Arc<AtomicU64>,
}

impl HeldBack {
    fn hold_syncs(&self, held: bool) {
        *self.valve.0.lock() = held;
        self.valve.1.notify_all();
    }

    fn hold_creations(&self, held: bool) {
        *self.creations.0.lock() = held;
        self.creations.1.notify_all();
    }

    fn file(&self, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(HeldBackFile { file, valve: Arc::clone(&self.valve), syncs: Arc::clone(&self.syncs) })
    }
}

struct HeldBackFile {
    file: Box<dyn StorageFile>,
    valve: Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>,
    syncs: Arc<AtomicU64>,
}

impl StorageFile for HeldBackFile {
    fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.append(bytes)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.valve.1.wait_while(&mut self.valve.0.lock(), |held| *held);
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
}

impl Storage for HeldBack {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.disk.path(name)
    }
    fn lock(&self) -> std::io::Result<crate::persist::storage::DirLock> {
        self.disk.lock()
    }
    fn create(&self, name: &str) -> std::io::Result<Box<dyn StorageFile>> {
        self.creations.1.wait_while(&mut self.creations.0.lock(), |held| *held);
        self.disk.create(name).map(|file| self.file(file))
    }
    fn open(&self, name: &str) -> std::io::Result<Box<dyn StorageFile>> {
        self.disk.open(name).map(|file| self.file(file))
    }
    fn reader(&self, name: &str) -> std::io::Result<Box<dyn crate::persist::storage::StorageReader>> {
        self.disk.reader(name)
    }
    fn read(&self, name: &str) -> std::io::Result<crate::persist::storage::FileBytes> {
        self.disk.read(name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn exists(&self, name: &str) -> std::io::Result<bool> {
        self.disk.exists(name)
    }
}

#[test]
fn syncs_that_replies_wait_for_are_events_when_they_take_long() {
    for (policy, events) in [(FsyncPolicy::Always, vec!["aof-fsync-always"]), (FsyncPolicy::EverySec, vec![])] {
        let disk = HeldBack::default();
        let options = StoreOptions { policy, ..options(1, true) };
        let (store, _) = Store::open(Arc::new(disk.clone()), options).unwrap();
        let monitor = Arc::new(crate::base::latency::LatencyMonitor::default());
        store.log().watch_latency(Arc::clone(&monitor));
        monitor.set_threshold_ms(20);
        set(store.log(), 0, 1);
        store.log().flush().unwrap();
        disk.hold_syncs(true);
        let begun = disk.syncs.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| store.log().sync().unwrap());
            while disk.syncs.load(Ordering::SeqCst) == begun {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(40));
            assert!(!syncing.is_finished());
            disk.hold_syncs(false);
        });
        // On a busy machine the write may have taken long, too.
        let noted: Vec<_> = monitor.all().into_iter().map(|(event, _)| event.name()).collect();
        let of_syncs: Vec<_> = noted.into_iter().filter(|name| *name != "aof-write").collect();
        assert_eq!(of_syncs, events);
    }
}

/// All replies of all workers waited for the disk, because the cut of a snapshot synced the old segment while it held
/// the writer. Now replies continue, and nothing in the new segment counts as durable before the old one does.
#[test]
fn neither_a_cut_nor_a_flush_waits_for_the_sync_of_a_sealed_segment() {
    let storage = HeldBack::default();
    let (store, _) = Store::open(Arc::new(storage.clone()), options(1, true)).unwrap();
    let log = store.log();
    set(log, 0, 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watchdog = scope.spawn(|| {
            for _ in 0..3000 {
                if over.load(Ordering::SeqCst) {
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            storage.hold_syncs(false);
            false
        });
        let freeze = |take: &mut dyn FnMut()| {
            storage.hold_syncs(true);
            set(log, 1, 2);
            take();
            Some(())
        };
        let ((), cut) = store.cut(|| (), freeze).unwrap();
        assert_eq!(cut.block(), 2);
        let syncing = [scope.spawn(|| log.sync().unwrap()), scope.spawn(|| log.sync_sealed().unwrap())];
        for seq in 3..10 {
            set(log, 0, seq);
            assert_eq!(log.flush().unwrap(), seq);
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert_eq!((log.written(), log.synced()), (seq, 1));
        }
        over.store(true, Ordering::SeqCst);
        assert!(watchdog.join().unwrap(), "something waited for the disk");
        storage.hold_syncs(false);
        for thread in syncing {
            assert!(thread.join().unwrap() >= 2);
        }
        assert_eq!(log.sync().unwrap(), 9);
        store.abandon(cut);
    });
    drop(store);
    assert_eq!(open(&storage.disk.recover_image(1), options(2, true)).1.summary().last_block, 9);
}

#[test]
fn a_sealed_segment_that_cannot_be_synced_poisons_until_the_snapshot_of_its_cut() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, options(1, true));
    let log = store.log();
    set(log, 0, 1);
    let freeze = |take: &mut dyn FnMut()| {
        set(log, 1, 2);
        take();
        Some(())
    };
    let ((), cut) = store.cut(|| (), freeze).unwrap();
    set(log, 0, 3);
    log.flush().unwrap();
    storage.fail_at(storage.operations(), Fault::Io);
    assert!(log.sync().is_err());
    set(log, 0, 4);
    assert!(log.flush().is_err());
    assert_eq!((log.written(), log.synced()), (3, 1));
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
    assert_eq!(log.poisoned(), None);
    assert_eq!((log.written(), log.sync().unwrap()), (4, 4));
    // The segment that failed is not used for another one.
    let bytes = storage.get("log-0000000000000003.ik").unwrap();
    assert!(!crate::persist::block::read_segment_header(&bytes).unwrap().recycled);
    let (_, recovery) = open(&storage.recover_image(3), options(2, true));
    assert_eq!((recovery.summary().blocks, recovery.summary().last_block), (2, 4));
}

/// Flushes go on while `act` waits for a disk that makes no file, and what they return is what is expected of them.
fn flushes_go_on(storage: &HeldBack, log: &Log, works: bool, act: impl FnOnce() + Send) {
    let over = AtomicBool::new(false);
    storage.hold_creations(true);
    std::thread::scope(|scope| {
        let acting = scope.spawn(act);
        let watchdog = scope.spawn(|| {
            for _ in 0..3000 {
                if over.load(Ordering::SeqCst) {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            storage.hold_creations(false);
            false
        });
        for seq in 100..120 {
            set(log, 0, seq);
            assert_eq!(log.flush().is_ok(), works);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!acting.is_finished(), "nothing was held back");
        over.store(true, Ordering::SeqCst);
        assert!(watchdog.join().unwrap(), "a flush waited for a new file");
        storage.hold_creations(false);
        acting.join().unwrap();
    });
}

/// A reply may wait for the write of its block, and for nothing that a rotation, a heal or a spare needs of the disk.
#[test]
fn neither_a_missing_spare_nor_a_failed_rotation_nor_a_heal_holds_up_replies() {
    let storage = HeldBack::default();
    // The log's own file is made, and there is room for no spare.
    storage.disk.fail_kind(Kind::Create, 1..2, Fault::NoSpace);
    let (store, _) = Store::open(Arc::new(storage.clone()), options(1, true)).unwrap();
    let log = store.log();
    set(log, 0, 1);
    assert_eq!(log.sync_now().unwrap(), 1);
    let cut = |store: &Store| store.cut_now();
    // A rotation that must make its file first, and one that cannot.
    flushes_go_on(&storage, log, true, || store.abandon(cut(&store).unwrap()));
    storage.disk.fail_kind(Kind::Create, 0..u64::MAX, Fault::NoSpace);
    store.abandon(cut(&store).unwrap());
    assert!(cut(&store).is_err(), "the spare is used up");
    storage.disk.repair();
    flushes_go_on(&storage, log, true, || store.abandon(cut(&store).unwrap()));
    // A heal.
    storage.disk.fail_kind(Kind::Write, 0..1, Fault::Io);
    set(log, 0, 2);
    assert!(log.flush().is_err());
    storage.disk.repair();
    flushes_go_on(&storage, log, false, || {
        let cut = cut(&store).unwrap();
        let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
        store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
    });
    set(log, 0, 3);
    assert_eq!(log.poisoned(), None);
    let last = log.sync_now().unwrap();
    drop(store);
    assert_eq!(open(&storage.disk.recover_image(1), options(2, true)).1.summary().last_block, last);
}
