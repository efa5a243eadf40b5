//! How often logins from an address have failed: for `auth-failure-limit`.
//!
//! Invariant: it remembers a bounded number of addresses.

use std::collections::HashMap;

/// How long failures of an address are counted together, in milliseconds.
pub const PERIOD_MS: i64 = 60_000;
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug)]
struct Tally {
    since_ms: i64,
    count: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Failures(HashMap<Box<str>, Tally>);

impl Failures {
    /// Whether an address has failed this often or more in its period. 0 is no limit.
    pub fn has_reached(&self, address: &str, limit: u64, now_ms: i64) -> bool {
        limit > 0 && self.0.get(address).is_some_and(|tally| is_running(tally, now_ms) && tally.count >= limit)
    }

    /// Counts a failure. Its address's period begins with the first.
    pub fn count(&mut self, address: &str, now_ms: i64) {
        if let Some(tally) = self.0.get_mut(address) {
            if !is_running(tally, now_ms) {
                *tally = Tally { since_ms: now_ms, count: 0 };
            }
            tally.count += 1;
            return;
        }
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, tally| is_running(tally, now_ms));
        }
        if self.0.len() >= ADDRESSES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, tally)| tally.since_ms).map(|(address, _)| address.clone());
            oldest.and_then(|address| self.0.remove(&address));
        }
        self.0.insert(address.into(), Tally { since_ms: now_ms, count: 1 });
    }
}

fn is_running(tally: &Tally, now_ms: i64) -> bool {
    now_ms.saturating_sub(tally.since_ms) < PERIOD_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_for_a_period_and_for_their_address() {
        let mut failures = Failures::default();
        (0..3).for_each(|at| failures.count("10.0.0.1", at));
        assert!(failures.has_reached("10.0.0.1", 3, 10) && !failures.has_reached("10.0.0.1", 4, 10));
        assert!(!failures.has_reached("10.0.0.2", 1, 10) && !failures.has_reached("10.0.0.1", 0, 10));
        assert!(!failures.has_reached("10.0.0.1", 1, PERIOD_MS), "the period is over");
        failures.count("10.0.0.1", PERIOD_MS);
        assert!(!failures.has_reached("10.0.0.1", 2, PERIOD_MS));
        (0..2 * ADDRESSES_MAX).for_each(|number| failures.count(&format!("a{number}"), PERIOD_MS));
        assert!(failures.0.len() <= ADDRESSES_MAX);
    }
}
