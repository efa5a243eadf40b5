//! The scripts of the frameworks, as `tests/run` has installed them: gathered from their files, loaded into both
//! servers, and run on keys of every type with arguments of every kind.
//!
//! Many runs end in an error, which is part of the comparison: its text names the script, the line, and what the
//! command said; the words of the language itself differ (`docs/compatibility.md`). At the end of each run both
//! keyspaces must be the same. What chance, the clock or the order of a set decides is not compared.

use crate::compare::{Clients, Likeness, Pair, Protocol};
use crate::support::client::show;
use crate::support::random::Random;
use crate::support::reply;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How often each script is run.
const RUNS: usize = 6;

/// Fewer scripts than this: the packages are not what they were, or they were not found.
const SCRIPTS_MIN: usize = 100;

/// Every script once, with where it was found.
fn gather() -> BTreeMap<String, String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks");
    let node = tests.join("node/node_modules");
    let python = tests.join("python/.venv/lib");
    assert!(node.exists() && python.exists(), "the frameworks are missing: start with `tests/run`");
    let mut files = Vec::new();
    for folder in [&node, &python, Path::new("/usr/share/php/Illuminate"), Path::new("/usr/share/rubygems-integration")]
    {
        walk(folder, &mut files);
    }
    files.sort();
    let mut scripts = BTreeMap::new();
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let name = path.display().to_string();
        let found = match end.as_str() {
            "lua" => vec![text],
            "js" | "mjs" => between(&text, &[("`", "`")]).into_iter().map(|script| unescape(&script)).collect(),
            "py" => {
                let quoted = between(&text, &[("\"\"\"", "\"\"\""), ("'''", "'''")]);
                quoted.into_iter().map(|script| unescape(&script)).collect()
            }
            "php" => between(&text, &[("<<<'LUA'\n", "LUA;")]),
            _ => between(&text, &[("<<~LUA\n", "LUA\n")]),
        };
        for script in found {
            // Text in which others are put while the program runs is no script.
            let is_script = end == "lua" || (script.contains("redis.call") && !script.contains("${"));
            if is_script {
                scripts.entry(script).or_insert_with(|| name.clone());
            }
        }
    }
    scripts
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        } else if path
            .extension()
            .is_some_and(|end| ["lua", "js", "mjs", "py", "php", "rb"].iter().any(|one| end == *one))
        {
            found.push(path);
        }
    }
}

/// What stands between such marks.
fn between(text: &str, marks: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    if !text.contains("redis.call") {
        return found;
    }
    for (start, end) in marks {
        let mut rest = text;
        while let Some((_, behind)) = rest.split_once(start) {
            let Some((inside, after)) = behind.split_once(end) else { break };
            found.push(inside.to_owned());
            rest = after;
        }
    }
    found
}

/// The escapes of a template of JavaScript or a string of Python.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter == '\\').then(|| letters.next()).flatten() {
            None => plain.push(letter),
            Some('n') => plain.push('\n'),
            Some('\n') => {}
            Some(other) => plain.push(other),
        }
    }
    plain
}

/// The highest number in `KEYS[n]` or `ARGV[n]`.
fn highest(script: &str, table: &str) -> usize {
    let start = format!("{table}[");
    let numbers = script.split(&start).skip(1);
    let numbers = numbers.filter_map(|rest| rest.split(']').next().and_then(|number| number.trim().parse().ok()));
    numbers.max().unwrap_or(0).min(20)
}

/// True where the script says one of these words.
fn says(script: &str, words: &[&str]) -> bool {
    let script = script.to_ascii_lowercase();
    words.iter().any(|word| script.contains(&format!("'{word}'")) || script.contains(&format!("\"{word}\"")))
}

/// True where chance or the clock decides.
fn is_uncertain(script: &str) -> bool {
    script.contains("random") || script.contains("os.clock") || says(script, &["time", "info", "scan"])
}

/// True where an argument may be a time to live.
fn is_timed(script: &str) -> bool {
    says(script, &["px", "ex", "expire", "pexpire", "expireat", "pexpireat", "psetex", "setex", "pttl", "ttl"])
}

/// True where a number may be negated.
fn negates(script: &str) -> bool {
    script.split(", -").skip(1).any(|rest| rest.starts_with(|next: char| next.is_ascii_alphabetic()))
}

/// An argument: what the script reads out of it, or anything.
fn argument(random: &mut Random, script: &str, number: usize) -> Vec<u8> {
    // An array as BullMQ gives it: prefix, name, numbers, nothing, a map.
    const PACKED: &[u8] = b"\x9c\xa7bull:q:\xa1a\x01\xa2k1\xc0\xc3\xcd\x03\xe8\xa2{}\x80\xa1x\xc2\x05";
    const NUMBERS: [&str; 7] = ["0", "1", "2", "-1", "1000", "3.5", "20000"];
    const WORDS: [&[u8]; 9] = [b"", b"a", b"k1", b"k2", b"{\"a\":1,\"delay\":5}", b"[1,2]", b"x:", PACKED, b"\x80"];
    let wants = |function: &str| !random.clone().one_in(4) && script.contains(&format!("{function}(ARGV[{number}]"));
    match () {
        () if wants("cmsgpack.unpack") => PACKED.to_vec(),
        () if wants("cjson.decode") => b"{\"a\":1,\"delay\":5,\"id\":\"k1\"}".to_vec(),
        () if wants("tonumber") || random.one_in(2) => match is_timed(script) {
            // Nothing may end while it is looked at.
            true => (100_000 + random.below(1000)).to_string().into_bytes(),
            // Redis 7.0 sends a negative zero as -0, which no command takes; later versions and Ironkeep send 0.
            false if negates(script) => random.pick(&NUMBERS[1..]).as_bytes().to_vec(),
            false => random.pick(&NUMBERS).as_bytes().to_vec(),
        },
        () => random.pick(&WORDS).to_vec(),
    }
}

/// Gives the keys values, the same on both servers.
fn prepare(random: &mut Random) -> Vec<Vec<Vec<u8>>> {
    let mut commands = Vec::new();
    for number in 1..=14 {
        let key = format!("k{number}");
        let line = match random.below(9) {
            0 => format!("SET {key} {}", random.below(5)),
            1 => {
                format!("HSET {key} a 1 state x name {} data {{}} opts {{}} priority 3 delay 4 atm 1", random.below(9))
            }
            2 => format!("RPUSH {key} a 1 k1 0:5"),
            3 => format!("ZADD {key} 1 a 2 k2 {} b", random.below(2000)),
            4 => format!("SADD {key} {}", random.below(9)),
            5 => format!("XADD {key} 1-1 event added"),
            6 => format!("HSET {key} a b"),
            _ => continue,
        };
        commands.push(line.split(' ').map(|word| word.as_bytes().to_vec()).collect());
    }
    commands
}

/// An error without what the language itself says: its words differ.
fn without_words(reply: &[u8]) -> Vec<u8> {
    const STARTS: [&str; 5] = ["attempt to ", "bad argument ", "invalid argument ", "'for' limit ", "invalid 'for' "];
    let text = String::from_utf8_lossy(reply);
    let parts = || {
        let (line, rest) = text.strip_prefix("-ERR user_script:")?.split_once(": ")?;
        let (words, place) = rest.split_once(" script: ")?;
        STARTS.iter().any(|start| words.starts_with(start)).then(|| format!("line {line}, script {place}").into_bytes())
    };
    parts().unwrap_or_else(|| reply.to_vec())
}

/// What is compared, how often, and how often a script came to its end.
#[derive(Debug, Default)]
struct Corpus {
    runs: usize,
    successes: usize,
    unlike: Vec<String>,
}

impl Corpus {
    /// Sends a command to both; gives the reply of the reference.
    fn compare(&mut self, clients: &mut Clients, command: &[Vec<u8>], likeness: Likeness, about: &str) -> Vec<u8> {
        let (reference, tested) = (clients.reference.call(command), clients.tested.call(command));
        if !likeness.holds(&without_words(&reference), &without_words(&tested)) {
            let (said, instead) = (reference.escape_ascii(), tested.escape_ascii());
            let command = show(command);
            self.unlike.push(format!("{about}\n  {command}\n    reference {said}\n    tested    {instead}"));
        }
        reference
    }

    /// Runs one script with random keys and arguments, and looks at all keys.
    fn run(&mut self, clients: &mut Clients, random: &mut Random, script: &str, sha: &str, file: &str) {
        let words = |line: &[&[u8]]| line.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        for command in [vec![words(&[b"FLUSHALL"])], prepare(random)].concat() {
            self.compare(clients, &command, Likeness::Exact, file);
        }
        let keys = highest(script, "KEYS");
        let mut call = words(&[b"EVALSHA", sha.as_bytes(), keys.to_string().as_bytes()]);
        call.extend((0..keys).map(|_| format!("k{}", 1 + random.below(14)).into_bytes()));
        call.extend((1..=highest(script, "ARGV")).map(|number| argument(random, script, number)));
        let is_certain = !is_uncertain(script);
        let likeness = match is_certain {
            true if is_timed(script) => Likeness::Near(20_000),
            true => Likeness::Sorted,
            false => Likeness::Form,
        };
        let about = format!("{file}: {}", show(&call));
        let reply = self.compare(clients, &call, likeness, file);
        self.runs += 1;
        self.successes += usize::from(!reply.starts_with(b"-"));
        if !is_certain {
            return;
        }
        let names = self.compare(clients, &words(&[b"KEYS", b"*"]), Likeness::Sorted, &about);
        for key in reply::parse(&names).elements() {
            let key = key.text();
            let kind = self.compare(clients, &words(&[b"TYPE", key]), Likeness::Exact, &about);
            // Entries of streams are numbered by the clock.
            let look = match kind.as_slice() {
                b"+stream\r\n" => words(&[b"XLEN", key]),
                _ => words(&[b"DEBUG", b"DIGEST-VALUE", key]),
            };
            self.compare(clients, &look, Likeness::Exact, &about);
        }
    }
}

#[test]
fn the_scripts_of_the_frameworks_run_as_on_redis() {
    let scripts = gather();
    assert!(scripts.len() >= SCRIPTS_MIN, "{} scripts were found", scripts.len());
    let pair = Pair::with_threads(2);
    let seed = Random::seed_of_this_run();
    let mut random = Random::new(seed);
    let mut clients = pair.clients(Protocol::Resp2);
    let mut corpus = Corpus::default();
    for (script, file) in &scripts {
        let load = ["SCRIPT", "LOAD", script].map(|word| word.as_bytes().to_vec());
        let loaded = clients.reference.call(&load);
        // What does not parse is no script, and is told in other words.
        let likeness = if loaded.starts_with(b"-") { Likeness::Error } else { Likeness::Exact };
        corpus.compare(&mut clients, &load, likeness, file);
        // `maxstack.lua` counts how many values `unpack` gives at most: here more.
        if loaded.starts_with(b"-") || file.ends_with("maxstack.lua") {
            continue;
        }
        let sha = String::from_utf8_lossy(reply::parse(&loaded).text()).into_owned();
        for _ in 0..RUNS {
            corpus.run(&mut clients, &mut random, script, &sha, file);
        }
    }
    let Corpus { runs, successes, unlike } = corpus;
    assert!(unlike.is_empty(), "IRONKEEP_TEST_SEED={seed}\n{}", unlike.join("\n"));
    println!("{} scripts, {runs} runs, of which {successes} came to their end", scripts.len());
    assert!(successes * 4 > runs, "{successes} of {runs} runs came to their end");
}
