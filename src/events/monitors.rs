//! The connections that watch all commands: MONITOR.
//!
//! Invariants:
//! - Whoever shows commands holds this register while it posts them to every monitor, so that all monitors see one
//!   order. It also holds the shards of the commands' keys, so that commands on one key are seen in the order of their
//!   effects.
//! - Whether there is any monitor is told under the lock, so that the last word about it is right.

use crate::base::lock::{Mutex, Rank};

/// A connection that watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The connection's id.
    pub client: u64,
    /// The worker that serves it.
    pub worker: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Monitors(Mutex<Vec<Monitor>>);

impl Default for Monitors {
    fn default() -> Self {
        Monitors(Mutex::new(Rank::Monitors, Vec::new()))
    }
}

impl Monitors {
    /// Adds a connection. `tell` is told that there is one.
    pub fn add(&self, monitor: Monitor, tell: impl FnOnce(bool)) {
        let mut all = self.0.lock();
        all.push(monitor);
        tell(true);
    }

    /// Removes a connection. `tell` is told whether any is left.
    pub fn remove(&self, client: u64, tell: impl FnOnce(bool)) {
        let mut all = self.0.lock();
        all.retain(|monitor| monitor.client != client);
        tell(!all.is_empty());
    }

    /// Calls `show` with all of them, alone: what it posts comes behind everything that was posted before.
    pub fn in_order(&self, show: impl FnOnce(&[Monitor])) {
        show(&self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_whether_anybody_watches() {
        let (monitors, mut told) = (Monitors::default(), Vec::new());
        for client in [7, 8] {
            monitors.add(Monitor { client, worker: 1 }, |any| told.push(any));
        }
        for client in [7, 9, 8] {
            monitors.remove(client, |any| told.push(any));
        }
        assert_eq!(told, [true, true, true, true, false]);
        monitors.in_order(|all| assert!(all.is_empty()));
    }
}
