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
//! A worker more ([`Gate::add_worker`]) is added while nobody is closing: whoever adds it holds the first lock, as
//! every closer does before any other. A closer that has the first lock sees all workers that there are.
//!
//! Invariants:
//! - A worker never closes the gate while it holds its own lock, and never waits for the log's writer
//!   while it holds it: the order is writer, gate, shards, log buffers.
//! - A holder of the log's writer does not wait for the gate: it tries to close it for a moment, and releases the
//!   writer before it tries again.
//! - Between two groups a worker holds nothing.
//! - Work that its worker has interrupted, a script that runs for long, counts as inside: see [`Gate::stay`]. So does
//!   the loader of shards.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::base::lock::{Alone, Mutex, MutexGuard, Rank, alone};
use crate::base::per_worker::PerWorker;

/// How long the stopped workers at first wait for one that is not stopped yet.
const PATIENCE: Duration = Duration::from_micros(200);
/// This patience doubles after this many failed attempts, so that every closer succeeds eventually.
const ATTEMPTS_PER_DOUBLING: u32 = 16;
/// How often a thread that is no worker looks whether interrupted work is still inside.
const STAYING_LOOK: Duration = Duration::from_millis(1);

#[repr(align(128))]
#[derive(Debug)]
struct Padded {
    lock: Mutex<()>,
    /// How often the worker has entered. Only the worker itself writes it.
    entries: AtomicU64,
    /// How many units of work are inside that the worker has interrupted to do other work.
    staying: AtomicU32,
}

/// One lock a worker; see the module.
#[derive(Debug)]
pub struct Gate {
    workers: PerWorker<Padded>,
    /// Whether shards are still to be loaded.
    loading: AtomicBool,
}

/// The right of one worker to execute commands. It is dropped after each group.
#[derive(Debug)]
pub struct Inside<'a> {
    _lock: MutexGuard<'a, ()>,
}

/// The right of work that its worker has interrupted to be inside: the gate cannot be closed meanwhile.
#[derive(Debug)]
pub struct Staying<'a>(&'a Padded);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.0.staying.fetch_sub(1, SeqCst);
    }
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
        Gate { workers: PerWorker::new(workers.max(1), Padded::new), loading: AtomicBool::new(false) }
    }

    /// Adds the lock of one worker more, which may enter from now on. Returns its number; `None` if there can be no
    /// more. One thread adds at a time, and it is not inside.
    pub fn add_worker(&self) -> Option<usize> {
        let _nobody_closes = self.workers[0].lock.lock();
        self.workers.add(Padded::new(self.workers.len())).ok()
    }

    /// The number of workers that there are, in service or not.
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

    /// Makes work stay inside while its worker does other work. The worker enters and leaves meanwhile as always.
    pub fn stay<'a>(&'a self, worker: usize, inside: Inside<'a>) -> Staying<'a> {
        // Before the lock is released, so that a closer who has it next sees this.
        self.workers[worker].staying.fetch_add(1, SeqCst);
        drop(inside);
        Staying(&self.workers[worker])
    }

    /// Keeps the gate open while shards are loaded beside the workers.
    pub fn begin_loading(&self) {
        self.loading.store(true, SeqCst);
    }

    /// Ends what [`Gate::begin_loading`] began.
    pub fn end_loading(&self) {
        self.loading.store(false, SeqCst);
    }

    /// Whether interrupted work is inside.
    pub fn is_stayed_in(&self) -> bool {
        self.loading.load(SeqCst) || self.is_stayed_in_by_worker()
    }

    fn is_stayed_in_by_worker(&self) -> bool {
        self.workers.iter().any(|worker| worker.staying.load(SeqCst) > 0)
    }

    /// Whether the worker could enter now.
    pub fn is_open(&self, worker: usize) -> bool {
        !self.workers[worker].lock.is_locked()
    }

    /// Waits until every worker is between two groups, and keeps them there. For threads that are not workers.
    pub fn close(&self) -> Closed<'_> {
        for attempt in 0.. {
            self.wait_for_slow();
            while self.is_stayed_in() {
                std::thread::sleep(STAYING_LOOK);
            }
            let patience =
                PATIENCE.saturating_mul(1_u32.checked_shl(attempt / ATTEMPTS_PER_DOUBLING).unwrap_or(u32::MAX));
            if let Some(closed) = self.take_all(patience) {
                return closed;
            }
        }
        unreachable!("the last of 2^32 attempts waits for days")
    }

    /// Closes the gate for ever, even while shards are loaded: the process is about to end.
    pub fn close_at_the_end(&self) -> Closed<'_> {
        while self.is_stayed_in_by_worker() {
            std::thread::sleep(STAYING_LOOK);
        }
        Closed { _alone: alone(), _locks: self.workers.iter().map(|worker| worker.lock.lock()).collect() }
    }

    /// Waits for every worker that currently executes, without stopping any. For threads that are not workers.
    pub fn wait_for_slow(&self) {
        self.workers.iter().filter(|worker| worker.lock.is_locked()).for_each(|worker| drop(worker.lock.lock()));
    }

    /// Closes the gate if that takes no longer than `patience`. For a thread that holds a lock for which others wait,
    /// and that releases it before another attempt.
    pub fn try_close(&self, patience: Duration) -> Option<Closed<'_>> {
        if self.is_stayed_in() {
            return None;
        }
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
        let mut workers = self.workers.iter().zip(&closing.entries);
        if !workers.all(|(worker, entries)| worker.has_passed(*entries)) {
            let until = Instant::now() + patience;
            for (worker, entries) in self.workers.iter().zip(&closing.entries) {
                if !worker.has_passed(*entries) {
                    drop(worker.lock.try_lock_until(until)?);
                }
            }
        }
        if self.is_stayed_in() {
            return None;
        }
        let doublings = closing.failures / ATTEMPTS_PER_DOUBLING;
        let closed = self.take_all(PATIENCE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)));
        closing.entries.clear();
        closing.failures = if closed.is_some() { 0 } else { closing.failures.saturating_add(1) };
        closed
    }

    /// Whether every worker has been between two groups since the attempt began.
    pub fn have_passed(&self, closing: &Closing) -> bool {
        !self.is_stayed_in()
            && self.workers.iter().zip(&closing.entries).all(|(worker, entries)| worker.has_passed(*entries))
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
        (!self.is_stayed_in()).then(|| Closed { _alone: alone(), _locks: locks })
    }
}

impl Padded {
    fn new(worker: usize) -> Padded {
        Padded {
            lock: Mutex::indexed(Rank::Gate, worker as u32, ()),
            entries: AtomicU64::new(0),
            staying: AtomicU32::new(0),
        }
    }

    /// Notes that the worker has entered.
    #[inline]
    fn entered<'a>(&self, lock: MutexGuard<'a, ()>) -> Inside<'a> {
        self.entries.store(self.entries.load(Relaxed) + 1, Relaxed);
        Inside { _lock: lock }
    }

    #[cold]
    fn wait_for(&self, patience: Duration) -> Option<MutexGuard<'_, ()>> {
        super::waiting(|| match patience.is_zero() {
            true => super::spin(|| self.lock.try_lock()),
            false => self.lock.try_lock_for(patience),
        })
    }

    /// Whether the worker is between two groups, or has been since it had entered this often.
    fn has_passed(&self, entries: u64) -> bool {
        !self.lock.is_locked() || self.entries.load(Relaxed) != entries
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    fn interrupted_work_keeps_the_gate_open_and_its_worker_goes_on() {
        let gate = Gate::new(2);
        let staying = gate.stay(0, gate.enter(0));
        let mut closing = Closing::default();
        assert!(gate.try_close(Duration::from_micros(50)).is_none());
        assert!(gate.try_close_for(&mut closing, Duration::from_micros(50)).is_none());
        assert!(!gate.have_passed(&closing));
        let second = gate.stay(0, gate.try_enter(0, Duration::ZERO).expect("its worker enters as always"));
        drop((staying, gate.enter(0)));
        assert!(gate.try_close(Duration::from_micros(50)).is_none());
        std::thread::scope(|scope| {
            let closer = scope.spawn(|| drop(gate.close()));
            std::thread::sleep(Duration::from_millis(3));
            assert!(!closer.is_finished());
            drop(second);
        });
        assert!(gate.try_close_for(&mut closing, Duration::ZERO).is_some());
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

    #[test]
    fn whoever_closes_the_gate_is_alone_although_workers_are_added() {
        const ADDED: usize = 30;
        let gate = Gate::new(1);
        let (inside, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ADDED {
                    let worker = gate.add_worker().expect("there is a place");
                    let (gate, inside, stop) = (&gate, &inside, &stop);
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            let lock = gate.enter(worker);
                            inside.fetch_add(1, Ordering::SeqCst);
                            std::hint::spin_loop();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                            std::thread::yield_now();
                        }
                    });
                }
            });
            let (mut closed, mut is_alone) = (0, true);
            while is_alone && (closed < 100 || gate.workers() <= ADDED) {
                let _alone = gate.close();
                let workers = gate.workers();
                (0..10).for_each(|_| std::thread::yield_now());
                is_alone = (inside.load(Ordering::SeqCst), gate.workers()) == (0, workers);
                closed += 1;
            }
            // The scope ends when its threads have.
            stop.store(true, Ordering::Relaxed);
            assert!(is_alone, "another was inside, or came in");
        });
    }
}
