//! The value of a directive: parsed from words, and written back.
//!
//! Invariant: what [`Value::words`] writes, [`parse`] reads back as the same value. The error texts are
//! those of Redis, because tools match them. Bytes come from clients: never panics.

use super::directive::{Directive, Kind};
use super::notify::NotifyFlags;
use super::subnets::Subnets;
use super::words;
use crate::base::secret::Secret;
use crate::base::{cgroup, format};

const ADDRESSES_MAX: usize = 16;
/// The longest name of a host, in bytes.
const HOST_NAME_MAX: usize = 255;

/// A snapshot is due after this many seconds if there were this many changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last snapshot.
    pub seconds: u64,
    /// Changes since the last snapshot.
    pub changes: u64,
}

/// When a client with pending replies is closed; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// At once beyond this many bytes.
    pub hard: u64,
    /// Beyond this many bytes … …
    pub soft: u64,
    /// … for this many seconds.
    pub soft_seconds: u64,
}

/// The classes of output limits, in the order of [`Value::OutputLimits`].
pub(super) const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// A directive's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of `Bool`.
    Bool(bool),
    /// Of `Int` and `Octal`.
    Int(i64),
    /// Of `Memory`, and of `MemoryOrPercent` and `MemoryOrAuto` in bytes.
    Memory(u64),
    /// Of `MemoryOrAuto`: the bytes that `auto` came to when it was set.
    Auto(u64),
    /// Of `MemoryOrPercent`.
    Percent(u64),
    /// Of `Choice`.
    Choice(&'static str),
    /// Of `Choices`, in the table's order.
    Choices(Vec<&'static str>),
    /// Of `Text`, `FileName`, `HostName`, `Subnets`, `ReplicaOf`.
    Text(Vec<u8>),
    /// Of `Text`, where it is secret.
    Secret(Secret),
    /// Of `Addresses`.
    Addresses(Vec<String>),
    /// Of `SavePoints`.
    SavePoints(Vec<SavePoint>),
    /// Of `OutputLimits`: normal, replica, pubsub.
    OutputLimits([OutputLimit; 3]),
    /// Of `Notify`.
    Notify(NotifyFlags),
    /// Of `OomScores`.
    OomScores([i64; 3]),
    /// Of `Percentiles`.
    Percentiles(Vec<f64>),
    /// Of `FileOnly`: the words of each line.
    Lines(Lines),
}

/// The lines of a directive that stands in a file only, and the words of each.
pub type Lines = Vec<Vec<Vec<u8>>>;

/// The default value of a directive.
pub fn default(directive: &Directive) -> Value {
    if matches!(directive.kind, Kind::FileOnly) {
        return Value::Lines(Vec::new());
    }
    let mut split = words::split(directive.default.as_bytes()).unwrap_or_default();
    if !directive.kind.takes_words() {
        split = vec![directive.default.as_bytes().to_vec()];
    }
    let empty = Value::OutputLimits([OutputLimit::default(); 3]);
    parse_any(directive, &split, &empty).expect("the defaults of the table are valid, as a test checks")
}

/// Parses a value. `current` is the directive's present value, because output limits change class by class.
pub fn parse(directive: &Directive, words: &[Vec<u8>], current: &Value) -> Result<Value, String> {
    let value = parse_any(directive, words, current)?;
    match directive.only_default {
        Some(reason) if value != default(directive) => Err(reason.to_owned()),
        _ => Ok(value),
    }
}

fn parse_any(directive: &Directive, words: &[Vec<u8>], current: &Value) -> Result<Value, String> {
    match directive.kind {
        Kind::Choices(known) => parse_choices(words, known),
        Kind::Addresses => parse_addresses(words),
        Kind::SavePoints => parse_save_points(words).ok_or_else(|| "Invalid save parameters".to_owned()),
        Kind::OutputLimits => parse_output_limits(words, current),
        Kind::OomScores => parse_oom_scores(words),
        Kind::Percentiles => parse_percentiles(words),
        Kind::ReplicaOf => parse_replica_of(words),
        Kind::FileOnly => Err("this directive is for the configuration file only".to_owned()),
        _ => match words {
            [word] => parse_word(directive, word),
            _ => Err("wrong number of arguments".to_owned()),
        },
    }
}

fn parse_word(directive: &Directive, word: &[u8]) -> Result<Value, String> {
    match directive.kind {
        Kind::Bool if word.eq_ignore_ascii_case(b"yes") => Ok(Value::Bool(true)),
        Kind::Bool if word.eq_ignore_ascii_case(b"no") => Ok(Value::Bool(false)),
        Kind::Bool => Err("argument must be 'yes' or 'no'".to_owned()),
        Kind::Int(min, max) => {
            let value = format::parse_i64(word).ok_or("argument couldn't be parsed into an integer")?;
            let fits = (min..=max).contains(&value);
            fits.then_some(Value::Int(value))
                .ok_or_else(|| format!("argument must be between {min} and {max} inclusive"))
        }
        Kind::Memory(min, max) => {
            let value = words::parse_memory(word).ok_or("argument must be a memory value")?;
            let fits = (min..=max).contains(&value);
            fits.then_some(Value::Memory(value))
                .ok_or_else(|| format!("argument must be between {min} and {max} inclusive"))
        }
        Kind::MemoryOrAuto if word.eq_ignore_ascii_case(b"auto") => Ok(Value::Auto(share(cgroup::memory_limit()))),
        Kind::MemoryOrAuto => {
            let value = words::parse_memory(word).ok_or("argument must be a memory value")?;
            Ok(Value::Memory(value))
        }
        Kind::MemoryOrPercent => parse_memory_or_percent(word),
        Kind::Octal => {
            let value = std::str::from_utf8(word).ok().and_then(|text| i64::from_str_radix(text, 8).ok());
            let value = value.ok_or("argument couldn't be parsed as an octal number")?;
            let fits = (0..=0o777).contains(&value);
            fits.then_some(Value::Int(value)).ok_or_else(|| "argument must be between 0 and 777 inclusive".to_owned())
        }
        Kind::Choice(known) => find_choice(word, known).map(Value::Choice).ok_or_else(|| one_of(known)),
        Kind::FileName if word.contains(&b'/') => Err(format!("{} can't be a path, just a filename", directive.name)),
        Kind::FileName if word.is_empty() => Err(format!("{} can't be empty", directive.name)),
        Kind::HostName => parse_host_name(word),
        Kind::Subnets => match Subnets::parse(word) {
            Some(_) => Ok(Value::Text(word.to_vec())),
            None => Err("Invalid IP address or CIDR subnet".to_owned()),
        },
        Kind::Notify => NotifyFlags::parse(word)
            .map(Value::Notify)
            .ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
        // A password may be any bytes.
        _ if directive.secret => Ok(Value::Secret(Secret::new(word))),
        _ if word.contains(&0) => Err("argument must not contain a zero byte".to_owned()),
        _ => Ok(Value::Text(word.to_vec())),
    }
}

/// What `auto` takes of the memory that the process may use. The rest is for clients, snapshots and the page cache.
fn share(limit: u64) -> u64 {
    (limit - limit / 4).max(1)
}

fn parse_host_name(word: &[u8]) -> Result<Value, String> {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match () {
        () if word.len() > HOST_NAME_MAX => Err("Hostnames must be less than 256 characters".to_owned()),
        () if word.iter().all(is_allowed) => Ok(Value::Text(word.to_vec())),
        () => Err("Hostnames may only contain alphanumeric characters, hyphens or dots".to_owned()),
    }
}

fn parse_memory_or_percent(word: &[u8]) -> Result<Value, String> {
    if let Some(bytes) = words::parse_memory(word) {
        return Ok(Value::Memory(bytes));
    }
    match word.strip_suffix(b"%").and_then(format::parse_u64) {
        Some(percent) if percent <= 100 => Ok(Value::Percent(percent)),
        Some(_) => Err("percentage argument must be less or equal to 100".to_owned()),
        None => Err("argument must be a memory or percent value".to_owned()),
    }
}

fn find_choice(word: &[u8], known: &'static [&'static str]) -> Option<&'static str> {
    known.iter().copied().find(|choice| choice.as_bytes().eq_ignore_ascii_case(word))
}

fn one_of(known: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", known.join(", "))
}

fn parse_choices(words: &[Vec<u8>], known: &'static [&'static str]) -> Result<Value, String> {
    let mut chosen = Vec::new();
    for word in words {
        chosen.push(find_choice(word, known).ok_or_else(|| one_of(known))?);
    }
    if chosen.is_empty() {
        return Err(one_of(known));
    }
    if chosen.contains(&"save") && chosen.contains(&"nosave") {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned());
    }
    let mut ordered: Vec<_> = known.iter().copied().filter(|choice| chosen.contains(choice)).collect();
    if ordered.len() > 1 {
        ordered.retain(|choice| !matches!(*choice, "default" | "no")); // they stand for "no option at all"
    }
    if ordered.contains(&"yes") || known.contains(&"yes") && ordered.len() == known.len() - 2 {
        ordered = known.iter().copied().filter(|choice| *choice == "yes").collect();
    }
    Ok(Value::Choices(ordered))
}

fn parse_addresses(words: &[Vec<u8>]) -> Result<Value, String> {
    if words.len() > ADDRESSES_MAX {
        return Err("Too many bind addresses specified.".to_owned());
    }
    if matches!(words, [only] if only.is_empty()) {
        return Ok(Value::Addresses(Vec::new()));
    }
    let text = |word: &Vec<u8>| {
        let text = String::from_utf8(word.clone()).ok();
        text.filter(|text| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()))
            .ok_or_else(|| "Invalid bind address.".to_owned())
    };
    words.iter().map(text).collect::<Result<_, _>>().map(Value::Addresses)
}

fn parse_save_points(words: &[Vec<u8>]) -> Option<Value> {
    // "save 3600 1 300 100" may come as one quoted word from a command line.
    if words.is_empty() || matches!(words, [only] if only.is_empty()) {
        return Some(Value::SavePoints(Vec::new()));
    }
    let point = |pair: &[Vec<u8>]| {
        let seconds = format::parse_u64(&pair[0]).filter(|&seconds| seconds >= 1)?;
        Some(SavePoint { seconds, changes: format::parse_u64(&pair[1])? })
    };
    if !words.len().is_multiple_of(2) {
        return None;
    }
    words.chunks_exact(2).map(point).collect::<Option<_>>().map(Value::SavePoints)
}

fn parse_output_limits(words: &[Vec<u8>], current: &Value) -> Result<Value, String> {
    let Value::OutputLimits(mut limits) = *current else {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    };
    if matches!(words, [only] if only.is_empty()) {
        return Ok(Value::OutputLimits(limits));
    }
    if !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    for group in words.chunks_exact(4) {
        let class = match group[0].to_ascii_lowercase().as_slice() {
            b"normal" => 0,
            b"slave" | b"replica" => 1,
            b"pubsub" => 2,
            _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
        };
        let parsed = (|| {
            Some(OutputLimit {
                hard: words::parse_memory(&group[1])?,
                soft: words::parse_memory(&group[2])?,
                soft_seconds: format::parse_u64(&group[3])?,
            })
        })();
        limits[class] = parsed.ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
    }
    Ok(Value::OutputLimits(limits))
}

fn parse_oom_scores(words: &[Vec<u8>]) -> Result<Value, String> {
    let [first, second, third] = words else { return Err("wrong number of arguments".to_owned()) };
    let score = |word: &Vec<u8>| {
        format::parse_i64(word)
            .filter(|score| (-2000..=2000).contains(score))
            .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")
    };
    Ok(Value::OomScores([score(first)?, score(second)?, score(third)?]))
}

fn parse_percentiles(words: &[Vec<u8>]) -> Result<Value, String> {
    if matches!(words, [only] if only.is_empty()) {
        return Ok(Value::Percentiles(Vec::new()));
    }
    let mut percentiles = Vec::new();
    for word in words {
        let value = format::parse_double(word).ok_or("Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&value) {
            return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".to_owned());
        }
        percentiles.push(value);
    }
    Ok(Value::Percentiles(percentiles))
}

fn parse_replica_of(words: &[Vec<u8>]) -> Result<Value, String> {
    let none = match words {
        [] => true,
        [only] => only.is_empty(),
        [no, one] => no.eq_ignore_ascii_case(b"no") && one.eq_ignore_ascii_case(b"one"),
        _ => false,
    };
    none.then_some(Value::Text(Vec::new()))
        .ok_or_else(|| "Ironkeep is a single-node store: it cannot be a replica of another server".to_owned())
}

impl Value {
    /// The value as CONFIG GET shows it.
    pub fn text(&self) -> Vec<u8> {
        match self {
            // Clients compute with what CONFIG GET shows.
            Value::Memory(bytes) | Value::Auto(bytes) => bytes.to_string().into_bytes(),
            Value::OutputLimits(limits) => {
                let class = |(limit, class): (&OutputLimit, &str)| {
                    format!("{class} {} {} {}", limit.hard, limit.soft, limit.soft_seconds)
                };
                let classes: Vec<_> = limits.iter().zip(OUTPUT_CLASSES).map(class).collect();
                classes.join(" ").into_bytes()
            }
            Value::Text(text) => text.clone(),
            Value::Secret(secret) => secret.to_vec(),
            other => other.words().join(&b' '),
        }
    }

    /// [`Value::text`] of an octal number.
    pub fn octal_text(&self) -> Vec<u8> {
        match self {
            Value::Int(bits) => format!("{bits:o}").into_bytes(),
            other => other.text(),
        }
    }

    /// The words of the value as written in a file, before quoting.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let strings = |strings: Vec<String>| strings.into_iter().map(String::into_bytes).collect();
        match self {
            Value::Bool(yes) => strings(vec![if *yes { "yes" } else { "no" }.to_owned()]),
            Value::Int(value) => strings(vec![value.to_string()]),
            Value::Memory(bytes) => strings(vec![words::memory_text(*bytes)]),
            Value::Auto(_) => strings(vec!["auto".to_owned()]),
            Value::Percent(percent) => strings(vec![format!("{percent}%")]),
            Value::Choice(choice) => strings(vec![(*choice).to_owned()]),
            Value::Choices(choices) => strings(choices.iter().map(|&choice| choice.to_owned()).collect()),
            Value::Text(text) => vec![text.clone()],
            Value::Secret(secret) => vec![secret.to_vec()],
            Value::Addresses(addresses) => strings(addresses.clone()),
            Value::SavePoints(points) => strings(
                points.iter().flat_map(|point| [point.seconds.to_string(), point.changes.to_string()]).collect(),
            ),
            Value::OutputLimits(limits) => {
                let class = |(limit, class): (&OutputLimit, &str)| {
                    let [hard, soft] = [limit.hard, limit.soft].map(words::memory_text);
                    [class.to_owned(), hard, soft, limit.soft_seconds.to_string()]
                };
                strings(limits.iter().zip(OUTPUT_CLASSES).flat_map(class).collect())
            }
            Value::Notify(flags) => strings(vec![flags.letters()]),
            Value::OomScores(scores) => strings(scores.map(|score| score.to_string()).to_vec()),
            Value::Percentiles(percentiles) => {
                let text = |percentile: &f64| {
                    let mut text = Vec::new();
                    format::write_double(&mut text, *percentile);
                    text
                };
                percentiles.iter().map(text).collect()
            }
            Value::Lines(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::directives;

    fn parse_text(name: &str, text: &str) -> Result<String, String> {
        let directive = directives::all()[directives::find(name.as_bytes()).expect("a known name")];
        let split = match directive.kind.takes_words() {
            true => text.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
            false => vec![text.as_bytes().to_vec()],
        };
        let value = parse(directive, &split, &default(directive))?;
        Ok(String::from_utf8(value.text()).expect("ASCII"))
    }

    #[test]
    fn every_default_is_valid_and_comes_back() {
        for directive in directives::all() {
            let value = default(directive);
            if matches!(directive.kind, Kind::FileOnly) {
                continue;
            }
            let mut words = value.words();
            if let Kind::Octal = directive.kind {
                words = vec![value.octal_text()];
            }
            if words.is_empty() {
                words.push(Vec::new());
            }
            assert_eq!(parse(directive, &words, &value), Ok(value.clone()), "{}", directive.name);
        }
    }

    #[test]
    fn answers_recorded_from_redis() {
        for (name, given, shown) in [
            ("maxmemory", "1gb", "1073741824"),
            ("maxmemory", "", "0"),
            ("maxmemory", "18446744073709551615", "18446744073709551615"),
            ("maxmemory-clients", "5%", "5%"),
            ("appendfsync", "Always", "always"),
            ("save", "", ""),
            ("save", "1 0", "1 0"),
            ("save", "100 1 200 2", "100 1 200 2"),
            ("shutdown-on-sigterm", "now save", "save now"),
            ("notify-keyspace-events", "KEA", "AKE"),
            ("latency-tracking-info-percentiles", "50.0 99.12345", "50 99.12345"),
            ("oom-score-adj-values", "3 2 1", "3 2 1"),
            ("bind", "", ""),
            (
                "client-output-buffer-limit",
                "replica 1 2 3 pubsub 1mb 4 5",
                "normal 0 0 0 slave 1 2 3 pubsub 1048576 4 5",
            ),
            ("replicaof", "no one", ""),
        ] {
            assert_eq!(parse_text(name, given).as_deref(), Ok(shown), "{name} {given}");
        }
    }

    #[test]
    fn a_share_of_the_memory() {
        let shown = parse_text("maxmemory", "AUTO").expect("valid").parse::<u64>().expect("a number");
        assert_eq!(shown, share(cgroup::memory_limit()));
        assert_eq!((share(1), share(4), share(1000), share(u64::MAX)), (1, 3, 750, u64::MAX - u64::MAX / 4));
        let auto = directives::all()[directives::find(b"maxmemory").expect("a known name")];
        let value = parse(auto, &[b"auto".to_vec()], &default(auto)).expect("valid");
        assert_eq!(value.words(), [b"auto"], "a file keeps the word");
        assert_eq!(parse_text("maxclients", "auto"), Err("argument couldn't be parsed into an integer".to_owned()));
    }

    #[test]
    fn refusals_recorded_from_redis() {
        let seventeen = ["1"; 17].join(" ");
        for (name, given, problem) in [
            ("appendonly", "maybe", "argument must be 'yes' or 'no'"),
            ("port", "abc", "argument couldn't be parsed into an integer"),
            ("port", "+5", "argument couldn't be parsed into an integer"),
            ("port", "70000", "argument must be between 0 and 65535 inclusive"),
            ("maxmemory", "1.5gb", "argument must be a memory value"),
            ("maxmemory", "-1", "argument must be a memory value"),
            ("proto-max-bulk-len", "1", "argument must be between 1048576 and 9223372036854775807 inclusive"),
            ("maxmemory-clients", "500%", "percentage argument must be less or equal to 100"),
            ("maxmemory-clients", "x", "argument must be a memory or percent value"),
            ("unixsocketperm", "9", "argument couldn't be parsed as an octal number"),
            ("save", "1 2 3", "Invalid save parameters"),
            ("save", "0 1", "Invalid save parameters"),
            ("save", "  5 1 ", "Invalid save parameters"),
            ("client-output-buffer-limit", "normal 1 2", "Wrong number of arguments in buffer limit configuration."),
            (
                "client-output-buffer-limit",
                "master 1 2 3",
                "Invalid client class specified in buffer limit configuration.",
            ),
            (
                "client-output-buffer-limit",
                "normal 1 2 x",
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            ),
            ("notify-keyspace-events", "qq", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
            ("oom-score-adj-values", "1 2", "wrong number of arguments"),
            (
                "oom-score-adj-values",
                "1 2 3000",
                "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
            ),
            (
                "latency-tracking-info-percentiles",
                "101",
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
            ),
            ("shutdown-on-sigterm", "save nosave", "shutdown options SAVE and NOSAVE can't be used simultaneously"),
            ("appendfilename", "a/b", "appendfilename can't be a path, just a filename"),
            ("bind", &seventeen, "Too many bind addresses specified."),
            (
                "maxmemory-policy",
                "nope",
                "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, \
                 allkeys-lru, allkeys-lfu, allkeys-random, noeviction, volatile-lrm, allkeys-lrm",
            ),
        ] {
            assert_eq!(parse_text(name, given), Err(problem.to_owned()), "{name} {given}");
        }
        let long = "a".repeat(256);
        for (name, problem) in [
            ("a_b", "Hostnames may only contain alphanumeric characters, hyphens or dots"),
            ("a b", "Hostnames may only contain alphanumeric characters, hyphens or dots"),
            (&*long, "Hostnames must be less than 256 characters"),
        ] {
            assert_eq!(parse_text("cluster-announce-hostname", name), Err(problem.to_owned()), "{name}");
        }
        assert!(parse_text("replicaof", "host 6379").is_err_and(|problem| problem.contains("single-node")));
    }
}
