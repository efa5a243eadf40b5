//! Reloads the keyspace from the disk in a running server: DEBUG RELOAD and DEBUG LOADAOF.
//!
//! ```text
//! turn of a snapshot ─ snapshot, if asked for ─ gate closed from its instant on ─ read the disk as a start does
//!                    ─ load into a keyspace beside ours ─ exchange, shard by shard ─ open the gate
//! ```
//!
//! Invariants:
//! - Until everything is loaded, the keyspace stays as it is, so that a failure changes nothing.
//! - The loaded content is what a start would load at this instant, so a crash afterwards loses nothing of it. No
//!   commands run from the moment the disk is settled until the exchange is over.
//! - While the gate is closed here, this thread waits for the log's writer, against the usual order. A holder of the
//!   writer only tries the gate and never waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::base::progress::Display;
use crate::base::{clock, lock, logging};
use crate::core::error::Remains;
use crate::core::server::{SavePurpose, UNCOUNTED_BYTES};
use crate::core::{CommandError, Server};
use crate::durable::pace::Pace;
use crate::durable::{loading, saving};
use crate::keyspace::{Closed, Keyspace, SHARDS};
use crate::persist::PersistError;

/// What to load, and what to do with the existing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// RELOAD.
    Snapshot {
        /// Whether to make a snapshot first.
        save: bool,
        /// Whether to remove keys that are not on the disk.
        flush: bool,
        /// Whether a key in both is taken from the disk, if keys are not removed. Otherwise such a key is an error.
        merge: bool,
    },
    /// LOADAOF.
    Log,
}

const NOT_SAVED: CommandError = CommandError::Text("ERR");
const NOT_LOADED: CommandError = CommandError::Text("ERR Error trying to load the RDB dump, check server logs.");
const LOG_NOT_LOADED: CommandError = CommandError::Text("ERR Error trying to load the AOF files, check server logs.");
const NO_LOG: CommandError = CommandError::Text("ERR There is no log to be loaded: appendonly is off");
const ENDING: CommandError = CommandError::Text("ERR The server is ending");

/// Begins a reload on its own thread. `done` receives the result.
pub fn request(server: &Arc<Server>, how: Reload, done: oneshot::Sender<Result<(), CommandError>>) {
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("reload".into()).spawn(move || {
        let outcome = match saving::wait_for_turn(&shared, SavePurpose::Save) {
            true => {
                let outcome = catch_unwind(AssertUnwindSafe(|| reload(&shared, how)));
                saving::end_turn(&shared);
                outcome.unwrap_or(Err(CommandError::Internal(Remains::Unknown)))
            }
            false => Err(ENDING),
        };
        // The client may be gone.
        let _ = done.send(outcome);
    });
    if let Err(error) = spawned {
        logging::warning(format_args!("Nothing is reloaded, for there is no thread to do it: {error}"));
    }
}

/// Reloads, in the turn of a snapshot.
fn reload(server: &Server, how: Reload) -> Result<(), CommandError> {
    let started = clock::monotonic_us();
    if let Some((_, what)) = server.keyspace.first_damage() {
        logging::warning(format_args!("Nothing is reloaded: {what}"));
        return Err(if how == Reload::Log { LOG_NOT_LOADED } else { NOT_LOADED });
    }
    let _order = lock::out_of_order("who holds the log's writer tries the gate for a moment and never waits for it");
    let closed = settle(server, how)?;
    let not_loaded = |error: PersistError| {
        logging::warning(format_args!("Nothing is reloaded, the keys stay as they are: {error}"));
        if how == Reload::Log { LOG_NOT_LOADED } else { NOT_LOADED }
    };
    let loaded = load(server).map_err(not_loaded)?;
    if let Reload::Snapshot { flush: false, merge, .. } = how {
        if !merge && let Some(what) = shared(&server.keyspace, &loaded) {
            logging::warning(format_args!("Nothing is reloaded: {what} is in memory and on the disk"));
            return Err(NOT_LOADED);
        }
        add_missing(&server.keyspace, &loaded);
    }
    exchange(server, &loaded, &closed);
    loading::settle_libraries(server);
    // As in Redis, which empties its databases first.
    server.tracking.clear();
    server.invalidate_all(0, server.store.journal().position());
    drop(closed);
    let keys: usize = server.keyspace.counts().filled().map(|(_, census)| census.keys).sum();
    // After the exchange, `loaded` holds the old keys.
    let removed: usize = loaded.counts().filled().map(|(_, census)| census.keys).sum();
    server.reclaim(Box::new(loaded), removed as u64, UNCOUNTED_BYTES);
    let seconds = (clock::monotonic_us() - started) as f64 / 1e6;
    logging::warning(format_args!("DB reloaded from the disk: {keys} keys in {seconds:.3} seconds"));
    Ok(())
}

/// Brings everything to the disk that should be there, and closes the gate.
fn settle(server: &Server, how: Reload) -> Result<Closed<'_>, CommandError> {
    if let Reload::Snapshot { save: true, .. } = how {
        let (outcome, closed) = saving::save_and_stay_closed(server);
        saving::record_save(server, &outcome);
        return outcome.map(|()| closed).map_err(|_| NOT_SAVED);
    }
    let closed = server.gate.close();
    let log = server.store.log();
    if log.is_active() {
        // If the log has failed, the disk does not hold everything.
        let misconf =
            |error: PersistError| CommandError::MisconfLog(log.poisoned().unwrap_or_else(|| error.to_string()));
        log.flush().map_err(misconf)?;
    } else if how == Reload::Log {
        return Err(NO_LOG);
    }
    Ok(closed)
}

/// Loads what a start would find on the disk now.
fn load(server: &Server) -> Result<Keyspace, PersistError> {
    let recovery = server.store.read_again()?;
    let settings = server.config.settings();
    // In cluster mode, the log may still tell of databases that were emptied before.
    let mut loaded = Keyspace::new(settings.databases as u32, server.keyspace.seed());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = crate::exec::limits_of(&settings, loaded.seed());
    let pace = Pace::by(&server.config, |settings| settings.key_load_delay_us);
    loading::load(&loaded, &recovery, limits, cores, pace, (&server.loading, Display::Log))?;
    if server.cluster.is_some() {
        loading::leave_first_database(&mut loaded)?;
    }
    Ok(loaded)
}

/// Finds a library or a key that is in both, and says what it is.
fn shared(ours: &Keyspace, loaded: &Keyspace) -> Option<String> {
    let libraries = ours.libraries();
    if let Some(library) = loaded.libraries().iter().find(|library| libraries.get(&library.name).is_some()) {
        return Some(format!("the library '{}'", library.name.escape_ascii()));
    }
    let seed = ours.seed();
    (0..SHARDS as u16).find_map(|number| {
        let (ours, loaded) = (ours.lock(number), loaded.lock(number));
        loaded.databases().find_map(|(db, directory)| {
            let ours = ours.directory(db)?;
            let is_ours = |key: &&[u8]| ours.get(seed.hash(key), key).is_some();
            let key = directory.iter().map(|entry| entry.key()).find(is_ours)?;
            Some(format!("the key '{}'", logging::user_data(key.escape_ascii())))
        })
    })
}

/// Adds the keys and libraries that the disk does not have to the loaded ones.
fn add_missing(ours: &Keyspace, loaded: &Keyspace) {
    for number in 0..SHARDS as u16 {
        let (ours, mut loaded_shard) = (ours.lock(number), loaded.lock(number));
        for (db, directory) in ours.databases() {
            for entry in directory.iter() {
                let key = loaded.key(entry.key());
                let mut into = loaded_shard.directory_mut(db);
                if into.get(key.hash, key.bytes).is_none() {
                    into.set(key.hash, key.bytes, entry.to_new_value(), entry.expiry(), entry.access());
                    into.bless(key.hash, key.bytes, directory.is_blessed_entry(entry));
                }
            }
        }
    }
    for library in ours.libraries().iter().filter(|library| loaded.libraries().get(&library.name).is_none()) {
        loaded.change_libraries(|all| all.insert(Arc::clone(library)));
    }
}

/// Replaces the keyspace by the loaded one.
fn exchange(server: &Server, loaded: &Keyspace, _alone: &Closed<'_>) {
    for number in 0..SHARDS as u16 {
        let mut shard = server.keyspace.lock(number);
        shard.exchange(&mut loaded.lock(number));
        server.keyspace.renew_earliest_expiry(number, &shard);
    }
    let before = server.keyspace.replace_libraries(loaded.libraries());
    loaded.replace_libraries(before);
    let buried = loaded.graveyard().take_all();
    let before = server.keyspace.graveyard().replace(buried);
    loaded.graveyard().replace(before);
}
