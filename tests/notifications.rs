//! Notifications of keys, from a running server with several workers: their order, their paths, and what they promise.

mod support;

use support::client::Client;
use support::reply;
use support::server::{Recipe, Server};

fn start(threads: usize) -> Server {
    Recipe::under_test().with("io-threads", &threads.to_string()).with("notify-keyspace-events", "AKEn").start()
}

/// A connection that hears of all events, by `__keyevent` alone.
fn listener(server: &Server) -> Client {
    let mut client = server.client();
    client.ok("PSUBSCRIBE __keyevent@*__:*");
    client
}

/// The next event: its database with its name, and the key.
fn next(listener: &mut Client) -> (String, String) {
    let message = reply::parse(&listener.receive().expect("an event"));
    let parts = message.elements();
    let channel = parts[2].string();
    let name = channel.strip_prefix("__keyevent@").expect("a channel of events").replacen("__:", " ", 1);
    (name, parts[3].string())
}

/// As many events as the text holds, one each `db name key`, with commas between.
fn assert_heard(listener: &mut Client, expected: &str) {
    let wanted: Vec<&str> = expected.split(", ").collect();
    let heard: Vec<String> = wanted.iter().map(|_| next(listener)).map(|(name, key)| format!("{name} {key}")).collect();
    assert_eq!(heard, wanted);
}

/// Four connections set and remove one key in turn, on four workers. Each change needs the one before it, so the
/// events must alternate, and there are as many as the replies say.
#[test]
fn the_events_of_a_key_come_in_the_order_of_its_changes() {
    for threads in [1, 2, 4] {
        let server = start(threads);
        let mut listener = listener(&server);
        let changes: i64 = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| server.client())
                .map(|mut client| {
                    scope.spawn(move || {
                        let calls = (0..400).map(|call| match call % 2 {
                            0 => client.ok("SETNX k v").integer(),
                            _ => client.ok("DEL k").integer(),
                        });
                        calls.sum::<i64>()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().expect("a client")).sum()
        });
        server.client().ok("SET end v");
        let mut heard = 0;
        loop {
            let (name, key) = next(&mut listener);
            if key == "end" {
                break;
            }
            let expected = ["0 new", "0 set", "0 del"][heard % 3];
            assert_eq!((name.as_str(), key.as_str()), (expected, "k"), "event {heard} with {threads} threads");
            heard += 1;
        }
        // SETNX tells two events, and as many SETNX as DEL have succeeded, or one more.
        let pairs = changes as usize / 2;
        assert_eq!(heard, 3 * pairs + if changes % 2 == 1 { 2 } else { 0 });
        assert!(changes > 100, "{changes} changes");
    }
}

/// Who hears the reply of a command, and then asks the listener, finds the events there already.
#[test]
fn an_event_is_on_its_way_before_the_reply() {
    let server = start(4);
    for _ in 0..20 {
        let (mut listener, mut client) = (listener(&server), server.client());
        client.ok("SET k v");
        listener.send(b"PING\r\n").expect("the connection holds");
        assert_eq!(reply::parse(&listener.receive().expect("an event")).elements()[3].text(), b"k");
        client.ok("DEL k");
    }
}

#[test]
fn every_path_tells_its_events() {
    let server = start(4);
    let (mut listener, mut client) = (listener(&server), server.client());
    client.ok("SET k v PX 20");
    assert_heard(&mut listener, "0 new k, 0 set k, 0 expire k, 0 expired k");
    client.ok("MULTI");
    for line in ["SET a 1", "INCR a", "SELECT 3", "RPUSH l x", "DEL nothing"] {
        client.ok(line);
    }
    client.ok("EXEC");
    assert_heard(&mut listener, "0 new a, 0 set a, 0 incrby a, 3 new l, 3 rpush l");
    client.ok("SELECT 0");
    // Nothing of what failed.
    client.line("MULTI");
    client.line("LPUSH a x");
    client.line("EXEC");
    assert!(client.line("SUNIONSTORE d a").is_error());
    // A waiting client that is served, on whatever worker it is.
    let mut waiting = server.client();
    waiting.send(b"BLPOP q 0\r\n").expect("the connection holds");
    while !client.ok("INFO clients").string().contains("blocked_clients:1") {
        std::thread::yield_now();
    }
    client.ok("RPUSH q x");
    assert_eq!(waiting.receive().expect("the element"), b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
    assert_heard(&mut listener, "0 new q, 0 rpush q, 0 lpop q, 0 del q");
    client.ok("HSET h f v");
    client.ok("HPEXPIRE h 10 FIELDS 1 f");
    assert_heard(&mut listener, "0 new h, 0 hset h, 0 hexpire h, 0 hexpired h, 0 del h");
    client.ok("FLUSHALL");
    client.ok("SET end v");
    assert_heard(&mut listener, "0 new end, 0 set end");
}

#[test]
fn evicted_keys_are_told() {
    let server = start(2);
    let mut client = server.client();
    client.ok("CONFIG SET notify-keyspace-events Ee");
    let mut listener = listener(&server);
    client.ok("CONFIG SET maxmemory-policy allkeys-random");
    for number in 0..100 {
        client.ok(&format!("SET k:{number} {}", "v".repeat(100)));
    }
    client.ok("CONFIG SET maxmemory 1");
    client.line("SET more v");
    let (name, key) = next(&mut listener);
    assert_eq!(name, "0 evicted");
    client.ok("CONFIG SET maxmemory 0");
    assert_eq!(client.ok(&format!("EXISTS {key}")).integer(), 0);
}

#[test]
fn the_classes_are_changed_while_the_server_runs() {
    let server = start(2);
    let (mut listener, mut client) = (listener(&server), server.client());
    assert_eq!(client.ok("CONFIG GET notify-keyspace-events").elements()[1].text(), b"AnKE");
    client.ok("CONFIG SET notify-keyspace-events El");
    client.ok("SET k v");
    client.ok("RPUSH l a");
    client.ok("CONFIG SET notify-keyspace-events \"\"");
    client.ok("RPUSH l a");
    // In a transaction from the next command on.
    for line in ["MULTI", "SET k 1", "CONFIG SET notify-keyspace-events E$", "SET k 2", "EXEC"] {
        client.ok(line);
    }
    assert_heard(&mut listener, "0 rpush l, 0 set k");
    client.ok("SET end 1");
    assert_heard(&mut listener, "0 set end");
}

#[test]
fn fields_are_told_on_their_own_channels() {
    let server = start(2);
    let (mut listener, mut client) = (server.client(), server.client());
    client.ok("CONFIG SET notify-keyspace-events hSTIV");
    listener.ok("HELLO 3");
    listener.ok("PSUBSCRIBE *");
    client.ok("HSET my:h a 1 b 2");
    for (channel, content) in [
        ("__subkeyspace@0__:my:h", "hset|1:a,1:b"),
        ("__subkeyevent@0__:hset", "4:my:h|1:a,1:b"),
        ("__subkeyspaceitem@0__:my:h\na", "hset"),
        ("__subkeyspaceitem@0__:my:h\nb", "hset"),
        ("__subkeyspaceevent@0__:hset|my:h", "1:a,1:b"),
    ] {
        let message = reply::parse(&listener.receive().expect("a message"));
        assert_eq!(
            (message.elements()[2].string().as_str(), message.elements()[3].string().as_str()),
            (channel, content)
        );
    }
}

/// Whoever was told of a change must find it after a crash: under `always`, an event waits for the disk as a reply
/// does. After the restart, events go on, by the configuration of the start.
#[test]
fn what_was_told_is_there_after_a_crash() {
    let mut server = Recipe::under_test()
        .with("io-threads", "4")
        .with("appendfsync", "always")
        .with("notify-keyspace-events", "E$")
        .start();
    let mut listener = listener(&server);
    let mut writers: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for (writer, client) in writers.iter_mut().enumerate() {
        let lines: String = (0..500).map(|number| format!("SET k:{writer}:{number} v\r\n")).collect();
        client.send(lines.as_bytes()).expect("the connection holds");
    }
    let heard: Vec<String> = (0..300).map(|_| next(&mut listener).1).collect();
    server.kill();
    server.start_again();
    let mut client = server.client();
    for key in &heard {
        assert_eq!(client.ok(&format!("EXISTS {key}")).integer(), 1, "{key} was told");
    }
    let mut listener = self::listener(&server);
    client.ok("SET again v");
    assert_heard(&mut listener, "0 set again");
}
