//! Golden files: the stores in `data/`, left by earlier versions, load and hold what they held then.

use std::collections::{BTreeMap, BTreeSet};

use super::testing::{Caller, Dump, golden, start, state};
use crate::command::keys::dump::payload;
use crate::keyspace::Gate;
use crate::persist::FsyncPolicy;
use crate::persist::format::{CODEC_LZ4, CODEC_NONE, CODEC_PIECES};
use crate::persist::rdb::{
    RdbConsumer, RdbEntry, RdbField, RdbGroup, RdbPending, RdbStream, RdbStreamId, RdbStreamMeta, RdbValue, decode_dump,
};
use crate::persist::snapshot::SnapshotReader;

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
    let meta = RdbStreamMeta { last_id: (7, 2), max_deleted_id: (6, 1), entries_added: 3, groups: Vec::new() };
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
