//! The thread that makes the log durable.
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

/// The running thread; stopped and joined when dropped.
pub(crate) struct FsyncThread {
    log: Arc<Log>,
    handle: Option<JoinHandle<()>>,
}

impl FsyncThread {
    /// Starts the thread.
    pub(crate) fn start(log: Arc<Log>) -> std::io::Result<Self> {
        let shared = Arc::clone(&log);
        let handle = std::thread::Builder::new().name("ironkeep-fsync".to_owned()).spawn(move || run(&shared))?;
        Ok(Self { log, handle: Some(handle) })
    }
}

impl Drop for FsyncThread {
    fn drop(&mut self) {
        self.log.signal.stop.store(true, Ordering::Release);
        self.log.signal.kick();
        if let Some(handle) = self.handle.take() {
            // A panic in it has already been reported.
            let _ = handle.join();
        }
    }
}

fn run(log: &Log) {
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
