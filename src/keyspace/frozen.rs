//! The keyspace at one point in time, read-only, while writers go on.
//!
//! A view is made under the [gate](super::gate) by cloning one pointer per shard and database. As long
//! as it lives, writers copy the pieces that they change; dropping it gives those pieces back.

use triomphe::Arc;

use crate::value::directory::Directory;
use crate::value::entry::EntryRef;

/// A consistent, immutable view of all databases.
#[derive(Debug)]
pub struct Frozen {
    shards: Vec<Vec<(u32, Arc<Directory>)>>,
}

impl Frozen {
    pub(super) fn new(shards: Vec<Vec<(u32, Arc<Directory>)>>) -> Self {
        Frozen { shards }
    }

    /// The directories of one shard with their databases, ascending.
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

    /// Every entry of one database, in no order that means anything.
    pub fn entries(&self, db: u32) -> impl Iterator<Item = EntryRef<'_>> {
        let of_db = move |(of, directory): &'_ (u32, Arc<Directory>)| *of == db && !directory.is_empty();
        self.shards.iter().flatten().filter(move |d| of_db(d)).flat_map(|(_, directory)| directory.iter())
    }

    /// Gives the view back, one shard after the other, so that writers stop copying as soon as may be. Returns what
    /// it holds, of which all that has been changed since is to be freed.
    pub fn release_shard(&mut self, shard: usize) -> Vec<(u32, Arc<Directory>)> {
        std::mem::take(&mut self.shards[shard])
    }
}
