//! What is kept of a password: its SHA-256 digest.
//!
//! Invariants:
//! - Digests are compared in a time that does not tell where they differ.
//! - A password itself is never kept.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// The digits of a digest.
const DIGITS: usize = 64;

/// How much of the stack the computation of a digest may use, in bytes.
const HASH_STACK: usize = 8 << 10;

/// In a frame of its own, which holds a block with the password when it is left.
#[inline(never)]
fn hash(password: &[u8]) -> [u8; 32] {
    Sha256::digest(password).into()
}

/// Overwrites what the function that was called before has left on the stack.
#[inline(never)]
fn overwrite_stack() {
    let mut room = [0_u8; HASH_STACK];
    room.zeroize();
    std::hint::black_box(&room);
}

/// The digest of a password.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of a password.
    pub fn of(password: &[u8]) -> Digest {
        let digest = hash(password);
        overwrite_stack();
        Digest(digest)
    }

    /// A digest as it is written: 64 hexadecimal digits, with lower-case letters.
    pub fn parse(text: &[u8]) -> Option<Digest> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        if text.len() != DIGITS {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Digest(digest))
    }

    /// Whether it is one of these. All are looked at.
    pub fn is_among(&self, others: &[Digest]) -> bool {
        let none = subtle::Choice::from(0);
        others.iter().fold(none, |found, other| found | self.0.ct_eq(&other.0)).into()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_redis_writes() {
        let digest = Digest::of(b"p");
        let text = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940";
        assert_eq!(digest.to_string(), text);
        assert!(Digest::parse(text.as_bytes()) == Some(digest));
        for wrong in [&text[1..], &text.to_uppercase(), &text.replace('1', "g"), ""] {
            assert!(Digest::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        let (one, other) = (Digest::of(b"a"), Digest::of(b"b"));
        assert!(one.is_among(&[other, one]) && !one.is_among(&[other]) && !one.is_among(&[]));
    }
}
