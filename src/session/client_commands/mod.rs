//! CLIENT: describes, names and controls connections.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::args::is;
use crate::core::client::ReplyMode;
use crate::core::client_line::{full_names, line_of};
use crate::core::{
    Arity, Command, CommandError, Flags, Handler, Outcome, Server, SessionCall, categories, flags, help,
};
use crate::resp::Reply;
use crate::session::connection_commands::{BAD_NAME, is_label};

mod filter;
mod pause;

use crate::session::tracking_commands::{CACHING, GETREDIR, TRACKING, TRACKINGINFO};
use filter::{Filter, Of};

/// See the module.
pub static COMMANDS: &[&Command] = &[&CLIENT];

static CLIENT: Command = Command {
    name: "CLIENT",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[
        &CACHING,
        &CAPA,
        &GETNAME,
        &GETREDIR,
        &HELP,
        &ID,
        &IMPORT_SOURCE,
        &INFO,
        &KILL,
        &LIST,
        &NO_EVICT,
        &NO_TOUCH,
        &pause::PAUSE,
        &REPLY,
        &SETINFO,
        &SETNAME,
        &TRACKING,
        &TRACKINGINFO,
        &UNBLOCK,
        &pause::UNPAUSE,
    ]),
    flags: flags::KEEPS_CACHING,
    since: "2.4.0",
    group: "connection",
    complexity: "Depends on subcommand.",
    summary: "Commands about connections.",
    ..Command::DEFAULT
};

/// What most subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: ANYWHERE,
    categories: categories::CONNECTION,
    group: "connection",
    ..Command::DEFAULT
};

const ANYWHERE: Flags = flags::NOSCRIPT.or(flags::LOADING).or(flags::STALE);

static GETNAME: Command = Command {
    name: "GETNAME",
    handler: Handler::Session(getname),
    since: "2.6.9",
    summary: "The name of this connection.",
    ..SUBCOMMAND
};

fn getname(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let labels = call.client.record.labels.lock();
    Ok(if labels.name.is_empty() { reply.null() } else { reply.bulk(&labels.name) })
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(client_help),
    since: "5.0.0",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn client_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "CAPA <option> [options...]",
            "    Claim capabilities of the client. Options are:",
            "    * REDIRECT: the client follows redirections.",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Close the connections from an address.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Close the connections that match all options. Options are:",
            "    * TYPE (NORMAL|PRIMARY|REPLICA|PUBSUB)",
            "      Connections of this type.",
            "    * USER <username>",
            "      Connections that authenticated as this user.",
            "    * ADDR <ip:port>",
            "      Connections from this address.",
            "    * LADDR <ip:port>",
            "      Connections to this local address.",
            "    * ID <client-id> [<client-id> ...]",
            "      Connections with these ids.",
            "    * MAXAGE <maxage>",
            "      Connections of this age or older, in seconds.",
            "    * FLAGS <flags>",
            "      Connections with all of these flags.",
            "    * NAME <client-name>",
            "      Connections with this name.",
            "    * IDLE <idle>",
            "      Connections idle for this long or longer, in seconds.",
            "    * LIB-NAME <lib-name>",
            "      Connections that use this library.",
            "    * LIB-VER <lib-version>",
            "      Connections that use this version of their library.",
            "    * DB <db-id>",
            "      Connections in this database.",
            "    * CAPA <capa>",
            "      Connections with all of these capabilities.",
            "    * IP <ip>",
            "      Connections from this host.",
            "    * NOT-<option> <value>",
            "      Connections that do not match an option other than MAXAGE, IDLE and SKIPME.",
            "    * SKIPME (YES|NO)",
            "      Whether to spare the current connection (default: yes).",
            "LIST [options ...]",
            "    Return information about client connections. Options are those of KILL;",
            "    SKIPME is NO by default.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Control server assisted client side caching.",
            "TRACKINGINFO",
            "    Report tracking status for the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
            "IMPORT-SOURCE (ON|OFF)",
            "    See expired keys, while import-mode is on.",
        ],
    )
}

static ID: Command = Command {
    name: "ID",
    handler: Handler::Session(id),
    since: "5.0.0",
    summary: "The number of this connection.",
    ..SUBCOMMAND
};

fn id(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.int(call.client.record.id as i64))
}

static INFO: Command = Command {
    name: "INFO",
    handler: Handler::Session(info),
    since: "6.2.0",
    tips: "nondeterministic_output",
    summary: "The line of CLIENT LIST about this connection.",
    ..SUBCOMMAND
};

fn info(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let mut line = line_of(call.server, &call.client.record, &full_names(&call.server.table), call.now);
    line.push(b'\n');
    Ok(reply.verbatim("txt", &line))
}

static LIST: Command = Command {
    name: "LIST",
    arity: Arity::AtLeast(2),
    flags: ANYWHERE.or(flags::ADMIN),
    handler: Handler::Session(list),
    since: "2.4.0",
    complexity: "O(N)",
    tips: "nondeterministic_output",
    syntax: "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>@5.0.0] [ID client-id [client-id ...]@6.2.0] \
             [USER username] [ADDR addr] [LADDR laddr] [SKIPME <YES | NO>] [MAXAGE maxage] [NAME name] [IDLE idle] \
             [FLAGS flags] [LIB-NAME lib-name] [LIB-VER lib-ver] [DB db] [CAPA capa] [IP ip] \
             [NOT-TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [NOT-ID not-client-id [not-client-id ...]] \
             [NOT-USER not-username] [NOT-ADDR not-addr] [NOT-LADDR not-laddr] [NOT-NAME not-name] \
             [NOT-FLAGS not-flags] [NOT-LIB-NAME not-lib-name] [NOT-LIB-VER not-lib-ver] [NOT-DB not-db] \
             [NOT-CAPA not-capa] [NOT-IP not-ip]",
    summary: "One line about each connection.",
    ..SUBCOMMAND
};

fn list(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let filter = Filter::read(call.server, call.args, 2, Of::List)?;
    let names = full_names(&call.server.table);
    let mut text = Vec::new();
    for record in filter.choose(call.server, call.client.record.id, call.now) {
        text.extend_from_slice(&line_of(call.server, &record, &names, call.now));
        text.push(b'\n');
    }
    Ok(reply.verbatim("txt", &text))
}

static KILL: Command = Command {
    name: "KILL",
    arity: Arity::AtLeast(3),
    flags: ANYWHERE.or(flags::ADMIN),
    handler: Handler::Session(kill),
    since: "2.4.0",
    complexity: "O(N)",
    syntax: "<old-format | <[ID client-id [client-id ...]@2.8.12] | \
             [TYPE <NORMAL | MASTER@3.2.0 | SLAVE | REPLICA@5.0.0 | PUBSUB>@2.8.12] | [USER username] | [ADDR addr] | \
             [LADDR laddr@6.2.0] | [SKIPME <YES | NO>] | [MAXAGE maxage@7.4.0] | [NAME name] | [IDLE idle] | \
             [FLAGS flags] | [LIB-NAME lib-name] | [LIB-VER lib-ver] | [DB db] | [CAPA capa] | [IP ip] | \
             [NOT-TYPE <NORMAL | MASTER | SLAVE | REPLICA | PUBSUB>] | [NOT-ID not-client-id [not-client-id ...]] | \
             [NOT-USER not-username] | [NOT-ADDR not-addr] | [NOT-LADDR not-laddr] | [NOT-NAME not-name] | \
             [NOT-FLAGS not-flags] | [NOT-LIB-NAME not-lib-name] | [NOT-LIB-VER not-lib-ver] | [NOT-DB not-db] | \
             [NOT-CAPA not-capa] | [NOT-IP not-ip]>>",
    summary: "Closes connections.",
    ..SUBCOMMAND
};

/// The old form names one address and closes the own connection, too. The new form has filters and counts.
fn kill(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let is_old_form = call.args.len() == 3;
    let filter = match is_old_form {
        true => Filter::of_address(call.args.at(2)),
        false => Filter::read(call.server, call.args, 2, Of::Kill)?,
    };
    let own = call.client.record.id;
    let mut killed = 0;
    let mut seen = HashSet::new();
    for record in filter.choose(call.server, own, call.now) {
        if !seen.insert(record.id) {
            continue;
        }
        if record.id == own {
            // Its replies leave first.
            call.client.closing = true;
            killed += 1;
        } else if call.server.close_client(record.id) {
            killed += 1;
        }
    }
    match killed {
        0 if is_old_form => Err(CommandError::Text("ERR No such client")),
        _ if is_old_form => Ok(reply.ok()),
        _ => Ok(reply.int(killed)),
    }
}

static IMPORT_SOURCE: Command = Command {
    name: "IMPORT-SOURCE",
    arity: Arity::Exactly(3),
    handler: Handler::Session(import_source),
    since: "valkey-8.1.0",
    syntax: "<ON | OFF>",
    summary: "Has this connection see expired keys, while import-mode is on.",
    ..SUBCOMMAND
};

fn import_source(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let word = call.args.at(2);
    if !is(word, "OFF") && !call.server.config.settings().import_mode {
        return Err(CommandError::Text("ERR Server is not in import mode"));
    }
    let on = on_or_off(word)?;
    call.client.record.import_source.store(on, Relaxed);
    Ok(reply.ok())
}

static CAPA: Command = Command {
    name: "CAPA",
    arity: Arity::AtLeast(3),
    flags: ANYWHERE.or(flags::ALLOW_BUSY),
    handler: Handler::Session(capa),
    since: "valkey-8.0.0",
    syntax: "capability [capability ...]",
    summary: "Says what the client is capable of.",
    ..SUBCOMMAND
};

/// Capabilities that the server does not know are passed over, so that a newer client can claim more.
fn capa(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.from(2).any(|word| is(word, "REDIRECT")) {
        call.client.record.follows_redirects.store(true, Relaxed);
    }
    Ok(reply.ok())
}

static UNBLOCK: Command = Command {
    name: "UNBLOCK",
    arity: Arity::AtLeast(3),
    flags: ANYWHERE.or(flags::ADMIN),
    handler: Handler::Session(unblock),
    since: "5.0.0",
    complexity: "O(log N) where N is the number of client connections",
    syntax: "client-id [TIMEOUT | ERROR]",
    summary: "Ends the wait of another connection, as if its time were over or by an error.",
    ..SUBCOMMAND
};

fn unblock(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let by_error = match (call.args.get(3), call.args.len()) {
        (None, _) => false,
        (Some(how), 4) if is(how, "TIMEOUT") => false,
        (Some(how), 4) if is(how, "ERROR") => true,
        (Some(_), 4) => {
            return Err(CommandError::err("CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
        _ => return Err(unknown_subcommand(call)),
    };
    let id = u64::try_from(crate::core::args::integer(call.args.at(2))?).ok();
    let ended = id.is_some_and(|id| end_wait(call.server, id, by_error));
    Ok(reply.int(ended.into()))
}

/// Ends a connection's wait for a key or for time to pass. False if it does not wait.
fn end_wait(server: &Server, id: u64, by_error: bool) -> bool {
    let ended = answer_waiting(server, id, by_error);
    if ended && by_error {
        server.count_error(&CommandError::Unblocked.wire(), false);
    }
    ended
}

fn answer_waiting(server: &Server, id: u64, by_error: bool) -> bool {
    if let Some(waiter) = server.blocking.of_client(id) {
        let null = waiter.null;
        return server.blocking.answer(&server.keyspace, &waiter, |reply| match by_error {
            true => reply.error(&CommandError::Unblocked),
            false => null.write(reply),
        });
    }
    let unblock = server.clients.get(id).and_then(|record| record.unblock.lock().take());
    unblock.is_some_and(|unblock| unblock.send(by_error).is_ok())
}

fn unknown_subcommand(call: &SessionCall<'_>) -> CommandError {
    let given = call.args.at(1);
    CommandError::subcommand_syntax(given, "CLIENT")
}

static NO_EVICT: Command = Command {
    name: "NO-EVICT",
    arity: Arity::Exactly(3),
    flags: ANYWHERE.or(flags::ADMIN),
    handler: Handler::Session(no_evict),
    since: "7.0.0",
    syntax: "<ON | OFF>",
    summary: "Spares this connection when connections are closed for their memory.",
    ..SUBCOMMAND
};

fn no_evict(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let on = on_or_off(call.args.at(2))?;
    call.client.record.no_evict.store(on, Relaxed);
    Ok(reply.ok())
}

static NO_TOUCH: Command = Command {
    name: "NO-TOUCH",
    arity: Arity::Exactly(3),
    handler: Handler::Session(no_touch),
    since: "7.2.0",
    syntax: "<ON | OFF>",
    summary: "Leaves the access times of keys alone while this connection reads them.",
    ..SUBCOMMAND
};

fn no_touch(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let on = on_or_off(call.args.at(2))?;
    call.client.record.no_touch.store(on, Relaxed);
    Ok(reply.ok())
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match () {
        () if is(word, "ON") => Ok(true),
        () if is(word, "OFF") => Ok(false),
        () => Err(CommandError::Syntax),
    }
}

static REPLY: Command = Command {
    name: "REPLY",
    arity: Arity::Exactly(3),
    // In a transaction it would remove replies that EXEC has announced.
    flags: ANYWHERE.or(flags::NO_MULTI),
    handler: Handler::Session(reply_mode),
    since: "3.2.0",
    syntax: "<ON | OFF | SKIP>",
    summary: "Chooses whether commands are answered.",
    ..SUBCOMMAND
};

/// OFF and SKIP are not answered. The executor, which knows the mode, drops the replies of other commands.
fn reply_mode(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let word = call.args.at(2);
    if is(word, "ON") {
        call.client.reply_mode = ReplyMode::On;
        return Ok(reply.ok());
    }
    if is(word, "OFF") {
        call.client.reply_mode = ReplyMode::Off;
    } else if !is(word, "SKIP") {
        return Err(CommandError::Syntax);
    } else if call.client.reply_mode != ReplyMode::Off {
        call.client.reply_mode = ReplyMode::SkipNext;
    }
    Ok(reply.withheld())
}

static SETINFO: Command = Command {
    name: "SETINFO",
    arity: Arity::Exactly(4),
    handler: Handler::Session(setinfo),
    since: "7.2.0",
    tips: "request_policy:all_nodes response_policy:all_succeeded",
    syntax: "<LIB-NAME libname | LIB-VER libver>",
    summary: "Says which library the client uses.",
    ..SUBCOMMAND
};

fn setinfo(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (attribute, value) = (call.args.at(2), call.args.at(3));
    let mut labels = call.client.record.labels.lock();
    let label = match () {
        () if is(attribute, "LIB-NAME") => &mut labels.lib_name,
        () if is(attribute, "LIB-VER") => &mut labels.lib_ver,
        () => return Err(CommandError::echo("Unrecognized option '", attribute, "'")),
    };
    if !is_label(value) {
        let problem = "cannot contain spaces, newlines or special characters.";
        return Err(CommandError::echo("", attribute, &format!(" {problem}")));
    }
    *label = value.to_vec();
    Ok(reply.ok())
}

static SETNAME: Command = Command {
    name: "SETNAME",
    arity: Arity::Exactly(3),
    handler: Handler::Session(setname),
    since: "2.6.9",
    tips: "request_policy:all_nodes response_policy:all_succeeded",
    syntax: "connection-name",
    summary: "Names this connection; the empty name takes its name away.",
    ..SUBCOMMAND
};

fn setname(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    if !is_label(name) {
        return Err(BAD_NAME);
    }
    call.client.record.labels.lock().name = name.to_vec();
    Ok(reply.ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use super::*;

    #[test]
    fn lists_connections_with_the_filters_of_redis() {
        let mut t = Runner::new();
        t.run("CLIENT SETNAME me");
        t.run("CLIENT SETINFO lib-name redis-py");
        // The counters of commands and bytes differ from one call to the next.
        let steady = |reply: String| reply.split(" tot-net-in=").next().map(str::to_owned);
        let line = t.run("CLIENT LIST");
        assert!(
            line.contains("id=1 addr=127.0.0.1:1 laddr=127.0.0.1:6379 fd=8 name=me age=0 idle=0 flags=N capa= db=0")
        );
        assert!(line.contains(" resp=2 lib-name=redis-py lib-ver= io-thread=0 tot-net-in="), "{line}");
        let line = steady(line);
        assert_eq!(steady(t.run("CLIENT LIST TYPE normal")), line);
        assert_eq!(t.run("CLIENT LIST TYPE pubsub"), "$0  ");
        assert_eq!(steady(t.run("CLIENT LIST ID 7 1")), line);
        assert_eq!(t.run("CLIENT LIST TYPE foo"), "-ERR Unknown client type 'foo' ");
        assert_eq!(t.run("CLIENT LIST ID 1 a"), "-ERR Invalid client ID ");
        for wrong in ["CLIENT LIST ID", "CLIENT LIST FOO", "CLIENT LIST TYPE", "CLIENT LIST TYPE normal x"] {
            assert_eq!(t.run(wrong), "-ERR syntax error ");
        }
        t.run("HELLO 3");
        let info = t.run("CLIENT INFO");
        assert!(info.starts_with('=') && info.contains(" txt:id=1 addr="), "{info}");
    }

    /// The filters, and how many of three connections each chooses: `me` with a library, `you` that can follow
    /// redirections and is in database 3, and the asking one, which has no label.
    #[test]
    fn filters_choose_by_every_trait_and_its_opposite() {
        let mut t = Runner::new();
        for lines in [
            &["CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME lib", "CLIENT SETINFO LIB-VER 7"][..],
            &["CLIENT SETNAME you", "CLIENT CAPA foo Redirect", "SELECT 3", "MULTI", "GET k"],
            &[],
        ] {
            t.connect_from(&format!("10.0.0.{}:77", lines.len()));
            for line in lines {
                t.run(line);
            }
        }
        // The first connection of the runner has ended in the tests only: it is in no list.
        t.server.close_client(1);
        let count = |t: &mut Runner, filter: &str| t.run(&format!("CLIENT LIST {filter}")).matches("id=").count();
        for (filter, chosen) in [
            ("", 3),
            ("SKIPME yes", 2),
            ("SKIPME yes SKIPME no", 3),
            ("NAME me", 1),
            ("NAME Me", 0),
            ("NAME ''", 0),
            ("NOT-NAME me", 2),
            ("not-name me not-name you", 2),
            ("NAME me NOT-NAME me", 0),
            ("LIB-NAME lib", 1),
            ("NOT-LIB-NAME lib", 2),
            ("LIB-VER 7", 1),
            ("NOT-LIB-VER 7", 2),
            ("DB 3", 1),
            ("NOT-DB 3", 2),
            ("CAPA r", 1),
            ("CAPA ''", 3),
            ("NOT-CAPA r", 2),
            ("FLAGS x", 1),
            ("FLAGS N", 2),
            ("FLAGS xb", 0),
            ("NOT-FLAGS x", 2),
            ("IP 10.0.0.3", 1),
            ("NOT-IP 10.0.0.3", 2),
            ("ADDR 10.0.0.5:77", 1),
            ("ADDR 10.0.0.5", 0),
            ("NOT-ADDR 10.0.0.5:77", 2),
            ("LADDR 127.0.0.1:6379", 3),
            ("NOT-LADDR 127.0.0.1:6379", 0),
            ("USER default", 3),
            ("NOT-USER default", 0),
            ("TYPE normal", 3),
            ("NOT-TYPE pubsub TYPE primary", 0),
            ("ID 2 3 ID 4", 3),
            ("ID 2 99 2", 2),
            ("NOT-ID 2 3", 1),
            ("ID 2 3 NAME you", 1),
            ("MAXAGE 1000", 0),
            ("IDLE 1000", 0),
        ] {
            assert_eq!(count(&mut t, filter), chosen, "{filter}");
        }
    }

    #[test]
    fn a_wrong_filter_is_refused_in_the_words_of_redis_and_valkey() {
        let mut t = Runner::new();
        for (filter, error) in [
            ("ID abc", "client-id should be greater than 0"),
            ("ID 0", "client-id should be greater than 0"),
            ("ID 1 -1", "client-id should be greater than 0"),
            ("ID 99 abc", "syntax error"),
            ("TYPE foo", "Unknown client type 'foo'"),
            ("USER nouser", "No such user 'nouser'"),
            ("NOT-USER nouser", "No such user 'nouser'"),
            ("SKIPME maybe", "syntax error"),
            ("NOT-SKIPME yes", "syntax error"),
            ("MAXAGE abc", "maxage is not an integer or out of range"),
            ("MAXAGE 0", "maxage should be greater than 0"),
            ("IDLE abc", "idle is not an integer or out of range"),
            ("IDLE -5", "idle should be greater than 0"),
            ("NOT-MAXAGE 5", "syntax error"),
            ("NOT-IDLE 5", "syntax error"),
            ("FLAGS q", "Unknown flags found in the provided filter: q"),
            ("NOT-FLAGS q", "Unknown flags found in the NOT-FLAGS filter: q"),
            ("CAPA redirect", "Unknown capa found in the provided filter: redirect"),
            ("NOT-CAPA foo", "Unknown capa found in the NOT-CAPA filter: foo"),
            ("DB abc", "DB is not an integer or out of range"),
            ("DB 16", "DB number should be between 0 and 15"),
            ("FOO bar", "syntax error"),
            ("ADDR a LADDR", "syntax error"),
        ] {
            assert_eq!(t.run(&format!("CLIENT KILL {filter}")), format!("-ERR {error} "), "{filter}");
        }
        assert_eq!(t.run("CLIENT KILL 1.2.3.4:5"), "-ERR No such client ");
        assert_eq!(t.run("CLIENT KILL ID 99"), ":0 ");
        assert_eq!(t.run("CLIENT LIST ID 1 abc"), "-ERR Invalid client ID ");
        assert_eq!(t.run("CLIENT LIST ID 1 TYPE foo"), "-ERR Unknown client type 'foo' ");
    }

    #[test]
    fn a_killed_connection_is_in_no_list_and_the_own_one_closes_after_its_reply() {
        let mut t = Runner::new();
        let other = t.connection();
        assert_eq!(t.run("CLIENT KILL TYPE normal"), ":1 ");
        assert!(other.record.killed.load(Relaxed));
        assert_eq!(t.run("CLIENT LIST").matches("id=").count(), 1);
        assert_eq!(t.run("CLIENT KILL ID 2"), ":0 ");
        assert_eq!(t.run("CLIENT KILL ID 1"), ":0 ", "it spares itself");
        assert!(!t.client.closing);
        assert_eq!(t.run("CLIENT KILL ID 1 1 SKIPME no"), ":1 ");
        assert!(t.client.closing);
        t.reconnect();
        assert_eq!(t.run("CLIENT KILL 127.0.0.1:1"), "+OK ");
        assert!(t.client.closing);
    }

    #[test]
    fn labels_hold_nothing_that_would_break_a_line() {
        let mut t = Runner::new();
        assert_eq!(t.run("CLIENT GETNAME"), "$-1 ");
        assert_eq!(t.run("CLIENT SETNAME 'a b'"), format!("-{} ", BAD_NAME));
        assert_eq!(t.run("CLIENT SETNAME ab"), "+OK ");
        assert_eq!(t.run("CLIENT GETNAME"), "$2 ab ");
        assert_eq!(t.run("CLIENT SETNAME ''"), "+OK ");
        assert_eq!(t.run("CLIENT GETNAME"), "$-1 ");
        assert_eq!(t.run("CLIENT SETINFO foo x"), "-ERR Unrecognized option 'foo' ");
        assert_eq!(
            t.run("CLIENT SETINFO lib-ver 'a b'"),
            "-ERR lib-ver cannot contain spaces, newlines or special characters. "
        );
    }

    #[test]
    fn switches_take_on_and_off_alone() {
        let mut t = Runner::new();
        for command in ["NO-EVICT", "NO-TOUCH"] {
            assert_eq!(t.run(&format!("CLIENT {command} maybe")), "-ERR syntax error ");
            assert_eq!(t.run(&format!("CLIENT {command} on")), "+OK ");
        }
        assert!(t.run("CLIENT INFO").contains(" flags=eT "));
        assert_eq!(t.run("CLIENT NO-EVICT off"), "+OK ");
        assert!(t.run("CLIENT INFO").contains(" flags=T "));
        assert_eq!(t.run("CLIENT REPLY maybe"), "-ERR syntax error ");
        assert_eq!(t.run("CLIENT REPLY skip"), "");
        assert_eq!(t.client.reply_mode, ReplyMode::Skip, "the command itself is already passed over");
        assert_eq!(t.run("CLIENT ID"), "");
        assert_eq!(t.run("CLIENT ID"), ":1 ");
        assert_eq!(t.run("CLIENT REPLY off"), "");
        assert_eq!(t.run("CLIENT REPLY skip"), "");
        assert_eq!(t.client.reply_mode, ReplyMode::Off, "what is off stays off");
        assert_eq!(t.run("CLIENT REPLY on"), "+OK ");
    }

    #[test]
    fn a_transaction_answers_all_of_its_commands() {
        let mut t = Runner::new();
        for mode in ["on", "off", "skip"] {
            t.run("MULTI");
            let refused = t.run(&format!("CLIENT REPLY {mode}"));
            assert_eq!(refused, "-ERR Command not allowed inside a transaction ");
            assert!(t.run("EXEC").starts_with("-EXECABORT"));
        }
        assert_eq!(t.client.reply_mode, ReplyMode::On);
    }
}
