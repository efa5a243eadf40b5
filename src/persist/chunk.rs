//! One shard's part of a snapshot. Drawn in `format.rs`.
//!
//! - A [`ChunkWriter`] keeps at most one piece in memory, however large a value is. A snapshot must not double the
//!   memory in use.
//! - A [`Chunk`] exists only after its CRC was checked. Its entries are checked one by one. No length in it causes an
//!   allocation: the decoded size is bounded by the stored size.

use std::borrow::Cow;

use crc32fast::{Hasher, hash};

use super::crypt::{FileCipher, TAG};
use super::error::PersistError;
use super::format::{
    CODEC_LZ4, CODEC_NONE, CODEC_PIECES, ENTRY_ACCESS, ENTRY_BLESSED, ENTRY_DB, ENTRY_EXPIRY, PIECE_HEADER, PIECE_MAX,
    TYPE_BYTES, TYPE_INT, TYPE_MASK, put_varint, take_bytes, take_string, take_varint, u32_at, u64_at,
};
use super::wire::ChunkWire;

/// LZ4 cannot expand by more than this factor, which bounds the raw length that a chunk may claim.
const LZ4_EXPANSION_MAX: u64 = 255;
/// The most bytes that one LZ4 block decodes to.
const LZ4_RAW_MAX: u64 = 1 << 30;
/// A larger chunk is stored in pieces of this size, in bytes.
const PIECE: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// The value of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireValue<'a> {
    /// A string held as an integer.
    Int(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A collection: its tag and its bytes, which are opaque here.
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
    /// Whether it is protected from eviction.
    pub is_blessed: bool,
    /// The value.
    pub value: WireValue<'a>,
}

/// Buffers that the chunks of a snapshot share, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Bytes that are not written yet.
    raw: Vec<u8>,
    /// The encoded bytes about to be written.
    stored: Vec<u8>,
}

/// Where the stored bytes of a chunk go.
type Write<'a> = dyn FnMut(&[u8]) -> Result<(), PersistError> + 'a;

/// Bytes of the length in front of an encrypted frame.
const FRAME_LENGTH: usize = 4;

/// How the stored bytes of a chunk are made from its entries.
#[derive(Clone, Copy, Default)]
pub(crate) struct Packing<'a> {
    /// Compress where that makes them fewer.
    pub(crate) compress: bool,
    /// Encrypt.
    pub(crate) cipher: Option<&'a FileCipher>,
}

/// Writes one shard's chunk, piece by piece if it is large.
pub struct ChunkWriter<'a> {
    write: &'a mut Write<'a>,
    packing: Packing<'a>,
    /// How many frames were encrypted.
    frames: u64,
    buffers: &'a mut Buffers,
    /// Describes what was written, without offset and checksum.
    pub(crate) wire: ChunkWire,
    crc: Hasher,
    /// The first error: nothing is written after it.
    failed: Option<PersistError>,
}

impl<'a> ChunkWriter<'a> {
    /// An empty chunk.
    pub(crate) fn new(shard: u16, packing: Packing<'a>, buffers: &'a mut Buffers, write: &'a mut Write<'a>) -> Self {
        let wire = ChunkWire {
            shard,
            codec: CODEC_NONE,
            offset: 0,
            stored_len: 0,
            raw_len: 0,
            entries: 0,
            volatile: 0,
            crc: 0,
        };
        buffers.raw.clear();
        Self { write, packing, frames: 0, buffers, wire, crc: Hasher::new(), failed: None }
    }

    /// Adds an entry.
    pub fn push(&mut self, db: u32, key: &[u8], expiry: Option<u64>, access: Option<u32>, value: WireValue<'_>) {
        let (kind, bytes) = match value {
            WireValue::Bytes(bytes) => (TYPE_BYTES, bytes),
            WireValue::Collection(tag, bytes) => (tag, bytes),
            WireValue::Int(number) => {
                self.begin(db, key, expiry, access, TYPE_INT);
                return put_varint(&mut self.buffers.raw, ((number << 1) ^ (number >> 63)) as u64);
            }
        };
        self.push_in_parts(db, key, expiry, access, (kind, bytes.len() as u64), |put| put(bytes));
    }

    /// Says that the key of the next entry is protected from eviction.
    pub fn bless_next(&mut self) {
        self.put(&[ENTRY_BLESSED]);
    }

    /// Adds an entry whose value arrives in parts, with the value's tag and its length in bytes.
    ///
    /// # Panics
    /// If `parts` puts a different number of bytes.
    pub fn push_in_parts(
        &mut self,
        db: u32,
        key: &[u8],
        expiry: Option<u64>,
        access: Option<u32>,
        (tag, len): (u8, u64),
        parts: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) {
        assert!(tag != TYPE_INT && tag < ENTRY_BLESSED, "a value has a tag of its own");
        self.begin(db, key, expiry, access, tag);
        put_varint(&mut self.buffers.raw, len);
        let mut left = len;
        parts(&mut |part| {
            left = left.checked_sub(part.len() as u64).expect("a value is as long as it was said to be");
            self.put(part);
        });
        assert!(left == 0, "a value is as long as it was said to be");
    }

    /// Puts everything that precedes a value.
    fn begin(&mut self, db: u32, key: &[u8], expiry: Option<u64>, access: Option<u32>, kind: u8) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags =
            flag(db != 0, ENTRY_DB) | flag(access.is_some(), ENTRY_ACCESS) | flag(expiry.is_some(), ENTRY_EXPIRY);
        self.put(&[kind | flags]);
        let out = &mut self.buffers.raw;
        if db != 0 {
            put_varint(out, u64::from(db));
        }
        if let Some(expiry) = expiry {
            out.extend_from_slice(&expiry.to_le_bytes());
            self.wire.volatile += 1;
        }
        if let Some(access) = access {
            out.extend_from_slice(&access.to_le_bytes());
        }
        put_varint(out, key.len() as u64);
        self.put(key);
        self.wire.entries += 1;
    }

    /// Puts bytes and writes the pieces that they complete.
    #[inline]
    fn put(&mut self, mut bytes: &[u8]) {
        // The few numbers that bypass this check make a piece slightly longer.
        while self.buffers.raw.len() + bytes.len() > PIECE {
            let (first, rest) = bytes.split_at(PIECE.saturating_sub(self.buffers.raw.len()).min(bytes.len()));
            self.buffers.raw.extend_from_slice(first);
            bytes = rest;
            self.write_piece();
        }
        self.buffers.raw.extend_from_slice(bytes);
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.wire.entries == 0
    }

    #[cold]
    fn write_piece(&mut self) {
        let Buffers { raw, stored } = &mut *self.buffers;
        self.wire.raw_len += raw.len() as u64;
        if self.packing.compress {
            self.wire.codec = CODEC_PIECES;
            stored.clear();
            stored.resize(PIECE_HEADER + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            let packed = lz4_flex::block::compress_into(raw, &mut stored[PIECE_HEADER..]).unwrap_or(usize::MAX);
            if packed < raw.len() {
                stored.truncate(PIECE_HEADER + packed);
            } else {
                stored.truncate(PIECE_HEADER);
                stored.extend_from_slice(raw);
            }
            let stored_len = (stored.len() - PIECE_HEADER) as u32;
            stored[..4].copy_from_slice(&(raw.len() as u32).to_le_bytes());
            stored[4..8].copy_from_slice(&stored_len.to_le_bytes());
            std::mem::swap(raw, stored);
        }
        self.write_raw();
    }

    /// Writes the raw buffer as it is, or encrypted.
    fn write_raw(&mut self) {
        if let Some(cipher) = self.packing.cipher {
            let Buffers { raw, stored } = &mut *self.buffers;
            stored.clear();
            stored.extend_from_slice(&((raw.len() + TAG) as u32).to_le_bytes());
            stored.extend_from_slice(raw);
            cipher.seal(frame_place(self.wire.shard, self.frames), &[], stored, FRAME_LENGTH);
            self.frames += 1;
            std::mem::swap(raw, stored);
        }
        if self.failed.is_none() {
            self.crc.update(&self.buffers.raw);
            self.wire.stored_len += self.buffers.raw.len() as u64;
            self.failed = (self.write)(&self.buffers.raw).err();
        }
        self.buffers.raw.clear();
    }

    /// Ends the chunk. A small one is compressed as a whole if that was asked for and makes it smaller.
    ///
    /// # Errors
    /// The first error that writing gave.
    pub(crate) fn finish(mut self) -> Result<ChunkWire, PersistError> {
        let is_whole = self.wire.raw_len == 0;
        if is_whole {
            let Buffers { raw, stored } = &mut *self.buffers;
            self.wire.raw_len = raw.len() as u64;
            if self.packing.compress {
                stored.clear();
                stored.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                let packed = lz4_flex::block::compress_into(raw, stored).unwrap_or(usize::MAX);
                if packed < raw.len() {
                    stored.truncate(packed);
                    std::mem::swap(raw, stored);
                    self.wire.codec = CODEC_LZ4;
                }
            }
            self.write_raw();
        } else if !self.buffers.raw.is_empty() {
            self.write_piece();
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(ChunkWire { crc: self.crc.finalize(), ..self.wire }),
        }
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
    pub(crate) fn decode(
        wire: &ChunkWire,
        stored: Cow<'a, [u8]>,
        cipher: Option<&FileCipher>,
    ) -> Result<Self, &'static str> {
        if hash(&stored) != wire.crc {
            return Err("the chunk's checksum does not match");
        }
        let stored: Cow<'a, [u8]> = match cipher {
            Some(cipher) => Cow::Owned(open_frames(wire.shard, &stored, cipher)?),
            None => stored,
        };
        let bytes = match wire.codec {
            CODEC_NONE => stored,
            CODEC_LZ4 => {
                let bound = wire.stored_len.saturating_mul(LZ4_EXPANSION_MAX).saturating_add(64);
                if wire.raw_len > bound || wire.raw_len > LZ4_RAW_MAX {
                    return Err("the chunk claims to expand beyond what is possible");
                }
                let raw = lz4_flex::block::decompress(&stored, wire.raw_len as usize);
                Cow::Owned(raw.map_err(|_| "the chunk does not decompress")?)
            }
            CODEC_PIECES => Cow::Owned(join_pieces(&stored, wire.raw_len)?),
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

    /// How many entries it claims. The iterator ends with an error if the claim is false.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many of them expire.
    pub fn volatile(&self) -> u64 {
        self.volatile
    }

    /// Its decoded length in bytes, a better guide for allocations than the number of entries.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Iterates over the entries and ends after the first error.
    pub fn iter(&self) -> Entries<'_> {
        Entries { rest: &self.bytes, left: self.entries, volatile_left: self.volatile }
    }
}

/// The place of a chunk's frame, for the cipher.
fn frame_place(shard: u16, frame: u64) -> u64 {
    u64::from(shard) << 32 | frame
}

/// Decrypts the frames of a chunk and joins them.
fn open_frames(shard: u16, mut stored: &[u8], cipher: &FileCipher) -> Result<Vec<u8>, &'static str> {
    let (mut joined, mut frame) = (Vec::with_capacity(stored.len()), 0);
    while !stored.is_empty() {
        let len = take_bytes(&mut stored, FRAME_LENGTH as u64).and_then(|len| u32_at(len, 0));
        let sealed = len.and_then(|len| take_bytes(&mut stored, u64::from(len)));
        let sealed = sealed.ok_or("an encrypted frame of the chunk is cut")?;
        let opened = cipher.open(frame_place(shard, frame), &[], sealed);
        joined.extend(opened.map_err(|_| "the chunk does not decrypt: it was changed, or is of another key")?);
        frame += 1;
    }
    Ok(joined)
}

/// Decodes the pieces of a chunk.
fn join_pieces(stored: &[u8], raw_len: u64) -> Result<Vec<u8>, &'static str> {
    let (mut rest, mut joined) = (stored, Vec::new());
    // The claim is bounded here, so that the buffer can be allocated at once.
    if raw_len > (stored.len() as u64).saturating_mul(LZ4_EXPANSION_MAX) {
        return Err("the chunk claims to expand beyond what is possible");
    }
    joined.reserve_exact(raw_len as usize);
    while !rest.is_empty() {
        let header = take_bytes(&mut rest, PIECE_HEADER as u64).ok_or("a piece of the chunk is cut")?;
        let [raw, packed] = [0, 4].map(|at| u32_at(header, at).expect("the header is whole") as usize);
        let bytes = take_bytes(&mut rest, packed as u64).ok_or("a piece of the chunk is cut")?;
        let start = joined.len();
        if raw == 0 || raw > PIECE_MAX || packed > raw || (start + raw) as u64 > raw_len {
            return Err("a piece of the chunk has an impossible length");
        }
        if packed == raw {
            joined.extend_from_slice(bytes);
            continue;
        }
        joined.resize(start + raw, 0);
        let decoded = lz4_flex::block::decompress_into(bytes, &mut joined[start..]);
        if decoded.ok() != Some(raw) {
            return Err("a piece of the chunk does not decompress");
        }
    }
    Ok(joined)
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
    let mut tag = take_bytes(rest, 1)?[0];
    let is_blessed = tag == ENTRY_BLESSED;
    if is_blessed {
        tag = take_bytes(rest, 1)?[0];
    }
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
        tag if tag > TYPE_INT && tag != ENTRY_BLESSED => WireValue::Collection(tag, take_string(rest)?),
        _ => return None,
    };
    Some(Entry { db, key, expiry, access, is_blessed, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a chunk and returns its description and its stored bytes.
    fn written(shard: u16, compress: bool, fill: impl FnOnce(&mut ChunkWriter<'_>)) -> (ChunkWire, Vec<u8>) {
        let (mut buffers, mut stored) = (Buffers::default(), Vec::new());
        let mut write = |bytes: &[u8]| {
            stored.extend_from_slice(bytes);
            Ok(())
        };
        let mut chunk = ChunkWriter::new(shard, Packing { compress, cipher: None }, &mut buffers, &mut write);
        fill(&mut chunk);
        let wire = chunk.finish().unwrap();
        assert_eq!((wire.stored_len, wire.crc), (stored.len() as u64, hash(&stored)));
        let room = buffers.raw.capacity().max(buffers.stored.capacity());
        assert!(room <= 3 * PIECE, "{room} bytes for pieces of {PIECE}");
        (wire, stored)
    }

    #[test]
    fn the_bytes_are_as_drawn() {
        let (wire, stored) = written(3, false, |writer| {
            writer.push(0, b"k", None, None, WireValue::Bytes(b"v"));
            writer.bless_next();
            writer.push(200, b"", Some(1), Some(2), WireValue::Int(-2));
        });
        assert_eq!(stored, b"\x01\x01k\x01v\x1F\xE2\xC8\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\x00\x03");
        assert_eq!((wire.shard, wire.entries, wire.volatile), (3, 2, 1));
    }

    #[test]
    fn integers_at_the_edges_round_trip() {
        let numbers = [0, -1, 1, i64::MIN, i64::MAX];
        let (wire, stored) = written(0, false, |writer| {
            numbers.iter().for_each(|number| writer.push(0, b"n", None, None, WireValue::Int(*number)));
        });
        let chunk = Chunk::decode(&wire, Cow::Borrowed(&stored), None).unwrap();
        let read: Vec<_> = chunk.iter().map(|entry| entry.unwrap().value).collect();
        assert_eq!(read, numbers.map(WireValue::Int));
    }

    /// Bytes that compress in some places and not in others.
    fn mixed(len: usize) -> Vec<u8> {
        let noise = (0..len).scan(1_u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        });
        noise.enumerate().map(|(at, noise)| if at / 1500 % 2 == 0 { b'x' } else { noise }).collect()
    }

    #[test]
    fn what_is_large_is_written_in_pieces_and_read_again() {
        let key = mixed(3 * PIECE);
        for len in [0, 10, PIECE - 30, PIECE, PIECE + 1, 2 * PIECE, 7 * PIECE + 3] {
            let value = mixed(len);
            for (compress, part) in [(false, 100), (true, 100), (true, PIECE), (true, 5 * PIECE)] {
                let (wire, stored) = written(0, compress, |writer| {
                    writer.push(1, b"before", Some(5), None, WireValue::Int(1));
                    writer.push_in_parts(0, b"large", None, Some(1), (13, len as u64), |put| {
                        value.chunks(part).for_each(put);
                    });
                    writer.push(0, if len == 10 { &key } else { b"after" }, None, None, WireValue::Bytes(&value));
                });
                let is_large = wire.raw_len > PIECE as u64;
                let codecs = if is_large { [CODEC_PIECES, CODEC_NONE] } else { [CODEC_LZ4, CODEC_NONE] };
                assert!(wire.codec == codecs[usize::from(!compress)] || !is_large && wire.codec == CODEC_NONE);
                assert!(wire.stored_len <= wire.raw_len + wire.raw_len / 64 + 16, "{wire:?}");
                let chunk = Chunk::decode(&wire, Cow::Borrowed(&stored), None).unwrap();
                let entries: Vec<_> = chunk.iter().map(Result::unwrap).collect();
                assert_eq!((entries.len(), entries[0].db, entries[0].expiry), (3, 1, Some(5)));
                assert_eq!(entries[1].value, WireValue::Collection(13, &value));
                assert_eq!(entries[2].value, WireValue::Bytes(&value));
            }
        }
    }

    /// The bytes of the fuzzer's seed: one uncompressed piece and one compressed piece.
    #[test]
    fn pieces_are_as_drawn() {
        let stored = &include_bytes!("../../fuzz/seeds/snapshot/pieces")[3..];
        let wire = ChunkWire {
            shard: 0,
            codec: CODEC_PIECES,
            offset: 0,
            stored_len: stored.len() as u64,
            raw_len: 64,
            entries: 1,
            volatile: 0,
            crc: hash(stored),
        };
        let chunk = Chunk::decode(&wire, Cow::Borrowed(stored), None).unwrap();
        let entry = chunk.iter().next().unwrap().unwrap();
        assert_eq!((entry.key, entry.value), (&b"k"[..], WireValue::Bytes(&[b'x'; 60])));
    }

    #[test]
    fn pieces_that_lie_are_refused() {
        let value = mixed(5 * PIECE);
        let (wire, stored) = written(0, true, |writer| writer.push(0, b"k", None, None, WireValue::Bytes(&value)));
        assert_eq!(wire.codec, CODEC_PIECES);
        let whole: Vec<u8> = Chunk::decode(&wire, Cow::Borrowed(&stored), None).unwrap().bytes.into_owned();
        for at in 0..stored.len() {
            let mut bad = stored.clone();
            bad[at] ^= 0x81;
            assert!(Chunk::decode(&wire, Cow::Borrowed(&bad), None).is_err(), "the checksum holds");
            // With a matching checksum the bytes may differ, but there are never more of them than there should be.
            if let Ok(chunk) = Chunk::decode(&ChunkWire { crc: hash(&bad), ..wire.clone() }, Cow::Borrowed(&bad), None)
            {
                assert_eq!(chunk.len(), whole.len());
            }
            let cut = &stored[..at];
            assert!(
                Chunk::decode(&ChunkWire { crc: hash(cut), ..wire.clone() }, Cow::Borrowed(cut), None).is_err(),
                "cut at {at}"
            );
        }
        let claim =
            |raw_len| Chunk::decode(&ChunkWire { raw_len, ..wire.clone() }, Cow::Borrowed(&stored), None).is_err();
        assert!(claim(wire.raw_len + 1) && claim(wire.raw_len - 1) && claim(u64::MAX) && claim(0));
    }

    #[test]
    fn a_disk_that_fails_ends_the_writing() {
        let (mut buffers, mut writes) = (Buffers::default(), 0);
        let mut write = |_: &[u8]| {
            writes += 1;
            Err(PersistError::io("write", "a file")(std::io::ErrorKind::StorageFull.into()))
        };
        let mut chunk = ChunkWriter::new(0, Packing { compress: true, cipher: None }, &mut buffers, &mut write);
        chunk.push(0, b"k", None, None, WireValue::Bytes(&mixed(9 * PIECE)));
        assert!(chunk.finish().is_err());
        assert_eq!(writes, 1);
    }

    #[test]
    fn a_false_count_an_impossible_length_and_an_unknown_codec_are_refused() {
        let (wire, stored) =
            written(0, true, |writer| writer.push(0, b"key", None, None, WireValue::Bytes(&[b'x'; 1000])));
        assert_eq!(wire.codec, CODEC_LZ4);
        let decode = |change: &dyn Fn(&mut ChunkWire)| {
            let mut wire = wire.clone();
            change(&mut wire);
            let chunk = Chunk::decode(&wire, Cow::Borrowed(&stored), None)?;
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
        decode(&|wire| wire.codec = CODEC_PIECES).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200), codec in 0_u8..4) {
            let wire = ChunkWire {
                shard: 0,
                codec,
                offset: 0,
                stored_len: bytes.len() as u64,
                raw_len: if codec > 0 { 100 } else { bytes.len() as u64 },
                entries: 5,
                volatile: 0,
                crc: hash(&bytes),
            };
            if let Ok(chunk) = Chunk::decode(&wire, Cow::Borrowed(&bytes), None) {
                prop_assert!(chunk.iter().count() <= 6);
            }
        }
    }
}
