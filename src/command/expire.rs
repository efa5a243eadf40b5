//! Expiry: setting it, asking for it, taking it away.
//!
//! A time reaches the keyspace and the log as absolute Unix milliseconds. One that has passed already
//! removes the key at once; but not in a replay, where time stands still and only the log decides.

use super::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Log, Outcome, Words, args, categories, flags};
use crate::keyspace::entry::EXPIRY_MAX;
use crate::resp::Reply;

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
    log: Log::Rewritten,
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

/// The four commands above; `absolute` makes Unix milliseconds of the number given, unless it overflows.
fn expire_generic(
    call: &mut Call<'_>,
    reply: Reply<'_>,
    name: &'static str,
    absolute: impl FnOnce(i64) -> Option<i64>,
) -> Outcome {
    let conditions = Conditions::parse(Words::new(call.args, 3))?;
    let at = absolute(args::integer(call.args.at(2))?).ok_or(CommandError::InvalidExpire(name))?;
    // What a record can hold is compared, so that a repeated GT changes nothing.
    let at = at.min(EXPIRY_MAX as i64);
    let key = call.key(1);
    let Some(current) = call.db.peek(key).map(|entry| entry.expiry()) else { return Ok(reply.int(0)) };
    if !conditions.allow(current.map(|at| at as i64), at) {
        return Ok(reply.int(0));
    }
    let facts = *call.db.facts();
    if at <= facts.now && !facts.replaying {
        call.db.remove(key);
        call.log_as(key, &[b"DEL", key.bytes]);
    } else {
        call.db.set_expiry(key, Some(at));
        if !facts.no_touch {
            call.db.touch(key);
        }
        call.log_as(key, &[b"PEXPIREAT", key.bytes, itoa::Buffer::new().format(at).as_bytes()]);
    }
    Ok(reply.int(1))
}

/// When an expiry may be set, by what the key has now.
#[derive(Default)]
struct Conditions {
    /// Only where there is none.
    nx: bool,
    /// Only where there is one.
    xx: bool,
    /// Only a later one; a key without expiry lives for ever.
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
                () => {
                    let word = String::from_utf8_lossy(word);
                    return Err(CommandError::err(format_args!("Unsupported option {word}")));
                }
            }
        }
        if all.nx && (all.xx || all.gt || all.lt) {
            return Err(CommandError::Text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
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
        call.log_as(key, &[b"PERSIST", key.bytes]);
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

/// The four commands above; `shown` makes the reply of the expiry in Unix milliseconds.
fn expiry_generic(call: &mut Call<'_>, reply: Reply<'_>, shown: impl FnOnce(i64) -> i64) -> Outcome {
    let key = call.key(1);
    Ok(reply.int(match call.db.read(key).map(|entry| entry.expiry()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => shown(at as i64),
    }))
}

/// Milliseconds as the nearest seconds, as Redis rounds.
fn rounded_seconds(milliseconds: i64) -> i64 {
    (milliseconds + 500) / 1000
}
