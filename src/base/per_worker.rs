//! One of something for each worker, of whom there may be more while the server runs.
//!
//! Invariants:
//! - What was added stays where it is, for as long as the whole lives. So a worker is found without a lock.
//! - Numbers are dense, from 0. One thread adds at a time.

use std::ops::Index;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most workers that a server can have: the largest `io-threads`.
pub const WORKERS_MAX: usize = 256;

/// See the module.
pub struct PerWorker<T> {
    /// Boxed, because most places stay empty.
    places: Box<[OnceLock<Box<T>>]>,
    /// How many are filled.
    count: AtomicUsize,
}

impl<T> PerWorker<T> {
    /// One for each of the first workers.
    pub fn new(workers: usize, make: impl FnMut(usize) -> T) -> PerWorker<T> {
        let mut places: Vec<OnceLock<Box<T>>> = (0..workers).map(make).map(|value| Box::new(value).into()).collect();
        places.resize_with(WORKERS_MAX.max(workers), OnceLock::new);
        PerWorker { places: places.into(), count: AtomicUsize::new(workers) }
    }

    /// One for the next worker. Returns its number, or the value if there are as many workers as there can be.
    ///
    /// # Errors
    /// There is no place.
    pub fn add(&self, value: T) -> Result<usize, T> {
        let worker = self.len();
        let Some(place) = self.places.get(worker) else { return Err(value) };
        place.set(Box::new(value)).map_err(|value| *value)?;
        self.count.store(worker + 1, Ordering::Release);
        Ok(worker)
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// That of a worker, if there is such a worker.
    #[inline]
    pub fn get(&self, worker: usize) -> Option<&T> {
        self.places.get(worker)?.get().map(|value| &**value)
    }

    /// Those of all workers, in their order. What is added meanwhile comes, too.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { all: self, next: 0 }
    }
}

impl<T> Index<usize> for PerWorker<T> {
    type Output = T;

    #[inline]
    fn index(&self, worker: usize) -> &T {
        self.places[worker].get().expect("a worker has its things before it begins")
    }
}

impl<T> Default for PerWorker<T> {
    /// For no worker yet.
    fn default() -> Self {
        PerWorker::new(0, |_| unreachable!("there are none"))
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for PerWorker<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T> IntoIterator for &'a PerWorker<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// See [`PerWorker::iter`].
pub struct Iter<'a, T> {
    all: &'a PerWorker<T>,
    next: usize,
}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Iter { ..*self }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let value = self.all.get(self.next)?;
        self.next += 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_found_and_nothing_moves() {
        let all = PerWorker::new(2, |worker| worker * 10);
        let first: *const usize = &all[0];
        let mut walk = all.iter();
        assert_eq!(walk.by_ref().take(2).copied().collect::<Vec<_>>(), [0, 10]);
        assert_eq!((all.len(), all.get(2)), (2, None));
        assert_eq!(all.add(20), Ok(2));
        assert_eq!((walk.next(), walk.next()), (Some(&20), None), "a walk sees what comes meanwhile");
        assert_eq!(first, &raw const all[0]);
        for worker in 3..WORKERS_MAX {
            assert_eq!(all.add(worker), Ok(worker));
        }
        assert_eq!((all.add(7), all.len()), (Err(7), WORKERS_MAX), "there are no more places");
        assert!(PerWorker::<u8>::default().is_empty());
    }
}
