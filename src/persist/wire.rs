//! The wire structs, and the only place that knows bincode. `format.rs` draws their bytes.
//!
//! Each struct exists for this purpose alone; none is an in-memory type. Fields are append-only within a version.
//! Decoding never trusts a length: [`LIMIT`] bounds it, and the caller checks a CRC first.

use bincode::{Decode, Encode};
use crc32fast::hash;

use super::format::{FRAME_HEADER, VERSION, VERSION_ENCRYPTED, VERSION_OLDEST, u32_at};

/// The longest wire struct, in bytes. An index of 65,535 chunks fits.
pub const LIMIT: usize = 4 << 20;

/// Which files are the store.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct ManifestWire {
    /// Counts the manifests that this directory has had.
    pub sequence: u64,
    /// The seed that placed every key.
    pub hash_seed: [u8; 16],
    /// How many shards the snapshot is laid out in.
    pub shards: u32,
    /// The highest block known durable when this was written: a log that ends below it is damaged.
    pub durable_block: u64,
    /// The next free number for a segment.
    pub next_segment: u64,
    /// Written by a clean shutdown.
    pub clean: bool,
    /// What to recover.
    pub current: GenerationWire,
    /// Older generations that are kept, oldest first.
    pub kept: Vec<GenerationWire>,
}

/// A snapshot and the log after it.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq, Default)]
pub struct GenerationWire {
    /// The snapshot; without one, the log starts from nothing.
    pub snapshot: Option<SnapshotWire>,
    /// The known segments, oldest first. A sealed one may lead on to segments that are not named here.
    pub segments: Vec<SegmentWire>,
}

/// A finished snapshot.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotWire {
    /// The number in its name.
    pub number: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The CRC over all of it, as in its footer.
    pub crc: u32,
    /// The last block whose effects it holds.
    pub cut_block: u64,
    /// How many keys it holds.
    pub entries: u64,
}

/// A log segment.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct SegmentWire {
    /// The number in its name.
    pub number: u64,
    /// The run of the process that wrote it.
    pub generation: u64,
    /// The number of its first block.
    pub first_block: u64,
    /// The CRC of the block before it, which its first block carries.
    pub prev_crc: u32,
}

/// What opens the index of a log segment.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct IndexWire {
    /// The hash seed of the store.
    pub store: [u8; 16],
    /// The segment, and what its first block continues.
    pub segment: SegmentWire,
    /// Where its blocks end.
    pub end: u64,
    /// Where the last one begins,
    pub last_at: u64,
    /// its number,
    pub last_block: u64,
    /// its CRC,
    pub last_crc: u32,
    /// and its time, unix ms.
    pub last_time_ms: u64,
    /// The highest durable mark.
    pub durable: u64,
    /// The segment that goes on, or 0.
    pub next_segment: u64,
    /// How many blocks.
    pub blocks: u64,
    /// One more than the highest database of a record.
    pub databases: u32,
    /// The lists, one behind the other.
    pub lists: Vec<ListWire>,
}

/// What opens the index of an encrypted segment.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct SealedIndexWire {
    /// The number of the segment.
    pub number: u64,
    /// The number of the data key.
    pub key: u32,
    /// Tells the key of this file from that of another index of the segment.
    pub salt: u64,
    /// The [`IndexWire`], sealed.
    pub head: Vec<u8>,
}

/// A list of an index.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct ListWire {
    /// The shard, or that of barriers.
    pub shard: u16,
    /// How many records.
    pub records: u64,
    /// The sequence number of the last one.
    pub last_seq: u64,
    /// How many bytes the list has.
    pub length: u64,
    /// Their CRC.
    pub crc: u32,
    /// The CRC of the records, one behind the other.
    pub records_crc: u32,
}

/// Opens a snapshot.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeaderWire {
    /// The seed that placed every key.
    pub hash_seed: [u8; 16],
    /// How many shards.
    pub shards: u32,
    /// The last block whose effects are in it.
    pub cut_block: u64,
    /// The run of the process that wrote it.
    pub generation: u64,
    /// When it was begun, unix ms.
    pub time_ms: u64,
    /// The log segment that continues from it, if a log was kept.
    pub log_since: Option<u64>,
}

/// Where each chunk lies.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotIndexWire {
    /// One for each shard that holds anything.
    pub chunks: Vec<ChunkWire>,
}

/// One chunk of a snapshot.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct ChunkWire {
    /// The shard.
    pub shard: u16,
    /// How it is stored.
    pub codec: u8,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in the file.
    pub stored_len: u64,
    /// Its length when decoded.
    pub raw_len: u64,
    /// How many entries.
    pub entries: u64,
    /// How many of them expire.
    pub volatile: u64,
    /// CRC of the stored bytes.
    pub crc: u32,
}

/// The data keys of an encrypted store.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct KeysWire {
    /// The store that they belong to: the hash seed in its manifest.
    pub store: [u8; 16],
    /// The keys, oldest first; new files are written under the last one.
    pub keys: Vec<WrappedKeyWire>,
}

/// A data key, encrypted under a master key.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct WrappedKeyWire {
    /// Its number, random and not 0.
    pub id: u32,
    /// The fingerprint of the master key.
    pub master: [u8; 8],
    /// The nonce.
    pub nonce: [u8; 12],
    /// The data key and the seed that places the keys of the keyspace, sealed.
    pub sealed: Vec<u8>,
}

/// Encodes a wire struct.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    bincode::encode_to_vec(value, config).expect("writing to memory cannot fail")
}

/// Decodes a wire struct that fills the slice exactly.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>();
    let (value, used) = bincode::decode_from_slice::<T, _>(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}

/// What is wrong with a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// It is damaged, or is not a frame at all.
    Corrupt(&'static str),
    /// A version that this program cannot read.
    Version(u32),
}

/// Frames a wire struct: magic, version, length, CRCs, body.
pub fn frame<T: Encode>(magic: [u8; 8], value: &T) -> Vec<u8> {
    frame_of_version(VERSION, magic, value)
}

/// Frames a wire struct of this format version.
pub fn frame_of_version<T: Encode>(version: u32, magic: [u8; 8], value: &T) -> Vec<u8> {
    let body = encode(value);
    assert!(body.len() <= LIMIT, "a wire struct is bounded by its makers");
    let mut out = Vec::with_capacity(FRAME_HEADER + body.len());
    out.extend_from_slice(&magic);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&hash(&body).to_le_bytes());
    out.extend_from_slice(&hash(&out).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// Reads a framed wire struct from the front of a file; also gives the length of the frame.
pub fn unframe<T: Decode<()>>(magic: [u8; 8], bytes: &[u8]) -> Result<(T, usize), FrameFault> {
    let cut = FrameFault::Corrupt("the file is cut within its header");
    let header = bytes.get(..FRAME_HEADER).ok_or(cut)?;
    if header[..8] != magic {
        return Err(FrameFault::Corrupt("the magic number is wrong"));
    }
    if u32_at(header, 20) != Some(hash(&header[..20])) {
        return Err(FrameFault::Corrupt("the checksum of the header does not match"));
    }
    let word = |at| u32_at(header, at).expect("the header is whole");
    if !(VERSION_OLDEST..=VERSION_ENCRYPTED).contains(&word(8)) {
        return Err(FrameFault::Version(word(8)));
    }
    let end = FRAME_HEADER + word(12) as usize;
    let cut = FrameFault::Corrupt("the file is cut within its header");
    let body = bytes.get(FRAME_HEADER..end).ok_or(cut)?;
    if hash(body) != word(16) {
        return Err(FrameFault::Corrupt("the checksum of the body does not match"));
    }
    let value = decode(body).ok_or(FrameFault::Corrupt("the body does not decode"))?;
    Ok((value, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_every_wire_struct_are_as_drawn() {
        let segment = SegmentWire { number: 1, generation: 2, first_block: 3, prev_crc: 4 };
        let segment_bytes =
            [&1u64.to_le_bytes()[..], &2u64.to_le_bytes(), &3u64.to_le_bytes(), &4u32.to_le_bytes()].concat();
        assert_eq!(encode(&segment), segment_bytes);

        let snapshot = SnapshotWire { number: 5, length: 6, crc: 7, cut_block: 8, entries: 9 };
        let generation = GenerationWire { snapshot: Some(snapshot), segments: vec![segment] };
        let generation_bytes = [
            &[1u8][..],
            &5u64.to_le_bytes(),
            &6u64.to_le_bytes(),
            &7u32.to_le_bytes(),
            &8u64.to_le_bytes(),
            &9u64.to_le_bytes(),
            &1u64.to_le_bytes(),
            &segment_bytes,
        ]
        .concat();
        assert_eq!(encode(&generation), generation_bytes);

        let manifest = ManifestWire {
            sequence: 10,
            hash_seed: *b"0123456789abcdef",
            shards: 11,
            durable_block: 12,
            next_segment: 13,
            clean: true,
            current: generation,
            kept: vec![],
        };
        let manifest_bytes = [
            &10u64.to_le_bytes()[..],
            b"0123456789abcdef",
            &11u32.to_le_bytes(),
            &12u64.to_le_bytes(),
            &13u64.to_le_bytes(),
            &[1],
            &generation_bytes,
            &0u64.to_le_bytes(),
        ]
        .concat();
        assert_eq!(encode(&manifest), manifest_bytes);

        let chunk =
            ChunkWire { shard: 1, codec: 2, offset: 3, stored_len: 4, raw_len: 5, entries: 6, volatile: 7, crc: 8 };
        let index_bytes = [
            &1u64.to_le_bytes()[..],
            &1u16.to_le_bytes(),
            &[2],
            &3u64.to_le_bytes(),
            &4u64.to_le_bytes(),
            &5u64.to_le_bytes(),
            &6u64.to_le_bytes(),
            &7u64.to_le_bytes(),
            &8u32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(encode(&SnapshotIndexWire { chunks: vec![chunk] }), index_bytes);
    }

    #[test]
    fn the_bytes_of_an_index_are_as_drawn() {
        let segment = SegmentWire { number: 1, generation: 2, first_block: 3, prev_crc: 4 };
        let segment_bytes = encode(&segment);
        let list = ListWire { shard: 1, records: 2, last_seq: 3, length: 4, crc: 5, records_crc: 6 };
        let list_bytes = [
            &1u16.to_le_bytes()[..],
            &2u64.to_le_bytes(),
            &3u64.to_le_bytes(),
            &4u64.to_le_bytes(),
            &5u32.to_le_bytes(),
            &6u32.to_le_bytes(),
        ]
        .concat();
        let index = IndexWire {
            store: *b"0123456789abcdef",
            segment,
            end: 5,
            last_at: 6,
            last_block: 7,
            last_crc: 8,
            last_time_ms: 9,
            durable: 10,
            next_segment: 11,
            blocks: 12,
            databases: 13,
            lists: vec![list],
        };
        let index_bytes = [
            &b"0123456789abcdef"[..],
            &segment_bytes,
            &5u64.to_le_bytes(),
            &6u64.to_le_bytes(),
            &7u64.to_le_bytes(),
            &8u32.to_le_bytes(),
            &9u64.to_le_bytes(),
            &10u64.to_le_bytes(),
            &11u64.to_le_bytes(),
            &12u64.to_le_bytes(),
            &13u32.to_le_bytes(),
            &1u64.to_le_bytes(),
            &list_bytes,
        ]
        .concat();
        assert_eq!(encode(&index), index_bytes);

        let sealed = SealedIndexWire { number: 1, key: 2, salt: 3, head: vec![4, 5] };
        let sealed_bytes =
            [&1u64.to_le_bytes()[..], &2u32.to_le_bytes(), &3u64.to_le_bytes(), &2u64.to_le_bytes(), &[4, 5]].concat();
        assert_eq!(encode(&sealed), sealed_bytes);
    }

    #[test]
    fn a_frame_survives_no_flip_and_no_cut() {
        let value = SegmentWire { number: 1, generation: 2, first_block: 3, prev_crc: 4 };
        let bytes = frame(*b"TESTTEST", &value);
        assert_eq!(unframe(*b"TESTTEST", &bytes), Ok((value, bytes.len())));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(unframe::<SegmentWire>(*b"TESTTEST", &bad).is_err(), "{at}.{bit}");
            }
            assert!(unframe::<SegmentWire>(*b"TESTTEST", &bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_huge_list_length_is_refused_without_allocating() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 64]);
        assert_eq!(decode::<SnapshotIndexWire>(&bytes), None);
    }
}
