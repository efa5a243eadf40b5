//! Tests of the commands for sorted sets.

use crate::base::random::Random;
use crate::exec::testing::Runner;
use crate::resp::Resp;

#[test]
fn nothing_changed_is_nothing_logged() {
    let mut t = Runner::new();
    t.run("ZADD z 1 a 2 b");
    t.run("SET k v");
    t.take_logged();
    for line in [
        "ZADD z 1 a",
        "ZADD z XX 1 c",
        "ZADD none XX 1 c",
        "ZADD z NX 5 a",
        "ZADD z GT 0 a",
        "ZADD z INCR 0 a",
        "ZADD z INCR GT -1 a",
        "ZINCRBY z 0 a",
        "ZREM z c",
        "ZREM none c",
        "ZPOPMIN none",
        "ZPOPMIN z 0",
        "ZMPOP 1 none MIN",
        "ZREMRANGEBYRANK z 5 9",
        "ZREMRANGEBYSCORE z 5 9",
        "ZREMRANGEBYLEX none - +",
        "ZRANGESTORE none z 5 9",
        "ZUNIONSTORE none 1 nothing",
        "ZADD k 1 a",
        "ZUNIONSTORE d 1 k",
        "ZRANGESTORE d k 0 1",
    ] {
        t.run(line);
        assert_eq!(t.take_logged(), [""; 0], "{line}");
    }
}

#[test]
fn what_reads_other_keys_is_logged_as_its_result() {
    let mut t = Runner::new();
    t.run("ZADD a 1 x 2 y 3 z");
    t.run("ZADD b 1 y");
    t.take_logged();
    assert_eq!(t.run("ZMPOP 2 none a MAX COUNT 2"), "*2 $1 a *2 *2 $1 z $1 3 *2 $1 y $1 2 ");
    assert_eq!(t.take_logged(), ["ZREMRANKS a 1 2"]);
    assert_eq!(t.run("ZUNIONSTORE c 2 a b"), ":2 ");
    assert!(t.take_logged()[0].starts_with("STATE c "));
    assert_eq!(t.run("ZINTERSTORE c 2 a b"), ":0 ");
    assert_eq!(t.take_logged(), ["DEL c"]);
    assert_eq!(t.run("ZRANGESTORE c a 0 -1"), ":1 ");
    assert!(t.take_logged()[0].starts_with("STATE c "));
    assert_eq!(t.run("ZPOPMIN c"), "*2 $1 x $1 1 ");
    assert_eq!(t.take_logged(), ["ZREMRANKS c 0 1"]);
    assert_eq!(t.run("EXISTS c"), ":0 ");
}

#[test]
fn forms_change_as_in_redis_8() {
    let mut t = Runner::new();
    t.limits.zset_max_listpack_entries = 3;
    t.limits.zset_max_listpack_value = 5;
    let mut encoding = |lines: &[&str]| {
        t.run("DEL z");
        lines.iter().for_each(|line| drop(t.run(line)));
        t.run("OBJECT ENCODING z").split(' ').nth(1).map(str::to_owned)
    };
    let (small, large) = (Some("listpack".to_owned()), Some("skiplist".to_owned()));
    assert_eq!(encoding(&["ZADD z 1 a 2 b 3 c"]), small);
    assert_eq!(encoding(&["ZADD z 1 a 2 b 3 c", "ZADD z 4 d"]), large);
    assert_eq!(encoding(&["ZADD z 1 a 2 b 3 c", "ZADD z 4 c"]), small);
    assert_eq!(encoding(&["ZADD z 1 a 2 a 3 a 4 a"]), large);
    assert_eq!(encoding(&["ZADD z 1 abcdef"]), large);
    assert_eq!(encoding(&["ZADD z 1 a", "ZADD z 1 abcdef"]), large);
    assert_eq!(encoding(&["ZADD z 1 a 2 b 3 c 4 d", "ZREM z a b"]), large);
    assert_eq!(encoding(&["ZADD z 1 a 2 b 3 c 4 d", "ZRANGESTORE z z 0 1"]), small);
}

#[test]
fn replies_nest_in_resp3() {
    let mut t = Runner::new();
    t.run("ZADD z 1.5 a 2 b inf c");
    t.resp = Resp::V3;
    assert_eq!(t.run("ZRANGE z 0 1 WITHSCORES"), "*2 *2 $1 a ,1.5 *2 $1 b ,2 ");
    assert_eq!(t.run("ZSCORE z c"), ",inf ");
    assert_eq!(t.run("ZMSCORE z a x"), "*2 ,1.5 _ ");
    assert_eq!(t.run("ZRANK z a WITHSCORE"), "*2 :0 ,1.5 ");
    assert_eq!(t.run("ZRANK z x WITHSCORE"), "_ ");
    assert_eq!(t.run("ZPOPMIN z"), "*2 $1 a ,1.5 ");
    assert_eq!(t.run("ZPOPMIN z 1"), "*1 *2 $1 b ,2 ");
    assert_eq!(t.run("ZSCAN z 0"), "*2 $1 0 *2 $1 c $3 inf ");
    t.resp = Resp::V2;
    assert_eq!(t.run("ZREVRANGE z 0 -1 WITHSCORES"), "*2 $1 c $3 inf ");
    assert_eq!(t.run("ZRANK z x WITHSCORE"), "*-1 ");
}

#[test]
fn replay_makes_what_random_commands_made() {
    let mut t = Runner::new();
    t.limits.zset_max_listpack_entries = 6;
    t.limits.zset_max_listpack_value = 6;
    let mut random = Random::from_seed(23);
    let mut pick = |words: &[&str]| words[random.index(words.len())].to_owned();
    let members = ["1", "2", "-4", "a", "b", "c", "d", "e", "longer1", "longer2", "", "100000", "x y"];
    let scores = ["0", "1", "-1.5", "2", "3", "1e20", "inf", "-inf", "0.1", "77", "-0"];
    let keys = ["z1", "z2", "z3", "str", "set"];
    for _ in 0..4000 {
        let (one, two, three) = (pick(&keys), pick(&keys), pick(&keys));
        let (first, second) = (pick(&members), pick(&members));
        let (low, high) = (pick(&scores), pick(&scores));
        let line = match pick(&[
            "add", "add", "add", "add", "gt", "incr", "rem", "pop", "mpop", "rank", "score", "lex", "inter", "union",
            "diff", "range", "copy", "geo", "other",
        ])
        .as_str()
        {
            "add" => format!("ZADD {one} {low} '{first}' {high} '{second}'"),
            "gt" => format!("ZADD {one} GT CH {low} '{first}' {high} '{second}'"),
            "incr" => format!("ZINCRBY {one} {low} '{first}'"),
            "rem" => format!("ZREM {one} '{first}' '{second}'"),
            "pop" => format!("ZPOPMAX {one}"),
            "mpop" => format!("ZMPOP 2 {one} {two} MIN COUNT 2"),
            "rank" => format!("ZREMRANGEBYRANK {one} 1 2"),
            "score" => format!("ZREMRANGEBYSCORE {one} {low} ({low}"),
            "lex" => format!("ZREMRANGEBYLEX {one} '[{first}' '({second}'"),
            "inter" => format!("ZINTERSTORE {one} 2 {two} {three} WEIGHTS 1 2"),
            "union" => format!("ZUNIONSTORE {one} 2 {two} {three} AGGREGATE MAX"),
            "diff" => format!("ZDIFFSTORE {one} 2 {two} {three}"),
            "range" => format!("ZRANGESTORE {one} {two} {low} {high} BYSCORE LIMIT 0 4"),
            "copy" => format!("COPY {one} {two} REPLACE"),
            "geo" => format!("SADD set '{first}'"),
            _ => "SET str 1".into(),
        };
        t.run(&line);
    }
    t.assert_replay_equals_live();
}

#[test]
fn draws_of_a_large_set_are_distinct_members() {
    let mut t = Runner::new();
    for number in 0..1500 {
        t.run(&format!("ZADD z {number} m{number}"));
    }
    for wanted in [10, 1499, 1500] {
        let reply = t.run(&format!("ZRANDMEMBER z {wanted}"));
        let words: Vec<&str> = reply.split(' ').filter(|word| word.starts_with('m')).collect();
        let different: std::collections::HashSet<&&str> = words.iter().collect();
        assert_eq!((words.len(), different.len()), (wanted, wanted));
    }
    assert!(t.run("ZRANDMEMBER z -2000 WITHSCORES").starts_with("*4000 "));
    assert_eq!(t.run("ZRANK z m1234"), ":1234 ");
    assert_eq!(t.run("ZREVRANK z m1234"), ":265 ");
    assert_eq!(t.run("ZRANGE z 1497 -1"), "*3 $5 m1497 $5 m1498 $5 m1499 ");
    assert_eq!(t.run("ZREMRANGEBYSCORE z (10 (1490"), ":1479 ");
    assert_eq!(t.run("ZCARD z"), ":21 ");
    t.assert_replay_equals_live();
}

#[test]
fn a_scan_gives_every_member() {
    let mut t = Runner::new();
    for number in 0..3000 {
        t.run(&format!("ZADD z {number} m{number}"));
    }
    let (seen, calls) = t.scan_members("ZSCAN", "z");
    assert_eq!(seen, 3000);
    assert!((10..=40).contains(&calls), "{calls}");
}
