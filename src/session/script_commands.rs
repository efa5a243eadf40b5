//! EVAL and its kind, which the executor runs (`exec/script.rs`), and SCRIPT.

use std::sync::Arc;

use crate::core::args::is;
use crate::core::command::ScriptForm;
use crate::core::scripts::{Kill, Sha};
use crate::core::{
    Arity, Command, CommandError, Flags, Handler, KeySpec, Keys, Outcome, SessionCall, categories, flags, help,
};
use crate::exec::compile_script;
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&EVAL, &EVALSHA, &EVALSHA_RO, &EVAL_RO, &SCRIPT];

const SCRIPTED: Flags =
    flags::NOSCRIPT.or(flags::STALE).or(flags::SKIP_MONITOR).or(flags::NO_MANDATORY_KEYS).or(flags::MOVABLEKEYS);

static EVAL: Command = Command {
    name: "EVAL",
    arity: Arity::AtLeast(3),
    flags: SCRIPTED.or(flags::SPREADS),
    categories: categories::SCRIPTING,
    keys: Keys(&[KeySpec::counted(2, "RW access update")]),
    handler: Handler::Script(ScriptForm::Eval),
    since: "2.6.0",
    group: "scripting",
    complexity: "Depends on the script that is executed.",
    syntax: "script numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a Lua script.",
    ..Command::DEFAULT
};

static EVALSHA: Command = Command {
    name: "EVALSHA",
    handler: Handler::Script(ScriptForm::EvalSha),
    syntax: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a Lua script that the server knows by its SHA-1.",
    ..EVAL
};

static EVAL_RO: Command = Command {
    name: "EVAL_RO",
    flags: SCRIPTED.or(flags::READONLY),
    keys: Keys(&[KeySpec::counted(2, "RO access")]),
    handler: Handler::Script(ScriptForm::EvalRo),
    since: "7.0.0",
    summary: "Runs a Lua script that must not write.",
    ..EVAL
};

static EVALSHA_RO: Command = Command {
    name: "EVALSHA_RO",
    handler: Handler::Script(ScriptForm::EvalShaRo),
    syntax: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a Lua script that the server knows and that must not write.",
    ..EVAL_RO
};

static SCRIPT: Command = Command {
    name: "SCRIPT",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&DEBUG, &EXISTS, &FLUSH, &HELP, &KILL, &LOAD, &SHOW]),
    since: "2.6.0",
    group: "scripting",
    complexity: "Depends on subcommand.",
    summary: "The scripts that the server knows.",
    ..Command::DEFAULT
};

/// What the subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::NOSCRIPT,
    categories: categories::SCRIPTING,
    since: "2.6.0",
    group: "scripting",
    ..Command::DEFAULT
};

static DEBUG: Command = Command {
    name: "DEBUG",
    arity: Arity::Exactly(3),
    handler: Handler::Session(debug),
    since: "3.2.0",
    syntax: "<YES | SYNC | NO>",
    summary: "There is no debugger of scripts: NO alone is accepted.",
    ..SUBCOMMAND
};

fn debug(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let word = call.args.at(2);
    match word {
        _ if is(word, "NO") => Ok(reply.ok()),
        _ if is(word, "YES") || is(word, "SYNC") => {
            Err(CommandError::Text("ERR the debugger of Lua scripts is not supported"))
        }
        _ => Err(CommandError::Text("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
}

static EXISTS: Command = Command {
    name: "EXISTS",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(exists),
    complexity: "O(N) with N being the number of scripts to check (so checking a single script is an O(1) operation).",
    tips: "request_policy:all_shards response_policy:agg_logical_and",
    syntax: "sha1 [sha1 ...]",
    summary: "Which of these scripts the server knows.",
    ..SUBCOMMAND
};

fn exists(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let mut all = reply.array(call.args.len() - 2);
    for name in call.args.from(2) {
        all.int(i64::from(Sha::parse(name).is_some_and(|sha| call.server.scripts.has(&sha))));
    }
    Ok(all.done())
}

static FLUSH: Command = Command {
    name: "FLUSH",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(flush),
    complexity: "O(N) with N being the number of scripts in cache",
    tips: "request_policy:all_nodes response_policy:all_succeeded",
    syntax: "[ASYNC@6.2.0 | SYNC@6.2.0]",
    summary: "Forgets all scripts.",
    ..SUBCOMMAND
};

/// Both ways are the same: what the virtual machines have compiled is dropped when each runs its next script.
fn flush(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let is_known = match call.args.len() {
        2 => true,
        3 => is(call.args.at(2), "ASYNC") || is(call.args.at(2), "SYNC"),
        _ => false,
    };
    if !is_known {
        return Err(CommandError::Text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    call.server.scripts.flush();
    Ok(reply.ok())
}

static KILL: Command = Command {
    name: "KILL",
    flags: flags::NOSCRIPT.or(flags::ALLOW_BUSY),
    handler: Handler::Session(kill),
    tips: "request_policy:all_shards response_policy:one_succeeded",
    summary: "Ends the scripts that run for too long, or the oldest one. What they have written is taken back, unless script-rollback is no.",
    ..SUBCOMMAND
};

fn kill(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    kill_running(call, reply, false)
}

/// Ends the functions that run, or the scripts.
pub(super) fn kill_running(call: &mut SessionCall<'_>, reply: Reply<'_>, functions: bool) -> Outcome {
    let long_ms = call.server.config.settings().busy_reply_threshold_ms;
    match call.server.running_scripts.kill(u64::try_from(long_ms).unwrap_or(u64::MAX), functions) {
        Kill::Done => Ok(reply.ok()),
        Kill::NotBusy => Err(CommandError::Text("NOTBUSY No scripts in execution right now.")),
        Kill::OfOtherKind => Err(call.server.running_scripts.busy_error()),
        Kill::Unkillable => Err(CommandError::Text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
             script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        )),
    }
}

static LOAD: Command = Command {
    name: "LOAD",
    arity: Arity::Exactly(3),
    flags: flags::NOSCRIPT.or(flags::STALE),
    handler: Handler::Session(load),
    complexity: "O(N) with N being the length in bytes of the script body.",
    tips: "request_policy:all_nodes response_policy:all_succeeded",
    syntax: "script",
    summary: "Makes a script known without running it, and replies with its SHA-1.",
    ..SUBCOMMAND
};

fn load(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let scripts = &call.server.scripts;
    let sha = Sha::of(call.args.at(2));
    let script = match scripts.get(&sha) {
        Some(script) => script,
        None => compile_script(scripts.generation(), sha, call.args.at(2))?,
    };
    scripts.add(Arc::clone(&script), true);
    Ok(reply.bulk(sha.as_str().as_bytes()))
}

static SHOW: Command = Command {
    name: "SHOW",
    arity: Arity::Exactly(3),
    flags: flags::NOSCRIPT.or(flags::STALE),
    handler: Handler::Session(show),
    since: "valkey-8.0.0",
    syntax: "sha1",
    summary: "The text of a script.",
    ..SUBCOMMAND
};

fn show(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    match Sha::parse(call.args.at(2)).and_then(|sha| call.server.scripts.get(&sha)) {
        Some(script) => Ok(reply.bulk(&script.body)),
        None => Err(CommandError::Text("NOSCRIPT No matching script. Please use EVAL.")),
    }
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(|_, reply| {
        help::help(
            reply,
            "SCRIPT",
            &[
                "DEBUG (YES|SYNC|NO)",
                "    Set the debug mode for subsequent scripts executed.",
                "EXISTS <sha1> [<sha1> ...]",
                "    Return information about the existence of the scripts in the script cache.",
                "FLUSH [ASYNC|SYNC]",
                "    Flush the Lua scripts cache. Very dangerous on replicas.",
                "    When called without the optional mode argument, the behavior is determined by the",
                "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
                "    * ASYNC: Asynchronously flush the scripts cache.",
                "    * SYNC: Synchronously flush the scripts cache.",
                "KILL",
                "    Kill the currently executing Lua script.",
                "LOAD <script>",
                "    Load a script into the scripts cache without executing it.",
            ],
        )
    }),
    since: "5.0.0",
    summary: "What SCRIPT can do.",
    ..SUBCOMMAND
};
