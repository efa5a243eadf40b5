//! DEBUG RELOAD and LOADAOF: the reloaded keyspace equals the old one, and equals what a crash right afterwards
//! leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::testing::{Caller, Dump, SetOnDrop, random_command, start, state};
use crate::base::random::Random;
use crate::core::{Server, Wait};
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;
use crate::persist::storage::sim::Fault;

const NOT_LOADED: &str = "-ERR Error trying to load the RDB dump, check server logs.";

/// Runs a command line and waits for the end of what it began.
fn debug(caller: &mut Caller, line: &str) -> String {
    let reply = caller.run(line);
    let Some(Wait::Reload(outcome)) = caller.client.wait.take() else { return reply };
    match outcome.blocking_recv().expect("an outcome") {
        Ok(()) => "+OK".into(),
        Err(error) => format!("-{error}"),
    }
}

/// Something of every type, small and large, with and without expiry.
fn fill(caller: &mut Caller) {
    let many = |command: &str, each: &dyn Fn(usize) -> String| {
        let all: Vec<String> = (0..700).map(each).collect();
        format!("{command} {}", all.join(" "))
    };
    let long = "x".repeat(3000);
    for line in [
        "SET int 12345",
        "SET text hello",
        &format!("SET long {long}"),
        "APPEND raw abc",
        "APPEND raw def",
        "SET volatile v PXAT 33177117420000",
        "RPUSH list:small a b 3",
        &many("RPUSH list:large", &|n| format!("element:{n}:{}", "y".repeat(40))),
        "SADD set:ints 1 2 3",
        "SADD set:small a b c",
        &many("SADD set:large", &|n| format!("member:{n}")),
        "EXPIREAT set:small 33177117420",
        "HSET hash:small f v g 1",
        &many("HSET hash:large", &|n| format!("field:{n} value:{n}")),
        "HSET hash:volatile f v g 1 h 2",
        "HPEXPIREAT hash:volatile 33177117420000 FIELDS 2 f h",
        "HPEXPIREAT hash:large 33177117421000 FIELDS 2 field:5 field:600",
        "ZADD zset:small 1 a 2.5 b -inf c",
        &many("ZADD zset:large", &|n| format!("{}.5 member:{n}", n % 40)),
        "XADD stream 1-1 f v g w",
        "XADD stream 2-1 f v2",
        "XADD stream 3-1 other 1",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group one COUNT 2 STREAMS stream >",
        "XACK stream group 1-1",
        "XDEL stream 3-1",
        "PFADD hll a b c",
        "SELECT 9",
        "SET elsewhere 1",
        "SELECT 0",
    ] {
        assert!(!caller.run(line).starts_with('-'), "{}", &line[..line.len().min(60)]);
    }
}

/// All keys except the short strings that have grown, which become `embstr`, as in Redis.
const KEYS: &[&str] = &[
    "int",
    "text",
    "long",
    "volatile",
    "list:small",
    "list:large",
    "set:ints",
    "set:small",
    "set:large",
    "hash:small",
    "hash:large",
    "hash:volatile",
    "zset:small",
    "zset:large",
    "stream",
];

/// What a dump does not show: encodings, access times, groups, and Redis' digest.
fn looks(caller: &mut Caller) -> Vec<String> {
    // Reading must not count as an access.
    assert_eq!(caller.run("CLIENT NO-TOUCH ON"), "+OK ");
    let mut lines: Vec<String> = KEYS.iter().map(|key| format!("OBJECT ENCODING {key}")).collect();
    lines.extend(
        ["XINFO STREAM stream FULL", "DEBUG DIGEST", "HPEXPIRETIME hash:volatile FIELDS 3 f g h"].map(Into::into),
    );
    let mut looks: Vec<String> = lines.iter().map(|line| caller.run(line)).collect();
    for key in KEYS {
        let described = caller.run(&format!("DEBUG OBJECT {key}"));
        let accessed = described.split(' ').find(|word| word.starts_with("lru:"));
        looks.push(accessed.expect("DEBUG OBJECT tells the access time").to_owned());
    }
    looks
}

/// Restarts on what a power cut, and on what a mere death of the process, leaves.
fn assert_recovered(storage: &SimStorage, live: &Dump, what: &str) {
    for (number, image) in
        [storage.recover_image(1), storage.recover_image(2), storage.process_image()].iter().enumerate()
    {
        let server = start(image, 9, 2, FsyncPolicy::Always).unwrap_or_else(|e| panic!("{what}, image {number}: {e}"));
        assert_eq!(state(&server), *live, "{what}, image {number}");
    }
}

#[test]
fn every_type_comes_back_as_it_was() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    fill(&mut caller);
    let (before, looked) = (state(&server), looks(&mut caller));
    for line in ["DEBUG RELOAD", "DEBUG LOADAOF", "debug reload nosave", "DEBUG RELOAD NOSAVE NOFLUSH MERGE"] {
        assert_eq!(debug(&mut caller, line), "+OK", "{line}");
        assert_eq!(state(&server), before, "{line}");
        assert_eq!(looks(&mut caller), looked, "{line}");
        server.store.log().flush().unwrap();
    }
    assert_recovered(&storage, &before, "after RELOAD");
    // The reloaded keys can be changed, and the log continues as before.
    caller.run("RPUSH list:large more");
    caller.run("DEL set:small");
    caller.run("HSET hash:volatile new 1");
    caller.run("XADD stream * f v");
    server.store.log().sync_now().unwrap();
    assert_recovered(&storage, &state(&server), "changed");
}

#[test]
fn what_is_acknowledged_before_is_there_after_a_crash_right_behind() {
    for seed in 0..6 {
        let (storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        for round in 0..12 {
            for _ in 0..25 {
                caller.run(&random_command(&mut random, "k"));
            }
            let before = state(&server);
            let line = ["DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG RELOAD NOSAVE"][round % 3];
            assert_eq!(debug(&mut caller, line), "+OK");
            assert_eq!(state(&server), before, "seed {seed}, {line}");
            if line == "DEBUG RELOAD" {
                assert_recovered(&storage, &before, &format!("seed {seed}, round {round}"));
            }
        }
        server.store.log().sync_now().unwrap();
        assert_recovered(&storage, &state(&server), &format!("seed {seed}"));
    }
}

#[test]
fn an_error_or_a_crash_at_any_operation_leaves_the_keys_as_they_are() {
    let prepared = || {
        let storage = SimStorage::new();
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        fill(&mut caller);
        server.store.log().sync_now().unwrap();
        (storage, server, caller)
    };
    let (storage, _server, mut caller) = prepared();
    let before = storage.operations();
    assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "+OK");
    let length = storage.operations() - before;
    assert!(length > 5, "{length}");
    for at in 0..length {
        for fault in [None, Some(Fault::Io), Some(Fault::ShortWrite)] {
            let (storage, server, mut caller) = prepared();
            let (held, at) = (state(&server), storage.operations() + at);
            match fault {
                None => storage.crash_at(at),
                Some(fault) => storage.fail_at(at, fault),
            }
            let reply = debug(&mut caller, "DEBUG RELOAD");
            assert!(["+OK", "-ERR", NOT_LOADED].contains(&reply.as_str()), "{fault:?} at {at}: {reply}");
            assert_eq!(state(&server), held, "{fault:?} at {at}: {reply}");
            assert_recovered(&storage, &held, &format!("{fault:?} at {at}: {reply}"));
        }
    }
}

#[test]
fn of_a_log_that_has_failed_nothing_is_loaded_until_a_snapshot_heals_it() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    fill(&mut caller);
    storage.fail_from(storage.operations(), Fault::NoSpace);
    for line in ["DEBUG RELOAD NOSAVE", "DEBUG LOADAOF"] {
        let held = state(&server);
        let reply = debug(&mut caller, line);
        assert!(reply.starts_with("-MISCONF Errors writing to the AOF file: "), "{line}: {reply}");
        assert_eq!(state(&server), held, "{line}");
    }
    let held = state(&server);
    assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "-ERR");
    assert_eq!(state(&server), held);
    storage.repair();
    assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "+OK");
    assert_eq!(state(&server), held);
    assert_eq!(caller.run("SET healed yes"), "+OK ");
    server.store.log().sync_now().unwrap();
    assert_recovered(&storage, &state(&server), "healed");
}

#[test]
fn a_damaged_disk_is_noticed_before_anything_is_dropped() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    fill(&mut caller);
    assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "+OK");
    let held = state(&server);
    let name = storage.names().into_iter().find(|name| name.starts_with("snapshot-")).expect("a snapshot");
    let whole = storage.get(&name).unwrap();
    for at in [10, whole.len() / 2, whole.len() - 3] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        storage.put(&name, &damaged);
        assert_eq!(debug(&mut caller, "DEBUG RELOAD NOSAVE"), NOT_LOADED, "{at}");
        let log = debug(&mut caller, "DEBUG LOADAOF");
        assert_eq!(log, "-ERR Error trying to load the AOF files, check server logs.", "{at}");
        assert_eq!(state(&server), held, "{at}");
    }
    storage.put(&name, &whole);
    assert_eq!(debug(&mut caller, "DEBUG RELOAD NOSAVE"), "+OK");
    assert_eq!(state(&server), held);
}

#[test]
fn without_a_log_the_snapshot_is_what_there_is() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    caller.run("SET saved 1");
    assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "+OK");
    server.store.turn_log_off().unwrap();
    let values = |caller: &mut Caller| caller.run("MGET saved new");
    let change = |caller: &mut Caller| drop(caller.run("MSET saved 2 new 2"));
    assert_eq!(debug(&mut caller, "DEBUG LOADAOF"), "-ERR There is no log to be loaded: appendonly is off");
    change(&mut caller);
    assert_eq!(debug(&mut caller, "DEBUG RELOAD NOSAVE NOFLUSH"), NOT_LOADED, "a key is in both");
    assert_eq!(values(&mut caller), "*2 $1 2 $1 2 ");
    assert_eq!(debug(&mut caller, "DEBUG RELOAD NOSAVE NOFLUSH MERGE"), "+OK");
    assert_eq!(values(&mut caller), "*2 $1 1 $1 2 ");
    caller.run("DEL saved");
    assert_eq!(debug(&mut caller, "DEBUG RELOAD NOSAVE NOFLUSH"), "+OK");
    assert_eq!(values(&mut caller), "*2 $1 1 $1 2 ");
    change(&mut caller);
    assert_eq!(debug(&mut caller, "DEBUG RELOAD NOSAVE"), "+OK");
    assert_eq!(values(&mut caller), "*2 $1 1 $-1 ");
    change(&mut caller);
    assert_eq!(debug(&mut caller, "DEBUG RELOAD NOFLUSH"), NOT_LOADED, "every key is in both");
    assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "+OK");
    assert_eq!(values(&mut caller), "*2 $1 2 $1 2 ");
    assert_recovered(&storage, &state(&server), "without a log");
}

#[test]
fn watched_keys_that_were_there_have_changed() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 2, FsyncPolicy::No).unwrap();
    let (mut caller, mut other) = (Caller::new(&server, 0), Caller::new(&server, 1));
    caller.run("SET there 1");
    for (key, expected) in [("there", "*-1 "), ("missing", "*1 +PONG ")] {
        caller.run(&format!("WATCH {key}"));
        assert_eq!(debug(&mut other, "DEBUG RELOAD"), "+OK");
        caller.run("MULTI");
        caller.run("PING");
        assert_eq!(caller.run("EXEC"), expected, "{key}");
    }
}

/// Writes until it is over, but at least a little.
fn write(server: &Arc<Server>, worker: usize, seed: u64, over: &AtomicBool) {
    let mut random = Random::from_seed(seed * 100 + worker as u64);
    let mut caller = Caller::new(server, worker);
    let mut number = 0;
    while number < 100 || !over.load(Ordering::Relaxed) {
        caller.run(&random_command(&mut random, "shared"));
        if number % 16 == 0 {
            caller.executor.sweep_expired(10);
            server.store.log().flush().unwrap();
        }
        number += 1;
    }
}

#[test]
fn loading_anew_amid_concurrent_writers_loses_nothing() {
    const WRITERS: usize = 3;
    for seed in 0..4 {
        let storage = SimStorage::new();
        let server = start(&storage, 1, WRITERS + 1, FsyncPolicy::EverySec).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (server, over) = (&server, &over);
            let _ends = SetOnDrop(over);
            for worker in 0..WRITERS {
                scope.spawn(move || write(server, worker, seed, over));
            }
            let mut caller = Caller::new(server, WRITERS);
            for number in 0..12 {
                let line = ["DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG RELOAD NOSAVE"][number % 3];
                assert_eq!(debug(&mut caller, line), "+OK", "{line}");
            }
        });
        server.store.log().sync_now().unwrap();
        assert_recovered(&storage, &state(&server), &format!("seed {seed}"));
    }
}

#[test]
fn a_snapshot_that_is_asked_for_meanwhile_has_its_turn_afterwards() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 2, FsyncPolicy::No).unwrap();
    let (mut caller, mut other) = (Caller::new(&server, 0), Caller::new(&server, 1));
    fill(&mut caller);
    let before = state(&server);
    for _ in 0..20 {
        let reply = other.run("BGSAVE");
        assert!(
            reply.starts_with("+Background saving started") || reply.starts_with("-ERR Background save"),
            "{reply}"
        );
        assert_eq!(debug(&mut caller, "DEBUG RELOAD"), "+OK");
    }
    assert_eq!(state(&server), before);
}

#[test]
fn expired_keys_stay_until_somebody_asks_for_them_if_so_set() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    let swept = |caller: &mut Caller| {
        caller.run("SET brief v PX 1");
        std::thread::sleep(std::time::Duration::from_millis(5));
        caller.executor.sweep_expired(100);
        caller.run("DBSIZE") == ":0 "
    };
    assert!(swept(&mut caller));
    for (word, expected) in [("0", false), ("1", true), ("x", false), ("12", true), ("", false), ("1", true)] {
        assert_eq!(caller.run(&format!("DEBUG SET-ACTIVE-EXPIRE '{word}'")), "+OK ");
        assert_eq!(swept(&mut caller), expected, "{word}");
        assert_eq!(caller.run("EXISTS brief"), ":0 ");
    }
}
