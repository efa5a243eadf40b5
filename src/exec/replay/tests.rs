//! Tests of replay: the effect of each verb, and refusals.

use super::*;
use crate::base::hash::HashSeed;
use crate::exec::testing::{Runner, dump};
use crate::persist::verbs::{Code, drawn};

const SEED: HashSeed = HashSeed(*b"a seed of replay");

/// A keyspace that a log has made, verb by verb.
struct Replayed {
    keyspace: Keyspace,
    replayer: Replayer,
}

impl Replayed {
    fn new() -> Replayed {
        Replayed { keyspace: Keyspace::new(16, SEED), replayer: Replayer::new(Limits::defaults(SEED)) }
    }

    /// Applies a verb whose body is given.
    fn apply(&mut self, key: &str, code: Code, body: &[u8]) -> Result<(), String> {
        let verb = Verb::decode(code, body).expect("a verb");
        replay_verb(&self.keyspace, &mut self.replayer, 0, key.as_bytes(), verb)
    }

    /// Applies the words that version 1 logged for a command.
    fn words(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        replay_words(&self.keyspace, &mut self.replayer, 0, &words)
    }

    /// One key of each type.
    fn filled() -> Replayed {
        let mut replayed = Replayed::new();
        for line in [
            "SET string v",
            "SET number 5",
            "RPUSH list a b c",
            "SADD set a b",
            "HSET hash f 1 g 2",
            "ZADD zset 1 a 2 b",
            "XADD stream 1-1 f v",
            "XGROUP CREATE stream g 0",
            "PFADD hll a",
        ] {
            assert_eq!(replayed.words(line), Ok(()), "{line}");
        }
        replayed
    }
}

#[test]
fn no_verb_panics_and_one_that_is_refused_changes_nothing() {
    for key in ["string", "number", "list", "set", "hash", "zset", "stream", "hll", "missing"] {
        for (code, body, words) in drawn() {
            if matches!(code, Code::FlushAll | Code::FlushDb | Code::Bury) {
                continue;
            }
            let mut replayed = Replayed::filled();
            let before = dump(&replayed.keyspace);
            if let Err(what) = replayed.apply(key, code, body) {
                assert!(!what.is_empty());
                assert_eq!(dump(&replayed.keyspace), before, "{words} on {key}: {what}");
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    const WRONG: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
    for (key, code, body, what) in [
        ("list", Code::Append, &b"x"[..], WRONG),
        ("string", Code::PushLeft, b"\x01a", WRONG),
        ("string", Code::HashSet, b"\x00\x01f\x01v", WRONG),
        ("hash", Code::SetAdd, b"\x01m", WRONG),
        ("set", Code::ZsetRemove, b"\x01m", WRONG),
        ("zset", Code::StreamTrim, b"\x01", WRONG),
        ("missing", Code::ExpireAt, b"\x05", "there is no such key"),
        ("missing", Code::Bless, b"", "there is no such key"),
        ("missing", Code::Append, b"x", "there is no such key"),
        ("missing", Code::StreamTrim, b"\x00", "there is no such key"),
        ("string", Code::RaiseRegisters, b"\x00\x01", "the string is no HyperLogLog"),
        ("list", Code::PopLeft, b"\x04", "the list does not have so many elements"),
        ("list", Code::ListSet, b"\x03x", "the list does not have so many elements"),
        ("list", Code::ListInsert, b"\x04x", "the list does not have so many elements"),
        ("list", Code::ListRemove, b"\x00\x02a", "the list does not have so many elements"),
        ("list", Code::ListKeep, b"\x01\x03", "the list does not have so many elements"),
        ("zset", Code::ZsetRemoveRanks, b"\x01\x02", "the sorted set does not have so many members"),
        ("stream", Code::StreamAdd, b"\x01\x01\x01f\x01v", "the entry's id is not above the last one"),
        ("stream", Code::StreamTrim, b"\x02", "the stream does not have so many entries"),
        ("stream", Code::StreamSetIds, b"\x01\x00\x00\x00\x00", "the last id is below that of an entry"),
        ("stream", Code::GroupCreate, b"\x01g\x00\x00\x00", "there is such a group already"),
        ("stream", Code::GroupSet, b"\x01h\x00\x00\x00", "there is no such group"),
        ("stream", Code::GroupAcknowledge, b"\x01h\x00\x00", "there is no such group"),
        ("k", Code::Set, b"\x1Fx", "a value of an unknown type"),
        ("k", Code::Set, b"\x05x", "a small collection is malformed"),
        ("", Code::SwapDbs, b"\x00\x10", "a database beyond the `databases` directive"),
        ("", Code::Transfer, b"\x00\x01a\x10b", "a database beyond the `databases` directive"),
        ("", Code::Transfer, b"\x00\x01a\x00b", "there is no source"),
        ("", Code::Unbury, b"\x00\x01", "there is no such flush"),
    ] {
        assert_eq!(Replayed::filled().apply(key, code, body), Err(what.to_owned()), "{code:?} of {key}");
    }
}

#[test]
fn a_record_of_another_shard_is_refused() {
    use crate::persist::record::{Items, put_epoch};
    use crate::persist::verbs::RecordWriter;
    let mut replayed = Replayed::new();
    let shard = replayed.keyspace.key(b"k").shard();
    let mut payload = Vec::new();
    put_epoch(&mut payload, 0);
    RecordWriter::new(&mut payload, shard ^ 1, 1, 0, b"k").delete();
    let (_, record) = Items::new(&payload).next().expect("one").expect("sound");
    let error = replay(&replayed.keyspace, &mut replayed.replayer, &record);
    assert_eq!(error, Err("DEL: a key of another shard".to_owned()));
}

#[test]
fn an_error_says_which_record_it_is() {
    use crate::persist::record::{Items, put_epoch};
    use crate::persist::verbs::RecordWriter;
    let mut replayed = Replayed::filled();
    let shard = replayed.keyspace.key(b"list").shard();
    let mut payload = Vec::new();
    put_epoch(&mut payload, 0);
    RecordWriter::new(&mut payload, shard, 77, 0, b"list").append(b"x");
    let (_, record) = Items::new(&payload).next().expect("one").expect("sound");
    let error = replay(&replayed.keyspace, &mut replayed.replayer, &record).expect_err("a list");
    assert!(error.starts_with(&format!("APPEND (shard {shard}, number 77): WRONGTYPE")), "{error}");
}

/// Every command that writes, and the ways in which each logs: a line for each, which changes something.
const LINES: &str = "SET s v|SET s v EX 100|SET s v KEEPTTL|SETEX s 10 v|PSETEX s 1000 v|SETNX new v|GETSET s w|\
    GETEX s EX 50|GETEX s PERSIST|BLESS SET s NO-EVICT|BLESS CLEAR s NO-EVICT|\
    MSET a 1 b 2|MSETNX c 1 d 2|SET s q IFNE x|MSETEX 2 e 1 f 2 EX 100|DELEX e IFEQ 1|DELIFEQ f 2|\
    APPEND s x|APPEND fresh x|SETRANGE s 5 y|INCR n|DECR n|INCRBY n 5|DECRBY n 2|\
    INCRBYFLOAT n 0.5|INCREX n BYFLOAT 1 EX 100|GETDEL new|SETBIT bits 70 1|\
    BITFIELD bits SET u8 0 7 INCRBY i5 100 3|BITOP NOT other bits|\
    PFADD hll a b|PFADD hll c|PFMERGE merged hll|PFDEBUG TODENSE hll|\
    RPUSH l a b c d e|LPUSH l z|LPUSHX l y|RPUSHX l x|LPOP l|RPOP l 2|LSET l 0 k|LINSERT l BEFORE k j|LREM l 1 a|\
    LTRIM l 0 1|LMOVE l m LEFT RIGHT|RPOPLPUSH m l|BLMOVE l m LEFT LEFT 0|BRPOPLPUSH m l 0|BLPOP l 0|BRPOP l 0|\
    RPUSH l a b|LMPOP 1 l LEFT|BLMPOP 0 1 l LEFT|RPUSH l a b c|LMOVEM l m LEFT RIGHT COUNT 2 BULK|\
    BLMOVEM l m LEFT LEFT 0 EXACTLY 1 OBO|\
    SADD set a b c d e f|SADD set g|SREM set a|SMOVE set other2 b|SPOP set|SPOP set 2|SUNIONSTORE set2 set other2|\
    SINTERSTORE set3 set set2|SDIFFSTORE set4 set2 other2|SORT set2 ALPHA STORE sorted|\
    HSET h a 1 b 2 c 3|HMSET h d 4|HSETNX h e 5|HINCRBY h a 5|HINCRBYFLOAT h a 0.5|HDEL h b|\
    HEXPIRE h 100 FIELDS 1 a|\
    HPEXPIRE h 90000 FIELDS 1 a|HEXPIREAT h 33177117420 FIELDS 1 a|HPEXPIREAT h 33177117420000 FIELDS 1 a|\
    HPERSIST h FIELDS 1 a|HGETEX h EX 100 FIELDS 1 a|HSETEX h EX 100 FIELDS 1 f 6|HGETDEL h FIELDS 1 f|\
    ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h|ZINCRBY z 5 a|ZREM z b|ZPOPMIN z|ZPOPMAX z|ZMPOP 1 z MIN|BZPOPMIN z 0|\
    BZPOPMAX z 0|BZMPOP 0 1 z MAX|ZADD z 1 a 2 b 3 c 4 d|ZREMRANGEBYRANK z 0 0|ZREMRANGEBYSCORE z 2 2|\
    ZADD lex 0 a 0 b|ZREMRANGEBYLEX lex [a [a|ZRANGESTORE z2 z 0 -1|ZUNIONSTORE z3 1 z|ZINTERSTORE z4 1 z|\
    ZDIFFSTORE z5 1 z|GEOADD geo 13.36 38.11 p|GEORADIUS geo 13 38 100 km STORE geo2|\
    GEORADIUSBYMEMBER geo p 1 km STORE geo3|GEOSEARCHSTORE geo4 geo FROMMEMBER p BYRADIUS 1 km|\
    XADD x 1-1 f v|XADD x 2-1 f v|XADD x MAXLEN 3 3-1 f v|XADD x 4-1 f v|XGROUP CREATE x g 0|\
    XGROUP CREATE y g $ MKSTREAM|XGROUP CREATECONSUMER x g c|XREADGROUP GROUP g c COUNT 2 STREAMS x >|\
    XCLAIM x g d 0 1-1|XAUTOCLAIM x g c 0 0|XNACK x g FAIL IDS 1 1-1|\
    XACK x g 1-1|XACKDEL x g DELREF IDS 1 2-1|XDEL x 1-1|\
    XDELEX x IDS 1 3-1|XADD x IDMP p i * f v|XADD x IDMPAUTO p * f v|XCFGSET x IDMP-DURATION 9|\
    XADD x 1800000000000-1 f v|XIDMPRECORD x p j 1800000000000-1|\
    XADD x 1800000000001-1 f v|XTRIM x MAXLEN 1|XGROUP SETID x g 0|\
    XSETID x 1800000000009-9|XGROUP DELCONSUMER x g c|XGROUP DESTROY x g|\
    EXPIRE s 100|PEXPIRE s 100000|EXPIREAT s 33177117420|PEXPIREAT s 33177117420000|PERSIST s|RENAME s t|\
    RENAMENX t u|COPY u v|MOVE v 1|RESTORE restored 0 DUMP|RESTORE-ASKING asked 0 DUMP|UNLINK u|DEL a|SWAPDB 0 0|\
    FLUSHDB|SET k v|FLUSHALL|UNFLUSH|FLUSHDB|SET k w|UNFLUSH MERGE|FLUSHALL|SET k v|UNFLUSH REPLACE";

/// The words of a line; DUMP stands for a payload.
fn words_of(line: &str) -> Vec<Vec<u8>> {
    let mut words = crate::exec::testing::words(line);
    if let Some(place) = words.iter().position(|word| word == b"DUMP") {
        words[place] = crate::command::keys::dump::payload(crate::keyspace::ValueRef::Int(5));
    }
    words
}

#[test]
fn where_no_log_is_wanted_nothing_is_encoded() {
    let mut t = Runner::new();
    t.wants.records = false;
    for line in LINES.split('|').map(str::trim) {
        t.run_words(&words_of(line));
        assert_eq!(t.logged_len(), 0, "{line}");
    }
}

#[test]
fn every_command_that_writes_is_logged_by_verbs_alone() {
    let (mut t, mut seen, mut silent) = (Runner::new(), std::collections::HashSet::new(), Vec::new());
    for line in LINES.split('|').map(str::trim) {
        let name = line.split(' ').next().expect("a name").to_lowercase();
        let before = t.logged_len();
        let reply = t.run_words(&words_of(line));
        // The runner panics on anything but verbs.
        if t.logged_len() == before {
            silent.push(format!("{line}: {reply}"));
        }
        let container = ["bless", "xgroup"].contains(&name.as_str());
        let full =
            if container { format!("{name}|{}", line.split(' ').nth(1).expect("a word").to_lowercase()) } else { name };
        seen.insert(full);
        t.assert_replay_equals_live();
    }
    assert_eq!(silent, [""; 0], "each line changes something");
    // It changes something once another server has answered, and logs that as DEL does: tests/migrate.rs.
    seen.insert("migrate".into());
    let writes = t.commands_that_write();
    let missing: Vec<&String> = writes.iter().filter(|name| !seen.contains(*name)).collect();
    assert_eq!(missing, [""; 0], "each command that writes has a line here");
}
