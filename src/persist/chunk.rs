//! One shard's part of a snapshot. Drawn in `format.rs`.
//!
//! - A [`ChunkWriter`] works in memory alone, so shards are encoded in parallel.
//! - A [`Chunk`] was checked against its CRC before it exists; its entries are checked one by one,
//!   and no length in it makes anyone allocate: what it decodes to is bounded by what is stored.

use std::borrow::Cow;

use crc32fast::hash;

use super::format::{
    CODEC_LZ4, CODEC_NONE, ENTRY_ACCESS, ENTRY_DB, ENTRY_EXPIRY, TYPE_BYTES, TYPE_INT, TYPE_MASK, put_varint,
    take_bytes, take_string, take_varint, u32_at, u64_at,
};
use super::wire::ChunkWire;
use crate::base::alloc;

/// LZ4 cannot expand more than this: a bound on what a stored length may claim.
const LZ4_EXPANSION_MAX: u64 = 255;
/// Larger chunks are stored as they are.
const LZ4_INPUT_MAX: usize = 1 << 30;

/// The value of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireValue<'a> {
    /// A string held as an integer.
    Int(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A collection: its tag and its bytes, which mean nothing here.
    Collection(u8, &'a [u8]),
}

/// One key of a snapshot, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The database.
    pub db: u32,
    /// The key.
    pub key: &'a [u8],
    /// When it expires, unix ms.
    pub expiry: Option<u64>,
    /// The access field (LRU or LFU), as the keyspace gave it.
    pub access: Option<u32>,
    /// The value.
    pub value: WireValue<'a>,
}

/// Builds one shard's chunk in memory.
pub struct ChunkWriter {
    shard: u16,
    entries: u64,
    volatile: u64,
    bytes: Vec<u8>,
}

/// A finished chunk, ready to be appended to the file.
pub struct EncodedChunk {
    pub(crate) wire: ChunkWire,
    pub(crate) bytes: Vec<u8>,
}

impl ChunkWriter {
    /// An empty chunk.
    pub fn new(shard: u16) -> Self {
        Self { shard, entries: 0, volatile: 0, bytes: Vec::new() }
    }

    /// Adds an entry.
    pub fn push(&mut self, db: u32, key: &[u8], expiry: Option<u64>, access: Option<u32>, value: WireValue<'_>) {
        let kind = match value {
            WireValue::Bytes(_) => TYPE_BYTES,
            WireValue::Int(_) => TYPE_INT,
            WireValue::Collection(tag, _) => {
                assert!(tag > TYPE_INT && tag <= TYPE_MASK, "a collection has a tag of its own");
                tag
            }
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags =
            flag(db != 0, ENTRY_DB) | flag(access.is_some(), ENTRY_ACCESS) | flag(expiry.is_some(), ENTRY_EXPIRY);
        let out = &mut self.bytes;
        out.push(kind | flags);
        if db != 0 {
            put_varint(out, u64::from(db));
        }
        if let Some(expiry) = expiry {
            out.extend_from_slice(&expiry.to_le_bytes());
            self.volatile += 1;
        }
        if let Some(access) = access {
            out.extend_from_slice(&access.to_le_bytes());
        }
        put_varint(out, key.len() as u64);
        out.extend_from_slice(key);
        match value {
            WireValue::Bytes(bytes) | WireValue::Collection(_, bytes) => {
                put_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            WireValue::Int(number) => put_varint(out, ((number << 1) ^ (number >> 63)) as u64),
        }
        self.entries += 1;
    }

    /// How many bytes it holds so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Ends the chunk, compressing it if asked and if that makes it smaller.
    pub fn finish(self, compress: bool) -> EncodedChunk {
        let raw_len = self.bytes.len() as u64;
        let (mut codec, mut bytes) = (CODEC_NONE, self.bytes);
        if compress && bytes.len() <= LZ4_INPUT_MAX {
            let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(bytes.len())];
            match lz4_flex::block::compress_into(&bytes, &mut packed) {
                Ok(len) if len < bytes.len() => {
                    packed.truncate(len);
                    alloc::drop_in_steps(std::mem::replace(&mut bytes, packed));
                    codec = CODEC_LZ4;
                }
                _ => alloc::drop_in_steps(packed),
            }
        }
        let wire = ChunkWire {
            shard: self.shard,
            codec,
            offset: 0,
            stored_len: bytes.len() as u64,
            raw_len,
            entries: self.entries,
            volatile: self.volatile,
            crc: hash(&bytes),
        };
        EncodedChunk { wire, bytes }
    }
}

/// One shard's chunk, checked and decompressed.
pub struct Chunk<'a> {
    shard: u16,
    entries: u64,
    volatile: u64,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Chunk<'a> {
    /// Checks and decodes the stored bytes of a chunk.
    pub(crate) fn decode(wire: &ChunkWire, stored: &'a [u8]) -> Result<Self, &'static str> {
        if hash(stored) != wire.crc {
            return Err("the chunk's checksum does not match");
        }
        let bytes = match wire.codec {
            CODEC_NONE => Cow::Borrowed(stored),
            CODEC_LZ4 => {
                let bound = wire.stored_len.saturating_mul(LZ4_EXPANSION_MAX).saturating_add(64);
                if wire.raw_len > bound || wire.raw_len > LZ4_INPUT_MAX as u64 {
                    return Err("the chunk claims to expand beyond what is possible");
                }
                let raw = lz4_flex::block::decompress(stored, wire.raw_len as usize);
                Cow::Owned(raw.map_err(|_| "the chunk does not decompress")?)
            }
            _ => return Err("the chunk's codec is unknown"),
        };
        if bytes.len() as u64 != wire.raw_len {
            return Err("the chunk has another length than the index says");
        }
        Ok(Self { shard: wire.shard, entries: wire.entries, volatile: wire.volatile, bytes })
    }

    /// The shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// How many entries it claims; the iterator ends with an error if that is not so.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many of them expire.
    pub fn volatile(&self) -> u64 {
        self.volatile
    }

    /// Its length in bytes, a better guide for allocations than the number of entries.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entries. After an error nothing more comes.
    pub fn iter(&self) -> Entries<'_> {
        Entries { rest: &self.bytes, left: self.entries, volatile_left: self.volatile }
    }
}

/// The entries of a chunk; see [`Chunk::iter`]. An error says what is wrong.
pub struct Entries<'a> {
    rest: &'a [u8],
    left: u64,
    volatile_left: u64,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            let missing = self.left > 0 || self.volatile_left > 0;
            (self.left, self.volatile_left) = (0, 0);
            return missing.then_some(Err("the chunk holds fewer entries than the index says"));
        }
        let entry = if self.left == 0 { None } else { take_entry(&mut self.rest) };
        let Some(entry) = entry else {
            (self.rest, self.left, self.volatile_left) = (&[], 0, 0);
            return Some(Err("an entry of the chunk is malformed"));
        };
        self.left -= 1;
        if entry.expiry.is_some() {
            self.volatile_left = self.volatile_left.saturating_sub(1);
        }
        Some(Ok(entry))
    }
}

fn take_entry<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let tag = take_bytes(rest, 1)?[0];
    let mut db = 0;
    if tag & ENTRY_DB != 0 {
        db = u32::try_from(take_varint(rest)?).ok()?;
    }
    let mut expiry = None;
    if tag & ENTRY_EXPIRY != 0 {
        expiry = u64_at(take_bytes(rest, 8)?, 0);
    }
    let mut access = None;
    if tag & ENTRY_ACCESS != 0 {
        access = u32_at(take_bytes(rest, 4)?, 0);
    }
    let key = take_string(rest)?;
    let value = match tag & TYPE_MASK {
        TYPE_BYTES => WireValue::Bytes(take_string(rest)?),
        TYPE_INT => {
            let zigzag = take_varint(rest)?;
            WireValue::Int((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
        }
        tag if tag > TYPE_INT => WireValue::Collection(tag, take_string(rest)?),
        _ => return None,
    };
    Some(Entry { db, key, expiry, access, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_as_drawn() {
        let mut writer = ChunkWriter::new(3);
        writer.push(0, b"k", None, None, WireValue::Bytes(b"v"));
        writer.push(200, b"", Some(1), Some(2), WireValue::Int(-2));
        let chunk = writer.finish(false);
        assert_eq!(chunk.bytes, b"\x01\x01k\x01v\xE2\xC8\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\x00\x03");
        assert_eq!((chunk.wire.shard, chunk.wire.entries, chunk.wire.volatile), (3, 2, 1));
    }

    #[test]
    fn integers_at_the_edges_round_trip() {
        let numbers = [0, -1, 1, i64::MIN, i64::MAX];
        let mut writer = ChunkWriter::new(0);
        for number in numbers {
            writer.push(0, b"n", None, None, WireValue::Int(number));
        }
        let encoded = writer.finish(false);
        let chunk = Chunk::decode(&encoded.wire, &encoded.bytes).unwrap();
        let read: Vec<_> = chunk.iter().map(|entry| entry.unwrap().value).collect();
        assert_eq!(read, numbers.map(WireValue::Int));
    }

    #[test]
    fn a_false_count_an_impossible_length_and_an_unknown_codec_are_refused() {
        let mut writer = ChunkWriter::new(0);
        writer.push(0, b"key", None, None, WireValue::Bytes(&[b'x'; 1000]));
        let encoded = writer.finish(true);
        assert_eq!(encoded.wire.codec, CODEC_LZ4);
        let decode = |change: &dyn Fn(&mut ChunkWire)| {
            let mut wire = encoded.wire.clone();
            change(&mut wire);
            let chunk = Chunk::decode(&wire, &encoded.bytes)?;
            chunk.iter().try_for_each(|entry| entry.map(|_| ()))
        };
        decode(&|_| ()).unwrap();
        decode(&|wire| wire.entries = 2).unwrap_err();
        decode(&|wire| wire.entries = 0).unwrap_err();
        decode(&|wire| wire.volatile = 1).unwrap_err();
        decode(&|wire| wire.raw_len = u64::MAX).unwrap_err();
        decode(&|wire| wire.raw_len += 1).unwrap_err();
        decode(&|wire| wire.codec = 9).unwrap_err();
        decode(&|wire| wire.codec = CODEC_NONE).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200), lz4: bool) {
            let wire = ChunkWire {
                shard: 0,
                codec: u8::from(lz4),
                offset: 0,
                stored_len: bytes.len() as u64,
                raw_len: if lz4 { 100 } else { bytes.len() as u64 },
                entries: 5,
                volatile: 0,
                crc: hash(&bytes),
            };
            if let Ok(chunk) = Chunk::decode(&wire, &bytes) {
                prop_assert!(chunk.iter().count() <= 6);
            }
        }
    }
}
