//! `cmsgpack`: values of Lua as MessagePack, in the bytes that Redis' library writes.
//!
//! Invariants: no length is believed before its bytes are there; nesting is bounded in both directions.

use mlua::prelude::*;

use super::library::{Fault, Given, Library, Returned, fault, guarded};

/// Tables nested deeper are packed as nil.
const PACK_DEPTH_MAX: usize = 16;
/// Data nested deeper is refused.
const UNPACK_DEPTH_MAX: usize = 1000;
/// How many values one call returns at most.
const VALUES_MAX: usize = 7000;

fn pack(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("pack", &arguments);
    if given.len() == 0 {
        return given.bad(0, "MessagePack pack needs input.");
    }
    let mut out = Vec::new();
    for value in &arguments {
        encode(&mut out, value, 0)?;
    }
    super::library::string(lua, out)
}

fn encode(out: &mut Vec<u8>, value: &LuaValue, depth: usize) -> Result<(), Fault> {
    match value {
        LuaValue::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        LuaValue::Integer(number) => encode_integer(out, *number),
        LuaValue::Number(number) if *number as i64 as f64 == *number && number.abs() < 9.3e18 => {
            encode_integer(out, *number as i64);
        }
        LuaValue::Number(number) => match *number as f32 {
            single if f64::from(single) == *number => {
                out.push(0xca);
                out.extend_from_slice(&single.to_be_bytes());
            }
            _ => {
                out.push(0xcb);
                out.extend_from_slice(&number.to_be_bytes());
            }
        },
        LuaValue::String(text) => {
            let text = text.as_bytes();
            match text.len() {
                length @ 0..32 => out.push(0xa0 | length as u8),
                length @ 32..=0xff => out.extend_from_slice(&[0xd9, length as u8]),
                length => sized(out, length, 0xda, 0xdb),
            }
            out.extend_from_slice(&text);
        }
        LuaValue::Table(table) if depth < PACK_DEPTH_MAX => encode_table(out, table, depth)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

/// A length of 16 or of 32 bits, behind its code.
fn sized(out: &mut Vec<u8>, length: usize, code_16: u8, code_32: u8) {
    match u16::try_from(length) {
        Ok(length) => {
            out.push(code_16);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(code_32);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn encode_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
        -32..0 => out.push(number as u8),
        -0x80..-32 => out.extend_from_slice(&[0xd0, number as u8]),
        -0x8000..-0x80 => {
            out.push(0xd1);
            out.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn encode_table(out: &mut Vec<u8>, table: &LuaTable, depth: usize) -> Result<(), Fault> {
    // An array has the keys from 1 to their number, and nothing else.
    let (mut count, mut highest, mut is_array) = (0_usize, 0_i64, true);
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let key = match pair?.0 {
            LuaValue::Integer(key) => Some(key),
            LuaValue::Number(key) if key.fract() == 0.0 => Some(key as i64),
            _ => None,
        };
        match key.filter(|key| *key > 0) {
            Some(key) => highest = highest.max(key),
            None => is_array = false,
        }
        count += 1;
    }
    if is_array && usize::try_from(highest) == Ok(count) {
        match count {
            0..=15 => out.push(0x90 | count as u8),
            _ => sized(out, count, 0xdc, 0xdd),
        }
        for index in 1..=highest {
            encode(out, &table.raw_get(index)?, depth + 1)?;
        }
        return Ok(());
    }
    match count {
        0..=15 => out.push(0x80 | count as u8),
        _ => sized(out, count, 0xde, 0xdf),
    }
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let (key, value) = pair?;
        encode(out, &key, depth + 1)?;
        encode(out, &value, depth + 1)?;
    }
    Ok(())
}

struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else { return fault("Missing bytes in input.") };
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned number of so many bytes, highest first.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: usize) -> Result<f64, Fault> {
        let shift = 64 - 8 * bytes as u32;
        Ok(((self.unsigned(bytes)? << shift) as i64 >> shift) as f64)
    }

    fn text(&mut self, lua: &Lua, bytes: u64) -> Result<LuaValue, Fault> {
        Ok(LuaValue::String(lua.create_string(self.take(usize::try_from(bytes).unwrap_or(usize::MAX))?)?))
    }

    fn array(&mut self, lua: &Lua, count: u64, depth: usize) -> Result<LuaValue, Fault> {
        // Each element takes a byte at least.
        let table = lua.create_table_with_capacity((count as usize).min(self.0.len()), 0)?;
        for index in 1..=count {
            let value = self.value(lua, depth + 1)?;
            table.raw_set(index, value)?;
        }
        Ok(LuaValue::Table(table))
    }

    fn map(&mut self, lua: &Lua, count: u64, depth: usize) -> Result<LuaValue, Fault> {
        let table = lua.create_table_with_capacity(0, (count as usize).min(self.0.len() / 2))?;
        for _ in 0..count {
            let key = self.value(lua, depth + 1)?;
            let value = self.value(lua, depth + 1)?;
            match key {
                LuaValue::Nil => return fault("table index is nil"),
                LuaValue::Number(key) if key.is_nan() => return fault("table index is NaN"),
                key => table.raw_set(key, value)?,
            }
        }
        Ok(LuaValue::Table(table))
    }

    fn value(&mut self, lua: &Lua, depth: usize) -> Result<LuaValue, Fault> {
        if depth > UNPACK_DEPTH_MAX {
            return fault("Bad data format in input.");
        }
        let number = |value: f64| Ok(LuaValue::Number(value));
        let code = self.take(1)?[0];
        match code {
            0x00..=0x7f => number(f64::from(code)),
            0xe0..=0xff => number(f64::from(code as i8)),
            0x80..=0x8f => self.map(lua, u64::from(code & 0xf), depth),
            0x90..=0x9f => self.array(lua, u64::from(code & 0xf), depth),
            0xa0..=0xbf => self.text(lua, u64::from(code & 0x1f)),
            0xc0 => Ok(LuaValue::Nil),
            0xc2 | 0xc3 => Ok(LuaValue::Boolean(code == 0xc3)),
            0xc4..=0xc6 => {
                let length = self.unsigned(1 << (code - 0xc4))?;
                self.text(lua, length)
            }
            0xca => number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => number(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => number(self.unsigned(1 << (code - 0xcc))? as f64),
            0xd0..=0xd3 => number(self.signed(1 << (code - 0xd0))?),
            0xd9..=0xdb => {
                let length = self.unsigned(1 << (code - 0xd9))?;
                self.text(lua, length)
            }
            0xdc | 0xdd => {
                let count = self.unsigned(2 << (code - 0xdc))?;
                self.array(lua, count, depth)
            }
            0xde | 0xdf => {
                let count = self.unsigned(2 << (code - 0xde))?;
                self.map(lua, count, depth)
            }
            _ => fault("Bad data format in input."),
        }
    }
}

/// Unpacks at most `limit` values from `offset` on; all of them if both are 0. Otherwise the first value returned is
/// where the rest begins, -1 for its end.
fn unpack_from(lua: &Lua, data: &[u8], limit: i64, offset: i64) -> Returned {
    if limit < 0 || offset < 0 {
        return fault(format!("Invalid request to unpack with offset of {offset} and limit of {}.", data.len()));
    }
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| data.get(offset..)) else {
        return fault(format!("Start offset {offset} greater than input length {}.", data.len()));
    };
    let takes_all = limit == 0 && offset == 0;
    let most = if takes_all { i64::MAX } else { limit };
    let (mut data_left, mut values) = (Data(rest), LuaMultiValue::new());
    while (values.len() as i64) < most && !data_left.0.is_empty() {
        if values.len() >= VALUES_MAX {
            return fault("too many return values at once; use unpack_one or unpack_limit instead.");
        }
        values.push_back(data_left.value(lua, 0)?);
    }
    if !takes_all {
        let next = if data_left.0.is_empty() { -1.0 } else { (data.len() - data_left.0.len()) as f64 };
        values.push_front(LuaValue::Number(next));
    }
    Ok(values)
}

fn optional(given: &Given<'_>, position: usize) -> Result<i64, Fault> {
    if matches!(given.at(position), LuaValue::Nil) { Ok(0) } else { given.integer(position) }
}

fn unpack(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    unpack_from(lua, &Given::new("unpack", &arguments).bytes(1)?, 0, 0)
}

fn unpack_one(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("unpack_one", &arguments);
    unpack_from(lua, &given.bytes(1)?, 1, optional(&given, 2)?)
}

fn unpack_limit(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("unpack_limit", &arguments);
    let limit = given.integer(2)?;
    unpack_from(lua, &given.bytes(1)?, limit, optional(&given, 3)?)
}

const FUNCTIONS: &[(&str, Library)] =
    &[("pack", pack), ("unpack", unpack), ("unpack_one", unpack_one), ("unpack_limit", unpack_limit)];

/// The functions, with their names.
pub(super) fn functions(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    for (name, function) in FUNCTIONS {
        table.raw_set(*name, guarded(lua, *function)?)?;
    }
    Ok(table)
}
