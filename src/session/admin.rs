//! Commands for the server as a whole: INFO, snapshots, shutdown, and a picture.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use crate::core::args::{self, is};
use crate::core::hooks::Hook;
use crate::core::server::{SavePurpose, ShutdownRequest};
use crate::core::{
    Arity, Command, CommandError, Flags, Handler, Outcome, Server, SessionCall, Wait, categories, flags,
};
use crate::durable::disk;
use crate::durable::saving::{self, Requested};
use crate::observe::info;
use crate::resp::Reply;

/// See the module.
pub static COMMANDS: &[&Command] = &[&BGREWRITEAOF, &BGSAVE, &INFO, &LASTSAVE, &LOLWUT, &SAVE, &SHUTDOWN];

/// What all of them share.
const SERVER: Command = Command { arity: Arity::Exactly(1), group: "server", ..Command::DEFAULT };

const SNAPSHOT: Flags = flags::ADMIN.or(flags::NOSCRIPT).or(flags::NO_ASYNC_LOADING);

const SAVE_RUNS: CommandError = CommandError::Text("ERR Background save already in progress");
const REWRITE_RUNS: CommandError = CommandError::Text("ERR Background append only file rewriting already in progress");

static INFO: Command = Command {
    name: "INFO",
    arity: Arity::AtLeast(1),
    flags: flags::LOADING.or(flags::STALE),
    categories: categories::DANGEROUS,
    handler: Handler::Session(info_command),
    tips: "nondeterministic_output request_policy:all_shards response_policy:special",
    syntax: "[section [section ...]]",
    summary: "Facts and counters of the server, by section.",
    ..SERVER
};

fn info_command(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let words: Vec<&[u8]> = call.args.from(1).collect();
    Ok(reply.verbatim("txt", info::report(call.server, &words, call.now).as_bytes()))
}

static LASTSAVE: Command = Command {
    name: "LASTSAVE",
    flags: flags::LOADING.or(flags::STALE).or(flags::FAST),
    categories: categories::ADMIN.or(categories::DANGEROUS),
    handler: Handler::Session(lastsave),
    tips: "nondeterministic_output",
    summary: "When the last good snapshot was made, in Unix seconds.",
    ..SERVER
};

fn lastsave(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.int(call.server.saving.last_save.load(Relaxed)))
}

static SAVE: Command = Command {
    name: "SAVE",
    flags: SNAPSHOT.or(flags::NO_MULTI),
    handler: Handler::Session(save),
    complexity: "O(N)",
    summary: "Makes a snapshot and waits for it; other connections go on.",
    ..SERVER
};

fn save(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (done, waiting) = oneshot::channel();
    check_room(call.server)?;
    match saving::request(call.server, SavePurpose::Save, false, Some(done)) {
        Requested::Busy(SavePurpose::Save) => Err(SAVE_RUNS),
        Requested::Busy(SavePurpose::Rewrite) => Err(REWRITE_RUNS),
        Requested::Started | Requested::Scheduled => {
            call.client.wait = Some(Wait::Snapshot(waiting));
            Ok(reply.withheld())
        }
    }
}

/// Refuses a snapshot for which there is no room on the disk.
fn check_room(server: &Server) -> Result<(), CommandError> {
    // A log that has failed is healed by a snapshot: that is always tried.
    if server.store.log().is_poisoned() {
        return Ok(());
    }
    disk::check_room(server).map_err(|why| CommandError::err(format_args!("There is {why}")))
}

static BGSAVE: Command = Command {
    name: "BGSAVE",
    arity: Arity::AtLeast(1),
    flags: SNAPSHOT,
    handler: Handler::Session(bgsave),
    syntax: "[SCHEDULE@3.2.2]",
    summary: "Has a snapshot made.",
    ..SERVER
};

fn bgsave(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let schedule = match call.args.len() {
        1 => false,
        2 if is(call.args.at(1), "SCHEDULE") => true,
        _ => return Err(CommandError::Syntax),
    };
    check_room(call.server)?;
    let mut requested = saving::request(call.server, SavePurpose::Save, false, None);
    if (schedule || call.client.in_exec) && requested == Requested::Busy(SavePurpose::Rewrite) {
        requested = saving::request(call.server, SavePurpose::Save, true, None);
    }
    match requested {
        Requested::Started if !call.client.in_exec => Ok(reply.simple("Background saving started")),
        // In a transaction it begins after the transaction's end.
        Requested::Started | Requested::Scheduled => Ok(reply.simple("Background saving scheduled")),
        Requested::Busy(SavePurpose::Save) => Err(SAVE_RUNS),
        Requested::Busy(SavePurpose::Rewrite) => Err(CommandError::Text(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
             schedule a BGSAVE whenever possible.",
        )),
    }
}

static BGREWRITEAOF: Command = Command {
    name: "BGREWRITEAOF",
    flags: SNAPSHOT,
    handler: Handler::Session(bgrewriteaof),
    complexity: "O(N)",
    summary: "Has the log compacted into a snapshot.",
    ..SERVER
};

fn bgrewriteaof(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    check_room(call.server)?;
    let mut requested = saving::request(call.server, SavePurpose::Rewrite, false, None);
    if requested == Requested::Busy(SavePurpose::Save) {
        requested = saving::request(call.server, SavePurpose::Rewrite, true, None);
    }
    match requested {
        Requested::Started if !call.client.in_exec => Ok(reply.simple("Background append only file rewriting started")),
        Requested::Started | Requested::Scheduled => {
            Ok(reply.simple("Background append only file rewriting scheduled"))
        }
        Requested::Busy(_) => Err(REWRITE_RUNS),
    }
}

static SHUTDOWN: Command = Command {
    name: "SHUTDOWN",
    arity: Arity::AtLeast(1),
    flags: flags::ADMIN
        .or(flags::NOSCRIPT)
        .or(flags::LOADING)
        .or(flags::STALE)
        .or(flags::NO_MULTI)
        .or(flags::ALLOW_BUSY),
    handler: Handler::Session(shutdown),
    complexity: "O(N) when saving, otherwise O(1)",
    syntax: "[NOSAVE | SAVE] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]",
    summary: "Ends the server, with everything on disk that must be.",
    ..SERVER
};

fn shutdown(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (mut save, mut nosave, mut now, mut force, mut abort) = (false, false, false, false, false);
    for word in call.args.from(1) {
        let options: [(&str, &mut bool); 5] = [
            ("SAVE", &mut save),
            ("NOSAVE", &mut nosave),
            ("NOW", &mut now),
            ("FORCE", &mut force),
            ("ABORT", &mut abort),
        ];
        let option = options.into_iter().find(|(name, _)| is(word, name));
        *option.ok_or(CommandError::Syntax)?.1 = true;
    }
    if save && nosave || abort && (save || nosave || now || force) {
        return Err(CommandError::Syntax);
    }
    if abort {
        // Without replicas to wait for, there is no period in which a shutdown could be aborted.
        return Err(CommandError::Text("ERR No shutdown in progress."));
    }
    if !nosave && call.server.hooks.load().has(Hook::Busy) {
        return Err(call.server.running_scripts.busy_error());
    }
    let (refused, answer) = oneshot::channel();
    let save = if save || nosave { Some(save) } else { None };
    call.server.shutdown.request(ShutdownRequest { save, force, restart: None, refused: Some(refused) });
    call.client.wait = Some(Wait::Shutdown(answer));
    Ok(reply.withheld())
}

static LOLWUT: Command = Command {
    name: "LOLWUT",
    arity: Arity::AtLeast(1),
    flags: flags::READONLY.or(flags::FAST),
    handler: Handler::Session(lolwut),
    since: "5.0.0",
    complexity: "",
    syntax: "[VERSION version]",
    summary: "A picture, and the version of the server.",
    ..SERVER
};

fn lolwut(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.len() >= 3 && is(call.args.at(1), "VERSION") {
        args::integer(call.args.at(2))?;
    }
    Ok(reply.verbatim("txt", keep().as_bytes()))
}

/// A keep, and its builder.
fn keep() -> String {
    format!(
        concat!(
            "         |>            |>\n",
            "      _  |  _   __   _ | _\n",
            "     | |_|_| | |  | | |_|_| |\n",
            "     |_  _  _|_|__|_|_  _  _|\n",
            "      | | || |      | || | |\n",
            "      |    | |  /\\  | |    |\n",
            "      | |  | | |..| | |  | |\n",
            "  ____|____|_|_|..|_|_|____|____\n",
            "   what is written down is kept\n\n",
            "Ironkeep ver. {} (Redis ver. {})\n",
        ),
        env!("CARGO_PKG_VERSION"),
        info::REDIS_VERSION,
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use super::*;

    #[test]
    fn info_shows_the_sections_that_were_asked_for() {
        let mut t = Runner::new();
        let headings = |text: &str| text.matches("# ").count();
        let info = t.run("INFO");
        assert_eq!(headings(&info), 14);
        for field in
            ["redis_version:7.4.7 ", "ironkeep_version:", "aof_enabled:0 ", "role:master ", "cluster_enabled:0 "]
        {
            assert!(info.contains(field), "{field}");
        }
        assert!(!info.contains("# Commandstats"));
        assert_eq!(t.run("INFO keyspace nosuch"), "$12 # Keyspace  ");
        assert_eq!(t.run("INFO nosuch"), "$0  ");
        assert_eq!(headings(&t.run("INFO all")), 19);
        assert_eq!(headings(&t.run("INFO everything")), 20);
        assert_eq!(headings(&t.run("INFO default commandstats")), 15);
        t.run("HELLO 3");
        assert_eq!(t.run("INFO KEYSPACE"), "=16 txt:# Keyspace  ");
    }

    #[test]
    fn shutdown_checks_its_words_before_it_asks_for_the_end() {
        let mut t = Runner::new();
        for wrong in ["FOO", "SAVE NOSAVE", "ABORT NOW", "SAVE FOO"] {
            assert_eq!(t.run(&format!("SHUTDOWN {wrong}")), "-ERR syntax error ");
        }
        assert_eq!(t.run("SHUTDOWN ABORT"), "-ERR No shutdown in progress. ");
        let (requests, mut asked) = tokio::sync::mpsc::unbounded_channel();
        *t.server.shutdown.requests.lock() = Some(requests);
        assert_eq!(t.run("SHUTDOWN nosave force now"), "");
        let request = asked.try_recv().expect("a request");
        assert_eq!((request.save, request.force), (Some(false), true));
        assert!(matches!(t.client.wait.take(), Some(Wait::Shutdown(_))));
        t.run("SHUTDOWN");
        assert_eq!(asked.try_recv().expect("a request").save, None);
    }

    #[test]
    fn one_snapshot_at_a_time() {
        let mut t = Runner::new();
        t.server.saving.state.lock().running = Some((SavePurpose::Save, 0));
        assert_eq!(t.run("SAVE"), "-ERR Background save already in progress ");
        assert_eq!(t.run("BGSAVE"), "-ERR Background save already in progress ");
        assert_eq!(t.run("BGSAVE SCHEDULE"), "-ERR Background save already in progress ");
        assert_eq!(t.run("BGREWRITEAOF"), "+Background append only file rewriting scheduled ");
        t.server.saving.state.lock().running = Some((SavePurpose::Rewrite, 0));
        assert!(t.run("BGSAVE").starts_with("-ERR Another child process is active (AOF?): can't BGSAVE right now."));
        assert_eq!(t.run("BGSAVE SCHEDULE"), "+Background saving scheduled ");
        assert_eq!(t.run("BGREWRITEAOF"), "-ERR Background append only file rewriting already in progress ");
        t.client.in_exec = true;
        assert_eq!(t.run("BGSAVE"), "+Background saving scheduled ");
        assert_eq!(t.run("BGREWRITEAOF"), "-ERR Background append only file rewriting already in progress ");
        for wrong in ["BGSAVE FOO", "BGSAVE SCHEDULE X"] {
            assert_eq!(t.run(wrong), "-ERR syntax error ");
        }
    }

    #[test]
    fn lolwut_ends_with_the_version() {
        let mut t = Runner::new();
        let version = format!("Ironkeep ver. {} (Redis ver. {})\n ", env!("CARGO_PKG_VERSION"), info::REDIS_VERSION);
        assert!(t.run("LOLWUT VERSION 5 1 1").ends_with(&version));
        assert_eq!(t.run("LOLWUT VERSION x"), "-ERR value is not an integer or out of range ");
    }
}
