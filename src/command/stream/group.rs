//! XGROUP: groups and their consumers.

use super::record::{self, Asker};
use super::{ONE_STREAM, ids, no_group_of_key};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags, help,
};
use crate::keyspace::Key;
use crate::persist::verbs::GroupPosition;
use crate::resp::{Args, Reply};
use crate::value::stream::{AnyStream, Stream, StreamId};

pub(super) static XGROUP: Command = Command {
    name: "XGROUP",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&CREATE, &CREATECONSUMER, &DELCONSUMER, &DESTROY, &HELP, &SETID]),
    since: "5.0.0",
    group: "stream",
    complexity: "Depends on subcommand.",
    summary: "A container for commands on the groups of a stream.",
    ..Command::DEFAULT
};

static CREATE: Command = Command {
    name: "CREATE",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(2, "RW insert")]),
    log: LogRule::Effects,
    handler: Handler::Data(create),
    syntax: "key group <id | $> [MKSTREAM] [ENTRIESREAD entriesread]",
    summary: "Makes a group of a stream.",
    ..ONE_STREAM
};

const NO_KEY: CommandError = CommandError::Text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

/// The options behind the id: MKSTREAM if it is allowed, and the number of entries read.
fn options(args: Args<'_>, may_create: bool) -> Result<(bool, Option<u64>), CommandError> {
    let (mut create, mut entries_read, mut words) = (false, None, Words::new(args, 5));
    while let Some(word) = words.next() {
        if may_create && args::is(word, "MKSTREAM") {
            create = true;
        } else if args::is(word, "ENTRIESREAD") && words.left() > 0 {
            let read = words.integer()?;
            if read < -1 {
                return Err(CommandError::Text("ERR value for ENTRIESREAD must be positive or -1"));
            }
            entries_read = u64::try_from(read).ok();
        } else {
            return Err(wrong_subcommand(args.at(1)));
        }
    }
    Ok((create, entries_read))
}

fn wrong_subcommand(given: &[u8]) -> CommandError {
    CommandError::echo("unknown subcommand or wrong number of arguments for '", given, "'. Try XGROUP HELP.")
}

/// The id that a group begins at: `$` is the stream's last one.
fn group_id(
    word: &[u8],
    stream: Option<&Stream>,
    read: fn(&[u8], u64) -> Result<StreamId, CommandError>,
) -> Result<StreamId, CommandError> {
    if crate::core::error::until_nul(word) == b"$" {
        return Ok(stream.map_or(StreamId::MIN, Stream::last_id));
    }
    read(word, 0)
}

fn create(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(2), call.args);
    let (create, entries_read) = options(args, true)?;
    let stream = call.db.peek_view::<AnyStream>(key)?;
    if stream.is_none() && !create {
        return Err(NO_KEY);
    }
    if args.len() > 8 {
        return Err(wrong_subcommand(args.at(1)));
    }
    let id = group_id(args.at(4), stream, ids::exact)?;
    let name = args.at(3);
    call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        if !stream.add_group(name, id, entries_read) {
            return Err(CommandError::Text("BUSYGROUP Consumer Group name already exists"));
        }
        Ok(((), 1))
    })?;
    call.record(key).group_create(name, &GroupPosition { last_id: id, entries_read });
    call.db.notify(NotifyFlags::STREAM, "xgroup-create", key);
    Ok(reply.ok())
}

static SETID: Command = Command {
    name: "SETID",
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(2, "RW update")]),
    handler: Handler::Data(setid),
    syntax: "key group <id | $> [ENTRIESREAD entriesread]",
    summary: "Sets the id behind which a group goes on.",
    ..CREATE
};

fn setid(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(2), call.args);
    let (_, entries_read) = options(args, false)?;
    let stream = with_group(call, key, args.at(3))?;
    if args.len() != 5 && args.len() != 7 {
        return Err(wrong_subcommand(args.at(1)));
    }
    let id = group_id(args.at(4), Some(stream), ids::any)?;
    call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        stream.edit_group(args.at(3), |group| (group.last_id, group.entries_read) = (id, entries_read));
        Ok(((), 1))
    })?;
    call.record(key).group_set(args.at(3), &GroupPosition { last_id: id, entries_read });
    call.db.notify(NotifyFlags::STREAM, "xgroup-setid", key);
    Ok(reply.ok())
}

/// The stream at a key, which must have this group.
fn with_group<'c>(call: &'c mut Call<'_>, key: Key<'_>, group: &[u8]) -> Result<&'c Stream, CommandError> {
    let stream = call.db.peek_view::<AnyStream>(key)?.ok_or(NO_KEY)?;
    if stream.group(group).is_none() {
        return Err(no_group_of_key(key.bytes, group));
    }
    Ok(stream)
}

static DESTROY: Command = Command {
    name: "DESTROY",
    arity: Arity::Exactly(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(2, "RW delete")]),
    handler: Handler::Data(destroy),
    complexity: "O(N) where N is the number of entries in the group's pending entries list (PEL).",
    syntax: "key group",
    summary: "Removes a group with all that is pending in it.",
    ..CREATE
};

fn destroy(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, name) = (call.key(2), call.args.at(3));
    if call.db.peek_view::<AnyStream>(key)?.is_none() {
        return Err(NO_KEY);
    }
    let removed = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let removed = stream.remove_group(name);
        Ok((removed, u64::from(removed)))
    })?;
    if removed {
        call.record(key).group_destroy(name);
        call.db.notify(NotifyFlags::STREAM, "xgroup-destroy", key);
    }
    Ok(reply.int(removed.into()))
}

static CREATECONSUMER: Command = Command {
    name: "CREATECONSUMER",
    arity: Arity::Exactly(5),
    log: LogRule::Effects, // with the time
    handler: Handler::Data(createconsumer),
    since: "6.2.0",
    syntax: "key group consumer",
    summary: "Adds a consumer to a group.",
    ..CREATE
};

fn createconsumer(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, now) = (call.key(2), call.args, call.db.facts().now);
    let (group, consumer) = (args.at(3), args.at(4));
    with_group(call, key, group)?;
    let added = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let added = stream.edit_group(group, |group| group.add_consumer(consumer, now)).unwrap_or(false);
        Ok((added, u64::from(added)))
    })?;
    if added {
        record::log_delivery(&mut call.db, key, Asker { group, consumer, now }, &[], &[]);
        call.db.notify(NotifyFlags::STREAM, "xgroup-createconsumer", key);
    }
    Ok(reply.int(added.into()))
}

static DELCONSUMER: Command = Command {
    name: "DELCONSUMER",
    arity: Arity::Exactly(5),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(2, "RW delete")]),
    handler: Handler::Data(delconsumer),
    syntax: "key group consumer",
    summary: "Removes a consumer with what is pending for it.",
    ..CREATE
};

fn delconsumer(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(2), call.args);
    with_group(call, key, args.at(3))?;
    let removed = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let removed = stream.edit_group(args.at(3), |group| group.remove_consumer(args.at(4))).flatten();
        Ok((removed, u64::from(removed.is_some())))
    })?;
    if removed.is_some() {
        call.record(key).group_drop_consumer(args.at(3), args.at(4));
        call.db.notify(NotifyFlags::STREAM, "xgroup-delconsumer", key);
    }
    Ok(reply.int(removed.unwrap_or(0) as i64))
}

static HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE),
    categories: categories::STREAM,
    handler: Handler::Data(|_, reply| help(reply, "XGROUP", HELP_LINES)),
    since: "5.0.0",
    group: "stream",
    summary: "Describes the subcommands.",
    ..Command::DEFAULT
};

const HELP_LINES: &[&str] = &[
    "CREATE <key> <groupname> <id|$> [option]",
    "    Create a new consumer group. Options are:",
    "    * MKSTREAM",
    "      Create the empty stream if it does not exist.",
    "    * ENTRIESREAD entries_read",
    "      Set the group's entries_read counter (internal use).",
    "CREATECONSUMER <key> <groupname> <consumer>",
    "    Create a new consumer in the specified group.",
    "DELCONSUMER <key> <groupname> <consumer>",
    "    Remove the specified consumer.",
    "DESTROY <key> <groupname>",
    "    Remove the specified group.",
    "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
    "    Set the current group ID and entries_read counter.",
];
