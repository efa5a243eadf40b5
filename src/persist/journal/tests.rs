//! Tests of the stream and its sinks, over the simulated disk.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::persist::crash_tests::options;
use crate::persist::record::Items;
use crate::persist::storage::SimStorage;
use crate::persist::storage::sim::Fault;
use crate::persist::store::Store;

/// The number, the time and the keys of a block.
type KeptBlock = (u64, u64, Vec<Vec<u8>>);

/// A sink that keeps what it is given.
#[derive(Default)]
struct Kept {
    is_off: AtomicBool,
    blocks: parking_lot::Mutex<Vec<KeptBlock>>,
}

impl Kept {
    fn numbers(&self) -> Vec<u64> {
        self.blocks.lock().iter().map(|(number, ..)| *number).collect()
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        self.blocks.lock().iter().flat_map(|(.., keys)| keys.clone()).collect()
    }
}

impl Sink for Kept {
    fn wants(&self) -> bool {
        !self.is_off.load(Ordering::Relaxed)
    }

    fn accept(&self, block: &mut Block<'_>) {
        let keys = Items::new(block.items()).map(|item| item.unwrap().1.words()[1].clone()).collect();
        self.blocks.lock().push((block.number, block.time_ms, keys));
    }
}

fn open(storage: &SimStorage, appendonly: bool) -> (Store, Arc<Kept>) {
    let (store, _) = Store::open(Arc::new(storage.clone()), options(1, appendonly)).unwrap();
    let kept = Arc::new(Kept::default());
    store.journal().attach(Arc::clone(&kept) as Arc<dyn Sink>);
    (store, kept)
}

fn set(store: &Store, key: &str) {
    let seq = u64::from_str_radix(key, 36).unwrap();
    store.journal().append(seq as usize % 2, 1, seq, 0, &[b"SET", key.as_bytes(), b"v"]);
}

/// What a start after the death of the process would read of the log.
fn keys_on_disk(storage: &SimStorage) -> Vec<Vec<u8>> {
    let (_, recovery) = Store::open(Arc::new(storage.process_image()), options(99, true)).unwrap();
    let (mut windows, mut keys) = (recovery.windows(), Vec::new());
    while let Some(window) = windows.next_window().unwrap() {
        let records = window.epochs.iter().flat_map(|e| &e.shards).flat_map(|(_, records)| records);
        keys.extend(records.map(|record| record.words()[1].clone()));
    }
    keys
}

fn snapshot(store: &Store) {
    let cut = store.cut_now().unwrap();
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.commit(cut, finished, crate::persist::Retention::default()).unwrap();
}

#[test]
fn a_second_sink_is_given_what_the_file_is_given_across_cuts() {
    let storage = SimStorage::new();
    let (store, kept) = open(&storage, true);
    let mut cuts = Vec::new();
    for (round, keys) in ["123", "45", "6", "", "789"].into_iter().enumerate() {
        for key in keys.chars() {
            set(&store, &key.to_string());
            store.journal().flush();
        }
        if round < 4 {
            let cut = store.cut_now().unwrap();
            cuts.push(cut.block());
            store.abandon(cut);
        }
    }
    assert_eq!(kept.numbers(), (1..=13).collect::<Vec<u64>>(), "a cut is a block, an empty one too");
    assert_eq!(cuts, [4, 7, 9, 10]);
    assert_eq!(kept.keys(), keys_on_disk(&storage));
    assert_eq!(kept.keys().concat(), b"123456789");
}

#[test]
fn a_worker_that_is_added_appends_to_the_same_blocks() {
    let storage = SimStorage::new();
    let (store, kept) = open(&storage, true);
    set(&store, "0");
    store.journal().add_worker();
    store.journal().append(2, 1, 1, 0, &[b"SET", b"1", b"v"]);
    assert!(store.journal().pending_bytes() > 0);
    store.journal().flush();
    store.journal().append(2, 1, 2, 0, &[b"SET", b"2", b"v"]);
    snapshot(&store);
    store.journal().append(2, 1, 3, 0, &[b"SET", b"3", b"v"]);
    store.journal().flush();
    assert_eq!((kept.keys().concat(), store.journal().pending_bytes()), (b"0123".to_vec(), 0));
    assert_eq!(keys_on_disk(&storage).concat(), b"3", "what was before is in the snapshot");
}

#[test]
fn a_second_sink_goes_on_while_the_log_is_off_or_has_failed() {
    let storage = SimStorage::new();
    let (store, kept) = open(&storage, false);
    assert!(store.journal().wants() && !store.log().is_active());
    set(&store, "1");
    store.log().flush().unwrap();
    snapshot(&store);
    set(&store, "2");
    store.keep_log();
    snapshot(&store);
    assert!(store.log().is_active());
    set(&store, "3");
    storage.fail_at(storage.operations(), Fault::Io);
    assert!(store.log().flush().is_err());
    set(&store, "4");
    assert!(store.log().flush().is_err());
    snapshot(&store);
    set(&store, "5");
    assert_eq!(store.log().sync_now().unwrap(), store.journal().position());
    store.turn_log_off().unwrap();
    set(&store, "6");
    store.journal().flush();
    assert_eq!(kept.keys().concat(), b"123456");
    let numbers = kept.numbers();
    assert!(numbers.iter().zip(&numbers[1..]).all(|(one, next)| next - one == 1), "{numbers:?}");
    assert_eq!(keys_on_disk(&storage), [b"5"]);
    let kept = kept as Arc<dyn Sink>;
    store.journal().detach(&kept);
    assert!(!store.journal().wants());
}

#[test]
fn without_a_sink_that_wants_it_nothing_is_taken_and_no_number_given_out() {
    let storage = SimStorage::new();
    let (store, kept) = open(&storage, false);
    let journal = store.journal();
    let mut cutting = journal.cutting();
    cutting.take(|| kept.is_off.store(true, Ordering::Relaxed));
    cutting.deliver();
    drop(cutting);
    assert!(!journal.wants());
    let position = journal.position();
    set(&store, "1");
    journal.flush();
    snapshot(&store);
    assert_eq!((journal.position(), journal.pending_bytes()), (position, 0));
    let mut cutting = journal.cutting();
    cutting.take(|| kept.is_off.store(false, Ordering::Relaxed));
    cutting.deliver();
    drop(cutting);
    set(&store, "2");
    assert_eq!(journal.position(), position + 1);
    journal.flush();
    assert_eq!(kept.keys(), [b"2"]);
}

#[test]
fn sinks_are_given_all_in_order_whoever_flushes_and_cuts() {
    let storage = SimStorage::new();
    let (store, kept) = open(&storage, true);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.journal().flush();
            }
        });
        let cutting = scope.spawn(|| {
            for _ in 0..20 {
                store.abandon(store.cut_now().unwrap());
            }
        });
        let writers = [0, 1].map(|worker| {
            let journal = store.journal();
            scope.spawn(move || {
                for seq in 0..500u64 {
                    journal.append(worker, worker as u16, seq, 0, &[b"SET", format!("{worker}:{seq}").as_bytes(), b""]);
                }
            })
        });
        for thread in writers.into_iter().chain([cutting]) {
            thread.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        flushing.join().unwrap();
    });
    store.journal().flush();
    let numbers = kept.numbers();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let of = |keys: Vec<Vec<u8>>, worker: &[u8]| -> Vec<Vec<u8>> {
        keys.into_iter().filter(|key| key.starts_with(worker)).collect()
    };
    for worker in [0, 1] {
        let expected: Vec<_> = (0..500).map(|seq| format!("{worker}:{seq}").into_bytes()).collect();
        let prefix = format!("{worker}:").into_bytes();
        assert_eq!(of(kept.keys(), &prefix), expected);
        assert_eq!(of(keys_on_disk(&storage), &prefix), expected);
    }
}

/// The system's clock may be set back, but a restore to a point in time relies on the times of blocks.
#[test]
fn the_time_of_blocks_never_goes_back() {
    let storage = SimStorage::new();
    let times = parking_lot::Mutex::new(vec![90, 300, 100, 200, 100]);
    let clock = Arc::new(move || times.lock().pop().unwrap_or(50));
    let timed = crate::persist::StoreOptions { clock, ..options(1, true) };
    let (store, _) = Store::open(Arc::new(storage.clone()), timed.clone()).unwrap();
    let kept = Arc::new(Kept::default());
    store.journal().attach(Arc::clone(&kept) as Arc<dyn Sink>);
    for key in ["1", "2", "3", "4", "5"] {
        set(&store, key);
        store.journal().flush();
    }
    let found: Vec<u64> = kept.blocks.lock().iter().map(|(_, time, _)| *time).collect();
    assert_eq!(found, [100, 200, 200, 300, 300]);
    drop(store);
    let (store, recovery) = Store::open(Arc::new(storage.clone()), timed).unwrap();
    assert_eq!(recovery.summary().last_time_ms, 300);
    drop(recovery);
    set(&store, "6");
    store.journal().flush();
    drop(store);
    let (_, recovery) = Store::open(Arc::new(storage), options(3, true)).unwrap();
    assert_eq!((recovery.summary().last_block, recovery.summary().last_time_ms), (6, 300));
}
