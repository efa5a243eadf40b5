//! UNFLUSH on a whole server: through `kill -9`, snapshots, transactions and load; and that memory comes back in time.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::SetOnDrop;
use support::client::{Client, encode};
use support::server::Recipe;

fn recipe() -> Recipe {
    Recipe::under_test()
        .with("save", "")
        .with("io-threads", "2")
        .with("enable-debug-command", "yes")
        .with("auto-aof-rewrite-percentage", "0")
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A field of INFO.
fn figure(client: &mut Client, name: &str) -> u64 {
    let info = client.ok("INFO everything").string();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {info}"))
}

fn snapshot(client: &mut Client) {
    client.ok("BGREWRITEAOF");
    wait_until("the snapshot ends", || figure(client, "aof_rewrite_in_progress") == 0);
}

/// Writes this many keys with values of so many bytes.
fn fill(client: &mut Client, keys: usize, bytes: usize) {
    let value = "v".repeat(bytes);
    for first in (0..keys).step_by(500) {
        let part: Vec<usize> = (first..keys.min(first + 500)).collect();
        let sent: Vec<u8> = part.iter().flat_map(|at| encode(&["SET", &format!("key:{at}"), &value])).collect();
        client.send(&sent).expect("sent");
        part.iter().for_each(|_| assert_eq!(client.receive().expect("a reply"), b"+OK\r\n"));
    }
}

#[test]
fn a_flush_can_be_undone_after_kill_nine_and_a_snapshot() {
    for serves in ["no", "yes"] {
        for with_snapshot in [false, true] {
            let what = format!("serve-while-loading {serves}, snapshot {with_snapshot}");
            let its = recipe().with("serve-while-loading", serves).with("serve-while-loading-min-size", "0");
            let mut server = its.with("flush-undo-seconds", "3600").start();
            let mut client = server.client();
            fill(&mut client, 2000, 20);
            client.ok("RPUSH list a b c");
            client.ok("EXPIRE key:1 10000");
            if with_snapshot {
                snapshot(&mut client);
            }
            client.ok("SELECT 3");
            client.ok("HSET hash f v");
            let digest = client.ok("DEBUG DIGEST").string();
            client.ok("FLUSHALL");
            client.ok("SET key:5 new");
            if with_snapshot {
                snapshot(&mut client);
                server.kill();
                let mut check = Command::new(env!("CARGO_BIN_EXE_ironkeep"));
                let checked = check.arg("check").arg(server.directory()).arg("--load").output().expect("it runs");
                let text = String::from_utf8_lossy(&checked.stdout).into_owned();
                assert!(checked.status.success() && text.contains("loaded: 1 keys"), "{text}");
                server.start_again();
                server.client().ok("SET key:6 new");
            }
            server.kill();
            server.start_again();
            let mut client = server.client();
            client.ok("SELECT 3");
            assert_eq!(client.ok("DBSIZE").integer(), 1, "{what}");
            assert!(client.line("UNFLUSH").is_error(), "{what}");
            assert_eq!(figure(&mut client, "flush_undo_keys"), 2002, "{what}");
            assert_eq!(client.ok("UNFLUSH REPLACE").integer(), 2002, "{what}");
            assert_eq!(client.ok("DEBUG DIGEST").string(), digest, "{what}");
            server.kill();
            server.start_again();
            let mut client = server.client();
            assert_eq!(client.ok("DEBUG DIGEST").string(), digest, "{what}: undone for good");
            assert_eq!(figure(&mut client, "flush_undo_keys"), 0, "{what}");
        }
    }
}

/// What a start has to read does not grow by what nobody can bring back.
#[test]
fn flushes_that_are_over_are_loaded_as_nothing() {
    let its = recipe().with("serve-while-loading-min-size", "0").with("flush-undo-seconds", "3600");
    let mut server = its.start();
    let mut client = server.client();
    for round in 0..4 {
        fill(&mut client, 300, 20);
        client.ok(&format!("RENAME key:1 round:{round}"));
        if round == 1 {
            snapshot(&mut client);
        }
        client.ok("FLUSHALL");
        client.ok(&format!("SET key:1 {round}"));
        if round < 3 {
            // What is kept is dropped at once, and logged as such.
            client.ok("CONFIG SET flush-undo-seconds 0");
            wait_until("it is forgotten", || figure(&mut client, "flush_undo_flushes") == 0);
            client.ok("CONFIG SET flush-undo-seconds 3600");
        }
    }
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("GET key:1").string(), "3");
    assert_eq!(client.ok("DBSIZE").integer(), 1);
    assert_eq!(client.ok("UNFLUSH MERGE").integer(), 300);
    assert_eq!(client.ok("EXISTS round:3 round:2 round:1").integer(), 1);
    let digest = client.ok("DEBUG DIGEST").string();
    server.kill();
    server.start_again();
    assert_eq!(server.client().ok("DEBUG DIGEST").string(), digest);
}

#[test]
fn memory_comes_back_when_the_time_is_over() {
    let server = recipe().with("flush-undo-seconds", "3600").start();
    let mut client = server.client();
    let empty = figure(&mut client, "used_memory");
    fill(&mut client, 40_000, 200);
    let filled = figure(&mut client, "used_memory") - empty;
    client.ok("FLUSHALL");
    let info = ["flush_undo_flushes", "flush_undo_keys"].map(|name| figure(&mut client, name));
    let (kept, until) = (figure(&mut client, "flush_undo_bytes"), figure(&mut client, "flush_undo_until"));
    assert_eq!(info, [1, 40_000]);
    assert!(kept > filled / 2 && kept < filled * 2, "{kept} of {filled}");
    assert!(until > 1_700_000_000, "{until}");
    assert_eq!(client.ok("UNFLUSH").integer(), 40_000);
    client.ok("CONFIG SET flush-undo-seconds 2");
    let flushed = Instant::now();
    client.ok("FLUSHALL");
    let is_kept = figure(&mut client, "flush_undo_keys") == 40_000;
    assert!(is_kept || flushed.elapsed() > Duration::from_secs(2), "for two seconds");
    wait_until("the keys are freed", || figure(&mut client, "used_memory") < empty + filled / 4);
    assert_eq!(figure(&mut client, "flush_undo_keys"), 0);
    assert!(client.line("UNFLUSH").is_error());
}

#[test]
fn after_the_time_the_command_of_the_error_restores_the_keys() {
    let server = recipe().with("flush-undo-seconds", "3600").start();
    let mut client = server.client();
    fill(&mut client, 100, 10);
    let digest = client.ok("DEBUG DIGEST").string();
    client.ok("FLUSHALL");
    client.ok("CONFIG SET flush-undo-seconds 0");
    wait_until("it is forgotten", || figure(&mut client, "flush_undo_flushes") == 0);
    let error = client.line("UNFLUSH");
    let error = String::from_utf8_lossy(error.text()).into_owned();
    let typed = error.split_once("ironkeep restore ").map(|(_, rest)| rest.trim()).unwrap_or_else(|| panic!("{error}"));
    let home = tempfile::tempdir().expect("a directory");
    let new = home.path().join("new");
    let args: Vec<&str> =
        typed.split(' ').map(|word| if word == "NEW" { new.to_str().expect("text") } else { word }).collect();
    assert!(args.contains(&"--to") && typed.contains("block:"), "{typed}");
    let done = Command::new(env!("CARGO_BIN_EXE_ironkeep")).arg("restore").args(&args).output().expect("it runs");
    assert!(done.status.success(), "{typed}: {}", String::from_utf8_lossy(&done.stderr));
    let restored = recipe().start_in(&new);
    assert_eq!(restored.client().ok("DEBUG DIGEST").string(), digest);
}

#[test]
fn transactions_and_scripts_flush_and_undo() {
    let server = recipe().with("exec-rollback", "yes").start();
    let mut client = server.client();
    fill(&mut client, 50, 10);
    let digest = client.ok("DEBUG DIGEST").string();
    client.ok("RPUSH list a");
    let with_list = client.ok("DEBUG DIGEST").string();
    for line in ["MULTI", "FLUSHALL", "SET list text", "LPUSH list b"] {
        client.ok(line);
    }
    assert!(client.line("EXEC").is_error());
    assert_eq!(client.ok("DEBUG DIGEST").string(), with_list, "taken back");
    assert_eq!(figure(&mut client, "flush_undo_flushes"), 0);
    for line in ["DEL list", "MULTI", "FLUSHDB", "EXEC"] {
        client.ok(line);
    }
    assert_eq!(client.ok("UNFLUSH").integer(), 50);
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
    client.ok("EVAL \"redis.call('FLUSHALL') return redis.call('SET', 'key:1', 'script')\" 0");
    assert_eq!(client.ok("EVAL \"return redis.call('UNFLUSH', 'REPLACE')\" 0").integer(), 50);
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
    assert!(client.line("EVAL \"redis.call('FLUSHALL') error('no')\" 0").is_error());
    assert_eq!(client.ok("UNFLUSH").integer(), 50, "what a script has done stays, and so does the way back");
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
    client.ok("MULTI");
    client.ok("FLUSHALL");
    client.ok("UNFLUSH");
    let replies = client.ok("EXEC");
    assert_eq!(replies.elements()[1].integer(), 50);
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
    client.ok("FLUSHALL");
    client.ok("DEBUG RELOAD");
    assert_eq!(client.ok("UNFLUSH").integer(), 50, "a reload keeps it");
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
}

#[test]
fn who_waits_for_a_key_that_comes_back_is_served() {
    let server = recipe().start();
    let (mut client, mut waits) = (server.client(), server.client());
    client.ok("RPUSH list a b");
    client.ok("FLUSHALL");
    waits.send(&encode(&["BLPOP", "list", "0"])).expect("sent");
    wait_until("it waits", || figure(&mut client, "blocked_clients") == 1);
    assert_eq!(client.ok("UNFLUSH").integer(), 1);
    assert_eq!(waits.receive().expect("a reply"), b"*2\r\n$4\r\nlist\r\n$1\r\na\r\n");
    assert_eq!(client.ok("LLEN list").integer(), 1);
}

#[test]
fn who_has_cached_keys_is_told() {
    let server = recipe().start();
    let (mut client, mut caches) = (server.client(), server.client());
    client.ok("SET k 1");
    client.ok("FLUSHALL");
    caches.ok("HELLO 3");
    caches.ok("CLIENT TRACKING ON");
    caches.call(&["GET", "k"]);
    client.ok("UNFLUSH");
    assert_eq!(caches.receive().expect("a push"), b">2\r\n$10\r\ninvalidate\r\n_\r\n");
}

#[test]
fn memory_that_is_short_goes_before_any_key_or_write() {
    for policy in ["noeviction", "allkeys-lru"] {
        let server = recipe().with("flush-undo-seconds", "3600").with("maxmemory-policy", policy).start();
        let mut client = server.client();
        let empty = figure(&mut client, "used_memory");
        fill(&mut client, 20_000, 500);
        let filled = figure(&mut client, "used_memory");
        client.ok("FLUSHALL");
        client.ok(&format!("CONFIG SET maxmemory {}", filled + (filled - empty) / 4));
        assert_eq!(figure(&mut client, "flush_undo_keys"), 20_000, "{policy}");
        fill(&mut client, 20_000, 500);
        assert_eq!(figure(&mut client, "flush_undo_keys"), 0, "{policy}");
        assert_eq!(figure(&mut client, "evicted_keys"), 0, "{policy}");
        assert_eq!(client.ok("DBSIZE").integer(), 20_000, "{policy}");
    }
}

#[test]
fn only_who_may_flush_may_undo() {
    let server = recipe().start();
    let mut client = server.client();
    client.ok("SET k 1");
    client.ok("FLUSHALL");
    client.ok("ACL SETUSER some on nopass ~* +@all -@dangerous");
    let mut some = server.client();
    some.ok("AUTH some none");
    let denied = some.line("UNFLUSH");
    assert!(denied.text().starts_with(b"NOPERM"), "{denied:?}");
    assert_eq!(client.ok("UNFLUSH").integer(), 1);
}

#[test]
fn a_cluster_of_one_node_undoes_as_well() {
    let mut server = recipe().with("cluster-enabled", "yes").with("flush-undo-seconds", "3600").start();
    let mut client = server.client();
    fill(&mut client, 100, 10);
    client.ok("FLUSHALL");
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("UNFLUSH").integer(), 100);
    let slot = client.ok("CLUSTER KEYSLOT key:7").integer();
    assert!(client.ok(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).integer() > 0);
}

/// Each writer writes keys of its own and none twice. Whatever is flushed and brought back among them, none is lost,
/// live or after a crash.
#[test]
fn nothing_is_lost_under_load() {
    let mut server = recipe().with("io-threads", "4").with("flush-undo-seconds", "3600").start();
    let (stop, written) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&stop);
        for (number, written) in written.iter().enumerate() {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut client = server.client();
                while !stop.load(Ordering::Relaxed) {
                    let next = written.load(Ordering::Relaxed);
                    client.ok(&format!("MSET w{number}:{next} {next} other{number}:{next} x"));
                    written.store(next + 1, Ordering::Relaxed);
                }
            });
        }
        let mut client = server.client();
        for round in 0..60 {
            let before = written.each_ref().map(|written| written.load(Ordering::Relaxed));
            let has_written = |(now, before): (&AtomicU64, &u64)| now.load(Ordering::Relaxed) > *before;
            wait_until("every writer writes", || written.iter().zip(&before).all(has_written));
            client.ok(if round % 3 == 0 { "FLUSHDB" } else { "FLUSHALL" });
            if round % 10 == 5 {
                snapshot(&mut client);
            }
            if round % 4 == 1 {
                client.ok("FLUSHALL");
                client.line("UNFLUSH MERGE");
            }
            client.line("UNFLUSH MERGE");
        }
    });
    let mut client = server.client();
    // A flush of nothing leaves nothing to undo, so that one more may be left.
    while !client.line("UNFLUSH MERGE").is_error() {}
    let all: u64 = written.iter().map(|written| written.load(Ordering::Relaxed)).sum();
    assert!(all > 100, "hardly any load: {all}");
    assert_eq!(client.ok("DBSIZE").integer() as u64, 2 * all);
    let digest = client.ok("DEBUG DIGEST").string();
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
    for (number, written) in written.iter().enumerate() {
        let last = written.load(Ordering::Relaxed) - 1;
        assert_eq!(client.ok(&format!("GET w{number}:{last}")).string(), last.to_string());
    }
}

#[test]
fn what_can_be_undone_is_encrypted_like_the_keys() {
    let home = tempfile::tempdir().expect("a directory");
    let key = home.path().join("key");
    std::fs::write(&key, "7".repeat(64)).expect("written");
    let its = recipe().with("encryption-key-file", key.to_str().expect("text")).with("flush-undo-seconds", "3600");
    let mut server = its.start();
    let mut client = server.client();
    client.ok("SET topsecretkey topsecretvalue");
    client.ok("FLUSHALL");
    snapshot(&mut client);
    client.ok("SET topsecretkey2 topsecretvalue");
    client.ok("FLUSHDB");
    server.kill();
    for file in std::fs::read_dir(server.directory()).expect("the data directory") {
        let path = file.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("readable");
        assert!(!bytes.windows(9).any(|window| window == b"topsecret"), "{}", path.display());
    }
    server.start_again();
    let mut client = server.client();
    assert_eq!((client.ok("UNFLUSH").integer(), client.ok("UNFLUSH MERGE").integer()), (1, 1));
    assert_eq!(client.ok("GET topsecretkey").string(), "topsecretvalue");
}
