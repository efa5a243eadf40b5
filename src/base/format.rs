//! Numbers as Redis reads and prints them.
//!
//! Reading is strict: a client must get back the text that it stored, so `+5`, `007`, `-0` and ` 5` are not integers.
//! A double is printed with the shortest digits that read back as the same number, laid out by the rules of Redis
//! 7.2. Never panics on bad bytes.

use super::long_double::{self, Number};

/// Reads a signed integer, accepting exactly the texts that [`write_i64`] makes.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let magnitude = parse_u64(digits)?;
    match negative {
        false => i64::try_from(magnitude).ok(),
        true if magnitude == 0 => None,
        true => 0_i64.checked_sub_unsigned(magnitude),
    }
}

/// Reads an unsigned integer: digits only, no leading zero.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] if text.len() <= 20 => {}
        _ => return None,
    }
    text.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Appends an integer in decimal.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an unsigned integer in decimal.
#[inline]
pub fn write_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Reads a double as `strtod` does over the whole text: decimal, hexadecimal, `inf`. It refuses `nan`, blanks,
/// overflow, and underflow to zero.
pub fn parse_double(text: &[u8]) -> Option<f64> {
    match long_double::scan(text)? {
        Number::Infinity { negative: true } => Some(f64::NEG_INFINITY),
        Number::Infinity { negative: false } => Some(f64::INFINITY),
        Number::Decimal { text, is_zero } => {
            let value: f64 = text.parse().ok()?;
            (value.is_finite() && (is_zero || value != 0.0)).then_some(value)
        }
        Number::Hexadecimal { text, is_zero } => {
            let value = long_double::hexadecimal_to_f64(&text)?;
            (value.is_finite() && (is_zero || value != 0.0)).then_some(value)
        }
    }
}

/// Appends a double as replies show it (ZSCORE, RESP3 doubles) and as strings store it: `3`, `0.1`, `1e+20`, `-inf`,
/// `nan`. A number that is an integer of 63 bits is printed as an integer, however long, as in Redis 8; only Redis
/// 7.2 shows `1e+8` for 100000000.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;
    let integer = value as i64;
    if (-INTEGER_MAX..=INTEGER_MAX).contains(&value) && integer as f64 == value && integer != 0 {
        return write_i64(out, integer);
    }
    if value.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        return out.extend_from_slice(b"inf");
    }
    if value == 0.0 {
        return out.push(b'0');
    }
    let mut buffer = ryu::Buffer::new();
    let (digits, exponent) = shortest_digits(buffer.format_finite(value.abs()));
    lay_out(out, digits.as_slice(), exponent, value.is_sign_negative());
}

/// Appends a double as C's `%.17g` does. ZSCAN of a large sorted set shows scores this way.
pub fn write_general(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() || value == 0.0 {
        return write_double(out, value);
    }
    let text = format!("{value:.16e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..17).contains(&exponent) {
        let decimals = (16 - exponent).unsigned_abs() as usize;
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        return out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(mantissa.trim_end_matches('0').trim_end_matches('.').as_bytes());
    let sign = if exponent < 0 { '-' } else { '+' };
    out.extend_from_slice(format!("e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
}

/// At most 17 significant digits, without leading or trailing zeros.
struct Digits {
    bytes: [u8; 24],
    len: usize,
}

impl Digits {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Splits `12.5`, `1.25e-7` or `1e20` into the digits and the power of ten of the last digit.
fn shortest_digits(text: &str) -> (Digits, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits = Digits { bytes: [0; 24], len: 0 };
    let mut in_fraction = false;
    for byte in mantissa.bytes() {
        if byte == b'.' {
            in_fraction = true;
            continue;
        }
        exponent -= i32::from(in_fraction);
        if (byte != b'0' || digits.len > 0) && digits.len < digits.bytes.len() {
            digits.bytes[digits.len] = byte;
            digits.len += 1;
        }
    }
    while digits.len > 1 && digits.bytes[digits.len - 1] == b'0' {
        digits.len -= 1;
        exponent += 1;
    }
    (digits, exponent)
}

/// The layout of Redis 7.2: plain where that is short, otherwise with an exponent of at least one digit.
fn lay_out(out: &mut Vec<u8>, digits: &[u8], last_exponent: i32, negative: bool) {
    let count = digits.len() as i32;
    let exponent = last_exponent + count - 1;
    if last_exponent >= 0 && exponent < count + 7 {
        out.extend_from_slice(digits);
        return out.resize(out.len() + last_exponent as usize, b'0');
    }
    if last_exponent < 0 && (last_exponent > -7 || exponent.abs() < 4) {
        let whole = count + last_exponent;
        if whole <= 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + whole.unsigned_abs() as usize, b'0');
            return out.extend_from_slice(digits);
        }
        let (whole, fraction) = digits.split_at(whole as usize);
        out.extend_from_slice(whole);
        out.push(b'.');
        return out.extend_from_slice(fraction);
    }
    let digits = &digits[..digits.len().min(18 - usize::from(negative))];
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    write_u64(out, u64::from(exponent.unsigned_abs()));
}

/// A number of bytes as INFO's `*_human` fields show it: `512B`, `1.50M`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let power = ((63 - bytes.leading_zeros()) / 10) as usize;
    match UNITS.get(power - 1) {
        Some(unit) => format!("{:.2}{unit}", bytes as f64 / (1_u64 << (10 * power)) as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        write_double(&mut out, value);
        String::from_utf8(out).expect("digits are ASCII")
    }

    #[test]
    fn integers_are_strict() {
        for good in ["0", "1", "-1", "10", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(parse_i64(good.as_bytes()), good.parse().ok(), "{good}");
        }
        for bad in [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1a",
            "0x1",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
    }

    #[test]
    fn the_general_form_is_that_of_c() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.5, "3.5"),
            (-100_000.0, "-100000"),
            (0.1, "0.10000000000000001"),
            (1e20, "1e+20"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1e-7, "9.9999999999999995e-08"),
            (0.0001, "0.0001"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let mut out = Vec::new();
            write_general(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }

    #[test]
    fn doubles_are_printed_as_redis_8_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-3.5, "-3.5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e7, "10000000"),
            (-1e8, "-100000000"),
            (123e10, "1230000000000"),
            (4e18, "4000000000000000000"),
            (5e18, "5e+18"),
            (1e19, "1e+19"),
            (1e100, "1e+100"),
            (1.5e-7, "1.5e-7"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (123_456_789.123, "123456789.123"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (1e-101, "1e-101"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (0.000_123_456_789, "1.23456789e-4"),
            (0.001_234_567_89, "0.00123456789"),
            (0.000_012_345_678_9, "1.23456789e-5"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    #[test]
    fn doubles_are_read_strictly() {
        for (text, value) in [
            ("1", 1.0),
            ("+1.5", 1.5),
            ("1.", 1.0),
            (".5", 0.5),
            ("-1e3", -1000.0),
            ("1E+2", 100.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("0x1.8p1", 3.0),
            ("-0x.8", -0.5),
            ("0e999999999999", 0.0),
        ] {
            assert_eq!(parse_double(text.as_bytes()), Some(value), "{text}");
        }
        for bad in [
            "",
            " 1",
            "1 ",
            "nan",
            "-nan",
            "infin",
            "1e",
            "1e+",
            ".",
            "e5",
            "0x",
            "0x1p",
            "1e400",
            "1e-400",
            "--1",
            "1_0",
            "1\0",
            "0x1p99999",
        ] {
            assert_eq!(parse_double(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn human_sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_572_864, "1.50M"),
            (1 << 30, "1.00G"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn integers_return(value: i64) {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            prop_assert_eq!(parse_i64(&out), Some(value));
        }

        #[test]
        fn doubles_return(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(parse_double(double(value).as_bytes()).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn any_bytes_are_harmless(text: Vec<u8>) {
            let _ = (parse_i64(&text), parse_double(&text), long_double::LongDouble::parse(&text));
        }
    }
}
