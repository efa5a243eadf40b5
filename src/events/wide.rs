//! A hash map that never moves more than a few thousand entries at once, however large it grows.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

/// From this many entries on, a map has [`PARTS`] parts.
const SPLIT_FROM: usize = 512;
const PARTS: usize = 512;
/// A part with more room than this gives it back once most of it is unused.
const ROOM_KEPT: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Wide<K, V> {
    hasher: RandomState,
    parts: Vec<HashMap<K, V>>,
    len: usize,
}

impl<K, V> Default for Wide<K, V> {
    fn default() -> Self {
        Wide { hasher: RandomState::new(), parts: Vec::new(), len: 0 }
    }
}

impl<K: Hash + Eq, V> Wide<K, V> {
    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        match self.parts.len() {
            PARTS => self.hasher.hash_one(key) as usize % PARTS,
            _ => 0,
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// An entry with its key.
    pub(super) fn get_key_value<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.parts.get(self.part(key))?.get_key_value(key)
    }

    /// An entry.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let part = self.part(key);
        self.parts.get_mut(part)?.get_mut(key)
    }

    /// Adds an entry, or replaces it.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.parts.is_empty() {
            self.parts.push(HashMap::new());
        } else if self.parts.len() == 1 && self.len >= SPLIT_FROM {
            let only = self.parts.pop().unwrap_or_default();
            self.parts.resize_with(PARTS, HashMap::new);
            for (key, value) in only {
                let part = self.part(&key);
                self.parts[part].insert(key, value);
            }
        }
        let part = self.part(&key);
        self.len += usize::from(self.parts[part].insert(key, value).is_none());
    }

    /// Removes an entry.
    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let at = self.part(key);
        let part = self.parts.get_mut(at)?;
        let gone = part.remove_entry(key)?;
        if part.capacity() > ROOM_KEPT && part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2);
        }
        self.len -= 1;
        if self.len == 0 {
            self.parts = Vec::new();
        }
        Some(gone)
    }

    /// All entries, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_a_map_holds() {
        let mut wide: Wide<u32, u32> = Wide::default();
        for number in 0..20_000 {
            wide.insert(number, 0);
            wide.insert(number, number * 2);
            assert_eq!(wide.len(), number as usize + 1);
        }
        assert_eq!(wide.parts.len(), PARTS);
        let mut all: Vec<_> = wide.iter().map(|(key, value)| (*key, *value)).collect();
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(at, pair)| *pair == (at as u32, 2 * at as u32)));
        assert_eq!((wide.get(&7), wide.get(&20_000)), (Some(&14), None));
        if let Some(value) = wide.get_mut(&7) {
            *value = 3;
        }
        assert_eq!(wide.get_key_value(&7), Some((&7, &3)));
        for number in 0..20_000 {
            assert!(wide.remove(&number).is_some() && wide.remove(&number).is_none());
        }
        assert_eq!((wide.len(), wide.parts.len(), wide.iter().count()), (0, 0, 0));
    }
}
