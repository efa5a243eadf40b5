//! Scripts on a real server: atomic, killed at any time, durable, and nobody's business who does not need their keys.

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::client::{Client, PATIENCE};
use support::server::{Recipe, Server};

/// Writes, and then never ends.
const ENDLESS: &str = "redis.call('SET', KEYS[1], 'half') redis.call('RPUSH', 'list', 1, 2) redis.call('DEL', 'other') \
                       while true do pcall(function() while true do end end) end";

fn start(workers: usize, rollback: &str) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string()).with("script-rollback", rollback);
    let server = server.with("busy-reply-threshold", "50").start();
    let clients = (0..2 * workers).map(|_| server.client()).collect();
    (server, clients)
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().to_owned()
}

fn eval(client: &mut Client, script: &str, key: &str) -> String {
    text(&client.call(&["EVAL", script, "1", key]))
}

/// Asks again until the reply begins so.
fn wait_for(client: &mut Client, words: &[&str], start: &str) {
    let began = Instant::now();
    loop {
        let reply = text(&client.call(words));
        if reply.starts_with(start) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{words:?}: {reply}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_script_that_is_killed_leaves_nothing_and_holds_up_only_those_who_need_keys() {
    for workers in [2, 4] {
        let (_server, mut clients) = start(workers, "on-kill");
        let (slow, others) = clients.split_first_mut().expect("there are some");
        others[0].ok("MSET k before other there");
        for _ in 0..3 {
            slow.send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
            // The first of the others is on another worker.
            wait_for(&mut others[0], &["GET", "k"], "-BUSY Redis is busy running a script.");
            assert_eq!(text(&others[0].call(&["PING"])), "+PONG");
            assert_eq!(text(&others[0].call(&["EVAL", "return 1", "0"])).split(' ').next(), Some("-BUSY"));
            assert_eq!(text(&others[0].call(&["SHUTDOWN"])).split(' ').next(), Some("-BUSY"));
            assert_eq!(slow.arrived(), 0);
            others[0].ok("SCRIPT KILL");
            let error = text(&slow.receive().expect("a reply"));
            assert!(error.starts_with("-ERR Script killed by user with SCRIPT KILL... script: "), "{error}");
            assert_eq!(others[0].ok("GET k").string(), "before");
            assert_eq!(others[0].ok("EXISTS list other").integer(), 1);
        }
        assert_eq!(text(&others[0].call(&["SCRIPT", "KILL"])), "-NOTBUSY No scripts in execution right now.");
        assert_eq!(eval(slow, "return redis.call('APPEND', KEYS[1], '!')", "k"), ":7");
    }
}

#[test]
fn without_rollback_a_script_that_has_written_cannot_be_killed() {
    let (_server, mut clients) = start(2, "no");
    let (slow, others) = clients.split_first_mut().expect("there are some");
    // One that only reads can.
    let reads = "redis.call('GET', KEYS[1]) while true do end";
    slow.send(&support::client::encode(&["EVAL", reads, "1", "k"])).expect("the connection holds");
    wait_for(&mut others[0], &["GET", "k"], "-BUSY");
    others[0].ok("SCRIPT KILL");
    assert!(text(&slow.receive().expect("a reply")).starts_with("-ERR Script killed"));
    slow.send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
    wait_for(&mut others[0], &["GET", "k"], "-BUSY");
    let error = text(&others[0].call(&["SCRIPT", "KILL"]));
    assert!(error.starts_with("-UNKILLABLE Sorry the script already executed write commands"), "{error}");
}

#[test]
fn what_a_script_that_fails_has_done_stands_unless_it_is_to_be_taken_back() {
    for (rollback, value) in [("on-kill", "half"), ("no", "half"), ("on-error", "before")] {
        let (_server, mut clients) = start(2, rollback);
        clients[0].ok("SET k before");
        let error = eval(&mut clients[0], "redis.call('SET', KEYS[1], 'half') error('no')", "k");
        assert!(error.starts_with("-ERR user_script:1: no"), "{error}");
        assert_eq!(clients[1].ok("GET k").string(), value, "{rollback}");
        // In a transaction, the script alone is taken back.
        for line in ["MULTI", "SET first 1", "EVAL \"redis.call('SET', 'k', 'more') x()\" 0", "SET last 1"] {
            clients[0].ok(line);
        }
        clients[0].call(&["EXEC"]);
        assert_eq!(clients[1].ok("EXISTS first last").integer(), 2);
        let value = if rollback == "on-error" { "before" } else { "more" };
        assert_eq!(clients[1].ok("GET k").string(), value, "{rollback}");
    }
}

#[test]
fn effects_are_one_block_and_survive() {
    let mut server = Recipe::under_test().with("io-threads", "2").with("appendfsync", "always").start();
    let mut client = server.client();
    client.ok("SET ours 1");
    let sha = text(&client.call(&["SCRIPT", "LOAD", "return redis.call('INCRBY', KEYS[1], ARGV[1])"]));
    let sha = sha.lines().last().expect("a name").to_owned();
    assert_eq!(text(&client.call(&["EVALSHA", &sha, "1", "ours", "41"])), ":42");
    let many = "for i = 1, 100 do redis.call('SET', 'key' .. i, i) redis.call('ZADD', 'set', i, i) end";
    assert_eq!(eval(&mut client, many, "x"), "$-1");
    // One that is in the middle when the power goes has done nothing.
    client.send(&support::client::encode(&["EVAL", ENDLESS, "1", "ours"])).expect("the connection holds");
    sleep(Duration::from_millis(100));
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("GET ours").string(), "42");
    assert_eq!(client.ok("ZCARD set").integer(), 100);
    assert_eq!(client.ok("GET key100").string(), "100");
    assert_eq!(client.ok("EXISTS list").integer(), 0);
    // Scripts are not kept, as in Redis.
    assert!(text(&client.call(&["EVALSHA", &sha, "1", "ours", "1"])).starts_with("-NOSCRIPT"));
}

#[test]
fn waiters_are_served_and_events_told_when_a_script_has_ended() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers, "on-kill");
        let (client, others) = clients.split_first_mut().expect("there are some");
        client.ok("CONFIG SET notify-keyspace-events KA");
        others[0].send(b"BLPOP list 0\r\n").expect("the connection holds");
        wait_for(client, &["INFO", "clients"], "$");
        let began = Instant::now();
        while !text(&client.call(&["INFO", "clients"])).contains("blocked_clients:1") {
            assert!(began.elapsed() < PATIENCE, "nobody waits");
        }
        let mut listener = _server.client();
        listener.ok("SUBSCRIBE __keyspace@0__:list");
        // What is gone again at the end serves nobody.
        eval(client, "redis.call('RPUSH', KEYS[1], 'a') redis.call('DEL', KEYS[1])", "list");
        assert_eq!(others[0].arrived(), 0);
        eval(client, "redis.call('RPUSH', KEYS[1], 'b', 'c')", "list");
        assert_eq!(text(&others[0].receive().expect("a reply")), "*2\r\n$4\r\nlist\r\n$1\r\nb");
        for event in ["rpush", "del", "rpush", "lpop"] {
            let message = text(&listener.receive().expect("a message"));
            assert!(message.ends_with(event), "{message}, not {event}");
        }
    }
}

#[test]
fn scripts_of_many_connections_lose_nothing() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 200;
    let (server, _clients) = start(4, "on-kill");
    let script = "local n = redis.call('INCR', KEYS[1]) redis.call('HSET', 'seen', n, ARGV[1]) \
                  if n % 7 == 0 then return redis.error_reply('SEVEN ' .. n) end return n";
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = server.client();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let reply = text(&client.call(&["EVAL", script, "1", "n", &format!("{number}:{round}")]));
                    assert!(reply.starts_with(':') || reply.starts_with("-SEVEN "), "{reply}");
                }
            });
        }
    });
    let mut client = server.client();
    assert_eq!(client.ok("GET n").string(), (CLIENTS * ROUNDS).to_string());
    assert_eq!(client.ok("HLEN seen").integer(), (CLIENTS * ROUNDS) as i64);
}

#[test]
fn an_endless_script_does_not_keep_the_server_from_ending() {
    let (mut server, mut clients) = start(2, "on-kill");
    clients[0].send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
    wait_for(&mut clients[1], &["GET", "k"], "-BUSY");
    clients[1].send(b"SHUTDOWN NOSAVE\r\n").expect("the connection holds");
    assert!(server.wait_for_exit().success(), "{}", server.log());
    server.start_again();
    assert_eq!(server.client().ok("EXISTS k list").integer(), 0);
}

/// In a cluster, a script says what it needs by the flags of its first line, and keeps to it.
#[test]
fn flags_of_a_script_hold_in_a_cluster() {
    let server = Recipe::under_test().with("cluster-enabled", "yes").start();
    let mut client = server.client();
    let two_slots = "redis.call('SET', 'a', 1) return redis.call('SET', 'b', 2)";
    let mut said = |line: &str| text(&client.call(&["EVAL", &format!("{line}{two_slots}"), "0"]));
    assert_eq!(said("#!lua flags=no-cluster\n"), "-ERR Can not run script on cluster, 'no-cluster' flag is set.");
    let error = said("#!lua\n");
    assert!(
        error.starts_with("-ERR Script attempted to access keys that do not hash to the same slot script: "),
        "{error}"
    );
    assert_eq!(said("#!lua flags=allow-cross-slot-keys\n"), "+OK");
    assert_eq!(said(""), "+OK", "one that says nothing may do all, as in Redis");
    let memory = client.ok("INFO memory").string();
    assert!(memory.contains("number_of_cached_scripts:4\r\n"), "{memory}");
}
