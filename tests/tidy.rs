//! Style that can be checked is checked: the rules of the house as tests over the source text.
//!
//! An exception stands here, by name and with its reason, or it does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, lowest first. A file may import from its own layer and from those before it.
const LAYERS: &[&str] = &[
    "base", "resp", "value", "keyspace", "persist", "events", "access", "core", "command", "script", "exec", "durable",
    "observe", "session", "http", "server", "tool",
];

/// The only files that may hold `unsafe`, each with its purpose.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("src/base/alloc.rs", "the counting allocator"),
    ("src/base/fatal.rs", "catching fatal signals"),
    ("src/base/proc_title.rs", "the memory that the kernel shows as the title"),
    ("src/base/slab/mod.rs", "small blocks of memory"),
    ("src/base/slab/notes.rs", "the free blocks of a slab"),
    ("src/base/slab/pool.rs", "mapping memory"),
    ("src/base/slab/tests.rs", "blocks of memory that free themselves"),
    ("src/script/handed.rs", "handing the machine of functions to another thread"),
    ("src/script/host.rs", "running a function of the engine, and the host of the running script"),
    ("src/script/stack.rs", "the stack of the engine"),
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
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Files of one layer that import each other in circles, with the reason. The list only gets shorter: a file that is
/// no longer in a circle must leave it.
const CIRCLES: &[(&[&str], &str)] = &[
    (&["src/base/slab/mod.rs", "src/base/slab/notes.rs", "src/base/slab/pool.rs"], "one structure in three files"),
    (
        &[
            "src/value/codec.rs",
            "src/value/collection.rs",
            "src/value/directory/mod.rs",
            "src/value/directory/relocate.rs",
            "src/value/entry.rs",
            "src/value/hash/mod.rs",
            "src/value/hash/large.rs",
            "src/value/hash/packed.rs",
            "src/value/heap.rs",
            "src/value/list.rs",
            "src/value/map.rs",
            "src/value/segment.rs",
            "src/value/set.rs",
            "src/value/stream/mod.rs",
            "src/value/stream/block.rs",
            "src/value/zset/mod.rs",
            "src/value/zset/large.rs",
            "src/value/zset/run.rs",
        ],
        "a record holds every type of collection, and large collections are maps of records",
    ),
    (&["src/value/listpack/mod.rs", "src/value/listpack/element.rs"], "an element is read within its listpack"),
    (
        &["src/persist/log/mod.rs", "src/persist/log/segment_file.rs", "src/persist/fsync.rs"],
        "the log owns the signal of the thread that syncs it",
    ),
    (&["src/persist/rdb/decode.rs", "src/persist/rdb/stream.rs"], "a stream is one of the types that are decoded"),
    (&["src/core/db.rs", "src/core/undo.rs", "src/core/unit.rs"], "a unit undoes what is done through the database"),
    (
        &[
            "src/core/audit.rs",
            "src/core/call.rs",
            "src/core/client.rs",
            "src/core/command.rs",
            "src/core/figures.rs",
            "src/core/key_spec.rs",
            "src/core/mailbox.rs",
            "src/core/server.rs",
            "src/core/commandlog.rs",
            "src/core/subscriber.rs",
            "src/core/table.rs",
            "src/core/waiting.rs",
        ],
        "a call knows the server and the client, and their tables hold what is called",
    ),
    (
        &[
            "src/command/stream/mod.rs",
            "src/command/stream/delete.rs",
            "src/command/stream/idempotency.rs",
            "src/command/stream/trim.rs",
        ],
        "XADD trims, and trimming deletes; some of its options are of a file of their own",
    ),
    (
        &[
            "src/exec/mod.rs",
            "src/exec/ahead.rs",
            "src/exec/data.rs",
            "src/exec/group.rs",
            "src/exec/reads.rs",
            "src/exec/serving.rs",
            "src/exec/noting.rs",
        ],
        "the methods of one group stand in the files of its steps",
    ),
    (
        &[
            "src/server/connection/mod.rs",
            "src/server/moving.rs",
            "src/server/parking.rs",
            "src/server/turn.rs",
            "src/server/waits.rs",
            "src/server/worker.rs",
        ],
        "a worker owns its connections, and each of them borrows from its worker",
    ),
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 90;
const LINE_CHARS_MAX: usize = 120;

/// Written in two parts so that this file does not find itself.
const BANNED_WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("unimple", "mented!"),
    concat!("dbg", "!("),
];
const BANNED_NAME_ENDS: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

fn rust_files(dir: &str) -> BTreeMap<String, String> {
    files(dir, "rs")
}

/// The files below a folder with this extension, with their texts.
fn files(dir: &str, end: &str) -> BTreeMap<String, String> {
    fn walk(dir: &Path, end: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                const FOREIGN: [&str; 4] = ["target", "node_modules", ".venv", ".git"];
                if path.file_name().is_some_and(|name| FOREIGN.iter().all(|foreign| name != *foreign)) {
                    walk(&path, end, found);
                }
            } else if path.extension().is_some_and(|own| own == end) {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(dir), end, &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a text file");
            let name = path.strip_prefix(root).expect("inside the project").display().to_string();
            (name, text)
        })
        .collect()
}

/// The part of a file before its inline tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
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
fn every_lock_knows_its_rank() {
    /// An allocator cannot keep lists. A simulated disk is a leaf that only tests use, and so is what schedules locks.
    const ALLOWED: &[&str] =
        &["src/base/lock.rs", "src/base/schedule.rs", "src/base/slab/", "src/persist/storage/sim.rs"];
    let mut problems = Vec::new();
    for (name, text) in rust_files("src") {
        if is_test_file(&name) || ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        for (at, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            let sync = code.contains("std::sync") && (code.contains("Mutex") || code.contains("RwLock"));
            if sync || code.contains("parking_lot") {
                problems.push(format!("{name}:{}: a lock without a rank", at + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn files_are_touched_through_the_storage_trait_alone() {
    // Configuration, certificates, master keys, the operator's log, the pid file and sockets are not data, and files of
    // other servers are none of ours; /proc and /sys are no disk.
    const ALLOWED: &[&str] = &[
        "src/persist/storage/real.rs",
        "src/base/cgroup.rs",
        "src/base/config/",
        "src/base/logging.rs",
        "src/base/oom_score.rs",
        "src/base/proc_title.rs",
        "src/base/audit.rs",
        "src/base/doors.rs",
        "src/base/tls/",
        "src/durable/encryption.rs",
        "src/persist/foreign/",
        "src/tool/export.rs",
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

#[test]
fn modules_and_test_files_have_one_style() {
    let mut problems = Vec::new();
    let sources: BTreeMap<String, String> = rust_files("src").into_iter().chain(rust_files("tests")).collect();
    let is_folder = |name: &str| sources.range(format!("{name}/")..).next().is_some_and(|(at, _)| at.starts_with(name));
    for (name, text) in &sources {
        let stem = name.strip_suffix(".rs").expect("a Rust file");
        if is_folder(&format!("{stem}/")) {
            problems.push(format!("{name}: stands beside its folder; its place is {stem}/mod.rs"));
        }
        let (folder, file) = stem.rsplit_once('/').expect("a folder");
        let is_of_a_layer = LAYERS.iter().any(|layer| folder == format!("src/{layer}"));
        if let Some(tested) = file.strip_suffix("_tests")
            && !sources.contains_key(&format!("{folder}/{tested}.rs"))
            && !is_of_a_layer
        {
            problems.push(format!("{name}: tests no file beside it, and no layer as a whole"));
        }
        if file == "tests" && !sources.contains_key(&format!("{folder}/mod.rs")) {
            problems.push(format!("{name}: no mod.rs beside it"));
        }
        if ["test", "test_"].iter().any(|word| file == *word || file.starts_with("test_")) || file.ends_with("_test") {
            problems.push(format!("{name}: tests are named x_tests.rs, or tests.rs in the folder x"));
        }
        for (at, line) in text.lines().enumerate() {
            let Some(path) = line.trim().strip_prefix("#[path = \"") else { continue };
            let needed = [format!("{file}_tests.rs\"]"), "../support/mod.rs\"]".to_owned()];
            // What the tests of the whole server share stands outside this crate.
            if !needed.iter().any(|needed| path == needed) && !path.starts_with("../../tests/support/") {
                problems.push(format!("{name}:{}: a path that Rust does not need", at + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    let documents: Vec<(String, String)> = files("", "md").into_iter().collect();
    let anchors = |text: &str| -> BTreeSet<String> {
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor = |line: &str| line.trim_start_matches('#').trim().chars().filter(kept).collect::<String>();
        headings.map(|line| anchor(line).to_lowercase().replace(' ', "-")).collect()
    };
    for (name, text) in &documents {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let folder = folder.parent().expect("a folder");
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split([')', ' ', '\n']).next().unwrap_or("");
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { Some(text.clone()) } else { read_text(&folder.join(file)) };
            match target {
                None => problems.push(format!("{name}: {link} is not there")),
                Some(text) if !anchor.is_empty() && !anchors(&text).contains(anchor) => {
                    problems.push(format!("{name}: {link} names no heading"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(documents.len() > 5, "the documents are found");
    report(problems);
}

/// The text of a file; empty for a folder.
fn read_text(path: &Path) -> Option<String> {
    if path.is_dir() { Some(String::new()) } else { std::fs::read_to_string(path).ok() }
}

/// A module, as the names that lead to it from `crate`.
type Module = Vec<String>;

/// The modules of the program, each with the imports of its file.
struct Modules {
    files: BTreeMap<Module, String>,
    imports: BTreeMap<Module, Vec<Import>>,
}

struct Import {
    /// The path as it is written.
    path: Module,
    /// Its name in the module.
    name: String,
    /// Whether the module re-exports it. It then does not count as used by the module itself.
    is_shown: bool,
}

impl Modules {
    fn read() -> Modules {
        let (mut files, mut imports) = (BTreeMap::new(), BTreeMap::new());
        for (file, text) in rust_files("src") {
            let stem = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
            if stem == "main" || is_test_file(&file) {
                continue;
            }
            let module: Module = if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() };
            imports.insert(module.clone(), imports_of(without_tests(&text)));
            files.insert(module, file);
        }
        Modules { files, imports }
    }

    /// Resolves a written path from `crate` on. `None` if it leads out of the program.
    fn absolute(&self, from: &[String], path: &[String]) -> Option<Module> {
        let ups = path.iter().take_while(|word| *word == "super").count();
        let (base, rest) = match path.first()?.as_str() {
            "crate" => (&[][..], &path[1..]),
            "self" => (from, &path[1..]),
            "super" => (&from[..from.len().checked_sub(ups)?], &path[ups..]),
            first => (self.files.contains_key(&[from, &[first.to_owned()]].concat()).then_some(from)?, path),
        };
        Some([base, rest].concat())
    }

    /// The module whose file defines what a path names, followed through re-exports.
    fn home(&self, path: &[String], depth: usize) -> Module {
        let mut at = Module::new();
        for (index, word) in path.iter().enumerate() {
            let next = [&at[..], std::slice::from_ref(word)].concat();
            if self.files.contains_key(&next) {
                at = next;
                continue;
            }
            let shown = self.imports[&at].iter().find(|import| import.name == *word);
            let shown = shown.and_then(|import| self.absolute(&at, &import.path)).filter(|to| *to != next);
            return match shown {
                Some(to) if depth < 8 => self.home(&[&to[..], &path[index + 1..]].concat(), depth + 1),
                _ => at,
            };
        }
        at
    }

    /// For each file, the files of the same layer that it imports.
    fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, imports) in self.imports.iter().filter(|(module, _)| !module.is_empty()) {
            let own = edges.entry(&self.files[module]).or_default();
            for import in imports.iter().filter(|import| !import.is_shown) {
                let home = self.absolute(module, &import.path).map(|path| self.home(&path, 0)).unwrap_or_default();
                if home.first() == module.first() && home != *module {
                    own.insert(&self.files[&home]);
                }
            }
        }
        edges
    }
}

/// The imports of a text: its `use` lines, and the paths from `crate` or `super` within its code.
fn imports_of(text: &str) -> Vec<Import> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let mut imports = Vec::new();
    for statement in code.split(';') {
        let line = statement.rfind("\nuse ").or_else(|| statement.rfind("\npub")).map_or("", |at| &statement[at..]);
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let (is_shown, tree) = match line.split_once("use ") {
            Some(("", tree)) => (false, tree),
            Some(("pub " | "pub(crate) " | "pub(super) ", tree)) => (true, tree),
            _ => continue,
        };
        for path in expanded(tree) {
            let (path, name) = path.split_once(" as ").unwrap_or((&path, ""));
            let path: Module = path.trim_end_matches("::self").split("::").map(|word| word.trim().to_owned()).collect();
            let name = if name.is_empty() { path.last().cloned().unwrap_or_default() } else { name.to_owned() };
            imports.push(Import { path, name, is_shown });
        }
    }
    let word_at = |at: usize| code[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
    for start in ["crate::", "super::"] {
        let inside = |at: &usize| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        for at in code.match_indices(start).map(|(at, _)| at).filter(inside) {
            let line = code[..at].rsplit('\n').next().unwrap_or("").trim_start();
            if !line.starts_with("use ") && !line.starts_with("pub") {
                let path = word_at(at).unwrap_or("").trim_end_matches(':').split("::").map(str::to_owned).collect();
                imports.push(Import { path, name: String::new(), is_shown: false });
            }
        }
    }
    imports
}

/// Expands the paths of a `use` with braces.
fn expanded(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inner = &inner[..inner.rfind('}').unwrap_or(inner.len())];
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(|part| expanded(part).into_iter().map(|path| before.trim().to_owned() + &path)).collect()
}

#[test]
fn rooms_of_a_layer_do_not_import_each_other_in_circles() {
    let modules = Modules::read();
    let edges = modules.edges();
    // The files that each file reaches. A file that reaches itself is in a circle.
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for &from in edges.keys() {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(edges.get(file).into_iter().flatten().copied().filter(|next| seen.insert(*next)));
        }
        reached.insert(from, seen);
    }
    let mut problems = Vec::new();
    let is_named = |names: &[&str], file: &str| names.contains(&file);
    for (file, others) in reached.iter().filter(|(file, others)| others.contains(*file)) {
        let circle = others.iter().filter(|other| reached[**other].contains(file));
        let known = CIRCLES.iter().find(|(names, _)| is_named(names, file)).map_or(&[][..], |(names, _)| names);
        for other in circle.filter(|other| *file <= **other && !is_named(known, other)) {
            problems.push(format!("{file} and {other} import each other, perhaps by way of others"));
        }
    }
    for name in CIRCLES.iter().flat_map(|(names, _)| *names) {
        if !reached.get(name).is_some_and(|others| others.contains(name)) {
            problems.push(format!("{name} is in no circle any more: take it off the list"));
        }
    }
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 200, "imports are found");
    report(problems);
}

#[test]
fn the_architecture_names_every_layer_and_the_locks_in_their_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = read_text(&root.join("docs/architecture.md")).expect("the document");
    let drawing = document.split("## The house in one drawing").nth(1).and_then(|text| text.split("```").nth(1));
    let drawing = drawing.expect("a drawing");
    for layer in LAYERS {
        assert!(drawing.contains(&format!(" {layer}/ ")), "the drawing lacks {layer}/");
    }
    let source = read_text(&root.join("src/base/lock.rs")).expect("the source");
    let ranks = source.split("pub enum Rank {").nth(1).and_then(|text| text.split("\n}").next()).expect("the ranks");
    let ranks: Vec<&str> = ranks.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    let ranks: Vec<&str> = ranks.into_iter().filter(|line| !line.starts_with("//")).collect();
    let table = document.split("<!-- ranks:begin -->").nth(1).and_then(|text| text.split("<!-- ranks:end -->").next());
    let listed = table.expect("the markers").lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(listed.collect::<Vec<_>>(), ranks, "docs/architecture.md lists the ranks of src/base/lock.rs");
}

/// Settings that are read inside the configuration, and how.
const READ_BY_THE_CONFIGURATION: &[(&str, &str)] =
    &[("io_threads", "through `Settings::worker_count`"), ("enable_protected_configs", "by CONFIG SET")];

#[test]
fn every_setting_has_a_reader() {
    let files = rust_files("src");
    let list = &files["src/base/config/directives.rs"];
    let field =
        |line: &str| Some(line.trim_start().strip_prefix('"')?.split_once("\" => ")?.1.split_once(':')?.0.to_owned());
    let fields: Vec<String> = list.lines().filter_map(field).collect();
    assert!(fields.len() > 60, "{fields:?}");
    let mut readers: Vec<&str> = Vec::new();
    for (name, text) in &files {
        if !name.starts_with("src/base/config/") && !is_test_file(name) {
            readers.extend(without_tests(text).split('.').skip(1));
        }
    }
    let is_read = |field: &String| {
        READ_BY_THE_CONFIGURATION.iter().any(|(known, _)| known == field)
            || readers.iter().any(|after| {
                let rest = after.strip_prefix(field.as_str());
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
    };
    let lonely = fields.into_iter().filter(|field| !is_read(field));
    report(lonely.map(|field| format!("nobody reads settings.{field}: what does its directive do?")).collect());
}

#[test]
fn the_command_that_contributors_are_shown_is_the_one_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = read_text(&root.join("CONTRIBUTING.md")).expect("the document");
    let source = read_text(&root.join("src/command/string/mod.rs")).expect("the source");
    let shown = document.split("static GETDEL").nth(1).and_then(|text| text.split("```").next()).expect("an example");
    let shown: Vec<&str> = shown.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!(shown.len() > 8);
    report(shown.iter().filter(|line| !source.contains(**line)).map(|line| format!("not there: {line}")).collect());
}
