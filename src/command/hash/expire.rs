//! Expiries of fields: setting, reading and removing them.

use super::{CHANGE_FAST, Fields, HASH, NOT_POSITIVE, READ_FAST, Unit, is_over};
use super::{now, read, remove_expired};
use crate::core::args::is;
use crate::core::{Arity, Call, Command, Handler, KeySpec, Keys, LogRule, Outcome};
use crate::resp::Reply;
use crate::value::hash::AnyHash;

/// The reply for a field that is missing, ...
const NO_FIELD: i64 = -2;
/// ... that never expires, ...
const NO_EXPIRY: i64 = -1;
/// ... whose expiry stays because the condition does not hold, ...
const NOT_ALLOWED: i64 = 0;
/// ... whose expiry was changed, ...
const CHANGED: i64 = 1;
/// ... and that was removed because its time has already come.
const REMOVED: i64 = 2;

const UPDATED: Keys = Keys(&[KeySpec::at(1, "RW update")]);

pub(super) static HEXPIRE: Command = Command {
    name: "HEXPIRE",
    arity: Arity::AtLeast(6),
    flags: CHANGE_FAST,
    keys: UPDATED,
    log: LogRule::Effects, // as the expiry that the fields have then, or that they are gone
    handler: Handler::Data(hexpire),
    since: "7.4.0",
    complexity: "O(N) where N is the number of fields.",
    syntax: "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Lets fields expire after a number of seconds.",
    ..HASH
};

fn hexpire(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expire_generic(call, reply, Unit::EX, "hexpire")
}

pub(super) static HPEXPIRE: Command = Command {
    name: "HPEXPIRE",
    handler: Handler::Data(hpexpire),
    syntax: "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Lets fields expire after a number of milliseconds.",
    ..HEXPIRE
};

fn hpexpire(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expire_generic(call, reply, Unit::PX, "hpexpire")
}

pub(super) static HEXPIREAT: Command = Command {
    name: "HEXPIREAT",
    handler: Handler::Data(hexpireat),
    syntax: "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Lets fields expire at a time, given in Unix seconds.",
    ..HEXPIRE
};

fn hexpireat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expire_generic(call, reply, Unit::EXAT, "hexpireat")
}

pub(super) static HPEXPIREAT: Command = Command {
    name: "HPEXPIREAT",
    handler: Handler::Data(hpexpireat),
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Lets fields expire at a time, given in Unix milliseconds.",
    ..HEXPIRE
};

fn hpexpireat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expire_generic(call, reply, Unit::PXAT, "hpexpireat")
}

/// The four commands above.
fn expire_generic(call: &mut Call<'_>, reply: Reply<'_>, unit: Unit, name: &'static str) -> Outcome {
    let (args, key) = (call.args, call.key(1));
    call.db.peek_view::<AnyHash>(key)?;
    let at = unit.deadline(args.at(2), call, name)?;
    let condition = Condition::parse(args.at(3));
    let first = if condition.is_some() { 4 } else { 3 };
    let fields = Fields::parse(args, first, "ERR Parameter `numFields` should be greater than 0")?;
    remove_expired(call, key, fields.iter());
    let is_over = is_over(call, at);
    let mut statuses = reply.array(fields.len());
    let mut changed: Vec<&[u8]> = Vec::new();
    call.db.edit::<AnyHash, _>(key, |hash| {
        for field in fields.iter() {
            let status = match hash.view().get_with_expiry(field, 0) {
                None => NO_FIELD,
                Some((_, expiry)) if condition.is_some_and(|condition| !condition.allows(expiry, at)) => NOT_ALLOWED,
                Some(_) if is_over => {
                    hash.remove(field);
                    REMOVED
                }
                Some(_) => {
                    hash.set_expiry(field, Some(at));
                    CHANGED
                }
            };
            if status > NOT_ALLOWED {
                changed.push(field);
            }
            statuses.int(status);
        }
        Ok(((), changed.len() as u64))
    })?;
    match changed.is_empty() {
        true => {}
        false if is_over => call.record(key).hash_delete(changed.iter().copied()),
        false => call.record(key).hash_expire_at(at, changed.iter().copied()),
    }
    if !changed.is_empty() {
        call.db.notify_fields(if is_over { "hdel" } else { "hexpire" }, key, changed.iter().copied());
        call.db.notify_if_gone(key);
    }
    Ok(statuses.done())
}

/// The condition on the current expiry under which a new one may be set.
#[derive(Clone, Copy)]
enum Condition {
    /// Only if there is none.
    Nx,
    /// Only if there is one.
    Xx,
    /// Only a later one; a field without expiry counts as never expiring.
    Gt,
    /// Only an earlier one.
    Lt,
}

impl Condition {
    fn parse(word: &[u8]) -> Option<Condition> {
        let all = [("NX", Condition::Nx), ("XX", Condition::Xx), ("GT", Condition::Gt), ("LT", Condition::Lt)];
        all.into_iter().find(|(name, _)| is(word, name)).map(|(_, condition)| condition)
    }

    fn allows(self, current: Option<u64>, new: u64) -> bool {
        match self {
            Condition::Nx => current.is_none(),
            Condition::Xx => current.is_some(),
            Condition::Gt => current.is_some_and(|current| new > current),
            Condition::Lt => current.is_none_or(|current| new < current),
        }
    }
}

pub(super) static HPERSIST: Command = Command {
    name: "HPERSIST",
    arity: Arity::AtLeast(5),
    flags: CHANGE_FAST,
    log: LogRule::Effects, // the fields that had an expiry
    handler: Handler::Data(hpersist),
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Takes the expiry of fields away.",
    ..HEXPIRE
};

fn hpersist(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, key) = (call.args, call.key(1));
    call.db.peek_view::<AnyHash>(key)?;
    let fields = Fields::parse(args, 2, NOT_POSITIVE)?;
    remove_expired(call, key, fields.iter());
    let mut statuses = reply.array(fields.len());
    let mut changed: Vec<&[u8]> = Vec::new();
    call.db.edit::<AnyHash, _>(key, |hash| {
        for field in fields.iter() {
            statuses.int(match hash.view().get_with_expiry(field, 0) {
                None => NO_FIELD,
                Some((_, None)) => NO_EXPIRY,
                Some((_, Some(_))) => {
                    hash.set_expiry(field, None);
                    changed.push(field);
                    CHANGED
                }
            });
        }
        Ok(((), changed.len() as u64))
    })?;
    if !changed.is_empty() {
        call.record(key).hash_persist(changed.iter().copied());
        call.db.notify_fields("hpersist", key, changed.iter().copied());
    }
    Ok(statuses.done())
}

pub(super) static HTTL: Command = Command {
    name: "HTTL",
    arity: Arity::AtLeast(5),
    flags: READ_FAST,
    keys: read::ACCESSED,
    handler: Handler::Data(httl),
    since: "7.4.0",
    complexity: "O(N) where N is the number of fields.",
    tips: "nondeterministic_output",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Gives the seconds until fields expire, -1 for one that never does, -2 for one that is missing.",
    ..HASH
};

fn httl(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = now(call);
    expiry_generic(call, reply, |at| rounded_up(at.saturating_sub(now)))
}

pub(super) static HPTTL: Command = Command {
    name: "HPTTL",
    handler: Handler::Data(hpttl),
    summary: "Gives the milliseconds until fields expire, -1 for one that never does, -2 for one that is missing.",
    ..HTTL
};

fn hpttl(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = now(call);
    expiry_generic(call, reply, |at| at.saturating_sub(now))
}

pub(super) static HEXPIRETIME: Command = Command {
    name: "HEXPIRETIME",
    handler: Handler::Data(hexpiretime),
    tips: "",
    summary: "Gives when fields expire in Unix seconds, -1 for one that never does, -2 for one that is missing.",
    ..HTTL
};

fn hexpiretime(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expiry_generic(call, reply, rounded_up)
}

pub(super) static HPEXPIRETIME: Command = Command {
    name: "HPEXPIRETIME",
    handler: Handler::Data(hpexpiretime),
    summary: "Gives when fields expire in Unix milliseconds, -1 for one that never does, -2 for one that is missing.",
    ..HEXPIRETIME
};

fn hpexpiretime(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    expiry_generic(call, reply, |at| at)
}

/// The four commands above; `shown` makes the reply of an expiry in Unix milliseconds.
fn expiry_generic(call: &mut Call<'_>, reply: Reply<'_>, shown: impl Fn(u64) -> u64) -> Outcome {
    let (now, args, key) = (now(call), call.args, call.key(1));
    let hash = call.db.view::<AnyHash>(key)?;
    let fields = Fields::parse(args, 2, NOT_POSITIVE)?;
    let mut expiries = reply.array(fields.len());
    for field in fields.iter() {
        expiries.int(match hash.and_then(|hash| hash.get_with_expiry(field, now)) {
            None => NO_FIELD,
            Some((_, None)) => NO_EXPIRY,
            Some((_, Some(at))) => shown(at) as i64,
        });
    }
    Ok(expiries.done())
}

/// Milliseconds as seconds: unlike those of keys, they are rounded up.
fn rounded_up(milliseconds: u64) -> u64 {
    milliseconds.div_ceil(1000)
}
