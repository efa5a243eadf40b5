//! What a crash must not take away: real processes, real `kill -9`, real files.
//!
//! The promise under test: everything acknowledged before the process died is there after the restart, with every
//! `appendfsync` policy (the machine lives on, so written data stays). Nothing is there that was never sent.
//! Snapshots and log rewrites at any moment change nothing about that.

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;
use support::SetOnDrop;
use support::client::{Client, encode};
use support::generator::Generator;
use support::ledger::Ledger;
use support::newer;
use support::random::Random;
use support::reply;
use support::server::{Recipe, Server, free_port, wait};
use support::until::{KillOnDrop, wait_until};

const POLICIES: [&str; 3] = ["always", "everysec", "no"];
const DATABASES: usize = 16;

fn recipe(policy: &str, threads: usize) -> Recipe {
    // Redis delays the write itself while an fsync runs, so its `everysec` may lose acknowledged changes.
    let policy = if Recipe::is_stand_in() && policy == "everysec" { "always" } else { policy };
    Recipe::under_test()
        .with("save", "")
        .with("appendonly", "yes")
        .with("appendfsync", policy)
        .with("io-threads", &threads.to_string())
}

/// Everything that a keyspace shows: database and key to value and expiry.
type Dump = BTreeMap<(usize, Vec<u8>), (Vec<u8>, i64)>;

fn dump(server: &Server) -> Dump {
    let mut client = server.client();
    let mut dump = Dump::new();
    for database in 0..DATABASES {
        client.ok(&format!("SELECT {database}"));
        let keys = client.ok("KEYS *");
        for key in keys.elements().iter().map(|key| key.text().to_vec()) {
            let value = value_of(&mut client, &key);
            let expiry = reply::parse(&client.call(&[b"PEXPIRETIME", key.as_slice()])).integer();
            dump.insert((database, key), (value, expiry));
        }
    }
    dump
}

/// A key's value, as bytes that are equal for equal values.
fn value_of(client: &mut Client, key: &[u8]) -> Vec<u8> {
    let kind = client.call(&[b"TYPE", key]);
    let (words, any_order): (&[&[u8]], bool) = match &kind[..] {
        b"+string\r\n" => (&[b"GET", key], false),
        b"+list\r\n" => (&[b"LRANGE", key, b"0", b"-1"], false),
        b"+set\r\n" => (&[b"SMEMBERS", key], true),
        b"+hash\r\n" => (&[b"HGETALL", key], true),
        b"+zset\r\n" => (&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], false),
        b"+stream\r\n" => (&[b"XRANGE", key, b"-", b"+"], false),
        other => panic!("a key of no type: {}", other.escape_ascii()),
    };
    let value = client.call(words);
    assert!(!value.starts_with(b"-"), "{}", value.escape_ascii());
    if kind == b"+string\r\n" {
        return reply::parse(&value).text().to_vec();
    }
    if !any_order {
        return [&kind[..], &value].concat();
    }
    let value = reply::parse(&value);
    let pairs = value.elements().chunks(if kind.starts_with(b"+hash") { 2 } else { 1 });
    let mut elements: Vec<Vec<u8>> = pairs.map(|pair| pair.iter().fold(Vec::new(), framed)).collect();
    elements.sort();
    [kind, elements.concat()].concat()
}

/// Appends an element behind its length.
fn framed(mut bytes: Vec<u8>, element: &reply::Reply) -> Vec<u8> {
    bytes.extend(format!("{}:", element.text().len()).bytes());
    bytes.extend_from_slice(element.text());
    bytes
}

/// Both dumps, or the first places where they differ.
fn assert_same(before: &Dump, after: &Dump, what: &str) {
    let mut unlike = Vec::new();
    for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
        let (left, right) = (before.get(key), after.get(key));
        if left != right {
            let show = |side: Option<&(Vec<u8>, i64)>| match side {
                Some((value, expiry)) => format!("{} until {expiry}", value[..value.len().min(80)].escape_ascii()),
                None => "nothing".to_owned(),
            };
            unlike.push(format!("    {} of {}: {} became {}", key.1.escape_ascii(), key.0, show(left), show(right)));
        }
    }
    assert!(unlike.is_empty(), "{what}: {} keys differ\n{}", unlike.len(), unlike[..unlike.len().min(20)].join("\n"));
}

/// Kills with -9, starts again on the same files, and the keyspace must be the same.
fn assert_survives_kill(server: &mut Server, what: &str) {
    let before = dump(server);
    server.kill();
    server.start_again();
    assert_same(&before, &dump(server), what);
}

// ---------------------------------------------------------------- kill -9 under load

/// The ledger must notice a loss. Here the server is a Redis that stores nothing on disk.
#[test]
#[should_panic(expected = "acknowledged Some")]
fn a_loss_is_noticed() {
    let mut server = Recipe::reference().start();
    let mut ledger = Ledger::default();
    let client = server.client();
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (ledger, answered) = (&mut ledger, &answered);
        let _ends = KillOnDrop(&mut server);
        scope.spawn(move || ledger.write(0, client, &mut Random::new(1), &mut 0, answered));
        wait_until("some replies", || answered.load(Ordering::Relaxed) > 10);
    });
    server.start_again();
    ledger.check(&mut server.client(), "nothing kept");
}

/// Starts snapshots and rewrites at random moments until told to stop, or until the server is gone.
fn disturb(mut client: Client, random: &mut Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(random.below(40) as u64));
        let command = *random.pick(&[&"BGSAVE", &"BGREWRITEAOF"]);
        // One may be running already, and the server may be dead: neither matters here.
        if client.try_call(&[command]).is_err() {
            return;
        }
    }
}

#[test]
fn acknowledged_writes_survive_kill_nine_under_load() {
    const WRITERS: usize = 4;
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut server = recipe("always", 2).start();
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(|_| Ledger::default()).collect();
    let mut numbers = [0; WRITERS];
    let (answered, mut recycled) = (AtomicU64::new(0), 0);
    for round in 0..30 {
        let (stop, before) = (AtomicBool::new(false), answered.load(Ordering::Relaxed));
        std::thread::scope(|scope| {
            let _stops = SetOnDrop(&stop);
            let running = KillOnDrop(&mut server);
            for (name, (ledger, number)) in ledgers.iter_mut().zip(&mut numbers).enumerate() {
                let (client, answered) = (running.0.client(), &answered);
                let mut random = Random::new(random.next());
                scope.spawn(move || ledger.write(name, client, &mut random, number, answered));
            }
            let client = running.0.client();
            let mut disturbance = Random::new(random.next());
            let stop = &stop;
            scope.spawn(move || disturb(client, &mut disturbance, stop));
            sleep(Duration::from_millis(50 + random.below(250) as u64));
            // However slow the machine is. A segment is recycled once there were some snapshots.
            wait_until("some load", || answered.load(Ordering::Relaxed) - before > 100);
            if round % 2 == 0 && !Recipe::is_stand_in() {
                wait_until("a recycled segment", || writes_over_an_older_log(running.0));
            }
        });
        recycled += u32::from(writes_over_an_older_log(&server));
        // The next life may have another policy and another number of threads.
        let policy = POLICIES[(round + 1) % 3];
        server.set_recipe(recipe(policy, [1, 2, 4][round / 3 % 3]));
        server.start_again();
        let mut client = server.client();
        for ledger in &mut ledgers {
            ledger.check(&mut client, &format!("round {round}, before {policy}"));
        }
        let expected: usize = ledgers.iter().map(|ledger| ledger.sent.len()).sum();
        assert_eq!(client.ok("DBSIZE").integer(), expected as i64, "round {round}: keys that nobody sent");
        // Keeps the data from growing without end. The numbers continue, so that an old value cannot pass for a new
        // one.
        if round % 6 == 5 {
            client.ok("FLUSHALL");
            ledgers.iter_mut().for_each(|ledger| *ledger = Ledger::default());
        }
    }
    assert!(numbers.iter().sum::<u64>() > 3000, "hardly any load: {numbers:?}");
    assert!(recycled > 5 || Recipe::is_stand_in(), "only {recycled} lives ended in a recycled segment");
}

/// Whether a segment of the log that says it is recycled has blocks: see `persist/format.rs`.
fn writes_over_an_older_log(server: &Server) -> bool {
    let files = std::fs::read_dir(server.directory()).expect("the data directory");
    let logs = files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")));
    logs.map(|path| std::fs::read(path).unwrap_or_default())
        .any(|log| log.get(48).is_some_and(|flags| flags & 1 == 1) && log.get(64..68) == Some(b"IKB1"))
}

// ---------------------------------------------------------------- replay gives the live state

#[test]
fn random_commands_survive_kill_nine() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut server = recipe("no", 2).start();
    for round in 0..8 {
        let mut client = server.client();
        let snapshots = round % 2 == 1;
        for _ in 0..60 {
            let mut commands: Vec<_> = (0..25).map(|_| newer::any_command(&mut random)).collect();
            if snapshots && random.one_in(6) {
                commands.push(vec![random.pick(&["BGSAVE", "BGREWRITEAOF"]).as_bytes().to_vec()]);
            }
            let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
            client.send(&bytes).expect("the connection holds");
            for command in &commands {
                client.receive().unwrap_or_else(|error| panic!("{}: {error}", support::client::show(command)));
            }
        }
        server.set_recipe(recipe(POLICIES[round % 3], [2, 1, 4][round % 3]));
        assert_survives_kill(&mut server, &format!("seed {seed}, round {round}"));
    }
}

/// The random commands above would prove nothing of newer ones that are refused as malformed.
#[test]
fn newer_commands_are_understood() {
    let server = recipe("no", 1).start();
    let (mut client, mut random) = (server.client(), Random::new(7));
    let mut names = BTreeMap::<String, (usize, usize)>::new();
    for _ in 0..4000 {
        client.call(&Generator { random: &mut random }.command());
        let command = newer::command(&mut random);
        let reply = String::from_utf8_lossy(&client.call(&command)).into_owned();
        for refused in ["-ERR unknown", "-ERR syntax", "-ERR wrong number", "-ERR unsupported"] {
            assert!(!reply.starts_with(refused), "{}: {reply}", support::client::show(&command));
        }
        let (calls, errors) = names.entry(String::from_utf8_lossy(&command[0]).into_owned()).or_default();
        (*calls, *errors) = (*calls + 1, *errors + usize::from(reply.starts_with('-')));
    }
    let never: Vec<_> = names.iter().filter(|(_, (calls, errors))| calls == errors).map(|(name, _)| name).collect();
    assert!(never.is_empty(), "{never:?} never succeeds");
}

#[test]
fn snapshots_under_concurrent_writers_lose_nothing() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut server = recipe("everysec", 4).start();
    for round in 0..5 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let ends = SetOnDrop(stop);
            let mut writers = Vec::new();
            for _ in 0..3 {
                let mut client = server.client();
                let mut random = Random::new(random.next());
                writers.push(scope.spawn(move || {
                    for _ in 0..300 {
                        let commands: Vec<_> = (0..10).map(|_| newer::any_command(&mut random)).collect();
                        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
                        client.send(&bytes).expect("the connection holds");
                        commands.iter().for_each(|_| drop(client.receive().expect("a reply")));
                    }
                }));
            }
            let client = server.client();
            let mut disturbance = Random::new(random.next());
            let disturber = scope.spawn(move || disturb(client, &mut disturbance, stop));
            for writer in writers {
                writer.join().expect("a writer fails");
            }
            drop(ends);
            disturber.join().expect("the disturber fails");
        });
        assert_survives_kill(&mut server, &format!("seed {seed}, round {round}"));
    }
}

/// Commands that touch two keys or whole databases, each followed by a crash.
#[test]
fn commands_on_many_keys_survive_kill_nine() {
    let mut server = recipe("everysec", 2).start();
    let mut client = server.client();
    for database in 0..DATABASES {
        client.ok(&format!("SELECT {database}"));
        client.ok(&format!("MSET k {database} l l{database} n 5 expiring v"));
        client.ok(&format!("SET long:{database} \"y\"*{}", 100 + 100 * database));
        client.ok("PEXPIREAT expiring 33177117420123");
    }
    assert_survives_kill(&mut server, "all databases");
    let steps = [
        "RENAME k renamed",
        "RENAMENX l renamed-too",
        "RENAME expiring expired-never",
        "COPY n copied",
        "COPY expired-never copied-with-expiry",
        "COPY n n DB 3 REPLACE",
        "MOVE n 4",
        "MOVE renamed 5",
        "SWAPDB 0 1",
        "SWAPDB 2 15",
        "INCRBYFLOAT n 0.1",
        "SET k v KEEPTTL",
        "GETEX k EXAT 33177117420",
        "PERSIST k",
        "GETDEL k",
        "MSETNX new1 a new2 b",
        "SETRANGE new1 200 z",
        "APPEND new2 tail",
        "EXPIRE new1 -1",
        "SET gone v EXAT 1",
        "DEL new2 missing",
        "UNLINK long:0 long:1",
        "FLUSHDB",
        "SET after flush",
        "FLUSHALL",
        "SET after flushall",
        "SWAPDB 0 9",
    ];
    for step in steps {
        server.client().line(step);
        assert_survives_kill(&mut server, step);
    }
    let mut client = server.client();
    client.ok("SELECT 9");
    assert_eq!(client.ok("GET after").string(), "flushall");
    assert_eq!(dump(&server).len(), 1);
}

/// A snapshot right before, during or after such commands changes nothing, either.
#[test]
fn barriers_beside_snapshots_survive_kill_nine() {
    let mut server = recipe("no", 2).start();
    for round in 0..6 {
        let mut client = server.client();
        client.ok(&format!("MSET a {round} b {round} c {round}"));
        let pipeline: &[&[&str]] = match round % 3 {
            0 => &[&["BGSAVE"], &["SWAPDB", "0", "1"], &["SET", "a", "new"]],
            1 => &[&["SWAPDB", "0", "2"], &["BGREWRITEAOF"], &["SET", "a", "new"], &["SWAPDB", "1", "0"]],
            _ => &[&["SET", "a", "old"], &["FLUSHALL"], &["BGREWRITEAOF"], &["SET", "a", "new"], &["RENAME", "a", "z"]],
        };
        let bytes: Vec<u8> = pipeline.iter().flat_map(|command| encode(command)).collect();
        client.send(&bytes).expect("the connection holds");
        pipeline.iter().for_each(|_| drop(client.receive().expect("a reply")));
        assert_survives_kill(&mut server, &format!("round {round}"));
    }
}

// ---------------------------------------------------------------- expiry

#[test]
fn expiry_goes_on_while_the_server_is_down() {
    let mut server = recipe("everysec", 1).start();
    let mut client = server.client();
    for line in [
        "SET soon v PX 300",
        "SET relative v EX 1000",
        "SET absolute v PXAT 33177117420123",
        "SET changed v EX 5000",
        "PEXPIREAT changed 33177117420456",
        "SET overwritten v PX 300",
        "SET overwritten w",
        "SET kept v PXAT 33177117420789",
        "SET kept w KEEPTTL",
        "SETEX long 1000 \"z\"*1000",
        "GETEX relative",
    ] {
        client.ok(line);
    }
    // Not if it has expired before.
    wait_until("it is there to persist", || {
        client.ok("SET persisted v PX 300");
        client.ok("PERSIST persisted").integer() == 1
    });
    let relative = client.ok("PEXPIRETIME relative").integer();
    for snapshot in [false, true] {
        if snapshot {
            server.client().ok("SAVE");
        }
        server.kill();
        sleep(Duration::from_millis(350));
        server.start_again();
        let mut client = server.client();
        assert_eq!(client.line("GET soon"), reply::parse(b"$-1\r\n"));
        assert_eq!(client.ok("EXISTS soon").integer(), 0);
        assert_eq!(client.ok("PEXPIRETIME relative").integer(), relative);
        for (key, expiry) in [
            ("absolute", 33_177_117_420_123),
            ("changed", 33_177_117_420_456),
            ("kept", 33_177_117_420_789),
            ("persisted", -1),
            ("overwritten", -1),
        ] {
            assert_eq!(client.ok(&format!("PEXPIRETIME {key}")).integer(), expiry, "{key}");
        }
        assert_eq!(client.ok("GET kept").string(), "w");
        assert_eq!(client.ok("STRLEN long").integer(), 1000);
    }
}

/// An expired key that was written again must not lose the new value to a late removal.
#[test]
fn a_key_written_after_its_expiry_stays() {
    let mut server = recipe("no", 2).start();
    let mut client = server.client();
    for round in 0..20 {
        client.ok(&format!("SET k:{round} old PX 5"));
    }
    sleep(Duration::from_millis(20));
    for round in 0..20 {
        client.ok(&format!("APPEND k:{round} new"));
    }
    let before = dump(&server);
    assert!(before.values().all(|(value, expiry)| value == b"new" && *expiry == -1), "{before:?}");
    assert_survives_kill(&mut server, "written again");
}

// ---------------------------------------------------------------- polite ends

#[test]
fn a_clean_exit_keeps_everything() {
    let mut server = recipe("everysec", 2).start();
    for (round, end) in
        ["SIGTERM", "SHUTDOWN", "SHUTDOWN SAVE", "SHUTDOWN NOSAVE", "SHUTDOWN NOW"].into_iter().enumerate()
    {
        let mut client = server.client();
        for number in 0..200 {
            client.ok(&format!("SET {round}:{number} \"v\"*{number}"));
        }
        client.ok("SELECT 7");
        client.ok(&format!("INCRBY counter {round}"));
        let before = dump(&server);
        let status = match end {
            "SIGTERM" => server.terminate(),
            command => {
                client.send(&encode(&support::words::split(command))).expect("the connection holds");
                let last = client.receive_until_close().expect("the server closes");
                assert!(last.is_empty(), "{end}: {}", last.escape_ascii());
                server.wait_for_exit()
            }
        };
        assert_eq!(status.code(), Some(0), "{end}: {}", server.log());
        server.start_again();
        assert_same(&before, &dump(&server), end);
    }
}

#[test]
fn a_clean_exit_under_load_keeps_what_was_acknowledged() {
    let mut server = recipe("no", 2).start();
    let mut ledger = Ledger::default();
    let (answered, mut number) = (AtomicU64::new(0), 0);
    for round in 0..5 {
        let (client, before) = (server.client(), answered.load(Ordering::Relaxed));
        std::thread::scope(|scope| {
            let (ledger, number, answered) = (&mut ledger, &mut number, &answered);
            let running = KillOnDrop(&mut server);
            scope.spawn(move || ledger.write(0, client, &mut Random::new(round), number, answered));
            sleep(Duration::from_millis(60));
            wait_until("some replies", || answered.load(Ordering::Relaxed) > before);
            assert_eq!(running.0.terminate().code(), Some(0));
        });
        server.start_again();
        ledger.check(&mut server.client(), &format!("round {round}"));
    }
}

#[test]
fn large_values_survive() {
    let mut server = recipe("always", 1).start();
    let mut client = server.client();
    client.ok("SET large \"x\"*5000000");
    client.ok("SETRANGE large 4999999 y");
    client.ok("SET other \"z\"*70000");
    client.ok("BGREWRITEAOF");
    client.ok("APPEND other tail");
    assert_survives_kill(&mut server, "large values");
}

// ---------------------------------------------------------------- a disk that takes no more

/// A text that does not compress, so that no snapshot fits where the log does not.
fn noise(random: &mut Random) -> String {
    (0..20_000).map(|_| char::from(b'0' + random.below(75) as u8)).collect()
}

/// Writes until an error or the end of the connection; returns what was acknowledged.
fn write_until_refused(client: &mut Client, random: &mut Random) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for number in 0..100 {
        let (key, value) = (format!("k:{number}"), noise(random));
        match client.try_call(&["SET", &key, &value]) {
            Ok(reply) if reply == b"+OK\r\n" => acknowledged.push((key, value)),
            Ok(reply) => panic!("{}", reply.escape_ascii()),
            // The outcome of this one is unknown.
            Err(_) => return acknowledged,
        }
    }
    panic!("the disk takes everything");
}

#[test]
fn a_disk_that_takes_no_more_loses_nothing_acknowledged() {
    if Recipe::is_stand_in() {
        println!("not checked: Redis ends when its log cannot be written");
        return;
    }
    for (policy, heal) in [("always", true), ("everysec", false), ("no", true), ("always", false)] {
        let mut random = Random::new(1);
        let limited = recipe(policy, 2).with("auto-aof-rewrite-percentage", "0").with_file_size_limit(400);
        let mut server = limited.start();
        let acknowledged = write_until_refused(&mut server.client(), &mut random);
        assert!(acknowledged.len() > 5, "{policy}: {}", acknowledged.len());
        let check = |server: &Server, when: &str| {
            let mut client = server.client();
            for (key, value) in &acknowledged {
                assert_eq!(client.ok(&format!("GET {key}")).string(), *value, "{policy}, {when}: {key}");
            }
        };
        // Lasts a while, so that attempts to heal the log by a snapshot happen meanwhile.
        for _ in 0..20 {
            let mut client = server.client();
            for line in ["SET k:0 new", "MSET k:0 a k:1 b", "DEL k:1", "FLUSHALL", "PING"] {
                let reply = client.call(&support::words::split(line));
                let refused = reply.starts_with(b"-MISCONF Errors writing to the AOF file");
                assert!(refused, "{policy}: {line}: {}", reply.escape_ascii());
            }
            check(&server, "while the disk takes no more");
            sleep(Duration::from_millis(20));
        }
        if heal {
            server.lift_file_size_limit();
            // Refused if the server is just trying by itself.
            server.client().line("BGREWRITEAOF");
            wait_until("the log heals", || !server.client().line("SET healed yes").is_error());
            check(&server, "healed");
            server.set_recipe(recipe(policy, 2));
            assert_survives_kill(&mut server, policy);
        } else {
            // Nothing can be saved, so the server stays up, unless it is told not to save.
            let reply = server.client().call(&["SHUTDOWN"]);
            assert!(reply.starts_with(b"-ERR Errors trying to SHUTDOWN"), "{policy}: {}", reply.escape_ascii());
            check(&server, "still there");
            let mut client = server.client();
            client.send(&encode(&["SHUTDOWN", "NOSAVE"])).expect("the connection holds");
            assert_eq!(server.wait_for_exit().code(), Some(0), "{policy}: {}", server.log());
            server.set_recipe(recipe(policy, 2));
            server.start_again();
            check(&server, "after the restart");
            server.client().ok("SET healed yes");
        }
    }
}

// ---------------------------------------------------------------- one directory, one server

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    if Recipe::is_stand_in() {
        println!("not checked: Redis itself does not refuse");
        return;
    }
    let server = recipe("everysec", 1).start();
    server.client().ok("SET k v");
    let mut command = server.recipe().command(server.directory(), free_port());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut second = command.spawn().expect("the program starts");
    let status = wait(&mut second).expect("it ends by itself");
    let output = second.wait_with_output().expect("its output can be read");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).to_lowercase();
    assert!(!status.success(), "it must not end well: {said}");
    let directory = server.directory().to_string_lossy().to_lowercase();
    assert!(said.contains(&directory), "the message names the directory: {said}");
    assert!(
        ["lock", "in use", "already", "another"].iter().any(|word| said.contains(word)),
        "the message names the reason: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(server.client().ok("GET k").string(), "v", "the first goes on");
}

/// The lock goes with its holder: a crash does not lock anybody out.
#[test]
fn restarts_follow_each_other_at_once() {
    let mut server = recipe("always", 2).start();
    for round in 1..=10 {
        assert_eq!(server.client().ok("INCR starts").integer(), round);
        server.kill();
        server.start_again();
    }
}

/// Without a log, the last snapshot holds what FLUSHALL has removed.
#[test]
fn a_snapshot_follows_flushall_where_there_is_no_log() {
    let recipe = recipe("no", 2).with("appendonly", "no").with("save", "3600 1000000");
    let mut server = recipe.start();
    let mut client = server.client();
    for flush in ["FLUSHALL", "MULTI|SET later 2|FLUSHALL ASYNC|EXEC", "EVAL return(redis.call('FLUSHALL')) 0"] {
        client.ok("SET there before");
        client.ok("SAVE");
        client.ok("SET later 1");
        let saves = |client: &mut Client| {
            let info = client.ok("INFO persistence").string();
            let saves = info.lines().find_map(|line| line.strip_prefix("rdb_saves:")?.parse::<u64>().ok());
            saves.expect("the field is there")
        };
        let before = saves(&mut client);
        flush.split('|').for_each(|line| drop(client.ok(line)));
        let info = client.ok("INFO persistence").string();
        assert!(info.contains("rdb_changes_since_last_save:0\r\n"), "{flush}: {info}");
        wait_until("a snapshot follows", || saves(&mut client) > before);
        server.kill();
        server.start_again();
        client = server.client();
        assert_eq!(client.ok("EXISTS there later").integer(), 0, "{flush}");
    }
}

/// A directory that comes from a caller stays usable by the next server.
#[test]
fn the_data_moves_to_another_server() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut first = recipe("everysec", 4).start_in(home.path());
    first.client().ok("SET k v PXAT 33177117420123");
    let before = dump(&first);
    assert_eq!(first.terminate().code(), Some(0));
    drop(first);
    let second = recipe("always", 1).start_in(home.path());
    assert_same(&before, &dump(&second), "another server");
}

/// A renamed large value is not written again: its record names two shards at once.
#[test]
fn large_values_keep_their_names_through_kill_nine() {
    let mut server = recipe("everysec", 4).start();
    let part: Vec<String> = (0..400).map(|number| format!("element:{number:020}")).collect();
    for name in 0..4 {
        let mut client = server.client();
        (0..10).for_each(|_| drop(client.ok(&format!("RPUSH a:{name} {}", part.join(" ")))));
    }
    for _ in 0..3 {
        let clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
        let begun = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(name, mut client)| {
                let begun = Arc::clone(&begun);
                std::thread::spawn(move || {
                    let (mut one, mut other) = (format!("a:{name}"), format!("b:{name}"));
                    let length = |client: &mut Client, key: &str| reply::parse(&client.call(&["LLEN", key])).integer();
                    if length(&mut client, &one) == 0 {
                        std::mem::swap(&mut one, &mut other);
                    }
                    let mut acknowledged = length(&mut client, &one);
                    begun.fetch_add(1, Ordering::Relaxed);
                    loop {
                        let pushed = client.try_call(&["RPUSH", &one, "x"]);
                        let Ok(length) = pushed.map(|reply| reply::parse(&reply).integer()) else { break };
                        acknowledged = length;
                        if client.try_call(&["RENAME", &one, &other]).is_err() {
                            break;
                        }
                        std::mem::swap(&mut one, &mut other);
                    }
                    acknowledged
                })
            })
            .collect();
        wait_until("all have begun", || begun.load(Ordering::Relaxed) == 4);
        sleep(Duration::from_millis(80));
        server.kill();
        let acknowledged: Vec<i64> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
        server.start_again();
        let mut client = server.client();
        for (name, acknowledged) in acknowledged.iter().enumerate() {
            let lengths = ["a", "b"].map(|letter| client.ok(&format!("LLEN {letter}:{name}")).integer());
            assert_eq!(lengths.iter().filter(|length| **length > 0).count(), 1, "{lengths:?}");
            assert!((*acknowledged..=acknowledged + 1).contains(&lengths.iter().sum()), "{lengths:?} {acknowledged}");
        }
    }
}
