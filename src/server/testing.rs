//! A server inside a test, on a simulated disk: started, crashed and restarted like the real one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::assemble::{StartError, reclaimer, recover_from};
use crate::base::config::Config;
use crate::base::logging::{self, Level};
use crate::base::random::Random;
use crate::core::{Client, Server, Table};
use crate::durable::saving;
use crate::exec::testing::{BURIED, dump, with_args, words};
use crate::exec::{Executor, PATIENCE};
use crate::keyspace::SHARDS;
use crate::persist::storage::{SimStorage, Storage};
use crate::persist::{FsyncPolicy, StoreOptions};
use crate::resp::Output;
use crate::session;

/// All keys: database, key, value, expiry.
pub(super) type Dump = Vec<(u32, Vec<u8>, Vec<u8>, Option<u64>)>;

/// Ends other threads when it goes, also by a panic. A scope waits for its threads, so that a failure would hang
/// otherwise.
pub(super) struct SetOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Starts a server on the disk. `generation` differs from run to run.
pub(super) fn start(
    storage: &SimStorage,
    generation: u64,
    workers: usize,
    policy: FsyncPolicy,
) -> Result<Arc<Server>, StartError> {
    start_with(storage, generation, workers, policy, session::table())
}

/// The same, with segments of the log that end at this length. Perhaps it serves while it loads.
pub(super) fn start_in_segments(
    storage: &SimStorage,
    generation: u64,
    workers: usize,
    policy: FsyncPolicy,
    bytes: u64,
    serves_while_loading: bool,
) -> Result<Arc<Server>, StartError> {
    let loading = if serves_while_loading { "serve-while-loading-min-size 0" } else { "" };
    let line = format!("log-segment-size {bytes}\n{loading}");
    start_configured(storage, generation, workers, policy, session::table(), &line)
}

/// The same, with a given table.
pub(super) fn start_with(
    storage: &SimStorage,
    generation: u64,
    workers: usize,
    policy: FsyncPolicy,
    table: Table,
) -> Result<Arc<Server>, StartError> {
    start_configured(storage, generation, workers, policy, table, "")
}

/// Starts a server that serves while it loads.
pub(super) fn start_loading(
    storage: &SimStorage,
    generation: u64,
    workers: usize,
    policy: FsyncPolicy,
) -> Result<Arc<Server>, StartError> {
    start_configured(storage, generation, workers, policy, session::table(), "serve-while-loading-min-size 0")
}

/// The same, with lines of configuration more.
pub(super) fn start_configured(
    storage: &SimStorage,
    generation: u64,
    workers: usize,
    policy: FsyncPolicy,
    table: Table,
    line: &str,
) -> Result<Arc<Server>, StartError> {
    logging::set_level(Level::Nothing);
    // The thread of a snapshot keeps the server before for a moment longer than its outcome.
    let begun = Instant::now();
    while storage.is_locked() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let text = "appendonly yes\nsave \"\"\nenable-debug-command yes\nscript-rollback on-error\n";
    let config = Config::from_text([text, line].concat().as_bytes()).expect("a configuration");
    let options = StoreOptions {
        workers,
        shards: SHARDS as u32,
        hash_seed: *b"0123456789abcdef",
        generation,
        appendonly: true,
        policy,
        clock: Arc::new(|| 1_700_000_000_000),
        cut_at_corruption: false,
        refuse_torn: false,
        foreign: Vec::new(),
        import: false,
        encryption: crate::persist::crypt::tests::current(),
        segment_bytes: 0,
        indexes: true,
        threads: false,
    };
    recover_from(Arc::new(storage.clone()), options, config, table, reclaimer()?).map(|(server, ..)| server)
}

/// The disk with the content of a directory under `data/`.
pub(super) fn golden(directory: &str) -> SimStorage {
    let storage = SimStorage::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(directory);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        storage.put(&entry.file_name().into_string().unwrap(), &std::fs::read(entry.path()).unwrap());
    }
    storage
}

/// One connection, served by a worker of its own.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) executor: Executor,
}

impl Caller {
    pub(super) fn new(server: &Arc<Server>, worker: usize) -> Caller {
        let record = server.clients.register(Default::default());
        let user = server.users.of_new_connection();
        Caller { client: Client::new(record, user), executor: Executor::new(Arc::clone(server), worker) }
    }

    /// Runs one command line. Returns the reply with spaces for its line ends.
    pub(super) fn run(&mut self, line: &str) -> String {
        self.run_raw(line).replace("\r\n", " ")
    }

    /// The same, and returns the bytes of the reply.
    pub(super) fn run_raw(&mut self, line: &str) -> String {
        let mut out = Output::new();
        with_args(&words(line), |args| {
            while self.executor.run(&mut self.client, &[args], &mut out, PATIENCE).parked.is_some() {}
        });
        String::from_utf8_lossy(out.as_bytes()).into_owned()
    }
}

/// The content of the server, after a check of its consistency.
pub(super) fn state(server: &Server) -> Dump {
    let all = dump(&server.keyspace);
    for (db, key, _, expiry) in all.iter().filter(|(_, key, ..)| !key.starts_with(BURIED)) {
        // A key below its bound would never be swept.
        let bound = server.keyspace.earliest_expiry(server.keyspace.key(key).shard());
        assert!(expiry.is_none_or(|at| bound <= at), "the sweep never comes to {db} {}", key.escape_ascii());
    }
    all
}

/// Makes a snapshot like BGSAVE, on its own thread, and waits for it.
pub(super) fn snapshot(server: &Arc<Server>, purpose: crate::core::server::SavePurpose) -> Result<(), String> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    assert_eq!(saving::request(server, purpose, false, Some(done)), saving::Requested::Started);
    outcome.blocking_recv().expect("the snapshot ends")
}

/// A random command on few keys, most of which change something. `prefix` opens every key.
pub(super) fn random_command(random: &mut Random, prefix: &str) -> String {
    let mut key = || format!("{prefix}{}", random.below(9));
    let (a, b) = (key(), key());
    let number = random.below(1000);
    let long = "x".repeat([1, 20, 127, 128, 129, 700][random.below(6) as usize]);
    let db = [0, 0, 1, 2, 15][random.below(5) as usize];
    let at_ms = 33_177_117_420_000 + number;
    match random.below(52) {
        50 if random.below(2) == 0 => "UNFLUSH".to_owned(),
        50 | 51 if random.below(3) == 0 => "UNFLUSH REPLACE".to_owned(),
        50 | 51 => "UNFLUSH MERGE".to_owned(),
        40 | 41 => format!("BLESS SET {a} NO-EVICT"),
        42 => format!("BLESS CLEAR {a} NO-EVICT"),
        0..4 => format!("SET {a} {number}"),
        4..6 => format!("SET {a} {long}{number}"),
        6 => format!("SET {a} v{number} PXAT {at_ms}"),
        7 => format!("SET {a} v{number} EX {}", 10_000 + number),
        8 => format!("SET {a} brief{number} PX 1"),
        9 => format!("SET {a} kept{number} XX KEEPTTL GET"),
        10 => format!("SETEX {a} 10000 {long}"),
        11 => format!("GETEX {a} PXAT {at_ms}"),
        12 => format!("GETEX {a} PERSIST"),
        13 => format!("GETDEL {a}"),
        14 => format!("GETSET {a} {number}"),
        15..18 => format!("INCRBY {a} {number}"),
        18 => format!("DECR {a}"),
        19 => format!("INCRBYFLOAT {a} 0.5"),
        20 | 21 => format!("APPEND {a} {number}{long}"),
        22 => format!("SETRANGE {a} {} {number}", random.below(300)),
        23 => format!("EXPIRE {a} {}", 10_000 + number),
        24 => format!("PEXPIRE {a} 1"),
        25 => format!("PEXPIREAT {a} {at_ms}"),
        26 => format!("EXPIRE {a} -1"),
        27 => format!("PERSIST {a}"),
        28 => format!("DEL {a} {b}"),
        29 => format!("UNLINK {a}"),
        30 => format!("RENAME {a} {b}"),
        31 => format!("RENAMENX {a} {b}"),
        32 => format!("COPY {a} {b} DB {db} REPLACE"),
        33 => format!("MOVE {a} {db}"),
        34 | 35 => format!("MSET {a} {number} {b} {number} {prefix}both {long}"),
        36 => format!("MSETNX {a} {number} {b} {number}"),
        37 => format!("SELECT {db}"),
        38 => format!("SWAPDB {db} {}", random.below(3)),
        43 | 44 => format!("XADD {prefix}produced IDMP p{} {} * n {number}", number % 3, number % 50),
        45 => format!("XCFGSET {prefix}produced IDMP-MAXSIZE {}", 2 + number % 9),
        46 => format!("XADD {prefix}stream 1-* n {number}"),
        47 => format!("XGROUP CREATE {prefix}stream g{} 0 MKSTREAM", number % 2),
        48 => format!("XREADGROUP GROUP g{} c{} COUNT 3 STREAMS {prefix}stream >", number % 2, number % 3),
        49 => format!("XNACK {prefix}stream g{} SILENT IDS 2 1-{} 1-{} FORCE", number % 2, number % 20, number % 7),
        _ if random.below(4) > 0 => format!("GET {a}"),
        _ if random.below(3) > 0 => "FLUSHDB".to_owned(),
        _ => "FLUSHALL".to_owned(),
    }
}
