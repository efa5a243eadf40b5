//! The value of a key that must be a string.

use crate::core::CommandError;
use crate::keyspace::{EntryRef, ValueRef};
use crate::resp::reply::BY_REFERENCE_MIN_BYTES;
use crate::value::entry::{BytesRef, SharedBytes};

/// A string, as it is stored.
#[derive(Clone, Copy, Debug)]
pub enum StringRef<'a> {
    /// An integer.
    Int(i64),
    /// Sealed bytes.
    Str(BytesRef<'a>),
    /// Growable bytes.
    Raw(BytesRef<'a>),
}

/// The value of an entry that must be a string.
#[inline]
pub fn string_of(entry: EntryRef<'_>) -> Result<StringRef<'_>, CommandError> {
    match entry.value() {
        ValueRef::Int(number) => Ok(StringRef::Int(number)),
        ValueRef::Str(bytes) => Ok(StringRef::Str(bytes)),
        ValueRef::Raw(bytes) => Ok(StringRef::Raw(bytes)),
        _ => Err(CommandError::WrongType),
    }
}

/// The text of a value. `digits` holds it if the value is a number.
#[inline]
pub fn text<'v>(value: StringRef<'v>, digits: &'v mut itoa::Buffer) -> &'v [u8] {
    match value {
        StringRef::Int(number) => digits.format(number).as_bytes(),
        StringRef::Str(bytes) | StringRef::Raw(bytes) => bytes.as_slice(),
    }
}

/// A reference to a large sealed value, for a string reply without a copy.
pub fn shareable(value: &StringRef<'_>) -> Option<SharedBytes> {
    match value {
        StringRef::Str(bytes) if bytes.len() >= BY_REFERENCE_MIN_BYTES => bytes.share(),
        _ => None,
    }
}
