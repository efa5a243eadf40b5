//! The latency monitor for human eyes: a graph of one event, and a report on all of them.

use std::fmt::Write;

use super::sparkline;
use crate::base::config::{FsyncPolicy, Settings};
use crate::base::latency::{Event, Series};

/// The width of a graph.
const COLUMNS: usize = 80;

/// Draws the samples of an event, at a time in Unix seconds.
pub fn graph(event: Event, series: &Series, now: i64) -> String {
    let took = || series.samples.iter().map(|sample| sample.took_ms);
    let (high, low) = (took().max().unwrap_or(0), took().min().unwrap_or(0));
    let longest = series.longest_ms;
    let heading = format!("{} - high {high} ms, low {low} ms (all time high {longest} ms)\n", event.name());
    let labels = series.samples.iter().map(|sample| ago((now - sample.at).max(0)));
    let samples: Vec<(u64, String)> = took().zip(labels).collect();
    format!("{heading}{}\n{}", "-".repeat(COLUMNS), sparkline::draw(&samples, COLUMNS))
}

/// How long ago something was, in the largest unit that fits.
fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        86400.. => format!("{}d", seconds / 86400),
    }
}

/// What the samples of an event have in common.
#[derive(Debug, PartialEq, Eq)]
struct Analysis {
    samples: u64,
    average_ms: u64,
    /// The mean distance from the average.
    deviation_ms: u64,
    /// Seconds since the oldest sample, at least one.
    period: i64,
}

fn analyse(series: &Series, now: i64) -> Analysis {
    let samples = series.samples.len() as u64;
    let mean = |sum: u64| sum.checked_div(samples).unwrap_or(0);
    let average_ms = mean(series.samples.iter().map(|sample| sample.took_ms).sum());
    let deviation_ms = mean(series.samples.iter().map(|sample| sample.took_ms.abs_diff(average_ms)).sum());
    let period = series.samples.front().map_or(1, |oldest| (now - oldest.at).max(1));
    Analysis { samples, average_ms, deviation_ms, period }
}

/// Reports on all events, at a time in Unix seconds, and says what may help.
pub fn report(events: &[(Event, Series)], settings: &Settings, now: i64) -> String {
    if events.is_empty() {
        return match settings.latency_monitor_threshold_ms {
            0 => "Latency monitoring is disabled. You may use \"CONFIG SET latency-monitor-threshold \
                  <milliseconds>.\" in order to enable it.\n"
                .into(),
            threshold => format!("No event has taken {threshold} ms or more.\n"),
        };
    }
    let mut text = String::from("Latency spikes are observed in this instance.\n\n");
    let mut advice: Vec<String> = Vec::new();
    for (number, (event, series)) in (1..).zip(events) {
        let Analysis { samples, average_ms, deviation_ms, period } = analyse(series, now);
        let spacing = period as f64 / samples.max(1) as f64;
        let line = writeln!(
            text,
            "{number}. {}: {samples} latency spikes (average {average_ms}ms, mean deviation {deviation_ms}ms, period \
             {spacing:.2} sec). Worst all time event {}ms.",
            event.name(),
            series.longest_ms
        );
        line.expect("a String takes every write");
        for more in advice_on(*event, settings) {
            if !advice.contains(&more) {
                advice.push(more);
            }
        }
    }
    text.push_str("\nWhat may help:\n\n");
    advice.iter().for_each(|line| text.extend(["- ", line, "\n"]));
    text
}

/// What may help against an event.
fn advice_on(event: Event, settings: &Settings) -> Vec<String> {
    let threshold_us = settings.latency_monitor_threshold_ms.saturating_mul(1000);
    match event {
        Event::Command => {
            let slower_than = u64::try_from(settings.slowlog_log_slower_than_us).unwrap_or(u64::MAX);
            let mut all = Vec::new();
            if threshold_us > 0 && slower_than > threshold_us {
                all.push(format!(
                    "The slow log does not hold all of these commands: CONFIG SET slowlog-log-slower-than \
                     {threshold_us}."
                ));
            }
            all.push("SLOWLOG GET names the commands that took long.".into());
            all.push("Read and write large collections in parts: SCAN, HSCAN, ranges.".into());
            all
        }
        Event::FastCommand => vec![
            "Commands that do little took long. The machine is overloaded, shares its cores, or swaps; compare with \
             redis-cli --intrinsic-latency 100."
                .into(),
        ],
        Event::AofWrite => vec![
            "Writes to the log's file are slow. Put dir on a local disk that other programs do not keep busy.".into(),
        ],
        Event::AofFsyncAlways => {
            let mut all =
                vec!["The disk takes long to make writes durable. An SSD, or a disk of its own, is faster.".to_owned()];
            if settings.appendfsync == FsyncPolicy::Always {
                all.push("With appendfsync always each reply waits for the disk; everysec does not.".into());
            }
            all
        }
        Event::EvictionCycle => vec![
            "Many keys are evicted at once, perhaps since maxmemory was lowered or large values were written. A lower \
             maxmemory-eviction-tenacity spreads that."
                .into(),
        ],
        Event::ExpireCycle => {
            vec!["Many keys expire at the same time. Spread their times to live, or lower active-expire-effort.".into()]
        }
        Event::ActiveDefragCycle => {
            vec!["Moving values out of sparse memory took long, which large values cause.".into()]
        }
        Event::Load => {
            vec!["Loading took long at the start. A lower auto-aof-rewrite-max-size keeps the log short.".into()]
        }
        Event::SnapshotFreeze => vec![
            "Freezing the keyspace for a snapshot took long. The machine is overloaded, or very many databases are in \
             use."
                .into(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::latency::LatencyMonitor;

    fn series(samples: &[(i64, u64)]) -> Series {
        let samples = samples.iter().map(|&(at, took_ms)| crate::base::latency::Sample { at, took_ms });
        let mut series = Series { samples: samples.collect(), longest_ms: 0 };
        series.longest_ms = series.samples.iter().map(|sample| sample.took_ms).max().unwrap_or(0);
        series
    }

    #[test]
    fn a_graph_has_a_column_for_each_sample() {
        let drawn = graph(Event::Command, &series(&[(99, 55), (100, 37)]), 100);
        let heading = "command - high 55 ms, low 37 ms (all time high 55 ms)\n";
        assert_eq!(drawn, format!("{heading}{}\n# \n| \n| \n|_\n  \n10\nss\n", "-".repeat(80)));
        assert_eq!([ago(59), ago(60), ago(3600), ago(86400 * 2)], ["59s", "1m", "1h", "2d"]);
    }

    #[test]
    fn a_report_names_each_event_and_what_may_help() {
        let config = crate::base::config::Config::from_text(b"latency-monitor-threshold 5\n").expect("a configuration");
        let settings = config.settings();
        assert_eq!(report(&[], &settings, 100), "No event has taken 5 ms or more.\n");
        let events = [(Event::Command, series(&[(90, 55), (100, 37)])), (Event::AofWrite, series(&[(100, 7)]))];
        let told = report(&events, &settings, 100);
        for part in [
            "\n1. command: 2 latency spikes (average 46ms, mean deviation 9ms, period 5.00 sec). Worst all time event \
             55ms.\n",
            "\n2. aof-write: 1 latency spikes (average 7ms, mean deviation 0ms, period 1.00 sec).",
            "\n- The slow log does not hold all of these commands: CONFIG SET slowlog-log-slower-than 5000.\n",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(LatencyMonitor::default().all(), []);
    }
}
