//! The gate: how one command runs alone when it needs the whole keyspace.
//!
//! Each worker holds its own small lock while it executes a group of commands; whoever needs to be alone
//! takes all of them, in ascending order. That costs as many uncontended locks as there are workers,
//! not as many as there are shards.
//!
//! A worker may be executing something slow. Whoever closes the gate waits for it first, while the others go on, and
//! only then stops them; should something slow begin just then, it lets them go once more.
//!
//! Invariants:
//! - A worker never closes the gate while it holds its own lock, and never waits for the log's writer
//!   while it holds it: the order is writer, gate, shards, log buffers. Whoever has closed the gate may wait for
//!   the writer only where nobody else can be about to make a snapshot: at the end, and in `durable::reload`.
//! - Between two groups a worker holds nothing.

use std::time::Duration;

use crate::base::lock::{Alone, Mutex, MutexGuard, Rank, alone};

/// For how long the workers that are stopped already wait for another one that is not,
const PATIENCE: Duration = Duration::from_micros(200);
/// and how often they are let go again for that.
const ATTEMPTS: usize = 16;

#[repr(align(128))]
#[derive(Debug)]
struct Padded(Mutex<()>);

/// One lock a worker; see the module.
#[derive(Debug)]
pub struct Gate {
    workers: Box<[Padded]>,
}

/// The right of one worker to execute commands; dropped after each group.
#[derive(Debug)]
pub struct Inside<'a> {
    _lock: MutexGuard<'a, ()>,
}

/// The right to be alone with the keyspace.
#[derive(Debug)]
pub struct Closed<'a> {
    _alone: Alone,
    _locks: Vec<MutexGuard<'a, ()>>,
}

impl Gate {
    /// A gate for this many workers, at least one.
    pub fn new(workers: usize) -> Self {
        let lock = |worker| Padded(Mutex::indexed(Rank::Gate, worker as u32, ()));
        Gate { workers: (0..workers.max(1)).map(lock).collect() }
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Waits until nobody is alone, and keeps it so while the worker executes.
    #[inline]
    pub fn enter(&self, worker: usize) -> Inside<'_> {
        Inside { _lock: self.workers[worker].0.lock() }
    }

    /// Waits until every worker is between two groups, and keeps them there.
    pub fn close(&self) -> Closed<'_> {
        for _ in 0..ATTEMPTS {
            self.workers.iter().filter(|worker| worker.0.is_locked()).for_each(|worker| drop(worker.0.lock()));
            let locks: Option<Vec<_>> = self.workers.iter().map(|worker| worker.0.try_lock_for(PATIENCE)).collect();
            if let Some(locks) = locks {
                return Closed { _alone: alone(), _locks: locks };
            }
        }
        Closed { _alone: alone(), _locks: self.workers.iter().map(|w| w.0.lock()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_others_go_on_while_one_is_slow() {
        let gate = Gate::new(3);
        let (slow, closed) = (std::sync::Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _slow = gate.enter(1);
                slow.wait();
                slow.wait();
            });
            slow.wait();
            scope.spawn(|| {
                let _alone = gate.close();
                closed.store(true, Ordering::SeqCst);
            });
            // For longer than it takes to begin with that.
            for _ in 0..100 {
                drop((gate.enter(0), gate.enter(2)));
                std::thread::sleep(Duration::from_micros(200));
            }
            assert!(!closed.load(Ordering::SeqCst));
            slow.wait();
        });
        assert!(closed.load(Ordering::SeqCst));
    }

    #[test]
    fn whoever_closes_the_gate_is_alone() {
        let gate = Gate::new(3);
        let (inside, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (gate, inside, stop) = (&gate, &inside, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let _lock = gate.enter(worker);
                        inside.fetch_add(1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..500 {
                let _alone = gate.close();
                assert_eq!(inside.load(Ordering::SeqCst), 0);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
