//! Writes the packed containers that payloads for Redis 7 need: listpack and intset.

use super::containers::back_length_bytes;
use crate::base::format::parse_i64;

const HEADER: usize = 6;

/// Writes a listpack.
pub struct ListpackWriter {
    bytes: Vec<u8>,
    count: usize,
}

impl Default for ListpackWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ListpackWriter {
    /// Begins an empty listpack.
    pub fn new() -> Self {
        Self { bytes: vec![0; HEADER], count: 0 }
    }

    /// How many elements it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes it takes so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Appends a string; stores it as an integer if it spells one.
    pub fn push(&mut self, element: &[u8]) {
        if let Some(number) = parse_i64(element) {
            return self.push_int(number);
        }
        let start = self.bytes.len();
        match element.len() {
            len @ 0..=0x3F => self.bytes.push(0x80 | len as u8),
            len @ 0x40..=0xFFF => self.bytes.extend_from_slice(&[0xE0 | (len >> 8) as u8, len as u8]),
            len => {
                self.bytes.push(0xF0);
                self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(element);
        self.close(start);
    }

    /// Appends an integer.
    pub fn push_int(&mut self, number: i64) {
        let start = self.bytes.len();
        let le = number.to_le_bytes();
        match number {
            0..=127 => self.bytes.push(le[0]),
            -4096..=4095 => self.bytes.extend_from_slice(&[0xC0 | (le[1] & 0x1F), le[0]]),
            -0x8000..=0x7FFF => self.tagged(0xF1, &le[..2]),
            -0x80_0000..=0x7F_FFFF => self.tagged(0xF2, &le[..3]),
            -0x8000_0000..=0x7FFF_FFFF => self.tagged(0xF3, &le[..4]),
            _ => self.tagged(0xF4, &le),
        }
        self.close(start);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes the length of the element that began at `start`, encoded to be read from the right.
    fn close(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        let digits = back_length_bytes(len);
        for index in (0..digits).rev() {
            let digit = (len >> (7 * index)) as u8 & 0x7F;
            self.bytes.push(if index + 1 == digits { digit } else { digit | 0x80 });
        }
        self.count += 1;
    }

    /// Appends all elements of another.
    pub(super) fn append(&mut self, other: Self) {
        self.bytes.extend_from_slice(&other.bytes[HEADER..]);
        self.count += other.count;
    }

    /// Ends the listpack. It must have stayed below 4 GiB.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0xFF);
        let len = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4..HEADER].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

/// Writes the intset of these ascending integers.
pub fn intset(numbers: &[i64]) -> Vec<u8> {
    let fits = |bits: u32| numbers.iter().all(|number| (number << (64 - bits)) >> (64 - bits) == *number);
    let width = [2_u32, 4, 8].into_iter().find(|width| fits(width * 8)).unwrap_or(8);
    let mut out = Vec::with_capacity(8 + numbers.len() * width as usize);
    out.extend_from_slice(&width.to_le_bytes());
    out.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes()[..width as usize]);
    }
    out
}
