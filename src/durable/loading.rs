//! Loads snapshot and log into the keyspace, shard by shard, on all cores.
//!
//! One call loads a shard and needs nothing of the others. The same holds for its part of each window of the log.
//! Serving while loading can call the same functions in another order.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::base::lock::{Mutex, Rank};

use crate::durable::pace::Pace;
use crate::exec::{Replayer, replay};
use crate::keyspace::{Directory, Keyspace, NewValue, SHARDS};
use crate::persist::{PersistError, Record, Recovery, WireValue};
use crate::value::{Limits, codec};

/// The fewest bytes that an entry of a chunk takes: its tag, a length, and a value.
const ENTRY_MIN_BYTES: usize = 3;

/// What was loaded, for the log lines of a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Keys of the snapshot.
    pub keys: u64,
    /// Records of the log.
    pub records: u64,
}

/// Loads everything, on `threads` threads, at this pace.
///
/// # Errors
/// Any damage in the files. The keyspace is then unusable.
pub fn load(
    keyspace: &Keyspace,
    recovery: &Recovery,
    limits: Limits,
    threads: usize,
    pace: Pace,
) -> Result<Loaded, PersistError> {
    let keys = Mutex::new(Rank::Register, 0);
    let shards: Vec<u16> = (0..SHARDS as u16).collect();
    in_parallel(&shards, threads, limits, |_, &shard| {
        let loaded = load_shard(keyspace, recovery, &limits, shard, pace)?;
        *keys.lock() += loaded;
        Ok(())
    })?;
    let mut loaded = Loaded { keys: keys.into_inner(), records: 0 };
    let mut replayer = Replayer::new(limits);
    for window in recovery.windows() {
        for epoch in window?.epochs {
            if let Some(barrier) = &epoch.barrier {
                apply(keyspace, &mut replayer, barrier)?;
                loaded.records += 1;
            }
            in_parallel(&epoch.shards, threads, limits, |replayer, (shard, records)| {
                for record in records {
                    apply(keyspace, replayer, record)?;
                }
                if let Some(last) = records.last() {
                    keyspace.lock(*shard).sequence = last.seq;
                }
                Ok(())
            })?;
            loaded.records += epoch.shards.iter().map(|(_, records)| records.len() as u64).sum::<u64>();
        }
    }
    for shard in shards {
        let locked = keyspace.lock(shard);
        keyspace.renew_earliest_expiry(shard, &locked);
    }
    Ok(loaded)
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
    pace: Pace,
) -> Result<u64, PersistError> {
    let Some(chunk) = recovery.shard_chunk(shard)? else { return Ok(0) };
    let mut directories: Vec<(u32, Directory)> = Vec::new();
    for entry in chunk.iter() {
        pace.pause();
        let entry = entry.map_err(|what| recovery.chunk_error(shard, what))?;
        let hash = keyspace.seed().hash(entry.key);
        if crate::keyspace::shard_of(hash) != shard {
            return Err(recovery.chunk_error(shard, "a key of another shard"));
        }
        if entry.db >= keyspace.databases() {
            return Err(recovery.chunk_error(shard, "a database beyond the `databases` directive"));
        }
        let at = match directories.iter().position(|(db, _)| *db == entry.db) {
            Some(at) => at,
            None => {
                // Most stores use one database, whose directory gets its final size at once. The count is a claim of
                // the index: no more entries than their bytes allow.
                let room = if directories.is_empty() { chunk.len().div_ceil(ENTRY_MIN_BYTES) } else { 0 };
                let room = usize::try_from(chunk.entries()).map_or(room, |claimed| claimed.min(room));
                directories.push((entry.db, Directory::with_capacity(keyspace.seed(), room, chunk.len())));
                directories.len() - 1
            }
        };
        let value = match entry.value {
            WireValue::Int(number) => NewValue::Int(number),
            WireValue::Bytes(bytes) => NewValue::Bytes(bytes),
            WireValue::Collection(tag, bytes) => {
                codec::decode(tag, bytes, limits).map_err(|what| recovery.chunk_error(shard, what))?
            }
        };
        let displaced = directories[at].1.set(hash, entry.key, value, entry.expiry, entry.access.unwrap_or(0));
        if displaced.is_some() {
            return Err(recovery.chunk_error(shard, "the same key twice"));
        }
    }
    let mut locked = keyspace.lock(shard);
    for (db, directory) in directories {
        locked.replace_directory(db, Some(directory));
    }
    Ok(chunk.entries())
}

fn apply(keyspace: &Keyspace, replayer: &mut Replayer, record: &Record<'_>) -> Result<(), PersistError> {
    if record.db >= keyspace.databases() {
        return Err(refused(format!(
            "the log speaks of database {}, but only {} are configured (directive 'databases')",
            record.db,
            keyspace.databases()
        )));
    }
    replay(keyspace, replayer, record)
        .map_err(|what| refused(format!("a record of the log cannot be replayed: {what}")))
}

fn refused(why: String) -> PersistError {
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
