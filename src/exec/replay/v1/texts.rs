//! How version 1 parsed numbers and ids. These are copies of the parsers of that time: the current ones may become
//! stricter, these may not.

use rustc_apfloat::ieee::Double;
use rustc_apfloat::{Float, Round};

use crate::value::stream::StreamId;

/// Longer texts were not numbers.
const NUMBER_MAX: usize = 5 * 1024;
/// Longer texts were not ids.
const ID_MAX: usize = 127;

/// A word as C sees it.
pub(super) fn until_nul(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == 0).next().unwrap_or(word)
}

/// An integer in the one form in which it is printed: no `+5`, no `007`, no `-0`.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(number).as_bytes() == text).then_some(number)
}

/// A double as `strtod` reads it over the whole text: decimal, hexadecimal, `inf`; no NaN, and nothing that overflows
/// or vanishes to zero.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    if text.len() > NUMBER_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let (value, is_zero) = match unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        Some(digits) => {
            let (is_zero, has_exponent) = check_digits(digits, 16, ['p', 'P'])?;
            let sign = if negative { "-" } else { "" };
            let text = format!("{sign}0x{digits}{}", if has_exponent { "" } else { "p0" });
            let value = Double::from_str_r(&text, Round::NearestTiesToEven).ok()?.value;
            (f64::from_bits(u64::try_from(value.to_bits()).ok()?), is_zero)
        }
        None => (text.parse().ok()?, check_digits(unsigned, 10, ['e', 'E'])?.0),
    };
    (value.is_finite() && (is_zero || value != 0.0)).then_some(value)
}

/// `digits[.digits][e[+-]digits]` with at least one digit before the exponent; (is zero, has exponent).
fn check_digits(text: &str, radix: u32, exponent_mark: [char; 2]) -> Option<(bool, bool)> {
    let (mantissa, exponent) = match text.split_once(exponent_mark) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.chars().all(|digit| digit.is_digit(radix));
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
    }
    let is_zero = whole.bytes().chain(fraction.bytes()).all(|digit| digit == b'0');
    Some((is_zero, exponent.is_some()))
}

/// A bound of scores, and whether it is exclusive: behind `(`. Leading blanks and an empty text are allowed, and too
/// large a number is infinite.
pub(super) fn score_bound(text: &[u8]) -> Option<(f64, bool)> {
    let (excluded, text) = match text {
        [b'(', rest @ ..] => (true, rest),
        text => (false, text),
    };
    let text = until_nul(text);
    let score = match text.trim_ascii_start() {
        [] if text.is_empty() => Some(0.0),
        digits => double(digits)
            .or_else(|| std::str::from_utf8(digits).ok()?.parse().ok())
            .filter(|score| !f64::is_nan(*score)),
    };
    score.map(|score| (score, excluded))
}

/// An id without `-` and `+`; a missing number is 0.
pub(super) fn id(word: &[u8]) -> Option<StreamId> {
    if word.len() > ID_MAX {
        return None;
    }
    let word = until_nul(word);
    match word.iter().position(|&byte| byte == b'-') {
        None => Some(StreamId::new(unsigned(word)?, 0)),
        Some(dash) => Some(StreamId::new(unsigned(&word[..dash])?, unsigned(&word[dash + 1..])?)),
    }
}

/// The same; `-` and `+` are the smallest and the largest.
pub(super) fn id_or_end(word: &[u8]) -> Option<StreamId> {
    match until_nul(word) {
        _ if word.len() > ID_MAX => None,
        b"-" => Some(StreamId::MIN),
        b"+" => Some(StreamId::MAX),
        _ => id(word),
    }
}

/// A number as C's `strtoull` parses it, except that a canonical negative number was refused.
fn unsigned(word: &[u8]) -> Option<u64> {
    if let Some(number) = integer(word) {
        return u64::try_from(number).ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let word = &word[word.iter().take_while(|byte| blank(byte)).count()..];
    let (negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { number.wrapping_neg() } else { number })
}
