//! Commands that need the connection or the whole server, and the table of all commands.
//!
//! They are declared like those in `command` and run outside the gate. A handler here never holds a shard's lock and
//! never waits. It leaves in [`Client::wait`] what its connection is to wait for.
//!
//! [`Client::wait`]: crate::core::Client::wait

pub mod acl;
pub mod admin;
mod backup_commands;
mod bigkeys_commands;
pub mod client_commands;
mod cluster;
pub mod command_docs;
pub mod command_info;
mod commandlog_commands;
pub mod config;
pub mod connection_commands;
pub mod debug;
mod debug_process;
mod function_commands;
mod himport_commands;
mod hotkeys_commands;
mod latency_commands;
pub mod memory_commands;
mod module_commands;
mod monitor_commands;
mod pubsub_commands;
mod replication_commands;
mod script_commands;
mod slowlog_commands;
pub mod syntax;
pub mod title;
mod tracking_commands;
mod transaction_commands;

use crate::core::{Command, Table};

/// The commands of this layer.
pub static GROUPS: &[&[&Command]] = &[
    connection_commands::COMMANDS,
    client_commands::COMMANDS,
    command_info::COMMANDS,
    config::COMMANDS,
    acl::COMMANDS,
    admin::COMMANDS,
    debug::COMMANDS,
    memory_commands::COMMANDS,
    pubsub_commands::COMMANDS,
    cluster::COMMANDS,
    replication_commands::COMMANDS,
    module_commands::COMMANDS,
    backup_commands::COMMANDS,
    bigkeys_commands::COMMANDS,
    monitor_commands::COMMANDS,
    script_commands::COMMANDS,
    function_commands::COMMANDS,
    slowlog_commands::COMMANDS,
    commandlog_commands::COMMANDS,
    latency_commands::COMMANDS,
    himport_commands::COMMANDS,
    hotkeys_commands::COMMANDS,
    transaction_commands::COMMANDS,
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
