//! The large form of a sorted set.

/// See the module. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Zset {}

impl Zset {
    /// The bytes that it takes, about, without a walk: to decide whether it is worth freeing elsewhere.
    pub fn bytes(&self) -> usize {
        0
    }

    /// Appends its elements in the form that `persist::format` draws.
    pub fn encode(&self, _out: &mut Vec<u8>) {}

    /// Reads what [`Zset::encode`] wrote; `None` if the bytes are not that.
    pub fn decode(_bytes: &[u8], _limits: &super::Limits) -> Option<Zset> {
        None
    }
}
