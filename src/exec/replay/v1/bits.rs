//! SETBIT and BITFIELD: integers of any width inside a string.

use super::{MALFORMED, Outcome, Words, at, integer, integer_at, is, say, texts};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::core::stored_string::StringRef;
use crate::keyspace::Key;

/// The bytes of the string at a key; none if there is none.
fn bytes_of(db: &mut Db<'_>, key: Key<'_>) -> Result<Vec<u8>, CommandError> {
    Ok(match db.string_to_change(key)? {
        None => Vec::new(),
        Some(StringRef::Int(number)) => itoa::Buffer::new().format(number).as_bytes().to_vec(),
        Some(StringRef::Str(bytes) | StringRef::Raw(bytes)) => bytes.to_vec(),
    })
}

/// A field and its place: the bits from its offset on, highest first.
#[derive(Clone, Copy)]
struct Field {
    is_signed: bool,
    bits: u32,
    offset: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

pub(super) fn apply(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Outcome {
    let mut bytes = bytes_of(db, key)?;
    let before = bytes.len();
    let mut writes: Vec<(Field, Option<i64>)> = Vec::new();
    if name == "SETBIT" {
        let field = Field { is_signed: false, bits: 1, offset: offset(at(words, 2)?, None)? };
        writes.push((field, Some(integer_at(words, 3)?)));
    } else {
        writes = bitfield(&bytes, words)?;
    }
    // Room was made for every field to be written, whether it was written or not.
    let len = writes.iter().map(|(field, _)| field.end()).max().unwrap_or(0);
    if len > before {
        bytes.try_reserve(len - before).map_err(|_| CommandError::OutOfMemory)?;
        bytes.resize(len, 0);
        say(db, key, |record| record.set_range(len, b""))?;
    }
    for (field, value) in writes {
        let Some(value) = value else { continue };
        field.put(&mut bytes, value);
        let first = (field.offset >> 3) as usize;
        let part = &bytes[first..field.end()];
        say(db, key, |record| record.set_range(first, part))?;
    }
    Ok(())
}

/// The offset of a bit; behind `#` in steps of the field's width.
fn offset(word: &[u8], width: Option<u32>) -> Result<u64, CommandError> {
    let (digits, step) = match (word.strip_prefix(b"#"), width) {
        (Some(digits), Some(width)) => (digits, i64::from(width)),
        _ => (word, 1),
    };
    let offset = integer(digits).and_then(|offset| offset.checked_mul(step)).ok_or(MALFORMED)?;
    u64::try_from(offset).ok().filter(|offset| offset >> 3 < 1 << 40).ok_or(MALFORMED)
}

/// What each writing operation puts into its field; `None` if it overflowed and failed.
fn bitfield(bytes: &[u8], words: &Words<'_>) -> Result<Vec<(Field, Option<i64>)>, CommandError> {
    let (mut bytes, mut writes, mut overflow) = (bytes.to_vec(), Vec::new(), Overflow::Wrap);
    let mut place = 2;
    while let Some(word) = words.get(place) {
        if is(word, "OVERFLOW") {
            let named = at(words, place + 1)?;
            let all = [("WRAP", Overflow::Wrap), ("SAT", Overflow::Saturate), ("FAIL", Overflow::Fail)];
            overflow = all.into_iter().find(|(name, _)| is(named, name)).ok_or(MALFORMED)?.1;
            place += 2;
            continue;
        }
        let (is_signed, bits) = type_of(at(words, place + 1)?)?;
        let field = Field { is_signed, bits, offset: offset(at(words, place + 2)?, Some(bits))? };
        if is(word, "GET") {
            place += 3;
            continue;
        }
        let given = integer_at(words, place + 3)?;
        let new = match word {
            word if is(word, "SET") => field.sum(given, 0, overflow),
            word if is(word, "INCRBY") => field.sum(field.get(&bytes), given, overflow),
            _ => return Err(MALFORMED),
        };
        if let Some(new) = new {
            if bytes.len() < field.end() {
                bytes.try_reserve(field.end() - bytes.len()).map_err(|_| CommandError::OutOfMemory)?;
                bytes.resize(field.end(), 0);
            }
            field.put(&mut bytes, new);
        }
        writes.push((field, new));
        place += 4;
    }
    Ok(writes)
}

/// Whether a type is signed, and its width: `i16`, `u8`.
fn type_of(word: &[u8]) -> Result<(bool, u32), CommandError> {
    let (is_signed, digits) = match texts::until_nul(word) {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(MALFORMED),
    };
    match integer(digits) {
        Some(bits @ 1..=63) => Ok((is_signed, bits as u32)),
        Some(64) if is_signed => Ok((true, 64)),
        _ => Err(MALFORMED),
    }
}

impl Field {
    /// The length of a string that holds the whole field.
    fn end(self) -> usize {
        ((self.offset + u64::from(self.bits) - 1) >> 3) as usize + 1
    }

    /// The bytes that the field touches, with zeros behind the string; where they begin; and how far the field is from
    /// the low end.
    fn window(self, bytes: &[u8]) -> (u128, usize, u32) {
        let first = (self.offset >> 3) as usize;
        let window = bytes.get(first..).unwrap_or_default();
        let mut nine = [0; 16];
        let there = window.len().min(9);
        nine[7..7 + there].copy_from_slice(&window[..there]);
        (u128::from_be_bytes(nine), first, 72 - (self.offset & 7) as u32 - self.bits)
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    fn get(self, bytes: &[u8]) -> i64 {
        let (window, _, shift) = self.window(bytes);
        self.cut((window >> shift) as u64)
    }

    /// The number that the lowest bits of `value` are in this field.
    fn cut(self, value: u64) -> i64 {
        let unused = 64 - self.bits;
        match self.is_signed {
            true => ((value << unused) as i64) >> unused,
            false => (value & self.mask()) as i64,
        }
    }

    /// Writes the field, which lies inside `bytes`.
    fn put(self, bytes: &mut [u8], value: i64) {
        let (window, first, shift) = self.window(bytes);
        let mask = u128::from(self.mask()) << shift;
        let window = window & !mask | u128::from(value as u64) << shift & mask;
        let end = self.end();
        bytes[first..end].copy_from_slice(&window.to_be_bytes()[7..7 + end - first]);
    }

    /// The sum of `value` and `more` as the field can hold it; `None` if it cannot and must not try.
    fn sum(self, value: i64, more: i64, overflow: Overflow) -> Option<i64> {
        let limit = match self.is_signed {
            true => self.signed_limit(value, more),
            false => self.unsigned_limit(value, more),
        };
        match (limit, overflow) {
            (None, _) => Some(value.wrapping_add(more)),
            (Some(_), Overflow::Wrap) => Some(self.cut(value.wrapping_add(more) as u64)),
            (Some(limit), Overflow::Saturate) => Some(limit),
            (Some(_), Overflow::Fail) => None,
        }
    }

    /// The limit that a sum exceeds, if it does. The differences wrap around.
    fn signed_limit(self, value: i64, more: i64) -> Option<i64> {
        let max = (self.mask() >> 1) as i64;
        let min = -max - 1;
        let (room_up, room_down) = (max.wrapping_sub(value), min.wrapping_sub(value));
        let narrow = self.bits < 64;
        if value > max || (narrow && more > room_up) || (value >= 0 && more > 0 && more > room_up) {
            Some(max)
        } else if value < min || (narrow && more < room_down) || (value < 0 && more < 0 && more < room_down) {
            Some(min)
        } else {
            None
        }
    }

    /// The same for a field without a sign; a negative number to SET was one that is too large.
    fn unsigned_limit(self, value: i64, more: i64) -> Option<i64> {
        let max = self.mask();
        let value = value as u64;
        if value > max || (more > 0 && more > max.wrapping_sub(value) as i64) {
            Some(max as i64)
        } else if more < 0 && more < 0_u64.wrapping_sub(value) as i64 {
            Some(0)
        } else {
            None
        }
    }
}
