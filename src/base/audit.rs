//! The audit log's file: who did what, a line of JSON for each event, written by a thread of its own.
//!
//! ```text
//! any thread ─ event ─▶ rate ─▶ a queue of bounded length ─▶ the writer ─▶ the file
//!                        └─ too many, or the queue is full: counted, and told in the file
//! ```
//!
//! Invariants:
//! - Nobody waits: an event that finds no place is dropped, and the number of those is written as soon as there is
//!   place again.
//! - A line is written whole, or the next one begins on a line of its own.
//! - A file that was renamed or removed is opened anew within a second: tools that rotate need no signal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::base::{clock, logging};

/// How many events may wait for the writer.
const QUEUE_MAX: usize = 4096;
/// How often the writer looks whether the file was renamed, and how much was dropped.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Only the owner, and those of the group, read it.
const MODE: u32 = 0o640;

/// How many events there were.
#[derive(Debug, Default)]
pub struct Figures {
    /// Those that were written or wait.
    pub noted: AtomicU64,
    /// Those that were dropped.
    pub dropped: AtomicU64,
}

/// The way to the writer of one file. The writer ends when it is dropped.
#[derive(Debug)]
pub struct AuditFile {
    lines: SyncSender<String>,
    figures: Arc<Figures>,
    /// The second in which events were counted last, and how many came in it.
    second: AtomicU64,
    in_second: AtomicU64,
}

impl AuditFile {
    /// Opens the file for appending and starts its writer.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path, figures: Arc<Figures>) -> io::Result<AuditFile> {
        let path = std::path::absolute(path)?;
        let file = open(&path)?;
        let (lines, receiver) = sync_channel(QUEUE_MAX);
        let told = figures.dropped.load(Relaxed);
        let writer = Writer { path, file: Some(file), figures: Arc::clone(&figures), told, torn: false };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&receiver))?;
        Ok(AuditFile { lines, figures, second: AtomicU64::new(0), in_second: AtomicU64::new(0) })
    }

    /// Adds a line, unless there are more than `rate_max` a second (0: any number), or too many wait.
    pub fn note(&self, rate_max: u64, line: impl FnOnce() -> String) {
        let taken = self.has_rate(rate_max) && self.lines.try_send(line()).is_ok();
        let figure = if taken { &self.figures.noted } else { &self.figures.dropped };
        figure.fetch_add(1, Relaxed);
    }

    /// Two threads that begin a second at once may let one event more pass.
    fn has_rate(&self, rate_max: u64) -> bool {
        if rate_max == 0 {
            return true;
        }
        let second = clock::monotonic_us() / 1_000_000 + 1;
        if self.second.swap(second, Relaxed) != second {
            self.in_second.store(0, Relaxed);
        }
        self.in_second.fetch_add(1, Relaxed) < rate_max
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

/// What writes the lines.
struct Writer {
    path: PathBuf,
    file: Option<File>,
    figures: Arc<Figures>,
    /// How many dropped events the file tells of.
    told: u64,
    /// Whether the last line was cut.
    torn: bool,
}

impl Writer {
    fn run(mut self, lines: &Receiver<String>) {
        let mut looked_us = clock::monotonic_us();
        loop {
            let first = lines.recv_timeout(LOOK_PERIOD);
            if clock::monotonic_us() - looked_us >= LOOK_PERIOD.as_micros() as u64 {
                looked_us = clock::monotonic_us();
                self.follow_rotation();
                self.tell_dropped();
            }
            match first {
                Ok(first) => {
                    let more: Vec<String> = lines.try_iter().take(QUEUE_MAX).collect();
                    let count = 1 + more.len() as u64;
                    self.write(&(first + &more.concat()), count);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.tell_dropped(),
            }
        }
    }

    fn write(&mut self, lines: &str, count: u64) {
        let Some(file) = &mut self.file else {
            self.figures.dropped.fetch_add(count, Relaxed);
            return;
        };
        let begin = if self.torn { "\n" } else { "" };
        let written = file.write_all([begin, lines].concat().as_bytes());
        if let Err(error) = &written {
            if !self.torn {
                logging::warning(format_args!("The audit log cannot be written: {}: {error}", self.path.display()));
            }
            self.figures.dropped.fetch_add(count, Relaxed);
        }
        self.torn = written.is_err();
    }

    fn tell_dropped(&mut self) {
        let dropped = self.figures.dropped.load(Relaxed);
        if dropped > self.told {
            let line = format!("{{\"time\":\"{}\",\"event\":\"dropped\",\"count\":{}}}\n", now(), dropped - self.told);
            self.told = dropped;
            self.write(&line, 0);
        }
    }

    /// Opens the file anew if its name no longer leads to it.
    fn follow_rotation(&mut self) {
        let number = |facts: std::fs::Metadata| (facts.dev(), facts.ino());
        let ours = self.file.as_ref().and_then(|file| file.metadata().ok()).map(number);
        let named = std::fs::metadata(&self.path).ok().map(number);
        if ours.is_some() && ours == named {
            return;
        }
        match open(&self.path) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            // The old file goes on, and the next look tries again.
            Err(error) => {
                logging::warning(format_args!("The audit log cannot be opened: {}: {error}", self.path.display()));
            }
        }
    }
}

/// The time in UTC, as ISO 8601 has it, with microseconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Bytes as the content of a JSON string. What is not printable ASCII is `\xNN` in it, and a backslash is doubled.
pub fn json(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_ends_a_string() {
        assert_eq!(json(b"a b"), "a b");
        assert_eq!(json(b"\"\\\n\xff"), "\\\"\\\\\\\\\\\\x0a\\\\xff");
    }

    #[test]
    fn a_renamed_file_is_opened_anew_and_what_is_dropped_is_told() {
        let home = tempfile::tempdir().expect("a directory");
        let (path, renamed) = (home.path().join("audit"), home.path().join("audit.1"));
        let figures = Arc::new(Figures::default());
        let audit = AuditFile::open(&path, Arc::clone(&figures)).expect("a file");
        audit.note(0, || "first\n".into());
        while !std::fs::read_to_string(&path).is_ok_and(|text| text == "first\n") {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &renamed).expect("our own");
        // At most two pass in the second of the third.
        while figures.dropped.load(Relaxed) == 0 {
            audit.note(2, || "more\n".into());
        }
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains("\"event\":\"dropped\",\"count\":1}")) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(figures.noted.load(Relaxed) >= 3);
        drop(audit);
    }
}
