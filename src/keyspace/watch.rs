//! Versions of watched keys, on which optimistic transactions rest.
//!
//! Each shard keeps a version for watched keys and for no other key, so that a write to an unwatched shard pays for
//! one pointer test.
//!
//! Invariants:
//! - A key has a version exactly while its count of watchers is above zero.
//! - Every change of a watched key, including expiry and removal, raises its version.

use std::collections::HashMap;

/// A key of one database.
type WatchedKey = (u32, Box<[u8]>);

#[derive(Debug)]
struct Watched {
    watchers: usize,
    version: u64,
}

/// The watched keys of one shard.
#[derive(Debug, Default)]
// Boxed, because nearly every shard has none and a shard must fit two cache lines.
#[allow(clippy::box_collection)]
pub struct WatchedKeys(Option<Box<HashMap<WatchedKey, Watched>>>);

impl WatchedKeys {
    /// Adds a watcher. Returns the version that the watcher must still find at EXEC.
    pub fn watch(&mut self, db: u32, key: &[u8]) -> u64 {
        let keys = self.0.get_or_insert_default();
        let watched = keys.entry((db, key.into())).or_insert(Watched { watchers: 0, version: 0 });
        watched.watchers += 1;
        watched.version
    }

    /// Removes a watcher. Returns the version, or `None` if the key was not watched.
    pub fn unwatch(&mut self, db: u32, key: &[u8]) -> Option<u64> {
        let keys = self.0.as_mut()?;
        let id: WatchedKey = (db, key.into());
        let watched = keys.get_mut(&id)?;
        let version = watched.version;
        watched.watchers -= 1;
        if watched.watchers == 0 {
            keys.remove(&id);
            if keys.is_empty() {
                self.0 = None;
            }
        }
        Some(version)
    }

    /// Whether any key of the shard is watched.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// The version of a key; `None` if it is not watched.
    pub fn version(&self, db: u32, key: &[u8]) -> Option<u64> {
        Some(self.0.as_ref()?.get(&(db, key.into()))?.version)
    }

    /// All keys with their databases and versions.
    pub fn versions(&self) -> impl Iterator<Item = (u32, &[u8], u64)> {
        self.0.iter().flat_map(|keys| keys.iter()).map(|((db, key), watched)| (*db, &**key, watched.version))
    }

    /// Restores the version of a key, if it is watched: its change was taken back.
    pub fn set_version(&mut self, db: u32, key: &[u8], version: u64) {
        if let Some(watched) = self.0.as_mut().and_then(|keys| keys.get_mut(&(db, key.into()))) {
            watched.version = version;
        }
    }

    /// Raises the version of a key that has changed.
    #[inline]
    pub fn changed(&mut self, db: u32, key: &[u8]) {
        if let Some(keys) = &mut self.0
            && let Some(watched) = keys.get_mut(&(db, key.into()))
        {
            watched.version += 1;
        }
    }

    /// Raises the version of every watched key for which `affected`, given database and key, is true (a flush, a
    /// swap).
    pub fn all_changed(&mut self, affected: impl Fn(u32, &[u8]) -> bool) {
        for ((db, key), watched) in self.0.iter_mut().flat_map(|keys| keys.iter_mut()) {
            if affected(*db, key) {
                watched.version += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_lives_as_long_as_its_watchers_and_counts_changes_of_its_key_alone() {
        let mut keys = WatchedKeys::default();
        keys.changed(0, b"k");
        let before = keys.watch(0, b"k");
        assert_eq!(keys.watch(0, b"k"), before);
        keys.changed(1, b"k");
        keys.changed(0, b"other");
        assert_eq!(keys.unwatch(0, b"k"), Some(before));
        keys.changed(0, b"k");
        keys.all_changed(|db, key| db == 0 && key == b"k");
        keys.all_changed(|db, key| db == 1 || key != b"k");
        assert_eq!(keys.unwatch(0, b"k"), Some(before + 2));
        assert_eq!(keys.unwatch(0, b"k"), None);
        assert!(keys.0.is_none());
    }
}
