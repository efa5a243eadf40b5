//! The content of a keyspace, for comparisons.

use ironkeep::keyspace::{Gate, Keyspace};
use ironkeep::value::codec::canonical;

/// All keys: database, key, value, expiry.
pub type Keys = Vec<(u32, Vec<u8>, Vec<u8>, Option<u64>)>;

/// All keys, after a look at the soundness of what holds them.
pub fn keys(keyspace: &Keyspace) -> Keys {
    let gate = Gate::new(1);
    let frozen = keyspace.freeze(&gate.close());
    let mut keys = Keys::new();
    for shard in 0..frozen.shards() {
        for (db, directory) in frozen.shard(shard) {
            directory.check_invariants();
            for entry in directory.iter() {
                keys.push((db, entry.key().to_vec(), canonical(entry.value()), entry.expiry()));
            }
        }
    }
    keys.sort();
    keys
}
