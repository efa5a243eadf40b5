//! `bit`: operations on 32 bits, as the BitOp library defines them.

use mlua::prelude::*;

use super::library::{Fault, Given, Library, Returned, guarded, number, string};

/// A number as 32 bits: rounded to the nearest integer, and cut.
fn bits(given: &Given<'_>, position: usize) -> Result<i32, Fault> {
    let rounded = given.number(position)?.round_ties_even();
    if !rounded.is_finite() {
        return Ok(0);
    }
    Ok(rounded.rem_euclid(4_294_967_296.0) as u32 as i32)
}

fn result(value: i32) -> Returned {
    number(f64::from(value))
}

fn fold(name: &str, arguments: &LuaMultiValue, operation: fn(i32, i32) -> i32) -> Returned {
    let given = Given::new(name, arguments);
    let mut value = bits(&given, 1)?;
    for position in 2..=given.len() {
        value = operation(value, bits(&given, position)?);
    }
    result(value)
}

fn one(name: &str, arguments: &LuaMultiValue, operation: fn(i32) -> i32) -> Returned {
    result(operation(bits(&Given::new(name, arguments), 1)?))
}

fn shift(name: &str, arguments: &LuaMultiValue, operation: fn(i32, u32) -> i32) -> Returned {
    let given = Given::new(name, arguments);
    let (value, count) = (bits(&given, 1)?, bits(&given, 2)?);
    result(operation(value, count as u32 & 31))
}

fn tohex(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("tohex", &arguments);
    let value = bits(&given, 1)? as u32;
    let digits = if given.len() >= 2 { bits(&given, 2)? } else { 8 };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    string(lua, &text[8 - count..])
}

const FUNCTIONS: &[(&str, Library)] = &[
    ("tobit", |_, a| one("tobit", &a, |x| x)),
    ("bnot", |_, a| one("bnot", &a, |x| !x)),
    ("bswap", |_, a| one("bswap", &a, i32::swap_bytes)),
    ("band", |_, a| fold("band", &a, |x, y| x & y)),
    ("bor", |_, a| fold("bor", &a, |x, y| x | y)),
    ("bxor", |_, a| fold("bxor", &a, |x, y| x ^ y)),
    ("lshift", |_, a| shift("lshift", &a, |x, n| x << n)),
    ("rshift", |_, a| shift("rshift", &a, |x, n| (x as u32 >> n) as i32)),
    ("arshift", |_, a| shift("arshift", &a, |x, n| x >> n)),
    ("rol", |_, a| shift("rol", &a, i32::rotate_left)),
    ("ror", |_, a| shift("ror", &a, i32::rotate_right)),
    ("tohex", tohex),
];

/// The functions, with their names.
pub(super) fn functions(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    for (name, function) in FUNCTIONS {
        table.raw_set(*name, guarded(lua, *function)?)?;
    }
    Ok(table)
}
