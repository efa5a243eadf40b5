//! XDELEX and XACKDEL: delete entries with respect to the references of groups.

use std::ops::Range;

use smallvec::SmallVec;

use super::{ONE_STREAM, ids};
use crate::core::{
    Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, args, flags,
};
use crate::keyspace::Key;
use crate::resp::{Args, Reply};
use crate::value::stream::{AnyStream, Deletion, RefPolicy, StreamId, StreamMut};

pub(super) static XDELEX: Command = Command {
    name: "XDELEX",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects, // as what went, though not by the count of changes
    handler: Handler::Data(xdelex),
    since: "8.2.0",
    complexity: "O(1) for each single item to delete in the stream, regardless of the stream size.",
    syntax: "key [KEEPREF | DELREF | ACKED] IDS numids id [id ...]",
    summary: "Deletes entries of a stream, and says what becomes of the groups' references to them.",
    ..ONE_STREAM
};

pub(super) static XACKDEL: Command = Command {
    name: "XACKDEL",
    arity: Arity::AtLeast(6),
    keys: Keys(&[KeySpec::at(1, "RW update delete")]),
    handler: Handler::Data(xackdel),
    complexity: "O(1) for each entry ID processed.",
    syntax: "key group [KEEPREF | DELREF | ACKED] IDS numids id [id ...]",
    summary: "Acknowledges entries that a group has delivered, and deletes them, or does once all groups have done with them.",
    ..XDELEX
};

/// The policy that a word names.
pub(super) fn policy(word: &[u8]) -> Option<RefPolicy> {
    match word {
        word if args::is(word, "KEEPREF") => Some(RefPolicy::KeepRef),
        word if args::is(word, "DELREF") => Some(RefPolicy::DelRef),
        word if args::is(word, "ACKED") => Some(RefPolicy::Acked),
        _ => None,
    }
}

/// The policy and the range of the ids, from an argument on.
fn parse(args: Args<'_>, first: usize) -> Result<(RefPolicy, Range<usize>), CommandError> {
    let (mut chosen, mut ids, mut at) = (None, None, first);
    while let Some(word) = args.get(at) {
        at += 1;
        // The last of several IDS counts.
        if args::is(word, "IDS") && at < args.len() {
            let numids = args::positive(args.at(at), "Number of IDs must be a positive integer")?;
            at += 1;
            if numids > args.len() - at {
                return Err(CommandError::Text("ERR The `numids` parameter must match the number of arguments"));
            }
            ids = Some(at..at + numids);
            at += numids;
        } else if chosen.is_none() {
            chosen = Some(policy(word).ok_or(CommandError::Syntax)?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((chosen.unwrap_or_default(), ids.ok_or(CommandError::Syntax)?))
}

fn xdelex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let is_there = call.db.peek_view::<AnyStream>(key)?.is_some();
    let (policy, places) = parse(call.args, 2)?;
    if !is_there {
        return missing(places.len(), reply);
    }
    delete(call, (key, None, policy), places, reply, |stream, id| {
        let (deletion, changed) = stream.delete_by(id, policy);
        let deleted = deletion == Deletion::Deleted;
        Done { deletion, changed, deleted, counted: u64::from(deleted) }
    })
}

fn xackdel(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, name) = (call.key(1), call.args.at(2));
    let is_there = call.db.view::<AnyStream>(key)?.and_then(|stream| stream.group(name)).is_some();
    let (policy, places) = parse(call.args, 3)?;
    if !is_there {
        return missing(places.len(), reply);
    }
    delete(call, (key, Some(name), policy), places, reply, |stream, id| {
        if stream.edit_group(name, |group| group.acknowledge(id)) != Some(true) {
            return Done { deletion: Deletion::Missing, changed: false, deleted: false, counted: 0 };
        }
        let came_to = stream.delete_by(id, policy).0;
        // An earlier deletion of the entry makes no difference to the acknowledging client.
        let deletion = if came_to == Deletion::Missing { Deletion::Deleted } else { came_to };
        Done { deletion, changed: true, deleted: came_to == Deletion::Deleted, counted: 1 }
    })
}

/// The outcome for one id.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// What to reply.
    deletion: Deletion,
    /// Whether anything changed, including the references of a group.
    changed: bool,
    /// Whether an entry was removed. For WATCH, only that is a change of the key.
    deleted: bool,
    /// How many changes it counts as, for `save`.
    counted: u64,
}

fn missing(numids: usize, reply: Reply<'_>) -> Outcome {
    let mut codes = reply.array(numids);
    (0..numids).for_each(|_| codes.int(-1));
    Ok(codes.done())
}

/// Logs what changed: the group's acknowledgements, what all groups forgot, and the entries that went.
fn log<'d>(
    db: &mut Db<'_>,
    key: Key<'_>,
    group: Option<&[u8]>,
    policy: RefPolicy,
    done: impl Iterator<Item = (StreamId, &'d Done)>,
) {
    let changed: SmallVec<[(StreamId, bool); 8]> =
        done.filter(|(_, done)| done.changed).map(|(id, done)| (id, done.deleted)).collect();
    let ids: SmallVec<[StreamId; 8]> = changed.iter().map(|(id, _)| *id).collect();
    if let Some(group) = group {
        db.record(key).group_acknowledge(group, &ids);
    }
    if policy == RefPolicy::DelRef {
        db.record(key).stream_forget(&ids);
    }
    let deleted: SmallVec<[StreamId; 8]> = changed.iter().filter(|(_, deleted)| *deleted).map(|(id, _)| *id).collect();
    if !deleted.is_empty() {
        db.record(key).stream_delete(&deleted);
    }
}

/// Deletes entries one by one and replies with a code for each.
fn delete(
    call: &mut Call<'_>,
    (key, group, policy): (Key<'_>, Option<&[u8]>, RefPolicy),
    places: Range<usize>,
    reply: Reply<'_>,
    mut delete: impl FnMut(&mut StreamMut<'_>, StreamId) -> Done,
) -> Outcome {
    let words = call.args.from(places.start).take(places.len());
    let ids: SmallVec<[StreamId; 8]> = words.map(|word| ids::exact(word, 0)).collect::<Result<_, _>>()?;
    let before = call.db.changes();
    let done = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let done: SmallVec<[Done; 8]> = ids.iter().map(|id| delete(stream, *id)).collect();
        let changes = done.iter().filter(|done| done.changed).count() as u64;
        Ok((done, changes))
    })?;
    if done.iter().any(|done| done.deleted) {
        call.db.note_watched(key);
        call.db.notify(NotifyFlags::STREAM, "xdel", key);
    }
    if done.iter().any(|done| done.changed) {
        // A change that counts as none is to be logged too.
        log(&mut call.db, key, group, policy, ids.iter().copied().zip(&done));
        call.db.count_as(before, done.iter().map(|done| done.counted).sum());
    }
    let mut codes = reply.array(done.len());
    for done in done {
        codes.int(match done.deletion {
            Deletion::Missing => -1,
            Deletion::Deleted => 1,
            Deletion::Referenced => 2,
        });
    }
    Ok(codes.done())
}
