//! `struct`: values as the bytes of C's structures, by a format.
//!
//! ```text
//! >  <  =     byte order big, little, this machine's      !n     aligned to at most n (8)
//! b B h H i I l L T     integers; i and I take a size     f d    floating point
//! s  a string with a NUL behind     c[n]  n bytes, c0 as many as there are (pack) or as the last number said
//! x  a byte of padding              (blank)  nothing
//! ```
//!
//! Invariant: no length is used before it is known to lie inside the data, and no size exceeds 32 bytes.

use mlua::prelude::*;

use super::library::{Fault, Given, Library, Returned, cast, fault, guarded, number};

/// The widest integer, in bytes.
const INTEGER_MAX: usize = 32;
/// The alignment without a number behind `!`.
const ALIGN_DEFAULT: usize = 8;

struct Format<'a> {
    rest: &'a [u8],
    little: bool,
    align: usize,
}

/// One element of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Integer {
        size: usize,
        signed: bool,
    },
    Float,
    Double,
    /// With a NUL behind.
    Text,
    /// So many bytes.
    Bytes(usize),
    Padding,
}

impl Element {
    fn size(self) -> usize {
        match self {
            Element::Integer { size, .. } => size,
            Element::Float => 4,
            Element::Double => 8,
            Element::Bytes(size) => size,
            Element::Padding => 1,
            Element::Text => 0,
        }
    }

    fn is_aligned(self) -> bool {
        matches!(self, Element::Integer { .. } | Element::Float | Element::Double)
    }
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Self {
        Format { rest: text, little: cfg!(target_endian = "little"), align: 1 }
    }

    fn digits(&mut self) -> Result<Option<usize>, Fault> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Ok(None);
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i32>().ok());
        match number {
            Some(number) => Ok(Some(number as usize)),
            None => fault("integral size overflow"),
        }
    }

    fn sized(&mut self, default: usize) -> Result<usize, Fault> {
        match self.digits()? {
            None => Ok(default),
            Some(size) if size > INTEGER_MAX => {
                fault(format!("integral size {size} is larger than limit of {INTEGER_MAX}"))
            }
            Some(size) => Ok(size),
        }
    }

    /// The next element; `None` at the end.
    fn next(&mut self, given: &Given<'_>) -> Result<Option<Element>, Fault> {
        loop {
            let Some((&option, rest)) = self.rest.split_first() else { return Ok(None) };
            self.rest = rest;
            let integer = |size, signed| Ok(Some(Element::Integer { size, signed }));
            match option {
                b'b' | b'B' => return integer(1, option == b'b'),
                b'h' | b'H' => return integer(2, option == b'h'),
                b'l' | b'L' => return integer(8, option == b'l'),
                b'T' => return integer(8, false),
                b'i' | b'I' => {
                    let size = self.sized(4)?;
                    return integer(size, option == b'i');
                }
                b'f' => return Ok(Some(Element::Float)),
                b'd' => return Ok(Some(Element::Double)),
                b's' => return Ok(Some(Element::Text)),
                b'x' => return Ok(Some(Element::Padding)),
                b'c' => return Ok(Some(Element::Bytes(self.digits()?.unwrap_or(1)))),
                b' ' => {}
                b'>' => self.little = false,
                b'<' => self.little = true,
                b'=' => self.little = cfg!(target_endian = "little"),
                b'!' => {
                    let align = self.sized(ALIGN_DEFAULT)?;
                    if align == 0 || !align.is_power_of_two() {
                        return fault("alignment is not a power of 2");
                    }
                    self.align = align;
                }
                other => {
                    let other = char::from(other);
                    return given.bad(1, &format!("invalid format option '{other}'"));
                }
            }
        }
    }

    /// The bytes of padding in front of an element at this place.
    fn padding(&self, element: Element, at: usize) -> usize {
        let size = element.size().min(self.align);
        if !element.is_aligned() || size <= 1 || !size.is_power_of_two() {
            return 0;
        }
        at.next_multiple_of(size) - at
    }
}

fn pack(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("pack", &arguments);
    let text = given.bytes(1)?;
    let mut format = Format::new(&text);
    let (mut out, mut position) = (Vec::new(), 2);
    while let Some(element) = format.next(&given)? {
        out.resize(out.len() + format.padding(element, out.len()), 0);
        if element == Element::Padding {
            out.push(0);
            continue;
        }
        match element {
            Element::Integer { size, .. } => put_integer(&mut out, given.number(position)?, size, format.little),
            Element::Float => put(&mut out, &(given.number(position)? as f32).to_le_bytes(), format.little),
            Element::Double => put(&mut out, &given.number(position)?.to_le_bytes(), format.little),
            Element::Text => {
                out.extend_from_slice(&given.bytes(position)?);
                out.push(0);
            }
            Element::Bytes(size) => {
                let bytes = given.bytes(position)?;
                let size = if size == 0 { bytes.len() } else { size };
                if bytes.len() < size {
                    return given.bad(position, "string too short");
                }
                out.extend_from_slice(&bytes[..size]);
            }
            Element::Padding => {}
        }
        position += 1;
    }
    super::library::string(lua, out)
}

fn put(out: &mut Vec<u8>, little_endian: &[u8], little: bool) {
    match little {
        true => out.extend_from_slice(little_endian),
        false => out.extend(little_endian.iter().rev()),
    }
}

fn put_integer(out: &mut Vec<u8>, number: f64, size: usize, little: bool) {
    // Beyond 63 bits, a number without a sign.
    let value = if number >= 9_223_372_036_854_775_808.0 { number as u64 as i64 } else { cast(number) };
    let fill = if value < 0 && number < 0.0 { 0xff } else { 0 };
    let mut bytes = [fill; INTEGER_MAX];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    put(out, &bytes[..size], little);
}

fn take_integer(bytes: &[u8], signed: bool, little: bool) -> f64 {
    let low = |index: usize| if little { bytes[index] } else { bytes[bytes.len() - 1 - index] };
    let count = bytes.len().min(8);
    let value = (0..count).rev().fold(0_u64, |value, index| (value << 8) | u64::from(low(index)));
    if !signed || count == 0 {
        return value as f64;
    }
    let shift = 64 - 8 * count as u32;
    ((value << shift) as i64 >> shift) as f64
}

fn unpack(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("unpack", &arguments);
    let (text, data) = (given.bytes(1)?, given.bytes(2)?);
    let start = if given.len() >= 3 { given.integer(3)? } else { 1 };
    if start < 1 {
        return given.bad(3, "offset must be 1 or greater");
    }
    let mut at = usize::try_from(start - 1).unwrap_or(usize::MAX);
    let mut format = Format::new(&text);
    let mut values = LuaMultiValue::new();
    while let Some(element) = format.next(&given)? {
        at = at.saturating_add(format.padding(element, at));
        let Some(rest) = data.get(at..) else { return given.bad(2, "data string too short") };
        let Some(bytes) = rest.get(..element.size()) else { return given.bad(2, "data string too short") };
        match element {
            Element::Padding => at += 1,
            Element::Integer { size, signed } => {
                at += size;
                values.push_back(LuaValue::Number(take_integer(bytes, signed, format.little)));
            }
            Element::Float => {
                let mut raw: [u8; 4] = bytes.try_into().unwrap_or_default();
                if !format.little {
                    raw.reverse();
                }
                at += 4;
                values.push_back(LuaValue::Number(f64::from(f32::from_le_bytes(raw))));
            }
            Element::Double => {
                let mut raw: [u8; 8] = bytes.try_into().unwrap_or_default();
                if !format.little {
                    raw.reverse();
                }
                at += 8;
                values.push_back(LuaValue::Number(f64::from_le_bytes(raw)));
            }
            Element::Bytes(size) => {
                let size = match (size, values.len()) {
                    (0, 0) => return fault("format 'c0' needs a previous size"),
                    (0, _) => match values.pop_back() {
                        Some(LuaValue::Number(size)) if size >= 0.0 => size as usize,
                        _ => return fault("format 'c0' needs a previous size"),
                    },
                    (size, _) => size,
                };
                let Some(bytes) = rest.get(..size) else { return given.bad(2, "data string too short") };
                at += size;
                values.push_back(LuaValue::String(lua.create_string(bytes)?));
            }
            Element::Text => {
                let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                    return fault("unfinished string in data");
                };
                at += end + 1;
                values.push_back(LuaValue::String(lua.create_string(&rest[..end])?));
            }
        }
    }
    values.push_back(LuaValue::Number(at as f64 + 1.0));
    Ok(values)
}

fn size(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("size", &arguments);
    let text = given.bytes(1)?;
    let mut format = Format::new(&text);
    let mut at = 0_usize;
    while let Some(element) = format.next(&given)? {
        at = at.saturating_add(format.padding(element, at));
        match element {
            Element::Text => return given.bad(1, "variable-size format in 'size'"),
            Element::Bytes(0) => return given.bad(1, "variable-length format in 'size'"),
            _ => at = at.saturating_add(element.size()),
        }
        if at > i32::MAX as usize {
            return fault("integral size overflow");
        }
    }
    number(at as f64)
}

const FUNCTIONS: &[(&str, Library)] = &[("pack", pack), ("unpack", unpack), ("size", size)];

/// The functions, with their names.
pub(super) fn functions(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    for (name, function) in FUNCTIONS {
        table.raw_set(*name, guarded(lua, *function)?)?;
    }
    Ok(table)
}
