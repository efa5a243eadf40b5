//! The thread that makes the log durable, and the one that tends its segments.
//!
//! Under `Always` it makes the group commit: while one fsync runs, the next block is collected. Under the other
//! policies it also flushes once a second, so that effects without a client (expiry) reach the file. It never spins:
//! it waits for a kick or for the next second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::lock::{Condvar, Mutex, Rank};

use super::log::{FsyncPolicy, Log};

/// The pace of `EverySec`.
const SECOND: Duration = Duration::from_secs(1);
/// How long the tending thread sleeps at most: what the disk has refused is tried again.
const TENDED_AGAIN: Duration = Duration::from_secs(10);

/// Wakes the thread.
pub struct Signal {
    kicked: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Default for Signal {
    fn default() -> Self {
        Signal {
            kicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            lock: Mutex::new(Rank::Signal, ()),
            wake: Condvar::default(),
        }
    }
}

impl Signal {
    /// Wakes the thread. Cheap if it was already woken.
    pub fn kick(&self) {
        if !self.kicked.swap(true, Ordering::AcqRel) {
            // The lock closes the gap between the thread's check and its sleep.
            drop(self.lock.lock());
            self.wake.notify_one();
        }
    }

    /// Whether the thread is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.kick();
    }

    /// Waits for a kick, at most until the deadline.
    fn wait(&self, deadline: Instant) {
        let mut guard = self.lock.lock();
        while !self.kicked.load(Ordering::Acquire) {
            if self.wake.wait_until(&mut guard, deadline) {
                break;
            }
        }
        // Not a plain store: it could overwrite a kick whose effects the thread has not seen yet. A swap reads the last
        // one in the order of changes, and what its kicker did before.
        self.kicked.swap(false, Ordering::AcqRel);
    }
}

/// A running thread of the log; stopped and joined when dropped.
pub(crate) struct LogThread {
    log: Arc<Log>,
    signal: fn(&Log) -> &Signal,
    handle: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts the thread that makes the log durable.
    pub(crate) fn sync(log: Arc<Log>) -> std::io::Result<Self> {
        Self::start(log, "ironkeep-fsync", |log| &log.signal, run)
    }

    /// Starts the thread that makes segments ahead of need.
    pub(crate) fn tend(log: Arc<Log>) -> std::io::Result<Self> {
        Self::start(log, "ironkeep-tend", |log| &log.tending, tend)
    }

    fn start(log: Arc<Log>, name: &str, signal: fn(&Log) -> &Signal, run: fn(&Log)) -> std::io::Result<Self> {
        let shared = Arc::clone(&log);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))?;
        Ok(Self { log, signal, handle: Some(handle) })
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        (self.signal)(&self.log).stop();
        if let Some(handle) = self.handle.take() {
            // A panic in it has already been reported.
            let _ = handle.join();
        }
    }
}

/// What the tending thread does until it is stopped.
fn tend(log: &Log) {
    while !log.tending.stop.load(Ordering::Acquire) {
        log.tending.wait(Instant::now() + TENDED_AGAIN);
        log.tend();
    }
}

/// What the thread does until it is stopped.
pub(crate) fn run(log: &Log) {
    let mut next_sync = Instant::now() + SECOND;
    while !log.signal.stop.load(Ordering::Acquire) {
        log.signal.wait(next_sync);
        let due = Instant::now() >= next_sync;
        if due {
            next_sync = Instant::now() + SECOND;
        }
        // Errors poison the log, which reports them. The thread continues, because the log may heal.
        let _ = match log.policy() {
            FsyncPolicy::Always => log.sync_now(),
            FsyncPolicy::EverySec if due => log.sync_now(),
            _ => log.flush().and_then(|_| log.sync_sealed()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A kick between the thread's look and its resetting was overwritten: what its kicker had appended waited for the
    /// next kick, or the next second.
    #[test]
    fn no_kick_is_lost() {
        const ROUNDS: u64 = 20_000;
        let (signal, wanted) = (Signal::default(), [const { AtomicU64::new(0) }; 3]);
        let done = [const { AtomicU64::new(0) }; 3];
        let far = Instant::now() + Duration::from_secs(3600);
        std::thread::scope(|scope| {
            for (wanted, done) in wanted.iter().zip(&done) {
                let signal = &signal;
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        wanted.store(round, Ordering::Relaxed);
                        signal.kick();
                        let begun = Instant::now();
                        while done.load(Ordering::Relaxed) < round {
                            assert!(begun.elapsed() < Duration::from_secs(60), "a kick was lost");
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while done.iter().any(|done| done.load(Ordering::Relaxed) < ROUNDS) {
                signal.wait(far);
                for (wanted, done) in wanted.iter().zip(&done) {
                    done.store(wanted.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        });
    }
}
