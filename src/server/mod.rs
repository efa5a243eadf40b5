//! The server around the commands: acceptor, workers, connections, start-up and shutdown.
//!
//! ```text
//! main thread: listeners, timer ──(sockets, round robin)──▶ worker threads, one per core
//! worker: tokio current_thread ─ a task per connection ─ one flusher: execute, log, then all replies
//! ```
//!
//! The only `async` code of the project is here.

pub mod acceptor;
pub mod affinity;
pub mod client_eviction;
pub mod connection;
pub mod daemon;
pub mod limits;
pub mod listeners;
pub mod parking;
pub mod signals;
pub mod socket;
pub mod startup;
pub mod supervisor;
pub mod timer;
pub mod turn;
pub mod waits;
pub mod worker;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod freeing_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod info_tests;
#[cfg(test)]
mod mailbox_tests;
#[cfg(test)]
mod panic_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod turn_tests;
#[cfg(test)]
mod unit_tests;
