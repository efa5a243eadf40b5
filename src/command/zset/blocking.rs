//! The blocking forms of popping a member.

use super::pop::{End, PopShape, pop};
use super::{ONE_ZSET, pop::ZMPOP};
use crate::core::waiting::{Block, BlockedOn, timeout_seconds};
use crate::core::{Arity, Call, Command, Flags, Handler, KeySpec, Keys, LogRule, Outcome, args, flags};
use crate::resp::Reply;
use crate::value::zset::AnyZset;

const BLOCKING: Flags = flags::WRITE.or(flags::BLOCKING);

pub(super) static BZPOPMIN: Command = Command {
    name: "BZPOPMIN",
    arity: Arity::AtLeast(3),
    flags: BLOCKING.or(flags::FAST),
    keys: Keys(&[KeySpec::range(1, -2, 1, "RW access delete")]),
    log: LogRule::Effects, // as the rank that went from the sorted set that had a member
    handler: Handler::Data(|call, reply| pop_or_wait(call, End::Lowest, reply)),
    since: "5.0.0",
    complexity: "O(log(N)) with N being the number of elements in the sorted set.",
    syntax: "key [key ...] timeout",
    summary: "Removes the member with the lowest score of the first sorted set that has one, and waits for one.",
    ..ONE_ZSET
};

pub(super) static BZPOPMAX: Command = Command {
    name: "BZPOPMAX",
    handler: Handler::Data(|call, reply| pop_or_wait(call, End::Highest, reply)),
    summary: "Removes the member with the highest score of the first sorted set that has one, and waits for one.",
    ..BZPOPMIN
};

pub(super) static BZMPOP: Command = Command {
    name: "BZMPOP",
    arity: Arity::AtLeast(5),
    flags: BLOCKING.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::counted(2, "RW access delete")]),
    handler: Handler::Data(bzmpop),
    syntax: "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]",
    summary: "Removes members as ZMPOP does, and waits for one.",
    ..ZMPOP
};

fn pop_or_wait(call: &mut Call<'_>, end: End, reply: Reply<'_>) -> Outcome {
    let timeout = timeout_seconds(call.args.at(call.args.len() - 1), call.db.facts().now)?;
    pop_first_or_wait(call, end, 1, PopShape::KeyAndFlat, timeout, reply)
}

fn bzmpop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (end, count) = args::end_and_count(call.args, 2, End::parse)?;
    let timeout = timeout_seconds(call.args.at(1), call.db.facts().now)?;
    pop_first_or_wait(call, end, count, PopShape::KeyAndPairs, timeout, reply)
}

fn pop_first_or_wait(
    call: &mut Call<'_>,
    end: End,
    count: usize,
    shape: PopShape,
    timeout: Option<std::time::Duration>,
    reply: Reply<'_>,
) -> Outcome {
    for key in call.keys() {
        if call.db.peek_view::<AnyZset>(key)?.is_none() {
            continue;
        }
        return pop(&mut call.db, key, end, count, shape, reply);
    }
    call.block_on(Block::new(timeout, BlockedOn::Zset), reply)
}
