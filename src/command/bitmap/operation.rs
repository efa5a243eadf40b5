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
    syntax: "<AND | OR | XOR | NOT> destkey key [key ...]",
    summary: "Combines strings bit by bit and stores the result, as long as the longest of them.",
    ..BITMAP
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

fn operation(word: &[u8]) -> Result<Operation, CommandError> {
    let names = [("AND", Operation::And), ("OR", Operation::Or), ("XOR", Operation::Xor), ("NOT", Operation::Not)];
    names.iter().find(|(name, _)| is(word, name)).map(|(_, operation)| *operation).ok_or(CommandError::Syntax)
}

fn bitop(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let operation = operation(call.args.at(1))?;
    if operation == Operation::Not && call.args.len() != 4 {
        return Err(CommandError::Text("ERR BITOP NOT must be called with a single source key."));
    }
    let mut result = Vec::new();
    for (number, key) in call.keys().skip(1).enumerate() {
        let mut digits = itoa::Buffer::new();
        let source = call.db.string(key)?.map_or(&b""[..], |value| text(value, &mut digits));
        combine(&mut result, source, operation, number == 0)?;
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
        Operation::Not => {}
    }
    match operation {
        Operation::And if is_first => result.extend_from_slice(more),
        Operation::And => {
            result[common..].fill(0);
            result.resize(common + rest + more.len(), 0);
        }
        Operation::Or | Operation::Xor => result.extend_from_slice(more),
        Operation::Not => result.extend(more.iter().map(|byte| !byte)),
    }
    Ok(())
}
