//! What a key can hold, in memory: strings, the small and large forms of the collections, and the map that holds keys
//! and the fields of large hashes.
//!
//! ```text
//! directory ─ segment × n ─ entry ─┬ bytes in the record: a number, a short string, a small collection
//!                                  └ a counted pointer: a long string, a large collection ─┬ map: hash, set, zset
//!                                                                                          └ tree: list, zset, stream
//! ```
//!
//! Invariants:
//! - A small collection is sealed bytes ([`entry::Packing`]) and is replaced like a string. A large one is built of
//!   shared, copy-on-write pieces: cloning it is cheap at any size, and a later change copies only the pieces that it
//!   touches.
//! - Nothing here knows a key's shard, the log, a command, the clock or the configuration. The sizes at which forms
//!   change come as [`Limits`].
//! - Bytes from outside (a snapshot, a record of the log, RESTORE) become values only through [`codec::decode`].

pub mod codec;
pub mod collection;
pub mod directory;
pub mod entry;
pub mod geo;
pub mod hash;
pub mod heap;
pub mod hyperloglog;
pub mod intset;
pub mod kind;
pub mod list;
pub mod listpack;
pub mod map;
mod segment;
pub mod set;
pub mod stream;
pub mod tree;
pub mod zset;

pub use collection::{Collection, Finished, Stored};
pub use entry::{Packing, ValueRef};
pub use hash::Hash;
pub use list::List;
pub use map::Map;
pub use set::Set;
pub use stream::Stream;
pub use zset::Zset;

use crate::base::hash::HashSeed;

/// The sizes at which a collection changes its form, named after their directives, and what else is needed to make a
/// collection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `list-max-listpack-size`: a number of elements if positive; -1 to -5 mean 4 to 64 KiB.
    pub list_max_listpack_size: i32,
    /// `hash-max-listpack-entries`.
    pub hash_max_listpack_entries: usize,
    /// `hash-max-listpack-value`, bytes.
    pub hash_max_listpack_value: usize,
    /// Which small hashes keep their names in a template.
    pub hash_templates: hash::template::Policy,
    /// `set-max-intset-entries`.
    pub set_max_intset_entries: usize,
    /// `set-max-listpack-entries`.
    pub set_max_listpack_entries: usize,
    /// `set-max-listpack-value`, bytes.
    pub set_max_listpack_value: usize,
    /// `zset-max-listpack-entries`.
    pub zset_max_listpack_entries: usize,
    /// `zset-max-listpack-value`, bytes.
    pub zset_max_listpack_value: usize,
    /// `stream-node-max-bytes`; 0 for no limit.
    pub stream_node_max_bytes: usize,
    /// `stream-node-max-entries`; 0 for no limit.
    pub stream_node_max_entries: usize,
    /// The key of the hash that places members in a [`Map`].
    pub seed: HashSeed,
}

impl Limits {
    /// The defaults of the settings, but without templates.
    pub fn defaults(seed: HashSeed) -> Limits {
        Limits {
            list_max_listpack_size: -2,
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            hash_templates: hash::template::Policy::NONE,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
            seed,
        }
    }
}
