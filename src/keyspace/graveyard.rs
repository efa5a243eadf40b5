//! The graveyard: the keys of flushed databases, for as long as the flush can be undone.
//!
//! ```text
//! FLUSHALL, FLUSHDB ─▶ a grave: the directories as they were ─┬─▶ UNFLUSH: they are in their databases again
//!                                                             └─▶ its time is over, or memory is short: freed
//! ```
//!
//! The graveyard is a part of what is stored, like the keys: the log's verbs change it, a frozen view holds it, and a
//! snapshot has chunks for it. So a flush can be undone after a snapshot, and after a start.
//!
//! Invariants:
//! - Whoever changes it is alone behind the gate, or loads the keyspace.
//! - A grave holds keys, and nothing changes its directories. Their keys count in no database and never expire.
//! - Graves stand in the order of their flushes, the oldest first, and so do their numbers.
//! - SWAPDB exchanges the databases of graves, too: what comes back comes to where it would be without the flush.

use std::sync::Arc;

use triomphe::Arc as Shared;

use super::Keyspace;
use crate::base::lock::MutexGuard;
use crate::value::directory::Directory;

/// The keys of one database in one shard.
#[derive(Clone, Debug)]
pub struct Buried {
    /// The shard.
    pub shard: u16,
    /// The database to which they would come back.
    pub db: u32,
    /// The keys.
    pub directory: Shared<Directory>,
}

/// What one flush has taken out.
#[derive(Clone, Debug)]
pub struct Grave {
    /// Its number.
    pub id: u64,
    /// When the flush was, Unix ms.
    pub at_ms: u64,
    /// Until when it can be undone, Unix ms.
    pub until_ms: u64,
    /// An estimate of the memory that its keys take.
    pub bytes: u64,
    /// The only database that was flushed; `None` for all.
    pub only: Option<u32>,
    /// The keys, in no order.
    pub buried: Vec<Buried>,
}

impl Grave {
    /// Whether a database was flushed.
    pub fn covers(&self, db: u32) -> bool {
        self.only.is_none_or(|only| only == db)
    }

    /// How many keys it holds.
    pub fn keys(&self) -> u64 {
        self.buried.iter().map(|buried| buried.directory.len() as u64).sum()
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, one: u32, other: u32) {
        let exchange = |db: &mut u32| match *db {
            db_is if db_is == one => *db = other,
            db_is if db_is == other => *db = one,
            _ => {}
        };
        self.only.iter_mut().for_each(exchange);
        self.buried.iter_mut().for_each(|buried| exchange(&mut buried.db));
    }
}

/// The last flush, for who wants to undo it by what is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFlush {
    /// When it was, Unix ms.
    pub at_ms: u64,
    /// The block of the log before it; `None` if that is not known yet, or there is no log.
    pub block_before: Option<u64>,
    /// Whether the log will hold it.
    is_logged: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Graveyard {
    graves: Vec<Arc<Grave>>,
    /// The number of the last grave.
    last_id: u64,
    last_flush: Option<LastFlush>,
    /// The directory of the files, for messages to the operator; `None` if there are none.
    files: Option<Arc<str>>,
}

impl Graveyard {
    /// Says where the files of the keyspace are.
    pub fn set_files(&mut self, directory: &str) {
        self.files = Some(directory.into());
    }

    /// Where the files of the keyspace are.
    pub fn files(&self) -> Option<Arc<str>> {
        self.files.clone()
    }

    /// The newest flush that can be undone at this time.
    pub fn undoable(&self, now_ms: u64) -> Option<Arc<Grave>> {
        self.graves.iter().rfind(|grave| grave.until_ms > now_ms).cloned()
    }

    /// The graves, the oldest first.
    pub fn graves(&self) -> &[Arc<Grave>] {
        &self.graves
    }

    /// The number of the next flush.
    pub fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Adds the newest grave, unless it is empty. Its number counts in any case.
    pub fn bury(&mut self, grave: Grave) {
        self.last_id = self.last_id.max(grave.id);
        if !grave.buried.is_empty() {
            self.graves.push(Arc::new(grave));
        }
    }

    /// Adds a grave whose keys are still to be loaded.
    pub fn announce(&mut self, grave: Grave) {
        self.last_id = self.last_id.max(grave.id);
        self.graves.retain(|known| known.id != grave.id);
        let at = self.graves.partition_point(|known| known.id < grave.id);
        self.graves.insert(at, Arc::new(grave));
    }

    /// Adds loaded keys to a grave. False if there is none of this number.
    pub fn add(&mut self, id: u64, loaded: impl IntoIterator<Item = Buried>) -> bool {
        let grave = self.graves.iter_mut().find(|grave| grave.id == id);
        grave.map(|grave| Arc::make_mut(grave).buried.extend(loaded)).is_some()
    }

    /// Drops the graves that have no keys, once everything is loaded.
    pub fn drop_empty(&mut self) {
        self.graves.retain(|grave| !grave.buried.is_empty());
    }

    /// Takes out a grave.
    pub fn take(&mut self, id: u64) -> Option<Arc<Grave>> {
        let at = self.graves.iter().position(|grave| grave.id == id)?;
        Some(self.graves.remove(at))
    }

    /// Takes out all graves.
    pub fn take_all(&mut self) -> Vec<Arc<Grave>> {
        std::mem::take(&mut self.graves)
    }

    /// Replaces all graves, which stand in order. Returns those before.
    pub fn replace(&mut self, graves: Vec<Arc<Grave>>) -> Vec<Arc<Grave>> {
        self.last_id = graves.iter().map(|grave| grave.id).fold(self.last_id, u64::max);
        std::mem::replace(&mut self.graves, graves)
    }

    /// Exchanges two databases in all graves.
    pub fn swap(&mut self, one: u32, other: u32) {
        let concerns = |db: u32| db == one || db == other;
        let of_these = |grave: &&mut Arc<Grave>| {
            grave.only.is_some_and(concerns) || grave.buried.iter().any(|buried| concerns(buried.db))
        };
        self.graves.iter_mut().filter(of_these).for_each(|grave| Arc::make_mut(grave).swap(one, other));
    }

    /// The grave that is to be dropped next, because its time is over.
    pub fn due(&self, now_ms: u64) -> Option<u64> {
        self.graves.iter().find(|grave| grave.until_ms <= now_ms).map(|grave| grave.id)
    }

    /// Notes a flush, whether it can be undone or not.
    pub fn note_flush(&mut self, at_ms: u64, is_logged: bool) {
        self.last_flush = Some(LastFlush { at_ms, block_before: None, is_logged });
    }

    /// Forgets the last flush: it is undone.
    pub fn forget_last_flush(&mut self) {
        self.last_flush = None;
    }

    /// Notes the number of the block that holds the last flush, if that is not known.
    pub fn note_block(&mut self, block: u64) {
        if let Some(last) = &mut self.last_flush
            && last.is_logged
        {
            last.block_before.get_or_insert(block.saturating_sub(1));
        }
    }

    /// The last flush since the start.
    pub fn last_flush(&self) -> Option<LastFlush> {
        self.last_flush
    }

    /// The sums of keys and bytes.
    pub fn sizes(&self) -> (u64, u64) {
        self.graves.iter().fold((0, 0), |(keys, bytes), grave| (keys + grave.keys(), bytes + grave.bytes))
    }
}

/// The keys of a database when an older state of it comes back: the newer ones, and those older ones whose names are
/// not among them. Reads the smaller of the two, key by key.
pub fn unite(newer: Shared<Directory>, older: Shared<Directory>) -> Shared<Directory> {
    let newer_is_small = newer.len() <= older.len();
    let (mut base, added) = if newer_is_small { (older, newer) } else { (newer, older) };
    if !added.is_empty() {
        Shared::make_mut(&mut base).add_all(&added, newer_is_small);
    }
    base
}

impl Keyspace {
    /// The graveyard. It is held for moments.
    pub fn graveyard(&self) -> MutexGuard<'_, Graveyard> {
        self.graveyard.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::value::entry::NewValue;

    fn directory(keys: &[(&str, i64)]) -> Shared<Directory> {
        let seed = HashSeed([3; 16]);
        let mut directory = Directory::new(seed);
        for (key, value) in keys {
            directory.set(seed.hash(key.as_bytes()), key.as_bytes(), NewValue::Int(*value), None, 0);
        }
        Shared::new(directory)
    }

    fn grave(id: u64, only: Option<u32>, dbs: &[u32]) -> Grave {
        let buried = |&db: &u32| Buried { shard: 0, db, directory: directory(&[("k", db.into())]) };
        Grave { id, at_ms: id, until_ms: id + 10, bytes: 5, only, buried: dbs.iter().map(buried).collect() }
    }

    #[test]
    fn the_newer_keys_win_whichever_side_is_smaller() {
        for (newer, older) in [
            (vec![("a", 1)], vec![("a", 2), ("b", 2), ("c", 2)]),
            (vec![("a", 1), ("d", 1), ("e", 1)], vec![("a", 2), ("b", 2), ("c", 2)]),
            (vec![("a", 1), ("d", 1), ("e", 1)], vec![("a", 2)]),
            (vec![], vec![("a", 2)]),
            (vec![("a", 1)], vec![]),
        ] {
            let mut expected: std::collections::BTreeMap<_, _> = older.iter().copied().collect();
            expected.extend(newer.iter().copied());
            let kept = directory(&older);
            let united = unite(directory(&newer), kept.clone());
            let wanted: Vec<_> = expected.keys().map(|key| key.as_bytes().to_vec()).collect();
            let mut found: Vec<_> = united.iter().map(|entry| entry.key().to_vec()).collect();
            found.sort();
            assert_eq!(found, wanted);
            let value = |entry: crate::value::entry::EntryRef<'_>| match entry.value() {
                crate::value::entry::ValueRef::Int(number) => number,
                _ => -1,
            };
            united.iter().for_each(|entry| {
                let name = std::str::from_utf8(entry.key()).expect("a name");
                assert_eq!(value(entry), expected[name], "{name}");
            });
            assert_eq!(kept.len(), older.len(), "what is shared does not change");
            united.check_invariants();
        }
    }

    #[test]
    fn graves_stand_in_order_and_follow_their_databases() {
        let mut yard = Graveyard::default();
        assert_eq!((yard.next_id(), yard.undoable(0).is_none()), (1, true));
        yard.bury(grave(1, Some(0), &[0]));
        yard.bury(grave(2, None, &[0, 3]));
        yard.bury(grave(3, Some(7), &[]));
        assert_eq!((yard.next_id(), yard.undoable(11).map(|grave| grave.id), yard.sizes()), (4, Some(2), (3, 10)));
        yard.swap(0, 5);
        yard.swap(3, 3);
        let dbs = |grave: &Grave| grave.buried.iter().map(|buried| buried.db).collect::<Vec<_>>();
        assert_eq!(yard.graves().iter().map(|grave| dbs(grave)).collect::<Vec<_>>(), [vec![5], vec![5, 3]]);
        assert_eq!(yard.graves()[0].only, Some(5));
        assert!(yard.graves()[0].covers(5) && !yard.graves()[0].covers(0) && yard.graves()[1].covers(9));
        assert_eq!((yard.due(10), yard.due(11), yard.due(100)), (None, Some(1), Some(1)));
        yard.announce(grave(0, None, &[]));
        assert_eq!(yard.graves().iter().map(|grave| grave.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(yard.add(0, [Buried { shard: 1, db: 1, directory: directory(&[("x", 1)]) }]) && !yard.add(9, []));
        yard.drop_empty();
        assert_eq!((yard.take(1).map(|grave| grave.id), yard.take(1).is_none()), (Some(1), true));
        assert_eq!(yard.take_all().len(), 2);
    }

    #[test]
    fn the_block_of_a_flush_is_noted_once() {
        let mut yard = Graveyard::default();
        yard.note_block(7);
        assert_eq!(yard.last_flush(), None);
        yard.note_flush(5, true);
        yard.note_block(7);
        yard.note_block(8);
        assert_eq!(yard.last_flush().and_then(|last| last.block_before), Some(6));
        yard.note_flush(6, false);
        yard.note_block(9);
        assert_eq!(yard.last_flush().and_then(|last| last.block_before), None);
    }
}
