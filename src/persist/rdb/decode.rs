//! Reads a payload of DUMP, or one value of an RDB file, into an [`RdbSink`].
//!
//! It reads every type code that Redis up to 8 and Valkey up to 9 write for a value. Modules are refused, and so are
//! the types that Redis 8.8 added for arrays, hash templates and rate limits. A value is entirely sound or it is an
//! error: no duplicates, no NaN, nothing empty except strings and streams, nothing after the end. After an error,
//! drop what the sink holds.

use std::borrow::Cow;

use super::containers::{Element, Intset, Listpack, Ziplist, Zipmap};
use super::reader::{Parsed, Reader};
use super::{Dialect, RdbEntryFields, RdbError, RdbStreamId, RdbStreamMeta, code, footer, stream};
use crate::base::config::RdbVersionCheck;
use crate::base::format::parse_double;

/// Takes a value piece by piece as it is read, so that nothing is held twice: a few bytes of payload can stand for
/// very many elements. All calls for a value are of one type, which the first call reveals.
pub trait RdbSink {
    /// The string, whole.
    fn string(&mut self, value: Cow<'_, [u8]>);
    /// The list's next item, from head to tail.
    fn list_item(&mut self, item: &[u8]);
    /// A member of the set; false if it is a duplicate.
    fn set_member(&mut self, member: &[u8]) -> bool;
    /// A field of the hash and when it expires (unix ms, possibly in the past); false if it is a duplicate.
    fn hash_field(&mut self, field: &[u8], value: &[u8], expiry: Option<u64>) -> bool;
    /// A member of the sorted set, whose score is not NaN; false if it is a duplicate.
    fn zset_member(&mut self, member: &[u8], score: f64) -> bool;
    /// The stream's next entry, by ascending id. Entries with the same fields share their names.
    fn stream_entry(&mut self, id: RdbStreamId, fields: RdbEntryFields);
    /// The rest of the stream, after its entries.
    fn stream_end(&mut self, meta: RdbStreamMeta);
}

/// Reads a payload of DUMP, of these versions, into the sink.
pub fn decode_dump_into(payload: &[u8], versions: RdbVersionCheck, sink: &mut impl RdbSink) -> Result<(), RdbError> {
    let (body, dialect) = footer::check(payload, versions)?;
    let mut reader = Reader::new(body);
    let decoded = decode_body(&mut reader, dialect, sink);
    decoded.map_err(|what| RdbError::Format { at: reader.offset(), what })
}

fn decode_body(reader: &mut Reader<'_>, dialect: Dialect, sink: &mut impl RdbSink) -> Parsed<()> {
    let kind = reader.u8()?;
    value(reader, kind, dialect, sink)?;
    if reader.remaining() == 0 { Ok(()) } else { Err("bytes after the value") }
}

/// Reads one value of this type code, as in a payload of DUMP or an RDB file.
pub fn decode_value_into(
    reader: &mut Reader<'_>,
    kind: u8,
    dialect: Dialect,
    sink: &mut impl RdbSink,
) -> Result<(), RdbError> {
    value(reader, kind, dialect, sink).map_err(|what| RdbError::Format { at: reader.offset(), what })
}

fn value(reader: &mut Reader<'_>, kind: u8, dialect: Dialect, sink: &mut impl RdbSink) -> Parsed<()> {
    let items = match (kind, dialect) {
        (code::STRING, _) => {
            sink.string(reader.string()?);
            return Ok(());
        }
        (code::STREAM_LISTPACKS, _) => return stream::decode(reader, 1, sink),
        (code::STREAM_LISTPACKS_2, _) => return stream::decode(reader, 2, sink),
        (code::STREAM_LISTPACKS_3, _) => return stream::decode(reader, 3, sink),
        (code::STREAM_LISTPACKS_4, Dialect::Redis) => return stream::decode(reader, 4, sink),
        (code::STREAM_LISTPACKS_5, Dialect::Redis) => return stream::decode(reader, 5, sink),
        (code::LIST | code::LIST_ZIPLIST | code::LIST_QUICKLIST | code::LIST_QUICKLIST_2, _) => {
            list(reader, kind, sink)?
        }
        (code::SET | code::SET_INTSET | code::SET_LISTPACK, _) => set(reader, kind, sink)?,
        (code::ZSET | code::ZSET_2 | code::ZSET_ZIPLIST | code::ZSET_LISTPACK, _) => zset(reader, kind, sink)?,
        (code::HASH | code::HASH_ZIPMAP | code::HASH_ZIPLIST | code::HASH_LISTPACK, _) => hash(reader, kind, sink)?,
        (code::VALKEY_HASH_2, Dialect::Valkey) => volatile_hash(reader, Expiries::AfterEachPair, sink)?,
        (code::HASH_METADATA_PRE_GA, Dialect::Redis) => volatile_hash(reader, Expiries::Absolute, sink)?,
        (code::HASH_LISTPACK_EX_PRE_GA, Dialect::Redis) => volatile_listpack(reader, sink)?,
        (code::HASH_METADATA, Dialect::Redis) => {
            let earliest = reader.i64()?;
            volatile_hash(reader, Expiries::RelativeTo(earliest), sink)?
        }
        (code::HASH_LISTPACK_EX, Dialect::Redis) => {
            // The earliest expiry, which follows from the fields.
            reader.i64()?;
            volatile_listpack(reader, sink)?
        }
        _ => return Err("unknown type"),
    };
    if items == 0 { Err("an empty collection") } else { Ok(()) }
}

/// Reads a list. Returns the number of items.
fn list(reader: &mut Reader<'_>, kind: u8, sink: &mut impl RdbSink) -> Parsed<usize> {
    let mut push = |item: &[u8]| {
        sink.list_item(item);
        Ok(())
    };
    let mut items = 0;
    match kind {
        code::LIST => items = strings(reader, push)?,
        code::LIST_ZIPLIST => items = each(Ziplist::new(&reader.string()?)?, push)?,
        code::LIST_QUICKLIST => {
            for _ in 0..reader.count(1)? {
                items += each(Ziplist::new(&reader.string()?)?, &mut push)?;
            }
        }
        _ => {
            for _ in 0..reader.count(2)? {
                match reader.length()? {
                    code::NODE_PLAIN => {
                        push(&reader.string()?)?;
                        items += 1;
                    }
                    code::NODE_PACKED => items += each(Listpack::new(&reader.string()?)?, &mut push)?,
                    _ => return Err("unknown kind of a list's node"),
                }
            }
        }
    }
    Ok(items)
}

fn set(reader: &mut Reader<'_>, kind: u8, sink: &mut impl RdbSink) -> Parsed<usize> {
    let add = |member: &[u8]| once(sink.set_member(member));
    match kind {
        code::SET => strings(reader, add),
        code::SET_INTSET => each(Intset::new(&reader.string()?)?, add),
        _ => each(Listpack::new(&reader.string()?)?, add),
    }
}

fn zset(reader: &mut Reader<'_>, kind: u8, sink: &mut impl RdbSink) -> Parsed<usize> {
    let mut add = |member: &[u8], score: f64| {
        if score.is_nan() { Err("a score is NaN") } else { once(sink.zset_member(member, score)) }
    };
    match kind {
        code::ZSET_ZIPLIST => each_pair(Ziplist::new(&reader.string()?)?, |member, text| add(member, score(text)?)),
        code::ZSET_LISTPACK => each_pair(Listpack::new(&reader.string()?)?, |member, text| add(member, score(text)?)),
        _ => {
            let members = reader.count(2)?;
            for _ in 0..members {
                let member = reader.string()?;
                let score = if kind == code::ZSET { reader.old_double()? } else { reader.double()? };
                add(&member, score)?;
            }
            Ok(members)
        }
    }
}

fn score(element: Element<'_>) -> Parsed<f64> {
    match element {
        Element::Int(number) => Ok(number as f64),
        Element::Bytes(text) => parse_double(text).ok_or("a score is no number"),
    }
}

fn hash(reader: &mut Reader<'_>, kind: u8, sink: &mut impl RdbSink) -> Parsed<usize> {
    let mut text = Vec::new();
    let add = |field: &[u8], value: Element<'_>| once(sink.hash_field(field, value.text(&mut text), None));
    match kind {
        code::HASH => {
            let fields = reader.count(2)?;
            for _ in 0..fields {
                let field = reader.string()?;
                once(sink.hash_field(&field, &reader.string()?, None))?;
            }
            Ok(fields)
        }
        code::HASH_ZIPMAP => each_pair(Zipmap::new(&reader.string()?)?, add),
        code::HASH_ZIPLIST => each_pair(Ziplist::new(&reader.string()?)?, add),
        _ => each_pair(Listpack::new(&reader.string()?)?, add),
    }
}

/// How a hash that is not a listpack stores the expiries of its fields.
#[derive(Clone, Copy)]
enum Expiries {
    /// Before each field: 0, or the time.
    Absolute,
    /// Before each field: 0, or the time counted from this one, plus 1.
    RelativeTo(i64),
    /// After each value: -1, or the time.
    AfterEachPair,
}

fn volatile_hash(reader: &mut Reader<'_>, expiries: Expiries, sink: &mut impl RdbSink) -> Parsed<usize> {
    let fields = reader.count(3)?;
    for _ in 0..fields {
        let before = match expiries {
            Expiries::AfterEachPair => None,
            Expiries::Absolute => Some(reader.length()?).filter(|&time| time != 0),
            Expiries::RelativeTo(earliest) => match reader.length()? {
                0 => None,
                ahead => Some(u64::try_from(earliest).ok().and_then(|from| from.checked_add(ahead - 1)).ok_or(EXPIRY)?),
            },
        };
        let field = reader.string()?;
        let value = reader.string()?;
        let expiry = match expiries {
            Expiries::AfterEachPair => match reader.i64()? {
                -1 => None,
                time => Some(u64::try_from(time).map_err(|_| EXPIRY)?),
            },
            _ => before,
        };
        if expiry.is_some_and(|time| i64::try_from(time).is_err()) {
            return Err(EXPIRY);
        }
        once(sink.hash_field(&field, &value, expiry))?;
    }
    Ok(fields)
}

/// A hash as a listpack of field, value, and expiry or 0.
fn volatile_listpack(reader: &mut Reader<'_>, sink: &mut impl RdbSink) -> Parsed<usize> {
    let blob = reader.string()?;
    let mut elements = Listpack::new(&blob)?;
    let (mut field_text, mut value_text) = (Vec::new(), Vec::new());
    let mut fields = 0;
    while let Some(field) = elements.next() {
        let (field, value) = (field?, elements.next().ok_or(UNEVEN)??);
        let expiry = elements.next().ok_or(UNEVEN)??.integer().ok_or(EXPIRY)?;
        let expiry = Some(u64::try_from(expiry).map_err(|_| EXPIRY)?).filter(|&time| time != 0);
        once(sink.hash_field(field.text(&mut field_text), value.text(&mut value_text), expiry))?;
        fields += 1;
    }
    Ok(fields)
}

const EXPIRY: &str = "a field's expiry is out of range";
const UNEVEN: &str = "a container ends within an item";
pub(super) const TWICE: &str = "a member stands twice";

/// Refuses a member that the sink already had.
fn once(is_new: bool) -> Parsed<()> {
    if is_new { Ok(()) } else { Err(TWICE) }
}

fn strings(reader: &mut Reader<'_>, mut take: impl FnMut(&[u8]) -> Parsed<()>) -> Parsed<usize> {
    let count = reader.count(1)?;
    for _ in 0..count {
        take(&reader.string()?)?;
    }
    Ok(count)
}

fn each<'a>(
    elements: impl Iterator<Item = Parsed<Element<'a>>>,
    mut take: impl FnMut(&[u8]) -> Parsed<()>,
) -> Parsed<usize> {
    let mut text = Vec::new();
    let mut count = 0;
    for element in elements {
        take(element?.text(&mut text))?;
        count += 1;
    }
    Ok(count)
}

fn each_pair<'a>(
    mut elements: impl Iterator<Item = Parsed<Element<'a>>>,
    mut take: impl FnMut(&[u8], Element<'a>) -> Parsed<()>,
) -> Parsed<usize> {
    let mut text = Vec::new();
    let mut count = 0;
    while let Some(first) = elements.next() {
        let first = first?;
        let second = elements.next().ok_or(UNEVEN)??;
        take(first.text(&mut text), second)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
