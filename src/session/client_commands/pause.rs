//! CLIENT PAUSE and UNPAUSE.

use std::sync::Arc;

use super::{ANYWHERE, SUBCOMMAND};
use crate::base::format;
use crate::core::args::is;
use crate::core::mailbox::Mail;
use crate::core::pause::Paused;
use crate::core::{Arity, Command, CommandError, Handler, Outcome, Server, SessionCall, flags};
use crate::resp::Reply;

pub(super) static PAUSE: Command = Command {
    name: "PAUSE",
    arity: Arity::AtLeast(3),
    flags: ANYWHERE.or(flags::ADMIN),
    handler: Handler::Session(pause),
    since: "3.0.0",
    syntax: "timeout [WRITE | ALL@6.2.0]",
    summary: "Has the commands of all connections, or those that write, wait for some milliseconds.",
    ..SUBCOMMAND
};

/// It replies when no command runs any more that began before the pause.
fn pause(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let args = call.args;
    let what = match (args.get(3), args.len()) {
        (None, _) => Paused::All,
        (Some(word), 4) if is(word, "ALL") => Paused::All,
        (Some(word), 4) if is(word, "WRITE") => Paused::Writes,
        (Some(_), 4) => return Err(CommandError::Text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(CommandError::subcommand_syntax(args.at(1), "CLIENT")),
    };
    let timeout_ms =
        format::parse_i64(args.at(2)).ok_or(CommandError::OutOfRange("timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(CommandError::OutOfRange("timeout is negative"));
    }
    let until = call.now.checked_add(timeout_ms).ok_or(CommandError::OutOfRange("timeout is out of range"))?;
    let server = call.server;
    server.pause.begin(what, until, call.now, &server.hooks);
    if server.gate.workers() == 1 {
        return Ok(reply.ok());
    }
    // What other workers have begun ends before the gate closes; what comes later sees the pause.
    let stand_still = |server: &Arc<Server>| {
        drop(server.gate.close());
        Ok(())
    };
    Ok(call.client.defer(reply, stand_still))
}

pub(super) static UNPAUSE: Command = Command {
    name: "UNPAUSE",
    flags: ANYWHERE.or(flags::ADMIN),
    handler: Handler::Session(unpause),
    since: "6.2.0",
    complexity: "O(N)",
    summary: "Ends a pause.",
    ..SUBCOMMAND
};

fn unpause(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let server = call.server;
    if server.pause.end(&server.hooks) {
        (0..server.gate.workers()).for_each(|worker| server.mailboxes.post(worker, Mail::Resume));
    }
    Ok(reply.ok())
}
