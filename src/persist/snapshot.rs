//! The snapshot file: written chunk by chunk, read chunk by chunk. Drawn in `format.rs`.
//!
//! The writer works under a temporary name. [`SnapshotWriter::finish`] makes the file durable and renames it. That
//! alone changes nothing: only the manifest decides which snapshot counts.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crc32fast::{Hasher, hash};

use super::chunk::{Buffers, Chunk, ChunkWriter, Entry, Packing, WireValue};
use super::crypt::{FileCipher, FileKind, Keyring, TAG};
use super::error::PersistError;
use super::format::{
    BARRIER_SHARD, BURIED_SHARD, FOOTER, FOOTER_MAGIC, FRAME_HEADER, GRAVES_SHARD, SNAPSHOT_MAGIC, VERSION,
    VERSION_ENCRYPTED, snapshot_name, u32_at, u64_at,
};
use super::graves::{WireGrave, decode_grave};
use super::storage::{Storage, StorageFile, StorageReader};
use super::wire::{
    ChunkWire, FrameFault, LIMIT, SnapshotHeaderWire, SnapshotIndexWire, decode, encode, frame_of_version, unframe,
};

/// The temporary name of a snapshot.
pub(crate) fn temporary_name(number: u64) -> String {
    format!("{}.tmp", snapshot_name(number))
}

/// Names, each with its text.
pub type NamedTexts = Vec<(Box<[u8]>, Box<[u8]>)>;

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
    /// The framed header.
    header: Vec<u8>,
    cipher: Option<FileCipher>,
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
        cipher: Option<FileCipher>,
    ) -> Result<Self, PersistError> {
        let name = temporary_name(number);
        let file = storage.create(&name).map_err(PersistError::io("create", storage.path(&name)))?;
        let shards = header.shards;
        let version = if cipher.is_some() { VERSION_ENCRYPTED } else { VERSION };
        let header = frame_of_version(version, SNAPSHOT_MAGIC, header);
        let (crc, buffers, chunks) = (Hasher::new(), Buffers::default(), Vec::new());
        let mut writer =
            Self { storage, number, file, offset: 0, crc, chunks, shards, buffers, header: header.clone(), cipher };
        writer.write(&header)?;
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
        self.any_chunk(shard, compress, fill)
    }

    fn any_chunk(
        &mut self,
        shard: u16,
        compress: bool,
        fill: impl FnOnce(&mut ChunkWriter<'_>),
    ) -> Result<(), PersistError> {
        let (offset, mut buffers) = (self.offset, std::mem::take(&mut self.buffers));
        let cipher = self.cipher.clone();
        let packing = Packing { compress, cipher: cipher.as_ref() };
        let mut write = |bytes: &[u8]| self.write(bytes);
        let mut chunk = ChunkWriter::new(shard, packing, &mut buffers, &mut write);
        fill(&mut chunk);
        if !chunk.is_empty() {
            let wire = chunk.finish()?;
            self.chunks.push(ChunkWire { offset, ..wire });
        }
        self.buffers = buffers;
        Ok(())
    }

    /// Writes the chunk of the libraries of functions, given as names and texts, if there are any. It may come once.
    ///
    /// # Errors
    /// A failed write. The snapshot is then unusable.
    pub fn libraries<'l>(
        &mut self,
        compress: bool,
        libraries: impl Iterator<Item = (&'l [u8], &'l [u8])>,
    ) -> Result<(), PersistError> {
        self.any_chunk(BARRIER_SHARD, compress, |chunk| {
            libraries.for_each(|(name, text)| chunk.push(0, name, None, None, WireValue::Bytes(text)));
        })
    }

    /// Writes the list of flushes that can be undone, if there are any. It may come once.
    ///
    /// # Errors
    /// A failed write. The snapshot is then unusable.
    pub fn graves(&mut self, compress: bool, graves: &[WireGrave]) -> Result<(), PersistError> {
        self.any_chunk(GRAVES_SHARD, compress, |chunk| {
            for grave in graves {
                chunk.push(0, &grave.id.to_le_bytes(), None, None, WireValue::Bytes(&grave.encode()));
            }
        })
    }

    /// Writes what flushes took out of a shard. The number of the flush, as bytes, precedes each key.
    ///
    /// # Errors
    /// A failed write. The snapshot is then unusable.
    pub fn buried(
        &mut self,
        shard: u16,
        compress: bool,
        fill: impl FnOnce(&mut ChunkWriter<'_>),
    ) -> Result<(), PersistError> {
        assert!(self.shards <= u32::from(BURIED_SHARD), "a store of too many shards for a graveyard");
        assert!(u32::from(shard) < self.shards, "a chunk of a shard that does not exist");
        self.any_chunk(BURIED_SHARD | shard, compress, fill)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.offset
    }

    /// Writes index and footer, syncs, renames, syncs the directory.
    pub fn finish(mut self) -> Result<FinishedSnapshot, PersistError> {
        let of_shards = self.chunks.iter().filter(|chunk| u32::from(chunk.shard) < self.shards);
        let entries = of_shards.map(|chunk| chunk.entries).sum::<u64>();
        let (offset, index) = (self.offset, SnapshotIndexWire { chunks: std::mem::take(&mut self.chunks) });
        let mut index = encode(&index);
        if let Some(cipher) = &self.cipher {
            index.extend(cipher.vouch(&self.header, &index));
        }
        self.write(&index)?;
        let crc = self.crc.clone().finalize();
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(&offset.to_le_bytes());
        footer.extend_from_slice(&(index.len() as u64).to_le_bytes());
        footer.extend_from_slice(&entries.to_le_bytes());
        footer.extend_from_slice(&hash(&index).to_le_bytes());
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(&self.cipher.as_ref().map_or(0, FileCipher::key_id).to_le_bytes());
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
    file: Box<dyn StorageReader>,
    /// Its length in bytes.
    length: u64,
    header: SnapshotHeaderWire,
    /// The chunks, by shard.
    chunks: Vec<Option<ChunkWire>>,
    /// Those of the libraries of functions and of the graveyard.
    others: Vec<ChunkWire>,
    entries: u64,
    crc: u32,
    number: u64,
    /// The data key under which it is encrypted; 0 if it is not.
    key: u32,
    /// The framed header; the index with the tag behind it, and where that begins.
    vouched: (Vec<u8>, Vec<u8>, u64),
    cipher: Option<FileCipher>,
}

/// The number of the data key that a snapshot needs, given as the file's bytes; `None` if the file has no end.
pub(crate) fn key_of(bytes: &[u8]) -> Option<u32> {
    let footer = bytes.last_chunk::<FOOTER>()?;
    u32_at(footer, 32).filter(|_| footer[40..] == FOOTER_MAGIC)
}

impl SnapshotReader {
    /// Opens and checks a snapshot. What is encrypted can be read once `SnapshotReader::unlock` was called.
    pub fn open(storage: &dyn Storage, number: u64) -> Result<Self, PersistError> {
        let name = snapshot_name(number);
        let path = storage.path(&name);
        let file = storage.reader(&name).map_err(PersistError::io("read", &path))?;
        let read = |offset: u64, len: u64| read_range(&*file, &path, offset, len);
        let length = file.len().map_err(PersistError::io("read", &path))?;
        let corrupt = |offset: u64, what: &str| PersistError::corrupt(&path, offset, what);
        // The frame tells its own length, which its checksum covers.
        let mut head = read(0, length.min(FRAME_HEADER as u64))?;
        let body = u32_at(&head, 12).map_or(0, u64::from).min(LIMIT as u64);
        head.extend(read(head.len() as u64, body.min(length - head.len() as u64))?);
        let (header, first) = unframe::<SnapshotHeaderWire>(SNAPSHOT_MAGIC, &head).map_err(|fault| match fault {
            FrameFault::Corrupt(what) => corrupt(0, what),
            FrameFault::Version(found) => {
                PersistError::Version { file: path.clone(), found, supported: VERSION_ENCRYPTED }
            }
        })?;
        let first = first as u64;
        let at = length.saturating_sub(FOOTER as u64).max(first);
        let footer = read(at, length - at)?;
        if footer.len() != FOOTER || footer[40..] != FOOTER_MAGIC {
            return Err(corrupt(at, "the footer is missing: the file is cut"));
        }
        let long = |at| u64_at(&footer, at).expect("the footer is whole");
        let word = |at| u32_at(&footer, at).expect("the footer is whole");
        if word(36) != hash(&footer[..36]) {
            return Err(corrupt(at, "the footer's checksum does not match"));
        }
        let (start, len) = (long(0), long(8));
        if start < first || start.checked_add(len) != Some(at) || len > LIMIT as u64 {
            return Err(corrupt(at, "the footer points outside the file"));
        }
        let index = read(start, len)?;
        if word(24) != hash(&index) {
            return Err(corrupt(start, "the index's checksum does not match"));
        }
        let key = word(32);
        let tag = if key != 0 { TAG } else { 0 };
        let wire = index.get(..index.len().saturating_sub(tag)).unwrap_or_default();
        let wire: SnapshotIndexWire = decode(wire).ok_or_else(|| corrupt(start, "the index does not decode"))?;
        let (chunks, others) = place_chunks(wire, header.shards, first, start)
            .ok_or_else(|| corrupt(start, "the index contradicts itself"))?;
        let (entries, crc) = (long(16), word(28));
        let (vouched, cipher) = ((head, index, start), None);
        Ok(Self { name, path, file, length, header, chunks, others, entries, crc, number, key, vouched, cipher })
    }

    /// Makes what is encrypted readable.
    ///
    /// # Errors
    /// The key is not there, or the index is not what was written under it.
    pub(crate) fn unlock(&mut self, keys: Option<&Keyring>) -> Result<(), PersistError> {
        if self.key == 0 {
            return Ok(());
        }
        let cipher =
            keys.and_then(|keys| keys.open_file(self.key, FileKind::Snapshot, self.number, self.header.generation));
        let why = || format!("it is encrypted under the data key {:08x}, which is not there", self.key);
        let cipher = cipher.ok_or_else(|| PersistError::Refused { file: self.path.clone(), why: why() })?;
        let (header, index, at) = &self.vouched;
        let (index, tag) = index.split_at(index.len().saturating_sub(TAG));
        if !cipher.vouches(header, index, tag) {
            let what = "the index does not decrypt: it was changed, or is of another key";
            return Err(PersistError::corrupt(&self.path, *at, what));
        }
        self.cipher = Some(cipher);
        Ok(())
    }

    /// The number of the data key under which it is encrypted; 0 if it is not.
    pub fn key(&self) -> u32 {
        self.key
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
        self.length
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
        let Some(wire) = self.place(shard) else { return Ok(None) };
        if self.key != 0 && self.cipher.is_none() {
            return Err(self.chunk_error(shard, "it is encrypted, and no key was given"));
        }
        let stored = read_range(&*self.file, &self.path, wire.offset, wire.stored_len)?;
        let chunk = Chunk::decode(wire, Cow::Owned(stored), self.cipher.as_ref());
        chunk.map(Some).map_err(|what| self.chunk_error(shard, what))
    }

    /// The bytes that a shard's chunk takes in the file.
    pub fn stored_bytes(&self, shard: u16) -> u64 {
        self.place(shard).map_or(0, |wire| wire.stored_len)
    }

    /// The bytes that the chunks of all shards take in the file.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunks.iter().flatten().map(|wire| wire.stored_len).sum()
    }

    /// The error for a chunk whose entries turn out to be malformed.
    pub fn chunk_error(&self, shard: u16, what: &str) -> PersistError {
        let offset = self.place(shard).map_or(0, |wire| wire.offset);
        PersistError::corrupt(&self.path, offset, format!("{}: {what}", chunk_name(shard, self.header.shards)))
    }

    /// The libraries of functions, as names and texts.
    ///
    /// # Errors
    /// The chunk is damaged.
    pub fn libraries(&self) -> Result<NamedTexts, PersistError> {
        let Some(chunk) = self.chunk(BARRIER_SHARD)? else { return Ok(Vec::new()) };
        let wrong = |what| self.chunk_error(BARRIER_SHARD, what);
        let library = |entry: Result<Entry<'_>, &'static str>| match entry.map_err(wrong)? {
            Entry { db: 0, expiry: None, value: WireValue::Bytes(text), key, .. } => Ok((key.into(), text.into())),
            _ => Err(wrong("something that is no library")),
        };
        chunk.iter().map(library).collect()
    }

    /// The flushes that can be undone.
    ///
    /// # Errors
    /// The chunk is damaged.
    pub fn graves(&self) -> Result<Vec<WireGrave>, PersistError> {
        let Some(chunk) = self.chunk(GRAVES_SHARD)? else { return Ok(Vec::new()) };
        let wrong = |what| self.chunk_error(GRAVES_SHARD, what);
        let grave = |entry: Result<Entry<'_>, &'static str>| {
            decode_grave(&entry.map_err(wrong)?).ok_or_else(|| wrong("something that is no flush"))
        };
        chunk.iter().map(grave).collect()
    }

    /// What flushes took out of a shard, as [`SnapshotWriter::buried`] wrote it; `None` for nothing.
    ///
    /// # Errors
    /// The chunk is damaged.
    pub fn buried(&self, shard: u16) -> Result<Option<Chunk<'_>>, PersistError> {
        if self.others.is_empty() { Ok(None) } else { self.chunk(BURIED_SHARD | shard) }
    }

    fn place(&self, shard: u16) -> Option<&ChunkWire> {
        match self.chunks.get(usize::from(shard)) {
            Some(chunk) => chunk.as_ref(),
            None => self.others.binary_search_by_key(&shard, |chunk| chunk.shard).ok().map(|at| &self.others[at]),
        }
    }

    /// Reads the whole file and compares it with its CRC.
    pub fn verify_whole(&self) -> Result<(), PersistError> {
        let (mut at, end, mut crc) = (0, self.length - FOOTER as u64, Hasher::new());
        while at < end {
            let part = read_range(&*self.file, &self.path, at, (end - at).min(READ_AT_ONCE))?;
            crc.update(&part);
            at += part.len() as u64;
        }
        if crc.finalize() != self.crc {
            return Err(PersistError::corrupt(&self.path, 0, "the checksum over all does not match"));
        }
        Ok(())
    }
}

/// How much of a file is read at once to check it, in bytes.
const READ_AT_ONCE: u64 = 1 << 20;

/// Reads bytes that the file must have.
fn read_range(file: &dyn StorageReader, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>, PersistError> {
    let mut bytes = vec![0; len as usize];
    let got = file.read_at(offset, &mut bytes).map_err(|error| {
        PersistError::io("read", path)(std::io::Error::new(error.kind(), format!("at offset {offset}: {error}")))
    })?;
    if got < bytes.len() {
        return Err(PersistError::corrupt(path, offset + got as u64, "the file is cut"));
    }
    Ok(bytes)
}

/// What an error calls a chunk.
pub(crate) fn chunk_name(shard: u16, shards: u32) -> String {
    match shard {
        BARRIER_SHARD => "libraries".to_owned(),
        GRAVES_SHARD => "list of flushes".to_owned(),
        shard if u32::from(shard) >= shards => format!("flushed keys of shard {}", shard & !BURIED_SHARD),
        shard => format!("shard {shard}"),
    }
}

/// Whether a snapshot of so many shards may have such a chunk.
pub(crate) fn is_chunk(shard: u16, shards: u32) -> bool {
    let has_graves = shards <= u32::from(BURIED_SHARD);
    match shard {
        BARRIER_SHARD => true,
        shard if u32::from(shard) < shards => true,
        GRAVES_SHARD => has_graves,
        shard => has_graves && shard >= BURIED_SHARD && u32::from(shard & !BURIED_SHARD) < shards,
    }
}

/// Chunks by shard, and the others.
type Placed = (Vec<Option<ChunkWire>>, Vec<ChunkWire>);

/// Orders the chunks by shard. `None` if one lies outside the file or a shard comes twice.
fn place_chunks(index: SnapshotIndexWire, shards: u32, first: u64, end: u64) -> Option<Placed> {
    if shards > u32::from(BARRIER_SHARD) {
        return None;
    }
    let (mut chunks, mut others): Placed = (Vec::new(), Vec::new());
    chunks.resize(shards as usize, None);
    for chunk in index.chunks {
        let inside = chunk.offset >= first && chunk.offset.checked_add(chunk.stored_len).is_some_and(|e| e <= end);
        if !inside || !is_chunk(chunk.shard, shards) {
            return None;
        }
        match chunks.get_mut(usize::from(chunk.shard)) {
            Some(slot) if slot.is_none() => *slot = Some(chunk),
            Some(_) => return None,
            None => others.push(chunk),
        }
    }
    others.sort_by_key(|chunk| chunk.shard);
    let is_twice = others.windows(2).any(|two| two[0].shard == two[1].shard);
    (!is_twice).then_some((chunks, others))
}
