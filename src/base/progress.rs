//! The progress of work that takes long: how much is done, how fast it goes, and when it will be over.
//!
//! The work adds to a [`Progress`] from any thread. Anybody may read it; [`watched`] writes it to the operator's log or
//! draws a bar on a terminal while the work runs.
//!
//! Invariants:
//! - Adding costs one atomic addition. Nothing waits for the display.
//! - The rate is the mean since the beginning, and the estimate of the time that is left follows from it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::format::human_bytes;
use super::{clock, logging};

/// How often a line is written,
const LINES_APART: Duration = Duration::from_secs(3);
/// and how often a bar is drawn.
const DRAWN_APART: Duration = Duration::from_millis(100);
/// The columns of a bar.
const BAR_COLUMNS: u64 = 30;

/// How much of some work is done. See the module.
#[derive(Debug, Default)]
pub struct Progress {
    /// When it began, in microseconds of the monotonic clock; 0 while nothing runs.
    began_us: AtomicU64,
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// Work of this much has begun; 0 if that is not known.
    pub fn of(total: u64) -> Progress {
        let progress = Progress::default();
        progress.begin(total);
        progress
    }

    /// Begins work of this much; 0 if that is not known.
    pub fn begin(&self, total: u64) {
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
        self.began_us.store(clock::monotonic_us().max(1), Relaxed);
    }

    /// Nothing runs any more.
    pub fn end(&self) {
        [&self.began_us, &self.total, &self.done].into_iter().for_each(|number| number.store(0, Relaxed));
    }

    /// This much more is done.
    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Relaxed);
    }

    /// How it stands; `None` while nothing runs.
    pub fn now(&self) -> Option<Standing> {
        let began_us = self.began_us.load(Relaxed);
        let elapsed_us = clock::monotonic_us().saturating_sub(began_us);
        (began_us > 0).then(|| Standing { done: self.done.load(Relaxed), total: self.total.load(Relaxed), elapsed_us })
    }
}

/// How some work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How much is done,
    pub done: u64,
    /// of how much; 0 if that is not known.
    pub total: u64,
    /// How long it has run, in microseconds.
    pub elapsed_us: u64,
}

impl Standing {
    /// How much of it is done, in percent; `None` if the whole is not known.
    pub fn percent(self) -> Option<f64> {
        (self.total > 0).then(|| (100.0 * self.done as f64 / self.total as f64).min(100.0))
    }

    /// How much is done in a second, on average.
    pub fn per_second(self) -> u64 {
        (u128::from(self.done) * 1_000_000 / u128::from(self.elapsed_us.max(1))) as u64
    }

    /// In how many seconds it will be over; `None` while nothing is done, or if the whole is not known.
    pub fn seconds_left(self) -> Option<u64> {
        let left = self.total.checked_sub(self.done).filter(|_| self.total > 0 && self.done > 0)?;
        Some((u128::from(left) * u128::from(self.elapsed_us)).div_ceil(u128::from(self.done) * 1_000_000) as u64)
    }

    /// In words: `42.0% (1.26G of 3.00G), 120.50M/s, 15 s left`.
    pub fn words(self, unit: Unit) -> String {
        let mut words = String::new();
        let Standing { done, total, .. } = self;
        let written = match self.percent() {
            Some(percent) => write!(words, "{percent:.1}% ({} of {})", unit.show(done), unit.show(total)),
            None => write!(words, "{}", unit.show(done)),
        };
        written.expect("a String takes every write");
        words.push_str(&format!(", {}/s", unit.show(self.per_second())));
        if let Some(seconds) = self.seconds_left() {
            words.push_str(&format!(", {seconds} s left"));
        }
        words
    }

    /// A bar of the part that is done; empty if the whole is not known.
    fn bar(self) -> String {
        let Some(percent) = self.percent() else { return String::new() };
        let filled = (percent * BAR_COLUMNS as f64 / 100.0) as usize;
        format!("[{:<1$}] ", "#".repeat(filled), BAR_COLUMNS as usize)
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown in readable form.
    Bytes,
    /// Things of this name: `keys`.
    Things(&'static str),
}

impl Unit {
    fn show(self, number: u64) -> String {
        match self {
            Unit::Bytes => human_bytes(number),
            Unit::Things(name) => format!("{number} {name}"),
        }
    }
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// As lines of the operator's log.
    Log,
    /// As lines of the standard error,
    Lines,
    /// or as a bar that is drawn there again and again.
    Bar,
    /// Nowhere.
    Nowhere,
}

impl Display {
    /// For a tool that somebody runs: a bar on a terminal, otherwise lines.
    pub fn of_tool() -> Display {
        if std::io::stderr().is_terminal() { Display::Bar } else { Display::Lines }
    }

    fn period(self) -> Duration {
        if self == Display::Bar { DRAWN_APART } else { LINES_APART }
    }

    fn show(self, title: &str, unit: Unit, standing: Standing) {
        let words = standing.words(unit);
        // A display that nobody sees any more is no reason to stop the work.
        let _ = match self {
            Display::Log => {
                logging::notice(format_args!("{title}: {words}"));
                Ok(())
            }
            Display::Lines => writeln!(std::io::stderr(), "{title}: {words}"),
            Display::Bar => write!(std::io::stderr(), "\r\x1b[K{title}: {}{words}", standing.bar()),
            Display::Nowhere => Ok(()),
        };
    }
}

/// Does some work, and shows its progress every few seconds (a bar ten times a second) until it is done. Work that is
/// over sooner shows nothing.
pub fn watched<T>(progress: &Progress, (title, unit): (&str, Unit), display: Display, work: impl FnOnce() -> T) -> T {
    if display == Display::Nowhere {
        return work();
    }
    let (running, over) = channel::<()>();
    std::thread::scope(|scope| {
        let watch = move || {
            let mut is_drawn = false;
            while over.recv_timeout(display.period()) == Err(RecvTimeoutError::Timeout) {
                if let Some(standing) = progress.now() {
                    is_drawn = true;
                    display.show(title, unit, standing);
                }
            }
            if is_drawn && display == Display::Bar {
                progress.now().into_iter().for_each(|standing| display.show(title, unit, standing));
                // Nobody may see it any more.
                let _ = writeln!(std::io::stderr());
            }
        };
        // Without a thread for it, the work goes on unseen.
        let watcher = std::thread::Builder::new().name("progress".into()).spawn_scoped(scope, watch);
        if let Err(error) = watcher {
            logging::debug(format_args!("No progress is shown: {error}"));
        }
        let done = work();
        drop(running);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_follow_from_what_is_done() {
        let standing = Standing { done: 1 << 20, total: 4 << 20, elapsed_us: 2_000_000 };
        assert_eq!(standing.per_second(), 1 << 19);
        assert_eq!(standing.seconds_left(), Some(6));
        assert_eq!(standing.words(Unit::Bytes), "25.0% (1.00M of 4.00M), 512.00K/s, 6 s left");
        assert_eq!(standing.bar(), format!("[#######{}] ", " ".repeat(23)));
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let standing = Standing { done: 30, total: 0, elapsed_us: 3_000_000 };
        assert_eq!((standing.percent(), standing.seconds_left()), (None, None));
        assert_eq!(standing.words(Unit::Things("keys")), "30 keys, 10 keys/s");
        assert_eq!(standing.bar(), "");
        let not_begun = Standing { done: 0, total: 10, elapsed_us: 0 };
        assert_eq!((not_begun.percent(), not_begun.seconds_left(), not_begun.per_second()), (Some(0.0), None, 0));
        let more_than_thought = Standing { done: 12, total: 10, elapsed_us: 1 };
        assert_eq!((more_than_thought.percent(), more_than_thought.seconds_left()), (Some(100.0), None));
    }

    #[test]
    fn work_begins_adds_and_ends() {
        let progress = Progress::default();
        assert_eq!(progress.now(), None);
        progress.begin(10);
        let threads = || (0..4).for_each(|_| progress.add(1));
        std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(threads))));
        assert_eq!(progress.now().map(|standing| (standing.done, standing.total)), Some((8, 10)));
        let result = watched(&progress, ("Test", Unit::Bytes), Display::Lines, || 7);
        assert_eq!(result, 7);
        progress.end();
        assert_eq!(progress.now(), None);
    }
}
