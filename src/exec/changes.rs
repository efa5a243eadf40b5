//! Tells connections that keys have changed which they may have cached: client-side caching.
//!
//! ```text
//! under the shards' locks   read: remember ─ change: gather, whom to tell
//! after the unlock          tell_reader: the running connection behind its reply, others by a letter to their worker
//! at the end of the group   broadcast: one message for each prefix
//! ```
//!
//! Invariants:
//! - A change is told after its commit, so whoever is told and reads again sees it. It leaves when its block is safe.
//! - What is gathered is told at the end of the group at the latest.

use crate::core::client::Client;
use crate::core::unit::Touched;
use crate::core::{Server, Unit};
use crate::events::invalidation::{Change, Invalidation, Reason, StaleKey, Untold};
use crate::events::tracking::Tracker;
use crate::keyspace::Key;
use crate::resp::Output;

/// How many remembered keys one command drops, if there are too many.
const DROPPED_MAX: usize = 100;

/// Remembers that a connection has read these keys, whose shards are held.
#[cold]
pub(super) fn remember<'k>(server: &Server, keys: impl Iterator<Item = Key<'k>>, client: &Client) {
    let tracker = Tracker { client: client.record.id, worker: client.record.worker() };
    for key in keys {
        server.tracking.remember(key.bytes, key.hash, tracker, |reader| server.clients.get(reader).is_none());
    }
}

/// Takes out whom to tell of what a command has changed, while the shards are held. `by` is its connection.
#[cold]
pub(super) fn gather(server: &Server, unit: &mut Unit, by: u64) {
    let has_prefixes = server.tracking.count_prefixes() > 0;
    for touched in unit.take_touched() {
        let Touched::Key { key, hash, by_command } = touched else {
            server.tracking.clear();
            unit.untold.changes.push(Change::Flush);
            continue;
        };
        let by = if by_command { by } else { 0 };
        let readers = server.tracking.take(&key, hash);
        if has_prefixes {
            unit.untold.broadcast.insert(key.clone(), by);
        }
        if !readers.is_empty() {
            unit.untold.changes.push(Change::Key(StaleKey { key, by }, readers));
        }
    }
}

/// Tells of the changes that were gathered; of those that the running connection has read, behind its reply.
#[cold]
pub(super) fn tell_reader(server: &Server, untold: &mut Untold, client: &mut Client, out: &mut Output) {
    let (own, block) = (client.record.id, untold.block);
    for change in std::mem::take(&mut untold.changes) {
        match change {
            Change::Flush => {
                server.invalidate_all(own, block);
                client.invalidate(server, &Invalidation { keys: [].into(), reason: Reason::Flush, block }, out);
            }
            Change::Key(stale, readers) => {
                let it = Invalidation { keys: [stale].into(), reason: Reason::Read, block };
                server.invalidate(&readers, own, &it);
                if readers.iter().any(|reader| reader.client == own) {
                    client.invalidate(server, &it, out);
                }
            }
        }
    }
}

/// Drops remembered keys if there are too many.
#[inline]
pub(super) fn limit_tracking(server: &Server) {
    if server.tracking.excess() > 0 {
        server.limit_tracking(DROPPED_MAX);
    }
}

/// Tells of everything that is left, at the end of a group.
#[cold]
pub(super) fn tell_readers(server: &Server, untold: &mut Untold) {
    let Untold { changes, broadcast, block } = std::mem::take(untold);
    for change in changes {
        match change {
            Change::Flush => server.invalidate_all(0, block),
            Change::Key(stale, readers) => {
                server.invalidate(&readers, 0, &Invalidation { keys: [stale].into(), reason: Reason::Read, block });
            }
        }
    }
    let Some(prefixes) = server.tracking.prefixes().filter(|_| !broadcast.is_empty()) else { return };
    for (prefix, trackers) in &*prefixes {
        let keys = broadcast.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(prefix));
        let keys: Vec<StaleKey> = keys.map(|(key, by)| StaleKey { key: key.clone(), by: *by }).collect();
        if !keys.is_empty() {
            server.invalidate(trackers, 0, &Invalidation { keys: keys.into(), reason: Reason::Prefix, block });
        }
    }
}
