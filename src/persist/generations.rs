//! Which generations stay: a snapshot and the log after it, once a newer snapshot has replaced them.
//!
//! ```text
//! snapshot 1 ─ log ─┬─ snapshot 2 ─ log ─┬─ snapshot 3 ─ log …      kept: 1 and 2; current: 3
//!                   └────────────────────┴───────────── the log goes on through all of them
//! ```
//!
//! The manifest lists what is kept, oldest first. What it does not list is removed by the commit that replaces it, or
//! by the next start. A generation that is kept lists every segment that it was made of, and the log goes on in those
//! of the next one.

use std::collections::BTreeSet;

use super::examine::snapshot;
use super::format::{NUMBER_END, segment_name};
use super::storage::Storage;
use super::wire::{GenerationWire, ManifestWire, SegmentWire};

/// The most generations that are kept, so that the manifest stays small.
pub const KEPT_MAX: usize = 1000;

/// How long replaced generations stay. Whatever exceeds one of these limits goes, the oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// How many.
    pub count: usize,
    /// For how long after they were replaced, in ms; 0 for as long as the other limits allow.
    pub age_ms: u64,
    /// How many bytes their files may take together; 0 for any number.
    pub bytes: u64,
}

/// The generations that are kept once the current one is replaced. `rotated` are the segments that were begun since
/// the manifest was written and belong to the current one. From the generation of the snapshot `pinned` on, all are
/// kept.
pub(crate) fn after_commit(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    rotated: &[SegmentWire],
    retention: Retention,
    pinned: Option<u64>,
    now_ms: u64,
) -> Vec<GenerationWire> {
    let mut kept = manifest.kept.clone();
    let mut replaced = manifest.current.clone();
    let last = replaced.segments.last().map_or(0, |segment| segment.number);
    replaced.segments.extend(rotated.iter().filter(|segment| segment.number > last).cloned());
    if replaced != GenerationWire::default() {
        kept.push(replaced);
    }
    let is_pinned = |generation: &GenerationWire| {
        let number = generation.snapshot.as_ref().map_or(0, |snapshot| snapshot.number);
        pinned.is_some_and(|pinned| number >= pinned)
    };
    // The last one is replaced now.
    let times = replacement_times(storage, &kept, now_ms);
    let mut bytes: u64 = kept.iter().map(|generation| bytes_of(storage, generation)).sum();
    let mut gone = 0;
    for (index, generation) in kept.iter().enumerate() {
        let too_many = kept.len() - index > retention.count.min(KEPT_MAX);
        let too_old = retention.age_ms > 0 && times[index].saturating_add(retention.age_ms) < now_ms;
        let too_large = retention.bytes > 0 && bytes > retention.bytes;
        if is_pinned(generation) || !(too_many || too_old || too_large) {
            break;
        }
        bytes -= bytes_of(storage, generation).min(bytes);
        gone = index + 1;
    }
    kept.drain(..gone);
    kept
}

/// When each of the kept generations was replaced: at the cut of the next snapshot. One whose snapshot cannot be read
/// counts as just replaced, because its age is unknown.
fn replacement_times(storage: &dyn Storage, kept: &[GenerationWire], now_ms: u64) -> Vec<u64> {
    let cut_of = |generation: &GenerationWire| {
        let number = generation.snapshot.as_ref()?.number;
        let mut window = snapshot::window(storage, number).ok()?;
        snapshot::read_frame(storage, number, &mut window).ok().map(|seen| seen.header.time_ms)
    };
    let nexts = kept.iter().skip(1).map(|next| cut_of(next).unwrap_or(now_ms));
    nexts.chain([now_ms]).collect()
}

/// How much room a generation's own files take, in bytes.
pub(crate) fn bytes_of(storage: &dyn Storage, generation: &GenerationWire) -> u64 {
    let of_segment = |segment: &SegmentWire| {
        storage.reader(&segment_name(segment.number)).and_then(|reader| reader.len()).unwrap_or(0)
    };
    let snapshot = generation.snapshot.as_ref().map_or(0, |snapshot| snapshot.length);
    snapshot + generation.segments.iter().map(of_segment).sum::<u64>()
}

/// The files that a manifest needs: the numbers of its snapshots and of its segments.
pub(crate) struct Needed {
    snapshots: BTreeSet<u64>,
    segments: BTreeSet<u64>,
    /// From this number on, a segment belongs to the running log.
    running_from: u64,
}

impl Needed {
    pub(crate) fn by(manifest: &ManifestWire) -> Needed {
        let generations = || manifest.kept.iter().chain([&manifest.current]);
        let segments: BTreeSet<u64> =
            generations().flat_map(|generation| &generation.segments).map(|segment| segment.number).collect();
        let running_from = manifest.current.segments.first().map_or(NUMBER_END, |segment| segment.number);
        Needed {
            snapshots: generations().filter_map(|generation| Some(generation.snapshot.as_ref()?.number)).collect(),
            segments,
            running_from,
        }
    }

    pub(crate) fn snapshot(&self, number: u64) -> bool {
        self.snapshots.contains(&number)
    }

    /// From this number on, a segment belongs to the running log.
    pub(crate) fn running_from(&self) -> u64 {
        self.running_from
    }

    /// Whether it names this segment.
    pub(crate) fn names_segment(&self, number: u64) -> bool {
        self.segments.contains(&number)
    }

    /// Whether it names this segment, or it may belong to the running log.
    pub(crate) fn segment(&self, number: u64) -> bool {
        self.segments.contains(&number) || number >= self.running_from
    }
}
