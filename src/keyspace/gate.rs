//! The gate: how one command runs alone when it needs the whole keyspace.
//!
//! Each worker holds its own small lock while it executes a group of commands. A thread that needs to be alone takes
//! all of them, in ascending order. That costs as many uncontended locks as there are workers, not as many as there
//! are shards.
//!
//! A worker may be executing something slow, which must not stop the others. A closer first waits until every worker
//! has been between two groups at some time since the closer began, and only then takes all the locks. If something
//! slow begins just then, the closer lets the others go and starts again.
//!
//! A worker's thread never waits long for the gate. [`Gate::try_enter`] and [`Gate::try_close`] give up after a given
//! patience, and the command is parked and tried again. Only threads that are not workers call [`Gate::close`].
//!
//! Invariants:
//! - A worker never closes the gate while it holds its own lock, and never waits for the log's writer
//!   while it holds it: the order is writer, gate, shards, log buffers.
//! - A holder of the log's writer does not wait for the gate: it tries to close it for a moment, and releases the
//!   writer before it tries again.
//! - Between two groups a worker holds nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::base::lock::{Alone, Mutex, MutexGuard, Rank, alone};

/// How long the stopped workers at first wait for one that is not stopped yet.
const PATIENCE: Duration = Duration::from_micros(200);
/// This patience doubles after this many failed attempts, so that every closer succeeds eventually.
const ATTEMPTS_PER_DOUBLING: u32 = 16;

#[repr(align(128))]
#[derive(Debug)]
struct Padded {
    lock: Mutex<()>,
    /// How often the worker has entered. Only the worker itself writes it.
    entries: AtomicU64,
}

/// One lock a worker; see the module.
#[derive(Debug)]
pub struct Gate {
    workers: Box<[Padded]>,
}

/// The right of one worker to execute commands. It is dropped after each group.
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

/// One worker's attempts to close the gate.
#[derive(Debug, Default)]
pub struct Closing {
    /// How often each worker had entered when the attempt began; empty for no attempt.
    entries: Vec<u64>,
    /// Failed attempts: every worker was found between two groups, but not all at the same time.
    failures: u32,
}

impl Gate {
    /// A gate for this many workers, at least one.
    pub fn new(workers: usize) -> Self {
        let lock = |worker| Padded { lock: Mutex::indexed(Rank::Gate, worker as u32, ()), entries: AtomicU64::new(0) };
        Gate { workers: (0..workers.max(1)).map(lock).collect() }
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Waits until the gate is open, and keeps it open while the worker executes.
    #[inline]
    pub fn enter(&self, worker: usize) -> Inside<'_> {
        self.workers[worker].entered(self.workers[worker].lock.lock())
    }

    /// The same, unless the gate stays closed for longer than `patience`.
    #[inline]
    pub fn try_enter(&self, worker: usize, patience: Duration) -> Option<Inside<'_>> {
        let worker = &self.workers[worker];
        match worker.lock.try_lock() {
            Some(lock) => Some(worker.entered(lock)),
            None => worker.wait_for(patience).map(|lock| worker.entered(lock)),
        }
    }

    /// Whether the worker could enter now.
    pub fn is_open(&self, worker: usize) -> bool {
        !self.workers[worker].lock.is_locked()
    }

    /// Waits until every worker is between two groups, and keeps them there. For threads that are not workers.
    pub fn close(&self) -> Closed<'_> {
        for attempt in 0.. {
            self.wait_for_slow();
            let patience =
                PATIENCE.saturating_mul(1_u32.checked_shl(attempt / ATTEMPTS_PER_DOUBLING).unwrap_or(u32::MAX));
            if let Some(closed) = self.take_all(patience) {
                return closed;
            }
        }
        unreachable!("the last of 2^32 attempts waits for days")
    }

    /// Waits for every worker that currently executes, without stopping any. For threads that are not workers.
    pub fn wait_for_slow(&self) {
        self.workers.iter().filter(|worker| worker.lock.is_locked()).for_each(|worker| drop(worker.lock.lock()));
    }

    /// Closes the gate if that takes no longer than `patience`. For a thread that holds a lock for which others wait,
    /// and that releases it before another attempt.
    pub fn try_close(&self, patience: Duration) -> Option<Closed<'_>> {
        let until = Instant::now() + patience;
        // Waits for slow workers before any is stopped.
        for worker in self.workers.iter().filter(|worker| worker.lock.is_locked()) {
            drop(worker.lock.try_lock_until(until)?);
        }
        self.take_all(until.saturating_duration_since(Instant::now()).max(PATIENCE.min(patience)))
    }

    /// Closes the gate for a worker that is not inside, if that takes no longer than about `patience`, which grows
    /// with the failed attempts.
    pub fn try_close_for(&self, closing: &mut Closing, patience: Duration) -> Option<Closed<'_>> {
        if closing.entries.is_empty() {
            closing.entries.extend(self.workers.iter().map(|worker| worker.entries.load(Relaxed)));
        }
        if !self.have_passed(closing) {
            let until = Instant::now() + patience;
            for (worker, entries) in self.workers.iter().zip(&closing.entries) {
                if !worker.has_passed(*entries) {
                    drop(worker.lock.try_lock_until(until)?);
                }
            }
        }
        let doublings = closing.failures / ATTEMPTS_PER_DOUBLING;
        let closed = self.take_all(PATIENCE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)));
        closing.entries.clear();
        closing.failures = if closed.is_some() { 0 } else { closing.failures.saturating_add(1) };
        closed
    }

    /// Whether every worker has been between two groups since the attempt began.
    pub fn have_passed(&self, closing: &Closing) -> bool {
        self.workers.iter().zip(&closing.entries).all(|(worker, entries)| worker.has_passed(*entries))
    }

    fn take_all(&self, patience: Duration) -> Option<Closed<'_>> {
        let until = Instant::now().checked_add(patience);
        let mut locks = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            locks.push(match until {
                Some(until) => worker.lock.try_lock_until(until)?,
                None => worker.lock.lock(),
            });
        }
        Some(Closed { _alone: alone(), _locks: locks })
    }
}

impl Padded {
    /// Notes that the worker has entered.
    #[inline]
    fn entered<'a>(&self, lock: MutexGuard<'a, ()>) -> Inside<'a> {
        self.entries.store(self.entries.load(Relaxed) + 1, Relaxed);
        Inside { _lock: lock }
    }

    #[cold]
    fn wait_for(&self, patience: Duration) -> Option<MutexGuard<'_, ()>> {
        if patience.is_zero() { super::spin(|| self.lock.try_lock()) } else { self.lock.try_lock_for(patience) }
    }

    /// Whether the worker is between two groups, or has been since it had entered this often.
    fn has_passed(&self, entries: u64) -> bool {
        !self.lock.is_locked() || self.entries.load(Relaxed) != entries
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::base::lock::out_of_order;

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
            // Lasts longer than it takes to begin.
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
    fn a_worker_does_not_wait_for_a_slow_one_and_stops_nobody_meanwhile() {
        let _order = out_of_order("one thread plays all workers, and none of its waits is without end");
        let gate = Gate::new(3);
        let slow = gate.enter(1);
        let mut closing = Closing::default();
        for _ in 0..50 {
            assert!(gate.try_close_for(&mut closing, Duration::from_micros(50)).is_none());
            assert!(gate.try_close(Duration::from_micros(50)).is_none());
            assert!(gate.try_enter(0, Duration::ZERO).is_some());
        }
        assert_eq!(closing.failures, 0, "a slow command costs no patience");
        drop(slow);
        assert!(gate.have_passed(&closing));
        // It continues with the next command, which is slow, too, but it has passed.
        let slow = gate.enter(1);
        assert!(gate.have_passed(&closing));
        assert!(gate.try_close_for(&mut closing, Duration::from_micros(50)).is_none());
        assert_eq!(closing.failures, 1);
        drop(slow);
        let alone = gate.try_close_for(&mut closing, Duration::ZERO);
        assert!(alone.is_some() && closing.failures == 0);
        assert!(!gate.is_open(2) && gate.try_enter(2, Duration::from_micros(50)).is_none());
        drop(alone);
        assert!(gate.is_open(2) && gate.try_close(Duration::ZERO).is_some());
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
