//! A server to which keys are sent, as a thread talks to it that may wait.
//!
//! Invariants:
//! - Each step ends within the timeout of the command: to connect, to send a piece of a request, to receive a reply.
//! - No length that the target sends makes room before its bytes are there, and a reply has at most 1 MiB.
//! - Nothing is sent before login and database are acknowledged, so that no key comes to another database.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::base::clock;
use crate::command::keys::migrate::SHOWN_BYTES;
use crate::core::CommandError;
use crate::core::migration::{Login, Order, Outgoing, Sent};
use crate::persist::foreign::FileVersion;

const NOT_CONNECTED: CommandError = CommandError::Text("IOERR error or timeout connecting to the client");
const NOT_WRITTEN: CommandError = CommandError::Text("IOERR error or timeout writing to target instance");
const NOT_READ: CommandError = CommandError::Text("IOERR error or timeout reading to target instance");
/// How much of requests is gathered before it is sent.
const PIECE_BYTES: usize = 64 << 10;
/// The longest line, and the longest text, of a reply.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// Sends keys by `word`, RESTORE or what a cluster has in its place. Ends early once `is_over`.
pub(super) fn send(mut order: Order, word: &[u8], is_over: &dyn Fn() -> bool) -> Sent {
    let (mut sent, keys) = (Sent::default(), std::mem::take(&mut order.keys));
    let outcome = Target::connect(&order).and_then(|mut target| {
        let version = target.greet(&order)?;
        target.send_keys(keys, (word, order.replaces), &version, is_over, &mut sent)
    });
    if let Err(error) = outcome {
        sent.error.get_or_insert(error);
    }
    sent
}

/// See the module.
struct Target {
    stream: TcpStream,
    timeout: Duration,
    /// Requests that are not sent yet.
    out: Vec<u8>,
    /// What has been received,
    received: Vec<u8>,
    /// and how much of it was read.
    read: usize,
}

/// Whom the version of payloads is known of.
enum Version {
    /// As they are.
    Own,
    Of(FileVersion),
}

impl Target {
    fn connect(order: &Order) -> Result<Target, CommandError> {
        let host = std::str::from_utf8(&order.host).map_err(|_| NOT_CONNECTED)?;
        let addresses = (host, port_of(&order.port)).to_socket_addrs().map_err(|_| NOT_CONNECTED)?;
        // As in Redis: one who refuses is noticed when the first request is sent.
        let mut error = NOT_CONNECTED;
        for address in addresses {
            let connected = TcpStream::connect_timeout(&address, order.timeout).and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => {
                    // In one piece from the beginning: what grows leaves a copy behind.
                    let (out, received) = (Vec::with_capacity(PIECE_BYTES), Vec::new());
                    return Ok(Target { stream, timeout: order.timeout, out, received, read: 0 });
                }
                Err(failed) if failed.kind() == ErrorKind::TimedOut => error = NOT_CONNECTED,
                Err(_) => error = NOT_WRITTEN,
            }
        }
        Err(error)
    }

    /// Logs in, selects the database, and asks for the version.
    fn greet(&mut self, order: &Order) -> Result<Version, CommandError> {
        if let Some(Login { user, password }) = &order.login {
            match user {
                Some(user) => self.request(&[b"AUTH", user, password]),
                None => self.request(&[b"AUTH", password]),
            }
            .map_err(|_| NOT_WRITTEN)?;
        }
        let select = self.request(&[b"SELECT", order.db.to_string().as_bytes()]);
        let sent = select.and_then(|()| self.request(&[b"INFO", b"server"])).and_then(|()| self.flush());
        sent.map_err(|_| NOT_WRITTEN)?;
        for _ in 0..1 + usize::from(order.login.is_some()) {
            self.acknowledged()?.map_err(|error| refused(&error))?;
        }
        // Who may not ask is given the values as they are.
        let Some(info) = self.text()? else { return Ok(Version::Own) };
        let info = String::from_utf8_lossy(&info);
        let is_ours = info.lines().any(|line| line.starts_with("ironkeep_version:"));
        let version = FileVersion::of_info(&info).filter(|_| !is_ours);
        Ok(version.map_or(Version::Own, Version::Of))
    }

    fn send_keys(
        &mut self,
        keys: Vec<Outgoing>,
        (word, replaces): (&[u8], bool),
        version: &Version,
        is_over: &dyn Fn() -> bool,
        sent: &mut Sent,
    ) -> Result<(), CommandError> {
        let (mut asked, mut written) = (Vec::new(), Ok(()));
        for (at, Outgoing { key, expiry, payload }) in keys.into_iter().enumerate() {
            if is_over() {
                return Ok(());
            }
            let now = clock::now_ms();
            // What expires meanwhile does so here, too.
            let Some(ttl) = expiry.map_or(Some(0), |at| (at >= now).then(|| (at - now).max(1))) else {
                continue;
            };
            let payload = match adapted(&key, payload, version) {
                Ok(payload) => payload,
                Err(error) => {
                    sent.error.get_or_insert(error);
                    continue;
                }
            };
            let ttl = ttl.to_string();
            let words: [&[u8]; 5] = [word, &key, ttl.as_bytes(), &payload, b"REPLACE"];
            written = self.request(&words[..if replaces { 5 } else { 4 }]);
            if written.is_err() {
                break;
            }
            asked.push(at);
        }
        written = written.and_then(|()| self.flush());
        // Also after a failure: what is acknowledged need not be there twice.
        for at in asked {
            match self.acknowledged() {
                Ok(Ok(())) => sent.taken.push(at),
                Ok(Err(error)) => _ = sent.error.get_or_insert(refused(&error)),
                Err(error) => return written.map_err(|_| NOT_WRITTEN).and(Err(error)),
            }
        }
        written.map_err(|_| NOT_WRITTEN)
    }

    /// Adds a request, and sends what is gathered once it is a piece.
    fn request(&mut self, words: &[&[u8]]) -> io::Result<()> {
        self.out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
        if self.out.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        // There may be a password in it, which is overwritten.
        let out = Zeroizing::new(std::mem::take(&mut self.out));
        for mut piece in out.chunks(PIECE_BYTES) {
            let deadline = Instant::now() + self.timeout;
            while !piece.is_empty() {
                self.stream.set_write_timeout(Some(left(deadline)?))?;
                match self.stream.write(piece) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => piece = &piece[written..],
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The next reply, which is `+` or an error. Returns that error's text.
    fn acknowledged(&mut self) -> Result<Result<(), Vec<u8>>, CommandError> {
        let line = self.line(Instant::now() + self.timeout).map_err(|_| NOT_READ)?;
        match line.split_first() {
            Some((b'+', _)) => Ok(Ok(())),
            Some((b'-', text)) => Ok(Err(text.to_vec())),
            _ => Err(NOT_READ),
        }
    }

    /// The next reply, if it is a text.
    fn text(&mut self) -> Result<Option<Vec<u8>>, CommandError> {
        let deadline = Instant::now() + self.timeout;
        let line = self.line(deadline).map_err(|_| NOT_READ)?;
        let (mark, length) = line.split_first().ok_or(NOT_READ)?;
        match mark {
            b'+' | b'-' => return Ok(None),
            b'$' if length == b"-1" => return Ok(None),
            b'$' => {}
            _ => return Err(NOT_READ),
        }
        let length = std::str::from_utf8(length).ok().and_then(|text| text.parse::<usize>().ok());
        let length = length.filter(|length| *length <= REPLY_BYTES_MAX).ok_or(NOT_READ)?;
        while self.received.len() - self.read < length + 2 {
            self.receive(deadline).map_err(|_| NOT_READ)?;
        }
        let text = self.received[self.read..self.read + length].to_vec();
        self.read += length + 2;
        Ok(Some(text))
    }

    /// The next line, without its end.
    fn line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut seen = self.read;
        loop {
            if let Some(end) = self.received[seen..].iter().position(|byte| *byte == b'\n') {
                let line = &self.received[self.read..seen + end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.read = seen + end + 1;
                return Ok(line);
            }
            if self.received.len() - self.read > REPLY_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            let unread = self.received.len() - self.read;
            self.receive(deadline)?;
            seen = self.read + unread;
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<()> {
        self.received.drain(..std::mem::take(&mut self.read));
        let mut buffer = [0; 16 << 10];
        loop {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.received.extend_from_slice(&buffer[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The time until then.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The port as C reads it: the digits at the beginning.
fn port_of(word: &[u8]) -> u16 {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0_u16, |port, digit| port.wrapping_mul(10).wrapping_add(u16::from(digit - b'0')))
}

fn refused(error: &[u8]) -> CommandError {
    CommandError::err(format_args!("Target instance replied with error: {}", String::from_utf8_lossy(error)))
}

/// The payload that the target takes.
fn adapted(key: &[u8], payload: Vec<u8>, version: &Version) -> Result<Vec<u8>, CommandError> {
    let Version::Of(version) = version else { return Ok(payload) };
    version.adapt(payload).map_err(|what| {
        let key = key[..key.len().min(SHOWN_BYTES)].escape_ascii();
        CommandError::err(format_args!("Target instance cannot hold the key '{key}': {what}"))
    })
}
