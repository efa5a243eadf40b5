//! The server around the commands: acceptor, workers, connections, start-up and shutdown.
//!
//! ```text
//! main thread: listeners, timer ──(sockets, round robin)──▶ worker threads, one per core
//! worker: tokio current_thread ─ a task per connection ─ one flusher: execute, log, then all replies
//! ```
//!
//! The only `async` code of the project is here.

pub mod acceptor;
pub mod advice;
pub mod affinity;
mod assemble;
pub mod client_eviction;
pub mod connection;
pub mod daemon;
pub mod dealer;
pub mod handshakes;
pub mod import;
pub mod limits;
pub mod listeners;
pub mod moving;
pub mod parking;
pub mod signals;
pub mod socket;
pub mod startup;
pub mod supervisor;
pub mod timer;
pub mod tls_stream;
pub mod turn;
pub mod waits;
pub mod worker;
pub mod workers;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod freeing_tests;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod functions_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod info_tests;
#[cfg(test)]
#[path = "../../tests/support/keys.rs"]
mod keys;
#[cfg(test)]
#[path = "../../tests/support/linear.rs"]
mod linear;
#[cfg(test)]
mod mailbox_tests;
#[cfg(test)]
mod panic_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod turn_tests;
#[cfg(test)]
mod unit_tests;
#[cfg(test)]
mod verify_tests;
