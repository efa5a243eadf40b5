//! BLESS: keys that eviction must leave alone.
//!
//! Protection belongs to the key, not to its value: it stays when the value is overwritten, goes with RENAME, COPY and
//! MOVE, and ends when the key does. DUMP does not carry it. `value/directory/blessed.rs` keeps it; the log has the
//! verbs BLESS and UNBLESS for it, and a snapshot a mark before the key.

use super::scan::{Page, parse_count, parse_cursor, walk};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::keyspace::Directory;
use crate::resp::Reply;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&BLESS];

/// About how many keys BLESS SCAN visits by default.
const SCAN_COUNT_DEFAULT: usize = 1024;
/// The only kind of protection.
const NO_EVICT: &str = "NO-EVICT";

static BLESS: Command = Command {
    name: "BLESS",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&CLEAR, &GET, &SCAN, &SET]),
    since: "8.12.0",
    complexity: "Depends on subcommand.",
    summary: "A container for commands that protect keys from eviction.",
    ..Command::DEFAULT
};

static SET: Command = Command {
    name: "SET",
    arity: Arity::Exactly(4),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    categories: categories::DANGEROUS,
    keys: Keys(&[KeySpec::at(2, "RW")]),
    log: LogRule::Effects, // as BLESS, and only when something has changed
    handler: Handler::Data(|call, reply| bless(call, reply, true)),
    since: "8.12.0",
    syntax: "key NO-EVICT",
    summary: "Protects a key from eviction.",
    ..Command::DEFAULT
};

static CLEAR: Command = Command {
    name: "CLEAR",
    // Not refused when memory is short: it makes room.
    flags: flags::WRITE.or(flags::FAST),
    handler: Handler::Data(|call, reply| bless(call, reply, false)),
    summary: "Makes a key one that may be evicted again.",
    ..SET
};

/// Checks the word that names the kind of protection.
fn check_kind(word: &[u8]) -> Result<(), CommandError> {
    if args::is(word, NO_EVICT) { Ok(()) } else { Err(CommandError::Syntax) }
}

fn bless(call: &mut Call<'_>, reply: Reply<'_>, on: bool) -> Outcome {
    check_kind(call.args.at(3))?;
    let key = call.key(2);
    if !call.db.exists(key) {
        return Err(CommandError::NoSuchKey);
    }
    let changed = call.db.bless(key, on);
    if changed {
        call.record(key).bless(on);
        call.db.notify(NotifyFlags::GENERIC, if on { "bless" } else { "unbless" }, key);
    }
    Ok(reply.int(changed.into()))
}

static GET: Command = Command {
    name: "GET",
    arity: Arity::Exactly(3),
    flags: flags::FAST.or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(get),
    since: "8.12.0",
    syntax: "key",
    summary: "Names what a key is protected from.",
    ..Command::DEFAULT
};

fn get(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(2);
    if call.db.look_up(key).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    let is_blessed = call.db.is_blessed(key);
    let mut kinds = reply.array(usize::from(is_blessed));
    if is_blessed {
        kinds.bulk(NO_EVICT.as_bytes());
    }
    Ok(kinds.done())
}

static SCAN: Command = Command {
    name: "SCAN",
    arity: Arity::AtLeast(4),
    flags: flags::WALKS,
    categories: categories::KEYSPACE,
    handler: Handler::Data(scan),
    since: "8.12.0",
    complexity: "O(1) for every call. O(N) for a complete iteration, where N is the number of protected keys.",
    syntax: "cursor NO-EVICT [COUNT count]",
    summary: "Lists some of the protected keys, and where to go on.",
    ..Command::DEFAULT
};

fn scan(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let cursor = parse_cursor(call.args.at(2))?;
    check_kind(call.args.at(3))?;
    let mut count = SCAN_COUNT_DEFAULT;
    let mut words = Words::new(call.args, 4);
    while let Some(word) = words.next() {
        if !args::is(word, "COUNT") {
            return Err(CommandError::Syntax);
        }
        count = parse_count(&mut words)?;
    }
    let now = call.db.facts().seen_at();
    let (sight, index) = (call.limited_sight(), call.db.index());
    let is_seen = |key: &[u8]| sight.as_ref().is_none_or(|user| user.may_read(index, key));
    let mut page = Page::default();
    let next = walk(&mut call.db, cursor, count, Directory::blessed, &mut |name| {
        if name.expiry().is_none_or(|at| at as i64 > now) && is_seen(name.key()) {
            page.push(name.key());
        }
    })?;
    Ok(page.reply(reply, next))
}

#[cfg(test)]
mod tests {
    use crate::base::config::EvictionPolicy;
    use crate::base::config::NotifyFlags;
    use crate::exec::evict::Choice;
    use crate::exec::testing::Runner;

    const GUARDED: &str = "*1 $8 NO-EVICT ";

    #[test]
    fn protection_is_set_once_and_cleared_once() {
        let mut t = Runner::new();
        t.wants.events = NotifyFlags::GENERIC;
        for (line, reply) in [
            ("SET k v", "+OK "),
            ("BLESS GET k", "*0 "),
            ("BLESS SET k no-evict", ":1 "),
            ("BLESS SET k NO-EVICT", ":0 "),
            ("BLESS GET k", GUARDED),
            ("BLESS CLEAR k NO-EVICT", ":1 "),
            ("BLESS CLEAR k NO-EVICT", ":0 "),
            ("BLESS GET k", "*0 "),
            ("BLESS SET k NONE", "-ERR syntax error "),
            ("BLESS SET k", "-ERR wrong number of arguments for 'bless|set' command "),
            ("BLESS SET k NO-EVICT NO-EVICT", "-ERR wrong number of arguments for 'bless|set' command "),
            ("BLESS SET none NO-EVICT", "-ERR no such key "),
            ("BLESS CLEAR none NO-EVICT", "-ERR no such key "),
            ("BLESS GET none", "-ERR no such key "),
            ("BLESS SCAN 0 BOGUS", "-ERR syntax error "),
            ("BLESS SCAN x NO-EVICT", "-ERR invalid cursor "),
            ("BLESS SCAN 0 NO-EVICT COUNT 0", "-ERR syntax error "),
            ("BLESS SCAN 0 NO-EVICT COUNT", "-ERR syntax error "),
            ("BLESS SCAN 0 NO-EVICT MATCH *", "-ERR syntax error "),
            ("BLESS SCAN 0 NO-EVICT", "*2 $1 0 *0 "),
        ] {
            assert_eq!(t.run(line), reply, "{line}");
        }
        assert_eq!(t.take_logged(), ["SET k v", "BLESS k", "UNBLESS k"]);
        let told: Vec<_> = t.events.iter().map(|event| event.name).collect();
        assert_eq!(told, ["bless", "unbless"]);
    }

    #[test]
    fn it_belongs_to_the_key_and_not_to_its_value() {
        let mut t = Runner::new();
        let mut goes = |lines: &[&str], key: &str, expected: bool| {
            lines.iter().for_each(|line| drop(t.run(line)));
            assert_eq!(t.run(&format!("BLESS GET {key}")), if expected { GUARDED } else { "*0 " }, "{lines:?}");
            t.assert_replay_equals_live();
        };
        goes(&["SET a 1", "BLESS SET a NO-EVICT", "SET a 2", "DEL b", "SADD b m", "SUNIONSTORE a b"], "a", true);
        goes(&["SREM a m", "SET a 1"], "a", false);
        goes(&["BLESS SET a NO-EVICT", "DEL a", "SET a 1"], "a", false);
        goes(&["BLESS SET a NO-EVICT", "RENAME a c"], "c", true);
        goes(&["SET a 1"], "a", false);
        goes(&["RENAME a c"], "c", false);
        goes(&["BLESS SET c NO-EVICT", "COPY c d"], "d", true);
        goes(&[], "c", true);
        goes(&["SET e 1", "COPY e d REPLACE"], "d", false);
        goes(&["SET x 1 PX 5", "BLESS SET x NO-EVICT"], "x", true);
        goes(&["SET x 2 KEEPTTL", "PERSIST x"], "x", true);
        goes(&["BLESS SET e NO-EVICT", "FLUSHDB", "SET e 1"], "e", false);
        goes(&[&format!("SET l {}", "x".repeat(70_000)), "BLESS SET l NO-EVICT", "RENAME l m"], "m", true);
        goes(&["COPY m n", "BLESS CLEAR m NO-EVICT", "COPY m n REPLACE"], "n", false);
    }

    #[test]
    fn it_follows_a_key_into_other_databases() {
        let mut t = Runner::new();
        for line in ["SET a 1", "SET b 1", "BLESS SET a NO-EVICT", "MOVE a 5", "SWAPDB 5 6"] {
            t.run(line);
        }
        t.assert_replay_equals_live();
        assert_eq!(t.run("BLESS SCAN 0 NO-EVICT"), "*2 $1 0 *0 ");
        t.db = 6;
        assert_eq!(t.run("BLESS SCAN 0 NO-EVICT"), "*2 $1 0 *1 $1 a ");
    }

    #[test]
    fn a_key_that_has_expired_takes_its_protection_along() {
        let mut t = Runner::new();
        t.run("SET a 1 PX 5");
        t.run("BLESS SET a NO-EVICT");
        t.advance_ms(10);
        assert_eq!(t.run("BLESS SCAN 0 NO-EVICT"), "*2 $1 0 *0 ");
        assert_eq!((t.run("SET a 2"), t.run("BLESS GET a")), ("+OK ".into(), "*0 ".into()));
        t.assert_replay_equals_live();
    }

    #[test]
    fn a_scan_gives_every_protected_key() {
        let mut t = Runner::new();
        for number in 0..3000 {
            t.run(&format!("SET k:{number} v"));
            if number % 3 == 0 {
                t.run(&format!("BLESS SET k:{number} NO-EVICT"));
            }
        }
        let (mut cursor, mut found, mut pages) = ("0".to_owned(), Vec::new(), 0);
        loop {
            let page = t.run(&format!("BLESS SCAN {cursor} NO-EVICT COUNT 50"));
            let mut words = page.split(' ').filter(|word| !word.starts_with(['*', '$']) && !word.is_empty());
            cursor = words.next().unwrap().to_owned();
            found.extend(words.map(str::to_owned));
            pages += 1;
            if cursor == "0" {
                break;
            }
        }
        found.sort();
        let mut expected: Vec<_> = (0..3000).step_by(3).map(|number| format!("k:{number}")).collect();
        expected.sort();
        assert_eq!(found, expected);
        assert!((10..=25).contains(&pages), "{pages}");
    }

    #[test]
    fn no_policy_evicts_a_protected_key() {
        use EvictionPolicy::{AllkeysLfu, AllkeysLru, AllkeysRandom, VolatileLru, VolatileRandom, VolatileTtl};
        for policy in [AllkeysLru, AllkeysLfu, AllkeysRandom, VolatileLru, VolatileTtl, VolatileRandom] {
            let mut t = Runner::new();
            for number in 0..200 {
                t.run(&format!("SET k:{number} v EX 1000"));
                if number >= 10 {
                    t.run(&format!("BLESS SET k:{number} NO-EVICT"));
                }
            }
            let evicted = t.evict(Choice { policy, samples: 5 }, usize::MAX);
            assert_eq!((evicted.keys, evicted.is_exhausted, evicted.is_guarded), (10, true, true), "{policy:?}");
            assert_eq!(t.run("EXISTS k:3 k:9 k:10 k:199"), ":2 ");
            t.assert_replay_equals_live();
        }
    }

    #[test]
    fn a_candidate_that_was_protected_since_stays() {
        let mut t = Runner::new();
        (0..50).for_each(|number| drop(t.run(&format!("SET k:{number} v"))));
        let choice = Choice { policy: EvictionPolicy::AllkeysLru, samples: 10 };
        assert_eq!(t.evict(choice, 1).keys, 1);
        (0..50).for_each(|number| drop(t.run(&format!("BLESS SET k:{number} NO-EVICT"))));
        assert_eq!(t.evict(choice, usize::MAX).keys, 0);
    }
}
