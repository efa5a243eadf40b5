//! Migration: what Redis has written is imported whole, by a tool and at a start, and Redis reads what is exported.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::client::{Client, PATIENCE};
use support::generator::Generator;
use support::random::Random;
use support::server::{Recipe, Server};

fn ironkeep() -> Recipe {
    Recipe::under_test().with("save", "").with("enable-debug-command", "yes")
}

fn redis() -> Recipe {
    Recipe::reference().with("enable-debug-command", "yes")
}

fn tool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironkeep")).args(args).output().expect("the program runs")
}

/// Runs a tool that must succeed, and returns what it says.
fn done(args: &[&str]) -> String {
    let output = tool(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Random commands, and values of every type in every form.
fn fill(client: &mut Client) {
    let seed = Random::seed_of_this_run();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..1500 {
        let words = Generator { random: &mut random }.command();
        client.call(&words);
    }
    client.ok("SELECT 0");
    let list = |prefix: &str, count: usize| (0..count).map(|at| format!(" {prefix}{at}")).collect::<String>();
    let pairs = |count: usize| (0..count).map(|at| format!(" {at}.5 m{at}")).collect::<String>();
    client.ok(&format!("RPUSH long:list{}", list("item", 3000)));
    client.ok(&format!("RPUSH long:item {} short", "x".repeat(20_000)));
    client.ok(&format!("SADD long:set{}", list("m", 1000)));
    client.ok(&format!("SADD long:ints{}", list("", 2000)));
    client.ok(&format!("HSET long:hash{}", pairs(1500)));
    client.ok(&format!("ZADD long:zset{}", pairs(1500)));
    client.ok(&format!("SET long:string {}", "abc".repeat(20_000)));
    client.ok("SET expiring soon PXAT 33177117420000");
    for at in 1..400 {
        client.ok(&format!("XADD long:stream {at}-{at} a {at} b y{}", "y".repeat(at % 90)));
    }
    client.ok("XGROUP CREATE long:stream g 0");
    client.ok("XREADGROUP GROUP g c COUNT 20 STREAMS long:stream >");
    client.ok("XDEL long:stream 390-390 399-399");
    client.ok("XGROUP CREATE empty:stream g $ MKSTREAM");
    client.ok("XGROUP CREATECONSUMER long:stream g idle");
    client.ok("SELECT 3");
    client.ok("SET other database");
    client.ok("SELECT 0");
    let code = "#!lua name=lib\nredis.register_function('f', function() return 42 end)";
    client.call(&["FUNCTION", "LOAD", "REPLACE", code]);
}

fn digest(client: &mut Client) -> String {
    client.ok("DEBUG DIGEST").string()
}

fn assert_holds(server: &Server, expected: &str, what: &str) {
    let mut client = server.client();
    assert_eq!(digest(&mut client), expected, "{what}");
    assert_eq!(client.ok("FCALL f 0").integer(), 42, "{what}");
}

/// A Redis that has written an RDB file and an append-only file, and has ended.
fn ended_redis(preamble: &str) -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().expect("a directory");
    let recipe = redis().with("appendonly", "yes").with("aof-use-rdb-preamble", preamble);
    let mut server = recipe.start_in(home.path());
    let mut client = server.client();
    fill(&mut client);
    client.ok("BGREWRITEAOF");
    let began = Instant::now();
    while !client.ok("INFO persistence").string().contains("aof_rewrite_in_progress:0") {
        assert!(began.elapsed() < PATIENCE, "the rewrite does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    client.ok("SET after rewrite");
    client.call(&["MULTI"]);
    client.call(&["INCR", "counter"]);
    client.call(&["RPUSH", "long:list", "last"]);
    client.call(&["EXEC"]);
    client.ok("SAVE");
    let digest = digest(&mut client);
    server.terminate();
    (home, digest)
}

#[test]
fn the_files_of_redis_are_imported_whole() {
    for preamble in ["yes", "no"] {
        let (home, digest) = ended_redis(preamble);
        for from in ["dump.rdb", "appendonlydir"] {
            let new = home.path().join(format!("new-{from}"));
            done(&["import", shown(&home.path().join(from)), "--into", shown(&new), "--json"]);
            let server = ironkeep().start_in(&new);
            assert_holds(&server, &digest, from);
            let again = tool(&["import", shown(&home.path().join(from)), "--into", shown(&new)]);
            assert_eq!(again.status.code(), Some(1), "a server has it open: {}", text(&again));
        }
        let both = tool(&["import", shown(home.path()), "--into", shown(&home.path().join("new"))]);
        assert!(text(&both).contains("name the one that counts"), "{}", text(&both));
    }
}

#[test]
fn a_start_imports_once_and_leaves_the_files_alone() {
    let (home, digest) = ended_redis("yes");
    let content = || std::fs::read(home.path().join("dump.rdb")).expect("it is there");
    let before = content();
    // What an import has left that was killed before it was durable.
    std::fs::write(home.path().join("IMPORTING"), b"").expect("written");
    std::fs::write(home.path().join("snapshot-0000000000000001.ik"), b"half").expect("written");
    for appendonly in ["yes", "no"] {
        let mut server = ironkeep().with("appendonly", appendonly).start_in(home.path());
        assert_holds(&server, &digest, appendonly);
        assert!(!home.path().join("IMPORTING").exists());
        server.client().ok("SET new 1");
        server.client().ok("SAVE");
        server.kill();
        server.start_again();
        assert_eq!(server.client().ok("GET new").string(), "1", "it is not imported again");
        server.kill();
        for entry in std::fs::read_dir(home.path()).expect("listed").flatten() {
            let name = entry.file_name().into_string().expect("text");
            if ["MANIFEST", "LOCK"].contains(&name.as_str()) || name.ends_with(".ik") {
                std::fs::remove_file(entry.path()).expect("removed");
            }
        }
    }
    assert_eq!(content(), before);
}

#[test]
fn an_old_and_a_torn_append_only_file_are_taken_as_far_as_they_go() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("appendonly.aof");
    let whole = b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n#TS:1\r\n\
        *4\r\n$4\r\nEVAL\r\n$38\r\nreturn redis.call('INCR', KEYS[1]) + 10\r\n$1\r\n1\r\n$1\r\na\r\n";
    // The script's length is counted here, so that nobody else has to.
    let whole =
        String::from_utf8_lossy(whole).replace("$38", &format!("${}", "return redis.call('INCR', KEYS[1]) + 10".len()));
    let open = format!("{whole}*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nDEL\r\n$1\r\na\r\n");
    for (name, bytes, code) in [("whole", &whole[..], 0), ("cut", &open[..open.len() - 3], 2), ("open", &open[..], 2)] {
        std::fs::write(&path, bytes).expect("written");
        let new = home.path().join(name);
        let output = tool(&["import", shown(&path), "--into", shown(&new)]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output));
        let server = ironkeep().start_in(&new);
        let mut client = server.client();
        client.ok("SELECT 2");
        assert_eq!(client.ok("GET a").string(), "2", "{name}");
        if code != 0 {
            let strict = tool(&["import", shown(&path), "--into", shown(&home.path().join("strict")), "--strict"]);
            assert_eq!(strict.status.code(), Some(1), "{}", text(&strict));
            assert!(text(&strict).contains("appendonly.aof is corrupt at offset"), "{}", text(&strict));
        }
    }
    std::fs::write(&path, b"*1\r\n$7\r\nNOTHING\r\n").expect("written");
    let unknown = tool(&["import", shown(&path), "--into", shown(&home.path().join("unknown"))]);
    assert!(text(&unknown).contains("at offset 0: NOTHING: ERR unknown command"), "{}", text(&unknown));
    assert!(!home.path().join("unknown").join("MANIFEST").exists());
}

#[test]
fn keys_of_a_file_are_added_to_a_store_that_is_there() {
    let home = tempfile::tempdir().expect("a directory");
    let redis = redis().start_in(home.path());
    redis.client().ok("MSET a redis b redis");
    redis.client().ok("SAVE");
    let (file, new) = (home.path().join("dump.rdb"), home.path().join("new"));
    std::fs::create_dir(&new).expect("made");
    let mut server = ironkeep().start_in(&new);
    server.client().ok("MSET a ours c ours");
    server.terminate();
    let refused = tool(&["import", shown(&file), "--into", shown(&new)]);
    assert!(text(&refused).contains("--merge"), "{}", text(&refused));
    done(&["import", shown(&file), "--into", shown(&new), "--merge"]);
    server.start_again();
    let mget = server.client().ok("MGET a b c");
    let values: Vec<_> = mget.elements().iter().map(|value| value.string()).collect();
    assert_eq!(values, ["redis", "redis", "ours"]);
}

/// Starts a Redis with this file, and compares.
fn assert_redis_reads(file: &Path, digest: &str) {
    let home = tempfile::tempdir().expect("a directory");
    let is_aof = file.extension().is_some_and(|ending| ending == "aof");
    let name = if is_aof { "appendonly.aof" } else { "dump.rdb" };
    std::fs::copy(file, home.path().join(name)).expect("copied");
    let server = redis().with("appendonly", if is_aof { "yes" } else { "no" }).start_in(home.path());
    assert_holds(&server, digest, shown(file));
}

#[test]
fn redis_reads_what_is_exported_and_keys_go_from_server_to_server() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = ironkeep().start();
    let mut client = server.client();
    fill(&mut client);
    let digest = digest(&mut client);
    let address = format!("127.0.0.1:{}", server.port());
    let dir = server.directory().to_path_buf();
    let path = |name: &str| -> PathBuf { home.path().join(name) };
    for format in ["rdb", "aof"] {
        let live = path(&format!("live.{format}"));
        done(&["export", &address, "--format", format, "--to", shown(&live)]);
        assert_redis_reads(&live, &digest);
        let open = tool(&["export", shown(&dir), "--format", format, "--to", shown(&path("open"))]);
        assert!(text(&open).contains("a server has it open"), "{}", text(&open));
    }
    let target = redis().start();
    let to = format!("127.0.0.1:{}", target.port());
    done(&["import", shown(&path("live.rdb")), "--into", &to]);
    assert_holds(&target, &digest, "keys into a server");
    let twice = tool(&["import", shown(&path("live.rdb")), "--into", &to]);
    assert_eq!(twice.status.code(), Some(1), "{}", text(&twice));
    target.client().ok("FLUSHALL");
    target.client().ok("FUNCTION FLUSH");
    done(&["import", shown(&path("live.aof")), "--into", &to]);
    assert_holds(&target, &digest, "commands into a server");
    server.terminate();
    for format in ["rdb", "aof"] {
        let file = path(&format!("ended.{format}"));
        done(&["export", shown(&dir), "--format", format, "--to", shown(&file)]);
        assert_redis_reads(&file, &digest);
        let again = tool(&["export", shown(&dir), "--format", format, "--to", shown(&file)]);
        assert!(text(&again).contains("is there already"), "{}", text(&again));
    }
}
