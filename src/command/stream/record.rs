//! Records that only the log holds: what groups have delivered and what consumers have claimed, with the times.
//!
//! No client can send them. A record says how many entries a group delivered, not which: those that follow the
//! last one delivered, as when it was written.

use smallvec::SmallVec;

use super::ids;
use crate::base::format;
use crate::core::{Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, Outcome, args, flags};
use crate::keyspace::Key;
use crate::resp::Reply;
use crate::value::stream::{AnyStream, Claim, Count, StreamId, StreamMut};

const MALFORMED: CommandError = CommandError::Text("ERR a record of a stream's group is malformed");

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) group: &'a [u8],
    pub(super) consumer: &'a [u8],
    pub(super) now: i64,
}

const RECORD: Command = Command {
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Rewritten,
    ..Command::DEFAULT
};

pub(crate) static XDELIVERED: Command = Command {
    name: "XDELIVERED",
    arity: Arity::Exactly(8),
    handler: Handler::Data(xdelivered),
    syntax: "key group consumer unix-time-milliseconds <> | id> count <KEEP | NOACK>",
    summary: "Delivers entries to a consumer, at a time.",
    ..RECORD
};

/// Logs that so many entries were delivered; behind an id, for another time.
pub(super) fn log_delivered(
    db: &mut Db<'_>,
    key: Key<'_>,
    asker: Asker<'_>,
    after: Option<StreamId>,
    count: usize,
    keep: bool,
) {
    let (mut time, mut number) = (itoa::Buffer::new(), itoa::Buffer::new());
    let after = after.map(StreamId::text);
    let after = after.as_ref().map_or(&b">"[..], |id| id.as_bytes());
    let (time, number) = (time.format(asker.now).as_bytes(), number.format(count).as_bytes());
    let keep: &[u8] = if keep { b"KEEP" } else { b"NOACK" };
    db.log(key, &[b"XDELIVERED", key.bytes, asker.group, asker.consumer, time, after, number, keep]);
}

fn xdelivered(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let (group, consumer, now) = (args.at(2), args.at(3), args::integer(args.at(4))?);
    let after = match args.at(5) {
        b">" => None,
        word => Some(ids::exact(word, 0)?),
    };
    let count = usize::try_from(args::integer(args.at(6))?).map_err(|_| MALFORMED)?;
    let keep = args.at(7) == b"KEEP";
    call.db.edit::<AnyStream, _>(key, |stream| {
        check_group(stream, group)?;
        if let Some(after) = after {
            stream.deliver_again(group, consumer, after, Some(count), now);
        } else {
            stream.deliver(group, consumer, Some(count), now, keep);
        }
        Ok(((), 1))
    })?;
    call.log_verbatim(key);
    Ok(reply.ok())
}

pub(crate) static XCLAIMED: Command = Command {
    name: "XCLAIMED",
    arity: Arity::AtLeast(9),
    handler: Handler::Data(xclaimed),
    syntax: "key group consumer unix-time-milliseconds delivered count <FORCE | -> last-id [id ...]",
    summary: "Gives pending entries to a consumer, at a time.",
    ..RECORD
};

/// Logs that a consumer has claimed these entries, or found them gone. A group's last id that is not to rise is
/// the smallest one.
pub(super) fn log_claimed(
    db: &mut Db<'_>,
    key: Key<'_>,
    asker: Asker<'_>,
    claim: &Claim,
    last_id: StreamId,
    touched: &[StreamId],
) {
    let mut buffers = [itoa::Buffer::new(); 3];
    let [time, delivered, count] = &mut buffers;
    let count = match claim.count {
        Count::OneMore => &b"+1"[..],
        Count::Same => b"=",
        Count::Set(number) => count.format(number).as_bytes(),
    };
    let force: &[u8] = if claim.force { b"FORCE" } else { b"-" };
    let last_id = last_id.text();
    let ids: SmallVec<[_; 8]> = touched.iter().map(|id| id.text()).collect();
    let mut words: SmallVec<[&[u8]; 16]> = SmallVec::from_slice(&[b"XCLAIMED", key.bytes, asker.group, asker.consumer]);
    words.extend([time.format(claim.now).as_bytes(), delivered.format(claim.delivered).as_bytes()]);
    words.extend([count, force, last_id.as_bytes()]);
    words.extend(ids.iter().map(|id| id.as_bytes()));
    db.log(key, &words);
}

fn xclaimed(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let (group, consumer) = (args.at(2), args.at(3));
    let count = match args.at(6) {
        b"+1" => Count::OneMore,
        b"=" => Count::Same,
        number => Count::Set(format::parse_i64(number).ok_or(MALFORMED)? as u64),
    };
    let (now, delivered) = (args::integer(args.at(4))?, args::integer(args.at(5))?);
    let claim = Claim { now, delivered, count, force: args.at(7) == b"FORCE" };
    let last_id = ids::exact(args.at(8), 0)?;
    let touched = super::exact_ids(args, 9)?;
    call.db.edit::<AnyStream, _>(key, |stream| {
        check_group(stream, group)?;
        stream.edit_group(group, |group| group.last_id = group.last_id.max(last_id));
        stream.claim(group, consumer, touched, &claim, |_| true);
        Ok(((), 1))
    })?;
    call.log_verbatim(key);
    Ok(reply.ok())
}

fn check_group(stream: &StreamMut<'_>, group: &[u8]) -> Result<(), CommandError> {
    stream.group(group).map(|_| ()).ok_or(MALFORMED)
}
