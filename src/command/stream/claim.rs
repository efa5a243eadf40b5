//! XCLAIM and XAUTOCLAIM: pending entries change their consumer.

use super::record::{Asker, log_delivery};
use super::{ONE_STREAM, ids, no_group};
use crate::base::format;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, flags,
};
use crate::keyspace::Key;
use crate::resp::{Args, Elements, Reply};
use crate::value::stream::{AnyStream, Claim, Count, Pending, Stream, StreamId};

pub(super) static XCLAIM: Command = Command {
    name: "XCLAIM",
    arity: Arity::AtLeast(6),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects, // as what is pending for the consumer then, and since when
    handler: Handler::Data(xclaim),
    complexity: "O(log N) with N being the number of messages in the PEL of the consumer group.",
    tips: "nondeterministic_output",
    syntax: "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
    summary: "Gives pending entries, by their ids, to another consumer.",
    ..ONE_STREAM
};

/// The options of XCLAIM.
struct Options {
    ids: Vec<StreamId>,
    delivered: i64,
    retry_count: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: StreamId,
}

impl Options {
    fn parse(args: Args<'_>, now: i64) -> Result<Options, CommandError> {
        // The first word that is not an id begins the options.
        let ids: Vec<StreamId> = args.from(5).map_while(|word| ids::exact(word, 0).ok()).collect();
        let mut words = Words::new(args, 5 + ids.len());
        let mut options =
            Options { ids, delivered: -1, retry_count: None, force: false, just_id: false, last_id: StreamId::MIN };
        while let Some(word) = words.next() {
            let has_value = words.left() > 0;
            let mut integer = |name: &str| {
                let value = format::parse_i64(words.value()?);
                value.ok_or_else(|| CommandError::err(format_args!("Invalid {name} option argument for XCLAIM")))
            };
            if args::is(word, "FORCE") {
                options.force = true;
            } else if args::is(word, "JUSTID") {
                options.just_id = true;
            } else if args::is(word, "IDLE") && has_value {
                options.delivered = now.wrapping_sub(integer("IDLE")?);
            } else if args::is(word, "TIME") && has_value {
                options.delivered = integer("TIME")?;
            } else if args::is(word, "RETRYCOUNT") && has_value {
                options.retry_count = u64::try_from(integer("RETRYCOUNT")?).ok();
            } else if args::is(word, "LASTID") && has_value {
                options.last_id = ids::exact(words.value()?, 0)?;
            } else {
                return Err(CommandError::echo("Unrecognized XCLAIM option '", word, "'"));
            }
        }
        // An impossible time becomes now, because clients' clocks may be ahead.
        if options.delivered < 0 || options.delivered > now {
            options.delivered = now;
        }
        Ok(options)
    }

    fn count(&self) -> Count {
        match self.retry_count {
            Some(count) => Count::Set(count),
            None if self.just_id => Count::Same,
            None => Count::OneMore,
        }
    }
}

/// The least idle time of claimed entries. A negative one counts as none.
fn min_idle(word: &[u8], command: &str) -> Result<i64, CommandError> {
    let least = format::parse_i64(word).map(|least| least.max(0));
    least.ok_or_else(|| CommandError::err(format_args!("Invalid min-idle-time argument for {command}")))
}

fn xclaim(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, now) = (call.key(1), call.args, call.db.facts().now);
    let asker = Asker { group: args.at(2), consumer: args.at(3), now };
    call.db.read(key);
    check_group(call, key, asker.group)?;
    let least = min_idle(args.at(4), "XCLAIM")?;
    let options = Options::parse(args, now)?;
    let claim = Claim { now, delivered: options.delivered, count: options.count(), force: options.force };
    let (claimed, gone, is_new, changes) = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let is_new = is_new_consumer(stream, asker);
        let last_id = stream.group(asker.group).map_or(StreamId::MAX, |group| group.last_id);
        let raised = if options.last_id > last_id { options.last_id } else { StreamId::MIN };
        if raised > last_id {
            stream.edit_group(asker.group, |group| group.last_id = raised);
        }
        let ids = options.ids.iter().copied();
        let is_idle = |pending: &Pending| pending.is_idle(now, least);
        let (claimed, gone) = stream.claim(asker.group, asker.consumer, ids, &claim, is_idle);
        let raises = claimed.is_empty() && raised > StreamId::MIN;
        let changes = u64::from(is_new) + (claimed.len() + gone.len()) as u64 + u64::from(raises);
        Ok(((claimed, gone, is_new, changes), changes))
    })?;
    if changes > 0 {
        log_delivery(&mut call.db, key, asker, &claimed, &gone);
    }
    if is_new {
        call.db.notify(NotifyFlags::STREAM, "xgroup-createconsumer", key);
    }
    let stream = call.db.viewed::<AnyStream>(key);
    let mut list = reply.array(claimed.len());
    write_claimed(&mut list, stream, &claimed, options.just_id);
    Ok(list.done())
}

/// Whether the consumer is new. For a consumer that repeatedly claims in vain, only the time is kept, and not in the
/// log.
fn is_new_consumer(stream: &Stream, asker: Asker<'_>) -> bool {
    stream.group(asker.group).is_some_and(|group| group.consumer(asker.consumer).is_none())
}

/// Checks that a key which was read before is a stream with this group.
fn check_group(call: &mut Call<'_>, key: Key<'_>, group: &[u8]) -> Result<(), CommandError> {
    let found = call.db.peek_view::<AnyStream>(key)?.and_then(|stream| stream.group(group));
    found.map(|_| ()).ok_or_else(|| no_group(key.bytes, group, ""))
}

/// Writes the entries, or only their ids. All of them exist.
fn write_claimed(list: &mut Elements<'_>, stream: Option<&Stream>, ids: &[StreamId], just_id: bool) {
    for id in ids {
        match stream.and_then(|stream| stream.get(*id)).filter(|_| !just_id) {
            Some(entry) => {
                let mut pair = list.array(2);
                super::write_entry(&mut pair, &entry);
                pair.end();
            }
            None => list.bulk(id.text().as_bytes()),
        }
    }
}

pub(super) static XAUTOCLAIM: Command = Command {
    name: "XAUTOCLAIM",
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    handler: Handler::Data(xautoclaim),
    since: "6.2.0",
    complexity: "O(1) if COUNT is small.",
    syntax: "key group consumer min-idle-time start [COUNT count] [JUSTID]",
    summary: "Gives pending entries that are idle for long enough to another consumer.",
    ..XCLAIM
};

/// This many pending entries are examined for each one that may be claimed.
const ATTEMPTS_PER_ENTRY: usize = 10;
/// The largest COUNT.
const COUNT_MAX: i64 = i64::MAX / 16;

fn xautoclaim(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, now) = (call.key(1), call.args, call.db.facts().now);
    let asker = Asker { group: args.at(2), consumer: args.at(3), now };
    call.db.read(key);
    let least = min_idle(args.at(4), "XAUTOCLAIM")?;
    let start = ids::start(args.at(5))?;
    let (mut count, mut just_id, mut words) = (100, false, Words::new(args, 6));
    while let Some(word) = words.next() {
        if args::is(word, "COUNT") && words.left() > 0 {
            let given = format::parse_i64(words.value()?).filter(|count| (1..=COUNT_MAX).contains(count));
            count = given.ok_or(CommandError::OutOfRange("COUNT must be > 0"))? as usize;
        } else if args::is(word, "JUSTID") {
            just_id = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    check_group(call, key, asker.group)?;
    let count_mode = if just_id { Count::Same } else { Count::OneMore };
    let claim = Claim { now, delivered: now, count: count_mode, force: false };
    let (claimed, gone, next, is_new, changes) = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let is_new = is_new_consumer(stream, asker);
        let (taken, next) = to_claim(stream, asker, least, start, count);
        let (claimed, gone) = stream.claim(asker.group, asker.consumer, taken, &claim, |_| true);
        let changes = u64::from(is_new) + (claimed.len() + gone.len()) as u64;
        Ok(((claimed, gone, next, is_new, changes), changes))
    })?;
    if changes > 0 {
        log_delivery(&mut call.db, key, asker, &claimed, &gone);
    }
    if is_new {
        call.db.notify(NotifyFlags::STREAM, "xgroup-createconsumer", key);
    }
    let stream = call.db.viewed::<AnyStream>(key);
    let mut three = reply.array(3);
    three.bulk(next.text().as_bytes());
    let mut list = three.array(claimed.len());
    write_claimed(&mut list, stream, &claimed, just_id);
    list.end();
    let mut list = three.array(gone.len());
    gone.iter().for_each(|id| list.bulk(id.text().as_bytes()));
    list.end();
    Ok(three.done())
}

/// The pending entries from an id on that are to be claimed, or are gone; and the id to continue from, the smallest
/// at the end.
fn to_claim(
    stream: &Stream,
    asker: Asker<'_>,
    least_idle: i64,
    start: StreamId,
    mut count: usize,
) -> (Vec<StreamId>, StreamId) {
    let Some(group) = stream.group(asker.group) else { return (Vec::new(), StreamId::MIN) };
    let mut attempts = count.saturating_mul(ATTEMPTS_PER_ENTRY);
    let (mut taken, mut pending) = (Vec::new(), group.pending.iter_from(&start));
    while attempts > 0 && count > 0 {
        let Some(next) = pending.next() else { break };
        attempts -= 1;
        if next.is_idle(asker.now, least_idle) || stream.get(next.id).is_none() {
            taken.push(next.id);
            count -= 1;
        }
    }
    (taken, pending.next().map_or(StreamId::MIN, |next| next.id))
}
