//! The number of keys in each database, kept exact and read without a lock.
//!
//! ```text
//! Counts ─ stripe × 2^n, each on cache lines of its own ─┬ databases 0 to 15, in place
//!                                                         └ those behind, in rooms of 16, 32, 64 … made when used
//! ```
//!
//! A thread adds its changes to its own stripe, and a number is the sum over all stripes. Inserting threads therefore
//! do not contend for a cache line, and replacing a value costs one comparison.
//!
//! Invariants:
//! - While no key changes, a sum equals what a walk over all directories would count.
//! - While keys change, a sum may miss changes in progress. It is never negative for that reason.
//! - Only [`super::Shard`] adds, under its lock: see [`DirectoryMut`].

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use crate::value::directory::{Census, Directory};

/// How many databases have their numbers in the stripe itself.
const NEAR: usize = 16;
/// Rooms for the others: room `k` holds `NEAR << k` databases.
const ROOMS: usize = 28;
/// More stripes than this gain nothing.
const STRIPES_MAX: usize = 32;

/// What threads have added for one database.
#[derive(Debug, Default)]
struct Added {
    keys: AtomicI64,
    volatile: AtomicI64,
    elementwise: AtomicI64,
    blessed: AtomicI64,
    templated: AtomicI64,
}

/// What the threads of one stripe have added for all databases.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Stripe {
    near: [Added; NEAR],
    rooms: [OnceLock<Box<[Added]>>; ROOMS],
}

impl Stripe {
    /// The numbers of a database, created if missing.
    fn of(&self, db: u32) -> &Added {
        match room_of(db) {
            Err(near) => &self.near[near],
            Ok((room, at)) => {
                let make = || (0..NEAR << room).map(|_| Added::default()).collect();
                &self.rooms[room].get_or_init(make)[at]
            }
        }
    }

    /// The same, if there are any.
    fn get(&self, db: u32) -> Option<&Added> {
        match room_of(db) {
            Err(near) => Some(&self.near[near]),
            Ok((room, at)) => self.rooms[room].get()?.get(at),
        }
    }
}

/// The room of a database and its index there, or its index in the stripe itself.
fn room_of(db: u32) -> Result<(usize, usize), usize> {
    let db = db as usize;
    match (db / NEAR).checked_ilog2() {
        None => Err(db),
        Some(room) => Ok((room as usize, db - (NEAR << room))),
    }
}

/// See the module.
#[derive(Debug)]
pub struct Counts {
    stripes: Box<[Stripe]>,
}

thread_local! {
    /// The number of this thread, from 1; 0 before it has one.
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread. Stripes are assigned round robin.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    THREAD.with(|own| {
        if own.get() == 0 {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        own.get()
    })
}

impl Counts {
    pub(super) fn new() -> Counts {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = (2 * threads).next_power_of_two().min(STRIPES_MAX);
        Counts { stripes: (0..stripes).map(|_| Stripe::default()).collect() }
    }

    /// Notes that the content of a shard's database changed from `before` to `after`.
    #[cold]
    pub(super) fn note(&self, db: u32, before: Census, after: Census) {
        let added = self.stripes[thread_number() & (self.stripes.len() - 1)].of(db);
        let add = |to: &AtomicI64, before: usize, after: usize| {
            if before != after {
                to.fetch_add(after as i64 - before as i64, Ordering::Relaxed);
            }
        };
        add(&added.keys, before.keys, after.keys);
        add(&added.volatile, before.volatile, after.volatile);
        add(&added.elementwise, before.elementwise, after.elementwise);
        add(&added.blessed, before.blessed, after.blessed);
        add(&added.templated, before.templated, after.templated);
    }

    /// The counts of a database.
    pub fn of(&self, db: u32) -> Census {
        let sum = |of: fn(&Added) -> &AtomicI64| {
            let added = self.stripes.iter().filter_map(|stripe| stripe.get(db));
            usize::try_from(added.map(|added| of(added).load(Ordering::Relaxed)).sum::<i64>()).unwrap_or(0)
        };
        Census {
            keys: sum(|a| &a.keys),
            volatile: sum(|a| &a.volatile),
            elementwise: sum(|a| &a.elementwise),
            blessed: sum(|a| &a.blessed),
            templated: sum(|a| &a.templated),
        }
    }

    /// The databases that are not empty, with their counts.
    pub fn filled(&self) -> impl Iterator<Item = (u32, Census)> {
        let rooms = (0..ROOMS).filter(|room| self.stripes.iter().any(|stripe| stripe.rooms[*room].get().is_some()));
        let all = (0..NEAR).chain(rooms.flat_map(|room| NEAR << room..NEAR << (room + 1)));
        all.map(|db| (db as u32, self.of(db as u32))).filter(|(_, census)| census.keys > 0)
    }
}

/// A directory about to be changed. Dropping it records the difference in the [`Counts`].
#[derive(Debug)]
pub struct DirectoryMut<'a> {
    directory: &'a mut Directory,
    before: Census,
    db: u32,
    counts: &'a Counts,
}

impl<'a> DirectoryMut<'a> {
    #[inline]
    pub(super) fn new(directory: &'a mut Directory, db: u32, counts: &'a Counts) -> DirectoryMut<'a> {
        let before = directory.census();
        DirectoryMut { directory, before, db, counts }
    }
}

impl Deref for DirectoryMut<'_> {
    type Target = Directory;

    #[inline]
    fn deref(&self) -> &Directory {
        self.directory
    }
}

impl DerefMut for DirectoryMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Directory {
        self.directory
    }
}

impl Drop for DirectoryMut<'_> {
    #[inline]
    fn drop(&mut self) {
        let after = self.directory.census();
        if after != self.before {
            self.counts.note(self.db, self.before, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(keys: usize, volatile: usize, elementwise: usize) -> Census {
        Census { keys, volatile, elementwise, blessed: elementwise, templated: volatile }
    }

    #[test]
    fn every_database_has_numbers_of_its_own() {
        let counts = Counts::new();
        let databases = [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 1000, 70_000];
        for (at, db) in databases.into_iter().enumerate() {
            counts.note(db, census(0, 0, 0), census(at + 2, at + 1, at));
        }
        for (at, db) in databases.into_iter().enumerate() {
            assert_eq!(counts.of(db), census(at + 2, at + 1, at), "{db}");
        }
        assert_eq!(counts.filled().map(|(db, _)| db).collect::<Vec<_>>(), databases);
        assert_eq!(counts.of(u32::MAX >> 1), census(0, 0, 0));
        assert_eq!(room_of(u32::MAX >> 1).map(|(room, _)| room), Ok(ROOMS - 2));
    }

    #[test]
    fn what_one_thread_adds_another_takes_away() {
        let counts = Counts::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| counts.note(3, census(0, 0, 0), census(2, 1, 0))));
            }
        });
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| counts.note(3, census(2, 1, 0), census(1, 0, 0))));
            }
        });
        assert_eq!(counts.of(3), census(8000, 0, 0));
    }
}
