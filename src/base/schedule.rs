//! A scheduler for tests: of the threads of a run exactly one goes on at a time, and a seed decides which.
//!
//! Threads change places at locks, at condition variables, and at operations of the simulated disk. A run with the same
//! seed and the same threads takes the same way. So tests go through orders that hardly come about by themselves, and
//! they find
//! - **deadlocks**: every thread waits for a lock that another one holds;
//! - **lost wake-ups**: every thread sleeps, and none of them until a time.
//!
//! A sleep until a time ends when all threads wait: time passes only when nothing else happens. Threads outside the run
//! may use the same locks; a thread of the run waits for them in real time.
//!
//! Atomics are no places of change, and memory is in order: what a weaker order of memory allows is not seen here.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a run looks in vain whether threads outside of it have released a lock, a millisecond each.
const LOOKS: u32 = 1000;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ready,
    /// Waits for the lock at this address.
    Lock(usize),
    /// Sleeps at the condition variable at this address; perhaps until a time.
    Sleep(usize, bool),
    Ended,
}

#[derive(Debug)]
struct Turns {
    random: u64,
    threads: Vec<Stage>,
    /// Whether the last sleep of each thread ended by its time.
    timed_out: Vec<bool>,
    current: usize,
    /// How often nobody could go on since a lock was last released.
    looks: u32,
    /// Why the run has failed.
    failure: Option<String>,
}

#[derive(Debug)]
struct Schedule {
    turns: Mutex<Turns>,
    changed: Condvar,
}

thread_local! {
    static MINE: RefCell<Option<(Arc<Schedule>, usize)>> = const { RefCell::new(None) };
}

/// Runs threads by a seed, until all have ended. A deadlock, a lost wake-up or a panic in one of them is a panic.
pub(crate) fn run(seed: u64, threads: Vec<Box<dyn FnOnce() + Send + '_>>) {
    let turns = Turns {
        random: seed,
        threads: vec![Stage::Ready; threads.len()],
        timed_out: vec![false; threads.len()],
        current: 0,
        looks: 0,
        failure: None,
    };
    let schedule = Arc::new(Schedule { turns: Mutex::new(turns), changed: Condvar::new() });
    std::thread::scope(|scope| {
        for (number, thread) in threads.into_iter().enumerate() {
            let schedule = Arc::clone(&schedule);
            scope.spawn(move || {
                MINE.set(Some((Arc::clone(&schedule), number)));
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    drop(schedule.wait_for_turn(schedule.lock(), number));
                    thread();
                }));
                MINE.set(None);
                schedule.end(number, outcome.is_err());
            });
        }
    });
    let failure = schedule.lock().failure.take();
    if let Some(failure) = failure {
        panic!("seed {seed}: {failure}");
    }
}

/// Whether this thread is one of a run.
pub(crate) fn is_on() -> bool {
    MINE.with_borrow(Option::is_some) && !std::thread::panicking()
}

fn mine(go_on: impl FnOnce(&Schedule, usize)) {
    if std::thread::panicking() {
        return;
    }
    let mine = MINE.try_with(|mine| mine.try_borrow().ok().and_then(|mine| mine.clone())).ok().flatten();
    if let Some((schedule, number)) = mine {
        go_on(&schedule, number);
    }
}

/// Here another thread may go on.
pub(crate) fn point() {
    mine(|schedule, number| schedule.change(number, Stage::Ready));
}

/// Takes something that the lock at this address guards, as soon as `take` can.
pub(crate) fn until<T>(address: usize, mut take: impl FnMut() -> Option<T>) -> T {
    loop {
        point();
        if let Some(taken) = take() {
            return taken;
        }
        mine(|schedule, number| schedule.change(number, Stage::Lock(address)));
    }
}

/// Tries the same for a while.
pub(crate) fn try_some<T>(mut take: impl FnMut() -> Option<T>) -> Option<T> {
    (0..4).find_map(|_| {
        point();
        take()
    })
}

/// The lock at this address is free again.
pub(crate) fn released(address: usize) {
    mine(|schedule, _| {
        let mut turns = schedule.lock();
        turns.looks = 0;
        for stage in turns.threads.iter_mut().filter(|stage| **stage == Stage::Lock(address)) {
            *stage = Stage::Ready;
        }
    });
}

/// Sleeps until [`wake`] is called with the same address, or until a time. Returns whether the time came first.
pub(crate) fn sleep(address: usize, timed: bool) -> bool {
    let mut timed_out = false;
    mine(|schedule, number| {
        schedule.change(number, Stage::Sleep(address, timed));
        timed_out = std::mem::take(&mut schedule.lock().timed_out[number]);
    });
    timed_out
}

/// Wakes one of those who sleep at this address, or all.
pub(crate) fn wake(address: usize, all: bool) {
    mine(|schedule, _| {
        let mut turns = schedule.lock();
        let mut sleeping: Vec<usize> = turns.asleep(|at, _| at == address);
        while !sleeping.is_empty() {
            let chosen = turns.below(sleeping.len());
            let thread = sleeping.swap_remove(chosen);
            turns.threads[thread] = Stage::Ready;
            if !all {
                return;
            }
        }
    });
}

/// Keeps the address of a lock, and says that it is free when dropped.
#[derive(Debug)]
pub(crate) struct Release(pub(crate) usize);

impl Drop for Release {
    fn drop(&mut self) {
        released(self.0);
    }
}

impl Turns {
    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn asleep(&self, wanted: impl Fn(usize, bool) -> bool) -> Vec<usize> {
        let stages = self.threads.iter().enumerate();
        stages
            .filter(|(_, stage)| matches!(stage, Stage::Sleep(at, timed) if wanted(*at, *timed)))
            .map(|(number, _)| number)
            .collect()
    }

    /// Chooses who goes on after this thread. None: all have ended.
    fn choose(&mut self, after: usize) -> Option<usize> {
        // Long stretches of one thread are as interesting as quick changes, and cost less.
        if self.threads[after] == Stage::Ready && self.below(4) > 0 {
            return Some(after);
        }
        let ready: Vec<usize> = (0..self.threads.len()).filter(|at| self.threads[*at] == Stage::Ready).collect();
        if !ready.is_empty() {
            let chosen = self.below(ready.len());
            return Some(ready[chosen]);
        }
        None
    }
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the turn away and waits for the next one.
    fn change(&self, number: usize, stage: Stage) {
        let mut turns = self.lock();
        turns.threads[number] = stage;
        turns = self.pass_on(turns, number);
        drop(self.wait_for_turn(turns, number));
    }

    fn wait_for_turn<'t>(&'t self, mut turns: MutexGuard<'t, Turns>, number: usize) -> MutexGuard<'t, Turns> {
        while turns.failure.is_none() && !(turns.current == number && turns.threads[number] == Stage::Ready) {
            turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = &turns.failure {
            let failure = format!("the run has failed: {failure}");
            drop(turns);
            std::panic::panic_any(failure);
        }
        turns
    }

    fn pass_on<'t>(&'t self, mut turns: MutexGuard<'t, Turns>, number: usize) -> MutexGuard<'t, Turns> {
        loop {
            if turns.failure.is_some() {
                break;
            }
            if let Some(chosen) = turns.choose(number) {
                turns.current = chosen;
                break;
            }
            if turns.threads.iter().all(|stage| *stage == Stage::Ended) {
                break;
            }
            let timed = turns.asleep(|_, timed| timed);
            if !timed.is_empty() {
                let chosen = turns.below(timed.len());
                turns.threads[timed[chosen]] = Stage::Ready;
                turns.timed_out[timed[chosen]] = true;
                continue;
            }
            // Somebody outside the run may hold the lock.
            let waits_for_lock = turns.threads.iter().any(|stage| matches!(stage, Stage::Lock(_)));
            if !waits_for_lock || turns.looks == LOOKS {
                turns.failure = Some(format!("nobody can go on: {:?}", turns.threads));
                break;
            }
            turns.looks += 1;
            drop(turns);
            std::thread::sleep(Duration::from_millis(1));
            turns = self.lock();
            for stage in turns.threads.iter_mut().filter(|stage| matches!(stage, Stage::Lock(_))) {
                *stage = Stage::Ready;
            }
        }
        self.changed.notify_all();
        turns
    }

    fn end(&self, number: usize, panicked: bool) {
        let mut turns = self.lock();
        turns.threads[number] = Stage::Ended;
        if panicked && turns.failure.is_none() {
            turns.failure = Some(format!("thread {number} has panicked"));
        }
        drop(self.pass_on(turns, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::lock::{Condvar, Mutex, Rank};

    fn fails(run: impl FnOnce()) -> String {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        *outcome.expect_err("a failure").downcast::<String>().expect("a text")
    }

    /// Two threads add without holding the lock in between: some order loses a step, and every order is repeatable.
    #[test]
    fn a_seed_decides_the_order_and_some_order_loses_an_update() {
        let outcome = |seed| {
            let number = Mutex::new(Rank::Register, 0);
            let add = || {
                let before = *number.lock();
                *number.lock() = before + 1;
            };
            run(seed, vec![Box::new(add), Box::new(add)]);
            number.into_inner()
        };
        let outcomes: Vec<i32> = (0..60).map(outcome).collect();
        assert!(outcomes.contains(&1) && outcomes.contains(&2), "{outcomes:?}");
        assert_eq!(outcomes, (0..60).map(outcome).collect::<Vec<_>>());
    }

    #[test]
    fn a_lost_wake_up_is_found() {
        // The waker does not take the lock: it may call between the look and the sleep.
        let careless = |seed| {
            let (ready, lock, wake) =
                (Mutex::new(Rank::Register, false), Mutex::new(Rank::Signal, ()), Condvar::default());
            let sleeper = || {
                let is_ready = *ready.lock();
                if !is_ready {
                    let mut guard = lock.lock();
                    wake.wait(&mut guard);
                }
            };
            let waker = || {
                *ready.lock() = true;
                wake.notify_one();
            };
            run(seed, vec![Box::new(sleeper), Box::new(waker)]);
        };
        let found =
            (0..60).any(|seed| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| careless(seed))).is_err());
        assert!(found);
    }

    #[test]
    fn a_deadlock_is_found() {
        let deadlock = || {
            for seed in 0..200 {
                let (one, two) = (Mutex::new(Rank::Register, ()), Mutex::new(Rank::Register, ()));
                let take = |first: &Mutex<()>, second: &Mutex<()>| {
                    let _out_of_order = crate::base::lock::out_of_order("a deadlock is wanted");
                    let _first = first.lock();
                    drop(second.lock());
                };
                run(seed, vec![Box::new(|| take(&one, &two)), Box::new(|| take(&two, &one))]);
            }
        };
        assert!(fails(deadlock).contains("nobody can go on"));
    }
}
