//! BITPOS: finds the first set or clear bit.

use super::{BITMAP, bit_range, unit_is_bit};
use crate::command::string::text;
use crate::core::args::integer;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, flags};
use crate::resp::Reply;

pub(super) static BITPOS: Command = Command {
    name: "BITPOS",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(bitpos),
    since: "2.8.7",
    complexity: "O(N) where N is the length of the part that is searched.",
    syntax: "key bit [start [end [BYTE | BIT@7.0.0]]]",
    summary: "Finds the first bit that is set, or that is clear, in the string at a key or in a part of it.",
    ..BITMAP
};

fn bitpos(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let args = call.args;
    let set = match integer(args.at(2))? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::Text("ERR The bit argument must be 1 or 0.")),
    };
    if args.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let start = args.get(3).map(integer).transpose()?.unwrap_or(0);
    let is_bit = args.get(5).map(unit_is_bit).transpose()?.unwrap_or(false);
    let end = args.get(4).map(integer).transpose()?;
    let key = call.key(1);
    let mut digits = itoa::Buffer::new();
    // A missing key is an endless row of zeros.
    let Some(value) = call.db.string(key)? else { return Ok(reply.int(if set { -1 } else { 0 })) };
    let bytes = text(value, &mut digits);
    let Some((first, last)) = bit_range(start, end.unwrap_or(-1), is_bit, bytes.len()) else {
        return Ok(reply.int(-1));
    };
    Ok(reply.int(match first_bit(bytes, set, first, last) {
        Some(at) => at as i64,
        // Without an end, zeros follow the string.
        None if !set && end.is_none() => bytes.len() as i64 * 8,
        None => -1,
    }))
}

/// The first bit with the value `set` from `first` to `last`, both inclusive and within the string.
fn first_bit(bytes: &[u8], set: bool, first: usize, last: usize) -> Option<usize> {
    let flip = if set { 0 } else { 0xff };
    let head = (bytes[first / 8] ^ flip) & 0xff >> (first % 8);
    let at = match head {
        0 => {
            let from = first / 8 + 1;
            let at = from + first_unlike(bytes.get(from..=last / 8)?, flip)?;
            at * 8 + (bytes[at] ^ flip).leading_zeros() as usize
        }
        _ => first / 8 * 8 + head.leading_zeros() as usize,
    };
    (at <= last).then_some(at)
}

/// The first byte that is not `like`, eight bytes at a time.
fn first_unlike(bytes: &[u8], like: u8) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let skipped = words.iter().position(|word| *word != [like; 8]).unwrap_or(words.len()) * 8;
    bytes[skipped..].iter().position(|byte| *byte != like).map(|at| skipped + at)
}
