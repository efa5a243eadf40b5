//! Golden payloads of Redis 7.0, Redis 8.0 and Valkey 9.1, and payloads that must be refused.

use std::fmt::Write;
use std::path::PathBuf;

use super::super::packed::{ListpackWriter, intset};
use super::super::{RdbPending, RdbStream, RdbType, RdbValue, decode_dump, encode_dump};
use super::*;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/rdb").join(name);
    std::fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn golden_list() -> Vec<(String, String)> {
    let list = String::from_utf8(golden("list.txt")).unwrap();
    list.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, what)| (name.into(), what.into())).collect()
}

/// Bytes as `list.txt` shows them.
fn shown(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\=,@{}[]|".contains(&byte);
    bytes.iter().map(|&byte| if plain(byte) { char::from(byte).into() } else { format!("\\x{byte:02x}") }).collect()
}

/// A value as `list.txt` shows it.
fn described(value: &RdbValue) -> String {
    let mut items: Vec<(&[u8], String)> = match value {
        RdbValue::String(bytes) => return format!("string {}", shown(bytes)),
        RdbValue::Stream(stream) => return described_stream(stream),
        RdbValue::List(items) => items.iter().map(|item| (&[][..], shown(item))).collect(),
        RdbValue::Set(members) => members.iter().map(|member| (member.as_slice(), shown(member))).collect(),
        RdbValue::Zset(members) => members
            .iter()
            .map(|(member, score)| (member.as_slice(), format!("{}={:016x}", shown(member), score.to_bits())))
            .collect(),
        RdbValue::Hash(fields) => fields
            .iter()
            .map(|(field, value, expiry)| {
                let expiry = expiry.map_or(String::new(), |time| format!("@{time}"));
                (field.as_slice(), format!("{}={}{expiry}", shown(field), shown(value)))
            })
            .collect(),
    };
    items.sort_by_key(|(name, _)| *name);
    let kind = match value {
        RdbValue::List(_) => "list",
        RdbValue::Set(_) => "set",
        RdbValue::Zset(_) => "zset",
        _ => "hash",
    };
    let items: Vec<String> = items.into_iter().map(|(_, text)| text).collect();
    format!("{kind} {}", items.join(" "))
}

fn described_stream(stream: &RdbStream) -> String {
    let id = |(ms, sequence): (u64, u64)| format!("{ms}-{sequence}");
    let or_dash = |number: Option<u64>| number.map_or("-".to_string(), |number| number.to_string());
    let meta = &stream.meta;
    let (last, deleted) = (id(meta.last_id), id(meta.max_deleted_id));
    let mut text = format!("stream last={last} deleted={deleted} added={}", meta.entries_added);
    for (entry, fields) in &stream.entries {
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", shown(name), shown(value))).collect();
        write!(text, " {}{{{}}}", id(*entry), fields.join(",")).unwrap();
    }
    for group in &meta.groups {
        let delivered =
            |entry: &RdbPending| format!("{}@{}*{}", id(entry.id), entry.delivery_time_ms, entry.delivery_count);
        let pel: Vec<String> =
            group.pel.iter().map(|entry| format!("{}:{}", delivered(entry), entry.consumer)).collect();
        let consumers: Vec<String> = group
            .consumers
            .iter()
            .map(|one| format!("{}@{}@{}", shown(&one.name), one.seen_time_ms, or_dash(one.active_time_ms)))
            .collect();
        let (last, read) = (id(group.last_id), or_dash(group.entries_read));
        write!(text, " group={},{last},{read}", shown(&group.name)).unwrap();
        write!(text, "[{}][{}]", pel.join(","), consumers.join(",")).unwrap();
        for entry in &group.released {
            write!(text, " released={}", delivered(entry)).unwrap();
        }
    }
    text
}

#[test]
fn golden_payloads_hold_what_their_servers_said() {
    let list = golden_list();
    assert!(list.len() > 100);
    for (name, expected) in list {
        let value = decode_dump(&golden(&format!("{name}.bin"))).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let text = described(&value);
        let digest = format!("crc64={:016x}", footer::crc64(text.as_bytes()));
        match expected.split_once(" crc64=") {
            Some((kind, crc)) => {
                assert_eq!((text.split(' ').next(), digest), (Some(kind), format!("crc64={crc}")), "{name}")
            }
            None => assert_eq!(text, expected, "{name}"),
        }
        assert_eq!(
            decode_dump(&encode_dump(&value)).map(|again| again.without_what_is_not_written()),
            Ok(value.without_what_is_not_written()),
            "{name}"
        );
    }
}

impl RdbValue {
    /// Sorts what has no order, and drops what Redis 7.0 cannot store.
    fn without_what_is_not_written(mut self) -> Self {
        match &mut self {
            Self::Set(members) => members.sort(),
            Self::Hash(fields) => fields.sort(),
            Self::Zset(members) => members.sort_by(|a, b| a.0.cmp(&b.0)),
            Self::Stream(stream) => {
                for group in &mut stream.meta.groups {
                    // Its place means nothing.
                    group.consumers.iter_mut().for_each(|one| one.active_time_ms = None);
                }
            }
            Self::String(_) | Self::List(_) => {}
        }
        self
    }
}

/// A payload with a correct footer: only its value can be wrong.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut payload = body.to_vec();
    footer::append(&mut payload, 15);
    payload
}

fn refused(body: &[u8]) -> &'static str {
    match decode_dump(&sealed(body)) {
        Err(RdbError::Format { what, at }) => {
            assert!(at <= body.len());
            what
        }
        other => panic!("{body:02x?}: {other:?}"),
    }
}

/// A type and one string.
fn of_blob(kind: u8, blob: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, 0x80];
    body.extend_from_slice(&(blob.len() as u32).to_be_bytes());
    body.extend_from_slice(blob);
    body
}

fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut listpack = ListpackWriter::new();
    elements.iter().for_each(|element| listpack.push(element));
    listpack.finish()
}

#[test]
fn the_errors_are_those_of_restore() {
    assert_eq!(decode_dump(b"abc").unwrap_err().to_string(), "DUMP payload version or checksum are wrong");
    assert_eq!(decode_dump(&sealed(b"")).unwrap_err().to_string(), "Bad data format");
}

#[test]
fn every_cut_of_a_golden_payload_is_refused() {
    for (name, _) in golden_list() {
        let payload = golden(&format!("{name}.bin"));
        let body = &payload[..payload.len() - footer::FOOTER];
        let version = u16::from_le_bytes([payload[body.len()], payload[body.len() + 1]]);
        for cut in (0..body.len()).filter(|cut| *cut < 200 || cut % 97 == 0) {
            let mut cut_payload = body[..cut].to_vec();
            footer::append(&mut cut_payload, version);
            assert!(matches!(decode_dump(&cut_payload), Err(RdbError::Format { .. })), "{name} {cut}");
        }
        let mut longer = body.to_vec();
        longer.push(0);
        footer::append(&mut longer, version);
        assert!(matches!(decode_dump(&longer), Err(RdbError::Format { .. })), "{name}");
    }
}

#[test]
fn lengths_beyond_the_payload_allocate_nothing() {
    let huge: &[&[u8]] = &[&[0x80, 0xFF, 0xFF, 0xFF, 0xFF], &[0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]];
    for kind in 0..=30 {
        for length in huge {
            let mut body = vec![kind];
            if matches!(kind, 24 | 25) {
                body.extend_from_slice(&[0; 8]);
            }
            body.extend_from_slice(length);
            refused(&body);
        }
    }
    // Nine compressed bytes that claim to be 4 GiB.
    refused(&[0, 0xC3, 9, 0x80, 0xFF, 0xFF, 0xFF, 0xFF, 1, b'x', b'x', 0xE0, 57, 0, 1, b'x', b'x']);
}

#[test]
fn unknown_encodings_are_refused() {
    assert_eq!(refused(&[0, 0x82, 0, 0, 0, 0]), "unknown form of a length");
    assert_eq!(refused(&[0, 0xC4]), "unknown encoding of a string");
    assert_eq!(refused(&[1, 0xC0, 1]), "a special encoding in place of a length");
    for kind in [6, 7, 8, 28, 29, 30, 31, 32, 33, 242, 255] {
        assert_eq!(refused(&[kind, 0]), "unknown type", "{kind}");
    }
    assert_eq!(refused(&[18, 1, 3, 1, b'a']), "unknown kind of a list's node");
}

#[test]
fn a_type_means_what_its_dialect_says() {
    let valkey = golden("valkey-9.1-hash-ttl.bin");
    let mut as_redis = valkey[..valkey.len() - footer::FOOTER].to_vec();
    assert_eq!(as_redis[0], 22);
    footer::append(&mut as_redis, 12);
    assert!(decode_dump(&as_redis).is_err());
    for kind in 23..=27 {
        let mut payload = vec![kind, 0];
        footer::append(&mut payload, 80);
        let refusal = decode_dump(&payload);
        assert_eq!(refusal, Err(RdbError::Format { at: 1, what: "unknown type" }), "{kind}");
    }
}

#[test]
fn empty_collections_are_refused() {
    for kind in [1, 2, 3, 4, 5, 14, 18, 22] {
        assert_eq!(refused(&[kind, 0]), "an empty collection", "{kind}");
    }
    let empty_ziplist = [11, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0xFF];
    for kind in [10, 12, 13] {
        assert_eq!(refused(&of_blob(kind, &empty_ziplist)), "an empty collection", "{kind}");
    }
    for kind in [16, 17, 20, 23] {
        assert_eq!(refused(&of_blob(kind, &listpack(&[]))), "an empty collection", "{kind}");
    }
    assert_eq!(refused(&of_blob(9, &[0, 0xFF])), "an empty collection");
    assert_eq!(refused(&of_blob(11, &intset(&[]))), "an empty collection");
}

#[test]
fn members_that_stand_twice_are_refused() {
    assert_eq!(refused(b"\x02\x02\x01a\x01a"), TWICE);
    assert_eq!(refused(b"\x02\x02\x011\xC0\x01"), TWICE, "an integer and its text are one member");
    assert_eq!(refused(b"\x04\x02\x01a\x011\x01a\x012"), TWICE);
    assert_eq!(refused(b"\x03\x02\x01a\x011\x01a\x012"), TWICE);
    assert_eq!(refused(&of_blob(20, &listpack(&[b"a", b"b", b"a"]))), TWICE);
    assert_eq!(refused(&of_blob(16, &listpack(&[b"a", b"1", b"a", b"2"]))), TWICE);
    assert_eq!(refused(&of_blob(17, &listpack(&[b"a", b"1", b"a", b"2"]))), TWICE);
    assert_eq!(refused(&of_blob(11, &intset(&[1, 1]))), "an intset is out of order");
    assert_eq!(refused(&of_blob(11, &intset(&[2, 1]))), "an intset is out of order");
}

#[test]
fn scores_are_numbers() {
    assert_eq!(refused(b"\x03\x01\x01a\xFD"), "a score is NaN");
    assert_eq!(refused(b"\x03\x01\x01a\x03nan"), "a score is no number");
    assert_eq!(refused(b"\x03\x01\x01a\x041.5x"), "a score is no number");
    let mut nan = b"\x05\x01\x01a".to_vec();
    nan.extend_from_slice(&f64::NAN.to_le_bytes());
    assert_eq!(refused(&nan), "a score is NaN");
    for text in [&b"nan"[..], b"", b"x", b" 1"] {
        assert_eq!(refused(&of_blob(17, &listpack(&[b"a", text]))), "a score is no number");
    }
}

#[test]
fn items_are_whole() {
    assert_eq!(refused(&of_blob(16, &listpack(&[b"a"]))), UNEVEN);
    assert_eq!(refused(&of_blob(17, &listpack(&[b"a", b"1", b"b"]))), UNEVEN);
    assert_eq!(refused(&of_blob(23, &listpack(&[b"a", b"1"]))), UNEVEN);
    assert_eq!(refused(&of_blob(23, &listpack(&[b"a", b"1", b"x"]))), EXPIRY);
    assert_eq!(refused(&of_blob(23, &listpack(&[b"a", b"1", b"-1"]))), EXPIRY);
}

#[test]
fn expiries_that_overflow_are_refused() {
    let mut body = vec![24];
    body.extend_from_slice(&(i64::MAX - 1).to_le_bytes());
    body.extend_from_slice(b"\x01\x03\x01a\x011");
    assert_eq!(refused(&body), EXPIRY, "beyond 63 bits");
    body[1..9].copy_from_slice(&(-5_i64).to_le_bytes());
    assert_eq!(refused(&body), EXPIRY, "before 1970");
    body[1..9].copy_from_slice(&5_i64.to_le_bytes());
    let hash = RdbValue::Hash(vec![(b"a".to_vec(), b"1".to_vec(), Some(7))]);
    assert_eq!(decode_dump(&sealed(&body)), Ok(hash));
}

#[test]
fn written_types_are_pinned() {
    let all = [
        RdbType::String,
        RdbType::Set,
        RdbType::Hash,
        RdbType::Zset,
        RdbType::SetIntset,
        RdbType::HashListpack,
        RdbType::ZsetListpack,
        RdbType::List,
        RdbType::Stream,
        RdbType::HashVolatile,
    ];
    assert_eq!(all.map(|kind| kind as u8), [0, 2, 4, 5, 11, 16, 17, 18, 19, 24]);
    assert_eq!(all.map(RdbType::version), [10, 10, 10, 10, 10, 10, 10, 10, 10, 12]);
}
