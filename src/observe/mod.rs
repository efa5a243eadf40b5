//! What an operator sees of the running server.
//!
//! - [`crash_report`]: what the operator's log says of a bug.
//! - [`info`]: the sections of INFO, and their text. The owners of figures contribute them: see
//!   [`crate::core::figures`].
//! - [`latency`]: the report on what took long.
//! - [`memory`]: the figures of memory.
//! - [`service`]: service times and other distributions.
//! - [`process`]: what the kernel reports about this process.
//! - [`types`]: the memory of each type of key.
//!
//! Nothing here changes anything except its own counters.

pub mod constant;
pub mod crash_report;
pub mod info;
mod keysizes;
mod keyspace;
pub mod latency;
pub mod memory;
pub mod process;
pub mod service;
mod sparkline;
mod stats;
pub mod types;
