//! One shard: the directories of all databases for the keys whose hash falls here, and what must change
//! under the same lock: the sequence number of the log, the versions of watched keys.
//!
//! Invariants:
//! - Whoever reads or changes a shard holds its lock.
//! - A change copies what a frozen view shares, and never what it does not: [`Arc::make_mut`] at the
//!   directory, the same within at the segment.
//! - `sequence` rises by one with each record of the log that names a key of this shard.

use smallvec::SmallVec;
use triomphe::Arc;

use super::waiters::Waiters;
use super::watch::WatchedKeys;
use crate::base::hash::HashSeed;
use crate::value::directory::Directory;
use crate::value::entry::EntryRef;

/// The part of the keyspace behind one lock.
#[derive(Debug)]
#[repr(C)]
pub struct Shard {
    /// One directory a database, from 0 to the highest used here; `None` where it holds nothing. That of
    /// database 0, the usual one, stands right here: one cache miss less.
    databases: SmallVec<[Option<Arc<Directory>>; 1]>,
    /// The number of the last record of the log for this shard.
    pub sequence: u64,
    /// The versions of the keys under `WATCH`.
    pub watched: WatchedKeys,
    /// Who waits for a key, for blocking commands.
    pub waiters: Waiters,
    seed: HashSeed,
}

impl Shard {
    pub(super) fn new(seed: HashSeed) -> Self {
        Shard {
            seed,
            databases: SmallVec::new(),
            sequence: 0,
            watched: WatchedKeys::default(),
            waiters: Waiters::default(),
        }
    }

    /// The directory of a database, for reading; `None` if it holds no key here.
    #[inline]
    pub fn directory(&self, db: u32) -> Option<&Directory> {
        self.databases.get(db as usize)?.as_deref()
    }

    /// The directory of a database, for writing; made if there is none, copied if a frozen view shares it.
    #[inline]
    pub fn directory_mut(&mut self, db: u32) -> &mut Directory {
        let index = db as usize;
        if self.databases.len() <= index {
            self.databases.resize_with(index + 1, || None);
        }
        Arc::make_mut(self.databases[index].get_or_insert_with(|| Arc::new(Directory::new(self.seed))))
    }

    /// The same, but only if it exists and no frozen view shares it: for changes that may be left out.
    #[inline]
    pub fn directory_unshared(&mut self, db: u32) -> Option<&mut Directory> {
        Arc::get_mut(self.databases.get_mut(db as usize)?.as_mut()?)
    }

    /// Puts a directory made elsewhere in its place: loading, and flushing with `None`. Returns the old one.
    pub fn replace_directory(&mut self, db: u32, directory: Option<Directory>) -> Option<Arc<Directory>> {
        let index = db as usize;
        if self.databases.len() <= index {
            directory.as_ref()?;
            self.databases.resize_with(index + 1, || None);
        }
        std::mem::replace(&mut self.databases[index], directory.map(Arc::new))
    }

    /// Raises the versions of the watched keys of a database that is about to be emptied, or replaced by
    /// another one: those that are there, and those that come with the other one and have not expired.
    /// A key that is missing before and after has not changed.
    pub fn watched_replaced(&mut self, db: u32, by: Option<u32>, now: i64) {
        let Shard { seed, databases, watched, .. } = self;
        let find = |db: u32, key: &[u8]| databases.get(db as usize)?.as_ref()?.get(seed.hash(key), key);
        let alive = |entry: EntryRef<'_>| entry.expiry().is_none_or(|at| at as i64 > now);
        watched.all_changed(|of, key| {
            of == db && (find(db, key).is_some() || by.is_some_and(|by| find(by, key).is_some_and(alive)))
        });
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, one: u32, other: u32) {
        let needed = one.max(other) as usize + 1;
        if self.databases.len() < needed {
            self.databases.resize_with(needed, || None);
        }
        self.databases.swap(one as usize, other as usize);
    }

    /// Exchanges all databases with those of the same shard of another keyspace. Watched keys that are in either
    /// have changed.
    pub fn exchange(&mut self, other: &mut Shard) {
        let Shard { seed, databases, watched, .. } = self;
        let holds = |databases: &[Option<Arc<Directory>>], db: u32, key: &[u8]| {
            let directory = databases.get(db as usize).and_then(Option::as_ref);
            directory.is_some_and(|directory| directory.get(seed.hash(key), key).is_some())
        };
        watched.all_changed(|db, key| holds(databases, db, key) || holds(&other.databases, db, key));
        std::mem::swap(databases, &mut other.databases);
    }

    /// A clone of every directory that holds something: one pointer each.
    pub(super) fn freeze(&self) -> Vec<(u32, Arc<Directory>)> {
        let held = |(db, directory): (usize, &Option<Arc<Directory>>)| {
            directory.as_ref().filter(|d| !d.is_empty()).map(|d| (db as u32, Arc::clone(d)))
        };
        self.databases.iter().enumerate().filter_map(held).collect()
    }

    /// The databases that may hold keys here.
    pub fn databases(&self) -> impl Iterator<Item = (u32, &Directory)> {
        self.databases.iter().enumerate().filter_map(|(db, d)| Some((db as u32, d.as_deref()?)))
    }

    /// The earliest time at which a key may expire, in Unix milliseconds: a lower bound.
    pub fn earliest_expiry(&self) -> Option<u64> {
        self.databases().filter_map(|(_, directory)| directory.earliest_expiry()).min()
    }
}
