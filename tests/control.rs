//! What one connection does to others: it kills them, and it pauses them.
//!
//! Connections are dealt to the workers in turn, so that of `2 * workers` every worker has two.

mod support;

use std::time::{Duration, Instant};
use support::client::Client;
use support::server::{Recipe, Server};

/// After this long, what should have happened is a failure.
const FAILED_AFTER: Duration = Duration::from_secs(60);

fn start(workers: usize) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string()).start();
    let clients = (0..2 * workers).map(|_| server.client()).collect();
    (server, clients)
}

fn text(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    String::from_utf8_lossy(&client.call(&words)).into_owned()
}

/// Waits until the reply to a line is as wanted, and returns it.
fn wait_for(client: &mut Client, line: &str, wanted: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let reply = text(client, line);
        if wanted(&reply) {
            return reply;
        }
        assert!(begun.elapsed() < FAILED_AFTER, "{line} still gives {reply}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The id of a connection.
fn id_of(client: &mut Client) -> String {
    text(client, "CLIENT ID").trim_start_matches(':').trim_end().to_owned()
}

#[test]
fn a_killed_connection_ends_on_whatever_worker_it_is() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut killer = clients.pop().expect("there are some");
        for mut victim in clients {
            let id = id_of(&mut victim);
            assert_eq!(text(&mut killer, &format!("CLIENT KILL ID {id}")), ":1\r\n");
            assert_eq!(text(&mut killer, &format!("CLIENT LIST ID {id}")), "$0\r\n\r\n");
            assert_eq!(victim.receive_until_close().expect("it closes"), b"");
        }
        assert_eq!(text(&mut killer, "CLIENT LIST").matches("id=").count(), 1);
    }
}

/// An element that a killed connection had waited for stays for others, however soon it comes.
#[test]
fn a_killed_connection_takes_nothing_that_it_waited_for() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut killer = clients.pop().expect("there are some");
        let ids: Vec<String> = clients.iter_mut().map(id_of).collect();
        for client in &mut clients {
            client.send(b"BLPOP l 0\r\n").expect("it is connected");
        }
        let all = format!("blocked_clients:{}\r", ids.len());
        wait_for(&mut killer, "INFO clients", |info| info.contains(&all));
        // One write, so that the push follows at once.
        let kill = format!("CLIENT KILL ID {}\r\nRPUSH l a\r\nLLEN l\r\n", ids.join(" "));
        killer.send(kill.as_bytes()).expect("it is connected");
        assert_eq!(killer.receive().expect("a reply"), format!(":{}\r\n", ids.len()).as_bytes());
        assert_eq!(killer.receive().expect("a reply"), b":1\r\n");
        assert_eq!(killer.receive().expect("a reply"), b":1\r\n", "nobody has taken it");
        for mut client in clients {
            assert_eq!(client.receive_until_close().expect("it closes"), b"");
        }
        wait_for(&mut killer, "INFO clients", |info| info.contains("blocked_clients:0\r"));
    }
}

/// What a killed connection has sent and was not executed when it was killed is never executed.
#[test]
fn a_killed_connection_executes_nothing_more() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut killer = clients.pop().expect("there are some");
        for mut victim in clients {
            let id = id_of(&mut victim);
            victim.send(b"BLPOP nothing 0\r\nSET witness 1\r\n").expect("it is connected");
            wait_for(&mut killer, "INFO clients", |info| info.contains("blocked_clients:1\r"));
            assert_eq!(text(&mut killer, &format!("CLIENT KILL ID {id}")), ":1\r\n");
            assert_eq!(victim.receive_until_close().expect("it closes"), b"");
            assert_eq!(text(&mut killer, "EXISTS witness"), ":0\r\n");
        }
    }
}

#[test]
fn a_connection_that_kills_itself_gets_its_replies_first() {
    let (_server, mut clients) = start(2);
    let mut own = clients.pop().expect("there are some");
    let id = id_of(&mut own);
    own.send(format!("SET k v\r\nCLIENT KILL ID {id} SKIPME no\r\nSET k w\r\n").as_bytes()).expect("it is connected");
    assert_eq!(own.receive_until_close().expect("it closes"), b"+OK\r\n:1\r\n");
    assert_eq!(text(&mut clients[0], "GET k"), "$1\r\nv\r\n");
    let mut own = clients.pop().expect("there are some");
    let id = id_of(&mut own);
    own.send(format!("MULTI\r\nCLIENT KILL ID {id} SKIPME no\r\nSET k x\r\nEXEC\r\nSET k y\r\n").as_bytes())
        .expect("it is connected");
    let replies = own.receive_until_close().expect("it closes");
    assert!(replies.ends_with(b"*2\r\n:1\r\n+OK\r\n"), "{}", String::from_utf8_lossy(&replies));
    assert_eq!(text(&mut clients[0], "GET k"), "$1\r\nx\r\n");
}
