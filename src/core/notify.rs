//! How handlers note the events of keys: see [`key_events`](super::key_events).

use super::key_events::Event;
use crate::base::config::NotifyFlags;
use crate::core::Db;
use crate::keyspace::{Key, NewValue};
use crate::value::kind::Kind;

impl Db<'_> {
    /// Notes an event of a class of `notify-keyspace-events`. Listeners are told once the unit is committed.
    #[inline]
    pub fn notify(&mut self, class: NotifyFlags, name: &'static str, key: Key<'_>) {
        if self.unit.wants().events.contains(class) {
            self.note_event(class, name, key, Vec::new());
        }
    }

    /// The same for an event that concerns fields of the hash at the key.
    #[inline]
    pub fn notify_fields<'f>(&mut self, name: &'static str, key: Key<'_>, fields: impl Iterator<Item = &'f [u8]>) {
        let wanted = self.unit.wants().events;
        if wanted.contains(NotifyFlags::HASH) {
            let fields = if wanted.has_fields() { fields.map(Box::from).collect() } else { Vec::new() };
            self.note_event(NotifyFlags::HASH, name, key, fields);
        }
    }

    /// Stores a value with its expiry as [`Db::set`] does, for a command that tells its listeners that it replaces what
    /// was there.
    pub fn overwrite(&mut self, key: Key<'_>, value: NewValue<'_>, expiry: Option<i64>) {
        let replaced = self.kind_to_tell(key);
        self.set(key, value, expiry);
        self.notify_replaced(key, replaced);
    }

    /// Notes that a value of this kind is about to replace what is at a key, if there is anything.
    #[inline]
    pub fn note_overwriting(&mut self, key: Key<'_>, kind: Kind) {
        if self.unit.wants().events.is_any_of(NotifyFlags::REPLACING) {
            let replaced = self.kind_to_tell(key);
            self.notify_replacement(key, replaced, kind);
        }
    }

    /// What a key is that is about to be replaced, if there is anything, and somebody wants to know.
    pub fn kind_to_tell(&mut self, key: Key<'_>) -> Option<Kind> {
        if self.unit.wants().events.is_empty() { None } else { self.peek(key).map(|entry| entry.kind()) }
    }

    /// Notes that a key which replaces another came anew: as in Redis, the old one was removed first.
    pub fn notify_came_anew(&mut self, key: Key<'_>, replaced: Option<Kind>) {
        if replaced.is_some() {
            self.notify(NotifyFlags::NEW, "new", key);
        }
    }

    /// Notes that the key, as it is now, has replaced one of another kind.
    pub fn notify_replaced(&mut self, key: Key<'_>, replaced: Option<Kind>) {
        if replaced.is_some()
            && let Some(now) = self.kind_to_tell(key)
        {
            self.notify_replacement(key, replaced, now);
        }
    }

    fn notify_replacement(&mut self, key: Key<'_>, replaced: Option<Kind>, by: Kind) {
        let Some(replaced) = replaced else { return };
        self.notify(NotifyFlags::OVERWRITTEN, "overwritten", key);
        if replaced.type_name() != by.type_name() {
            self.notify(NotifyFlags::TYPE_CHANGED, "type_changed", key);
        }
    }

    /// Notes an event of an edit, and that it has removed the key if the collection there became empty.
    #[inline]
    pub fn notify_edited(&mut self, class: NotifyFlags, name: &'static str, key: Key<'_>) {
        if !self.unit.wants().events.is_empty() {
            self.notify(class, name, key);
            self.notify_if_gone(key);
        }
    }

    /// Notes that an edit has removed the key, if there is none any more.
    pub fn notify_if_gone(&mut self, key: Key<'_>) {
        if self.unit.wants().events.contains(NotifyFlags::GENERIC) && !self.exists(key) {
            self.notify(NotifyFlags::GENERIC, "del", key);
        }
    }

    #[cold]
    fn note_event(&mut self, class: NotifyFlags, name: &'static str, key: Key<'_>, fields: Vec<Box<[u8]>>) {
        let wanted = self.unit.wants().events;
        self.unit.note_event(Event {
            class,
            wanted,
            name,
            db: self.index,
            key: key.bytes.into(),
            fields,
            published: None,
        });
    }
}
