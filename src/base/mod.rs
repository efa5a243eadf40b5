//! The foundation of everything else. It imports nothing of the project.
//!
//! Each file is one small service, without state or with private state.

pub mod alloc;
pub mod audit;
pub mod bytes;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod core_dumps;
pub mod doors;
pub mod fatal;
pub mod format;
pub mod glob;
pub mod hash;
pub mod histogram;
pub mod latency;
pub mod lock;
pub mod logging;
pub mod long_double;
pub mod oom_score;
pub mod per_worker;
pub mod prefetch;
pub mod proc_title;
pub mod progress;
pub mod random;
pub mod restart;
#[cfg(test)]
pub(crate) mod schedule;
pub mod secret;
pub mod slab;
pub mod slot;
pub mod syslog;
pub mod tls;
pub mod varint;
pub mod version;
