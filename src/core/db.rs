//! The keys of one database, as a command handler sees them: locked, without expired keys, with changes counted and
//! effects on their way to the log.
//!
//! Invariants:
//! - All mutation of the keyspace by commands goes through here: one place raises watched versions,
//!   counts changes, lowers expiry bounds and remembers what to undo.
//! - An expired key is never seen. Its removal is logged before anything that the command logs.
//! - A single-key command changes its key as its last step that can fail. A command of several keys may change them
//!   one by one, because each change is remembered and undone if the command fails: `undo.rs`.
//! - The [`Unit`] of which the command is a part commits or rolls back all of this.

use super::undo::raise_version;
use super::unit::{Scratch, Unit};
use crate::base::config::{NotifyFlags, RdbVersionCheck};
use crate::core::CommandError;
use crate::core::stored_string::{StringRef, string_of};
use crate::keyspace::access::AccessClock;
use crate::keyspace::counts::DirectoryMut;
use crate::keyspace::{EntryRef, Held, Key, Keyspace, NewValue, Place, Shard, ValueRef};
use crate::persist::verbs::{BarrierWriter, RecordWriter};
use crate::value::entry::{EXPIRY_MAX, Heap};
use crate::value::hash::{AnyHash, HashMut};
use crate::value::stream::Window;
use crate::value::{Collection, Finished, Limits, Stored};

/// A heap value of at least this many bytes is freed by another thread, and is not written to the log when it is only
/// renamed.
pub const LARGE_MIN_BYTES: usize = 64 * 1024;

/// How many lags of expired keys a group of commands or a sweep notes.
const EXPIRY_LAGS_MAX: usize = 1024;

/// What does not change while a command runs.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Unix time in milliseconds.
    pub now: i64,
    /// How access fields are kept.
    pub access: AccessClock,
    /// `proto-max-bulk-len`: the longest string, in bytes.
    pub string_max_bytes: u64,
    /// `hll-sparse-max-bytes`: the longest sparse HyperLogLog.
    pub hll_sparse_max_bytes: usize,
    /// The sizes at which collections change their form.
    pub limits: Limits,
    /// `stream-idmp-duration` and `stream-idmp-maxsize`: the window of a stream that has none of its own.
    pub stream_window: Window,
    /// Whether cluster clients are served: there is one database, and keys of one command are in one slot.
    pub cluster: bool,
    /// How many bytes a command may add beyond its arguments before it must ask: see [`Db::needs_room`].
    pub growth_max: u64,
    /// Whether the log is being replayed, or these are commands of an import source: nothing expires.
    pub replaying: bool,
    /// Whether reads leave expired keys where they are and do not see them: in a pause, and while data is imported.
    pub hides_expired: bool,
    /// Whether reads leave access times unchanged (`CLIENT NO-TOUCH`, `OBJECT` and the like).
    pub no_touch: bool,
    /// Whether the connection is a subscriber in RESP2: [`Client::only_listens`](crate::core::Client::only_listens).
    pub only_listens: bool,
    /// For how long a flush can be undone, in milliseconds; 0: not at all.
    pub flush_undo_ms: u64,
    /// Whether Valkey is followed where Redis and Valkey cannot both be: `compatibility-mode`.
    pub as_valkey: bool,
    /// Which versions of payloads RESTORE takes: `rdb-version-check`.
    pub rdb_versions: RdbVersionCheck,
}

impl Facts {
    /// What expires at this time or before is not seen, Unix ms: nothing if nothing expires.
    #[inline]
    pub fn seen_at(&self) -> i64 {
        if self.replaying { 0 } else { self.now }
    }
}

/// One database, as seen by one command.
#[derive(Debug)]
pub struct Db<'a> {
    pub(super) held: Held<'a>,
    pub(super) unit: &'a mut Unit,
    scratch: &'a mut Scratch,
    pub(super) index: u32,
    pub(super) facts: &'a Facts,
    /// Whether reads leave the access time unchanged.
    no_touch: bool,
    /// Whether expired keys are left where they are.
    hides_expired: bool,
    /// Whether the edit does not count as a change for WATCH: see [`Db::edit_unwatched`].
    unwatched: bool,
}

impl<'a> Db<'a> {
    /// The database `index` through the locks in `held`.
    #[inline]
    pub fn new(held: Held<'a>, unit: &'a mut Unit, scratch: &'a mut Scratch, index: u32, facts: &'a Facts) -> Self {
        Db {
            held,
            unit,
            scratch,
            index,
            facts,
            no_touch: facts.no_touch,
            hides_expired: facts.hides_expired,
            unwatched: false,
        }
    }

    /// See [`Facts::only_listens`].
    pub fn only_listens(&self) -> bool {
        self.facts.only_listens
    }

    /// The same, for a command that writes: expired keys are removed in any case.
    #[inline]
    pub fn for_writing(self) -> Self {
        Db { hides_expired: false, ..self }
    }

    /// The same, for a command whose reads leave access times unchanged, or that writes: see [`Db::for_writing`].
    #[inline]
    pub fn for_command(self, no_touch: bool, writes: bool) -> Self {
        Db { no_touch: self.no_touch || no_touch, hides_expired: self.hides_expired && !writes, ..self }
    }

    /// The underlying keyspace, for walks.
    pub fn keyspace(&self) -> &'a Keyspace {
        self.held.keyspace()
    }

    /// For a command of several keys that turns out to have one, which it changes as the last step that can fail:
    /// nothing is remembered for undo.
    pub fn change_one(&mut self) {
        self.unit.set_undoable(false);
    }

    /// For a command of one key that turns out to change it in several places: each of its changes is remembered.
    pub fn change_several(&mut self) {
        self.unit.set_undoable(true);
    }

    /// What does not change while the command runs.
    pub fn facts(&self) -> &'a Facts {
        self.facts
    }

    /// The database's number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Asks for room for what a command adds beyond its arguments, before it changes anything.
    ///
    /// # Errors
    /// There may be too little. The executor finds room, and runs the command again.
    #[inline]
    pub fn needs_room(&self, bytes: usize) -> Result<(), CommandError> {
        let bytes = bytes as u64;
        if bytes > self.facts.growth_max { Err(CommandError::NeedsRoom(bytes)) } else { Ok(()) }
    }

    /// The access field of a key that is written now: under an LFU policy, the counter of the old value goes on.
    #[inline]
    fn written(&mut self, key: Key<'_>) -> u32 {
        match self.facts.access.lfu {
            None => self.facts.access.fresh(),
            Some(_) => self.written_often(key),
        }
    }

    #[cold]
    fn written_often(&mut self, key: Key<'_>) -> u32 {
        let entry = self.held.shard(key.shard()).directory(self.index).and_then(|d| d.get(key.hash, key.bytes));
        let clock = self.facts.access;
        entry.map_or_else(|| clock.fresh(), |entry| clock.written(entry.access(), random))
    }

    /// Works on another database until the next call; the shards held serve all databases.
    pub fn select(&mut self, index: u32) {
        self.index = index;
    }

    /// Releases the locks taken on demand, for a walk over shards.
    pub fn release(&mut self) {
        self.held.release();
    }

    /// The entry of a key, for reading its value: counts a hit or a miss, sets the access time, and tells of a miss.
    #[inline]
    pub fn read(&mut self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let Some(place) = self.find(key, !self.no_touch) else {
            self.scratch.misses += 1;
            self.notify(NotifyFlags::KEY_MISS, "keymiss", key);
            return None;
        };
        self.scratch.hits += 1;
        self.entry_at(key, place)
    }

    /// The same for commands about a key, which tell nobody that it is missing.
    pub fn look_up(&mut self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let place = self.find(key, !self.no_touch);
        let counter = if place.is_some() { &mut self.scratch.hits } else { &mut self.scratch.misses };
        *counter += 1;
        self.entry_at(key, place?)
    }

    /// The entry of a key, without side effects: for writes, and for queries about the key itself.
    #[inline]
    pub fn peek(&mut self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let place = self.find(key, false)?;
        self.entry_at(key, place)
    }

    /// The place of a key's entry. An expired key is removed. If the key is to be touched, its access time is set.
    #[inline]
    fn find(&mut self, key: Key<'_>, touch: bool) -> Option<Place> {
        let shard = self.held.shard(key.shard());
        let directory = shard.directory(self.index)?;
        let place = directory.find(key.hash, key.bytes)?;
        let entry = directory.entry_at(place);
        if entry.expiry().is_some_and(|expiry| expiry <= self.facts.now as u64) && !self.facts.replaying {
            if !self.hides_expired {
                self.expire(key);
            }
            return None;
        }
        if touch {
            let old = entry.access();
            let new = self.facts.access.touched(old, random);
            // An unchanged field is not written, so the cache line stays clean.
            if new != old
                && let Some(directory) = shard.directory_unshared(self.index)
            {
                directory.set_access_at(place, new);
            }
        }
        Some(place)
    }

    #[inline]
    fn entry_at(&mut self, key: Key<'_>, place: Place) -> Option<EntryRef<'_>> {
        Some(self.held.shard(key.shard()).directory(self.index)?.entry_at(place))
    }

    /// The string at a key, for reading.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] if the key holds something else.
    #[inline]
    pub fn string(&mut self, key: Key<'_>) -> Result<Option<StringRef<'_>>, CommandError> {
        self.read(key).map(string_of).transpose()
    }

    /// The string at a key, about to be changed.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] if the key holds something else.
    #[inline]
    pub fn string_to_change(&mut self, key: Key<'_>) -> Result<Option<StringRef<'_>>, CommandError> {
        self.peek(key).map(string_of).transpose()
    }

    /// Whether a key exists.
    #[inline]
    pub fn exists(&mut self, key: Key<'_>) -> bool {
        self.peek(key).is_some()
    }

    /// Sets the access time of a key to now. Returns whether there is such a key.
    pub fn touch(&mut self, key: Key<'_>) -> bool {
        self.find(key, true).is_some()
    }

    /// Sets the access field of a key that exists.
    pub fn set_access(&mut self, key: Key<'_>, access: u32) {
        let directory = self.held.shard(key.shard()).values_mut(self.index);
        if let Some(place) = directory.find(key.hash, key.bytes) {
            directory.set_access_at(place, access);
        }
    }

    /// Whether an existing key is protected from eviction.
    pub fn is_blessed(&mut self, key: Key<'_>) -> bool {
        let directory = self.held.shard(key.shard()).directory(self.index);
        directory.is_some_and(|directory| directory.is_blessed(key.hash, key.bytes))
    }

    /// Protects an existing key from eviction, or ends that. Returns whether anything has changed.
    pub fn bless(&mut self, key: Key<'_>, on: bool) -> bool {
        if self.is_blessed(key) == on {
            return false;
        }
        self.remember(key);
        self.changing(key).bless(key.hash, key.bytes, on)
    }

    /// Stores a value with its expiry (Unix ms; `None` for none), replacing any old value. Protection from eviction
    /// belongs to the key: it stays.
    pub fn set(&mut self, key: Key<'_>, value: NewValue<'_>, expiry: Option<i64>) {
        if self.held.shard(key.shard()).directory(self.index).is_some_and(|d| d.blessed().is_some()) {
            // An expired key is gone, and its protection with it: it must not pass to the new one.
            self.exists(key);
        }
        self.remember(key);
        let access = self.written(key);
        let expiry = expiry.map(expiry_bits);
        let (previous, earliest) = {
            let mut directory = self.changing(key);
            (directory.set(key.hash, key.bytes, value, expiry, access), directory.earliest_expiry())
        };
        let is_new = previous.is_none();
        if let Some(heap) = previous.and_then(|displaced| displaced.heap) {
            self.retire(heap);
        }
        self.note_expiry(key, earliest);
        if is_new {
            self.notify(NotifyFlags::NEW, "new", key);
        }
    }

    /// Lowers the bound of the key's shard to that of its directory.
    #[inline]
    pub(super) fn note_expiry(&self, key: Key<'_>, earliest: Option<u64>) {
        if let Some(at) = earliest {
            self.held.keyspace().note_expiry(key.shard(), at);
        }
    }

    /// Removes a key. Returns whether it existed.
    pub fn remove(&mut self, key: Key<'_>) -> bool {
        self.exists(key) && self.remove_known(key)
    }

    /// Removes an existing key.
    fn remove_known(&mut self, key: Key<'_>) -> bool {
        self.remember(key);
        let removed = self.changing(key).remove(key.hash, key.bytes);
        if let Some(heap) = removed.and_then(|removed| removed.heap) {
            self.retire(heap);
        }
        true
    }

    /// Sets or clears the expiry of an existing key (Unix ms).
    pub fn set_expiry(&mut self, key: Key<'_>, expiry: Option<i64>) {
        self.remember(key);
        let (expiry, access) = (expiry.map(expiry_bits), self.written(key));
        let mut directory = self.changing(key);
        directory.set_expiry(key.hash, key.bytes, expiry);
        if let Some(place) = directory.find(key.hash, key.bytes) {
            directory.set_access_at(place, access);
        }
        drop(directory);
        if let Some(expiry) = expiry {
            self.held.keyspace().note_expiry(key.shard(), expiry);
        }
    }

    /// The string at an existing key, as bytes to change in place. All checks must be done: a command of one key
    /// undoes this change only with its whole unit.
    pub fn raw_mut(&mut self, key: Key<'_>) -> Option<&mut Vec<u8>> {
        self.remember(key);
        let (index, access) = (self.index, self.written(key));
        let directory = self.changing_shard(key).values_mut(index);
        if let Some(place) = directory.find(key.hash, key.bytes) {
            directory.set_access_at(place, access);
        }
        directory.raw_mut(key.hash, key.bytes)
    }

    /// Gives the string at an existing key the growable form, with the same bytes. The value does not change, so this
    /// is neither counted nor logged.
    pub fn make_growable(&mut self, key: Key<'_>) {
        self.remember(key);
        self.held.shard(key.shard()).values_mut(self.index).raw_mut(key.hash, key.bytes);
    }

    /// The collection at a key, for reading.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] if the key holds something else.
    #[inline]
    pub fn view<C: Collection>(&mut self, key: Key<'_>) -> Result<Option<C::Ref<'_>>, CommandError> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => C::view(entry.value()).map(Some).ok_or(CommandError::WrongType),
        }
    }

    /// The collection at a key that [`Db::view`] has read before. This one borrows the database immutably, so that
    /// several collections can be read together.
    #[inline]
    pub fn viewed<C: Collection>(&self, key: Key<'_>) -> Option<C::Ref<'_>> {
        let directory = self.held.locked(key.shard())?.directory(self.index)?;
        C::view(directory.get(key.hash, key.bytes)?.value())
    }

    /// The same without side effects: no hit or miss is counted, and no access time is set.
    ///
    /// # Errors
    /// As [`Db::view`].
    #[inline]
    pub fn peek_view<C: Collection>(&mut self, key: Key<'_>) -> Result<Option<C::Ref<'_>>, CommandError> {
        match self.peek(key) {
            None => Ok(None),
            Some(entry) => C::view(entry.value()).map(Some).ok_or(CommandError::WrongType),
        }
    }

    /// Edits the collection at a key, or an empty one if there is none. The key's expiry stays. `edit` returns its
    /// result and how many changes it has made: with none, nothing is stored or signalled. A collection that becomes
    /// empty is removed with its key.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] if the key holds something else; and the error of `edit`, which must then not have
    /// changed anything.
    pub fn edit<C: Collection, R>(
        &mut self,
        key: Key<'_>,
        edit: impl FnOnce(&mut C::Mut<'_>) -> Result<(R, u64), CommandError>,
    ) -> Result<R, CommandError> {
        let limits = &self.facts.limits;
        let mut bytes = std::mem::take(&mut self.scratch.spare);
        bytes.clear();
        let stored = match self.peek(key).map(|entry| (entry.kind(), entry.value())) {
            None => Stored::Missing(bytes),
            Some((kind, _)) if !C::is(kind) => {
                self.scratch.spare = bytes;
                return Err(CommandError::WrongType);
            }
            Some((_, ValueRef::Packed(packing, packed))) => {
                bytes.extend_from_slice(&packed);
                Stored::Packed(packing, bytes)
            }
            Some(_) => {
                self.scratch.spare = bytes;
                return self.edit_large::<C, R>(key, edit);
            }
        };
        let existed = !matches!(stored, Stored::Missing(_));
        let mut edited = C::edit(stored, limits).ok_or(CommandError::WrongType)?;
        let (result, changes) = edit(&mut edited)?;
        let finished = C::finish(edited);
        if changes > 0 {
            match finished {
                Finished::Empty if existed => drop(self.remove_known(key)),
                Finished::Empty | Finished::InPlace => {}
                Finished::Packed(packing, bytes) => {
                    self.put(key, NewValue::Packed(packing, &bytes));
                    self.scratch.spare = bytes;
                }
                Finished::Large(heap) => self.put(key, NewValue::Heap(heap)),
            }
            // The change of the key was already counted as one.
            self.unit.dirty += changes - 1;
        } else if let Finished::Packed(_, bytes) = finished {
            self.scratch.spare = bytes;
        }
        Ok(result)
    }

    /// The same for an edit of what a large collection has besides its elements, such as the groups of a stream. For
    /// transactions that WATCH the key, this is not a change unless it creates or removes the key.
    ///
    /// # Errors
    /// As [`Db::edit`].
    pub fn edit_unwatched<C: Collection, R>(
        &mut self,
        key: Key<'_>,
        edit: impl FnOnce(&mut C::Mut<'_>) -> Result<(R, u64), CommandError>,
    ) -> Result<R, CommandError> {
        self.unwatched = true;
        let result = self.edit::<C, R>(key, edit);
        self.unwatched = false;
        result
    }

    /// Marks a key as changed for transactions that WATCH it, for when [`Db::edit_unwatched`] has changed more than
    /// expected.
    pub fn note_watched(&mut self, key: Key<'_>) {
        if self.held.keyspace().is_observed() {
            self.unit.note_touched(key);
        }
        let shard = self.held.shard(key.shard());
        if shard.watched.is_any() {
            raise_version(self.unit, shard, self.index, key);
        }
    }

    /// Edits a large collection in place.
    fn edit_large<C: Collection, R>(
        &mut self,
        key: Key<'_>,
        edit: impl FnOnce(&mut C::Mut<'_>) -> Result<(R, u64), CommandError>,
    ) -> Result<R, CommandError> {
        self.remember(key);
        let (limits, access) = (&self.facts.limits, self.written(key));
        let index = self.index;
        self.unit.note_changed();
        let is_observed = self.held.keyspace().is_observed();
        let shard = self.held.shard(key.shard());
        let directory = shard.values_mut(index);
        let elements_expire = match directory.elementwise_len() {
            0 => None,
            _ => directory.get(key.hash, key.bytes).and_then(|entry| entry.value_expiry()),
        };
        let heap = directory.heap_mut(key.hash, key.bytes);
        let heap = heap.expect("a large collection is a payload that can be changed");
        let mut edited = C::edit(Stored::Large(heap), limits).ok_or(CommandError::WrongType)?;
        // Counted beforehand: if the edit panics, its partial changes stand, and the log must hold them.
        self.unit.dirty += 1;
        let edit = edit(&mut edited);
        self.unit.dirty -= 1;
        let (result, changes) = edit?;
        let finished = C::finish(edited);
        if changes == 0 {
            return Ok(result);
        }
        if !self.unwatched || matches!(finished, Finished::Empty) {
            if is_observed {
                self.unit.note_touched(key);
            }
            if shard.watched.is_any() {
                raise_version(self.unit, shard, index, key);
            }
        }
        self.unit.dirty += changes;
        let mut directory = shard.directory_mut(index);
        if let Some(place) = directory.find(key.hash, key.bytes) {
            directory.set_access_at(place, access);
            directory.note_elements(place, elements_expire);
        }
        let displaced = match finished {
            Finished::Empty => directory.remove(key.hash, key.bytes),
            Finished::InPlace => None,
            Finished::Packed(packing, bytes) => {
                directory.set_value(key.hash, key.bytes, NewValue::Packed(packing, &bytes), access)
            }
            Finished::Large(heap) => directory.set_value(key.hash, key.bytes, NewValue::Heap(heap), access),
        };
        let earliest = directory.earliest_expiry();
        drop(directory);
        if let Some(heap) = displaced.and_then(|displaced| displaced.heap) {
            self.retire(heap);
        }
        self.note_expiry(key, earliest);
        Ok(result)
    }

    /// Stores a value and keeps the key's expiry.
    fn put(&mut self, key: Key<'_>, value: NewValue<'_>) {
        self.remember(key);
        let access = self.written(key);
        let (previous, earliest) = {
            let mut directory = self.changing(key);
            (directory.set_value(key.hash, key.bytes, value, access), directory.earliest_expiry())
        };
        self.note_expiry(key, earliest);
        let is_new = previous.is_none();
        if let Some(heap) = previous.and_then(|displaced| displaced.heap) {
            self.retire(heap);
        }
        if is_new {
            self.notify(NotifyFlags::NEW, "new", key);
        }
    }

    /// Begins a record of what has become of `key`, which replays without reading any other key. A method of the
    /// writer writes the verb. Nothing is written if no log is wanted.
    #[inline]
    pub fn record<'w>(&'w mut self, key: Key<'w>) -> RecordWriter<'w> {
        self.unit.note_logged();
        if !self.unit.is_logging() {
            return RecordWriter::unwanted();
        }
        let number = key.shard();
        let shard = self.held.shard(number);
        shard.sequence += 1;
        self.unit.sequenced.push(number);
        RecordWriter::new(&mut self.unit.records, number, shard.sequence, self.index, key.bytes)
    }

    /// Begins the single record of a command that tells what has become of several keys at once: of all shards, or of
    /// two keys between which a large value moved, whose state would take long to write under the locks and to read
    /// again. A replay waits for all shards there.
    pub fn barrier(&mut self) -> BarrierWriter<'_> {
        let index = self.index;
        match self.unit.barrier() {
            Some(encoded) => BarrierWriter::new(encoded, index),
            None => BarrierWriter::unwanted(),
        }
    }

    /// Writes records of the whole state of a key: its value, expiry and protection, or that it is gone.
    pub fn log_whole_state(&mut self, key: Key<'_>) {
        self.log_state(key);
        let on = self.is_blessed(key);
        if on
            || self.held.shard(key.shard()).directory(self.index).is_some_and(|d| d.get(key.hash, key.bytes).is_some())
        {
            self.record(key).bless(on);
        }
    }

    /// Writes a record of the state of a key: its value and expiry, or that it is gone.
    pub fn log_state(&mut self, key: Key<'_>) {
        self.unit.note_logged();
        if !self.unit.is_logging() {
            return;
        }
        let number = key.shard();
        let shard = self.held.shard(number);
        shard.sequence += 1;
        self.unit.sequenced.push(number);
        let seq = shard.sequence;
        let entry = shard.directory(self.index).and_then(|d| d.get(key.hash, key.bytes));
        let record = RecordWriter::new(&mut self.unit.records, number, seq, self.index, key.bytes);
        match entry {
            None => record.delete(),
            Some(entry) => record.set_value(entry.value(), entry.expiry()),
        }
    }

    /// The directory of a key that is about to change, after everything that a change requires.
    #[inline]
    fn changing(&mut self, key: Key<'_>) -> DirectoryMut<'_> {
        let index = self.index;
        self.changing_shard(key).directory_mut(index)
    }

    /// The same for its shard.
    #[inline]
    fn changing_shard(&mut self, key: Key<'_>) -> &mut Shard {
        self.unit.dirty += 1;
        self.unit.note_changed();
        if self.held.keyspace().is_observed() {
            self.unit.note_touched(key);
        }
        let shard = self.held.shard(key.shard());
        if shard.watched.is_any() {
            raise_version(self.unit, shard, self.index, key);
        }
        shard
    }

    pub(super) fn retire(&mut self, heap: Heap) {
        if heap.bytes() >= LARGE_MIN_BYTES {
            self.unit.retired.push(heap);
        }
    }

    /// Has the executor remove expired keys once the command has ended, unless such are left where they are.
    pub fn leave_expired(&mut self, keys: Vec<Box<[u8]>>) {
        if !self.hides_expired {
            let index = self.index;
            self.scratch.met_expired.extend(keys.into_iter().map(|key| (index, key)));
        }
    }

    /// Removes an expired key and logs it, whatever the outcome of the command. It does not count as a change,
    /// because no client made it.
    pub fn expire(&mut self, key: Key<'_>) {
        let (marks, firm) = (self.unit.marks(), self.unit.is_firm());
        if !firm {
            self.remember(key);
        }
        let removed = self.changing(key).remove(key.hash, key.bytes);
        if let Some(deadline) = removed.as_ref().and_then(|removed| removed.expiry)
            && self.scratch.expiry_lags_ms.len() < EXPIRY_LAGS_MAX
        {
            self.scratch.expiry_lags_ms.push((self.facts.now.max(0) as u64).saturating_sub(deadline));
        }
        if let Some(heap) = removed.and_then(|removed| removed.heap) {
            self.retire(heap);
        }
        self.scratch.expired += 1;
        self.note_vanished(key);
        self.notify(NotifyFlags::EXPIRED, "expired", key);
        self.record(key).delete();
        self.end_expiry(marks, firm);
    }

    /// An expiry is not a change of the command. If the command has not changed anything yet, the removal stands.
    fn end_expiry(&mut self, marks: (bool, bool, u64), firm: bool) {
        self.unit.set_marks(marks);
        if firm {
            self.unit.stand_firm();
        }
    }

    /// Notes that a key is gone that no command has removed, for those who wait for it or have cached it.
    pub fn note_vanished(&mut self, key: Key<'_>) {
        self.unit.note_by_nobody();
        let waiters = &self.held.shard(key.shard()).waiters;
        if !waiters.is_empty() && waiters.any(self.index, key.bytes) {
            self.unit.vanished.push((self.index, key.bytes.into()));
        }
    }

    /// Removes expired fields of the hash at a key, which `take` removes and returns, and logs it, whatever the
    /// outcome of the command. Returns how many they were.
    pub fn expire_fields(&mut self, key: Key<'_>, take: impl FnOnce(&mut HashMut<'_>, u64) -> Vec<Box<[u8]>>) -> usize {
        let now = self.facts.now.max(0) as u64;
        let (marks, firm) = (self.unit.marks(), self.unit.is_firm());
        // A firm removal is not undone: otherwise the fields would come back, and the log would not say so.
        let undoable = self.unit.is_undoable();
        self.unit.set_undoable(undoable && !firm);
        let removed = self.edit::<AnyHash, _>(key, |hash| {
            let removed = take(hash, now);
            let changes = removed.len() as u64;
            Ok((removed, changes))
        });
        self.unit.set_undoable(undoable);
        let removed = removed.unwrap_or_default();
        if !removed.is_empty() {
            self.unit.note_by_nobody();
            self.scratch.expired_fields += removed.len() as u64;
            self.record(key).hash_delete(removed.iter().map(|field| &field[..]));
            self.notify_fields("hexpired", key, removed.iter().map(|field| &field[..]));
            self.notify_if_gone(key);
        }
        self.end_expiry(marks, firm);
        removed.len()
    }

    /// The changes counted so far, for [`Db::count_as`].
    pub fn changes(&self) -> u64 {
        self.unit.dirty
    }

    /// Counts everything since `before`, a reading of [`Db::changes`], as this many changes. A command does not
    /// always make one change per key.
    pub fn count_as(&mut self, before: u64, changes: u64) {
        self.unit.dirty = before + changes;
    }

    /// Whether the collection at `key` may hold expired elements that are not removed yet.
    #[inline]
    pub fn may_hold_expired(&self, key: Key<'_>) -> bool {
        !self.facts.replaying && self.held.keyspace().earliest_expiry(key.shard()) <= self.facts.now.max(0) as u64
    }

    /// The shards, for handlers that work on all of them behind the gate.
    #[inline]
    pub fn held(&mut self) -> &mut Held<'a> {
        &mut self.held
    }

    /// The unit of work that the command belongs to.
    #[inline]
    pub fn unit(&mut self) -> &mut Unit {
        self.unit
    }
}

/// Feeds the probabilistic counter of frequency.
fn random() -> u32 {
    crate::base::random::with(|r| r.next_u64() as u32)
}

/// An expiry as entries store it: 48 bits, not negative. A later time (after the year 10889) becomes the last
/// possible one.
fn expiry_bits(at: i64) -> u64 {
    u64::try_from(at).unwrap_or(0).min(EXPIRY_MAX)
}
