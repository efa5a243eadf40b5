//! The commands that need the connection or the whole server, and the table of all commands.
//!
//! They are declared as those of `command` are, and run outside the gate: a handler here never holds
//! a shard's lock, never waits, and leaves in [`Client::wait`] what its connection is to wait for.
//!
//! [`Client::wait`]: crate::command::Client::wait

pub mod admin;
pub mod client;
pub mod command_docs;
pub mod command_info;
pub mod config;
pub mod connection;
pub mod debug;
pub mod loading;
pub mod memory;
pub mod reload;
pub mod saving;
pub mod syntax;
mod transaction;

use crate::command::{Command, Table};

/// The commands of this layer.
pub static GROUPS: &[&[&Command]] = &[
    connection::COMMANDS,
    client::COMMANDS,
    command_info::COMMANDS,
    config::COMMANDS,
    admin::COMMANDS,
    debug::COMMANDS,
    memory::COMMANDS,
    transaction::COMMANDS,
];

/// All commands of the server.
pub fn table() -> Table {
    let groups: Vec<&[&'static Command]> = crate::command::GROUPS.iter().chain(GROUPS).copied().collect();
    Table::new(&groups)
}

#[cfg(test)]
mod compatibility_tests;
#[cfg(test)]
mod facts_tests;
#[cfg(test)]
mod testing;
