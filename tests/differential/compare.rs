//! A server under test beside a reference server, and what counts as the same reply.

use crate::support::client::Client;
use crate::support::reply::{self, Reply};
use crate::support::server::{Recipe, Server};

/// The two servers.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) reference: Server,
    pub(crate) tested: Server,
}

impl Pair {
    /// Starts both, with DEBUG allowed; the recipe is that of the server under test.
    pub(crate) fn start(tested: Recipe) -> Pair {
        let start = |recipe: Recipe| recipe.with("enable-debug-command", "yes").start();
        Pair { reference: start(Recipe::reference()), tested: start(tested) }
    }

    /// Starts both with a number of I/O threads for the server under test.
    pub(crate) fn with_threads(threads: usize) -> Pair {
        Pair::start(Recipe::under_test().with("io-threads", &threads.to_string()))
    }

    /// A connection to each, in the given protocol.
    pub(crate) fn clients(&self, protocol: Protocol) -> Clients {
        let mut clients = Clients { reference: self.reference.client(), tested: self.tested.client() };
        if protocol == Protocol::Resp3 {
            for client in [&mut clients.reference, &mut clients.tested] {
                let reply = client.call(&["HELLO", "3"]);
                assert!(reply.starts_with(b"%"), "HELLO 3 => {}", reply.escape_ascii());
            }
        }
        clients
    }

    /// Empties both.
    pub(crate) fn flush(&self) {
        for server in [&self.reference, &self.tested] {
            assert_eq!(server.client().call(&["FLUSHALL"]), b"+OK\r\n");
        }
    }
}

/// The protocol version of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Resp2,
    Resp3,
}

impl Protocol {
    /// Both.
    pub(crate) const ALL: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];
}

/// A connection to each server.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) reference: Client,
    pub(crate) tested: Client,
}

/// How two replies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// Byte for byte.
    Exact,
    /// The elements of the innermost arrays may come in any order.
    Sorted,
    /// Integers (also in bulk strings) may differ by this much.
    Near(i64),
    /// Only the form counts: types and lengths of aggregates, not values.
    Form,
    /// All rows, of which there are some, have the form of the reference's first one. Only their number may differ.
    Rows,
    /// Both are errors with the same first word.
    Error,
    /// Byte for byte, but Redis 7.0 calls every list a quicklist, and later versions call a short one a listpack.
    Encoding,
    /// Any reply that is not an error.
    Any,
}

impl Likeness {
    /// True when the two replies are alike in this sense.
    pub(crate) fn holds(self, reference: &[u8], tested: &[u8]) -> bool {
        let older = without_newer(reference, tested);
        let tested = older.as_deref().unwrap_or(tested);
        let both = || (reply::parse(reference), reply::parse(tested));
        match self {
            Likeness::Exact => reference == tested,
            Likeness::Encoding => {
                let is_list = reference == b"$9\r\nquicklist\r\n";
                reference == tested || (is_list && tested == b"$8\r\nlistpack\r\n")
            }
            Likeness::Sorted => {
                let (reference, tested) = both();
                sorted(reference) == sorted(tested)
            }
            Likeness::Near(tolerance) => {
                let (reference, tested) = both();
                near(&reference, &tested, tolerance)
            }
            Likeness::Form => {
                let (reference, tested) = both();
                form(&reference) == form(&tested)
            }
            Likeness::Rows => match both() {
                (Reply::Aggregate(kind, reference), Reply::Aggregate(other, tested)) => {
                    let first = reference.first().map(form);
                    let is_alike = |row: &Reply| Some(form(row)) == first;
                    kind == other && !tested.is_empty() && reference.iter().chain(&tested).all(is_alike)
                }
                _ => false,
            },
            Likeness::Error => match both() {
                (Reply::Text(b'-', reference), Reply::Text(b'-', tested)) => {
                    first_word(&reference) == first_word(&tested)
                }
                _ => false,
            },
            Likeness::Any => {
                let (reference, tested) = both();
                !reference.is_error() && !tested.is_error()
            }
        }
    }
}

/// The fields that XINFO has since Redis 8.6 and 8.8.
const NEWER_FIELDS: [&str; 7] =
    ["idmp-duration", "idmp-maxsize", "pids-tracked", "iids-tracked", "iids-added", "iids-duplicates", "nacked-count"];

/// A reply of XINFO STREAM without the fields that the reference does not know yet.
fn without_newer(reference: &[u8], tested: &[u8]) -> Option<Vec<u8>> {
    let has = |reply: &[u8]| reply.windows(13).any(|part| part == b"idmp-duration");
    if has(reference) || !has(tested) {
        return None;
    }
    // Each byte is a character here.
    let mut rest: String = tested.iter().map(|byte| char::from(*byte)).collect();
    for name in NEWER_FIELDS {
        let field = format!("${}\r\n{name}\r\n:", name.len());
        while let Some(at) = rest.find(&field) {
            let end = rest[at + field.len()..].find('\n').expect("a line") + at + field.len() + 1;
            rest.replace_range(at..end, "");
        }
    }
    let heads = [("*30", "*18"), ("*32", "*20"), ("%15", "%9"), ("%16", "%10")].map(|(new, old)| {
        let head = |count: &str| format!("{count}\r\n$6\r\nlength\r\n");
        (head(new), head(old))
    });
    let groups = [("*16", "*14"), ("%8", "%7")].map(|(new, old)| {
        let head = |count: &str| format!("{count}\r\n$4\r\nname\r\n");
        (head(new), head(old))
    });
    for (new, old) in heads.iter().chain(&groups) {
        rest = rest.replace(new, old);
    }
    Some(rest.chars().map(|byte| byte as u8).collect())
}

fn sorted(reply: Reply) -> Reply {
    let Reply::Aggregate(kind, elements) = reply else { return reply };
    let innermost = !elements.iter().any(|element| matches!(element, Reply::Aggregate(..)));
    let mut elements: Vec<Reply> = elements.into_iter().map(sorted).collect();
    if innermost {
        elements.sort();
    }
    Reply::Aggregate(kind, elements)
}

fn near(left: &Reply, right: &Reply, tolerance: i64) -> bool {
    let close = |left: i64, right: i64| left.abs_diff(right) <= tolerance.unsigned_abs();
    match (left, right) {
        (Reply::Integer(left), Reply::Integer(right)) => {
            // Negative answers are codes (no key, no expiry), not durations.
            left == right || (*left >= 0 && *right >= 0 && close(*left, *right))
        }
        (Reply::Text(kind, left), Reply::Text(other, right)) if kind == other => {
            left == right || matches!((whole(left), whole(right)), (Some(left), Some(right)) if close(left, right))
        }
        (Reply::Aggregate(kind, left), Reply::Aggregate(other, right)) => {
            kind == other
                && left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| near(left, right, tolerance))
        }
        _ => left == right,
    }
}

fn whole(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn form(reply: &Reply) -> String {
    match reply {
        Reply::Text(kind, _) => char::from(*kind).to_string(),
        Reply::Integer(_) => ":".to_owned(),
        Reply::Null(head) => head.escape_ascii().to_string(),
        Reply::Aggregate(kind, elements) => {
            let inside: Vec<String> = elements.iter().map(form).collect();
            format!("{}{}[{}]", char::from(*kind), elements.len(), inside.join(" "))
        }
    }
}

fn first_word(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b' ').next().unwrap_or_default()
}

#[test]
fn likeness_tells_like_from_unlike() {
    let alike = |likeness: Likeness, left: &str, right: &str| likeness.holds(left.as_bytes(), right.as_bytes());
    assert!(!alike(Likeness::Exact, "+OK\r\n", "$2\r\nOK\r\n"));
    assert!(alike(Likeness::Sorted, "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n"));
    assert!(!alike(Likeness::Sorted, "*2\r\n:1\r\n*1\r\n:2\r\n", "*2\r\n*1\r\n:2\r\n:1\r\n"));
    assert!(alike(Likeness::Near(2), ":100\r\n", ":98\r\n"));
    assert!(!alike(Likeness::Near(2), ":100\r\n", ":97\r\n"));
    assert!(!alike(Likeness::Near(2), ":-1\r\n", ":-2\r\n"));
    assert!(alike(Likeness::Form, "*2\r\n$1\r\na\r\n_\r\n", "*2\r\n$2\r\nbb\r\n_\r\n"));
    assert!(!alike(Likeness::Form, "*1\r\n$1\r\na\r\n", "*1\r\n+a\r\n"));
    assert!(alike(Likeness::Rows, "*1\r\n$1\r\na\r\n", "*2\r\n$2\r\nbb\r\n$1\r\na\r\n"));
    assert!(!alike(Likeness::Rows, "*1\r\n$1\r\na\r\n", "*1\r\n:1\r\n"));
    assert!(!alike(Likeness::Rows, "*0\r\n", "*0\r\n") && !alike(Likeness::Rows, "*1\r\n:1\r\n", "*0\r\n"));
    assert!(alike(Likeness::Error, "-ERR a\r\n", "-ERR b\r\n"));
    assert!(!alike(Likeness::Error, "-ERR a\r\n", "-NOAUTH b\r\n"));
    assert!(!alike(Likeness::Any, ":1\r\n", "-ERR b\r\n"));
    let older = "%9\r\n$6\r\nlength\r\n:0\r\n";
    let newer = "%15\r\n$6\r\nlength\r\n:0\r\n$13\r\nidmp-duration\r\n:100\r\n";
    assert!(alike(Likeness::Exact, older, newer) && !alike(Likeness::Exact, newer, older));
}
