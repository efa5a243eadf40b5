//! All of a data directory: every file that the manifest names against its checksums, and what else is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::find_places;
use super::chain::{self, Run, read_header};
use super::snapshot::{self, SeenSnapshot};
use super::window::Window;
use crate::persist::crypt::{Encryption, Keyring};
use crate::persist::error::PersistError;
use crate::persist::format::{
    KEYS, KEYS_MAGIC, LOCK, MANIFEST, SEGMENT_ATTACHED, SEGMENT_HEADER, VERSION_ENCRYPTED, index_number, is_own_name,
    segment_name, segment_number, snapshot_name, snapshot_number,
};
use crate::persist::manifest;
use crate::persist::recover::{Recovery, recover};
use crate::persist::storage::Storage;
use crate::persist::wire::{FrameFault, GenerationWire, KeysWire, ManifestWire, unframe};

/// How often a directory is looked at whose server replaces files meanwhile.
const LOOKS: usize = 5;

/// What a file of the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// It names the others.
    Manifest,
    /// The keys of encrypted files, wrapped.
    Keys,
    /// A whole keyspace.
    Snapshot,
    /// A part of the log.
    Segment,
    /// What a recovery has cut from the log and kept aside. Nothing reads it.
    Aside,
    /// Where the records of each shard lie in a segment. It may be missing.
    Index,
    /// The store's own, but not named by the manifest: made ahead of need, or left over.
    Unused,
}

/// What was verified of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its name in the directory.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub bytes: u64,
    /// Chunks of a snapshot or blocks of a segment whose checksums hold.
    pub verified: u64,
    /// The first and the last block of a segment, if it has any; twice the block of the cut for a snapshot.
    pub blocks: Option<(u64, u64)>,
    /// When the first and the last of them were written, Unix ms.
    pub times_ms: Option<(u64, u64)>,
}

/// A snapshot and how far the log behind it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationReport {
    /// The snapshot's number; none if the log begins from nothing.
    pub snapshot: Option<u64>,
    /// Keys in the snapshot.
    pub entries: u64,
    /// The first state that it can give: the block of the snapshot's cut.
    pub from_block: u64,
    /// When that was, Unix ms.
    pub from_time_ms: u64,
    /// The last state: a block.
    pub to_block: u64,
    /// When that was written, Unix ms.
    pub to_time_ms: u64,
    /// Whether a start recovers from it.
    pub is_current: bool,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where in it, if that can be said.
    pub offset: Option<u64>,
    /// The block that should be there.
    pub block: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// Whether the bytes are wrong or missing. If not, the system could not read them.
    pub is_damage: bool,
}

impl Fault {
    pub(crate) fn of(error: &PersistError, block: Option<u64>) -> Fault {
        let (file, offset, what, is_damage) = match error {
            PersistError::Corrupt { file, offset, what } => (file.clone(), Some(*offset), what.clone(), true),
            PersistError::Refused { file, why } => (file.clone(), None, why.clone(), true),
            PersistError::Io { op, path, source } => (path.clone(), None, format!("cannot {op} it: {source}"), false),
            PersistError::Version { file, .. } => (file.clone(), None, error.to_string(), false),
            _ => (PathBuf::new(), None, error.to_string(), false),
        };
        Fault { file, offset, block, what, is_damage }
    }
}

/// The unfinished end of the log. It is no damage: nothing acknowledged as durable was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The segment.
    pub file: PathBuf,
    /// Where the valid blocks end.
    pub offset: u64,
    /// The block that is unfinished.
    pub block: u64,
    /// What is there instead.
    pub what: String,
}

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The directory.
    pub dir: PathBuf,
    /// Whether a server has it open.
    pub is_live: bool,
    /// The sequence number of the manifest; 0 without a readable one.
    pub sequence: u64,
    /// The files, by name.
    pub files: Vec<FileReport>,
    /// What can be restored, oldest first.
    pub generations: Vec<GenerationReport>,
    /// The highest block that the files themselves say is durable.
    pub durable_block: u64,
    /// The last valid block,
    pub last_block: u64,
    /// and when it was written, Unix ms; 0 without one.
    pub last_time_ms: u64,
    /// The unfinished end of the log, if there is one.
    pub tail: Option<Tail>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether any file is damaged.
    pub fn is_damaged(&self) -> bool {
        self.faults.iter().any(|fault| fault.is_damage)
    }
}

/// Checks a directory. It changes nothing and takes no lock.
pub fn check(storage: &dyn Storage) -> Report {
    let mut looks = 0;
    loop {
        looks += 1;
        let before = storage.read(MANIFEST).ok();
        let report = look(storage);
        let goes_on = report.is_live && !report.faults.is_empty() && looks < LOOKS;
        // The server may have replaced the files in between.
        let has_changed = || storage.read(MANIFEST).ok().as_deref() != before.as_deref();
        if !goes_on || !(has_changed() || report.sequence == 0) {
            return report;
        }
    }
}

/// Reads a directory as a start would, but takes no lock and changes nothing. No server may have it open.
///
/// # Errors
/// There is no store, or it is damaged, or encrypted and the key is missing.
pub fn recovery(storage: &Arc<dyn Storage>, encryption: Option<&Encryption>) -> Result<Recovery, PersistError> {
    let manifest = manifest::read(&**storage)?.ok_or_else(|| PersistError::Refused {
        file: storage.path(MANIFEST),
        why: "there is no store here: it is missing".to_owned(),
    })?;
    recovery_of(storage, &manifest, encryption)
}

/// The same for what a manifest names.
pub(crate) fn recovery_of(
    storage: &Arc<dyn Storage>,
    manifest: &ManifestWire,
    encryption: Option<&Encryption>,
) -> Result<Recovery, PersistError> {
    let mut recovery = recover(storage, manifest, false, Arc::new(()))?;
    let keys = Keyring::open(storage, manifest.hash_seed, false, encryption)?;
    recovery.unlock(keys.as_ref())?;
    Ok(recovery)
}

fn look(storage: &dyn Storage) -> Report {
    let mut report = Report { dir: storage.path(""), is_live: storage.is_locked(), ..Report::default() };
    let manifest = match manifest::read(storage) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            let what = "there is no store here: it is missing".to_owned();
            let file = storage.path(MANIFEST);
            report.faults.push(Fault { file, offset: None, block: None, what, is_damage: false });
            return report;
        }
        Err(error) => {
            report.faults.push(Fault::of(&error, None));
            return report;
        }
    };
    report.sequence = manifest.sequence;
    let names = match storage.list() {
        Ok(names) => names,
        Err(error) => {
            report.faults.push(Fault::of(&PersistError::io("list", storage.path(""))(error), None));
            return report;
        }
    };
    let mut snapshots = Vec::new();
    for number in snapshots_of(&manifest) {
        snapshots.extend(look_at_snapshot(storage, &manifest, number, &mut report));
    }
    let mut keys: Vec<u32> = snapshots.iter().map(|(_, seen)| seen.key).collect();
    match chain::walk(storage, &manifest, report.is_live, &mut |_, _| true) {
        Ok(runs) => {
            keys.extend(runs.iter().flat_map(|run| &run.segments).map(|segment| segment.key));
            add_runs(storage, &manifest, &runs, &mut report);
            report.generations = generations(&manifest, &snapshots, &runs);
        }
        Err(error) => report.faults.push(Fault::of(&error, None)),
    }
    look_for_later_runs(storage, &manifest, &names, &mut report);
    look_at_keys(storage, &manifest, &keys, &mut report);
    add_others(storage, &names, &mut report);
    report.files.sort_by(|one, other| one.name.cmp(&other.name));
    report
}

/// The numbers of the snapshots that a manifest names, oldest first.
pub(crate) fn snapshots_of(manifest: &ManifestWire) -> Vec<u64> {
    let generations = manifest.kept.iter().chain([&manifest.current]);
    generations.filter_map(|generation| generation.snapshot.as_ref().map(|snapshot| snapshot.number)).collect()
}

fn look_at_snapshot(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    number: u64,
    report: &mut Report,
) -> Option<(u64, SeenSnapshot)> {
    let seen = open_snapshot(storage, manifest, number);
    let result = seen.and_then(|(seen, mut window)| {
        let wrong = snapshot::verify(storage, number, &seen, &mut window, |_| true)?;
        Ok((seen, wrong))
    });
    let (seen, wrong) = match result {
        Ok(read) => read,
        Err(error) => {
            report.faults.push(Fault::of(&error, None));
            return None;
        }
    };
    let (cut, time) = (seen.header.cut_block, seen.header.time_ms);
    report.files.push(FileReport {
        name: snapshot_name(number),
        kind: FileKind::Snapshot,
        bytes: seen.length,
        verified: (seen.chunks.len() - wrong.len().min(seen.chunks.len())) as u64,
        blocks: Some((cut, cut)),
        times_ms: Some((time, time)),
    });
    report.faults.extend(wrong.iter().map(|error| Fault::of(error, None)));
    Some((number, seen))
}

/// Opens a snapshot that the manifest names and compares the two.
pub(crate) fn open_snapshot(
    storage: &dyn Storage,
    manifest: &ManifestWire,
    number: u64,
) -> Result<(SeenSnapshot, Window), PersistError> {
    let name = snapshot_name(number);
    if !storage.exists(&name).map_err(PersistError::io("look for", storage.path(&name)))? {
        let why = "the manifest needs it, but it is missing".to_owned();
        return Err(PersistError::Refused { file: storage.path(&name), why });
    }
    let mut window = snapshot::window(storage, number)?;
    let seen = snapshot::read_frame(storage, number, &mut window)?;
    let mut wires = manifest.kept.iter().chain([&manifest.current]).filter_map(|kept| kept.snapshot.as_ref());
    let is_meant = wires.any(|wire| wire.number == number && seen.is(wire, &manifest.hash_seed));
    if !is_meant {
        let why = "it is not the snapshot that the manifest names: one of the two is stale".to_owned();
        return Err(PersistError::Refused { file: storage.path(&name), why });
    }
    Ok((seen, window))
}

fn add_runs(storage: &dyn Storage, manifest: &ManifestWire, runs: &[Run], report: &mut Report) {
    report.durable_block = manifest.durable_block;
    let cut = manifest.current.snapshot.as_ref().map_or(0, |snapshot| snapshot.cut_block);
    report.last_block = runs.last().map_or(cut, |run| run.last_block);
    report.last_time_ms = runs.last().map_or(0, |run| run.last_time_ms);
    for run in runs {
        report.durable_block = report.durable_block.max(run.durable);
        for segment in &run.segments {
            let first = segment.wire.first_block;
            report.files.push(FileReport {
                name: segment_name(segment.wire.number),
                kind: FileKind::Segment,
                bytes: segment.length,
                verified: segment.blocks,
                blocks: (segment.blocks > 0).then(|| (first, first + segment.blocks - 1)),
                times_ms: segment.times_ms,
            });
        }
    }
    let last = runs.len().saturating_sub(1);
    for (index, broken) in runs.iter().enumerate().filter_map(|(at, run)| Some((at, run.broken.as_ref()?))) {
        let mut fault = Fault::of(&broken.error, Some(broken.block));
        fault.offset = fault.offset.or(Some(broken.offset));
        if broken.is_damage {
            report.faults.push(fault);
        } else if index == last {
            let file = storage.path(&segment_name(broken.segment));
            report.tail = Some(Tail { file, offset: broken.offset, block: broken.block, what: fault.what });
        }
    }
}

/// What can be restored, oldest first.
pub(crate) fn generations(
    manifest: &ManifestWire,
    snapshots: &[(u64, SeenSnapshot)],
    runs: &[Run],
) -> Vec<GenerationReport> {
    let of = |generation: &GenerationWire, is_current: bool| {
        let wire = generation.snapshot.as_ref();
        let seen = wire.and_then(|wire| snapshots.iter().find(|(number, _)| *number == wire.number));
        // One whose snapshot is damaged gives nothing.
        if wire.is_some() && seen.is_none() {
            return None;
        }
        let run = generation.segments.first().and_then(|first| {
            runs.iter().find(|run| run.segments.iter().any(|segment| segment.wire.number == first.number))
        });
        // Before the first block, nobody knows.
        let first_time = || run.and_then(|run| run.segments.first()?.times_ms).map_or(0, |(first, _)| first);
        let from_time_ms = seen.map_or_else(first_time, |(_, seen)| seen.header.time_ms);
        let from_block = match (wire, run) {
            (Some(wire), _) => wire.cut_block,
            (None, Some(run)) => run.first_block - 1,
            (None, None) => return None,
        };
        let run = run.filter(|run| run.last_block > from_block);
        Some(GenerationReport {
            snapshot: wire.map(|wire| wire.number),
            entries: wire.map_or(0, |wire| wire.entries),
            from_block,
            from_time_ms,
            to_block: run.map_or(from_block, |run| run.last_block),
            to_time_ms: run.map_or(from_time_ms, |run| run.last_time_ms),
            is_current,
        })
    };
    let kept = manifest.kept.iter().filter_map(|kept| of(kept, false));
    kept.chain(of(&manifest.current, true)).collect()
}

/// A later run has logged into segments that the manifest does not know: somebody has put an older manifest back.
fn look_for_later_runs(storage: &dyn Storage, manifest: &ManifestWire, names: &[String], report: &mut Report) {
    let own = manifest.current.segments.last().map(|segment| segment.generation);
    // A server that runs makes segments beyond what the manifest knows.
    let beyond = |number: &u64| *number >= manifest.next_segment && !report.is_live;
    for number in names.iter().filter_map(|name| segment_number(name)).filter(beyond).collect::<Vec<_>>() {
        let path = storage.path(&segment_name(number));
        let Ok(mut window) = storage.reader(&segment_name(number)).map(Window::new) else { continue };
        let Ok(header) = read_header(&mut window, &path) else { continue };
        if header.kind != SEGMENT_ATTACHED || header.hash_seed != manifest.hash_seed || Some(header.generation) == own {
            continue;
        }
        let mut block = None;
        let _ = find_places(&mut window, SEGMENT_HEADER as u64, header.generation, 0, |place| {
            block = Some(place.header.number);
            false
        });
        if let Some(block) = block {
            let what = format!("it is older than {}, which a later run has logged into", segment_name(number));
            let file = storage.path(MANIFEST);
            report.faults.push(Fault { file, offset: None, block: Some(block), what, is_damage: true });
        }
    }
}

/// The file of the data keys: whether it is whole, and has those that the other files need.
fn look_at_keys(storage: &dyn Storage, manifest: &ManifestWire, needed: &[u32], report: &mut Report) {
    let path = storage.path(KEYS);
    let is_needed = needed.iter().any(|&key| key != 0);
    let fault = |what: String| Fault { file: path.clone(), offset: None, block: None, what, is_damage: true };
    let bytes = match storage.exists(KEYS) {
        Ok(false) if is_needed => return report.faults.push(fault("it is missing, and files are encrypted".into())),
        Ok(false) => return,
        Ok(true) | Err(_) => storage.read(KEYS),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => return report.faults.push(Fault::of(&PersistError::io("read", &path)(error), None)),
    };
    let keys = match unframe::<KeysWire>(KEYS_MAGIC, &bytes) {
        Ok((keys, _)) => keys,
        Err(FrameFault::Corrupt(what)) => return report.faults.push(fault(what.to_owned())),
        Err(FrameFault::Version(found)) => {
            let error = PersistError::Version { file: path.clone(), found, supported: VERSION_ENCRYPTED };
            return report.faults.push(Fault::of(&error, None));
        }
    };
    if keys.store != manifest.hash_seed {
        report.faults.push(fault("it holds the keys of another store".into()));
    }
    let is_there = |key: &&u32| **key == 0 || keys.keys.iter().any(|known| known.id == **key);
    if let Some(missing) = needed.iter().find(|key| !is_there(key)) {
        report.faults.push(fault(format!("it lacks the data key {missing:08x}, which a file needs")));
    }
    let (bytes, verified) = (bytes.len() as u64, keys.keys.len() as u64);
    let (name, kind) = (KEYS.to_owned(), FileKind::Keys);
    report.files.push(FileReport { name, kind, bytes, verified, blocks: None, times_ms: None });
}

/// Files of the store that no generation needs.
fn add_others(storage: &dyn Storage, names: &[String], report: &mut Report) {
    let is_ours = |name: &&String| is_own_name(name) && *name != LOCK;
    for name in names.iter().filter(is_ours) {
        if report.files.iter().any(|file| file.name == *name) {
            continue;
        }
        // Faults have named those that should be part of it.
        if report.faults.iter().any(|fault| fault.file == storage.path(name)) {
            continue;
        }
        let kind = match name.as_str() {
            MANIFEST => FileKind::Manifest,
            name if is_aside(name) => FileKind::Aside,
            name if index_number(name).is_some() => FileKind::Index,
            _ => FileKind::Unused,
        };
        let bytes = storage.reader(name).and_then(|reader| reader.len());
        // One that has just gone.
        let Ok(bytes) = bytes else { continue };
        let verified = u64::from(kind == FileKind::Manifest);
        report.files.push(FileReport { name: name.clone(), kind, bytes, verified, blocks: None, times_ms: None });
    }
}

fn is_aside(name: &str) -> bool {
    let is_segment = segment_number(name).is_some() || snapshot_number(name).is_some();
    !is_segment && Path::new(name).extension().is_some_and(|end| end.to_string_lossy().starts_with("torn-"))
}
