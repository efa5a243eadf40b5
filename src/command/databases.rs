//! Commands for databases as a whole: DBSIZE, FLUSHALL, FLUSHDB, SWAPDB, UNFLUSH.
//!
//! DBSIZE reads a counter. The others run alone: a flush takes directories out, a swap exchanges them, and UNFLUSH puts
//! them back. The work is per shard, not per key, but for UNFLUSH MERGE. What was taken out stays in the graveyard for
//! `flush-undo-seconds`. Then another thread frees it, for SYNC as for ASYNC.

use smallvec::smallvec;

use crate::core::command::Databases;
use crate::core::{Arity, Call, Command, CommandError, Handler, LogRule, Outcome, args, categories, flags};
use crate::keyspace::Graveyard;
use crate::resp::Reply;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&DBSIZE, &FLUSHALL, &FLUSHDB, &SWAPDB, &UNFLUSH];

static DBSIZE: Command = Command {
    name: "DBSIZE",
    arity: Arity::Exactly(1),
    flags: flags::READONLY.or(flags::FAST).or(flags::COUNTS_KEYS),
    categories: categories::KEYSPACE,
    handler: Handler::Data(dbsize),
    group: "server",
    tips: "request_policy:all_shards response_policy:agg_sum",
    summary: "Counts the keys of the selected database.",
    ..Command::DEFAULT
};

fn dbsize(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let census = call.db.keyspace().counts().of(call.db.index());
    Ok(reply.int(census.keys as i64))
}

static FLUSHALL: Command = Command {
    name: "FLUSHALL",
    arity: Arity::AtLeast(1),
    flags: flags::WRITE.or(flags::GATE),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    databases: Databases::All,
    log: LogRule::Barrier,
    handler: Handler::Data(flushall),
    group: "server",
    complexity: "O(1) while others wait: the keys are freed in the background.",
    tips: "request_policy:all_shards response_policy:all_succeeded",
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all keys of all databases.",
    ..Command::DEFAULT
};

fn flushall(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    check_flush_mode(call)?;
    match call.db.undoable_flush() {
        Some(flush) => {
            call.db.bury(None, flush);
            call.db.barrier().bury(true, flush);
        }
        None => {
            call.db.flush(None);
            call.db.barrier().flush_all();
        }
    }
    call.db.want_snapshot();
    Ok(reply.ok())
}

static FLUSHDB: Command = Command {
    name: "FLUSHDB",
    databases: Databases::Current,
    handler: Handler::Data(flushdb),
    summary: "Removes all keys of the selected database.",
    ..FLUSHALL
};

fn flushdb(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    check_flush_mode(call)?;
    let index = call.db.index();
    match call.db.undoable_flush() {
        Some(flush) => {
            call.db.bury(Some(index), flush);
            call.db.barrier().bury(false, flush);
        }
        None => {
            call.db.flush(Some(index));
            call.db.barrier().flush_db();
        }
    }
    Ok(reply.ok())
}

fn check_flush_mode(call: &Call<'_>) -> Result<(), CommandError> {
    match call.args.len() {
        1 => Ok(()),
        2 if args::is(call.args.at(1), "SYNC") || args::is(call.args.at(1), "ASYNC") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

static SWAPDB: Command = Command {
    name: "SWAPDB",
    arity: Arity::Exactly(3),
    flags: flags::WRITE.or(flags::FAST).or(flags::GATE),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    databases: Databases::Named(|_| smallvec![1, 2]),
    log: LogRule::Barrier,
    handler: Handler::Data(swapdb),
    since: "4.0.0",
    group: "server",
    complexity: "O(1): no key is touched.",
    syntax: "index1 index2",
    summary: "Exchanges the keys of two databases.",
    ..Command::DEFAULT
};

fn swapdb(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    if call.db.facts().cluster {
        return Err(CommandError::Text("ERR SWAPDB is not allowed in cluster mode"));
    }
    let number = |at, text| {
        let number = args::integer(call.args.at(at)).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or(CommandError::OutOfRange(text))
    };
    let one = number(1, "invalid first DB index")?;
    let other = number(2, "invalid second DB index")?;
    let databases = call.db.keyspace().databases();
    let within = |number: i32| u32::try_from(number).ok().filter(|&index| index < databases);
    let (Some(one), Some(other)) = (within(one), within(other)) else {
        return Err(CommandError::OutOfRange("DB index is out of range"));
    };
    call.db.swap(one, other);
    call.db.barrier().swap_dbs(one, other);
    Ok(reply.ok())
}

static UNFLUSH: Command = Command {
    name: "UNFLUSH",
    arity: Arity::AtLeast(1),
    flags: flags::WRITE.or(flags::GATE),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    databases: Databases::All,
    log: LogRule::Barrier,
    handler: Handler::Data(unflush),
    since: "ironkeep-0.1.0",
    group: "server",
    complexity: "O(1). With MERGE, O(N), where N is the number of keys since the flush, or before it if these are fewer.",
    syntax: "[MERGE | REPLACE]",
    summary: "Undoes the last FLUSHALL or FLUSHDB.",
    ..Command::DEFAULT
};

fn unflush(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let replaces = match call.args.len() {
        1 => None,
        2 if args::is(call.args.at(1), "MERGE") => Some(false),
        2 if args::is(call.args.at(1), "REPLACE") => Some(true),
        _ => return Err(CommandError::Syntax),
    };
    let now = call.db.facts().now.max(0) as u64;
    let newest = call.db.keyspace().graveyard().undoable(now);
    let Some(grave) = newest else { return Err(nothing_to_undo(&call.db.keyspace().graveyard())) };
    call.db.expire_all(|db| grave.covers(db));
    let written: usize =
        call.db.keyspace().counts().filled().filter(|(db, _)| grave.covers(*db)).map(|(_, census)| census.keys).sum();
    if replaces.is_none() && written > 0 {
        let keys = if written == 1 { "1 key was".to_owned() } else { format!("{written} keys were") };
        let of = grave.only.map_or("all databases".to_owned(), |db| format!("database {db}"));
        return Err(CommandError::Message(format!(
            "ERR {keys} written since the flush of {of}: UNFLUSH MERGE keeps what was written and adds what was \
             flushed, UNFLUSH REPLACE drops what was written"
        )));
    }
    let replaces = replaces.unwrap_or(false);
    let back = call.db.unflush(grave.id, replaces).unwrap_or(0);
    call.db.barrier().unbury(grave.id, replaces);
    Ok(reply.int(i64::try_from(back).unwrap_or(i64::MAX)))
}

/// The error where nothing can be undone at once: what to type instead.
fn nothing_to_undo(yard: &Graveyard) -> CommandError {
    let files = yard.files().map_or("DIR".to_owned(), |files| match files.contains(char::is_whitespace) {
        true => format!("'{files}'"),
        false => files.to_string(),
    });
    CommandError::Message(match yard.last_flush() {
        None => {
            format!("ERR there is no flush to be undone. What the files reach back to: ironkeep restore {files} --list")
        }
        Some(last) => {
            let to = match last.block_before {
                Some(block) => format!("block:{block}"),
                None => last.at_ms.saturating_sub(1).to_string(),
            };
            format!(
                "ERR the last flush cannot be undone at once any more. If the files still reach back to it: ironkeep \
                 restore {files} --to {to} --into NEW"
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::exec::testing::Runner;
    use crate::keyspace::SHARDS;

    /// Three keys in each of the databases 0, 1 and 2, one of the three volatile.
    fn filled() -> Runner {
        let mut t = Runner::new();
        for db in 0..3 {
            t.db = db;
            t.run("SET a 1");
            t.run("SET b 2 PX 5000");
            t.run(&format!("SET only{db} 3"));
        }
        t.db = 0;
        t
    }

    fn sizes(t: &mut Runner) -> [String; 3] {
        [0, 1, 2].map(|db| {
            t.db = db;
            t.run("DBSIZE").trim().to_owned()
        })
    }

    proptest::proptest! {
        #[test]
        fn counts_are_those_of_a_walk_whatever_happens(
            steps in proptest::collection::vec((0..20usize, 0..6u32, 0..3u32), 1..120),
        ) {
            let mut t = Runner::new();
            for (what, key, db) in steps {
                t.db = db;
                let (key, other) = (format!("k{key}"), format!("k{}", (key + 1) % 6));
                t.run(&match what {
                    0 => format!("SET {key} 1"),
                    1 => format!("SET {key} 1 PX 50"),
                    2 => format!("DEL {key}"),
                    3 => format!("RENAME {key} {other}"),
                    4 => format!("EXPIRE {key} 100"),
                    5 => format!("PERSIST {key}"),
                    6 => format!("HSET {key} f v g w"),
                    7 => format!("HPEXPIRE {key} 60 FIELDS 1 f"),
                    8 => format!("HDEL {key} f g"),
                    9 => format!("MOVE {key} {}", (db + 1) % 3),
                    10 => format!("RPUSH {key} a b c"),
                    11 => format!("LMOVE {key} {other} LEFT RIGHT"),
                    12 => format!("APPEND {key} x"),
                    13 => format!("MSET {key} 1 {other} 2"),
                    14 => format!("SWAPDB {db} {}", (db + 2) % 3),
                    15 => format!("COPY {key} {other} REPLACE"),
                    16 if key == "k0" => "FLUSHALL".into(),
                    16 => "FLUSHDB".into(),
                    18 => "UNFLUSH MERGE".into(),
                    19 => "UNFLUSH REPLACE".into(),
                    _ => format!("SINTERSTORE {key} {other} {other}"),
                });
                if what % 5 == 0 {
                    t.advance_ms(20);
                }
                crate::exec::testing::assert_counted(t.keyspace());
            }
        }
    }

    #[test]
    fn a_flush_empties_what_it_names_and_no_more() {
        let mut t = filled();
        assert_eq!(sizes(&mut t), [":3", ":3", ":3"]);
        t.db = 1;
        assert_eq!(t.run("FLUSHDB"), "+OK ");
        assert_eq!(sizes(&mut t), [":3", ":0", ":3"]);
        t.db = 1;
        t.run("SET again 1");
        t.assert_replay_equals_live();
        assert_eq!(t.run("FLUSHALL ASYNC"), "+OK ");
        assert_eq!(sizes(&mut t), [":0", ":0", ":0"]);
        t.assert_replay_equals_live();
        let nothing_expires = (0..SHARDS as u16).all(|shard| t.keyspace().earliest_expiry(shard) == u64::MAX);
        assert!(nothing_expires, "bounds of what is gone make the sweep work for nothing");
        t.take_logged();
        t.run("FLUSHDB SYNC");
        assert_eq!(t.take_logged(), [format!("BURY ONE 3 {} {}", t.now(), t.now() + 60_000)]);
    }

    #[test]
    fn a_swap_exchanges_all_keys() {
        let mut t = filled();
        t.db = 1;
        t.run("DEL a b");
        assert_eq!(t.run("SWAPDB 0 1"), "+OK ");
        assert_eq!(sizes(&mut t), [":1", ":3", ":3"]);
        t.db = 1;
        assert_eq!((t.run("EXISTS only0"), t.run("PTTL b")), (":1 ".into(), ":5000 ".into()));
        assert_eq!(t.run("SWAPDB 2 9"), "+OK ");
        assert_eq!(t.run("SWAPDB 3 3"), "+OK ");
        assert_eq!(sizes(&mut t), [":1", ":3", ":0"]);
        t.assert_replay_equals_live();
    }

    #[test]
    fn mistakes_are_noticed_in_redis_order() {
        let mut t = filled();
        t.take_logged();
        let (first, second) = ("-ERR invalid first DB index ", "-ERR invalid second DB index ");
        let (beyond, syntax) = ("-ERR DB index is out of range ", "-ERR syntax error ");
        for (line, expected) in [
            ("FLUSHALL FOO", syntax),
            ("FLUSHALL SYNC SYNC", syntax),
            ("FLUSHDB ''", syntax),
            ("SWAPDB a b", first),
            ("SWAPDB 99 b", second),
            ("SWAPDB 4294967296 0", first),
            ("SWAPDB 0 5000000000", second),
            ("SWAPDB 0 16", beyond),
            ("SWAPDB -1 0", beyond),
            ("DBSIZE 1", "-ERR wrong number of arguments for 'dbsize' command "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
        assert_eq!(t.take_logged(), [""; 0]);
        assert_eq!(sizes(&mut t), [":3", ":3", ":3"]);
    }

    /// Whether the version of a watched key rises with a command.
    fn raises(t: &mut Runner, db: u32, key: &str, line: &str) -> bool {
        let shard = t.keyspace().key(key.as_bytes()).shard();
        let before = t.keyspace().lock(shard).watched.watch(db, key.as_bytes());
        t.run(line);
        t.keyspace().lock(shard).watched.unwatch(db, key.as_bytes()) != Some(before)
    }

    #[test]
    fn watched_keys_have_changed_if_they_were_there_or_came_alive() {
        let mut t = filled();
        assert!(!raises(&mut t, 1, "a", "FLUSHDB"), "of another database");
        assert!(!raises(&mut t, 0, "a", "FLUSHDB"), "not there any more");
        let mut t = filled();
        assert!(!raises(&mut t, 0, "missing", "FLUSHALL"));
        let mut t = filled();
        assert!(raises(&mut t, 2, "a", "FLUSHALL"));
        let mut t = filled();
        assert!(raises(&mut t, 0, "only0", "SWAPDB 0 1"), "it went");
        assert!(raises(&mut t, 0, "only0", "SWAPDB 1 0"), "it came");
        assert!(raises(&mut t, 1, "a", "SWAPDB 1 0"), "it is another one");
        assert!(!raises(&mut t, 1, "a", "SWAPDB 1 1"));
        assert!(!raises(&mut t, 1, "missing", "SWAPDB 1 0"));
        assert!(!raises(&mut t, 2, "a", "SWAPDB 1 0"));
        t.advance_ms(5000);
        assert!(!raises(&mut t, 7, "b", "SWAPDB 2 7"), "what comes has expired");
    }
}
