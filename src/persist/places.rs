//! Where the records of a shard lie in the log, and the segments of a recovery that have not been read.
//!
//! Nothing comes from bytes that were not verified: a segment was read when the store was opened, or the records of the
//! shard are compared with the checksum in the segment's index. If they differ, the segment is read: it is damaged, or
//! the index was. Of an encrypted segment, each block is opened when a record of it is read, which verifies all of it.

use std::ops::Range;

use super::block::{open_block, read_block};
use super::error::PersistError;
use super::format::{BARRIER_SHARD, BLOCK_HEADER, SEGMENT_HEADER};
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

/// The segment and the offset of a position.
fn parts(position: Position) -> (usize, usize) {
    ((position >> OFFSET_BITS) as usize, (position & ((1 << OFFSET_BITS) - 1)) as usize)
}

impl Index {
    /// Whether it is the index of this segment of the store. Its other end links with the next segment: the walk along
    /// the log compares that. So the last block need not be sound: damage there concerns those who need it.
    pub(super) fn is_of(&self, store: &[u8; 16], segment: &Segment) -> bool {
        let (wire, end) = (&self.wire, self.wire.end);
        let is_meant = wire.store == *store && wire.segment == segment.wire && self.key() == segment.key;
        is_meant && end < 1 << OFFSET_BITS && wire.last_at < end && end <= segment.bytes.len() as u64
    }
}

impl Recovery {
    /// Whether single records of the log can be read from their places: all are verbs.
    pub fn has_positions(&self) -> bool {
        let fits = |segment: &Segment| segment.version > 1 && segment.end < 1 << OFFSET_BITS;
        self.segments.iter().filter(|segment| segment.end > SEGMENT_HEADER).all(fits)
    }

    /// How much of the log is encrypted, in bytes.
    pub fn encrypted_bytes(&self) -> u64 {
        self.segments.iter().filter(|segment| segment.key != 0).map(|segment| segment.end as u64).sum()
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

    /// Where the records of a shard lie in a segment. They are verified; those of an encrypted segment are when they
    /// are read. Those of one block follow each other.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn places(&self, segment: usize, shard: u16) -> Result<Places<'_>, PersistError> {
        let of = &self.segments[segment];
        self.ask_index(segment, |index| index.places(shard, &of.bytes, |from, len| of.reach(from, len).is_ok()))
    }

    /// Asks the index of a segment, or the one that is made by reading the segment, if the first does not fit.
    fn ask_index<'i, T>(&'i self, segment: usize, ask: impl Fn(&'i Index) -> Option<T>) -> Result<T, PersistError> {
        if let Some(answer) = ask(self.index_of(segment)?) {
            return Ok(answer);
        }
        let changes = || self.segments[segment].corrupt(SEGMENT_HEADER, "the segment changes while it is read");
        ask(self.read(segment)?).ok_or_else(changes)
    }

    /// Reads records at the places that [`Recovery::places`] has given.
    pub fn records(&self) -> Records<'_> {
        Records { recovery: self, blocks: None, opened: None }
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

/// Reads records at their places. One block of an encrypted segment is open at a time, so they are best read block by
/// block.
pub struct Records<'a> {
    recovery: &'a Recovery,
    /// Where the blocks of an encrypted segment begin, and behind them where the last one ends.
    blocks: Option<(usize, Vec<usize>)>,
    /// The block that is open: its segment, where its payload lies in the file, and what it holds.
    opened: Option<(usize, Range<usize>, Vec<u8>)>,
}

impl Records<'_> {
    /// The record at a place.
    ///
    /// # Errors
    /// The block is damaged, or has changed since it was verified.
    pub fn at(&mut self, position: Position) -> Result<Record<'_>, PersistError> {
        let (number, at) = parts(position);
        let segment = &self.recovery.segments[number];
        let rest = match segment.key {
            0 => segment.bytes.get(at..segment.end),
            _ => {
                self.open(number, at)?;
                let opened = self.opened.as_ref();
                opened.and_then(|(_, range, bytes)| bytes.get(at.checked_sub(range.start)?..))
            }
        };
        match Items::resume(rest.unwrap_or_default()).next() {
            Some(Ok((_, record))) => Ok(record),
            _ => Err(segment.corrupt(at, "a record is malformed, or has changed since it was verified")),
        }
    }

    /// Up to which offset records come from the same block as that at a place, if that block must be opened.
    ///
    /// # Errors
    /// The segment is damaged.
    pub fn same_block(&mut self, position: Position) -> Result<usize, PersistError> {
        let (number, at) = parts(position);
        match self.recovery.segments[number].key {
            0 => Ok(usize::MAX),
            _ => self.block_of(number, at).map(|(_, range)| range.end),
        }
    }

    /// The block at an offset of an encrypted segment: how many come before it, and where it lies.
    fn block_of(&mut self, number: usize, at: usize) -> Result<(u64, Range<usize>), PersistError> {
        if self.blocks.as_ref().is_none_or(|(of, _)| *of != number) {
            self.blocks = Some((number, self.recovery.ask_index(number, Index::blocks)?));
        }
        let blocks = self.blocks.as_ref().map_or(&[][..], |(_, blocks)| blocks);
        let nth = blocks.partition_point(|&begin| begin <= at);
        match (nth.checked_sub(1).and_then(|nth| blocks.get(nth)), blocks.get(nth)) {
            (Some(&begin), Some(&end)) => Ok((nth as u64 - 1, begin..end)),
            _ => Err(self.recovery.segments[number].corrupt(at, "no block is where the index says")),
        }
    }

    fn open(&mut self, number: usize, at: usize) -> Result<(), PersistError> {
        if self.opened.as_ref().is_some_and(|(of, range, _)| *of == number && range.contains(&at)) {
            return Ok(());
        }
        let (before, range) = self.block_of(number, at)?;
        let opened = self.recovery.segments[number].open_block(before, range.clone())?;
        self.opened = Some((number, range.start + BLOCK_HEADER..range.end, opened));
        Ok(())
    }
}

impl Segment {
    /// Opens the block that lies there, behind so many others.
    fn open_block(&self, before: u64, range: Range<usize>) -> Result<Vec<u8>, PersistError> {
        let number = self.wire.first_block + before;
        let wrong = |what: &str| self.corrupt(range.start, &format!("block {number}: {what}"));
        self.reach(range.start, range.len())?;
        let bytes = self.bytes.get(..range.end).unwrap_or_default();
        // Those of a segment that was read are verified.
        let block = read_block(bytes, range.start, self.index.is_some()).map_err(wrong)?;
        if (block.header.number, block.header.generation, block.len) != (number, self.wire.generation, range.len()) {
            return Err(wrong("another block stands there"));
        }
        let cipher = self.cipher.as_ref().ok_or_else(|| wrong("it is encrypted, and no key was given"))?;
        open_block(&block, cipher).map_err(wrong)
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
        let wrong = |what| (at, format!("block {number}: {what}"));
        let block = block.map_err(wrong)?;
        let opened = segment.cipher.as_ref().map(|cipher| open_block(&block, cipher)).transpose().map_err(wrong)?;
        let block = block.holding(opened.as_deref());
        builder.add(at, &block)?;
        // That they can be applied is known before anything is served.
        if let Some(Err(offset)) = Items::of_version(segment.version, block.payload).find(Result::is_err) {
            return Err((at + BLOCK_HEADER + offset, format!("block {number}: a record is malformed")));
        }
        at += block.len;
    }
    let bytes = FileBytes::Shared(builder.finish(None).into());
    Index::of(bytes, shards, None).ok_or((0, "its index is too large".to_owned()))
}
