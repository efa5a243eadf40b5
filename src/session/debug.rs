//! DEBUG: the command, and those of its words that need the server. The others are in `command::debug`.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::reload::{self, Reload};
use crate::command::debug::{self, WORD};
use crate::command::{Arity, Command, CommandError, Handler, Outcome, SessionCall, Wait, args, flags, help};
use crate::resp::Reply;

/// See the module.
pub static COMMANDS: &[&Command] = &[&DEBUG];

static DEBUG: Command = Command {
    name: "DEBUG",
    arity: Arity::AtLeast(2),
    handler: Handler::Words(&[debug::WORDS, &[&HELP, &LOADAOF, &RELOAD, &SET_ACTIVE_EXPIRE]]),
    summary: "A container for what tests ask of a server.",
    ..WORD
};

static RELOAD: Command = Command {
    name: "RELOAD",
    arity: Arity::AtLeast(2),
    flags: WORD.flags.or(flags::NO_MULTI),
    handler: Handler::Session(reload_command),
    syntax: "[option ...]",
    summary: "Makes a snapshot, and loads all keys anew from the disk.",
    ..WORD
};

fn reload_command(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (mut save, mut flush, mut merge) = (true, true, false);
    for word in call.args.from(2) {
        match word {
            _ if args::is(word, "MERGE") => merge = true,
            _ if args::is(word, "NOFLUSH") => flush = false,
            _ if args::is(word, "NOSAVE") => save = false,
            _ => {
                return Err(CommandError::Text(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    begin(call, Reload::Snapshot { save, flush, merge }, reply)
}

static LOADAOF: Command = Command {
    name: "LOADAOF",
    arity: Arity::Exactly(2),
    handler: Handler::Session(|call, reply| begin(call, Reload::Log, reply)),
    syntax: "",
    summary: "Loads all keys anew from snapshot and log.",
    ..RELOAD
};

/// Begins to load anew; the connection waits for the end of it.
fn begin(call: &mut SessionCall<'_>, how: Reload, reply: Reply<'_>) -> Outcome {
    let (done, outcome) = oneshot::channel();
    reload::request(call.server, how, done);
    call.client.wait = Some(Wait::Reload(outcome));
    Ok(reply.withheld())
}

static SET_ACTIVE_EXPIRE: Command = Command {
    name: "SET-ACTIVE-EXPIRE",
    arity: Arity::Exactly(3),
    handler: Handler::Session(set_active_expire),
    syntax: "0|1",
    summary: "Whether keys expire that nobody asks for.",
    ..WORD
};

fn set_active_expire(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    // As C reads a number: what begins with none is zero.
    let word = call.args.at(2);
    let is_off = matches!(word.first(), None | Some(b'0')) || !word[0].is_ascii_digit();
    call.server.active_expiry_off.store(is_off, Relaxed);
    Ok(reply.ok())
}

static HELP: Command = Command {
    name: "HELP",
    handler: Handler::Session(|_, reply| help(reply, "DEBUG", HELP_LINES)),
    summary: "Describes the words.",
    ..WORD
};

const HELP_LINES: &[&str] = &[
    "CHANGE-REPL-ID",
    "    Accepted, without effect.",
    "DICT-RESIZING <0|1>",
    "    Accepted, without effect.",
    "DIGEST",
    "    Output a hex signature representing the current DB content.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Output a hex signature of the values of all the specified keys.",
    "ERROR <string>",
    "    Return an error with <string> as message.",
    "LOADAOF",
    "    Load all keys anew from the snapshot and the log on disk.",
    "LOG <message>",
    "    Write <message> to the server log.",
    "OBJECT <key>",
    "    Show low level info about `key` and associated value.",
    "PAUSE-CRON <0|1>",
    "    Accepted, without effect.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Create <count> string keys named key:<num>, or <prefix>:<num>. Keys that",
    "    exist already stay as they are.",
    "PROTOCOL <type>",
    "    Reply with a test value of the specified type. <type> can be: string,",
    "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
    "    true, false.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Checked, without effect.",
    "RELOAD [option ...]",
    "    Make a snapshot and load all keys anew from the disk. Valid <option> values:",
    "    * MERGE: keys in memory that are not on the disk stay if NOFLUSH is given,",
    "      and keys that are in both are taken from the disk.",
    "    * NOFLUSH: keys in memory stay; one that is on the disk too is an error.",
    "    * NOSAVE: make no snapshot, load what is on the disk.",
    "REPLYBUFFER <setting> <value>",
    "    Accepted, without effect.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are removed that nobody accesses.",
    "SLEEP <seconds>",
    "    Stop the server for <seconds>. Decimals allowed.",
];
