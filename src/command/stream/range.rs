//! XRANGE and XREVRANGE.

use super::{ONE_STREAM, entry_reply, ids};
use crate::core::{Arity, Call, Command, CommandError, Handler, Outcome, Words, args};
use crate::resp::{Args, Reply};
use crate::value::stream::AnyStream;

pub(super) static XRANGE: Command = Command {
    name: "XRANGE",
    arity: Arity::AtLeast(4),
    handler: Handler::Data(xrange),
    complexity: "O(N) with N being the number of elements being returned. If N is constant (e.g. always asking for the first 10 elements with COUNT), you can consider it O(1).",
    syntax: "key start end [COUNT count]",
    summary: "Gives the entries of a stream from one id to another.",
    ..ONE_STREAM
};

fn xrange(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    range(call, reply, false)
}

pub(super) static XREVRANGE: Command = Command {
    name: "XREVRANGE",
    handler: Handler::Data(xrevrange),
    syntax: "key end start [COUNT count]",
    summary: "Gives the entries of a stream from one id to another, the last first.",
    ..XRANGE
};

fn xrevrange(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    range(call, reply, true)
}

fn range(call: &mut Call<'_>, reply: Reply<'_>, backward: bool) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let (start, end) = if backward { (3, 2) } else { (2, 3) };
    let (start, end) = (ids::start(args.at(start))?, ids::end(args.at(end))?);
    let count = count(args)?;
    let Some(stream) = call.db.view::<AnyStream>(key)? else { return Ok(reply.array(0).done()) };
    if count == Some(0) {
        return Ok(reply.null_array());
    }
    let count = count.unwrap_or(usize::MAX);
    Ok(reply.array_of_unknown(|entries| {
        if backward {
            stream.range_back(start, end).take(count).for_each(|entry| entry_reply(entries.element(), &entry));
        } else {
            stream.range(start, end).take(count).for_each(|entry| entry_reply(entries.element(), &entry));
        }
    }))
}

/// The number of wanted entries. A negative one counts as zero.
fn count(args: Args<'_>) -> Result<Option<usize>, CommandError> {
    let (mut count, mut words) = (None, Words::new(args, 4));
    while let Some(word) = words.next() {
        if !args::is(word, "COUNT") || words.left() == 0 {
            return Err(CommandError::Syntax);
        }
        count = Some(usize::try_from(words.integer()?).unwrap_or(0));
    }
    Ok(count)
}
