//! JSON to values of Lua.
//!
//! Invariants: the parser never reads behind the text, nesting is bounded, and an error names the character at which
//! the token began.

use mlua::prelude::*;

use super::{Options, Shared};
use crate::script::library::{Fault, Given, Returned, fault, one, text_to_number};

pub(super) fn decode(lua: &Lua, shared: &Shared, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("decode", &arguments);
    if given.len() != 1 {
        return given.bad(1, "expected 1 argument");
    }
    let text = given.bytes(1)?;
    if let [first, second, ..] = text[..]
        && (first == 0 || second == 0)
    {
        return fault("JSON parser does not support UTF-16 or UTF-32");
    }
    let mut parser = Parser { lua, text: &text, at: 0, depth: 0, options: shared.get() };
    let token = parser.next()?;
    let value = parser.value(token)?;
    let (token, at) = parser.next()?;
    if !matches!(token, Token::End) {
        return parser.unexpected("the end", &token, at);
    }
    one(value)
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    /// What is wrong.
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Text(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(what) => what,
        }
    }
}

struct Parser<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    depth: usize,
    options: Options,
}

impl Parser<'_> {
    fn unexpected<T>(&self, expected: &str, found: &Token, at: usize) -> Result<T, Fault> {
        fault(format!("Expected {expected} but found {} at character {}", found.name(), at + 1))
    }

    fn descend(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth <= self.options.decode_depth_max {
            return Ok(());
        }
        fault(format!("Found too many nested data structures ({}) at character {}", self.depth, self.at))
    }

    fn value(&mut self, (token, at): (Token, usize)) -> Result<LuaValue, Fault> {
        Ok(match token {
            Token::Text(text) => LuaValue::String(self.lua.create_string(text)?),
            Token::Number(number) => LuaValue::Number(number),
            Token::Boolean(value) => LuaValue::Boolean(value),
            Token::Null => LuaValue::NULL,
            Token::ObjectBegin => self.object()?,
            Token::ArrayBegin => self.array()?,
            other => return self.unexpected("value", &other, at),
        })
    }

    fn object(&mut self) -> Result<LuaValue, Fault> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let (mut token, mut at) = self.next()?;
        if !matches!(token, Token::ObjectEnd) {
            loop {
                let Token::Text(key) = token else { return self.unexpected("object key string", &token, at) };
                let key = self.lua.create_string(key)?;
                let (colon, colon_at) = self.next()?;
                if !matches!(colon, Token::Colon) {
                    return self.unexpected("colon", &colon, colon_at);
                }
                let next = self.next()?;
                let value = self.value(next)?;
                table.raw_set(key, value)?;
                (token, at) = self.next()?;
                match token {
                    Token::ObjectEnd => break,
                    Token::Comma => (token, at) = self.next()?,
                    other => return self.unexpected("comma or object end", &other, at),
                }
            }
        }
        self.depth -= 1;
        Ok(LuaValue::Table(table))
    }

    fn array(&mut self) -> Result<LuaValue, Fault> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut next = self.next()?;
        if !matches!(next.0, Token::ArrayEnd) {
            for index in 1.. {
                let value = self.value(next)?;
                table.raw_set(index, value)?;
                let (token, at) = self.next()?;
                match token {
                    Token::ArrayEnd => break,
                    Token::Comma => next = self.next()?,
                    other => return self.unexpected("comma or array end", &other, at),
                }
            }
        }
        self.depth -= 1;
        Ok(LuaValue::Table(table))
    }

    /// The next token, and where it begins.
    fn next(&mut self) -> Result<(Token, usize), Fault> {
        let rest = &self.text[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        let (rest, start) = (&self.text[self.at..], self.at);
        let (token, length) = match rest.first() {
            None => (Token::End, 0),
            Some(b'{') => (Token::ObjectBegin, 1),
            Some(b'}') => (Token::ObjectEnd, 1),
            Some(b'[') => (Token::ArrayBegin, 1),
            Some(b']') => (Token::ArrayEnd, 1),
            Some(b':') => (Token::Colon, 1),
            Some(b',') => (Token::Comma, 1),
            Some(b'"') => string(&rest[1..]),
            Some(b'-' | b'0'..=b'9') => {
                if !self.options.decode_invalid && is_invalid_number(rest) {
                    (Token::Error("invalid number"), 0)
                } else {
                    number(rest)
                }
            }
            _ if rest.starts_with(b"true") => (Token::Boolean(true), 4),
            _ if rest.starts_with(b"false") => (Token::Boolean(false), 5),
            _ if rest.starts_with(b"null") => (Token::Null, 4),
            _ if self.options.decode_invalid && is_invalid_number(rest) => number(rest),
            _ => (Token::Error("invalid token"), 0),
        };
        self.at += length;
        Ok((token, start))
    }
}

/// Whether this begins like a number that JSON does not have: `+1`, `01`, `0x1`, `inf`, `nan`.
fn is_invalid_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text {
        [b'0', b'x' | b'X' | b'0'..=b'9', ..] => true,
        [b'0'..=b'9', ..] => false,
        _ => text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")),
    }
}

/// The number at the beginning of a text, as `strtod` finds its end.
fn number(text: &[u8]) -> (Token, usize) {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let body = &text[sign..];
    let digits = |from: usize, is_digit: fn(&u8) -> bool| body[from..].iter().take_while(|byte| is_digit(byte)).count();
    let word = |word: &str| body.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    let is_hex = matches!(body, [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit());
    let length = if word("infinity") {
        8
    } else if word("inf") || word("nan") {
        3
    } else {
        let (mut end, is_digit, mark): (usize, fn(&u8) -> bool, u8) = match is_hex {
            true => (2, u8::is_ascii_hexdigit, b'p'),
            false => (0, u8::is_ascii_digit, b'e'),
        };
        let whole = digits(end, is_digit);
        end += whole;
        let mut fraction = 0;
        if body.get(end) == Some(&b'.') {
            fraction = digits(end + 1, is_digit);
            if whole + fraction > 0 {
                end += 1 + fraction;
            }
        }
        if whole + fraction == 0 {
            return (Token::Error("invalid number"), 0);
        }
        if body.get(end).is_some_and(|byte| byte.to_ascii_lowercase() == mark) {
            let sign = usize::from(matches!(body.get(end + 1), Some(b'+' | b'-')));
            let from = end + 1 + sign;
            let exponent = if from <= body.len() { digits(from, u8::is_ascii_digit) } else { 0 };
            if exponent > 0 {
                end = from + exponent;
            }
        }
        end
    };
    let negative = text[0] == b'-';
    let magnitude = &body[..length];
    let value = match text_to_number(magnitude) {
        Some(value) => value,
        // Too large, or too small.
        None if is_hex => f64::INFINITY,
        None => std::str::from_utf8(magnitude).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0),
    };
    (Token::Number(if negative { -value } else { value }), sign + length)
}

/// The string behind an opening quote, and the length with both quotes.
fn string(text: &[u8]) -> (Token, usize) {
    let (mut out, mut at) = (Vec::new(), 0);
    loop {
        match text.get(at) {
            None | Some(0) => return (Token::Error("unexpected end of string"), 0),
            Some(b'"') => return (Token::Text(out), at + 2),
            Some(b'\\') => {
                let escaped = match text.get(at + 1) {
                    Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
                    Some(b'b') => 8,
                    Some(b'f') => 12,
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'u') => match unicode(&text[at..]) {
                        Some((character, length)) => {
                            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                            at += length;
                            continue;
                        }
                        None => return (Token::Error("invalid unicode escape code"), 0),
                    },
                    _ => return (Token::Error("invalid escape code"), 0),
                };
                out.push(escaped);
                at += 2;
            }
            Some(byte) => {
                out.push(*byte);
                at += 1;
            }
        }
    }
}

/// The character that `\u` with four digits, or a pair of them, stands for, and the length.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(0)?;
    if (0xd800..0xdc00).contains(&first) {
        let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second))?;
        return Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 12));
    }
    Some((char::from_u32(first)?, 6))
}
