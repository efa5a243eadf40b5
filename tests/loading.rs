//! A server that serves while it loads: every reply is right from the first one on, and nothing waits for all.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::client::{Client, encode};
use support::newer;
use support::random::Random;
use support::server::{Recipe, Server};

/// Keys in a store that takes long to load: with this delay for each, in microseconds, longer than any test here. A
/// test that wants to see the end sets the delay to none.
const KEYS: usize = 10_000;
const SLOWLY: &str = "20000";

fn recipe(workers: &str) -> Recipe {
    Recipe::under_test()
        .with("save", "")
        .with("io-threads", workers)
        .with("enable-debug-command", "yes")
        .with("serve-while-loading-min-size", "0")
}

/// The same with a store that is encrypted, perhaps.
fn encrypted(recipe: Recipe, is_encrypted: bool) -> Recipe {
    match is_encrypted {
        true => recipe.with("encryption-key-command", &format!("echo {}", "5".repeat(64))),
        false => recipe,
    }
}

fn fill(client: &mut Client) {
    let words = |at: usize| vec!["SET".to_owned(), format!("key:{at}"), format!("value:{at}")];
    let commands: Vec<_> = (0..KEYS).map(words).collect();
    for part in commands.chunks(1000) {
        let bytes: Vec<u8> = part.iter().flat_map(|words| encode(words)).collect();
        client.send(&bytes).expect("sent");
        part.iter().for_each(|_| assert_eq!(client.receive().expect("a reply"), b"+OK\r\n"));
    }
}

fn info(client: &mut Client, line: &str) -> bool {
    client.ok("INFO persistence").string().lines().any(|found| found.trim() == line)
}

/// How many bytes this client has sent, as far as they have arrived.
fn received_from(client: &mut Client, id: i64) -> usize {
    let line = client.ok(&format!("CLIENT LIST ID {id}")).string();
    line.split(' ').find_map(|word| word.strip_prefix("tot-net-in=")?.parse().ok()).expect("a number")
}

/// A key that begins so, whose shard is not the damaged one.
fn sound_key(client: &mut Client, prefix: &str) -> String {
    let mut names = (0..).map(|at| format!("{prefix}:{at}"));
    names.find(|name| !client.line(&format!("EXISTS {name}")).is_error()).expect("one of a thousand shards is damaged")
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A store of many keys in the snapshot and in the log, whose server was killed.
fn filled(recipe: &Recipe) -> Server {
    let mut server = recipe.clone().start();
    let mut client = server.client();
    fill(&mut client);
    client.ok("BGREWRITEAOF");
    wait_until("the snapshot ends", || info(&mut client, "aof_rewrite_in_progress:0"));
    for at in (0..KEYS).step_by(100) {
        client.ok(&format!("APPEND key:{at} :logged"));
    }
    server.kill();
    server
}

fn expected(at: usize) -> String {
    format!("value:{at}{}", if at.is_multiple_of(100) { ":logged" } else { "" })
}

#[test]
fn keys_are_served_long_before_all_are_loaded() {
    for (workers, is_encrypted) in [("1", false), ("3", false), ("3", true)] {
        let recipe = encrypted(recipe(workers), is_encrypted);
        let mut server = filled(&recipe);
        server.set_recipe(recipe.clone().with("key-load-delay", SLOWLY));
        server.start_again();
        let mut client = server.client();
        assert!(info(&mut client, "async_loading:1") && info(&mut client, "loading:0"));
        for at in [0, 777, 4200, 9_999] {
            assert_eq!(client.ok(&format!("GET key:{at}")).string(), expected(at));
        }
        assert_eq!(client.call(&["GET", "no such key"]), b"$-1\r\n");
        assert_eq!(
            client.call(&["MGET", "key:1", "key:500", "none"]),
            b"*3\r\n$7\r\nvalue:1\r\n$16\r\nvalue:500:logged\r\n$-1\r\n"
        );
        client.ok("SET key:5 changed");
        client.ok("DEL key:6");
        client.ok("SET new 1");
        assert_eq!(client.call(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "key:5"]), b"$7\r\nchanged\r\n");
        client.ok("MULTI");
        client.ok("GET key:5");
        client.ok("INCR new");
        assert_eq!(client.call(&["EXEC"]), b"*2\r\n$7\r\nchanged\r\n:2\r\n");
        assert!(info(&mut client, "async_loading:1"), "all of that while the rest is loaded");
        // Killed in the middle, it loses nothing, neither of the old nor of the new.
        server.kill();
        server.set_recipe(recipe);
        server.start_again();
        let mut client = server.client();
        assert_eq!(client.call(&["DBSIZE"]), format!(":{KEYS}\r\n").into_bytes(), "one more, one less");
        for at in (0..KEYS).step_by(97).filter(|at| ![5, 6].contains(at)) {
            assert_eq!(client.ok(&format!("GET key:{at}")).string(), expected(at));
        }
        assert_eq!(client.call(&["MGET", "key:5", "key:6", "new"]), b"*3\r\n$7\r\nchanged\r\n$-1\r\n$1\r\n2\r\n");
    }
}

/// What needs all keys waits until they are there, and holds up nobody meanwhile.
#[test]
fn commands_on_the_whole_keyspace_wait_for_all_of_it() {
    for (command, reply) in [
        ("DBSIZE", format!(":{KEYS}\r\n")),
        ("FLUSHALL", "+OK\r\n".to_owned()),
        ("SWAPDB 0 1", "+OK\r\n".to_owned()),
        ("EVAL \"return redis.call('DBSIZE')\" 0", format!(":{KEYS}\r\n")),
        ("DEBUG RELOAD", "+OK\r\n".to_owned()),
    ] {
        let mut server = filled(&recipe("2"));
        server.set_recipe(recipe("2").with("key-load-delay", SLOWLY));
        server.start_again();
        let (mut waits, mut other) = (server.client(), server.client());
        let id = waits.ok("CLIENT ID").integer();
        let bytes = encode(&support::words::split(command));
        let before = received_from(&mut other, id);
        waits.send(&bytes).expect("sent");
        wait_until("it has arrived", || received_from(&mut other, id) == before + bytes.len());
        for at in [1, 2, 3, 1] {
            assert_eq!(other.ok(&format!("GET key:{at}")).string(), expected(at), "{command}: the other is served");
        }
        assert_eq!(waits.arrived(), 0, "{command} waits");
        assert!(info(&mut other, "async_loading:1"), "{command}: the rest is loaded");
        other.ok("CONFIG SET key-load-delay 0");
        let got = waits.receive().expect("it is answered");
        assert_eq!(String::from_utf8_lossy(&got), reply, "{command}");
        wait_until("all is loaded", || info(&mut other, "async_loading:0"));
    }
}

#[test]
fn scans_and_snapshots_miss_nothing() {
    let mut server = filled(&recipe("2"));
    server.set_recipe(recipe("2").with("key-load-delay", "150"));
    server.start_again();
    let mut client = server.client();
    client.ok("BGREWRITEAOF");
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let page = client.ok(&format!("SCAN {cursor} COUNT 500"));
        let parts = page.elements();
        cursor = parts[0].string();
        seen.extend(parts[1].elements().iter().map(|key| key.string()));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), KEYS);
    wait_until("the snapshot ends", || {
        info(&mut client, "aof_rewrite_in_progress:0") && info(&mut client, "aof_rewrites:1")
    });
    server.kill();
    server.start_again();
    assert_eq!(server.client().call(&["DBSIZE"]), format!(":{KEYS}\r\n").into_bytes());
}

#[test]
fn a_shutdown_does_not_wait_for_the_rest() {
    let mut server = filled(&recipe("2"));
    server.set_recipe(recipe("2").with("key-load-delay", SLOWLY));
    server.start_again();
    server.client().ok("SET new 1");
    assert!(server.terminate().success());
    server.set_recipe(recipe("2"));
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.call(&["DBSIZE"]), format!(":{}\r\n", KEYS + 1).into_bytes());
}

/// Random commands of all families, databases swapped and flushed, keys renamed between shards, functions.
#[test]
fn whatever_was_logged_is_served_as_it_was() {
    let seed = Random::seed_of_this_run();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..3 {
        let mut server = recipe("2").start();
        let mut client = server.client();
        for round in 0..3 {
            for _ in 0..1500 {
                client.call(&newer::any_command(&mut random));
            }
            client.ok("SELECT 0");
            for at in 0..40 {
                client.ok(&format!("SET from:{round}:{at} {at}"));
                client.ok(&format!("RENAME from:{round}:{at} to:{round}:{at}"));
                client.ok(&format!("COPY to:{round}:{at} copy:{round}:{at} DB 3"));
            }
            client.ok("SWAPDB 0 3");
            client.ok("SWAPDB 1 1");
            if round == 0 {
                client.ok("BGREWRITEAOF");
                wait_until("the snapshot ends", || info(&mut client, "aof_rewrite_in_progress:0"));
            }
        }
        client.call(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 1 end)"]);
        client.ok("DEBUG SET-ACTIVE-EXPIRE 0");
        let before = client.ok("DEBUG DIGEST").string();
        server.kill();
        server.start_again();
        let mut client = server.client();
        assert_eq!(client.call(&["FCALL", "f", "0"]), b":1\r\n");
        assert_eq!(client.ok("DEBUG DIGEST").string(), before);
    }
}

/// Changes a byte in the middle of the snapshot, which is within a chunk. Returns the file as it was.
fn damage_snapshot(server: &Server) -> (PathBuf, Vec<u8>) {
    let entries = fs::read_dir(server.directory()).expect("listed").flatten().map(|entry| entry.path());
    let snapshot = entries.into_iter().find(|path| path.to_string_lossy().contains("snapshot-")).expect("there is one");
    let bytes = fs::read(&snapshot).expect("read");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&snapshot, &damaged).expect("written");
    (snapshot, bytes)
}

fn files(server: &Server, what: &str) -> Vec<String> {
    let entries = fs::read_dir(server.directory()).expect("listed").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with(what));
    names.sort();
    names
}

/// Asks for every key, and compares. Returns a key of the damaged shard, and one of another.
fn damaged_and_sound(client: &mut Client) -> (String, String) {
    let (mut damaged, mut sound) = (None, None);
    for at in 0..KEYS {
        let key = format!("key:{at}");
        let reply = String::from_utf8_lossy(&client.call(&["GET", &key])).into_owned();
        match reply.starts_with('-') {
            true => {
                assert!(reply.starts_with("-LOADERR shard ") && reply.contains(" is corrupt at offset "), "{reply}");
                assert!(reply.contains(".ik") && reply.contains("ironkeep repair"), "{reply}");
                damaged = Some(key);
            }
            false => {
                assert!(reply.contains(&expected(at)), "{at}: {reply}");
                sound = Some(key);
            }
        }
    }
    (damaged.expect("one shard is damaged"), sound.expect("one alone"))
}

/// The whole server used to end for the damage of one shard.
#[test]
fn the_keys_of_a_damaged_shard_answer_an_error_and_the_others_are_served() {
    for (workers, is_encrypted) in [("1", false), ("3", false), ("3", true)] {
        let recipe = encrypted(recipe(workers), is_encrypted);
        let mut server = filled(&recipe);
        let (snapshot, whole) = damage_snapshot(&server);
        server.set_recipe(recipe.clone().with("key-load-delay", "20"));
        server.start_again();
        let mut client = server.client();
        let (damaged, sound) = damaged_and_sound(&mut client);
        wait_until("the others are loaded", || info(&mut client, "async_loading:0"));
        assert!(info(&mut client, "loading_damaged_shards:1") && info(&mut client, "loading:0"));
        let snapshots = files(&server, "snapshot-");
        let mut fails = |words: &[&str]| {
            let reply = String::from_utf8_lossy(&client.call(words)).into_owned();
            assert!(
                reply.starts_with("-LOADERR shard ") && reply.contains(" is corrupt at offset "),
                "{words:?}: {reply}"
            );
        };
        fails(&["SET", &damaged, "wrong"]);
        fails(&["DEL", &damaged]);
        fails(&["MGET", &sound, &damaged]);
        fails(&["MSET", &sound, "wrong", &damaged, "wrong"]);
        fails(&["RENAME", &sound, &damaged]);
        fails(&["BLPOP", &damaged, "0"]);
        fails(&["WATCH", &damaged]);
        fails(&["EVAL", "return redis.call('SET', KEYS[1], 'wrong')", "1", &damaged]);
        fails(&["EVAL", "return redis.call('SET', ARGV[1], 'wrong')", "0", &damaged]);
        for command in ["DBSIZE", "KEYS *", "SCAN 0", "RANDOMKEY", "FLUSHALL", "FLUSHDB", "SWAPDB 0 1"] {
            fails(&command.split(' ').collect::<Vec<_>>());
        }
        for command in ["BGSAVE", "SAVE", "BGREWRITEAOF", "DEBUG DIGEST"] {
            fails(&command.split(' ').collect::<Vec<_>>());
        }
        fails(&["EVAL", "return redis.call('DBSIZE')", "0"]);
        server.kill();
        fs::write(&snapshot, &whole).expect("written");
        assert_eq!(files(&server, "snapshot-"), snapshots, "no other was made");
        server.set_recipe(recipe);
        server.start_again();
        let mut client = server.client();
        for at in 0..KEYS {
            assert_eq!(client.ok(&format!("GET key:{at}")).string(), expected(at), "nothing of all that was done");
        }
        assert!(info(&mut client, "loading_damaged_shards:0"));
    }
}

/// What needs the gate, and what is written beside the damage.
#[test]
fn the_others_go_on_beside_a_damaged_shard_and_nothing_written_is_lost() {
    for workers in ["1", "3"] {
        let mut server = filled(&recipe(workers));
        let (snapshot, whole) = damage_snapshot(&server);
        server.set_recipe(recipe(workers));
        server.start_again();
        let mut client = server.client();
        let (damaged, sound) = damaged_and_sound(&mut client);
        let [by_script, after, queue] = ["by-a-script", "after", "queue"].map(|name| sound_key(&mut client, name));
        client.ok("MULTI");
        assert!(client.call(&["GET", &damaged]).starts_with(b"-LOADERR"));
        assert_eq!(client.call(&["SET", &sound, "wrong"]), b"+QUEUED\r\n");
        assert!(client.call(&["EXEC"]).starts_with(b"-EXECABORT"));
        client.ok("MULTI");
        client.ok(&format!("SET {sound} transaction"));
        client.ok(&format!("EVAL \"return redis.call('SET', ARGV[1], 'script')\" 0 {by_script}"));
        assert_eq!(client.call(&["EXEC"]), b"*2\r\n+OK\r\n+OK\r\n");
        let script = "local r = redis.pcall('GET', ARGV[1]); redis.call('SET', ARGV[2], 1); return r['err']";
        assert!(client.call(&["EVAL", script, "0", &damaged, &after]).starts_with(b"$"), "a script can go on");
        // Whoever pushes to an awaited key closes the gate.
        let mut waits = server.client();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| waits.call(&["BLPOP", &queue, "0"]));
            wait_until("it waits", || {
                client.ok("INFO clients").string().lines().any(|line| line.trim() == "blocked_clients:1")
            });
            client.ok(&format!("RPUSH {queue} element"));
            let served = format!("*2\r\n${}\r\n{queue}\r\n$7\r\nelement\r\n", queue.len());
            assert_eq!(String::from_utf8_lossy(&waiting.join().expect("served")), served);
        });
        for at in 0..2000 {
            let reply = client.call(&["SET", &format!("new:{at}"), "1"]);
            assert!(reply == b"+OK\r\n" || reply.starts_with(b"-LOADERR shard "));
        }
        let written = |client: &mut Client| {
            let replies = (0..2000).map(|at| client.call(&["GET", &format!("new:{at}")]));
            replies.filter(|reply| reply == b"$1\r\n1\r\n").count()
        };
        let kept = written(&mut client);
        assert!((1900..=2000).contains(&kept), "{kept}");
        // Killed, and ended properly: both starts meet the same damage.
        for kills in [true, false] {
            match kills {
                true => server.kill(),
                false => assert!(server.terminate().success()),
            }
            server.start_again();
            let mut client = server.client();
            assert_eq!(client.ok(&format!("GET {sound}")).string(), "transaction");
            assert_eq!(client.call(&["MGET", &by_script, &after]), b"*2\r\n$6\r\nscript\r\n$1\r\n1\r\n");
            assert!(client.call(&["GET", &damaged]).starts_with(b"-LOADERR"));
            assert_eq!(written(&mut client), kept);
        }
        assert!(server.log().contains("Damage in the data"), "{}", server.log());
        server.kill();
        fs::write(&snapshot, &whole).expect("written");
        server.start_again();
        let mut client = server.client();
        assert_eq!(written(&mut client), kept);
        let at = damaged["key:".len()..].parse().expect("a number");
        assert_eq!(client.ok(&format!("GET {damaged}")).string(), expected(at));
        assert_eq!(client.call(&["DBSIZE"]), format!(":{}\r\n", KEYS + kept + 2).into_bytes());
    }
}

/// A store whose log has many segments, killed once all but the last have an index.
fn in_segments(is_encrypted: bool) -> Server {
    let recipe = encrypted(recipe("2"), is_encrypted);
    let mut server = recipe.with("log-segment-size", "32kb").with("auto-aof-rewrite-percentage", "0").start();
    let mut client = server.client();
    fill(&mut client);
    client.ok("FLUSHALL");
    fill(&mut client);
    for at in (0..KEYS).step_by(100) {
        client.ok(&format!("APPEND key:{at} :logged"));
    }
    client.ok("RENAME key:1 moved");
    client.ok("SELECT 3");
    client.ok("SET other-database 1");
    client.ok("SWAPDB 3 4");
    // In a block of its own, without a barrier.
    client.ok("SELECT 0");
    client.ok("SET key:5050 value:5050");
    // A segment grows until the next one is there: on a busy machine there are fewer. What was written up to here is
    // not in the last one.
    let (long, enough) = ("x".repeat(8000), files(&server, "log-").len().max(8) + 3);
    while files(&server, "log-").len() < enough {
        client.ok(&format!("SET pad {long}"));
        std::thread::sleep(Duration::from_millis(2));
    }
    client.ok("DEL pad");
    wait_until("the indexes are made", || {
        // The last one is written, and one more is made ahead.
        indexes(&server) == files(&server, "log-").len() - 2
    });
    server.kill();
    server
}

/// How many segments have an index. The file of one that was begun when the server was killed may be empty.
fn indexes(server: &Server) -> usize {
    let length = |name: &String| fs::metadata(server.directory().join(name)).map_or(0, |found| found.len());
    files(server, "index-").iter().filter(|name| length(name) > 0).count()
}

/// How many segments the last start has not read, by its log.
fn unread_segments(server: &Server) -> usize {
    let log = server.log();
    let line =
        log.lines().rev().find_map(|line| Some(line.split_once(" seconds, ")?.1)).expect("it loads beside clients");
    line.split(' ').next().expect("a word").parse().expect("a number")
}

fn check_in_segments(client: &mut Client) {
    assert_eq!(client.call(&["MGET", "key:1", "moved"]), b"*2\r\n$-1\r\n$7\r\nvalue:1\r\n");
    for at in (0..KEYS).filter(|at| *at != 1) {
        assert_eq!(client.ok(&format!("GET key:{at}")).string(), expected(at));
    }
    assert_eq!(client.call(&["DBSIZE"]), format!(":{KEYS}\r\n").into_bytes());
    client.ok("SELECT 4");
    assert_eq!(client.call(&["GET", "other-database"]), b"$1\r\n1\r\n");
    client.ok("SELECT 0");
}

#[test]
fn a_start_reads_only_the_end_of_a_log_and_loads_all_of_it() {
    for is_encrypted in [false, true] {
        let recipe = encrypted(recipe("2"), is_encrypted);
        let mut server = in_segments(is_encrypted);
        let made = indexes(&server);
        for _ in 0..2 {
            server.start_again();
            assert!(unread_segments(&server) >= made, "{}", server.log());
            check_in_segments(&mut server.client());
            server.kill();
        }
        // Without them, and without serving meanwhile, all is as it was.
        let remove = |name: &String| fs::remove_file(server.directory().join(name)).expect("removed");
        files(&server, "index-").iter().for_each(remove);
        server.start_again();
        assert_eq!(unread_segments(&server), 0);
        check_in_segments(&mut server.client());
        wait_until("they are made again", || indexes(&server) >= made);
        server.kill();
        server.set_recipe(recipe.with("serve-while-loading", "no"));
        server.start_again();
        check_in_segments(&mut server.client());
        // A snapshot replaces all of them.
        let mut client = server.client();
        client.ok("BGREWRITEAOF");
        wait_until("the snapshot ends", || info(&mut client, "aof_rewrite_in_progress:0"));
        wait_until("they are gone", || files(&server, "index-").is_empty() && files(&server, "log-").len() <= 2);
    }
}

/// Damage in a record of the log: its shard answers the error, which names segment, offset and block.
#[test]
fn a_damaged_record_of_the_log_concerns_its_shard_alone() {
    let mut server = in_segments(false);
    // The keys were flushed once: the last segment that has it counts.
    let holds = |name: String| {
        // Damage in what a start reads is a refusal: the last segment, and blocks with a barrier.
        let path = server.directory().join(&name);
        server.directory().join(name.replace("log-", "index-")).exists().then_some(())?;
        let bytes = fs::read(&path).expect("read");
        let at = bytes.windows(10).rposition(|part| part == b"value:5050")?;
        Some((path, bytes, at))
    };
    let found = files(&server, "log-").into_iter().filter_map(holds).next_back();
    let (path, mut bytes, at) = found.expect("it is in the log");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("written");
    server.start_again();
    let mut client = server.client();
    let reply = String::from_utf8_lossy(&client.call(&["GET", "key:5050"])).into_owned();
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(reply.starts_with("-LOADERR shard ") && reply.contains(&name) && reply.contains("block "), "{reply}");
    let failing = (0..KEYS).filter(|at| client.call(&["GET", &format!("key:{at}")]).starts_with(b"-LOADERR")).count();
    assert!((1..100).contains(&failing), "{failing}");
    wait_until("the others are loaded", || info(&mut client, "async_loading:0"));
    assert!(info(&mut client, "loading_damaged_shards:1"));
    let sound = sound_key(&mut client, "key");
    client.ok(&format!("SET {sound} written"));
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert!(client.call(&["GET", "key:5050"]).starts_with(b"-LOADERR"));
    assert_eq!(client.ok(&format!("GET {sound}")).string(), "written");
}

/// Where the payloads of the blocks lie in the segments that have an index, in order.
fn payloads(server: &Server) -> Vec<(PathBuf, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    for name in files(server, "log-") {
        let path = server.directory().join(&name);
        if !server.directory().join(name.replace("log-", "index-")).exists() {
            continue;
        }
        let (bytes, mut at) = (fs::read(&path).expect("read"), 64);
        while bytes.get(at..at + 4) == Some(b"IKB1") {
            let len = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().expect("eight bytes")) as usize;
            found.push((path.clone(), at + 64..at + 64 + len));
            at += 64 + len;
        }
    }
    found
}

/// Encrypted, nobody can tell which record is damaged. The shards that have one in that block answer the error.
#[test]
fn a_damaged_block_of_an_encrypted_log_concerns_the_shards_that_are_in_it() {
    let mut server = in_segments(true);
    // Those of APPEND, one by one: there are a hundred small ones in a row.
    let payloads = payloads(&server);
    let is_small = |(_, payload): &(PathBuf, std::ops::Range<usize>)| payload.len() < 100;
    let row = payloads.windows(50).position(|row| row.iter().all(is_small)).expect("they are there");
    let (path, payload) = &payloads[row + 10];
    let mut bytes = fs::read(path).expect("read");
    bytes[payload.start + 20] ^= 1;
    fs::write(path, &bytes).expect("written");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let place = format!("{name} is corrupt at offset {}: block ", payload.start - 64);
    for _ in 0..2 {
        server.start_again();
        let mut client = server.client();
        let mut failing = 0;
        for at in (0..KEYS).filter(|at| *at != 1) {
            let reply = String::from_utf8_lossy(&client.call(&["GET", &format!("key:{at}")])).into_owned();
            match reply.starts_with('-') {
                true => {
                    assert!(reply.starts_with("-LOADERR shard ") && reply.contains(&place), "{place}: {reply}");
                    failing += 1;
                }
                false => assert!(reply.contains(&expected(at)), "{at}: {reply}"),
            }
        }
        assert!((1..100).contains(&failing), "{failing}");
        wait_until("the others are loaded", || info(&mut client, "async_loading:0"));
        assert!(info(&mut client, "loading_damaged_shards:1"));
        server.kill();
    }
    bytes[payload.start + 20] ^= 1;
    fs::write(path, bytes).expect("written");
    server.start_again();
    check_in_segments(&mut server.client());
}
