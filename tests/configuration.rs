//! The configuration of a running server: changed by many at once, beside transactions and snapshots.

mod support;

use std::thread::{scope, sleep};
use std::time::Duration;
use support::server::Recipe;

/// Three waited for each other, and every other connection for them: CONFIG SET held the configuration's values
/// while it waited for the log's writer, the snapshot held the writer while it waited for the gate, and INFO asked
/// for the values behind the closed gate.
#[test]
fn info_in_a_transaction_does_not_wait_for_a_change_of_the_configuration() {
    let server = Recipe::under_test().with("io-threads", "4").with("enable-debug-command", "yes").start();
    for round in 0..5 {
        scope(|scope| {
            let mut transaction = server.client();
            scope.spawn(move || {
                for line in ["MULTI", "BGSAVE", "DEBUG SLEEP 0.3", "INFO memory", "CONFIG GET maxmemory"] {
                    transaction.ok(line);
                }
                let replies = transaction.ok("EXEC");
                assert!(replies.elements()[2].string().contains("used_memory:"), "{replies:?}");
            });
            for delay_ms in [10, 15] {
                let mut operator = server.client();
                scope.spawn(move || {
                    sleep(Duration::from_millis(delay_ms));
                    operator.ok("CONFIG SET appendonly no");
                });
            }
        });
        let mut client = server.client();
        client.ok(&format!("SET round {round}"));
        client.ok("CONFIG SET appendonly yes");
        assert_eq!(client.ok("CONFIG GET appendonly").elements()[1].string(), "yes");
    }
}
