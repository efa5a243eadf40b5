//! Commands for sorted sets: adding, removing and reading single members. Ranges are in [`range`], combinations of
//! several sets in `algebra`, popping and random members in [`pop`].

mod algebra;
mod blocking;
pub mod pop;
pub mod range;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use crate::base::format;
use crate::command::keys::scan::{self, ElementOptions, Page, parse_cursor};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::resp::{Done, Elements, Reply, Resp};
use crate::value::listpack::Item;
use crate::value::zset::{Added, AnyZset, Rule, Scanned};

/// The commands of this folder.
pub static COMMANDS: &[&Command] = &[
    &ZADD,
    &ZCARD,
    &ZINCRBY,
    &ZMSCORE,
    &ZRANK,
    &ZREM,
    &ZREVRANK,
    &ZSCAN,
    &ZSCORE,
    &algebra::ZDIFF,
    &algebra::ZDIFFSTORE,
    &algebra::ZINTER,
    &algebra::ZINTERCARD,
    &algebra::ZINTERSTORE,
    &algebra::ZUNION,
    &algebra::ZUNIONSTORE,
    &pop::ZMPOP,
    &pop::ZPOPMAX,
    &pop::ZPOPMIN,
    &pop::ZRANDMEMBER,
    &range::ZCOUNT,
    &range::ZLEXCOUNT,
    &range::ZRANGE,
    &range::ZRANGEBYLEX,
    &range::ZRANGEBYSCORE,
    &range::ZRANGESTORE,
    &range::ZREMRANGEBYLEX,
    &range::ZREMRANGEBYRANK,
    &range::ZREMRANGEBYSCORE,
    &range::ZREVRANGE,
    &range::ZREVRANGEBYLEX,
    &range::ZREVRANGEBYSCORE,
    &blocking::BZMPOP,
    &blocking::BZPOPMAX,
    &blocking::BZPOPMIN,
];

const NOT_A_NUMBER: CommandError = CommandError::Text("ERR resulting score is not a number (NaN)");
const NX_WITH_XX: CommandError = CommandError::Text("ERR XX and NX options at the same time are not compatible");
const GT_LT_NX: CommandError = CommandError::Text("ERR GT, LT, and/or NX options at the same time are not compatible");
const INCR_OF_SEVERAL: CommandError = CommandError::Text("ERR INCR option supports a single increment-element pair");

/// What the commands on one sorted set share.
const ONE_ZSET: Command = Command {
    flags: flags::READONLY,
    categories: categories::SORTEDSET,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    group: "sorted-set",
    ..Command::DEFAULT
};

/// Writes members, with scores if asked: as pairs in RESP3, flat in RESP2.
fn write_members<'i>(
    reply: Reply<'_>,
    count: usize,
    with_scores: bool,
    members: impl Iterator<Item = (Item<'i>, f64)>,
) -> Done {
    let nested = with_scores && reply.resp() == Resp::V3;
    let mut elements = reply.array(if with_scores && !nested { count * 2 } else { count });
    write_elements(&mut elements, with_scores, nested, members);
    elements.done()
}

/// Writes members, with scores if asked, as elements. Each pair is an array of its own if `nested`.
fn write_elements<'i>(
    elements: &mut Elements<'_>,
    with_scores: bool,
    nested: bool,
    members: impl Iterator<Item = (Item<'i>, f64)>,
) {
    let mut digits = itoa::Buffer::new();
    for (member, score) in members {
        let member = member.as_bytes(&mut digits);
        if nested {
            let mut pair = elements.array(2);
            pair.bulk(member);
            pair.number(score);
            pair.end();
        } else {
            elements.bulk(member);
            if with_scores {
                elements.number(score);
            }
        }
    }
}

static ZADD: Command = Command {
    name: "ZADD",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    member: 3,
    handler: Handler::Data(|call, reply| add(call, false, reply)),
    since: "1.2.0",
    complexity: "O(log(N)) for each item added, where N is the number of elements in the sorted set.",
    syntax: "key [NX | XX@3.0.2] [GT | LT@6.2.0] [CH@3.0.2] [INCR@3.0.2] score member [score member ...]",
    summary: "Adds members to a sorted set, or changes their scores.",
    ..ONE_ZSET
};

static ZINCRBY: Command = Command {
    name: "ZINCRBY",
    arity: Arity::Exactly(4),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: LogRule::Effects,
    member: 3,
    handler: Handler::Data(|call, reply| add(call, true, reply)),
    since: "1.2.0",
    complexity: "O(log(N)) where N is the number of elements in the sorted set.",
    syntax: "key increment member",
    summary: "Adds to the score of a member of a sorted set.",
    ..ONE_ZSET
};

/// The options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddOptions {
    /// How members are added.
    pub rule: Rule,
    /// Whether changed members are counted, too.
    pub count_changed: bool,
}

impl AddOptions {
    /// Takes a word if it is an option other than INCR.
    pub fn take(&mut self, word: &[u8]) -> bool {
        let rule = &mut self.rule;
        let options = [
            ("NX", &mut rule.only_new),
            ("XX", &mut rule.only_old),
            ("GT", &mut rule.only_up),
            ("LT", &mut rule.only_down),
            ("CH", &mut self.count_changed),
        ];
        for (name, option) in options {
            if args::is(word, name) {
                *option = true;
                return true;
            }
        }
        false
    }

    /// Parses the options before scores and members. Returns where those begin.
    fn read(&mut self, call: &Call<'_>) -> Result<usize, CommandError> {
        let mut first = 2;
        while let Some(word) = call.args.get(first) {
            if args::is(word, "INCR") {
                self.rule.increment = true;
            } else if !self.take(word) {
                break;
            }
            first += 1;
        }
        let words = call.args.len() - first;
        if words == 0 || !words.is_multiple_of(2) {
            return Err(CommandError::Syntax);
        }
        self.check()?;
        if self.rule.increment && words > 2 {
            return Err(INCR_OF_SEVERAL);
        }
        Ok(first)
    }

    /// Checks that the options are compatible.
    ///
    /// # Errors
    /// Names the incompatible options.
    pub fn check(&self) -> Result<(), CommandError> {
        let Rule { only_new, only_old, only_up, only_down, .. } = self.rule;
        if only_new && only_old {
            return Err(NX_WITH_XX);
        }
        if [only_new, only_up, only_down].into_iter().filter(|on| *on).count() > 1 {
            return Err(GT_LT_NX);
        }
        Ok(())
    }
}

fn add(call: &mut Call<'_>, increment: bool, reply: Reply<'_>) -> Outcome {
    let mut options = AddOptions { rule: Rule { increment, ..Rule::default() }, count_changed: false };
    let first = options.read(call)?;
    let (key, args) = (call.key(1), call.args);
    let scores = args.from(first).step_by(2).map(|text| format::parse_double(text).ok_or(CommandError::NotFloat));
    let mut scores: SmallVec<[f64; 8]> = scores.collect::<Result<_, _>>()?;
    let rule = options.rule;
    let (new, changed, last) = call.db.edit::<AnyZset, _>(key, |zset| {
        if zset.view().is_empty() && rule.only_old {
            return Ok(((0, 0, Added::Refused), 0));
        }
        zset.expect(scores.len(), args.at(first + 1));
        let (mut new, mut changed, mut last) = (0, 0, Added::Refused);
        for (score, member) in scores.iter_mut().zip(args.from(first + 1).step_by(2)) {
            last = zset.add(member, *score, rule);
            // The rest is what is logged: the score that the member has now, or none.
            *score = match last {
                Added::New(now) => {
                    new += 1;
                    now
                }
                Added::Changed(now) => {
                    changed += 1;
                    now
                }
                // There is only one member.
                Added::NotANumber => return Err(NOT_A_NUMBER),
                Added::Same(_) | Added::Refused => f64::NAN,
            };
        }
        Ok(((new, changed, last), new + changed))
    })?;
    if new + changed > 0 {
        let members = scores.iter().copied().zip(args.from(first + 1).step_by(2));
        call.record(key).zset_set(members.filter(|(score, _)| !score.is_nan()));
        call.db.notify(NotifyFlags::ZSET, if rule.increment { "zincr" } else { "zadd" }, key);
    }
    if !rule.increment {
        return Ok(reply.int(if options.count_changed { new + changed } else { new } as i64));
    }
    Ok(match last {
        Added::New(score) | Added::Changed(score) | Added::Same(score) => reply.number(score),
        Added::Refused | Added::NotANumber => reply.null(),
    })
}

static ZREM: Command = Command {
    name: "ZREM",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects,
    member: 2,
    handler: Handler::Data(zrem),
    since: "1.2.0",
    complexity: "O(M*log(N)) with N being the number of elements in the sorted set and M the number of elements to be removed.",
    syntax: "key member [member ...]",
    summary: "Removes members from a sorted set, and the set when none is left.",
    ..ONE_ZSET
};

fn zrem(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, args) = (call.key(1), call.args);
    let removed = call.db.edit::<AnyZset, _>(key, |zset| {
        let removed = args.from(2).filter(|member| zset.remove(member)).count() as u64;
        Ok((removed, removed))
    })?;
    if removed > 0 {
        call.record(key).zset_remove(args.from(2));
        call.db.notify_edited(NotifyFlags::ZSET, "zrem", key);
    }
    Ok(reply.int(removed as i64))
}

static ZCARD: Command = Command {
    name: "ZCARD",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(zcard),
    since: "1.2.0",
    syntax: "key",
    summary: "Counts the members of a sorted set.",
    ..ONE_ZSET
};

fn zcard(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(reply.int(call.db.view::<AnyZset>(key)?.map_or(0, |zset| zset.len() as i64)))
}

static ZSCORE: Command = Command {
    name: "ZSCORE",
    arity: Arity::Exactly(3),
    flags: flags::READONLY.or(flags::FAST),
    member: 2,
    handler: Handler::Data(zscore),
    since: "1.2.0",
    syntax: "key member",
    summary: "Gives the score of a member of a sorted set.",
    ..ONE_ZSET
};

fn zscore(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let score = call.db.view::<AnyZset>(key)?.and_then(|zset| zset.score(call.args.at(2)));
    Ok(match score {
        Some(score) => reply.number(score),
        None => reply.null(),
    })
}

static ZMSCORE: Command = Command {
    name: "ZMSCORE",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::FAST),
    handler: Handler::Data(zmscore),
    since: "6.2.0",
    complexity: "O(N) where N is the number of members being requested.",
    syntax: "key member [member ...]",
    summary: "Gives the scores of several members of a sorted set.",
    ..ONE_ZSET
};

fn zmscore(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let zset = call.db.view::<AnyZset>(key)?;
    let mut scores = reply.array(call.args.len() - 2);
    for member in call.args.from(2) {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => scores.number(score),
            None => scores.null(),
        }
    }
    Ok(scores.done())
}

static ZRANK: Command = Command {
    name: "ZRANK",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::FAST),
    member: 2,
    handler: Handler::Data(|call, reply| rank(call, false, reply)),
    since: "2.0.0",
    complexity: "O(log(N))",
    syntax: "key member [WITHSCORE@7.2.0]",
    summary: "Counts the members of a sorted set in front of one.",
    ..ONE_ZSET
};

static ZREVRANK: Command = Command {
    name: "ZREVRANK",
    member: 2,
    handler: Handler::Data(|call, reply| rank(call, true, reply)),
    summary: "Counts the members of a sorted set behind one.",
    ..ZRANK
};

fn rank(call: &mut Call<'_>, from_highest: bool, reply: Reply<'_>) -> Outcome {
    let with_score = match (call.args.len(), call.args.get(3)) {
        (3, _) => false,
        (4, Some(word)) if args::is(word, "WITHSCORE") => true,
        (4, _) => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(call.name().to_owned())),
    };
    let key = call.key(1);
    let found = call.db.view::<AnyZset>(key)?.and_then(|zset| {
        let (rank, score) = zset.rank(call.args.at(2))?;
        Some((if from_highest { zset.len() - 1 - rank } else { rank }, score))
    });
    Ok(match found {
        None if with_score => reply.null_array(),
        None => reply.null(),
        Some((rank, score)) if with_score => {
            let mut pair = reply.array(2);
            pair.int(rank as i64);
            pair.number(score);
            pair.done()
        }
        Some((rank, _)) => reply.int(rank as i64),
    })
}

static ZSCAN: Command = Command {
    name: "ZSCAN",
    arity: Arity::AtLeast(3),
    handler: Handler::Data(zscan),
    since: "2.8.0",
    complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
    tips: "nondeterministic_output",
    syntax: "key cursor [MATCH pattern] [COUNT count] [NOSCORES]",
    summary: "Gives members of a sorted set with their scores, some at each call.",
    ..ONE_ZSET
};

fn zscan(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, words) = (call.key(1), Words::new(call.args, 3));
    let cursor = parse_cursor(call.args.at(2))?;
    let zset = call.db.view::<AnyZset>(key)?;
    let mut page = Page::default();
    let Some(zset) = zset else { return Ok(page.reply(reply, 0)) };
    let options = ElementOptions::parse(words, scan::Scanned::Scores)?;
    let mut text = Vec::new();
    let next = zset.scan(cursor, options.count, &mut |member, score| {
        if options.keeps(member) {
            page.push(member);
            if options.no_values {
                return;
            }
            text.clear();
            match score {
                Scanned::Stored(item) => item.write_to(&mut text),
                Scanned::Number(score) => format::write_general(&mut text, score),
            }
            page.push(&text);
        }
    });
    Ok(page.reply(reply, next))
}
