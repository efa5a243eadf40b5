//! The table of directives against the facts of Redis and Valkey (`data/facts/config.tsv`), and
//! `docs/configuration.md`, which is made of it: `UPDATE_DOCS=1 cargo test --lib reference`.

use super::super::directive::{Change, Directive, Kind};
use super::{GROUPS, all, find, is_not_applicable};

const FACTS: &str = include_str!("../../../data/facts/config.tsv");

/// A line of the facts: name, alias, mutable, need.
fn facts() -> impl Iterator<Item = [&'static str; 4]> {
    let lines = FACTS.lines().filter(|line| !line.starts_with('#')).skip(1);
    lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        columns.try_into().expect("four columns")
    })
}

#[test]
fn every_directive_of_redis_is_known_and_what_a_node_needs_is_accepted() {
    let mut wrong = Vec::new();
    for [name, alias, _, need] in facts() {
        let is_wanted = need != "not-applicable";
        for name in [name, alias].into_iter().filter(|name| !name.is_empty()) {
            match (find(name.as_bytes()), is_not_applicable(name.as_bytes())) {
                (Some(_), false) => {}
                (None, true) if !is_wanted => {}
                found => wrong.push(format!("{name} ({need}): {found:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn directives_change_at_run_time_where_they_do_in_redis() {
    let mut wrong = Vec::new();
    for [name, _, mutable, _] in facts() {
        let Some(directive) = find(name.as_bytes()).map(|index| all()[index]) else { continue };
        let theirs = match mutable {
            "y" => Change::Live,
            "protected" => Change::Protected,
            _ => Change::Fixed,
        };
        if directive.change != theirs {
            wrong.push(format!("{name}: {:?}, should be {theirs:?}", directive.change));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const HEAD: &str = "\
# Configuration

Every directive that has an effect, generated from the table in the source. `ironkeep config` prints the same as a file,
`ironkeep config FILE` a file of yours with all the rest, and `ironkeep check-config FILE` says what it leaves open.
[operating.md](operating.md#directives-without-effect) lists what is accepted and does nothing.

A line of the file is `directive value`; on the command line it is `--directive value`, and comes after the file. Sizes
have units: `1k` is 1000 bytes, `1kb` 1024, likewise m, mb, g, gb. *Changes* says when a value can change: *live* by
`CONFIG SET`, *protected* only as `enable-protected-configs` allows, *start* not while the server runs.
";

/// What a cell of a table may hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;")
}

fn values(directive: &Directive) -> String {
    match directive.kind {
        Kind::Bool => "`yes`, `no`".to_owned(),
        Kind::Int(min, max) => format!("{min} to {max}"),
        Kind::Memory(..) => "a size".to_owned(),
        Kind::MemoryOrAuto => "a size, `auto`".to_owned(),
        Kind::MemoryOrPercent => "a size, a percentage of `maxmemory`".to_owned(),
        Kind::Octal => "0 to 777, octal".to_owned(),
        Kind::Choice(words) | Kind::Choices(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::FileName => "a file's name".to_owned(),
        Kind::HostName => "a host's name".to_owned(),
        Kind::Subnets => "addresses and subnets".to_owned(),
        Kind::Addresses => "addresses".to_owned(),
        Kind::SavePoints => "pairs of seconds and changes".to_owned(),
        Kind::OutputLimits => "class, hard, soft, seconds".to_owned(),
        Kind::Notify => "letters of event classes".to_owned(),
        Kind::OomScores => "three numbers from -2000 to 2000".to_owned(),
        Kind::Percentiles => "numbers from 0 to 100".to_owned(),
        _ => "text".to_owned(),
    }
}

fn row(directive: &Directive) -> String {
    let alias = if directive.alias.is_empty() { String::new() } else { format!(", `{}`", directive.alias) };
    let default = if directive.default.is_empty() { "none".to_owned() } else { format!("`{}`", directive.default) };
    let changes = match directive.change {
        _ if matches!(directive.kind, Kind::FileOnly) => "file only",
        Change::Live => "live",
        Change::Fixed => "start",
        Change::Protected => "protected",
    };
    format!(
        "| `{}`{alias} | {default} | {} | {changes} | {} |\n",
        directive.name,
        cell(&values(directive)),
        cell(directive.doc)
    )
}

fn rendered() -> String {
    let mut text = HEAD.to_owned();
    for group in GROUPS {
        text += &format!(
            "\n## {}\n\n| directive | default | values | changes | meaning |\n|---|---|---|---|---|\n",
            group.title
        );
        let shown = group.directives.iter().filter(|directive| !directive.hidden);
        shown.for_each(|directive| text += &row(directive));
    }
    text
}

#[test]
fn the_reference_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, rendered()).expect("the document can be written");
    }
    let document = std::fs::read_to_string(path).expect("docs/configuration.md");
    assert!(document == rendered(), "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test --lib reference");
}
