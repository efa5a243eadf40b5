//! BITFIELD and BITFIELD_RO: a string as an array of integers of any width.
//!
//! A field is the bits from its offset on, highest first, as many as its type says. Each operation sees what earlier
//! ones have written.
//!
//! Invariant: everything is checked before anything is written, so a failed command has changed nothing.

use std::ops::Range;

use smallvec::SmallVec;

use super::{BITMAP, bit_offset, text, with_room};
use crate::base::format;
use crate::core::args::{Words, integer, is};
use crate::core::error::until_nul;
use crate::core::key_spec::KeyFlags;
use crate::core::stored_string::StringRef;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, flags};
use crate::resp::{Args, Reply};

pub(super) static BITFIELD: Command = Command {
    name: "BITFIELD",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec {
        notes: "This command allows both access and modification of the key",
        flags_of: Some(|args| KeyFlags::of(if only_gets(args) { "RO access" } else { "RW access update" })),
        ..KeySpec::at(1, "RW access update variable_flags")
    }]),
    log: LogRule::Effects,
    handler: Handler::Data(bitfield),
    since: "3.2.0",
    complexity: "O(1) for each operation.",
    syntax: "key [<GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | INCRBY \
             encoding offset increment>> [<GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding \
             offset value | INCRBY encoding offset increment>> ...]]",
    summary: "Reads, sets and counts up integers of any width inside the string at a key.",
    ..BITMAP
};

pub(super) static BITFIELD_RO: Command = Command {
    name: "BITFIELD_RO",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(bitfield_ro),
    since: "6.0.0",
    complexity: "O(1) for each operation.",
    syntax: "key [GET encoding offset [GET encoding offset ...]]",
    summary: "Reads integers of any width inside the string at a key.",
    ..BITMAP
};

/// Whether a call only reads. A call that cannot be parsed counts as one that writes.
fn only_gets(args: Args<'_>) -> bool {
    let mut words = Words::new(args, 2);
    while let Some(word) = words.next() {
        let taken = match word {
            word if is(word, "GET") => 2,
            word if is(word, "OVERFLOW") => 1,
            _ => return false,
        };
        if words.left() < taken {
            return false;
        }
        words.pass_over(taken);
    }
    true
}

/// What to do with a number that its field cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    /// Take its lowest bits.
    Wrap,
    /// Take the nearest number that the field can hold.
    Saturate,
    /// Write nothing and reply with null.
    Fail,
}

/// A field: its place, and how to read its bits.
#[derive(Clone, Copy, Debug)]
struct Field {
    is_signed: bool,
    /// From 1 to 64; to 63 if unsigned.
    bits: u32,
    offset: u64,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Set(i64),
    IncrBy(i64),
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

/// The effect of an operation on its field.
#[derive(Clone, Copy, Debug)]
struct Effect {
    /// The reply; `None` for null.
    reply: Option<i64>,
    /// The new content of the field, if it changes.
    written: Option<i64>,
}

type Operations = SmallVec<[Operation; 4]>;
type Replies = SmallVec<[Option<i64>; 8]>;
/// The bytes of the fields that were written, and where they are.
type Parts = SmallVec<[(usize, SmallVec<[u8; 9]>); 4]>;

fn bitfield(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let operations = parse(call)?;
    let writes = operations.iter().filter(|operation| !matches!(operation.action, Action::Get));
    match writes.map(|operation| operation.field.end()).max() {
        None => read_only(call, &operations, reply),
        Some(end) => write(call, &operations, end, reply),
    }
}

fn bitfield_ro(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let operations = parse(call)?;
    if operations.iter().any(|operation| !matches!(operation.action, Action::Get)) {
        return Err(CommandError::Text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_only(call, &operations, reply)
}

fn read_only(call: &mut Call<'_>, operations: &[Operation], reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut digits = itoa::Buffer::new();
    let bytes = call.db.string(key)?.map_or(&b""[..], |value| text(value, &mut digits));
    respond(reply, operations.iter().map(|operation| operation.effect(bytes).reply).collect())
}

/// Runs operations of which at least one writes. `len` bytes hold every written field.
fn write(call: &mut Call<'_>, operations: &[Operation], len: usize, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let mut digits = itoa::Buffer::new();
    let old = call.db.string_to_change(key)?;
    let is_growable = matches!(old, Some(StringRef::Raw(_)));
    let old = old.map(|value| text(value, &mut digits));
    if let Some(bytes) = old.filter(|bytes| bytes.len() >= len) {
        // If none changes the bytes, every operation sees the original ones.
        let effects = operations.iter().map(|operation| operation.effect(bytes));
        if effects.clone().all(|effect| effect.written.is_none()) {
            let replies = effects.map(|effect| effect.reply).collect();
            if !is_growable {
                call.db.make_growable(key);
            }
            return respond(reply, replies);
        }
    }
    let old = old.map(<[u8]>::len);
    let (before, mut changes) = (call.db.changes(), 0);
    let (replies, parts) = with_room(call, key, old, len, |bytes| {
        let mut written: SmallVec<[Range<usize>; 4]> = SmallVec::new();
        let run = |operation: &Operation| {
            let effect = operation.effect(bytes);
            if let Some(value) = effect.written {
                changes += 1;
                operation.field.put(bytes, value);
                written.push((operation.field.offset >> 3) as usize..operation.field.end());
            }
            effect.reply
        };
        let replies: Replies = operations.iter().map(run).collect();
        let part = |range: Range<usize>| (range.start, SmallVec::from_slice(&bytes[range]));
        (replies, written.into_iter().map(part).collect::<Parts>())
    })?;
    let reached = parts.iter().map(|(at, bytes)| at + bytes.len()).max().unwrap_or(0);
    if len > old.unwrap_or(0).max(reached) {
        call.record(key).set_range(len, b"");
    }
    for (at, bytes) in parts {
        call.record(key).set_range(at, &bytes);
    }
    // Making room for a field is a change, even if nothing was written into it.
    call.db.count_as(before, changes.max(1));
    let writes_nothing = |(operation, reply): (&Operation, &Option<i64>)| match operation.action {
        Action::Get => true,
        Action::Set(_) | Action::IncrBy(_) => reply.is_none(),
    };
    if !operations.iter().zip(&replies).all(writes_nothing) {
        call.db.notify(NotifyFlags::STRING, "setbit", key);
    }
    respond(reply, replies)
}

fn respond(reply: Reply<'_>, replies: Replies) -> Outcome {
    let mut elements = reply.array(replies.len());
    for reply in replies {
        match reply {
            Some(number) => elements.int(number),
            None => elements.null(),
        }
    }
    Ok(elements.done())
}

/// The operations of a call.
fn parse(call: &Call<'_>) -> Result<Operations, CommandError> {
    let mut operations = Operations::new();
    let mut overflow = Overflow::Wrap;
    let mut words = Words::new(call.args, 2);
    while let Some(word) = words.next() {
        let left = words.left();
        if is(word, "OVERFLOW") && left >= 1 {
            overflow = overflow_of(words.value()?)?;
            continue;
        }
        let (is_get, is_set, is_incrby) = (is(word, "GET"), is(word, "SET"), is(word, "INCRBY"));
        if !(is_get && left >= 2 || (is_set || is_incrby) && left >= 3) {
            return Err(CommandError::Syntax);
        }
        let (is_signed, bits) = type_of(words.value()?)?;
        let offset = bit_offset(call, words.value()?, Some(bits))?;
        let field = Field { is_signed, bits, offset };
        let action = match (is_get, is_set) {
            (true, _) => Action::Get,
            (_, true) => Action::Set(integer(words.value()?)?),
            _ => Action::IncrBy(integer(words.value()?)?),
        };
        operations.push(Operation { field, action, overflow });
    }
    Ok(operations)
}

fn overflow_of(word: &[u8]) -> Result<Overflow, CommandError> {
    let names = [("WRAP", Overflow::Wrap), ("SAT", Overflow::Saturate), ("FAIL", Overflow::Fail)];
    let found = names.iter().find(|(name, _)| is(word, name));
    found.map(|(_, overflow)| *overflow).ok_or(CommandError::Text("ERR Invalid OVERFLOW type specified"))
}

/// Whether a type is signed, and its width: `i16`, `u8`.
fn type_of(word: &[u8]) -> Result<(bool, u32), CommandError> {
    const BAD_TYPE: CommandError = CommandError::Text(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    );
    let (is_signed, digits) = match until_nul(word) {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(BAD_TYPE),
    };
    match format::parse_i64(digits) {
        Some(bits @ 1..=63) => Ok((is_signed, bits as u32)),
        Some(64) if is_signed => Ok((true, 64)),
        _ => Err(BAD_TYPE),
    }
}

impl Field {
    /// The length of a string that holds the whole field.
    fn end(self) -> usize {
        ((self.offset + u64::from(self.bits) - 1) >> 3) as usize + 1
    }

    /// The bytes that the field touches, with zeros behind the string; their offset; and the distance of the field
    /// from the low end.
    fn window(self, bytes: &[u8]) -> (u128, usize, u32) {
        let first = (self.offset >> 3) as usize;
        let window = bytes.get(first..).unwrap_or_default();
        let mut nine = [0; 16];
        let there = window.len().min(9);
        nine[7..7 + there].copy_from_slice(&window[..there]);
        (u128::from_be_bytes(nine), first, 72 - (self.offset & 7) as u32 - self.bits)
    }

    /// The bits of a field, in the low end.
    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// The content of the field.
    fn get(self, bytes: &[u8]) -> i64 {
        let (window, _, shift) = self.window(bytes);
        self.cut((window >> shift) as u64)
    }

    /// The lowest bits of `value`, read as a number of this field.
    fn cut(self, value: u64) -> i64 {
        let unused = 64 - self.bits;
        match self.is_signed {
            true => ((value << unused) as i64) >> unused,
            false => (value & self.mask()) as i64,
        }
    }

    /// Writes the field, which lies inside `bytes`.
    fn put(self, bytes: &mut [u8], value: i64) {
        let (window, first, shift) = self.window(bytes);
        let mask = u128::from(self.mask()) << shift;
        let window = window & !mask | u128::from(value as u64) << shift & mask;
        let end = self.end();
        bytes[first..end].copy_from_slice(&window.to_be_bytes()[7..7 + end - first]);
    }

    /// The sum of `value` and `more`, adapted to the field; `None` if it does not fit and must fail.
    fn sum(self, value: i64, more: i64, overflow: Overflow) -> Option<i64> {
        let limit = match self.is_signed {
            true => self.signed_limit(value, more),
            false => self.unsigned_limit(value, more),
        };
        match (limit, overflow) {
            (None, _) => Some(value.wrapping_add(more)),
            (Some(_), Overflow::Wrap) => Some(self.cut(value.wrapping_add(more) as u64)),
            (Some(limit), Overflow::Saturate) => Some(limit),
            (Some(_), Overflow::Fail) => None,
        }
    }

    /// The limit that a sum exceeds, if any. As in Redis, the differences wrap around: a SET of a number that is
    /// below the smallest by nearly 64 bits counts as too large.
    fn signed_limit(self, value: i64, more: i64) -> Option<i64> {
        let max = (self.mask() >> 1) as i64;
        let min = -max - 1;
        let (room_up, room_down) = (max.wrapping_sub(value), min.wrapping_sub(value));
        let narrow = self.bits < 64;
        if value > max || (narrow && more > room_up) || (value >= 0 && more > 0 && more > room_up) {
            Some(max)
        } else if value < min || (narrow && more < room_down) || (value < 0 && more < 0 && more < room_down) {
            Some(min)
        } else {
            None
        }
    }

    /// The same for an unsigned field. A negative number to SET counts as too large.
    fn unsigned_limit(self, value: i64, more: i64) -> Option<i64> {
        let max = self.mask();
        let value = value as u64;
        if value > max || (more > 0 && more > max.wrapping_sub(value) as i64) {
            Some(max as i64)
        } else if more < 0 && more < 0_u64.wrapping_sub(value) as i64 {
            Some(0)
        } else {
            None
        }
    }
}

impl Operation {
    fn effect(&self, bytes: &[u8]) -> Effect {
        let old = self.field.get(bytes);
        let new = match self.action {
            Action::Get => Some(old),
            Action::Set(value) => self.field.sum(value, 0, self.overflow),
            Action::IncrBy(more) => self.field.sum(old, more, self.overflow),
        };
        let reply = if matches!(self.action, Action::IncrBy(_)) { new } else { new.map(|_| old) };
        Effect { reply, written: new.filter(|new| *new != old) }
    }
}
