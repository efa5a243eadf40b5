//! The operator's log: one line per event, in the form that tools for Redis know.
//!
//! ```text
//! 4711:M 22 Nov 2026 20:15:01.042 * Ready to accept connections tcp
//! pid:role day month year time level message
//!
//! pid=4711 role=primary timestamp="22 Nov 2026 20:15:01.042" level=notice message="Ready to accept connections tcp"
//! {"pid":4711,"role":"primary","timestamp":"22 Nov 2026 20:15:01.042","level":"notice","message":"Ready to …"}
//! ```
//!
//! Invariants: a line is one `write`, so lines of several threads never interleave; control
//! characters in the message are escaped, so that data cannot forge a line. A failure to write is
//! ignored: the log must never stop the server. Never call this while holding a shard's lock.

use std::fmt::{self, Arguments, Display, Formatter};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::lock::{Mutex, Rank};
use super::syslog::{Severity, Syslog};

/// The importance of a line, in the order of `loglevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Everything (`.`).
    Debug,
    /// A lot, but not a flood (`-`).
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

    const fn severity(self) -> Severity {
        match self {
            Level::Debug => Severity::Debug,
            Level::Verbose => Severity::Info,
            Level::Notice => Severity::Notice,
            Level::Warning | Level::Nothing => Severity::Warning,
        }
    }

    /// The word of the forms that programs read. What `loglevel` calls verbose is information to them.
    const fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Verbose => "info",
            Level::Notice => "notice",
            Level::Warning | Level::Nothing => "warning",
        }
    }
}

/// The form of a line: `log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LineFormat {
    /// For people, and for tools that know Redis.
    Legacy,
    /// `name=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// The form of a line's time: `log-timestamp-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TimeFormat {
    /// `22 Nov 2026 20:15:01.042`, local.
    Legacy,
    /// `2026-11-22T20:15:01.042+01:00`, local.
    Iso8601,
    /// `2026-11-22T19:15:01.042Z`.
    Iso8601Utc,
    /// Milliseconds since 1970.
    Milliseconds,
}

static FILTER: AtomicU8 = AtomicU8::new(Level::Notice as u8);
static LINE_FORMAT: AtomicU8 = AtomicU8::new(LineFormat::Legacy as u8);
static TIME_FORMAT: AtomicU8 = AtomicU8::new(TimeFormat::Legacy as u8);
static HIDES_USER_DATA: AtomicBool = AtomicBool::new(true);
static OUT: Mutex<Out> = Mutex::new(Rank::OperatorLog, Out { file: None, syslog: None });

/// Where lines go.
struct Out {
    /// `None`: standard output.
    file: Option<(PathBuf, File)>,
    /// The system's log, too.
    syslog: Option<Syslog>,
}

/// From now on, shows lines of this level and above.
pub fn set_level(level: Level) {
    FILTER.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of this level would be shown.
#[inline]
pub fn enabled(level: Level) -> bool {
    level != Level::Nothing && level as u8 >= FILTER.load(Ordering::Relaxed)
}

/// Writes lines and their times in these forms from now on.
pub fn set_format(line: LineFormat, time: TimeFormat) {
    LINE_FORMAT.store(line as u8, Ordering::Relaxed);
    TIME_FORMAT.store(time as u8, Ordering::Relaxed);
}

/// Whether [`user_data`] hides what it is given: `hide-user-data-from-log`.
pub fn set_hides_user_data(hides: bool) {
    HIDES_USER_DATA.store(hides, Ordering::Relaxed);
}

/// A key, a value or an argument as a line may show it. Whatever comes from users goes through here.
pub fn user_data<D: Display>(data: D) -> UserData<D> {
    UserData(data)
}

/// See [`user_data`].
#[derive(Debug)]
pub struct UserData<D>(D);

impl<D: Display> Display for UserData<D> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match HIDES_USER_DATA.load(Ordering::Relaxed) {
            true => f.write_str("(hidden by hide-user-data-from-log)"),
            false => self.0.fmt(f),
        }
    }
}

/// From now on, appends to this file; an empty path means standard output.
///
/// # Errors
/// The file cannot be opened; lines go on where they went before.
pub fn set_file(path: &Path) -> io::Result<()> {
    let file = match path.as_os_str().is_empty() {
        true => None,
        false => Some((path.to_owned(), open(path)?)),
    };
    OUT.lock().file = file;
    Ok(())
}

/// Sends lines to the system's log as well, from now on: `syslog-enabled`.
pub fn set_syslog(syslog: Option<Syslog>) {
    OUT.lock().syslog = syslog;
}

/// Reopens the file by its name, because the old one may have been renamed. Returns whether there is a file.
///
/// # Errors
/// As [`set_file`].
pub fn reopen() -> io::Result<bool> {
    let path = OUT.lock().file.as_ref().map(|(path, _)| path.clone());
    path.map_or(Ok(false), |path| set_file(&path).map(|()| true))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
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
    let (format, time) = (LINE_FORMAT.load(Ordering::Relaxed), TIME_FORMAT.load(Ordering::Relaxed));
    let message = message.to_string();
    let line = format_line(format, level, &timestamp(time), &message);
    let mut out = OUT.lock();
    if let Some(syslog) = &mut out.syslog {
        syslog.send(level.severity(), &printable(message.trim_end_matches('\n')));
    }
    let _ = match &mut out.file {
        Some((_, file)) => file.write_all(line.as_bytes()),
        None => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
        }
    };
}

fn timestamp(format: u8) -> String {
    const ISO_8601: u8 = TimeFormat::Iso8601 as u8;
    const ISO_8601_UTC: u8 = TimeFormat::Iso8601Utc as u8;
    const MILLISECONDS: u8 = TimeFormat::Milliseconds as u8;
    let now = jiff::Zoned::now();
    match format {
        ISO_8601 => now.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string(),
        ISO_8601_UTC => now.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        MILLISECONDS => now.timestamp().as_millisecond().to_string(),
        _ => now.strftime("%d %b %Y %H:%M:%S.%3f").to_string(),
    }
}

fn format_line(format: u8, level: Level, timestamp: &str, message: &str) -> String {
    const LOGFMT: u8 = LineFormat::Logfmt as u8;
    const JSON: u8 = LineFormat::Json as u8;
    let (pid, message) = (std::process::id(), message.trim_end_matches('\n'));
    match format {
        LOGFMT => format!(
            "pid={pid} role=primary timestamp=\"{timestamp}\" level={} message=\"{}\"\n",
            level.word(),
            quoted(message)
        ),
        JSON => format!(
            "{{\"pid\":{pid},\"role\":\"primary\",\"timestamp\":\"{timestamp}\",\"level\":\"{}\",\
             \"message\":\"{}\"}}\n",
            level.word(),
            quoted(message)
        ),
        _ => format!("{pid}:M {timestamp} {} {}\n", level.mark(), printable(message)),
    }
}

/// The message with its control characters escaped as Rust writes them.
fn printable(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        if character.is_control() && character != '\t' {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The message as the content of a JSON string, which is a quoted value of logfmt as well.
fn quoted(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            _ if character.is_control() => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_redis_form() {
        let line = format_line(LineFormat::Legacy as u8, Level::Notice, "22 Nov 2026 20:15:01.042", "Ready");
        assert_eq!(line, format!("{}:M 22 Nov 2026 20:15:01.042 * Ready\n", std::process::id()));
        assert_eq!(
            [Level::Debug, Level::Verbose, Level::Notice, Level::Warning].map(Level::mark),
            ['.', '-', '*', '#']
        );
    }

    #[test]
    fn timestamp_has_redis_form() {
        let stamp = timestamp(TimeFormat::Legacy as u8);
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
    fn lines_that_programs_read() {
        let pid = std::process::id();
        let line = |format, message| format_line(format as u8, Level::Verbose, "t", message);
        assert_eq!(
            line(LineFormat::Logfmt, "a \"b\"\n"),
            format!("pid={pid} role=primary timestamp=\"t\" level=info message=\"a \\\"b\\\"\"\n")
        );
        assert_eq!(
            line(LineFormat::Json, "a\\\u{1}\tü"),
            format!(
                "{{\"pid\":{pid},\"role\":\"primary\",\"timestamp\":\"t\",\"level\":\"info\",\
                 \"message\":\"a\\\\\\u0001\\tü\"}}\n"
            )
        );
        let iso: jiff::Timestamp = timestamp(TimeFormat::Iso8601 as u8).parse().expect("a time with its offset");
        let ms: i64 = timestamp(TimeFormat::Milliseconds as u8).parse().expect("a number");
        assert!((0..10_000).contains(&(ms - iso.as_millisecond())), "{iso} {ms}");
        let utc = timestamp(TimeFormat::Iso8601Utc as u8);
        assert!(utc.ends_with('Z') && utc.len() == "2026-11-22T19:15:01.042Z".len(), "{utc}");
        let utc: jiff::Timestamp = utc.parse().expect("a time");
        assert!((0..10_000).contains(&(utc.as_millisecond() - iso.as_millisecond())), "{iso} {utc}");
    }

    #[test]
    fn data_cannot_forge_a_line() {
        let line = format_line(LineFormat::Legacy as u8, Level::Warning, "t", "user 'x\n1:M t # forged\r\u{1b}[2J'");
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

        assert!(!reopen().expect("standard output stays"));
        set_file(&path).expect("the file is there");
        std::fs::rename(&path, dir.path().join("old")).expect("our own file");
        assert!(reopen().expect("the file can be made"));
        warning(format_args!("after the rotation"));
        set_file(Path::new("")).expect("standard output needs no file");
        assert!(std::fs::read_to_string(&path).expect("a new log").contains("after the rotation"));

        assert_eq!(user_data("key").to_string(), "(hidden by hide-user-data-from-log)");
        set_hides_user_data(false);
        assert_eq!(user_data("key").to_string(), "key");
        set_hides_user_data(true);
    }
}
