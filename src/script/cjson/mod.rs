//! `cjson`: values of Lua as JSON and back, with the options and texts of the library that Redis has.
//!
//! Options hold until the script ends: the next one begins with the defaults, on whatever thread it runs. A table that
//! `cjson.new` returns has its own.

mod decode;
mod encode;

use std::cell::Cell;
use std::rc::Rc;

use mlua::prelude::*;

use super::library::{Fault, Given, Returned, guarded, one};

/// What to do with numbers that JSON does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidNumbers {
    /// An error.
    Refuse,
    /// As C prints and reads them.
    Allow,
    /// Written as null.
    Null,
}

/// The options of one `cjson` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Write sparse arrays as objects instead of refusing them.
    pub(super) sparse_convert: bool,
    /// An array is sparse if it has more than so many places for each element; 0 for never,
    pub(super) sparse_ratio: i64,
    /// and more places than this.
    pub(super) sparse_safe: i64,
    pub(super) encode_depth_max: usize,
    pub(super) decode_depth_max: usize,
    pub(super) encode_invalid: InvalidNumbers,
    pub(super) decode_invalid: bool,
    /// Significant digits.
    pub(super) precision: usize,
    /// Only kept and reported: there is no buffer to keep.
    keep_buffer: bool,
}

const DEFAULT: Options = Options {
    sparse_convert: false,
    sparse_ratio: 2,
    sparse_safe: 10,
    encode_depth_max: 1000,
    decode_depth_max: 1000,
    encode_invalid: InvalidNumbers::Refuse,
    decode_invalid: true,
    precision: 14,
    keep_buffer: true,
};

/// The most that a depth may be set to: the stack of a thread must hold it.
const DEPTH_MAX: i64 = 3000;

type Shared = Rc<Cell<Options>>;

thread_local! {
    static OPTIONS: Shared = Rc::new(Cell::new(DEFAULT));
}

/// Brings the options of the global `cjson` back to the defaults.
pub(super) fn reset() {
    OPTIONS.with(|options| options.set(DEFAULT));
}

/// The options of the global `cjson`.
pub(super) fn options() -> Options {
    OPTIONS.with(|options| options.get())
}

/// Sets them.
pub(super) fn set_options(to: Options) {
    OPTIONS.with(|options| options.set(to));
}

/// The functions of a `cjson` with these options.
fn functions_with(lua: &Lua, options: &Shared) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    let add = |name: &str, function: fn(&Lua, &Shared, LuaMultiValue) -> Returned| {
        let options = Rc::clone(options);
        table.raw_set(name, guarded(lua, move |lua, arguments| function(lua, &options, arguments))?)
    };
    add("encode", encode::encode)?;
    add("decode", decode::decode)?;
    add("encode_sparse_array", encode_sparse_array)?;
    add("encode_max_depth", encode_max_depth)?;
    add("decode_max_depth", decode_max_depth)?;
    add("encode_number_precision", encode_number_precision)?;
    add("encode_keep_buffer", encode_keep_buffer)?;
    add("encode_invalid_numbers", encode_invalid_numbers)?;
    add("decode_invalid_numbers", decode_invalid_numbers)?;
    add("new", |lua, _, _| one(LuaValue::Table(functions_with(lua, &Rc::new(Cell::new(DEFAULT)))?)))?;
    Ok(table)
}

/// The options of the global `cjson` of one machine.
#[derive(Debug)]
pub(super) struct OwnOptions(Shared);

impl OwnOptions {
    /// The defaults.
    pub(super) fn new() -> OwnOptions {
        OwnOptions(Rc::new(Cell::new(DEFAULT)))
    }

    /// The functions, with their names, and with these options.
    pub(super) fn functions(&self, lua: &Lua) -> LuaResult<LuaTable> {
        functions_with(lua, &self.0)
    }

    /// Whether they are the defaults.
    pub(super) fn are_default(&self) -> bool {
        self.0.get() == DEFAULT
    }

    /// Brings them back to the defaults.
    pub(super) fn reset(&self) {
        self.0.set(DEFAULT);
    }
}

/// The functions, with their names, and with the options of this thread.
pub(super) fn functions(lua: &Lua) -> LuaResult<LuaTable> {
    OPTIONS.with(|options| functions_with(lua, options))
}

fn is_given(given: &Given<'_>, position: usize) -> bool {
    !matches!(given.at(position), LuaValue::Nil)
}

fn within(given: &Given<'_>, position: usize, low: i64, high: i64) -> Result<i64, Fault> {
    match given.integer(position)? {
        number if (low..=high).contains(&number) => Ok(number),
        _ => given.bad(position, &format!("expected integer between {low} and {high}")),
    }
}

/// `on`, `off` or a boolean.
fn switch(given: &Given<'_>, position: usize) -> Result<bool, Fault> {
    match given.at(position) {
        LuaValue::Boolean(on) => Ok(*on),
        LuaValue::String(text) if *text == "on" => Ok(true),
        LuaValue::String(text) if *text == "off" => Ok(false),
        LuaValue::String(text) => given.bad(position, &format!("invalid option '{}'", text.display())),
        _ => given.bad(position, &format!("string expected, got {}", super::library::type_name(given.at(position)))),
    }
}

fn encode_sparse_array(_: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("encode_sparse_array", &arguments);
    let mut options = shared.get();
    if is_given(&given, 1) {
        options.sparse_convert = switch(&given, 1)?;
    }
    if is_given(&given, 2) {
        options.sparse_ratio = within(&given, 2, 0, i64::from(i32::MAX))?;
    }
    if is_given(&given, 3) {
        options.sparse_safe = within(&given, 3, 0, i64::from(i32::MAX))?;
    }
    shared.set(options);
    let values = [
        LuaValue::Boolean(options.sparse_convert),
        LuaValue::Number(options.sparse_ratio as f64),
        LuaValue::Number(options.sparse_safe as f64),
    ];
    Ok(LuaMultiValue::from_iter(values))
}

/// Sets one number, if it is given, and returns it.
fn count(
    name: &str,
    shared: &Shared,
    arguments: &LuaMultiValue,
    high: i64,
    of: fn(&mut Options) -> &mut usize,
) -> Returned {
    let given = Given::new(name, arguments);
    let mut options = shared.get();
    if is_given(&given, 1) {
        *of(&mut options) = within(&given, 1, 1, high)? as usize;
        shared.set(options);
    }
    one(LuaValue::Number(*of(&mut options) as f64))
}

fn encode_max_depth(_: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    count("encode_max_depth", shared, &arguments, DEPTH_MAX, |options| &mut options.encode_depth_max)
}

fn decode_max_depth(_: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    count("decode_max_depth", shared, &arguments, DEPTH_MAX, |options| &mut options.decode_depth_max)
}

fn encode_number_precision(_: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    count("encode_number_precision", shared, &arguments, 14, |options| &mut options.precision)
}

fn encode_keep_buffer(_: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("encode_keep_buffer", &arguments);
    let mut options = shared.get();
    if is_given(&given, 1) {
        options.keep_buffer = switch(&given, 1)?;
        shared.set(options);
    }
    one(LuaValue::Boolean(options.keep_buffer))
}

fn encode_invalid_numbers(lua: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("encode_invalid_numbers", &arguments);
    let mut options = shared.get();
    if is_given(&given, 1) {
        options.encode_invalid = match given.at(1) {
            LuaValue::String(text) if *text == "null" => InvalidNumbers::Null,
            _ if switch(&given, 1)? => InvalidNumbers::Allow,
            _ => InvalidNumbers::Refuse,
        };
        shared.set(options);
    }
    match options.encode_invalid {
        InvalidNumbers::Refuse => one(LuaValue::Boolean(false)),
        InvalidNumbers::Allow => one(LuaValue::Boolean(true)),
        InvalidNumbers::Null => super::library::string(lua, "null"),
    }
}

fn decode_invalid_numbers(_: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("decode_invalid_numbers", &arguments);
    let mut options = shared.get();
    if is_given(&given, 1) {
        options.decode_invalid = switch(&given, 1)?;
        shared.set(options);
    }
    one(LuaValue::Boolean(options.decode_invalid))
}
