//! Makes a server from a data directory, for a start and for an import.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::access::Users;
use crate::base::config::{Config, Settings};
use crate::base::hash::HashSeed;
use crate::base::latency::Event;
use crate::base::lock::Mutex;
use crate::base::per_worker::PerWorker;
use crate::base::progress::{Display, Progress};
use crate::base::{alloc, clock, random};
use crate::core::hooks::Hooks;
use crate::core::hotkeys::Hotkeys;
use crate::core::keystats::KeyStats;
use crate::core::roster::Roster;
use crate::core::server::{Garbage, Reclaim, Released, Saving, Shutdown};
use crate::core::stats::{ServerCounters, WorkerStats};
use crate::core::{Cluster, Mailboxes, Server, Table};
use crate::durable::background::{self, Plan};
use crate::durable::loading::{self, Loaded};
use crate::durable::pace::Pace;
use crate::keyspace::{Gate, Keyspace};
use crate::persist::storage::Storage;
use crate::persist::{PersistError, Recovery, RecoverySummary, Store, StoreOptions};
use crate::session;
use crate::value::Limits;

/// How often unused memory is given back to the system.
const PURGE_PERIOD: Duration = Duration::from_millis(100);

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory.
    Persist(PersistError),
    /// The users, or their file.
    Users(String),
    /// A file, a socket or a thread.
    Io {
        /// What was attempted.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Persist(error) => error.fmt(f),
            StartError::Users(problem) => write!(f, "Aborting startup because of ACL errors: {problem}"),
            StartError::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<PersistError> for StartError {
    fn from(error: PersistError) -> Self {
        StartError::Persist(error)
    }
}

/// The start failed at this.
pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

/// Starts the thread that drops large values and gives memory back to the system. It ends with the server.
pub(super) fn reclaimer() -> Result<Garbage, StartError> {
    let (to_reclaim, orders) = std::sync::mpsc::channel();
    let released = Arc::new(Released::default());
    let garbage = Garbage { to_reclaim, released: Arc::clone(&released) };
    std::thread::Builder::new()
        .name("reclaim".into())
        .spawn(move || reclaim(&orders, &released))
        .map_err(failed("the reclaiming thread"))?;
    Ok(garbage)
}

/// Executes its orders and periodically gives a part of the unused memory back to the system.
fn reclaim(orders: &Receiver<Reclaim>, released: &Released) {
    let mut purged = Instant::now();
    loop {
        match orders.recv_timeout(PURGE_PERIOD) {
            Ok(Reclaim::Drop { garbage, values, bytes }) => {
                drop(garbage);
                released.count_freed(values, bytes);
            }
            Ok(Reclaim::Purge) => alloc::purge(true),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if purged.elapsed() >= PURGE_PERIOD {
            alloc::purge(false);
            purged = Instant::now();
        }
    }
}

/// Makes a server from the content of a storage and reports what it found. The receiver of `garbage` drops large
/// values.
///
/// # Errors
/// Any damage in the files.
pub fn recover_from(
    storage: Arc<dyn Storage>,
    options: StoreOptions,
    config: Config,
    table: Table,
    garbage: Garbage,
) -> Result<(Arc<Server>, RecoverySummary, Loaded), StartError> {
    let (workers, settings) = (options.workers, config.settings());
    let users = Users::new(table.catalogue());
    session::acl::load_at_start(&users, &settings).map_err(StartError::Users)?;
    session::acl::tell_of_disabled(&users);
    let (store, recovery) = Store::open(storage, options)?;
    let cluster = match settings.cluster_enabled {
        true => Some(Cluster::open(store.storage(), &settings.cluster_config_file)?),
        false => None,
    };
    let mut keyspace = Keyspace::new(settings.databases as u32, HashSeed(recovery.hash_seed()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = crate::exec::limits_of(&config.settings(), keyspace.seed());
    let (before, started) = (alloc::used_memory(), Instant::now());
    let (plan, loaded) = load_or_plan(&settings, &keyspace, &recovery, limits, cores)?;
    let load_ns = started.elapsed().as_nanos() as u64;
    if cluster.is_some() {
        loading::leave_first_database(&mut keyspace)?;
    }
    let (of_keys, found) = (alloc::used_memory().saturating_sub(before), recovery.summary().clone());
    let config_file = config.file().map(absolute).unwrap_or_default();
    let server = Server {
        keyspace,
        cluster,
        gate: Gate::new(workers),
        store,
        clients: Default::default(),
        users,
        commandlogs: Default::default(),
        hotkeys: Hotkeys::new(workers),
        keystats: KeyStats::new(workers),
        loops: PerWorker::new(workers, |_| Default::default()),
        latency: Default::default(),
        pause: Default::default(),
        hooks: Hooks::default(),
        counters: ServerCounters::default(),
        workers: worker_stats(workers, &table),
        roster: Roster::new(workers),
        enlist: Default::default(),
        table,
        errors: Mutex::default(),
        saving: Saving::default(),
        backup: Default::default(),
        loading: Default::default(),
        scrub: Default::default(),
        service: Default::default(),
        memory: Default::default(),
        listen_anew: Default::default(),
        audit: Default::default(),
        tls: Default::default(),
        debugging: Default::default(),
        scripts: Default::default(),
        functions: Default::default(),
        running_scripts: Default::default(),
        blocking: Default::default(),
        channels: Default::default(),
        monitors: Default::default(),
        key_events: Default::default(),
        tracking: Default::default(),
        mailboxes: Mailboxes::new(workers),
        started_ms: clock::now_ms(),
        run_id: random::run_id(),
        config_file,
        executable: std::env::current_exe().map(|path| absolute(&path)).unwrap_or_default(),
        startup_memory: AtomicU64::new(alloc::used_memory().saturating_sub(of_keys) as u64),
        rates: Default::default(),
        shutdown: Shutdown::default(),
        garbage,
        config,
    };
    server.keyspace.graveyard().set_files(&absolute(&server.store.storage().path("")));
    server.follow(&server.config.settings());
    server.rules_changed();
    server.store.log().watch_latency(Arc::clone(&server.latency));
    server.latency.note(Event::Load, load_ns);
    server.saving.loaded_keys.store(loaded.keys, Relaxed);
    loading::settle_libraries(&server);
    let server = Arc::new(server);
    match plan {
        Some(plan) => background::start(Arc::clone(&server), recovery, plan, limits),
        None => server.store.index_the_rest(&recovery),
    }
    Ok((server, found, loaded))
}

/// Loads everything, or only plans what is to be loaded while the server serves.
fn load_or_plan(
    settings: &Settings,
    keyspace: &Keyspace,
    recovery: &Recovery,
    limits: Limits,
    cores: usize,
) -> Result<(Option<Plan>, Loaded), PersistError> {
    let found = recovery.summary();
    let is_large = found.snapshot_bytes + found.log_bytes >= settings.serve_while_loading_min_size;
    if settings.serve_while_loading && !found.fresh && is_large {
        loading::load_libraries(keyspace, recovery)?;
        loading::load_graves(keyspace, recovery)?;
        if let Some(plan) = Plan::of(recovery, keyspace, limits)?
            // If a cluster's node may have to refuse the keys of other databases, it looks at all of them first.
            && (!settings.cluster_enabled || plan.has_first_database_alone(recovery))
        {
            return Ok((Some(plan), Loaded { goes_on: true, ..Loaded::default() }));
        }
    }
    let pace = Pace::of(settings.key_load_delay_us);
    let shown = (&Progress::default(), Display::Log);
    // What was left unread is read first.
    loading::load(keyspace, recovery, limits, cores, pace, shown).map(|loaded| (None, loaded))
}

fn worker_stats(workers: usize, table: &Table) -> PerWorker<WorkerStats> {
    PerWorker::new(workers, |_| WorkerStats::new(table.indices()))
}

/// A path from the root, as text.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}
