//! BIGKEYS: the biggest and the busiest keys, and what prefixes hold, without a scan. See [`crate::core::keystats`].

use crate::core::hotkeys::Counted;
use crate::core::keystats::{BigKey, By};
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall, args, flags};
use crate::resp::{Elements, Reply};

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&BIGKEYS];

/// How many rows are shown by default.
const SHOWN: usize = 10;

static BIGKEYS: Command = Command {
    name: "BIGKEYS",
    arity: Arity::AtLeast(1),
    flags: flags::ADMIN.or(flags::NOSCRIPT),
    handler: Handler::Session(bigkeys),
    since: "ironkeep-0.1.0",
    group: "server",
    complexity: "O(1)",
    tips: "request_policy:special response_policy:special nondeterministic_output",
    syntax: "[BYTES | ELEMENTS | CALLS | TIME | PREFIXES] [COUNT count]",
    summary: "The biggest or busiest keys, or what prefixes hold, without a scan.",
    ..Command::DEFAULT
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Biggest(By),
    Calls,
    Time,
    Prefixes,
}

const WISHES: [(&str, Wish); 5] = [
    ("BYTES", Wish::Biggest(By::Bytes)),
    ("ELEMENTS", Wish::Biggest(By::Elements)),
    ("CALLS", Wish::Calls),
    ("TIME", Wish::Time),
    ("PREFIXES", Wish::Prefixes),
];

const OFF: CommandError = CommandError::Text("ERR nothing is known of keys, because 'key-statistics' is off");

fn bigkeys(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (wish, count) = wish(&call.args.from(1).collect::<Vec<_>>())?;
    let server = call.server;
    if !server.config.settings().key_statistics {
        return Err(OFF);
    }
    let user = call.client.acting_user(server);
    let is_seen = |db: u32, key: &[u8]| user.sees_all_keys() || user.may_read(db, key);
    match wish {
        Wish::Biggest(by) => {
            let mut keys = server.keystats.biggest(&server.keyspace, by, call.now);
            keys.retain(|key| is_seen(key.db, &key.key));
            Ok(rows(reply, &keys[..keys.len().min(count)], write_big))
        }
        Wish::Calls | Wish::Time => {
            let of = if wish == Wish::Calls { server.keystats.busiest() } else { server.keystats.slowest() };
            let mut keys = of;
            keys.retain(|key| is_seen(key.db, &key.key));
            let (field, unit) = if wish == Wish::Calls { ("calls", 1) } else { ("usec", 1000) };
            let write = |row: &mut Elements<'_>, key: &Counted| write_busy(row, key, field, unit);
            Ok(rows(reply, &keys[..keys.len().min(count)], write))
        }
        Wish::Prefixes => {
            // Nobody can tell of a prefix whether all of its keys may be seen.
            let prefixes = if user.sees_all_keys() { server.keystats.prefixes() } else { Vec::new() };
            Ok(rows(reply, &prefixes[..prefixes.len().min(count)], |row, prefix| {
                let figures = prefix.figures;
                let mut map = row.map(6);
                map.bulk(b"prefix");
                match &prefix.name {
                    Some((_, name)) => map.bulk(name),
                    None => map.null(),
                }
                map.bulk(b"db");
                map.int(prefix.name.as_ref().map_or(-1, |(db, _)| i64::from(*db)));
                for (field, figure) in [
                    ("keys", figures.keys),
                    ("bytes", figures.bytes),
                    ("hits", figures.hits),
                    ("misses", figures.misses),
                ] {
                    number(&mut map, field, figure);
                }
                map.end();
            }))
        }
    }
}

/// Reads the words: what is asked for, and how many rows of it.
fn wish(words: &[&[u8]]) -> Result<(Wish, usize), CommandError> {
    let named = words.first().and_then(|word| WISHES.iter().find(|(name, _)| args::is(word, name)));
    let rest = if named.is_some() { &words[1..] } else { words };
    let wish = named.map_or(Wish::Biggest(By::Bytes), |(_, wish)| *wish);
    match rest {
        [] => Ok((wish, SHOWN)),
        [word, count] if args::is(word, "COUNT") => {
            let count = args::integer(count)?;
            let count = usize::try_from(count).ok().filter(|count| *count > 0);
            Ok((wish, count.ok_or(CommandError::Text("ERR COUNT must be greater than 0"))?))
        }
        _ => Err(CommandError::Syntax),
    }
}

fn rows<T>(reply: Reply<'_>, all: &[T], write: impl Fn(&mut Elements<'_>, &T)) -> crate::resp::Done {
    let mut rows = reply.array(all.len());
    all.iter().for_each(|row| write(&mut rows, row));
    rows.done()
}

fn number(map: &mut Elements<'_>, field: &str, number: u64) {
    map.bulk(field.as_bytes());
    map.int(i64::try_from(number).unwrap_or(i64::MAX));
}

fn write_big(rows: &mut Elements<'_>, key: &BigKey) {
    let mut map = rows.map(5);
    map.bulk(b"key");
    map.bulk(&key.key);
    number(&mut map, "db", key.db.into());
    map.bulk(b"type");
    map.bulk(key.type_name.as_bytes());
    number(&mut map, "bytes", key.bytes);
    number(&mut map, "elements", key.elements);
    map.end();
}

/// A key of a summary: the figure may be too high by at most the error.
fn write_busy(rows: &mut Elements<'_>, key: &Counted, field: &str, unit: u64) {
    let mut map = rows.map(4);
    map.bulk(b"key");
    map.bulk(&key.key);
    number(&mut map, "db", key.db.into());
    number(&mut map, field, key.count / unit);
    number(&mut map, "error", key.error / unit);
    map.end();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::super::testing::Runner;

    /// Walks over all keys, at a time at which a walk is due.
    fn walk(t: &Runner) {
        let walks = t.server.keystats.walks.load(Relaxed) as i64;
        let settings = t.server.config.settings();
        let separators = settings.key_prefix_separators.as_bytes();
        t.server.keystats.walk(&t.server.keyspace, separators, walks * 10_000, Duration::from_secs(60));
    }

    #[test]
    fn big_keys_are_shown_with_their_size_of_now() {
        let mut t = Runner::new();
        t.run("RPUSH l:1 a b c");
        t.run("SET s:1 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        walk(&t);
        let shown = t.run("BIGKEYS");
        assert!(shown.starts_with("*2 *10 $3 key $3 s:1 $2 db :0 $4 type $6 string $5 bytes :"), "{shown}");
        t.run("RPUSH l:1 d");
        let shown = t.run("BIGKEYS ELEMENTS COUNT 5");
        assert!(shown.starts_with("*1 *10 $3 key $3 l:1 ") && shown.ends_with("$8 elements :4 "), "{shown}");
        t.run("FLUSHALL");
        assert_eq!(t.run("BIGKEYS"), "*0 ");
        walk(&t);
        assert_eq!(t.run("BIGKEYS PREFIXES"), "*0 ");
    }

    #[test]
    fn prefixes_are_shown_with_their_keys() {
        let mut t = Runner::new();
        ["a:1", "a:2", "b:1", "plain"].iter().for_each(|key| drop(t.run(&format!("SET {key} value"))));
        walk(&t);
        let shown = t.run("BIGKEYS PREFIXES COUNT 9");
        assert!(shown.starts_with("*3 *12 $6 prefix $2 a: $2 db :0 $4 keys :2 $5 bytes :"), "{shown}");
        t.run("CONFIG SET key-prefix-separators /");
        walk(&t);
        assert!(t.run("BIGKEYS PREFIXES").starts_with("*1 *12 $6 prefix $0  $2 db :0 $4 keys :4 "));
    }

    #[test]
    fn names_are_shown_to_those_who_may_read_them() {
        let mut t = Runner::new();
        ["own:1", "other:1"].iter().for_each(|key| drop(t.run(&format!("SET {key} value"))));
        walk(&t);
        t.run("ACL SETUSER reader on nopass ~own:* +@all");
        t.run("AUTH reader x");
        let shown = t.run("BIGKEYS");
        assert!(shown.contains("own:1") && !shown.contains("other:1"), "{shown}");
        assert_eq!(t.run("BIGKEYS PREFIXES"), "*0 ");
    }

    #[test]
    fn words_are_checked_and_it_can_be_switched_off() {
        let mut t = Runner::new();
        assert_eq!(t.run("BIGKEYS SIZE"), "-ERR syntax error ");
        assert_eq!(t.run("BIGKEYS BYTES COUNT"), "-ERR syntax error ");
        assert_eq!(t.run("BIGKEYS BYTES COUNT 0"), "-ERR COUNT must be greater than 0 ");
        assert_eq!(t.run("BIGKEYS COUNT x"), "-ERR value is not an integer or out of range ");
        assert_eq!(t.run("BIGKEYS CALLS"), "*0 ");
        assert_eq!(t.run("BIGKEYS TIME COUNT 3"), "*0 ");
        t.run("CONFIG SET key-statistics no");
        assert!(t.run("BIGKEYS").starts_with("-ERR nothing is known of keys"));
    }
}
