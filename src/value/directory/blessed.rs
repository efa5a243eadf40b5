//! Keys that are protected from eviction: an index of their names beside the segments.
//!
//! The index is itself a directory, of names without values. So a frozen view takes it along for one pointer, and a
//! change copies one segment of it at most. Each name has the expiry of its key, so that it is known at once whether
//! any key with an expiry is left to evict.
//!
//! Invariants:
//! - Every name of the index is a key of the directory, with the same expiry. A key that is removed leaves it; a key
//!   that is overwritten stays in it.
//! - There is no index while no key is protected, so that others pay for a look at one pointer.

use triomphe::Arc;

use super::super::entry::{EntryRef, NewValue};
use super::Directory;

impl Directory {
    /// Whether a key is protected from eviction.
    #[inline]
    pub fn is_blessed(&self, hash: u64, key: &[u8]) -> bool {
        self.blessed.as_ref().is_some_and(|index| index.find(hash, key).is_some())
    }

    /// The same for an entry of this directory.
    #[inline]
    pub fn is_blessed_entry(&self, entry: EntryRef<'_>) -> bool {
        self.blessed.is_some() && self.is_blessed(self.hash_of(entry.key()), entry.key())
    }

    /// The names of the protected keys; `None` if there are none.
    #[inline]
    pub fn blessed(&self) -> Option<&Directory> {
        self.blessed.as_deref()
    }

    /// Protects a key from eviction, or ends that. Returns whether anything has changed: a key that is missing cannot
    /// be protected.
    pub fn bless(&mut self, hash: u64, key: &[u8], on: bool) -> bool {
        if !on {
            return self.forget_blessed(hash, key);
        }
        let Some(expiry) = self.get(hash, key).map(|entry| entry.expiry()) else { return false };
        let seed = self.seed;
        let index = Arc::make_mut(self.blessed.get_or_insert_with(|| Arc::new(Directory::new(seed))));
        let is_new = index.find(hash, key).is_none();
        if is_new {
            let _ = index.set(hash, key, NewValue::Bytes(b""), expiry, 0);
        }
        is_new
    }

    /// Gives a protected key's name the expiry that the key has now.
    #[cold]
    pub(super) fn renew_blessed(&mut self, hash: u64, key: &[u8], expiry: Option<u64>) {
        let Some(index) = &mut self.blessed else { return };
        if index.get(hash, key).is_some_and(|name| name.expiry() != expiry) {
            Arc::make_mut(index).set_expiry(hash, key, expiry);
        }
    }

    /// Takes a name out of the index. Returns whether it was there.
    #[cold]
    pub(super) fn forget_blessed(&mut self, hash: u64, key: &[u8]) -> bool {
        if !self.is_blessed(hash, key) {
            return false;
        }
        match &mut self.blessed {
            Some(index) if index.len > 1 => drop(Arc::make_mut(index).remove(hash, key)),
            index => *index = None,
        }
        true
    }

    /// Whether protection alone keeps keys from eviction, of all keys or of those with an expiry.
    pub fn guards(&self, volatile_only: bool) -> bool {
        self.blessed().is_some_and(|index| !volatile_only || index.volatile > 0)
    }

    /// The bytes that the index takes.
    pub fn blessed_bytes(&self) -> usize {
        self.blessed().map_or(0, |index| {
            let long =
                index.iter().map(|name| name.key().len()).filter(|len| *len > super::super::entry::INLINE_KEY_MAX);
            index.memory() + long.sum::<usize>()
        })
    }

    /// Checks that the index is of keys that are there, and has their expiries.
    pub(super) fn check_blessed(&self) {
        let Some(index) = self.blessed() else { return };
        assert!(!index.is_empty(), "an index that is not needed is not kept");
        assert!(index.blessed.is_none(), "an index has no index");
        index.check_invariants();
        for name in index.iter() {
            let key = self.get(self.hash_of(name.key()), name.key());
            assert_eq!(key.map(|key| key.expiry()), Some(name.expiry()), "a protected key is there");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::base::random::Random;

    const SEED: HashSeed = HashSeed(*b"the seed of keys");

    fn directory(keys: usize) -> Directory {
        let mut directory = Directory::new(SEED);
        for number in 0..keys {
            let key = format!("k:{number}");
            let _ = directory.set(SEED.hash(key.as_bytes()), key.as_bytes(), NewValue::Bytes(b"v"), None, 0);
        }
        directory
    }

    fn bless(directory: &mut Directory, key: &str, on: bool) -> bool {
        directory.bless(SEED.hash(key.as_bytes()), key.as_bytes(), on)
    }

    #[test]
    fn a_protected_key_stays_so_until_it_is_removed() {
        let mut all = directory(3);
        let hash = SEED.hash(b"k:1");
        assert!(bless(&mut all, "k:1", true) && !bless(&mut all, "k:1", true) && !bless(&mut all, "none", true));
        let _ = all.set(hash, b"k:1", NewValue::Bytes(b"other"), Some(5000), 0);
        all.set_expiry(hash, b"k:1", Some(7000));
        let _ = all.set_value(hash, b"k:1", NewValue::Int(7), 0);
        all.check_invariants();
        assert!(all.is_blessed(hash, b"k:1") && all.guards(true));
        let frozen = all.clone();
        let _ = all.remove(hash, b"k:1");
        all.check_invariants();
        assert!(!all.is_blessed(hash, b"k:1") && all.blessed().is_none() && frozen.is_blessed(hash, b"k:1"));
        frozen.check_invariants();
    }

    #[test]
    fn what_may_be_evicted_is_found_among_many_that_may_not() {
        let (mut all, mut random) = (directory(3000), Random::from_seed(3));
        for number in (0..3000).filter(|number| *number != 1234) {
            bless(&mut all, &format!("k:{number}"), true);
        }
        all.check_invariants();
        for _ in 0..100 {
            assert_eq!(all.random_evictable(random.next_u64(), false).map(|entry| entry.key()), Some(&b"k:1234"[..]));
            assert!(all.random_evictable(random.next_u64(), true).is_none());
        }
        all.set_expiry(SEED.hash(b"k:7"), b"k:7", Some(5000));
        assert!(all.random_evictable(random.next_u64(), true).is_none() && all.guards(true));
        bless(&mut all, "k:7", false);
        assert_eq!(all.random_evictable(random.next_u64(), true).map(|entry| entry.key()), Some(&b"k:7"[..]));
        for number in [7, 1234] {
            bless(&mut all, &format!("k:{number}"), true);
        }
        assert!(all.random_evictable(random.next_u64(), false).is_none());
    }
}
