//! Tests of entries that consumers hand back.

use crate::exec::testing::Runner;

/// A group whose consumer c has the first four of five entries, for a second.
fn four_pending() -> Runner {
    let mut t = Runner::new();
    for ms in 1..=5 {
        t.run(&format!("XADD s {ms}-0 a {ms}"));
    }
    t.run("XGROUP CREATE s g 0");
    t.run("XREADGROUP GROUP g c COUNT 4 STREAMS s >");
    t.advance_ms(1000);
    t
}

#[test]
fn what_is_handed_back_is_nobodys_and_counted_as_the_mode_says() {
    let mut t = four_pending();
    t.run("XCLAIM s g c 0 1-0 2-0 3-0");
    t.advance_ms(7);
    assert_eq!(t.run("XNACK s g SILENT IDS 2 1-0 9-0"), ":1 ");
    assert_eq!(t.run("XNACK s g FAIL IDS 1 2-0"), ":1 ");
    assert_eq!(t.run("XNACK s g FATAL IDS 1 3-0"), ":1 ");
    let listed = "*4 *4 $3 1-0 $0  :-1 :1 *4 $3 2-0 $0  :-1 :2 *4 $3 3-0 $0  :-1 :9223372036854775807 \
                  *4 $3 4-0 $1 c :1007 :1 ";
    assert_eq!(t.run("XPENDING s g - + 9"), listed);
    assert_eq!(t.run("XPENDING s g IDLE 9999999 - + 9").matches("*4").count(), 3, "they are idle for long enough");
    assert_eq!(t.run("XPENDING s g - + 9 c"), "*1 *4 $3 4-0 $1 c :1007 :1 ");
    assert_eq!(t.run("XPENDING s g"), "*4 :4 $3 1-0 $3 4-0 *1 *2 $1 c $1 1 ");
    assert!(
        t.run("XINFO STREAM s FULL").contains("pel-count :4 $12 nacked-count :3 $7 pending *4 *4 $3 1-0 $0  :0 :1 ")
    );
    assert!(t.run("XINFO CONSUMERS s g").contains("$7 pending :1 "));
    assert_eq!(t.run("XREADGROUP GROUP g d STREAMS s >"), "*1 *2 $1 s *1 *2 $3 5-0 *2 $1 a $1 5 ", "they are old");
    assert_eq!(t.run("XREADGROUP GROUP g c STREAMS s 0"), "*1 *2 $1 s *1 *2 $3 4-0 *2 $1 a $1 4 ");
    // Once more does not wrap around.
    t.run("XCLAIM s g d 0 3-0");
    assert!(t.run("XPENDING s g 3-0 3-0 1").ends_with(":9223372036854775807 "));
    t.assert_replay_equals_live();
    assert!(t.take_logged().contains(&"XNACK s g 3-0x9223372036854775807".to_owned()));
}

#[test]
fn what_is_handed_back_first_is_claimed_first() {
    let mut t = four_pending();
    t.run("XCLAIM s g c 0 2-0 IDLE 500000");
    for id in [4, 1, 3, 4] {
        assert_eq!(t.run(&format!("XNACK s g FAIL IDS 1 {id}-0")), ":1 ");
    }
    let ids = |reply: String| -> Vec<String> {
        reply.split(' ').filter_map(|word| word.strip_suffix("-0")).map(str::to_owned).collect()
    };
    let line = "XREADGROUP GROUP g d CLAIM 100000 COUNT 2 STREAMS s >";
    assert_eq!(ids(t.run(line)), ["1", "3"]);
    assert_eq!(ids(t.run(line)), ["4", "2"]);
    assert_eq!(ids(t.run(line)), ["5"]);
    assert!(t.run("XINFO STREAM s FULL").contains("nacked-count :0"));
    t.assert_replay_equals_live();
}

#[test]
fn other_commands_take_what_is_handed_back() {
    let mut t = four_pending();
    t.run("XNACK s g FAIL IDS 4 1-0 2-0 3-0 4-0");
    assert_eq!(t.run("XCLAIM s g d 999999999999999 1-0 JUSTID"), "*1 $3 1-0 ", "however long it must have been idle");
    assert_eq!(t.run("XAUTOCLAIM s g d 999999999999999 0 COUNT 1 JUSTID"), "*3 $3 3-0 *1 $3 2-0 *0 ");
    assert_eq!(t.run("XACK s g 3-0"), ":1 ");
    assert_eq!(t.run("XDELEX s ACKED IDS 1 4-0"), "*1 :2 ");
    assert_eq!(t.run("XDELEX s DELREF IDS 1 4-0"), "*1 :1 ");
    assert_eq!(t.run("XPENDING s g"), "*4 :2 $3 1-0 $3 2-0 *1 *2 $1 d $1 2 ");
    t.run("XNACK s g FAIL IDS 1 1-0");
    assert_eq!(t.run("XGROUP DELCONSUMER s g d"), ":1 ");
    assert_eq!(t.run("XPENDING s g - + 9"), "*1 *4 $3 1-0 $0  :-1 :1 ");
    t.assert_replay_equals_live();
}

#[test]
fn an_entry_that_is_not_pending_is_handed_back_by_force() {
    let mut t = four_pending();
    assert_eq!(t.run("XNACK s g SILENT IDS 2 5-0 9-0"), ":0 ");
    assert_eq!(t.run("XNACK s g SILENT IDS 2 5-0 9-0 FORCE"), ":1 ");
    assert_eq!(t.run("XNACK s g FATAL IDS 2 1-0 1-0 RETRYCOUNT 7 FORCE"), ":2 ");
    assert!(t.run("XPENDING s g 1-0 1-0 1").ends_with(":-1 :7 "));
    assert!(t.run("XPENDING s g 5-0 5-0 1").ends_with(":-1 :0 "));
    t.assert_replay_equals_live();
    // They are handed on by DUMP, in their order.
    let dump = t.reply_bytes(&crate::exec::testing::words("DUMP s"));
    let start = dump.iter().position(|byte| *byte == b'\n').expect("a length") + 1;
    let payload = &dump[start..dump.len() - 2];
    assert_eq!(payload[0], 27, "the type of Redis 8.8");
    assert_eq!(t.run_words(&[&b"RESTORE"[..], b"t", b"0", payload].map(<[u8]>::to_vec)), "+OK ");
    let pending = t.run("XPENDING s g - + 9");
    assert_eq!(t.run("XPENDING t g - + 9"), pending);
    let claimed = t.run("XREADGROUP GROUP g d CLAIM 0 COUNT 2 STREAMS t >");
    assert!(claimed.find("5-0").expect("it is first") < claimed.find("1-0").expect("it is second"), "{claimed}");
    t.assert_replay_equals_live();
}

#[test]
fn the_ids_and_the_options_come_in_any_order() {
    let mut t = four_pending();
    assert_eq!(t.run("XNACK s g FAIL FORCE RETRYCOUNT 7 IDS 1 5-0"), ":1 ");
    assert!(t.run("XPENDING s g 5-0 5-0 1").ends_with(":-1 :7 "));
    assert_eq!(t.run("XNACK s g FAIL RETRYCOUNT 1 IDS 2 1-0 2-0 RETRYCOUNT 3 IDS 1 3-0"), ":1 ", "the last ones");
    assert!(t.run("XPENDING s g 3-0 3-0 1").ends_with(":-1 :3 "));
    assert!(t.run("XPENDING s g 1-0 1-0 1").ends_with("$1 c :1000 :1 "));
    t.assert_replay_equals_live();
}

#[test]
fn what_is_handed_back_twice_counts_twice_and_goes_to_the_end() {
    let mut t = four_pending();
    t.run("XCLAIM s g c 0 1-0 RETRYCOUNT 5");
    assert_eq!(t.run("XNACK s g SILENT IDS 2 1-0 2-0"), ":2 ");
    assert_eq!(t.run("XNACK s g SILENT IDS 2 1-0 1-0"), ":2 ");
    assert!(t.run("XPENDING s g 1-0 1-0 1").ends_with(":-1 :2 "));
    let claimed = t.run("XREADGROUP GROUP g d CLAIM 0 COUNT 2 STREAMS s >");
    assert!(claimed.find("2-0").expect("it is first") < claimed.find("1-0").expect("it is second"), "{claimed}");
    t.assert_replay_equals_live();
}

#[test]
fn nobody_is_told_of_an_event() {
    let mut t = four_pending();
    t.take_told();
    assert_eq!(t.run("XNACK s g FAIL IDS 1 1-0"), ":1 ");
    assert_eq!(t.run("XCFGSET s IDMP-DURATION 9"), "+OK ");
    assert_eq!(t.take_told(), Vec::<String>::new(), "Redis sends none either");
}

#[test]
fn mistakes_are_told_in_their_order() {
    let mut t = four_pending();
    for (line, error) in [
        ("XNACK no g FAIL IDS 1 1-0", "-NOGROUP No such key 'no' or consumer group 'g' "),
        ("XNACK s no FOO IDS 1 1-0", "-NOGROUP No such key 's' or consumer group 'no' "),
        ("XNACK s g FOO IDS 1 1-0", "-ERR mode must be SILENT, FAIL, or FATAL "),
        ("XNACK s g FAIL ID 1 1-0", "-ERR Unrecognized XNACK option 'ID' "),
        ("XNACK s g FAIL FATAL IDS 1 1-0", "-ERR Unrecognized XNACK option 'FATAL' "),
        ("XNACK s g FAIL FORCE RETRYCOUNT 5", "-ERR syntax error, expected IDS keyword "),
        ("XNACK s g FAIL FORCE FORCE IDS", "-ERR Unrecognized XNACK option 'IDS' "),
        ("XNACK s g FAIL IDS 0 1-0", "-ERR numids must be a positive integer "),
        ("XNACK s g FAIL IDS x 1-0", "-ERR numids must be a positive integer "),
        ("XNACK s g FAIL IDS 2 1-0", "-ERR number of IDs doesn't match numids "),
        ("XNACK s g FAIL IDS 2147483647 1-0", "-ERR number of IDs doesn't match numids "),
        ("XNACK s g FAIL IDS 2147483648 1-0", "-ERR numids must be a positive integer "),
        ("XNACK s g FAIL IDS 1 x FOO", "-ERR Unrecognized XNACK option 'FOO' "),
        ("XNACK s g FAIL IDS 1 x", "-ERR Invalid stream ID specified as stream command argument "),
        ("XNACK s g FAIL IDS 1 1-0 2-0", "-ERR Unrecognized XNACK option '2-0' "),
        ("XNACK s g FAIL IDS 1 1-0 RETRYCOUNT", "-ERR Unrecognized XNACK option 'RETRYCOUNT' "),
        ("XNACK s g FAIL IDS 1 1-0 RETRYCOUNT x", "-ERR value is not an integer or out of range "),
        ("XNACK s g FAIL IDS 1 1-0 RETRYCOUNT -1", "-ERR Invalid RETRYCOUNT value, must be >= 0 "),
    ] {
        assert_eq!(t.run(line), error, "{line}");
    }
    t.run("SET k v");
    assert!(t.run("XNACK k g FAIL IDS 1 1-0").starts_with("-WRONGTYPE"));
}
