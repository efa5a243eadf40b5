//! INFO against the facts of Redis 7.2 (`data/facts/info.tsv`).

use std::collections::BTreeSet;

use super::testing::start;
use crate::observe::constant::CONSTANT;
use crate::observe::info::report;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

const FACTS: &str = include_str!("../../data/facts/info.tsv");

/// Section, field and value of each line of INFO.
fn shown(info: &str) -> Vec<(String, &str, &str)> {
    let (mut section, mut all) = (String::new(), Vec::new());
    for line in info.split("\r\n").filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(heading) => section = heading.to_ascii_lowercase(),
            None => {
                let (field, value) = line.split_once(':').expect("a field and its value");
                all.push((section.clone(), field, value));
            }
        }
    }
    all
}

#[test]
fn every_field_of_redis_is_shown_in_its_order_and_what_is_constant_is_listed() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).expect("a server");
    let info = report(&server, &[b"everything"], server.started_ms);
    let shown = shown(&info);
    let facts = FACTS.lines().filter(|line| !line.starts_with('#')).skip(1);
    let facts: Vec<(&str, &str)> = facts
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            (columns[0], columns[1])
        })
        .collect();
    let known: BTreeSet<_> = facts.iter().copied().collect();
    let ours = shown.iter().map(|(section, field, _)| (&**section, *field));
    assert_eq!(ours.filter(|field| known.contains(field)).collect::<Vec<_>>(), facts);
    for row in CONSTANT {
        let found: Vec<_> = shown.iter().filter(|(s, field, _)| s == row.section && *field == row.field).collect();
        assert!(matches!(found[..], [(_, _, value)] if *value == row.value), "{} {}", row.section, row.field);
        assert!(row.reason.ends_with('.'), "{}: a reason is a sentence", row.field);
    }
}
