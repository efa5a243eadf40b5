//! OBJECT: the encoding of a key's value, and when it was last used.

use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, categories, flags, help};
use crate::keyspace::ValueRef;
use crate::resp::Reply;
use crate::value::Packing;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&OBJECT];

/// Strings up to this length are `embstr`.
const EMBSTR_MAX_BYTES: usize = 44;
/// Redis shares one object for each integer below this number, ...
const SHARED_INTEGERS: i64 = 10_000;
/// ... and reports this reference count for "shared".
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

const NO_LFU: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
                      when switching between policies at runtime LRU and LFU data will take some time to adjust.";
const LFU: &str = "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                   between policies at runtime LRU and LFU data will take some time to adjust.";

static OBJECT: Command = Command {
    name: "OBJECT",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&ENCODING, &FREQ, &HELP, &IDLETIME, &REFCOUNT]),
    since: "2.2.3",
    complexity: "Depends on subcommand.",
    summary: "A container for commands that look into how values are stored.",
    ..Command::DEFAULT
};

static ENCODING: Command = Command {
    name: "ENCODING",
    arity: Arity::Exactly(3),
    flags: flags::READONLY.or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(encoding),
    since: "2.2.3",
    tips: "nondeterministic_output",
    syntax: "key",
    summary: "Names the form in which the value of a key is stored.",
    ..Command::DEFAULT
};

fn encoding(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(2);
    Ok(match call.db.look_up(key).map(|entry| encoding_name(entry.value())) {
        None => reply.null(),
        Some(name) => reply.bulk(name.as_bytes()),
    })
}

/// The form of a value, as Redis names it.
pub fn encoding_name(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Int(_) => "int",
        ValueRef::Str(bytes) if bytes.len() <= EMBSTR_MAX_BYTES => "embstr",
        ValueRef::Str(_) | ValueRef::Raw(_) => "raw",
        ValueRef::Packed(Packing::SetInts, _) => "intset",
        ValueRef::Packed(Packing::HashEx, _) => "listpackex",
        ValueRef::Packed(..) => "listpack",
        ValueRef::List(_) => "quicklist",
        ValueRef::Set(_) | ValueRef::Hash(_) => "hashtable",
        ValueRef::Zset(_) => "skiplist",
        ValueRef::Stream(_) => "stream",
    }
}

static FREQ: Command = Command {
    name: "FREQ",
    handler: Handler::Data(freq),
    since: "4.0.0",
    summary: "Gives the logarithmic counter of how often a key is used, under an LFU policy.",
    ..ENCODING
};

fn freq(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let access = call.db.facts().access;
    let key = call.key(2);
    let Some(field) = call.db.look_up(key).map(|entry| entry.access()) else { return Ok(reply.null()) };
    if access.lfu.is_none() {
        return Err(CommandError::Text(NO_LFU));
    }
    Ok(reply.int(access.frequency(field).into()))
}

static IDLETIME: Command = Command {
    name: "IDLETIME",
    handler: Handler::Data(idletime),
    summary: "Gives the seconds since a key was last used.",
    ..ENCODING
};

fn idletime(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let access = call.db.facts().access;
    let key = call.key(2);
    let Some(field) = call.db.look_up(key).map(|entry| entry.access()) else { return Ok(reply.null()) };
    if access.lfu.is_some() {
        return Err(CommandError::Text(LFU));
    }
    Ok(reply.int(access.idle_seconds(field) as i64))
}

static REFCOUNT: Command = Command {
    name: "REFCOUNT",
    handler: Handler::Data(refcount),
    summary: "Gives the number of references to a value, as Redis would count them.",
    ..ENCODING
};

fn refcount(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(2);
    Ok(match call.db.look_up(key).map(|entry| entry.value()) {
        None => reply.null(),
        Some(value) => reply.int(reference_count(value)),
    })
}

/// The number of references to a value that Redis would count.
pub fn reference_count(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Int(0..SHARED_INTEGERS) => SHARED_REFCOUNT,
        _ => 1,
    }
}

static HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE),
    categories: categories::KEYSPACE,
    handler: Handler::Data(|_, reply| help(reply, "OBJECT", HELP_LINES)),
    since: "6.2.0",
    summary: "Describes the subcommands.",
    ..Command::DEFAULT
};

const HELP_LINES: &[&str] = &[
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::Runner;
    use crate::keyspace::access::Lfu;
    use crate::resp::Resp;

    #[test]
    fn declarations_are_sound() {
        for command in COMMANDS.iter().chain(OBJECT.subcommands()) {
            assert_eq!(crate::core::table::mistake(command), None);
        }
    }

    #[test]
    fn encodings_and_counts_are_those_of_redis() {
        let mut t = Runner::new();
        for (value, encoding, refcount) in [
            ("0".into(), "$3 int ", ":2147483647 "),
            ("9999".into(), "$3 int ", ":2147483647 "),
            ("10000".into(), "$3 int ", ":1 "),
            ("-1".into(), "$3 int ", ":1 "),
            ("01".into(), "$6 embstr ", ":1 "),
            ("x".repeat(44), "$6 embstr ", ":1 "),
            ("x".repeat(45), "$3 raw ", ":1 "),
            ("x".repeat(500), "$3 raw ", ":1 "),
        ] {
            t.run(&format!("SET k {value}"));
            assert_eq!(t.run("OBJECT ENCODING k"), encoding, "{value}");
            assert_eq!(t.run("OBJECT REFCOUNT k"), refcount, "{value}");
        }
        t.run("SET k a");
        t.run("APPEND k b");
        assert_eq!(t.run("OBJECT ENCODING k"), "$3 raw ");
    }

    #[test]
    fn idle_time_and_frequency_exclude_each_other() {
        let mut t = Runner::new();
        t.run("SET k v");
        t.advance_ms(12_345);
        assert_eq!(t.run("OBJECT IDLETIME k"), ":12 ");
        assert_eq!(t.run("OBJECT FREQ k"), format!("-{NO_LFU} "));
        t.lfu = Some(Lfu { log_factor: 10, decay_minutes: 1 });
        t.run("DEL k");
        t.run("SET k v");
        assert_eq!(t.run("OBJECT FREQ k"), ":5 ");
        assert_eq!(t.run("OBJECT IDLETIME k"), format!("-{LFU} "));
        t.advance_ms(3 * 60_000);
        assert_eq!(t.run("OBJECT FREQ k"), ":2 ");
    }

    #[test]
    fn a_write_is_a_use() {
        let mut t = Runner::new();
        t.run("SET k v");
        for line in ["APPEND k w", "SETRANGE k 0 x", "EXPIRE k 100", "SET k v", "SETBIT k 9 1"] {
            t.advance_ms(5000);
            t.run(line);
            assert_eq!(t.run("OBJECT IDLETIME k"), ":0 ", "{line}");
        }
        t.lfu = Some(Lfu { log_factor: 0, decay_minutes: 0 });
        t.run("DEL k");
        for (line, frequency) in [("SET k v", 5), ("SET k w", 6), ("APPEND k x", 7), ("GET k", 8), ("INCR n", 8)] {
            t.run(line);
            assert_eq!(t.run("OBJECT FREQ k"), format!(":{frequency} "), "{line}: the counter goes on");
        }
    }

    #[test]
    fn of_a_missing_key_all_is_null_and_before_the_policy() {
        let mut t = Runner::new();
        for line in ["OBJECT ENCODING k", "OBJECT FREQ k", "OBJECT IDLETIME k", "OBJECT REFCOUNT k"] {
            t.resp = Resp::V2;
            assert_eq!(t.run(line), "$-1 ");
            t.resp = Resp::V3;
            assert_eq!(t.run(line), "_ ");
        }
    }

    #[test]
    fn subcommands_are_checked_as_commands_are() {
        let mut t = Runner::new();
        assert_eq!(t.run("OBJECT"), "-ERR wrong number of arguments for 'object' command ");
        assert_eq!(t.run("OBJECT foo k"), "-ERR unknown subcommand 'foo'. Try OBJECT HELP. ");
        assert_eq!(t.run("OBJECT encoding"), "-ERR wrong number of arguments for 'object|encoding' command ");
        let help = t.run("object help");
        assert!(help.starts_with("*15 +OBJECT <subcommand> ") && help.ends_with("+    Prints this help. "), "{help}");
    }
}
