//! Fetching ahead of use: what the commands of a group will touch, in waves, so that the cache misses of one
//! overlap those of the others.

use smallvec::SmallVec;

use super::{GROUP_MAX, Plan, find_keys};
use crate::command::Server;
use crate::command::call::HashedKeys;
use crate::keyspace::{Key, Keyspace};
use crate::resp::Args;

/// Resolves all commands, hashes their keys, and fetches what they will touch, in four waves, and two more for
/// members of large collections, so that the cache misses of one overlap those of the others.
pub(super) fn plan<'a>(
    server: &'a Server,
    db: u32,
    calls: &[Args<'_>],
    keys: &mut [HashedKeys],
) -> SmallVec<[Plan<'a>; GROUP_MAX]> {
    let keyspace = &server.keyspace;
    let mut plans = SmallVec::new();
    let mut last = None;
    for (args, keys) in calls.iter().zip(keys.iter_mut()) {
        keys.clear();
        let plan = server.table.resolve_after(&mut last, *args);
        if let Ok(entry) = &plan {
            find_keys(keyspace, entry.command, *args, keys);
            if calls.len() > 1 {
                keys.hashes.iter().for_each(|&hash| keyspace.prefetch_shard(hash));
                if let member @ 1.. = entry.command.member {
                    keys.member = args.get(member).map(|member| keyspace.seed().hash(member));
                }
            }
        }
        plans.push(plan);
    }
    if calls.len() > 1 {
        let hashes = || keys[..calls.len()].iter().flat_map(|keys| keys.hashes.iter().take(4));
        prefetch(keyspace, hashes().map(|&hash| (db, hash)));
        prefetch_members(keyspace, db, calls, keys);
    }
    plans
}

/// The waves that fetch members of large collections: first the segment of each, then the record.
fn prefetch_members(keyspace: &Keyspace, db: u32, calls: &[Args<'_>], keys: &mut [HashedKeys]) {
    for (args, keys) in calls.iter().zip(keys.iter_mut()) {
        if let (Some(member), [place], [hash]) = (keys.member, &keys.places[..], &keys.hashes[..]) {
            let key = Key { bytes: args.at(*place), hash: *hash };
            keys.member = Some(member).filter(|member| keyspace.prefetch_member_segment(db, key, *member));
        }
    }
    for (args, keys) in calls.iter().zip(keys) {
        if let (Some(member), [place], [hash]) = (keys.member, &keys.places[..], &keys.hashes[..]) {
            keyspace.prefetch_member_record(db, Key { bytes: args.at(*place), hash: *hash }, member);
        }
    }
}

/// The waves behind the first (see [`Keyspace::prefetch_shard`]) that fetch what leads to keys, each given with
/// its database.
#[inline]
pub(super) fn prefetch(keyspace: &Keyspace, keys: impl Iterator<Item = (u32, u64)> + Clone) {
    keys.clone().for_each(|(_, hash)| keyspace.prefetch_directory(hash));
    keys.clone().for_each(|(db, hash)| keyspace.prefetch_segment(db, hash));
    keys.for_each(|(db, hash)| keyspace.prefetch_record(db, hash));
}
