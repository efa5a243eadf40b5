//! What a start does to the files of a directory once they are understood: a torn tail is set aside, the log is made
//! durable, and what a crash has left is removed.

use std::sync::Arc;

use super::block::{is_end_mark, read_segment_header};
use super::crypt::Keyring;
use super::error::PersistError;
use super::format::{
    END_MARK, FOOTER, MANIFEST_TMP, SEGMENT_DETACHED, SEGMENT_HEADER, index_number, segment_name, segment_number,
    snapshot_number, torn_name,
};
use super::generations::Needed;
use super::recover::{Recovery, Torn};
use super::snapshot::key_of;
use super::storage::Storage;
use super::wire::ManifestWire;

/// The unit of the system's file cache, in bytes.
const PAGE: usize = 4096;
/// How much of a recovered log is written at a time, in bytes.
const SETTLED_AT_ONCE: usize = 1 << 20;

/// Keeps the bytes of a torn tail in a separate file and cuts the segment there. Later segments are set aside first:
/// whenever the power fails, those that still have their names are found behind a tear.
pub(super) fn set_aside(storage: &dyn Storage, recovery: &mut Recovery, torn: &Torn) -> Result<(), PersistError> {
    for &number in &torn.followers {
        let path = storage.path(&segment_name(number));
        storage.rename(&segment_name(number), &torn_name(number, 0)).map_err(PersistError::io("set aside", path))?;
    }
    if !torn.followers.is_empty() {
        storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    }
    let name = segment_name(torn.segment);
    let path = storage.path(&name);
    let aside = torn_name(torn.segment, torn.offset);
    let bytes = storage.read(&name).map_err(PersistError::io("read", &path))?;
    let rest = &bytes[torn.offset as usize..];
    if !rest.is_empty() {
        let to = storage.path(&aside);
        if storage.exists(&aside).map_err(PersistError::io("look for", &to))? {
            storage.remove(&aside).map_err(PersistError::io("remove", &to))?;
        }
        let file = storage.create(&aside).map_err(PersistError::io("create", &to))?;
        file.append(rest).map_err(PersistError::io("write", &to))?;
        file.sync_data().map_err(PersistError::io("sync", &to))?;
        storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    }
    // The maps must be gone before the file shrinks under them.
    drop(bytes);
    let segment = recovery.segments.iter_mut().find(|s| s.wire.number == torn.segment);
    let segment = segment.expect("the torn segment takes part");
    segment.bytes = super::storage::FileBytes::Shared(Arc::from([]));
    let file = storage.open(&name).map_err(PersistError::io("open", &path))?;
    file.set_len(torn.offset).map_err(PersistError::io("cut", &path))?;
    file.sync_data().map_err(PersistError::io("sync", &path))?;
    segment.bytes = storage.read(&name).map_err(PersistError::io("read", &path))?;
    segment.end = segment.end.min(segment.bytes.len());
    Ok(())
}

/// Makes the recovered log durable before anything can be written after it: the last process may have died with its
/// last blocks only in the page cache, including those of sealed segments.
///
/// What is not known to be synced is written once more. If a sync has failed before, the system shows bytes that it
/// will never write, and a sync that succeeds says nothing about them.
pub(super) fn settle_log(storage: &dyn Storage, recovery: &Recovery) -> Result<(), PersistError> {
    for segment in &recovery.segments {
        let name = segment_name(segment.wire.number);
        let path = storage.path(&name);
        let file = storage.open(&name).map_err(PersistError::io("open", &path))?;
        // To the end of the page, for the end mark and the zeros behind the last block.
        let end = if segment.settled < segment.end { (segment.end + END_MARK).next_multiple_of(PAGE) } else { 0 };
        let mut at = segment.settled;
        while at < end.min(segment.bytes.len()) {
            // Copied, because the bytes may be a map of the same file.
            let piece = segment.bytes[at..end.min(segment.bytes.len()).min(at + SETTLED_AT_ONCE)].to_vec();
            file.write_at(at as u64, &piece).map_err(PersistError::io("write", &path))?;
            at += piece.len();
        }
        file.sync_data().map_err(PersistError::io("sync", &path))?;
    }
    Ok(())
}

/// Removes what a crash left behind, which the manifest does not name. Failures do not matter.
pub(super) fn remove_strays(storage: &dyn Storage, manifest: &ManifestWire, files: &[String]) {
    let needed = Needed::by(manifest);
    let first = manifest.current.segments.first().map_or(u64::MAX, |segment| segment.number);
    for name in files {
        let temporary =
            name == MANIFEST_TMP || name.strip_suffix(".tmp").is_some_and(|name| snapshot_number(name).is_some());
        let old_snapshot = snapshot_number(name).is_some_and(|number| !needed.snapshot(number));
        // The log may have been cut in front of it.
        let old_index = index_number(name).is_some_and(|number| number < first || !needed.names_segment(number));
        let stray_segment = segment_number(name).filter(|&number| !needed.names_segment(number));
        let aside = stray_segment.filter(|&number| number > first && has_blocks(storage, name));
        let _ = match (temporary || old_snapshot || old_index, stray_segment, aside) {
            (_, _, Some(number)) => storage.rename(name, &torn_name(number, 0)),
            (true, _, _) | (_, Some(_), _) => storage.remove(name),
            _ => Ok(()),
        };
    }
}

/// Drops the data keys that no file of the directory needs. A failure keeps them.
pub(super) fn prune_keys(storage: &dyn Storage, keys: Option<&Keyring>) {
    // They are looked at only after a change of the master key.
    if let Some(keys) = keys
        && keys.count() > 1
        && let Ok(used) = keys_in_use(storage)
    {
        keys.prune(&used);
    }
}

/// The numbers of the data keys that the files of the directory need.
fn keys_in_use(storage: &dyn Storage) -> std::io::Result<Vec<u32>> {
    let mut used = Vec::new();
    for name in storage.list()? {
        // What was set aside may be wanted later.
        let stem = name.split_once(".torn-").map_or(name.clone(), |(stem, _)| format!("{stem}.ik"));
        let (mut head, mut footer) = ([0; SEGMENT_HEADER], [0; FOOTER]);
        if segment_number(&stem).is_some() {
            storage.reader(&name)?.read_at(0, &mut head)?;
            used.extend(read_segment_header(&head).map(|header| header.key));
        } else if snapshot_number(&stem).is_some() {
            let reader = storage.reader(&name)?;
            reader.read_at(reader.len()?.saturating_sub(FOOTER as u64), &mut footer)?;
            used.extend(key_of(&footer));
        }
    }
    Ok(used)
}

/// Whether an unnamed segment holds anything that ever counted.
fn has_blocks(storage: &dyn Storage, name: &str) -> bool {
    let Ok(bytes) = storage.read(name) else { return true };
    let header = read_segment_header(&bytes);
    let empty = match header {
        Ok(header) if header.recycled => is_end_mark(&bytes, SEGMENT_HEADER),
        _ => bytes.len() <= SEGMENT_HEADER,
    };
    !empty && !header.is_ok_and(|header| header.kind == SEGMENT_DETACHED)
}
