//! A block: one flush of the log, framed so that damage cannot pass. Drawn in `format.rs`.
//!
//! Also the header of a log segment. Nothing here touches a file.

use crc32fast::{Hasher, hash};

use super::crypt::{FileCipher, TAG};
use super::format::{
    BLOCK_HEADER, BLOCK_MAGIC, END_MARK, SEGMENT_ENCRYPTED, SEGMENT_HEADER, SEGMENT_MAGIC, SEGMENT_RECYCLED,
    VERSION_ENCRYPTED, VERSION_OLDEST, u32_at, u64_at,
};

/// Bytes of a block's header without its CRC.
const CLEAR: usize = 60;

/// What a block's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Its number.
    pub number: u64,
    /// The run of the process that wrote it.
    pub generation: u64,
    /// When, unix ms.
    pub time_ms: u64,
    /// The highest block known synced when it was written.
    pub durable: u64,
    /// 0, or the number of the segment that continues the log: this block is then the last of its segment.
    pub next_segment: u64,
    /// The CRC of the block before it.
    pub prev_crc: u32,
}

/// A block found in a file. Its checksum holds.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The header.
    pub header: BlockHeader,
    /// Its CRC, which the next block carries.
    pub crc: u32,
    /// The items, or what became of them by encryption.
    pub payload: &'a [u8],
    /// The header without the CRC: what encryption vouches for besides.
    clear: [u8; CLEAR],
    /// Its length in the file, header included.
    pub len: usize,
}

impl<'a> Block<'a> {
    /// The same block with its opened payload, if it was encrypted.
    pub fn holding<'o>(&self, opened: Option<&'o [u8]>) -> Block<'o>
    where
        'a: 'o,
    {
        Block { payload: opened.unwrap_or(self.payload), ..*self }
    }
}

/// Fills the header of a block whose first [`BLOCK_HEADER`] bytes are set aside; returns its CRC.
pub fn finish_block(block: &mut [u8], header: &BlockHeader) -> u32 {
    fill_header(block, header, block.len() - BLOCK_HEADER);
    let crc = block_crc(block);
    block[60..64].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Encrypts a block's payload, and then finishes the block as [`finish_block`] does.
pub fn seal_block(block: &mut Vec<u8>, header: &BlockHeader, cipher: &FileCipher) -> u32 {
    let sealed_len = block.len() - BLOCK_HEADER + TAG;
    fill_header(block, header, sealed_len);
    let associated: [u8; CLEAR] = block[..CLEAR].try_into().expect("the header is set aside");
    cipher.seal(header.number, &associated, block, BLOCK_HEADER);
    finish_block(block, header)
}

/// Decrypts the payload of a block, given as the block's bytes in the file.
pub fn open_block(block: &Block<'_>, cipher: &FileCipher) -> Result<Vec<u8>, &'static str> {
    let opened = cipher.open(block.header.number, &block.clear, block.payload);
    opened.map_err(|_| "the block does not decrypt: it was changed, or is of another key")
}

fn fill_header(block: &mut [u8], header: &BlockHeader, payload_len: usize) {
    let payload_len = payload_len as u64;
    block[..4].copy_from_slice(&BLOCK_MAGIC);
    block[4..8].copy_from_slice(&0u32.to_le_bytes());
    block[8..16].copy_from_slice(&payload_len.to_le_bytes());
    block[16..24].copy_from_slice(&header.number.to_le_bytes());
    block[24..32].copy_from_slice(&header.generation.to_le_bytes());
    block[32..40].copy_from_slice(&header.time_ms.to_le_bytes());
    block[40..48].copy_from_slice(&header.durable.to_le_bytes());
    block[48..56].copy_from_slice(&header.next_segment.to_le_bytes());
    block[56..60].copy_from_slice(&header.prev_crc.to_le_bytes());
}

fn block_crc(block: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&block[..60]);
    hasher.update(&block[BLOCK_HEADER..]);
    hasher.finalize()
}

/// Reads the block at an offset.
///
/// `verify` may be false only for bytes that were verified before.
pub fn read_block(bytes: &[u8], at: usize, verify: bool) -> Result<Block<'_>, &'static str> {
    let rest = bytes.get(at..).ok_or("the file is cut")?;
    let head = rest.get(..BLOCK_HEADER).ok_or("the block's header is cut")?;
    if head[..4] != BLOCK_MAGIC {
        return Err("the block's magic number is wrong");
    }
    let (word, long) =
        (|at| u32_at(head, at).expect("the header is whole"), |at| u64_at(head, at).expect("the header is whole"));
    let len = usize::try_from(long(8)).ok().and_then(|len| len.checked_add(BLOCK_HEADER));
    let whole = len.and_then(|len| rest.get(..len)).ok_or("the block reaches past the end")?;
    let crc = word(60);
    if verify && block_crc(whole) != crc {
        return Err("the block's checksum does not match");
    }
    if word(4) != 0 {
        return Err("the block has reserved bits set");
    }
    let header = BlockHeader {
        number: long(16),
        generation: long(24),
        time_ms: long(32),
        durable: long(40),
        next_segment: long(48),
        prev_crc: word(56),
    };
    let clear = head[..CLEAR].try_into().expect("the header is whole");
    Ok(Block { header, crc, payload: &whole[BLOCK_HEADER..], clear, len: whole.len() })
}

/// Finds the valid blocks of a generation, with this number or a higher one, anywhere at or after an offset. Recovery
/// learns from them whether damage is the end of the log or a hole within it. Lower numbers are left over from what a
/// recycled segment held before.
pub fn find_blocks(
    bytes: &[u8],
    from: usize,
    generation: u64,
    number: u64,
) -> impl Iterator<Item = (usize, Block<'_>)> {
    let tail = bytes.get(from..).unwrap_or_default();
    memchr::memmem::find_iter(tail, &BLOCK_MAGIC).filter_map(move |at| {
        let at = from + at;
        // The generation comes first: the comparison is cheap, and no client knows the number.
        if u64_at(bytes, at + 24) != Some(generation) || u64_at(bytes, at + 16).is_none_or(|found| found < number) {
            return None;
        }
        read_block(bytes, at, true).ok().map(|block| (at, block))
    })
}

/// Whether the end mark of a recycled segment stands here: zeros where a block would begin otherwise.
pub fn is_end_mark(bytes: &[u8], at: usize) -> bool {
    let mark = bytes.get(at..).unwrap_or_default();
    mark.iter().take(END_MARK).all(|&byte| byte == 0)
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The format version of its records.
    pub version: u32,
    /// `SEGMENT_ATTACHED` or `SEGMENT_DETACHED`.
    pub kind: u32,
    /// Its number.
    pub number: u64,
    /// The run of the process that wrote it.
    pub generation: u64,
    /// The store's hash seed, which exposes a segment of another store.
    pub hash_seed: [u8; 16],
    /// Whether it overwrites an older segment. An end mark then follows its last block, and old bytes follow the
    /// mark.
    pub recycled: bool,
    /// The number of the data key under which its blocks are encrypted; 0 if they are not.
    pub key: u32,
}

/// The bytes of a segment's header.
pub fn segment_header(header: &SegmentHeader) -> [u8; SEGMENT_HEADER] {
    let mut out = [0; SEGMENT_HEADER];
    out[..8].copy_from_slice(&SEGMENT_MAGIC);
    out[8..12].copy_from_slice(&header.version.to_le_bytes());
    out[12..16].copy_from_slice(&header.kind.to_le_bytes());
    out[16..24].copy_from_slice(&header.number.to_le_bytes());
    out[24..32].copy_from_slice(&header.generation.to_le_bytes());
    out[32..48].copy_from_slice(&header.hash_seed);
    let recycled = if header.recycled { SEGMENT_RECYCLED } else { 0 };
    let encrypted = if header.key != 0 { SEGMENT_ENCRYPTED } else { 0 };
    out[48..52].copy_from_slice(&(recycled | encrypted).to_le_bytes());
    out[52..56].copy_from_slice(&header.key.to_le_bytes());
    let crc = hash(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What is wrong with a segment's header.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Damaged, or not one.
    Corrupt(&'static str),
    /// A version that this program cannot read.
    Version(u32),
}

/// Reads a segment's header.
pub fn read_segment_header(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
    let head = bytes.get(..SEGMENT_HEADER).ok_or(HeaderFault::Corrupt("the header is cut"))?;
    if head[..8] != SEGMENT_MAGIC {
        return Err(HeaderFault::Corrupt("the magic number is wrong"));
    }
    if u32_at(head, 60) != Some(hash(&head[..60])) {
        return Err(HeaderFault::Corrupt("the header's checksum does not match"));
    }
    let version = u32_at(head, 8).expect("the header is whole");
    if !(VERSION_OLDEST..=VERSION_ENCRYPTED).contains(&version) {
        return Err(HeaderFault::Version(version));
    }
    let flags = u32_at(head, 48).expect("the header is whole");
    let key = u32_at(head, 52).expect("the header is whole");
    let is_encrypted = flags & SEGMENT_ENCRYPTED != 0;
    if flags & !(SEGMENT_RECYCLED | SEGMENT_ENCRYPTED) != 0 || is_encrypted != (key != 0) {
        return Err(HeaderFault::Corrupt("the header has reserved bits set"));
    }
    Ok(SegmentHeader {
        version,
        kind: u32_at(head, 12).expect("the header is whole"),
        number: u64_at(head, 16).expect("the header is whole"),
        generation: u64_at(head, 24).expect("the header is whole"),
        hash_seed: head[32..48].try_into().expect("16 bytes"),
        recycled: flags & SEGMENT_RECYCLED != 0,
        key,
    })
}

/// The smallest unit that a disk writes atomically, in bytes.
const SECTOR: usize = 512;
/// So many zeros where bytes should be show that these were never written. A block's header has up to 16 in a row.
const BLANK: usize = 32;

/// Whether damage is a hole: some of its bytes were never written and read as zeros. What is missing is either a whole
/// write, from its beginning to its end, or what lies between some place in a write and the end of a disk's sector or
/// of the file system's page.
pub(super) fn is_hole(bytes: &[u8], from: usize, to: usize) -> bool {
    let is_blank = |from: usize, to: usize| from < to && bytes[from..to].iter().all(|&byte| byte == 0);
    let ends_blank = |end: usize| is_blank(end.saturating_sub(BLANK).max(from), end);
    let mut sector_ends = (from / SECTOR + 1..=to / SECTOR).map(|sector| sector * SECTOR);
    is_blank(from, (from + BLANK).min(to)) || ends_blank(to) || sector_ends.any(ends_blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, BlockHeader) {
        let header =
            BlockHeader { number: 7, generation: 8, time_ms: 9, durable: 6, next_segment: 3, prev_crc: 0xAABBCCDD };
        let mut block = vec![0; BLOCK_HEADER];
        block.extend_from_slice(b"payload");
        finish_block(&mut block, &header);
        (block, header)
    }

    #[test]
    fn a_block_round_trips_and_no_flip_or_cut_passes() {
        let (block, header) = sample();
        let read = read_block(&block, 0, true).unwrap();
        assert_eq!((read.header, read.payload, read.len), (header, &b"payload"[..], block.len()));
        for at in 0..block.len() {
            for bit in 0..8 {
                let mut bad = block.clone();
                bad[at] ^= 1 << bit;
                assert!(read_block(&bad, 0, true).is_err(), "{at}.{bit}");
            }
            assert!(read_block(&block[..at], 0, true).is_err(), "{at}");
        }
    }

    #[test]
    fn a_block_is_found_amid_rubbish_and_only_of_its_generation() {
        let (block, _) = sample();
        let bytes = [&b"IKB1 rubbish IKB1"[..], &block, b"IKB1"].concat();
        let found: Vec<usize> = find_blocks(&bytes, 0, 8, 7).map(|(at, _)| at).collect();
        assert_eq!(found, [17]);
        assert_eq!(find_blocks(&bytes, 0, 9, 7).count(), 0);
        assert_eq!(find_blocks(&bytes, 0, 8, 8).count(), 0, "of an earlier life of the file");
        assert_eq!(find_blocks(&bytes, 18, 8, 7).count(), 0);
        assert_eq!(find_blocks(&bytes, 9999, 8, 7).count(), 0);
    }

    #[test]
    fn an_end_mark_is_zeros_and_no_block_looks_like_it() {
        let (block, _) = sample();
        let bytes = [&block[..], &[0; END_MARK], b"rest", &[0; 3]].concat();
        assert!(is_end_mark(&bytes, block.len()));
        assert!(!is_end_mark(&bytes, 0));
        assert!(!is_end_mark(&bytes, block.len() + 1));
        assert!(is_end_mark(&bytes, bytes.len() - 3), "as much of it as there is room for");
    }

    #[test]
    fn a_segment_header_round_trips_and_no_flip_or_cut_passes() {
        let header = SegmentHeader {
            version: 1,
            kind: 1,
            number: 2,
            generation: 3,
            hash_seed: *b"0123456789abcdef",
            recycled: true,
            key: 5,
        };
        let bytes = segment_header(&header);
        assert_eq!(read_segment_header(&bytes), Ok(header));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(read_segment_header(&bad).is_err(), "{at}");
            assert!(read_segment_header(&bytes[..at]).is_err(), "{at}");
        }
    }
}
