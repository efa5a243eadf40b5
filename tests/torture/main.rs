//! Tortures a server with `kill -9` and checks that what it says afterwards follows from what it said before.
//!
//! ```text
//! cargo test --release --test torture                                          fifteen seconds against Ironkeep
//! cargo test --release --test torture -- --seconds 3600 --clients 40           an hour
//! cargo test --release --test torture -- --server "redis-server" --policy always
//! ```
//!
//! A *life* is a start of the server, many clients with random calls, snapshots and rewrites beside them, and
//! `kill -9` at a random moment. After the restart every object is read. The calls and replies of all lives of a
//! directory are one history, in which every reply must be explained (`tests/support/linear.rs`): nothing acknowledged
//! is lost, nothing appears that nobody sent, transactions and scripts are whole, and expiries are absolute. What was
//! not answered took effect before the crash or never.
//!
//! | option | meaning |
//! |---|---|
//! | `--server LINE` | the program with its arguments, instead of Ironkeep of this build |
//! | `--policy P` | `appendfsync`; without it a random one in each life (another server than Ironkeep: `always`) |
//! | `--seconds N` | how long (10) |
//! | `--clients N` | how many clients at once (20) |
//! | `--lives N` | how many lives a directory has (12) |
//! | `--seed N` | the random choices; printed by each run |
//!
//! The seed fixes what is sent and when the server is killed. The machine decides the rest.

#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use support::keys::{Keys, KeysModel};
use support::linear::Checker;
use support::load::{self, Clock, Object};
use support::random::Random;
use support::server::{Recipe, Server};

const POLICIES: [&str; 3] = ["always", "everysec", "no"];

struct Options {
    server: Option<String>,
    policy: Option<String>,
    seconds: u64,
    clients: usize,
    lives: u64,
    seed: u64,
}

/// What a run has seen.
#[derive(Default)]
struct Tally {
    lives: u64,
    histories: u64,
    answered: u64,
    unanswered: u64,
    widest: usize,
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::SUCCESS };
    println!("torture: seed {} for {} s, {} clients", options.seed, options.seconds, options.clients);
    let begun = Instant::now();
    let mut random = Random::new(options.seed);
    let mut tally = Tally::default();
    while tally.lives == 0 || begun.elapsed().as_secs() < options.seconds {
        let seed = random.next();
        if let Err(what) = directory(&options, seed, &mut tally, begun) {
            println!("torture: VIOLATION with seed {}, directory {seed}: {what}", options.seed);
            return ExitCode::FAILURE;
        }
    }
    println!(
        "torture: {} lives ended by kill -9, {} histories of objects, {} calls answered and {} not, at most {} \
         explanations at a time, 0 violations",
        tally.lives, tally.histories, tally.answered, tally.unanswered, tally.widest
    );
    ExitCode::SUCCESS
}

/// The options of the command line; none: this run is not meant for this program.
fn options() -> Option<Options> {
    let mut options =
        Options { server: None, policy: None, seconds: 10, clients: 20, lives: 12, seed: Random::seed_of_this_run() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{word}: {text} is not a number"));
        match word.as_str() {
            "--server" => options.server = Some(value()),
            "--policy" => options.policy = Some(value()),
            "--seconds" => options.seconds = number(value()),
            "--clients" => options.clients = number(value()).max(1) as usize,
            "--lives" => options.lives = number(value()).max(1),
            "--seed" => options.seed = number(value()),
            "--list" => return None,
            // What `cargo test` gives to all programs.
            "--test-threads" | "--skip" | "--format" | "--color" => drop(value()),
            other if other.starts_with('-') => {}
            filter if "torture".contains(filter) => {}
            _ => return None,
        }
    }
    Some(options)
}

/// The server's recipe for one life.
fn recipe(options: &Options, random: &mut Random) -> (Recipe, String) {
    let stand_in = options.server.is_some() || Recipe::is_stand_in();
    let policy = match &options.policy {
        Some(policy) => policy.clone(),
        None if stand_in => "always".to_owned(),
        None => POLICIES[random.below(3)].to_owned(),
    };
    let recipe = match &options.server {
        Some(line) => Recipe::of(line),
        None => Recipe::under_test(),
    };
    let threads = ["1", "2", "4"][random.below(3)];
    let recipe = recipe.with("save", "").with("appendonly", "yes").with("appendfsync", &policy);
    (recipe.with("io-threads", threads), policy)
}

/// Several lives on one directory.
fn directory(options: &Options, seed: u64, tally: &mut Tally, begun: Instant) -> Result<(), String> {
    let mut random = Random::new(seed);
    let (first, mut policy) = recipe(options, &mut random);
    let mut server = first.start();
    let objects = load::objects_for(options.clients);
    let mut checkers: Vec<Checker<KeysModel>> = objects.iter().map(|_| Checker::new(Keys::new())).collect();
    let clock = Clock::default();
    tally.histories += objects.len() as u64;
    for life in 0..options.lives {
        if life > 0 && begun.elapsed().as_secs() >= options.seconds {
            break;
        }
        let histories = load::live(&mut server, &objects, options.clients, &mut random, &clock, Server::kill);
        let before = Instant::now();
        let (next, next_policy) = recipe(options, &mut random);
        server.set_recipe(next);
        server.start_again();
        let restarted = before.elapsed();
        let mut parts = load::by_object(&objects, histories);
        load::look(&server, &objects, &clock, &mut parts);
        let (mut answered, mut unanswered) = (0, 0);
        for ((object, checker), part) in objects.iter().zip(&mut checkers).zip(parts) {
            let counts = (checker.answered, checker.unanswered);
            checker.feed(part).map_err(|what| {
                keep(&mut server);
                format!("life {life} under {policy}, {}: {what}", object.name)
            })?;
            check_sum(object, checker.states())?;
            answered += checker.answered - counts.0;
            unanswered += checker.unanswered - counts.1;
            tally.widest = tally.widest.max(checker.widest);
        }
        tally.lives += 1;
        tally.answered += answered;
        tally.unanswered += unanswered;
        println!(
            "torture: directory {seed}, life {life} under {policy}: {answered} calls, {unanswered} unanswered, back in \
             {} ms",
            restarted.as_millis()
        );
        policy = next_policy;
    }
    Ok(())
}

/// What a program of accounts would check: nothing appears, and nothing is lost.
fn check_sum<'s>(object: &Object, mut states: impl Iterator<Item = &'s Keys>) -> Result<(), String> {
    let sum = |keys: &Keys| -> i64 {
        keys.values()
            .map(|value| match value {
                support::keys::Value::Text(text, _) => text.parse::<i64>().expect("a number"),
                support::keys::Value::List(_) => panic!("a list among accounts"),
            })
            .sum()
    };
    match states.find(|keys| object.kind == load::Kind::Accounts && sum(keys) != 0) {
        Some(keys) => Err(format!("{}: half a transaction: {keys:?}", object.name)),
        None => Ok(()),
    }
}

/// Copies the directory of a violation to where it stays.
fn keep(server: &mut Server) {
    server.kill();
    let to = std::env::temp_dir().join(format!("torture-{}", std::process::id()));
    let copied = std::process::Command::new("cp").arg("-r").arg(server.directory()).arg(&to).status();
    if copied.is_ok_and(|status| status.success()) {
        println!("torture: the directory is kept in {}", to.display());
    }
}
