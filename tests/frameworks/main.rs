//! The frameworks that people run on Redis, end to end: queues of jobs, limiters, locks and messengers, in their
//! ordinary use, and through `kill -9` of the store in the middle of it.
//!
//! - Each program (`node/`, `python/`, `ruby/`, `php/`) uses one framework and says what shall happen to the store.
//! - No job is lost. None is done twice unless it was under way at the crash, as the frameworks themselves promise.
//! - `tests/run` installs what is needed; without it these tests fail and say so.
//!
//! With `IRONKEEP_TEST_SERVER=redis-server` the programs check themselves.

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::program::Program;
use support::server::{Recipe, Server};

/// How the log is synced, and how many workers the server has.
const SERVERS: [(&str, &str); 2] = [("everysec", "2"), ("always", "4")];

fn start(fsync: &str, workers: &str) -> Server {
    let recipe = Recipe::under_test().with("save", "").with("appendonly", "yes");
    recipe.with("appendfsync", fsync).with("io-threads", workers).start()
}

/// Lets a program use each of the servers. It receives the port.
fn on_each(program: impl Fn() -> Command) {
    for (fsync, workers) in SERVERS {
        let mut server = start(fsync, workers);
        Program::start(program().arg(server.port().to_string())).command(&mut server);
    }
}

/// The same with one of them: these programs start workers of their own, which takes a while.
fn on(fsync: &str, mut program: Command) {
    let (_, workers) = SERVERS.into_iter().find(|(name, _)| *name == fsync).expect("one of the servers");
    let mut server = start(fsync, workers);
    Program::start(program.arg(server.port().to_string())).command(&mut server);
}

/// A folder of programs, in which this must be there.
fn installed(name: &str, what: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks").join(name);
    assert!(folder.join(what).exists(), "{} lacks {what}: start with `tests/run`", folder.display());
    folder
}

fn node(script: &str) -> Command {
    let folder = installed("node", "node_modules");
    let mut command = Command::new("node");
    command.arg(folder.join(script)).current_dir(folder);
    command
}

fn python(script: &str) -> Command {
    let folder = installed("python", ".venv/.installed");
    let mut command = Command::new(folder.join(".venv/bin/python"));
    command.arg(folder.join(script));
    command
}

/// A program of a language whose frameworks are packages of the system.
fn packaged(language: &str, script: &str) -> Command {
    let folder = installed(language, script);
    let mut command = Command::new(language);
    command.arg(folder.join(script));
    command
}

#[test]
fn bullmq() {
    on_each(|| node("bullmq.mjs"));
}

#[test]
fn bee_queue() {
    on_each(|| node("bee-queue.mjs"));
}

/// rate-limiter-flexible and Redlock.
#[test]
fn limits_and_locks_of_node() {
    on_each(|| node("limits.mjs"));
}

#[test]
fn socket_io() {
    on_each(|| node("socket-io.mjs"));
}

#[test]
fn celery() {
    on("always", python("celery_jobs.py"));
}

#[test]
fn rq() {
    on("everysec", python("rq_jobs.py"));
}

#[test]
fn dramatiq() {
    on("always", python("dramatiq_jobs.py"));
}

#[test]
fn huey() {
    on("always", python("huey_jobs.py"));
}

/// kombu, limits and Flask-Limiter.
#[test]
fn messages_and_limits_of_python() {
    on_each(|| python("kombu_limits.py"));
}

#[test]
fn sidekiq() {
    on("everysec", packaged("ruby", "sidekiq_jobs.rb"));
}

/// The queue of Laravel, with its workers, and its limiters.
#[test]
fn laravel() {
    on("always", packaged("php", "queue_jobs.php"));
}
