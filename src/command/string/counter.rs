//! Counters: integers, and floating-point numbers.
//!
//! Invariants:
//! - The result of integer arithmetic is stored as a number, the expiry kept.
//! - INCRBYFLOAT calculates as C's `long double` does and is logged by its result, never by its operand: a
//!   replay must not depend on the arithmetic.

use super::{STRING, WRITE_FAST, store, string_and_expiry};
use crate::base::long_double::LongDouble;
use crate::command::args::integer;
use crate::command::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Log, Outcome};
use crate::keyspace::{NewValue, ValueRef};
use crate::resp::Reply;

/// What all counters share: logged as received, for the sum depends on the key alone.
const COUNTER: Command =
    Command { flags: WRITE_FAST, keys: Keys(&[KeySpec::at(1, "RW access update")]), log: Log::Verbatim, ..STRING };

pub(super) static INCR: Command = Command {
    name: "INCR",
    arity: Arity::Exactly(2),
    handler: Handler::Data(incr),
    syntax: "key",
    summary: "Adds one to the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn incr(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    add(call, reply, 1)
}

pub(super) static DECR: Command = Command {
    name: "DECR",
    arity: Arity::Exactly(2),
    handler: Handler::Data(decr),
    syntax: "key",
    summary: "Subtracts one from the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn decr(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    add(call, reply, -1)
}

pub(super) static INCRBY: Command = Command {
    name: "INCRBY",
    arity: Arity::Exactly(3),
    handler: Handler::Data(incrby),
    syntax: "key increment",
    summary: "Adds to the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn incrby(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let increment = integer(call.args.at(2))?;
    add(call, reply, increment)
}

pub(super) static DECRBY: Command = Command {
    name: "DECRBY",
    arity: Arity::Exactly(3),
    handler: Handler::Data(decrby),
    syntax: "key decrement",
    summary: "Subtracts from the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn decrby(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let decrement = integer(call.args.at(2))?;
    add(call, reply, decrement.checked_neg().ok_or(CommandError::DecrementOverflow)?)
}

fn add(call: &mut Call<'_>, reply: Reply<'_>, increment: i64) -> Outcome {
    let key = call.key(1);
    let (current, expiry) = match string_and_expiry(call, key)? {
        None => (0, None),
        Some((ValueRef::Int(number), expiry)) => (number, expiry),
        Some((ValueRef::Str(bytes) | ValueRef::Raw(bytes), expiry)) => (integer(&bytes)?, expiry),
    };
    let sum = current.checked_add(increment).ok_or(CommandError::Overflow)?;
    call.db.set(key, NewValue::Int(sum), expiry);
    Ok(reply.int(sum))
}

pub(super) static INCRBYFLOAT: Command = Command {
    name: "INCRBYFLOAT",
    arity: Arity::Exactly(3),
    log: Log::Rewritten, // as SET of the result
    handler: Handler::Data(incrbyfloat),
    since: "2.6.0",
    syntax: "key increment",
    summary: "Adds to the floating-point number at a key; a missing key counts as 0.",
    ..COUNTER
};

fn incrbyfloat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let (current, expiry) = match string_and_expiry(call, key)? {
        None => (Some(LongDouble::from_i64(0)), None),
        Some((ValueRef::Int(number), expiry)) => (Some(LongDouble::from_i64(number)), expiry),
        Some((ValueRef::Str(bytes) | ValueRef::Raw(bytes), expiry)) => (LongDouble::parse(&bytes), expiry),
    };
    let current = current.ok_or(CommandError::NotFloat)?;
    let increment = LongDouble::parse(call.args.at(2)).ok_or(CommandError::NotFloat)?;
    let sum = current.checked_add(increment).ok_or(CommandError::NanOrInfinity)?;
    let mut text = Vec::new();
    sum.write_human(&mut text);
    // Not as a number, even where it is one: `OBJECT ENCODING` says `embstr` in Redis too.
    store(call, key, NewValue::Bytes(&text), &text, expiry);
    Ok(reply.bulk(&text))
}
