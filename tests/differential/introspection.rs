//! Where only the form can be compared: the fields of INFO, of CLIENT INFO, the list of commands.

use crate::compare::Pair;
use crate::support::client::Client;
use crate::support::reply::Reply;
use crate::support::server::{Recipe, Server};
use std::collections::{BTreeMap, BTreeSet};

fn sections(info: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = String::new();
    for line in info.split("\r\n").filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(name) => current = name.to_owned(),
            None => {
                let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("not a field: {line}"));
                let twice = sections.entry(current.clone()).or_default().insert(field.to_owned(), value.to_owned());
                assert!(twice.is_none(), "{field} stands twice in {current}");
            }
        }
    }
    sections
}

fn info(server: &Server, section: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    sections(&server.client().ok(&format!("INFO {section}")).string())
}

#[test]
fn info_has_the_sections_and_fields_of_redis() {
    let pair = Pair::with_threads(1);
    for server in [&pair.reference, &pair.tested] {
        let mut client = server.client();
        for line in ["SET k v", "SET volatile v EX 1000", "GET k", "GET missing"] {
            client.line(line);
        }
    }
    let (reference, tested) = (info(&pair.reference, ""), info(&pair.tested, ""));
    let mut missing = Vec::new();
    for (section, fields) in &reference {
        for field in fields.keys() {
            if !tested.get(section).is_some_and(|fields| fields.contains_key(field)) {
                missing.push(format!("{section}: {field}"));
            }
        }
    }
    assert!(missing.is_empty(), "INFO lacks\n    {}", missing.join("\n    "));
}

#[test]
fn info_selects_sections() {
    let server = Recipe::under_test().start();
    for (asked, title) in [
        ("server", "Server"),
        ("CLIENTS", "Clients"),
        ("memory", "Memory"),
        ("persistence", "Persistence"),
        ("stats", "Stats"),
        ("replication", "Replication"),
        ("cpu", "CPU"),
    ] {
        let sections = info(&server, asked);
        assert_eq!(sections.keys().collect::<Vec<_>>(), [title], "INFO {asked}");
    }
    let two: Vec<String> = info(&server, "server cpu").into_keys().collect();
    assert_eq!(two, ["CPU", "Server"]);
}

#[test]
fn info_counts() {
    let server = Recipe::under_test().start();
    let mut client = server.client();
    client.ok("CONFIG RESETSTAT");
    for line in ["SET k v", "SET l v EX 1000", "GET k", "GET k", "GET missing", "SET k w", "DEL k"] {
        client.ok(line);
    }
    client.line("FOO");
    client.ok("SELECT 3");
    client.ok("SET m v");
    let other = server.client();
    let fields = info(&server, "everything");
    let number = |section: &str, field: &str| -> i64 {
        let value = &fields[section][field];
        value.parse().unwrap_or_else(|_| panic!("{section} {field} is {value}"))
    };
    drop(other);
    assert_eq!(number("Stats", "keyspace_hits"), 2);
    assert_eq!(number("Stats", "keyspace_misses"), 1);
    assert_eq!(number("Stats", "expired_keys"), 0);
    assert!(number("Stats", "total_commands_processed") >= 9);
    assert!(number("Stats", "total_connections_received") >= 1);
    assert!(number("Stats", "total_error_replies") >= 1);
    assert!(number("Clients", "connected_clients") >= 2);
    assert!(number("Memory", "used_memory") > 0);
    assert!(number("Server", "process_id") == i64::from(server.id()));
    assert!(number("Server", "tcp_port") == i64::from(server.port()));
    let average = fields["Keyspace"]["db0"].strip_prefix("keys=1,expires=1,avg_ttl=").and_then(|ttl| ttl.parse().ok());
    assert!(average.is_some_and(|ttl: u64| (1..=1_000_000).contains(&ttl)), "{:?}", fields["Keyspace"]);
    assert!(fields["Keyspace"]["db3"].starts_with("keys=1,expires=0,avg_ttl=0"), "{:?}", fields["Keyspace"]);
}

/// `CLIENT INFO` and `CLIENT LIST`: one line a client, Redis' fields, true values.
#[test]
fn client_lines() {
    let pair = Pair::with_threads(2);
    let line = |server: &Server| {
        let mut client = server.client();
        client.ok("CLIENT SETNAME tester");
        client.ok("SELECT 5");
        client.ok("CLIENT INFO").string()
    };
    let names = |line: &str| -> BTreeSet<String> {
        line.split_whitespace().map(|field| field.split('=').next().unwrap_or_default().to_owned()).collect()
    };
    let (reference, tested) = (line(&pair.reference), line(&pair.tested));
    let missing: Vec<String> = names(&reference).difference(&names(&tested)).cloned().collect();
    assert!(missing.is_empty(), "CLIENT INFO lacks {missing:?}: {tested}");
    for field in ["name=tester", "db=5", "user=default", "cmd=client|info", "resp=2", "sub=0", "multi=-1"] {
        assert!(tested.split_whitespace().any(|found| found == field), "{field} is not in {tested}");
    }

    let mut first = pair.tested.client();
    let mut second = pair.tested.client();
    let ids = [first.ok("CLIENT ID").integer(), second.ok("CLIENT ID").integer()];
    assert!(ids[0] < ids[1], "{ids:?}");
    let list = first.ok(&format!("CLIENT LIST ID {} {}", ids[0], ids[1])).string();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.lines().all(|line| line.starts_with("id=")), "{list}");
    assert!(list.ends_with('\n'), "{list:?}");
}

/// Every command that the server names is described, and COMMAND COUNT agrees.
#[test]
fn the_command_table_agrees_with_itself() {
    let server = Recipe::under_test().start();
    let mut client = server.client();
    let count = client.ok("COMMAND COUNT").integer();
    let Reply::Aggregate(_, all) = client.ok("COMMAND") else { panic!("COMMAND gives an array") };
    assert_eq!(count, i64::try_from(all.len()).expect("few commands"));
    let Reply::Aggregate(_, names) = client.ok("COMMAND LIST") else { panic!("COMMAND LIST gives an array") };
    let described: BTreeSet<String> = all.iter().map(|entry| entry.elements()[0].string()).collect();
    // COMMAND LIST also names subcommands, as `container|name`.
    let names: BTreeSet<String> = names.iter().map(Reply::string).filter(|name| !name.contains('|')).collect();
    assert_eq!(names, described);
    for name in names {
        let docs = client.ok(&format!("COMMAND DOCS {name}"));
        assert_eq!(docs.elements().len(), 2, "COMMAND DOCS {name}");
    }
}

/// The commands of this stage are all there.
#[test]
fn the_commands_of_redis_are_there() {
    const COMMANDS: &str = "\
        append auth bgrewriteaof bgsave client command config copy dbsize decr decrby del echo exists expire \
        expireat expiretime flushall flushdb get getdel getex getrange getset hello incr incrby incrbyfloat \
        info keys lastsave lcs lolwut mget move mset msetnx object persist pexpire pexpireat pexpiretime \
        ping psetex pttl quit randomkey rename renamenx reset save scan select set setex setnx setrange \
        shutdown strlen substr swapdb time touch ttl type unlink wait waitaof";
    let server = Recipe::under_test().start();
    let names: BTreeSet<String> =
        server.client().ok("COMMAND LIST").elements().iter().map(|name| name.string().to_lowercase()).collect();
    let missing: Vec<&str> = COMMANDS
        .split_whitespace()
        .filter(|name| !names.contains(*name))
        // A stand-in of an older version has no WAITAOF.
        .filter(|name| !(Recipe::is_stand_in() && *name == "waitaof"))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

/// What INFO says was processed, called and refused, and which errors there were.
fn statistics(client: &mut Client) -> BTreeMap<String, String> {
    let info = client.ok("INFO everything").string();
    let wanted = ["total_commands_processed", "total_error_replies", "errorstat_", "cmdstat_"];
    let rows = info.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    rows.filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            let counts = value.split(',').filter(|part| !part.starts_with("usec") && !part.starts_with("slow"));
            (name.to_owned(), counts.collect::<Vec<_>>().join(","))
        })
        .collect()
}

/// Commands of scripts and of transactions count like others, each error once, and a run that is repeated does not.
#[test]
fn scripts_and_transactions_are_counted() {
    let eval = |text: &'static str| vec!["EVAL", text, "1", "str"];
    let library = "#!lua name=l\nredis.register_function('f', function() return redis.call('INCR', 'str') end)\n\
                   redis.register_function('g', function() return redis.error_reply('X y') end)\n\
                   redis.register_function('h', function() redis.pcall('INCR', 'str') return redis.call('KEYS', '*') end)";
    let alone = [
        eval("redis.call('SET', 'a', 1) redis.call('GET', 'a') return 1"),
        eval("return redis.error_reply('X y')"),
        eval("return redis.error_reply('-Xy')"),
        eval("return redis.error_reply('acodethatismuchtoolongforacodeinstatistics y')"),
        eval("return {err='X y'}"),
        eval("return {1, {err='X y'}, {err='Z'}}"),
        eval("return {1, redis.pcall('INCR', 'str'), 2}"),
        eval("error('boom')"),
        eval("error({err='X y'})"),
        eval("redis.call('INCR', 'str')"),
        eval("redis.pcall('INCR', 'str') return 1"),
        eval("return redis.pcall('INCR', 'str')"),
        eval("local e = redis.pcall('INCR', 'str') error(e)"),
        eval("pcall(function() redis.call('INCR', 'str') end) return 1"),
        eval("local ok, e = pcall(redis.call, 'INCR', 'str') return redis.error_reply(e)"),
        eval("return redis.pcall('INCR', 'str').ignore_error_stats_update and 1 or 0"),
        eval("redis.call('LPUSH', 'str', 1)"),
        eval("redis.call('NOSUCH')"),
        eval("redis.pcall('GET') return 1"),
        eval("redis.call('SUBSCRIBE', 'x')"),
        eval("redis.call()"),
        eval("#!lua flags=no-writes\nreturn redis.call('SET', 'a', 1)"),
        eval("return ("),
        // These need more than their key, and run again.
        eval("redis.call('INCR', 'a') redis.call('GET', 'nope') redis.pcall('INCR', KEYS[1]) redis.call('KEYS', '*')"),
        eval("redis.call('GET', 'nope') redis.call('NOSUCH', redis.call('KEYS', '*')[1])"),
        vec!["EVAL_RO", "redis.pcall('SET', 'a', 1) return 1", "0"],
        vec!["EVAL", "return 1", "5"],
        vec!["EVALSHA", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "0"],
        vec!["GET"],
        vec!["NOSUCH"],
        vec!["INCR", "str"],
        vec!["EXEC"],
    ];
    let mut cases: Vec<Vec<Vec<&str>>> = alone.into_iter().map(|words| vec![words]).collect();
    let multi = |queued: &[Vec<&'static str>]| [&[vec!["MULTI"]], queued, &[vec!["EXEC"]]].concat();
    cases.push(multi(&[vec!["SET", "a", "1"], vec!["INCR", "str"], vec!["GET", "a"]]));
    cases.push(multi(&[vec!["SET", "a"], vec!["NOSUCH"], vec!["SET", "a", "1"]]));
    cases.push(multi(&[eval("redis.call('INCR', 'str')"), eval("return {err='X y'}"), eval("return 1")]));
    cases.push([vec![vec!["WATCH", "str"], vec!["SET", "str", "y"]], multi(&[vec!["GET", "str"]])].concat());
    cases.push(["f", "g", "h", "none"].map(|name| vec!["FCALL", name, "1", "str"]).into());
    let pair = Pair::with_threads(2);
    let (mut ours, mut theirs) = (pair.tested.client(), pair.reference.client());
    let mut wrong = Vec::new();
    for case in &cases {
        let [ours, theirs] = [&mut ours, &mut theirs].map(|client| {
            client.ok("FLUSHALL");
            client.ok("SET str x");
            client.call(&["FUNCTION", "LOAD", "REPLACE", library]);
            client.ok("CONFIG RESETSTAT");
            case.iter().for_each(|words| drop(client.call(words)));
            (statistics(client), client.ok("INFO stats").string())
        });
        if ours.0 != theirs.0 {
            wrong.push(format!("{case:?}\n    ours   {:?}\n    theirs {:?}", ours.0, theirs.0));
        }
        let misses = |info: &str| info.lines().find(|line| line.starts_with("keyspace_misses")).map(str::to_owned);
        assert_eq!(misses(&ours.1), misses(&theirs.1), "{case:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
