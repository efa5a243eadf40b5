//! The families of data commands: functions of the keyspace alone, a file or folder per type.
//!
//! Commands that need the connection or the server are declared in `session`, with the same type: [`Command`].
//!
//! Invariants:
//! - A handler checks everything first and changes the keyspace last; on `Err` it has changed nothing.
//! - A handler reads neither the clock nor the configuration: both come with the `Call`.

pub mod bitmap;
pub mod databases;
#[cfg(test)]
mod databases_tests;
pub mod debug_words;
pub mod digest;
pub mod echo;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod keys;
pub mod list;
pub mod set;
pub mod stream;
pub mod string;
pub mod zset;

use crate::core::Command;

/// The data commands, group by group.
pub const GROUPS: &[&[&Command]] = &[
    bitmap::COMMANDS,
    keys::bless::COMMANDS,
    keys::dump::COMMANDS,
    keys::migrate::COMMANDS,
    echo::COMMANDS,
    keys::expire::COMMANDS,
    databases::COMMANDS,
    keys::generic::COMMANDS,
    geo::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    list::COMMANDS,
    keys::object::COMMANDS,
    keys::scan::COMMANDS,
    set::COMMANDS,
    keys::sort::COMMANDS,
    stream::COMMANDS,
    string::COMMANDS,
    zset::COMMANDS,
];
