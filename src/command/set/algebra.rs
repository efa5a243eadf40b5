//! Commands that combine sets: intersection, union, difference.
//!
//! All sets are read together. A stored result is built beside them and put in place at the end, so the destination
//! may be one of them.

use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::keyspace::{Key, NewValue};
use crate::resp::Reply;
use crate::value::collection::{Collection, Finished};
use crate::value::hyperloglog::{self, Observation, REGISTERS, Registers};
use crate::value::listpack::Item;
use crate::value::set::{AnySet, SetMut, SetRef};

const SEVERAL: Command = Command {
    arity: Arity::AtLeast(2),
    flags: flags::READONLY,
    categories: categories::SET,
    keys: Keys(&[KeySpec::range(1, -1, 1, "RO access")]),
    group: "set",
    tips: "nondeterministic_output_order",
    syntax: "key [key ...]",
    ..Command::DEFAULT
};

const STORING: Command = Command {
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "OW update"), KeySpec::range(2, -1, 1, "RO access")]),
    log: LogRule::Effects, // as the destination's whole state
    tips: "",
    syntax: "destination key [key ...]",
    ..SEVERAL
};

const INTER_TIME: &str =
    "O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets.";
const SUM_TIME: &str = "O(N) where N is the total number of elements in all given sets.";

pub(super) static SINTER: Command = Command {
    name: "SINTER",
    handler: Handler::Data(|call, reply| give(call, Operation::Inter, reply)),
    complexity: INTER_TIME,
    summary: "Gives the members that all sets have.",
    ..SEVERAL
};

pub(super) static SUNION: Command = Command {
    name: "SUNION",
    handler: Handler::Data(|call, reply| give(call, Operation::Union, reply)),
    complexity: SUM_TIME,
    summary: "Gives the members that any set has.",
    ..SEVERAL
};

pub(super) static SDIFF: Command = Command {
    name: "SDIFF",
    handler: Handler::Data(|call, reply| give(call, Operation::Diff, reply)),
    complexity: SUM_TIME,
    summary: "Gives the members of the first set that no other has.",
    ..SEVERAL
};

pub(super) static SINTERSTORE: Command = Command {
    name: "SINTERSTORE",
    keys: Keys(&[KeySpec::at(1, "RW update"), KeySpec::range(2, -1, 1, "RO access")]),
    handler: Handler::Data(|call, reply| store(call, Operation::Inter, reply)),
    complexity: INTER_TIME,
    summary: "Stores the members that all sets have.",
    ..STORING
};

pub(super) static SUNIONSTORE: Command = Command {
    name: "SUNIONSTORE",
    handler: Handler::Data(|call, reply| store(call, Operation::Union, reply)),
    complexity: SUM_TIME,
    summary: "Stores the members that any set has.",
    ..STORING
};

pub(super) static SDIFFSTORE: Command = Command {
    name: "SDIFFSTORE",
    handler: Handler::Data(|call, reply| store(call, Operation::Diff, reply)),
    complexity: SUM_TIME,
    summary: "Stores the members of the first set that no other has.",
    ..STORING
};

pub(super) static SINTERCARD: Command = Command {
    name: "SINTERCARD",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::counted(1, "RO access")]),
    handler: Handler::Data(sintercard),
    since: "7.0.0",
    complexity: INTER_TIME,
    tips: "",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members that all sets have.",
    ..SEVERAL
};

pub(super) static SUNIONCARD: Command = Command {
    name: "SUNIONCARD",
    handler: Handler::Data(sunioncard),
    since: "8.10.0",
    complexity: SUM_TIME,
    syntax: "numkeys key [key ...] [APPROX] [LIMIT limit]",
    summary: "Counts the members that any set has, or estimates their number.",
    ..SINTERCARD
};

pub(super) static SDIFFCARD: Command = Command {
    name: "SDIFFCARD",
    handler: Handler::Data(sdiffcard),
    since: "8.10.0",
    complexity: SUM_TIME,
    summary: "Counts the members of the first set that no other has.",
    ..SINTERCARD
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Inter,
    Union,
    Diff,
}

/// The sets at these keys; `None` for a missing key.
///
/// # Errors
/// One of the keys holds something else.
fn look<'a>(call: &'a mut Call<'_>, keys: &[Key<'_>]) -> Result<Vec<Option<SetRef<'a>>>, CommandError> {
    for key in keys {
        call.db.view::<AnySet>(*key)?;
    }
    let db = &call.db;
    Ok(keys.iter().map(|key| db.viewed::<AnySet>(*key)).collect())
}

fn give(call: &mut Call<'_>, operation: Operation, reply: Reply<'_>) -> Outcome {
    let keys: Vec<Key<'_>> = call.keys().collect();
    let limits = call.db.facts().limits;
    let sets = look(call, &keys)?;
    let mut result = SetMut::new(&limits);
    let mut found = Vec::new();
    match operation {
        // A member is found only once, so there is no need to check for duplicates.
        Operation::Inter => inter(&sets, &mut |member| {
            found.push(member);
            true
        }),
        Operation::Diff => diff(&sets, &mut |member| {
            found.push(member);
            true
        }),
        Operation::Union => {
            union(&sets, &mut result, 0);
            found = result.view().iter().collect();
        }
    }
    let mut members = reply.set(found.len());
    found.into_iter().for_each(|member| super::write(&mut members, member));
    Ok(members.done())
}

fn store(call: &mut Call<'_>, operation: Operation, reply: Reply<'_>) -> Outcome {
    let keys: Vec<Key<'_>> = call.keys().collect();
    let (destination, sources) = (keys[0], &keys[1..]);
    let limits = call.db.facts().limits;
    let sets = look(call, sources)?;
    let mut result = SetMut::new(&limits);
    match operation {
        Operation::Inter => inter(&sets, &mut |member| {
            add(&mut result, member);
            true
        }),
        Operation::Diff => diff(&sets, &mut |member| {
            add(&mut result, member);
            true
        }),
        Operation::Union => union(&sets, &mut result, 0),
    }
    let count = result.view().len();
    match AnySet::finish(result) {
        Finished::Packed(packing, bytes) => call.db.overwrite(destination, NewValue::Packed(packing, &bytes), None),
        Finished::Large(heap) => call.db.overwrite(destination, NewValue::Heap(heap), None),
        Finished::Empty | Finished::InPlace => {
            if call.db.remove(destination) {
                call.record(destination).delete();
                call.db.notify(NotifyFlags::GENERIC, "del", destination);
            }
            return Ok(reply.int(0));
        }
    }
    call.db.log_state(destination);
    let event = match operation {
        Operation::Inter => "sinterstore",
        Operation::Union => "sunionstore",
        Operation::Diff => "sdiffstore",
    };
    call.db.notify(NotifyFlags::SET, event, destination);
    Ok(reply.int(count as i64))
}

/// Finds the members of all sets, starting from the smallest set. Ends when `found` returns false.
fn inter<'a>(sets: &[Option<SetRef<'a>>], found: &mut dyn FnMut(Item<'a>) -> bool) {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<SetRef<'a>>>>() else { return };
    sets.sort_by_key(SetRef::len);
    let Some((smallest, others)) = sets.split_first() else { return };
    for member in smallest.iter() {
        if others.iter().all(|other| other.has(member)) && !found(member) {
            return;
        }
    }
}

fn add(result: &mut SetMut<'_>, member: Item<'_>) {
    result.add(member.as_bytes(&mut itoa::Buffer::new()));
}

/// Adds the members of all sets to a result, until it has this many; 0 for all.
fn union(sets: &[Option<SetRef<'_>>], result: &mut SetMut<'_>, limit: usize) {
    for set in sets.iter().flatten() {
        for member in set.iter() {
            add(result, member);
            if limit > 0 && result.view().len() >= limit {
                return;
            }
        }
    }
}

/// Finds the members of the first set alone. Larger other sets are asked first, because a member is most likely
/// there. Ends when `found` returns false.
fn diff<'a>(sets: &[Option<SetRef<'a>>], found: &mut dyn FnMut(Item<'a>) -> bool) {
    let Some((Some(first), others)) = sets.split_first() else { return };
    let mut others: Vec<SetRef<'a>> = others.iter().flatten().copied().collect();
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    for member in first.iter() {
        if !others.iter().any(|other| other.has(member)) && !found(member) {
            return;
        }
    }
}

/// The words behind the keys of a command that counts.
fn words_behind_keys<'a>(call: &Call<'a>) -> Result<Words<'a>, CommandError> {
    let numkeys = args::positive(call.args.at(1), "numkeys should be greater than 0")?;
    if numkeys > call.args.len() - 2 {
        return Err(CommandError::OutOfRange("Number of keys can't be greater than number of args"));
    }
    Ok(Words::new(call.args, 2 + numkeys))
}

fn sunioncard(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (mut words, mut limit, mut estimates) = (words_behind_keys(call)?, 0, false);
    while let Some(word) = words.next() {
        match word {
            word if args::is(word, "APPROX") => estimates = true,
            word if args::is(word, "LIMIT") => limit = args::limit_value(&mut words)?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let keys: Vec<Key<'_>> = call.keys().collect();
    let limits = call.db.facts().limits;
    let sets = look(call, &keys)?;
    let count = match &sets[..] {
        [only] => only.map_or(0, |set| set.len()),
        _ if estimates => estimate(&sets),
        _ => {
            let mut result = SetMut::new(&limits);
            union(&sets, &mut result, limit);
            result.view().len()
        }
    };
    Ok(reply.int(if limit > 0 { count.min(limit) } else { count } as i64))
}

/// About how many members all sets have together, by a HyperLogLog.
fn estimate(sets: &[Option<SetRef<'_>>]) -> usize {
    let mut registers: Registers = [0; REGISTERS];
    for set in sets.iter().flatten() {
        for member in set.iter() {
            Observation::of(member.as_bytes(&mut itoa::Buffer::new())).raise(&mut registers);
        }
    }
    hyperloglog::count_registers(&registers) as usize
}

fn sdiffcard(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let limit = args::limit(words_behind_keys(call)?)?;
    let keys: Vec<Key<'_>> = call.keys().collect();
    let sets = look(call, &keys)?;
    let mut count = 0;
    diff(&sets, &mut |_| {
        count += 1;
        count != limit
    });
    Ok(reply.int(count as i64))
}

fn sintercard(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let limit = args::limit(words_behind_keys(call)?)?;
    let keys: Vec<Key<'_>> = call.keys().collect();
    let sets = look(call, &keys)?;
    let mut count = 0;
    inter(&sets, &mut |_| {
        count += 1;
        count != limit
    });
    Ok(reply.int(count as i64))
}
