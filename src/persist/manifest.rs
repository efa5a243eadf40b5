//! The manifest: the one file that says which files are the store. Drawn in `format.rs`.
//!
//! It is replaced as a whole: temporary file, fsync, rename, fsync of the directory. The rename is the commit point
//! of a snapshot. When `replace` fails, either the old or the new manifest may be on the disk. The files of both must
//! stay until a later replacement succeeds.
//!
//! The file `LOCK` remembers the newest sequence number. An older manifest that somebody has put back is refused.

use super::error::PersistError;
use super::format::{
    LOCK, LOCK_MAGIC, MANIFEST, MANIFEST_MAGIC, MANIFEST_TMP, NUMBER_END, VERSION_ENCRYPTED, segment_number,
    snapshot_number, u32_at, u64_at,
};
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
        Ok((manifest, end)) if end == bytes.len() => match remembered(storage, &manifest.hash_seed) {
            Some(newest) if newest > manifest.sequence => Err(PersistError::Refused {
                file: path,
                why: format!(
                    "it is number {}, and this directory has held number {newest}: what was written since would be lost. \
                     If a whole backup was put here on purpose, remove the file {LOCK}",
                    manifest.sequence
                ),
            }),
            _ => Ok(Some(manifest)),
        },
        Ok((_, end)) => Err(PersistError::corrupt(path, end as u64, "bytes follow the manifest")),
        Err(FrameFault::Corrupt(what)) => Err(PersistError::corrupt(path, 0, what)),
        Err(FrameFault::Version(found)) => {
            Err(PersistError::Version { file: path, found, supported: VERSION_ENCRYPTED })
        }
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
    storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    // Without it, an older manifest passes unnoticed, as it did before. That is no reason to refuse this one.
    let _ = remember(storage, manifest);
    Ok(())
}

/// Notes in `LOCK` that the directory holds this manifest, durably. The note itself need not be durable: an older one
/// only proves less.
fn remember(storage: &dyn Storage, manifest: &ManifestWire) -> std::io::Result<()> {
    let mut note = Vec::with_capacity(NOTE_BYTES);
    note.extend_from_slice(&LOCK_MAGIC);
    note.extend_from_slice(&manifest.sequence.to_le_bytes());
    note.extend_from_slice(&manifest.hash_seed);
    note.extend_from_slice(&crc32fast::hash(&note).to_le_bytes());
    let file = if storage.exists(LOCK)? { storage.open(LOCK)? } else { storage.create(LOCK)? };
    file.write_at(0, &note)
}

/// The length of the note in `LOCK`.
const NOTE_BYTES: usize = 36;

/// The newest sequence number that `LOCK` remembers of this store. A note that is damaged or of another store says
/// nothing.
fn remembered(storage: &dyn Storage, hash_seed: &[u8; 16]) -> Option<u64> {
    let bytes = storage.read(LOCK).ok()?;
    let note = bytes.get(..NOTE_BYTES)?;
    let is_whole = note[..8] == LOCK_MAGIC && u32_at(note, 32) == Some(crc32fast::hash(&note[..32]));
    u64_at(note, 8).filter(|_| is_whole && note[16..32] == hash_seed[..])
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
    fn a_manifest_that_was_put_back_is_refused() {
        let storage = SimStorage::new();
        replace(&storage, &manifest(1)).unwrap();
        let old = storage.get(MANIFEST).unwrap();
        replace(&storage, &manifest(2)).unwrap();
        storage.put(MANIFEST, &old);
        let error = read(&storage).unwrap_err();
        assert!(
            error.to_string().contains("MANIFEST: it is number 1, and this directory has held number 2"),
            "{error}"
        );
        // A note that is cut, damaged, missing or of another store says nothing.
        let note = storage.get(LOCK).unwrap();
        for at in 0..note.len() {
            let mut bad = note.clone();
            bad[at] ^= 1;
            storage.put(LOCK, &bad);
            assert_eq!(read(&storage).unwrap().unwrap().sequence, 1);
            storage.put(LOCK, &note[..at]);
            assert_eq!(read(&storage).unwrap().unwrap().sequence, 1);
        }
        storage.put(LOCK, &note);
        assert!(read(&storage).is_err());
        storage.forget(LOCK);
        assert_eq!(read(&storage).unwrap().unwrap().sequence, 1);
        replace(&storage, &ManifestWire { hash_seed: [9; 16], ..manifest(9) }).unwrap();
        storage.put(MANIFEST, &old);
        assert_eq!(read(&storage).unwrap().unwrap().sequence, 1, "another store's files were copied here");
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
