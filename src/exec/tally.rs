//! What statistics count of a script's run that may have to be repeated: nothing, until it is known that it is not.
//!
//! Invariants:
//! - What counts of such a run is counted once, at its end, or dropped with the run.

use super::group::Group;
use super::handler::{error_reply, fail};
use crate::core::table::CommandEntry;
use crate::core::{CommandError, Scratch};
use crate::resp::Output;
use crate::resp::reply::Mark;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Those that were called last are last.
    commands: Vec<Counts>,
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
    times: Vec<(u64, u64)>,
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

    fn add_error(&mut self, text: &[u8]) {
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

impl Group<'_> {
    /// A run begins that may have to be repeated: it is counted when it is known that it is not.
    pub(super) fn begin_tally(&mut self) {
        let &mut Scratch { hits, misses, expired, expired_fields, .. } = self.scratch;
        let processed = self.processed;
        self.tally = Some(Box::new(Tally { hits, misses, expired, expired_fields, processed, ..Tally::default() }));
    }

    /// The run is repeated: it counts for nothing.
    pub(super) fn drop_tally(&mut self) {
        let Some(tally) = self.tally.take() else { return };
        (self.scratch.hits, self.scratch.misses) = (tally.hits, tally.misses);
        (self.scratch.expired, self.scratch.expired_fields) = (tally.expired, tally.expired_fields);
        self.processed = tally.processed;
    }

    /// The run is not repeated: it counts.
    pub(super) fn count_tally(&mut self) {
        let Some(tally) = self.tally.take() else { return };
        for counts in tally.commands {
            let of = &self.stats.commands[counts.index];
            of.calls.add_alone(counts.calls);
            of.rejected.add_alone(counts.rejected);
            of.failed.add_alone(counts.failed);
            of.nanoseconds.add_alone(counts.nanoseconds);
            let latencies = &self.stats.latencies[counts.index];
            counts.times.iter().for_each(|(time, times)| latencies.record_alone(*time, *times));
        }
        for (text, times) in tally.errors {
            (0..times).for_each(|_| self.server.count_error(&text));
        }
    }

    /// Counts a command of a script that has run for so long.
    #[inline]
    pub(super) fn count_called(&mut self, entry: &CommandEntry, nanoseconds: u64) {
        self.processed += 1;
        let Some(tally) = &mut self.tally else {
            self.count_time(entry, 1, nanoseconds);
            return self.stats.commands[entry.index].calls.add_alone(1);
        };
        let counts = tally.of(entry.index);
        counts.calls += 1;
        counts.nanoseconds += nanoseconds;
        if self.latency_tracking {
            counts.add_time(nanoseconds);
        }
    }

    /// Counts a command that a script may not call.
    pub(super) fn count_rejected(&mut self, entry: &CommandEntry) {
        match &mut self.tally {
            Some(tally) => tally.of(entry.index).rejected += 1,
            None => self.stats.commands[entry.index].rejected.add_alone(1),
        }
    }

    /// Replies with an error to a command that does not run, and counts it.
    pub(super) fn reply_error(&mut self, error: &CommandError, out: &mut Output) {
        let Some(tally) = &mut self.tally else { return error_reply(self.server, error, out) };
        let text = error.wire();
        tally.add_error(&text);
        out.error_bytes(&text);
    }

    /// Replies with an error to a command that ran, replacing its output behind the mark, and counts it.
    #[cold]
    pub(super) fn fail(&mut self, entry: &CommandEntry, error: &CommandError, mark: Mark, out: &mut Output) {
        if let Some(tally) = &mut self.tally {
            out.truncate(mark);
            tally.of(entry.index).failed += 1;
            return self.reply_error(error, out);
        }
        fail(self.server, &self.stats.commands[entry.index], error, mark, out);
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
        assert_eq!(counts.times, [(0, 2), (1, 1), (1000, 2), (2000, 1), (1_000_000, 2)]);
    }
}
