//! The operator's log: one line per event, in the form that tools for Redis know.
//!
//! ```text
//! 4711:M 22 Nov 2026 20:15:01.042 * Ready to accept connections tcp
//! pid:role day month year time level message
//! ```
//!
//! Invariants: a line is one `write`, so lines of several threads never interleave; control
//! characters in the message are escaped, so that data cannot forge a line. A failure to write is
//! ignored: the log must never stop the server. Never call this while holding a shard's lock.

use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

/// How much a line matters; the order is that of `loglevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Everything (`.`).
    Debug,
    /// Much, but no flood (`-`).
    Verbose,
    /// What an operator wants to know (`*`).
    Notice,
    /// What an operator must know (`#`).
    Warning,
    /// As a filter: no lines at all.
    Nothing,
}

impl Level {
    const fn mark(self) -> char {
        match self {
            Level::Debug => '.',
            Level::Verbose => '-',
            Level::Notice => '*',
            Level::Warning | Level::Nothing => '#',
        }
    }
}

static FILTER: AtomicU8 = AtomicU8::new(Level::Notice as u8);
/// `None`: standard output.
static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Shows lines of this level and above from now on.
pub fn set_level(level: Level) {
    FILTER.store(level as u8, Ordering::Relaxed);
}

/// Would a line of this level be shown?
#[inline]
pub fn enabled(level: Level) -> bool {
    level != Level::Nothing && level as u8 >= FILTER.load(Ordering::Relaxed)
}

/// Appends to this file from now on; an empty path means standard output.
pub fn set_file(path: &Path) -> io::Result<()> {
    let file =
        if path.as_os_str().is_empty() { None } else { Some(OpenOptions::new().create(true).append(true).open(path)?) };
    *FILE.lock() = file;
    Ok(())
}

/// Writes a line of level [`Level::Debug`].
pub fn debug(message: Arguments<'_>) {
    write(Level::Debug, message);
}

/// Writes a line of level [`Level::Verbose`].
pub fn verbose(message: Arguments<'_>) {
    write(Level::Verbose, message);
}

/// Writes a line of level [`Level::Notice`].
pub fn notice(message: Arguments<'_>) {
    write(Level::Notice, message);
}

/// Writes a line of level [`Level::Warning`].
pub fn warning(message: Arguments<'_>) {
    write(Level::Warning, message);
}

fn write(level: Level, message: Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let line = format_line(level, &timestamp(), &message.to_string());
    let mut file = FILE.lock();
    let _ = match &mut *file {
        Some(file) => file.write_all(line.as_bytes()),
        None => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
        }
    };
}

/// Local time, as `22 Nov 2026 20:15:01.042`.
fn timestamp() -> String {
    jiff::Zoned::now().strftime("%d %b %Y %H:%M:%S.%3f").to_string()
}

fn format_line(level: Level, timestamp: &str, message: &str) -> String {
    let mut line = format!("{}:M {timestamp} {} ", std::process::id(), level.mark());
    for character in message.trim_end_matches('\n').chars() {
        if character.is_control() && character != '\t' {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_redis_form() {
        let line = format_line(Level::Notice, "22 Nov 2026 20:15:01.042", "Ready");
        assert_eq!(line, format!("{}:M 22 Nov 2026 20:15:01.042 * Ready\n", std::process::id()));
        assert_eq!(
            [Level::Debug, Level::Verbose, Level::Notice, Level::Warning].map(Level::mark),
            ['.', '-', '*', '#']
        );
    }

    #[test]
    fn timestamp_has_redis_form() {
        let stamp = timestamp();
        let shape: String = stamp
            .chars()
            .map(|c| {
                if c.is_ascii_digit() {
                    '9'
                } else if c.is_ascii_alphabetic() {
                    'a'
                } else {
                    c
                }
            })
            .collect();
        assert_eq!(shape, "99 aaa 9999 99:99:99.999");
    }

    #[test]
    fn data_cannot_forge_a_line() {
        let line = format_line(Level::Warning, "t", "user 'x\n1:M t # forged\r\u{1b}[2J'");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r"x\n1:M t # forged\r\u{1b}[2J"));
    }

    #[test]
    fn filter_and_file_change_at_run_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        set_file(&path).expect("the file can be made");
        set_level(Level::Warning);
        notice(format_args!("hidden"));
        warning(format_args!("shown {}", 1));
        set_level(Level::Nothing);
        warning(format_args!("hidden too"));
        set_level(Level::Notice);
        set_file(Path::new("")).expect("standard output needs no file");
        let text = std::fs::read_to_string(&path).expect("the log can be read");
        let ours: Vec<_> = text.lines().filter(|line| line.contains("hidden") || line.contains("shown")).collect();
        assert_eq!(ours.len(), 1, "{text}");
        assert!(ours[0].ends_with(" # shown 1"));
        assert!(set_file(&dir.path().join("missing/log")).is_err());
    }
}
