//! The libraries of functions as one payload: what FUNCTION DUMP gives and FUNCTION RESTORE takes.
//!
//! ```text
//! (F5 | string: the text of a library)* | RDB version u16 LE | CRC-64 of all before it u64 LE
//! ```
//!
//! In an RDB file, each of them stands in front of the keys, with the same first byte.

use std::borrow::Cow;

use super::footer;
use super::reader::Reader;
use super::writer::DumpWriter;
use super::{RdbError, RdbType};
use crate::base::config::RdbVersionCheck;

/// Opens a library.
const FUNCTION: u8 = 245;
/// Opens a library as release candidates of Redis 7.0 wrote it.
const FUNCTION_PRE_GA: u8 = 246;
/// The RDB version that has libraries.
const VERSION: u16 = 10;

/// Why a payload of libraries is refused. The displayed text follows `ERR ` in the reply of FUNCTION RESTORE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LibrariesError {
    /// It is damaged, or of a version that is not known.
    Footer,
    /// It holds something else.
    Type,
    /// It holds a library in the form of a release candidate.
    PreRelease,
    /// A text is cut or damaged, or the texts are longer than was allowed.
    Text,
}

impl std::fmt::Display for LibrariesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Footer => RdbError::Footer.fmt(f),
            Self::Type => f.write_str("given type is not a function"),
            Self::PreRelease => f.write_str("Pre-release function format not supported."),
            Self::Text => f.write_str("Failed loading library payload"),
        }
    }
}

/// Writes the texts of libraries as a payload.
pub fn encode_libraries<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        let mut writer = DumpWriter::new(RdbType::String);
        writer.string(text);
        out.push(FUNCTION);
        out.extend_from_slice(&writer.into_body());
    }
    footer::append(&mut out, VERSION);
    out
}

/// The libraries of a payload, read one after the other.
pub struct DumpedLibraries<'a> {
    reader: Reader<'a>,
    /// How many bytes the remaining texts may have.
    left: u64,
}

impl<'a> DumpedLibraries<'a> {
    /// Checks the footer. All texts together may have so many bytes.
    ///
    /// # Errors
    /// See [`LibrariesError::Footer`].
    pub fn new(payload: &'a [u8], bytes_max: u64) -> Result<Self, LibrariesError> {
        let (body, _) = footer::check(payload, RdbVersionCheck::Strict).map_err(|_| LibrariesError::Footer)?;
        Ok(DumpedLibraries { reader: Reader::new(body), left: bytes_max })
    }

    fn text(&mut self) -> Result<Cow<'a, [u8]>, LibrariesError> {
        match self.reader.u8().map_err(|_| LibrariesError::Text)? {
            FUNCTION => {}
            FUNCTION_PRE_GA => return Err(LibrariesError::PreRelease),
            _ => return Err(LibrariesError::Type),
        }
        let text = self.reader.string().map_err(|_| LibrariesError::Text)?;
        self.left = self.left.checked_sub(text.len() as u64).ok_or(LibrariesError::Text)?;
        Ok(text)
    }
}

impl<'a> Iterator for DumpedLibraries<'a> {
    type Item = Result<Cow<'a, [u8]>, LibrariesError>;

    /// The text of the next library. Nothing can be read behind an error.
    fn next(&mut self) -> Option<Self::Item> {
        (self.reader.remaining() > 0).then(|| self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(payload: &[u8]) -> Result<Vec<Vec<u8>>, LibrariesError> {
        DumpedLibraries::new(payload, 10_000)?.map(|text| text.map(Cow::into_owned)).collect()
    }

    fn with_footer(body: &[u8]) -> Vec<u8> {
        let mut payload = body.to_vec();
        footer::append(&mut payload, VERSION);
        payload
    }

    #[test]
    fn a_payload_has_the_bytes_of_redis() {
        let text = b"#!lua name=a\nredis.register_function('f1',function() return 1 end)";
        let payload = b"\xf5@B#!lua name=a\nredis.register_function('f1',function() return 1 end)\n\x00\x85\x90\xeb\xe3}\x0c\xdc\xed";
        assert_eq!(decoded(payload), Ok(vec![text.to_vec()]));
        assert_eq!(encode_libraries([&text[..]].into_iter()), payload);
        assert_eq!(encode_libraries(std::iter::empty()), b"\n\x00]\x9b\\@\x0f\x7f\xa2\xda");
        assert_eq!(decoded(b"\n\x00]\x9b\\@\x0f\x7f\xa2\xda"), Ok(vec![]));
    }

    #[test]
    fn texts_come_back_whatever_their_length() {
        let texts: Vec<Vec<u8>> = [0, 1, 10, 63, 64, 5000].iter().map(|len| b"xyz\n".repeat(len / 4 + 1)).collect();
        let payload = encode_libraries(texts.iter().map(Vec::as_slice));
        assert!(payload.len() < 500, "long ones are compressed");
        assert_eq!(decoded(&payload), Ok(texts));
    }

    #[test]
    fn what_is_no_library_is_refused() {
        for (body, error) in [
            (&b"\xf5"[..], LibrariesError::Text),
            (b"\xf5\x05ab", LibrariesError::Text),
            (b"\xf5\xc3\x01\x50a", LibrariesError::Text),
            (b"\xf5\x02ab\x00", LibrariesError::Type),
            (b"\x00\x01a", LibrariesError::Type),
            (b"\xf6\x01a", LibrariesError::PreRelease),
        ] {
            assert_eq!(decoded(&with_footer(body)), Err(error), "{}", body.escape_ascii());
        }
        assert_eq!(decoded(b"abc"), Err(LibrariesError::Footer));
        let long = encode_libraries([&[b'x'; 6000][..], &[b'x'; 6000]].into_iter());
        assert_eq!(decoded(&long), Err(LibrariesError::Text), "more than was allowed");
        let payload = encode_libraries([&b"#!lua name=a"[..]].into_iter());
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_eq!(decoded(&changed), Err(LibrariesError::Footer), "{at}");
            assert_eq!(decoded(&payload[..at]), Err(LibrariesError::Footer), "{at}");
        }
    }
}
