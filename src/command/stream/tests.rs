//! Tests of the commands for streams.

use crate::base::random::Random;
use crate::command::table;
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
            "XADD s MAXLEN 2 1700000000001-0 a 3",
            "XADD s 1700000000001-1 a 4",
        ]
    );
    // Back in time: the last id counts on.
    t.advance_ms(-1000);
    assert_eq!(t.run("XADD s * a 5"), "$15 1700000000001-2 ");
    assert_eq!(t.run("XTRIM s MINID 1700000000001-1"), ":2 ");
    assert_eq!(t.run("XTRIM s MAXLEN 2"), ":0 ");
    assert_eq!(t.take_logged(), ["XADD s 1700000000001-2 a 5", "XTRIM s MAXLEN 2"]);
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
    assert_eq!(
        t.take_logged()[6..],
        [
            "XDELIVERED s g c 1700000000000 > 3 KEEP",
            "XDELIVERED s g c 1700000000010 1-0 2 KEEP",
            "XDELIVERED s g d 1700000000010 > 2 NOACK",
            "XDELIVERED s g f 1700000000010 > 0 KEEP",
            "XCLAIMED s g e 1700000000020 77 8 - 0-0 2-0",
            "XDEL s 3-0",
            "XCLAIMED s g f 1700000000020 1700000000020 = - 0-0 1-0 2-0 3-0",
            "XCLAIMED s g f 1700000000020 1700000000020 +1 - 6-0",
            "XDELIVERED s g h 1700000000020 > 0 KEEP",
            "XACK s g 1-0 2-0 7-7",
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
    for line in ["XDELIVERED s g c 1 > 1 KEEP", "XCLAIMED s g c 1 1 +1 - 0-0"] {
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
            "consumer", "setid", "rename",
        ])
        .as_str()
        {
            "add" => {
                last += 1;
                let trim = pick(&["", "", "", "MAXLEN ~ 10", "MAXLEN 20", "MINID ~ 5", "MAXLEN ~ 8 LIMIT 5"]);
                format!("XADD {key} {trim} {last}-* {} {step}", pick(&["a", "a", "b", "a 1 b"]))
            }
            "read" => {
                let options = pick(&["", "NOACK", "COUNT 1", "COUNT 3"]);
                format!("XREADGROUP GROUP {group} {consumer} {options} STREAMS {key} >")
            }
            "history" => format!("XREADGROUP GROUP {group} {consumer} COUNT 3 STREAMS {key} {key} {id} >"),
            "ack" => format!("XACK {key} {group} {id} {last}-0"),
            "del" => format!("XDEL {key} {id}"),
            "trim" => format!("XTRIM {key} {} {}", pick(&["MAXLEN ~", "MAXLEN ="]), pick(&["5", "9", "30"])),
            "claim" => {
                let options = pick(&["", "FORCE", "JUSTID", "RETRYCOUNT 5", "IDLE 7", "FORCE LASTID 3"]);
                format!("XCLAIM {key} {group} {consumer} {} {id} {last}-0 {options}", pick(&["0", "5"]))
            }
            "auto" => format!("XAUTOCLAIM {key} {group} {consumer} {} 0 COUNT 2", pick(&["0", "9"])),
            "create" => format!("XGROUP CREATE {key} {group} {} MKSTREAM", pick(&["$", "0"])),
            "consumer" => format!("XGROUP {} {key} {group} {consumer}", pick(&["DELCONSUMER", "CREATECONSUMER"])),
            "setid" => format!("XGROUP SETID {key} {group} {id} ENTRIESREAD {}", pick(&["-1", "7"])),
            _ => pick(&["COPY s1 s2 REPLACE", "XGROUP DESTROY s2 h", "XSETID s1 999-0", "DEL s2", "RENAME s1 s2"]),
        };
        t.run(&line);
        t.advance_ms((step % 4) as i64);
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
        crate::command::dump::payload(shard.directory(0).unwrap().get(key.hash, key.bytes).unwrap().value())
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
