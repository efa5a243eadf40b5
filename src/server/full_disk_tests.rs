//! A full disk: what frees something goes on, nothing acknowledged is lost, and all heals by itself.
//!
//! The story: a full disk failed the log, so that every write was refused, also the DEL that would have helped.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::testing::{Caller, Dump, snapshot, start, state};
use crate::core::Server;
use crate::core::server::SavePurpose;
use crate::durable::disk;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

const MISCONF: &str = "-MISCONF Errors writing to the AOF file: No space left on device ";
/// How large the disk is, in bytes.
const DISK: u64 = 1 << 20;

/// A server on a disk that it has filled up with numbered keys, of which so many were acknowledged.
fn filled(storage: &SimStorage, policy: FsyncPolicy) -> (Arc<Server>, Caller, u64) {
    storage.limit(Some(DISK));
    let server = start(storage, 1, 1, policy).unwrap();
    server.store.log().keep_room(1 << 20);
    let mut caller = Caller::new(&server, 0);
    let value = "v".repeat(3000);
    for number in 0.. {
        let reply = caller.run(&format!("SET key:{number} {value}"));
        if reply != "+OK " {
            assert_eq!(reply, MISCONF);
            return (server, caller, number);
        }
        server.store.log().sync_now().unwrap();
    }
    unreachable!("no disk is that large")
}

fn recovered(storage: &SimStorage) -> Dump {
    storage.repair();
    state(&start(storage, 2, 1, FsyncPolicy::No).unwrap())
}

fn assert_recovered(storage: &SimStorage, server: &Server, what: &str) {
    let held = state(server);
    assert_eq!(recovered(&storage.process_image()), held, "{what}");
    for seed in 0..5 {
        assert_eq!(recovered(&storage.recover_image(seed)), held, "{what}: a power cut, seed {seed}");
    }
}

#[test]
fn on_a_full_disk_what_frees_something_goes_on_and_all_is_kept() {
    for policy in [FsyncPolicy::Always, FsyncPolicy::EverySec] {
        let storage = SimStorage::new();
        let (server, mut caller, acknowledged) = filled(&storage, policy);
        assert!(acknowledged > 200, "{acknowledged}");
        let log = server.store.log();
        assert!(log.lacks_room() && !log.is_poisoned());
        assert_recovered(&storage, &server, "full");
        for (line, reply) in [
            ("GET nothing", "$-1 "),
            ("DEL key:0 key:1", ":2 "),
            ("UNLINK key:2", ":1 "),
            ("EXPIRE key:3 1000", ":1 "),
            ("PEXPIRE key:4 0", ":1 "),
            ("GETDEL nothing", "$-1 "),
            ("APPEND key:5 more", MISCONF),
            ("LPUSH list a", MISCONF),
            ("PING", MISCONF),
            ("EVAL \"return redis.call('DEL','key:6')\" 0", ":1 "),
            ("EVAL \"return redis.call('SET','key:6','x')\" 0", "-"),
            ("SELECT 1", "+OK "),
            ("FLUSHDB", "+OK "),
            ("SELECT 0", "+OK "),
        ] {
            let got = caller.run(line);
            assert!(if reply == "-" { got.starts_with("-MISCONF") } else { got == reply }, "{line}: {got}");
        }
        log.sync_now().unwrap();
        assert_recovered(&storage, &server, "after removals");
        // Looking alone helps nobody.
        log.keep_room(1 << 20);
        assert!(log.lacks_room());
        storage.limit(Some(2 * DISK));
        log.keep_room(1 << 20);
        assert!(!log.lacks_room());
        assert_eq!(caller.run("SET after it"), "+OK ");
        log.sync_now().unwrap();
        assert_recovered(&storage, &server, "there is room again");
    }
}

#[test]
fn a_transaction_that_may_grow_is_refused_as_a_whole_on_a_full_disk() {
    let storage = SimStorage::new();
    let (server, mut caller, _) = filled(&storage, FsyncPolicy::EverySec);
    let held = state(&server);
    for line in ["MULTI", "DEL key:0", "SET key:1 x"] {
        caller.run(line);
    }
    assert!(caller.run("EXEC").starts_with("-EXECABORT"));
    assert_eq!(state(&server), held);
    for line in ["MULTI", "DEL key:0", "DEL key:1"] {
        caller.run(line);
    }
    assert_eq!(caller.run("EXEC"), "*2 :1 :1 ");
}

/// The log grows with each removal, and nothing gave its room back before somebody made room elsewhere. Then the
/// segment that the snapshot had replaced was kept, to be written over: up to 64 MB of the room that was needed.
#[test]
fn once_enough_is_removed_a_snapshot_gives_the_room_back() {
    let storage = SimStorage::new();
    let (server, mut caller, acknowledged) = filled(&storage, FsyncPolicy::EverySec);
    let log = server.store.log();
    server.saving.disk.memory_of_keys.store(4 * DISK, Relaxed);
    assert!(!disk::snapshot_makes_room(&server));
    assert_eq!(caller.run("FLUSHALL"), "+OK ");
    assert!(acknowledged > 0 && log.lacks_room());
    // On a full disk, what a flush took cannot be brought back: a snapshot would be as large with it.
    caller.executor.forget_flushes(0);
    assert!(server.keyspace.graveyard().graves().is_empty());
    log.sync_now().unwrap();
    assert_recovered(&storage, &server, "flushed");
    server.saving.disk.memory_of_keys.store(0, Relaxed);
    assert!(disk::snapshot_makes_room(&server));
    snapshot(&server, SavePurpose::Rewrite).unwrap();
    log.keep_room(1 << 20);
    assert!(!log.lacks_room() && !log.is_poisoned(), "{} bytes used", storage.used());
    assert_eq!(caller.run("SET after it"), "+OK ");
    log.sync_now().unwrap();
    assert_recovered(&storage, &server, "compacted");
}

#[test]
fn what_is_kept_can_be_used_up_and_the_log_heals_all_the_same() {
    let storage = SimStorage::new();
    let (server, mut caller, acknowledged) = filled(&storage, FsyncPolicy::EverySec);
    let log = server.store.log();
    let mut number = 0;
    while log.sync_now().is_ok() {
        assert!(number < 1_000_000, "the disk has no end");
        caller.run(&format!("EXPIRE key:{} {}", number % acknowledged, 1000 + number));
        number += 1;
    }
    assert!(log.is_poisoned() && caller.run("DEL key:0").starts_with("-MISCONF"), "after {number}");
    storage.limit(None);
    snapshot(&server, SavePurpose::Rewrite).unwrap();
    log.keep_room(1 << 20);
    assert!(!log.is_poisoned() && !log.lacks_room());
    assert_eq!(caller.run("DEL key:0"), ":1 ");
    log.sync_now().unwrap();
    assert_recovered(&storage, &server, "healed");
}

/// A snapshot that does not fit filled the disk first, and failed then.
#[test]
fn a_snapshot_that_does_not_fit_is_not_begun() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    server.saving.disk.memory_of_keys.store(100_000, Relaxed);
    caller.run(&format!("SET key {}", "v".repeat(600_000)));
    server.store.log().sync_now().unwrap();
    storage.limit(Some(storage.used() + 10_000));
    for line in ["BGSAVE", "SAVE", "BGREWRITEAOF"] {
        let reply = caller.run(line);
        let begins = "-ERR There is not enough room on the disk of /sim/: a snapshot needs about 28.41K, and ";
        assert!(reply.starts_with(begins) && reply.contains("9.77K are free"), "{line}: {reply}");
    }
    let before = storage.names();
    assert!(snapshot(&server, SavePurpose::Save).unwrap_err().contains("not enough room"));
    assert_eq!(storage.names(), before);
    assert!(server.saving.disk.snapshot_lacked_room.load(Relaxed));
    storage.limit(None);
    snapshot(&server, SavePurpose::Save).unwrap();
    assert!(!server.saving.disk.snapshot_lacked_room.load(Relaxed));
}

#[test]
fn a_disk_that_gets_full_is_told_once_and_shown() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let disk = &server.saving.disk;
    let looks = |limit| {
        storage.limit(limit);
        disk.looked_ms.store(0, Relaxed);
        disk::tick(&server);
        (disk.is_low.load(Relaxed), disk.free.load(Relaxed))
    };
    assert!(!looks(None).0);
    let (is_low, free) = looks(Some(1 << 30));
    assert!(is_low && free < 1 << 30);
    // Just above the threshold it is not told again.
    assert!(looks(Some((1 << 30) + (10 << 20))).0);
    assert!(!looks(Some(2 << 30)).0);
    let info = Caller::new(&server, 0).run("INFO persistence");
    assert!(info.contains("disk_total_bytes:2147483648 disk_full:0"), "{info}");
}
