//! Putting the keys of one directory into another, for UNFLUSH.

use super::Directory;

impl Directory {
    /// Adds all keys of another directory of the same seed, with their values, expiries, access fields and protection.
    /// Of a key that is in both, the other one's counts if it `replaces`, and else this one's.
    pub fn add_all(&mut self, other: &Directory, replaces: bool) {
        for entry in other.iter() {
            let (key, hash) = (entry.key(), self.hash_of(entry.key()));
            if !replaces && self.get(hash, key).is_some() {
                continue;
            }
            self.set(hash, key, entry.to_new_value(), entry.expiry(), entry.access());
            self.bless(hash, key, other.is_blessed_entry(entry));
        }
    }
}
