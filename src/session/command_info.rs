//! COMMAND: shows clients the table of commands.

use super::command_docs;
use crate::base::glob;
use crate::core::args::is;
use crate::core::key_spec::{Begin, Find, KeyFlags, KeySpec, Keys};
use crate::core::table::CommandEntry;
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall, Table, categories, flags, help};
use crate::resp::{Args, Done, Elements, Reply};

/// See the module.
pub static COMMANDS: &[&Command] = &[&COMMAND];

static COMMAND: Command = Command {
    name: "COMMAND",
    arity: Arity::AtLeast(1),
    handler: Handler::ContainerOr(&[&COUNT, &DOCS, &GETKEYS, &GETKEYSANDFLAGS, &HELP, &INFO, &LIST], command),
    tips: "nondeterministic_output_order",
    complexity: "O(N)",
    summary: "Describes every command.",
    ..SUBCOMMAND
};

/// What all of them share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE),
    categories: categories::CONNECTION,
    since: "2.8.13",
    group: "server",
    ..Command::DEFAULT
};

fn command(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(describe_all(&call.server.table, reply))
}

fn describe_all(table: &Table, reply: Reply<'_>) -> Done {
    let mut all = reply.array(table.len());
    for entry in table.named() {
        describe(entry, &mut all);
    }
    all.done()
}

/// The ten fields of one command.
fn describe(entry: &CommandEntry, out: &mut Elements<'_>) {
    let command = entry.command;
    let mut fields = out.array(10);
    fields.bulk(entry.full_name.as_bytes());
    fields.int(command.arity.number());
    let shown = flags::SHOWN.iter().filter(|(flag, _)| command.flags.has(*flag)).map(|(_, name)| *name);
    words(&mut fields, shown);
    let (first, last, step) = command.keys.first_last_step();
    [first, last, step].into_iter().for_each(|number| fields.int(number));
    let of = categories::of(command);
    let names: Vec<String> =
        categories::ALL.iter().filter(|(category, _)| of.has(*category)).map(|(_, name)| format!("@{name}")).collect();
    words(&mut fields, names.iter().map(String::as_str));
    let mut tips = fields.set(command.tips.split_whitespace().count());
    command.tips.split_whitespace().for_each(|tip| tips.bulk(tip.as_bytes()));
    tips.end();
    let Keys(specs) = command.keys;
    let mut shown = fields.set(specs.len());
    specs.iter().for_each(|spec| describe_keys(spec, &mut shown));
    shown.end();
    let mut subcommands = fields.set(entry.subcommands().len());
    entry.subcommands().iter().for_each(|sub| describe(sub, &mut subcommands));
    subcommands.end();
    fields.end();
}

/// A set of simple strings.
fn words<'a>(out: &mut Elements<'_>, words: impl Iterator<Item = &'a str>) {
    let words: Vec<&str> = words.collect();
    let mut set = out.set(words.len());
    words.iter().for_each(|word| set.simple(word));
    set.end();
}

fn describe_keys(spec: &KeySpec, out: &mut Elements<'_>) {
    let mut map = out.map(if spec.notes.is_empty() { 3 } else { 4 });
    if !spec.notes.is_empty() {
        map.bulk(b"notes");
        map.bulk(spec.notes.as_bytes());
    }
    map.bulk(b"flags");
    words(&mut map, spec.flags.words());
    map.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => typed(&mut map, "index", &[("index", index as i64)], None),
        Begin::Keyword(word, from) => {
            typed(&mut map, "keyword", &[("startfrom", i64::from(from))], Some(("keyword", word)));
        }
        Begin::Unknown => typed(&mut map, "unknown", &[], None),
    }
    map.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let numbers = [("lastkey", i64::from(last)), ("keystep", step as i64), ("limit", limit as i64)];
            typed(&mut map, "range", &numbers, None);
        }
        Find::Keynum { at, first, step } => {
            let numbers = [("keynumidx", at as i64), ("firstkey", first as i64), ("keystep", step as i64)];
            typed(&mut map, "keynum", &numbers, None);
        }
        Find::Unknown => typed(&mut map, "unknown", &[], None),
    }
    map.end();
}

/// A map of a type and its details: a word, if any, then numbers.
fn typed(out: &mut Elements<'_>, kind: &str, numbers: &[(&str, i64)], word: Option<(&str, &str)>) {
    let mut map = out.map(2);
    map.bulk(b"type");
    map.bulk(kind.as_bytes());
    map.bulk(b"spec");
    let mut spec = map.map(numbers.len() + usize::from(word.is_some()));
    if let Some((name, word)) = word {
        spec.bulk(name.as_bytes());
        spec.bulk(word.as_bytes());
    }
    for (name, number) in numbers {
        spec.bulk(name.as_bytes());
        spec.int(*number);
    }
    spec.end();
    map.end();
}

static COUNT: Command =
    Command { name: "COUNT", handler: Handler::Session(count), summary: "The number of commands.", ..SUBCOMMAND };

fn count(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.int(call.server.table.len() as i64))
}

static DOCS: Command = Command {
    name: "DOCS",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(command_docs::docs),
    since: "7.0.0",
    complexity: "O(N)",
    tips: "nondeterministic_output_order",
    syntax: "[command-name [command-name ...]]",
    summary: "Documents commands: what they do, since when, and their arguments.",
    ..SUBCOMMAND
};

static INFO: Command = Command {
    name: "INFO",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(info),
    complexity: "O(N)",
    tips: "nondeterministic_output_order",
    syntax: "[command-name [command-name ...]]",
    summary: "Describes some commands, or every one.",
    ..SUBCOMMAND
};

fn info(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let table = &call.server.table;
    if call.args.len() == 2 {
        return Ok(describe_all(table, reply));
    }
    let mut all = reply.array(call.args.len() - 2);
    for name in call.args.from(2) {
        match table.by_full_name(name) {
            Some(entry) => describe(entry, &mut all),
            None => all.null(),
        }
    }
    Ok(all.done())
}

static LIST: Command = Command {
    name: "LIST",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(list),
    since: "7.0.0",
    complexity: "O(N)",
    tips: "nondeterministic_output_order",
    syntax: "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
    summary: "The names of all commands, or of some.",
    ..SUBCOMMAND
};

fn list(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (args, table) = (call.args, &call.server.table);
    let chosen: Vec<&CommandEntry> = match args.len() {
        2 => table.named().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands())).collect(),
        5 if is(args.at(2), "FILTERBY") => filtered(table, args.at(3), args.at(4))?,
        _ => return Err(CommandError::Syntax),
    };
    let mut names = reply.array(chosen.len());
    chosen.iter().for_each(|entry| names.bulk(entry.full_name.as_bytes()));
    Ok(names.done())
}

/// Filters apply to subcommands, too.
fn filtered<'a>(table: &'a Table, filter: &[u8], by: &[u8]) -> Result<Vec<&'a CommandEntry>, CommandError> {
    let all = table.named().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
    if is(filter, "PATTERN") {
        Ok(all.filter(|entry| glob::matches_nocase(by, entry.full_name.as_bytes())).collect())
    } else if is(filter, "ACLCAT") {
        let category = categories::ALL.iter().find(|(_, name)| by.eq_ignore_ascii_case(name.as_bytes()));
        let category = category.map(|(category, _)| *category);
        Ok(all.filter(|entry| category.is_some_and(|c| categories::of(entry.command).has(c))).collect())
    } else if is(filter, "MODULE") {
        Ok(Vec::new())
    } else {
        Err(CommandError::Syntax)
    }
}

static GETKEYS: Command = Command {
    name: "GETKEYS",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(getkeys),
    complexity: "O(N)",
    syntax: "command [arg [arg ...]]",
    summary: "The keys that a call of a command would use.",
    ..SUBCOMMAND
};

fn getkeys(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let keys = keys_of(&call.server.table, call.args.skip(2))?;
    let mut out = reply.array(keys.len());
    keys.iter().for_each(|(key, _)| out.bulk(key));
    Ok(out.done())
}

static GETKEYSANDFLAGS: Command = Command {
    name: "GETKEYSANDFLAGS",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(getkeysandflags),
    since: "7.0.0",
    complexity: "O(N)",
    syntax: "command [arg [arg ...]]",
    summary: "The keys that a call of a command would use, and what it would do with them.",
    ..SUBCOMMAND
};

fn getkeysandflags(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let keys = keys_of(&call.server.table, call.args.skip(2))?;
    let mut out = reply.array(keys.len());
    for (key, flags) in keys {
        let mut both = out.array(2);
        both.bulk(key);
        words(&mut both, flags.words());
        both.end();
    }
    Ok(out.done())
}

/// The keys of a call, with the flags of their use.
fn keys_of<'a>(table: &Table, args: Args<'a>) -> Result<Vec<(&'a [u8], KeyFlags)>, CommandError> {
    let entry = match table.resolve(args) {
        Ok(entry) => entry,
        Err(CommandError::Arity(name)) => table.by_full_name(name.as_bytes()).expect("the table named it itself"),
        Err(_) => return Err(CommandError::Text("ERR Invalid command specified")),
    };
    let command = entry.command;
    if !command.keys.is_any() {
        return Err(CommandError::Text("ERR The command has no key arguments"));
    }
    if !command.arity.accepts(args.len()) {
        return Err(CommandError::Text("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = Vec::new();
    for spec in command.keys.0 {
        let Some(places) = Keys(std::slice::from_ref(spec)).places(args) else {
            return Err(CommandError::Text("ERR Invalid arguments specified for command"));
        };
        let flags = spec.flags_of.map_or(spec.flags, |flags_of| flags_of(args));
        keys.extend(places.iter().map(|&place| (args.at(place), flags)));
    }
    if keys.is_empty() && !command.flags.has(flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::Text("ERR Invalid arguments specified for command"));
    }
    Ok(keys)
}

static HELP: Command = Command {
    name: "HELP",
    handler: Handler::Session(command_help),
    since: "5.0.0",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn command_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    )
}
