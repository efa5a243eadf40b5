//! Tests of the frozen version 1: its words do what the commands of their time did.

use super::super::{Replayer, replay_words};
use crate::base::hash::HashSeed;
use crate::base::random::Random;
use crate::exec::testing::{Runner, dump, words};
use crate::keyspace::Keyspace;
use crate::value::Limits;

const SEED: HashSeed = HashSeed(*b"a seed of words.");

/// The keyspace that a log of words has made.
struct Old {
    keyspace: Keyspace,
    replayer: Replayer,
}

impl Old {
    fn new() -> Old {
        Old { keyspace: Keyspace::new(16, SEED), replayer: Replayer::new(Limits::defaults(SEED)) }
    }

    fn apply(&mut self, line: &str) -> Result<(), String> {
        let words = words(line);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        replay_words(&self.keyspace, &mut self.replayer, 0, &words)
    }
}

/// Runs a command and, if it has changed something, applies its words as version 1 logged them.
fn both(live: &mut Runner, old: &mut Old, line: &str) {
    let before = live.logged_len();
    live.run(line);
    if live.logged_len() > before {
        assert_eq!(old.apply(line), Ok(()), "{line}");
    }
}

fn random_line(random: &mut Random) -> String {
    let (a, b) = (random.below(12), random.below(7));
    let sign = |random: &mut Random| if random.below(3) == 0 { "-" } else { "" };
    let (s, t) = (sign(random), sign(random));
    let id = format!("{a}-{b}");
    match random.below(58) {
        0 => format!("SET str {a}"),
        1 => format!("set str v{a} PXAT 33177117420{b}00"),
        2 => format!("APPEND str {a}"),
        3 => format!("setrange str {a} x{b}"),
        4 => format!("SET n {a}"),
        5 => "INCR n".to_owned(),
        6 => "decr n".to_owned(),
        7 => format!("INCRBY n {s}{a}"),
        8 => format!("DECRBY n {s}{a}"),
        9 => format!("SETBIT bits {} {}", a * 7 + b, b % 2),
        10 => format!("BITFIELD bits SET u{} {a} {} INCRBY i{} #{b} {s}{}", b + 1, a * 31, b + 3, a * 99),
        11 => format!("BITFIELD bits OVERFLOW sat INCRBY i5 {a} {s}{a} OVERFLOW FAIL SET u3 {b} {a} GET u8 0"),
        12 => format!("PFADD hll {a} x{b}"),
        13 => format!("DEL {}", ["str", "n", "bits", "hll", "l", "s", "h", "z", "x"][(a % 9) as usize]),
        14 => format!("PEXPIREAT {} 3317711742{a}000", ["str", "n", "l", "h"][(b % 4) as usize]),
        15 => format!("PERSIST {}", ["str", "n", "l", "h"][(b % 4) as usize]),
        16 => format!("LPUSH l {a} {b}"),
        17 | 18 => format!("rpush l {a} e{b} {a}"),
        19 => format!("LPUSHX l {a}"),
        20 => "LPOP l".to_owned(),
        21 => format!("RPOP l {b}"),
        22 => format!("LSET l {s}{b} {a}"),
        23 => format!("LINSERT l before {a} i{b}"),
        24 => format!("LINSERT l AFTER {a} i{b}"),
        25 => format!("LREM l {s}{b} {a}"),
        26 => format!("LTRIM l {s}{b} {t}{a}"),
        27 => format!("SADD s {a} m{b}"),
        28 => format!("SREM s {a} m{b}"),
        29 => format!("HSET h {a} {b} f{b} x"),
        30 => format!("HMSET h {a} v"),
        31 => format!("HSETNX h {a} {b}"),
        32 => format!("HINCRBY h {a} {s}{b}"),
        33 => format!("HDEL h {a} f{b}"),
        34 => format!("HSETEX h PXAT 33177117420{b}00 FIELDS 1 {a} x"),
        35 => format!("HSETEX h KEEPTTL FIELDS 2 {a} x f{b} y"),
        36 => format!("HPEXPIREAT h 33177117420{b}00 FIELDS 2 {a} f{b}"),
        37 => format!("HPERSIST h FIELDS 1 {a}"),
        38 | 39 => format!("ZADD z {a} m{b} {s}{b}.5 m{a}"),
        40 => {
            let option = ["NX", "XX", "GT", "lt", "XX gt ch", "INCR", "NX INCR"][b as usize];
            format!("ZADD z {option} {s}{a}e1 m{b}")
        }
        41 => format!("ZADD z {} m{b}", ["0x1p4", "-INF", "+inf", "1e300", "-0", ".5", "5."][b as usize]),
        42 => format!("ZINCRBY z {s}{a} m{b}"),
        43 => format!("ZREM z m{a} m{b}"),
        44 => format!("ZPOPMIN z {b}"),
        45 => "zpopmax z".to_owned(),
        46 => format!("ZREMRANGEBYRANK z {s}{b} {t}{a}"),
        47 => format!("ZREMRANGEBYSCORE z ({s}{b} {a}"),
        48 => format!("ZREMRANGEBYLEX z [m{b} (m{a}"),
        49 | 50 => format!("XADD x {id} f {a} g v{b}"),
        51 => format!("XADD x MAXLEN {b} {id} f {a}"),
        52 => format!("XDEL x {id} 3-3"),
        53 => format!("XTRIM x MAXLEN {a}"),
        54 => format!("XGROUP CREATE x g{} {} MKSTREAM", b % 2, ["0", "$", "5"][(a % 3) as usize]),
        55 => format!("XGROUP SETID x g{} {id} ENTRIESREAD {b}", b % 2),
        56 => format!("XDELEX x {} IDS 2 {id} {b}-{a}", ["KEEPREF", "DELREF", "acked"][(a % 3) as usize]),
        _ => ["XGROUP DESTROY x g0", "XSETID x 20-0 ENTRIESADDED 50", "XSETID x 19-1 MAXDELETEDID 2-0"]
            [(a % 3) as usize]
            .to_owned(),
    }
}

#[test]
fn what_was_logged_as_received_means_what_the_commands_did() {
    for seed in 0..6 {
        let mut random = Random::from_seed(seed);
        let (mut live, mut old) = (Runner::new(), Old::new());
        if seed % 2 == 0 {
            live.limits.stream_node_max_entries = 3;
        }
        for _ in 0..700 {
            let line = random_line(&mut random);
            both(&mut live, &mut old, &line);
            if random.below(8) == 0 {
                assert_eq!(dump(&old.keyspace), dump(live.keyspace()), "seed {seed}, after {line}");
            }
        }
        assert_eq!(dump(&old.keyspace), dump(live.keyspace()), "seed {seed}");
    }
}

#[test]
fn deliveries_and_claims_mean_what_groups_did() {
    let (mut live, mut old) = (Runner::new(), Old::new());
    for ms in 1..=5 {
        both(&mut live, &mut old, &format!("XADD s {ms}-0 a {ms}"));
    }
    both(&mut live, &mut old, "XGROUP CREATE s g 0");
    for (advance, line, logged) in [
        (0, "XREADGROUP GROUP g c COUNT 3 STREAMS s >", "XDELIVERED s g c 1700000000000 > 3 KEEP"),
        (10, "XREADGROUP GROUP g c STREAMS s 1", "XDELIVERED s g c 1700000000010 1-0 2 KEEP"),
        (0, "XREADGROUP GROUP g d NOACK STREAMS s >", "XDELIVERED s g d 1700000000010 > 2 NOACK"),
        (0, "XREADGROUP GROUP g f STREAMS s >", "XDELIVERED s g f 1700000000010 > 0 KEEP"),
        (10, "XCLAIM s g e 5 2-0 9-0 TIME 77 RETRYCOUNT 8", "XCLAIMED s g e 1700000000020 77 8 - 0-0 2-0"),
        (0, "XCLAIM s g e 0 4-0 4-0 FORCE", "XCLAIMED s g e 1700000000020 1700000000020 +1 FORCE 0-0 4-0 4-0"),
        (0, "XDEL s 3-0", "XDEL s 3-0"),
        (0, "XAUTOCLAIM s g f 0 0 COUNT 3 JUSTID", "XCLAIMED s g f 1700000000020 1700000000020 = - 0-0 1-0 2-0 3-0"),
        (0, "XCLAIM s g f 999999 1-0 LASTID 6", "XCLAIMED s g f 1700000000020 1700000000020 +1 - 6-0"),
        (0, "XGROUP CREATECONSUMER s g h", "XDELIVERED s g h 1700000000020 > 0 KEEP"),
        (0, "XACK s g 1-0 2-0 7-7", "XACK s g 1-0 2-0 7-7"),
        (0, "XACKDEL s g IDS 1 4-0", "XACKDEL s g IDS 1 4-0"),
        (0, "XTRIM s MAXLEN 0 ACKED", "XTRIM s ACKED MINID 5-1"),
        (0, "XGROUP DELCONSUMER s g f", "XGROUP DELCONSUMER s g f"),
    ] {
        live.advance_ms(advance);
        live.run(line);
        assert_eq!(old.apply(logged), Ok(()), "{logged}");
        assert_eq!(dump(&old.keyspace), dump(live.keyspace()), "{logged}");
    }
}

/// What DELREF left pending in version 1: a mistake, but this is what the log means.
#[test]
fn trimming_by_delref_spared_what_was_pending_of_entries_deleted_before() {
    let mut old = Old::new();
    for line in [
        "XADD s 1-0 a 1",
        "XADD s 2-0 a 1",
        "XADD s 3-0 a 1",
        "XGROUP CREATE s g 0",
        "XDELIVERED s g c 5 > 3 KEEP",
        "XDEL s 1-0",
        "XTRIM s DELREF MAXLEN 1",
    ] {
        assert_eq!(old.apply(line), Ok(()), "{line}");
    }
    let key = old.keyspace.key(b"s");
    let shard = old.keyspace.lock(key.shard());
    let entry = shard.directory(0).and_then(|directory| directory.get(key.hash, key.bytes)).expect("the stream");
    let crate::keyspace::ValueRef::Stream(stream) = entry.value() else { panic!("a stream") };
    let group = stream.group(b"g").expect("the group");
    assert_eq!(group.pending.iter().map(|pending| pending.id.ms).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn barriers_mean_what_the_commands_did() {
    let mut live = Runner::new();
    let mut old = Old::new();
    for line in [
        "SET a 1",
        "RPUSH l a b",
        "RENAME a b",
        "RENAMENX b c",
        "COPY c d DB 3 REPLACE",
        "copy c e",
        "MOVE e 2",
        "SWAPDB 0 3",
        "DEBUG POPULATE 5",
        "DEBUG POPULATE 3 p 12",
        "SET last 1",
    ] {
        if line.starts_with("DEBUG") {
            // The command wants a connection that may: see the golden files.
            assert_eq!(old.apply(line), Ok(()), "{line}");
            continue;
        }
        live.run(line);
        assert_eq!(old.apply(line), Ok(()), "{line}");
    }
    let made: Vec<_> = dump(&old.keyspace).into_iter().filter(|(_, key, ..)| key.contains(&b':')).collect();
    let value =
        |key: &str| made.iter().find(|(_, its, ..)| its == key.as_bytes()).map(|(_, _, value, _)| value.clone());
    assert_eq!(
        (made.len(), value("key:4"), value("p:2")),
        (8, Some(b"value:4".to_vec()), Some(b"value:2\0\0\0\0\0".to_vec()))
    );
    let others: Vec<_> = dump(&old.keyspace).into_iter().filter(|(_, key, ..)| !key.contains(&b':')).collect();
    assert_eq!(others, dump(live.keyspace()));
    assert_eq!(old.apply("FLUSHDB ASYNC"), Ok(()));
    assert_eq!(dump(&old.keyspace).len(), 3);
    assert_eq!(old.apply("flushall"), Ok(()));
    assert_eq!(dump(&old.keyspace).len(), 0);
}

#[test]
fn the_list_of_words_is_closed() {
    let mut old = Old::new();
    for line in [
        "SETEX k 10 v",
        "GETSET k v",
        "MSET k v",
        "EXPIRE k 10",
        "INCRBYFLOAT k 1",
        "LMOVE a b LEFT LEFT",
        "SPOP s",
        "ZUNIONSTORE d 1 z",
        "XREADGROUP GROUP g c STREAMS s >",
        "GET k",
        "",
        "SET",
        "SET k",
        "SET k v EX 10",
        "STATE k 5",
        "DEL",
        "DEL a b",
        "HSET h f",
        "XGROUP FOO s g",
        "XADD s * f v",
        "ZADD z x m",
        "INCRBY n +5",
        "SWAPDB 0 16",
        "DEBUG SLEEP 1",
    ] {
        assert!(old.apply(line).is_err(), "{line}");
    }
    assert_eq!(dump(&old.keyspace), []);
}

#[test]
fn numbers_are_read_as_they_were() {
    use super::texts::{double, id, integer};
    assert_eq!(
        ["0", "-5", "+5", "05", "-0", " 5", ""].map(|text| integer(text.as_bytes())),
        [Some(0), Some(-5), None, None, None, None, None]
    );
    for text in
        ["1", "-1.5", "1e5", ".5", "5.", "inf", "-Infinity", "0x10", "0x1.8p1", "1e400", "nan", "", "1x", "1e-400"]
    {
        let now = crate::base::format::parse_double(text.as_bytes());
        assert_eq!(double(text.as_bytes()), now, "{text}");
    }
    let (text, none) = (|word: &str| id(word.as_bytes()).map(|id| id.to_string()), None::<String>);
    assert_eq!(
        [text("5"), text("5-3"), text("+5-+3"), text("5--3"), text("")],
        [Some("5-0".to_owned()), Some("5-3".to_owned()), Some("5-3".to_owned()), none.clone(), none]
    );
}
