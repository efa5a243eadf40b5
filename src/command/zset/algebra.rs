//! Commands that combine sorted sets, and sets, whose members count with score 1: union, intersection, difference.
//!
//! As in Redis, inputs are taken from the smallest to the largest, because sums of doubles depend on the order.

use std::collections::HashMap;

use super::range::store;
use super::{ONE_ZSET, write_members};
use crate::base::format;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, Words, args, flags};
use crate::keyspace::Key;
use crate::resp::Reply;
use crate::value::Collection;
use crate::value::listpack::Item;
use crate::value::set::{AnySet, SetRef};
use crate::value::zset::{AnyZset, ZsetRef, collect};

const SEVERAL: Command = Command {
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::counted(1, "RO access")]),
    since: "6.2.0",
    ..ONE_ZSET
};

const STORING: Command = Command {
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::at(1, "OW update"), KeySpec::counted(2, "RO access")]),
    log: LogRule::Effects, // as the destination's whole state
    since: "2.0.0",
    ..ONE_ZSET
};

const UNION_TIME: &str = "O(N)+O(M*log(M)) with N being the sum of the sizes of the input sorted sets, and M being the number of elements in the resulting sorted set.";
const INTER_TIME: &str = "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being the number of input sorted sets and M being the number of elements in the resulting sorted set.";
const DIFF_TIME: &str = "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the sets, N is the size of the first set, and K is the size of the result set.";

pub(super) static ZUNION: Command = Command {
    name: "ZUNION",
    handler: Handler::Data(|call, reply| combine(call, Operation::Union, reply)),
    complexity: UNION_TIME,
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX | COUNT@8.8.0>] [WITHSCORES]",
    summary: "Gives the members that any sorted set has.",
    ..SEVERAL
};

pub(super) static ZINTER: Command = Command {
    name: "ZINTER",
    handler: Handler::Data(|call, reply| combine(call, Operation::Inter, reply)),
    complexity: INTER_TIME,
    summary: "Gives the members that all sorted sets have.",
    ..ZUNION
};

pub(super) static ZDIFF: Command = Command {
    name: "ZDIFF",
    handler: Handler::Data(|call, reply| combine(call, Operation::Diff, reply)),
    complexity: DIFF_TIME,
    syntax: "numkeys key [key ...] [WITHSCORES]",
    summary: "Gives the members of the first sorted set that no other has.",
    ..SEVERAL
};

pub(super) static ZUNIONSTORE: Command = Command {
    name: "ZUNIONSTORE",
    handler: Handler::Data(|call, reply| combine(call, Operation::Union, reply)),
    complexity: UNION_TIME,
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX | COUNT@8.8.0>]",
    summary: "Stores the members that any sorted set has.",
    ..STORING
};

pub(super) static ZINTERSTORE: Command = Command {
    name: "ZINTERSTORE",
    handler: Handler::Data(|call, reply| combine(call, Operation::Inter, reply)),
    complexity: INTER_TIME,
    summary: "Stores the members that all sorted sets have.",
    ..ZUNIONSTORE
};

pub(super) static ZDIFFSTORE: Command = Command {
    name: "ZDIFFSTORE",
    handler: Handler::Data(|call, reply| combine(call, Operation::Diff, reply)),
    since: "6.2.0",
    complexity: DIFF_TIME,
    syntax: "destination numkeys key [key ...]",
    summary: "Stores the members of the first sorted set that no other has.",
    ..STORING
};

pub(super) static ZINTERCARD: Command = Command {
    name: "ZINTERCARD",
    handler: Handler::Data(zintercard),
    since: "7.0.0",
    complexity: "O(N*K) worst case with N being the smallest input sorted set, K being the number of input sorted sets.",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members that all sorted sets have.",
    ..SEVERAL
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// How the scores of one member are combined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
    /// The sum of the weights of the inputs that have it: each counts as if its score were 1.
    Count,
}

impl Aggregate {
    fn apply(self, one: f64, other: f64) -> f64 {
        match self {
            // Infinity and minus infinity make 0, by convention.
            Aggregate::Sum | Aggregate::Count if (one + other).is_nan() => 0.0,
            Aggregate::Sum | Aggregate::Count => one + other,
            Aggregate::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Aggregate::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// An input.
#[derive(Clone, Copy)]
enum Source<'a> {
    Missing,
    Set(SetRef<'a>),
    Zset(ZsetRef<'a>),
}

impl<'a> Source<'a> {
    fn len(&self) -> usize {
        match self {
            Source::Missing => 0,
            Source::Set(set) => set.len(),
            Source::Zset(zset) => zset.len(),
        }
    }

    fn score(&self, member: Item<'_>) -> Option<f64> {
        match self {
            Source::Missing => None,
            Source::Set(set) => set.has(member).then_some(1.0),
            Source::Zset(zset) => zset.score(member.as_bytes(&mut itoa::Buffer::new())),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (Item<'a>, f64)> + 'a> {
        match *self {
            Source::Missing => Box::new(std::iter::empty()),
            Source::Set(set) => Box::new(set.iter().map(|member| (member, 1.0))),
            Source::Zset(zset) => Box::new(zset.iter()),
        }
    }
}

/// The keys of the inputs, whose number is at an argument.
fn source_keys<'a>(call: &Call<'a>, numkeys_at: usize) -> Result<Vec<Key<'a>>, CommandError> {
    let numkeys = args::integer(call.args.at(numkeys_at))?;
    if numkeys < 1 {
        let text = format!("at least 1 input key is needed for '{}' command", call.name());
        return Err(CommandError::err(text));
    }
    let first = numkeys_at + 1;
    let numkeys = usize::try_from(numkeys).unwrap_or(usize::MAX);
    if numkeys > call.args.len() - first {
        return Err(CommandError::Syntax);
    }
    Ok((first..first + numkeys).map(|at| call.key(at)).collect())
}

/// Prepares all inputs, so that [`sources`] finds them.
fn look(call: &mut Call<'_>, keys: &[Key<'_>]) -> Result<(), CommandError> {
    for key in keys {
        let kind = call.db.read(*key).map(|entry| entry.kind());
        if kind.is_some_and(|kind| !AnyZset::is(kind) && !AnySet::is(kind)) {
            return Err(CommandError::WrongType);
        }
    }
    Ok(())
}

fn sources<'a>(call: &'a Call<'_>, keys: &[Key<'_>]) -> Vec<Source<'a>> {
    let source = |key: &Key<'_>| match call.db.viewed::<AnyZset>(*key) {
        Some(zset) => Source::Zset(zset),
        None => call.db.viewed::<AnySet>(*key).map_or(Source::Missing, Source::Set),
    };
    keys.iter().map(source).collect()
}

/// The words behind the keys.
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

impl Options {
    fn parse(
        mut words: Words<'_>,
        operation: Operation,
        inputs: usize,
        storing: bool,
    ) -> Result<Options, CommandError> {
        const NOT_A_WEIGHT: CommandError = CommandError::Text("ERR weight value is not a float");
        let mut options = Options { weights: vec![1.0; inputs], aggregate: Aggregate::Sum, with_scores: false };
        let weighed = operation != Operation::Diff;
        while let Some(word) = words.next() {
            if weighed && words.left() >= inputs && args::is(word, "WEIGHTS") {
                for weight in &mut options.weights {
                    *weight = format::parse_double(words.value()?).ok_or(NOT_A_WEIGHT)?;
                }
            } else if weighed && words.left() >= 1 && args::is(word, "AGGREGATE") {
                options.aggregate = match words.value()? {
                    word if args::is(word, "SUM") => Aggregate::Sum,
                    word if args::is(word, "MIN") => Aggregate::Min,
                    word if args::is(word, "MAX") => Aggregate::Max,
                    word if args::is(word, "COUNT") => Aggregate::Count,
                    _ => return Err(CommandError::Syntax),
                };
            } else if !storing && args::is(word, "WITHSCORES") {
                options.with_scores = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn combine(call: &mut Call<'_>, operation: Operation, reply: Reply<'_>) -> Outcome {
    let storing = call.entry.command.flags.has(flags::WRITE);
    let numkeys_at = if storing { 2 } else { 1 };
    let keys = source_keys(call, numkeys_at)?;
    look(call, &keys)?;
    let words = Words::new(call.args, numkeys_at + 1 + keys.len());
    let options = Options::parse(words, operation, keys.len(), storing)?;
    let limits = call.db.facts().limits;
    let sources = sources(call, &keys);
    let mut found = match operation {
        Operation::Union => union(&sources, &options),
        Operation::Inter => inter(&sources, &options),
        Operation::Diff => diff(&sources),
    };
    if storing {
        let members = found.into_iter().map(|(member, score)| (score, member.to_vec())).collect();
        let finished = collect(members, &limits);
        let destination = call.key(1);
        let event = match operation {
            Operation::Union => "zunionstore",
            Operation::Inter => "zinterstore",
            Operation::Diff => "zdiffstore",
        };
        return Ok(reply.int(store(call, destination, finished, event) as i64));
    }
    let (mut one_digits, mut other_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    found.sort_unstable_by(|one, other| {
        let by_score = one.1.partial_cmp(&other.1).unwrap_or(std::cmp::Ordering::Equal);
        by_score.then_with(|| one.0.as_bytes(&mut one_digits).cmp(other.0.as_bytes(&mut other_digits)))
    });
    Ok(write_members(reply, found.len(), options.with_scores, found.into_iter()))
}

/// The inputs with their weights, the smallest first.
fn by_size<'a>(sources: &[Source<'a>], options: &Options) -> Vec<(Source<'a>, f64)> {
    let mut sorted: Vec<(Source<'a>, f64)> = sources.iter().copied().zip(options.weights.iter().copied()).collect();
    sorted.sort_by_key(|(source, _)| source.len());
    sorted
}

impl Options {
    /// What a score counts as.
    fn counted(&self, score: f64) -> f64 {
        if self.aggregate == Aggregate::Count { 1.0 } else { score }
    }

    /// A score times a weight; NaN counts as 0.
    fn weighed(&self, score: f64, weight: f64) -> f64 {
        let product = self.counted(score) * weight;
        if product.is_nan() { 0.0 } else { product }
    }
}

fn union<'a>(sources: &[Source<'a>], options: &Options) -> Vec<(Item<'a>, f64)> {
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut found: Vec<(Item<'a>, f64)> = Vec::new();
    for (source, weight) in by_size(sources, options) {
        for (member, score) in source.iter() {
            let score = options.weighed(score, weight);
            let place = *places.entry(member.to_vec()).or_insert(found.len());
            match found.get_mut(place) {
                Some((_, sum)) => *sum = options.aggregate.apply(*sum, score),
                None => found.push((member, score)),
            }
        }
    }
    found
}

fn inter<'a>(sources: &[Source<'a>], options: &Options) -> Vec<(Item<'a>, f64)> {
    let sorted = by_size(sources, options);
    let Some(((smallest, weight), others)) = sorted.split_first() else { return Vec::new() };
    let all = smallest.iter().filter_map(|(member, score)| {
        others
            .iter()
            .try_fold(options.weighed(score, *weight), |sum, (other, weight)| {
                Some(options.aggregate.apply(sum, options.counted(other.score(member)?) * weight))
            })
            .map(|score| (member, score))
    });
    all.collect()
}

fn diff<'a>(sources: &[Source<'a>]) -> Vec<(Item<'a>, f64)> {
    let Some((first, others)) = sources.split_first() else { return Vec::new() };
    first.iter().filter(|(member, _)| others.iter().all(|other| other.score(*member).is_none())).collect()
}

fn zintercard(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let keys = source_keys(call, 1)?;
    look(call, &keys)?;
    let limit = args::limit(Words::new(call.args, 2 + keys.len()))?;
    let mut sources = sources(call, &keys);
    sources.sort_by_key(Source::len);
    let Some((smallest, others)) = sources.split_first() else { return Ok(reply.int(0)) };
    let common = smallest.iter().filter(|(member, _)| others.iter().all(|other| other.score(*member).is_some()));
    let count = common.take(if limit == 0 { usize::MAX } else { limit }).count();
    Ok(reply.int(count as i64))
}
