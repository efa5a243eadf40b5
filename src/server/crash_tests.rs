//! The server on a hostile disk: a power cut, or an error, at every single operation.
//!
//! One writer records the content of the server after each command. Whatever happens to the disk, the recovered state
//! must be one of these states: whole commands only, and none before the last acknowledged one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::testing::{Caller, Dump, SetOnDrop, random_command, start, state};
use crate::base::random::Random;
use crate::core::Server;
use crate::durable::saving;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;
use crate::persist::storage::sim::Fault;

/// A server with one writer, and all states that it has had.
struct Life {
    storage: SimStorage,
    server: Arc<Server>,
    caller: Caller,
    random: Random,
    /// After the start, and after each command.
    states: Vec<Dump>,
    /// The last state that must not be lost.
    safe: usize,
}

impl Life {
    /// Starts on the disk. The recovered state must be among `allowed`.
    fn start(storage: &SimStorage, generation: u64, allowed: &[Dump], what: &str) -> Option<Life> {
        let server = match start(storage, generation, 1, FsyncPolicy::Always) {
            Ok(server) => server,
            Err(error) => {
                let text = error.to_string();
                assert!(storage.crashed() || text.contains("os error"), "{what}: {text}");
                return None;
            }
        };
        let found = state(&server);
        assert!(allowed.contains(&found), "{what}: {found:?} is none of {} states", allowed.len());
        let caller = Caller::new(&server, 0);
        let random = Random::from_seed(generation);
        Some(Life { storage: storage.clone(), server, caller, random, states: vec![found], safe: 0 })
    }

    fn now(&self) -> usize {
        self.states.len() - 1
    }

    fn allowed(&self) -> &[Dump] {
        &self.states[self.safe..]
    }

    fn run(&mut self, line: &str) -> String {
        let reply = self.caller.run(line);
        self.states.push(state(&self.server));
        reply
    }

    fn some(&mut self, commands: u64) {
        for _ in 0..commands {
            let line = random_command(&mut self.random, "k");
            self.run(&line);
        }
    }

    fn sync(&mut self) {
        if self.server.store.log().sync_now().is_ok() {
            self.safe = self.now();
        }
    }

    fn snapshot(&mut self) {
        if saving::save_now(&self.server).is_ok() {
            self.safe = self.now();
        }
    }

    /// Everything that a server does, until the power or the log fails. With `synced`, each command is synced, as
    /// under `always`.
    fn script(&mut self, synced: bool) {
        for round in 0..9 {
            for _ in 0..4 {
                if self.storage.crashed() || self.server.store.log().is_poisoned() {
                    return;
                }
                self.some(1);
                match synced {
                    true => self.sync(),
                    false => drop(self.server.store.log().flush()),
                }
            }
            // Several commands in one block, and several keys in one command.
            self.some(2);
            self.run("MSET a 1 b 2 c 3");
            self.run("RENAME a k1");
            match round % 4 {
                1 => self.caller.executor.forget_flushes(1),
                2 => drop(self.run("UNFLUSH MERGE")),
                3 => {
                    self.run("FLUSHALL");
                    self.run("SET k2 newer");
                }
                _ => drop(self.run("UNFLUSH REPLACE")),
            }
            self.states.push(state(&self.server));
            self.run("SET brief v PX 1");
            self.caller.executor.sweep_expired(100);
            self.caller.executor.relocate(|_| true);
            self.states.push(state(&self.server));
            match round % 3 {
                0 => self.snapshot(),
                1 => drop(self.server.store.log().flush()),
                _ => self.sync(),
            }
        }
        self.some(2);
    }
}

fn first_life(storage: &SimStorage, seed: u64) -> Option<Life> {
    let mut life = Life::start(storage, 1, &[Dump::new()], "first life")?;
    life.random = Random::from_seed(seed);
    Some(life)
}

/// How many operations the script takes on a healthy disk.
fn length(seed: u64, synced: bool) -> u64 {
    let storage = SimStorage::new();
    first_life(&storage, seed).expect("a healthy disk").script(synced);
    storage.operations()
}

fn crash_everywhere(seed: u64, synced: bool) {
    let length = length(seed, synced);
    assert!(length > 100, "{length}");
    let mut lost = 0;
    for crash in 0..=length {
        let storage = SimStorage::new();
        storage.crash_at(crash);
        let mut allowed = vec![Dump::new()];
        if let Some(mut life) = first_life(&storage, seed) {
            life.script(synced);
            allowed = life.allowed().to_vec();
        }
        for image_seed in 0..3 {
            let what = format!("seed {seed}, crash at {crash}, image {image_seed}");
            let image = storage.recover_image(image_seed);
            // A second run on what the first one left, with a second crash.
            image.crash_at((crash * 7 + image_seed) % 60);
            let mut allowed = allowed.clone();
            if let Some(mut second) = Life::start(&image, 2, &allowed, &what) {
                lost += usize::from(allowed.last() != second.states.first());
                second.some(3);
                second.sync();
                second.snapshot();
                allowed = second.allowed().to_vec();
            }
            let image = image.recover_image(image_seed);
            Life::start(&image, 3, &allowed, &what).expect("a healthy disk");
        }
    }
    assert!(lost > 0, "the test must have seen a loss of what was not acknowledged");
}

#[test]
fn under_always_a_crash_at_every_operation_loses_no_acknowledged_command() {
    crash_everywhere(1, true);
}

#[test]
fn without_syncs_a_crash_at_every_operation_loses_a_suffix_of_whole_commands() {
    crash_everywhere(2, false);
}

/// After an error at one operation, or at all operations from it on, reads continue, writes tell why they are
/// refused, and once the disk works again a snapshot heals everything.
fn fail_everywhere(seed: u64, synced: bool, lasting: bool) {
    let mut poisoned = 0;
    for at in 0..=length(seed, synced) {
        let fault = [Fault::Io, Fault::NoSpace, Fault::ShortWrite][at as usize % 3];
        let what = format!("seed {seed}, {fault:?} at {at}");
        let storage = SimStorage::new();
        match lasting {
            true => storage.fail_from(at, fault),
            false => storage.fail_at(at, fault),
        }
        let Some(mut life) = first_life(&storage, seed) else {
            // A start that failed leaves a directory that the next one can use.
            storage.repair();
            Life::start(&storage, 2, &[Dump::new()], &what).expect("a healthy disk");
            continue;
        };
        life.run("SET witness here");
        life.sync();
        life.run("SET fleeting v PX 1");
        life.script(synced);
        let log = Arc::clone(life.server.store.log());
        if log.is_poisoned() {
            poisoned += 1;
            assert_reads_go_on(&mut life, &what);
        }
        for attempt in 0..if lasting && storage.operations() > at { 3 } else { 0 } {
            assert!(saving::save_now(&life.server).is_err(), "{what}, attempt {attempt}");
            assert!(log.sync_now().is_err(), "{what}, attempt {attempt}");
            assert_reads_go_on(&mut life, &what);
        }
        assert_eq!(log.sync_now().is_ok(), !log.is_poisoned(), "{what}");
        Life::start(&storage.recover_image(at), 2, life.allowed(), &what).expect("a healthy disk");
        storage.repair();
        saving::save_now(&life.server).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(log.poisoned(), None, "{what}");
        assert_eq!(life.run("SET healed yes"), "+OK ", "{what}");
        log.sync_now().unwrap_or_else(|error| panic!("{what}: {error}"));
        let all = [state(&life.server)];
        for image_seed in 0..2 {
            Life::start(&storage.recover_image(image_seed), 2, &all, &what).expect("a healthy disk");
        }
    }
    assert!(poisoned > 20, "{poisoned}");
}

fn assert_reads_go_on(life: &mut Life, what: &str) {
    let before = state(&life.server);
    for line in ["SET k1 new", "MSET k1 1 k2 2", "FLUSHALL", "RENAME k1 k2", "DEL k1", "PING"] {
        let reply = life.caller.run(line);
        assert!(reply.starts_with("-MISCONF Errors writing to the AOF file: "), "{what}: {line}: {reply}");
    }
    assert_eq!(state(&life.server), before, "{what}");
    let reply = life.caller.run("DBSIZE");
    assert!(reply.starts_with(':'), "{what}: {reply}");
    // The effect of a read, which the log never took, is part of the healing snapshot.
    life.run("SELECT 0");
    life.run("GET fleeting");
}

#[test]
fn an_error_at_every_operation_under_always_loses_nothing_and_heals() {
    fail_everywhere(3, true, false);
}

#[test]
fn an_error_at_every_operation_without_syncs_loses_nothing_and_heals() {
    fail_everywhere(4, false, false);
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing_and_heals() {
    fail_everywhere(5, true, true);
    fail_everywhere(6, false, true);
}

/// What one of several writers has sent, and what was acknowledged to it.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Counts up in two keys at once, and waits for the log as a connection under `always` does.
fn count_up(server: &Arc<Server>, worker: usize, progress: &Progress) {
    let mut caller = Caller::new(server, worker);
    let log = server.store.log();
    for number in progress.acknowledged.load(Ordering::SeqCst) + 1.. {
        progress.sent.store(number, Ordering::SeqCst);
        let reply = caller.run(&format!("MSET {worker}:one {number} {worker}:two {number}"));
        let block = log.journal().position();
        if reply != "+OK " || log.sync_now().is_err() || log.synced() < block {
            return;
        }
        progress.acknowledged.store(number, Ordering::SeqCst);
    }
}

#[test]
fn a_crash_amid_concurrent_writers_and_snapshots_loses_nothing_acknowledged() {
    const WRITERS: usize = 3;
    let mut acknowledged = 0;
    for round in 0..60 {
        let storage = SimStorage::new();
        storage.crash_at(20 + round * 13 % 500);
        let server = match start(&storage, 1, WRITERS, FsyncPolicy::Always) {
            Ok(server) => server,
            Err(_) if storage.crashed() => continue,
            Err(error) => panic!("{error}"),
        };
        let writers: [Progress; WRITERS] = Default::default();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = SetOnDrop(&over);
            let handles: Vec<_> = writers
                .iter()
                .enumerate()
                .map(|(worker, progress)| {
                    let server = &server;
                    scope.spawn(move || count_up(server, worker, progress))
                })
                .collect();
            let (over, server) = (&over, &server);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // The power goes while it writes.
                    let _ = saving::save_now(server);
                }
            });
            for handle in handles {
                handle.join().expect("a writer that does not panic");
            }
        });
        for seed in 0..4 {
            let after = start(&storage.recover_image(seed), 2, 1, FsyncPolicy::Always);
            let after = after.unwrap_or_else(|error| panic!("round {round}, image {seed}: {error}"));
            let mut caller = Caller::new(&after, 0);
            for (worker, progress) in writers.iter().enumerate() {
                let mut number = |key: &str| {
                    let reply = caller.run(&format!("GET {worker}:{key}"));
                    reply.split(' ').nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(0u64)
                };
                let (one, two) = (number("one"), number("two"));
                let least = progress.acknowledged.load(Ordering::SeqCst);
                assert_eq!(one, two, "round {round}, image {seed}: half a command");
                assert!((least..=progress.sent.load(Ordering::SeqCst)).contains(&one), "round {round}: {one}, {least}");
                acknowledged += least;
            }
        }
    }
    assert!(acknowledged > 1000, "hardly any load: {acknowledged}");
}
