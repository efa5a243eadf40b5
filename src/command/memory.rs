//! MEMORY: what a value takes.

use super::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, Words, args, categories, flags, help,
};
use crate::resp::Reply;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&MEMORY];

static MEMORY: Command = Command {
    name: "MEMORY",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&DOCTOR, &HELP, &MALLOC_STATS, &PURGE, &USAGE]),
    since: "4.0.0",
    group: "server",
    complexity: "Depends on subcommand.",
    summary: "A container for commands about memory.",
    ..Command::DEFAULT
};

const SUBCOMMAND: Command = Command { arity: Arity::Exactly(2), since: "4.0.0", group: "server", ..Command::DEFAULT };

const PER_SHARD: &str = "nondeterministic_output request_policy:all_shards response_policy:special";

static USAGE: Command = Command {
    name: "USAGE",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::NO_TOUCH),
    categories: categories::READ,
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(usage),
    complexity: "O(N) where N is the number of samples.",
    syntax: "key [SAMPLES count]",
    summary: "Estimates the bytes of memory that a key and its value take.",
    ..SUBCOMMAND
};

fn usage(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut words = Words::new(call.args, 3);
    while let Some(word) = words.next() {
        // The size of a collection is kept, not sampled: the count is checked and has no other effect.
        if !args::is(word, "SAMPLES") || words.left() == 0 || words.integer()? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let key = call.key(2);
    Ok(match call.db.read(key).map(|entry| entry.memory()) {
        None => reply.null(),
        Some(bytes) => reply.int(bytes as i64),
    })
}

static DOCTOR: Command = Command {
    name: "DOCTOR",
    handler: Handler::Data(|_, reply| Ok(reply.verbatim("txt", DOCTOR_TEXT.as_bytes()))),
    complexity: "O(1)",
    tips: PER_SHARD,
    summary: "Says whether anything is wrong with the memory.",
    ..SUBCOMMAND
};

const DOCTOR_TEXT: &str = "There is nothing to report: values are freed when they go, and snapshots take no fork.";

static MALLOC_STATS: Command = Command {
    name: "MALLOC-STATS",
    handler: Handler::Data(|_, reply| Ok(reply.verbatim("txt", b"Stats not supported for the current allocator"))),
    complexity: "Depends on how much memory is allocated, could be slow",
    tips: PER_SHARD,
    summary: "Gives what the allocator says of itself: nothing.",
    ..SUBCOMMAND
};

static PURGE: Command = Command {
    name: "PURGE",
    handler: Handler::Data(|_, reply| Ok(reply.ok())),
    complexity: "Depends on how much memory is allocated, could be slow",
    tips: "request_policy:all_shards response_policy:all_succeeded",
    summary: "Asks the allocator to give back what it can; it does so by itself.",
    ..SUBCOMMAND
};

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Data(|_, reply| help(reply, "MEMORY", HELP_LINES)),
    summary: "Describes the subcommands.",
    ..SUBCOMMAND
};

const HELP_LINES: &[&str] = &[
    "DOCTOR",
    "    Return memory problems reports.",
    "MALLOC-STATS",
    "    Return internal statistics report from the memory allocator.",
    "PURGE",
    "    Attempt to purge dirty pages for reclamation by the allocator.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::Runner;

    #[test]
    fn declarations_are_sound() {
        for command in COMMANDS.iter().chain(MEMORY.subcommands()) {
            assert_eq!(crate::command::table::mistake(command), None);
        }
    }

    #[test]
    fn a_larger_value_takes_more() {
        let mut t = Runner::new();
        let mut usage = |line: &str, key: &str| {
            t.run(line);
            t.run(&format!("MEMORY USAGE {key} SAMPLES 0"))[1..].trim_end().parse::<usize>().unwrap()
        };
        let short = usage("SET k v", "k");
        assert!((10..64).contains(&short), "{short}");
        assert!((1000..1100).contains(&usage(&format!("SET k {}", "x".repeat(1000)), "k")));
        let few = usage("SADD s a b c", "s");
        let members: Vec<String> = (0..1000).map(|number| format!("member:{number}")).collect();
        let many = usage(&format!("SADD s {}", members.join(" ")), "s");
        assert!(few < 100 && (12_000..60_000).contains(&many), "{few} {many}");
        assert_eq!(t.run("MEMORY USAGE none"), "$-1 ");
        assert_eq!(t.run("MEMORY USAGE s SAMPLES"), "-ERR syntax error ");
        assert_eq!(t.run("MEMORY USAGE s SAMPLES -1"), "-ERR syntax error ");
    }
}
