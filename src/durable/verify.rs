//! Proves that a backup can be loaded, beside the keyspace that is served.
//!
//! 1. Every byte is read past the system's cache, as the disk has it, and compared with its checksums.
//! 2. Snapshot and log are loaded a shard at a time, or a few if the log is encrypted, into a keyspace of its own,
//!    counted and dropped. Shards that a RENAME ties together are loaded together. Of a log that can only be replayed
//!    as a whole (it is of format version 1), every record is decoded and none is applied. A log beyond `LOG_MAX`
//!    stays with its checksums. It is held in memory and not mapped: somebody may use the directory meanwhile, and a
//!    file that gets shorter under a map ends the process.

use std::sync::Arc;

use super::background::{self, Plan};
use super::loading;
use super::pace::Pace;
use crate::base::hash::HashSeed;
use crate::keyspace::{Keyspace, SHARDS};
use crate::persist::crypt::Encryption;
use crate::persist::examine::{self, Fault, scrub};
use crate::persist::format::segment_number;
use crate::persist::storage::Storage;
use crate::persist::wire::ManifestWire;
use crate::persist::{PersistError, Recovery, manifest};
use crate::value::Limits;

/// The longest log that is loaded, in bytes. That of a backup reaches from its start to its seal.
const LOG_MAX: u64 = 64 << 20;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Keys; of a log that is only decoded, those of the snapshot.
    pub keys: u64,
    /// Bytes that were read past the cache.
    pub bytes: u64,
}

/// What is about to be done.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// It begins: so many bytes will be read or loaded.
    Begin(u64),
    /// So many bytes were read.
    Read(u64),
    /// So many bytes of a snapshot are about to be loaded, while the log is held in memory.
    Load {
        /// Bytes in the file.
        chunk: u64,
        /// Bytes in memory.
        log: u64,
    },
}

/// Verifies a sealed backup. `goes_on` is told of each step, may sleep, and ends all if it returns false: the result is
/// then `None`.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    storage: &Arc<dyn Storage>,
    encryption: Option<&Encryption>,
    limits: impl FnOnce(HashSeed) -> Limits,
    mut goes_on: impl FnMut(Step) -> bool,
) -> Result<Option<Verified>, Fault> {
    let fault = |error: PersistError| Fault::of(&error, None);
    let manifest = manifest::read(&**storage).map_err(fault)?.ok_or_else(|| Fault {
        file: storage.path(crate::persist::format::MANIFEST),
        offset: None,
        block: None,
        what: "it is missing".to_owned(),
        is_damage: true,
    })?;
    let loaded = manifest.current.snapshot.as_ref().map_or(0, |snapshot| snapshot.length);
    if !goes_on(Step::Begin(scrub::extent(&**storage, &manifest, u64::MAX) + loaded)) {
        return Ok(None);
    }
    let scrubbed = scrub::pass(&**storage, &manifest, u64::MAX, |bytes| goes_on(Step::Read(bytes)));
    if let Some(fault) = scrubbed.faults.into_iter().next() {
        return Err(fault);
    }
    if !scrubbed.is_complete {
        return Ok(None);
    }
    let mut manifest = manifest;
    if log_bytes(&**storage, &manifest).map_err(fault)? > LOG_MAX {
        manifest.current.segments.clear();
    }
    let unmapped = storage.unmapped().unwrap_or_else(|| Arc::clone(storage));
    let recovery = examine::recovery_of(&unmapped, &manifest, encryption).map_err(fault)?;
    if let Some(torn) = &recovery.summary().torn {
        return Err(fault(PersistError::corrupt(&torn.file, torn.offset, &torn.what)));
    }
    // Databases are those that there are, whatever this server is configured for.
    let staged = Keyspace::new(i32::MAX as u32, HashSeed(recovery.hash_seed()));
    let limits = limits(staged.seed());
    let log = recovery.summary().log_bytes;
    let keys = load(&recovery, &staged, limits, |chunk| goes_on(Step::Load { chunk, log })).map_err(fault)?;
    Ok(keys.map(|keys| Verified { keys, bytes: scrubbed.bytes }))
}

/// How long the log of a backup is, in bytes: the segments that the manifest names, and those that follow them.
fn log_bytes(storage: &dyn Storage, manifest: &ManifestWire) -> Result<u64, PersistError> {
    let Some(first) = manifest.current.segments.first().map(|segment| segment.number) else { return Ok(0) };
    let names = storage.list().map_err(PersistError::io("list", storage.path("")))?;
    let of_log = names.iter().filter(|name| segment_number(name).is_some_and(|number| number >= first));
    let len = |name: &String| {
        let len = storage.reader(name).and_then(|reader| reader.len());
        len.map_err(PersistError::io("look at", storage.path(name)))
    };
    of_log.map(len).sum()
}

/// Loads everything, a group of shards at a time.
fn load(
    recovery: &Recovery,
    staged: &Keyspace,
    limits: Limits,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Option<u64>, PersistError> {
    recovery.libraries()?;
    loading::load_graves(staged, recovery)?;
    if let Some(plan) = Plan::of(recovery, staged, limits)? {
        return background::load_in_turn((recovery, &plan), staged, limits, goes_on);
    }
    let mut keys = 0;
    for shard in 0..SHARDS as u16 {
        if !goes_on(recovery.snapshot().map_or(0, |snapshot| snapshot.stored_bytes(shard))) {
            return Ok(None);
        }
        keys += loading::load_shard(staged, recovery, &limits, shard, Pace::default())?;
        loading::drop_shard(staged, shard);
    }
    let mut windows = recovery.windows();
    while let Some(window) = windows.next_window()? {
        if !goes_on(window.bytes) {
            return Ok(None);
        }
    }
    Ok(Some(keys))
}
