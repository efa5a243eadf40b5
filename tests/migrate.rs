//! MIGRATE: is every key that is sent to another server here or there, whole, whatever becomes of either?
//!
//! A target that is not a server is a listener of the test, which answers each request as the test says.

mod support;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use support::client::{Client, encode};
use support::random::Random;
use support::reply::{self, Reply};
use support::server::{Recipe, Server};
use support::until::wait_until;

fn ironkeep() -> Recipe {
    Recipe::under_test().with("save", "").with("enable-debug-command", "yes").with("io-threads", "2")
}

fn redis() -> Recipe {
    Recipe::reference().with("enable-debug-command", "yes")
}

fn text(client: &mut Client, line: &str) -> String {
    flat(&client.line(line))
}

/// All that a reply says, in one line.
fn flat(reply: &Reply) -> String {
    match reply {
        Reply::Integer(number) => number.to_string(),
        Reply::Aggregate(_, elements) => elements.iter().map(flat).collect::<Vec<_>>().join(" "),
        Reply::Null(_) => "nil".into(),
        text => text.string(),
    }
}

fn digest(client: &mut Client) -> String {
    client.ok("DEBUG DIGEST").string()
}

/// What a request is answered with; `None` ends the connection.
type Answer = dyn FnMut(&[String]) -> Option<&'static str> + Send;

/// A listener that takes the place of a server.
struct Fake {
    port: u16,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
    thread: JoinHandle<()>,
}

impl Fake {
    /// One that serves one connection.
    fn start(mut answer: Box<Answer>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            let mut client = Client::of(listener.accept().expect("a connection").0).expect("a socket");
            // Whatever ends the connection is for the test to judge.
            while let Ok(request) = client.receive() {
                let words: Vec<String> = reply::parse(&request).elements().iter().map(Reply::string).collect();
                noted.lock().expect("no panic").push(words.clone());
                let Some(answer) = answer(&words) else { return };
                if client.send(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Fake { port, asked, thread }
    }

    /// One that takes everything, each key once the receiver lets it.
    fn holding() -> (Fake, mpsc::Sender<()>) {
        let (go, held) = mpsc::channel();
        let answer = move |words: &[String]| match restored(words) {
            // The test has ended, if nobody can send any more.
            Some(_) => held.recv().ok().map(|()| "+OK\r\n"),
            None => greeted(words),
        };
        (Fake::start(Box::new(answer)), go)
    }

    /// Waits until a key has come.
    fn wait_for(&self, key: &str) {
        wait_until("a key comes to the target", || {
            self.asked.lock().expect("no panic").iter().any(|words| restored(words) == Some(key))
        });
    }
}

/// The key of a RESTORE.
fn restored(words: &[String]) -> Option<&str> {
    words[0].starts_with("RESTORE").then(|| &*words[1])
}

/// The answer to all that comes before the keys.
fn greeted(words: &[String]) -> Option<&'static str> {
    Some(if words[0] == "INFO" { "-NOPERM not you\r\n" } else { "+OK\r\n" })
}

/// Sends MIGRATE, whose reply is to come later.
fn begin(client: &mut Client, line: &str) {
    client.send(&encode(&support::words::split(line))).expect("it is sent");
}

fn outcome(client: &mut Client) -> String {
    reply::parse(&client.receive().expect("a reply")).string()
}

/// Values of every type, in small and large forms.
fn fill(client: &mut Client) -> Vec<&'static str> {
    let words = |count: usize| (0..count).map(|at| format!(" word{at}")).collect::<String>();
    let numbers = |count: usize| (0..count).map(|at| format!(" {at}")).collect::<String>();
    let pairs = |count: usize| (0..count).map(|at| format!(" {at}.5 m{at}")).collect::<String>();
    client.ok("SET string text");
    client.ok("SET number -17");
    client.ok(&format!("SET long:string {}", "abc".repeat(100_000)));
    client.ok("RPUSH list a b 3");
    client.ok(&format!("RPUSH long:list{}", words(3000)));
    client.ok("SADD ints 1 2 3");
    client.ok(&format!("SADD long:ints{}", numbers(2000)));
    client.ok(&format!("SADD long:set{}", words(1000)));
    client.ok("HSET hash f v g 5");
    client.ok(&format!("HSET long:hash{}", pairs(1500)));
    client.ok(&format!("ZADD zset{}", pairs(5)));
    client.ok(&format!("ZADD long:zset{}", pairs(1500)));
    client.ok("XADD stream 1-1 f v");
    client.ok("XADD stream 2-1 f v g w");
    client.ok("XGROUP CREATE stream group 0");
    client.ok("XREADGROUP GROUP group consumer COUNT 1 STREAMS stream >");
    vec![
        "string",
        "number",
        "long:string",
        "list",
        "long:list",
        "ints",
        "long:ints",
        "long:set",
        "hash",
        "long:hash",
        "zset",
        "long:zset",
        "stream",
    ]
}

#[test]
fn every_type_goes_to_another_server_and_comes_back() {
    for target in [redis(), ironkeep()] {
        let (here, there) = (ironkeep().start(), target.start());
        let (mut ours, mut theirs) = (here.client(), there.client());
        let keys = fill(&mut ours);
        ours.ok("PEXPIRE list 10000000");
        let before = digest(&mut ours);
        for key in &keys[..3] {
            assert_eq!(text(&mut ours, &format!("MIGRATE 127.0.0.1 {} {key} 9 60000", there.port())), "OK", "{key}");
        }
        let rest = keys[3..].join(" ");
        let line = format!("MIGRATE localhost {} \"\" 9 60000 KEYS none {rest} none", there.port());
        assert_eq!(text(&mut ours, &line), "OK");
        assert_eq!(ours.ok("DBSIZE"), Reply::Integer(0));
        theirs.ok("SELECT 9");
        let left = theirs.ok("PTTL list").integer();
        assert!((5_000_000..=10_000_000).contains(&left), "{left}");
        assert_eq!(theirs.ok("TTL hash"), Reply::Integer(-1));
        theirs.ok("SWAPDB 0 9");
        assert_eq!(digest(&mut theirs), before);
        // And back, by the other server.
        theirs.ok("SELECT 0");
        let line = format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS {}", here.port(), keys.join(" "));
        assert_eq!(text(&mut theirs, &line), "OK");
        assert_eq!(digest(&mut ours), before);
        assert_eq!(theirs.ok("DBSIZE"), Reply::Integer(0));
    }
}

#[test]
fn fields_keep_their_expiries_or_the_key_stays() {
    let (here, there, old) = (ironkeep().start(), ironkeep().start(), redis().start());
    let (mut ours, mut theirs) = (here.client(), there.client());
    ours.ok("HSET h f v g w");
    ours.ok("HPEXPIRE h 10000000 FIELDS 1 f");
    ours.ok("SET k v");
    let line = format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS h k", old.port());
    let error = text(&mut ours, &line);
    assert!(error.starts_with("ERR Target instance cannot hold the key 'h'"), "{error}");
    assert_eq!((text(&mut ours, "EXISTS h"), text(&mut ours, "EXISTS k")), ("1".into(), "0".into()));
    assert_eq!(text(&mut ours, &format!("MIGRATE 127.0.0.1 {} h 0 60000", there.port())), "OK");
    let left = theirs.ok("HPTTL h FIELDS 2 f g").elements().iter().map(Reply::integer).collect::<Vec<_>>();
    assert!((5_000_000..=10_000_000).contains(&left[0]) && left[1] == -1, "{left:?}");
}

#[test]
fn a_copy_stays_and_only_replace_replaces() {
    let (here, there) = (ironkeep().start(), redis().start());
    let (mut ours, mut theirs) = (here.client(), there.client());
    let line = |options: &str| format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 {options} KEYS a b c", there.port());
    for key in ["a", "b", "c"] {
        ours.ok(&format!("SET {key} new"));
    }
    theirs.ok("SET b old");
    let busy = "ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(text(&mut ours, &line("COPY")), busy);
    assert_eq!(text(&mut ours, "EXISTS a b c"), "3");
    assert_eq!((text(&mut theirs, "GET a"), text(&mut theirs, "GET b")), ("new".into(), "old".into()));
    theirs.ok("DEL a c");
    assert_eq!(text(&mut ours, &line("")), busy);
    assert_eq!((text(&mut ours, "EXISTS a c"), text(&mut ours, "EXISTS b")), ("0".into(), "1".into()));
    assert_eq!(text(&mut ours, &line("COPY REPLACE")), "OK");
    assert_eq!((text(&mut ours, "GET b"), text(&mut theirs, "GET b")), ("new".into(), "new".into()));
    assert_eq!(text(&mut ours, &line("REPLACE")), "OK");
    assert_eq!(text(&mut ours, "DBSIZE"), "0");
    assert_eq!(text(&mut ours, &line("REPLACE")), "NOKEY");
    let errors = text(&mut ours, "INFO errorstats");
    assert!(errors.contains("errorstat_ERR:count=2"), "{errors}");
    let stats = text(&mut ours, "INFO commandstats");
    assert!(stats.lines().any(|line| line.starts_with("cmdstat_migrate:calls=5") && line.contains("failed_calls=2")));
}

#[test]
fn it_logs_in_and_no_log_shows_the_password() {
    let (here, there) = (ironkeep().with("slowlog-log-slower-than", "0").start(), redis().start());
    let (mut ours, mut theirs, mut monitor) = (here.client(), there.client(), here.client());
    theirs.ok("ACL SETUSER mover on >hunter3 ~* +restore +select");
    theirs.ok("CONFIG SET requirepass hunter2");
    ours.ok("SET k v");
    monitor.ok("MONITOR");
    let line = |key: &str, options: &str| format!("MIGRATE 127.0.0.1 {} {key} 0 60000 {options}", there.port());
    let refused = "ERR Target instance replied with error: ";
    assert!(text(&mut ours, &line("k", "")).starts_with(&format!("{refused}NOAUTH")));
    assert!(text(&mut ours, &line("k", "AUTH hunter4")).starts_with(&format!("{refused}WRONGPASS")));
    assert!(text(&mut ours, &line("k", "AUTH2 mover hunter2")).starts_with(&format!("{refused}WRONGPASS")));
    assert_eq!(text(&mut ours, &line("k", "COPY AUTH hunter2")), "OK");
    assert_eq!(text(&mut ours, &line("k", "COPY REPLACE AUTH2 mover hunter3")), "OK");
    theirs.ok("ACL SETUSER mover -restore");
    assert!(text(&mut ours, &line("k", "REPLACE AUTH2 mover hunter3")).starts_with(&format!("{refused}NOPERM")));
    assert_eq!(text(&mut ours, &line("k", "REPLACE AUTH hunter2")), "OK");
    assert_eq!(text(&mut ours, "EXISTS k"), "0");
    let slow = text(&mut ours, "SLOWLOG GET 100");
    assert_eq!(slow.matches("MIGRATE").count(), 7, "{slow}");
    ours.ok("ECHO end");
    let mut shown = String::new();
    while !shown.contains("\"end\"") {
        shown += &outcome(&mut monitor);
    }
    assert_eq!(shown.matches("MIGRATE").count(), 7, "{shown}");
    for secret in ["hunter", "mover"] {
        assert!(!slow.contains(secret) && !shown.contains(secret), "{slow} {shown}");
    }
}

#[test]
fn a_silent_target_stops_nobody_else() {
    let here = ironkeep().start();
    // It accepts, as a listener's queue does, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let (mut ours, mut other) = (here.client(), here.client());
    ours.ok("SET k v");
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {port} k 0 300"));
    wait_until("it waits", || text(&mut other, "INFO clients").contains("blocked_clients:1"));
    assert_eq!(text(&mut other, "GET k"), "v");
    other.ok("SET other 1");
    assert_eq!(outcome(&mut ours), "IOERR error or timeout reading to target instance");
    assert_eq!(text(&mut ours, "GET k"), "v");
    assert!(text(&mut ours, "INFO clients").contains("blocked_clients:0"));
}

#[test]
fn a_target_that_closes_in_the_middle_has_only_what_it_acknowledged() {
    let here = ironkeep().start();
    let mut ours = here.client();
    ours.ok("MSET a 1 b 2 c 3");
    let fake = Fake::start(Box::new(|words| match restored(words) {
        Some("b") => None,
        Some(_) => Some("+OK\r\n"),
        None => greeted(words),
    }));
    let line = format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS a b c", fake.port);
    assert_eq!(text(&mut ours, &line), "IOERR error or timeout reading to target instance");
    fake.thread.join().expect("no panic");
    assert_eq!((text(&mut ours, "EXISTS a"), text(&mut ours, "EXISTS b c")), ("0".into(), "2".into()));
}

#[test]
fn an_error_for_one_key_keeps_that_one() {
    let here = ironkeep().start();
    let mut ours = here.client();
    ours.ok("MSET a 1 b 2 c 3");
    let fake = Fake::start(Box::new(|words| match restored(words) {
        Some("b") => Some("-OOM no room\r\n"),
        Some(_) => Some("+OK\r\n"),
        None => greeted(words),
    }));
    let line = format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS a b c", fake.port);
    assert_eq!(text(&mut ours, &line), "ERR Target instance replied with error: OOM no room");
    assert_eq!((text(&mut ours, "EXISTS a c"), text(&mut ours, "EXISTS b")), ("0".into(), "1".into()));
}

#[test]
fn nonsense_from_a_target_is_an_error() {
    let here = ironkeep().start();
    let mut ours = here.client();
    ours.ok("SET k v");
    for answer in ["*1\r\n$1\r\na\r\n", "$99999999999\r\n", "\r\n", ":1\r\n", "$x\r\n"] {
        let fake = Fake::start(Box::new(move |_| Some(answer)));
        let error = text(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 2000", fake.port));
        assert_eq!(error, "IOERR error or timeout reading to target instance", "{answer:?}");
    }
    assert_eq!(text(&mut ours, "GET k"), "v");
}

#[test]
fn a_key_that_changes_while_it_is_sent_stays() {
    let here = ironkeep().start();
    let (mut ours, mut other) = (here.client(), here.client());
    ours.ok("MSET a 1 b 2 c 3 d 4");
    let (fake, go) = Fake::holding();
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS a b c d", fake.port));
    fake.wait_for("a");
    other.ok("APPEND b x");
    // The same value, in another key: that one was not sent.
    other.ok("SET c 3");
    other.ok("PEXPIRE d 10000000");
    (0..4).for_each(|_| go.send(()).expect("it waits"));
    let error = outcome(&mut ours);
    let wanted = "ERR The key 'b', like 2 others, has changed while it was sent: it stays as it is, and the target has \
                  its earlier value";
    assert_eq!(error, wanted);
    assert_eq!((text(&mut ours, "EXISTS a"), text(&mut ours, "GET b")), ("0".into(), "2x".into()));
    assert_eq!(text(&mut ours, "EXISTS c d"), "2");
}

#[test]
fn a_key_that_expires_while_it_is_sent_is_no_error() {
    let here = ironkeep().start();
    let (mut ours, mut other) = (here.client(), here.client());
    ours.ok("SET k v PX 1000");
    let (fake, go) = Fake::holding();
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 60000", fake.port));
    fake.wait_for("k");
    wait_until("it expires", || text(&mut other, "EXISTS k") == "0");
    go.send(()).expect("it waits");
    assert_eq!(outcome(&mut ours), "OK");
}

#[test]
fn a_key_that_is_sent_to_itself_is_not_lost() {
    let here = ironkeep().start();
    let mut ours = here.client();
    ours.ok("SET k v");
    let error = text(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 60000 REPLACE", here.port()));
    assert!(error.starts_with("ERR The key 'k' has changed while it was sent"), "{error}");
    assert_eq!(text(&mut ours, "GET k"), "v");
    assert_eq!(text(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 1 60000", here.port())), "OK");
    assert_eq!(text(&mut ours, "EXISTS k"), "0");
    ours.ok("SELECT 1");
    assert_eq!(text(&mut ours, "GET k"), "v");
}

#[test]
fn its_removal_is_one_like_any_other() {
    let here = ironkeep().with("notify-keyspace-events", "KEA").start();
    let (mut ours, mut watcher, mut listener) = (here.client(), here.client(), here.client());
    ours.ok("SET k v");
    listener.ok("SUBSCRIBE __keyspace@0__:k");
    watcher.ok("WATCH k");
    watcher.ok("MULTI");
    watcher.ok("PING");
    ours.ok("HELLO 3");
    ours.ok("CLIENT TRACKING ON");
    ours.ok("GET k");
    let changes = |client: &mut Client| {
        let info = text(client, "INFO persistence");
        let line = info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        line.and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    let before = changes(&mut ours);
    let (fake, go) = Fake::holding();
    go.send(()).expect("it is held");
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 60000", fake.port));
    assert_eq!(outcome(&mut ours), "OK");
    let push = reply::parse(&ours.receive().expect("a push"));
    assert_eq!(push.elements()[0].string(), "invalidate");
    let event = reply::parse(&listener.receive().expect("an event"));
    assert_eq!(event.elements()[2].string(), "del");
    assert_eq!(text(&mut watcher, "EXEC"), "nil");
    assert_eq!(changes(&mut ours), before + 1);
    ours.ok("CLIENT TRACKING OFF");
    // A reader of a group is told that its stream has gone.
    ours.ok("XGROUP CREATE s g $ MKSTREAM");
    begin(&mut watcher, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
    wait_until("it waits", || text(&mut ours, "INFO clients").contains("blocked_clients:1"));
    let (fake, go) = Fake::holding();
    go.send(()).expect("it is held");
    assert_eq!(text(&mut ours, &format!("MIGRATE 127.0.0.1 {} s 0 60000", fake.port)), "OK");
    assert!(outcome(&mut watcher).starts_with("NOGROUP"));
}

#[test]
fn a_pause_of_writes_holds_the_removal_back() {
    let here = ironkeep().start();
    let (mut ours, mut other) = (here.client(), here.client());
    ours.ok("SET k v");
    let (fake, go) = Fake::holding();
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 60000", fake.port));
    fake.wait_for("k");
    other.ok("CLIENT PAUSE 100000 WRITE");
    go.send(()).expect("it waits");
    for _ in 0..50 {
        assert_eq!(text(&mut other, "EXISTS k"), "1");
    }
    assert_eq!(ours.arrived(), 0);
    other.ok("CLIENT UNPAUSE");
    assert_eq!(outcome(&mut ours), "OK");
    assert_eq!(text(&mut other, "EXISTS k"), "0");
}

#[test]
fn who_is_killed_or_loses_the_right_keeps_the_key() {
    let here = ironkeep().start();
    let (mut ours, mut other) = (here.client(), here.client());
    ours.ok("MSET k v l v");
    let id = text(&mut ours, "CLIENT ID");
    let (fake, go) = Fake::holding();
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 60000", fake.port));
    fake.wait_for("k");
    other.ok(&format!("CLIENT KILL ID {id}"));
    wait_until("it has gone", || !text(&mut other, "CLIENT LIST").contains("cmd=migrate"));
    go.send(()).expect("it waits");
    fake.thread.join().expect("no panic");
    assert_eq!(text(&mut other, "EXISTS k"), "1");
    other.ok("ACL SETUSER mover on nopass ~* +@all");
    let mut mover = here.client();
    mover.ok("AUTH mover x");
    let (fake, go) = Fake::holding();
    begin(&mut mover, &format!("MIGRATE 127.0.0.1 {} l 0 60000", fake.port));
    fake.wait_for("l");
    other.ok("ACL SETUSER mover -migrate");
    go.send(()).expect("it waits");
    assert!(outcome(&mut mover).starts_with("NOPERM"));
    assert_eq!(text(&mut other, "EXISTS l"), "1");
    // Every key counts.
    other.ok("ACL SETUSER mover +migrate resetkeys ~k");
    let error = text(&mut mover, "MIGRATE 127.0.0.1 1 \"\" 0 100 KEYS k l");
    assert!(error.starts_with("NOPERM"), "{error}");
    assert!(text(&mut mover, "MIGRATE 127.0.0.1 1 \"\" 0 100 KEYS k").starts_with("IOERR"));
}

#[test]
fn the_end_of_the_server_does_not_wait_for_a_target() {
    let mut here = ironkeep().with("appendonly", "yes").start();
    let mut ours = here.client();
    ours.ok("SET k v");
    let (fake, _go) = Fake::holding();
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} k 0 86400000", fake.port));
    fake.wait_for("k");
    here.terminate();
    here.start_again();
    assert_eq!(text(&mut here.client(), "GET k"), "v");
}

#[test]
fn nothing_is_lost_by_kill_9() {
    let mut here = ironkeep().with("appendonly", "yes").with("appendfsync", "always").start();
    let there = ironkeep().start();
    let mut ours = here.client();
    ours.ok("MSET a 1 b 2 c 3");
    assert_eq!(text(&mut ours, &format!("MIGRATE 127.0.0.1 {} a 0 60000", there.port())), "OK");
    let (fake, go) = Fake::holding();
    begin(&mut ours, &format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS b c", fake.port));
    fake.wait_for("b");
    go.send(()).expect("it waits");
    fake.wait_for("c");
    here.kill();
    here.start_again();
    let mut ours = here.client();
    // Whether the target has the other two is known to nobody.
    assert_eq!((text(&mut ours, "EXISTS a"), text(&mut ours, "EXISTS b c")), ("0".into(), "2".into()));
    assert_eq!(text(&mut there.client(), "GET a"), "1");
}

#[test]
fn keys_that_go_to_and_fro_are_never_lost() {
    const KEYS: usize = 8;
    let seed = Random::seed_of_this_run();
    eprintln!("seed {seed}");
    let servers = [ironkeep().start(), ironkeep().start()];
    let mut first = servers[0].client();
    (0..KEYS).for_each(|key| drop(first.ok(&format!("SET k{key} v"))));
    let moved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (servers, moved) = (&servers, &moved);
            scope.spawn(move || {
                let mut random = Random::new(seed + number);
                let from = (number % 2) as usize;
                let (mut client, port) = (servers[from].client(), servers[1 - from].port());
                for _ in 0..150 {
                    let (one, two) = (random.below(KEYS), random.below(KEYS));
                    let replace = if random.below(2) == 0 { "REPLACE" } else { "" };
                    let line = format!("MIGRATE 127.0.0.1 {port} \"\" 0 60000 {replace} KEYS k{one} k{two}");
                    moved.fetch_or(text(&mut client, &line) == "OK", Ordering::Relaxed);
                }
            });
        }
    });
    assert!(moved.load(Ordering::Relaxed));
    let mut second = servers[1].client();
    for key in 0..KEYS {
        let line = format!("GET k{key}");
        let found = [text(&mut first, &line), text(&mut second, &line)];
        assert!(found.iter().any(|value| value == "v"), "k{key} is lost");
    }
    // Nothing is watched any more: a transaction on each key goes through.
    let info = text(&mut first, "INFO clients");
    assert!(info.contains("total_watched_keys:0") && info.contains("blocked_clients:0"), "{info}");
}

#[test]
fn only_so_many_send_at_once() {
    const MOST: usize = 32;
    let here = ironkeep().start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let line = format!("MIGRATE 127.0.0.1 {port} k 0 60000 COPY");
    let mut ours = here.client();
    ours.ok("SET k v");
    let mut senders: Vec<Client> = (0..MOST).map(|_| here.client()).collect();
    senders.iter_mut().for_each(|sender| begin(sender, &line));
    wait_until("all wait", || text(&mut ours, "INFO clients").contains(&format!("blocked_clients:{MOST}\r")));
    assert_eq!(text(&mut ours, &line), "ERR Too many MIGRATE commands are running, try again later");
    // The target goes: all end, and others may send.
    drop(silent);
    senders.iter_mut().for_each(|sender| assert!(outcome(sender).starts_with("IOERR")));
    wait_until("another may send", || text(&mut ours, &line).starts_with("IOERR"));
}

#[test]
fn a_cluster_sends_keys_of_one_slot_by_its_own_command() {
    let here = ironkeep().with("cluster-enabled", "yes").start();
    let mut ours = here.client();
    ours.ok("SET {t}a 1");
    ours.ok("SET {t}b 2");
    let (fake, go) = Fake::holding();
    let line = |keys: &str| format!("MIGRATE 127.0.0.1 {} \"\" 0 60000 KEYS {keys}", fake.port);
    assert!(text(&mut ours, &line("{t}a {u}b")).starts_with("CROSSSLOT"));
    (0..2).for_each(|_| go.send(()).expect("it is held"));
    assert_eq!(text(&mut ours, &line("{t}a {t}b")), "OK");
    let asked = fake.asked.lock().expect("no panic");
    assert_eq!(asked.iter().filter(|words| words[0] == "RESTORE-ASKING").count(), 2);
}

#[test]
fn neither_scripts_nor_transactions_wait_for_a_target() {
    let here: Server = ironkeep().start();
    let mut ours = here.client();
    ours.ok("MULTI");
    let error = text(&mut ours, "MIGRATE 127.0.0.1 1 k 0 100");
    assert_eq!(error, "ERR Command not allowed inside a transaction");
    ours.ok("DISCARD");
    let error = text(&mut ours, "EVAL \"return redis.call('MIGRATE', '127.0.0.1', '1', 'k', '0', '100')\" 1 k");
    assert!(error.contains("not allowed from script"), "{error}");
}
