//! A server with `cluster-enabled yes` as an operator and as cluster clients meet it: the same node after every crash,
//! refusals at the start, and counts of slots beside clients that write.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::SetOnDrop;
use support::client::Client;
use support::server::{Recipe, free_port, wait};

fn recipe(threads: &str) -> Recipe {
    Recipe::under_test().with("cluster-enabled", "yes").with("save", "").with("io-threads", threads)
}

fn text(client: &mut Client, words: &[&str]) -> String {
    String::from_utf8(client.call(words)).expect("ASCII").replace("\r\n", " ")
}

#[test]
fn the_node_and_its_epochs_survive_crashes() {
    let mut server = recipe("2").start();
    let identity =
        |client: &mut Client| [&["CLUSTER", "MYID"][..], &["CLUSTER", "MYSHARDID"]].map(|words| text(client, words));
    let first = identity(&mut server.client());
    for round in 1..=3 {
        let mut client = server.client();
        assert_eq!(text(&mut client, &["CLUSTER", "RESET", "SOFT"]), "+OK ");
        if round == 2 {
            assert_eq!(text(&mut client, &["CLUSTER", "BUMPEPOCH"]), "+BUMPED 1 ");
        }
        server.kill();
        server.start_again();
        let mut client = server.client();
        assert_eq!(identity(&mut client), first);
        let epoch = format!("cluster_my_epoch:{}", u8::from(round > 1));
        assert!(text(&mut client, &["CLUSTER", "INFO"]).contains(&epoch), "round {round}");
    }
    assert_eq!(text(&mut server.client(), &["CLUSTER", "RESET", "HARD"]), "+OK ");
    let second = identity(&mut server.client());
    assert_ne!(second[0], first[0]);
    server.kill();
    server.start_again();
    assert_eq!(identity(&mut server.client()), second, "the new node is kept, too");
}

#[test]
fn a_node_comes_from_a_file_of_redis() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let id = "abaf06b2d79aec5b7aa0e6fb348e1b50260dbc8c";
    let line =
        format!("{id} :7000@17000 myself,master - 0 0 3 connected 0-16383\nvars currentEpoch 5 lastVoteEpoch 0\n");
    fs::write(directory.path().join("my-nodes.conf"), line).expect("a writable directory");
    let server = recipe("1").with("cluster-config-file", "my-nodes.conf").start_in(directory.path());
    let mut client = server.client();
    assert_eq!(text(&mut client, &["CLUSTER", "MYID"]), format!("$40 {id} "));
    let info = text(&mut client, &["CLUSTER", "INFO"]);
    assert!(info.contains("cluster_current_epoch:5 ") && info.contains("cluster_my_epoch:3 "), "{info}");
}

/// What a start on the directory says that is refused.
fn refusal(directory: &Path) -> String {
    refusal_of(&recipe("1"), directory)
}

fn refusal_of(recipe: &Recipe, directory: &Path) -> String {
    let log = fs::File::create(directory.join("refusal.log")).expect("a writable directory");
    let mut command: Command = recipe.command(directory, free_port());
    let errors = log.try_clone().expect("a second handle");
    let mut child = command.stdout(log).stderr(errors).spawn().expect("the program starts");
    let status = wait(&mut child).expect("it ends by itself");
    assert!(!status.success());
    fs::read_to_string(directory.join("refusal.log")).expect("text")
}

#[test]
fn what_cannot_be_a_cluster_of_one_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let nodes = directory.path().join("nodes.conf");
    for (content, why) in [
        ("garbage", "is not of a node"),
        ("abaf06b2d79aec5b7aa0e6fb348e1b50260dbc8c 1.2.3.4:7000@17000 master - 0 0 3 connected", "another node"),
    ] {
        fs::write(&nodes, content).expect("a writable directory");
        let said = refusal(directory.path());
        assert!(said.contains("nodes.conf") && said.contains(why), "{content}: {said}");
        assert_eq!(fs::read_to_string(&nodes).expect("it is there"), content, "nothing is written over it");
    }
    fs::remove_file(&nodes).expect("it is there");

    let mut plain = Recipe::under_test().with("save", "").start_in(directory.path());
    let mut client = plain.client();
    assert_eq!(text(&mut client, &["SELECT", "3"]), "+OK ");
    assert_eq!(text(&mut client, &["SET", "k", "v"]), "+OK ");
    plain.kill();
    let said = refusal(directory.path());
    assert!(said.contains("database 3 has keys") || said.contains("database 3: has keys"), "{said}");
    plain.start_again();
    let mut client = plain.client();
    assert_eq!(text(&mut client, &["FLUSHALL"]), "+OK ");
    assert_eq!(text(&mut client, &["SET", "k", "v"]), "+OK ");
    plain.kill();
    // The log still tells of database 3, which is empty.
    let server = recipe("1").start_in(directory.path());
    assert_eq!(text(&mut server.client(), &["GET", "k"]), "$1 v ");
}

/// Keys of one slot stay while others come and go; every count is exact, and so is every list.
#[test]
fn slots_are_counted_beside_clients_that_write() {
    for threads in ["1", "2", "4"] {
        let server = recipe(threads).start();
        let mut client = server.client();
        for number in 0..100 {
            assert_eq!(text(&mut client, &["SET", &format!("{{a}}{number}"), "v"]), "+OK ");
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let _ends = SetOnDrop(&done);
            for writer in 0..3 {
                let (server, done) = (&server, &done);
                scope.spawn(move || {
                    let mut client = server.client();
                    let mut number = 0;
                    while !done.load(Ordering::Relaxed) {
                        let key = format!("{writer}:{}", number % 500);
                        client.call(if number % 3 == 0 { ["DEL", &key, &key] } else { ["SET", &key, "x"] }.as_slice());
                        number += 1;
                    }
                });
            }
            for _ in 0..30 {
                assert_eq!(text(&mut client, &["CLUSTER", "COUNTKEYSINSLOT", "15495"]), ":100 ");
                let keys = text(&mut client, &["CLUSTER", "GETKEYSINSLOT", "15495", "1000"]);
                assert!(keys.starts_with("*100 "), "{keys}");
                let stats = text(&mut client, &["CLUSTER", "SLOT-STATS", "SLOTSRANGE", "15495", "15495"]);
                assert_eq!(stats, "*1 *2 :15495 *2 $9 key-count :100 ");
            }
        });
    }
}

/// A server that was none of a cluster before: its log tells of databases that are empty now.
#[test]
fn a_log_that_tells_of_other_databases_is_loaded_anew() {
    let with_log = |recipe: Recipe| recipe.with("appendonly", "yes").with("enable-debug-command", "yes");
    let mut server = with_log(Recipe::under_test().with("save", "")).start();
    let mut client = server.client();
    for line in ["SELECT 3", "SET a 1", "FLUSHDB", "SELECT 0", "SET b 1", "BLESS SET b NO-EVICT"] {
        client.ok(line);
    }
    server.kill();
    server.set_recipe(with_log(recipe("2")));
    server.start_again();
    let mut client = server.client();
    client.ok("SET {b} 1");
    for how in ["LOADAOF", "RELOAD NOSAVE", "RELOAD NOSAVE NOFLUSH MERGE", "RELOAD", "LOADAOF"] {
        client.ok(&format!("DEBUG {how}"));
        assert_eq!(text(&mut client, &["MGET", "b", "{b}"]), "*2 $1 1 $1 1 ", "{how}");
        assert_eq!(text(&mut client, &["BLESS", "GET", "b"]), "*1 $8 NO-EVICT ", "{how}");
    }
}

fn served_while_loading(recipe: Recipe) -> Recipe {
    recipe.with("serve-while-loading-min-size", "0")
}

fn wait_for(client: &mut Client, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !text(client, &["INFO", "persistence"]).contains(line) {
        assert!(Instant::now() < deadline, "{line}");
        thread::sleep(Duration::from_millis(5));
    }
}

const KEYS: usize = 3000;

/// Writes keys into a snapshot and into the log behind it.
fn fill(client: &mut Client) {
    for at in 0..KEYS {
        client.ok(&format!("SET key:{at} {at}"));
    }
    for at in 0..50 {
        client.ok(&format!("SET {{o}}:{at} {at}"));
    }
    client.ok("BGREWRITEAOF");
    wait_for(client, "aof_rewrites:1 ");
    wait_for(client, "aof_rewrite_in_progress:0 ");
    for at in (0..KEYS).step_by(30) {
        client.ok(&format!("APPEND key:{at} !"));
    }
}

fn expected(at: usize) -> String {
    format!("{at}{}", if at.is_multiple_of(30) { "!" } else { "" })
}

/// A node of a cluster used to load all keys before it served.
#[test]
fn keys_are_served_while_they_are_loaded() {
    let mut server = served_while_loading(recipe("2")).start();
    fill(&mut server.client());
    server.kill();
    server.set_recipe(served_while_loading(recipe("2")).with("key-load-delay", "50000"));
    server.start_again();
    let mut client = server.client();
    for at in [0, 30, 31, 2999] {
        assert_eq!(client.ok(&format!("GET key:{at}")).string(), expected(at));
    }
    client.ok("SET key:5 changed");
    assert!(text(&mut client, &["MGET", "key:1", "key:2"]).starts_with("-CROSSSLOT"));
    assert_eq!(text(&mut client, &["SELECT", "3"]), "-ERR SELECT is not allowed in cluster mode ");
    let slots = text(&mut client, &["CLUSTER", "SLOTS"]);
    assert!(slots.starts_with("*1 *3 :0 :16383 "), "{slots}");
    let info = text(&mut client, &["INFO", "persistence"]);
    assert!(info.contains("async_loading:1 "), "all of that while the rest is loaded: {info}");
    server.kill();
    // What needs every key waits for every key.
    for question in ["CLUSTER COUNTKEYSINSLOT 7497", "CLUSTER RESET HARD", "DBSIZE"] {
        server.set_recipe(served_while_loading(recipe("2")).with("key-load-delay", "200"));
        server.start_again();
        let mut client = server.client();
        let reply = text(&mut client, &question.split(' ').collect::<Vec<_>>());
        let right = match question {
            "DBSIZE" => format!(":{} ", KEYS + 50),
            "CLUSTER RESET HARD" => "-ERR CLUSTER RESET can't be called with master nodes containing keys ".to_owned(),
            _ => ":50 ".to_owned(),
        };
        assert_eq!(reply, right, "{question}");
        server.kill();
    }
    server.set_recipe(served_while_loading(recipe("2")));
    server.start_again();
    let mut client = server.client();
    for at in (0..KEYS).filter(|at| *at != 5) {
        assert_eq!(client.ok(&format!("GET key:{at}")).string(), expected(at));
    }
    assert_eq!(client.ok("GET key:5").string(), "changed");
}

#[test]
fn damage_concerns_its_shard_and_what_needs_every_key() {
    let mut server = served_while_loading(recipe("2")).start();
    fill(&mut server.client());
    server.kill();
    let entries = fs::read_dir(server.directory()).expect("listed").flatten().map(|entry| entry.path());
    let snapshot = entries.into_iter().find(|path| path.to_string_lossy().contains("snapshot-")).expect("there is one");
    let mut bytes = fs::read(&snapshot).expect("read");
    let quarter = bytes.len() / 4;
    bytes[quarter] ^= 1;
    fs::write(&snapshot, &bytes).expect("written");
    server.start_again();
    let mut client = server.client();
    wait_for(&mut client, "async_loading:0 ");
    wait_for(&mut client, "loading_damaged_shards:1 ");
    let replies: Vec<String> = (0..KEYS).map(|at| text(&mut client, &["GET", &format!("key:{at}")])).collect();
    let damaged = replies.iter().filter(|reply| reply.starts_with("-LOADERR shard ")).count();
    assert!((1..100).contains(&damaged) && replies.iter().all(|reply| reply.starts_with(['-', '$'])), "{damaged}");
    for question in [
        "CLUSTER COUNTKEYSINSLOT 1",
        "CLUSTER GETKEYSINSLOT 1 10",
        "CLUSTER SLOT-STATS SLOTSRANGE 0 1",
        "CLUSTER RESET",
        "DBSIZE",
    ] {
        let reply = text(&mut client, &question.split(' ').collect::<Vec<_>>());
        assert!(reply.starts_with("-LOADERR shard "), "{question}: {reply}");
    }
    assert_eq!(text(&mut client, &["CLUSTER", "KEYSLOT", "{o}"]), ":7497 ");
}

/// Keys of other databases are refused at the start, whether a snapshot or the log tells of them.
#[test]
fn keys_of_other_databases_are_refused_before_anything_is_served() {
    for in_snapshot in [true, false] {
        let mut server = Recipe::under_test().with("save", "").start();
        let mut client = server.client();
        fill(&mut client);
        client.ok("SELECT 3");
        for at in 0..if in_snapshot { KEYS } else { 1 } {
            client.ok(&format!("SET other:{at} 1"));
        }
        if in_snapshot {
            client.ok("BGREWRITEAOF");
            wait_for(&mut client, "aof_rewrites:2 ");
            wait_for(&mut client, "aof_rewrite_in_progress:0 ");
        }
        server.kill();
        let said = refusal_of(&served_while_loading(recipe("1")), server.directory());
        assert!(said.contains("database 3 has keys"), "{said}");
    }
}
