//! FUNCTION, and FCALL, which the executor runs as it runs EVAL (`exec/script.rs`). What changes the libraries is the
//! executor's, too (`exec/functions.rs`).

use super::script_commands::kill_running;
use crate::base::glob;
use crate::core::args::is;
use crate::core::command::{LibraryChange, ScriptForm};
use crate::core::{
    Arity, Command, CommandError, Flags, Handler, KeySpec, Keys, LogRule, Outcome, SessionCall, categories, flags, help,
};
use crate::keyspace::Library;
use crate::persist::rdb::encode_libraries;
use crate::resp::Reply;
use crate::resp::reply::Elements;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&FCALL, &FCALL_RO, &FUNCTION];

const CALLED: Flags =
    flags::NOSCRIPT.or(flags::STALE).or(flags::SKIP_MONITOR).or(flags::NO_MANDATORY_KEYS).or(flags::MOVABLEKEYS);

static FCALL: Command = Command {
    name: "FCALL",
    arity: Arity::AtLeast(3),
    flags: CALLED.or(flags::SPREADS),
    categories: categories::SCRIPTING,
    keys: Keys(&[KeySpec::counted(2, "RW access update")]),
    handler: Handler::Script(ScriptForm::Function),
    since: "7.0.0",
    group: "scripting",
    complexity: "Depends on the function that is executed.",
    syntax: "function numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Calls a function of a library.",
    ..Command::DEFAULT
};

static FCALL_RO: Command = Command {
    name: "FCALL_RO",
    flags: CALLED.or(flags::READONLY),
    keys: Keys(&[KeySpec::counted(2, "RO access")]),
    handler: Handler::Script(ScriptForm::FunctionRo),
    summary: "Calls a function of a library that must not write.",
    ..FCALL
};

static FUNCTION: Command = Command {
    name: "FUNCTION",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&DELETE, &DUMP, &FLUSH, &HELP, &KILL, &LIST, &LOAD, &RESTORE, &STATS]),
    since: "7.0.0",
    group: "scripting",
    complexity: "Depends on subcommand.",
    summary: "The libraries of functions.",
    ..Command::DEFAULT
};

/// What the subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::NOSCRIPT,
    categories: categories::SCRIPTING,
    since: "7.0.0",
    group: "scripting",
    ..Command::DEFAULT
};

/// What those share that change the libraries.
const CHANGE: Command = Command {
    flags: flags::NOSCRIPT.or(flags::WRITE),
    log: LogRule::Barrier,
    tips: "request_policy:all_shards response_policy:all_succeeded",
    ..SUBCOMMAND
};

static LOAD: Command = Command {
    name: "LOAD",
    arity: Arity::AtLeast(3),
    flags: flags::NOSCRIPT.or(flags::WRITE).or(flags::DENYOOM),
    handler: Handler::Libraries(LibraryChange::Load),
    complexity: "O(1) (considering compilation time is redundant)",
    syntax: "[REPLACE] function-code",
    summary: "Adds a library, or puts it in the place of one of the same name.",
    ..CHANGE
};

static DELETE: Command = Command {
    name: "DELETE",
    arity: Arity::Exactly(3),
    handler: Handler::Libraries(LibraryChange::Delete),
    syntax: "library-name",
    summary: "Removes a library with its functions.",
    ..CHANGE
};

static FLUSH: Command = Command {
    name: "FLUSH",
    arity: Arity::AtLeast(2),
    handler: Handler::Libraries(LibraryChange::Flush),
    complexity: "O(N) where N is the number of functions deleted",
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all libraries.",
    ..CHANGE
};

static RESTORE: Command = Command {
    name: "RESTORE",
    arity: Arity::AtLeast(3),
    flags: flags::NOSCRIPT.or(flags::WRITE).or(flags::DENYOOM),
    handler: Handler::Libraries(LibraryChange::Restore),
    complexity: "O(N) where N is the number of functions on the payload",
    syntax: "serialized-value [FLUSH | APPEND | REPLACE]",
    summary: "Adds the libraries of a payload of FUNCTION DUMP.",
    ..CHANGE
};

static DUMP: Command = Command {
    name: "DUMP",
    handler: Handler::Session(dump),
    complexity: "O(N) where N is the number of functions",
    summary: "Gives all libraries as a payload for FUNCTION RESTORE.",
    ..SUBCOMMAND
};

fn dump(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let libraries = call.server.keyspace.libraries();
    Ok(reply.bulk(&encode_libraries(libraries.iter().map(|library| &*library.code))))
}

static LIST: Command = Command {
    name: "LIST",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(list),
    complexity: "O(N) where N is the number of functions",
    tips: "nondeterministic_output_order",
    syntax: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
    summary: "The libraries, their functions, and their texts if they are wanted.",
    ..SUBCOMMAND
};

fn list(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = call.args.from(2);
    while let Some(word) = words.next() {
        if !with_code && is(word, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && is(word, "LIBRARYNAME") {
            let given = words.next();
            pattern = Some(given.ok_or(CommandError::Text("ERR library name argument was not given"))?);
        } else {
            return Err(CommandError::echo("Unknown argument ", word, ""));
        }
    }
    let libraries = call.server.keyspace.libraries();
    Ok(reply.array_of_unknown(|all| {
        for library in libraries.iter() {
            if pattern.is_none_or(|pattern| glob::matches_nocase(pattern, &library.name)) {
                show(all.element().map(if with_code { 4 } else { 3 }), library, with_code);
            }
        }
    }))
}

fn show(mut shown: Elements<'_>, library: &Library, with_code: bool) {
    shown.bulk(b"library_name");
    shown.bulk(&library.name);
    shown.bulk(b"engine");
    shown.bulk(b"LUA");
    shown.bulk(b"functions");
    let mut functions = shown.array(library.functions.len());
    for function in &library.functions {
        let mut one = functions.map(3);
        one.bulk(b"name");
        one.bulk(&function.name);
        one.bulk(b"description");
        match &function.description {
            Some(description) => one.bulk(description),
            None => one.null(),
        }
        one.bulk(b"flags");
        let names = function.flags.names();
        let mut flags = one.set(names.len());
        names.iter().for_each(|name| flags.simple(name));
        flags.end();
        one.end();
    }
    functions.end();
    if with_code {
        shown.bulk(b"library_code");
        shown.bulk(&library.code);
    }
    shown.end();
}

static STATS: Command = Command {
    name: "STATS",
    flags: flags::NOSCRIPT.or(flags::ALLOW_BUSY),
    handler: Handler::Session(stats),
    tips: "nondeterministic_output request_policy:all_shards response_policy:special",
    summary: "The function that runs for long, and how many libraries and functions there are.",
    ..SUBCOMMAND
};

fn stats(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let libraries = call.server.keyspace.libraries();
    let mut all = reply.map(2);
    all.bulk(b"running_script");
    let running = call.server.running_scripts.oldest();
    match running.as_ref().and_then(|running| Some((running.function()?, running.running_ms()))) {
        None => all.null(),
        Some((function, since_ms)) => {
            let mut shown = all.map(3);
            shown.bulk(b"name");
            shown.bulk(function.name.as_bytes());
            shown.bulk(b"command");
            let mut words = shown.array(function.words.len());
            function.words.iter().for_each(|word| words.bulk(word));
            words.end();
            shown.bulk(b"duration_ms");
            shown.int(since_ms as i64);
            shown.end();
        }
    }
    all.bulk(b"engines");
    let mut engines = all.map(1);
    engines.bulk(b"LUA");
    let mut figures = engines.map(2);
    figures.bulk(b"libraries_count");
    figures.int(libraries.len() as i64);
    figures.bulk(b"functions_count");
    figures.int(libraries.functions_count() as i64);
    figures.end();
    engines.end();
    Ok(all.done())
}

static KILL: Command = Command {
    name: "KILL",
    flags: flags::NOSCRIPT.or(flags::ALLOW_BUSY),
    handler: Handler::Session(kill),
    tips: "request_policy:all_shards response_policy:one_succeeded",
    summary: "Ends the function that runs. What it has written is taken back, unless script-rollback is no.",
    ..SUBCOMMAND
};

fn kill(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    kill_running(call, reply, true)
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(|_, reply| {
        help::help(
            reply,
            "FUNCTION",
            &[
                "LOAD [REPLACE] <FUNCTION CODE>",
                "    Create a new library with the given library name and code.",
                "DELETE <LIBRARY NAME>",
                "    Delete the given library.",
                "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
                "    Return general information on all the libraries:",
                "    * Library name",
                "    * The engine used to run the Library",
                "    * Library description",
                "    * Functions list",
                "    * Library code (if WITHCODE is given)",
                "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
                "STATS",
                "    Return information about the current function running:",
                "    * Function name",
                "    * Command used to run the function",
                "    * Duration in MS that the function is running",
                "    If no function is running, return nil",
                "    In addition, returns a list of available engines.",
                "KILL",
                "    Kill the current running function.",
                "FLUSH [ASYNC|SYNC]",
                "    Delete all the libraries.",
                "    When called without the optional mode argument, the behavior is determined by the",
                "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
                "    * ASYNC: Asynchronously flush the libraries.",
                "    * SYNC: Synchronously flush the libraries.",
                "DUMP",
                "    Return a serialized payload representing the current libraries, can be restored using \
                 FUNCTION RESTORE command",
                "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
                "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
                "    control how to handle existing libraries (default APPEND):",
                "    * FLUSH: delete all existing libraries.",
                "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
                "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
                "      libraries with the new libraries (notice that even on this option there is a chance of failure",
                "      in case of functions name collision with another library).",
            ],
        )
    }),
    summary: "What FUNCTION can do.",
    ..SUBCOMMAND
};
