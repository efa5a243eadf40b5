//! What `maxmemory` is compared with, beyond the bytes that the allocator has handed out.
//!
//! A command that brings much claims room for it before it runs, and holds the claim until what it brings is allocated.
//! So large values of several connections do not fill the same room. A claim also remembers what eviction has freed on
//! its account: a command pays its way, even while memory is far above the limit, and never waits for all of the
//! excess.
//!
//! Invariants:
//! - The sum of all claims is in `claimed_bytes`. A claim that is dropped is subtracted, whatever became of its
//!   connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::base::clock;

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct MemoryState {
    /// What commands that are about to run will allocate.
    claimed_bytes: AtomicU64,
    /// What the check of a backup loads: it goes again, and no key is to be evicted for it.
    passing_bytes: AtomicU64,
    /// Since when memory is above the limit, in microseconds of the monotonic clock; 0 for below.
    above_since_us: AtomicU64,
    /// How long it was above the limit before that, in microseconds.
    above_us: AtomicU64,
    /// A little more than the least that was in use since memory is above the limit; 0 while it is below.
    ceiling: AtomicU64,
}

impl MemoryState {
    /// Notes how much memory is in use, and whether that is above the limit.
    pub fn note(&self, is_above: bool, used: u64) {
        let since = self.above_since_us.load(Relaxed);
        if is_above && since != 0 {
            self.ceiling.fetch_min(used + used / 256, Relaxed);
        }
        if is_above == (since != 0) {
            return;
        }
        self.ceiling.store(if is_above { used + used / 256 } else { 0 }, Relaxed);
        let now = clock::monotonic_us().max(1);
        let after = if is_above { now } else { 0 };
        // One of several threads counts it.
        if self.above_since_us.compare_exchange(since, after, Relaxed, Relaxed).is_ok() && !is_above {
            self.above_us.fetch_add(now.saturating_sub(since), Relaxed);
        }
    }

    /// What commands that are about to run will allocate, in bytes.
    pub fn claimed_bytes(&self) -> u64 {
        self.claimed_bytes.load(Relaxed)
    }

    /// What is loaded for a moment and does not count, in bytes.
    pub fn passing_bytes(&self) -> u64 {
        self.passing_bytes.load(Relaxed)
    }

    /// Says how much is, or is about to be, loaded for a moment. One thread at a time does that.
    pub fn set_passing(&self, bytes: u64) {
        self.passing_bytes.store(bytes, Relaxed);
    }

    /// What memory must not grow beyond while it is above the limit, so that it comes down whatever commands bring; 0
    /// if it is below.
    pub fn ceiling(&self) -> u64 {
        self.ceiling.load(Relaxed)
    }

    /// How long memory has been above the limit, in milliseconds: in total, and this time.
    pub fn above_ms(&self) -> (u64, u64) {
        let current = match self.above_since_us.load(Relaxed) {
            0 => 0,
            since => clock::monotonic_us().saturating_sub(since),
        };
        ((self.above_us.load(Relaxed) + current) / 1000, current / 1000)
    }

    /// Forgets the total: CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.above_us.store(0, Relaxed);
        if self.above_since_us.load(Relaxed) != 0 {
            self.above_since_us.store(clock::monotonic_us().max(1), Relaxed);
        }
    }
}

/// The room that a command needs; see the module.
#[derive(Debug)]
pub struct Claim {
    state: Arc<MemoryState>,
    /// The bytes that the command will allocate.
    bytes: u64,
    /// The bytes that eviction has freed for it.
    pub paid: u64,
    /// Since when.
    pub since: Instant,
}

impl Claim {
    /// Claims room for this many bytes.
    pub fn new(state: &Arc<MemoryState>, bytes: u64) -> Claim {
        state.claimed_bytes.fetch_add(bytes, Relaxed);
        Claim { state: Arc::clone(state), bytes, paid: 0, since: Instant::now() }
    }

    /// The bytes claimed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.state.claimed_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_above_the_limit_adds_up() {
        let state = MemoryState::default();
        state.note(false, 1000);
        assert_eq!(state.above_ms(), (0, 0));
        state.note(true, 3000);
        std::thread::sleep(std::time::Duration::from_millis(3));
        state.note(true, 3000);
        let (total, current) = state.above_ms();
        assert!(total >= 3 && current >= 3, "{total} {current}");
        state.note(false, 1000);
        let (total, current) = state.above_ms();
        assert!(total >= 3 && current == 0, "{total} {current}");
        state.note(true, 3000);
        std::thread::sleep(std::time::Duration::from_millis(3));
        let reset = clock::monotonic_us();
        state.reset();
        state.note(false, 1000);
        assert!(state.above_us.load(Relaxed) <= clock::monotonic_us() - reset, "what was before is forgotten");
    }
}
