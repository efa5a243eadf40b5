//! XNACK: a consumer hands back what it was given, for others to claim.

use std::ops::Range;

use smallvec::SmallVec;

use super::{ONE_STREAM, ids, no_group};
use crate::base::format;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, Words, args, flags};
use crate::resp::{Args, Reply};
use crate::value::stream::{AnyStream, COUNT_MAX, StreamId};

pub(super) static XNACK: Command = Command {
    name: "XNACK",
    arity: Arity::AtLeast(7),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects, // as what is pending for nobody then, and how often it was delivered
    handler: Handler::Data(xnack),
    since: "8.8.0",
    syntax: "key group <SILENT | FAIL | FATAL> IDS numids id [id ...] [RETRYCOUNT count] [FORCE]",
    summary: "Hands pending entries back to their group, to be claimed before all others.",
    complexity: "O(1) for each message ID processed.",
    ..ONE_STREAM
};

/// What becomes of the number of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The last one does not count.
    Silent,
    /// It stays.
    Fail,
    /// It becomes the largest.
    Fatal,
    /// It becomes this.
    Set(u64),
}

impl Mode {
    fn of(word: &[u8]) -> Result<Mode, CommandError> {
        match word {
            word if args::is(word, "SILENT") => Ok(Mode::Silent),
            word if args::is(word, "FAIL") => Ok(Mode::Fail),
            word if args::is(word, "FATAL") => Ok(Mode::Fatal),
            _ => Err(CommandError::Text("ERR mode must be SILENT, FAIL, or FATAL")),
        }
    }

    /// The number of deliveries of an entry that has had so many.
    fn count(self, before: u64) -> u64 {
        match self {
            Mode::Silent => before.saturating_sub(1),
            Mode::Fail => before,
            Mode::Fatal => COUNT_MAX,
            Mode::Set(count) => count,
        }
    }
}

/// The parsed request, behind the group.
struct Request {
    mode: Mode,
    ids: SmallVec<[StreamId; 8]>,
    force: bool,
}

impl Request {
    /// The ids and the options come in any order. Of what is told twice, the last counts. Ids are looked at once
    /// everything else is in order.
    fn parse(args: Args<'_>) -> Result<Request, CommandError> {
        const OPTIONS: usize = 4;
        let mut mode = Mode::of(args.at(3))?;
        let (mut force, mut ids, mut words) = (false, None, Words::new(args, OPTIONS));
        while let Some(word) = words.next() {
            if args::is(word, "IDS") && words.left() > 0 {
                ids = Some(Self::take_ids(args, &mut words)?);
            } else if args::is(word, "FORCE") {
                force = true;
            } else if args::is(word, "RETRYCOUNT") && words.left() > 0 {
                let count = u64::try_from(words.integer()?);
                let wrong = CommandError::Text("ERR Invalid RETRYCOUNT value, must be >= 0");
                mode = Mode::Set(count.map_err(|_| wrong)?);
            } else {
                return Err(CommandError::echo("Unrecognized XNACK option '", word, "'"));
            }
        }
        let ids = ids.ok_or(CommandError::Text("ERR syntax error, expected IDS keyword"))?;
        let ids = args.from(ids.start).take(ids.len()).map(|word| ids::exact(word, 0)).collect::<Result<_, _>>()?;
        Ok(Request { mode, ids, force })
    }

    /// Where the ids are.
    fn take_ids(args: Args<'_>, words: &mut Words<'_>) -> Result<Range<usize>, CommandError> {
        let numids = format::parse_i64(words.value()?).filter(|numids| (1..=i64::from(i32::MAX)).contains(numids));
        let numids = numids.ok_or(CommandError::Text("ERR numids must be a positive integer"))? as usize;
        if numids > words.left() {
            return Err(CommandError::Text("ERR number of IDs doesn't match numids"));
        }
        let start = args.len() - words.left();
        words.pass_over(numids);
        Ok(start..start + numids)
    }
}

fn xnack(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let name = args.at(2);
    if call.db.view::<AnyStream>(key)?.and_then(|stream| stream.group(name)).is_none() {
        return Err(no_group(key.bytes, name, ""));
    }
    let request = Request::parse(args)?;
    let released = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let released = stream.release(name, &request.ids, request.force, |before| request.mode.count(before));
        let changes = released.len() as u64;
        Ok((released, changes))
    })?;
    if !released.is_empty() {
        call.record(key).group_release(name, &released);
    }
    Ok(reply.int(released.len() as i64))
}

#[cfg(test)]
#[path = "nack_tests.rs"]
mod tests;
