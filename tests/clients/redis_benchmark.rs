//! redis-benchmark, end to end: its whole default run, also with pipelines and threads. Speed is not looked at.

use std::process::Command;

use crate::support::server::Server;
use crate::{run, start_with};

/// What a default run measures, by the names in its output.
const TESTS: [&str; 19] = [
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)",
    "LRANGE_300 (first 300 elements)",
    "LRANGE_500 (first 500 elements)",
    "LRANGE_600 (first 600 elements)",
];

/// The tests of one run; an error of the server ends redis-benchmark, and fails the test.
fn benchmark(server: &Server, arguments: &[&str]) -> Vec<String> {
    let output = run(Command::new("redis-benchmark").args(["-p", &server.port().to_string(), "--csv"]).args(arguments));
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let warned = errors.lines().all(|line| line.is_empty() || line.starts_with("WARNING: Keepalive disabled"));
    assert!(warned && !said.contains("ERR"), "{arguments:?}\n{said}\n{errors}");
    let names = said.lines().skip(1).filter_map(|line| line.split('"').nth(1));
    names.map(str::to_owned).collect()
}

#[test]
fn its_whole_default_run() {
    const PIPELINE: [&str; 6] = ["-n", "320", "-c", "10", "-P", "16"];
    for workers in ["2", "4"] {
        let server = start_with(workers);
        for shape in [vec!["-n", "200"], PIPELINE.to_vec(), [&PIPELINE[..], &["--threads", "2"]].concat()] {
            let measured = benchmark(&server, &shape);
            assert!(TESTS.iter().all(|test| measured.iter().any(|name| name == test)), "{shape:?}: {measured:?}");
            assert!(measured.iter().any(|name| name == "MSET (10 keys)"), "{measured:?}");
        }
    }
}

#[test]
fn its_other_options() {
    let mut server = start_with("2");
    for options in [
        &["-t", "set,get,incr,lpush,zadd", "-n", "500", "-r", "100", "-d", "3000", "-c", "10"][..],
        &["-t", "set", "-n", "200", "-k", "0", "-c", "5"],
        &["-t", "get,hset", "-n", "500", "-3", "-P", "4"],
        &["-t", "get,set", "-n", "500", "--enable-tracking"],
        &["-n", "500", "-r", "1000", "--dbnum", "3", "XADD", "stream:__rand_int__", "*", "field", "__rand_int__"],
    ] {
        assert!(!benchmark(&server, options).is_empty(), "{options:?}");
    }
    server.kill();
    server.start_again();
    let mut client = server.client();
    let sizes = client.call(&["DBSIZE"]);
    assert!(sizes != b":0\r\n", "what was acknowledged is there");
    client.call(&["SELECT", "3"]);
    assert!(client.call(&["DBSIZE"]) != b":0\r\n");
}
