//! Service time: how long commands take from the read of their last bytes to the last byte of their reply, and of what
//! that consists.
//!
//! ```text
//! read ──────────▶ executed ────────▶ the log allows the reply ────▶ the socket has taken it
//!   └ wait, run ┘           └ log ┘                         └ send ┘
//! ```
//!
//! What a connection has sent together is executed together: it shares *log* and *send*. *Run* is a command's own
//! time. *Wait* is the rest: for its turn, for the gate, for locks, and for what else its connection sent with it.
//!
//! Invariants:
//! - The four parts of a command add up to the whole.
//! - Clock readings are per read, per group and per send, not per command. Without `latency-tracking` there are none.
//! - A command that waits by its nature (BLPOP, WAIT), or goes on in a script that was left in the middle, is not among
//!   them, because its client asked for the wait. One whose client has gone, or wanted no reply, is not either.

use std::cell::RefCell;
use std::time::Instant;

use smallvec::SmallVec;

use crate::base::histogram::{Distribution, Histogram};

/// The most entries of the slow log that one batch of commands completes.
const SLOW_MAX: usize = 64;

/// Of what service time consists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// For its turn, the gate, locks, and the other commands of its batch.
    Wait,
    /// Its own execution.
    Run,
    /// For the log to be as durable as `appendfsync` demands.
    Log,
    /// For the sockets to take the replies of the turn.
    Send,
    /// All of them together.
    Whole,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [Part::Wait, Part::Run, Part::Log, Part::Send, Part::Whole];

    /// Its name in INFO and elsewhere.
    pub fn name(self) -> &'static str {
        match self {
            Part::Wait => "wait",
            Part::Run => "run",
            Part::Log => "log",
            Part::Send => "send",
            Part::Whole => "whole",
        }
    }
}

/// The service times of a command on one worker, in nanoseconds, by [`Part`].
#[derive(Debug, Default)]
pub struct ServiceTimes([Histogram; 5]);

impl ServiceTimes {
    fn add(&self, times: u64, parts: &Parts) {
        for (histogram, part) in self.0.iter().zip(parts.by_part()) {
            histogram.record_alone(part, times);
        }
    }

    /// Sets all to zero.
    pub fn reset(&self) {
        self.0.iter().for_each(Histogram::reset);
    }

    /// One part of the service times of several workers.
    pub fn of_part<'a>(all: impl Iterator<Item = &'a ServiceTimes>, part: Part) -> Distribution {
        Distribution::of(all.map(|times| &times.0[part as usize]))
    }
}

/// The parts of one service time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// See [`Part::Wait`].
    pub wait_ns: u64,
    /// See [`Part::Run`].
    pub run_ns: u64,
    /// See [`Part::Log`].
    pub log_ns: u64,
    /// See [`Part::Send`].
    pub send_ns: u64,
}

impl Parts {
    fn by_part(&self) -> [u64; 5] {
        let Parts { wait_ns, run_ns, log_ns, send_ns } = *self;
        [wait_ns, run_ns, log_ns, send_ns, wait_ns + run_ns + log_ns + send_ns]
    }
}

/// Calls of one command in a row, each of which ran for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calls {
    entry: usize,
    times: u64,
    run_ns: u64,
}

/// The commands of a connection whose replies have not left yet.
#[derive(Debug, Default)]
pub struct Served {
    /// When their last bytes were read,
    read: Option<Instant>,
    /// or whether that is just now,
    is_read_now: bool,
    /// when they were executed,
    executed: Option<Instant>,
    /// and when the log allowed their replies.
    allowed: Option<Instant>,
    calls: SmallVec<[Calls; 2]>,
    /// The numbers of those that are in the slow log, each with its own time.
    slow: RefCell<SmallVec<[(u64, u64); 2]>>,
}

impl Served {
    /// Bytes were read while nothing was pending.
    #[inline]
    pub fn note_read(&mut self, now: Instant) {
        self.read = Some(now);
    }

    /// Bytes were read that are executed at once: the beginning of that counts.
    #[inline]
    pub fn note_read_now(&mut self) {
        self.is_read_now = true;
    }

    /// An execution begins.
    #[inline]
    pub fn note_begun(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_read_now) {
            self.read = Some(now);
        }
    }

    /// Calls of a command were executed, each in so many nanoseconds.
    #[inline]
    pub fn add(&mut self, entry: usize, times: u64, run_ns: u64) {
        match self.calls.last_mut() {
            Some(last) if last.entry == entry && last.run_ns == run_ns => last.times += times,
            _ => self.calls.push(Calls { entry, times, run_ns }),
        }
    }

    /// The last call waits.
    pub fn take_back(&mut self) {
        if let Some(last) = self.calls.last_mut() {
            last.times = last.times.saturating_sub(1);
        }
    }

    /// One of them is entry `id` of the slow log.
    pub fn note_slow(&self, id: u64, run_ns: u64) {
        let mut slow = self.slow.borrow_mut();
        if slow.len() < SLOW_MAX {
            slow.push((id, run_ns));
        }
    }

    /// They were executed.
    #[inline]
    pub fn note_executed(&mut self, now: Instant) {
        self.executed = Some(now);
    }

    /// Whether anything was executed whose reply has not left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The log allows the replies.
    #[inline]
    pub fn note_allowed(&mut self, now: Instant) {
        if !self.calls.is_empty() {
            self.allowed.get_or_insert(now);
        }
    }

    /// There is no reply.
    pub fn forget(&mut self) {
        self.calls.clear();
        self.slow.get_mut().clear();
        (self.executed, self.allowed) = (None, None);
    }

    /// The replies have left. `of_worker` holds the times of each command, and `slow` gets the parts of those that are
    /// in the slow log, by their number there.
    pub fn settle(&mut self, of_worker: &[ServiceTimes], now: Instant, mut slow: impl FnMut(u64, Parts)) {
        let times = (self.read, self.executed, self.allowed);
        if let (Some(read), Some(executed), Some(allowed)) = times {
            let between = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
            // In the unlikely case that a clock reading is missing in between, the order of the others holds.
            let allowed = allowed.max(executed);
            let (before, log_ns, send_ns) =
                (between(read, executed), between(executed, allowed), between(allowed, now));
            let parts = |run_ns: u64| Parts { wait_ns: before.saturating_sub(run_ns), run_ns, log_ns, send_ns };
            for Calls { entry, times, run_ns } in self.calls.iter().filter(|calls| calls.times > 0) {
                of_worker[*entry].add(*times, &parts(*run_ns));
            }
            self.slow.get_mut().iter().for_each(|(id, run_ns)| slow(*id, parts(*run_ns)));
        }
        self.forget();
    }
}

/// Distributions that belong to no command.
#[derive(Debug, Default)]
pub struct ServiceFigures {
    /// How long commands stood still for a snapshot, in microseconds.
    pub freeze_us: Histogram,
    /// How long commands were parked for the gate or a lock, in microseconds.
    pub parked_us: Histogram,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let times = [ServiceTimes::default(), ServiceTimes::default()];
        let mut served = Served::default();
        let start = Instant::now();
        let after = |ns: u64| start + Duration::from_nanos(ns);
        served.note_read(start);
        served.add(0, 2, 100);
        served.add(1, 1, 300);
        served.note_slow(7, 300);
        served.note_executed(after(1000));
        served.note_allowed(after(5000));
        served.note_allowed(after(9000));
        let mut slow = Vec::new();
        served.settle(&times, after(5500), |id, parts| slow.push((id, parts)));
        assert_eq!(slow, [(7, Parts { wait_ns: 700, run_ns: 300, log_ns: 4000, send_ns: 500 })]);
        let of = |entry: usize, part| ServiceTimes::of_part([&times[entry]].into_iter(), part);
        assert_eq!((of(0, Part::Whole).count, of(0, Part::Whole).sum), (2, 11_000));
        for entry in 0..2 {
            let parts = [Part::Wait, Part::Run, Part::Log, Part::Send].map(|part| of(entry, part).sum);
            assert_eq!(parts.iter().sum::<u64>(), of(entry, Part::Whole).sum);
        }
        assert_eq!(of(0, Part::Wait).sum, 2 * 900);
        assert!(served.is_empty());
    }

    #[test]
    fn what_waits_or_has_no_reply_is_not_counted() {
        let times = [ServiceTimes::default()];
        let now = Instant::now();
        let mut served = Served::default();
        served.note_read(now);
        served.add(0, 1, 5);
        served.take_back();
        served.note_executed(now);
        served.note_allowed(now);
        served.settle(&times, now, |_, _| ());
        served.add(0, 1, 5);
        served.forget();
        served.settle(&times, now, |_, _| ());
        // Never read: the directive was switched on in between.
        let mut unread = Served::default();
        unread.add(0, 1, 5);
        unread.note_executed(now);
        unread.note_allowed(now);
        unread.settle(&times, now, |_, _| ());
        assert_eq!(ServiceTimes::of_part(times.iter(), Part::Whole).count, 0);
    }

    #[test]
    fn calls_in_a_row_are_kept_together() {
        let mut served = Served::default();
        (0..1000).for_each(|_| served.add(3, 16, 250));
        assert_eq!(served.calls[..], [Calls { entry: 3, times: 16_000, run_ns: 250 }]);
        (0..1000).for_each(|id| served.note_slow(id, 1));
        assert_eq!(served.slow.get_mut().len(), SLOW_MAX);
    }
}
