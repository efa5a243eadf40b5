//! Replies of commands to values of Lua, and values of Lua to replies, as Redis documents both.
//!
//! Invariants:
//! - Nesting is bounded in both directions.
//! - Nothing here owns memory: see [`Stack`].

use std::ffi::CStr;

use super::library::{cast, text_to_number};
use super::stack::{Kind, Stack};
use crate::resp::{Output, Reply, Resp};

/// How deep a value of a reply may be nested.
const DEPTH_MAX: usize = 256;
/// More than any frame of a command's reply nests.
const REPLY_DEPTH_MAX: usize = 64;
/// The values that lie on the stack at each depth, at most.
const VALUES_PER_DEPTH: i32 = 8;

/// Pushes the reply of a command as a value. Returns whether it is an error.
pub(super) fn push_reply(stack: Stack, reply: &[u8]) -> bool {
    let is_error = reply.first() == Some(&b'-');
    Reader { stack, bytes: reply }.value(0);
    is_error
}

/// Pushes the error table that a script gets.
pub(super) fn push_error(stack: Stack, text: &[u8]) {
    push_field(stack, c"err", |stack| stack.push_bytes(text));
}

/// What Redis puts into the table of a command's error, which was counted.
const OF_COMMAND: &CStr = c"ignore_error_stats_update";

/// Pushes a table with one field.
fn push_field(stack: Stack, name: &CStr, push: impl FnOnce(Stack)) {
    stack.new_table(0, 1);
    push(stack);
    stack.set_field(name);
}

/// Reads what our own writer wrote.
struct Reader<'a> {
    stack: Stack,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let end = memchr::memchr(b'\r', self.bytes).unwrap_or(self.bytes.len());
        let line = &self.bytes[..end];
        self.bytes = self.bytes.get(end + 2..).unwrap_or_default();
        line
    }

    /// A number that was written as one; `None` below zero.
    fn count(&mut self) -> Option<usize> {
        number(self.line()).and_then(|number| usize::try_from(number).ok())
    }

    fn payload(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let payload = self.bytes.get(..length)?;
        self.bytes = self.bytes.get(length + 2..).unwrap_or_default();
        Some(payload)
    }

    /// Pushes the next value.
    fn value(&mut self, depth: usize) {
        let stack = self.stack;
        let Some((tag, rest)) = self.bytes.split_first().filter(|_| depth < REPLY_DEPTH_MAX) else {
            return stack.push_nil();
        };
        self.bytes = rest;
        match tag {
            b':' => {
                let line = self.line();
                stack.push_number(number(line).unwrap_or_default() as f64);
            }
            b'$' => match self.payload() {
                Some(payload) => stack.push_bytes(payload),
                None => stack.push_boolean(false),
            },
            b'+' => {
                let line = self.line();
                push_field(stack, c"ok", |stack| stack.push_bytes(line));
            }
            b'-' => {
                let line = self.line();
                push_error(stack, line);
                stack.push_boolean(true);
                stack.set_field(OF_COMMAND);
            }
            b'*' | b'>' => match self.count() {
                None => stack.push_boolean(false),
                Some(count) => {
                    stack.reserve(VALUES_PER_DEPTH);
                    stack.new_table(count.min(self.bytes.len()), 0);
                    for index in (1..).take(count) {
                        self.value(depth + 1);
                        stack.set_element(index);
                    }
                }
            },
            b'%' | b'~' => self.pairs(*tag == b'%', depth),
            b'|' => {
                for _ in 0..2 * self.count().unwrap_or(0) {
                    self.value(depth + 1);
                    stack.pop(1);
                }
                self.value(depth);
            }
            b',' => {
                let number = text_to_number(self.line()).unwrap_or(f64::NAN);
                push_field(stack, c"double", |stack| stack.push_number(number));
            }
            b'#' => {
                let line = self.line();
                stack.push_boolean(line == b"t");
            }
            b'(' => {
                let line = self.line();
                push_field(stack, c"big_number", |stack| stack.push_bytes(line));
            }
            b'=' => self.verbatim(),
            // `_`, and nothing else is ever written.
            _ => {
                self.line();
                stack.push_nil();
            }
        }
    }

    /// A map, or a set: a map of its members to true.
    fn pairs(&mut self, is_map: bool, depth: usize) {
        let stack = self.stack;
        stack.reserve(VALUES_PER_DEPTH);
        stack.new_table(0, 1);
        stack.new_table(0, 0);
        for _ in 0..self.count().unwrap_or(0) {
            self.value(depth + 1);
            match is_map {
                true => self.value(depth + 1),
                false => stack.push_boolean(true),
            }
            if !stack.set_pair() {
                stack.pop(2);
            }
        }
        stack.set_field(if is_map { c"map" } else { c"set" });
    }

    fn verbatim(&mut self) {
        let stack = self.stack;
        let payload = self.payload().unwrap_or_default();
        let (format, text) = payload.split_at_checked(4).unwrap_or_default();
        stack.new_table(0, 1);
        stack.new_table(0, 2);
        stack.push_bytes(format.strip_suffix(b":").unwrap_or(format));
        stack.set_field(c"format");
        stack.push_bytes(text);
        stack.set_field(c"string");
        stack.set_field(c"verbatim_string");
    }
}

/// The number of a line that our own writer wrote.
fn number(line: &[u8]) -> Option<i64> {
    match line {
        [digit @ b'0'..=b'9'] => Some(i64::from(digit - b'0')),
        _ => std::str::from_utf8(line).ok()?.parse().ok(),
    }
}

/// Writes the uppermost value as a reply in the client's version of the protocol. `script` is the version that the
/// script has chosen with `redis.setresp`: it decides what a boolean is. `note` is told of each error in it, and
/// whether a command had failed by that.
pub(super) fn value_to_reply(stack: Stack, out: &mut Output, (client, script): (Resp, Resp), note: NoteError) {
    Writer { stack, out, client, script, note }.value(-1, 0);
}

/// See [`value_to_reply`].
pub(super) type NoteError = fn(&[u8], bool);

struct Writer<'a> {
    stack: Stack,
    out: &'a mut Output,
    client: Resp,
    script: Resp,
    note: NoteError,
}

impl Writer<'_> {
    fn reply(&mut self) -> Reply<'_> {
        Reply::new(self.out, self.client)
    }

    /// A line of text, in which there are no line ends.
    fn line(&mut self, tag: u8, text: &[u8]) {
        self.out.raw(&[tag]);
        for part in text.split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
            match part.split_last() {
                Some((b'\r' | b'\n', words)) => {
                    self.out.raw(words);
                    self.out.raw(b" ");
                }
                _ => self.out.raw(part),
            }
        }
        self.out.raw(b"\r\n");
    }

    fn header(&mut self, tag: u8, count: usize) {
        self.out.raw(&[tag]);
        self.out.raw(itoa::Buffer::new().format(count).as_bytes());
        self.out.raw(b"\r\n");
    }

    fn value(&mut self, at: i32, depth: usize) {
        if depth > DEPTH_MAX {
            return self.out.error_bytes(b"ERR reached lua stack limit");
        }
        let stack = self.stack;
        let _done = match stack.kind(at) {
            Kind::String => self.reply().bulk(stack.bytes(at)),
            Kind::Boolean if self.script == Resp::V3 => self.reply().boolean(stack.boolean(at)),
            Kind::Boolean if stack.boolean(at) => self.reply().int(1),
            Kind::Number => self.reply().int(cast(stack.number(at))),
            Kind::Integer => self.reply().int(stack.integer(at)),
            Kind::Table => {
                stack.reserve(VALUES_PER_DEPTH);
                return self.table(stack.absolute(at), depth);
            }
            _ => self.reply().null(),
        };
    }

    /// Writes the value of a field, if it is of this kind.
    fn field(&mut self, table: i32, name: &CStr, kind: Kind, write: impl FnOnce(&mut Self)) -> bool {
        let is_so = self.stack.field(table, name) == kind;
        if is_so {
            write(self);
        }
        self.stack.pop(1);
        is_so
    }

    fn table(&mut self, table: i32, depth: usize) {
        let stack = self.stack;
        let is_special = self.field(table, c"err", Kind::String, |it| it.error(table, stack.bytes(-1)))
            || self.field(table, c"ok", Kind::String, |it| it.line(b'+', stack.bytes(-1)))
            || self.double(table)
            || self.field(table, c"map", Kind::Table, |it| it.pairs(true, depth))
            || self.field(table, c"set", Kind::Table, |it| it.pairs(false, depth))
            || self.field(table, c"big_number", Kind::String, |it| match it.client {
                Resp::V3 => it.line(b'(', stack.bytes(-1)),
                Resp::V2 => {
                    let is_end = |byte: &u8| matches!(*byte, b'\r' | b'\n');
                    let line = stack.bytes(-1).iter().map(|byte| if is_end(byte) { b' ' } else { *byte });
                    drop(it.reply().bulk(&line.collect::<Vec<u8>>()));
                }
            })
            || self.verbatim(table);
        if is_special {
            return;
        }
        let mut count = 0;
        while stack.element(table, count + 1) != Kind::Nil {
            stack.pop(1);
            count += 1;
        }
        stack.pop(1);
        self.header(b'*', count as usize);
        for index in 1..=count {
            stack.element(table, index);
            self.value(-1, depth + 1);
            stack.pop(1);
        }
    }

    /// The text of an error, whose table this is.
    fn error(&mut self, table: i32, text: &[u8]) {
        let stack = self.stack;
        let is_of_command = stack.field(table, OF_COMMAND) == Kind::Boolean && stack.boolean(-1);
        stack.pop(1);
        self.out.error_bytes(text);
        (self.note)(text, is_of_command);
    }

    fn double(&mut self, table: i32) -> bool {
        let stack = self.stack;
        let number = match stack.field(table, c"double") {
            Kind::Number => Some(stack.number(-1)),
            Kind::Integer => Some(stack.integer(-1) as f64),
            Kind::String => text_to_number(stack.bytes(-1)),
            _ => None,
        };
        stack.pop(1);
        if let Some(number) = number {
            let _done = self.reply().number(number);
        }
        number.is_some()
    }

    /// The uppermost table as a map, or its keys as a set.
    fn pairs(&mut self, is_map: bool, depth: usize) {
        let stack = self.stack;
        let table = stack.absolute(-1);
        let mut count = 0;
        stack.push_nil();
        while stack.next(table) {
            stack.pop(1);
            count += 1;
        }
        match (self.client, is_map) {
            (Resp::V3, true) => self.header(b'%', count),
            (Resp::V2, true) => self.header(b'*', 2 * count),
            (Resp::V3, false) => self.header(b'~', count),
            (Resp::V2, false) => self.header(b'*', count),
        }
        stack.push_nil();
        while stack.next(table) {
            self.value(-2, depth + 1);
            if is_map {
                self.value(-1, depth + 1);
            }
            stack.pop(1);
        }
    }

    fn verbatim(&mut self, table: i32) -> bool {
        let stack = self.stack;
        let mut is_one = false;
        if stack.field(table, c"verbatim_string") == Kind::Table {
            let has_format = stack.field(-1, c"format") == Kind::String;
            if has_format && stack.field(-2, c"string") == Kind::String {
                is_one = true;
                let mut format = [b' '; 3];
                let given = stack.bytes(-2);
                let len = given.len().min(format.len());
                format[..len].copy_from_slice(&given[..len]);
                let _done = self.reply().verbatim(std::str::from_utf8(&format).unwrap_or("txt"), stack.bytes(-1));
            }
            if has_format {
                stack.pop(1);
            }
            stack.pop(1);
        }
        stack.pop(1);
        is_one
    }
}
