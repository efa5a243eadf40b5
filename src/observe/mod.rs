//! What an operator sees of the running server.
//!
//! - [`info`]: the sections of INFO.
//! - [`memory`]: the figures of memory.
//! - [`process`]: what the kernel says of this process.
//!
//! Nothing here changes anything except its own counters.

pub mod info;
pub mod memory;
pub mod process;
