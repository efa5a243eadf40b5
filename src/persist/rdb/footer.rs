//! The last ten bytes of a payload of DUMP: the version of its writer and a checksum.
//!
//! Redis counts RDB versions from 1; Valkey left that line at 80, and its type codes mean other things.

use crc::{CRC_64_REDIS, Crc, Digest, Table};

use super::RdbError;
use crate::base::config::RdbVersionCheck;

/// Bytes of the footer: version u16, checksum u64, both lowest byte first.
pub const FOOTER: usize = 10;
/// The newest version of Redis' line (Redis 8.10). Types newer than those read here are refused by their code.
const REDIS_VERSION_MAX: u16 = 15;
/// The first version of Valkey's line.
pub(crate) const VALKEY_VERSION_MIN: u16 = 80;
/// The versions of Valkey's line: of Valkey 9.0, and of 9.2.
const VALKEY_VERSIONS: std::ops::RangeInclusive<u16> = VALKEY_VERSION_MIN..=81;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The set of type codes that a payload uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Redis of any version, and Valkey up to 8.
    Redis,
    /// Valkey from 9 on.
    Valkey,
}

impl Dialect {
    /// The dialect of an RDB version, if that version is known, or any will do.
    pub fn of_version(version: u16, check: RdbVersionCheck) -> Option<Self> {
        let is_known = version <= REDIS_VERSION_MAX || VALKEY_VERSIONS.contains(&version);
        let dialect = if version < VALKEY_VERSION_MIN { Self::Redis } else { Self::Valkey };
        (is_known || check == RdbVersionCheck::Relaxed).then_some(dialect)
    }
}

/// A checksum of bytes that come piece by piece.
pub(crate) struct Checksum(Digest<'static, u64, Table<16>>);

impl Checksum {
    /// Of nothing yet.
    pub(crate) fn new() -> Checksum {
        Checksum(CRC.digest())
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum.
    pub(crate) fn value(self) -> u64 {
        self.0.finalize()
    }
}

/// The CRC-64 that RDB uses (Jones).
pub fn crc64(bytes: &[u8]) -> u64 {
    CRC.checksum(bytes)
}

/// Adds the footer to a type and a value.
pub fn append(payload: &mut Vec<u8>, version: u16) {
    payload.extend_from_slice(&version.to_le_bytes());
    payload.extend_from_slice(&crc64(payload).to_le_bytes());
}

/// Checks the footer. Returns the bytes before it.
pub fn check(payload: &[u8], versions: RdbVersionCheck) -> Result<(&[u8], Dialect), RdbError> {
    let (body, version, crc) = split(payload).ok_or(RdbError::Footer)?;
    let dialect = Dialect::of_version(version, versions).ok_or(RdbError::Footer)?;
    if crc != crc64(&payload[..payload.len() - 8]) {
        return Err(RdbError::Footer);
    }
    Ok((body, dialect))
}

fn split(payload: &[u8]) -> Option<(&[u8], u16, u64)> {
    let (rest, crc) = payload.split_last_chunk::<8>()?;
    let (body, version) = rest.split_last_chunk::<2>()?;
    Some((body, u16::from_le_bytes(*version), u64::from_le_bytes(*crc)))
}

#[cfg(test)]
mod tests {
    use super::RdbVersionCheck::{Relaxed, Strict};
    use super::*;

    #[test]
    fn the_checksum_is_that_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xE9C6_D914_C4B8_D9CA);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn a_payload_of_redis_passes_and_no_changed_one_does() {
        let payload = b"\x00\x05hello\n\x00cr\xdfve4 \n";
        assert_eq!(check(payload, Strict), Ok((&b"\x00\x05hello"[..], Dialect::Redis)));
        for at in 0..payload.len() {
            let mut changed = payload.to_vec();
            changed[at] ^= 1;
            assert_eq!(check(&changed, Relaxed), Err(RdbError::Footer), "{at}");
            assert_eq!(check(&payload[..at], Strict), Err(RdbError::Footer), "{at}");
        }
    }

    #[test]
    fn versions_that_nobody_has_written_yet_are_refused_unless_any_will_do() {
        for (version, known) in [
            (0, true),
            (1, true),
            (10, true),
            (15, true),
            (16, false),
            (79, false),
            (80, true),
            (81, true),
            (82, false),
        ] {
            let mut payload = vec![0, 0];
            append(&mut payload, version);
            assert_eq!(check(&payload, Strict).is_ok(), known, "{version}");
            let dialect = if version < 80 { Dialect::Redis } else { Dialect::Valkey };
            assert_eq!(check(&payload, Relaxed), Ok((&[0, 0][..], dialect)), "{version}");
        }
    }
}
