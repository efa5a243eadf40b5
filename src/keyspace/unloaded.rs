//! Shards that are still to be loaded while the server serves.
//!
//! To all others, such a shard is one whose lock is held: a command that needs it is parked, a walk waits, a sweep
//! skips it. Who would have waited for the lock has asked for the shard, and the loader takes it next; who only looks
//! in passing, as INFO does at every shard, has not. So nothing can take a shard that is not loaded for an empty one.
//!
//! A shard that turns out to be damaged is never loaded. Whatever names one of its keys, or needs every key, is
//! answered by an error before it locks anything; who came earlier finds the shard busy, and then the same error.
//!
//! Invariants:
//! - Only the loader locks a shard before it is loaded. It fills the shard and strikes it off the list under one lock.
//! - While one is still to be loaded, the gate stays open ([`Gate::begin_loading`](super::Gate::begin_loading)), so
//!   nothing works on the whole keyspace.
//! - Nobody locks a damaged shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Keyspace, SHARDS};
use crate::base::lock::{Mutex, out_of_order};

/// How often a thread that is no worker looks whether its shard is loaded.
const LOOK: Duration = Duration::from_micros(200);
const WORDS: usize = SHARDS / u64::BITS as usize;

/// Which shards are not loaded. The content of a shard is read under its lock, so the flags need no order of their own.
#[derive(Debug, Default)]
pub(super) struct Unloaded {
    /// Whether a shard is not there: it is still to be loaded, or damaged.
    any: AtomicBool,
    /// Whether a shard is still to be loaded.
    loading: AtomicBool,
    missing: [AtomicU64; WORDS],
    wanted: [AtomicU64; WORDS],
    /// How many shards are damaged,
    damaged: AtomicU64,
    /// and what is wrong with each.
    damage: Mutex<Vec<(u16, Arc<str>)>>,
}

/// The word of a shard and its bit.
fn bit(shard: u16) -> (usize, u64) {
    (usize::from(shard) / u64::BITS as usize, 1 << (u32::from(shard) % u64::BITS))
}

impl Keyspace {
    /// Marks all shards as not loaded. Nothing serves yet.
    pub fn begin_loading(&self) {
        self.unloaded.missing.iter().for_each(|word| word.store(u64::MAX, Relaxed));
        self.unloaded.any.store(true, Relaxed);
        self.unloaded.loading.store(true, Relaxed);
    }

    /// Whether a shard is still to be loaded.
    #[inline]
    pub fn is_loading(&self) -> bool {
        self.unloaded.loading.load(Relaxed)
    }

    /// Whether this shard is still to be loaded, or damaged.
    #[inline]
    pub(super) fn lacks(&self, shard: u16) -> bool {
        self.unloaded.any.load(Relaxed) && self.lacks_now(shard)
    }

    #[cold]
    fn lacks_now(&self, shard: u16) -> bool {
        let (word, bit) = bit(shard);
        self.unloaded.missing[word].load(Relaxed) & bit != 0
    }

    /// Asks the loader for a shard.
    #[cold]
    pub(super) fn want(&self, shard: u16) {
        let (word, bit) = bit(shard);
        self.unloaded.wanted[word].fetch_or(bit, Relaxed);
    }

    /// Waits until a shard is loaded.
    ///
    /// # Panics
    /// If it is damaged, so that this would never end.
    #[cold]
    pub(super) fn wait_until_loaded(&self, shard: u16) {
        while self.lacks(shard) {
            assert!(self.damage_of(shard).is_none(), "a damaged shard was to be locked");
            self.want(shard);
            std::thread::sleep(LOOK);
        }
    }

    /// A shard that somebody has asked for; each is told once.
    pub fn next_wanted(&self) -> Option<u16> {
        self.unloaded.wanted.iter().enumerate().find_map(|(at, word)| {
            let wanted = word.load(Relaxed);
            let bit = wanted.checked_ilog2()?;
            (word.fetch_and(!(1 << bit), Relaxed) & 1 << bit != 0).then(|| (at as u32 * u64::BITS + bit) as u16)
        })
    }

    /// Fills a shard with that of a keyspace of the same seed, and strikes it off the list.
    pub fn install(&self, shard: u16, from: &Keyspace) {
        let _order = out_of_order("the shards of two keyspaces, of which nobody else knows one");
        let mut ours = self.slots[usize::from(shard)].shard.lock();
        let mut theirs = from.lock(shard);
        ours.exchange(&mut theirs);
        ours.sequence = theirs.sequence;
        self.renew_earliest_expiry(shard, &ours);
        let (word, bit) = bit(shard);
        self.unloaded.missing[word].fetch_and(!bit, Relaxed);
    }

    /// Notes that a shard cannot be loaded, and why.
    pub fn note_damage(&self, shard: u16, what: &Arc<str>) {
        self.unloaded.damage.lock().push((shard, Arc::clone(what)));
        self.unloaded.damaged.fetch_add(1, Relaxed);
    }

    /// How many shards are damaged.
    #[inline]
    pub fn damaged_shards(&self) -> u64 {
        self.unloaded.damaged.load(Relaxed)
    }

    /// What is wrong with a shard that is damaged.
    pub fn damage_of(&self, shard: u16) -> Option<Arc<str>> {
        if self.damaged_shards() == 0 {
            return None;
        }
        let damage = self.unloaded.damage.lock();
        damage.iter().find(|(damaged, _)| *damaged == shard).map(|(_, what)| Arc::clone(what))
    }

    /// The damaged shard with the lowest number, and what is wrong with it.
    pub fn first_damage(&self) -> Option<(u16, Arc<str>)> {
        self.unloaded.damage.lock().iter().min_by_key(|(shard, _)| *shard).cloned()
    }

    /// Notes that all shards are loaded, but for those that are damaged.
    ///
    /// # Panics
    /// If another one is not.
    pub fn end_loading(&self) {
        let missing: u64 = self.unloaded.missing.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum();
        assert_eq!(missing, self.damaged_shards(), "a shard is missing");
        self.unloaded.any.store(missing > 0, Relaxed);
        self.unloaded.loading.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::keyspace::NewValue;

    #[test]
    fn a_shard_is_busy_and_asked_for_until_it_is_installed() {
        let seed = HashSeed([3; 16]);
        let (ours, staged) = (Keyspace::new(2, seed), Keyspace::new(2, seed));
        let key = ours.key(b"key");
        let shard = key.shard();
        staged.lock(shard).directory_mut(1).set(key.hash, key.bytes, NewValue::Int(7), Some(99), 0);
        staged.lock(shard).sequence = 5;
        ours.begin_loading();
        assert!(ours.is_loading() && !ours.is_free(shard) && ours.next_wanted().is_none());
        assert!(ours.try_lock(shard).is_none());
        assert_eq!(ours.next_wanted(), None, "who looks in passing comes before nobody");
        assert!(ours.lock_for(shard, Duration::from_secs(100)).is_none(), "it does not wait");
        assert_eq!((ours.next_wanted(), ours.next_wanted()), (Some(shard), None));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| ours.lock(shard).sequence);
            ours.install(shard, &staged);
            assert_eq!(waits.join().ok(), Some(5));
        });
        assert!(ours.is_free(shard) && ours.try_lock(shard).is_some());
        assert_eq!((ours.counts().of(1).keys, ours.earliest_expiry(shard)), (1, 99));
        let other = shard.wrapping_add(1) % SHARDS as u16;
        assert!(ours.try_lock(other).is_none());
        (0..SHARDS as u16).filter(|&rest| rest != shard).for_each(|rest| ours.install(rest, &staged));
        ours.end_loading();
        assert!(!ours.is_loading() && ours.try_lock(other).is_some());
    }

    #[test]
    fn a_damaged_shard_stays_locked_for_ever_and_says_why() {
        let seed = HashSeed([4; 16]);
        let (ours, staged) = (Keyspace::new(1, seed), Keyspace::new(1, seed));
        ours.begin_loading();
        assert!(ours.damage_of(9).is_none() && ours.first_damage().is_none());
        for shard in 0..SHARDS as u16 {
            match shard {
                9 | 7 => ours.note_damage(shard, &format!("what of {shard}").into()),
                _ => ours.install(shard, &staged),
            }
        }
        ours.end_loading();
        assert!(!ours.is_loading() && ours.damaged_shards() == 2);
        assert!(ours.try_lock(8).is_some() && ours.try_lock(9).is_none());
        assert!(ours.lock_for(9, Duration::from_secs(100)).is_none());
        assert!(ours.is_free(9), "who is parked for it comes back, and learns of the damage");
        assert_eq!(ours.damage_of(9).as_deref(), Some("what of 9"));
        assert_eq!(ours.first_damage(), Some((7, "what of 7".into())));
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(ours.lock(9))));
        assert!(tried.is_err(), "nobody waits for what never comes");
    }
}
