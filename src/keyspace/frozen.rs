//! The keyspace at one point in time: read-only, while writers continue.
//!
//! A view is made under the [gate](super::gate) by cloning one pointer per shard and database. While it lives,
//! writers copy the pieces that they change. Dropping it frees the old pieces.

use triomphe::Arc;

use super::graveyard::Grave;
use super::libraries::Libraries;
use crate::value::directory::Directory;
use crate::value::entry::EntryRef;

/// A consistent, immutable view of all databases.
#[derive(Debug)]
pub struct Frozen {
    shards: Vec<Vec<(u32, Arc<Directory>)>>,
    libraries: std::sync::Arc<Libraries>,
    graves: Vec<std::sync::Arc<Grave>>,
}

impl Frozen {
    pub(super) fn new(
        shards: Vec<Vec<(u32, Arc<Directory>)>>,
        libraries: std::sync::Arc<Libraries>,
        graves: Vec<std::sync::Arc<Grave>>,
    ) -> Self {
        Frozen { shards, libraries, graves }
    }

    /// The libraries of functions.
    pub fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// What can be undone of flushes, the oldest first.
    pub fn graves(&self) -> &[std::sync::Arc<Grave>] {
        &self.graves
    }

    /// Releases the graves, so that dropping them frees memory as early as possible.
    pub fn release_graves(&mut self) -> Vec<std::sync::Arc<Grave>> {
        std::mem::take(&mut self.graves)
    }

    /// The directories of one shard, each with its database, ascending.
    pub fn shard(&self, shard: usize) -> impl Iterator<Item = (u32, &Directory)> {
        self.shards[shard].iter().map(|(db, directory)| (*db, &**directory))
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The number of keys in all databases.
    pub fn len(&self) -> usize {
        self.shards.iter().flatten().map(|(_, directory)| directory.len()).sum()
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry of one database, in arbitrary order.
    pub fn entries(&self, db: u32) -> impl Iterator<Item = EntryRef<'_>> {
        let of_db = move |(of, directory): &'_ (u32, Arc<Directory>)| *of == db && !directory.is_empty();
        self.shards.iter().flatten().filter(move |d| of_db(d)).flat_map(|(_, directory)| directory.iter())
    }

    /// Releases the view shard by shard, so that writers stop copying as early as possible. Returns the directories
    /// of the shard; dropping them frees whatever has changed since the view was made.
    pub fn release_shard(&mut self, shard: usize) -> Vec<(u32, Arc<Directory>)> {
        std::mem::take(&mut self.shards[shard])
    }
}
