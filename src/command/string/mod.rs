//! String commands.
//!
//! - [`set`]: storing whole values, with conditions and expiries.
//! - [`counter`]: numbers, integer and floating point.
//! - [`range`]: parts of a value.
//! - [`lcs`]: the longest common subsequence of two values.
//!
//! Here: reading whole values, and what the parts share.
//!
//! Invariants:
//! - A value that is written whole and is the text of an `i64` is stored as that number (`OBJECT ENCODING`
//!   says `int`); one that was changed in place is growable (`raw`).
//! - GET and SET without options allocate nothing for values that fit a record.

mod counter;
mod lcs;
mod range;
mod set;

use super::call::string_reply;
use super::db::{shareable, string_of};
use super::{Arity, Call, Command, CommandError, Flags, Handler, KeySpec, Keys, Log, Outcome, categories, flags};
use crate::base::format;
use crate::keyspace::{Key, NewValue, ValueRef};
use crate::resp::{Elements, Reply};

/// The commands of this module.
pub static COMMANDS: &[&Command] = &[
    &range::APPEND,
    &counter::DECR,
    &counter::DECRBY,
    &GET,
    &GETDEL,
    &set::GETEX,
    &range::GETRANGE,
    &set::GETSET,
    &counter::INCR,
    &counter::INCRBY,
    &counter::INCRBYFLOAT,
    &lcs::LCS,
    &MGET,
    &set::MSET,
    &set::MSETNX,
    &set::PSETEX,
    &set::SET,
    &set::SETEX,
    &set::SETNX,
    &range::SETRANGE,
    &range::STRLEN,
    &range::SUBSTR,
];

/// What all string commands share.
const STRING: Command = Command { group: "string", categories: categories::STRING, ..Command::DEFAULT };

/// A write that may need memory, whatever the size of the value.
const WRITE_FAST: Flags = flags::WRITE.or(flags::DENYOOM).or(flags::FAST);
/// A write that may need memory and takes as long as its arguments are large.
const WRITE_SLOW: Flags = flags::WRITE.or(flags::DENYOOM);
/// A read of one value.
const READ_FAST: Flags = flags::READONLY.or(flags::FAST);

static GET: Command = Command {
    name: "GET",
    arity: Arity::Exactly(2),
    flags: READ_FAST,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(get),
    syntax: "key",
    summary: "Gives the string at a key.",
    ..STRING
};

fn get(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(match call.db.string(key)? {
        Some(value) => string_reply(reply, value),
        None => reply.null(),
    })
}

static MGET: Command = Command {
    name: "MGET",
    arity: Arity::AtLeast(2),
    flags: READ_FAST,
    keys: Keys(&[KeySpec::range(1, -1, 1, "RO access")]),
    handler: Handler::Data(mget),
    complexity: "O(N) where N is the number of keys.",
    tips: "request_policy:multi_shard",
    syntax: "key [key ...]",
    summary: "Gives the strings at several keys, null for each that holds none.",
    ..STRING
};

fn mget(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let keys = call.keys();
    let mut values = reply.array(keys.len());
    for key in keys {
        match call.db.string(key) {
            Ok(Some(value)) => string_element(&mut values, value),
            // A key of another type counts as none here: MGET never fails.
            Ok(None) | Err(_) => values.null(),
        }
    }
    Ok(values.done())
}

static GETDEL: Command = Command {
    name: "GETDEL",
    arity: Arity::Exactly(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete")]),
    log: Log::Rewritten, // as DEL, and only when the key existed
    handler: Handler::Data(getdel),
    since: "6.2.0",
    syntax: "key",
    summary: "Gives the string at a key and removes the key.",
    ..STRING
};

fn getdel(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let Some(value) = call.db.string(key)? else { return Ok(reply.null()) };
    let done = string_reply(reply, value);
    remove(call, key);
    Ok(done)
}

/// Removes a key, if it is there, and logs it.
fn remove(call: &mut Call<'_>, key: Key<'_>) {
    if call.db.remove(key) {
        call.log_as(key, &[b"DEL", key.bytes]);
    }
}

/// The value that stands for a whole text: a number where the text is one.
#[inline]
fn encoded(text: &[u8]) -> NewValue<'_> {
    match format::parse_i64(text) {
        Some(number) => NewValue::Int(number),
        None => NewValue::Bytes(text),
    }
}

/// The text of a value; `digits` holds it if the value is a number.
#[inline]
fn text<'v>(value: ValueRef<'v>, digits: &'v mut itoa::Buffer) -> &'v [u8] {
    match value {
        ValueRef::Int(number) => digits.format(number).as_bytes(),
        ValueRef::Str(bytes) | ValueRef::Raw(bytes) => bytes.as_slice(),
    }
}

/// The length of a value in bytes.
fn len(value: ValueRef<'_>) -> usize {
    text(value, &mut itoa::Buffer::new()).len()
}

/// Writes a string value as an element: a large one by reference.
fn string_element(elements: &mut Elements<'_>, value: ValueRef<'_>) {
    match shareable(&value) {
        Some(shared) => elements.shared(Box::new(shared)),
        None => elements.bulk(text(value, &mut itoa::Buffer::new())),
    }
}

/// The string at a key that is about to be changed, and the expiry to be kept (Unix ms).
#[inline]
fn string_and_expiry<'c>(
    call: &'c mut Call<'_>,
    key: Key<'_>,
) -> Result<Option<(ValueRef<'c>, Option<i64>)>, CommandError> {
    let Some(entry) = call.db.peek(key) else { return Ok(None) };
    // An expiry has 48 bits: it always fits.
    Ok(Some((string_of(entry)?, entry.expiry().map(|at| at as i64))))
}

/// The expiry of a key (Unix ms).
fn expiry_of(call: &mut Call<'_>, key: Key<'_>) -> Option<i64> {
    call.db.peek(key)?.expiry().map(|at| at as i64)
}

/// Stores a value and logs it as SET with its absolute expiry. `text` is the text of the value.
#[inline]
fn store(call: &mut Call<'_>, key: Key<'_>, value: NewValue<'_>, text: &[u8], expiry: Option<i64>) {
    call.db.set(key, value, expiry);
    match expiry {
        None => call.log_as(key, &[b"SET", key.bytes, text]),
        Some(at) => call.log_as(key, &[b"SET", key.bytes, text, b"PXAT", itoa::Buffer::new().format(at).as_bytes()]),
    }
}

/// Refuses a string of `len + more` bytes if it is longer than `proto-max-bulk-len`.
fn check_len(call: &Call<'_>, len: u64, more: u64) -> Result<(), CommandError> {
    match len.checked_add(more) {
        Some(total) if total <= call.db.facts().string_max_bytes => Ok(()),
        _ => Err(CommandError::StringTooLong),
    }
}
