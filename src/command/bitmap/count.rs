//! BITCOUNT: how many bits are set.

use super::{BITMAP, bit_range, unit_is_bit};
use crate::command::string::text;
use crate::core::args::integer;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, flags};
use crate::resp::Reply;

pub(super) static BITCOUNT: Command = Command {
    name: "BITCOUNT",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(bitcount),
    since: "2.6.0",
    complexity: "O(N) where N is the length of the part that is counted.",
    syntax: "key [start [end [BYTE | BIT@7.0.0]]]",
    summary: "Counts the bits that are set in the string at a key, or in a part of it.",
    ..BITMAP
};

fn bitcount(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let args = call.args;
    let part = match args.len() {
        2 => None,
        // Without an end, as in Valkey: up to the last byte.
        3 => Some((integer(args.at(2))?, -1, false)),
        4 | 5 => {
            let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
            Some((start, end, args.get(4).map(unit_is_bit).transpose()?.unwrap_or(false)))
        }
        _ => return Err(CommandError::Syntax),
    };
    let key = call.key(1);
    let mut digits = itoa::Buffer::new();
    let Some(value) = call.db.string(key)? else { return Ok(reply.int(0)) };
    let bytes = text(value, &mut digits);
    let bits = match part {
        None => ones(bytes),
        // Two indices that count from the end in the wrong order give nothing, even if both are clamped.
        Some((start, end, _)) if start < 0 && end < 0 && start > end => 0,
        Some((start, end, is_bit)) => {
            bit_range(start, end, is_bit, bytes.len()).map_or(0, |(first, last)| ones_between(bytes, first, last))
        }
    };
    Ok(reply.int(bits as i64))
}

/// The number of ones from the bit `first` to the bit `last`, both inclusive and inside.
fn ones_between(bytes: &[u8], first: usize, last: usize) -> u64 {
    let part = &bytes[first / 8..=last / 8];
    let before = part[0] & !(0xff >> (first % 8));
    let behind = part[part.len() - 1] & !(0xff << (7 - last % 8));
    ones(part) - u64::from(before.count_ones()) - u64::from(behind.count_ones())
}

/// The number of ones, eight bytes at a time.
fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    in_words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}
