//! Servers with `cluster-enabled`: `cases/cluster.txt`, against a Redis that is given all slots.

use crate::cases::{Group, Run, read, report};
use crate::compare::{Pair, Protocol};
use crate::support::server::{Recipe, Server, free_port};
use std::time::Duration;

/// The case file.
pub(crate) fn groups() -> Vec<Group> {
    read("cluster.txt", include_str!("cases/cluster.txt"))
}

/// Starts both with cluster mode on; the recipe is that of the server under test.
pub(crate) fn pair(tested: Recipe) -> Pair {
    Pair { reference: redis(Recipe::reference()), tested: tested.with("cluster-enabled", "yes").start() }
}

/// A genuine server that owns all slots and knows that its cluster is well.
pub(crate) fn redis(recipe: Recipe) -> Server {
    // By default the bus is 10000 above the port, where there may be no port.
    let bus = free_port().to_string();
    let server = recipe.with("cluster-enabled", "yes").with("cluster-port", &bus).start();
    let mut client = server.client();
    assert_eq!(client.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), b"+OK\r\n");
    for _ in 0..30_000 {
        if String::from_utf8_lossy(&client.call(&["CLUSTER", "INFO"])).contains("cluster_state:ok") {
            return server;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the reference does not find its cluster well: {}", server.log());
}

fn run_with_threads(threads: usize) {
    let pair = match Recipe::is_stand_in() {
        true => Pair { reference: redis(Recipe::reference()), tested: redis(Recipe::under_test()) },
        false => pair(Recipe::under_test().with("io-threads", &threads.to_string())),
    };
    let groups = groups();
    let mut differences = Vec::new();
    for protocol in Protocol::ALL {
        for batch in [1, usize::MAX] {
            differences.extend(Run { pair: &pair, protocol, batch, flush: true, is_peer: false }.all(&groups));
        }
    }
    report(&differences);
}

#[test]
fn one_thread() {
    run_with_threads(1);
}

#[test]
fn four_threads() {
    run_with_threads(4);
}
