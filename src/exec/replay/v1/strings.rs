//! Words of strings, and whole values.

use super::{MALFORMED, Outcome, Words, at, integer, integer_at, is, number_at, say};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::core::stored_string::{StringRef, string_of};
use crate::keyspace::Key;
use crate::persist::WireValue;
use crate::value::hyperloglog::{self, Observation};

pub(super) fn apply(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Outcome {
    match name {
        "SET" => {
            let expiry = expiry_at(words, 3)?;
            say(db, key, |record| record.set(encoded(words[2]), expiry))
        }
        "STATE" => {
            let tag = u8::try_from(integer_at(words, 2)?).map_err(|_| MALFORMED)?;
            let (bytes, expiry) = (at(words, 3)?, expiry_at(words, 4)?);
            say(db, key, |record| record.set(WireValue::Collection(tag, bytes), expiry))
        }
        "APPEND" => {
            let suffix = at(words, 2)?;
            match db.exists(key) {
                true => say(db, key, |record| record.append(suffix)),
                false => say(db, key, |record| record.set(encoded(suffix), None)),
            }
        }
        "SETRANGE" => {
            let (offset, part) = (number_at(words, 2)?, at(words, 3)?);
            match part.is_empty() {
                true => Ok(()),
                false => say(db, key, |record| record.set_range(offset as usize, part)),
            }
        }
        "INCR" => add(db, key, 1),
        "DECR" => add(db, key, -1),
        "INCRBY" => add(db, key, integer_at(words, 2)?),
        "DECRBY" => add(db, key, integer_at(words, 2)?.checked_neg().ok_or(MALFORMED)?),
        _ => pfadd(db, key, words),
    }
}

/// A text was stored as a number if it was one.
fn encoded(text: &[u8]) -> WireValue<'_> {
    integer(text).map_or(WireValue::Bytes(text), WireValue::Int)
}

/// PXAT and a time, or nothing.
fn expiry_at(words: &Words<'_>, index: usize) -> Result<Option<i64>, CommandError> {
    match words.len().checked_sub(index) {
        Some(0) => Ok(None),
        Some(2) if is(words[index], "PXAT") => integer_at(words, index + 1).map(Some),
        _ => Err(MALFORMED),
    }
}

fn add(db: &mut Db<'_>, key: Key<'_>, increment: i64) -> Outcome {
    let (current, expiry) = match db.peek(key) {
        None => (0, None),
        Some(entry) => {
            let number = match string_of(entry)? {
                StringRef::Int(number) => Some(number),
                StringRef::Str(bytes) | StringRef::Raw(bytes) => integer(&bytes),
            };
            (number.ok_or(MALFORMED)?, entry.expiry().map(|at| at as i64))
        }
    };
    let sum = current.checked_add(increment).ok_or(MALFORMED)?;
    say(db, key, |record| record.set(WireValue::Int(sum), expiry))
}

fn pfadd(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    if !db.exists(key) {
        let mut hll = hyperloglog::empty();
        hyperloglog::invalidate_count(&mut hll);
        say(db, key, |record| record.set(WireValue::Bytes(&hll), None))?;
    }
    let seen = words.iter().skip(2).map(|element| Observation::of(element));
    let registers: Vec<(u16, u8)> = seen.map(|seen| (seen.register as u16, seen.rank)).collect();
    match registers.is_empty() {
        true => Ok(()),
        false => say(db, key, |record| record.raise_registers(&registers)),
    }
}
