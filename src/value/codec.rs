//! Encodes values as bytes, for snapshots and for log records that hold a key's whole state.
//!
//! A small collection is stored as its bytes in memory, which are those of Redis' listpack and intset. A hash of a
//! template gets its names back. A large one is stored element by element, as drawn in `persist::format`.
//!
//! Invariants:
//! - Tags are numbers of the persisted format: they are append-only and never change.
//! - [`decode`] takes any bytes and returns a sound value or an error. It allocates at most a small multiple of its
//!   input.

use super::collection::Collection;
use super::entry::{Heap, NewValue, Packing, ValueRef};
use super::hash::{self, AnyHash};
use super::list::{self, AnyList, ListRef};
use super::listpack::Item;
use super::set::{self, AnySet, SetRef};
use super::zset::{self, AnyZset, ZsetRef};
use super::{Hash, Limits, List, Set, Stream, Zset};
use crate::base::varint::put_varint;
use triomphe::Arc;

/// The tags of collections.
pub mod tags {
    /// A list in one listpack.
    pub const LIST_PACKED: u8 = 3;
    /// A set of integers in one intset.
    pub const SET_INTS: u8 = 4;
    /// A set in one listpack.
    pub const SET_PACKED: u8 = 5;
    /// A hash in one listpack.
    pub const HASH_PACKED: u8 = 6;
    /// A hash with expiring fields in one listpack.
    pub const HASH_PACKED_EX: u8 = 7;
    /// A sorted set in one listpack.
    pub const ZSET_PACKED: u8 = 8;
    /// A large list.
    pub const LIST: u8 = 9;
    /// A large set.
    pub const SET: u8 = 10;
    /// A large hash.
    pub const HASH: u8 = 11;
    /// A large sorted set.
    pub const ZSET: u8 = 12;
    /// A stream.
    pub const STREAM: u8 = 13;
    /// A stream with parts that most have not.
    pub const STREAM_PARTS: u8 = 14;
}

/// Called between two elements with what has been encoded so far, which it may take away.
pub type Spill<'a> = dyn FnMut(&mut Vec<u8>) + 'a;

/// Appends the bytes of a collection and returns its tag; `None` for a string.
pub fn encode(value: ValueRef<'_>, out: &mut Vec<u8>) -> Option<u8> {
    // Reserves room for all of a large collection at once. If it grew by doubling, the system would move megabytes to
    // another address at a time, and every thread that needs memory would wait meanwhile.
    out.reserve(encoded_len_about(value));
    encode_in_steps(value, out, &mut |_| ())
}

/// The number of bytes that [`encode`] appends: exactly that of a small collection, about that of a large one.
pub fn encoded_len_about(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::List(list) => list.bytes(),
        ValueRef::Set(set) => set.bytes(),
        ValueRef::Hash(hash) => hash.bytes(),
        ValueRef::Zset(zset) => zset.bytes(),
        ValueRef::Stream(stream) => stream.bytes(),
        ValueRef::Packed(Packing::HashTemplated, bytes) => hash::expanded_len(&bytes),
        ValueRef::Packed(_, bytes) => bytes.len(),
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Raw(_) => 0,
    }
}

/// The same, in steps, for a large collection.
pub fn encode_in_steps(value: ValueRef<'_>, out: &mut Vec<u8>, spill: &mut Spill<'_>) -> Option<u8> {
    match value {
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Raw(_) => return None,
        ValueRef::Packed(packing, bytes) => {
            match packing {
                Packing::HashTemplated => out.extend_from_slice(hash::expanded(&bytes).as_bytes()),
                _ => out.extend_from_slice(&bytes),
            }
            return Some(tag_of(packing));
        }
        ValueRef::List(list) => list.encode(out, spill),
        ValueRef::Set(set) => set.encode(out, spill),
        ValueRef::Hash(hash) => hash.encode(out, spill),
        ValueRef::Zset(zset) => zset.encode(out, spill),
        ValueRef::Stream(stream) => stream.encode(out, spill),
    }
    Some(match value {
        ValueRef::List(_) => tags::LIST,
        ValueRef::Set(_) => tags::SET,
        ValueRef::Hash(_) => tags::HASH,
        ValueRef::Zset(_) => tags::ZSET,
        ValueRef::Stream(stream) if stream.has_parts() => tags::STREAM_PARTS,
        _ => tags::STREAM,
    })
}

fn tag_of(packing: Packing) -> u8 {
    match packing {
        Packing::List => tags::LIST_PACKED,
        Packing::SetInts => tags::SET_INTS,
        Packing::Set => tags::SET_PACKED,
        Packing::Hash | Packing::HashTemplated => tags::HASH_PACKED,
        Packing::HashEx => tags::HASH_PACKED_EX,
        Packing::Zset => tags::ZSET_PACKED,
    }
}

/// Decodes the collection that [`encode`] wrote.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode<'a>(tag: u8, bytes: &'a [u8], limits: &Limits) -> Result<NewValue<'a>, &'static str> {
    let packed = |packing| match is_sound(packing, bytes) {
        true => Ok(NewValue::Packed(packing, bytes)),
        false => Err("a small collection is malformed"),
    };
    match tag {
        tags::LIST_PACKED => list::decode_packed(bytes, limits),
        tags::SET_INTS => packed(Packing::SetInts),
        tags::SET_PACKED => packed(Packing::Set),
        tags::HASH_PACKED => hash::decode_packed(bytes, false, limits),
        tags::HASH_PACKED_EX => hash::decode_packed(bytes, true, limits),
        tags::ZSET_PACKED => packed(Packing::Zset),
        _ => {
            let heap = match tag {
                tags::LIST => List::decode(bytes, limits).map(|list| Heap::List(Arc::new(list))),
                tags::SET => Set::decode(bytes, limits).map(|set| Heap::Set(Arc::new(set))),
                tags::HASH => Hash::decode(bytes, limits).map(|hash| Heap::Hash(Arc::new(hash))),
                tags::ZSET => Zset::decode(bytes, limits).map(|zset| Heap::Zset(Arc::new(zset))),
                tags::STREAM | tags::STREAM_PARTS => {
                    let stream = Stream::decode(bytes, tag == tags::STREAM_PARTS);
                    stream.map(|stream| Heap::Stream(Arc::new(stream)))
                }
                _ => return Err("a value of an unknown type"),
            };
            heap.map(NewValue::Heap).ok_or("a collection's elements are malformed")
        }
    }
}

/// Whether bytes from outside are a small collection of this packing.
fn is_sound(packing: Packing, bytes: &[u8]) -> bool {
    match packing {
        Packing::SetInts | Packing::Set => set::is_sound(packing, bytes),
        Packing::Zset => zset::is_sound(bytes),
        _ => true,
    }
}

/// Checks all invariants of a value.
///
/// # Panics
/// If one is broken.
pub fn check_invariants(value: ValueRef<'_>, limits: &Limits) {
    match value {
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Raw(_) => {}
        ValueRef::Packed(packing, _) => {
            let mut bytes = Vec::new();
            let tag = encode(value, &mut bytes).unwrap_or_default();
            assert_eq!(bytes.len(), encoded_len_about(value), "{packing:?}");
            let again = decode(tag, &bytes, limits);
            assert!(again.is_ok(), "{packing:?}: {again:?}");
        }
        ValueRef::List(list) => list.check_invariants(),
        ValueRef::Set(set) => set.map().check_invariants(),
        ValueRef::Hash(hash) => hash.check_invariants(),
        ValueRef::Zset(zset) => zset.check_invariants(),
        ValueRef::Stream(stream) => stream.check_invariants(),
    }
}

/// Gives equal values the same bytes, whatever their form in memory, for comparisons.
pub fn canonical(value: ValueRef<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        ValueRef::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        ValueRef::Str(bytes) | ValueRef::Raw(bytes) => out.extend_from_slice(&bytes),
        _ => {
            if let Some(list) = AnyList::view(value) {
                canonical_list(list, &mut out);
            } else if let Some(set) = AnySet::view(value) {
                canonical_set(set, &mut out);
            } else if let Some(zset) = AnyZset::view(value) {
                canonical_zset(zset, &mut out);
            } else if let Some(hash) = AnyHash::view(value) {
                out.push(tags::HASH);
                hash::canonical(hash, &mut out);
            } else if let ValueRef::Stream(stream) = value {
                out.push(tags::STREAM);
                stream.canonical(&mut out);
            } else {
                out.push(0);
                encode(value, &mut out);
            }
        }
    }
    out
}

fn canonical_list(list: ListRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"list");
    for element in list.iter() {
        put_varint(out, element.text_len() as u64);
        element.write_to(out);
    }
}

fn canonical_set(set: SetRef<'_>, out: &mut Vec<u8>) {
    let mut members: Vec<Vec<u8>> = set.iter().map(Item::to_vec).collect();
    members.sort_unstable();
    out.extend_from_slice(b"set");
    for member in members {
        put_varint(out, member.len() as u64);
        out.extend_from_slice(&member);
    }
}

fn canonical_zset(zset: ZsetRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"zset");
    for (member, score) in zset.iter() {
        // The small form has no -0.
        out.extend_from_slice(&(score + 0.0).to_le_bytes());
        put_varint(out, member.text_len() as u64);
        member.write_to(out);
    }
}
