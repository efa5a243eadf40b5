//! The index of a log segment that is not written any more: where the records of each shard lie in it. With it, a start
//! need not read the segment, and a shard is loaded from its own records alone. Drawn in `format.rs`.
//!
//! Invariants:
//! - It is derived, and may be missing: then the segment is read. It is thrown away if anything about it does not fit.
//! - It is made from blocks whose checksums were verified, and only once the whole segment is durable.
//! - It vouches for the bytes of the records by a checksum for each shard. They are compared before they are applied
//!   (`Index::places`), so that damage in a record is found, and concerns its shard alone.
//! - That of an encrypted segment is sealed. It vouches for the places of the blocks, and each block for itself when it
//!   is opened.

use std::borrow::Cow;

use crc32fast::{Hasher, hash};

use super::block::{Block, open_block, read_block, read_segment_header};
use super::crypt::{FileCipher, FileKind, INDEX_PLACE, Keyring, TAG};
use super::error::PersistError;
use super::format::{
    BARRIER_SHARD, BLOCK_HEADER, BLOCKS_SHARD, INDEX_MAGIC, SEGMENT_HEADER, VERSION_ENCRYPTED, index_name, put_varint,
    segment_name, take_varint, u32_at, u64_at,
};
use super::record::{Head, Items, item_len};
use super::storage::{FileBytes, Storage, StorageReader};
use super::wire::{
    IndexWire, ListWire, SealedIndexWire, SegmentWire, decode, encode, frame, frame_of_version, unframe,
};
use crate::base::random::os_bytes;

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
    /// Which list is that of a shard, and where it begins behind the first; behind those of the shards come that of the
    /// barriers and that of the blocks.
    by_shard: Vec<Option<(usize, usize)>>,
    /// Opens the lists, if they are sealed.
    cipher: Option<FileCipher>,
}

/// The place of a shard among the lists of a store of so many shards.
fn slot_of(shard: u16, shards: usize) -> usize {
    match shard {
        BARRIER_SHARD => shards,
        BLOCKS_SHARD => shards + 1,
        shard => usize::from(shard),
    }
}

/// Where records of a shard lie, in the order in which they are to be applied: each offset in the segment with the
/// number of barriers before it in the segment.
#[derive(Clone, Default)]
pub struct Places<'a> {
    list: Cow<'a, [u8]>,
    /// Where in the list the next one is.
    at: usize,
    offset: u64,
    barriers: u64,
}

impl Iterator for Places<'_> {
    type Item = (usize, u64);

    fn next(&mut self) -> Option<(usize, u64)> {
        let mut rest = &self.list[self.at..];
        let word = take_varint(&mut rest)?;
        let zigzag = word >> 1;
        self.offset = self.offset.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg());
        if word & 1 == 1 {
            self.barriers = self.barriers.wrapping_add(take_varint(&mut rest)?);
        }
        self.at = self.list.len() - rest.len();
        Some((usize::try_from(self.offset).ok()?, self.barriers))
    }
}

impl Index {
    /// The index of a segment, if there is one, it is whole, and its key is there. The caller compares it with the
    /// segment.
    pub(crate) fn open(storage: &dyn Storage, number: u64, shards: u32, keys: Option<&Keyring>) -> Option<Index> {
        let name = index_name(number);
        if !storage.exists(&name).ok()? {
            return None;
        }
        Index::of(storage.read(&name).ok()?, shards, keys)
    }

    /// The same from the bytes of the file.
    pub(crate) fn of(bytes: FileBytes, shards: u32, keys: Option<&Keyring>) -> Option<Index> {
        let (wire, lists_at, cipher) = match u32_at(&bytes, 8)? {
            VERSION_ENCRYPTED => {
                let (outer, lists_at) = unframe::<SealedIndexWire>(INDEX_MAGIC, &bytes).ok()?;
                let cipher = keys?.open_file(outer.key, FileKind::Index, outer.number, outer.salt)?;
                let head = cipher.open(INDEX_PLACE, &[], &outer.head).ok()?;
                (decode::<IndexWire>(&head)?, lists_at, Some(cipher))
            }
            _ => unframe::<IndexWire>(INDEX_MAGIC, &bytes).map(|(wire, lists_at)| (wire, lists_at, None)).ok()?,
        };
        let tag = if cipher.is_some() { TAG } else { 0 };
        let mut by_shard = vec![None; shards as usize + 2];
        let mut at = 0_usize;
        for (number, list) in wire.lists.iter().enumerate() {
            let place = by_shard.get_mut(slot_of(list.shard, shards as usize)).filter(|place| place.is_none())?;
            *place = Some((number, at));
            at = at.checked_add(usize::try_from(list.length).ok()?)?.checked_add(tag)?;
        }
        (bytes.len().checked_sub(lists_at) == Some(at)).then_some(Index { wire, bytes, lists_at, by_shard, cipher })
    }

    /// The data key of the segment, or 0.
    pub(crate) fn key(&self) -> u32 {
        self.cipher.as_ref().map_or(0, FileCipher::key_id)
    }

    /// What it says of one shard, of the barriers or of the blocks. Without any there is none.
    pub(crate) fn of_shard(&self, shard: u16) -> Option<&ListWire> {
        let (number, _) = (*self.by_shard.get(slot_of(shard, self.by_shard.len() - 2))?)?;
        Some(&self.wire.lists[number])
    }

    /// The list of a shard, if it is whole; an empty one if there is none.
    fn list(&self, shard: u16) -> Option<Cow<'_, [u8]>> {
        let place = self.by_shard.get(slot_of(shard, self.by_shard.len() - 2)).copied().flatten();
        let Some((number, at)) = place else { return Some(Cow::Borrowed(&[])) };
        let list = &self.wire.lists[number];
        let (begin, len) = (self.lists_at + at, list.length as usize);
        match &self.cipher {
            None => Some(&self.bytes[begin..begin + len]).filter(|bytes| hash(bytes) == list.crc).map(Cow::Borrowed),
            Some(cipher) => {
                let sealed = &self.bytes[begin..begin + len + TAG];
                cipher.open(u64::from(shard), &[], sealed).ok().map(Cow::Owned)
            }
        }
    }

    /// Where the records of a shard lie, if its list is whole, and the segment holds the records that it was made of.
    /// Whether an encrypted segment does is found when its blocks are opened. `reach` is asked before so many bytes at
    /// an offset are looked at.
    pub(crate) fn places(
        &self,
        shard: u16,
        segment: &[u8],
        reach: impl Fn(usize, usize) -> bool,
    ) -> Option<Places<'_>> {
        let places = Places { list: self.list(shard)?, ..Places::default() };
        let Some(list) = self.of_shard(shard) else { return Some(places) };
        if self.of_shard(BLOCKS_SHARD).is_some() {
            return Some(places);
        }
        let segment = segment.get(..usize::try_from(self.wire.end).ok()?)?;
        let (mut hasher, mut records) = (Hasher::new(), 0);
        for (offset, _) in places.clone() {
            let rest = segment.get(offset..).filter(|_| reach(offset, HEAD))?;
            let len = item_len(rest).filter(|len| reach(offset, *len))?;
            hasher.update(&rest[..len]);
            records += 1;
        }
        ((records, hasher.finalize()) == (list.records, list.records_crc)).then_some(places)
    }

    /// Where the blocks of an encrypted segment begin, and behind them where the last one ends, if that list is whole.
    pub(crate) fn blocks(&self) -> Option<Vec<usize>> {
        let list = self.list(BLOCKS_SHARD)?;
        let (mut rest, mut blocks) = (&list[..], vec![SEGMENT_HEADER]);
        let mut at = SEGMENT_HEADER as u64;
        while !rest.is_empty() {
            at = at.checked_add(take_varint(&mut rest)?)?;
            blocks.push(usize::try_from(at).ok()?);
        }
        ((blocks.len() as u64, at) == (self.wire.blocks + 1, self.wire.end)).then_some(blocks)
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
    /// How many records the block has that is being added, or where they stand in its order.
    here: usize,
}

/// A record of the block that is being added.
struct Noted {
    epoch: u64,
    seq: u64,
    slot: usize,
    begin: usize,
    end: usize,
}

/// Makes an index of blocks, which are given in order.
pub(crate) struct IndexBuilder {
    wire: IndexWire,
    version: u32,
    shards: u32,
    next_block: u64,
    /// A list for each shard, one of the barriers, and one of the blocks, if their places are needed.
    lists: Vec<Building>,
    barriers: u64,
    /// The records of the block that is being added, the lists that have one, and the records list by list.
    noted: Vec<Noted>,
    slots: Vec<usize>,
    order: Vec<usize>,
}

/// What an index is sealed with.
pub(crate) struct Sealing {
    cipher: FileCipher,
    number: u64,
    salt: u64,
}

impl Sealing {
    /// For a new index of a segment that is encrypted under this data key, if that is there.
    pub(crate) fn of(keys: &Keyring, key: u32, number: u64) -> Option<Sealing> {
        let salt = u64::from_le_bytes(os_bytes());
        let cipher = keys.open_file(key, FileKind::Index, number, salt)?;
        Some(Sealing { cipher, number, salt })
    }
}

impl IndexBuilder {
    /// Begins the index of a segment of a store, which is of this format version.
    pub(crate) fn new(store: [u8; 16], shards: u32, segment: SegmentWire, version: u32) -> IndexBuilder {
        let list = Building {
            bytes: Vec::new(),
            offset: 0,
            barriers: 0,
            records: 0,
            last_seq: 0,
            records_crc: Hasher::new(),
            here: 0,
        };
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
        let lists = vec![list; shards as usize + 2];
        let (noted, slots, order) = Default::default();
        IndexBuilder { wire, version, shards, next_block, lists, barriers: 0, noted, slots, order }
    }

    /// The number of the block that comes next.
    pub(crate) fn next_block(&self) -> u64 {
        self.next_block
    }

    /// Adds the next block, whose checksum was verified, which is open, and which stands at this offset.
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
        self.note_records(block.payload)
            .map_err(|(offset, what)| (at + BLOCK_HEADER + offset, format!("block {}: {what}", header.number)))?;
        self.add_noted(at + BLOCK_HEADER, block.payload);
        self.next_block += 1;
        self.wire.end = (at + block.len) as u64;
        self.wire.last_at = at as u64;
        (self.wire.last_block, self.wire.last_crc) = (header.number, block.crc);
        (self.wire.last_time_ms, self.wire.next_segment) = (header.time_ms, header.next_segment);
        self.wire.durable = self.wire.durable.max(header.durable);
        self.wire.blocks += 1;
        if self.version == VERSION_ENCRYPTED {
            let blocks = &mut self.lists[self.shards as usize + 1];
            put_varint(&mut blocks.bytes, block.len as u64);
            blocks.records += 1;
        }
        Ok(())
    }

    /// Notes where the records of a block are. What they say is decoded when they are applied, and not here.
    fn note_records(&mut self, payload: &[u8]) -> Result<(), (usize, &'static str)> {
        let mut items = Items::of_version(self.version, payload);
        self.noted.clear();
        loop {
            let begin = items.offset();
            let Some(head) = items.next_head() else { return Ok(()) };
            let Head { epoch, shard, seq, db, end } = head.map_err(|offset| (offset, "a record is malformed"))?;
            if shard != BARRIER_SHARD && u32::from(shard) >= self.shards {
                return Err((begin, "a record of a shard that does not exist"));
            }
            self.wire.databases = self.wire.databases.max(db.saturating_add(1));
            self.noted.push(Noted { epoch, seq, slot: slot_of(shard, self.shards as usize), begin, end });
        }
    }

    /// Adds the noted records, in the order in which recovery applies them. Equal numbers keep their order.
    fn add_noted(&mut self, payload_at: usize, payload: &[u8]) {
        let barrier = self.shards as usize;
        let mut noted = std::mem::take(&mut self.noted);
        let first = noted.first().map_or(0, |record| record.epoch);
        if noted.iter().any(|record| record.slot == barrier || record.epoch != first) {
            // A barrier opens its epoch.
            noted.sort_by_key(|record| (record.epoch, record.slot != barrier, record.seq));
            for record in &noted {
                self.barriers += u64::from(record.slot == barrier);
                self.lists[record.slot].push(payload_at, self.barriers, record, payload);
            }
            self.noted = noted;
            return;
        }
        // Without one, shards are independent of each other. Each has few records here, most often in their order.
        let (mut slots, mut order) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.order));
        slots.clear();
        for record in &noted {
            let here = &mut self.lists[record.slot].here;
            if *here == 0 {
                slots.push(record.slot);
            }
            *here += 1;
        }
        let mut end = 0;
        for &slot in &slots {
            let begin = end;
            end += std::mem::replace(&mut self.lists[slot].here, begin);
        }
        order.resize(noted.len(), 0);
        for (nth, record) in noted.iter().enumerate() {
            let here = &mut self.lists[record.slot].here;
            order[*here] = nth;
            *here += 1;
        }
        let mut begin = 0;
        for &slot in &slots {
            let list = &mut self.lists[slot];
            let own = &mut order[begin..list.here];
            begin = std::mem::take(&mut list.here);
            if !own.is_sorted_by_key(|&nth| noted[nth].seq) {
                own.sort_by_key(|&nth| noted[nth].seq);
            }
            own.iter().for_each(|&nth| list.push(payload_at, self.barriers, &noted[nth], payload));
        }
        (self.noted, self.slots, self.order) = (noted, slots, order);
    }

    /// The bytes of the file, sealed if its segment is.
    pub(crate) fn finish(mut self, sealing: Option<&Sealing>) -> Vec<u8> {
        let mut places = Vec::new();
        for (slot, list) in self.lists.into_iter().enumerate().filter(|(_, list)| list.records > 0) {
            self.wire.lists.push(ListWire {
                shard: match slot as u32 {
                    slot if slot == self.shards => BARRIER_SHARD,
                    slot if slot > self.shards => BLOCKS_SHARD,
                    slot => slot as u16,
                },
                records: list.records,
                last_seq: list.last_seq,
                length: list.bytes.len() as u64,
                crc: hash(&list.bytes),
                records_crc: list.records_crc.finalize(),
            });
            places.push(list.bytes);
        }
        let Some(Sealing { cipher, number, salt }) = sealing else {
            let mut file = frame(INDEX_MAGIC, &self.wire);
            places.iter().for_each(|list| file.extend_from_slice(list));
            return file;
        };
        let mut head = encode(&self.wire);
        cipher.seal(INDEX_PLACE, &[], &mut head, 0);
        let outer = SealedIndexWire { number: *number, key: cipher.key_id(), salt: *salt, head };
        let mut file = frame_of_version(VERSION_ENCRYPTED, INDEX_MAGIC, &outer);
        for (list, mut bytes) in self.wire.lists.iter().zip(places) {
            cipher.seal(u64::from(list.shard), &[], &mut bytes, 0);
            file.extend_from_slice(&bytes);
        }
        file
    }
}

impl Building {
    /// Adds a record of a payload that begins there.
    fn push(&mut self, payload_at: usize, barriers: u64, record: &Noted, payload: &[u8]) {
        let offset = (payload_at + record.begin) as u64;
        let step = offset.wrapping_sub(self.offset) as i64;
        let zigzag = ((step << 1) ^ (step >> 63)) as u64;
        put_varint(&mut self.bytes, zigzag << 1 | u64::from(barriers != self.barriers));
        if barriers != self.barriers {
            put_varint(&mut self.bytes, barriers - self.barriers);
        }
        (self.offset, self.barriers, self.last_seq) = (offset, barriers, record.seq);
        self.records += 1;
        self.records_crc.update(&payload[record.begin..record.end]);
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
    keys: Option<&Keyring>,
) -> Result<Option<u64>, PersistError> {
    let Some(bytes) = read_and_index(storage, store, shards, segment, last_block, keys) else { return Ok(None) };
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
    keys: Option<&Keyring>,
) -> Option<(u64, Vec<u8>)> {
    let reader = storage.reader(&segment_name(segment.number)).ok()?;
    let mut pieces = Pieces { len: reader.len().ok()?, reader, from: 0, bytes: Vec::new() };
    let header = read_segment_header(pieces.get(0, SEGMENT_HEADER as u64)?).ok()?;
    let is_meant = (header.number, header.generation) == (segment.number, segment.generation)
        && header.hash_seed == store
        && header.version > 1;
    if !is_meant || last_block < segment.first_block {
        return None;
    }
    let encrypted = match header.key {
        0 => None,
        key => {
            let cipher = keys?.open_file(key, FileKind::Segment, header.number, header.generation)?;
            Some((cipher, Sealing::of(keys?, key, header.number)?))
        }
    };
    let mut builder = IndexBuilder::new(store, shards, segment.clone(), header.version);
    while builder.next_block() <= last_block {
        let at = builder.wire.end;
        let payload = u64_at(pieces.get(at, BLOCK_HEADER as u64)?, 8)?;
        let whole = pieces.get(at, payload.checked_add(BLOCK_HEADER as u64)?)?;
        let block = read_block(whole, 0, true).ok()?;
        let opened = encrypted.as_ref().map(|(cipher, _)| open_block(&block, cipher)).transpose().ok()?;
        builder.add(usize::try_from(at).ok()?, &block.holding(opened.as_deref())).ok()?;
    }
    Some((builder.wire.end, builder.finish(encrypted.as_ref().map(|(_, sealing)| sealing))))
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
