//! BITOP: strings combined bit by bit.

use super::BITMAP;
use crate::command::string::text;
use crate::core::args::is;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, flags};
use crate::keyspace::NewValue;
use crate::resp::Reply;

pub(super) static BITOP: Command = Command {
    name: "BITOP",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: Keys(&[KeySpec::at(2, "OW update"), KeySpec::range(3, -1, 1, "RO access")]),
    log: LogRule::Effects, // as the state of the destination
    handler: Handler::Data(bitop),
    since: "2.6.0",
    complexity: "O(N) where N is the length of the longest string.",
    syntax: "<AND | OR | XOR | NOT | DIFF@8.2.0 | DIFF1@8.2.0 | ANDOR@8.2.0 | ONE@8.2.0> destkey key [key ...]",
    summary: "Combines strings bit by bit and stores the result, as long as the longest of them.",
    ..BITMAP
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
    /// In the first, and in no other.
    Diff,
    /// In one or more others, and not in the first.
    Diff1,
    /// In the first, and in one or more others.
    AndOr,
    /// In exactly one.
    One,
}

const OPERATIONS: [(&str, Operation); 8] = [
    ("AND", Operation::And),
    ("OR", Operation::Or),
    ("XOR", Operation::Xor),
    ("NOT", Operation::Not),
    ("DIFF", Operation::Diff),
    ("DIFF1", Operation::Diff1),
    ("ANDOR", Operation::AndOr),
    ("ONE", Operation::One),
];

/// The operation that an argument names, if it takes this number of sources.
fn operation(word: &[u8], sources: usize) -> Result<Operation, CommandError> {
    let named = OPERATIONS.iter().find(|(name, _)| is(word, name));
    let (name, operation) = *named.ok_or(CommandError::Syntax)?;
    match operation {
        Operation::Not if sources != 1 => {
            Err(CommandError::Text("ERR BITOP NOT must be called with a single source key."))
        }
        Operation::Diff | Operation::Diff1 | Operation::AndOr if sources < 2 => {
            Err(CommandError::err(format_args!("BITOP {name} must be called with at least two source keys.")))
        }
        _ => Ok(operation),
    }
}

fn bitop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let operation = operation(call.args.at(1), call.args.len() - 3)?;
    // With a first string of its own, the others are put together before it is looked at.
    let (mut first, mut result) = (Vec::new(), Vec::new());
    for (number, key) in call.keys().skip(1).enumerate() {
        let mut digits = itoa::Buffer::new();
        let source = call.db.string(key)?.map_or(&b""[..], |value| text(value, &mut digits));
        match operation {
            Operation::Diff | Operation::Diff1 | Operation::AndOr if number == 0 => {
                combine(&mut first, source, Operation::Or, true)?;
            }
            Operation::Diff | Operation::Diff1 | Operation::AndOr => {
                combine(&mut result, source, Operation::Or, false)?;
            }
            Operation::One => add_ones(&mut result, &mut first, source)?,
            _ => combine(&mut result, source, operation, number == 0)?,
        }
    }
    match operation {
        Operation::Diff | Operation::Diff1 | Operation::AndOr | Operation::One => {
            let len = first.len().max(result.len());
            extend(&mut first, len)?;
            extend(&mut result, len)?;
        }
        _ => {}
    }
    let pairs = result.iter_mut().zip(&first);
    match operation {
        Operation::Diff => pairs.for_each(|(others, first)| *others = first & !*others),
        Operation::Diff1 | Operation::One => pairs.for_each(|(others, first)| *others &= !first),
        Operation::AndOr => pairs.for_each(|(others, first)| *others &= first),
        _ => {}
    }
    let (destination, len) = (call.key(2), result.len());
    if len > 0 {
        call.db.overwrite(destination, NewValue::Raw(result), None);
        call.db.log_state(destination);
        call.db.notify(NotifyFlags::STRING, "set", destination);
    } else if call.db.remove(destination) {
        call.db.log_state(destination);
        call.db.notify(NotifyFlags::GENERIC, "del", destination);
    }
    Ok(reply.int(len as i64))
}

/// Makes a string at least this long, with zeros.
fn extend(bytes: &mut Vec<u8>, len: usize) -> Result<(), CommandError> {
    bytes.try_reserve_exact(len.saturating_sub(bytes.len())).map_err(|_| CommandError::OutOfMemory)?;
    bytes.resize(len.max(bytes.len()), 0);
    Ok(())
}

/// Adds a string to those of which the bits are wanted that are in one alone. `odd` has those in an odd number of them,
/// `several` those in more than one.
fn add_ones(odd: &mut Vec<u8>, several: &mut Vec<u8>, source: &[u8]) -> Result<(), CommandError> {
    extend(odd, source.len())?;
    extend(several, source.len())?;
    for ((odd, several), source) in odd.iter_mut().zip(several.iter_mut()).zip(source) {
        // A bit that was in three before is odd, and several already.
        *several |= *odd & source;
        *odd ^= source;
    }
    Ok(())
}

/// Combines the result so far with another string. The shorter of the two is extended with zeros.
fn combine(result: &mut Vec<u8>, source: &[u8], operation: Operation, is_first: bool) -> Result<(), CommandError> {
    let common = result.len().min(source.len());
    let (more, rest) = (&source[common..], result.len() - common);
    result.try_reserve_exact(more.len()).map_err(|_| CommandError::OutOfMemory)?;
    let pairs = result.iter_mut().zip(source);
    match operation {
        // The compiler makes loops over whole vectors of these.
        Operation::And => pairs.for_each(|(to, from)| *to &= from),
        Operation::Or => pairs.for_each(|(to, from)| *to |= from),
        Operation::Xor => pairs.for_each(|(to, from)| *to ^= from),
        _ => {}
    }
    match operation {
        Operation::And if is_first => result.extend_from_slice(more),
        Operation::And => {
            result[common..].fill(0);
            result.resize(common + rest + more.len(), 0);
        }
        Operation::Not => result.extend(more.iter().map(|byte| !byte)),
        _ => result.extend_from_slice(more),
    }
    Ok(())
}
