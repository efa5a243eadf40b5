//! The snapshot file: written chunk by chunk, read chunk by chunk. Drawn in `format.rs`.
//!
//! The writer works under a temporary name. [`SnapshotWriter::finish`] makes the file durable and renames it. That
//! alone changes nothing: only the manifest decides which snapshot counts.

use std::sync::Arc;

use crc32fast::{Hasher, hash};

use super::chunk::{Buffers, Chunk, ChunkWriter};
use super::error::PersistError;
use super::format::{FOOTER, FOOTER_MAGIC, SNAPSHOT_MAGIC, VERSION, snapshot_name, u32_at, u64_at};
use super::storage::{FileBytes, Storage, StorageFile};
use super::wire::{ChunkWire, FrameFault, SnapshotHeaderWire, SnapshotIndexWire, decode, encode, frame, unframe};

/// The temporary name of a snapshot.
pub(crate) fn temporary_name(number: u64) -> String {
    format!("{}.tmp", snapshot_name(number))
}

/// Writes one snapshot.
pub struct SnapshotWriter {
    storage: Arc<dyn Storage>,
    number: u64,
    file: Box<dyn StorageFile>,
    offset: u64,
    crc: Hasher,
    chunks: Vec<ChunkWire>,
    shards: u32,
    buffers: Buffers,
}

/// A snapshot that is durable under its final name, but not yet named by the manifest.
#[derive(Clone, Debug)]
pub struct FinishedSnapshot {
    pub(crate) number: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The CRC over all of it.
    pub crc: u32,
    /// How many keys it holds.
    pub entries: u64,
}

impl SnapshotWriter {
    pub(crate) fn create(
        storage: Arc<dyn Storage>,
        number: u64,
        header: &SnapshotHeaderWire,
    ) -> Result<Self, PersistError> {
        let name = temporary_name(number);
        let file = storage.create(&name).map_err(PersistError::io("create", storage.path(&name)))?;
        let shards = header.shards;
        let (crc, buffers) = (Hasher::new(), Buffers::default());
        let mut writer = Self { storage, number, file, offset: 0, crc, chunks: Vec::new(), shards, buffers };
        writer.write(&frame(SNAPSHOT_MAGIC, header))?;
        Ok(writer)
    }

    /// Writes a shard's chunk with the entries that `fill` pushes. Shards come in any order, each at most once. An
    /// empty chunk takes no room.
    ///
    /// # Errors
    /// A failed write. The snapshot is then unusable.
    pub fn chunk(
        &mut self,
        shard: u16,
        compress: bool,
        fill: impl FnOnce(&mut ChunkWriter<'_>),
    ) -> Result<(), PersistError> {
        assert!(u32::from(shard) < self.shards, "a chunk of a shard that does not exist");
        let (offset, mut buffers) = (self.offset, std::mem::take(&mut self.buffers));
        let mut write = |bytes: &[u8]| self.write(bytes);
        let mut chunk = ChunkWriter::new(shard, compress, &mut buffers, &mut write);
        fill(&mut chunk);
        if !chunk.is_empty() {
            let wire = chunk.finish()?;
            self.chunks.push(ChunkWire { offset, ..wire });
        }
        self.buffers = buffers;
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.offset
    }

    /// Writes index and footer, syncs, renames, syncs the directory.
    pub fn finish(mut self) -> Result<FinishedSnapshot, PersistError> {
        let entries = self.chunks.iter().map(|chunk| chunk.entries).sum::<u64>();
        let (offset, index) = (self.offset, SnapshotIndexWire { chunks: std::mem::take(&mut self.chunks) });
        let index = encode(&index);
        self.write(&index)?;
        let crc = self.crc.clone().finalize();
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(&offset.to_le_bytes());
        footer.extend_from_slice(&(index.len() as u64).to_le_bytes());
        footer.extend_from_slice(&entries.to_le_bytes());
        footer.extend_from_slice(&hash(&index).to_le_bytes());
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(&[0; 4]);
        footer.extend_from_slice(&hash(&footer).to_le_bytes());
        footer.extend_from_slice(&FOOTER_MAGIC);
        self.write(&footer)?;

        let (temporary, name) = (temporary_name(self.number), snapshot_name(self.number));
        let path = self.storage.path(&temporary);
        self.file.sync_data().map_err(PersistError::io("sync", &path))?;
        self.storage.rename(&temporary, &name).map_err(PersistError::io("rename", &path))?;
        let dir = self.storage.path("");
        self.storage.sync_dir().map_err(PersistError::io("sync", dir))?;
        Ok(FinishedSnapshot { number: self.number, length: self.offset, crc, entries })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PersistError> {
        let path = self.storage.path(&temporary_name(self.number));
        self.file.append(bytes).map_err(PersistError::io("write", path))?;
        self.crc.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// An opened snapshot. Header, index and footer have been checked; each chunk is checked when it is read.
pub struct SnapshotReader {
    name: String,
    path: std::path::PathBuf,
    bytes: FileBytes,
    header: SnapshotHeaderWire,
    /// The chunks, by shard.
    chunks: Vec<Option<ChunkWire>>,
    entries: u64,
    crc: u32,
}

impl SnapshotReader {
    /// Opens and checks a snapshot.
    pub fn open(storage: &dyn Storage, number: u64) -> Result<Self, PersistError> {
        let name = snapshot_name(number);
        let path = storage.path(&name);
        let bytes = storage.read(&name).map_err(PersistError::io("read", &path))?;
        let corrupt = |offset: usize, what: &str| PersistError::corrupt(&path, offset as u64, what);
        let (header, first) = unframe::<SnapshotHeaderWire>(SNAPSHOT_MAGIC, &bytes).map_err(|fault| match fault {
            FrameFault::Corrupt(what) => corrupt(0, what),
            FrameFault::Version(found) => PersistError::Version { file: path.clone(), found, supported: VERSION },
        })?;
        let at = bytes.len().saturating_sub(FOOTER).max(first);
        let footer = &bytes[at..];
        if footer.len() != FOOTER || footer[40..] != FOOTER_MAGIC {
            return Err(corrupt(at, "the footer is missing: the file is cut"));
        }
        let long = |at| u64_at(footer, at).expect("the footer is whole");
        let word = |at| u32_at(footer, at).expect("the footer is whole");
        if word(36) != hash(&footer[..36]) {
            return Err(corrupt(at, "the footer's checksum does not match"));
        }
        let (start, len) = (long(0), long(8));
        if start < first as u64 || start.checked_add(len) != Some(at as u64) {
            return Err(corrupt(at, "the footer points outside the file"));
        }
        let index = &bytes[start as usize..at];
        if word(24) != hash(index) {
            return Err(corrupt(start as usize, "the index's checksum does not match"));
        }
        let index: SnapshotIndexWire =
            decode(index).ok_or_else(|| corrupt(start as usize, "the index does not decode"))?;
        let chunks = place_chunks(index, header.shards, first as u64, start)
            .ok_or_else(|| corrupt(start as usize, "the index contradicts itself"))?;
        let (entries, crc) = (long(16), word(28));
        Ok(Self { name, path, bytes, header, chunks, entries, crc })
    }

    /// The header.
    pub fn header(&self) -> &SnapshotHeaderWire {
        &self.header
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its chunks are stored.
    #[cfg(test)]
    pub(crate) fn codecs(&self) -> std::collections::BTreeSet<u8> {
        self.chunks.iter().flatten().map(|chunk| chunk.codec).collect()
    }

    /// The file's length.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The CRC over the whole file that its footer gives; see [`SnapshotReader::verify_whole`].
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// How many keys it holds.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// A shard's chunk, checked and decompressed; `None` when the shard is empty.
    pub fn chunk(&self, shard: u16) -> Result<Option<Chunk<'_>>, PersistError> {
        let Some(wire) = self.chunks.get(usize::from(shard)).and_then(Option::as_ref) else {
            return Ok(None);
        };
        let (start, end) = (wire.offset as usize, (wire.offset + wire.stored_len) as usize);
        Chunk::decode(wire, &self.bytes[start..end]).map(Some).map_err(|what| self.chunk_error(shard, what))
    }

    /// The error for a chunk whose entries turn out to be malformed.
    pub fn chunk_error(&self, shard: u16, what: &str) -> PersistError {
        let wire = self.chunks.get(usize::from(shard)).and_then(Option::as_ref);
        let offset = wire.map_or(0, |wire| wire.offset);
        PersistError::corrupt(&self.path, offset, format!("shard {shard}: {what}"))
    }

    /// Reads the whole file and compares it with its CRC.
    pub fn verify_whole(&self) -> Result<(), PersistError> {
        let end = self.bytes.len() - FOOTER;
        if hash(&self.bytes[..end]) != self.crc {
            return Err(PersistError::corrupt(&self.path, 0, "the checksum over all does not match"));
        }
        Ok(())
    }
}

/// Orders the chunks by shard. `None` if one lies outside the file or a shard comes twice.
fn place_chunks(index: SnapshotIndexWire, shards: u32, first: u64, end: u64) -> Option<Vec<Option<ChunkWire>>> {
    if shards > 1 << 16 {
        return None;
    }
    let mut chunks: Vec<Option<ChunkWire>> = Vec::new();
    chunks.resize(shards as usize, None);
    for chunk in index.chunks {
        let inside = chunk.offset >= first && chunk.offset.checked_add(chunk.stored_len).is_some_and(|e| e <= end);
        let slot = chunks.get_mut(usize::from(chunk.shard))?;
        if !inside || slot.is_some() {
            return None;
        }
        *slot = Some(chunk);
    }
    Some(chunks)
}
