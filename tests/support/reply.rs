//! Finds the end of a reply, in RESP2 and RESP3, and parses it for the tests that must look inside.
//!
//! - `end` returns the length of the first reply in a buffer, or that more bytes are needed.
//! - `parse` returns a tree. It only serves to normalise replies that may differ in order or in number.

/// One parsed reply. Text keeps its type byte, so that `+x`, `$x` and `=x` stay distinct.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reply {
    /// Anything that is not an integer or an aggregate: the type byte and its bytes.
    Text(u8, Vec<u8>),
    /// `:`
    Integer(i64),
    /// `$-1`, `*-1` or `_`: the bytes of its head.
    Null(Vec<u8>),
    /// `*`, `~`, `>`, `%` or `|`: the type byte and the elements (a map's keys and values in turn).
    Aggregate(u8, Vec<Reply>),
}

impl Reply {
    /// The bytes of a bulk, simple or verbatim string (without the `txt:` of the latter).
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Reply::Text(b'=', bytes) => &bytes[4..],
            Reply::Text(_, bytes) => bytes,
            other => panic!("expected text, got {other:?}"),
        }
    }

    /// The text as a `String`.
    pub(crate) fn string(&self) -> String {
        String::from_utf8_lossy(self.text()).into_owned()
    }

    /// The value of an integer reply.
    pub(crate) fn integer(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => panic!("expected an integer, got {other:?}"),
        }
    }

    /// The elements of an aggregate.
    pub(crate) fn elements(&self) -> &[Reply] {
        match self {
            Reply::Aggregate(_, elements) => elements,
            other => panic!("expected an aggregate, got {other:?}"),
        }
    }

    /// True for `-…` and `!…`.
    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Reply::Text(b'-' | b'!', _))
    }
}

/// The length of the first reply in `bytes`; `None` when it is not complete yet.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    let (head, mut at) = line(bytes)?;
    let (kind, rest) = head.split_first().expect("a reply starts with a type byte");
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Some(at),
        b'$' | b'=' | b'!' => match number(rest) {
            -1 => Some(at),
            length => {
                at += usize::try_from(length).expect("a bulk length is not negative") + 2;
                (at <= bytes.len()).then_some(at)
            }
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let pairs = matches!(kind, b'%' | b'|');
            let count = number(rest).max(0) * if pairs { 2 } else { 1 };
            for _ in 0..count {
                at += end(&bytes[at..])?;
            }
            // Attributes precede the reply that they describe.
            if *kind == b'|' {
                at += end(&bytes[at..])?;
            }
            Some(at)
        }
        _ => panic!("not a reply: {}", bytes.escape_ascii()),
    }
}

/// The tree of one complete reply.
pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let (reply, used) = parse_prefix(bytes);
    assert_eq!(used, bytes.len(), "more than one reply: {}", bytes.escape_ascii());
    reply
}

fn parse_prefix(bytes: &[u8]) -> (Reply, usize) {
    let (head, mut at) = line(bytes).expect("a complete reply");
    let (&kind, rest) = head.split_first().expect("a reply starts with a type byte");
    let reply = match kind {
        b':' => Reply::Integer(number(rest)),
        b'_' => Reply::Null(head.to_vec()),
        b'$' | b'*' if rest == b"-1" => Reply::Null(head.to_vec()),
        b'$' | b'=' | b'!' => {
            let length = usize::try_from(number(rest)).expect("a bulk length is not negative");
            let text = bytes[at..at + length].to_vec();
            at += length + 2;
            Reply::Text(kind, text)
        }
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let pairs = matches!(kind, b'%' | b'|');
            let count = number(rest) * if pairs { 2 } else { 1 };
            let mut elements = Vec::new();
            for _ in 0..count {
                let (element, used) = parse_prefix(&bytes[at..]);
                elements.push(element);
                at += used;
            }
            Reply::Aggregate(kind, elements)
        }
        _ => Reply::Text(kind, rest.to_vec()),
    };
    (reply, at)
}

/// The first line without its CRLF, and where the next begins.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let length = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..length], length + 2))
}

fn number(digits: &[u8]) -> i64 {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not a number: {}", digits.escape_ascii()))
}
