//! Commands on one set. Those that combine several are in `algebra`.

mod algebra;
#[cfg(test)]
mod tests;

use crate::base::random;
use crate::command::keys::scan::{ElementOptions, Page, Scanned, parse_cursor};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::keyspace::Key;
use crate::resp::{Elements, Reply};
use crate::value::listpack::Item;
use crate::value::set::{AnySet, SetMut, SetRef};

/// The commands of this file and of `algebra`.
pub static COMMANDS: &[&Command] = &[
    &SADD,
    &SCARD,
    &SISMEMBER,
    &SMEMBERS,
    &SMISMEMBER,
    &SMOVE,
    &SPOP,
    &SRANDMEMBER,
    &SREM,
    &SSCAN,
    &algebra::SDIFF,
    &algebra::SDIFFCARD,
    &algebra::SDIFFSTORE,
    &algebra::SINTER,
    &algebra::SINTERCARD,
    &algebra::SINTERSTORE,
    &algebra::SUNION,
    &algebra::SUNIONCARD,
    &algebra::SUNIONSTORE,
];

/// Records of removed members name at most this many, so that no record becomes too large.
const LOGGED_TOGETHER_MAX: usize = 1024;

/// What the commands on one set share.
const ONE_SET: Command = Command {
    flags: flags::READONLY,
    categories: categories::SET,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    group: "set",
    ..Command::DEFAULT
};

static SADD: Command = Command {
    name: "SADD",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW insert")]),
    log: LogRule::Effects,
    member: 2,
    handler: Handler::Data(sadd),
    complexity: "O(1) for each element added, so O(N) to add N elements when the command is called with multiple arguments.",
    syntax: "key member [member ...]",
    summary: "Adds members to a set, which is made if there is none.",
    ..ONE_SET
};

fn sadd(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let added = call.db.edit::<AnySet, _>(key, |set| {
        set.expect(args.len() - 2, args.at(2));
        let added = args.from(2).filter(|member| set.add(member)).count() as u64;
        Ok((added, added))
    })?;
    if added > 0 {
        call.record(key).set_add(args.from(2));
        call.db.notify(NotifyFlags::SET, "sadd", key);
    }
    Ok(reply.int(added as i64))
}

static SREM: Command = Command {
    name: "SREM",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects,
    member: 2,
    handler: Handler::Data(srem),
    complexity: "O(N) where N is the number of members to be removed.",
    syntax: "key member [member ...]",
    summary: "Removes members from a set, and the set when none is left.",
    ..ONE_SET
};

fn srem(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let removed = call.db.edit::<AnySet, _>(key, |set| {
        let removed = args.from(2).filter(|member| set.remove(member)).count() as u64;
        Ok((removed, removed))
    })?;
    if removed > 0 {
        call.record(key).set_remove(args.from(2));
        call.db.notify_edited(NotifyFlags::SET, "srem", key);
    }
    Ok(reply.int(removed as i64))
}

static SCARD: Command = Command {
    name: "SCARD",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(scard),
    syntax: "key",
    summary: "Counts the members of a set.",
    ..ONE_SET
};

fn scard(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(reply.int(call.db.view::<AnySet>(key)?.map_or(0, |set| set.len() as i64)))
}

static SISMEMBER: Command = Command {
    name: "SISMEMBER",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO")]),
    member: 2,
    handler: Handler::Data(sismember),
    syntax: "key member [XX]",
    summary: "Tells whether a member belongs to a set, and with XX also whether there is a set.",
    ..ONE_SET
};

fn sismember(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let tells_missing = match args.get(3) {
        None => false,
        Some(word) if args::is(word, "XX") && args.len() == 4 => true,
        // As in Redis, which takes no option.
        Some(_) => return Err(CommandError::Arity(call.name().to_owned())),
    };
    Ok(reply.int(match call.db.view::<AnySet>(key)? {
        None if tells_missing => -1,
        set => set.is_some_and(|set| set.contains(args.at(2))).into(),
    }))
}

static SMISMEMBER: Command = Command {
    name: "SMISMEMBER",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::FAST),
    handler: Handler::Data(smismember),
    since: "6.2.0",
    complexity: "O(N) where N is the number of elements being checked for membership",
    syntax: "key member [member ...]",
    summary: "Tells of several members whether they belong to a set.",
    ..ONE_SET
};

fn smismember(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let set = call.db.view::<AnySet>(key)?;
    let mut found = reply.array(call.args.len() - 2);
    call.args.from(2).for_each(|member| found.int(set.is_some_and(|set| set.contains(member)).into()));
    Ok(found.done())
}

static SMEMBERS: Command = Command {
    name: "SMEMBERS",
    arity: Arity::Exactly(2),
    handler: Handler::Data(smembers),
    complexity: "O(N) where N is the set cardinality.",
    tips: "nondeterministic_output_order",
    syntax: "key",
    summary: "Gives all members of a set.",
    ..ONE_SET
};

fn smembers(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let Some(set) = call.db.view::<AnySet>(key)? else { return Ok(reply.set(0).done()) };
    let mut members = reply.set(set.len());
    set.iter().for_each(|member| write(&mut members, member));
    Ok(members.done())
}

/// Writes a member as an element of a reply.
fn write(elements: &mut Elements<'_>, member: Item<'_>) {
    elements.bulk(member.as_bytes(&mut itoa::Buffer::new()));
}

static SMOVE: Command = Command {
    name: "SMOVE",
    arity: Arity::Exactly(4),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete"), KeySpec::at(2, "RW insert")]),
    log: LogRule::Effects, // as a member that left the one set and came to the other
    handler: Handler::Data(smove),
    syntax: "source destination member",
    summary: "Moves a member from one set to another.",
    ..ONE_SET
};

fn smove(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (from, to, member) = (call.key(1), call.key(2), call.args.at(3));
    let Some(source) = call.db.peek_view::<AnySet>(from)? else { return Ok(reply.int(0)) };
    let found = source.contains(member);
    call.db.peek_view::<AnySet>(to)?;
    if !found || from.bytes == to.bytes {
        return Ok(reply.int(found.into()));
    }
    let one = |changed: bool| Ok(((), u64::from(changed)));
    call.db.edit::<AnySet, _>(from, |set| one(set.remove(member)))?;
    call.record(from).set_remove(std::iter::once(member));
    call.db.notify_edited(NotifyFlags::SET, "srem", from);
    let added = call.db.edit::<AnySet, _>(to, |set| {
        set.expect(1, member);
        let added = set.add(member);
        Ok((added, u64::from(added)))
    })?;
    if added {
        call.record(to).set_add(std::iter::once(member));
        call.db.notify(NotifyFlags::SET, "sadd", to);
    }
    Ok(reply.int(1))
}

static SPOP: Command = Command {
    name: "SPOP",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete")]),
    log: LogRule::Effects, // as the members that went: another draw would choose others
    handler: Handler::Data(spop),
    complexity: "Without the count argument O(1), otherwise O(N) where N is the value of the passed count.",
    tips: "nondeterministic_output",
    syntax: "key [count@3.2.0]",
    summary: "Removes members of a set at random and gives them.",
    ..ONE_SET
};

fn spop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    match call.args.len() {
        2 => spop_one(call, key, reply),
        3 => spop_several(call, key, reply),
        _ => Err(CommandError::Syntax),
    }
}

fn spop_one(call: &mut Call<'_>, key: Key<'_>, reply: Reply<'_>) -> Outcome {
    let popped = call.db.edit::<AnySet, _>(key, |set| {
        let popped = random::with(|random| set.view().random(random).map(Item::to_vec));
        let changes = popped.as_ref().map_or(0, |member| u64::from(set.remove(member)));
        Ok((popped, changes))
    })?;
    let Some(member) = popped else { return Ok(reply.null()) };
    call.record(key).set_remove(std::iter::once(&member[..]));
    call.db.notify_edited(NotifyFlags::SET, "spop", key);
    Ok(reply.bulk(&member))
}

fn spop_several(call: &mut Call<'_>, key: Key<'_>, reply: Reply<'_>) -> Outcome {
    let count = match args::integer(call.args.at(2)) {
        Ok(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
        _ => return Err(CommandError::OutOfRange("value is out of range, must be positive")),
    };
    let Some(set) = call.db.peek_view::<AnySet>(key)? else { return Ok(reply.set(0).done()) };
    let len = set.len();
    if count == 0 {
        return Ok(reply.set(0).done());
    }
    if count >= len {
        let mut members = reply.set(len);
        set.iter().for_each(|member| write(&mut members, member));
        let before = call.db.changes();
        call.db.remove(key);
        call.db.count_as(before, len as u64);
        call.record(key).delete();
        call.db.notify_edited(NotifyFlags::SET, "spop", key);
        return Ok(members.done());
    }
    let popped = call.db.edit::<AnySet, _>(key, |set| {
        let popped = draw(set, count);
        Ok((popped, count as u64))
    })?;
    for members in popped.chunks(LOGGED_TOGETHER_MAX) {
        call.record(key).set_remove(members.iter().map(Vec::as_slice));
    }
    call.db.notify(NotifyFlags::SET, "spop", key);
    let mut members = reply.set(popped.len());
    popped.iter().for_each(|member| members.bulk(member));
    Ok(members.done())
}

/// Removes `count` random members, fewer than all. If few stay, those that stay are drawn instead.
fn draw(set: &mut SetMut<'_>, count: usize) -> Vec<Vec<u8>> {
    let distinct = |wanted: usize, set: &SetMut<'_>| {
        let mut drawn = std::collections::HashSet::new();
        random::with(|random| {
            while drawn.len() < wanted {
                drawn.extend(set.view().random(random).map(Item::to_vec));
            }
        });
        drawn
    };
    let stay = set.view().len() - count;
    let popped: Vec<Vec<u8>> = if stay < count {
        let staying = distinct(stay, set);
        set.view().iter().map(Item::to_vec).filter(|member| !staying.contains(member)).collect()
    } else {
        distinct(count, set).into_iter().collect()
    };
    for member in &popped {
        set.remove(member);
    }
    popped
}

static SRANDMEMBER: Command = Command {
    name: "SRANDMEMBER",
    arity: Arity::AtLeast(2),
    handler: Handler::Data(srandmember),
    complexity: "Without the count argument O(1), otherwise O(N) where N is the absolute value of the passed count.",
    tips: "nondeterministic_output",
    syntax: "key [count@2.6.0]",
    summary: "Gives members of a set at random.",
    ..ONE_SET
};

fn srandmember(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    if call.args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let Some(count) = call.args.get(2) else {
        let member = call.db.view::<AnySet>(key)?.and_then(|set| random::with(|random| set.random(random)));
        return Ok(match member {
            None => reply.null(),
            Some(member) => reply.bulk(member.as_bytes(&mut itoa::Buffer::new())),
        });
    };
    let count = args::integer(count)?;
    args::check_repeated(count)?;
    let set = call.db.view::<AnySet>(key)?;
    let Some(set) = set.filter(|_| count != 0) else { return Ok(reply.array(0).done()) };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 {
        let mut members = reply.array(wanted);
        random::with(|random| {
            (0..wanted).for_each(|_| set.random(random).into_iter().for_each(|member| write(&mut members, member)));
        });
        return Ok(members.done());
    }
    let chosen = distinct(set, wanted);
    let mut members = reply.array(chosen.len());
    chosen.into_iter().for_each(|member| write(&mut members, member));
    Ok(members.done())
}

/// Different random members: all if that many are wanted.
fn distinct(set: SetRef<'_>, wanted: usize) -> Vec<Item<'_>> {
    let len = set.len();
    if wanted >= len {
        return set.iter().collect();
    }
    if wanted.saturating_mul(3) > len || !matches!(set, SetRef::Large(_)) {
        // Draws would often repeat, so all are put in a row and shuffled from the front.
        let mut all: Vec<Item<'_>> = set.iter().collect();
        random::with(|random| (0..wanted).for_each(|at| all.swap(at, at + random.index(len - at))));
        all.truncate(wanted);
        return all;
    }
    let (mut seen, mut chosen) = (std::collections::HashSet::new(), Vec::with_capacity(wanted));
    random::with(|random| {
        while chosen.len() < wanted {
            if let Some(Item::Str(member)) = set.random(random)
                && seen.insert(member)
            {
                chosen.push(Item::Str(member));
            }
        }
    });
    chosen
}

static SSCAN: Command = Command {
    name: "SSCAN",
    arity: Arity::AtLeast(3),
    handler: Handler::Data(sscan),
    since: "2.8.0",
    complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
    tips: "nondeterministic_output",
    syntax: "key cursor [MATCH pattern] [COUNT count]",
    summary: "Gives members of a set, some at each call.",
    ..ONE_SET
};

fn sscan(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, words) = (call.key(1), Words::new(call.args, 3));
    let cursor = parse_cursor(call.args.at(2))?;
    let set = call.db.view::<AnySet>(key)?;
    let mut page = Page::default();
    let Some(set) = set else { return Ok(page.reply(reply, 0)) };
    let options = ElementOptions::parse(words, Scanned::Members)?;
    let next = set.scan(cursor, options.count, &mut |member| {
        if options.keeps(member) {
            page.push(member);
        }
    });
    Ok(page.reply(reply, next))
}
