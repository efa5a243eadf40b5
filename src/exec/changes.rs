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

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::core::client::Client;
use crate::core::unit::Touched;
use crate::core::{Server, Unit};
use crate::events::invalidation::{Change, Invalidation, Reason, StaleKey, Untold};
use crate::events::tracking::{Prefixes, Tracker};
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
    for (trackers, keys) in by_prefix(&prefixes, &broadcast) {
        server.invalidate(trackers, 0, &Invalidation { keys: keys.into(), reason: Reason::Prefix, block });
    }
}

/// The keys that begin with each prefix, if any do. However many prefixes somebody tracks, a change does not look at
/// all of them: it looks for those that its key begins with.
fn by_prefix<'p>(prefixes: &'p Prefixes, broadcast: &BTreeMap<Box<[u8]>, u64>) -> Vec<(&'p [Tracker], Vec<StaleKey>)> {
    let stale = |key: &[u8], by: u64| StaleKey { key: key.into(), by };
    let beginnings: usize = broadcast.keys().map(|key| key.len() + 1).sum();
    if prefixes.len() <= beginnings {
        let keys_of = |prefix: &'p [u8]| {
            let from = broadcast.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
            from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, by)| stale(key, *by)).collect::<Vec<_>>()
        };
        let all = prefixes.iter().map(|(prefix, trackers)| (&trackers[..], keys_of(prefix)));
        return all.filter(|(_, keys)| !keys.is_empty()).collect();
    }
    let mut found: BTreeMap<&[u8], (&[Tracker], Vec<StaleKey>)> = BTreeMap::new();
    for (key, by) in broadcast {
        let prefixes_of_key = (0..=key.len()).filter_map(|len| prefixes.get_key_value(&key[..len]));
        for (prefix, trackers) in prefixes_of_key {
            found.entry(prefix).or_insert((trackers, Vec::new())).1.push(stale(key, *by));
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to look find the same.
    #[test]
    fn keys_are_found_by_their_prefixes_however_many_there_are() {
        let tracker = |client| Tracker { client, worker: 0 };
        let named = [&b""[..], b"a", b"ab", b"abc", b"b", b"x", b"\xff", b"\xff\xff"];
        let few: Prefixes = (0..).zip(named).map(|(client, name)| (name.into(), vec![tracker(client)])).collect();
        let mut many = few.clone();
        many.extend((100..400).map(|client| (format!("zz{client}").into_bytes().into(), vec![tracker(client)])));
        let keys = [&b""[..], b"a", b"abd", b"abcd", b"c", b"\xff\xff\xff"];
        let broadcast: BTreeMap<Box<[u8]>, u64> = keys.into_iter().map(|key| (key.into(), 7)).collect();
        let found = |prefixes| -> Vec<(u64, Vec<Box<[u8]>>)> {
            let told = by_prefix(prefixes, &broadcast).into_iter();
            told.map(|(who, keys)| (who[0].client, keys.into_iter().map(|stale| stale.key).collect())).collect()
        };
        let expected: Vec<(u64, Vec<Box<[u8]>>)> = (0..)
            .zip(named)
            .map(|(client, name)| {
                (client, keys.into_iter().filter(|key| key.starts_with(name)).map(Box::from).collect())
            })
            .filter(|(_, keys): &(u64, Vec<Box<[u8]>>)| !keys.is_empty())
            .map(|(client, mut keys)| {
                keys.sort();
                (client, keys)
            })
            .collect();
        assert_eq!(found(&few), expected);
        assert_eq!(found(&many), expected);
    }
}
