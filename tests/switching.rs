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
        while client.line("SAVE").is_error() {}
    }
}
