//! Master keys, as the operator gives them.

use std::io::Read;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{KEY, Key};

/// The longest text that holds keys, in bytes.
const TEXT_MAX: u64 = 64 << 10;

/// What tells master keys apart and is not secret.
pub(super) type Fingerprint = [u8; 8];

/// The master keys that the operator gives: the first wraps, the others unwrap what was wrapped before.
pub struct MasterKeys(Vec<Key>);

impl MasterKeys {
    /// Reads keys from a text: on each line a key of 64 hexadecimal digits. Empty lines and lines that begin with `#`
    /// count for nothing.
    ///
    /// # Errors
    /// A line that is no key, or no key at all. No part of a line is repeated.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            keys.push(key(line).ok_or_else(|| {
                format!("line {} is no key: a key has 64 hexadecimal digits (`openssl rand -hex 32`)", at + 1)
            })?);
        }
        if keys.is_empty() {
            return Err("there is no key: a key is a line of 64 hexadecimal digits (`openssl rand -hex 32`)".into());
        }
        Ok(Self(keys))
    }

    /// Reads them from such a text.
    ///
    /// # Errors
    /// As those of [`MasterKeys::parse`], or the text cannot be read.
    pub fn read(from: impl Read) -> Result<Self, String> {
        // With room for all from the beginning, so that no copy of a part stays behind.
        let mut text = Zeroizing::new(Vec::with_capacity(TEXT_MAX as usize + 1));
        from.take(TEXT_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > TEXT_MAX {
            return Err(format!("there are more than {TEXT_MAX} bytes"));
        }
        Self::parse(&text)
    }

    /// The key that wraps.
    pub(super) fn first(&self) -> &Key {
        &self.0[0]
    }

    /// The key of this fingerprint.
    pub(super) fn find(&self, wanted: Fingerprint) -> Option<&Key> {
        self.0.iter().find(|key| fingerprint(key) == wanted)
    }
}

fn key(line: &[u8]) -> Option<Key> {
    let mut key: Key = Zeroizing::new([0; KEY]);
    if line.len() != 2 * KEY {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(line.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(key)
}

pub(super) fn fingerprint(key: &Key) -> Fingerprint {
    let digest = Sha256::new().chain_update(b"ironkeep master key").chain_update(&key[..]).finalize();
    digest[..8].try_into().expect("a digest is longer")
}
