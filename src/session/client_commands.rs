//! CLIENT: describes, names and controls connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::format;
use crate::core::args::is;
use crate::core::client::{ClientClass, ClientRecord, ReplyMode};
use crate::core::{
    Arity, Command, CommandError, Flags, Handler, Outcome, Server, SessionCall, Table, categories, flags, help,
};
use crate::events::channels::Kind;
use crate::resp::Reply;

/// See the module.
pub static COMMANDS: &[&Command] = &[&CLIENT];

static CLIENT: Command = Command {
    name: "CLIENT",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[
        &GETNAME, &HELP, &ID, &INFO, &LIST, &NO_EVICT, &NO_TOUCH, &REPLY, &SETINFO, &SETNAME, &UNBLOCK,
    ]),
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
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "    * ID <client-id> [<client-id> ...]",
            "      Return clients of specified IDs only.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
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
    let mut line = line_of(&call.client.record, &full_names(&call.server.table), call.now);
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
    syntax: "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>@5.0.0] [ID client-id [client-id ...]@6.2.0]",
    summary: "One line about each connection.",
    ..SUBCOMMAND
};

fn list(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let args = call.args;
    let all = || call.server.clients.list();
    let chosen: Vec<Arc<ClientRecord>> = match args.get(2) {
        None => all(),
        Some(word) if is(word, "TYPE") && args.len() == 4 => {
            let class = Class::named(args.at(3))?;
            all().into_iter().filter(|record| Class::of(record) == class).collect()
        }
        Some(word) if is(word, "ID") && args.len() > 3 => {
            let id = |word| format::parse_i64(word).ok_or(CommandError::Text("ERR Invalid client ID"));
            let ids = args.from(3).map(id).collect::<Result<Vec<i64>, _>>()?;
            let all = all();
            let with_id = |id: i64| all.iter().find(|record| record.id as i64 == id).cloned();
            ids.into_iter().filter_map(with_id).collect()
        }
        Some(_) => return Err(CommandError::Syntax),
    };
    let names = full_names(&call.server.table);
    let mut text = Vec::new();
    for record in chosen {
        text.extend_from_slice(&line_of(&record, &names, call.now));
        text.push(b'\n');
    }
    Ok(reply.verbatim("txt", &text))
}

/// The classes of connections that filters know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Normal,
    Master,
    Replica,
    Pubsub,
}

impl Class {
    fn named(word: &[u8]) -> Result<Class, CommandError> {
        let known = [
            ("NORMAL", Class::Normal),
            ("MASTER", Class::Master),
            ("REPLICA", Class::Replica),
            ("SLAVE", Class::Replica),
            ("PUBSUB", Class::Pubsub),
        ];
        known
            .iter()
            .find(|(name, _)| is(word, name))
            .map(|(_, class)| *class)
            .ok_or_else(|| CommandError::echo("Unknown client type '", word, "'"))
    }

    /// There is no master here yet.
    fn of(record: &ClientRecord) -> Class {
        match record.class() {
            ClientClass::Normal => Class::Normal,
            ClientClass::Replica => Class::Replica,
            ClientClass::Pubsub => Class::Pubsub,
        }
    }
}

/// The names of commands and subcommands by [`crate::core::table::CommandEntry::index`].
fn full_names(table: &Table) -> Vec<&str> {
    let mut names = vec![""; table.indices()];
    for entry in table.entries() {
        names[entry.index] = &entry.full_name;
        for sub in entry.subcommands() {
            names[sub.index] = &sub.full_name;
        }
    }
    names
}

/// The line of CLIENT LIST, without its line end.
fn line_of(record: &ClientRecord, names: &[&str], now: i64) -> Vec<u8> {
    let seconds_since = |ms: u64| now.saturating_sub(ms as i64).max(0) / 1000;
    let last = record.last_command.load(Relaxed) as usize;
    let command = last.checked_sub(1).and_then(|index| names.get(index)).copied().unwrap_or("NULL");
    let (query, output) = (record.query_bytes.load(Relaxed), record.output_bytes.load(Relaxed));
    let queued = record.queued_bytes.load(Relaxed);
    let arguments = record.argument_bytes.load(Relaxed);
    let labels = record.labels.lock();
    let first = format!("id={} addr={} laddr={} fd={} name=", record.id, record.peer, record.local, record.fd);
    let mut line = first.into_bytes();
    line.extend_from_slice(&labels.name);
    let rest = format!(
        " age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} qbuf={query} qbuf-free=0 argv-mem={arguments} \
         multi-mem={queued} rbs=0 rbp=0 obl={output} oll=0 omem={output} tot-mem={} events={} cmd={command} user={} \
         redir=-1 resp={} lib-name=",
        seconds_since(record.created_ms),
        seconds_since(record.active_ms.load(Relaxed)),
        flags_of(record),
        record.db.load(Relaxed),
        record.subscriptions[Kind::Channel as usize].load(Relaxed),
        record.subscriptions[Kind::Pattern as usize].load(Relaxed),
        record.subscriptions[Kind::Shard as usize].load(Relaxed),
        record.queued.load(Relaxed) as i64 - 1,
        record.watching.load(Relaxed),
        record.memory(),
        if output > 0 { "rw" } else { "r" },
        if labels.user.is_empty() { "default" } else { &labels.user },
        record.resp.load(Relaxed).max(2),
    );
    line.extend_from_slice(rest.as_bytes());
    line.extend_from_slice(&labels.lib_name);
    line.extend_from_slice(b" lib-ver=");
    line.extend_from_slice(&labels.lib_ver);
    let totals = format!(
        " tot-net-in={} tot-net-out={} tot-cmds={}",
        record.total_input.load(Relaxed),
        record.total_output.load(Relaxed),
        record.total_commands.load(Relaxed),
    );
    line.extend_from_slice(totals.as_bytes());
    line
}

/// The letters of a connection's state, in Redis' order.
fn flags_of(record: &ClientRecord) -> String {
    let letters = [
        ('O', record.monitor.load(Relaxed)),
        ('P', record.class() == ClientClass::Pubsub),
        ('b', record.blocked.load(Relaxed)),
        ('x', record.queued.load(Relaxed) > 0),
        ('U', record.unix_socket),
        ('e', record.no_evict.load(Relaxed)),
        ('T', record.no_touch.load(Relaxed)),
    ];
    let set: String = letters.iter().filter(|(_, on)| *on).map(|(letter, _)| letter).collect();
    if set.is_empty() { "N".into() } else { set }
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
        server.count_error(&CommandError::Unblocked.wire());
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
        return Err(crate::session::connection_commands::BAD_NAME);
    }
    call.client.record.labels.lock().name = name.to_vec();
    Ok(reply.ok())
}

/// Whether the bytes fit into a line of CLIENT LIST without breaking it.
pub(super) fn is_label(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (b'!'..=b'~').contains(byte))
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
        assert!(line.contains("id=1 addr=127.0.0.1:1 laddr=127.0.0.1:6379 fd=8 name=me age=0 idle=0 flags=N db=0"));
        assert!(line.contains(" resp=2 lib-name=redis-py lib-ver= tot-net-in="), "{line}");
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

    #[test]
    fn labels_hold_nothing_that_would_break_a_line() {
        let mut t = Runner::new();
        assert_eq!(t.run("CLIENT GETNAME"), "$-1 ");
        assert_eq!(t.run("CLIENT SETNAME 'a b'"), format!("-{} ", crate::session::connection_commands::BAD_NAME));
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
