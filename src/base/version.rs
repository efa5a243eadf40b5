//! The version of Redis that clients are told.
//!
//! It is that of the newest Redis whose commands are all there, so that clients neither avoid what works nor use what
//! does not: 7.4 brought the expiries of hash fields, and clients ask for it before they cache. Redis 8 brings the
//! types of its modules, which some clients take for granted there.

/// As `INFO`, `HELLO` and scripts tell it.
pub const REDIS_VERSION: &str = "7.4.7";
/// The version of Valkey that clients are told where `compatibility-mode` says to follow Valkey.
pub const VALKEY_VERSION: &str = "9.1.0";
/// That of Redis as a number, a byte for each part.
pub const REDIS_VERSION_NUM: i64 = 0x0007_0407;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_text() {
        let parts = REDIS_VERSION.split('.').map(|part| part.parse::<i64>().expect("a number"));
        assert_eq!(parts.fold(0, |sum, part| sum << 8 | part), REDIS_VERSION_NUM);
    }
}
