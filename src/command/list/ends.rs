//! Commands that push to and pop from the ends of a list.

use super::{ONE_LIST, write, write_one};
use crate::core::error::Remains;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, args, flags,
};
use crate::keyspace::Key;
use crate::resp::{Elements, Reply};
use crate::value::list::{AnyList, End};

const PUSH: Command = Command {
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW insert")]),
    log: LogRule::Effects,
    complexity: "O(1) for each element added, so O(N) to add N elements when the command is called with multiple arguments.",
    syntax: "key element [element ...]",
    ..ONE_LIST
};

pub(super) static LPUSH: Command = Command {
    name: "LPUSH",
    handler: Handler::Data(|call, reply| push(call, End::Left, false, reply)),
    summary: "Adds elements at the left end of a list, which is made if there is none.",
    ..PUSH
};

pub(super) static RPUSH: Command = Command {
    name: "RPUSH",
    handler: Handler::Data(|call, reply| push(call, End::Right, false, reply)),
    summary: "Adds elements at the right end of a list, which is made if there is none.",
    ..PUSH
};

pub(super) static LPUSHX: Command = Command {
    name: "LPUSHX",
    handler: Handler::Data(|call, reply| push(call, End::Left, true, reply)),
    since: "2.2.0",
    summary: "Adds elements at the left end of a list, if there is one.",
    ..PUSH
};

pub(super) static RPUSHX: Command = Command {
    name: "RPUSHX",
    handler: Handler::Data(|call, reply| push(call, End::Right, true, reply)),
    since: "2.2.0",
    summary: "Adds elements at the right end of a list, if there is one.",
    ..PUSH
};

fn push(call: &mut Call<'_>, end: End, only_existing: bool, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    if only_existing && call.db.peek_view::<AnyList>(key)?.is_none() {
        return Ok(reply.int(0));
    }
    let elements = args.len() - 2;
    let len = call.db.edit::<AnyList, _>(key, |list| {
        list.expect(elements, args.from(2).map(<[u8]>::len).sum());
        args.from(2).for_each(|element| list.push(element, end));
        Ok((list.view().len(), elements as u64))
    })?;
    call.record(key).push(end, args.from(2));
    call.db.notify(NotifyFlags::LIST, push_event(end), key);
    Ok(reply.int(len as i64))
}

/// The event of a push to this end.
pub(super) fn push_event(end: End) -> &'static str {
    if end == End::Left { "lpush" } else { "rpush" }
}

/// The event of a pop from this end.
pub(super) fn pop_event(end: End) -> &'static str {
    if end == End::Left { "lpop" } else { "rpop" }
}

const POP: Command = Command {
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete")]),
    log: LogRule::Effects,
    complexity: "O(N) where N is the number of elements returned",
    syntax: "key [count@6.2.0]",
    ..ONE_LIST
};

pub(super) static LPOP: Command = Command {
    name: "LPOP",
    handler: Handler::Data(|call, reply| pop(call, End::Left, reply)),
    summary: "Removes elements from the left end of a list and gives them.",
    ..POP
};

pub(super) static RPOP: Command = Command {
    name: "RPOP",
    handler: Handler::Data(|call, reply| pop(call, End::Right, reply)),
    summary: "Removes elements from the right end of a list and gives them.",
    ..POP
};

fn pop(call: &mut Call<'_>, end: End, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let count = match call.args.len() {
        2 => return pop_one(call, key, end, reply),
        3 => match args::integer(call.args.at(2)) {
            Ok(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
            _ => return Err(CommandError::OutOfRange("value is out of range, must be positive")),
        },
        _ => return Err(CommandError::Arity(call.name().into())),
    };
    let Some(list) = call.db.peek_view::<AnyList>(key)? else { return Ok(reply.null_array()) };
    let popped = list.len().min(count);
    let mut elements = reply.array(popped);
    pop_several(call, key, end, popped, &mut elements)?;
    if popped > 0 {
        call.record(key).pop(end, popped);
        call.db.notify_edited(NotifyFlags::LIST, pop_event(end), key);
    }
    Ok(elements.done())
}

fn pop_one(call: &mut Call<'_>, key: Key<'_>, end: End, reply: Reply<'_>) -> Outcome {
    let mut reply = Some(reply);
    let done = call.db.edit::<AnyList, _>(key, |list| {
        let done = list.pop(end, |element| reply.take().map(|reply| write_one(reply, element))).flatten();
        let changes = u64::from(done.is_some());
        Ok((done, changes))
    })?;
    Ok(match (done, reply) {
        (Some(done), _) => {
            call.record(key).pop(end, 1);
            call.db.notify_edited(NotifyFlags::LIST, pop_event(end), key);
            done
        }
        (None, Some(reply)) => reply.null(),
        (None, None) => return Err(CommandError::Internal(Remains::Nothing)),
    })
}

/// Removes this many existing elements and writes them in the order of their removal.
pub(super) fn pop_several(
    call: &mut Call<'_>,
    key: Key<'_>,
    end: End,
    count: usize,
    elements: &mut Elements<'_>,
) -> Result<(), CommandError> {
    call.db.edit::<AnyList, _>(key, |list| {
        let len = list.view().len();
        let (from, range) = match end {
            End::Left => (0, 0..count),
            End::Right => (len.saturating_sub(1), len - count..len),
        };
        let towards = if end == End::Left { End::Right } else { End::Left };
        list.view().iter_from(from, towards).take(count).for_each(|element| write(elements, element));
        list.remove_range(range);
        Ok(((), count as u64))
    })
}
