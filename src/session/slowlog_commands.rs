//! SLOWLOG: the last commands that took long.

use crate::base::config::CompatibilityMode;
use crate::core::commandlog::Logged;
use crate::core::service::Parts;
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, args, flags, help};
use crate::resp::{Elements, Reply};

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&SLOWLOG];

static SLOWLOG: Command = Command {
    name: "SLOWLOG",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[&GET, &HELP, &LEN, &PARTS, &RESET]),
    complexity: "Depends on subcommand.",
    summary: "The last commands that took long.",
    ..SUBCOMMAND
};

/// What all of them share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN.or(flags::LOADING).or(flags::STALE),
    since: "2.2.12",
    group: "server",
    ..Command::DEFAULT
};

/// How many entries GET returns by default.
const SHOWN: usize = 10;

static GET: Command = Command {
    name: "GET",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(get),
    complexity: "O(N) where N is the number of entries returned",
    tips: "request_policy:all_nodes nondeterministic_output",
    syntax: "[count]",
    summary: "The newest entries, or all of them for a count of -1.",
    ..SUBCOMMAND
};

fn get(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let count = match call.args.len() {
        2 => SHOWN,
        3 => count(call.args.at(2))?,
        _ => return Err(CommandError::subcommand_syntax(call.args.at(1), "SLOWLOG")),
    };
    let entries = call.server.commandlogs.slow.newest(count);
    // Valkey does not tell how many arguments the call had.
    let tells_argc = call.server.config.settings().compatibility_mode == CompatibilityMode::Redis;
    let mut all = reply.array(entries.len());
    for entry in entries {
        let mut fields = all.array(if tells_argc { 7 } else { 6 });
        write(&mut fields, &entry);
        if tells_argc {
            fields.int(entry.argc as i64);
        }
        fields.end();
    }
    Ok(all.done())
}

/// How many entries a word asks for.
///
/// # Errors
/// It is not a number, or less than -1.
pub(super) fn count(word: &[u8]) -> Result<usize, CommandError> {
    const RANGE: CommandError = CommandError::Text("ERR count should be greater than or equal to -1");
    match args::integer(word).map_err(|_| RANGE)? {
        -1 => Ok(usize::MAX),
        count => usize::try_from(count).map_err(|_| RANGE),
    }
}

/// Writes what SLOWLOG and COMMANDLOG show of an entry: six elements.
pub(super) fn write(elements: &mut Elements<'_>, entry: &Logged) {
    elements.int(entry.id as i64);
    elements.int(entry.at);
    elements.int(entry.figure as i64);
    let mut words = elements.array(entry.args.len());
    entry.args.iter().for_each(|arg| words.bulk(arg));
    words.end();
    elements.bulk(entry.peer.as_bytes());
    elements.bulk(&entry.name);
}

static PARTS: Command = Command {
    name: "PARTS",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(parts),
    since: "ironkeep-0.1.0",
    complexity: "O(N) where N is the number of entries returned",
    syntax: "[count]",
    summary: "Of what the service times of the newest entries consist.",
    ..SUBCOMMAND
};

/// What PARTS shows of an entry whose reply has left: microseconds, rounded, so that they add up to about the last.
fn parts(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let count = match call.args.len() {
        2 => SHOWN,
        3 => count(call.args.at(2))?,
        _ => return Err(CommandError::subcommand_syntax(call.args.at(1), "SLOWLOG")),
    };
    let entries = call.server.commandlogs.slow.newest(count);
    let known: Vec<(u64, Parts)> = entries.iter().filter_map(|entry| Some((entry.id, entry.parts?))).collect();
    let mut all = reply.array(known.len());
    for (id, parts) in known {
        let Parts { wait_ns, run_ns, log_ns, send_ns } = parts;
        let mut six = all.array(6);
        six.int(id as i64);
        for ns in [wait_ns, run_ns, log_ns, send_ns, wait_ns + run_ns + log_ns + send_ns] {
            six.int((ns / 1000) as i64);
        }
        six.end();
    }
    Ok(all.done())
}

static LEN: Command = Command {
    name: "LEN",
    handler: Handler::Session(len),
    tips: "request_policy:all_nodes response_policy:agg_sum nondeterministic_output",
    summary: "The number of entries.",
    ..SUBCOMMAND
};

fn len(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.int(call.server.commandlogs.slow.len() as i64))
}

static RESET: Command = Command {
    name: "RESET",
    handler: Handler::Session(reset),
    complexity: "O(N) where N is the number of entries in the slowlog",
    tips: "request_policy:all_nodes response_policy:all_succeeded",
    summary: "Drops all entries.",
    ..SUBCOMMAND
};

fn reset(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    call.server.commandlogs.slow.clear();
    Ok(reply.ok())
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(slowlog_help),
    since: "6.2.0",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn slowlog_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name, number of arguments of the call",
            "LEN",
            "    Return the length of the slowlog.",
            "PARTS [<count>]",
            "    Return of what the service times of the top <count> entries consist, once their",
            "    replies have left: id, and in microseconds: waiting, running, waiting for the log,",
            "    sending, and all of that together.",
            "RESET",
            "    Reset the slowlog.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use crate::core::{Handler, Wait};
    use crate::exec::testing::words;

    /// A server that logs every command.
    fn logging_all() -> Runner {
        Runner::with_config("slowlog-log-slower-than 0\nenable-debug-command yes\n")
    }

    /// The arguments of the newest entry.
    fn newest(t: &Runner) -> String {
        let entry = t.server.commandlogs.slow.newest(1).pop().expect("an entry");
        entry.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn entries_have_seven_fields_and_rising_ids() {
        let mut t = logging_all();
        t.run("CLIENT SETNAME me");
        t.run("SET k v");
        t.run("GET k");
        let entries = t.server.commandlogs.slow.newest(9);
        assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [2, 1, 0]);
        let got = t.run("SLOWLOG GET 1");
        let (time, took) = (entries[0].at, entries[0].figure);
        let address = "$11 127.0.0.1:1 $2 me ";
        assert_eq!(got, format!("*1 *7 :2 :{time} :{took} *2 $3 GET $1 k {address}:2 "));
        assert_eq!(newest(&t), "SLOWLOG GET 1");
        assert_eq!(t.run("SLOWLOG LEN"), ":4 ");
        assert_eq!(t.run("SLOWLOG RESET"), "+OK ");
        assert_eq!(t.run("SLOWLOG LEN"), ":1 ", "RESET itself");
        assert_eq!(t.server.commandlogs.slow.newest(2)[1].id, 5, "ids go on");
        assert!(t.run("SLOWLOG GET -1").starts_with("*2 "));
        assert_eq!(t.run("SLOWLOG GET -2"), "-ERR count should be greater than or equal to -1 ");
        assert_eq!(t.run("SLOWLOG GET x"), "-ERR count should be greater than or equal to -1 ");
        assert!(t.run("SLOWLOG GET 1 2").starts_with("-ERR"));
    }

    /// They were counted, and not logged. A script that needs more than its keys runs twice, and is logged once.
    #[test]
    fn commands_of_a_script_are_logged_before_the_script() {
        let mut t = logging_all();
        for call in ["redis.call('get',KEYS[1])", "redis.call('keys','*')"] {
            t.run("SLOWLOG RESET");
            t.run(&format!("EVAL \"redis.call('set',KEYS[1],'x'){call}redis.pcall('lpush',KEYS[1],'x')\" 1 k"));
            let logged = t.server.commandlogs.slow.newest(4);
            let names: Vec<_> = logged.iter().map(|entry| String::from_utf8_lossy(&entry.args[0])).collect();
            let second = if call.contains("keys'") { "keys" } else { "get" };
            assert_eq!(names, ["EVAL", "lpush", second, "set"]);
            assert_eq!(logged[3].args[1..], [b"k".to_vec(), b"x".to_vec()]);
        }
        t.run("CONFIG RESETSTAT");
        t.run("EVAL \"return(redis.pcall('get'))\" 0");
        assert!(t.run("INFO commandstats").contains("cmdstat_get:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,"));
        t.run("CONFIG SET slowlog-log-slower-than -1 commandlog-request-larger-than 100");
        t.run("EVAL \"redis.call('set',KEYS[1],string.rep('x',100))\" 1 k");
        let requests = t.server.commandlogs.large_request.newest(9);
        assert_eq!(requests.iter().map(|entry| entry.args[0].clone()).collect::<Vec<_>>(), [b"set".to_vec()]);
    }

    #[test]
    fn the_newest_are_kept_and_what_is_slow_is_configured() {
        let mut t = logging_all();
        t.run("CONFIG SET slowlog-max-len 3");
        (0..9).for_each(|number| drop(t.run(&format!("SET k {number}"))));
        assert_eq!((t.server.commandlogs.slow.len(), &*newest(&t)), (3, "SET k 8"));
        t.run("CONFIG SET slowlog-log-slower-than -1");
        t.run("SLOWLOG RESET");
        t.run("DEBUG SLEEP 0.002");
        assert_eq!(t.run("SLOWLOG LEN"), ":0 ");
        t.run("CONFIG SET slowlog-log-slower-than 1500");
        t.run("GET k");
        assert_eq!(t.run("SLOWLOG LEN"), ":0 ");
        t.run("DEBUG SLEEP 0.002");
        assert_eq!((t.run("SLOWLOG LEN").as_str(), &*newest(&t)), (":1 ", "DEBUG SLEEP 0.002"));
        t.run("CONFIG SET slowlog-max-len 0 slowlog-log-slower-than 0");
        t.run("SLOWLOG RESET");
        t.run("GET k");
        assert_eq!(t.run("SLOWLOG LEN"), ":0 ");
    }

    #[test]
    fn quick_commands_that_are_slow_together_make_one_entry() {
        let mut t = Runner::with_config("slowlog-log-slower-than 1000\n");
        let append = [b"APPEND".to_vec(), b"k".to_vec(), vec![b'x'; 30_000_000]];
        t.run_two(&[b"GET".to_vec(), b"k".to_vec()], &append);
        assert_eq!(t.server.commandlogs.slow.len(), 1);
        assert!(newest(&t).starts_with("APPEND k xxx"), "it had most to do");
    }

    #[test]
    fn long_calls_are_cut_and_secrets_left_out() {
        let mut t = logging_all();
        for (line, shown) in [
            ("AUTH secret", "AUTH (redacted)"),
            ("AUTH default secret", "AUTH (redacted) (redacted)"),
            ("HELLO 2 AUTH default secret SETNAME me", "HELLO 2 AUTH (redacted) (redacted) SETNAME me"),
            ("CONFIG SET port 6379 requirepass x", "CONFIG SET port 6379 requirepass (redacted)"),
            ("CONFIG SET MasterAuth x maxmemory 0", "CONFIG SET MasterAuth (redacted) maxmemory 0"),
        ] {
            t.run(line);
            assert_eq!(newest(&t), shown);
        }
        let long = "x".repeat(130);
        t.run(&format!("SET k {long}"));
        assert_eq!(newest(&t), format!("SET k {}... (2 more bytes)", &long[..128]));
        let numbers = |count: usize| (1..=count).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        t.run(&format!("RPUSH l {}", numbers(30)));
        assert_eq!(newest(&t), format!("RPUSH l {}", numbers(30)));
        t.run(&format!("RPUSH l {}", numbers(31)));
        assert_eq!(newest(&t), format!("RPUSH l {} ... (2 more arguments)", numbers(29)));
        assert_eq!(t.server.commandlogs.slow.newest(1)[0].argc, 33);
        t.run("CONFIG SET slowlog-entry-max-argc 2 slowlog-entry-max-string-len 3");
        t.run("RPUSH list 1 2");
        assert_eq!(newest(&t), "RPU... (2 more bytes) ... (3 more arguments)");
        assert!(t.run("CONFIG SET slowlog-entry-max-argc 1").starts_with("-ERR"));
        t.run("CONFIG SET slowlog-entry-max-argc 99 slowlog-entry-max-string-len 999");
        t.run(&format!("RPUSH l {long} {}", numbers(60)));
        assert_eq!(newest(&t), format!("RPUSH l {long} {}", numbers(60)));
    }

    #[test]
    fn a_transaction_logs_its_commands_and_not_itself() {
        let mut t = logging_all();
        t.run("MULTI");
        t.run("SET k v");
        t.run("GET k");
        t.run("EXEC");
        let logged = t.server.commandlogs.slow.newest(9);
        let names: Vec<_> = logged.iter().map(|entry| String::from_utf8_lossy(&entry.args[0]).into_owned()).collect();
        assert_eq!(names, ["GET", "SET", "MULTI"]);
    }

    /// The shortest call of a command: its name, and as many arguments as it must have.
    fn least(name: &str, arity: i64) -> String {
        let named: Vec<&str> = name.split('|').collect();
        let missing = (arity.unsigned_abs() as usize).saturating_sub(named.len());
        format!("{}{}", named.join(" "), " 1".repeat(missing))
    }

    /// Whether a command ends the connection, the server or the test.
    fn is_final(name: &str) -> bool {
        matches!(name, "quit" | "shutdown" | "debug" | "client|kill" | "client|reply" | "exec" | "slowlog|reset")
    }

    #[test]
    fn no_command_escapes_a_hook() {
        let table = super::super::table();
        let all = table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
        let all = all.filter(|entry| !matches!(entry.command.handler, Handler::Container(_)));
        for entry in all.filter(|entry| !is_final(&entry.full_name)) {
            let line = least(&entry.full_name, entry.command.arity.number());
            // The hook of the slow log: every command is logged individually.
            let mut t = logging_all();
            t.run(&line);
            let waits = t.client.wait.as_ref().is_some_and(Wait::may_be_unblocked);
            assert_eq!(t.server.commandlogs.slow.len(), usize::from(!waits), "{line}");
            // One that waits is logged when it is answered.
            for logged in t.server.commandlogs.slow.newest(1) {
                assert_eq!(logged.args.len(), words(&line).len(), "{line}");
            }
            // The hook of access: no forbidden command runs.
            let mut t = Runner::with_config("requirepass secret\nenable-debug-command yes\n");
            let refused = t.run(&line).starts_with("-NOAUTH Authentication required.");
            assert_eq!(refused, !entry.command.flags.has(crate::core::flags::NO_AUTH), "{line}");
        }
    }
}
