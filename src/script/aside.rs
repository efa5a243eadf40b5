//! Calls functions side by side with those of other workers, in machines of this thread.
//!
//! Invariants:
//! - What a call leaves in a machine is known when it ends. Whatever it is, no later call finds it there.

use std::cell::RefCell;
use std::sync::Arc;

use super::engine::Failure;
use super::functions::{FunctionCall, FunctionMachine};
use super::host::Host;
use crate::keyspace::Libraries;
use crate::resp::Output;

/// How many machines that are not in use a thread keeps.
const IDLE_MAX: usize = 4;

thread_local! {
    /// Those of this thread that are not in use: a function that is left in the middle keeps its own.
    static MACHINES: RefCell<Vec<FunctionMachine>> = const { RefCell::new(Vec::new()) };
}

/// Calls a function of one of these libraries. Returns how that has ended, and whether the call has left state behind,
/// or cannot do without that of others: then it must be taken back, and called in the machine that has the state.
///
/// # Errors
/// There is no memory for a machine.
pub fn call_aside(
    libraries: &Arc<Libraries>,
    memory_max: usize,
    call: FunctionCall<'_>,
    host: &mut dyn Host,
    out: &mut Output,
) -> Result<(Result<(), Failure>, bool), Failure> {
    let mut machine = match MACHINES.with_borrow_mut(Vec::pop) {
        Some(machine) => machine,
        None => FunctionMachine::new(memory_max)?,
    };
    machine.follow(libraries);
    machine.limit_memory(memory_max)?;
    let library = call.library;
    let result = machine.call(call, host, out);
    let leaves_state = machine.leaves_state(library);
    if leaves_state {
        library.keeps_state.note();
    }
    let needs_state = leaves_state || machine.is_altered();
    if needs_state {
        machine.begin_anew(library);
    }
    if machine.is_worth_keeping() {
        MACHINES.with_borrow_mut(|idle| {
            if idle.len() < IDLE_MAX {
                idle.push(machine);
            }
        });
    }
    Ok((result, needs_state))
}
