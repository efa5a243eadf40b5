//! Commands for keys of any type: what they hold, how long they live, how they are found, copied and sorted.

pub mod dump;
pub mod expire;
pub mod generic;
pub mod memory_usage;
pub mod object;
pub mod scan;
pub mod sort;
