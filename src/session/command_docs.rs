//! COMMAND DOCS: the documentation of commands, from their declarations.

use super::syntax::{self, Argument};
use crate::core::table::CommandEntry;
use crate::core::{Outcome, SessionCall};
use crate::resp::{Elements, Reply};

/// The handler. Unknown names are skipped.
pub(super) fn docs(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let table = &call.server.table;
    let entries: Vec<&CommandEntry> = if call.args.len() == 2 {
        table.named().collect()
    } else {
        call.args.from(2).filter_map(|name| table.by_full_name(name)).collect()
    };
    let mut map = reply.map(entries.len());
    for entry in entries {
        document(entry, &mut map);
    }
    Ok(map.done())
}

/// A command's name, and the map of its documentation.
fn document(entry: &CommandEntry, out: &mut Elements<'_>) {
    let command = entry.command;
    let arguments = syntax::arguments(command.syntax, command.keys.0.len());
    let texts = [
        ("summary", command.summary.trim_end_matches('.')),
        ("since", command.since),
        ("group", command.group),
        ("complexity", command.complexity),
    ];
    let texts = texts.iter().filter(|(_, text)| !text.is_empty());
    let subcommands = entry.subcommands();
    out.bulk(entry.full_name.as_bytes());
    let parts = texts.clone().count() + usize::from(!arguments.is_empty()) + usize::from(!subcommands.is_empty());
    let mut map = out.map(parts);
    for (name, text) in texts {
        map.bulk(name.as_bytes());
        map.bulk(text.as_bytes());
    }
    if !arguments.is_empty() {
        map.bulk(b"arguments");
        document_arguments(&arguments, &mut map);
    }
    if !subcommands.is_empty() {
        map.bulk(b"subcommands");
        let mut inner = map.map(subcommands.len());
        subcommands.iter().for_each(|sub| document(sub, &mut inner));
        inner.end();
    }
    map.end();
}

fn document_arguments(arguments: &[Argument], out: &mut Elements<'_>) {
    let mut all = out.array(arguments.len());
    for argument in arguments {
        document_argument(argument, &mut all);
    }
    all.end();
}

fn document_argument(argument: &Argument, out: &mut Elements<'_>) {
    let group = !argument.arguments.is_empty();
    let flags =
        [("optional", argument.optional), ("multiple", argument.multiple), ("multiple_token", argument.multiple_token)];
    let flags: Vec<&str> = flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let present = [
        !group,
        argument.key_spec.is_some(),
        argument.token.is_some(),
        argument.since.is_some(),
        !flags.is_empty(),
        group,
    ];
    let mut map = out.map(2 + present.iter().filter(|there| **there).count());
    let mut text = |name: &str, value: &str| {
        map.bulk(name.as_bytes());
        map.bulk(value.as_bytes());
    };
    text("name", &argument.name);
    text("type", argument.kind);
    if !group {
        text("display_text", &argument.name);
    }
    if let Some(spec) = argument.key_spec {
        map.bulk(b"key_spec_index");
        map.int(spec as i64);
    }
    let optional_texts = [("token", &argument.token), ("since", &argument.since)];
    for (name, value) in optional_texts {
        if let Some(value) = value {
            map.bulk(name.as_bytes());
            map.bulk(value.as_bytes());
        }
    }
    if !flags.is_empty() {
        map.bulk(b"flags");
        let mut set = map.set(flags.len());
        flags.iter().for_each(|flag| set.simple(flag));
        set.end();
    }
    if group {
        map.bulk(b"arguments");
        document_arguments(&argument.arguments, &mut map);
    }
    map.end();
}
