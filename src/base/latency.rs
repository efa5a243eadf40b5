//! The latency monitor: which events of the server took long, and when. LATENCY shows it.
//!
//! Whoever does something that may delay clients measures it by [`LatencyMonitor::start`] and
//! [`LatencyMonitor::end`]. While the monitor is off, that costs one load, and the clock is not read.
//!
//! Invariants:
//! - An event keeps at most [`SAMPLES_MAX`] samples, at most one per second: the longest of that second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::base::clock;
use crate::base::lock::Mutex;

/// The most samples of one event.
pub const SAMPLES_MAX: usize = 160;

/// A kind of event that may delay clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// One pass of active defragmentation.
    ActiveDefragCycle,
    /// An fsync of the log that replies wait for.
    AofFsyncAlways,
    /// A write to the log's file.
    AofWrite,
    /// A command that may take long.
    Command,
    /// Making room for a command above `maxmemory`.
    EvictionCycle,
    /// One pass of active expiry.
    ExpireCycle,
    /// A command of constant or logarithmic time.
    FastCommand,
    /// Loading the data at the start.
    Load,
    /// The time that a snapshot holds up all commands, which is where Redis forks.
    SnapshotFreeze,
}

impl Event {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Event::ActiveDefragCycle => "active-defrag-cycle",
            Event::AofFsyncAlways => "aof-fsync-always",
            Event::AofWrite => "aof-write",
            Event::Command => "command",
            Event::EvictionCycle => "eviction-cycle",
            Event::ExpireCycle => "expire-cycle",
            Event::FastCommand => "fast-command",
            Event::Load => "load",
            Event::SnapshotFreeze => "snapshot-freeze",
        }
    }
}

/// An event that took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it ended, Unix seconds.
    pub at: i64,
    /// How long it took.
    pub took_ms: u64,
}

/// The samples of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// Oldest first.
    pub samples: VecDeque<Sample>,
    /// The longest ever, also of samples that are gone.
    pub longest_ms: u64,
}

impl Series {
    fn add(&mut self, sample: Sample) {
        self.longest_ms = self.longest_ms.max(sample.took_ms);
        match self.samples.back_mut() {
            Some(last) if last.at == sample.at => last.took_ms = last.took_ms.max(sample.took_ms),
            _ => {
                if self.samples.len() == SAMPLES_MAX {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct LatencyMonitor {
    /// `u64::MAX` while the monitor is off.
    threshold_ns: AtomicU64,
    events: Mutex<BTreeMap<Event, Series>>,
}

impl Default for LatencyMonitor {
    fn default() -> Self {
        LatencyMonitor { threshold_ns: AtomicU64::new(u64::MAX), events: Mutex::default() }
    }
}

impl LatencyMonitor {
    /// Sets `latency-monitor-threshold`; 0 switches the monitor off.
    pub fn set_threshold_ms(&self, threshold_ms: u64) {
        let threshold_ns = if threshold_ms == 0 { u64::MAX } else { threshold_ms.saturating_mul(1_000_000) };
        self.threshold_ns.store(threshold_ns, Ordering::Relaxed);
    }

    /// Notes every event, however short: how long something takes is nothing that a test can rely on.
    #[cfg(test)]
    pub fn note_all(&self) {
        self.threshold_ns.store(0, Ordering::Relaxed);
    }

    /// From how many nanoseconds on an event is noted; `u64::MAX` while the monitor is off.
    #[inline]
    pub fn threshold_ns(&self) -> u64 {
        self.threshold_ns.load(Ordering::Relaxed)
    }

    /// The beginning of an event; `None` while the monitor is off.
    #[inline]
    pub fn start(&self) -> Option<Instant> {
        (self.threshold_ns() != u64::MAX).then(Instant::now)
    }

    /// The end of an event.
    #[inline]
    pub fn end(&self, event: Event, started: Option<Instant>) {
        if let Some(started) = started {
            self.note(event, started.elapsed().as_nanos() as u64);
        }
    }

    /// Notes an event if it took long enough.
    #[inline]
    pub fn note(&self, event: Event, took_ns: u64) {
        if took_ns >= self.threshold_ns() {
            self.add(event, took_ns, clock::now_ms() / 1000);
        }
    }

    #[cold]
    fn add(&self, event: Event, took_ns: u64, at: i64) {
        let sample = Sample { at, took_ms: took_ns / 1_000_000 };
        self.events.lock().entry(event).or_default().add(sample);
    }

    /// All events that were noted, by name.
    pub fn all(&self) -> Vec<(Event, Series)> {
        self.events.lock().iter().map(|(event, series)| (*event, series.clone())).collect()
    }

    /// The samples of the event of this name.
    pub fn named(&self, name: &[u8]) -> Option<(Event, Series)> {
        let events = self.events.lock();
        let found = events.iter().find(|(event, _)| event.name().as_bytes() == name);
        found.map(|(event, series)| (*event, series.clone()))
    }

    /// Forgets the events of these names, in any case, or all without names. Returns how many there were.
    pub fn forget<'a>(&self, names: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        let is_meant = |event: &Event| names.clone().any(|name| name.eq_ignore_ascii_case(event.name().as_bytes()));
        events.retain(|event, _| names.len() > 0 && !is_meant(event));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_noted_from_the_threshold_on() {
        let monitor = LatencyMonitor::default();
        assert!(monitor.start().is_none());
        monitor.note(Event::Command, 5_000_000_000);
        assert_eq!(monitor.all(), []);
        monitor.set_threshold_ms(10);
        assert!(monitor.start().is_some());
        monitor.note(Event::Command, 9_999_999);
        assert_eq!(monitor.all(), []);
        monitor.note(Event::Command, 10_000_000);
        assert_eq!(monitor.named(b"command").map(|(_, series)| series.longest_ms), Some(10));
        monitor.set_threshold_ms(0);
        monitor.note(Event::Load, 5_000_000_000);
        assert_eq!(monitor.all().len(), 1);
    }

    #[test]
    fn a_second_has_one_sample_and_the_oldest_go() {
        let monitor = LatencyMonitor::default();
        for (at, took_ms) in [(1, 20), (1, 50), (1, 30), (2, 5)] {
            monitor.add(Event::FastCommand, took_ms * 1_000_000, at);
        }
        let (_, series) = monitor.named(b"fast-command").unwrap();
        assert_eq!(series.samples, [Sample { at: 1, took_ms: 50 }, Sample { at: 2, took_ms: 5 }]);
        (3..=300).for_each(|at| monitor.add(Event::FastCommand, 1_000_000, at));
        let (_, series) = monitor.named(b"fast-command").unwrap();
        assert_eq!((series.samples.len(), series.samples[0].at, series.longest_ms), (SAMPLES_MAX, 141, 50));
    }

    #[test]
    fn events_are_forgotten_by_name_or_all() {
        let monitor = LatencyMonitor::default();
        for event in [Event::Command, Event::Load, Event::AofWrite] {
            monitor.add(event, 1, 1);
        }
        assert_eq!(monitor.forget([&b"LOAD"[..], b"nope"].into_iter()), 1);
        assert_eq!(monitor.forget([].into_iter()), 2);
        assert_eq!(monitor.all(), []);
    }
}
