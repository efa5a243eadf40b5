//! A server inside a test, with one connection: a command line in, the text of its reply out.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::access::Users;
use crate::base::clock;
use crate::base::config::Config;
use crate::base::hash::HashSeed;
use crate::base::per_worker::PerWorker;
use crate::core::client::{Client, ClientRecord};
use crate::core::hooks::Hooks;
use crate::core::roster::Roster;
use crate::core::stats::{ServerCounters, WorkerStats};
use crate::core::{Cluster, Server, Wait, server};
use crate::exec::testing::{with_args, words};
use crate::exec::{Executor, PATIENCE};
use crate::keyspace::{Gate, Keyspace, SHARDS};
use crate::persist::storage::SimStorage;
use crate::persist::{FsyncPolicy, Store, StoreOptions};
use crate::resp::Output;

/// See the module.
pub(super) struct Runner {
    pub(super) server: Arc<Server>,
    pub(super) client: Client,
    executor: Executor,
}

impl Runner {
    /// A server without a log, on a disk in memory.
    pub(super) fn new() -> Self {
        Runner::with_config("")
    }

    /// The same, with lines of configuration.
    pub(super) fn with_config(lines: &str) -> Self {
        let server = Arc::new(server(lines));
        super::acl::load_at_start(&server.users, &server.config.settings()).expect("valid users");
        server.follow(&server.config.settings());
        server.rules_changed();
        let client = connection(&server, LOCAL);
        Runner { executor: Executor::new(Arc::clone(&server), 0), client, server }
    }

    /// Continues with a new connection.
    pub(super) fn reconnect(&mut self) {
        self.connect_from(LOCAL);
    }

    /// A new connection, for later.
    pub(super) fn connection(&self) -> Client {
        connection(&self.server, LOCAL)
    }

    /// The same, from a given peer.
    pub(super) fn connect_from(&mut self, peer: &str) {
        self.client = connection(&self.server, peer);
    }

    /// Runs two commands that arrive together.
    pub(super) fn run_two(&mut self, one: &[Vec<u8>], other: &[Vec<u8>]) {
        let (mut out, executor, client) = (Output::new(), &mut self.executor, &mut self.client);
        let ran = with_args(one, |one| {
            with_args(other, |other| executor.run(client, &[one, other], &mut out, crate::exec::PATIENCE).executed)
        });
        assert_eq!(ran, 2);
    }

    /// Whether a command line is parked.
    pub(super) fn is_parked(&mut self, line: &str) -> bool {
        let (mut out, executor, client) = (Output::new(), &mut self.executor, &mut self.client);
        with_args(&words(line), |args| executor.run(client, &[args], &mut out, PATIENCE).parked.is_some())
    }

    /// Runs one command line and returns the reply with spaces for its line ends.
    pub(super) fn run(&mut self, line: &str) -> String {
        let mut out = Output::new();
        with_args(&words(line), |args| {
            while self.executor.run(&mut self.client, &[args], &mut out, PATIENCE).parked.is_some() {}
        });
        if let Some(Wait::Deferred(done)) = self.client.wait.take_if(|wait| matches!(wait, Wait::Deferred(_))) {
            out.append(&mut done.blocking_recv().expect("what is deferred ends"));
        }
        String::from_utf8_lossy(out.as_bytes()).replace("\r\n", " ")
    }
}

/// The default peer of a connection.
const LOCAL: &str = "127.0.0.1:1";

fn connection(server: &Server, peer: &str) -> Client {
    let now = clock::now_ms() as u64;
    let record = server.clients.register(ClientRecord {
        peer: peer.into(),
        local: "127.0.0.1:6379".into(),
        fd: 8,
        // In the future, so that its age is zero however slow the machine is.
        created_ms: now + 3_600_000,
        ..ClientRecord::default()
    });
    Client::new(record, server.users.of_new_connection())
}

fn server(lines: &str) -> Server {
    let text = format!("appendonly no\n{lines}");
    let config = Config::from_text(text.as_bytes()).expect("a configuration");
    let options = StoreOptions {
        workers: 1,
        shards: SHARDS as u32,
        hash_seed: [7; 16],
        generation: 1,
        appendonly: false,
        policy: FsyncPolicy::EverySec,
        clock: Arc::new(|| 0),
        cut_at_corruption: false,
        refuse_torn: false,
        foreign: Vec::new(),
        import: false,
        encryption: None,
        segment_bytes: 0,
        indexes: false,
        threads: false,
    };
    let (store, _) = Store::open(Arc::new(SimStorage::new()), options).expect("an empty store");
    let has_cluster = config.settings().cluster_enabled;
    let cluster = has_cluster.then(|| Cluster::open(store.storage(), "nodes.conf").expect("a disk in memory"));
    let databases = if has_cluster { 1 } else { 16 };
    let table = super::table();
    Server {
        config,
        keyspace: Keyspace::new(databases, HashSeed([7; 16])),
        // With room for a worker that does not exist.
        gate: Gate::new(2),
        store,
        cluster,
        clients: Default::default(),
        users: Users::new(table.catalogue()),
        commandlogs: Default::default(),
        hotkeys: crate::core::hotkeys::Hotkeys::new(1),
        keystats: crate::core::keystats::KeyStats::new(1),
        loops: Default::default(),
        latency: Default::default(),
        pause: Default::default(),
        hooks: Hooks::default(),
        counters: ServerCounters::default(),
        workers: PerWorker::new(1, |_| WorkerStats::new(table.indices())),
        roster: Roster::new(1),
        enlist: Default::default(),
        table,
        errors: Default::default(),
        saving: server::Saving::default(),
        backup: Default::default(),
        loading: Default::default(),
        scrub: Default::default(),
        service: Default::default(),
        memory: Default::default(),
        debugging: Default::default(),
        listen_anew: Default::default(),
        audit: Default::default(),
        tls: Default::default(),
        scripts: Default::default(),
        functions: Default::default(),
        running_scripts: Default::default(),
        blocking: Default::default(),
        channels: Default::default(),
        monitors: Default::default(),
        key_events: Default::default(),
        tracking: Default::default(),
        mailboxes: crate::core::Mailboxes::new(1),
        started_ms: clock::now_ms(),
        run_id: "0".repeat(40),
        config_file: String::new(),
        executable: String::new(),
        startup_memory: AtomicU64::new(0),
        rates: Default::default(),
        shutdown: Default::default(),
        garbage: server::Garbage { to_reclaim: std::sync::mpsc::channel().0, released: Default::default() },
    }
}
