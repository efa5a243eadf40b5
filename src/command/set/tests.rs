//! Tests of the commands for sets.

use crate::base::random::Random;
use crate::exec::testing::Runner;

#[test]
fn what_chance_chooses_is_logged_by_name() {
    let mut t = Runner::new();
    t.run("SADD s a b c d e f g h");
    t.take_logged();
    t.run("SPOP s");
    t.run("SPOP s 3");
    t.run("SPOP s 0");
    t.run("SRANDMEMBER s 2");
    let logged = t.take_logged();
    assert!(logged.len() == 2 && logged.iter().all(|record| record.starts_with("SREM s ")), "{logged:?}");
    t.run("SPOP s 10");
    assert_eq!(t.take_logged(), ["DEL s"]);
}

#[test]
fn nothing_changed_is_nothing_logged() {
    let mut t = Runner::new();
    t.run("SADD s a");
    t.run("SADD b 1");
    t.run("SET k v");
    t.take_logged();
    for line in [
        "SADD s a",
        "SREM s b",
        "SREM none a",
        "SMOVE s b x",
        "SMOVE s s a",
        "SMOVE s k a",
        "SINTERSTORE none s nothing",
        "SPOP none",
        "SADD k a",
        "SUNIONSTORE d k",
    ] {
        t.run(line);
        assert_eq!(t.take_logged(), [""; 0], "{line}");
    }
}

#[test]
fn a_moved_member_and_a_stored_result_are_records_of_their_keys() {
    let mut t = Runner::new();
    t.run("SADD a 1 2 3");
    t.run("SADD b x");
    t.take_logged();
    assert_eq!(t.run("SMOVE a b 1"), ":1 ");
    assert_eq!(t.take_logged(), ["SREM a 1", "SADD b 1"]);
    t.run("SADD b 2");
    t.take_logged();
    assert_eq!(t.run("SMOVE a b 2"), ":1 ");
    assert_eq!(t.take_logged(), ["SREM a 2"]);
    assert_eq!(t.run("SUNIONSTORE c a b"), ":4 ");
    assert!(t.take_logged()[0].starts_with("STATE c "));
    assert_eq!(t.run("SDIFFSTORE c a a"), ":0 ");
    assert_eq!(t.take_logged(), ["DEL c"]);
}

#[test]
fn replay_makes_what_random_commands_made() {
    let mut t = Runner::new();
    t.limits.set_max_intset_entries = 4;
    t.limits.set_max_listpack_entries = 6;
    t.limits.set_max_listpack_value = 5;
    let mut random = Random::from_seed(17);
    let mut pick = |words: &[&str]| words[random.index(words.len())].to_owned();
    let members = ["1", "2", "3", "-4", "5", "a", "b", "c", "longer1", "longer2", "", "100000", "9223372036854775807"];
    for _ in 0..3000 {
        let keys = ["s1", "s2", "s3", "str"];
        let (one, two, three) = (pick(&keys), pick(&keys), pick(&keys));
        let (first, second) = (pick(&members), pick(&members));
        let line = match pick(&[
            "add", "add", "add", "rem", "pop", "pops", "move", "inter", "union", "diff", "rename", "other",
        ])
        .as_str()
        {
            "add" => format!("SADD {one} '{first}' '{second}'"),
            "rem" => format!("SREM {one} '{first}'"),
            "pop" => format!("SPOP {one}"),
            "pops" => format!("SPOP {one} 2"),
            "move" => format!("SMOVE {one} {two} '{first}'"),
            "inter" => format!("SINTERSTORE {one} {two} {three}"),
            "union" => format!("SUNIONSTORE {one} {two} {three}"),
            "diff" => format!("SDIFFSTORE {one} {two} {three}"),
            "rename" => format!("COPY {one} {two} REPLACE"),
            _ => "SET str 1".into(),
        };
        t.run(&line);
    }
    t.assert_replay_equals_live();
}

#[test]
fn draws_of_a_large_set_are_distinct_members() {
    let mut t = Runner::new();
    for number in 0..3000 {
        t.run(&format!("SADD s m{number}"));
    }
    let distinct = |reply: String| {
        let words: Vec<String> = reply.split(' ').filter(|word| word.starts_with('m')).map(str::to_owned).collect();
        let different: std::collections::HashSet<&String> = words.iter().collect();
        assert_eq!(different.len(), words.len());
        words.len()
    };
    assert_eq!(distinct(t.run("SRANDMEMBER s 10")), 10);
    assert_eq!(distinct(t.run("SRANDMEMBER s 2999")), 2999);
    assert_eq!(distinct(t.run("SPOP s 10")), 10);
    assert_eq!(distinct(t.run("SPOP s 2980")), 2980);
    assert_eq!(t.run("SCARD s"), ":10 ");
    assert_eq!(t.run("OBJECT ENCODING s"), "$9 hashtable ");
    t.assert_replay_equals_live();
    let drawn = t.run("SRANDMEMBER s -50");
    assert!(drawn.starts_with("*50 "), "{drawn}");
}

#[test]
fn a_scan_gives_every_member() {
    let mut t = Runner::new();
    for number in 0..5000 {
        t.run(&format!("SADD s m{number}"));
    }
    let (seen, calls) = t.scan_members("SSCAN", "s");
    assert_eq!(seen, 5000);
    assert!((20..=60).contains(&calls), "{calls}");
}
