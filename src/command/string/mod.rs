//! String commands.
//!
//! - `set`: storing whole values, with conditions and expiries.
//! - `condition`: conditions on values, and what is removed by them.
//! - `counter`: numbers, integer and floating point.
//! - `increx`: numbers with bounds and expiries.
//! - `range`: parts of a value.
//! - `lcs`: the longest common subsequence of two values.
//!
//! Here: reading whole values, and what the parts share.
//!
//! Invariants:
//! - A value that is written as a whole and is the text of an `i64` is stored as that number (`OBJECT ENCODING` says
//!   `int`). One that was changed in place is growable (`raw`).
//! - GET and SET without options allocate nothing for values that fit a record.

mod condition;
mod counter;
mod increx;
mod lcs;
mod range;
mod set;

pub(super) use range::room_for;

use crate::base::format;
use crate::core::call::string_reply;
pub(super) use crate::core::stored_string::text;
use crate::core::stored_string::{StringRef, shareable, string_of};
use crate::core::{
    Arity, Call, Command, CommandError, Flags, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, categories, flags,
};
use crate::keyspace::{Key, NewValue};
use crate::persist::WireValue;
use crate::resp::{Elements, Reply};
use crate::value::kind::Kind;

/// The commands of this module.
pub static COMMANDS: &[&Command] = &[
    &range::APPEND,
    &counter::DECR,
    &counter::DECRBY,
    &condition::DELEX,
    &condition::DELIFEQ,
    &condition::DIGEST,
    &GET,
    &GETDEL,
    &set::GETEX,
    &range::GETRANGE,
    &set::GETSET,
    &counter::INCR,
    &counter::INCRBY,
    &counter::INCRBYFLOAT,
    &increx::INCREX,
    &lcs::LCS,
    &MGET,
    &set::MSET,
    &set::MSETEX,
    &set::MSETNX,
    &set::PSETEX,
    &set::SET,
    &set::SETEX,
    &set::SETNX,
    &range::SETRANGE,
    &range::STRLEN,
    &range::SUBSTR,
];

/// What all string commands share.
const STRING: Command = Command { group: "string", categories: categories::STRING, ..Command::DEFAULT };

/// A write that may need memory, whatever the size of the value.
const WRITE_FAST: Flags = flags::WRITE.or(flags::DENYOOM).or(flags::FAST);
/// A write that may need memory and takes as long as its arguments are large.
const WRITE_SLOW: Flags = flags::WRITE.or(flags::DENYOOM);
/// A read of one value.
const READ_FAST: Flags = flags::READONLY.or(flags::FAST);

static GET: Command = Command {
    name: "GET",
    arity: Arity::Exactly(2),
    flags: READ_FAST,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(get),
    syntax: "key",
    summary: "Gives the string at a key.",
    ..STRING
};

fn get(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(match call.db.string(key)? {
        Some(value) => string_reply(reply, value),
        None => reply.null(),
    })
}

static MGET: Command = Command {
    name: "MGET",
    arity: Arity::AtLeast(2),
    flags: READ_FAST,
    keys: Keys(&[KeySpec::range(1, -1, 1, "RO access")]),
    handler: Handler::Data(mget),
    complexity: "O(N) where N is the number of keys.",
    tips: "request_policy:multi_shard",
    syntax: "key [key ...]",
    summary: "Gives the strings at several keys, null for each that holds none.",
    ..STRING
};

fn mget(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let keys = call.keys();
    let mut values = reply.array(keys.len());
    for key in keys {
        match call.db.string(key) {
            Ok(Some(value)) => string_element(&mut values, value),
            // A key of another type counts as none here: MGET never fails.
            Ok(None) | Err(_) => values.null(),
        }
    }
    Ok(values.done())
}

static GETDEL: Command = Command {
    name: "GETDEL",
    arity: Arity::Exactly(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete")]),
    log: LogRule::Effects, // as DEL, and only when the key existed
    handler: Handler::Data(getdel),
    since: "6.2.0",
    syntax: "key",
    summary: "Gives the string at a key and removes the key.",
    ..STRING
};

fn getdel(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let Some(value) = call.db.string(key)? else { return Ok(reply.null()) };
    let done = string_reply(reply, value);
    remove(call, key);
    Ok(done)
}

/// Removes a key, if it exists, and logs it.
fn remove(call: &mut Call<'_>, key: Key<'_>) {
    if call.db.remove(key) {
        call.record(key).delete();
        call.db.notify(NotifyFlags::GENERIC, "del", key);
    }
}

/// The value for a whole text: a number if the text is one.
#[inline]
fn encoded(text: &[u8]) -> NewValue<'_> {
    match format::parse_i64(text) {
        Some(number) => NewValue::Int(number),
        None => NewValue::Bytes(text),
    }
}

/// The length of a value in bytes.
fn len(value: StringRef<'_>) -> usize {
    text(value, &mut itoa::Buffer::new()).len()
}

/// Writes a string value as an element: a large one by reference.
fn string_element(elements: &mut Elements<'_>, value: StringRef<'_>) {
    match shareable(&value) {
        Some(shared) => elements.shared(Box::new(shared)),
        None => elements.bulk(text(value, &mut itoa::Buffer::new())),
    }
}

/// The string at a key that is about to be changed, and the expiry to keep (Unix ms).
#[inline]
fn string_and_expiry<'c>(
    call: &'c mut Call<'_>,
    key: Key<'_>,
) -> Result<Option<(StringRef<'c>, Option<i64>)>, CommandError> {
    let Some(entry) = call.db.peek(key) else { return Ok(None) };
    // An expiry has 48 bits: it always fits.
    Ok(Some((string_of(entry)?, entry.expiry().map(|at| at as i64))))
}

/// The expiry of a key (Unix ms).
fn expiry_of(call: &mut Call<'_>, key: Key<'_>) -> Option<i64> {
    call.db.peek(key)?.expiry().map(|at| at as i64)
}

/// Stores a value with its absolute expiry and logs it, replacing whatever was there, and tells it as SET does. `text`
/// is the text of the value.
#[inline(always)]
fn store_anew(call: &mut Call<'_>, key: Key<'_>, value: NewValue<'_>, text: &[u8], expiry: Option<i64>) {
    let tells = !call.db.unit().wants().events.is_empty();
    if tells {
        call.db.note_overwriting(key, Kind::Str);
    }
    store(call, key, value, text, expiry);
    if tells {
        call.db.notify(NotifyFlags::STRING, "set", key);
    }
}

/// Stores a value with its absolute expiry and logs it. `text` is the text of the value.
#[inline]
fn store(call: &mut Call<'_>, key: Key<'_>, value: NewValue<'_>, text: &[u8], expiry: Option<i64>) {
    let logged = match value {
        NewValue::Int(number) => WireValue::Int(number),
        _ => WireValue::Bytes(text),
    };
    call.db.set(key, value, expiry);
    call.record(key).set(logged, expiry);
}

/// Refuses a string of `len + more` bytes if it is longer than `proto-max-bulk-len`.
fn check_len(call: &Call<'_>, len: u64, more: u64) -> Result<(), CommandError> {
    match len.checked_add(more) {
        Some(total) if total <= call.db.facts().string_max_bytes => Ok(()),
        _ => Err(CommandError::StringTooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table;
    use crate::exec::testing::Runner;
    use crate::resp::Resp;

    /// The encoding that a value has in the store.
    pub(super) fn encoding(t: &Runner, key: &str) -> &'static str {
        let key = t.keyspace().key(key.as_bytes());
        let shard = t.keyspace().lock(key.shard());
        let entry = shard.directory(t.db).and_then(|d| d.get(key.hash, key.bytes));
        crate::command::keys::object::encoding_name(entry.expect("the key exists").value())
    }

    /// Runs lines of `command => reply`.
    #[test]
    fn every_declaration_is_sound() {
        for command in COMMANDS {
            assert_eq!(table::mistake(command), None);
            assert_eq!(command.group, "string");
            assert!(command.categories.has(categories::STRING), "{}", command.name);
        }
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
        assert_eq!(COMMANDS.len(), 27);
    }

    #[test]
    fn whole_values_are_read_alone_and_together() {
        let mut t = Runner::new();
        t.script(
            "SET number 42 => +OK
             SET word hello => +OK
             SET empty '' => +OK
             GET number => $2 42
             GET word => $5 hello
             GET empty => $0
             GET nothing => $-1
             MGET word nothing number word => *4 $5 hello $-1 $2 42 $5 hello
             GET => -ERR wrong number of arguments for 'get' command
             MGET => -ERR wrong number of arguments for 'mget' command",
        );
        t.resp = Resp::V3;
        t.script("GET nothing => _\n MGET nothing number => *2 _ $2 42");
    }

    #[test]
    fn large_values_come_back_whole_and_share_their_bytes() {
        let mut t = Runner::new();
        let large = "0123456789".repeat(5000);
        t.run(&format!("SET k {large}"));
        assert_eq!(t.run("GET k"), format!("$50000 {large} "));
        assert_eq!(t.run("MGET k k"), format!("*2 $50000 {large} $50000 {large} "));
        assert_eq!(t.run("GETRANGE k 1 40000"), format!("$40000 {} ", &large[1..=40000]));
        assert_eq!(t.run("GETRANGE k 0 -1"), format!("$50000 {large} "));
        assert_eq!(t.run("GETDEL k"), format!("$50000 {large} "));
        assert_eq!(t.run("GET k"), "$-1 ");
        t.assert_replay_equals_live();
    }

    #[test]
    fn getdel_removes_and_logs_only_what_was_there() {
        let mut t = Runner::new();
        t.script("SET k v => +OK\n GETDEL k => $1 v\n GETDEL k => $-1");
        assert_eq!(t.take_logged(), ["SET k v", "DEL k"]);
    }

    #[test]
    fn only_the_exact_text_of_an_integer_is_stored_as_one() {
        let mut t = Runner::new();
        for text in ["0", "-1", "9223372036854775807", "-9223372036854775808"] {
            t.run(&format!("SET k {text}"));
            assert_eq!(encoding(&t, "k"), "int", "{text}");
            assert_eq!(t.run("GET k"), format!("${} {text} ", text.len()));
        }
        for text in ["", "-", "-0", "+1", "01", " 1", "1 ", "9223372036854775808", "1.0", "1e3"] {
            t.run(&format!("SET k '{text}'"));
            assert_eq!(encoding(&t, "k"), "embstr", "{text}");
            assert_eq!(t.run("GET k"), format!("${} {text} ", text.len()));
        }
        t.run(&format!("SET k {}", "x".repeat(45)));
        assert_eq!(encoding(&t, "k"), "raw");
    }

    #[test]
    fn a_replay_of_random_commands_makes_the_same_keys() {
        let mut random = crate::base::random::Random::from_seed(7);
        let mut t = Runner::new();
        let mut pick = |words: &[&'static str]| words[random.index(words.len())];
        for round in 0..4000 {
            let key = pick(&["a", "b", "c", "d"]);
            let value = pick(&["1", "-7", "0.5", "text", "''", "9223372036854775807", "inf"]);
            let line = match round % 16 {
                0 => format!("SET {key} {value} {}", pick(&["", "NX", "XX", "KEEPTTL", "PX 40", "PXAT 1", "GET EX 1"])),
                1 => format!("APPEND {key} {value}"),
                2 => format!("SETRANGE {key} {} {value}", pick(&["0", "3", "200", "-1"])),
                3 => format!("INCRBY {key} {value}"),
                4 => format!("INCRBYFLOAT {key} {value}"),
                5 => format!("GETEX {key} {}", pick(&["PERSIST", "PX 30", "EX 2", "PXAT 1", ""])),
                6 => format!("GETDEL {key}"),
                7 => format!("MSET {key} {value} e {value} {key} 5"),
                8 => format!("MSETNX {key} {value} {} 1", pick(&["a", "f"])),
                9 => format!("GETSET {key} {value}"),
                10 => format!("SETNX {key} {value}"),
                12 => format!("MSETEX 2 {key} {value} f 3 {}", pick(&["", "NX", "XX KEEPTTL", "PX 30", "XX PXAT 1"])),
                13 => format!(
                    "INCREX {key} {} {}",
                    pick(&["", "BYINT -3 LBOUND 0", "BYFLOAT 0.5", "BYFLOAT 9 UBOUND 3 SATURATE"]),
                    pick(&["", "PX 25", "EX 9 ENX", "PERSIST", "PXAT 1"]),
                ),
                14 => format!("SET {key} {value} {} {value}", pick(&["IFEQ", "IFNE", "PX 30 IFNE"])),
                15 => format!("{} {key} {}", pick(&["DELEX", "DELIFEQ"]), pick(&["IFEQ 1", "IFNE text", "1"])),
                11 => format!("PSETEX {key} {} {value}", pick(&["20", "500", "0"])),
                _ => format!("{} {key}", pick(&["INCR", "DECR", "GET", "STRLEN"])),
            };
            t.run(&line);
            t.advance_ms(pick(&["0", "1", "9"]).parse().expect("a number"));
        }
        // An expired key that was not accessed is still in the live keyspace and in the log.
        t.assert_replay_equals_live();
    }
}
