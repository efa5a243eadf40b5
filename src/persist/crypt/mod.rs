//! Encryption at rest: nothing that a client sent is readable in a file of the directory.
//!
//! - A **master key** comes from the operator and is never written. It wraps the **data keys** of the store, which lie
//!   in the file `KEYS`. From a data key, each file's own **file key** is derived by what makes the file unique: its
//!   kind, its number, and the run of the process that wrote it.
//! - AES-256-GCM-SIV seals the payload of each block of the log, each piece of a chunk, the index of a snapshot, and
//!   the head and each list of the index of a segment.
//!   A nonce is a place in the file, so that no piece can pose as another. It is never used for two texts under one
//!   key; if it were, this cipher would tell no more than whether the two are the same.
//! - Checksums cover what is on the disk. A torn tail is found, and a directory is checked, without any key.
//! - File names, lengths, times, block numbers and the number of keys in each shard are not secret.

mod keyring;
mod master;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

pub(crate) use keyring::Keyring;
pub use master::MasterKeys;

/// Bytes of the tag behind what is sealed.
pub const TAG: usize = 16;
/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a nonce.
const NONCE: usize = 12;

/// A key that is wiped from memory.
type Key = Zeroizing<[u8; KEY]>;

/// The place of a file's directory, which none of its parts has: the index of a snapshot, the head of an index.
pub(crate) const INDEX_PLACE: u64 = u64::MAX;

/// How files are encrypted.
#[derive(Clone)]
pub struct Encryption {
    /// Gives the master keys, or says in words why it cannot. It is asked at the start and at each snapshot.
    pub source: Arc<dyn Fn() -> Result<MasterKeys, String> + Send + Sync>,
    /// Encrypt what is written from now on. Otherwise what is encrypted is only read.
    pub writes: bool,
}

/// What a file is, for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileKind {
    /// A segment of the log.
    Segment = 1,
    /// A snapshot.
    Snapshot = 2,
    /// The index of a segment.
    Index = 3,
}

/// Seals and opens what one file holds.
#[derive(Clone)]
pub struct FileCipher {
    cipher: Aes256GcmSiv,
    /// The data key that its key comes from.
    key_id: u32,
    /// What tells its key apart.
    #[cfg(test)]
    fingerprint: [u8; 8],
}

/// What was sealed is not what is there, or was sealed under another key.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAuthentic;

impl FileCipher {
    /// That of a file.
    fn derive(data_key: &Key, key_id: u32, kind: FileKind, number: u64, generation: u64) -> Self {
        let mut info = b"ironkeep file".to_vec();
        info.push(kind as u8);
        info.extend_from_slice(&number.to_le_bytes());
        info.extend_from_slice(&generation.to_le_bytes());
        let mut key: Key = Zeroizing::new([0; KEY]);
        Hkdf::<Sha256>::new(None, &data_key[..]).expand(&info, &mut key[..]).expect("a key is short enough");
        Self {
            cipher: aead(&key),
            key_id,
            #[cfg(test)]
            fingerprint: master::fingerprint(&key),
        }
    }

    /// The number of the data key that its key comes from; never 0.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// Encrypts the bytes from `start` on, and puts the tag behind them. The tag vouches for `associated`, too.
    pub fn seal(&self, place: u64, associated: &[u8], bytes: &mut Vec<u8>, start: usize) {
        #[cfg(test)]
        tests::note_use(self, place, associated, &bytes[start..]);
        let tag = self.cipher.encrypt_inout_detached(&nonce(place), associated, InOutBuf::from(&mut bytes[start..]));
        bytes.extend_from_slice(&tag.expect("no piece has 64 GiB"));
    }

    /// Opens sealed bytes, the tag included.
    ///
    /// # Errors
    /// They are not what was sealed at this place.
    pub fn open(&self, place: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let (text, tag) = sealed.split_at_checked(sealed.len().wrapping_sub(TAG)).ok_or(NotAuthentic)?;
        let mut bytes = text.to_vec();
        let tag = Tag::try_from(tag).map_err(|_| NotAuthentic)?;
        let opened =
            self.cipher.decrypt_inout_detached(&nonce(place), associated, InOutBuf::from(&mut bytes[..]), &tag);
        opened.map_err(|_| NotAuthentic)?;
        Ok(bytes)
    }

    /// The tag that vouches for the index of a snapshot, and what stands before it.
    pub(crate) fn vouch(&self, header: &[u8], index: &[u8]) -> Vec<u8> {
        let mut tag = Vec::with_capacity(TAG);
        self.seal(INDEX_PLACE, &[header, index].concat(), &mut tag, 0);
        tag
    }

    /// Whether the tag vouches for this index.
    pub(crate) fn vouches(&self, header: &[u8], index: &[u8], tag: &[u8]) -> bool {
        self.open(INDEX_PLACE, &[header, index].concat(), tag).is_ok()
    }
}

fn aead(key: &Key) -> Aes256GcmSiv {
    Aes256GcmSiv::new_from_slice(&key[..]).expect("the key has its length")
}

fn nonce(place: u64) -> Nonce {
    let mut nonce = [0; NONCE];
    nonce[..8].copy_from_slice(&place.to_le_bytes());
    nonce.into()
}
