//! The connections that wait for a key, in the order of arrival. Blocking commands build on this.
//!
//! Like the [watched keys](super::watch), the waiters of a shard are guarded by its lock, and a shard without waiters
//! pays for one pointer test. A command that is about to push to a key with waiters runs alone behind the gate. It
//! serves them, first come first served, before anyone else runs.
//!
//! Invariants:
//! - A key is present exactly while a connection waits for it.
//! - The tickets of one key are in the order in which they were issued.

use std::collections::{HashMap, VecDeque};

/// Identifies a waiting connection. Tickets are numbered in the order of arrival over all keys.
pub type Ticket = u64;

/// A key of one database.
type WaitedKey = (u32, Box<[u8]>);

/// The queues of the keys of one shard.
#[derive(Debug, Default)]
struct Queues(HashMap<WaitedKey, VecDeque<Ticket>>);

/// The keys of one shard that have waiters. It is a pointer, so that a shard stays within its cache lines.
#[derive(Debug, Default)]
pub struct Waiters(Option<Box<Queues>>);

impl Waiters {
    /// Enters a connection into the queue of a key, behind those that already wait.
    pub fn wait(&mut self, db: u32, key: &[u8], ticket: Ticket) {
        self.0.get_or_insert_default().0.entry((db, key.into())).or_default().push_back(ticket);
    }

    /// Removes a connection from the queue of a key: it was served elsewhere, timed out, or left.
    pub fn leave(&mut self, db: u32, key: &[u8], ticket: Ticket) {
        let Some(queues) = &mut self.0 else { return };
        let id: WaitedKey = (db, key.into());
        if let Some(queue) = queues.0.get_mut(&id) {
            queue.retain(|waiting| *waiting != ticket);
            if queue.is_empty() {
                queues.0.remove(&id);
            }
        }
        if queues.0.is_empty() {
            self.0 = None;
        }
    }

    /// Whether no key of the shard has waiters.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the key has waiters.
    pub fn any(&self, db: u32, key: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|queues| queues.0.contains_key(&(db, key.into())))
    }

    /// The waiters of the key, in the order of arrival.
    pub fn of(&self, db: u32, key: &[u8]) -> Vec<Ticket> {
        let queue = self.0.as_ref().and_then(|queues| queues.0.get(&(db, key.into())));
        queue.map(|queue| queue.iter().copied().collect()).unwrap_or_default()
    }

    /// The keys with waiters for which `affected`, given database and key, is true.
    pub fn keys(&self, affected: impl Fn(u32, &[u8]) -> bool) -> Vec<(u32, Box<[u8]>)> {
        let all = self.0.iter().flat_map(|queues| queues.0.keys());
        all.filter(|(db, key)| affected(*db, key)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_first_is_served_first_and_nothing_stays_behind() {
        let mut waiters = Waiters::default();
        assert!(waiters.is_empty() && waiters.of(0, b"k").is_empty());
        for ticket in [3, 5, 9] {
            waiters.wait(0, b"k", ticket);
        }
        waiters.wait(1, b"k", 4);
        assert_eq!(waiters.of(0, b"k"), [3, 5, 9]);
        assert_eq!((waiters.any(0, b"k"), waiters.any(0, b"l"), waiters.any(2, b"k")), (true, false, false));
        assert_eq!(waiters.keys(|db, _| db == 1), [(1, b"k"[..].into())]);
        waiters.leave(0, b"k", 5);
        waiters.leave(0, b"k", 3);
        waiters.leave(0, b"other", 9);
        assert_eq!(waiters.of(0, b"k"), [9]);
        waiters.leave(0, b"k", 9);
        assert_eq!((waiters.of(0, b"k"), waiters.of(1, b"k")), (vec![], vec![4]));
        waiters.leave(1, b"k", 4);
        assert!(waiters.0.is_none());
    }
}
