//! The commands that need their connection or the server, and the table of all commands.

pub mod saving;

use crate::command::{self, Table};

/// Every command of the server.
pub fn table() -> Table {
    Table::new(command::GROUPS)
}
