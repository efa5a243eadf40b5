//! Tests of the commands for streams.

use crate::base::random::Random;
use crate::core::table;
use crate::exec::testing::Runner;
use crate::resp::Resp;

#[test]
fn declarations_are_sound() {
    for command in super::COMMANDS {
        for each in std::iter::once(command).chain(command.subcommands()) {
            assert_eq!(table::mistake(each), None);
        }
    }
}

#[test]
fn an_entry_is_logged_with_its_id_and_what_trimming_came_to() {
    let mut t = Runner::new();
    assert_eq!(t.run("XADD s * a 1"), "$15 1700000000000-0 ");
    assert_eq!(t.run("XADD s * a 2"), "$15 1700000000000-1 ");
    assert_eq!(t.run("XADD s 1700000000000-* a 2"), "$15 1700000000000-2 ");
    t.advance_ms(1);
    assert_eq!(t.run("XADD s NOMKSTREAM MAXLEN 2 * a 3"), "$15 1700000000001-0 ");
    assert_eq!(t.run("XADD s MAXLEN ~ 1 LIMIT 0 * a 4"), "$15 1700000000001-1 ");
    assert_eq!(t.run("XADD other NOMKSTREAM * a 3"), "$-1 ");
    assert_eq!(
        t.take_logged(),
        [
            "XADD s 1700000000000-0 a 1",
            "XADD s 1700000000000-1 a 2",
            "XADD s 1700000000000-2 a 2",
            "XADD s 1700000000001-0 a 3",
            "XTRIM s 2",
            "XADD s 1700000000001-1 a 4",
        ]
    );
    // The clock went back, so the last id is incremented.
    t.advance_ms(-1000);
    assert_eq!(t.run("XADD s * a 5"), "$15 1700000000001-2 ");
    assert_eq!(t.run("XTRIM s MINID 1700000000001-1"), ":2 ");
    assert_eq!(t.run("XTRIM s MAXLEN 2"), ":0 ");
    assert_eq!(t.take_logged(), ["XADD s 1700000000001-2 a 5", "XTRIM s 2"]);
}

/// Two groups that have each been given 1-0 to 4-0 of five entries, and of which one has acknowledged 1-0 and 2-0.
fn two_groups() -> Runner {
    let mut t = Runner::new();
    t.limits.stream_node_max_entries = 2;
    for ms in 1..=5 {
        t.run(&format!("XADD s {ms}-0 a {ms}"));
    }
    for group in ["g", "h"] {
        t.run(&format!("XGROUP CREATE s {group} 0"));
        t.run(&format!("XREADGROUP GROUP {group} c COUNT 4 STREAMS s >"));
    }
    t.run("XACK s g 1-0 2-0");
    t
}

/// A line with the largest number for MAX.
fn with_max(line: &str) -> String {
    line.replace("MAX", "18446744073709551615")
}

/// How many records those are.
const TWO_GROUPS_LOGGED: usize = 10;

/// The ids of the entries, and of the pending entries in each of the two groups.
fn left(t: &mut Runner) -> String {
    let ids = |reply: String| -> String {
        let ids = reply.split(' ').filter_map(|word| word.strip_suffix("-0")).map(str::to_owned);
        ids.collect::<Vec<_>>().join(" ")
    };
    ["XRANGE s - +", "XPENDING s g - + 9", "XPENDING s h - + 9"].map(|line| ids(t.run(line))).join(" | ")
}

#[test]
fn entries_are_deleted_with_regard_to_groups() {
    assert_eq!(left(&mut two_groups()), "1 2 3 4 5 | 3 4 | 1 2 3 4");
    let both = "XFORGET s 1-0 3-0, XDEL s 1-0 3-0";
    for (line, reply, expected, logged) in [
        ("XDELEX s IDS 3 1-0 3-0 9-0", "*3 :1 :1 :-1 ", "2 4 5 | 3 4 | 1 2 3 4", "XDEL s 1-0 3-0"),
        ("XDELEX s KEEPREF IDS 2 1 1-0", "*2 :1 :-1 ", "2 3 4 5 | 3 4 | 1 2 3 4", "XDEL s 1-0"),
        ("XDELEX s DELREF IDS 3 1-0 3-0 9-0", "*3 :1 :1 :-1 ", "2 4 5 | 4 | 2 4", both),
        ("XDELEX s IDS 3 1-0 3-0 9-0 DELREF", "*3 :1 :1 :-1 ", "2 4 5 | 4 | 2 4", both),
        ("xdelex s acked ids 4 1-0 3-0 5-0 9-0", "*4 :2 :2 :2 :2 ", "1 2 3 4 5 | 3 4 | 1 2 3 4", ""),
        ("XACKDEL s h IDS 2 1-0 5-0", "*2 :1 :-1 ", "2 3 4 5 | 3 4 | 2 3 4", "XACK s h 1-0, XDEL s 1-0"),
        (
            "XACKDEL s g DELREF IDS 2 3-0 1-0",
            "*2 :1 :-1 ",
            "1 2 4 5 | 4 | 1 2 4",
            "XACK s g 3-0, XFORGET s 3-0, XDEL s 3-0",
        ),
        (
            "XACKDEL s h ACKED IDS 4 1-0 2-0 3-0 1-0",
            "*4 :1 :1 :2 :-1 ",
            "3 4 5 | 3 4 | 4",
            "XACK s h 1-0 2-0 3-0, XDEL s 1-0 2-0",
        ),
        ("XACKDEL s x ACKED IDS 2 1-0 2-0", "*2 :-1 :-1 ", "1 2 3 4 5 | 3 4 | 1 2 3 4", ""),
    ] {
        let mut t = two_groups();
        assert_eq!(t.run(line), reply, "{line}");
        assert_eq!(left(&mut t), expected, "{line}");
        t.assert_replay_equals_live();
        assert_eq!(t.take_logged().split_off(TWO_GROUPS_LOGGED).join(", "), logged, "{line}");
    }
}

#[test]
fn what_groups_keep_of_a_deleted_entry_still_counts() {
    let mut t = two_groups();
    t.run("XDEL s 3-0");
    assert_eq!(t.run("XDELEX s ACKED IDS 1 3-0"), "*1 :2 ");
    assert_eq!(t.run("XACKDEL s g ACKED IDS 1 3-0"), "*1 :2 ");
    assert_eq!(t.run("XACKDEL s h IDS 1 3-0"), "*1 :1 ");
    assert_eq!(t.run("XDELEX s ACKED IDS 1 3-0"), "*1 :-1 ");
    t.run("XDEL s 4-0");
    assert_eq!(t.run("XDELEX s DELREF IDS 2 4-0 4-0"), "*2 :-1 :-1 ");
    assert_eq!(left(&mut t), "1 2 5 |  | 1 2");
    // Without a group there are no references.
    t.run("XGROUP DESTROY s g");
    t.run("XGROUP DESTROY s h");
    assert_eq!(t.run("XDELEX s ACKED IDS 2 5-0 9-0"), "*2 :1 :-1 ");
    t.assert_replay_equals_live();
}

#[test]
fn trimming_spares_or_drops_what_groups_refer_to() {
    for (line, expected, logged) in [
        ("XTRIM s KEEPREF MAXLEN 3", "3 4 5 | 3 4 | 1 2 3 4", "XTRIM s 2"),
        ("XTRIM s MAXLEN 3 DELREF", "3 4 5 | 3 4 | 3 4", "XTRIM s 2, XFORGETUPTO s 2-MAX"),
        ("XTRIM s MINID ~ 4 DELREF", "4 5 | 4 | 4", "XTRIM s 3, XFORGETUPTO s 3-MAX"),
        ("XTRIM s MAXLEN 0 DELREF", " |  | ", "XTRIM s 5, XFORGETUPTO s MAX-MAX"),
        ("XTRIM s MAXLEN 0 ACKED", "1 2 3 4 5 | 3 4 | 1 2 3 4", ""),
        ("XADD s DELREF MAXLEN 3 6-0 a 1", "4 5 6 | 4 | 4", "XADD s 6-0 a 1, XTRIM s 3, XFORGETUPTO s 3-MAX"),
        ("XADD s NOMKSTREAM ACKED MAXLEN 1 6-0 a 1", "1 2 3 4 5 6 | 3 4 | 1 2 3 4", "XADD s 6-0 a 1"),
        ("XADD s KEEPREF 6-0 a 1", "1 2 3 4 5 6 | 3 4 | 1 2 3 4", "XADD s 6-0 a 1"),
    ] {
        let mut t = two_groups();
        t.run(line);
        assert_eq!(left(&mut t), expected, "{line}");
        t.assert_replay_equals_live();
        assert_eq!(t.take_logged().split_off(TWO_GROUPS_LOGGED).join(", "), with_max(logged), "{line}");
    }
    for (line, expected, logged) in [
        ("XTRIM s MAXLEN 0 ACKED", "1 3 | 3 | 1 3", "XTRIMACKED s 5-0"),
        ("XTRIM s ACKED MAXLEN 4", "1 3 4 5 | 3 | 1 3", "XTRIMACKED s 2-0"),
        ("XTRIM s ACKED MINID ~ 5", "1 3 5 | 3 | 1 3", "XTRIMACKED s 4-0"),
        ("XTRIM s ACKED MAXLEN ~ 0 LIMIT 2", "1 3 4 5 | 3 | 1 3", "XTRIMACKED s 2-0"),
        ("XADD s ACKED MAXLEN 4 6-0 a 1", "1 3 5 6 | 3 | 1 3", "XADD s 6-0 a 1, XTRIMACKED s 4-0"),
    ] {
        let mut t = two_groups();
        t.run("XACK s h 2-0 4-0");
        t.run("XACK s g 4-0");
        t.run("XGROUP SETID s g 5-0");
        t.run("XGROUP SETID s h 5-0");
        t.run(line);
        assert_eq!(left(&mut t), expected, "{line}");
        t.assert_replay_equals_live();
        assert_eq!(t.take_logged().split_off(TWO_GROUPS_LOGGED + 4).join(", "), logged, "{line}");
    }
}

/// Trimming by DELREF used to look at live entries alone: what was pending of an entry that XDEL had deleted before
/// stayed pending for ever, before the beginning of its stream.
#[test]
fn trimming_drops_what_groups_keep_of_entries_deleted_before() {
    let deleted = |ids: &str| {
        let mut t = two_groups();
        t.run(&format!("XDEL s {ids}"));
        t.take_logged();
        t
    };
    for (ids, line, reply, expected, logged) in [
        ("2-0 3-0", "XTRIM s MAXLEN 1 DELREF", ":2 ", "5 |  | ", "XTRIM s 2, XFORGETUPTO s 4-MAX"),
        ("2-0", "XTRIM s MAXLEN 3 DELREF", ":1 ", "3 4 5 | 3 4 | 3 4", "XTRIM s 1, XFORGETUPTO s 2-MAX"),
        ("2-0", "XTRIM s MAXLEN 4 DELREF", ":0 ", "1 3 4 5 | 3 4 | 1 2 3 4", ""),
        ("5-0 4-0", "XTRIM s MAXLEN 0 DELREF", ":3 ", " |  | ", "XTRIM s 3, XFORGETUPTO s MAX-MAX"),
        ("1-0 3-0", "XTRIM s MINID 4 DELREF", ":1 ", "4 5 | 4 | 4", "XTRIM s 1, XFORGETUPTO s 3-MAX"),
        ("2-0 3-0 4-0", "XTRIM s MINID 3 DELREF", ":1 ", "5 | 3 4 | 3 4", "XTRIM s 1, XFORGETUPTO s 2-MAX"),
        ("1-0 2-0 3-0", "XTRIM s MINID 4 DELREF", ":0 ", "4 5 | 4 | 4", "XFORGETUPTO s 3-MAX"),
        ("1-0 2-0 3-0", "XTRIM s MINID 4", ":0 ", "4 5 | 3 4 | 1 2 3 4", ""),
        ("2-0", "XTRIM s MINID ~ 5 LIMIT 1 DELREF", ":1 ", "3 4 5 | 3 4 | 3 4", "XTRIM s 1, XFORGETUPTO s 2-MAX"),
        (
            "1-0 2-0",
            "XADD s DELREF MAXLEN 2 6-0 a 1",
            "$3 6-0 ",
            "5 6 |  | ",
            "XADD s 6-0 a 1, XTRIM s 2, XFORGETUPTO s 4-MAX",
        ),
        (
            "1-0 2-0",
            "XADD s DELREF MINID 3 6-0 a 1",
            "$3 6-0 ",
            "3 4 5 6 | 3 4 | 3 4",
            "XADD s 6-0 a 1, XFORGETUPTO s 2-MAX",
        ),
        ("2-0", "XTRIM s MAXLEN 1 ACKED", ":0 ", "1 3 4 5 | 3 4 | 1 2 3 4", ""),
    ] {
        let mut t = deleted(ids);
        assert_eq!(t.run(line), reply, "{line}");
        assert_eq!(left(&mut t), expected, "{line}");
        assert_eq!(t.take_logged().join(", "), with_max(logged), "{line}");
        let mut t = two_groups();
        t.run(&format!("XDEL s {ids}"));
        t.run(line);
        t.assert_replay_equals_live();
    }
}

#[test]
fn even_the_last_id_there_is_can_be_trimmed() {
    let mut t = Runner::new();
    t.run("XADD s 5-0 a 1");
    t.run("XGROUP CREATE s g 0");
    t.run("XREADGROUP GROUP g c STREAMS s >");
    t.run("XADD s 18446744073709551615-18446744073709551615 a 1");
    t.run("XGROUP SETID s g $");
    assert_eq!(t.run("XTRIM s ACKED MAXLEN 0"), ":1 ");
    t.assert_replay_equals_live();
    assert_eq!(
        t.take_logged().last().map(String::as_str),
        Some("XTRIMACKED s 18446744073709551615-18446744073709551615")
    );
    assert_eq!(t.run("XRANGE s - +"), "*1 *2 $3 5-0 *2 $1 a $1 1 ");
}

#[test]
fn mistakes_in_what_to_delete_are_named_as_in_redis() {
    let mut t = two_groups();
    t.run("SET k v");
    t.take_logged();
    const POSITIVE: &str = "-ERR Number of IDs must be a positive integer ";
    const MATCH: &str = "-ERR The `numids` parameter must match the number of arguments ";
    const SYNTAX: &str = "-ERR syntax error ";
    const INVALID: &str = "-ERR Invalid stream ID specified as stream command argument ";
    for (line, error) in [
        ("IDS abc 1-1", POSITIVE),
        ("IDS 0 1-1", POSITIVE),
        ("IDS -5 1-1", POSITIVE),
        ("IDS 99999999999999999999 1-1", POSITIVE),
        ("IDS 3 1-1 2-2", MATCH),
        ("IDS 9223372036854775807 1-1", MATCH),
        ("IDS 1 1-1 2-2", SYNTAX),
        ("IDS 1 1-1 IDS 0 2-2", POSITIVE),
        ("KEEPREF DELREF IDS 1 1-1", SYNTAX),
        ("DELREF ACKED IDS 1 1-1", SYNTAX),
        ("ACKED IDS 1 1-1 ACKED", SYNTAX),
        ("ACKED DELREF KEEPREF", SYNTAX),
        ("FOO IDS 1 1-1", SYNTAX),
        ("KEEPREF 1-1 IDS", SYNTAX),
        ("IDS 2 1-1 abc", INVALID),
        ("IDS 2 1-1 -", INVALID),
    ] {
        for command in ["XDELEX s", "XACKDEL s g"] {
            assert_eq!(t.run(&format!("{command} {line}")), error, "{command} {line}");
        }
    }
    assert_eq!(t.run("XDELEX s IDS 1"), "-ERR wrong number of arguments for 'xdelex' command ");
    assert_eq!(t.run("XACKDEL s g IDS 1"), "-ERR wrong number of arguments for 'xackdel' command ");
    for command in ["XDELEX k", "XACKDEL k g"] {
        let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value ";
        assert_eq!(t.run(&format!("{command} IDS 1 1-1")), wrong_type);
    }
    // If the key or group is missing, the ids are not checked.
    for command in ["XDELEX none", "XACKDEL none g", "XACKDEL s none"] {
        assert_eq!(t.run(&format!("{command} DELREF IDS 2 1-1 abc")), "*2 :-1 :-1 ", "{command}");
    }
    for line in ["XTRIM s ACKED MAXLEN 1 ACKED", "XTRIM s ACKED DELREF MAXLEN 1", "XTRIM s ACKED FOO MAXLEN 1"] {
        assert_eq!(t.run(line), SYNTAX, "{line}");
    }
    let no_strategy = "-ERR syntax error, XTRIM must be called with a trimming strategy ";
    assert_eq!(t.run("XTRIM s ACKED"), "-ERR wrong number of arguments for 'xtrim' command ");
    assert_eq!(t.run("XTRIM s ACKED FOO"), SYNTAX);
    assert_eq!(t.run("XTRIM s ACKED LIMIT 0"), no_strategy);
    assert_eq!(t.run("XADD s ACKED DELREF 9-9 a 1"), "-ERR Invalid stream ID specified as stream command argument ");
    assert_eq!(t.run("XADD s ACKED 9-9 a"), "-ERR wrong number of arguments for 'xadd' command ");
    assert_eq!(t.take_logged(), [""; 0]);
    assert_eq!(left(&mut t), "1 2 3 4 5 | 3 4 | 1 2 3 4");
}

#[test]
fn nothing_changed_is_nothing_logged() {
    let mut t = Runner::new();
    t.run("XADD s 1-1 a 1");
    t.run("XGROUP CREATE s g $");
    t.run("XGROUP CREATECONSUMER s g c");
    t.run("SET k v");
    t.take_logged();
    for line in [
        "XADD s 1-1 a 1",
        "XADD s 0-0 a 1",
        "XADD k * a 1",
        "XADD none NOMKSTREAM * a 1",
        "XDEL s 2-2",
        "XDEL none 1-1",
        "XTRIM s MAXLEN 1",
        "XTRIM none MAXLEN 1",
        "XACK s g 1-1",
        "XACK s g2 1-1",
        "XACK s g 1-1 abc",
        "XGROUP CREATE s g 0",
        "XGROUP CREATE none g 0",
        "XGROUP CREATE none g abc MKSTREAM",
        "XGROUP CREATECONSUMER s g c",
        "XGROUP DELCONSUMER s g d",
        "XGROUP DESTROY s h",
        "XCLAIM s h c 0 1-1",
        "XCLAIM s g c 0 1-1 FOO",
        "XAUTOCLAIM s h c 0 0",
        "XREADGROUP GROUP h c STREAMS s >",
        "XREADGROUP GROUP g c STREAMS s none > >",
        "XREADGROUP GROUP g c STREAMS s abc",
        "XREADGROUP GROUP g c STREAMS s >",
        "XREADGROUP GROUP g c STREAMS s s > >",
        "XREADGROUP GROUP g c STREAMS s 0",
        "XREADGROUP GROUP g c BLOCK 5 STREAMS s >",
        "XCLAIM s g c 0 1-1",
        "XCLAIM s g c 0 1-1 LASTID 1-1",
        "XAUTOCLAIM s g c 0 0",
        "XSETID s 0-1",
        "XREAD STREAMS s 0",
        "XINFO STREAM s FULL",
    ] {
        t.run(line);
        assert_eq!(t.take_logged(), [""; 0], "{line}");
    }
    assert_eq!(t.run("EXISTS none"), ":0 ");
}

#[test]
fn deliveries_and_claims_are_logged_with_their_times() {
    let mut t = Runner::new();
    for ms in 1..=5 {
        t.run(&format!("XADD s {ms}-0 a {ms}"));
    }
    t.run("XGROUP CREATE s g 0");
    t.run("XREADGROUP GROUP g c COUNT 3 STREAMS s >");
    t.advance_ms(10);
    t.run("XREADGROUP GROUP g c STREAMS s 1");
    t.run("XREADGROUP GROUP g d NOACK STREAMS s >");
    t.run("XREADGROUP GROUP g f STREAMS s >");
    t.advance_ms(10);
    t.run("XCLAIM s g e 5 2-0 9-0 TIME 77 RETRYCOUNT 8");
    t.run("XDEL s 3-0");
    t.run("XAUTOCLAIM s g f 0 0 COUNT 3 JUSTID");
    t.run("XCLAIM s g f 999999 1-0 LASTID 6");
    t.run("XGROUP CREATECONSUMER s g h");
    t.run("XACK s g 1-0 2-0 7-7");
    t.assert_replay_equals_live();
    let logged = t.take_logged().split_off(6);
    let logged: Vec<String> = logged.iter().map(|line| line.replace("17000000000", "T")).collect();
    assert_eq!(
        logged,
        [
            "XDELIVER s g c 3-0 3 T00 T00 1-0@T00x1 2-0@T00x1 3-0@T00x1",
            "XDELIVER s g c 3-0 3 T10 T00 2-0@T10x2 3-0@T10x2",
            "XDELIVER s g d 5-0 5 T10 -1",
            "XDELIVER s g f 5-0 5 T10 -1",
            "XDELIVER s g e 5-0 5 T20 T20 2-0@77x8",
            "XDEL s 3-0",
            "XDELIVER s g f 5-0 5 T20 T20 1-0@T20x1 2-0@T20x8 -3-0",
            "XDELIVER s g f 6-0 5 T20 T20",
            "XDELIVER s g h 6-0 5 T20 -1",
            "XACK s g 1-0 2-0",
        ]
    );
}

#[test]
fn who_asks_in_vain_is_seen_and_not_logged() {
    let mut t = Runner::new();
    t.run("XADD s 1-1 a 1");
    t.run("XGROUP CREATE s g $");
    t.run("XGROUP CREATECONSUMER s g c");
    t.take_logged();
    for line in ["XREADGROUP GROUP g c STREAMS s >", "XCLAIM s g c 0 9-9", "XAUTOCLAIM s g c 0 0"] {
        t.advance_ms(70);
        assert!(t.run("XINFO CONSUMERS s g").contains("$4 idle :70 "), "{line}");
        t.run(line);
        assert!(t.run("XINFO CONSUMERS s g").contains("$4 idle :0 "), "{line}");
    }
    assert_eq!(t.take_logged(), [""; 0]);
}

#[test]
fn no_client_can_send_what_only_the_log_holds() {
    let mut t = Runner::new();
    t.run("XADD s 1-1 a 1");
    for line in ["XDELIVER s g c 1 > 1 KEEP", "XDELIVERED s g c 1 > 1 KEEP", "STATE s 10 x", "XFORGET s 1-1"] {
        assert!(t.run(line).starts_with("-ERR unknown command"), "{line}");
    }
}

#[test]
fn streams_are_a_map_in_the_newer_protocol() {
    let mut t = Runner::new();
    t.run("XADD s 1-1 a 1");
    t.run("XGROUP CREATE s g 0");
    assert_eq!(t.run("XREAD STREAMS s none 0 0"), "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 a $1 1 ");
    assert_eq!(t.run("XREAD STREAMS s $"), "*-1 ");
    assert_eq!(t.run("XREAD BLOCK 0 STREAMS s $"), "*-1 ");
    t.resp = Resp::V3;
    assert_eq!(t.run("XREAD STREAMS s none 0 0"), "%1 $1 s *1 *2 $3 1-1 *2 $1 a $1 1 ");
    assert_eq!(t.run("XREADGROUP GROUP g c STREAMS s >"), "%1 $1 s *1 *2 $3 1-1 *2 $1 a $1 1 ");
    t.run("XDEL s 1-1");
    assert_eq!(t.run("XREADGROUP GROUP g c STREAMS s 0"), "%1 $1 s *1 *2 $3 1-1 _ ");
    assert_eq!(t.run("XREADGROUP GROUP g c STREAMS s >"), "_ ");
}

#[test]
fn a_consumer_claims_what_is_idle_before_it_reads_on() {
    let mut t = Runner::new();
    for id in 1..=5 {
        t.run(&format!("XADD s {id}-0 f {id}"));
    }
    t.run("XGROUP CREATE s g 0");
    t.run("XREADGROUP GROUP g c COUNT 1 STREAMS s >");
    t.advance_ms(50);
    t.run("XREADGROUP GROUP g c COUNT 2 STREAMS s >");
    t.advance_ms(50);
    t.run("XDEL s 2-0");
    let claimed = t.run("XREADGROUP GROUP g d COUNT 2 CLAIM 60 STREAMS s >");
    assert_eq!(claimed, "*1 *2 $1 s *2 *4 $3 1-0 *2 $1 f $1 1 :100 :1 *2 $3 4-0 *2 $1 f $1 4 ");
    let claimed = t.run("XREADGROUP GROUP g e CLAIM 50 NOACK STREAMS s >");
    assert_eq!(claimed, "*1 *2 $1 s *2 *4 $3 3-0 *2 $1 f $1 3 :50 :1 *2 $3 5-0 *2 $1 f $1 5 ");
    let pending = t.run("XPENDING s g - + 9");
    assert_eq!(pending, "*4 *4 $3 1-0 $1 d :0 :2 *4 $3 2-0 $1 c :50 :1 *4 $3 3-0 $1 e :0 :2 *4 $3 4-0 $1 d :0 :1 ");
    assert_eq!(t.run("XREADGROUP GROUP g e CLAIM 1 STREAMS s >"), "*-1 ");
    assert_eq!(t.run("XREADGROUP GROUP g e CLAIM 1 STREAMS s 0"), "*1 *2 $1 s *1 *2 $3 3-0 *2 $1 f $1 3 ");
    t.assert_replay_equals_live();
}

#[test]
fn a_budget_counts_over_all_streams() {
    let mut t = Runner::new();
    t.run("XADD s 1-0 f a");
    t.run("XADD s 2-0 f b");
    t.run("XADD t 1-0 f c");
    t.run("XGROUP CREATE s g 0");
    t.run("XGROUP CREATE t g 0");
    let (first, second) = ("*2 $3 1-0 *2 $1 f $1 a ", "*2 $3 2-0 *2 $1 f $1 b ");
    assert_eq!(t.run("XREAD MAXCOUNT 1 STREAMS s t 0 0"), format!("*1 *2 $1 s *1 {first}"));
    assert_eq!(t.run("XREAD MAXSIZE 1 STREAMS s t 0 0"), format!("*1 *2 $1 s *1 {first}"));
    // An entry is 31 bytes.
    assert_eq!(t.run("XREAD MAXSIZE 61 STREAMS s t 0 0"), format!("*1 *2 $1 s *1 {first}"));
    assert_eq!(t.run("XREAD MAXSIZE 62 STREAMS s t 0 0"), format!("*1 *2 $1 s *2 {first}{second}"));
    let read = "XREADGROUP GROUP g c MAXCOUNT 1 STREAMS s t > >";
    assert_eq!(t.run(read), format!("*1 *2 $1 s *1 {first}"));
    assert_eq!(t.run("XPENDING t g"), "*4 :0 $-1 $-1 *-1 ");
    assert_eq!(t.run(read), format!("*1 *2 $1 s *1 {second}"));
    assert_eq!(t.run(read), "*1 *2 $1 t *1 *2 $3 1-0 *2 $1 f $1 c ");
    assert_eq!(t.run(read), "*-1 ");
    assert_eq!(t.run("XREADGROUP GROUP g c MAXCOUNT 1 STREAMS s t 0 0"), format!("*1 *2 $1 s *1 {first}"));
    assert_eq!(t.run("XREADGROUP GROUP g d MAXCOUNT 1 STREAMS s 0"), "*1 *2 $1 s *0 ");
    for line in ["XREAD MAXCOUNT 0 STREAMS s 0", "XREAD MAXSIZE -1 STREAMS s 0"] {
        assert!(t.run(line).contains("should be greater than 0"), "{line}");
    }
    t.assert_replay_equals_live();
}

#[test]
fn the_same_stream_twice_gives_new_entries_once() {
    let mut t = Runner::new();
    t.run("XADD s 1-1 a 1");
    t.run("XGROUP CREATE s g 0");
    let reply = t.run("XREADGROUP GROUP g c STREAMS s s s > > 0");
    assert_eq!(reply, "*2 *2 $1 s *1 *2 $3 1-1 *2 $1 a $1 1 *2 $1 s *1 *2 $3 1-1 *2 $1 a $1 1 ");
    assert_eq!(t.run("XPENDING s g - + 5"), "*1 *4 $3 1-1 $1 c :0 :2 ");
    t.assert_replay_equals_live();
}

#[test]
fn a_group_named_as_the_option_keeps_its_place() {
    let mut t = Runner::new();
    t.run("XADD s 1-1 a 1");
    t.run("XGROUP CREATE s STREAMS 0");
    assert!(t.run("XREADGROUP GROUP STREAMS c COUNT 1 STREAMS s >").starts_with("*1 *2 $1 s "));
    assert!(t.run("XREADGROUP COUNT 1 GROUP STREAMS c STREAMS s >").starts_with("-ERR "));
}

#[test]
fn replay_makes_what_random_commands_made() {
    let mut t = Runner::new();
    t.limits.stream_node_max_entries = 4;
    t.limits.stream_node_max_bytes = 150;
    let mut random = Random::from_seed(23);
    let mut pick = |words: &[&str]| words[random.index(words.len())].to_owned();
    let mut last = 1u64;
    for step in 0..4000 {
        let (key, group, consumer) = (pick(&["s1", "s2"]), pick(&["g", "h"]), pick(&["a", "b", "c"]));
        let back: u64 = pick(&["0", "1", "2", "5", "9", "20"]).parse().unwrap();
        let id = format!("{}-{}", last.saturating_sub(back), pick(&["0", "1"]));
        let line = match pick(&[
            "add", "add", "add", "read", "read", "history", "ack", "del", "trim", "claim", "auto", "create",
            "consumer", "setid", "rename", "delex", "ackdel", "nack", "produce", "window",
        ])
        .as_str()
        {
            "add" => {
                last += 1;
                let trim = pick(&["", "", "", "MAXLEN ~ 10", "MAXLEN 20", "MINID ~ 5", "MAXLEN ~ 8 LIMIT 5"]);
                let policy = pick(&["", "KEEPREF", "DELREF", "ACKED"]);
                format!("XADD {key} {policy} {trim} {last}-* {} {step}", pick(&["a", "a", "b", "a 1 b"]))
            }
            "read" => {
                let options = pick(&[
                    "",
                    "NOACK",
                    "COUNT 1",
                    "COUNT 3",
                    "CLAIM 5",
                    "CLAIM 9 NOACK COUNT 2",
                    "MAXCOUNT 2",
                    "CLAIM 2 MAXSIZE 90",
                ]);
                format!("XREADGROUP GROUP {group} {consumer} {options} STREAMS {key} >")
            }
            "history" => format!("XREADGROUP GROUP {group} {consumer} COUNT 3 STREAMS {key} {key} {id} >"),
            "ack" => format!("XACK {key} {group} {id} {last}-0"),
            "del" => format!("XDEL {key} {id}"),
            "trim" => {
                let (how, len) = (pick(&["MAXLEN ~", "MAXLEN ="]), pick(&["5", "9", "30"]));
                format!("XTRIM {key} {how} {len} {}", pick(&["", "DELREF", "ACKED"]))
            }
            "delex" => {
                format!(
                    "XDELEX {key} {} IDS 3 {id} {last}-0 {}-0",
                    pick(&["", "DELREF", "ACKED"]),
                    last.saturating_sub(3)
                )
            }
            "ackdel" => {
                let policy = pick(&["KEEPREF", "DELREF", "ACKED"]);
                format!("XACKDEL {key} {group} IDS 2 {id} {}-0 {policy}", last.saturating_sub(2))
            }
            "claim" => {
                let options = pick(&["", "FORCE", "JUSTID", "RETRYCOUNT 5", "IDLE 7", "FORCE LASTID 3"]);
                format!("XCLAIM {key} {group} {consumer} {} {id} {last}-0 {options}", pick(&["0", "5"]))
            }
            "nack" => {
                let options = pick(&["", "FORCE", "RETRYCOUNT 5", "FORCE RETRYCOUNT 0"]);
                let ids = format!("IDS 3 {id} {last}-0 {}-0", last.saturating_sub(2));
                format!("XNACK {key} {group} {} {ids} {options}", pick(&["SILENT", "FAIL", "FATAL"]))
            }
            // In streams of their own: the ids follow the clock.
            "produce" => {
                let (producer, iid) = (pick(&["p", "q"]), pick(&["1", "2", "3", "4", "5"]));
                format!("XADD p{key} MAXLEN ~ 9 IDMP {producer} {iid} * a {step}")
            }
            "window" => pick(&["XCFGSET ps1 IDMP-MAXSIZE 3", "XCFGSET ps2 IDMP-DURATION 1", "COPY ps1 ps2 REPLACE"]),
            "auto" => format!("XAUTOCLAIM {key} {group} {consumer} {} 0 COUNT 2", pick(&["0", "9"])),
            "create" => format!("XGROUP CREATE {key} {group} {} MKSTREAM", pick(&["$", "0"])),
            "consumer" => format!("XGROUP {} {key} {group} {consumer}", pick(&["DELCONSUMER", "CREATECONSUMER"])),
            "setid" => format!("XGROUP SETID {key} {group} {id} ENTRIESREAD {}", pick(&["-1", "7"])),
            _ => pick(&["COPY s1 s2 REPLACE", "XGROUP DESTROY s2 h", "XSETID s1 999-0", "DEL s2", "RENAME s1 s2"]),
        };
        t.run(&line);
        t.advance_ms((step % 4) as i64);
        if step % 500 == 0 {
            t.advance_ms(100_000);
        }
    }
    t.assert_replay_equals_live();
}

#[test]
fn a_dumped_stream_is_restored_with_its_groups() {
    let mut t = Runner::new();
    for ms in 1..=9 {
        t.run(&format!("XADD s {ms}-0 a {ms} b x"));
    }
    t.run("XDEL s 4-0");
    t.run("XGROUP CREATE s g 2 ENTRIESREAD 2");
    t.run("XGROUP CREATE s empty $");
    t.run("XREADGROUP GROUP g c COUNT 3 STREAMS s >");
    t.run("XREADGROUP GROUP g d COUNT 1 STREAMS s >");
    t.run("XGROUP CREATECONSUMER s g idle");
    let payload = {
        let shard = t.keyspace().lock(t.keyspace().key(b"s").shard());
        let key = t.keyspace().key(b"s");
        crate::command::keys::dump::payload(shard.directory(0).unwrap().get(key.hash, key.bytes).unwrap().value())
    };
    let restored = t.run_words(&[b"RESTORE".to_vec(), b"copy".to_vec(), b"0".to_vec(), payload]);
    assert_eq!(restored, "+OK ");
    // The payload is one that Redis 7.0 reads: it does not say when consumers were active, but when they were seen.
    let full =
        |t: &mut Runner, key: &str| t.run(&format!("XINFO STREAM {key} FULL")).replace(":-1 ", ":1700000000000 ");
    let (original, copy) = (full(&mut t, "s"), full(&mut t, "copy"));
    assert_eq!(original, copy);
    t.assert_replay_equals_live();
}
