//! Commands for keys of every type: whether they exist, what they are, removing, renaming, copying.
//!
//! A value travels to its new name as it is: by reference where it lies on the heap, so that renaming a
//! large value costs no more than a small one.

use smallvec::SmallVec;

use super::{
    Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, Log, Outcome, Words, args, categories, flags,
};
use crate::keyspace::entry::{INLINE_VALUE_MAX, Kind};
use crate::keyspace::{EntryRef, Key, NewValue};
use crate::resp::Reply;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&COPY, &DEL, &EXISTS, &MOVE, &RENAME, &RENAMENX, &TOUCH, &TYPE, &UNLINK];

/// All arguments are keys.
const EVERY_ARGUMENT_RO: Keys = Keys(&[KeySpec::range(1, -1, 1, "RO")]);
const EVERY_ARGUMENT_DELETED: Keys = Keys(&[KeySpec::range(1, -1, 1, "RM delete")]);
const PER_SHARD_SUM: &str = "request_policy:multi_shard response_policy:agg_sum";

/// The type of a value, as `TYPE` names it.
pub fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Int | Kind::Str | Kind::Raw => "string",
    }
}

/// An argument that names a database.
///
/// # Errors
/// It is no integer, or there is no such database.
pub fn database(argument: &[u8], databases: u32) -> Result<u32, CommandError> {
    let number = args::integer(argument)?;
    if i32::try_from(number).is_err() {
        let text = "value is out of range, value must between -2147483648 and 2147483647";
        return Err(CommandError::OutOfRange(text));
    }
    match u32::try_from(number) {
        Ok(index) if index < databases => Ok(index),
        _ => Err(CommandError::OutOfRange("DB index is out of range")),
    }
}

/// A value on its way from one key to another, with its expiry.
struct Carried {
    body: Body,
    expiry: Option<i64>,
}

enum Body {
    /// Short bytes, which lay in the record.
    Inline(SmallVec<[u8; INLINE_VALUE_MAX]>),
    /// Anything that has an owner of its own: a number, a payload by reference.
    Owned(NewValue<'static>),
}

impl Carried {
    fn of(entry: EntryRef<'_>) -> Carried {
        let body = match entry.to_new_value() {
            NewValue::Bytes(bytes) => Body::Inline(SmallVec::from_slice(bytes)),
            NewValue::Int(number) => Body::Owned(NewValue::Int(number)),
            NewValue::Shared(bytes) => Body::Owned(NewValue::Shared(bytes)),
            NewValue::Raw(bytes) => Body::Owned(NewValue::Raw(bytes)),
            NewValue::Heap(heap) => Body::Owned(NewValue::Heap(heap)),
        };
        Carried { body, expiry: entry.expiry().map(|at| at as i64) }
    }

    /// Stores the value at `key` in the database that `db` works on, and logs it as a whole: its record
    /// must not depend on the key that it came from.
    fn store(self, db: &mut Db<'_>, key: Key<'_>) {
        match self.body {
            Body::Inline(bytes) => db.set(key, NewValue::Bytes(&bytes), self.expiry),
            Body::Owned(value) => db.set(key, value, self.expiry),
        }
        db.log_state(key);
    }
}

/// Removes a key whose value has gone elsewhere; both together count as one change.
fn remove_source(db: &mut Db<'_>, key: Key<'_>) {
    db.remove(key);
    db.log(key, &[b"DEL", key.bytes]);
    db.scratch().dirty -= 1;
}

static DEL: Command = Command {
    name: "DEL",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE,
    categories: categories::KEYSPACE,
    keys: EVERY_ARGUMENT_DELETED,
    log: Log::Rewritten,
    handler: Handler::Data(del),
    complexity: "O(N), where N is the number of keys: large values are freed in the background.",
    tips: PER_SHARD_SUM,
    syntax: "key [key ...]",
    summary: "Removes keys, whatever they hold.",
    ..Command::DEFAULT
};

static UNLINK: Command = Command {
    name: "UNLINK",
    flags: flags::WRITE.or(flags::FAST),
    since: "4.0.0",
    summary: "Removes keys and frees what they hold in the background.",
    ..DEL
};

fn del(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut removed = 0;
    for key in call.keys() {
        if call.db.remove(key) {
            call.log_as(key, &[b"DEL", key.bytes]);
            removed += 1;
        }
    }
    Ok(reply.int(removed))
}

static EXISTS: Command = Command {
    name: "EXISTS",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: EVERY_ARGUMENT_RO,
    handler: Handler::Data(exists),
    complexity: "O(N), where N is the number of keys.",
    tips: PER_SHARD_SUM,
    syntax: "key [key ...]",
    summary: "Counts how many of the given keys exist, a repeated one each time.",
    ..Command::DEFAULT
};

fn exists(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let found = call.keys().filter(|key| call.db.read(*key).is_some()).count();
    Ok(reply.int(found as i64))
}

static TOUCH: Command = Command {
    name: "TOUCH",
    arity: Arity::AtLeast(2),
    // The touch is explicit, for it happens even if the client asked for NO-TOUCH.
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: EVERY_ARGUMENT_RO,
    handler: Handler::Data(touch),
    since: "3.2.1",
    complexity: "O(N), where N is the number of keys.",
    tips: PER_SHARD_SUM,
    syntax: "key [key ...]",
    summary: "Marks keys as used now, and counts those that exist.",
    ..Command::DEFAULT
};

fn touch(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut found = 0;
    for key in call.keys() {
        if call.db.read(key).is_some() {
            call.db.touch(key);
            found += 1;
        }
    }
    Ok(reply.int(found))
}

static TYPE: Command = Command {
    name: "TYPE",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(type_of),
    syntax: "key",
    summary: "Names the type of the value at a key.",
    ..Command::DEFAULT
};

fn type_of(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let kind = call.db.read(key).map(|entry| entry.kind());
    Ok(reply.simple(kind.map_or("none", type_name)))
}

static RENAME: Command = Command {
    name: "RENAME",
    arity: Arity::Exactly(3),
    flags: flags::WRITE,
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RW access delete"), KeySpec::at(2, "OW update")]),
    log: Log::Rewritten,
    handler: Handler::Data(rename),
    syntax: "key newkey",
    summary: "Gives a key another name, replacing what that name held.",
    ..Command::DEFAULT
};

fn rename(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    rename_generic(call, false)?;
    Ok(reply.ok())
}

static RENAMENX: Command = Command {
    name: "RENAMENX",
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete"), KeySpec::at(2, "OW insert")]),
    handler: Handler::Data(renamenx),
    summary: "Gives a key another name, unless that name is taken.",
    ..RENAME
};

fn renamenx(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let renamed = rename_generic(call, true)?;
    Ok(reply.int(renamed.into()))
}

/// Moves the first key to the name of the second; `only_new`: not if there is one. Returns whether it did.
fn rename_generic(call: &mut Call<'_>, only_new: bool) -> Result<bool, CommandError> {
    let (from, to) = (call.key(1), call.key(2));
    let carried = call.db.peek(from).map(Carried::of).ok_or(CommandError::NoSuchKey)?;
    if from.bytes == to.bytes || only_new && call.db.exists(to) {
        return Ok(false);
    }
    carried.store(&mut call.db, to);
    remove_source(&mut call.db, from);
    Ok(true)
}

static COPY: Command = Command {
    name: "COPY",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::DENYOOM),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RO access"), KeySpec::at(2, "OW update")]),
    log: Log::Rewritten,
    handler: Handler::Data(copy),
    since: "6.2.0",
    complexity: "O(1): the copy shares the value until one of them changes.",
    syntax: "source destination [DB destination-db] [REPLACE]",
    summary: "Copies the value and the expiry of a key to another key, or to another database.",
    ..Command::DEFAULT
};

fn copy(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let source_db = call.db.index();
    let databases = call.db.keyspace().databases();
    let (mut target_db, mut replace) = (source_db, false);
    let mut words = Words::new(call.args, 3);
    while let Some(word) = words.next() {
        if args::is(word, "REPLACE") {
            replace = true;
        } else if args::is(word, "DB") {
            target_db = database(words.value()?, databases)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (from, to) = (call.key(1), call.key(2));
    if source_db == target_db && from.bytes == to.bytes {
        return Err(CommandError::Text("ERR source and destination objects are the same"));
    }
    let Some(carried) = call.db.read(from).map(Carried::of) else { return Ok(reply.int(0)) };
    call.db.select(target_db);
    let free = replace || !call.db.exists(to);
    if free {
        carried.store(&mut call.db, to);
    }
    call.db.select(source_db);
    Ok(reply.int(free.into()))
}

static MOVE: Command = Command {
    name: "MOVE",
    arity: Arity::Exactly(3),
    flags: flags::WRITE.or(flags::FAST),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: Log::Rewritten,
    handler: Handler::Data(move_key),
    syntax: "key db",
    summary: "Moves a key to another database, unless that one has such a key.",
    ..Command::DEFAULT
};

fn move_key(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let source_db = call.db.index();
    let target_db = database(call.args.at(2), call.db.keyspace().databases())?;
    if source_db == target_db {
        return Err(CommandError::Text("ERR source and destination objects are the same"));
    }
    let key = call.key(1);
    let Some(carried) = call.db.peek(key).map(Carried::of) else { return Ok(reply.int(0)) };
    call.db.select(target_db);
    let free = !call.db.exists(key);
    if free {
        carried.store(&mut call.db, key);
    }
    call.db.select(source_db);
    if free {
        remove_source(&mut call.db, key);
    }
    Ok(reply.int(free.into()))
}
