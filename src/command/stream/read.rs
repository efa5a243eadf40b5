//! XREAD and XREADGROUP.
//!
//! The request is parsed completely before anything is read, and missing keys and groups are detected before anything
//! is delivered. XREADGROUP delivers stream by stream and then writes what it has delivered.

use smallvec::SmallVec;

use super::budget::Budget;
use super::{ONE_STREAM, entry_reply, ids, no_group, record, write_entry};
use crate::base::format;
use crate::core::error::until_nul;
use crate::core::key_spec::Find;
use crate::core::waiting::{self, Block, BlockedOn};
use crate::core::{
    Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, flags,
};
use crate::keyspace::Key;
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Elements, Reply, Resp};
use crate::value::stream::{AnyStream, Claim, Count, Entry, Pending, Stream, StreamId};

const fn streams_from(place: i32) -> KeySpec {
    KeySpec { find: Find::Range { last: -1, step: 1, limit: 2 }, ..KeySpec::behind("STREAMS", place, "RO access") }
}

pub(super) static XREAD: Command = Command {
    name: "XREAD",
    arity: Arity::AtLeast(4),
    flags: flags::READONLY.or(flags::BLOCKING).or(flags::MOVABLEKEYS),
    keys: Keys(&[streams_from(1)]),
    handler: Handler::Data(xread),
    complexity: "For each stream mentioned: O(N) with N being the number of elements being returned.",
    syntax: "[COUNT count] [MAXCOUNT@8.10.0 maxcount] [MAXSIZE@8.10.0 bytes] [BLOCK milliseconds] \
             STREAMS key [key ...] id [id ...]",
    summary: "Gives the entries of streams behind an id, and may wait for the first.",
    ..ONE_STREAM
};

pub(super) static XREADGROUP: Command = Command {
    name: "XREADGROUP",
    arity: Arity::AtLeast(7),
    flags: flags::WRITE.or(flags::BLOCKING).or(flags::MOVABLEKEYS),
    keys: Keys(&[streams_from(4)]),
    log: LogRule::Effects, // as what is pending for the consumer then, and since when
    handler: Handler::Data(xreadgroup),
    complexity: "For each stream mentioned: O(M) with M being the number of elements returned.",
    syntax: "GROUP <group consumer> [COUNT count] [MAXCOUNT@8.10.0 maxcount] [MAXSIZE@8.10.0 bytes] \
             [BLOCK milliseconds] [CLAIM@8.4.0 min-idle-time] [NOACK] STREAMS key [key ...] id [id ...]",
    summary: "Delivers entries of streams to a consumer of a group, and may wait for the first.",
    ..ONE_STREAM
};

/// The parsed request.
struct Request<'a> {
    /// The group and the consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    /// `None` for all.
    count: Option<usize>,
    /// In milliseconds; `None` does not wait.
    block: Option<i64>,
    keep: bool,
    /// How long an entry must have been pending, in milliseconds, to be claimed.
    claim: Option<i64>,
    budget: Budget,
    /// The index of the first key, and how many keys there are.
    first: usize,
    streams: usize,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>, now: i64, is_group: bool) -> Result<Request<'a>, CommandError> {
        let mut request = Request {
            group: None,
            count: None,
            block: None,
            keep: true,
            claim: None,
            budget: Budget::default(),
            first: 0,
            streams: 0,
        };
        let mut words = Words::new(args, 1);
        while let Some(word) = words.next() {
            let left = words.left();
            if args::is(word, "BLOCK") && left > 0 {
                let ms = format::parse_i64(words.value()?);
                let ms = ms.ok_or(CommandError::OutOfRange("timeout is not an integer or out of range"))?;
                waiting::timeout(ms, now)?;
                request.block = Some(ms);
            } else if args::is(word, "COUNT") && left > 0 {
                request.count = usize::try_from(words.integer()?).ok().filter(|count| *count > 0);
            } else if args::is(word, "STREAMS") && left > 0 {
                request.first = args.len() - left;
                if !left.is_multiple_of(2) {
                    return Err(unbalanced(is_group));
                }
                request.streams = left / 2;
                break;
            } else if args::is(word, "GROUP") && left >= 2 {
                if !is_group {
                    return Err(only_of_groups("GROUP"));
                }
                request.group = Some((words.value()?, words.value()?));
            } else if args::is(word, "NOACK") {
                if !is_group {
                    return Err(only_of_groups("NOACK"));
                }
                request.keep = false;
            } else if args::is(word, "CLAIM") && left > 0 {
                if !is_group {
                    return Err(only_of_groups("CLAIM"));
                }
                let least = format::parse_i64(words.value()?).map(|least| least.max(0));
                let mistake = CommandError::Text("ERR Invalid min-idle-time argument for XREADGROUP");
                request.claim = Some(least.ok_or(mistake)?);
            } else if left == 0 || !request.budget.take_option(word, &mut words)? {
                return Err(CommandError::Syntax);
            }
        }
        if request.first == 0 {
            return Err(CommandError::Syntax);
        }
        if is_group && request.group.is_none() {
            return Err(CommandError::Text("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    /// The index of each key, and the word of its id.
    fn each(&self, args: Args<'a>) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let streams = self.streams;
        (self.first..self.first + streams).map(move |place| (place, until_nul(args.at(place + streams))))
    }

    /// The executor has locked the keys behind the first word STREAMS that may be the option. It is not the option if
    /// a group or consumer behind another option has that name.
    fn check_keys(&self, call: &Call<'_>) -> Result<(), CommandError> {
        let found = &call.keys.named;
        let named = found.first().is_some_and(|key| key.place == self.first) && found.len() == self.streams;
        if named { Ok(()) } else { Err(CommandError::Text("ERR the first STREAMS must be the option")) }
    }
}

fn unbalanced(is_group: bool) -> CommandError {
    let (name, ids) = if is_group { ("xreadgroup", "an ID or '>'") } else { ("xread", "an ID, '+', or '$'") };
    CommandError::err(format_args!("Unbalanced '{name}' list of streams: for each stream key {ids} must be specified."))
}

fn only_of_groups(option: &str) -> CommandError {
    CommandError::err(format_args!("The {option} option is only supported by XREADGROUP. You called XREAD instead."))
}

fn xread(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, now) = (call.args, call.db.facts().now);
    let mut request = Request::parse(args, now, false)?;
    request.check_keys(call)?;
    let mut behind: SmallVec<[(usize, StreamId, &[u8]); 4]> = SmallVec::new();
    for (place, word) in request.each(args) {
        let stream = call.db.view::<AnyStream>(call.key(place))?;
        behind.push((place, position(stream, word)?, word));
    }
    let served: SmallVec<[(usize, StreamId, &[u8]); 4]> = behind
        .iter()
        .filter(|(place, id, _)| {
            let stream = call.db.viewed::<AnyStream>(call.key(*place));
            stream.and_then(Stream::last).is_some_and(|last| last.id > *id)
        })
        .copied()
        .collect();
    // Redis looks at each key a second time.
    for (place, ..) in &behind {
        let key = call.key(*place);
        if call.db.viewed::<AnyStream>(key).is_none() {
            call.db.notify(NotifyFlags::KEY_MISS, "keymiss", key);
        }
    }
    if served.is_empty() {
        let Some(ms) = request.block else { return Ok(reply.null_array()) };
        let mut block = Block::new(waiting::timeout(ms, now)?, BlockedOn::Stream);
        // Resolved now: entries from now on, not from when the command runs again.
        if behind.iter().any(|(_, _, word)| *word == b"$") {
            let ids: Vec<_> = behind.iter().map(|(_, id, word)| (id.text(), *word)).collect();
            let ids = ids.iter().map(|(id, word)| if *word == b"$" { id.as_bytes() } else { word });
            block.again = Some(OwnedArgs::new(args.from(0).take(request.first + request.streams).chain(ids)));
        }
        return call.block_on(block, reply);
    }
    let mut counted: SmallVec<[(usize, StreamId, usize); 4]> = SmallVec::new();
    for (place, id, word) in served {
        let most = if word == b"+" { 1 } else { request.count.unwrap_or(usize::MAX) };
        let stream = call.db.viewed::<AnyStream>(call.key(place));
        let count = request.budget.spend(entries_after(stream, id).map(Some), most);
        if count > 0 {
            counted.push((place, id, count));
        }
    }
    let mut streams = Served::new(reply, counted.len());
    for (place, id, count) in counted {
        let stream = call.db.viewed::<AnyStream>(call.key(place));
        streams.add(args.at(place), |entries| {
            entries.array_of_unknown(|entries| {
                let range = entries_after(stream, id).take(count);
                range.for_each(|entry| entry_reply(entries.element(), &entry));
            });
        });
    }
    Ok(streams.0.done())
}

/// The entries of a stream after an id.
fn entries_after(stream: Option<&Stream>, id: StreamId) -> impl Iterator<Item = Entry<'_>> {
    let range = stream.zip(id.next()).map(|(stream, start)| stream.range(start, StreamId::MAX));
    range.into_iter().flatten()
}

/// The id after which entries are wanted.
fn position(stream: Option<&Stream>, word: &[u8]) -> Result<StreamId, CommandError> {
    let last_id = stream.map_or(StreamId::MIN, Stream::last_id);
    match word {
        b"$" => Ok(last_id),
        b"+" => {
            let last = stream.and_then(Stream::last);
            Ok(last.map_or(last_id, |last| last.id.previous().unwrap_or(StreamId::MIN)))
        }
        b">" => Err(CommandError::Text(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        _ => ids::exact(word, 0),
    }
}

/// The reply, stream by stream: a map in RESP3.
struct Served<'a>(Elements<'a>);

impl<'a> Served<'a> {
    fn new(reply: Reply<'a>, streams: usize) -> Self {
        Served(match reply.resp() {
            Resp::V2 => reply.array(streams),
            Resp::V3 => reply.map(streams),
        })
    }

    fn add(&mut self, key: &[u8], write: impl FnOnce(&mut Elements<'_>)) {
        match self.0.resp() {
            Resp::V2 => {
                let mut pair = self.0.array(2);
                pair.bulk(key);
                write(&mut pair);
                pair.end();
            }
            Resp::V3 => {
                self.0.bulk(key);
                write(&mut self.0);
            }
        }
    }
}

/// A pending entry that a consumer has claimed: how long it was idle, in milliseconds, and how often it had been
/// delivered.
struct Claimed {
    id: StreamId,
    idle: i64,
    count: u64,
}

/// What one stream delivers to a consumer.
enum Delivery {
    /// Claimed entries, and this many entries after an id.
    New(Vec<Claimed>, StreamId, usize),
    /// Entries that it already owns.
    Again(Vec<StreamId>),
}

impl Delivery {
    fn len(&self) -> usize {
        match self {
            Delivery::New(claimed, _, count) => claimed.len() + count,
            Delivery::Again(ids) => ids.len(),
        }
    }
}

/// What a consumer wants of one stream.
#[derive(Clone, Copy)]
enum Want {
    /// Entries that were never delivered.
    New,
    /// Entries that it owns after an id.
    Again(StreamId),
}

fn xreadgroup(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, now) = (call.args, call.db.facts().now);
    let mut request = Request::parse(args, now, true)?;
    request.check_keys(call)?;
    let Some((group, consumer)) = request.group else { return Err(CommandError::Syntax) };
    let mut wants: SmallVec<[(usize, Want); 4]> = SmallVec::new();
    for (place, word) in request.each(args) {
        let stream = call.db.view::<AnyStream>(call.key(place))?;
        if stream.and_then(|stream| stream.group(group)).is_none() {
            return Err(no_group(args.at(place), group, " in XREADGROUP with GROUP option"));
        }
        wants.push((place, want(word)?));
    }
    if wants.len() == 1 {
        call.db.change_one();
    }
    let mut deliveries: SmallVec<[(usize, Delivery); 4]> = SmallVec::new();
    for (place, want) in wants {
        let asker = record::Asker { group, consumer, now };
        if let Some(delivery) = deliver(call, call.key(place), asker, want, &mut request)? {
            deliveries.push((place, delivery));
        }
    }
    if deliveries.is_empty() {
        let Some(ms) = request.block else { return Ok(reply.null_array()) };
        let mut block = Block::new(waiting::timeout(ms, now)?, BlockedOn::StreamGroup);
        if let Some(least) = request.claim {
            let keys = request.each(args).map(|(place, _)| call.key(place));
            block.due = keys.filter_map(|key| idle_enough_at(&call.db, key, group, now, least)).min();
        }
        return call.block_on(block, reply);
    }
    let mut streams = Served::new(reply, deliveries.len());
    for (place, delivery) in deliveries {
        let stream = call.db.viewed::<AnyStream>(call.key(place));
        streams.add(args.at(place), |out| write_delivery(out, stream, &delivery));
    }
    Ok(streams.0.done())
}

fn want(word: &[u8]) -> Result<Want, CommandError> {
    match word {
        b">" => Ok(Want::New),
        b"$" => Err(CommandError::Text(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
        )),
        b"+" => Err(CommandError::Text(
            "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The + ID would just return an empty result set.",
        )),
        // Redis represents `>` by the largest id.
        _ => Ok(match ids::exact(word, 0)? {
            StreamId::MAX => Want::New,
            id => Want::Again(id),
        }),
    }
}

/// Delivers from one stream and logs it; `None` if there is nothing new. For a consumer that repeatedly asks in vain,
/// only the time is kept, and not in the log.
fn deliver(
    call: &mut Call<'_>,
    key: Key<'_>,
    asker: record::Asker<'_>,
    want: Want,
    request: &mut Request<'_>,
) -> Result<Option<Delivery>, CommandError> {
    let (group, consumer, now) = (asker.group, asker.consumer, asker.now);
    let claims = match (want, request.claim) {
        (Want::New, Some(least)) => to_claim(call, key, asker, least, request),
        _ => Vec::new(),
    };
    let count = affordable(call, key, asker, want, claims.len(), request);
    if count == Some(0) && claims.is_empty() {
        return Ok(None);
    }
    let (delivery, is_new, changes) = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let is_new = stream.group(group).is_some_and(|group| group.consumer(consumer).is_none());
        let delivery = match want {
            Want::New => {
                let claim = Claim { now, delivered: now, count: Count::OneMore, force: false };
                stream.claim(group, consumer, claims.iter().map(|claimed| claimed.id), &claim, |_| true);
                let (after, count) = stream.deliver(group, consumer, count, now, request.keep);
                Delivery::New(claims, after, count)
            }
            Want::Again(after) => Delivery::Again(stream.deliver_again(group, consumer, after, count, now)),
        };
        let changes = u64::from(is_new) + u64::from(delivery.len() > 0);
        Ok(((delivery, is_new, changes), changes))
    })?;
    if changes > 0 {
        let ids = match &delivery {
            Delivery::New(claimed, after, count) if call.db.unit().is_logging() => {
                let mut ids: Vec<StreamId> = claimed.iter().map(|claimed| claimed.id).collect();
                if request.keep {
                    ids.extend(new_ids(&call.db, key, *after, *count));
                }
                ids
            }
            Delivery::New(..) => Vec::new(),
            Delivery::Again(ids) => ids.clone(),
        };
        record::log_delivery(&mut call.db, key, asker, &ids, &[]);
    }
    if is_new {
        call.db.notify(NotifyFlags::STREAM, "xgroup-createconsumer", key);
    }
    Ok(match delivery {
        Delivery::New(claimed, _, 0) if claimed.is_empty() => None,
        delivery => Some(delivery),
    })
}

/// The pending entries of a group that were handed back, in their order, and behind them those that are idle for long
/// enough, the longest idle first; as many as the request allows.
fn to_claim(
    call: &Call<'_>,
    key: Key<'_>,
    asker: record::Asker<'_>,
    least: i64,
    request: &mut Request<'_>,
) -> Vec<Claimed> {
    let stream = call.db.viewed::<AnyStream>(key);
    let Some((stream, group)) = stream.and_then(|stream| Some((stream, stream.group(asker.group)?))) else {
        return Vec::new();
    };
    let idle = |delivered: i64| asker.now.saturating_sub(delivered).max(0);
    let claimed = |pending: &Pending| Claimed { id: pending.id, idle: idle(pending.delivered), count: pending.count };
    let exists = |pending: &&Pending| stream.get(pending.id).is_some();
    let mut claims: Vec<Claimed> = group.released().filter(exists).map(claimed).collect();
    let released = claims.len();
    let owned = group.pending.iter().filter(|pending| pending.consumer.is_some() && idle(pending.delivered) >= least);
    claims.extend(owned.filter(exists).map(claimed));
    claims[released..].sort_by_key(|claimed| (std::cmp::Reverse(claimed.idle), claimed.id));
    let most = request.count.unwrap_or(usize::MAX).min(claims.len());
    let count = request.budget.spend(claims.iter().map(|claimed| stream.get(claimed.id)), most);
    claims.truncate(count);
    claims
}

/// When the next pending entry of a group, none of which is idle enough now, will be: Unix ms.
fn idle_enough_at(db: &Db<'_>, key: Key<'_>, group: &[u8], now: i64, least: i64) -> Option<i64> {
    let stream = db.viewed::<AnyStream>(key)?;
    let existing = stream.group(group)?.pending.iter().filter(|pending| stream.get(pending.id).is_some());
    existing.map(|pending| pending.delivered).min().map(|earliest| earliest.saturating_add(least).max(now + 1))
}

/// How many entries of a stream may be delivered besides this many claimed ones; `None` for all.
fn affordable(
    call: &Call<'_>,
    key: Key<'_>,
    asker: record::Asker<'_>,
    want: Want,
    claimed: usize,
    request: &mut Request<'_>,
) -> Option<usize> {
    let most = request.count.map(|count| count.saturating_sub(claimed));
    if !request.budget.is_limited {
        return most;
    }
    let stream = call.db.viewed::<AnyStream>(key)?;
    let group = stream.group(asker.group)?;
    let most = most.unwrap_or(usize::MAX);
    Some(match want {
        Want::New => request.budget.spend(entries_after(Some(stream), group.last_id).map(Some), most),
        Want::Again(after) => {
            let own = group.consumer(asker.consumer).zip(after.next());
            let own = own.into_iter().flat_map(|(own, start)| own.pending.iter_from(&start));
            let mut own = own.map(|owned| stream.get(owned.0)).peekable();
            // A history without entries is told as such.
            if own.peek().is_none() { most } else { request.budget.spend(own, most) }
        }
    })
}

/// The ids of this many entries after an id.
fn new_ids(db: &Db<'_>, key: Key<'_>, after: StreamId, count: usize) -> Vec<StreamId> {
    entries_after(db.viewed::<AnyStream>(key), after).take(count).map(|entry| entry.id).collect()
}

fn write_delivery(out: &mut Elements<'_>, stream: Option<&Stream>, delivery: &Delivery) {
    match delivery {
        Delivery::New(claimed, after, count) => {
            let mut entries = out.array(claimed.len() + count);
            for claimed in claimed {
                // Only entries that exist are claimed.
                let Some(entry) = stream.and_then(|stream| stream.get(claimed.id)) else { continue };
                let mut four = entries.array(4);
                write_entry(&mut four, &entry);
                four.int(claimed.idle);
                four.int(claimed.count as i64);
                four.end();
            }
            for entry in entries_after(stream, *after).take(*count) {
                let mut pair = entries.array(2);
                write_entry(&mut pair, &entry);
                pair.end();
            }
            entries.end();
        }
        Delivery::Again(ids) => {
            let mut entries = out.array(ids.len());
            for id in ids {
                let mut pair = entries.array(2);
                match stream.and_then(|stream| stream.get(*id)) {
                    Some(entry) => write_entry(&mut pair, &entry),
                    None => {
                        pair.bulk(id.text().as_bytes());
                        pair.null_array();
                    }
                }
                pair.end();
            }
            entries.end();
        }
    }
}
