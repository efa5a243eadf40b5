//! Functions on a real server: they outlive it, can be killed, and are loaded as a whole or not at all.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::SetOnDrop;
use support::client::{Client, PATIENCE, encode};
use support::server::{Recipe, Server};

/// Counts in a key, in its own state, and tells both.
const COUNTER: &str = "#!lua name=counter\nlocal here = 0\nredis.register_function('count', function(keys, args)\n\
                       here = here + 1 return {redis.call('INCRBY', keys[1], args[1]), here} end)";
/// Writes, and then never ends.
const ENDLESS: &str = "#!lua name=endless\nredis.register_function('endless', function(keys)\n\
                       redis.call('SET', keys[1], 'half') while true do pcall(function() while true do end end) end end)";

/// From this many milliseconds on, calls are told of a function that runs: soon,
const SOON: &str = "50";
/// or never in a test, however slow the machine is.
const NEVER: &str = "86400000";

fn start(workers: usize, busy_after_ms: &str) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string()).with("appendfsync", "always");
    let server = server.with("busy-reply-threshold", busy_after_ms).start();
    let clients = (0..2 * workers).map(|_| server.client()).collect();
    (server, clients)
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().replace("\r\n", " ")
}

fn call(client: &mut Client, words: &[&str]) -> String {
    text(&client.call(words))
}

#[test]
fn libraries_and_what_their_functions_did_survive_a_kill() {
    let (mut server, mut clients) = start(4, NEVER);
    assert_eq!(call(&mut clients[0], &["FUNCTION", "LOAD", COUNTER]), "$7 counter");
    let mut counted = 0;
    for round in 0..3 {
        let mut here = 0;
        for (number, client) in clients.iter_mut().enumerate() {
            for _ in 0..5 {
                (counted, here) = (counted + number, here + 1);
                let reply = call(client, &["FCALL", "count", "1", "sum", &number.to_string()]);
                assert_eq!(reply, format!("*2 :{counted} :{here}"), "one state for all workers, in round {round}");
            }
        }
        let name = format!("lib{round}");
        let code = format!("#!lua name={name}\nredis.register_function('{name}', function() return {round} end)");
        assert_eq!(call(&mut clients[1], &["FUNCTION", "LOAD", &code]), format!("$4 {name}"));
        if round == 1 {
            clients[2].ok("BGREWRITEAOF");
            clients[2].ok("FUNCTION DELETE lib0");
        }
        server.kill();
        server.start_again();
        clients = (0..8).map(|_| server.client()).collect();
        assert_eq!(call(&mut clients[0], &["GET", "sum"]), format!("${} {counted}", counted.to_string().len()));
        assert_eq!(call(&mut clients[3], &["FCALL", &name, "0"]), format!(":{round}"));
    }
    assert_eq!(call(&mut clients[0], &["FCALL", "lib0", "0"]), "-ERR Function not found");
    let info = call(&mut clients[0], &["INFO", "memory"]);
    assert!(info.contains("number_of_functions:3 number_of_libraries:3"), "{info}");
}

/// Asks again until the reply begins so.
fn wait_for(client: &mut Client, words: &[&str], start: &str) {
    let began = Instant::now();
    loop {
        let reply = call(client, words);
        if reply.starts_with(start) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{words:?}: {reply}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_function_that_is_killed_leaves_nothing() {
    let (_server, mut clients) = start(2, SOON);
    let (slow, others) = clients.split_first_mut().expect("there are some");
    assert_eq!(call(slow, &["FUNCTION", "LOAD", ENDLESS]), "$7 endless");
    assert_eq!(call(slow, &["FUNCTION", "LOAD", COUNTER]), "$7 counter");
    others[0].ok("SET k before");
    assert_eq!(call(&mut others[0], &["FUNCTION", "KILL"]), "-NOTBUSY No scripts in execution right now.");
    for round in 1..3 {
        slow.send(&encode(&["FCALL", "ENDLESS", "1", "k", "an argument"])).expect("the connection holds");
        wait_for(
            &mut others[0],
            &["GET", "k"],
            "-BUSY Redis is busy running a script. You can only call FUNCTION KILL",
        );
        let stats = call(&mut others[0], &["FUNCTION", "STATS"]);
        let shown = "*4 $14 running_script *6 $4 name $7 endless $7 command \
                     *5 $5 FCALL $7 ENDLESS $1 1 $1 k $11 an argument $11 duration_ms :";
        assert!(stats.starts_with(shown), "{stats}");
        let reply = call(&mut others[0], &["SCRIPT", "KILL"]);
        assert_eq!(reply, "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.");
        assert_eq!(call(&mut others[0], &["FCALL", "count", "1", "sum", "1"]).split(' ').next(), Some("-BUSY"));
        others[0].ok("FUNCTION KILL");
        let error = text(&slow.receive().expect("a reply"));
        assert!(error.starts_with("-ERR Script killed by user with SCRIPT KILL... script: endless"), "{error}");
        assert_eq!(others[0].ok("GET k").string(), "before");
        // Libraries keep their state.
        assert_eq!(call(&mut others[0], &["FCALL", "count", "1", "sum", "1"]), format!("*2 :{round} :{round}"));
    }
    slow.send(&encode(&["EVAL", "while true do end", "1", "k"])).expect("the connection holds");
    wait_for(&mut others[0], &["GET", "k"], "-BUSY Redis is busy running a script. You can only call SCRIPT KILL");
    let reply = call(&mut others[0], &["FUNCTION", "KILL"]);
    assert_eq!(reply, "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.");
    others[0].ok("SCRIPT KILL");
}

/// Runs until it is killed, and keeps no state.
const LONG: &str = "#!lua name=long\nredis.register_function('long', function(keys)\n\
                    redis.call('SET', keys[1], 'half') while true do end end)\n\
                    redis.register_function('short', function(keys) return redis.call('INCR', keys[1]) end)";

#[test]
fn functions_on_different_keys_run_side_by_side() {
    for workers in [1, 2] {
        let (_server, mut clients) = start(workers, SOON);
        let (slow, others) = clients.split_first_mut().expect("there are some");
        assert_eq!(call(slow, &["FUNCTION", "LOAD", LONG]), "$4 long");
        slow.send(&encode(&["FCALL", "long", "1", "k"])).expect("the connection holds");
        wait_for(&mut others[0], &["GET", "k"], "-BUSY");
        // A key may be in the shard that is held.
        let free = |other: &mut Client, number: usize| {
            let mut names = (0..20).map(|at| format!("other{number}:{at}"));
            names.find(|name| call(other, &["GET", name]) == "$-1").expect("a key that is free")
        };
        let keys: Vec<String> = others.iter_mut().enumerate().map(|(number, other)| free(other, number)).collect();
        for round in 1..20 {
            for (other, key) in others.iter_mut().zip(&keys) {
                let reply = call(other, &["FCALL", "short", "1", key]);
                assert_eq!(reply, format!(":{round}"), "while the long one runs");
            }
        }
        let stats = call(&mut others[0], &["FUNCTION", "STATS"]);
        assert!(stats.contains("$4 name $4 long"), "it still runs: {stats}");
        others[0].ok("FUNCTION KILL");
        assert!(text(&slow.receive().expect("a reply")).starts_with("-ERR Script killed"));
        assert_eq!(call(slow, &["EXISTS", "k"]), ":0");
    }
}

#[test]
fn state_is_one_for_calls_at_the_same_time() {
    const CALLS: usize = 200;
    let (_server, mut clients) = start(4, NEVER);
    for round in 0..3 {
        assert_eq!(call(&mut clients[0], &["FUNCTION", "LOAD", "REPLACE", COUNTER]), "$7 counter");
        let mut seen: Vec<String> = std::thread::scope(|scope| {
            let callers = clients.iter_mut().enumerate().map(|(number, client)| {
                let key = format!("sum{round}:{number}");
                scope.spawn(move || {
                    let count = |at: usize| {
                        let reply = call(client, &["FCALL", "count", "1", &key, "1"]);
                        let here = reply.strip_prefix(&format!("*2 :{at} :")).map(str::to_owned);
                        here.unwrap_or_else(|| panic!("call {at}: {reply}"))
                    };
                    (1..=CALLS).map(count).collect::<Vec<String>>()
                })
            });
            let callers: Vec<_> = callers.collect();
            callers.into_iter().flat_map(|caller| caller.join().expect("it counts")).collect()
        });
        seen.sort_by_key(|here| here.parse::<usize>().expect("a number"));
        let all: Vec<String> = (1..=8 * CALLS).map(|here| here.to_string()).collect();
        assert_eq!(seen, all, "each call sees what those before it have left");
    }
}

#[test]
fn calls_see_the_library_that_is_there() {
    let (server, mut clients) = start(4, NEVER);
    let version = |number: usize| {
        format!(
            "#!lua name=v\nlocal n = 0\nredis.register_function('v', function(keys)\n\
             redis.call('INCR', keys[1]) redis.call('INCR', keys[2]) return {number} end)\n\
             redis.register_function('n', function() n = n + 1 return n end)"
        )
    };
    let mut main = server.client();
    assert_eq!(call(&mut main, &["FUNCTION", "LOAD", &version(0)]), "$1 v");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&is_over);
        for (number, client) in clients.iter_mut().enumerate() {
            let (is_over, keys) = (&is_over, [format!("a{number}"), format!("b{number}")]);
            scope.spawn(move || {
                let mut last = 0;
                while !is_over.load(Relaxed) {
                    let reply = call(client, &["FCALL", "v", "2", &keys[0], &keys[1]]);
                    match reply.strip_prefix(':').map(|number| number.parse::<usize>().expect("a number")) {
                        Some(now) => {
                            assert!(now >= last, "version {last} came before {now}");
                            last = now;
                        }
                        None => assert_eq!(reply, "-ERR Function not found"),
                    }
                }
                assert_eq!(call(client, &["GET", &keys[0]]), call(client, &["GET", &keys[1]]));
            });
        }
        for number in 1..60 {
            match number % 4 {
                0 => drop(call(&mut main, &["FUNCTION", "DELETE", "v"])),
                1 => drop(call(&mut main, &["FUNCTION", "FLUSH"])),
                _ => {}
            }
            assert_eq!(call(&mut main, &["FUNCTION", "LOAD", "REPLACE", &version(number)]), "$1 v");
            assert_eq!(call(&mut main, &["FCALL", "v", "2", "a", "b"]), format!(":{number}"));
            if number % 3 == 0 {
                assert_eq!(call(&mut main, &["FCALL", "n", "1", "a"]), ":1", "it begins anew");
                assert_eq!(call(&mut main, &["FCALL", "n", "1", "a"]), ":2");
            }
        }
    });
}

/// Writes a pair of keys with time between, in a library without state and in one that comes to have some.
fn pairs(name: &str, state: &str) -> String {
    format!(
        "#!lua name={name}\nlocal n = 0\nredis.register_function('{name}', function(keys, args)\n\
         redis.call('SET', keys[1], args[1]) for i = 1, args[2] do pcall(function() local x = i .. '' end) end\n\
         {state} redis.call('SET', keys[2], args[1]) return 1 end)"
    )
}

#[test]
fn kills_at_any_instant_leave_no_lock_and_no_half_change() {
    const ROUNDS: usize = 30;
    let server = Recipe::under_test().with("io-threads", "4").with("busy-reply-threshold", "1").start();
    let mut main = server.client();
    assert_eq!(call(&mut main, &["FUNCTION", "LOAD", &pairs("plain", "")]), "$5 plain");
    assert_eq!(call(&mut main, &["FUNCTION", "LOAD", &pairs("state", "n = n + 1")]), "$5 state");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&is_over);
        let (mut killer, is_over) = (server.client(), &is_over);
        scope.spawn(move || {
            while !is_over.load(Relaxed) {
                killer.call(&["FUNCTION", "KILL"]);
                sleep(Duration::from_micros(700));
            }
        });
        let workers: Vec<_> = (0..4_usize)
            .map(|number| {
                let mut client = server.client();
                scope.spawn(move || {
                    // Two pairs of keys, each wanted by two.
                    let (one, other) = (format!("one{}", number % 2), format!("other{}", number % 2));
                    for round in 0..ROUNDS {
                        let loops = ((round * 37 + number * 11) % 60 * 300).to_string();
                        let name = if round % 5 == 4 { "state" } else { "plain" };
                        let reply = call(&mut client, &["FCALL", name, "2", &one, &other, &round.to_string(), &loops]);
                        let is_known = reply == ":1" || reply.starts_with("-BUSY");
                        assert!(is_known || reply.starts_with("-ERR Script killed"), "{reply}");
                        let values = call(&mut client, &["MGET", &one, &other]);
                        let parts: Vec<&str> = values.split(' ').skip(1).collect();
                        let (first, second) = parts.split_at(parts.len() / 2);
                        assert!(values.starts_with("-BUSY") || first == second, "{values}");
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("it ends well"));
    });
    for key in ["one0", "one1", "other0", "other1"] {
        main.ok(&format!("SET {key} free"));
    }
    main.ok("FLUSHALL");
}

#[test]
fn a_library_that_does_not_end_is_not_loaded() {
    let (_server, mut clients) = start(2, SOON);
    let library = |body: &str| format!("#!lua name=lib\n{body}\nredis.register_function('f', function() return 1 end)");
    assert_eq!(call(&mut clients[0], &["FUNCTION", "LOAD", &library("")]), "$3 lib");
    let reply = call(&mut clients[0], &["FUNCTION", "LOAD", "REPLACE", &library("while true do end")]);
    assert_eq!(reply, "-ERR Error registering functions: ERR FUNCTION LOAD timeout");
    assert_eq!(call(&mut clients[1], &["FCALL", "f", "0"]), ":1");
}

/// Two functions of a library. The first writes a pair of keys, with time between, and tells its version from three
/// places.
fn versioned(name: &str, version: usize) -> String {
    format!(
        "#!lua name={name}\nlocal here = {version}\nlocal function helper() return {version} end\n\
         redis.register_function('{name}', function(keys, args) local seen = here redis.call('INCR', keys[1])\n\
         for i = 1, args[1] do pcall(helper) end redis.call('INCR', keys[2]) return {{seen, helper(), here}} end)\n\
         redis.register_function{{function_name='{name}_ro', callback=function() return {version} end, \
         flags={{'no-writes'}}}}"
    )
}

/// Calls until it is over, and checks that each sees one version of a library, or of both in a transaction, and none
/// before the last.
fn call_until(client: &mut Client, number: usize, is_over: &AtomicBool, may_be_missing: &AtomicBool) {
    let (mut last, mut round) = (0, number);
    let keys = [format!("a{number}"), format!("b{number}")];
    while !is_over.load(Relaxed) {
        round += 1;
        // Some go on for longer than a time slice.
        let loops = if round % 16 == 0 { "20000" } else { "3" };
        let reply = match round % 3 {
            0 => {
                for words in [&["MULTI"][..], &["FCALL_RO", "one_ro", "0"], &["FCALL", "two_ro", "0"]] {
                    client.call(words);
                }
                call(client, &["EXEC"])
            }
            _ => call(client, &["FCALL", ["one", "two"][round % 2], "2", &keys[0], &keys[1], loops]),
        };
        let versions: Vec<usize> =
            reply.split(" :").skip(1).map(|version| version.parse().expect("a number")).collect();
        if versions.is_empty() {
            let parts: Vec<&str> = reply.split('-').skip(1).map(str::trim).collect();
            assert!(!parts.is_empty() && parts.iter().all(|part| *part == "ERR Function not found"), "{reply}");
            assert!(may_be_missing.load(Relaxed), "a library was missing for a while");
            continue;
        }
        assert!(!reply.contains('-') && versions.iter().all(|version| *version == versions[0]), "{reply}");
        assert!(versions[0] >= last, "version {last} came before {}", versions[0]);
        last = versions[0];
    }
    assert_eq!(call(client, &["GET", &keys[0]]), call(client, &["GET", &keys[1]]));
}

#[test]
fn calls_see_all_of_the_old_libraries_or_all_of_the_restored() {
    const VERSIONS: usize = 24;
    for workers in [2, 4] {
        let server = Recipe::under_test().with("io-threads", &workers.to_string()).start();
        let mut clients: Vec<Client> = (0..2 * workers).map(|_| server.client()).collect();
        let mut main = server.client();
        let payloads: Vec<Vec<u8>> = (0..VERSIONS)
            .map(|version| {
                for name in ["one", "two"] {
                    call(&mut main, &["FUNCTION", "LOAD", "REPLACE", &versioned(name, version)]);
                }
                let dumped = main.call(&["FUNCTION", "DUMP"]);
                let begin = dumped.iter().position(|byte| *byte == b'\n').expect("a length") + 1;
                dumped[begin..dumped.len() - 2].to_vec()
            })
            .collect();
        let restore = |main: &mut Client, version: usize, policy: &[u8]| {
            let reply = text(&main.call(&[&b"FUNCTION"[..], b"RESTORE", &payloads[version], policy]));
            assert_eq!(reply, "+OK");
            assert_eq!(call(main, &["FCALL", "two_ro", "0"]), format!(":{version}"));
        };
        restore(&mut main, 0, b"FLUSH");
        let (is_over, may_be_missing) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _end = SetOnDrop(&is_over);
            for (number, client) in clients.iter_mut().enumerate() {
                let (is_over, may_be_missing) = (&is_over, &may_be_missing);
                scope.spawn(move || call_until(client, number, is_over, may_be_missing));
            }
            for version in 1..VERSIONS / 2 {
                restore(&mut main, version, if version % 2 == 0 { b"FLUSH" } else { b"REPLACE" });
            }
            may_be_missing.store(true, Relaxed);
            for version in VERSIONS / 2..VERSIONS {
                match version % 3 {
                    0 => drop(main.ok("FUNCTION FLUSH")),
                    1 => drop(main.ok("FUNCTION FLUSH ASYNC")),
                    _ => {
                        for line in ["MULTI", "FUNCTION DELETE two", "FUNCTION DELETE one", "EXEC"] {
                            main.ok(line);
                        }
                    }
                }
                assert_eq!(call(&mut main, &["FCALL", "one_ro", "0"]), "-ERR Function not found");
                restore(&mut main, version, b"APPEND");
            }
        });
    }
}
