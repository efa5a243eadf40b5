//! Style that can be checked is checked: the rules of the house as tests over the source text.
//!
//! An exception stands here, by name and with its reason, or it does not exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A file may import from its own layer and from those before it.
const LAYERS: &[&str] = &[
    "base", "resp", "value", "keyspace", "persist", "core", "command", "exec", "durable", "observe", "session",
    "server",
];

/// The only files that may hold `unsafe`, each with what it is for.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("src/base/alloc.rs", "the counting allocator"),
    ("src/base/slab/mod.rs", "small blocks of memory"),
    ("src/base/slab/notes.rs", "the free blocks of a slab"),
    ("src/base/slab/pool.rs", "mapping memory"),
    ("src/base/slab/tests.rs", "blocks of memory that free themselves"),
    ("src/value/entry.rs", "the packed record"),
    ("src/value/heap.rs", "payloads behind thin pointers"),
    ("src/base/prefetch.rs", "fetching a cache line ahead of use"),
    ("src/value/segment.rs", "the packed arena"),
    ("src/persist/storage/real.rs", "mapping files"),
];

/// Files that may be longer than [`FILE_LINES_MAX`], with the reason.
const LONG_FILES: &[(&str, &str)] =
    &[("src/value/segment.rs", "unsafe code and the tests of its inside stay in one file")];

/// Functions that may be longer than [`FUNCTION_LINES_MAX`], with the reason.
const LONG_FUNCTIONS: &[(&str, &str)] =
    &[("src/base/config/settings.rs:from_values", "one line for each of the directives, in the order of the struct")];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 90;
const LINE_CHARS_MAX: usize = 120;

/// Written in two parts, so that this file does not find itself.
const BANNED_WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("unimple", "mented!"),
    concat!("dbg", "!("),
];
const BANNED_NAME_ENDS: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

fn rust_files(dir: &str) -> BTreeMap<String, String> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "node_modules" && name != ".venv") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(dir), &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a text file");
            let name = path.strip_prefix(root).expect("inside the project").display().to_string();
            (name, text)
        })
        .collect()
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// Whether the whole file is tests.
fn is_test_file(name: &str) -> bool {
    name.ends_with("_tests.rs") || name.ends_with("/tests.rs") || name.ends_with("/testing.rs")
}

fn layer_of(name: &str) -> Option<usize> {
    let first = name.strip_prefix("src/")?.split(['/', '.']).next()?;
    LAYERS.iter().position(|layer| *layer == first)
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn imports_only_go_down() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src") {
        let Some(own) = layer_of(&name).filter(|_| !is_test_file(&name)) else { continue };
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for (at, _) in code.match_indices("crate::") {
                let named = code[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
                if LAYERS.iter().position(|layer| *layer == named).is_some_and(|layer| layer > own) {
                    problems.push(format!("{name}:{}: {} must not import {named}", number + 1, LAYERS[own]));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src").into_iter().chain(rust_files("tests")) {
        if !text.starts_with("//! ") {
            problems.push(format!("{name}: no header"));
        }
    }
    report(problems);
}

#[test]
fn unsafe_stays_in_its_files_and_gives_its_reasons() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src") {
        let allowed = UNSAFE_FILES.iter().any(|(file, _)| *file == name);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            if !code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                continue;
            }
            if !allowed {
                problems.push(format!("{name}:{}: unsafe outside its files", at + 1));
            } else if code.contains("unsafe {") && !lines[at.saturating_sub(8)..=at].join(" ").contains("SAFETY") {
                problems.push(format!("{name}:{}: no SAFETY reason", at + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn files_fit_a_sitting_and_lines_a_screen() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src").into_iter().chain(rust_files("tests")) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(file, _)| *file == name) {
            problems.push(format!("{name}: {lines} lines"));
        }
        for (at, line) in text.lines().enumerate() {
            // A text in quotes may be as long as it has to be.
            if line.chars().count() > LINE_CHARS_MAX && !line.contains('"') {
                problems.push(format!("{name}:{}: {} characters", at + 1, line.chars().count()));
            }
        }
    }
    report(problems);
}

#[test]
fn functions_fit_a_screen() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src") {
        let mut open: Option<(usize, usize, String)> = None;
        for (at, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words: Vec<&str> = line.trim_start().split([' ', '(', '<']).collect();
            if let Some(place) = words.iter().take(5).position(|word| *word == "fn")
                && !line.trim_start().starts_with("//")
                && line.trim_end().ends_with(['{', '('])
            {
                open = Some((at, indent, words.get(place + 1).unwrap_or(&"").to_string()));
            }
            if let Some((start, depth, function)) = &open
                && line.trim_end() == format!("{}}}", " ".repeat(*depth))
            {
                let lines = at - start + 1;
                let key = format!("{name}:{function}");
                if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(|(known, _)| *known == key) {
                    problems.push(format!("{key}: {lines} lines"));
                }
                open = None;
            }
        }
    }
    report(problems);
}

#[test]
fn nothing_is_left_undone_or_vaguely_named() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src").into_iter().chain(rust_files("fuzz")).chain(rust_files("tests")) {
        for (at, line) in text.lines().enumerate() {
            if let Some(word) = BANNED_WORDS.iter().find(|word| line.contains(**word)) {
                problems.push(format!("{name}:{}: {word}", at + 1));
            }
            let declared = ["struct ", "enum ", "trait ", "mod "].iter().find_map(|kind| line.split(kind).nth(1));
            let declared = declared.map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(""));
            if declared.is_some_and(|word| BANNED_NAME_ENDS.iter().any(|end| word.ends_with(end))) {
                problems.push(format!("{name}:{}: a name that says nothing", at + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn files_are_touched_through_the_storage_trait_alone() {
    // Configuration, the operator's log, the pid file and sockets are no data; /proc is no disk.
    const ALLOWED: &[&str] = &[
        "src/persist/storage/real.rs",
        "src/base/config/",
        "src/base/logging.rs",
        "src/server/acceptor.rs",
        "src/server/daemon.rs",
        "src/server/startup.rs",
        "src/observe/",
    ];
    let mut problems = Vec::new();
    for (name, text) in rust_files("src") {
        // Tests read golden files.
        if is_test_file(&name) || ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        for (at, line) in without_tests(&text).lines().enumerate() {
            if line.contains("std::fs") || line.contains("tokio::fs") {
                problems.push(format!("{name}:{}: std::fs", at + 1));
            }
        }
    }
    report(problems);
}
