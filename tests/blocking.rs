//! Blocking commands and transactions, with many clients on several threads and through `kill -9`.
//!
//! The promises under test: an element goes to exactly one waiting client, and to the first in line; a client that
//! has left takes nothing; a transaction is seen, and persisted, as a whole or not at all.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::SetOnDrop;
use support::client::{Client, encode};
use support::reply;
use support::server::{Recipe, Server};

fn recipe() -> Recipe {
    Recipe::under_test().with("io-threads", "4")
}

/// After this long, what should have happened is a failure.
const FAILED_AFTER: Duration = Duration::from_secs(60);

/// Waits until something is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < FAILED_AFTER, "{what}");
        sleep(Duration::from_millis(1));
    }
}

/// How many connections are blocked.
fn count_blocked(client: &mut Client) -> usize {
    let info = client.ok("INFO clients").string();
    let count = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).expect("the field is there");
    count.parse().expect("a number")
}

/// Waits until this many connections are blocked.
fn await_blocked(server: &Server, expected: usize) {
    let mut client = server.client();
    wait_until(&format!("{expected} connections are blocked"), || count_blocked(&mut client) == expected);
}

/// Waits until the only command that may wait does so, or has its reply: its time may have come before anybody looks.
fn await_begun(server: &Server, waiting: &mut Client) {
    let mut client = server.client();
    wait_until("a command waits or is answered", || count_blocked(&mut client) > 0 || waiting.arrived() > 0);
}

/// Sends a command that will wait.
fn begin(client: &mut Client, words: &[&str]) {
    client.send(&encode(words)).expect("the connection holds");
}

fn strings(reply: &[u8]) -> Vec<String> {
    reply::parse(reply).elements().iter().map(|element| element.string()).collect()
}

/// A consumer waits for entries that another one has had for too long. Nobody changes the key meanwhile.
#[test]
fn a_reader_that_claims_wakes_when_an_entry_is_idle_for_long_enough() {
    let server = recipe().start();
    let (mut client, mut late, mut later) = (server.client(), server.client(), server.client());
    for line in ["XADD s 1-1 a 1", "XADD s 2-1 a 2", "XGROUP CREATE s g 0", "XGROUP CREATE t g 0 MKSTREAM"] {
        client.ok(line);
    }
    client.ok("XREADGROUP GROUP g gone COUNT 1 STREAMS s >");
    client.ok("XREADGROUP GROUP g gone COUNT 1 STREAMS s >");
    let words = |consumer| ["XREADGROUP", "GROUP", "g", consumer, "COUNT", "1", "BLOCK", "0", "CLAIM", "150"];
    begin(&mut late, &[&words("late")[..], &["STREAMS", "t", "s", ">", ">"]].concat());
    await_begun(&server, &mut late);
    begin(&mut later, &[&words("later")[..], &["STREAMS", "s", ">"]].concat());
    let entry = |reply: &[u8]| {
        let streams = reply::parse(reply);
        let entries = &streams.elements()[0].elements()[1];
        assert_eq!(entries.elements().len(), 1);
        let four = entries.elements()[0].elements();
        assert!(four[2].integer() >= 150 && four[3].integer() >= 1, "{}", reply.escape_ascii());
        four[0].string()
    };
    assert_eq!(entry(&late.receive().expect("a reply")), "1-1", "first come, first served");
    assert_eq!(entry(&later.receive().expect("a reply")), "2-1");
    // An entry is in use when its time would have come: the reader goes on waiting, for later.
    begin(&mut late, &[&words("late")[..], &["STREAMS", "s", ">"]].concat());
    await_begun(&server, &mut late);
    client.ok("XCLAIM s g gone 0 1-1 2-1 JUSTID");
    client.ok("XACK s g 2-1");
    assert_eq!(entry(&late.receive().expect("a reply")), "1-1");
    await_blocked(&server, 0);
    // One that is handed back is there at once, however long others would have to wait.
    begin(&mut late, &[&words("late")[..9], &["100000000", "STREAMS", "s", ">"]].concat());
    await_blocked(&server, 1);
    assert_eq!(client.ok("XNACK s g FAIL IDS 1 1-1").integer(), 1);
    assert!(reply::parse(&late.receive().expect("a reply")).elements().len() == 1);
}

#[test]
fn every_job_of_a_queue_is_done_once_and_in_order() {
    const JOBS: usize = 3000;
    const WORKERS: usize = 5;
    let server = recipe().start();
    let (done, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
        // Also when a worker or the producer fails: then not all jobs are done.
        let _ends = SetOnDrop(&over);
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| (server.client(), &done, &over))
            .map(|(mut client, done, over)| {
                scope.spawn(move || {
                    let _ends = SetOnDrop(over);
                    let mut taken = Vec::new();
                    while done.load(Ordering::Relaxed) < JOBS && !over.load(Ordering::Relaxed) {
                        let reply = client.call(&["BLPOP", "urgent", "queue", "0.05"]);
                        if reply.starts_with(b"*2") {
                            taken.push(strings(&reply)[1].parse().expect("a number"));
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    taken
                })
            })
            .collect();
        let mut producer = server.client();
        for job in 0..JOBS {
            producer.ok(&format!("RPUSH queue {job}"));
        }
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    for worker in &taken {
        assert!(worker.is_sorted(), "each worker sees the order of the queue");
    }
    let all: BTreeSet<usize> = taken.iter().flatten().copied().collect();
    assert_eq!((all.len(), taken.iter().map(Vec::len).sum::<usize>()), (JOBS, JOBS));
}

#[test]
fn who_came_first_is_served_first_across_threads() {
    let server = recipe().start();
    let mut waiting: Vec<Client> = Vec::new();
    for number in 0..20 {
        let mut client = server.client();
        begin(&mut client, &["BRPOP", "other", "l", "0"]);
        await_blocked(&server, number + 1);
        waiting.push(client);
    }
    let mut client = server.client();
    for number in 0..20 {
        client.ok(&format!("LPUSH l {number}"));
    }
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(strings(&client.receive().expect("a reply")), ["l".to_owned(), number.to_string()]);
    }
    assert_eq!(client.ok("EXISTS l").integer(), 0);
}

#[test]
fn who_has_gone_takes_nothing() {
    let server = recipe().start();
    for _ in 0..20 {
        let mut gone = server.client();
        begin(&mut gone, &["BLPOP", "l", "0"]);
        await_blocked(&server, 1);
        drop(gone);
        await_blocked(&server, 0);
    }
    let mut client = server.client();
    client.ok("RPUSH l x");
    assert_eq!(client.ok("LRANGE l 0 -1").elements().len(), 1);
}

#[test]
fn client_unblock_ends_a_wait_by_null_or_by_an_error() {
    let server = recipe().start();
    let (mut waiting, mut client) = (server.client(), server.client());
    let id = waiting.ok("CLIENT ID").integer();
    for (how, expected) in
        [("", "*-1\r\n"), ("TIMEOUT", "*-1\r\n"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    {
        begin(&mut waiting, &["BLPOP", "l", "0"]);
        await_blocked(&server, 1);
        assert_eq!(client.ok(&format!("CLIENT UNBLOCK {id} {how}")).integer(), 1);
        assert_eq!(String::from_utf8_lossy(&waiting.receive().expect("a reply")), expected);
        assert_eq!(client.ok(&format!("CLIENT UNBLOCK {id} {how}")).integer(), 0, "it waits no more");
    }
    let info = client.ok("INFO everything").string();
    assert!(info.contains("errorstat_UNBLOCKED:count=1\r\n") && info.contains("total_error_replies:1\r\n"), "{info}");
    client.ok("RPUSH l x");
    assert_eq!(client.ok("LLEN l").integer(), 1, "who was sent away is in no queue any more");
    assert_eq!(client.ok("CLIENT UNBLOCK 999999").integer(), 0);
    assert!(client.line("CLIENT UNBLOCK 1 perhaps").is_error());
}

/// The row of a command in INFO commandstats, with its calls and those that were refused or failed.
fn calls_of(client: &mut Client, command: &str) -> Option<[u64; 3]> {
    let info = client.ok("INFO commandstats").string();
    let row = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")))?;
    let figure = |name: &str| {
        let figure = row.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        figure.expect("the field is there").parse().expect("a number")
    };
    Some(["calls", "rejected_calls", "failed_calls"].map(figure))
}

/// How often a log has a command.
fn logged(client: &mut Client, log: &str, command: &str) -> usize {
    let log = client.ok(&format!("COMMANDLOG GET -1 {log}"));
    log.elements().iter().filter(|entry| entry.elements()[3].elements()[0].string() == command).count()
}

/// A waiting command was counted, and in the slow log, when it began to wait: its own run was not known, and an error
/// at its end was not counted.
#[test]
fn who_waits_is_counted_once_when_it_is_answered() {
    let lines: [(&str, &str, [u64; 3]); 9] = [
        ("BLPOP k 0", "RPUSH k v", [1, 0, 0]),
        ("BZPOPMIN k 0", "ZADD k 1 v", [1, 0, 0]),
        ("XREAD BLOCK 0 STREAMS k $", "XADD k * f v", [1, 0, 0]),
        ("BLPOP k 0.001", "PING", [1, 0, 0]),
        ("BLPOP k 0", "CLIENT UNBLOCK id", [1, 0, 0]),
        ("BLPOP k 0", "CLIENT UNBLOCK id ERROR", [1, 0, 1]),
        ("BLMOVE k wrong LEFT LEFT 0", "RPUSH k v", [1, 0, 1]),
        ("WAIT 1 0", "CLIENT UNBLOCK id", [1, 0, 0]),
        ("WAIT 1 0", "CLIENT UNBLOCK id ERROR", [1, 0, 1]),
    ];
    for mode in ["redis", "valkey"] {
        let server = recipe()
            .with("compatibility-mode", mode)
            .with("slowlog-log-slower-than", "0")
            .with("commandlog-request-larger-than", "0")
            .with("commandlog-reply-larger-than", "0")
            .start();
        for (line, ends, mut counted) in lines {
            let (mut waiting, mut client) = (server.client(), server.client());
            let (id, words) = (waiting.ok("CLIENT ID").integer(), line.split(' ').collect::<Vec<_>>());
            client.ok("SET wrong x");
            client.ok("CONFIG RESETSTAT");
            begin(&mut waiting, &words);
            if !line.ends_with(".001") {
                await_blocked(&server, 1);
                assert_eq!(calls_of(&mut client, &words[0].to_lowercase()), None, "{line} waits");
                assert_eq!(logged(&mut client, "slow", words[0]), 0, "{line} waits");
            }
            client.ok(&ends.replace("id", &id.to_string()));
            waiting.receive().expect("a reply");
            if mode == "valkey" && ends.ends_with("ERROR") {
                counted = [1, 1, 0];
            }
            assert_eq!(calls_of(&mut client, &words[0].to_lowercase()), Some(counted), "{mode}: {line}, {ends}");
            for log in ["slow", "large-request", "large-reply"] {
                assert_eq!(logged(&mut client, log, words[0]), 1, "{mode}: {line}, {ends}: {log}");
                client.ok(&format!("COMMANDLOG RESET {log}"));
            }
            client.ok("FLUSHALL");
        }
    }
}

#[test]
fn client_unblock_ends_a_wait_for_replicas_and_for_the_disk() {
    const BY_ERROR: &str = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
    let server = recipe().with("appendonly", "yes").with("appendfsync", "no").start();
    let (mut waiting, mut client) = (server.client(), server.client());
    let id = waiting.ok("CLIENT ID").integer();
    const COUNTS: &str = "*2\r\n:0\r\n:0\r\n";
    let waits =
        [("WAIT 1 0", ":0\r\n"), ("WAITAOF 1 0 0", COUNTS), ("WAITAOF 0 1 0", COUNTS), ("WAITAOF 1 1 0", COUNTS)];
    for (line, counts) in waits {
        for (how, expected) in [("", counts), ("TIMEOUT", counts), ("ERROR", BY_ERROR)] {
            waiting.ok("SET k v");
            begin(&mut waiting, &line.split(' ').collect::<Vec<_>>());
            await_blocked(&server, 1);
            assert_eq!(client.ok(&format!("CLIENT UNBLOCK {id} {how}")).integer(), 1, "{line} {how}");
            let reply = waiting.receive().expect("a reply");
            assert!(reply.starts_with(expected.as_bytes()), "{line} {how}: {}", reply.escape_ascii());
            await_blocked(&server, 0);
            assert_eq!(client.ok(&format!("CLIENT UNBLOCK {id} {how}")).integer(), 0, "it waits no more");
            assert_eq!(waiting.ok("PING").string(), "PONG");
        }
    }
    // A client that has left leaves nothing behind that could be unblocked.
    begin(&mut waiting, &["WAIT", "1", "0"]);
    await_blocked(&server, 1);
    drop(waiting);
    await_blocked(&server, 0);
    assert_eq!(client.ok(&format!("CLIENT UNBLOCK {id}")).integer(), 0);
}

/// A client that is told that it ended a wait has really ended it, whatever else ends at that moment.
#[test]
fn client_unblock_and_a_timeout_at_the_same_moment_agree() {
    let server = recipe().start();
    let (mut waiting, mut client) = (server.client(), server.client());
    let id = waiting.ok("CLIENT ID").integer();
    for round in 0..300 {
        begin(&mut waiting, &["WAIT", "1", "2"]);
        sleep(Duration::from_micros(1500 + round * 7));
        let ended = client.ok(&format!("CLIENT UNBLOCK {id} ERROR")).integer() == 1;
        let reply = waiting.receive().expect("a reply");
        assert_eq!(reply.starts_with(b"-UNBLOCKED"), ended, "{}", reply.escape_ascii());
    }
}

/// How a stream may disappear while a client waits for one of its groups: what happens before and after the wait
/// begins.
const STREAM_GOES: &[(&str, &[&str], &[&str])] = &[
    ("DEL", &[], &["DEL s"]),
    ("UNLINK", &[], &["UNLINK s"]),
    ("by the sweep", &[], &["PEXPIRE s 20"]),
    ("by its time, found by a read", &[], &["PEXPIRE s 20", "!sleep 21", "EXISTS s"]),
    ("by its time, found by a write", &[], &["PEXPIRE s 20", "!sleep 21", "XADD s NOMKSTREAM 9-9 a 1"]),
    ("by its time, found by a walk", &[], &["PEXPIRE s 20", "!sleep 21", "SCAN 0 COUNT 1000"]),
    ("by its time, found by WATCH", &[], &["PEXPIRE s 20", "!sleep 21", "WATCH s", "UNWATCH"]),
    (
        "by its time, found in a transaction that does nothing",
        &[],
        &["PEXPIRE s 20", "WATCH s", "MULTI", "GET x", "!sleep 21", "EXEC"],
    ),
    ("by its time, and is made anew", &[], &["PEXPIRE s 20", "!sleep 21", "XADD s 9-9 a 1"]),
    ("a time that is over", &[], &["PEXPIRE s -1"]),
    // Behind a flush whose memory is not freed yet, the SET need not evict: that comes somewhat later.
    (
        "eviction",
        &["EXPIRE s 1000", "CONFIG SET maxmemory-policy volatile-ttl"],
        &["CONFIG SET maxmemory 10000", "SET x 1"],
    ),
    ("FLUSHALL", &[], &["FLUSHALL"]),
    ("FLUSHDB", &[], &["FLUSHDB"]),
    ("SWAPDB", &[], &["SWAPDB 0 1"]),
    ("SWAPDB the other way", &[], &["SWAPDB 1 0"]),
    ("RENAME to another", &[], &["RENAME s t"]),
    ("RENAME of one without the group", &["XADD t 1-1 a 1"], &["RENAME t s"]),
    ("COPY of one without the group", &["XADD t 1-1 a 1"], &["COPY t s REPLACE"]),
    ("MOVE", &[], &["MOVE s 1"]),
    ("an empty result", &[], &["SINTERSTORE s none"]),
    ("a transaction", &[], &["MULTI", "DEL s", "EXEC"]),
    ("the group goes", &[], &["XGROUP DESTROY s g"]),
];

/// Commands that replace the stream by something else.
const STREAM_CHANGES: &[&str] =
    &["SET s 1", "RPUSH t 1 | RENAME t s", "SADD t 1 | SUNIONSTORE s t", "SET t 1 | COPY t s REPLACE"];

/// Commands that leave the client waiting.
const STREAM_STAYS: &[&[&str]] = &[
    &["SELECT 1", "FLUSHDB", "SELECT 0"],
    &["XGROUP CREATE s h $", "XGROUP DESTROY s h"],
    &["XGROUP DELCONSUMER s g c"],
    &["MULTI", "DEL s", "XGROUP CREATE s g $ MKSTREAM", "EXEC"],
    &["PEXPIRE other 1", "!sleep 20", "EXISTS other"],
];

/// Runs lines; `!sleep n` lets n milliseconds pass.
fn run(client: &mut Client, lines: &[&str]) {
    for line in lines {
        match line.strip_prefix("!sleep ") {
            Some(ms) => sleep(Duration::from_millis(ms.parse().expect("a number"))),
            None => drop(client.line(line)),
        }
    }
}

/// A consumer that waits for a group of an empty stream, after some commands of another connection.
fn waiting_consumer(server: &Server, client: &mut Client, before: &[&str]) -> Client {
    run(client, &["CONFIG SET maxmemory 0", "FLUSHALL", "SELECT 0", "XADD s 1-1 a 1", "XGROUP CREATE s g $"]);
    run(client, before);
    let mut waiting = server.client();
    begin(&mut waiting, &["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", ">"]);
    await_blocked(server, 1);
    waiting
}

#[test]
fn who_waits_for_a_group_is_told_when_its_stream_goes_however_it_goes() {
    const GONE: &str = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n";
    const CHANGED: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    // What a flush has kept would go before the stream.
    let server = recipe().with("maxmemory-samples", "10").with("flush-undo-seconds", "0").start();
    let mut client = server.client();
    for (how, before, after) in STREAM_GOES {
        let mut waiting = waiting_consumer(&server, &mut client, before);
        run(&mut client, after);
        let told = waiting.receive().unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(String::from_utf8_lossy(&told), GONE, "{how}");
        await_blocked(&server, 0);
    }
    for lines in STREAM_CHANGES {
        let mut waiting = waiting_consumer(&server, &mut client, &[]);
        run(&mut client, &lines.split(" | ").collect::<Vec<_>>());
        let told = waiting.receive().unwrap_or_else(|error| panic!("{lines}: {error}"));
        assert_eq!(String::from_utf8_lossy(&told), CHANGED, "{lines}");
    }
    for lines in STREAM_STAYS {
        let mut waiting = waiting_consumer(&server, &mut client, &["SET other 1"]);
        run(&mut client, lines);
        client.ok("XADD s 9-9 a 1");
        let served = waiting.receive().unwrap_or_else(|error| panic!("{lines:?}: {error}"));
        assert!(served.starts_with(b"*1\r\n*2\r\n$1\r\ns\r\n"), "{lines:?}: {}", served.escape_ascii());
    }
}

/// Consumers poll all day. A poll that finds nothing must not make the log grow.
#[test]
fn a_poll_that_finds_nothing_leaves_the_log_as_it_is() {
    let server = recipe().with("appendonly", "yes").start();
    let (mut client, mut waiting) = (server.client(), server.client());
    run(&mut client, &["XADD s 1-1 a 1", "XGROUP CREATE s g 0", "XREADGROUP GROUP g c STREAMS s >"]);
    let size = |client: &mut Client| {
        let info = client.ok("INFO persistence").string();
        let size = info.lines().find_map(|line| line.strip_prefix("aof_current_size:")).map(str::to_owned);
        size.expect("the field is there")
    };
    let before = size(&mut client);
    for _ in 0..50 {
        for line in ["XREADGROUP GROUP g c STREAMS s >", "XREADGROUP GROUP g c BLOCK 1 STREAMS s >"] {
            assert_eq!(waiting.call(&line.split(' ').collect::<Vec<_>>()), b"*-1\r\n");
        }
        run(&mut client, &["XAUTOCLAIM s g c 100000 0", "XCLAIM s g c 100000 1-1", "XREADGROUP GROUP g c STREAMS s 5"]);
    }
    assert_eq!(size(&mut client), before);
    client.ok("XREADGROUP GROUP g another STREAMS s >");
    assert_ne!(size(&mut client), before, "a consumer that was not there before is kept");
}

/// Many streams that expire at about the same time, each with several waiting clients, on several threads.
#[test]
fn all_who_wait_for_streams_that_expire_are_told() {
    const STREAMS: usize = 40;
    let server = recipe().start();
    let mut client = server.client();
    let mut waiting = Vec::new();
    for number in 0..STREAMS {
        client.ok(&format!("XGROUP CREATE s{number} g $ MKSTREAM"));
        for consumer in ["a", "b"] {
            let mut consuming = server.client();
            let key = format!("s{number}");
            begin(&mut consuming, &["XREADGROUP", "GROUP", "g", consumer, "BLOCK", "0", "STREAMS", &key, ">"]);
            waiting.push(consuming);
        }
    }
    await_blocked(&server, 2 * STREAMS);
    for number in 0..STREAMS {
        client.ok(&format!("PEXPIRE s{number} {}", 1 + number % 7));
    }
    for consuming in &mut waiting {
        assert!(consuming.receive().expect("a reply").starts_with(b"-NOGROUP "));
    }
    await_blocked(&server, 0);
    assert_eq!(client.ok("DBSIZE").integer(), 0);
}

#[test]
fn a_timeout_and_a_push_at_the_same_moment_lose_nothing() {
    let server = recipe().start();
    let (mut taken, mut pushed) = (0, 0);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| server.client())
            .map(|mut client| {
                scope.spawn(move || {
                    let mut taken = 0;
                    for _ in 0..150 {
                        let reply = client.call(&["BLPOP", "l", "0.002"]);
                        taken += usize::from(reply.starts_with(b"*2"));
                    }
                    taken
                })
            })
            .collect();
        let mut client = server.client();
        for _ in 0..300 {
            client.ok("RPUSH l x");
            pushed += 1;
            sleep(Duration::from_millis(1));
        }
        taken = waiters.into_iter().map(|waiter| waiter.join().expect("a waiter")).sum();
    });
    let left = server.client().ok("LLEN l").integer() as usize;
    assert_eq!(taken + left, pushed);
    await_blocked(&server, 0);
}

#[test]
fn a_pipeline_behind_a_waiting_command_waits_too() {
    let server = recipe().start();
    let (mut waiting, mut client) = (server.client(), server.client());
    let mut bytes = encode(&["BLPOP", "l", "0"]);
    bytes.extend(encode(&["SET", "k", "after"]));
    bytes.extend(encode(&["GET", "k"]));
    waiting.send(&bytes).expect("the connection holds");
    await_blocked(&server, 1);
    assert_eq!(client.ok("EXISTS k").integer(), 0);
    client.ok("RPUSH l x");
    assert_eq!(strings(&waiting.receive().expect("a reply")), ["l", "x"]);
    assert_eq!(waiting.receive().expect("a reply"), b"+OK\r\n");
    assert_eq!(waiting.receive().expect("a reply"), b"$5\r\nafter\r\n");
}

/// The numbers in `INFO` of keys that are waited for, and of those whose disappearance is waited for, too.
fn waited_for(server: &Server) -> [String; 2] {
    let info = server.client().ok("INFO clients").string();
    ["total_blocking_keys:", "total_blocking_keys_on_nokey:"]
        .map(|field| info.lines().find_map(|line| line.strip_prefix(field)).expect("the field is there").to_owned())
}

#[test]
fn info_counts_the_keys_that_are_waited_for() {
    let server = recipe().start();
    let mut waiting: Vec<Client> = (0..4).map(|_| server.client()).collect();
    server.client().ok("XGROUP CREATE s g $ MKSTREAM");
    waiting[3].ok("SELECT 1");
    let commands = ["BLPOP a b 0", "BZPOPMIN b c 0", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "BLPOP a 0"]
        .map(|line| line.split(' ').collect::<Vec<_>>());
    for (blocked, (client, words)) in waiting.iter_mut().zip(&commands).enumerate() {
        begin(client, words);
        await_blocked(&server, blocked + 1);
    }
    assert_eq!(waited_for(&server), ["5", "1"], "a, b, c, s, and a of another database");
    server.client().ok("DEL s");
    await_blocked(&server, 3);
    assert_eq!(waited_for(&server), ["4", "0"]);
    let stats = server.client().ok("INFO commandstats").string();
    let told = stats.lines().find(|line| line.starts_with("cmdstat_xreadgroup:")).expect("it was called");
    assert!(told.contains("calls=1,") && told.ends_with("failed_calls=1"), "{told}");
    drop(waiting);
    await_blocked(&server, 0);
    assert_eq!(waited_for(&server), ["0", "0"]);
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let server = recipe().start();
    std::thread::scope(|scope| {
        for name in 0..3 {
            let mut client = server.client();
            scope.spawn(move || {
                for round in 0..300 {
                    let mut bytes = encode(&["MULTI"]);
                    for key in ["a", "b", "c", "d"] {
                        bytes.extend(encode(&["SET", key, &format!("{name}:{round}")]));
                    }
                    bytes.extend(encode(&["EXEC"]));
                    client.send(&bytes).expect("the connection holds");
                    (0..6).for_each(|_| drop(client.receive().expect("a reply")));
                }
            });
        }
        let mut reader = server.client();
        scope.spawn(move || {
            for _ in 0..2000 {
                let values = strings_or_null(&reader.call(&["MGET", "a", "b", "c", "d"]));
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            }
        });
    });
}

#[test]
fn a_snapshot_asked_for_in_a_transaction_follows_it() {
    let server = recipe().start();
    let mut client = server.client();
    for (command, count) in [("BGSAVE", "rdb_saves:1\r\n"), ("BGREWRITEAOF", "aof_rewrites:1\r\n")] {
        client.ok("MULTI");
        client.ok("SET k v");
        client.ok(command);
        let replies = strings(&client.call(&["EXEC"]));
        assert!(replies[1].starts_with("Background ") && replies[1].ends_with(" scheduled"), "{replies:?}");
        wait_until(count, || client.ok("INFO persistence").string().contains(count));
    }
}

fn strings_or_null(reply: &[u8]) -> Vec<Option<String>> {
    let text = |element: &reply::Reply| match element {
        reply::Reply::Null(_) => None,
        text => Some(text.string()),
    };
    reply::parse(reply).elements().iter().map(text).collect()
}

#[test]
fn watched_counters_lose_no_increment() {
    let server = recipe().start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = server.client();
            scope.spawn(move || {
                let mut done = 0;
                while done < 100 {
                    client.ok("WATCH counter");
                    let value: i64 = match client.ok("GET counter") {
                        reply::Reply::Null(_) => 0,
                        text => text.string().parse().expect("a number"),
                    };
                    client.ok("MULTI");
                    client.ok(&format!("SET counter {}", value + 1));
                    done += usize::from(client.call(&["EXEC"]).starts_with(b"*1"));
                }
            });
        }
    });
    assert_eq!(server.client().ok("GET counter").string(), "400");
}

#[test]
fn a_transaction_survives_a_kill_whole_or_not_at_all() {
    for policy in ["always", "everysec"] {
        let mut server = recipe().with("appendonly", "yes").with("appendfsync", policy).start();
        for round in 1..=4 {
            let mut client = server.client();
            let acknowledged = Arc::new(AtomicI64::new(0));
            let count = Arc::clone(&acknowledged);
            let sender = std::thread::spawn(move || {
                for number in 0.. {
                    let mut bytes = encode(&["MULTI"]);
                    for key in ["a", "b", "c"] {
                        bytes.extend(encode(&["RPUSH", key, &format!("{round}:{number}")]));
                    }
                    bytes.extend(encode(&["SET", "last", &format!("{round}:{number}")]));
                    bytes.extend(encode(&["EXEC"]));
                    if client.send(&bytes).is_err() || (0..6).any(|_| client.receive().is_err()) {
                        break;
                    }
                    count.store(number + 1, Ordering::SeqCst);
                }
            });
            sleep(Duration::from_millis(60));
            wait_until("some transactions", || sender.is_finished() || acknowledged.load(Ordering::SeqCst) >= 5);
            server.kill();
            sender.join().expect("the sender ends");
            let acknowledged = acknowledged.load(Ordering::SeqCst);
            assert!(acknowledged >= 5, "the sender had to stop after {acknowledged}");
            server.start_again();
            let mut client = server.client();
            let lens = ["a", "b", "c"].map(|key| client.ok(&format!("LLEN {key}")).integer());
            assert!(lens.iter().all(|len| *len == lens[0]), "{lens:?}");
            if lens[0] > 0 {
                let last = client.ok("LINDEX a -1").string();
                assert_eq!(client.ok("GET last").string(), last);
            }
            let of_round = client.ok("LRANGE a 0 -1");
            let prefix = format!("{round}:");
            let kept = of_round.elements().iter().filter(|element| element.string().starts_with(&prefix)).count();
            assert!(kept as i64 >= acknowledged, "{kept} of {acknowledged} acknowledged are there");
        }
    }
}

#[test]
fn what_a_waiter_was_given_is_gone_after_a_kill() {
    let mut server = recipe().with("appendonly", "yes").with("appendfsync", "always").start();
    let (mut waiting, mut client) = (server.client(), server.client());
    for number in 0..50 {
        begin(&mut waiting, &["BLMOVE", "from", "to", "LEFT", "RIGHT", "0"]);
        await_blocked(&server, 1);
        client.ok(&format!("RPUSH from {number}"));
        waiting.receive().expect("a reply");
    }
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("EXISTS from").integer(), 0);
    let moved: Vec<String> = client.ok("LRANGE to 0 -1").elements().iter().map(|element| element.string()).collect();
    assert_eq!(moved, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
}
