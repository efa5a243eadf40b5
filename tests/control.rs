//! What one connection does to others: it kills them, and it pauses them.
//!
//! Connections are dealt to the workers in turn, so that of `2 * workers` every worker has two.

mod support;

use std::time::{Duration, Instant};
use support::client::{Client, encode};
use support::reply;
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
        // The one that waited for the start may not be gone yet.
        wait_for(&mut killer, "CLIENT LIST", |list| list.matches("id=").count() == 1);
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

/// Waits until so many connections stand still or wait.
fn wait_for_blocked(client: &mut Client, count: usize) {
    let wanted = format!("blocked_clients:{count}\r");
    wait_for(client, "INFO clients", |info| info.contains(&wanted));
}

#[test]
fn a_pause_of_writes_holds_back_whatever_reaches_replicas_and_nothing_else() {
    for workers in [1, 2, 4] {
        let (server, mut clients) = start(workers);
        let mut own = clients.pop().expect("there are some");
        assert_eq!(text(&mut own, "SET k 0"), "+OK\r\n");
        assert_eq!(text(&mut own, "CLIENT PAUSE 1000000 WRITE"), "+OK\r\n");
        let held_back: Vec<(&str, &str)> = vec![
            // FLUSHALL may come between: both replies are the same wherever it does.
            ("INCR k\r\nGET none\r\n", ":1\r\n$-1\r\n"),
            ("PFCOUNT h\r\n", ":0\r\n"),
            ("PUBLISH c m\r\n", ":0\r\n"),
            ("SPUBLISH c m\r\n", ":0\r\n"),
            ("BLPOP l 0.01\r\n", "*-1\r\n"),
            ("FLUSHALL\r\n", "+OK\r\n"),
            ("MULTI\r\nSET m 1\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
        ];
        let mut writers = Vec::new();
        for (commands, _) in &held_back {
            let mut writer = server.client();
            writer.send(commands.as_bytes()).expect("it is connected");
            writers.push(writer);
        }
        wait_for_blocked(&mut own, held_back.len());
        for reader in &mut clients {
            assert_eq!(text(reader, "GET k"), "$1\r\n0\r\n");
            assert_eq!(text(reader, "PING"), "+PONG\r\n");
            assert_eq!(text(reader, "SET k"), "-ERR wrong number of arguments for 'set' command\r\n");
        }
        assert_eq!(text(&mut own, "EXISTS m"), ":0\r\n");
        assert!(text(&mut own, "INFO clients").contains("paused_actions:write\r"));
        assert!(text(&mut own, "CLIENT LIST FLAGS b").contains(" cmd=publish "));
        assert_eq!(text(&mut own, "CLIENT UNPAUSE"), "+OK\r\n");
        for (mut writer, (_, replies)) in writers.into_iter().zip(&held_back) {
            let mut all = String::new();
            while all.len() < replies.len() {
                all += &String::from_utf8_lossy(&writer.receive().expect("a reply"));
            }
            assert_eq!(all, *replies);
        }
        wait_for_blocked(&mut own, 0);
        assert!(text(&mut own, "INFO clients").contains("paused_actions:none\r"));
    }
}

#[test]
fn a_pause_of_writes_lets_scripts_pass_that_say_that_they_do_not_write() {
    for workers in [1, 2] {
        let (server, mut clients) = start(workers);
        let mut own = clients.pop().expect("there are some");
        own.ok("SET k v");
        let code = "#!lua name=f\nredis.register_function{function_name='f', callback=function() return 'f' end, \
                    flags={'no-writes'}}";
        own.call(&["FUNCTION", "LOAD", code]);
        let reads = "#!lua flags=no-writes\nreturn redis.call('GET', 'k')";
        let sha = reply::parse(&own.call(&["SCRIPT", "LOAD", reads])).string();
        own.ok("CLIENT PAUSE 1000000 WRITE");
        let mut writer = server.client();
        writer.send(&encode(&["EVAL", "return redis.call('SET', 'k', 'w')", "0"])).expect("it is connected");
        wait_for_blocked(&mut own, 1);
        for reader in &mut clients {
            assert_eq!(reader.call(&["EVAL", reads, "0"]), b"$1\r\nv\r\n");
            assert_eq!(reader.call(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "k"]), b"$1\r\nv\r\n");
            assert_eq!(text(reader, &format!("EVALSHA {sha} 0")), "$1\r\nv\r\n");
            assert_eq!(text(reader, "FCALL f 0"), "$1\r\nf\r\n");
            assert_eq!(text(reader, "MULTI"), "+OK\r\n");
            assert_eq!(text(reader, &format!("EVALSHA {sha} 0")), "+QUEUED\r\n");
            assert_eq!(text(reader, "EXEC"), "*1\r\n$1\r\nv\r\n");
        }
        own.ok("CLIENT UNPAUSE");
        assert_eq!(writer.receive().expect("a reply"), b"+OK\r\n");
    }
}

/// Once CLIENT PAUSE is answered, no write runs any more, even one that had begun on another worker.
#[test]
fn no_write_runs_once_a_pause_is_answered() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut own = clients.pop().expect("there are some");
        for round in 0..10 {
            for writer in &mut clients {
                writer.send(&b"INCR n\r\n".repeat(500)).expect("it is connected");
            }
            assert_eq!(text(&mut own, "CLIENT PAUSE 1000000 WRITE"), "+OK\r\n");
            let before = text(&mut own, "GET n");
            (0..20).for_each(|_| assert_eq!(text(&mut own, "GET n"), before, "round {round}"));
            assert_eq!(text(&mut own, "CLIENT UNPAUSE"), "+OK\r\n");
            for writer in &mut clients {
                (0..500).for_each(|_| drop(writer.receive().expect("a reply")));
            }
        }
        let all = 10 * 500 * clients.len();
        assert!(text(&mut own, "GET n").ends_with(&format!("\r\n{all}\r\n")));
    }
}

/// Only its time ends a pause of everything, so the server ends in it and is asked when it is there again.
#[test]
fn a_client_that_leaves_during_a_pause_takes_its_command_with_it() {
    for workers in [1, 2, 4] {
        let workers = workers.to_string();
        let mut server = Recipe::under_test().with("io-threads", &workers).with("appendonly", "yes").start();
        let mut own = server.client();
        assert_eq!(text(&mut own, "SET before 1"), "+OK\r\n");
        assert_eq!(text(&mut own, "CLIENT PAUSE 1000000 ALL"), "+OK\r\n");
        let mut leaving = server.client();
        leaving.send(b"SET left 1\r\n").expect("it is connected");
        leaving.finish_sending();
        assert_eq!(leaving.receive_until_close().expect("it closes during the pause"), b"");
        server.kill();
        server.start_again();
        let mut own = server.client();
        assert_eq!(text(&mut own, "EXISTS before left"), ":1\r\n");
        assert_eq!(text(&mut own, "EXISTS left"), ":0\r\n");
    }
}

#[test]
fn a_pause_of_everything_ends_by_its_time() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut own = clients.pop().expect("there are some");
        assert_eq!(text(&mut own, "CLIENT PAUSE 500 ALL"), "+OK\r\n");
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("SET k:{n} v\r\nPING\r\nGET k:{n}\r\n").as_bytes()).expect("it is connected");
        }
        for client in &mut clients {
            for wanted in [&b"+OK\r\n"[..], b"+PONG\r\n", b"$1\r\nv\r\n"] {
                assert_eq!(client.receive().expect("a reply"), wanted);
            }
        }
        wait_for_blocked(&mut own, 0);
    }
}

#[test]
fn a_paused_connection_can_be_killed_and_not_unblocked() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut own = clients.pop().expect("there are some");
        let mut victim = clients.pop().expect("there are some");
        let id = id_of(&mut victim);
        assert_eq!(text(&mut own, "CLIENT PAUSE 1000000 WRITE"), "+OK\r\n");
        victim.send(b"SET k v\r\n").expect("it is connected");
        wait_for_blocked(&mut own, 1);
        assert_eq!(text(&mut own, &format!("CLIENT UNBLOCK {id}")), ":0\r\n");
        assert_eq!(text(&mut own, &format!("CLIENT KILL ID {id}")), ":1\r\n");
        assert_eq!(victim.receive_until_close().expect("it closes"), b"");
        assert_eq!(text(&mut own, "CLIENT UNPAUSE"), "+OK\r\n");
        assert_eq!(text(&mut own, "EXISTS k"), ":0\r\n");
    }
}

/// What has expired in a pause is not seen, and goes when the pause is over.
#[test]
fn nothing_expires_in_a_pause() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers);
        let mut own = clients.pop().expect("there are some");
        // Together, so that it does not expire before the pause.
        for (line, reply) in [
            ("MULTI", "+OK\r\n"),
            ("SET k v PX 50", "+QUEUED\r\n"),
            ("CLIENT PAUSE 1000000 WRITE", "+QUEUED\r\n"),
            ("EXEC", "*2\r\n+OK\r\n+OK\r\n"),
        ] {
            assert_eq!(text(&mut own, line), reply);
        }
        wait_for(&mut own, "GET k", |reply| reply == "$-1\r\n");
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(text(&mut own, "DBSIZE"), ":1\r\n");
        assert_eq!(text(&mut own, "KEYS *"), "*0\r\n");
        assert!(text(&mut own, "INFO stats").contains("\nexpired_keys:0\r"));
        assert_eq!(text(&mut own, "CLIENT UNPAUSE"), "+OK\r\n");
        wait_for(&mut own, "DBSIZE", |reply| reply == ":0\r\n");
        wait_for(&mut own, "INFO stats", |info| info.contains("\nexpired_keys:1\r"));
    }
}

/// While data is imported, expired keys stay: hidden, but not from the connection that imports.
#[test]
fn an_import_source_sees_what_has_expired() {
    let (_server, mut clients) = start(2);
    let mut source = clients.pop().expect("there are some");
    let mut other = clients.pop().expect("there are some");
    assert_eq!(text(&mut source, "CLIENT IMPORT-SOURCE ON"), "-ERR Server is not in import mode\r\n");
    assert_eq!(text(&mut other, "CONFIG SET import-mode yes"), "+OK\r\n");
    assert_eq!(text(&mut source, "CLIENT IMPORT-SOURCE ON"), "+OK\r\n");
    assert!(text(&mut other, "CLIENT LIST FLAGS I").contains(" flags=I "));
    assert_eq!(text(&mut source, "SET k v PX 20"), "+OK\r\n");
    assert_eq!(text(&mut source, "HSET h f v"), ":1\r\n");
    assert_eq!(text(&mut source, "HPEXPIRE h 20 FIELDS 1 f"), "*1\r\n:1\r\n");
    wait_for(&mut other, "EXISTS k", |reply| reply == ":0\r\n");
    wait_for(&mut other, "HEXISTS h f", |reply| reply == ":0\r\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(text(&mut source, "GET k"), "$1\r\nv\r\n");
    assert_eq!(text(&mut source, "HGET h f"), "$1\r\nv\r\n");
    assert_eq!(text(&mut source, "SCAN 0 TYPE string"), "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n");
    assert_eq!(text(&mut other, "KEYS k"), "*0\r\n");
    assert_eq!(text(&mut other, "DBSIZE"), ":2\r\n");
    // A write by another connection finds no key there.
    assert_eq!(text(&mut other, "SET k w NX"), "+OK\r\n");
    assert_eq!(text(&mut other, "CONFIG SET import-mode no"), "+OK\r\n");
    wait_for(&mut other, "DBSIZE", |reply| reply == ":1\r\n");
}

/// The flags of a connection in CLIENT LIST.
fn flags_of(client: &mut Client, id: &str) -> String {
    let line = text(client, &format!("CLIENT LIST ID {id}"));
    let flags = line.split(' ').find_map(|field| field.strip_prefix("flags="));
    flags.unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[test]
fn a_list_tells_whose_watched_keys_have_changed() {
    for workers in [1, 2] {
        let (_server, mut clients) = start(workers);
        let (mut watcher, mut other) = (clients.pop().expect("a client"), clients.pop().expect("a client"));
        let id = id_of(&mut watcher);
        text(&mut watcher, "WATCH a b");
        text(&mut watcher, "MULTI");
        assert_eq!(flags_of(&mut other, &id), "x");
        text(&mut other, "SET c 1");
        assert_eq!(flags_of(&mut other, &id), "x");
        text(&mut other, "SET b 1");
        assert_eq!(flags_of(&mut other, &id), "xd");
        assert_eq!(text(&mut other, "CLIENT LIST FLAGS d").matches("id=").count(), 1);
        assert_eq!(text(&mut watcher, "EXEC"), "*-1\r\n");
        assert_eq!(flags_of(&mut other, &id), "N");
    }
}

#[test]
fn a_list_tells_who_was_unblocked_just_now() {
    let (_server, mut clients) = start(1);
    let (mut waiter, mut other) = (clients.pop().expect("a client"), clients.pop().expect("a client"));
    let id = id_of(&mut waiter);
    waiter.send(b"BLPOP k 0\r\n").expect("it is sent");
    wait_for_blocked(&mut other, 1);
    assert_eq!(flags_of(&mut other, &id), "b");
    // Its worker executes both commands before it goes on with the other connection.
    other.send(format!("CLIENT UNBLOCK {id}\r\nCLIENT LIST ID {id}\r\n").as_bytes()).expect("they are sent");
    assert_eq!(other.receive().expect("a reply"), b":1\r\n");
    let line = String::from_utf8(other.receive().expect("a reply")).expect("text");
    assert!(line.contains(" flags=u "), "{line}");
    assert_eq!(waiter.receive().expect("a reply"), b"*-1\r\n");
    assert_eq!(flags_of(&mut other, &id), "N");
}

/// Connections without priority leave the reserved places free.
#[test]
fn places_are_reserved_for_priority_subnets() {
    let (server, mut clients) = start(1);
    let mut client = clients.pop().expect("a client");
    // The one that waited for the start may not be gone yet.
    wait_for(&mut client, "INFO clients", |info| info.contains("connected_clients:2\r\n"));
    text(&mut client, "CONFIG SET maxclients 4 maxclients-reserved 2 priority-subnets 192.0.2.1/32");
    let refused = |server: &Server| server.client().receive_until_close().expect("a refusal");
    assert_eq!(refused(&server), b"-ERR max number of clients reached\r\n");
    text(&mut client, "CONFIG SET priority-subnets 127.0.0.1");
    let mut others: Vec<Client> = (0..2).map(|_| server.client()).collect();
    assert!(others.iter_mut().all(|other| text(other, "PING") == "+PONG\r\n"));
    assert!(text(&mut client, "INFO clients").contains("connected_priority_clients:2\r\n"));
    assert_eq!(refused(&server), b"-ERR max number of clients reached\r\n");
    let stats = text(&mut client, "INFO stats");
    assert!(stats.contains("rejected_connections:2\r\n") && stats.contains("rejected_priority_connections:1\r\n"));
    others.pop();
    wait_for(&mut client, "INFO clients", |info| info.contains("connected_priority_clients:1\r\n"));
    let refusal = text(&mut client, "CONFIG SET priority-subnets 127.0.0.1/99");
    assert!(refusal.contains("Invalid IP address or CIDR subnet"), "{refusal}");
}
