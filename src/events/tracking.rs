//! Client-side caching: which connections may have cached which keys.
//!
//! ```text
//! table    key ──▶ the connections that have read it since its last change      (default mode)
//! prefixes prefix ──▶ the connections that want to hear of all its keys          (BCAST)
//! ```
//!
//! The table knows keys by name alone, whatever their database, as in Redis. It holds no connection: those that are
//! gone, or track no more, stay until the key changes.
//!
//! Invariants:
//! - A key is remembered while its shard is held, behind its last change that the reader saw and before the next one.
//!   A change takes out whom to tell while it holds the shard. So no change falls between a read and its entry.
//! - `tell` is called under the lock of the trackers, so that the last word about whether there are any is right.
//! - While there are no trackers, the table is empty.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::base::lock::{Mutex, Rank};

/// The parts of the table, each with its lock; a power of two.
const STRIPES: usize = 256;
/// From so many readers of one key on, those that are gone are looked for, each time that their number has doubled.
const READERS_CHECKED: usize = 64;

/// A connection that tracks keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracker {
    /// The connection's id.
    pub client: u64,
    /// The worker that serves it.
    pub worker: usize,
}

/// The connections that have read a key.
pub type Readers = SmallVec<[Tracker; 1]>;
/// The connections that track each prefix.
pub type Prefixes = BTreeMap<Box<[u8]>, Vec<Tracker>>;

type Stripe = HashMap<Box<[u8]>, Readers>;

/// See the module.
#[derive(Debug)]
pub struct Tracking {
    table: Box<[Mutex<Stripe>]>,
    /// How many keys and readers the table holds.
    keys: AtomicUsize,
    items: AtomicUsize,
    trackers: Mutex<Trackers>,
    /// How many prefixes are tracked.
    prefixes: AtomicUsize,
    /// How many keys it may hold; 0 for any number.
    keys_max: AtomicUsize,
    /// Where the next key is dropped.
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Trackers {
    /// All of them, with their prefixes.
    all: HashMap<u64, Vec<Box<[u8]>>>,
    prefixes: Arc<Prefixes>,
}

impl Default for Tracking {
    fn default() -> Self {
        let stripe = |index| Mutex::indexed(Rank::Tracked, index as u32, Stripe::default());
        Tracking {
            table: (0..STRIPES).map(stripe).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            trackers: Mutex::new(Rank::Trackers, Trackers::default()),
            prefixes: AtomicUsize::new(0),
            keys_max: AtomicUsize::new(0),
            next: AtomicU64::new(0),
        }
    }
}

impl Tracking {
    /// Adds a connection, or prefixes to one that tracks already.
    pub fn join(&self, tracker: Tracker, prefixes: &[&[u8]], tell: impl FnOnce(bool)) {
        let mut trackers = self.trackers.lock();
        let Trackers { all, prefixes: tracked } = &mut *trackers;
        let own = all.entry(tracker.client).or_default();
        for &prefix in prefixes {
            own.push(prefix.into());
            Arc::make_mut(tracked).entry(prefix.into()).or_default().push(tracker);
        }
        self.prefixes.store(tracked.len(), Ordering::Relaxed);
        tell(true);
    }

    /// Removes a connection and its prefixes.
    pub fn leave(&self, client: u64, tell: impl FnOnce(bool)) {
        let mut trackers = self.trackers.lock();
        let Trackers { all, prefixes } = &mut *trackers;
        for prefix in all.remove(&client).unwrap_or_default() {
            let prefixes = Arc::make_mut(prefixes);
            if let Some(of_prefix) = prefixes.get_mut(&prefix) {
                of_prefix.retain(|tracker| tracker.client != client);
                if of_prefix.is_empty() {
                    prefixes.remove(&prefix);
                }
            }
        }
        self.prefixes.store(prefixes.len(), Ordering::Relaxed);
        let any = !all.is_empty();
        tell(any);
        if !any {
            self.clear();
        }
    }

    /// The tracked prefixes; `None` if there are none.
    pub fn prefixes(&self) -> Option<Arc<Prefixes>> {
        (self.count_prefixes() > 0).then(|| Arc::clone(&self.trackers.lock().prefixes))
    }

    fn stripe(&self, hash: u64) -> &Mutex<Stripe> {
        &self.table[hash as usize % STRIPES]
    }

    /// Remembers that a connection has read a key. `is_gone` tells of a connection whether it has ended.
    pub fn remember(&self, key: &[u8], hash: u64, tracker: Tracker, is_gone: impl Fn(u64) -> bool) {
        let mut stripe = self.stripe(hash).lock();
        let Some(readers) = stripe.get_mut(key) else {
            stripe.insert(key.into(), SmallVec::from_elem(tracker, 1));
            self.keys.fetch_add(1, Ordering::Relaxed);
            self.items.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if readers.contains(&tracker) {
            return;
        }
        if readers.len() >= READERS_CHECKED && readers.len().is_power_of_two() {
            let before = readers.len();
            readers.retain(|reader| !is_gone(reader.client));
            self.items.fetch_sub(before - readers.len(), Ordering::Relaxed);
        }
        readers.push(tracker);
        self.items.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes out the connections that have read a key: it has changed.
    pub fn take(&self, key: &[u8], hash: u64) -> Readers {
        let taken = self.stripe(hash).lock().remove(key);
        taken.inspect(|readers| self.count_taken(readers)).unwrap_or_default()
    }

    fn count_taken(&self, readers: &Readers) {
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(readers.len(), Ordering::Relaxed);
    }

    /// Takes out any one key, because there are too many.
    pub fn take_any(&self) -> Option<(Box<[u8]>, Readers)> {
        // Each call begins at another stripe, so that no part of the table empties before the others.
        let first = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        (0..STRIPES).find_map(|step| {
            let mut stripe = self.table[(first + step) % STRIPES].lock();
            let key = stripe.keys().next()?.clone();
            let (key, readers) = stripe.remove_entry(&key)?;
            self.count_taken(&readers);
            Some((key, readers))
        })
    }

    /// Forgets all keys.
    pub fn clear(&self) {
        for stripe in &self.table {
            let dropped = {
                let mut stripe = stripe.lock();
                stripe.values().for_each(|readers| self.count_taken(readers));
                std::mem::take(&mut *stripe)
            };
            drop(dropped);
        }
    }

    /// How many connections track keys.
    pub fn count_trackers(&self) -> usize {
        self.trackers.lock().all.len()
    }

    /// How many keys the table holds.
    #[inline]
    pub fn count_keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Sets how many keys it may hold; 0 for any number.
    pub fn set_keys_max(&self, keys_max: usize) {
        self.keys_max.store(keys_max, Ordering::Relaxed);
    }

    /// How many keys it holds too many.
    #[inline]
    pub fn excess(&self) -> usize {
        match self.keys_max.load(Ordering::Relaxed) {
            0 => 0,
            keys_max => self.count_keys().saturating_sub(keys_max),
        }
    }

    /// How many readers of keys it holds.
    pub fn count_items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// How many prefixes are tracked.
    #[inline]
    pub fn count_prefixes(&self) -> usize {
        self.prefixes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Tracker = Tracker { client: 1, worker: 0 };
    const TWO: Tracker = Tracker { client: 2, worker: 1 };

    #[test]
    fn a_change_takes_out_every_reader_once() {
        let tracking = Tracking::default();
        for tracker in [ONE, TWO, ONE] {
            tracking.remember(b"k", 7, tracker, |_| false);
        }
        tracking.remember(b"l", 7, TWO, |_| false);
        assert_eq!((tracking.count_keys(), tracking.count_items()), (2, 3));
        assert_eq!(tracking.take(b"k", 7)[..], [ONE, TWO]);
        assert!(tracking.take(b"k", 7).is_empty());
        assert_eq!((tracking.count_keys(), tracking.count_items()), (1, 1));
        assert_eq!(tracking.take_any(), Some((b"l"[..].into(), SmallVec::from_elem(TWO, 1))));
        assert_eq!(tracking.take_any(), None);
        assert_eq!((tracking.count_keys(), tracking.count_items()), (0, 0));
    }

    #[test]
    fn readers_that_are_gone_do_not_pile_up() {
        let tracking = Tracking::default();
        for client in 0..100_000 {
            tracking.remember(b"k", 7, Tracker { client, worker: 0 }, |reader| reader + 10 < client);
        }
        assert!(tracking.count_items() <= READERS_CHECKED + 1, "{}", tracking.count_items());
    }

    #[test]
    fn prefixes_last_as_long_as_their_trackers_and_keys_as_long_as_there_are_any() {
        let (tracking, mut told) = (Tracking::default(), Vec::new());
        tracking.join(ONE, &[b"a", b"b"], |any| told.push(any));
        tracking.join(TWO, &[b"a"], |any| told.push(any));
        tracking.join(ONE, &[b"c"], |any| told.push(any));
        let prefixes = tracking.prefixes().expect("there are some");
        assert_eq!(prefixes[&b"a"[..]], [ONE, TWO]);
        assert_eq!((tracking.count_prefixes(), tracking.count_trackers()), (3, 2));
        tracking.remember(b"k", 7, ONE, |_| false);
        tracking.leave(1, |any| told.push(any));
        assert_eq!((tracking.count_prefixes(), tracking.count_keys()), (1, 1));
        tracking.leave(2, |any| told.push(any));
        assert_eq!((tracking.count_prefixes(), tracking.count_keys(), tracking.count_items()), (0, 0, 0));
        assert!(tracking.prefixes().is_none());
        assert_eq!(told, [true, true, true, true, false]);
    }
}
