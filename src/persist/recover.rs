//! Recovery reads what the manifest names, checks it, and yields it. It applies nothing.
//!
//! The log is a chain: block numbers are dense, and every block carries the CRC of the block before it. Where the
//! chain breaks, at block `n`, one of these is true:
//!
//! 1. A surviving block or the manifest says that `n` was synced: **corruption**. The start is refused.
//! 2. Nothing valid follows: a **torn tail**. It is cut, and the cut bytes are kept aside.
//! 3. Something valid follows in the same segment, and the damage is whole disk sectors that were never written. A
//!    power cut let later writes of the unsynced tail overtake earlier ones. The tail is cut as well. Or something
//!    valid follows in a later segment: it takes blocks before the sealed one in front of it is synced. The tail is
//!    cut, and the later segment is set aside.
//! 4. Anything else is **corruption**. The start is refused with file, offset and block, unless the operator asked to
//!    cut there.
//!
//! In a recycled segment an unwritten sector holds old bytes instead of zeros, so cases 3 and 4 cannot be told apart:
//! what was not synced is cut. An end mark ends its blocks without damage.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::block::{Block, HeaderFault, find_blocks, is_end_mark, read_block, read_segment_header};
use super::chunk::Chunk;
use super::error::PersistError;
use super::format::{SEGMENT_ATTACHED, SEGMENT_HEADER, VERSION, segment_name, segment_number, snapshot_name};
use super::record::{Items, Record};
use super::snapshot::SnapshotReader;
use super::storage::{FileBytes, Storage};
use super::wire::{ManifestWire, SegmentWire};

/// The smallest unit that a disk writes atomically, in bytes.
const SECTOR: usize = 512;

/// Payload bytes after which a window ends.
const WINDOW_BYTES: u64 = 8 << 20;

/// What recovery found; a start reports it in the operator's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoverySummary {
    /// The directory was empty.
    pub fresh: bool,
    /// The last run ended with a clean shutdown.
    pub clean: bool,
    /// The snapshot's file name.
    pub snapshot: Option<String>,
    /// The snapshot's length.
    pub snapshot_bytes: u64,
    /// Keys in the snapshot.
    pub snapshot_entries: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Blocks of the log.
    pub blocks: u64,
    /// Bytes of the log that take part.
    pub log_bytes: u64,
    /// The last block.
    pub last_block: u64,
    /// When it was written, unix ms; 0 without one.
    pub last_time_ms: u64,
    /// The torn tail that was cut from the log, if any.
    pub torn: Option<Torn>,
}

/// Bytes that recovery cut from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub file: PathBuf,
    /// Its number.
    pub segment: u64,
    /// Where the valid part ends.
    pub offset: u64,
    /// How many bytes follow it.
    pub bytes: u64,
    /// The block that should have been there.
    pub block: u64,
    /// What is wrong with it.
    pub what: String,
    /// Whether it was corruption that the operator asked to cut.
    pub forced: bool,
    /// Segments behind it, not named by the manifest, that hold blocks: they do not count.
    pub followers: Vec<u64>,
}

/// A store that is being recovered. It is cheap to share: all methods take `&self`.
pub struct Recovery {
    pub(crate) hash_seed: [u8; 16],
    pub(crate) shards: u32,
    pub(crate) snapshot: Option<SnapshotReader>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) summary: RecoverySummary,
    /// The CRC that the next block must carry.
    pub(crate) last_crc: u32,
    /// While this lives, no segment may be recycled, because it may be mapped.
    pub(crate) _reading: Arc<()>,
}

/// A mapped segment that takes part.
pub(crate) struct Segment {
    pub(crate) wire: SegmentWire,
    path: PathBuf,
    pub(crate) bytes: FileBytes,
    /// Where its valid blocks end.
    pub(crate) end: usize,
    /// Whether older bytes may follow there.
    recycled: bool,
    /// The format version of its records.
    version: u32,
}

impl Recovery {
    /// The seed that placed every key.
    pub fn hash_seed(&self) -> [u8; 16] {
        self.hash_seed
    }

    /// How many shards the store is laid out in.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// What was found.
    pub fn summary(&self) -> &RecoverySummary {
        &self.summary
    }

    /// The snapshot, if there is one.
    pub fn snapshot(&self) -> Option<&SnapshotReader> {
        self.snapshot.as_ref()
    }

    /// A shard's part of the snapshot, checked and decompressed. Callable from any thread, in any order.
    pub fn shard_chunk(&self, shard: u16) -> Result<Option<Chunk<'_>>, PersistError> {
        self.snapshot.as_ref().map_or(Ok(None), |snapshot| snapshot.chunk(shard))
    }

    /// The error for a shard whose entries turn out to be malformed.
    pub fn chunk_error(&self, shard: u16, what: &str) -> PersistError {
        match &self.snapshot {
            Some(snapshot) => snapshot.chunk_error(shard, what),
            None => PersistError::corrupt("", 0, what),
        }
    }

    /// The log in windows of bounded size, oldest first.
    pub fn windows(&self) -> Windows<'_> {
        Windows { recovery: self, segment: 0, at: SEGMENT_HEADER, window_bytes: WINDOW_BYTES }
    }
}

/// The windows of the log; see [`Recovery::windows`].
pub struct Windows<'a> {
    recovery: &'a Recovery,
    segment: usize,
    at: usize,
    window_bytes: u64,
}

/// Some consecutive blocks. The epochs must be applied in order.
#[derive(Debug, Default)]
pub struct Window<'a> {
    /// The epochs. Between two barriers, shards are independent of each other.
    pub epochs: Vec<Epoch<'a>>,
    /// How many blocks.
    pub blocks: u64,
    /// How many bytes they take in the file.
    pub bytes: u64,
    /// The number of the last.
    pub last_block: u64,
}

/// A barrier and the records after it.
#[derive(Debug, Default)]
pub struct Epoch<'a> {
    /// The barrier, which must be applied before the shards' records.
    pub barrier: Option<Record<'a>>,
    /// Each shard's records, in order. Shards may be applied in parallel.
    pub shards: Vec<(u16, Vec<Record<'a>>)>,
}

impl<'a> Windows<'a> {
    /// Sets how many payload bytes end a window.
    pub fn of_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    fn fill(&mut self) -> Result<Option<Window<'a>>, PersistError> {
        let mut window = Window::default();
        let mut slots = vec![None; self.recovery.shards as usize];
        while window.bytes < self.window_bytes {
            let Some(segment) = self.recovery.segments.get(self.segment) else { break };
            if self.at >= segment.end {
                (self.segment, self.at) = (self.segment + 1, SEGMENT_HEADER);
                continue;
            }
            let corrupt = |at: usize, what: &str| PersistError::corrupt(&segment.path, at as u64, what);
            // The checksum was verified when the store was opened.
            let block = read_block(&segment.bytes, self.at, false).map_err(|what| corrupt(self.at, what))?;
            add_block(&mut window, &block, segment.version, &mut slots).map_err(|at| {
                let what = format!("block {}: a record is malformed", block.header.number);
                corrupt(self.at + block.len - block.payload.len() + at, &what)
            })?;
            self.at += block.len;
            window.blocks += 1;
            window.bytes += block.len as u64;
            window.last_block = block.header.number;
        }
        Ok((window.blocks > 0).then_some(window))
    }
}

impl<'a> Iterator for Windows<'a> {
    type Item = Result<Window<'a>, PersistError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.fill().transpose();
        if matches!(result, Some(Err(_))) {
            self.segment = usize::MAX;
        }
        result
    }
}

/// Adds a block's records to a window. `slots` maps a shard to its place in the last epoch.
fn add_block<'a>(
    window: &mut Window<'a>,
    block: &Block<'a>,
    version: u32,
    slots: &mut [Option<usize>],
) -> Result<(), usize> {
    let mut records = Vec::new();
    for item in Items::of_version(version, block.payload) {
        let (epoch, record) = item?;
        if !record.is_barrier() && usize::from(record.shard) >= slots.len() {
            return Err(0);
        }
        records.push((epoch, record));
    }
    // A barrier opens its epoch. The sort is stable: equal numbers keep their order.
    records.sort_by_key(|(epoch, record)| (*epoch, !record.is_barrier(), record.seq));
    for (_, record) in records {
        if record.is_barrier() || window.epochs.is_empty() {
            slots.fill(None);
            window.epochs.push(Epoch::default());
        }
        let epoch = window.epochs.last_mut().expect("pushed above at the latest");
        if record.is_barrier() {
            epoch.barrier = Some(record);
            continue;
        }
        let slot = &mut slots[usize::from(record.shard)];
        let index = *slot.get_or_insert_with(|| {
            epoch.shards.push((record.shard, Vec::new()));
            epoch.shards.len() - 1
        });
        epoch.shards[index].1.push(record);
    }
    Ok(())
}

/// Reads and checks everything that the manifest names. The recovery keeps a clone of `reading`.
pub(crate) fn recover(
    storage: &Arc<dyn Storage>,
    manifest: &ManifestWire,
    cut_at_corruption: bool,
    reading: Arc<()>,
) -> Result<Recovery, PersistError> {
    let snapshot = open_snapshot(&**storage, manifest)?;
    let mut summary = RecoverySummary { clean: manifest.clean, ..RecoverySummary::default() };
    if let Some(snapshot) = &snapshot {
        summary.snapshot = Some(snapshot.name().to_owned());
        summary.snapshot_bytes = snapshot.length();
        summary.snapshot_entries = snapshot.entries();
    }
    let mut chain = Chain::new(&**storage, manifest)?;
    let torn = chain.walk(cut_at_corruption)?;
    summary.segments = chain.segments.len();
    summary.blocks = chain.blocks;
    summary.log_bytes = chain.segments.iter().map(|segment| segment.end as u64).sum();
    summary.last_block = chain.next_block - 1;
    summary.last_time_ms = chain.last_time_ms;
    summary.torn = torn;
    Ok(Recovery {
        hash_seed: manifest.hash_seed,
        shards: manifest.shards,
        snapshot,
        last_crc: chain.prev_crc,
        segments: chain.segments,
        summary,
        _reading: reading,
    })
}

fn open_snapshot(storage: &dyn Storage, manifest: &ManifestWire) -> Result<Option<SnapshotReader>, PersistError> {
    let Some(wire) = &manifest.current.snapshot else { return Ok(None) };
    let path = storage.path(&snapshot_name(wire.number));
    if !storage.exists(&snapshot_name(wire.number)).map_err(PersistError::io("look for", &path))? {
        return Err(missing(path));
    }
    let snapshot = SnapshotReader::open(storage, wire.number)?;
    let header = snapshot.header();
    let same = (snapshot.length(), snapshot.crc()) == (wire.length, wire.crc)
        && (header.hash_seed, header.shards) == (manifest.hash_seed, manifest.shards)
        && (header.cut_block, snapshot.entries()) == (wire.cut_block, wire.entries);
    if !same {
        let why = "it is not the snapshot that the manifest names: one of the two is stale";
        return Err(PersistError::Refused { file: path, why: why.to_owned() });
    }
    Ok(Some(snapshot))
}

fn missing(file: PathBuf) -> PersistError {
    PersistError::Refused { file, why: "the manifest needs it, but it is missing".to_owned() }
}

/// The walk along the log.
struct Chain<'s> {
    storage: &'s dyn Storage,
    manifest: &'s ManifestWire,
    on_disk: BTreeSet<u64>,
    segments: Vec<Segment>,
    next_block: u64,
    prev_crc: u32,
    last_time_ms: u64,
    blocks: u64,
    /// The highest durable mark seen.
    durable: u64,
}

/// Where the chain breaks.
struct Break {
    segment: usize,
    offset: usize,
    what: String,
}

impl<'s> Chain<'s> {
    fn new(storage: &'s dyn Storage, manifest: &'s ManifestWire) -> Result<Self, PersistError> {
        let names = storage.list().map_err(PersistError::io("list", storage.path("")))?;
        let cut = manifest.current.snapshot.as_ref().map_or(0, |snapshot| snapshot.cut_block);
        let first = manifest.current.segments.first();
        Ok(Self {
            storage,
            manifest,
            on_disk: names.iter().filter_map(|name| segment_number(name)).collect(),
            segments: Vec::new(),
            next_block: first.map_or(cut + 1, |segment| segment.first_block),
            prev_crc: first.map_or(0, |segment| segment.prev_crc),
            last_time_ms: 0,
            blocks: 0,
            durable: manifest.durable_block,
        })
    }

    fn walk(&mut self, cut_at_corruption: bool) -> Result<Option<Torn>, PersistError> {
        let listed = &self.manifest.current.segments;
        let missing_segment = listed.iter().find(|segment| !self.on_disk.contains(&segment.number));
        if let Some(segment) = missing_segment {
            return Err(missing(self.storage.path(&segment_name(segment.number))));
        }
        let mut next = listed.first().cloned();
        while let Some(wire) = next.take() {
            let index = self.segments.len();
            if index > 0 && (wire.first_block, wire.prev_crc) != (self.next_block, self.prev_crc) {
                let what = format!(
                    "the segment ends before block {}, but the next one begins with block {}",
                    self.next_block, wire.first_block
                );
                let (segment, offset) = (index - 1, self.segments[index - 1].end);
                return self.judge(Break { segment, offset, what }, cut_at_corruption).map(Some);
            }
            let segment = self.open(wire)?;
            self.segments.push(segment);
            let sealed = match self.scan(index) {
                Ok(sealed) => sealed,
                Err(broken) => return self.judge(broken, cut_at_corruption).map(Some),
            };
            next = match listed.get(index + 1) {
                Some(wire) => Some(wire.clone()),
                None => self.follow(index, sealed)?,
            };
        }
        if !listed.is_empty() && (self.next_block <= self.durable || self.goes_on_behind_its_end()?) {
            let segment = self.segments.len() - 1;
            let offset = self.segments[segment].end;
            let what = "the file ends too early".to_owned();
            return self.judge(Break { segment, offset, what }, cut_at_corruption).map(Some);
        }
        Ok(None)
    }

    /// Whether blocks follow the end of the last segment. Such blocks overtook one that never reached the disk.
    fn goes_on_behind_its_end(&self) -> Result<bool, PersistError> {
        let Some(last) = self.segments.last() else { return Ok(false) };
        let generation = last.wire.generation;
        let mut in_it = find_blocks(&last.bytes, last.end, generation, self.next_block);
        Ok(last.recycled && in_it.next().is_some() || !self.survivors_after(last.wire.number, generation)?.is_empty())
    }

    /// The segment that a sealed one names as its successor.
    fn follow(&self, index: usize, next: u64) -> Result<Option<SegmentWire>, PersistError> {
        if next == 0 {
            return Ok(None);
        }
        if !self.on_disk.contains(&next) {
            return Err(missing(self.storage.path(&segment_name(next))));
        }
        Ok(Some(SegmentWire {
            number: next,
            generation: self.segments[index].wire.generation,
            first_block: self.next_block,
            prev_crc: self.prev_crc,
        }))
    }

    fn open(&self, wire: SegmentWire) -> Result<Segment, PersistError> {
        let (path, bytes) = self.read(wire.number)?;
        let header = read_segment_header(&bytes).map_err(|fault| match fault {
            HeaderFault::Corrupt(what) => PersistError::corrupt(&path, 0, what),
            HeaderFault::Version(found) => PersistError::Version { file: path.clone(), found, supported: VERSION },
        })?;
        if header.hash_seed != self.manifest.hash_seed
            || header.number != wire.number
            || header.generation != wire.generation
        {
            let why = "it is not the segment that the manifest means: one of the two is stale";
            return Err(PersistError::Refused { file: path, why: why.to_owned() });
        }
        Ok(Segment { wire, path, bytes, end: SEGMENT_HEADER, recycled: header.recycled, version: header.version })
    }

    fn read(&self, number: u64) -> Result<(PathBuf, FileBytes), PersistError> {
        let name = segment_name(number);
        let path = self.storage.path(&name);
        let bytes = self.storage.read(&name).map_err(PersistError::io("read", &path))?;
        Ok((path, bytes))
    }

    /// Walks a segment's blocks; returns the segment that its seal names, or 0.
    fn scan(&mut self, index: usize) -> Result<u64, Break> {
        let bytes = self.segments[index].bytes.clone();
        let Segment { wire: SegmentWire { generation, .. }, recycled, .. } = self.segments[index];
        let mut at = SEGMENT_HEADER;
        let mut sealed = 0;
        // Zeros were written ahead of need.
        let ends = |at: usize| if recycled { is_end_mark(&bytes, at) } else { bytes[at..].iter().all(|&b| b == 0) };
        while at < bytes.len() && !(recycled && sealed != 0) && !ends(at) {
            let block = self.check(&bytes, at, generation, sealed);
            let block = block.map_err(|what| Break { segment: index, offset: at, what })?;
            sealed = block.header.next_segment;
            self.durable = self.durable.max(block.header.durable);
            self.next_block += 1;
            self.prev_crc = block.crc;
            self.last_time_ms = block.header.time_ms;
            self.blocks += 1;
            at += block.len;
            self.segments[index].end = at;
        }
        Ok(sealed)
    }

    fn check<'b>(&self, bytes: &'b [u8], at: usize, generation: u64, sealed: u64) -> Result<Block<'b>, String> {
        let block = read_block(bytes, at, true)?;
        let header = &block.header;
        if sealed != 0 {
            return Err("bytes follow the last block of the segment".to_owned());
        }
        if header.generation != generation {
            return Err("the block is of another run than its segment".to_owned());
        }
        if header.number != self.next_block {
            return Err(format!("block {} stands where {} belongs", header.number, self.next_block));
        }
        if header.prev_crc != self.prev_crc {
            return Err("the block does not continue the one before".to_owned());
        }
        if header.durable >= header.number {
            return Err("the block claims to have been synced before it was written".to_owned());
        }
        Ok(block)
    }

    /// Decides between a torn tail and corruption by the rules in this file's header.
    fn judge(&mut self, broken: Break, cut_at_corruption: bool) -> Result<Torn, PersistError> {
        let segment = &self.segments[broken.segment];
        let (bytes, generation) = (&segment.bytes, segment.wire.generation);
        let mut durable = self.durable;
        let mut follower: Option<String> = None;
        let mut next_valid = bytes.len();
        for (at, block) in find_blocks(bytes, broken.offset, generation, self.next_block) {
            durable = durable.max(block.header.durable);
            next_valid = next_valid.min(at);
            let found = || format!("block {} follows intact at offset {at}", block.header.number);
            follower.get_or_insert_with(found);
        }
        // These prove nothing but what was synced: a segment takes blocks before the one in front of it is durable.
        let survivors = self.survivors_after(segment.wire.number, generation)?;
        durable = survivors.iter().map(|later| later.durable).fold(durable, u64::max);
        let n = self.next_block;
        let verdict = if n <= durable {
            Some(format!("{}; blocks up to {durable} were synced", broken.what))
        } else {
            follower
                .filter(|_| !segment.recycled && !has_unwritten_sector(bytes, broken.offset, next_valid))
                .map(|follower| format!("{}; {follower}", broken.what))
        };
        if let Some(verdict) = &verdict
            && !cut_at_corruption
        {
            let what = format!("block {n}: {verdict}");
            return Err(PersistError::corrupt(&segment.path, broken.offset as u64, what));
        }
        Ok(Torn {
            file: segment.path.clone(),
            segment: segment.wire.number,
            offset: broken.offset as u64,
            bytes: (bytes.len() - broken.offset) as u64,
            block: n,
            forced: verdict.is_some(),
            what: verdict.unwrap_or(broken.what),
            followers: survivors.iter().filter(|later| !later.listed).map(|later| later.segment).collect(),
        })
    }

    /// The blocks that the segments after a given one still hold.
    fn survivors_after(&self, after: u64, generation: u64) -> Result<Vec<Survivor>, PersistError> {
        let mut survivors = Vec::new();
        for &number in self.on_disk.range(after + 1..) {
            let listed = self.manifest.current.segments.iter().find(|wire| wire.number == number);
            let (_, bytes) = self.read(number)?;
            // A segment that never counted proves nothing: it is detached, or its run wrote no block.
            let counts = read_segment_header(&bytes).is_ok_and(|header| {
                listed.is_some() || (header.kind == SEGMENT_ATTACHED && header.generation == generation)
            });
            if !counts {
                continue;
            }
            let generation = listed.map_or(generation, |wire| wire.generation);
            let blocks = find_blocks(&bytes, SEGMENT_HEADER, generation, self.next_block);
            let durable = blocks.map(|(_, block)| block.header.durable).max();
            survivors.extend(durable.map(|durable| Survivor { segment: number, listed: listed.is_some(), durable }));
        }
        Ok(survivors)
    }
}

/// A segment beyond the damage that still holds valid blocks.
struct Survivor {
    segment: u64,
    /// Whether the manifest names it.
    listed: bool,
    /// The highest block that one of its blocks says is synced.
    durable: u64,
}

/// Whether a disk sector within the damage was never written. It then reads as zeros, from the start of the damage or
/// of the sector to the end of the sector.
fn has_unwritten_sector(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut start = from;
    while start < to {
        let end = (start / SECTOR + 1) * SECTOR;
        if end > to {
            return false;
        }
        if bytes[start..end].iter().all(|&byte| byte == 0) {
            return true;
        }
        start = end;
    }
    false
}
