//! Random fields, and walks over all fields.

use std::collections::HashSet;

use super::read::ACCESSED;
use super::{HASH, now, value_element};
use crate::base::random::{self, Random};
use crate::command::keys::scan::{ElementOptions, Page, Scanned, parse_cursor};
use crate::core::args::{integer, is};
use crate::core::{Arity, Call, Command, CommandError, Handler, Outcome, Words, flags};
use crate::resp::{Elements, Reply, Resp};
use crate::value::hash::{AnyHash, Field, HashRef};

/// The most fields that are drawn with repetitions, and the approximate bytes that they may take. A reply is built in
/// memory, and nothing else bounds it.
const DRAWS_MAX: u64 = 1 << 24;
const DRAWN_BYTES_MAX: usize = 1 << 30;
/// A hash with fewer than this many times the wanted fields is walked once.
const SPARSE: usize = 3;

pub(super) static HRANDFIELD: Command = Command {
    name: "HRANDFIELD",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY,
    keys: ACCESSED,
    handler: Handler::Data(hrandfield),
    since: "6.2.0",
    complexity: "O(N) where N is the number of fields returned.",
    tips: "nondeterministic_output",
    syntax: "key [count [WITHVALUES]]",
    summary: "Gives a field, or several, at random.",
    ..HASH
};

fn hrandfield(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, args, key) = (now(call), call.args, call.key(1));
    let mut random = Random::from_seed(random::with(|thread| thread.next_u64()));
    let Some(count) = args.get(2) else {
        let drawn = call.db.view::<AnyHash>(key)?.and_then(|hash| hash.random(now, &mut || random.next_u64()));
        return Ok(match drawn {
            Some(field) => reply.bulk(field.name.as_bytes(&mut itoa::Buffer::new())),
            None => reply.null(),
        });
    };
    let (count, with_values) = parse_count(count, &mut Words::new(args, 3))?;
    let Some(hash) = call.db.view::<AnyHash>(key)? else { return Ok(reply.array(0).done()) };
    let alive = hash.len(now);
    if count == 0 || alive == 0 {
        return Ok(reply.array(0).done());
    }
    let wanted = count.unsigned_abs();
    if count > 0 {
        return Ok(distinct(hash, now, alive, wanted, with_values, &mut random, reply));
    }
    if wanted > DRAWS_MAX {
        return Err(CommandError::OutOfRange("value is out of range"));
    }
    let mut drawn = Drawn::open(reply, wanted as usize, with_values);
    // If each draw is a walk, one walk serves all of them.
    let all: Option<Vec<Field<'_>>> = draws_are_walks(hash, alive).then(|| hash.iter(now).collect());
    for _ in 0..wanted {
        drawn.push(match &all {
            Some(all) => all[random.index(alive)],
            None => hash.random(now, &mut || random.next_u64()).expect("a field is alive"),
        });
        if drawn.bytes > DRAWN_BYTES_MAX {
            return Err(CommandError::OutOfRange("value is out of range"));
        }
    }
    Ok(drawn.elements.done())
}

/// The count, and whether values are wanted.
fn parse_count(count: &[u8], words: &mut Words<'_>) -> Result<(i64, bool), CommandError> {
    let count = integer(count)?;
    if count == i64::MIN {
        let text = "value is out of range, value must between -9223372036854775807 and 9223372036854775807";
        return Err(CommandError::OutOfRange(text));
    }
    let with_values = match words.next() {
        None => false,
        Some(word) if is(word, "WITHVALUES") && words.left() == 0 => true,
        Some(_) => return Err(CommandError::Syntax),
    };
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::OutOfRange("value is out of range"));
    }
    Ok((count, with_values))
}

/// Whether drawing one field takes a walk: over a listpack, or past expired fields.
fn draws_are_walks(hash: HashRef<'_>, alive: usize) -> bool {
    matches!(hash, HashRef::Small(_)) || alive < hash.stored_len()
}

/// Replies with `wanted` different fields, or with all if there are fewer.
fn distinct(
    hash: HashRef<'_>,
    now: u64,
    alive: usize,
    wanted: u64,
    with_values: bool,
    random: &mut Random,
    reply: Reply<'_>,
) -> crate::resp::Done {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(alive);
    let mut drawn = Drawn::open(reply, wanted, with_values);
    if wanted.saturating_mul(SPARSE) >= alive || draws_are_walks(hash, alive) {
        // One pass, in which each field is taken with its remaining probability.
        let (mut left, mut due) = (alive as u64, wanted as u64);
        for field in hash.iter(now) {
            if due > 0 && random.below(left) < due {
                drawn.push(field);
                due -= 1;
            }
            left = left.saturating_sub(1).max(1);
        }
        return drawn.elements.done();
    }
    let mut seen = HashSet::with_capacity(wanted);
    while seen.len() < wanted {
        let field = hash.random(now, &mut || random.next_u64()).expect("a field is alive");
        if seen.insert(field.name.to_vec()) {
            drawn.push(field);
        }
    }
    drawn.elements.done()
}

/// The reply while fields are drawn. In RESP3, each field with its value is an array of two.
struct Drawn<'a> {
    elements: Elements<'a>,
    with_values: bool,
    bytes: usize,
}

impl<'a> Drawn<'a> {
    fn open(reply: Reply<'a>, fields: usize, with_values: bool) -> Drawn<'a> {
        let flat = with_values && reply.resp() == Resp::V2;
        Drawn { elements: reply.array(if flat { 2 * fields } else { fields }), with_values, bytes: 0 }
    }

    fn push(&mut self, field: Field<'_>) {
        let (mut digits, value) = (itoa::Buffer::new(), Some(field.value));
        let name = field.name.as_bytes(&mut digits);
        self.bytes += name.len();
        if !self.with_values {
            return self.elements.bulk(name);
        }
        self.bytes += field.value.item().text_len();
        match self.elements.resp() {
            Resp::V2 => {
                self.elements.bulk(name);
                value_element(&mut self.elements, value);
            }
            Resp::V3 => {
                let mut pair = self.elements.array(2);
                pair.bulk(name);
                value_element(&mut pair, value);
                pair.end();
            }
        }
    }
}

pub(super) static HSCAN: Command = Command {
    name: "HSCAN",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY,
    keys: ACCESSED,
    handler: Handler::Data(hscan),
    since: "2.8.0",
    complexity: "O(1) for every call. O(N) for a complete iteration, where N is the number of fields.",
    tips: "nondeterministic_output",
    syntax: "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    summary: "Gives some of the fields with their values, and where to go on.",
    ..HASH
};

fn hscan(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (now, args, key) = (now(call), call.args, call.key(1));
    let cursor = parse_cursor(args.at(2))?;
    let mut page = Page::default();
    let Some(hash) = call.db.view::<AnyHash>(key)? else { return Ok(page.reply(reply, 0)) };
    let options = ElementOptions::parse(Words::new(args, 3), Scanned::Fields)?;
    let mut digits = itoa::Buffer::new();
    let next = hash.scan(cursor, options.count, now, &mut |field| {
        let name = field.name.as_bytes(&mut digits);
        if options.keeps(name) {
            page.push(name);
            if !options.no_values {
                page.push(field.value.item().as_bytes(&mut digits));
            }
        }
    });
    Ok(page.reply(reply, next.unwrap_or(0)))
}
