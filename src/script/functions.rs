//! The machine of the libraries of functions, and what it learns of a library.
//!
//! Libraries keep state from call to call, so there is one machine for all workers, which one thread uses at a time.
//!
//! ```text
//! text ─ first line: name ─ compile ─ run, with nothing but redis.register_function ─ functions
//! FCALL ─ function(keys, arguments), with what a script finds but for KEYS and ARGV ─ reply
//! ```
//!
//! Invariants:
//! - What a library's text can reach while it is loaded changes no other library, and no key.
//! - A text that fails, or takes too long, leaves what was there before.
//! - The machine holds functions of libraries alone that are handed to it with each use. If it is lost, in a panic,
//!   the next one loads them again: they begin anew.

use std::collections::HashMap;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::chunk::ChunkMode;
use mlua::prelude::*;

use super::engine::{self, Failure, Vm};
use super::host::{self, Access, Flow, Host, Job, LogLevel, Takes};
use super::source::{self, LibrarySource};
use crate::core::CommandError;
use crate::core::scripts::ScriptFlags;
use crate::keyspace::{Function, Libraries, Library};
use crate::resp::{Args, Output, Resp};

/// Functions are called this in errors.
const CHUNK: &str = "@user_function";
/// How long the text of a library may run while FUNCTION LOAD loads it,
pub const LOAD_TIMEOUT: Duration = Duration::from_millis(500);
/// and when it is loaded again, which it must not fail just because the machine is slow.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// What ends it then.
const TIMEOUT: &str = "FUNCTION LOAD timeout";

/// See the module.
#[derive(Debug)]
pub struct FunctionMachine {
    vm: Vm,
    /// The metatables of the tables in which a library finds its globals: while it is loaded, and afterwards.
    while_loading: LuaTable,
    while_running: LuaTable,
    /// Names the table into which functions are registered.
    register_in: LuaFunction,
    loaded: HashMap<Box<[u8]>, Loaded>,
}

/// A library in the machine.
#[derive(Debug)]
struct Loaded {
    library: Arc<Library>,
    /// References to its functions, in their order.
    functions: Vec<c_int>,
}

/// A library that was read, and is not in the machine yet.
#[derive(Debug)]
pub struct Read(Loaded);

impl Read {
    /// The library.
    pub fn library(&self) -> &Arc<Library> {
        &self.0.library
    }
}

/// One call of a function.
#[derive(Debug)]
pub struct FunctionCall<'a> {
    /// The library, and which of its functions.
    pub library: &'a Arc<Library>,
    /// See `library`.
    pub at: usize,
    /// The words of the call, and which of them are the first argument. Those behind them are the second one.
    pub args: Args<'a>,
    /// See `args`.
    pub keys: Range<usize>,
    /// The client's version of the protocol.
    pub resp: Resp,
}

impl FunctionMachine {
    /// A machine without libraries, which may take so many bytes.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(memory_max: usize) -> Result<FunctionMachine, Failure> {
        FunctionMachine::make(memory_max).map_err(engine::failure)
    }

    fn make(memory_max: usize) -> LuaResult<FunctionMachine> {
        let vm = Vm::of_functions()?;
        let lua = &vm.lua;
        lua.set_memory_limit(memory_max)?;
        let read_only = lua.create_function(|_, table: LuaTable| {
            table.set_readonly(true);
            Ok(())
        })?;
        // The name is that of the prelude: errors name no line of either.
        let extended = lua.load(include_str!("functions.lua")).set_name("=redis").set_mode(ChunkMode::Text);
        let (while_loading, while_running, register_in) = extended.call((lua.globals(), read_only))?;
        Ok(FunctionMachine { vm, while_loading, while_running, register_in, loaded: HashMap::new() })
    }

    /// The bytes that it takes.
    pub fn memory(&self) -> usize {
        self.vm.lua.used_memory()
    }

    /// Sets how many bytes it may take, and collects garbage if it is near that.
    ///
    /// # Errors
    /// The engine failed.
    pub fn limit_memory(&self, memory_max: usize) -> Result<(), Failure> {
        self.vm.limit_memory(memory_max)
    }

    /// Reads a library: compiles its text and has it register its functions.
    ///
    /// # Errors
    /// Those of Redis, and nothing is kept of it.
    pub fn read(&mut self, source: &LibrarySource<'_>, timeout: Duration) -> Result<Read, CommandError> {
        let LibrarySource { name, text, body } = source;
        let lua = self.vm.lua.clone();
        let engine = |error: LuaError| CommandError::Message(format!("ERR {}", engine::words(&error)));
        let globals = lua.create_table().map_err(engine)?;
        globals.set_metatable(Some(self.while_loading.clone())).map_err(engine)?;
        globals.set_readonly(true);
        let chunk = engine::compiled_in(&lua, body, CHUNK, &globals).map_err(|error| {
            CommandError::Message(format!("ERR Error compiling function: {}", engine::words(&error)))
        })?;
        let registered = lua.create_table().map_err(engine)?;
        self.register_in.call::<()>(&registered).map_err(engine)?;
        let mut host = LoadHost { until: Instant::now() + timeout };
        let function = host::keep(&lua, chunk).map_err(engine)?;
        let (args, mut out) = (Args::new(&[], &[]), Output::new());
        let job = Job { function, args, keys: 0..0, takes: Takes::Nothing, resp: Resp::V2, out: &mut out };
        let ended = self.vm.machine.run(&mut host, job);
        self.vm.machine.forget(function);
        self.register_in.call::<()>(LuaValue::Nil).map_err(engine)?;
        let problem = match ended {
            Ok(Ok(())) => None,
            Ok(Err(caught)) => Some(caught.text),
            Err(text) => Some([b"ERR ", &*text].concat()),
        };
        if let Some(problem) = problem {
            return Err(CommandError::Echo([b"ERR Error registering functions: ", &*problem].concat()));
        }
        let (mut functions, mut callbacks) = (Vec::new(), Vec::new());
        for row in registered.sequence_values::<LuaTable>() {
            let (function, callback) = row.and_then(|row| function_of(&row)).map_err(engine)?;
            functions.push(function);
            callbacks.push(host::keep(&lua, callback).map_err(engine)?);
        }
        if functions.is_empty() {
            return Err(CommandError::Text("ERR No functions registered"));
        }
        globals.set_readonly(false);
        globals.set_metatable(Some(self.while_running.clone())).map_err(engine)?;
        globals.set_readonly(true);
        let library = Arc::new(Library { functions, ..Library::unread(name, text) });
        Ok(Read(Loaded { library, functions: callbacks }))
    }

    /// Takes over what was read, and forgets libraries that are not among these.
    pub fn keep(&mut self, read: Vec<Read>, all: &Libraries) {
        for Read(loaded) in read {
            self.insert(loaded);
        }
        let machine = &self.vm.machine;
        self.loaded.retain(|name, loaded| {
            let stays = all.get(name).is_some_and(|library| Arc::ptr_eq(library, &loaded.library));
            if !stays {
                loaded.functions.iter().for_each(|function| machine.forget(*function));
            }
            stays
        });
    }

    /// Forgets what was read and is not wanted.
    pub fn discard(&mut self, read: Vec<Read>) {
        read.iter().flat_map(|Read(loaded)| &loaded.functions).for_each(|function| self.vm.machine.forget(*function));
    }

    fn insert(&mut self, loaded: Loaded) {
        if let Some(before) = self.loaded.insert(loaded.library.name.clone(), loaded) {
            before.functions.iter().for_each(|function| self.vm.machine.forget(*function));
        }
    }

    /// Calls a function, which asks this host, and writes its reply.
    ///
    /// # Errors
    /// It did not run to its end.
    pub fn call(&mut self, call: FunctionCall<'_>, host: &mut dyn Host, out: &mut Output) -> Result<(), Failure> {
        let function = self.function(call.library, call.at)?;
        let name = call.library.functions.get(call.at).map_or(&b""[..], |function| &function.name);
        let name = String::from_utf8_lossy(name);
        let FunctionCall { args, keys, resp, .. } = call;
        self.vm.reply_of(Job { function, args, keys, takes: Takes::Arguments, resp, out }, &name, host)
    }

    fn function(&mut self, library: &Arc<Library>, at: usize) -> Result<c_int, Failure> {
        let is_loaded = self.loaded.get(&library.name).is_some_and(|loaded| Arc::ptr_eq(&loaded.library, library));
        if !is_loaded {
            let read = source::library(&library.code).and_then(|source| self.read(&source, SETTLE_TIMEOUT));
            let Read(read) = read.map_err(|error| Failure::Error(error.wire().into()))?;
            self.insert(Loaded { library: Arc::clone(library), functions: read.functions });
        }
        let function = self.loaded.get(&library.name).and_then(|loaded| loaded.functions.get(at));
        function.copied().ok_or_else(|| Failure::Error(b"ERR Function not found".to_vec()))
    }
}

/// One function as the text of a library registered it.
fn function_of(row: &LuaTable) -> LuaResult<(Function, LuaFunction)> {
    let bytes = |value: LuaString| Box::<[u8]>::from(&*value.as_bytes());
    let mut flags = ScriptFlags { declared: true, ..ScriptFlags::default() };
    let names: LuaString = row.raw_get("flags")?;
    for name in names.as_bytes().split(|byte| *byte == b',').filter(|name| !name.is_empty()) {
        flags.set(name).map_err(|_| LuaError::runtime("a flag that was checked before"))?;
    }
    let description: Option<LuaString> = row.raw_get("description")?;
    let function = Function { name: bytes(row.raw_get("name")?), description: description.map(bytes), flags };
    Ok((function, row.raw_get("callback")?))
}

/// What the text of a library is told while it is loaded.
struct LoadHost {
    until: Instant,
}

impl Host for LoadHost {
    /// Nothing that it could call this by is within its reach.
    fn call(&mut self, _: Args<'_>, _: Resp, out: &mut Output) -> Flow {
        out.error_bytes(b"ERR redis.call/pcall can only be called inside a script invocation");
        Flow::GoesOn
    }

    fn may(&self, _: Args<'_>) -> Access {
        Access::Unknown
    }

    fn log(&mut self, level: LogLevel, line: &str) {
        level.write(line);
    }

    fn stop(&mut self) -> Option<&'static str> {
        (Instant::now() > self.until).then_some(TIMEOUT)
    }
}
