//! Hash commands.
//!
//! - `read`: fields and values, as they are.
//! - `write`: storing, removing and counting up.
//! - `random`: fields at random, and walking over all of them.
//! - `expire`: when fields expire.
//! - `combined`: reading or storing fields and changing their expiry in one step.
//!
//! Here: what they share.
//!
//! Invariants:
//! - An expired field is never seen. Before a command changes fields, the expired ones among them are removed, and
//!   the removal is logged. A replay, in which nothing expires, then meets the same fields.
//! - A time reaches the log as absolute Unix milliseconds.

mod combined;
mod expire;
mod random;
mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::core::args::{integer, is};
use crate::core::{Call, Command, CommandError, Flags, categories, flags};
use crate::keyspace::Key;
use crate::resp::reply::BY_REFERENCE_MIN_BYTES;
use crate::resp::{Args, Done, Elements, Reply};
use crate::value::entry::SharedBytes;
use crate::value::hash::Value;

/// The commands of this module.
pub static COMMANDS: &[&Command] = &[
    &write::HDEL,
    &read::HEXISTS,
    &expire::HEXPIRE,
    &expire::HEXPIREAT,
    &expire::HEXPIRETIME,
    &read::HGET,
    &read::HGETALL,
    &combined::HGETDEL,
    &combined::HGETEX,
    &write::HINCRBY,
    &write::HINCRBYFLOAT,
    &read::HKEYS,
    &read::HLEN,
    &read::HMGET,
    &write::HMSET,
    &expire::HPERSIST,
    &expire::HPEXPIRE,
    &expire::HPEXPIREAT,
    &expire::HPEXPIRETIME,
    &expire::HPTTL,
    &random::HRANDFIELD,
    &random::HSCAN,
    &write::HSET,
    &combined::HSETEX,
    &write::HSETNX,
    &read::HSTRLEN,
    &expire::HTTL,
    &read::HVALS,
];

/// What all hash commands share.
const HASH: Command = Command { group: "hash", categories: categories::HASH, since: "2.0.0", ..Command::DEFAULT };

/// A write that may need memory.
const WRITE_FAST: Flags = flags::WRITE.or(flags::DENYOOM).or(flags::FAST);
/// A write that only removes, or sets expiries.
const CHANGE_FAST: Flags = flags::WRITE.or(flags::FAST);
/// A read of named fields.
const READ_FAST: Flags = flags::READONLY.or(flags::FAST);

/// The latest time at which a field may expire, Unix ms: Redis keeps 46 bits.
const FIELD_EXPIRY_MAX: i64 = (1 << 46) - 1;

/// The time for readers of a hash; 0 if nothing expires.
#[inline]
fn now(call: &Call<'_>) -> u64 {
    call.db.facts().seen_at().max(0) as u64
}

/// Removes the expired ones among these fields, and logs it, before a command changes fields.
#[inline]
fn remove_expired<'f>(call: &mut Call<'_>, key: Key<'_>, fields: impl Iterator<Item = &'f [u8]>) {
    if call.db.may_hold_expired(key) {
        call.db.expire_fields(key, |hash, now| {
            let is_over = |hash: &crate::value::hash::HashMut<'_>, field: &[u8]| {
                hash.view().get_with_expiry(field, 0).and_then(|(_, expiry)| expiry).is_some_and(|at| at <= now)
            };
            let over = fields.filter(|field| is_over(hash, field) && hash.remove(field));
            over.map(Box::from).collect()
        });
    }
}

/// A large value, which a reply sends by reference.
fn shareable(value: Value<'_>) -> Option<SharedBytes> {
    match value {
        Value::Bytes(bytes) if bytes.len() >= BY_REFERENCE_MIN_BYTES => bytes.share(),
        _ => None,
    }
}

/// A value as the reply.
#[inline]
fn value_reply(reply: Reply<'_>, value: Value<'_>) -> Done {
    match shareable(value) {
        Some(shared) => reply.shared(Box::new(shared)),
        None => reply.bulk(value.item().as_bytes(&mut itoa::Buffer::new())),
    }
}

/// A value, or null, as an element.
#[inline]
fn value_element(elements: &mut Elements<'_>, value: Option<Value<'_>>) {
    let Some(value) = value else { return elements.null() };
    match shareable(value) {
        Some(shared) => elements.shared(Box::new(shared)),
        None => elements.bulk(value.item().as_bytes(&mut itoa::Buffer::new())),
    }
}

/// A list of fields, preceded by the word FIELDS and their number.
#[derive(Clone, Copy)]
struct Fields<'a> {
    args: Args<'a>,
    first: usize,
}

impl<'a> Fields<'a> {
    /// The fields whose word is at `at`. They must be the rest of the arguments. `not_positive` is the error for a
    /// number below one.
    fn parse(args: Args<'a>, at: usize, not_positive: &'static str) -> Result<Fields<'a>, CommandError> {
        const MISSING: CommandError =
            CommandError::Text("ERR Mandatory argument FIELDS is missing or not at the right position");
        const MISMATCH: CommandError =
            CommandError::Text("ERR The `numfields` parameter must match the number of arguments");
        if !args.get(at).is_some_and(|word| is(word, "FIELDS")) {
            return Err(MISSING);
        }
        let number = args.get(at + 1).and_then(|number| integer(number).ok());
        let number = number.filter(|&number| number > 0).ok_or(CommandError::Text(not_positive))?;
        let first = at + 2;
        if number as usize != args.len() - first {
            return Err(MISMATCH);
        }
        Ok(Fields { args, first })
    }

    fn len(self) -> usize {
        self.args.len() - self.first
    }

    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.args.from(self.first)
    }
}

/// The error of most commands for a number of fields below one.
const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

/// How a time is given.
#[derive(Clone, Copy, Debug)]
struct Unit {
    seconds: bool,
    /// Counted from now, not from 1970.
    relative: bool,
}

impl Unit {
    const EX: Unit = Unit { seconds: true, relative: true };
    const PX: Unit = Unit { seconds: false, relative: true };
    const EXAT: Unit = Unit { seconds: true, relative: false };
    const PXAT: Unit = Unit { seconds: false, relative: false };

    /// The unit of an option's word.
    fn of_word(word: &[u8]) -> Option<Unit> {
        let units = [("EX", Unit::EX), ("PX", Unit::PX), ("EXAT", Unit::EXAT), ("PXAT", Unit::PXAT)];
        units.into_iter().find(|(name, _)| is(word, name)).map(|(_, unit)| unit)
    }

    /// A time in Unix ms, at least 1. `command` is named in the error.
    fn deadline(self, text: &[u8], call: &Call<'_>, command: &'static str) -> Result<u64, CommandError> {
        let given = integer(text)?;
        if given < 0 {
            return Err(CommandError::Text("ERR invalid expire time, must be >= 0"));
        }
        let ms = if self.seconds { given.checked_mul(1000) } else { Some(given) };
        let base = if self.relative { call.db.facts().now } else { 0 };
        let at = ms.and_then(|ms| ms.checked_add(base)).filter(|&at| at <= FIELD_EXPIRY_MAX);
        at.map(|at| at.max(1) as u64).ok_or(CommandError::InvalidExpire(command))
    }
}

/// Whether a time has come. In a replay none has: the log itself says when a field is removed.
fn is_over(call: &Call<'_>, at: u64) -> bool {
    !call.db.facts().replaying && at <= now(call)
}
