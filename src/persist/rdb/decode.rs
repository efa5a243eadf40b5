//! Reads a payload of DUMP, or one value of an RDB file, into an [`RdbValue`].
//!
//! Every type code that Redis up to 8 and Valkey up to 9 write for a value is read; modules, and the types that
//! Redis 8.8 added for arrays, templates of hashes and rate limits, are refused. A value is wholly sound or
//! it is an error: no duplicates, no NaN, nothing empty but strings and streams, nothing after the end.

use std::collections::HashSet;

use super::containers::{Element, Intset, Listpack, Ziplist, Zipmap};
use super::reader::{Parsed, Reader};
use super::{Dialect, RdbError, RdbField, RdbValue, code, footer, stream};
use crate::base::format::parse_double;

/// Reads what DUMP gave.
pub fn decode_dump(payload: &[u8]) -> Result<RdbValue, RdbError> {
    let (body, dialect) = footer::check(payload)?;
    let mut reader = Reader::new(body);
    let decoded = decode_body(&mut reader, dialect);
    decoded.map_err(|what| RdbError::Format { at: reader.offset(), what })
}

fn decode_body(reader: &mut Reader<'_>, dialect: Dialect) -> Parsed<RdbValue> {
    let kind = reader.u8()?;
    let value = value(reader, kind, dialect)?;
    if reader.remaining() == 0 { Ok(value) } else { Err("bytes after the value") }
}

/// Reads one value of this type code, as it stands in a payload of DUMP and in an RDB file.
pub fn decode_value(reader: &mut Reader<'_>, kind: u8, dialect: Dialect) -> Result<RdbValue, RdbError> {
    value(reader, kind, dialect).map_err(|what| RdbError::Format { at: reader.offset(), what })
}

fn value(reader: &mut Reader<'_>, kind: u8, dialect: Dialect) -> Parsed<RdbValue> {
    let valkey = dialect == Dialect::Valkey;
    match kind {
        code::STRING => Ok(RdbValue::String(reader.string()?.into_owned())),
        code::LIST | code::LIST_ZIPLIST | code::LIST_QUICKLIST | code::LIST_QUICKLIST_2 => list(reader, kind),
        code::SET | code::SET_INTSET | code::SET_LISTPACK => set(reader, kind),
        code::ZSET | code::ZSET_2 | code::ZSET_ZIPLIST | code::ZSET_LISTPACK => zset(reader, kind),
        code::HASH | code::HASH_ZIPMAP | code::HASH_ZIPLIST | code::HASH_LISTPACK => hash(reader, kind),
        code::VALKEY_HASH_2 if valkey => volatile_hash(reader, Expiries::AfterEachPair),
        code::STREAM_LISTPACKS => stream::decode(reader, 1).map(RdbValue::Stream),
        code::STREAM_LISTPACKS_2 => stream::decode(reader, 2).map(RdbValue::Stream),
        code::STREAM_LISTPACKS_3 => stream::decode(reader, 3).map(RdbValue::Stream),
        _ if valkey => Err("unknown type"),
        code::HASH_METADATA_PRE_GA => volatile_hash(reader, Expiries::Absolute),
        code::HASH_LISTPACK_EX_PRE_GA => volatile_listpack(reader),
        code::HASH_METADATA => {
            let min = reader.i64()?;
            volatile_hash(reader, Expiries::RelativeTo(min))
        }
        code::HASH_LISTPACK_EX => {
            // The earliest expiry, which its fields tell as well.
            reader.i64()?;
            volatile_listpack(reader)
        }
        code::STREAM_LISTPACKS_4 => stream::decode(reader, 4).map(RdbValue::Stream),
        code::STREAM_LISTPACKS_5 => stream::decode(reader, 5).map(RdbValue::Stream),
        _ => Err("unknown type"),
    }
}

fn list(reader: &mut Reader<'_>, kind: u8) -> Parsed<RdbValue> {
    let mut items = Vec::new();
    match kind {
        code::LIST => {
            for _ in 0..reader.count(1)? {
                items.push(reader.string()?.into_owned());
            }
        }
        code::LIST_ZIPLIST => extend(&mut items, Ziplist::new(&reader.string()?)?)?,
        code::LIST_QUICKLIST => {
            for _ in 0..reader.count(1)? {
                extend(&mut items, Ziplist::new(&reader.string()?)?)?;
            }
        }
        _ => {
            for _ in 0..reader.count(2)? {
                match reader.length()? {
                    code::NODE_PLAIN => items.push(reader.string()?.into_owned()),
                    code::NODE_PACKED => extend(&mut items, Listpack::new(&reader.string()?)?)?,
                    _ => return Err("unknown kind of a list's node"),
                }
            }
        }
    }
    not_empty(&items)?;
    Ok(RdbValue::List(items))
}

fn set(reader: &mut Reader<'_>, kind: u8) -> Parsed<RdbValue> {
    let mut members = Vec::new();
    match kind {
        code::SET => {
            for _ in 0..reader.count(1)? {
                members.push(reader.string()?.into_owned());
            }
        }
        code::SET_INTSET => extend(&mut members, Intset::new(&reader.string()?)?)?,
        _ => extend(&mut members, Listpack::new(&reader.string()?)?)?,
    }
    distinct(&members, Vec::as_slice)?;
    Ok(RdbValue::Set(members))
}

fn zset(reader: &mut Reader<'_>, kind: u8) -> Parsed<RdbValue> {
    let members = match kind {
        code::ZSET_ZIPLIST => pairs(Ziplist::new(&reader.string()?)?, score)?,
        code::ZSET_LISTPACK => pairs(Listpack::new(&reader.string()?)?, score)?,
        _ => {
            let mut members = Vec::new();
            for _ in 0..reader.count(2)? {
                let member = reader.string()?.into_owned();
                let score = if kind == code::ZSET { reader.old_double()? } else { reader.double()? };
                members.push((member, score));
            }
            members
        }
    };
    if members.iter().any(|(_, score)| score.is_nan()) {
        return Err("a score is NaN");
    }
    distinct(&members, |(member, _)| member)?;
    Ok(RdbValue::Zset(members))
}

fn score(element: Element<'_>) -> Parsed<f64> {
    match element {
        Element::Int(number) => Ok(number as f64),
        Element::Bytes(text) => parse_double(text).ok_or("a score is no number"),
    }
}

fn hash(reader: &mut Reader<'_>, kind: u8) -> Parsed<RdbValue> {
    let unpack = |element: Element<'_>| Ok(element.to_vec());
    let fields: Vec<RdbField> = match kind {
        code::HASH => {
            let mut fields = Vec::new();
            for _ in 0..reader.count(2)? {
                fields.push((reader.string()?.into_owned(), reader.string()?.into_owned(), None));
            }
            fields
        }
        code::HASH_ZIPMAP => without_expiry(pairs(Zipmap::new(&reader.string()?)?, unpack)?),
        code::HASH_ZIPLIST => without_expiry(pairs(Ziplist::new(&reader.string()?)?, unpack)?),
        _ => without_expiry(pairs(Listpack::new(&reader.string()?)?, unpack)?),
    };
    hash_of(fields)
}

fn without_expiry(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<RdbField> {
    pairs.into_iter().map(|(field, value)| (field, value, None)).collect()
}

/// How a hash that is no listpack stores when its fields expire.
#[derive(Clone, Copy)]
enum Expiries {
    /// Before each field: 0, or the time.
    Absolute,
    /// Before each field: 0, or the time counted from this one, plus 1.
    RelativeTo(i64),
    /// After each value: -1, or the time.
    AfterEachPair,
}

fn volatile_hash(reader: &mut Reader<'_>, expiries: Expiries) -> Parsed<RdbValue> {
    let mut fields = Vec::new();
    for _ in 0..reader.count(3)? {
        let before = match expiries {
            Expiries::AfterEachPair => None,
            Expiries::Absolute => Some(reader.length()?).filter(|&time| time != 0),
            Expiries::RelativeTo(min) => match reader.length()? {
                0 => None,
                ahead => {
                    let min = u64::try_from(min).map_err(|_| BAD_EXPIRY)?;
                    Some(min.checked_add(ahead - 1).ok_or(BAD_EXPIRY)?)
                }
            },
        };
        let field = reader.string()?.into_owned();
        let value = reader.string()?.into_owned();
        let expiry = match expiries {
            Expiries::AfterEachPair => match reader.i64()? {
                -1 => None,
                time => Some(u64::try_from(time).map_err(|_| BAD_EXPIRY)?),
            },
            _ => before,
        };
        fields.push((field, value, expiry));
    }
    hash_of(fields)
}

const BAD_EXPIRY: &str = "a field's expiry is out of range";

/// A hash as a listpack of field, value, and expiry or 0.
fn volatile_listpack(reader: &mut Reader<'_>) -> Parsed<RdbValue> {
    let blob = reader.string()?;
    let mut elements = Listpack::new(&blob)?;
    let mut fields = Vec::new();
    while let Some(field) = elements.next() {
        let field = field?.to_vec();
        let value = elements.next().ok_or(UNEVEN)??.to_vec();
        let expiry = elements.next().ok_or(UNEVEN)??.integer().ok_or(BAD_EXPIRY)?;
        let expiry = u64::try_from(expiry).map_err(|_| BAD_EXPIRY)?;
        fields.push((field, value, Some(expiry).filter(|&time| time != 0)));
    }
    hash_of(fields)
}

fn hash_of(fields: Vec<RdbField>) -> Parsed<RdbValue> {
    if fields.iter().any(|(_, _, expiry)| expiry.is_some_and(|time| i64::try_from(time).is_err())) {
        return Err(BAD_EXPIRY);
    }
    distinct(&fields, |(field, _, _)| field)?;
    Ok(RdbValue::Hash(fields))
}

const UNEVEN: &str = "a container ends within an item";

fn extend<'a>(items: &mut Vec<Vec<u8>>, elements: impl Iterator<Item = Parsed<Element<'a>>>) -> Parsed<()> {
    for element in elements {
        items.push(element?.to_vec());
    }
    Ok(())
}

fn pairs<'a, V>(
    mut elements: impl Iterator<Item = Parsed<Element<'a>>>,
    value: impl Fn(Element<'a>) -> Parsed<V>,
) -> Parsed<Vec<(Vec<u8>, V)>> {
    let mut pairs = Vec::new();
    while let Some(first) = elements.next() {
        let first = first?.to_vec();
        pairs.push((first, value(elements.next().ok_or(UNEVEN)??)?));
    }
    Ok(pairs)
}

fn not_empty<T>(items: &[T]) -> Parsed<()> {
    if items.is_empty() { Err("an empty collection") } else { Ok(()) }
}

/// That there are items, and no two of the same name.
pub(super) fn distinct<T>(items: &[T], name: impl Fn(&T) -> &[u8]) -> Parsed<()> {
    not_empty(items)?;
    let mut seen = HashSet::with_capacity(items.len());
    if items.iter().all(|item| seen.insert(name(item))) { Ok(()) } else { Err("a member stands twice") }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
