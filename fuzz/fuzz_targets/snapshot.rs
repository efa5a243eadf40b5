//! Any bytes as a snapshot: a whole file, or the entries of one shard in an otherwise valid file.
#![no_main]

mod support;

use crc32fast::hash;
use ironkeep::base::hash::HashSeed;
use ironkeep::keyspace::{SHARDS, shard_of};
use ironkeep::persist::format::{FOOTER_MAGIC, MANIFEST_MAGIC, SNAPSHOT_MAGIC};
use ironkeep::persist::wire::{ChunkWire, SnapshotHeaderWire, SnapshotIndexWire, SnapshotWire, encode, frame};
use libfuzzer_sys::fuzz_target;

const NAME: &str = "snapshot-0000000000000001.ik";

/// A file with one chunk of these stored bytes.
fn file(stored: &[u8], chunk: ChunkWire) -> (Vec<u8>, u32) {
    let header = SnapshotHeaderWire {
        hash_seed: support::SEED,
        shards: SHARDS as u32,
        cut_block: 0,
        generation: support::GENERATION,
        time_ms: 0,
        log_since: None,
    };
    let mut out = frame(SNAPSHOT_MAGIC, &header);
    let entries = chunk.entries;
    let chunk = ChunkWire { offset: out.len() as u64, stored_len: stored.len() as u64, crc: hash(stored), ..chunk };
    out.extend_from_slice(stored);
    let start = out.len() as u64;
    let index = encode(&SnapshotIndexWire { chunks: vec![chunk] });
    out.extend_from_slice(&index);
    let crc = hash(&out);
    let mut footer = Vec::new();
    for long in [start, index.len() as u64, entries] {
        footer.extend_from_slice(&long.to_le_bytes());
    }
    for word in [hash(&index), crc, 0] {
        footer.extend_from_slice(&word.to_le_bytes());
    }
    footer.extend_from_slice(&hash(&footer).to_le_bytes());
    footer.extend_from_slice(&FOOTER_MAGIC);
    out.extend_from_slice(&footer);
    (out, crc)
}

/// What the pieces of a chunk claim to decode to, so that they are looked at.
fn claimed_by_pieces(mut bytes: &[u8]) -> u64 {
    let mut claimed = 0_u64;
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let [raw, stored] =
            [0, 4].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        claimed += u64::from(raw);
        bytes = rest.get(stored as usize..).unwrap_or_default();
    }
    claimed
}

fuzz_target!(|input: &[u8]| {
    let [choice, entries, volatile, bytes @ ..] = input else { return };
    if choice & 1 == 0 {
        let storage = support::golden();
        storage.put(NAME, bytes);
        return support::check(&storage, false);
    }
    // A shard that the first key, if it is where one expects it, belongs to.
    let key = bytes.get(1).and_then(|&len| bytes.get(2..2 + usize::from(len))).unwrap_or_default();
    let (codec, raw_len) = match choice & 10 {
        0 => (0, bytes.len() as u64),
        2 => (1, u64::from(*volatile) * 8),
        _ => (2, claimed_by_pieces(bytes)),
    };
    // Now and then a claim that is beyond all bounds.
    let entries = u64::from(*entries) << if choice & 4 == 0 { 0 } else { 50 };
    let chunk = ChunkWire {
        shard: shard_of(HashSeed(support::SEED).hash(key)),
        codec,
        offset: 0,
        stored_len: 0,
        raw_len,
        entries,
        volatile: u64::from(*volatile),
        crc: 0,
    };
    let (file, crc) = file(bytes, chunk);
    let storage = ironkeep::persist::storage::SimStorage::new();
    let wire = SnapshotWire { number: 1, length: file.len() as u64, crc, cut_block: 0, entries };
    storage.put(NAME, &file);
    storage.put("MANIFEST", &frame(MANIFEST_MAGIC, &support::manifest(Some(wire), Vec::new())));
    support::check(&storage, false);
});
