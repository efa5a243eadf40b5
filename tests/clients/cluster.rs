//! Cluster clients, end to end, against a server with `cluster-enabled yes`: work, `kill -9`, restart, and the node and
//! its data are there.

use std::process::Command;

use redis::Commands;
use redis::cluster::ClusterClient;

use crate::support::client::PATIENCE;
use crate::support::server::{Recipe, Server};
use crate::{node, python, run};

fn start() -> Server {
    let recipe = Recipe::under_test().with("cluster-enabled", "yes").with("save", "").with("io-threads", "2");
    recipe.with("appendonly", "yes").start()
}

/// `write`, a crash, `verify`: a client that finds its way by the map of slots alone.
fn crash_between(command: impl Fn(u16, &str) -> Command) {
    let mut server = start();
    let id = server.client().call(&["CLUSTER", "MYID"]);
    run(&mut command(server.port(), "write"));
    server.kill();
    server.start_again();
    assert_eq!(server.client().call(&["CLUSTER", "MYID"]), id, "it is the same node");
    run(&mut command(server.port(), "verify"));
}

#[test]
fn node_redis() {
    crash_between(|port, phase| node("cluster-node-redis.mjs", port, phase));
}

#[test]
fn ioredis() {
    crash_between(|port, phase| node("cluster-ioredis.mjs", port, phase));
}

#[test]
fn redis_py() {
    crash_between(|port, phase| python("cluster_redis_py.py", port, phase));
}

#[test]
fn redis_rs() {
    let mut server = start();
    let connect = |server: &Server| {
        let builder = ClusterClient::builder([format!("redis://127.0.0.1:{}", server.port())]);
        let client = builder.connection_timeout(PATIENCE).response_timeout(PATIENCE).build().expect("an address");
        client.get_connection().expect("a cluster of one node")
    };
    let mut connection = connect(&server);
    for number in 0..200 {
        connection.set::<_, _, ()>(format!("key:{number}"), number).expect("SET");
    }
    connection.mset::<_, _, ()>(&[("{user}a", 1), ("{user}b", 2)]).expect("keys of one slot");
    let both: Vec<i32> = connection.mget(&["{user}a", "{user}b"]).expect("MGET");
    assert_eq!(both, [1, 2]);
    let after: Vec<i64> = (0..200).map(|number| connection.incr(format!("key:{number}"), 1).expect("INCR")).collect();
    assert_eq!(after, (1..=200).collect::<Vec<_>>());
    server.kill();
    server.start_again();
    let mut connection = connect(&server);
    assert_eq!(connection.get::<_, i64>("key:199").expect("GET"), 200);
}

fn cli(arguments: &[&str]) -> String {
    let output = run(Command::new("redis-cli").args(arguments));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

#[test]
fn redis_cli() {
    let server = start();
    let port = server.port().to_string();
    let address = format!("127.0.0.1:{port}");
    assert_eq!(cli(&["-c", "-p", &port, "SET", "a", "1"]), "OK");
    assert_eq!(cli(&["-c", "-p", &port, "GET", "a"]), "1");
    let check = cli(&["--cluster", "check", &address]);
    assert!(check.contains("[OK] All nodes agree about slots configuration."), "{check}");
    assert!(check.contains("[OK] All 16384 slots covered."), "{check}");
    let info = cli(&["--cluster", "info", &address]);
    assert!(info.contains("1 keys | 16384 slots | 0 slaves."), "{info}");
    let called = cli(&["--cluster", "call", &address, "INCR", "a"]);
    assert!(called.contains(&format!("{address}: 2")), "{called}");
}
