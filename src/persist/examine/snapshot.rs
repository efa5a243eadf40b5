//! A snapshot in one pass: every chunk against its checksum, and the whole against that of the footer.

use crc32fast::Hasher;

use super::window::Window;
use crate::persist::crypt::TAG;
use crate::persist::error::PersistError;
use crate::persist::format::{
    FOOTER, FOOTER_MAGIC, FRAME_HEADER, SNAPSHOT_MAGIC, VERSION_ENCRYPTED, snapshot_name, u32_at, u64_at,
};
use crate::persist::snapshot::{chunk_name, is_chunk};
use crate::persist::storage::Storage;
use crate::persist::wire::{
    ChunkWire, FrameFault, LIMIT, SnapshotHeaderWire, SnapshotIndexWire, SnapshotWire, decode, unframe,
};

/// What a snapshot is, by its own header and footer.
#[derive(Clone, Debug)]
pub(crate) struct SeenSnapshot {
    pub(crate) header: SnapshotHeaderWire,
    pub(crate) length: u64,
    pub(crate) crc: u32,
    pub(crate) entries: u64,
    /// The data key under which it is encrypted; 0 if it is not.
    pub(crate) key: u32,
    /// Its chunks, by offset.
    pub(crate) chunks: Vec<ChunkWire>,
}

impl SeenSnapshot {
    /// Whether it is the one that a manifest means.
    pub(crate) fn is(&self, wire: &SnapshotWire, hash_seed: &[u8; 16]) -> bool {
        (self.length, self.crc, self.header.cut_block) == (wire.length, wire.crc, wire.cut_block)
            && (self.entries, &self.header.hash_seed) == (wire.entries, hash_seed)
    }
}

/// Opens a snapshot for a pass over it.
pub(crate) fn window(storage: &dyn Storage, number: u64) -> Result<Window, PersistError> {
    let name = snapshot_name(number);
    storage.reader(&name).map(Window::new).map_err(PersistError::io("open", storage.path(&name)))
}

/// Reads header, index and footer.
pub(crate) fn read_frame(
    storage: &dyn Storage,
    number: u64,
    window: &mut Window,
) -> Result<SeenSnapshot, PersistError> {
    let path = storage.path(&snapshot_name(number));
    let corrupt = |at: u64, what: &str| PersistError::corrupt(&path, at, what);
    let io = |error| PersistError::io("read", &path)(error);
    let length = window.file_len().map_err(io)?;
    let head = read(window, 0, FRAME_HEADER as u64).map_err(io)?;
    let body = u32_at(&head, 12).map_or(0, u64::from).min(LIMIT as u64);
    let head = read(window, 0, FRAME_HEADER as u64 + body).map_err(io)?;
    let (header, first) = unframe::<SnapshotHeaderWire>(SNAPSHOT_MAGIC, &head).map_err(|fault| match fault {
        FrameFault::Corrupt(what) => corrupt(0, what),
        FrameFault::Version(found) => PersistError::Version { file: path.clone(), found, supported: VERSION_ENCRYPTED },
    })?;
    let at = length.saturating_sub(FOOTER as u64).max(first as u64);
    let footer = read(window, at, FOOTER as u64).map_err(io)?;
    if footer.len() != FOOTER || footer[40..] != FOOTER_MAGIC {
        return Err(corrupt(at, "the footer is missing: the file is cut"));
    }
    let long = |at| u64_at(&footer, at).expect("the footer is whole");
    let word = |at| u32_at(&footer, at).expect("the footer is whole");
    if word(36) != crc32fast::hash(&footer[..36]) {
        return Err(corrupt(at, "the footer's checksum does not match"));
    }
    let (start, len) = (long(0), long(8));
    if start < first as u64 || start.checked_add(len) != Some(at) || len > LIMIT as u64 {
        return Err(corrupt(at, "the footer points outside the file"));
    }
    let index = read(window, start, len).map_err(io)?;
    if word(24) != crc32fast::hash(&index) {
        return Err(corrupt(start, "the index's checksum does not match"));
    }
    let key = word(32);
    let tag = if key != 0 { TAG } else { 0 };
    let wire = index.get(..index.len().saturating_sub(tag)).unwrap_or_default();
    let index: SnapshotIndexWire = decode(wire).ok_or_else(|| corrupt(start, "the index does not decode"))?;
    let mut chunks = index.chunks;
    chunks.sort_by_key(|chunk| chunk.offset);
    let mut end = first as u64;
    for chunk in &chunks {
        let stays = is_chunk(chunk.shard, header.shards);
        let after = chunk.offset.checked_add(chunk.stored_len);
        match after.filter(|&after| stays && chunk.offset >= end && after <= start) {
            Some(after) => end = after,
            None => return Err(corrupt(start, "the index contradicts itself")),
        }
    }
    Ok(SeenSnapshot { header, length, crc: word(28), entries: long(16), chunks, key })
}

/// Up to `len` bytes, which may be more than a piece.
fn read(window: &mut Window, at: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    window.each(at, at + len, |_, piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// Compares every chunk and the whole with their checksums. `pace` is told of each piece before the next is read, and
/// may end the pass.
pub(crate) fn verify(
    storage: &dyn Storage,
    number: u64,
    seen: &SeenSnapshot,
    window: &mut Window,
    mut pace: impl FnMut(u64) -> bool,
) -> Result<Vec<PersistError>, PersistError> {
    let path = storage.path(&snapshot_name(number));
    let (mut whole, mut of_chunk, mut index) = (Hasher::new(), Hasher::new(), 0);
    let mut wrong = Vec::new();
    let end = seen.length - FOOTER as u64;
    let mut at = 0;
    while at < end {
        // Up to the next border of a chunk, so that a piece lies in one or in none.
        let chunk = seen.chunks.get(index);
        let border = match chunk {
            Some(chunk) if at < chunk.offset => chunk.offset,
            Some(chunk) => chunk.offset + chunk.stored_len,
            None => end,
        };
        let len = usize::try_from(border - at).unwrap_or(usize::MAX);
        let piece = window.get(at, len).map_err(PersistError::io("read", &path))?;
        if piece.is_empty() && border > at {
            return Err(PersistError::corrupt(&path, at, "the file is cut"));
        }
        whole.update(piece);
        let is_inside = chunk.is_some_and(|chunk| at >= chunk.offset);
        if is_inside {
            of_chunk.update(piece);
        }
        at += piece.len() as u64;
        let read = piece.len() as u64;
        if let Some(chunk) = chunk.filter(|_| is_inside && at == border) {
            if std::mem::take(&mut of_chunk).finalize() != chunk.crc {
                let of = chunk_name(chunk.shard, seen.header.shards);
                let what = format!("{of}: the chunk's checksum does not match");
                wrong.push(PersistError::corrupt(&path, chunk.offset, what));
            }
            index += 1;
        }
        if !pace(read) {
            return Ok(wrong);
        }
    }
    if wrong.is_empty() && whole.finalize() != seen.crc {
        wrong.push(PersistError::corrupt(&path, 0, "the checksum over all does not match"));
    }
    Ok(wrong)
}
