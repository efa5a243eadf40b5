//! The virtual machine of a thread, and one run of a script in it.
//!
//! Each worker has one, made when its first script runs, and further ones while scripts are left in the middle. Scripts
//! leave nothing in it but the state of `math.random`: what they can reach is read-only, `KEYS` and `ARGV` are filled
//! anew, and the options of `cjson` begin again.
//!
//! Invariants:
//! - A run ends when [`Host::stop`] says so, also in an endless loop, in `pcall` and in a pattern.
//! - The memory of a machine is limited; one that has grown is thrown away after the run.
//! - A panic under a run costs the machine, and nothing else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mlua::StdLib;
use mlua::chunk::{Chunk, ChunkMode, Compiler};
use mlua::prelude::*;

use super::host::{self, Access, Caught, Host, Job, LogLevel, Machine, Takes};
use super::library::{Fault, Given, Returned, cast, fault, guarded, number_of, one, string};
use super::{bits, cjson, cmsgpack, packing, random, source};
use crate::base::version::{REDIS_VERSION, REDIS_VERSION_NUM};
use crate::core::scripts::{Script, Sha};
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Output, Resp};

/// A machine that has more than this after a run is collected, and thrown away if that does not help.
const MEMORY_KEPT: usize = 32 << 20;
/// How many machines that are not in use a thread keeps.
const IDLE_MAX: usize = 4;
/// How many compiled scripts a machine keeps.
const COMPILED_MAX: usize = 1000;
/// A script is called this in errors.
const CHUNK: &str = "@user_script";

/// One run.
#[derive(Debug)]
pub struct Run<'a> {
    /// What to run.
    pub script: &'a Arc<Script>,
    /// The words of the call.
    pub args: Args<'a>,
    /// Where `KEYS` begins among them, and how many there are. Behind them is `ARGV`.
    pub keys_at: usize,
    /// See `keys_at`.
    pub keys_count: usize,
    /// The client's version of the protocol.
    pub resp: Resp,
    /// The memory that the machine may take, in bytes.
    pub memory_max: usize,
}

/// Why a script did not run to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be compiled: the text.
    Compile(Vec<u8>),
    /// It failed: the text of the error, without its code if it has none.
    Error(Vec<u8>),
    /// The same, and the error is one of a command that it has called.
    OfCommand(Vec<u8>),
    /// There is no memory for it, or the engine failed.
    Engine(String),
}

/// The virtual machine of a thread.
#[derive(Debug)]
pub struct Vm {
    /// It goes before `lua`, of which it is a part.
    pub(super) machine: Machine,
    pub(super) lua: Lua,
    /// References to compiled scripts, by their number.
    compiled: HashMap<u64, c_int, ByNumber>,
    /// The generation of the scripts that are compiled here.
    generation: u64,
    /// What it takes, as counted last, in bytes.
    counted: usize,
}

/// What all machines take, as counted last, in bytes.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// What the machines of all threads take, after their last runs, in bytes.
pub fn machine_bytes() -> usize {
    BYTES.load(Relaxed)
}

impl Drop for Vm {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.counted, Relaxed);
    }
}

thread_local! {
    /// Those of this thread that are not in use: a script that is left in the middle keeps its own.
    static MACHINES: RefCell<Vec<Vm>> = const { RefCell::new(Vec::new()) };
}

/// Numbers of scripts are their own hashes.
type ByNumber = std::hash::BuildHasherDefault<NumberHasher>;

/// See [`ByNumber`].
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl std::hash::Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a number is hashed as one");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Uses a machine of this thread that is not in use, or a new one.
///
/// # Errors
/// There is no memory for one.
pub fn with_vm<R>(generation: u64, run: impl FnOnce(&mut Vm) -> R) -> Result<R, Failure> {
    let idle = MACHINES.with_borrow_mut(Vec::pop);
    let mut vm = match idle {
        Some(vm) => vm,
        None => Vm::new(cjson::functions).map_err(failure)?,
    };
    if vm.generation != generation {
        vm.forget_all();
        vm.generation = generation;
    }
    let result = run(&mut vm);
    if vm.is_worth_keeping() {
        MACHINES.with_borrow_mut(|idle| {
            if idle.len() < IDLE_MAX {
                idle.push(vm);
            }
        });
    }
    Ok(result)
}

impl Vm {
    /// One for functions, which any thread may use: it shares nothing with this thread.
    pub(super) fn of_functions(options: &cjson::OwnOptions) -> LuaResult<Vm> {
        Vm::new(|lua| options.functions(lua))
    }

    fn new(cjson: impl FnOnce(&Lua) -> LuaResult<LuaTable>) -> LuaResult<Vm> {
        let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::new())?;
        let (keys, arguments) = (lua.create_table()?, lua.create_table()?);
        let raw = lua.create_table()?;
        raw.raw_set("keys", &keys)?;
        raw.raw_set("arguments", &arguments)?;
        raw.raw_set("null", LuaValue::NULL)?;
        raw.raw_set("bit", bits::functions(&lua)?)?;
        raw.raw_set("struct", packing::functions(&lua)?)?;
        raw.raw_set("cmsgpack", cmsgpack::functions(&lua)?)?;
        raw.raw_set("cjson", cjson(&lua)?)?;
        raw.raw_set("random", random::functions(&lua)?)?;
        raw.raw_set("redis", server_functions(&lua)?)?;
        raw.raw_set("constants", constants(&lua)?)?;
        let (call, pcall) = host::callers(&lua)?;
        raw.raw_set("call", call)?;
        raw.raw_set("pcall", pcall)?;
        raw.raw_set("compile", guarded(&lua, compile)?)?;
        raw.raw_set("clock", lua.create_function(|_, ()| Ok(cpu_seconds()))?)?;
        let globals = lua.globals();
        let prelude = lua.load(include_str!("prelude.lua")).set_name("=redis").set_mode(ChunkMode::Text);
        let handler: LuaFunction = prelude.call((raw, &globals))?;
        globals.set_safeenv(true);
        let machine = Machine::new(&lua, &keys, &arguments, &handler)?;
        Ok(Vm { machine, lua, compiled: HashMap::default(), generation: 0, counted: 0 })
    }

    fn forget_all(&mut self) {
        for (_, reference) in self.compiled.drain() {
            self.machine.forget(reference);
        }
    }

    /// Whether the next script may use it.
    pub(super) fn is_worth_keeping(&mut self) -> bool {
        let mut used = self.lua.used_memory();
        if used > MEMORY_KEPT && self.lua.gc_collect().is_ok() {
            used = self.lua.used_memory();
        }
        if used != self.counted {
            BYTES.fetch_add(used.wrapping_sub(self.counted), Relaxed);
            self.counted = used;
        }
        used <= MEMORY_KEPT
    }

    /// Sets how many bytes it may take, and collects garbage if it is near that: what a script may use must not
    /// depend on what the one before has left.
    ///
    /// # Errors
    /// The engine failed.
    pub(super) fn limit_memory(&self, memory_max: usize) -> Result<(), Failure> {
        if self.lua.used_memory() > memory_max / 2 {
            self.lua.gc_collect().map_err(failure)?;
        }
        self.lua.set_memory_limit(memory_max).map(drop).map_err(failure)
    }

    /// Compiles a script, unless it has been.
    ///
    /// # Errors
    /// It is no Lua.
    pub fn prepare(&mut self, script: &Script) -> Result<(), Failure> {
        self.function(script).map(drop)
    }

    fn function(&mut self, script: &Script) -> Result<c_int, Failure> {
        if let Some(function) = self.compiled.get(&script.number) {
            return Ok(*function);
        }
        let compile = || {
            let compiled = compiled(&self.lua, source::without_first_line(&script.body), CHUNK);
            compiled.and_then(|function| host::keep(&self.lua, function))
        };
        let function = match compile() {
            // The garbage of the script before may be in the way.
            Err(LuaError::MemoryError(_)) => self.lua.gc_collect().and_then(|()| compile()),
            compiled => compiled,
        };
        let function = function.map_err(|error| {
            let text = format!("ERR Error compiling script (new function): {}", words(&error));
            Failure::Compile(text.into_bytes())
        })?;
        if self.compiled.len() >= COMPILED_MAX {
            self.forget_all();
        }
        self.compiled.insert(script.number, function);
        Ok(function)
    }

    /// Runs a script, which asks this host, and writes its reply.
    ///
    /// # Errors
    /// It did not run to its end. What it has done stands, unless the caller takes it back.
    pub fn run(&mut self, run: Run<'_>, host: &mut dyn Host, out: &mut Output) -> Result<(), Failure> {
        self.limit_memory(run.memory_max)?;
        let function = self.function(run.script)?;
        cjson::reset();
        let keys = run.keys_at..run.keys_at + run.keys_count;
        let job = Job { function, args: run.args, keys, takes: Takes::Globals, resp: run.resp, out };
        self.reply_of(job, run.script.sha.as_str(), host)
    }

    /// Runs a job, which asks this host. Errors give it this name.
    ///
    /// # Errors
    /// It did not run to its end.
    pub(super) fn reply_of(&mut self, job: Job<'_>, name: &str, host: &mut dyn Host) -> Result<(), Failure> {
        match self.machine.run(host, job) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(caught)) if caught.is_of_command => Err(Failure::OfCommand(described(caught, name))),
            Ok(Err(caught)) => Err(Failure::Error(described(caught, name))),
            Err(text) => Err(Failure::Engine(String::from_utf8_lossy(&text).into_owned())),
        }
    }
}

/// The text of an error that a script did not catch.
fn described(caught: Caught, name: &str) -> Vec<u8> {
    let Caught { mut text, source, line, .. } = caught;
    text.extend_from_slice(b" script: ");
    text.extend_from_slice(name.as_bytes());
    if source.is_empty() {
        text.push(b'.');
    } else {
        text.extend_from_slice(b", on @");
        text.extend_from_slice(&source);
        text.extend_from_slice(format!(":{line}.").as_bytes());
    }
    text
}

/// A failure of the engine itself.
pub(super) fn failure(error: LuaError) -> Failure {
    Failure::Engine(words(&error))
}

/// What the engine says of a failure, without its own trace.
pub(super) fn words(error: &LuaError) -> String {
    let text = match error {
        LuaError::SyntaxError { message, .. } => message.clone(),
        LuaError::RuntimeError(message) => message.clone(),
        LuaError::MemoryError(_) => "not enough memory".to_owned(),
        LuaError::CallbackError { cause, .. } => return words(cause),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
}

/// Compiles a text.
fn compiled(lua: &Lua, text: &[u8], name: &str) -> LuaResult<LuaFunction> {
    chunk(lua, text, name).into_function()
}

/// Compiles a text that finds its globals in this table.
pub(super) fn compiled_in(lua: &Lua, text: &[u8], name: &str, globals: &LuaTable) -> LuaResult<LuaFunction> {
    chunk(lua, text, name).set_environment(globals.clone()).into_function()
}

fn chunk<'a>(lua: &Lua, text: &'a [u8], name: &str) -> Chunk<'a> {
    let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
    lua.load(text).set_name(name).set_mode(ChunkMode::Text).set_compiler(compiler)
}

/// `loadstring`: a function, or nil and what is wrong.
fn compile(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("loadstring", &arguments);
    let text = given.bytes(1)?;
    let name = match given.at(2) {
        LuaValue::String(name) => String::from_utf8_lossy(&name.as_bytes()).into_owned(),
        _ => format!("=[string \"{}\"]", first_line_shown(&text)),
    };
    match compiled(lua, &text, &name) {
        Ok(function) => one(LuaValue::Function(function)),
        Err(error @ LuaError::SyntaxError { .. }) => {
            let problem = lua.create_string(words(&error))?;
            Ok(LuaMultiValue::from_iter([LuaValue::Nil, LuaValue::String(problem)]))
        }
        Err(error) => Err(Fault::Engine(error)),
    }
}

fn first_line_shown(text: &[u8]) -> String {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(40).collect()
}

/// The CPU time of the process, for `os.clock`.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The words of a command.
fn words_of(arguments: &LuaMultiValue) -> Result<OwnedArgs, &'static str> {
    const WRONG: &str = "ERR Lua redis lib command arguments must be strings or integers";
    if arguments.is_empty() {
        return Err("ERR Please specify at least one argument for this redis lib call");
    }
    let mut words: Vec<Vec<u8>> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        words.push(match argument {
            LuaValue::String(text) => text.as_bytes().to_vec(),
            LuaValue::Integer(number) => number.to_string().into_bytes(),
            LuaValue::Number(number) => {
                let mut text = Vec::new();
                host::write_word(&mut text, *number);
                text
            }
            _ => return Err(WRONG),
        });
    }
    Ok(OwnedArgs::new(words.iter().map(Vec::as_slice)))
}

fn log(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("log", &arguments);
    if given.len() < 2 {
        return fault("ERR redis.log() requires two arguments or more.");
    }
    let Some(level) = number_of(given.at(1)) else {
        return fault("ERR First argument must be a number (log level).");
    };
    let level = match cast(level) {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return fault("ERR Invalid debug level."),
    };
    let mut line = Vec::new();
    for position in 2..=given.len() {
        if position > 2 {
            line.push(b' ');
        }
        // What is no text is left out, as in Redis.
        line.extend_from_slice(&given.bytes(position).unwrap_or_default());
    }
    host::ask(|host| host.log(level, &String::from_utf8_lossy(&line)));
    Ok(LuaMultiValue::new())
}

fn sha1hex(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("sha1hex", &arguments);
    if given.len() != 1 {
        return fault("ERR wrong number of arguments");
    }
    string(lua, Sha::of(&given.bytes(1).unwrap_or_default()).as_str())
}

fn setresp(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("setresp", &arguments);
    if given.len() != 1 {
        return fault("ERR redis.setresp() requires one argument.");
    }
    match number_of(given.at(1)) {
        Some(2.0) => host::set_resp(Resp::V2),
        Some(3.0) => host::set_resp(Resp::V3),
        _ => return fault("ERR RESP version must be 2 or 3."),
    }
    Ok(LuaMultiValue::new())
}

/// All effects are logged: what a client was told must survive. So this checks its argument and changes nothing.
fn set_repl(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("set_repl", &arguments);
    if given.len() != 1 {
        return fault("ERR redis.set_repl() requires two arguments.");
    }
    match number_of(given.at(1)).map(cast) {
        Some(0..=3) => Ok(LuaMultiValue::new()),
        _ => fault("ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."),
    }
}

fn acl_check_cmd(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let args = match words_of(&arguments) {
        Ok(args) => args,
        Err(text) => return fault(text),
    };
    match host::ask(|host| host.may(args.args())) {
        Some(Access::Allowed) => one(LuaValue::Boolean(true)),
        Some(Access::Denied) => one(LuaValue::Boolean(false)),
        _ => fault("ERR Invalid command passed to redis.acl_check_cmd()"),
    }
}

fn server_functions(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    let functions: [(&str, super::library::Library); 5] = [
        ("log", log),
        ("sha1hex", sha1hex),
        ("setresp", setresp),
        ("set_repl", set_repl),
        ("acl_check_cmd", acl_check_cmd),
    ];
    for (name, function) in functions {
        table.raw_set(name, guarded(lua, function)?)?;
    }
    Ok(table)
}

fn constants(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    for (name, value) in [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
        ("REDIS_VERSION_NUM", REDIS_VERSION_NUM),
    ] {
        table.raw_set(name, value)?;
    }
    table.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    Ok(table)
}
