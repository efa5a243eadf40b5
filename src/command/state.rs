//! STATE: a key's whole value as one record of the log. No client can send it.
//!
//! What a key becomes by reading another one (RENAME, COPY, the STORE commands, RESTORE) is logged so, since a
//! record replays without reading any other key.

use super::stream::record::{XCLAIMED, XDELIVERED};
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, args, flags};
use crate::resp::Reply;
use crate::value::codec;

/// The commands that only the log holds.
pub static RECORDS: &[&Command] = &[&STATE, &XCLAIMED, &XDELIVERED];

static STATE: Command = Command {
    name: "STATE",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "OW update")]),
    log: LogRule::Rewritten,
    handler: Handler::Data(state),
    syntax: "key tag bytes [PXAT unix-time-milliseconds]",
    summary: "Sets a key to a collection given as bytes.",
    ..Command::DEFAULT
};

fn state(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    const MALFORMED: CommandError = CommandError::Text("ERR a key's state is malformed");
    let key = call.key(1);
    let tag = u8::try_from(args::integer(call.args.at(2))?).map_err(|_| MALFORMED)?;
    let expiry = match (call.args.get(4), call.args.get(5)) {
        (None, _) => None,
        (Some(b"PXAT"), Some(at)) => Some(args::integer(at)?),
        _ => return Err(MALFORMED),
    };
    let limits = call.db.facts().limits;
    let value = codec::decode(tag, call.args.at(3), &limits).map_err(|_| MALFORMED)?;
    call.db.set(key, value, expiry);
    call.log_verbatim(key);
    Ok(reply.ok())
}
