//! The connections that watch all commands: MONITOR.
//!
//! Invariants:
//! - Whoever shows commands holds this register while it posts them to every monitor, so that all monitors see one
//!   order. It also holds the shards of the commands' keys, so that commands on one key are seen in the order of their
//!   effects.
//! - Whether there is any monitor is told under the lock, so that the last word about it is right.
//! - A monitor whose user may not see everything is shown those lines alone that were found to be for it.

use std::ops::Range;
use std::sync::Arc;

use crate::base::lock::{Mutex, Rank};

/// A connection that watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The connection's id.
    pub client: u64,
    /// The worker that serves it.
    pub worker: usize,
}

/// Lines that monitors are to be shown.
#[derive(Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// The lines that a monitor may see which may not see all.
    seen: Vec<(u64, Range<usize>)>,
}

impl Lines {
    /// Where the next line begins.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text, to write another line behind it.
    pub fn text_mut(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Says that a monitor may see what was written since `begin`.
    pub fn show_to(&mut self, client: u64, begin: usize) {
        self.seen.push((client, begin..self.text.len()));
    }

    /// Drops what was written since `begin`.
    pub fn truncate(&mut self, begin: usize) {
        self.text.truncate(begin);
        self.seen.retain(|(_, line)| line.end <= begin);
    }

    /// All lines.
    pub fn all(&self) -> Arc<[u8]> {
        self.text[..].into()
    }

    /// The lines of a monitor that may not see all.
    pub fn of(&self, client: u64) -> Arc<[u8]> {
        let own = self.seen.iter().filter(|(of, _)| *of == client);
        own.flat_map(|(_, line)| &self.text[line.clone()]).copied().collect()
    }
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
    fn a_limited_monitor_has_its_own_lines_alone() {
        let mut lines = Lines::default();
        for (line, viewers) in [("a", &[7][..]), ("b", &[]), ("c", &[7, 8]), ("d", &[8])] {
            let begin = lines.len();
            lines.text_mut().extend_from_slice(line.as_bytes());
            viewers.iter().for_each(|client| lines.show_to(*client, begin));
        }
        assert_eq!((&*lines.all(), &*lines.of(7), &*lines.of(8)), (&b"abcd"[..], &b"ac"[..], &b"cd"[..]));
        lines.truncate(3);
        assert_eq!((&*lines.all(), &*lines.of(8), &*lines.of(9)), (&b"abc"[..], &b"c"[..], &b""[..]));
    }

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
