//! What clients listen to: who has subscribed to which channel, and who watches all commands.
//!
//! Registers only. They know clients and workers by number, and neither the server nor a connection.

pub mod channels;
pub mod monitors;
mod patterns;
mod subscribers;
mod wide;
