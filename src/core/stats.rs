//! Counters that workers keep without contention and that INFO adds up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::histogram::Histogram;
use crate::core::service::ServiceTimes;

/// A number with one writer, or with few and rarely; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, where the caller is the only writer: no locked instruction.
    #[inline]
    pub fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds, with any number of writers.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: Counter,)* }
        impl $name {
            /// Sets all to zero: `CONFIG RESETSTAT`.
            pub fn reset(&self) { $(self.$field.set(0);)* }
        }
    };
}

counters! {
    /// What one worker counts; only it writes.
    WorkerCounters {
        /// Commands run.
        commands,
        /// Groups of commands that one connection had sent together.
        groups,
        /// Turns of the event loop in which replies were sent.
        turns,
        /// Reads that found their key.
        hits,
        /// Reads that did not.
        misses,
        /// Keys that had expired.
        expired,
        /// Fields of hashes that had expired.
        expired_fields,
        /// Keys evicted.
        evicted,
        /// Bytes received.
        net_input_bytes,
        /// Bytes sent.
        net_output_bytes,
        /// Reads from sockets that brought something.
        reads,
        /// Writes to sockets.
        writes,
        /// Microseconds spent on active expiry.
        expire_cycle_us,
        /// Microseconds spent on moving blocks out of sparse slabs.
        relocation_us,
    }
}

counters! {
    /// What one worker counts of one command.
    CommandCounters {
        /// Times it ran.
        calls,
        /// Time it took in all, in nanoseconds.
        nanoseconds,
        /// Times it was refused before it ran.
        rejected,
        /// Times it ran and failed.
        failed,
        /// Times it went to the slow log,
        slow,
        /// with this much time in all, in microseconds,
        slow_us,
        /// and at most this much.
        slow_us_max,
    }
}

/// The latencies of a command as a histogram: 16 buckets per doubling, from a microsecond to a second.
///
/// It takes 2.5 KiB from the command's first run on.
#[derive(Debug, Default)]
pub struct Latencies(OnceLock<Box<[Counter]>>);

/// Shorter times count as this power of two, in nanoseconds; and the first power that is too long.
const SHORTEST_BITS: u32 = 10;
const LONGEST_BITS: u32 = 30;
/// Buckets per doubling, as a power of two.
const STEP_BITS: u32 = 4;
const BUCKETS: usize = ((LONGEST_BITS - SHORTEST_BITS) << STEP_BITS) as usize;

impl Latencies {
    /// Counts this many runs that took this long each. The caller is the only writer.
    #[inline]
    pub fn record_alone(&self, nanoseconds: u64, times: u64) {
        let buckets = self.0.get_or_init(|| (0..BUCKETS).map(|_| Counter::default()).collect());
        let nanoseconds = nanoseconds.clamp(1 << SHORTEST_BITS, (1 << LONGEST_BITS) - 1);
        let power = nanoseconds.ilog2();
        let step = (nanoseconds >> (power - STEP_BITS)) as usize & ((1 << STEP_BITS) - 1);
        buckets[((power - SHORTEST_BITS) << STEP_BITS) as usize + step].add_alone(times);
    }

    /// Sets all to zero.
    pub fn reset(&self) {
        self.0.get().into_iter().flatten().for_each(|bucket| bucket.set(0));
    }

    /// How many runs there were, and how many of them took at most so many microseconds, for each power of two that
    /// has any beyond the one before it. The bounds are those that Redis shows. `None` without any run.
    pub fn cumulated<'a>(all: impl Iterator<Item = &'a Latencies>) -> Option<(u64, Vec<(u64, u64)>)> {
        let sums = Latencies::sums(all);
        let total: u64 = sums.iter().sum();
        let (mut bounds, mut seen, mut shown, mut at) = (Vec::new(), 0, 0, 0);
        for power in SHORTEST_BITS..=LONGEST_BITS {
            // The first bucket of a doubling counts for its lower bound, as in Redis.
            let end = ((((power - SHORTEST_BITS) << STEP_BITS) + 1) as usize).min(BUCKETS);
            seen += sums[at..end].iter().sum::<u64>();
            at = end;
            if seen > shown {
                shown = seen;
                // Redis' buckets are a 128th of their lower bound wide.
                bounds.push((((1 << power) + (1 << (power - 7)) - 1) / 1000, seen));
            }
        }
        (total > 0).then_some((total, bounds))
    }

    fn sums<'a>(all: impl Iterator<Item = &'a Latencies>) -> [u64; BUCKETS] {
        let mut sums = [0_u64; BUCKETS];
        for buckets in all.filter_map(|latencies| latencies.0.get()) {
            sums.iter_mut().zip(buckets).for_each(|(sum, bucket)| *sum += bucket.get());
        }
        sums
    }

    /// The upper bounds, in nanoseconds, of these percentages of all runs; `None` without any run.
    pub fn percentiles<'a>(all: impl Iterator<Item = &'a Latencies>, percentages: &[f64]) -> Option<Vec<u64>> {
        let sums = Latencies::sums(all);
        let total: u64 = sums.iter().sum();
        let bound = |percentage: &f64| {
            let wanted = ((total as f64 * percentage / 100.0).ceil() as u64).clamp(1, total);
            let mut seen = 0;
            let bucket = sums.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            let bucket = bucket.unwrap_or(BUCKETS - 1) as u64;
            let (power, step) = ((bucket >> STEP_BITS) as u32 + SHORTEST_BITS, bucket & ((1 << STEP_BITS) - 1));
            (((1 << STEP_BITS) + step + 1) << (power - STEP_BITS)) - 1
        };
        (total > 0).then(|| percentages.iter().map(bound).collect())
    }
}

/// Everything that one worker counts, on cache lines of its own.
#[repr(align(128))]
#[derive(Debug)]
pub struct WorkerStats {
    /// The totals.
    pub counters: WorkerCounters,
    /// By [`crate::core::table::CommandEntry::index`].
    pub commands: Box<[CommandCounters]>,
    /// How long they took, by the same index.
    pub latencies: Box<[Latencies]>,
    /// Their service times, by the same index.
    pub service: Box<[ServiceTimes]>,
    /// How many commands a turn of the event loop executed.
    pub batch_commands: Histogram,
    /// How long after their deadline keys were removed, in milliseconds.
    pub expiry_lag_ms: Histogram,
}

impl WorkerStats {
    /// All zero, for a table of this many commands and subcommands.
    pub fn new(commands: usize) -> Self {
        WorkerStats {
            counters: WorkerCounters::default(),
            commands: (0..commands).map(|_| CommandCounters::default()).collect(),
            latencies: (0..commands).map(|_| Latencies::default()).collect(),
            service: (0..commands).map(|_| ServiceTimes::default()).collect(),
            batch_commands: Histogram::default(),
            expiry_lag_ms: Histogram::default(),
        }
    }
}

counters! {
    /// Counters of events that are rare enough to be counted in one place.
    ServerCounters {
        /// Connections accepted.
        connections,
        /// Connections refused above `maxclients`.
        rejected_connections,
        /// Of these, connections with priority.
        rejected_priority_connections,
        /// Wrong passwords.
        access_denied_auth,
        /// Certificates that name no user who may log in.
        access_denied_tls_cert,
        /// Commands that their user may not run.
        access_denied_cmd,
        /// Commands with keys that their user may not use.
        access_denied_key,
        /// Commands with channels that their user may not use.
        access_denied_channel,
        /// Commands in databases that their user may not use.
        access_denied_db,
        /// Connections closed because their query was too long.
        query_buffer_limit_disconnections,
        /// Connections closed because they did not read their replies.
        output_buffer_limit_disconnections,
        /// Connections closed because all of them took too much memory.
        evicted_clients,
        /// Error replies.
        error_replies,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulated_counts_have_the_bounds_of_redis() {
        let workers = [Latencies::default(), Latencies::default()];
        assert_eq!(Latencies::cumulated(workers.iter()), None);
        workers[0].record_alone(10, 3);
        workers[1].record_alone(3_000, 1);
        workers[0].record_alone(30_000_000, 2);
        workers[1].record_alone(u64::MAX, 1);
        let shown = vec![(1, 3), (4, 4), (33_816, 6), (1_082_130, 7)];
        assert_eq!(Latencies::cumulated(workers.iter()), Some((7, shown)));
    }

    #[test]
    fn percentiles_are_within_a_sixteenth_and_add_up_over_workers() {
        let workers = [Latencies::default(), Latencies::default()];
        assert_eq!(Latencies::percentiles(workers.iter(), &[50.0]), None);
        for microseconds in 1..=1000 {
            workers[microseconds % 2].record_alone(microseconds as u64 * 1000, 1);
        }
        let bounds = Latencies::percentiles(workers.iter(), &[50.0, 99.0, 100.0]).unwrap();
        for (bound, exact) in bounds.into_iter().zip([500_000, 990_000, 1_000_000]) {
            assert!((exact..=exact * 17 / 16).contains(&bound), "{bound} for {exact}");
        }
        workers.iter().for_each(Latencies::reset);
        workers[0].record_alone(0, 1);
        workers[0].record_alone(u64::MAX, 1);
        let bounds = Latencies::percentiles(workers.iter(), &[0.0, 100.0]).unwrap();
        assert_eq!(bounds, [1087, (1 << LONGEST_BITS) - 1]);
    }
}
