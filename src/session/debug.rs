//! DEBUG: the command, and those of its words that need the server. The others are in `command::debug_words`.

use std::sync::atomic::Ordering::Relaxed;

use rustix::process::Signal;
use tokio::sync::oneshot;

use super::debug_process;
use crate::base::logging;
use crate::command::debug_words::{self, WORD};
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall, Wait, args, flags, help};
use crate::durable::reload::{self, Reload};
use crate::resp::Reply;

/// See the module.
pub static COMMANDS: &[&Command] = &[&DEBUG];

static DEBUG: Command = Command {
    name: "DEBUG",
    arity: Arity::AtLeast(2),
    handler: Handler::Words(&[
        debug_words::WORDS,
        debug_process::WORDS,
        &[&ASSERT, &HELP, &LOADAOF, &OOM, &PANIC, &RELOAD, &SEGFAULT, &SET_ACTIVE_EXPIRE, &SET_DISABLE_DENY_SCRIPTS],
    ]),
    summary: "A container for what tests ask of a server.",
    ..WORD
};

static RELOAD: Command = Command {
    name: "RELOAD",
    arity: Arity::AtLeast(2),
    flags: WORD.flags.or(flags::NO_MULTI),
    handler: Handler::Session(reload_command),
    syntax: "[option ...]",
    summary: "Makes a snapshot, and loads all keys anew from the disk.",
    ..WORD
};

fn reload_command(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (mut save, mut flush, mut merge) = (true, true, false);
    for word in call.args.from(2) {
        match word {
            _ if args::is(word, "MERGE") => merge = true,
            _ if args::is(word, "NOFLUSH") => flush = false,
            _ if args::is(word, "NOSAVE") => save = false,
            _ => {
                return Err(CommandError::Text(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    begin(call, Reload::Snapshot { save, flush, merge }, reply)
}

static LOADAOF: Command = Command {
    name: "LOADAOF",
    arity: Arity::Exactly(2),
    handler: Handler::Session(|call, reply| begin(call, Reload::Log, reply)),
    syntax: "",
    summary: "Loads all keys anew from snapshot and log.",
    ..RELOAD
};

/// Begins a reload. The connection waits for its end.
fn begin(call: &mut SessionCall<'_>, how: Reload, reply: Reply<'_>) -> Outcome {
    let (done, outcome) = oneshot::channel();
    reload::request(call.server, how, done);
    call.client.wait = Some(Wait::Reload(outcome));
    Ok(reply.withheld())
}

static SET_ACTIVE_EXPIRE: Command = Command {
    name: "SET-ACTIVE-EXPIRE",
    arity: Arity::Exactly(3),
    handler: Handler::Session(set_active_expire),
    syntax: "0|1",
    summary: "Whether keys expire that nobody asks for.",
    ..WORD
};

fn set_active_expire(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    call.server.debugging.active_expiry_off.store(!is_on(call.args.at(2)), Relaxed);
    Ok(reply.ok())
}

/// Whether C parses another number than zero: a text without one is zero.
fn is_on(word: &[u8]) -> bool {
    let word = word.trim_ascii_start();
    let digits = word.strip_prefix(b"-").or(word.strip_prefix(b"+")).unwrap_or(word);
    digits.iter().take_while(|byte| byte.is_ascii_digit()).any(|digit| *digit != b'0')
}

static SET_DISABLE_DENY_SCRIPTS: Command = Command {
    name: "SET-DISABLE-DENY-SCRIPTS",
    arity: Arity::Exactly(3),
    handler: Handler::Session(|call, reply| {
        call.server.debugging.deny_scripts_off.store(is_on(call.args.at(2)), Relaxed);
        Ok(reply.ok())
    }),
    syntax: "0|1",
    summary: "Whether scripts may call commands that they may not, as far as these need only keys, or nothing.",
    ..WORD
};

/// A word that ends the process the hard way, so that tests see what a crash leaves.
const CRASH: Command = Command { summary: "Ends the server as a crash of this kind does.", ..WORD };

static SEGFAULT: Command = Command {
    name: "SEGFAULT",
    handler: Handler::Session(|_, _| {
        logging::warning(format_args!("DEBUG SEGFAULT called"));
        crash(Signal::SEGV)
    }),
    ..CRASH
};

static PANIC: Command = Command {
    name: "PANIC",
    handler: Handler::Session(|call, _| {
        logging::warning(format_args!("DEBUG PANIC called at Unix Time {}", call.now / 1000));
        crash(Signal::ABORT)
    }),
    ..CRASH
};

static ASSERT: Command = Command {
    name: "ASSERT",
    handler: Handler::Session(|_, _| {
        logging::warning(format_args!("=== ASSERTION FAILED === (DEBUG ASSERT)"));
        crash(Signal::ABORT)
    }),
    ..CRASH
};

static OOM: Command = Command {
    name: "OOM",
    handler: Handler::Session(|_, _| {
        logging::warning(format_args!("Out Of Memory allocating 9223372036854775807 bytes! (DEBUG OOM)"));
        crash(Signal::ABORT)
    }),
    ..CRASH
};

/// Sends this process a signal that ends it.
fn crash(signal: Signal) -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    // It ends the process before it comes back, unless a debugger holds it.
    std::process::abort()
}

static HELP: Command = Command {
    name: "HELP",
    handler: Handler::Session(|_, reply| help(reply, "DEBUG", HELP_LINES)),
    summary: "Describes the words.",
    ..WORD
};

const HELP_LINES: &[&str] = &[
    "AOF-FLUSH-SLEEP <microsec>",
    "    Sleep before every write to the log.",
    "ASSERT",
    "    Crash by assertion failed.",
    "CHANGE-REPL-ID",
    "    Accepted, without effect.",
    "CLIENT-EVICTION",
    "    Show how much memory clients take, by classes of size (maxmemory-clients).",
    "CLIENT-ENFORCE-REPLY-LIST <0|1>",
    "    Accepted, without effect.",
    "CRASH-AND-RECOVER [<delay-ms>]",
    "    Hard crash and restart after a <delay-ms> milliseconds delay (default 0).",
    "DICT-RESIZING <0|1>",
    "    Accepted, without effect.",
    "DIGEST",
    "    Output a hex signature representing the current DB content.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Output a hex signature of the values of all the specified keys.",
    "ERROR <string>",
    "    Return an error with <string> as message.",
    "HTSTATS <dbid> [full]",
    "    Return how full the directories of the specified database are.",
    "HTSTATS-KEY <key> [full]",
    "    Like HTSTATS but for the map of the large collection at <key>.",
    "LEAK <string>",
    "    Create a memory leak of the input string.",
    "LISTPACK <key>",
    "    Write the size of the listpack of <key> to the server log.",
    "LOADAOF",
    "    Load all keys anew from the snapshot and the log on disk.",
    "LOG <message>",
    "    Write <message> to the server log.",
    "OBJECT <key>",
    "    Show low level info about `key` and associated value.",
    "OOM",
    "    Crash the server as an out-of-memory error does.",
    "PANIC",
    "    Crash the server as a panic does.",
    "PAUSE-CRON <0|1>",
    "    Accepted, without effect.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Create <count> string keys named key:<num>, or <prefix>:<num>. Keys that",
    "    exist already stay as they are.",
    "PROTOCOL <type>",
    "    Reply with a test value of the specified type. <type> can be: string,",
    "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
    "    true, false.",
    "QUICKLIST <key> [<0|1>]",
    "    Write the size of the quicklist of <key> to the server log.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Checked, without effect.",
    "RELOAD [option ...]",
    "    Make a snapshot and load all keys anew from the disk. Valid <option> values:",
    "    * MERGE: keys in memory that are not on the disk stay if NOFLUSH is given,",
    "      and keys that are in both are taken from the disk.",
    "    * NOFLUSH: keys in memory stay; one that is on the disk too is an error.",
    "    * NOSAVE: make no snapshot, load what is on the disk.",
    "REPLICATE <string> [<string> ...]",
    "    Accepted, for there are no replicas.",
    "REPLYBUFFER <setting> <value>",
    "    Accepted, without effect.",
    "RESTART [<delay-ms>]",
    "    Graceful restart: save config, db, restart after a <delay-ms> milliseconds",
    "    delay (default 0).",
    "SDSLEN <key>",
    "    Return how long <key> and its string are.",
    "SEGFAULT",
    "    Crash the server with sigsegv.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are removed that nobody accesses.",
    "SET-DISABLE-DENY-SCRIPTS <0|1>",
    "    Whether scripts may call commands that they may not, as DEBUG PROTOCOL.",
    "SLEEP <seconds>",
    "    Stop the server for <seconds>. Decimals allowed.",
    "STRINGMATCH-LEN <pattern> <string>",
    "    Whether <string> is as the glob-style <pattern> says: 1 or 0.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table::mistake;
    use crate::session::testing::Runner;

    const ZEROS: &str = "0000000000000000000000000000000000000000";

    fn debugging() -> Runner {
        Runner::with_config("enable-debug-command yes")
    }

    #[test]
    fn declarations_are_sound_and_no_word_is_shown() {
        let Handler::Words(groups) = DEBUG.handler else { panic!("DEBUG has words") };
        for word in groups.iter().flat_map(|group| group.iter()) {
            assert_eq!(mistake(word), None);
            assert!(word.flags.has(flags::DEBUGGING), "{} would be open to everyone", word.name);
        }
        let mut t = debugging();
        assert!(t.run("COMMAND DOCS DEBUG").contains("$5 debug"));
        assert!(!t.run("COMMAND DOCS DEBUG").contains("subcommands"));
        t.run("DEBUG DIGEST");
        t.run("DEBUG ERROR x");
        assert!(t.run("INFO commandstats").contains("cmdstat_debug:calls=2,"));
    }

    #[test]
    fn it_is_refused_as_the_directive_has_it() {
        let refused = "-ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you \
                       can run it from a local connection, otherwise you need to set this option in the \
                       configuration file, and then restart the server. ";
        let mut t = Runner::with_config("enable-debug-command no");
        for line in ["DEBUG DIGEST", "DEBUG NOPE", "DEBUG HELP", "DEBUG RELOAD", "DEBUG SLEEP"] {
            assert_eq!(t.run(line), refused, "{line}");
        }
        assert_eq!(t.run("DEBUG"), "-ERR wrong number of arguments for 'debug' command ");
        t.run("MULTI");
        assert_eq!(t.run("DEBUG DIGEST"), refused);
        assert_eq!(t.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors. ");
        let mut t = Runner::with_config("enable-debug-command local");
        for (peer, is_local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::2]:1", false),
            ("?:0", false),
        ] {
            t.connect_from(peer);
            assert_eq!(t.run("DEBUG DIGEST") == format!("+{ZEROS} "), is_local, "{peer}");
        }
    }

    #[test]
    fn digests_are_those_of_redis() {
        let mut t = debugging();
        assert_eq!(t.run("DEBUG DIGEST"), format!("+{ZEROS} "));
        t.run("SET a 1");
        assert_eq!(t.run("DEBUG DIGEST"), "+943d800368fb9c0e951138f1bc0e313ac769d91f ");
        let of_a = "+b4fc66738120fba0b5aa500ab5c2bf89cea1c5da";
        assert_eq!(t.run("DEBUG DIGEST-VALUE a none"), format!("*2 {of_a} +{ZEROS} "));
        assert_eq!(t.run("debug digest-value"), "*0 ");
        // As in Redis 8: the fact that a field expires counts, but not when.
        t.run("HSET h a 1 b 2 c 3");
        t.run("HPEXPIRE h 100000000 FIELDS 2 a b");
        assert_eq!(t.run("DEBUG DIGEST-VALUE h"), "*1 +ff55046133ad607237a9fc37b70893d3308c801e ");
    }

    #[test]
    fn a_digest_tells_neither_the_form_nor_the_order_of_making() {
        let mut t = debugging();
        for line in ["SADD s:1 a b 3 4", "HSET h:1 a 1 b 2", "ZADD z:1 1 a 0.1 b -7 c", "RPUSH l:1 a b 3"] {
            t.run(line);
        }
        let forms = ["set-max-listpack-entries", "hash-max-listpack-entries", "zset-max-listpack-entries"];
        for directive in forms {
            t.run(&format!("CONFIG SET {directive} 0"));
        }
        t.run("CONFIG SET list-max-listpack-size 1");
        for line in ["SADD s:2 4 3 b a", "HSET h:2 b 2 a 1", "ZADD z:2 -7 c 0.1 b 1 a", "LPUSH l:2 3 b a"] {
            t.run(line);
        }
        for key in ["s", "h", "z", "l"] {
            let (one, other) = (format!("{key}:1"), format!("{key}:2"));
            let encodings = [&one, &other].map(|key| t.run(&format!("OBJECT ENCODING {key}")));
            assert_ne!(encodings[0], encodings[1]);
            let digests = t.run(&format!("DEBUG DIGEST-VALUE {one} {other}"));
            let digests: Vec<&str> = digests.split(' ').collect();
            assert_eq!(digests[1], digests[2], "{key}");
        }
    }

    #[test]
    fn populate_makes_what_is_not_there() {
        let mut t = debugging();
        t.run("SET p:1 mine");
        assert_eq!(t.run("DEBUG POPULATE 3 p 10"), "+OK ");
        assert_eq!(t.run("MGET p:0 p:1 p:2 p:3"), "*4 $10 value:0\0\0\0 $4 mine $10 value:2\0\0\0 $-1 ");
        assert_eq!(t.run("DEBUG POPULATE 2"), "+OK ");
        assert_eq!(t.run("DEBUG POPULATE 1 short 2"), "+OK ");
        assert_eq!(t.run("MGET key:0 key:1 short:0"), "*3 $7 value:0 $7 value:1 $2 va ");
        let long = "x".repeat(200);
        t.run(&format!("DEBUG POPULATE 1 {long}"));
        assert_eq!(t.run(&format!("GET {}", &long[..127])), "$7 value:0 ");
        let range = "-ERR value is out of range, must be positive ";
        let too_many = "-ERR OOM in dictTryExpand ";
        for (line, expected) in [
            ("-1", range),
            ("x", range),
            ("9223372036854775808", range),
            ("1 p -1", range),
            ("9223372036854775807", too_many),
            ("1000000 p 500000000", too_many),
            ("1 p 536870913", "-ERR string exceeds maximum allowed size (proto-max-bulk-len) "),
            ("1 p 1 1", "-ERR unknown subcommand or wrong number of arguments for 'POPULATE'. Try DEBUG HELP. "),
        ] {
            assert_eq!(t.run(&format!("DEBUG POPULATE {line}")), expected, "{line}");
        }
        assert_eq!(t.run("DBSIZE"), ":7 ");
    }

    #[test]
    fn words_are_checked_before_anything_is_done() {
        let mut t = debugging();
        let unknown =
            |word: &str| format!("-ERR unknown subcommand or wrong number of arguments for '{word}'. Try DEBUG HELP. ");
        for line in ["NOPE", "SLEEP", "SLEEP 0 0", "DIGEST x", "OBJECT", "help x", "LOADAOF x", "SET-ACTIVE-EXPIRE"] {
            let word = line.split(' ').next().unwrap_or(line);
            assert_eq!(t.run(&format!("DEBUG {line}")), unknown(word));
        }
        assert_eq!(t.run(&format!("DEBUG {}", "y".repeat(300))), unknown(&"y".repeat(128)));
        assert_eq!(
            t.run("DEBUG RELOAD NOSAVE x"),
            "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options. "
        );
        t.run("MULTI");
        assert_eq!(t.run("DEBUG RELOAD"), "-ERR Command not allowed inside a transaction ");
        t.run("DISCARD");
        t.run("MULTI");
        t.run("SET a 1");
        t.run("DEBUG DIGEST");
        t.run("DEBUG SLEEP 0");
        assert_eq!(t.run("EXEC"), "*3 +OK +943d800368fb9c0e951138f1bc0e313ac769d91f +OK ");
    }

    #[test]
    fn structures_are_described() {
        let mut t = debugging();
        for line in ["SET s abc", "SET n 5", "RPUSH l a b", "SADD ints 1 2", "PEXPIRE s 100000"] {
            t.run(line);
        }
        t.run(&format!("SADD large {}", "x ".to_owned() + &"member:".repeat(20)));
        t.run(&format!("RPUSH long {}", format!("{} ", "y".repeat(9000)).repeat(3)));
        assert_eq!(t.run("DEBUG LISTPACK l"), "+Listpack structure printed on stdout ");
        assert_eq!(t.run("DEBUG LISTPACK s"), "-ERR Not a listpack encoded object. ");
        assert_eq!(t.run("DEBUG LISTPACK ints"), "-ERR Not a listpack encoded object. ");
        assert_eq!(t.run("DEBUG LISTPACK none"), "-ERR no such key ");
        assert_eq!(t.run("DEBUG QUICKLIST long 1"), "+Quicklist structure printed on stdout ");
        assert_eq!(t.run("DEBUG QUICKLIST l"), "-ERR Not a quicklist encoded object. ");
        assert!(
            t.run("DEBUG SDSLEN s").starts_with("+key_sds_len:1, key_sds_avail:0, key_zmalloc: 1, val_sds_len:3, ")
        );
        assert_eq!(t.run("DEBUG SDSLEN n"), "-ERR Not an sds encoded string. ");
        let stats = t.run("DEBUG HTSTATS 0");
        assert!(stats.contains(" number of elements: 6\n") && stats.ends_with(" number of elements: 1\n "), "{stats}");
        assert_eq!(t.run("DEBUG HTSTATS 16"), "-ERR Out of range database ");
        assert_eq!(t.run("DEBUG HTSTATS -1"), "-ERR Out of range database ");
        assert!(t.run("DEBUG HTSTATS-KEY large full").contains(" number of elements: 2\n"));
        let not_a_table = "-ERR The value stored at the specified key is not represented using an hash table ";
        assert_eq!(t.run("DEBUG HTSTATS-KEY l"), not_a_table);
        assert_eq!(t.run("DEBUG CLIENT-ENFORCE-REPLY-LIST 1"), "+OK ");
    }

    #[test]
    fn patterns_are_matched() {
        let mut t = debugging();
        assert_eq!(t.run("DEBUG STRINGMATCH-LEN h[a-e]l*o hello"), ":1 ");
        assert_eq!(t.run("DEBUG STRINGMATCH-LEN h[^a-e]l*o hello"), ":0 ");
        // Redis once took exponential time here.
        let stars = "a*".repeat(30);
        assert_eq!(t.run(&format!("DEBUG STRINGMATCH-LEN {stars}b {}", "a".repeat(60))), ":0 ");
    }

    #[test]
    fn a_list_tells_how_its_chunks_are() {
        let mut t = debugging();
        let line = |t: &mut Runner, key: &str| t.run(&format!("DEBUG OBJECT {key}"));
        t.run("SET n 7");
        assert!(line(&mut t, "n").contains(" refcount:2147483647 encoding:int serializedlength:2 "));
        t.run("RPUSH short a");
        assert!(!line(&mut t, "short").contains("ql_nodes"));
        let element = "e".repeat(1000);
        t.run(&format!("RPUSH long{}", format!(" {element}").repeat(20)));
        let long = line(&mut t, "long");
        assert!(long.contains(" encoding:quicklist ") && long.contains(" ql_listpack_max:-2 "), "{long}");
        let field = |name: &str| long.split(name).nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("");
        let nodes: usize = field("ql_nodes:").parse().expect("a number");
        assert!((2..=4).contains(&nodes), "{long}");
        assert_eq!(field("ql_avg_node:"), format!("{:.2}", 20.0 / nodes as f64));
        assert_eq!(t.run("DEBUG OBJECT none"), "-ERR no such key ");
    }
}
