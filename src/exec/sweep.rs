//! Active expiry: removes expired keys and hash fields that nobody asks for.
//!
//! The keyspace keeps, for each shard, a time before which nothing in it expires, and reads it without a lock. A
//! directory keeps such a bound for each segment, and a hash for its fields. A sweep that finds nothing due therefore
//! costs one load per shard.
//!
//! Invariants:
//! - A shard's lock is held for a bounded number of removals. Their records are published before it is released.
//! - The caller is inside the gate.

use std::time::Duration;

use smallvec::SmallVec;

use crate::core::db::Facts;
use crate::core::{Db, Scratch, Unit};
use crate::keyspace::{Directory, Held, Key, Keyspace};
use crate::value::directory::ExpiredKey;

/// The most removals while a lock is held once.
const REMOVED_PER_LOCK_MAX: usize = 64;

/// Removes about `budget` expired keys and fields at most from these shards. Returns whether more may be due now.
///
/// `unit` says what is wanted. `publish` is called with it under the lock of each shard that changed, and carries the
/// records to the log.
pub fn sweep(
    keyspace: &Keyspace,
    unit: &mut Unit,
    scratch: &mut Scratch,
    facts: Facts,
    shards: impl Iterator<Item = u16>,
    budget: usize,
    publish: &mut dyn FnMut(&mut Unit),
) -> bool {
    let mut budget = budget;
    for shard in shards {
        while keyspace.earliest_expiry(shard) <= facts.now.max(0) as u64 {
            if budget == 0 {
                return true;
            }
            let limit = budget.min(REMOVED_PER_LOCK_MAX);
            let removed = sweep_shard(keyspace, unit, scratch, facts, shard, limit, publish);
            budget -= removed;
            if removed < limit {
                break;
            }
        }
    }
    false
}

/// Removes at most `limit` expired keys and fields of one shard, and raises the bounds of what it examined. Returns
/// how many it removed.
fn sweep_shard(
    keyspace: &Keyspace,
    unit: &mut Unit,
    scratch: &mut Scratch,
    facts: Facts,
    shard: u16,
    limit: usize,
    publish: &mut dyn FnMut(&mut Unit),
) -> usize {
    unit.begin(unit.wants(), false);
    // A command that holds the shard is not waited for: the next sweep comes soon.
    let Ok(held) = Held::try_one(keyspace, shard, Duration::ZERO) else { return 0 };
    let mut db = Db::new(held, unit, scratch, 0, &facts);
    let now = facts.now.max(0) as u64;
    let due = |(index, directory): (u32, &Directory)| {
        directory.earliest_expiry().is_some_and(|at| at <= now).then_some(index)
    };
    let databases: SmallVec<[u32; 16]> = db.held().shard(shard).databases().filter_map(due).collect();
    let mut removed = 0;
    let mut expired: Vec<ExpiredKey> = Vec::new();
    for index in databases {
        // The pass after the last removal finds nothing and thereby raises the bounds.
        while removed < limit {
            let Some(directory) = db.held().shard(shard).directory(index) else { break };
            directory.collect_expired(now, limit - removed, &mut expired);
            if expired.is_empty() {
                break;
            }
            db.select(index);
            for found in expired.drain(..) {
                let key = Key { bytes: &found.key, hash: found.hash };
                if removed >= limit {
                    continue;
                }
                if found.whole {
                    db.expire(key);
                    removed += 1;
                } else {
                    // Making a bound exact that was too low counts as work, too.
                    removed += db.expire_fields(key, |hash, now| hash.remove_expired(now, limit - removed)).max(1);
                }
            }
        }
    }
    keyspace.renew_earliest_expiry(shard, db.held().shard(shard));
    publish(db.unit());
    removed
}

#[cfg(test)]
mod tests {
    use crate::exec::testing::{Runner, dump};
    use crate::keyspace::SHARDS;

    #[test]
    fn what_has_expired_goes_at_its_time_and_is_logged() {
        let mut t = Runner::new();
        t.run("SET lasting 1");
        t.run("SET later 1 PX 101");
        t.run("SET now 1 PX 100");
        t.db = 15;
        t.run("SET now 1 PX 100");
        t.advance_ms(99);
        t.take_logged();
        assert!(!t.sweep(1000));
        assert_eq!(t.take_logged(), [""; 0]);
        t.advance_ms(1);
        assert!(!t.sweep(1000));
        assert_eq!(t.take_logged(), ["DEL now", "DEL now"]);
        assert_eq!(dump(t.keyspace()).len(), 2);
        t.advance_ms(1);
        assert!(!t.sweep(1000));
        assert_eq!(t.take_logged(), ["DEL later"]);
        assert!(!t.sweep(0), "nothing is due, so no budget is needed");
    }

    #[test]
    fn a_budget_bounds_the_work_and_the_rest_is_told() {
        let mut t = Runner::new();
        for number in 0..1000 {
            t.run(&format!("SET k:{number} 1 PX {}", 1 + number % 10));
            t.run(&format!("SET lasting:{number} 1 PX 60000"));
        }
        t.advance_ms(10);
        assert!(t.sweep(0));
        assert_eq!(dump(t.keyspace()).len(), 2000);
        assert!(t.sweep(300));
        assert_eq!(dump(t.keyspace()).len(), 1700);
        let mut calls = 0;
        while t.sweep(300) {
            calls += 1;
        }
        assert!(calls <= 3, "{calls}");
        assert_eq!(dump(t.keyspace()).len(), 1000);
        t.assert_replay_equals_live();
        let now = t.now() as u64;
        let bounds_are_exact = (0..SHARDS as u16).all(|shard| t.keyspace().earliest_expiry(shard) > now + 1000);
        assert!(bounds_are_exact, "a bound that stays low makes every sweep look again");
    }

    #[test]
    fn many_keys_of_one_shard_go_in_parts() {
        let mut t = Runner::new();
        let shard = t.keyspace().key(b"k:0").shard();
        let names = (0..).map(|number| format!("k:{number}"));
        let chosen: Vec<String> =
            names.filter(|name| t.keyspace().key(name.as_bytes()).shard() == shard).take(150).collect();
        for name in &chosen {
            t.run(&format!("SET {name} 1 PX 10"));
        }
        t.advance_ms(10);
        t.take_logged();
        assert!(!t.sweep(1000));
        assert_eq!(t.take_logged().len(), 150);
        assert_eq!(t.keyspace().earliest_expiry(shard), u64::MAX);
    }

    #[test]
    fn a_bound_that_is_too_low_removes_nothing() {
        let mut t = Runner::new();
        t.run("SET k 1 PX 10");
        t.run("PERSIST k");
        t.run("SET k2 1 PX 10");
        t.run("PEXPIRE k2 5000");
        t.advance_ms(100);
        t.take_logged();
        assert!(!t.sweep(10));
        assert_eq!(t.take_logged(), [""; 0]);
        assert_eq!(dump(t.keyspace()).len(), 2);
    }

    #[test]
    fn watched_keys_change_when_they_are_swept() {
        let mut t = Runner::new();
        t.run("SET k 1 PX 10");
        let shard = t.keyspace().key(b"k").shard();
        let before = t.keyspace().lock(shard).watched.watch(0, b"k");
        t.advance_ms(10);
        t.sweep(10);
        assert_ne!(t.keyspace().lock(shard).watched.unwatch(0, b"k"), Some(before));
    }
}
