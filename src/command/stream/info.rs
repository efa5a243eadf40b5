//! XINFO: describes a stream, its groups and their consumers.

use super::{ONE_STREAM, no_group_of_key, write_entry};
use crate::core::db::Facts;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, args, categories, flags, help};
use crate::resp::{Args, Elements, Reply};
use crate::value::stream::{AnyStream, Consumer, Entry, Group, Idempotency, Owned, Stream, StreamId};

pub(super) static XINFO: Command = Command {
    name: "XINFO",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&CONSUMERS, &GROUPS, &HELP, &STREAM]),
    since: "5.0.0",
    group: "stream",
    complexity: "Depends on subcommand.",
    summary: "A container for commands that look into streams.",
    ..Command::DEFAULT
};

static STREAM: Command = Command {
    name: "STREAM",
    arity: Arity::AtLeast(3),
    keys: Keys(&[KeySpec::at(2, "RO access")]),
    handler: Handler::Data(stream),
    syntax: "key [FULL [COUNT count]]",
    summary: "Describes a stream.",
    ..ONE_STREAM
};

/// How many entries the full form shows by default.
const FULL_COUNT: usize = 10;

/// How many entries to show; `None` for the short form.
fn full(args: Args<'_>) -> Result<Option<usize>, CommandError> {
    let wrong = || CommandError::subcommand_syntax(args.at(1), "XINFO");
    match args.len() {
        3 => Ok(None),
        4 | 6 if !args::is(args.at(3), "FULL") => Err(wrong()),
        4 => Ok(Some(FULL_COUNT)),
        6 if args::is(args.at(4), "COUNT") => Ok(Some(match args::integer(args.at(5))? {
            0 => usize::MAX,
            count => usize::try_from(count).unwrap_or(FULL_COUNT),
        })),
        _ => Err(wrong()),
    }
}

fn stream(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, facts) = (call.key(2), call.args, call.db.facts());
    let stream = call.db.view::<AnyStream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let full = full(args)?;
    let mut map = reply.map(if full.is_some() { 15 } else { 16 });
    let mut number = |name: &str, number: u64| {
        map.bulk(name.as_bytes());
        map.int(number as i64);
    };
    number("length", stream.len() as u64);
    number("radix-tree-keys", stream.blocks_len() as u64);
    number("radix-tree-nodes", stream.radix_nodes() as u64);
    let mut id = |name: &str, id: StreamId| {
        map.bulk(name.as_bytes());
        map.bulk(id.text().as_bytes());
    };
    id("last-generated-id", stream.last_id());
    id("max-deleted-entry-id", stream.max_deleted_id());
    map.bulk(b"entries-added");
    map.int(stream.entries_added() as i64);
    map.bulk(b"recorded-first-entry-id");
    map.bulk(stream.first().map_or(StreamId::MIN, |first| first.id).text().as_bytes());
    write_idempotency(&mut map, stream.idempotency(), facts);
    match full {
        None => {
            map.bulk(b"groups");
            map.int(stream.groups_len() as i64);
            for (name, entry) in [("first-entry", stream.first()), ("last-entry", stream.last())] {
                map.bulk(name.as_bytes());
                entry_or_null(&mut map, entry);
            }
        }
        Some(count) => {
            map.bulk(b"entries");
            let mut entries = map.array(stream.len().min(count));
            stream.range(StreamId::MIN, StreamId::MAX).take(count).for_each(|e| entry_or_null(&mut entries, Some(e)));
            entries.end();
            map.bulk(b"groups");
            let mut groups = map.array(stream.groups_len());
            stream.groups().for_each(|group| group_in_full(&mut groups, stream, group, count));
            groups.end();
        }
    }
    Ok(map.done())
}

/// What is remembered of producers; a stream that has no window has that of the configuration.
fn write_idempotency(map: &mut Elements<'_>, its: Option<&Idempotency>, facts: &Facts) {
    let window = its.map_or(facts.stream_window, Idempotency::window);
    let (pids, iids) = its.map_or((0, 0), |its| its.tracked(facts.now));
    for (name, number) in [
        ("idmp-duration", u64::from(window.seconds)),
        ("idmp-maxsize", u64::from(window.ids_max)),
        ("pids-tracked", pids as u64),
        ("iids-tracked", iids as u64),
        ("iids-added", its.map_or(0, Idempotency::added)),
        ("iids-duplicates", its.map_or(0, Idempotency::duplicates)),
    ] {
        map.bulk(name.as_bytes());
        map.int(number as i64);
    }
}

fn entry_or_null(out: &mut Elements<'_>, entry: Option<Entry<'_>>) {
    let Some(entry) = entry else { return out.null() };
    let mut pair = out.array(2);
    write_entry(&mut pair, &entry);
    pair.end();
}

fn int_or_null(out: &mut Elements<'_>, number: Option<i64>) {
    match number {
        Some(number) => out.int(number),
        None => out.null(),
    }
}

fn group_in_full(out: &mut Elements<'_>, stream: &Stream, group: &Group, count: usize) {
    let mut map = out.map(8);
    map.bulk(b"name");
    map.bulk(&group.name);
    map.bulk(b"last-delivered-id");
    map.bulk(group.last_id.text().as_bytes());
    write_progress(&mut map, stream, group);
    map.bulk(b"pel-count");
    map.int(group.pending.len() as i64);
    map.bulk(b"nacked-count");
    map.int(group.released_len() as i64);
    map.bulk(b"pending");
    let mut list = map.array(group.pending.len().min(count));
    for pending in group.pending.iter().take(count) {
        let mut four = list.array(4);
        four.bulk(pending.id.text().as_bytes());
        four.bulk(pending.owner());
        four.int(pending.delivered);
        four.int(pending.count as i64);
        four.end();
    }
    list.end();
    map.bulk(b"consumers");
    let mut list = map.array(group.consumers.len());
    group.consumers.iter().for_each(|consumer| consumer_in_full(&mut list, group, consumer, count));
    list.end();
    map.end();
}

/// The progress of a group.
fn write_progress(map: &mut Elements<'_>, stream: &Stream, group: &Group) {
    map.bulk(b"entries-read");
    int_or_null(map, group.entries_read.map(|read| read as i64));
    map.bulk(b"lag");
    int_or_null(map, stream.lag(group));
}

fn consumer_in_full(out: &mut Elements<'_>, group: &Group, consumer: &Consumer, count: usize) {
    let mut map = out.map(5);
    map.bulk(b"name");
    map.bulk(&consumer.name);
    map.bulk(b"seen-time");
    map.int(consumer.seen);
    map.bulk(b"active-time");
    map.int(consumer.active);
    map.bulk(b"pel-count");
    map.int(consumer.pending.len() as i64);
    map.bulk(b"pending");
    let mut list = map.array(consumer.pending.len().min(count));
    for Owned(id) in consumer.pending.iter().take(count) {
        let pending = group.pending.get(id);
        let mut three = list.array(3);
        three.bulk(id.text().as_bytes());
        three.int(pending.map_or(0, |pending| pending.delivered));
        three.int(pending.map_or(0, |pending| pending.count as i64));
        three.end();
    }
    list.end();
    map.end();
}

static GROUPS: Command = Command {
    name: "GROUPS",
    arity: Arity::Exactly(3),
    handler: Handler::Data(groups),
    syntax: "key",
    summary: "Describes the groups of a stream.",
    ..STREAM
};

fn groups(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(2);
    let stream = call.db.view::<AnyStream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let mut list = reply.array(stream.groups_len());
    for group in stream.groups() {
        let mut map = list.map(6);
        map.bulk(b"name");
        map.bulk(&group.name);
        map.bulk(b"consumers");
        map.int(group.consumers.len() as i64);
        map.bulk(b"pending");
        map.int(group.pending.len() as i64);
        map.bulk(b"last-delivered-id");
        map.bulk(group.last_id.text().as_bytes());
        write_progress(&mut map, stream, group);
        map.end();
    }
    Ok(list.done())
}

static CONSUMERS: Command = Command {
    name: "CONSUMERS",
    arity: Arity::Exactly(4),
    handler: Handler::Data(consumers),
    tips: "nondeterministic_output",
    syntax: "key group",
    summary: "Describes the consumers of a group.",
    ..STREAM
};

fn consumers(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, name, now) = (call.key(2), call.args.at(3), call.db.facts().now);
    let stream = call.db.view::<AnyStream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let group = stream.group(name).ok_or_else(|| no_group_of_key(key.bytes, name))?;
    let since = |time: i64| now.wrapping_sub(time).max(0);
    let mut list = reply.array(group.consumers.len());
    for consumer in group.consumers.iter() {
        let mut map = list.map(4);
        map.bulk(b"name");
        map.bulk(&consumer.name);
        map.bulk(b"pending");
        map.int(consumer.pending.len() as i64);
        map.bulk(b"idle");
        map.int(since(consumer.seen));
        map.bulk(b"inactive");
        map.int(if consumer.active < 0 { -1 } else { since(consumer.active) });
        map.end();
    }
    Ok(list.done())
}

static HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE),
    categories: categories::STREAM,
    handler: Handler::Data(|_, reply| help(reply, "XINFO", HELP_LINES)),
    since: "5.0.0",
    group: "stream",
    summary: "Describes the subcommands.",
    ..Command::DEFAULT
};

const HELP_LINES: &[&str] = &[
    "CONSUMERS <key> <groupname>",
    "    Show consumers of <groupname>.",
    "GROUPS <key>",
    "    Show the stream consumer groups.",
    "STREAM <key> [FULL [COUNT <count>]",
    "    Show information about the stream.",
];
