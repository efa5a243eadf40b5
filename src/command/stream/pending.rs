//! XACK and XPENDING: entries that were delivered and not acknowledged.

use smallvec::SmallVec;

use super::{ONE_STREAM, exact_ids, ids, no_group};
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, args, flags};
use crate::resp::reply::UnknownElements;
use crate::resp::{Args, Reply};
use crate::value::stream::{AnyStream, Group, Owned, Pending, StreamId};

pub(super) static XACK: Command = Command {
    name: "XACK",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(xack),
    syntax: "key group id [id ...]",
    summary: "Acknowledges entries that a group has delivered.",
    complexity: "O(1) for each message ID processed.",
    ..ONE_STREAM
};

fn xack(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let name = args.at(2);
    if call.db.view::<AnyStream>(key)?.and_then(|stream| stream.group(name)).is_none() {
        return Ok(reply.int(0));
    }
    let ids = exact_ids(args, 3)?;
    let acknowledged = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let all = |group: &mut Group| ids.iter().copied().filter(|id| group.acknowledge(*id)).collect();
        let acknowledged: SmallVec<[StreamId; 8]> = stream.edit_group(name, all).unwrap_or_default();
        let changes = acknowledged.len() as u64;
        Ok((acknowledged, changes))
    })?;
    if !acknowledged.is_empty() {
        call.record(key).group_acknowledge(name, &acknowledged);
    }
    Ok(reply.int(acknowledged.len() as i64))
}

pub(super) static XPENDING: Command = Command {
    name: "XPENDING",
    arity: Arity::AtLeast(3),
    handler: Handler::Data(xpending),
    complexity: "O(N) with N being the number of elements returned, so asking for a small fixed number of entries per call is O(1). O(M), where M is the total number of entries scanned when used with the IDLE filter.",
    tips: "nondeterministic_output",
    syntax: "key group [[IDLE min-idle-time@6.2.0] start end count [consumer]]",
    summary: "Gives what a group has delivered and nobody has acknowledged.",
    ..ONE_STREAM
};

/// The filter for pending entries.
struct Filter<'a> {
    min_idle: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    fn parse(args: Args<'a>) -> Result<Option<Filter<'a>>, CommandError> {
        if args.len() == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&args.len()) {
            return Err(CommandError::Syntax);
        }
        let (mut min_idle, mut at) = (0, 3);
        if args::is(args.at(3), "IDLE") {
            min_idle = args::integer(args.at(4))?;
            if args.len() < 8 {
                return Err(CommandError::Syntax);
            }
            at = 5;
        }
        let count = usize::try_from(args::integer(args.at(at + 2))?).unwrap_or(0);
        let (start, end) = (ids::start(args.at(at))?, ids::end(args.at(at + 1))?);
        Ok(Some(Filter { min_idle, start, end, count, consumer: args.get(at + 3) }))
    }
}

fn xpending(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, now) = (call.key(1), call.args, call.db.facts().now);
    let filter = Filter::parse(args)?;
    let name = args.at(2);
    let group = call.db.view::<AnyStream>(key)?.and_then(|stream| stream.group(name));
    let group = group.ok_or_else(|| no_group(key.bytes, name, ""))?;
    let Some(filter) = filter else { return summary(group, reply) };
    let own = match filter.consumer.map(|name| group.consumer(name)) {
        Some(None) => return Ok(reply.array(0).done()),
        Some(Some(consumer)) => Some(&consumer.pending),
        None => None,
    };
    Ok(reply.array_of_unknown(|list| {
        let wanted = |pending: &&Pending| pending.is_idle(now, filter.min_idle);
        // What was handed back is idle since never.
        let idle = |pending: &Pending| pending.idle(now).map_or(-1, |idle| idle.max(0));
        let mut write = |pending: &Pending| write_pending(list, pending, idle(pending));
        match own {
            Some(own) => {
                let until_end = own.iter_from(&filter.start).take_while(|owned| owned.0 <= filter.end);
                let all = until_end.filter_map(|Owned(id)| group.pending.get(id));
                all.filter(wanted).take(filter.count).for_each(&mut write);
            }
            None => {
                let all = group.pending.iter_from(&filter.start).take_while(|pending| pending.id <= filter.end);
                all.filter(wanted).take(filter.count).for_each(&mut write);
            }
        }
    }))
}

fn write_pending(list: &mut UnknownElements<'_>, pending: &Pending, idle: i64) {
    let mut four = list.element().array(4);
    four.bulk(pending.id.text().as_bytes());
    four.bulk(pending.owner());
    four.int(idle);
    four.int(pending.count as i64);
    let _ = four.done();
}

/// Replies with how many are pending, between which ids, and how many for each consumer.
fn summary(group: &Group, reply: Reply<'_>) -> Outcome {
    let mut four = reply.array(4);
    four.int(group.pending.len() as i64);
    match (group.pending.first(), group.pending.last()) {
        (Some(first), Some(last)) => {
            four.bulk(first.id.text().as_bytes());
            four.bulk(last.id.text().as_bytes());
            four.array_of_unknown(|list| {
                for consumer in group.consumers.iter().filter(|consumer| !consumer.pending.is_empty()) {
                    let mut pair = list.element().array(2);
                    pair.bulk(&consumer.name);
                    pair.bulk(itoa::Buffer::new().format(consumer.pending.len()).as_bytes());
                    let _ = pair.done();
                }
            });
        }
        _ => {
            four.null();
            four.null();
            four.null_array();
        }
    }
    Ok(four.done())
}
