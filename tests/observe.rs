//! What an operator sees of a server with several workers: figures add up, whichever worker a client is on.

mod support;

use std::time::{Duration, Instant};
use support::client::Client;
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
