//! A connection to a server of the family: requests ahead of their replies, both bounded.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::time::Duration;

use super::arguments::Arguments;
use super::link::Link;

/// How many replies may be outstanding.
const IN_FLIGHT_MAX: usize = 256;
/// How many bytes of requests are sent ahead of their replies.
const IN_FLIGHT_BYTES: usize = 4 << 20;
/// How deep a reply may be.
const DEPTH_MAX: usize = 16;
/// How long a reply may take.
const REPLY_TIME: Duration = Duration::from_secs(300);
/// The longest line of a reply, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// The password, as `redis-cli` takes it.
const PASSWORD: &str = "REDISCLI_AUTH";

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nothing,
    Text(Vec<u8>),
    Error(String),
    Number(i64),
    Items(Vec<Value>),
}

impl Value {
    /// The bytes of a text.
    pub(super) fn bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Value::Text(bytes) => Ok(bytes),
            Value::Error(error) => Err(error),
            other => Err(format!("an unexpected reply: {other:?}")),
        }
    }

    /// The items of an array.
    pub(super) fn items(self) -> Result<Vec<Value>, String> {
        match self {
            Value::Items(items) => Ok(items),
            Value::Error(error) => Err(error),
            other => Err(format!("an unexpected reply: {other:?}")),
        }
    }
}

/// See the module.
pub(super) struct Remote {
    reader: BufReader<Link>,
    writer: BufWriter<Link>,
    /// What was asked for, for errors, and how many bytes it had.
    in_flight: VecDeque<(String, usize)>,
    in_flight_bytes: usize,
}

impl Remote {
    /// Connects as the options say, and logs in with the password of the environment, as the user of `--user`.
    pub(super) fn connect(address: &str, args: &Arguments) -> Result<Remote, String> {
        let user = args.value("--user").ok().and_then(|user| user.to_str());
        let link = Link::connect(address, args, REPLY_TIME)?;
        let mut remote = Remote {
            reader: BufReader::with_capacity(256 << 10, link.clone()),
            writer: BufWriter::with_capacity(256 << 10, link),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        };
        if let Some(password) = std::env::var_os(PASSWORD) {
            let password = password.into_encoded_bytes();
            let user = user.unwrap_or("default").as_bytes();
            let words: &[&[u8]] = if user == b"default" { &[b"AUTH", &password] } else { &[b"AUTH", user, &password] };
            remote.ask(words)?.bytes()?;
        } else if user.is_some() {
            return Err(format!("--user needs a password, in the environment variable {PASSWORD}"));
        }
        Ok(remote)
    }

    /// Sends a request and waits for its reply. Nothing may be outstanding.
    pub(super) fn ask(&mut self, words: &[&[u8]]) -> Result<Value, String> {
        self.send(words).and_then(|()| self.writer.flush()).map_err(|error| error.to_string())?;
        self.reply().map_err(|error| error.to_string())
    }

    /// Writes a request, whose reply is read by [`Remote::reply`].
    pub(super) fn send(&mut self, words: &[&[u8]]) -> io::Result<()> {
        write!(self.writer, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.writer, "${}\r\n", word.len())?;
            self.writer.write_all(word)?;
            self.writer.write_all(b"\r\n")?;
        }
        Ok(())
    }

    /// Sends what was written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Sends a request and lets it be. `what` is for its error.
    pub(super) fn post(&mut self, words: &[&[u8]], what: &str) -> Result<(), String> {
        let bytes = words.iter().map(|word| word.len()).sum();
        self.make_room(bytes)?;
        self.send(words).map_err(|error| error.to_string())?;
        self.sent(what, bytes);
        Ok(())
    }

    /// The same for a request as it is.
    pub(super) fn post_request(&mut self, request: &[u8], what: &str) -> Result<(), String> {
        self.make_room(request.len())?;
        self.writer.write_all(request).map_err(|error| error.to_string())?;
        self.sent(what, request.len());
        Ok(())
    }

    fn sent(&mut self, what: &str, bytes: usize) {
        self.in_flight.push_back((what.to_owned(), bytes));
        self.in_flight_bytes += bytes;
    }

    /// Reads replies until so many bytes more may be outstanding.
    fn make_room(&mut self, bytes: usize) -> Result<(), String> {
        while !self.in_flight.is_empty()
            && (self.in_flight.len() >= IN_FLIGHT_MAX || self.in_flight_bytes + bytes > IN_FLIGHT_BYTES)
        {
            self.settle_one()?;
        }
        Ok(())
    }

    /// Waits for all replies.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        while !self.in_flight.is_empty() {
            self.settle_one()?;
        }
        Ok(())
    }

    fn settle_one(&mut self) -> Result<(), String> {
        let Some((what, bytes)) = self.in_flight.pop_front() else { return Ok(()) };
        self.in_flight_bytes -= bytes;
        let reply = self.writer.flush().and_then(|()| self.reply());
        match reply.map_err(|error| format!("{what}: {error}"))? {
            Value::Error(error) => Err(format!("{what}: {error}")),
            Value::Items(items) => match items.into_iter().find(|item| matches!(item, Value::Error(_))) {
                Some(Value::Error(error)) => Err(format!("{what}: {error}")),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The next reply.
    pub(super) fn reply(&mut self) -> io::Result<Value> {
        read_value(&mut self.reader, 0)
    }
}

fn read_value(reader: &mut impl BufRead, depth: usize) -> io::Result<Value> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the reply is no reply of Redis");
    let mut line = Vec::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(wrong)?;
    let (&mark, rest) = line.split_first().ok_or_else(wrong)?;
    let number = || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(wrong);
    match mark {
        b'+' => Ok(Value::Text(rest.to_vec())),
        b'-' => Ok(Value::Error(String::from_utf8_lossy(rest).into_owned())),
        b':' => number().map(Value::Number),
        b'$' => {
            let Ok(len) = u64::try_from(number()?) else { return Ok(Value::Nothing) };
            // It grows as the bytes come.
            let mut bytes = Vec::new();
            reader.by_ref().take(len).read_to_end(&mut bytes)?;
            let mut end = [0; 2];
            reader.read_exact(&mut end)?;
            if bytes.len() as u64 == len && end == *b"\r\n" { Ok(Value::Text(bytes)) } else { Err(wrong()) }
        }
        b'*' if depth < DEPTH_MAX => {
            let Ok(count) = u64::try_from(number()?) else { return Ok(Value::Nothing) };
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(read_value(reader, depth + 1)?);
            }
            Ok(Value::Items(items))
        }
        _ => Err(wrong()),
    }
}

/// Whether a word is an address and no path.
pub(super) fn is_address(word: &str) -> bool {
    let port = word.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    matches!(port, Some((host, Ok(_))) if !host.is_empty())
        && !word.contains('/')
        && !std::path::Path::new(word).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Value> {
        read_value(&mut BufReader::new(bytes), 0)
    }

    #[test]
    fn replies_are_read_and_no_length_makes_room() {
        assert_eq!(read(b"+OK\r\n").expect("sound"), Value::Text(b"OK".to_vec()));
        assert_eq!(read(b"-ERR no\r\n").expect("sound"), Value::Error("ERR no".into()));
        assert_eq!(read(b"$-1\r\n").expect("sound"), Value::Nothing);
        let items = Value::Items(vec![Value::Number(-7), Value::Text(b"a\r\nb".to_vec())]);
        assert_eq!(read(b"*2\r\n:-7\r\n$4\r\na\r\nb\r\n").expect("sound"), items);
        for wrong in [&b""[..], b"+OK", b"?\r\n", b"$x\r\n", b"$9223372036854775807\r\nab", b"*9999999\r\n:1\r\n"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&b"*1\r\n".repeat(1000)).is_err(), "too deep");
    }

    #[test]
    fn an_address_is_no_path() {
        assert!(is_address("localhost:6379") && is_address("10.0.0.1:1"));
        assert!(!is_address("data") && !is_address("/a:1/b") && !is_address(":6379") && !is_address("a:b"));
    }
}
