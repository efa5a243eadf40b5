//! A server with `cluster-enabled yes` as an operator and as cluster clients meet it: the same node after every crash,
//! refusals at the start, and counts of slots beside clients that write.

mod support;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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
fn refusal(directory: &std::path::Path) -> String {
    let log = fs::File::create(directory.join("refusal.log")).expect("a writable directory");
    let mut command: Command = recipe("1").command(directory, free_port());
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
