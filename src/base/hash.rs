//! The keyed hash that places a key: its shard, its segment, its tag.
//!
//! SipHash-1-3 under a random seed, so that no client can choose keys that collide. The seed is
//! persisted with the data, because a snapshot is laid out by it.

use siphasher::sip::SipHasher13;

/// The 128-bit key of the hash, chosen once per data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashSeed(pub [u8; 16]);

impl HashSeed {
    /// The 64-bit hash of a key.
    ///
    /// The top 10 bits choose the shard, the low 38 bits the segment, 8 bits between them the tag.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_stable_because_snapshots_rest_on_it() {
        let seed = HashSeed(*b"0123456789abcdef");
        assert_eq!(seed.hash(b"key"), 12_698_401_381_539_321_064);
        assert_ne!(seed.hash(b"key"), HashSeed([0; 16]).hash(b"key"));
    }
}
