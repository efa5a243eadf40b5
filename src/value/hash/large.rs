//! The large form of a hash: a map of fields, and counts over all of them.
//!
//! The bytes of [`Hash::encode`] are drawn in `persist::format`.
//!
//! Invariants:
//! - `volatile` is the number of fields with an expiry. `earliest` is at or before each of their expiries.
//! - `spilled` estimates the bytes of values outside the map's segments.

use super::{Field, Value};
use crate::base::hash::HashSeed;
use crate::base::varint::{put_varint, take_string, take_varint};
use crate::value::codec::Spill;
use crate::value::directory::Displaced;
use crate::value::entry::{EXPIRY_MAX, INLINE_VALUE_MAX, NewValue};
use crate::value::listpack::Item;
use crate::value::{Limits, Map};

/// The bound of a hash in which nothing expires.
const NEVER: u64 = u64::MAX;
/// What the payload of a counted pointer takes beyond its bytes.
const PAYLOAD_OVERHEAD_BYTES: usize = 2 * size_of::<usize>();

/// Flag of an encoded field: its value is an integer.
const FIELD_INT: u8 = 1;
/// Flag of an encoded field: it expires.
const FIELD_EXPIRY: u8 = 2;
const FIELD_FLAGS: u8 = FIELD_INT | FIELD_EXPIRY;
/// Flags, the length of the name, and a value: the least that an encoded field takes.
const FIELD_BYTES_MIN: usize = 3;

/// See the module. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Hash {
    map: Map,
    volatile: usize,
    earliest: u64,
    spilled: usize,
}

impl Hash {
    pub(super) fn with_capacity(seed: HashSeed, len: usize) -> Hash {
        Hash { map: Map::with_capacity(seed, len), volatile: 0, earliest: NEVER, spilled: 0 }
    }

    /// A hash of these fields; `len` is an estimate of their number.
    pub(super) fn of_fields<'a>(len: usize, fields: impl Iterator<Item = Field<'a>>, seed: HashSeed) -> Hash {
        let mut hash = Hash::with_capacity(seed, len);
        let mut digits = itoa::Buffer::new();
        for field in fields {
            hash.set(field.name.as_bytes(&mut digits), field.value.item(), field.expiry);
        }
        hash
    }

    pub(in crate::value) fn map(&self) -> &Map {
        &self.map
    }

    /// The same, mutable, to move its segments.
    pub(in crate::value) fn map_mut(&mut self) -> &mut Map {
        &mut self.map
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// A lower bound of the fields' expiries, in Unix milliseconds; `None` if none expires.
    #[inline]
    pub fn earliest_expiry(&self) -> Option<u64> {
        Some(self.earliest).filter(|&at| at != NEVER)
    }

    /// An estimate of its bytes, without a walk over its fields.
    pub fn bytes(&self) -> usize {
        size_of::<Hash>() + self.map.bytes() + self.spilled
    }

    /// Stores a field with its expiry. Returns whether the field is new.
    #[inline]
    pub(super) fn set(&mut self, field: &[u8], value: Item<'_>, expiry: Option<u64>) -> bool {
        let value = match value {
            Item::Int(number) => NewValue::Int(number),
            Item::Str(text) => match crate::base::format::parse_i64(text) {
                Some(number) => NewValue::Int(number),
                None => NewValue::Bytes(text),
            },
        };
        if let NewValue::Bytes(text) = &value
            && text.len() > INLINE_VALUE_MAX
        {
            self.spilled += text.len() + PAYLOAD_OVERHEAD_BYTES;
        }
        let displaced = self.map.set(field, value, expiry);
        let is_new = displaced.is_none();
        self.settle(displaced, expiry);
        is_new
    }

    /// Removes a field. Returns whether it was there.
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.map.remove(field);
        let was_there = removed.is_some();
        self.settle(removed, None);
        was_there
    }

    /// Sets or clears the expiry of an existing field.
    pub(super) fn set_expiry(&mut self, field: &[u8], expiry: Option<u64>) {
        let Some(old) = self.map.get(field).map(|entry| entry.expiry()) else { return };
        self.map.set_expiry(field, expiry);
        self.settle(Some(Displaced { expiry: old, heap: None }), expiry);
    }

    /// The expiry of an existing field.
    #[inline]
    pub(super) fn expiry(&self, field: &[u8]) -> Option<u64> {
        if self.volatile == 0 { None } else { self.map.get(field)?.expiry() }
    }

    /// Removes at most `limit` expired fields and returns them.
    pub(super) fn remove_expired(&mut self, now: u64, limit: usize) -> Vec<Box<[u8]>> {
        let (mut removed, mut found) = (Vec::new(), Vec::new());
        while removed.len() < limit {
            self.map.collect_expired(now, limit - removed.len(), &mut found);
            if found.is_empty() {
                // The pass that found nothing has made the map's bounds exact.
                self.earliest = self.map.earliest_expiry().unwrap_or(NEVER);
                break;
            }
            for expired in found.drain(..) {
                self.remove(&expired.key);
                removed.push(expired.key);
            }
        }
        removed
    }

    /// Updates the counts when a field has changed.
    #[inline]
    fn settle(&mut self, old: Option<Displaced>, new: Option<u64>) {
        let old_expiry = match old {
            Some(old) => {
                self.spilled = self.spilled.saturating_sub(old.heap.map_or(0, |heap| heap.bytes()));
                old.expiry
            }
            None => None,
        };
        if old_expiry.is_none() && new.is_none() {
            return;
        }
        self.volatile = self.volatile - usize::from(old_expiry.is_some()) + usize::from(new.is_some());
        self.earliest = match new {
            _ if self.volatile == 0 => NEVER,
            Some(at) => self.earliest.min(at.min(EXPIRY_MAX)),
            None => self.earliest,
        };
    }

    /// Appends its fields in the form that `persist::format` draws.
    pub fn encode(&self, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        put_varint(out, self.len() as u64);
        for field in self.map.iter().map(Field::of_entry) {
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            let is_int = matches!(field.value, Value::Item(Item::Int(_)));
            out.push(flag(is_int, FIELD_INT) | flag(field.expiry.is_some(), FIELD_EXPIRY));
            put_string(out, field.name);
            match field.value.item() {
                Item::Int(number) => put_varint(out, ((number << 1) ^ (number >> 63)) as u64),
                text => put_string(out, text),
            }
            if let Some(at) = field.expiry {
                out.extend_from_slice(&at.to_le_bytes());
            }
            spill(out);
        }
    }

    /// Reads what [`Hash::encode`] wrote; `None` if the bytes are not that.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Option<Hash> {
        let mut rest = bytes;
        let len = usize::try_from(take_varint(&mut rest)?).ok()?;
        if len == 0 || len > rest.len() / FIELD_BYTES_MIN {
            return None;
        }
        let mut hash = Hash::with_capacity(limits.seed, len);
        for _ in 0..len {
            let (&flags, after) = rest.split_first()?;
            rest = after;
            if flags & !FIELD_FLAGS != 0 {
                return None;
            }
            let name = take_string(&mut rest)?;
            let value = if flags & FIELD_INT != 0 {
                let word = take_varint(&mut rest)?;
                Item::Int((word >> 1) as i64 ^ -((word & 1) as i64))
            } else {
                Item::Str(take_string(&mut rest)?)
            };
            let expiry = if flags & FIELD_EXPIRY != 0 {
                let (at, after) = rest.split_first_chunk()?;
                rest = after;
                Some(u64::from_le_bytes(*at)).filter(|at| (1..=EXPIRY_MAX).contains(at)).map(Some)?
            } else {
                None
            };
            if !hash.set(name, value, expiry) {
                return None;
            }
        }
        rest.is_empty().then_some(hash)
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        self.map.check_invariants();
        let expiries: Vec<u64> = self.map.iter().filter_map(|entry| entry.expiry()).collect();
        assert_eq!(self.volatile, expiries.len());
        assert_eq!(self.earliest == NEVER, expiries.is_empty());
        assert!(expiries.iter().all(|&at| at >= self.earliest));
        let spilled = self.map.iter().filter_map(|entry| entry.heap()).map(|heap| heap.bytes()).sum::<usize>();
        assert_eq!(self.spilled, spilled);
    }
}

fn put_string(out: &mut Vec<u8>, text: Item<'_>) {
    put_varint(out, text.text_len() as u64);
    text.write_to(out);
}
