//! A command that takes long on one worker stops nobody on the others, but those who need what it holds; and they are
//! served in the end, each once.
//!
//! What is compared is the order of events, not a clock: the replies of the others arrive before that of the slow
//! command.
//! Connections are dealt to the workers in turn, so that of `2 * WORKERS` the n-th and the `WORKERS + n`-th share one.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::SetOnDrop;
use support::client::{Client, PATIENCE, encode};
use support::reply::Reply;
use support::server::{Recipe, Server};

const WORKERS: usize = 4;
/// Runs until FUNCTION KILL. In a transaction it keeps its worker from anything else, and in none it is left in the
/// middle again and again.
const HOLD: &str = "#!lua name=slow\nredis.register_function('hold', function() while true do end end)";

/// Nobody is told BUSY: who needs what a slow command holds is parked.
fn start(workers: usize) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string());
    let server = server.with("busy-reply-threshold", "0").start();
    server.client().call(&["FUNCTION", "LOAD", HOLD]);
    let clients = (0..2 * workers).map(|_| server.client()).collect();
    (server, clients)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the function runs, which holds what it needs by then.
fn wait_for_hold(client: &mut Client) {
    wait_until("it runs", || !matches!(client.ok("FUNCTION STATS").elements()[1], Reply::Null(_)));
}

/// Has a client close the gate until FUNCTION KILL, and returns when it has. The other client is on another worker, as
/// all must be that are to be served meanwhile.
fn close_gate(slow: &mut Client, other: &mut Client) {
    for line in ["MULTI", "SET slow 1", "FCALL hold 0"] {
        slow.ok(line);
    }
    slow.send(b"EXEC\r\n").expect("the connection holds");
    wait_for_hold(other);
}

/// The reply to a transaction that has held the gate.
fn assert_has_held(reply: &[u8]) {
    assert!(reply.starts_with(b"*2\r\n+OK\r\n-ERR Script killed"), "{}", reply.escape_ascii());
}

/// Sorts the list `l` until it is told to stop: each time, its worker holds the shard of the list for long, outside the
/// closed gate. The next SORT is there before one ends.
fn sort_again_and_again(slow: &mut Client, stop: &AtomicBool, sorts: &AtomicBool) {
    const AHEAD: usize = 5;
    for part in 0..100 {
        let elements: Vec<_> =
            (0..2000).map(|n| format!("element-{}", (n * 7919 + part * 104_729) % 999_983)).collect();
        slow.call(&[vec!["RPUSH".to_owned(), "l".to_owned()], elements].concat());
    }
    let sort = encode(&["SORT", "l", "ALPHA", "LIMIT", "0", "1"]);
    slow.send(&sort.repeat(AHEAD)).expect("the connection holds");
    while !stop.load(Relaxed) {
        slow.receive().expect("a reply");
        slow.send(&sort).expect("the connection holds");
        sorts.store(true, Relaxed);
    }
    (0..AHEAD).for_each(|_| drop(slow.receive().expect("a reply")));
}

#[test]
fn behind_the_closed_gate_all_that_needs_no_keys_goes_on() {
    for workers in [2, WORKERS] {
        let (_server, mut clients) = start(workers);
        let (slow, others) = clients.split_first_mut().expect("there are some");
        others[0].ok("SET k v");
        close_gate(slow, &mut others[0]);
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
            assert!(client.arrived() == 0, "nobody reads while another one is alone");
        }
        others[1].ok("FUNCTION KILL");
        for client in parked.iter_mut() {
            assert_eq!(client.receive().expect("a reply"), b"$1\r\nv\r\n");
            assert_eq!(client.receive().expect("a reply"), b"+PONG\r\n");
            client.receive().expect("a reply");
        }
        assert_has_held(&slow.receive().expect("a reply"));
        assert_eq!(slow.ok("GET n").string(), (workers - 1).to_string());
    }
}

/// While somebody holds the shard of the list `l`, all are served but those who need it, who are when `end` has ended
/// that. So many of the readers are left out that may be on its worker or need its shard.
fn assert_others_are_served(
    others: &mut [Client],
    readers: &mut [Client],
    left_out: usize,
    end: impl FnOnce(&mut Client),
) {
    let workers = others.len().div_ceil(2);
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
    let enough = readers.len() - left_out;
    wait_until("reads of others", || readers.iter_mut().filter_map(is_answered).count() >= enough);
    end(others.last_mut().expect("it is on another worker"));
    parked.iter_mut().chain(readers).for_each(|client| drop(client.receive().expect("a reply")));
}

fn is_answered(client: &mut Client) -> Option<()> {
    (client.arrived() > 0).then_some(())
}

#[test]
fn who_holds_a_shard_stops_those_alone_who_need_it() {
    for workers in [2, WORKERS] {
        let (server, mut clients) = start(workers);
        let mut readers: Vec<_> = (0..4 * workers).map(|_| server.client()).collect();
        let (slow, others) = clients.split_first_mut().expect("there are some");
        slow.send(&encode(&["FCALL", "hold", "1", "l"])).expect("the connection holds");
        wait_for_hold(&mut others[0]);
        // That three keys share the shard with the list has a chance of one in millions.
        assert_others_are_served(others, &mut readers, 2, |operator| {
            assert!(slow.arrived() == 0, "the shard is held");
            operator.ok("FUNCTION KILL");
        });
        assert!(slow.receive().expect("a reply").starts_with(b"-ERR Script killed"));
    }
}

/// The same while the worker does nothing else. Four readers are on it.
#[test]
fn who_keeps_a_worker_busy_with_a_shard_stops_those_alone_who_need_it() {
    for workers in [2, WORKERS] {
        let (server, mut clients) = start(workers);
        let mut readers: Vec<_> = (0..4 * workers).map(|_| server.client()).collect();
        let (slow, others) = clients.split_first_mut().expect("there are some");
        let (stop, sorts) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let ends = SetOnDrop(&stop);
            let sorting = scope.spawn(|| sort_again_and_again(slow, &stop, &sorts));
            wait_until("it sorts", || sorts.load(Relaxed) || sorting.is_finished());
            assert_others_are_served(others, &mut readers, 4 + 2, |_| drop(ends));
            sorting.join().expect("each SORT is answered");
        });
    }
}

/// What has been sent is executed once: its client may wait for the reply, say that it sends no more, or go.
#[test]
fn a_parked_command_is_executed_once_whatever_its_client_does() {
    let (server, mut clients) = start(WORKERS);
    let (slow, others) = clients.split_first_mut().expect("there are some");
    let mut crowd: Vec<_> = (0..400).map(|_| server.client()).collect();
    close_gate(slow, &mut others[0]);
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
    others[1].ok("FUNCTION KILL");
    for client in &mut crowd {
        client.receive().expect("a reply");
        assert_eq!(client.receive().expect("a reply"), b"+PONG\r\n");
        client.receive().expect("a reply");
    }
    assert_has_held(&slow.receive().expect("a reply"));
    let mut count = || others[0].ok("GET n").string().parse::<u32>().expect("a number");
    wait_until("all are executed", || count() >= 800);
    assert_eq!(count(), 800);
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
    let mut unblocker = server.client();
    wait_until("it waits", || unblocker.ok("INFO clients").string().contains("blocked_clients:1"));
    two.ok("WATCH w");
    for line in ["MULTI", "SET a 1", "INCR a"] {
        one.ok(line);
    }
    close_gate(&mut slow, &mut unblocker);
    one.send(b"EXEC\r\nGET a\r\n").expect("the connection holds");
    two.send(b"WATCH x y z\r\nMULTI\r\nSET x 1\r\nEXEC\r\nLPUSH p v\r\n").expect("the connection holds");
    assert!(unblocker.ok("CLIENT LIST").string().contains("blpop"), "it waits");
    assert_eq!(unblocker.ok(&format!("CLIENT UNBLOCK {id}")).integer(), 1);
    assert!(slow.arrived() == 0 && one.arrived() == 0 && two.arrived() == 0);
    unblocker.ok("FUNCTION KILL");
    assert_eq!(popper.receive().expect("a reply"), b"*-1\r\n");
    assert_eq!(one.receive().expect("a reply"), b"*2\r\n+OK\r\n:2\r\n");
    assert_eq!(one.receive().expect("a reply"), b"$1\r\n2\r\n");
    for reply in [&b"+OK\r\n"[..], b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n", b":1\r\n"] {
        assert_eq!(two.receive().expect("a reply"), reply);
    }
    assert_has_held(&slow.receive().expect("a reply"));
}

/// With nothing but slow commands of others, a worker could close the gate never: it is given its turn.
#[test]
fn who_wants_to_be_alone_gets_there() {
    let (server, mut clients) = start(2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&stop);
        for mut client in (0..4).map(|_| server.client()) {
            let stop = &stop;
            scope.spawn(move || {
                let commands = b"SET k v\r\nLPOS big missing\r\n".repeat(20);
                while !stop.load(Relaxed) {
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
