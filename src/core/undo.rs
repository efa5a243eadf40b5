//! What a unit remembers of the keyspace, and how it is rolled back.
//!
//! Each change is remembered as a step: what a key was, the version of a watched key, a flushed database, two
//! exchanged ones, the graveyard, or the libraries of functions. Rolling back processes the steps from the last to the
//! first.
//!
//! A large value costs its step one counted pointer, and the following change a copy of the nodes on its path. Only a
//! growable string that is changed in place is copied, once per unit.
//!
//! The access field that a read sets is not a change: a read that is rolled back was still a read.
//!
//! Invariants:
//! - The steps are complete for everything that can be rolled back: all changes of an undoable command, and, in a
//!   unit that can be rolled back as a whole, at least the first change of each key.
//! - A key's name stands for the same entry between two exchanges or flushes of databases. With each of them, the set
//!   of remembered keys is cleared.

use std::collections::HashMap;
use std::sync::Arc;

use super::unit::{Savepoint, Unit};
use crate::core::Db;
use crate::keyspace::{Directory, Graveyard, Key, Libraries, NewValue, SHARDS, Shard, ValueRef};
use crate::value::Packing;
use crate::value::entry::Heap;

/// How much room is kept for the next unit: steps, and bytes of keys and values.
const STEPS_KEPT: usize = 1024;
const BYTES_KEPT: usize = 256 * 1024;
/// How many steps are looked through for a key.
const LOOKED_THROUGH: usize = 16;

/// A part of [`UndoLog::bytes`]: its offset and its length.
pub(super) type Part = (usize, usize);

/// The steps of a unit.
#[derive(Debug, Default)]
pub(super) struct UndoLog {
    pub(super) steps: Vec<Step>,
    /// Keys and short values that the steps refer to.
    bytes: Vec<u8>,
    /// The step that remembers what a key was, by database and hash. Used only if the unit can be rolled back as a
    /// whole, and once there are many steps; the first ones are looked through.
    names: HashMap<(u32, u64), usize>,
    /// From which step on keys are remembered.
    names_from: usize,
}

#[derive(Debug)]
pub(super) enum Step {
    /// A key before a change.
    Key { db: u32, hash: u64, key: Part, prior: Option<Prior> },
    /// The version of a watched key before it rises.
    Version { shard: u16, db: u32, key: Part, version: u64 },
    /// The directory of a database in a shard was taken out.
    Flush { shard: u16, db: u32, directory: Option<triomphe::Arc<Directory>> },
    /// Two databases were exchanged.
    Swap { one: u32, other: u32 },
    /// The libraries of functions were these.
    Libraries(Arc<Libraries>),
    /// The graveyard was this one.
    Graveyard(Box<Graveyard>),
}

/// What a key was.
#[derive(Debug)]
pub(super) struct Prior {
    body: PriorBody,
    expiry: Option<u64>,
    access: u32,
    is_blessed: bool,
}

#[derive(Debug)]
pub(super) enum PriorBody {
    Int(i64),
    Inline(Part),
    Packed(Packing, Part),
    Heap(Heap),
}

impl UndoLog {
    /// How many steps there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Forgets all steps.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.bytes.clear();
        self.names_from = 0;
        if self.steps.capacity() > STEPS_KEPT || self.bytes.capacity() > BYTES_KEPT || !self.names.is_empty() {
            self.give_room_back();
        }
    }

    /// The memory for a unit of many keys is not kept for the next.
    #[cold]
    fn give_room_back(&mut self) {
        *self = UndoLog::default();
    }

    /// From now on, every key is remembered again.
    pub(super) fn forget_names(&mut self) {
        self.names.clear();
        self.names_from = self.steps.len();
    }

    #[cfg(test)]
    pub(super) fn room_bytes(&self) -> usize {
        self.steps.capacity() * size_of::<Step>() + self.bytes.capacity()
    }

    fn keep(&mut self, part: &[u8]) -> Part {
        self.bytes.extend_from_slice(part);
        (self.bytes.len() - part.len(), part.len())
    }

    fn part(&self, (start, len): Part) -> &[u8] {
        &self.bytes[start..start + len]
    }

    /// Whether a step remembers what the key was.
    fn has_name(&self, db: u32, key: Key<'_>) -> bool {
        let is_it = |step: &Step| match step {
            Step::Key { db: of, hash, key: kept, .. } => {
                *of == db && *hash == key.hash && self.part(*kept) == key.bytes
            }
            _ => false,
        };
        let steps = self.steps.get(self.names_from..).unwrap_or_default();
        if steps.len() <= LOOKED_THROUGH {
            return steps.iter().any(is_it);
        }
        self.names.get(&(db, key.hash)).and_then(|&at| self.steps.get(at)).is_some_and(is_it)
    }

    /// Adds a step that remembers what a key was, for [`UndoLog::has_name`].
    fn push_named(&mut self, step: Step) {
        self.steps.push(step);
        let from = self.names_from;
        let added = match self.steps.len() - from {
            ..=LOOKED_THROUGH => return,
            // Those that were looked through so far.
            count if self.names.is_empty() => count,
            _ => 1,
        };
        for (at, step) in self.steps.iter().enumerate().skip(self.steps.len() - added) {
            if let Step::Key { db, hash, .. } = step {
                self.names.insert((*db, *hash), at);
            }
        }
    }
}

/// Notes a change in a shard with watched keys.
#[cold]
pub(super) fn raise_version(unit: &mut Unit, shard: &mut Shard, db: u32, key: Key<'_>) {
    if unit.remembers()
        && let Some(version) = shard.watched.version(db, key.bytes)
    {
        let kept = unit.undo.keep(key.bytes);
        unit.undo.steps.push(Step::Version { shard: key.shard(), db, key: kept, version });
    }
    shard.watched.changed(db, key.bytes);
}

impl Db<'_> {
    /// Notes what a key is before it changes.
    #[inline]
    pub(super) fn remember(&mut self, key: Key<'_>) {
        if self.unit.remembers() {
            self.remember_key(key);
        }
    }

    fn remember_key(&mut self, key: Key<'_>) {
        let is_whole = self.unit.is_held_whole();
        if is_whole && !self.unit.is_undoable() && self.unit.undo.has_name(self.index, key) {
            return;
        }
        let undo = &mut self.unit.undo;
        let kept = undo.keep(key.bytes);
        let directory = self.held.shard(key.shard()).directory(self.index);
        let entry = directory.and_then(|directory| directory.get(key.hash, key.bytes));
        let is_blessed = directory.is_some_and(|directory| directory.is_blessed(key.hash, key.bytes));
        let prior = entry.map(|entry| {
            let body = match (entry.heap(), entry.value()) {
                (Some(heap), _) => PriorBody::Heap(heap),
                (None, ValueRef::Int(number)) => PriorBody::Int(number),
                (None, ValueRef::Str(value) | ValueRef::Raw(value)) => PriorBody::Inline(undo.keep(&value)),
                (None, ValueRef::Packed(packing, value)) => PriorBody::Packed(packing, undo.keep(&value)),
                (None, _) => unreachable!("a large collection has a payload"),
            };
            Prior { body, expiry: entry.expiry(), access: entry.access(), is_blessed }
        });
        let step = Step::Key { db: self.index, hash: key.hash, key: kept, prior };
        match is_whole {
            true => undo.push_named(step),
            false => undo.steps.push(step),
        }
    }

    /// Remembers the versions of all watched keys of a shard.
    pub(super) fn remember_versions(&mut self, number: u16) {
        let undo = &mut self.unit.undo;
        for (db, key, version) in self.held.shard(number).watched.versions() {
            let key = undo.keep(key);
            undo.steps.push(Step::Version { shard: number, db, key, version });
        }
    }

    /// Replaces the libraries of functions, which counts as one change. The caller is alone behind the gate.
    pub fn set_libraries(&mut self, libraries: Arc<Libraries>) {
        self.unit.dirty += 1;
        self.unit.note_changed();
        let before = self.keyspace().replace_libraries(libraries);
        if self.unit.remembers() {
            self.unit.undo.steps.push(Step::Libraries(before));
        }
    }

    /// Rolls back every change of the running command, which failed, except the removal of expired keys.
    pub fn roll_back(&mut self) {
        self.roll_back_to(self.unit.start());
    }

    /// Rolls back everything since the savepoint, and drops its records and events. The shards of all its keys are
    /// held.
    pub fn roll_back_to(&mut self, savepoint: Savepoint) {
        let shards = self.unit.truncate(savepoint);
        self.step_back(&shards);
        let mut undo = std::mem::take(&mut self.unit.undo);
        while undo.len() > savepoint.undo {
            if let Some(step) = undo.steps.pop() {
                self.take_back(&undo, step);
            }
        }
        undo.forget_names();
        self.unit.undo = undo;
    }

    /// Takes back the sequence numbers of the last records of these shards.
    fn step_back(&mut self, shards: &[u16]) {
        shards.iter().for_each(|shard| self.held.shard(*shard).sequence -= 1);
    }

    /// Drops the records of the running command, including a partial one, and records the whole state of these keys
    /// instead, for a command that has panicked and whose change stands.
    pub fn log_states_instead<'k>(&mut self, keys: impl Iterator<Item = Key<'k>>) {
        let shards = self.unit.truncate_records(self.unit.start());
        self.step_back(&shards);
        keys.for_each(|key| self.log_whole_state(key));
    }

    fn take_back(&mut self, undo: &UndoLog, step: Step) {
        match step {
            Step::Key { db, hash, key, prior } => {
                let key = Key { bytes: undo.part(key), hash };
                let mut directory = self.held.shard(key.shard()).directory_mut(db);
                let displaced = match prior {
                    None => directory.remove(key.hash, key.bytes),
                    Some(Prior { body, expiry, access, is_blessed }) => {
                        let value = match body {
                            PriorBody::Int(number) => NewValue::Int(number),
                            PriorBody::Inline(part) => NewValue::Bytes(undo.part(part)),
                            PriorBody::Packed(packing, part) => NewValue::Packed(packing, undo.part(part)),
                            PriorBody::Heap(heap) => NewValue::Heap(heap),
                        };
                        let displaced = directory.set(key.hash, key.bytes, value, expiry, access);
                        directory.bless(key.hash, key.bytes, is_blessed);
                        displaced
                    }
                };
                let earliest = directory.earliest_expiry();
                drop(directory);
                if let Some(heap) = displaced.and_then(|displaced| displaced.heap) {
                    self.retire(heap);
                }
                self.note_expiry(key, earliest);
            }
            Step::Version { shard, db, key, version } => {
                self.held.shard(shard).watched.set_version(db, undo.part(key), version);
            }
            Step::Flush { shard: number, db, directory } => {
                let keyspace = self.keyspace();
                let shard = self.held.shard(number);
                let displaced = shard.put_directory(db, directory);
                keyspace.renew_earliest_expiry(number, shard);
                self.unit.retired_directories.extend(displaced);
            }
            Step::Swap { one, other } => {
                (0..SHARDS as u16).for_each(|number| self.held.shard(number).swap(one, other));
            }
            Step::Libraries(libraries) => drop(self.keyspace().replace_libraries(libraries)),
            Step::Graveyard(graveyard) => *self.keyspace().graveyard() = *graveyard,
        }
    }
}
