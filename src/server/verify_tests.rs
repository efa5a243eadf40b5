//! The verification of a backup, on a simulated disk: it finds every key, and every flipped byte.

use std::sync::Arc;

use super::testing::{Caller, random_command, snapshot, start};
use crate::base::config::Config;
use crate::base::random::Random;
use crate::core::server::SavePurpose;
use crate::durable::verify::{Step, Verified, verify};
use crate::exec::limits_of;
use crate::persist::FsyncPolicy;
use crate::persist::examine::Fault;
use crate::persist::format::LOCK;
use crate::persist::storage::{SimStorage, Storage};

fn verified(storage: &SimStorage, goes_on: impl FnMut(Step) -> bool) -> Result<Option<Verified>, Fault> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    let settings = Config::from_text(b"").unwrap().settings();
    verify(&storage, None, |seed| limits_of(&settings, seed), goes_on)
}

/// A store of random commands, with a snapshot in their middle and a log that was closed in order; and how many keys it
/// holds.
fn store(random: &mut Random, commands: u32) -> (SimStorage, u64) {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    for number in 0..commands {
        if number == commands / 2 {
            snapshot(&server, SavePurpose::Save).unwrap();
        }
        caller.run(&random_command(random, "k"));
    }
    server.store.close().unwrap();
    let keys = server.keyspace.counts().filled().map(|(_, census)| census.keys as u64).sum();
    (storage.process_image(), keys)
}

#[test]
fn a_verification_counts_what_a_start_would_load_and_stops_when_told_to() {
    let mut random = Random::from_seed(7);
    for _ in 0..8 {
        let (storage, keys) = store(&mut random, 200);
        let (mut steps, mut total, mut done) = (0, 0, 0);
        let found = verified(&storage, |step| {
            steps += 1;
            match step {
                Step::Begin(bytes) => total = bytes,
                Step::Read(bytes) | Step::Load { chunk: bytes, .. } => done += bytes,
            }
            true
        });
        assert_eq!(found.unwrap().unwrap().keys, keys);
        // What is behind the blocks of a log is not read, nor what a snapshot has beside its keys.
        assert!(done > total / 20 && done <= total, "{done} of {total}");
        for at in [0, 1, steps / 2, steps - 1] {
            let mut step = 0;
            let found = verified(&storage, |_| {
                step += 1;
                step <= at
            });
            assert_eq!(found.unwrap(), None, "stopped at {at} of {steps}");
        }
    }
}

#[test]
fn every_flipped_byte_is_found_or_is_none_of_the_data() {
    let mut random = Random::from_seed(8);
    let (storage, keys) = store(&mut random, 300);
    let (mut flipped, mut found) = (0, 0);
    // The last segment was made ahead of need, and holds nothing.
    let spare = storage.names().into_iter().rfind(|name| name.starts_with("log-")).unwrap();
    for name in storage.names().into_iter().filter(|name| *name != LOCK && *name != spare) {
        let bytes = storage.get(&name).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(50).max(1)) {
            let damaged = storage.process_image();
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            damaged.put(&name, &changed);
            flipped += 1;
            match verified(&damaged, |_| true) {
                Err(fault) => {
                    found += 1;
                    assert!(fault.file.ends_with(&name) || fault.offset.is_none(), "{name} at {at}: {fault:?}");
                }
                // The zeros behind the log's blocks.
                Ok(whole) => assert_eq!((whole.unwrap().keys, bytes[at]), (keys, 0), "{name} at {at}"),
            }
        }
    }
    assert!(found * 10 > flipped * 3, "{found} of {flipped}");
}

#[test]
fn a_long_log_is_read_and_not_loaded() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    caller.run("MSET a 1 b 2");
    snapshot(&server, SavePurpose::Save).unwrap();
    let value = "v".repeat(3 << 20);
    for number in 0..23 {
        assert_eq!(caller.run(&format!("SET k:{number} {value}")), "+OK ");
        server.store.log().flush().unwrap();
    }
    server.store.close().unwrap();
    let (mut chunks, mut log_held) = (0, 0);
    let found = verified(&storage, |step| {
        if let Step::Load { chunk, log } = step {
            (chunks, log_held) = (chunks + chunk, log_held.max(log));
        }
        true
    });
    let found = found.unwrap().unwrap();
    assert!(found.keys == 2 && found.bytes > 64 << 20 && chunks > 0 && log_held == 0, "{found:?}, {log_held} held");
    let logs = storage.names().into_iter().filter(|name| name.starts_with("log-"));
    let log = logs.max_by_key(|name| storage.get(name).unwrap().len()).unwrap();
    let mut bytes = storage.get(&log).unwrap();
    bytes[20 << 20] ^= 1;
    storage.put(&log, &bytes);
    assert!(verified(&storage, |_| true).unwrap_err().file.ends_with(&log));
}
