//! What a snapshot says of flushes that can be undone. Drawn in `format.rs`.

use super::chunk::{Entry, WireValue};
use super::format::{BURIED_PREFIX, GRAVE_ALL, GRAVE_BYTES, NUMBER_END, u64_at};

/// A flush that can be undone, without its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireGrave {
    /// Its number.
    pub id: u64,
    /// The only database that was flushed; `None` for all.
    pub only: Option<u32>,
    /// When it was, Unix ms.
    pub at_ms: u64,
    /// Until when it can be undone, Unix ms.
    pub until_ms: u64,
    /// An estimate of the memory that its keys take.
    pub bytes: u64,
}

impl WireGrave {
    /// The bytes that stand for it, behind its number.
    pub(crate) fn encode(&self) -> [u8; GRAVE_BYTES] {
        let mut bytes = [0; GRAVE_BYTES];
        let numbers = [self.only.map_or(GRAVE_ALL, u64::from), self.at_ms, self.until_ms, self.bytes];
        bytes.chunks_exact_mut(8).zip(numbers).for_each(|(to, number)| to.copy_from_slice(&number.to_le_bytes()));
        bytes
    }
}

/// Reads an entry of the list.
pub(crate) fn decode_grave(entry: &Entry<'_>) -> Option<WireGrave> {
    let Entry { db: 0, expiry: None, value: WireValue::Bytes(bytes), key, .. } = *entry else { return None };
    if key.len() != BURIED_PREFIX || bytes.len() != GRAVE_BYTES {
        return None;
    }
    let number = |at| u64_at(bytes, at);
    let only = match number(0)? {
        GRAVE_ALL => None,
        only => Some(u32::try_from(only).ok()?),
    };
    let id = u64_at(key, 0).filter(|&id| id < NUMBER_END)?;
    Some(WireGrave { id, only, at_ms: number(8)?, until_ms: number(16)?, bytes: number(24)? })
}

/// The number of the flush and the key, of an entry among what flushes took out.
pub fn split_buried<'a>(entry: &Entry<'a>) -> Option<(u64, &'a [u8])> {
    let (id, key) = entry.key.split_at_checked(BURIED_PREFIX)?;
    Some((u64_at(id, 0)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_what_it_was() {
        for only in [None, Some(0), Some(u32::MAX)] {
            let grave = WireGrave { id: 7, only, at_ms: 1, until_ms: u64::MAX, bytes: 99 };
            let (key, bytes) = (grave.id.to_le_bytes(), grave.encode());
            let value = WireValue::Bytes(&bytes);
            let entry = Entry { db: 0, key: &key, expiry: None, access: None, is_blessed: false, value };
            assert_eq!(decode_grave(&entry), Some(grave));
            for wrong in [
                Entry { db: 1, ..entry },
                Entry { expiry: Some(1), ..entry },
                Entry { key: &key[..7], ..entry },
                Entry { key: &[0xFF; 8], ..entry },
                Entry { value: WireValue::Bytes(&bytes[..31]), ..entry },
                Entry { value: WireValue::Int(5), ..entry },
            ] {
                assert_eq!(decode_grave(&wrong), None, "{wrong:?}");
            }
            assert_eq!(split_buried(&Entry { key: b"\x07\0\0\0\0\0\0\0k", ..entry }), Some((7, &b"k"[..])));
            assert_eq!(split_buried(&Entry { key: b"short", ..entry }), None);
        }
    }
}
