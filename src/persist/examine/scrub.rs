//! One pass of the scrub: what is on the disk and is not written any more, against its checksums.
//!
//! It reads past the system's cache, so that it sees the disk and takes no memory from others, and as slowly as it is
//! told to. Files that the store has replaced meanwhile are no fault.

use super::chain;
use super::directory::{Fault, open_snapshot, snapshots_of};
use super::snapshot;
use crate::persist::format::segment_number;
use crate::persist::storage::Storage;
use crate::persist::wire::ManifestWire;

/// What a pass has found.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong, with files that may have gone since.
    pub faults: Vec<Fault>,
    /// Whether the pass went through.
    pub is_complete: bool,
}

/// How much a pass reads at most, in bytes: what an older log has left behind the end of a segment is not read. A file
/// that cannot be looked at counts for nothing.
pub(crate) fn extent(storage: &dyn Storage, manifest: &ManifestWire, running: u64) -> u64 {
    let generations = manifest.kept.iter().chain([&manifest.current]);
    let snapshots: u64 = generations.filter_map(|generation| Some(generation.snapshot.as_ref()?.length)).sum();
    let Some(first) = chain::listed(manifest).first().map(|segment| segment.number) else { return snapshots };
    let names = storage.list().unwrap_or_default();
    let settled = |name: &&String| segment_number(name).is_some_and(|number| (first..running).contains(&number));
    let len = |name: &String| storage.reader(name).and_then(|reader| reader.len()).ok();
    snapshots + names.iter().filter(settled).filter_map(len).sum::<u64>()
}

/// Reads the snapshots that a manifest names and the segments below the `running` one. `pace` is told how much was read
/// before more is, and may end the pass.
pub(crate) fn pass(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    running: u64,
    mut pace: impl FnMut(u64) -> bool,
) -> Scrubbed {
    let mut scrubbed = Scrubbed::default();
    let mut goes_on = true;
    for number in snapshots_of(manifest) {
        let read = open_snapshot(storage, manifest, number).and_then(|(seen, window)| {
            let mut window = window.past_cache();
            snapshot::verify(storage, number, &seen, &mut window, |bytes| {
                scrubbed.bytes += bytes;
                goes_on = pace(bytes);
                goes_on
            })
        });
        match read {
            Ok(wrong) => scrubbed.faults.extend(wrong.iter().map(|error| Fault::of(error, None))),
            Err(error) => scrubbed.faults.push(Fault::of(&error, None)),
        }
        if !goes_on {
            return scrubbed;
        }
    }
    let walked = chain::walk_past_cache(storage, manifest, &mut |segment, place| {
        scrubbed.bytes += place.len;
        goes_on = pace(place.len);
        goes_on && segment.wire.number < running
    });
    match walked {
        Ok(runs) => {
            let broken = runs.iter().filter_map(|run| run.broken.as_ref());
            let settled = broken.filter(|broken| broken.is_damage && broken.segment < running);
            scrubbed.faults.extend(settled.map(|broken| Fault::of(&broken.error, Some(broken.block))));
        }
        Err(error) => scrubbed.faults.push(Fault::of(&error, None)),
    }
    scrubbed.is_complete = goes_on;
    scrubbed
}
