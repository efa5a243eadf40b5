//! Moves what lies in sparse slabs, over all shards of a worker: see `value::directory::relocate`.
//!
//! Invariants:
//! - The caller is inside the gate. One shard's lock is held at a time, for a bounded amount of work.
//! - A directory that a frozen view shares is skipped, because moving it would copy it.
//! - The move is invisible to snapshots, the log, WATCH, expiry bounds and statistics.

use super::{Keyspace, SHARDS};
use crate::value::directory::{Budget, Position};

/// How many segments one step examines,
const LOOKS_MAX: usize = 512;
/// how many it moves,
const MOVES_MAX: usize = 32;
/// and how many shards it locks, one after the other.
const SHARDS_MAX: usize = 32;

/// A worker's progress.
#[derive(Debug)]
pub struct Relocation {
    /// The worker's shards: the first, and from each to the next.
    first: usize,
    stride: usize,
    /// The shard where the next step continues.
    shard: usize,
    db: u32,
    position: Position,
}

impl Relocation {
    /// The start of a pass, for worker number `worker` of `workers`.
    pub fn new(worker: usize, workers: usize) -> Relocation {
        Relocation { first: worker, stride: workers, shard: worker, db: 0, position: Position::default() }
    }

    /// Shares the shards with another number of workers from now on. The pass that is under way may omit some.
    pub fn follow(&mut self, workers: usize) {
        self.stride = workers;
    }

    /// Moves some of the blocks whose address `is_sparse` reports as sparse. Returns whether that completed a pass
    /// over the shards; the next step begins another pass.
    pub fn step(&mut self, keyspace: &Keyspace, is_sparse: fn(usize) -> bool) -> bool {
        let mut budget = Budget { looks: LOOKS_MAX, moves: MOVES_MAX };
        for _ in 0..SHARDS_MAX {
            if self.shard < SHARDS && !self.relocate_shard(keyspace, &mut budget, is_sparse) {
                return false;
            }
            (self.shard, self.db, self.position) = (self.shard + self.stride, 0, Position::default());
            if self.shard >= SHARDS {
                self.shard = self.first;
                return true;
            }
        }
        false
    }

    /// Continues in the shard. Returns whether the shard is done.
    fn relocate_shard(&mut self, keyspace: &Keyspace, budget: &mut Budget, is_sparse: fn(usize) -> bool) -> bool {
        // What a command holds is left to the next pass.
        let Some(mut shard) = keyspace.try_lock(self.shard as u16) else { return true };
        while let Some(db) = shard.database_from(self.db) {
            if db != self.db {
                (self.db, self.position) = (db, Position::default());
            }
            if budget.is_spent() {
                return false;
            }
            if let Some(directory) = shard.directory_unshared(db)
                && let Some(next) = directory.relocate(self.position, budget, is_sparse)
            {
                self.position = next;
                return false;
            }
            budget.look(1);
            (self.db, self.position) = (db + 1, Position::default());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::exec::testing::{Runner, dump};
    use crate::keyspace::{Gate, NewValue};
    use crate::value::directory::relocate_tests::{ASKED, everything, nothing};

    const DATABASES: u32 = 5;

    fn filled(keys: usize) -> Keyspace {
        let keyspace = Keyspace::new(DATABASES, HashSeed(*b"seed of the test"));
        for number in 0..keys {
            let name = format!("key {number}");
            let key = keyspace.key(name.as_bytes());
            let db = [0, 0, 0, 2, 4][number % 5];
            let mut shard = keyspace.lock(key.shard());
            let _ = shard.directory_mut(db).set(key.hash, key.bytes, NewValue::Bytes(&[7; 100]), None, 0);
        }
        keyspace
    }

    /// The segments of some shards.
    fn segments(keyspace: &Keyspace, shards: impl Iterator<Item = usize>) -> usize {
        let in_shard = |shard| keyspace.lock(shard as u16).databases().map(|(_, d)| d.spine().len).sum::<usize>();
        shards.map(in_shard).sum()
    }

    /// Runs a whole pass. Returns how many steps it took and how many segments it examined.
    fn pass(relocation: &mut Relocation, keyspace: &Keyspace) -> (usize, usize) {
        let (mut steps, mut asked) = (0, 0);
        loop {
            ASKED.set(0);
            let end = relocation.step(keyspace, everything);
            assert!(ASKED.get() <= MOVES_MAX, "all that are looked at are moved");
            (steps, asked) = (steps + 1, asked + ASKED.get());
            if end {
                return (steps, asked);
            }
        }
    }

    #[test]
    fn a_pass_covers_all_shards_and_databases_of_its_worker() {
        let keyspace = filled(60_000);
        let before = dump(&keyspace);
        for worker in 0..3 {
            let own = segments(&keyspace, (worker..SHARDS).step_by(3));
            let mut relocation = Relocation::new(worker, 3);
            for _ in 0..2 {
                let (steps, asked) = pass(&mut relocation, &keyspace);
                assert_eq!(asked, own, "each segment once");
                assert!(steps >= own / MOVES_MAX, "{steps}");
            }
        }
        assert_eq!(dump(&keyspace), before);
    }

    #[test]
    fn an_empty_keyspace_takes_few_steps_and_one_worker_too_many_none() {
        let keyspace = filled(0);
        assert_eq!(pass(&mut Relocation::new(0, 2), &keyspace), (SHARDS / 2 / SHARDS_MAX, 0));
        assert_eq!(pass(&mut Relocation::new(SHARDS + 1, SHARDS + 2), &keyspace), (1, 0));
    }

    #[test]
    fn one_large_collection_takes_many_steps() {
        let mut t = Runner::new();
        for number in 0..60_000 {
            t.run(&format!("SADD s m{number}"));
        }
        let (mut relocation, mut steps, mut asked) = (Relocation::new(0, 1), 0, 0);
        loop {
            ASKED.set(0);
            let end = relocation.step(t.keyspace(), nothing);
            assert!(ASKED.get() <= LOOKS_MAX);
            (steps, asked) = (steps + 1, asked + ASKED.get());
            if end {
                break;
            }
        }
        assert!(asked > 60_000 / 50 && steps > SHARDS / SHARDS_MAX + 1, "{asked} in {steps}");
    }

    #[test]
    fn what_a_frozen_view_shares_is_passed_over() {
        let keyspace = filled(5000);
        let gate = Gate::new(1);
        let mut frozen = keyspace.freeze(&gate.close());
        let mut relocation = Relocation::new(0, 1);
        assert_eq!(pass(&mut relocation, &keyspace).1, 0);
        let given_back = frozen.release_shard(5);
        drop(given_back);
        assert_eq!(pass(&mut relocation, &keyspace).1, segments(&keyspace, 5..6));
        drop(frozen);
        assert_eq!(pass(&mut relocation, &keyspace).1, segments(&keyspace, 0..SHARDS));
    }

    #[test]
    fn a_step_goes_on_whatever_has_become_of_its_place() {
        let keyspace = filled(60_000);
        let mut relocation = Relocation::new(0, 1);
        while !relocation.step(&keyspace, everything) {
            let shard = relocation.shard as u16;
            let mut locked = keyspace.lock(shard);
            match relocation.position == Position::default() {
                true => locked.swap(0, 2),
                false => drop(locked.replace_directory(relocation.db, None)),
            }
        }
        dump(&keyspace);
    }

    #[test]
    fn commands_do_not_notice() {
        let mut t = Runner::new();
        let mut relocation = Relocation::new(0, 1);
        let watched = (t.keyspace().key(b"s0").shard(), b"s0");
        for number in 0..6000 {
            t.run(&format!("SADD s{} m{number}", number % 3));
            t.run(&format!("HSET h{} f{number} {number}", number % 2));
            t.run(&format!("ZADD z {number} m{number}"));
            t.run(&format!("SET k{number} {number} PX {}", 60_000 + number));
            relocation.step(t.keyspace(), everything);
        }
        let version = t.keyspace().lock(watched.0).watched.watch(0, watched.1);
        let due = |t: &Runner| (0..SHARDS as u16).map(|shard| t.keyspace().earliest_expiry(shard)).collect::<Vec<_>>();
        let (before, due_before) = (dump(t.keyspace()), due(&t));
        pass(&mut relocation, t.keyspace());
        assert_eq!(dump(t.keyspace()), before);
        assert_eq!(due(&t), due_before);
        assert_eq!(t.keyspace().lock(watched.0).watched.unwatch(0, watched.1), Some(version));
        t.assert_replay_equals_live();
    }
}
