//! Lines for the system's log: one datagram per line to `/dev/log`, as RFC 3164 describes it and as syslogd and
//! journald read it.
//!
//! ```text
//! <133>Nov 22 20:15:01 ironkeep[4711]: Ready to accept connections
//! <facility * 8 + severity>time ident[pid]: message
//! ```
//!
//! Invariant: a sender never waits. A line that the system does not take at once is dropped, and the next line connects
//! again, because the system's logger may have been started again.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where the system's logger listens.
pub const SOCKET: &str = "/dev/log";

/// How important a line is, as RFC 3164 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// Needs attention.
    Warning = 4,
    /// Normal, and significant.
    Notice = 5,
    /// Further information.
    Info = 6,
    /// For those who look for a fault.
    Debug = 7,
}

/// A connection to the system's logger, which is made when there is something to send.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    facility: u8,
    ident: String,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// Lines for the logger at this path, under this facility (`user`, `local0` to `local7`) and this name.
    pub fn new(path: &Path, facility: &str, ident: &str) -> Self {
        // `user` is 1, and local0 is 16.
        let facility =
            facility.strip_prefix("local").and_then(|digit| digit.parse().ok()).map_or(1, |n: u8| 16 + n % 8);
        Syslog { path: path.to_owned(), facility, ident: ident.to_owned(), socket: None }
    }

    /// Sends one line. The message must hold no line break.
    pub fn send(&mut self, severity: Severity, message: &str) {
        let priority = u32::from(self.facility) * 8 + u32::from(severity as u8);
        let time = jiff::Zoned::now().strftime("%b %e %H:%M:%S").to_string();
        let line = format!("<{priority}>{time} {}[{}]: {message}", self.ident, std::process::id());
        // Once more if the logger was started again since the last line.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = connect(&self.path).ok();
            }
            let Some(socket) = &self.socket else { return };
            match socket.send(line.as_bytes()) {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.socket = None,
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut line = [0; 512];
        let length = socket.recv(&mut line).expect("a line");
        String::from_utf8_lossy(&line[..length]).into_owned()
    }

    #[test]
    fn a_line_is_a_datagram_and_a_new_logger_gets_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let mut syslog = Syslog::new(&path, "local3", "keep");
        syslog.send(Severity::Notice, "nobody listens");
        for (severity, priority) in [(Severity::Notice, 157), (Severity::Warning, 156), (Severity::Debug, 159)] {
            let logger = UnixDatagram::bind(&path).expect("a socket");
            syslog.send(severity, "Ready");
            let line = received(&logger);
            assert!(line.starts_with(&format!("<{priority}>")), "{line}");
            assert!(line.ends_with(&format!(" keep[{}]: Ready", std::process::id())), "{line}");
            drop(logger);
            std::fs::remove_file(&path).expect("the socket");
        }
        let logger = UnixDatagram::bind(&path).expect("a socket");
        Syslog::new(&path, "user", "keep").send(Severity::Info, "x");
        assert!(received(&logger).starts_with("<14>"));
    }

    #[test]
    fn a_logger_that_does_not_read_holds_up_nobody() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let _logger = UnixDatagram::bind(&path).expect("a socket");
        let mut syslog = Syslog::new(&path, "local0", "keep");
        for _ in 0..10_000 {
            syslog.send(Severity::Info, "more than the socket holds");
        }
    }
}
