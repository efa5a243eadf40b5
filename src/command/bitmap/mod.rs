//! Bitmaps: strings seen as bits. The first bit is the highest of the first byte.
//!
//! - here: one bit, SETBIT and GETBIT, and what the parts share.
//! - `count`: BITCOUNT.
//! - `search`: BITPOS.
//! - `operation`: BITOP.
//! - `bitfield`: integers of any width, BITFIELD and BITFIELD_RO.
//!
//! Invariants:
//! - An offset is below eight times `proto-max-bulk-len`. Memory that the system refuses is an error, never an abort.
//! - Zeros follow the end of a string. They take no memory until one of them is written.

mod bitfield;
mod count;
mod operation;
mod search;

use super::string::{room_for, text};
use crate::base::format;
use crate::core::args::{integer, is};
use crate::core::stored_string::StringRef;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, categories, flags,
};
use crate::keyspace::{Key, NewValue};
use crate::resp::Reply;

/// The commands of this module.
pub static COMMANDS: &[&Command] = &[
    &count::BITCOUNT,
    &bitfield::BITFIELD,
    &bitfield::BITFIELD_RO,
    &operation::BITOP,
    &search::BITPOS,
    &GETBIT,
    &SETBIT,
];

/// What all commands of this module share.
const BITMAP: Command = Command { group: "bitmap", categories: categories::BITMAP, ..Command::DEFAULT };

/// The error for an invalid offset.
const BAD_OFFSET: CommandError = CommandError::OutOfRange("bit offset is not an integer or out of range");

/// The offset of a bit. If `width` is given, a leading `#` counts in steps of it.
fn bit_offset(call: &Call<'_>, word: &[u8], width: Option<u32>) -> Result<u64, CommandError> {
    let (digits, step) = match (word.strip_prefix(b"#"), width) {
        (Some(digits), Some(width)) => (digits, i64::from(width)),
        _ => (word, 1),
    };
    let offset = format::parse_i64(digits).and_then(|offset| offset.checked_mul(step)).ok_or(BAD_OFFSET)?;
    let offset = u64::try_from(offset).map_err(|_| BAD_OFFSET)?;
    if offset >> 3 < call.db.facts().string_max_bytes { Ok(offset) } else { Err(BAD_OFFSET) }
}

/// This many zero bytes.
fn zeros(len: usize) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| CommandError::OutOfMemory)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Whether indices count bits (`BIT`) and not bytes (`BYTE`).
fn unit_is_bit(word: &[u8]) -> Result<bool, CommandError> {
    match (is(word, "BIT"), is(word, "BYTE")) {
        (false, false) => Err(CommandError::Syntax),
        (is_bit, _) => Ok(is_bit),
    }
}

/// The first and last bit, inclusive, that two indices mean. Negative indices count from the end of a string of `len`
/// bytes. `None` for no bit.
fn bit_range(start: i64, end: i64, is_bit: bool, len: usize) -> Option<(usize, usize)> {
    let total = if is_bit { len as i64 * 8 } else { len as i64 };
    let index = |at: i64| if at < 0 { at.saturating_add(total).max(0) } else { at };
    let (first, last) = (index(start), index(end).min(total - 1));
    match (first <= last, is_bit) {
        (false, _) => None,
        (true, true) => Some((first as usize, last as usize)),
        (true, false) => Some((first as usize * 8, last as usize * 8 + 7)),
    }
}

/// The byte that contains a bit, and the mask of the bit in it.
fn place(offset: u64) -> (usize, u8) {
    ((offset >> 3) as usize, 0x80 >> (offset & 7))
}

static GETBIT: Command = Command {
    name: "GETBIT",
    arity: Arity::Exactly(3),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(getbit),
    since: "2.2.0",
    syntax: "key offset",
    summary: "Gives the bit at an offset of the string at a key.",
    ..BITMAP
};

fn getbit(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (byte, bit) = place(bit_offset(call, call.args.at(2), None)?);
    let mut digits = itoa::Buffer::new();
    let key = call.key(1);
    let bytes = call.db.string(key)?.map_or(&b""[..], |value| text(value, &mut digits));
    Ok(reply.int(i64::from(bytes.get(byte).is_some_and(|byte| byte & bit != 0))))
}

static SETBIT: Command = Command {
    name: "SETBIT",
    arity: Arity::Exactly(4),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: LogRule::Effects,
    handler: Handler::Data(setbit),
    since: "2.2.0",
    syntax: "key offset value",
    summary: "Sets or clears the bit at an offset of the string at a key, and gives what it was.",
    ..BITMAP
};

fn setbit(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (byte, bit) = place(bit_offset(call, call.args.at(2), None)?);
    let on = match integer(call.args.at(3)) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(CommandError::OutOfRange("bit is not an integer or out of range")),
    };
    let key = call.key(1);
    let mut digits = itoa::Buffer::new();
    let old = call.db.string_to_change(key)?;
    let is_growable = matches!(old, Some(StringRef::Raw(_)));
    let old = old.map(|value| text(value, &mut digits));
    let was = old.and_then(|bytes| bytes.get(byte)).map(|byte| byte & bit != 0);
    if was == Some(on) {
        if !is_growable {
            call.db.make_growable(key);
        }
        return Ok(reply.int(i64::from(on)));
    }
    let len = old.map(<[u8]>::len);
    let written = with_room(call, key, len, byte + 1, |bytes| {
        match on {
            true => bytes[byte] |= bit,
            false => bytes[byte] &= !bit,
        }
        bytes[byte]
    })?;
    call.record(key).set_range(byte, &[written]);
    call.db.notify(NotifyFlags::STRING, "setbit", key);
    Ok(reply.int(i64::from(was == Some(true))))
}

/// Changes the string at a key, which has `old` bytes if it exists, and at least `len` when `change` sees it. All
/// checks must be done.
fn with_room<T>(
    call: &mut Call<'_>,
    key: Key<'_>,
    old: Option<usize>,
    len: usize,
    change: impl FnOnce(&mut [u8]) -> T,
) -> Result<T, CommandError> {
    let Some(old) = old else {
        call.db.needs_room(len)?;
        let mut bytes = zeros(len)?;
        let result = change(&mut bytes);
        call.db.set(key, NewValue::Raw(bytes), None);
        return Ok(result);
    };
    let bytes = room_for(call, key, old.max(len))?;
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
    Ok(change(bytes))
}

#[cfg(test)]
mod tests;
