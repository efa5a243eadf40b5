//! Tests of the store as a whole: refusals, damage to every byte, the golden files, a real directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::block::{find_blocks, finish_block};
use super::crash_tests::options;
use super::format::{END_MARK, SEGMENT_HEADER};
use super::storage::{RealStorage, SimStorage, Storage};
use super::*;

pub(super) const MANIFEST: &str = "MANIFEST";
pub(super) const SNAPSHOT: &str = "snapshot-0000000000000001.ik";
pub(super) const LOG: &str = "log-0000000000000002.ik";

pub(super) fn open(storage: &SimStorage, generation: u64) -> Result<(Store, Recovery), PersistError> {
    Store::open(Arc::new(storage.clone()), options(generation, true))
}

/// The refusal of an open that must be refused.
pub(super) fn refusal(storage: &SimStorage) -> PersistError {
    match open(storage, 9) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

/// The store of the golden files: a snapshot of three entries, and two blocks after it.
pub(super) fn write_sample(storage: Arc<dyn Storage>, compress: bool) -> Store {
    let (store, recovery) = Store::open(storage, options(7, true)).unwrap();
    assert!(recovery.summary().fresh);
    let log = store.log();
    log.journal().append(0, 1, 1, 0, &[b"SET", b"a", b"1"]);
    let cut = store.cut_now().unwrap();
    log.sync_sealed().unwrap();
    log.journal().append(1, 2, 1, 5, &[b"SET", b"c", b"3", b"PXAT", b"1700000001000"]);
    log.journal().append(0, 1, 2, 0, &[b"DEL", b"a"]);
    log.flush().unwrap();
    let mut writer = store.snapshot_writer(&cut).unwrap();
    let of_three = |chunk: &mut ChunkWriter<'_>| {
        chunk.push(0, b"text", Some(1_700_000_002_000), Some(9), WireValue::Bytes(&[b'x'; 60]));
        chunk.push(2, b"number", None, None, WireValue::Int(-42));
    };
    writer.chunk(3, compress, of_three).unwrap();
    writer.chunk(1, compress, |chunk| chunk.push(0, b"a", None, Some(1), WireValue::Int(1))).unwrap();
    writer.chunk(2, compress, |_| ()).unwrap();
    let finished = writer.finish().unwrap();
    let summary = store.commit(cut, finished, Retention::default()).unwrap();
    assert_eq!((summary.entries, summary.cut_block), (3, 2));
    assert_eq!(summary.not_removed, Vec::<String>::new());
    log.journal().appender(0).barrier(&super::testing::barrier(5, b"FLUSHDB"));
    log.journal().append(1, 0, 1, 0, &[b"SET", b"d", &[b'y'; 30]]);
    log.flush().unwrap();
    store
}

/// Everything that a recovery yields, as text. An error ends it.
pub(super) fn describe(recovery: &Recovery) -> Result<Vec<String>, PersistError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut lines = Vec::new();
    for shard in 0..4 {
        let Some(chunk) = recovery.shard_chunk(shard)? else { continue };
        for entry in chunk.iter() {
            let e = entry.map_err(|what| recovery.chunk_error(shard, what))?;
            let value = match e.value {
                WireValue::Int(number) => number.to_string(),
                WireValue::Bytes(bytes) => text(bytes),
                WireValue::Collection(tag, bytes) => format!("{tag}:{}", text(bytes)),
            };
            lines.push(format!("{shard}/{} {} {:?} {:?} {value}", e.db, text(e.key), e.expiry, e.access));
        }
    }
    let mut windows = recovery.windows().of_bytes(1);
    while let Some(window) = windows.next_window()? {
        lines.push(format!("block {}", window.last_block));
        let mut describe = |record: &Record| {
            let args: Vec<String> = record.words().iter().map(|word| text(word)).collect();
            lines.push(format!("{}#{}/{} {}", record.shard, record.seq, record.db, args.join(" ")));
        };
        for epoch in &window.epochs {
            epoch.barrier.iter().for_each(&mut describe);
            epoch.shards.iter().flat_map(|(_, records)| records).for_each(&mut describe);
        }
    }
    Ok(lines)
}

pub(super) fn sample_lines() -> Vec<String> {
    vec![
        "1/0 a None Some(1) 1".to_owned(),
        format!("3/0 text Some(1700000002000) Some(9) {}", "x".repeat(60)),
        "3/2 number None None -42".to_owned(),
        "block 3".to_owned(),
        "1#2/0 DEL a".to_owned(),
        "2#1/5 SET c 3 PXAT 1700000001000".to_owned(),
        "block 4".to_owned(),
        "65535#0/5 FLUSHDB".to_owned(),
        format!("0#1/0 SET d {}", "y".repeat(30)),
    ]
}

pub(super) fn sample() -> SimStorage {
    let storage = SimStorage::new();
    drop(write_sample(Arc::new(storage.clone()), true));
    storage.put(LOG, &without_zeros(&storage.get(LOG).unwrap()));
    storage
}

/// A log without the zeros that were written ahead, as in the golden files.
pub(super) fn without_zeros(log: &[u8]) -> Vec<u8> {
    let end = log.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    log[..end].to_vec()
}

#[test]
fn a_store_round_trips_and_its_replaced_files_are_gone() {
    let storage = sample();
    let spare = "log-0000000000000003.ik";
    assert_eq!(storage.names(), ["LOCK", MANIFEST, LOG, spare, SNAPSHOT]);
    let (_, recovery) = open(&storage, 2).unwrap();
    let mut lines = describe(&recovery).unwrap();
    // The order between shards is free.
    lines[4..6].sort();
    assert_eq!(lines, sample_lines());
    let summary = recovery.summary();
    assert_eq!((summary.blocks, summary.last_block, summary.snapshot_entries), (2, 4, 3));
    assert_eq!((summary.torn.clone(), summary.clean, summary.fresh), (None, false, false));
    recovery.snapshot().unwrap().verify_whole().unwrap();
}

/// A store whose log continues in a recycled segment, with older blocks of the same run behind its end. Returns its
/// directory, the name of the segment, and its content.
fn recycled_sample() -> (SimStorage, &'static str, Vec<String>) {
    const RECYCLED: &str = "log-0000000000000003.ik";
    let storage = SimStorage::new();
    let (store, recovery) = open(&storage, 1).unwrap();
    drop(recovery);
    for seq in 0..40 {
        store.journal().append(0, 0, seq, 0, &[b"SET", b"old", &[b'o'; 200]]);
        store.log().flush().unwrap();
    }
    for _ in 0..2 {
        snapshot(&store);
    }
    for seq in 40..43 {
        store.journal().append(0, 0, seq, 0, &[b"SET", b"new", seq.to_string().as_bytes()]);
        store.log().sync_now().unwrap();
    }
    drop(store);
    let bytes = storage.get(RECYCLED).unwrap();
    assert!(super::block::read_segment_header(&bytes).unwrap().recycled);
    assert_eq!(find_blocks(&bytes, 0, 1, 43).count(), 3);
    assert!(find_blocks(&bytes, 0, 1, 0).count() > 20, "what was there before");
    let lines = (43..46).flat_map(|n| [format!("block {n}"), format!("0#{}/0 SET new {}", n - 3, n - 3)]).collect();
    (storage, RECYCLED, lines)
}

/// An empty snapshot, which makes the log before it superfluous.
fn snapshot(store: &Store) {
    let cut = store.cut_now().unwrap();
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.commit(cut, finished, Retention::default()).unwrap();
}

#[test]
fn a_recycled_segment_ends_where_its_mark_stands() {
    let (storage, name, lines) = recycled_sample();
    for image in [storage.process_image(), storage.recover_image(1)] {
        let (_, recovery) = open(&image, 2).unwrap();
        assert_eq!(recovery.summary().torn, None);
        assert_eq!(describe(&recovery).unwrap(), lines);
        // The same again: no recovery changes it.
        drop(recovery);
        let (_, recovery) = open(&image, 3).unwrap();
        assert_eq!(describe(&recovery).unwrap(), lines);
        let torn: Vec<String> = image.names().into_iter().filter(|name| name.contains("torn")).collect();
        assert_eq!(torn, [""; 0]);
    }
    assert!(storage.get(name).unwrap().len() > 40 * 200, "as long as what it is written over");
}

#[test]
fn no_flip_in_a_recycled_segment_is_read_and_what_was_synced_is_refused() {
    let (pristine, name, whole) = recycled_sample();
    let good = pristine.get(name).unwrap();
    let starts: Vec<usize> = find_blocks(&good, 0, 1, 43).map(|(at, _)| at).collect();
    let last = starts[2];
    let end = last + find_blocks(&good, last, 1, 45).next().unwrap().1.len;
    for at in 0..end + 300 {
        let storage = pristine.process_image();
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        storage.put(name, &bad);
        let opened =
            open(&storage, 2).and_then(|(_, recovery)| Ok((describe(&recovery)?, recovery.summary().torn.clone())));
        match opened {
            // The last block says that the one before it was synced. Nothing says so of the last block itself.
            Ok((lines, torn)) if at >= last && at < end => {
                assert_eq!(lines, whole[..4], "byte {at}");
                assert!(torn.is_some_and(|torn| torn.block == 45), "byte {at}");
            }
            Ok((lines, torn)) => {
                assert!(at >= end, "byte {at} passed");
                assert_eq!(lines, whole, "byte {at}");
                assert_eq!(torn.is_some(), at < end + END_MARK, "byte {at}");
            }
            Err(error) => assert!(at < last, "byte {at}: {error}"),
        }
    }
}

#[test]
fn blocks_that_overtook_a_lost_one_in_a_recycled_segment_are_cut() {
    let (pristine, name, whole) = recycled_sample();
    let good = pristine.get(name).unwrap();
    let starts: Vec<usize> = find_blocks(&good, 0, 1, 43).map(|(at, _)| at).collect();
    // Block 44 is the old content. Block 45 follows and says that 44 was synced, so this is corruption.
    let mut lost = good.clone();
    lost[starts[1]..starts[2]].fill(b'o');
    let storage = pristine.process_image();
    storage.put(name, &lost);
    assert!(refusal(&storage).to_string().contains("blocks up to 44 were synced"));
    // If it does not say so, a power cut did it.
    let mut header = find_blocks(&good, 0, 1, 45).next().unwrap().1.header;
    header.durable = 43;
    let len = find_blocks(&good, 0, 1, 45).next().unwrap().1.len;
    finish_block(&mut lost[starts[2]..starts[2] + len], &header);
    for zeros in [0, END_MARK] {
        lost[starts[1]..starts[1] + zeros].fill(0);
        let storage = pristine.process_image();
        storage.put(name, &lost);
        let (_, recovery) = open(&storage, 2).unwrap();
        assert_eq!(describe(&recovery).unwrap(), whole[..2]);
        assert_eq!(recovery.summary().torn.as_ref().unwrap().block, 44);
    }
}

#[test]
fn nothing_is_written_over_while_a_recovery_may_read_it() {
    let names_after = |living: bool| {
        let storage = SimStorage::new();
        let (store, recovery) = open(&storage, 1).unwrap();
        let recovery = living.then_some(recovery);
        store.journal().append(0, 0, 1, 0, &[b"SET", b"k", b"v"]);
        snapshot(&store);
        drop(recovery);
        let spare = storage.get("log-0000000000000003.ik").unwrap();
        super::block::read_segment_header(&spare).unwrap().recycled
    };
    assert!(names_after(false));
    assert!(!names_after(true));
    // One that begins later counts, too, for as long as it lives.
    let storage = SimStorage::new();
    let (store, _) = open(&storage, 1).unwrap();
    let again = store.read_again().unwrap();
    snapshot(&store);
    assert!(!super::block::read_segment_header(&storage.get("log-0000000000000003.ik").unwrap()).unwrap().recycled);
    drop(again);
    snapshot(&store);
    assert!(super::block::read_segment_header(&storage.get("log-0000000000000004.ik").unwrap()).unwrap().recycled);
}

/// A store that died while its sealed segment was not synced: block 2 seals that one, blocks 3 and 4 are in the next.
fn rotated_sample(synced: bool) -> SimStorage {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, 1).unwrap();
    let log = store.log();
    log.journal().append(0, 0, 1, 0, &[b"SET", b"a", b"1"]);
    log.sync_now().unwrap();
    let freeze = |take: &mut dyn FnMut()| {
        log.journal().append(0, 0, 2, 0, &[b"SET", b"b", b"2"]);
        take();
        Some(())
    };
    let ((), cut) = store.cut(|| (), freeze).unwrap();
    log.journal().append(0, 0, 3, 0, &[b"SET", b"c", b"3"]);
    log.flush().unwrap();
    if synced {
        log.sync().unwrap();
    }
    log.journal().append(0, 0, 4, 0, &[b"SET", b"d", b"4"]);
    log.flush().unwrap();
    std::mem::forget(cut);
    storage
}

/// A power cut may take the tail of a sealed segment and leave blocks of the next one, which then do not count.
#[test]
fn a_later_segment_convicts_only_of_what_was_synced() {
    let (sealed, follower) = ("log-0000000000000001.ik", "log-0000000000000002.ik");
    for synced in [false, true] {
        let pristine = rotated_sample(synced);
        let whole = describe(&open(&pristine.process_image(), 2).unwrap().1).unwrap();
        assert_eq!(whole.len(), 8);
        let log = pristine.get(sealed).unwrap();
        let (seal, block) = find_blocks(&log, 0, 1, 2).next().unwrap();
        for lost in [seal..seal + 1, seal..seal + block.len, seal + 70..seal + block.len] {
            let image = pristine.process_image();
            let mut damaged = log.clone();
            damaged[lost].fill(0);
            image.put(sealed, &damaged);
            if synced {
                assert!(refusal(&image).to_string().contains("blocks up to 3 were synced"));
                continue;
            }
            // A power cut at every operation of the start, and in the run after it.
            for crash in 0..40 {
                let image = image.process_image();
                image.crash_at(crash);
                if let Ok((store, recovery)) = open(&image, 2) {
                    assert_eq!(describe(&recovery).unwrap(), whole[..2]);
                    let torn = recovery.summary().torn.clone().unwrap();
                    assert_eq!((torn.block, torn.followers), (2, vec![2]));
                    assert!(image.get("log-0000000000000002.torn-0").is_some() && image.get(follower).is_none());
                    store.journal().append(0, 0, 2, 0, &[b"SET", b"new", b"5"]);
                    let _ = store.log().sync_now();
                }
                let image = image.recover_image(crash);
                let lines = describe(&open(&image, 3).unwrap().1).unwrap();
                assert!(lines == whole[..2] || lines[3..] == ["0#2/0 SET new 5"], "crash at {crash}: {lines:?}");
            }
        }
    }
}

#[test]
fn a_clean_close_is_known_and_ends_the_log_where_it_says() {
    let storage = SimStorage::new();
    let store = write_sample(Arc::new(storage.clone()), true);
    store.close().unwrap();
    drop(store);
    assert!(open(&storage.process_image(), 2).unwrap().1.summary().clean);
    // Cut exactly between two blocks, which only the manifest reveals.
    let log = storage.get(LOG).unwrap();
    let last = log.windows(4).rposition(|window| window == b"IKB1").unwrap();
    storage.put(LOG, &log[..last]);
    let error = refusal(&storage);
    assert!(error.to_string().contains("block 4: the file ends too early"), "{error}");
}

#[test]
fn a_second_process_is_refused() {
    let storage = SimStorage::new();
    let (first, _) = open(&storage, 1).unwrap();
    let error = refusal(&storage);
    assert!(matches!(error, PersistError::Locked { .. }), "{error}");
    drop(first);
    open(&storage, 2).unwrap();
}

#[test]
fn a_missing_or_stale_file_is_refused_by_its_name() {
    for name in [MANIFEST, SNAPSHOT, LOG] {
        let storage = sample();
        storage.forget(name);
        let error = refusal(&storage);
        assert!(matches!(error, PersistError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // The manifest of an earlier state of the same directory.
    let storage = SimStorage::new();
    drop(open(&storage, 1).unwrap());
    let stale = storage.get(MANIFEST).unwrap();
    let storage = sample();
    storage.put(MANIFEST, &stale);
    assert!(refusal(&storage).to_string().contains("has held number"));
    storage.forget("LOCK");
    assert!(refusal(&storage).to_string().contains("it is older than log-0000000000000002.ik"));
    // The same, after a run that wrote nothing anew of what that manifest names.
    for remembers in [true, false] {
        let storage = SimStorage::new();
        let (store, _) = open(&storage, 1).unwrap();
        store.journal().append(0, 0, 1, 0, &[b"SET", b"a", b"1"]);
        store.log().sync_now().unwrap();
        drop(store);
        let stale = storage.get(MANIFEST).unwrap();
        let (store, _) = open(&storage, 2).unwrap();
        store.journal().append(0, 0, 2, 0, &[b"SET", b"b", b"2"]);
        store.log().sync_now().unwrap();
        drop(store);
        storage.put(MANIFEST, &stale);
        if !remembers {
            storage.forget("LOCK");
        }
        let error = refusal(&storage).to_string();
        let why = if remembers { "has held number" } else { "it is older than log-0000000000000003.ik" };
        assert!(error.contains("MANIFEST") && error.contains(why), "{error}");
        assert!(storage.get("log-0000000000000003.ik").is_some(), "a refusal changes nothing");
    }
    // A log of another store.
    let (storage, other) = (sample(), SimStorage::new());
    let seed = StoreOptions { hash_seed: [9; 16], ..options(7, true) };
    let (store, _) = Store::open(Arc::new(other.clone()), seed).unwrap();
    drop(store);
    storage.put(LOG, &other.get("log-0000000000000002.ik").unwrap());
    assert!(refusal(&storage).to_string().contains(LOG));
    // Another number of shards.
    let storage = sample();
    let eight = StoreOptions { shards: 8, ..options(1, true) };
    assert!(matches!(Store::open(Arc::new(storage), eight).map(|_| ()), Err(PersistError::Refused { .. })));
}

#[test]
fn a_directory_without_our_files_is_fresh_and_its_own_files_stay() {
    let storage = SimStorage::new();
    storage.put("notes.txt", b"mine");
    let (_, recovery) = open(&storage, 1).unwrap();
    assert!(recovery.summary().fresh);
    assert_eq!(storage.get("notes.txt").unwrap(), b"mine");
}

/// A start beside the files of a Redis was empty, in silence.
#[test]
fn an_empty_start_beside_the_data_of_another_server_is_refused() {
    let foreign = || StoreOptions { foreign: vec!["dump.rdb".into(), "appendonlydir".into()], ..options(1, true) };
    let storage = SimStorage::new();
    storage.put("appendonlydir", b"");
    let Err(error) = Store::open(Arc::new(storage.clone()), foreign()) else { panic!("opened") };
    assert!(error.to_string().contains("appendonlydir: it holds the data of another server"), "{error}");
    storage.forget("appendonlydir");
    drop(Store::open(Arc::new(storage.clone()), foreign()).unwrap());
    storage.put("dump.rdb", b"REDIS0011");
    assert!(!Store::open(Arc::new(storage), foreign()).unwrap().1.summary().fresh, "beside a store it may lie");
}

#[test]
fn a_cut_one_at_a_time_and_an_abandoned_one_leaves_no_file() {
    let storage = SimStorage::new();
    let (store, _) = open(&storage, 1).unwrap();
    let cut = store.cut_now().unwrap();
    assert!(matches!(store.cut_now(), Err(PersistError::Busy)));
    let writer = store.snapshot_writer(&cut).unwrap();
    drop(writer);
    store.abandon(cut);
    assert!(!storage.names().iter().any(|name| name.contains("snapshot")));
    let cut = store.cut_now().unwrap();
    let finished = store.snapshot_writer(&cut).unwrap().finish().unwrap();
    store.abandon(cut);
    assert_eq!(finished.entries, 0);
    assert!(!storage.names().iter().any(|name| name.contains("snapshot")));
    drop(store);
    open(&storage, 2).unwrap();
}

#[test]
fn sizes_follow_the_log_and_the_snapshot() {
    let storage = SimStorage::new();
    let store = write_sample(Arc::new(storage.clone()), true);
    let log = without_zeros(&storage.get(LOG).unwrap());
    let sizes = store.sizes();
    assert_eq!(sizes.log_bytes, (log.len() - SEGMENT_HEADER) as u64);
    assert_eq!(sizes.base_bytes, storage.get(SNAPSHOT).unwrap().len() as u64);
    assert_eq!((sizes.last_block, sizes.pending_bytes), (4, 0));
    store.journal().append(0, 0, 1, 0, &[b"SET", b"k", b"v"]);
    assert!(store.sizes().pending_bytes > 0);
}

#[test]
fn a_real_directory_works_as_the_simulated_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let real = Arc::new(RealStorage::open(&path).unwrap());
    let store = write_sample(real.clone(), true);
    let second = Store::open(Arc::new(RealStorage::open(&path).unwrap()), options(8, true));
    assert!(matches!(second.map(|_| ()), Err(PersistError::Locked { .. })));
    store.close().unwrap();
    drop(store);
    let torn = path.join(LOG);
    let mut log = without_zeros(&std::fs::read(&torn).unwrap());
    log.extend_from_slice(b"half a block");
    std::fs::write(&torn, &log).unwrap();
    let (_, recovery) = Store::open(real, options(8, true)).unwrap();
    let mut lines = describe(&recovery).unwrap();
    lines[4..6].sort();
    assert_eq!(lines, sample_lines());
    assert_eq!(recovery.summary().torn.as_ref().unwrap().bytes, 12);
}

/// A segment of which somebody keeps a hard link, as a backup, was written over under both names.
#[test]
fn a_segment_with_another_name_is_not_recycled() {
    for linked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let real = Arc::new(RealStorage::open(dir.path()).unwrap());
        let (store, recovery) = Store::open(real, options(1, true)).unwrap();
        drop(recovery);
        store.journal().append(0, 0, 1, 0, &[b"SET", b"k", b"v"]);
        store.log().sync_now().unwrap();
        let (backup, first) = (dir.path().join("backup"), dir.path().join("log-0000000000000001.ik"));
        let content = std::fs::read(&first).unwrap();
        if linked {
            std::fs::hard_link(&first, &backup).unwrap();
        }
        snapshot(&store);
        let next = std::fs::read(dir.path().join("log-0000000000000003.ik")).unwrap();
        assert_eq!(super::block::read_segment_header(&next).unwrap().recycled, !linked);
        if linked {
            let (kept, seal) = (std::fs::read(&backup).unwrap(), find_blocks(&content, 0, 1, 1).next().unwrap());
            assert_eq!(kept[..seal.0 + seal.1.len], content[..seal.0 + seal.1.len]);
        }
    }
}

/// Workers that append under a gate, while snapshots are cut: at every cut the frozen view and the
/// log after it must fit together exactly.
#[test]
fn cuts_amid_running_workers_are_exact() {
    let storage = SimStorage::new();
    let threaded = StoreOptions { policy: FsyncPolicy::Always, threads: true, ..options(1, true) };
    let (store, _) = Store::open(Arc::new(storage.clone()), threaded).unwrap();
    let gate = parking_lot::RwLock::new(());
    let counts = [const { Mutex::new(0u64) }; 2];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2usize {
            let (store, gate, counts, stop) = (&store, &gate, &counts, &stop);
            scope.spawn(move || {
                // Bounded: the simulated disk copies a file at every sync.
                for _ in 0..400 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let entered = gate.read();
                    let mut count = counts[worker].lock();
                    *count += 1;
                    let (key, value) = ([worker as u8], count.to_string());
                    let args: [&[u8]; 3] = [b"SET", &key, value.as_bytes()];
                    store.journal().append(worker, worker as u16, *count, 0, &args);
                    drop((count, entered));
                    let position = store.journal().position();
                    store.log().kick();
                    while store.log().synced() < position {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for round in 0..8 {
            let mut attempts = 0;
            let cut = store.cut(
                || drop(gate.write()),
                |take| {
                    attempts += 1;
                    // Behaves like a gate that does not close at once.
                    let _alone = gate.try_write().filter(|_| attempts > round % 3)?;
                    let frozen = [*counts[0].lock(), *counts[1].lock()];
                    take();
                    Some(frozen)
                },
            );
            let (frozen, cut) = cut.unwrap();
            let mut writer = store.snapshot_writer(&cut).unwrap();
            for (shard, count) in frozen.iter().enumerate() {
                let count = WireValue::Int(*count as i64);
                writer.chunk(shard as u16, false, |chunk| chunk.push(0, &[shard as u8], None, None, count)).unwrap();
            }
            let finished = writer.finish().unwrap();
            check_dense(&storage.process_image());
            if round % 3 == 0 {
                store.abandon(cut)
            } else {
                drop(store.commit(cut, finished, Retention::default()))
            }
            check_dense(&storage.process_image());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Each shard's log must begin right after its snapshot's count, and have no gap.
fn check_dense(storage: &SimStorage) {
    let (_, recovery) = open(storage, 2).unwrap();
    let mut counts = [0u64; 2];
    for shard in 0..2u16 {
        if let Some(chunk) = recovery.shard_chunk(shard).unwrap() {
            let WireValue::Int(count) = chunk.iter().next().unwrap().unwrap().value else { panic!("not an integer") };
            counts[usize::from(shard)] = count as u64;
        }
    }
    let mut windows = recovery.windows();
    while let Some(window) = windows.next_window().unwrap() {
        for (shard, records) in window.epochs.iter().flat_map(|epoch| &epoch.shards) {
            for record in records {
                counts[usize::from(*shard)] += 1;
                assert_eq!(record.seq, counts[usize::from(*shard)], "a gap, or a repetition");
            }
        }
    }
}

fn golden(directory: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data").join(directory)
}

/// The golden files as a disk.
fn golden_storage(directory: &str) -> SimStorage {
    let storage = SimStorage::new();
    for name in [MANIFEST, SNAPSHOT, LOG] {
        storage.put(name, &std::fs::read(golden(directory).join(name)).unwrap());
    }
    storage
}

#[test]
fn the_golden_files_of_every_version_are_read() {
    for directory in ["store-v1", "store-v1-lz4", "store-v2"] {
        let (_, recovery) = open(&golden_storage(directory), 2).unwrap();
        let mut lines = describe(&recovery).unwrap();
        lines[4..6].sort();
        assert_eq!(lines, sample_lines(), "{directory}");
    }
}

#[test]
fn what_is_written_today_is_version_2_to_the_byte() {
    let (storage, golden) = (SimStorage::new(), golden_storage("store-v2"));
    drop(write_sample(Arc::new(storage.clone()), false));
    for name in [MANIFEST, SNAPSHOT] {
        assert_eq!(storage.get(name), golden.get(name), "{name}");
    }
    assert_eq!(without_zeros(&storage.get(LOG).unwrap()), golden.get(LOG).unwrap(), "{LOG}");
}

/// A program that reads only version 1 checks bytes 8 to 12 of the manifest first and refuses other versions. They
/// must therefore say version 2 before anything of version 2 is written.
#[test]
fn a_directory_of_version_1_is_of_version_2_as_soon_as_it_is_opened() {
    let storage = golden_storage("store-v1");
    let version = |name: &str| format::u32_at(&storage.get(name).unwrap(), 8).unwrap();
    assert_eq!([MANIFEST, LOG, SNAPSHOT].map(version), [1, 1, 1]);
    let (store, recovery) = open(&storage, 2).unwrap();
    let mut lines = describe(&recovery).unwrap();
    lines[4..6].sort();
    assert_eq!(lines, sample_lines(), "the old log says what it said");
    let current = |storage: &SimStorage| {
        let manifest = manifest::read(storage).unwrap().unwrap();
        manifest.current.segments.iter().map(|segment| format::segment_name(segment.number)).collect::<Vec<_>>()
    };
    let segments = current(&storage);
    assert_eq!((segments.len(), segments[0].as_str()), (2, LOG), "the old segment is still part of the log");
    assert_eq!(
        [version(MANIFEST), version(LOG), version(&segments[1]), version(SNAPSHOT)],
        [2, 1, 2, 1],
        "before anything was appended or saved"
    );
    store.journal().append(0, 1, 3, 0, &[b"SET", b"a", b"again"]);
    store.log().sync_now().unwrap();
    drop((store, recovery));
    let (_, recovery) = open(&storage.process_image(), 3).unwrap();
    assert_eq!(describe(&recovery).unwrap()[9..], ["block 5", "1#3/0 SET a again"]);
}

#[test]
fn a_version_that_is_yet_to_come_is_refused_by_every_file() {
    for name in [MANIFEST, LOG, SNAPSHOT] {
        let storage = sample();
        let mut bytes = storage.get(name).unwrap();
        bytes[8..12].copy_from_slice(&4u32.to_le_bytes());
        // The checksum that covers it stands behind the header: at 20 of a frame, at 60 of a segment.
        let at = if name == LOG { 60 } else { 20 };
        let crc = crc32fast::hash(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        storage.put(name, &bytes);
        let error = refusal(&storage);
        assert!(matches!(error, PersistError::Version { found: 4, supported: 3, .. }), "{name}: {error}");
    }
}
