//! `maxmemory` is a limit: whatever makes memory grow stays within it or is refused, and eviction goes on by itself
//! until it holds.
//!
//! A sampler asks for `used_memory` all the time while clients write. What it may see above the limit: a twentieth, and
//! what clients hold in buffers, which `mem_clients_normal` tells. The two are not of the same instant, so each
//! writer's request may be missing in the second.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::SetOnDrop;
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

/// What one connection does.
type Writer<'a> = Box<dyn FnOnce(&mut Client) + Send + 'a>;

/// Runs the writers, each in a thread with a client of its own. Returns the most that was used meanwhile beyond what
/// clients hold in buffers.
fn peak_while(server: &Server, writers: Vec<Writer<'_>>) -> u64 {
    let (is_over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&is_over);
        scope.spawn(|| {
            let (mut client, mut before) = (server.client(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let [used, clients] = info(&mut client, ["used_memory", "mem_clients_normal"]);
                let now = used.saturating_sub(clients);
                // The two are not of the same instant: a request that has just arrived is in the first alone. So what
                // counts is what the next look sees, too.
                peak.fetch_max(now.min(before), Ordering::Relaxed);
                before = now;
            }
        });
        let writing: Vec<_> = writers.into_iter().map(|write| scope.spawn(|| write(&mut server.client()))).collect();
        let outcomes: Vec<_> = writing.into_iter().map(|thread| thread.join()).collect();
        outcomes.into_iter().for_each(|outcome| outcome.expect("a writer succeeds"));
    });
    peak.into_inner()
}

/// The requests of the writers take so many bytes together. While one is executed, the log's buffer may hold it, too.
fn assert_within(peak: u64, limit: u64, requests: usize) {
    let most = limit + limit / 20 + 2 * requests as u64;
    assert!(peak <= most, "{peak} bytes were used, {:.3} of the limit", peak as f64 / limit as f64);
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
                for round in 0..24 / workers {
                    let mut words = vec!["MSET".to_owned()];
                    for n in 0..1000 {
                        words.extend([format!("{writer}:{round}:{n}"), "v".repeat(100)]);
                    }
                    assert_eq!(client.call(&words), b"+OK\r\n");
                }
            }
        };
        let writers = (0..workers).map(|n| Box::new(write(n)) as Box<dyn FnOnce(&mut Client) + Send>).collect();
        // Of 1000 keys with their values, and what the protocol adds.
        assert_within(peak_while(&server, writers), LIMIT, workers * 1000 * 130);
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
                for n in 0..120 / workers {
                    let value = "v".repeat(100_000);
                    assert_eq!(client.call(&["SET", &format!("{writer}:{n}"), &value]), b"+OK\r\n");
                }
            }
        };
        let writers = (0..workers).map(|n| Box::new(write(n)) as Box<dyn FnOnce(&mut Client) + Send>).collect();
        assert_within(peak_while(&server, writers), LIMIT, workers * 100_000);
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

/// What the arguments do not tell: an offset, the elements of other keys, a payload.
#[test]
fn commands_that_bring_more_than_their_arguments_find_room_or_are_refused() {
    const LIMIT: u64 = 16 * MB;
    let big = 4 * MB;
    for (policy, is_refused) in [("noeviction", true), ("allkeys-lru", false)] {
        let server = recipe(2, policy).start();
        let mut client = server.client();
        client.ok("SETBIT bits 0 1");
        client.ok("SADD s1 1 2 3");
        for part in 0..20 {
            let members: Vec<String> = (0..1000).map(|n| format!("member:{part}:{n}")).collect();
            client.call(&[vec!["SADD".to_owned(), "s2".to_owned()], members].concat());
        }
        client.ok("DEBUG POPULATE 14000 k 1000");
        client.ok(&format!("CONFIG SET maxmemory {LIMIT}"));
        let fills = |client: &mut Client| {
            let value = "v".repeat(1000);
            for n in 0..30_000 {
                if client.call(&["SET", &format!("filler:{n}"), &value]).starts_with(b"-OOM") {
                    return;
                }
                if used(client) > LIMIT * 99 / 100 {
                    return;
                }
            }
        };
        fills(&mut client);
        for line in [
            format!("SETRANGE new {big} x"),
            format!("SETBIT newbits {} 1", big * 8),
            format!("SETBIT bits {} 1", big * 8),
            format!("BITFIELD newfield SET u8 {} 1", big * 8),
            format!("MULTI;SETRANGE inmulti {} x;EXEC", 10 * MB),
            "SUNIONSTORE destination s1 s2".to_owned(),
        ] {
            let replies: Vec<_> = line.split(';').map(|line| client.line(line)).collect();
            let reply = match replies.last() {
                Some(reply) if replies.len() > 1 && !reply.is_error() => reply.elements()[0].clone(),
                reply => reply.expect("a reply").clone(),
            };
            let refused = reply.is_error() && reply.string().starts_with("OOM command not allowed when used memory");
            let is_transaction = replies.len() > 1;
            let vanished = line.starts_with("SUNIONSTORE") && !is_refused;
            assert!(refused == (is_refused || is_transaction) || vanished, "{policy}: {line}: {reply:?}");
            // What was evicted for it may still be on its way to be freed, but it brought twice as much.
            let now = used(&mut client);
            assert!(now < LIMIT + big / 2, "{policy}: {line}: {now}");
            wait_until("memory is within its limit", || used(&mut client) <= LIMIT + LIMIT / 20);
        }
    }
}

/// Without a policy that evicts, writes are refused at the limit, and memory is freed by those that free.
#[test]
fn without_eviction_memory_stays_below_the_limit() {
    const LIMIT: u64 = 8 * MB;
    for workers in [1, 4] {
        let server = recipe(workers, "noeviction").with("maxmemory", &LIMIT.to_string()).start();
        let refused = AtomicU64::new(0);
        let write = |writer: usize| {
            let refused = &refused;
            move |client: &mut Client| {
                for n in 0..60 {
                    let element = "e".repeat(100_000);
                    let line = match n % 4 {
                        0 => vec!["APPEND".to_owned(), format!("string:{writer}"), element],
                        1 => vec!["RPUSH".to_owned(), format!("list:{writer}"), element],
                        2 => vec!["HSET".to_owned(), format!("hash:{writer}"), n.to_string(), element],
                        _ => {
                            vec!["XADD".to_owned(), format!("stream:{writer}"), "*".to_owned(), "f".to_owned(), element]
                        }
                    };
                    if client.call(&line).starts_with(b"-OOM command not allowed when used memory > 'maxmemory'.") {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        let writers = (0..4).map(|n| Box::new(write(n)) as Box<dyn FnOnce(&mut Client) + Send>).collect();
        assert_within(peak_while(&server, writers), LIMIT, 4 * 100_000);
        assert!(refused.load(Ordering::Relaxed) > 50, "24 MB do not fit into 8");
        let mut client = server.client();
        client.ok("DEL string:0 list:0 hash:0 stream:0 string:1 list:1 hash:1 stream:1");
        wait_until("there is room again", || !client.line("SET k v").is_error());
    }
}

/// The keys that a snapshot holds are not evicted in vain, and the limit holds beside it.
/// Keys under BLESS stay, and where nothing else is left, commands may go beyond the limit: by a quarter.
#[test]
fn protected_keys_stay_and_cost_a_bounded_overdraft() {
    let server = recipe(2, "allkeys-lru").start();
    let mut client = server.client();
    let value = "x".repeat(1000);
    for number in 0..2000 {
        client.ok(&format!("SET kept:{number} {value}"));
        client.ok(&format!("BLESS SET kept:{number} NO-EVICT"));
    }
    let set = |client: &mut Client, key: &str| client.line(&format!("SET {key} {}", &value[..100])).string();
    let full = used(&mut client);
    client.ok(&format!("CONFIG SET maxmemory {}", full + MB));
    (0..3000).for_each(|number| drop(client.ok(&format!("SET flood:{number} {value}"))));
    let [kept, evicted] = info(&mut client, ["blessed_keys", "evicted_keys"]);
    assert!(kept == 2000 && evicted > 1000, "{kept} {evicted}");
    client.ok("CONFIG SET maxmemory 0");
    (0..3000).for_each(|number| drop(client.ok(&format!("DEL flood:{number}"))));
    let full = used(&mut client);
    client.ok(&format!("CONFIG SET maxmemory {}", full * 100 / 115));
    assert_eq!(set(&mut client, "within"), "OK");
    client.ok(&format!("CONFIG SET maxmemory {}", full * 100 / 140));
    // Otherwise the next command could make room by evicting it.
    wait_until("what may go is gone", || client.ok("EXISTS within").integer() == 0);
    let beyond = set(&mut client, "beyond");
    assert!(beyond.starts_with("OOM "), "{beyond}: {full} {}", used(&mut client));
    assert!(client.line("BLESS SET within NO-EVICT").string().starts_with("OOM "));
    (0..1500).for_each(|number| drop(client.ok(&format!("BLESS CLEAR kept:{number} NO-EVICT"))));
    wait_until("eviction goes on", || used(&mut client) <= full * 100 / 140);
    assert_eq!(set(&mut client, "again"), "OK");
    assert_eq!(info(&mut client, ["blessed_keys"]), [500]);
}

#[test]
fn beside_a_snapshot_no_more_is_evicted_than_comes() {
    const LIMIT: u64 = 16 * MB;
    let server = recipe(2, "allkeys-lru").with("rdb-key-save-delay", "500").start();
    let mut client = server.client();
    client.ok("DEBUG POPULATE 30000 k 300");
    let limit = used(&mut client).max(LIMIT / 2);
    client.ok(&format!("CONFIG SET maxmemory {limit}"));
    client.ok("BGSAVE");
    // A part of the keys is written, so that these may go. Then the snapshot makes no progress while there are writes.
    wait_until("the snapshot goes on", || {
        let text = client.ok("INFO persistence").string();
        let written = text.lines().find_map(|line| line.strip_prefix("current_save_keys_processed:")?.parse().ok());
        written.is_some_and(|written: u64| written > 5000)
    });
    client.ok("CONFIG SET rdb-key-save-delay 600000000");
    let write = |client: &mut Client| {
        let value = "v".repeat(300);
        for n in 0..1000 {
            assert_eq!(client.call(&["SET", &format!("new:{n}"), &value]), b"+OK\r\n");
        }
    };
    let peak = peak_while(&server, vec![Box::new(write)]);
    assert_within(peak, limit, 0);
    assert!(client.ok("INFO persistence").string().contains("rdb_bgsave_in_progress:1"), "all that beside a snapshot");
    client.ok("CONFIG SET rdb-key-save-delay 0");
    wait_until("the snapshot ends", || client.ok("INFO persistence").string().contains("rdb_bgsave_in_progress:0"));
    wait_until("the limit holds", || used(&mut client) <= limit + INFO_BYTES);
    let left = client.ok("DBSIZE").integer();
    assert!(left > 24_000, "{left} of 31000 keys are left, of which 30000 had room");
}

/// A large collection is freed by another thread. Nothing else goes for it meanwhile.
#[test]
fn garbage_on_its_way_costs_no_further_keys() {
    // Samples see all keys, so that the large one is the first to go.
    let server = recipe(2, "volatile-ttl").with("maxmemory-samples", "64").start();
    let mut client = server.client();
    for part in 0..100 {
        let members: Vec<String> = (0..1000).map(|n| format!("member:{part}:{n}")).collect();
        client.call(&[vec!["SADD".to_owned(), "large".to_owned()], members].concat());
    }
    client.ok("EXPIRE large 1000");
    client.ok("DEBUG POPULATE 30 k 2000");
    for n in 0..30 {
        client.ok(&format!("EXPIRE k:{n} 5000"));
    }
    let limit = used(&mut client) - 500_000;
    client.ok(&format!("CONFIG SET maxmemory {limit}"));
    wait_until("the limit holds", || used(&mut client) <= limit + INFO_BYTES);
    assert_eq!(info(&mut client, ["evicted_keys"]), [1]);
    assert_eq!(client.ok("DBSIZE").integer(), 30);
}
