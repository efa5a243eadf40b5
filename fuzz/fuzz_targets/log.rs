//! Any bytes as a log: a whole segment, the payloads of otherwise valid blocks, or damage to such blocks: of version 1
//! or of today's. What is sound is replayed.
//!
//! The first byte chooses. Payloads follow, each behind its length of two bytes.
#![no_main]

mod support;

use ironkeep::persist::block::{BlockHeader, SegmentHeader, finish_block, segment_header};
use ironkeep::persist::format::{
    BLOCK_HEADER, END_MARK, MANIFEST_MAGIC, SEGMENT_ATTACHED, VERSION, VERSION_OLDEST, segment_name,
};
use ironkeep::persist::storage::SimStorage;
use ironkeep::persist::wire::{SegmentWire, frame};
use libfuzzer_sys::fuzz_target;

const NEXT: u64 = 2;

/// The payloads as blocks of a chain; the block that says so leads on to the next segment. In recycled segments the
/// input itself stands behind the end mark.
fn segments(mut payloads: &[u8], recycled: bool, version: u32) -> Vec<Vec<u8>> {
    let behind = if recycled { payloads } else { &[] };
    let head = |number| {
        let generation = support::GENERATION;
        let hash_seed = support::SEED;
        segment_header(&SegmentHeader { version, kind: SEGMENT_ATTACHED, number, generation, hash_seed, recycled, key: 0 })
            .to_vec()
    };
    let mut files = vec![head(1)];
    let (mut number, mut prev_crc) = (0, 0);
    while let Some((&[low, high], rest)) = payloads.split_first_chunk::<2>() {
        let wanted = usize::from(u16::from_le_bytes([low, high & 0x7F]));
        let (payload, rest) = rest.split_at(wanted.min(rest.len()));
        payloads = rest;
        number += 1;
        let seals = high & 0x80 != 0 && files.len() == 1;
        let mut block = vec![0; BLOCK_HEADER];
        block.extend_from_slice(payload);
        let header = BlockHeader {
            number,
            generation: support::GENERATION,
            time_ms: 0,
            durable: 0,
            next_segment: if seals { NEXT } else { 0 },
            prev_crc,
        };
        prev_crc = finish_block(&mut block, &header);
        files.last_mut().expect("one at least").extend_from_slice(&block);
        if seals {
            files.push(head(NEXT));
        }
    }
    if recycled {
        for file in &mut files {
            file.extend_from_slice(&[0; END_MARK]);
            file.extend_from_slice(behind);
        }
    }
    files
}

fuzz_target!(|input: &[u8]| {
    let [choice, bytes @ ..] = input else { return };
    if choice & 3 == 0 {
        let storage = support::golden();
        storage.put("log-0000000000000002.ik", bytes);
        return support::check(&storage, choice & 4 != 0);
    }
    // Damage: the place and the change come first.
    let (damage, bytes) = match (choice & 3, bytes) {
        (1, [low, high, change, rest @ ..]) => (Some((u16::from_le_bytes([*low, *high]), *change)), rest),
        _ => (None, bytes),
    };
    let mut files = segments(bytes, choice & 8 != 0, if choice & 16 != 0 { VERSION } else { VERSION_OLDEST });
    if let Some((at, change)) = damage {
        let file = files.last_mut().expect("one at least");
        let at = usize::from(at) % file.len();
        match change {
            0 => file.truncate(at),
            change => file[at] ^= change,
        }
    }
    let storage = SimStorage::new();
    for (index, file) in files.iter().enumerate() {
        storage.put(&segment_name(index as u64 + 1), file);
    }
    let first = SegmentWire { number: 1, generation: support::GENERATION, first_block: 1, prev_crc: 0 };
    storage.put("MANIFEST", &frame(MANIFEST_MAGIC, &support::manifest(None, vec![first])));
    support::check(&storage, choice & 4 != 0);
});
