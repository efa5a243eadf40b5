//! Every block and every time of a history is restored and compared with what was there; damage is repaired as far as
//! can be proven.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::persist::crash_tests::{State, load, options};
use crate::persist::storage::SimStorage;
use crate::persist::storage::sim::Fault;
use crate::persist::{Retention, Store, StoreOptions};

const BEGUN_MS: u64 = 1_700_000_000_000;

/// A history: the states after each block, and when it was written.
struct History {
    storage: SimStorage,
    /// Block, time, state.
    states: Vec<(u64, u64, State)>,
    state: State,
    now: Arc<AtomicU64>,
}

impl History {
    fn new() -> History {
        let (storage, now) = (SimStorage::new(), Arc::new(AtomicU64::new(BEGUN_MS)));
        History { storage, states: vec![(0, 0, State::new())], state: State::new(), now }
    }

    fn open(&self, run: u64) -> Store {
        let clock = Arc::clone(&self.now);
        let options = StoreOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(run, true) };
        Store::open(Arc::new(self.storage.clone()), options).unwrap().0
    }

    fn write(&mut self, store: &Store, count: u64) {
        for _ in 0..count {
            let time = self.now.fetch_add(10, Ordering::Relaxed) + 10;
            let n = self.states.len() as u64;
            let key = n % 7;
            self.state.insert(key, n);
            let value = [n.to_string().as_bytes(), &vec![b'.'; (n * 37 % 200) as usize]].concat();
            store.journal().append(0, (key % 4) as u16, n, 0, &[b"SET", &[key as u8], &value]);
            store.log().sync_now().unwrap();
            self.states.push((store.log().synced(), time, self.state.clone()));
        }
    }

    fn snapshot(&mut self, store: &Store, retention: Retention) {
        self.now.fetch_add(5, Ordering::Relaxed);
        let cut = store.cut_now().unwrap();
        let mut writer = store.snapshot_writer(&cut).unwrap();
        for shard in 0..4 {
            writer
                .chunk(shard, true, |chunk| {
                    for (key, n) in self.state.iter().filter(|(key, _)| **key % 4 == u64::from(shard)) {
                        let value = n.to_string();
                        chunk.push(0, &[*key as u8], None, None, crate::persist::WireValue::Bytes(value.as_bytes()));
                    }
                })
                .unwrap();
        }
        let finished = writer.finish().unwrap();
        // The block that ends the segment.
        self.states.push((cut.block(), self.now.load(Ordering::Relaxed), self.state.clone()));
        store.commit(cut, finished, retention).unwrap();
        self.now.fetch_add(5, Ordering::Relaxed);
    }

    /// Three runs, each with snapshots, the older of which are kept.
    fn of_three_runs() -> History {
        let mut history = History::new();
        let keep = Retention { count: 9, ..Retention::default() };
        for run in 1..4 {
            let store = history.open(run);
            history.write(&store, 3);
            history.snapshot(&store, keep);
            history.write(&store, 2);
            store.abandon(store.cut_now().unwrap());
            let cut_block = store.log().written();
            let now = history.now.load(Ordering::Relaxed);
            history.states.push((cut_block, now, history.state.clone()));
            history.write(&store, 2);
            history.snapshot(&store, keep);
            history.write(&store, 2);
        }
        history
    }

    fn last(&self) -> &(u64, u64, State) {
        self.states.last().unwrap()
    }
}

fn restored(from: &SimStorage, target: Target) -> Result<(u64, State), PersistError> {
    let to = SimStorage::new();
    let plan = plan(from, target)?;
    let block = plan.block;
    let prepared = begin(from, Arc::new(to.clone()), plan)?;
    assert!(!to.exists(MANIFEST).unwrap(), "the manifest comes last");
    let state = load(&prepared.recovery(None)?)?;
    prepared.finish()?;
    // A start finds the same, goes on, and so does the next one.
    let (store, recovery) = Store::open(Arc::new(to.clone()), options(77, true))?;
    assert_eq!(load(&recovery)?, state);
    assert_eq!(recovery.summary().last_block, block);
    drop(recovery);
    store.journal().append(0, 0, 1, 0, &[b"SET", &[100], b"7"]);
    store.log().sync_now()?;
    drop(store);
    let mut after = state.clone();
    after.insert(100, 7);
    assert_eq!(load(&Store::open(Arc::new(to.recover_image(1)), options(78, true))?.1)?, after);
    assert_eq!(crate::persist::examine::check(&to).faults, vec![]);
    Ok((block, state))
}

#[test]
fn every_block_and_every_time_can_be_restored() {
    let history = History::of_three_runs();
    let before = history.storage.names();
    for (index, (block, time, state)) in history.states.iter().enumerate() {
        assert_eq!(restored(&history.storage, Target::Block(*block)).unwrap(), (*block, state.clone()));
        let next = history.states.get(index + 1).map_or(u64::MAX, |(_, next, _)| *next);
        // Several blocks may have one time, and the last of them counts.
        for time in [*time, next - 1].into_iter().filter(|_| next > *time && index > 0) {
            let found = restored(&history.storage, Target::TimeMs(time)).unwrap();
            assert_eq!(found.1, *state, "block {block}, time {time}");
        }
    }
    assert_eq!(history.storage.names(), before);
    let beyond = restored(&history.storage, Target::Block(history.last().0 + 1)).unwrap_err();
    assert!(beyond.to_string().contains("no generation reaches that state"), "{beyond}");
}

#[test]
fn what_was_pruned_is_refused_and_what_is_listed_can_be_restored() {
    let mut history = History::of_three_runs();
    let store = history.open(4);
    history.snapshot(&store, Retention { count: 2, ..Retention::default() });
    history.write(&store, 2);
    drop(store);
    let listed = list(&history.storage).unwrap();
    assert_eq!(listed.len(), 3);
    for (block, time, state) in &history.states {
        let is_listed = listed.iter().any(|kept| (kept.from_block..=kept.to_block).contains(block));
        match restored(&history.storage, Target::Block(*block)) {
            Ok(found) => assert!(is_listed && found == (*block, state.clone())),
            Err(error) => assert!(!is_listed, "{error}"),
        }
        let is_listed = listed.iter().any(|kept| kept.from_time_ms <= *time && *time > 0);
        assert_eq!(restored(&history.storage, Target::TimeMs(*time)).is_ok(), is_listed);
    }
}

#[test]
fn a_state_between_two_snapshots_without_a_log_is_not_guessed() {
    let mut history = History::new();
    let keep = Retention { count: 9, ..Retention::default() };
    let store = history.open(1);
    history.write(&store, 2);
    history.snapshot(&store, keep);
    store.turn_log_off().unwrap();
    let first = history.now.load(Ordering::Relaxed) - 5;
    history.state.insert(1, 99);
    history.now.fetch_add(1000, Ordering::Relaxed);
    history.snapshot(&store, keep);
    let time_of = |at| plan(&history.storage, Target::TimeMs(at)).map(|plan| plan.time_ms);
    assert_eq!(time_of(first).unwrap(), first);
    assert!(time_of(first + 500).is_err(), "nobody logged it");
    assert!(time_of(first + 2000).is_ok(), "the newest state");
}

#[test]
fn a_crash_or_an_error_at_every_operation_leaves_a_whole_store_or_none() {
    let history = History::of_three_runs();
    let (block, _, state) = &history.states[history.states.len() / 2];
    for fault in [None, Some(Fault::Io), Some(Fault::NoSpace), Some(Fault::ShortWrite)] {
        let mut finished = 0;
        for at in 0..200 {
            let to = SimStorage::new();
            match fault {
                None => to.crash_at(at),
                Some(fault) => to.fail_at(at, fault),
            }
            let plan = plan(&history.storage, Target::Block(*block)).unwrap();
            let done = begin(&history.storage, Arc::new(to.clone()), plan).and_then(|prepared| {
                load(&prepared.recovery(None)?)?;
                prepared.finish()
            });
            finished += u64::from(done.is_ok());
            for seed in 0..4 {
                let image = to.recover_image(seed);
                if !image.exists(MANIFEST).unwrap() {
                    assert!(done.is_err(), "{fault:?} at {at}");
                    continue;
                }
                let (_, recovery) = Store::open(Arc::new(image), options(9, true)).unwrap();
                assert_eq!(load(&recovery).unwrap(), *state, "{fault:?} at {at}");
            }
        }
        assert!((1..200).contains(&finished), "{finished}");
    }
}

#[test]
fn a_directory_that_holds_anything_is_refused() {
    let history = History::of_three_runs();
    let to = SimStorage::new();
    to.put("notes.txt", b"mine");
    let plan = plan(&history.storage, Target::Block(1)).unwrap();
    let Err(error) = begin(&history.storage, Arc::new(to.clone()), plan) else { panic!("overwritten") };
    assert!(error.to_string().contains("must be empty"), "{error}");
    assert_eq!(to.names(), ["notes.txt"]);
}

fn repaired(from: &SimStorage) -> Result<(repair::Repair, State), PersistError> {
    let (to, before) = (SimStorage::new(), from.names());
    let repair = repair::plan(from, 4)?;
    let prepared = repair.begin(from, Arc::new(to.clone()))?;
    let state = load(&prepared.recovery(None)?)?;
    prepared.finish()?;
    let (_, recovery) = Store::open(Arc::new(to), options(9, true))?;
    assert_eq!(load(&recovery)?, state);
    assert_eq!(from.names(), before, "the damaged directory stays as it is");
    Ok((repair, state))
}

/// Whatever is damaged, a repair gives a state of the history, and says how many blocks it lacks.
#[test]
fn a_repair_gives_the_newest_state_that_can_be_proven() {
    let mut history = History::of_three_runs();
    let (last, _, newest) = history.last().clone();
    let (repair, state) = repaired(&history.storage).unwrap();
    assert_eq!((repair.block, repair.lost_blocks(), state), (last, 0, newest.clone()));
    for name in history.storage.names() {
        let good = history.storage.get(&name).unwrap();
        if name == "LOCK" || good.is_empty() {
            continue;
        }
        for step in 0..12 {
            let image = history.storage.process_image();
            let mut bad = good.clone();
            let at = good.len() * step / 12;
            bad[at] ^= 0x55;
            image.put(&name, &bad);
            let (repair, state) = repaired(&image).unwrap_or_else(|error| panic!("{name} at {at}: {error}"));
            let of_history = history.states.iter().rfind(|(block, ..)| *block <= repair.block).unwrap();
            assert_eq!(state, of_history.2, "{name} at {at}");
            // A break in the log stops all generations before it, and not the newest snapshot.
            let newest_cut = last - 2;
            assert!(repair.block >= newest_cut, "{name} at {at}: {}", repair.block);
            // A damaged block at the very end says nothing of itself.
            let lost = last - repair.block;
            assert!(lost - repair.lost_blocks() <= u64::from(lost == 1), "{name} at {at}");
        }
        let image = history.storage.process_image();
        image.forget(&name);
        let (_, state) = repaired(&image).unwrap_or_else(|error| panic!("{name} is missing: {error}"));
        assert!(history.states.iter().any(|(_, _, known)| *known == state), "{name} is missing");
    }
    // Without the newest snapshot, the one before it and a longer log give the same.
    let image = history.storage.process_image();
    let newest_snapshot = image.names().into_iter().rfind(|name| name.starts_with("snapshot-")).unwrap();
    image.put(&newest_snapshot, b"gone");
    let (repair, state) = repaired(&image).unwrap();
    assert_eq!((repair.lost_blocks(), state, repair.bad_snapshots.len()), (0, newest, 1));
    // Nothing is proven by nothing.
    for name in image.names().into_iter().filter(|name| name.starts_with("snapshot-") || name.contains("00001.ik")) {
        image.forget(&name);
    }
    assert!(repair::plan(&image, 4).is_err());
    let store = history.open(9);
    history.write(&store, 1);
    assert!(matches!(repair::plan(&history.storage, 4), Err(PersistError::Locked { .. })));
}
