//! The index of a log segment that is not written any more: where the records of each shard lie in it. With it, a start
//! need not read the segment, and a shard is loaded from its own records alone. Drawn in `format.rs`.
//!
//! Invariants:
//! - It is derived, and may be missing: then the segment is read. It is thrown away if anything about it does not fit.
//! - It is made from blocks whose checksums were verified, and only once the whole segment is durable.
//! - It vouches for the bytes of the records by a checksum for each shard. They are compared before they are applied
//!   (`Index::fits`), so that damage in a record is found, and concerns its shard alone.

use crc32fast::{Hasher, hash};

use super::block::{Block, read_block, read_segment_header};
use super::error::PersistError;
use super::format::{
    BARRIER_SHARD, BLOCK_HEADER, INDEX_MAGIC, SEGMENT_HEADER, index_name, put_varint, segment_name, take_varint, u64_at,
};
use super::record::{Items, item_len};
use super::storage::{FileBytes, Storage, StorageReader};
use super::wire::{IndexWire, ListWire, SegmentWire, frame, unframe};

/// How much of a segment is read at a time, in bytes.
const PIECE: u64 = 1 << 20;
/// More bytes than a record and the epochs before it have in front of their content.
const HEAD: usize = 64;

/// See the module.
pub(crate) struct Index {
    pub(crate) wire: IndexWire,
    bytes: FileBytes,
    /// Where the lists begin.
    lists_at: usize,
    /// Which list is that of a shard, and where it begins behind the first; that of barriers is the last.
    by_shard: Vec<Option<(usize, usize)>>,
}

/// Where records of a shard lie, in the order in which they are to be applied: each offset in the segment with the
/// number of barriers before it in the segment.
#[derive(Clone, Default)]
pub struct Places<'a> {
    rest: &'a [u8],
    offset: u64,
    barriers: u64,
}

impl Iterator for Places<'_> {
    type Item = (usize, u64);

    fn next(&mut self) -> Option<(usize, u64)> {
        let word = take_varint(&mut self.rest)?;
        let zigzag = word >> 1;
        self.offset = self.offset.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg());
        if word & 1 == 1 {
            self.barriers = self.barriers.wrapping_add(take_varint(&mut self.rest)?);
        }
        Some((usize::try_from(self.offset).ok()?, self.barriers))
    }
}

impl Index {
    /// The index of a segment, if there is one and it is whole. The caller compares it with the segment.
    pub(crate) fn open(storage: &dyn Storage, number: u64, shards: u32) -> Option<Index> {
        let name = index_name(number);
        if !storage.exists(&name).ok()? {
            return None;
        }
        Index::of(storage.read(&name).ok()?, shards)
    }

    /// The same from the bytes of the file.
    pub(crate) fn of(bytes: FileBytes, shards: u32) -> Option<Index> {
        let (wire, lists_at) = unframe::<IndexWire>(INDEX_MAGIC, &bytes).ok()?;
        let mut by_shard = vec![None; shards as usize + 1];
        let mut at = 0_usize;
        for (number, list) in wire.lists.iter().enumerate() {
            let slot = if list.shard == BARRIER_SHARD { shards as usize } else { usize::from(list.shard) };
            let place = by_shard.get_mut(slot).filter(|place| place.is_none())?;
            *place = Some((number, at));
            at = at.checked_add(usize::try_from(list.length).ok()?)?;
        }
        (bytes.len().checked_sub(lists_at) == Some(at)).then_some(Index { wire, bytes, lists_at, by_shard })
    }

    fn list(&self, shard: u16) -> Option<(&ListWire, &[u8])> {
        let slot = if shard == BARRIER_SHARD { self.by_shard.len() - 1 } else { usize::from(shard) };
        let (number, at) = (*self.by_shard.get(slot)?)?;
        let list = &self.wire.lists[number];
        let begin = self.lists_at + at;
        Some((list, &self.bytes[begin..begin + list.length as usize]))
    }

    /// What it says of one shard, or of the barriers. Without records there is none.
    pub(crate) fn of_shard(&self, shard: u16) -> Option<&ListWire> {
        self.list(shard).map(|(list, _)| list)
    }

    /// Where the records of a shard lie.
    pub(crate) fn places(&self, shard: u16) -> Places<'_> {
        Places { rest: self.list(shard).map_or(&[], |(_, bytes)| bytes), ..Places::default() }
    }

    /// Whether the list of a shard is whole, and the segment holds the records that it was made of. `reach` is asked
    /// before so many bytes at an offset are looked at.
    pub(crate) fn fits(&self, shard: u16, segment: &[u8], reach: impl Fn(usize, usize) -> bool) -> bool {
        let Some((list, bytes)) = self.list(shard) else { return true };
        if hash(bytes) != list.crc {
            return false;
        }
        let Some(segment) = usize::try_from(self.wire.end).ok().and_then(|end| segment.get(..end)) else {
            return false;
        };
        let (mut hasher, mut records) = (Hasher::new(), 0);
        for (offset, _) in self.places(shard) {
            let Some(rest) = segment.get(offset..).filter(|_| reach(offset, HEAD)) else { return false };
            let Some(len) = item_len(rest).filter(|len| reach(offset, *len)) else { return false };
            hasher.update(&rest[..len]);
            records += 1;
        }
        (records, hasher.finalize()) == (list.records, list.records_crc)
    }
}

/// A list that is being made.
#[derive(Clone)]
struct Building {
    bytes: Vec<u8>,
    offset: u64,
    barriers: u64,
    records: u64,
    last_seq: u64,
    records_crc: Hasher,
}

/// Makes an index of blocks, which are given in order.
pub(crate) struct IndexBuilder {
    wire: IndexWire,
    version: u32,
    shards: u32,
    next_block: u64,
    /// A list for each shard, and one of the barriers.
    lists: Vec<Building>,
    barriers: u64,
}

impl IndexBuilder {
    /// Begins the index of a segment of a store, whose records are of this format version.
    pub(crate) fn new(store: [u8; 16], shards: u32, segment: SegmentWire, version: u32) -> IndexBuilder {
        let list =
            Building { bytes: Vec::new(), offset: 0, barriers: 0, records: 0, last_seq: 0, records_crc: Hasher::new() };
        let wire = IndexWire {
            store,
            end: SEGMENT_HEADER as u64,
            last_at: 0,
            last_block: segment.first_block - 1,
            last_crc: segment.prev_crc,
            last_time_ms: 0,
            durable: 0,
            next_segment: 0,
            blocks: 0,
            databases: 0,
            lists: Vec::new(),
            segment,
        };
        let next_block = wire.segment.first_block;
        IndexBuilder { wire, version, shards, next_block, lists: vec![list; shards as usize + 1], barriers: 0 }
    }

    /// The number of the block that comes next.
    pub(crate) fn next_block(&self) -> u64 {
        self.next_block
    }

    /// Adds the next block, whose checksum was verified and which stands at this offset.
    ///
    /// # Errors
    /// It does not continue the one before, or a record is malformed: where, and what is wrong.
    pub(crate) fn add(&mut self, at: usize, block: &Block<'_>) -> Result<(), (usize, String)> {
        let header = &block.header;
        let continues = at as u64 == self.wire.end
            && header.number == self.next_block
            && header.prev_crc == self.wire.last_crc
            && header.generation == self.wire.segment.generation
            && self.wire.next_segment == 0;
        if !continues {
            return Err((at, format!("block {}: it does not continue the one before", header.number)));
        }
        let malformed =
            |offset: usize| (at + BLOCK_HEADER + offset, format!("block {}: a record is malformed", header.number));
        let mut items = Items::of_version(self.version, block.payload);
        let mut records = Vec::new();
        loop {
            let begin = items.offset();
            let Some(item) = items.next() else { break };
            let (epoch, record) = item.map_err(malformed)?;
            if !record.is_barrier() && u32::from(record.shard) >= self.shards {
                return Err((at + BLOCK_HEADER + begin, "a record of a shard that does not exist".to_owned()));
            }
            self.wire.databases = self.wire.databases.max(record.db.saturating_add(1));
            records.push((epoch, record.seq, record.shard, begin..items.offset()));
        }
        // As recovery applies them: a barrier opens its epoch. The sort is stable: equal numbers keep their order.
        records.sort_by_key(|(epoch, seq, shard, _)| (*epoch, *shard != BARRIER_SHARD, *seq));
        for (_, seq, shard, range) in records {
            let is_barrier = shard == BARRIER_SHARD;
            self.barriers += u64::from(is_barrier);
            let slot = if is_barrier { self.shards as usize } else { usize::from(shard) };
            let (offset, barriers) = ((at + BLOCK_HEADER + range.start) as u64, self.barriers);
            self.lists[slot].push(offset, barriers, seq, &block.payload[range]);
        }
        self.next_block += 1;
        self.wire.end = (at + block.len) as u64;
        self.wire.last_at = at as u64;
        (self.wire.last_block, self.wire.last_crc) = (header.number, block.crc);
        (self.wire.last_time_ms, self.wire.next_segment) = (header.time_ms, header.next_segment);
        self.wire.durable = self.wire.durable.max(header.durable);
        self.wire.blocks += 1;
        Ok(())
    }

    /// The bytes of the file.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let mut places = Vec::new();
        for (slot, list) in self.lists.into_iter().enumerate().filter(|(_, list)| list.records > 0) {
            self.wire.lists.push(ListWire {
                shard: if slot == self.shards as usize { BARRIER_SHARD } else { slot as u16 },
                records: list.records,
                last_seq: list.last_seq,
                length: list.bytes.len() as u64,
                crc: hash(&list.bytes),
                records_crc: list.records_crc.finalize(),
            });
            places.push(list.bytes);
        }
        let mut file = frame(INDEX_MAGIC, &self.wire);
        places.iter().for_each(|list| file.extend_from_slice(list));
        file
    }
}

impl Building {
    fn push(&mut self, offset: u64, barriers: u64, seq: u64, record: &[u8]) {
        let step = offset.wrapping_sub(self.offset) as i64;
        let zigzag = ((step << 1) ^ (step >> 63)) as u64;
        put_varint(&mut self.bytes, zigzag << 1 | u64::from(barriers != self.barriers));
        if barriers != self.barriers {
            put_varint(&mut self.bytes, barriers - self.barriers);
        }
        (self.offset, self.barriers, self.last_seq) = (offset, barriers, seq);
        self.records += 1;
        self.records_crc.update(record);
    }
}

/// Reads a segment that is not written any more, up to this block, and writes its index. It reads in pieces and maps
/// nothing, because the file may be written over meanwhile. Returns how many bytes it has read, or `None` if there is
/// nothing to be indexed.
///
/// # Errors
/// The index cannot be written.
pub(crate) fn make(
    storage: &dyn Storage,
    store: [u8; 16],
    shards: u32,
    segment: &SegmentWire,
    last_block: u64,
) -> Result<Option<u64>, PersistError> {
    let Some(bytes) = read_and_index(storage, store, shards, segment, last_block) else { return Ok(None) };
    let (name, path) = (index_name(segment.number), storage.path(&index_name(segment.number)));
    if storage.exists(&name).map_err(PersistError::io("look for", &path))? {
        storage.remove(&name).map_err(PersistError::io("remove", &path))?;
    }
    // Torn by a crash, its checksums do not match, and it is made again.
    let file = storage.create(&name).map_err(PersistError::io("create", &path))?;
    file.append(&bytes.1).map_err(PersistError::io("write", &path))?;
    file.sync_data().map_err(PersistError::io("sync", &path))?;
    Ok(Some(bytes.0))
}

fn read_and_index(
    storage: &dyn Storage,
    store: [u8; 16],
    shards: u32,
    segment: &SegmentWire,
    last_block: u64,
) -> Option<(u64, Vec<u8>)> {
    let reader = storage.reader(&segment_name(segment.number)).ok()?;
    let mut pieces = Pieces { len: reader.len().ok()?, reader, from: 0, bytes: Vec::new() };
    let header = read_segment_header(pieces.get(0, SEGMENT_HEADER as u64)?).ok()?;
    let is_meant = (header.number, header.generation) == (segment.number, segment.generation)
        && header.hash_seed == store
        && header.version > 1
        && header.key == 0;
    if !is_meant || last_block < segment.first_block {
        return None;
    }
    let mut builder = IndexBuilder::new(store, shards, segment.clone(), header.version);
    while builder.next_block() <= last_block {
        let at = builder.wire.end;
        let payload = u64_at(pieces.get(at, BLOCK_HEADER as u64)?, 8)?;
        let whole = pieces.get(at, payload.checked_add(BLOCK_HEADER as u64)?)?;
        let block = read_block(whole, 0, true).ok()?;
        builder.add(usize::try_from(at).ok()?, &block).ok()?;
    }
    Some((builder.wire.end, builder.finish()))
}

/// Reads a file in pieces.
struct Pieces {
    reader: Box<dyn StorageReader>,
    /// The file's length.
    len: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl Pieces {
    /// So many bytes at an offset, if the file has them.
    fn get(&mut self, at: u64, len: u64) -> Option<&[u8]> {
        let end = at.checked_add(len).filter(|end| *end <= self.len)?;
        if at < self.from || end > self.from + self.bytes.len() as u64 {
            let wanted = len.max(PIECE).min(self.len - at);
            self.bytes.resize(usize::try_from(wanted).ok()?, 0);
            self.from = at;
            let read = self.reader.read_at(at, &mut self.bytes).ok()?;
            self.bytes.truncate(read);
        }
        let begin = usize::try_from(at - self.from).ok()?;
        self.bytes.get(begin..begin + usize::try_from(len).ok()?)
    }
}
