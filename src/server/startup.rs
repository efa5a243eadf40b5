//! The life of the process: from a configuration to serving, and from there to its end.
//!
//! Start: log file, data directory (locked, so that a second server on it is refused), recovery, workers,
//! listeners, "Ready to accept connections". End: stop accepting, snapshot if asked for, close the gate
//! for good, sync the log, exit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;

pub use super::assemble::{StartError, recover_from};
use super::assemble::{absolute, failed, reclaimer};
use super::dealer::Dealer;
use super::import::{Import, import};
use super::listeners::{self, Listeners};
use super::supervisor::{self, Supervisor};
use super::{acceptor, advice, affinity, daemon, handshakes, limits, signals, timer, workers};
use crate::access::Users;
use crate::base::config::{Config, FsyncPolicy as ConfiguredPolicy, Settings};
use crate::base::progress::Display;
use crate::base::syslog::{self, Syslog};
use crate::base::tls::Offer;
use crate::base::{alloc, clock, core_dumps, doors, lock, logging, oom_score, proc_title, random, restart};
use crate::core::audit::Rules;
use crate::core::server::ShutdownRequest;
use crate::core::{Server, Table};
use crate::durable::encryption::encryption;
use crate::durable::import::Rules as ImportRules;
use crate::durable::loading::Loaded;
use crate::durable::saving;
use crate::http::{self, Http};
use crate::keyspace::SHARDS;
use crate::observe::crash_report;
use crate::persist::foreign::{ForeignNames, find};
use crate::persist::format::{MANIFEST, is_own_name};
use crate::persist::storage::RealStorage;
use crate::persist::{FsyncPolicy, RecoverySummary, StoreOptions};
use crate::session::{self, title};

/// Serves until a signal or SHUTDOWN ends it. Returns the exit code.
///
/// # Errors
/// Why it did not start.
pub fn serve(config: Config) -> Result<i32, StartError> {
    let settings = config.settings();
    // Before anything is opened.
    session::acl::load_at_start(&Users::new(named_table(&settings)?.catalogue()), &settings)
        .map_err(StartError::Users)?;
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
    if !settings.core_dumps {
        core_dumps::allow(false).map_err(failed("core-dumps"))?;
    }
    if let Err(error) = oom_score::set(settings.oom_score_adj, settings.oom_score_adj_values[0]) {
        logging::warning(format_args!("Unable to write oom_score_adj: {error}"));
    }
    let signals = signals::receive().map_err(failed("receiving signals"))?;
    let supervisor = Supervisor::of(&settings);
    let (offer, table) = (offer(&settings)?, named_table(&settings)?);
    let bound = listeners::listen(&settings).map_err(failed("Could not create the TCP listening socket"))?;
    if bound.is_empty() && settings.unixsocket.as_os_str().is_empty() {
        let nowhere = io::Error::new(io::ErrorKind::InvalidInput, "none of 'port', 'tls-port' and 'unixsocket' is set");
        return Err(failed("Configured to not listen anywhere, exiting")(nowhere));
    }
    let http = Http::start(&settings, offer.as_ref().map(|offer| Arc::clone(&offer.config)));
    let http = http.map_err(failed("Could not listen for HTTP"))?;
    let (server, is_first) = {
        let _more_time = supervisor.ask_for_time("Loading the data");
        recover(config, &settings, table)?
    };
    doors::at_start(&settings, server.config.file(), is_own_name)
        .iter()
        .for_each(|door| logging::warning(format_args!("{door}")));
    advice::warn(&settings, alloc::used_memory() as u64);
    server.tls.set(offer);
    http.tell_of(&server);
    follow_audit(&server, &settings)?;
    let pidfile = write_pidfile(&settings);
    let (requests, mut asked) = mpsc::unbounded_channel();
    *server.shutdown.requests.lock() = Some(requests);
    workers::start(&server)?;
    let dealer = Dealer::new(Arc::clone(&server));
    let observers = dealer.clone();
    http.connect_by(Box::new(move |caller| observers.observe(caller)));
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
    tokio::spawn(handshakes::reload(Arc::clone(&server)));
    signals.serve(&server);
    crash_report::tell_of(&server);
    logging::notice(format_args!("Ready to accept connections at {}", addresses.join(", ")));
    if daemon::is_detached() {
        daemon::ready().map_err(failed("the terminal cannot be left"))?;
    }
    if is_first && !supervisor::is_supervised(&settings) && advice::is_read_at_a_terminal(&settings) {
        advice::greet(&settings, &addresses);
    }
    supervisor.ready();
    tokio::spawn(supervisor.watchdog());
    while let Some(request) = asked.recv().await {
        let restarts_after = request.restart;
        if restarts_after.is_some() {
            rewrite_config(&server);
        }
        let ended = {
            let _more_time = supervisor.ask_for_time("Saving and ending");
            shut_down(&server, request).await
        };
        if let Some(code) = ended {
            if restarts_after.is_none() {
                supervisor.stopping();
            }
            for path in [pidfile, Some(unix)].into_iter().flatten().filter(|path| !path.as_os_str().is_empty()) {
                // Leftovers are harmless: the next start replaces both.
                let _ = std::fs::remove_file(path);
            }
            if let Some(delay) = restarts_after {
                return Err(start_again(delay));
            }
            logging::notice(format_args!("Ironkeep is now ready to exit, bye bye..."));
            return Ok(code);
        }
        server.shutdown.asked.store(false, Relaxed);
        supervisor.goes_on();
    }
    Ok(0)
}

/// Whether a server starts with these settings, as far as can be said without its data and its sockets.
///
/// # Errors
/// Why it does not.
pub fn check(settings: &Settings) -> Result<(), StartError> {
    offer(settings)?;
    http::check(settings).map_err(failed("Could not listen for HTTP"))?;
    let table = named_table(settings)?;
    session::acl::load_at_start(&Users::new(table.catalogue()), settings).map_err(StartError::Users)?;
    let rules = Rules::of(&settings.audit_log_rules, &table);
    rules.map(drop).map_err(|problem| failed("audit-log-rules")(io::Error::other(problem)))?;
    let keys = encryption(settings).map_or(Ok(()), |encryption| (encryption.source)().map(drop));
    keys.map_err(|problem| failed("Encryption at rest")(io::Error::other(problem)))
}

/// Begins the audit log, if there is to be one.
fn follow_audit(server: &Server, settings: &Settings) -> Result<(), StartError> {
    let followed = server.audit.follow(settings, &server.table, &server.hooks);
    followed.map_err(|(name, problem)| failed(name)(io::Error::other(problem)))
}

/// What new TLS connections are offered, if there is a port for them.
fn offer(settings: &Settings) -> Result<Option<Offer>, StartError> {
    let offer = settings.uses_tls().then(|| Offer::of(settings)).transpose();
    offer.map_err(|problem| failed("Failed to configure TLS")(io::Error::other(problem)))
}

/// The commands under the names that `rename-command` gives them.
fn named_table(settings: &Settings) -> Result<Table, StartError> {
    let mut table = session::table();
    for words in &settings.renamed_commands {
        let [from, to] = &words[..] else { continue };
        let what = format!("rename-command \"{}\" \"{}\"", from.escape_ascii(), to.escape_ascii());
        let renamed = table.rename(from, to);
        renamed.map_err(|problem| failed(what)(io::Error::new(io::ErrorKind::InvalidInput, problem)))?;
    }
    Ok(table)
}

/// Rewrites the configuration file, if there is one, before a restart. Not behind the gate that the end closes: another
/// change of the configuration may have to pass it.
fn rewrite_config(server: &Server) {
    if server.config.file().is_some()
        && let Err(error) = server.config.rewrite(None)
    {
        logging::warning(format_args!("The configuration file is not rewritten before the restart: {error}"));
    }
}

/// Starts the program again after a delay: DEBUG RESTART. Everything is on the disk. Returns only if that fails.
fn start_again(delay: Duration) -> StartError {
    logging::notice(format_args!("Ironkeep starts again."));
    std::thread::sleep(delay);
    // It goes into the background anew if it must.
    failed("the program cannot be started again")(restart::again())
}

/// Opens the data directory and loads its content into a new server. Also says whether it has made the directory.
fn recover(config: Config, settings: &Settings, table: Table) -> Result<(Arc<Server>, bool), StartError> {
    import_foreign(&config, settings)?;
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
        foreign: files_of_redis(settings),
        import: false,
        encryption: encryption(settings),
        segment_bytes: settings.log_segment_size,
        indexes: settings.serve_while_loading,
        threads: true,
    };
    let (server, found, loaded) = recover_from(Arc::new(storage), options, config, table, reclaimer()?)?;
    report(&found, loaded, clock::monotonic_us() - started);
    Ok((server, found.fresh))
}

/// Imports what a Redis has left in the directory, if there is no store yet.
fn import_foreign(config: &Config, settings: &Settings) -> Result<(), StartError> {
    let dir = &settings.dir;
    if !settings.import_foreign_files || dir.join(MANIFEST).exists() {
        return Ok(());
    }
    let names = ForeignNames {
        rdb: settings.dbfilename.clone(),
        aof_dir: settings.appenddirname.clone(),
        aof: settings.appendfilename.clone(),
    };
    let Some(foreign) = find::in_data_directory(dir, &names, settings.appendonly)? else { return Ok(()) };
    let (path, megabytes) = (foreign.path.display(), foreign.bytes() as f64 / 1e6);
    logging::notice(format_args!("The directory has no store yet. Importing {path} ({megabytes:.1} MB)"));
    let started = clock::monotonic_us();
    let rules = ImportRules {
        skips_modules: false,
        versions: settings.rdb_version_check,
        takes_torn: settings.aof_load_truncated,
    };
    let tally = import(&Import { foreign: &foreign, dir, rules, merges: false, display: Display::Log }, config)?;
    if let Some((file, offset)) = &tally.torn {
        let file = file.display();
        logging::warning(format_args!("{file} ends in the middle of a command: it was taken up to offset {offset}"));
    }
    logging::notice(format_args!(
        "Imported {path}, written by {}: {} keys ({} had expired), {} libraries and {} commands in {:.3} seconds; the \
         files stay as they are, and are not read again",
        tally.writer.as_deref().unwrap_or("an unknown program"),
        tally.keys,
        tally.expired,
        tally.libraries,
        tally.commands,
        (clock::monotonic_us() - started) as f64 / 1e6,
    ));
    Ok(())
}

/// The names under which a Redis in the same directory would have its data.
fn files_of_redis(settings: &Settings) -> Vec<String> {
    vec![settings.dbfilename.clone(), settings.appenddirname.clone(), settings.appendfilename.clone()]
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
fn report(found: &RecoverySummary, loaded: Loaded, elapsed_us: u64) {
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
    if loaded.goes_on {
        return logging::notice(format_args!(
            "The log is verified: {seconds:.3} seconds, {} of {} segments by their index. Serving while {} keys of {} ({} \
             bytes) and {} blocks of log ({} bytes) are loaded",
            found.unread,
            found.segments,
            found.snapshot_entries,
            found.snapshot.as_deref().unwrap_or("no snapshot"),
            found.snapshot_bytes,
            found.blocks,
            found.log_bytes,
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
    let due = server.keeps_by_snapshots() && server.saving.changes.load(Relaxed) > 0;
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
    server.running_scripts.set_ending(true);
    // No snapshot runs and none begins. From the closing of the gate on no command runs any more.
    let _order = lock::out_of_order("who holds the log's writer tries the gate for a moment and never waits for it");
    let (mut outcome, closed) = match save {
        true => {
            logging::notice(format_args!("Saving the final snapshot before exiting."));
            saving::save_and_stay_closed(server)
        }
        // What is not loaded yet is on the disk.
        false => (Ok(()), server.gate.close_at_the_end()),
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
            server.running_scripts.set_ending(false);
            logging::warning(format_args!("Errors trying to shut down the server, it goes on: {error}"));
            if let Some(refused) = request.refused {
                // The client may be gone.
                let _ = refused.send("ERR Errors trying to SHUTDOWN. Check logs.".into());
            }
            None
        }
    }
}
