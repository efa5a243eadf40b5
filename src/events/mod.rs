//! What clients listen to: who has subscribed to which channel, who may have cached which key, and who watches all
//! commands.
//!
//! Registers only. They know clients and workers by number, and neither the server nor a connection.

pub mod channels;
pub mod invalidation;
pub mod monitors;
mod patterns;
mod subscribers;
pub mod tracking;
mod wide;
