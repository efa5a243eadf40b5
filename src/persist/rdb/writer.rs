//! Writes one value as a payload of DUMP, piece by piece, directly from its owner.
//!
//! A payload begins with its type and ends with [`DumpWriter::finish`], which adds the footer. [`super`] draws the
//! parts between and their order. The writer does not check that order.

use super::footer;
use super::lzf::Compressor;
use super::{RdbStreamId, RdbType};
use crate::base::format::{parse_i64, write_double};

/// Shorter strings are stored uncompressed.
const COMPRESSED_LEN_MIN: usize = 21;
/// The least number of bytes that compression must save.
const SAVED_MIN: usize = 4;
/// No 32-bit integer is longer.
const INTEGER_LEN_MAX: usize = 11;

/// Writes a payload of DUMP.
pub struct DumpWriter {
    kind: RdbType,
    out: Vec<u8>,
    compressor: Compressor,
}

impl DumpWriter {
    /// Begins a payload.
    pub fn new(kind: RdbType) -> Self {
        Self { kind, out: vec![kind as u8], compressor: Compressor::default() }
    }

    /// Writes a length, a count, or another number in that form.
    pub fn length(&mut self, length: u64) {
        match length {
            0..=0x3F => self.out.push(length as u8),
            0x40..=0x3FFF => self.out.extend_from_slice(&[0x40 | (length >> 8) as u8, length as u8]),
            0x4000..=0xFFFF_FFFF => {
                self.out.push(0x80);
                self.out.extend_from_slice(&(length as u32).to_be_bytes());
            }
            _ => {
                self.out.push(0x81);
                self.out.extend_from_slice(&length.to_be_bytes());
            }
        }
    }

    /// Writes a string, as a 32-bit integer if it is one, compressed if that saves something.
    pub fn string(&mut self, bytes: &[u8]) {
        if bytes.len() <= INTEGER_LEN_MAX
            && let Some(number) = parse_i64(bytes).and_then(|number| i32::try_from(number).ok())
        {
            self.integer(number);
        } else {
            self.blob(bytes);
        }
    }

    fn integer(&mut self, number: i32) {
        if let Ok(number) = i8::try_from(number) {
            self.out.extend_from_slice(&[0xC0, number as u8]);
        } else if let Ok(number) = i16::try_from(number) {
            self.out.push(0xC1);
            self.out.extend_from_slice(&number.to_le_bytes());
        } else {
            self.out.push(0xC2);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Writes a string that is not text: a listpack, an intset, the id of a stream's node.
    pub fn blob(&mut self, bytes: &[u8]) {
        if bytes.len() >= COMPRESSED_LEN_MIN
            && let Some(packed) = self.compressor.compress(bytes, bytes.len() - SAVED_MIN)
        {
            self.out.push(0xC3);
            self.length(packed.len() as u64);
            self.length(bytes.len() as u64);
            self.out.extend_from_slice(&packed);
        } else {
            self.length(bytes.len() as u64);
            self.out.extend_from_slice(bytes);
        }
    }

    /// Writes a double in eight bytes.
    pub fn double(&mut self, value: f64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A double as versions before 8 store it: a length byte and digits. It is not NaN.
    pub(crate) fn digits(&mut self, value: f64) {
        if value.is_infinite() {
            self.out.push(if value > 0.0 { 254 } else { 255 });
            return;
        }
        // The shortest digits that read back as this number: at most 24 of them.
        let mut digits = Vec::new();
        write_double(&mut digits, value);
        self.out.push(digits.len() as u8);
        self.out.extend_from_slice(&digits);
    }

    /// Writes a time, or its absence.
    pub fn time_ms(&mut self, time_ms: Option<u64>) {
        self.out.extend_from_slice(&time_ms.unwrap_or(u64::MAX).to_le_bytes());
    }

    /// Writes a stream id as two lengths.
    pub fn id(&mut self, id: RdbStreamId) {
        self.length(id.0);
        self.length(id.1);
    }

    /// Writes a stream id as sixteen bytes without a length, as pending entries have it.
    pub fn raw_id(&mut self, id: RdbStreamId) {
        self.out.extend_from_slice(&id_bytes(id));
    }

    /// Appends what another writer wrote for the inside of this value.
    pub(super) fn append(&mut self, inner: &[u8]) {
        self.out.extend_from_slice(inner);
    }

    /// The bytes written after the type.
    pub(crate) fn into_body(mut self) -> Vec<u8> {
        self.out.drain(..1);
        self.out
    }

    /// Adds the footer and returns the payload.
    pub fn finish(mut self) -> Vec<u8> {
        footer::append(&mut self.out, self.kind.version());
        self.out
    }
}

/// The sixteen bytes of a stream id.
pub(super) fn id_bytes(id: RdbStreamId) -> [u8; 16] {
    (u128::from(id.0) << 64 | u128::from(id.1)).to_be_bytes()
}
