//! The reply writer: the one place where RESP2 and RESP3 differ.
//!
//! Invariants:
//! - A handler gets one [`Reply`] by value and must return the [`Done`] that only a reply can make, so it answers
//!   exactly once. An aggregate counts its elements and asserts the count.
//! - Replies are written directly into the connection's [`Output`]. There is no tree of values.
//! - After a failure [`Output::truncate`] cuts back to a mark, so half a reply cannot leave.

use std::fmt;
use std::io::IoSlice;

use crate::base::format;

/// A value of at least this many bytes is sent by reference instead of being copied.
pub const BY_REFERENCE_MIN_BYTES: usize = 16 * 1024;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resp {
    /// RESP2, at the start of every connection.
    V2,
    /// RESP3, after `HELLO 3`.
    V3,
}

impl Resp {
    /// The version number, as in `HELLO`.
    pub fn number(self) -> i64 {
        match self {
            Resp::V2 => 2,
            Resp::V3 => 3,
        }
    }
}

/// Bytes that live elsewhere and are sent in place.
pub type SharedPayload = Box<dyn AsRef<[u8]> + Send + Sync>;

/// The pending output of one connection: bytes, and large values by reference between them.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Large values, each with its position: the count of `bytes` before it.
    shared: Vec<(usize, SharedPayload)>,
    shared_len: usize,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("len", &self.len()).finish()
    }
}

/// A position in an [`Output`] to cut back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    shared: usize,
}

impl Output {
    /// An empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of bytes to send.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// The bytes of memory that it has allocated.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many values it sends by reference, and their bytes.
    pub fn by_reference(&self) -> (usize, usize) {
        (self.shared.len(), self.shared_len)
    }

    /// Its current end.
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), shared: self.shared.len() }
    }

    /// The first word of the error that was written after `mark`, if that is what was written.
    pub fn error_since(&self, mark: Mark) -> Option<&[u8]> {
        let text = self.bytes.get(mark.bytes..)?.strip_prefix(b"-")?;
        text.split(|byte| b" \r".contains(byte)).next()
    }

    /// Drops everything written after `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        for (_, payload) in self.shared.drain(mark.shared..) {
            self.shared_len -= (*payload).as_ref().len();
        }
    }

    /// Cuts back to `mark`, and returns what was written after it.
    pub fn split_off(&mut self, mark: Mark) -> Output {
        let bytes = self.bytes.split_off(mark.bytes);
        let mut shared = self.shared.split_off(mark.shared);
        shared.iter_mut().for_each(|(place, _)| *place -= mark.bytes);
        let shared_len = shared.iter().map(|(_, payload)| (**payload).as_ref().len()).sum();
        self.shared_len -= shared_len;
        Output { bytes, shared, shared_len }
    }

    /// Appends everything of `other`, and leaves it empty.
    pub fn append(&mut self, other: &mut Output) {
        if self.is_empty() {
            std::mem::swap(self, other);
            other.clear();
            return;
        }
        let base = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.shared.extend(other.shared.drain(..).map(|(at, payload)| (base + at, payload)));
        self.shared_len += std::mem::take(&mut other.shared_len);
    }

    /// Drops up to `sent` bytes from the front and returns how many. A value by reference is dropped only as a whole.
    pub fn drop_front(&mut self, sent: usize) -> usize {
        let (mut own, mut values, mut dropped) = (0, 0, 0);
        for (place, payload) in &self.shared {
            let len = (**payload).as_ref().len();
            if dropped + (place - own) + len > sent {
                break;
            }
            dropped += place - own + len;
            (own, values) = (*place, values + 1);
        }
        // The sent bytes before the first value that remains.
        let end = self.shared.get(values).map_or(self.bytes.len(), |(place, _)| *place);
        let more = (sent - dropped).min(end - own);
        (own, dropped) = (own + more, dropped + more);
        self.bytes.drain(..own);
        for (_, payload) in self.shared.drain(..values) {
            self.shared_len -= (*payload).as_ref().len();
        }
        self.shared.iter_mut().for_each(|(place, _)| *place -= own);
        dropped
    }

    /// Drops everything, and frees the memory if there is much of it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > 64 * 1024 {
            self.bytes = Vec::new();
        }
        self.shared.clear();
        self.shared_len = 0;
    }

    /// Everything as bytes, of an output without values by reference.
    pub fn into_bytes(self) -> Vec<u8> {
        debug_assert!(self.shared.is_empty());
        self.bytes
    }

    /// Appends raw bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes of an output without values by reference, for code that inspects replies instead of sending them.
    pub fn as_bytes(&self) -> &[u8] {
        debug_assert!(self.shared.is_empty());
        &self.bytes
    }

    /// Everything from byte `skip` on, if it is contiguous.
    #[inline]
    pub fn one_slice(&self, skip: usize) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.bytes[skip..])
    }

    /// Everything from byte `skip` on, as at most `slices.len()` slices for one vectored write. Returns how many
    /// slices were filled.
    pub fn slices<'a>(&'a self, mut skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut put = |part: &'a [u8], filled: &mut usize| {
            let cut = skip.min(part.len());
            skip -= cut;
            if cut < part.len() && *filled < slices.len() {
                slices[*filled] = IoSlice::new(&part[cut..]);
                *filled += 1;
            }
        };
        let mut at = 0;
        for (place, payload) in &self.shared {
            put(&self.bytes[at..*place], &mut filled);
            put((**payload).as_ref(), &mut filled);
            at = *place;
        }
        put(&self.bytes[at..], &mut filled);
        filled
    }

    fn line(&mut self, tag: u8, number: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        self.bytes.reserve(digits.len() + 3);
        self.bytes.push(tag);
        self.bytes.extend_from_slice(digits);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends a bulk string.
    #[inline]
    pub fn bulk(&mut self, value: &[u8]) {
        self.bytes.reserve(value.len() + 32);
        match value.len() {
            len @ 0..10 => self.bytes.extend_from_slice(&[b'$', b'0' + len as u8, b'\r', b'\n']),
            len @ 10..100 => {
                let (tens, ones) = ((len / 10) as u8, (len % 10) as u8);
                self.bytes.extend_from_slice(&[b'$', b'0' + tens, b'0' + ones, b'\r', b'\n']);
            }
            len => self.line(b'$', len as i64),
        }
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, resp: Resp, value: f64) {
        if resp == Resp::V3 {
            self.bytes.push(b',');
            format::write_double(&mut self.bytes, value);
        } else {
            // The length comes first but is known last, so the two parts are swapped.
            let start = self.bytes.len();
            format::write_double(&mut self.bytes, value);
            let digits_end = self.bytes.len();
            self.line(b'$', (digits_end - start) as i64);
            let header = self.bytes.len() - digits_end;
            self.bytes[start..].rotate_right(header);
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn shared(&mut self, payload: SharedPayload) {
        let len = (*payload).as_ref().len();
        self.line(b'$', len as i64);
        self.raw_shared(payload);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends raw bytes by reference.
    pub fn raw_shared(&mut self, payload: SharedPayload) {
        self.shared_len += (*payload).as_ref().len();
        self.shared.push((self.bytes.len(), payload));
    }

    /// An error reply.
    pub fn error(&mut self, error: &dyn fmt::Display) {
        self.error_bytes(error.to_string().as_bytes());
    }

    /// An error reply whose text need not be UTF-8. The reply is one line: line ends at the end of the text
    /// are dropped, others become spaces.
    pub fn error_bytes(&mut self, text: &[u8]) {
        let is_line_end = |byte: &u8| matches!(*byte, b'\r' | b'\n');
        let end = text.iter().rposition(|byte| !is_line_end(byte)).map_or(0, |last| last + 1);
        self.bytes.push(b'-');
        self.bytes.extend(text[..end].iter().map(|byte| if is_line_end(byte) { b' ' } else { *byte }));
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// The proof that a reply was written. Only this module makes one.
#[derive(Debug)]
#[must_use]
pub struct Done(());

/// The right and the duty to write exactly one reply.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Output,
    resp: Resp,
}

/// Writes the elements of an aggregate, exactly as many as were announced.
#[derive(Debug)]
pub struct Elements<'a> {
    out: &'a mut Output,
    resp: Resp,
    due: usize,
}

/// Generates, for [`Reply`] (by value, giving [`Done`]) and [`Elements`] (by reference), the scalar replies.
macro_rules! scalars {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) = $write:expr;)*) => {
        impl<'a> Reply<'a> {
            $($(#[$doc])* #[inline]
            pub fn $name(self, $($arg: $type),*) -> Done {
                let write: fn(&mut Output, Resp, $($type),*) = $write;
                write(self.out, self.resp, $($arg),*);
                Done(())
            })*
        }
        impl<'a> Elements<'a> {
            $($(#[$doc])* #[inline]
            pub fn $name(&mut self, $($arg: $type),*) {
                self.count();
                let write: fn(&mut Output, Resp, $($type),*) = $write;
                write(self.out, self.resp, $($arg),*);
            })*
        }
    };
}

scalars! {
    /// A simple string, which must not contain a line end.
    simple(text: &str) = |out, _, text| {
        out.raw(b"+");
        out.raw(text.as_bytes());
        out.raw(b"\r\n");
    };
    /// An integer.
    int(number: i64) = |out, _, number| match number {
        0 => out.raw(b":0\r\n"),
        1 => out.raw(b":1\r\n"),
        _ => out.line(b':', number),
    };
    /// A bulk string.
    bulk(value: &[u8]) = |out, _, value| out.bulk(value);
    /// A bulk string that is sent by reference.
    shared(payload: SharedPayload) = |out, _, payload| out.shared(payload);
    /// Null: `$-1` in RESP2.
    null() = |out, resp| out.raw(if resp == Resp::V3 { b"_\r\n" } else { b"$-1\r\n" });
    /// Null in place of an array: `*-1` in RESP2.
    null_array() = |out, resp| out.raw(if resp == Resp::V3 { b"_\r\n" } else { b"*-1\r\n" });
    /// A boolean: an integer in RESP2.
    boolean(truth: bool) = |out, resp, truth| out.raw(match (resp, truth) {
        (Resp::V3, true) => b"#t\r\n",
        (Resp::V3, false) => b"#f\r\n",
        (Resp::V2, true) => b":1\r\n",
        (Resp::V2, false) => b":0\r\n",
    });
    /// A floating-point number, given as Redis prints it: a bulk string in RESP2.
    double(text: &str) = |out, resp, text| match resp {
        Resp::V2 => out.bulk(text.as_bytes()),
        Resp::V3 => {
            out.raw(b",");
            out.raw(text.as_bytes());
            out.raw(b"\r\n");
        }
    };
    /// A floating-point number, printed as Redis prints it: a bulk string in RESP2.
    number(value: f64) = |out, resp, value| out.number(resp, value);
    /// Text for a person to read, with its three-letter format: a bulk string in RESP2.
    verbatim(format: &str, text: &[u8]) = |out, resp, format, text| match resp {
        Resp::V2 => out.bulk(text),
        Resp::V3 => {
            out.line(b'=', text.len() as i64 + 4);
            out.raw(format.as_bytes());
            out.raw(b":");
            out.raw(text);
            out.raw(b"\r\n");
        }
    };
    /// An integer of any size, in digits: a bulk string in RESP2.
    big_number(digits: &str) = |out, resp, digits| match resp {
        Resp::V2 => out.bulk(digits.as_bytes()),
        Resp::V3 => {
            out.raw(b"(");
            out.raw(digits.as_bytes());
            out.raw(b"\r\n");
        }
    };
    /// An error in place of a value.
    error(error: &dyn fmt::Display) = |out, _, error| out.error(error);
    /// The same, with a text that need not be UTF-8.
    error_bytes(text: &[u8]) = |out, _, text| out.error_bytes(text);
}

/// The aggregates of both writers. `$open(self)` returns the output and the version.
impl<'a> Reply<'a> {
    /// The right to write one reply into `out`.
    pub fn new(out: &'a mut Output, resp: Resp) -> Self {
        Reply { out, resp }
    }

    /// The version of the protocol, for the few replies whose content differs with it.
    pub fn resp(&self) -> Resp {
        self.resp
    }

    /// The same right in another version of the protocol. HELLO answers in the version that it has chosen.
    pub fn in_version(self, resp: Resp) -> Self {
        Reply { resp, ..self }
    }

    /// `+OK`.
    #[inline]
    pub fn ok(self) -> Done {
        self.out.raw(b"+OK\r\n");
        Done(())
    }

    /// Writes pushes in place of a reply.
    pub fn pushed(self, write: impl FnOnce(&mut Output)) -> Done {
        write(self.out);
        Done(())
    }

    /// Writes `len` attributes before the reply; `fill` writes their names and values alternately. RESP2 has no
    /// attributes.
    pub fn with_attributes(self, len: usize, fill: impl FnOnce(&mut Elements<'_>)) -> Self {
        if self.resp == Resp::V3 {
            self.out.line(b'|', len as i64);
            let mut elements = Elements { out: self.out, resp: self.resp, due: len * 2 };
            fill(&mut elements);
            elements.end();
        }
        self
    }

    /// Writes a push of `len` elements before the reply. A push is not a reply.
    ///
    /// # Panics
    /// In RESP2, which has no pushes.
    pub fn with_push(self, len: usize, fill: impl FnOnce(&mut Elements<'_>)) -> Self {
        assert!(self.resp == Resp::V3, "a push in RESP2");
        self.out.line(b'>', len as i64);
        let mut elements = Elements { out: self.out, resp: self.resp, due: len };
        fill(&mut elements);
        elements.end();
        self
    }

    /// Pushes in place of a reply: as many as `fill` writes. In RESP2, which has no pushes, they are arrays.
    pub fn pushes(self, fill: impl FnOnce(&mut Pushes<'_>)) -> Done {
        fill(&mut Pushes { out: self.out, resp: self.resp });
        Done(())
    }

    /// No reply now. The connection waits and writes it later, or never, as `CLIENT REPLY` asks.
    pub fn withheld(self) -> Done {
        Done(())
    }

    /// Where the reply begins.
    pub fn place(&self) -> Mark {
        self.out.mark()
    }

    /// Appends one whole reply that was written elsewhere.
    pub fn prepared(self, prepared: &mut Output) -> Done {
        self.out.append(prepared);
        Done(())
    }

    /// An array of `len` elements.
    pub fn array(self, len: usize) -> Elements<'a> {
        open(self.out, self.resp, Shape::Array, len)
    }

    /// A set of `len` elements: an array in RESP2.
    pub fn set(self, len: usize) -> Elements<'a> {
        open(self.out, self.resp, Shape::Set, len)
    }

    /// A map of `len` pairs, whose keys and values alternate: a flat array in RESP2.
    pub fn map(self, len: usize) -> Elements<'a> {
        open(self.out, self.resp, Shape::Map, len)
    }

    /// An array whose length is known only at the end. `fill` writes and counts the elements.
    pub fn array_of_unknown(self, fill: impl FnOnce(&mut UnknownElements<'_>)) -> Done {
        array_of_unknown(self.out, self.resp, fill);
        Done(())
    }
}

impl<'a> Elements<'a> {
    #[inline]
    fn count(&mut self) {
        assert!(self.due > 0, "more elements than the aggregate announced");
        self.due -= 1;
    }

    /// The version of the protocol.
    pub fn resp(&self) -> Resp {
        self.resp
    }

    /// An array of `len` elements as one element of this one. End it with [`Elements::end`].
    pub fn array(&mut self, len: usize) -> Elements<'_> {
        self.count();
        open(self.out, self.resp, Shape::Array, len)
    }

    /// A set of `len` elements as one element.
    pub fn set(&mut self, len: usize) -> Elements<'_> {
        self.count();
        open(self.out, self.resp, Shape::Set, len)
    }

    /// A map of `len` pairs as one element.
    pub fn map(&mut self, len: usize) -> Elements<'_> {
        self.count();
        open(self.out, self.resp, Shape::Map, len)
    }

    /// An array whose length is known only at the end, as one element.
    pub fn array_of_unknown(&mut self, fill: impl FnOnce(&mut UnknownElements<'_>)) {
        self.count();
        array_of_unknown(self.out, self.resp, fill);
    }

    /// Ends the outermost aggregate. All announced elements must have been written.
    pub fn done(self) -> Done {
        self.end();
        Done(())
    }

    /// Ends an aggregate inside another.
    pub fn end(self) {
        assert!(self.due == 0, "{} elements fewer than the aggregate announced", self.due);
    }
}

enum Shape {
    Array,
    Set,
    Map,
}

fn open<'a>(out: &'a mut Output, resp: Resp, shape: Shape, len: usize) -> Elements<'a> {
    let elements = if matches!(shape, Shape::Map) { len * 2 } else { len };
    match (resp, shape) {
        (Resp::V2, _) | (_, Shape::Array) => out.line(b'*', elements as i64),
        (Resp::V3, Shape::Set) => out.line(b'~', len as i64),
        (Resp::V3, Shape::Map) => out.line(b'%', len as i64),
    }
    Elements { out, resp, due: elements }
}

/// Writes pushes.
#[derive(Debug)]
pub struct Pushes<'a> {
    out: &'a mut Output,
    resp: Resp,
}

impl Pushes<'_> {
    /// Writes a push of `len` elements.
    pub fn push(&mut self, len: usize, fill: impl FnOnce(&mut Elements<'_>)) {
        self.out.line(if self.resp == Resp::V3 { b'>' } else { b'*' }, len as i64);
        let mut elements = Elements { out: self.out, resp: self.resp, due: len };
        fill(&mut elements);
        elements.end();
    }
}

/// Writes elements of an array whose length is not known yet.
#[derive(Debug)]
pub struct UnknownElements<'a> {
    out: &'a mut Output,
    resp: Resp,
    len: usize,
}

impl UnknownElements<'_> {
    /// Adds a bulk string.
    pub fn bulk(&mut self, value: &[u8]) {
        self.len += 1;
        self.out.bulk(value);
    }

    /// Adds an element of any type.
    pub fn element(&mut self) -> Reply<'_> {
        self.len += 1;
        Reply { out: self.out, resp: self.resp }
    }

    /// The number of elements so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn array_of_unknown(out: &mut Output, resp: Resp, fill: impl FnOnce(&mut UnknownElements<'_>)) {
    let mark = out.mark();
    let mut elements = UnknownElements { out, resp, len: 0 };
    fill(&mut elements);
    let len = elements.len;
    // The header goes before the bytes that are already written: they are moved once.
    let mut header = Output::new();
    header.line(b'*', len as i64);
    let header = header.bytes;
    out.bytes.splice(mark.bytes..mark.bytes, header.iter().copied());
    for (place, _) in &mut out.shared[mark.shared..] {
        *place += header.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resp: Resp, write: impl FnOnce(Reply<'_>) -> Done) -> String {
        let mut out = Output::new();
        let Done(()) = write(Reply::new(&mut out, resp));
        String::from_utf8_lossy(out.as_bytes()).into_owned()
    }

    #[test]
    fn the_versions_differ_in_nulls_maps_sets_booleans_doubles_and_verbatim_text() {
        let all = |resp| {
            written(resp, |reply| {
                let mut a = reply.array(8);
                a.null();
                a.null_array();
                a.boolean(true);
                a.double("1.5");
                a.verbatim("txt", b"hi");
                let mut map = a.map(1);
                map.simple("k");
                map.int(-7);
                map.end();
                let mut set = a.set(1);
                set.bulk(b"m");
                set.end();
                a.array_of_unknown(|e| {
                    e.bulk(b"one");
                    e.bulk(&[b'x'; 12]);
                });
                a.done()
            })
        };
        assert_eq!(
            all(Resp::V2),
            "*8\r\n$-1\r\n*-1\r\n:1\r\n$3\r\n1.5\r\n$2\r\nhi\r\n*2\r\n+k\r\n:-7\r\n*1\r\n$1\r\nm\r\n*2\r\n$3\r\none\r\n$12\r\nxxxxxxxxxxxx\r\n"
        );
        assert_eq!(
            all(Resp::V3),
            "*8\r\n_\r\n_\r\n#t\r\n,1.5\r\n=6\r\ntxt:hi\r\n%1\r\n+k\r\n:-7\r\n~1\r\n$1\r\nm\r\n*2\r\n$3\r\none\r\n$12\r\nxxxxxxxxxxxx\r\n"
        );
    }

    #[test]
    #[should_panic(expected = "fewer than the aggregate announced")]
    fn an_aggregate_that_is_cut_short_is_an_assertion() {
        written(Resp::V2, |reply| {
            let mut a = reply.array(2);
            a.int(1);
            a.done()
        });
    }

    #[test]
    fn large_values_by_reference_keep_their_place_and_a_mark_cuts_them_off() {
        let mut out = Output::new();
        let _ = Reply::new(&mut out, Resp::V2).array_of_unknown(|e| {
            e.bulk(b"a");
            let _ = e.element().shared(Box::new(vec![b'L'; 20_000]));
        });
        let mark = out.mark();
        let _ = Reply::new(&mut out, Resp::V2).shared(Box::new(vec![b'M'; 5]));
        let joined = |out: &Output, skip| {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = out.slices(skip, &mut slices);
            slices[..filled].iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>()
        };
        let expected = [b"*2\r\n$1\r\na\r\n$20000\r\n", &[b'L'; 20_000][..], b"\r\n$5\r\nMMMMM\r\n"].concat();
        assert_eq!(joined(&out, 0), expected);
        assert_eq!(joined(&out, 15_000), expected[15_000..]);
        assert_eq!(out.len(), expected.len());
        out.truncate(mark);
        assert_eq!(joined(&out, 0), expected[..expected.len() - 11]);
    }

    #[test]
    fn what_was_sent_goes_off_the_front_and_the_rest_stays_as_it_was() {
        let fill = || {
            let mut out = Output::new();
            out.raw(b"first");
            for size in [3, 0, 20] {
                out.shared(Box::new(vec![b'x'; size]));
                out.raw(b"between");
            }
            out
        };
        let text = |out: &Output, skip| {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = out.slices(skip, &mut slices);
            slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>()
        };
        let whole = text(&fill(), 0);
        for sent in 0..=whole.len() {
            let mut out = fill();
            let dropped = out.drop_front(sent);
            assert!(dropped <= sent && sent - dropped < 20, "{sent} {dropped}");
            assert_eq!(out.len(), whole.len() - dropped);
            assert_eq!(text(&out, sent - dropped), whole[sent..]);
            assert_eq!(text(&out, 0), whole[dropped..]);
        }
    }

    #[test]
    fn an_error_stays_on_its_line() {
        let mut out = Output::new();
        out.error(&"ERR bad 'a\r\nb'");
        out.error_bytes(b"ERR \xff\n\r\n");
        assert_eq!(out.as_bytes(), b"-ERR bad 'a  b'\r\n-ERR \xff\r\n");
    }
}
