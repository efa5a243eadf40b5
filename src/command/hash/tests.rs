//! Tests of hash commands: their replies, their records, and fields that expire.

use super::*;
use crate::base::random::Random;
use crate::core::table;
use crate::exec::testing::{Runner, dump};
use crate::resp::Resp;
use crate::value::hash::template::Policy;

/// Runs lines of `command => reply`.
fn encoding(t: &mut Runner, key: &str) -> String {
    t.run(&format!("OBJECT ENCODING {key}"))
}

#[test]
fn every_declaration_is_sound() {
    for command in COMMANDS {
        assert_eq!(table::mistake(command), None);
        assert_eq!(command.group, "hash");
        assert!(command.categories.has(categories::HASH), "{}", command.name);
    }
    assert!(COMMANDS.is_sorted_by_key(|command| command.name));
    assert_eq!(COMMANDS.len(), 28);
}

#[test]
fn fields_are_stored_read_and_removed() {
    let mut t = Runner::new();
    t.script(
        "HSET h a 1 b two a 3 => :2
         HSET h a 4 c 5 => :1
         HMSET h d 6 => +OK
         HGET h a => $1 4
         HGET h none => $-1
         HGET none a => $-1
         HMGET h a none b => *3 $1 4 $-1 $3 two
         HMGET none a b => *2 $-1 $-1
         HGETALL h => *8 $1 a $1 4 $1 b $3 two $1 c $1 5 $1 d $1 6
         HKEYS h => *4 $1 a $1 b $1 c $1 d
         HVALS h => *4 $1 4 $3 two $1 5 $1 6
         HLEN h => :4
         HSTRLEN h b => :3
         HSTRLEN h none => :0
         HEXISTS h a => :1
         HEXISTS h none => :0
         HSETNX h a 9 => :0
         HSETNX h e 9 => :1
         HDEL h a none a b => :2
         HDEL none a => :0
         HDEL h c d e => :3
         EXISTS h => :0
         HGETALL h => *0
         HKEYS h => *0
         HLEN h => :0",
    );
    t.assert_replay_equals_live();
    let logged = t.take_logged();
    assert_eq!(logged[..4], ["HSET h a 1 b two a 3", "HSET h a 4 c 5", "HSET h d 6", "HSET h e 9"]);
    assert_eq!(logged[4..], ["HDEL h a none a b", "HDEL h c d e"]);
    t.resp = Resp::V3;
    t.script("HSET h a 1 => :1\n HGETALL h => %1 $1 a $1 1\n HGETALL none => %0\n HGET h none => _");
}

#[test]
fn counters_keep_the_expiry_and_the_log_holds_results() {
    let mut t = Runner::new();
    t.script(
        "HINCRBY h n 5 => :5
         HINCRBY h n -7 => :-2
         HPEXPIRE h 1000 FIELDS 1 n => *1 :1
         HINCRBY h n 1 => :-1
         HINCRBYFLOAT h n 1.5 => $3 0.5
         HPTTL h FIELDS 1 n => *1 :1000
         HINCRBY h n 1 => -ERR hash value is not an integer
         HSET h w word big 9223372036854775807 inf inf => :3
         HPTTL h FIELDS 1 n => *1 :1000
         HINCRBYFLOAT h w 1 => -ERR hash value is not a float
         HINCRBY h big 1 => -ERR increment or decrement would overflow
         HINCRBYFLOAT h inf 1 => -ERR increment would produce NaN or Infinity
         HINCRBYFLOAT h inf inf => -ERR value is NaN or Infinity
         HINCRBYFLOAT h n nan => -ERR value is not a valid float
         HINCRBY h n x => -ERR value is not an integer or out of range",
    );
    t.assert_replay_equals_live();
    let at = t.now() + 1000;
    assert_eq!(
        t.take_logged()[2..5],
        [format!("HPEXPIREAT h {at} n"), "HSET h KEEPTTL n -1".into(), "HSET h KEEPTTL n 0.5".into()]
    );
}

#[test]
fn an_expired_field_is_gone_for_readers_at_once_and_removed_before_writes() {
    for fields in [3, 600] {
        let mut t = Runner::new();
        for number in 0..fields {
            t.run(&format!("HSET h f{number} {number}"));
        }
        t.script("HSET h a 1 b 2 c 3 => :3\n HPEXPIRE h 10 FIELDS 2 a b => *2 :1 :1");
        t.take_logged();
        t.advance_ms(9);
        assert_eq!(t.run("HLEN h"), format!(":{} ", fields + 3));
        t.advance_ms(1);
        assert_eq!(t.run("HLEN h"), format!(":{} ", fields + 1));
        t.script(
            "HGET h a => $-1
             HMGET h a c => *2 $-1 $1 3
             HEXISTS h b => :0
             HSTRLEN h b => :0
             HTTL h FIELDS 3 a c none => *3 :-2 :-1 :-2",
        );
        assert_eq!(t.run("HGETALL h").split(' ').next().unwrap(), format!("*{}", 2 * (fields + 1)));
        assert_eq!(t.take_logged(), [""; 0], "readers change nothing");
        t.script("HINCRBY h a 1 => :1\n HDEL h b => :0\n HTTL h FIELDS 1 a => *1 :-1");
        assert_eq!(t.take_logged(), ["HDEL h a", "HSET h KEEPTTL a 1", "HDEL h b"]);
    }
}

#[test]
fn a_failing_command_leaves_the_removal_of_what_has_expired() {
    let mut t = Runner::new();
    t.script("HSET h a 1 b x => :2\n HPEXPIRE h 10 FIELDS 1 a => *1 :1");
    t.advance_ms(10);
    t.script("HSETNX h a 2 => :1\n HPEXPIRE h 10 FIELDS 2 a b => *2 :1 :1");
    t.advance_ms(10);
    t.take_logged();
    // The field is missing after its removal, so the sum is the increment.
    t.script("HINCRBYFLOAT h b 1 => $1 1\n HINCRBYFLOAT h b x => -ERR value is not a valid float");
    assert_eq!(t.take_logged(), ["HDEL h b", "HSET h KEEPTTL b 1"]);
}

#[test]
fn the_sweep_removes_fields_at_their_time_and_the_hash_with_the_last_one() {
    for fields in [2, 700] {
        let mut t = Runner::new();
        for number in 0..fields {
            t.run(&format!("HSET h f{number} {number}"));
            t.run(&format!("HPEXPIRE h {} FIELDS 1 f{number}", 100 + number % 2));
        }
        t.run("HSET lasting a 1");
        t.run("HPEXPIRE lasting 60000 FIELDS 1 a");
        t.advance_ms(99);
        t.take_logged();
        assert!(!t.sweep(usize::MAX));
        assert_eq!(t.take_logged(), [""; 0]);
        t.advance_ms(1);
        assert!(!t.sweep(usize::MAX));
        let words = |logged: Vec<String>| logged.iter().map(|line| line.split(' ').count() - 2).sum::<usize>();
        assert_eq!(words(t.take_logged()), fields / 2);
        assert_eq!(t.run("HLEN h"), format!(":{} ", fields / 2));
        t.advance_ms(1);
        assert!(!t.sweep(usize::MAX));
        assert_eq!(words(t.take_logged()), fields / 2);
        assert_eq!(t.run("EXISTS h"), ":0 ");
        let bound = t.keyspace().earliest_expiry(t.keyspace().key(b"h").shard());
        assert!(bound > t.now() as u64, "a bound that stays low makes every sweep look again");
        dump(t.keyspace());
    }
}

#[test]
fn a_budget_bounds_the_fields_that_one_sweep_removes() {
    let mut t = Runner::new();
    for number in 0..1000 {
        t.run(&format!("HSET h f{number} 1"));
        t.run(&format!("HPEXPIRE h 10 FIELDS 1 f{number}"));
    }
    t.run("HSET h stays 1");
    t.run("SET k v PX 10");
    t.advance_ms(10);
    assert!(t.sweep(300));
    let mut calls = 1;
    while t.sweep(300) {
        calls += 1;
    }
    assert!((3..=4).contains(&calls), "{calls}");
    t.script("HGETALL h => *2 $6 stays $1 1".replace("$6", "$5").as_str());
    t.assert_replay_equals_live();
}

#[test]
fn expiring_fields_are_found_wherever_their_hash_goes() {
    let mut t = Runner::new();
    let carry = ["RENAME h g", "COPY h g", "COPY h h DB 3", "MOVE h 3", "SWAPDB 0 3", "PERSIST h", "EXPIRE h 100"];
    for fields in [1, 600] {
        for line in carry {
            t.run("FLUSHALL");
            for number in 0..fields {
                t.run(&format!("HSET h f{number} {number}"));
            }
            t.run("HPEXPIRE h 10 FIELDS 1 f0");
            t.db = 0;
            t.run(line);
            t.advance_ms(10);
            t.take_logged();
            assert!(!t.sweep(1000));
            let copies = if line.starts_with("COPY") { 2 } else { 1 };
            assert_eq!(t.take_logged().len(), copies, "{line}");
            dump(t.keyspace());
        }
    }
    t.run("FLUSHALL");
    t.run("HSET h a 1");
    t.run("HPEXPIRE h 10 FIELDS 1 a");
    for line in ["SET h v", "DEL h", "FLUSHDB"] {
        t.run(line);
        dump(t.keyspace());
    }
    t.advance_ms(10);
    t.take_logged();
    assert!(!t.sweep(10));
    assert_eq!(t.take_logged(), [""; 0]);
}

#[test]
fn expiries_are_set_on_conditions_and_logged_absolute() {
    let mut t = Runner::new();
    t.script(
        "HSET h a 1 b 2 => :2
         HEXPIRE h 100 FIELDS 3 a none a => *3 :1 :-2 :1
         HEXPIRE h 200 NX FIELDS 2 a b => *2 :0 :1
         HEXPIRE h 150 GT FIELDS 2 a b => *2 :1 :0
         HEXPIRE h 100 LT FIELDS 2 a b => *2 :1 :1
         HPERSIST h FIELDS 3 b b none => *3 :1 :-1 :-2
         HEXPIRE h 300 xx FIELDS 2 a b => *2 :1 :0
         HEXPIRE h 300 GT FIELDS 2 a b => *2 :0 :0
         HEXPIRE h 300 LT FIELDS 2 a b => *2 :0 :1
         HTTL h FIELDS 2 a b => *2 :300 :300
         HPTTL h FIELDS 2 a b => *2 :300000 :300000
         HEXPIRETIME h FIELDS 1 a => *1 :1700000300
         HPEXPIRETIME h FIELDS 2 a none => *2 :1700000300000 :-2
         HEXPIREAT h 1700000400 FIELDS 1 a => *1 :1
         HPEXPIREAT h 1700000400001 FIELDS 1 b => *1 :1
         HEXPIRETIME h FIELDS 2 a b => *2 :1700000400 :1700000401
         HPERSIST none FIELDS 2 a b => *2 :-2 :-2
         HTTL none FIELDS 1 a => *1 :-2
         HEXPIRE none 1 FIELDS 1 a => *1 :-2",
    );
    assert_eq!(encoding(&mut t, "h"), "$10 listpackex ");
    t.assert_replay_equals_live();
    let logged = t.take_logged();
    assert_eq!(logged[1], "HPEXPIREAT h 1700000100000 a a");
    assert_eq!(logged[2], "HPEXPIREAT h 1700000200000 b");
    assert!(logged.contains(&"HPERSIST h b".to_owned()));
    t.script(
        "HEXPIRE h 0 FIELDS 3 a a none => *3 :2 :-2 :-2
         HPEXPIREAT h 0 FIELDS 1 b => *1 :2
         EXISTS h => :0",
    );
    assert_eq!(t.take_logged(), ["HDEL h a", "HDEL h b"]);
}

#[test]
fn what_is_read_may_be_removed_or_let_expire() {
    let mut t = Runner::new();
    t.script(
        "HSET h a 1 b 2 c 3 => :3
         HGETEX h FIELDS 2 a none => *2 $1 1 $-1
         HGETEX h EX 10 FIELDS 2 a b => *2 $1 1 $1 2
         HTTL h FIELDS 3 a b c => *3 :10 :10 :-1
         HGETEX h PERSIST FIELDS 2 b c => *2 $1 2 $1 3
         HTTL h FIELDS 3 a b c => *3 :10 :-1 :-1
         HGETEX h PXAT 1 FIELDS 2 a a => *2 $1 1 $-1
         HGETDEL h FIELDS 3 b b none => *3 $1 2 $-1 $-1
         HGETDEL none FIELDS 1 a => *1 $-1
         HGETALL h => *2 $1 c $1 3
         HGETDEL h FIELDS 1 c => *1 $1 3
         EXISTS h => :0",
    );
    let at = t.now() + 10_000;
    let expected = [
        format!("HPEXPIREAT h {at} a b"),
        "HPERSIST h b".into(),
        "HDEL h a".into(),
        "HDEL h b".into(),
        "HDEL h c".into(),
    ];
    assert_eq!(t.take_logged()[1..], expected);
}

#[test]
fn fields_are_stored_with_conditions_and_expiries() {
    let mut t = Runner::new();
    t.script(
        "HSETEX h FXX FIELDS 1 a 1 => :0
         HSETEX h FNX EX 10 FIELDS 2 a 1 b 2 => :1
         HSETEX h FNX FIELDS 2 a 1 c 2 => :0
         HSETEX h FXX KEEPTTL FIELDS 1 a 5 => :1
         HSETEX h KEEPTTL FIELDS 1 new 5 => :1
         HTTL h FIELDS 3 a b new => *3 :10 :10 :-1
         HSETEX h FIELDS 1 b 3 => :1
         HTTL h FIELDS 1 b => *1 :-1
         HSETEX h EXAT 1 FIELDS 2 a 1 fresh 1 => :1
         HMGET h a b fresh => *3 $-1 $1 3 $-1
         HSETEX none PXAT 1 FIELDS 1 a 1 => :1
         EXISTS none => :0",
    );
    t.assert_replay_equals_live();
    let at = t.now() + 10_000;
    let logged = t.take_logged();
    assert_eq!(logged[0], format!("HSET h PXAT {at} a 1 b 2"));
    assert_eq!(logged[1..3], ["HSET h KEEPTTL a 5", "HSET h KEEPTTL new 5"]);
    assert_eq!(logged[3..], ["HSET h b 3", "HDEL h a"]);
    t.script("HPEXPIRE h 10 FIELDS 1 b => *1 :1");
    t.advance_ms(10);
    t.take_logged();
    t.script("HSETEX h KEEPTTL FIELDS 1 b 4 => :1\n HTTL h FIELDS 1 b => *1 :-1");
    assert_eq!(t.take_logged(), ["HDEL h b", "HSET h KEEPTTL b 4"]);
}

#[test]
fn random_fields_are_fields_and_differ_where_they_must() {
    for fields in [5, 2000] {
        let mut t = Runner::new();
        for number in 0..fields {
            t.run(&format!("HSET h {number} {number}"));
        }
        t.run("HSET h gone 1");
        t.run("HPEXPIRE h 1 FIELDS 1 gone");
        t.advance_ms(1);
        for count in [1, 3, 5, fields / 2, fields, 5000] {
            let reply = t.run(&format!("HRANDFIELD h {count}"));
            let mut names: Vec<&str> = reply.trim_end().split(' ').skip(1).skip(1).step_by(2).collect();
            assert_eq!(names.len(), count.min(fields), "{fields} {count}");
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count.min(fields));
            assert!(!names.contains(&"gone"));
        }
        assert!(t.run("HRANDFIELD h -10").starts_with("*10 "));
        assert!(t.run("HRANDFIELD h -10 WITHVALUES").starts_with("*20 "));
        t.resp = Resp::V3;
        assert!(t.run("HRANDFIELD h -10 withvalues").starts_with("*10 *2 $"));
        assert!(t.run("HRANDFIELD h").starts_with('$'));
    }
    let mut t = Runner::new();
    let range = "-ERR value is out of range ";
    t.script(
        "HRANDFIELD none => $-1
         HRANDFIELD none 2 => *0
         HRANDFIELD none x => -ERR value is not an integer or out of range
         HRANDFIELD none 1 FOO => -ERR syntax error
         HRANDFIELD none 1 WITHVALUES 2 => -ERR syntax error
         HSET h a 1 => :1
         HRANDFIELD h 0 => *0
         HRANDFIELD h 4611686018427387903 WITHVALUES => *2 $1 a $1 1",
    );
    for line in ["HRANDFIELD h -4611686018427387904 WITHVALUES", "HRANDFIELD h -9223372036854775807"] {
        assert_eq!(t.run(line), range, "{line}");
    }
}

#[test]
fn a_walk_gives_every_field_once() {
    let mut t = Runner::new();
    for number in 0..3000 {
        t.run(&format!("HSET h f{number} {number}"));
    }
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let reply = t.run(&format!("HSCAN h {cursor} COUNT 100"));
        let words: Vec<&str> = reply.trim_end().split(' ').collect();
        cursor = words[2].to_owned();
        seen.extend(words[4..].iter().skip(1).step_by(4).map(|word| (*word).to_owned()));
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3000);
    assert!((15..=31).contains(&calls), "{calls}");
    t.script(
        "HSET s a 1 b 2 => :2
         HSCAN s 0 => *2 $1 0 *4 $1 a $1 1 $1 b $1 2
         HSCAN s 0 MATCH b NOVALUES => *2 $1 0 *1 $1 b
         HSCAN none 0 FOO => *2 $1 0 *0
         HSCAN none x => -ERR invalid cursor
         HSCAN s 0 FOO => -ERR syntax error
         SET k v => +OK
         HSCAN k 0 FOO => -WRONGTYPE Operation against a key holding the wrong kind of value",
    );
}

#[test]
fn mistakes_are_noticed_in_redis_order() {
    let mut t = Runner::new();
    t.run("HSET h a 1");
    t.run("SET k v");
    t.take_logged();
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value ";
    let misplaced = "-ERR Mandatory argument FIELDS is missing or not at the right position ";
    let mismatch = "-ERR The `numfields` parameter must match the number of arguments ";
    let negative = "-ERR invalid expire time, must be >= 0 ";
    let no_int = "-ERR value is not an integer or out of range ";
    let positive = "-ERR Number of fields must be a positive integer ";
    let arity = |name: &str| format!("-ERR wrong number of arguments for '{name}' command ");
    for (line, expected) in [
        ("HSET h a", arity("hset")),
        ("HSET h a 1 b", arity("hset")),
        ("HSET k a", arity("hset")),
        ("HMSET h a 1 b", arity("hmset")),
        ("HSET k a 1", wrong_type.into()),
        ("HINCRBY k a x", no_int.into()),
        ("HEXPIRE k x FIELDS x a", wrong_type.into()),
        ("HEXPIRE h x FIELDS x a", no_int.into()),
        ("HEXPIRE h -1 FOO FIELDS 1 a", negative.into()),
        ("HEXPIRE h 70368744178 FIELDS 1 a", "-ERR invalid expire time in 'hexpire' command ".into()),
        ("HPEXPIREAT h 70368744177664 FIELDS 1 a", "-ERR invalid expire time in 'hpexpireat' command ".into()),
        ("HEXPIRE h 1 NX XX FIELDS 1 a", misplaced.into()),
        ("HEXPIRE h 1 FIELDS 0 a", "-ERR Parameter `numFields` should be greater than 0 ".into()),
        ("HEXPIRE none 1 FIELDS 2 a", mismatch.into()),
        ("HPERSIST h FIELDS x a", positive.into()),
        ("HTTL k FIELDS 3 a", wrong_type.into()),
        ("HTTL h FOO 1 a", misplaced.into()),
        ("HGETDEL k FOO 1 a", wrong_type.into()),
        ("HGETDEL h FIELDS 0 a", positive.into()),
        ("HGETEX h EX 10 PX 10 FIELDS 1 a", misplaced.into()),
        ("HGETEX h EX 10 FIELDS", arity("hgetex")),
        ("HGETEX h EX 10 FIELDS 1", mismatch.into()),
        ("HGETEX h EX FIELDS 1 a", no_int.into()),
        ("HSETEX k FOO 1 a 1", "-ERR unknown argument: FOO ".into()),
        ("HSETEX k EX -1 FIELDS 1 a 1", negative.into()),
        ("HSETEX k FIELDS 1 a 1", wrong_type.into()),
        ("HSETEX h FIELDS 0 a 1", "-ERR invalid number of fields ".into()),
        ("HSETEX h FIELDS 1 a 1 b", arity("hsetex")),
        ("HSETEX h FNX FXX FIELDS 1 a 1", "-ERR Only one of FXX or FNX arguments can be specified ".into()),
        (
            "HSETEX h EX 1 KEEPTTL FIELDS 1 a 1",
            "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified ".into(),
        ),
    ] {
        assert_eq!(t.run(line), expected, "{line}");
    }
    assert_eq!(t.take_logged(), [""; 0]);
    assert_eq!(t.run("HGETALL h"), "*2 $1 a $1 1 ");
}

#[test]
fn large_values_are_sent_from_where_they_lie() {
    let mut t = Runner::new();
    let large = "v".repeat(50_000);
    t.run(&format!("HSET h a {large} b 2"));
    assert_eq!(t.run("HGET h a"), format!("$50000 {large} "));
    assert_eq!(t.run("HMGET h a b"), format!("*2 $50000 {large} $1 2 "));
    assert_eq!(t.run("HGETDEL h FIELDS 1 a"), format!("*1 $50000 {large} "));
    t.assert_replay_equals_live();
}

/// The listpack with a place for expiries was dumped as one without, when no field had an expiry any more.
#[test]
fn a_hash_whose_expiries_are_gone_is_dumped_as_it_is() {
    let mut t = Runner::new();
    t.run("HSET h a 1 b 2");
    assert_eq!(t.run("HEXPIRE h 100 FIELDS 1 a"), "*1 :1 ");
    assert_eq!(t.run("HPERSIST h FIELDS 1 a"), "*1 :1 ");
    // It also compares what DUMP gives.
    t.assert_replay_equals_live();
}

/// One random command of the family.
fn random_line(random: &mut Random) -> String {
    let mut pick = |words: &[&'static str]| words[random.index(words.len())];
    let key = pick(&["a", "b", "c"]);
    let fields = ["f", "g", "h", "i", "j", "1", "22", "a-field-with-a-longer-name"];
    let (field, other) = (pick(&fields), pick(&fields));
    let value = pick(&["1", "-7", "0.5", "text", "9223372036854775807", "a-value-that-is-not-so-short", "''"]);
    let expiry = pick(&["", "KEEPTTL", "EX 1", "PX 15", "PXAT 1", "PX 5"]);
    match pick(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13"]) {
        "0" | "1" => format!("HSET {key} {field} {value} {other} 5"),
        "2" => format!("HSETNX {key} {field} {value}"),
        "3" => format!("HDEL {key} {field} {other}"),
        "4" => format!("HINCRBY {key} {field} {value}"),
        "5" => format!("HINCRBYFLOAT {key} {field} {value}"),
        "6" | "7" => {
            let condition = pick(&["", "NX", "XX", "GT", "LT"]);
            let time = pick(&["HPEXPIRE {k} 12", "HPEXPIRE {k} 30", "HEXPIRE {k} 1", "HPEXPIREAT {k} 1"]);
            format!("{} {condition} FIELDS 2 {field} {other}", time.replace("{k}", key))
        }
        "8" => format!("HPERSIST {key} FIELDS 2 {field} {other}"),
        "9" => format!("HGETEX {key} {} FIELDS 2 {field} {other}", expiry.replace("KEEPTTL", "PERSIST")),
        "10" => format!("HGETDEL {key} FIELDS 1 {field}"),
        "11" => {
            format!("HSETEX {key} {} {expiry} FIELDS 2 {field} {value} {other} 3", pick(&["", "", "FNX", "FXX"]))
        }
        "12" => format!("RENAME {key} {}", pick(&["a", "b", "c"])),
        _ => format!("HGETALL {key}"),
    }
}

#[test]
fn a_replay_of_random_commands_makes_the_same_hashes() {
    let mut random = Random::from_seed(5);
    let mut templated = 0;
    for round in 0..8 {
        let mut t = Runner::new();
        t.limits.hash_max_listpack_entries = [0, 3, 4, 512][round % 4];
        t.limits.hash_max_listpack_value = 20;
        t.limits.hash_templates = [Policy::NONE, Policy { entries_min: 1, entries_max: 2, sightings: 1 }][round / 4];
        for _ in 0..600 {
            let line = random_line(&mut random);
            t.run(&line);
            t.advance_ms(random.below(6) as i64);
            if random.below(15) == 0 {
                t.sweep(random.index(8));
            }
            templated += t.keyspace().counts().of(0).templated;
        }
        t.assert_replay_equals_live();
        t.advance_ms(100_000);
        while t.sweep(1000) {}
        t.assert_replay_equals_live();
    }
    assert!(templated > 100, "hashes that used a template, over all steps: {templated}");
}
