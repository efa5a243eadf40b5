//! Lists in the bodies of verbs: checked when they are parsed, iterated without a copy afterwards.

use std::fmt;

use super::{take_byte, take_f64, take_zigzag, zigzag};
use crate::persist::format::{put_varint, take_string, take_varint};
use crate::value::stream::StreamId;

/// The registers of a HyperLogLog, and the largest value that one can hold.
const REGISTERS: u64 = 1 << 14;
const REGISTER_MAX: u8 = 63;

macro_rules! list {
    ($(#[$doc:meta])* $name:ident, $item:ty, $take:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a>(&'a [u8]);

        impl<'a> $name<'a> {
            /// Parses a list of at least one item, which ends with the body.
            pub(super) fn take(at: &mut &'a [u8]) -> Option<Self> {
                let (list, mut rest) = ($name(*at), std::mem::take(at));
                if rest.is_empty() {
                    return None;
                }
                while !rest.is_empty() {
                    let _item: $item = $take(&mut rest)?;
                }
                Some(list)
            }
        }

        impl<'a> Iterator for $name<'a> {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                if self.0.is_empty() {
                    return None;
                }
                Some($take(&mut self.0).expect("checked when the list was taken"))
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(*self).finish()
            }
        }
    };
}

list! {
    /// Byte strings, each behind its length.
    Strings, &'a [u8], take_string
}

list! {
    /// Names with their values.
    Pairs, (&'a [u8], &'a [u8]), |at: &mut &'a [u8]| Some((take_string(at)?, take_string(at)?))
}

list! {
    /// Members of a sorted set, each behind its score.
    Scores, (f64, &'a [u8]), |at: &mut &'a [u8]| Some((take_f64(at)?, take_string(at)?))
}

list! {
    /// Registers of a HyperLogLog, each with the rank that it has at least.
    Registers, (u16, u8), take_register
}

fn take_register(at: &mut &[u8]) -> Option<(u16, u8)> {
    let register = take_varint(at).filter(|register| *register < REGISTERS)?;
    let rank = take_byte(at).filter(|rank| *rank <= REGISTER_MAX)?;
    Some((register as u16, rank))
}

/// Parses an id that is encoded relative to the previous one.
fn take_id_behind(at: &mut &[u8], before: StreamId) -> Option<StreamId> {
    let ms = before.ms.wrapping_add(take_zigzag(at)? as u64);
    Some(StreamId::new(ms, take_varint(at)?))
}

/// Appends an id relative to the previous one: by the difference of their times.
pub(super) fn put_id_behind(out: &mut Vec<u8>, before: StreamId, id: StreamId) {
    put_varint(out, zigzag(id.ms.wrapping_sub(before.ms) as i64));
    put_varint(out, id.seq);
}

/// Ids of a stream, in any order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ids<'a> {
    before: StreamId,
    rest: &'a [u8],
}

impl<'a> Ids<'a> {
    /// Parses a list that ends with the body.
    pub(super) fn take(at: &mut &'a [u8]) -> Option<Self> {
        let (mut before, list) = (StreamId::MIN, Ids { before: StreamId::MIN, rest: at });
        let mut rest = std::mem::take(at);
        while !rest.is_empty() {
            before = take_id_behind(&mut rest, before)?;
        }
        Some(list)
    }

    /// The same, of at least one id.
    pub(super) fn take_some(at: &mut &'a [u8]) -> Option<Self> {
        if at.is_empty() { None } else { Ids::take(at) }
    }
}

impl Iterator for Ids<'_> {
    type Item = StreamId;

    fn next(&mut self) -> Option<StreamId> {
        if self.rest.is_empty() {
            return None;
        }
        self.before = take_id_behind(&mut self.rest, self.before).expect("checked when the list was taken");
        Some(self.before)
    }
}

impl fmt::Debug for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Entries that were handed back, each with how often it was delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReleasedEntries<'a> {
    before: StreamId,
    rest: &'a [u8],
}

fn take_released(at: &mut &[u8], before: StreamId) -> Option<(StreamId, u64)> {
    Some((take_id_behind(at, before)?, take_varint(at)?))
}

impl<'a> ReleasedEntries<'a> {
    /// Parses a list of at least one entry, which ends with the body.
    pub(super) fn take(at: &mut &'a [u8]) -> Option<Self> {
        let (mut before, list) = (StreamId::MIN, ReleasedEntries { before: StreamId::MIN, rest: at });
        let mut rest = std::mem::take(at);
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            before = take_released(&mut rest, before)?.0;
        }
        Some(list)
    }
}

impl Iterator for ReleasedEntries<'_> {
    type Item = (StreamId, u64);

    fn next(&mut self) -> Option<(StreamId, u64)> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = take_released(&mut self.rest, self.before).expect("checked when the list was taken");
        self.before = entry.0;
        Some(entry)
    }
}

impl fmt::Debug for ReleasedEntries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingEntry {
    /// The entry.
    pub id: StreamId,
    /// When it was last delivered, Unix ms.
    pub delivered: i64,
    /// How often it was delivered.
    pub count: u64,
}

/// Pending entries, in any order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PendingEntries<'a> {
    left: u64,
    before: StreamId,
    delivered_before: i64,
    rest: &'a [u8],
}

fn take_pending(at: &mut &[u8], before: StreamId, delivered_before: i64) -> Option<PendingEntry> {
    let id = take_id_behind(at, before)?;
    let delivered = delivered_before.wrapping_add(take_zigzag(at)?);
    Some(PendingEntry { id, delivered, count: take_varint(at)? })
}

impl<'a> PendingEntries<'a> {
    /// Parses a list behind its number of entries. The first entry's time is encoded as the difference from `seen`.
    pub(super) fn take(at: &mut &'a [u8], seen: i64) -> Option<Self> {
        let count = take_varint(at)?;
        let (mut before, mut delivered_before, all) = (StreamId::MIN, seen, *at);
        // Each entry takes at least four bytes, so a false count ends soon.
        for _ in 0..count {
            let entry = take_pending(at, before, delivered_before)?;
            (before, delivered_before) = (entry.id, entry.delivered);
        }
        let rest = &all[..all.len() - at.len()];
        Some(PendingEntries { left: count, before: StreamId::MIN, delivered_before: seen, rest })
    }

    /// How many entries are left.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Iterator for PendingEntries<'_> {
    type Item = PendingEntry;

    fn next(&mut self) -> Option<PendingEntry> {
        self.left = self.left.checked_sub(1)?;
        let entry = take_pending(&mut self.rest, self.before, self.delivered_before);
        let entry = entry.expect("checked when the list was taken");
        (self.before, self.delivered_before) = (entry.id, entry.delivered);
        Some(entry)
    }
}

impl fmt::Debug for PendingEntries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}
