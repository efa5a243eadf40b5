//! Commands for keys of any type: their content, expiry, iteration, copying and sorting.

pub mod bless;
pub mod dump;
pub mod expire;
pub mod generic;
pub mod memory_usage;
pub mod migrate;
pub mod object;
pub mod scan;
pub mod sort;
