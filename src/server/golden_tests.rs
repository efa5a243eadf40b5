//! Golden files: the stores in `data/`, left by earlier versions, load and hold what they held then.

use std::collections::{BTreeMap, BTreeSet};

use super::testing::{Caller, Dump, golden, start, start_loading, state};
use crate::command::keys::dump::payload;
use crate::keyspace::{Gate, SHARDS};
use crate::persist::crypt::tests::{current, encrypt};
use crate::persist::format::{CODEC_LZ4, CODEC_NONE, CODEC_PIECES, index_number};
use crate::persist::rdb::{
    RdbConsumer, RdbEntry, RdbField, RdbGroup, RdbPending, RdbStream, RdbStreamId, RdbStreamMeta, RdbValue, decode_dump,
};
use crate::persist::snapshot::SnapshotReader;
use crate::persist::verbs::Code;
use crate::persist::{Effect, FsyncPolicy, Store, StoreOptions};
use crate::value::Collection;
use crate::value::stream::{AnyStream, Stream};

fn golden_state() -> Dump {
    let long = [vec![0; 299], b"z".to_vec()].concat();
    let of = |db: u32, key: &str, value: &[u8], expiry: Option<u64>| (db, key.into(), value.to_vec(), expiry);
    vec![
        of(0, "long", &long, None),
        of(0, "number", b"-41.5", None),
        of(0, "renamed", b"soon", None),
        of(0, "text", b"hello world", Some(33_177_117_420_999)),
        of(1, "long2", &long, None),
        of(3, "elsewhere", b"9223372036854775807", Some(33_177_117_420_000)),
        of(3, "swapped", b"2", None),
        of(15, "after", b"flush", None),
    ]
}

#[test]
fn the_golden_files_of_version_1_load_into_a_server() {
    let storage = golden("store-v1-server");
    let server = start(&storage, 2, 1, FsyncPolicy::No).unwrap();
    assert_eq!(state(&server), golden_state());
    drop(server);
    // The start has written to the directory. A second start finds the same.
    assert_eq!(state(&start(&storage, 3, 2, FsyncPolicy::No).unwrap()), golden_state());
}

#[test]
fn the_golden_files_with_a_chunk_in_pieces_load_into_a_server() {
    let snapshot = SnapshotReader::open(&golden("store-v1-pieces"), 1).unwrap();
    assert_eq!(snapshot.codecs(), BTreeSet::from([CODEC_NONE, CODEC_LZ4, CODEC_PIECES]));
    let storage = golden("store-v1-pieces");
    let server = start(&storage, 2, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    for (command, reply) in [
        ("DBSIZE", ":3 "),
        ("STRLEN text", ":1800000 "),
        ("GETRANGE text 900000 900008", "$9 ironkeep  "),
        ("LLEN list", ":60000 "),
        ("LINDEX list 31415", "$21 vvvvvvvvvvvvvvvvvvvv5 "),
        ("ZCARD zset", ":2000 "),
        ("ZSCORE zset m1001", "$1 0 "),
        ("SELECT 3", "+OK "),
        ("DBSIZE", ":2 "),
        ("PEXPIRETIME small", ":33177117420000 "),
        ("GET after", "$8 snapshot "),
    ] {
        assert_eq!(caller.run(command), reply, "{command}");
    }
}

/// A key is its database and name. A value is the value, its encoding, and the expiry of the key.
type Values = BTreeMap<(u32, String), (RdbValue, String, Option<u64>)>;

/// A far future time that the golden files use.
const AT: u64 = 33_177_117_420_000;

fn bytes(text: impl ToString) -> Vec<u8> {
    text.to_string().into_bytes()
}

fn list<T: ToString>(elements: impl IntoIterator<Item = T>) -> RdbValue {
    RdbValue::List(elements.into_iter().map(bytes).collect())
}

fn set<T: ToString>(members: impl IntoIterator<Item = T>) -> RdbValue {
    let mut members: Vec<Vec<u8>> = members.into_iter().map(bytes).collect();
    members.sort();
    RdbValue::Set(members)
}

fn hash<T: ToString>(fields: impl IntoIterator<Item = (T, T, Option<u64>)>) -> RdbValue {
    let field = |(name, value, expiry): (T, T, _)| (bytes(name), bytes(value), expiry);
    let mut fields: Vec<RdbField> = fields.into_iter().map(field).collect();
    fields.sort();
    RdbValue::Hash(fields)
}

fn zset<T: ToString>(members: impl IntoIterator<Item = (T, f64)>) -> RdbValue {
    let mut members: Vec<(Vec<u8>, f64)> = members.into_iter().map(|(name, score)| (bytes(name), score)).collect();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    RdbValue::Zset(members)
}

fn large_list() -> Vec<String> {
    let element = |i: usize| if i.is_multiple_of(2) { format!("element:{i}") } else { i.to_string() };
    let mut elements: Vec<String> = (2..1500).map(element).chain(["tail".to_owned()]).collect();
    elements[10] = "changed".to_owned();
    elements
}

fn lists_and_sets(add: &mut impl FnMut(u32, &str, &str, RdbValue)) {
    add(0, "list:small", "listpack", list(["", "inserted", "-7", "9223372036854775807"]));
    add(0, "moved:list", "listpack", list(["z".repeat(300)]));
    add(0, "list:large", "quicklist", list(large_list()));
    add(0, "renamed:list", "quicklist", list(["z".repeat(70_000), "end".to_owned()]));
    add(0, "copy:list", "quicklist", list(large_list()));
    add(7, "copy:list", "listpack", list(["y"]));
    add(0, "set:ints", "intset", set([-5, 0, 9, 70_000, 1_i64 << 40]));
    add(0, "set:small", "listpack", set(["a", "b", "17", ""]));
    add(0, "stored:set", "listpack", set(["a", "b", "17", "", "-5", "0", "9", "70000", "1099511627776"]));
    add(0, "second:life", "listpack", set(["1", "2", "three"]));
    add(7, "elsewhere", "listpack", set(["x", "y"]));
    let members = (1..499).map(|i| format!("member:{i}")).chain(["m".repeat(80), "late".to_owned()]);
    add(0, "renamed:set", "hashtable", set(members));
}

fn hashes(add: &mut impl FnMut(u32, &str, &str, RdbValue)) {
    let small = [("name", "ada", None), ("", "empty", None), ("n", "42", None), ("later", "1", None)];
    add(0, "renamed:hash", "listpack", hash(small));
    add(0, "moved", "listpack", hash([("f", "v", None)]));
    add(0, "hash:volatile", "listpackex", hash([("name", "ada", None), ("token", "t", Some(AT))]));
    add(0, "second:hash", "listpackex", hash([("f", "v", Some(AT + 11))]));
    let square = |i: u64| if i == 2 { 9 } else { i * i };
    let large = (0..600).filter(|i| *i != 1).map(|i| (format!("field:{i}"), square(i).to_string(), None));
    add(0, "hash:large", "hashtable", hash(large.chain([("long".to_owned(), "v".repeat(200), None)])));
    let expiry = |i: u64| match i {
        3 => None,
        4 => Some(AT + 5000),
        _ => i.is_multiple_of(3).then_some(AT + i),
    };
    let volatile = (0..600).map(|i| (format!("field:{i}"), format!("value:{i}"), expiry(i)));
    add(0, "hash:large-volatile", "hashtable", hash(volatile.clone()));
    add(0, "copy:hash", "hashtable", hash(volatile));
}

fn sorted_sets(add: &mut impl FnMut(u32, &str, &str, RdbValue)) {
    let small = [("a", 1.0), ("b", f64::NEG_INFINITY), ("c", 1.75), ("d", f64::INFINITY)];
    add(0, "zset:small", "listpack", zset(small));
    // With the members of set:small, each of which counts 1.
    let joint = [("a", 2.0), ("b", f64::NEG_INFINITY), ("c", 1.75), ("d", f64::INFINITY), ("17", 1.0), ("", 1.0)];
    add(0, "stored:zset", "listpack", zset(joint));
    let places = [("Palermo", 3_479_099_956_230_698.0), ("Catania", 3_479_447_370_796_909.0)];
    add(0, "zset:places", "listpack", zset(places));
    let score = |i: u64| if i == 7 { 10_000.0 } else { ((i * 7919) % 1009) as f64 / 4.0 };
    let mut players: Vec<_> = (0..500).filter(|i| *i != 8).map(|i| (format!("player:{i}"), score(i))).collect();
    players.sort_by(|a, b| (a.1, &a.0).partial_cmp(&(b.1, &b.0)).expect("no NaN"));
    players.drain(..10);
    add(0, "zset:large", "skiplist", zset(players.clone()));
    add(0, "restored:zset", "skiplist", zset(players));
}

fn entry(id: RdbStreamId, fields: &[(&str, String)]) -> RdbEntry {
    (id, fields.iter().map(|(name, value)| (name.as_bytes().into(), bytes(value))).collect())
}

fn large_entries() -> Vec<RdbEntry> {
    let of = |i: u64| match i % 7 {
        0 => entry((1000 + i, 0), &[("other", "odd".to_owned()), ("number", i.to_string())]),
        _ => entry((1000 + i, 0), &[("number", i.to_string())]),
    };
    let last = entry((2000, 0), &[("number", "2000".to_owned())]);
    (2..400).filter(|i| ![3, 200].contains(i)).map(of).chain([last]).collect()
}

/// The groups of the large stream. The times are those of the day when the files were written.
fn groups(idle_too: bool) -> Vec<RdbGroup> {
    const FIRST: u64 = 1_795_409_385_256;
    const THEN: u64 = 1_795_409_385_358;
    // A payload does not say when a consumer was active. The time when it was seen counts instead.
    let consumer =
        |name: &str, seen_time_ms| RdbConsumer { name: bytes(name), seen_time_ms, active_time_ms: Some(seen_time_ms) };
    let pending = |id, delivery_time_ms, delivery_count, consumer| RdbPending {
        id: (id, 0),
        delivery_time_ms,
        delivery_count,
        consumer,
    };
    let mut consumers = vec![consumer("alice", FIRST), consumer("bob", THEN)];
    consumers.extend(idle_too.then(|| consumer("idle", FIRST)));
    let claimed = [1006, 1007].map(|id| pending(id, THEN, 4, 1));
    let others = RdbGroup {
        name: bytes("others"),
        last_id: (1102, 0),
        pel: [1101, 1102].map(|id| pending(id, THEN, 1, 0)).to_vec(),
        consumers: vec![consumer("carol", THEN)],
        ..RdbGroup::default()
    };
    let readers = RdbGroup {
        name: bytes("readers"),
        last_id: (1010, 0),
        pel: claimed.into_iter().chain([1008, 1009, 1010].map(|id| pending(id, FIRST, 1, 0))).collect(),
        consumers,
        ..RdbGroup::default()
    };
    vec![others, readers]
}

fn streams(add: &mut impl FnMut(u32, &str, &str, RdbValue)) {
    let sensor = |ms, seq: u64| entry((ms, seq), &[("sensor", seq.to_string()), ("value", format!("{seq}.5"))]);
    let meta = RdbStreamMeta { last_id: (7, 2), max_deleted_id: (6, 1), entries_added: 3, ..RdbStreamMeta::default() };
    add(0, "stream:small", "stream", RdbValue::Stream(RdbStream { entries: vec![sensor(5, 0), sensor(7, 2)], meta }));
    let waiting = RdbGroup { name: bytes("waiting"), entries_read: None, ..RdbGroup::default() };
    let meta = RdbStreamMeta { groups: vec![waiting], ..RdbStreamMeta::default() };
    add(0, "stream:empty", "stream", RdbValue::Stream(RdbStream { entries: Vec::new(), meta }));
    for (db, key, idle_too) in [(0, "stream:large", false), (7, "copy:stream", true)] {
        let meta = RdbStreamMeta {
            last_id: (2000, 0),
            max_deleted_id: (1200, 0),
            entries_added: 401,
            groups: groups(idle_too),
            idempotency: None,
        };
        add(db, key, "stream", RdbValue::Stream(RdbStream { entries: large_entries(), meta }));
    }
}

/// What `store-v1-collections` holds.
fn golden_collections() -> Values {
    let mut values = Values::new();
    let mut add = |db: u32, key: &str, encoding: &str, value| {
        let expiry = match key {
            "restored:zset" => Some(AT + 7),
            "stored:set" => Some(AT + 9),
            _ => None,
        };
        let displaced = values.insert((db, key.to_owned()), (value, encoding.to_owned(), expiry));
        assert!(displaced.is_none(), "{key} twice");
    };
    add(0, "string:int", "int", RdbValue::String(bytes(42)));
    add(0, "string:short", "raw", RdbValue::String(bytes("hello world!")));
    add(0, "string:long", "raw", RdbValue::String(vec![b'x'; 500]));
    lists_and_sets(&mut add);
    hashes(&mut add);
    sorted_sets(&mut add);
    streams(&mut add);
    values
}

fn values(server: &crate::core::Server, caller: &mut Caller) -> Values {
    let mut values = Values::new();
    let frozen = server.keyspace.freeze(&Gate::new(1).close());
    for shard in 0..frozen.shards() {
        for (db, directory) in frozen.shard(shard) {
            for entry in directory.iter() {
                let key = String::from_utf8(entry.key().to_vec()).expect("a name of this file");
                let value = decode_dump(&payload(entry.value())).expect("a payload of ours").sorted();
                caller.run(&format!("SELECT {db}"));
                let encoding = caller.run(&format!("OBJECT ENCODING {key}"));
                let encoding = encoding.split(' ').nth(1).expect("a bulk string").to_owned();
                values.insert((db, key), (value, encoding, entry.expiry()));
            }
        }
    }
    values
}

#[test]
fn the_golden_collections_of_version_1_load_into_a_server() {
    let (storage, mut before) = (golden("store-v1-collections"), None);
    for life in 2..4 {
        let server = start(&storage, life, life as usize - 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        assert_eq!(caller.run("PFCOUNT string:hyperloglog"), ":199 ");
        assert_eq!(caller.run("GEODIST zset:places Palermo Catania km"), "$8 166.2742 ");
        caller.run("SELECT 7");
        let groups = caller.run("XINFO STREAM copy:stream FULL COUNT 1");
        let active = groups.split("$11 active-time ").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default());
        assert_eq!(active.collect::<Vec<_>>(), [":1795409385358", ":1795409385256", ":1795409385358", ":-1"]);
        let all = state(&server);
        assert_eq!(all, before.unwrap_or_else(|| all.clone()), "life {life}");
        before = Some(all);
        let mut found = values(&server, &mut caller);
        found.remove(&(0, "string:hyperloglog".to_owned())).expect("PFCOUNT has shown it");
        let expected = golden_collections();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (key, value) in expected {
            if let (RdbValue::Stream(is), RdbValue::Stream(was)) = (&found[&key].0, &value.0) {
                assert_eq!(is.meta, was.meta, "{key:?}");
            }
            assert_eq!(found[&key], value, "{key:?}");
        }
    }
}

/// `store-v2-verbs`: a log of two lives, with every verb.
#[test]
fn the_golden_verbs_of_version_2_load_into_a_server() {
    let mut before = None;
    for life in 2..4 {
        let storage = golden("store-v2-verbs");
        let server = start(&storage, life, life as usize - 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        for (command, reply) in GOLDEN_REPLIES {
            assert_eq!(caller.run(command), *reply, "{command}");
        }
        let all = state(&server);
        assert_eq!(all, before.unwrap_or_else(|| all.clone()), "on other threads");
        before = Some(all);
    }
}

/// `store-v2-blessed`: a snapshot with keys that are protected from eviction, and a log behind it.
#[test]
fn the_golden_protected_keys_load_into_a_server() {
    let server = start(&golden("store-v2-blessed"), 2, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    for key in ["renamed", "brief", "copied", "late"] {
        assert_eq!(caller.run(&format!("BLESS GET {key}")), "*1 $8 NO-EVICT ", "{key}");
    }
    for (command, reply) in [
        ("BLESS GET plain", "*0 "),
        ("BLESS GET list", "*0 "),
        ("MGET renamed late plain", "*3 $1 v $1 2 $5 again "),
        ("PEXPIRETIME copied", ":33177117420000 "),
        ("DBSIZE", ":6 "),
        ("SELECT 3", "+OK "),
        ("BLESS SCAN 0 NO-EVICT", "*2 $1 0 *1 $9 elsewhere "),
    ] {
        assert_eq!(caller.run(command), reply, "{command}");
    }
}

/// `store-v2-producers`: a snapshot with streams that remember what producers have added, and a log behind it.
#[test]
fn the_golden_producers_load_into_a_server() {
    let server = start(&golden("store-v2-producers"), 2, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    for (command, reply) in PRODUCERS_REPLIES {
        assert_eq!(caller.run(command), *reply, "{command}");
    }
    let ids = |stream: &str| -> String {
        let key = server.keyspace.key(stream.as_bytes());
        let shard = server.keyspace.lock(key.shard());
        let directory = shard.directory(0).expect("it has keys");
        let entry = directory.get(key.hash, key.bytes).expect("it is there");
        let its = AnyStream::view(entry.value()).and_then(Stream::idempotency).expect("it remembers some");
        let shown =
            its.iter().map(|one| format!("{} {} {}", one.producer.escape_ascii(), one.iid.escape_ascii(), one.entry));
        format!("{} of {}", shown.collect::<Vec<_>>().join(", "), its.added())
    };
    let all = ["orders", "few"].map(ids);
    assert_eq!(all, PRODUCERS_IDS);
}

#[test]
fn the_golden_verbs_are_all_verbs_there_are() {
    let directories = [
        "store-v2-verbs",
        "store-v2-blessed",
        "store-v2-functions",
        "store-v2-flushes",
        "store-v2-producers",
        "store-v2-released",
    ];
    let codes: BTreeSet<Code> = directories.into_iter().flat_map(verbs_of).collect();
    assert_eq!(codes, Code::ALL.iter().map(|(code, ..)| *code).collect());
}

/// How a golden directory is opened without a server.
fn options(indexes: bool) -> StoreOptions {
    StoreOptions {
        workers: 1,
        shards: SHARDS as u32,
        hash_seed: [0; 16],
        generation: 9,
        appendonly: false,
        policy: FsyncPolicy::No,
        clock: std::sync::Arc::new(|| 0),
        cut_at_corruption: false,
        refuse_torn: false,
        foreign: Vec::new(),
        import: false,
        encryption: None,
        segment_bytes: 0,
        indexes,
        threads: false,
    }
}

/// The segments of the log have an index each, but for the last one.
#[test]
fn the_golden_indexes_lead_to_all_records() {
    let storage = golden("store-v2-indexed");
    let (_store, recovery) = Store::open(std::sync::Arc::new(storage.process_image()), options(true)).unwrap();
    let indexes = storage.names().iter().filter(|name| index_number(name).is_some()).count();
    assert_eq!((indexes, recovery.summary().unread), (4, 4));
    recovery.read_the_rest().unwrap();
    for start in [start, start_loading] {
        let server = start(&storage.process_image(), 3, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        for (command, reply) in [
            ("GET key:39", "$8 value:39 "),
            ("MGET before:1 key:0 key:1 key:2", "*4 $-1 $7 value:0 $8 value:1+ $-1 "),
            ("PEXPIRETIME key:20", ":33177117420000 "),
            ("PEXPIRETIME key:10", ":-1 "),
            ("LRANGE list 0 -1", "*3 $1 a $1 b $1 c "),
            ("HGETALL hash", "*2 $1 f $1 v "),
            ("SCARD set", ":2 "),
            ("MGET counter late:59 tail", "*3 $1 5 $2 59 $1 1 "),
            ("STRLEN renamed", ":70000 "),
            ("EXISTS large", ":0 "),
            ("FCALL f 0", ":7 "),
            ("DBSIZE", ":105 "),
            ("SELECT 4", "+OK "),
            ("GET three", "$1 3 "),
            ("SELECT 2", "+OK "),
            ("DBSIZE", ":0 "),
        ] {
            assert_eq!(caller.run(command), reply, "{command}");
        }
    }
}

/// Encrypted: a snapshot, and a log behind it, whose segments have an index but for the last one.
#[test]
fn the_golden_encrypted_store_is_opened() {
    encrypt("5", true);
    let storage = golden("store-v3-indexed");
    let options = StoreOptions { encryption: current(), ..options(true) };
    let (_store, recovery) = Store::open(std::sync::Arc::new(storage.process_image()), options).unwrap();
    let indexes = storage.names().iter().filter(|name| index_number(name).is_some()).count();
    assert_eq!((indexes, recovery.summary().unread), (5, 5));
    recovery.read_the_rest().unwrap();
    for start in [start, start_loading] {
        let server = start(&storage.process_image(), 3, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        for (command, reply) in [
            ("MGET before:4 before:5", "*2 $8 value:4+ $7 value:5 "),
            ("MGET key:0 key:2 key:59", "*3 $7 again:0 $-1 $8 value:59 "),
            ("PEXPIRETIME key:10", ":33177117420000 "),
            ("LRANGE list 0 -1", "*3 $1 a $1 b $1 c "),
            ("HGETALL hash", "*2 $1 f $1 v "),
            ("SCARD set", ":2 "),
            ("MGET late:59 last:4 pad", "*3 $2 59 $7 value:4 $-1 "),
            ("STRLEN renamed", ":70000 "),
            ("EXISTS large", ":0 "),
            ("FCALL f 0", ":7 "),
            ("DBSIZE", ":168 "),
            ("SELECT 4", "+OK "),
            ("GET three", "$1 3 "),
        ] {
            assert_eq!(caller.run(command), reply, "{command}");
        }
    }
}

/// The verbs in the log of a golden directory.
fn verbs_of(directory: &str) -> BTreeSet<Code> {
    let storage = golden(directory);
    let (_store, recovery) = Store::open(std::sync::Arc::new(storage), options(false)).unwrap();
    let mut codes = BTreeSet::new();
    let mut windows = recovery.windows();
    while let Some(window) = windows.next_window().unwrap() {
        for epoch in window.epochs {
            let records = epoch.shards.iter().flat_map(|(_, records)| records);
            for record in records.chain(&epoch.barrier) {
                let Effect::Verb(encoded) = record.effect else { panic!("{record:?}") };
                codes.insert(encoded.code);
            }
        }
    }
    codes
}

#[test]
fn the_golden_flushes_can_be_undone() {
    let snapshot = SnapshotReader::open(&golden("store-v2-flushes"), 1).unwrap();
    let listed: Vec<_> = snapshot.graves().unwrap().iter().map(|grave| (grave.id, grave.only)).collect();
    assert_eq!((listed, snapshot.entries()), (vec![(1, Some(3)), (2, None)], 1));
    for starts in [start, start_loading] {
        let mut storage = golden("store-v2-flushes");
        for generation in 2..4 {
            let server = starts(&storage, generation, 1, FsyncPolicy::Always).unwrap();
            let mut caller = Caller::new(&server, 0);
            let undone =
                if generation == 2 { [":1 ", ":2 "] } else { ["-ERR there is no flush", "-ERR there is no flush"] };
            for (command, reply) in [
                ("DBSIZE", ":5 "),
                ("MGET a b after", "*3 $3 new $1 2 $1 1 "),
                ("BLESS GET hash", "*1 $8 NO-EVICT "),
                ("PEXPIRETIME until", ":33177117420000 "),
                ("UNFLUSH", undone[0]),
                ("UNFLUSH", undone[1]),
                ("UNFLUSH", "-ERR there is no flush"),
                ("SELECT 5", "+OK "),
                ("GET five", "$1 5 "),
                ("SELECT 3", "+OK "),
                ("LRANGE list 0 -1", "*2 $1 a $1 b "),
                ("DBSIZE", ":2 "),
                ("SELECT 6", "+OK "),
                ("DBSIZE", ":0 "),
            ] {
                let found = caller.run(command);
                assert!(found.starts_with(reply), "{command}: {found}");
            }
            server.store.log().sync_now().unwrap();
            // What has loaded it may still hold the old one.
            storage = storage.process_image();
        }
    }
}

#[test]
fn the_golden_libraries_are_there_with_their_functions() {
    let storage = golden("store-v2-functions");
    assert_eq!(SnapshotReader::open(&storage, 1).unwrap().libraries().unwrap().len(), 4);
    for generation in 2..4 {
        let server = start(&storage, generation, 1, FsyncPolicy::No).unwrap();
        let libraries = server.keyspace.libraries();
        let names: Vec<&[u8]> = libraries.iter().map(|library| &*library.name).collect();
        assert_eq!(names, [&b"added"[..], b"kept", b"long", b"replaced"]);
        let replaced = &libraries.get(b"replaced").unwrap().code;
        assert!(replaced.starts_with(b"#!lua name=replaced\nredis.register_function('three', "));
        assert_eq!(libraries.code_bytes(), libraries.iter().map(|library| library.code.len()).sum::<usize>());
        let mut caller = Caller::new(&server, 0);
        for (command, reply) in [
            ("FCALL kept 1 a b", "*3 $8 snapshot :1 :1 "),
            ("FCALL three 0", "*3 $3 log :0 :0 "),
            ("FCALL four 0 b", "*3 $3 log :0 :1 "),
            ("FCALL_RO Longer 0", "$4 long "),
            ("FCALL one 0", "-ERR Function not found "),
            ("FCALL two 0", "-ERR Function not found "),
            ("MGET key later", "*2 $5 value $5 value "),
        ] {
            assert_eq!(caller.run(command), reply, "{command}");
        }
        let stats = "*4 $14 running_script $-1 $7 engines *2 $3 LUA *4 $15 libraries_count :4 $15 functions_count :4 ";
        assert_eq!(caller.run("FUNCTION STATS"), stats);
    }
}

/// `store-v2-released`: a snapshot with pending entries that consumers have handed back, and a log behind it.
#[test]
fn the_golden_entries_that_were_handed_back_load_into_a_server() {
    let server = start(&golden("store-v2-released"), 2, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    assert_eq!(caller.run("XPENDING r g"), "*4 :5 $3 1-0 $3 6-0 *1 *2 $1 c $1 2 ");
    assert_eq!(caller.run("XPENDING r g 1-0 1-0 1"), "*1 *4 $3 1-0 $0  :-1 :9223372036854775807 ");
    let key = server.keyspace.key(b"r");
    let shard = server.keyspace.lock(key.shard());
    let entry = shard.directory(0).and_then(|directory| directory.get(key.hash, key.bytes)).expect("it is there");
    let group = AnyStream::view(entry.value()).and_then(|stream| stream.group(b"g")).expect("it has a group");
    let released: Vec<String> = group.released().map(|one| format!("{}x{}", one.id, one.count)).collect();
    assert_eq!(released, ["1-0x9223372036854775807", "2-0x0", "6-0x0"]);
}

/// What the server that wrote it said when it was killed. The time of what is remembered is over since.
const PRODUCERS_REPLIES: &[(&str, &str)] = &[
    ("DBSIZE", ":5 "),
    ("XLEN orders", ":11 "),
    ("XLEN copied", ":11 "),
    ("XPENDING orders g", "*4 :2 $15 1796107646044-0 $15 1796107646066-0 *1 *2 $1 c $1 2 "),
    ("XRANGE few - +", "*2 *2 $3 5-5 *2 $1 a $1 1 *2 $15 1796107648457-0 *2 $1 b $1 2 "),
    // What they had is still theirs: nothing changes by it.
    ("XCFGSET orders IDMP-DURATION 600 IDMP-MAXSIZE 3", "+OK "),
    ("XCFGSET few IDMP-DURATION 100 IDMP-MAXSIZE 100", "+OK "),
];

const PRODUCERS_IDS: [&str; 2] = [
    "alice 3 1796107646195-0, alice 4 1796107646215-0, bob 7 1796107646235-0, alice 5 1796107648402-0, \
     bob 8 1796107648428-0 of 11",
    "p r 1796107648457-0 of 2",
];

/// What the server that wrote it said when it was killed; but alice, who asked once more and in vain, was seen later:
/// that is not logged.
const GOLDEN_REPLIES: &[(&str, &str)] = &[
    ("DBSIZE", ":24 "),
    ("MGET text number until later kept", "*5 $12 hello-world! $2 42 $1 v $1 v $1 v "),
    ("PEXPIRETIME until", ":33177117420000 "),
    ("PEXPIRETIME later", ":33177117420000 "),
    ("TTL kept", ":-1 "),
    ("EXISTS gone deleted big", ":0 "),
    ("GETRANGE range 3 -1", "$3 abc "),
    ("STRLEN range", ":6 "),
    ("BITFIELD bits GET u8 100 GET i5 3 GET u1 11", "*3 :77 :9 :1 "),
    ("PFCOUNT hll", ":6 "),
    ("STRLEN long", ":500 "),
    ("PEXPIRETIME long", ":33177117420000 "),
    ("OBJECT ENCODING number", "$3 int "),
    ("LRANGE list 0 -1", "*9 $1 z $1 A $1 b $1 c $1 C $1 d $1 e $10 element:10 $11 second-life "),
    ("LLEN list:large", ":579 "),
    ("LINDEX list:large 289", "$7 changed "),
    ("LRANGE list:large 0 0", "*1 $10 element:11 "),
    ("LRANGE list:large -1 -1", "*1 $11 element:589 "),
    ("SMEMBERS set", "*3 $1 a $1 c $1 5 "),
    ("SMEMBERS ints", "*3 $1 1 $1 3 $6 900000 "),
    ("SCARD set:large", ":398 "),
    ("SMISMEMBER set:large m6 m7 m8 m9", "*4 :1 :0 :0 :1 "),
    ("SMEMBERS stored", "*3 $1 a $1 c $1 5 "),
    ("HGETALL hash", "*8 $1 d $1 4 $1 a $1 6 $1 b $3 two $1 n $1 1 "),
    ("HPEXPIRETIME hash FIELDS 4 a b d n", "*4 :33177117420000 :-1 :33177117420000 :-1 "),
    ("HLEN hash:large", ":699 "),
    ("HMGET hash:large f2 f3 f4", "*3 $2 v2 $-1 $2 v4 "),
    ("HPEXPIRETIME hash:large FIELDS 2 f4 f5", "*2 :33177117420000 :-1 "),
    ("ZRANGE zset 0 -1 WITHSCORES", "*8 $3 low $4 -inf $1 a $3 2.5 $1 b $3 2.5 $1 x $1 9 "),
    ("ZCARD zset:large", ":256 "),
    ("ZRANGE zset:large 0 2 WITHSCORES", "*6 $2 p1 $3 1.5 $4 p106 $3 1.5 $4 p113 $3 1.5 "),
    ("ZSCORE zset:large p2", "$-1 "),
    (
        "XRANGE stream - +",
        "*6 *2 $3 3-0 *4 $1 n $1 3 $1 f $1 v *2 $3 5-0 *4 $1 n $1 5 $1 f $1 v *2 $3 6-0 *4 $1 n $1 6 $1 f $1 \
             v *2 $3 7-0 *4 $1 n $1 7 $1 f $1 v *2 $3 8-0 *4 $1 n $1 8 $1 f $1 v *2 $4 21-0 *2 $1 n $2 21 ",
    ),
    (
        "XINFO STREAM stream FULL",
        "*30 $6 length :6 $15 radix-tree-keys :1 $16 radix-tree-nodes :2 $17 last-generated-id $4 21-0 $20 \
             max-deleted-entry-id $3 4-0 $13 entries-added :31 $23 recorded-first-entry-id $3 3-0 $13 \
             idmp-duration :100 $12 idmp-maxsize :100 $12 pids-tracked :0 $12 iids-tracked :0 $10 iids-added :0 \
             $15 iids-duplicates :0 $7 entries *6 *2 $3 3-0 *4 $1 n $1 3 $1 f $1 v *2 $3 5-0 *4 $1 n $1 5 $1 f $1 v \
             *2 $3 6-0 *4 $1 n $1 6 $1 f $1 v \
             *2 $3 7-0 *4 $1 n $1 7 $1 f $1 v *2 $3 8-0 *4 $1 n $1 8 $1 f $1 v *2 $4 21-0 *2 $1 n $2 21 $6 groups \
             *2 *16 $4 name $1 g $17 last-delivered-id $3 4-0 $12 entries-read :4 $3 lag $-1 $9 pel-count :1 $12 \
             nacked-count :0 $7 pending *1 *4 $3 3-0 $3 zoe :1796047801177 :7 $9 consumers *3 *10 $4 name $5 alice \
             $9 seen-time \
             :1796047801170 $11 active-time :1796047801170 $9 pel-count :0 $7 pending *0 *10 $4 name $4 idle $9 \
             seen-time :1796047801177 $11 active-time :-1 $9 pel-count :0 $7 pending *0 *10 $4 name $3 zoe $9 \
             seen-time :1796047801177 $11 active-time :1796047801177 $9 pel-count :1 $7 pending *1 *3 $3 3-0 \
             :1796047801177 :7 *16 $4 name $1 h $17 last-delivered-id $3 5-0 $12 entries-read :5 $3 lag :26 $9 \
             pel-count :3 $12 nacked-count :0 $7 pending *3 *4 $3 1-0 $3 bob :1796047801171 :1 *4 $3 2-0 $3 bob \
             :1796047801171 :1 *4 \
             $3 3-0 $3 bob :1796047801171 :1 $9 consumers *2 *10 $4 name $3 bob $9 seen-time :1796047801171 $11 \
             active-time :1796047801171 $9 pel-count :3 $7 pending *3 *3 $3 1-0 :1796047801171 :1 *3 $3 2-0 \
             :1796047801171 :1 *3 $3 3-0 :1796047801171 :1 *10 $4 name $4 carl $9 seen-time :1796047801172 $11 \
             active-time :-1 $9 pel-count :0 $7 pending *0 ",
    ),
    (
        "XRANGE s2 - +",
        "*4 *2 $3 4-0 *2 $1 n $1 4 *2 $3 5-0 *2 $1 n $1 5 *2 $3 6-0 *2 $1 n $1 6 *2 $3 7-0 *2 $1 n $1 7 ",
    ),
    (
        "XINFO STREAM s2 FULL",
        "*30 $6 length :4 $15 radix-tree-keys :1 $16 radix-tree-nodes :2 $17 last-generated-id $3 7-0 $20 \
             max-deleted-entry-id $3 0-0 $13 entries-added :7 $23 recorded-first-entry-id $3 4-0 $13 \
             idmp-duration :100 $12 idmp-maxsize :100 $12 pids-tracked :0 $12 iids-tracked :0 $10 iids-added :0 \
             $15 iids-duplicates :0 $7 entries *4 *2 $3 4-0 *2 $1 n $1 4 *2 $3 5-0 *2 $1 n $1 5 *2 $3 6-0 *2 $1 n \
             $1 6 *2 $3 7-0 *2 $1 n $1 7 $6 groups \
             *1 *16 $4 name $1 g $17 last-delivered-id $3 4-0 $12 entries-read :4 $3 lag :3 $9 pel-count :1 $12 \
             nacked-count :0 $7 pending *1 *4 $3 4-0 $1 c :1796047801196 :1 $9 consumers *1 *10 $4 name $1 c $9 \
             seen-time \
             :1796047801196 $11 active-time :1796047801196 $9 pel-count :1 $7 pending *1 *3 $3 4-0 :1796047801196 \
             :1 ",
    ),
    ("XLEN stream:large", ":200 "),
    ("XRANGE stream:large - + COUNT 1", "*1 *2 $4 51-0 *2 $6 number $2 51 "),
    (
        "XINFO GROUPS empty",
        "*1 *12 $4 name $1 g $9 consumers :0 $7 pending :0 $17 last-delivered-id $3 0-0 $12 entries-read $-1 \
             $3 lag :0 ",
    ),
    ("STRLEN renamed", ":70000 "),
    ("SELECT 1", "+OK "),
    ("DBSIZE", ":0 "),
    ("SELECT 3", "+OK "),
    ("DBSIZE", ":1 "),
    ("SELECT 4", "+OK "),
    ("STRLEN copied", ":70000 "),
    ("SELECT 5", "+OK "),
    ("DBSIZE", ":0 "),
    ("SELECT 6", "+OK "),
    ("GET five", "$1 5 "),
    ("SELECT 7", "+OK "),
    ("DBSIZE", ":5 "),
    ("GET key:4", "$10 value:4\0\0\0 "),
    ("STRLEN key:4", ":10 "),
];
