//! The packed containers inside RDB strings, read element by element: listpack, ziplist, zipmap, intset.
//!
//! They are drawn in [`super`]. Each is an iterator that checks every length against the blob and, at the end, the
//! container against its header. It yields nothing after an error. Nothing is copied.

use super::reader::Parsed;
use crate::base::format::{parse_i64, write_i64};

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Bytes(&'a [u8]),
    Int(i64),
}

impl<'a> Element<'a> {
    /// Its bytes; a number is written into `text`.
    pub(super) fn text<'t>(self, text: &'t mut Vec<u8>) -> &'t [u8]
    where
        'a: 't,
    {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Int(number) => {
                text.clear();
                write_i64(text, number);
                text
            }
        }
    }

    pub(super) fn to_vec(self) -> Vec<u8> {
        self.text(&mut Vec::new()).to_vec()
    }

    /// The integer that it holds or spells.
    pub(super) fn integer(self) -> Option<i64> {
        match self {
            Self::Bytes(bytes) => parse_i64(bytes),
            Self::Int(number) => Some(number),
        }
    }
}

/// Reads from the front of the unread part of a container.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("a container ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("a container ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Parsed<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Parsed<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A signed integer of 1 to 8 bytes, lowest first.
    fn int(&mut self, bytes: usize) -> Parsed<i64> {
        let taken = self.take(bytes)?;
        let mut wide = [0; 8];
        wide[8 - bytes..].copy_from_slice(taken);
        Ok(i64::from_le_bytes(wide) >> (64 - 8 * bytes))
    }

    /// The end: one byte FF, and nothing after it.
    fn is_end(&self) -> Parsed<bool> {
        match self.0 {
            [0xFF] => Ok(true),
            [0xFF, ..] => Err("bytes after the end of a container"),
            _ => Ok(false),
        }
    }
}

/// Checks the 16-bit count of a header. All ones means that the elements must be counted.
fn check_count(claimed: u16, counted: usize) -> Parsed<()> {
    let fits = usize::from(claimed) == counted || (claimed == u16::MAX && counted >= usize::from(u16::MAX));
    if fits { Ok(()) } else { Err("a container holds another number of elements than it says") }
}

/// Turns a fallible step into an iterator that ends after its first error.
macro_rules! iterate {
    ($container:ident) => {
        impl<'a> Iterator for $container<'a> {
            type Item = Parsed<Element<'a>>;

            fn next(&mut self) -> Option<Self::Item> {
                if self.ended {
                    return None;
                }
                let step = self.step().transpose();
                self.ended = !matches!(step, Some(Ok(_)));
                step
            }
        }
    };
}

/// A listpack.
pub(super) struct Listpack<'a> {
    rest: Rest<'a>,
    claimed: u16,
    counted: usize,
    ended: bool,
}

iterate!(Listpack);

impl<'a> Listpack<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Parsed<Self> {
        let mut rest = Rest(blob);
        if rest.u32()? as usize != blob.len() {
            return Err("a listpack has another size than it says");
        }
        let claimed = rest.u16()?;
        Ok(Self { rest, claimed, counted: 0, ended: false })
    }

    fn step(&mut self) -> Parsed<Option<Element<'a>>> {
        if self.rest.is_end()? {
            check_count(self.claimed, self.counted)?;
            return Ok(None);
        }
        let before = self.rest.0.len();
        let element = self.element()?;
        let len = before - self.rest.0.len();
        self.back_length(len)?;
        self.counted += 1;
        Ok(Some(element))
    }

    fn element(&mut self) -> Parsed<Element<'a>> {
        let rest = &mut self.rest;
        let first = rest.u8()?;
        Ok(match first {
            0x00..=0x7F => Element::Int(i64::from(first)),
            0x80..=0xBF => Element::Bytes(rest.take(usize::from(first & 0x3F))?),
            0xC0..=0xDF => {
                let unsigned = i64::from(first & 0x1F) << 8 | i64::from(rest.u8()?);
                Element::Int(unsigned << 51 >> 51)
            }
            0xE0..=0xEF => {
                let len = usize::from(first & 0x0F) << 8 | usize::from(rest.u8()?);
                Element::Bytes(rest.take(len)?)
            }
            0xF0 => {
                let len = rest.u32()?;
                Element::Bytes(rest.take(len as usize)?)
            }
            0xF1 => Element::Int(rest.int(2)?),
            0xF2 => Element::Int(rest.int(3)?),
            0xF3 => Element::Int(rest.int(4)?),
            0xF4 => Element::Int(rest.int(8)?),
            _ => return Err("unknown encoding in a listpack"),
        })
    }

    /// The length behind an element, encoded to be read from the right.
    fn back_length(&mut self, len: usize) -> Parsed<()> {
        let digits = self.rest.take(back_length_bytes(len))?;
        let read = digits.iter().fold(0, |value, &digit| value << 7 | usize::from(digit & 0x7F));
        let marked = digits[0] & 0x80 == 0 && digits[1..].iter().all(|digit| digit & 0x80 != 0);
        if read == len && marked { Ok(()) } else { Err("a listpack does not read backwards") }
    }
}

/// How many bytes the back length of an element of `len` bytes takes.
pub(super) fn back_length_bytes(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// A ziplist.
pub(super) struct Ziplist<'a> {
    rest: Rest<'a>,
    len: usize,
    tail: usize,
    claimed: u16,
    counted: usize,
    /// Where the last element begins, and its length.
    last: (usize, usize),
    ended: bool,
}

iterate!(Ziplist);

impl<'a> Ziplist<'a> {
    const HEADER: usize = 10;

    pub(super) fn new(blob: &'a [u8]) -> Parsed<Self> {
        let mut rest = Rest(blob);
        if rest.u32()? as usize != blob.len() {
            return Err("a ziplist has another size than it says");
        }
        let tail = rest.u32()? as usize;
        let claimed = rest.u16()?;
        Ok(Self { rest, len: blob.len(), tail, claimed, counted: 0, last: (Self::HEADER, 0), ended: false })
    }

    fn step(&mut self) -> Parsed<Option<Element<'a>>> {
        if self.rest.is_end()? {
            check_count(self.claimed, self.counted)?;
            if self.tail != self.last.0 {
                return Err("a ziplist says that its last element is elsewhere");
            }
            return Ok(None);
        }
        let start = self.len - self.rest.0.len();
        let before = match self.rest.u8()? {
            0xFF => return Err("bytes after the end of a container"),
            0xFE => self.rest.u32()? as usize,
            short => usize::from(short),
        };
        if before != self.last.1 {
            return Err("a ziplist does not read backwards");
        }
        let element = self.element()?;
        self.last = (start, self.len - self.rest.0.len() - start);
        self.counted += 1;
        Ok(Some(element))
    }

    fn element(&mut self) -> Parsed<Element<'a>> {
        let rest = &mut self.rest;
        let first = rest.u8()?;
        let len = match first {
            0x00..=0x3F => usize::from(first),
            0x40..=0x7F => usize::from(first & 0x3F) << 8 | usize::from(rest.u8()?),
            0x80 => u32::from_be_bytes(rest.array()?) as usize,
            0xC0 => return rest.int(2).map(Element::Int),
            0xD0 => return rest.int(4).map(Element::Int),
            0xE0 => return rest.int(8).map(Element::Int),
            0xF0 => return rest.int(3).map(Element::Int),
            0xFE => return rest.int(1).map(Element::Int),
            0xF1..=0xFD => return Ok(Element::Int(i64::from(first & 0x0F) - 1)),
            _ => return Err("unknown encoding in a ziplist"),
        };
        rest.take(len).map(Element::Bytes)
    }
}

/// A zipmap, as its fields and values in turn.
pub(super) struct Zipmap<'a> {
    rest: Rest<'a>,
    claimed: u8,
    counted: usize,
    ended: bool,
}

iterate!(Zipmap);

impl<'a> Zipmap<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Parsed<Self> {
        let mut rest = Rest(blob);
        let claimed = rest.u8()?;
        Ok(Self { rest, claimed, counted: 0, ended: false })
    }

    fn step(&mut self) -> Parsed<Option<Element<'a>>> {
        let is_value = self.counted % 2 == 1;
        if !is_value && self.rest.is_end()? {
            // From 254 entries on, the header does not count.
            let pairs = self.counted / 2;
            return match usize::from(self.claimed) {
                claimed if claimed == pairs || (claimed >= 254 && pairs >= 254) => Ok(None),
                _ => Err("a container holds another number of elements than it says"),
            };
        }
        let len = match self.rest.u8()? {
            0xFF => return Err("unknown encoding in a zipmap"),
            0xFE => self.rest.u32()? as usize,
            short => usize::from(short),
        };
        let padding = if is_value { usize::from(self.rest.u8()?) } else { 0 };
        let bytes = self.rest.take(len)?;
        self.rest.take(padding)?;
        self.counted += 1;
        Ok(Some(Element::Bytes(bytes)))
    }
}

/// An intset; its integers must ascend.
pub(super) struct Intset<'a> {
    rest: Rest<'a>,
    width: usize,
    last: Option<i64>,
    ended: bool,
}

iterate!(Intset);

impl<'a> Intset<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Parsed<Self> {
        let mut rest = Rest(blob);
        let width = rest.u32()? as usize;
        if !matches!(width, 2 | 4 | 8) {
            return Err("unknown width of an intset");
        }
        let count = rest.u32()? as usize;
        if count.checked_mul(width) != Some(rest.0.len()) {
            return Err("an intset has another size than it says");
        }
        Ok(Self { rest, width, last: None, ended: false })
    }

    fn step(&mut self) -> Parsed<Option<Element<'a>>> {
        if self.rest.0.is_empty() {
            return Ok(None);
        }
        let number = self.rest.int(self.width)?;
        if self.last.is_some_and(|last| last >= number) {
            return Err("an intset is out of order");
        }
        self.last = Some(number);
        Ok(Some(Element::Int(number)))
    }
}

#[cfg(test)]
#[path = "containers_tests.rs"]
mod tests;
