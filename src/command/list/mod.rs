//! Commands for lists. Pushing and popping are in `ends`, commands that move elements or choose among keys in
//! `several`, and the other commands on one list here.

mod block;
mod ends;
mod position;
mod several;
#[cfg(test)]
mod tests;

use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, args, categories, flags,
};
use crate::resp::{Elements, Reply};
use crate::value::list::{AnyList, End};
use crate::value::listpack::Item;

/// The commands of this family.
pub static COMMANDS: &[&Command] = &[
    &several::BLMOVE,
    &block::BLMOVEM,
    &several::BLMPOP,
    &several::BLPOP,
    &several::BRPOP,
    &several::BRPOPLPUSH,
    &LINDEX,
    &LINSERT,
    &LLEN,
    &several::LMOVE,
    &block::LMOVEM,
    &several::LMPOP,
    &ends::LPOP,
    &position::LPOS,
    &ends::LPUSH,
    &ends::LPUSHX,
    &LRANGE,
    &LREM,
    &LSET,
    &LTRIM,
    &ends::RPOP,
    &several::RPOPLPUSH,
    &ends::RPUSH,
    &ends::RPUSHX,
];

/// What the commands on one list share.
const ONE_LIST: Command = Command {
    flags: flags::READONLY,
    categories: categories::LIST,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    group: "list",
    ..Command::DEFAULT
};

/// Writes an element of a list as an element of a reply.
fn write(elements: &mut Elements<'_>, element: Item<'_>) {
    elements.bulk(element.as_bytes(&mut itoa::Buffer::new()));
}

/// Writes an element of a list as a reply.
fn write_one(reply: Reply<'_>, element: Item<'_>) -> crate::resp::Done {
    reply.bulk(element.as_bytes(&mut itoa::Buffer::new()))
}

/// Resolves a client's first and last index into a range, which may be empty.
fn range(len: usize, start: i64, stop: i64) -> std::ops::Range<usize> {
    let absolute = |index: i64| if index < 0 { index.saturating_add(len as i64) } else { index };
    let (start, stop) = (absolute(start).max(0), absolute(stop).min(len as i64 - 1));
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

static LLEN: Command = Command {
    name: "LLEN",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(llen),
    syntax: "key",
    summary: "Counts the elements of a list.",
    ..ONE_LIST
};

fn llen(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(reply.int(call.db.view::<AnyList>(key)?.map_or(0, |list| list.len() as i64)))
}

static LRANGE: Command = Command {
    name: "LRANGE",
    arity: Arity::Exactly(4),
    handler: Handler::Data(lrange),
    complexity: "O(S+N) where S is the distance of start offset from HEAD for small lists, from nearest end (HEAD or TAIL) for large lists; and N is the number of elements in the specified range.",
    syntax: "key start stop",
    summary: "Gives a range of elements.",
    ..ONE_LIST
};

fn lrange(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let (start, stop) = (args::integer(call.args.at(2))?, args::integer(call.args.at(3))?);
    let Some(list) = call.db.view::<AnyList>(key)? else { return Ok(reply.array(0).done()) };
    let range = range(list.len(), start, stop);
    let mut elements = reply.array(range.len());
    list.iter_from(range.start, End::Right).take(range.len()).for_each(|element| write(&mut elements, element));
    Ok(elements.done())
}

static LINDEX: Command = Command {
    name: "LINDEX",
    arity: Arity::Exactly(3),
    handler: Handler::Data(lindex),
    complexity: "O(N) where N is the number of elements to traverse to get to the element at index. This makes asking for the first or the last element of the list O(1).",
    syntax: "key index",
    summary: "Gives the element at an index, counted from the end if negative.",
    ..ONE_LIST
};

fn lindex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, index) = (call.key(1), call.args.at(2));
    let Some(list) = call.db.view::<AnyList>(key)? else { return Ok(reply.null()) };
    let index = list.index(args::integer(index)?);
    Ok(match index.and_then(|index| list.get(index)) {
        None => reply.null(),
        Some(element) => write_one(reply, element),
    })
}

static LSET: Command = Command {
    name: "LSET",
    arity: Arity::Exactly(4),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(lset),
    complexity: "O(N) where N is the length of the list. Setting either the first or the last element of the list is O(1).",
    syntax: "key index element",
    summary: "Puts another element in the place of the one at an index.",
    ..ONE_LIST
};

fn lset(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, element) = (call.key(1), call.args.at(3));
    let list = call.db.peek_view::<AnyList>(key)?.ok_or(CommandError::NoSuchKey)?;
    let index = list.index(args::integer(call.args.at(2))?).ok_or(CommandError::OutOfRange("index out of range"))?;
    call.db.edit::<AnyList, _>(key, |list| {
        // As in Redis, this counts as one more element although it replaces another.
        list.expect(1, element.len());
        list.set(index, element);
        Ok(((), 1))
    })?;
    call.record(key).list_set(index, element);
    call.db.notify(NotifyFlags::LIST, "lset", key);
    Ok(reply.ok())
}

static LINSERT: Command = Command {
    name: "LINSERT",
    arity: Arity::Exactly(5),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "RW insert")]),
    log: LogRule::Effects,
    handler: Handler::Data(linsert),
    since: "2.2.0",
    complexity: "O(N) where N is the number of elements to traverse before seeing the value pivot. This means that inserting somewhere on the left end on the list (head) can be considered O(1) and inserting somewhere on the right end (tail) is O(N).",
    syntax: "key <BEFORE | AFTER> pivot element",
    summary: "Inserts an element before or after another one.",
    ..ONE_LIST
};

fn linsert(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, pivot, element) = (call.key(1), Item::canonical(call.args.at(3)), call.args.at(4));
    let behind = match call.args.at(2) {
        word if args::is(word, "AFTER") => 1,
        word if args::is(word, "BEFORE") => 0,
        _ => return Err(CommandError::Syntax),
    };
    let Some(list) = call.db.peek_view::<AnyList>(key)? else { return Ok(reply.int(0)) };
    let Some(index) = list.iter().position(|element| element == pivot) else { return Ok(reply.int(-1)) };
    let len = call.db.edit::<AnyList, _>(key, |list| {
        list.expect(1, element.len());
        list.insert(index + behind, element);
        Ok((list.view().len(), 1))
    })?;
    call.record(key).list_insert(index + behind, element);
    call.db.notify(NotifyFlags::LIST, "linsert", key);
    Ok(reply.int(len as i64))
}

static LREM: Command = Command {
    name: "LREM",
    arity: Arity::Exactly(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects,
    handler: Handler::Data(lrem),
    complexity: "O(N+M) where N is the length of the list and M is the number of elements removed.",
    syntax: "key count element",
    summary: "Removes elements equal to one, from the left, from the right if the count is negative, or all.",
    ..ONE_LIST
};

fn lrem(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, element) = (call.key(1), call.args.at(3));
    let count = args::signed(call.args.at(2))?;
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let from = if count < 0 { End::Right } else { End::Left };
    let removed = call.db.edit::<AnyList, _>(key, |list| {
        let removed = list.remove_equal(element, most, from);
        Ok((removed, removed as u64))
    })?;
    if removed > 0 {
        call.record(key).list_remove(from, removed, element);
        call.db.notify_edited(NotifyFlags::LIST, "lrem", key);
    }
    Ok(reply.int(removed as i64))
}

static LTRIM: Command = Command {
    name: "LTRIM",
    arity: Arity::Exactly(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects,
    handler: Handler::Data(ltrim),
    complexity: "O(N) where N is the number of elements to be removed by the operation.",
    syntax: "key start stop",
    summary: "Keeps a range of elements and removes all others.",
    ..ONE_LIST
};

fn ltrim(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let (start, stop) = (args::integer(call.args.at(2))?, args::integer(call.args.at(3))?);
    let Some(list) = call.db.peek_view::<AnyList>(key)? else { return Ok(reply.ok()) };
    let len = list.len();
    let kept = range(len, start, stop);
    call.db.edit::<AnyList, _>(key, |list| {
        list.remove_range(kept.end..len);
        list.remove_range(0..kept.start);
        Ok(((), (len - kept.len()) as u64))
    })?;
    if kept.len() < len {
        call.record(key).list_keep(kept.start, kept.len());
    }
    // As in Redis, even if nothing was cut off.
    call.db.notify_edited(NotifyFlags::LIST, "ltrim", key);
    Ok(reply.ok())
}
