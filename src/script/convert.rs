//! Replies of commands to values of Lua, and values of Lua to replies, as Redis documents both.
//!
//! Invariant: nesting is bounded in both directions.

use std::io::IoSlice;

use mlua::prelude::*;

use super::library::{cast, number_of};
use crate::resp::{Output, Reply, Resp};

/// How deep a value of a reply may be nested.
const DEPTH_MAX: usize = 256;
/// More than any frame of a command's reply nests.
const REPLY_DEPTH_MAX: usize = 64;

/// The reply of a command as a value. Returns whether it is an error.
pub(super) fn reply_to_value(lua: &Lua, reply: &Output) -> LuaResult<(LuaValue, bool)> {
    let gathered;
    let bytes = match reply.one_slice(0) {
        Some(bytes) => bytes,
        None => {
            gathered = gather(reply);
            &gathered
        }
    };
    let is_error = bytes.first() == Some(&b'-');
    let value = Reader { lua, bytes }.value(0)?;
    Ok((value, is_error))
}

/// An output with values by reference, in one piece.
fn gather(reply: &Output) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(reply.len());
    while bytes.len() < reply.len() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = reply.slices(bytes.len(), &mut slices);
        slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
    }
    bytes
}

/// The error table that a script gets.
pub(super) fn error_table(lua: &Lua, text: &[u8]) -> LuaResult<LuaValue> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(LuaValue::Table(table))
}

/// Reads what our own writer wrote.
struct Reader<'a> {
    lua: &'a Lua,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let end = memchr::memchr(b'\r', self.bytes).unwrap_or(self.bytes.len());
        let line = &self.bytes[..end];
        self.bytes = self.bytes.get(end + 2..).unwrap_or_default();
        line
    }

    fn count(&mut self) -> Option<usize> {
        let line = self.line();
        std::str::from_utf8(line).ok()?.parse().ok()
    }

    fn payload(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let payload = self.bytes.get(..length)?;
        self.bytes = self.bytes.get(length + 2..).unwrap_or_default();
        Some(payload)
    }

    fn text(&self, bytes: &[u8]) -> LuaResult<LuaValue> {
        Ok(LuaValue::String(self.lua.create_string(bytes)?))
    }

    fn field(&self, name: &str, value: LuaValue) -> LuaResult<LuaValue> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(LuaValue::Table(table))
    }

    fn value(&mut self, depth: usize) -> LuaResult<LuaValue> {
        let Some((&tag, rest)) = self.bytes.split_first() else { return Ok(LuaValue::Nil) };
        if depth > REPLY_DEPTH_MAX {
            return Ok(LuaValue::Nil);
        }
        self.bytes = rest;
        match tag {
            b':' => {
                let number: i64 = std::str::from_utf8(self.line()).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
                Ok(LuaValue::Number(number as f64))
            }
            b'$' => match self.payload() {
                Some(payload) => self.text(payload),
                None => Ok(LuaValue::Boolean(false)),
            },
            b'+' => {
                let line = self.line();
                self.field("ok", self.text(line)?)
            }
            b'-' => {
                let line = self.line();
                error_table(self.lua, line)
            }
            b'*' | b'>' => match self.count() {
                None => Ok(LuaValue::Boolean(false)),
                Some(count) => {
                    let table = self.lua.create_table_with_capacity(count.min(self.bytes.len()), 0)?;
                    for index in 1..=count {
                        table.raw_set(index, self.value(depth + 1)?)?;
                    }
                    Ok(LuaValue::Table(table))
                }
            },
            b'%' => {
                let table = self.lua.create_table()?;
                for _ in 0..self.count().unwrap_or(0) {
                    let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
                    table.raw_set(key, value)?;
                }
                self.field("map", LuaValue::Table(table))
            }
            b'~' => {
                let table = self.lua.create_table()?;
                for _ in 0..self.count().unwrap_or(0) {
                    table.raw_set(self.value(depth + 1)?, true)?;
                }
                self.field("set", LuaValue::Table(table))
            }
            b'|' => {
                for _ in 0..2 * self.count().unwrap_or(0) {
                    self.value(depth + 1)?;
                }
                self.value(depth)
            }
            b',' => {
                let number = super::library::text_to_number(self.line()).unwrap_or(f64::NAN);
                self.field("double", LuaValue::Number(number))
            }
            b'#' => Ok(LuaValue::Boolean(self.line() == b"t")),
            b'(' => {
                let line = self.line();
                self.field("big_number", self.text(line)?)
            }
            b'=' => {
                let payload = self.payload().unwrap_or_default();
                let (format, text) = payload.split_at_checked(4).unwrap_or_default();
                let table = self.lua.create_table()?;
                table.raw_set("format", self.text(format.strip_suffix(b":").unwrap_or(format))?)?;
                table.raw_set("string", self.text(text)?)?;
                self.field("verbatim_string", LuaValue::Table(table))
            }
            // `_`, and nothing else is ever written.
            _ => {
                self.line();
                Ok(LuaValue::Nil)
            }
        }
    }
}

/// Writes a value as a reply in the client's version of the protocol. `script` is the version that the script has
/// chosen with `redis.setresp`: it decides what a boolean is.
pub(super) fn value_to_reply(value: &LuaValue, out: &mut Output, client: Resp, script: Resp) -> LuaResult<()> {
    Writer { out, client, script }.value(value, 0)
}

struct Writer<'a> {
    out: &'a mut Output,
    client: Resp,
    script: Resp,
}

impl Writer<'_> {
    fn reply(&mut self) -> Reply<'_> {
        Reply::new(self.out, self.client)
    }

    fn line(&mut self, tag: u8, text: &[u8]) {
        let line: Vec<u8> = text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect();
        self.out.raw(&[&[tag][..], &line, b"\r\n"].concat());
    }

    fn header(&mut self, tag: u8, count: usize) {
        self.out.raw(format!("{}{count}\r\n", char::from(tag)).as_bytes());
    }

    fn value(&mut self, value: &LuaValue, depth: usize) -> LuaResult<()> {
        if depth > DEPTH_MAX {
            self.out.error_bytes(b"ERR reached lua stack limit");
            return Ok(());
        }
        let _done = match value {
            LuaValue::String(text) => self.reply().bulk(&text.as_bytes()),
            LuaValue::Boolean(truth) if self.script == Resp::V3 => self.reply().boolean(*truth),
            LuaValue::Boolean(true) => self.reply().int(1),
            LuaValue::Integer(number) => self.reply().int(*number),
            LuaValue::Number(number) => self.reply().int(cast(*number)),
            LuaValue::Table(table) => return self.table(table, depth),
            _ => self.reply().null(),
        };
        Ok(())
    }

    fn table(&mut self, table: &LuaTable, depth: usize) -> LuaResult<()> {
        if let LuaValue::String(text) = table.raw_get("err")? {
            self.out.error_bytes(&text.as_bytes());
            return Ok(());
        }
        if let LuaValue::String(text) = table.raw_get("ok")? {
            self.line(b'+', &text.as_bytes());
            return Ok(());
        }
        if let Some(number) = number_of(&table.raw_get("double")?) {
            let _done = self.reply().number(number);
            return Ok(());
        }
        if let LuaValue::Table(map) = table.raw_get("map")? {
            let pairs: Vec<(LuaValue, LuaValue)> = map.pairs().collect::<LuaResult<_>>()?;
            match self.client {
                Resp::V3 => self.header(b'%', pairs.len()),
                Resp::V2 => self.header(b'*', 2 * pairs.len()),
            }
            for (key, value) in &pairs {
                self.value(key, depth + 1)?;
                self.value(value, depth + 1)?;
            }
            return Ok(());
        }
        if let LuaValue::Table(set) = table.raw_get("set")? {
            let members: Vec<(LuaValue, LuaValue)> = set.pairs().collect::<LuaResult<_>>()?;
            self.header(if self.client == Resp::V3 { b'~' } else { b'*' }, members.len());
            return members.iter().try_for_each(|(member, _)| self.value(member, depth + 1));
        }
        if let LuaValue::String(number) = table.raw_get("big_number")? {
            match self.client {
                Resp::V3 => self.line(b'(', &number.as_bytes()),
                Resp::V2 => drop(self.reply().bulk(&number.as_bytes())),
            }
            return Ok(());
        }
        if let LuaValue::Table(verbatim) = table.raw_get("verbatim_string")?
            && let (LuaValue::String(format), LuaValue::String(text)) =
                (verbatim.raw_get("format")?, verbatim.raw_get("string")?)
        {
            let format: String = String::from_utf8_lossy(&format.as_bytes()).chars().take(3).collect();
            let _done = self.reply().verbatim(&format!("{format:<3}"), &text.as_bytes());
            return Ok(());
        }
        let mut elements = Vec::new();
        loop {
            match table.raw_get(elements.len() + 1)? {
                LuaValue::Nil => break,
                element => elements.push(element),
            }
        }
        self.header(b'*', elements.len());
        elements.iter().try_for_each(|element: &LuaValue| self.value(element, depth + 1))
    }
}
