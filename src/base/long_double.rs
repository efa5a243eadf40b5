//! The x87 `long double`, which INCRBYFLOAT and HINCRBYFLOAT calculate with.
//!
//! Clients compare the text that comes back, so the arithmetic must have the same 64-bit mantissa and
//! the same rounding as the C code of Redis on x86-64, on every machine. Reading and adding are
//! `rustc_apfloat`'s; printing (`%.17Lf` without trailing zeros) is exact integer arithmetic here.
//!
//! Invariant: a [`LongDouble`] is never a NaN when parsed. Never panics, whatever the text.

use rustc_apfloat::ieee::{Double, X87DoubleExtended};
use rustc_apfloat::{Float, Round};

/// Redis refuses longer texts.
const LEN_MAX: usize = 5 * 1024 - 1;

/// A number's text, checked against `strtod`'s grammar and made ready for a converter.
#[derive(Debug, PartialEq)]
pub(super) enum Number<'a> {
    /// `inf` or `infinity`, in any case.
    Infinity { negative: bool },
    /// Digits, point, exponent.
    Decimal { text: &'a str, is_zero: bool },
    /// Hexadecimal, always with the binary exponent that is optional in C.
    Hexadecimal { text: String, is_zero: bool },
}

/// Checks that the whole of `text` is a number; NaN is refused.
pub(super) fn scan(text: &[u8]) -> Option<Number<'_>> {
    if text.len() > LEN_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        return Some(Number::Infinity { negative });
    }
    if let Some(digits) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let (is_zero, has_exponent) = check_digits(digits, 16, ['p', 'P'])?;
        let mut text = format!("{}0x{}", if negative { "-" } else { "" }, digits);
        if !has_exponent {
            text.push_str("p0");
        }
        return Some(Number::Hexadecimal { text, is_zero });
    }
    let (is_zero, _) = check_digits(unsigned, 10, ['e', 'E'])?;
    Some(Number::Decimal { text, is_zero })
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

/// The double nearest to a scanned hexadecimal number.
pub(super) fn hexadecimal_to_f64(text: &str) -> Option<f64> {
    let value = Double::from_str_r(text, Round::NearestTiesToEven).ok()?.value;
    Some(f64::from_bits(u64::try_from(value.to_bits()).ok()?))
}

/// An 80-bit extended precision number.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// Reads a number as Redis' `string2ld` does; `inf` is accepted, NaN and overflow are not.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        let (text, is_zero) = match scan(text)? {
            Number::Infinity { negative } => {
                let infinity = X87DoubleExtended::INFINITY;
                return Some(LongDouble(if negative { -infinity } else { infinity }));
            }
            Number::Decimal { text, is_zero } => (text.to_owned(), is_zero),
            Number::Hexadecimal { text, is_zero } => (text, is_zero),
        };
        let value = X87DoubleExtended::from_str_r(&text, Round::NearestTiesToEven).ok()?.value;
        (value.is_finite() && (is_zero || !value.is_zero())).then_some(LongDouble(value))
    }

    /// An integer, exactly.
    pub fn from_i64(value: i64) -> LongDouble {
        LongDouble(X87DoubleExtended::from_i128(i128::from(value)).value)
    }

    /// The largest finite number.
    pub fn largest() -> LongDouble {
        LongDouble(X87DoubleExtended::largest())
    }

    /// Adds; `None` where Redis says "increment would produce NaN or Infinity".
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let sum = (self.0 + other.0).value;
        sum.is_finite().then_some(LongDouble(sum))
    }

    /// Multiplies. Overflow gives infinity.
    pub fn times(self, factor: i64) -> LongDouble {
        LongDouble((self.0 * LongDouble::from_i64(factor).0).value)
    }

    /// The smallest integer at or above it, clamped to 64 bits.
    pub fn ceil(self) -> i64 {
        let integer = self.0.to_i128_r(64, Round::TowardPositive, &mut false).value;
        i64::try_from(integer).unwrap_or(if self.0.is_negative() { i64::MIN } else { i64::MAX })
    }

    /// Whether it is neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    /// Appends the number with up to 17 decimals and without trailing zeros, as Redis stores it.
    pub fn write_human(self, out: &mut Vec<u8>) {
        let bits = self.0.to_bits();
        let negative = (bits >> 79) & 1 == 1;
        let exponent = ((bits >> 64) & 0x7fff) as i32;
        let mantissa = bits as u64;
        let start = out.len();
        if negative {
            out.push(b'-');
        }
        if exponent == 0x7fff {
            return out.extend_from_slice(b"inf");
        }
        // value = mantissa × 2^power; the smallest exponent is shared with the denormals.
        let power = exponent.max(1) - 16383 - 63;
        if power >= 0 {
            write_shifted(out, mantissa, power as usize);
        } else {
            write_fraction(out, mantissa, power.unsigned_abs());
        }
        if &out[start..] == b"-0" {
            out.remove(start);
        }
    }

    /// [`LongDouble::write_human`] as a string.
    pub fn to_human(self) -> String {
        let mut out = Vec::new();
        self.write_human(&mut out);
        out.iter().map(|&byte| char::from(byte)).collect()
    }
}

/// `mantissa / 2^shift` rounded half to even at 17 decimals.
fn write_fraction(out: &mut Vec<u8>, mantissa: u64, shift: u32) {
    const SCALE: u128 = 100_000_000_000_000_000;
    let scaled = u128::from(mantissa) * SCALE; // below 2^121
    let rounded = if shift >= 128 {
        0 // less than 2^-7 of the last decimal
    } else {
        let (quotient, rest) = (scaled >> shift, scaled & ((1_u128 << shift) - 1));
        let half = 1_u128 << (shift - 1);
        quotient + u128::from(rest > half || (rest == half && quotient & 1 == 1))
    };
    out.extend_from_slice((rounded / SCALE).to_string().as_bytes());
    let fraction = format!("{:017}", rounded % SCALE);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

/// `mantissa × 2^shift` in decimal: up to 4933 digits, by repeated division.
fn write_shifted(out: &mut Vec<u8>, mantissa: u64, shift: usize) {
    const GROUP: u64 = 1_000_000_000;
    let mut limbs = vec![0_u32; shift / 32 + 4];
    let wide = u128::from(mantissa) << (shift % 32);
    for (index, limb) in limbs[shift / 32..].iter_mut().take(3).enumerate() {
        *limb = (wide >> (32 * index)) as u32;
    }
    let mut groups = Vec::with_capacity(shift / 29 + 4);
    loop {
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        if limbs.is_empty() {
            break;
        }
        let mut rest = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let value = (rest << 32) | u64::from(*limb);
            *limb = (value / GROUP) as u32;
            rest = value % GROUP;
        }
        groups.push(rest);
    }
    let mut groups = groups.iter().rev();
    out.extend_from_slice(groups.next().unwrap_or(&0).to_string().as_bytes());
    for group in groups {
        out.extend_from_slice(format!("{group:09}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left, right, and the reply to INCRBYFLOAT of a genuine Redis 7.0.15 on x86-64.
    #[rustfmt::skip]
    const RECORDED: [(&str, &str, &str); 52] = [
        ("3.0e3", "5.0e3", "8000"),
        ("-47e-8", "-80639.42909741956853274", "-80639.42909788956853845"),
        ("-344046265042799051", "-64.96613705228684", "-344046265042799115.96875"),
        ("-95.80414194307903", "321867933938546016906327791890504969", "321867933938546016899822958170603520"),
        ("-191.0", "-1.3100631690576847e-14", "-191.0000000000000131"),
        ("35368739027656663130", "493546.3926564580760896", "35368739027657156676"),
        ("61.81637117793929", "0x1.8p1", "64.81637117793929"),
        ("-302115345489", "1.4104273304837989e-12", "-302115345489"),
        ("-825766.32560714036694930", "736415", "-89351.32560714036696936"),
        ("-76e-10", "9.4932955184e+03", "9493.2955183924"),
        ("-2.895377448903119", "3.747002708109903e-15", "-2.89537744890311525"),
        ("1.6306400674181987e-16", "-39740673053410826", "-39740673053410826"),
        ("-8544364808077081", "-774545.26798432956912731", "-8544364808851626.26806640625"),
        ("-673851.02219238423798913", "38.284245555288976", "-673812.73794682894902053"),
        ("0.2421875", "-1.03645795222965249343e-10", "0.2421874998963542"),
        ("-7.809e-14", "-6.50436291146406e+01", "-65.04362911464067809"),
        ("-350228.279423219384625554", "-42e7", "-420350228.27942321938462555"),
        ("227460.6683981118258088827133179", "-7.354117315117037e-13", "227460.66839811182506992"),
        ("7.95504171865474335e-18", "-419596.59053053158443636", "-419596.59053053158444868"),
        ("3.7383290907300193e-16", "-1.4062970876693726e-07", "-0.00000014062970839"),
        ("794323741210193812848849486002", "92e26", "803523741210193812906013884416"),
        ("509720.01281056523800256", "-4.15785942474444317759691257e-28", "509720.01281056523799862"),
        ("-6.640625", "-54e19", "-540000000000000000000"),
        ("40e3", "345359.43619246221214779", "385359.4361924622121478"),
        ("564671", "-657688.04814990663731720", "-93017.04814990663732033"),
        ("-341038.69412620402712784", "-117500.71413895394653", "-458539.40826515797365914"),
        ("-74.5668525854914", "-723754.05571513390169", "-723828.62256771939308919"),
        ("4.9e-18", "-30e-16", "-0.000000000000003"),
        ("-21e26", "540944.542658", "-2099999999999999999932891136"),
        ("-7e32", "-86e-22", "-699999999999999999986226039881728"),
        ("-77e35", "4263305499069049", "-7700000000000000000016245524818558976"),
        ("80e10", "219812.77465920316899375", "800000219812.77465921640396118"),
        ("5432014328129981975", "3.5340966e+03", "5432014328129985509"),
        ("-723669.98015786470751267", "945119.966371312", "221449.98621344729247085"),
        ("39e-14", "128255.6408707772", "128255.64087077720039076"),
        ("835235914776114533906", "-32006398362", "835235914744108135552"),
        ("645693.08674258374777600", "347650.76087469321012639", "993343.84761727695786249"),
        ("325608", "37e24", "37000000000000000000000000"),
        ("-222658.63214057378528945", "-542619.61167317536", "-765278.24381374914531762"),
        ("-227627.63859159922116708", "205813.1912", "-21814.44739159922117722"),
        ("7.3597907782e+25", "0.2", "73597907781999999999541248"),
        ("46e0", "59.799523650989585", "105.799523650989585"),
        ("-50e-24", "-12e9", "-12000000000"),
        ("1008905082726866", "94.25", "1008905082726960.25"),
        ("-14.971945781479576", "56e23", "5600000000000000000000000"),
        ("infinity", "81e60", "-ERR increment would produce NaN or Infinity"),
        ("infinity", "-85.6249534777135", "-ERR increment would produce NaN or Infinity"),
        ("50.72173136128748", "-inf", "-ERR increment would produce NaN or Infinity"),
        ("2013941303496475426183", "1e+", "-ERR value is not a valid float"),
        ("", "94877407462063231543489135620", "-ERR value is not a valid float"),
        ("-", "-22.790792047583736", "-ERR value is not a valid float"),
        ("1e-4960", "abc", "-ERR value is not a valid float"),
    ];

    #[test]
    fn sums_recorded_from_redis() {
        for (left, right, expected) in RECORDED {
            let sum = match (LongDouble::parse(left.as_bytes()), LongDouble::parse(right.as_bytes())) {
                (Some(left), Some(right)) => left
                    .checked_add(right)
                    .map_or("-ERR increment would produce NaN or Infinity".to_owned(), LongDouble::to_human),
                _ => "-ERR value is not a valid float".to_owned(),
            };
            assert_eq!(sum, expected, "{left} + {right}");
        }
    }

    #[test]
    fn negative_zero_is_printed_as_zero() {
        assert_eq!(LongDouble::parse(b"-0").expect("a number").to_human(), "0");
        assert_eq!(LongDouble::parse(b"-1e-30").expect("a number").to_human(), "0");
    }

    #[test]
    fn infinities_do_not_add_up() {
        let infinity = LongDouble::parse(b"inf").expect("a number");
        let one = LongDouble::from_i64(1);
        assert!(!infinity.is_finite());
        assert_eq!(infinity.to_human(), "inf");
        assert_eq!(infinity.checked_add(one), None);
        assert_eq!(infinity.checked_add(LongDouble::parse(b"-inf").expect("a number")), None);
        let largest = LongDouble::parse(b"1.1e4932").expect("a number");
        assert_eq!(largest.checked_add(largest), None);
    }

    #[test]
    fn out_of_range_is_refused() {
        for bad in ["1e5000", "-1e5000", "1e-5000", "nan", "", "1e99999999999999999999", "0x1p99999"] {
            assert_eq!(LongDouble::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(LongDouble::parse(&vec![b'1'; LEN_MAX + 1]), None);
        assert!(LongDouble::parse(b"1e-4940").is_some(), "denormals are numbers");
    }

    #[test]
    fn large_powers_are_exact() {
        let power = |exponent: u32| {
            let text = format!("0x1p{exponent}");
            LongDouble::parse(text.as_bytes()).expect("a number").to_human()
        };
        assert_eq!(power(63), (1_u128 << 63).to_string());
        assert_eq!(power(64), (1_u128 << 64).to_string());
        assert_eq!(power(127), (1_u128 << 127).to_string());
        assert_eq!(power(16383).len(), 4932);
        assert!(power(16383).starts_with("594865747678615882542879663314"));
        assert_eq!(LongDouble::from_i64(i64::MIN).to_human(), i64::MIN.to_string());
    }
}
