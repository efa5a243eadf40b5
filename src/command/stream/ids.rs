//! Parses ids from arguments, with the liberties that Redis takes.

use crate::base::format;
use crate::core::CommandError;
use crate::core::error::until_nul;
use crate::value::stream::StreamId;

const INVALID: CommandError = CommandError::Text("ERR Invalid stream ID specified as stream command argument");

/// Longer words are not ids.
const WORD_MAX: usize = 127;

/// An id as XADD takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `*`: the time now.
    Auto,
    /// `<ms>-*`: the next number within this millisecond.
    Within(u64),
    /// A complete id.
    Exactly(StreamId),
}

/// An id; `-` and `+` are the smallest and the largest. A missing number becomes `seq`.
pub(super) fn any(word: &[u8], seq: u64) -> Result<StreamId, CommandError> {
    match until_nul(word) {
        _ if word.len() > WORD_MAX => Err(INVALID),
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => exact(word, seq),
    }
}

/// An id without `-` and `+`. A missing number becomes `seq`.
pub(super) fn exact(word: &[u8], seq: u64) -> Result<StreamId, CommandError> {
    match parts(word)? {
        (ms, None) => Ok(StreamId::new(ms, seq)),
        (ms, Some(seq)) => Ok(StreamId::new(ms, number(seq).ok_or(INVALID)?)),
    }
}

/// The id of an entry to add.
pub(super) fn wanted(word: &[u8]) -> Result<Wanted, CommandError> {
    match parts(word)? {
        (ms, Some(b"*")) => Ok(Wanted::Within(ms)),
        _ => exact(word, 0).map(Wanted::Exactly),
    }
}

/// The first id of an interval; behind `(` the one after it.
pub(super) fn start(word: &[u8]) -> Result<StreamId, CommandError> {
    const NO_START: CommandError = CommandError::Text("ERR invalid start ID for the interval");
    match word {
        [b'(', rest @ ..] if !rest.is_empty() => exact(rest, 0)?.next().ok_or(NO_START),
        _ => any(word, 0),
    }
}

/// The last id of an interval; behind `(` the one before it.
pub(super) fn end(word: &[u8]) -> Result<StreamId, CommandError> {
    const NO_END: CommandError = CommandError::Text("ERR invalid end ID for the interval");
    match word {
        [b'(', rest @ ..] if !rest.is_empty() => exact(rest, u64::MAX)?.previous().ok_or(NO_END),
        _ => any(word, u64::MAX),
    }
}

/// The time, and the part behind the dash.
fn parts(word: &[u8]) -> Result<(u64, Option<&[u8]>), CommandError> {
    if word.len() > WORD_MAX {
        return Err(INVALID);
    }
    let word = until_nul(word);
    let (ms, seq) = match word.iter().position(|&byte| byte == b'-') {
        None => (word, None),
        Some(dash) => (&word[..dash], Some(&word[dash + 1..])),
    };
    Ok((number(ms).ok_or(INVALID)?, seq))
}

/// A number as C's `strtoull` parses it, except that a canonical negative number is refused.
fn number(word: &[u8]) -> Option<u64> {
    if let Some(number) = format::parse_i64(word) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let id = |word: &str| any(word.as_bytes(), 7).ok().map(|id| (id.ms, id.seq));
        for (word, read) in [
            ("5", Some((5, 7))),
            ("5-3", Some((5, 3))),
            ("18446744073709551615-18446744073709551615", Some((u64::MAX, u64::MAX))),
            ("18446744073709551616", None),
            ("-", Some((0, 0))),
            ("+", Some((u64::MAX, u64::MAX))),
            ("+5-+3", Some((5, 3))),
            (" 5- 3", Some((5, 3))),
            ("05-03", Some((5, 3))),
            ("5--3", None),
            ("5--03", Some((5, 3u64.wrapping_neg()))),
            ("5-", None),
            ("-5", None),
            ("", None),
            ("5 ", None),
            ("5-3-1", None),
            ("5-*", None),
            ("abc", None),
            ("5\0abc", Some((5, 7))),
        ] {
            assert_eq!(id(word), read, "{word:?}");
        }
        assert_eq!(id(&"0".repeat(127)), Some((0, 7)));
        assert_eq!(id(&"0".repeat(128)), None);
        assert!(exact(b"-", 0).is_err() && exact(b"+", 0).is_err());
        assert_eq!(wanted(b"5-*"), Ok(Wanted::Within(5)));
        assert_eq!(wanted(b"5"), Ok(Wanted::Exactly(StreamId::new(5, 0))));
        assert!(wanted(b"5-**").is_err() && wanted(b"-").is_err());
    }

    #[test]
    fn ends_of_an_interval_may_be_left_out() {
        assert_eq!(start(b"(5-3"), Ok(StreamId::new(5, 4)));
        assert_eq!(start(b"(5"), Ok(StreamId::new(5, 1)));
        assert_eq!(end(b"(5-3"), Ok(StreamId::new(5, 2)));
        assert_eq!(end(b"(5"), Ok(StreamId::new(5, u64::MAX - 1)));
        assert_eq!(end(b"5"), Ok(StreamId::new(5, u64::MAX)));
        assert!(start(b"(18446744073709551615-18446744073709551615").is_err());
        assert!(end(b"(0-0").is_err() && start(b"(-").is_err() && start(b"(").is_err());
    }
}
