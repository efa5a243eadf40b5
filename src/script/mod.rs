//! Scripts: an engine that runs Lua, and nothing else. What a script asks of the server it asks of its [`Host`].
//!
//! ```text
//! exec ── run(script, keys, arguments) ──▶ engine ── redis.call ──▶ Host ── the one path of a command
//!                                             └─ cjson, cmsgpack, struct, bit, math.random: in this room
//! ```
//!
//! | file | job |
//! |---|---|
//! | `engine.rs` | the virtual machine of a thread: sandbox, compiled scripts, one run |
//! | `prelude.lua` | the part of the sandbox that is Lua: errors as Redis has them, `redis.*` |
//! | `functions.rs`, `functions.lua` | a machine with libraries of functions |
//! | `aside.rs` | calls functions side by side, in machines of the thread |
//! | `handed.rs` | hands the machine of functions that run alone from thread to thread |
//! | `host.rs` | how a function is run, and how it reaches the host of the running script |
//! | `convert.rs` | replies to values, values to replies |
//! | `stack.rs` | the stack of a machine, without the wrappers of the engine |
//! | `source.rs` | the first line of a script: `#!lua flags=…` |
//! | `library.rs` | how a library function is made, and fails |
//! | `bits.rs`, `packing.rs`, `cmsgpack.rs`, `cjson/`, `random.rs` | the libraries |
//!
//! Invariants:
//! - Only this room knows the engine's types.
//! - A script sees no files, no network, no clock but `os.clock`, no bytecode, and cannot change what another script
//!   will see: globals and libraries are read-only.
//! - What a script can take is bounded: memory by a limit of the engine, depth by the engine and by each library,
//!   time by [`Host::stop`], which is asked in every loop, call and pattern.
//! - A failure of a script is a text for its client and never a panic.

pub mod aside;
mod bits;
mod cjson;
mod cmsgpack;
mod convert;
mod engine;
pub mod functions;
pub mod handed;
mod host;
mod library;
mod packing;
mod random;
pub mod source;
mod stack;

/// The stack that a thread needs to run scripts: libraries recurse as deep as their limits on nesting allow.
pub const WORKER_STACK_BYTES: usize = 8 << 20;

pub use engine::{Failure, Run, Vm, machine_bytes, with_vm};
pub use host::{Access, Flow, Host, LogLevel};

#[cfg(test)]
mod functions_tests;
#[cfg(test)]
mod tests;
