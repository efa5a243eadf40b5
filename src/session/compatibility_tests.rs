//! Generates the table of commands in `docs/compatibility.md` from the table of commands, and tests that they agree.

use std::collections::BTreeMap;

use super::table;

const FACTS: &str = include_str!("../../data/facts/commands.tsv");
const BEGIN: &str = "<!-- commands:begin -->\n";
const END: &str = "<!-- commands:end -->";

/// The commands of each group that exist, and those of Redis 7.2 that do not.
fn rendered() -> String {
    let table = table();
    let mut groups: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for entry in table.entries() {
        let subcommands: Vec<&str> = entry.command.subcommands().iter().map(|sub| sub.name).collect();
        let name = match subcommands[..] {
            [] => format!("`{}`", entry.command.name),
            _ => format!("`{}` ({})", entry.command.name, subcommands.join(", ")),
        };
        groups.entry(entry.command.group).or_default().0.push(name);
    }
    for line in FACTS.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, "7.2", group, ..] = columns[..] else { continue };
        if table.by_full_name(name.replace(' ', "|").as_bytes()).is_none() {
            // A container that is missing as a whole is listed by its name alone.
            let container = name.split(' ').next().unwrap_or(name);
            if container == name || table.get(container.as_bytes()).is_some() {
                groups.entry(group).or_default().1.push(format!("`{name}`"));
            }
        }
    }
    let mut text = String::from("| group | commands | of Redis 7.2, not yet |\n|---|---|---|\n");
    for (group, (mut there, missing)) in groups {
        there.sort_by_key(|name| name.replace('`', ""));
        text += &format!("| {group} | {} | {} |\n", there.join(" "), missing.join(" "));
    }
    text
}

#[test]
fn the_document_lists_the_commands_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
    let document = std::fs::read_to_string(path).expect("docs/compatibility.md");
    let start = document.find(BEGIN).expect("the first marker") + BEGIN.len();
    let end = start + document[start..].find(END).expect("the second marker");
    let table = rendered();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = format!("{}{table}{}", &document[..start], &document[end..]);
        std::fs::write(path, updated).expect("the document can be written");
    } else {
        let hint = "the table in docs/compatibility.md is out of date: UPDATE_DOCS=1 cargo test --lib compatibility";
        assert!(document[start..end] == table, "{hint}");
    }
}
