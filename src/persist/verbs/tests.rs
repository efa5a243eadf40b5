//! Tests of the verbs: the list, the bytes of each, and what becomes of damaged ones.

use proptest::prelude::*;

use super::*;
use crate::persist::record::EncodedVerb;

/// Codes, names and meanings never change; more may come.
#[test]
fn the_list_is_pinned() {
    let list: Vec<(u8, &str)> = Code::ALL.iter().map(|(code, name, _)| (*code as u8, *name)).collect();
    assert_eq!(
        list,
        [
            (1, "SET"),
            (2, "DEL"),
            (3, "PEXPIREAT"),
            (4, "PERSIST"),
            (5, "BLESS"),
            (6, "UNBLESS"),
            (16, "APPEND"),
            (17, "SETRANGE"),
            (18, "PFRAISE"),
            (32, "LPUSH"),
            (33, "RPUSH"),
            (34, "LPOP"),
            (35, "RPOP"),
            (36, "LSET"),
            (37, "LINSERT"),
            (38, "LREM"),
            (39, "LTRIM"),
            (48, "HSET"),
            (49, "HDEL"),
            (50, "HPEXPIREAT"),
            (51, "HPERSIST"),
            (64, "SADD"),
            (65, "SREM"),
            (80, "ZADD"),
            (81, "ZREM"),
            (82, "ZREMRANKS"),
            (96, "XADD"),
            (97, "XDEL"),
            (98, "XTRIM"),
            (99, "XTRIMACKED"),
            (100, "XSETID"),
            (101, "XFORGET"),
            (102, "XFORGETUPTO"),
            (103, "XIDMPRECORD"),
            (104, "XCFGSET"),
            (112, "XGROUPCREATE"),
            (113, "XGROUPSETID"),
            (114, "XGROUPDESTROY"),
            (115, "XGROUPDELCONSUMER"),
            (116, "XDELIVER"),
            (117, "XACK"),
            (118, "XNACK"),
            (240, "FLUSHALL"),
            (241, "FLUSHDB"),
            (242, "SWAPDB"),
            (243, "TRANSFER"),
            (244, "POPULATE"),
            (245, "FUNCTIONLOAD"),
            (246, "FUNCTIONDELETE"),
            (247, "FUNCTIONFLUSH"),
            (248, "BURY"),
            (249, "UNBURY"),
            (250, "FORGETBURIED"),
        ]
    );
    // A change of a meaning changes this number: the verb needs a successor then, unless only words have changed.
    let meanings = Code::ALL.iter().map(|(_, _, meaning)| *meaning).collect::<Vec<_>>().join("\n");
    assert_eq!(crc32fast::hash(meanings.as_bytes()), MEANINGS, "{meanings}");
    for byte in 0..=u8::MAX {
        assert_eq!(
            Code::of(byte).map(|code| code as u8),
            list.iter().map(|(code, _)| *code).find(|code| *code == byte)
        );
    }
    assert!(Code::ALL.iter().all(|(code, ..)| code.is_barrier() == (*code as u8 >= 240)));
}

const MEANINGS: u32 = 1_815_299_692;

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId::new(ms, seq)
}

/// One body of each verb, some of several kinds, as `format.rs` draws them.
pub(crate) fn drawn() -> Vec<(Code, &'static [u8], &'static str)> {
    vec![
        (Code::Set, b"\x01value", "SET k value"),
        (Code::Set, b"\x81\xE8\x07v", "SET k v PXAT 1000"),
        (Code::Set, b"\x02\x53", "SET k -42"),
        (Code::Set, b"\x82\x05\x02", "SET k 1 PXAT 5"),
        (Code::Set, b"\x05abc", "STATE k 5 abc"),
        (Code::Delete, b"", "DEL k"),
        (Code::ExpireAt, b"\xE8\x07", "PEXPIREAT k 1000"),
        (Code::Persist, b"", "PERSIST k"),
        (Code::Bless, b"", "BLESS k"),
        (Code::Unbless, b"", "UNBLESS k"),
        (Code::Append, b"more", "APPEND k more"),
        (Code::SetRange, b"\x05part", "SETRANGE k 5 part"),
        (Code::SetRange, b"\x05", "SETRANGE k 5 "),
        (Code::RaiseRegisters, b"\xFF\x7F\x3F\x00\x01", "PFRAISE k 16383:63 0:1"),
        (Code::PushLeft, b"\x01a\x00", "LPUSH k a "),
        (Code::PushRight, b"\x02bc", "RPUSH k bc"),
        (Code::PopLeft, b"\x03", "LPOP k 3"),
        (Code::PopRight, b"\x80\x01", "RPOP k 128"),
        (Code::ListSet, b"\x00e", "LSET k 0 e"),
        (Code::ListInsert, b"\x09e", "LINSERT k 9 e"),
        (Code::ListRemove, b"\x00\x02e", "LREM k LEFT 2 e"),
        (Code::ListRemove, b"\x01\x02", "LREM k RIGHT 2 "),
        (Code::ListKeep, b"\x01\x02", "LTRIM k 1 2"),
        (Code::HashSet, b"\x00\x01f\x01v\x00\x00", "HSET k f v  "),
        (Code::HashSet, b"\x01\x01f\x01v", "HSET k KEEPTTL f v"),
        (Code::HashSet, b"\x02\x07\x01f\x01v", "HSET k PXAT 7 f v"),
        (Code::HashDelete, b"\x01f\x01g", "HDEL k f g"),
        (Code::HashExpireAt, b"\x07\x01f", "HPEXPIREAT k 7 f"),
        (Code::HashPersist, b"\x01f", "HPERSIST k f"),
        (Code::SetAdd, b"\x01m", "SADD k m"),
        (Code::SetRemove, b"\x01m\x01n", "SREM k m n"),
        (Code::ZsetSet, b"\0\0\0\0\0\0\xF0\x3F\x01m\0\0\0\0\0\0\xF0\xFF\x00", "ZADD k 1 m -inf "),
        (Code::ZsetRemove, b"\x01m", "ZREM k m"),
        (Code::ZsetRemoveRanks, b"\x01\x02", "ZREMRANKS k 1 2"),
        (Code::StreamAdd, b"\x05\x01\x01f\x01v", "XADD k 5-1 f v"),
        (Code::StreamDelete, b"\x0A\x01\x01\x00", "XDEL k 5-1 4-0"),
        (Code::StreamTrim, b"\x03", "XTRIM k 3"),
        (Code::StreamTrimAcked, b"\x05\x01", "XTRIMACKED k 5-1"),
        (Code::StreamSetIds, b"\x05\x01\x03\x00\x09", "XSETID k 5-1 3-0 9"),
        (Code::StreamForget, b"\x0A\x01", "XFORGET k 5-1"),
        (Code::StreamForgetUpTo, b"\x05\x01", "XFORGETUPTO k 5-1"),
        (Code::StreamRemember, b"\x02\x01p\x03iid\x05\x01\x14", "XIDMPRECORD k 2 p iid 5-1 10"),
        (Code::StreamWindow, b"\x64\x90\x4E", "XCFGSET k 100 10000"),
        (Code::GroupCreate, b"\x01g\x05\x01\x01\x09", "XGROUPCREATE k g 5-1 9"),
        (Code::GroupSet, b"\x01g\x05\x01\x00", "XGROUPSETID k g 5-1 ?"),
        (Code::GroupDestroy, b"\x01g", "XGROUPDESTROY k g"),
        (Code::GroupDropConsumer, b"\x01g\x01c", "XGROUPDELCONSUMER k g c"),
        (
            Code::GroupDeliver,
            b"\x01g\x01c\x05\x01\x01\x09\x14\x01\x02\x0A\x01\x01\x01\x02\x00\x02\x03\x0C\x00",
            "XDELIVER k g c 5-1 9 10 -1 5-1@9x1 6-0@10x3 -6-0",
        ),
        (Code::GroupDeliver, b"\x01g\x01c\x05\x01\x00\x14\x14\x00", "XDELIVER k g c 5-1 ? 10 10"),
        (Code::GroupAcknowledge, b"\x01g\x0A\x01", "XACK k g 5-1"),
        (Code::GroupRelease, b"\x01g\x0A\x01\x02\x01\x00\x00", "XNACK k g 5-1x2 4-0x0"),
        (Code::FlushAll, b"", "FLUSHALL"),
        (Code::FlushDb, b"", "FLUSHDB"),
        (Code::SwapDbs, b"\x00\x0F", "SWAPDB 0 15"),
        (Code::Transfer, b"\x00\x01a\x02b", "TRANSFER MOVE a 2 b"),
        (Code::Transfer, b"\x01\x01a\x00b", "TRANSFER COPY a 0 b"),
        (Code::Populate, b"\x05\x00key", "POPULATE 5 0 key"),
        (Code::SetLibrary, b"\x03lib#!lua", "FUNCTIONLOAD lib #!lua"),
        (Code::DropLibrary, b"lib", "FUNCTIONDELETE lib"),
        (Code::DropLibraries, b"", "FUNCTIONFLUSH"),
        (Code::Bury, b"\x01\x07\x05\x80\x01", "BURY ALL 7 5 128"),
        (Code::Bury, b"\x00\x01\x05\x06", "BURY ONE 1 5 6"),
        (Code::Unbury, b"\x00\x07", "UNBURY 7 MERGE"),
        (Code::Unbury, b"\x01\x07", "UNBURY 7 REPLACE"),
        (Code::ForgetBuried, b"\x07", "FORGETBURIED 7"),
    ]
}

fn line(verb: &Verb<'_>) -> String {
    let words = verb.words(b"k");
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
}

/// The body that is written for a verb.
fn rewritten(verb: &Verb<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match verb.code().is_barrier() {
        true => {
            verb.barrier(BarrierWriter::new(&mut out, 3)).expect("a barrier");
            assert_eq!((out[0], usize::from(out[1])), (5, out.len() - 2));
            assert_eq!((out[2], out[3]), (3, verb.code() as u8));
            out.split_off(4)
        }
        false => {
            verb.record(RecordWriter::new(&mut out, 7, 8, 9, b"k")).expect("a record");
            let encoded = EncodedVerb::of_record(&out).expect("a record of one verb");
            assert_eq!((encoded.code, encoded.key), (verb.code(), &b"k"[..]));
            encoded.body.to_vec()
        }
    }
}

#[test]
fn each_verb_has_the_bytes_that_are_drawn_and_is_written_so() {
    let mut seen = Vec::new();
    for (code, body, words) in drawn() {
        let verb = Verb::decode(code, body).unwrap_or_else(|| panic!("{code:?} {body:?}"));
        assert_eq!((verb.code(), line(&verb).as_str()), (code, words));
        assert_eq!(rewritten(&verb), body, "{words}");
        seen.push(code);
    }
    seen.dedup();
    assert_eq!(seen, Code::ALL.iter().map(|(code, ..)| *code).collect::<Vec<_>>(), "each is drawn");
}

#[test]
fn what_is_not_drawn_is_no_verb() {
    for (code, body) in [
        (Code::Set, &b""[..]),
        (Code::Set, b"\x00abc"),
        (Code::Set, b"\x21abc"),
        (Code::Set, b"\x41abc"),
        (Code::Set, b"\x02\x02x"),
        (Code::Set, b"\x81"),
        (Code::Delete, b"x"),
        (Code::ExpireAt, b"\x01\x01"),
        (Code::ExpireAt, b"\x80\x80\x80\x80\x80\x80\x80\x02"),
        (Code::PopLeft, b""),
        (Code::PopLeft, b"\x80\x00"),
        (Code::PushLeft, b""),
        (Code::PushLeft, b"\x05a"),
        (Code::RaiseRegisters, b"\x80\x80\x01\x01"),
        (Code::RaiseRegisters, b"\x01\x40"),
        (Code::ListRemove, b"\x02\x01e"),
        (Code::HashSet, b"\x03\x01f\x01v"),
        (Code::HashSet, b"\x02\x00\x01f\x01v"),
        (Code::HashSet, b"\x00\x01f"),
        (Code::HashExpireAt, b"\x00\x01f"),
        (Code::ZsetSet, b"\0\0\0\0\0\0\xF8\x7F\x01m"),
        (Code::StreamAdd, b"\x05\x01\x01f"),
        (Code::StreamDelete, b""),
        (Code::StreamWindow, b"\x00\x64"),
        (Code::StreamWindow, b"\x64\x91\x4E"),
        (Code::GroupCreate, b"\x01g\x05\x01\x02"),
        (Code::GroupDeliver, b"\x01g\x01c\x05\x01\x00\x14\x14\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
        (Code::GroupRelease, b"\x01g"),
        (Code::GroupRelease, b"\x01g\x0A\x01"),
        (Code::SwapDbs, b"\x00"),
        (Code::SwapDbs, b"\x00\x80\x80\x80\x80\x10"),
        (Code::Transfer, b"\x02\x01a\x00b"),
    ] {
        assert_eq!(Verb::decode(code, body), None, "{code:?} {}", body.escape_ascii());
    }
}

/// Whatever the bytes, a verb comes out of them that is written as these bytes, or none.
fn take(code: Code, body: &[u8]) {
    if let Some(verb) = Verb::decode(code, body) {
        assert_eq!(verb.code(), code);
        assert_eq!(rewritten(&verb), body, "{code:?} {}", body.escape_ascii());
        line(&verb);
    }
}

#[test]
fn every_cut_and_every_flip_of_a_verb_is_a_verb_or_none() {
    for (code, body, _) in drawn() {
        for end in 0..body.len() {
            take(code, &body[..end]);
            for bit in 0..8 {
                let mut flipped = body.to_vec();
                flipped[end] ^= 1 << bit;
                take(code, &flipped);
            }
        }
        for (other, ..) in Code::ALL {
            take(*other, body);
        }
    }
}

#[test]
fn a_record_has_its_length_in_front_however_long_it_is() {
    for len in [0, 1, 100, 113, 114, 115, 127, 128, 129, 16_000, 16_384, 70_000] {
        let value = vec![b'v'; len];
        let mut out = b"before".to_vec();
        RecordWriter::new(&mut out, 1, 2, 0, b"key").append(&value);
        let encoded = EncodedVerb::of_record(&out[6..]).expect("a record");
        assert_eq!(encoded.verb(), Verb::Append(&value));
        // Ids are of unknown length until they are written.
        let ids: Vec<StreamId> =
            (0..len as u64 / 2).map(|n| id(n * n * n, n)).chain([id(u64::MAX, u64::MAX)]).collect();
        let mut out = b"before".to_vec();
        RecordWriter::new(&mut out, 1, 2, 0, b"key").stream_delete(&ids);
        let encoded = EncodedVerb::of_record(&out[6..]).expect("a record");
        let Verb::StreamDelete(read) = encoded.verb() else { panic!("{encoded:?}") };
        assert!(read.eq(ids), "{len}");
    }
    let mut out = Vec::new();
    RecordWriter::new(&mut out, 1, 700, 0, b"a list of a million").push(End::Left, std::iter::once(&b"0123456789"[..]));
    assert_eq!(out.len(), 39, "a push costs what is pushed, and the key");
    RecordWriter::unwanted().append(b"nothing");
}

proptest! {
    #[test]
    fn any_bytes_are_a_verb_or_none(code in 0..Code::ALL.len(), body in prop::collection::vec(any::<u8>(), 0..60)) {
        take(Code::ALL[code].0, &body);
    }
}
