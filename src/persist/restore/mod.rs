//! Restores an earlier state into a new directory: point in time, and what can be proven of a damaged store.
//!
//! ```text
//! generation 1   snapshot ──── log ────┬──────── log ───────┬─── log ─── end
//! generation 2                      snapshot       ▲        │
//! generation 3                                     │     snapshot
//!                                               target: generation 2, its log cut behind the target's block
//! ```
//!
//! - The state at a time is that after the last block that was written at or before it. Times of blocks never go back.
//! - A target that no log reaches is refused: no state is guessed.
//! - The directory that is read is never changed. The new one must be empty, and it becomes a store as the last step,
//!   after the caller has loaded it.

pub mod copy;
pub mod repair;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::PersistError;
use super::examine::chain::{self, Run};
use super::examine::directory::{GenerationReport, generations, open_snapshot, snapshots_of};
use super::format::MANIFEST;
use super::manifest;
use super::storage::Storage;
use super::wire::{GenerationWire, ManifestWire};
use copy::{Means, Part, Parts, Prepared, prepare};

/// What to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The state after this block.
    Block(u64),
    /// The state at this time, Unix ms.
    TimeMs(u64),
}

/// A state that can be restored.
pub struct Plan {
    /// The generation that it begins from.
    pub generation: GenerationReport,
    /// Its last block.
    pub block: u64,
    /// When that was written, Unix ms; the time of the snapshot if there is none behind it.
    pub time_ms: u64,
    parts: Parts,
}

/// The last wanted block of a segment.
#[derive(Clone, Copy)]
struct Mark {
    block: u64,
    time_ms: u64,
    end: u64,
    sealed: u64,
}

/// What can be restored from a directory, oldest first. A server may run on it.
///
/// # Errors
/// There is no readable store.
pub fn list(storage: &dyn Storage) -> Result<Vec<GenerationReport>, PersistError> {
    let manifest = read_manifest(storage)?;
    let runs = chain::walk(storage, &manifest, storage.is_locked(), &mut |_, _| true)?;
    Ok(generations(&manifest, &frames(storage, &manifest), &runs))
}

/// Finds out how to restore a state.
///
/// # Errors
/// There is no readable store, or no generation reaches the target.
pub fn plan(storage: &dyn Storage, target: Target) -> Result<Plan, PersistError> {
    let manifest = read_manifest(storage)?;
    let mut marks: BTreeMap<u64, Mark> = BTreeMap::new();
    let runs = chain::walk(storage, &manifest, storage.is_locked(), &mut |segment, place| {
        let header = &place.header;
        let is_wanted = match target {
            Target::Block(block) => header.number <= block,
            Target::TimeMs(time_ms) => header.time_ms <= time_ms,
        };
        if is_wanted {
            let (block, time_ms, sealed) = (header.number, header.time_ms, header.next_segment);
            marks.insert(segment.wire.number, Mark { block, time_ms, end: place.end(), sealed });
        }
        true
    })?;
    let reports = generations(&manifest, &frames(storage, &manifest), &runs);
    // Behind the end of the running log there is nothing that it does not reach.
    let running = reports.last().filter(|last| last.is_current);
    let running = runs.last().filter(|run| running.is_some_and(|current| is_in(&manifest, current, run)));
    let reaches = |report: &GenerationReport| match target {
        Target::Block(block) => (report.from_block..=report.to_block).contains(&block),
        Target::TimeMs(time_ms) => {
            let is_last = report.is_current || running.is_some_and(|run| is_in(&manifest, report, run));
            report.from_time_ms <= time_ms && (is_last || time_ms <= report.to_time_ms)
        }
    };
    let Some(report) = reports.iter().rev().find(|report| reaches(report)) else {
        return Err(refused(storage, &not_reached(&reports)));
    };
    let wire = wire_of(&manifest, report);
    let run = runs.iter().find(|run| is_in(&manifest, report, run));
    Ok(assemble(&manifest, report, wire, run, &marks))
}

/// Copies the planned state into an empty directory.
///
/// # Errors
/// A file cannot be read or written, or the directory is not empty.
pub fn begin(from: &dyn Storage, to: Arc<dyn Storage>, plan: Plan) -> Result<Prepared, PersistError> {
    refuse_used(&*to)?;
    prepare(from, to, plan.parts, Means::Copy)
}

/// Refuses a directory that holds anything.
pub(crate) fn refuse_used(to: &dyn Storage) -> Result<(), PersistError> {
    let names = to.list().map_err(PersistError::io("list", to.path("")))?;
    match names.first() {
        None => Ok(()),
        Some(name) => {
            let why = format!("the directory must be empty, but {name} is in it");
            Err(PersistError::Refused { file: to.path(""), why })
        }
    }
}

fn read_manifest(storage: &dyn Storage) -> Result<ManifestWire, PersistError> {
    manifest::read(storage)?.ok_or_else(|| refused(storage, "there is no store here"))
}

fn refused(storage: &dyn Storage, why: &str) -> PersistError {
    PersistError::Refused { file: storage.path(MANIFEST), why: why.to_owned() }
}

/// The headers of the snapshots that can be opened.
fn frames(storage: &dyn Storage, manifest: &ManifestWire) -> Vec<(u64, super::examine::snapshot::SeenSnapshot)> {
    let numbers = snapshots_of(manifest).into_iter();
    numbers.filter_map(|number| Some((number, open_snapshot(storage, manifest, number).ok()?.0))).collect()
}

fn wire_of<'m>(manifest: &'m ManifestWire, report: &GenerationReport) -> &'m GenerationWire {
    let number = |generation: &&GenerationWire| generation.snapshot.as_ref().map(|snapshot| snapshot.number);
    let kept = manifest.kept.iter().find(|kept| number(kept) == report.snapshot);
    kept.filter(|_| !report.is_current).unwrap_or(&manifest.current)
}

/// Whether a generation's log begins in a run.
fn is_in(manifest: &ManifestWire, report: &GenerationReport, run: &Run) -> bool {
    let first = wire_of(manifest, report).segments.first();
    first.is_some_and(|first| run.segments.iter().any(|segment| segment.wire.number == first.number))
}

fn not_reached(reports: &[GenerationReport]) -> String {
    let ranges: Vec<String> = reports
        .iter()
        .map(|report| {
            format!(
                "blocks {} to {} (times {} to {} in Unix ms)",
                report.from_block, report.to_block, report.from_time_ms, report.to_time_ms
            )
        })
        .collect();
    format!("no generation reaches that state; what can be restored: {}", ranges.join(", "))
}

/// Takes the generation's snapshot and its log up to the last wanted block.
fn assemble(
    manifest: &ManifestWire,
    report: &GenerationReport,
    wire: &GenerationWire,
    run: Option<&Run>,
    marks: &BTreeMap<u64, Mark>,
) -> Plan {
    let mut segments = Vec::new();
    let (mut block, mut time_ms, mut sealed) = (report.from_block, report.from_time_ms, 0);
    let first = wire.segments.first().map_or(u64::MAX, |first| first.number);
    let of_run = run.map_or(&[][..], |run| &run.segments[..]);
    for segment in of_run.iter().filter(|segment| segment.wire.number >= first) {
        let Some(mark) = marks.get(&segment.wire.number) else { break };
        segments.push(Part { wire: segment.wire.clone(), end: Some(mark.end) });
        (block, time_ms, sealed) = (mark.block, mark.time_ms.max(report.from_time_ms), mark.sealed);
    }
    let parts = Parts {
        hash_seed: manifest.hash_seed,
        shards: manifest.shards,
        sequence: manifest.sequence + 1,
        next_segment: manifest.next_segment,
        snapshot: wire.snapshot.clone(),
        segments,
        last_block: block,
        sealed,
    };
    Plan { generation: report.clone(), block, time_ms, parts }
}
