//! Active expiry.
use super::db::{Facts, Scratch};
use crate::keyspace::Keyspace;
/// Placeholder signature.
pub fn sweep(
    _keyspace: &Keyspace,
    _scratch: &mut Scratch,
    _facts: Facts,
    _shards: impl Iterator<Item = u16>,
    _budget: usize,
    _log: &mut dyn FnMut(&mut Scratch),
) -> bool {
    false
}
