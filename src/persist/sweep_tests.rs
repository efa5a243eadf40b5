//! Every single bit of a small store is flipped, and every file is cut at every length: the start refuses and names the
//! file, or everything is exactly right. Only the last block, which nothing says was synced, may be missing as a whole.
//! A log that is cut at the end of a block proves nothing of what followed: it leaves a prefix.
//!
//! Each feature has its own store: a log of several segments and runs, a snapshot with a log, kept generations,
//! encryption, and a clean shutdown, after which not even the last block may be missing.

use std::sync::Arc;

use super::block::find_blocks;
use super::crash_tests::{State, load, options};
use super::crypt::tests::encrypt;
use super::examine::check;
use super::format::{BLOCK_HEADER, LOCK, SEGMENT_HEADER};
use super::storage::SimStorage;
use super::*;

/// A store and the states that it has had, block by block.
struct Sample {
    storage: SimStorage,
    states: Vec<State>,
    runs: u64,
}

impl Sample {
    fn new() -> Sample {
        Sample { storage: SimStorage::new(), states: vec![State::new()], runs: 0 }
    }

    fn open(&mut self) -> Store {
        self.runs += 1;
        Store::open(Arc::new(self.storage.clone()), options(self.runs, true)).unwrap().0
    }

    /// A block with one record, synced.
    fn write(&mut self, store: &Store) {
        let n = self.states.len() as u64;
        let key = n % 5;
        let value = n.to_string();
        let args: [&[u8]; 3] = [b"SET", &[key as u8], value.as_bytes()];
        store.journal().append(0, (key % 4) as u16, n, 0, &args);
        store.log().sync_now().unwrap();
        let mut state = self.states[n as usize - 1].clone();
        state.insert(key, n);
        self.states.push(state);
    }

    fn snapshot(&self, store: &Store, retention: Retention) {
        let cut = store.cut_now().unwrap();
        let mut writer = store.snapshot_writer(&cut).unwrap();
        let state = self.states.last().unwrap();
        for shard in 0..4 {
            let push = |chunk: &mut ChunkWriter<'_>| {
                for (key, n) in state.iter().filter(|(key, _)| **key % 4 == u64::from(shard)) {
                    chunk.push(0, &[*key as u8], None, None, WireValue::Bytes(n.to_string().as_bytes()));
                }
            };
            writer.chunk(shard, shard % 2 == 0, push).unwrap();
        }
        store.commit(cut, writer.finish().unwrap(), retention).unwrap();
    }

    /// Tries all damage. `exact`: not even the last block may be missing.
    fn sweep(&self, what: &str, exact: bool) {
        let allowed = &self.states[self.states.len() - if exact { 1 } else { 2 }..];
        let (mut refused, mut cut, mut whole) = (0, 0, 0);
        let mut look = |name: &str, damage: &str, bytes: &[u8], allowed: &[State]| {
            let image = self.storage.process_image();
            image.put(name, bytes);
            let opened = Store::open(Arc::new(image.clone()), options(99, true));
            match opened.and_then(|(_, recovery)| load(&recovery)) {
                Ok(state) if state == allowed[allowed.len() - 1] => whole += 1,
                Ok(state) if allowed.contains(&state) => cut += 1,
                Ok(state) => panic!("{what}: {name}, {damage}: a wrong value: {state:?}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("/sim/"), "{what}: {name}, {damage}: no file is named: {text}");
                    refused += 1;
                }
            }
        };
        let holds_blocks = |name: &String| {
            name.starts_with("log-")
                && find_blocks(&self.storage.get(name).unwrap(), SEGMENT_HEADER, self.runs, 0).next().is_some()
        };
        let last_log = self.storage.names().into_iter().filter(holds_blocks).max();
        for name in self.storage.names() {
            let bytes = self.storage.get(&name).unwrap();
            let is_last_log = !exact && Some(&name) == last_log.as_ref();
            // Zeros that were written ahead are swept in `damage_tests.rs`.
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for at in 0..end {
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    look(&name, &format!("bit {bit} of byte {at}"), &flipped, allowed);
                }
                let prefixes = if is_last_log { &self.states } else { allowed };
                look(&name, &format!("cut to {at} bytes"), &bytes[..at], prefixes);
            }
        }
        println!(
            "sweep: {what}: {} damaged stores: {refused} refused, {cut} without an end, {whole} whole",
            refused + cut + whole
        );
        assert!(refused > 1000 && (cut == 0) == exact, "{what}: {refused} {cut}");
    }
}

/// Segments of two runs, one of which was cut without a snapshot.
fn segments() -> Sample {
    let mut sample = Sample::new();
    for blocks in [2, 1] {
        let store = sample.open();
        sample.write(&store);
        store.abandon(store.cut_now().unwrap());
        (0..blocks).for_each(|_| sample.write(&store));
    }
    sample
}

fn snapshot_and_log() -> Sample {
    let mut sample = Sample::new();
    let store = sample.open();
    (0..5).for_each(|_| sample.write(&store));
    sample.snapshot(&store, Retention::default());
    (0..2).for_each(|_| sample.write(&store));
    sample
}

#[test]
fn any_damage_to_a_log_of_several_segments_is_refused_or_harmless() {
    segments().sweep("several segments", false);
}

#[test]
fn any_damage_to_a_snapshot_and_its_log_is_refused_or_harmless() {
    snapshot_and_log().sweep("a snapshot and its log", false);
}

#[test]
fn any_damage_after_a_clean_shutdown_is_refused_or_harmless() {
    let mut sample = snapshot_and_log();
    let store = sample.open();
    sample.write(&store);
    store.close().unwrap();
    drop(store);
    sample.sweep("a clean shutdown", true);
}

#[test]
fn any_damage_to_an_encrypted_store_is_refused_or_harmless() {
    encrypt("7", true);
    snapshot_and_log().sweep("encryption", false);
}

/// What only older generations need does not matter to a start, but a check finds it.
#[test]
fn any_damage_to_kept_generations_is_refused_or_harmless_and_found_by_a_check() {
    let mut sample = Sample::new();
    let store = sample.open();
    let keep = Retention { count: 2, ..Retention::default() };
    for _ in 0..2 {
        (0..2).for_each(|_| sample.write(&store));
        sample.snapshot(&store, keep);
    }
    sample.write(&store);
    drop(store);
    sample.sweep("kept generations", false);
    assert_eq!(check(&sample.storage.process_image()).faults, vec![]);
    let last = sample.storage.names().iter().filter(|name| name.starts_with("snapshot-")).max().cloned();
    let mut found = 0;
    for name in sample.storage.names().into_iter().filter(|name| *name != LOCK && Some(name) != last.as_ref()) {
        let bytes = sample.storage.get(&name).unwrap();
        let end = match find_blocks(&bytes, SEGMENT_HEADER, 1, 0).last() {
            Some((at, block)) => at + block.len,
            None if name.starts_with("log-") => continue,
            None => bytes.len(),
        };
        for at in 0..end.max(BLOCK_HEADER) {
            let image = sample.storage.process_image();
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            image.put(&name, &flipped);
            let report = check(&image);
            assert!(!report.faults.is_empty() || is_last_block(&bytes, at), "{name}: byte {at}");
            found += 1;
        }
    }
    assert!(found > 500, "{found}");
}

/// Whether the byte belongs to the last block of a log, which may pass for a torn tail.
fn is_last_block(bytes: &[u8], at: usize) -> bool {
    find_blocks(bytes, SEGMENT_HEADER, 1, 0).last().is_some_and(|(begin, _)| at >= begin)
}
