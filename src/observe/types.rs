//! How much memory the keys of each type take in each database.
//!
//! A database of up to `EXACT_KEYS_MAX` keys is looked at whole. Of a larger one, `DRAWN_PER_SHARD` random keys of
//! each shard stand for all but the biggest, which are known. Shards that a command holds are skipped, because a report
//! never waits.

use std::collections::{BTreeMap, HashSet};

use crate::base::random;
use crate::core::Server;
use crate::core::keystats::{BigKey, By};
use crate::keyspace::SHARDS;
use crate::value::entry::EntryRef;

/// The most keys of a database that is looked at whole.
const EXACT_KEYS_MAX: usize = 4096;
/// How many keys of each shard stand for those of a larger one.
const DRAWN_PER_SHARD: usize = 2;

/// The keys of one type in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfType {
    /// The database.
    pub db: u32,
    /// The type, as `TYPE` names it.
    pub name: &'static str,
    /// How many keys have it,
    pub keys: u64,
    /// and what they take, in bytes.
    pub bytes: u64,
    /// Whether both are estimated from a few keys.
    pub is_estimate: bool,
}

/// The keys of all types of all databases, at a time in Unix ms.
pub fn by_type(server: &Server, now: i64) -> Vec<OfType> {
    let mut all = Vec::new();
    let biggest: Vec<BigKey> = match server.config.settings().key_statistics {
        true => server.keystats.biggest(&server.keyspace, By::Bytes, now),
        false => Vec::new(),
    };
    for (db, census) in server.keyspace.counts().filled() {
        let is_estimate = census.keys > EXACT_KEYS_MAX;
        let known: Vec<&BigKey> = biggest.iter().filter(|key| key.db == db && is_estimate).collect();
        let names: HashSet<&[u8]> = known.iter().map(|key| &key.key[..]).collect();
        let mut seen: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        let mut add = |entry: EntryRef<'_>| {
            if names.contains(entry.key()) {
                return;
            }
            let (keys, bytes) = seen.entry(entry.kind().type_name()).or_default();
            (*keys, *bytes) = (*keys + 1, *bytes + entry.memory() as u64);
        };
        for shard in 0..SHARDS as u16 {
            let Some(shard) = server.keyspace.try_lock(shard) else { continue };
            let Some(directory) = shard.directory(db) else { continue };
            if is_estimate {
                let draw = || directory.random(random::with(|random| random.next_u64()));
                (0..DRAWN_PER_SHARD).filter_map(|_| draw()).for_each(&mut add);
            } else {
                directory.iter().for_each(&mut add);
            }
        }
        let drawn = seen.values().map(|(keys, _)| keys).sum::<u64>().max(1);
        let others = census.keys.saturating_sub(known.len()) as u128;
        let scale = |number: u64| match is_estimate {
            true => (u128::from(number) * others / u128::from(drawn)) as u64,
            false => number,
        };
        seen.values_mut().for_each(|(keys, bytes)| (*keys, *bytes) = (scale(*keys), scale(*bytes)));
        for key in known {
            let (keys, bytes) = seen.entry(key.type_name).or_default();
            (*keys, *bytes) = (*keys + 1, *bytes + key.bytes);
        }
        all.extend(seen.into_iter().map(|(name, (keys, bytes))| OfType { db, name, keys, bytes, is_estimate }));
    }
    all
}
