//! Stores around fuzzed bytes: a start on a simulated disk must end in an error or in a sound keyspace, and what was
//! recovered once must be recovered again.

mod keys;

use std::sync::Arc;

use crc32fast::hash;
use ironkeep::base::hash::HashSeed;
use ironkeep::base::logging::{self, Level};
use ironkeep::base::progress::{Display, Progress};
use ironkeep::durable::loading;
use ironkeep::durable::pace::Pace;
use ironkeep::keyspace::{Keyspace, SHARDS};
use ironkeep::persist::format::VERSION;
use ironkeep::persist::storage::SimStorage;
use ironkeep::persist::wire::{GenerationWire, ManifestWire, SegmentWire, SnapshotWire};
use ironkeep::persist::{FsyncPolicy, PersistError, Store, StoreOptions};
use ironkeep::value::Limits;
use keys::{Keys, keys};

/// The seed of all stores here.
pub const SEED: [u8; 16] = *b"0123456789abcdef";
/// The run that wrote them.
#[allow(dead_code)]
pub const GENERATION: u64 = 1;

/// A store that a server wrote: snapshot, log and manifest.
#[allow(dead_code)] // not every target starts from it
pub fn golden() -> SimStorage {
    let storage = SimStorage::new();
    storage.put("MANIFEST", include_bytes!("../../../data/store-v1-server/MANIFEST"));
    storage.put(
        "snapshot-0000000000000001.ik",
        include_bytes!("../../../data/store-v1-server/snapshot-0000000000000001.ik"),
    );
    storage.put("log-0000000000000002.ik", include_bytes!("../../../data/store-v1-server/log-0000000000000002.ik"));
    storage
}

/// Any body behind a right frame header.
#[allow(dead_code)]
pub fn framed(magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&hash(body).to_le_bytes());
    out.extend_from_slice(&hash(&out).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// A manifest that names these files.
#[allow(dead_code)]
pub fn manifest(snapshot: Option<SnapshotWire>, segments: Vec<SegmentWire>) -> ManifestWire {
    ManifestWire {
        sequence: 1,
        hash_seed: SEED,
        shards: SHARDS as u32,
        durable_block: 0,
        next_segment: 9,
        clean: false,
        current: GenerationWire { snapshot, segments },
        kept: Vec::new(),
    }
}

/// Starts on the disk, twice if the first start succeeds.
pub fn check(storage: &SimStorage, cut_at_corruption: bool) {
    if let Ok(keys) = start(storage, 2, cut_at_corruption) {
        let again = start(storage, 3, false).expect("what was recovered once is recovered again");
        assert_eq!(keys, again);
    }
}

fn start(storage: &SimStorage, generation: u64, cut_at_corruption: bool) -> Result<Keys, PersistError> {
    logging::set_level(Level::Nothing);
    let options = StoreOptions {
        workers: 1,
        shards: SHARDS as u32,
        hash_seed: SEED,
        generation,
        appendonly: true,
        policy: FsyncPolicy::No,
        clock: Arc::new(|| 0),
        cut_at_corruption,
        refuse_torn: false,
        foreign: Vec::new(),
        import: false,
        encryption: None,
        segment_bytes: 0,
        indexes: false,
        threads: false,
    };
    let (_store, recovery) = Store::open(Arc::new(storage.clone()), options)?;
    let keyspace = Keyspace::new(16, HashSeed(recovery.hash_seed()));
    let limits = Limits::defaults(HashSeed(recovery.hash_seed()));
    loading::load(&keyspace, &recovery, limits, 1, Pace::of(0), (&Progress::default(), Display::Nowhere))?;
    if let Some(snapshot) = recovery.snapshot() {
        // Whatever it says, it must be able to say it.
        let _ = snapshot.verify_whole();
    }
    Ok(keys(&keyspace))
}
