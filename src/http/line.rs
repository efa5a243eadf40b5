//! A connection from here to a worker, by which somebody reads keys over HTTP.
//!
//! ```text
//! request ─▶ a pair of sockets ─ one end ─▶ the dealer ─▶ a worker: a client as any other
//!              └ the other: commands, and their replies as [`Answer`]s
//! ```
//!
//! So users and their rules, protected mode, `maxclients`, the audit log and MONITOR hold as for every client, and
//! nothing here touches a key. The client observes: its reads leave no trace in the keys and their statistics.
//!
//! Invariants:
//! - What one request may receive is bounded by [`BYTES_MAX`].
//! - A connection serves one request. Its end ends what it waits for.

use std::fmt;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The most bytes that the replies to one request may take.
const BYTES_MAX: usize = 8 << 20;
/// How much is read at once.
const READ_BYTES: usize = 32 << 10;
/// How deep replies nest.
const DEPTH_MAX: usize = 8;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A text, simple or not.
    Bytes(Vec<u8>),
    Int(i64),
    Error(Vec<u8>),
    Nil,
    Many(Vec<Answer>),
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection ended, or could not be made.
    Lost(io::Error),
    /// The replies are larger than [`BYTES_MAX`].
    TooLarge,
    /// The server said no.
    Refused(Vec<u8>),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Lost(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Lost(error) => write!(f, "The server does not answer: {error}"),
            Trouble::TooLarge => write!(f, "This is too large to be shown."),
            Trouble::Refused(text) => f.write_str(&String::from_utf8_lossy(text)),
        }
    }
}

impl Answer {
    /// The bytes of a text; nothing of others.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Answer::Bytes(bytes) => bytes,
            _ => b"",
        }
    }

    /// The number; `None` of others.
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Answer::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements; none of others.
    pub(super) fn many(&self) -> &[Answer] {
        match self {
            Answer::Many(all) => all,
            _ => &[],
        }
    }

    /// The value behind a name, in a map that is written as a list.
    pub(super) fn field(&self, name: &str) -> &Answer {
        let pairs = self.many().as_chunks::<2>().0;
        pairs.iter().find(|[known, _]| known.bytes() == name.as_bytes()).map_or(&Answer::Nil, |[_, value]| value)
    }

    /// The reply unless it is an error.
    pub(super) fn fine(self) -> Result<Answer, Trouble> {
        match self {
            Answer::Error(text) => Err(Trouble::Refused(text)),
            other => Ok(other),
        }
    }
}

/// See the module.
pub(super) struct Line {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// How many bytes of the buffer were replies that are taken.
    taken: usize,
    /// How many bytes may still be received.
    left: usize,
}

impl Line {
    pub(super) fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Line> {
        Ok(Line { stream: UnixStream::from_std(stream)?, buffer: Vec::new(), taken: 0, left: BYTES_MAX })
    }

    /// Makes calls, each with its arguments, and gives their replies.
    pub(super) async fn calls(&mut self, calls: &[Vec<&[u8]>]) -> Result<Vec<Answer>, Trouble> {
        let mut bytes = Vec::new();
        for call in calls {
            bytes.extend_from_slice(format!("*{}\r\n", call.len()).as_bytes());
            for word in call {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        // A refused connection is closed at once; the reason is there to be read.
        let written = self.stream.write_all(&bytes).await;
        let mut answers = Vec::with_capacity(calls.len());
        for _ in calls {
            match self.answer().await {
                Err(Trouble::Lost(error)) => return Err(Trouble::Lost(written.err().unwrap_or(error))),
                other => answers.push(other?),
            }
        }
        Ok(answers)
    }

    /// Makes one call.
    ///
    /// # Errors
    /// It failed, or the server refused it.
    pub(super) async fn call(&mut self, words: &[&[u8]]) -> Result<Answer, Trouble> {
        self.calls(&[words.to_vec()]).await?.remove(0).fine()
    }

    async fn answer(&mut self) -> Result<Answer, Trouble> {
        let mut end = End { at: self.taken, wanted: 1 };
        while !end.seek(&self.buffer) {
            if self.left == 0 {
                return Err(Trouble::TooLarge);
            }
            let mut part = vec![0; READ_BYTES.min(self.left)];
            let count = self.stream.read(&mut part).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.left -= count;
            self.buffer.extend_from_slice(&part[..count]);
        }
        let mut at = self.taken;
        self.taken = end.at;
        parse(&self.buffer, &mut at, 0).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
    }
}

/// Where a reply ends, as far as it has arrived.
struct End {
    at: usize,
    /// How many parts are missing.
    wanted: usize,
}

impl End {
    /// Whether the reply is whole. What was looked at once is not looked at again.
    fn seek(&mut self, bytes: &[u8]) -> bool {
        while self.wanted > 0 {
            let mut at = self.at;
            let Some((kind, number)) = head(bytes, &mut at) else { return false };
            let more = usize::try_from(number).unwrap_or(0);
            match kind {
                b'$' if number >= 0 => {
                    at = at.saturating_add(more).saturating_add(2);
                    if bytes.len() < at {
                        return false;
                    }
                }
                b'*' => self.wanted = self.wanted.saturating_add(more),
                _ => {}
            }
            (self.at, self.wanted) = (at, self.wanted - 1);
        }
        true
    }
}

/// The first line of a part: its kind, and its number if it has one.
fn head(bytes: &[u8], at: &mut usize) -> Option<(u8, i64)> {
    let rest = bytes.get(*at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let kind = *rest.first()?;
    *at += end + 2;
    let number = std::str::from_utf8(rest.get(1..end)?).ok().and_then(|text| text.parse().ok());
    Some((kind, number.unwrap_or(-1)))
}

/// A reply that has arrived; `None` if the bytes are none.
fn parse(bytes: &[u8], at: &mut usize, depth: usize) -> Option<Answer> {
    let start = *at;
    let (kind, number) = head(bytes, at)?;
    let line = &bytes[start + 1..*at - 2];
    Some(match kind {
        b'+' => Answer::Bytes(line.to_vec()),
        b'-' => Answer::Error(line.to_vec()),
        b':' => Answer::Int(number),
        b'$' | b'*' if number < 0 => Answer::Nil,
        b'$' => {
            let from = *at;
            *at = from.checked_add(usize::try_from(number).ok()?)?.checked_add(2)?;
            Answer::Bytes(bytes.get(from..*at - 2)?.to_vec())
        }
        b'*' if depth < DEPTH_MAX => {
            let parts = (0..number).map(|_| parse(bytes, at, depth + 1));
            Answer::Many(parts.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"*4\r\n$3\r\na\r\n\r\n:-7\r\n*2\r\n$-1\r\n*0\r\n-ERR no\r\n";

    #[test]
    fn a_reply_is_read_once_it_is_whole() {
        let mut end = End { at: 0, wanted: 1 };
        for length in 0..REPLY.len() {
            assert!(!end.seek(&REPLY[..length]), "{length}");
        }
        assert!(end.seek(REPLY) && end.at == REPLY.len());
        let mut at = 0;
        let parsed = parse(REPLY, &mut at, 0).expect("a reply");
        let inner = Answer::Many(vec![Answer::Nil, Answer::Many(vec![])]);
        let all =
            vec![Answer::Bytes(b"a\r\n"[..3].to_vec()), Answer::Int(-7), inner, Answer::Error(b"ERR no".to_vec())];
        assert_eq!((parsed, at), (Answer::Many(all), REPLY.len()));
    }

    #[test]
    fn broken_bytes_are_no_reply() {
        for broken in [&b"\r\n"[..], b"?1\r\n", b"*1\r\n?\r\n", &b"*1\r\n".repeat(20), b"$9\r\nab\r\n"] {
            assert_eq!(parse(broken, &mut 0, 0), None, "{}", broken.escape_ascii());
        }
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = |text: &str| Answer::Bytes(text.as_bytes().to_vec());
        let map = Answer::Many(vec![text("a"), Answer::Int(1), text("b"), text("c")]);
        assert_eq!((map.field("a").int(), map.field("b").bytes(), map.field("c")), (Some(1), &b"c"[..], &Answer::Nil));
    }
}
