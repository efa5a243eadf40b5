//! How a library function is made: it takes and returns values of Lua, and fails with a text.
//!
//! A function of ours cannot raise an error as Lua's own do. So it returns whether it went well, and a function of
//! the prelude around it raises the text, which then names the line of the script, as Redis' libraries do.

use mlua::prelude::*;

/// Why a library function failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The script's mistake, for the script.
    Text(String),
    /// The engine's failure: memory.
    Engine(LuaError),
}

impl From<LuaError> for Fault {
    fn from(error: LuaError) -> Self {
        Fault::Engine(error)
    }
}

/// A fault with a text.
pub(super) fn fault<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Text(text.into()))
}

/// What a library function returns.
pub(super) type Returned = Result<LuaMultiValue, Fault>;

/// The arguments of a library function, checked as Lua's own library checks them.
pub(super) struct Given<'a> {
    /// The name of the function, for texts.
    name: &'a str,
    values: &'a LuaMultiValue,
}

impl<'a> Given<'a> {
    pub(super) fn new(name: &'a str, values: &'a LuaMultiValue) -> Self {
        Given { name, values }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The argument at this position, from 1; nil behind the last.
    pub(super) fn at(&self, position: usize) -> &'a LuaValue {
        self.values.get(position - 1).unwrap_or(&LuaValue::Nil)
    }

    /// A fault that names an argument.
    pub(super) fn bad<T>(&self, position: usize, what: &str) -> Result<T, Fault> {
        fault(format!("bad argument #{position} to '{}' ({what})", self.name))
    }

    /// A number, or a text that is one.
    pub(super) fn number(&self, position: usize) -> Result<f64, Fault> {
        match number_of(self.at(position)) {
            Some(number) => Ok(number),
            None => self.bad(position, &format!("number expected, got {}", self.type_of(position))),
        }
    }

    /// A number as C casts it to an integer.
    pub(super) fn integer(&self, position: usize) -> Result<i64, Fault> {
        self.number(position).map(cast)
    }

    /// A string, or a number in digits.
    pub(super) fn bytes(&self, position: usize) -> Result<Vec<u8>, Fault> {
        match self.at(position) {
            LuaValue::String(text) => Ok(text.as_bytes().to_vec()),
            LuaValue::Integer(_) | LuaValue::Number(_) => {
                let mut text = Vec::new();
                write_g(&mut text, self.number(position)?, 14);
                Ok(text)
            }
            _ => self.bad(position, &format!("string expected, got {}", self.type_of(position))),
        }
    }

    fn type_of(&self, position: usize) -> &'static str {
        match self.values.get(position - 1) {
            None => "no value",
            Some(value) => type_name(value),
        }
    }
}

/// The name of a value's type as Lua 5.1 has it.
pub(super) fn type_name(value: &LuaValue) -> &'static str {
    match value {
        LuaValue::Nil => "nil",
        LuaValue::Boolean(_) => "boolean",
        LuaValue::Integer(_) | LuaValue::Number(_) => "number",
        LuaValue::String(_) => "string",
        LuaValue::Table(_) => "table",
        LuaValue::Function(_) => "function",
        LuaValue::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// A number, or a text that is one, as Lua coerces it.
pub(super) fn number_of(value: &LuaValue) -> Option<f64> {
    match value {
        LuaValue::Integer(number) => Some(*number as f64),
        LuaValue::Number(number) => Some(*number),
        LuaValue::String(text) => text_to_number(&text.as_bytes()),
        _ => None,
    }
}

/// A text as `strtod` reads it, with blanks around.
pub(super) fn text_to_number(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    match text {
        b"nan" | b"NaN" | b"NAN" | b"-nan" => Some(f64::NAN),
        _ => crate::base::format::parse_double(text),
    }
}

/// What C makes of a double that is cast to 64 bits: the lowest number for everything that does not fit.
pub(super) fn cast(number: f64) -> i64 {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if (-BOUND..BOUND).contains(&number) { number as i64 } else { i64::MIN }
}

/// Appends a number as C's `%.{precision}g` does.
pub(super) fn write_g(out: &mut Vec<u8>, value: f64, precision: usize) {
    if !value.is_finite() || value == 0.0 {
        let text = match value {
            _ if value.is_nan() => {
                if value.is_sign_negative() {
                    "-nan"
                } else {
                    "nan"
                }
            }
            _ if value == f64::INFINITY => "inf",
            _ if value == f64::NEG_INFINITY => "-inf",
            _ if value.is_sign_negative() => "-0",
            _ => "0",
        };
        return out.extend_from_slice(text.as_bytes());
    }
    if value.fract() == 0.0 && value.abs() < 1e14 && precision >= 14 {
        return out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    }
    let precision = precision.max(1);
    let text = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..precision as i32).contains(&exponent) {
        let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
        return out.extend_from_slice(trimmed(&format!("{value:.decimals$}")).as_bytes());
    }
    out.extend_from_slice(trimmed(mantissa).as_bytes());
    let sign = if exponent < 0 { '-' } else { '+' };
    out.extend_from_slice(format!("e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
}

/// A function of a library.
pub(super) type Library = fn(&Lua, LuaMultiValue) -> Returned;

/// Makes a function that returns true and its results, or false and a text.
pub(super) fn guarded(
    lua: &Lua,
    function: impl Fn(&Lua, LuaMultiValue) -> Returned + 'static,
) -> LuaResult<LuaFunction> {
    lua.create_function(move |lua, arguments: LuaMultiValue| match function(lua, arguments) {
        Ok(mut values) => {
            values.push_front(LuaValue::Boolean(true));
            Ok(values)
        }
        Err(Fault::Text(text)) => {
            let text = lua.create_string(text)?;
            Ok(LuaMultiValue::from_iter([LuaValue::Boolean(false), LuaValue::String(text)]))
        }
        Err(Fault::Engine(error)) => Err(error),
    })
}

/// One value.
pub(super) fn one(value: LuaValue) -> Returned {
    Ok(LuaMultiValue::from_iter([value]))
}

/// One number.
pub(super) fn number(value: f64) -> Returned {
    one(LuaValue::Number(value))
}

/// One string.
pub(super) fn string(lua: &Lua, bytes: impl AsRef<[u8]>) -> Returned {
    one(LuaValue::String(lua.create_string(bytes.as_ref())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_c_does() {
        let cases: &[(f64, usize, &str)] = &[
            (3.0, 14, "3"),
            (3.1, 17, "3.1000000000000001"),
            (0.1, 14, "0.1"),
            (1.0 / 3.0, 14, "0.33333333333333"),
            (1e15, 14, "1e+15"),
            (1e15, 17, "1000000000000000"),
            (1e20, 17, "1e+20"),
            (1e100, 14, "1e+100"),
            (-2.5e-7, 14, "-2.5e-07"),
            (0.0001, 14, "0.0001"),
            (123456789012345678.0, 17, "1.2345678901234568e+17"),
            (99999999999999.9, 14, "1e+14"),
            (f64::INFINITY, 14, "inf"),
            (-0.0, 14, "-0"),
        ];
        for (value, precision, text) in cases {
            let mut out = Vec::new();
            write_g(&mut out, *value, *precision);
            assert_eq!(String::from_utf8_lossy(&out), *text, "{value} {precision}");
        }
        assert_eq!((cast(-3.9), cast(1e300), cast(f64::NAN)), (-3, i64::MIN, i64::MIN));
    }
}
