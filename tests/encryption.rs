//! Encryption at rest: nothing that a client sent is readable in the directory, and nothing is lost by it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::client::Client;
use support::server::{Recipe, Server, free_port};
use support::until::wait_until;

/// Parts of all that the clients send.
const SECRETS: [&str; 4] = ["topsecretkey", "topsecretvalue", "topsecretfield", "topsecretcode"];

/// A directory with a file of keys, each of one digit.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new(digits: &str) -> Keys {
        let keys = Keys(tempfile::tempdir().expect("a directory"));
        keys.set(digits);
        keys
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("keys")
    }

    fn set(&self, digits: &str) {
        let lines: String = digits.chars().map(|digit| digit.to_string().repeat(64) + "\n").collect();
        fs::write(self.path(), lines).expect("written");
    }

    fn recipe(&self) -> Recipe {
        plain().with("encryption-key-file", self.path().to_str().expect("text"))
    }
}

fn plain() -> Recipe {
    Recipe::under_test().with("save", "").with("io-threads", "2").with("enable-debug-command", "yes")
}

/// Every kind of value, in the snapshot and in the log behind it.
fn fill(client: &mut Client, from: usize) {
    for at in from..from + 50 {
        client.ok(&format!("SET topsecretkey:{at} topsecretvalue{at} EX 100000"));
        client.ok(&format!("HSET topsecretkey:h{at} topsecretfield topsecretvalue"));
        client.ok(&format!("RPUSH topsecretkey:l topsecretvalue{at}"));
        client.ok(&format!("SADD topsecretkey:s topsecretvalue{at}"));
        client.ok(&format!("ZADD topsecretkey:z {at} topsecretvalue{at}"));
        client.ok(&format!("XADD topsecretkey:x * topsecretfield topsecretvalue{at}"));
    }
    client.call(&["SET", &format!("topsecretkey:large{from}"), &"topsecretvalue".repeat(100_000)]);
    let code = "#!lua name=topsecretcode\nredis.register_function('topsecretcode', function() return 1 end)";
    client.call(&["FUNCTION", "LOAD", "REPLACE", code]);
}

fn figure(client: &mut Client, name: &str) -> u64 {
    let info = client.ok("INFO persistence").string();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a figure");
    line.trim().parse().expect("a number")
}

fn snapshot(client: &mut Client) {
    let before = figure(client, "aof_rewrites");
    client.ok("BGREWRITEAOF");
    wait_until("the snapshot ends", || figure(client, "aof_rewrites") > before);
    // It is counted a moment before the next one may begin.
    wait_until("its turn ends", || figure(client, "aof_rewrite_in_progress") == 0);
}

fn digest(client: &mut Client) -> String {
    client.ok("DEBUG DIGEST").string()
}

/// What of the secrets stands in which file.
fn told(directory: &Path) -> Vec<String> {
    let mut told = Vec::new();
    for entry in fs::read_dir(directory).expect("listed").flatten() {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        let found = SECRETS.iter().filter(|secret| memchr::memmem::find(&bytes, secret.as_bytes()).is_some());
        told.extend(found.map(|secret| format!("{secret} in {}", entry.file_name().display())));
    }
    told
}

#[test]
fn nothing_is_readable_and_nothing_is_lost_through_kill_nine() {
    let keys = Keys::new("1");
    for policy in ["always", "everysec"] {
        let mut server = keys.recipe().with("appendfsync", policy).start();
        let mut client = server.client();
        assert!(client.ok("INFO persistence").string().contains("encrypted:1"));
        for round in 0..3 {
            fill(&mut client, round * 50);
            if round < 2 {
                snapshot(&mut client);
            }
        }
        let before = digest(&mut client);
        server.kill();
        assert_eq!(told(server.directory()), [""; 0]);
        server.start_again();
        let mut client = server.client();
        assert_eq!(digest(&mut client), before);
        assert_eq!(client.call(&["FCALL", "topsecretcode", "0"]), b":1\r\n");
        client.ok("DEBUG RELOAD");
        assert_eq!(digest(&mut client), before);
        server.terminate();
        assert_eq!(told(server.directory()), [""; 0]);
    }
}

#[test]
fn a_new_master_key_takes_over_at_a_snapshot() {
    let keys = Keys::new("1");
    let mut server = keys.recipe().start();
    let mut client = server.client();
    fill(&mut client, 0);
    snapshot(&mut client);
    // The first line is the new key; the old one is needed until the snapshot.
    keys.set("21");
    fill(&mut client, 50);
    snapshot(&mut client);
    fill(&mut client, 100);
    let before = digest(&mut client);
    // A source that gives nothing holds nothing up.
    fs::remove_file(keys.path()).expect("removed");
    snapshot(&mut client);
    assert!(server.log().contains("The master keys cannot be read again"));
    server.kill();
    keys.set("2");
    server.start_again();
    assert_eq!(digest(&mut server.client()), before);
}

#[test]
fn it_is_switched_on_and_off_over_what_is_there() {
    let keys = Keys::new("1");
    let mut server = plain().start();
    let mut client = server.client();
    fill(&mut client, 0);
    snapshot(&mut client);
    fill(&mut client, 50);
    let before = digest(&mut client);
    server.kill();
    assert!(!told(server.directory()).is_empty());
    for (recipe, is_told) in [(keys.recipe(), false), (keys.recipe().with("encrypt-files", "no"), true)] {
        server.set_recipe(recipe);
        server.start_again();
        let mut client = server.client();
        assert_eq!(digest(&mut client), before);
        // It writes everything anew by itself.
        wait_until("all is written anew", || {
            let info = client.ok("INFO persistence").string();
            info.contains("aof_rewrites:1") && info.contains("aof_rewrite_in_progress:0")
        });
        assert_eq!(told(server.directory()).is_empty(), !is_told);
        server.kill();
    }
    // Nothing needs the key now.
    fs::remove_file(server.directory().join("KEYS")).expect("it was there");
    server.set_recipe(plain());
    server.start_again();
    assert_eq!(digest(&mut server.client()), before);
}

#[test]
fn without_the_right_key_it_does_not_start_and_nothing_changes() {
    let keys = Keys::new("1");
    let mut server = keys.recipe().start();
    fill(&mut server.client(), 0);
    let before = digest(&mut server.client());
    server.kill();
    let files = |server: &Server| -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(server.directory()).expect("listed").flatten().map(|entry| entry.path());
        let mut files: Vec<_> = entries.filter(|path| path.file_name().is_some_and(|name| name != "log")).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
    };
    let untouched = files(&server);
    let wrong = Keys::new("2");
    let missing = keys.path().with_file_name("none");
    for (recipe, problem) in [
        (plain(), "must give its key"),
        (wrong.recipe(), "is not among those given"),
        (plain().with("encryption-key-file", missing.to_str().expect("text")), "No such file"),
        (plain().with("encryption-key-command", "exit 7"), "exit status: 7"),
        (keys.recipe().with("encryption-key-command", "true"), "one of them must go"),
    ] {
        let output = recipe.command(server.directory(), free_port()).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(problem), "{problem}: {said}");
        assert!(files(&server) == untouched, "{problem}");
    }
    let prints = format!("cat {}", keys.path().display());
    server.set_recipe(plain().with("encryption-key-command", &prints));
    server.start_again();
    let mut client = server.client();
    assert_eq!(digest(&mut client), before);
    let shown = client.ok("CONFIG GET encryption-key-*");
    assert!(!format!("{shown:?}").contains("cat "), "the command may hold a secret: {shown:?}");
}

/// Segments have an index, sealed as they are, by which a start leaves them unread.
#[test]
fn what_is_served_while_it_loads_needs_the_right_key_and_tells_nothing() {
    let keys = Keys::new("1");
    let loading = |recipe: Recipe| recipe.with("serve-while-loading-min-size", "0").with("log-segment-size", "32kb");
    let mut server = loading(keys.recipe()).start();
    let mut client = server.client();
    (0..4).for_each(|round| fill(&mut client, round * 50));
    // The last one that has all of it is not the last one.
    let indexes = |server: &Server| {
        let entries = fs::read_dir(server.directory()).expect("listed").flatten();
        let is_made = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|found| found.len() > 0);
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("index-")).filter(is_made).count()
    };
    wait_until("some segments have an index", || {
        client.call(&["SET", "topsecretkey:pad", &"topsecretvalue".repeat(3000)]);
        indexes(&server) >= 4
    });
    let before = digest(&mut client);
    server.kill();
    assert_eq!(told(server.directory()), [""; 0]);
    let wrong = Keys::new("2");
    let output = loading(wrong.recipe()).command(server.directory(), free_port()).output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && said.contains("is not among those given"), "{said}");
    for master in ["1", "21", "2"] {
        keys.set(master);
        server.start_again();
        let is_unread = |log: String| log.contains("segments by their index") && !log.contains(" 0 of ");
        assert!(master == "2" || is_unread(server.log()), "{}", server.log());
        let mut client = server.client();
        assert_eq!(client.ok("GET topsecretkey:7").string(), "topsecretvalue7");
        assert_eq!(digest(&mut client), before);
        if master == "21" {
            snapshot(&mut client);
        }
        server.kill();
        assert_eq!(told(server.directory()), [""; 0]);
    }
}
