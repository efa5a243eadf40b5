//! Many clients at once on several threads: every command must stay atomic, as if it ran alone.
//!
//! These properties need no reference server. Each would break if a command's locks were taken late, released early,
//! or taken for the wrong keys.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use support::SetOnDrop;
use support::client::{Client, encode};
use support::random::Random;
use support::reply;
use support::server::{Recipe, Server};

const CLIENTS: usize = 6;

fn start() -> Server {
    Recipe::under_test().with("io-threads", "4").start()
}

/// The texts of an MGET reply; `None` where no key is.
fn texts(reply: &[u8]) -> Vec<Option<String>> {
    let reply = reply::parse(reply);
    let text = |element: &reply::Reply| match element {
        reply::Reply::Null(_) => None,
        text => Some(text.string()),
    };
    reply.elements().iter().map(text).collect()
}

/// Runs writers until they end and readers as long as a writer runs.
fn together(server: &Server, writer: impl Fn(usize, &mut Client) + Sync, reader: impl Fn(&mut Client) + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (writer, reader, done) = (&writer, &reader, &done);
        let _ends = SetOnDrop(done);
        let writers: Vec<_> = (0..CLIENTS)
            .map(|name| (name, server.client()))
            .map(|(name, mut client)| scope.spawn(move || writer(name, &mut client)))
            .collect();
        for mut client in (0..2).map(|_| server.client()) {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    reader(&mut client);
                }
            });
        }
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        assert!(results.iter().all(Result::is_ok), "a writer fails");
    });
}

#[test]
fn counters_lose_nothing() {
    const ROUNDS: usize = 100;
    let server = start();
    together(
        &server,
        |name, client| {
            let mut bytes = Vec::new();
            for _ in 0..20 {
                bytes.extend(encode(&["INCR", "shared"]));
                bytes.extend(encode(&["INCRBY", "shared", "2"]));
                bytes.extend(encode(&["APPEND", "text", "x"]));
                bytes.extend(encode(&["INCRBYFLOAT", "float", "0.5"]));
                bytes.extend(encode(&["INCR", &format!("own:{name}")]));
            }
            let mut last = 0;
            for _ in 0..ROUNDS {
                client.send(&bytes).expect("the connection holds");
                for index in 0..100 {
                    let reply = client.receive().expect("a reply");
                    if index % 5 == 0 {
                        let number = reply::parse(&reply).integer();
                        assert!(number > last, "{number} after {last}");
                        last = number;
                    }
                }
            }
        },
        |client| drop(client.ok("GET shared")),
    );
    let mut client = server.client();
    let total = CLIENTS * ROUNDS * 20;
    assert_eq!(client.ok("GET shared").string(), (3 * total).to_string());
    assert_eq!(client.ok("STRLEN text").integer(), total as i64);
    assert_eq!(client.ok("GET float").string(), (total / 2).to_string());
    for name in 0..CLIENTS {
        assert_eq!(client.ok(&format!("GET own:{name}")).string(), (ROUNDS * 20).to_string());
    }
}

#[test]
fn mset_is_seen_whole_or_not_at_all() {
    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let server = start();
    together(
        &server,
        |name, client| {
            for round in 0..500 {
                let value = format!("{name}:{round}");
                let mut command = vec!["MSET".to_owned()];
                // The order varies, because locks must not depend on it.
                for index in 0..KEYS.len() {
                    command.extend([KEYS[(index + round) % KEYS.len()].to_owned(), value.clone()]);
                }
                assert_eq!(client.call(&command), b"+OK\r\n");
                if round % 50 == 0 {
                    // All six, or none when another client was faster.
                    let removed = client.ok("DEL f e d c b a a").integer();
                    assert!(removed == 6 || removed == 0, "{removed}");
                }
            }
        },
        |client| {
            let seen: BTreeSet<_> = texts(&client.call(&["MGET", "c", "a", "f", "b", "e", "d"])).into_iter().collect();
            assert_eq!(seen.len(), 1, "half an MSET: {seen:?}");
        },
    );
}

#[test]
fn deletions_count_once() {
    let server = start();
    const KEYS: usize = 2000;
    let mut client = server.client();
    for command in ["DEL", "UNLINK", "GETDEL"] {
        for number in 0..KEYS {
            client.ok(&format!("SET k:{number} v"));
        }
        let removed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let mut client = server.client();
                    scope.spawn(move || {
                        let hit = |reply: &[u8]| reply == b":1\r\n" || reply == b"$1\r\nv\r\n";
                        (0..KEYS).filter(|number| hit(&client.call(&[command, &format!("k:{number}")]))).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a client fails")).sum()
        });
        assert_eq!(removed, KEYS, "{command}");
        assert_eq!(client.ok("DBSIZE").integer(), 0, "{command}");
    }
}

#[test]
fn only_one_wins_a_lock() {
    const ROUNDS: usize = 300;
    let server = start();
    let winners: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let mut client = server.client();
                scope.spawn(move || {
                    let mut won = 0;
                    for round in 0..ROUNDS {
                        let reply = match round % 3 {
                            0 => client.call(&["SET", &format!("lock:{round}"), &name.to_string(), "NX"]),
                            1 => client.call(&["SETNX", &format!("lock:{round}"), &name.to_string()]),
                            _ => client.call(&[
                                "MSETNX",
                                &format!("lock:{round}"),
                                "v",
                                &format!("own:{name}:{round}"),
                                "v",
                            ]),
                        };
                        won += usize::from(reply == b"+OK\r\n" || reply == b":1\r\n");
                    }
                    won
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client fails")).sum()
    });
    assert_eq!(winners, ROUNDS);
    // A loser of MSETNX wrote nothing.
    assert_eq!(server.client().ok("DBSIZE").integer(), (ROUNDS + ROUNDS / 3) as i64);
}

/// One token is renamed, copied, moved and swapped. It is never duplicated and never lost.
#[test]
fn a_token_is_in_one_place() {
    let server = start();
    server.client().ok("SET one token");
    together(
        &server,
        |name, client| {
            for _ in 0..400 {
                // Either may come too late, when the key no longer exists.
                client.line(if name % 2 == 0 { "RENAME one two" } else { "RENAME two one" });
                client.line(if name % 2 == 0 { "RENAMENX two three" } else { "RENAMENX three one" });
            }
        },
        |client| {
            let places = texts(&client.call(&["MGET", "one", "two", "three"]));
            let tokens = places.iter().flatten().count();
            assert_eq!(tokens, 1, "{places:?}");
            assert_eq!(client.ok("EXISTS three two one").integer(), 1);
        },
    );
}

#[test]
fn swapdb_and_move_are_atomic() {
    let server = start();
    let mut client = server.client();
    client.ok("MSET name zero x 0 y 0");
    client.ok("SELECT 1");
    client.ok("MSET name one x 1 y 1");
    client.ok("SELECT 2");
    client.ok("SET wanderer v");
    together(
        &server,
        |name, client| {
            client.ok(&format!("SELECT {}", 2 + name % 2));
            for _ in 0..300 {
                client.ok("SWAPDB 0 1");
                client.line(&format!("MOVE wanderer {}", 3 - name % 2));
            }
        },
        |client| {
            let seen = texts(&client.call(&["MGET", "name", "x", "y"]));
            let seen: Vec<&str> = seen.iter().map(|text| text.as_deref().expect("all three are there")).collect();
            assert!(seen == ["zero", "0", "0"] || seen == ["one", "1", "1"], "{seen:?}");
        },
    );
    let count: i64 = [2, 3]
        .map(|database| {
            client.ok(&format!("SELECT {database}"));
            client.ok("DBSIZE").integer()
        })
        .iter()
        .sum();
    assert_eq!(count, 1);
}

/// FLUSHALL, SWAPDB and snapshots among writers: the server must neither stop nor mix up replies.
#[test]
fn a_storm_of_everything() {
    let server = start();
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    together(
        &server,
        |name, client| {
            let mut random = Random::new(seed.wrapping_add(name as u64));
            for round in 0..200 {
                let mut bytes = Vec::new();
                let mut marks = Vec::new();
                for index in 0..10 {
                    let mut generator = support::generator::Generator { random: &mut random };
                    bytes.extend(encode(&generator.command()));
                    let mark = format!("{name}:{round}:{index}");
                    bytes.extend(encode(&["ECHO", &mark]));
                    marks.push(mark);
                }
                client.send(&bytes).expect("the connection holds");
                for mark in marks {
                    client.receive().expect("a reply");
                    assert_eq!(reply::parse(&client.receive().expect("the echo")).string(), mark);
                }
            }
        },
        |client| {
            client.line("BGSAVE");
            client.ok("INFO");
            client.ok("FLUSHALL");
            client.ok("RANDOMKEY");
        },
    );
}

/// SCAN returns every key that exists from start to end, whatever else comes and goes.
#[test]
fn scan_misses_no_steady_key() {
    const STEADY: usize = 3000;
    let server = start();
    let mut client = server.client();
    for number in 0..STEADY {
        client.ok(&format!("SET steady:{number} v"));
    }
    together(
        &server,
        |name, client| {
            // The table grows and shrinks all the time.
            for round in 0..6 {
                let bytes: Vec<u8> = (0..1500)
                    .flat_map(|number| match round % 2 {
                        0 => encode(&["SET", &format!("passing:{name}:{number}"), "v"]),
                        _ => encode(&["DEL", &format!("passing:{name}:{number}")]),
                    })
                    .collect();
                client.send(&bytes).expect("the connection holds");
                (0..1500).for_each(|_| drop(client.receive().expect("a reply")));
            }
        },
        |client| {
            let mut found = BTreeSet::new();
            let mut cursor = "0".to_owned();
            loop {
                let page = client.ok(&format!("SCAN {cursor} MATCH steady:* COUNT 50"));
                found.extend(page.elements()[1].elements().iter().map(reply::Reply::string));
                cursor = page.elements()[0].string();
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(found.len(), STEADY);
        },
    );
}

/// Transactions hold the shards of their keys, or run alone behind the gate. Both kinds must be atomic beside each
/// other, beside single commands, and in the log.
#[test]
fn transactions_lose_nothing_whichever_way_they_run() {
    const KEYS: usize = 5;
    const ROUNDS: usize = 150;
    let server = Recipe::under_test().with("io-threads", "4").with("enable-debug-command", "yes").start();
    let names: Vec<String> = (0..KEYS).map(|key| format!("account:{key}")).collect();
    let all: Vec<&str> = std::iter::once("MGET").chain(names.iter().map(String::as_str)).collect();
    server
        .client()
        .ok(&format!("MSET {}", names.iter().map(|name| format!("{name} 100")).collect::<Vec<_>>().join(" ")));
    together(
        &server,
        |name, client| {
            let mut random = Random::new(name as u64);
            for round in 0..ROUNDS {
                let (from, to) = (random.below(KEYS), random.below(KEYS));
                let mut lines = vec![
                    "MULTI".to_owned(),
                    format!("DECRBY {} 7", names[from]),
                    format!("INCRBY {} 7", names[to]),
                    format!("RPUSH moves {name}:{round}"),
                ];
                // A command without a key makes the transaction run alone.
                lines.extend(random.one_in(4).then(|| "PING".to_owned()));
                lines.push("EXEC".to_owned());
                let bytes: Vec<u8> =
                    lines.iter().flat_map(|line| encode(&line.split(' ').collect::<Vec<_>>())).collect();
                client.send(&bytes).expect("it is connected");
                let replies: Vec<_> = lines.iter().map(|_| client.receive().expect("it is answered")).collect();
                let last = replies.last().expect("there are some");
                assert!(last.starts_with(format!("*{}\r\n", lines.len() - 2).as_bytes()), "{replies:?}");
            }
        },
        |client| {
            let seen = texts(&client.call(&all));
            let sum: i64 = seen.iter().flatten().map(|text| text.parse::<i64>().expect("a number")).sum();
            assert_eq!(sum, KEYS as i64 * 100, "{seen:?}");
            // A waiting client makes the next transaction run alone, in the middle of the others.
            client.call(&["BLPOP", "moves", "0.001"]);
        },
    );
    let mut client = server.client();
    let digest = client.ok("DEBUG DIGEST").string();
    client.ok("DEBUG LOADAOF");
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
}
