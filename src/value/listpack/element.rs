//! One element of a listpack: its meaning, its head and back length, and its shortest form.
//!
//! The parent's header draws the bytes. Reading stays within the bytes that it receives.

use super::HEADER_LEN;
use crate::base::format;
use std::cmp::Ordering;

/// One element, read or about to be written. Elements are equal if their texts are.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// An integer: its text is its decimal form.
    Int(i64),
    /// Any bytes.
    Str(&'a [u8]),
}

impl<'a> Item<'a> {
    /// The element with this text in the form of a listpack, for comparison with many.
    #[inline]
    pub fn canonical(text: &'a [u8]) -> Item<'a> {
        format::parse_i64(text).map_or(Item::Str(text), Item::Int)
    }

    /// The length of the text.
    #[inline]
    pub fn text_len(self) -> usize {
        match self {
            Item::Int(number) => itoa::Buffer::new().format(number).len(),
            Item::Str(text) => text.len(),
        }
    }

    /// Whether the text is this one.
    #[inline]
    pub fn is(self, text: &[u8]) -> bool {
        match self {
            // An integer's text has 1 to 20 bytes, and only canonical texts read as integers.
            Item::Int(number) => format::parse_i64(text) == Some(number),
            Item::Str(own) => own == text,
        }
    }

    /// Appends the text.
    #[inline]
    pub fn write_to(self, out: &mut Vec<u8>) {
        match self {
            Item::Int(number) => format::write_i64(out, number),
            Item::Str(text) => out.extend_from_slice(text),
        }
    }

    /// The text. That of an integer is written into the buffer.
    #[inline]
    pub fn as_bytes<'b>(self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Item::Int(number) => buffer.format(number).as_bytes(),
            Item::Str(text) => text,
        }
    }

    /// The text as a `Vec`.
    pub fn to_vec(self) -> Vec<u8> {
        self.as_bytes(&mut itoa::Buffer::new()).to_vec()
    }

    /// The element as an integer, if its text is a canonical one.
    #[inline]
    pub fn to_i64(self) -> Option<i64> {
        match self {
            Item::Int(number) => Some(number),
            Item::Str(text) => format::parse_i64(text),
        }
    }

    /// The element as a double, if its text is one: never NaN.
    #[inline]
    pub fn to_f64(self) -> Option<f64> {
        match self {
            Item::Int(number) => Some(number as f64),
            Item::Str(text) => format::parse_double(text),
        }
    }

    /// How the text compares with another, byte by byte.
    #[inline]
    pub fn cmp_text(self, text: &[u8]) -> Ordering {
        self.as_bytes(&mut itoa::Buffer::new()).cmp(text)
    }
}

impl PartialEq for Item<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Item::Int(one), Item::Int(two)) => one == two,
            (one, Item::Str(text)) | (Item::Str(text), one) => one.is(text),
        }
    }
}

impl Eq for Item<'_> {}

impl From<i64> for Item<'_> {
    fn from(number: i64) -> Self {
        Item::Int(number)
    }
}

impl<'a> From<&'a [u8]> for Item<'a> {
    fn from(text: &'a [u8]) -> Self {
        Item::Str(text)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Item<'a> {
    fn from(text: &'a [u8; N]) -> Self {
        Item::Str(text)
    }
}

impl<'a> From<&'a Vec<u8>> for Item<'a> {
    fn from(text: &'a Vec<u8>) -> Self {
        Item::Str(text)
    }
}

/// The decoded head of an element.
#[derive(Clone, Copy)]
pub(super) enum Head {
    /// The integer itself, and the bytes that head and content take.
    Int(i64, usize),
    /// The bytes of the head alone, and of the content.
    Str(usize, usize),
}

impl Head {
    /// Reads a head. `None` if no element begins here, or if it would not end within the bytes.
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Head> {
        let rest = bytes.get(at..)?;
        let head = match *rest {
            [byte @ 0..=0x7F, ..] => Head::Int(i64::from(byte), 1),
            [byte @ 0x80..=0xBF, ..] => Head::Str(1, usize::from(byte & 0x3F)),
            // Shifting up and down again extends the sign of the 13 bits.
            [high @ 0xC0..=0xDF, low, ..] => Head::Int(i64::from(i16::from_be_bytes([high, low]) << 3 >> 3), 2),
            [high @ 0xE0..=0xEF, low, ..] => Head::Str(2, usize::from(u16::from_be_bytes([high & 0x0F, low]))),
            [0xF0, a, b, c, d, ..] => Head::Str(5, u32::from_le_bytes([a, b, c, d]) as usize),
            [0xF1, a, b, ..] => Head::Int(i64::from(i16::from_le_bytes([a, b])), 3),
            [0xF2, a, b, c, ..] => Head::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8), 4),
            [0xF3, a, b, c, d, ..] => Head::Int(i64::from(i32::from_le_bytes([a, b, c, d])), 5),
            [0xF4, a, b, c, d, e, f, g, h, ..] => Head::Int(i64::from_le_bytes([a, b, c, d, e, f, g, h]), 9),
            _ => return None,
        };
        (head.len() <= rest.len()).then_some(head)
    }

    /// The bytes of head and content.
    #[inline]
    pub(super) fn len(self) -> usize {
        match self {
            Head::Int(_, len) => len,
            Head::Str(head, content) => head + content,
        }
    }

    /// The bytes of the whole element.
    #[inline]
    pub(super) fn size(self) -> usize {
        let len = self.len();
        len + back_size(len)
    }

    /// The element; `at` is where the head was read.
    #[inline]
    pub(super) fn item(self, bytes: &[u8], at: usize) -> Item<'_> {
        match self {
            Head::Int(number, _) => Item::Int(number),
            Head::Str(head, content) => Item::Str(&bytes[at + head..at + head + content]),
        }
    }
}

/// The size of the back length of an element of `len` bytes. As in Redis, the last value of each size except the
/// first takes the next size.
#[inline]
fn back_size(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// The back length itself, at the front of the array.
#[inline]
pub(super) fn back_bytes(len: usize) -> ([u8; 5], usize) {
    let size = back_size(len);
    let mut bytes = [0; 5];
    for (at, byte) in bytes[..size].iter_mut().enumerate() {
        let low = (len >> (7 * (size - 1 - at))) as u8 & 0x7F;
        *byte = if at == 0 { low } else { low | 0x80 };
    }
    (bytes, size)
}

/// Where the element that ends at `end` begins. `None` if the bytes there are not a back length.
#[inline]
pub(super) fn start_before(bytes: &[u8], end: usize) -> Option<usize> {
    let mut len = 0;
    for size in 1..=5 {
        let at = end.checked_sub(size).filter(|at| *at >= HEADER_LEN)?;
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7F) << (7 * (size - 1));
        if byte & 0x80 == 0 {
            return at.checked_sub(len).filter(|start| *start >= HEADER_LEN && *start < at);
        }
    }
    None
}

/// The shortest form of an element, in parts, so that nothing is copied before its place is ready.
pub(super) struct Encoded<'a> {
    head: [u8; 9],
    head_len: usize,
    content: &'a [u8],
}

impl<'a> Encoded<'a> {
    #[inline]
    pub(super) fn new(item: Item<'a>) -> Self {
        match item {
            Item::Int(number) => Self::int(number),
            Item::Str(text) => match format::parse_i64(text) {
                Some(number) => Self::int(number),
                None => Self::text(text),
            },
        }
    }

    fn int(number: i64) -> Self {
        let mut head = [0; 9];
        let bytes = number.to_le_bytes();
        let head_len = match number {
            0..=127 => {
                head[0] = bytes[0];
                1
            }
            -4096..=4095 => {
                head[..2].copy_from_slice(&[0xC0 | (bytes[1] & 0x1F), bytes[0]]);
                2
            }
            _ => {
                let (mark, len) = match number {
                    -0x8000..=0x7FFF => (0xF1, 2),
                    -0x80_0000..=0x7F_FFFF => (0xF2, 3),
                    -0x8000_0000..=0x7FFF_FFFF => (0xF3, 4),
                    _ => (0xF4, 8),
                };
                head[0] = mark;
                head[1..=len].copy_from_slice(&bytes[..len]);
                1 + len
            }
        };
        Encoded { head, head_len, content: &[] }
    }

    fn text(content: &'a [u8]) -> Self {
        let mut head = [0; 9];
        let bytes = content.len().to_le_bytes();
        let head_len = match content.len() {
            0..64 => {
                head[0] = 0x80 | bytes[0];
                1
            }
            64..4096 => {
                head[..2].copy_from_slice(&[0xE0 | bytes[1], bytes[0]]);
                2
            }
            _ => {
                head[0] = 0xF0;
                head[1..5].copy_from_slice(&bytes[..4]);
                5
            }
        };
        Encoded { head, head_len, content }
    }

    #[inline]
    pub(super) fn size(&self) -> usize {
        let len = self.head_len + self.content.len();
        len + back_size(len)
    }

    /// Writes the element over exactly [`Encoded::size`] bytes.
    pub(super) fn write(&self, out: &mut [u8]) {
        let len = self.head_len + self.content.len();
        let (back, back_len) = back_bytes(len);
        out[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
        out[self.head_len..len].copy_from_slice(self.content);
        out[len..].copy_from_slice(&back[..back_len]);
    }

    /// Appends the element.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let (back, back_len) = back_bytes(self.head_len + self.content.len());
        out.reserve(self.size());
        out.extend_from_slice(&self.head[..self.head_len]);
        out.extend_from_slice(self.content);
        out.extend_from_slice(&back[..back_len]);
    }
}

/// The bytes that an element would take in a listpack.
#[inline]
pub fn item_size<'i>(item: impl Into<Item<'i>>) -> usize {
    Encoded::new(item.into()).size()
}
