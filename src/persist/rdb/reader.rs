//! Reads the primitives of RDB from a slice: lengths, strings, doubles, ids.
//!
//! No allocation trusts a length alone: a string must lie within the input, a compressed one must not exceed what its
//! bytes can expand to, and a count must not exceed what the remaining bytes can hold.

use std::borrow::Cow;

use super::{RdbStreamId, lzf};
use crate::base::format::{parse_double, write_i64};

/// A parsed item, or what is wrong with it.
pub(super) type Parsed<T> = Result<T, &'static str>;

const CUT: &str = "the payload ends too early";

/// A position in a payload.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a length field holds.
enum Length {
    Plain(u64),
    /// The number of a special encoding of a string.
    Special(u8),
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, len: u64) -> Parsed<&'a [u8]> {
        let len = usize::try_from(len).ok().filter(|&len| len <= self.remaining()).ok_or(CUT)?;
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.take(N as u64)?.try_into().map_err(|_| CUT)
    }

    pub(super) fn u8(&mut self) -> Parsed<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 64-bit number, lowest byte first, as the format stores times.
    pub(super) fn i64(&mut self) -> Parsed<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn any_length(&mut self) -> Parsed<Length> {
        let first = self.u8()?;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(first)),
            1 => Length::Plain(u64::from(first & 0x3F) << 8 | u64::from(self.u8()?)),
            2 if first == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
            2 => return Err("unknown form of a length"),
            _ => Length::Special(first & 0x3F),
        })
    }

    /// A number in the form of a length.
    pub(super) fn length(&mut self) -> Parsed<u64> {
        match self.any_length()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => Err("a special encoding in place of a length"),
        }
    }

    /// How many items follow, each of at least `item_bytes_min` bytes.
    pub(super) fn count(&mut self, item_bytes_min: usize) -> Parsed<usize> {
        let count = self.length()?;
        let max = self.remaining() / item_bytes_min;
        usize::try_from(count).ok().filter(|&count| count <= max).ok_or("more items than bytes for them")
    }

    /// A string, in any of its encodings.
    pub(crate) fn string(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let number = match self.any_length()? {
            Length::Plain(len) => return self.take(len).map(Cow::Borrowed),
            Length::Special(0) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Special(1) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Special(2) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => return self.compressed().map(Cow::Owned),
            Length::Special(_) => return Err("unknown encoding of a string"),
        };
        let mut text = Vec::with_capacity(11);
        write_i64(&mut text, number);
        Ok(Cow::Owned(text))
    }

    fn compressed(&mut self) -> Parsed<Vec<u8>> {
        let packed = self.length()?;
        let len = self.length()?;
        lzf::decompress(self.take(packed)?, len).ok_or("a compressed string is damaged")
    }

    /// A double in eight bytes.
    pub(super) fn double(&mut self) -> Parsed<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// A double as RDB stored it before version 8: a length byte and digits.
    pub(super) fn old_double(&mut self) -> Parsed<f64> {
        match self.u8()? {
            253 => Ok(f64::NAN),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            len => parse_double(self.take(u64::from(len))?).ok_or("a score is no number"),
        }
    }

    /// A stream id as two lengths.
    pub(super) fn id(&mut self) -> Parsed<RdbStreamId> {
        Ok((self.length()?, self.length()?))
    }

    /// A stream id as sixteen bytes.
    pub(super) fn raw_id(&mut self) -> Parsed<RdbStreamId> {
        self.array().map(id_from_bytes)
    }
}

/// A stream id from its sixteen bytes, which sort as ids do.
pub(super) fn id_from_bytes(bytes: [u8; 16]) -> RdbStreamId {
    let id = u128::from_be_bytes(bytes);
    ((id >> 64) as u64, id as u64)
}
