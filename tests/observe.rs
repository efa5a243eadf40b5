//! What an operator sees of a server with several workers: figures add up, whichever worker a client is on.

mod support;

use std::time::{Duration, Instant};
use support::client::{Client, encode};
use support::reply::Reply;
use support::server::{Recipe, Server};

const WORKERS: [usize; 3] = [1, 2, 4];
const CLIENTS: usize = 6;

fn start(workers: usize) -> Server {
    Recipe::under_test()
        .with("save", "")
        .with("enable-debug-command", "yes")
        .with("io-threads", &workers.to_string())
        .start()
}

/// A reply as words.
fn flat(reply: &Reply) -> String {
    match reply {
        Reply::Text(_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Integer(number) => number.to_string(),
        Reply::Null(_) => "null".into(),
        Reply::Aggregate(_, elements) => elements.iter().map(flat).collect::<Vec<_>>().join(" "),
    }
}

fn told(client: &mut Client, line: &str) -> String {
    flat(&client.line(line))
}

/// The value of a field of INFO.
fn field(client: &mut Client, section: &str, name: &str) -> String {
    let info = told(client, &format!("INFO {section}"));
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {info}")).trim_end().to_owned()
}

/// Runs the same commands on several connections at once.
fn on_all(server: &Server, lines: &[&str]) {
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = server.client();
                lines.iter().for_each(|line| drop(client.ok(line)));
            });
        }
    });
}

#[test]
fn hot_keys_of_all_workers_add_up() {
    for workers in WORKERS {
        let server = start(workers);
        let mut operator = server.client();
        operator.ok("HOTKEYS START METRICS 2 CPU NET COUNT 3");
        on_all(&server, &["INCR hot", "INCR hot", "GET hot", "MULTI", "SET warm x", "EXEC"]);
        operator.ok("HOTKEYS STOP");
        let got = told(&mut operator, "HOTKEYS GET");
        // The replies to INCR and GET have one or two digits, so the bytes are within those of each.
        let bytes = got.rsplit(" by-net-bytes ").next().expect("a list");
        let words: Vec<&str> = bytes.split(' ').collect();
        assert_eq!((words.len(), words[0], words[2]), (4, "hot", "warm"), "{workers} workers: {got}");
        let (hot, warm): (usize, usize) = (words[1].parse().expect("bytes"), words[3].parse().expect("bytes"));
        assert_eq!(warm, CLIENTS * (30 + 5), "{workers} workers");
        let each = 2 * (23 + 4) + 22 + 7;
        assert!((CLIENTS * each..=CLIENTS * (each + 3)).contains(&hot), "{workers} workers: {hot}");
    }
}

/// What a command has cost that waits for a key is counted for the key once, when it is served.
#[test]
fn hot_keys_count_who_waited_once() {
    let server = start(2);
    let (mut waiting, mut operator) = (server.client(), server.client());
    operator.ok("HOTKEYS START METRICS 1 NET COUNT 3");
    waiting.send(&encode(&["BLPOP", "key", "0"])).expect("the connection holds");
    while field(&mut operator, "clients", "blocked_clients") != "1" {}
    operator.ok("RPUSH key element");
    waiting.receive().expect("a reply");
    operator.ok("HOTKEYS STOP");
    let got = told(&mut operator, "HOTKEYS GET");
    let bytes = got.rsplit(" by-net-bytes ").next().expect("a list");
    // BLPOP and its reply, RPUSH and its reply.
    assert_eq!(bytes, format!("key {}", 31 + 26 + 37 + 4), "{got}");
}

#[test]
fn windows_of_hot_keys_are_of_all_workers() {
    let server = start(4);
    let mut operator = server.client();
    operator.ok("CONFIG SET hotkeys-top-k 4 hotkeys-sampling-percentage 100");
    let begun = Instant::now();
    loop {
        on_all(&server, &["GET missing", "GET missing", "SET other x"]);
        let got = told(&mut operator, "HOTKEYS GET");
        if got.starts_with("key missing db 0 qps ") && got.contains(" key other db 0 qps ") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{got}");
    }
}

#[test]
fn calls_and_threads_are_counted_on_all_workers() {
    for workers in WORKERS {
        let server = start(workers);
        on_all(&server, &["SET k v", "GET k", "GET k"]);
        let mut operator = server.client();
        let stats = told(&mut operator, "INFO commandstats");
        assert!(stats.contains(&format!("cmdstat_get:calls={},", 2 * CLIENTS)), "{stats}");
        let histogram = told(&mut operator, "LATENCY HISTOGRAM get");
        assert!(histogram.starts_with(&format!("get calls {} histogram_usec ", 2 * CLIENTS)), "{histogram}");
        let threads = told(&mut operator, "INFO threads");
        assert_eq!(threads.matches("io_thread_").count(), workers, "{threads}");
        for name in ["eventloop_cycles", "total_client_processing_events", "commands_per_parse_batch_cnt"] {
            assert_ne!(field(&mut operator, "stats", name), "0", "{name}");
        }
    }
}

#[test]
fn a_large_reply_is_logged_though_its_command_waited() {
    for workers in WORKERS {
        let server = start(workers);
        let (mut waiting, mut pushing) = (server.client(), server.client());
        pushing.ok("CONFIG SET commandlog-reply-larger-than 1000");
        waiting.send(b"BLPOP l 0\r\n").expect("sent");
        let begun = Instant::now();
        while field(&mut pushing, "clients", "blocked_clients") != "1" {
            assert!(begun.elapsed() < Duration::from_secs(60), "BLPOP does not wait");
        }
        pushing.ok("COMMANDLOG RESET large-reply");
        pushing.ok(&format!("RPUSH l {}", "x".repeat(2000)));
        waiting.receive().expect("the element");
        let logged = told(&mut pushing, "COMMANDLOG GET -1 large-reply");
        assert!(logged.contains("BLPOP l 0"), "{workers} workers: {logged}");
    }
}

#[test]
fn what_took_long_is_an_event_and_in_the_slow_log() {
    for workers in WORKERS {
        let server = start(workers);
        let mut client = server.client();
        client.ok("CONFIG SET latency-monitor-threshold 1 slowlog-log-slower-than 1000");
        client.ok("CONFIG RESETSTAT");
        client.ok("DEBUG SLEEP 0.005");
        assert!(told(&mut client, "LATENCY LATEST").contains("command "));
        assert!(told(&mut client, "SLOWLOG GET -1").contains("DEBUG SLEEP 0.005"));
        assert!(told(&mut client, "INFO commandstats").contains(",slowlog_count=1,slowlog_time_ms_sum="));
        assert_ne!(field(&mut client, "stats", "slowlog_commands_count"), "0");
    }
}

#[test]
fn a_crash_by_debug_ends_the_process_and_loses_nothing() {
    for word in ["SEGFAULT", "PANIC", "ASSERT", "OOM"] {
        let mut server = start(2);
        let mut client = server.client();
        client.ok("CONFIG SET appendfsync always");
        client.ok(&format!("SET k {word}"));
        client.send(format!("DEBUG {word}\r\n").as_bytes()).expect("sent");
        assert!(client.receive().is_err(), "{word} was answered");
        assert!(!server.wait_for_exit().success());
        assert!(server.log().contains(word), "{}", server.log());
        server.start_again();
        assert_eq!(told(&mut server.client(), "GET k"), word);
    }
}

/// Waits until INFO shows a number above zero in a field that is zero while nothing runs.
fn wait_for_field(client: &mut Client, section: &str, name: &str) -> u64 {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "{name} stays zero");
        let info = told(client, &format!("INFO {section}"));
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("0");
        match value.trim_end().parse::<u64>().expect("a number") {
            0 => std::thread::sleep(Duration::from_millis(1)),
            number => return number,
        }
    }
}

#[test]
fn snapshots_and_reloads_tell_how_far_they_are() {
    const KEYS: u64 = 20_000;
    let server = start(2);
    let mut client = server.client();
    assert_eq!(field(&mut client, "persistence", "loading"), "0");
    client.ok(&format!("DEBUG POPULATE {KEYS}"));
    // Longer than the test. It ends each by itself.
    client.ok("CONFIG SET rdb-key-save-delay 20000 key-load-delay 20000");
    drop(client.line("BGSAVE"));
    let processed = wait_for_field(&mut client, "persistence", "current_save_keys_processed");
    assert!(processed <= KEYS, "{processed}");
    assert_eq!(field(&mut client, "persistence", "current_save_keys_total"), KEYS.to_string());
    let until = Instant::now() + Duration::from_secs(60);
    while field(&mut client, "persistence", "current_fork_perc") == "0.00" {
        assert!(Instant::now() < until, "the snapshot makes no progress");
        std::thread::sleep(Duration::from_millis(10));
    }
    client.ok("CONFIG SET rdb-key-save-delay 0");
    while field(&mut client, "persistence", "rdb_bgsave_in_progress") == "1" {
        assert!(Instant::now() < until, "the snapshot does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in ["current_save_keys_processed", "current_save_keys_total"] {
        assert_eq!(field(&mut client, "persistence", name), "0", "{name}");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| server.client().ok("DEBUG RELOAD NOSAVE"));
        let loaded = wait_for_field(&mut client, "persistence", "loading_loaded_bytes");
        let total = wait_for_field(&mut client, "persistence", "loading_total_bytes");
        assert!(loaded <= total, "{loaded} of {total}");
        assert_eq!(field(&mut client, "persistence", "loading"), "1");
        client.ok("CONFIG SET key-load-delay 0");
    });
    assert_eq!(field(&mut client, "persistence", "loading"), "0");
}

/// The columns of a row of INFO, as numbers.
fn columns(client: &mut Client, section: &str, name: &str) -> std::collections::BTreeMap<String, f64> {
    let row = field(client, section, name);
    let columns = row.split(',').filter_map(|column| column.split_once('='));
    columns.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn service_times_of_all_workers_add_up_and_so_do_their_parts() {
    for workers in WORKERS {
        let server = start(workers);
        let mut operator = server.client();
        operator.ok("CONFIG SET appendonly yes appendfsync always slowlog-log-slower-than 0");
        operator.ok("CONFIG RESETSTAT");
        on_all(&server, &["SET k v", "SET k v", "GET k"]);
        // A pipeline is one batch.
        let mut client = server.client();
        client.send("SET k v\r\n".repeat(16).as_bytes()).expect("sent");
        (0..16).for_each(|_| drop(client.receive().expect("a reply")));
        // Its own reply has left before the next command is read.
        client.ok("PING");
        let parts = ["wait", "run", "log", "send"];
        // A reply may be here before its time is counted.
        let until = Instant::now() + Duration::from_secs(60);
        let counts = [("set", 2 * CLIENTS + 16), ("get", CLIENTS)];
        let counted = counts.map(|(command, count)| format!("service_whole_usec_{command}:count={count},"));
        loop {
            let info = told(&mut operator, "INFO servicestats");
            if counted.iter().all(|row| info.contains(row)) {
                break;
            }
            assert!(Instant::now() < until, "{workers} workers: {info}");
        }
        let of_slow = told(&mut operator, "SLOWLOG PARTS -1");
        assert!(of_slow.split(' ').count() > 6 * 3 * CLIENTS, "{of_slow}");
        for (command, count) in counts {
            let whole = columns(&mut operator, "servicestats", &format!("service_whole_usec_{command}"));
            assert_eq!(whole["count"], count as f64, "{workers} workers, {command}");
            let mut sum = 0.0;
            for part in parts {
                let part = columns(&mut operator, "servicestats", &format!("service_{part}_usec_{command}"));
                assert_eq!(part["count"], count as f64);
                assert!(part["p50"] <= part["p99.9"] && part["p99.9"] <= part["max"], "{part:?}");
                sum += part["sum"];
            }
            // Each is shown with three digits behind the point.
            assert!((whole["sum"] - sum).abs() < 0.01, "{} is not {sum}", whole["sum"]);
        }
        for name in ["fsync_us", "block_bytes", "batch_commands"] {
            assert_ne!(columns(&mut operator, "servicestats", name)["count"], 0.0, "{name}");
        }
        operator.ok("CONFIG SET latency-tracking no");
        operator.ok("CONFIG RESETSTAT");
        on_all(&server, &["SET k v"]);
        assert!(!told(&mut operator, "INFO servicestats").contains("service_whole_usec_set"));
    }
}

#[test]
fn the_lag_of_expiry_and_the_freeze_of_snapshots_are_counted() {
    let server = start(2);
    let mut client = server.client();
    (0..20).for_each(|number| drop(client.ok(&format!("SET k:{number} v PX 1"))));
    let until = Instant::now() + Duration::from_secs(60);
    while columns(&mut client, "servicestats", "expiry_lag_ms")["count"] != 20.0 {
        assert!(Instant::now() < until, "{}", told(&mut client, "INFO servicestats"));
        std::thread::sleep(Duration::from_millis(10));
    }
    client.ok("SAVE");
    assert_eq!(columns(&mut client, "servicestats", "snapshot_freeze_us")["count"], 1.0);
    client.ok("CONFIG RESETSTAT");
    for name in ["expiry_lag_ms", "snapshot_freeze_us", "parked_us"] {
        assert_eq!(columns(&mut client, "servicestats", name)["count"], 0.0, "{name}");
    }
}

/// The values of a column of BIGKEYS, whose rows are maps of this many words.
fn rows(client: &mut Client, line: &str, words: usize) -> Vec<Vec<String>> {
    let all: Vec<String> = told(client, line).split(' ').map(str::to_owned).collect();
    all.chunks_exact(words).map(<[String]>::to_vec).collect()
}

#[test]
fn big_keys_are_known_after_writes_renames_and_a_reload() {
    let server = start(4);
    let mut client = server.client();
    client.ok(&format!("SET big:1 {}", "x".repeat(100_000)));
    client.ok(&format!("RPUSH list:1 {}", "e ".repeat(5000)));
    client.ok("DEBUG POPULATE 5000 small 10");
    let first = |client: &mut Client, line: &str| rows(client, line, 10).first().map(|row| row[1].clone());
    assert_eq!(first(&mut client, "BIGKEYS").as_deref(), Some("big:1"), "a large request is measured at once");
    assert_eq!(first(&mut client, "BIGKEYS ELEMENTS").as_deref(), Some("list:1"));
    client.ok("RENAME big:1 big:2");
    let wait_for = |client: &mut Client, key: Option<&str>| {
        let until = Instant::now() + Duration::from_secs(60);
        while first(client, "BIGKEYS").as_deref() != key {
            assert!(Instant::now() < until, "{}", told(client, "BIGKEYS"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(&mut client, Some("big:2"));
    client.ok("DEBUG RELOAD");
    wait_for(&mut client, Some("big:2"));
    let until = Instant::now() + Duration::from_secs(60);
    // The last whole walk tells of all keys.
    while !rows(&mut client, "BIGKEYS PREFIXES COUNT 9", 12).iter().any(|row| row[1] == "small:" && row[5] == "5000") {
        assert!(Instant::now() < until, "{}", told(&mut client, "BIGKEYS PREFIXES COUNT 9"));
        std::thread::sleep(Duration::from_millis(20));
    }
    client.ok("FLUSHALL");
    assert_eq!(first(&mut client, "BIGKEYS"), None);
    client.ok("CONFIG SET key-statistics no");
    assert!(client.line("BIGKEYS").is_error());
}

#[test]
fn busy_keys_and_the_hits_of_prefixes_are_sampled_on_all_workers() {
    let server = start(4);
    let mut client = server.client();
    client.ok("SET user:hot v");
    // In about 1000 groups of commands, some are among the samples: that none is has a chance of 1 in millions.
    let lines = ["GET user:hot", "GET user:missing"].repeat(500);
    on_all(&server, &lines);
    let hottest = rows(&mut client, "BIGKEYS CALLS COUNT 2", 8);
    let names: Vec<&str> = hottest.iter().map(|row| row[1].as_str()).collect();
    assert!(names.contains(&"user:hot") && names.contains(&"user:missing"), "{hottest:?}");
    let prefixes = rows(&mut client, "BIGKEYS PREFIXES", 12);
    let user = prefixes.iter().find(|row| row[1] == "user:").expect("the prefix");
    assert!(user[9] != "0" && user[11] != "0", "{user:?}");
    client.ok("CONFIG RESETSTAT");
    assert!(!told(&mut client, "BIGKEYS CALLS").contains("user:hot"));
}

/// Runs a line until this many keys are left.
fn until_left(client: &mut Client, line: &str, left: i64) {
    let begun = Instant::now();
    while client.ok("DBSIZE").integer() != left {
        client.ok(line);
        assert!(begun.elapsed() < Duration::from_secs(60), "{line} leaves more than {left}");
    }
}

/// SCAN and RANDOMKEY left expired keys to the sweep, without an event at the time.
#[test]
fn walks_remove_the_expired_keys_that_they_meet() {
    let recipe = Recipe::under_test().with("enable-debug-command", "yes").with("appendonly", "yes");
    let server = recipe.with("notify-keyspace-events", "Ex").start();
    let (mut client, mut listener) = (server.client(), server.client());
    client.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    listener.ok("SUBSCRIBE __keyevent@0__:expired");
    client.ok("SET lasting v");
    for line in ["SCAN 0 COUNT 3000", "SCAN 0 COUNT 3000 MATCH k*", "SCAN 0 COUNT 3000 TYPE list", "RANDOMKEY"] {
        client.ok("SET k v PX 1");
        until_left(&mut client, line, 1);
        let told = listener.receive().expect("an event");
        assert!(told.ends_with(b"$1\r\nk\r\n"), "{line}: {}", told.escape_ascii());
    }
    client.ok("SET k v PX 1");
    let begun = Instant::now();
    while client.ok("KEYS *").elements().len() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "k expires");
    }
    client.ok("SCAN 0 COUNT 3000 MATCH z*");
    client.ok("CONFIG SET compatibility-mode valkey");
    client.ok("SCAN 0 COUNT 3000 TYPE list");
    assert_eq!(client.ok("DBSIZE").integer(), 2, "none of these removes it");
    for line in ["MULTI", "SCAN 0 COUNT 3000", "EXEC"] {
        client.ok(line);
    }
    assert_eq!(client.ok("DBSIZE").integer(), 2, "nor a transaction");
    until_left(&mut client, "SCAN 0 COUNT 3000", 1);
}

/// The snapshot that follows had not begun yet.
#[test]
fn no_changes_are_left_to_save_once_everything_is_removed() {
    let recipe = Recipe::under_test().with("appendonly", "no");
    let server = recipe.with("save", "3600 1000000").with("flush-undo-seconds", "0").start();
    let mut client = server.client();
    for flush in ["FLUSHALL", "FLUSHALL ASYNC"] {
        client.ok("MSET a 1 b 2 c 3");
        client.ok(flush);
        assert_eq!(field(&mut client, "persistence", "rdb_changes_since_last_save"), "0", "{flush}");
    }
    // Without save points no snapshot follows. On this server one may just be about to begin.
    let server = Recipe::under_test().with("appendonly", "no").with("save", "").start();
    let mut client = server.client();
    client.ok("MSET a 1 b 2 c 3");
    client.ok("FLUSHALL");
    assert_ne!(field(&mut client, "persistence", "rdb_changes_since_last_save"), "0");
}

/// A query that was complete with the read that went beyond the limit was executed.
#[test]
fn a_query_beyond_the_limit_is_counted_also_if_its_end_has_arrived() {
    let server = Recipe::under_test().with("client-query-buffer-limit", "1mb").start();
    let mut operator = server.client();
    for (len, closed) in [(1_048_000, 0), (1_048_576, 1), (1_100_000, 2)] {
        let mut client = server.client();
        // The connection may be closed before all of it is sent.
        let sent = client.send(&encode(&["SET", "k", &"x".repeat(len)]));
        let replied = sent.and_then(|()| client.receive());
        let expected = replied.as_ref().is_ok_and(|reply| reply == b"+OK\r\n");
        assert_eq!(expected, closed == 0, "{len} bytes");
        let counted = field(&mut operator, "stats", "client_query_buffer_limit_disconnections");
        assert_eq!(counted, closed.to_string(), "{len} bytes");
    }
}
