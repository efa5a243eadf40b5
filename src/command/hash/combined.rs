//! Commands that read or store fields and change their expiry in one step: HGETDEL, HGETEX, HSETEX.

use super::{CHANGE_FAST, Fields, HASH, NOT_POSITIVE, Unit, WRITE_FAST, is_over};
use super::{remove_expired, value_element};
use crate::core::args::{integer, is};
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome};
use crate::keyspace::Key;
use crate::persist::verbs::FieldExpiry;
use crate::resp::{Args, Reply};
use crate::value::hash::{AnyHash, HashMut, NewExpiry};

pub(super) static HGETDEL: Command = Command {
    name: "HGETDEL",
    arity: Arity::AtLeast(5),
    flags: CHANGE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW access delete")]),
    log: LogRule::Effects, // the fields that were there
    handler: Handler::Data(hgetdel),
    since: "8.0.0",
    complexity: "O(N) where N is the number of fields.",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Gives the values of fields and removes them.",
    ..HASH
};

fn hgetdel(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, key) = (call.args, call.key(1));
    call.db.peek_view::<AnyHash>(key)?;
    let fields = Fields::parse(args, 2, NOT_POSITIVE)?;
    remove_expired(call, key, fields.iter());
    let mut values = reply.array(fields.len());
    let mut removed: Vec<&[u8]> = Vec::new();
    call.db.edit::<AnyHash, _>(key, |hash| {
        for field in fields.iter() {
            value_element(&mut values, hash.view().get(field, 0));
            if hash.remove(field) {
                removed.push(field);
            }
        }
        Ok(((), removed.len() as u64))
    })?;
    if !removed.is_empty() {
        call.record(key).hash_delete(removed.iter().copied());
        call.db.notify_fields("hdel", key, removed.iter().copied());
        call.db.notify_if_gone(key);
    }
    Ok(values.done())
}

/// What HGETEX does to the expiry of the fields that it returns.
#[derive(Clone, Copy)]
enum Change {
    Nothing,
    Persist,
    At(u64),
}

pub(super) static HGETEX: Command = Command {
    name: "HGETEX",
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: LogRule::Effects, // as the expiry that the fields have then, or none, or that they are gone
    handler: Handler::Data(hgetex),
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] \
             FIELDS numfields field [field ...]",
    summary: "Gives the values of fields and sets or clears their expiry.",
    ..HGETDEL
};

fn hgetex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, key) = (call.args, call.key(1));
    call.db.peek_view::<AnyHash>(key)?;
    let (change, at) = match Unit::of_word(args.at(2)) {
        Some(unit) => (Change::At(unit.deadline(args.at(3), call, "hgetex")?), 4),
        None if is(args.at(2), "PERSIST") => (Change::Persist, 3),
        None => (Change::Nothing, 2),
    };
    if args.get(at).is_some_and(|word| is(word, "FIELDS")) && args.len() == at + 1 {
        return Err(CommandError::Arity(call.name().to_owned()));
    }
    let fields = Fields::parse(args, at, NOT_POSITIVE)?;
    remove_expired(call, key, fields.iter());
    let removes = matches!(change, Change::At(at) if is_over(call, at));
    let mut values = reply.array(fields.len());
    let mut changed: Vec<&[u8]> = Vec::new();
    call.db.edit::<AnyHash, _>(key, |hash| {
        for field in fields.iter() {
            let found = hash.view().get_with_expiry(field, 0);
            value_element(&mut values, found.map(|(value, _)| value));
            let Some(expiry) = found.map(|(_, expiry)| expiry) else { continue };
            match change {
                Change::At(_) if removes => {
                    hash.remove(field);
                }
                Change::At(at) => hash.set_expiry(field, Some(at)),
                Change::Persist if expiry.is_some() => hash.set_expiry(field, None),
                Change::Persist | Change::Nothing => continue,
            }
            changed.push(field);
        }
        Ok(((), changed.len() as u64))
    })?;
    match change {
        _ if changed.is_empty() => {}
        _ if removes => call.record(key).hash_delete(changed.iter().copied()),
        Change::At(at) => call.record(key).hash_expire_at(at, changed.iter().copied()),
        _ => call.record(key).hash_persist(changed.iter().copied()),
    }
    if !changed.is_empty() {
        let event = match change {
            _ if removes => "hdel",
            Change::At(_) => "hexpire",
            _ => "hpersist",
        };
        call.db.notify_fields(event, key, changed.iter().copied());
        call.db.notify_if_gone(key);
    }
    Ok(values.done())
}

pub(super) static HSETEX: Command = Command {
    name: "HSETEX",
    arity: Arity::AtLeast(6),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects, // without conditions, with an absolute expiry; or as fields that are gone
    handler: Handler::Data(hsetex),
    since: "8.0.0",
    complexity: "O(N) where N is the number of fields.",
    syntax: "key [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]",
    summary: "Stores fields, on conditions and with an expiry if asked.",
    ..HASH
};

fn hsetex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let options = StoreOptions::parse(call)?;
    let pairs = Pairs { args: call.args, first: options.first };
    remove_expired(call, key, pairs.names());
    let removes = matches!(options.expiry, NewExpiry::At(at) if is_over(call, at));
    let existed = call.db.kind_to_tell(key).is_some();
    let (stored, removed) = call.db.edit::<AnyHash, _>(key, |hash| {
        let exists = |hash: &HashMut<'_>, field: &[u8]| hash.view().contains(field, 0);
        let allowed = match options.condition {
            None => true,
            Some(wanted) => pairs.names().all(|field| exists(hash, field) == wanted),
        };
        if !allowed {
            return Ok(((false, Vec::new()), 0));
        }
        if removes {
            let removed: Vec<&[u8]> = pairs.names().filter(|field| hash.remove(field)).collect();
            let changes = removed.len() as u64;
            return Ok(((true, removed), changes));
        }
        hash.reserve(pairs.len());
        for (field, value) in pairs.iter() {
            hash.set(field, value, options.expiry);
        }
        Ok(((true, Vec::new()), pairs.len() as u64))
    })?;
    if removes && !removed.is_empty() {
        call.record(key).hash_delete(removed.iter().copied());
    } else if stored && !removes {
        let expiry = match options.expiry {
            NewExpiry::At(at) => FieldExpiry::At(at),
            NewExpiry::Keep => FieldExpiry::Keep,
            NewExpiry::Clear => FieldExpiry::Clear,
        };
        call.record(key).hash_set(expiry, pairs.args.from(pairs.first));
    }
    if stored {
        tell_stored(call, key, pairs, (existed, removes, matches!(options.expiry, NewExpiry::At(_))));
    }
    Ok(reply.int(stored.into()))
}

/// Tells what HSETEX did. Fields whose expiry is past count as stored and removed again, and so does a key that was not
/// there before.
fn tell_stored(call: &mut Call<'_>, key: Key<'_>, pairs: Pairs<'_>, (existed, removes, expires): (bool, bool, bool)) {
    if removes && !existed {
        call.db.notify(NotifyFlags::NEW, "new", key);
    }
    call.db.notify_fields("hset", key, pairs.names());
    if removes {
        call.db.notify_fields("hdel", key, pairs.names());
        call.db.notify_if_gone(key);
    } else if expires {
        call.db.notify_fields("hexpire", key, pairs.names());
    }
}

/// The fields with their values, which follow the options.
#[derive(Clone, Copy)]
struct Pairs<'a> {
    args: Args<'a>,
    first: usize,
}

impl<'a> Pairs<'a> {
    fn len(self) -> usize {
        (self.args.len() - self.first) / 2
    }

    fn names(self) -> impl Iterator<Item = &'a [u8]> {
        self.args.from(self.first).step_by(2)
    }

    fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.names().zip(self.args.from(self.first + 1).step_by(2))
    }
}

/// The options of HSETEX.
struct StoreOptions {
    /// FXX: all fields must exist; FNX: none may.
    condition: Option<bool>,
    expiry: NewExpiry,
    /// Where the fields begin.
    first: usize,
}

impl StoreOptions {
    fn parse(call: &Call<'_>) -> Result<StoreOptions, CommandError> {
        const TWO_CONDITIONS: CommandError =
            CommandError::Text("ERR Only one of FXX or FNX arguments can be specified");
        const TWO_EXPIRIES: CommandError =
            CommandError::Text("ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified");
        let (args, arity) = (call.args, || CommandError::Arity(call.name().to_owned()));
        let (mut condition, mut expiry) = (None, NewExpiry::Clear);
        let mut at = 2;
        while let Some(word) = args.get(at) {
            at += 1;
            let unit = Unit::of_word(word);
            if is(word, "FIELDS") {
                if args.len() < at + 3 {
                    // Not even one field with its value.
                    return Err(arity());
                }
                let number = integer(args.at(at)).ok();
                let number = number.filter(|number| (1..=i64::from(i32::MAX)).contains(number));
                let number = number.ok_or(CommandError::Text("ERR invalid number of fields"))?;
                let first = at + 1;
                let fits = (args.len() - first) as i64 == number * 2;
                return if fits { Ok(StoreOptions { condition, expiry, first }) } else { Err(arity()) };
            } else if is(word, "FXX") || is(word, "FNX") {
                if condition.is_some() {
                    return Err(TWO_CONDITIONS);
                }
                condition = Some(is(word, "FXX"));
            } else if is(word, "KEEPTTL") || unit.is_some() {
                if expiry != NewExpiry::Clear {
                    return Err(TWO_EXPIRIES);
                }
                expiry = NewExpiry::Keep;
                if let Some(unit) = unit {
                    expiry = NewExpiry::At(unit.deadline(args.get(at).ok_or_else(arity)?, call, "hsetex")?);
                    at += 1;
                }
            } else {
                return Err(CommandError::echo("unknown argument: ", word, ""));
            }
        }
        Err(arity())
    }
}
