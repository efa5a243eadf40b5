//! Busy locks, and work that is left for later because of them.
//!
//! A worker's thread does not wait for a lock that a slow command holds. A command that cannot have its locks is
//! parked (see `server::parking`) and tried again. Work that must happen, but may happen later, is left here.
//!
//! Invariants:
//! - Work left for later is harmless while it waits: a key without watchers, or a waiter that is already answered.

use super::{Keyspace, shard_of};
use crate::keyspace::waiters::Ticket;

/// A busy lock, or what else a command must wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Busy {
    /// The gate is closed: another thread runs alone.
    Gate,
    /// The gate cannot be closed: another worker executes something.
    Workers,
    /// The lock of a shard.
    Shard(u16),
    /// No lock: a worker has too many messages to deliver.
    Mail,
    /// No lock: room below `maxmemory`, which is being made.
    Memory,
    /// The end of a pause: CLIENT PAUSE.
    Pause,
}

/// Work for when the lock of a shard is free.
#[derive(Debug)]
pub(super) enum Later {
    /// Remove one watcher of a key.
    Unwatch { db: u32, key: Box<[u8]>, hash: u64 },
    /// Remove a waiter of a key.
    Leave { db: u32, key: Box<[u8]>, hash: u64, ticket: Ticket },
}

impl Later {
    /// Does it if the shard is free. Returns whether it did.
    fn attempt(&self, keyspace: &Keyspace) -> bool {
        let (Later::Unwatch { hash, .. } | Later::Leave { hash, .. }) = self;
        let Some(mut shard) = keyspace.try_lock(shard_of(*hash)) else { return false };
        match self {
            Later::Unwatch { db, key, .. } => drop(shard.watched.unwatch(*db, key)),
            Later::Leave { db, key, ticket, .. } => shard.waiters.leave(*db, key, *ticket),
        }
        true
    }
}

impl Keyspace {
    /// Removes one watcher of a key; later, if its shard is busy.
    pub fn unwatch(&self, db: u32, key: &[u8], hash: u64) {
        match self.try_lock(shard_of(hash)) {
            Some(mut shard) => drop(shard.watched.unwatch(db, key)),
            None => self.later.lock().push(Later::Unwatch { db, key: key.into(), hash }),
        }
    }

    /// Removes a waiter of a key; later, if its shard is busy.
    pub fn leave(&self, db: u32, key: &[u8], hash: u64, ticket: Ticket) {
        match self.try_lock(shard_of(hash)) {
            Some(mut shard) => shard.waiters.leave(db, key, ticket),
            None => self.later.lock().push(Later::Leave { db, key: key.into(), hash, ticket }),
        }
    }

    /// Does the work left for later whose shards are now free.
    pub fn catch_up(&self) {
        let Some(mut later) = self.later.try_lock() else { return };
        later.retain(|item| !item.attempt(self));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;

    #[test]
    fn what_meets_a_busy_shard_is_done_when_it_is_free() {
        let keyspace = Keyspace::new(1, HashSeed(*b"seed of the test"));
        let key = keyspace.key(b"k");
        let mut shard = keyspace.lock(key.shard());
        shard.watched.watch(0, b"k");
        shard.waiters.wait(0, b"k", 7);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keyspace.unwatch(0, b"k", key.hash);
                keyspace.leave(0, b"k", key.hash, 7);
                keyspace.catch_up();
            });
        });
        assert!(shard.waiters.any(0, b"k"));
        drop(shard);
        keyspace.catch_up();
        let mut shard = keyspace.lock(key.shard());
        assert!(shard.waiters.is_empty());
        assert_eq!(shard.watched.unwatch(0, b"k"), None);
        assert!(keyspace.later.lock().is_empty());
    }
}
