//! Tests of what reaches a connection from other threads: pushes, messages and closing.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::testing::{SetOnDrop, start};
use super::workers;
use crate::core::client::ClientRecord;
use crate::core::mailbox::Accepted;
use crate::core::{Mail, Server};
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

const WORKERS: usize = 2;

/// A server whose workers run, and a client of each of them, with its id.
fn serving(policy: FsyncPolicy) -> (SimStorage, Arc<Server>, Vec<(u64, UnixStream)>) {
    let storage = SimStorage::new();
    let server = start(&storage, 1, WORKERS, policy).unwrap();
    workers::start(&server).unwrap();
    let clients = (0..WORKERS).map(|worker| connect(&server, worker)).collect();
    (storage, server, clients)
}

fn connect(server: &Server, worker: usize) -> (u64, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let record = server.clients.register(ClientRecord {
        served_by: worker.into(),
        unix_socket: true,
        ..ClientRecord::default()
    });
    let id = record.id;
    server.mailboxes.post(worker, Mail::Connection { socket: Accepted::Unix(theirs), record });
    (id, ours)
}

fn expect(stream: &mut UnixStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

fn ask(stream: &mut UnixStream, line: &str, reply: &str) {
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    expect(stream, reply.as_bytes());
}

fn push(server: &Server, client: u64, number: usize) -> bool {
    server.push(client, format!(">1\r\n:{number}\r\n").as_bytes().into(), 0)
}

#[test]
fn what_is_pushed_to_connections_that_move_arrives() {
    const PUSHED: usize = 1000;
    let (_storage, server, mut clients) = serving(FsyncPolicy::No);
    let enlist = server.enlist.get().unwrap();
    for (_, stream) in &mut clients {
        ask(stream, "PING", "+PONG\r\n");
    }
    let ids: Vec<u64> = clients.iter().map(|(id, _)| *id).collect();
    // Whoever has read everything is gone.
    let is_below = |id: u64, workers| server.clients.get(id).is_none_or(|record| record.worker() < workers);
    let all_are_below = |workers| ids.iter().all(|id| is_below(*id, workers));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..PUSHED {
                assert!(ids.iter().all(|id| push(&server, *id, number)));
                std::thread::yield_now();
            }
        });
        for (_, stream) in clients {
            scope.spawn(move || {
                let lines: Vec<_> = BufReader::new(stream).lines().take(2 * PUSHED).map(Result::unwrap).collect();
                let mut numbers: Vec<usize> =
                    lines.iter().filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (0..PUSHED).collect::<Vec<_>>());
            });
        }
        for workers in [1, WORKERS + 1, 2, WORKERS, 1, 2].repeat(3) {
            enlist(workers).unwrap();
            while !all_are_below(workers) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert_eq!((server.gate.workers(), server.roster.in_service()), (WORKERS + 1, 2));
}

#[test]
fn pushes_reach_clients_of_all_workers_in_their_order() {
    let (_storage, server, mut clients) = serving(FsyncPolicy::No);
    for (_, stream) in &mut clients {
        ask(stream, "PING", "+PONG\r\n");
    }
    for number in 0..1000 {
        assert!(clients.iter().all(|(id, _)| push(&server, *id, number)));
    }
    for (_, stream) in &mut clients {
        for number in 0..1000 {
            expect(stream, format!(">1\r\n:{number}\r\n").as_bytes());
        }
        ask(stream, "PING", "+PONG\r\n");
    }
    // Also to a connection that waits in a command, and behind the reply of one that has a reply.
    let (id, stream) = &mut clients[1];
    stream.write_all(b"ECHO before\r\nBLPOP none 0\r\n").unwrap();
    expect(stream, b"$6\r\nbefore\r\n");
    assert!(push(&server, *id, 7));
    expect(stream, b">1\r\n:7\r\n");
    assert!(!push(&server, 1_000_000, 7), "there is no such client");
}

#[test]
fn a_message_reaches_all_subscribers_of_all_workers_in_one_order() {
    let (_storage, server, mut clients) = serving(FsyncPolicy::No);
    clients.push(connect(&server, 0));
    for (_, stream) in &mut clients {
        ask(stream, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    }
    ask(&mut clients[1].1, "PSUBSCRIBE n*", "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:2\r\n");
    std::thread::scope(|scope| {
        for sender in 0..2 {
            let server = &server;
            scope.spawn(move || {
                for number in 100..300 {
                    assert_eq!(server.publish(b"news", format!("{sender}{number}").as_bytes(), 0), 4);
                }
            });
        }
    });
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (at, (_, stream)) in clients.iter_mut().enumerate() {
        let mut texts = Vec::new();
        for _ in 0..400 {
            expect(stream, b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\n");
            let mut text = [0; 6];
            stream.read_exact(&mut text).unwrap();
            texts.push(String::from_utf8_lossy(&text[..4]).into_owned());
            if at == 1 {
                let copy = [b"*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$4\r\n", &text[..]].concat();
                expect(stream, &copy);
            }
        }
        seen.push(texts);
    }
    assert!(seen.iter().all(|texts| *texts == seen[0]));
    for sender in ["0", "1"] {
        let own: Vec<&str> = seen[0].iter().filter_map(|text| text.strip_prefix(sender)).collect();
        assert_eq!(own, (100..300).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(server.publish(b"other", b"x", 0), 0);
    drop(clients);
    while server.publish(b"news", b"x", 0) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_connection_is_closed_from_any_thread() {
    let (_storage, server, mut clients) = serving(FsyncPolicy::No);
    clients.push(connect(&server, 0));
    clients[1].1.write_all(b"BLPOP none 0\r\n").unwrap();
    // A socket that is closed before its input was read is reset, which is an error for its reader.
    while !server.clients.get(clients[1].0).unwrap().blocked.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    ask(&mut clients[2].1, "PING", "+PONG\r\n");
    for (id, stream) in &mut clients {
        assert!(server.close_client(*id));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
    while !server.clients.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!server.close_client(clients[0].0));
}

/// The content of a push must be safe before the push leaves, and later output leaves after it.
#[test]
fn a_push_waits_for_its_block() {
    let (_storage, server, mut clients) = serving(FsyncPolicy::Always);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = SetOnDrop(&over);
        // In place of the server's thread for this.
        scope.spawn(|| {
            while !over.load(Relaxed) {
                server.store.log().sync_now().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (id, stream) = &mut clients[0];
        ask(stream, "SET k v", "+OK\r\n");
        let next = server.store.journal().position() + 1;
        assert!(server.push(*id, b">1\r\n+later\r\n"[..].into(), next));
        push(&server, *id, 1);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let early = stream.read(&mut [0; 1]);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A write of another client makes the block.
        ask(&mut clients[1].1, "SET k w", "+OK\r\n");
        expect(&mut clients[0].1, b">1\r\n+later\r\n>1\r\n:1\r\n");
        drop(ends);
        assert!(early.is_err(), "the block was not there yet");
    });
}
