//! Point in time: what was kept can be checked beside its server, restored, and repaired, through `kill -9`.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::SetOnDrop;
use support::client::Client;
use support::random::Random;
use support::server::Recipe;
use support::until::wait_until;

fn recipe() -> Recipe {
    Recipe::under_test()
        .with("save", "")
        .with("io-threads", "2")
        .with("enable-debug-command", "yes")
        .with("keep-generations", "10")
        .with("auto-aof-rewrite-percentage", "0")
}

fn tool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironkeep")).args(args).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A figure of `INFO persistence`.
fn figure(client: &mut Client, name: &str) -> u64 {
    let info = client.ok("INFO persistence").string();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a figure");
    line.trim().parse().expect("a number")
}

/// Makes a snapshot. It may have to wait for its turn: that one is in progress is not seen then.
fn snapshot(client: &mut Client) {
    let before = figure(client, "aof_rewrites");
    client.ok("BGREWRITEAOF");
    wait_until("the snapshot ends", || figure(client, "aof_rewrites") > before);
    // It is counted a moment before the next one may begin.
    wait_until("its turn ends", || figure(client, "aof_rewrite_in_progress") == 0);
}

/// What the keyspace held, and until when.
struct Moment {
    time_ms: u64,
    digest: String,
    keys: i64,
}

/// The next write comes later than this moment.
fn moment(client: &mut Client) -> Moment {
    let time = client.ok("TIME");
    let part = |at: usize| -> u64 { time.elements()[at].string().parse().expect("a number") };
    let time_ms = part(0) * 1000 + part(1) / 1000;
    let moment = Moment { time_ms, digest: client.ok("DEBUG DIGEST").string(), keys: client.ok("DBSIZE").integer() };
    std::thread::sleep(Duration::from_millis(3));
    moment
}

fn restored(from: &Path, target: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory");
    let new = home.path().join("new");
    let output = tool(&["restore", shown(from), "--to", target, "--into", shown(&new)]);
    assert!(output.status.success(), "{target}: {}", text(&output));
    (home, new)
}

#[test]
fn every_moment_can_be_restored_through_kills_and_snapshots() {
    let mut server = recipe().start();
    let dir = server.directory().to_path_buf();
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let (mut moments, mut random) = (Vec::new(), Random::new(seed));
    for round in 0..6 {
        let mut client = server.client();
        for at in 0..50 {
            client.ok(&format!("SET key:{} {}", random.below(300), at * round));
            client.ok(&format!("RPUSH list:{} {round} {at}", at % 7));
            client.ok(&format!("HSET hash:{} f{round} {at}", at % 5));
        }
        moments.push(moment(&mut client));
        match round {
            1 | 3 => snapshot(&mut client),
            2 => {
                server.kill();
                server.start_again();
            }
            _ => {}
        }
    }
    let mut client = server.client();
    client.ok("FLUSHALL");
    snapshot(&mut client);
    client.ok("SET after 1");
    let listed = text(&tool(&["restore", shown(&dir), "--list"]));
    assert_eq!(listed.matches("generation:").count(), 4, "{listed}");
    for moment in &moments {
        let (_home, new) = restored(&dir, &moment.time_ms.to_string());
        let server = recipe().start_in(&new);
        let mut client = server.client();
        assert_eq!(client.ok("DBSIZE").integer(), moment.keys);
        assert_eq!(client.ok("DEBUG DIGEST").string(), moment.digest);
    }
    let again = tool(&["restore", shown(&dir), "--to", "1000000000", "--into", shown(&dir.join("old"))]);
    assert!(!again.status.success() && text(&again).contains("no generation reaches"), "{}", text(&again));
    assert_eq!(client.ok("GET after").string(), "1", "the server goes on");
}

/// The files change while they are checked, and nothing that a running server does looks like damage.
#[test]
fn a_check_beside_a_busy_server_finds_nothing() {
    for policy in ["everysec", "always"] {
        let server = recipe().with("appendfsync", policy).with("keep-generations", "1").start();
        let (dir, done) = (server.directory().to_path_buf(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _ends = SetOnDrop(&done);
            for at in 0..2 {
                let (server, done) = (&server, &done);
                scope.spawn(move || {
                    let mut client = server.client();
                    let value = "v".repeat(2000);
                    for n in 0.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        client.call(&["SET", &format!("k{at}:{}", n % 500), &value]);
                    }
                });
            }
            let mut client = server.client();
            for round in 0..12 {
                if round % 3 == 0 {
                    // Refused while the one before goes on.
                    client.line("BGREWRITEAOF");
                }
                let output = tool(&["check", shown(&dir), "--json"]);
                let found = text(&output);
                assert!(output.status.success() && found.contains(r#""live":true"#), "{policy}: {found}");
            }
        });
    }
}

/// The state of the backup.
fn status(client: &mut Client) -> String {
    let fields = client.ok("BACKUP STATUS");
    let at = fields.elements().iter().position(|field| field.text() == b"state").expect("a state");
    fields.elements()[at + 1].string()
}

fn wait_for_state(client: &mut Client, wanted: &str) {
    wait_until(wanted, || status(client) == wanted);
}

/// A backup is the state of its seal, whatever snapshots came in between, and it outlives its server.
#[test]
fn a_backup_is_the_state_of_its_seal() {
    for (log, encrypted) in [("yes", false), ("yes", true), ("no", false)] {
        let keys = tempfile::tempdir().expect("a directory");
        let key = keys.path().join("key");
        std::fs::write(&key, "7".repeat(64)).expect("written");
        let mut recipe = recipe().with("appendonly", log).with("keep-generations", "0");
        if encrypted {
            recipe = recipe.with("encryption-key-file", shown(&key));
        }
        let mut server = recipe.start();
        let mut client = server.client();
        client.ok("SET before 1");
        assert_eq!(status(&mut client), "idle");
        assert!(client.call(&["BACKUP", "SEAL"]).starts_with(b"-ERR"));
        client.ok("BACKUP START");
        assert!(client.call(&["BACKUP", "START"]).starts_with(b"-ERR"));
        wait_for_state(&mut client, "incrementing");
        assert!(client.ok("INFO persistence").string().contains("backup_in_progress:1"));
        assert_eq!(client.ok("BACKUP LIST").elements().len(), 1);
        for round in 0..3 {
            client.ok(&format!("SET during:{round} {round}"));
            client.ok("RPUSH list a b c");
            snapshot(&mut client);
        }
        client.ok("DEL before");
        let digest = client.ok("DEBUG DIGEST").string();
        client.ok("BACKUP SEAL");
        client.ok("SET after 1");
        assert_eq!(status(&mut client), "sealed");
        let files = client.ok("BACKUP LIST");
        let files: Vec<PathBuf> = files.elements().iter().map(|file| PathBuf::from(file.string())).collect();
        assert!(files.iter().all(|file| file.is_absolute() && file.exists()), "{files:?}");
        // The server goes on, makes snapshots, and recycles what only it needs.
        for round in 0..4 {
            client.ok(&format!("SET later:{round} {round}"));
            snapshot(&mut client);
        }
        let backup = server.directory().join("backupdir");
        let mut args = vec!["check", shown(&backup), "--load"];
        if encrypted {
            args.extend(["--encryption-key-file", shown(&key)]);
        }
        let checked = tool(&args);
        assert!(checked.status.success(), "log {log}: {}", text(&checked));
        server.kill();
        server.start_again();
        let mut client = server.client();
        assert_eq!(client.ok("DBSIZE").integer(), 4 + 1 + 4, "three and the list, one after it, four later");
        assert_eq!(status(&mut client), "sealed");
        let of_backup = server.recipe().clone().start_in(&backup);
        let mut its_client = of_backup.client();
        assert_eq!(its_client.ok("DEBUG DIGEST").string(), digest, "log {log}");
        drop(of_backup);
        client.ok("BACKUP CLEANUP");
        assert_eq!((status(&mut client), client.ok("BACKUP LIST").elements().len()), ("idle".into(), 0));
        // The server that ran there has left its own files.
        std::fs::remove_dir_all(&backup).expect("removed");
        client.ok("BACKUP START");
        client.ok("BACKUP ABORT");
        assert_eq!(status(&mut client), "failed");
    }
}

/// The scrub finds what the disk has forgotten, and a new snapshot mends it.
#[test]
fn the_scrub_finds_a_changed_byte_while_the_server_runs() {
    let server = recipe().with("scrub-interval", "1").start();
    let mut client = server.client();
    client.call(&["SET", "k", &"v".repeat(100_000)]);
    snapshot(&mut client);
    // The time is noted behind the count.
    for name in ["scrub_passes", "scrub_bytes", "scrub_last_time"] {
        wait_until(name, || figure(&mut client, name) > 0);
    }
    assert_eq!(figure(&mut client, "scrub_faults"), 0);
    let path = server.directory().join("snapshot-0000000000000001.ik");
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    wait_until("scrub_faults", || figure(&mut client, "scrub_faults") > 0);
    // It is told behind the count.
    wait_until("the fault is told", || server.log().contains("The scrub found a fault in "));
    snapshot(&mut client);
    assert!(tool(&["repair", shown(server.directory()), "--into", "/nowhere"]).status.code() == Some(1), "in use");
}

/// Damage is refused by a start, told by a check, and a repair brings back all that can be proven.
#[test]
fn a_repaired_directory_serves_what_can_be_proven() {
    let mut server = recipe().start();
    let dir = server.directory().to_path_buf();
    let mut client = server.client();
    client.ok("MSET a 1 b 2");
    snapshot(&mut client);
    client.ok("SET c 3");
    snapshot(&mut client);
    client.ok("SET d 4");
    server.kill();
    let newest = std::fs::read_dir(&dir).expect("listed").flatten().map(|entry| entry.path());
    let newest = newest.filter(|path| shown(path).contains("snapshot-")).max().expect("a snapshot");
    let mut bytes = std::fs::read(&newest).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, &bytes).expect("written");
    let checked = tool(&["check", shown(&dir)]);
    assert_eq!(checked.status.code(), Some(2), "{}", text(&checked));
    assert!(text(&checked).contains(shown(newest.file_name().expect("a name").as_ref())), "{}", text(&checked));
    let new = dir.join("new");
    let repaired = tool(&["repair", shown(&dir), "--into", shown(&new)]);
    // The snapshot before it and the log give everything.
    assert!(repaired.status.success() && text(&repaired).contains("nothing that was found is lost"), "{repaired:?}");
    let server = recipe().start_in(&new);
    let mut client = server.client();
    assert_eq!(client.ok("DBSIZE").integer(), 4);
    assert_eq!(client.ok("GET d").string(), "4");
}
