//! What concerns whole databases: flushing them, undoing that, and exchanging two.
//!
//! A flush takes directories out, a shard at a time, and touches no key. While it can be undone they lie in the
//! [graveyard](crate::keyspace::graveyard), otherwise another thread frees them.
//!
//! Invariants:
//! - The caller is alone behind the gate, or replays.
//! - Inside a transaction or a script, all of this is remembered and rolled back like any other change, the graveyard
//!   included.

use smallvec::SmallVec;

use super::db::Db;
use super::undo::Step;
use crate::base::alloc;
use crate::keyspace::graveyard::unite;
use crate::keyspace::{Buried, Grave, Graveyard, Key, SHARDS};
use crate::persist::verbs::Undoable;
use crate::value::directory::ExpiredKey;

impl Db<'_> {
    /// Says that everything was removed. If there is no log but save points are set, a snapshot follows: the last one
    /// holds what is gone.
    pub fn want_snapshot(&mut self) {
        self.unit.flushed_all = true;
    }

    /// A flush now that can be undone, if flushes can.
    pub fn undoable_flush(&self) -> Option<Undoable> {
        let at_ms = self.facts.now.max(0) as u64;
        let until_ms = at_ms.saturating_add(self.facts.flush_undo_ms);
        (self.facts.flush_undo_ms > 0).then(|| Undoable { id: self.keyspace().graveyard().next_id(), at_ms, until_ms })
    }

    /// Empties one database, or all for `None`, and keeps what it takes out in the graveyard. Every key counts as a
    /// change.
    pub fn bury(&mut self, only: Option<u32>, flush: Undoable) {
        let all: usize = self.keyspace().counts().filled().map(|(_, census)| census.keys).sum();
        let buried = self.take_out(|db| only.is_none_or(|only| only == db));
        let mut grave = Grave { id: flush.id, at_ms: flush.at_ms, until_ms: flush.until_ms, bytes: 0, only, buried };
        // Nobody adds up what the values take: an estimate by the number of keys.
        grave.bytes = (alloc::used_memory() as u128 * u128::from(grave.keys()) / all.max(1) as u128) as u64;
        let is_logged = self.unit.is_logging();
        self.change_graveyard(|yard| {
            yard.note_flush(flush.at_ms, is_logged);
            yard.bury(grave);
        });
    }

    /// Empties one database for good, or all for `None`, and then what could be undone until now, too.
    pub fn flush(&mut self, only: Option<u32>) {
        let taken = self.take_out(|db| only.is_none_or(|only| only == db));
        self.retire_buried(taken);
        let (at_ms, is_logged) = (self.facts.now.max(0) as u64, self.unit.is_logging());
        let graves = self.change_graveyard(|yard| {
            yard.note_flush(at_ms, is_logged);
            if only.is_none() { yard.take_all() } else { Vec::new() }
        });
        graves.iter().for_each(|grave| self.retire_buried(grave.buried.iter().cloned()));
    }

    /// Brings back what the flush of this number took out. The keys that were written since stay, and of the same name
    /// they win; or they go if the older ones replace them. Returns how many keys are back; `None` if there is no such
    /// flush.
    pub fn unflush(&mut self, id: u64, replaces: bool) -> Option<u64> {
        let grave = self.change_graveyard(|yard| {
            let grave = yard.take(id)?;
            yard.forget_last_flush();
            Some(grave)
        })?;
        if replaces {
            let newer = self.take_out(|db| grave.covers(db));
            self.retire_buried(newer);
        } else {
            self.note_all_changed();
        }
        let mut back = 0;
        for buried in &grave.buried {
            back += self.bring_back(buried);
            self.held.release();
        }
        self.unit.dirty += back;
        Some(back)
    }

    /// Frees what the flush of this number took out. Returns whether there is such a flush.
    pub fn forget_flush(&mut self, id: u64) -> bool {
        let grave = self.change_graveyard(|yard| yard.take(id));
        let Some(grave) = grave else { return false };
        self.retire_buried(grave.buried.iter().cloned());
        true
    }

    /// Removes the expired keys of these databases.
    pub fn expire_all(&mut self, chosen: impl Fn(u32) -> bool) {
        let (now, selected) = (self.facts.seen_at().max(0) as u64, self.index);
        let due: Vec<u16> = (0..SHARDS as u16).filter(|&shard| self.keyspace().earliest_expiry(shard) <= now).collect();
        for number in due {
            let filled: SmallVec<[u32; 16]> =
                self.held.shard(number).databases().map(|(db, _)| db).filter(|&db| chosen(db)).collect();
            for db in filled {
                let mut expired: Vec<ExpiredKey> = Vec::new();
                if let Some(directory) = self.held.shard(number).directory(db) {
                    directory.collect_expired(now, usize::MAX, &mut expired);
                }
                self.select(db);
                for found in expired.iter().filter(|found| found.whole) {
                    self.expire(Key { bytes: &found.key, hash: found.hash });
                }
            }
            self.held.release();
        }
        self.select(selected);
    }

    /// Exchanges two databases, which counts as one change.
    pub fn swap(&mut self, one: u32, other: u32) {
        self.unit.dirty += 1;
        self.unit.note_changed();
        if one == other {
            return;
        }
        self.unit.undo.forget_names();
        self.change_graveyard(|yard| yard.swap(one, other));
        let (now, remembers) = (self.facts.now, self.unit.remembers());
        if remembers {
            (0..SHARDS as u16).for_each(|number| {
                self.remember_versions(number);
                self.held.release();
            });
            self.unit.undo.steps.push(Step::Swap { one, other });
        }
        for number in 0..SHARDS as u16 {
            let shard = self.held.shard(number);
            shard.watched_replaced(one, Some(other), now);
            shard.watched_replaced(other, Some(one), now);
            shard.swap(one, other);
            self.held.release();
        }
    }

    /// Notes that any key may have changed.
    fn note_all_changed(&mut self) {
        self.unit.note_changed();
        self.unit.undo.forget_names();
        if self.keyspace().is_observed() {
            self.unit.note_all_touched();
        }
    }

    /// Takes out the directories of the databases that `chosen` names.
    fn take_out(&mut self, chosen: impl Fn(u32) -> bool) -> Vec<Buried> {
        self.note_all_changed();
        let (keyspace, now, remembers) = (self.keyspace(), self.facts.now, self.unit.remembers());
        let mut taken = Vec::new();
        for number in 0..SHARDS as u16 {
            let shard = self.held.shard(number);
            let filled: SmallVec<[u32; 16]> = shard.databases().map(|(db, _)| db).filter(|&db| chosen(db)).collect();
            if remembers && !filled.is_empty() {
                self.remember_versions(number);
            }
            for db in filled {
                let shard = self.held.shard(number);
                shard.watched_replaced(db, None, now);
                let Some(directory) = shard.replace_directory(db, None) else { continue };
                self.unit.dirty += directory.len() as u64;
                if remembers {
                    let directory = Some(triomphe::Arc::clone(&directory));
                    self.unit.undo.steps.push(Step::Flush { shard: number, db, directory });
                }
                if !directory.is_empty() {
                    taken.push(Buried { shard: number, db, directory });
                }
            }
            keyspace.renew_earliest_expiry(number, self.held.shard(number));
            self.held.release();
        }
        taken
    }

    /// Puts the keys of one database in one shard back. Returns how many they are.
    fn bring_back(&mut self, buried: &Buried) -> u64 {
        let Buried { shard: number, db, ref directory } = *buried;
        let (keyspace, now) = (self.keyspace(), self.facts.now);
        if self.unit.remembers() {
            self.remember_versions(number);
        }
        let shard = self.held.shard(number);
        shard.watched_restored(db, directory, now);
        let newer = shard.put_directory(db, None);
        if self.unit.remembers() {
            self.unit.undo.steps.push(Step::Flush { shard: number, db, directory: newer.clone() });
        }
        let before = newer.as_ref().map_or(0, |newer| newer.len());
        let older = triomphe::Arc::clone(directory);
        let united = match newer.filter(|newer| !newer.is_empty()) {
            Some(newer) => {
                // What is in neither place then is freed elsewhere: much, perhaps.
                self.unit.retired_directories.extend([&newer, directory].map(triomphe::Arc::clone));
                unite(newer, older)
            }
            None => older,
        };
        let back = united.len() - before;
        let shard = self.held.shard(number);
        shard.put_directory(db, Some(united));
        keyspace.renew_earliest_expiry(number, shard);
        back as u64
    }

    /// Has another thread free what was taken out.
    fn retire_buried(&mut self, taken: impl IntoIterator<Item = Buried>) {
        self.unit.retired_directories.extend(taken.into_iter().map(|buried| buried.directory));
    }

    /// Changes the graveyard, which is remembered if changes are.
    fn change_graveyard<T>(&mut self, change: impl FnOnce(&mut Graveyard) -> T) -> T {
        let mut yard = self.keyspace().graveyard();
        if self.unit.remembers() {
            self.unit.undo.steps.push(Step::Graveyard(Box::new(yard.clone())));
        }
        change(&mut yard)
    }
}
