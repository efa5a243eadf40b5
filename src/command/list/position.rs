//! LPOS: the position of an element.

use super::ONE_LIST;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, Words, args};
use crate::resp::Reply;
use crate::value::list::{AnyList, End};
use crate::value::listpack::Item;

pub(super) static LPOS: Command = Command {
    name: "LPOS",
    arity: Arity::AtLeast(3),
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(lpos),
    since: "6.0.6",
    complexity: "O(N) where N is the number of elements in the list, for the average case. When searching for elements near the head or the tail of the list, or when the MAXLEN option is provided, the command may run in constant time.",
    syntax: "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
    summary: "Gives the indexes of elements equal to one.",
    ..ONE_LIST
};

struct Options {
    /// Which match counts as the first, from the right if negative.
    rank: i64,
    /// How many matches; `None` for a single one without an array.
    count: Option<usize>,
    /// How many elements to compare.
    looked_at_max: usize,
}

impl Options {
    fn parse(mut words: Words<'_>) -> Result<Options, CommandError> {
        let mut options = Options { rank: 1, count: None, looked_at_max: usize::MAX };
        while let Some(word) = words.next() {
            if args::is(word, "RANK") {
                options.rank = rank(words.value()?)?;
            } else if args::is(word, "COUNT") {
                let count = amount(words.value()?, "COUNT can't be negative")?;
                options.count = Some(if count == 0 { usize::MAX } else { count });
            } else if args::is(word, "MAXLEN") {
                let looked_at = amount(words.value()?, "MAXLEN can't be negative")?;
                options.looked_at_max = if looked_at == 0 { usize::MAX } else { looked_at };
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn rank(word: &[u8]) -> Result<i64, CommandError> {
    match args::signed(word)? {
        0 => Err(CommandError::OutOfRange(
            "RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start \
             from the end of the list",
        )),
        rank => Ok(rank),
    }
}

fn amount(word: &[u8], negative: &'static str) -> Result<usize, CommandError> {
    args::integer(word).ok().and_then(|amount| usize::try_from(amount).ok()).ok_or(CommandError::OutOfRange(negative))
}

fn lpos(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, element) = (call.key(1), Item::canonical(call.args.at(2)));
    let options = Options::parse(Words::new(call.args, 3))?;
    let mut found = Vec::new();
    if let Some(list) = call.db.view::<AnyList>(key)? {
        let (len, passed_over) = (list.len(), options.rank.unsigned_abs() as usize - 1);
        let (from, towards) = if options.rank > 0 { (0, End::Right) } else { (len - 1, End::Left) };
        let looked_at = list.iter_from(from, towards).enumerate().take(options.looked_at_max);
        let equal = looked_at.filter(|(_, other)| *other == element).skip(passed_over);
        let index = |at: usize| if options.rank > 0 { at } else { len - 1 - at };
        found = equal.map(|(at, _)| index(at)).take(options.count.unwrap_or(1)).collect();
    }
    if options.count.is_none() {
        return Ok(match found.first() {
            None => reply.null(),
            Some(&index) => reply.int(index as i64),
        });
    }
    let mut indexes = reply.array(found.len());
    found.into_iter().for_each(|index| indexes.int(index as i64));
    Ok(indexes.done())
}
