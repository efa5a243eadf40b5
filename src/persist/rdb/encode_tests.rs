//! Written values read back as the same value, and where possible equal the bytes of Redis 7.0.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::super::{RdbConsumer, RdbEntryFields, RdbPending, RdbProducer, decode_dump};
use super::*;

/// Payloads whose bytes follow from the value alone. This excludes lists with nodes of another size, streams with
/// deleted entries, and scores, which Redis 7.0 prints with all 17 digits.
const SAME_BYTES: &[&str] = &[
    "hash-large",
    "hash-long",
    "hash-small",
    "list-ints",
    "list-nodes",
    "list-small",
    "list-wide",
    "set-int16",
    "set-int32",
    "set-int64",
    "set-large",
    "set-small",
    "stream-emptied",
    "stream-empty",
    "stream-small",
    "stream-wrap",
    "string-14bit",
    "string-32bit",
    "string-empty",
    "string-int-16",
    "string-int-32",
    "string-int-64",
    "string-int-8",
    "string-int-none",
    "string-lzf",
    "string-short",
    "string-words",
    "zset-ints",
    "zset-large",
];

#[test]
fn payloads_are_those_of_redis() {
    for name in SAME_BYTES {
        let path = format!("{}/data/rdb/redis-7.0-{name}.bin", env!("CARGO_MANIFEST_DIR"));
        let payload = std::fs::read(&path).unwrap();
        let value = decode_dump(&payload).unwrap();
        assert!(encode_dump(&value) == payload, "{name}");
    }
}

#[test]
fn the_type_follows_from_the_size() {
    let named = |count: usize, len: usize| (0..count).map(move |i| format!("{i:x>len$}").into_bytes());
    let hash = |count, len| RdbValue::Hash(named(count, len).map(|field| (field, b"v".to_vec(), None)).collect());
    let zset = |count, len| RdbValue::Zset(named(count, len).map(|member| (member, 0.5)).collect());
    let numbers = |count: usize| RdbValue::Set((0..count).map(|i| i.to_string().into_bytes()).collect());
    let cases = [
        (hash(512, 64), RdbType::HashListpack),
        (hash(513, 5), RdbType::Hash),
        (hash(1, 65), RdbType::Hash),
        (zset(128, 64), RdbType::ZsetListpack),
        (zset(129, 5), RdbType::Zset),
        (zset(1, 65), RdbType::Zset),
        (numbers(512), RdbType::SetIntset),
        (numbers(513), RdbType::Set),
        (RdbValue::Set(vec![b"1".to_vec(), b"a".to_vec()]), RdbType::Set),
        (RdbValue::Hash(vec![(b"f".to_vec(), b"v".to_vec(), Some(0))]), RdbType::HashVolatile),
    ];
    for (value, kind) in cases {
        let payload = encode_dump(&value);
        assert_eq!(payload[0], kind as u8);
        assert_eq!(decode_dump(&payload).map(RdbValue::sorted), Ok(value.sorted()));
    }
}

#[test]
fn a_listpack_of_a_zset_stands_in_order() {
    let scores = [f64::INFINITY, 2.5, f64::NEG_INFINITY, -0.0, 0.0, 1e300];
    let value = RdbValue::Zset(scores.iter().zip(b'a'..).map(|(&score, name)| (vec![name], score)).collect());
    let payload = encode_dump(&value);
    assert_eq!(payload[0], RdbType::ZsetListpack as u8);
    let Ok(RdbValue::Zset(members)) = decode_dump(&payload) else { panic!("a zset") };
    let names: Vec<u8> = members.iter().map(|(name, _)| name[0]).collect();
    assert_eq!(names, b"cdebfa");
    assert!(members[1].1.is_sign_negative());
}

#[test]
fn items_of_any_size_make_a_list() {
    let sizes = [1, 8170, 8183, 8184, 8192, 8193, 0, 100_000, 20, 5000, 5000, 5000];
    let items = sizes.iter().map(|&size| (0..size).map(|i| (i % 251) as u8).collect()).collect();
    let value = RdbValue::List(items);
    assert_eq!(decode_dump(&encode_dump(&value)), Ok(value));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..20),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (-200_i64..200).prop_map(|number| number.to_string().into_bytes()),
        (any::<u8>(), 0_usize..5000).prop_map(|(byte, len)| vec![byte; len]),
        vec(0_u8..3, 0..400),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("a score is a number", |score| !score.is_nan()),
        (-1000_i32..1000).prop_map(f64::from),
        Just(f64::INFINITY)
    ]
}

fn id() -> impl Strategy<Value = RdbStreamId> {
    prop_oneof![(0_u64..50, 1_u64..50), (any::<u64>(), 1_u64..)]
}

/// Some of the pending entries are handed back, in another order than that of their ids.
fn pel_and_released(all: Vec<RdbPending>) -> (Vec<RdbPending>, Vec<RdbPending>) {
    let (mut released, pel): (Vec<_>, Vec<_>) = all.into_iter().partition(|entry| entry.delivery_count % 3 == 0);
    released.reverse();
    released.iter_mut().for_each(|entry| entry.consumer = super::super::stream::RELEASED);
    (released, pel)
}

fn group() -> impl Strategy<Value = RdbGroup> {
    let consumer = (any::<u32>(), proptest::option::of(any::<u32>()))
        .prop_map(|(seen, active)| (seen.into(), active.map(u64::from)));
    let pending = btree_map(id(), (any::<u32>(), any::<u16>(), any::<prop::sample::Index>()), 0..10);
    (bytes(), id(), proptest::option::of(0..u64::MAX), btree_map(bytes(), consumer, 1..4), pending).prop_map(
        |(name, last_id, entries_read, consumers, pending)| {
            let consumers: Vec<RdbConsumer> = consumers
                .into_iter()
                .map(|(name, (seen_time_ms, _)): (_, (u64, Option<u64>))| {
                    // The version that is written stores no separate active time.
                    RdbConsumer { name, seen_time_ms, active_time_ms: Some(seen_time_ms) }
                })
                .collect();
            let pel: Vec<RdbPending> = pending
                .into_iter()
                .map(|(id, (time, count, owner))| RdbPending {
                    id,
                    delivery_time_ms: time.into(),
                    delivery_count: count.into(),
                    consumer: owner.index(consumers.len()),
                })
                .collect();
            let (released, pel): (Vec<_>, Vec<_>) = pel_and_released(pel);
            RdbGroup { name, last_id, entries_read, pel, released, consumers }
        },
    )
}

fn idempotency() -> impl Strategy<Value = RdbIdempotency> {
    let producers = btree_map(bytes(), btree_map(bytes(), id(), 1..4), 0..4);
    (1..90_000u64, 1..20_000u64, producers, any::<u32>(), 1..9u64).prop_map(
        |(seconds, ids_max, producers, added, duplicates)| {
            let producer = |(name, ids)| RdbProducer { name, ids: BTreeMap::into_iter(ids).collect() };
            let producers = producers.into_iter().map(producer).collect();
            RdbIdempotency { seconds, ids_max, producers, added: added.into(), duplicates }
        },
    )
}

fn stream() -> impl Strategy<Value = RdbStream> {
    let fields = vec((prop_oneof![Just(b"f".to_vec()), bytes()], bytes()), 1..4);
    let fields = fields.prop_map(|pairs| -> RdbEntryFields {
        pairs.into_iter().map(|(name, value)| (Arc::from(name), value)).collect()
    });
    let last_ids = (id(), id());
    (btree_map(id(), fields, 0..150), last_ids, any::<u32>(), vec(group(), 0..3), proptest::option::of(idempotency()))
        .prop_map(|(entries, (last_id, max_deleted_id), extra, mut groups, idempotency)| {
            groups.sort_by(|a, b| a.name.cmp(&b.name));
            groups.dedup_by(|a, b| a.name == b.name);
            let entries: Vec<_> = entries.into_iter().collect();
            let last_id = entries.last().map_or(last_id, |(last, _)| last_id.max(*last));
            let entries_added = entries.len() as u64 + u64::from(extra);
            RdbStream { entries, meta: RdbStreamMeta { last_id, max_deleted_id, entries_added, groups, idempotency } }
        })
}

fn value() -> impl Strategy<Value = RdbValue> {
    let expiry = || proptest::option::of(0..i64::MAX as u64);
    let plain = vec((bytes(), bytes()), 1..40);
    prop_oneof![
        bytes().prop_map(RdbValue::String),
        vec(bytes(), 1..60).prop_map(RdbValue::List),
        btree_set(bytes(), 1..40).prop_map(|members| RdbValue::Set(members.into_iter().collect())),
        btree_set(any::<i64>(), 1..40)
            .prop_map(|members| RdbValue::Set(members.iter().map(|n| n.to_string().into_bytes()).collect())),
        btree_map(bytes(), score(), 1..40).prop_map(|members| RdbValue::Zset(members.into_iter().collect())),
        plain.prop_map(|mut pairs| {
            pairs.sort();
            pairs.dedup_by(|a, b| a.0 == b.0);
            RdbValue::Hash(pairs.into_iter().map(|(field, value)| (field, value, None)).collect())
        }),
        btree_map(bytes(), (bytes(), expiry()), 1..40).prop_map(|fields| {
            RdbValue::Hash(fields.into_iter().map(|(field, (value, expiry))| (field, value, expiry)).collect())
        }),
        stream().prop_map(RdbValue::Stream),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(value in value()) {
        prop_assert_eq!(decode_dump(&encode_dump(&value)).map(RdbValue::sorted), Ok(value.sorted()));
    }
}
