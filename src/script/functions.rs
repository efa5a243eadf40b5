//! A machine with libraries of functions, and what it learns of a library.
//!
//! A library may keep state from call to call. Those that do are called in one machine for all workers, which one
//! thread uses at a time (`handed.rs`). The others are called side by side in machines of the workers (`aside.rs`).
//! Whether a library does is seen after each call: is all that its functions reach as it was when it was loaded? A call
//! that leaves it so depends on no call before it, and no later one on it: it does not matter which machine it ran in.
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
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mlua::chunk::ChunkMode;
use mlua::prelude::*;

use super::cjson::OwnOptions;
use super::engine::{self, Failure, Vm};
use super::host::{self, Access, Flow, Host, Job, LogLevel, Takes};
use super::source::{self, LibrarySource};
use crate::core::CommandError;
use crate::core::scripts::ScriptFlags;
use crate::keyspace::libraries::Shown;
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
    /// The options of `cjson`, which all libraries share.
    options: OwnOptions,
    /// The metatables of the tables in which a library finds its globals: while it is loaded, and afterwards.
    while_loading: LuaTable,
    while_running: LuaTable,
    /// Names the table into which functions are registered.
    register_in: LuaFunction,
    /// Makes the function that sees whether a library keeps state.
    watch: LuaFunction,
    /// The libraries that were there when it was last asked to follow them.
    followed: Weak<Libraries>,
    /// Whether libraries write no lines while they are loaded.
    is_silent: bool,
    loaded: HashMap<Box<[u8]>, Loaded>,
}

/// A library in the machine.
#[derive(Debug)]
struct Loaded {
    library: Arc<Library>,
    /// References to its functions, in their order.
    functions: Vec<c_int>,
    /// A reference to the function that fails if the library's state has changed; `None` if that cannot be seen.
    watch: Option<c_int>,
}

impl Loaded {
    fn references(&self) -> impl Iterator<Item = c_int> {
        self.functions.iter().copied().chain(self.watch)
    }
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
        let options = OwnOptions::new();
        let vm = Vm::of_functions(&options)?;
        let lua = &vm.lua;
        lua.set_memory_limit(memory_max)?;
        let read_only = lua.create_function(|_, table: LuaTable| {
            table.set_readonly(true);
            Ok(())
        })?;
        // The name is that of the prelude: errors name no line of either.
        let extended = lua.load(include_str!("functions.lua")).set_name("=redis").set_mode(ChunkMode::Text);
        let (upvalues, upvalues_are) = host::upvalue_readers(lua)?;
        let (while_loading, while_running, register_in, watch) =
            extended.call((lua.globals(), read_only, upvalues, upvalues_are))?;
        let (followed, loaded) = (Weak::new(), HashMap::new());
        Ok(FunctionMachine {
            vm,
            options,
            while_loading,
            while_running,
            register_in,
            watch,
            followed,
            is_silent: false,
            loaded,
        })
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
        let mut host = LoadHost { until: Some(Instant::now() + timeout), is_silent: self.is_silent };
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
            callbacks.push(callback);
        }
        if functions.is_empty() {
            return Err(CommandError::Text("ERR No functions registered"));
        }
        globals.set_readonly(false);
        globals.set_metatable(Some(self.while_running.clone())).map_err(engine)?;
        globals.set_readonly(true);
        let library = Arc::new(Library { functions, ..Library::unread(name, text) });
        let watch = lua.create_sequence_from(&callbacks).and_then(|all| self.watch.call::<Option<LuaFunction>>(all));
        let watch = watch.and_then(|watch| watch.map(|watch| host::keep(&lua, watch)).transpose()).map_err(engine)?;
        let kept: LuaResult<Vec<c_int>> = callbacks.into_iter().map(|callback| host::keep(&lua, callback)).collect();
        Ok(Read(Loaded { library, functions: kept.map_err(engine)?, watch }))
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
                loaded.references().for_each(|reference| machine.forget(reference));
            }
            stays
        });
    }

    /// Forgets what was read and is not wanted.
    pub fn discard(&mut self, read: Vec<Read>) {
        read.iter().flat_map(|Read(loaded)| loaded.references()).for_each(|one| self.vm.machine.forget(one));
    }

    fn insert(&mut self, loaded: Loaded) {
        if let Some(before) = self.loaded.insert(loaded.library.name.clone(), loaded) {
            before.references().for_each(|reference| self.vm.machine.forget(reference));
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

    /// Whether a call of this library, which has just ended, has left something in it. So it is if that cannot be
    /// known.
    pub fn leaves_state(&mut self, library: &Arc<Library>) -> bool {
        let loaded = self.loaded.get(&library.name).filter(|loaded| Arc::ptr_eq(&loaded.library, library));
        let Some(function) = loaded.and_then(|loaded| loaded.watch) else { return true };
        let (args, mut out) = (Args::new(&[], &[]), Output::new());
        let mut host = LoadHost { until: None, is_silent: true };
        let job = Job { function, args, keys: 0..0, takes: Takes::Nothing, resp: Resp::V2, out: &mut out };
        !matches!(self.vm.machine.run(&mut host, job), Ok(Ok(())))
    }

    /// Notes of a library whether this call of it has left something. One that does is not watched any longer, which
    /// would keep in memory what its functions have dropped.
    pub fn note_state(&mut self, library: &Arc<Library>) {
        if !library.keeps_state.is_so() && self.leaves_state(library) {
            library.keeps_state.note();
        }
        if library.keeps_state.is_so()
            && let Some(watch) = self.loaded.get_mut(&library.name).and_then(|loaded| loaded.watch.take())
        {
            self.vm.machine.forget(watch);
        }
    }

    /// Whether a call has left something that all libraries share.
    pub fn is_altered(&self) -> bool {
        !self.options.are_default()
    }

    /// Forgets what a call of this library has left.
    pub(super) fn begin_anew(&mut self, library: &Arc<Library>) {
        self.options.reset();
        if let Some(loaded) = self.loaded.remove(&library.name) {
            loaded.references().for_each(|reference| self.vm.machine.forget(reference));
        }
    }

    /// Forgets libraries that are not among these any more. One that follows says nothing while it loads a library:
    /// that was said when the library came.
    pub(super) fn follow(&mut self, all: &Arc<Libraries>) {
        self.is_silent = true;
        if self.followed.as_ptr() != Arc::as_ptr(all) {
            self.keep(Vec::new(), all);
            self.followed = Arc::downgrade(all);
        }
    }

    /// Whether another call may use it.
    pub(super) fn is_worth_keeping(&mut self) -> bool {
        self.vm.is_worth_keeping()
    }

    fn function(&mut self, library: &Arc<Library>, at: usize) -> Result<c_int, Failure> {
        let is_loaded = self.loaded.get(&library.name).is_some_and(|loaded| Arc::ptr_eq(&loaded.library, library));
        if !is_loaded {
            let read = source::library(&library.code).and_then(|source| self.read(&source, SETTLE_TIMEOUT));
            let Read(read) = read.map_err(|error| Failure::Error(error.wire().into()))?;
            self.insert(Loaded { library: Arc::clone(library), ..read });
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
    let function = Function {
        name: bytes(row.raw_get("name")?),
        description: description.map(bytes),
        flags,
        runs_alone: Shown::default(),
    };
    Ok((function, row.raw_get("callback")?))
}

/// What the text of a library is told while it is loaded.
struct LoadHost {
    /// When it is ended; `None` for what is ours.
    until: Option<Instant>,
    is_silent: bool,
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
        if !self.is_silent {
            level.write(line);
        }
    }

    fn stop(&mut self) -> Option<&'static str> {
        self.until.is_some_and(|until| Instant::now() > until).then_some(TIMEOUT)
    }
}
