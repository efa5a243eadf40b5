//! The manifest: the one file that says which files are the store. Drawn in `format.rs`.
//!
//! It is replaced as a whole: temporary file, fsync, rename, fsync of the directory. The rename is the commit point
//! of a snapshot. When `replace` fails, either the old or the new manifest may be on the disk. The files of both must
//! stay until a later replacement succeeds.

use super::error::PersistError;
use super::format::{MANIFEST, MANIFEST_MAGIC, MANIFEST_TMP, NUMBER_END, VERSION, segment_number, snapshot_number};
use super::storage::Storage;
use super::wire::{FrameFault, ManifestWire, frame, unframe};

/// Reads the manifest. `None` means a fresh directory; data files without a manifest are a refusal.
pub(crate) fn read(storage: &dyn Storage) -> Result<Option<ManifestWire>, PersistError> {
    let path = storage.path(MANIFEST);
    if !storage.exists(MANIFEST).map_err(PersistError::io("look for", &path))? {
        let names = storage.list().map_err(PersistError::io("list", storage.path("")))?;
        let ours = |name: &&String| segment_number(name).is_some() || snapshot_number(name).is_some();
        return match names.iter().find(ours) {
            None => Ok(None),
            Some(data) => Err(PersistError::Refused {
                file: path,
                why: format!("it is missing, but the data file {data} is there"),
            }),
        };
    }
    let bytes = storage.read(MANIFEST).map_err(PersistError::io("read", &path))?;
    match unframe(MANIFEST_MAGIC, &bytes) {
        Ok((manifest, _)) if !plausible(&manifest) => Err(PersistError::corrupt(path, 0, "a number is out of range")),
        Ok((manifest, end)) if end == bytes.len() => Ok(Some(manifest)),
        Ok((_, end)) => Err(PersistError::corrupt(path, end as u64, "bytes follow the manifest")),
        Err(FrameFault::Corrupt(what)) => Err(PersistError::corrupt(path, 0, what)),
        Err(FrameFault::Version(found)) => Err(PersistError::Version { file: path, found, supported: VERSION }),
    }
}

/// Whether every number in it can be counted up from without overflow.
fn plausible(manifest: &ManifestWire) -> bool {
    let generations = std::iter::once(&manifest.current).chain(&manifest.kept);
    let snapshots = generations.clone().filter_map(|generation| generation.snapshot.as_ref());
    let segments = || generations.clone().flat_map(|generation| &generation.segments);
    let numbers = [manifest.sequence, manifest.durable_block, manifest.next_segment]
        .into_iter()
        .chain(snapshots.flat_map(|snapshot| [snapshot.number, snapshot.cut_block]))
        .chain(segments().flat_map(|segment| [segment.number, segment.first_block]));
    numbers.max().is_some_and(|most| most < NUMBER_END) && segments().all(|segment| segment.first_block > 0)
}

/// Replaces the manifest, durably.
pub(crate) fn replace(storage: &dyn Storage, manifest: &ManifestWire) -> Result<(), PersistError> {
    let (path, temporary) = (storage.path(MANIFEST), storage.path(MANIFEST_TMP));
    // A failed attempt may have left one.
    if storage.exists(MANIFEST_TMP).map_err(PersistError::io("look for", &temporary))? {
        storage.remove(MANIFEST_TMP).map_err(PersistError::io("remove", &temporary))?;
    }
    let file = storage.create(MANIFEST_TMP).map_err(PersistError::io("create", &temporary))?;
    file.append(&frame(MANIFEST_MAGIC, manifest)).map_err(PersistError::io("write", &temporary))?;
    file.sync_data().map_err(PersistError::io("sync", &temporary))?;
    storage.rename(MANIFEST_TMP, MANIFEST).map_err(PersistError::io("rename", &path))?;
    storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::storage::SimStorage;
    use crate::persist::wire::GenerationWire;

    fn manifest(sequence: u64) -> ManifestWire {
        ManifestWire {
            sequence,
            hash_seed: [1; 16],
            shards: 4,
            durable_block: 0,
            next_segment: 1,
            clean: false,
            current: GenerationWire::default(),
            kept: vec![],
        }
    }

    #[test]
    fn a_replacement_is_all_or_nothing_at_every_crash() {
        for crash in 0..20 {
            let storage = SimStorage::new();
            replace(&storage, &manifest(1)).unwrap();
            storage.crash_at(storage.operations() + crash);
            let done = replace(&storage, &manifest(2)).is_ok();
            for seed in 0..30 {
                let read = read(&storage.recover_image(seed)).unwrap().unwrap();
                assert!(read.sequence == 2 || !done);
                assert_eq!(read, manifest(read.sequence));
            }
        }
    }

    #[test]
    fn a_missing_manifest_beside_data_is_a_refusal_that_names_it() {
        let storage = SimStorage::new();
        assert!(read(&storage).unwrap().is_none());
        storage.put("notes.txt", b"");
        assert!(read(&storage).unwrap().is_none());
        storage.put("log-0000000000000001.ik", b"");
        let error = read(&storage).unwrap_err();
        assert!(matches!(error, PersistError::Refused { .. }));
        assert!(error.to_string().contains("MANIFEST"), "{error}");
    }

    /// Found by fuzzing: a first block of 0, behind a right checksum, made recovery count below zero.
    #[test]
    fn numbers_that_cannot_be_counted_on_are_refused() {
        use crate::persist::wire::{SegmentWire, SnapshotWire};
        let segment = SegmentWire { number: 1, generation: 2, first_block: 1, prev_crc: 0 };
        let snapshot = SnapshotWire { number: 1, length: 0, crc: 0, cut_block: 0, entries: 0 };
        let current = GenerationWire { snapshot: Some(snapshot), segments: vec![segment] };
        let good = ManifestWire { current, ..manifest(1) };
        let refused = |change: &dyn Fn(&mut ManifestWire)| {
            let (storage, mut manifest) = (SimStorage::new(), good.clone());
            change(&mut manifest);
            replace(&storage, &manifest).unwrap();
            read(&storage).is_err()
        };
        assert!(!refused(&|_| ()));
        assert!(refused(&|m| m.current.segments[0].first_block = 0));
        assert!(refused(&|m| m.current.segments[0].first_block = NUMBER_END));
        assert!(refused(&|m| m.current.segments[0].number = u64::MAX));
        assert!(refused(&|m| m.current.snapshot.as_mut().unwrap().cut_block = u64::MAX));
        assert!(refused(&|m| m.current.snapshot.as_mut().unwrap().number = NUMBER_END));
        assert!(refused(&|m| m.sequence = u64::MAX));
        assert!(refused(&|m| m.durable_block = u64::MAX));
        assert!(refused(&|m| m.next_segment = u64::MAX));
    }

    #[test]
    fn every_flip_and_cut_of_a_manifest_is_refused() {
        let storage = SimStorage::new();
        replace(&storage, &manifest(1)).unwrap();
        let good = storage.get(MANIFEST).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            storage.put(MANIFEST, &bad);
            assert!(read(&storage).is_err(), "{at}");
            storage.put(MANIFEST, &good[..at]);
            assert!(read(&storage).is_err(), "{at}");
        }
    }
}
