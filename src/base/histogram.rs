//! A histogram of numbers that any thread may read: eight buckets per doubling, from 0 to a trillion.
//!
//! ```text
//! 0 1 2 … 7 │ 8 9 10 … 15 │ 16 18 20 … 30 │ 32 36 …     the lower bounds: exact, exact, 2 apart, 4 apart …
//! ```
//!
//! Invariants:
//! - A number is in the bucket with the highest lower bound that is not above it, so that what is told of it is at most
//!   an eighth too high.
//! - Memory is taken with the first number: 2.4 KiB.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets per doubling, as a power of two.
const STEP_BITS: u32 = 3;
/// The first power of two that is too large. Larger numbers count for the last bucket.
const LARGEST_BITS: u32 = 40;
const BUCKETS: usize = ((LARGEST_BITS - STEP_BITS + 1) << STEP_BITS) as usize;

/// See the module.
#[derive(Debug, Default)]
pub struct Histogram(OnceLock<Box<Counted>>);

#[derive(Debug)]
struct Counted {
    sum: AtomicU64,
    largest: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Counted {
    fn default() -> Self {
        Counted { sum: AtomicU64::new(0), largest: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

/// The bucket of a number.
#[inline]
fn bucket_of(number: u64) -> usize {
    let number = number.min((1 << LARGEST_BITS) - 1);
    match number.checked_ilog2() {
        Some(power) if power >= STEP_BITS => {
            let step = (number >> (power - STEP_BITS)) as usize & ((1 << STEP_BITS) - 1);
            (((power - STEP_BITS + 1) << STEP_BITS) as usize) + step
        }
        _ => number as usize,
    }
}

/// The highest number of a bucket.
fn highest_of(bucket: usize) -> u64 {
    let (group, step) = ((bucket >> STEP_BITS) as u32, (bucket & ((1 << STEP_BITS) - 1)) as u64);
    match group {
        0 => step,
        group => (((1 << STEP_BITS) + step + 1) << (group - 1)) - 1,
    }
}

impl Histogram {
    /// Counts a number this many times. The caller is the only writer: no locked instruction.
    #[inline]
    pub fn record_alone(&self, number: u64, times: u64) {
        let counted = self.0.get_or_init(Box::default);
        let add = |to: &AtomicU64, more: u64| to.store(to.load(Relaxed).wrapping_add(more), Relaxed);
        add(&counted.buckets[bucket_of(number)], times);
        add(&counted.sum, number.wrapping_mul(times));
        if number > counted.largest.load(Relaxed) {
            counted.largest.store(number, Relaxed);
        }
    }

    /// Counts a number, with any number of writers.
    pub fn record(&self, number: u64) {
        let counted = self.0.get_or_init(Box::default);
        counted.buckets[bucket_of(number)].fetch_add(1, Relaxed);
        counted.sum.fetch_add(number, Relaxed);
        counted.largest.fetch_max(number, Relaxed);
    }

    /// Sets all to zero.
    pub fn reset(&self) {
        if let Some(counted) = self.0.get() {
            let all = counted.buckets.iter().chain([&counted.sum, &counted.largest]);
            all.for_each(|number| number.store(0, Relaxed));
        }
    }
}

/// What some histograms hold together, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// How many numbers.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub largest: u64,
    buckets: Vec<u64>,
}

impl Distribution {
    /// That of these histograms.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Histogram>) -> Distribution {
        let mut whole = Distribution { count: 0, sum: 0, largest: 0, buckets: vec![0; BUCKETS] };
        for counted in all.into_iter().filter_map(|histogram| histogram.0.get()) {
            whole.sum = whole.sum.wrapping_add(counted.sum.load(Relaxed));
            whole.largest = whole.largest.max(counted.largest.load(Relaxed));
            whole.buckets.iter_mut().zip(&counted.buckets).for_each(|(sum, bucket)| *sum += bucket.load(Relaxed));
        }
        whole.count = whole.buckets.iter().sum();
        whole
    }

    /// The number that this part of all numbers, in percent, is not above; at most an eighth too high. 0 without any.
    pub fn percentile(&self, percent: f64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        let wanted = ((self.count as f64 * percent / 100.0).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        highest_of(bucket.unwrap_or(BUCKETS - 1)).min(self.largest)
    }

    /// What was counted since an earlier moment. Nothing if the histograms were set to zero in between.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let more = |(now, before): (&u64, &u64)| now.saturating_sub(*before);
        let buckets: Vec<u64> = self.buckets.iter().zip(&earlier.buckets).map(more).collect();
        let (count, sum) = (buckets.iter().sum(), self.sum.saturating_sub(earlier.sum));
        Distribution { count, sum, largest: self.largest, buckets }
    }

    /// How many numbers are below this power of two.
    pub fn below(&self, power: u32) -> u64 {
        let end = if power >= LARGEST_BITS { BUCKETS } else { bucket_of(1 << power) };
        self.buckets[..end].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_no_gap_and_no_overlap() {
        let mut last = None;
        for bucket in 0..BUCKETS {
            let highest = highest_of(bucket);
            assert_eq!(bucket_of(highest), bucket);
            assert_eq!(bucket_of(last.map_or(0, |last: u64| last + 1)), bucket);
            last = Some(highest);
        }
        assert_eq!((last, bucket_of(u64::MAX)), (Some((1 << LARGEST_BITS) - 1), BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_within_an_eighth_and_add_up() {
        let all = [Histogram::default(), Histogram::default()];
        assert_eq!(Distribution::of(&all).percentile(50.0), 0);
        for number in 1..=1000 {
            if number % 2 == 0 { all[0].record(number) } else { all[1].record_alone(number, 1) }
        }
        let whole = Distribution::of(&all);
        assert_eq!((whole.count, whole.sum, whole.largest), (1000, 500_500, 1000));
        for (percent, exact) in [(50.0, 500), (99.0, 990), (99.9, 999), (100.0, 1000)] {
            let told = whole.percentile(percent);
            assert!((exact..=exact * 9 / 8).contains(&told), "{told} for {exact}");
        }
        assert_eq!([0, 3, 9, 10, 63].map(|power| whole.below(power)), [0, 7, 511, 1000, 1000]);
        all.iter().for_each(Histogram::reset);
        assert_eq!(Distribution::of(&all).count, 0);
    }

    #[test]
    fn what_came_since_is_told_apart() {
        let histogram = Histogram::default();
        histogram.record_alone(1000, 5);
        let before = Distribution::of([&histogram]);
        histogram.record_alone(3, 2);
        let since = Distribution::of([&histogram]).since(&before);
        assert_eq!((since.count, since.sum, since.percentile(99.0)), (2, 6, 3));
        histogram.reset();
        let since = Distribution::of([&histogram]).since(&before);
        assert_eq!((since.count, since.sum, since.percentile(99.0)), (0, 0, 0));
    }

    #[test]
    fn a_number_counts_as_often_as_it_is_said() {
        let histogram = Histogram::default();
        histogram.record_alone(40, 16);
        histogram.record_alone(u64::MAX, 0);
        let whole = Distribution::of([&histogram]);
        assert_eq!((whole.count, whole.sum), (16, 640));
    }
}
