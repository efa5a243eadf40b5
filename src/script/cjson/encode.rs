//! Values of Lua to JSON.

use mlua::prelude::*;

use super::{InvalidNumbers, Options, Shared};
use crate::script::library::{Fault, Given, Returned, fault, string, type_name, write_g};

pub(super) fn encode(lua: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("encode", &arguments);
    if given.len() != 1 {
        return given.bad(1, "expected 1 argument");
    }
    let mut writer = Writer { out: Vec::new(), options: shared.get() };
    writer.value(given.at(1), 0)?;
    string(lua, writer.out)
}

struct Writer {
    out: Vec<u8>,
    options: Options,
}

impl Writer {
    fn value(&mut self, value: &LuaValue, depth: usize) -> Result<(), Fault> {
        match value {
            LuaValue::String(text) => self.text(&text.as_bytes()),
            LuaValue::Integer(number) => self.number(*number as f64)?,
            LuaValue::Number(number) => self.number(*number)?,
            LuaValue::Boolean(value) => self.out.extend_from_slice(if *value { b"true" } else { b"false" }),
            LuaValue::Nil => self.out.extend_from_slice(b"null"),
            LuaValue::LightUserData(pointer) if pointer.0.is_null() => self.out.extend_from_slice(b"null"),
            LuaValue::Table(table) => {
                let depth = depth + 1;
                if depth > self.options.encode_depth_max {
                    return fault(format!("Cannot serialise, excessive nesting ({depth})"));
                }
                match self.array_length(table)? {
                    Some(length) => self.array(table, length, depth)?,
                    None => self.object(table, depth)?,
                }
            }
            other => return fault(format!("Cannot serialise {}: type not supported", type_name(other))),
        }
        Ok(())
    }

    /// The length of a table that is an array; `None` for an object.
    fn array_length(&self, table: &LuaTable) -> Result<Option<i64>, Fault> {
        let (mut highest, mut count) = (0.0_f64, 0_i64);
        for pair in table.pairs::<LuaValue, LuaValue>() {
            let key = match pair?.0 {
                LuaValue::Integer(key) => key as f64,
                LuaValue::Number(key) => key,
                _ => return Ok(None),
            };
            if key.fract() != 0.0 || key < 1.0 {
                return Ok(None);
            }
            highest = highest.max(key);
            count += 1;
        }
        let highest = highest as i64;
        let Options { sparse_convert, sparse_ratio, sparse_safe, .. } = self.options;
        if sparse_ratio > 0 && highest > count.saturating_mul(sparse_ratio) && highest > sparse_safe {
            if !sparse_convert {
                return fault("Cannot serialise table: excessively sparse array");
            }
            return Ok(None);
        }
        Ok((highest > 0).then_some(highest))
    }

    fn array(&mut self, table: &LuaTable, length: i64, depth: usize) -> Result<(), Fault> {
        self.out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(b',');
            }
            self.value(&table.raw_get(index)?, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &LuaTable, depth: usize) -> Result<(), Fault> {
        self.out.push(b'{');
        let mut is_first = true;
        for pair in table.pairs::<LuaValue, LuaValue>() {
            let (key, value) = pair?;
            if !std::mem::replace(&mut is_first, false) {
                self.out.push(b',');
            }
            match key {
                LuaValue::String(key) => self.text(&key.as_bytes()),
                LuaValue::Integer(_) | LuaValue::Number(_) => {
                    self.out.push(b'"');
                    self.value(&key, depth)?;
                    self.out.push(b'"');
                }
                _ => return fault("Cannot serialise table: table key must be a number or string"),
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn number(&mut self, number: f64) -> Result<(), Fault> {
        if !number.is_finite() {
            match self.options.encode_invalid {
                InvalidNumbers::Refuse => return fault("Cannot serialise number: must not be NaN or Inf"),
                InvalidNumbers::Null => self.out.extend_from_slice(b"null"),
                InvalidNumbers::Allow if number.is_nan() => self.out.extend_from_slice(b"nan"),
                InvalidNumbers::Allow => write_g(&mut self.out, number, self.options.precision),
            }
            return Ok(());
        }
        write_g(&mut self.out, number, self.options.precision);
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for &byte in text {
            match byte {
                b'"' | b'\\' | b'/' => self.out.extend_from_slice(&[b'\\', byte]),
                8 => self.out.extend_from_slice(b"\\b"),
                12 => self.out.extend_from_slice(b"\\f"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                0..32 | 127 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }
}
