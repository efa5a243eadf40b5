//! Whether the system may write the memory of the process into a file: `core-dumps`.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Allows core dumps and debuggers, or forbids both.
///
/// # Errors
/// Those of the system.
pub fn allow(allowed: bool) -> io::Result<()> {
    let behavior = if allowed { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(set_dumpable_behavior(behavior)?)
}
