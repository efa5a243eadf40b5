//! Commands that store, remove and increment fields.
//!
//! Counters are logged by their result, never by their operand: a replay must not depend on the arithmetic.
//! HINCRBYFLOAT calculates as C's `long double` does.

use smallvec::SmallVec;

use super::{CHANGE_FAST, HASH, WRITE_FAST, remove_expired};
use crate::base::long_double::LongDouble;
use crate::core::args::integer;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome};
use crate::persist::verbs::FieldExpiry;
use crate::resp::Reply;
use crate::value::hash::{AnyHash, NewExpiry};

pub(super) static HSET: Command = Command {
    name: "HSET",
    arity: Arity::AtLeast(4),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    member: 2,
    handler: Handler::Data(hset),
    complexity: "O(1) for each field, so O(N) for N of them.",
    syntax: "key field value [field value ...]",
    summary: "Stores fields, and makes the hash if there is none.",
    ..HASH
};

#[inline]
fn hset(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let created = set_pairs(call)?;
    Ok(reply.int(created))
}

pub(super) static HMSET: Command = Command {
    name: "HMSET",
    handler: Handler::Data(hmset),
    complexity: "O(N) where N is the number of fields.",
    summary: "Stores fields as HSET does, and replies OK.",
    ..HSET
};

fn hmset(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    set_pairs(call)?;
    Ok(reply.ok())
}

/// Stores the fields and values that follow the key. Returns how many fields are new.
#[inline]
fn set_pairs(call: &mut Call<'_>) -> Result<i64, CommandError> {
    let args = call.args;
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(call.name().to_owned()));
    }
    let key = call.key(1);
    remove_expired(call, key, args.from(2).step_by(2));
    let created = call.db.edit::<AnyHash, _>(key, |hash| {
        let fields = (2..args.len()).step_by(2).map(|at| (args.at(at), args.at(at + 1)));
        let count = fields.len() as u64;
        Ok((hash.set_all(fields) as i64, count))
    })?;
    call.record(key).hash_set(FieldExpiry::Clear, args.from(2));
    call.db.notify_fields("hset", key, args.from(2).step_by(2));
    Ok(created)
}

pub(super) static HSETNX: Command = Command {
    name: "HSETNX",
    arity: Arity::Exactly(4),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW insert")]),
    log: LogRule::Effects, // only when the field is new
    handler: Handler::Data(hsetnx),
    syntax: "key field value",
    summary: "Stores a field unless the hash has it.",
    ..HASH
};

fn hsetnx(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, field, value) = (call.key(1), call.args.at(2), call.args.at(3));
    remove_expired(call, key, std::iter::once(field));
    let stored = call.db.edit::<AnyHash, _>(key, |hash| {
        let is_new = !hash.view().contains(field, 0);
        if is_new {
            hash.set(field, value, NewExpiry::Clear);
        }
        Ok((is_new, is_new.into()))
    })?;
    if stored {
        call.record(key).hash_set(FieldExpiry::Clear, [field, value].into_iter());
        call.db.notify_fields("hset", key, std::iter::once(field));
    }
    Ok(reply.int(stored.into()))
}

pub(super) static HDEL: Command = Command {
    name: "HDEL",
    arity: Arity::AtLeast(3),
    flags: CHANGE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects, // only when a field was there
    member: 2,
    handler: Handler::Data(hdel),
    complexity: "O(N) where N is the number of fields to remove.",
    syntax: "key field [field ...]",
    summary: "Removes fields, and the hash with its last one.",
    ..HASH
};

fn hdel(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, key) = (call.args, call.key(1));
    remove_expired(call, key, args.from(2));
    let removed: SmallVec<[&[u8]; 4]> = call.db.edit::<AnyHash, _>(key, |hash| {
        let removed: SmallVec<[&[u8]; 4]> = args.from(2).filter(|field| hash.remove(field)).collect();
        let changes = removed.len() as u64;
        Ok((removed, changes))
    })?;
    if !removed.is_empty() {
        call.record(key).hash_delete(args.from(2));
        call.db.notify_fields("hdel", key, removed.iter().copied());
        call.db.notify_if_gone(key);
    }
    Ok(reply.int(removed.len() as i64))
}

pub(super) static HINCRBY: Command = Command {
    name: "HINCRBY",
    arity: Arity::Exactly(4),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: LogRule::Effects,
    member: 2,
    handler: Handler::Data(hincrby),
    syntax: "key field increment",
    summary: "Adds to the integer in a field; a missing field counts as 0.",
    ..HASH
};

fn hincrby(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    const NOT_INTEGER: CommandError = CommandError::Text("ERR hash value is not an integer");
    let (key, field, increment) = (call.key(1), call.args.at(2), integer(call.args.at(3))?);
    remove_expired(call, key, std::iter::once(field));
    let sum = call.db.edit::<AnyHash, _>(key, |hash| {
        let current = match hash.view().get(field, 0) {
            Some(value) => value.item().to_i64().ok_or(NOT_INTEGER)?,
            None => 0,
        };
        let sum = current.checked_add(increment).ok_or(CommandError::Overflow)?;
        hash.set(field, sum, NewExpiry::Keep);
        Ok((sum, 1))
    })?;
    let mut digits = itoa::Buffer::new();
    let text = digits.format(sum).as_bytes();
    call.record(key).hash_set(FieldExpiry::Keep, [field, text].into_iter());
    call.db.notify_fields("hincrby", key, std::iter::once(field));
    Ok(reply.int(sum))
}

pub(super) static HINCRBYFLOAT: Command = Command {
    name: "HINCRBYFLOAT",
    log: LogRule::Effects,
    handler: Handler::Data(hincrbyfloat),
    since: "2.6.0",
    summary: "Adds to the floating-point number in a field; a missing field counts as 0.",
    ..HINCRBY
};

fn hincrbyfloat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    const NOT_FLOAT: CommandError = CommandError::Text("ERR hash value is not a float");
    let (key, field) = (call.key(1), call.args.at(2));
    let increment = LongDouble::parse(call.args.at(3)).ok_or(CommandError::NotFloat)?;
    if !increment.is_finite() {
        return Err(CommandError::Text("ERR value is NaN or Infinity"));
    }
    remove_expired(call, key, std::iter::once(field));
    let text = call.db.edit::<AnyHash, _>(key, |hash| {
        let current = match hash.view().get(field, 0) {
            Some(value) => LongDouble::parse(value.item().as_bytes(&mut itoa::Buffer::new())).ok_or(NOT_FLOAT)?,
            None => LongDouble::from_i64(0),
        };
        let sum = current.checked_add(increment).ok_or(CommandError::NanOrInfinity)?;
        let mut text = Vec::new();
        sum.write_human(&mut text);
        hash.set(field, &text, NewExpiry::Keep);
        Ok((text, 1))
    })?;
    call.record(key).hash_set(FieldExpiry::Keep, [field, &text[..]].into_iter());
    call.db.notify_fields("hincrbyfloat", key, std::iter::once(field));
    Ok(reply.bulk(&text))
}
