//! Clients that mean harm: what they announce, send or subscribe to costs no more than the configuration allows, and
//! others are served meanwhile.
//!
//! None measures time: a read that times out shows a hang, and so does a state that does not come.

mod support;

use std::time::{Duration, Instant};
use support::client::{Client, encode};
use support::server::{Recipe, Server};

fn start() -> Server {
    Recipe::under_test().with("io-threads", "2").start()
}

fn figure(client: &mut Client, field: &str) -> u64 {
    let text = client.ok("INFO everything").string();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("INFO lacks {field}"))
}

fn wait_until(client: &mut Client, field: &str, wanted: impl Fn(u64) -> bool) {
    for _ in 0..6000 {
        if wanted(figure(client, field)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{field} stays {}", figure(client, field));
}

/// Many connections, each with a command whose announced value never comes.
#[test]
fn what_is_announced_and_never_sent_costs_next_to_nothing() {
    const CROWD: u64 = 400;
    let server = start();
    let mut observer = server.client();
    let before = figure(&mut observer, "used_memory");
    let mut crowd: Vec<_> = (0..CROWD).map(|_| server.client()).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        let begun: &[u8] = match number % 4 {
            0 => b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n",
            1 => b"*1048576\r\n",
            2 => b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000000\r\nxxxx",
            _ => b"*2147483647\r\n$100\r\n",
        };
        client.send(begun).expect("it is connected");
    }
    wait_until(&mut observer, "connected_clients", |count| count == CROWD + 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    while observer.ok("CLIENT LIST").string().contains(" tot-net-in=0 ") {
        assert!(Instant::now() < deadline, "not all have been read");
    }
    assert_eq!(observer.call(&["PING"]), b"+PONG\r\n");
    let each = figure(&mut observer, "used_memory").saturating_sub(before) / CROWD;
    assert!(each < 16 << 10, "{each} bytes each");
    drop(crowd);
    wait_until(&mut observer, "connected_clients", |count| count == 1);
}

/// Byte by byte, from many at once, with others in between.
#[test]
fn slow_senders_are_served_when_they_are_done() {
    let server = start();
    let mut crowd: Vec<_> = (0..100).map(|_| server.client()).collect();
    let mut other = server.client();
    let commands: Vec<_> = (0..crowd.len())
        .map(|number| encode(&["SET".to_owned(), format!("slow:{number:03}"), "v".to_owned()]))
        .collect();
    for at in 0..commands[0].len() {
        for (client, command) in crowd.iter_mut().zip(&commands) {
            client.send(&command[at..=at]).expect("it is connected");
        }
        assert_eq!(other.call(&["PING"]), b"+PONG\r\n");
    }
    for client in &mut crowd {
        assert_eq!(client.receive().expect("a reply"), b"+OK\r\n");
    }
    assert_eq!(other.ok("DBSIZE").integer(), 100);
}

#[test]
fn garbage_and_nesting_get_an_error_and_a_close() {
    let server = start();
    for (bytes, text) in [
        (b"*1\r\n".repeat(1000), "expected '$', got '*'"),
        (b"*99999999999\r\n".to_vec(), "invalid multibulk length"),
        (b"*2147483648\r\n".to_vec(), "invalid multibulk length"),
        (b"*1\r\n$-5\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$99999999999\r\n".to_vec(), "invalid bulk length"),
        (b"\"unbalanced\r\n".to_vec(), "unbalanced quotes in request"),
        (b"*1\r\n%1\r\n".to_vec(), "expected '$', got '%'"),
    ] {
        let mut client = server.client();
        client.send(&bytes).expect("it is connected");
        let reply = client.receive().expect("the server says why");
        assert_eq!(String::from_utf8_lossy(&reply), format!("-ERR Protocol error: {text}\r\n"));
    }
    let mut observer = server.client();
    wait_until(&mut observer, "connected_clients", |count| count == 1);
}

/// One command with as many patterns as fit, then messages, then a client that leaves without a word.
#[test]
fn a_crowd_of_patterns_holds_up_nobody_and_leaves_nothing() {
    const PATTERNS: u64 = 100_000;
    let server = start();
    let (mut subscriber, mut other) = (server.client(), server.client());
    let before = figure(&mut other, "used_memory");
    let words = std::iter::once("PSUBSCRIBE".to_owned());
    let command: Vec<_> = words.chain((0..PATTERNS).map(|number| format!("pattern:{number}:*a*b*c*d"))).collect();
    let reader = subscriber.second_handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = reader;
            for _ in 0..PATTERNS {
                reader.receive().expect("each is confirmed");
            }
        });
        subscriber.send(&encode(&command)).expect("the server takes it");
        let deadline = Instant::now() + Duration::from_secs(120);
        while figure(&mut other, "pubsub_patterns") < PATTERNS {
            assert_eq!(other.call(&["PING"]), b"+PONG\r\n");
            assert!(Instant::now() < deadline, "not all are subscribed");
        }
    });
    let long = format!("pattern:77:{}", "ab".repeat(5000));
    assert_eq!(other.call(&["PUBLISH", &long, "m"]), b":0\r\n");
    assert_eq!(other.call(&["PUBLISH", "pattern:77:abcd", "m"]), b":1\r\n");
    drop(subscriber);
    wait_until(&mut other, "pubsub_patterns", |count| count == 0);
    wait_until(&mut other, "used_memory", |used| used < before + (2 << 20));
}

/// A gigabyte that waits in vain was freed by the worker, while its other connections waited.
#[test]
fn what_a_client_had_pending_is_freed_when_it_leaves() {
    let server = Recipe::under_test().with("client-query-buffer-limit", "64mb").start();
    let (mut client, mut other) = (server.client(), server.client());
    let before = figure(&mut other, "used_memory");
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$50000000\r\n").expect("it is connected");
    client.send(&vec![b'x'; 40_000_000]).expect("the server takes it");
    wait_until(&mut other, "used_memory", |used| used > before + 40_000_000);
    drop(client);
    wait_until(&mut other, "used_memory", |used| used < before + (1 << 20));
    // It is freed before it is counted as freed.
    wait_until(&mut other, "lazyfree_pending_objects", |count| count == 0);
}
