//! Parts of a value: APPEND, GETRANGE, SETRANGE, STRLEN.
//!
//! Invariants:
//! - No string becomes longer than `proto-max-bulk-len`. Memory that the system refuses is an error, never an abort,
//!   because an offset is a length that a client merely claims.
//! - A value changed in place stays growable, with room for at most `SPARE_MAX_BYTES` more.

use std::ops::Range;

use super::{READ_FAST, STRING, WRITE_FAST, WRITE_SLOW, check_len, encoded, len, store, text};
use crate::core::args::integer;
use crate::core::call::string_reply;
use crate::core::stored_string::{StringRef, shareable};
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, flags};
use crate::keyspace::{Key, NewValue};
use crate::resp::Reply;
use crate::resp::reply::BY_REFERENCE_MIN_BYTES;
use crate::value::entry::SharedBytes;

/// A growing string gets as much spare room as it needs, but at most this much.
const SPARE_MAX_BYTES: usize = 1 << 20;

pub(super) static APPEND: Command = Command {
    name: "APPEND",
    arity: Arity::Exactly(3),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW insert")]),
    log: LogRule::Effects,
    handler: Handler::Data(append),
    since: "2.0.0",
    complexity: "O(1) on average, for a growing string doubles its room.",
    syntax: "key value",
    summary: "Adds to the end of the string at a key, and makes the key if there is none.",
    ..STRING
};

fn append(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, suffix) = (call.key(1), call.args.at(2));
    let Some(old) = call.db.string_to_change(key)?.map(len) else {
        store(call, key, encoded(suffix), suffix, None);
        call.db.notify(NotifyFlags::STRING, "append", key);
        return Ok(reply.int(suffix.len() as i64));
    };
    check_len(call, old as u64, suffix.len() as u64)?;
    let value = room_for(call, key, old + suffix.len())?;
    value.extend_from_slice(suffix);
    let new = value.len();
    if !suffix.is_empty() {
        call.record(key).append(suffix);
    }
    call.db.notify(NotifyFlags::STRING, "append", key);
    Ok(reply.int(new as i64))
}

pub(super) static SETRANGE: Command = Command {
    name: "SETRANGE",
    arity: Arity::Exactly(4),
    flags: WRITE_SLOW,
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(setrange),
    since: "2.2.0",
    complexity: "O(N) where N is the length of the value, or of the string where it grows.",
    syntax: "key offset value",
    summary: "Overwrites a part of the string at a key, filling up with zero bytes where it is too short.",
    ..STRING
};

fn setrange(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, part) = (call.key(1), call.args.at(3));
    let offset = u64::try_from(integer(call.args.at(2))?);
    let offset = offset.map_err(|_| CommandError::OutOfRange("offset is out of range"))?;
    let old = call.db.string_to_change(key)?.map(len);
    if part.is_empty() {
        return Ok(reply.int(old.unwrap_or(0) as i64));
    }
    check_len(call, offset, part.len() as u64)?;
    let start = usize::try_from(offset).map_err(|_| CommandError::StringTooLong)?;
    let new = old.unwrap_or(0).max(start + part.len());
    if old.is_some() {
        overwrite(room_for(call, key, new)?, start, part);
    } else {
        call.db.needs_room(new)?;
        let mut value = Vec::new();
        value.try_reserve_exact(new).map_err(|_| CommandError::OutOfMemory)?;
        overwrite(&mut value, start, part);
        call.db.set(key, NewValue::Raw(value), None);
    }
    call.record(key).set_range(start, part);
    call.db.notify(NotifyFlags::STRING, "setrange", key);
    Ok(reply.int(new as i64))
}

/// Writes `part` at `start`, with zeros before it if the value is shorter.
fn overwrite(value: &mut Vec<u8>, start: usize, part: &[u8]) {
    if value.len() < start {
        value.resize(start, 0);
    }
    let replaced = part.len().min(value.len() - start);
    value[start..start + replaced].copy_from_slice(&part[..replaced]);
    value.extend_from_slice(&part[replaced..]);
}

/// The string of an existing key, to be changed in place, with room for `len` bytes.
pub(in crate::command) fn room_for<'c>(
    call: &'c mut Call<'_>,
    key: Key<'_>,
    len: usize,
) -> Result<&'c mut Vec<u8>, CommandError> {
    if len as u64 > call.db.facts().growth_max {
        let added = match call.db.string_to_change(key)? {
            Some(StringRef::Raw(bytes)) => len.saturating_sub(bytes.len()),
            // It is copied into the growable form.
            _ => len,
        };
        call.db.needs_room(added)?;
    }
    let value = call.db.raw_mut(key).ok_or(CommandError::WrongType)?;
    if value.capacity() < len {
        let wanted = len + len.min(SPARE_MAX_BYTES);
        value.try_reserve_exact(wanted - value.len()).map_err(|_| CommandError::OutOfMemory)?;
    }
    Ok(value)
}

/// What GETRANGE and its old name share.
const RANGE: Command = Command {
    arity: Arity::Exactly(4),
    flags: flags::READONLY,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(getrange),
    complexity: "O(N) where N is the length of the part.",
    syntax: "key start end",
    ..STRING
};

pub(super) static GETRANGE: Command = Command {
    name: "GETRANGE",
    since: "2.4.0",
    summary: "Gives a part of the string at a key, from one index to another, both inclusive.",
    ..RANGE
};

pub(super) static SUBSTR: Command =
    Command { name: "SUBSTR", since: "1.0.0", summary: "The old name of GETRANGE.", ..RANGE };

fn getrange(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (start, end) = (integer(call.args.at(2))?, integer(call.args.at(3))?);
    let key = call.key(1);
    let Some(value) = call.db.string(key)? else { return Ok(reply.bulk(b"")) };
    let mut digits = itoa::Buffer::new();
    let bytes = text(value, &mut digits);
    let range = clamp(start, end, bytes.len());
    if range.len() == bytes.len() {
        return Ok(string_reply(reply, value));
    }
    match shareable(&value).filter(|_| range.len() >= BY_REFERENCE_MIN_BYTES) {
        Some(whole) => Ok(reply.shared(Box::new(Part { whole, range }))),
        None => Ok(reply.bulk(&bytes[range])),
    }
}

/// A part of a large value, sent by reference.
struct Part {
    whole: SharedBytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.whole[self.range.clone()]
    }
}

/// The range that two inclusive indices mean. Negative ones count from the end.
///
/// As in Redis 7, an end before the first byte means the first byte, unless both count from the end in the wrong
/// order.
fn clamp(start: i64, end: i64, len: usize) -> Range<usize> {
    if len == 0 || (start < 0 && end < 0 && start > end) {
        return 0..0;
    }
    let index = |at: i64| if at < 0 { (at.saturating_add(len as i64)).max(0) } else { at };
    let (first, last) = (index(start), index(end).min(len as i64 - 1));
    if first > last { 0..0 } else { first as usize..last as usize + 1 }
}

pub(super) static STRLEN: Command = Command {
    name: "STRLEN",
    arity: Arity::Exactly(2),
    flags: READ_FAST,
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(strlen),
    since: "2.2.0",
    syntax: "key",
    summary: "Gives the length of the string at a key, in bytes; 0 if there is none.",
    ..STRING
};

fn strlen(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let found = call.db.string(key)?.map_or(0, len);
    Ok(reply.int(found as i64))
}

#[cfg(test)]
mod tests {
    use super::super::tests::encoding;
    use super::clamp;
    use crate::exec::testing::Runner;

    #[test]
    fn indices_mean_what_they_mean_in_redis() {
        let cases = [
            (0, -1, 0..5),
            (1, 3, 1..4),
            (-3, -1, 2..5),
            (-1, -3, 0..0),
            (3, 1, 0..0),
            (0, -100, 0..1),
            (-100, -100, 0..1),
            (-100, 2, 0..3),
            (3, 100, 3..5),
            (5, 100, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MAX, 0..0),
            (i64::MIN, i64::MIN, 0..1),
        ];
        for (start, end, range) in cases {
            assert_eq!(clamp(start, end, 5), range, "{start} {end}");
        }
        assert_eq!(clamp(0, -1, 0), 0..0);
    }

    #[test]
    fn parts_are_read_from_texts_and_numbers() {
        let mut t = Runner::new();
        t.script(
            "SET k 'Hello World' => +OK
             GETRANGE k 0 4 => $5 Hello
             SUBSTR k -5 -1 => $5 World
             SET k -12345 => +OK
             GETRANGE k 0 2 => $3 -12
             STRLEN k => :6
             STRLEN nothing => :0
             GETRANGE nothing 0 -1 => $0
             GETRANGE nothing a -1 => -ERR value is not an integer or out of range
             GETRANGE k 0 1.5 => -ERR value is not an integer or out of range",
        );
    }

    #[test]
    fn appending_makes_a_growable_string() {
        let mut t = Runner::new();
        t.script("APPEND k 12 => :2");
        assert_eq!(encoding(&t, "k"), "int", "the first is stored as SET would");
        t.script("APPEND k 3 => :3\n GET k => $3 123");
        assert_eq!(encoding(&t, "k"), "raw");
        t.script("APPEND e '' => :0\n GET e => $0\n APPEND e '' => :0");
        assert_eq!(encoding(&t, "e"), "raw");
        for _ in 0..1000 {
            t.run("APPEND k 0123456789");
        }
        t.script("STRLEN k => :10003\n GETRANGE k -12 -1 => $12 890123456789");
        t.assert_replay_equals_live();
    }

    #[test]
    fn overwriting_fills_up_with_zero_bytes() {
        let mut t = Runner::new();
        t.script(
            "SETRANGE k 0 '' => :0
             GET k => $-1
             SETRANGE k 3 ab => :5
             GET k => $5 \0\0\0ab
             SETRANGE k 0 xyz => :5
             SETRANGE k 4 long => :8
             GET k => $8 xyzalong
             SETRANGE k 1 '' => :8
             SET n 12 => +OK
             SETRANGE n 9 '' => :2",
        );
        assert_eq!((encoding(&t, "k"), encoding(&t, "n")), ("raw", "int"));
        t.script("SETRANGE n 1 5 => :2\n INCR n => :16");
        t.assert_replay_equals_live();
        let changes =
            ["SETRANGE k 3 ab", "SETRANGE k 0 xyz", "SETRANGE k 4 long", "SET n 12", "SETRANGE n 1 5", "SET n 16"];
        assert_eq!(t.take_logged(), changes, "nothing is logged where nothing changed");
    }

    #[test]
    fn a_length_that_is_only_claimed_is_refused() {
        let mut t = Runner::new();
        t.script(
            "SET k v => +OK
             SETRANGE k -1 x => -ERR offset is out of range
             SETRANGE k -1 '' => -ERR offset is out of range
             SETRANGE k x x => -ERR value is not an integer or out of range
             SETRANGE k 536870912 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
             SETRANGE k 9223372036854775807 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
             SETRANGE new 536870912 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
             SETRANGE k 9223372036854775807 '' => :1
             GET k => $1 v
             GET new => $-1",
        );
        t.assert_replay_equals_live();
    }

    #[test]
    fn changing_a_part_keeps_the_expiry() {
        let mut t = Runner::new();
        t.script("SET k abc PX 10 => +OK\n APPEND k d => :4\n SETRANGE k 0 x => :4");
        t.assert_replay_equals_live();
        t.advance_ms(10);
        t.script("GET k => $-1\n APPEND k e => :1\n GET k => $1 e");
        t.assert_replay_equals_live();
    }
}
