//! The configuration of a running server: changed by many at once; and directives that once did nothing.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use support::server::{Recipe, Server, free_port, wait};

/// After this long, what should have happened is a failure.
const FAILED_AFTER: Duration = Duration::from_secs(60);

/// Three waited for each other, and every other connection for them: CONFIG SET held the configuration's values
/// while it waited for the log's writer, the snapshot held the writer while it waited for the gate, and INFO asked
/// for the values behind the closed gate.
#[test]
fn info_in_a_transaction_does_not_wait_for_a_change_of_the_configuration() {
    let server = Recipe::under_test().with("io-threads", "4").with("enable-debug-command", "yes").start();
    for round in 0..5 {
        scope(|scope| {
            let mut transaction = server.client();
            scope.spawn(move || {
                for line in ["MULTI", "BGSAVE", "DEBUG SLEEP 0.3", "INFO memory", "CONFIG GET maxmemory"] {
                    transaction.ok(line);
                }
                let replies = transaction.ok("EXEC");
                assert!(replies.elements()[2].string().contains("used_memory:"), "{replies:?}");
            });
            for delay_ms in [10, 15] {
                let mut operator = server.client();
                scope.spawn(move || {
                    sleep(Duration::from_millis(delay_ms));
                    operator.ok("CONFIG SET appendonly no");
                });
            }
        });
        let mut client = server.client();
        client.ok(&format!("SET round {round}"));
        client.ok("CONFIG SET appendonly yes");
        assert_eq!(client.ok("CONFIG GET appendonly").elements()[1].string(), "yes");
    }
}

/// What a server says that refuses to start.
fn refusal(recipe: &Recipe, server: Option<&Server>) -> String {
    let home = tempfile::tempdir().expect("a temporary directory");
    let directory = server.map_or(home.path(), |server| server.directory());
    let mut command = recipe.command(directory, free_port());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let status = wait(&mut child).expect("it ends by itself");
    let output = child.wait_with_output().expect("it has ended");
    assert_eq!(status.code(), Some(1));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// What `/proc` says of a server in a file whose lines are `name: value`, or which is one value.
fn of_process(server: &Server, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", server.id())).expect("it runs").trim().to_owned()
}

#[test]
fn writes_are_refused_without_enough_replicas() {
    let server = Recipe::under_test().with("min-slaves-to-write", "1").start();
    let mut client = server.client();
    let refused = b"-NOREPLICAS Not enough good replicas to write.\r\n";
    for call in [["SET", "k", "v"], ["LPUSH", "l", "v"]] {
        assert_eq!(client.call(&call), refused);
    }
    client.ok("MULTI");
    assert_eq!(client.call(&["SET", "k", "v"]), refused);
    assert!(client.line("EXEC").is_error());
    assert_eq!(client.ok("EXISTS k l").integer(), 0);
    client.ok("CONFIG SET min-replicas-to-write 0");
    client.ok("SET k v");
}

#[test]
fn the_score_for_the_kernel_follows() {
    let server = Recipe::under_test().with("oom-score-adj-values", "20 0 0").start();
    let mut client = server.client();
    let own: i64 = fs::read_to_string("/proc/self/oom_score_adj").expect("a score").trim().parse().expect("a number");
    let score = || of_process(&server, "oom_score_adj").parse::<i64>().expect("a number");
    assert_eq!(score(), own);
    client.ok("CONFIG SET oom-score-adj yes");
    assert_eq!(score(), (own + 20).min(1000));
    client.ok("CONFIG SET oom-score-adj absolute oom-score-adj-values \"900 0 0\"");
    assert_eq!(score(), 900);
    client.ok("CONFIG SET oom-score-adj-values \"950 0 0\"");
    assert_eq!(score(), 950);
}

#[test]
fn threads_run_on_the_cores_of_the_list() {
    let allowed = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("the kernel says it").trim().to_owned()
    };
    let own = allowed(&fs::read_to_string("/proc/self/status").expect("a status"));
    let first = own.split(['-', ',']).next().expect("a core").to_owned();
    let server = Recipe::under_test().with("server-cpulist", &first).start();
    server.client().ok("PING");
    let mut seen = 0;
    for task in fs::read_dir(format!("/proc/{}/task", server.id())).expect("it runs") {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task.expect("an entry").path().join("status")) else { continue };
        assert_eq!(allowed(&status), first, "{status}");
        seen += 1;
    }
    assert!(seen > 1, "{seen} threads");
    let said = refusal(&Recipe::under_test().with("server-cpulist", "3-x"), None);
    assert!(said.contains("server-cpulist") && said.contains("3-x"), "{said}");
}

#[test]
fn the_unix_socket_belongs_to_the_group() {
    let output = Command::new("id").args(["-G", "-n"]).output().expect("a program of every system");
    let names = String::from_utf8(output.stdout).expect("text");
    let home = tempfile::tempdir().expect("a temporary directory");
    let is_root = fs::metadata(home.path()).expect("it is there").uid() == 0;
    // Others may only use a group of their own.
    let name = if is_root { "daemon" } else { names.split_whitespace().next_back().expect("a group") };
    let groups = fs::read_to_string("/etc/group").expect("groups");
    let line = groups.lines().find(|line| line.split(':').next() == Some(name)).expect("a group of that name");
    let id: u32 = line.split(':').nth(2).expect("its number").parse().expect("a number");

    let server = Recipe::under_test().on_unix_socket().with("unixsocketgroup", name).start();
    server.client().ok("PING");
    assert_eq!(fs::metadata(server.directory().join("socket")).expect("it is there").gid(), id);
    let said = refusal(&Recipe::under_test().on_unix_socket().with("unixsocketgroup", "no such group"), None);
    assert!(said.contains("unixsocketgroup") && said.contains("no such group"), "{said}");
}

#[test]
fn a_torn_log_is_refused_on_demand() {
    let mut server = Recipe::under_test().with("appendfsync", "no").start();
    server.client().ok("SET k \"v\"*100");
    server.client().ok("SET last \"v\"*100");
    server.kill();
    let files = fs::read_dir(server.directory()).expect("it is there").map(|entry| entry.expect("an entry").path());
    let is_log =
        |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"log-"));
    let log = files.filter(is_log).max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len())).expect("a log");
    let bytes = fs::read(&log).expect("it is there");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("content");
    fs::write(&log, &bytes[..end - 10]).expect("it can be written");

    let strict = Recipe::under_test().with("aof-load-truncated", "no");
    let said = refusal(&strict, Some(&server));
    let name = log.file_name().expect("a name").to_str().expect("text");
    assert!(said.contains(name) && said.contains("offset") && said.contains("aof-load-truncated yes"), "{said}");
    assert_eq!(fs::read(&log).expect("it is there").len(), end - 10, "nothing was changed");
    server.start_again();
    assert_eq!(server.client().ok("EXISTS k last").integer(), 1);
}

#[test]
fn the_largest_clients_are_closed_when_all_take_too_much() {
    let server = Recipe::under_test().with("maxmemory-clients", "8mb").start();
    let begin = |bytes: usize, no_evict: bool| {
        let mut client = server.client();
        client.ok(if no_evict { "CLIENT NO-EVICT on" } else { "CLIENT NO-EVICT off" });
        client.send(b"*2\r\n$3\r\nGET\r\n$100000000\r\n").expect("it listens");
        // It may be closed before it has sent everything.
        let _ = client.send(&vec![b'x'; bytes]);
        client
    };
    let mut operator = server.client();
    operator.ok("CLIENT NO-EVICT on");
    // The one that waited for the start may not be gone yet.
    let mut await_evicted = |wanted: u32, left: usize, why: &str| {
        let start = Instant::now();
        loop {
            let (info, list) = (operator.ok("INFO stats").string(), operator.ok("CLIENT LIST").string());
            if info.contains(&format!("evicted_clients:{wanted}\r\n")) && list.lines().count() == left {
                return;
            }
            assert!(start.elapsed() < FAILED_AFTER, "{why}: {list}{info}{}", server.log());
            sleep(Duration::from_millis(5));
        }
    };
    let _small = begin(1 << 20, false);
    let mut large = begin(9 << 20, false);
    await_evicted(1, 2, "the operator and the small one stay");
    if let Err(error) = large.receive_until_close() {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    let _kept = begin(9 << 20, true);
    await_evicted(2, 2, "who is kept makes the others go");
}

/// A worker looks for expired keys each 50 ms at most with the least effort, however quick the machine is.
#[test]
fn more_effort_removes_expired_keys_sooner() {
    const KEYS: u32 = 6;
    let least = Duration::from_millis(50) * (KEYS - 1);
    let server = Recipe::under_test().with("io-threads", "1").start();
    let mut client = server.client();
    let mut delay = |effort: u32| {
        client.ok(&format!("CONFIG SET active-expire-effort {effort}"));
        let start = Instant::now();
        for _ in 0..KEYS {
            client.ok("SET k v PX 1");
            while client.ok("DBSIZE").integer() > 0 {
                assert!(start.elapsed() < FAILED_AFTER, "it is not removed");
                sleep(Duration::from_millis(1));
            }
        }
        start.elapsed()
    };
    let little = delay(1);
    assert!(little >= least, "{little:?} with the least");
    let start = Instant::now();
    // It may be held up now and then, but not every time.
    while delay(10) >= least {
        assert!(start.elapsed() < FAILED_AFTER, "never sooner than {least:?} with the most");
    }
}

/// CRC-64 of Redis: Jones, reflected, from 0.
fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x95AC_9329_AC4B_C9B5 } else { 0 })
    })
}

#[test]
fn payloads_and_files_of_unknown_versions_are_read_on_demand() {
    let recipe = Recipe::under_test().with("save", "").with("io-threads", "2");
    let server = recipe.clone().start();
    let mut client = server.client();
    let mut payload = b"\0\x05hello\x4f\0".to_vec();
    payload.extend(crc64(&payload).to_le_bytes());
    let restore: [&[u8]; 4] = [b"RESTORE", b"k", b"0", &payload];
    assert_eq!(client.call(&restore), b"-ERR DUMP payload version or checksum are wrong\r\n");
    client.ok("CONFIG SET rdb-version-check relaxed");
    assert_eq!(client.call(&restore), b"+OK\r\n");
    assert_eq!(client.ok("GET k").string(), "hello");

    let mut file = b"REDIS0079\xfe\0\0\x01k\x05hello\xff".to_vec();
    file.extend(crc64(&file).to_le_bytes());
    let home = tempfile::tempdir().expect("a temporary directory");
    let rdb = home.path().join("dump.rdb");
    fs::write(&rdb, file).expect("our own");
    let into = home.path().join("strict");
    let import = |into: &std::path::Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironkeep"));
        let output = command.arg("import").arg(&rdb).arg("--into").arg(into).args(more).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = import(&into, &[]);
    assert!(code == Some(1) && text.contains("REDIS0079"), "{text}");
    let into = home.path().join("relaxed");
    assert_eq!(import(&into, &["--any-version"]).0, Some(0));
    let server = recipe.start_in(&into);
    assert_eq!(server.client().ok("GET k").string(), "hello");
}
