//! Where the records of a shard lie in the log, and the segments of a recovery that have not been read.
//!
//! Nothing comes from bytes that were not verified: a segment was read when the store was opened, or the records of the
//! shard are compared with the checksum in the segment's index. If they differ, the segment is read: it is damaged, or
//! the index was.

use super::block::read_block;
use super::error::PersistError;
use super::format::{BARRIER_SHARD, SEGMENT_HEADER};
use super::index::{Index, IndexBuilder, Places};
use super::record::{Items, Record};
use super::recover::{Recovery, Segment};
use super::storage::FileBytes;
use super::wire::ListWire;

/// A place in the log: the segment's index in the upper bits, the offset in its file in the lower 40.
pub type Position = u64;
const OFFSET_BITS: u32 = 40;

/// The position of a record in the segment of this index.
pub fn position(segment: usize, offset: usize) -> Position {
    (segment as u64) << OFFSET_BITS | offset as u64
}

impl Index {
    /// Whether it is the index of this segment of the store, as far as can be told from its ends.
    pub(super) fn is_of(&self, store: &[u8; 16], segment: &Segment) -> bool {
        let wire = &self.wire;
        let (at, end) = (wire.last_at as usize, wire.end);
        if wire.store != *store || wire.segment != segment.wire || end >= 1 << OFFSET_BITS || at >= end as usize {
            return false;
        }
        if segment.reach(at, end as usize - at).is_err() {
            return false;
        }
        read_block(&segment.bytes, at, true).is_ok_and(|last| {
            let header = &last.header;
            (header.number, last.crc, header.next_segment) == (wire.last_block, wire.last_crc, wire.next_segment)
                && header.generation == segment.wire.generation
                && (at + last.len) as u64 == end
        })
    }
}

impl Recovery {
    /// Whether single records of the log can be read from their places: all are verbs, and none is encrypted.
    pub fn has_positions(&self) -> bool {
        let fits = |segment: &Segment| segment.version > 1 && segment.key == 0 && segment.end < 1 << OFFSET_BITS;
        self.segments.iter().filter(|segment| segment.end > SEGMENT_HEADER).all(fits)
    }

    /// How many segments take part.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// How many segments were not read.
    pub fn unread_segments(&self) -> usize {
        self.summary.unread
    }

    /// One more than the highest database in a segment.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn databases_in(&self, segment: usize) -> Result<u32, PersistError> {
        self.index_of(segment).map(|index| index.wire.databases)
    }

    /// How many records a shard has in a segment, and the sequence number of the last one. The barriers are those of
    /// [`BARRIER_SHARD`].
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn count_in(&self, segment: usize, shard: u16) -> Result<Option<(u64, u64)>, PersistError> {
        let count = |list: &ListWire| (list.records, list.last_seq);
        Ok(self.index_of(segment)?.of_shard(shard).map(count))
    }

    /// Where the barriers of a segment lie.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn barriers_in(&self, segment: usize) -> Result<Places<'_>, PersistError> {
        self.places(segment, BARRIER_SHARD)
    }

    /// Where the records of a shard lie in a segment, which are verified.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn places(&self, segment: usize, shard: u16) -> Result<Places<'_>, PersistError> {
        let index = self.index_of(segment)?;
        let fits = |index: &Index| {
            let segment = &self.segments[segment];
            index.fits(shard, &segment.bytes, |from, len| segment.reach(from, len).is_ok())
        };
        if fits(index) {
            return Ok(index.places(shard));
        }
        let read = self.read(segment)?;
        match fits(read) {
            true => Ok(read.places(shard)),
            false => Err(self.segments[segment].corrupt(SEGMENT_HEADER, "the segment changes while it is read")),
        }
    }

    /// The record at a place that [`Recovery::places`] has given.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn record_at(&self, position: Position) -> Result<Record<'_>, PersistError> {
        let segment = &self.segments[(position >> OFFSET_BITS) as usize];
        let at = (position & ((1 << OFFSET_BITS) - 1)) as usize;
        match Items::resume(segment.bytes.get(at..segment.end).unwrap_or_default()).next() {
            Some(Ok((_, record))) => Ok(record),
            _ => Err(segment.corrupt(at, "a record has changed since it was verified")),
        }
    }

    /// Reads and verifies the segments that were left unread.
    ///
    /// # Errors
    /// One is damaged.
    pub fn read_the_rest(&self) -> Result<(), PersistError> {
        let mut unread = (0..self.segments.len()).filter(|&segment| self.segments[segment].index.is_some());
        unread.try_for_each(|segment| self.read(segment).map(drop))
    }

    fn index_of(&self, segment: usize) -> Result<&Index, PersistError> {
        self.segments[segment].index.as_ref().map_or_else(|| self.read(segment), Ok)
    }

    /// The index of a segment that is made by reading it.
    fn read(&self, segment: usize) -> Result<&Index, PersistError> {
        let read = &self.segments[segment];
        let index = read.read.get_or_init(|| read_segment(read, self.shards));
        index.as_ref().map_err(|(at, what)| read.corrupt(*at, what))
    }
}

/// Reads a segment up to its known end, and verifies it, unless recovery has.
fn read_segment(segment: &Segment, shards: u32) -> Result<Index, (usize, String)> {
    segment.reach(0, segment.end).map_err(|error| (SEGMENT_HEADER, error.to_string()))?;
    let mut builder = IndexBuilder::new([0; 16], shards, segment.wire.clone(), segment.version);
    let mut at = SEGMENT_HEADER;
    while at < segment.end {
        let number = builder.next_block();
        let block = read_block(&segment.bytes[..segment.end], at, segment.index.is_some());
        let block = block.map_err(|what| (at, format!("block {number}: {what}")))?;
        builder.add(at, &block)?;
        at += block.len;
    }
    Index::of(FileBytes::Shared(builder.finish().into()), shards).ok_or((0, "its index is too large".to_owned()))
}
