//! Commands that store whole values: SET and its relatives.
//!
//! Invariants:
//! - Options are checked in Redis' order: their grammar, then the expiry's number, then the type of the existing
//!   value (for GETEX, before the number).
//! - The log always holds an absolute expiry. An expiry that has already passed removes the key at once, except in a
//!   replay, where time does not pass.

use super::condition::Condition;
use super::{STRING, WRITE_FAST, WRITE_SLOW, encoded, expiry_of, remove, store_anew, text};
use crate::base::format;
use crate::core::args::{integer, is};
use crate::core::call::string_reply;
use crate::core::key_spec::{Find, KeyFlags};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, flags,
};
use crate::keyspace::Key;
use crate::resp::Reply;
use crate::value::kind::Kind;

/// The forms of an expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds from now.
    Ex,
    /// Milliseconds from now.
    Px,
    /// Unix seconds.
    ExAt,
    /// Unix milliseconds.
    PxAt,
}

impl Unit {
    /// The form that a word names.
    pub(super) fn named(word: &[u8]) -> Option<Unit> {
        const UNITS: [(&str, Unit); 4] =
            [("EX", Unit::Ex), ("PX", Unit::Px), ("EXAT", Unit::ExAt), ("PXAT", Unit::PxAt)];
        UNITS.iter().find(|(name, _)| is(word, name)).map(|(_, unit)| *unit)
    }
}

/// The options of SET, MSETEX and GETEX.
#[derive(Debug, Default)]
struct Options<'a> {
    if_missing: bool,
    if_exists: bool,
    get: bool,
    keep_expiry: bool,
    persist: bool,
    expiry: Option<(Unit, &'a [u8])>,
    condition: Option<Condition<'a>>,
}

impl<'a> Options<'a> {
    fn of_set(mut words: Words<'a>) -> Result<Self, CommandError> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            if is(word, "GET") {
                options.get = true;
            } else if let Some(condition) = words.clone().next().and_then(|value| Condition::named(word, value)) {
                let is_other = options.condition.is_some_and(|earlier| !earlier.is_like(&condition));
                if is_other || options.if_missing || options.if_exists {
                    return Err(CommandError::Syntax);
                }
                words.pass_over(1);
                options.condition = Some(condition);
            } else {
                options.take_common(word, &mut words)?;
            }
        }
        Ok(options)
    }

    fn of_msetex(mut words: Words<'a>) -> Result<Self, CommandError> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            options.take_common(word, &mut words)?;
        }
        Ok(options)
    }

    /// Takes an option that SET and MSETEX share.
    fn take_common(&mut self, word: &[u8], words: &mut Words<'a>) -> Result<(), CommandError> {
        if is(word, "NX") && !self.if_exists && self.condition.is_none() {
            self.if_missing = true;
        } else if is(word, "XX") && !self.if_missing && self.condition.is_none() {
            self.if_exists = true;
        } else if is(word, "KEEPTTL") && self.expiry.is_none() {
            self.keep_expiry = true;
        } else {
            self.take_expiry(word, words)?;
        }
        Ok(())
    }

    fn of_getex(mut words: Words<'a>) -> Result<Self, CommandError> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            if is(word, "PERSIST") && options.expiry.is_none() {
                options.persist = true;
            } else {
                options.take_expiry(word, &mut words)?;
            }
        }
        Ok(options)
    }

    /// Takes an option with an expiry, in the unit of an earlier one if there is one. The last one counts.
    fn take_expiry(&mut self, word: &[u8], words: &mut Words<'a>) -> Result<(), CommandError> {
        let unit = Unit::named(word).ok_or(CommandError::Syntax)?;
        if self.keep_expiry || self.persist || self.expiry.is_some_and(|(earlier, _)| earlier != unit) {
            return Err(CommandError::Syntax);
        }
        self.expiry = Some((unit, words.value()?));
        Ok(())
    }

    /// Whether NX or XX forbids storing the value.
    fn forbid(&self, exists: bool) -> bool {
        if exists { self.if_missing } else { self.if_exists }
    }

    /// The expiry in Unix ms, if one is given.
    fn deadline(&self, call: &Call<'_>, command: &'static str) -> Result<Option<i64>, CommandError> {
        self.expiry.map(|(unit, text)| deadline(unit, text, call, command)).transpose()
    }
}

/// An expiry in Unix ms. `command` is named in the error.
pub(super) fn deadline(unit: Unit, text: &[u8], call: &Call<'_>, command: &'static str) -> Result<i64, CommandError> {
    let given = Some(integer(text)?).filter(|&given| given > 0);
    let ms = match unit {
        Unit::Ex | Unit::ExAt => given.and_then(|seconds| seconds.checked_mul(1000)),
        Unit::Px | Unit::PxAt => given,
    };
    let at = match unit {
        Unit::Ex | Unit::Px => ms.and_then(|ms| ms.checked_add(call.db.facts().now)),
        Unit::ExAt | Unit::PxAt => ms,
    };
    at.ok_or(CommandError::InvalidExpire(command))
}

/// Whether a time has come. In a replay none has: the log itself says when a key is removed.
pub(super) fn is_over(call: &Call<'_>, at: i64) -> bool {
    !call.db.facts().replaying && at <= call.db.facts().now
}

pub(super) static SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(3),
    flags: WRITE_SLOW,
    keys: Keys(&[KeySpec {
        notes: "RW and ACCESS due to the optional `GET` argument",
        flags_of: Some(|args| match args.from(3).any(reads_the_old_value) {
            true => const { KeyFlags::of("RW access update") },
            false => const { KeyFlags::of("OW update") },
        }),
        ..KeySpec::at(1, "RW access update variable_flags")
    }]),
    log: LogRule::Effects,
    handler: Handler::Data(set),
    syntax: "key value [NX | XX | IFEQ ifeq-value@8.4.0 | IFNE ifne-value@8.4.0 | IFDEQ ifdeq-digest@8.4.0 | \
             IFDNE ifdne-digest@8.4.0] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | KEEPTTL]",
    summary: "Stores a string at a key, whatever was there, on conditions and with an expiry if asked.",
    ..STRING
};

/// Whether a word of SET may be an option that tells something of what was there.
fn reads_the_old_value(word: &[u8]) -> bool {
    is(word, "GET") || Condition::named(word, b"").is_some()
}

#[inline]
fn set(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.len() > 3 {
        return set_with_options(call, reply);
    }
    let (key, value) = (call.key(1), call.args.at(2));
    store_anew(call, key, encoded(value), value, None);
    Ok(reply.ok())
}

fn set_with_options(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let options = Options::of_set(Words::new(call.args, 3))?;
    let at = options.deadline(call, "set")?;
    let (key, value) = (call.key(1), call.args.at(2));
    if let Some(condition) = options.condition {
        condition.check()?;
        return set_on_condition(call, reply, &options, condition, at);
    }
    let (exists, done) = if options.get {
        match call.db.string(key)? {
            Some(old) => (true, string_reply(reply, old)),
            None => (false, reply.null()),
        }
    } else {
        let exists = (options.if_missing || options.if_exists) && call.db.exists(key);
        (exists, if options.forbid(exists) { reply.null() } else { reply.ok() })
    };
    if options.forbid(exists) {
        return Ok(done);
    }
    store_until(call, key, value, at, options.keep_expiry);
    Ok(done)
}

/// SET with IFEQ and the like.
fn set_on_condition(
    call: &mut Call<'_>,
    reply: Reply<'_>,
    options: &Options<'_>,
    condition: Condition<'_>,
    at: Option<i64>,
) -> Outcome {
    let (key, value) = (call.key(1), call.args.at(2));
    let mut digits = itoa::Buffer::new();
    let old = call.db.string(key)?;
    let holds = condition.holds(old.map(|old| text(old, &mut digits)));
    let done = match old {
        Some(old) if options.get => string_reply(reply, old),
        None if options.get => reply.null(),
        _ if holds => reply.ok(),
        _ => reply.null(),
    };
    if holds {
        store_until(call, key, value, at, options.keep_expiry);
    }
    Ok(done)
}

/// Stores a value until a time (Unix ms), if one is given, or as long as what was there before, and tells it.
fn store_until(call: &mut Call<'_>, key: Key<'_>, value: &[u8], at: Option<i64>, keeps_expiry: bool) {
    if at.is_some_and(|at| is_over(call, at)) {
        return store_and_expire(call, key);
    }
    let expiry = if keeps_expiry { expiry_of(call, key) } else { at };
    store_anew(call, key, encoded(value), value, expiry);
    if at.is_some() {
        call.db.notify(NotifyFlags::GENERIC, "expire", key);
    }
}

/// For a value that has expired when it comes: removes what was there. The events are those of a value that was stored
/// and has expired at once, as in Redis.
fn store_and_expire(call: &mut Call<'_>, key: Key<'_>) {
    call.db.note_overwriting(key, Kind::Str);
    match call.db.remove(key) {
        true => call.record(key).delete(),
        false => call.db.notify(NotifyFlags::NEW, "new", key),
    }
    call.db.notify(NotifyFlags::STRING, "set", key);
    call.db.notify(NotifyFlags::GENERIC, "expire", key);
    call.db.notify(NotifyFlags::EXPIRED, "expired", key);
}

pub(super) static SETEX: Command = Command {
    name: "SETEX",
    arity: Arity::Exactly(4),
    flags: WRITE_SLOW,
    keys: Keys(&[KeySpec::at(1, "OW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(setex),
    since: "2.0.0",
    syntax: "key seconds value",
    summary: "Stores a string that expires after some seconds.",
    ..STRING
};

fn setex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let at = deadline(Unit::Ex, call.args.at(2), call, "setex")?;
    set_until(call, reply, at)
}

pub(super) static PSETEX: Command = Command {
    name: "PSETEX",
    arity: Arity::Exactly(4),
    flags: WRITE_SLOW,
    keys: Keys(&[KeySpec::at(1, "OW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(psetex),
    since: "2.6.0",
    syntax: "key milliseconds value",
    summary: "Stores a string that expires after some milliseconds.",
    ..STRING
};

fn psetex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let at = deadline(Unit::Px, call.args.at(2), call, "psetex")?;
    set_until(call, reply, at)
}

fn set_until(call: &mut Call<'_>, reply: Reply<'_>, at: i64) -> Outcome {
    let (key, value) = (call.key(1), call.args.at(3));
    store_anew(call, key, encoded(value), value, Some(at));
    call.db.notify(NotifyFlags::GENERIC, "expire", key);
    Ok(reply.ok())
}

pub(super) static SETNX: Command = Command {
    name: "SETNX",
    arity: Arity::Exactly(3),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "OW insert")]),
    log: LogRule::Effects,
    handler: Handler::Data(setnx),
    syntax: "key value",
    summary: "Stores a string if there is nothing at the key.",
    ..STRING
};

fn setnx(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, value) = (call.key(1), call.args.at(2));
    if call.db.exists(key) {
        return Ok(reply.int(0));
    }
    store_anew(call, key, encoded(value), value, None);
    Ok(reply.int(1))
}

pub(super) static GETSET: Command = Command {
    name: "GETSET",
    arity: Arity::Exactly(3),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: LogRule::Effects,
    handler: Handler::Data(getset),
    syntax: "key value",
    summary: "Stores a string and gives the one that was there before.",
    ..STRING
};

fn getset(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, value) = (call.key(1), call.args.at(2));
    let done = match call.db.string(key)? {
        Some(old) => string_reply(reply, old),
        None => reply.null(),
    };
    store_anew(call, key, encoded(value), value, None);
    Ok(done)
}

pub(super) static GETEX: Command = Command {
    name: "GETEX",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec { notes: "RW and UPDATE because it changes the TTL", ..KeySpec::at(1, "RW access update") }]),
    log: LogRule::Effects, // as the expiry that it has then, or none, or that it is gone
    handler: Handler::Data(getex),
    since: "6.2.0",
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    summary: "Gives the string at a key and sets or clears its expiry.",
    ..STRING
};

fn getex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let options = Options::of_getex(Words::new(call.args, 2))?;
    let key = call.key(1);
    let at = options.deadline(call, "getex");
    let Some(value) = call.db.string(key)? else { return Ok(reply.null()) };
    let at = at?; // a missing key and a wrong type come first
    let done = string_reply(reply, value);
    match at {
        Some(at) if is_over(call, at) => remove(call, key),
        Some(at) => {
            call.db.set_expiry(key, Some(at));
            call.record(key).expire_at(at);
            call.db.notify(NotifyFlags::GENERIC, "expire", key);
        }
        None if options.persist && expiry_of(call, key).is_some() => {
            call.db.set_expiry(key, None);
            call.record(key).persist();
            call.db.notify(NotifyFlags::GENERIC, "persist", key);
        }
        None => {}
    }
    Ok(done)
}

pub(super) static MSET: Command = Command {
    name: "MSET",
    arity: Arity::AtLeast(3),
    flags: WRITE_SLOW,
    keys: Keys(&[KeySpec::range(1, -1, 2, "OW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(mset),
    since: "1.0.1",
    complexity: "O(N) where N is the number of keys.",
    tips: "request_policy:multi_shard response_policy:all_succeeded",
    syntax: "key value [key value ...]",
    summary: "Stores strings at several keys at once.",
    ..STRING
};

fn mset(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    check_pairs(call)?;
    store_pairs(call);
    Ok(reply.ok())
}

pub(super) static MSETNX: Command = Command {
    name: "MSETNX",
    arity: Arity::AtLeast(3),
    flags: WRITE_SLOW,
    keys: Keys(&[KeySpec::range(1, -1, 2, "OW insert")]),
    log: LogRule::Effects, // only when none existed
    handler: Handler::Data(msetnx),
    since: "1.0.1",
    complexity: "O(N) where N is the number of keys.",
    syntax: "key value [key value ...]",
    summary: "Stores strings at several keys at once if there is nothing at any of them.",
    ..STRING
};

fn msetnx(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    check_pairs(call)?;
    if call.keys().any(|key| call.db.exists(key)) {
        return Ok(reply.int(0));
    }
    store_pairs(call);
    Ok(reply.int(1))
}

pub(super) static MSETEX: Command = Command {
    name: "MSETEX",
    arity: Arity::AtLeast(4),
    flags: WRITE_SLOW.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec { find: Find::Keynum { at: 0, first: 1, step: 2 }, ..KeySpec::at(1, "OW update") }]),
    log: LogRule::Effects,
    handler: Handler::Data(msetex),
    since: "8.4.0",
    complexity: "O(N) where N is the number of keys.",
    tips: "request_policy:multi_shard response_policy:all_succeeded",
    syntax: "numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | KEEPTTL]",
    summary: "Stores strings at several keys with one expiry, if asked only if none of them exists, or all.",
    ..STRING
};

fn msetex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, as_valkey) = (call.args, call.db.facts().as_valkey);
    let numkeys = format::parse_i64(args.at(1)).and_then(|number| usize::try_from(number).ok());
    // More than half of what there is makes no difference, but it may not overflow.
    let numkeys = numkeys.filter(|&number| number > 0 && number <= i32::MAX as usize);
    let behind = numkeys.map(|number| 2 + 2 * number).ok_or(CommandError::Text(match as_valkey {
        true => "ERR invalid numkeys value or out of range",
        false => "ERR invalid numkeys value",
    }))?;
    if behind > args.len() {
        let pairs = CommandError::Text("ERR wrong number of key-value pairs");
        return Err(if as_valkey { CommandError::Syntax } else { pairs });
    }
    let options = Options::of_msetex(Words::new(args, behind))?;
    let at = options.deadline(call, "msetex")?;
    let keys = call.keys();
    debug_assert_eq!(2 * keys.len(), behind - 2, "the specification of the keys counts as the command does");
    if (options.if_missing || options.if_exists) && call.keys().any(|key| options.forbid(call.db.exists(key))) {
        return Ok(reply.int(0));
    }
    for (key, value) in keys.zip(args.from(3).step_by(2)) {
        store_until(call, key, value, at, options.keep_expiry);
    }
    Ok(reply.int(1))
}

/// Every key needs a value, so the number of arguments, the name included, is odd.
fn check_pairs(call: &Call<'_>) -> Result<(), CommandError> {
    if call.args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(call.name().to_owned()));
    }
    Ok(())
}

fn store_pairs(call: &mut Call<'_>) {
    for (key, value) in call.keys().zip(call.args.from(2).step_by(2)) {
        store_anew(call, key, encoded(value), value, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::encoding;
    use crate::exec::testing::Runner;

    #[test]
    fn conditions_and_the_old_value() {
        let mut t = Runner::new();
        t.script(
            "SET k v XX => $-1
             SET k v XX GET => $-1
             GET k => $-1
             SET k v NX GET => $-1
             SET k w NX => $-1
             SET k w NX GET => $1 v
             SET k w XX GET => $1 v
             SET k x get => $1 w
             SET k y xx => +OK
             GET k => $1 y
             SETNX k z => :0
             SETNX n z => :1
             GETSET k 7 => $1 y
             GETSET new 8 => $-1
             MGET k n new => *3 $1 7 $1 z $1 8",
        );
        assert_eq!((encoding(&t, "k"), encoding(&t, "n")), ("int", "embstr"));
        t.assert_replay_equals_live();
    }

    #[test]
    fn conditions_on_the_old_value() {
        let mut t = Runner::new();
        t.script(
            "SET k a IFEQ a => $-1
             SET k a IFDEQ 9555e8555c62dcfd GET => $-1
             EXISTS k => :0
             SET k 7 IFNE 7 => +OK
             SET k x IFNE 7 => $-1
             SET k x IFNE 7 GET => $1 7
             SET k hello IFEQ 7 GET EX 100 => $1 7
             SET k b IFDNE 9555e8555c62dcfd => $-1
             SET k b IFDEQ 123 => -ERR must be exactly 16 hexadecimal characters
             SET k b KEEPTTL IFDEQ 9555E8555C62DCFD => +OK
             TTL k => :100
             SET k c IFEQ z IFEQ b => +OK
             GET k => $1 c
             SET k v IFEQ c PXAT 1 => +OK
             EXISTS k => :0
             RPUSH l a => :1
             SET l v IFNE a => -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        for options in ["IFEQ c NX", "XX IFEQ c", "IFEQ c IFNE d", "IFEQ", "IFDEQ 1 EX 1 NX"] {
            assert_eq!(t.run(&format!("SET k v {options}")), "-ERR syntax error ", "{options}");
        }
        t.assert_replay_equals_live();
    }

    #[test]
    fn several_keys_are_set_with_one_expiry() {
        let mut t = Runner::new();
        t.script(
            "MSETEX 2 a 1 b 2 EX 100 NX => :1
             MSETEX 2 b 3 c 4 NX => :0
             MSETEX 2 b 3 c 4 XX => :0
             MSETEX 2 a 5 b 6 KEEPTTL XX => :1
             MGET a b c => *3 $1 5 $1 6 $-1
             TTL a => :100
             MSETEX 1 a 1 => :1
             TTL a => :-1
             MSETEX 2 a 1 a 2 => :1
             GET a => $1 2
             MSETEX 2 EX 10 b 1 => :1
             GET EX => $2 10
             MSETEX 2 a 1 b 1 PXAT 1 => :1
             EXISTS a b => :0
             MSETEX 0 a 1 => -ERR invalid numkeys value
             MSETEX x a 1 => -ERR invalid numkeys value
             MSETEX 9223372036854775807 a 1 => -ERR invalid numkeys value
             MSETEX 2 a 1 b => -ERR wrong number of key-value pairs
             MSETEX 1 a 1 b => -ERR syntax error
             MSETEX 1 a 1 EX 0 => -ERR invalid expire time in 'msetex' command
             MSETEX 1 a 1 NX XX => -ERR syntax error
             MSETEX 1 a 1 GET => -ERR syntax error
             EXISTS a => :0",
        );
        t.assert_replay_equals_live();
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let mut t = Runner::new();
        t.run("SET k before");
        for options in [
            "NX XX",
            "XX NX",
            "EX",
            "EX 1 PX 1",
            "PXAT 1 EXAT 1",
            "KEEPTTL EX 1",
            "EX 1 KEEPTTL",
            "PERSIST",
            "FOO",
            "EX 0 FOO",
        ] {
            assert_eq!(t.run(&format!("SET k v {options}")), "-ERR syntax error ", "{options}");
        }
        for options in ["KEEPTTL", "NX", "GET", "EX", "EX 1 PX 1", "PERSIST EX 1", "EX 1 PERSIST"] {
            assert_eq!(t.run(&format!("GETEX k {options}")), "-ERR syntax error ", "{options}");
        }
        for time in ["EX 0", "EX -1", "PX 0", "EXAT 0", "PXAT -5", "EX 9223372036854776", "PX 9223372036854775807"] {
            assert_eq!(t.run(&format!("SET k v {time}")), "-ERR invalid expire time in 'set' command ", "{time}");
            assert_eq!(t.run(&format!("GETEX k {time}")), "-ERR invalid expire time in 'getex' command ", "{time}");
        }
        t.script(
            "SET k v EX 1.5 => -ERR value is not an integer or out of range
             SET k v EX 10 EX 20 => +OK
             SET k before KEEPTTL KEEPTTL => +OK
             GETEX nothing EX x => $-1
             GETEX nothing EX 1 PX 1 => -ERR syntax error
             SETEX k 0 v => -ERR invalid expire time in 'setex' command
             SETEX k x v => -ERR value is not an integer or out of range
             PSETEX k -1 v => -ERR invalid expire time in 'psetex' command
             GET k => $6 before",
        );
    }

    #[test]
    fn expiries_are_logged_as_absolute_times() {
        let mut t = Runner::new();
        let now = t.now();
        t.script(
            "SET a v EX 10 => +OK
             SET b v PX 10 => +OK
             SETEX c 10 v => +OK
             PSETEX d 10 v => +OK
             SET a w KEEPTTL => +OK
             GETEX a PX 5 => $1 w
             GETEX a PERSIST => $1 w
             GETEX a PERSIST => $1 w
             GETEX a => $1 w
             SET b w => +OK",
        );
        let (seconds, ms) = (now + 10_000, now + 10);
        assert_eq!(
            t.take_logged(),
            [
                format!("SET a v PXAT {seconds}"),
                format!("SET b v PXAT {ms}"),
                format!("SET c v PXAT {seconds}"),
                format!("SET d v PXAT {ms}"),
                format!("SET a w PXAT {seconds}"),
                format!("PEXPIREAT a {}", now + 5),
                "PERSIST a".to_owned(),
                "SET b w".to_owned(),
            ]
        );
        t.advance_ms(10);
        t.script("MGET a b c d => *4 $1 w $1 w $1 v $-1");
        assert_eq!(t.take_logged(), ["DEL d"]);
    }

    #[test]
    fn a_time_that_is_over_removes_the_key() {
        let mut t = Runner::new();
        t.script(
            "SET k v PXAT 1 => +OK
             SET k old => +OK
             SET k v PXAT 1 GET => $3 old
             GET k => $-1
             SET k v => +OK
             GETEX k EXAT 1 => $1 v
             GET k => $-1
             SET k v EX 1 => +OK",
        );
        t.run(&format!("SET k v PXAT {}", t.now()));
        let until = t.now() + 1000;
        let expected = ["SET k old", "DEL k", "SET k v", "DEL k", &format!("SET k v PXAT {until}"), "DEL k"];
        t.assert_replay_equals_live();
        assert_eq!(t.take_logged(), expected);
    }

    #[test]
    fn several_keys_are_stored_together_or_not_at_all() {
        let mut t = Runner::new();
        t.script(
            "MSET a 1 b => -ERR wrong number of arguments for 'mset' command
             MSETNX a 1 b => -ERR wrong number of arguments for 'msetnx' command
             MGET a b => *2 $-1 $-1
             MSET a 1 b x a 2 => +OK
             MGET a b => *2 $1 2 $1 x
             MSETNX c 1 a 1 => :0
             GET c => $-1
             MSETNX c 1 c 2 d 3 => :1
             MGET c d => *2 $1 2 $1 3",
        );
        assert_eq!(encoding(&t, "a"), "int");
        t.assert_replay_equals_live();
        assert_eq!(t.take_logged(), ["SET a 1", "SET b x", "SET a 2", "SET c 1", "SET c 2", "SET d 3"]);
    }

    #[test]
    fn a_plain_set_clears_the_expiry_and_an_expired_key_does_not_count() {
        let mut t = Runner::new();
        t.script("SET k v PX 5 => +OK\n MSET k w => +OK");
        t.advance_ms(5);
        t.script("GETEX k PX 5 => $1 w");
        t.advance_ms(5);
        t.script("SET k x XX => $-1\n SETNX k y => :1\n PSETEX k 5 y => +OK");
        t.advance_ms(5);
        t.script("MSETNX k z => :1\n GET k => $1 z");
        t.assert_replay_equals_live();
    }
}
