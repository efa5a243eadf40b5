//! Words of lists and hashes.

use super::{MALFORMED, Outcome, Words, at, from, integer, integer_at, is, say};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::keyspace::Key;
use crate::persist::verbs::FieldExpiry;
use crate::value::hash::AnyHash;
use crate::value::list::{AnyList, End};

pub(super) fn apply_to_list(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Outcome {
    let end = if name.starts_with('L') { End::Left } else { End::Right };
    let Some(len) = db.peek_view::<AnyList>(key)?.map(|list| list.len()) else {
        return match name {
            "LPUSH" | "RPUSH" => say(db, key, |record| record.push(end, words.iter().skip(2).copied())),
            _ => Ok(()),
        };
    };
    match name {
        "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" => {
            say(db, key, |record| record.push(end, words.iter().skip(2).copied()))
        }
        "LPOP" | "RPOP" => {
            let count = if words.len() > 2 { integer_at(words, 2)? } else { 1 };
            let count = usize::try_from(count).map_err(|_| MALFORMED)?.min(len);
            say(db, key, |record| record.pop(end, count))
        }
        "LSET" => {
            let index = integer_at(words, 2)?;
            let index = if index < 0 { index.saturating_add(len as i64) } else { index };
            let (index, element) = (usize::try_from(index).map_err(|_| MALFORMED)?, at(words, 3)?);
            say(db, key, |record| record.list_set(index, element))
        }
        "LTRIM" => {
            let absolute = |index: i64| if index < 0 { index.saturating_add(len as i64) } else { index };
            let start = absolute(integer_at(words, 2)?).max(0);
            let stop = absolute(integer_at(words, 3)?).min(len as i64 - 1);
            let kept = if start > stop { 0..0 } else { start as usize..stop as usize + 1 };
            say(db, key, |record| record.list_keep(kept.start, kept.len()))
        }
        "LINSERT" => {
            let behind = usize::from(is(at(words, 2)?, "AFTER"));
            let (pivot, element) = (at(words, 3)?, at(words, 4)?);
            match places(db, key, pivot)?.first() {
                Some(index) => say(db, key, |record| record.list_insert(index + behind, element)),
                None => Ok(()),
            }
        }
        _ => {
            let (count, element) = (integer_at(words, 2)?, at(words, 3)?);
            let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
            let end = if count < 0 { End::Right } else { End::Left };
            let removed = places(db, key, element)?.len().min(most);
            say(db, key, |record| record.list_remove(end, removed, element))
        }
    }
}

/// Where a list has an element with this text.
fn places(db: &mut Db<'_>, key: Key<'_>, text: &[u8]) -> Result<Vec<usize>, CommandError> {
    let mut digits = itoa::Buffer::new();
    let list = db.peek_view::<AnyList>(key)?;
    let elements = list.into_iter().flat_map(|list| list.iter()).enumerate();
    Ok(elements.filter(|(_, element)| element.as_bytes(&mut digits) == text).map(|(index, _)| index).collect())
}

pub(super) fn apply_to_hash(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Outcome {
    match name {
        "HSET" | "HMSET" | "HSETNX" => {
            let fields = pairs(words, 2)?;
            say(db, key, |record| record.hash_set(FieldExpiry::Clear, fields.iter().copied()))
        }
        "HDEL" => say(db, key, |record| record.hash_delete(words.iter().skip(2).copied())),
        "HINCRBY" => {
            let (field, increment) = (at(words, 2)?, integer_at(words, 3)?);
            let hash = db.peek_view::<AnyHash>(key)?;
            let current = match hash.and_then(|hash| hash.get(field, 0)) {
                None => 0,
                Some(value) => integer(value.item().as_bytes(&mut itoa::Buffer::new())).ok_or(MALFORMED)?,
            };
            let sum = current.checked_add(increment).ok_or(MALFORMED)?;
            let mut digits = itoa::Buffer::new();
            let sum = digits.format(sum).as_bytes();
            say(db, key, |record| record.hash_set(FieldExpiry::Keep, [field, sum].into_iter()))
        }
        "HSETEX" => {
            let (expiry, place) = match at(words, 2)? {
                word if is(word, "PXAT") => (FieldExpiry::At(field_time(words, 3)?), 4),
                word if is(word, "KEEPTTL") => (FieldExpiry::Keep, 3),
                _ => (FieldExpiry::Clear, 2),
            };
            let fields = pairs(words, behind_number(words, place)?)?;
            say(db, key, |record| record.hash_set(expiry, fields.iter().copied()))
        }
        "HPEXPIREAT" => {
            let (at, place) = (field_time(words, 2)?, behind_number(words, 3)?);
            let fields = from(words, place)?;
            say(db, key, |record| record.hash_expire_at(at, fields.iter().copied()))
        }
        _ => {
            let fields = from(words, behind_number(words, 2)?)?;
            say(db, key, |record| record.hash_persist(fields.iter().copied()))
        }
    }
}

/// Names and values from an index on.
fn pairs<'a, 'w>(words: &'a Words<'w>, index: usize) -> Result<&'a Words<'w>, CommandError> {
    from(words, index).and_then(|pairs| if pairs.len().is_multiple_of(2) { Ok(pairs) } else { Err(MALFORMED) })
}

/// Where fields begin, behind the word FIELDS and their number.
fn behind_number(words: &Words<'_>, index: usize) -> Result<usize, CommandError> {
    if !is(at(words, index)?, "FIELDS") {
        return Err(MALFORMED);
    }
    integer_at(words, index + 1).map(|_| index + 2)
}

/// When fields expire.
fn field_time(words: &Words<'_>, index: usize) -> Result<u64, CommandError> {
    u64::try_from(integer_at(words, index)?).map_err(|_| MALFORMED)
}
