//! The table of all commands against the facts of Redis 7.2 (`data/facts/commands.tsv`).

use std::collections::{BTreeMap, BTreeSet};

use super::table;
use crate::core::key_spec::{Begin, Find, KeySpec};
use crate::core::table::{CommandEntry, mistake};
use crate::core::{Handler, categories, flags};

const FACTS: &str = include_str!("../../data/facts/commands.tsv");

/// Deliberate differences: command, column, and our value.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("CLIENT REPLY", "flags", "loading no_multi noscript stale"),
    // The facts are of Valkey, which had it first.
    ("CLUSTER SLOT-STATS", "since", "8.2.0"),
    // As in Valkey 9.2: EXEC with conditions on keys, MOVE REPLACE.
    ("EXEC", "arity", "-1"),
    ("EXEC", "flags", "loading movablekeys noscript skip_slowlog stale"),
    ("EXEC", "key_specs", "unknown, unknown {RO/access}"),
    // Nobody may hold keys while it waits for the network.
    ("MIGRATE", "flags", "movablekeys no_multi noscript write"),
    ("MOVE", "arity", "-3"),
    ("SISMEMBER", "arity", "-3"),
];

/// Commands newer than the facts, as described in the documentation of Redis 8.2 and Valkey 9.2, in the form of the
/// facts.
const NEWER: &str = "\
BACKUP\t8.10\tserver\t8.10.0\t-2\t\t@slow\t\t0,0,0\t
BACKUP ABORT\t8.10\tserver\t8.10.0\t2\tadmin no_async_loading noscript\t@admin @dangerous @slow\t\t0,0,0\t
BACKUP CLEANUP\t8.10\tserver\t8.10.0\t2\tadmin no_async_loading no_multi noscript\t@admin @dangerous @slow\t\t0,0,0\t
BACKUP HELP\t8.10\tserver\t8.10.0\t2\tloading stale\t@slow\t\t0,0,0\t
BACKUP LIST\t8.10\tserver\t8.10.0\t2\tadmin no_async_loading noscript\t@admin @dangerous @slow\t\t0,0,0\t
BACKUP SEAL\t8.10\tserver\t8.10.0\t2\tadmin no_async_loading no_multi noscript\t@admin @dangerous @slow\t\t0,0,0\t
BACKUP START\t8.10\tserver\t8.10.0\t2\tadmin no_async_loading noscript\t@admin @dangerous @slow\t\t0,0,0\t
BACKUP STATUS\t8.10\tserver\t8.10.0\t2\tadmin no_async_loading noscript\t@admin @dangerous @slow\t\t0,0,0\t
BACKUP VERIFY\tironkeep\tserver\tironkeep-0.1.0\t2\tadmin no_async_loading no_multi noscript\t\
@admin @dangerous @slow\t\t0,0,0\t
XACKDEL\t8.2\tstream\t8.2.0\t-6\tfast write\t@fast @stream @write\t\
idx 1, range last=0 step=1 limit=0 {RW/update/delete}\t1,1,1\t
XDELEX\t8.2\tstream\t8.2.0\t-5\tfast write\t@fast @stream @write\t\
idx 1, range last=0 step=1 limit=0 {RW/delete}\t1,1,1\t
XCFGSET\t8.6\tstream\t8.6.0\t-2\tfast write\t@fast @stream @write\t\
idx 1, range last=0 step=1 limit=0 {RW/update}\t1,1,1\t
XIDMPRECORD\t8.6\tstream\t8.6.2\t5\tdenyoom fast write\t@fast @stream @write\t\
idx 1, range last=0 step=1 limit=0 {RW/update}\t1,1,1\t
XNACK\t8.8\tstream\t8.8.0\t-7\tfast write\t@fast @stream @write\t\
idx 1, range last=0 step=1 limit=0 {RW/update}\t1,1,1\t
CONFIG INFO\tvalkey-9.2\tserver\tvalkey-9.2.0\t-3\tadmin loading noscript stale\t@admin @dangerous @slow\t\t0,0,0\t
DELEX\t8.4\tstring\t8.4.0\t-2\tfast write\t@fast @string @write\t\
idx 1, range last=0 step=1 limit=0 {RW/delete/variable_flags}\t1,1,1\t
DELIFEQ\tvalkey-9.1\tstring\tvalkey-9.0.0\t3\tfast write\t@fast @string @write\t\
idx 1, range last=0 step=1 limit=0 {RM/delete}\t1,1,1\t
DIGEST\t8.4\tstring\t8.4.0\t2\tfast readonly\t@fast @read @string\t\
idx 1, range last=0 step=1 limit=0 {RO/access}\t1,1,1\t
BLMOVEM\t8.10\tlist\t8.10.0\t-6\tblocking denyoom write\t@blocking @list @slow @write\t\
idx 1, range last=0 step=1 limit=0 {RW/access/delete} ; idx 2, range last=0 step=1 limit=0 {RW/insert}\t1,2,1\t
HIMPORT\t8.10\thash\t8.10.0\t-2\t\t@hash @slow\t\t0,0,0\t
HIMPORT DISCARD\t8.10\thash\t8.10.0\t3\tnoscript\t@hash @slow\t\t0,0,0\t
HIMPORT DISCARDALL\t8.10\thash\t8.10.0\t2\tnoscript\t@hash @slow\t\t0,0,0\t
HIMPORT PREPARE\t8.10\thash\t8.10.0\t-4\tnoscript\t@hash @slow\t\t0,0,0\t
HIMPORT SET\t8.10\thash\t8.10.0\t-5\tdenyoom noscript write\t@hash @slow @write\t\
idx 2, range last=0 step=1 limit=0 {OW/update}\t2,2,1\t
LMOVEM\t8.10\tlist\t8.10.0\t-5\tdenyoom write\t@list @slow @write\t\
idx 1, range last=0 step=1 limit=0 {RW/access/delete} ; idx 2, range last=0 step=1 limit=0 {RW/insert}\t1,2,1\t
SDIFFCARD\t8.10\tset\t8.10.0\t-3\tmovablekeys readonly\t@read @set @slow\t\
idx 1, keynum at=0 first=1 step=1 {RO/access}\t0,0,0\t
SUNIONCARD\t8.10\tset\t8.10.0\t-3\tmovablekeys readonly\t@read @set @slow\t\
idx 1, keynum at=0 first=1 step=1 {RO/access}\t0,0,0\t
INCREX\t8.8\tstring\t8.8.0\t-2\tdenyoom fast write\t@fast @string @write\t\
idx 1, range last=0 step=1 limit=0 {RW/access/update}\t1,1,1\t
MSETEX\t8.4\tstring\t8.4.0\t-4\tdenyoom movablekeys write\t@slow @string @write\t\
idx 1, keynum at=0 first=1 step=2 {OW/update}\t0,0,0\t\
request_policy:multi_shard response_policy:all_succeeded
ACL DELROLE\tvalkey-9.2\tserver\tvalkey-9.2.0\t-3\tadmin loading noscript stale\t\
@admin @dangerous @slow\t\t0,0,0\t\
request_policy:all_nodes response_policy:all_succeeded
ACL DIGEST\tvalkey-9.2\tserver\tvalkey-9.2.0\t2\tadmin loading noscript stale\t@admin @dangerous @slow\t\t0,0,0\t
ACL GETROLE\tvalkey-9.2\tserver\tvalkey-9.2.0\t3\tadmin loading noscript stale\t@admin @dangerous @slow\t\t0,0,0\t
ACL ROLES\tvalkey-9.2\tserver\tvalkey-9.2.0\t2\tadmin loading noscript stale\t@admin @dangerous @slow\t\t0,0,0\t
ACL SETROLE\tvalkey-9.2\tserver\tvalkey-9.2.0\t-3\tadmin loading noscript stale\t@admin @dangerous @slow\t\t0,0,0\t\
request_policy:all_nodes response_policy:all_succeeded
BIGKEYS\tironkeep\tserver\tironkeep-0.1.0\t-1\tadmin noscript\t@admin @dangerous @slow\t\t0,0,0\t\
request_policy:special response_policy:special nondeterministic_output
UNFLUSH\tironkeep\tserver\tironkeep-0.1.0\t-1\twrite\t@dangerous @keyspace @slow @write\t\t0,0,0\t
SLOWLOG PARTS\tironkeep\tserver\tironkeep-0.1.0\t-2\tadmin loading stale\t@admin @dangerous @slow\t\t0,0,0\t
";

/// One line of the facts: its columns by name.
type Facts = BTreeMap<&'static str, &'static str>;

fn facts() -> BTreeMap<&'static str, Facts> {
    let mut lines = FACTS.lines().chain(NEWER.lines()).filter(|line| !line.starts_with('#'));
    let columns: Vec<&str> = lines.next().expect("a heading").split('\t').collect();
    lines
        .map(|line| {
            let facts: Facts = columns.iter().copied().zip(line.split('\t')).collect();
            (facts["name"], facts)
        })
        .collect()
}

/// A command and its subcommands, by the names that the facts use.
fn all(entries: &[CommandEntry]) -> impl Iterator<Item = (String, &CommandEntry)> {
    let named = |entry: &CommandEntry| entry.full_name.to_ascii_uppercase().replace('|', " ");
    entries.iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands())).map(move |e| (named(e), e))
}

fn key_spec(spec: &KeySpec) -> String {
    let begin = match spec.begin {
        Begin::Index(index) => format!("idx {index}"),
        Begin::Keyword(word, from) => format!("kw {word} from {from}"),
        Begin::Unknown => "unknown".into(),
    };
    let find = match spec.find {
        Find::Range { last, step, limit } => format!("range last={last} step={step} limit={limit}"),
        Find::Keynum { at, first, step } => format!("keynum at={at} first={first} step={step}"),
        Find::Unknown => "unknown".into(),
    };
    format!("{begin}, {find} {{{}}}", spec.flags.words().collect::<Vec<_>>().join("/"))
}

fn sorted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

/// The values of our table, in the columns of the facts.
fn ours(entry: &CommandEntry) -> Vec<(&'static str, String)> {
    let command = entry.command;
    let (first, last, step) = command.keys.first_last_step();
    let specs: Vec<String> = command.keys.0.iter().map(key_spec).collect();
    let of = categories::of(command);
    let names = categories::ALL.iter().filter(|(c, _)| of.has(*c)).map(|(_, name)| format!("@{name}"));
    let names: Vec<String> = names.collect();
    let shown = flags::SHOWN.iter().filter(|(flag, _)| command.flags.has(*flag)).map(|(_, name)| *name);
    vec![
        ("group", command.group.to_owned()),
        ("since", command.since.to_owned()),
        ("arity", command.arity.number().to_string()),
        ("flags", sorted(shown)),
        ("categories", sorted(names.iter().map(String::as_str))),
        ("key_specs", specs.join(" ; ")),
        ("first_last_step", format!("{first},{last},{step}")),
        ("tips", command.tips.to_owned()),
    ]
}

#[test]
fn every_command_is_as_redis_describes_it() {
    let (facts, table) = (facts(), table());
    let mut wrong = Vec::new();
    for (name, entry) in all(table.entries()) {
        let Some(facts) = facts.get(name.as_str()) else {
            wrong.push(format!("{name}: not in the facts"));
            continue;
        };
        for (column, ours) in ours(entry) {
            let on_purpose = DIFFERENCES.contains(&(name.as_str(), column, ours.as_str()));
            let theirs = facts.get(column).copied().unwrap_or_default();
            if ours != theirs && !on_purpose {
                wrong.push(format!("{name}: {column} is '{ours}', should be '{theirs}'"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_declaration_contradicts_itself() {
    let table = table();
    for (name, entry) in all(table.entries()) {
        assert_eq!(mistake(entry.command), None, "{name}");
    }
}

#[test]
fn every_syntax_makes_arguments_and_as_many_as_the_arity_says() {
    let table = table();
    for (name, entry) in all(table.entries()) {
        let command = entry.command;
        if matches!(command.handler, Handler::Container(_) | Handler::ContainerOr(..)) {
            continue;
        }
        let arguments = super::syntax::arguments(command.syntax, command.keys.0.len());
        let named = name.split(' ').count() as i64;
        let needed = named + arguments.iter().map(least_words).sum::<i64>();
        let arity = command.arity.number().abs();
        assert!(needed <= arity || name == "QUIT", "{name}: the arity is {arity}, the syntax needs {needed}");
        let fixed = command.arity.number() > 0;
        assert!(!fixed || needed == arity, "{name}: the arity is {arity}, the syntax takes {needed}");
    }
}

/// The fewest words that an argument takes.
fn least_words(argument: &super::syntax::Argument) -> i64 {
    let inner = argument.arguments.iter().map(least_words);
    let own = match argument.kind {
        _ if argument.optional => return 0,
        "pure-token" => 0,
        "block" => inner.sum(),
        "oneof" => inner.min().unwrap_or(0),
        _ => 1,
    };
    own + i64::from(argument.token.is_some())
}
