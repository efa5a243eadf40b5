//! Commands that walk over all keys: KEYS, SCAN, RANDOMKEY.
//!
//! The cursor of SCAN is the place where it continues: the shard in the upper bits, and the position in its
//! directory.
//!
//! ```text
//!   63      48 47     38 37                          0
//!   ┌─────────┬─────────┬─────────────────────────────┐
//!   │ 0       │ shard   │ position (`Directory::scan`)│    0 at the beginning, and at the end
//!   └─────────┴─────────┴─────────────────────────────┘
//! ```
//!
//! Invariants:
//! - A key that exists from the first call of a walk to the last is returned at least once, because shards never
//!   exchange keys and a directory's order survives growth and shrinking.
//! - One shard is locked at a time. One that another command holds for long is not waited for: SCAN returns with
//!   what it has, and a command that has nothing yet is run again later.
//! - SCAN and RANDOMKEY have the executor remove the expired keys that they have met, once they have ended: the shards
//!   are unlocked by then, and the record of a removal must enter the log under the lock. In a transaction these keys
//!   are left for others. KEYS passes them over.

use crate::base::glob;
use crate::base::random::{self, Random};
use crate::core::{Arity, Call, Command, CommandError, Db, Handler, Outcome, Words, args, categories, flags};
use crate::keyspace::{Directory, EntryRef, SHARDS};
use crate::resp::{Done, Reply};
use crate::value::directory::POSITION_BITS;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&KEYS, &RANDOMKEY, &SCAN];

/// How many keys one call of SCAN visits by default.
const SCAN_COUNT_DEFAULT: i64 = 10;
/// The types of keys.
const TYPE_NAMES: [&str; 6] = ["STRING", "LIST", "SET", "ZSET", "HASH", "STREAM"];
const NOVALUES_MISPLACED: &str = "ERR NOVALUES option can only be used in HSCAN";
const NOSCORES_MISPLACED: &str = "ERR NOSCORES option can only be used in ZSCAN";
/// RANDOMKEY takes a random shard without weighting if it has at least this many keys, because all shards are then
/// about as large.
const LARGE_SHARD: u64 = 256;
/// How often RANDOMKEY tries to find a large shard before it counts all shards.
const LARGE_SHARD_TRIES: usize = 2;
/// The most expired keys that one call has removed.
const MET_MAX: usize = 1024;
/// How often RANDOMKEY draws again when it draws an expired key.
const EXPIRED_TRIES: usize = 16;

fn is_alive(entry: &EntryRef<'_>, now: i64) -> bool {
    entry.expiry().is_none_or(|at| at as i64 > now)
}

static KEYS: Command = Command {
    name: "KEYS",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FROZEN),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    handler: Handler::Data(keys),
    complexity: "O(N), where N is the number of keys; other commands go on meanwhile.",
    tips: "request_policy:all_shards nondeterministic_output_order",
    syntax: "pattern",
    summary: "Lists all keys that match a pattern.",
    ..Command::DEFAULT
};

fn keys(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (pattern, now, index) = (call.args.at(1), call.db.facts().seen_at(), call.db.index());
    let every = pattern == b"*";
    let sight = call.limited_sight();
    let is_seen = |key: &[u8]| sight.as_ref().is_none_or(|user| user.may_read(index, key));
    let mut frozen = call.frozen.take().expect("the executor freezes a view for this command");
    Ok(reply.array_of_unknown(|elements| {
        for shard in 0..frozen.shards() {
            let of_db = frozen.shard(shard).filter(|(db, _)| *db == index);
            for entry in of_db.flat_map(|(_, directory)| directory.iter()) {
                if is_alive(&entry, now) && (every || glob::matches(pattern, entry.key())) && is_seen(entry.key()) {
                    elements.bulk(entry.key());
                }
            }
            drop(frozen.release_shard(shard));
        }
    }))
}

static SCAN: Command = Command {
    name: "SCAN",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY.or(flags::WALKS),
    categories: categories::KEYSPACE,
    handler: Handler::Data(scan),
    since: "2.8.0",
    complexity: "O(1) for every call. O(N) for a complete iteration, where N is the number of keys.",
    tips: "nondeterministic_output request_policy:special response_policy:special",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    summary: "Lists some of the keys, and where to go on.",
    ..Command::DEFAULT
};

fn scan(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let cursor = parse_cursor(call.args.at(1))?;
    let facts = call.db.facts();
    let filter = Filter::parse(Words::new(call.args, 2), facts.seen_at(), facts.as_valkey)?;
    let (sight, index) = (call.limited_sight(), call.db.index());
    let is_seen = |key: &[u8]| sight.as_ref().is_none_or(|user| user.may_read(index, key));
    let (mut page, mut met) = (Page::default(), Vec::new());
    let next = walk(&mut call.db, cursor, filter.count, |directory| Some(directory), &mut |entry| {
        if !is_alive(&entry, filter.now) {
            // Valkey looks at the type first.
            if filter.matches(&entry) && (!facts.as_valkey || filter.is_of_type(&entry)) && met.len() < MET_MAX {
                met.push(entry.key().into());
            }
        } else if filter.is_of_type(&entry) && filter.matches(&entry) && is_seen(entry.key()) {
            page.push(entry.key());
        }
    })?;
    leave(call, met);
    Ok(page.reply(reply, next))
}

/// Leaves expired keys that were met for the executor to remove.
fn leave(call: &mut Call<'_>, met: Vec<Box<[u8]>>) {
    if call.may_block && !met.is_empty() {
        call.db.leave_expired(met);
    }
}

/// What one call of SCAN, HSCAN, SSCAN or ZSCAN has found. The cursor comes first in the reply but is known last, so
/// the results wait here, one behind the other.
#[derive(Debug, Default)]
pub struct Page {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Page {
    /// Adds an element.
    #[inline]
    pub fn push(&mut self, element: &[u8]) {
        self.bytes.extend_from_slice(element);
        self.ends.push(self.bytes.len());
    }

    /// The reply: the next cursor, 0 at the end, and the elements.
    pub fn reply(self, reply: Reply<'_>, next: u64) -> Done {
        let mut parts = reply.array(2);
        parts.bulk(itoa::Buffer::new().format(next).as_bytes());
        let mut elements = parts.array(self.ends.len());
        let mut start = 0;
        for end in self.ends {
            elements.bulk(&self.bytes[start..end]);
            start = end;
        }
        elements.end();
        parts.done()
    }
}

/// The options of HSCAN, SSCAN and ZSCAN. Like Redis, they are parsed once the key is known to hold such a
/// collection. The cursor is parsed before the key is read, by [`parse_cursor`].
#[derive(Debug)]
pub struct ElementOptions<'a> {
    pattern: Option<&'a [u8]>,
    /// About how many elements to visit; at least 1.
    pub count: usize,
    /// NOVALUES or NOSCORES: fields are returned without their values, members without their scores.
    pub no_values: bool,
}

/// What a scan goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// The fields of a hash.
    Fields,
    /// The members of a set.
    Members,
    /// The members of a sorted set.
    Scores,
}

impl<'a> ElementOptions<'a> {
    /// Parses the options. What is scanned says whether NOVALUES or NOSCORES is allowed.
    ///
    /// # Errors
    /// An unknown option, or a bad value of an option.
    pub fn parse(mut words: Words<'a>, scanned: Scanned) -> Result<ElementOptions<'a>, CommandError> {
        let mut options = ElementOptions { pattern: None, count: SCAN_COUNT_DEFAULT as usize, no_values: false };
        while let Some(word) = words.next() {
            if args::is(word, "COUNT") {
                options.count = parse_count(&mut words)?;
            } else if args::is(word, "MATCH") {
                options.pattern = Some(words.value()?).filter(|pattern| *pattern != b"*");
            } else if args::is(word, "NOVALUES") {
                if scanned != Scanned::Fields {
                    return Err(CommandError::Text(NOVALUES_MISPLACED));
                }
                options.no_values = true;
            } else if args::is(word, "NOSCORES") {
                if scanned != Scanned::Scores {
                    return Err(CommandError::Text(NOSCORES_MISPLACED));
                }
                options.no_values = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether an element, or a field, is to be returned.
    #[inline]
    pub fn keeps(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, element))
    }
}

/// The value of COUNT.
///
/// # Errors
/// It is no number, or below 1.
pub(super) fn parse_count(words: &mut Words<'_>) -> Result<usize, CommandError> {
    let count = words.integer()?;
    if count < 1 {
        return Err(CommandError::Syntax);
    }
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// A cursor as Redis parses it, by `strtoul`: a sign, leading zeros and an empty text are allowed, and anything
/// behind a zero byte is ignored.
///
/// # Errors
/// Anything else, and numbers that do not fit 64 bits.
pub fn parse_cursor(argument: &[u8]) -> Result<u64, CommandError> {
    const INVALID: CommandError = CommandError::Text("ERR invalid cursor");
    let text = argument.split(|&byte| byte == 0).next().unwrap_or(argument);
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    let number =
        digits.iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    number.map(|number| if negative { number.wrapping_neg() } else { number }).ok_or(INVALID)
}

/// The filters of SCAN.
struct Filter<'a> {
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
    count: usize,
    now: i64,
}

impl<'a> Filter<'a> {
    fn parse(mut words: Words<'a>, now: i64, as_valkey: bool) -> Result<Filter<'a>, CommandError> {
        let mut filter = Filter { pattern: None, type_name: None, count: SCAN_COUNT_DEFAULT as usize, now };
        while let Some(word) = words.next() {
            if args::is(word, "COUNT") {
                filter.count = parse_count(&mut words)?;
            } else if args::is(word, "MATCH") {
                filter.pattern = Some(words.value()?).filter(|pattern| *pattern != b"*");
            } else if args::is(word, "TYPE") {
                // Redis accepts any name: keys of an unknown type are never found. Valkey does not.
                let name = words.value()?;
                if as_valkey && !TYPE_NAMES.iter().any(|known| args::is(name, known)) {
                    return Err(CommandError::echo("unknown type name '", name, "'"));
                }
                filter.type_name = Some(name);
            } else if args::is(word, "NOVALUES") {
                return Err(CommandError::Text(NOVALUES_MISPLACED));
            } else if args::is(word, "NOSCORES") {
                return Err(CommandError::Text(NOSCORES_MISPLACED));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(filter)
    }

    fn is_of_type(&self, entry: &EntryRef<'_>) -> bool {
        self.type_name.is_none_or(|name| name.eq_ignore_ascii_case(entry.kind().type_name().as_bytes()))
    }

    fn matches(&self, entry: &EntryRef<'_>) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, entry.key()))
    }
}

/// The directory of the database in the next shard of a walk, whose lock alone is held then.
///
/// # Errors
/// [`CommandError::Busy`] if the shard is: the command ends, and is run again later.
fn directory<'a>(db: &'a mut Db<'_>, shard: u16) -> Result<Option<&'a Directory>, CommandError> {
    let index = db.index();
    Ok(db.held().walk_to(shard).map_err(CommandError::Busy)?.directory(index))
}

/// Visits about `count` entries from `cursor` on, over as many shards as needed: those of what `part` gives of each
/// directory. Returns the next cursor, 0 at the end.
///
/// # Errors
/// The first shard is busy. Before another one that is, the walk ends.
pub(super) fn walk(
    db: &mut Db<'_>,
    cursor: u64,
    count: usize,
    part: fn(&Directory) -> Option<&Directory>,
    visit: &mut dyn FnMut(EntryRef<'_>),
) -> Result<u64, CommandError> {
    let first = cursor >> POSITION_BITS;
    let (mut shard, mut position) = (cursor >> POSITION_BITS, cursor & ((1 << POSITION_BITS) - 1));
    let mut budget = count;
    // A cursor that was never issued may lie behind the last shard.
    while shard < SHARDS as u64 && budget > 0 {
        let mut visited = 0;
        let directory = match directory(db, shard as u16) {
            Err(_) if shard > first => break,
            directory => directory?.and_then(part).filter(|directory| !directory.is_empty()),
        };
        let rest = directory.and_then(|directory| {
            directory.scan(position, budget, &mut |entry| {
                visited += 1;
                visit(entry);
            })
        });
        db.release();
        // A directory that stops before its end has spent the budget.
        if let Some(position) = rest {
            return Ok(shard << POSITION_BITS | position);
        }
        budget = budget.saturating_sub(visited);
        (shard, position) = (shard + 1, 0);
    }
    Ok(if shard < SHARDS as u64 { shard << POSITION_BITS } else { 0 })
}

static RANDOMKEY: Command = Command {
    name: "RANDOMKEY",
    arity: Arity::Exactly(1),
    flags: flags::READONLY.or(flags::WALKS),
    categories: categories::KEYSPACE,
    handler: Handler::Data(randomkey),
    tips: "request_policy:all_shards response_policy:special nondeterministic_output",
    summary: "Gives a key at random.",
    ..Command::DEFAULT
};

fn randomkey(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut random = Random::from_seed(random::with(|thread| thread.next_u64()));
    let (sight, index) = (call.limited_sight(), call.db.index());
    let is_seen = |key: &[u8]| sight.as_ref().is_none_or(|user| user.may_read(index, key));
    let mut met = Vec::new();
    let key = random_key(&mut call.db, &mut random, &is_seen, &mut met)?;
    call.db.release();
    leave(call, met);
    Ok(match key {
        None => reply.null(),
        Some(key) => reply.bulk(&key),
    })
}

/// A random live key that may be seen; `None` if there is none. Expired keys that are drawn are added to `met`.
///
/// # Errors
/// None was found, and a shard is busy.
fn random_key(
    db: &mut Db<'_>,
    random: &mut Random,
    is_seen: &dyn Fn(&[u8]) -> bool,
    met: &mut Vec<Box<[u8]>>,
) -> Result<Option<Vec<u8>>, CommandError> {
    let now = db.facts().seen_at();
    for _ in 0..EXPIRED_TRIES {
        let Some(shard) = random_shard(db, random)? else { return Ok(None) };
        let drawn = directory(db, shard)?.and_then(|directory| directory.random(random.next_u64()));
        match drawn {
            Some(entry) if !is_alive(&entry, now) => met.push(entry.key().into()),
            Some(entry) if is_seen(entry.key()) => return Ok(Some(entry.key().to_vec())),
            _ => {}
        }
    }
    // Nearly everything has expired and waits for the sweep, or must not be seen, so any other key will do.
    let first = random.index(SHARDS);
    for shard in (first..SHARDS).chain(0..first) {
        let entries = directory(db, shard as u16)?.into_iter().flat_map(Directory::iter);
        let others = entries.filter(|entry| is_alive(entry, now) && is_seen(entry.key()));
        // Each of them is as likely.
        let drawn = others.zip(1..).fold(None, |drawn, (entry, count)| match random.below(count) {
            0 => Some(entry.key().to_vec()),
            _ => drawn,
        });
        if drawn.is_some() {
            return Ok(drawn);
        }
    }
    Ok(None)
}

/// A random shard, weighted by its number of keys, without busy ones; `None` if there is no key.
///
/// # Errors
/// None was found, and a shard is busy.
fn random_shard(db: &mut Db<'_>, random: &mut Random) -> Result<Option<u16>, CommandError> {
    let mut busy = None;
    let mut keys = |shard: u16| match directory(db, shard) {
        Ok(directory) => directory.map_or(0, |directory| directory.len() as u64),
        Err(error) => {
            busy = Some(error);
            0
        }
    };
    for _ in 0..LARGE_SHARD_TRIES {
        let shard = random.below(SHARDS as u64) as u16;
        if keys(shard) >= LARGE_SHARD {
            return Ok(Some(shard));
        }
    }
    let total: u64 = (0..SHARDS as u16).map(&mut keys).sum();
    let mut left = random.below(total);
    let chosen = (0..SHARDS as u16).find(|&shard| {
        let here = keys(shard);
        let found = left < here;
        left = left.saturating_sub(here);
        found
    });
    match (chosen.filter(|_| total > 0), busy) {
        (None, Some(busy)) => Err(busy),
        (chosen, _) => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ops::Range;

    use super::*;
    use crate::exec::testing::{Runner, with_args, words};
    use crate::keyspace::NewValue;

    /// Puts `prefix:n` for each number directly into database 0.
    fn fill(t: &Runner, prefix: &str, numbers: Range<u32>) {
        for number in numbers {
            let name = format!("{prefix}:{number}");
            let key = t.keyspace().key(name.as_bytes());
            let _ = t.keyspace().lock(key.shard()).directory_mut(0).set(key.hash, key.bytes, NewValue::Int(1), None, 0);
        }
    }

    fn clear(t: &Runner, prefix: &str, numbers: Range<u32>) {
        for number in numbers {
            let name = format!("{prefix}:{number}");
            let key = t.keyspace().key(name.as_bytes());
            let _ = t.keyspace().lock(key.shard()).directory_mut(0).remove(key.hash, key.bytes);
        }
    }

    /// The cursor and the keys of a reply of SCAN, whose keys hold no space.
    fn parts(reply: &str) -> (String, Vec<String>) {
        let words: Vec<&str> = reply.trim_end().split(' ').collect();
        assert_eq!(words[0], "*2", "{reply}");
        (words[2].to_owned(), words[4..].iter().skip(1).step_by(2).map(|word| (*word).to_owned()).collect())
    }

    /// A whole walk. Returns the number of calls, and all keys in their order.
    fn walk_all(t: &mut Runner, options: &str) -> (usize, Vec<String>) {
        let (mut cursor, mut all, mut calls) = ("0".to_owned(), Vec::new(), 0);
        loop {
            let (next, keys) = parts(&t.run(&format!("SCAN {cursor} {options}")));
            all.extend(keys);
            calls += 1;
            if next == "0" {
                return (calls, all);
            }
            assert!(next.parse::<u64>().is_ok_and(|next| next < 1 << 48), "{next}");
            cursor = next;
        }
    }

    #[test]
    fn a_walk_returns_each_key_of_a_resting_keyspace_once() {
        let mut t = Runner::new();
        assert_eq!(t.run("SCAN 0"), "*2 $1 0 *0 ");
        fill(&t, "k", 0..3000);
        for (options, calls) in [("", 75..=301), ("COUNT 1", 900..=3001), ("COUNT 500", 4..=8), ("COUNT 3000", 1..=2)] {
            let (made, mut keys) = walk_all(&mut t, options);
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 3000, "{options}");
            assert!(calls.contains(&made), "{options}: {made} calls");
        }
        assert_eq!(walk_all(&mut t, "COUNT 9223372036854775807").0, 1);
        t.db = 1;
        assert_eq!(t.run("SCAN 0"), "*2 $1 0 *0 ");
    }

    #[test]
    fn what_is_there_all_the_time_is_returned_whatever_comes_and_goes() {
        const STAY: u32 = 40_000;
        const WAVE: u32 = 15_000;
        let mut t = Runner::new();
        fill(&t, "stay", 0..STAY);
        let (mut cursor, mut seen, mut wave) = ("0".to_owned(), HashSet::new(), 0);
        for call in 1.. {
            let (next, keys) = parts(&t.run(&format!("SCAN {cursor} COUNT 300 MATCH stay:*")));
            seen.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
            // Waves rise to many times the keys, so that directories split, and fall again, so that they merge.
            if call % 4 == 0 {
                if wave / 8 % 2 == 0 {
                    fill(&t, "wave", wave % 8 * WAVE..(wave % 8 + 1) * WAVE);
                } else {
                    clear(&t, "wave", wave % 8 * WAVE..(wave % 8 + 1) * WAVE);
                }
                wave += 1;
            }
        }
        assert!(wave > 16, "the walk outlasts a rise and a fall: {wave}");
        assert_eq!(seen.len(), STAY as usize);
    }

    #[test]
    fn filters_choose_by_name_and_type_and_pass_over_what_has_expired() {
        let mut t = Runner::new();
        t.run("SET one 1");
        t.run("SET two 2 PX 100");
        t.run("SET three 3");
        let sorted = |t: &mut Runner, options: &str| {
            let mut keys = walk_all(t, options).1;
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(sorted(&mut t, ""), "one three two");
        assert_eq!(sorted(&mut t, "match t*"), "three two");
        assert_eq!(sorted(&mut t, "MATCH t* MATCH one"), "one");
        assert_eq!(sorted(&mut t, "TYPE String"), "one three two");
        assert_eq!(sorted(&mut t, "TYPE list"), "");
        assert_eq!(sorted(&mut t, "TYPE nonsense"), "");
        t.advance_ms(100);
        assert_eq!(sorted(&mut t, "MATCH t*"), "three");
        assert_eq!(t.run("KEYS t*"), "*1 $5 three ");
        assert_eq!(t.run("DBSIZE"), ":3 ", "nobody has removed it yet");
    }

    #[test]
    fn mistakes_are_noticed_in_redis_order() {
        let mut t = Runner::new();
        let (cursor, syntax) = ("-ERR invalid cursor ", "-ERR syntax error ");
        for (line, expected) in [
            ("SCAN abc COUNT 0", cursor),
            ("SCAN 0x10", cursor),
            ("SCAN ' 1'", cursor),
            ("SCAN '1 '", cursor),
            ("SCAN -", cursor),
            ("SCAN +-1", cursor),
            ("SCAN 18446744073709551616", cursor),
            ("SCAN 0 COUNT", syntax),
            ("SCAN 0 COUNT 0", syntax),
            ("SCAN 0 COUNT -1 FOO", syntax),
            ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range "),
            ("SCAN 0 MATCH a TYPE", syntax),
            ("SCAN 0 FOO bar", syntax),
            ("SCAN 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN "),
            ("SCAN", "-ERR wrong number of arguments for 'scan' command "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
        for line in ["SCAN ''", "SCAN 007", "SCAN +3", "SCAN -1", "SCAN 18446744073709551615", r#"SCAN "3\x00x""#] {
            assert_eq!(t.run(line), "*2 $1 0 *0 ", "{line}");
        }
    }

    #[test]
    fn options_for_elements_are_read_as_redis_does() {
        let parse = |line: &str, scanned| {
            with_args(&words(line), |args| {
                let options = ElementOptions::parse(Words::new(args, 0), scanned).map_err(|error| error.to_string())?;
                Ok::<_, String>((options.count, options.no_values, options.keeps(b"ab")))
            })
        };
        assert_eq!(
            parse("COUNT 3 match a* NoValues COUNT 9223372036854775807", Scanned::Fields),
            Ok((i64::MAX as usize, true, true))
        );
        assert_eq!(parse("MATCH b* MATCH *", Scanned::Members), Ok((10, false, true)));
        assert_eq!(parse("MATCH b noscores", Scanned::Scores), Ok((10, true, false)));
        let refused = |line: &str| parse(line, Scanned::Members).unwrap_err();
        assert_eq!(refused("NOSCORES"), NOSCORES_MISPLACED);
        assert_eq!(refused("NOVALUES FOO"), NOVALUES_MISPLACED);
        for line in ["COUNT", "COUNT 0", "COUNT -1", "MATCH", "TYPE hash", "FOO", "''"] {
            assert_eq!(refused(line), "ERR syntax error", "{line}");
        }
        assert_eq!(refused("COUNT x"), "ERR value is not an integer or out of range");
    }

    #[test]
    fn keys_lists_one_database_by_pattern() {
        let mut t = Runner::new();
        assert_eq!(t.run("KEYS *"), "*0 ");
        t.run("SET h[a]llo 1");
        t.run("SET hello 1");
        t.db = 1;
        t.run("SET hullo 1");
        assert_eq!(t.run("KEYS h*"), "*1 $5 hullo ");
        t.db = 0;
        assert_eq!(t.run("KEYS h?llo"), "*1 $5 hello ");
        assert_eq!(t.run(r"KEYS 'h\[a]llo'"), "*1 $7 h[a]llo ");
        assert_eq!(t.run("KEYS *").len(), "*2 $7 h[a]llo $5 hello ".len());
    }

    #[test]
    fn randomkey_gives_every_key_its_chance() {
        let mut t = Runner::new();
        assert_eq!(t.run("RANDOMKEY"), "$-1 ");
        for name in ["a", "b", "c", "d"] {
            t.run(&format!("SET {name} 1"));
        }
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..400 {
            *counts.entry(t.run("RANDOMKEY")).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 4, "{counts:?}");
        // Each is drawn 100 times on average, with a deviation of 8.7.
        assert!(counts.values().all(|&count| count > 40), "{counts:?}");
    }

    #[test]
    fn randomkey_does_not_give_what_has_expired() {
        let mut t = Runner::new();
        for number in 0..100 {
            t.run(&format!("SET brief:{number} 1 PX 10"));
        }
        t.run("SET lasting 1");
        t.advance_ms(10);
        for _ in 0..20 {
            assert_eq!(t.run("RANDOMKEY"), "$7 lasting ");
        }
        t.run("DEL lasting");
        assert_eq!(t.run("RANDOMKEY"), "$-1 ");
    }

    #[test]
    fn randomkey_of_large_shards_is_one_of_their_keys() {
        let mut t = Runner::new();
        fill(&t, "k", 0..300_000);
        let drawn: HashSet<String> = (0..50).map(|_| t.run("RANDOMKEY")).collect();
        assert!(drawn.len() > 40, "{}", drawn.len());
        assert!(drawn.iter().all(|key| key.contains(" k:")));
    }
}
