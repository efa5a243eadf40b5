//! HyperLogLog commands: PFADD, PFCOUNT, PFMERGE; `debug` has PFDEBUG and PFSELFTEST.
//!
//! A HyperLogLog is a string, whose form [`value::hyperloglog`](crate::value::hyperloglog) describes.
//!
//! Invariants:
//! - A value whose registers make no sense is an error and stays as it was.
//! - A value that becomes dense is logged as a whole, so that a replay gives the same bytes for any
//!   `hll-sparse-max-bytes`.

mod pfdebug;

use smallvec::SmallVec;

use crate::core::stored_string::{StringRef, string_of};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, categories, flags,
};
use crate::keyspace::NewValue;
use crate::resp::Reply;
use crate::value::hyperloglog::{self, Corrupt, Encoding, Observation, REGISTERS};

/// The commands of this module.
pub static COMMANDS: &[&Command] = &[&PFADD, &PFCOUNT, &pfdebug::PFDEBUG, &PFMERGE, &pfdebug::PFSELFTEST];

/// What all commands of this module share.
const HYPERLOGLOG: Command =
    Command { group: "hyperloglog", categories: categories::HYPERLOGLOG, since: "2.8.9", ..Command::DEFAULT };

/// A stored HyperLogLog.
#[derive(Clone, Copy)]
struct Stored<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    /// Whether it can be changed in place.
    is_growable: bool,
}

/// Checks that a string is a HyperLogLog.
fn stored(value: StringRef<'_>) -> Result<Stored<'_>, CommandError> {
    let (bytes, is_growable) = match value {
        StringRef::Raw(bytes) => (bytes.as_slice(), true),
        StringRef::Str(bytes) => (bytes.as_slice(), false),
        StringRef::Int(_) => (&b""[..], false),
    };
    match hyperloglog::encoding(bytes) {
        Some(encoding) => Ok(Stored { bytes, encoding, is_growable }),
        None => Err(CommandError::Text("WRONGTYPE Key is not a valid HyperLogLog string value.")),
    }
}

/// The error for a value whose registers make no sense.
fn corrupt(_: Corrupt) -> CommandError {
    CommandError::Text("INVALIDOBJ Corrupted HLL object detected")
}

static PFADD: Command = Command {
    name: "PFADD",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW insert")]),
    log: LogRule::Effects, // as the registers that rose; the whole value where it is new or became dense
    handler: Handler::Data(pfadd),
    complexity: "O(1) for each element.",
    syntax: "key [element [element ...]]",
    summary: "Counts elements into the HyperLogLog at a key, and makes the key if there is none.",
    ..HYPERLOGLOG
};

fn pfadd(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, elements) = (call.key(1), call.args.from(2).map(Observation::of));
    let sparse_len_max = call.db.facts().hll_sparse_max_bytes;
    let before = call.db.changes();
    let mut raised: SmallVec<[(u16, u8); 8]> = SmallVec::new();
    let mut observe_all = |hll: &mut Vec<u8>| {
        for seen in elements.clone() {
            if hyperloglog::observe(hll, seen, sparse_len_max).map_err(corrupt)? {
                raised.push((seen.register as u16, seen.rank));
            }
        }
        Ok(raised.len() as u64)
    };
    let Some(old) = call.db.string_to_change(key)?.map(stored).transpose()? else {
        let mut hll = hyperloglog::empty();
        let observed = observe_all(&mut hll)?;
        // Redis marks the count of a new key as out of date even if nothing was counted.
        hyperloglog::invalidate_count(&mut hll);
        call.db.set(key, NewValue::Raw(hll), None);
        call.db.count_as(before, 1 + observed);
        call.db.log_state(key);
        call.db.notify(NotifyFlags::STRING, "pfadd", key);
        return Ok(reply.int(1));
    };
    let mut changes = elements.clone().map(|seen| hyperloglog::would_change(old.bytes, seen));
    let first_change = changes.find(|change| *change != Ok(false)).transpose().map_err(corrupt)?;
    if first_change.is_none() {
        if !old.is_growable {
            call.db.make_growable(key);
        }
        return Ok(reply.int(0));
    }
    let was = old.encoding;
    let mut is = was;
    let observed = match was {
        Encoding::Dense => observe_all(call.db.raw_mut(key).ok_or(CommandError::WrongType)?)?,
        Encoding::Sparse => {
            // Works on a copy, because a sparse value may turn out to be corrupt halfway.
            let mut hll = old.bytes.to_vec();
            let observed = observe_all(&mut hll)?;
            is = hyperloglog::encoding(&hll).unwrap_or(was);
            *call.db.raw_mut(key).ok_or(CommandError::WrongType)? = hll;
            observed
        }
    };
    call.db.count_as(before, observed);
    match is == was {
        true => call.record(key).raise_registers(&raised),
        false => call.db.log_state(key),
    }
    call.db.notify(NotifyFlags::STRING, "pfadd", key);
    Ok(reply.int(1))
}

static PFCOUNT: Command = Command {
    name: "PFCOUNT",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY.or(flags::SPREADS),
    keys: Keys(&[KeySpec {
        notes: "RW because it may change the internal representation of the key, and propagate to replicas",
        ..KeySpec::range(1, -1, 1, "RW access")
    }]),
    handler: Handler::Data(pfcount),
    complexity: "O(1) for one key whose count is stored; O(N) for N keys, with a large constant.",
    syntax: "key [key ...]",
    summary: "Gives about how many different elements the HyperLogLogs at some keys have seen together.",
    ..HYPERLOGLOG
};

fn pfcount(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.len() > 2 {
        return count_union(call, reply);
    }
    let key = call.key(1);
    let Some(hll) = call.db.string(key)?.map(stored).transpose()? else { return Ok(reply.int(0)) };
    if let Some(count) = hyperloglog::cached_count(hll.bytes) {
        if !hll.is_growable {
            call.db.make_growable(key);
        }
        return Ok(reply.int(count as i64));
    }
    let count = hyperloglog::count(hll.bytes).map_err(corrupt)?;
    // The count is stored beside the registers. As in Redis, a command that only reads makes this change.
    let bytes = call.db.raw_mut(key).ok_or(CommandError::WrongType)?;
    let (at, written) = hyperloglog::cache_count(bytes, count);
    call.record(key).set_range(at, &written);
    Ok(reply.int(count as i64))
}

fn count_union(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut registers = [0; REGISTERS];
    for key in call.keys() {
        if let Some(hll) = call.db.string(key)?.map(stored).transpose()? {
            hyperloglog::merge(&mut registers, hll.bytes).map_err(corrupt)?;
        }
    }
    Ok(reply.int(hyperloglog::count_registers(&registers) as i64))
}

static PFMERGE: Command = Command {
    name: "PFMERGE",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "RW access insert"), KeySpec::range(2, -1, 1, "RO access")]),
    log: LogRule::Effects, // as the state of the destination
    handler: Handler::Data(pfmerge),
    complexity: "O(N) to merge N HyperLogLogs, with a large constant.",
    syntax: "destkey [sourcekey [sourcekey ...]]",
    summary: "Adds to a HyperLogLog what others have seen.",
    ..HYPERLOGLOG
};

fn pfmerge(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let destination = call.key(1);
    let sparse_len_max = call.db.facts().hll_sparse_max_bytes;
    let mut registers = [0; REGISTERS];
    let mut dense = false;
    for key in call.keys() {
        if let Some(hll) = call.db.string(key)?.map(stored).transpose()? {
            dense |= hll.encoding == Encoding::Dense;
            hyperloglog::merge(&mut registers, hll.bytes).map_err(corrupt)?;
        }
    }
    let (mut hll, mut expiry) = (hyperloglog::empty(), None);
    if let Some(entry) = call.db.peek(destination) {
        // An expiry has 48 bits: it always fits.
        expiry = entry.expiry().map(|at| at as i64);
        hll = stored(string_of(entry)?)?.bytes.to_vec();
    }
    if dense {
        hyperloglog::make_dense(&mut hll).map_err(corrupt)?;
    }
    for (register, &rank) in registers.iter().enumerate().filter(|(_, rank)| **rank > 0) {
        hyperloglog::observe(&mut hll, Observation { register, rank }, sparse_len_max).map_err(corrupt)?;
    }
    hyperloglog::invalidate_count(&mut hll);
    call.db.set(destination, NewValue::Raw(hll), expiry);
    call.db.log_state(destination);
    call.db.notify(NotifyFlags::STRING, "pfadd", destination);
    Ok(reply.simple("OK"))
}

#[cfg(test)]
mod tests;
