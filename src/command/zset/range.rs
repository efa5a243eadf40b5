//! Commands on ranges of a sorted set: by rank, by score, by member.
//!
//! A range of scores or members is two [`Edge`]s. They are turned into ranks, and everything else works on ranks.

use std::ops::Range;

use super::{ONE_ZSET, write_members};
use crate::base::format;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, flags,
};
use crate::keyspace::{Key, NewValue};
use crate::resp::Reply;
use crate::value::collection::Finished;
use crate::value::zset::{AnyZset, Edge, ZsetRef, collect};

const NOT_A_SCORE: CommandError = CommandError::Text("ERR min or max is not a float");
const NOT_A_LEX_EDGE: CommandError = CommandError::Text("ERR min or max not valid string range item");
const LIMIT_MISPLACED: CommandError =
    CommandError::Text("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX");
const WITHSCORES_MISPLACED: CommandError =
    CommandError::Text("ERR syntax error, WITHSCORES not supported in combination with BYLEX");

const SLICE_TIME: &str =
    "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements returned.";
const COUNT_TIME: &str = "O(log(N)) with N being the number of elements in the sorted set.";
const REMOVE_TIME: &str = "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements removed by the operation.";

/// What a range refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// What a command accepts beyond the bounds.
#[derive(Clone, Copy)]
struct Grammar {
    /// `None` if the words say it.
    by: Option<By>,
    /// `None` if the words say it.
    backward: Option<bool>,
    with_scores: bool,
}

/// A range, parsed and checked.
struct Wanted<'a> {
    bounds: Bounds<'a>,
    backward: bool,
    with_scores: bool,
    /// How many members between the edges to skip, and how many to return (all if negative).
    limit: Option<(i64, i64)>,
    /// XX: a missing key is told from an empty range.
    tells_missing: bool,
}

enum Bounds<'a> {
    Ranks(i64, i64),
    Edges(Edge<'a>, Edge<'a>),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, low: &'a [u8], high: &'a [u8]) -> Result<Bounds<'a>, CommandError> {
        Ok(match by {
            By::Rank => Bounds::Ranks(args::integer(low)?, args::integer(high)?),
            By::Score => Bounds::Edges(score_edge(low, true)?, score_edge(high, false)?),
            By::Lex => Bounds::Edges(lex_edge(low, true)?, lex_edge(high, false)?),
        })
    }

    /// The ranks that it means, counted from the lowest. The ranks in a backward range are counted from the highest.
    fn ranks(&self, zset: ZsetRef<'_>, backward: bool) -> Range<usize> {
        let len = zset.len();
        match *self {
            Bounds::Edges(low, high) => zset.between(low, high),
            Bounds::Ranks(start, end) => {
                let Range { start, end } = slice(start, end, len);
                if backward { len - end..len - start } else { start..end }
            }
        }
    }
}

/// The indexes from `start` to `end`. Negative ones count from the end.
fn slice(start: i64, end: i64, len: usize) -> Range<usize> {
    let signed = i64::try_from(len).unwrap_or(i64::MAX);
    let from_front = |index: i64| if index < 0 { index.saturating_add(signed) } else { index };
    let start = from_front(start).max(0).min(signed);
    let end = from_front(end).min(signed - 1).saturating_add(1).max(start);
    start as usize..end as usize
}

/// A bound of scores: a number, exclusive behind `(`. It is parsed as by `strtod`: leading blanks and an empty text
/// are allowed, and too large a number is infinite.
fn score_edge(text: &[u8], is_low: bool) -> Result<Edge<'static>, CommandError> {
    let (excluded, text) = match text {
        [b'(', rest @ ..] => (true, rest),
        text => (false, text),
    };
    let text = crate::core::error::until_nul(text);
    let digits = text.trim_ascii_start();
    let score = match digits {
        [] if text.is_empty() => Some(0.0),
        digits => format::parse_double(digits)
            .or_else(|| std::str::from_utf8(digits).ok()?.parse().ok())
            .filter(|score| !f64::is_nan(*score)),
    };
    let score = score.ok_or(NOT_A_SCORE)?;
    Ok(if is_low == excluded { Edge::AfterScore(score) } else { Edge::BeforeScore(score) })
}

/// A bound of members: `-`, `+`, or a member behind `[` or `(`.
fn lex_edge(text: &[u8], is_low: bool) -> Result<Edge<'_>, CommandError> {
    match text {
        [b'-'] | [b'-', 0, ..] => Ok(Edge::Start),
        [b'+'] | [b'+', 0, ..] => Ok(Edge::End),
        [b'[', member @ ..] if is_low => Ok(Edge::BeforeMember(member)),
        [b'[', member @ ..] => Ok(Edge::AfterMember(member)),
        [b'(', member @ ..] if is_low => Ok(Edge::AfterMember(member)),
        [b'(', member @ ..] => Ok(Edge::BeforeMember(member)),
        _ => Err(NOT_A_LEX_EDGE),
    }
}

impl<'a> Wanted<'a> {
    /// Parses the bounds, which begin at an argument, and the words behind them.
    fn parse(call: &Call<'a>, bounds_at: usize, grammar: Grammar, storing: bool) -> Result<Wanted<'a>, CommandError> {
        let (mut by, mut backward) = (grammar.by, grammar.backward);
        let (mut with_scores, mut limit, mut tells_missing) = (false, None, false);
        let mut words = Words::new(call.args, bounds_at + 2);
        while let Some(word) = words.next() {
            if grammar.with_scores && args::is(word, "WITHSCORES") {
                with_scores = true;
            } else if args::is(word, "LIMIT") && words.left() >= 2 {
                limit = Some((words.integer()?, words.integer()?));
            } else if backward.is_none() && args::is(word, "REV") {
                backward = Some(true);
            } else if grammar.by.is_none() && !storing && args::is(word, "XX") {
                tells_missing = true;
            } else if by.is_none() && args::is(word, "BYLEX") {
                by = Some(By::Lex);
            } else if by.is_none() && args::is(word, "BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, backward) = (by.unwrap_or(By::Rank), backward.unwrap_or(false));
        if by == By::Rank && limit.is_some_and(|(_, count)| count != -1) {
            return Err(LIMIT_MISPLACED);
        }
        if by == By::Lex && with_scores && !storing {
            return Err(WITHSCORES_MISPLACED);
        }
        let (first, second) = (call.args.at(bounds_at), call.args.at(bounds_at + 1));
        // In descending ranges the upper bound comes first, except for ranks.
        let (low, high) = if backward && by != By::Rank { (second, first) } else { (first, second) };
        let limit = limit.filter(|_| by != By::Rank);
        Ok(Wanted { bounds: Bounds::parse(by, low, high)?, backward, with_scores, limit, tells_missing })
    }

    /// The wanted ranks.
    fn ranks(&self, zset: ZsetRef<'_>) -> Range<usize> {
        let Range { start, end } = self.bounds.ranks(zset, self.backward);
        let Some((offset, count)) = self.limit else { return start..end };
        let Ok(offset) = usize::try_from(offset) else { return start..start };
        let left = (end - start).saturating_sub(offset);
        let take = usize::try_from(count).map_or(left, |count| count.min(left));
        match self.backward {
            _ if take == 0 => start..start,
            false => start + offset..start + offset + take,
            true => end - offset - take..end - offset,
        }
    }
}

pub(super) static ZRANGE: Command = Command {
    name: "ZRANGE",
    arity: Arity::AtLeast(4),
    handler: Handler::Data(|call, reply| give(call, None, None, reply)),
    since: "1.2.0",
    complexity: SLICE_TIME,
    syntax: "key start stop [BYSCORE@6.2.0 | BYLEX@6.2.0] [REV@6.2.0] [LIMIT@6.2.0 offset count] [WITHSCORES] [XX]",
    summary: "Gives the members in a range of ranks, scores or members.",
    ..ONE_ZSET
};

pub(super) static ZREVRANGE: Command = Command {
    name: "ZREVRANGE",
    handler: Handler::Data(|call, reply| give(call, Some(By::Rank), Some(true), reply)),
    syntax: "key start stop [WITHSCORES]",
    summary: "Gives the members in a range of ranks, from the highest.",
    ..ZRANGE
};

pub(super) static ZRANGEBYSCORE: Command = Command {
    name: "ZRANGEBYSCORE",
    handler: Handler::Data(|call, reply| give(call, Some(By::Score), Some(false), reply)),
    since: "1.0.5",
    syntax: "key min max [WITHSCORES@2.0.0] [LIMIT offset count]",
    summary: "Gives the members in a range of scores.",
    ..ZRANGE
};

pub(super) static ZREVRANGEBYSCORE: Command = Command {
    name: "ZREVRANGEBYSCORE",
    handler: Handler::Data(|call, reply| give(call, Some(By::Score), Some(true), reply)),
    since: "2.2.0",
    syntax: "key max min [WITHSCORES] [LIMIT offset count]",
    summary: "Gives the members in a range of scores, from the highest.",
    ..ZRANGE
};

pub(super) static ZRANGEBYLEX: Command = Command {
    name: "ZRANGEBYLEX",
    handler: Handler::Data(|call, reply| give(call, Some(By::Lex), Some(false), reply)),
    since: "2.8.9",
    syntax: "key min max [LIMIT offset count]",
    summary: "Gives the members between two others, of equal scores.",
    ..ZRANGE
};

pub(super) static ZREVRANGEBYLEX: Command = Command {
    name: "ZREVRANGEBYLEX",
    handler: Handler::Data(|call, reply| give(call, Some(By::Lex), Some(true), reply)),
    since: "2.8.9",
    syntax: "key max min [LIMIT offset count]",
    summary: "Gives the members between two others, of equal scores, from the highest.",
    ..ZRANGE
};

fn give(call: &mut Call<'_>, by: Option<By>, backward: Option<bool>, reply: Reply<'_>) -> Outcome {
    let wanted = Wanted::parse(call, 2, Grammar { by, backward, with_scores: true }, false)?;
    let key = call.key(1);
    let Some(zset) = call.db.view::<AnyZset>(key)? else {
        return Ok(if wanted.tells_missing { reply.null_array() } else { reply.array(0).done() });
    };
    let ranks = wanted.ranks(zset);
    let members = zset.range(ranks.clone(), wanted.backward);
    Ok(write_members(reply, ranks.len(), wanted.with_scores, members))
}

pub(super) static ZRANGESTORE: Command = Command {
    name: "ZRANGESTORE",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(1, "OW update"), KeySpec::at(2, "RO access")]),
    log: LogRule::Effects, // as the destination's whole state
    handler: Handler::Data(zrangestore),
    since: "6.2.0",
    complexity: "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements stored into the destination key.",
    syntax: "dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
    summary: "Stores the members in a range of a sorted set as another.",
    ..ONE_ZSET
};

fn zrangestore(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let wanted = Wanted::parse(call, 3, Grammar { by: None, backward: None, with_scores: false }, true)?;
    let (destination, source) = (call.key(1), call.key(2));
    let limits = call.db.facts().limits;
    let finished = match call.db.view::<AnyZset>(source)? {
        None => Finished::Empty,
        Some(zset) => {
            let members = zset.range(wanted.ranks(zset), false);
            collect(members.map(|(member, score)| (score, member.to_vec())).collect(), &limits)
        }
    };
    Ok(reply.int(store(call, destination, finished, "zrangestore") as i64))
}

/// Stores a sorted set at a key, replacing any value, logs it and tells it as `event`. Returns how many members it has.
pub(in crate::command) fn store(
    call: &mut Call<'_>,
    destination: Key<'_>,
    finished: Finished,
    event: &'static str,
) -> usize {
    match finished {
        Finished::Packed(packing, bytes) => call.db.overwrite(destination, NewValue::Packed(packing, &bytes), None),
        Finished::Large(heap) => call.db.overwrite(destination, NewValue::Heap(heap), None),
        Finished::Empty | Finished::InPlace => {
            if call.db.remove(destination) {
                call.record(destination).delete();
                call.db.notify(NotifyFlags::GENERIC, "del", destination);
            }
            return 0;
        }
    }
    call.db.log_state(destination);
    call.db.notify(NotifyFlags::ZSET, event, destination);
    call.db.viewed::<AnyZset>(destination).map_or(0, |zset| zset.len())
}

pub(super) static ZCOUNT: Command = Command {
    name: "ZCOUNT",
    arity: Arity::Exactly(4),
    flags: flags::READONLY.or(flags::FAST),
    handler: Handler::Data(|call, reply| count(call, By::Score, reply)),
    since: "2.0.0",
    complexity: COUNT_TIME,
    syntax: "key min max",
    summary: "Counts the members in a range of scores.",
    ..ONE_ZSET
};

pub(super) static ZLEXCOUNT: Command = Command {
    name: "ZLEXCOUNT",
    handler: Handler::Data(|call, reply| count(call, By::Lex, reply)),
    since: "2.8.9",
    summary: "Counts the members between two others, of equal scores.",
    ..ZCOUNT
};

fn count(call: &mut Call<'_>, by: By, reply: Reply<'_>) -> Outcome {
    let bounds = Bounds::parse(by, call.args.at(2), call.args.at(3))?;
    let key = call.key(1);
    let count = call.db.view::<AnyZset>(key)?.map_or(0, |zset| bounds.ranks(zset, false).len());
    Ok(reply.int(count as i64))
}

pub(super) static ZREMRANGEBYRANK: Command = Command {
    name: "ZREMRANGEBYRANK",
    arity: Arity::Exactly(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects,
    handler: Handler::Data(|call, reply| remove(call, By::Rank, reply)),
    since: "2.0.0",
    complexity: REMOVE_TIME,
    syntax: "key start stop",
    summary: "Removes the members in a range of ranks.",
    ..ONE_ZSET
};

pub(super) static ZREMRANGEBYSCORE: Command = Command {
    name: "ZREMRANGEBYSCORE",
    handler: Handler::Data(|call, reply| remove(call, By::Score, reply)),
    since: "1.2.0",
    syntax: "key min max",
    summary: "Removes the members in a range of scores.",
    ..ZREMRANGEBYRANK
};

pub(super) static ZREMRANGEBYLEX: Command = Command {
    name: "ZREMRANGEBYLEX",
    handler: Handler::Data(|call, reply| remove(call, By::Lex, reply)),
    since: "2.8.9",
    syntax: "key min max",
    summary: "Removes the members between two others, of equal scores.",
    ..ZREMRANGEBYRANK
};

fn remove(call: &mut Call<'_>, by: By, reply: Reply<'_>) -> Outcome {
    let bounds = Bounds::parse(by, call.args.at(2), call.args.at(3))?;
    let key = call.key(1);
    let removed = call.db.edit::<AnyZset, _>(key, |zset| {
        let ranks = bounds.ranks(zset.view(), false);
        if !ranks.is_empty() {
            zset.remove_range(ranks.clone());
        }
        let removed = ranks.len() as u64;
        Ok((ranks, removed))
    })?;
    let count = removed.len();
    if count > 0 {
        call.record(key).zset_remove_ranks(removed);
        let event = match by {
            By::Rank => "zremrangebyrank",
            By::Score => "zremrangebyscore",
            By::Lex => "zremrangebylex",
        };
        call.db.notify_edited(NotifyFlags::ZSET, event, key);
    }
    Ok(reply.int(count as i64))
}
