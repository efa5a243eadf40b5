//! Everything at once: commands, transactions, waiting commands, snapshots, reloads and changes of the configuration
//! from many connections on four workers.
//!
//! A debug build checks the rank of every lock that is taken (`src/base/lock.rs`), so that a wrong order is a panic in
//! the server's log here, and a deadlock is a reply that does not come. What the flood leaves must come back after
//! `kill -9`.
//!
//! `IRONKEEP_FLOOD_SECONDS` floods for longer than half a minute; `IRONKEEP_TEST_SEED` repeats a run.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::client::{Client, encode};
use support::newer;
use support::random::Random;
use support::server::{Recipe, Server};
use support::until::wait_until;

/// What is changed at run time, with values to choose from; the rest of the directives is set to what it is.
const CHANGES: &[(&str, &[&str])] = &[
    ("appendonly", &["yes", "no"]),
    ("appendfsync", &["always", "everysec", "no"]),
    ("save", &["", "3600 1", "1 1"]),
    ("maxmemory", &["0", "4gb"]),
    ("maxmemory-policy", &["noeviction", "allkeys-lru", "allkeys-lfu", "volatile-ttl"]),
    ("hash-max-listpack-entries", &["2", "512"]),
    ("zset-max-listpack-entries", &["2", "128"]),
    ("list-max-listpack-size", &["3", "-2"]),
    ("set-max-intset-entries", &["2", "512"]),
    ("stream-node-max-entries", &["2", "100"]),
    ("rdbcompression", &["yes", "no"]),
    ("auto-aof-rewrite-percentage", &["1", "100"]),
    ("auto-aof-rewrite-min-size", &["1kb", "64mb"]),
    ("latency-tracking", &["yes", "no"]),
];

/// Setting these, even to what they are, ends connections or the test itself.
const LEFT_ALONE: &[&str] = &["requirepass", "bind", "port"];

fn duration() -> Duration {
    let seconds = std::env::var("IRONKEEP_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Sends commands as one pipeline and takes all replies.
fn pipeline(client: &mut Client, commands: &[Vec<Vec<u8>>]) {
    let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
    client.send(&bytes).expect("the connection holds");
    for command in commands {
        client.receive().unwrap_or_else(|error| panic!("no reply to {}: {error}", support::client::show(command)));
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    support::words::split(line)
}

fn random_commands(random: &mut Random, client: &mut Client) {
    let count = 1 + random.below(20);
    let commands: Vec<_> = (0..count).map(|_| newer::any_command(random)).collect();
    pipeline(client, &commands);
}

fn transaction(random: &mut Random, client: &mut Client) {
    let mut commands = Vec::new();
    if random.one_in(2) {
        commands.push(words("WATCH a b hash list zset"));
    }
    commands.push(words("MULTI"));
    for _ in 0..random.below(8) {
        commands.push(match random.below(10) {
            0 => words(random.pick(&["BGSAVE", "BGREWRITEAOF", "LASTSAVE"])),
            1 => words("DEBUG SLEEP 0.01"),
            2 => words(random.pick(&["INFO memory", "INFO everything", "DBSIZE", "CLIENT LIST", "MEMORY STATS"])),
            3 => change(random),
            _ => newer::any_command(random),
        });
    }
    commands.push(words(if random.one_in(8) { "DISCARD" } else { "EXEC" }));
    pipeline(client, &commands);
}

fn wait_for_keys(random: &mut Random, client: &mut Client) {
    let line = random.pick(&[
        "BLPOP list list:2 0.05",
        "BRPOP list:3 list 0.02",
        "BLMOVE list list:2 LEFT RIGHT 0.05",
        "BRPOPLPUSH list:2 list:3 0.05",
        "BZPOPMIN zset zset:2 0.05",
        "BZMPOP 0.05 2 zset zset:3 MAX COUNT 2",
        "BLMPOP 0.05 2 list list:2 RIGHT",
        "XREAD BLOCK 50 STREAMS stream:1 $",
        "XREADGROUP GROUP g c BLOCK 50 STREAMS stream:1 >",
        "WAIT 1 20",
        "WAITAOF 1 0 50",
    ]);
    pipeline(client, &[words(line), words("PING")]);
}

fn change(random: &mut Random) -> Vec<Vec<u8>> {
    let (name, values) = CHANGES[random.below(CHANGES.len())];
    words(&format!("CONFIG SET {name} \"{}\"", random.pick(values)))
}

fn administrate(random: &mut Random, client: &mut Client, directives: &[(Vec<u8>, Vec<u8>)]) {
    let command = match random.below(14) {
        0 => words(random.pick(&["BGSAVE", "BGSAVE SCHEDULE", "BGREWRITEAOF"])),
        1 => words("SAVE"),
        2 => words(random.pick(&["DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG RELOAD NOSAVE"])),
        3..=6 => change(random),
        7 => {
            let (name, value) = &directives[random.below(directives.len())];
            vec![b"CONFIG".to_vec(), b"SET".to_vec(), name.clone(), value.clone()]
        }
        8 => words(random.pick(&["INFO", "INFO all", "INFO everything", "MEMORY STATS", "MEMORY DOCTOR"])),
        9 => words(random.pick(&["CLIENT LIST", "CLIENT INFO", "CONFIG GET *", "CONFIG RESETSTAT", "COMMAND COUNT"])),
        10 => words(random.pick(&["FLUSHALL", "FLUSHDB ASYNC", "UNFLUSH MERGE", "UNFLUSH REPLACE"])),
        11 => words(random.pick(&["KEYS *", "SCAN 0 COUNT 1000", "RANDOMKEY", "DBSIZE", "SWAPDB 0 1", "MEMORY PURGE"])),
        12 => words("DEBUG SLEEP 0.02"),
        _ => words(random.pick(&["DEBUG DIGEST", "DEBUG JMAP", "SORT list BY nosort", "OBJECT HELP"])),
    };
    pipeline(client, &[command]);
}

/// Comes, sends a part of a command or some whole ones, and goes.
fn come_and_go(random: &mut Random, server: &Server) {
    let mut client = server.client();
    let bytes = encode(&newer::any_command(random));
    let sent = if random.one_in(2) { random.below(bytes.len()) } else { bytes.len() };
    client.send(&bytes[..sent]).expect("the connection holds");
    if random.one_in(3) {
        // Behind a part of a command this is a mistake, and the connection may be closed by now.
        let _ = client.send(&encode(&["BLPOP", "list:none", "1"]));
    }
}

/// What may be changed at run time, with what it is.
fn directives(client: &mut Client) -> Vec<(Vec<u8>, Vec<u8>)> {
    let reply = client.ok("CONFIG GET *");
    let (pairs, _) = reply.elements().as_chunks::<2>();
    let texts = pairs.iter().map(|[name, value]| (name.text().to_vec(), value.text().to_vec()));
    texts.filter(|(name, _)| !LEFT_ALONE.iter().any(|left| left.as_bytes() == name)).collect()
}

fn flood(server: &Server, seed: u64) {
    let known = directives(&mut server.client());
    let until = Instant::now() + duration();
    std::thread::scope(|scope| {
        let known = &known;
        for number in 0..14 {
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(number));
                let mut client = server.client();
                while Instant::now() < until {
                    match number {
                        0..=4 => random_commands(&mut random, &mut client),
                        5..=7 => transaction(&mut random, &mut client),
                        8..=10 => wait_for_keys(&mut random, &mut client),
                        11 | 12 => administrate(&mut random, &mut client, known),
                        _ => come_and_go(&mut random, server),
                    }
                }
            });
        }
    });
}

/// The reply of XINFO STREAM without what is not kept. The directives of the moment decide how a stream is cut into
/// nodes when it is made or loaded, when consumers asked and how often producers added in vain is not logged, and
/// what is remembered of producers is so for a while.
fn as_kept(reply: &str) -> String {
    let mut rest = reply.to_owned();
    let names = ["radix-tree-keys", "radix-tree-nodes", "seen-time", "pids-tracked", "iids-tracked", "iids-duplicates"];
    for name in names.map(|name| format!("{name}\\r\\n:")) {
        let parts = rest.split(&name).map(|part| part.trim_start_matches(|digit: char| digit.is_ascii_digit()));
        rest = parts.collect();
    }
    rest
}

/// What every key holds: its digest, and of a stream all that XINFO tells.
fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for db in 0..16 {
        client.ok(&format!("SELECT {db}"));
        for key in client.ok("KEYS *").elements() {
            let key = key.text();
            let digest = client.call(&[&b"DEBUG"[..], b"DIGEST-VALUE", key]);
            let stream = client.call(&[&b"XINFO"[..], b"STREAM", key, b"FULL", b"COUNT", b"0"]);
            let expiry = client.call(&[&b"PEXPIRETIME"[..], key]);
            let mut told = [digest, expiry].concat().escape_ascii().to_string();
            if !stream.starts_with(b"-") {
                told += &as_kept(&stream.escape_ascii().to_string());
            }
            all.insert(format!("{db} {}", key.escape_ascii()), told);
        }
    }
    all
}

#[test]
fn nothing_hangs_and_nothing_is_lost_under_everything_at_once() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let recipe = Recipe::under_test().with("io-threads", "4").with("enable-debug-command", "yes");
    let mut server = recipe.with("loglevel", "warning").start();
    flood(&server, seed);
    let mut client = server.client();
    // Who came and went may still be on the way: what was sent is executed.
    wait_until("they are gone", || client.ok("INFO clients").string().contains("connected_clients:1\r\n"));
    client.ok("CONFIG SET appendfsync always");
    client.ok("CONFIG SET appendonly yes");
    // Half of the runs end in a snapshot of their own; in the others the log brings back what came after the last one.
    if seed.is_multiple_of(2) {
        wait_until("a snapshot", || !client.line("SAVE").is_error());
    }
    client.ok("SET after flood");
    assert_eq!(client.ok("WAITAOF 1 0 0").elements()[0].integer(), 1);
    let before = contents(&mut client);
    let digest = client.ok("DEBUG DIGEST").string();
    let log = server.log();
    assert!(!log.contains("BUG") && !log.contains("panicked") && !log.contains("lock order"), "seed {seed}:\n{log}");
    server.kill();
    server.start_again();
    let mut client = server.client();
    let after = contents(&mut client);
    for (key, held) in &before {
        assert_eq!(after.get(key), Some(held), "seed {seed}: the key {key}");
    }
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest, "seed {seed}");
}
