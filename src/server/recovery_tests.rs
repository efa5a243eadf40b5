//! Commands, snapshots and restarts on a healthy disk: the recovered keyspace equals the live one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::testing::{
    Caller, Dump, SetOnDrop, golden, random_command, snapshot, start, start_configured, start_loading, state,
};
use crate::base::random::Random;
use crate::core::Server;
use crate::core::server::SavePurpose;
use crate::exec::testing::BURIED;
use crate::persist::crypt::tests::{encrypt, encrypt_no_more};
use crate::persist::storage::SimStorage;
use crate::persist::{ChunkWriter, FsyncPolicy, WireGrave, WireValue};

/// Restarts on what a power cut, and on what a mere death of the process, leaves of a synced store.
fn assert_recovered(storage: &SimStorage, live: &Dump, generation: u64, what: &str) {
    let images = [storage.recover_image(generation), storage.recover_image(generation + 1), storage.process_image()];
    for (number, image) in images.iter().enumerate() {
        let server = start(image, generation, 2, FsyncPolicy::Always).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(state(&server), *live, "{what}, image {number}");
        drop(server);
        let server =
            start_loading(image, generation + 10, 2, FsyncPolicy::Always).unwrap_or_else(|e| panic!("{what}: {e}"));
        // Some shards are asked for, the others come by themselves.
        let mut caller = Caller::new(&server, 1);
        let lasting = live.iter().filter(|(_, key, _, expiry)| expiry.is_none() && !key.starts_with(BURIED));
        for (db, key, ..) in lasting.step_by(3) {
            caller.client.db = *db;
            assert_eq!(caller.run(&format!("EXISTS \"{}\"", key.escape_ascii())), ":1 ", "{what}, image {number}");
        }
        drop(server.gate.close());
        assert!(!server.keyspace.is_loading());
        assert_eq!(state(&server), *live, "{what}, image {number}, loaded while it serves");
    }
}

fn purpose(random: &mut Random) -> SavePurpose {
    if random.below(2) == 0 { SavePurpose::Save } else { SavePurpose::Rewrite }
}

#[test]
fn replaying_the_log_gives_the_live_state() {
    for seed in 0..12 {
        if seed % 2 == 1 {
            encrypt("1", true);
        } else {
            encrypt_no_more();
        }
        let (storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        // Some in many segments, which have an index.
        server.store.log().set_segment_bytes([0, 800, 4000][seed as usize % 3]);
        for round in 0..8 {
            for number in 0..60 {
                caller.run(&random_command(&mut random, "k"));
                if number % 5 == 0 {
                    server.store.log().sync_now().unwrap();
                    server.store.log().tend();
                }
            }
            caller.executor.sweep_expired(100);
            if random.below(3) == 0 {
                // Memory is short: nothing can be undone any more.
                caller.executor.forget_flushes(1);
            }
            server.store.log().sync_now().unwrap();
            assert_recovered(&storage, &state(&server), 2, &format!("seed {seed}, round {round}"));
        }
    }
}

#[test]
fn loading_a_snapshot_gives_the_live_state() {
    for seed in 0..12 {
        let (storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        for round in 0..4 {
            for _ in 0..60 {
                caller.run(&random_command(&mut random, "k"));
            }
            snapshot(&server, purpose(&mut random)).unwrap();
            let what = format!("seed {seed}, round {round}");
            assert_recovered(&storage, &state(&server), 2, &what);
            assert_eq!(server.store.sizes().log_bytes, 0, "{what}: all is in the snapshot");
        }
    }
}

#[test]
fn loading_a_snapshot_and_replaying_the_rest_gives_the_live_state_from_life_to_life() {
    for seed in 0..8 {
        let (mut storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
        let mut live = Dump::new();
        for life in 1..8 {
            let server = start(&storage, life, 1, FsyncPolicy::No).unwrap();
            assert_eq!(state(&server), live, "seed {seed}, life {life}");
            let mut caller = Caller::new(&server, 0);
            for _ in 0..80 {
                if random.below(25) == 0 {
                    snapshot(&server, purpose(&mut random)).unwrap();
                }
                if random.below(40) == 0 {
                    caller.executor.forget_flushes(1);
                }
                caller.run(&random_command(&mut random, "k"));
            }
            server.store.log().sync_now().unwrap();
            live = state(&server);
            storage = if random.below(2) == 0 { storage.recover_image(seed) } else { storage.process_image() };
        }
    }
}

/// Writers on all workers, one of them with shared keys, beside snapshots and flushes.
fn disturb(server: &Arc<Server>, seed: u64, commands: usize) {
    let workers = server.gate.workers();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&stop);
        let writers: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let mut random = Random::from_seed(seed * 100 + worker as u64);
                    let mut caller = Caller::new(server, worker);
                    for number in 0..commands {
                        caller.run(&random_command(&mut random, "shared"));
                        if number % 16 == 0 {
                            caller.executor.sweep_expired(10);
                            server.store.log().flush().unwrap();
                        }
                    }
                })
            })
            .collect();
        let stop = &stop;
        scope.spawn(move || {
            let mut random = Random::from_seed(seed);
            while !stop.load(Ordering::Relaxed) {
                snapshot(server, purpose(&mut random)).unwrap();
                server.store.log().sync_now().unwrap();
            }
        });
        for writer in writers {
            writer.join().expect("a writer that does not panic");
        }
    });
}

#[test]
fn snapshots_amid_concurrent_writers_change_nothing() {
    for seed in 0..6 {
        let storage = SimStorage::new();
        let server = start(&storage, 1, 3, FsyncPolicy::EverySec).unwrap();
        for round in 0..3 {
            disturb(&server, seed * 10 + round, 400);
            server.store.log().sync_now().unwrap();
            assert_recovered(&storage, &state(&server), 2, &format!("seed {seed}, round {round}"));
        }
    }
}

#[test]
fn a_log_switched_off_and_on_again_holds_everything() {
    for seed in 0..6 {
        let (storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        let some = |caller: &mut Caller, random: &mut Random| {
            (0..50).for_each(|_| drop(caller.run(&random_command(random, "k"))));
        };
        some(&mut caller, &mut random);
        server.store.turn_log_off().unwrap();
        some(&mut caller, &mut random);
        if seed % 2 == 0 {
            snapshot(&server, SavePurpose::Save).unwrap();
            assert_recovered(&storage, &state(&server), 2, &format!("seed {seed}, off"));
            some(&mut caller, &mut random);
        }
        server.store.keep_log();
        some(&mut caller, &mut random);
        snapshot(&server, SavePurpose::Rewrite).unwrap();
        some(&mut caller, &mut random);
        server.store.log().sync_now().unwrap();
        assert_recovered(&storage, &state(&server), 3, &format!("seed {seed}, on"));
    }
}

#[test]
fn a_store_of_another_number_of_shards_is_refused() {
    let Err(error) = start(&golden("store-v1"), 2, 1, FsyncPolicy::No) else { panic!("it is laid out otherwise") };
    assert!(error.to_string().contains("laid out in 4 shards"), "{error}");
}

/// Room is made for entries before they are read. A false count must not ask for all memory.
#[test]
fn a_snapshot_that_claims_too_many_entries_is_refused() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let store = &server.store;
    let shard = server.keyspace.key(b"k").shard();
    let cut = store.cut_now().unwrap();
    let mut writer = store.snapshot_writer(&cut).unwrap();
    let falsely = |chunk: &mut ChunkWriter<'_>| {
        chunk.push(0, b"k", None, None, WireValue::Int(1));
        chunk.wire.entries = 1 << 50;
    };
    writer.chunk(shard, false, falsely).unwrap();
    store.commit(cut, writer.finish().unwrap(), crate::persist::Retention::default()).unwrap();
    drop(server);
    let Err(error) = start(&storage, 2, 1, FsyncPolicy::No) else { panic!("it holds one entry") };
    assert!(error.to_string().contains("fewer entries than the index says"), "{error}");
}

/// What flushes took out is read with the same care as any chunk.
#[test]
fn a_snapshot_with_flushed_keys_that_cannot_be_is_refused() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let shard = server.keyspace.key(b"k").shard();
    drop(server);
    let flush = WireGrave { id: 7, only: None, at_ms: 1, until_ms: u64::MAX, bytes: 0 };
    for (shard, key, flushes, what) in [
        (shard, &b"\x07\0\0\0\0\0\0\0k"[..], &[][..], "keys of a flush that is not in the list"),
        (shard, b"\x08\0\0\0\0\0\0\0k", &[flush], "keys of a flush that is not in the list"),
        (shard, b"short", &[flush], "a key without the number of its flush"),
        (shard ^ 1, b"\x07\0\0\0\0\0\0\0k", &[flush], "a key of another shard"),
        (shard, b"\x07\0\0\0\0\0\0\0k", &[flush], ""),
    ] {
        let storage = SimStorage::new();
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let store = &server.store;
        let cut = store.cut_now().unwrap();
        let mut writer = store.snapshot_writer(&cut).unwrap();
        writer.graves(true, flushes).unwrap();
        writer.buried(shard, true, |chunk| chunk.push(3, key, None, None, WireValue::Int(1))).unwrap();
        store.commit(cut, writer.finish().unwrap(), crate::persist::Retention::default()).unwrap();
        drop(server);
        match start(&storage, 2, 1, FsyncPolicy::No) {
            Ok(server) => {
                let mut caller = Caller::new(&server, 0);
                assert_eq!((what, caller.run("UNFLUSH"), caller.run("DBSIZE")), ("", ":1 ".into(), ":0 ".into()));
                caller.run("SELECT 3");
                assert_eq!(caller.run("GET k"), "$1 1 ");
            }
            Err(error) => {
                let (error, place) = (error.to_string(), format!("flushed keys of shard {shard}"));
                assert!(!what.is_empty() && error.contains(what) && error.contains(&place), "{what}: {error}");
            }
        }
    }
}

/// Of other databases, a cluster's node looks at a few chunks before it serves. A key that it has missed is never taken
/// for one of database 0, nor lost.
#[test]
fn a_stray_key_of_another_database_concerns_its_shard_alone_in_cluster_mode() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::Always).unwrap();
    let mut caller = Caller::new(&server, 0);
    caller.client.db = 3;
    caller.run("SET stray 1");
    caller.client.db = 0;
    (0..2000).for_each(|at| drop(caller.run(&format!("SET key:{at} {at}"))));
    snapshot(&server, SavePurpose::Rewrite).unwrap();
    let live = state(&server);
    drop((caller, server));
    let lines = "cluster-enabled yes\nserve-while-loading-min-size 0";
    let server = start_configured(&storage, 2, 1, FsyncPolicy::Always, crate::session::table(), lines).unwrap();
    drop(server.gate.close());
    let mut caller = Caller::new(&server, 0);
    assert!(caller.run("DBSIZE").starts_with("-LOADERR shard "));
    let replies: Vec<String> = (0..2000).map(|at| caller.run(&format!("GET key:{at}"))).collect();
    let damaged = replies.iter().filter(|reply| reply.starts_with("-LOADERR shard ")).count();
    assert!((1..20).contains(&damaged) && replies.iter().all(|reply| reply != "$-1 "), "{damaged}");
    assert!(replies.iter().any(|reply| reply.contains("see `databases` and `cluster-enabled`")), "{replies:?}");
    assert_eq!((server.keyspace.databases(), server.keyspace.damaged_shards()), (1, 1));
    drop((caller, server));
    let server = start(&storage, 3, 1, FsyncPolicy::Always).unwrap();
    assert_eq!(state(&server), live);
}
