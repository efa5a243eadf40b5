//! Eviction: chooses and removes keys when memory has reached `maxmemory`.
//!
//! As in Redis, victims are approximate: each round samples `maxmemory-samples` random keys, keeps the best few of
//! all rounds in a pool, and removes the best of the pool. A round draws its keys from a random shard and the shards
//! after it, so that a keyspace of any size yields its samples.
//!
//! Invariants:
//! - The caller is inside the gate and holds no shard. One shard is locked at a time, and none is
//!   waited for.
//! - Each removal reaches the log under the lock of its shard.
//! - The room of a removed record goes back to the allocator at once, so that the caller can measure what is freed.
//! - A large collection is freed by another thread, anything else here.
//! - A key that is protected from eviction (BLESS) is passed over, and one that has become so stays.

use std::time::{Duration, Instant};

use crate::base::config::{EvictionPolicy, NotifyFlags};
use crate::base::random::Random;
use crate::core::db::Facts;
use crate::core::{Db, Scratch, Unit};
use crate::keyspace::{Directory, EntryRef, Held, Keyspace, SHARDS};
use crate::value::entry::Heap;

/// After how many rounds the clock is read again.
const ROUNDS_PER_READING: usize = 4;
/// How many of the best candidates are kept from one round to the next.
const POOL_MAX: usize = 16;

/// How to choose.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// `maxmemory-policy`.
    pub policy: EvictionPolicy,
    /// `maxmemory-samples`.
    pub samples: usize,
}

/// Chooses and removes keys. Each worker has one, because its pool is useful the next time.
#[derive(Debug)]
pub struct Evictor {
    random: Random,
    /// What the scores of the pool mean.
    policy: EvictionPolicy,
    /// Ascending by score: the best victim is last.
    pool: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    score: u64,
    db: u32,
    key: Vec<u8>,
}

/// How far an eviction may go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// When it ends; `None` means when it is done.
    pub until: Option<Instant>,
    /// Only keys of this many shards from the first on may go.
    pub shards: usize,
}

/// The result of an eviction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Keys removed.
    pub keys: usize,
    /// Whether the policy finds no more.
    pub is_exhausted: bool,
    /// Whether it would find more if keys were not protected from eviction.
    pub is_guarded: bool,
}

impl Default for Evictor {
    fn default() -> Self {
        Evictor::new(Random::from_os())
    }
}

impl Evictor {
    /// Creates an evictor that draws its samples from `random`.
    pub fn new(random: Random) -> Self {
        Evictor { random, policy: EvictionPolicy::NoEviction, pool: Vec::new() }
    }
}

impl Evictor {
    /// Removes one key after another until `is_enough` says so, the time is over, or the policy finds no more.
    ///
    /// `publish` is called under the lock of each removed key's shard. It carries the effects to the log.
    pub fn evict(
        &mut self,
        db: &mut EvictDb<'_>,
        choice: Choice,
        bounds: Bounds,
        is_enough: &mut dyn FnMut(&Evicted) -> bool,
        publish: &mut dyn FnMut(&mut Unit),
    ) -> Evicted {
        let mut evicted = Evicted::default();
        if bounds.shards < SHARDS {
            // Candidates of other shards must not go.
            self.pool.clear();
        }
        for round in 1_usize.. {
            if is_enough(&evicted) {
                break;
            }
            if round.is_multiple_of(ROUNDS_PER_READING) && bounds.until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let all_were_free = self.sample(db, choice, bounds.shards, &mut evicted.is_guarded);
            let Some(best) = self.pool.pop() else {
                evicted.is_exhausted = all_were_free;
                break;
            };
            evicted.keys += usize::from(remove(db, &best, publish));
        }
        evicted
    }

    /// Adds the keys of one round to the pool. Returns whether no shard was busy, and notes whether keys are passed
    /// over because they are protected.
    fn sample(&mut self, db: &EvictDb<'_>, choice: Choice, shards: usize, is_guarded: &mut bool) -> bool {
        let is_random = matches!(choice.policy, EvictionPolicy::AllkeysRandom | EvictionPolicy::VolatileRandom);
        let wanted = if is_random { 1 } else { choice.samples };
        if is_random || self.policy != choice.policy {
            self.pool.clear();
            self.policy = choice.policy;
        }
        if shards == 0 {
            return true;
        }
        let first = self.random.index(shards);
        let (mut drawn, mut all_were_free) = (0, true);
        for step in 0..shards {
            let Some(shard) = db.keyspace.try_lock(((first + step) % shards) as u16) else {
                all_were_free = false;
                continue;
            };
            for (index, directory) in shard.databases() {
                let Some(entry) = draw(directory, choice.policy, self.random.next_u64()) else {
                    *is_guarded |= directory.guards(choice.policy.is_volatile());
                    continue;
                };
                drawn += 1;
                let score = score(entry, choice.policy, &db.facts).unwrap_or_else(|| self.random.next_u64());
                offer(&mut self.pool, score, index, entry.key());
            }
            if drawn >= wanted {
                break;
            }
        }
        all_were_free
    }
}

/// Eviction's view of the keyspace.
pub struct EvictDb<'a> {
    /// All keys.
    pub keyspace: &'a Keyspace,
    /// Collects the effects of the removals.
    pub unit: &'a mut Unit,
    /// See [`Scratch`].
    pub scratch: &'a mut Scratch,
    /// The time, and how access fields are read.
    pub facts: Facts,
    /// Has another thread free what takes long.
    pub reclaim: &'a dyn Fn(Heap),
}

impl std::fmt::Debug for EvictDb<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvictDb").finish_non_exhaustive()
    }
}

/// A random key that the policy may remove.
fn draw(directory: &Directory, policy: EvictionPolicy, random: u64) -> Option<EntryRef<'_>> {
    directory.random_evictable(random, policy.is_volatile())
}

/// How good a victim a key is; higher is better. `None` where the policy is random.
fn score(entry: EntryRef<'_>, policy: EvictionPolicy, facts: &Facts) -> Option<u64> {
    use EvictionPolicy::{AllkeysLfu, AllkeysLrm, AllkeysLru, VolatileLfu, VolatileLrm, VolatileLru, VolatileTtl};
    Some(match policy {
        VolatileLru | AllkeysLru | VolatileLrm | AllkeysLrm => facts.access.idle_seconds(entry.access()),
        VolatileLfu | AllkeysLfu => u64::from(u8::MAX) - u64::from(facts.access.frequency(entry.access())).min(255),
        VolatileTtl => u64::MAX - entry.expiry().unwrap_or(u64::MAX),
        _ => return None,
    })
}

/// Puts a key into the pool if there is room, or if it is better than the worst one there.
fn offer(pool: &mut Vec<Candidate>, score: u64, db: u32, key: &[u8]) {
    if pool.iter().any(|candidate| candidate.db == db && candidate.key == key) {
        return;
    }
    if pool.len() == POOL_MAX {
        if pool[0].score >= score {
            return;
        }
        pool.remove(0);
    }
    let at = pool.partition_point(|candidate| candidate.score < score);
    pool.insert(at, Candidate { score, db, key: key.to_vec() });
}

/// Removes a key if it still exists and its shard is free. Returns whether it did.
fn remove(world: &mut EvictDb<'_>, victim: &Candidate, publish: &mut dyn FnMut(&mut Unit)) -> bool {
    let key = world.keyspace.key(&victim.key);
    let Ok(held) = Held::try_one(world.keyspace, key.shard(), Duration::ZERO) else { return false };
    world.unit.begin(world.unit.wants(), false);
    let mut db = Db::new(held, world.unit, world.scratch, victim.db, &world.facts);
    let before = db.changes();
    // It may have been protected since it became a candidate.
    let removed = !db.is_blessed(key) && db.remove(key);
    if removed {
        // No client made this change, so it is not counted.
        db.count_as(before, 0);
        db.note_vanished(key);
        db.notify(NotifyFlags::EVICTED, "evicted", key);
        db.record(key).delete();
    }
    publish(db.unit());
    if let Some(directory) = db.held().shard(key.shard()).directory_unshared(victim.db) {
        directory.compact(key.hash);
    }
    drop(db);
    for heap in world.unit.retired.drain(..) {
        match heap {
            // One block, which is freed here, because memory is short now.
            Heap::Str(_) | Heap::Raw(_) | Heap::Packed(..) => drop(heap),
            many_blocks => (world.reclaim)(many_blocks),
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::{Runner, dump};
    use crate::keyspace::access::Lfu;

    fn choice(policy: EvictionPolicy) -> Choice {
        Choice { policy, samples: 5 }
    }

    /// Evicts `keys` keys and returns the names that remain.
    fn left(t: &mut Runner, policy: EvictionPolicy, keys: usize) -> Vec<String> {
        let evicted = t.evict(choice(policy), keys);
        assert!(evicted.keys <= keys);
        t.assert_replay_equals_live();
        let mut names: Vec<_> =
            dump(t.keyspace()).into_iter().map(|(_, key, ..)| String::from_utf8(key).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn lru_removes_mostly_what_was_not_used() {
        let mut t = Runner::new();
        (0..500).for_each(|number| drop(t.run(&format!("SET old:{number} v"))));
        t.advance_ms(10_000);
        (0..500).for_each(|number| drop(t.run(&format!("SET new:{number} v"))));
        let left = left(&mut t, EvictionPolicy::AllkeysLru, 400);
        assert_eq!(left.len(), 600);
        let new = left.iter().filter(|name| name.starts_with("new")).count();
        assert!(new > 480, "{new} of 500 recently used keys are left");
    }

    #[test]
    fn lrm_removes_mostly_what_was_not_written() {
        let mut t = Runner::new();
        t.lrm = true;
        (0..500).for_each(|number| drop(t.run(&format!("SET old:{number} v"))));
        (0..500).for_each(|number| drop(t.run(&format!("SET new:{number} v"))));
        t.advance_ms(10_000);
        (0..500).for_each(|number| drop(t.run(&format!("GET old:{number}"))));
        (0..500).for_each(|number| drop(t.run(&format!("APPEND new:{number} w"))));
        assert_eq!((t.run("OBJECT IDLETIME old:0"), t.run("OBJECT IDLETIME new:0")), (":10 ".into(), ":0 ".into()));
        let left = left(&mut t, EvictionPolicy::AllkeysLrm, 400);
        let new = left.iter().filter(|name| name.starts_with("new")).count();
        assert!(new > 480, "{new} of 500 recently written keys are left");
    }

    #[test]
    fn lfu_removes_mostly_what_is_seldom_used() {
        let mut t = Runner::new();
        t.lfu = Some(Lfu { log_factor: 0, decay_minutes: 0 });
        for number in 0..500 {
            t.run(&format!("SET often:{number} v"));
            (0..10).for_each(|_| drop(t.run(&format!("GET often:{number}"))));
            t.run(&format!("SET seldom:{number} v"));
        }
        let left = left(&mut t, EvictionPolicy::AllkeysLfu, 400);
        let often = left.iter().filter(|name| name.starts_with("often")).count();
        assert!(often > 480, "{often} of 500 often used keys are left");
    }

    #[test]
    fn volatile_policies_leave_keys_without_expiry() {
        use EvictionPolicy::{VolatileLfu, VolatileLrm, VolatileLru, VolatileRandom, VolatileTtl};
        for policy in [VolatileLru, VolatileLrm, VolatileLfu, VolatileRandom, VolatileTtl] {
            let mut t = Runner::new();
            (0..300).for_each(|number| drop(t.run(&format!("SET lasting:{number} v"))));
            t.db = 3;
            (0..3).for_each(|number| drop(t.run(&format!("SET brief:{number} v EX {}", 100 + number))));
            let left = left(&mut t, policy, 10);
            assert_eq!(left.len(), 300, "{policy:?} finds the few that it may remove, and stops");
        }
    }

    #[test]
    fn ttl_removes_first_what_expires_first() {
        let mut t = Runner::new();
        (0..16).for_each(|number| drop(t.run(&format!("SET k:{number:02} v EX {}", 1000 + number))));
        let evicted = t.evict(Choice { policy: EvictionPolicy::VolatileTtl, samples: 1000 }, 15);
        assert_eq!(evicted.keys, 15);
        assert_eq!(t.run("KEYS *"), "*1 $4 k:15 ");
    }

    #[test]
    fn it_ends_when_it_is_enough_or_nothing_is_left() {
        let mut t = Runner::new();
        (0..100).for_each(|number| drop(t.run(&format!("SET k:{number} {}", "v".repeat(1000)))));
        let evicted = t.evict(choice(EvictionPolicy::AllkeysRandom), 10);
        assert_eq!(evicted, Evicted { keys: 10, is_exhausted: false, is_guarded: false });
        let evicted = t.evict(choice(EvictionPolicy::AllkeysRandom), usize::MAX);
        assert_eq!(evicted, Evicted { keys: 90, is_exhausted: true, is_guarded: false });
        let evicted = t.evict(choice(EvictionPolicy::AllkeysRandom), 1);
        assert_eq!(evicted, Evicted { keys: 0, is_exhausted: true, is_guarded: false });
    }

    #[test]
    fn a_time_that_is_over_ends_it_after_a_few_keys() {
        let mut t = Runner::new();
        (0..100).for_each(|number| drop(t.run(&format!("SET k:{number} v"))));
        let bounds = Bounds { until: Some(Instant::now()), shards: SHARDS };
        let evicted = t.evict_within(choice(EvictionPolicy::AllkeysRandom), bounds, usize::MAX);
        assert_eq!(evicted, Evicted { keys: ROUNDS_PER_READING - 1, is_exhausted: false, is_guarded: false });
    }

    #[test]
    fn keys_of_other_shards_stay() {
        let mut t = Runner::new();
        (0..2000).for_each(|number| drop(t.run(&format!("SET k:{number} v"))));
        let some = Bounds { until: None, shards: 100 };
        let inside = |t: &Runner| {
            let keys = dump(t.keyspace());
            keys.iter().filter(|(_, key, ..)| t.keyspace().key(key).shard() < 100).count()
        };
        let before = inside(&t);
        assert!(before > 0);
        let evicted = t.evict_within(choice(EvictionPolicy::AllkeysLru), some, usize::MAX);
        assert_eq!(evicted, Evicted { keys: before, is_exhausted: true, is_guarded: false });
        assert_eq!((inside(&t), dump(t.keyspace()).len()), (0, 2000 - before));
    }

    #[test]
    fn what_is_removed_is_given_back_at_once() {
        let mut t = Runner::new();
        (0..20_000).for_each(|number| drop(t.run(&format!("SET k:{number} {}", "v".repeat(50)))));
        let before = t.keyspace().memory();
        t.evict(choice(EvictionPolicy::AllkeysRandom), 2000);
        let freed = before - t.keyspace().memory();
        assert!(freed > before / 15, "a tenth of the keys has freed {freed} of {before} bytes");
    }
}
