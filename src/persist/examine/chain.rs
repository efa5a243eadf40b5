//! The log over all generations, as a chain of blocks: what is there, in which runs, and how far each reaches.
//!
//! ```text
//! generation 1   snapshot ─ segment 1 ═ segment 2 ╗
//! generation 2                           snapshot ╚ segment 3 ═ segment 4 (torn)       run 1: segments 1 to 4
//! generation 3                                                    snapshot ─ segment 5  run 2: the log was healed
//! ```
//!
//! A run is a part of the log without a gap. A new one begins where the log was switched on, or healed by a snapshot.
//! The verdicts about damage are those of `recover`, whose header explains them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::blocks::{Place, ends_at, find_places, read_place};
use super::window::Window;
use crate::persist::block::is_hole;
use crate::persist::block::{HeaderFault, SegmentHeader, read_segment_header};
use crate::persist::error::PersistError;
use crate::persist::format::{SEGMENT_ATTACHED, SEGMENT_HEADER, VERSION_ENCRYPTED, segment_name, segment_number};
use crate::persist::storage::Storage;
use crate::persist::wire::{ManifestWire, SegmentWire};

/// How often a block that a server may just be writing is read, and how long each time after the one before.
const LOOKS: usize = 3;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
const FIRST: u64 = SEGMENT_HEADER as u64;

/// A segment that was walked.
#[derive(Clone, Debug)]
pub struct SeenSegment {
    /// As the manifest lists it, or as the one before leads to it.
    pub wire: SegmentWire,
    /// Whether it overwrites an older one.
    pub recycled: bool,
    /// The format version of its records.
    pub version: u32,
    /// The data key under which its blocks are encrypted; 0 if they are not.
    pub key: u32,
    /// Its length in the file system.
    pub length: u64,
    /// Where its valid blocks end.
    pub end: u64,
    /// How many there are.
    pub blocks: u64,
    /// When the first and the last were written, Unix ms.
    pub times_ms: Option<(u64, u64)>,
    /// The segment that its last block leads on to, or 0.
    pub sealed: u64,
}

/// Where a run breaks off.
#[derive(Debug)]
pub struct Break {
    /// The segment's number.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// The block that should be there.
    pub block: u64,
    /// What is wrong.
    pub error: PersistError,
    /// Whether it is damage. If not, it is the tail of a log whose last blocks were never known to be durable.
    pub is_damage: bool,
}

/// A part of the log without a gap.
#[derive(Debug)]
pub struct Run {
    /// Its first block.
    pub first_block: u64,
    /// Its last block, or the one before the first.
    pub last_block: u64,
    /// The checksum of the last block.
    pub last_crc: u32,
    /// When the last block was written, Unix ms; 0 without one.
    pub last_time_ms: u64,
    /// The highest block that one of its blocks says is durable.
    pub durable: u64,
    /// The segments, oldest first.
    pub segments: Vec<SeenSegment>,
    /// Where it breaks off. Without it, it ends where it should.
    pub broken: Option<Break>,
}

/// What decides about each block: whether the walk goes on behind it.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&SeenSegment, &Place) -> bool;

/// The segments that a manifest names, over all generations, oldest first.
pub(crate) fn listed(manifest: &ManifestWire) -> Vec<SegmentWire> {
    let generations = manifest.kept.iter().chain([&manifest.current]);
    let mut segments: Vec<SegmentWire> = generations.flat_map(|generation| &generation.segments).cloned().collect();
    segments.sort_by_key(|segment| segment.number);
    segments.dedup_by_key(|segment| segment.number);
    segments
}

/// Walks the log. `is_live` says that a server may be writing it.
///
/// # Errors
/// The directory cannot be listed. All else is in the runs.
pub(crate) fn walk(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    is_live: bool,
    visit: Visit<'_>,
) -> Result<Vec<Run>, PersistError> {
    walk_with(storage, manifest, is_live, false, visit)
}

/// Walks the log of a store in use, and reads past the system's cache.
///
/// # Errors
/// As [`walk`].
pub(crate) fn walk_past_cache(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    visit: Visit<'_>,
) -> Result<Vec<Run>, PersistError> {
    walk_with(storage, manifest, true, true, visit)
}

fn walk_with(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    is_live: bool,
    past_cache: bool,
    visit: Visit<'_>,
) -> Result<Vec<Run>, PersistError> {
    let names = storage.list().map_err(PersistError::io("list", storage.path("")))?;
    let on_disk = names.iter().filter_map(|name| segment_number(name)).collect();
    let (listed, runs) = (listed(manifest), Vec::new());
    let mut walker = Walker { storage, manifest, is_live, past_cache, on_disk, listed, runs, visit };
    walker.walk();
    Ok(walker.runs)
}

struct Walker<'w> {
    storage: &'w dyn Storage,
    manifest: &'w ManifestWire,
    is_live: bool,
    past_cache: bool,
    on_disk: BTreeSet<u64>,
    listed: Vec<SegmentWire>,
    runs: Vec<Run>,
    visit: Visit<'w>,
}

/// How the walk through a segment ended.
enum Stop {
    /// Where its blocks end, or where the visitor said so.
    End,
    Told,
    Broken(PersistError),
}

impl Walker<'_> {
    fn walk(&mut self) {
        let mut next = self.listed.first().cloned();
        while let Some(wire) = next.take() {
            self.place_in_run(&wire);
            let after = self.listed.iter().find(|listed| listed.number > wire.number).cloned();
            let is_last = after.is_none();
            match self.scan_segment(&wire, is_last) {
                Stop::Told => return,
                Stop::Broken(error) => self.break_off(&wire, error, after.as_ref()),
                Stop::End => {}
            }
            next = after.or_else(|| self.follow());
        }
        self.look_behind_the_end();
    }

    /// The path of a segment.
    fn path(&self, number: u64) -> PathBuf {
        self.storage.path(&segment_name(number))
    }

    /// Begins a new run, unless the segment continues the last one.
    fn place_in_run(&mut self, wire: &SegmentWire) {
        if let Some(run) = self.runs.last_mut() {
            let continues = (wire.first_block, wire.prev_crc) == (run.last_block + 1, run.last_crc);
            if continues && run.broken.is_none() {
                return;
            }
            // One that claims a block before it, which is not there.
            if let (None, true, Some(last)) = (&run.broken, wire.prev_crc != 0, run.segments.last()) {
                let what = format!(
                    "the segment ends before block {}, but the next one begins with block {}",
                    run.last_block + 1,
                    wire.first_block
                );
                let (segment, offset, block) = (last.wire.number, last.end, run.last_block + 1);
                let path = self.storage.path(&segment_name(segment));
                let error = PersistError::corrupt(path, offset, what);
                run.broken = Some(Break { segment, offset, block, error, is_damage: true });
            }
        }
        self.runs.push(Run {
            first_block: wire.first_block,
            last_block: wire.first_block - 1,
            last_crc: wire.prev_crc,
            last_time_ms: 0,
            durable: 0,
            segments: Vec::new(),
            broken: None,
        });
    }

    fn run(&mut self) -> &mut Run {
        self.runs.last_mut().expect("a segment is placed in a run first")
    }

    fn scan_segment(&mut self, wire: &SegmentWire, is_last: bool) -> Stop {
        let (mut window, seen) = match self.open(wire) {
            Ok(opened) => opened,
            Err(error) => return Stop::Broken(error),
        };
        self.run().segments.push(seen);
        loop {
            match self.scan_blocks(&mut window) {
                Ok(Stop::Broken(error)) => {
                    // Whoever is just writing it needs no verdict, and has finished by the next look.
                    let offset = self.run().segments.last().expect("pushed above").end;
                    if self.is_live && is_last && self.is_there_now(&mut window, offset) {
                        continue;
                    }
                    return Stop::Broken(error);
                }
                Ok(stop) => return stop,
                Err(error) => return Stop::Broken(PersistError::io("read", self.path(wire.number))(error)),
            }
        }
    }

    fn open(&self, wire: &SegmentWire) -> Result<(Window, SeenSegment), PersistError> {
        let path = self.path(wire.number);
        if !self.on_disk.contains(&wire.number) {
            let why = "the manifest needs it, but it is missing".to_owned();
            return Err(PersistError::Refused { file: path, why });
        }
        let reader = self.storage.reader(&segment_name(wire.number)).map_err(PersistError::io("open", &path))?;
        let mut window = Window::new(reader);
        if self.past_cache {
            window = window.past_cache();
        }
        let header = read_header(&mut window, &path)?;
        if (header.number, header.generation) != (wire.number, wire.generation)
            || header.hash_seed != self.manifest.hash_seed
        {
            let why = "it is not the segment that the manifest means: one of the two is stale".to_owned();
            return Err(PersistError::Refused { file: path, why });
        }
        let length = window.file_len().map_err(PersistError::io("read", &path))?;
        let seen = SeenSegment {
            wire: wire.clone(),
            recycled: header.recycled,
            version: header.version,
            key: header.key,
            length,
            end: FIRST,
            blocks: 0,
            times_ms: None,
            sealed: 0,
        };
        Ok((window, seen))
    }

    /// Walks the blocks from where the last segment has been walked to.
    fn scan_blocks(&mut self, window: &mut Window) -> std::io::Result<Stop> {
        let run = self.runs.last_mut().expect("a segment is placed in a run first");
        let segment = run.segments.last_mut().expect("the caller pushes it");
        let path = self.storage.path(&segment_name(segment.wire.number));
        loop {
            let at = segment.end;
            if segment.sealed != 0 && segment.recycled || ends_at(window, at, segment.recycled)? {
                return Ok(Stop::End);
            }
            let corrupt = |what: &str| {
                Ok(Stop::Broken(PersistError::corrupt(&path, at, format!("block {}: {what}", run.last_block + 1))))
            };
            let place = match read_place(window, at)? {
                Ok(place) => place,
                Err(what) => return corrupt(what),
            };
            let header = &place.header;
            if segment.sealed != 0 {
                return corrupt("bytes follow the last block of the segment");
            } else if header.generation != segment.wire.generation {
                return corrupt("the block is of another run than its segment");
            } else if header.number != run.last_block + 1 {
                return corrupt("another block stands where it belongs");
            } else if header.prev_crc != run.last_crc {
                return corrupt("the block does not continue the one before");
            } else if header.durable >= header.number {
                return corrupt("the block claims to have been synced before it was written");
            }
            if !(self.visit)(segment, &place) {
                return Ok(Stop::Told);
            }
            (run.last_block, run.last_crc, run.last_time_ms) = (header.number, place.crc, header.time_ms);
            run.durable = run.durable.max(header.durable);
            let first = segment.times_ms.map_or(header.time_ms, |(first, _)| first);
            segment.times_ms = Some((first, header.time_ms));
            segment.sealed = header.next_segment;
            segment.blocks += 1;
            segment.end = place.end();
        }
    }

    /// Whether a valid block has come where none was.
    fn is_there_now(&self, window: &mut Window, offset: u64) -> bool {
        (0..LOOKS).any(|_| {
            std::thread::sleep(LOOK_AGAIN_AFTER);
            window.forget();
            matches!(read_place(window, offset), Ok(Ok(_)))
        })
    }

    /// Notes where the run ends, and decides whether that is damage.
    fn break_off(&mut self, wire: &SegmentWire, error: PersistError, after: Option<&SegmentWire>) {
        let run = self.run();
        let block = run.last_block + 1;
        let scanned = run.segments.last().filter(|segment| segment.wire.number == wire.number);
        let offset = scanned.map_or(0, |segment| segment.end);
        // A segment that counts on one before it, which was thus complete once.
        let is_inside = after.is_some_and(|after| after.prev_crc != 0);
        let is_torn_block = matches!(error, PersistError::Corrupt { .. }) && scanned.is_some();
        let recycled = scanned.is_some_and(|segment| segment.recycled);
        let mut durable = run.durable;
        if after.is_none() {
            durable = durable.max(self.manifest.durable_block);
        }
        let verdict = match is_torn_block && !is_inside {
            true => self.judge(wire, recycled, offset, block, durable, after.is_none()),
            false => Ok(true),
        };
        let (is_damage, error) = match verdict {
            Ok(is_damage) => (is_damage, error),
            Err(error) => (true, error),
        };
        self.run().broken = Some(Break { segment: wire.number, offset, block, error, is_damage });
    }

    /// Whether a break is damage: see `recover`.
    fn judge(
        &self,
        wire: &SegmentWire,
        recycled: bool,
        offset: u64,
        block: u64,
        mut durable: u64,
        is_last: bool,
    ) -> Result<bool, PersistError> {
        let path = self.path(wire.number);
        let io = |error| PersistError::io("read", &path)(error);
        let reader = self.storage.reader(&segment_name(wire.number)).map_err(io)?;
        let mut window = Window::new(reader);
        let mut next_valid = None;
        find_places(&mut window, offset, wire.generation, block, |place| {
            durable = durable.max(place.header.durable);
            next_valid.get_or_insert(place.at);
            true
        })
        .map_err(io)?;
        if is_last {
            durable = durable.max(self.survivors(wire, block)?.unwrap_or(0));
        }
        if block <= durable {
            return Ok(true);
        }
        let Some(to) = next_valid.filter(|_| !recycled) else { return Ok(false) };
        // From the beginning of a sector, because it says where the damage may end.
        let mut damaged = Vec::new();
        let start = offset & !511;
        window.each(start, to, |_, piece| damaged.extend_from_slice(piece)).map_err(io)?;
        Ok(!is_hole(&damaged, (offset - start) as usize, damaged.len()))
    }

    /// The highest durable mark in the blocks of later segments that follow this one unnamed, if there are any.
    fn survivors(&self, wire: &SegmentWire, block: u64) -> Result<Option<u64>, PersistError> {
        let mut durable = None;
        for &number in self.on_disk.range(wire.number + 1..) {
            let path = self.path(number);
            let io = |error| PersistError::io("read", &path)(error);
            let mut window = Window::new(self.storage.reader(&segment_name(number)).map_err(io)?);
            let Ok(header) = read_header(&mut window, &path) else { continue };
            if header.kind != SEGMENT_ATTACHED || header.generation != wire.generation {
                continue;
            }
            find_places(&mut window, FIRST, wire.generation, block, |place| {
                durable = durable.max(Some(place.header.durable));
                true
            })
            .map_err(io)?;
        }
        Ok(durable)
    }

    /// The segment that the last one leads on to, if the manifest names none behind it.
    fn follow(&mut self) -> Option<SegmentWire> {
        let run = self.runs.last().filter(|run| run.broken.is_none())?;
        let last = run.segments.last().filter(|segment| segment.sealed != 0)?;
        // One that a running server has begun since the directory was listed. Whoever followed it might never end.
        if self.is_live && self.on_disk.last().is_none_or(|newest| last.sealed > *newest) {
            return None;
        }
        Some(SegmentWire {
            number: last.sealed,
            generation: last.wire.generation,
            first_block: run.last_block + 1,
            prev_crc: run.last_crc,
        })
    }

    /// Whether the log ends too early: below a durable mark, or with blocks behind its end.
    fn look_behind_the_end(&mut self) {
        let durable = self.manifest.durable_block;
        let Some(run) = self.runs.last().filter(|run| run.broken.is_none()) else { return };
        let Some(last) = run.segments.last().cloned() else { return };
        let block = run.last_block + 1;
        let durable = durable.max(run.durable);
        let mut goes_on = false;
        // A server that runs goes on behind what was read.
        if !self.is_live {
            let window = self.storage.reader(&segment_name(last.wire.number)).map(Window::new);
            if let Ok(mut window) = window
                && last.recycled
            {
                let _ = find_places(&mut window, last.end, last.wire.generation, block, |_| {
                    goes_on = true;
                    false
                });
            }
            goes_on |= self.survivors(&last.wire, block).is_ok_and(|durable| durable.is_some());
        }
        if block > durable && !goes_on {
            return;
        }
        let is_damage = self.judge(&last.wire, last.recycled, last.end, block, durable, true);
        let what = format!("block {block}: the file ends too early");
        let error = PersistError::corrupt(self.path(last.wire.number), last.end, what);
        let (segment, offset) = (last.wire.number, last.end);
        let (is_damage, error) = match is_damage {
            Ok(is_damage) => (is_damage, error),
            Err(error) => (true, error),
        };
        self.run().broken = Some(Break { segment, offset, block, error, is_damage });
    }
}

/// Reads and checks a segment's header.
pub(crate) fn read_header(window: &mut Window, path: &std::path::Path) -> Result<SegmentHeader, PersistError> {
    let head = window.get(0, SEGMENT_HEADER).map_err(PersistError::io("read", path))?;
    read_segment_header(head).map_err(|fault| match fault {
        HeaderFault::Corrupt(what) => PersistError::corrupt(path, 0, what),
        HeaderFault::Version(found) => {
            PersistError::Version { file: path.to_path_buf(), found, supported: VERSION_ENCRYPTED }
        }
    })
}
