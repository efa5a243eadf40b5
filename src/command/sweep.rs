//! Active expiry: removing keys whose time has come although nobody asks for them.
//!
//! The keyspace keeps for each shard a time before which none of its keys expires, read without a lock,
//! and a directory keeps one for each segment: so a sweep that finds nothing due costs one load a shard.
//!
//! Invariants:
//! - A shard's lock is held for a bounded number of removals, and their records are published before it
//!   is given back.
//! - Whoever sweeps is inside the gate.

use super::Db;
use super::db::{Facts, Scratch};
use crate::keyspace::directory::ExpiredKey;
use crate::keyspace::{Held, Key, Keyspace};

/// The most removals under one hold of a lock.
const REMOVED_PER_LOCK_MAX: usize = 64;

/// Removes expired keys of these shards, at most `budget`; returns whether more may be due now.
///
/// `scratch` says whether to log; `publish` is called with it under the lock of each shard that changed,
/// to take the effects to the log.
pub fn sweep(
    keyspace: &Keyspace,
    scratch: &mut Scratch,
    facts: Facts,
    shards: impl Iterator<Item = u16>,
    budget: usize,
    publish: &mut dyn FnMut(&mut Scratch),
) -> bool {
    let mut budget = budget;
    let mut expired = Vec::new();
    for shard in shards {
        while keyspace.earliest_expiry(shard) <= facts.now.max(0) as u64 {
            if budget == 0 {
                return true;
            }
            let limit = budget.min(REMOVED_PER_LOCK_MAX);
            let removed = sweep_shard(keyspace, scratch, facts, shard, limit, &mut expired, publish);
            budget -= removed;
            if removed < limit {
                break;
            }
        }
    }
    false
}

/// Removes at most `limit` expired keys of one shard, and raises the bounds of what it has looked at.
/// Returns how many it removed. `expired` is room to work in.
fn sweep_shard(
    keyspace: &Keyspace,
    scratch: &mut Scratch,
    facts: Facts,
    shard: u16,
    limit: usize,
    expired: &mut Vec<ExpiredKey>,
    publish: &mut dyn FnMut(&mut Scratch),
) -> usize {
    scratch.begin(scratch.logging, false);
    let mut db = Db::new(Held::one(keyspace, shard), scratch, 0, facts);
    let mut removed = 0;
    for index in 0..keyspace.databases() {
        // The look after the last removal finds nothing, and with that raises the bounds.
        while removed < limit {
            let Some(directory) = db.held().shard(shard).directory(index) else { break };
            directory.collect_expired(facts.now.max(0) as u64, limit - removed, expired);
            if expired.is_empty() {
                break;
            }
            removed += expired.len();
            db.select(index);
            for key in expired.drain(..) {
                db.expire(Key { bytes: &key.key, hash: key.hash });
            }
        }
    }
    keyspace.renew_earliest_expiry(shard, db.held().shard(shard));
    publish(db.scratch());
    removed
}
