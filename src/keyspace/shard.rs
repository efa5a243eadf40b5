//! One shard: the directories of all databases for the keys whose hash falls here, and the state that must change
//! under the same lock: the log's sequence number, the versions of watched keys, the waiters.
//!
//! Invariants:
//! - Every reader and writer of a shard holds its lock.
//! - A change copies the pieces that a frozen view shares, and no others: [`Arc::make_mut`] at the directory, and
//!   likewise inside it at the segment.
//! - Every change of how many keys there are is noted in the keyspace's [`Counts`].
//! - `sequence` rises by one with each record of the log that names a key of this shard.

use triomphe::Arc;

use super::counts::{Counts, DirectoryMut};
use super::waiters::Waiters;
use super::watch::WatchedKeys;
use crate::base::hash::HashSeed;
use crate::value::directory::{Census, Directory};
use crate::value::entry::EntryRef;

/// The part of the keyspace behind one lock.
#[derive(Debug)]
#[repr(C)]
pub struct Shard {
    /// The directory of database 0, the common case. It is stored inline to save a cache miss.
    first: Option<Arc<Directory>>,
    /// The directories of databases 1 to the highest used here; `None` for an empty one.
    others: Box<[Option<Arc<Directory>>]>,
    /// The sequence number of the shard's last record in the log.
    pub sequence: u64,
    /// The versions of the keys under `WATCH`.
    pub watched: WatchedKeys,
    /// The blocking commands that wait for a key.
    pub waiters: Waiters,
    shared: Arc<Shared>,
}

/// What all shards of a keyspace share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) seed: HashSeed,
    pub(super) counts: Counts,
}

impl Shard {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Shard {
            first: None,
            others: Box::default(),
            sequence: 0,
            watched: WatchedKeys::default(),
            waiters: Waiters::default(),
            shared,
        }
    }

    /// The directory of a database, for reading; `None` if it holds no key here.
    #[inline]
    pub fn directory(&self, db: u32) -> Option<&Directory> {
        place(&self.first, &self.others, db)?.as_deref()
    }

    /// The directory of a database, for writing. It is created if missing and copied if a frozen view shares it.
    #[inline]
    pub fn directory_mut(&mut self, db: u32) -> DirectoryMut<'_> {
        let shared = &*self.shared;
        let place = place_mut(&mut self.first, &mut self.others, db);
        let directory = place.get_or_insert_with(|| Arc::new(Directory::new(shared.seed)));
        DirectoryMut::new(Arc::make_mut(directory), db, &shared.counts)
    }

    /// The same, for changing a value in place: the caller adds and removes no key and sets no expiry.
    #[inline]
    pub fn values_mut(&mut self, db: u32) -> &mut Directory {
        let seed = self.shared.seed;
        let place = place_mut(&mut self.first, &mut self.others, db);
        Arc::make_mut(place.get_or_insert_with(|| Arc::new(Directory::new(seed))))
    }

    /// The same again, but only if it exists and no frozen view shares it: for optional changes.
    #[inline]
    pub fn directory_unshared(&mut self, db: u32) -> Option<&mut Directory> {
        let place = match db {
            0 => &mut self.first,
            _ => self.others.get_mut(db as usize - 1)?,
        };
        Arc::get_mut(place.as_mut()?)
    }

    /// Installs a directory made elsewhere and returns the old one. Loading uses it; flushing passes `None`.
    pub fn replace_directory(&mut self, db: u32, directory: Option<Directory>) -> Option<Arc<Directory>> {
        if place(&self.first, &self.others, db).is_none() {
            directory.as_ref()?;
        }
        self.put_directory(db, directory.map(Arc::new))
    }

    /// The same for a directory that [`Shard::replace_directory`] took out, or for none.
    pub fn put_directory(&mut self, db: u32, directory: Option<Arc<Directory>>) -> Option<Arc<Directory>> {
        let after = census(&directory);
        let replaced = std::mem::replace(self.place_mut(db), directory);
        self.shared.counts.note(db, census(&replaced), after);
        replaced
    }

    /// Raises the versions of watched keys in a database that is about to be emptied, or replaced by another: keys
    /// that exist now, and unexpired keys of the other database. A key that is missing before and after has not
    /// changed.
    pub fn watched_replaced(&mut self, db: u32, by: Option<u32>, now: i64) {
        let Shard { shared, first, others, watched, .. } = self;
        let seed = shared.seed;
        let find = |db: u32, key: &[u8]| place(first, others, db)?.as_ref()?.get(seed.hash(key), key);
        let alive = |entry: EntryRef<'_>| entry.expiry().is_none_or(|at| at as i64 > now);
        watched.all_changed(|of, key| {
            of == db && (find(db, key).is_some() || by.is_some_and(|by| find(by, key).is_some_and(alive)))
        });
    }

    /// Raises the versions of watched keys that come back into a database: unexpired ones that are not there now.
    pub fn watched_restored(&mut self, db: u32, older: &Directory, now: i64) {
        let Shard { shared, first, others, watched, .. } = self;
        let seed = shared.seed;
        let is_there = |key: &[u8]| {
            place(first, others, db).is_some_and(|d| d.as_ref().is_some_and(|d| d.get(seed.hash(key), key).is_some()))
        };
        let alive = |entry: EntryRef<'_>| entry.expiry().is_none_or(|at| at as i64 > now);
        watched.all_changed(|of, key| of == db && !is_there(key) && older.get(seed.hash(key), key).is_some_and(alive));
    }

    /// Swaps two databases, which may be one.
    pub fn swap(&mut self, one: u32, other: u32) {
        if one == other {
            return;
        }
        let of_one = self.put_directory(one, None);
        let of_other = self.put_directory(other, of_one);
        self.put_directory(one, of_other);
    }

    /// Swaps all databases with those of the same shard of another keyspace. A watched key that exists in either has
    /// changed.
    pub fn exchange(&mut self, other: &mut Shard) {
        let Shard { shared, first, others, watched, .. } = self;
        let seed = shared.seed;
        let holds = |directory: Option<&Directory>, key: &[u8]| {
            directory.is_some_and(|directory| directory.get(seed.hash(key), key).is_some())
        };
        let own = |db: u32| place(first, others, db)?.as_deref();
        watched.all_changed(|db, key| holds(own(db), key) || holds(other.directory(db), key));
        let databases = 1 + others.len().max(other.others.len()) as u32;
        for db in 0..databases {
            let own = place(first, others, db).map(census).unwrap_or_default();
            let foreign = place(&other.first, &other.others, db).map(census).unwrap_or_default();
            shared.counts.note(db, own, foreign);
            other.shared.counts.note(db, foreign, own);
        }
        std::mem::swap(first, &mut other.first);
        std::mem::swap(others, &mut other.others);
    }

    /// Clones every directory that is not empty: one pointer each.
    pub(super) fn freeze(&self) -> Vec<(u32, Arc<Directory>)> {
        self.places().filter(|(_, d)| !d.is_empty()).map(|(db, d)| (db, Arc::clone(d))).collect()
    }

    /// The databases that may hold keys here.
    pub fn databases(&self) -> impl Iterator<Item = (u32, &Directory)> {
        self.places().map(|(db, directory)| (db, &**directory))
    }

    /// The first database from `db` on that may hold keys here.
    pub fn database_from(&self, db: u32) -> Option<u32> {
        if db == 0 && self.first.is_some() {
            return Some(0);
        }
        let passed = (db as usize).saturating_sub(1);
        let next = self.others.get(passed..)?.iter().position(Option::is_some)?;
        Some((passed + next) as u32 + 1)
    }

    fn places(&self) -> impl Iterator<Item = (u32, &Arc<Directory>)> {
        let all = std::iter::once(&self.first).chain(&self.others);
        (0..).zip(all).filter_map(|(db, directory)| Some((db, directory.as_ref()?)))
    }

    /// The slot for the directory of a database, created if missing.
    #[inline]
    fn place_mut(&mut self, db: u32) -> &mut Option<Arc<Directory>> {
        place_mut(&mut self.first, &mut self.others, db)
    }

    /// The earliest time at which a key may expire, in Unix milliseconds: a lower bound.
    pub fn earliest_expiry(&self) -> Option<u64> {
        self.databases().filter_map(|(_, directory)| directory.earliest_expiry()).min()
    }
}

/// The slot for the directory of a database, if there is one.
#[inline]
fn place<'a>(
    first: &'a Option<Arc<Directory>>,
    others: &'a [Option<Arc<Directory>>],
    db: u32,
) -> Option<&'a Option<Arc<Directory>>> {
    match db {
        0 => Some(first),
        _ => others.get(db as usize - 1),
    }
}

/// The same, created if missing.
#[inline]
fn place_mut<'a>(
    first: &'a mut Option<Arc<Directory>>,
    others: &'a mut Box<[Option<Arc<Directory>>]>,
    db: u32,
) -> &'a mut Option<Arc<Directory>> {
    if db == 0 {
        return first;
    }
    let index = db as usize - 1;
    if others.len() <= index {
        make_places(others, index + 1);
    }
    &mut others[index]
}

#[cold]
fn make_places(others: &mut Box<[Option<Arc<Directory>>]>, count: usize) {
    let mut longer = std::mem::take(others).into_vec();
    longer.resize_with(count, || None);
    *others = longer.into_boxed_slice();
}

/// What a directory holds, if there is one.
fn census(directory: &Option<Arc<Directory>>) -> Census {
    directory.as_ref().map(|directory| directory.census()).unwrap_or_default()
}
