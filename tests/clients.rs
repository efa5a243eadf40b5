//! The clients that people use, end to end: work, `kill -9`, restart, and the data is there.
//!
//! node-redis and ioredis (`clients/node`), redis-py (`clients/python`), redis-cli, and the crate
//! `redis`. `tests/run` installs what is needed; without it these tests fail and say so.

mod support;

use redis::{Commands, Connection};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::client::encode;
use support::server::{Recipe, Server};

fn start() -> Server {
    Recipe::under_test().with("save", "").with("appendonly", "yes").with("io-threads", "2").start()
}

/// A folder under `tests/clients`.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn run(command: &mut Command) -> Output {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}\nstart these tests with `tests/run`"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// `write`, a crash, `verify`.
fn crash_between(command: impl Fn(u16, &str) -> Command) {
    let mut server = start();
    run(&mut command(server.port(), "write"));
    server.kill();
    server.start_again();
    run(&mut command(server.port(), "verify"));
}

fn node(script: &str, port: u16, phase: &str) -> Command {
    let folder = folder("node");
    assert!(folder.join("node_modules").exists(), "{} lacks node_modules: start with `tests/run`", folder.display());
    let mut command = Command::new("node");
    command.arg(folder.join(script)).args([&port.to_string(), phase]);
    command
}

fn python(port: u16, phase: &str) -> Command {
    let folder = folder("python");
    let program = folder.join(".venv/bin/python");
    assert!(program.exists(), "{} is missing: start with `tests/run`", program.display());
    let mut command = Command::new(program);
    command.arg(folder.join("redis_py.py")).args([&port.to_string(), phase]);
    command
}

#[test]
fn node_redis() {
    for protocol in ["2", "3"] {
        crash_between(|port, phase| {
            let mut command = node("node-redis.mjs", port, phase);
            command.arg(protocol);
            command
        });
    }
}

/// Profiles, a queue with waiting workers, tags, a leaderboard of 100,000 players, a stream with a group.
#[test]
fn what_tutorials_teach() {
    for protocol in ["2", "3"] {
        crash_between(|port, phase| {
            let mut command = node("tutorial.mjs", port, phase);
            command.arg(protocol);
            command
        });
    }
}

#[test]
fn ioredis() {
    crash_between(|port, phase| node("ioredis.mjs", port, phase));
}

#[test]
fn redis_py() {
    for protocol in ["2", "3"] {
        crash_between(|port, phase| {
            let mut command = python(port, phase);
            command.arg(protocol);
            command
        });
    }
}

// ---------------------------------------------------------------- the crate `redis`

fn connect(server: &Server, protocol: &str) -> Connection {
    let url = format!("redis://127.0.0.1:{}/6{protocol}", server.port());
    redis::Client::open(url).expect("a valid address").get_connection().expect("the server listens")
}

#[test]
fn redis_rs() {
    for protocol in ["", "?protocol=resp3"] {
        let mut server = start();
        let mut connection = connect(&server, protocol);
        connection.set_ex::<_, _, ()>("session", "data", 600).expect("SETEX");
        connection.mset::<_, _, ()>(&[("a", "1"), ("b", "2")]).expect("MSET");
        let mut pipe = redis::pipe();
        for number in 0..500 {
            pipe.set(format!("many:{number}"), number).ignore().incr("counter", 2);
        }
        let counts: Vec<i64> = pipe.query(&mut connection).expect("a pipeline");
        assert_eq!(counts, (1..=500).map(|count| count * 2).collect::<Vec<_>>());
        let error = connection.incr::<_, _, i64>("session", 1).expect_err("INCR of a text");
        assert!(error.to_string().contains("not an integer"), "{error}");

        server.kill();
        server.start_again();
        let mut connection = connect(&server, protocol);
        assert_eq!(connection.get::<_, i64>("counter").expect("GET"), 1000);
        let both: Vec<Option<String>> = connection.mget(&["a", "b", "none"]).expect("MGET");
        assert_eq!(both, [Some("1".to_owned()), Some("2".to_owned()), None]);
        assert!((1..=600).contains(&connection.ttl::<_, i64>("session").expect("TTL")));
        let found: BTreeSet<String> = connection
            .scan_match::<_, String>("many:*")
            .expect("SCAN")
            .collect::<Result<_, _>>()
            .expect("every page of SCAN");
        assert_eq!(found.len(), 500);
    }
}

// ---------------------------------------------------------------- redis-cli

fn cli(server: &Server, arguments: &[&str]) -> String {
    let output = run(Command::new("redis-cli").args(["-p", &server.port().to_string()]).args(arguments));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

#[test]
fn redis_cli() {
    let server = start();
    assert_eq!(cli(&server, &["SET", "k", "hello world"]), "OK");
    assert_eq!(cli(&server, &["GET", "k"]), "hello world");
    assert_eq!(cli(&server, &["-n", "5", "INCR", "n"]), "1");
    assert_eq!(cli(&server, &["-3", "GET", "missing"]), "");
    assert_eq!(cli(&server, &["--no-raw", "GET", "missing"]), "(nil)");
    assert_eq!(cli(&server, &["-r", "5", "INCR", "counter"]), "1\n2\n3\n4\n5");
    assert!(cli(&server, &["INFO", "server"]).contains("redis_version:"));
    assert!(cli(&server, &["--no-raw", "INCR", "k"]).starts_with("(error) ERR value is not an integer"));
    assert_eq!(cli(&server, &["--csv", "MGET", "k", "n"]), "\"hello world\",NULL");
    assert_eq!(cli(&server, &["-3", "--json", "CONFIG", "GET", "maxmemory"]), r#"{"maxmemory":"0"}"#);
    cli(&server, &["MSET", "user:1", "a", "user:2", "b"]);
    let mut scanned: Vec<String> =
        cli(&server, &["--scan", "--pattern", "user:*"]).lines().map(str::to_owned).collect();
    scanned.sort();
    assert_eq!(scanned, ["user:1", "user:2"]);
}

/// Mass insertion: a file of commands through `redis-cli --pipe`.
#[test]
fn redis_cli_mass_insertion() {
    const COUNT: usize = 20_000;
    let mut server = start();
    let mut child = Command::new("redis-cli")
        .args(["-p", &server.port().to_string(), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-cli: {error}\nstart these tests with `tests/run`"));
    let mut input = child.stdin.take().expect("its input is a pipe");
    for number in 0..COUNT {
        input.write_all(&encode(&["SET", &format!("key:{number}"), &format!("value {number}")])).expect("it reads on");
    }
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("errors: 0, replies: {COUNT}")), "{said}");
    server.kill();
    server.start_again();
    assert_eq!(cli(&server, &["DBSIZE"]), COUNT.to_string());
    assert_eq!(cli(&server, &["GET", "key:19999"]), "value 19999");
}
