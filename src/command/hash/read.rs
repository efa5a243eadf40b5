//! Commands that read fields and values.

use super::{HASH, READ_FAST, now, value_element, value_reply};
use crate::core::{Arity, Call, Command, Handler, KeySpec, Keys, Outcome, flags};
use crate::resp::Reply;
use crate::value::hash::AnyHash;

/// The key of a command that reads the value, ...
pub(super) const ACCESSED: Keys = Keys(&[KeySpec::at(1, "RO access")]);
/// ... and of one that only reads metadata.
const LOOKED_AT: Keys = Keys(&[KeySpec::at(1, "RO")]);

pub(super) static HGET: Command = Command {
    name: "HGET",
    arity: Arity::Exactly(3),
    flags: READ_FAST,
    keys: ACCESSED,
    member: 2,
    handler: Handler::Data(hget),
    syntax: "key field",
    summary: "Gives the value of a field.",
    ..HASH
};

#[inline]
fn hget(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, field, key) = (now(call), call.args.at(2), call.key(1));
    let value = call.db.view::<AnyHash>(key)?.and_then(|hash| hash.get(field, now));
    Ok(match value {
        Some(value) => value_reply(reply, value),
        None => reply.null(),
    })
}

pub(super) static HMGET: Command = Command {
    name: "HMGET",
    arity: Arity::AtLeast(3),
    flags: READ_FAST,
    keys: ACCESSED,
    handler: Handler::Data(hmget),
    complexity: "O(N) where N is the number of fields asked for.",
    syntax: "key field [field ...]",
    summary: "Gives the values of several fields, null for each that is missing.",
    ..HASH
};

fn hmget(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, args, key) = (now(call), call.args, call.key(1));
    let hash = call.db.view::<AnyHash>(key)?;
    let mut values = reply.array(args.len() - 2);
    for field in args.from(2) {
        value_element(&mut values, hash.and_then(|hash| hash.get(field, now)));
    }
    Ok(values.done())
}

pub(super) static HEXISTS: Command = Command {
    name: "HEXISTS",
    arity: Arity::Exactly(3),
    flags: READ_FAST,
    keys: LOOKED_AT,
    member: 2,
    handler: Handler::Data(hexists),
    syntax: "key field",
    summary: "Tells whether a hash has a field.",
    ..HASH
};

fn hexists(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, field, key) = (now(call), call.args.at(2), call.key(1));
    let exists = call.db.view::<AnyHash>(key)?.is_some_and(|hash| hash.contains(field, now));
    Ok(reply.int(exists.into()))
}

pub(super) static HSTRLEN: Command = Command {
    name: "HSTRLEN",
    arity: Arity::Exactly(3),
    flags: READ_FAST,
    keys: LOOKED_AT,
    handler: Handler::Data(hstrlen),
    since: "3.2.0",
    syntax: "key field",
    summary: "Gives the length of a field's value in bytes.",
    ..HASH
};

fn hstrlen(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, field, key) = (now(call), call.args.at(2), call.key(1));
    let value = call.db.view::<AnyHash>(key)?.and_then(|hash| hash.get(field, now));
    Ok(reply.int(value.map_or(0, |value| value.item().text_len() as i64)))
}

pub(super) static HLEN: Command = Command {
    name: "HLEN",
    arity: Arity::Exactly(2),
    flags: READ_FAST,
    keys: LOOKED_AT,
    handler: Handler::Data(hlen),
    syntax: "key",
    summary: "Counts the fields of a hash.",
    ..HASH
};

fn hlen(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, key) = (now(call), call.key(1));
    Ok(reply.int(call.db.view::<AnyHash>(key)?.map_or(0, |hash| hash.len(now) as i64)))
}

pub(super) static HGETALL: Command = Command {
    name: "HGETALL",
    arity: Arity::Exactly(2),
    flags: flags::READONLY,
    keys: ACCESSED,
    handler: Handler::Data(hgetall),
    complexity: "O(N) where N is the number of fields.",
    tips: "nondeterministic_output_order",
    syntax: "key",
    summary: "Gives all fields with their values.",
    ..HASH
};

fn hgetall(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, key) = (now(call), call.key(1));
    let Some(hash) = call.db.view::<AnyHash>(key)? else { return Ok(reply.map(0).done()) };
    let mut digits = itoa::Buffer::new();
    let mut pairs = reply.map(hash.len(now));
    for field in hash.iter(now) {
        pairs.bulk(field.name.as_bytes(&mut digits));
        value_element(&mut pairs, Some(field.value));
    }
    Ok(pairs.done())
}

pub(super) static HKEYS: Command = Command {
    name: "HKEYS",
    handler: Handler::Data(hkeys),
    summary: "Gives all fields without their values.",
    ..HGETALL
};

fn hkeys(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, key) = (now(call), call.key(1));
    let Some(hash) = call.db.view::<AnyHash>(key)? else { return Ok(reply.array(0).done()) };
    let mut digits = itoa::Buffer::new();
    let mut names = reply.array(hash.len(now));
    hash.iter(now).for_each(|field| names.bulk(field.name.as_bytes(&mut digits)));
    Ok(names.done())
}

pub(super) static HVALS: Command =
    Command { name: "HVALS", handler: Handler::Data(hvals), summary: "Gives the values of all fields.", ..HGETALL };

fn hvals(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, key) = (now(call), call.key(1));
    let Some(hash) = call.db.view::<AnyHash>(key)? else { return Ok(reply.array(0).done()) };
    let mut values = reply.array(hash.len(now));
    hash.iter(now).for_each(|field| value_element(&mut values, Some(field.value)));
    Ok(values.done())
}
