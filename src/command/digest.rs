//! Redis' digest of values and of whole databases, which compares two servers without reading out their keys.
//!
//! ```text
//! add(d, bytes) = d ^ SHA1(bytes)        what has no order: members of sets, keys
//! mix(d, bytes) = SHA1(add(d, bytes))    what has one: elements of lists, a field and then its value
//! ```
//!
//! Invariant: equal values give equal digests whatever their form in memory, and the same ones as Redis.

use std::fmt;

use sha1::{Digest as _, Sha1};

use crate::base::format;
use crate::keyspace::{EntryRef, ValueRef};
use crate::value::Collection;
use crate::value::hash::AnyHash;
use crate::value::list::AnyList;
use crate::value::listpack::Item;
use crate::value::set::AnySet;
use crate::value::stream::{Stream, StreamId};
use crate::value::zset::AnyZset;

/// The numbers that Redis gives the types.
const STRING: u32 = 0;
const LIST: u32 = 1;
const SET: u32 = 2;
const ZSET: u32 = 3;
const HASH: u32 = 4;
const STREAM: u32 = 6;

/// A digest in progress. It prints as 40 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 20]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Digest {
    /// Adds bytes whose order does not matter.
    fn add(&mut self, bytes: &[u8]) {
        let hashed = Sha1::digest(bytes);
        self.0.iter_mut().zip(hashed).for_each(|(byte, hashed)| *byte ^= hashed);
    }

    /// Mixes in bytes whose order matters.
    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn mix_item(&mut self, item: Item<'_>) {
        self.mix(item.as_bytes(&mut itoa::Buffer::new()));
    }

    /// Mixes in the number of a database that is not empty; its keys follow.
    pub fn database(&mut self, index: u32) {
        self.mix(&index.to_be_bytes());
    }

    /// Adds a key with its value.
    pub fn key(&mut self, entry: EntryRef<'_>, now: u64) {
        let mut of_key = Digest::default();
        of_key.mix(entry.key());
        of_key.value(entry, now);
        self.add(&of_key.0);
    }

    /// Mixes in the value of a key, and whether it expires. Fields that have expired by `now` do not count.
    pub fn value(&mut self, entry: EntryRef<'_>, now: u64) {
        let value = entry.value();
        if let Some(list) = AnyList::view(value) {
            self.mix(&LIST.to_be_bytes());
            list.iter().for_each(|element| self.mix_item(element));
        } else if let Some(set) = AnySet::view(value) {
            self.mix(&SET.to_be_bytes());
            set.iter().for_each(|member| self.add(member.as_bytes(&mut itoa::Buffer::new())));
        } else if let Some(zset) = AnyZset::view(value) {
            self.mix(&ZSET.to_be_bytes());
            zset.iter().for_each(|(member, score)| self.member(member, score));
        } else if let Some(hash) = AnyHash::view(value) {
            self.mix(&HASH.to_be_bytes());
            for field in hash.iter(now) {
                self.field(field.name, field.value.item(), field.expiry.is_some());
            }
        } else {
            match value {
                ValueRef::Stream(stream) => self.stream(stream),
                ValueRef::Int(number) => self.string(itoa::Buffer::new().format(number).as_bytes()),
                ValueRef::Str(bytes) | ValueRef::Raw(bytes) => self.string(&bytes),
                _ => unreachable!("every collection has been seen"),
            }
        }
        if entry.expiry().is_some() {
            self.add(b"!!expire!!");
        }
    }

    fn string(&mut self, bytes: &[u8]) {
        self.mix(&STRING.to_be_bytes());
        self.mix(bytes);
    }

    fn member(&mut self, member: Item<'_>, score: f64) {
        let mut of_member = Digest::default();
        of_member.mix_item(member);
        let mut text = Vec::new();
        format::write_general(&mut text, score);
        of_member.mix(&text);
        self.add(&of_member.0);
    }

    fn field(&mut self, name: Item<'_>, value: Item<'_>, expires: bool) {
        let mut of_field = Digest::default();
        of_field.mix_item(name);
        of_field.mix_item(value);
        if expires {
            of_field.add(b"!!hexpire!!");
        }
        self.add(&of_field.0);
    }

    fn stream(&mut self, stream: &Stream) {
        self.mix(&STREAM.to_be_bytes());
        for entry in stream.range(StreamId::MIN, StreamId::MAX) {
            self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
            for (name, value) in entry.fields() {
                self.mix_item(name);
                self.mix_item(value);
            }
        }
    }
}
