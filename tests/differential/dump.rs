//! DUMP and RESTORE across servers: what one writes, the other reads, value for value.

use crate::compare::{Likeness, Pair, Protocol};
use crate::support::client::{Client, encode};
use crate::support::server::Recipe;
use crate::support::words;

/// How a value is made, and how it is read; the key is `k`.
const VALUES: &[(&[&str], &str)] = &[
    (&["SET k hello"], "GET k"),
    (&["SET k 12345"], "GET k"),
    (&["SET k -9223372036854775808"], "GET k"),
    (&["SET k \"\\x00\\xff\\r\\n\""], "GET k"),
    (&["SET k \"abcabc\"*3000"], "GET k"),
    (&["SET k 1", "APPEND k \"x\"*100"], "GET k"),
    (&["RPUSH k a b c 1 -2 \"\" 99999999999999999999"], "LRANGE k 0 -1"),
    (&["RPUSH k \"x\"*5000 \"y\"*5000 \"z\"*20000 end"], "LRANGE k 0 -1"),
    (&["SADD k 1 2 3 -100000 9223372036854775807"], "SMEMBERS k"),
    (&["SADD k a b c 1 2 \"\""], "SMEMBERS k"),
    (&["SADD k \"long\"*30 short"], "SMEMBERS k"),
    (&["HSET k f v g 12 \"\" \"\" h \"x\"*60"], "HGETALL k"),
    (&["HSET k f \"long\"*300 g 1"], "HGETALL k"),
    (&["ZADD k 1 a 2.5 b -inf c inf d 0.5 e"], "ZRANGE k 0 -1 WITHSCORES"),
    (&["ZADD k 1 \"long\"*30 2 short"], "ZRANGE k 0 -1 WITHSCORES"),
    (&["SETBIT k 100000 1"], "GET k"),
    (&["PFADD k a b c d e"], "GET k"),
];

fn payload(client: &mut Client) -> Vec<u8> {
    let reply = client.call(&["DUMP", "k"]);
    crate::support::reply::parse(&reply).text().to_vec()
}

fn restore(client: &mut Client, payload: &[u8]) -> Vec<u8> {
    client.call(&[b"RESTORE", b"k" as &[u8], b"0", payload, b"REPLACE"])
}

/// Many members, so that the large forms are crossed too.
fn large_values() -> Vec<(Vec<String>, &'static str)> {
    let many = |command: &str, element: fn(usize) -> String| {
        let parts: Vec<String> = (0..3000).map(element).collect();
        parts.chunks(100).map(|part| format!("{command} k {}", part.join(" "))).collect::<Vec<_>>()
    };
    vec![
        (many("RPUSH", |n| format!("element:{n}")), "LRANGE k 0 -1"),
        (many("RPUSH", |n| format!("{}", n * 7919)), "LRANGE k 0 -1"),
        (many("SADD", |n| format!("member:{n}")), "SMEMBERS k"),
        (many("SADD", |n| format!("{n}")), "SMEMBERS k"),
        (many("ZADD", |n| format!("{} member:{n}", n * 7919 % 3001)), "ZRANGE k 0 -1 WITHSCORES"),
        (many("HSET", |n| format!("field:{n} value:{n}")), "HGETALL k"),
    ]
}

#[test]
fn payloads_cross_both_ways() {
    let pair = Pair::start(Recipe::under_test());
    let mut clients = pair.clients(Protocol::Resp2);
    let (reference, tested) = (&mut clients.reference, &mut clients.tested);
    let small = VALUES.iter().map(|(make, read)| (make.iter().map(|line| (*line).to_owned()).collect(), *read));
    for (make, read) in small.chain(large_values()) {
        for client in [&mut *reference, &mut *tested] {
            client.call(&["DEL", "k"]);
            for line in &make {
                let reply = client.call(&words::split(line));
                assert!(!reply.starts_with(b"-"), "{line}: {}", reply.escape_ascii());
            }
        }
        let show = &make[0][..make[0].len().min(60)];
        let read = words::split(read);
        let expected = reference.call(&read);
        let (of_reference, of_tested) = (payload(reference), payload(tested));
        assert_eq!(restore(tested, &of_reference), b"+OK\r\n", "{show}: a payload of the reference");
        let read_here = tested.call(&read);
        assert!(same(&expected, &read_here), "{show}: a payload of the reference is read wrongly");
        assert_eq!(restore(reference, &of_tested), b"+OK\r\n", "{show}: a payload of ours");
        let read_there = reference.call(&read);
        assert!(same(&expected, &read_there), "{show}: a payload of ours is read wrongly");
    }
}

/// Members and fields come in any order.
fn same(expected: &[u8], got: &[u8]) -> bool {
    Likeness::Exact.holds(expected, got) || Likeness::Sorted.holds(expected, got)
}

/// A payload that is cut or changed is refused by the checksum; nothing is made of it.
#[test]
fn a_damaged_payload_is_refused() {
    let server = Recipe::under_test().start();
    let mut client = server.client();
    client.call(&words::split("RPUSH k a b c \"x\"*100"));
    let good = payload(&mut client);
    client.call(&["DEL", "k"]);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        for payload in [&bad[..], &good[..at]] {
            let reply = restore(&mut client, payload);
            assert_eq!(reply, b"-ERR DUMP payload version or checksum are wrong\r\n", "{}", reply.escape_ascii());
        }
    }
    assert_eq!(client.call(&["EXISTS", "k"]), b":0\r\n");
    client.send(&encode(&[b"RESTORE", b"k" as &[u8], b"0", &good])).expect("the connection holds");
    assert_eq!(client.receive().expect("a reply"), b"+OK\r\n");
}
