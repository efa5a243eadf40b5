//! What the server has done lately, for plots: a sample each second of the last minutes, and one each ten seconds of
//! the last hour.
//!
//! ```text
//! counters ── every second ──▶ what came since the sample before ──▶ a ring of 300 rows
//!          └─ every ten ─────▶ what came since the sample before ──▶ a ring of 360 rows
//! ```
//!
//! Invariants:
//! - Samples are taken on the thread of HTTP, and only while it listens. Commands do nothing for them, and nothing here
//!   waits for a lock that a command holds.
//! - The memory is fixed: a row has [`COLUMNS`] numbers, and a full ring drops its oldest row.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::base::histogram::Distribution;
use crate::base::{alloc, clock};
use crate::core::Server;
use crate::core::service::Part;
use crate::core::stats::WorkerCounters;
use crate::observe::{process, service};

/// How far samples are apart, in seconds, and how many are kept: five minutes, and an hour.
const TRACKS: [(u64, usize); 2] = [(1, 300), (10, 360)];

/// What workers count: shown as how much of it came in a second.
type Rate = (&'static str, fn(&WorkerCounters) -> u64);
const RATES: [Rate; 9] = [
    ("commands", |c| c.commands.get()),
    ("input_bytes", |c| c.net_input_bytes.get()),
    ("output_bytes", |c| c.net_output_bytes.get()),
    ("hits", |c| c.hits.get()),
    ("misses", |c| c.misses.get()),
    ("expired", |c| c.expired.get()),
    ("evicted", |c| c.evicted.get()),
    ("reads", |c| c.reads.get()),
    ("writes", |c| c.writes.get()),
];

/// What is counted elsewhere: shown in the same way. Of processor time, that is the number of busy processors.
const MORE_RATES: [&str; 3] = ["errors", "connections", "cpu"];

/// What is so much now.
const LEVELS: [&str; 8] =
    ["used_memory", "resident", "clients", "blocked", "keys", "log_bytes", "written_block", "durable_block"];

/// Of distributions: the mean and these percentiles of what came since the sample before.
const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9)];

/// Those whose mean and percentiles are shown: the parts of service time in microseconds, and how late expired keys go.
const DISTRIBUTIONS: usize = Part::ALL.len() + 1;

/// The numbers of a row: its time, and what the lists above name.
const COLUMNS: usize = 1 + RATES.len() + MORE_RATES.len() + LEVELS.len() + DISTRIBUTIONS * (1 + PERCENTILES.len());

/// A sample. What there is none of is not a number.
type Row = [f64; COLUMNS];

/// What had been counted at one moment.
struct Counted {
    at_us: u64,
    rates: [u64; RATES.len() + MORE_RATES.len()],
    distributions: [Distribution; DISTRIBUTIONS],
}

impl Counted {
    fn now(server: &Server) -> Counted {
        let sum = |of: fn(&WorkerCounters) -> u64| server.workers.iter().map(|worker| of(&worker.counters)).sum();
        let mut rates = [0; RATES.len() + MORE_RATES.len()];
        for (rate, (_, of)) in rates.iter_mut().zip(RATES) {
            *rate = sum(of);
        }
        let cpu = process::cpu_times().0;
        let more =
            [server.counters.error_replies.get(), server.counters.connections.get(), cpu.user_us + cpu.system_us];
        rates[RATES.len()..].copy_from_slice(&more);
        let [wait, run, log, send, whole] = service::of_all(server);
        let lag = Distribution::of(server.workers.iter().map(|worker| &worker.expiry_lag_ms));
        Counted { at_us: clock::monotonic_us(), rates, distributions: [wait, run, log, send, whole, lag] }
    }
}

/// What is so much now, by [`LEVELS`].
fn levels(server: &Server) -> [u64; LEVELS.len()] {
    use std::sync::atomic::Ordering::Relaxed;
    let clients = server.clients.list();
    let blocked = clients.iter().filter(|client| client.blocked.load(Relaxed)).count();
    let keys: usize = server.keyspace.counts().filled().map(|(_, census)| census.keys).sum();
    let (sizes, log) = (server.store.sizes(), server.store.log());
    [
        alloc::used_memory() as u64,
        process::resident_bytes(),
        clients.len() as u64,
        blocked as u64,
        keys as u64,
        sizes.log_bytes + sizes.base_bytes,
        log.written(),
        log.synced(),
    ]
}

/// Samples of one distance.
struct Track {
    period_s: u64,
    rows_max: usize,
    rows: VecDeque<Row>,
    before: Option<Counted>,
}

impl Track {
    fn new((period_s, rows_max): (u64, usize)) -> Track {
        Track { period_s, rows_max, rows: VecDeque::with_capacity(rows_max), before: None }
    }

    fn take(&mut self, server: &Server, time_ms: i64) {
        let now = Counted::now(server);
        if let Some(before) = &self.before {
            self.push(row(time_ms, before, &now, levels(server)));
        }
        self.before = Some(now);
    }

    fn push(&mut self, row: Row) {
        if self.rows.len() == self.rows_max {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
    }
}

/// The sample of the time between two moments.
fn row(time_ms: i64, before: &Counted, now: &Counted, levels: [u64; LEVELS.len()]) -> Row {
    let seconds = now.at_us.saturating_sub(before.at_us).max(1) as f64 / 1e6;
    let more = |(now, before): (&u64, &u64)| now.saturating_sub(*before) as f64 / seconds;
    let mut rates: Vec<f64> = now.rates.iter().zip(&before.rates).map(more).collect();
    // Microseconds of processor time in a second.
    rates.last_mut().into_iter().for_each(|cpu| *cpu /= 1e6);
    let of_distribution = |(at, (now, before)): (usize, (&Distribution, &Distribution))| {
        let (since, unit) = (now.since(before), if at < Part::ALL.len() { 1e3 } else { 1.0 });
        let mut shown = [f64::NAN; 1 + PERCENTILES.len()];
        if since.count > 0 {
            shown[0] = since.sum as f64 / since.count as f64 / unit;
            for (shown, (_, percent)) in shown[1..].iter_mut().zip(PERCENTILES) {
                *shown = since.percentile(percent) as f64 / unit;
            }
        }
        shown
    };
    let pairs = now.distributions.iter().zip(&before.distributions);
    let distributions = pairs.enumerate().flat_map(of_distribution);
    let numbers = [time_ms as f64].into_iter().chain(rates).chain(levels.map(|level| level as f64));
    let mut row = [f64::NAN; COLUMNS];
    row.iter_mut().zip(numbers.chain(distributions)).for_each(|(to, number)| *to = number);
    row
}

/// The names of the columns.
fn names() -> impl Iterator<Item = String> {
    let plain = RATES.iter().map(|(name, _)| *name).chain(MORE_RATES).chain(LEVELS);
    let of = Part::ALL.map(|part| format!("{}_us", part.name())).into_iter().chain(["expiry_lag_ms".to_owned()]);
    let percentiles = || ["mean"].into_iter().chain(PERCENTILES.map(|(name, _)| name));
    let of = of.flat_map(move |name| percentiles().map(move |of| format!("{name}_{of}")));
    ["time_ms".to_owned()].into_iter().chain(plain.map(str::to_owned)).chain(of)
}

/// See the module. It belongs to the thread of HTTP.
#[derive(Clone)]
pub(super) struct History(Rc<RefCell<[Track; TRACKS.len()]>>);

impl Default for History {
    fn default() -> Self {
        History(Rc::new(RefCell::new(TRACKS.map(Track::new))))
    }
}

impl History {
    /// Takes samples for as long as the process lives, once the data is loaded.
    pub(super) async fn follow(self, server: Arc<OnceLock<Arc<Server>>>) {
        let mut tick = interval(Duration::from_secs(1));
        // A late one is no reason to hurry: rates are of the time that has passed.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for second in 0_u64.. {
            tick.tick().await;
            if let Some(server) = server.get() {
                self.take(server, second, clock::now_ms());
            }
        }
    }

    fn take(&self, server: &Server, second: u64, time_ms: i64) {
        let mut tracks = self.0.borrow_mut();
        tracks.iter_mut().filter(|track| second.is_multiple_of(track.period_s)).for_each(|track| {
            track.take(server, time_ms);
        });
    }

    /// The samples that are younger than a time in Unix ms, as JSON.
    pub(super) fn report(&self, since_ms: f64, now_ms: i64) -> Vec<u8> {
        let mut text = format!("{{\"time_ms\":{now_ms},\"columns\":[");
        names().enumerate().for_each(|(at, name)| {
            text.push_str(if at == 0 { "\"" } else { ",\"" });
            text.push_str(&name);
            text.push('"');
        });
        text.push_str("],\"tracks\":[");
        for (at, track) in self.0.borrow().iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "," });
            write!(text, "{{\"period_s\":{},\"rows\":[", track.period_s).expect("a String takes every write");
            for (at, row) in track.rows.iter().filter(|row| row[0] > since_ms).enumerate() {
                text.push_str(if at == 0 { "[" } else { ",[" });
                row.iter().enumerate().for_each(|(at, number)| write_number(&mut text, at == 0, *number));
                text.push(']');
            }
            text.push_str("]}");
        }
        text.push_str("]}\n");
        text.into_bytes()
    }
}

/// Writes a number with at most two decimals behind its comma, or `null`.
fn write_number(text: &mut String, is_first: bool, number: f64) {
    text.push_str(if is_first { "" } else { "," });
    let rounded = (number * 100.0).round() / 100.0;
    let written = if rounded.is_finite() { write!(text, "{rounded}") } else { write!(text, "null") };
    written.expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(at_us: u64, rate: u64) -> Counted {
        let nothing = || Distribution::of([]);
        let rates = [rate; RATES.len() + MORE_RATES.len()];
        Counted { at_us, rates, distributions: std::array::from_fn(|_| nothing()) }
    }

    fn column(name: &str) -> usize {
        names().position(|known| known == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn every_column_has_a_name_of_its_own() {
        let mut all: Vec<String> = names().collect();
        assert_eq!(all.len(), COLUMNS);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), COLUMNS);
    }

    #[test]
    fn a_row_shows_what_came_in_a_second() {
        let levels = std::array::from_fn(|at| at as u64);
        let row = row(5000, &counted(1_000_000, 100), &counted(3_000_000, 1100), levels);
        let of = |name: &str| row[column(name)];
        assert_eq!((of("time_ms"), of("commands"), of("connections")), (5000.0, 500.0, 500.0));
        assert_eq!((of("cpu"), of("used_memory"), of("durable_block")), (0.0005, 0.0, 7.0));
        assert!(of("whole_us_p99").is_nan() && of("expiry_lag_ms_mean").is_nan(), "nothing was served");
    }

    #[test]
    fn counters_that_were_set_to_zero_give_no_negative_rate() {
        let row = row(1, &counted(1_000_000, 100), &counted(2_000_000, 3), [0; LEVELS.len()]);
        assert_eq!(row[column("commands")], 0.0);
    }

    #[test]
    fn only_younger_samples_are_told_and_the_oldest_go() {
        let history = History::default();
        {
            let mut tracks = history.0.borrow_mut();
            for time in 0..400 {
                tracks[0].push(std::array::from_fn(|at| if at == 0 { f64::from(time) } else { f64::NAN }));
            }
        }
        let told = |since| {
            let text = history.report(since, 7);
            serde_json::from_slice::<serde_json::Value>(&text).expect("JSON")
        };
        let rows = |json: &serde_json::Value, track: usize| json["tracks"][track]["rows"].as_array().map(Vec::len);
        assert_eq!((rows(&told(0.0), 0), rows(&told(0.0), 1)), (Some(300), Some(0)));
        assert_eq!(rows(&told(397.0), 0), Some(2));
        assert_eq!(told(398.0)["tracks"][0]["rows"][0][1], serde_json::Value::Null);
        assert_eq!(told(0.0)["columns"].as_array().map(Vec::len), Some(COLUMNS));
    }
}
