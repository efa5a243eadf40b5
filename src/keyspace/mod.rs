//! Databases, shards and the copy-on-write store under them.

pub mod directory;
pub mod entry;
mod segment;
