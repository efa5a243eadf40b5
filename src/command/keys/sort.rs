//! SORT: sorts the elements of a list, a set or a sorted set by themselves or by other keys.
//!
//! BY and GET name keys that are unknown before the elements are read. With such a pattern, the command runs alone
//! behind the gate.

use std::cmp::Ordering;

use crate::base::{format, slot};
use crate::command::string::text;
use crate::core::Db;
use crate::core::error::Remains;
use crate::core::key_spec::Look;
use crate::core::stored_string::string_of;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::keyspace::{Key, NewValue};
use crate::resp::{Args, Reply};
use crate::value::Collection;
use crate::value::collection::Finished;
use crate::value::hash::AnyHash;
use crate::value::list::{AnyList, End, ListMut};
use crate::value::set::AnySet;
use crate::value::zset::AnyZset;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&SORT, &SORT_RO];

const BY_ELSEWHERE: CommandError = CommandError::Text(
    "ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
);
const GET_ELSEWHERE: CommandError = CommandError::Text(
    "ERR GET option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
);
const BY_FORBIDDEN: CommandError =
    CommandError::Text("ERR BY option of SORT denied due to insufficient ACL permissions.");
const GET_FORBIDDEN: CommandError =
    CommandError::Text("ERR GET option of SORT denied due to insufficient ACL permissions.");
/// Where the options begin.
const OPTIONS: usize = 2;
const BY_PATTERN: KeySpec = KeySpec::looked_up(patterns, "RO access");

/// Looks for a pattern of BY or GET that makes keys from elements.
fn patterns(args: Args<'_>) -> Look {
    let (mut words, mut found) = (Words::new(args, OPTIONS), Look::Nowhere);
    while let Some(option) = words.next() {
        if args::is(option, "BY") || args::is(option, "GET") {
            if words.next().is_some_and(makes_keys) {
                found = Look::Anywhere;
            }
        } else {
            skip(option, &mut words);
        }
    }
    found
}

/// Looks for the key behind the last STORE.
fn stored_at(args: Args<'_>) -> Look {
    let (mut words, mut found) = (Words::new(args, OPTIONS), Look::Nowhere);
    while let Some(option) = words.next() {
        if args::is(option, "STORE") && words.left() > 0 {
            found = Look::At(args.len() - words.left());
        }
        skip(option, &mut words);
    }
    found
}

/// Skips the words of an option.
fn skip(option: &[u8], words: &mut Words<'_>) {
    words.pass_over(match option {
        _ if args::is(option, "LIMIT") => 2,
        _ if ["BY", "GET", "STORE"].iter().any(|word| args::is(option, word)) => 1,
        _ => 0,
    });
}

/// Whether a pattern has a placeholder for the element.
fn makes_keys(pattern: &[u8]) -> bool {
    pattern.contains(&b'*')
}

static SORT: Command = Command {
    name: "SORT",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::MOVABLEKEYS),
    categories: categories::SET.or(categories::SORTEDSET).or(categories::LIST).or(categories::DANGEROUS),
    keys: Keys(&[KeySpec::at(1, "RO access"), BY_PATTERN, KeySpec::looked_up(stored_at, "OW update")]),
    log: LogRule::Effects, // as the destination's whole state
    handler: Handler::Data(|call, reply| sort(call, true, reply)),
    complexity: "O(N+M*log(M)) where N is the number of elements in the list or set to sort, and M the number of returned elements. When the elements are not sorted, complexity is O(N).",
    syntax: "key [BY by-pattern] [LIMIT offset count] [GET get-pattern [GET get-pattern ...]] [ASC | DESC] [ALPHA] [STORE destination]",
    summary: "Sorts the elements of a list, a set or a sorted set, and may store the result.",
    ..Command::DEFAULT
};

static SORT_RO: Command = Command {
    name: "SORT_RO",
    flags: flags::READONLY.or(flags::MOVABLEKEYS),
    keys: Keys(&[KeySpec::at(1, "RO access"), BY_PATTERN]),
    log: LogRule::Nothing,
    handler: Handler::Data(|call, reply| sort(call, false, reply)),
    since: "7.0.0",
    syntax: "key [BY by-pattern] [LIMIT offset count] [GET get-pattern [GET get-pattern ...]] [ASC | DESC] [ALPHA]",
    summary: "Sorts the elements of a list, a set or a sorted set.",
    ..SORT
};

struct Options<'a> {
    by: Option<&'a [u8]>,
    /// Whether the order stays as it is. A pattern without a placeholder is the same for all elements, and no later
    /// pattern takes that back.
    unsorted: bool,
    limit: Option<(i64, i64)>,
    get: Vec<&'a [u8]>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// `slot` is that of the key, if a pattern may name keys of no other; `reads_all` is whether patterns may make any
    /// key at all.
    fn parse(
        mut words: Words<'a>,
        may_store: bool,
        slot: Option<u16>,
        reads_all: bool,
    ) -> Result<Options<'a>, CommandError> {
        let is_elsewhere = |pattern: &[u8]| slot.is_some() && slot::of_pattern(pattern) != slot;
        let mut options = Options {
            by: None,
            unsorted: false,
            limit: None,
            get: Vec::new(),
            descending: false,
            alpha: false,
            store: None,
        };
        while let Some(word) = words.next() {
            let left = words.left();
            if args::is(word, "ASC") {
                options.descending = false;
            } else if args::is(word, "DESC") {
                options.descending = true;
            } else if args::is(word, "ALPHA") {
                options.alpha = true;
            } else if args::is(word, "LIMIT") && left >= 2 {
                options.limit = Some((words.integer()?, words.integer()?));
            } else if args::is(word, "STORE") && left >= 1 && may_store {
                options.store = Some(words.value()?);
            } else if args::is(word, "BY") && left >= 1 {
                let pattern = words.value()?;
                options.by = Some(pattern);
                options.unsorted |= !makes_keys(pattern);
                if makes_keys(pattern) && is_elsewhere(pattern) {
                    return Err(BY_ELSEWHERE);
                }
                if makes_keys(pattern) && !reads_all {
                    return Err(BY_FORBIDDEN);
                }
            } else if args::is(word, "GET") && left >= 1 {
                let pattern = words.value()?;
                if pattern != b"#" && is_elsewhere(pattern) {
                    return Err(GET_ELSEWHERE);
                }
                if !reads_all {
                    return Err(GET_FORBIDDEN);
                }
                options.get.push(pattern);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// The wanted range among this many elements.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let Some((offset, count)) = self.limit else { return 0..len };
        let start = usize::try_from(offset).unwrap_or(0).min(len);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}

/// What an element is sorted by.
enum Weight {
    Number(f64),
    Text(Option<Vec<u8>>),
}

fn sort(call: &mut Call<'_>, may_store: bool, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let slot = call.db.facts().cluster.then(|| slot::of_key(key.bytes));
    let options = Options::parse(Words::new(call.args, OPTIONS), may_store, slot, call.may_read_all())?;
    let mut unsorted = options.unsorted;
    let (mut elements, of_set) = elements(&mut call.db, key, unsorted && options.descending)?;
    let (mut alpha, mut by) = (options.alpha, options.by);
    if unsorted && of_set && options.store.is_some() {
        // The order of a set means nothing and must not get into a list.
        (unsorted, alpha, by) = (false, true, None);
    }
    if !unsorted {
        elements = sorted(&mut call.db, elements, by, alpha, options.descending)?;
    }
    let wanted = options.range(elements.len());
    let elements = &elements[wanted];
    let mut results: Vec<Option<Vec<u8>>> = Vec::new();
    for element in elements {
        if options.get.is_empty() {
            results.push(Some(element.clone()));
        }
        for pattern in &options.get {
            results.push(look_up(&mut call.db, pattern, element));
        }
    }
    if let Some(destination) = options.store {
        return store(call, destination, &results, reply);
    }
    let mut replies = reply.array(results.len());
    for result in results {
        match result {
            None => replies.null(),
            Some(text) => replies.bulk(&text),
        }
    }
    Ok(replies.done())
}

/// The elements at a key, and whether they are of a set.
fn elements(db: &mut Db<'_>, key: Key<'_>, backward: bool) -> Result<(Vec<Vec<u8>>, bool), CommandError> {
    let Some(entry) = db.read(key) else { return Ok((Vec::new(), false)) };
    let value = entry.value();
    if let Some(list) = AnyList::view(value) {
        let (first, towards) = if backward { (list.len() - 1, End::Left) } else { (0, End::Right) };
        return Ok((list.iter_from(first, towards).map(|element| element.to_vec()).collect(), false));
    }
    if let Some(set) = AnySet::view(value) {
        return Ok((set.iter().map(|member| member.to_vec()).collect(), true));
    }
    let zset = AnyZset::view(value).ok_or(CommandError::WrongType)?;
    Ok((zset.range(0..zset.len(), backward).map(|(member, _)| member.to_vec()).collect(), false))
}

fn sorted(
    db: &mut Db<'_>,
    elements: Vec<Vec<u8>>,
    by: Option<&[u8]>,
    alpha: bool,
    descending: bool,
) -> Result<Vec<Vec<u8>>, CommandError> {
    const NO_NUMBER: CommandError = CommandError::OutOfRange("One or more scores can't be converted into double");
    let mut weighted = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match by {
            None => Some(element.clone()),
            Some(pattern) => look_up(db, pattern, &element),
        };
        let weight = match (alpha, text) {
            (true, text) => Weight::Text(text),
            // Redis takes a missing key for zero.
            (false, None) => Weight::Number(0.0),
            (false, Some(text)) => Weight::Number(format::parse_double(&text).ok_or(NO_NUMBER)?),
        };
        weighted.push((weight, element));
    }
    weighted.sort_by(|(one, one_element), (other, other_element)| {
        let order = match (one, other) {
            (Weight::Number(one), Weight::Number(other)) => {
                one.partial_cmp(other).unwrap_or(Ordering::Equal).then_with(|| one_element.cmp(other_element))
            }
            (Weight::Text(one), Weight::Text(other)) => one.cmp(other),
            _ => Ordering::Equal,
        };
        if descending { order.reverse() } else { order }
    });
    Ok(weighted.into_iter().map(|(_, element)| element).collect())
}

/// Looks up what a pattern of BY or GET means for an element: for `#` the element itself, otherwise the string at the
/// resulting key, or the field of the hash there. `None` if that does not exist.
fn look_up(db: &mut Db<'_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let arrow = pattern[star..].windows(2).position(|two| two == b"->").map(|at| star + at);
    let arrow = arrow.filter(|at| at + 2 < pattern.len());
    let end = arrow.unwrap_or(pattern.len());
    let name = [&pattern[..star], element, &pattern[star + 1..end]].concat();
    let key = db.keyspace().key(&name);
    let now = db.facts().now.max(0) as u64;
    let value = db.read(key)?;
    match arrow {
        Some(at) => {
            let field = AnyHash::view(value.value())?.get(&pattern[at + 2..], now)?;
            Some(field.item().to_vec())
        }
        None => Some(text(string_of(value).ok()?, &mut itoa::Buffer::new()).to_vec()),
    }
}

fn store(call: &mut Call<'_>, destination: &[u8], results: &[Option<Vec<u8>>], reply: Reply<'_>) -> Outcome {
    let key = call.db.keyspace().key(destination);
    if results.is_empty() {
        if call.db.remove(key) {
            call.record(key).delete();
            call.db.notify(NotifyFlags::GENERIC, "del", key);
        }
        return Ok(reply.int(0));
    }
    let before = call.db.changes();
    let mut list = ListMut::new(&call.db.facts().limits);
    for result in results {
        let element = result.as_deref().unwrap_or_default();
        list.expect(1, element.len());
        list.push(element, End::Right);
    }
    match AnyList::finish(list) {
        Finished::Packed(packing, bytes) => call.db.overwrite(key, NewValue::Packed(packing, &bytes), None),
        Finished::Large(heap) => call.db.overwrite(key, NewValue::Heap(heap), None),
        Finished::Empty | Finished::InPlace => return Err(CommandError::Internal(Remains::Nothing)),
    }
    call.db.count_as(before, results.len() as u64);
    call.db.log_state(key);
    call.db.notify(NotifyFlags::LIST, "sortstore", key);
    Ok(reply.int(results.len() as i64))
}

#[cfg(test)]
mod tests {
    use crate::exec::testing::Runner;

    #[test]
    fn a_stored_result_is_the_destinations_state() {
        let mut t = Runner::new();
        t.run("RPUSH l 3 1 2");
        t.run("MSET w:1 30 w:2 20 w:3 10");
        assert_eq!(t.run("SORT l BY w:* GET # GET w:*"), "*6 $1 3 $2 10 $1 2 $2 20 $1 1 $2 30 ");
        t.take_logged();
        assert_eq!(t.run("SORT l STORE d"), ":3 ");
        assert!(t.take_logged()[0].starts_with("STATE d "));
        assert_eq!(t.run("SORT none STORE d"), ":0 ");
        assert_eq!(t.take_logged(), ["DEL d"]);
    }
}
