//! Commands for streams: adding, deleting and reading entries. Groups and their deliveries are in the files beside
//! this one.

mod budget;
mod claim;
mod delete;
mod group;
mod idempotency;
mod ids;
mod info;
mod nack;
mod pending;
mod range;
mod read;
mod record;
#[cfg(test)]
mod tests;
mod trim;

use smallvec::SmallVec;

use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::resp::{Elements, Reply};
use crate::value::stream::{AnyStream, Entry, Stream, StreamId, StreamMut};
use ids::Wanted;
use trim::Options;

/// The commands of this folder.
pub static COMMANDS: &[&Command] = &[
    &pending::XACK,
    &delete::XACKDEL,
    &XADD,
    &claim::XAUTOCLAIM,
    &idempotency::XCFGSET,
    &claim::XCLAIM,
    &XDEL,
    &delete::XDELEX,
    &group::XGROUP,
    &idempotency::XIDMPRECORD,
    &info::XINFO,
    &XLEN,
    &nack::XNACK,
    &pending::XPENDING,
    &range::XRANGE,
    &read::XREAD,
    &read::XREADGROUP,
    &range::XREVRANGE,
    &XSETID,
    &trim::XTRIM,
];

/// What the commands on one stream share.
const ONE_STREAM: Command = Command {
    flags: flags::READONLY,
    categories: categories::STREAM,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    since: "5.0.0",
    group: "stream",
    ..Command::DEFAULT
};

static XADD: Command = Command {
    name: "XADD",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects, // with the id that was given, and what trimming came to
    handler: Handler::Data(xadd),
    complexity: "O(1) when adding a new entry, O(N) when trimming where N being the number of entries evicted.",
    tips: "nondeterministic_output",
    syntax: "key [NOMKSTREAM@6.2.0] [KEEPREF | DELREF | ACKED]@8.2.0 [IDMPAUTO pid | IDMP <pid iid>]@8.6.0 [<MAXLEN | MINID@6.2.0> [= | ~] threshold [LIMIT count@6.2.0]] <* | id> field value [field value ...]",
    summary: "Adds an entry to a stream, which is made if there is none.",
    ..ONE_STREAM
};

fn xadd(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, now) = (call.key(1), call.args, call.db.facts().now);
    let (limits, window) = (call.db.facts().limits, call.db.facts().stream_window);
    let (options, at) = Options::parse_xadd(args, &limits)?;
    let wanted = match args.get(at) {
        Some(b"*") => Wanted::Auto,
        Some(word) => ids::wanted(word)?,
        None => return Err(CommandError::Arity(call.name().to_owned())),
    };
    if options.producer.is_some() && wanted != Wanted::Auto {
        let mistake = "ERR syntax error, IDMP/IDMPAUTO can be used only with auto-generated IDs";
        return Err(CommandError::Text(mistake));
    }
    let fields = args.from(at + 1);
    if fields.len() == 0 || !fields.len().is_multiple_of(2) {
        return Err(CommandError::Arity(call.name().to_owned()));
    }
    if wanted == Wanted::Exactly(StreamId::MIN) {
        return Err(CommandError::Text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let producer = options.producer.map(|producer| producer.with_fields(fields.clone()));
    if let Some(producer) = &producer
        && let Some(known) = producer.find(&mut call.db, key)?
    {
        return Ok(reply.bulk(known.text().as_bytes()));
    }
    let added = call.db.edit::<AnyStream, _>(key, |stream| {
        if options.only_existing && matches!(stream, StreamMut::Fresh(_)) {
            return Ok((None, 0));
        }
        let id = next_id(stream, wanted, now)?;
        if !stream.append(id, fields.clone(), &limits) {
            return Err(CommandError::Text("ERR Elements are too large to be stored"));
        }
        let remembered = producer.as_ref().map(|producer| producer.remember(stream, id, now, window));
        let (gone, trimmed) = options.apply(stream);
        Ok((Some((id, remembered, gone, trimmed)), 1))
    })?;
    let Some((id, remembered, gone, trimmed)) = added else { return Ok(reply.null()) };
    call.record(key).stream_add(id, fields);
    if let Some((producer, remembered)) = producer.zip(remembered) {
        producer.log(&mut call.db, key, remembered);
    }
    trimmed.log(&mut call.db, key);
    call.db.notify(NotifyFlags::STREAM, "xadd", key);
    if gone > 0 {
        call.db.notify(NotifyFlags::STREAM, "xtrim", key);
    }
    Ok(reply.bulk(id.text().as_bytes()))
}

/// The id of the next entry.
fn next_id(stream: &Stream, wanted: Wanted, now: i64) -> Result<StreamId, CommandError> {
    const EXHAUSTED: &str = "ERR The stream has exhausted the last possible ID, unable to add more items";
    const NOT_ABOVE: &str = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    let last = stream.last_id();
    if last == StreamId::MAX {
        return Err(CommandError::Text(EXHAUSTED));
    }
    let now = now.max(0) as u64;
    let id = match wanted {
        Wanted::Auto if now > last.ms => Some(StreamId::new(now, 0)),
        Wanted::Auto => last.next(),
        Wanted::Within(ms) if ms == last.ms => last.seq.checked_add(1).map(|seq| StreamId::new(ms, seq)),
        Wanted::Within(ms) => Some(StreamId::new(ms, 0)),
        Wanted::Exactly(id) => Some(id),
    };
    id.filter(|id| *id > last).ok_or(CommandError::Text(NOT_ABOVE))
}

static XDEL: Command = Command {
    name: "XDEL",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects,
    handler: Handler::Data(xdel),
    complexity: "O(1) for each single item to delete in the stream, regardless of the stream size.",
    syntax: "key id [id ...]",
    summary: "Deletes entries of a stream by their ids.",
    ..ONE_STREAM
};

fn xdel(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    if call.db.peek_view::<AnyStream>(key)?.is_none() {
        return Ok(reply.int(0));
    }
    let ids = exact_ids(args, 2)?;
    let deleted = call.db.edit::<AnyStream, _>(key, |stream| {
        let deleted: SmallVec<[StreamId; 8]> = ids.iter().copied().filter(|id| stream.delete(*id)).collect();
        let changes = deleted.len() as u64;
        Ok((deleted, changes))
    })?;
    if !deleted.is_empty() {
        call.record(key).stream_delete(&deleted);
        call.db.notify(NotifyFlags::STREAM, "xdel", key);
    }
    Ok(reply.int(deleted.len() as i64))
}

/// The ids from an argument on.
fn exact_ids(args: crate::resp::Args<'_>, first: usize) -> Result<SmallVec<[StreamId; 8]>, CommandError> {
    args.from(first).map(|word| ids::exact(word, 0)).collect()
}

static XLEN: Command = Command {
    name: "XLEN",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(xlen),
    syntax: "key",
    summary: "Counts the entries of a stream.",
    ..ONE_STREAM
};

fn xlen(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(reply.int(call.db.view::<AnyStream>(key)?.map_or(0, |stream| stream.len() as i64)))
}

static XSETID: Command = Command {
    name: "XSETID",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(xsetid),
    syntax: "key last-id [ENTRIESADDED entries-added@7.0.0] [MAXDELETEDID max-deleted-id@7.0.0]",
    summary: "Sets the last id of a stream, for replication and repair.",
    ..ONE_STREAM
};

fn xsetid(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let id = ids::exact(args.at(2), 0)?;
    let (mut added, mut max_deleted) = (None, None);
    let mut words = Words::new(args, 3);
    while let Some(word) = words.next() {
        if args::is(word, "ENTRIESADDED") && words.left() > 0 {
            let number = u64::try_from(words.integer()?);
            added = Some(number.map_err(|_| CommandError::Text("ERR entries_added must be positive"))?);
        } else if args::is(word, "MAXDELETEDID") && words.left() > 0 {
            let deleted = ids::exact(words.value()?, 0)?;
            if id < deleted {
                return Err(CommandError::Text(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted = (deleted != StreamId::MIN).then_some(deleted);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let stream = call.db.peek_view::<AnyStream>(key)?.ok_or(CommandError::NoSuchKey)?;
    if id < stream.max_deleted_id() {
        return Err(CommandError::Text("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"));
    }
    if stream.last().is_some_and(|last| id < last.id) {
        return Err(CommandError::Text("ERR The ID specified in XSETID is smaller than the target stream top item"));
    }
    if added.is_some_and(|added| added < stream.len() as u64) {
        return Err(CommandError::Text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    let (max_deleted, added) = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        stream.set_ids(id, added, max_deleted);
        Ok(((stream.max_deleted_id(), stream.entries_added()), 1))
    })?;
    call.record(key).stream_set_ids(id, max_deleted, added);
    call.db.notify(NotifyFlags::STREAM, "xsetid", key);
    Ok(reply.ok())
}

/// Writes an entry into the pair opened for it.
fn write_entry(pair: &mut Elements<'_>, entry: &Entry<'_>) {
    pair.bulk(entry.id.text().as_bytes());
    let mut fields = pair.array(2 * entry.len());
    for (name, value) in entry.fields() {
        fields.bulk(name.as_bytes(&mut itoa::Buffer::new()));
        fields.bulk(value.as_bytes(&mut itoa::Buffer::new()));
    }
    fields.end();
}

/// Writes an entry as the whole reply.
fn entry_reply(reply: Reply<'_>, entry: &Entry<'_>) {
    let mut pair = reply.array(2);
    write_entry(&mut pair, entry);
    let _ = pair.done();
}

/// The error for a missing group, with the suffix that the command adds.
fn no_group(key: &[u8], group: &[u8], after: &str) -> CommandError {
    let (key, group) = (crate::core::error::until_nul(key), crate::core::error::until_nul(group));
    CommandError::Echo(
        [b"NOGROUP No such key '", key, b"' or consumer group '", group, b"'", after.as_bytes()].concat(),
    )
}

/// The same if the key exists.
fn no_group_of_key(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (crate::core::error::until_nul(key), crate::core::error::until_nul(group));
    CommandError::Echo([b"NOGROUP No such consumer group '", group, b"' for key name '", key, b"'"].concat())
}
