//! Makes a new directory from files of another one. The manifest comes last, so a directory that is not finished is
//! no store.

use std::sync::Arc;

use crate::persist::block::{SegmentHeader, segment_header};
use crate::persist::crypt::{Encryption, Keyring};
use crate::persist::error::PersistError;
use crate::persist::format::{KEYS, SEGMENT_ATTACHED, VERSION, segment_name, snapshot_name};
use crate::persist::manifest;
use crate::persist::recover::{Recovery, recover};
use crate::persist::storage::Storage;
use crate::persist::wire::{GenerationWire, ManifestWire, SegmentWire, SnapshotWire};

/// How much is copied at a time, in bytes.
const PIECE: usize = if cfg!(test) { 512 } else { 1 << 20 };

/// How the new directory gets its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// By copies, which share blocks with the originals where the file system can do that.
    Copy,
    /// By other names for the same files, where that can be. They must never change again.
    Link,
}

/// A segment to be taken.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) wire: SegmentWire,
    /// How much of it; all of it if that is not given.
    pub(crate) end: Option<u64>,
}

/// What the new directory is to hold.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) hash_seed: [u8; 16],
    pub(crate) shards: u32,
    /// The sequence number of the new manifest, and the numbers that it gives to new segments from here on.
    pub(crate) sequence: u64,
    pub(crate) next_segment: u64,
    pub(crate) snapshot: Option<SnapshotWire>,
    pub(crate) segments: Vec<Part>,
    /// The last block of the last segment, or that of the snapshot's cut.
    pub(crate) last_block: u64,
    /// The segment that the last block leads on to; 0 for none.
    pub(crate) sealed: u64,
}

/// A directory that has everything but its manifest.
pub struct Prepared {
    storage: Arc<dyn Storage>,
    manifest: ManifestWire,
    last_block: u64,
}

/// Copies what is to be taken, durably.
pub(crate) fn prepare(
    from: &dyn Storage,
    to: Arc<dyn Storage>,
    parts: Parts,
    means: Means,
) -> Result<Prepared, PersistError> {
    if let Some(snapshot) = &parts.snapshot {
        bring(from, &*to, &snapshot_name(snapshot.number), means)?;
    }
    for part in &parts.segments {
        take(from, &*to, &segment_name(part.wire.number), part.end, means)?;
    }
    // The keys of encrypted files, wrapped.
    if from.exists(KEYS).map_err(PersistError::io("look for", from.path(KEYS)))? {
        take(from, &*to, KEYS, None, Means::Copy)?;
    }
    if let Some(last) = parts.segments.last().filter(|_| parts.sealed != 0) {
        add_empty(&*to, &parts, parts.sealed, last.wire.generation)?;
    }
    to.sync_dir().map_err(PersistError::io("sync", to.path("")))?;
    let segments: Vec<SegmentWire> = parts.segments.into_iter().map(|part| part.wire).collect();
    let highest = segments.last().map_or(0, |last| last.number).max(parts.sealed);
    let manifest = ManifestWire {
        sequence: parts.sequence,
        hash_seed: parts.hash_seed,
        shards: parts.shards,
        durable_block: parts.last_block,
        next_segment: parts.next_segment.max(highest + 1),
        clean: false,
        current: GenerationWire { snapshot: parts.snapshot, segments },
        kept: Vec::new(),
    };
    Ok(Prepared { storage: to, manifest, last_block: parts.last_block })
}

impl Prepared {
    /// Checks every byte of the new directory against its checksums, as far as that can be done without keys.
    ///
    /// # Errors
    /// It is not what it should be.
    pub fn check(&self) -> Result<Recovery, PersistError> {
        let recovery = recover(&self.storage, &self.manifest, false, Arc::new(()))?;
        if let Some(torn) = &recovery.summary.torn {
            return Err(PersistError::corrupt(&torn.file, torn.offset, &torn.what));
        }
        // Without a log, a start begins with the block after the snapshot's.
        if recovery.summary.last_block != self.last_block {
            let what = format!("it ends with block {} and not {}", recovery.summary.last_block, self.last_block);
            return Err(PersistError::corrupt(self.storage.path(""), 0, what));
        }
        if let Some(snapshot) = recovery.snapshot() {
            snapshot.verify_whole()?;
        }
        Ok(recovery)
    }

    /// Reads the new directory as a start would. The caller loads it before it calls [`Prepared::finish`].
    ///
    /// # Errors
    /// It is not what it should be, or is encrypted and the key is missing.
    pub fn recovery(&self, encryption: Option<&Encryption>) -> Result<Recovery, PersistError> {
        let mut recovery = self.check()?;
        let keys = Keyring::open(&self.storage, self.manifest.hash_seed, false, encryption)?;
        recovery.unlock(keys.as_ref())?;
        Ok(recovery)
    }

    /// The last block in it.
    pub fn last_block(&self) -> u64 {
        self.last_block
    }

    /// Writes the manifest: from now on, it is a store.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn finish(self) -> Result<(), PersistError> {
        manifest::replace(&*self.storage, &self.manifest)
    }
}

/// Brings a whole file over, durably, unless it is there.
pub(crate) fn bring(from: &dyn Storage, to: &dyn Storage, name: &str, means: Means) -> Result<(), PersistError> {
    if to.exists(name).map_err(PersistError::io("look for", to.path(name)))? {
        return Ok(());
    }
    take(from, to, name, None, means)
}

/// Brings a file over, durably, or as much of it as is wanted.
fn take(from: &dyn Storage, to: &dyn Storage, name: &str, end: Option<u64>, means: Means) -> Result<(), PersistError> {
    let (source, path) = (from.path(name), to.path(name));
    if means == Means::Link && end.is_none() && to.link(&source, name).map_err(PersistError::io("link", &path))? {
        return Ok(());
    }
    let io = |op| PersistError::io(op, &path);
    if to.reflink(&source, name).map_err(io("copy"))? {
        let file = to.open(name).map_err(io("open"))?;
        if let Some(end) = end {
            file.set_len(end).map_err(io("cut"))?;
        }
        return file.sync_data().map_err(io("sync"));
    }
    let reader = from.reader(name).map_err(PersistError::io("open", &source))?;
    let file = to.create(name).map_err(io("create"))?;
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    let end = end.unwrap_or(u64::MAX);
    while at < end {
        let wanted = usize::try_from(end - at).map_or(PIECE, |rest| rest.min(PIECE));
        let count = reader.read_at(at, &mut piece[..wanted]).map_err(PersistError::io("read", &source))?;
        if count == 0 {
            break;
        }
        file.append(&piece[..count]).map_err(io("write"))?;
        at += count as u64;
    }
    file.sync_data().map_err(io("sync"))
}

/// Makes the segment that the last block leads on to. It has no block.
fn add_empty(to: &dyn Storage, parts: &Parts, number: u64, generation: u64) -> Result<(), PersistError> {
    let name = segment_name(number);
    let path = to.path(&name);
    let io = |op| PersistError::io(op, &path);
    let header = SegmentHeader {
        version: VERSION,
        kind: SEGMENT_ATTACHED,
        number,
        generation,
        hash_seed: parts.hash_seed,
        recycled: false,
        key: 0,
    };
    let file = to.create(&name).map_err(io("create"))?;
    file.append(&segment_header(&header)).map_err(io("write"))?;
    file.sync_data().map_err(io("sync"))
}
