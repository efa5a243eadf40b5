//! HIMPORT: hashes of one shape, whose field names a connection has prepared.
//!
//! Invariants:
//! - A hash that it stores is one like any other: the log holds its state, and it outlives the fieldset.
//! - The fieldsets of a connection take no more than `client-query-buffer-limit`, and go with it, or by RESET.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::fieldsets::{Fieldset, Fieldsets};
use crate::core::{
    Arity, Call, Command, CommandError, Flags, Handler, KeySpec, Keys, LogRule, Outcome, SessionCall, categories, flags,
};
use crate::keyspace::NewValue;
use crate::resp::Reply;
use crate::value::collection::{Collection, Finished};
use crate::value::hash::{AnyHash, HashMut};

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&HIMPORT];

/// What all subcommands share.
const PART: Command = Command {
    flags: OF_CONNECTION,
    categories: categories::HASH,
    group: "hash",
    since: "8.10.0",
    complexity: "O(N) where N is the number of fields.",
    ..Command::DEFAULT
};

/// What changes the connection alone.
const OF_CONNECTION: Flags = flags::NOSCRIPT;

static HIMPORT: Command = Command {
    name: "HIMPORT",
    arity: Arity::AtLeast(2),
    categories: categories::HASH,
    handler: Handler::Container(&[&DISCARD, &DISCARDALL, &PREPARE, &SET]),
    since: "8.10.0",
    group: "hash",
    complexity: "Depends on subcommand.",
    summary: "Stores hashes whose field names the connection has prepared.",
    ..Command::DEFAULT
};

static PREPARE: Command = Command {
    name: "PREPARE",
    arity: Arity::AtLeast(4),
    handler: Handler::Session(prepare),
    syntax: "fieldset-name field [field ...]",
    summary: "Keeps field names under a name, for this connection.",
    ..PART
};

static SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::DENYOOM).or(OF_CONNECTION),
    keys: Keys(&[KeySpec::at(2, "OW update")]),
    log: LogRule::Effects, // as the state of the key
    handler: Handler::Data(set),
    syntax: "key fieldset-name value [value ...]",
    summary: "Stores a hash with the fields of a fieldset, whatever hash was there.",
    ..PART
};

static DISCARD: Command = Command {
    name: "DISCARD",
    arity: Arity::Exactly(3),
    handler: Handler::Session(discard),
    syntax: "fieldset-name",
    summary: "Drops a fieldset of this connection.",
    ..PART
};

static DISCARDALL: Command = Command {
    name: "DISCARDALL",
    arity: Arity::Exactly(2),
    handler: Handler::Session(discard_all),
    summary: "Drops all fieldsets of this connection.",
    ..PART
};

fn prepare(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    let fieldset = Fieldset::new(name, call.args.from(3));
    let fieldset = fieldset.ok_or(CommandError::Text("ERR duplicate field name in fieldset"))?;
    let fieldsets = call.client.fieldsets.get_or_insert_default();
    let replaced = fieldsets.get(name).map_or(0, Fieldset::bytes);
    let bytes = fieldsets.bytes() - replaced + fieldset.bytes();
    if bytes as u64 > call.server.config.settings().client_query_buffer_limit {
        return Err(CommandError::Text("ERR the fieldsets of this connection would exceed client-query-buffer-limit"));
    }
    Arc::make_mut(fieldsets).put(name, fieldset);
    note_bytes(call);
    Ok(reply.ok())
}

fn discard(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    let had = call.client.fieldsets.as_mut().is_some_and(|fieldsets| Arc::make_mut(fieldsets).discard(name));
    note_bytes(call);
    Ok(reply.int(had.into()))
}

fn discard_all(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let had = call.client.fieldsets.take().map_or(0, |fieldsets| fieldsets.len());
    note_bytes(call);
    Ok(reply.int(had as i64))
}

/// Notes what the fieldsets of the connection take.
fn note_bytes(call: &SessionCall<'_>) {
    let bytes = call.client.fieldsets.as_deref().map_or(0, Fieldsets::bytes);
    call.client.record.fieldset_bytes.store(bytes as u64, Relaxed);
}

fn set(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, key) = (call.args, call.key(2));
    call.db.peek_view::<AnyHash>(key)?;
    let fieldsets = call.fieldsets.clone();
    let fieldset = fieldsets.as_ref().and_then(|fieldsets| fieldsets.get(args.at(3)));
    let fieldset = fieldset.ok_or(CommandError::Text("ERR no such fieldset"))?;
    if args.len() - 4 != fieldset.len() {
        return Err(CommandError::Text("ERR value count does not match fieldset field count"));
    }
    let limits = call.db.facts().limits;
    let mut hash = HashMut::empty(Vec::new(), &limits);
    hash.expect_more();
    hash.set_all(fieldset.iter().map(|(field, at)| (field, args.at(4 + at))));
    match AnyHash::finish(hash) {
        Finished::Packed(packing, bytes) => call.db.overwrite(key, NewValue::Packed(packing, &bytes), None),
        Finished::Large(heap) => call.db.overwrite(key, NewValue::Heap(heap), None),
        Finished::Empty | Finished::InPlace => unreachable!("a fieldset has fields"),
    }
    call.db.log_state(key);
    call.db.notify_fields("hset", key, fieldset.iter().map(|(field, _)| field));
    Ok(reply.ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;

    #[test]
    fn hashes_are_made_of_prepared_fields() {
        let mut t = Runner::new();
        for (line, expected) in [
            ("HIMPORT SET k shape 1", "-ERR no such fieldset "),
            ("HIMPORT PREPARE shape b aa a", "+OK "),
            ("HIMPORT SET k shape 1 2 3", "+OK "),
            ("HGETALL k", "*6 $1 a $1 3 $1 b $1 1 $2 aa $1 2 "),
            ("EXPIRE k 100", ":1 "),
            ("HSET k more 1", ":1 "),
            ("HIMPORT SET k shape 4 5 6", "+OK "),
            ("HLEN k", ":3 "),
            ("TTL k", ":-1 "),
            ("HIMPORT SET k shape 1 2", "-ERR value count does not match fieldset field count "),
            ("HIMPORT PREPARE shape c c", "-ERR duplicate field name in fieldset "),
            ("HIMPORT SET k shape 1 2 3 4", "-ERR value count does not match fieldset field count "),
            ("SET s v", "+OK "),
            ("HIMPORT SET s none 1", "-WRONGTYPE Operation against a key holding the wrong kind of value "),
            ("HIMPORT PREPARE shape z", "+OK "),
            ("HIMPORT SET k shape 1", "+OK "),
            ("HGETALL k", "*2 $1 z $1 1 "),
            ("HIMPORT DISCARD shape", ":1 "),
            ("HIMPORT DISCARD shape", ":0 "),
            ("HIMPORT PREPARE one a", "+OK "),
            ("HIMPORT PREPARE two a", "+OK "),
            ("HIMPORT DISCARDALL", ":2 "),
            ("HIMPORT DISCARDALL", ":0 "),
            ("HIMPORT PREPARE one a", "+OK "),
            ("RESET", "+RESET "),
            ("HIMPORT SET k one 1", "-ERR no such fieldset "),
            ("HIMPORT NOPE", "-ERR unknown subcommand 'NOPE'. Try HIMPORT HELP. "),
            ("HIMPORT PREPARE one", "-ERR wrong number of arguments for 'himport|prepare' command "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
    }

    #[test]
    fn fieldsets_are_counted_and_bounded() {
        let mut t = Runner::new();
        t.run("CONFIG SET client-query-buffer-limit 1mb");
        let name = "x".repeat(100_000);
        let mut kept = 0;
        while t.run(&format!("HIMPORT PREPARE set{kept} {name}")) == "+OK " {
            kept += 1;
        }
        assert_eq!(kept, 10);
        let bytes = || t.server.clients.list()[0].fieldset_bytes.load(std::sync::atomic::Ordering::Relaxed);
        assert!((1_000_000..1_048_576).contains(&bytes()), "{}", bytes());
        assert_eq!(t.run(&format!("HIMPORT PREPARE set0 {name}")), "+OK ");
        t.run("HIMPORT DISCARDALL");
        assert_eq!(t.server.clients.list()[0].fieldset_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}
