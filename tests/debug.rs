//! DEBUG on a real server: reloading while clients continue, and `kill -9` right after it.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::SetOnDrop;
use support::client::Client;
use support::reply;
use support::server::{Recipe, Server};

fn recipe() -> Recipe {
    Recipe::under_test().with("save", "").with("enable-debug-command", "yes").with("io-threads", "2")
}

/// Fills the server with every type, small and large.
fn fill(client: &mut Client) {
    for number in 0..600 {
        let (element, long) = (format!("element:{number}"), "x".repeat(number));
        for line in [
            format!("SET string:{number} {long}y"),
            format!("RPUSH list {element}{long}"),
            format!("SADD set {element}"),
            format!("SADD ints {number}"),
            format!("HSET hash {element} {number}"),
            format!("ZADD zset {number}.5 {element}"),
            format!("XADD stream {}-1 n {number}", number + 1),
        ] {
            client.ok(&line);
        }
    }
    for line in [
        "RPUSH small:list a b 3",
        "SADD small:ints 1 2 3",
        "HSET small:hash f v g 2",
        "ZADD small:zset 1 a 2.5 b",
        "PEXPIREAT string:1 33177117420123",
        "PEXPIREAT zset 33177117420456",
        "HPEXPIREAT hash 33177117420789 FIELDS 2 element:5 element:50",
        "HPEXPIREAT small:hash 33177117420789 FIELDS 1 g",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group one COUNT 5 STREAMS stream >",
        "XACK stream group 2-1",
        "SELECT 7",
        "SET elsewhere 1",
        "SELECT 0",
    ] {
        client.ok(line);
    }
}

/// Everything that tells one keyspace from another.
fn look(server: &Server) -> Vec<String> {
    let mut client = server.client();
    let keys = ["list", "set", "ints", "hash", "zset", "stream"].map(str::to_owned);
    let small = ["small:list", "small:ints", "small:hash", "small:zset"].map(str::to_owned);
    let mut lines: Vec<String> = keys.iter().chain(&small).map(|key| format!("OBJECT ENCODING {key}")).collect();
    lines.extend(
        [
            "DEBUG DIGEST",
            "DBSIZE",
            "PEXPIRETIME string:1",
            "PEXPIRETIME zset",
            "HPEXPIRETIME hash FIELDS 3 element:5 element:50 element:6",
            "HPEXPIRETIME small:hash FIELDS 2 f g",
            "XPENDING stream group",
            "XINFO GROUPS stream",
        ]
        .map(str::to_owned),
    );
    lines
        .iter()
        .map(|line| client.call(&line.split(' ').collect::<Vec<_>>()))
        .map(|reply| reply.escape_ascii().to_string())
        .collect()
}

#[test]
fn everything_survives_loading_anew_and_a_crash_right_behind() {
    for policy in ["always", "no"] {
        let mut server = recipe().with("appendfsync", policy).start();
        let mut client = server.client();
        fill(&mut client);
        let before = look(&server);
        for line in ["DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG RELOAD NOSAVE"] {
            client.ok("SET last written");
            client.ok("DEL last");
            client.ok(line);
            assert_eq!(look(&server), before, "{policy}, {line}");
            client.ok(line);
            server.kill();
            server.start_again();
            client = server.client();
            assert_eq!(look(&server), before, "{policy}, {line}, after kill -9");
        }
    }
}

#[test]
fn without_a_log_a_reload_saves_all_there_is() {
    let mut server = recipe().with("appendonly", "no").start();
    let mut client = server.client();
    fill(&mut client);
    let before = look(&server);
    client.ok("DEBUG RELOAD");
    server.kill();
    server.start_again();
    assert_eq!(look(&server), before);
}

/// Counts up on its own connection until it is told to stop or the server ends, and records what was acknowledged.
fn count_up(server: &Server, key: usize, acknowledged: &AtomicU64, over: &AtomicBool) {
    let mut client = server.client();
    let key = format!("counter:{key}");
    while !over.load(Ordering::Relaxed) {
        let reply = client.call(&["INCR", &key]);
        acknowledged.store(reply::parse(&reply).integer() as u64, Ordering::Relaxed);
    }
}

#[test]
fn clients_that_go_on_meanwhile_lose_nothing() {
    let mut server = recipe().start();
    fill(&mut server.client());
    let acknowledged: [AtomicU64; 4] = Default::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&over);
        for (key, acknowledged) in acknowledged.iter().enumerate() {
            let (server, over) = (&server, &over);
            scope.spawn(move || count_up(server, key, acknowledged, over));
        }
        let mut client = server.client();
        let begun = Instant::now();
        let is_load = || acknowledged.iter().all(|count| count.load(Ordering::Relaxed) >= 10);
        // On until there was some load beside it.
        for number in (0..).take_while(|number| *number < 30 || !is_load()) {
            let line = ["DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG RELOAD NOSAVE"][number % 3];
            assert_eq!(client.call(&line.split(' ').collect::<Vec<_>>()), b"+OK\r\n", "{line}");
            assert!(begun.elapsed() < Duration::from_secs(120), "{acknowledged:?}");
        }
    });
    let check = |server: &Server| {
        let mut client = server.client();
        for (key, acknowledged) in acknowledged.iter().enumerate() {
            let count = client.ok(&format!("GET counter:{key}")).string();
            assert_eq!(count, acknowledged.load(Ordering::Relaxed).to_string());
        }
    };
    check(&server);
    server.kill();
    server.start_again();
    check(&server);
}

/// What it stops is in `tests/parking.rs`.
#[test]
fn sleep_takes_its_time() {
    let server = recipe().start();
    let mut client = server.client();
    let started = Instant::now();
    assert_eq!(client.call(&["DEBUG", "SLEEP", "0.2"]), b"+OK\r\n");
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}

#[test]
fn it_is_for_those_only_whom_the_directive_names() {
    let refused =
        |recipe: Recipe| recipe.start().client().call(&["DEBUG", "DIGEST"]).starts_with(b"-ERR DEBUG command");
    assert!(refused(Recipe::under_test()));
    assert!(!refused(Recipe::under_test().with("enable-debug-command", "local")));
    assert!(!refused(Recipe::under_test().with("enable-debug-command", "local").on_unix_socket()));
    let server = recipe().start();
    let reply = server.client().call(&["CONFIG", "SET", "enable-debug-command", "no"]);
    assert!(reply.starts_with(b"-ERR CONFIG SET failed"), "{}", reply.escape_ascii());
}

/// The keys that a start loads count as data, not as the server's own memory.
#[test]
fn what_was_loaded_counts_as_data() {
    let mut server = recipe().start();
    server.client().ok("DEBUG POPULATE 50000 key 100");
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.ok("DBSIZE").integer(), 50_000, "one record of the log made them all again");
    let stats = client.ok("MEMORY STATS");
    let field = |name: &str| {
        let mut pairs = stats.elements().chunks(2);
        pairs.find(|pair| pair[0].text() == name.as_bytes()).expect("the field")[1].integer()
    };
    assert!(field("dataset.bytes") > 5_000_000, "{}", field("dataset.bytes"));
    assert!(field("startup.allocated") < 5_000_000, "{}", field("startup.allocated"));
    assert!(field("keys.bytes-per-key") > 100, "{}", field("keys.bytes-per-key"));
}

/// The process starts its program again, and everything that was acknowledged is there.
#[test]
fn a_server_starts_itself_again() {
    let server = recipe().start();
    for (number, how) in ["RESTART", "CRASH-AND-RECOVER 10", "RESTART 10"].into_iter().enumerate() {
        let mut client = server.client();
        client.ok(&format!("SET k:{number} v"));
        let run_id = |client: &mut Client| {
            let info = client.ok("INFO server").string();
            info.lines().find(|line| line.starts_with("run_id:")).expect("an id").to_owned()
        };
        let before = run_id(&mut client);
        client.send(format!("DEBUG {how}\r\n").as_bytes()).expect("it is sent");
        assert_eq!(client.receive_until_close().unwrap_or_default(), b"", "{how}");
        let until = Instant::now() + Duration::from_secs(60);
        let mut again = loop {
            // The last program may still take a connection with it.
            let answered = Client::connect(server.address()).and_then(|mut client| {
                client.try_call(&["PING"])?;
                Ok(client)
            });
            match answered {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < until, "{how}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_ne!(run_id(&mut again), before, "{how}");
        assert_eq!(again.ok("DBSIZE").integer(), number as i64 + 1, "{how}");
    }
}

/// A log that is slow delays the replies that wait for it.
#[test]
fn writes_to_the_log_can_be_slowed_down() {
    let server = recipe().with("appendonly", "yes").start();
    let mut client = server.client();
    client.ok("DEBUG AOF-FLUSH-SLEEP 100000");
    let started = Instant::now();
    client.ok("SET k v");
    assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());
    client.ok("DEBUG AOF-FLUSH-SLEEP 0");
}
