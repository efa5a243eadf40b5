//! What an operator sees of the running server.
//!
//! - [`info`]: the sections of INFO, and their text. Whoever owns figures contributes them: see
//!   [`crate::core::figures`].
//! - [`memory`]: the figures of memory.
//! - [`process`]: what the kernel says of this process.
//!
//! Nothing here changes anything except its own counters.

pub mod constant;
pub mod info;
mod keyspace;
pub mod memory;
pub mod process;
mod stats;
