//! Words of sorted sets.

use std::ops::Range;

use super::{MALFORMED, Outcome, Words, at, from, integer_at, is, say, texts};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::keyspace::Key;
use crate::value::zset::{AnyZset, Edge};

pub(super) fn apply(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Outcome {
    match name {
        "ZADD" => zadd(db, key, words),
        "ZINCRBY" => add(db, key, Rule { increments: true, ..Rule::default() }, at(words, 2)?, at(words, 3)?),
        "ZREM" => say(db, key, |record| record.zset_remove(words.iter().skip(2).copied())),
        _ => {
            let ranks = ranks(db, key, name, words)?;
            match ranks.is_empty() {
                true => Ok(()),
                false => say(db, key, |record| record.zset_remove_ranks(ranks)),
            }
        }
    }
}

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
struct Rule {
    only_new: bool,
    only_old: bool,
    only_up: bool,
    only_down: bool,
    increments: bool,
}

fn zadd(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    let (mut rule, mut ignored, mut first) = (Rule::default(), false, 2);
    loop {
        let word = at(words, first)?;
        let options = [
            ("NX", &mut rule.only_new),
            ("XX", &mut rule.only_old),
            ("GT", &mut rule.only_up),
            ("LT", &mut rule.only_down),
            ("CH", &mut ignored),
            ("INCR", &mut rule.increments),
        ];
        let Some((_, option)) = options.into_iter().find(|(name, _)| is(word, name)) else { break };
        *option = true;
        first += 1;
    }
    for pair in from(words, first)?.chunks(2) {
        let [score, member] = pair else { return Err(MALFORMED) };
        add(db, key, rule, score, member)?;
    }
    Ok(())
}

fn add(db: &mut Db<'_>, key: Key<'_>, rule: Rule, score: &[u8], member: &[u8]) -> Outcome {
    let given = texts::double(score).ok_or(MALFORMED)?;
    let new = match db.peek_view::<AnyZset>(key)?.and_then(|zset| zset.score(member)) {
        None if rule.only_old => return Ok(()),
        None => given,
        Some(_) if rule.only_new => return Ok(()),
        Some(old) => {
            let new = if rule.increments { old + given } else { given };
            if new.is_nan() {
                return Err(MALFORMED);
            }
            if (rule.only_up && new <= old) || (rule.only_down && new >= old) || new == old {
                return Ok(());
            }
            new
        }
    };
    say(db, key, |record| record.zset_set(std::iter::once((new, member))))
}

/// The ranks of the removed members.
fn ranks(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Result<Range<usize>, CommandError> {
    let Some(zset) = db.peek_view::<AnyZset>(key)? else { return Ok(0..0) };
    let len = zset.len();
    Ok(match name {
        "ZPOPMIN" | "ZPOPMAX" => {
            let count = if words.len() > 2 { integer_at(words, 2)? } else { 1 };
            let count = usize::try_from(count).map_err(|_| MALFORMED)?.min(len);
            if name == "ZPOPMIN" { 0..count } else { len - count..len }
        }
        "ZREMRANGEBYRANK" => {
            let absolute = |index: i64| if index < 0 { index.saturating_add(len as i64) } else { index };
            let start = absolute(integer_at(words, 2)?).clamp(0, len as i64);
            let end = absolute(integer_at(words, 3)?).min(len as i64 - 1).saturating_add(1).max(start);
            start as usize..end as usize
        }
        "ZREMRANGEBYSCORE" => {
            let bound = |index| texts::score_bound(at(words, index)?).ok_or(MALFORMED);
            let ((low, without_low), (high, without_high)) = (bound(2)?, bound(3)?);
            let low = if without_low { Edge::AfterScore(low) } else { Edge::BeforeScore(low) };
            let high = if without_high { Edge::BeforeScore(high) } else { Edge::AfterScore(high) };
            zset.between(low, high)
        }
        _ => zset.between(member_edge(at(words, 2)?, true)?, member_edge(at(words, 3)?, false)?),
    })
}

/// A bound of members: `-`, `+`, or a member behind `[` or `(`.
fn member_edge(text: &[u8], is_low: bool) -> Result<Edge<'_>, CommandError> {
    match text {
        [b'-'] | [b'-', 0, ..] => Ok(Edge::Start),
        [b'+'] | [b'+', 0, ..] => Ok(Edge::End),
        [b'[', member @ ..] if is_low => Ok(Edge::BeforeMember(member)),
        [b'[', member @ ..] => Ok(Edge::AfterMember(member)),
        [b'(', member @ ..] if is_low => Ok(Edge::AfterMember(member)),
        [b'(', member @ ..] => Ok(Edge::BeforeMember(member)),
        _ => Err(MALFORMED),
    }
}
