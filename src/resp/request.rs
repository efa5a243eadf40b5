//! The request decoder: from received bytes to the arguments of one command.
//!
//! Invariants:
//! - It never reads a byte twice needlessly. The [`Request`] keeps what was decoded of an incomplete command, so a
//!   command of n arguments that arrives byte by byte costs O(n), not O(n²).
//! - It never trusts a length with an allocation: an argument is a [`Span`] of bytes that have arrived.
//! - "More bytes are needed" is not an error; every [`ProtocolError`] ends the connection.
//!
//! The error texts, and the order in which mistakes are detected, are those of Redis.

use std::fmt;
use std::ops::Index;

use memchr::memchr2;

use crate::base::config::words;

/// The longest inline command, and the longest line that holds a length, in bytes.
pub const INLINE_MAX_BYTES: usize = 64 * 1024;
/// The most arguments of one command.
const ARGUMENTS_MAX: i64 = i32::MAX as i64;
/// What an unauthenticated connection may send: arguments per command, and bytes per argument.
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_MAX_BYTES: i64 = 16384;

/// The position of one argument in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The length in bytes.
    pub len: usize,
}

/// The arguments of one command, as spans of one buffer. The first is the name.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    buffer: &'a [u8],
    spans: &'a [Span],
}

/// An owned copy of the arguments of one command, which outlives their buffer.
#[derive(Clone, Debug)]
pub struct OwnedArgs {
    buffer: Box<[u8]>,
    spans: Box<[Span]>,
}

impl OwnedArgs {
    /// Copies these words.
    pub fn new<'a>(words: impl Iterator<Item = &'a [u8]>) -> OwnedArgs {
        let (mut buffer, mut spans) = (Vec::new(), Vec::new());
        for word in words {
            spans.push(Span { start: buffer.len(), len: word.len() });
            buffer.extend_from_slice(word);
        }
        OwnedArgs { buffer: buffer.into(), spans: spans.into() }
    }

    /// The arguments.
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.buffer, &self.spans)
    }

    /// The bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.spans.len() * size_of::<Span>()
    }
}

impl<'a> Args<'a> {
    /// No arguments and no name.
    pub const NONE: Args<'static> = Args { buffer: &[], spans: &[] };

    /// The arguments at `spans` of `buffer`.
    ///
    /// Accessing an argument whose span is outside the buffer panics.
    pub fn new(buffer: &'a [u8], spans: &'a [Span]) -> Self {
        Args { buffer, spans }
    }

    /// The number of arguments, including the name of the command.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is not even a name.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`, if there are that many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|s| &self.buffer[s.start..s.start + s.len])
    }

    /// The argument at `index`, which the arity guarantees. Panics if there are fewer.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        let span = self.spans[index];
        &self.buffer[span.start..span.start + span.len]
    }

    /// The bytes of the request in the form in which clients send it.
    pub fn wire_bytes(&self) -> u64 {
        let digits = |number: usize| number.checked_ilog10().unwrap_or(0) as u64 + 1;
        let of_arg = |arg: &[u8]| 1 + digits(arg.len()) + 2 + arg.len() as u64 + 2;
        1 + digits(self.len()) + 2 + self.from(0).map(of_arg).sum::<u64>()
    }

    /// Whether [`Args::wire_bytes`] may be as many as `bytes`: a cheap bound from above.
    #[inline]
    pub fn may_reach(&self, bytes: u64) -> bool {
        const HEADERS_MAX: u64 = 32;
        let (Some(first), Some(last)) = (self.spans.first(), self.spans.last()) else { return false };
        let extent = (last.start + last.len).saturating_sub(first.start) as u64;
        extent + HEADERS_MAX * (self.spans.len() as u64 + 1) >= bytes
    }

    /// How many bytes lie between the beginning of the first argument and the end of the last: about their sum.
    #[inline]
    pub fn extent(&self) -> usize {
        match self.spans {
            [first, .., last] => (last.start + last.len).saturating_sub(first.start),
            [only] => only.len,
            [] => 0,
        }
    }

    /// The arguments from `first` on as a command of their own.
    pub fn skip(&self, first: usize) -> Args<'a> {
        Args { buffer: self.buffer, spans: &self.spans[first.min(self.spans.len())..] }
    }

    /// All arguments from `first` on.
    pub fn from(&self, first: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let buffer = self.buffer;
        self.spans[first.min(self.spans.len())..].iter().map(move |s| &buffer[s.start..s.start + s.len])
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];
    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        self.at(index)
    }
}

/// What the decoder needs to know about the configuration and the connection.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// `proto-max-bulk-len`, in bytes.
    pub bulk_max_bytes: u64,
    /// Whether the connection may send long commands; false until it has authenticated.
    pub authenticated: bool,
}

/// A protocol error. Its text goes to the client, and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// An inline command over 64 KiB.
    TooBigInline,
    /// Unbalanced quotes in an inline command.
    UnbalancedQuotes,
    /// No end of line within 64 KiB of a `*`.
    TooBigMultibulkCount,
    /// A count that is not an integer, or is above 2^31-1.
    InvalidMultibulkLength,
    /// More than ten arguments before authentication.
    UnauthenticatedMultibulkLength,
    /// No end of line within 64 KiB of where a `$` is expected.
    TooBigBulkCount,
    /// Another byte where a `$` is expected.
    ExpectedDollar(u8),
    /// A length that is not an integer, is negative, or is above `proto-max-bulk-len`.
    InvalidBulkLength,
    /// An argument of more than 16 KiB before authentication.
    UnauthenticatedBulkLength,
}

impl ProtocolError {
    /// The text as it is sent. It may repeat a byte that the client sent.
    pub fn wire(&self) -> Vec<u8> {
        match self {
            ProtocolError::ExpectedDollar(got) => {
                [b"ERR Protocol error: expected '$', got '", &[*got][..], b"'"].concat()
            }
            _ => self.to_string().into_bytes(),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            ProtocolError::TooBigInline => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::TooBigMultibulkCount => f.write_str("too big mbulk count string"),
            ProtocolError::InvalidMultibulkLength => f.write_str("invalid multibulk length"),
            ProtocolError::UnauthenticatedMultibulkLength => f.write_str("unauthenticated multibulk length"),
            ProtocolError::TooBigBulkCount => f.write_str("too big bulk count string"),
            ProtocolError::ExpectedDollar(got) => write!(f, "expected '$', got '{}'", char::from(*got)),
            ProtocolError::InvalidBulkLength => f.write_str("invalid bulk length"),
            ProtocolError::UnauthenticatedBulkLength => f.write_str("unauthenticated bulk length"),
        }
    }
}

/// The progress of [`Request::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One command is complete and took this many bytes. It may have no arguments (an empty line).
    Complete(usize),
    /// More bytes must arrive.
    Incomplete,
}

/// One command being decoded, and afterwards its arguments. It is made to be reused.
#[derive(Debug, Default)]
pub struct Request {
    spans: Vec<Span>,
    /// The arguments of an inline command, unquoted; empty for a multibulk command.
    inline: Vec<u8>,
    is_inline: bool,
    /// Bytes decoded so far.
    position: usize,
    /// Arguments still expected; `None` before the count is read.
    due: Option<usize>,
    /// The length of the argument whose bytes are expected next.
    bulk_len: Option<usize>,
}

impl Request {
    /// A request without bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the command and keeps the memory.
    pub fn reset(&mut self) {
        self.spans.clear();
        if self.spans.capacity() > 1024 {
            self.spans = Vec::new();
        }
        if self.is_inline {
            self.inline = Vec::new();
            self.is_inline = false;
        }
        self.position = 0;
        self.due = None;
        self.bulk_len = None;
    }

    /// Whether something of a command is decoded that need not be looked at again.
    #[inline]
    pub fn has_begun(&self) -> bool {
        self.due.is_some() || self.position > 0
    }

    /// The memory that it takes beside the bytes of its buffer, in bytes.
    pub fn room_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.inline.capacity()
    }

    /// The arguments, once complete. `buffer` must be the one last given to [`Request::decode`].
    #[inline]
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> Args<'a> {
        Args { buffer: if self.is_inline { &self.inline } else { buffer }, spans: &self.spans }
    }

    /// How many bytes the buffer should hold so that the next step makes progress, given what has been announced and
    /// partly received. It is a hint for growing a buffer and never exceeds twice `have`.
    pub fn wanted(&self, have: usize) -> usize {
        let announced = self.bulk_len.map_or(0, |len| self.position.saturating_add(len).saturating_add(2));
        announced.min(have.saturating_mul(2))
    }

    /// Continues decoding where it stopped. `buffer` starts at the first byte of this command and holds at least what
    /// it held at the previous call.
    ///
    /// # Errors
    /// A [`ProtocolError`]. Nothing more can then be decoded from this connection.
    #[inline]
    pub fn decode(&mut self, buffer: &[u8], limits: RequestLimits) -> Result<Progress, ProtocolError> {
        if self.due.is_none() {
            if let Some(taken) = self.decode_usual(buffer) {
                return Ok(Progress::Complete(taken));
            }
            self.spans.clear();
        }
        self.decode_any(buffer, limits)
    }

    /// Decodes the usual case: a command that has arrived as a whole, with fewer than ten arguments of fewer than a
    /// thousand bytes each. Returns its length in bytes. `None` for anything else; the spans are then arbitrary.
    #[inline]
    fn decode_usual(&mut self, buffer: &[u8]) -> Option<usize> {
        let &[b'*', count @ b'1'..=b'9', b'\r', b'\n', ..] = buffer else { return None };
        let mut position = 4;
        self.spans.clear();
        for _ in b'0'..count {
            let (digits, len) = usual_length(buffer.get(position..)?.first_chunk()?)?;
            let start = position + digits + 3;
            self.spans.push(Span { start, len });
            // The two bytes after an argument are skipped unread, as Redis does.
            position = start + len + 2;
        }
        (position <= buffer.len()).then_some(position)
    }

    fn decode_any(&mut self, buffer: &[u8], limits: RequestLimits) -> Result<Progress, ProtocolError> {
        let mut due = match (self.due, buffer) {
            (Some(due), _) => due,
            (None, []) => return Ok(Progress::Incomplete),
            (None, [b'*', ..]) => match self.decode_count(buffer, limits)? {
                None => return Ok(Progress::Incomplete),
                Some(count) => count,
            },
            (None, _) => return self.decode_inline(buffer),
        };
        while due > 0 {
            let len = match self.bulk_len.take() {
                Some(len) => len,
                None => match self.decode_bulk_len(buffer, limits)? {
                    None => {
                        self.due = Some(due);
                        return Ok(Progress::Incomplete);
                    }
                    Some(len) => len,
                },
            };
            // The two bytes after an argument are skipped unread, as Redis does.
            if buffer.len() - self.position < len + 2 {
                (self.due, self.bulk_len) = (Some(due), Some(len));
                return Ok(Progress::Incomplete);
            }
            self.spans.push(Span { start: self.position, len });
            self.position += len + 2;
            due -= 1;
        }
        self.due = Some(0);
        Ok(Progress::Complete(self.position))
    }

    /// The line at the position, without its first byte and its line end. Moves behind it.
    fn line<'a>(&mut self, buffer: &'a [u8], too_long: ProtocolError) -> Result<Option<&'a [u8]>, ProtocolError> {
        let rest = &buffer[self.position..];
        let Some(end) = line_end(b'\r', &rest[..rest.len().min(INLINE_MAX_BYTES + 1)]) else {
            return if rest.len() > INLINE_MAX_BYTES { Err(too_long) } else { Ok(None) };
        };
        Ok((end + 2 <= rest.len()).then(|| &rest[..end]))
    }

    fn decode_count(&mut self, buffer: &[u8], limits: RequestLimits) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.line(buffer, ProtocolError::TooBigMultibulkCount)? else { return Ok(None) };
        let count =
            parse_length(&line[1..]).filter(|&n| n <= ARGUMENTS_MAX).ok_or(ProtocolError::InvalidMultibulkLength)?;
        if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        self.position += line.len() + 2;
        Ok(Some(usize::try_from(count).unwrap_or(0)))
    }

    #[inline]
    fn decode_bulk_len(&mut self, buffer: &[u8], limits: RequestLimits) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.line(buffer, ProtocolError::TooBigBulkCount)? else { return Ok(None) };
        let first = line.first().copied().unwrap_or(b'\r');
        if first != b'$' {
            return Err(ProtocolError::ExpectedDollar(first));
        }
        let len = parse_length(&line[1..])
            .filter(|&n| n >= 0 && n as u64 <= limits.bulk_max_bytes)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if len > UNAUTHENTICATED_BULK_MAX_BYTES && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.position += line.len() + 2;
        Ok(Some(len as usize))
    }

    fn decode_inline(&mut self, buffer: &[u8]) -> Result<Progress, ProtocolError> {
        let Some(end) = line_end(b'\n', buffer) else {
            return if buffer.len() > INLINE_MAX_BYTES {
                Err(ProtocolError::TooBigInline)
            } else {
                Ok(Progress::Incomplete)
            };
        };
        let line = &buffer[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.is_inline = true;
        for word in words::split(line).ok_or(ProtocolError::UnbalancedQuotes)? {
            self.spans.push(Span { start: self.inline.len(), len: word.len() });
            self.inline.extend_from_slice(&word);
        }
        self.position = end + 1;
        Ok(Progress::Complete(self.position))
    }
}

/// A length of one to three digits between its `$` and its line end. Returns how many digits, and the length.
#[inline]
fn usual_length(bytes: &[u8; 6]) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *bytes {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', ..] => Some((1, digit(ones))),
        [b'$', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', _] => Some((2, digit(tens) * 10 + digit(ones))),
        [b'$', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n'] => {
            Some((3, digit(hundreds) * 100 + digit(tens) * 10 + digit(ones)))
        }
        _ => None,
    }
}

/// Where a line ends. As in Redis, whose lines are C strings, a line with a NUL never ends: it waits for more bytes
/// until it is too long.
fn line_end(end: u8, bytes: &[u8]) -> Option<usize> {
    memchr2(end, 0, bytes).filter(|&at| bytes[at] == end)
}

/// An integer as Redis reads lengths: an optional minus, no leading zeros, no spaces.
fn parse_length(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 18 => {}
        _ => return None,
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: RequestLimits = RequestLimits { bulk_max_bytes: 512 << 20, authenticated: true };

    fn decode_all(bytes: &[u8], limits: RequestLimits) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut commands = Vec::new();
        let mut at = 0;
        let mut request = Request::new();
        while let Progress::Complete(taken) = request.decode(&bytes[at..], limits)? {
            let args = request.args(&bytes[at..]);
            if !args.is_empty() {
                commands.push(args.from(0).map(<[u8]>::to_vec).collect());
            }
            at += taken;
            request.reset();
        }
        Ok(commands)
    }

    fn error(bytes: &[u8]) -> String {
        decode_all(bytes, OPEN).expect_err("a protocol error").to_string()
    }

    #[test]
    fn decodes_multibulk_and_inline_in_one_stream() {
        let got =
            decode_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n\r\n*0\r\n*-1\r\nset a \"b \\x41\\n\" 'c\\''\n", OPEN);
        assert_eq!(
            got.unwrap(),
            vec![
                vec![b"GET".to_vec(), b"k".to_vec()],
                vec![b"PING".to_vec()],
                vec![b"set".to_vec(), b"a".to_vec(), b"b A\n".to_vec(), b"c'".to_vec()],
            ]
        );
    }

    #[test]
    fn every_split_of_a_stream_decodes_alike() {
        let stream: &[u8] = b"*3\r\n$3\r\nSET\r\n$12\r\nkey\r\nwith\0no\r\n$0\r\n\r\nPING x\r\n*1\r\n$104\r\n";
        let stream = [stream, &[b'z'; 104], b"\r\n"].concat();
        for cut in 0..=stream.len() {
            let mut request = Request::new();
            let (mut at, mut have, mut seen) = (0, cut, Vec::new());
            loop {
                match request.decode(&stream[at..have], OPEN).unwrap() {
                    Progress::Complete(taken) => {
                        seen.push(request.args(&stream[at..have]).from(0).map(<[u8]>::to_vec).collect::<Vec<_>>());
                        request.reset();
                        at += taken;
                    }
                    Progress::Incomplete if have < stream.len() => have += 1,
                    Progress::Incomplete => break,
                }
            }
            assert_eq!(at, stream.len(), "cut at {cut}");
            assert_eq!(seen.len(), 3);
            assert_eq!(seen[0], [&b"SET"[..], b"key\r\nwith\0no", b""]);
            assert_eq!(seen[2], [vec![b'z'; 104]]);
        }
    }

    #[test]
    fn arguments_of_every_length_decode_alike_at_once_and_in_two_parts() {
        for len in (0..=12).chain(95..=105).chain(995..=1005) {
            let value = vec![b'v'; len];
            let command = [format!("*2\r\n$4\r\nECHO\r\n${len}\r\n").as_bytes(), &value, b"\r\n"].concat();
            let mut request = Request::new();
            assert_eq!(request.decode(&command, OPEN), Ok(Progress::Complete(command.len())), "{len}");
            assert_eq!(request.args(&command).from(0).collect::<Vec<_>>(), [&b"ECHO"[..], &value], "{len}");
            for cut in 1..command.len() {
                let mut request = Request::new();
                assert_eq!(request.decode(&command[..cut], OPEN), Ok(Progress::Incomplete), "{len}, cut at {cut}");
                assert_eq!(request.decode(&command, OPEN), Ok(Progress::Complete(command.len())), "{len}, {cut}");
                assert_eq!(request.args(&command).at(1), value, "{len}, cut at {cut}");
            }
        }
    }

    #[test]
    fn mistakes_have_redis_texts() {
        assert_eq!(error(b"*x\r\n"), "ERR Protocol error: invalid multibulk length");
        assert_eq!(error(b"*2147483648\r\n"), "ERR Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1\r\n+3\r\n"), "ERR Protocol error: expected '$', got '+'");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "ERR Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$01\r\n"), "ERR Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$536870913\r\n"), "ERR Protocol error: invalid bulk length");
        assert_eq!(error(b"set \"a\n"), "ERR Protocol error: unbalanced quotes in request");
        assert_eq!(error(b"set \"a\"b\n"), "ERR Protocol error: unbalanced quotes in request");
        assert_eq!(error(&[b'a'; 65537]), "ERR Protocol error: too big inline request");
        assert_eq!(error(&[&b"*"[..], &[b'1'; 65537]].concat()), "ERR Protocol error: too big mbulk count string");
        assert_eq!(error(&[&b"*1\r\n$"[..], &[b'1'; 65537]].concat()), "ERR Protocol error: too big bulk count string");
        let closed = RequestLimits { authenticated: false, ..OPEN };
        let text = |bytes: &[u8]| decode_all(bytes, closed).expect_err("an error").to_string();
        assert_eq!(text(b"*11\r\n"), "ERR Protocol error: unauthenticated multibulk length");
        assert_eq!(text(b"*1\r\n$16385\r\n"), "ERR Protocol error: unauthenticated bulk length");
    }

    #[test]
    fn a_huge_announced_length_reserves_nothing() {
        let mut request = Request::new();
        assert_eq!(request.decode(b"*2147483647\r\n$536870912\r\nx", OPEN), Ok(Progress::Incomplete));
        assert_eq!(request.spans.capacity(), 0);
        assert_eq!(request.wanted(26), 52);
    }
}
