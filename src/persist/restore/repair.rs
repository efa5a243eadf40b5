//! Repair: of a damaged directory, what can be proven goes into a new one.
//!
//! Every candidate is a sound snapshot and the log behind it up to its first break. The one that reaches the furthest
//! is taken. Where the manifest cannot be read, is too old or names what is not there, the headers of the files say
//! what belongs together.

use std::path::PathBuf;
use std::sync::Arc;

use super::copy::{Means, Part, Parts, Prepared, prepare};
use super::refuse_used;
use crate::persist::block::BlockHeader;
use crate::persist::error::PersistError;
use crate::persist::examine::blocks::{find_places, read_place};
use crate::persist::examine::chain::{self, Run, read_header};
use crate::persist::examine::directory::{Fault, Report, Tail, check};
use crate::persist::examine::snapshot::{self, SeenSnapshot};
use crate::persist::examine::window::Window;
use crate::persist::format::{SEGMENT_HEADER, segment_name, segment_number, snapshot_number};
use crate::persist::manifest;
use crate::persist::storage::Storage;
use crate::persist::wire::{GenerationWire, ManifestWire, SegmentWire, SnapshotWire};

/// What a repair takes, and what it cannot.
pub struct Repair {
    /// The number of the snapshot that it begins with, if any.
    pub snapshot: Option<u64>,
    /// The last block that is taken.
    pub block: u64,
    /// When it was written, Unix ms; 0 if that is not known.
    pub time_ms: u64,
    /// The highest block that was found anywhere: those above the last one taken are lost.
    pub highest_block: u64,
    /// When that was written, Unix ms.
    pub highest_time_ms: u64,
    /// What is wrong with the directory.
    pub faults: Vec<Fault>,
    /// An unfinished block at the end of the log, which is not taken.
    pub tail: Option<Tail>,
    /// Why the manifest was not relied on, if it was not.
    pub without_manifest: Option<String>,
    /// Snapshots that are damaged.
    pub bad_snapshots: Vec<PathBuf>,
    parts: Parts,
}

impl Repair {
    /// How many blocks are lost at the end.
    pub fn lost_blocks(&self) -> u64 {
        self.highest_block.saturating_sub(self.block)
    }

    /// Copies what is taken into an empty directory.
    ///
    /// # Errors
    /// A file cannot be read or written, or the directory is not empty.
    pub fn begin(&self, from: &dyn Storage, to: Arc<dyn Storage>) -> Result<Prepared, PersistError> {
        refuse_used(&*to)?;
        prepare(from, to, self.parts.clone(), Means::Copy)
    }
}

/// Finds out what can be proven. A store of which only the log is left is laid out in this many shards.
///
/// # Errors
/// Nothing can: no snapshot is sound, and no log begins from nothing.
pub fn plan(storage: &dyn Storage, shards: u32) -> Result<Repair, PersistError> {
    if storage.is_locked() {
        return Err(PersistError::Locked { dir: storage.path("") });
    }
    let Report { faults, tail, .. } = check(storage);
    let (manifest, without_manifest) = match manifest::read(storage) {
        // A later run has logged into files that this manifest does not know.
        Ok(Some(manifest)) if !is_overtaken(storage, &faults) => (manifest, None),
        Ok(Some(_)) => (from_files(storage, shards)?, Some("it is older than the files".to_owned())),
        Ok(None) => return Err(nothing(storage, "there is no store here")),
        Err(error) => (from_files(storage, shards)?, Some(error.to_string())),
    };
    let runs = chain::walk(storage, &manifest, false, &mut |_, _| true)?;
    let mut best: Option<(u64, Parts, u64)> = None;
    let mut bad_snapshots = Vec::new();
    for generation in manifest.kept.iter().chain([&manifest.current]) {
        let seen = match sound_snapshot(storage, &manifest, generation) {
            Ok(seen) => seen,
            Err(path) => {
                bad_snapshots.push(path);
                continue;
            }
        };
        let Some((parts, time_ms)) = candidate(&manifest, generation, seen.as_ref(), &runs) else { continue };
        if best.as_ref().is_none_or(|(block, ..)| parts.last_block >= *block) {
            best = Some((parts.last_block, parts, time_ms));
        }
    }
    let (block, parts, time_ms) = best.ok_or_else(|| {
        nothing(storage, "no snapshot in it is sound, and no log in it begins from nothing: nothing can be proven")
    })?;
    let highest = highest_block(storage, &manifest.hash_seed);
    let (highest_block, highest_time_ms) = highest.map_or((block, time_ms), |found| (found.number, found.time_ms));
    Ok(Repair {
        snapshot: parts.snapshot.as_ref().map(|snapshot| snapshot.number),
        block,
        time_ms,
        highest_block: highest_block.max(block).max(manifest.durable_block),
        highest_time_ms: highest_time_ms.max(time_ms),
        faults,
        tail,
        without_manifest,
        bad_snapshots,
        parts,
    })
}

fn nothing(storage: &dyn Storage, why: &str) -> PersistError {
    PersistError::Refused { file: storage.path(""), why: why.to_owned() }
}

fn is_overtaken(storage: &dyn Storage, faults: &[Fault]) -> bool {
    let manifest = storage.path(crate::persist::format::MANIFEST);
    faults.iter().any(|fault| fault.file == manifest)
}

/// The snapshot of a generation, every byte of it checked; none if it has none.
fn sound_snapshot(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    generation: &GenerationWire,
) -> Result<Option<SeenSnapshot>, PathBuf> {
    let Some(wire) = &generation.snapshot else { return Ok(None) };
    let path = storage.path(&crate::persist::format::snapshot_name(wire.number));
    let checked = snapshot::window(storage, wire.number).and_then(|mut window| {
        let seen = snapshot::read_frame(storage, wire.number, &mut window)?;
        let wrong = snapshot::verify(storage, wire.number, &seen, &mut window, |_| true)?;
        Ok((seen, wrong.is_empty()))
    });
    match checked {
        Ok((seen, true)) if seen.is(wire, &manifest.hash_seed) => Ok(Some(seen)),
        _ => Err(path),
    }
}

/// What a generation gives: its snapshot and the log behind it up to its first break. Also the time of its end.
fn candidate(
    manifest: &ManifestWire,
    generation: &GenerationWire,
    seen: Option<&SeenSnapshot>,
    runs: &[Run],
) -> Option<(Parts, u64)> {
    let cut = generation.snapshot.as_ref().map_or(0, |snapshot| snapshot.cut_block);
    // The first segment that goes on from the cut.
    let begins = |run: &&Run| run.segments.iter().any(|segment| segment.wire.first_block == cut + 1);
    let run = runs.iter().find(begins);
    if seen.is_none() && run.is_none() {
        return None;
    }
    let of_run = run.map_or(&[][..], |run| &run.segments[..]);
    let taken = of_run.iter().filter(|segment| segment.wire.first_block > cut && segment.blocks > 0);
    let segments: Vec<Part> =
        taken.map(|segment| Part { wire: segment.wire.clone(), end: Some(segment.end) }).collect();
    let last = run.and_then(|run| run.segments.iter().rfind(|segment| segment.blocks > 0));
    let has_log = !segments.is_empty();
    let time = seen.map_or(0, |seen| seen.header.time_ms);
    let parts = Parts {
        hash_seed: manifest.hash_seed,
        shards: manifest.shards,
        sequence: manifest.sequence + 1,
        next_segment: manifest.next_segment,
        snapshot: generation.snapshot.clone(),
        segments,
        last_block: run.filter(|_| has_log).map_or(cut, |run| run.last_block),
        sealed: last.filter(|_| has_log).map_or(0, |last| last.sealed),
    };
    Some((parts, run.filter(|_| has_log).map_or(time, |run| run.last_time_ms.max(time))))
}

/// A manifest made from the headers of the files: every snapshot is a generation, and every segment is listed.
fn from_files(storage: &dyn Storage, shards: u32) -> Result<ManifestWire, PersistError> {
    let names = storage.list().map_err(PersistError::io("list", storage.path("")))?;
    let mut snapshots = Vec::new();
    for number in names.iter().filter_map(|name| snapshot_number(name)) {
        let opened =
            snapshot::window(storage, number).and_then(|mut window| snapshot::read_frame(storage, number, &mut window));
        snapshots.extend(opened.ok().map(|seen| (number, seen)));
    }
    let mut segments = Vec::new();
    for number in names.iter().filter_map(|name| segment_number(name)) {
        segments.extend(described(storage, number));
    }
    // The newest file says which store this is.
    let seed = snapshots.last().map(|(_, seen)| seen.header.hash_seed);
    let seed = seed.or_else(|| segments.last().map(|(_, seed)| *seed));
    let hash_seed = seed.ok_or_else(|| nothing(storage, "no file in it can be read"))?;
    let shards = snapshots.last().map_or(shards, |(_, seen)| seen.header.shards);
    snapshots.retain(|(_, seen)| seen.header.hash_seed == hash_seed);
    let mut segments: Vec<SegmentWire> =
        segments.into_iter().filter(|(_, seed)| *seed == hash_seed).map(|(segment, _)| segment).collect();
    segments.sort_by_key(|segment| segment.number);
    let snapshot_of = |number: u64, seen: &SeenSnapshot| SnapshotWire {
        number,
        length: seen.length,
        crc: seen.crc,
        cut_block: seen.header.cut_block,
        entries: seen.entries,
    };
    let from_nothing = GenerationWire { snapshot: None, segments: segments.clone() };
    let kept = snapshots
        .iter()
        .map(|(number, seen)| GenerationWire { snapshot: Some(snapshot_of(*number, seen)), segments: Vec::new() });
    let next_segment = segments.last().map_or(1, |segment| segment.number + 1);
    Ok(ManifestWire {
        sequence: 1,
        hash_seed,
        shards,
        durable_block: 0,
        next_segment,
        clean: false,
        kept: kept.collect(),
        current: from_nothing,
    })
}

/// A segment by its header and its first block, and the hash seed of its store. One without a block says nothing.
fn described(storage: &dyn Storage, number: u64) -> Option<(SegmentWire, [u8; 16])> {
    let name = segment_name(number);
    let mut window = Window::new(storage.reader(&name).ok()?);
    let header = read_header(&mut window, &storage.path(&name)).ok()?;
    let first = read_place(&mut window, SEGMENT_HEADER as u64).ok()?.ok()?;
    let BlockHeader { number: first_block, prev_crc, generation, .. } = first.header;
    let is_own = header.number == number && header.generation == generation && first_block > 0;
    is_own.then_some((SegmentWire { number, generation, first_block, prev_crc }, header.hash_seed))
}

/// The highest valid block in any segment of a store.
fn highest_block(storage: &dyn Storage, hash_seed: &[u8; 16]) -> Option<BlockHeader> {
    let names = storage.list().ok()?;
    let mut highest: Option<BlockHeader> = None;
    for name in names.iter().filter(|name| segment_number(name).is_some()) {
        let Ok(mut window) = storage.reader(name).map(Window::new) else { continue };
        let generation = match read_header(&mut window, &storage.path(name)) {
            Ok(header) if header.hash_seed == *hash_seed => header.generation,
            Ok(_) => continue,
            // Its first block says the same.
            Err(_) => match read_place(&mut window, SEGMENT_HEADER as u64) {
                Ok(Ok(first)) => first.header.generation,
                _ => continue,
            },
        };
        let _ = find_places(&mut window, SEGMENT_HEADER as u64, generation, 0, |place| {
            if highest.is_none_or(|highest| highest.number < place.header.number) {
                highest = Some(place.header);
            }
            true
        });
    }
    highest
}
