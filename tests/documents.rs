//! What the documents say is true: their command lines run, and whatever the server warns of has an entry.
//!
//! Each block of command lines is run or stands in [`NOT_RUN`] with the reason. ```` ```sh run ```` marks those that
//! run, all of a document in one shell, in a directory of its own. `# prints: TEXT` is a text that their output holds.
//! [`PREPARED`] makes what a block takes for granted. Ports and system directories are replaced, so that nothing
//! outside is touched. `cargo` is a stand-in: it serves for `cargo run`, and looks whether the tests that it is to run
//! exist with their options. Blocks of configuration are read by the server, and JSON is parsed.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::server::free_port;

/// A document, how a block in it begins, and why it is not run.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("CONTRIBUTING.md", "cargo build", "takes minutes, and the tests have built before they run this one"),
    ("CONTRIBUTING.md", "tests/run", "is what runs this test"),
    ("docs/getting-started.md", "sudoedit", "needs root, an installed package and a service manager"),
    ("docs/operating.md", "redis-cli UNFLUSH", "comes after an accident, which tests/unflush.rs has"),
    ("packaging/README.md", "RUSTFLAGS", "takes minutes"),
    ("tests/README.md", "IRONKEEP_TEST_PEER", "needs a newer Redis"),
];

/// Pieces of a text, and what stands in their place.
type Changes = &'static [(&'static str, &'static str)];

/// How a block begins, what comes before it, and what of it is written otherwise: a server that would hold up the
/// shell goes into the background, and a time or a block becomes one that the store has.
const PREPARED: &[(&str, &str, Changes)] = &[
    (
        "cargo run --release",
        "",
        &[("cargo run --release ", "cargo run --release & until ironkeep ping; do sleep 0.1; done ")],
    ),
    (
        "ironkeep config > ironkeep.conf",
        "redis-cli shutdown; wait $! || true",
        &[("--appendfsync always", "--appendfsync always & until ironkeep ping 127.0.0.1:6380; do sleep 0.1; done")],
    ),
    ("redis-cli ACL SETUSER shop", "ironkeep & until ironkeep ping; do sleep 0.1; done", &[]),
    (
        "ironkeep check ./ironkeep-data ",
        "ironkeep & until ironkeep ping; do sleep 0.1; done\nredis-cli set greeting hello\nredis-cli shutdown\n\
         wait $! || true\ncp -r ironkeep-data backup\nlisted=$(ironkeep restore ironkeep-data --list --json)\n\
         newest=$(sed 's/.*\"to_block\":\\([0-9]*\\).*/\\1/' <<< \"$listed\")\n\
         moment=$(sed 's/.*\"to_time_ms\":\\([0-9]*\\).*/\\1/' <<< \"$listed\")",
        &[("2026-12-01T10:59:00Z", "$(date -u -d @$((moment / 1000)) +%FT%TZ)"), ("block:123456", "block:$newest")],
    ),
    (
        "redis-cli BACKUP START",
        "ironkeep & until ironkeep ping; do sleep 0.1; done",
        &[(
            "redis-cli BACKUP SEAL",
            "until redis-cli BACKUP STATUS | grep incrementing; do sleep 0.1; done; redis-cli BACKUP SEAL",
        )],
    ),
    (
        "openssl rand -hex 32",
        "redis-cli shutdown; wait $! || true",
        &[(
            "--encryption-key-file /etc/ironkeep.key",
            "--encryption-key-file /etc/ironkeep.key & until ironkeep ping; do sleep 0.1; done",
        )],
    ),
];

/// Adds the port where none is given.
const IRONKEEP: &str = r#"#!/bin/sh
case " $1 $* " in *' --port '*) exec REAL "$@" ;; esac
[ "$*" != ping ] || exec REAL ping 127.0.0.1:PORT
case $1 in
    --help|--version) exec REAL "$@" ;;
    ''|/*|./*|--*|*.conf) exec REAL "$@" --port PORT ;;
esac
exec REAL "$@"
"#;

/// Adds the port where none is given.
const REDIS_CLI: &str = r#"#!/bin/sh
PATH='OTHERS'
case " $* " in *' -p '*) exec redis-cli "$@" ;; esac
exec redis-cli -p PORT "$@"
"#;

/// Runs the server for `run`. For the rest it looks whether the words mean something in the source.
const CARGO: &str = r#"#!/bin/bash
set -euo pipefail
known() { grep -rqE -- "$1" "${@:2}" || { echo "cargo: nothing is called $1" >&2; exit 1; }; }
for name in $(compgen -e IRONKEEP_); do known "$name" ROOT/src ROOT/tests; done
verb=$1; shift
case $verb in
    run)
        while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
        exec ironkeep "${@:2}" ;;
    install) [ "$*" = '--locked --path .' ] && exit ;;
    test)
        sources=ROOT/src
        while [ $# -gt 0 ]; do
            case $1 in
                --release) ;;
                --test) shift; sources=$(ls -d ROOT/tests/"$1".rs ROOT/tests/"$1"/main.rs 2> /dev/null) || true ;;
                --lib) shift; known "(fn|mod) [a-z_]*$1" ROOT/src ;;
                --) shift; for word in "$@"; do
                        case $word in --nocapture) ;; --*) known "\"$word" $sources ;; esac
                    done; exit ;;
                *) echo "cargo test: what is $1?" >&2; exit 1 ;;
            esac
            shift
        done
        exit ;;
esac
echo "cargo: unexpected: $verb $*" >&2
exit 1
"#;

const SUDO: &str = "#!/bin/sh\n[ \"$1\" != -E ] || shift\nexec \"$@\"\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents for people who use, run or change the server, by their path in the repository.
fn documents() -> BTreeMap<String, String> {
    let mut names: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "packaging/README.md", "tests/README.md"]
            .map(str::to_owned)
            .into();
    for entry in fs::read_dir(root().join("docs")).expect("the documents") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        names.push(format!("docs/{name}"));
    }
    names.retain(|name| name.ends_with(".md"));
    names.into_iter().map(|name| (name.clone(), fs::read_to_string(root().join(name)).expect("a document"))).collect()
}

/// A fenced block: the words behind its fence, and its text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut is_inside = false;
    for line in document.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(kind) => {
                if !is_inside {
                    found.push((kind.trim().to_owned(), String::new()));
                }
                is_inside = !is_inside;
            }
            None if is_inside => {
                let (_, text) = found.last_mut().expect("a block has begun");
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// The blocks of a document that are to be run, prepared, and what their output must hold.
fn runnable(document: &str) -> (String, Vec<String>) {
    let (mut script, mut expected) = (String::new(), Vec::new());
    for (_, mut text) in blocks(document).into_iter().filter(|(kind, _)| kind == "sh run") {
        expected.extend(text.lines().filter_map(|line| line.split_once("# prints: ")).map(|(_, text)| text.to_owned()));
        if let Some((_, before, changes)) = PREPARED.iter().find(|(begin, ..)| text.starts_with(begin)) {
            for (from, to) in *changes {
                assert!(text.contains(from), "'{from}' is not in\n{text}");
                text = text.replace(from, to);
            }
            script.push_str(before);
            script.push('\n');
        }
        script.push_str(&text);
    }
    (script, expected)
}

/// A program that takes a name's place.
fn stand_in(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

fn run_document(name: &str, script: &str, expected: &[String]) {
    let home = tempfile::tempdir().expect("a directory");
    let at = home.path();
    let (port, second) = (free_port().to_string(), free_port().to_string());
    let tools = at.join("tools");
    for folder in ["tools", "work", "etc/ironkeep", "lib"] {
        fs::create_dir_all(at.join(folder)).expect("a directory");
    }
    let others = std::env::var("PATH").expect("a PATH");
    for (name, text) in [("ironkeep", IRONKEEP), ("redis-cli", REDIS_CLI), ("cargo", CARGO), ("sudo", SUDO)] {
        let text = text.replace("REAL", env!("CARGO_BIN_EXE_ironkeep")).replace("PORT", &port);
        stand_in(&tools, name, &text.replace("OTHERS", &others).replace("ROOT", &root().display().to_string()));
    }
    // Neither is looked for in the other.
    let replaced = |text: &str| text.replace("6379", "\0").replace("6380", &second).replace('\0', &port);
    let script = replaced(script)
        .replace("/etc/ironkeep", &at.join("etc/ironkeep").display().to_string())
        .replace("/var/lib/ironkeep", &at.join("lib/ironkeep").display().to_string());
    // Whatever the document leaves running ends with its shell.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n{script}");
    let search = format!("{}:{others}", tools.display());
    let mut bash = Command::new("timeout");
    bash.args(["300", "bash", "-c", &script]).current_dir(at.join("work")).env("PATH", search);
    let output = bash.stdin(Stdio::null()).output().expect("bash starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{script}\n{said}", output.status);
    for text in expected {
        let text = replaced(text);
        assert!(said.contains(&text), "{name}: '{text}' is not in\n{said}");
    }
}

#[test]
fn command_lines_run() {
    let mut count = 0;
    for (name, text) in documents() {
        let (script, expected) = runnable(&text);
        if !script.is_empty() {
            run_document(&name, &script, &expected);
            count += script.lines().count();
        }
    }
    assert!(count > 60, "few lines are marked to be run: {count}");
}

#[test]
fn a_block_of_command_lines_is_run_or_listed() {
    let documents = documents();
    let is_listed =
        |name: &str, text: &str| NOT_RUN.iter().any(|(of, begin, _)| *of == name && text.starts_with(begin));
    for (name, document) in &documents {
        for (kind, text) in blocks(document) {
            let words: Vec<&str> = kind.split_whitespace().collect();
            let runs = words == ["sh", "run"];
            let is_shell = words.first().is_some_and(|first| ["sh", "bash", "shell", "console"].contains(first));
            if is_shell {
                assert!(runs != is_listed(name, &text), "{name}: mark it `sh run`, or list it with a reason:\n{text}");
            }
            assert!(!kind.is_empty(), "{name}: a block has no kind:\n{text}");
        }
    }
    let begins =
        |begin: &str| documents.values().flat_map(|text| blocks(text)).any(|(_, text)| text.starts_with(begin));
    for begin in NOT_RUN.iter().map(|(_, begin, _)| begin).chain(PREPARED.iter().map(|(begin, ..)| begin)) {
        assert!(begins(begin), "no block begins with '{begin}' any more");
    }
}

/// The regression: comments stood behind the values of directives, where they are words too many, as in Redis.
#[test]
fn configurations_and_json_are_read() {
    let mut count = 0;
    for (name, document) in documents() {
        for (kind, text) in blocks(&document) {
            match kind.as_str() {
                "conf" => {
                    let file = tempfile::NamedTempFile::new().expect("a file");
                    fs::write(file.path(), &text).expect("our own file");
                    let mut config = Command::new(env!("CARGO_BIN_EXE_ironkeep"));
                    let output = config.arg("config").arg(file.path()).output().expect("it starts");
                    assert!(output.status.success(), "{name}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
                }
                "json" => text.lines().for_each(|line| {
                    serde_json::from_str::<serde_json::Value>(line)
                        .unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
                }),
                _ => continue,
            }
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

/// What a sentence calls by name exists: the command of the program, and its options.
#[test]
fn commands_in_sentences_exist() {
    let mut count = 0;
    for (name, document) in documents() {
        for span in document.split('`').skip(1).step_by(2) {
            let Some(words) = span.strip_prefix("ironkeep ") else { continue };
            let words: Vec<&str> = words.split('|').next().unwrap_or_default().split_whitespace().collect();
            let first = words[0];
            // A form, a file or a directive: the server itself.
            if !first.starts_with(|c: char| c.is_ascii_lowercase()) || first.contains('.') {
                continue;
            }
            let help =
                Command::new(env!("CARGO_BIN_EXE_ironkeep")).args([first, "--help"]).output().expect("it starts");
            let text = String::from_utf8_lossy(&help.stdout);
            assert!(help.status.success() && text.starts_with("Usage:"), "{name}: there is no `ironkeep {first}`");
            for option in words.iter().filter(|word| word.starts_with("--") && **word != "--help") {
                assert!(
                    text.contains("--directive") || text.contains(option),
                    "{name}: `ironkeep {first}` takes no {option}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// The program for Node in the README, run with the client that the tests have.
#[test]
fn the_program_for_node_runs() {
    let document = fs::read_to_string(root().join("README.md")).expect("the document");
    let (_, program) = blocks(&document).into_iter().find(|(kind, _)| kind == "js").expect("a program");
    let folder = root().join("tests/clients/node");
    assert!(folder.join("node_modules").exists(), "{} lacks node_modules: start with `tests/run`", folder.display());
    let server = support::server::Recipe::under_test().start();
    let url = format!("createClient({{ url: 'redis://127.0.0.1:{}' }})", server.port());
    assert!(program.contains("createClient()"), "{program}");
    let program =
        program.replace("createClient()", &url) + "console.log(await client.incr('visits'));\nawait client.close();\n";
    let mut node = Command::new("node");
    let output = node.args(["--input-type=module", "-e", &program]).current_dir(folder).output().expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n");
}

/// The longest plain piece of each warning in the source, with its file.
fn warnings() -> Vec<(String, PathBuf)> {
    const BEGIN: &str = "logging::warning(format_args!(";
    fn walk(folder: &Path, found: &mut Vec<(String, PathBuf)>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.ends_with(".rs") || name.ends_with("tests.rs") || name == "testing.rs" {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for piece in text.split(BEGIN).skip(1) {
                found.extend(plain_piece(piece.trim_start()).map(|text| (text, path.clone())));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found
}

/// The longest piece without values of the string literal at the beginning of a source.
fn plain_piece(source: &str) -> Option<String> {
    let literal = source.strip_prefix('"')?;
    let mut end = 0;
    while !literal[end..].starts_with('"') {
        end += if literal[end..].starts_with('\\') { 2 } else { literal[end..].chars().next()?.len_utf8() };
    }
    // A backslash at the end of a line joins it with the next.
    let joined: Vec<&str> = literal[..end]
        .split("\\\n")
        .enumerate()
        .map(|(i, part)| if i == 0 { part } else { part.trim_start() })
        .collect();
    let mut joined = joined.concat();
    while let Some(begin) = joined.find('{') {
        let end = begin + joined[begin..].find('}')? + 1;
        joined.replace_range(begin..end, "\n");
    }
    let longest =
        joined.lines().map(|piece| piece.trim_matches([' ', ',', ':', '.'])).max_by_key(|piece| piece.len())?;
    (longest.len() > 7).then(|| longest.to_owned())
}

#[test]
fn every_warning_has_an_entry() {
    let document = fs::read_to_string(root().join("docs/troubleshooting.md")).expect("the document");
    let document = document.split_whitespace().collect::<Vec<_>>().join(" ");
    let warnings = warnings();
    assert!(warnings.len() > 50, "the warnings of the source are not found any more: {}", warnings.len());
    let missing: Vec<String> = warnings
        .into_iter()
        .filter(|(text, _)| !document.contains(text))
        .map(|(text, path)| format!("{}: {text}", path.display()))
        .collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md lacks\n{}", missing.join("\n"));
}
