//! Expiry: setting, reading and removing it.
//!
//! A time reaches the keyspace and the log as absolute Unix milliseconds. A time that has already passed removes the
//! key at once, except in a replay, where time stands still and only the log decides.

use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::resp::Reply;
use crate::value::entry::EXPIRY_MAX;

/// The commands of this file.
pub static COMMANDS: &[&Command] =
    &[&EXPIRE, &EXPIREAT, &EXPIRETIME, &PERSIST, &PEXPIRE, &PEXPIREAT, &PEXPIRETIME, &PTTL, &TTL];

const ONE_UPDATED: Keys = Keys(&[KeySpec::at(1, "RW update")]);

static EXPIRE: Command = Command {
    name: "EXPIRE",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::FAST),
    categories: categories::KEYSPACE,
    keys: ONE_UPDATED,
    log: LogRule::Effects,
    handler: Handler::Data(expire),
    syntax: "key seconds [NX | XX | GT | LT]",
    summary: "Lets a key expire after a number of seconds.",
    ..Command::DEFAULT
};

fn expire(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = call.db.facts().now;
    expire_generic(call, reply, "expire", |seconds| seconds.checked_mul(1000)?.checked_add(now))
}

static PEXPIRE: Command = Command {
    name: "PEXPIRE",
    handler: Handler::Data(pexpire),
    since: "2.6.0",
    syntax: "key milliseconds [NX | XX | GT | LT]",
    summary: "Lets a key expire after a number of milliseconds.",
    ..EXPIRE
};

fn pexpire(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = call.db.facts().now;
    expire_generic(call, reply, "pexpire", |milliseconds| milliseconds.checked_add(now))
}

static EXPIREAT: Command = Command {
    name: "EXPIREAT",
    handler: Handler::Data(expireat),
    since: "1.2.0",
    syntax: "key unix-time-seconds [NX | XX | GT | LT]",
    summary: "Lets a key expire at a time, given in Unix seconds.",
    ..EXPIRE
};

fn expireat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expire_generic(call, reply, "expireat", |seconds| seconds.checked_mul(1000))
}

static PEXPIREAT: Command = Command {
    name: "PEXPIREAT",
    handler: Handler::Data(pexpireat),
    since: "2.6.0",
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
    summary: "Lets a key expire at a time, given in Unix milliseconds.",
    ..EXPIRE
};

fn pexpireat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expire_generic(call, reply, "pexpireat", Some)
}

/// The four commands above. `absolute` turns the given number into Unix milliseconds, unless it overflows.
fn expire_generic(
    call: &mut Call<'_>,
    reply: Reply<'_>,
    name: &'static str,
    absolute: impl FnOnce(i64) -> Option<i64>,
) -> Outcome {
    let conditions = Conditions::parse(Words::new(call.args, 3))?;
    let at = absolute(args::integer(call.args.at(2))?).ok_or(CommandError::InvalidExpire(name))?;
    // The time is clamped to what a record can hold before it is compared, so that a repeated GT changes nothing.
    let at = at.min(EXPIRY_MAX as i64);
    let key = call.key(1);
    let Some(current) = call.db.peek(key).map(|entry| entry.expiry()) else { return Ok(reply.int(0)) };
    if !conditions.allow(current.map(|at| at as i64), at) {
        return Ok(reply.int(0));
    }
    let facts = *call.db.facts();
    if at <= facts.now && !facts.replaying {
        call.db.remove(key);
        call.record(key).delete();
        call.db.notify(NotifyFlags::GENERIC, "del", key);
    } else {
        call.db.set_expiry(key, Some(at));
        if !facts.no_touch {
            call.db.touch(key);
        }
        call.record(key).expire_at(at);
        call.db.notify(NotifyFlags::GENERIC, "expire", key);
    }
    Ok(reply.int(1))
}

/// The condition on the current expiry under which a new one may be set.
#[derive(Default)]
struct Conditions {
    /// Only if there is none.
    nx: bool,
    /// Only if there is one.
    xx: bool,
    /// Only a later one; a key without expiry counts as never expiring.
    gt: bool,
    /// Only an earlier one.
    lt: bool,
}

impl Conditions {
    fn parse(words: Words<'_>) -> Result<Conditions, CommandError> {
        let mut all = Conditions::default();
        for word in words {
            match () {
                () if args::is(word, "NX") => all.nx = true,
                () if args::is(word, "XX") => all.xx = true,
                () if args::is(word, "GT") => all.gt = true,
                () if args::is(word, "LT") => all.lt = true,
                () => return Err(CommandError::echo("Unsupported option ", word, "")),
            }
        }
        if all.nx && (all.xx || all.gt || all.lt) {
            return Err(CommandError::Text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if all.gt && all.lt {
            return Err(CommandError::Text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(all)
    }

    fn allow(&self, current: Option<i64>, new: i64) -> bool {
        let forbidden = match current {
            None => self.xx || self.gt,
            Some(current) => self.nx || self.gt && new <= current || self.lt && new >= current,
        };
        !forbidden
    }
}

static PERSIST: Command = Command {
    name: "PERSIST",
    arity: Arity::Exactly(2),
    handler: Handler::Data(persist),
    since: "2.2.0",
    syntax: "key",
    summary: "Takes the expiry of a key away.",
    ..EXPIRE
};

fn persist(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let volatile = call.db.peek(key).is_some_and(|entry| entry.expiry().is_some());
    if volatile {
        call.db.set_expiry(key, None);
        call.record(key).persist();
        call.db.notify(NotifyFlags::GENERIC, "persist", key);
    }
    Ok(reply.int(volatile.into()))
}

static TTL: Command = Command {
    name: "TTL",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(ttl),
    tips: "nondeterministic_output",
    syntax: "key",
    summary: "Gives the seconds until a key expires, -1 if it never does, -2 if there is none.",
    ..Command::DEFAULT
};

fn ttl(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = call.db.facts().now;
    expiry_generic(call, reply, |at| rounded_seconds((at - now).max(0)))
}

static PTTL: Command = Command {
    name: "PTTL",
    handler: Handler::Data(pttl),
    since: "2.6.0",
    summary: "Gives the milliseconds until a key expires, -1 if it never does, -2 if there is none.",
    ..TTL
};

fn pttl(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = call.db.facts().now;
    expiry_generic(call, reply, |at| (at - now).max(0))
}

static EXPIRETIME: Command = Command {
    name: "EXPIRETIME",
    handler: Handler::Data(expiretime),
    since: "7.0.0",
    tips: "",
    summary: "Gives the time at which a key expires in Unix seconds, -1 if it never does, -2 if there is none.",
    ..TTL
};

fn expiretime(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expiry_generic(call, reply, rounded_seconds)
}

static PEXPIRETIME: Command = Command {
    name: "PEXPIRETIME",
    handler: Handler::Data(pexpiretime),
    summary: "Gives the time at which a key expires in Unix milliseconds, -1 if it never does, -2 if there is none.",
    ..EXPIRETIME
};

fn pexpiretime(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expiry_generic(call, reply, |at| at)
}

/// The four commands above. `shown` turns the expiry in Unix milliseconds into the reply.
fn expiry_generic(call: &mut Call<'_>, reply: Reply<'_>, shown: impl FnOnce(i64) -> i64) -> Outcome {
    let key = call.key(1);
    Ok(reply.int(match call.db.read(key).map(|entry| entry.expiry()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => shown(at as i64),
    }))
}

/// Milliseconds rounded to seconds as Redis does.
fn rounded_seconds(milliseconds: i64) -> i64 {
    (milliseconds + 500) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::Runner;

    #[test]
    fn all_forms_set_and_log_the_same_absolute_time() {
        for line in ["EXPIRE k 100", "PEXPIRE k 100000", "EXPIREAT k 1700000100", "PEXPIREAT k 1700000100000"] {
            let mut t = Runner::new();
            t.run("SET k v");
            t.take_logged();
            assert_eq!(t.run(line), ":1 ");
            assert_eq!(t.take_logged(), ["PEXPIREAT k 1700000100000"]);
            assert_eq!(t.run("PTTL k"), ":100000 ");
            assert_eq!(t.run("TTL k"), ":100 ");
            assert_eq!(t.run("EXPIRETIME k"), ":1700000100 ");
            assert_eq!(t.run("PEXPIRETIME k"), ":1700000100000 ");
            assert_eq!(t.run("PERSIST k"), ":1 ");
            assert_eq!(t.run("PERSIST k"), ":0 ");
            assert_eq!(t.take_logged(), ["PERSIST k"]);
            assert_eq!(t.run("PTTL k"), ":-1 ");
        }
    }

    #[test]
    fn seconds_are_rounded_to_the_nearest() {
        let mut t = Runner::new();
        t.run("SET k v PX 1499");
        assert_eq!(t.run("TTL k"), ":1 ");
        assert_eq!(t.run("EXPIRETIME k"), ":1700000001 ");
        t.run("SET k v PX 1500");
        assert_eq!(t.run("TTL k"), ":2 ");
        assert_eq!(t.run("EXPIRETIME k"), ":1700000002 ");
        t.run("SET k v PX 499");
        assert_eq!(t.run("TTL k"), ":0 ");
    }

    #[test]
    fn a_key_without_value_has_neither_expiry_nor_time() {
        let mut t = Runner::new();
        for line in ["TTL k", "PTTL k", "EXPIRETIME k", "PEXPIRETIME k"] {
            assert_eq!(t.run(line), ":-2 ");
        }
        for line in ["EXPIRE k 1", "PEXPIREAT k -5", "PERSIST k"] {
            assert_eq!(t.run(line), ":0 ");
        }
        assert_eq!(t.take_logged(), [""; 0]);
    }

    #[test]
    fn conditions_compare_with_the_expiry_that_is_there() {
        // The expiry before (0 for none), the command, whether it is set.
        let cases = [
            (0, "NX", true),
            (0, "XX", false),
            (0, "GT", false),
            (0, "LT", true),
            (0, "XX LT", false),
            (50, "NX", false),
            (50, "xx", true),
            (50, "GT", true),
            (50, "LT", false),
            (100, "gt", false),
            (100, "LT", false),
            (150, "GT", false),
            (150, "LT", true),
            (150, "XX lt LT", true),
            (50, "XX GT", true),
        ];
        for (before, condition, set) in cases {
            let mut t = Runner::new();
            t.run("SET k v");
            if before > 0 {
                t.run(&format!("EXPIRE k {before}"));
            }
            t.take_logged();
            assert_eq!(t.run(&format!("EXPIRE k 100 {condition}")), format!(":{} ", i32::from(set)), "{condition}");
            assert_eq!(t.take_logged().len(), usize::from(set));
            let expected = if set {
                100
            } else if before > 0 {
                before
            } else {
                -1
            };
            assert_eq!(t.run("TTL k"), format!(":{expected} "));
        }
    }

    #[test]
    fn a_time_in_the_past_removes_the_key_at_once() {
        for line in ["EXPIRE k 0", "EXPIRE k -1", "PEXPIREAT k 1700000000000", "PEXPIRE k -9223372036854775808"] {
            let mut t = Runner::new();
            t.run("SET k v");
            t.take_logged();
            assert_eq!(t.run(line), ":1 ", "{line}");
            assert_eq!(t.take_logged(), ["DEL k"]);
            assert_eq!(t.run("EXISTS k"), ":0 ");
        }
        let mut t = Runner::new();
        t.run("SET k v");
        assert_eq!(t.run("EXPIRE k -1 GT"), ":0 ");
        assert_eq!(t.run("EXPIRE k -1 XX"), ":0 ");
        assert_eq!(t.run("EXPIRE k -1 LT"), ":1 ");
    }

    #[test]
    fn a_time_that_has_passed_by_the_replay_still_only_sets_the_expiry() {
        let mut t = Runner::new();
        t.run("SET k v");
        t.run("PEXPIRE k 100");
        t.advance_ms(1000);
        t.assert_replay_equals_live();
        assert_eq!(t.run("PERSIST k"), ":0 ");
        assert_eq!(t.take_logged().last().map(String::as_str), Some("DEL k"));
    }

    #[test]
    fn mistakes_are_noticed_in_redis_order() {
        let mut t = Runner::new();
        t.run("SET k v");
        t.take_logged();
        let nx = "-ERR NX and XX, GT or LT options at the same time are not compatible ";
        let gt = "-ERR GT and LT options at the same time are not compatible ";
        for (line, expected) in [
            ("EXPIRE k abc FOO", "-ERR Unsupported option FOO "),
            ("EXPIRE k 1 NX XX Foo", "-ERR Unsupported option Foo "),
            ("EXPIRE k abc NX XX", nx),
            ("EXPIRE k 1 GT LT NX", nx),
            ("EXPIRE k 1 GT LT", gt),
            ("EXPIRE k abc", "-ERR value is not an integer or out of range "),
            ("EXPIRE nokey 9223372036854775807", "-ERR invalid expire time in 'expire' command "),
            ("EXPIRE k 9223372036854775", "-ERR invalid expire time in 'expire' command "),
            ("EXPIRE k -9223372036854775808", "-ERR invalid expire time in 'expire' command "),
            ("PEXPIRE k 9223372036854775807", "-ERR invalid expire time in 'pexpire' command "),
            ("EXPIREAT k 9223372036854776", "-ERR invalid expire time in 'expireat' command "),
            ("EXPIRE k", "-ERR wrong number of arguments for 'expire' command "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
        assert_eq!(t.take_logged(), [""; 0]);
        assert_eq!(t.run("PEXPIREAT k 9223372036854775807"), ":1 ");
        assert_eq!(t.run("PEXPIREAT k 9223372036854775807 GT"), ":0 ");
        assert_eq!(t.run("PEXPIRETIME k"), format!(":{EXPIRY_MAX} "));
        assert_eq!(t.take_logged(), [format!("PEXPIREAT k {EXPIRY_MAX}")]);
    }

    #[test]
    fn a_new_expiry_counts_as_a_use() {
        let mut t = Runner::new();
        t.run("SET k v");
        t.advance_ms(9000);
        t.run("EXPIRE k 100");
        assert_eq!(t.run("OBJECT IDLETIME k"), ":0 ");
    }
}
