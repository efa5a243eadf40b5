//! Prefetching: fetches what the commands of a group will touch, in waves, so that their cache misses overlap.

use super::data::find_keys;
use super::{GROUP_MAX, Plan};
use crate::core::Server;
use crate::core::call::HashedKeys;
use crate::core::table::LastNamed;
use crate::keyspace::Keyspace;
use crate::resp::Args;

/// How many keys of one command are prefetched.
const KEYS_AHEAD: usize = 4;

/// Resolves all commands, hashes their keys, and prefetches what they will touch: in four waves, and in two more for
/// members of large collections.
pub(super) fn plan<'a>(
    server: &'a Server,
    db: u32,
    calls: &[Args<'_>],
    keys: &mut [HashedKeys],
    last: &mut LastNamed,
) -> [Plan<'a>; GROUP_MAX] {
    let keyspace = &server.keyspace;
    let mut plans = [None; GROUP_MAX];
    let (mut ahead, mut hashed) = ([0; GROUP_MAX * KEYS_AHEAD], 0);
    let mut any_member = false;
    for ((&args, keys), plan) in calls.iter().zip(keys.iter_mut()).zip(&mut plans) {
        keys.clear();
        *plan = server.table.resolve_after(last, args);
        let Some(entry) = *plan else { continue };
        find_keys(keyspace, entry, args, keys);
        if calls.len() > 1 {
            for key in keys.named.iter().take(KEYS_AHEAD) {
                keyspace.prefetch_shard(key.hash);
                ahead[hashed] = key.hash;
                hashed += 1;
            }
            if let member @ 1.. = entry.command.member {
                keys.member = args.get(member).map(|member| keyspace.seed().hash(member));
                any_member = true;
            }
        }
    }
    prefetch(keyspace, ahead[..hashed].iter().map(|&hash| (db, hash)));
    if any_member {
        prefetch_members(keyspace, db, calls, keys);
    }
    plans
}

/// The waves that prefetch members of large collections: first the segment of each, then the record.
fn prefetch_members(keyspace: &Keyspace, db: u32, calls: &[Args<'_>], keys: &mut [HashedKeys]) {
    for (args, keys) in calls.iter().zip(keys.iter_mut()) {
        if let (Some(member), [named]) = (keys.member, &keys.named[..]) {
            let key = named.of(*args);
            keys.member = Some(member).filter(|member| keyspace.prefetch_member_segment(db, key, *member));
        }
    }
    for (args, keys) in calls.iter().zip(keys) {
        if let (Some(member), [named]) = (keys.member, &keys.named[..]) {
            keyspace.prefetch_member_record(db, named.of(*args), member);
        }
    }
}

/// The waves after the first (see [`Keyspace::prefetch_shard`]) that prefetch the path to each key, given with its
/// database.
#[inline]
pub(super) fn prefetch(keyspace: &Keyspace, keys: impl Iterator<Item = (u32, u64)> + Clone) {
    keys.clone().for_each(|(_, hash)| keyspace.prefetch_directory(hash));
    keys.clone().for_each(|(db, hash)| keyspace.prefetch_segment(db, hash));
    keys.for_each(|(db, hash)| keyspace.prefetch_record(db, hash));
}
