//! Persistence changed while the server runs: the log switched on and off, policies, snapshots beside all of it.
//!
//! None looks at a clock: a hang is what a read that times out shows.

mod support;

use support::client::{Client, encode};
use support::server::{Recipe, Server};

fn start(appendonly: &str, policy: &str) -> Server {
    Recipe::under_test()
        .with("io-threads", "2")
        .with("enable-debug-command", "yes")
        .with("save", "")
        .with("appendonly", appendonly)
        .with("appendfsync", policy)
        .start()
}

/// Sends lines as one pipeline; gives the reply to the last.
fn last_of(client: &mut Client, lines: &[&str]) -> String {
    let words = |line: &&str| encode(&line.split(' ').collect::<Vec<_>>());
    client.send(&lines.iter().flat_map(words).collect::<Vec<u8>>()).expect("the server takes it");
    let replies = lines.iter().map(|_| client.receive().expect("each command is answered"));
    String::from_utf8(replies.last().expect("there are lines")).expect("ASCII").replace("\r\n", " ")
}

/// Every connection of the server hung for ever: EXEC, alone behind the gate, waited for the log's writer to switch
/// it off, and the snapshot that it had begun held the writer and waited for the gate.
#[test]
fn the_log_is_switched_off_in_a_transaction_that_begins_a_snapshot() {
    let server = start("yes", "everysec");
    let mut client = server.client();
    for round in 0..5 {
        let on_again = "*4 +Background saving scheduled +OK +OK $3 new ";
        let replies = last_of(
            &mut client,
            &["MULTI", "BGSAVE", "DEBUG SLEEP 0.2", "CONFIG SET appendonly no", "ECHO new", "EXEC"],
        );
        assert_eq!(replies, on_again, "round {round}");
        assert_eq!(client.ok("CONFIG GET appendonly").elements()[1].string(), "no");
        client.ok(&format!("SET k {round}"));
        assert_eq!(server.client().ok("GET k").string(), round.to_string());
        client.ok("CONFIG SET appendonly yes");
    }
}

/// What EXEC defers is replied to in its place, and one that fails changes nothing.
#[test]
fn what_a_transaction_changes_is_replied_to_in_its_place() {
    let server = start("yes", "everysec");
    let mut client = server.client();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = format!("CONFIG SET port {}", taken.local_addr().expect("its address").port());
    for (off, on) in [("no", "yes"), ("yes", "no")] {
        let (off, on) = (format!("CONFIG SET appendonly {off}"), format!("CONFIG SET appendonly {on}"));
        let replies =
            last_of(&mut client, &["MULTI", "SET k v", &off, "GET k", &port, "CONFIG SET maxmemory 5gb", &on, "EXEC"]);
        let failed = "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. \
                      Check server logs.";
        assert_eq!(replies, format!("*6 +OK +OK $1 v {failed} +OK +OK "));
        assert_eq!(last_of(&mut client, &["PING"]), "+PONG ");
    }
    assert_eq!(client.ok("CONFIG GET appendonly").elements()[1].string(), "no");
    // A client that asks for no replies gets none of it.
    let silent = ["CLIENT REPLY OFF", "MULTI", "CONFIG SET appendonly yes", "EXEC", "CLIENT REPLY ON"];
    client
        .send(&silent.iter().flat_map(|line| encode(&line.split(' ').collect::<Vec<_>>())).collect::<Vec<u8>>())
        .expect("the server takes it");
    assert_eq!(client.receive().expect("the last is answered"), b"+OK\r\n");
    assert_eq!(client.ok("CONFIG GET appendonly").elements()[1].string(), "yes");
}

/// CONFIG SET had answered at once, and what was acknowledged from then on was gone after `kill -9`, WAITAOF or not: it
/// stood in a log that nothing names before the snapshot it goes on from is committed.
#[test]
fn what_is_acknowledged_after_the_log_was_switched_on_survives_kill_nine() {
    for policy in ["always", "everysec", "no"] {
        let mut server = start("yes", policy);
        let mut client = server.client();
        client.ok("DEBUG POPULATE 30000");
        for round in 1..=3 {
            client.ok("CONFIG SET appendonly no");
            client.ok(&format!("SET a {round}"));
            assert!(client.line("WAITAOF 1 0 0").is_error());
            client.ok("CONFIG SET appendonly yes");
            for _ in 0..20 {
                client.ok("INCR counter");
            }
            if policy != "no" {
                assert_eq!(client.ok("WAITAOF 1 0 0").elements()[0].integer(), 1);
            }
            server.kill();
            server.start_again();
            client = server.client();
            assert_eq!(client.ok("GET a").string(), round.to_string(), "{policy}");
            assert_eq!(client.ok("GET counter").string(), (20 * round).to_string(), "{policy}");
            assert_eq!(client.ok("DBSIZE").integer(), 30_002);
        }
    }
}

/// Nothing is promised before the reply, and others go on meanwhile.
#[test]
fn a_crash_while_the_log_is_switched_on_leaves_what_it_held_before() {
    let mut server = start("yes", "always");
    for round in 0..5_u64 {
        let mut client = server.client();
        client.ok(&format!("SET before {round}"));
        client.ok("DEBUG POPULATE 20000");
        client.ok("CONFIG SET appendonly no");
        let mut switching = server.client();
        switching.send(&encode(&["CONFIG", "SET", "appendonly", "yes"])).expect("the server takes it");
        for number in 0..round * 20 {
            client.ok(&format!("SET meanwhile {number}"));
        }
        server.kill();
        server.start_again();
        assert_eq!(server.client().ok("GET before").string(), round.to_string());
    }
}

#[test]
fn a_log_that_cannot_be_begun_stays_off_and_says_so() {
    let recipe = Recipe::under_test().with("save", "").with("appendonly", "no").with("rdbcompression", "no");
    let mut server = recipe.with("enable-debug-command", "yes").with_file_size_limit(400).start();
    let mut client = server.client();
    client.ok("DEBUG POPULATE 5000 key 500");
    for _ in 0..2 {
        let reply = client.line("CONFIG SET appendonly yes");
        assert!(reply.is_error() && reply.string().contains("'appendonly'"), "{reply:?}");
        assert_eq!(client.ok("CONFIG GET appendonly").elements()[1].string(), "no");
        assert!(client.ok("INFO persistence").string().contains("aof_enabled:0"));
        client.ok("SET k v");
    }
    server.lift_file_size_limit();
    client.ok("CONFIG SET appendonly yes");
    client.ok("SET k w");
    assert!(client.ok("INFO persistence").string().contains("aof_enabled:1"));
    server.set_recipe(server.recipe().clone().with("appendonly", "yes"));
    server.kill();
    server.start_again();
    assert_eq!(server.client().ok("GET k").string(), "w");
    assert_eq!(server.client().ok("DBSIZE").integer(), 5001);
}

/// Every change of persistence, by several operators at once, beside writers and snapshots.
#[test]
fn persistence_changes_under_load_and_keeps_what_it_promised() {
    let mut server = start("yes", "always");
    for round in 0..4 {
        std::thread::scope(|scope| {
            for operator in 0..2 {
                let mut client = server.client();
                scope.spawn(move || {
                    for line in [
                        "CONFIG SET appendonly no",
                        "CONFIG SET appendfsync everysec",
                        "CONFIG SET appendonly yes",
                        "CONFIG SET appendfsync no",
                        "CONFIG SET appendonly no appendfsync always",
                        "CONFIG SET save \"1 1\"",
                        "CONFIG SET appendonly yes",
                        "CONFIG SET save \"\"",
                    ] {
                        client.ok(line);
                        client.line(if operator == 0 { "BGSAVE" } else { "BGREWRITEAOF" });
                    }
                });
            }
            for writer in 0..2 {
                let mut client = server.client();
                scope.spawn(move || (0..300).for_each(|n| drop(client.ok(&format!("SET writer:{writer} {n}")))));
            }
        });
        let mut client = server.client();
        // What was only written before is synced when the reply leaves.
        client.ok("CONFIG SET appendonly yes appendfsync no");
        client.ok(&format!("SET round {round}"));
        client.ok("CONFIG SET appendfsync always");
        assert_eq!(client.ok("WAITAOF 1 0 1").elements()[0].integer(), 1);
        server.kill();
        server.start_again();
        let mut client = server.client();
        assert_eq!(client.ok("GET round").string(), round.to_string());
        assert_eq!(
            client.ok("MGET writer:0 writer:1").elements().iter().map(|r| r.string()).collect::<Vec<_>>(),
            ["299"; 2]
        );
    }
}
