//! Raw byte streams: what the server says to them, until it closes.
//!
//! A line of `cases/protocol.txt` is one connection: its quoted strings are sent one after the other,
//! each as a write of its own, then the sending side is closed.

use crate::cases::{difference, report};
use crate::compare::Pair;
use crate::support::client::{Client, encode};
use crate::support::server::{Recipe, Server};
use crate::support::words;
use std::thread::sleep;
use std::time::Duration;

/// All that a server says to these writes.
fn answer(server: &Server, writes: &[Vec<u8>]) -> Vec<u8> {
    let mut client = server.client();
    for (index, write) in writes.iter().enumerate() {
        if index > 0 {
            // Only so that the server sees pieces; nothing is measured.
            sleep(Duration::from_millis(1));
        }
        if client.send(write).is_err() {
            // It closed already: what it said before that still counts.
            break;
        }
    }
    client.finish_sending();
    client.receive_until_close().unwrap_or_else(|error| panic!("{error} after {}", show(writes)))
}

fn show(writes: &[Vec<u8>]) -> String {
    let shown: Vec<String> = writes
        .iter()
        .map(|write| {
            let head = &write[..write.len().min(120)];
            let rest = if head.len() < write.len() { format!("… ({} bytes)", write.len()) } else { String::new() };
            format!("\"{}{rest}\"", head.escape_ascii())
        })
        .collect();
    shown.join(" ")
}

fn compare(pair: &Pair, place: &str, writes: &[Vec<u8>]) -> Option<String> {
    pair.flush();
    let reference = answer(&pair.reference, writes);
    let tested = answer(&pair.tested, writes);
    let unlike = reference != tested;
    unlike.then(|| format!("{place}\n    {}\n{}", show(writes), difference(&reference, &tested)))
}

fn sessions(text: &str) -> impl Iterator<Item = (String, Vec<Vec<u8>>)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| (format!("protocol.txt:{}", index + 1), words::split(line)))
}

fn all_sessions(pair: &Pair) -> Vec<String> {
    let mut differences = Vec::new();
    for (place, writes) in sessions(include_str!("cases/protocol.txt")) {
        differences.extend(compare(pair, &place, &writes));
    }
    differences
}

#[test]
fn sessions_on_one_thread() {
    report(&all_sessions(&Pair::with_threads(1)));
}

#[test]
fn sessions_on_four_threads() {
    report(&all_sessions(&Pair::with_threads(4)));
}

#[test]
fn sessions_on_a_unix_socket() {
    report(&all_sessions(&Pair::start(Recipe::under_test().on_unix_socket())));
}

/// A pipeline cut in two at every byte, and one sent byte by byte.
#[test]
fn cut_at_every_byte() {
    let pair = Pair::with_threads(1);
    let pipeline = [
        encode(&["SET", "k", "a\r\nb"]),
        b"PING 'a b'\r\n".to_vec(),
        b"*0\r\n".to_vec(),
        encode(&["GET", "k"]),
        b"\r\n".to_vec(),
        encode(&["APPEND", "k", ""]),
        encode(&["FOO", "*1\r\n$4\r\nPING\r\n"]),
        b"get k\n".to_vec(),
    ]
    .concat();
    let mut differences = Vec::new();
    let whole = answer(&pair.reference, std::slice::from_ref(&pipeline));
    assert!(!whole.is_empty());
    for cut in 1..pipeline.len() {
        let writes = [pipeline[..cut].to_vec(), pipeline[cut..].to_vec()];
        let tested = answer(&pair.tested, &writes);
        if tested != whole {
            differences.push(format!("cut at {cut}\n    {}\n{}", show(&writes), difference(&whole, &tested)));
        }
    }
    let bytes: Vec<Vec<u8>> = pipeline.iter().map(|byte| vec![*byte]).collect();
    differences.extend(compare(&pair, "byte by byte", &bytes));
    report(&differences);
}

/// Ten thousand commands in one write, on several connections at once; every reply must be there, in order.
#[test]
fn deep_pipelines() {
    let pair = Pair::with_threads(2);
    let pipeline_of = |name: &str| -> Vec<u8> {
        let mut bytes = Vec::new();
        for round in 0..2500 {
            let key = format!("{name}:{}", round % 50);
            let value = "v".repeat(round % 300);
            bytes.extend(encode(&["SET", &key, &value]));
            bytes.extend(encode(&["GET", &key]));
            bytes.extend(encode(&["INCR", name]));
            bytes.extend(encode(&["MGET", &key, name, "missing"]));
        }
        bytes
    };
    std::thread::scope(|scope| {
        for name in ["one", "two", "three", "four"] {
            let (pair, pipeline) = (&pair, pipeline_of(name));
            scope.spawn(move || {
                let reference = answer_of_large(&pair.reference, &pipeline);
                let tested = answer_of_large(&pair.tested, &pipeline);
                assert_eq!(reference.len(), tested.len(), "{name}");
                assert!(reference == tested, "{name}: same length, other bytes");
            });
        }
    });
}

/// A pipeline larger than the socket buffers: sending and receiving go on at the same time.
fn answer_of_large(server: &Server, pipeline: &[u8]) -> Vec<u8> {
    let mut replies = Vec::new();
    let mut client = server.client();
    for chunk in pipeline.chunks(100_000) {
        client.send(chunk).expect("the server reads on");
    }
    for _ in 0..10_000 {
        replies.extend(client.receive().expect("a reply to every command"));
    }
    replies
}

/// A client that sends much and reads nothing must not stop the others.
#[test]
fn a_deaf_client_stops_nobody() {
    let server = Recipe::under_test().with("io-threads", "1").start();
    let mut other = server.client();
    other.ok(r#"SET large "x"*1000000"#);
    let mut deaf = Client::connect(server.address()).expect("a second connection");
    deaf.send(&encode(&["GET", "large"]).repeat(50)).expect("a small request");
    for round in 0..100 {
        assert_eq!(other.ok("INCR counter").integer(), round + 1);
    }
    for _ in 0..50 {
        assert_eq!(deaf.receive().expect("its replies come once it reads").len(), 1_000_000 + 12);
    }
}
