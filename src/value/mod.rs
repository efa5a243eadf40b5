//! What a key can hold: the forms of the values in memory.

pub mod intset;
pub mod listpack;
