//! COMMANDLOG: the last commands that took long, that had large requests, and that had large replies.

use super::slowlog_commands::{count, write};
use crate::core::commandlog::Reason;
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, args, flags, help};
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&COMMANDLOG];

static COMMANDLOG: Command = Command {
    name: "COMMANDLOG",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[&GET, &HELP, &LEN, &RESET]),
    complexity: "Depends on subcommand.",
    summary: "The last commands that took long or were large.",
    ..SUBCOMMAND
};

/// What all of them share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(3),
    flags: flags::ADMIN.or(flags::LOADING).or(flags::STALE),
    since: "valkey-8.1.0",
    group: "server",
    ..Command::DEFAULT
};

/// The log that a word names.
fn reason(word: &[u8]) -> Result<Reason, CommandError> {
    match () {
        () if args::is(word, "SLOW") => Ok(Reason::Slow),
        () if args::is(word, "LARGE-REQUEST") => Ok(Reason::LargeRequest),
        () if args::is(word, "LARGE-REPLY") => Ok(Reason::LargeReply),
        () => Err(CommandError::Text("ERR type should be one of the following: slow, large-request, large-reply")),
    }
}

static GET: Command = Command {
    name: "GET",
    arity: Arity::Exactly(4),
    handler: Handler::Session(get),
    complexity: "O(N) where N is the number of entries returned",
    tips: "request_policy:all_nodes nondeterministic_output",
    syntax: "count <SLOW | LARGE-REQUEST | LARGE-REPLY>",
    summary: "The newest entries of a log, or all of them for a count of -1.",
    ..SUBCOMMAND
};

fn get(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let count = count(call.args.at(2))?;
    let entries = call.server.commandlogs.of(reason(call.args.at(3))?).newest(count);
    let mut all = reply.array(entries.len());
    for entry in entries {
        let mut six = all.array(6);
        write(&mut six, &entry);
        six.end();
    }
    Ok(all.done())
}

static LEN: Command = Command {
    name: "LEN",
    handler: Handler::Session(|call, reply| {
        let log = call.server.commandlogs.of(reason(call.args.at(2))?);
        Ok(reply.int(log.len() as i64))
    }),
    tips: "request_policy:all_nodes response_policy:agg_sum nondeterministic_output",
    syntax: "<SLOW | LARGE-REQUEST | LARGE-REPLY>",
    summary: "The number of entries of a log.",
    ..SUBCOMMAND
};

static RESET: Command = Command {
    name: "RESET",
    handler: Handler::Session(|call, reply| {
        call.server.commandlogs.of(reason(call.args.at(2))?).clear();
        Ok(reply.ok())
    }),
    complexity: "O(N) where N is the number of entries in the commandlog",
    tips: "request_policy:all_nodes response_policy:all_succeeded",
    syntax: "<SLOW | LARGE-REQUEST | LARGE-REPLY>",
    summary: "Drops all entries of a log.",
    ..SUBCOMMAND
};

static HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(|_, reply| help(reply, "COMMANDLOG", HELP_LINES)),
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

const HELP_LINES: &[&str] = &[
    "GET <count> <type>",
    "    Return top <count> entries of the specified <type> from the commandlog (-1 mean all).",
    "    Entries are made of:",
    "    id, timestamp,",
    "        time in microseconds for type of slow,",
    "        or size in bytes for type of large-request,",
    "        or size in bytes for type of large-reply",
    "    arguments array, client IP and port,",
    "    client name",
    "LEN <type>",
    "    Return the length of the specified type of commandlog.",
    "RESET <type>",
    "    Reset the specified type of commandlog.",
];

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use crate::core::{Handler, Wait};
    use crate::exec::testing::words;

    /// A server that logs every request and every reply.
    fn logging_all() -> Runner {
        Runner::with_config(
            "commandlog-request-larger-than 0\ncommandlog-reply-larger-than 0\nenable-debug-command yes\n",
        )
    }

    #[test]
    fn sizes_are_those_of_the_wire() {
        let mut t = Runner::with_config("commandlog-request-larger-than 30\ncommandlog-reply-larger-than 15\n");
        t.run("SET foo bar");
        t.run("SET foo barbarbar");
        t.run("GET foo");
        assert_eq!(t.run("COMMANDLOG LEN large-request"), ":2 ", "COMMANDLOG itself has run since");
        assert!(t.run("COMMANDLOG GET 9 LARGE-REQUEST").contains(" :31 *3 $3 SET $3 foo $3 bar "));
        let requests = t.server.commandlogs.large_request.newest(9);
        let figures: Vec<u64> = requests.iter().rev().map(|entry| entry.figure).collect();
        assert_eq!(figures[..2], [31, 37]);
        let replies = t.server.commandlogs.large_reply.newest(9);
        assert_eq!(replies.last().map(|entry| (entry.figure, entry.args[0].clone())), Some((15, b"GET".to_vec())));
        assert_eq!(t.run("COMMANDLOG RESET large-reply"), "+OK ");
        assert!(t.server.commandlogs.large_reply.is_empty());
        t.run("CONFIG SET commandlog-reply-larger-than -1 commandlog-large-request-max-len 0");
        t.run("COMMANDLOG RESET large-request");
        t.run("SET foo barbarbar");
        t.run("GET foo");
        assert_eq!(t.run("COMMANDLOG LEN large-reply"), ":0 ");
        assert_eq!(t.run("COMMANDLOG LEN large-request"), ":0 ");
    }

    #[test]
    fn a_pipeline_of_reads_logs_the_large_ones() {
        let mut t = Runner::with_config("commandlog-reply-larger-than 100\n");
        t.run(&format!("SET long {}", "x".repeat(200)));
        let get = |key: &str| [b"GET".to_vec(), key.as_bytes().to_vec()];
        t.run_two(&get("short"), &get("long"));
        let logged = t.server.commandlogs.large_reply.newest(9);
        assert_eq!(logged.iter().map(|entry| entry.args[1].clone()).collect::<Vec<_>>(), [b"long".to_vec()]);
        assert_eq!(logged[0].figure, 208);
    }

    #[test]
    fn mistakes_have_the_texts_of_valkey() {
        let mut t = Runner::new();
        let range = "-ERR count should be greater than or equal to -1 ";
        let kind = "-ERR type should be one of the following: slow, large-request, large-reply ";
        for (line, expected) in [
            ("COMMANDLOG GET x slow", range),
            ("COMMANDLOG GET -2 slow", range),
            ("COMMANDLOG GET 10 foo", kind),
            ("COMMANDLOG LEN foo", kind),
            ("COMMANDLOG RESET foo", kind),
            ("COMMANDLOG GET 10", "-ERR wrong number of arguments for 'commandlog|get' command "),
            ("COMMANDLOG foo", "-ERR unknown subcommand 'foo'. Try COMMANDLOG HELP. "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
    }

    #[test]
    fn the_slow_log_is_one_of_the_three() {
        let mut t = Runner::with_config("slowlog-log-slower-than 0\n");
        t.run("SET k v");
        assert!(t.run("COMMANDLOG GET 1 slow").starts_with("*1 *6 :0 "));
        assert!(t.run("SLOWLOG GET 1").starts_with("*1 *7 :1 "));
        assert_eq!(t.run("COMMANDLOG RESET slow"), "+OK ");
        assert_eq!(t.run("SLOWLOG LEN"), ":1 ", "the RESET itself");
    }

    /// The shortest call of a command: its name, and as many arguments as it must have.
    fn least(name: &str, arity: i64) -> String {
        let named: Vec<&str> = name.split('|').collect();
        let missing = (arity.unsigned_abs() as usize).saturating_sub(named.len());
        format!("{}{}", named.join(" "), " 1".repeat(missing))
    }

    /// Whether a command ends the connection, the server or the test, or replies later.
    fn is_special(name: &str) -> bool {
        matches!(
            name,
            "quit" | "shutdown" | "debug" | "client|kill" | "client|reply" | "exec" | "commandlog|reset" | "monitor"
        )
    }

    #[test]
    fn no_command_escapes_a_log_of_sizes() {
        let table = super::super::table();
        let all = table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
        let all = all.filter(|entry| !matches!(entry.command.handler, Handler::Container(_)));
        for entry in all.filter(|entry| !is_special(&entry.full_name)) {
            let line = least(&entry.full_name, entry.command.arity.number());
            let mut t = logging_all();
            t.run(&line);
            let logs = &t.server.commandlogs;
            if t.client.wait.as_ref().is_some_and(Wait::may_be_unblocked) {
                assert!(logs.large_request.is_empty() && logs.large_reply.is_empty(), "{line} is logged when answered");
                continue;
            }
            assert_eq!((logs.large_request.len(), logs.large_reply.len()), (1, 1), "{line}");
            let request = &logs.large_request.newest(1)[0];
            assert_eq!(request.args.len(), words(&line).len(), "{line}");
            let wire: usize = words(&line).iter().map(|word| word.len() + word.len().to_string().len() + 5).sum();
            assert_eq!(request.figure as usize, wire + words(&line).len().to_string().len() + 3, "{line}");
        }
    }
}
