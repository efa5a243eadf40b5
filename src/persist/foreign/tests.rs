//! Files made by hand: of every version, cut anywhere, with every bit flipped, with lengths that lie.

use std::io::{Cursor, Read};
use std::path::Path;

use super::rdb_writer::KeyFacts;
use super::*;
use crate::base::config::RdbVersionCheck;
use crate::persist::PersistError;
use crate::persist::rdb::footer::crc64;
use crate::persist::rdb::{RdbStream, RdbStreamMeta, RdbValue, decode_dump, encode_dump};

/// Database, key, value and expiry of all keys.
type Keys = Vec<(u32, Vec<u8>, RdbValue, Option<i64>)>;

fn source(bytes: &[u8]) -> Source {
    Source::new(Box::new(Cursor::new(bytes.to_vec())), Path::new("a.rdb"))
}

/// An RDB file of these parts, with its end and its checksum.
fn file(header: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.push(0xFF);
    let sum = crc64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn read_with(bytes: &[u8], skips_modules: bool) -> Result<(Keys, RdbFile), PersistError> {
    let mut file = RdbFile::open(source(bytes), skips_modules, RdbVersionCheck::Strict)?;
    let mut keys = Keys::new();
    while let Some(item) = file.next_item()? {
        if let RdbItem::Key(key) = item {
            let payload = key.payload(FileVersion::new(13).expect("it is known")).map_err(|what| key.error(&what))?;
            let value = decode_dump(&payload).map_err(|error| key.error(&error.to_string()))?;
            keys.push((key.db, key.name.to_vec(), value, key.expiry));
        }
    }
    Ok((keys, file))
}

fn read(bytes: &[u8]) -> Result<Keys, PersistError> {
    read_with(bytes, false).map(|(keys, _)| keys)
}

fn texts(items: &[&str]) -> Vec<Vec<u8>> {
    items.iter().map(|item| item.as_bytes().to_vec()).collect()
}

/// `a`, 7.
const ZIPLIST: &[u8] = b"\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf8\xff";

#[test]
fn the_types_of_old_versions_are_read() {
    let old: &[&[u8]] = &[
        b"\xfe\x00\xfb\x07\x02",
        b"\x01\x04list\x02\x01x\xc1\x39\x30",
        b"\xfd\x00\x10\x5e\x5f\x03\x04zset\x02\x01m\x032.5\x01n\xfe",
        b"\x09\x06zipmap\x07\x01\x01f\x01\x00v\xff",
        &[b"\x0a\x06ziplis", ZIPLIST].concat(),
        b"\xfe\x05\x0b\x03set\x0c\x02\0\0\0\x02\0\0\0\x01\0\x02\0",
        b"\xfc\x00\x70\x72\x4e\x2c\x1e\x00\x00\x00\x03str\xc3\x06\x0b\x01aa\xe0\x00\x00",
        &[b"\x0d\x04hash", ZIPLIST].concat(),
    ];
    for version in ["REDIS0006", "REDIS0007", "REDIS0008", "REDIS0009"] {
        let keys = read(&file(version, old)).unwrap_or_else(|error| panic!("{version}: {error}"));
        let zset = RdbValue::Zset(vec![(b"m".to_vec(), 2.5), (b"n".to_vec(), f64::INFINITY)]);
        let field = |name: &str, value: &str| RdbValue::Hash(vec![(name.into(), value.into(), None)]);
        assert_eq!(keys[0], (0, b"list".to_vec(), RdbValue::List(texts(&["x", "12345"])), None));
        assert_eq!(keys[1], (0, b"zset".to_vec(), zset, Some(1_600_000_000_000)));
        assert_eq!(keys[2], (0, b"zipmap".to_vec(), field("f", "v"), None));
        assert_eq!(keys[3], (0, b"ziplis".to_vec(), RdbValue::List(texts(&["a", "7"])), None));
        assert_eq!(keys[4], (5, b"set".to_vec(), RdbValue::Set(texts(&["1", "2"])), None));
        assert_eq!(keys[5].2, RdbValue::String(vec![b'a'; 11]));
        assert_eq!(keys[5].3, Some(0x1e2c_4e72_7000));
        assert_eq!(keys[6], (5, b"hash".to_vec(), field("a", "7"), None));
        assert_eq!(keys.len(), 7);
    }
}

/// A file of Redis and one of Valkey with every part that may stand in them.
fn samples() -> Vec<Vec<u8>> {
    let parts: &[&[u8]] = &[
        b"\xfa\x09redis-ver\x058.0.6",
        b"\xf5\x13#!lua name=l\nreturn",
        b"\xfe\x00\xfb\x05\x01\xf4\x07\x01\x00",
        b"\xf8\x40\xff\x00\x01a\x01b",
        b"\xf9\x07\x0e\x01q\x01",
        ZIPLIST,
        b"\xfc\xff\xff\xff\xff\xff\x1e\x00\x00\x02\x01s\x02\x01x\x01y",
        b"\x05\x01z\x01\x01m\0\0\0\0\0\0\xf0\x3f",
        b"\x12\x01l\x02\x01\x03abc\x02\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
    ];
    let volatile = b"\x18\x01h\xe8\x03\0\0\0\0\0\0\x02\x01\x01f\x01v\0\x01g\x01w".to_vec();
    let of_valkey = b"\xf3\x03job\x01\x00\x05\x16\x01h\x01\x01f\x01v\xe8\x03\0\0\0\0\0\0".to_vec();
    let with = |header: &str, last: &[u8]| {
        let all: Vec<&[u8]> = parts.iter().copied().chain([last]).collect();
        file(header, &all)
    };
    vec![with("REDIS0012", &volatile), with("VALKEY080", &of_valkey), with("VALKEY081", &of_valkey)]
}

#[test]
fn every_part_of_a_new_file_is_read() {
    for sample in samples() {
        let keys = read(&sample).unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<_> = keys.iter().map(|key| key.1[0]).collect();
        assert_eq!(names, b"aqszlh");
        let RdbValue::Hash(fields) = &keys[5].2 else { panic!("{:?}", keys[5]) };
        assert_eq!(fields[0], (b"f".to_vec(), b"v".to_vec(), Some(1000)));
    }
}

#[test]
fn a_file_that_is_cut_anywhere_or_has_any_bit_flipped_is_an_error_that_names_it() {
    for sample in samples() {
        for len in 0..sample.len() {
            let error = read(&sample[..len]).err().unwrap_or_else(|| panic!("cut at {len}"));
            assert!(error.to_string().contains("a.rdb"), "{error}");
        }
        for at in 0..sample.len() * 8 {
            let mut flipped = sample.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let error = read(&flipped).err().unwrap_or_else(|| panic!("bit {at}"));
            assert!(error.to_string().contains("a.rdb"), "{error}");
            // Without the checksum, whatever comes is an end.
            let end = flipped.len() - 8;
            flipped[end..].fill(0);
            let _ = read_with(&flipped, true);
        }
    }
}

/// Gives what a file declares, forever short of it.
struct Counted {
    head: Cursor<Vec<u8>>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.head.read(into)
    }
}

#[test]
fn no_length_makes_room_before_its_bytes_are_there() {
    const HUGE: &[u8] = b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff";
    for (kind, more) in [(0u8, &b""[..]), (1, b""), (4, b""), (5, b""), (14, b""), (18, b""), (21, b""), (0, b"abc")] {
        let bytes = [b"REDIS0011", &[kind][..], b"\x03key", HUGE, more].concat();
        let head = Cursor::new(bytes);
        let mut file =
            RdbFile::open(Source::new(Box::new(Counted { head }), Path::new("a.rdb")), false, RdbVersionCheck::Strict)
                .expect("a head");
        let error = file.next_item().expect_err("it is short").to_string();
        assert!(error.contains("at offset") && error.contains("too early"), "{error}");
        assert!(file.room() < 64, "{} bytes for type {kind}", file.room());
    }
    let mut aof = AofFile::new(source(b"*1000000000\r\n$1000000000000\r\nab"));
    assert!(matches!(aof.next_item(), Ok(AofItem::Torn(0))));
    assert!(aof.room() < 256, "{}", aof.room());
}

#[test]
fn modules_are_refused_by_name_or_left_out() {
    // ReJSON-RL, version 3.
    let number = b"\x81\x45\xe8\x8a\xce\x3e\x44\xbc\x03";
    let marks = b"\x05\x02{}\x02\x07\x04\0\0\0\0\0\0\0\0\x03\0\0\0\0\0";
    let module = [b"\x07\x03doc", &number[..], marks].concat();
    let aux = [b"\xf7", &number[..], b"\x02\x01", marks].concat();
    let bytes = file("REDIS0011", &[&aux, b"\x00\x01a\x01b", &module, b"\x00\x01c\x01d"]);
    let error = read(&bytes).expect_err("a module").to_string();
    assert!(error.contains("module"), "{error}");
    let (keys, file) = read_with(&bytes, true).expect("they are left out");
    assert_eq!(keys.len(), 2);
    assert_eq!(file.skipped().values().sum::<u64>(), 2);
}

#[test]
fn unknown_versions_and_other_files_are_refused() {
    for header in ["REDIS0000", "REDIS0016", "REDIS0080", "VALKEY012", "VALKEY082", "REDISabcd", "NOREDIS00"] {
        assert!(read(&file(header, &[])).is_err(), "{header}");
    }
}

fn values() -> Vec<RdbValue> {
    let stream = RdbStream {
        entries: vec![((1, 1), vec![(b"f"[..].into(), b"v".to_vec())])],
        meta: RdbStreamMeta { last_id: (5, 5), max_deleted_id: (3, 3), entries_added: 4, ..RdbStreamMeta::default() },
    };
    vec![
        RdbValue::String(b"12345".to_vec()),
        RdbValue::String(vec![b'x'; 5000]),
        RdbValue::List(texts(&["a", "", "7"])),
        RdbValue::Set(texts(&["1", "2"])),
        RdbValue::Set(texts(&["b", "c"])),
        RdbValue::Hash(vec![(b"f".to_vec(), b"v".to_vec(), None)]),
        RdbValue::Hash(vec![
            (b"f".to_vec(), b"v".to_vec(), Some(33_177_117_420_000)),
            (b"g".to_vec(), b"w".to_vec(), None),
        ]),
        RdbValue::Zset(vec![(b"m".to_vec(), 0.1), (b"n".to_vec(), f64::NEG_INFINITY)]),
        RdbValue::Stream(stream),
    ]
}

#[test]
fn what_is_written_is_read_again_in_every_version_that_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    for version in
        [None, Some(6), Some(7), Some(8), Some(9), Some(10), Some(11), Some(12), Some(13), Some(80), Some(81)]
    {
        let path = dir.path().join(format!("{version:?}"));
        let open = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
        let version = version.map(|number| FileVersion::new(number).expect("it is known"));
        let mut writer = RdbFileWriter::new(open, version, &[("redis-ver", "7.0.0")]).expect("it is written");
        let mut expected = Vec::new();
        for (at, value) in values().into_iter().enumerate() {
            let name = format!("key{at}");
            let facts =
                KeyFacts { expiry: (at == 1).then_some(33_177_117_420_000), idle_seconds: Some(7), frequency: None };
            let written = writer.key((at % 2) as u32, name.as_bytes(), facts, &encode_dump(&value));
            let number = version.map_or(12, FileVersion::number);
            let is_lacking = match &value {
                RdbValue::Stream(_) => number < 10,
                RdbValue::Hash(fields) => number < 12 && fields.iter().any(|field| field.2.is_some()),
                _ => false,
            };
            assert_eq!(written.is_err(), is_lacking, "{version:?} {value:?}");
            if !is_lacking {
                expected.push(((at % 2) as u32, name.into_bytes(), value.sorted(), facts.expiry));
            }
        }
        let (_, became) = writer.finish().expect("it is written");
        assert_eq!(became.number(), version.map_or(12, FileVersion::number));
        let bytes = std::fs::read(&path).expect("it is there");
        let keys = read(&bytes).unwrap_or_else(|error| panic!("{version:?}: {error}"));
        let keys: Keys = keys.into_iter().map(|(db, name, value, expiry)| (db, name, value.sorted(), expiry)).collect();
        assert_eq!(keys, expected, "{version:?}");
    }
}

#[test]
fn commands_are_read_around_annotations_and_a_torn_end_is_told() {
    let bytes = b"#TS:17\r\n*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n#TS:18\r\n*1\r\n$4\r\nEXEC\r\n";
    let mut aof = AofFile::new(source(bytes));
    let mut words = Vec::new();
    while let AofItem::Command(command) = aof.next_item().expect("sound") {
        words.push(command.args().from(0).map(<[u8]>::to_vec).collect::<Vec<_>>());
    }
    assert_eq!(words, [vec![b"GET".to_vec(), b"a\r\n".to_vec()], vec![b"EXEC".to_vec()]]);
    for len in 1..bytes.len() {
        let mut aof = AofFile::new(source(&bytes[..len]));
        let last = loop {
            match aof.next_item().expect("a torn end is no damage") {
                AofItem::Command(_) => {}
                AofItem::Torn(offset) => break Some(offset),
                AofItem::End => break None,
            }
        };
        let whole = [8, 30, 38].contains(&len);
        assert_eq!(last.is_none(), whole, "{len}");
    }
    for wrong in
        [&b"GET a\r\n"[..], b"*0\r\n", b"*x\r\n", b"*1\r\n$x\r\n", b"*1\r\n+1\r\n", b"*1\r\n$1\r\nab\r\n", b"*-1\r\n"]
    {
        assert!(AofFile::new(source(wrong)).next_item().is_err(), "{}", wrong.escape_ascii());
    }
}
