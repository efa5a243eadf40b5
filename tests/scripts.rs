//! Scripts on a real server: atomic, killed at any time, durable, and nobody's business who does not need their keys.

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::SetOnDrop;
use support::client::{Client, PATIENCE};
use support::server::{Recipe, Server};

/// Writes, and then never ends.
const ENDLESS: &str = "redis.call('SET', KEYS[1], 'half') redis.call('RPUSH', 'list', 1, 2) redis.call('DEL', 'other') \
                       while true do pcall(function() while true do end end) end";

fn start(workers: usize, rollback: &str) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string()).with("script-rollback", rollback);
    let server = server.with("busy-reply-threshold", "50").start();
    let clients = (0..2 * workers).map(|_| server.client()).collect();
    (server, clients)
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().to_owned()
}

fn eval(client: &mut Client, script: &str, key: &str) -> String {
    text(&client.call(&["EVAL", script, "1", key]))
}

/// Asks again until the reply begins so.
fn wait_for(client: &mut Client, words: &[&str], start: &str) {
    let began = Instant::now();
    loop {
        let reply = text(&client.call(words));
        if reply.starts_with(start) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{words:?}: {reply}");
        sleep(Duration::from_millis(5));
    }
}

/// Names of keys. By chance, one may share a shard with a key that a script holds.
const FREE: [&str; 8] = ["free:0", "free:1", "free:2", "free:3", "free:4", "free:5", "free:6", "free:7"];

/// The first of these that is served while a script holds three shards of a thousand. That it holds as many as three of
/// these keys has a chance of one in a million.
fn free(client: &mut Client) -> &'static str {
    let mut served = FREE.iter().filter(|name| !client.line(&format!("GET {name}")).is_error()).copied();
    let (first, more) = (served.next(), served.count());
    assert!(more >= 5, "{more} and one of these are served");
    first.expect("one more")
}

#[test]
fn a_script_that_is_killed_leaves_nothing_and_holds_up_only_those_who_need_keys() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers, "on-kill");
        let (slow, others) = clients.split_first_mut().expect("there are some");
        others[0].ok("MSET k before other there");
        FREE.iter().for_each(|name| drop(others[0].ok(&format!("SET {name} 1"))));
        for round in 0..3 {
            slow.send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
            // The first of the others is on another worker.
            wait_for(&mut others[0], &["GET", "k"], "-BUSY Redis is busy running a script.");
            assert_eq!(text(&others[0].call(&["PING"])), "+PONG");
            let free = free(&mut others[0]);
            // Each needs one of its keys, or all.
            let incr = "return redis.call('INCR', KEYS[1])";
            for words in [
                &["EVAL", incr, "1", "other"][..],
                &["EVAL", "return redis.call('KEYS', '*')", "0"],
                &["LPUSH", "list", "x"],
                &["MGET", free, "other"],
                &["WATCH", "k"],
                &["KEYS", "*"],
                &["FLUSHALL"],
            ] {
                assert_eq!(text(&others[0].call(words)).split(' ').next(), Some("-BUSY"), "{words:?}");
            }
            // Who needs others, on the same worker or another, is served.
            for client in others.iter_mut() {
                assert_eq!(text(&client.call(&["EVAL", "return 1", "0"])), ":1");
                assert_eq!(client.ok(&format!("GET {free}")).string(), (round + 1).to_string());
                assert!(client.ok("DBSIZE").integer() > 0);
            }
            for line in ["MULTI", &format!("GET {free}")] {
                others[0].ok(line);
            }
            assert_eq!(text(&others[0].call(&["EXEC"])), format!("*1\r\n$1\r\n{}", round + 1));
            assert_eq!(eval(&mut others[0], incr, free), format!(":{}", round + 2));
            for line in ["MULTI", "GET k"] {
                others[0].ok(line);
            }
            let error = text(&others[0].call(&["EXEC"]));
            assert!(error.starts_with("-EXECABORT Transaction discarded because of: BUSY"), "{error}");
            assert_eq!(text(&others[0].call(&["SHUTDOWN"])).split(' ').next(), Some("-BUSY"));
            assert_eq!(slow.arrived(), 0);
            others[0].ok("SCRIPT KILL");
            let error = text(&slow.receive().expect("a reply"));
            assert!(error.starts_with("-ERR Script killed by user with SCRIPT KILL... script: "), "{error}");
            assert_eq!(others[0].ok("GET k").string(), "before");
            assert_eq!(others[0].ok("EXISTS list other").integer(), 1);
        }
        assert_eq!(text(&others[0].call(&["SCRIPT", "KILL"])), "-NOTBUSY No scripts in execution right now.");
        assert_eq!(eval(slow, "return redis.call('APPEND', KEYS[1], '!')", "k"), ":7");
    }
}

#[test]
fn without_rollback_a_script_that_has_written_cannot_be_killed() {
    let (_server, mut clients) = start(2, "no");
    let (slow, others) = clients.split_first_mut().expect("there are some");
    // One that only reads can.
    let reads = "redis.call('GET', KEYS[1]) while true do end";
    slow.send(&support::client::encode(&["EVAL", reads, "1", "k"])).expect("the connection holds");
    wait_for(&mut others[0], &["GET", "k"], "-BUSY");
    others[0].ok("SCRIPT KILL");
    assert!(text(&slow.receive().expect("a reply")).starts_with("-ERR Script killed"));
    slow.send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
    wait_for(&mut others[0], &["GET", "k"], "-BUSY");
    let error = text(&others[0].call(&["SCRIPT", "KILL"]));
    assert!(error.starts_with("-UNKILLABLE Sorry the script already executed write commands"), "{error}");
}

#[test]
fn what_a_script_that_fails_has_done_stands_unless_it_is_to_be_taken_back() {
    for (rollback, value) in [("on-kill", "half"), ("no", "half"), ("on-error", "before")] {
        let (_server, mut clients) = start(2, rollback);
        clients[0].ok("SET k before");
        let error = eval(&mut clients[0], "redis.call('SET', KEYS[1], 'half') error('no')", "k");
        assert!(error.starts_with("-ERR user_script:1: no"), "{error}");
        assert_eq!(clients[1].ok("GET k").string(), value, "{rollback}");
        // In a transaction, the script alone is taken back.
        for line in ["MULTI", "SET first 1", "EVAL \"redis.call('SET', 'k', 'more') x()\" 0", "SET last 1"] {
            clients[0].ok(line);
        }
        clients[0].call(&["EXEC"]);
        assert_eq!(clients[1].ok("EXISTS first last").integer(), 2);
        let value = if rollback == "on-error" { "before" } else { "more" };
        assert_eq!(clients[1].ok("GET k").string(), value, "{rollback}");
    }
}

#[test]
fn effects_are_one_block_and_survive() {
    let recipe = Recipe::under_test().with("io-threads", "2").with("appendfsync", "always");
    let mut server = recipe.with("busy-reply-threshold", "50").start();
    let mut client = server.client();
    client.ok("SET ours 1");
    let sha = text(&client.call(&["SCRIPT", "LOAD", "return redis.call('INCRBY', KEYS[1], ARGV[1])"]));
    let sha = sha.lines().last().expect("a name").to_owned();
    assert_eq!(text(&client.call(&["EVALSHA", &sha, "1", "ours", "41"])), ":42");
    let many = "for i = 1, 100 do redis.call('SET', 'key' .. i, i) redis.call('ZADD', 'set', i, i) end";
    assert_eq!(eval(&mut client, many, "x"), "$-1");
    // One that is in the middle when the power goes has done nothing.
    client.send(&support::client::encode(&["EVAL", ENDLESS, "1", "ours"])).expect("the connection holds");
    wait_for(&mut server.client(), &["GET", "ours"], "-BUSY");
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("GET ours").string(), "42");
    assert_eq!(client.ok("ZCARD set").integer(), 100);
    assert_eq!(client.ok("GET key100").string(), "100");
    assert_eq!(client.ok("EXISTS list").integer(), 0);
    // Scripts are not kept, as in Redis.
    assert!(text(&client.call(&["EVALSHA", &sha, "1", "ours", "1"])).starts_with("-NOSCRIPT"));
}

#[test]
fn waiters_are_served_and_events_told_when_a_script_has_ended() {
    for workers in [1, 2, 4] {
        let (_server, mut clients) = start(workers, "on-kill");
        let (client, others) = clients.split_first_mut().expect("there are some");
        client.ok("CONFIG SET notify-keyspace-events KA");
        others[0].send(b"BLPOP list 0\r\n").expect("the connection holds");
        wait_for(client, &["INFO", "clients"], "$");
        let began = Instant::now();
        while !text(&client.call(&["INFO", "clients"])).contains("blocked_clients:1") {
            assert!(began.elapsed() < PATIENCE, "nobody waits");
        }
        let mut listener = _server.client();
        listener.ok("SUBSCRIBE __keyspace@0__:list");
        // What is gone again at the end serves nobody.
        eval(client, "redis.call('RPUSH', KEYS[1], 'a') redis.call('DEL', KEYS[1])", "list");
        assert_eq!(others[0].arrived(), 0);
        eval(client, "redis.call('RPUSH', KEYS[1], 'b', 'c')", "list");
        assert_eq!(text(&others[0].receive().expect("a reply")), "*2\r\n$4\r\nlist\r\n$1\r\nb");
        for event in ["rpush", "del", "rpush", "lpop"] {
            let message = text(&listener.receive().expect("a message"));
            assert!(message.ends_with(event), "{message}, not {event}");
        }
    }
}

#[test]
fn scripts_of_many_connections_lose_nothing() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 200;
    // Nobody is told BUSY for a script whose worker does not come to its turn.
    let server = Recipe::under_test().with("io-threads", "4").with("busy-reply-threshold", "0").start();
    let script = "local n = redis.call('INCR', KEYS[1]) redis.call('HSET', 'seen', n, ARGV[1]) \
                  if n % 7 == 0 then return redis.error_reply('SEVEN ' .. n) end return n";
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = server.client();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let reply = text(&client.call(&["EVAL", script, "1", "n", &format!("{number}:{round}")]));
                    assert!(reply.starts_with(':') || reply.starts_with("-SEVEN "), "{reply}");
                }
            });
        }
    });
    let mut client = server.client();
    assert_eq!(client.ok("GET n").string(), (CLIENTS * ROUNDS).to_string());
    assert_eq!(client.ok("HLEN seen").integer(), (CLIENTS * ROUNDS) as i64);
}

#[test]
fn an_endless_script_does_not_keep_the_server_from_ending() {
    let (mut server, mut clients) = start(2, "on-kill");
    clients[0].send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
    wait_for(&mut clients[1], &["GET", "k"], "-BUSY");
    clients[1].send(b"SHUTDOWN NOSAVE\r\n").expect("the connection holds");
    assert!(server.wait_for_exit().success(), "{}", server.log());
    server.start_again();
    assert_eq!(server.client().ok("EXISTS k list").integer(), 0);
}

/// In a cluster, a script says what it needs by the flags of its first line, and keeps to it.
#[test]
fn flags_of_a_script_hold_in_a_cluster() {
    let server = Recipe::under_test().with("cluster-enabled", "yes").start();
    let mut client = server.client();
    let two_slots = "redis.call('SET', 'a', 1) return redis.call('SET', 'b', 2)";
    let mut said = |line: &str| text(&client.call(&["EVAL", &format!("{line}{two_slots}"), "0"]));
    assert_eq!(said("#!lua flags=no-cluster\n"), "-ERR Can not run script on cluster, 'no-cluster' flag is set.");
    let error = said("#!lua\n");
    assert!(
        error.starts_with("-ERR Script attempted to access keys that do not hash to the same slot script: "),
        "{error}"
    );
    assert_eq!(said("#!lua flags=allow-cross-slot-keys\n"), "+OK");
    assert_eq!(said(""), "+OK", "one that says nothing may do all, as in Redis");
    let memory = client.ok("INFO memory").string();
    assert!(memory.contains("number_of_cached_scripts:4\r\n"), "{memory}");
}

/// The connection of a script is closed in the middle of it, by another or by itself.
#[test]
fn a_script_whose_connection_is_closed_is_taken_back() {
    for workers in [1, 4] {
        let (server, mut clients) = start(workers, "on-kill");
        clients[0].ok("SET k before");
        for _ in 0..3 {
            let mut slow = server.client();
            let id = slow.ok("CLIENT ID").integer();
            slow.send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
            wait_for(&mut clients[0], &["GET", "k"], "-BUSY");
            clients[0].ok(&format!("CLIENT KILL ID {id}"));
            wait_for(&mut clients[0], &["GET", "k"], "$6");
            assert_eq!(clients[0].ok("EXISTS list").integer(), 0);
        }
    }
}

#[test]
fn two_scripts_on_one_worker_take_turns() {
    let (server, mut clients) = start(1, "on-kill");
    let (first, second) = (&mut server.client(), &mut server.client());
    let count = "for i = 1, 3e6 do end return redis.call('INCR', KEYS[1])";
    first.send(&support::client::encode(&["EVAL", ENDLESS, "1", "k"])).expect("the connection holds");
    wait_for(&mut clients[0], &["GET", "k"], "-BUSY");
    let n = free(&mut clients[0]);
    assert_eq!(eval(second, count, n), ":1");
    assert_eq!(clients[0].ok(&format!("GET {n}")).string(), "1");
    assert_eq!(first.arrived(), 0);
    clients[0].ok("SCRIPT KILL");
    assert!(text(&first.receive().expect("a reply")).starts_with("-ERR Script killed"));
}

/// Money moves between accounts by scripts that declare their keys, by scripts that do not, and by transactions. Sums
/// are always the same, whoever looks.
#[test]
fn scripts_side_by_side_are_as_if_one_after_the_other() {
    const ROUNDS: usize = 80;
    let transfer = |keys: &str| {
        format!(
            "local a, b = {keys} local n = tonumber(redis.call('GET', a)) redis.call('SET', a, n - ARGV[3]) \
             for i = 1, ARGV[4] do end redis.call('INCRBY', b, ARGV[3]) return 1"
        )
    };
    let (declared, hidden) = (transfer("KEYS[1], KEYS[2]"), transfer("ARGV[1], ARGV[2]"));
    let sum = "local n = 0 for i = 0, 7 do n = n + redis.call('GET', 'a' .. i) end return n";
    for workers in [1, 2, 4] {
        let recipe = Recipe::under_test().with("io-threads", &workers.to_string());
        let server = recipe.with("busy-reply-threshold", "0").start();
        let mut observer = server.client();
        for account in 0..8 {
            observer.ok(&format!("SET a{account} 100"));
        }
        std::thread::scope(|scope| {
            for number in 0..6_usize {
                let (mut client, declared, hidden) = (server.client(), &declared, &hidden);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let (from, to) = (format!("a{}", (number + round) % 8), format!("a{}", (number * 3 + 1) % 8));
                        if from == to {
                            continue;
                        }
                        // Some last longer than a time slice.
                        let busy = if round % 40 == number { "200000" } else { "10" };
                        match number % 3 {
                            0 => {
                                let args = ["EVAL", declared, "2", &from, &to, "", "", "1", busy];
                                assert_eq!(text(&client.call(&args)), ":1");
                            }
                            1 => {
                                let args = ["EVAL", hidden, "0", &from, &to, "1", busy];
                                assert_eq!(text(&client.call(&args)), ":1");
                            }
                            _ => {
                                for words in [&["MULTI"][..], &["DECR", &from], &["INCR", &to], &["EXEC"]] {
                                    client.call(words);
                                }
                            }
                        }
                        if round % 10 == 0 {
                            assert_eq!(text(&client.call(&["EVAL", sum, "0"])), ":800");
                        }
                    }
                });
            }
        });
        assert_eq!(text(&observer.call(&["EVAL", sum, "0"])), ":800");
    }
}

/// Scripts are killed wherever they are just then, and others want their keys. What remains is whole, and no lock.
#[test]
fn kills_at_any_instant_leave_no_lock_and_no_half_change() {
    const ROUNDS: usize = 40;
    let server = Recipe::under_test().with("io-threads", "4").with("busy-reply-threshold", "1").start();
    let writes = "redis.call('SET', KEYS[1], ARGV[1]) for i = 1, ARGV[2] do pcall(function() local x = i .. '' end) end \
                  redis.call('SET', KEYS[2], ARGV[1]) redis.call('SET', KEYS[1] .. ':hidden', ARGV[1]) return 1";
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let killed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&is_over);
        let (mut killer, is_over, killed) = (server.client(), &is_over, &killed);
        scope.spawn(move || {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                killer.call(&["SCRIPT", "KILL"]);
                sleep(Duration::from_micros(700));
            }
        });
        let workers: Vec<_> = (0..4_usize)
            .map(|number| {
                let mut client = server.client();
                scope.spawn(move || {
                    // Two pairs of keys, each wanted by two.
                    let (one, other) = (format!("one{}", number % 2), format!("other{}", number % 2));
                    let began = Instant::now();
                    for round in 0.. {
                        // However quick the machine is, and whenever the killer gets its turn, one is met.
                        if round >= ROUNDS && killed.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                            break;
                        }
                        assert!(began.elapsed() < PATIENCE, "none was killed");
                        let longer = 1 << (round / ROUNDS).min(8);
                        let loops = ((round * 37 + number * 11) % 60 * 500 * longer).to_string();
                        let tag = format!("{number}:{round}");
                        let reply = text(&client.call(&["EVAL", writes, "2", &one, &other, &tag, &loops]));
                        match reply.as_str() {
                            ":1" => {}
                            text if text.starts_with("-BUSY") => {}
                            text if text.starts_with("-ERR Script killed") => {
                                killed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                            text => panic!("{text}"),
                        }
                        let values = text(&client.call(&["MGET", &one, &other, &format!("{one}:hidden")]));
                        let parts: Vec<&str> = values.split("\r\n").filter(|part| part.contains(':')).collect();
                        let is_whole = values.starts_with("-BUSY") || parts.iter().all(|part| *part == parts[0]);
                        assert!(is_whole, "{values}");
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("it ends well"));
    });
    let mut client = server.client();
    for key in ["one0", "one1", "other0", "other1", "one0:hidden"] {
        client.ok(&format!("SET {key} free"));
    }
    client.ok("FLUSHALL");
}

#[test]
fn what_a_script_publishes_leaves_when_it_has_ended_and_never_if_it_is_taken_back() {
    let (server, mut clients) = start(2, "on-error");
    let mut listener = server.client();
    listener.ok("SUBSCRIBE news");
    let client = &mut clients[0];
    client.ok("CONFIG SET notify-keyspace-events KA");
    let publish = "local n = redis.call('PUBLISH', 'news', ARGV[1]) redis.call('SET', KEYS[1], 1) \
                   if ARGV[2] then redis.call('INCR', 'hidden') redis.call('FLUSHALL') end \
                   if ARGV[3] then error('no') end return n";
    let mut said = |words: &[&str]| text(&client.call(&[&["EVAL", publish, "1", "k"], words].concat()));
    assert_eq!(said(&["first"]), ":1");
    assert!(said(&["never", "x", "x"]).starts_with("-ERR"));
    // It is run again, alone.
    assert_eq!(said(&["second", "x"]), ":1");
    for word in ["first", "second"] {
        let message = text(&listener.receive().expect("a message"));
        assert!(message.ends_with(word), "{message}, not {word}");
    }
    assert_eq!(listener.arrived(), 0);
}

#[test]
fn one_worker_answers_others_while_a_script_never_ends() {
    let (server, mut clients) = start(1, "on-kill");
    let mut slow = server.client();
    slow.send(&support::client::encode(&["EVAL", "while true do end", "0"])).expect("the connection holds");
    clients[0].ok("SET free 1");
    assert_eq!(text(&clients[0].call(&["PING"])), "+PONG");
    wait_for(&mut clients[0], &["KEYS", "*"], "-BUSY");
    clients[0].ok("SCRIPT KILL");
    assert!(text(&slow.receive().expect("a reply")).starts_with("-ERR Script killed"));
    // One that is alone holds up all who need keys, and nobody else.
    slow.send(&support::client::encode(&["EVAL", "redis.call('FLUSHALL') while true do end", "0"]))
        .expect("the connection holds");
    wait_for(&mut clients[0], &["GET", "free"], "-BUSY");
    assert_eq!(text(&clients[1].call(&["PING"])), "+PONG");
    clients[1].ok("SCRIPT KILL");
    assert!(text(&slow.receive().expect("a reply")).starts_with("-ERR Script killed"));
    assert_eq!(clients[0].ok("GET free").string(), "1");
}

#[test]
fn a_transaction_that_fails_is_taken_back_if_it_is_to_be() {
    for workers in [1, 2] {
        let (_server, mut clients) = start(workers, "on-kill");
        let client = &mut clients[0];
        let mut run = |lines: &[&str]| {
            lines.iter().for_each(|line| drop(client.ok(line)));
            text(&client.call(&["EXEC"]))
        };
        let lines = ["MULTI", "SET a 1", "INCR word", "SELECT 3", "DEL gone", "EVAL \"redis.call('SET', 'c', 1)\" 0"];
        run(&["MSET word x gone 1", "MULTI"]);
        assert!(run(&lines).starts_with("*5\r\n+OK\r\n-ERR value is not an integer"));
        run(&["SELECT 0", "CONFIG SET exec-rollback yes", "FLUSHALL", "MSET word x gone 1", "MULTI"]);
        let error = "-EXECABORT Transaction rolled back because of: value is not an integer or out of range";
        assert_eq!(run(&lines), error);
        assert_eq!(run(&["MULTI", "SET a 1", "INCR word", "DEL gone"]), error);
        assert_eq!(run(&["MULTI", "EXISTS a c gone word"]), "*1\r\n:2", "in database 0");
        assert_eq!(run(&["MULTI", "SET a 1", "DEL gone"]), "*2\r\n+OK\r\n:1");
        let catches = "EVAL \"redis.pcall('INCR', 'word') return redis.call('SET', 'b', 1)\" 0";
        assert_eq!(run(&["MULTI", catches, "GET b"]), "*2\r\n+OK\r\n$1\r\n1");
    }
}

#[test]
fn what_machines_take_is_bounded_and_counted() {
    let server = Recipe::under_test().with("maxmemory-scripts", "8mb").start();
    let mut client = server.client();
    let grows = "local t = {} for i = 1, 1e6 do t[i] = string.rep('x', 100) .. i end return #t";
    let error = text(&client.call(&["EVAL", grows, "0"]));
    assert!(error.starts_with("-ERR not enough memory"), "{error}");
    assert_eq!(text(&client.call(&["EVAL", "return 1", "0"])), ":1");
    let memory = client.ok("INFO memory").string();
    let figure = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {memory}"))
    };
    assert!((10_000..8 << 20).contains(&figure("used_memory_vm_eval")));
    assert_eq!(figure("used_memory_lua"), figure("used_memory_vm_eval"));
    assert_eq!(figure("used_memory_vm_total"), figure("used_memory_vm_eval"));
}

/// Queues these commands behind MULTI and sends EXEC, whose reply comes later.
fn send_transaction(client: &mut Client, commands: &[&[&str]]) {
    client.ok("MULTI");
    for words in commands {
        assert_eq!(text(&client.call(words)), "+QUEUED", "{words:?}");
    }
    client.send(b"EXEC\r\n").expect("the connection holds");
}

/// The commands of a transaction in the middle of which a script never ends.
const WITH_ENDLESS: &[&[&str]] = &[&["SET", "first", "1"], &["EVAL", ENDLESS, "1", "k"], &["EXISTS", "k", "list"]];

#[test]
fn a_script_in_exec_gives_its_worker_back_and_may_be_killed() {
    for workers in [1, 2] {
        let (server, mut clients) = start(workers, "on-kill");
        let mut slow = server.client();
        for round in 0..3 {
            clients[0].ok("DEL first");
            send_transaction(&mut slow, WITH_ENDLESS);
            for client in &mut clients {
                wait_for(client, &["GET", "first"], "-BUSY Redis is busy running a script.");
                assert_eq!(text(&client.call(&["PING"])), "+PONG");
            }
            assert_eq!(slow.arrived(), 0);
            clients[0].ok("SCRIPT KILL");
            let reply = text(&slow.receive().expect("a reply"));
            assert!(
                reply.starts_with("*3\r\n+OK\r\n-ERR Script killed by user with SCRIPT KILL... script: "),
                "{reply}"
            );
            assert!(reply.ends_with("\r\n:0"), "{round}: {reply}");
            assert_eq!(clients[0].ok("GET first").string(), "1");
            assert_eq!(text(&slow.call(&["EVAL", "return 1", "0"])), ":1");
        }
    }
}

#[test]
fn a_function_in_exec_gives_its_worker_back() {
    let (server, mut clients) = start(1, "on-kill");
    let library = "#!lua name=endless\nredis.register_function('spin', function() while true do end end)";
    clients[0].call(&["FUNCTION", "LOAD", library]);
    let mut slow = server.client();
    send_transaction(&mut slow, &[&["SET", "first", "1"], &["FCALL", "spin", "0"]]);
    wait_for(&mut clients[0], &["GET", "first"], "-BUSY Redis is busy running a script.");
    assert!(text(&clients[0].call(&["FUNCTION", "STATS"])).contains("spin"));
    clients[0].ok("FUNCTION KILL");
    let reply = text(&slow.receive().expect("a reply"));
    assert!(reply.starts_with("*2\r\n+OK\r\n-ERR Script killed"), "{reply}");
}

#[test]
fn a_killed_script_in_exec_follows_the_rules_of_taking_back() {
    let (server, mut clients) = start(1, "on-kill");
    let mut slow = server.client();
    clients[0].ok("CONFIG SET exec-rollback yes");
    send_transaction(&mut slow, WITH_ENDLESS);
    wait_for(&mut clients[0], &["GET", "first"], "-BUSY");
    clients[0].ok("SCRIPT KILL");
    let reply = text(&slow.receive().expect("a reply"));
    assert!(reply.starts_with("-EXECABORT Transaction rolled back because of: Script killed"), "{reply}");
    assert_eq!(clients[0].ok("EXISTS first k list").integer(), 0);
    clients[0].ok("CONFIG SET exec-rollback no script-rollback no");
    // One that has not written may be killed.
    send_transaction(&mut slow, &[&["SET", "first", "1"], &["EVAL", "while true do end", "0"]]);
    wait_for(&mut clients[0], &["GET", "first"], "-BUSY");
    clients[0].ok("SCRIPT KILL");
    assert!(text(&slow.receive().expect("a reply")).starts_with("*2\r\n+OK\r\n-ERR Script killed"));
    send_transaction(&mut slow, WITH_ENDLESS);
    wait_for(&mut clients[0], &["GET", "first"], "-BUSY");
    let error = text(&clients[0].call(&["SCRIPT", "KILL"]));
    assert!(error.starts_with("-UNKILLABLE Sorry the script already executed write commands"), "{error}");
}

/// Of a transaction nothing remains whose connection is closed while one of its scripts runs, not even a subscription.
#[test]
fn a_transaction_is_taken_back_whose_connection_is_closed_in_a_script() {
    for workers in [1, 2] {
        let (server, mut clients) = start(workers, "on-kill");
        for _ in 0..3 {
            let mut slow = server.client();
            let id = slow.ok("CLIENT ID").integer();
            let mut commands = WITH_ENDLESS.to_vec();
            commands.insert(0, &["SUBSCRIBE", "olds"]);
            commands.extend([&["SUBSCRIBE", "news"][..], &["SET", "last", "1"]]);
            send_transaction(&mut slow, &commands);
            wait_for(&mut clients[0], &["GET", "first"], "-BUSY");
            clients[0].ok(&format!("CLIENT KILL ID {id}"));
            wait_for(&mut clients[0], &["GET", "first"], "$-1");
            assert_eq!(clients[0].ok("EXISTS first k list last").integer(), 0);
            wait_for(&mut clients[0], &["PUBSUB", "CHANNELS"], "*0");
        }
    }
}

#[test]
fn an_endless_script_in_exec_does_not_keep_the_server_from_ending() {
    for policy in ["everysec", "always"] {
        let server = Recipe::under_test().with("io-threads", "1").with("busy-reply-threshold", "50");
        let mut server = server.with("appendfsync", policy).start();
        let (mut slow, mut other) = (server.client(), server.client());
        send_transaction(&mut slow, WITH_ENDLESS);
        wait_for(&mut other, &["GET", "k"], "-BUSY");
        server.kill();
        server.start_again();
        let (mut slow, mut other) = (server.client(), server.client());
        assert_eq!(other.ok("EXISTS first k list").integer(), 0, "its block was not whole");
        send_transaction(&mut slow, WITH_ENDLESS);
        wait_for(&mut other, &["GET", "k"], "-BUSY");
        other.send(b"SHUTDOWN NOSAVE\r\n").expect("the connection holds");
        assert!(server.wait_for_exit().success(), "{}", server.log());
        server.start_again();
        assert_eq!(server.client().ok("EXISTS k list").integer(), 0);
    }
}

/// What a transaction does to its connection before and behind a script that is left in the middle.
#[test]
fn a_transaction_with_a_long_script_is_of_its_connection() {
    const LONG: &str = "for i = 1, 3e6 do end return redis.call('INCR', KEYS[1])";
    for workers in [1, 2] {
        let (server, _clients) = start(workers, "on-kill");
        let (mut client, mut other) = (server.client(), server.client());
        let mut run = |commands: &[&[&str]]| {
            send_transaction(&mut client, commands);
            text(&client.receive().expect("a reply"))
        };
        let long = &["EVAL", LONG, "1", "n"][..];
        let reply =
            run(&[&["SELECT", "3"], long, &["CLIENT", "SETNAME", "me"], long, &["SET", "in3", "1"], &["GET", "n"]]);
        assert_eq!(reply, "*6\r\n+OK\r\n:1\r\n+OK\r\n:2\r\n+OK\r\n$1\r\n2");
        // What is left to be done outside the gate, and a script behind it.
        let reply = run(&[&["INCR", "n"], &["CONFIG", "SET", "save", ""], long, &["PING"]]);
        assert_eq!(reply, "*4\r\n:3\r\n+OK\r\n:4\r\n+PONG");
        let time = &["EVAL", "for i = 1, 3e6 do end return redis.call('TIME')", "0"][..];
        let reply = run(&[time, &["HELLO", "3"], long, &["HGETALL", "none"]]);
        assert!(reply.starts_with("*4\r\n*2\r\n") && reply.ends_with(":5\r\n%0"), "{reply}");
        let info = text(&client.call(&["CLIENT", "INFO"]));
        assert!(["name=me ", " db=3 ", " resp=3 ", " multi=-1 "].iter().all(|part| info.contains(part)), "{info}");
        // A message to itself comes behind the reply, and the later one of another behind that.
        client.ok("SUBSCRIBE news");
        let endless = &["EVAL", "while redis.call('TIME') do end", "0"][..];
        send_transaction(&mut client, &[&["PUBLISH", "news", "own"], endless, &["SET", "done", "1"]]);
        wait_for(&mut other, &["GET", "n"], "-BUSY");
        other.ok("PUBLISH news later");
        other.ok("SCRIPT KILL");
        let reply = text(&client.receive().expect("a reply"));
        assert!(reply.starts_with("*3\r\n:1\r\n-ERR Script killed") && reply.ends_with("+OK"), "{reply}");
        for word in ["own", "later"] {
            let message = text(&client.receive().expect("a message"));
            assert!(message.ends_with(word), "{message}, not {word}");
        }
        // A key that it watches.
        client.ok("WATCH n");
        other.ok("SELECT 3");
        other.ok("SET n 7");
        send_transaction(&mut client, &[long]);
        assert_eq!(text(&client.receive().expect("a reply")), "_");
    }
}

#[test]
fn a_connection_stays_with_its_worker_while_a_script_of_its_transaction_runs() {
    let (server, mut clients) = start(2, "on-kill");
    let mut slow: Vec<Client> = (0..4).map(|_| server.client()).collect();
    send_transaction(&mut slow[3], WITH_ENDLESS);
    wait_for(&mut clients[0], &["GET", "k"], "-BUSY");
    for count in ["1", "2", "1"] {
        clients[0].ok(&format!("CONFIG SET io-threads {count}"));
        assert_eq!(text(&clients[0].call(&["PING"])), "+PONG");
    }
    clients[0].ok("SCRIPT KILL");
    let reply = text(&slow[3].receive().expect("a reply"));
    assert!(reply.starts_with("*3\r\n+OK\r\n-ERR Script killed"), "{reply}");
    for client in &mut slow {
        assert_eq!(client.ok("GET first").string(), "1");
    }
}
