//! Commands that move an element from one list to another, or pop from the first of several lists that has any, and
//! their blocking forms.

use super::{ONE_LIST, ends};
use crate::core::waiting::{Block, BlockedOn, timeout_seconds};
use crate::core::{
    Arity, Call, Command, CommandError, Flags, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, args, flags,
};
use crate::keyspace::Key;
use crate::resp::Reply;
use crate::value::list::{AnyList, End, ListMut};

pub(super) const BLOCKING: Flags = flags::WRITE.or(flags::BLOCKING);

pub(super) const MOVE_KEYS: Keys = Keys(&[KeySpec::at(1, "RW access delete"), KeySpec::at(2, "RW insert")]);

pub(super) static LMOVE: Command = Command {
    name: "LMOVE",
    arity: Arity::Exactly(5),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: MOVE_KEYS,
    log: LogRule::Effects, // as a pop from one list and a push to the other
    handler: Handler::Data(lmove),
    since: "6.2.0",
    syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
    summary: "Moves an element from an end of one list to an end of another.",
    ..ONE_LIST
};

pub(super) static RPOPLPUSH: Command = Command {
    name: "RPOPLPUSH",
    arity: Arity::Exactly(3),
    handler: Handler::Data(rpoplpush),
    since: "1.2.0",
    syntax: "source destination",
    summary: "Moves an element from the right end of one list to the left end of another.",
    ..LMOVE
};

pub(super) static BLMOVE: Command = Command {
    name: "BLMOVE",
    arity: Arity::Exactly(6),
    flags: BLOCKING.or(flags::DENYOOM),
    handler: Handler::Data(blmove),
    syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout",
    summary: "Moves an element as LMOVE does, and waits for one.",
    ..LMOVE
};

pub(super) static BRPOPLPUSH: Command = Command {
    name: "BRPOPLPUSH",
    arity: Arity::Exactly(4),
    flags: BLOCKING.or(flags::DENYOOM),
    handler: Handler::Data(brpoplpush),
    since: "2.2.0",
    syntax: "source destination timeout",
    summary: "Moves an element as RPOPLPUSH does, and waits for one.",
    ..LMOVE
};

pub(super) fn end(word: &[u8]) -> Result<End, CommandError> {
    match word {
        word if args::is(word, "LEFT") => Ok(End::Left),
        word if args::is(word, "RIGHT") => Ok(End::Right),
        _ => Err(CommandError::Syntax),
    }
}

fn lmove(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (from, to) = (end(call.args.at(3))?, end(call.args.at(4))?);
    Ok(match shift(call, from, to)? {
        None => reply.null(),
        Some(element) => reply.bulk(&element),
    })
}

fn rpoplpush(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    Ok(match shift(call, End::Right, End::Left)? {
        None => reply.null(),
        Some(element) => reply.bulk(&element),
    })
}

fn blmove(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (from, to) = (end(call.args.at(3))?, end(call.args.at(4))?);
    shift_or_wait(call, from, to, 5, reply)
}

fn brpoplpush(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    shift_or_wait(call, End::Right, End::Left, 3, reply)
}

fn shift_or_wait(call: &mut Call<'_>, from: End, to: End, timeout_at: usize, reply: Reply<'_>) -> Outcome {
    let timeout = timeout_seconds(call.args.at(timeout_at), call.db.facts().now)?;
    if let Some(element) = shift(call, from, to)? {
        return Ok(reply.bulk(&element));
    }
    if !call.may_block {
        return Ok(reply.null());
    }
    // Redis answers with a null array after the timeout, although the element is not an array.
    call.block_on(Block::new(timeout, BlockedOn::List), reply)
}

/// Moves an element; `None` if there is none.
fn shift(call: &mut Call<'_>, from: End, to: End) -> Result<Option<Vec<u8>>, CommandError> {
    let (source, destination) = (call.key(1), call.key(2));
    if call.db.peek_view::<AnyList>(source)?.is_none() {
        return Ok(None);
    }
    call.db.peek_view::<AnyList>(destination)?;
    let pushed = |list: &mut ListMut<'_>, element: &[u8]| {
        list.expect(1, element.len());
        list.push(element, to);
    };
    let is_rotation = source.bytes == destination.bytes;
    let popped = call.db.edit::<AnyList, _>(source, |list| {
        let popped = list.pop(from, |element| element.to_vec());
        if let Some(element) = popped.as_ref().filter(|_| is_rotation) {
            pushed(list, element);
        }
        Ok((popped, 1))
    })?;
    let (Some(element), before) = (popped, call.db.changes()) else { return Ok(None) };
    if is_rotation {
        // In this order, so that the key and its expiry outlive the replay where this is its only element.
        call.record(source).push(to, std::iter::once(&element[..]));
        call.record(source).pop(from, 1);
        call.db.notify(NotifyFlags::LIST, ends::push_event(to), source);
        call.db.notify(NotifyFlags::LIST, ends::pop_event(from), source);
        return Ok(Some(element));
    }
    call.db.edit::<AnyList, _>(destination, |list| {
        pushed(list, &element);
        Ok(((), 1))
    })?;
    // A move counts as one change.
    call.db.count_as(before, 0);
    call.record(source).pop(from, 1);
    call.record(destination).push(to, std::iter::once(&element[..]));
    call.db.notify(NotifyFlags::LIST, ends::push_event(to), destination);
    call.db.notify_edited(NotifyFlags::LIST, ends::pop_event(from), source);
    Ok(Some(element))
}

pub(super) static BLPOP: Command = Command {
    name: "BLPOP",
    arity: Arity::AtLeast(3),
    flags: BLOCKING,
    keys: Keys(&[KeySpec::range(1, -2, 1, "RW access delete")]),
    log: LogRule::Effects, // as a pop from the list that had an element
    handler: Handler::Data(|call, reply| pop_or_wait(call, End::Left, reply)),
    since: "2.0.0",
    complexity: "O(N) where N is the number of provided keys.",
    syntax: "key [key ...] timeout",
    summary: "Removes an element from the left end of the first list that has one, and waits for one.",
    ..ONE_LIST
};

pub(super) static BRPOP: Command = Command {
    name: "BRPOP",
    handler: Handler::Data(|call, reply| pop_or_wait(call, End::Right, reply)),
    summary: "Removes an element from the right end of the first list that has one, and waits for one.",
    ..BLPOP
};

fn pop_or_wait(call: &mut Call<'_>, end: End, reply: Reply<'_>) -> Outcome {
    let timeout = timeout_seconds(call.args.at(call.args.len() - 1), call.db.facts().now)?;
    let Some((key, _)) = first_with_any(call)? else {
        return call.block_on(Block::new(timeout, BlockedOn::List), reply);
    };
    let popped = call.db.edit::<AnyList, _>(key, |list| Ok((list.pop(end, |element| element.to_vec()), 1)))?;
    call.record(key).pop(end, 1);
    call.db.notify_edited(NotifyFlags::LIST, ends::pop_event(end), key);
    let mut both = reply.array(2);
    both.bulk(key.bytes);
    both.bulk(&popped.unwrap_or_default());
    Ok(both.done())
}

/// Finds the first of the keys that holds a list. Returns it with its length.
///
/// # Errors
/// An earlier key holds something else.
fn first_with_any<'a>(call: &mut Call<'a>) -> Result<Option<(Key<'a>, usize)>, CommandError> {
    let keys: Vec<Key<'a>> = call.keys().collect();
    for key in keys {
        if let Some(list) = call.db.peek_view::<AnyList>(key)? {
            return Ok(Some((key, list.len())));
        }
    }
    Ok(None)
}

pub(super) static LMPOP: Command = Command {
    name: "LMPOP",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::counted(1, "RW access delete")]),
    log: LogRule::Effects, // as a pop from the list that had any
    handler: Handler::Data(lmpop),
    since: "7.0.0",
    complexity: "O(N+M) where N is the number of provided keys and M is the number of elements returned.",
    syntax: "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
    summary: "Removes elements from an end of the first list that has any.",
    ..ONE_LIST
};

pub(super) static BLMPOP: Command = Command {
    name: "BLMPOP",
    arity: Arity::AtLeast(5),
    flags: BLOCKING.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::counted(2, "RW access delete")]),
    handler: Handler::Data(blmpop),
    syntax: "timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
    summary: "Removes elements as LMPOP does, and waits for one.",
    ..LMPOP
};

fn lmpop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (end, count) = args::end_and_count(call.args, 1, end)?;
    match pop_first(call, end, count, reply)? {
        Ok(done) => Ok(done),
        Err(reply) => Ok(reply.null_array()),
    }
}

fn blmpop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (end, count) = args::end_and_count(call.args, 2, end)?;
    let timeout = timeout_seconds(call.args.at(1), call.db.facts().now)?;
    match pop_first(call, end, count, reply)? {
        Ok(done) => Ok(done),
        Err(reply) => call.block_on(Block::new(timeout, BlockedOn::List), reply),
    }
}

/// Pops from the first list that has any. Gives the reply back if none has.
fn pop_first<'a>(
    call: &mut Call<'_>,
    end: End,
    count: usize,
    reply: Reply<'a>,
) -> Result<Result<crate::resp::Done, Reply<'a>>, CommandError> {
    let Some((key, len)) = first_with_any(call)? else { return Ok(Err(reply)) };
    let popped = len.min(count);
    let mut both = reply.array(2);
    both.bulk(key.bytes);
    let mut elements = both.array(popped);
    ends::pop_several(call, key, end, popped, &mut elements)?;
    elements.end();
    call.record(key).pop(end, popped);
    call.db.notify_edited(NotifyFlags::LIST, ends::pop_event(end), key);
    Ok(Ok(both.done()))
}
