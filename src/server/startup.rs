//! The life of the process: from a configuration to serving, and from there to its end.
//!
//! Start: log file, data directory (locked, so that a second server on it is refused), recovery, workers,
//! listeners, "Ready to accept connections". End: stop accepting, snapshot if asked for, close the gate
//! for good, sync the log, exit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::acceptor::{self, Dealer};
use super::listeners::{self, Listeners};
use super::supervisor::Supervisor;
use super::{affinity, daemon, limits, signals, timer, worker};
use crate::base::config::{Config, FsyncPolicy as ConfiguredPolicy, Settings};
use crate::base::hash::HashSeed;
use crate::base::latency::Event;
use crate::base::lock::Mutex;
use crate::base::syslog::{self, Syslog};
use crate::base::{alloc, clock, lock, logging, oom_score, proc_title, random};
use crate::core::hooks::Hooks;
use crate::core::hotkeys::Hotkeys;
use crate::core::server::{Garbage, Reclaim, Released, Saving, Shutdown, ShutdownRequest};
use crate::core::stats::{ServerCounters, WorkerStats};
use crate::core::user::Users;
use crate::core::{Cluster, Mailboxes, Server, Table};
use crate::durable::pace::Pace;
use crate::durable::{loading, saving};
use crate::keyspace::{Gate, Keyspace, SHARDS};
use crate::observe::crash_report;
use crate::persist::storage::{RealStorage, Storage};
use crate::persist::{FsyncPolicy, PersistError, RecoverySummary, Store, StoreOptions};
use crate::script::WORKER_STACK_BYTES;
use crate::session::{self, title};

/// How often unused memory is given back to the system.
const PURGE_PERIOD: Duration = Duration::from_millis(100);

/// Why the server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory.
    Persist(PersistError),
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

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

/// Refuses directives that guard access and that nothing enforces yet. Ignoring them in silence would leave a door
/// open that the operator believes shut.
fn refuse_what_is_not_enforced(settings: &Settings) -> Result<(), StartError> {
    let given = [
        ("user", !settings.users.is_empty()),
        ("aclfile", !settings.aclfile.as_os_str().is_empty()),
        ("rename-command", !settings.renamed_commands.is_empty()),
        ("tls-port", settings.tls_port != 0),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => {
            let source = io::Error::new(io::ErrorKind::Unsupported, "not supported yet, and not to be ignored");
            Err(StartError::Io { what: format!("The directive '{name}'"), source })
        }
    }
}

/// Serves until a signal or SHUTDOWN ends it. Returns the exit code.
///
/// # Errors
/// Why it did not start.
pub fn serve(config: Config) -> Result<i32, StartError> {
    let settings = config.settings();
    refuse_what_is_not_enforced(&settings)?;
    logging::set_level(settings.loglevel);
    logging::set_format(settings.log_format, settings.log_timestamp_format);
    logging::set_hides_user_data(settings.hide_user_data_from_log);
    if daemon::is_detached() {
        daemon::leave_session().map_err(failed("a session of its own"))?;
    }
    if !settings.logfile.as_os_str().is_empty() {
        logging::set_file(&settings.logfile).map_err(failed(format!("logfile {}", settings.logfile.display())))?;
    }
    if settings.syslog_enabled {
        let syslog = Syslog::new(Path::new(syslog::SOCKET), settings.syslog_facility, &settings.syslog_ident);
        logging::set_syslog(Some(syslog));
    }
    let config_file = config.file().map(absolute).unwrap_or_default();
    proc_title::make_room();
    title::apply(&settings, &config_file)
        .map_err(|error| failed("proc-title-template")(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    logging::notice(format_args!("Ironkeep {} is starting, pid {}", env!("CARGO_PKG_VERSION"), std::process::id()));
    let settings = limits::make_room_for_clients(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("runtime"))?;
    runtime.block_on(run(config, settings))
}

async fn run(config: Config, settings: Arc<Settings>) -> Result<i32, StartError> {
    affinity::run_on(&settings.server_cpulist).map_err(failed("server-cpulist"))?;
    crash_report::begin(settings.crash_log_enabled);
    if let Err(error) = oom_score::set(settings.oom_score_adj, settings.oom_score_adj_values[0]) {
        logging::warning(format_args!("Unable to write oom_score_adj: {error}"));
    }
    let signals = signals::receive().map_err(failed("receiving signals"))?;
    let supervisor = Supervisor::of(&settings);
    let bound = listeners::listen(&settings).map_err(failed("Could not create the TCP listening socket"))?;
    if bound.is_empty() && settings.unixsocket.as_os_str().is_empty() {
        let nowhere = io::Error::new(io::ErrorKind::InvalidInput, "neither 'port' nor 'unixsocket' is set");
        return Err(failed("Configured to not listen anywhere, exiting")(nowhere));
    }
    let server = {
        let _more_time = supervisor.ask_for_time("Loading the data");
        recover(config, &settings)?
    };
    let pidfile = write_pidfile(&settings);
    let (requests, mut asked) = mpsc::unbounded_channel();
    *server.shutdown.requests.lock() = Some(requests);
    start_workers(&server)?;
    let dealer = Dealer::new(Arc::clone(&server));
    let listeners = Listeners::new(dealer.clone(), &settings, bound).map_err(failed("listening"))?;
    let mut addresses = listeners.addresses();
    let unix = settings.unixsocket.clone();
    if !unix.as_os_str().is_empty() {
        let listener = acceptor::listen_unix(&unix, settings.unixsocketperm, &settings.unixsocketgroup)
            .map_err(failed(format!("Could not open the unix socket {}", unix.display())))?;
        addresses.push(unix.display().to_string());
        tokio::spawn(acceptor::accept_unix(listener, unix.display().to_string(), dealer.clone()));
    }
    // Set once: the server has just been made.
    let _ = server.listen_anew.set(Box::new(move |settings| listeners.change(settings)));
    tokio::spawn(timer::run(Arc::clone(&server)));
    signals.serve(&server);
    crash_report::tell_of(&server);
    logging::notice(format_args!("Ready to accept connections at {}", addresses.join(", ")));
    if daemon::is_detached() {
        daemon::ready().map_err(failed("the terminal cannot be left"))?;
    }
    supervisor.ready();
    tokio::spawn(supervisor.watchdog());
    while let Some(request) = asked.recv().await {
        let ended = {
            let _more_time = supervisor.ask_for_time("Saving and ending");
            shut_down(&server, request).await
        };
        if let Some(code) = ended {
            supervisor.stopping();
            for path in [pidfile, Some(unix)].into_iter().flatten().filter(|path| !path.as_os_str().is_empty()) {
                // Leftovers are harmless: the next start replaces both.
                let _ = std::fs::remove_file(path);
            }
            logging::notice(format_args!("Ironkeep is now ready to exit, bye bye..."));
            return Ok(code);
        }
        server.shutdown.asked.store(false, Relaxed);
        supervisor.goes_on();
    }
    Ok(0)
}

/// Opens the data directory and loads its content into a new server.
fn recover(config: Config, settings: &Settings) -> Result<Arc<Server>, StartError> {
    let started = clock::monotonic_us();
    let storage = RealStorage::open(&settings.dir).map_err(failed(format!("dir {}", settings.dir.display())))?;
    let options = StoreOptions {
        workers: settings.worker_count(),
        shards: SHARDS as u32,
        hash_seed: random::os_bytes(),
        generation: u64::from_le_bytes(random::os_bytes()),
        appendonly: settings.appendonly,
        policy: log_policy(settings.appendfsync),
        clock: Arc::new(|| clock::now_ms() as u64),
        cut_at_corruption: false,
        refuse_torn: !settings.aof_load_truncated,
        fsync_thread: true,
    };
    let (server, found, loaded) = recover_from(Arc::new(storage), options, config, session::table(), reclaimer()?)?;
    report(&found, loaded, clock::monotonic_us() - started);
    Ok(server)
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
) -> Result<(Arc<Server>, RecoverySummary, loading::Loaded), StartError> {
    let workers = options.workers;
    let (store, recovery) = Store::open(storage, options)?;
    let settings = config.settings();
    let cluster = match settings.cluster_enabled {
        true => Some(Cluster::open(store.storage(), &settings.cluster_config_file)?),
        false => None,
    };
    let mut keyspace = Keyspace::new(settings.databases as u32, HashSeed(recovery.hash_seed()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = crate::exec::limits_of(&config.settings(), keyspace.seed());
    let before = alloc::used_memory();
    let pace = Pace::of(config.settings().key_load_delay_us);
    let started = Instant::now();
    let loaded = loading::load(&keyspace, &recovery, limits, cores, pace)?;
    let load_ns = started.elapsed().as_nanos() as u64;
    if cluster.is_some() {
        only_first_database(&mut keyspace)?;
    }
    let of_keys = alloc::used_memory().saturating_sub(before);
    let found = recovery.summary().clone();
    drop(recovery);
    let config_file = config.file().map(absolute).unwrap_or_default();
    let server = Server {
        keyspace,
        cluster,
        gate: Gate::new(workers),
        store,
        clients: Default::default(),
        users: Users::default(),
        commandlogs: Default::default(),
        hotkeys: Hotkeys::new(workers),
        loops: (0..workers).map(|_| Default::default()).collect(),
        latency: Default::default(),
        pause: Default::default(),
        hooks: Hooks::default(),
        counters: ServerCounters::default(),
        workers: worker_stats(workers, &table),
        table,
        errors: Mutex::default(),
        saving: Saving::default(),
        memory: Default::default(),
        listen_anew: Default::default(),
        active_expiry_off: Default::default(),
        scripts: Default::default(),
        running_script: Default::default(),
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
    server.follow(&server.config.settings());
    server.store.log().watch_latency(Arc::clone(&server.latency));
    server.latency.note(Event::Load, load_ns);
    server.saving.loaded_keys.store(loaded.keys, Relaxed);
    Ok((Arc::new(server), found, loaded))
}

/// Leaves database 0 alone, for cluster clients.
///
/// # Errors
/// Another one has keys.
fn only_first_database(keyspace: &mut Keyspace) -> Result<(), StartError> {
    if let Some((db, _)) = keyspace.counts().filled().find(|(db, _)| *db != 0) {
        let what = format!("cluster-enabled: in cluster mode there is database 0 alone, but database {db}");
        return Err(failed(what)(io::Error::new(io::ErrorKind::InvalidData, "has keys")));
    }
    keyspace.limit_databases(1);
    Ok(())
}

fn worker_stats(workers: usize, table: &Table) -> Box<[WorkerStats]> {
    (0..workers).map(|_| WorkerStats::new(table.indices())).collect()
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

/// The policy in the log's own type.
pub fn log_policy(configured: ConfiguredPolicy) -> FsyncPolicy {
    match configured {
        ConfiguredPolicy::Always => FsyncPolicy::Always,
        ConfiguredPolicy::EverySec => FsyncPolicy::EverySec,
        ConfiguredPolicy::No => FsyncPolicy::No,
    }
}

/// Reports what was found, and how long it took.
fn report(found: &RecoverySummary, loaded: loading::Loaded, elapsed_us: u64) {
    let seconds = elapsed_us as f64 / 1e6;
    if found.fresh {
        return logging::notice(format_args!("A new data directory was made"));
    }
    if let Some(torn) = &found.torn {
        logging::warning(format_args!(
            "The log ended in an incomplete block: {} bytes at offset {} of {} were cut off and kept aside ({})",
            torn.bytes,
            torn.offset,
            torn.file.display(),
            torn.what,
        ));
    }
    logging::notice(format_args!(
        "DB loaded from disk: {:.3} seconds; {} keys from {} ({} bytes), {} records from {} blocks of log ({} bytes); \
         the last run ended {}",
        seconds,
        loaded.keys,
        found.snapshot.as_deref().unwrap_or("no snapshot"),
        found.snapshot_bytes,
        loaded.records,
        found.blocks,
        found.log_bytes,
        if found.clean { "in order" } else { "without warning" },
    ));
}

/// Starts the workers, which run until the process ends.
pub(super) fn start_workers(server: &Arc<Server>) -> Result<(), StartError> {
    let (progress, log_progress) = watch::channel(0);
    let log = Arc::downgrade(server.store.log());
    server.store.log().on_progress(Box::new(move || {
        if let Some(log) = log.upgrade() {
            progress.send_replace(log.synced());
        }
    }));
    for index in 0..server.gate.workers() {
        let (server, log_progress) = (Arc::clone(server), log_progress.clone());
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(WORKER_STACK_BYTES)
            .spawn(move || worker::run(server, index, log_progress))
            .map_err(failed("a worker thread"))?;
    }
    Ok(())
}

fn write_pidfile(settings: &Settings) -> Option<PathBuf> {
    let path = match settings.pidfile.as_os_str().is_empty() {
        true if settings.daemonize => PathBuf::from("/var/run/ironkeep.pid"),
        true => return None,
        false => settings.pidfile.clone(),
    };
    match std::fs::write(&path, format!("{}\n", std::process::id())) {
        Ok(()) => Some(path),
        Err(error) => {
            logging::warning(format_args!("Failed to write PID file {}: {error}", path.display()));
            None
        }
    }
}

/// Ends the server, unless something that must not be lost cannot be saved. Returns the exit code.
async fn shut_down(server: &Arc<Server>, request: ShutdownRequest) -> Option<i32> {
    logging::notice(format_args!("User requested shutdown..."));
    // With the log on, everything is on the disk without a snapshot, unless the log has failed.
    let log = server.store.log();
    let due = !log.is_active() && !server.config.settings().save.is_empty() && server.changes_since_save() > 0;
    let save = request.save.unwrap_or(due || log.is_poisoned());
    {
        let _state = server.saving.state.lock();
        server.saving.ending.store(true, Relaxed);
    }
    while server.saving.state.lock().running.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A script that does not end would keep the gate closed for ever. One that has written and cannot be taken back is
    // waited for.
    server.running_script.kill();
    // No snapshot runs and none begins. From the closing of the gate on no command runs any more.
    let _order = lock::out_of_order("who holds the log's writer tries the gate for a moment and never waits for it");
    let (mut outcome, closed) = match save {
        true => {
            logging::notice(format_args!("Saving the final snapshot before exiting."));
            saving::save_and_stay_closed(server)
        }
        false => (Ok(()), server.gate.close()),
    };
    if outcome.is_ok() || request.force {
        outcome = outcome.and(server.store.close().map_err(|error| error.to_string()));
    }
    match outcome {
        Ok(()) => {
            // Kept closed until the process is gone.
            std::mem::forget(closed);
            Some(0)
        }
        Err(error) if request.force || request.save == Some(false) => {
            logging::warning(format_args!("Error trying to save the DB, but exiting all the same as asked: {error}"));
            std::mem::forget(closed);
            Some(0)
        }
        Err(error) => {
            drop(closed);
            server.saving.ending.store(false, Relaxed);
            logging::warning(format_args!("Errors trying to shut down the server, it goes on: {error}"));
            if let Some(refused) = request.refused {
                // The client may be gone.
                let _ = refused.send("ERR Errors trying to SHUTDOWN. Check logs.".into());
            }
            None
        }
    }
}
