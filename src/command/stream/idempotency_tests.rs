//! Tests of entries that producers add once.

use super::*;
use crate::exec::testing::Runner;

#[test]
fn a_computed_id_is_that_of_the_pairs_in_any_order() {
    let iid = |words: &[&str]| iid_of(words.iter().map(|word| word.as_bytes()));
    assert_eq!(iid(&["a", "1", "b", "2"]), iid(&["b", "2", "a", "1"]));
    let others = [&["a", "1"][..], &["a", "1", "a", "1"], &["a", "2", "b", "1"], &["ab", "1", "", "2"], &["", "a1"]];
    for (at, words) in others.iter().enumerate() {
        assert_ne!(iid(words), iid(&["a", "1", "b", "2"]), "{words:?}");
        assert!(others[..at].iter().all(|other| iid(other) != iid(words)), "{words:?}");
    }
    // Snapshots hold such ids: this is for ever.
    let hex: String = iid(&["a", "1", "b", "2"]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "eca25b492d71ba963771c6e80cc0c81d");
}

/// Six numbers of XINFO STREAM.
fn told(t: &mut Runner, key: &str) -> String {
    let info = t.run(&format!("XINFO STREAM {key}"));
    let behind = info.split("idmp-duration ").nth(1).expect("a field");
    let numbers = behind.split(' ').filter(|word| word.starts_with(':')).take(6);
    numbers.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_entry_that_is_added_twice_is_there_once() {
    let mut t = Runner::new();
    assert_eq!(t.run("XADD none NOMKSTREAM IDMP p i * a 1"), "$-1 ");
    assert_eq!(t.run("XADD s IDMP p i * a 1"), "$15 1700000000000-0 ");
    t.advance_ms(99_999);
    assert_eq!(t.run("XADD s MAXLEN 0 IDMP p i * b 2"), "$15 1700000000000-0 ", "and nothing is trimmed");
    assert_eq!(t.run("XADD s IDMP q i * a 1"), "$15 1700000099999-0 ");
    assert_eq!(told(&mut t, "s"), ":100 :100 :2 :2 :2 :1");
    t.advance_ms(1);
    assert_eq!(told(&mut t, "s"), ":100 :100 :1 :1 :2 :1");
    assert_eq!(t.run("XADD s IDMP p i * b 2"), "$15 1700000100000-0 ");
    assert_eq!(t.run("XADD s IDMP p i * b 2"), "$15 1700000100000-0 ");
    assert_eq!(told(&mut t, "s"), ":100 :100 :2 :2 :3 :2");
    t.assert_replay_equals_live();
    // The entry may be gone; the id is remembered all the same.
    t.run("XTRIM s MAXLEN 0");
    assert_eq!(t.run("XADD s IDMP p i * b 2"), "$15 1700000100000-0 ");
    assert_eq!(t.run("XLEN s"), ":0 ");
    for line in ["RENAME s r", "COPY r c", "XADD r IDMP p i * z 9", "XADD c IDMP p i * z 9"] {
        assert!(!t.run(line).starts_with('-'), "{line}");
    }
    assert_eq!(t.run("XLEN r") + &t.run("XLEN c"), ":0 :0 ");
    t.assert_replay_equals_live();
    assert_eq!(
        t.take_logged()[..8],
        [
            "XADD s 1700000000000-0 a 1",
            "XCFGSET s 100 100",
            "XIDMPRECORD s 0 p i 1700000000000-0 1700000000000",
            "XADD s 1700000099999-0 a 1",
            "XIDMPRECORD s 0 q i 1700000099999-0 1700000099999",
            "XADD s 1700000100000-0 b 2",
            "XIDMPRECORD s 1 p i 1700000100000-0 1700000100000",
            "XTRIM s 3",
        ]
    );
}

#[test]
fn an_id_may_follow_from_the_fields() {
    let mut t = Runner::new();
    let first = t.run("XADD s IDMPAUTO p * a 1 b 2");
    t.advance_ms(1);
    assert_eq!(t.run("XADD s IDMPAUTO p * b 2 a 1"), first);
    assert_ne!(t.run("XADD s IDMPAUTO p * b 1 a 2"), first);
    assert_ne!(t.run("XADD s IDMPAUTO q * a 1 b 2"), first);
    t.assert_replay_equals_live();
}

#[test]
fn a_stream_has_a_window_of_its_own() {
    let mut t = Runner::new();
    t.stream_window = Window { seconds: 7, ids_max: 3 };
    t.run("XADD s 1-1 a 1");
    assert_eq!(told(&mut t, "s"), ":7 :3 :0 :0 :0 :0");
    for iid in 0..5 {
        t.run(&format!("XADD s IDMP p {iid} * a 1"));
    }
    // A later setting is for streams that have none of their own.
    t.stream_window = Window::DEFAULT;
    assert_eq!(told(&mut t, "s"), ":7 :3 :1 :3 :5 :0");
    assert_eq!(t.run("XADD s IDMP p 4 * a 1"), "$15 1700000000000-4 ");
    assert_eq!(t.run("XADD s IDMP p 1 * a 1"), "$15 1700000000000-5 ", "the oldest had to go");
    let logged = t.logged_len();
    assert_eq!(t.run("XCFGSET s IDMP-MAXSIZE 3"), "+OK ");
    assert_eq!(t.logged_len(), logged);
    assert_eq!(t.run("XCFGSET s IDMP-DURATION 8"), "+OK ");
    assert_eq!(told(&mut t, "s"), ":8 :3 :0 :0 :6 :1");
    assert_eq!(t.run("XADD s IDMP p 1 * a 1"), "$15 1700000000000-6 ");
    t.assert_replay_equals_live();
    assert!(t.take_logged().contains(&"XCFGSET s 8 3".to_owned()));
}

#[test]
fn an_entry_that_is_there_is_remembered_on_request() {
    let mut t = Runner::new();
    t.run("XADD s 1700000000000-1 a 1");
    t.run("XADD s 9700000000000-1 a 1");
    t.advance_ms(50_000);
    assert_eq!(t.run("XIDMPRECORD s p i 1700000000000-1"), "+OK ");
    assert_eq!(t.run("XIDMPRECORD s p i 1700000000000-1"), "+OK ");
    assert_eq!(t.run("XIDMPRECORD s p j 9700000000000-1"), "+OK ");
    assert_eq!(told(&mut t, "s"), ":100 :100 :1 :2 :2 :0");
    assert_eq!(t.run("XADD s IDMP p i * a 1"), "$15 1700000000000-1 ");
    t.assert_replay_equals_live();
    t.advance_ms(50_000);
    assert_eq!(told(&mut t, "s"), ":100 :100 :1 :1 :2 :1", "since the time of the entry");
    let logged = t.logged_len();
    assert_eq!(t.run("XIDMPRECORD s p k 1700000000000-1"), "+OK ", "too long ago");
    assert_eq!(t.logged_len(), logged);
}

#[test]
fn a_payload_takes_along_what_is_remembered() {
    let mut t = Runner::new();
    t.run("XADD s IDMP p i * a 1");
    t.run("XGROUP CREATE s g 0");
    t.run("XREADGROUP GROUP g c STREAMS s >");
    let dump = t.reply_bytes(&crate::exec::testing::words("DUMP s"));
    let start = dump.iter().position(|byte| *byte == b'\n').expect("a length") + 1;
    let payload = &dump[start..dump.len() - 2];
    assert_eq!(payload[0], 26, "the type of Redis 8.6");
    assert_eq!(t.run_words(&[&b"RESTORE"[..], b"t", b"0", payload].map(<[u8]>::to_vec)), "+OK ");
    assert_eq!(t.run("XADD t IDMP p i * b 2"), "$15 1700000000000-0 ");
    assert_eq!(told(&mut t, "t"), ":100 :100 :1 :1 :1 :1");
    t.assert_replay_equals_live();
}
