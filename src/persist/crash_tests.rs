//! The store on a hostile disk: a power cut, or an error, at every single operation.
//!
//! The model: operation `n` sets key `n % 13` to the value `n`, or clears everything. The state after `n` operations
//! is thus known and unique. Whatever happens to the disk, the recovered state must be the one after some `n` that is
//! not below the last acknowledged operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::storage::SimStorage;
use super::storage::sim::Fault;
use super::*;

const SHARDS: u32 = 4;
const KEYS: u64 = 13;

pub(super) type State = BTreeMap<u64, u64>;

pub(super) fn options(generation: u64, appendonly: bool) -> StoreOptions {
    StoreOptions {
        workers: 2,
        shards: SHARDS,
        hash_seed: *b"0123456789abcdef",
        generation,
        appendonly,
        policy: FsyncPolicy::No,
        clock: Arc::new(|| 1_700_000_000_000),
        cut_at_corruption: false,
        refuse_torn: false,
        foreign: Vec::new(),
        import: false,
        encryption: super::crypt::tests::current(),
        segment_bytes: 0,
        indexes: true,
        threads: false,
    }
}

fn apply(state: &mut State, n: u64) {
    if n.is_multiple_of(29) {
        state.clear();
    } else {
        state.insert(n % KEYS, n);
    }
}

/// A value whose length makes blocks cross sectors occasionally.
fn value(n: u64) -> Vec<u8> {
    let mut value = n.to_string().into_bytes();
    value.resize(value.len() + (n * 37 % 300) as usize, b'.');
    value
}

fn number(value: &[u8]) -> u64 {
    let digits = value.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |sum, b| sum * 10 + u64::from(b - b'0'))
}

/// The keyspace and its commands, as the store sees them.
pub(super) struct Model {
    pub(super) store: Store,
    state: State,
    pub(super) appended: u64,
    pub(super) acknowledged: u64,
    seqs: [u64; SHARDS as usize],
    retention: Retention,
}

impl Model {
    /// Opens the store and checks that it holds the state after `low..=high` operations.
    pub(super) fn open(
        storage: &SimStorage,
        generation: u64,
        low: u64,
        high: u64,
        appendonly: bool,
    ) -> Result<Self, PersistError> {
        let (store, recovery) = Store::open(Arc::new(storage.clone()), options(generation, appendonly))?;
        let state = load(&recovery)?;
        let mut expected = State::new();
        let mut found = None;
        for n in 0..=high {
            if n > 0 {
                apply(&mut expected, n);
            }
            if n >= low && expected == state {
                found = Some(n);
            }
        }
        let appended = found
            .unwrap_or_else(|| panic!("{state:?} is not a state between {low} and {high}: {:?}", recovery.summary()));
        // Some runs keep what they replace.
        let retention = Retention { count: (generation % 2) as usize, ..Retention::default() };
        Ok(Self { store, state, appended, acknowledged: appended, seqs: [0; 4], retention })
    }

    pub(super) fn append(&mut self, count: u64) {
        for _ in 0..count {
            self.appended += 1;
            let n = self.appended;
            apply(&mut self.state, n);
            let mut appender = self.store.journal().appender((n % 2) as usize);
            if n.is_multiple_of(29) {
                appender.barrier(&super::testing::barrier(0, b"FLUSHALL"));
                continue;
            }
            let key = n % KEYS;
            let shard = (key % u64::from(SHARDS)) as usize;
            self.seqs[shard] += 1;
            let args: [&[u8]; 3] = [b"SET", &[key as u8], &value(n)];
            appender.record(shard as u16, self.seqs[shard], 0, &args);
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), PersistError> {
        self.store.log().sync_now()?;
        if self.store.log().is_active() {
            self.acknowledged = self.appended;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(State, u64, Cut), PersistError> {
        let (state, appended) = (self.state.clone(), self.appended);
        Ok((state, appended, self.store.cut_now()?))
    }

    fn write(&self, cut: &Cut, frozen: &State) -> Result<FinishedSnapshot, PersistError> {
        let mut writer = self.store.snapshot_writer(cut)?;
        for shard in (0..SHARDS as u16).rev() {
            writer.chunk(shard, shard % 2 == 0, |chunk| {
                for (key, n) in frozen.iter().filter(|(key, _)| **key as u16 % 4 == shard) {
                    chunk.push(0, &[*key as u8], None, None, WireValue::Bytes(&value(*n)));
                }
            })?;
        }
        writer.finish()
    }

    /// A whole snapshot, with operations in between.
    pub(super) fn snapshot(&mut self) -> Result<(), PersistError> {
        let (frozen, at, cut) = self.cut()?;
        self.append(3);
        let _ = self.store.log().flush();
        self.append(2);
        // What is synced behind the cut counts only if the log already counts.
        let _ = self.sync();
        self.append(1);
        let finished = match self.write(&cut, &frozen) {
            Ok(finished) => finished,
            Err(error) => {
                self.store.abandon(cut);
                return Err(error);
            }
        };
        self.store.commit(cut, finished, self.retention)?;
        self.acknowledged = self.acknowledged.max(at);
        Ok(())
    }
}

/// Applies what a recovery yields.
pub(super) fn load(recovery: &Recovery) -> Result<State, PersistError> {
    recovery.read_the_rest()?;
    let mut state = State::new();
    for shard in 0..SHARDS as u16 {
        if let Some(chunk) = recovery.shard_chunk(shard)? {
            for entry in chunk.iter() {
                let entry = entry.map_err(|what| recovery.chunk_error(shard, what))?;
                let WireValue::Bytes(value) = entry.value else { panic!("an integer") };
                state.insert(u64::from(entry.key[0]), number(value));
            }
        }
    }
    let mut windows = recovery.windows().of_bytes(300);
    while let Some(window) = windows.next_window()? {
        for epoch in window.epochs {
            if epoch.barrier.is_some() {
                state.clear();
            }
            for (shard, records) in epoch.shards {
                for record in records {
                    assert_eq!(record.shard, shard);
                    let words = record.words();
                    assert_eq!(words[0], b"SET");
                    state.insert(u64::from(words[1][0]), number(&words[2]));
                }
            }
        }
    }
    Ok(state)
}

/// Everything that a store does. It continues after errors, as a server does.
pub(super) fn script(model: &mut Model) {
    for _ in 0..4 {
        model.append(5);
        let _ = model.sync();
    }
    for _ in 0..5 {
        model.append(3);
        let _ = model.store.log().flush();
    }
    let _ = model.snapshot();
    model.append(4);
    let _ = model.sync();
    if let Ok((_, _, cut)) = model.cut() {
        model.append(4);
        let _ = model.sync();
        model.store.abandon(cut);
    }
    model.append(7);
    let _ = model.sync();
    for _ in 0..4 {
        model.append(2);
        let _ = model.store.log().flush();
    }
    let _ = model.snapshot();
    model.append(9);
    let _ = model.store.log().flush();
    model.append(9);
}

/// Segment after segment, each but the first over an older and mostly longer one. Some have more zeros written ahead
/// than others.
pub(super) fn script_of_recycling(model: &mut Model) {
    for blocks in [9, 6, 4, 7, 3] {
        let policy = if blocks % 3 == 0 { FsyncPolicy::Always } else { FsyncPolicy::No };
        model.store.log().set_policy(policy);
        for n in 0..blocks {
            model.append(n % 3 + 1);
            let _ = if n % 4 == 2 { model.sync() } else { model.store.log().flush().map(drop) };
        }
        let _ = model.snapshot();
    }
    model.append(2);
    let _ = model.store.log().flush();
    model.append(2);
}

/// Segments that end for their length, beside snapshots, cuts and errors.
pub(super) fn script_of_rotation(model: &mut Model) {
    model.store.log().set_segment_bytes(900);
    let live = |model: &mut Model, rounds: u64| {
        for n in 0..rounds {
            model.append(n % 3 + 1);
            let _ = if n % 4 == 3 { model.sync() } else { model.store.log().flush().map(drop) };
            if n % 3 > 0 {
                model.store.log().tend();
            }
        }
    };
    live(model, 9);
    let _ = model.snapshot();
    live(model, 7);
    if let Ok((_, _, cut)) = model.cut() {
        live(model, 3);
        model.store.abandon(cut);
    }
    live(model, 4);
    let _ = model.snapshot();
    model.store.log().tend();
    live(model, 5);
    model.append(2);
}

pub(super) fn script_of_switches(model: &mut Model) {
    model.append(5);
    let _ = model.sync();
    let _ = model.store.turn_log_off();
    model.append(5);
    let _ = model.snapshot();
    model.append(5);
    model.store.keep_log();
    model.append(5);
    let _ = model.snapshot();
    model.append(5);
    if model.sync().is_ok() {
        let _ = model.snapshot();
    }
    model.append(5);
    let _ = model.sync();
    let _ = model.store.close();
}

/// How many operations a script takes on a healthy disk.
pub(super) fn length_of(script: fn(&mut Model)) -> u64 {
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    script(&mut model);
    storage.operations()
}

fn crash_everywhere(script: fn(&mut Model), seeds: u64) {
    let length = length_of(script);
    assert!(length > 50, "{length}");
    let mut torn = 0;
    for crash in 0..=length {
        let storage = SimStorage::new();
        storage.crash_at(crash);
        let (low, high) = match Model::open(&storage, 1, 0, 0, true) {
            Ok(mut model) => {
                script(&mut model);
                (model.acknowledged, model.appended)
            }
            Err(_) => (0, 0),
        };
        for seed in 0..seeds {
            let image = storage.recover_image(seed);
            // A second run on what the first one left, with a second crash.
            image.crash_at((crash * 7 + seed) % 40);
            let first = Model::open(&image, 2, low, high, true);
            let (low, high) = match first {
                Ok(mut model) => {
                    // What was recovered and reopened must never be lost again.
                    model.append(3);
                    let _ = model.sync();
                    let _ = model.snapshot();
                    (model.acknowledged, model.appended)
                }
                Err(error) if image.crashed() => {
                    assert!(matches!(error, PersistError::Io { .. }), "{crash} {seed}: {error}");
                    (low, high)
                }
                Err(error) => panic!("crash at {crash}, seed {seed}: {error}"),
            };
            let image = image.recover_image(seed + 1000);
            let model = Model::open(&image, 3, low, high, true);
            let model = model.unwrap_or_else(|e| panic!("crash at {crash}, seed {seed}: {e}"));
            torn += u64::from(image.names().iter().any(|name| name.contains("torn")));
            drop(model);
        }
    }
    assert!(torn > 0, "the test must have seen torn tails");
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    crash_everywhere(script, 12);
}

#[test]
fn a_crash_at_every_operation_of_recycling_loses_nothing_acknowledged() {
    crash_everywhere(script_of_recycling, 24);
}

#[test]
fn a_crash_at_every_operation_of_rotation_loses_nothing_acknowledged() {
    crash_everywhere(script_of_rotation, 12);
}

/// Without a snapshot, all of them are recovered; and the next run lists them.
#[test]
fn a_segment_ends_for_its_length_and_no_write_waits_for_the_next_one() {
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    model.store.log().set_segment_bytes(2000);
    let count = || storage.names().iter().filter(|name| super::format::segment_number(name).is_some()).count();
    let before = count();
    for _ in 0..40 {
        model.append(3);
        let operations = storage.operations();
        model.store.log().flush().unwrap();
        // Zeros ahead of need, perhaps, and the block.
        assert!(storage.operations() - operations <= 2, "a write waits for more than itself");
        model.store.log().sync().unwrap();
        model.store.log().tend();
    }
    assert!(count() > before + 8, "{before} and then {}", count());
    model.sync().unwrap();
    for generation in 2..4 {
        let image = storage.recover_image(generation);
        let reopened = Model::open(&image, generation, 120, 120, true).unwrap();
        let recovered = reopened.store.read_again().unwrap();
        assert!(recovered.summary().segments > 8, "{:?}", recovered.summary());
        drop(reopened);
        let (_, recovery) = Store::open(Arc::new(image.process_image()), options(generation + 2, true)).unwrap();
        // Those that were synced when they were tended.
        assert!(recovery.unread_segments() > 5, "{}", recovery.unread_segments());
        assert!(recovery.unread_segments() < recovered.summary().segments, "the last one is read");
    }
    // Who makes no segments leaves the last one to grow.
    let before = count();
    for _ in 0..20 {
        model.append(3);
        model.store.log().flush().unwrap();
    }
    assert_eq!(count(), before);
    model.store.log().tend();
    // The first one keeps what it replaces.
    model.snapshot().unwrap();
    assert!(count() > before);
    model.snapshot().unwrap();
    assert!(count() <= 4, "{:?}", storage.names());
    // The spare segment overwrites an old one, although a new one was made ahead of it.
    let recycled = |name: &String| {
        let header = super::block::read_segment_header(&storage.get(name)?).ok()?;
        header.recycled.then_some(())
    };
    assert_eq!(storage.names().iter().filter_map(recycled).count(), 1);
}

#[test]
fn a_crash_at_every_operation_of_switching_the_log_loses_nothing_acknowledged() {
    crash_everywhere(script_of_switches, 12);
}

#[test]
fn the_death_of_the_process_alone_loses_nothing_written() {
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    for round in 0..20 {
        model.append(round);
        if round % 6 == 5 {
            model.snapshot().unwrap();
        }
        model.store.log().flush().unwrap();
        Model::open(&storage.process_image(), 2, model.appended, model.appended, true).unwrap();
    }
}

#[test]
fn the_death_of_the_process_and_then_a_power_cut_lose_nothing_recovered() {
    for seed in 0..200 {
        let storage = SimStorage::new();
        let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
        model.append(3);
        if seed % 2 == 0 {
            let (_, _, cut) = model.cut().unwrap();
            model.append(3);
            model.store.log().flush().unwrap();
            // The process dies before the sealed segment is synced.
            std::mem::forget(cut);
        } else {
            model.append(3);
            model.store.log().flush().unwrap();
        }
        // Unsynced, but the next process reads it and builds on it.
        let storage = storage.process_image();
        let mut model = Model::open(&storage, 2, 6, 6, true).unwrap();
        model.append(6);
        model.sync().unwrap();
        Model::open(&storage.recover_image(seed), 3, 12, 12, true).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// After a failed sync, the system shows what it has not written and will not write. The next process read it, and a
/// sync that "succeeded" vouched for it.
#[test]
fn what_a_failed_sync_has_lost_is_written_by_the_next_process() {
    for seed in 0..100 {
        let storage = SimStorage::new();
        let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
        model.append(3);
        model.sync().unwrap();
        model.append(3);
        model.store.log().flush().unwrap();
        storage.fail_at(storage.operations(), Fault::Io);
        assert!(model.store.log().sync().is_err());
        let storage = storage.process_image();
        let mut model = Model::open(&storage, 2, 6, 6, true).unwrap();
        model.append(6);
        model.sync().unwrap();
        Model::open(&storage.recover_image(seed), 3, 12, 12, true).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn an_error_at_every_operation_and_then_a_crash_lose_nothing_acknowledged() {
    type Script = fn(&mut Model);
    // The last one takes many operations.
    let scripts: [(Script, usize); 4] =
        [(script, 3), (script_of_switches, 3), (script_of_recycling, 3), (script_of_rotation, 17)];
    for (script, step) in scripts {
        let length = length_of(script);
        for fault_at in 10..length {
            for crash in (fault_at + 1..length + 10).step_by(step) {
                let storage = SimStorage::new();
                storage.fail_at(fault_at, Fault::Io);
                storage.crash_at(crash);
                let Ok(mut model) = Model::open(&storage, 1, 0, 0, true) else { continue };
                script(&mut model);
                let image = storage.recover_image(crash);
                Model::open(&image, 2, model.acknowledged, model.appended, true)
                    .unwrap_or_else(|e| panic!("fault at {fault_at}, crash at {crash}: {e}"));
            }
        }
    }
}

fn fail_everywhere(script: fn(&mut Model), fault: Fault) {
    let mut healed = 0;
    for at in 0..=length_of(script) {
        let storage = SimStorage::new();
        storage.fail_at(at, fault);
        let Ok(mut model) = Model::open(&storage, 1, 0, 0, true) else {
            // A start that failed leaves a directory that the next one can use.
            Model::open(&storage, 2, 0, 0, true).unwrap();
            continue;
        };
        script(&mut model);
        for seed in 0..4 {
            let image = storage.recover_image(seed);
            let after = Model::open(&image, 2, model.acknowledged, model.appended, true);
            after.unwrap_or_else(|e| panic!("{fault:?} at {at}, seed {seed}: {e}"));
        }
        model.store.keep_log();
        if model.store.log().is_poisoned() {
            healed += 1;
            assert!(model.sync().is_err());
        }
        // The disk works again: a snapshot heals whatever happened.
        model.snapshot().unwrap_or_else(|e| panic!("{fault:?} at {at}: {e}"));
        assert_eq!(model.store.log().poisoned(), None, "{fault:?} at {at}");
        model.append(5);
        model.sync().unwrap();
        assert!(model.store.log().synced() >= model.store.journal().position());
        for seed in 0..4 {
            let image = storage.recover_image(seed);
            Model::open(&image, 2, model.appended, model.appended, true)
                .unwrap_or_else(|e| panic!("{fault:?} at {at}, healed, seed {seed}: {e}"));
        }
    }
    assert!(fault == Fault::ShortWrite || healed > 0);
}

#[test]
fn an_error_at_every_operation_poisons_and_heals() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::ShortWrite] {
        fail_everywhere(script, fault);
        fail_everywhere(script_of_switches, fault);
        fail_everywhere(script_of_recycling, fault);
        fail_everywhere(script_of_rotation, fault);
    }
}
