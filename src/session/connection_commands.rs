//! Commands for the connection itself: protocol, password, database, closing, and waiting for durability.

use std::time::Duration;

use smallvec::smallvec;

use crate::access::log::{Context, Reason};
use crate::base::config::CompatibilityMode;
use crate::base::version::VALKEY_VERSION;
use crate::base::{clock, format};
use crate::core::args::{self, is};
use crate::core::client::Client;
use crate::core::command::Databases;
use crate::core::hooks::Hook;
use crate::core::subscriber::{NAMES_PER_STEP, Subscribing};
use crate::core::waiting;
use crate::core::{
    Arity, Command, CommandError, Handler, Outcome, Server, SessionCall, Wait, Words, categories, flags,
};
use crate::observe::info::REDIS_VERSION;
use crate::resp::{Reply, Resp};

/// See the module.
pub static COMMANDS: &[&Command] = &[&AUTH, &HELLO, &QUIT, &RESET, &SELECT, &WAIT, &WAITAOF];

const WRONG_PASSWORD: CommandError =
    CommandError::Text("WRONGPASS invalid username-password pair or user is disabled.");
/// The address has failed too often: `auth-failure-limit`.
const TOO_MANY_FAILURES: CommandError =
    CommandError::Text("ERR Too many failed logins from this address. Try again in a minute.");
/// What is refused as the name of a connection.
pub(super) const BAD_NAME: CommandError =
    CommandError::Text("ERR Client names cannot contain spaces, newlines or special characters.");

/// Whether the bytes fit into a line of CLIENT LIST without breaking it.
pub(super) fn is_label(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

static AUTH: Command = Command {
    name: "AUTH",
    arity: Arity::AtLeast(2),
    flags: HANDSHAKE,
    categories: categories::CONNECTION,
    secrets: Some(|_, at| at > 0),
    handler: Handler::Session(auth),
    group: "connection",
    complexity: "O(N)",
    syntax: "[username@6.0.0] password",
    summary: "Gives the password, and with it the right to run other commands.",
    ..Command::DEFAULT
};

/// The flags of commands that a client sends before it has authenticated.
const HANDSHAKE: crate::core::Flags =
    flags::NOSCRIPT.or(flags::LOADING).or(flags::STALE).or(flags::FAST).or(flags::NO_AUTH).or(flags::ALLOW_BUSY);

fn auth(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (user, password) = match call.args.len() {
        2 if call.server.users.default_user().needs_no_password() => {
            return Err(CommandError::Text(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                 your configuration is correct?",
            ));
        }
        2 => (&b"default"[..], call.args.at(1)),
        3 => (call.args.at(1), call.args.at(2)),
        _ => return Err(CommandError::Syntax),
    };
    match authenticate(call.server, call.client, call.args.at(0), user, password) {
        Ok(()) => Ok(reply.ok()),
        Err(error) => refuse_late(call, reply, error),
    }
}

/// Refuses a login, after `auth-failure-delay-ms`. A transaction does not wait.
fn refuse_late(call: &mut SessionCall<'_>, reply: Reply<'_>, error: CommandError) -> Outcome {
    let ms = call.server.config.settings().auth_failure_delay_ms;
    if ms == 0 || call.client.in_exec {
        return Err(error);
    }
    let error = error.wire();
    call.server.count_error(&error, false);
    call.client.wait = Some(Wait::Refused { delay: Duration::from_millis(ms), error: error.to_vec() });
    Ok(reply.withheld())
}

/// Logs in, by a command of this name.
fn authenticate(
    server: &Server,
    client: &mut Client,
    command: &[u8],
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    let (limit, now) = (server.config.settings().auth_failure_limit, clock::now_ms());
    let record = &client.record;
    let address = record.peer.rsplit_once(':').map_or(&*record.peer, |(host, _)| host);
    let is_counted = limit > 0 && !record.unix_socket;
    if is_counted && server.users.failures.lock().has_reached(address, limit, now) {
        return Err(TOO_MANY_FAILURES);
    }
    let found = server.users.authenticate(user, password);
    if found.is_none() && is_counted {
        server.users.failures.lock().count(address, now);
    }
    if server.hooks.load().has(Hook::Audit) {
        server.audit.note_login(&client.record, user, "password", found.is_some());
    }
    let Some(found) = found else {
        server.counters.access_denied_auth.add(1);
        let context = if client.in_exec { Context::Multi } else { Context::Toplevel };
        server.log_refusal(Reason::Auth, context, command, user, &client.record);
        return Err(WRONG_PASSWORD);
    };
    client.record.labels.lock().user = found.name().to_owned();
    client.user = Some(found);
    // The rules may change at this very moment.
    client.access_generation = 0;
    Ok(())
}

static HELLO: Command = Command {
    name: "HELLO",
    arity: Arity::AtLeast(1),
    flags: HANDSHAKE,
    categories: categories::CONNECTION,
    secrets: Some(|args, at| (at.max(4) - 2..at).any(|before| is(args.at(before), "AUTH"))),
    handler: Handler::Session(hello),
    since: "6.0.0",
    group: "connection",
    syntax: "[protover [AUTH username password] [SETNAME clientname]]",
    summary: "Chooses the version of the protocol, and says what the server is.",
    ..Command::DEFAULT
};

fn hello(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let resp = match call.args.get(1).map(format::parse_i64) {
        None => None,
        Some(Some(2)) => Some(Resp::V2),
        Some(Some(3)) => Some(Resp::V3),
        Some(Some(_)) => return Err(CommandError::Text("NOPROTO unsupported protocol version")),
        Some(None) => return Err(CommandError::Text("ERR Protocol version is not an integer or out of range")),
    };
    let (mut login, mut name) = (None, None);
    let mut words = Words::new(call.args, 2);
    while let Some(word) = words.next() {
        if is(word, "AUTH") && words.left() >= 2 {
            login = Some((words.value()?, words.value()?));
        } else if is(word, "SETNAME") && words.left() >= 1 {
            let wanted = words.value()?;
            if !is_label(wanted) {
                return Err(BAD_NAME);
            }
            name = Some(wanted);
        } else {
            return Err(CommandError::echo("Syntax error in HELLO option '", word, "'"));
        }
    }
    if let Some((user, password)) = login
        && let Err(error) = authenticate(call.server, call.client, call.args.at(0), user, password)
    {
        return refuse_late(call, reply, error);
    }
    if call.client.user.is_none() {
        return Err(CommandError::Text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time",
        ));
    }
    if let Some(name) = name {
        call.client.record.labels.lock().name = name.to_vec();
    }
    if let Some(resp) = resp {
        call.client.set_resp(resp);
    }
    Ok(greeting(call, reply))
}

/// Describes the server, in the version of the protocol that was just chosen.
fn greeting(call: &SessionCall<'_>, reply: Reply<'_>) -> crate::resp::Done {
    let client = &call.client;
    let mode = if call.server.cluster.is_some() { "cluster" } else { "standalone" };
    let settings = call.server.config.settings();
    let zone = &settings.availability_zone;
    let (server, version) = match settings.compatibility_mode {
        CompatibilityMode::Redis => ("redis", REDIS_VERSION),
        CompatibilityMode::Valkey => ("valkey", VALKEY_VERSION),
    };
    let mut map = reply.in_version(client.resp).map(7 + usize::from(!zone.is_empty()));
    for (name, text) in [("server", server), ("version", version)] {
        map.bulk(name.as_bytes());
        map.bulk(text.as_bytes());
    }
    map.bulk(b"proto");
    map.int(client.resp.number());
    map.bulk(b"id");
    map.int(client.record.id as i64);
    for (name, text) in [("mode", mode), ("role", "master")] {
        map.bulk(name.as_bytes());
        map.bulk(text.as_bytes());
    }
    map.bulk(b"modules");
    map.array(0).end();
    if !zone.is_empty() {
        map.bulk(b"availability_zone");
        map.bulk(zone.as_bytes());
    }
    map.done()
}

static QUIT: Command = Command {
    name: "QUIT",
    arity: Arity::AtLeast(1),
    flags: HANDSHAKE.or(flags::NOT_QUEUED).or(flags::LISTENING),
    categories: categories::CONNECTION,
    handler: Handler::Session(quit),
    group: "connection",
    summary: "Closes the connection, once everything before it has been answered.",
    ..Command::DEFAULT
};

fn quit(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    call.client.closing = true;
    Ok(reply.ok())
}

static RESET: Command = Command {
    name: "RESET",
    arity: Arity::Exactly(1),
    flags: HANDSHAKE.or(flags::NOT_QUEUED).or(flags::LISTENING),
    categories: categories::CONNECTION,
    handler: Handler::Session(reset),
    since: "6.2.0",
    group: "connection",
    summary: "Brings the connection back to the state of a new one.",
    ..Command::DEFAULT
};

fn reset(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    call.client.end_transaction();
    call.client.unwatch(&call.server.keyspace);
    call.server.end_monitoring(&call.client.record);
    call.client.track_nothing(call.server);
    call.client.reset(call.server.users.of_new_connection());
    if call.client.unsubscribe_some(call.server, NAMES_PER_STEP) {
        call.client.wait = Some(Wait::Subscribing(Subscribing::reset()));
        return Ok(reply.withheld());
    }
    Ok(reply.in_version(call.client.resp).simple("RESET"))
}

static SELECT: Command = Command {
    name: "SELECT",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE).or(flags::FAST),
    categories: categories::CONNECTION,
    databases: Databases::Named(|_| smallvec![1]),
    handler: Handler::Session(select),
    group: "connection",
    syntax: "index",
    summary: "Selects the database that the connection's next commands are about.",
    ..Command::DEFAULT
};

fn select(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let index = i32::try_from(args::integer(call.args.at(1))?).map_err(|_| {
        CommandError::OutOfRange("value is out of range, value must between -2147483648 and 2147483647")
    })?;
    if call.server.cluster.is_some() && index != 0 {
        return Err(CommandError::Text("ERR SELECT is not allowed in cluster mode"));
    }
    let index = u32::try_from(index).ok().filter(|&index| index < call.server.keyspace.databases());
    call.client.select(index.ok_or(CommandError::OutOfRange("DB index is out of range"))?);
    Ok(reply.ok())
}

static WAIT: Command = Command {
    name: "WAIT",
    arity: Arity::Exactly(3),
    categories: categories::CONNECTION,
    handler: Handler::Session(wait),
    since: "3.0.0",
    group: "generic",
    tips: "request_policy:all_shards response_policy:agg_min",
    syntax: "numreplicas timeout",
    summary: "Waits for replicas; there are none, so it waits for its time to pass.",
    ..Command::DEFAULT
};

fn wait(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let replicas = args::integer(call.args.at(1))?;
    let timeout = timeout_ms(call.args.at(2), call.now)?;
    if replicas <= 0 || call.client.in_exec {
        return Ok(reply.int(0));
    }
    call.client.wait = Some(Wait::Replicas { timeout });
    Ok(reply.withheld())
}

fn timeout_ms(word: &[u8], now: i64) -> Result<Option<Duration>, CommandError> {
    let ms = format::parse_i64(word).ok_or(CommandError::OutOfRange("timeout is not an integer or out of range"))?;
    waiting::timeout(ms, now)
}

static WAITAOF: Command = Command {
    name: "WAITAOF",
    arity: Arity::Exactly(4),
    flags: flags::NOSCRIPT,
    categories: categories::CONNECTION,
    handler: Handler::Session(waitaof),
    since: "7.2.0",
    group: "generic",
    tips: "request_policy:all_shards response_policy:agg_min",
    syntax: "numlocal numreplicas timeout",
    summary: "Waits until the connection's last write is synced to the disk.",
    ..Command::DEFAULT
};

fn waitaof(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let local = match args::integer(call.args.at(1))? {
        local @ (0 | 1) => local,
        _ => return Err(CommandError::OutOfRange("value is out of range, value must between 0 and 1")),
    };
    let replicas = format::parse_i64(call.args.at(2)).filter(|&replicas| replicas >= 0);
    let replicas = replicas.ok_or(CommandError::OutOfRange("value is out of range, must be positive"))?;
    let timeout = timeout_ms(call.args.at(3), call.now)?;
    let log = call.server.store.log();
    if local == 1 && !log.is_active() {
        return Err(CommandError::Text("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."));
    }
    let synced = i64::from(log.is_active() && log.synced() >= call.client.last_write_block);
    if local <= synced && replicas == 0 || call.client.in_exec {
        let mut both = reply.array(2);
        both.int(synced);
        both.int(0);
        return Ok(both.done());
    }
    let block = call.client.last_write_block;
    call.client.wait = Some(match replicas {
        0 => Wait::Synced { block, timeout },
        _ => Wait::LocalAndReplicas { block, timeout },
    });
    Ok(reply.withheld())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use super::*;

    const SYNTAX: &str = "-ERR syntax error ";
    const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled. ";

    #[test]
    fn hello_chooses_the_protocol_and_checks_before_it_changes_anything() {
        let mut t = Runner::new();
        let greeting = |proto| {
            format!(
                "$6 server $5 redis $7 version $5 {REDIS_VERSION} $5 proto :{proto} $2 id :1 $4 mode $10 standalone \
                 $4 role $6 master $7 modules *0 "
            )
        };
        assert_eq!(t.run("HELLO"), format!("*14 {}", greeting(2)));
        assert_eq!(t.run("HELLO 3"), format!("%7 {}", greeting(3)));
        assert_eq!(t.run("HELLO"), format!("%7 {}", greeting(3)));
        assert_eq!(t.run("HELLO 4"), "-NOPROTO unsupported protocol version ");
        assert_eq!(t.run("HELLO abc"), "-ERR Protocol version is not an integer or out of range ");
        assert_eq!(t.run("HELLO 2 FOO"), "-ERR Syntax error in HELLO option 'FOO' ");
        assert_eq!(t.run("HELLO 2 SETNAME"), "-ERR Syntax error in HELLO option 'SETNAME' ");
        assert_eq!(t.run("HELLO 2 AUTH a"), "-ERR Syntax error in HELLO option 'AUTH' ");
        assert_eq!(t.run("HELLO 2 SETNAME x AUTH a b"), WRONGPASS);
        assert_eq!(t.run("CLIENT GETNAME"), "_ ", "a HELLO that fails leaves name and protocol");
        assert!(t.run("HELLO 2 SETNAME me AUTH default any").starts_with("*14 "));
        assert_eq!(t.run("CLIENT GETNAME"), "$2 me ");
    }

    #[test]
    fn a_password_is_asked_for_in_both_forms() {
        let mut t = Runner::new();
        assert!(t.run("AUTH x").starts_with("-ERR AUTH <password> called without any password configured"));
        assert_eq!(t.run("AUTH default x"), "+OK ");
        assert_eq!(t.run("AUTH a b c"), SYNTAX);
        assert_eq!(t.run("CONFIG SET requirepass secret"), "+OK ");
        t.reconnect();
        assert!(t.run("HELLO 3").starts_with("-NOAUTH HELLO must be called with the client already authenticated"));
        assert_eq!(t.run("AUTH secre"), WRONGPASS);
        assert_eq!(t.run("AUTH secretsecret"), WRONGPASS);
        assert_eq!(t.run("AUTH nobody secret"), WRONGPASS);
        assert_eq!(t.run("AUTH secret"), "+OK ");
        assert!(t.client.user.is_some());
        assert_eq!(t.run("RESET"), "+RESET ");
        assert!(t.client.user.is_none());
        assert!(t.run("HELLO 3 AUTH default secret").starts_with("%7 "));
        assert_eq!(t.server.counters.access_denied_auth.get(), 3);
    }

    #[test]
    fn an_address_that_fails_too_often_is_refused_for_a_while() {
        let mut t = Runner::with_config("requirepass secret\nauth-failure-limit 3\n");
        for _ in 0..3 {
            assert_eq!(t.run("AUTH wrong"), WRONGPASS);
        }
        let refused = "-ERR Too many failed logins from this address. Try again in a minute. ";
        assert_eq!(t.run("AUTH secret"), refused);
        t.reconnect();
        assert_eq!(t.run("HELLO 3 AUTH default secret"), refused, "the address counts, not the connection");
        t.connect_from("10.0.0.7:1");
        assert_eq!(t.run("AUTH secret"), "+OK ");
        assert_eq!(t.run("CONFIG SET auth-failure-limit 0"), "+OK ");
        t.reconnect();
        assert_eq!(t.run("AUTH secret"), "+OK ");
        assert_eq!(t.server.counters.access_denied_auth.get(), 3);
    }

    #[test]
    fn the_refusal_of_a_login_is_held_back() {
        let mut t = Runner::with_config("requirepass secret\nauth-failure-delay-ms 300\n");
        for command in ["AUTH wrong", "HELLO 3 AUTH default wrong"] {
            assert_eq!(t.run(command), "");
            let Some(Wait::Refused { delay, error }) = t.client.wait.take() else { panic!("{command} does not wait") };
            assert_eq!(
                (delay.as_millis(), error.as_slice()),
                (300, WRONGPASS.trim_end().trim_start_matches('-').as_bytes())
            );
            assert!(t.client.user.is_none());
        }
        assert_eq!(t.run("AUTH secret"), "+OK ");
        assert!(t.client.wait.is_none());
        assert_eq!(t.run("CONFIG SET auth-failure-delay-ms 0"), "+OK ");
        assert_eq!(t.run("AUTH wrong"), WRONGPASS);
    }

    #[test]
    fn another_password_is_for_those_who_come() {
        let mut t = Runner::new();
        assert_eq!(t.run("CONFIG SET requirepass one"), "+OK ");
        assert_eq!(t.run("PING"), "+PONG ", "who is in stays in");
        t.reconnect();
        assert_eq!(t.run("PING"), "-NOAUTH Authentication required. ");
        assert_eq!(t.run("NOSUCH"), "-ERR unknown command 'NOSUCH', with args beginning with:  ");
        assert_eq!(t.run("GET"), "-ERR wrong number of arguments for 'get' command ");
        assert_eq!(t.run("AUTH one"), "+OK ");
        assert_eq!(t.run("CONFIG SET requirepass two"), "+OK ");
        assert_eq!(t.run("PING"), "+PONG ");
        t.reconnect();
        assert_eq!(t.run("AUTH one"), WRONGPASS);
        assert_eq!(t.run("PING"), "-NOAUTH Authentication required. ");
        let another = t.connection();
        let mut waiting = std::mem::replace(&mut t.client, another);
        assert_eq!(t.run("AUTH two"), "+OK ");
        assert_eq!(t.run("CONFIG SET requirepass ''"), "+OK ");
        std::mem::swap(&mut waiting, &mut t.client);
        assert_eq!(t.run("PING"), "+PONG ", "nobody is asked for a password any more");
        assert!(t.run("HELLO").starts_with("-NOAUTH HELLO must be called"), "though it has not said who it is");
        assert_eq!(t.run("AUTH default x"), "+OK ");
        assert!(t.run("HELLO").starts_with("*14 "));
    }

    #[test]
    fn select_names_what_is_wrong_with_the_index() {
        let mut t = Runner::new();
        assert_eq!(t.run("SELECT 15"), "+OK ");
        assert_eq!(t.client.db, 15);
        for index in ["16", "-1"] {
            assert_eq!(t.run(&format!("SELECT {index}")), "-ERR DB index is out of range ");
        }
        assert_eq!(t.run("SELECT a"), "-ERR value is not an integer or out of range ");
        assert_eq!(
            t.run("SELECT 99999999999"),
            "-ERR value is out of range, value must between -2147483648 and 2147483647 "
        );
        assert_eq!(t.client.db, 15);
    }

    #[test]
    fn reset_and_quit() {
        let mut t = Runner::new();
        t.run("HELLO 3 SETNAME me");
        t.run("SELECT 3");
        t.run("CLIENT NO-TOUCH on");
        assert_eq!(t.run("RESET"), "+RESET ");
        t.run("CONFIG SET availability-zone az1");
        assert!(t.run("HELLO 2").ends_with("$17 availability_zone $3 az1 "));
        assert_eq!((t.client.db, t.client.resp), (0, Resp::V2));
        assert_eq!(t.run("CLIENT GETNAME"), "$-1 ");
        assert_eq!(t.run("QUIT"), "+OK ");
        assert!(t.client.closing);
    }

    #[test]
    fn wait_answers_at_once_only_when_nothing_is_waited_for() {
        let mut t = Runner::new();
        assert_eq!(t.run("WAIT 0 0"), ":0 ");
        assert_eq!(t.run("WAIT -1 5"), ":0 ");
        assert_eq!(t.run("WAIT a b"), "-ERR value is not an integer or out of range ");
        assert_eq!(t.run("WAIT 0 b"), "-ERR timeout is not an integer or out of range ");
        assert_eq!(t.run("WAIT 0 -1"), "-ERR timeout is negative ");
        assert_eq!(t.run("WAIT 0 9223372036854775807"), "-ERR timeout is out of range ");
        assert_eq!(t.run("WAIT 1 20"), "");
        assert!(matches!(t.client.wait.take(), Some(Wait::Replicas { timeout: Some(ms) }) if ms.as_millis() == 20));
        assert_eq!(t.run("WAIT 1 0"), "");
        assert!(matches!(t.client.wait.take(), Some(Wait::Replicas { timeout: None })));
        assert_eq!(t.run("WAITAOF 2 0 0"), "-ERR value is out of range, value must between 0 and 1 ");
        assert_eq!(t.run("WAITAOF 0 a 0"), "-ERR value is out of range, must be positive ");
        assert_eq!(t.run("WAITAOF 0 0 -1"), "-ERR timeout is negative ");
        assert_eq!(
            t.run("WAITAOF 1 0 0"),
            "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled. "
        );
        assert_eq!(t.run("WAITAOF 0 0 0"), "*2 :0 :0 ");
        assert_eq!(t.run("WAITAOF 0 1 10"), "");
        assert!(matches!(t.client.wait.take(), Some(Wait::LocalAndReplicas { timeout: Some(_), .. })));
    }
}
