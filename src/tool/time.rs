//! Times as an operator writes and reads them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::persist::restore::Target;

/// Numbers below this are blocks; from here on they are seconds of Unix time,
const SECONDS_FROM: u64 = 1_000_000_000;
/// and from here on milliseconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// Understands `block:N`, Unix seconds or milliseconds, and ISO 8601. A time without an offset is one of the system's
/// time zone.
pub(super) fn target(text: &str) -> Result<Target, String> {
    if let Some(number) = text.strip_prefix("block:") {
        return number.parse().map(Target::Block).map_err(|_| format!("'{number}' is no number of a block"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = text.parse().map_err(|_| format!("'{text}' is out of range"))?;
        return Ok(match number {
            ..SECONDS_FROM => Target::Block(number),
            SECONDS_FROM..MILLISECONDS_FROM => Target::TimeMs(number * 1000 + 999),
            MILLISECONDS_FROM.. => Target::TimeMs(number),
        });
    }
    let with_offset = text.parse::<Timestamp>().ok();
    let of_zone = || {
        let civil: civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(TimeZone::system()).ok()?.timestamp())
    };
    let time = with_offset.or_else(of_zone);
    let ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    // A second is meant as a whole.
    let is_whole = time.is_some_and(|time| time.subsec_nanosecond() == 0);
    ms.map(|ms| Target::TimeMs(if is_whole { ms + 999 } else { ms })).ok_or_else(|| {
        format!("'{text}' is neither a block (block:N) nor a time: Unix seconds, milliseconds, or ISO 8601")
    })
}

/// A time in UTC; `-` for none.
pub(super) fn shown(ms: u64) -> String {
    let time = i64::try_from(ms).ok().filter(|&ms| ms > 0).and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or("-".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_blocks_and_times() {
        assert_eq!(target("block:7"), Ok(Target::Block(7)));
        assert_eq!(target("12345"), Ok(Target::Block(12345)));
        assert_eq!(target("1700000000"), Ok(Target::TimeMs(1_700_000_000_999)), "to the end of that second");
        assert_eq!(target("1700000000123"), Ok(Target::TimeMs(1_700_000_000_123)));
        assert_eq!(target("2023-11-14T22:13:20Z"), Ok(Target::TimeMs(1_700_000_000_999)));
        assert_eq!(target("2023-11-14T23:13:20.123+01:00"), Ok(Target::TimeMs(1_700_000_000_123)));
        assert!(matches!(target("2023-11-14T22:13:20"), Ok(Target::TimeMs(_))));
        for wrong in ["", "yesterday", "block:x", "-5", "99999999999999999999999", "1969-01-01T00:00:00Z"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!((shown(0), shown(u64::MAX)), ("-".to_owned(), "-".to_owned()));
    }
}
