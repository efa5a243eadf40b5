//! Functions on a real server: they outlive it, can be killed, and are loaded as a whole or not at all.

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::client::{Client, PATIENCE, encode};
use support::server::{Recipe, Server};

/// Counts in a key, in its own state, and tells both.
const COUNTER: &str = "#!lua name=counter\nlocal here = 0\nredis.register_function('count', function(keys, args)\n\
                       here = here + 1 return {redis.call('INCRBY', keys[1], args[1]), here} end)";
/// Writes, and then never ends.
const ENDLESS: &str = "#!lua name=endless\nredis.register_function('endless', function(keys)\n\
                       redis.call('SET', keys[1], 'half') while true do pcall(function() while true do end end) end end)";

fn start(workers: usize) -> (Server, Vec<Client>) {
    let server = Recipe::under_test().with("io-threads", &workers.to_string()).with("appendfsync", "always");
    let server = server.with("busy-reply-threshold", "50").start();
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
    let (mut server, mut clients) = start(4);
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
    let (_server, mut clients) = start(2);
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

#[test]
fn a_library_that_does_not_end_is_not_loaded() {
    let (_server, mut clients) = start(2);
    let library = |body: &str| format!("#!lua name=lib\n{body}\nredis.register_function('f', function() return 1 end)");
    assert_eq!(call(&mut clients[0], &["FUNCTION", "LOAD", &library("")]), "$3 lib");
    let reply = call(&mut clients[0], &["FUNCTION", "LOAD", "REPLACE", &library("while true do end")]);
    assert_eq!(reply, "-ERR Error registering functions: ERR FUNCTION LOAD timeout");
    assert_eq!(call(&mut clients[1], &["FCALL", "f", "0"]), ":1");
}
