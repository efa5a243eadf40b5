//! XADD with IDMP and IDMPAUTO, XCFGSET and XIDMPRECORD: an entry that a producer adds twice is there once.
//!
//! Invariants:
//! - The record of an entry and that of its id are of one command: a log has both or neither.
//! - An id of IDMPAUTO depends on the fields and their values alone, in any order. It is the same on every server and
//!   in every version, because it may be in a snapshot.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{ONE_STREAM, ids};
use crate::base::varint::put_varint;
use crate::core::{
    Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, Outcome, Words, args, flags,
};
use crate::keyspace::Key;
use crate::resp::Reply;
use crate::value::stream::{AnyStream, Known, Stream, StreamId, Window};

/// Bytes of an id that IDMPAUTO computes.
const IID_BYTES: usize = 16;

/// Who adds an entry, and under which id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Producer<'a> {
    name: &'a [u8],
    /// `None` if it follows from the fields.
    iid: Option<&'a [u8]>,
}

impl<'a> Producer<'a> {
    /// Takes IDMP or IDMPAUTO with its values; `None` if the word is not one of them, or too little follows.
    pub(super) fn take(word: &[u8], words: &mut Words<'a>) -> Result<Option<Producer<'a>>, CommandError> {
        if args::is(word, "IDMP") && words.left() >= 2 {
            let (name, iid) = (words.value()?, words.value()?);
            if name.is_empty() {
                return Err(CommandError::Text("ERR syntax error, IDMP requires a non-empty producer ID"));
            }
            if iid.is_empty() {
                return Err(CommandError::Text("ERR syntax error, IDMP requires a non-empty idempotent ID"));
            }
            return Ok(Some(Producer { name, iid: Some(iid) }));
        }
        if args::is(word, "IDMPAUTO") && words.left() >= 1 {
            let name = words.value()?;
            if name.is_empty() {
                return Err(CommandError::Text("ERR syntax error, IDMPAUTO requires a non-empty producer ID"));
            }
            return Ok(Some(Producer { name, iid: None }));
        }
        Ok(None)
    }

    /// The same with its id, whichever way it comes.
    pub(super) fn with_fields(self, fields: impl Iterator<Item = &'a [u8]>) -> Identified<'a> {
        let iid = self.iid.map_or_else(|| Cow::Owned(iid_of(fields)), Cow::Borrowed);
        Identified { producer: self.name, iid }
    }
}

/// The id of an entry: a hash of the sorted hashes of its fields with their values.
fn iid_of<'f>(mut fields: impl Iterator<Item = &'f [u8]>) -> Vec<u8> {
    let mut pairs: Vec<[u8; 32]> = Vec::new();
    while let Some((name, value)) = fields.next().zip(fields.next()) {
        let mut name_len = Vec::new();
        put_varint(&mut name_len, name.len() as u64);
        let pair = Sha256::new().chain_update(&name_len).chain_update(name).chain_update(value);
        pairs.push(pair.finalize().into());
    }
    pairs.sort_unstable();
    let whole = pairs.iter().fold(Sha256::new(), |whole, pair| whole.chain_update(pair));
    whole.finalize()[..IID_BYTES].to_vec()
}

/// A producer and its id of an entry.
#[derive(Clone, Debug)]
pub(super) struct Identified<'a> {
    producer: &'a [u8],
    iid: Cow<'a, [u8]>,
}

impl Identified<'_> {
    /// The entry that is there already, if one is remembered under this id. It is counted.
    pub(super) fn find(&self, db: &mut Db<'_>, key: Key<'_>) -> Result<Option<StreamId>, CommandError> {
        let (now, window) = (db.facts().now, db.facts().stream_window);
        let known = db.peek_view::<AnyStream>(key)?.and_then(Stream::idempotency);
        let Some(entry) = known.and_then(|known| known.find(self.producer, &self.iid, now)) else { return Ok(None) };
        db.edit_unwatched::<AnyStream, _>(key, |stream| {
            stream.idempotency_mut(window).count_duplicate();
            Ok(((), 0))
        })?;
        Ok(Some(entry))
    }

    /// Remembers the id of a new entry. Returns what the log needs to know of that.
    pub(super) fn remember(&self, stream: &mut Stream, entry: StreamId, now: i64, window: Window) -> Remembered {
        let is_first = stream.idempotency().is_none();
        let its = stream.idempotency_mut(window);
        let forgotten = its.over(now);
        its.remember(self.known(entry, now), forgotten);
        Remembered { window: is_first.then_some(window), forgotten, entry, at: now }
    }

    /// Logs it.
    pub(super) fn log(&self, db: &mut Db<'_>, key: Key<'_>, remembered: Remembered) {
        if let Some(window) = remembered.window {
            db.record(key).stream_window(window);
        }
        db.record(key).stream_remember(remembered.forgotten, &self.known(remembered.entry, remembered.at));
    }

    fn known(&self, entry: StreamId, at: i64) -> Known<'_> {
        Known { producer: self.producer, iid: &self.iid, entry, at }
    }
}

/// What became of a stream that remembers an id more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    /// The window, if it had none before.
    window: Option<Window>,
    forgotten: u64,
    entry: StreamId,
    at: i64,
}

pub(super) static XCFGSET: Command = Command {
    name: "XCFGSET",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects, // as the whole window
    handler: Handler::Data(xcfgset),
    since: "8.6.0",
    syntax: "key [IDMP-DURATION duration] [IDMP-MAXSIZE maxsize]",
    summary: "Sets for how long and for how many entries a stream remembers what its producers have added.",
    ..ONE_STREAM
};

fn xcfgset(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, default) = (call.key(1), call.db.facts().stream_window);
    let stream = call.db.peek_view::<AnyStream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let own = stream.idempotency().map(|its| its.window());
    let (mut seconds, mut ids_max, mut words) = (None, None, Words::new(call.args, 2));
    while let Some(word) = words.next() {
        if args::is(word, "IDMP-DURATION") && words.left() > 0 {
            let twice = CommandError::Text("ERR IDMP-DURATION specified multiple times");
            let wrong = CommandError::Text("ERR IDMP-DURATION must be between 1 and 86400 seconds");
            once(&mut seconds, &mut words, Window::SECONDS_MAX, twice, wrong)?;
        } else if args::is(word, "IDMP-MAXSIZE") && words.left() > 0 {
            let twice = CommandError::Text("ERR IDMP-MAXSIZE specified multiple times");
            let wrong = CommandError::Text("ERR IDMP-MAXSIZE must be between 1 and 10000 entries");
            once(&mut ids_max, &mut words, Window::IDS_MAX, twice, wrong)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if seconds.is_none() && ids_max.is_none() {
        return Err(CommandError::Text("ERR At least one parameter must be specified"));
    }
    let before = own.unwrap_or(default);
    let window = Window { seconds: seconds.unwrap_or(before.seconds), ids_max: ids_max.unwrap_or(before.ids_max) };
    if own == Some(window) {
        return Ok(reply.ok());
    }
    call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        stream.idempotency_mut(window).set_window(window);
        Ok(((), 1))
    })?;
    call.record(key).stream_window(window);
    Ok(reply.ok())
}

/// Takes the number of a parameter, which is told once and from 1 to `most`.
fn once(
    parameter: &mut Option<u32>,
    words: &mut Words<'_>,
    most: u32,
    twice: CommandError,
    wrong: CommandError,
) -> Result<(), CommandError> {
    if parameter.is_some() {
        return Err(twice);
    }
    *parameter = Some(within(words.integer()?, most).ok_or(wrong)?);
    Ok(())
}

fn within(number: i64, most: u32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| (1..=most).contains(number))
}

pub(super) static XIDMPRECORD: Command = Command {
    name: "XIDMPRECORD",
    arity: Arity::Exactly(5),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    handler: Handler::Data(xidmprecord),
    since: "8.6.2",
    syntax: "key pid iid stream-id",
    summary: "Has a stream remember that a producer has added an entry that is there, for replication and repair.",
    ..XCFGSET
};

fn xidmprecord(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args, now, default) = (call.key(1), call.args, call.db.facts().now, call.db.facts().stream_window);
    let identified = Identified { producer: args.at(2), iid: Cow::Borrowed(args.at(3)) };
    let entry = ids::exact(args.at(4), 0)?;
    if identified.producer.is_empty() {
        return Err(CommandError::Text("ERR producer ID must be non-empty"));
    }
    if identified.iid.is_empty() {
        return Err(CommandError::Text("ERR idempotent ID must be non-empty"));
    }
    let stream = call.db.peek_view::<AnyStream>(key)?.ok_or(CommandError::NoSuchKey)?;
    if stream.get(entry).is_none() {
        return Err(CommandError::Text("ERR No such message in stream"));
    }
    match stream.idempotency().and_then(|its| its.find(identified.producer, &identified.iid, now)) {
        Some(known) if known == entry => return Ok(reply.ok()),
        Some(_) => {
            return Err(CommandError::Text("ERR IID already exists for this producer with a different stream ID"));
        }
        None => {}
    }
    // The entry was added when its id says, unless the id is of another clock. If that is too long ago, there is
    // nothing to remember.
    let at = i64::try_from(entry.ms).unwrap_or(now).min(now);
    if stream.idempotency().map_or(default, |its| its.window()).is_over(at, now) {
        return Ok(reply.ok());
    }
    let remembered = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let remembered = identified.remember(stream, entry, at, default);
        Ok((remembered, 1))
    })?;
    identified.log(&mut call.db, key, remembered);
    Ok(reply.ok())
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;
