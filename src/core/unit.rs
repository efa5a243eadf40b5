//! A unit of work: everything that one command, one transaction or one script does to the keyspace, until it is
//! committed or rolled back.
//!
//! ```text
//! begin(wants) ── command ── command ── … ── commit: records to the log under the locks, in one block;
//!                    │                               then, after the unlock, events to those who listen
//!                    ├─ fails or panics: back to the savepoint at its beginning
//!                    └─ or the whole unit: back to where it began
//! ```
//!
//! A unit holds the undo steps, the records and barriers for the log in order, the events, the count of changes, and
//! what was taken out of the keyspace and is to be freed. What a worker only reuses or adds up is kept apart:
//! [`Scratch`]. `undo.rs` shows how changes are remembered and rolled back.
//!
//! Invariants:
//! - What is wanted is declared at the beginning: see [`Wants`]. Nothing else is encoded or kept. Whether anything
//!   has changed is a flag of its own and is never derived from a buffer.
//! - Nothing after a savepoint that was rolled back to is logged or published, except that a key was missing when the
//!   command looked for it.
//! - If a command removes an expired key before it has changed anything, the removal stands even if the command
//!   fails: the savepoint at the command's beginning moves behind it. Only a unit that can be rolled back as a whole
//!   undoes it, too. The key is then as invisible as before.
//! - A command of one key changes it as the last step that can fail, and remembers nothing. In a unit that can be
//!   rolled back as a whole, it remembers what the key was when the unit began.

use crate::base::config::NotifyFlags;
use crate::core::key_events::Event;
use crate::core::undo::UndoLog;
use crate::events::channels::Kind;
use crate::events::invalidation::Untold;
use crate::keyspace::{Directory, Key};
use crate::value::entry::Heap;

/// How much room for records is kept for the next unit.
const RECORDS_KEPT: usize = 1024;

/// What is wanted of a unit besides the change itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Records for the log.
    pub records: bool,
    /// Keyspace events of these classes; none if they are published on no channel.
    pub events: NotifyFlags,
}

/// The progress of a unit, to which [`crate::core::Db::roll_back_to`] returns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Savepoint {
    /// Bytes and number of the records, and the number of barriers.
    pub(super) record_bytes: usize,
    pub(super) records: usize,
    pub(super) barriers: usize,
    pub(super) events: usize,
    pub(super) undo: usize,
    pub(super) vanished: usize,
    pub(super) touched: usize,
    pub(super) dirty: u64,
    changed: bool,
}

/// What has changed, for those who may have cached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// A key.
    Key {
        /// The key.
        key: Box<[u8]>,
        /// Its hash.
        hash: u64,
        /// Whether a command has changed it; otherwise it has expired or was evicted.
        by_command: bool,
    },
    /// All keys.
    All,
}

/// An effect on several shards, or on all, among the records of a unit.
#[derive(Debug)]
pub struct Barrier {
    /// How many bytes of records precede it.
    pub at: usize,
    /// Its encoded record.
    pub encoded: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Unit {
    wants: Wants,
    /// Whether the running command can be rolled back alone, so that each of its changes is remembered.
    undoable: bool,
    /// Whether the unit can be rolled back as a whole, so that the first change of each key is remembered.
    is_whole: bool,
    /// Whether the unit spans several commands, and is open.
    spans: bool,
    /// Whether the running command has changed something, expiry apart,
    changed: bool,
    /// and whether it has recorded that for the log.
    logged: bool,
    /// Whether one of the commands before it has done either.
    changed_before: bool,
    /// Where the running command has begun.
    start: Savepoint,
    /// Encoded records.
    pub(super) records: Vec<u8>,
    /// The shard of each record.
    pub(super) sequenced: Vec<u16>,
    pub(super) undo: UndoLog,
    /// Changes made.
    pub(super) dirty: u64,
    /// Whether everything was removed.
    pub(super) flushed_all: bool,
    barriers: Vec<Barrier>,
    events: Vec<Event>,
    /// Whether events were posted that are not told yet.
    pub posted: bool,
    /// What has changed, while anybody wants to know.
    touched: Vec<Touched>,
    /// Whom to tell of earlier changes. It outlasts the unit.
    pub untold: Untold,
    /// Large values to be freed elsewhere.
    pub retired: Vec<Heap>,
    /// Whole directories to be freed elsewhere: flushed databases.
    pub retired_directories: Vec<triomphe::Arc<Directory>>,
    /// Keys with waiters that have expired or were evicted, with their databases. The code that removed them must
    /// tell the waiters.
    pub vanished: Vec<(u32, Box<[u8]>)>,
}

/// What a worker reuses and adds up, apart from the units that it runs.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A reused buffer in which a small collection is edited.
    pub spare: Vec<u8>,
    /// Changes of the units that have ended.
    pub dirty: u64,
    /// Whether one of them has removed everything.
    pub flushed_all: bool,
    /// Lookups that found their key, and those that did not, for reads.
    pub hits: u64,
    /// See `hits`.
    pub misses: u64,
    /// Keys that had expired.
    pub expired: u64,
    /// Fields of hashes that had expired.
    pub expired_fields: u64,
    /// How long after their deadline the last of these keys were removed, in milliseconds.
    pub expiry_lags_ms: Vec<u64>,
    /// Expired keys that a walk has met and that are to be removed, with their databases.
    pub met_expired: Vec<(u32, Box<[u8]>)>,
}

impl Unit {
    /// Begins a unit of one command. `undoable` says whether it can be rolled back.
    #[inline]
    pub fn begin(&mut self, wants: Wants, undoable: bool) {
        if self.spans || !self.barriers.is_empty() || !self.events.is_empty() {
            self.clear_rare();
        }
        self.wants = wants;
        self.records.clear();
        self.sequenced.clear();
        self.undo.clear();
        self.dirty = 0;
        self.start = Savepoint { vanished: self.vanished.len(), ..Savepoint::default() };
        self.set_out(undoable);
    }

    #[cold]
    fn clear_rare(&mut self) {
        (self.spans, self.is_whole, self.changed_before) = (false, false, false);
        self.barriers.clear();
        self.events.clear();
    }

    /// Begins a unit of several commands, each of which begins with [`Unit::begin_command`]. `is_whole` says whether
    /// the unit can be rolled back as a whole.
    pub fn begin_spanning(&mut self, wants: Wants, is_whole: bool) {
        self.begin(wants, false);
        self.clear_rare();
        (self.spans, self.is_whole) = (true, is_whole);
    }

    /// Begins the next command of a unit of several.
    pub fn begin_command(&mut self, undoable: bool) {
        debug_assert!(self.spans, "a unit of several commands");
        self.changed_before = self.has_changed();
        if !self.is_whole {
            self.undo.clear();
        }
        self.start = self.position();
        self.set_out(undoable);
    }

    #[inline]
    fn set_out(&mut self, undoable: bool) {
        self.undoable = undoable;
        self.changed = false;
        self.logged = false;
    }

    /// Ends the unit, or one of its commands: the undo steps are dropped, unless the unit can be rolled back as a
    /// whole. Otherwise the freeing thread would not be the last owner of removed values, and the next command would
    /// free them here.
    #[inline]
    pub fn end(&mut self, scratch: &mut Scratch) {
        if self.spans {
            if !self.is_whole {
                self.undo.clear();
            }
            return;
        }
        scratch.dirty += std::mem::take(&mut self.dirty);
        if self.flushed_all {
            (self.flushed_all, scratch.flushed_all) = (false, true);
        }
        self.undo.clear();
        if self.sequenced.capacity() > RECORDS_KEPT {
            self.sequenced = Vec::new();
        }
    }

    /// Ends a unit of several commands, which is committed or rolled back.
    pub fn end_spanning(&mut self, scratch: &mut Scratch) {
        self.clear_rare();
        self.end(scratch);
    }

    /// Whether the unit may still be rolled back by a later command, so that nothing may be freed yet.
    #[inline]
    pub fn is_held_whole(&self) -> bool {
        self.is_whole
    }

    /// A point to which [`crate::core::Db::roll_back_to`] can return. The unit must be one that can be rolled back as
    /// a whole.
    pub fn savepoint(&mut self) -> Savepoint {
        debug_assert!(self.is_whole, "changes are remembered");
        // Earlier changes must be remembered again.
        self.undo.forget_names();
        self.position()
    }

    /// The progress of the unit.
    pub(super) fn position(&self) -> Savepoint {
        Savepoint {
            record_bytes: self.records.len(),
            records: self.sequenced.len(),
            barriers: self.barriers.len(),
            events: self.events.len(),
            undo: self.undo.len(),
            vanished: self.vanished.len(),
            touched: self.touched.len(),
            dirty: self.dirty,
            changed: self.has_changed(),
        }
    }

    /// Where the running command has begun.
    pub(super) fn start(&self) -> Savepoint {
        self.start
    }

    /// Whether the running command has changed nothing yet, so that an expiry now stands whatever its outcome.
    #[inline]
    pub(super) fn is_firm(&self) -> bool {
        !self.changed && !self.is_whole
    }

    /// Makes everything so far stand, whatever the outcome of the running command.
    pub(super) fn stand_firm(&mut self) {
        self.start = self.position();
    }

    /// Drops the records behind a savepoint. Returns the shards whose sequence numbers go back by one each.
    pub(super) fn truncate(&mut self, to: Savepoint) -> Vec<u16> {
        // That a key was missing stays true.
        let keeps_misses = !self.is_whole;
        let mut at = 0;
        self.events.retain(|event| {
            at += 1;
            at <= to.events || (keeps_misses && event.class == NotifyFlags::KEY_MISS)
        });
        self.vanished.truncate(to.vanished);
        self.touched.truncate(to.touched);
        self.dirty = to.dirty;
        self.changed_before = to.changed;
        self.start = to;
        self.set_out(self.undoable);
        self.truncate_records(to)
    }

    /// The same for its records alone.
    pub(super) fn truncate_records(&mut self, to: Savepoint) -> Vec<u16> {
        self.records.truncate(to.record_bytes);
        self.barriers.truncate(to.barriers);
        self.sequenced.drain(to.records..).collect()
    }

    /// What is wanted of the unit.
    #[inline]
    pub fn wants(&self) -> Wants {
        self.wants
    }

    /// Whether records are wanted.
    #[inline]
    pub fn is_logging(&self) -> bool {
        self.wants.records
    }

    /// Whether the running command can be rolled back alone.
    pub fn is_undoable(&self) -> bool {
        self.undoable
    }

    /// Sets whether the running command can be rolled back alone, from now on.
    pub(super) fn set_undoable(&mut self, undoable: bool) {
        self.undoable = undoable;
    }

    /// Whether changes must be remembered.
    #[inline]
    pub(super) fn remembers(&self) -> bool {
        self.undoable || self.is_whole
    }

    /// Whether the running command, or one before it, has changed something, expiry apart.
    pub fn has_changed(&self) -> bool {
        self.changed_before || self.changed || self.logged
    }

    /// Whether the running command has changed something, expiry apart.
    pub fn command_has_changed(&self) -> bool {
        self.changed
    }

    /// Notes that something has changed.
    #[inline]
    pub(super) fn note_changed(&mut self) {
        self.changed = true;
    }

    /// Notes that the command has recorded its changes for the log.
    #[inline]
    pub(super) fn note_logged(&mut self) {
        self.logged = true;
    }

    /// Whether something has changed and was logged, for [`Unit::set_marks`], because an expiry is not a change of a
    /// command.
    pub(super) fn marks(&self) -> (bool, bool, u64) {
        (self.changed, self.logged, self.dirty)
    }

    /// See [`Unit::marks`].
    pub(super) fn set_marks(&mut self, (changed, logged, dirty): (bool, bool, u64)) {
        (self.changed, self.logged, self.dirty) = (changed, logged, dirty);
    }

    /// The buffer for an effect on several shards, or on all, behind the records so far; `None` if no records are
    /// wanted.
    pub(super) fn barrier(&mut self) -> Option<&mut Vec<u8>> {
        self.logged = true;
        if !self.wants.records {
            return None;
        }
        self.barriers.push(Barrier { at: self.records.len(), encoded: Vec::new() });
        self.barriers.last_mut().map(|barrier| &mut barrier.encoded)
    }

    /// Whether there is anything for the log.
    #[inline]
    pub fn has_records(&self) -> bool {
        !self.records.is_empty() || !self.barriers.is_empty()
    }

    /// The encoded records, and the barriers among them, for the log to take.
    #[inline]
    pub fn records(&mut self) -> (&mut Vec<u8>, &mut Vec<Barrier>) {
        (&mut self.records, &mut self.barriers)
    }

    /// Notes that a key has changed.
    #[cold]
    pub(super) fn note_touched(&mut self, key: Key<'_>) {
        let is_last = |touched: &Touched| matches!(touched, Touched::Key { key: last, .. } if **last == *key.bytes);
        if !self.touched.last().is_some_and(is_last) {
            self.touched.push(Touched::Key { key: key.bytes.into(), hash: key.hash, by_command: true });
        }
    }

    /// Notes that the last change was not made by a command.
    pub(super) fn note_by_nobody(&mut self) {
        if let Some(Touched::Key { by_command, .. }) = self.touched.last_mut() {
            *by_command = false;
        }
    }

    /// Notes that all keys have changed.
    pub(super) fn note_all_touched(&mut self) {
        self.touched.push(Touched::All);
    }

    /// Whether anything has changed that somebody may have cached.
    #[inline]
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What has changed, in order.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// Notes that a script has published a message, which is told with the events.
    pub fn note_published(&mut self, kind: Kind, channel: &[u8], text: &[u8]) {
        self.events.push(Event::published(kind, channel, text));
    }

    /// Notes an event.
    pub(super) fn note_event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The events, in order. They are taken under the locks, and told once those are released.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether there are events to be taken.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Sets which events are wanted of the commands to come: CONFIG SET inside a transaction.
    pub fn want_events(&mut self, classes: NotifyFlags) {
        self.wants.events = classes;
    }

    /// The room that is kept for the next unit, in bytes.
    #[cfg(test)]
    pub fn room_bytes(&self) -> usize {
        self.undo.room_bytes() + self.sequenced.capacity() * size_of::<u16>() + self.records.capacity()
    }

    /// Whether there are no undo steps.
    #[cfg(test)]
    pub fn remembers_nothing(&self) -> bool {
        self.undo.len() == 0
    }
}
