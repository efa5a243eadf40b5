//! CONFIG: the configuration of the running server, and the application of its changes.
//!
//! Most directives are read where they matter, so storing them is enough. For the rest, `APPLIED` says what more
//! there is to do.
//!
//! Invariants:
//! - Storing a value never waits. Applying one may wait for the disk and for the closed gate: see `apply_and_commit`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::config::{ConfigError, FsyncPolicy as Configured, Prepared, Settings, is_secret};
use crate::base::tls::Offer;
use crate::base::{alloc, core_dumps, logging, oom_score};
use crate::core::{Arity, Command, CommandError, Handler, Outcome, Server, SessionCall, flags, help};
use crate::durable::saving;
use crate::observe::{crash_report, service};
use crate::persist::FsyncPolicy;
use crate::resp::Reply;
use crate::session::title;

/// See the module.
pub static COMMANDS: &[&Command] = &[&CONFIG];

static CONFIG: Command = Command {
    name: "CONFIG",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&GET, &HELP, &INFO, &RESETSTAT, &REWRITE, &SET]),
    since: "2.0.0",
    group: "server",
    complexity: "Depends on subcommand.",
    summary: "Commands about the configuration.",
    ..Command::DEFAULT
};

/// What most subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN.or(flags::NOSCRIPT).or(flags::LOADING).or(flags::STALE),
    since: "2.0.0",
    group: "server",
    ..Command::DEFAULT
};

/// What a client of a cluster must do with the subcommands that change the server.
const ON_ALL_NODES: &str = "request_policy:all_nodes response_policy:all_succeeded";

static GET: Command = Command {
    name: "GET",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(get),
    complexity: "O(N)",
    syntax: "parameter [parameter ...]",
    summary: "The values of directives, by name or by pattern.",
    ..SUBCOMMAND
};

fn get(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let patterns: Vec<&[u8]> = call.args.from(2).collect();
    let found = call.server.config.get(&patterns);
    let mut map = reply.map(found.len());
    for (name, value) in found {
        map.bulk(&name);
        map.bulk(&value);
    }
    Ok(map.done())
}

static INFO: Command = Command {
    name: "INFO",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(info),
    since: "valkey-9.2.0",
    complexity: "O(N)",
    syntax: "parameter [parameter ...]",
    summary: "What directives are, by name or by pattern: their type, their default, and whether they can be changed.",
    ..SUBCOMMAND
};

fn info(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let patterns: Vec<&[u8]> = call.args.from(2).collect();
    let described = call.server.config.describe(&patterns);
    let mut all = reply.array(described.len());
    for directive in described {
        let mut map = all.map(6 + usize::from(!directive.words.is_empty()));
        let texts: [(&[u8], &[u8]); 5] = [
            (b"name", &directive.name),
            (b"type", directive.kind.as_bytes()),
            (b"default", directive.default.as_bytes()),
            (b"value", &directive.value),
            (b"doc", directive.doc.as_bytes()),
        ];
        for (name, text) in texts {
            map.bulk(name);
            map.bulk(text);
        }
        map.bulk(b"mutable");
        map.boolean(directive.is_mutable);
        if !directive.words.is_empty() {
            map.bulk(b"values");
            let mut words = map.array(directive.words.len());
            directive.words.iter().for_each(|word| words.bulk(word.as_bytes()));
            words.end();
        }
        map.end();
    }
    Ok(all.done())
}

static SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(4),
    secrets: Some(|args, at| at > 2 && at % 2 == 1 && is_secret(args.at(at - 1))),
    handler: Handler::Session(set),
    complexity: "O(N)",
    tips: ON_ALL_NODES,
    syntax: "parameter value [parameter value ...]",
    summary: "Changes directives while the server runs: all that are named, or none.",
    ..SUBCOMMAND
};

fn set(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let words: Vec<&[u8]> = call.args.from(2).collect();
    let (pairs, []) = words.as_chunks::<2>() else { return Err(CommandError::Syntax) };
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|[name, value]| (*name, *value)).collect();
    let config = &call.server.config;
    let is_local = call.client.record.is_local();
    let change = config.prepare(&pairs, is_local).map_err(refused)?;
    // What a transaction has deferred is to come before this.
    if !needs_applying(&change) && call.client.deferred.is_empty() {
        config.commit(change);
        call.server.follow(&config.settings());
        return Ok(reply.ok());
    }
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let apply = move |server: &Arc<Server>| {
        apply_and_commit(server, &pairs, is_local).map_err(refused)?;
        server.follow(&server.config.settings());
        Ok(())
    };
    Ok(call.client.defer(reply, apply))
}

fn refused(error: ConfigError) -> CommandError {
    match error {
        ConfigError::UnknownOption(name) => {
            CommandError::echo("Unknown option or number of arguments for CONFIG SET - '", &name, "'")
        }
        other => CommandError::err(other),
    }
}

/// Why a change could not be applied: the directive at fault, and the reason.
type NotApplied = (&'static str, String);

/// Puts new settings into effect. Gets those before and after and the changed names; called with the first two
/// exchanged, it goes back.
type Apply = fn(&Arc<Server>, &Settings, &Settings, &[&'static str]) -> Result<(), NotApplied>;

/// The directives for which storing the value is not enough, in the order in which they are applied.
const APPLIED: &[(&[&str], Apply)] = &[
    (TLS, set_tls),
    (&["port", "tls-port", "bind"], listen_anew),
    (&["loglevel", "log-format", "log-timestamp-format", "hide-user-data-from-log"], set_logging),
    (&["proc-title-template", "port", "tls-port", "bind"], set_title),
    (&["crash-log-enabled"], set_crash_report),
    (&["audit-log-file", "audit-log-rules", "audit-log-keys", "audit-log-max-per-second"], set_audit),
    (&["core-dumps"], set_core_dumps),
    (&["oom-score-adj", "oom-score-adj-values"], set_oom_score),
    (&["io-threads"], enlist),
    (&["appendfsync"], set_log_policy),
    (&["appendonly"], switch_log),
];

/// The directives that make what a new TLS connection is offered.
const TLS: &[&str] = &[
    "tls-port",
    "tls-cert-file",
    "tls-key-file",
    "tls-key-file-pass",
    "tls-alt-cert-file",
    "tls-alt-key-file",
    "tls-alt-key-file-pass",
    "tls-ca-cert-file",
    "tls-ca-cert-dir",
    "tls-auth-clients",
    "tls-auth-clients-user",
    "tls-protocols",
    "tls-ciphers",
    "tls-ciphersuites",
    "tls-prefer-server-ciphers",
    "tls-session-caching",
    "tls-session-cache-size",
    "tls-session-cache-timeout",
];

fn needs_applying(change: &Prepared) -> bool {
    APPLIED.iter().any(|(names, _)| names.iter().any(|name| change.changed.contains(name)))
}

/// Changes directives for which storing is not enough: all of them, or none. It waits for the disk, for other
/// callers, and for the log's writer, which may wait for the gate. Never call it behind the closed gate.
fn apply_and_commit(server: &Arc<Server>, pairs: &[(Vec<u8>, Vec<u8>)], is_local: bool) -> Result<(), ConfigError> {
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let apply = |before: &Settings, after: &Settings, changed: &[&'static str]| {
        let wanted = APPLIED.iter().filter(|(names, _)| names.iter().any(|name| changed.contains(name)));
        wanted.into_iter().try_for_each(|(_, apply)| apply(server, before, after, changed))
    };
    server.config.set(&pairs, is_local, apply).map(drop)
}

/// Offers new connections what the settings say. A file that cannot be used changes nothing.
fn set_tls(server: &Arc<Server>, _: &Settings, after: &Settings, changed: &[&'static str]) -> Result<(), NotApplied> {
    if !after.uses_tls() {
        server.tls.set(None);
        return Ok(());
    }
    match Offer::of(after) {
        Ok(offer) => server.tls.set(Some(offer)),
        Err(problem) => {
            logging::warning(format_args!("{problem}"));
            let name = changed.iter().find(|name| TLS.contains(name)).unwrap_or(&"tls-port");
            return Err((name, "Unable to update TLS configuration. Check server logs.".to_owned()));
        }
    }
    Ok(())
}

fn listen_anew(
    server: &Arc<Server>,
    _: &Settings,
    after: &Settings,
    changed: &[&'static str],
) -> Result<(), NotApplied> {
    let Some(listen_anew) = server.listen_anew.get() else { return Ok(()) };
    listen_anew(after).map_err(|error| {
        logging::warning(format_args!("Could not create the TCP listening socket {error}"));
        match changed.contains(&"port") {
            true => ("port", "Unable to listen on this port. Check server logs.".to_owned()),
            false if changed.contains(&"tls-port") => {
                ("tls-port", "Unable to listen on this port. Check server logs.".to_owned())
            }
            false => ("bind", "Failed to bind to specified addresses.".to_owned()),
        }
    })
}

fn set_logging(_: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    logging::set_level(after.loglevel);
    logging::set_format(after.log_format, after.log_timestamp_format);
    logging::set_hides_user_data(after.hide_user_data_from_log);
    Ok(())
}

fn set_title(server: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    title::apply(after, &server.config_file).map_err(|error| ("proc-title-template", error))
}

fn set_crash_report(_: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    crash_report::set_whole(after.crash_log_enabled);
    Ok(())
}

fn set_audit(server: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    server.audit.follow(after, &server.table, &server.hooks)
}

fn set_core_dumps(_: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    core_dumps::allow(after.core_dumps).map_err(|error| ("core-dumps", error.to_string()))
}

fn set_oom_score(_: &Arc<Server>, _: &Settings, after: &Settings, changed: &[&'static str]) -> Result<(), NotApplied> {
    oom_score::set(after.oom_score_adj, after.oom_score_adj_values[0]).map_err(|error| {
        logging::warning(format_args!("Unable to write oom_score_adj: {error}"));
        let name = if changed.contains(&"oom-score-adj") { "oom-score-adj" } else { "oom-score-adj-values" };
        (name, "Failed to apply new oom_score_adj configuration, check server logs.".to_owned())
    })
}

/// Has as many workers be in service as the settings say.
fn enlist(server: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    let Some(enlist) = server.enlist.get() else { return Ok(()) };
    enlist(after.worker_count()).map_err(|error| {
        logging::warning(format_args!("Could not start a worker: {error}"));
        ("io-threads", "Unable to start the threads. Check server logs.".to_owned())
    })
}

fn set_log_policy(server: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    server.store.log().set_policy(log_policy(after.appendfsync));
    Ok(())
}

/// The policy in the log's own type.
fn log_policy(configured: Configured) -> FsyncPolicy {
    match configured {
        Configured::Always => FsyncPolicy::Always,
        Configured::EverySec => FsyncPolicy::EverySec,
        Configured::No => FsyncPolicy::No,
    }
}

/// Switches the log on or off. One that is switched on counts when this returns: the snapshot that it goes on from is
/// committed.
fn switch_log(server: &Arc<Server>, _: &Settings, after: &Settings, _: &[&'static str]) -> Result<(), NotApplied> {
    let switched = match after.appendonly {
        true => saving::begin_log(server),
        false => server.store.turn_log_off().map_err(|error| error.to_string()),
    };
    switched.map_err(|problem| ("appendonly", problem))
}

static REWRITE: Command = Command {
    name: "REWRITE",
    handler: Handler::Session(rewrite),
    since: "2.8.0",
    tips: ON_ALL_NODES,
    summary: "Writes the configuration as it is now into its file.",
    ..SUBCOMMAND
};

fn rewrite(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let work = |server: &Arc<Server>| {
        // Users that have a file of their own do not stand here as well.
        let has_file = !server.config.settings().aclfile.as_os_str().is_empty();
        let access = if has_file { Default::default() } else { server.users.words() };
        server.config.rewrite(Some(&access)).map_err(CommandError::err)
    };
    Ok(call.client.defer(reply, work))
}

static RESETSTAT: Command = Command {
    name: "RESETSTAT",
    handler: Handler::Session(resetstat),
    tips: ON_ALL_NODES,
    summary: "Sets the counters of INFO to zero.",
    ..SUBCOMMAND
};

/// A worker that counts at this very moment may write its old number back. The caller loses nothing that matters, and
/// counting stays free of locked instructions.
fn resetstat(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let server = call.server;
    server.counters.reset();
    server.memory.reset();
    for worker in &server.workers {
        worker.counters.reset();
        worker.commands.iter().for_each(|command| command.reset());
        worker.latencies.iter().for_each(|latencies| latencies.reset());
    }
    service::reset(server);
    server.keystats.reset();
    server.errors.lock().clear();
    server.cluster.iter().for_each(|cluster| cluster.usage.reset());
    server.garbage.released.freed_values.store(0, Relaxed);
    alloc::reset_peak();
    Ok(reply.ok())
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(config_help),
    since: "5.0.0",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn config_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use super::*;

    #[test]
    fn directives_are_described() {
        let mut t = Runner::new();
        let told = t.run("CONFIG INFO exec-rollback databases compatibility-mode nosuch");
        assert!(
            told.starts_with("*3 *14 $4 name $18 compatibility-mode $4 type $4 enum $7 default $5 redis "),
            "{told}"
        );
        assert!(told.contains("$7 mutable :1 $6 values *2 $5 redis $6 valkey "), "{told}");
        assert!(told.contains("*12 $4 name $9 databases $4 type $7 numeric $7 default $2 16 $5 value "), "{told}");
        assert!(told.contains("$7 mutable :0 *12 $4 name $13 exec-rollback $4 type $4 bool "), "{told}");
        t.run("CONFIG SET requirepass secret");
        assert!(!t.run("CONFIG INFO requirepass").contains("secret"));
    }

    #[test]
    fn the_mode_decides_where_redis_and_valkey_differ() {
        let mut t = Runner::new();
        assert_eq!(t.run("SCAN 0 TYPE foo"), "*2 $1 0 *0 ");
        assert_eq!(t.run("MSETEX 2 a 1 b"), "-ERR wrong number of key-value pairs ");
        assert_eq!(t.run("HOTKEYS GET"), "$-1 ");
        t.run("CONFIG SET slowlog-log-slower-than 0");
        t.run("GET k");
        assert!(t.run("SLOWLOG GET 1").starts_with("*1 *7 "));
        t.run("MULTI");
        assert_eq!(t.run("MULTI"), "-ERR MULTI calls can not be nested ");
        assert_eq!(t.run("WATCH k"), "-ERR WATCH inside MULTI is not allowed ");
        assert_eq!(t.run("EXEC"), "*0 ");
        let unnamed = "FUNCTION LOAD '#!lua name=a\nredis.register_function()'";
        let refused = "-ERR Error registering functions: ERR wrong number of arguments to redis.register_function ";
        assert_eq!(t.run(unnamed), refused);
        t.run("CONFIG SET compatibility-mode valkey");
        assert_eq!(t.run(unnamed), refused.replace("redis.", "server."));
        assert_eq!(t.run("SCAN 0 TYPE foo"), "-ERR unknown type name 'foo' ");
        assert_eq!(t.run("SCAN 0 TYPE String"), "*2 $1 0 *0 ");
        assert_eq!(t.run("MSETEX 2 a 1 b"), "-ERR syntax error ");
        assert_eq!(t.run("MSETEX x a 1"), "-ERR invalid numkeys value or out of range ");
        assert_eq!(t.run("HOTKEYS GET"), "*0 ");
        assert!(t.run("SLOWLOG GET 1").starts_with("*1 *6 "));
        let refused = [("MULTI", "multi"), ("WATCH k", "watch"), ("SAVE", "save"), ("CLIENT REPLY ON", "client|reply")];
        for (line, name) in refused {
            t.run("MULTI");
            assert_eq!(t.run(line), format!("-ERR Command '{name}' not allowed inside a transaction "));
            assert!(t.run("EXEC").starts_with("-EXECABORT "), "{line}");
        }
    }

    #[test]
    fn the_mode_decides_what_stands_for_too_many_different_errors() {
        for (mode, expected) in [
            ("redis", vec![("ERRORSTATS_DISABLED", 1)]),
            ("valkey", vec![("E0", 2), ("E127", 1), ("ERR", 1), ("ERRORSTATS_OVERFLOW", 72)]),
        ] {
            let mut t = Runner::with_config(&format!("compatibility-mode {mode}\n"));
            (0..200).for_each(|number| t.server.count_error(format!("E{number} of its own").as_bytes(), true));
            t.server.count_error(b"E0 once more", true);
            t.server.count_error(b"ERR of a command", false);
            let errors = t.run("INFO errorstats");
            let count = if mode == "valkey" { 130 } else { 1 };
            assert_eq!(errors.matches("errorstat_").count(), count, "{errors}");
            for (code, count) in expected {
                assert!(errors.contains(&format!("errorstat_{code}:count={count} ")), "{errors}");
            }
            t.run("CONFIG RESETSTAT");
            t.server.count_error(b"E200 of its own", true);
            assert!(t.run("INFO errorstats").contains("errorstat_E200:count=1 "));
        }
    }

    #[test]
    fn gets_by_name_and_pattern() {
        let mut t = Runner::new();
        assert_eq!(t.run("CONFIG GET maxmemory maxmemory"), "*2 $9 maxmemory $1 0 ");
        assert_eq!(t.run("CONFIG GET maxmemory exec-*"), "*4 $13 exec-rollback $2 no $9 maxmemory $1 0 ");
        assert_eq!(t.run("CONFIG GET nosuch"), "*0 ");
        t.run("HELLO 3");
        assert_eq!(t.run("CONFIG GET databases"), "%1 $9 databases $2 16 ");
    }

    #[test]
    fn sets_all_or_nothing() {
        let mut t = Runner::new();
        assert_eq!(t.run("CONFIG SET maxmemory 1mb lfu-log-factor 3"), "+OK ");
        assert_eq!(t.server.config.settings().maxmemory, 1 << 20);
        assert!(t.run("CONFIG SET maxmemory 2mb appendonly maybe").starts_with("-ERR CONFIG SET failed (possibly"));
        assert_eq!(t.server.config.settings().maxmemory, 1 << 20);
        assert_eq!(t.run("CONFIG SET maxmemory 1 a"), "-ERR syntax error ");
        assert_eq!(t.run("CONFIG SET maxmemory"), "-ERR wrong number of arguments for 'config|set' command ");
        assert_eq!(
            t.run("CONFIG SET nosuch 1"),
            "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch' "
        );
        assert_eq!(
            t.run("CONFIG SET maxmemory 3mb tls-port 7000"),
            "-ERR CONFIG SET failed (possibly related to argument 'tls-port') - Unable to update TLS \
             configuration. Check server logs. "
        );
        assert_eq!(t.server.config.settings().maxmemory, 1 << 20, "what another directive refuses is not stored");
        assert_eq!(t.run("CONFIG REWRITE"), "-ERR The server is running without a config file ");
    }

    #[test]
    fn the_policy_of_the_log_follows() {
        let mut t = Runner::new();
        for (word, policy) in
            [("always", FsyncPolicy::Always), ("no", FsyncPolicy::No), ("everysec", FsyncPolicy::EverySec)]
        {
            assert_eq!(t.run(&format!("CONFIG SET appendfsync {word}")), "+OK ");
            assert_eq!(t.server.store.log().policy(), policy);
        }
    }

    #[test]
    fn resetstat_forgets_what_was_counted() {
        let mut t = Runner::new();
        t.run("NOSUCH");
        t.run("CLIENT ID");
        assert!(t.run("INFO errorstats commandstats").contains("cmdstat_client|id:calls=1"));
        assert_eq!(t.run("CONFIG RESETSTAT"), "+OK ");
        let info = t.run("INFO errorstats commandstats");
        assert!(!info.contains("errorstat_") && !info.contains("client|id"), "{info}");
    }
}
