//! The table of directives against the facts of Redis and Valkey (`data/facts/config.tsv`).

use super::super::directive::Change;
use super::{all, find, is_not_applicable};

const FACTS: &str = include_str!("../../../data/facts/config.tsv");

/// Deliberate differences: the directive, and when we let it be changed.
const DIFFERENCES: &[(&str, Change)] = &[
    // The workers are there from the start to the end.
    ("io-threads", Change::Fixed),
];

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
        let on_purpose = DIFFERENCES.contains(&(name, directive.change));
        if directive.change != theirs && !on_purpose {
            wrong.push(format!("{name}: {:?}, should be {theirs:?}", directive.change));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
