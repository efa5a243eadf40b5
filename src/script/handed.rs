//! Hands the machine of functions that run alone from thread to thread: each uses it in its turn.
//!
//! The engine's handles count their references without atomic operations, so they are not `Send`. The machine may
//! move nevertheless, as a whole, because it shares nothing with the thread that it leaves.

use std::sync::Arc;

use super::engine::Failure;
use super::functions::{FunctionMachine, SETTLE_TIMEOUT};
use super::{WORKER_STACK_BYTES, source};
use crate::base::logging;
use crate::core::functions::Functions;
use crate::keyspace::{Keyspace, Libraries};

/// A machine on its way to the thread that uses it next.
#[derive(Debug)]
struct Handed(FunctionMachine);

// SAFETY: 1. All handles to the engine's state are inside the machine: its fields are private to `functions.rs`, which
// hands out copies of libraries and no handle. So all reference counts of the engine move together, and one thread at a
// time owns them. 2. What our own functions in the state share (the options of cjson) was made for this machine,
// which has the one other handle to it: `OwnOptions`. 3. Neither the engine nor `mlua` keep a machine's state in
// thread-local variables; ours (`host.rs`, `engine.rs`, `random.rs`) hold no handle to it, and belong to the thread
// that runs. Machines that `aside.rs` keeps for a thread are others, and are never handed on.
unsafe impl Send for Handed {}

/// Uses the machine of functions, whose libraries are known by the keyspace. The caller is alone behind the gate, or
/// nobody else runs yet.
///
/// # Errors
/// There is no memory for one.
pub fn with_machine<R>(
    functions: &Functions,
    memory_max: usize,
    work: impl FnOnce(&mut FunctionMachine) -> R,
) -> Result<R, Failure> {
    let taken = functions.take().and_then(|machine| machine.downcast::<Handed>().ok());
    let mut machine = match taken {
        Some(machine) => {
            let Handed(machine) = *machine;
            machine.limit_memory(memory_max)?;
            machine
        }
        None => FunctionMachine::new(memory_max)?,
    };
    // If this panics, the machine is lost.
    let result = work(&mut machine);
    let memory = machine.memory();
    functions.put_back(Box::new(Handed(machine)), memory);
    Ok(result)
}

/// Reads the libraries of which nothing is known but their text: those that came from the disk.
///
/// One that cannot be read any more stays, and has no functions: nothing stored is lost.
pub fn settle(functions: &Functions, keyspace: &Keyspace, memory_max: usize) {
    functions.drop_machine();
    let libraries = keyspace.libraries();
    if libraries.is_empty() {
        return;
    }
    // Lua recurses deeper than the stack of an ordinary thread allows.
    let thread = std::thread::Builder::new().name("libraries".into()).stack_size(WORKER_STACK_BYTES);
    let settled = std::thread::scope(|scope| {
        let thread = thread.spawn_scoped(scope, || settle_here(functions, &libraries, memory_max))?;
        thread.join().map_err(|_| std::io::Error::other("it panicked"))
    });
    match settled {
        Ok(Ok(settled)) => drop(keyspace.replace_libraries(Arc::new(settled))),
        Ok(Err(failure)) => logging::warning(format_args!("No library of functions was loaded: {failure:?}")),
        Err(error) => logging::warning(format_args!("No library of functions was loaded: {error}")),
    }
}

fn settle_here(functions: &Functions, libraries: &Libraries, memory_max: usize) -> Result<Libraries, Failure> {
    with_machine(functions, memory_max, |machine| {
        let (mut settled, mut all) = (Libraries::default(), Vec::new());
        for library in libraries.iter() {
            let read = source::library(&library.code).and_then(|source| machine.read(&source, SETTLE_TIMEOUT));
            match read {
                Ok(read) => {
                    settled.insert(Arc::clone(read.library()));
                    all.push(read);
                }
                Err(error) => {
                    let name = logging::user_data(String::from_utf8_lossy(&library.name));
                    logging::warning(format_args!(
                        "The library '{name}' has no functions, it cannot be loaded: {error}"
                    ));
                    settled.insert(Arc::clone(library));
                }
            }
        }
        machine.keep(all, &settled);
        settled
    })
}
