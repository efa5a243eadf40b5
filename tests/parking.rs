//! A command that takes long on one worker stops nobody on the others, but those who need what it holds; and they are
//! served in the end, each once.
//!
//! What is compared is the order of events, not a clock: the replies of the others arrive before that of the slow
//! command.
//! Connections are dealt to the workers in turn, so that of `2 * WORKERS` the n-th and the `WORKERS + n`-th share one.

mod support;

use std::time::Duration;
use support::SetOnDrop;
use support::client::Client;
use support::server::{Recipe, Server};

const WORKERS: usize = 4;
/// How long a slow command sleeps, in seconds: longer than what is to be answered meanwhile takes on a busy machine.
const SLEEP: &str = "2";

/// How many slow commands hold a shard, one after the other.
const SORTS: usize = 5;

fn start(workers: usize) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string());
    let server = server.with("enable-debug-command", "yes").start();
    let clients = (0..2 * workers).map(|_| server.client()).collect();
    (server, clients)
}

/// Has a client close the gate for long, and returns when it has.
fn close_gate(slow: &mut Client) {
    for line in ["MULTI", "SET slow 1", &format!("DEBUG SLEEP {SLEEP}")] {
        slow.ok(line);
    }
    slow.send(b"EXEC\r\n").expect("the connection holds");
    std::thread::sleep(Duration::from_millis(100));
}

/// Has a client hold the shard of the list `l` for long, outside the closed gate.
fn hold_shard(slow: &mut Client) {
    for part in 0..100 {
        let elements: Vec<_> =
            (0..2000).map(|n| format!("element-{}", (n * 7919 + part * 104_729) % 999_983)).collect();
        slow.call(&[vec!["RPUSH".to_owned(), "l".to_owned()], elements].concat());
    }
    slow.send(&b"SORT l ALPHA LIMIT 0 1\r\n".repeat(SORTS)).expect("the connection holds");
    std::thread::sleep(Duration::from_millis(30));
}

#[test]
fn behind_the_closed_gate_all_that_needs_no_keys_goes_on() {
    for workers in [2, WORKERS] {
        let (_server, mut clients) = start(workers);
        let (slow, others) = clients.split_first_mut().expect("there are some");
        others[0].ok("SET k v");
        close_gate(slow);
        let (parked, others) = others.split_at_mut(workers - 1);
        for client in parked.iter_mut() {
            client.send(b"PING first\r\nGET k\r\nPING\r\nINCR n\r\n").expect("the connection holds");
        }
        // The replies before the command that is parked have left.
        for client in parked.iter_mut() {
            assert_eq!(client.receive().expect("a reply"), b"$5\r\nfirst\r\n");
        }
        // The first of the others shares its worker with the slow one.
        for client in others[1..].iter_mut() {
            for line in ["PING", "CONFIG GET port", "CLIENT ID", "COMMAND COUNT", "MULTI", "GET k", "DISCARD"] {
                client.ok(line);
            }
            for line in ["INFO everything", "DBSIZE", "MEMORY STATS", "SLOWLOG GET"] {
                client.ok(line);
            }
        }
        assert!(slow.arrived() == 0, "EXEC was not over");
        for client in parked.iter_mut() {
            assert!(client.arrived() == 0 || slow.arrived() > 0, "nobody reads while another one is alone");
            assert_eq!(client.receive().expect("a reply"), b"$1\r\nv\r\n");
            assert_eq!(client.receive().expect("a reply"), b"+PONG\r\n");
            client.receive().expect("a reply");
        }
        assert_eq!(slow.receive().expect("a reply"), b"*2\r\n+OK\r\n+OK\r\n");
        assert_eq!(slow.ok("GET n").string(), (workers - 1).to_string());
    }
}

#[test]
fn who_holds_a_shard_stops_those_alone_who_need_it() {
    for workers in [2, WORKERS] {
        let (server, mut clients) = start(workers);
        let (slow, others) = clients.split_first_mut().expect("there are some");
        let mut readers: Vec<_> = (0..4 * workers).map(|_| server.client()).collect();
        hold_shard(slow);
        let (parked, others) = others.split_at_mut(workers - 1);
        for (client, line) in parked.iter_mut().zip(["RPUSH l x", "FLUSHDB", "KEYS none"]) {
            client.send(format!("{line}\r\n").as_bytes()).expect("the connection holds");
        }
        for client in others[1..].iter_mut() {
            client.ok("PING");
            client.ok("CONFIG GET port");
        }
        for (number, client) in readers.iter_mut().enumerate() {
            client.send(format!("GET k{number}\r\n").as_bytes()).expect("the connection holds");
        }
        // Four share the worker with the slow one; a key of one more may share the shard with the list.
        while readers.iter_mut().filter_map(|client| (client.arrived() > 0).then_some(())).count() < 4 * workers - 5 {
            assert!(slow.arrived() < SORTS, "the last SORT was over before the reads of others");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(slow.arrived() < SORTS, "the last SORT was over before the reads of others");
        (0..SORTS).for_each(|_| drop(slow.receive().expect("a reply")));
        parked.iter_mut().chain(&mut readers).for_each(|client| drop(client.receive().expect("a reply")));
    }
}

/// What has been sent is executed once: its client may wait for the reply, say that it sends no more, or go.
#[test]
fn a_parked_command_is_executed_once_whatever_its_client_does() {
    let (server, mut clients) = start(WORKERS);
    let (slow, others) = clients.split_first_mut().expect("there are some");
    let mut crowd: Vec<_> = (0..400).map(|_| server.client()).collect();
    close_gate(slow);
    for (number, client) in crowd.iter_mut().enumerate() {
        client.send(b"INCR n\r\nPING\r\nINCR n\r\n").expect("the connection holds");
        if number % 4 == 1 {
            client.finish_sending();
        }
    }
    // On a worker that has a hundred of them.
    assert_eq!(others[1].call(&["PING"]), b"+PONG\r\n");
    assert!(slow.arrived() == 0);
    let mut number = 0;
    crowd.retain(|_| {
        number += 1;
        number % 4 != 0
    });
    for client in &mut crowd {
        client.receive().expect("a reply");
        assert_eq!(client.receive().expect("a reply"), b"+PONG\r\n");
        client.receive().expect("a reply");
    }
    slow.receive().expect("a reply");
    let expected = "800";
    for _ in 0..500 {
        if others[0].ok("GET n").string() == expected {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(others[0].ok("GET n").string(), expected);
}

#[test]
fn transactions_watches_and_waiting_commands_are_parked_too() {
    let (server, mut clients) = start(2);
    let mut slow = clients.remove(0);
    let mut popper = server.client();
    let id = popper.ok("CLIENT ID").integer();
    // On the worker that is not the slow one.
    let mut others: Vec<_> = clients.drain(..).step_by(2).collect();
    let (one, two) = others.split_at_mut(1);
    let (one, two) = (&mut one[0], &mut two[0]);
    popper.send(b"BLPOP q 0\r\n").expect("the connection holds");
    two.ok("WATCH w");
    for line in ["MULTI", "SET a 1", "INCR a"] {
        one.ok(line);
    }
    close_gate(&mut slow);
    one.send(b"EXEC\r\nGET a\r\n").expect("the connection holds");
    two.send(b"WATCH x y z\r\nMULTI\r\nSET x 1\r\nEXEC\r\nLPUSH p v\r\n").expect("the connection holds");
    let mut unblocker = server.client();
    if !unblocker.ok("CLIENT LIST").string().contains("blpop") {
        panic!("it waits");
    }
    unblocker.ok(&format!("CLIENT UNBLOCK {id}"));
    assert_eq!(popper.receive().expect("a reply"), b"*-1\r\n");
    assert_eq!(one.receive().expect("a reply"), b"*2\r\n+OK\r\n:2\r\n");
    assert_eq!(one.receive().expect("a reply"), b"$1\r\n2\r\n");
    for reply in [&b"+OK\r\n"[..], b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n", b":1\r\n"] {
        assert_eq!(two.receive().expect("a reply"), reply);
    }
    slow.receive().expect("a reply");
}

/// With nothing but slow commands of others, a worker could close the gate never: it is given its turn.
#[test]
fn who_wants_to_be_alone_gets_there() {
    let (server, mut clients) = start(2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&stop);
        for mut client in (0..4).map(|_| server.client()) {
            let stop = &stop;
            scope.spawn(move || {
                let commands = b"SET k v\r\nLPOS big missing\r\n".repeat(20);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.send(&commands).expect("the connection holds");
                    (0..40).for_each(|_| drop(client.receive().expect("a reply")));
                }
            });
        }
        for client in clients.iter_mut().take(2) {
            for _ in 0..20 {
                client.ok("SWAPDB 1 2");
                client.ok("KEYS none");
            }
        }
    });
}
