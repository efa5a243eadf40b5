//! Loads snapshot and log into the keyspace, shard by shard, on all cores.
//!
//! One call loads a shard and needs nothing of the others. The same holds for its part of each window of the log.
//! Serving while loading can call the same functions in another order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::base::lock::{Mutex, Rank};
use crate::base::progress::{Display, Progress, Unit, watched};

use crate::core::Server;
use crate::durable::pace::Pace;
use crate::exec::{Replayer, memory_of_scripts, replay};
use crate::keyspace::{Buried, Directory, Grave, Keyspace, Library, NewValue, SHARDS};
use crate::persist::format::BURIED_SHARD;
use crate::persist::graves::split_buried;
use crate::persist::snapshot::SnapshotReader;
use crate::persist::{Chunk, Entry, PersistError, Record, Recovery, WireGrave, WireValue};
use crate::script::handed;
use crate::value::{Limits, codec};

/// The fewest bytes that an entry of a chunk takes: its tag, a length, and a value.
const ENTRY_MIN_BYTES: usize = 3;

/// What is wrong with keys of a flush that the snapshot does not list.
const UNLISTED: &str = "keys of a flush that is not in the list";

/// What was loaded, for the log lines of a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Keys of the snapshot.
    pub keys: u64,
    /// Records of the log.
    pub records: u64,
    /// Whether all that is still going on.
    pub goes_on: bool,
}

/// Loads everything, on `threads` threads, at this pace. The progress counts the bytes of the files, and is displayed
/// every few seconds.
///
/// # Errors
/// Any damage in the files. The keyspace is then unusable.
pub fn load(
    keyspace: &Keyspace,
    recovery: &Recovery,
    limits: Limits,
    threads: usize,
    pace: Pace<'_>,
    (progress, display): (&Progress, Display),
) -> Result<Loaded, PersistError> {
    let found = recovery.summary();
    progress.begin(recovery.snapshot().map_or(0, SnapshotReader::chunk_bytes) + found.log_bytes);
    let work = || load_unseen(keyspace, recovery, limits, threads, pace, progress);
    let loaded = watched(progress, ("Loading", Unit::Bytes), display, work);
    progress.end();
    loaded
}

fn load_unseen(
    keyspace: &Keyspace,
    recovery: &Recovery,
    limits: Limits,
    threads: usize,
    pace: Pace<'_>,
    progress: &Progress,
) -> Result<Loaded, PersistError> {
    recovery.read_the_rest()?;
    let keys = Mutex::new(Rank::Register, 0);
    let shards: Vec<u16> = (0..SHARDS as u16).collect();
    // A plan that came to nothing has left those of the log.
    keyspace.graveyard().take_all();
    load_graves(keyspace, recovery)?;
    in_parallel(&shards, threads, limits, |_, &shard| {
        let loaded = load_shard(keyspace, recovery, &limits, shard, pace)?;
        for (id, buried) in load_buried(keyspace, recovery, &limits, shard, pace)? {
            bury(keyspace, recovery, id, buried)?;
        }
        *keys.lock() += loaded;
        progress.add(recovery.snapshot().map_or(0, |snapshot| snapshot.stored_bytes(shard)));
        Ok(())
    })?;
    keyspace.graveyard().drop_empty();
    load_libraries(keyspace, recovery)?;
    let mut loaded = Loaded { keys: keys.into_inner(), ..Loaded::default() };
    let mut replayer = Replayer::new(limits);
    let mut windows = recovery.windows();
    while let Some(window) = windows.next_window()? {
        let bytes = window.bytes;
        for epoch in window.epochs {
            if let Some(barrier) = &epoch.barrier {
                apply(keyspace, &mut replayer, barrier)?;
                loaded.records += 1;
            }
            in_parallel(&epoch.shards, threads, limits, |replayer, (shard, records)| {
                for record in records {
                    pace.pause();
                    apply(keyspace, replayer, record)?;
                }
                if let Some(last) = records.last() {
                    keyspace.lock(*shard).sequence = last.seq;
                }
                Ok(())
            })?;
            loaded.records += epoch.shards.iter().map(|(_, records)| records.len() as u64).sum::<u64>();
        }
        progress.add(bytes);
    }
    for shard in shards {
        let locked = keyspace.lock(shard);
        keyspace.renew_earliest_expiry(shard, &locked);
    }
    Ok(loaded)
}

/// Loads the snapshot's libraries of functions.
///
/// # Errors
/// They are damaged.
pub fn load_libraries(keyspace: &Keyspace, recovery: &Recovery) -> Result<(), PersistError> {
    for (name, code) in recovery.libraries()? {
        keyspace.change_libraries(|all| all.insert(Arc::new(Library::unread(&name, &code))));
    }
    Ok(())
}

/// Leaves database 0 alone, for cluster clients.
///
/// # Errors
/// Another one has keys.
pub fn leave_first_database(keyspace: &mut Keyspace) -> Result<(), PersistError> {
    if let Some((db, _)) = keyspace.counts().filled().find(|(db, _)| *db != 0) {
        let why = format!("in cluster mode there is database 0 alone, but database {db} has keys");
        return Err(PersistError::Refused { file: "cluster-enabled".into(), why });
    }
    // Nothing else comes back, either.
    if keyspace.graveyard().graves().iter().any(|grave| grave.buried.iter().any(|buried| buried.db != 0)) {
        keyspace.graveyard().take_all();
    }
    keyspace.limit_databases(1);
    Ok(())
}

/// Reads the libraries of functions, once all else is loaded.
pub fn settle_libraries(server: &Server) {
    let settings = server.config.settings();
    let memory_max = memory_of_scripts(settings.maxmemory_scripts, settings.maxmemory);
    handed::settle(&server.functions, &server.keyspace, memory_max);
}

/// Loads a shard's part of the snapshot. Returns how many keys it holds.
///
/// # Errors
/// The chunk is damaged.
pub fn load_shard(
    keyspace: &Keyspace,
    recovery: &Recovery,
    limits: &Limits,
    shard: u16,
    pace: Pace<'_>,
) -> Result<u64, PersistError> {
    let Some(chunk) = recovery.shard_chunk(shard)? else { return Ok(0) };
    let own = |entry: &Entry<'_>| Ok((0, entry.key.len()));
    let wrong = |what| recovery.chunk_error(shard, what);
    let directories = read_chunk(keyspace, &chunk, limits, shard, pace, own).map_err(wrong)?;
    let mut locked = keyspace.lock(shard);
    for ((_, db), directory) in directories {
        locked.replace_directory(db, Some(directory));
    }
    Ok(chunk.entries())
}

/// The list of the flushes that can be undone, without their keys, so that `load_buried` can add these.
///
/// # Errors
/// The chunk is damaged.
pub fn load_graves(keyspace: &Keyspace, recovery: &Recovery) -> Result<(), PersistError> {
    for grave in recovery.graves()? {
        let WireGrave { id, only, at_ms, until_ms, bytes } = grave;
        keyspace.graveyard().announce(Grave { id, only, at_ms, until_ms, bytes, buried: Vec::new() });
    }
    Ok(())
}

/// What flushes took out of a shard, by the number of the flush.
///
/// # Errors
/// The chunk is damaged.
pub(super) fn load_buried(
    keyspace: &Keyspace,
    recovery: &Recovery,
    limits: &Limits,
    shard: u16,
    pace: Pace<'_>,
) -> Result<Vec<(u64, Buried)>, PersistError> {
    let Some(chunk) = recovery.buried(shard)? else { return Ok(Vec::new()) };
    let split = |entry: &Entry<'_>| match split_buried(entry) {
        Some((id, key)) => Ok((id, key.len())),
        None => Err("a key without the number of its flush"),
    };
    let wrong = |what| recovery.chunk_error(BURIED_SHARD | shard, what);
    let directories = read_chunk(keyspace, &chunk, limits, shard, pace, split).map_err(wrong)?;
    let buried = |((id, db), directory)| (id, Buried { shard, db, directory: triomphe::Arc::new(directory) });
    Ok(directories.into_iter().map(buried).collect())
}

/// Reads what flushes took out of a shard, and keeps nothing. The list of them is loaded.
///
/// # Errors
/// The chunk is damaged.
pub fn check_buried(keyspace: &Keyspace, recovery: &Recovery, limits: &Limits, shard: u16) -> Result<(), PersistError> {
    load_buried(keyspace, recovery, limits, shard, Pace::default())?.into_iter().try_for_each(|(id, _)| match keyspace
        .graveyard()
        .add(id, [])
    {
        true => Ok(()),
        false => Err(recovery.chunk_error(BURIED_SHARD | shard, UNLISTED)),
    })
}

/// Adds loaded keys to the grave of their flush.
pub(super) fn bury(keyspace: &Keyspace, recovery: &Recovery, id: u64, buried: Buried) -> Result<(), PersistError> {
    let shard = buried.shard;
    match keyspace.graveyard().add(id, [buried]) {
        true => Ok(()),
        false => Err(recovery.chunk_error(BURIED_SHARD | shard, UNLISTED)),
    }
}

/// Directories by a number and the database.
type Numbered = Vec<((u64, u32), Directory)>;

/// Reads a chunk into directories, by a number and the database. `split` tells the number of an entry, and how many
/// bytes at the end of its key are the key.
fn read_chunk(
    keyspace: &Keyspace,
    chunk: &Chunk<'_>,
    limits: &Limits,
    shard: u16,
    pace: Pace<'_>,
    split: impl Fn(&Entry<'_>) -> Result<(u64, usize), &'static str>,
) -> Result<Numbered, &'static str> {
    let mut directories: Numbered = Vec::new();
    for entry in chunk.iter() {
        pace.pause();
        let entry = entry?;
        let (number, len) = split(&entry)?;
        let key = &entry.key[entry.key.len() - len..];
        let hash = keyspace.seed().hash(key);
        if crate::keyspace::shard_of(hash) != shard {
            return Err("a key of another shard");
        }
        if entry.db >= keyspace.databases() {
            return Err("a key of a database that there is not: see `databases` and `cluster-enabled`");
        }
        let at = match directories.iter().position(|(of, _)| *of == (number, entry.db)) {
            Some(at) => at,
            None => {
                // Most stores use one database, whose directory gets its final size at once. The count is a claim of
                // the index: no more entries than their bytes allow.
                let room = if directories.is_empty() { chunk.len().div_ceil(ENTRY_MIN_BYTES) } else { 0 };
                let room = usize::try_from(chunk.entries()).map_or(room, |claimed| claimed.min(room));
                directories.push(((number, entry.db), Directory::with_capacity(keyspace.seed(), room, chunk.len())));
                directories.len() - 1
            }
        };
        let value = match entry.value {
            WireValue::Int(number) => NewValue::Int(number),
            WireValue::Bytes(bytes) => NewValue::Bytes(bytes),
            WireValue::Collection(tag, bytes) => codec::decode(tag, bytes, limits)?,
        };
        let displaced = directories[at].1.set(hash, key, value, entry.expiry, entry.access.unwrap_or(0));
        if displaced.is_some() {
            return Err("the same key twice");
        }
        if entry.is_blessed {
            directories[at].1.bless(hash, key, true);
        }
    }
    Ok(directories)
}

/// Drops what a shard holds. Returns how many keys those were.
pub fn drop_shard(keyspace: &Keyspace, shard: u16) -> u64 {
    let mut locked = keyspace.lock(shard);
    let filled: Vec<u32> = locked.databases().map(|(db, _)| db).collect();
    filled.into_iter().filter_map(|db| locked.replace_directory(db, None)).map(|directory| directory.len() as u64).sum()
}

/// Refuses records of so many databases if there are fewer.
pub(super) fn check_databases(keyspace: &Keyspace, databases: u32) -> Result<(), PersistError> {
    if databases > keyspace.databases() {
        return Err(refused(format!(
            "the log speaks of database {}, but only {} are configured (directive 'databases')",
            databases - 1,
            keyspace.databases()
        )));
    }
    Ok(())
}

/// Applies a record of the log.
pub(super) fn apply(keyspace: &Keyspace, replayer: &mut Replayer, record: &Record<'_>) -> Result<(), PersistError> {
    check_databases(keyspace, record.db.saturating_add(1))?;
    replay(keyspace, replayer, record)
        .map_err(|what| refused(format!("a record of the log cannot be replayed: {what}")))
}

/// The error for a log that does not fit.
pub(super) fn refused(why: String) -> PersistError {
    PersistError::Refused { file: "the log".into(), why }
}

/// Calls `work` for each item, on up to `threads` threads. Stops at the first error.
fn in_parallel<T: Sync>(
    items: &[T],
    threads: usize,
    limits: Limits,
    work: impl Fn(&mut Replayer, &T) -> Result<(), PersistError> + Sync,
) -> Result<(), PersistError> {
    /// Fewer items than this are not worth a thread.
    const ITEMS_MIN: usize = 8;
    if threads <= 1 || items.len() < ITEMS_MIN {
        let mut replayer = Replayer::new(limits);
        return items.iter().try_for_each(|item| work(&mut replayer, item));
    }
    let next = AtomicU16::new(0);
    let failed = Mutex::new(Rank::Register, None);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                let mut replayer = Replayer::new(limits);
                while failed.lock().is_none() {
                    let Some(item) = items.get(usize::from(next.fetch_add(1, Ordering::Relaxed))) else { break };
                    if let Err(error) = work(&mut replayer, item) {
                        failed.lock().get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().map_or(Ok(()), Err)
}
