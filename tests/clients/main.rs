//! The clients that people use, end to end: work, `kill -9`, restart, and the data is there.
//!
//! node-redis and ioredis (`node/`), redis-py (`python/`), redis-cli, and the crate `redis`; and those who watch:
//! redis_exporter, and what RedisInsight asks. `tests/run` installs what is needed; without it these tests fail and say
//! so.

mod cluster;
mod redis_benchmark;
mod redis_cli;
mod redis_cli_modes;
mod redis_rs;
mod redis_rs_live;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod watchers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::program::Program;
use support::server::{Recipe, Server};

fn start() -> Server {
    start_with("2")
}

/// With this many workers.
fn start_with(workers: &str) -> Server {
    Recipe::under_test().with("save", "").with("appendonly", "yes").with("io-threads", workers).start()
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

/// Lets a program that speaks with [`Program`] use servers with two and with four workers.
fn live(command: impl Fn(u16) -> Command) {
    for workers in ["2", "4"] {
        let mut server = start_with(workers);
        Program::start(&mut command(server.port())).command(&mut server);
    }
}

fn node(script: &str, port: u16, phase: &str) -> Command {
    let folder = folder("node");
    assert!(folder.join("node_modules").exists(), "{} lacks node_modules: start with `tests/run`", folder.display());
    let mut command = Command::new("node");
    command.arg(folder.join(script)).args([&port.to_string(), phase]);
    command
}

fn python(script: &str, port: u16, phase: &str) -> Command {
    let folder = folder("python");
    let program = folder.join(".venv/bin/python");
    assert!(program.exists(), "{} is missing: start with `tests/run`", program.display());
    let mut command = Command::new(program);
    command.arg(folder.join(script)).args([&port.to_string(), phase]);
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
            let mut command = python("redis_py.py", port, phase);
            command.arg(protocol);
            command
        });
    }
}

/// One program for each protocol, which does these parts one after the other.
fn live_node(script: &str, parts: &[&str]) {
    for protocol in ["2", "3"] {
        live(|port| {
            let mut command = node(script, port, protocol);
            command.args(parts);
            command
        });
    }
}

#[test]
fn node_redis_live() {
    live_node(
        "node-redis-live.mjs",
        &["pubsub", "reconnect", "optimistic", "pool", "iterators", "events", "monitor", "caching"],
    );
}

#[test]
fn ioredis_live() {
    live_node(
        "ioredis-live.mjs",
        &["pipelines", "transactions", "scans", "waiting", "messages", "reconnect", "events", "monitor"],
    );
}

#[test]
fn redis_py_live() {
    for protocol in ["2", "3"] {
        live(|port| {
            let mut command = python("redis_py_live.py", port, protocol);
            let threads = ["pipelines", "optimistic", "waiting", "messages", "reconnect", "events", "monitor"];
            command.args(threads).args(["caching", "asynchronous", "asynchronous_messages"]);
            command
        });
    }
}
