//! What statistics count of a script's run that may have to be repeated: nothing, until it is known that it is not.
//!
//! Invariants:
//! - What counts of such a run is counted once, at its end, or dropped with the run.

use smallvec::SmallVec;

use crate::core::stats::WorkerStats;
use crate::core::{CommandError, Scratch, Server};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Those that were called last are last. The room for some of them is part of this: it is made for each run.
    commands: SmallVec<[Counts; 3]>,
    /// The errors of commands, one of each code, and how often.
    errors: Vec<(Vec<u8>, u64)>,
    /// What was counted before.
    hits: u64,
    misses: u64,
    expired: u64,
    expired_fields: u64,
    processed: i64,
}

/// What is counted of one command.
#[derive(Debug, Default)]
struct Counts {
    /// The command's number.
    index: usize,
    calls: u64,
    rejected: u64,
    failed: u64,
    nanoseconds: u64,
    /// How long calls have taken, about, and how many each.
    times: SmallVec<[(u64, u64); 2]>,
}

/// Times that share their first bits with a first one count as that one.
const TIME_BITS: u32 = 5;

impl Tally {
    fn of(&mut self, index: usize) -> &mut Counts {
        let at = self.commands.iter().rposition(|counts| counts.index == index).unwrap_or_else(|| {
            self.commands.push(Counts { index, ..Counts::default() });
            self.commands.len() - 1
        });
        &mut self.commands[at]
    }

    /// An error has been the reply of a command.
    pub(super) fn add_error(&mut self, text: &[u8]) {
        match self.errors.iter_mut().find(|(known, _)| CommandError::code(known) == CommandError::code(text)) {
            Some((_, count)) => *count += 1,
            None => self.errors.push((text.to_vec(), 1)),
        }
    }
}

impl Counts {
    fn add_time(&mut self, nanoseconds: u64) {
        let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(TIME_BITS);
        match self.times.iter_mut().rfind(|(time, _)| time >> shift == nanoseconds >> shift) {
            Some((_, count)) => *count += 1,
            None => self.times.push((nanoseconds, 1)),
        }
    }
}

impl Tally {
    /// One of a run that begins now.
    pub(super) fn begin(scratch: &Scratch, processed: i64) -> Tally {
        let &Scratch { hits, misses, expired, expired_fields, .. } = scratch;
        Tally { hits, misses, expired, expired_fields, processed, ..Tally::default() }
    }

    /// The run is repeated: restores what was counted elsewhere. Returns how many commands were processed before.
    pub(super) fn restore(&self, scratch: &mut Scratch) -> i64 {
        (scratch.hits, scratch.misses) = (self.hits, self.misses);
        (scratch.expired, scratch.expired_fields) = (self.expired, self.expired_fields);
        self.processed
    }

    /// The run is not repeated: it counts.
    pub(super) fn count(self, server: &Server, stats: &WorkerStats) {
        for counts in self.commands {
            let of = &stats.commands[counts.index];
            of.calls.add_alone(counts.calls);
            of.rejected.add_alone(counts.rejected);
            of.failed.add_alone(counts.failed);
            of.nanoseconds.add_alone(counts.nanoseconds);
            let latencies = &stats.latencies[counts.index];
            counts.times.iter().for_each(|(time, times)| latencies.record_alone(*time, *times));
        }
        for (text, times) in self.errors {
            (0..times).for_each(|_| server.count_error(&text, false));
        }
    }

    /// A command has run for so long. `times_each` says whether that is wanted of each call.
    pub(super) fn add_call(&mut self, index: usize, nanoseconds: u64, times_each: bool) {
        let counts = self.of(index);
        counts.calls += 1;
        counts.nanoseconds += nanoseconds;
        if times_each {
            counts.add_time(nanoseconds);
        }
    }

    /// A command was refused.
    pub(super) fn add_rejected(&mut self, index: usize) {
        self.of(index).rejected += 1;
    }

    /// A command has run and failed.
    pub(super) fn add_failed(&mut self, index: usize) {
        self.of(index).failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_counted_together() {
        let mut tally = Tally::default();
        for index in [3, 5, 3] {
            tally.of(index).calls += 1;
        }
        assert_eq!(
            tally.commands.iter().map(|counts| (counts.index, counts.calls)).collect::<Vec<_>>(),
            [(3, 2), (5, 1)]
        );
        for text in [&b"ERR one"[..], b"WRONGTYPE x", b"ERR other"] {
            tally.add_error(text);
        }
        assert_eq!(tally.errors, [(b"ERR one".to_vec(), 2), (b"WRONGTYPE x".to_vec(), 1)]);
        let counts = tally.of(7);
        for nanoseconds in [0, 0, 1, 1000, 1010, 2000, 1_000_000, 1_000_100] {
            counts.add_time(nanoseconds);
        }
        assert_eq!(counts.times[..], [(0, 2), (1, 1), (1000, 2), (2000, 1), (1_000_000, 2)]);
    }
}
