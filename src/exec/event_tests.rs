//! Which events commands, expiry and eviction note, and in which order. What Redis 7.0 publishes, too, is compared with
//! it by `tests/differential`; here is what it lacks, and what needs a clock.

use super::evict::Choice;
use super::testing::Runner;
use crate::base::config::{EvictionPolicy, NotifyFlags};
use crate::command::keys::dump::payload;

/// A server in which events of these classes are wanted.
fn wanting(letters: &str) -> Runner {
    let mut t = Runner::new();
    t.wants.events = NotifyFlags::parse(letters.as_bytes()).expect("known letters").effective();
    t
}

#[test]
fn a_new_key_is_told_before_what_made_it() {
    let mut t = wanting("AKEnm");
    t.script_of_events(
        "SET k v EX 10 => new k, set k, expire k
         SET k v => set k
         GET no => keymiss no
         LMOVE l m LEFT LEFT => -
         RPUSH l a => new l, rpush l
         LMOVE l m LEFT LEFT => new m, lpush m, lpop l, del l
         SADD s a => new s, sadd s
         SMOVE s t a => srem s, del s, new t, sadd t
         GETSET n 1 => keymiss n, new n, set n
         XADD x NOMKSTREAM * a b => -
         XADD x 1-1 a b => new x, xadd x
         COPY k l => new l, copy_to l
         COPY k l => -
         COPY k l REPLACE => new l, copy_to l
         RENAME l k => new k, rename_from l, rename_to k
         MOVE k 3 => new k@3, move_from k, move_to k@3",
    );
}

#[test]
fn a_value_that_replaces_another_is_told_with_its_type() {
    let mut t = wanting("AKEoc");
    t.script_of_events(
        "SET k v => set k
         SET k 1 => overwritten k, set k
         INCR k => incrby k
         APPEND k 1 => append k
         SADD s a b => sadd s
         MSET k 1 s 2 => overwritten k, set k, overwritten s, type_changed s, set s
         SET s v XX EX 10 => overwritten s, set s, expire s
         GETSET s v => overwritten s, set s
         SETEX s 10 v => overwritten s, set s, expire s
         SET s v PXAT 1 => overwritten s, set s, expire s, expired s
         SADD s a b => sadd s
         SUNIONSTORE k s => overwritten k, type_changed k, sunionstore k
         SUNIONSTORE k s s => overwritten k, sunionstore k
         SINTERSTORE k no => del k
         ZADD z 1 a => zadd z
         ZUNIONSTORE s 1 z => overwritten s, type_changed s, zunionstore s
         ZRANGESTORE s z 0 -1 => overwritten s, zrangestore s
         SORT z STORE s => -
         SORT z ALPHA STORE s => overwritten s, type_changed s, sortstore s
         SET a abc => set a
         BITOP NOT s a => overwritten s, type_changed s, set s
         COPY z s REPLACE => copy_to s, overwritten s, type_changed s
         RENAME a s => rename_from a, rename_to s, overwritten s, type_changed s
         RENAME s a => rename_from s, rename_to a
         PFADD h a => pfadd h
         PFMERGE h => pfadd h
         FLUSHALL => -",
    );
    let mut t = wanting("KEc");
    t.script_of_events("SET k v => -\n SET k w => -\n SADD s a => -\n SET s v => type_changed s");
}

#[test]
fn restored_keys_are_told() {
    let mut t = wanting("AKEnoc");
    t.script_of_events("SET k v => new k, set k\n SADD s a => new s, sadd s");
    let dumped = |t: &mut Runner, key: &str| {
        let key = t.keyspace().key(key.as_bytes());
        let shard = t.keyspace().lock(key.shard());
        let entry = shard.directory(0).and_then(|directory| directory.get(key.hash, key.bytes));
        payload(entry.expect("the key exists").value())
    };
    let (text, set) = (dumped(&mut t, "k"), dumped(&mut t, "s"));
    let mut restore = |line: &str, payload: &[u8]| {
        let mut words = super::testing::words(line);
        words.insert(3, payload.to_vec());
        t.run_words(&words);
        t.take_told().join(", ")
    };
    assert_eq!(restore("RESTORE r 0", &text), "new r, restore r");
    assert_eq!(restore("RESTORE r 0", &text), "");
    assert_eq!(restore("RESTORE r 0 REPLACE", &text), "new r, restore r, overwritten r");
    assert_eq!(restore("RESTORE r 0 REPLACE", &set), "new r, restore r, overwritten r, type_changed r");
    assert_eq!(restore("RESTORE r 1 REPLACE ABSTTL", &set), "del r");
    assert_eq!(restore("RESTORE r 1 REPLACE ABSTTL", &set), "");
}

#[test]
fn fields_of_hashes_are_told_as_in_redis_8() {
    let mut t = wanting("AKEn");
    t.script_of_events(
        "HSET h a 1 b 2 c 3 => new h, hset h
         HEXPIRE h 100 FIELDS 2 a z => hexpire h
         HEXPIRE h 100 NX FIELDS 1 a => -
         HPERSIST h FIELDS 2 a b => hpersist h
         HPERSIST h FIELDS 2 a b => -
         HPEXPIREAT h 1 FIELDS 1 a => hdel h
         HEXPIREAT h 1 FIELDS 2 b c => hdel h, del h
         HSET h a 1 b 2 c 3 => new h, hset h
         HGETDEL h FIELDS 2 a z => hdel h
         HGETDEL h FIELDS 1 z => -
         HGETDEL h FIELDS 2 b c => hdel h, del h
         HSET h a 1 b 2 c 3 => new h, hset h
         HGETEX h EX 100 FIELDS 2 a z => hexpire h
         HGETEX h PERSIST FIELDS 2 a b => hpersist h
         HGETEX h PERSIST FIELDS 1 a => -
         HGETEX h FIELDS 1 a => -
         HGETEX h PXAT 1 FIELDS 1 a => hdel h
         HGETEX h PXAT 1 FIELDS 2 b c => hdel h, del h
         HSETEX h EX 100 FIELDS 2 a 1 b 2 => new h, hset h, hexpire h
         HSETEX h FIELDS 1 a 1 => hset h
         HSETEX h KEEPTTL FIELDS 1 b 1 => hset h
         HSETEX h FNX FIELDS 1 a 1 => -
         HSETEX h FXX FIELDS 1 a 1 => hset h
         HSETEX h PXAT 1 FIELDS 1 a 1 => hset h, hdel h
         HSETEX h PXAT 1 FIELDS 2 b 1 c 1 => hset h, hdel h, del h
         HSETEX n PXAT 1 FIELDS 1 b 1 => new n, hset n, hdel n, del n",
    );
}

/// The fields of each event, as `name: a b`.
fn fields_told(t: &mut Runner, line: &str) -> Vec<String> {
    t.run(line);
    let line = |event: crate::core::key_events::Event| {
        let fields: Vec<_> = event.fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
        format!("{}: {}", event.name, fields.join(" "))
    };
    std::mem::take(&mut t.events).into_iter().map(line).collect()
}

#[test]
fn events_of_hashes_name_their_fields() {
    let mut t = wanting("ghSTIV");
    for (line, told) in [
        ("HSET h a 1 b 2 a 3", "hset: a b a"),
        ("HMSET h c 1", "hset: c"),
        ("HSETNX h c 1", ""),
        ("HSETNX h d 1", "hset: d"),
        ("HINCRBY h a 1", "hincrby: a"),
        ("HINCRBYFLOAT h a 1", "hincrbyfloat: a"),
        ("HDEL h z", ""),
        ("HDEL h d z d", "hdel: d"),
        ("HEXPIRE h 100 FIELDS 3 a z b", "hexpire: a b"),
        ("HPERSIST h FIELDS 2 c b", "hpersist: b"),
        ("HGETEX h EX 10 FIELDS 2 c z", "hexpire: c"),
        ("HGETEX h PERSIST FIELDS 2 c z", "hpersist: c"),
        ("HGETDEL h FIELDS 2 c z", "hdel: c"),
        ("HSETEX h PX 50 FIELDS 2 e 1 f 2", "hset: e f|hexpire: e f"),
        ("HSETEX h PXAT 1 FIELDS 1 e 1", "hset: e|hdel: e"),
        ("HPEXPIREAT h 1 FIELDS 2 b f", "hdel: b f"),
        ("HDEL h a", "hdel: a|del: "),
    ] {
        assert_eq!(fields_told(&mut t, line).join("|"), told, "{line}");
    }
}

#[test]
fn expired_fields_are_told_together_and_the_key_when_it_goes() {
    let mut t = wanting("AKEnmSTIV");
    for line in ["HSET h a 1 b 2 c 3", "HPEXPIRE h 10 FIELDS 2 a b", "HPEXPIRE h 20 FIELDS 1 c"] {
        t.run(line);
    }
    t.take_told();
    t.advance_ms(10);
    assert!(!t.sweep(100));
    let mut fields: Vec<_> = t.events[0].fields.iter().map(|field| field.to_vec()).collect();
    fields.sort();
    assert_eq!(fields, [b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(t.take_told(), ["hexpired h"]);
    t.advance_ms(10);
    assert!(!t.sweep(100));
    assert_eq!(t.take_told(), ["hexpired h", "del h"]);
    // A command that finds expired fields before the sweep does tells them first.
    for line in ["HSET h a 1 b 2", "HPEXPIRE h 10 FIELDS 1 a"] {
        t.run(line);
    }
    t.advance_ms(10);
    t.take_told();
    assert_eq!(fields_told(&mut t, "HINCRBY h a 5"), ["hexpired: a", "hincrby: a"]);
}

#[test]
fn expired_keys_are_told_once_whoever_finds_them() {
    let mut t = wanting("AKEm");
    for key in ["swept", "read", "written", "watched"] {
        t.run(&format!("SET {key} v PX 10"));
    }
    t.take_told();
    t.advance_ms(9);
    assert!(!t.sweep(100));
    t.script_of_events("GET read => -");
    t.advance_ms(1);
    t.script_of_events(
        "GET read => expired read, keymiss read
         GET read => keymiss read
         APPEND written v => expired written, append written
         DEL watched => expired watched",
    );
    assert!(!t.sweep(100));
    assert_eq!(t.take_told(), ["expired swept"]);
}

#[test]
fn evicted_keys_are_told() {
    let mut t = wanting("Ee");
    t.run("SET k v");
    t.db = 3;
    t.run("SET k v");
    let choice = Choice { policy: EvictionPolicy::AllkeysRandom, samples: 5 };
    assert_eq!(t.evict(choice, 2).keys, 2);
    let mut told = t.take_told();
    told.sort();
    assert_eq!(told, ["evicted k", "evicted k@3"]);
}

#[test]
fn a_command_that_fails_tells_nothing_but_misses() {
    let mut t = wanting("AKEnocm");
    t.run("SET text abc");
    t.run("SADD s a");
    t.take_told();
    t.script_of_events(
        "SUNIONSTORE d s no text => keymiss no
         XINFO STREAM no => keymiss no",
    );
    t.script_of_events(
        "SUNIONSTORE d s text => -
         INCR text => -
         LPUSH text a => -
         HSET text a 1 => -
         MSETNX new 1 text 2 => -
         RENAMENX s text => -
         ZADD z NX XX 1 a => -",
    );
}

#[test]
fn only_wanted_classes_are_noted() {
    for (letters, told) in [
        ("KEA", "rpush l, expire l, lpop l, del l"),
        ("Kl", "rpush l, lpop l"),
        ("Eg", "expire l, del l"),
        ("KE", ""),
        ("A", ""),
        ("Em", ""),
        ("En", "new l"),
    ] {
        let mut t = wanting(letters);
        ["RPUSH l a", "EXPIRE l 100", "LPOP l"].into_iter().for_each(|line| drop(t.run(line)));
        assert_eq!(t.take_told().join(", "), told, "{letters}");
    }
}
