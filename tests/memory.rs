//! `maxmemory` is a limit: whatever makes memory grow stays within it or is refused, and eviction goes on by itself
//! until it holds.
//!
//! A sampler asks for `used_memory` all the time while clients write. What it may see above the limit: a twentieth, and
//! what clients hold in buffers, which `mem_clients_normal` tells.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::{Recipe, Server};

const MB: u64 = 1 << 20;
/// What INFO itself takes while it looks.
const INFO_BYTES: u64 = 64 * 1024;
const WORKERS: [usize; 3] = [1, 2, 4];
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

fn recipe(workers: usize, policy: &str) -> Recipe {
    let recipe = Recipe::under_test().with("io-threads", &workers.to_string()).with("maxmemory-policy", policy);
    recipe.with("save", "").with("enable-debug-command", "yes")
}

/// Fields of INFO, as numbers.
fn info<const N: usize>(client: &mut Client, names: [&str; N]) -> [u64; N] {
    let text = client.ok("INFO memory stats").string();
    names.map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("INFO has the number {name}"))
    })
}

fn used(client: &mut Client) -> u64 {
    info(client, ["used_memory"])[0]
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        sleep(Duration::from_millis(2));
    }
}

/// Runs the writers, each in a thread with a client of its own. Returns the most that was used meanwhile beyond what
/// clients hold in buffers.
fn peak_while(server: &Server, writers: Vec<Box<dyn FnOnce(&mut Client) + Send + '_>>) -> u64 {
    let (is_over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.client();
            while !is_over.load(Ordering::Relaxed) {
                let [used, clients] = info(&mut client, ["used_memory", "mem_clients_normal"]);
                peak.fetch_max(used.saturating_sub(clients), Ordering::Relaxed);
            }
        });
        let writing: Vec<_> = writers.into_iter().map(|write| scope.spawn(|| write(&mut server.client()))).collect();
        let outcomes: Vec<_> = writing.into_iter().map(|thread| thread.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.expect("a writer succeeds"));
    });
    peak.into_inner()
}

fn assert_within(peak: u64, limit: u64) {
    assert!(peak <= limit + limit / 20, "{peak} bytes were used, {:.3} of the limit", peak as f64 / limit as f64);
}

/// Eviction used to go on only with the next command, 80 keys at a time: after `CONFIG SET` memory stayed where it was.
#[test]
fn a_lower_limit_is_reached_without_any_command() {
    for workers in WORKERS {
        let server = recipe(workers, "allkeys-lru").start();
        let mut client = server.client();
        client.ok("DEBUG POPULATE 30000 k 300");
        let limit = used(&mut client) / 2;
        client.ok(&format!("CONFIG SET maxmemory {limit}"));
        wait_until("the limit is reached", || used(&mut client) <= limit + INFO_BYTES);
        let left = client.ok("DBSIZE").integer() as u64;
        assert!((12_000..18_000).contains(&left), "{left} of 30000 keys are left of half the memory");
        wait_until("each key is there or evicted", || {
            info(&mut client, ["evicted_keys"])[0] + client.ok("DBSIZE").integer() as u64 == 30_000
        });
    }
}

/// Such a command could evict 80 keys and bring a thousand.
#[test]
fn commands_that_bring_many_keys_evict_as_many() {
    const LIMIT: u64 = 10 * MB;
    for workers in WORKERS {
        let server = recipe(workers, "allkeys-lru").with("maxmemory", &LIMIT.to_string()).start();
        server.client().ok("DEBUG POPULATE 60000 k 100");
        let write = |writer: usize| {
            move |client: &mut Client| {
                for round in 0..40 / workers {
                    let mut words = vec!["MSET".to_owned()];
                    for n in 0..1000 {
                        words.extend([format!("{writer}:{round}:{n}"), "v".repeat(100)]);
                    }
                    assert_eq!(client.call(&words), b"+OK\r\n");
                }
            }
        };
        let writers = (0..workers).map(|n| Box::new(write(n)) as Box<dyn FnOnce(&mut Client) + Send>).collect();
        assert_within(peak_while(&server, writers), LIMIT);
        assert!(used(&mut server.client()) > LIMIT * 9 / 10, "no more was evicted than needed");
    }
}

/// The size of the arguments was not looked at before they were stored, and only 80 small keys made room for them.
#[test]
fn large_values_find_room_before_they_are_stored() {
    const LIMIT: u64 = 20 * MB;
    for workers in WORKERS {
        let server = recipe(workers, "allkeys-lru").with("maxmemory", &LIMIT.to_string()).start();
        server.client().ok("DEBUG POPULATE 120000 small 64");
        let write = |writer: usize| {
            move |client: &mut Client| {
                for n in 0..200 / workers {
                    let value = "v".repeat(100_000);
                    assert_eq!(client.call(&["SET", &format!("{writer}:{n}"), &value]), b"+OK\r\n");
                }
            }
        };
        let writers = (0..workers).map(|n| Box::new(write(n)) as Box<dyn FnOnce(&mut Client) + Send>).collect();
        assert_within(peak_while(&server, writers), LIMIT);
        assert!(used(&mut server.client()) > LIMIT * 9 / 10, "no more was evicted than needed");
    }
}

#[test]
fn a_start_over_the_limit_reaches_it_by_itself() {
    let mut server = recipe(2, "allkeys-random").start();
    server.client().ok("DEBUG POPULATE 30000 k 300");
    let limit = used(&mut server.client()) / 2;
    server.kill();
    server.set_recipe(server.recipe().clone().with("maxmemory", &limit.to_string()));
    server.start_again();
    let mut client = server.client();
    wait_until("the limit is reached", || used(&mut client) <= limit + INFO_BYTES);
    assert!(client.ok("DBSIZE").integer() > 10_000);
}
