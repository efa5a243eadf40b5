//! Time: the wall clock, a monotonic clock, and a [`Clock`] that tests can move.
//!
//! Handlers never call this file; they receive `now`. Wall time may jump, so intervals (slow log, latency, timeouts)
//! use [`monotonic_us`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock: microseconds since 1970.
pub fn now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

/// Wall clock: milliseconds since 1970.
pub fn now_ms() -> i64 {
    now_us().div_euclid(1000)
}

/// Microseconds since the first call in this process; never goes back.
pub fn monotonic_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A source of wall time: the system's, or one that only moves when a test says so.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    moved_by_hand_us: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Clock {
        Clock { moved_by_hand_us: None }
    }

    /// A clock that stands at `now_ms` until a test moves it. Clones share it.
    pub fn manual(now_ms: i64) -> Clock {
        Clock { moved_by_hand_us: Some(Arc::new(AtomicI64::new(now_ms.saturating_mul(1000)))) }
    }

    /// Microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        match &self.moved_by_hand_us {
            None => now_us(),
            Some(time) => time.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.now_us().div_euclid(1000)
    }

    /// Moves a manual clock. Has no effect on the system's clock.
    pub fn advance_ms(&self, by_ms: i64) {
        if let Some(time) = &self.moved_by_hand_us {
            time.fetch_add(by_ms.saturating_mul(1000), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(1_000);
        let seen_elsewhere = clock.clone();
        assert_eq!((clock.now_ms(), clock.now_us()), (1_000, 1_000_000));
        clock.advance_ms(250);
        assert_eq!(seen_elsewhere.now_ms(), 1_250);
    }

    #[test]
    fn system_clock_is_plausible() {
        assert!(Clock::system().now_ms() > 1_700_000_000_000);
        assert!(now_us() / 1000 >= now_ms() - 1000);
        let first = monotonic_us();
        assert!(monotonic_us() >= first);
    }
}
