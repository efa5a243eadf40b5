//! Client-side caching and MONITOR among several workers: no cache stays stale, and all monitors see one order.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::SetOnDrop;
use support::client::{Client, encode};
use support::random::Random;
use support::reply::{self, Reply};
use support::server::{Recipe, Server};

const KEYS: usize = 20;

fn start(threads: usize) -> Server {
    Recipe::under_test().with("io-threads", &threads.to_string()).start()
}

/// A client that keeps what it has read until it is told that it is stale.
struct Cache {
    client: Client,
    values: HashMap<Vec<u8>, Vec<u8>>,
    told: usize,
}

impl Cache {
    fn new(server: &Server, options: &str) -> Cache {
        let mut client = server.client();
        client.ok("HELLO 3");
        client.ok(&format!("CLIENT TRACKING on {options}"));
        Cache { client, values: HashMap::new(), told: 0 }
    }

    /// The next reply. What it is told before is stale.
    fn reply(&mut self) -> Vec<u8> {
        loop {
            let frame = self.client.receive().expect("the server answers");
            let Reply::Aggregate(b'>', parts) = reply::parse(&frame) else { return frame };
            self.told += 1;
            match &parts[1] {
                Reply::Aggregate(_, keys) => keys.iter().for_each(|key| drop(self.values.remove(key.text()))),
                _ => self.values.clear(),
            }
        }
    }

    fn call(&mut self, words: &[&[u8]]) -> Vec<u8> {
        self.client.send(&encode(words)).expect("the connection holds");
        self.reply()
    }

    /// Reads a key from the server, and keeps the reply, unless it is kept already.
    fn read(&mut self, key: &[u8]) {
        if !self.values.contains_key(key) {
            let value = self.call(&[b"GET", key]);
            self.values.insert(key.to_vec(), value);
        }
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

/// Readers cache while writers change the same keys in every way. When all is quiet, no cache holds a stale value.
fn no_cache_stays_stale(threads: usize) {
    const WRITERS: usize = 3;
    const READERS: [&str; 5] = ["", "NOLOOP", "", "BCAST", "BCAST PREFIX key:1 PREFIX key:2"];
    const ROUNDS: usize = 600;
    let server = start(threads);
    let (done, running, told) = (AtomicBool::new(false), AtomicUsize::new(WRITERS), AtomicUsize::new(0));
    let seed = Random::seed_of_this_run();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (mut client, running, done, told) = (server.client(), &running, &done, &told);
            scope.spawn(move || {
                let failed = SetOnDrop(done);
                let mut random = Random::new(seed.wrapping_add(writer as u64));
                // Each reader has its share, however late it runs.
                let is_enough = || told.load(Ordering::SeqCst) == READERS.len() || done.load(Ordering::SeqCst);
                for round in (0..).take_while(|round| *round < ROUNDS || !is_enough()) {
                    let key = format!("key:{}", random.below(KEYS));
                    let line = match random.below(8) {
                        0 => format!("DEL {key}"),
                        1 => format!("INCR {key}"),
                        2 => format!("SET {key} {round} PX 3"),
                        3 => format!("GETDEL {key}"),
                        4 => {
                            client.ok("MULTI");
                            client.ok(&format!("SET {key} {round}"));
                            client.ok(&format!("INCR key:{}", random.below(KEYS)));
                            "EXEC".to_owned()
                        }
                        5 if random.one_in(40) => "FLUSHALL".to_owned(),
                        5 if random.one_in(20) => "UNFLUSH REPLACE".to_owned(),
                        _ => format!("SET {key} {round}{writer}"),
                    };
                    client.line(&line);
                }
                // The last writer ends the readers, and so does one that fails.
                if running.fetch_sub(1, Ordering::SeqCst) > 1 {
                    std::mem::forget(failed);
                }
            });
        }
        for options in READERS {
            let (mut cache, done, told, mut check) = (Cache::new(&server, options), &done, &told, server.client());
            let mut random = Random::new(seed.wrapping_mul(31).wrapping_add(options.len() as u64));
            scope.spawn(move || {
                let _ends = SetOnDrop(done);
                let covers = |number: usize| !options.contains("PREFIX") || format!("{number}").starts_with(['1', '2']);
                while !done.load(Ordering::SeqCst) {
                    let number = random.below(KEYS);
                    let before = cache.told;
                    if covers(number) && !cache.values.contains_key(&key(number)) {
                        cache.read(&key(number));
                    } else {
                        // What it is told arrives with replies.
                        cache.call(&[b"PING"]);
                    }
                    if before == 0 && cache.told > 0 {
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                }
                // Expired keys go when somebody asks for them.
                let now: Vec<_> = (0..KEYS).map(|number| check.call(&[b"GET", &*key(number)])).collect();
                // What was told before is here before this reply.
                cache.call(&[b"PING"]);
                for (number, now) in now.iter().enumerate() {
                    let cached = cache.values.get(&key(number));
                    let is_null = |value: &[u8]| value == b"$-1\r\n" || value == b"_\r\n";
                    let alike = cached.is_none_or(|cached| cached == now || is_null(cached) && is_null(now));
                    assert!(alike, "IRONKEEP_TEST_SEED={seed}, {threads} threads, {options:?}: key:{number} is stale");
                }
                assert!(cache.told > 0, "it was never told of anything");
            });
        }
    });
}

#[test]
fn no_cache_stays_stale_with_one_worker() {
    no_cache_stays_stale(1);
}

#[test]
fn no_cache_stays_stale_with_four_workers() {
    no_cache_stays_stale(4);
}

#[test]
fn a_full_table_tells_of_what_it_forgets() {
    let server = Recipe::under_test().with("io-threads", "2").with("tracking-table-max-keys", "10").start();
    let mut cache = Cache::new(&server, "");
    for number in 0..50 {
        cache.read(&key(number));
    }
    cache.call(&[b"PING"]);
    let stat = |client: &mut Client, name: &str| -> usize {
        let info = client.ok("INFO stats").string();
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.parse().ok()).expect("the field is there")
    };
    let mut other = server.client();
    assert_eq!(stat(&mut other, "tracking_total_keys"), 10);
    assert_eq!(stat(&mut other, "tracking_total_items"), 10);
    assert_eq!(cache.values.len(), 10, "it keeps what the server remembers");
    other.ok("CONFIG SET tracking-table-max-keys 3");
    while stat(&mut other, "tracking_total_keys") > 3 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    cache.call(&[b"PING"]);
    assert_eq!(cache.values.len(), 3);
    drop(cache);
    while stat(&mut other, "tracking_total_keys") > 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_lost_receiver_is_told_to_the_tracker() {
    let server = start(4);
    let mut receiver = server.client();
    let id = receiver.ok("CLIENT ID").integer();
    receiver.ok("SUBSCRIBE __redis__:invalidate");
    let mut tracker = server.client();
    tracker.ok(&format!("CLIENT TRACKING on REDIRECT {id}"));
    let mut writer = server.client();
    tracker.ok("GET k");
    writer.ok("SET k 1");
    let message = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\nk\r\n";
    assert_eq!(receiver.receive().expect("a message"), message);
    tracker.ok("HELLO 3");
    tracker.ok("GET k");
    drop(receiver);
    while writer.ok(&format!("CLIENT LIST ID {id}")).string().contains("id=") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    writer.ok("SET k 2");
    let broken = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n");
    assert_eq!(tracker.receive().expect("a push"), broken.as_bytes());
    assert!(tracker.ok("CLIENT INFO").string().contains(" flags=tR "));
    assert!(tracker.ok("CLIENT INFO").string().contains(&format!(" redir={id} ")));
}

#[test]
fn tracking_ends_with_the_server() {
    let mut server = start(2);
    let mut cache = Cache::new(&server, "");
    let mut broadcast = Cache::new(&server, "BCAST PREFIX a");
    server.client().ok("SET k 1");
    cache.read(b"k");
    broadcast.call(&[b"PING"]);
    let figures = |server: &Server| {
        let mut client = server.client();
        let info = client.ok("INFO everything").string();
        let wanted = ["tracking_clients", "tracking_total_keys", "tracking_total_items", "tracking_total_prefixes"];
        wanted.map(|name| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.parse::<u64>().ok()).expect("the field is there")
        })
    };
    assert_eq!(figures(&server), [2, 1, 1, 1]);
    server.kill();
    server.start_again();
    assert_eq!(figures(&server), [0; 4]);
    let mut again = Cache::new(&server, "");
    again.read(b"k");
    assert_eq!(again.values[&b"k"[..]], b"$1\r\n1\r\n");
    server.client().ok("SET k 2");
    again.call(&[b"PING"]);
    assert!(again.values.is_empty());
    drop(again);
    while figures(&server) != [0; 4] {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The lines that a monitor sees up to the one that contains `end`.
fn lines(monitor: &mut Client, end: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let line = monitor.receive().expect("a line");
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.contains(end) {
            return all;
        }
        all.push(line);
    }
}

/// All monitors see the same lines in one order, and for each key it is the order of the commands' effects.
#[test]
fn all_monitors_see_one_order() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 100;
    let server = start(4);
    let mut monitors: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for monitor in &mut monitors {
        monitor.ok("MONITOR");
    }
    std::thread::scope(|scope| {
        for name in 0..CLIENTS {
            let mut client = server.client();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // The reply says which place the command has among those on the key.
                    let length = client.ok(&format!("RPUSH list {name}:{round}")).integer();
                    assert!(length > 0);
                    if round % 10 == 0 {
                        client.ok("MULTI");
                        client.ok(&format!("SET a {name}:{round}"));
                        client.ok(&format!("SET b {name}:{round}"));
                        client.ok("EXEC");
                    }
                }
            });
        }
    });
    let mut client = server.client();
    let list: Vec<String> = client.ok("LRANGE list 0 -1").elements().iter().map(Reply::string).collect();
    client.ok("ECHO end");
    let seen: Vec<Vec<String>> = monitors.iter_mut().map(|monitor| lines(monitor, "\"ECHO\" \"end\"")).collect();
    assert!(seen.iter().all(|lines| lines == &seen[0]), "the monitors differ");
    let word = |line: &String, command: &str| {
        let (_, rest) = line.split_once(command)?;
        rest.split('"').next().map(str::to_owned)
    };
    let pushed: Vec<String> = seen[0].iter().filter_map(|line| word(line, "\"RPUSH\" \"list\" \"")).collect();
    assert_eq!(pushed, list);
    // A transaction is one block of lines.
    let lines = &seen[0];
    for at in (0..lines.len()).filter(|at| lines[*at].contains("\"SET\" \"a\"")) {
        let same = word(&lines[at], "\"SET\" \"a\" \"");
        assert_eq!(word(&lines[at + 1], "\"SET\" \"b\" \""), same);
        assert!(lines[at + 2].ends_with("\"EXEC\""), "{}", lines[at + 2]);
    }
}

/// A monitor that does not read is closed when too much waits for it.
#[test]
fn a_monitor_that_does_not_read_is_closed() {
    let server =
        Recipe::under_test().with("client-output-buffer-limit", "normal 1mb 0 0").with("io-threads", "2").start();
    let mut monitor = server.client();
    let id = monitor.ok("CLIENT ID").integer();
    monitor.ok("MONITOR");
    let mut client = server.client();
    let value = "x".repeat(100_000);
    while client.ok(&format!("CLIENT LIST ID {id}")).string().contains("id=") {
        client.call(&["SET", "k", &value]);
    }
    assert!(monitor.receive_until_close().is_ok());
}

/// The prefixes that a connection tracks are its memory, are looked through in no time, and cost others little.
#[test]
fn a_client_with_many_prefixes_is_counted_and_evicted() {
    const MANY: usize = 50_000;
    let server = Recipe::under_test().with("io-threads", "2").start();
    let (mut watcher, mut client) = (server.client(), server.client());
    client.ok("HELLO 3");
    let id = client.ok("CLIENT ID").integer();
    let figure = |watcher: &mut Client, field: &str| -> u64 {
        let info = watcher.ok("INFO everything").string();
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a field");
        value.parse().expect("a number")
    };
    let before = figure(&mut watcher, "used_memory");
    let names: Vec<String> = (0..MANY).map(|number| format!("user:{number}:")).collect();
    let prefixes = names.iter().flat_map(|name| ["PREFIX", name]);
    let words: Vec<&str> = ["CLIENT", "TRACKING", "ON", "BCAST"].into_iter().chain(prefixes).collect();
    assert_eq!(client.call(&words), b"+OK\r\n");
    let taken = figure(&mut watcher, "used_memory").saturating_sub(before);
    let line = watcher.ok(&format!("CLIENT LIST ID {id}")).string();
    let told = line.split(' ').find_map(|word| word.strip_prefix("tot-mem=")).expect("a field");
    let told: u64 = told.parse().expect("bytes");
    assert!(told > taken / 2 && told < 2 * taken, "{told} bytes are told, {taken} are taken");
    let refused = client.call(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:4"]);
    assert!(refused.starts_with(b"-ERR Prefix 'user:4' overlaps with an existing prefix 'user:4"), "{refused:?}");
    watcher.ok("SET user:777:name x");
    assert!(client.receive().expect("a push").ends_with(b"*1\r\n$13\r\nuser:777:name\r\n"));
    watcher.ok("CONFIG SET maxmemory-clients 3mb");
    let until = Instant::now() + Duration::from_secs(60);
    while figure(&mut watcher, "tracking_total_prefixes") != 0 {
        assert!(Instant::now() < until, "it is not evicted");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(figure(&mut watcher, "evicted_clients"), 1);
}
