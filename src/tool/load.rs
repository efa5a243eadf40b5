//! Loads what a recovery yields, as a start does, into a keyspace of the tool's own: the last proof that it is whole.

use crate::base::config::{Config, Source};
use crate::base::hash::HashSeed;
use crate::base::progress::{Display, Progress, Unit, watched};
use crate::durable::loading;
use crate::durable::pace::Pace;
use crate::keyspace::{Keyspace, SHARDS};
use crate::persist::Recovery;
use crate::value::Limits;

/// Loads it. Without a log, one shard after the other is loaded and dropped. Records of the log may need several
/// shards, so with a log the whole keyspace is in memory at the end.
///
/// Returns the number of keys.
pub(super) fn load(recovery: &Recovery) -> Result<u64, String> {
    if recovery.shards() != SHARDS as u32 {
        return Err(format!("it is laid out in {} shards, not {SHARDS}", recovery.shards()));
    }
    let config = Config::load(&Source::Defaults, b"").map_err(|error| error.to_string())?;
    let keyspace = Keyspace::new(i32::MAX as u32, HashSeed(recovery.hash_seed()));
    let limits = crate::exec::limits_of(&config.settings(), keyspace.seed());
    if recovery.summary().blocks > 0 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let seen = (&Progress::default(), Display::of_tool());
        loading::load(&keyspace, recovery, limits, cores, Pace::default(), seen).map_err(|error| error.to_string())?;
        return Ok(keyspace.counts().filled().map(|(_, census)| census.keys as u64).sum());
    }
    let progress = Progress::of(recovery.summary().snapshot_entries);
    let each = || load_each(&keyspace, recovery, limits, &progress);
    let keys = watched(&progress, ("Loading", Unit::Things("keys")), Display::of_tool(), each)?;
    recovery.libraries().map_err(|error| error.to_string())?;
    Ok(keys)
}

/// Loads one shard after the other, and drops it.
fn load_each(keyspace: &Keyspace, recovery: &Recovery, limits: Limits, progress: &Progress) -> Result<u64, String> {
    let mut keys = 0;
    loading::load_graves(keyspace, recovery).map_err(|error| error.to_string())?;
    for shard in 0..SHARDS as u16 {
        let loaded = loading::load_shard(keyspace, recovery, &limits, shard, Pace::default());
        let loaded = loaded.map_err(|error| error.to_string())?;
        loading::check_buried(keyspace, recovery, &limits, shard).map_err(|error| error.to_string())?;
        keys += loaded;
        progress.add(loaded);
        loading::drop_shard(keyspace, shard);
    }
    Ok(keys)
}
