//! Commands that pop members from an end of a sorted set, or draw random ones.

use std::collections::HashSet;

use super::{ONE_ZSET, write_elements, write_members};
use crate::base::random;
use crate::core::{
    Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, args, flags,
};
use crate::keyspace::Key;
use crate::resp::{Reply, Resp};
use crate::value::listpack::Item;
use crate::value::zset::{AnyZset, ZsetRef};

/// A count with scores beyond this is refused, as in Redis.
const SCORED_COUNT_MAX: i64 = i64::MAX / 2;

pub(super) static ZPOPMIN: Command = Command {
    name: "ZPOPMIN",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete")]),
    log: LogRule::Effects,
    handler: Handler::Data(|call, reply| zpop(call, End::Lowest, reply)),
    since: "5.0.0",
    complexity: "O(log(N)*M) with N being the number of elements in the sorted set, and M being the number of elements popped.",
    syntax: "key [count]",
    summary: "Removes the members of the lowest scores from a sorted set and gives them.",
    ..ONE_ZSET
};

pub(super) static ZPOPMAX: Command = Command {
    name: "ZPOPMAX",
    handler: Handler::Data(|call, reply| zpop(call, End::Highest, reply)),
    summary: "Removes the members of the highest scores from a sorted set and gives them.",
    ..ZPOPMIN
};

pub(super) static ZMPOP: Command = Command {
    name: "ZMPOP",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::counted(1, "RW access delete")]),
    log: LogRule::Effects, // as the ranks that went from the key that had something
    handler: Handler::Data(zmpop),
    since: "7.0.0",
    complexity: "O(K) + O(M*log(N)) where K is the number of provided keys, N being the number of elements in the sorted set, and M being the number of elements popped.",
    syntax: "numkeys key [key ...] <MIN | MAX> [COUNT count]",
    summary: "Removes members from an end of the first sorted set that has any, and gives them.",
    ..ONE_ZSET
};

/// An end of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The lowest scores.
    Lowest,
    /// The highest scores.
    Highest,
}

impl End {
    /// MIN or MAX.
    ///
    /// # Errors
    /// Any other word.
    pub fn parse(word: &[u8]) -> Result<End, CommandError> {
        match word {
            word if args::is(word, "MIN") => Ok(End::Lowest),
            word if args::is(word, "MAX") => Ok(End::Highest),
            _ => Err(CommandError::Syntax),
        }
    }
}

/// How popped members are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopShape {
    /// Members and scores, flat.
    Flat,
    /// An array for each member.
    Pairs,
    /// The key, and an array of such arrays: ZMPOP.
    KeyAndPairs,
    /// Key, member and score: BZPOPMIN.
    KeyAndFlat,
}

/// Removes up to `count` members from an end of a sorted set that has some, writes the reply, and logs which they
/// were. An empty one is replied to as such.
///
/// # Errors
/// The key holds something else.
pub fn pop<'r>(
    db: &mut Db<'_>,
    key: Key<'_>,
    end: End,
    count: usize,
    shape: PopShape,
    reply: Reply<'r>,
) -> Result<crate::resp::Done, CommandError> {
    let (done, popped) = db.edit::<AnyZset, _>(key, |zset| {
        let len = zset.view().len();
        let count = count.min(len);
        let range = if end == End::Lowest { 0..count } else { len - count..len };
        let members = zset.view().range(range.clone(), end == End::Highest);
        let done = match shape {
            PopShape::Flat => {
                let mut elements = reply.array(count * 2);
                write_elements(&mut elements, true, false, members);
                elements.done()
            }
            PopShape::Pairs => {
                let mut elements = reply.array(count);
                write_elements(&mut elements, true, true, members);
                elements.done()
            }
            PopShape::KeyAndPairs => {
                let mut parts = reply.array(2);
                parts.bulk(key.bytes);
                let mut elements = parts.array(count);
                write_elements(&mut elements, true, true, members);
                elements.end();
                parts.done()
            }
            PopShape::KeyAndFlat => {
                let mut parts = reply.array(1 + count * 2);
                parts.bulk(key.bytes);
                write_elements(&mut parts, true, false, members);
                parts.done()
            }
        };
        zset.remove_range(range.clone());
        Ok(((done, range), count as u64))
    })?;
    if !popped.is_empty() {
        db.record(key).zset_remove_ranks(popped);
        db.notify_edited(NotifyFlags::ZSET, if end == End::Lowest { "zpopmin" } else { "zpopmax" }, key);
    }
    Ok(done)
}

fn zpop(call: &mut Call<'_>, end: End, reply: Reply<'_>) -> Outcome {
    let count = match (call.args.len(), call.args.get(2)) {
        (3, Some(count)) => match args::integer(count) {
            Ok(count) if count >= 0 => Some(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => return Err(CommandError::OutOfRange("value is out of range, must be positive")),
        },
        (2, _) => None,
        _ => return Err(CommandError::Syntax),
    };
    let nested = count.is_some() && reply.resp() == Resp::V3;
    let shape = if nested { PopShape::Pairs } else { PopShape::Flat };
    let key = call.key(1);
    pop(&mut call.db, key, end, count.unwrap_or(1), shape, reply)
}

fn zmpop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (end, count) = args::end_and_count(call.args, 1, End::parse)?;
    for key in call.keys() {
        if call.db.peek_view::<AnyZset>(key)?.is_none() {
            continue;
        }
        return pop(&mut call.db, key, end, count, PopShape::KeyAndPairs, reply);
    }
    Ok(reply.null_array())
}

pub(super) static ZRANDMEMBER: Command = Command {
    name: "ZRANDMEMBER",
    arity: Arity::AtLeast(2),
    handler: Handler::Data(zrandmember),
    since: "6.2.0",
    complexity: "O(N) where N is the number of members returned",
    tips: "nondeterministic_output",
    syntax: "key [count [WITHSCORES]]",
    summary: "Gives members of a sorted set at random.",
    ..ONE_ZSET
};

fn zrandmember(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let Some(count) = call.args.get(2) else {
        let member = call.db.view::<AnyZset>(key)?.and_then(|zset| random::with(|random| zset.random(random)));
        return Ok(match member {
            None => reply.null(),
            Some((member, _)) => reply.bulk(member.as_bytes(&mut itoa::Buffer::new())),
        });
    };
    let count = args::integer(count)?;
    if count == i64::MIN {
        args::check_repeated(count)?;
    }
    let with_scores = match call.args.get(3) {
        None => false,
        Some(word) if call.args.len() == 4 && args::is(word, "WITHSCORES") => true,
        Some(_) => return Err(CommandError::Syntax),
    };
    if with_scores && !(-SCORED_COUNT_MAX..=SCORED_COUNT_MAX).contains(&count) {
        return Err(CommandError::OutOfRange("value is out of range"));
    }
    args::check_repeated(count)?;
    let Some(zset) = call.db.view::<AnyZset>(key)?.filter(|_| count != 0) else { return Ok(reply.array(0).done()) };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count > 0 {
        let chosen = distinct(zset, wanted);
        return Ok(write_members(reply, chosen.len(), with_scores, chosen.into_iter()));
    }
    let drawn = (0..wanted).filter_map(|_| random::with(|random| zset.random(random)));
    Ok(write_members(reply, wanted, with_scores, drawn))
}

/// Different random members: all if that many are wanted.
fn distinct(zset: ZsetRef<'_>, wanted: usize) -> Vec<(Item<'_>, f64)> {
    let len = zset.len();
    if wanted >= len {
        return zset.iter().collect();
    }
    if wanted.saturating_mul(3) > len || !matches!(zset, ZsetRef::Large(_)) {
        // Draws would often repeat, so all are put in a row and shuffled from the front.
        let mut all: Vec<(Item<'_>, f64)> = zset.iter().collect();
        random::with(|random| (0..wanted).for_each(|at| all.swap(at, at + random.index(len - at))));
        all.truncate(wanted);
        return all;
    }
    let (mut seen, mut chosen) = (HashSet::new(), Vec::with_capacity(wanted));
    random::with(|random| {
        while chosen.len() < wanted {
            if let Some((Item::Str(member), score)) = zset.random(random)
                && seen.insert(member)
            {
                chosen.push((Item::Str(member), score));
            }
        }
    });
    chosen
}
